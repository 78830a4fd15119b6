//! Memory objects: contents from pages files into memfds and mappings. Never more than a buffer at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use armrest_images::{Checkpoint, Memfd, PAGE, PageMap};

use crate::error::Error;

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
            let len = file.metadata().map_err(|e| missing(&e))?.len();
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

    /// Hand every run of `map` to `put(offset in the object, bytes)`, in pieces of at most 64 KiB.
    pub fn each(
        &self,
        map: &PageMap,
        mut put: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let mut buf = vec![0u8; 64 << 10];
        for run in &map.runs {
            let (name, file) = &self.0[run.file];
            let mut left = u64::from(run.pages) * u64::from(PAGE);
            let (mut from, mut to) = (run.offset, run.addr);
            while left > 0 {
                let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
                file.read_exact_at(&mut buf[..n], from)
                    .map_err(|e| Error::MissingFile {
                        path: name.clone(),
                        why: format!("pages file, offset {from}: {e}"),
                    })?;
                put(to, &buf[..n]).map_err(|e| Error::Output {
                    path: "memory object".into(),
                    source: e,
                })?;
                (from, to, left) = (from + n as u64, to + n as u64, left - n as u64);
            }
        }
        Ok(())
    }

    /// A new memory object of `size` bytes with these contents.
    pub fn object(
        &self,
        name: &str,
        size: u64,
        map: &PageMap,
        sealable: bool,
    ) -> Result<File, Error> {
        let failed = |source| Error::Output {
            path: format!("memory object {name}").into(),
            source,
        };
        // A name with a slash is what the kernel shows for anonymous shared memory too.
        let file = File::from(crate::os::memfd(name, &[], sealable).map_err(failed)?);
        file.set_len(size).map_err(failed)?;
        self.each(map, |at, bytes| file.write_all_at(bytes, at))?;
        Ok(file)
    }

    /// A recorded memory object, with its owner and mode.
    pub fn memfd(&self, m: &Memfd) -> Result<File, Error> {
        /// F_SEAL_SEAL alone: made without MFD_ALLOW_SEALING.
        const NEVER_SEALED: u32 = 1;
        let failed = |source| Error::Output {
            path: format!("memory object {}", m.name).into(),
            source,
        };
        let file = self.object(&m.name, m.size, &m.pages, m.seals != NEVER_SEALED)?;
        let now = file.metadata().map_err(failed)?;
        if (now.uid(), now.gid()) != (m.uid, m.gid) {
            std::os::unix::fs::fchown(&file, Some(m.uid), Some(m.gid)).map_err(failed)?;
        }
        if let Some(mode) = m.mode.filter(|mode| (mode ^ now.mode()) & 0o7777 != 0) {
            let mode = std::fs::Permissions::from_mode(mode & 0o7777);
            file.set_permissions(mode).map_err(failed)?;
        }
        Ok(file)
    }
}
