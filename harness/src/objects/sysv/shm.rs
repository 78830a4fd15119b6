//! Shared memory segments, filled from the pages files.

use std::io;
use std::os::unix::fs::FileExt;

use armrest_images::Segment;

use super::{Kind, Maker, words, wrong};
use crate::error::Error;
use crate::objects::memory::PagesFiles;
use crate::os;

pub(super) fn make(s: &Segment, pages: &PagesFiles, maker: &mut Maker<'_>) -> Result<(), Error> {
    let what = words(Kind::Segment, &s.perm, &format!("{} bytes", s.size));
    let failed = |call: &str, e: &io::Error| wrong(&what, Kind::Segment, call, e);
    let size = usize::try_from(s.size).map_err(|_| Error::Machine {
        what: what.clone(),
        why: "larger than an address space".into(),
    })?;
    let id = maker.create(Kind::Segment, &s.perm, size, s.hugetlb.cast_signed(), &what)?;
    fill(s, id, size, pages).map_err(|f| match f {
        Fill::Call(call, e) => failed(call, &e),
        Fill::Pages(e) => e,
    })?;
    if s.locked {
        // SAFETY: SHM_LOCK takes no structure.
        os::check(unsafe { libc::shmctl(id, libc::SHM_LOCK, std::ptr::null_mut()) })
            .map_err(|e| failed("ctl(SHM_LOCK)", &e))?;
    }
    let mut ds = stat(id).map_err(|e| failed("ctl(IPC_STAT)", &e))?;
    let now = ds.shm_perm;
    let set = |perm: &mut libc::ipc_perm| {
        ds.shm_perm = *perm;
        // SAFETY: IPC_SET reads the structure that IPC_STAT filled.
        os::check(unsafe { libc::shmctl(id, libc::IPC_SET, &mut ds) }).map(drop)
    };
    maker.finish(Kind::Segment, &s.perm, &what, set, now)
}

enum Fill {
    Call(&'static str, io::Error),
    Pages(Error),
}

fn fill(s: &Segment, id: i32, size: usize, pages: &PagesFiles) -> Result<(), Fill> {
    if s.pages.runs.is_empty() {
        return Ok(());
    }
    // SAFETY: the kernel chooses a free place; nothing of ours is replaced.
    let at = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    if at.addr() == usize::MAX {
        return Err(Fill::Call("at", io::Error::last_os_error()));
    }
    let len = size.next_multiple_of(4096);
    let done = pages.place(&s.pages, |file, from, to, bytes| {
        let wide = |n: u64| usize::try_from(n).map_err(|_| io::ErrorKind::InvalidData);
        let (start, bytes) = (wide(to)?, wide(bytes)?);
        if start.checked_add(bytes).is_none_or(|end| end > len) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // SAFETY: [start, start + bytes) lies in the `len` bytes attached at `at`, writable and zero; nobody else has
        // attached this new segment, and the slice is gone before it is detached.
        let place = unsafe { std::slice::from_raw_parts_mut(at.cast::<u8>().add(start), bytes) };
        file.read_exact_at(place, from)
    });
    // SAFETY: attached above; no reference into it is left.
    unsafe { libc::shmdt(at) };
    done.map_err(Fill::Pages)
}

fn stat(id: libc::c_int) -> io::Result<libc::shmid_ds> {
    let mut ds = std::mem::MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: IPC_STAT fills the structure; zeroed it is valid.
    unsafe {
        os::check(libc::shmctl(id, libc::IPC_STAT, ds.as_mut_ptr()))?;
        Ok(ds.assume_init())
    }
}
