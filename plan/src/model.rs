//! A model of a Linux address space on which the blob's steps run in tests and under the fuzzer.
//!
//! It knows the kernel's rules (what `munmap` splits, when `mremap` says EINVAL, what `shmat` demands, when ENOMEM
//! strikes) and the promises of a restore: nothing of ours is hit before its time, no page is written twice, nothing is
//! writable and executable unless the checkpoint's own VMA was, no instruction fetch can see stale lines, and the end is
//! the checkpoint's map exactly. An error of the kernel is a result; **a broken promise panics**, with its reason.
//! It never merges neighbours, so its count of mappings is the most that a kernel can have.

use std::collections::{BTreeMap, BTreeSet};

use armrest_abi::consts as c;
use armrest_abi::{PAGE_SIZE, Progress, Range, Step};
use armrest_blob::kernel::{Data, Errno, Kernel, Res, nr};
use armrest_blob::{Entry, Stop};
use armrest_images::{Checkpoint, LiveTask, VmaKind};

use crate::consts::SHMLBA;
use crate::machine::Machine;
use crate::record::{HostArgs, iovecs};
use crate::shm;
use crate::types::{Plan, SourceKind};

/// Kernel error numbers that the model returns.
#[allow(missing_docs)]
pub mod errno {
    use armrest_blob::kernel::Errno;
    pub const EPERM: Errno = Errno(1);
    pub const EBADF: Errno = Errno(9);
    pub const ENOMEM: Errno = Errno(12);
    pub const EACCES: Errno = Errno(13);
    pub const EFAULT: Errno = Errno(14);
    pub const EINVAL: Errno = Errno(22);
    pub const ENOSYS: Errno = Errno(38);
    pub const EOVERFLOW: Errno = Errno(75);
}
use errno::{EACCES, EBADF, EFAULT, EINVAL, ENOMEM, ENOSYS, EOVERFLOW, EPERM};

const PAGE: u64 = PAGE_SIZE as u64;

/// What a mapping is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A part of the bootstrap area.
    Own,
    /// A mapping of the restoring program.
    Old,
    /// `[vectors]`: nobody can unmap it.
    Vectors,
    /// Anonymous memory.
    Anon,
    /// A file, by the descriptor that it was mapped with.
    File {
        /// Descriptor.
        fd: u32,
        /// Offset in pages.
        page: u64,
    },
    /// A SysV segment.
    Shm {
        /// Id.
        id: i32,
        /// Offset in pages.
        page: u64,
    },
}

impl Kind {
    /// The same thing, `bytes` further on.
    fn further(self, bytes: u32) -> Kind {
        let by = u64::from(bytes / PAGE_SIZE);
        match self {
            Kind::File { fd, page } => Kind::File { fd, page: page + by },
            Kind::Shm { id, page } => Kind::Shm { id, page: page + by },
            other => other,
        }
    }
}

/// One mapping; its start is the key in [`Model::areas`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// One past the last byte.
    pub end: u32,
    /// What it is.
    pub kind: Kind,
    /// `PROT_*`.
    pub prot: u32,
    /// MAP_SHARED.
    pub shared: bool,
    /// MAP_GROWSDOWN.
    pub grows_down: bool,
    /// MAP_NORESERVE.
    pub noreserve: bool,
    /// PROT_WRITE may be given.
    pub may_write: bool,
    /// Locked.
    pub locked: bool,
    /// Advice given, by bit.
    pub advice: u64,
}

impl Mapping {
    fn new(end: u32, kind: Kind, prot: u32) -> Mapping {
        Mapping { end, kind, prot, shared: false, grows_down: false, noreserve: false, may_write: true, locked: false, advice: 0 }
    }
}

/// A page that was written: from which file offset its first byte comes, and how much of it has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Descriptor of the pages file.
    pub fd: u32,
    /// Byte offset there of the page's first byte.
    pub offset: u64,
    /// Bytes so far.
    pub bytes: u32,
}

/// A descriptor of the restore.
#[derive(Clone, Copy, Debug)]
struct Open {
    readable: bool,
    writable: bool,
    /// A source of page contents: its size.
    contents: Option<u64>,
}

/// How the model should trouble the steps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// A `preadv` gives at most so many bytes.
    pub read_limit: Option<u32>,
    /// The n-th call fails with this error.
    pub fail: Option<(usize, Errno)>,
}

/// An address space of one process, and the descriptors that matter for it.
#[derive(Clone, Debug)]
pub struct Model {
    /// Mappings by start.
    pub areas: BTreeMap<u32, Mapping>,
    /// Pages that got contents.
    pub written: BTreeMap<u32, Written>,
    /// Calls made, by step and number.
    pub counts: BTreeMap<(Step, u32), usize>,
    /// All calls made.
    pub calls: usize,
    /// The most mappings that there ever were.
    pub peak: usize,
    /// Ranges that a fixed mapping, an attach or a move replaced. A good plan replaces nothing.
    pub replaced: Vec<Range>,
    trouble: Trouble,
    task_size: u32,
    min_addr: u32,
    max_maps: usize,
    shmlba_enforced: bool,
    cache_aliases: bool,
    root: bool,
    pid: u32,
    keep: Range,
    own: Range,
    open: BTreeMap<u32, Open>,
    segments: BTreeMap<i32, u32>,
    removed: BTreeSet<i32>,
    may_be_wx: Vec<Range>,
    segments_wx: BTreeSet<i32>,
    stale: BTreeSet<u32>,
    step: Step,
    entering: bool,
}

/// `a` up to `a + len`.
fn span(start: u32, len: u32) -> Option<Range> {
    let end = start.checked_add(len.checked_next_multiple_of(PAGE_SIZE)?)?;
    Some(Range { start, end })
}

impl Model {
    /// The moment before the blob is entered: our old mappings, the area, the helper descriptors.
    pub fn new(cp: &Checkpoint, machine: &Machine, plan: &Plan, trouble: Trouble) -> Model {
        let vmas = cp.tasks.get(plan.task).and_then(|t| t.live.as_ref()).map_or(&[][..], |l| &l.mm.vmas);
        let wx = |prot: u32| prot & c::PROT_WRITE != 0 && prot & c::PROT_EXEC != 0;
        let mut may_be_wx: Vec<Range> = Vec::new();
        for v in vmas.iter().filter(|v| wx(v.prot)) {
            match may_be_wx.last_mut().filter(|l| l.end == v.range.start()) {
                Some(last) => last.end = v.range.end(),
                None => may_be_wx.push(Range { start: v.range.start(), end: v.range.end() }),
            }
        }
        let segments_wx = shm::attachments(cp, vmas)
            .iter()
            .filter(|a| a.vmas.iter().all(|&i| wx(vmas[i].prot)))
            .filter_map(|a| i32::try_from(a.shmid).ok())
            .collect();
        let mut m = Model {
            areas: BTreeMap::new(),
            written: BTreeMap::new(),
            counts: BTreeMap::new(),
            calls: 0,
            peak: 0,
            replaced: Vec::new(),
            trouble,
            task_size: machine.task_size,
            min_addr: machine.mmap_min_addr,
            max_maps: usize::try_from(machine.max_map_count).unwrap_or(usize::MAX),
            shmlba_enforced: machine.shmlba_enforced,
            cache_aliases: machine.cache_aliases,
            root: machine.euid == 0,
            pid: cp.tasks.get(plan.task).map_or(1, |t| t.pid),
            keep: plan.area.keep,
            own: plan.area.all,
            open: plan.sources.iter().map(|s| (s.fd, open(cp, &s.what))).collect(),
            segments: cp
                .segments
                .iter()
                .filter_map(|s| Some((i32::try_from(s.id).ok()?, crate::space::page_up(s.size)?)))
                .collect(),
            removed: BTreeSet::new(),
            may_be_wx,
            segments_wx,
            stale: BTreeSet::new(),
            step: Step::Start,
            entering: false,
        };
        assert_eq!(m.open.len(), plan.sources.len(), "two helper descriptors have the same number");
        let report = Open { readable: false, writable: true, contents: None };
        assert!(m.open.insert(plan.report_fd, report).is_none(), "the report pipe has the number of a source");
        for o in &machine.maps {
            let kind = if o.range.start >= 0xffff_0000 { Kind::Vectors } else { Kind::Old };
            m.areas.insert(o.range.start, Mapping::new(o.range.end, kind, c::PROT_READ));
        }
        m.lay_area(plan);
        m
    }

    /// The parts of the area must follow each other in it, where nothing lies.
    fn lay_area(&mut self, plan: &Plan) {
        let a = &plan.area;
        assert!(a.all.end <= self.task_size && a.all.start >= self.min_addr, "the area lies outside the address space");
        assert!(self.in_range(a.all).is_empty(), "the area {:x?} hits a mapping of ours", a.all);
        assert_eq!(a.keep, Range { start: a.rx.start, end: a.rx.start + PAGE_SIZE }, "the kept page is not the first");
        let rest = Range { start: a.keep.end, end: a.rx.end };
        let parts = [
            (a.keep, c::PROT_READ | c::PROT_EXEC),
            (rest, c::PROT_READ | c::PROT_EXEC),
            (a.rw, c::PROT_READ | c::PROT_WRITE),
            (a.stack, c::PROT_READ | c::PROT_WRITE),
            (a.heap, c::PROT_READ | c::PROT_WRITE),
            (a.args, c::PROT_READ),
            (a.progress, c::PROT_READ | c::PROT_WRITE),
        ];
        let mut at = a.all.start;
        for (r, prot) in parts {
            assert_eq!(r.start, at, "the parts of the area do not follow each other");
            at = r.end;
            if !r.is_empty() {
                self.areas.insert(r.start, Mapping::new(r.end, Kind::Own, prot));
            }
        }
        assert_eq!(at, a.all.end, "the parts of the area do not fill it");
        let args = crate::args::bytes(plan).len();
        assert!(args <= usize::try_from(a.args.len()).unwrap_or(0), "the restore-args take {args} bytes of {}", a.args.len());
        self.peak = self.areas.len();
    }

    /// Starts of the mappings that share a byte with `r`, ascending.
    fn in_range(&self, r: Range) -> Vec<u32> {
        if r.is_empty() {
            return Vec::new();
        }
        let before = self.areas.range(..r.start).next_back().filter(|(_, m)| m.end > r.start).map(|(s, _)| *s);
        before.into_iter().chain(self.areas.range(r.start..r.end).map(|(s, _)| *s)).collect()
    }

    /// True if mappings cover `r` without a hole.
    fn covered(&self, r: Range) -> bool {
        let mut at = r.start;
        for s in self.in_range(r) {
            if s > at {
                return false;
            }
            at = self.areas[&s].end;
        }
        at >= r.end
    }

    /// Cut the mapping that has `at` inside itself.
    fn split(&mut self, at: u32) {
        let Some((&start, &m)) = self.areas.range(..at).next_back() else { return };
        if m.end > at {
            self.areas.insert(start, Mapping { end: at, ..m });
            self.areas.insert(at, Mapping { kind: m.kind.further(at - start), ..m });
            self.peak = self.peak.max(self.areas.len());
        }
    }

    fn insert(&mut self, start: u32, m: Mapping) {
        self.areas.insert(start, m);
        self.peak = self.peak.max(self.areas.len());
    }

    /// Nothing may touch the area until the exit routine does, and then only behind the kept page.
    fn spare_own(&self, what: &str, r: Range) {
        if self.entering {
            assert!(!r.overlaps(self.keep), "{what} {r:x?} hits the kept page");
        } else {
            assert!(!r.overlaps(self.own), "{what} {r:x?} hits the bootstrap area {:x?} in step {:?}", self.own, self.step);
        }
    }

    /// W^X: only where the checkpoint has it.
    fn check_wx(&self, what: &str, r: Range, prot: u32) {
        if prot & c::PROT_WRITE != 0 && prot & c::PROT_EXEC != 0 {
            let at = self.may_be_wx.partition_point(|w| w.end <= r.start);
            let ok = self.may_be_wx.get(at).is_some_and(|w| w.contains(r));
            assert!(ok, "{what} makes {r:x?} writable and executable at once, which the checkpoint's VMA was not");
        }
    }

    /// Remove what lies in `r`, its contents too.
    fn clear(&mut self, r: Range) {
        self.split(r.start);
        self.split(r.end);
        for s in self.in_range(r) {
            assert!(self.areas[&s].kind != Kind::Vectors, "[vectors] is unmapped");
            self.areas.remove(&s);
        }
        let pages: Vec<u32> = self.written.range(r.start..r.end).map(|(p, _)| *p).collect();
        assert!(pages.is_empty() || self.entering, "{} pages that were read are thrown away in {r:x?}", pages.len());
    }

    /// What a fixed mapping does to what it lands on.
    fn replace(&mut self, r: Range) {
        if !self.in_range(r).is_empty() {
            self.replaced.push(r);
        }
        self.clear(r);
    }

    fn full(&self) -> bool {
        self.areas.len() >= self.max_maps
    }

    fn munmap(&mut self, start: u32, len: u32) -> Res {
        let r = span(start, len).filter(|r| start.is_multiple_of(PAGE_SIZE) && !r.is_empty() && r.end <= self.task_size);
        let r = r.ok_or(EINVAL)?;
        self.spare_own("munmap", r);
        if let [s] = self.in_range(r)[..]
            && s < r.start
            && self.areas[&s].end > r.end
            && self.full()
        {
            return Err(ENOMEM);
        }
        self.clear(r);
        Ok(0)
    }

    fn mmap2(&mut self, a: &[u32; 6]) -> Res {
        let [start, len, prot, flags, fd, page] = *a;
        assert!(flags & c::MAP_FIXED != 0, "mmap2 without MAP_FIXED: the kernel would choose the place");
        if len == 0 || !start.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        let r = span(start, len).filter(|r| r.end <= self.task_size).ok_or(ENOMEM)?;
        if start < self.min_addr && !self.root {
            return Err(EPERM);
        }
        let shared = match flags & 3 {
            c::MAP_SHARED => true,
            c::MAP_PRIVATE => false,
            _ => return Err(EINVAL),
        };
        if self.areas.len() > self.max_maps {
            return Err(ENOMEM);
        }
        let mut m = Mapping::new(r.end, Kind::Anon, prot);
        if flags & c::MAP_ANONYMOUS == 0 {
            let f = *self.open.get(&fd).ok_or(EBADF)?;
            if page.checked_add(r.len() / PAGE_SIZE).is_none() {
                return Err(EOVERFLOW);
            }
            if !f.readable || (shared && prot & c::PROT_WRITE != 0 && !f.writable) {
                return Err(EACCES);
            }
            if shared && self.cache_aliases && (start ^ page.wrapping_mul(PAGE_SIZE)) & (SHMLBA - 1) != 0 {
                return Err(EINVAL);
            }
            m.may_write = !shared || f.writable;
            m.kind = Kind::File { fd, page: u64::from(page) };
        } else {
            assert!(!shared, "shared anonymous memory without a source has nothing to share with: {r:x?}");
        }
        m.shared = shared;
        m.grows_down = flags & c::MAP_GROWSDOWN != 0;
        m.noreserve = flags & c::MAP_NORESERVE != 0;
        m.locked = flags & c::MAP_LOCKED != 0;
        self.spare_own("mmap2", r);
        self.check_wx("mmap2", r, prot);
        self.replace(r);
        self.insert(start, m);
        Ok(start)
    }

    fn shmat(&mut self, id: u32, at: u32, flags: u32) -> Res {
        let id = id.cast_signed();
        assert!(at != 0, "shmat without an address: the kernel would choose the place");
        assert!(!self.removed.contains(&id), "segment {id} is attached after its removal");
        let size = *self.segments.get(&id).ok_or(EINVAL)?;
        let lba = if self.shmlba_enforced { SHMLBA } else { PAGE_SIZE };
        let r = span(at, size).filter(|r| at.is_multiple_of(lba) && r.end <= self.task_size).ok_or(EINVAL)?;
        if at < self.min_addr && !self.root {
            return Err(EPERM);
        }
        if flags & c::SHM_REMAP == 0 && !self.in_range(r).is_empty() {
            return Err(EINVAL);
        }
        if self.areas.len() > self.max_maps {
            return Err(ENOMEM);
        }
        let mut prot = c::PROT_READ;
        let may_write = flags & c::SHM_RDONLY == 0;
        if may_write {
            prot |= c::PROT_WRITE;
        }
        if flags & c::SHM_EXEC != 0 {
            prot |= c::PROT_EXEC;
            assert!(!may_write || self.segments_wx.contains(&id), "segment {id} is attached writable and executable at once");
        }
        self.spare_own("shmat", r);
        self.replace(r);
        self.insert(at, Mapping { shared: true, may_write, ..Mapping::new(r.end, Kind::Shm { id, page: 0 }, prot) });
        Ok(at)
    }

    fn remove_segment(&mut self, id: u32, command: u32) -> Res {
        let id = id.cast_signed();
        if command != c::IPC_RMID | c::IPC_64 || !self.segments.contains_key(&id) {
            return Err(EINVAL);
        }
        let attached = self.areas.values().any(|m| matches!(m.kind, Kind::Shm { id: i, .. } if i == id));
        assert!(attached, "segment {id} is removed while nothing holds it: its contents are gone");
        assert!(self.removed.insert(id), "segment {id} is removed twice");
        Ok(0)
    }

    fn mremap(&mut self, a: &[u32; 6]) -> Res {
        let [from, len, new_len, flags, to, _] = *a;
        assert_eq!(flags, c::MREMAP_MAYMOVE | c::MREMAP_FIXED, "mremap may choose the place");
        assert_eq!(len, new_len, "mremap changes the size");
        if len == 0 || !from.is_multiple_of(PAGE_SIZE) || !to.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        let inside = |r: &Range| r.end <= self.task_size;
        let (src, dst) = (span(from, len).filter(inside).ok_or(EINVAL)?, span(to, len).filter(inside).ok_or(EINVAL)?);
        if src.overlaps(dst) {
            return Err(EINVAL);
        }
        if to < self.min_addr && !self.root {
            return Err(EPERM);
        }
        if self.areas.len() + 3 >= self.max_maps {
            return Err(ENOMEM);
        }
        self.spare_own("mremap from", src);
        self.spare_own("mremap to", dst);
        self.replace(dst);
        let [start] = self.in_range(src)[..] else { return Err(EFAULT) };
        let m = self.areas[&start];
        if start > src.start || m.end < src.end {
            return Err(EFAULT);
        }
        if let Kind::Shm { page, .. } | Kind::File { page, .. } = m.kind.further(src.start - start)
            && m.shared
            && self.cache_aliases
            && (u64::from(to) ^ (page * PAGE)) & u64::from(SHMLBA - 1) != 0
        {
            return Err(EINVAL);
        }
        self.split(src.start);
        self.split(src.end);
        if let Some(m) = self.areas.remove(&src.start) {
            self.insert(dst.start, Mapping { end: dst.end, ..m });
        }
        assert!(self.written.range(src.start..src.end).next().is_none(), "{src:x?} is moved after it was filled");
        Ok(to)
    }

    /// Change every mapping in a range that has no hole.
    fn change(&mut self, what: &str, start: u32, len: u32, how: impl Fn(&mut Mapping)) -> Res {
        let r = span(start, len).filter(|_| start.is_multiple_of(PAGE_SIZE)).ok_or(EINVAL)?;
        self.spare_own(what, r);
        if !self.covered(r) {
            return Err(ENOMEM);
        }
        let inside = |at: u32| self.areas.range(..at).next_back().is_some_and(|(_, m)| m.end > at);
        if (inside(r.start) || inside(r.end)) && self.full() {
            return Err(ENOMEM);
        }
        self.split(r.start);
        self.split(r.end);
        for m in self.areas.range_mut(r.start..r.end) {
            how(m.1);
        }
        Ok(0)
    }

    fn mprotect(&mut self, start: u32, len: u32, prot: u32) -> Res {
        let r = span(start, len).ok_or(ENOMEM)?;
        let read_only = |s: &u32| !self.areas[s].may_write;
        if prot & c::PROT_WRITE != 0 && self.in_range(r).iter().any(read_only) {
            return Err(EACCES);
        }
        self.check_wx("mprotect", r, prot);
        self.change("mprotect", start, len, |m| m.prot = prot)
    }

    fn madvise(&mut self, start: u32, len: u32, advice: u32) -> Res {
        if advice >= 64 {
            return Err(EINVAL);
        }
        assert!(!matches!(advice, 4 | 8 | 9), "advice {advice} throws contents away");
        self.change("madvise", start, len, |m| m.advice |= 1 << advice)
    }

    /// The kernel locks first and then faults the pages in: what cannot be read is locked, and yet an error.
    fn mlock(&mut self, start: u32, len: u32) -> Res {
        self.change("mlock", start, len, |m| m.locked = true)?;
        let r = span(start, len).ok_or(EINVAL)?;
        if self.in_range(r).iter().any(|s| self.areas[s].prot == 0) { Err(ENOMEM) } else { Ok(0) }
    }

    fn preadv(&mut self, a: &[u32; 6], data: Option<&[u8]>) -> Res {
        let iov = iovecs(data.unwrap_or_default());
        let offset = u64::from(a[3]) | u64::from(a[4]) << 32;
        let f = *self.open.get(&a[0]).ok_or(EBADF)?;
        let size = f.contents.unwrap_or_else(|| panic!("fd {} is read, but holds no page contents", a[0]));
        assert_eq!(Ok(iov.len()), usize::try_from(a[2]), "count of iovecs");
        if iov.len() > usize::try_from(armrest_abi::IOV_MAX).unwrap_or(0) {
            return Err(EINVAL);
        }
        let mut left = size.saturating_sub(offset).min(u64::from(self.trouble.read_limit.unwrap_or(0x7fff_f000)));
        let (mut at, mut done) = (offset, 0u32);
        for v in iov {
            let want = u32::try_from(left.min(u64::from(v.len))).unwrap_or(v.len);
            let end = v.base.checked_add(want).ok_or(EFAULT)?;
            let r = Range { start: v.base, end };
            self.spare_own("preadv", r);
            let writable = |s: &u32| self.areas[s].prot & c::PROT_WRITE != 0;
            if !r.is_empty() && !(self.covered(r) && self.in_range(r).iter().all(writable)) {
                return if done == 0 { Err(EFAULT) } else { Ok(done) };
            }
            self.write(a[0], r, at);
            left -= u64::from(want);
            at += u64::from(want);
            done += want;
        }
        Ok(done)
    }

    fn write(&mut self, fd: u32, r: Range, offset: u64) {
        for s in self.in_range(r) {
            let m = self.areas[&s];
            assert!(!m.shared, "contents are written through a shared mapping, into what others see: {r:x?}");
            assert!(matches!(m.kind, Kind::Anon | Kind::File { .. }), "contents are written over {:?}", m.kind);
            if m.prot & c::PROT_EXEC != 0 {
                let (from, to) = (r.start.max(s), r.end.min(m.end));
                self.stale.extend((from & !(PAGE_SIZE - 1)..to).step_by(4096));
            }
        }
        let (mut addr, mut offset) = (r.start, offset);
        while addr < r.end {
            let page = addr & !(PAGE_SIZE - 1);
            let n = (PAGE_SIZE - (addr - page)).min(r.end - addr);
            let first = offset.checked_sub(u64::from(addr - page)).expect("a page begins before its file");
            let w = self.written.entry(page).or_insert(Written { fd, offset: first, bytes: 0 });
            assert_eq!((w.fd, w.offset), (fd, first), "page {page:x} is written from two places");
            assert_eq!(w.bytes, addr - page, "page {page:x} is not written once, front to back");
            w.bytes += n;
            addr += n;
            offset += u64::from(n);
        }
    }

    fn prctl(&mut self, a: &[u32; 6]) -> Res {
        if a[0] == c::PR_SET_MM {
            let old = self.areas.values().any(|m| m.kind == Kind::Old);
            assert!(!old, "PR_SET_MM_MAP while old mappings are there: the exe link is busy");
        }
        Ok(0)
    }

    /// The exit routine's calls, and what must be left after them.
    pub fn enter(&mut self, entry: &Entry) {
        self.entering = true;
        assert_eq!(entry.unmap, Range { start: self.keep.end, end: self.own.end }, "the exit routine unmaps another range");
        assert!(entry.frame >= self.keep.start && entry.frame + armrest_abi::FRAME_SIZE <= self.keep.end, "frame {:x}", entry.frame);
        for (n, args) in entry.calls() {
            if n != nr::RT_SIGRETURN {
                assert_eq!(self.call(n, args, None), Ok(0), "the exit routine's call {n} failed");
            }
        }
        for (s, m) in &self.areas {
            let range = Range { start: *s, end: m.end };
            assert!(m.kind != Kind::Old, "{range:x?} of the old address space is left");
            assert!(m.kind != Kind::Own || range == self.keep, "{range:x?} of the area is left");
        }
        assert!(self.open.is_empty(), "descriptors of the restore are left: {:?}", self.open.keys());
        assert!(self.stale.is_empty(), "{} executable pages were written without a cache flush", self.stale.len());
        assert!(self.written.values().all(|w| w.bytes == PAGE_SIZE), "a page is not whole");
    }

    /// Calls of this number in a step.
    pub fn count(&self, step: Step, nr: u32) -> usize {
        self.counts.get(&(step, nr)).copied().unwrap_or(0)
    }

    /// Bits of `prot` at an address, if something is mapped there.
    pub fn prot_at(&self, addr: u32) -> Option<u32> {
        self.areas.range(..=addr).next_back().filter(|(_, m)| m.end > addr).map(|(_, m)| m.prot)
    }
}

/// What the harness opens for a source.
fn open(cp: &Checkpoint, what: &SourceKind) -> Open {
    let (readable, writable, contents) = match what {
        SourceKind::Pages(i) => (true, false, Some(cp.pages_files.get(*i).map_or(0, |f| f.size))),
        SourceKind::Overlay(bytes) => (true, false, Some(bytes.len() as u64)),
        SourceKind::File { access, .. } => (*access != 1, *access != 0, None),
        SourceKind::Exe { .. } => (true, false, None),
        SourceKind::Memfd { .. } | SourceKind::AnonShared { .. } => (true, true, None),
    };
    Open { readable, writable, contents }
}

impl Kernel for Model {
    fn call(&mut self, n: u32, a: [u32; 6], data: Option<Data<'_>>) -> Res {
        let nth = self.calls;
        self.calls += 1;
        *self.counts.entry((self.step, n)).or_default() += 1;
        if let Some((at, e)) = self.trouble.fail
            && at == nth
            && !self.entering
        {
            return Err(e);
        }
        match n {
            nr::MUNMAP => self.munmap(a[0], a[1]),
            nr::MMAP2 => self.mmap2(&a),
            nr::MREMAP => self.mremap(&a),
            nr::MPROTECT => self.mprotect(a[0], a[1], a[2]),
            nr::MADVISE => self.madvise(a[0], a[1], a[2]),
            nr::MLOCK => self.mlock(a[0], a[1]),
            nr::SHMAT => self.shmat(a[0], a[1], a[2]),
            nr::SHMCTL => self.remove_segment(a[0], a[1]),
            nr::PREADV => self.preadv(&a, data.map(|d| d.bytes)),
            nr::CACHEFLUSH => {
                let r = Range { start: a[0] & !(PAGE_SIZE - 1), end: a[1] };
                self.stale.retain(|p| !(r.start <= *p && *p < r.end));
                Ok(0)
            }
            nr::CLOSE => self.open.remove(&a[0]).map(|_| 0).ok_or(EBADF),
            nr::PRCTL => self.prctl(&a),
            nr::SET_TID_ADDRESS => Ok(self.pid),
            nr::SIGALTSTACK | nr::SET_ROBUST_LIST | nr::SET_TLS | nr::RSEQ | nr::SETITIMER => Ok(0),
            nr::RT_SIGQUEUEINFO | nr::RT_TGSIGQUEUEINFO => Ok(0),
            _ => Err(ENOSYS),
        }
    }
    fn progress(&mut self, _progress: Progress) {
        assert!(!self.entering, "progress is shown after the area is gone");
    }
    fn step(&mut self, step: Step) {
        assert!(step > self.step, "step {step:?} after {:?}", self.step);
        self.step = step;
    }
}

/// What a mapping shows, in terms of the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Anon,
    File(u32),
    Memfd(u32),
    AnonShared(u64),
    SysV(i32),
}

/// A mapping for comparison: neighbours that show no difference are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    range: Range,
    what: What,
    page: u64,
    prot: u32,
    shared: bool,
    grows_down: bool,
    noreserve: bool,
    locked: bool,
    advice: u64,
    read_only: bool,
}

fn join(out: &mut Vec<Shown>, next: Shown) {
    if let Some(last) = out.last_mut() {
        let pages = u64::from(last.range.len() / PAGE_SIZE);
        let follows = if last.what == What::Anon { 0 } else { last.page + pages };
        let grown = Shown { range: Range { start: last.range.start, end: next.range.end }, page: last.page, ..next };
        if last.range.end == next.range.start && next.page == follows && (Shown { range: grown.range, ..*last }) == grown {
            *last = grown;
            return;
        }
    }
    out.push(next);
}

/// The checkpoint's map.
fn wanted(cp: &Checkpoint, machine: &Machine, live: &LiveTask) -> Vec<Shown> {
    let vmas = &live.mm.vmas;
    let mut read_only: BTreeSet<usize> = BTreeSet::new();
    for a in shm::attachments(cp, vmas).iter().filter(|a| a.read_only) {
        read_only.extend(a.vmas.iter().copied());
    }
    let known = machine.madvise.iter().filter(|a| **a < 64).fold(0u64, |bits, a| bits | 1 << a);
    let mut out = Vec::new();
    for (i, v) in vmas.iter().enumerate().filter(|(_, v)| v.kind != VmaKind::Vectors) {
        let what = match v.kind {
            VmaKind::File { file } => What::File(file),
            VmaKind::Memfd { inode, .. } => What::Memfd(inode),
            VmaKind::AnonShared { shmid } => What::AnonShared(shmid),
            VmaKind::SysV { shmid } => What::SysV(i32::try_from(shmid).unwrap_or(-1)),
            _ => What::Anon,
        };
        let sysv = matches!(what, What::SysV(_));
        let shown = Shown {
            range: Range { start: v.range.start(), end: v.range.end() },
            what,
            page: if what == What::Anon { 0 } else { v.offset / PAGE },
            prot: v.prot,
            shared: v.shared || sysv,
            grows_down: v.grows_down && !sysv,
            noreserve: v.noreserve && !sysv,
            // The kernel cannot be made to lock inaccessible SysV memory without an error: the plan says so.
            locked: v.locked && !(sysv && v.prot == 0),
            advice: v.madv & known,
            read_only: read_only.contains(&i),
        };
        join(&mut out, shown);
    }
    out
}

/// The map that came about.
fn found(m: &Model, plan: &Plan) -> Vec<Shown> {
    let mut out = Vec::new();
    for (start, a) in &m.areas {
        let (what, page) = match a.kind {
            Kind::Own | Kind::Old | Kind::Vectors => continue,
            Kind::Anon => (What::Anon, 0),
            Kind::Shm { id, page } => (What::SysV(id), page),
            Kind::File { fd, page } => match plan.sources.iter().find(|s| s.fd == fd).map(|s| &s.what) {
                Some(SourceKind::File { file, .. }) => (What::File(*file), page),
                Some(SourceKind::Memfd { inode }) => (What::Memfd(*inode), page),
                Some(SourceKind::AnonShared { shmid, .. }) => (What::AnonShared(*shmid), page),
                other => panic!("{other:?} is mapped at {start:x}"),
            },
        };
        let shown = Shown {
            range: Range { start: *start, end: a.end },
            what,
            page,
            prot: a.prot,
            shared: a.shared,
            grows_down: a.grows_down,
            noreserve: a.noreserve,
            locked: a.locked,
            advice: a.advice,
            read_only: matches!(a.kind, Kind::Shm { .. }) && !a.may_write,
        };
        join(&mut out, shown);
    }
    out
}

/// The contents of the checkpoint: for every page the file and offset that it comes from.
fn wanted_pages(live: &LiveTask, plan: &Plan) -> BTreeMap<u32, Written> {
    let fd_of = |want: &dyn Fn(&SourceKind) -> bool| plan.sources.iter().find(|s| want(&s.what)).map(|s| s.fd);
    let overlay = fd_of(&|s| matches!(s, SourceKind::Overlay(_)));
    let vdso = live.mm.vmas.iter().find(|v| v.kind == VmaKind::Vdso).map(|v| v.range);
    let mut out = BTreeMap::new();
    let mut put = |addr: u64, fd: u32, offset: u64| {
        let addr = u32::try_from(addr).unwrap_or_else(|_| panic!("page {addr:x}"));
        out.insert(addr, Written { fd, offset, bytes: PAGE_SIZE });
    };
    for run in &live.pages.runs {
        let fd = fd_of(&|s| *s == SourceKind::Pages(run.file)).unwrap_or(u32::MAX);
        for i in 0..u64::from(run.pages) {
            put(run.addr + i * PAGE, fd, run.offset + i * PAGE);
        }
    }
    if let (Some(fd), Some(r)) = (overlay, vdso) {
        for i in 0..u64::from(r.pages()) {
            put(u64::from(r.start()) + i * PAGE, fd, i * PAGE);
        }
    }
    out
}

/// Run the blob's steps on a model of `machine` and compare the end with the checkpoint.
///
/// # Errors
/// The kernel's refusal, if there was one.
///
/// # Panics
/// If a promise is broken; see the module's text.
pub fn prove(cp: &Checkpoint, machine: &Machine, plan: &Plan, trouble: Trouble) -> Result<Model, Stop> {
    let mut m = Model::new(cp, machine, plan, trouble);
    let host = HostArgs::of(plan).expect("the tables lie in the bytes of the restore-args");
    let entry = armrest_blob::restore(&mut m, &host.args(), &mut crate::record::heap())?;
    m.enter(&entry);
    let Some(live) = cp.tasks.get(plan.task).and_then(|t| t.live.as_ref()) else { return Ok(m) };
    assert!(m.replaced.is_empty(), "{:x?} landed on something that lived there", m.replaced);
    let (wanted, found) = (wanted(cp, machine, live), found(&m, plan));
    if let Some((w, f)) = wanted.iter().zip(&found).find(|(w, f)| w != f) {
        panic!("the map differs:\nwanted {w:x?}\nfound  {f:x?}");
    }
    assert_eq!(wanted.len(), found.len(), "the map has another number of VMAs");
    let pages = wanted_pages(live, plan);
    if m.written != pages {
        let wrong = pages.iter().find(|(a, w)| m.written.get(a) != Some(w));
        let extra = m.written.iter().find(|(a, w)| pages.get(a) != Some(w));
        panic!("the contents differ: wanted {wrong:x?}, found {extra:x?}");
    }
    Ok(m)
}
