//! The bootstrap area: mapped where the plan says, filled, and its rights taken away again before anyone runs in it.
//!
//! That of a single task is built by the harness, so that the child that is forked from it maps nothing of its own. Those of
//! a tree would be inherited by all its processes: each would copy and unmap as many as there are tasks. So the harness
//! keeps one place free, and each process builds its own area there.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

use armrest_abi::{
    BEAT_OFFSET, BLOB_MAGIC, BlobHeader, FRAME_OFFSET, GATE_OFFSET, PAGE_SIZE, Progress,
    REACHED_OFFSET, Range,
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

/// What all processes of a tree have from the harness: the place that their areas will take, and memory that they share
/// with it, the page of the gate and behind it the progress page of each. Unmapped when dropped.
#[derive(Debug)]
struct Common {
    slab: Range,
    memory: OwnedFd,
    here: Range,
}

impl Common {
    fn new(plans: &[&Plan], memory: OwnedFd) -> Result<Common, Error> {
        let fail = |what: String, e: &io::Error| Error::Machine {
            what,
            why: e.to_string(),
        };
        // They all begin at one place: each process maps but its own.
        let areas = || plans.iter().map(|p| p.area.all);
        let slab = Range {
            start: areas().map(|a| a.start).min().unwrap_or(0),
            end: areas().map(|a| a.end).max().unwrap_or(0),
        };
        let pages = |e: &io::Error| fail("memory that the tasks of a tree share".into(), e);
        let len = page(plans.len() + 1);
        let memory = std::fs::File::from(memory);
        memory.set_len(len.into()).map_err(|e| pages(&e))?;
        let memory = OwnedFd::from(memory);
        let nothing = Range { start: 0, end: 0 };
        let mut common = Common {
            slab: nothing,
            memory,
            here: nothing,
        };
        // First what has its place: the kernel might put the other there.
        map(slab, libc::PROT_NONE, PRIVATE | NEW, None).map_err(|e| {
            let what = format!("bootstrap areas {:08x}-{:08x}: mmap", slab.start, slab.end);
            fail(what, &e)
        })?;
        common.slab = slab;
        common.here = anywhere(&common.memory, len).map_err(|e| pages(&e))?;
        Ok(common)
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        for r in [self.slab, self.here] {
            unmap(r);
        }
    }
}

/// The area of a task: of a single one mapped in this process, of one of a tree yet to be mapped in that. Unmapped when
/// dropped (the child never drops it).
#[derive(Debug)]
pub struct Loaded {
    all: Range,
    entry: u32,
    args: u32,
    stack_top: u32,
    /// Where the progress page can be seen here.
    progress: u32,
    /// Where the gate can.
    gate: u32,
    /// What it has in common with the others of a tree, and its place among them.
    of: Option<(Rc<Common>, usize)>,
}

impl Loaded {
    fn new(plan: &Plan) -> Result<Loaded, Error> {
        let (h, a) = (header()?, &plan.area);
        Ok(Loaded {
            all: Range { start: 0, end: 0 },
            entry: a.rx.start + h.entry_offset,
            args: a.args.start,
            stack_top: a.stack.end,
            progress: a.progress.start,
            gate: a.gate.start,
            of: None,
        })
    }

    /// Map and fill the area of a task that is alone.
    ///
    /// # Errors
    /// Something lies there, or what the kernel says.
    pub fn alone(plan: &Plan) -> Result<Loaded, Error> {
        let a = &plan.area;
        let mut loaded = Loaded::new(plan)?;
        let mut fill = || -> Result<(), (&str, io::Error)> {
            map(a.all, RW, PRIVATE | NEW, None).map_err(|e| ("mmap", e))?;
            loaded.all = a.all;
            // Shared with the child through the fork: it shows where it is without a call.
            let shared = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            map(a.progress, RW, shared, None).map_err(|e| ("progress page", e))?;
            write(plan)
        };
        match fill() {
            Ok(()) => Ok(loaded),
            Err((what, e)) => Err(Error::Machine {
                what: format!("{}: {what}", named(a.all)),
                why: e.to_string(),
            }),
        }
    }

    /// The areas of all tasks of a tree, which their processes map: each has but its own, however many there are.
    /// `memory`: an empty file for what they share.
    ///
    /// # Errors
    /// Something lies there, or what the kernel says.
    pub fn of_tree(plans: &[&Plan], memory: OwnedFd) -> Result<Vec<Loaded>, Error> {
        let common = Rc::new(Common::new(plans, memory)?);
        let one = |(i, plan): (usize, &&Plan)| {
            let mut loaded = Loaded::new(plan)?;
            loaded.gate = common.here.start;
            loaded.progress = common.here.start + page(i + 1);
            loaded.of = Some((Rc::clone(&common), i));
            Ok(loaded)
        };
        plans.iter().enumerate().map(one).collect()
    }

    /// The descriptor that the processes of a tree need to map theirs.
    pub fn memory(&self) -> Option<RawFd> {
        self.of
            .as_ref()
            .map(|(common, _)| common.memory.as_raw_fd())
    }

    /// In the process of a task of a tree: map and fill its area, where the harness has kept the place free. Nothing is
    /// done for one that is alone.
    ///
    /// # Errors
    /// What the kernel says, and of which part.
    pub fn fill(&self, plan: &Plan) -> Result<(), (String, io::Error)> {
        let Some((common, index)) = &self.of else {
            return Ok(());
        };
        let a = &plan.area;
        let fill = || -> Result<(), (&str, io::Error)> {
            map(a.all, RW, PRIVATE | libc::MAP_FIXED, None).map_err(|e| ("mmap", e))?;
            let shared = |r, page, what| {
                let at = Some((&common.memory, page));
                map(r, RW, libc::MAP_SHARED | libc::MAP_FIXED, at).map_err(|e| (what, e))
            };
            // Pids are 15 bits.
            let own = u16::try_from(index + 1).map_err(|e| ("place", io::Error::other(e)))?;
            shared(a.progress, own, "progress page")?;
            shared(a.gate, 0, "gate")?;
            write(plan)
        };
        fill().map_err(|(what, e)| (format!("{}: {what}", named(a.all)), e))
    }

    /// Where the child is.
    pub fn progress(&self) -> Progress {
        let p: *const Progress = pointer(self.progress).cast();
        // SAFETY: the progress page is mapped as long as `self` lives, page-aligned, and any bit pattern is a Progress.
        // The child writes to it at the same time: volatile, and a torn value only spoils a progress bar.
        unsafe { p.read_volatile() }
    }

    /// Has the task come to the gate for this time?
    pub fn at_gate(&self, time: u32) -> bool {
        word(self.progress + REACHED_OFFSET).load(Ordering::Acquire) >= time
    }

    /// Somebody is here who will open the gate: whoever waits without calls can see that alone.
    pub fn beat(&self) {
        word(self.gate + BEAT_OFFSET - GATE_OFFSET).fetch_add(1, Ordering::Relaxed);
    }

    /// Let all tasks through the gate: one store to the page that they share, then the call that wakes them. False: one of
    /// them has shut it, and nobody comes through.
    #[must_use]
    pub fn open_gate(&self, time: u32) -> bool {
        let open = word(self.gate);
        let was = open.compare_exchange(time - 1, time, Ordering::AcqRel, Ordering::Acquire);
        futex(open, libc::FUTEX_WAKE, i32::MAX.cast_unsigned(), None);
        was.is_ok()
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
        unmap(self.all);
    }
}

/// Fill an area that is mapped, and take its rights away again.
fn write(plan: &Plan) -> Result<(), (&'static str, io::Error)> {
    let a = &plan.area;
    let no_room = |bytes: u64, room: u32, at: u32| {
        let why = format!("{bytes} bytes for {room} at {at:08x}");
        ("contents", io::Error::other(why))
    };
    // SAFETY: the arguments' part of the area, which the caller mapped readable and writable, zeroed, and used by nothing
    // else while the slice lives.
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
        // SAFETY: [at, at + room) lies in the area that the caller mapped writable and that nothing else uses.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(at), bytes.len()) };
    }
    protect(a.rx, libc::PROT_READ | libc::PROT_EXEC).map_err(|e| ("mprotect of the code", e))?;
    protect(a.args, libc::PROT_READ).map_err(|e| ("mprotect of the arguments", e))?;
    // Gaining PROT_EXEC makes the kernel clean the caches of these pages; asking as well costs one call.
    // SAFETY: cache maintenance on the area; the call touches no memory contents.
    unsafe { libc::syscall(CACHEFLUSH, a.rx.start, a.rx.end, 0) };
    Ok(())
}

fn named(area: Range) -> String {
    format!("bootstrap area {:08x}-{:08x}", area.start, area.end)
}

/// Where a page of this number begins.
fn page(index: usize) -> u32 {
    u32::try_from(index * PAGE_SIZE as usize).unwrap_or(u32::MAX)
}

/// An address as a pointer.
pub fn pointer(addr: u32) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(addr as usize)
}

/// A word of a progress page or of the gate.
fn word<'a>(addr: u32) -> &'a AtomicU32 {
    // SAFETY: the callers' pages are mapped as long as a `Loaded` that they are asked of lives; others use the word at the
    // same time, hence atomic.
    unsafe { AtomicU32::from_ptr(pointer(addr).cast()) }
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
/// Where nothing may lie yet.
const NEW: i32 = libc::MAP_FIXED_NOREPLACE;

/// Map memory where the plan says: with MAP_FIXED_NOREPLACE, or MAP_FIXED where all is ours already, by one of the former;
/// without a file, or from this page on in one.
///
/// # Errors
/// EEXIST: something lies there; or what the kernel says.
pub fn map(r: Range, prot: i32, flags: i32, file: Option<(&OwnedFd, u16)>) -> io::Result<()> {
    let at: *mut libc::c_void = pointer(r.start).cast();
    let (fd, offset) = match file {
        Some((f, page)) => (f.as_raw_fd(), libc::off_t::from(page) * 4096),
        None => (-1, 0),
    };
    // SAFETY: NOREPLACE cannot hit a mapping; MAP_FIXED is used inside areas and inside reserved places, which were mapped
    // for that and which nothing refers to, and for memory whose bytes the file has (the heap: `family/heap.rs`).
    let p = unsafe { libc::mmap(at, r.len() as usize, prot, flags, fd, offset) };
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

/// Map shared memory where the kernel likes.
fn anywhere(memory: &OwnedFd, len: u32) -> io::Result<Range> {
    let (fd, shared) = (memory.as_raw_fd(), libc::MAP_SHARED);
    // SAFETY: a fresh mapping where the kernel likes; nothing of ours is replaced.
    let p = unsafe { libc::mmap(std::ptr::null_mut(), len as usize, RW, shared, fd, 0) };
    if p == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = u32::try_from(p.expose_provenance()).map_err(io::Error::other)?;
    Ok(Range {
        start,
        end: start + len,
    })
}

/// Take a range of ours away again, if it is one.
fn unmap(r: Range) {
    if !r.is_empty() {
        // SAFETY: our own mapping; whoever calls was the only way to it.
        unsafe { libc::munmap(pointer(r.start).cast(), r.len() as usize) };
    }
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
