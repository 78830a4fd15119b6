//! Things that the task will own or that the blob needs, made before anything of the old address space is touched.
//!
//! One file a kind: [`mod@file`] opens what is known by path, [`memory`] makes memory objects, [`mod@anonymous`] those
//! that only `mmap` makes, [`sysv`] SysV segments.

pub mod acts;
pub mod anonymous;
pub mod build_id;
pub mod event;
pub mod file;
pub mod ghost;
pub mod helper;
pub mod late;
pub mod lock;
pub mod make;
pub mod memory;
pub mod pipe;
pub mod sysv;
pub mod tty;
pub mod unix;
pub mod watch;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use armrest_images::{Checkpoint, FileLock, LiveTask};
use armrest_plan::tables::holders;

use crate::error::Error;
use crate::os;

/// A descriptor and the number that it gets in the restoring task.
#[derive(Debug)]
pub struct Placed {
    /// Index of the task.
    pub task: usize,
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
    /// Terminals that sessions take, in the order of the plan: which of [`Objects::open`].
    pub controls: Vec<usize>,
    /// What is done when all tasks are ready.
    pub late: late::Lates,
    /// What became other than it was, in sentences for the summary.
    pub notes: Vec<String>,
}

impl Objects {
    /// Keep `fd` at a number of at least `above`, so that placing another descriptor cannot overwrite it. Its index.
    pub fn keep(&mut self, fd: OwnedFd, above: u32) -> Result<usize, Error> {
        let up = os::dup_above(fd.as_fd(), above).map_err(|e| Error::Machine {
            what: format!("a descriptor with a number from {above} on (F_DUPFD_CLOEXEC)"),
            why: e.to_string(),
        })?;
        self.open.push(up);
        Ok(self.open.len() - 1)
    }

    /// Take the locks that belong to descriptions, through any descriptor that is placed.
    pub fn lock(&self, cp: &Checkpoint, locks: &[FileLock]) -> Result<(), Error> {
        if locks.is_empty() {
            return Ok(());
        }
        // The first task of a table has its descriptors.
        let holders: BTreeMap<u32, usize> =
            holders(cp).map(|(task, l)| (l.files_id, task)).collect();
        let lives = cp
            .tasks
            .iter()
            .filter_map(|t| Some((t.pid, t.live.as_ref()?)));
        let lives: BTreeMap<u32, &LiveTask> = lives.collect();
        let placed = self.placed.iter().map(|p| ((p.task, p.to), p.index));
        let placed: BTreeMap<(usize, u32), usize> = placed.collect();
        let path = |l: &FileLock| {
            let file = lives.get(&l.pid).and_then(|t| t.fd(l.fd));
            file.map_or_else(String::new, |f| armrest_plan::files::name(cp, f.file))
        };
        for l in locks {
            let table = lives.get(&l.pid).map(|live| live.files_id);
            let task = table.and_then(|t| holders.get(&t));
            let Some(&index) = task.and_then(|t| placed.get(&(*t, l.fd))) else {
                return Err(Error::Internal {
                    what: format!("fd {} of pid {}: lock", l.fd, l.pid),
                    why: "nothing is placed there".into(),
                });
            };
            lock::take(self.open[index].as_raw_fd(), l).map_err(|e| Error::Machine {
                what: format!("fd {}: lock on {}", l.fd, path(l)),
                why: match e.raw_os_error() {
                    Some(libc::EAGAIN | libc::EACCES) => "another process holds one".into(),
                    _ => e.to_string(),
                },
            })?;
        }
        Ok(())
    }

    /// The descriptors of a task, once [`Objects::sort`] was called.
    pub fn placed_in(&self, task: usize) -> &[Placed] {
        let from = self.placed.partition_point(|p| p.task < task);
        let to = self.placed.partition_point(|p| p.task <= task);
        &self.placed[from..to]
    }

    /// All is placed: each task's together.
    pub fn sort(&mut self) {
        self.placed.sort_by_key(|p| p.task);
    }

    /// Place an open description at a number of a task.
    pub fn place(&mut self, task: usize, index: usize, to: u32, cloexec: bool) {
        self.placed.push(Placed {
            task,
            to,
            cloexec,
            index,
        });
    }
}
