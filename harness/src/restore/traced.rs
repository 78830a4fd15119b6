//! Tasks that are traced: followed until no thread of any is in the restore, and left there as they are to be.

use std::time::{Duration, Instant};

use armrest_plan::Exit;

use super::make::Made;
use super::start::Running;
use super::{Member, Restore};
use crate::error::Error;
use crate::load;
use crate::trace::Tracer;
use crate::watch::{self, Child, Ended, Reports};

impl Restore<'_> {
    /// Trace all tasks, if the plan says so: each has one thread so far.
    pub(super) fn trace(&self, running: &mut Running) -> Result<(), Error> {
        if !self.root().plan.traced {
            return Ok(());
        }
        let mut tracer = Tracer::default();
        for (m, pid) in self.members.iter().zip(running.pids()) {
            let filtered = m.live.threads.iter().any(|t| t.seccomp.0 != 0);
            tracer
                .seize(pid, filtered)
                .map_err(|e| running.child.lost(e))?;
        }
        running.tracer = Some(tracer);
        Ok(())
    }

    /// Wait until all threads are stopped at the exit of their `rt_sigreturn`, and do there what is left to do.
    pub(super) fn see_out(
        &self,
        running: &mut Running,
        mut reports: Reports,
        made: &Made,
    ) -> Result<(), Error> {
        let pids = running.pids();
        let Running {
            child,
            others,
            tracer: Some(tracer),
            notes,
            ..
        } = running
        else {
            return Ok(());
        };
        self.until_out(child, &mut reports, tracer, made)?;
        let left = self.leave(tracer, &pids, notes);
        if let Some((_, how)) = tracer.ended().filter(|e| e.0 == child.pid()) {
            child.has_ended(how);
        }
        left?;
        for (m, child) in self.members.iter().zip([child].into_iter().chain(others)) {
            watch::area_gone(child, &m.plan, self.machine.emulated)?;
        }
        tracer.ready()
    }

    fn until_out(
        &self,
        child: &mut Child,
        reports: &mut Reports,
        tracer: &mut Tracer,
        made: &Made,
    ) -> Result<(), Error> {
        let loaded = &made.loaded;
        let alone = self.members.len() == 1;
        let threads: usize = self.members.iter().map(|m| m.live.threads.len()).sum();
        let bar = self.bar();
        let mut entered: Option<Instant> = None;
        loop {
            let lost = tracer.follow()?;
            if let Some(how) = lost.filter(|l| l.0 == child.pid()).map(|l| l.1) {
                child.has_ended(how);
            }
            let ended = reports.take(Duration::from_millis(u64::from(entered.is_none())))?;
            if ended && tracer.out() == threads {
                return self.judge(reports, child, loaded);
            }
            if reports.said_anything() || lost.is_some() {
                if alone {
                    // It ends with its report. Whoever stops once more meanwhile is not waited for.
                    tracer.give_up();
                }
                reports.hear_out()?;
                self.judge(reports, child, loaded)?;
                let end = lost.map(|l| l.1);
                return Err(Error::Lost {
                    what: match lost {
                        Some((pid, _)) if !alone => format!("pid {pid}, while it was entered"),
                        _ => "the task, while it was entered".into(),
                    },
                    why: end
                        .or_else(|| child.wait_for(watch::ENTER_TIME))
                        .map_or_else(|| "it went its own way".into(), Ended::words),
                });
            }
            self.forward.interrupted()?;
            self.deadline.check(|| watch::in_step(loaded))?;
            bar.show(loaded);
            if ended {
                if entered.get_or_insert_with(Instant::now).elapsed() > watch::ENTER_TIME {
                    return Err(Error::Lost {
                        what: match tracer.behind() {
                            Some(pid) if !alone => format!("pid {pid}"),
                            _ => "the task".into(),
                        },
                        why: format!("{} of {threads} threads left the restorer", tracer.out()),
                    });
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// All threads are out: what is left of ours goes, and who is to stay stopped is stopped.
    fn leave(
        &self,
        tracer: &mut Tracer,
        pids: &[libc::pid_t],
        notes: &mut Vec<String>,
    ) -> Result<(), Error> {
        tracer.park()?;
        // Children come after their parents, who would hear of their stops.
        for (m, pid) in self.members.iter().zip(pids.iter().copied()).rev() {
            if let Exit::Ptrace(_) = m.plan.exit {
                let area = &m.plan.area;
                tracer.unmap(pid, area.all, area.keep.start + load::svc_offset()?)?;
            }
            if !waits_for(m, libc::SIGCHLD) {
                tracer.quiet(pid)?;
            }
            let by = match m.plan.stop {
                Some(signal) => signal.cast_signed(),
                None if self.o.rare.leave_stopped || tracer.was_stopped(pid) => libc::SIGSTOP,
                None => continue,
            };
            if !tracer.hold(pid, by)? {
                notes.push(format!(
                    "pid {} is stopped by SIGSTOP: signal {by} stops nobody in a group that nobody controls",
                    m.task.pid
                ));
            }
        }
        Ok(())
    }
}

/// Does this signal wait in a queue of the checkpoint?
fn waits_for(m: &Member<'_>, signal: i32) -> bool {
    let queues = m.live.threads.iter().map(|t| &t.pending);
    let mut all = queues.chain([&m.live.pending]).flatten();
    all.any(|info| info[..4] == signal.to_le_bytes())
}
