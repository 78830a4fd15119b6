//! The heap as the processes of a tree inherit it.
//!
//! A fork copies the page table of memory that was written, entry by entry, and each child's end drops every one of them:
//! with the plans of all tasks in the heap, each process would pay for all others. Pages of a file that nobody wrote to are
//! not copied but found again by whoever touches them. So the root turns the heap into such a file before it forks.
//!
//! The heap is what `brk` made: chunks that malloc maps by themselves are copied as ever. Until the last task is at the gate
//! it exists twice, charged to the control group that the root is in.

use std::io;
use std::os::fd::AsRawFd;

use armrest_abi::Range;

use crate::load::{self, pointer};
use crate::{machine, os, task};

/// Make the heap a private mapping of a file that has what it held.
///
/// # Errors
/// What the kernel says: then the heap is as it was, unless the last call took it away and could not map the file, by which
/// this process ends like any that dies before the gate.
pub fn into_file() -> io::Result<()> {
    let maps = machine::own_maps(&os::read_proc("/proc/self/maps")?);
    let Some(heap) = maps.iter().find(|m| m.name == "[heap]") else {
        return Ok(());
    };
    let heap = Range::from(heap.range);
    // Beyond its limit a write leaves a SIGXFSZ, which would wait for the program.
    if task::get_limit(task::FSIZE)?.0 < u64::from(heap.len()) {
        return Ok(());
    }
    let file = os::memfd("armrest-heap", &[], false)?;
    // From here on nothing may be allocated or freed.
    let mut at = heap.start;
    while at < heap.end {
        let (from, len) = (pointer(at), (heap.end - at) as usize);
        // SAFETY: the kernel reads our own heap, which is mapped up to its end.
        let n = unsafe { libc::write(file.as_raw_fd(), from.cast(), len) };
        at += u32::try_from(n).map_err(|_| io::Error::last_os_error())?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    // The same bytes at the same places: the file was filled since the heap changed last, and this process has one thread.
    // Only the kernel may have written meanwhile, on which CPU we run (rseq): it writes that anew whenever it changes.
    let fixed = libc::MAP_PRIVATE | libc::MAP_FIXED;
    load::map(heap, rw, fixed, Some((&file, 0)))
}
