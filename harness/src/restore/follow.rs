//! Stage 4: bring all to their places, through the gates, and see them run their own code.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use armrest_abi::want;
use armrest_images::{FileOwner, Task};
use armrest_plan::tree::Role;

use super::make::Made;
use super::say;
use super::start::Running;
use super::{Member, Restore};
use crate::error::Error;
use crate::family::{Board, Stage};
use crate::load::Loaded;
use crate::objects::late;
use crate::os;
use crate::pid;
use crate::watch::{self, Child, Ended, Pace, Reports};

/// How far a tree is while it is looked at.
#[derive(Clone, Copy)]
pub(super) enum Making {
    /// On its way to this stage.
    Births(Stage),
    /// All are in their places, on their way to the gate.
    Memory,
}

impl Making {
    /// Stand-ins and future zombies live too.
    fn all_live(self) -> bool {
        matches!(self, Making::Births(stage) if stage < Stage::Alone)
    }

    fn what(self) -> &'static str {
        match self {
            Making::Births(_) => "processes of the tree",
            Making::Memory => "tasks of the tree",
        }
    }

    fn when(self) -> &'static str {
        match self {
            Making::Births(_) => "while the tree was made",
            Making::Memory => "before all were ready",
        }
    }
}

impl Restore<'_> {
    /// Bring the processes of a tree to their places, stage by stage.
    pub(super) fn settle(&self, running: &mut Running, loaded: &[Loaded]) -> Result<(), Error> {
        let tree = &self.forest.tree;
        let mut pace = Pace::default();
        let stages = Stage::of(tree);
        let last = stages.last().copied();
        for (i, stage) in stages.into_iter().enumerate() {
            let (Some(board), Some(reports)) = (&running.board, &mut running.reports) else {
                return Ok(());
            };
            board.gather(i, stage.members(tree), &mut || {
                self.look(
                    &mut running.child,
                    reports,
                    Some(board),
                    loaded,
                    (Making::Births(stage), &mut pace),
                )
            })?;
            if stage == Stage::Born {
                // Nobody is forked any more, so no emulator starts a thread of its own.
                running.held = None;
            }
            if Some(stage) == last {
                for m in self.members.iter().skip(1) {
                    let pid = board.pid(m.index).load(Ordering::Acquire);
                    running.others.push(Child::stranger(pid.cast_signed()));
                }
                self.trace(running)?;
                if self.chooses_ids() {
                    // Nobody else chooses ids while the tasks make their threads.
                    running.lock = Some(pid::lock_last_pid()?);
                }
            }
            if let Some(board) = &running.board {
                board.release(i);
            }
        }
        Ok(())
    }

    /// May the tree go on?
    fn look(
        &self,
        child: &mut Child,
        reports: &mut Reports,
        board: Option<&Board>,
        loaded: &[Loaded],
        (making, pace): (Making, &mut Pace),
    ) -> Result<(), Error> {
        self.forward.interrupted()?;
        self.deadline.check(|| making.what().into())?;
        let alone = child.pid();
        let born = |i: usize| board.map_or(Some(alone), |b| b.born(i));
        let nodes = || self.forest.tree.nodes.iter().enumerate();
        let dead = || {
            nodes()
                .filter(|(_, n)| making.all_live() || matches!(n.role, Role::Task(_)))
                .filter_map(|(i, n)| Some((n.pid, born(i)?)))
                .find(|(_, pid)| watch::is_dead(*pid))
        };
        // Whoever dies takes its children along, which come later in the list: look again, from the beginning.
        let dead = pace.look(|| dead().and_then(|_| dead()));
        // Looked at last: whoever died has said before what it had to say.
        if reports.take(Duration::ZERO)? || reports.said_anything() {
            reports.hear_out()?;
            self.judge(reports, child, loaded)?;
        }
        match dead {
            None => Ok(()),
            Some((was, pid)) => Err(Error::Lost {
                what: format!("pid {was} ({pid}), {}", making.when()),
                why: match Child::stranger(pid).ended() {
                    Some(Ended::Signal(s)) => Ended::Signal(s).words(),
                    _ => child.ended().map_or_else(|| "it died".into(), Ended::words),
                },
            }),
        }
    }

    /// What the report pipe said, of whichever task.
    pub(super) fn judge(
        &self,
        reports: &Reports,
        child: &mut Child,
        loaded: &[Loaded],
    ) -> Result<(), Error> {
        let of = |pid: u32| {
            let is = |m: &Member<'_>| m.live.threads.first().is_some_and(|t| t.tid == pid);
            self.members.iter().position(is)
        };
        let at = reports.reporter().and_then(of).unwrap_or(0);
        let m = &self.members[at];
        reports.judge(m.task.pid, child, self.cp, &m.plan, &loaded[at])?;
        for (m, loaded) in self.members.iter().zip(loaded) {
            reports.judge(m.task.pid, child, self.cp, &m.plan, loaded)?;
        }
        Ok(())
    }

    /// Wait until all tasks run their own code, and look whether anything of ours is left in them.
    pub(super) fn watch(&self, running: &mut Running, made: &Made) -> Result<(), Error> {
        let Some(mut reports) = running.reports.take() else {
            return Ok(());
        };
        if self.gated() {
            self.let_through(running, &mut reports, made)?;
        }
        // Nobody else chooses ids while the threads are made.
        let _lock = running.lock.take();
        if running.tracer.is_some() {
            return self.see_out(running, reports, made);
        }
        let child = &mut running.child;
        let bar = self.bar();
        watch::until_ended(
            &mut reports,
            &bar,
            &made.loaded,
            self.deadline,
            self.forward,
        )?;
        self.judge(&reports, child, &made.loaded)?;
        std::thread::sleep(watch::LAST_CALLS);
        let others = running.others.iter_mut();
        for (m, child) in self.members.iter().zip([child].into_iter().chain(others)) {
            // Ids that nobody chose are not known here: then the leader, which leaves last, stands for all.
            let threads = m.live.threads.iter();
            let mut threads: Vec<(u32, u64)> = threads.map(|t| (t.tid, t.sigmask)).collect();
            threads[0].0 = child.pid().cast_unsigned();
            if self.o.rare.any_pid {
                threads.truncate(1);
            }
            watch::until_running(
                child,
                &threads,
                self.deadline,
                self.forward,
                self.machine.emulated,
            )?;
            watch::area_gone(child, &m.plan, self.machine.emulated)?;
        }
        Ok(())
    }

    /// Tasks wait at the gate.
    pub(super) fn gated(&self) -> bool {
        self.root().plan.want & want::GATE != 0
    }

    /// The id that an owner of signals has here. Threads have those of the checkpoint, or are refused.
    fn id_now(&self, running: &Running, o: &FileOwner) -> libc::pid_t {
        let now = |has: &dyn Fn(&Task) -> bool| {
            let mut all = self.members.iter().zip(running.pids());
            all.find(|(m, _)| has(m.task)).map(|(_, pid)| pid)
        };
        let id = o.pid.cast_signed();
        match o.pid_type {
            // SAFETY: numbers only.
            2 => now(&|t| t.pgid == o.pid).map_or(id, |pid| unsafe { libc::getpgid(pid) }),
            _ => now(&|t| t.pid == o.pid).unwrap_or(id),
        }
    }

    /// Wait until all tasks are at the gate, do what is due once all have their memory, and open it.
    fn let_through(
        &self,
        running: &mut Running,
        reports: &mut Reports,
        made: &Made,
    ) -> Result<(), Error> {
        // They share the gate: opened by way of one it is open to all.
        let open = |time| {
            let opened = made.loaded[0].open_gate(time);
            opened.then_some(()).ok_or_else(|| Error::Lost {
                what: "a task at the gate".into(),
                why: "it gave up waiting".into(),
            })
        };
        self.until_at_gate(1, running, reports, made)?;
        // All have what is theirs.
        running.stock = None;
        for r in &self.forest.removes {
            // SAFETY: IPC_RMID takes no buffer.
            os::check(unsafe { libc::shmctl(r.shmid, libc::IPC_RMID, std::ptr::null_mut()) })
                .map_err(|e| Error::Machine {
                    what: format!("SysV segment {}: shmctl(IPC_RMID)", r.shmid),
                    why: e.to_string(),
                })?;
        }
        open(1)?;
        self.until_at_gate(2, running, reports, made)?;
        made.loaded[0].beat();
        let late = std::mem::take(&mut running.late);
        late::act(self.cp, &late, &|o| self.id_now(running, o))?;
        made.loaded[0].beat();
        // While they wait nobody waits for them: the numbers are theirs.
        let said = say::late_limits(running, made);
        running.notes.extend(said);
        running.through = true;
        open(2)?;
        Ok(())
    }

    /// Wait until all tasks have come to the gate for this time.
    fn until_at_gate(
        &self,
        time: u32,
        running: &mut Running,
        reports: &mut Reports,
        made: &Made,
    ) -> Result<(), Error> {
        let (board, child) = (running.board.as_ref(), &mut running.child);
        let bar = self.bar();
        let mut pace = Pace::default();
        while !made.loaded.iter().all(|l| l.at_gate(time)) {
            // They share that word too.
            made.loaded[0].beat();
            match &mut running.tracer {
                // Each of their calls waits for us: more often than we look at anything else.
                Some(tracer) => {
                    let until = Instant::now() + Duration::from_millis(20);
                    while Instant::now() < until {
                        if let Some((pid, how)) = tracer.follow()? {
                            if pid == child.pid() {
                                child.has_ended(how);
                            }
                            break;
                        }
                        if made.loaded.iter().all(|l| l.at_gate(time)) {
                            break;
                        }
                        std::thread::sleep(Duration::from_micros(100));
                    }
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
            let how = (Making::Memory, &mut pace);
            self.look(child, reports, board, &made.loaded, how)?;
            bar.show(&made.loaded);
        }
        Ok(())
    }

    /// How far all tasks together are.
    pub(super) fn bar(&self) -> watch::Bar {
        let pages: u64 = self.members.iter().map(|m| m.plan.read_by_blob()).sum();
        watch::Bar::new(pages * 4096)
    }
}
