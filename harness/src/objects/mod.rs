//! Things that the task will own or that the blob needs, made before anything of the old address space is touched.
//!
//! One file a kind: [`mod@file`] opens what is known by path, [`memory`] makes memory objects, [`mod@anonymous`] those
//! that only `mmap` makes, [`sysv`] SysV segments.

pub mod anonymous;
pub mod build_id;
pub mod file;
pub mod memory;
pub mod sysv;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::Error;
use crate::os;

/// A descriptor and the number that it gets in the restoring task.
#[derive(Debug)]
pub struct Placed {
    /// Number in the task.
    pub to: u32,
    /// FD_CLOEXEC in the task.
    pub cloexec: bool,
    /// Which of [`Objects::open`].
    pub index: usize,
}

/// Everything that is open for the task.
#[derive(Debug, Default)]
pub struct Objects {
    /// One entry an open file description, numbered above all of the task's descriptors.
    pub open: Vec<OwnedFd>,
    /// Where they go.
    pub placed: Vec<Placed>,
    /// What became other than it was, in sentences for the summary.
    pub notes: Vec<String>,
}

impl Objects {
    /// Keep `fd` at a number of at least `above`, so that placing another descriptor cannot overwrite it. Its index.
    pub fn keep(&mut self, fd: OwnedFd, above: u32) -> Result<usize, Error> {
        let above = i32::try_from(above).unwrap_or(i32::MAX);
        // SAFETY: numbers only; the duplicate is a new descriptor.
        let up = os::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above) })
            .map_err(|e| Error::Internal {
                what: "F_DUPFD_CLOEXEC".into(),
                why: e.to_string(),
            })?;
        // SAFETY: just made, owned by nobody else.
        self.open.push(unsafe { OwnedFd::from_raw_fd(up) });
        Ok(self.open.len() - 1)
    }

    /// Place an open description at a number.
    pub fn place(&mut self, index: usize, to: u32, cloexec: bool) {
        self.placed.push(Placed { to, cloexec, index });
    }
}
