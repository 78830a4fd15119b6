//! inotify: watches under their numbers.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use armrest_images::{Inotify, Watch};

use crate::error::Error;
use crate::objects::file::failed;
use crate::os;
use crate::root::Root;

/// What inotify_add_watch is not asked again: how the path was looked up, and what only the kernel says.
const NOT_ASKED: u32 = libc::IN_DONT_FOLLOW
    | 0x2000_0000
    | 0x1000_0000
    | libc::IN_UNMOUNT
    | libc::IN_Q_OVERFLOW
    | libc::IN_IGNORED;

/// A set with all its watches. Making them leaves events behind: see [`drain`].
pub fn inotify(i: &Inotify, root: &Root, who: &str) -> Result<OwnedFd, Error> {
    let wrong = |what: String, e: &io::Error| Error::Machine {
        what: format!("{who}: {what}"),
        why: e.to_string(),
    };
    // SAFETY: numbers only; the call makes a descriptor.
    let set = unsafe { os::made(libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK)) }
        .map_err(|e| wrong("inotify_init1".into(), &e))?;
    for w in &i.watches {
        let target = find(w, root, who)?;
        let name = format!("inotify watch {}", w.wd);
        number(&set, &target, w).map_err(|e| wrong(name, &e))?;
    }
    Ok(set)
}

/// The kernel numbers upward, removed watches included: so a number is counted up to.
fn number(set: &OwnedFd, target: &OwnedFd, w: &Watch) -> io::Result<()> {
    let path = os::c_path(&format!("/proc/self/fd/{}", target.as_raw_fd()))?;
    loop {
        // SAFETY: the path is NUL-terminated and lives through the call.
        let wd = os::check(unsafe {
            libc::inotify_add_watch(set.as_raw_fd(), path.as_ptr(), w.mask & !NOT_ASKED)
        })?;
        let found = u32::try_from(wd).unwrap_or(0);
        if found == w.wd {
            return Ok(());
        }
        // SAFETY: numbers only.
        os::check(unsafe { libc::inotify_rm_watch(set.as_raw_fd(), wd) })?;
        if found > w.wd {
            return Err(io::Error::other(format!("the kernel gave {found}")));
        }
    }
}

fn find(w: &Watch, root: &Root, who: &str) -> Result<OwnedFd, Error> {
    if let Some(path) = &w.path {
        let who = format!("{who}: inotify watch {}", w.wd);
        return root
            .open_path(path, libc::O_PATH)
            .map_err(|e| failed(path, &who, &e));
    }
    let missing = |why: String| Error::MissingFile {
        path: format!("inode {}", w.ino),
        why: format!(
            "{who}: inotify watch {}: {why}; dump with --force-irmap",
            w.wd
        ),
    };
    let Some((kind, bytes)) = &w.handle else {
        return Err(missing("neither path nor file handle".into()));
    };
    let fd = by_handle(root, *kind, bytes).map_err(|e| missing(format!("by file handle: {e}")))?;
    let meta = os::fstat(fd.as_fd()).map_err(|e| missing(e.to_string()))?;
    if meta.ino() != w.ino {
        return Err(missing(format!(
            "its file handle is inode {} now",
            meta.ino()
        )));
    }
    Ok(fd)
}

/// The file with a handle, on the file system of ROOT.
fn by_handle(root: &Root, kind: u32, bytes: &[u8]) -> io::Result<OwnedFd> {
    let len = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut handle = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
    handle.extend_from_slice(bytes);
    // The structure begins with two words.
    let mut words = vec![0u32; handle.len().div_ceil(4)];
    for (w, b) in words.iter_mut().zip(handle.chunks(4)) {
        let mut four = [0; 4];
        four[..b.len()].copy_from_slice(b);
        *w = u32::from_ne_bytes(four);
    }
    let dir = root.dir().as_raw_fd();
    // SAFETY: `words` is a file_handle with as many bytes as its first word says, aligned, and lives through the call,
    // which makes a descriptor.
    unsafe {
        os::made(libc::syscall(
            libc::SYS_open_by_handle_at,
            dir,
            words.as_mut_ptr(),
            libc::O_PATH | libc::O_CLOEXEC,
        ))
    }
}

/// Take out what the restore itself has caused.
pub fn drain(set: &OwnedFd) -> io::Result<()> {
    // SAFETY: numbers only.
    let flags = os::check(unsafe { libc::fcntl(set.as_raw_fd(), libc::F_GETFL) })?;
    let set_flags = |f: libc::c_int| {
        // SAFETY: numbers only.
        os::check(unsafe { libc::fcntl(set.as_raw_fd(), libc::F_SETFL, f) })
    };
    set_flags(flags | libc::O_NONBLOCK)?;
    let mut file = std::fs::File::from(set.try_clone()?);
    let mut buf = [0; 4096];
    let done = loop {
        match file.read(&mut buf) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Ok(()),
            Err(e) => break Err(e),
        }
    };
    set_flags(flags)?;
    done
}
