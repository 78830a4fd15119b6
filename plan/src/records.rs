//! Record locks of a process (fcntl): taken by the blob behind the last close. Whoever closes any descriptor of a file
//! loses all locks of that kind on it, and the restore closes those that mappings are made through.

use armrest_abi::{Cred, Rows, cred};
use armrest_images::{FileLock, LockKind};

use crate::types::{CredCall, CredData, Tables};
use crate::u32_of;

/// `fcntl64` with 64-bit offsets, which does not wait.
const F_SETLK64: u32 = 13;

/// Rows for these locks, behind all others; those of other kinds are not looked at.
pub fn plan<'a>(locks: impl Iterator<Item = &'a FileLock>, tables: &mut Tables) {
    let first = u32_of(tables.creds.len());
    let records = locks.filter(|l| l.kind == LockKind::Posix);
    tables.creds.extend(records.map(|l| CredCall {
        cred: Cred {
            call: cred::FCNTL64,
            args: [l.fd, F_SETLK64, 0, 0, 0],
            expect: 0,
        },
        data: Some(CredData::Lock(flock64(l))),
    }));
    let count = u32_of(tables.creds.len()) - first;
    tables.records = Rows { first, count };
}

/// `struct flock64` of ARM EABI: type and whence (SEEK_SET) in one word, padding, start, length, pid, padding.
fn flock64(l: &FileLock) -> [u32; 8] {
    let halves = |n: u64| [n & 0xffff_ffff, n >> 32].map(|w| u32::try_from(w).unwrap_or(u32::MAX));
    let ([start, start_high], [len, len_high]) = (halves(l.start), halves(l.len));
    [
        u32::from(l.write),
        0,
        start,
        start_high,
        len,
        len_high,
        0,
        0,
    ]
}
