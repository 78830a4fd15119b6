//! What a restore makes outside of itself, written down before it is made: if this process dies without a chance to
//! take it back, the next run or `armrest clean` does.
//!
//! # For whoever makes such things
//!
//! Descriptors, memory, processes and namespaces end with their owner and need no journal. SysV objects and names in
//! the file system do:
//!
//! ```text
//! let entry = journal.will_make(&Thing::Sysv { kind, id: Some(5), key, mode, creator })?;  // first this,
//! let id = semget(…)?;                    // then the thing,
//! journal.made_id(&entry, id)?;           // then which one it became
//! ```
//!
//! That is all: a [`Journal`] that is dropped takes back everything in it, as `armrest clean` would. So makers need no
//! `Drop` of their own. [`Journal::gone`] strikes out what was taken back, or is no longer to be, before.
//! [`Journal::done`] says that the restore succeeded: what was made belongs to the task from now on.
//!
//! - Until `made_id`, an object is told by key, mode, owner, time (and creator, for segments). So with `id: None` make
//!   it with a mode that nobody else uses (0 is good: `IPC_SET` gives the real one afterwards), and give that mode here.
//! - A name is told by the directory's and its own device and inode number. Until `made_file` there is no number: make
//!   the thing under [`Journal::hidden`], say `made_file`, and move it; or, where the name must be right at once (a
//!   bound socket), look first that the name is free. Then a file of our owner changed within seconds counts as ours.
//! - Names that must not be lost are moved aside with [`Thing::Aside`], and moved back by whoever cleans.
//! - Nothing is written for SysV objects in an IPC namespace that ends with the restore (`own_ipc`).
//!
//! # On disk
//!
//! One file a restore, `PID.TOKEN`, made with the first entry and removed with the last, locked (`flock`) while its
//! owner lives: so a pid that was given out again does not matter. Lines of text, one write each; a line without its
//! end was never acted upon. Where: [`Place`]. Files that are not a plain file of ours with mode 0600 are not read. The
//! child that becomes the task adds its own line ([`Journal::claim`]): as long as it lives, everything is its own.

pub mod clean;
mod judge;
mod place;
mod text;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::Error;
use crate::objects::sysv::Kind;
use crate::os;
pub use place::Place;
pub use text::Node;
use text::{Head, Line, What};

/// Something that will be made.
#[derive(Debug)]
pub enum Thing<'a> {
    /// A SysV object.
    Sysv {
        /// Which kind.
        kind: Kind,
        /// The id that it will have, if that is chosen.
        id: Option<i32>,
        /// Its key.
        key: u32,
        /// The mode that it is made with (nine bits).
        mode: u32,
        /// The effective user that it will be made as.
        creator: u32,
    },
    /// Any kind of file under this name.
    File {
        /// The directory that it will be in.
        dir: BorrowedFd<'a>,
        /// Its name there.
        name: &'a str,
    },
    /// A file that is moved to another name in its directory, until the restore is over.
    Aside {
        /// The directory that it is in.
        dir: BorrowedFd<'a>,
        /// Its name now.
        name: &'a str,
        /// Its name meanwhile: take one of [`Journal::hidden`].
        aside: &'a str,
    },
}

/// A line of the journal, to say more of it later.
#[derive(Debug)]
#[must_use = "say what the thing became"]
pub struct Entry(Option<u32>);

/// The journal of one restore.
#[derive(Debug)]
pub struct Journal {
    place: Place,
    what: String,
    own_ipc: bool,
    token: String,
    next: Cell<u32>,
    written: RefCell<Option<Written>>,
}

/// The file, once there is one.
#[derive(Debug)]
struct Written {
    at: place::Dir,
    name: String,
    file: File,
    lines: Vec<Line>,
    head: Head,
}

impl Journal {
    /// A journal of the restore of `what` (the images, for people). Nothing is written before there is something to
    /// write. `own_ipc`: the IPC namespace is the restore's own and ends with it.
    pub fn new(place: &Place, what: &Path, own_ipc: bool) -> Journal {
        Journal {
            place: place.clone(),
            what: what.display().to_string(),
            own_ipc,
            token: token(),
            next: Cell::new(0),
            written: RefCell::new(None),
        }
    }

    /// A name that nobody else uses, for something on its way to its real name.
    pub fn hidden(&self) -> String {
        let n = self.next.get();
        self.next.set(n + 1);
        format!(".armrest-{}-{n}", self.token)
    }

    /// Write down that `thing` is about to be made (or moved).
    ///
    /// # Errors
    /// It cannot be written down: then it must not be made.
    pub fn will_make(&self, thing: &Thing<'_>) -> Result<Entry, Error> {
        let what = match thing {
            Thing::Sysv { .. } if self.own_ipc => return Ok(Entry(None)),
            Thing::Sysv {
                kind,
                id,
                key,
                mode,
                creator,
            } => What::Sysv {
                kind: *kind,
                id: *id,
                key: *key,
                mode: *mode,
                creator: *creator,
            },
            Thing::File { dir, name } => What::File {
                dir: self.node_of_dir(*dir)?,
                path: self.path_of(*dir)?,
                name: (*name).into(),
            },
            Thing::Aside { dir, name, aside } => What::Aside {
                dir: self.node_of_dir(*dir)?,
                path: self.path_of(*dir)?,
                name: (*name).into(),
                aside: (*aside).into(),
                node: clean::node(*dir, name)
                    .map_err(|e| self.failed(e))?
                    .ok_or_else(|| self.failed(io::ErrorKind::NotFound.into()))?,
            },
        };
        let n = self.next.get();
        self.next.set(n + 1);
        self.write(Line::Make {
            n,
            time: now(),
            what,
        })?;
        Ok(Entry(Some(n)))
    }

    /// The SysV object was made, with this id.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn made_id(&self, entry: &Entry, id: i32) -> Result<(), Error> {
        self.add(entry, |n| Line::Id { n, id })
    }

    /// The file was made: its numbers are those of what has its name now.
    ///
    /// # Errors
    /// It cannot be looked at or written down.
    pub fn made_file(&self, entry: &Entry, dir: BorrowedFd<'_>, name: &str) -> Result<(), Error> {
        let node = clean::node(dir, name)
            .map_err(|e| self.failed(e))?
            .ok_or_else(|| self.failed(io::ErrorKind::NotFound.into()))?;
        self.add(entry, |n| Line::Node { n, node })
    }

    /// The name will be one more of this file, whoever owns it.
    ///
    /// # Errors
    /// It cannot be looked at or written down.
    pub fn will_be(&self, entry: &Entry, file: BorrowedFd<'_>) -> Result<(), Error> {
        let node = os::fstat(file).map_err(|e| self.failed(e))?;
        let node = clean::node_of(&node);
        self.add(entry, |n| Line::Node { n, node })
    }

    /// It is gone again, or belongs to somebody else now.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn gone(&self, entry: &Entry) -> Result<(), Error> {
        self.add(entry, |n| Line::Gone { n })
    }

    /// In the child that is to become the task, before it is ready to live without its parent: everything in the
    /// journal is its own as long as it lives.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn claim(&self) -> io::Result<()> {
        let mut written = self.written.borrow_mut();
        let Some(w) = written.as_mut() else {
            return Ok(());
        };
        let pid = std::process::id();
        let start = clean::start_time(pid).ok_or(io::ErrorKind::NotFound)?;
        w.file
            .write_all(Line::Task { pid, start }.to_string().as_bytes())
    }

    /// The descriptor that [`Journal::claim`] needs.
    pub fn descriptor(&self) -> Option<RawFd> {
        Some(self.written.borrow().as_ref()?.file.as_raw_fd())
    }

    /// As long as this process lives, everything in the journal is its own.
    ///
    /// # Errors
    /// It cannot be written down.
    pub fn belongs_to(&self, pid: libc::pid_t) -> Result<(), Error> {
        let pid = pid.cast_unsigned();
        match clean::start_time(pid) {
            Some(start) => self.write(Line::Task { pid, start }),
            None => Ok(()),
        }
    }

    /// The restore succeeded: nothing is taken back any more.
    pub fn done(&self) {
        if let Some(w) = self.written.borrow_mut().take() {
            w.remove();
        }
    }

    fn add(&self, entry: &Entry, line: impl FnOnce(u32) -> Line) -> Result<(), Error> {
        match entry.0 {
            Some(n) => self.write(line(n)),
            None => Ok(()),
        }
    }

    fn write(&self, line: Line) -> Result<(), Error> {
        let mut written = self.written.borrow_mut();
        if written.is_none() {
            *written = Some(self.open().map_err(|(dir, source)| Error::Output {
                path: format!("journal in {dir}").into(),
                source,
            })?);
        }
        let Some(w) = written.as_mut() else {
            return Ok(());
        };
        w.file
            .write_all(line.to_string().as_bytes())
            .map_err(|source| Error::Output {
                path: format!("journal {}", w.at.path.join(&w.name).display()).into(),
                source,
            })?;
        w.lines.push(line);
        Ok(())
    }

    /// Make the file, lock it, and see that nobody took it for a dead one's in between.
    fn open(&self) -> Result<Written, (String, io::Error)> {
        let said = |at: &Path, e| (at.display().to_string(), e);
        let head = clean::head(&self.token, &self.what);
        let name = format!("{}.{}", head.pid, self.token);
        for _ in 0..100 {
            let at = self.place.make()?;
            let flags =
                libc::O_RDWR | libc::O_APPEND | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            let file = match os::openat(at.fd.as_fd(), &name, flags, 0o600) {
                Ok(fd) => File::from(fd),
                // The directory went with somebody else's last file.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(said(&at.path, e)),
            };
            // SAFETY: numbers only.
            os::check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) })
                .map_err(|e| said(&at.path, e))?;
            if clean::links(&file).map_err(|e| said(&at.path, e))? != 1 {
                continue;
            }
            let mut w = Written {
                at,
                name,
                file,
                lines: Vec::new(),
                head,
            };
            if let Err(e) = w.file.write_all(w.head.to_string().as_bytes()) {
                w.remove();
                return Err(("its place".into(), e));
            }
            return Ok(w);
        }
        Err(("its place".into(), io::ErrorKind::NotFound.into()))
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Output {
            path: format!("journal of the restore of {}", self.what).into(),
            source,
        }
    }

    fn node_of_dir(&self, dir: BorrowedFd<'_>) -> Result<Node, Error> {
        os::fstat(dir)
            .map(|m| clean::node_of(&m))
            .map_err(|e| self.failed(e))
    }

    /// The absolute path of an open directory, as this process sees it.
    fn path_of(&self, dir: BorrowedFd<'_>) -> Result<String, Error> {
        std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()))
            .and_then(|p| {
                p.into_os_string()
                    .into_string()
                    .map_err(|_| io::ErrorKind::InvalidData.into())
            })
            .map_err(|e| self.failed(e))
    }
}

impl Written {
    fn remove(self) {
        clean::remove(&self.at, &self.name);
    }
}

impl Drop for Journal {
    /// The restore failed: take everything back. The child never comes here: it ends or becomes the task.
    fn drop(&mut self) {
        let Some(w) = self.written.borrow_mut().take() else {
            return;
        };
        let journal = text::Journal {
            head: w.head.clone(),
            lines: w.lines.clone(),
        };
        if clean::take_back(&journal, now())
            .iter()
            .all(|done| done.fate.is_over())
        {
            w.remove();
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// Sixteen hexadecimal digits that nobody has used before.
fn token() -> String {
    let mut bytes = [0u8; 8];
    // SAFETY: as many bytes as the call is told. Should it fail, pid and time still make the name unlikely.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if n != 8 {
        let t = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::from(d.subsec_nanos()) << 32);
        bytes = (t ^ u64::from(std::process::id())).to_le_bytes();
    }
    format!("{:016x}", u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests;
