//! A model of a Linux address space on which the blob's steps run in tests and under the fuzzer.
//!
//! It knows the kernel's rules (what `munmap` splits, when `mremap` says EINVAL, what `shmat` demands, when ENOMEM
//! strikes) and the promises of a restore: nothing of ours is hit before its time, no page is written twice, nothing is
//! writable and executable unless the checkpoint's own VMA was, no instruction fetch can see stale lines, and the end is
//! the checkpoint's map exactly. An error of the kernel is a result; **a broken promise panics**, with its reason.
//! It never merges neighbours, so its count of mappings is the most that a kernel can have.

pub mod creds;
mod end;
mod machine;
mod rules;
mod threads;
pub mod timers;

pub use end::{drill, prove};
pub use machine::{emulator, machine, own};
pub use threads::Own;

use std::collections::{BTreeMap, BTreeSet};

use armrest_abi::consts as c;
use armrest_abi::{PAGE_SIZE, Progress, Range, Step, ThreadArgs};
use armrest_blob::kernel::{Data, Errno, Kernel, Res, Stage, nr};
use armrest_blob::{Args, Entry, Stop};
use armrest_images::{Checkpoint, LiveTask};

use crate::inherit::Kept;
use crate::machine::{HugePages, Machine};
use crate::shm;
use crate::types::{Plan, SourceKind};

/// Kernel error numbers that the model returns.
#[expect(missing_docs, reason = "the kernel's names, as in its own headers")]
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
use errno::{EBADF, ENOSYS};

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
    /// A page that the kernel gives a process only once.
    Kernel(KernelPage),
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

/// Pages that the kernel gives a process only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelPage {
    /// `[sigpage]`.
    Sigpage,
    /// `[vvar]`.
    Vvar,
    /// `[vdso]`.
    Vdso,
}

impl Kind {
    /// What a mapping of our own with this name is.
    fn of_ours(start: u32, name: &str) -> Kind {
        match name {
            _ if start >= 0xffff_0000 => Kind::Vectors,
            "[sigpage]" => Kind::Kernel(KernelPage::Sigpage),
            "[vdso]" => Kind::Kernel(KernelPage::Vdso),
            _ if name.starts_with("[vvar") => Kind::Kernel(KernelPage::Vvar),
            _ => Kind::Old,
        }
    }

    /// The same thing, `bytes` further on.
    fn further(self, bytes: u32) -> Kind {
        let by = u64::from(bytes / PAGE_SIZE);
        match self {
            Kind::File { fd, page } => Kind::File {
                fd,
                page: page + by,
            },
            Kind::Shm { id, page } => Kind::Shm {
                id,
                page: page + by,
            },
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
    /// log2 of the size of its huge pages.
    pub huge: Option<u32>,
    /// Locked.
    pub locked: bool,
    /// Advice given, by bit.
    pub advice: u64,
}

impl Mapping {
    fn new(end: u32, kind: Kind, prot: u32) -> Mapping {
        Mapping {
            end,
            kind,
            prot,
            shared: false,
            grows_down: false,
            noreserve: false,
            may_write: true,
            huge: None,
            locked: false,
            advice: 0,
        }
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

/// What the kernel believes of the address space.
#[derive(Clone, Copy, Debug)]
pub struct MmFields {
    /// In the order of `prctl_mm_map`.
    pub fields: [u32; 11],
    /// The auxiliary vector was set.
    pub auxv: bool,
    /// The exe link was set.
    pub exe: bool,
}

impl MmFields {
    /// Those of a small static program.
    fn ours() -> MmFields {
        MmFields {
            fields: [
                0x40_0000,
                0x51_0000,
                0x51_f000,
                0x52_0000,
                0x52_2000,
                0x53_0000,
                0xbed2_0000,
                0xbed2_0f00,
                0xbed2_0f20,
                0xbed2_0f20,
                0xbed2_0ff0,
            ],
            auxv: false,
            exe: false,
        }
    }
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
    /// Record locks: descriptor and `struct flock64`.
    pub records: Vec<(u32, Vec<u8>)>,
    /// Pages of guard ranges.
    pub guards: BTreeSet<u32>,
    /// Calls made, by step and number.
    pub counts: BTreeMap<(Step, u32), usize>,
    /// All calls made.
    pub calls: usize,
    /// The most mappings that there ever were.
    pub peak: usize,
    /// Ranges that a fixed mapping, an attach or a move replaced. A good plan replaces nothing.
    pub replaced: Vec<Range>,
    trouble: Trouble,
    /// The kernel's mm fields.
    pub mm: MmFields,
    machine: Machine,
    huge_pages: Vec<HugePages>,
    advice: Vec<u32>,
    task_size: u32,
    min_addr: u32,
    max_maps: usize,
    shmlba_enforced: bool,
    cache_aliases: bool,
    root: bool,
    pid: u32,
    /// Signals of the shared queue, in order.
    pub pending: Vec<Vec<u8>>,
    /// Timers made and armed.
    pub timers: timers::Timers,
    keep: Range,
    own: Range,
    kept: Vec<Range>,
    open: BTreeMap<u32, Open>,
    segments: BTreeMap<i32, u32>,
    removed: BTreeSet<i32>,
    may_be_wx: Vec<Range>,
    segments_wx: BTreeSet<i32>,
    stale: BTreeSet<u32>,
    step: Step,
    entering: bool,
    /// Threads whose frames lie where they are loaded from.
    placed: BTreeSet<u32>,
    /// The last gate was open: nothing may be called any more that can fail.
    ready: bool,
    /// Threads by id, the leader's first: what each has of its own.
    pub threads: BTreeMap<u32, Own>,
    /// Whose calls these are.
    current: u32,
    expected: usize,
    last_pid: u32,
    stack_size: u32,
    left: usize,
    stacks: BTreeSet<u32>,
    /// Credentials by thread.
    pub who: BTreeMap<u32, creds::Thread>,
    first: creds::Thread,
    memory: crate::record::Memory,
}

/// `a` up to `a + len`.
fn span(start: u32, len: u32) -> Option<Range> {
    let end = start.checked_add(len.checked_next_multiple_of(PAGE_SIZE)?)?;
    Some(Range { start, end })
}

impl Model {
    /// The moment before the blob is entered: our old mappings, the area, the helper descriptors.
    pub fn new(cp: &Checkpoint, machine: &Machine, plan: &Plan, trouble: Trouble) -> Model {
        let vmas = cp
            .tasks
            .get(plan.task)
            .and_then(|t| t.live.as_ref())
            .map_or(&[][..], |l| &l.mm.vmas);
        let wx = |prot: u32| prot & c::PROT_WRITE != 0 && prot & c::PROT_EXEC != 0;
        let mut may_be_wx: Vec<Range> = Vec::new();
        for v in vmas.iter().filter(|v| wx(v.prot)) {
            match may_be_wx.last_mut().filter(|l| l.end == v.range.start()) {
                Some(last) => last.end = v.range.end(),
                None => may_be_wx.push(Range {
                    start: v.range.start(),
                    end: v.range.end(),
                }),
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
            guards: BTreeSet::new(),
            counts: BTreeMap::new(),
            calls: 0,
            peak: 0,
            replaced: Vec::new(),
            trouble,
            mm: MmFields::ours(),
            machine: machine.clone(),
            huge_pages: machine.huge_pages.clone(),
            advice: machine.madvise.clone(),
            task_size: machine.task_size,
            min_addr: machine.mmap_min_addr,
            max_maps: usize::try_from(machine.max_map_count).unwrap_or(usize::MAX),
            shmlba_enforced: machine.shmlba_enforced,
            cache_aliases: machine.cache_aliases,
            root: machine.euid == 0,
            pid: cp.tasks.get(plan.task).map_or(1, |t| t.pid),
            pending: Vec::new(),
            timers: timers::Timers::new(machine.timer_ids),
            keep: plan.area.keep,
            own: plan.area.all,
            kept: plan.legacy.kept.iter().map(Kept::range).collect(),
            records: Vec::new(),
            open: plan
                .sources
                .iter()
                .map(|s| (s.fd, open(cp, &s.what)))
                .collect(),
            segments: cp
                .segments
                .iter()
                .filter_map(|s| {
                    Some((
                        i32::try_from(s.perm.id).ok()?,
                        crate::space::page_up(s.size)?,
                    ))
                })
                .collect(),
            removed: BTreeSet::new(),
            may_be_wx,
            segments_wx,
            stale: BTreeSet::new(),
            step: Step::Start,
            entering: false,
            placed: BTreeSet::new(),
            ready: false,
            threads: BTreeMap::new(),
            current: 0,
            expected: 0,
            last_pid: 0,
            stack_size: plan.area.threads.len()
                / u32::try_from(plan.tables.threads.len().saturating_sub(1).max(1))
                    .unwrap_or(u32::MAX),
            left: 0,
            stacks: BTreeSet::new(),
            who: BTreeMap::new(),
            first: creds::Thread {
                suspended: matches!(plan.exit, crate::types::Exit::Ptrace(_)),
                ..creds::Thread::new(&machine.own)
            },
            memory: crate::record::Memory::of(plan),
        };
        m.current = m.pid;
        assert_eq!(
            m.open.len(),
            plan.sources.len(),
            "two helper descriptors have the same number"
        );
        let report = Open {
            readable: false,
            writable: true,
            contents: None,
        };
        assert!(
            m.open.insert(plan.report_fd, report).is_none(),
            "the report pipe has the number of a source"
        );
        for o in &machine.maps {
            let kind = Kind::of_ours(o.range.start, &o.name);
            let code = matches!(kind, Kind::Kernel(KernelPage::Sigpage | KernelPage::Vdso));
            let prot = if code {
                c::PROT_READ | c::PROT_EXEC
            } else {
                c::PROT_READ
            };
            m.areas
                .insert(o.range.start, Mapping::new(o.range.end, kind, prot));
        }
        if let Some(live) = cp.tasks.get(plan.task).and_then(|t| t.live.as_ref()) {
            m.lay_kept(live, plan);
        }
        m.lay_area(plan);
        m
    }

    /// What the task holds from before: writable memory with its contents.
    fn lay_kept(&mut self, live: &LiveTask, plan: &Plan) {
        if plan.legacy.kept.is_empty() {
            return;
        }
        let pages = end::of_images(live, plan);
        for k in &plan.legacy.kept {
            let (r, v) = (k.range(), &live.mm.vmas[k.vma]);
            self.clear(r);
            let rights = c::PROT_READ | c::PROT_WRITE;
            let mapping = Mapping {
                noreserve: v.noreserve,
                ..Mapping::new(r.end, Kind::Anon, rights)
            };
            self.insert(r.start, mapping);
            let inside = pages.range(v.range.start()..v.range.end());
            let there = |(at, w): (&u32, &Written)| (at - v.range.start() + k.at, *w);
            self.written.extend(inside.map(there));
        }
    }

    /// The parts of the area must follow each other in it, where nothing lies.
    fn lay_area(&mut self, plan: &Plan) {
        let a = &plan.area;
        assert!(
            a.all.end <= self.task_size && a.all.start >= self.min_addr,
            "the area lies outside the address space"
        );
        assert!(
            self.in_range(a.all).is_empty(),
            "the area {:x?} hits a mapping of ours",
            a.all
        );
        assert_eq!(
            a.keep,
            Range {
                start: a.rx.start,
                end: a.rx.start + PAGE_SIZE
            },
            "the kept page is not the first"
        );
        let rest = Range {
            start: a.keep.end,
            end: a.rx.end,
        };
        let parts = [
            (a.keep, c::PROT_READ | c::PROT_EXEC),
            (rest, c::PROT_READ | c::PROT_EXEC),
            (a.rw, c::PROT_READ | c::PROT_WRITE),
            (a.stack, c::PROT_READ | c::PROT_WRITE),
            (a.heap, c::PROT_READ | c::PROT_WRITE),
            (a.threads, c::PROT_READ | c::PROT_WRITE),
            (a.args, c::PROT_READ),
            (a.progress, c::PROT_READ | c::PROT_WRITE),
            (a.gate, c::PROT_READ | c::PROT_WRITE),
        ];
        let mut at = a.all.start;
        for (r, prot) in parts {
            assert_eq!(
                r.start, at,
                "the parts of the area do not follow each other"
            );
            at = r.end;
            if !r.is_empty() {
                self.areas
                    .insert(r.start, Mapping::new(r.end, Kind::Own, prot));
            }
        }
        assert_eq!(at, a.all.end, "the parts of the area do not fill it");
        let args = crate::args::bytes(plan).len();
        assert!(
            args <= usize::try_from(a.args.len()).unwrap_or(0),
            "the restore-args take {args} bytes of {}",
            a.args.len()
        );
        self.peak = self.areas.len();
    }

    /// Starts of the mappings that share a byte with `r`, ascending.
    fn in_range(&self, r: Range) -> Vec<u32> {
        if r.is_empty() {
            return Vec::new();
        }
        let before = self
            .areas
            .range(..r.start)
            .next_back()
            .filter(|(_, m)| m.end > r.start)
            .map(|(s, _)| *s);
        before
            .into_iter()
            .chain(self.areas.range(r.start..r.end).map(|(s, _)| *s))
            .collect()
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
        let Some((&start, &m)) = self.areas.range(..at).next_back() else {
            return;
        };
        if m.end > at {
            self.areas.insert(start, Mapping { end: at, ..m });
            self.areas.insert(
                at,
                Mapping {
                    kind: m.kind.further(at - start),
                    ..m
                },
            );
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
            assert!(
                !r.overlaps(self.own),
                "{what} {r:x?} hits the bootstrap area {:x?} in step {:?}",
                self.own,
                self.step
            );
        }
    }

    /// W^X: only where the checkpoint has it.
    fn check_wx(&self, what: &str, r: Range, prot: u32) {
        if prot & c::PROT_WRITE != 0 && prot & c::PROT_EXEC != 0 {
            let at = self.may_be_wx.partition_point(|w| w.end <= r.start);
            let ok = self.may_be_wx.get(at).is_some_and(|w| w.contains(r));
            assert!(
                ok,
                "{what} makes {r:x?} writable and executable at once, which the checkpoint's VMA was not"
            );
        }
    }

    /// Remove what lies in `r`, its contents too.
    fn clear(&mut self, r: Range) {
        self.split(r.start);
        self.split(r.end);
        for s in self.in_range(r) {
            assert!(
                self.areas[&s].kind != Kind::Vectors,
                "[vectors] is unmapped"
            );
            self.areas.remove(&s);
        }
        let pages: Vec<u32> = self
            .written
            .range(r.start..r.end)
            .map(|(p, _)| *p)
            .collect();
        assert!(
            pages.is_empty() || self.entering,
            "{} pages that were read are thrown away in {r:x?}",
            pages.len()
        );
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

    /// The exit routine's calls, and what must be left after them.
    pub fn enter(&mut self, entry: &Entry) {
        self.entering = true;
        assert_eq!(
            entry.unmap,
            Range {
                start: self.keep.end,
                end: self.own.end
            },
            "the exit routine unmaps another range"
        );
        assert!(
            entry.frame >= self.keep.start
                && entry.frame + armrest_abi::FRAME_SIZE <= self.keep.end,
            "frame {:x}",
            entry.frame
        );
        assert!(
            self.placed.contains(&self.pid),
            "the leader's frame is not placed"
        );
        assert_eq!(
            self.left, self.expected,
            "the leader leaves before the others have"
        );
        for (n, args) in entry.calls() {
            if n != nr::RT_SIGRETURN {
                assert_eq!(
                    self.call(n, args, None),
                    Ok(0),
                    "the exit routine's call {n} failed"
                );
            }
        }
        for (s, m) in &self.areas {
            let range = Range {
                start: *s,
                end: m.end,
            };
            assert!(
                m.kind != Kind::Old,
                "{range:x?} of the old address space is left"
            );
            assert!(
                m.kind != Kind::Own || range == self.keep,
                "{range:x?} of the area is left"
            );
        }
        assert!(
            self.open.is_empty(),
            "descriptors of the restore are left: {:?}",
            self.open.keys()
        );
        assert!(
            self.stale.is_empty(),
            "{} executable pages were written without a cache flush",
            self.stale.len()
        );
        assert!(
            self.written.values().all(|w| w.bytes == PAGE_SIZE),
            "a page is not whole"
        );
    }

    /// Calls of this number in a step.
    pub fn count(&self, step: Step, nr: u32) -> usize {
        self.counts.get(&(step, nr)).copied().unwrap_or(0)
    }

    /// Bits of `prot` at an address, if something is mapped there.
    pub fn prot_at(&self, addr: u32) -> Option<u32> {
        self.areas
            .range(..=addr)
            .next_back()
            .filter(|(_, m)| m.end > addr)
            .map(|(_, m)| m.prot)
    }
}

/// What the harness opens for a source.
fn open(cp: &Checkpoint, what: &SourceKind) -> Open {
    let (readable, writable, contents) = match what {
        SourceKind::Pages(i) => (
            true,
            false,
            Some(cp.pages_files.get(*i).map_or(0, |f| f.size)),
        ),
        SourceKind::Overlay(bytes) => (true, false, Some(bytes.len() as u64)),
        SourceKind::File { access, .. } => (*access != 1, *access != 0, None),
        SourceKind::Exe { .. } => (true, false, None),
        SourceKind::LastPid => (false, true, None),
        SourceKind::Memfd { .. } | SourceKind::AnonShared { .. } => (true, true, None),
    };
    Open {
        readable,
        writable,
        contents,
    }
}

impl Kernel for Model {
    type Failure = Stop;
    fn fail(&mut self, why: Stop) -> Stop {
        why
    }
    fn call(&mut self, n: u32, a: [u32; 6], data: Option<Data<'_>>) -> Res {
        assert!(
            !self.ready || self.entering,
            "call {n} behind the last gate"
        );
        let nth = self.calls;
        self.calls += 1;
        *self.counts.entry((self.step, n)).or_default() += 1;
        if let Some((at, e)) = self.trouble.fail
            && at == nth
            && !self.entering
        {
            return Err(e);
        }
        let read = self.memory.read_by(n, &a);
        if let Some(res) = self.identity(n, &a, read.as_deref().or(data.map(|d| d.bytes))) {
            if n == nr::PRCTL {
                self.threads_own(n, &a, None)?;
            }
            return res;
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
                let r = Range {
                    start: a[0] & !(PAGE_SIZE - 1),
                    end: a[1],
                };
                self.stale.retain(|p| !(r.start <= *p && *p < r.end));
                Ok(0)
            }
            nr::CLOSE => {
                // Of whichever file: the model does not tell which are the same. The report pipe is none.
                if !self.entering {
                    self.records.clear();
                }
                self.open.remove(&a[0]).map(|_| 0).ok_or(EBADF)
            }
            nr::FCNTL64 => {
                self.records.push((a[0], read.unwrap_or_default()));
                Ok(0)
            }
            nr::PRCTL => {
                self.threads_own(n, &a, data.map(|d| d.bytes))?;
                self.prctl(&a, data.map(|d| d.bytes))
            }
            nr::SIGALTSTACK => Ok(0),
            nr::GETPID => Ok(self.pid),
            nr::CLONE | nr::CLONE3 => Ok(0),
            nr::PWRITE64 => self.last_pid(a[0], data.map(|d| d.bytes)),
            nr::SET_TID_ADDRESS
            | nr::SET_ROBUST_LIST
            | nr::SET_TLS
            | nr::RSEQ
            | nr::SETPRIORITY
            | nr::SCHED_SETSCHEDULER
            | nr::RT_SIGQUEUEINFO
            | nr::RT_TGSIGQUEUEINFO => self.threads_own(n, &a, data.map(|d| d.bytes)),
            n => self.timers.call(n, &a, data).unwrap_or(Err(ENOSYS)),
        }
    }
    fn start(
        &mut self,
        n: u32,
        a: [u32; 6],
        data: Option<Data<'_>>,
        of: &Args<'_>,
        row: usize,
    ) -> Res {
        self.call(n, a, data)?;
        self.new_thread(n, a, data, of, row)
    }
    fn expect_threads(&mut self, others: usize) -> Res {
        self.expected = others;
        Ok(0)
    }
    fn meet(&mut self, args: &Args<'_>, stage: Stage) -> Result<(), Stop> {
        self.meet_threads(args, stage)
    }
    fn progress(&mut self, _progress: Progress) {
        assert!(!self.entering, "progress is shown after the area is gone");
    }
    fn place_frame(&mut self, t: &ThreadArgs) {
        self.frame_goes(t);
        self.placed.insert(t.tid);
    }
    fn gate(&mut self, time: u32, spins: bool) {
        self.ready = time == 2;
        for nr in [nr::FUTEX, nr::POLL].into_iter().filter(|_| !spins) {
            // A filter that judges it panics there.
            self.identity(nr, &[0; 6], None);
        }
    }
    fn step(&mut self, step: Step) {
        assert!(step > self.step, "step {step:?} after {:?}", self.step);
        self.step = step;
    }
}
