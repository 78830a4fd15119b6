//! Where image files come from: a directory of the file system, or memory (tests, fuzzing).
//! Reads only, only plain names, and nothing outside the directory but its documented `parent` link.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::stat::fstat;

/// Largest image that is read whole (pages files are never).
pub const MAX_IMAGE: u64 = 16 << 20;

/// A directory of image files.
pub trait ImageDir {
    /// The whole file, `None` if there is no such file.
    ///
    /// # Errors
    /// What the system says; `FileTooLarge` above [`MAX_IMAGE`].
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    /// Bytes of the file, `None` if there is no such file.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self, name: &str) -> io::Result<Option<u64>>;
    /// Exactly `len` bytes at `offset`.
    ///
    /// # Errors
    /// What the system says; `UnexpectedEof` if the file is shorter.
    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// Names of all files, sorted.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self) -> io::Result<Vec<String>>;
    /// The directory of the previous dump of an incremental series, if there is one.
    ///
    /// # Errors
    /// What the system says.
    fn parent(&self) -> io::Result<Option<Box<dyn ImageDir>>>;
}

/// A directory of the file system.
#[derive(Debug)]
pub struct FsDir {
    path: PathBuf,
    /// What is in it, once it was listed: the name, and whether it is a plain file. What comes later is not seen.
    listed: OnceLock<Vec<(String, bool)>>,
    /// The file that was opened last for its size or a part of it.
    last: Mutex<Option<(String, Arc<fs::File>, u64)>>,
}

impl FsDir {
    /// The directory at `path`; nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> FsDir {
        FsDir {
            path: path.into(),
            listed: OnceLock::new(),
            last: Mutex::new(None),
        }
    }

    /// A file that is likely to be asked for again soon: pages files are read here and there.
    fn open_again(&self, name: &str) -> io::Result<Option<(Arc<fs::File>, u64)>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file, size)) = last.as_ref().filter(|l| l.0 == name) {
            return Ok(Some((Arc::clone(file), *size)));
        }
        let Some((file, size)) = self.open(name)? else {
            return Ok(None);
        };
        let file = Arc::new(file);
        *last = Some((name.to_owned(), Arc::clone(&file), size));
        Ok(Some((file, size)))
    }

    fn listed(&self) -> io::Result<&[(String, bool)]> {
        if let Some(known) = self.listed.get() {
            return Ok(known);
        }
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                all.push((name, entry.file_type()?.is_file()));
            }
        }
        all.sort_unstable();
        Ok(self.listed.get_or_init(|| all))
    }

    /// A regular file, and its size.
    fn open(&self, name: &str) -> io::Result<Option<(fs::File, u64)>> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a plain file name",
            ));
        }
        let known = self.listed.get();
        if known.is_some_and(|all| all.binary_search_by(|n| n.0.as_str().cmp(name)).is_err()) {
            return Ok(None);
        }
        // NOFOLLOW: a link could lead anywhere. NONBLOCK: a FIFO would hang us.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = match OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(self.path.join(name))
        {
            Ok(f) => f,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "is a symbolic link",
                ));
            }
            Err(e) => return Err(e),
        };
        let meta = fstat(&file)?;
        if !meta.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "is not a regular file",
            ));
        }
        Ok(Some((file, meta.len())))
    }
}

impl ImageDir for FsDir {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some((mut file, size)) = self.open(name)? else {
            return Ok(None);
        };
        if size > MAX_IMAGE {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        // In one go, as a rule: the size is known. What is added meanwhile is not read.
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        let mut done = 0;
        while done < bytes.len() {
            match file.read(&mut bytes[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(done);
        Ok(Some(bytes))
    }

    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self.open_again(name)?.map(|f| f.1))
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let (file, _) = self.open_again(name)?.ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let files = self.listed()?.iter().filter(|n| n.1);
        Ok(files.map(|n| n.0.clone()).collect())
    }

    fn parent(&self) -> io::Result<Option<Box<dyn ImageDir>>> {
        let path = self.path.join("parent");
        match fs::metadata(&path) {
            Ok(m) if m.is_dir() => Ok(Some(Box::new(FsDir::new(path)))),
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::NotADirectory,
                "`parent` is not a directory",
            )),
            Err(e)
                if e.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&path).is_err() =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

/// Image files in memory.
#[derive(Clone, Debug, Default)]
pub struct MemDir {
    /// Contents by name.
    pub files: BTreeMap<String, Arc<Vec<u8>>>,
    /// The previous dump.
    pub parent: Option<Arc<MemDir>>,
}

impl MemDir {
    /// Puts a file.
    pub fn put(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.insert(name.to_owned(), Arc::new(bytes));
    }

    /// Reads all files of a directory.
    ///
    /// # Errors
    /// What the system says.
    pub fn from_fs(path: impl Into<PathBuf>) -> io::Result<MemDir> {
        let dir = FsDir::new(path);
        let mut mem = MemDir::default();
        for name in dir.list()? {
            if let Some(bytes) = dir.read(&name)? {
                mem.put(&name, bytes);
            }
        }
        Ok(mem)
    }
}

/// One file holding a directory: `{ name length u8, name, length u32 LE, bytes }`, repeated. A name `parent` with no
/// bytes starts the parent directory. This is what the fuzz targets eat.
impl MemDir {
    /// Unpacks; never fails: lengths beyond the end are cut there.
    pub fn from_archive(bytes: &[u8]) -> MemDir {
        let mut rest = bytes;
        let mut levels = vec![MemDir::default()];
        while let Some((len, tail)) = rest.split_first() {
            let (name, tail) = tail.split_at(tail.len().min(usize::from(*len)));
            let (len, tail) = tail.split_at(tail.len().min(4));
            let len = len.iter().rev().fold(0u32, |n, b| n << 8 | u32::from(*b));
            let (body, tail) =
                tail.split_at(tail.len().min(usize::try_from(len).unwrap_or(usize::MAX)));
            rest = tail;
            if name == b"parent" && body.is_empty() && levels.len() < 128 {
                levels.push(MemDir::default());
            } else if let Some(level) = levels.last_mut() {
                level.put(&String::from_utf8_lossy(name), body.to_vec());
            }
        }
        let parents = levels.into_iter().rev();
        let chain = parents.fold(None, |parent: Option<MemDir>, level| {
            Some(MemDir {
                parent: parent.map(Arc::new),
                ..level
            })
        });
        chain.unwrap_or_default()
    }

    /// Packs.
    pub fn to_archive(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut item = |name: &str, body: &[u8]| {
            let name = name.as_bytes().get(..255).unwrap_or(name.as_bytes());
            bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(body);
        };
        let mut level = Some(self);
        while let Some(dir) = level {
            for (name, body) in &dir.files {
                item(name, body);
            }
            level = dir.parent.as_deref();
            if level.is_some() {
                item("parent", &[]);
            }
        }
        bytes
    }
}

impl ImageDir for MemDir {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.files.get(name).map(|b| b.as_ref().clone()))
    }
    fn size(&self, name: &str) -> io::Result<Option<u64>> {
        Ok(self
            .files
            .get(name)
            .and_then(|b| u64::try_from(b.len()).ok()))
    }
    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let bytes = self.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(bytes
            .get(start..end)
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .to_vec())
    }
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }
    fn parent(&self) -> io::Result<Option<Box<dyn ImageDir>>> {
        Ok(self
            .parent
            .as_ref()
            .map(|p| Box::new(p.as_ref().clone()) as Box<dyn ImageDir>))
    }
}
