//! Files known by path: opened as they were, and compared with what the dump saw.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use armrest_images::RegFile;

use crate::error::{Changed, Error};
use crate::os;
use crate::root::Root;

/// Open flags that a reopening must not repeat: creation and truncation happened long ago.
const ONCE: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_CLOEXEC;

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

    /// Compare an open file with what the image says of it.
    fn look(&mut self, file: &RegFile, meta: &std::fs::Metadata) {
        let mut differs = |how: String| {
            let change = Changed {
                path: file.path.clone(),
                how,
            };
            if self.changed.contains(&change) {
                return;
            }
            if self.allowed.iter().any(|g| g.matches(&file.path)) {
                self.warnings
                    .push(format!("{}: {} (allowed)", change.path, change.how));
            } else if file.flags & libc::O_APPEND.cast_unsigned() != 0 && meta.is_file() {
                self.warnings.push(format!(
                    "{}: {} (open for appending)",
                    change.path, change.how
                ));
            } else {
                self.changed.push(change);
            }
        };
        if let Some(mode) = file.mode.filter(|m| (m ^ meta.mode()) & libc::S_IFMT != 0) {
            differs(format!(
                "file type {:o} at the dump, {:o} now",
                mode & libc::S_IFMT,
                meta.mode() & libc::S_IFMT
            ));
        } else if let Some(size) = file.size.filter(|s| meta.is_file() && *s != meta.len()) {
            differs(format!("size {size} at the dump, {} now", meta.len()));
        }
    }
}

fn failed(path: &str, who: &str, e: &io::Error) -> Error {
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
    let kind = meta.file_type();
    if kind.is_fifo() || kind.is_socket() || kind.is_block_device() {
        return Err(Error::BadPath {
            path: file.path.clone(),
            why: format!("{who}: not a regular file or character device now"),
        });
    }
    if compare.look_only {
        return Ok(look);
    }
    let fd = root
        .open_path(&file.path, flags & !ONCE | libc::O_NOCTTY)
        .map_err(|e| failed(&file.path, who, &e))?;
    let now = os::fstat(fd.as_fd()).map_err(|e| failed(&file.path, who, &e))?;
    if (now.dev(), now.ino()) != (meta.dev(), meta.ino()) && !kind.is_char_device() {
        return Err(Error::BadPath {
            path: file.path.clone(),
            why: format!("{who}: replaced while it was opened"),
        });
    }
    Ok(fd)
}

/// Open a description as the task had it: flags and position.
pub fn reopen(
    root: &Root,
    file: &RegFile,
    who: &str,
    compare: &mut Compare,
) -> Result<OwnedFd, Error> {
    let fd = open(root, file, file.flags.cast_signed(), who, compare)?;
    if let Some(pos) = file.pos.filter(|p| *p != 0 && !compare.look_only) {
        let pos = i64::try_from(pos).map_err(|_| Error::BadPath {
            path: file.path.clone(),
            why: format!("{who}: position {pos}"),
        })?;
        // SAFETY: numbers only.
        let at = unsafe { libc::lseek64(fd.as_raw_fd(), pos, libc::SEEK_SET) };
        if at != pos {
            return Err(failed(
                &file.path,
                &format!("{who}: seek to {pos}"),
                &io::Error::last_os_error(),
            ));
        }
    }
    Ok(fd)
}
