//! What the child does in ordinary code, before the blob: everything that a task owns outside its address space.
//!
//! All signals are blocked. The child maps nothing, and leaves by [`Loaded::enter`] or `_exit`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use armrest_images::{LiveTask, Task};
use armrest_plan::Plan;

use crate::load::{Loaded, write_raw};
use crate::objects::Objects;
use crate::os;

/// Status of a child that failed here; its words went to the report pipe.
pub const FAILED: i32 = 113;
/// Limits that a restore itself may need: set from outside once the task is entered (AS, DATA, STACK, MEMLOCK).
pub const LATE_LIMITS: [u32; 4] = [9, 2, 3, 8];

/// What the child becomes.
pub struct Becoming<'a> {
    /// The task.
    pub task: &'a Task,
    /// Its live part.
    pub live: &'a LiveTask,
    /// The plan.
    pub plan: &'a Plan,
    /// Open things.
    pub objects: &'a Objects,
    /// Working directory.
    pub cwd: &'a OwnedFd,
    /// The report pipe's write end.
    pub report: &'a OwnedFd,
    /// Under an emulator the personality is the emulator's own.
    pub emulated: bool,
}

impl Becoming<'_> {
    /// Become the task. Does not return.
    pub fn run(&self, loaded: &Loaded) -> ! {
        if let Err((what, e)) = self.prepare() {
            write_raw(self.report, format!("{what}: {e}").as_bytes());
            // SAFETY: ends this child without running the parent's exit handlers.
            unsafe { libc::_exit(FAILED) }
        }
        loaded.enter()
    }

    /// Move the break, after the last allocation of this process: its allocator does not know.
    fn grow_brk(&self) -> io::Result<()> {
        let Some(brk) = self.plan.grow_brk else {
            return Ok(());
        };
        // SAFETY: grows the heap's mapping over addresses that the plan found free; nothing refers to them.
        let now = unsafe { libc::syscall(libc::SYS_brk, brk) };
        if now.cast_unsigned() == libc::c_ulong::from(brk) {
            Ok(())
        } else {
            Err(io::ErrorKind::OutOfMemory.into())
        }
    }

    fn prepare(&self) -> Result<(), (String, io::Error)> {
        let named = |what: &'static str| move |e: io::Error| (what.to_owned(), e);
        // Should the harness die, a half-restored process must not stay. The blob clears it (PR_SET_PDEATHSIG).
        // SAFETY: numbers only.
        os::check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
            .map_err(named("PR_SET_PDEATHSIG"))?;
        self.session().map_err(named("session and process group"))?;
        self.actions()?;
        if let Some(p) = self.live.personality.filter(|_| !self.emulated) {
            // SAFETY: numbers only.
            os::check(unsafe { libc::personality(libc::c_ulong::from(p)) })
                .map_err(named("personality"))?;
        }
        // SAFETY: numbers only.
        os::check(unsafe { libc::fchdir(self.cwd.as_raw_fd()) })
            .map_err(named("fchdir to the working directory"))?;
        if let Some(mask) = self.live.umask {
            // SAFETY: cannot fail.
            unsafe { libc::umask(libc::mode_t::try_from(mask & 0o777).unwrap_or(0o022)) };
        }
        self.oom().map_err(named("oom_score_adj"))?;
        self.descriptors().map_err(named("descriptors"))?;
        self.limits().map_err(named("resource limits"))?;
        self.grow_brk().map_err(named("brk"))
    }

    fn session(&self) -> io::Result<()> {
        // SAFETY: numbers only; a fresh child leads nothing.
        unsafe {
            if self.task.sid == self.task.pid {
                os::check(libc::setsid())?;
            } else if self.task.pgid == self.task.pid {
                os::check(libc::setpgid(0, 0))?;
            }
        }
        Ok(())
    }

    fn actions(&self) -> Result<(), (String, io::Error)> {
        for (signo, a) in &self.live.sigactions {
            let (low, high) = (a.mask & 0xffff_ffff, a.mask >> 32);
            let mask = [low, high].map(|w| u32::try_from(w).unwrap_or(0));
            // The kernel's own structure on ARM: handler, flags, restorer, mask; 20 bytes.
            let act = [a.handler, a.flags, a.restorer, mask[0], mask[1]];
            // SAFETY: `act` has the layout that a 32-bit ARM kernel reads; handlers are addresses of the restored
            // program and cannot run before it does, since all signals are blocked.
            let ret = unsafe { libc::syscall(libc::SYS_rt_sigaction, *signo, act.as_ptr(), 0, 8) };
            os::check_long(ret).map_err(|e| (format!("rt_sigaction of signal {signo}"), e))?;
        }
        Ok(())
    }

    fn oom(&self) -> io::Result<()> {
        let Some(adj) = self.live.oom_score_adj else {
            return Ok(());
        };
        let path = "/proc/self/oom_score_adj";
        let now: i32 = std::fs::read_to_string(path)?
            .trim()
            .parse()
            .map_err(|_| io::ErrorKind::InvalidData)?;
        if now == adj {
            Ok(())
        } else {
            std::fs::write(path, adj.to_string())
        }
    }

    /// Put every descriptor at its number and close all others.
    fn descriptors(&self) -> io::Result<()> {
        let report = i32::try_from(self.plan.report_fd).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut wanted: Vec<RawFd> = vec![report];
        // The report pipe was kept above all targets too: placing cannot overwrite what is still to be placed.
        for p in &self.objects.placed {
            let to = i32::try_from(p.to).map_err(|_| io::ErrorKind::InvalidInput)?;
            os::dup_to(self.objects.open[p.index].as_raw_fd(), to, p.cloexec)?;
            wanted.push(to);
        }
        os::dup_to(self.report.as_raw_fd(), report, false)?;
        wanted.sort_unstable();
        let mut next = 0;
        for keep in wanted.into_iter().chain([i32::MAX]) {
            if keep > next {
                close_between(next, keep - 1)?;
            }
            next = keep.saturating_add(1);
        }
        Ok(())
    }

    fn limits(&self) -> io::Result<()> {
        for (resource, limit) in (0u32..).zip(&self.live.rlimits) {
            if !LATE_LIMITS.contains(&resource) {
                set_limit(0, resource, *limit)?;
            }
        }
        Ok(())
    }
}

/// Give a process a limit if it has another.
pub fn set_limit(pid: libc::pid_t, resource: u32, (cur, max): (u64, u64)) -> io::Result<()> {
    let new = [cur, max];
    let mut old = [0u64; 2];
    // SAFETY: the structures are two u64 each, as prlimit64 wants them.
    os::check_long(unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, 0, old.as_mut_ptr())
    })?;
    if old != new {
        // SAFETY: as above.
        os::check_long(unsafe {
            libc::syscall(libc::SYS_prlimit64, pid, resource, new.as_ptr(), 0)
        })?;
    }
    Ok(())
}

/// Close all descriptors from `first` to `last`, by `close_range` or, where that is missing, one by one.
fn close_between(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: this child uses none of them any more.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return Ok(());
    }
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| (first..=last).contains(fd))
        .collect();
    for fd in open {
        // SAFETY: as above. The directory's own descriptor is in the list and already closed.
        unsafe { libc::close(fd) };
    }
    Ok(())
}
