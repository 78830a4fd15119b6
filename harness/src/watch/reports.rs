//! The report pipe: what comes through it, and what it means.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use armrest_abi::{ABI_VERSION, Report, ReportKind, Step};
use armrest_images::Checkpoint;
use armrest_plan::{Plan, words};

use super::{Bar, Child, Deadline, ENTER_TIME, Ended, Forward, internal};
use crate::error::Error;
use crate::load::Loaded;
use crate::os;

/// Number of munmap.
const MUNMAP: u32 = 91;

/// The read end of the report pipe, and what came through it.
pub struct Reports {
    pipe: File,
    said: Vec<u8>,
    ended: bool,
}

impl Reports {
    /// Listen there.
    pub fn new(pipe: OwnedFd) -> Reports {
        Reports {
            pipe: File::from(pipe),
            said: Vec::new(),
            ended: false,
        }
    }

    /// Take what there is, waiting at most this long for it. True at the end of the pipe.
    pub fn take(&mut self, wait: Duration) -> Result<bool, Error> {
        if !self.ended && readable(&self.pipe.as_fd(), wait).map_err(internal("poll"))? {
            let mut buf = [0; 512];
            match self.pipe.read(&mut buf) {
                Ok(0) => self.ended = true,
                Ok(n) => self.said.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(internal("read of the report pipe")(e)),
            }
        }
        Ok(self.ended)
    }

    /// Has anything come?
    pub fn said_anything(&self) -> bool {
        !self.said.is_empty()
    }

    /// The first report; others may follow it when several tasks fail at once.
    fn report(&self) -> Option<Report> {
        let first = self.said.get(..size_of::<Report>())?;
        Report::from_bytes(first).filter(|r| r.magic == Report::MAGIC)
    }

    /// The words of the exit routine, which has no room for more: its munmap failed with this, in the task of this pid.
    fn stayed(&self) -> Option<(i32, u32)> {
        let words = self.said.get(..12)?;
        let word = |i: usize| {
            words[4 * i..]
                .first_chunk()
                .copied()
                .map(u32::from_le_bytes)
        };
        (word(1)? == MUNMAP).then_some((word(0)?.cast_signed(), word(2)?))
    }

    /// The same as a report.
    fn stayed_report(&self, plan: &Plan) -> Option<Report> {
        let (result, pid) = self.stayed()?;
        let (start, end) = (plan.area.keep.end, plan.area.all.end);
        Some(Report {
            magic: Report::MAGIC,
            version: ABI_VERSION,
            kind: ReportKind::Errno as u32,
            step: Step::Enter.number(),
            object: Report::NO_OBJECT,
            row: 0,
            syscall: MUNMAP,
            args: [start, end - start, 0, 0, 0, 0],
            result,
            tid: 0,
            pid,
        })
    }

    /// Take the rest of what is being said, which comes at once.
    pub fn hear_out(&mut self) -> Result<(), Error> {
        let until = Instant::now() + Duration::from_millis(200);
        while !self.take(Duration::from_millis(20))? && Instant::now() < until {}
        Ok(())
    }

    /// The task that the report is of, by its pid in the checkpoint, if there is one.
    pub fn reporter(&self) -> Option<u32> {
        let stayed = || Some(self.stayed()?.1);
        self.report().map(|r| r.pid).or_else(stayed)
    }

    /// What an ended pipe means for a task: `child` is the one that can be waited for.
    pub fn judge(
        &self,
        pid: u32,
        child: &mut Child,
        cp: &Checkpoint,
        plan: &Plan,
        loaded: &Loaded,
    ) -> Result<(), Error> {
        if let Some(report) = self.report().or_else(|| self.stayed_report(plan)) {
            return Err(Error::Blob {
                what: format!("pid {pid}"),
                why: words::report(&report, plan, cp),
            });
        }
        // Others may have failed too, and said so after it.
        let first = self.said.split(|b| *b == b'\n').next();
        if let Some(first) = first.filter(|l| !l.is_empty()) {
            return Err(Error::Machine {
                what: "the restoring child".into(),
                why: String::from_utf8_lossy(first).into_owned(),
            });
        }
        // The pipe ends too when the child dies without a word; then it is gone in a moment, if it is not yet.
        if loaded.progress().step < Step::Enter.number() {
            let end = child.wait_for(ENTER_TIME);
            let step = words_of(loaded.progress().step);
            return Err(Error::Lost {
                what: format!("restoring child, pid {pid}, in step \"{step}\""),
                why: end.map_or_else(
                    || "it closed its report pipe and went on".into(),
                    Ended::words,
                ),
            });
        }
        Ok(())
    }
}

/// Wait until the report pipe ends: all tasks are being entered, if it ends without a report.
pub fn until_ended(
    reports: &mut Reports,
    bar: &Bar,
    loaded: &[Loaded],
    deadline: Deadline,
    forward: &Forward,
) -> Result<(), Error> {
    while !reports.take(Duration::from_millis(50))? {
        forward.interrupted()?;
        deadline.check(|| in_step(loaded))?;
        bar.show(loaded);
    }
    Ok(())
}

/// How far the last of these tasks is, in words.
pub fn in_step(loaded: &[Loaded]) -> String {
    let step = loaded.iter().map(|l| l.progress().step).min();
    format!("restore, in step \"{}\"", words_of(step.unwrap_or(0)))
}

fn words_of(step: u32) -> String {
    Step::from_number(step).map_or_else(|| format!("{step}"), words::step_name)
}

/// Can something (or the end) be read within `wait`?
pub fn readable(fd: &impl AsRawFd, wait: Duration) -> io::Result<bool> {
    let mut p = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, writable.
    let n = unsafe {
        libc::poll(
            &mut p,
            1,
            i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        )
    };
    match os::check(n) {
        Ok(n) => Ok(n > 0),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(e) => Err(e),
    }
}
