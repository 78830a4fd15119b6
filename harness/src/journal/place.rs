//! Where journals are: a directory that is ours alone, or none.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::os;

/// The directories in which a journal may be, best first: `$ARMREST_JOURNAL` alone, else
/// `$XDG_RUNTIME_DIR/armrest` (an ordinary user), `/run/armrest` (root), `/tmp/armrest-UID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    dirs: Vec<PathBuf>,
    /// The user named it: it is not removed, and what is wrong with it is an error.
    given: bool,
}

/// An open one.
#[derive(Debug)]
pub(super) struct Dir {
    pub path: PathBuf,
    pub fd: OwnedFd,
    /// We made it (or would have): it goes with its last file. One that the user named stays.
    pub ours: bool,
}

impl Place {
    /// As the environment says, or the usual ones.
    pub fn usual() -> Place {
        if let Some(dir) = std::env::var_os("ARMREST_JOURNAL").filter(|d| !d.is_empty()) {
            return Place::at(Path::new(&dir));
        }
        // SAFETY: cannot fail.
        let uid = unsafe { libc::geteuid() };
        let mut dirs: Vec<PathBuf> = Vec::new();
        if uid == 0 {
            dirs.push("/run/armrest".into());
        } else if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()) {
            dirs.push(Path::new(&dir).join("armrest"));
        }
        dirs.push(format!("/tmp/armrest-{uid}").into());
        Place { dirs, given: false }
    }

    /// This directory alone.
    pub fn at(dir: &Path) -> Place {
        Place {
            dirs: vec![dir.to_owned()],
            given: true,
        }
    }

    /// The first that can be written to, made if it is not there. Else the last and why not.
    pub(super) fn make(&self) -> Result<Dir, (String, io::Error)> {
        let mut why = (String::new(), io::ErrorKind::NotFound.into());
        for path in &self.dirs {
            match make(path).and_then(|()| open(path, !self.given)) {
                Ok(dir) => return Ok(dir),
                Err(e) => why = (path.display().to_string(), e),
            }
        }
        Err(why)
    }

    /// Those that are there. One that is not ours is an error only if the user named it.
    pub(super) fn existing(&self) -> io::Result<Vec<Dir>> {
        let mut all = Vec::new();
        for path in &self.dirs {
            match open(path, !self.given) {
                Ok(dir) => all.push(dir),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if self.given => return Err(e),
                Err(_) => {}
            }
        }
        Ok(all)
    }
}

fn make(path: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Open it if it is a directory of ours that nobody else can write to.
fn open(path: &Path, ours: bool) -> io::Result<Dir> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | if ours { libc::O_NOFOLLOW } else { 0 };
    let here = std::fs::File::open("/")?;
    let name = path.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let absolute = std::path::absolute(name)?;
    let name = absolute.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let fd = os::openat(here.as_fd(), name, flags, 0)?;
    let meta = os::fstat(fd.as_fd())?;
    // SAFETY: cannot fail.
    if meta.uid() != unsafe { libc::geteuid() } || meta.mode() & 0o022 != 0 {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(Dir {
        path: absolute,
        fd,
        ours,
    })
}
