//! Paths of the images below ROOT: a walker that no symlink, `..` or absolute link can lead out.
//!
//! `openat2(RESOLVE_IN_ROOT)` does it in one call. qemu-user and kernels before 5.6 lack it: there each component is
//! opened by itself, without following, and links are walked by us from ROOT.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::os;

/// Links that one path may go through, as in the kernel (MAXSYMLINKS).
const MAX_LINKS: u32 = 40;
/// Device numbers that come from the host: memory devices 3, 5, 7, 8, 9 and the controlling terminal.
const DEVICES: [(u32, u32, &str); 6] = [
    (1, 3, "/dev/null"),
    (1, 5, "/dev/zero"),
    (1, 7, "/dev/full"),
    (1, 8, "/dev/random"),
    (1, 9, "/dev/urandom"),
    (5, 0, "/dev/tty"),
];

/// The directory below which recorded paths are resolved.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    is_host: bool,
}

impl Root {
    /// ROOT, or the host's root.
    pub fn open(root: Option<&Path>) -> io::Result<Root> {
        let path = root.unwrap_or(Path::new("/"));
        let dir = std::fs::File::open(path)?;
        if !os::fstat(&dir)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Root {
            dir: dir.into(),
            is_host: root.is_none(),
        })
    }

    /// Open what an absolute path means below ROOT. `flags` as for open(2); O_CREAT is never given. A well-known
    /// device comes from the host, if its device number is the one that its name stands for.
    pub fn open_path(&self, path: &str, flags: i32) -> io::Result<OwnedFd> {
        if !self.is_host && DEVICES.iter().any(|d| d.2 == path) {
            return open_device(path, flags);
        }
        if let Some(found) = self.resolve(path, flags) {
            return found;
        }
        let (parent, last) = self.walk(path)?;
        match last {
            None => os::openat(parent.as_fd(), ".", flags, 0),
            Some(name) => open_here(&parent, &name, flags),
        }
    }

    /// The directory that holds (or held) the last component of a path, and that component, whatever it is now.
    pub fn parent(&self, path: &str) -> io::Result<(OwnedFd, String)> {
        let (dir, name) = path.rsplit_once('/').ok_or(io::ErrorKind::InvalidInput)?;
        if matches!(name, "" | "." | "..") {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match self.walk(dir)? {
            (dir, None) => Ok((dir, name.to_owned())),
            _ => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
        }
    }

    /// It is the host's own.
    pub fn is_host(&self) -> bool {
        self.is_host
    }

    /// The directory itself.
    pub fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    /// The kernel's answer, if it knows the question. `None`: walk (as for O_NOFOLLOW, which here means "no link that
    /// leads on", and is kept with the description).
    fn resolve(&self, path: &str, flags: i32) -> Option<io::Result<OwnedFd>> {
        if path.is_empty() || flags & libc::O_NOFOLLOW != 0 {
            return None;
        }
        match os::openat2(self.dir.as_fd(), path, flags, os::RESOLVE_IN_ROOT) {
            // Flags that openat ignores are an error here, and a rename at the same moment can be one.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EAGAIN | libc::E2BIG)
                ) =>
            {
                None
            }
            found => Some(found),
        }
    }

    /// The directory that holds the last component, and that component, which is no link. `None`: the directory itself.
    fn walk(&self, path: &str) -> io::Result<(OwnedFd, Option<String>)> {
        let mut todo: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut stack: Vec<OwnedFd> = vec![self.dir.try_clone()?];
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    if stack.len() > 1 {
                        stack.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let here = stack
                .last()
                .map(|d| d.as_fd())
                .ok_or(io::ErrorKind::NotFound)?;
            let fd = os::openat(here, &name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
            let meta = os::fstat(fd.as_fd())?;
            if meta.is(libc::S_IFLNK) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                let target = os::readlinkat(here, &name)?;
                if target.starts_with('/') {
                    stack.truncate(1);
                }
                todo.extend(target.split('/').rev().map(str::to_owned));
                continue;
            }
            if todo.iter().all(|c| c.is_empty() || c == ".") && !meta.is_dir() {
                let dir = stack.pop().ok_or(io::ErrorKind::NotFound)?;
                return Ok((dir, Some(name)));
            }
            if !meta.is_dir() {
                return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
            }
            stack.push(fd);
        }
        let dir = stack.pop().ok_or(io::ErrorKind::NotFound)?;
        Ok((dir, None))
    }
}

/// Open `name` in `dir` if it is no link. O_NOFOLLOW would stay with the description, where the task would see it
/// (F_GETFL): so the file is found without it being opened, and opened through that.
fn open_here(dir: &OwnedFd, name: &str, flags: i32) -> io::Result<OwnedFd> {
    if flags & (libc::O_PATH | libc::O_NOFOLLOW) != 0 {
        return os::openat(dir.as_fd(), name, flags | libc::O_NOFOLLOW, 0);
    }
    let found = os::openat(dir.as_fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    if os::fstat(found.as_fd())?.is(libc::S_IFLNK) {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    let through = format!("/proc/self/fd/{}", found.as_raw_fd());
    os::openat(dir.as_fd(), &through, flags, 0)
}

/// A device of the host, if it is the one that its name promises.
fn open_device(path: &str, flags: i32) -> io::Result<OwnedFd> {
    let look = std::fs::symlink_metadata(path)?;
    let same = |d: &&(u32, u32, &str)| d.2 == path && look.rdev() == libc::makedev(d.0, d.1);
    if !look.file_type().is_char_device() || !DEVICES.iter().any(|d| same(&d)) {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    let root = std::fs::File::open("/")?.into();
    open_here(&root, path, flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    fn read(root: &Root, path: &str) -> io::Result<String> {
        let mut s = String::new();
        std::fs::File::from(root.open_path(path, libc::O_RDONLY)?).read_to_string(&mut s)?;
        Ok(s)
    }

    #[test]
    fn nothing_leads_out_of_root() {
        nothing_leads_out(read);
    }

    #[test]
    fn nothing_leads_out_of_root_where_we_walk() {
        nothing_leads_out(|r, path| {
            let (dir, name) = r.walk(path)?;
            let name = name.ok_or(io::ErrorKind::IsADirectory)?;
            let fd = open_here(&dir, &name, libc::O_RDONLY)?;
            let mut s = String::new();
            std::fs::File::from(fd).read_to_string(&mut s)?;
            Ok(s)
        });
    }

    /// The kernel's way and ours: the same test for both.
    fn nothing_leads_out(read: impl Fn(&Root, &str) -> io::Result<String>) {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().join("root");
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(tmp.path().join("secret"), "out").unwrap();
        std::fs::write(root.join("secret"), "in").unwrap();
        symlink("../../../secret", root.join("a/b/up")).unwrap();
        symlink("/secret", root.join("a/abs")).unwrap();
        symlink(tmp.path().join("secret"), root.join("a/host")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let r = Root::open(Some(&root)).unwrap();
        assert_eq!(read(&r, "/secret").unwrap(), "in");
        assert_eq!(read(&r, "/a/b/up").unwrap(), "in");
        assert_eq!(read(&r, "/a/abs").unwrap(), "in");
        assert_eq!(read(&r, "/../../../secret").unwrap(), "in");
        assert!(read(&r, "/a/host").is_err());
        assert_eq!(
            read(&r, "/loop").unwrap_err().raw_os_error(),
            Some(libc::ELOOP)
        );
        assert_eq!(
            read(&r, "/secret/x").unwrap_err().raw_os_error(),
            Some(libc::ENOTDIR)
        );
    }

    #[test]
    fn host_devices_are_found_below_an_empty_root() {
        let tmp = tempfile::tempdir().unwrap();
        let r = Root::open(Some(tmp.path())).unwrap();
        assert_eq!(read(&r, "/dev/null").unwrap(), "");
        assert!(read(&r, "/dev/kmsg").is_err());
    }
}
