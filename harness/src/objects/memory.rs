//! Memory objects: contents from pages files into memfds and mappings. The bytes never pass through this program.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use armrest_images::{Checkpoint, Memfd, PAGE, PageMap};

use super::anonymous::anonymous;
use crate::error::Error;
use crate::os;

/// What dumpers call the object behind anonymous shared memory.
const ANONYMOUS: &str = "/dev/zero";

/// The pages files of a checkpoint, opened.
pub struct PagesFiles(pub Vec<(String, File)>);

impl PagesFiles {
    /// Open all of them below the images directory, and compare the sizes with what was checked.
    pub fn open(images: &Path, cp: &Checkpoint) -> Result<PagesFiles, Error> {
        let mut files = Vec::new();
        for p in &cp.pages_files {
            let path = images.join(&p.name);
            let missing = |e: &io::Error| Error::MissingFile {
                path: path.display().to_string(),
                why: format!("pages file: {e}"),
            };
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(|e| missing(&e))?;
            let len = os::fstat(&file).map_err(|e| missing(&e))?.len();
            if len != p.size {
                return Err(Error::MissingFile {
                    path: path.display().to_string(),
                    why: format!(
                        "pages file: {} bytes when it was checked, {len} now",
                        p.size
                    ),
                });
            }
            files.push((p.name.clone(), file));
        }
        Ok(PagesFiles(files))
    }

    /// Hand every run of `map` to `put(pages file, offset in it, offset in the object, bytes)`, which moves the bytes
    /// without a copy in this program.
    pub fn place(
        &self,
        map: &PageMap,
        mut put: impl FnMut(&File, u64, u64, u64) -> io::Result<()>,
    ) -> Result<(), Error> {
        for run in &map.runs {
            let (name, file) = &self.0[run.file];
            let bytes = u64::from(run.pages) * u64::from(PAGE);
            put(file, run.offset, run.addr, bytes).map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => Error::MissingFile {
                    path: name.clone(),
                    why: format!("pages file, offset {}: {e}", run.offset),
                },
                _ => Error::Output {
                    path: format!("memory object from {name}").into(),
                    source: e,
                },
            })?;
        }
        Ok(())
    }

    /// Show every run of `map` to `see(offset in the object, bytes)`, in pieces of at most 64 KiB: for comparing.
    pub fn each(
        &self,
        map: &PageMap,
        mut see: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let mut buf = vec![0u8; 64 << 10];
        self.place(map, |file, mut from, mut to, mut left| {
            while left > 0 {
                let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
                file.read_exact_at(&mut buf[..n], from)?;
                see(to, &buf[..n])?;
                (from, to, left) = (from + n as u64, to + n as u64, left - n as u64);
            }
            Ok(())
        })
    }

    /// A new memory file of `size` bytes with these contents.
    fn object(&self, name: &str, size: u64, map: &PageMap, sealable: bool) -> Result<File, Error> {
        let failed = |source| Error::Output {
            path: format!("memory object {name}").into(),
            source,
        };
        let file = File::from(os::memfd(name, &[], sealable).map_err(failed)?);
        self.fill(&file, map)?;
        // Contents come in whole pages: the size is set behind them.
        file.set_len(size).map_err(failed)?;
        Ok(file)
    }

    fn fill(&self, file: &File, map: &PageMap) -> Result<(), Error> {
        self.place(map, |pages, from, to, len| send(pages, from, file, to, len))
    }

    /// Anonymous shared memory of `size` bytes with these contents: as `mmap` makes it, else as a memory file of the
    /// same name, which is said in `notes`.
    pub fn anonymous(
        &self,
        size: u64,
        map: &PageMap,
        notes: &mut Vec<String>,
    ) -> Result<File, Error> {
        match anonymous(size) {
            Ok(file) => {
                self.fill(&file, map)?;
                Ok(file)
            }
            Err(e) => {
                let note = format!(
                    "anonymous shared memory is a memory file, which maps show as /memfd:/dev/zero: \
                     /proc/self/map_files: {e}"
                );
                if !notes.contains(&note) {
                    notes.push(note);
                }
                // A name with a slash is what the kernel shows for anonymous shared memory too.
                self.object(ANONYMOUS, size, map, false)
            }
        }
    }

    /// A recorded memory object, with its owner and mode.
    pub fn memfd(&self, m: &Memfd, notes: &mut Vec<String>) -> Result<File, Error> {
        /// F_SEAL_SEAL alone: made without MFD_ALLOW_SEALING.
        const NEVER_SEALED: u32 = 1;
        let failed = |source| Error::Output {
            path: format!("memory object {}", m.name).into(),
            source,
        };
        let file = if m.name == ANONYMOUS && m.seals == NEVER_SEALED {
            self.anonymous(m.size, &m.pages, notes)?
        } else {
            self.object(&m.name, m.size, &m.pages, m.seals != NEVER_SEALED)?
        };
        let now = file.metadata().map_err(failed)?;
        if (now.uid(), now.gid()) != (m.uid, m.gid) {
            match std::os::unix::fs::fchown(&file, Some(m.uid), Some(m.gid)) {
                // InvalidInput: an id that this user namespace does not have.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
                    ) =>
                {
                    notes.push(format!(
                        "memory object {} belongs to uid {} gid {}, not to uid {} gid {}",
                        m.name,
                        now.uid(),
                        now.gid(),
                        m.uid,
                        m.gid
                    ))
                }
                done => done.map_err(failed)?,
            }
        }
        if let Some(mode) = m.mode.filter(|mode| (mode ^ now.mode()) & 0o7777 != 0) {
            let mode = std::fs::Permissions::from_mode(mode & 0o7777);
            file.set_permissions(mode).map_err(failed)?;
        }
        Ok(file)
    }
}

/// `len` bytes from one file to another by `sendfile`: they never come here.
pub fn send(from: &File, offset: u64, to: &File, at: u64, len: u64) -> io::Result<()> {
    let wide = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let (mut offset, at) = (wide(offset)?, wide(at)?);
    // SAFETY: numbers only.
    if unsafe { libc::lseek64(to.as_raw_fd(), at, libc::SEEK_SET) } != at {
        return Err(io::Error::last_os_error());
    }
    let mut left = len;
    while left > 0 {
        let most = usize::try_from(left.min(1 << 30)).unwrap_or(1 << 30);
        // SAFETY: `offset` is a 64-bit offset that the call moves on.
        let n = unsafe { libc::sendfile64(to.as_raw_fd(), from.as_raw_fd(), &mut offset, most) };
        match u64::try_from(n) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => left -= n,
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
    Ok(())
}
