//! A tree of tasks: one plan a task, and what is decided for all of them together.
//!
//! The areas of all tasks lie side by side in one range that is free in every task, so that each process, which inherits
//! all of them, can go on in its own and unmap the others' like anything else that is old.

use std::collections::BTreeMap;

use armrest_abi::{PAGE_SIZE, Range, Remove, want};
use armrest_images::{Checkpoint, TaskState, VmaKind};

use crate::machine::{Machine, MapRange, OwnMap};
use crate::shm;
use crate::space::Space;
use crate::tree::{self, Tree};
use crate::types::{Exit, Finish, Options, Plan, Refusal, RefusalKind, Refusals};

/// Where a task stands among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its index in the checkpoint.
    pub task: usize,
    /// Helper descriptors begin at this number: above all descriptors of all tasks.
    pub above: u32,
    /// Where its area has to lie.
    pub area: Option<Range>,
}

impl Place {
    /// The first task, as if there were no other.
    pub fn alone(cp: &Checkpoint) -> Place {
        Place {
            task: 0,
            above: above(cp),
            area: None,
        }
    }
}

/// A tree of tasks, decided.
#[derive(Clone, Debug)]
pub struct Forest {
    /// How the processes are made.
    pub tree: Tree,
    /// One plan a task of the checkpoint; none for a zombie.
    pub plans: Vec<Option<Plan>>,
    /// SysV segments that are marked for deletion once all tasks have attached theirs.
    pub removes: Vec<Remove>,
}

impl Forest {
    /// The plan of the root.
    pub fn root(&self) -> Option<&Plan> {
        self.plans.first()?.as_ref()
    }

    /// Plans with the index of their task.
    pub fn each(&self) -> impl Iterator<Item = (usize, &Plan)> {
        self.plans
            .iter()
            .enumerate()
            .filter_map(|(i, p)| Some((i, p.as_ref()?)))
    }
}

/// One above the highest descriptor of any task.
fn above(cp: &Checkpoint) -> u32 {
    let live = cp.tasks.iter().filter_map(|t| t.live.as_ref());
    live.flat_map(|l| &l.fds)
        .map(|f| f.fd + 1)
        .max()
        .unwrap_or(0)
}

/// Bytes of each anonymous shared memory: the end of the last VMA of any task.
pub(crate) fn anon_sizes(cp: &Checkpoint) -> BTreeMap<u64, u64> {
    let mut sizes = BTreeMap::new();
    for v in cp
        .tasks
        .iter()
        .filter_map(|t| t.live.as_ref())
        .flat_map(|l| &l.mm.vmas)
    {
        if let VmaKind::AnonShared { shmid } = v.kind {
            let end = v.offset + u64::from(v.range.size());
            let size = sizes.entry(shmid).or_insert(0);
            *size = end.max(*size);
        }
    }
    sizes
}

/// Decide everything about restoring all tasks of `cp` on `machine`.
///
/// # Errors
/// All refusals of all tasks at once; nothing has been touched.
pub fn forest(cp: &Checkpoint, machine: &Machine, options: &Options) -> Result<Forest, Refusals> {
    let mut refuse = Refused::default();
    let tree = match tree::tree(&cp.tasks) {
        Ok(tree) => tree,
        Err(bad) => {
            for what in bad {
                refuse.add(
                    RefusalKind::Unsupported,
                    what,
                    "no order of births leads there",
                );
            }
            return Err(Refusals(refuse.0));
        }
    };
    if let Some(TaskState::Dead { .. }) = cp.tasks.first().map(|t| t.state) {
        let what = format!("pid {}: a zombie", cp.tasks[0].pid);
        refuse.add(RefusalKind::Unsupported, what, "nothing to restore");
    }
    for t in &cp.tasks {
        if let TaskState::Dead { exit_code } = t.state
            && let Err(why) = tree::possible_end(exit_code)
        {
            let what = format!("pid {}: a zombie that {why}", t.pid);
            refuse.add(RefusalKind::Unsupported, what, "the images are damaged");
        }
    }
    if tree.needs_siblings() && machine.emulated {
        refuse.add(
            RefusalKind::Machine,
            "a session whose leader is gone, or is the task's sibling (CLONE_PARENT)".into(),
            "qemu-user cannot make such processes: restore on a real kernel",
        );
    }
    // By ns_last_pid it may take several tries, and who failed is not the maker's to reap.
    let by_trying = !machine.has_set_tid && !options.any_pid;
    if tree.needs_siblings() && !machine.emulated && by_trying {
        refuse.add(
            RefusalKind::Machine,
            "a session whose leader is gone, or is the task's sibling (CLONE_PARENT)".into(),
            "needs clone3 with set_tid: Linux 5.5 or newer, as root",
        );
    }
    if cp.tasks.len() == 1 {
        return match crate::plan(cp, machine, options) {
            Ok(plan) if refuse.0.is_empty() => Ok(Forest {
                tree,
                plans: vec![Some(plan)],
                removes: Vec::new(),
            }),
            Ok(_) => Err(Refusals(refuse.0)),
            Err(r) => Err(refuse.all(r)),
        };
    }
    let first = each(cp, machine, options, &|_| None, &mut refuse);
    if !refuse.0.is_empty() {
        return Err(Refusals(refuse.0));
    }
    // Tables may grow by some rows when the others' areas are to be unmapped: a page more each.
    let sizes: Vec<u32> = first
        .iter()
        .map(|p| p.as_ref().map_or(0, |p| p.area.all.len() + PAGE_SIZE))
        .collect();
    let Some(slab) = slab(cp, machine, sizes.iter().map(|s| u64::from(*s)).sum()) else {
        let what = "no range that is free in all tasks for their bootstrap areas".into();
        let hint = "the checkpoint and this program fill the address space";
        refuse.add(RefusalKind::Machine, what, hint);
        return Err(Refusals(refuse.0));
    };
    let mut at = slab.start;
    let rooms: Vec<Range> = sizes
        .iter()
        .map(|len| {
            let room = Range {
                start: at,
                end: at + len,
            };
            at += len;
            room
        })
        .collect();
    let with_slab = with_slab(machine, slab);
    let plans = each(cp, &with_slab, options, &|i| Some(rooms[i]), &mut refuse);
    if !refuse.0.is_empty() {
        return Err(Refusals(refuse.0));
    }
    Ok(together(tree, plans))
}

/// What is done once for all is taken out of the plans, and all wait at the gate.
fn together(tree: Tree, mut plans: Vec<Option<Plan>>) -> Forest {
    let mut removes: Vec<Remove> = Vec::new();
    for p in plans.iter_mut().flatten() {
        for r in p.tables.removes.drain(..) {
            if !removes.iter().any(|o| o.shmid == r.shmid) {
                removes.push(r);
            }
        }
        p.want |= want::GATE;
    }
    Forest {
        tree,
        plans,
        removes,
    }
}

/// Plan every task that lives.
fn each(
    cp: &Checkpoint,
    machine: &Machine,
    options: &Options,
    room: &dyn Fn(usize) -> Option<Range>,
    refuse: &mut Refused,
) -> Vec<Option<Plan>> {
    let above = above(cp);
    let mut plans = Vec::new();
    for (task, t) in cp.tasks.iter().enumerate() {
        if t.live.is_none() {
            plans.push(None);
            continue;
        }
        let place = Place {
            task,
            above,
            area: room(task),
        };
        let mut done = crate::plan_task(cp, machine, options, &place);
        let traced = |p: &Plan| matches!(p.exit, Exit::Ptrace(_));
        if options.finish == Finish::Auto
            && !options.leave_stopped
            && done.as_ref().is_ok_and(traced)
        {
            // Nobody traces a whole tree.
            let page = Options {
                finish: Finish::Page,
                ..options.clone()
            };
            done = crate::plan_task(cp, machine, &page, &place);
        }
        match done {
            Ok(plan) => {
                if plan.traced || matches!(plan.exit, Exit::Ptrace(_)) {
                    refuse.add(
                        RefusalKind::Unsupported,
                        format!("pid {}: restored by ptrace, and one of a tree", t.pid),
                        "--finish=page; --leave-stopped is for single processes",
                    );
                }
                plans.push(Some(plan));
            }
            Err(Refusals(r)) => {
                for r in r {
                    refuse.add(r.kind, r.what, &r.hint);
                }
                plans.push(None);
            }
        }
    }
    plans
}

/// A range of so many bytes that no task uses or will use.
fn slab(cp: &Checkpoint, machine: &Machine, bytes: u64) -> Option<Range> {
    let mut space = Space::new(machine.mmap_min_addr.max(0x1_0000), machine.task_size);
    for m in &machine.maps {
        space.take(m.range.into());
    }
    for live in cp.tasks.iter().filter_map(|t| t.live.as_ref()) {
        for v in &live.mm.vmas {
            let below = if v.grows_down { 16 << 20 } else { 0 };
            let above = if v.heap { 64 << 20 } else { 0 };
            space.take(Range {
                start: v.range.start().saturating_sub(below),
                end: v.range.end().saturating_add(above),
            });
        }
        for a in shm::attachments(cp, &live.mm.vmas) {
            space.take(Range {
                start: a.base,
                end: a.base.saturating_add(a.len),
            });
        }
    }
    space.find(u32::try_from(bytes).ok()?, PAGE_SIZE)
}

/// The machine as a child sees it, which has inherited the slab.
fn with_slab(machine: &Machine, slab: Range) -> Machine {
    let mut m = machine.clone();
    m.maps.push(OwnMap {
        range: MapRange {
            start: slab.start,
            end: slab.end,
        },
        name: String::new(),
    });
    m.maps.sort_by_key(|m| m.range.start);
    m
}

/// Refusals, each once.
#[derive(Default)]
struct Refused(Vec<Refusal>);

impl Refused {
    fn add(&mut self, kind: RefusalKind, what: String, hint: &str) {
        let hint = hint.to_owned();
        let one = Refusal { kind, what, hint };
        if !self.0.contains(&one) {
            self.0.push(one);
        }
    }

    fn all(mut self, more: Refusals) -> Refusals {
        for r in more.0 {
            self.add(r.kind, r.what, &r.hint);
        }
        Refusals(self.0)
    }
}
