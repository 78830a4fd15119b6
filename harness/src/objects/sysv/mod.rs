//! SysV objects: made with their own ids, keys, owners and creators, and taken back if the restore fails.
//!
//! Common to all three kinds is here; what a kind holds is in [`mod@shm`], [`sem`] and [`msg`].

pub mod msg;
pub mod sem;
pub mod shm;

use std::collections::BTreeSet;
use std::io;

use armrest_images::{Checkpoint, IpcPerm, VmaKind};
use armrest_plan::ipc::Sysctl;
use armrest_plan::words;

use crate::error::Error;
use crate::journal::{Journal, Thing};
use crate::objects::memory::PagesFiles;
use crate::os;

/// The three kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Shared memory.
    Segment,
    /// Semaphores.
    Set,
    /// Messages.
    Queue,
}

impl Kind {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Segment => "SysV segment",
            Kind::Set => "SysV semaphore set",
            Kind::Queue => "SysV message queue",
        }
    }

    /// As in `/proc/sysvipc`.
    pub const fn short(self) -> &'static str {
        match self {
            Kind::Segment => "shm",
            Kind::Set => "sem",
            Kind::Queue => "msg",
        }
    }

    /// Where the next id is chosen.
    pub const fn next_id(self) -> &'static str {
        match self {
            Kind::Segment => "/proc/sys/kernel/shm_next_id",
            Kind::Set => "/proc/sys/kernel/sem_next_id",
            Kind::Queue => "/proc/sys/kernel/msg_next_id",
        }
    }

    /// Ask for an object: an existing one of `key`, or with the flags a new one of `size` bytes or semaphores.
    fn get(self, key: libc::key_t, size: usize, flags: libc::c_int) -> io::Result<libc::c_int> {
        let count = libc::c_int::try_from(size).unwrap_or(libc::c_int::MAX);
        // SAFETY: numbers only.
        os::check(unsafe {
            match self {
                Kind::Segment => libc::shmget(key, size, flags),
                Kind::Set => libc::semget(key, count, flags),
                Kind::Queue => libc::msgget(key, flags),
            }
        })
    }

    /// Remove an object that a restore made.
    ///
    /// # Errors
    /// It is not there, or not ours.
    pub fn remove(self, id: libc::c_int) -> io::Result<()> {
        // SAFETY: IPC_RMID reads no structure. An attached segment stays until its last attachment goes.
        os::check(unsafe {
            match self {
                Kind::Segment => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
                Kind::Set => libc::semctl(id, 0, libc::IPC_RMID),
                Kind::Queue => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            }
        })
        .map(drop)
    }

    /// The wanted id waits for the next object, whoever makes it: let it be one that goes away again.
    ///
    /// # Errors
    /// No such object can be made.
    pub fn forget_next_id(self) -> io::Result<()> {
        self.remove(self.get(libc::IPC_PRIVATE, 1, libc::IPC_CREAT | 0o600)?)
    }
}

/// One object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// Which kind.
    pub kind: Kind,
    /// Id in the checkpoint.
    pub was: u32,
    /// Id here.
    pub id: i32,
}

/// Objects made for a restore. Dropped before [`SysV::keep`], they are removed again.
#[derive(Debug, Default)]
pub struct SysV {
    made: Vec<Made>,
    /// What is otherwise than the checkpoint says.
    pub notes: Vec<String>,
}

/// What every object is made with.
struct Maker<'a> {
    any_ids: bool,
    journal: &'a Journal,
    made: &'a mut Vec<Made>,
    /// Objects whose creator is this user instead of the checkpoint's.
    lost: Vec<String>,
    notes: &'a mut Vec<String>,
}

impl SysV {
    /// Make every object of the checkpoint. `go_on` is asked before each.
    pub fn make(
        cp: &Checkpoint,
        pages: &PagesFiles,
        any_ids: bool,
        go_on: &dyn Fn() -> Result<(), Error>,
        journal: &Journal,
    ) -> Result<SysV, Error> {
        let mut all = SysV::default();
        let mut maker = Maker {
            any_ids,
            journal,
            made: &mut all.made,
            lost: Vec::new(),
            notes: &mut all.notes,
        };
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
        for s in ascending(&cp.segments, |s| s.perm.id) {
            go_on()?;
            // Marked and attached by nobody: it would be gone at once.
            if !s.dest || attached.contains(&s.perm.id) {
                shm::make(s, pages, &mut maker)?;
            }
        }
        for s in ascending(&cp.semaphores, |s| s.perm.id) {
            go_on()?;
            sem::make(s, &mut maker)?;
        }
        for q in ascending(&cp.queues, |q| q.perm.id) {
            go_on()?;
            msg::make(q, &mut maker)?;
        }
        let Maker { lost, .. } = maker;
        if !lost.is_empty() {
            all.notes.push(format!(
                "only root makes objects in the name of another creator; this user is that of {}",
                words::some(&lost)
            ));
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
}

impl Drop for SysV {
    fn drop(&mut self) {
        for m in &self.made {
            // Gone already, or not to be helped.
            let _ = m.kind.remove(m.id);
        }
    }
}

/// By ascending ids, so that an object cannot take the id of one that is still to come.
fn ascending<T>(all: &[T], id: impl Fn(&T) -> u32) -> Vec<&T> {
    let mut sorted: Vec<&T> = all.iter().collect();
    sorted.sort_by_key(|o| id(o));
    sorted
}

impl Maker<'_> {
    /// A new object of `size` bytes or semaphores, with `flags` besides. Only its maker may use it until it is complete.
    fn create(
        &mut self,
        kind: Kind,
        perm: &IpcPerm,
        size: usize,
        flags: libc::c_int,
        what: &str,
    ) -> Result<libc::c_int, Error> {
        let taken = |why: String| Error::SysVTaken {
            what: what.to_owned(),
            why,
            flag: match kind {
                Kind::Segment => 'm',
                Kind::Set => 's',
                Kind::Queue => 'q',
            },
        };
        let key = perm.key.cast_signed();
        if key != libc::IPC_PRIVATE && kind.get(key, 0, 0).is_ok() {
            return Err(taken("its key is in use".into()));
        }
        let entry = self.journal.will_make(&Thing::Sysv {
            kind,
            id: i32::try_from(perm.id).ok().filter(|_| !self.any_ids),
            key: perm.key,
            mode: 0o600,
            creator: creator(perm),
        })?;
        if !self.any_ids {
            let next = kind.next_id();
            std::fs::write(next, perm.id.to_string()).map_err(|e| Error::MayNotChoose {
                what: what.to_owned(),
                why: format!("{next}: {e}"),
            })?;
        }
        let flags = flags | 0o600 | libc::IPC_CREAT | libc::IPC_EXCL;
        let id = match as_creator(perm, || kind.get(key, size, flags)) {
            Ok((id, true)) => id,
            Ok((id, false)) => {
                self.lost.push(format!(
                    "{} {} (of {}:{})",
                    kind.name(),
                    perm.id,
                    perm.cuid,
                    perm.cgid
                ));
                id
            }
            Err(e) => {
                if !self.any_ids {
                    let _ = kind.forget_next_id();
                }
                return Err(match e.raw_os_error() {
                    Some(libc::EEXIST) => taken("its key is in use".into()),
                    _ => wrong(what, kind, "get", &e),
                });
            }
        };
        self.made.push(Made {
            kind,
            was: perm.id,
            id,
        });
        self.journal.made_id(&entry, id)?;
        if !self.any_ids && u32::try_from(id) != Ok(perm.id) {
            return Err(taken(format!("its id is in use (the kernel gave {id})")));
        }
        Ok(id)
    }

    /// Owner and mode, by `set`, the last thing done to an object. With any ids an owner that cannot be set is said.
    fn finish(
        &mut self,
        kind: Kind,
        perm: &IpcPerm,
        what: &str,
        mut set: impl FnMut(&mut libc::ipc_perm) -> io::Result<()>,
        now: libc::ipc_perm,
    ) -> Result<(), Error> {
        let mut new = now;
        (new.uid, new.gid) = (perm.uid, perm.gid);
        set_mode(&mut new, perm.mode);
        match set(&mut new) {
            Err(e)
                if self.any_ids
                    && matches!(e.raw_os_error(), Some(libc::EPERM | libc::EINVAL))
                    && (now.uid, now.gid) != (perm.uid, perm.gid) =>
            {
                self.notes.push(format!(
                    "{} {}: its owner is {}:{}, not {}:{}: {e}",
                    kind.name(),
                    perm.id,
                    now.uid,
                    now.gid,
                    perm.uid,
                    perm.gid
                ));
                (new.uid, new.gid) = (now.uid, now.gid);
                set(&mut new).map_err(|e| wrong(what, kind, "ctl(IPC_SET)", &e))
            }
            done => done.map_err(|e| wrong(what, kind, "ctl(IPC_SET)", &e)),
        }
    }
}

/// The type of the mode differs between the C libraries that this builds for.
fn set_mode(perm: &mut libc::ipc_perm, mode: u32) {
    if let Ok(mode) = (mode & 0o777).try_into() {
        perm.mode = mode;
    }
}

fn wrong(what: &str, kind: Kind, call: &str, e: &io::Error) -> Error {
    let start = match kind {
        Kind::Segment => "shm",
        Kind::Set => "sem",
        Kind::Queue => "msg",
    };
    let (what, why) = (what.to_owned(), format!("{start}{call}: {e}"));
    match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::MayNotChoose { what, why },
        _ => Error::Machine { what, why },
    }
}

/// The words of an error about an object.
fn words(kind: Kind, perm: &IpcPerm, size: &str) -> String {
    format!("{} {} ({size}, key {:#x})", kind.name(), perm.id, perm.key)
}

/// The effective user that the object is made as.
fn creator(perm: &IpcPerm) -> u32 {
    // SAFETY: takes no argument and cannot fail.
    match unsafe { libc::geteuid() } {
        0 => perm.cuid,
        uid => uid,
    }
}

/// Do `make` with the creator's effective ids, if root does it and they differ. Whether they were the creator's.
///
/// The kernel notes the effective ids of the maker for ever: no call changes them later.
fn as_creator<T>(perm: &IpcPerm, make: impl FnOnce() -> io::Result<T>) -> io::Result<(T, bool)> {
    // SAFETY: take no argument and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    if (uid, gid) == (perm.cuid, perm.cgid) {
        return Ok((make()?, true));
    }
    // Only root comes back with the capabilities that it had.
    if uid != 0 {
        return Ok((make()?, false));
    }
    let ids = os::Ids {
        real: None,
        user: perm.cuid,
        group: Some(perm.cgid),
    };
    os::with_ids(ids, |taken| Ok((make()?, taken.is_ok())))
}

/// Write limits of a namespace of our own; what cannot be written is said.
pub fn write_limits(limits: &[Sysctl]) -> Vec<String> {
    let failed = limits.iter().filter_map(|l| {
        let e = std::fs::write(format!("/proc/sys/{}", l.path), &l.value).err()?;
        Some(format!("{} could not be set to {}: {e}", l.path, l.value))
    });
    failed.collect()
}
