//! Pipes and FIFOs: capacity, what was in them, and each end opened as the task had it.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use armrest_images::PipeContents;

use crate::os;

/// Both ends of a pipe: descriptions of the task are openings of their own, so that one end may be gone.
pub struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Ends {
    /// A pipe that holds this.
    pub fn new(contents: Option<&PipeContents>) -> io::Result<Ends> {
        let (read, write) = os::pipe()?;
        // Filling must not wait for a reader.
        let write = os::reopen(write.as_fd(), libc::O_WRONLY | libc::O_NONBLOCK)?;
        fill(&write, contents)?;
        Ok(Ends { read, write })
    }

    /// The end (or both) that these flags ask for.
    pub fn open(&self, flags: i32) -> io::Result<OwnedFd> {
        let end = if flags & libc::O_ACCMODE == libc::O_WRONLY {
            &self.write
        } else {
            &self.read
        };
        os::reopen(end.as_fd(), flags)
    }
}

/// Open a FIFO for both directions, so that no opening of an end waits for the other, and put this into it.
pub fn fill_fifo(found: &OwnedFd, contents: Option<&PipeContents>) -> io::Result<OwnedFd> {
    let both = os::reopen(found.as_fd(), libc::O_RDWR | libc::O_NONBLOCK)?;
    let mut unread: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    os::check(unsafe { libc::ioctl(both.as_raw_fd(), libc::FIONREAD, &mut unread) })?;
    if unread != 0 {
        let what = format!("another process has put {unread} bytes into it");
        return Err(io::Error::other(what));
    }
    fill(&both, contents)?;
    Ok(both)
}

fn fill(end: &OwnedFd, contents: Option<&PipeContents>) -> io::Result<()> {
    let Some(c) = contents else { return Ok(()) };
    if let Some(size) = c.capacity {
        // SAFETY: numbers only.
        let now = os::check(unsafe { libc::fcntl(end.as_raw_fd(), libc::F_GETPIPE_SZ) })?;
        if u32::try_from(now) != Ok(size) {
            // SAFETY: numbers only.
            os::check(unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETPIPE_SZ, size) })
                .map_err(|e| io::Error::new(e.kind(), format!("capacity {size}: {e}")))?;
        }
    }
    std::fs::File::from(end.try_clone()?).write_all(&c.bytes)
}
