//! What a descriptor is of: `fstat` in the words of the kernel.
//!
//! libc and std ask by `statx` on 32-bit machines, for times after 2038. That is a walk of an empty path, with a page for
//! its name: three times the price, dozens of times a restore. So whoever needs no times asks here.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// What `fstat` tells, without times.
#[derive(Clone, Copy)]
pub struct Stat(libc::stat64);

impl std::fmt::Debug for Stat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:o} {}:{}", self.mode(), self.dev(), self.ino())
    }
}

/// `fstat`: works on O_PATH descriptors too.
///
/// # Errors
/// What the system says.
pub fn fstat(fd: impl AsFd) -> io::Result<Stat> {
    let fd = fd.as_fd().as_raw_fd();
    let mut stat = MaybeUninit::<libc::stat64>::zeroed();
    // SAFETY: the structure is the one that the call fills in (asm/stat.h), and is writable.
    #[cfg(target_arch = "arm")]
    let done = unsafe { libc::syscall(libc::SYS_fstat64, fd, stat.as_mut_ptr()) };
    // SAFETY: as above.
    #[cfg(not(target_arch = "arm"))]
    let done = unsafe { libc::fstat64(fd, stat.as_mut_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all of it is numbers, and the call has succeeded.
    Ok(Stat(unsafe { stat.assume_init() }))
}

impl Stat {
    /// Number of the device that it lies on.
    pub fn dev(&self) -> u64 {
        self.0.st_dev
    }
    /// Number of the inode.
    pub fn ino(&self) -> u64 {
        self.0.st_ino
    }
    /// Kind and rights.
    pub fn mode(&self) -> u32 {
        self.0.st_mode
    }
    /// The owner.
    pub fn uid(&self) -> u32 {
        self.0.st_uid
    }
    /// The owner's group.
    pub fn gid(&self) -> u32 {
        self.0.st_gid
    }
    /// Bytes.
    pub fn len(&self) -> u64 {
        u64::try_from(self.0.st_size).unwrap_or(0)
    }
    /// Without contents?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Of this kind (`S_IFIFO` …)?
    pub fn is(&self, kind: libc::mode_t) -> bool {
        self.mode() & libc::S_IFMT == kind
    }
    /// A regular file?
    pub fn is_file(&self) -> bool {
        self.is(libc::S_IFREG)
    }
    /// A directory?
    pub fn is_dir(&self) -> bool {
        self.is(libc::S_IFDIR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_says_what_std_says() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x1_0000_0005).unwrap();
        let (ours, std) = (fstat(&file).unwrap(), file.metadata().unwrap());
        assert!(ours.is_file() && !ours.is_dir());
        assert_eq!(
            (
                ours.dev(),
                ours.ino(),
                ours.mode(),
                ours.uid(),
                ours.gid(),
                ours.len()
            ),
            (
                std.dev(),
                std.ino(),
                std.mode(),
                std.uid(),
                std.gid(),
                std.len()
            )
        );
        assert!(fstat(std::fs::File::open("/").unwrap()).unwrap().is_dir());
    }
}
