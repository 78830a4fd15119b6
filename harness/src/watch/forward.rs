//! Signals of a foreground restore.

use std::os::fd::AsRawFd;

use super::{Child, Ended, internal};
use crate::error::Error;
use crate::objects::tty;
use crate::os;

/// Signals that a foreground restore passes on.
const FORWARDED: [i32; 8] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCONT,
    libc::SIGTSTP,
];

/// Signals of a foreground restore: blocked from before the fork, taken one by one.
pub struct Forward {
    set: libc::sigset_t,
    old: u64,
}

impl Forward {
    /// Block all signals of this process; what comes is taken by [`Forward::wait`].
    pub fn new() -> Result<Forward, Error> {
        // Inherited as ignored, the end of a child could not be waited for.
        // SAFETY: the default action is no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        let old = os::block_all_signals().map_err(internal("sigprocmask"))?;
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set; the numbers are valid signals.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for s in FORWARDED.iter().chain([&libc::SIGCHLD]) {
                libc::sigaddset(set.as_mut_ptr(), *s);
            }
            set.assume_init()
        };
        Ok(Forward { set, old })
    }

    /// An error if someone asked this program to end: nothing is restored yet, so everything is taken back.
    pub fn interrupted(&self) -> Result<(), Error> {
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        loop {
            // SAFETY: the set is initialised; no information about the signal is asked for.
            let signo = unsafe { libc::sigtimedwait(&self.set, std::ptr::null_mut(), &now) };
            match signo {
                libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT => {
                    return Err(Error::Lost {
                        what: "restore".into(),
                        why: format!("ended by signal {signo}"),
                    });
                }
                n if n > 0 => {}
                _ => return Ok(()),
            }
        }
    }

    /// Pass signals on to `child` until it ends. Reaps whatever else is a child of this process (an init's duty).
    pub fn wait(&self, child: &mut Child, same_group: bool) -> Ended {
        loop {
            if let Some(end) = self.reap(child) {
                return end;
            }
            let tick = libc::timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
            // SAFETY: the set is initialised and `info` writable; the call returns a signal of the set, or -1.
            let signo = unsafe { libc::sigtimedwait(&self.set, info.as_mut_ptr(), &tick) };
            if !FORWARDED.contains(&signo) {
                continue;
            }
            // SAFETY: sigtimedwait filled it.
            let from_terminal = unsafe { info.assume_init() }.si_code > 0;
            // A key press reaches the whole foreground group by itself.
            if !(from_terminal && same_group) {
                // SAFETY: our child, not reaped: `reap` would have returned.
                unsafe { libc::kill(child.pid, signo) };
            }
        }
    }

    fn reap(&self, child: &mut Child) -> Option<Ended> {
        loop {
            let mut status = 0;
            // SAFETY: `status` is writable.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::WUNTRACED) };
            if pid == child.pid && libc::WIFSTOPPED(status) {
                stop_along(child.pid, libc::WSTOPSIG(status));
                continue;
            }
            if pid == child.pid
                && let Some(end) = Ended::of(status)
            {
                child.ended = Some(end);
                return Some(end);
            }
            if pid <= 0 {
                return child.ended;
            }
        }
    }
}

/// The task was stopped from its terminal: stop along, so that the shell takes the terminal back, and go on along with
/// it. A SIGSTOP is somebody's affair with the task alone, and an init cannot stop.
fn stop_along(task: libc::pid_t, signo: i32) {
    // SAFETY: numbers only.
    unsafe {
        if matches!(signo, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) && libc::getpid() != 1 {
            libc::kill(libc::getpid(), libc::SIGSTOP);
            let group = libc::getpgid(task);
            if group <= 0 || group == libc::getpgrp() {
                libc::kill(task, libc::SIGCONT);
                return;
            }
            // A job of its own (--shell-job): if the shell has put us into the foreground, that is its place.
            if let Ok(terminal) = tty::callers()
                && tty::in_front(terminal.as_raw_fd()).is_ok_and(|g| g == libc::getpgrp())
            {
                let _ = tty::foreground(terminal.as_raw_fd(), group);
            }
            libc::killpg(group, libc::SIGCONT);
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // What came too late to be heeded must not end this program before it has said how the restore went.
        // SAFETY: the set is initialised; no information about the signal is asked for.
        while unsafe { libc::sigtimedwait(&self.set, std::ptr::null_mut(), &now) } > 0 {}
        let _ = os::signal_mask(self.old);
    }
}
