//! Who ends a tree if this process is killed while it lets the tasks go.
//!
//! A tracer lets go of one thread after the other, and whoever is still traced ends with it: killed in between it would
//! leave half a tree. So while it does what has to be done for each, a helper process waits at the other end of a socket.
//! If that ends without a word, the helper ends the tasks; one byte, written in one call, is the moment from which they live
//! whatever happens to this process.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::error::Error;
use crate::os;
use crate::task::close_all_but;

/// The helper; killed and reaped when dropped before it was dismissed, else reaped.
#[derive(Debug)]
pub struct Guard {
    helper: libc::pid_t,
    line: UnixStream,
    dismissed: bool,
}

impl Guard {
    /// Keep watch over these processes, which cannot be anyone else's while this is called.
    ///
    /// # Errors
    /// No process or no socket.
    pub fn post(pids: &[libc::pid_t]) -> Result<Guard, Error> {
        let failed = |e: io::Error| Error::Machine {
            what: "a process that watches over the tree while it is let go".into(),
            why: e.to_string(),
        };
        let (line, far) = UnixStream::pair().map_err(failed)?;
        // SAFETY: this process has a single thread, so the child may go on with everything.
        let helper = match os::check(unsafe { libc::fork() }).map_err(failed)? {
            0 => {
                drop(line);
                watch(far, pids);
                // SAFETY: ends this child without running the parent's exit handlers.
                unsafe { libc::_exit(0) }
            }
            helper => helper,
        };
        drop(far);
        let guard = Guard {
            helper,
            line,
            dismissed: false,
        };
        (&guard.line).read_exact(&mut [0]).map_err(failed)?;
        Ok(guard)
    }

    /// From here on the tasks live. Drop it once they are let go.
    #[must_use]
    pub fn dismiss(mut self) -> Guard {
        self.dismissed = (&self.line).write_all(b"!").is_ok();
        self
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: our own child, not reaped yet; if it was, with all others of a tree that failed, there is none.
        unsafe {
            if !self.dismissed {
                libc::kill(self.helper, libc::SIGKILL);
            }
            libc::waitpid(self.helper, std::ptr::null_mut(), 0);
        }
    }
}

/// What the helper does: out of the reach of what is sent to the group of armrest, and without anything that it has open,
/// it waits for the word.
fn watch(mut line: UnixStream, pids: &[libc::pid_t]) {
    // SAFETY: cannot fail in a child that was just forked.
    unsafe { libc::setsid() };
    if close_all_but(vec![line.as_raw_fd()]).is_err() {
        return;
    }
    // Kernels before 5.3 know processes by their numbers alone. Who is gone by now may have left its number to a stranger.
    let open = |pid: &libc::pid_t| match os::pidfd(pid.cast_unsigned()) {
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => None,
        fd => Some((*pid, fd.ok())),
    };
    let tasks: Vec<(libc::pid_t, Option<OwnedFd>)> = pids.iter().filter_map(open).collect();
    if line.write_all(b"!").is_err() || line.read(&mut [0]).is_ok_and(|n| n == 1) {
        return;
    }
    for (pid, fd) in &tasks {
        // SAFETY: numbers and a null pointer. Without a descriptor the number means the task: it was stopped until just now.
        unsafe {
            match fd {
                Some(fd) => {
                    let none = std::ptr::null_mut::<libc::siginfo_t>();
                    let fd = fd.as_raw_fd();
                    libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, 0);
                }
                None => {
                    libc::kill(*pid, libc::SIGKILL);
                }
            }
        }
    }
}
