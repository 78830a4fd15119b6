//! Files without their name: deleted ones are made again, opened and unlinked; those with another name left are opened
//! by the name that the dumper made. A name that somebody else has taken meanwhile is never touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use armrest_images::{Checkpoint, Ghost, RegFile};

use crate::error::Error;
use crate::journal::{Journal, Thing};
use crate::objects::file::{Compare, failed};
use crate::objects::memory::send;
use crate::os;
use crate::root::Root;

/// Deleted files, each made once.
pub struct Ghosts<'a> {
    images: PathBuf,
    journal: &'a Journal,
    made: BTreeMap<u32, File>,
    notes: Vec<String>,
}

impl<'a> Ghosts<'a> {
    /// None yet; contents come from images there. What has a name for a moment is in the journal meanwhile.
    pub fn new(images: &Path, journal: &'a Journal) -> Ghosts<'a> {
        Ghosts {
            images: images.to_owned(),
            journal,
            made: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// The file, to be opened again through this descriptor. Only looking: its directory.
    pub fn get(
        &mut self,
        id: u32,
        ghost: &Ghost,
        reg: &RegFile,
        root: &Root,
        look_only: bool,
    ) -> Result<OwnedFd, Error> {
        let wrong = |e: io::Error| failed(&reg.path, "a deleted file", &e);
        if !self.made.contains_key(&id) {
            let (dir, name) = root.parent(&reg.path).map_err(wrong)?;
            if look_only {
                return Ok(dir);
            }
            let taken = os::exists(dir.as_fd(), &name).map_err(wrong)?;
            let name = if taken {
                let other = self.journal.hidden();
                self.notes.push(format!(
                    "{} was deleted, and another file has its name now: it shows as {other}",
                    reg.path
                ));
                other
            } else {
                name
            };
            let entry = self.journal.will_make(&Thing::File {
                dir: dir.as_fd(),
                name: &name,
            })?;
            let file = create(dir.as_fd(), &name, ghost.mode);
            // What could be made and not removed stays in the journal: it is removed as this restore fails, or later.
            let left = match &file {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    os::exists(dir.as_fd(), &name).unwrap_or(true)
                }
                _ => false,
            };
            if !left {
                self.journal.gone(&entry)?;
            }
            let file = File::from(file.map_err(wrong)?);
            self.fill(ghost, &file).map_err(wrong)?;
            self.made.insert(id, file);
        }
        let made = self.made.get(&id).ok_or(io::ErrorKind::NotFound);
        made.map_err(io::Error::from)
            .and_then(|f| f.try_clone())
            .map(OwnedFd::from)
            .map_err(wrong)
    }

    fn fill(&self, ghost: &Ghost, file: &File) -> io::Result<()> {
        if ghost.mode & libc::S_IFMT != libc::S_IFREG {
            return Ok(());
        }
        file.set_len(ghost.size)?;
        if ghost.pieces.is_empty() {
            return Ok(());
        }
        let image = File::open(self.images.join(&ghost.image))?;
        for p in &ghost.pieces {
            send(&image, p.from, file, p.to, p.len)?;
        }
        Ok(())
    }

    /// Owner, mode and times, after every opening. What to say.
    pub fn finish(self, cp: &Checkpoint) -> Result<Vec<String>, Error> {
        for (id, file) in &self.made {
            if let Some(ghost) = cp.ghosts.get(id) {
                attributes(ghost, file).map_err(|e| Error::Machine {
                    what: format!("deleted file {id}: owner, mode and times"),
                    why: e.to_string(),
                })?;
            }
        }
        Ok(self.notes)
    }
}

/// Make a file under a name that is free, open it, and take the name away again.
fn create(dir: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<OwnedFd> {
    let c_name = os::c_path(name)?;
    let fd = match mode & libc::S_IFMT {
        libc::S_IFDIR => {
            // SAFETY: `c_name` is NUL-terminated; `dir` is open.
            os::check(unsafe { libc::mkdirat(dir.as_raw_fd(), c_name.as_ptr(), 0o700) })?;
            os::openat(
                dir,
                name,
                libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW,
                0,
            )
        }
        libc::S_IFIFO => {
            // SAFETY: as above.
            os::check(unsafe { libc::mkfifoat(dir.as_raw_fd(), c_name.as_ptr(), 0o600) })?;
            os::openat(
                dir,
                name,
                libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOFOLLOW,
                0,
            )
        }
        _ => os::openat(
            dir,
            name,
            libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
            0o600,
        ),
    };
    let remove = if mode & libc::S_IFMT == libc::S_IFDIR {
        libc::AT_REMOVEDIR
    } else {
        0
    };
    match fd {
        Ok(fd) => {
            unlink_if_same(dir, name, fd.as_fd(), remove)?;
            Ok(fd)
        }
        Err(e) => {
            if e.kind() != io::ErrorKind::AlreadyExists {
                // SAFETY: as above; a directory or FIFO that was made just now, and a file that could not be made is none.
                unsafe { libc::unlinkat(dir.as_raw_fd(), c_name.as_ptr(), remove) };
            }
            Err(e)
        }
    }
}

/// Remove a name if it still means this file.
fn unlink_if_same(
    dir: BorrowedFd<'_>,
    name: &str,
    file: BorrowedFd<'_>,
    flags: i32,
) -> io::Result<()> {
    let now = os::openat(dir, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    let (now, was) = (os::fstat(now.as_fd())?, os::fstat(file)?);
    if (now.dev(), now.ino()) != (was.dev(), was.ino()) {
        return Err(io::Error::other("replaced while it was opened"));
    }
    let name = os::c_path(name)?;
    // SAFETY: `name` is NUL-terminated; `dir` is open.
    os::check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), flags) })?;
    Ok(())
}

fn attributes(ghost: &Ghost, file: &File) -> io::Result<()> {
    let now = file.metadata()?;
    if (now.uid(), now.gid()) != (ghost.uid, ghost.gid) {
        std::os::unix::fs::fchown(file, Some(ghost.uid), Some(ghost.gid))?;
    }
    if (ghost.mode ^ now.mode()) & 0o7777 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(ghost.mode & 0o7777))?;
    }
    if let Some([a, m]) = ghost.times {
        let time = |(s, us): (u64, u32)| {
            std::time::UNIX_EPOCH.checked_add(std::time::Duration::new(s, us.saturating_mul(1000)))
        };
        if let (Some(a), Some(m)) = (time(a), time(m)) {
            let times = std::fs::FileTimes::new().set_accessed(a).set_modified(m);
            file.set_times(times)?;
        }
    }
    Ok(())
}

/// Names that the dumper made for files that had lost the name they were opened by. They go after a success.
#[derive(Default)]
pub struct Links {
    found: Vec<Link>,
}

struct Link {
    path: String,
    dir: OwnedFd,
    name: String,
    file: OwnedFd,
}

impl Links {
    /// The file that `link` names, under the name that it had if that is free now, to be opened through this descriptor.
    pub fn get(
        &mut self,
        reg: &RegFile,
        link: &RegFile,
        root: &Root,
        compare: &mut Compare,
        journal: &Journal,
    ) -> Result<OwnedFd, Error> {
        let wrong = |e: io::Error| failed(&link.path, &format!("once {}", reg.path), &e);
        if let Some(l) = self.found.iter().find(|l| l.path == link.path) {
            return l.file.try_clone().map_err(wrong);
        }
        let (dir, name) = root.parent(&link.path).map_err(wrong)?;
        let found =
            os::openat(dir.as_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0).map_err(wrong)?;
        compare.look(reg, &os::fstat(found.as_fd()).map_err(wrong)?);
        let file = if compare.look_only() {
            found
        } else {
            let old = reg.path.rsplit('/').next().unwrap_or_default();
            if os::exists(dir.as_fd(), old).map_err(wrong)? {
                found
            } else {
                let entry = journal.will_make(&Thing::File {
                    dir: dir.as_fd(),
                    name: old,
                })?;
                journal.will_be(&entry, found.as_fd())?;
                let file = once_more(dir.as_fd(), &name, &found, old).map_err(wrong)?;
                journal.gone(&entry)?;
                file
            }
        };
        let again = file.try_clone().map_err(wrong)?;
        self.found.push(Link {
            path: link.path.clone(),
            dir,
            name,
            file,
        });
        Ok(again)
    }

    /// One more name that goes then, if it still means this file.
    pub fn gone_after_success(&mut self, path: String, dir: OwnedFd, name: String, file: OwnedFd) {
        self.found.push(Link {
            path,
            dir,
            name,
            file,
        });
    }

    /// The restore succeeded: the dumper's names go. What could not be removed, in sentences.
    pub fn remove(self) -> Vec<String> {
        let gone = |l: &Link| unlink_if_same(l.dir.as_fd(), &l.name, l.file.as_fd(), 0);
        let left = |l: &Link| gone(l).err().map(|e| format!("{} stays: {e}", l.path));
        self.found.iter().filter_map(left).collect()
    }
}

/// The task saw the file under the name that it had: let that name be for as long as it takes to open it, if it is free.
fn once_more(dir: BorrowedFd<'_>, name: &str, found: &OwnedFd, old: &str) -> io::Result<OwnedFd> {
    let (from, to) = (os::c_path(name)?, os::c_path(old)?);
    let at = dir.as_raw_fd();
    // SAFETY: both names are NUL-terminated; `dir` is open.
    let linked = unsafe { libc::linkat(at, from.as_ptr(), at, to.as_ptr(), 0) } == 0;
    if !linked {
        return found.try_clone();
    }
    let file = os::openat(dir, old, libc::O_PATH | libc::O_NOFOLLOW, 0);
    unlink_if_same(dir, old, found.as_fd(), 0)?;
    file
}
