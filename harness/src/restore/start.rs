//! Stage 3: fork the root, which makes the others and becomes its task.

use std::collections::BTreeMap;
use std::fs::File as OsFile;
use std::os::fd::{AsRawFd, OwnedFd};

use super::Restore;
use super::make::Made;
use super::open::{Dirs, Opened};
use crate::error::Error;
use crate::family::{self, Board, Family};
use crate::hold::Held;
use crate::inherit;
use crate::load;
use crate::objects::Objects;
use crate::objects::late::Lates;
use crate::objects::memory::PagesFiles;
use crate::objects::tty::Lent;
use crate::os;
use crate::pid::{self, Side};
use crate::task::{self, Becoming};
use crate::timens;
use crate::trace::Tracer;
use crate::watch::{self, Child, Ended, Reports};

/// The child and how it got its pid, and all that came of it; killed when dropped, until they are let go.
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) board: Option<Board>,
    pub(super) way: &'static str,
    pub(super) reports: Option<Reports>,
    /// Who traces them, if the plan says so.
    pub(super) tracer: Option<Tracer>,
    /// On `ns_last_pid`, while the task makes threads by it.
    pub(super) lock: Option<OsFile>,
    /// Who keeps the ids of the others under an emulator.
    pub(super) held: Option<Held>,
    /// The gate is open: tasks may run.
    pub(super) through: bool,
    /// The other tasks: children of each other.
    pub(super) others: Vec<Child>,
    /// What was not quite as it should be.
    pub(super) notes: Vec<String>,
    /// What is done at the second gate.
    pub(super) late: Lates,
    /// What the processes of a tree fetch, until all are at the gate.
    pub(super) stock: Option<Stock>,
}

/// All descriptors that tasks get.
pub(super) struct Stock {
    _objects: Objects,
    _dirs: Vec<Dirs>,
    _pages: PagesFiles,
}

impl Running {
    /// The pids of all tasks, the root's first.
    pub(super) fn pids(&self) -> Vec<libc::pid_t> {
        let all = [&self.child].into_iter().chain(&self.others);
        all.map(Child::pid).collect()
    }

    /// They run their own code: what happens to them is their own business now.
    pub(super) fn let_go(&mut self) {
        self.child.let_go();
        if self.board.take().is_some() {
            // Their orphans are no longer ours. It was switched on, so it can be switched off.
            let _ = family::catch_orphans(false);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(tracer) = &mut self.tracer {
            tracer.kill();
        }
        let Some(board) = &self.board else { return };
        // Its end is waited for by itself.
        self.held = None;
        if !watch::Child::end_all() {
            // Before the gate is open nobody reaps the others, so the numbers are theirs; later they may be anyone's.
            let all = if self.through {
                Vec::new()
            } else {
                board.pids()
            };
            for pid in all {
                // SAFETY: numbers only; see above.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            return;
        }
        self.child.has_ended(Ended::Signal(libc::SIGKILL));
        let _ = family::catch_orphans(false);
    }
}

impl Restore<'_> {
    /// Fork the child, which becomes the task. Objects are its own from now on.
    pub(super) fn start(&self, opened: Opened, made: &mut Made) -> Result<Running, Error> {
        let Opened {
            mut objects,
            dirs,
            links,
            notes,
            pages,
            kept,
        } = opened;
        made.notes.extend(notes);
        made.links = links;
        let ((read, report), hand) = (kept.report, kept.hand);
        let tree = &self.forest.tree;
        let many = tree.nodes.len() > 1;
        let hold = self.machine.emulated && !self.o.rare.any_pid && (self.chooses_ids() || many);
        let held = hold.then(|| Held::hold(&self.ids())).transpose()?;
        let waits = self.root().plan.traced && !many || hold || !made.cgroups.enter.is_empty();
        let go = waits.then(|| pipe("pipe")).transpose()?;
        let board = if many { Some(Board::new(tree)?) } else { None };
        if many {
            // Where there is no such thing, the parent-death signal alone ends orphans.
            let _ = family::catch_orphans(true);
        }
        // SAFETY: cannot fail.
        let (harness, group) = unsafe { (libc::getpid(), libc::getpgrp()) };
        let want = (!self.o.rare.any_pid).then_some(self.root().task.pid);
        if let Some(then) = self.root().plan.clocks {
            timens::for_children(then)?;
        }
        let mut tables: BTreeMap<u32, Vec<(usize, u32)>> = BTreeMap::new();
        for m in &self.members {
            let table = tables.entry(m.live.files_id).or_default();
            table.push((m.index, m.plan.report_fd));
        }
        // Of each member: nobody should look through what belongs to others, page by page.
        let sharers = self.members.iter().map(|m| &tables[&m.live.files_id]);
        let sharers: Vec<_> = sharers.collect();
        let become_task = |index: usize| -> std::convert::Infallible {
            let Some((at, m)) = self.member(index) else {
                // SAFETY: ends this child alone, without exit handlers.
                unsafe { libc::_exit(task::FAILED) }
            };
            let meet = |stage| {
                if let Some(board) = &board {
                    board.come(stage, harness);
                }
            };
            Becoming {
                index,
                task: m.task,
                live: m.live,
                plan: &m.plan,
                hand: &hand,
                objects: &objects,
                cp: self.cp,
                dirs: &dirs[at],
                sharers: sharers[at],
                meet: &meet,
                report: &report,
                journal: self.journal,
                emulated: self.machine.emulated,
                allowed: &made.allowed[at],
                lent: made.lent.as_ref(),
            }
            .run(&made.loaded[at])
        };
        let inherit = |index: usize| match self.member(index) {
            Some((_, m)) => inherit::take(&m.plan.legacy, &pages, &hand),
            None => Ok(()),
        };
        let prepare = || {
            let (memory, lent) = (made.loaded[0].memory(), made.lent.as_ref().map(Lent::fd));
            let kept = [memory, lent, self.journal.descriptor()];
            hand.give_up(kept.into_iter().flatten().chain([report.as_raw_fd()]))
        };
        let family = Family {
            tree,
            cp: self.cp,
            board: board.as_ref(),
            machine: &self.machine,
            any_pid: self.o.rare.any_pid,
            harness,
            group,
            report: &report,
            held: held.as_ref(),
            go: go.as_ref().map(|g| &g.0),
            prepare: &prepare,
            inherit: &inherit,
            become_task: &become_task,
        };
        match pid::fork(want, &self.machine, 0)? {
            Side::Child => {
                drop(read);
                family.live(0, true)
            }
            Side::Parent(pid, way) => {
                drop(report);
                let late = std::mem::take(&mut objects.late);
                let stock = many.then_some(Stock {
                    _objects: objects,
                    _dirs: dirs,
                    _pages: pages,
                });
                if let Some(board) = &board {
                    board.enter(0, pid);
                }
                let running = Running {
                    child: Child::new(pid),
                    board,
                    way,
                    reports: Some(Reports::new(read)),
                    tracer: None,
                    lock: None,
                    held: None,
                    through: false,
                    others: Vec::new(),
                    notes: Vec::new(),
                    late,
                    stock,
                };
                self.bring_up(running, made, held, go)
            }
        }
    }

    /// The root is born and waits at `go`, if there is one: group it, trace it, let it go on, and follow the births.
    fn bring_up(
        &self,
        mut running: Running,
        made: &mut Made,
        held: Option<Held>,
        go: Option<(OwnedFd, OwnedFd)>,
    ) -> Result<Running, Error> {
        let pid = running.child.pid();
        let many = running.board.is_some();
        // Before the others are made, which come after it.
        made.notes.extend(made.cgroups.take(pid));
        if let Some(held) = &held {
            held.settled(pid);
        }
        if self.chooses_ids() && !many {
            drop(held);
            running.lock = Some(pid::lock_last_pid()?);
        } else if many {
            running.held = held;
        }
        if !many {
            self.trace(&mut running)?;
        }
        if let Some((_, go)) = go {
            load::write_raw(&go, b"!");
        }
        self.settle(&mut running, &made.loaded)?;
        Ok(running)
    }

    /// Do tasks choose the ids of their threads by `ns_last_pid`?
    pub(super) fn chooses_ids(&self) -> bool {
        self.members.iter().any(|m| m.plan.last_pid_fd.is_some())
    }

    /// All ids but the root's pid.
    fn ids(&self) -> Vec<u32> {
        let nodes = self.forest.tree.nodes.iter().skip(1).map(|n| n.pid);
        let threads = self
            .members
            .iter()
            .flat_map(|m| m.live.threads.iter().skip(1));
        nodes.chain(threads.map(|t| t.tid)).collect()
    }
}

pub(super) fn pipe(what: &str) -> Result<(OwnedFd, OwnedFd), Error> {
    os::pipe().map_err(|e| Error::Machine {
        what: what.into(),
        why: e.to_string(),
    })
}
