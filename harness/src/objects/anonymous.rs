//! Anonymous shared memory as the kernel makes it, and a descriptor of it.
//!
//! Only `mmap` makes an object that maps show as `/dev/zero (deleted)`, and it gives no descriptor. The kernel lends one
//! by `/proc/self/map_files`, to those who may choose pids too. So the object is mapped for a moment, opened by the name
//! of that mapping, and from then on handled like any memory object: filled, inherited by every task that shares it,
//! mapped wherever it lay. The program gets no name of a memory file into its maps that it did not have.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

/// What the kernel calls it.
const NAME: &str = "/dev/zero (deleted)";

/// A mapping of ours, given back when dropped.
struct Mapped {
    at: *mut libc::c_void,
    len: usize,
}

impl Mapped {
    fn new(len: usize) -> io::Result<Mapped> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping where the kernel likes; nothing of ours is replaced.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Mapped { at, len })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, and nobody holds a reference into it.
        unsafe { libc::munmap(self.at, self.len) };
    }
}

/// A new object of anonymous shared memory of `size` bytes, zeros.
///
/// # Errors
/// The kernel does not lend a descriptor (no right, no such file), or there is no room to map the object.
pub fn anonymous(size: u64) -> io::Result<File> {
    let page = u64::from(armrest_images::PAGE);
    let len = size
        .checked_next_multiple_of(page)
        .and_then(|len| usize::try_from(len).ok())
        .ok_or(io::ErrorKind::OutOfMemory)?;
    let before = ranges()?;
    let mapped = Mapped::new(len)?;
    // Not by its address: under an emulator the kernel knows the mapping by another.
    let mut new = ranges()?
        .into_iter()
        .filter(|r| !before.contains(r) && r.1 - r.0 == len as u64);
    let (Some((start, end)), None) = (new.next(), new.next()) else {
        return Err(io::Error::other("the mapping is not in our maps"));
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_LARGEFILE)
        .open(format!("/proc/self/map_files/{start:x}-{end:x}"))?;
    drop(mapped);
    if size != len as u64 {
        file.set_len(size)?;
    }
    Ok(file)
}

/// Where such objects are mapped, as the kernel (not an emulator) sees this process.
fn ranges() -> io::Result<BTreeSet<(u64, u64)>> {
    let text = fs::read_to_string("/proc/thread-self/maps")?;
    let range = |l: &str| {
        let (start, end) = l.split(' ').next()?.split_once('-')?;
        let number = |s| u64::from_str_radix(s, 16).ok();
        Some((number(start)?, number(end)?))
    };
    Ok(text
        .lines()
        .filter(|l| l.ends_with(NAME))
        .filter_map(range)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn an_object_is_what_mmap_makes_and_no_mapping_stays() {
        let before = ranges().unwrap();
        let file = match anonymous(0x5000) {
            Ok(file) => file,
            // Without the right there is nothing to see: the fallback is tested by the restore.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return,
            Err(e) => panic!("{e}"),
        };
        assert_eq!(ranges().unwrap(), before);
        assert_eq!(file.metadata().unwrap().len(), 0x5000);
        // Linux gives such objects mode 0777; a memory file gets 0777 too, but another name.
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o777);
        file.write_all_at(b"kept", 0x4ffc).unwrap();
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        assert_eq!(fs::read_link(name).unwrap().to_str(), Some(NAME));
    }
}
