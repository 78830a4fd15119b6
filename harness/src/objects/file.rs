//! Files known by path: opened as they were, and compared with what the dump saw.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use armrest_images::RegFile;

use crate::error::{Changed, Error};
use crate::objects::build_id::build_id;
use crate::os;
use crate::root::Root;

/// Open flags that a reopening must not repeat: creation and truncation happened long ago.
const ONCE: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_CLOEXEC | libc::O_ASYNC;

/// Which changes the user accepts, and what was seen so far.
pub struct Compare {
    /// Nothing is opened for use: opening a device can have effects.
    look_only: bool,
    allowed: Vec<glob::Pattern>,
    /// Files that differ and must not.
    pub changed: Vec<Changed>,
    /// What is worth a warning.
    pub warnings: Vec<String>,
}

impl Compare {
    /// Accept the paths that these globs match.
    pub fn new(allow_changed: &[String], look_only: bool) -> Result<Compare, Error> {
        let allowed = allow_changed
            .iter()
            .map(|g| {
                glob::Pattern::new(g).map_err(|e| Error::Usage {
                    what: format!("--allow-changed {g}: {e}"),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Compare {
            look_only,
            allowed,
            changed: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// Nothing may be opened for use.
    pub fn look_only(&self) -> bool {
        self.look_only
    }

    /// Note a difference: an error, unless the user accepts it or `harmless` says why it does not matter.
    fn differs(&mut self, file: &RegFile, how: String, harmless: Option<&str>) {
        let change = Changed {
            path: file.path.clone(),
            how,
        };
        if self.changed.contains(&change) {
            return;
        }
        let allowed = self.allowed.iter().any(|g| g.matches(&file.path));
        match if allowed { Some("allowed") } else { harmless } {
            Some(why) => {
                let warning = format!("{}: {} ({why})", change.path, change.how);
                if !self.warnings.contains(&warning) {
                    self.warnings.push(warning);
                }
            }
            None => self.changed.push(change),
        }
    }

    /// Compare a file with what the image says of it.
    pub fn look(&mut self, file: &RegFile, meta: &os::Stat) {
        let append = file.flags & libc::O_APPEND.cast_unsigned() != 0 && meta.is_file();
        let harmless = append.then_some("open for appending");
        if let Some(mode) = file.mode.filter(|m| (m ^ meta.mode()) & libc::S_IFMT != 0) {
            let (was, now) = (mode & libc::S_IFMT, meta.mode() & libc::S_IFMT);
            self.differs(
                file,
                format!("file type {was:o} at the dump, {now:o} now"),
                None,
            );
        } else if let Some(size) = file.size.filter(|s| meta.is_file() && *s != meta.len()) {
            let how = format!("size {size} at the dump, {} now", meta.len());
            self.differs(file, how, harmless);
        }
    }

    /// A program or library of the same size may still be another build.
    fn same_build(&mut self, file: &RegFile, open: &std::fs::File) {
        let known = self.changed.iter().any(|c| c.path == file.path);
        if file.build_id.is_empty() || known {
            return;
        }
        let hex = |id: &[u8]| id.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let now = build_id(open);
        if now.as_ref() != Some(&file.build_id) {
            let now = now.map_or_else(|| "none".into(), |id| hex(&id));
            let how = format!("build id {} at the dump, {now} now", hex(&file.build_id));
            self.differs(file, how, None);
        }
    }
}

/// A file that cannot be had.
pub fn failed(path: &str, who: &str, e: &io::Error) -> Error {
    let why = format!("{who}: {e}");
    match e.raw_os_error() {
        Some(libc::ELOOP | libc::ENOTDIR) => Error::BadPath {
            path: path.into(),
            why,
        },
        _ => Error::MissingFile {
            path: path.into(),
            why,
        },
    }
}

/// Open a file of the images with these flags, for `who`.
pub fn open(
    root: &Root,
    file: &RegFile,
    flags: i32,
    who: &str,
    compare: &mut Compare,
) -> Result<OwnedFd, Error> {
    // What a path means is looked at before it is opened: opening a device or a FIFO can have effects.
    let look = root
        .open_path(&file.path, libc::O_PATH)
        .map_err(|e| failed(&file.path, who, &e))?;
    let meta = os::fstat(look.as_fd()).map_err(|e| failed(&file.path, who, &e))?;
    compare.look(file, &meta);
    if flags & libc::O_PATH != 0 {
        // The walk does not follow; a description that may follow is another.
        if compare.look_only || flags & libc::O_NOFOLLOW != 0 {
            return Ok(look);
        }
        return os::reopen(look.as_fd(), flags & !ONCE).map_err(|e| failed(&file.path, who, &e));
    }
    if [libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFBLK]
        .iter()
        .any(|k| meta.is(*k))
    {
        return Err(Error::BadPath {
            path: file.path.clone(),
            why: format!("{who}: not a regular file or character device now"),
        });
    }
    if compare.look_only {
        if meta.is_file() && !file.build_id.is_empty() {
            let fd = root
                .open_path(&file.path, libc::O_RDONLY)
                .map_err(|e| failed(&file.path, who, &e))?;
            compare.same_build(file, &fd.into());
        }
        return Ok(look);
    }
    let fd = root
        .open_path(&file.path, flags & !ONCE | libc::O_NOCTTY)
        .map_err(|e| failed(&file.path, who, &e))?;
    let now = os::fstat(fd.as_fd()).map_err(|e| failed(&file.path, who, &e))?;
    if (now.dev(), now.ino()) != (meta.dev(), meta.ino()) && !meta.is(libc::S_IFCHR) {
        return Err(Error::BadPath {
            path: file.path.clone(),
            why: format!("{who}: replaced while it was opened"),
        });
    }
    let fd = std::fs::File::from(fd);
    compare.same_build(file, &fd);
    Ok(fd.into())
}

/// Put a description at its position.
pub fn seek(fd: &OwnedFd, pos: Option<u64>, path: &str, who: &str) -> Result<(), Error> {
    let Some(pos) = pos.filter(|p| *p != 0) else {
        return Ok(());
    };
    let wanted = i64::try_from(pos).map_err(|_| Error::BadPath {
        path: path.into(),
        why: format!("{who}: position {pos}"),
    })?;
    // SAFETY: numbers only.
    let at = unsafe { libc::lseek64(fd.as_raw_fd(), wanted, libc::SEEK_SET) };
    if at == wanted {
        return Ok(());
    }
    let who = format!("{who}: seek to {pos}");
    Err(failed(path, &who, &io::Error::last_os_error()))
}
