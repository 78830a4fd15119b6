//! Locks on files: those of descriptions are taken by the harness, leases by the task itself, record locks by the blob.

use std::io;
use std::os::fd::RawFd;

use armrest_images::{FileLock, LockKind};

use crate::os;

/// Take a lock through `fd`. Never waits: EAGAIN if somebody else has it.
pub fn take(fd: RawFd, lock: &FileLock) -> io::Result<()> {
    match lock.kind {
        LockKind::Flock => {
            let how = if lock.write {
                libc::LOCK_EX
            } else {
                libc::LOCK_SH
            };
            // SAFETY: numbers only.
            os::check(unsafe { libc::flock(fd, how | libc::LOCK_NB) }).map(drop)
        }
        LockKind::Lease => {
            // SAFETY: numbers only.
            os::check(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::c_int::from(how(lock))) })
                .map(drop)
        }
        LockKind::Ofd => of_description(fd, lock),
        // They would go with the next close of the file (`plan/src/records.rs`).
        LockKind::Posix => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// F_RDLCK or F_WRLCK.
fn how(lock: &FileLock) -> i16 {
    i16::from(lock.write)
}

fn of_description(fd: RawFd, lock: &FileLock) -> io::Result<()> {
    let wide = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    // SAFETY: a structure of integers: all zero is valid.
    let mut l: libc::flock64 = unsafe { std::mem::zeroed() };
    // From the start of the file: SEEK_SET is 0.
    l.l_type = how(lock);
    l.l_start = wide(lock.start)?;
    l.l_len = wide(lock.len)?;
    #[cfg(target_pointer_width = "32")]
    let nr = libc::SYS_fcntl64;
    // The crate also builds for 64-bit hosts, for its tests.
    #[cfg(not(target_pointer_width = "32"))]
    let nr = libc::SYS_fcntl;
    let cmd = libc::F_OFD_SETLK;
    // SAFETY: the structure is the one that this call takes, and lives through it.
    os::check_long(unsafe { libc::syscall(nr, fd, cmd, std::ptr::from_mut(&mut l)) }).map(drop)
}
