//! What is the same for all tasks of a checkpoint: found, refused and decided once, however many there are.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use armrest_images::{Checkpoint, Clocks, FileLock, LiveTask, Task, VmaKind};

use crate::files::{self, FilesPlan, Inherited};
use crate::inherit::Inheritance;
use crate::machine::Machine;
use crate::types::{Options, Refusal, RefusalKind};
use crate::{clocks, ipc, late, refuse, sockets, tables, terminals};

/// The checkpoint, the machine and what was asked, with what every task's plan has to know of the others.
pub(crate) struct Whole<'a> {
    pub cp: &'a Checkpoint,
    pub machine: &'a Machine,
    pub options: &'a Options,
    /// One above the highest descriptor of any task: helper descriptors begin there.
    pub above: u32,
    /// Bytes of each anonymous shared memory: the end of the last VMA of any task.
    pub anon_sizes: BTreeMap<u64, u64>,
    /// Descriptions that the caller gives.
    pub given: Inherited,
    /// Who holds what.
    pub held: Held<'a>,
    /// Memory that comes by a fork; of a single task nothing.
    pub inherited: Inheritance,
    /// All tasks are traced, since one of them has to be.
    pub traced: Cell<bool>,
}

/// Who holds which descriptions and locks, and which ids there are.
pub(crate) struct Held<'a> {
    /// By file id: index of the task, the first of those that share a table, and descriptor, in the order of the tasks.
    pub by_file: BTreeMap<u32, Vec<(usize, u32)>>,
    /// By pid of the task.
    pub locks: BTreeMap<u32, Vec<&'a FileLock>>,
    /// Tasks by pid.
    pub tasks: BTreeMap<u32, usize>,
    /// Ids of threads, leaders too.
    pub threads: BTreeSet<u32>,
    /// Process groups that somebody is in.
    pub groups: BTreeSet<u32>,
}

impl<'a> Held<'a> {
    pub fn new(cp: &'a Checkpoint) -> Held<'a> {
        let threads = lives(cp).flat_map(|(_, l)| l.threads.iter().map(|t| t.tid));
        let mut held = Held {
            threads: threads.collect(),
            by_file: BTreeMap::new(),
            locks: BTreeMap::new(),
            tasks: cp.tasks.iter().map(|t| t.pid).zip(0..).collect(),
            groups: cp.tasks.iter().map(|t| t.pgid).collect(),
        };
        for (task, live) in tables::holders(cp) {
            for fd in &live.fds {
                held.by_file.entry(fd.file).or_default().push((task, fd.fd));
            }
        }
        for l in &cp.locks {
            held.locks.entry(l.pid).or_default().push(l);
        }
        held
    }

    /// Tasks and descriptors that hold a description, the first task's first.
    pub fn holders(&self, file: u32) -> &[(usize, u32)] {
        self.by_file.get(&file).map_or(&[], |at| at)
    }
}

/// What is decided for all.
pub(crate) struct Made {
    pub files: Rc<FilesPlan>,
    pub ipc: Rc<ipc::Limits>,
    pub clocks: Option<Clocks>,
    clock_notes: Vec<String>,
}

impl Made {
    /// In sentences, what comes back otherwise.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        let all = [&self.clock_notes, &self.ipc.notes, &self.files.notes];
        all.into_iter().flatten().cloned()
    }
}

/// Tasks that live, with their indices.
pub(crate) fn lives(cp: &Checkpoint) -> impl Iterator<Item = (usize, &LiveTask)> {
    let all = cp.tasks.iter().enumerate();
    all.filter_map(|(i, t)| Some((i, t.live.as_ref()?)))
}

impl<'a> Whole<'a> {
    /// Find it all; what cannot be restored whatever the tasks are like is refused.
    pub fn new(
        cp: &'a Checkpoint,
        machine: &'a Machine,
        options: &'a Options,
        refuse: &mut Vec<Refusal>,
    ) -> Whole<'a> {
        refuse::whole(cp, refuse);
        let held = Held::new(cp);
        let given = files::inherited(cp, &held, &options.inherit, refuse);
        let whole = Whole {
            cp,
            machine,
            options,
            above: above(cp),
            anon_sizes: anon_sizes(cp),
            given,
            held,
            inherited: Inheritance::default(),
            traced: Cell::new(false),
        };
        files::refuse_flights(&whole, refuse);
        sockets::refuse(cp, &whole.given, machine, refuse);
        terminals::plan(cp, &whole.given, options.shell_job, refuse);
        ids(cp, machine, options, refuse);
        let here = machine.ipc.as_ref().filter(|_| !options.new_namespaces);
        ipc::needs(cp, here, options.own_ipc, machine.cap_eff, refuse);
        whole
    }

    /// Tasks wait at the gate: for each other, or for what the harness does last.
    pub fn gated(&self) -> bool {
        self.cp.tasks.len() > 1 || late::any(self.cp)
    }

    /// Decide what is made for all of them. Nothing was refused.
    pub fn made(&self) -> Made {
        let (machine, options) = (self.machine, self.options);
        let here = machine.ipc.as_ref().filter(|_| !options.new_namespaces);
        let mut clock_notes = Vec::new();
        Made {
            files: Rc::new(files::plan(self)),
            ipc: Rc::new(ipc::limits(self.cp, here, options.own_ipc)),
            clocks: clocks::plan(self.cp, machine, &mut clock_notes),
            clock_notes,
        }
    }
}

fn above(cp: &Checkpoint) -> u32 {
    let all = lives(cp).flat_map(|(_, l)| &l.fds);
    all.map(|f| f.fd + 1).max().unwrap_or(0)
}

fn anon_sizes(cp: &Checkpoint) -> BTreeMap<u64, u64> {
    let mut sizes = BTreeMap::new();
    for v in lives(cp).flat_map(|(_, l)| &l.mm.vmas) {
        if let VmaKind::AnonShared { shmid } = v.kind {
            let end = v.offset + u64::from(v.range.size());
            let size = sizes.entry(shmid).or_insert(0);
            *size = end.max(*size);
        }
    }
    sizes
}

/// True if the id is that of a thread that does not lead its process.
fn is_thread(cp: &Checkpoint, tid: u32) -> bool {
    lives(cp)
        .flat_map(|(_, l)| l.threads.iter().skip(1))
        .any(|t| t.tid == tid)
}

/// Ids that are to be had.
fn ids(cp: &Checkpoint, machine: &Machine, options: &Options, refuse: &mut Vec<Refusal>) {
    let mut no = |kind: RefusalKind, what: String, hint: &str| {
        refuse.push(Refusal {
            kind,
            what,
            hint: hint.into(),
        })
    };
    let root = cp.tasks.first().map_or(0, |t: &Task| t.pid);
    if !options.any_pid && !options.new_namespaces {
        if let Some(by) = &machine.pid_taken_by {
            no(
                RefusalKind::Taken,
                format!("pid {root}: taken by {by}"),
                "end that process, or use --new-namespaces or --any-pid",
            );
        } else if let Some((tid, by)) = &machine.tid_taken_by {
            no(
                RefusalKind::Taken,
                format!(
                    "{} {tid}: taken by {by}",
                    if is_thread(cp, *tid) { "tid" } else { "pid" }
                ),
                "end that process, or use --new-namespaces or --any-pid",
            );
        } else if !machine.may_choose_pid {
            no(
                RefusalKind::Ids,
                format!("pid {root} may not be chosen here"),
                "needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the pid namespace; --any-pid takes another",
            );
        }
    }
    if !options.any_ids && !options.new_namespaces && has_sysv(cp) && !machine.may_choose_ids {
        no(
            RefusalKind::Ids,
            "SysV ids may not be chosen here".into(),
            "needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the ipc namespace; --any-ids takes others",
        );
    }
}

/// Has the checkpoint any SysV object?
fn has_sysv(cp: &Checkpoint) -> bool {
    !cp.segments.is_empty() || !cp.semaphores.is_empty() || !cp.queues.is_empty()
}
