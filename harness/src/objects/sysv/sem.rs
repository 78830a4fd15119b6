//! Semaphore sets. Lists of operations to undo (SEM_UNDO) are in no image.

use std::io;

use armrest_images::SemSet;

use super::{Kind, Maker, words, wrong};
use crate::error::Error;
use crate::os;

/// `struct semid_ds`: what is asked for and set, and room for the rest on every system that this builds for.
#[repr(C)]
struct SemidDs {
    perm: libc::ipc_perm,
    rest: [u64; 16],
}

pub(super) fn make(s: &SemSet, maker: &mut Maker<'_>) -> Result<(), Error> {
    let count = s.values.len();
    let what = words(Kind::Set, &s.perm, &format!("{count} semaphores"));
    let id = maker.create(Kind::Set, &s.perm, count, 0, &what)?;
    let mut values = s.values.clone();
    // SAFETY: SETALL reads one u16 for each of the `count` semaphores that the set was made with.
    os::check(unsafe { libc::semctl(id, 0, libc::SETALL, values.as_mut_ptr()) })
        .map_err(|e| wrong(&what, Kind::Set, "ctl(SETALL)", &e))?;
    let mut ds = stat(id).map_err(|e| wrong(&what, Kind::Set, "ctl(IPC_STAT)", &e))?;
    let now = ds.perm;
    let set = |perm: &mut libc::ipc_perm| {
        ds.perm = *perm;
        let at = std::ptr::from_mut(&mut ds);
        // SAFETY: IPC_SET reads the structure that IPC_STAT filled.
        os::check(unsafe { libc::semctl(id, 0, libc::IPC_SET, at) }).map(drop)
    };
    maker.finish(Kind::Set, &s.perm, &what, set, now)
}

fn stat(id: libc::c_int) -> io::Result<SemidDs> {
    let mut ds = std::mem::MaybeUninit::<SemidDs>::zeroed();
    // SAFETY: IPC_STAT fills a semid_ds, which `SemidDs` is not smaller than; zeroed it is valid.
    unsafe {
        os::check(libc::semctl(id, 0, libc::IPC_STAT, ds.as_mut_ptr()))?;
        Ok(ds.assume_init())
    }
}

/// The values of a set of `count` semaphores.
///
/// # Errors
/// What the kernel says.
pub fn values(id: libc::c_int, count: usize) -> io::Result<Vec<u16>> {
    // As many as the set may have, should it not be of `count`: the kernel writes as many as there are.
    let mut values = vec![0u16; count.max(1 << 16)];
    // SAFETY: GETALL writes one u16 for each semaphore, of which a set has at most 65,536.
    os::check(unsafe { libc::semctl(id, 0, libc::GETALL, values.as_mut_ptr()) })?;
    values.truncate(count);
    Ok(values)
}
