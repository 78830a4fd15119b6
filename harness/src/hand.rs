//! Descriptors of the harness's, as the processes of a tree come by them.
//!
//! A fork hands all of them on, and each process would have to close those of all others. Where it may, each fetches its own
//! from the harness (`pidfd_getfd`, Linux 5.6), which keeps them until all tasks are at the gate; the root gives up all
//! that it was born with before it forks. Where it may not, they are inherited.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use crate::os;
use crate::task::close_all_but;

/// Whom to ask, and whether that is done.
#[derive(Debug)]
pub struct Hand {
    harness: RefCell<Option<OwnedFd>>,
    fetches: Cell<bool>,
}

/// A descriptor of the harness's in this process.
#[derive(Debug)]
pub enum Handed<'a> {
    /// By the fork.
    Inherited(BorrowedFd<'a>),
    /// By asking.
    Fetched(OwnedFd),
}

impl Hand {
    /// In the harness, for a tree (`many`); what a single task needs is all inherited.
    pub fn new(many: bool) -> Hand {
        let own = many.then(|| os::pidfd(std::process::id()));
        Hand {
            harness: RefCell::new(own.and_then(Result::ok)),
            fetches: Cell::new(false),
        }
    }

    /// In a process that will place others below `above`: ask by way of a number that is not in their way.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn step_aside(&self, above: u32) -> io::Result<()> {
        let mut harness = self.harness.borrow_mut();
        if let Some(fd) = harness.as_mut().filter(|_| self.fetches.get()) {
            *fd = os::dup_above(fd.as_fd(), above)?;
        }
        Ok(())
    }

    /// In the root, before it forks: give up all descriptors but the standard ones and these, if they can be had again.
    ///
    /// # Errors
    /// They cannot be closed.
    pub fn give_up(&self, keep: impl IntoIterator<Item = RawFd>) -> io::Result<()> {
        let harness = self.harness.borrow();
        let Some(harness) = harness.as_ref() else {
            return Ok(());
        };
        let own = harness.as_raw_fd();
        if os::pidfd_getfd(harness, own.cast_unsigned()).is_ok() {
            self.fetches.set(true);
            close_all_but([0, 1, 2, own].into_iter().chain(keep).collect())?;
        }
        Ok(())
    }

    /// In a process of the tree: what the harness has there.
    ///
    /// # Errors
    /// The harness has gone, or what the kernel says.
    pub fn take<'a>(&self, fd: &'a impl AsFd) -> io::Result<Handed<'a>> {
        let fd = fd.as_fd();
        match self.harness.borrow().as_ref() {
            Some(harness) if self.fetches.get() => {
                let number = fd.as_raw_fd().cast_unsigned();
                Ok(Handed::Fetched(os::pidfd_getfd(harness, number)?))
            }
            _ => Ok(Handed::Inherited(fd)),
        }
    }
}

impl Handed<'_> {
    /// Put it at this number.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn place(self, to: RawFd, cloexec: bool) -> io::Result<()> {
        os::dup_to(self.as_raw_fd(), to, cloexec)?;
        match self {
            Handed::Fetched(fd) if fd.as_raw_fd() == to => std::mem::forget(fd),
            _ => {}
        }
        Ok(())
    }

    /// As a file that stays whose it is.
    pub fn as_file(&self) -> ManuallyDrop<File> {
        os::as_file(self.as_fd())
    }
}

impl AsFd for Handed<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Handed::Inherited(fd) => *fd,
            Handed::Fetched(fd) => fd.as_fd(),
        }
    }
}

impl AsRawFd for Handed<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
