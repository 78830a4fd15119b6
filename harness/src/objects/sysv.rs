//! SysV segments: made with their own ids, filled, and taken back if the restore fails.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::FileExt;

use armrest_images::{Checkpoint, Segment, VmaKind};

use crate::error::Error;
use crate::objects::memory::PagesFiles;
use crate::os;

const NEXT_ID: &str = "/proc/sys/kernel/shm_next_id";

/// Segments made for a restore. Dropped before [`Segments::keep`], they are removed again.
#[derive(Debug, Default)]
pub struct Segments {
    made: Vec<Made>,
}

/// One segment.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Id in the checkpoint.
    pub was: u32,
    /// Id here.
    pub id: i32,
}

impl Segments {
    /// Make every segment of the checkpoint. `go_on` is asked before each.
    pub fn make(
        cp: &Checkpoint,
        pages: &PagesFiles,
        any_ids: bool,
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<Segments, Error> {
        let attached: BTreeSet<u32> = cp
            .tasks
            .iter()
            .filter_map(|t| t.live.as_ref())
            .flat_map(|l| &l.mm.vmas)
            .filter_map(|v| match v.kind {
                VmaKind::SysV { shmid } => Some(shmid),
                _ => None,
            })
            .collect();
        let mut all = Segments::default();
        // Ascending ids, so that a segment cannot take the id of one that is still to come.
        let mut sorted: Vec<&Segment> = cp.segments.iter().collect();
        sorted.sort_by_key(|s| s.id);
        for s in sorted {
            go_on()?;
            if s.dest && !attached.contains(&s.id) {
                // Marked and attached by nobody: it would be gone at once.
                continue;
            }
            all.one(s, pages, any_ids)?;
        }
        Ok(all)
    }

    /// What was made.
    pub fn made(&self) -> &[Made] {
        &self.made
    }

    /// The restore succeeded: they belong to the task now.
    pub fn keep(mut self) {
        self.made.clear();
    }

    fn one(&mut self, s: &Segment, pages: &PagesFiles, any_ids: bool) -> Result<(), Error> {
        let what = || format!("SysV segment {} ({} bytes, key {:#x})", s.id, s.size, s.key);
        let wrong = |call: &str, e: &io::Error| match e.raw_os_error() {
            Some(libc::EEXIST) => Error::ShmTaken {
                what: what(),
                why: "its key is in use".into(),
            },
            Some(libc::EPERM | libc::EACCES) => Error::MayNotChoose {
                what: what(),
                why: format!("{call}: {e}"),
            },
            _ => Error::Machine {
                what: what(),
                why: format!("{call}: {e}"),
            },
        };
        // SAFETY: only asks for the segment of a key.
        if s.key != 0 && unsafe { libc::shmget(s.key.cast_signed(), 0, 0) } >= 0 {
            return Err(Error::ShmTaken {
                what: what(),
                why: "its key is in use".into(),
            });
        }
        if !any_ids {
            std::fs::write(NEXT_ID, s.id.to_string()).map_err(|e| Error::MayNotChoose {
                what: what(),
                why: format!("{NEXT_ID}: {e}"),
            })?;
        }
        let size = usize::try_from(s.size).map_err(|_| Error::Machine {
            what: what(),
            why: "larger than an address space".into(),
        })?;
        let mode = (s.mode & 0o777).cast_signed();
        let flags = mode | libc::IPC_CREAT | libc::IPC_EXCL | s.hugetlb.cast_signed();
        // SAFETY: numbers only.
        let id =
            os::check(unsafe { libc::shmget(s.key.cast_signed(), size, flags) }).map_err(|e| {
                if !any_ids {
                    forget_next_id();
                }
                wrong("shmget", &e)
            })?;
        self.made.push(Made { was: s.id, id });
        if !any_ids && u32::try_from(id) != Ok(s.id) {
            return Err(Error::ShmTaken {
                what: what(),
                why: format!("its id is in use (the kernel gave {id})"),
            });
        }
        fill(s, id, size, pages).map_err(|f| match f {
            Fill::Call(call, e) => wrong(call, &e),
            Fill::Pages(e) => e,
        })?;
        set(s, id).map_err(|(call, e)| wrong(call, &e))
    }
}

/// The wanted id waits for the next segment, whoever makes it: let it be one that goes away again.
fn forget_next_id() {
    // SAFETY: a one-page segment of our own, removed at once.
    unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600);
        if id >= 0 {
            libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
        }
    }
}

enum Fill {
    Call(&'static str, io::Error),
    Pages(Error),
}

fn fill(s: &Segment, id: i32, size: usize, pages: &PagesFiles) -> Result<(), Fill> {
    if s.pages.runs.is_empty() {
        return Ok(());
    }
    // SAFETY: the kernel chooses a free place; nothing of ours is replaced.
    let at = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    if at.addr() == usize::MAX {
        return Err(Fill::Call("shmat", io::Error::last_os_error()));
    }
    let len = size.next_multiple_of(4096);
    let done = pages.place(&s.pages, |file, from, to, bytes| {
        let wide = |n: u64| usize::try_from(n).map_err(|_| io::ErrorKind::InvalidData);
        let (start, bytes) = (wide(to)?, wide(bytes)?);
        if start.checked_add(bytes).is_none_or(|end| end > len) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // SAFETY: [start, start + bytes) lies in the `len` bytes attached at `at`, writable and zero; nobody else has
        // attached this new segment, and the slice is gone before it is detached.
        let place = unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>().add(start), bytes) };
        file.read_exact_at(place, from)
    });
    // SAFETY: attached above; no reference into it is left.
    unsafe { libc::shmdt(at) };
    done.map_err(Fill::Pages)
}

/// Owner, mode and lock.
fn set(s: &Segment, id: i32) -> Result<(), (&'static str, io::Error)> {
    let mut ds = std::mem::MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: IPC_STAT fills the structure; zeroed it is valid.
    let mut ds = unsafe {
        os::check(libc::shmctl(id, libc::IPC_STAT, ds.as_mut_ptr()))
            .map_err(|e| ("shmctl(IPC_STAT)", e))?;
        ds.assume_init()
    };
    if (ds.shm_perm.uid, ds.shm_perm.gid) != (s.uid, s.gid) {
        (ds.shm_perm.uid, ds.shm_perm.gid) = (s.uid, s.gid);
        // SAFETY: IPC_SET reads the structure that IPC_STAT filled.
        os::check(unsafe { libc::shmctl(id, libc::IPC_SET, &mut ds) })
            .map_err(|e| ("shmctl(IPC_SET)", e))?;
    }
    if s.locked {
        // SAFETY: SHM_LOCK takes no structure.
        os::check(unsafe { libc::shmctl(id, libc::SHM_LOCK, std::ptr::null_mut()) })
            .map_err(|e| ("shmctl(SHM_LOCK)", e))?;
    }
    Ok(())
}

impl Drop for Segments {
    fn drop(&mut self) {
        for m in &self.made {
            // SAFETY: removes a segment that this restore made.
            unsafe { libc::shmctl(m.id, libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }
}
