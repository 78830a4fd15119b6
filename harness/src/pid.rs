//! A child with a wanted pid: `clone3` with `set_tid`, else `ns_last_pid` under a lock, else whatever comes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use armrest_plan::Machine;

use crate::error::Error;
use crate::os;

/// The sysctl.
pub const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
/// Other processes of the system fork too: how often to try again.
const TRIES: u32 = 20;

/// Which side of the fork this is.
pub enum Side {
    /// The new process.
    Child,
    /// The parent: pid of the child, and by which way it got it.
    Parent(libc::pid_t, &'static str),
}

/// Fork a child with pid `want`, or any (`None`). `flags`: CLONE_PARENT, CLONE_FILES, or none of them.
///
/// # Errors
/// The pid could not be had; no child is left.
pub fn fork(want: Option<u32>, machine: &Machine, flags: libc::c_int) -> Result<Side, Error> {
    let fork_failed = |e: io::Error| Error::Machine {
        what: "fork".into(),
        why: e.to_string(),
    };
    let Some(want) = want else {
        return plain_fork("fork", flags).map_err(fork_failed);
    };
    if machine.has_set_tid {
        match clone_with_tid(want, flags) {
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
                return Err(Error::PidTaken {
                    pid: want,
                    by: os::comm(want),
                });
            }
            Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
                return Err(Error::MayNotChoose {
                    what: format!("pid {want}"),
                    why: format!("clone3(set_tid): {e}"),
                });
            }
            Err(e) => return Err(fork_failed(e)),
            Ok(side) => return Ok(side),
        }
    }
    by_last_pid(want, flags).map_err(|e| match e {
        Last::Write(e) => may_not(&format!("pid {want}"), &e),
        Last::Fork(e) => fork_failed(e),
        Last::Raced(got) => Error::PidTaken {
            pid: want,
            by: format!("someone else: the kernel gave {got} {TRIES} times over"),
        },
    })?
}

/// Where the id of the next process or thread is chosen.
pub fn last_pid_file() -> Result<File, Error> {
    OpenOptions::new()
        .write(true)
        .open(LAST_PID)
        .map_err(|e| may_not("ids of threads", &e))
}

/// The same, with an advisory lock that lives as long as it is open.
pub fn lock_last_pid() -> Result<File, Error> {
    let file = last_pid_file()?;
    // SAFETY: numbers only.
    os::check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) })
        .map_err(|e| may_not("ids of threads", &e))?;
    Ok(file)
}

fn may_not(what: &str, e: &io::Error) -> Error {
    Error::MayNotChoose {
        what: what.into(),
        why: format!("{LAST_PID}: {e}"),
    }
}

enum Last {
    Write(io::Error),
    Fork(io::Error),
    Raced(libc::pid_t),
}

fn by_last_pid(want: u32, flags: libc::c_int) -> Result<Result<Side, Error>, Last> {
    let file = OpenOptions::new()
        .write(true)
        .open(LAST_PID)
        .map_err(Last::Write)?;
    let lock = Lock::new(&file).map_err(Last::Write)?;
    let mut got = 0;
    for _ in 0..TRIES {
        // At offset 0 each time: a sysctl ignores what is written elsewhere (kernel.sysctl_writes_strict).
        file.write_all_at((want - 1).to_string().as_bytes(), 0)
            .map_err(Last::Write)?;
        match plain_fork("ns_last_pid", flags).map_err(Last::Fork)? {
            // The child checks for itself, as it may run first.
            // SAFETY: getpid cannot fail.
            Side::Child if u32::try_from(unsafe { libc::getpid() }) == Ok(want) => {
                if flags & libc::CLONE_FILES != 0 {
                    // The descriptor is one with the parent's, who closes it.
                    std::mem::forget(lock);
                    std::mem::forget(file);
                }
                return Ok(Ok(Side::Child));
            }
            // SAFETY: ends this child alone, without exit handlers.
            Side::Child => unsafe { libc::_exit(0) },
            Side::Parent(pid, way) if u32::try_from(pid) == Ok(want) => {
                return Ok(Ok(Side::Parent(pid, way)));
            }
            Side::Parent(pid, _) => {
                got = pid;
                // SAFETY: reaps the child of a moment ago, which only exits.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            }
        }
    }
    Err(Last::Raced(got))
}

/// An advisory lock on the sysctl, for those who choose pids at the same time.
struct Lock<'a>(&'a File);

impl Lock<'_> {
    fn new(file: &File) -> io::Result<Lock<'_>> {
        // SAFETY: numbers only.
        os::check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) })?;
        Ok(Lock(file))
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // SAFETY: numbers only. The child shares the lock's description: an explicit unlock frees both.
        unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

fn plain_fork(way: &'static str, flags: libc::c_int) -> io::Result<Side> {
    let pid = if flags != 0 {
        // SAFETY: without CLONE_VM the child has a copy of everything, stack included, and this process has a single
        // thread.
        os::check_long(unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) })
            .map(|pid| libc::pid_t::try_from(pid).unwrap_or(-1))?
    } else {
        // SAFETY: this process has a single thread, so the child may go on with everything.
        os::check(unsafe { libc::fork() })?
    };
    match pid {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid, way)),
    }
}

/// `clone3` with `set_tid`: no memory shared, so that the child is a fork.
fn clone_with_tid(want: u32, flags: libc::c_int) -> io::Result<Side> {
    let tid = [want.cast_signed()];
    let mut args = [0u64; 11];
    args[0] = u64::from(flags.cast_unsigned());
    // A sibling ends with the signal that its maker would end with.
    if flags & libc::CLONE_PARENT == 0 {
        args[4] = u64::from(libc::SIGCHLD.cast_unsigned());
    }
    args[8] = tid.as_ptr().expose_provenance() as u64;
    args[9] = 1;
    // SAFETY: 88 bytes of clone_args; without CLONE_VM the child has a copy of everything, and this process has a
    // single thread. libc keeps no pid of its own since 2.25.
    match os::check_long(unsafe {
        libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args))
    })? {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(
            libc::pid_t::try_from(pid).unwrap_or(0),
            "clone3 set_tid",
        )),
    }
}
