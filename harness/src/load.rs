//! The bootstrap area: mapped where the plan says, filled, and its rights taken away again before anyone runs in it.
//!
//! Built by the parent, so that the child that is forked from it maps nothing of its own.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use armrest_abi::{
    BLOB_MAGIC, BlobHeader, FRAME_OFFSET, GATE_OFFSET, Progress, REACHED_OFFSET, Range,
};
use armrest_plan::{BlobSizes, Plan};

use crate::blob::BLOB;
use crate::error::Error;
use crate::os;
use crate::shared::futex;

/// The ARM private call `cacheflush` (arch/arm/include/uapi/asm/unistd.h).
const CACHEFLUSH: libc::c_long = 0x000f_0002;

/// The header of the blob, checked against the ABI of this program.
pub fn header() -> Result<BlobHeader, Error> {
    let h = BlobHeader::from_bytes(BLOB).ok_or(Error::NoBlob)?;
    let ours = h.magic == BLOB_MAGIC
        && h.version == armrest_abi::ABI_VERSION
        && h.args_size as usize == size_of::<armrest_abi::RestoreArgs>()
        && h.frame_offset == FRAME_OFFSET
        && u64::from(h.rx_size) + u64::from(h.rw_size) == BLOB.len() as u64
        && h.entry_offset < h.rx_size;
    if ours { Ok(h) } else { Err(Error::NoBlob) }
}

/// What the plan must know of it. A build without a blob can still plan, with the sizes of a usual one.
pub fn sizes() -> BlobSizes {
    match header() {
        Ok(h) => BlobSizes {
            rx: h.rx_size,
            rw: h.rw_size,
            stack: h.stack_size,
            heap: h.heap_size,
            thread_stack: h.thread_stack_size,
        },
        Err(_) => BlobSizes {
            rx: 0x3000,
            rw: 0x1000,
            stack: 0x2000,
            heap: 0x4000,
            thread_stack: 0x400,
        },
    }
}

/// Offset in the blob's first page of an `svc` in ARM state.
///
/// # Errors
/// The blob is not ours, or has none.
pub fn svc_offset() -> Result<u32, Error> {
    const SVC: [u8; 4] = 0xef00_0000u32.to_le_bytes();
    let first = usize::try_from(header()?.exit_offset / 4).unwrap_or(usize::MAX);
    let words = BLOB.chunks_exact(4).take(FRAME_OFFSET as usize / 4);
    let at = words.skip(first).position(|w| w == SVC);
    at.and_then(|i| u32::try_from(4 * (first + i)).ok())
        .ok_or(Error::NoBlob)
}

/// The page at which all tasks of a tree wait: in the area of each.
#[derive(Debug)]
pub struct Gate(OwnedFd);

impl Gate {
    /// A gate that is shut.
    ///
    /// # Errors
    /// The kernel has no such memory.
    pub fn new() -> Result<Gate, Error> {
        let page = os::memfd("armrest-gate", &[0; size_of::<u32>()], false);
        page.map(Gate).map_err(|e| Error::Machine {
            what: "memory that the tasks of a tree share".into(),
            why: e.to_string(),
        })
    }
}

/// The area, mapped in this process. Unmapped when dropped (the child never drops it).
#[derive(Debug)]
pub struct Loaded {
    all: Range,
    progress: Range,
    entry: u32,
    args: u32,
    stack_top: u32,
}

impl Loaded {
    /// Map and fill the area of `plan`; with the gate, if it is of a tree.
    pub fn new(plan: &Plan, gate: Option<&Gate>) -> Result<Loaded, Error> {
        let h = header()?;
        let a = &plan.area;
        let fail = |what: &str, e: &io::Error| Error::Machine {
            what: format!(
                "bootstrap area {:08x}-{:08x}: {what}",
                a.all.start, a.all.end
            ),
            why: e.to_string(),
        };
        map(
            a.all,
            RW,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
        )
        .map_err(|e| fail("mmap", &e))?;
        let loaded = Loaded {
            all: a.all,
            progress: a.progress,
            entry: a.rx.start + h.entry_offset,
            args: a.args.start,
            stack_top: a.stack.end,
        };
        // Shared with the child through the fork: it shows where it is without a call.
        map(
            a.progress,
            RW,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
        )
        .map_err(|e| fail("progress page", &e))?;
        if let Some(gate) = gate {
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            map_of(a.gate, RW, flags, gate.0.as_raw_fd()).map_err(|e| fail("gate", &e))?;
        }
        let no_room = |bytes: u64, room: u32, at: u32| Error::Internal {
            what: "bootstrap area".into(),
            why: format!("{bytes} bytes for {room} at {at:08x}"),
        };
        // SAFETY: the arguments' part of the area, mapped readable and writable above, zeroed, and used by nothing else
        // while the slice lives.
        let room =
            unsafe { std::slice::from_raw_parts_mut(pointer(a.args.start), a.args.len() as usize) };
        let args = armrest_plan::args::write(plan, room);
        if args > u64::from(a.args.len()) {
            return Err(no_room(args, a.args.len(), a.args.start));
        }
        for (at, room, bytes) in [
            (a.rx.start, a.rx.len() + a.rw.len(), BLOB),
            (
                a.keep.start + FRAME_OFFSET,
                a.keep.len() - FRAME_OFFSET,
                plan.frames[0].as_slice(),
            ),
        ] {
            if bytes.len() > room as usize {
                return Err(no_room(bytes.len() as u64, room, at));
            }
            // SAFETY: [at, at + room) lies in the area that was mapped writable above and that nothing else uses.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(at), bytes.len()) };
        }
        protect(a.rx, libc::PROT_READ | libc::PROT_EXEC)
            .map_err(|e| fail("mprotect of the code", &e))?;
        protect(a.args, libc::PROT_READ).map_err(|e| fail("mprotect of the arguments", &e))?;
        // Gaining PROT_EXEC makes the kernel clean the caches of these pages; asking as well costs one call.
        // SAFETY: cache maintenance on the area; the call touches no memory contents.
        unsafe { libc::syscall(CACHEFLUSH, a.rx.start, a.rx.end, 0) };
        Ok(loaded)
    }

    /// Where the child is.
    pub fn progress(&self) -> Progress {
        let p: *const Progress = pointer(self.progress.start).cast();
        // SAFETY: the progress page is mapped as long as `self` lives, page-aligned, and any bit pattern is a Progress.
        // The child writes to it at the same time: volatile, and a torn value only spoils a progress bar.
        unsafe { p.read_volatile() }
    }

    /// Has the task come to the gate for this time?
    pub fn at_gate(&self, time: u32) -> bool {
        self.word(REACHED_OFFSET).load(Ordering::Acquire) >= time
    }

    /// Let all tasks through the gate: one store to the page that they share, then the call that wakes them.
    pub fn open_gate(&self, time: u32) {
        let open = self.word(GATE_OFFSET);
        open.store(time, Ordering::Release);
        futex(open, libc::FUTEX_WAKE, i32::MAX.cast_unsigned(), None);
    }

    /// A word of the gate.
    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the progress page, and behind it that of the gate (which only tasks of a tree are asked for), are mapped
        // as long as `self` lives; others use the word at the same time, hence atomic.
        unsafe { AtomicU32::from_ptr(pointer(self.progress.start + offset).cast()) }
    }

    /// Jump into the blob. Only for the child that is to become the task; it does not come back.
    pub fn enter(&self) -> ! {
        let entry: *const () = std::ptr::with_exposed_provenance(self.entry as usize);
        // SAFETY: the blob's header gives the offset of an ARM-state function of this signature; its page is mapped
        // readable and executable, and the stack lies in the same area.
        let entry: extern "C" fn(u32, u32) -> ! = unsafe { std::mem::transmute(entry) };
        entry(self.args, self.stack_top)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: our own area; `self` was the only way to it.
        unsafe { libc::munmap(pointer(self.all.start).cast(), self.all.len() as usize) };
    }
}

/// An address as a pointer.
pub fn pointer(addr: u32) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(addr as usize)
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Map memory without a file where the plan says: with MAP_FIXED_NOREPLACE, or MAP_FIXED where all is ours already, by
/// one of the former.
///
/// # Errors
/// EEXIST: something lies there; or what the kernel says.
pub fn map(r: Range, prot: i32, flags: i32) -> io::Result<()> {
    map_of(r, prot, flags, -1)
}

/// The same, of a file.
fn map_of(r: Range, prot: i32, flags: i32, fd: i32) -> io::Result<()> {
    let at: *mut libc::c_void = pointer(r.start).cast();
    // SAFETY: NOREPLACE cannot hit a mapping; MAP_FIXED is used inside the area and inside reserved places alone, which
    // were mapped for that and which nothing refers to.
    let p = unsafe { libc::mmap(at, r.len() as usize, prot, flags, fd, 0) };
    if p == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    if p != at {
        // SAFETY: a kernel that does not know NOREPLACE mapped it elsewhere: that is ours to take away.
        unsafe { libc::munmap(p, r.len() as usize) };
        return Err(io::Error::from_raw_os_error(libc::EEXIST));
    }
    p.expose_provenance();
    Ok(())
}

fn protect(r: Range, prot: i32) -> io::Result<()> {
    // SAFETY: rights of our own area are narrowed; no reference into it exists.
    os::check(unsafe { libc::mprotect(pointer(r.start).cast(), r.len() as usize, prot) }).map(drop)
}

/// Write all bytes to a raw descriptor; for the child, which has nothing else.
pub fn write_raw(fd: &impl AsRawFd, bytes: &[u8]) {
    // SAFETY: `bytes` is readable. Nothing can be done about an error here.
    unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
}
