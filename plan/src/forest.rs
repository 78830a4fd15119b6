//! A tree of tasks: one plan a task, and what is decided for all of them together.
//!
//! The areas of all tasks lie at one place that is free in every task. The harness keeps it free, and each process builds
//! its own there: so none inherits those of the others, and none has to be there before it.

use std::collections::{BTreeMap, BTreeSet};

use armrest_abi::{PAGE_SIZE, Range, Remove};
use armrest_images::{Checkpoint, Task, TaskState};

use crate::draft::{Sketch, sketch};
use crate::finish;
use crate::inherit;
use crate::machine::{Machine, MapRange, OwnMap, STACK_ROOM};
use crate::shm;
use crate::space::Space;
use crate::tree::{self, Tree};
use crate::types::{Options, Plan, Refusal, RefusalKind, Refusals};
use crate::whole::{Whole, lives};

/// A tree of tasks, decided.
#[derive(Clone, Debug)]
pub struct Forest {
    /// How the processes are made.
    pub tree: Tree,
    /// One plan a task of the checkpoint; none for a zombie.
    pub plans: Vec<Option<Plan>>,
    /// SysV segments that are marked for deletion once all tasks have attached theirs.
    pub removes: Vec<Remove>,
    /// Ranges that are reserved before the first fork, for memory that is inherited.
    pub reserve: Vec<Range>,
}

impl Forest {
    /// The plan of the root.
    pub fn root(&self) -> Option<&Plan> {
        self.plans.first()?.as_ref()
    }

    /// The machine as the process of a task finds it: what is reserved is there, and of what is kept free for the longest
    /// area all that its own leaves.
    pub fn inside(&self, machine: &Machine, task: usize) -> Machine {
        let area = |p: &Plan| p.area.all.end;
        let own = self.plans.get(task).and_then(|p| p.as_ref().map(area));
        let end = self.each().map(|(_, p)| area(p)).max();
        let rest = own.zip(end).map(|(start, end)| Range { start, end });
        let rest = rest.filter(|r| !r.is_empty());
        with(machine, &[&self.reserve[..], rest.as_slice()].concat())
    }

    /// Plans with the index of their task.
    pub fn each(&self) -> impl Iterator<Item = (usize, &Plan)> {
        self.plans
            .iter()
            .enumerate()
            .filter_map(|(i, p)| Some((i, p.as_ref()?)))
    }
}

/// Decide everything about restoring all tasks of `cp` on `machine`. If one of them has to be traced, all are: nobody
/// runs before all are there.
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
    if tree.sharers() > 0 && machine.emulated {
        refuse.add(
            RefusalKind::Machine,
            "processes with one descriptor table (CLONE_FILES)".into(),
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
                reserve: Vec::new(),
            }),
            Ok(_) => Err(Refusals(refuse.0)),
            Err(r) => {
                refuse.extend(r.0);
                Err(Refusals(refuse.0))
            }
        };
    }
    let mut found = Vec::new();
    let inherited = inherit::decide(cp, machine, &tree, options);
    let machine = &with(machine, &inherited.reserve);
    let mut whole = Whole::new(cp, machine, options, &mut found);
    whole.inherited = inherited;
    let mut sketched = || -> Vec<Option<Sketch<'_>>> {
        // In a table of several, each has helper descriptors of its own.
        let mut helpers: BTreeMap<u32, u32> = BTreeMap::new();
        (0..)
            .zip(&cp.tasks)
            .map(|(i, t)| {
                let table = helpers.entry(t.live.as_ref()?.files_id);
                let above = table.or_insert(whole.above);
                let sketch = sketch(&whole, i, *above, &mut found)?;
                *above = sketch.helpers_end();
                Some(sketch)
            })
            .collect()
    };
    let stopped = |t: &Task| finish::stops(t).is_some();
    whole
        .traced
        .set(machine.has_ptrace && cp.tasks.iter().any(stopped));
    let mut sketches = sketched();
    let traced = sketches.iter().flatten().filter(|s| s.traced).count();
    if traced != 0 && traced != sketches.iter().flatten().count() {
        whole.traced.set(true);
        sketches = sketched();
    }
    refuse.extend(found);
    if !refuse.0.is_empty() {
        return Err(Refusals(refuse.0));
    }
    let Some(slab) = slab(&whole, &sketches) else {
        let what = "no range that is free in all tasks for their bootstrap areas".into();
        let hint = "the checkpoint and this program fill the address space";
        refuse.add(RefusalKind::Machine, what, hint);
        return Err(Refusals(refuse.0));
    };
    let inside = with(machine, &[slab]);
    let made = whole.made();
    let mut plans = Vec::new();
    for sketch in sketches {
        let Some(sketch) = sketch else {
            plans.push(None);
            continue;
        };
        let room = Range {
            start: slab.start,
            end: slab.start + sketch.len,
        };
        match sketch.finish(room, &inside, &made) {
            Ok(plan) => plans.push(Some(plan)),
            Err(Refusals(more)) => refuse.extend(more),
        }
    }
    if !refuse.0.is_empty() {
        return Err(Refusals(refuse.0));
    }
    Ok(together(tree, plans, whole.inherited.reserve))
}

/// What is done once for all is taken out of the plans, and all wait at the gate.
fn together(tree: Tree, mut plans: Vec<Option<Plan>>, reserve: Vec<Range>) -> Forest {
    let mut removes: BTreeMap<i32, Remove> = BTreeMap::new();
    for p in plans.iter_mut().flatten() {
        removes.extend(p.tables.removes.drain(..).map(|r| (r.shmid, r)));
    }
    Forest {
        tree,
        plans,
        removes: removes.into_values().collect(),
        reserve,
    }
}

/// A range that no task uses or will use, as long as the longest area.
fn slab(whole: &Whole<'_>, sketches: &[Option<Sketch<'_>>]) -> Option<Range> {
    let (cp, machine) = (whole.cp, whole.machine);
    let mut space = Space::new(machine.mmap_min_addr.max(0x1_0000), machine.task_size);
    for m in &machine.maps {
        space.take(m.reach(STACK_ROOM));
    }
    // Where the kernel's own pages wait in any of them.
    let sketches = || sketches.iter().flatten();
    for parking in sketches().filter_map(|s| s.draft.kernel.parking) {
        space.take(parking);
    }
    for (_, live) in lives(cp) {
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
    space.find(sketches().map(|s| s.len).max()?, PAGE_SIZE)
}

/// The machine as a child sees it, which has inherited these ranges.
fn with(machine: &Machine, ranges: &[Range]) -> Machine {
    let mut m = machine.clone();
    m.maps.extend(ranges.iter().map(|r| OwnMap {
        range: MapRange {
            start: r.start,
            end: r.end,
        },
        name: String::new(),
    }));
    m.maps.sort_by_key(|m| m.range.start);
    m
}

/// Refusals, each once.
#[derive(Default)]
struct Refused(Vec<Refusal>, BTreeSet<Refusal>);

impl Refused {
    fn add(&mut self, kind: RefusalKind, what: String, hint: &str) {
        let hint = hint.to_owned();
        self.extend([Refusal { kind, what, hint }]);
    }

    fn extend(&mut self, more: impl IntoIterator<Item = Refusal>) {
        for one in more {
            if self.1.insert(one.clone()) {
                self.0.push(one);
            }
        }
    }
}
