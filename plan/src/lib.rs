//! The pure decisions of a restore: [`plan()`] turns a checked [`Checkpoint`] and the facts of a [`Machine`] into a
//! [`Plan`], or into everything that cannot be restored, at once. Nothing here makes a system call.
//!
//! Where to look: `space` finds room, `shm` decides SysV attachments, `memory` the mappings and batches, `vdso` patches
//! a foreign vdso, `refuse` names what is not supported, `args` lays the result out as bytes.

pub mod args;
pub mod clocks;
pub mod consts;
pub mod creds;
pub mod files;
pub mod finish;
pub mod forest;
mod identity;
pub mod inherit;
pub mod ipc;
pub mod kernel_pages;
pub mod late;
pub mod lazy;
pub mod machine;
pub mod memory;
pub mod mm;
pub mod model;
pub mod needs;
pub mod record;
mod records;
mod refuse;
pub mod seccomp;
pub mod shm;
pub mod sockets;
pub mod space;
pub mod special;
pub mod tables;
pub mod terminals;
pub mod threads;
pub mod timers;
pub mod tree;
pub mod types;
pub mod vdso;
mod whole;
pub mod words;

pub use machine::{HugePages, Machine, MapRange, OwnMap, Rights};
pub use types::*;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;

use armrest_abi::{MmMap, PAGE_SIZE, Range, Rseq, want};
use armrest_arch::{AltStack, Regs, Vfp, sigframe};
use armrest_images::{Checkpoint, LiveTask, PageRun, Task, Thread, Vma, VmaKind};
use inherit::Kept;
use kernel_pages::{KernelPages, Vdso};
use memory::Sources;
use space::{Space, page_up};
use whole::{Made, Whole};

/// A gap between our own mappings at which the unmapping is cut in two.
const WIDE_GAP: u32 = 16 << 20;
/// The most cuts.
const MOST_CUTS: usize = 16;

/// `usize` as the ABI's `u32`; tables never have 2^32 rows, because a checked checkpoint cannot.
pub(crate) fn u32_of(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Decide everything about restoring the first task of `cp` on `machine`.
///
/// # Errors
/// All refusals at once; nothing has been touched.
pub fn plan(cp: &Checkpoint, machine: &Machine, options: &Options) -> Result<Plan, Refusals> {
    let mut refuse = Vec::new();
    let whole = Whole::new(cp, machine, options, &mut refuse);
    let sketch = sketch(&whole, 0, whole.above, &mut refuse);
    match sketch {
        Some(sketch) if refuse.is_empty() => {
            let room = sketch.room().map_err(|none| Refusals(vec![none]))?;
            sketch.finish(room, machine, &whole.made())
        }
        _ => Err(Refusals(refuse)),
    }
}

/// Decide about one task of the checkpoint all that does not depend on where its area lies; `None` if it cannot be, and
/// then `refuse` says why. Its helper descriptors have numbers from `above` on.
fn sketch<'a>(
    whole: &'a Whole<'a>,
    task: usize,
    above: u32,
    refuse: &mut Vec<Refusal>,
) -> Option<Sketch<'a>> {
    let before = refuse.len();
    let (cp, machine, options) = (whole.cp, whole.machine, whole.options);
    refuse::unsupported(cp, task, refuse);
    let index = task;
    let task = cp.tasks.get(index)?;
    let live = task.live.as_ref()?;
    threads::refuse(live, machine, refuse);
    refuse::numbers(live, refuse);
    special::refuse(live, machine, refuse);
    files::refuse(whole, index, live, refuse);
    refuse.extend(files::rights(cp, live, machine));
    let identities = identity::identities(cp, live, machine, options, refuse);
    refuse::cpu(&live.mm.auxv, live.mm.platform.as_deref(), machine, refuse);
    timers::refuse(task.pid, live, machine, options, refuse);
    if refuse.len() > before {
        return None;
    }
    let draft = Draft {
        whole,
        cp,
        index,
        live,
        machine,
        notes: identities.notes.clone(),
        warnings: Vec::new(),
        sources: Vec::new(),
        // Above all that tasks have of their own.
        next_fd: above.max(3),
        kernel: KernelPages::default(),
        by_source: BTreeMap::new(),
    };
    draft.sketch(task, options, identities, refuse)
}

/// A plan being drawn.
struct Draft<'a> {
    whole: &'a Whole<'a>,
    cp: &'a Checkpoint,
    /// Index of the task.
    index: usize,
    live: &'a LiveTask,
    machine: &'a Machine,
    notes: Vec<String>,
    warnings: Vec<String>,
    sources: Vec<Source>,
    next_fd: u32,
    kernel: KernelPages,
    by_source: BTreeMap<SourceKind, u32>,
}

/// A plan without the places: how much room its area takes is known.
struct Sketch<'a> {
    draft: Draft<'a>,
    tables: Tables,
    /// Where room for the area can be, the better place first.
    spaces: [Space; 2],
    frames: Vec<Vec<u8>>,
    lazy: u64,
    want: u32,
    report_fd: u32,
    last_pid_fd: Option<u32>,
    /// Where each thread's signal frame can go.
    leaves: Vec<Option<u32>>,
    exit: Exit,
    traced: bool,
    /// Bytes for the arguments.
    args: u32,
    /// Bytes for the whole area.
    len: u32,
}

impl Sources for Draft<'_> {
    fn backing(&self, v: &Vma) -> Option<u32> {
        self.by_source.get(&self.source_of(v)?).copied()
    }

    fn pages_fd(&self, file: usize) -> u32 {
        self.sources
            .iter()
            .find(|s| s.what == SourceKind::Pages(file))
            .map_or(u32::MAX, |s| s.fd)
    }
}

/// Which source a VMA maps; `None` for anonymous memory.
fn source_of(v: &Vma, anon_sizes: &BTreeMap<u64, u64>) -> Option<SourceKind> {
    match v.kind {
        VmaKind::File { file } => {
            // A dumper that does not record the mode opened what is shared and writable for both.
            let assumed = if v.shared && v.prot & consts::PROT_WRITE != 0 {
                2
            } else {
                0
            };
            Some(SourceKind::File {
                file,
                access: v.access.unwrap_or(assumed),
            })
        }
        VmaKind::Memfd { inode, .. } => Some(SourceKind::Memfd { inode }),
        VmaKind::AnonShared { shmid } => Some(SourceKind::AnonShared {
            shmid,
            size: anon_sizes.get(&shmid).copied().unwrap_or(0),
        }),
        _ => None,
    }
}

impl<'a> Draft<'a> {
    fn source_of(&self, v: &Vma) -> Option<SourceKind> {
        source_of(v, &self.whole.anon_sizes)
    }

    fn source(&mut self, what: SourceKind) -> u32 {
        if let Some(fd) = self.by_source.get(&what) {
            return *fd;
        }
        let fd = self.next_fd;
        self.next_fd += 1;
        self.by_source.insert(what.clone(), fd);
        self.sources.push(Source { fd, what });
        fd
    }

    /// All that does not depend on where the area lies; `None` if it cannot be.
    fn sketch(
        mut self,
        task: &Task,
        options: &Options,
        identities: identity::Identities,
        refuse: &mut Vec<Refusal>,
    ) -> Option<Sketch<'a>> {
        let before = refuse.len();
        let live = self.live;
        let vmas = &live.mm.vmas;
        let mut tables = Tables::default();
        self.bounds(vmas, refuse);

        let report_fd = self.next_fd;
        self.next_fd += 1;

        let (mut roomy, mut hard) = self.spaces();
        self.kernel = kernel_pages::plan_kernel_pages(live, self.machine, &hard, &roomy);
        for space in [&mut roomy, &mut hard] {
            space.take(self.kernel.parking.unwrap_or(Range { start: 0, end: 0 }));
        }
        self.notes.append(&mut self.kernel.notes);
        tables.parks.clone_from(&self.kernel.parks);
        tables.unparks.clone_from(&self.kernel.unparks);
        let (runs, overlay) = self.contents(refuse);
        let kept = self.kept().iter().map(|k| inherit::range(&vmas[k.vma]));
        let runs = inherit::cut(runs, &kept.collect::<Vec<_>>());
        for v in vmas {
            if let Some(s) = self.source_of(v) {
                self.source(s);
            }
        }
        let mut files: Vec<usize> = runs.iter().map(|r| r.file).collect();
        files.dedup();
        files.sort_unstable();
        files.dedup();
        for f in files {
            self.source(SourceKind::Pages(f));
        }
        let mut filled = memory::filled(vmas, &live.pages);
        let (runs, lazy) = if options.lazy {
            lazy::divide(vmas, &live.mm.guards, &runs)
        } else {
            (runs, Vec::new())
        };
        for i in lazy.iter().map(|m| m.vma) {
            filled[i] = memory::reads_into(&vmas[i], &runs);
        }
        if options.lazy {
            self.notes.push(lazy::note(&lazy, &self.cp.pages_files));
        }
        let kept = |i: usize| self.kept().binary_search_by_key(&i, |k| k.vma).is_ok();
        let comes = |i: usize| self.kernel.moved.contains(&i) || kept(i);
        memory::plan_maps(vmas, &filled, &comes, &self, &lazy, &mut tables);
        memory::plan_kept(vmas, self.kept(), &mut tables);
        memory::plan_fill(&runs, &|f| self.pages_fd(f), &mut tables);
        if let Some((bytes, run)) = overlay {
            let fd = self.source(SourceKind::Overlay(bytes));
            memory::plan_fill(&[run], &|_| fd, &mut tables);
        }
        let known = |advice: u32| self.machine.madvise.contains(&advice);
        let lost = memory::plan_advice(vmas, &known, &mut tables);
        self.notes.extend(lost);
        special::plan_guards(live, &mut tables);
        let forbidden = |n: u32| identities.forbidden.contains(&n);
        let frames: Vec<Vec<u8>> = live.threads.iter().map(frame).collect();
        let (tid_bits, last_pid_fd) = self.tids(options);
        let timer_bits = timers::plan(live, self.machine, &mut tables, &mut self.notes);
        let leaves = threads::exit_frames(live);
        let asked = finish::Asked {
            room: leaves.iter().all(Option::is_some),
            traced: self.whole.traced.get() || finish::stops(task).is_some(),
        };
        let exit = finish::decide(live, self.machine, &self.kernel, asked, options, &forbidden)
            .unwrap_or_else(|no| {
                refuse.push(no);
                Exit::Page("")
            });
        let traced = asked.traced || options.leave_stopped || matches!(exit, Exit::Ptrace(_));
        threads::rows(task, live, self.machine, traced, &mut tables);
        identities.place(&mut tables);
        let locks = self.whole.held.locks.get(&task.pid).into_iter().flatten();
        let ours = locks.filter(|l| !files::given_at(self.whole, l));
        records::plan(ours.copied(), &mut tables);

        // Room for the area: its tables still lack the rows of shm, unmap and closes, so those are counted first.
        let extra = vmas.len() * 64
            + cp_attach_bytes(self.cp, vmas)
            + 64 * 16
            + self.sources.len() * 4
            + 4096;
        let args = page_up(args::size(&tables, &live.mm.auxv, &frames) + extra as u64);
        let Some((args, len)) = args.and_then(|a| Some((a, self.area_len(options.blob, a)?)))
        else {
            refuse.push(no_room());
            return None;
        };
        (refuse.len() == before).then_some(Sketch {
            draft: self,
            tables,
            spaces: [roomy, hard],
            frames,
            lazy: lazy.iter().map(|m| u64::from(m.len / PAGE_SIZE)).sum(),
            want: timer_bits | tid_bits,
            report_fd,
            last_pid_fd,
            leaves,
            exit,
            traced,
            args,
            len,
        })
    }

    /// Target VMAs must fit this kernel's address space.
    fn bounds(&self, vmas: &[Vma], refuse: &mut Vec<Refusal>) {
        for v in vmas.iter().filter(|v| v.kind != VmaKind::Vectors) {
            let name = || vma_name(self.cp, v);
            if v.range.end() > self.machine.task_size {
                refuse.push(Refusal {
                    kind: RefusalKind::Machine,
                    what: format!(
                        "{} lies above this kernel's task size {:08x}",
                        name(),
                        self.machine.task_size
                    ),
                    hint: "restore on a kernel with the user/kernel split of the checkpoint".into(),
                });
            }
            if v.range.start() < self.machine.mmap_min_addr && self.machine.euid != 0 {
                refuse.push(Refusal {
                    kind: RefusalKind::Machine,
                    what: format!(
                        "{} lies below vm.mmap_min_addr {:#x}",
                        name(),
                        self.machine.mmap_min_addr
                    ),
                    hint: "lower the sysctl vm.mmap_min_addr, or restore as root".into(),
                });
            }
        }
    }

    /// Page runs that are read as they are, and the bytes of a patched vdso with their place.
    fn contents(
        &mut self,
        refuse: &mut Vec<Refusal>,
    ) -> (Vec<PageRun>, Option<(Vec<u8>, PageRun)>) {
        let vmas = &self.live.mm.vmas;
        // What the kernel's own pages bring along is not read.
        let moved = self.kernel.moved.iter();
        let moved = inherit::joined(moved.map(|i| inherit::range(&vmas[*i])).collect());
        let runs = inherit::cut(self.live.pages.runs.clone(), &moved);
        let vdso = vmas.iter().find(|v| v.kind == VmaKind::Vdso);
        if let Some(v) = vdso.filter(|_| self.machine.vdso != self.live.mm.vdso) {
            for t in self.live.threads.iter().filter(|t| v.range.has(t.regs[15])) {
                // In the middle of a function that is another here.
                refuse.push(Refusal {
                    kind: RefusalKind::Machine,
                    what: format!(
                        "tid {}: it was inside the vdso at the dump ({:08x}), and this kernel has another",
                        t.tid, t.regs[15]
                    ),
                    hint: "make another checkpoint, or restore on the kernel that this one was made on".into(),
                });
            }
        }
        let Some(v) = vdso.filter(|_| self.kernel.vdso != Vdso::Moves) else {
            return (runs, None);
        };
        let real = match self.kernel.vdso {
            Vdso::Jumps(at) => self.machine.vdso.as_deref().map(|bytes| (bytes, at)),
            _ => None,
        };
        let elf = self.live.mm.vdso.as_deref();
        let Some(patched) = elf.and_then(|elf| vdso::patched(elf, real)) else {
            // Left as it is, it would read the clock from a page of zeros.
            refuse.push(Refusal {
                kind: RefusalKind::Unsupported,
                what: format!("{}: its functions cannot be found", vma_name(self.cp, v)),
                hint: "restore on the kernel that the checkpoint was made on".into(),
            });
            return (runs, None);
        };
        self.notes.push(patched.note());
        let cut = inherit::cut(runs, &[inherit::range(v)]);
        let run = PageRun {
            addr: u64::from(v.range.start()),
            pages: v.range.pages(),
            file: 0,
            offset: 0,
        };
        (cut, Some((patched.bytes, run)))
    }

    /// What is taken by targets and by our own mappings: with elbow room for growing stacks and heaps, and without.
    fn spaces(&self) -> (Space, Space) {
        let low = self.machine.mmap_min_addr.max(0x1_0000);
        let mut hard = Space::new(low, self.machine.task_size);
        for m in &self.machine.maps {
            hard.take(m.range.into());
        }
        for v in &self.live.mm.vmas {
            // The kernel keeps a guard gap of 256 pages below a growing stack.
            let below = if v.grows_down { 257 * PAGE_SIZE } else { 0 };
            hard.take(Range {
                start: v.range.start().saturating_sub(below),
                end: v.range.end(),
            });
        }
        if let Some(parking) = self.kernel.parking {
            hard.take(parking);
        }
        for a in shm::attachments(self.cp, &self.live.mm.vmas) {
            hard.take(Range {
                start: a.base,
                end: a.base.saturating_add(a.len),
            });
        }
        let mut soft = hard.clone();
        for v in &self.live.mm.vmas {
            if v.grows_down {
                soft.take(Range {
                    start: v.range.start().saturating_sub(16 << 20),
                    end: v.range.end(),
                });
            } else if v.heap {
                soft.take(Range {
                    start: v.range.start(),
                    end: v.range.end().saturating_add(64 << 20),
                });
            }
        }
        (soft, hard)
    }

    /// How long the area is, with so many bytes of arguments.
    fn area_len(&self, blob: BlobSizes, args: u32) -> Option<u32> {
        [
            blob.rx,
            blob.rw,
            page_up(u64::from(blob.stack))?,
            page_up(u64::from(blob.heap))?,
            page_up(self.stacks(blob))?,
            args,
            PAGE_SIZE,
            self.gate(),
        ]
        .into_iter()
        .try_fold(0u32, u32::checked_add)
    }

    /// Bytes of the page that all tasks share that wait for each other, or for the harness.
    fn gate(&self) -> u32 {
        if self.whole.gated() { PAGE_SIZE } else { 0 }
    }

    /// Bytes of the stacks of threads.
    fn stacks(&self, blob: BlobSizes) -> u64 {
        self.live.threads.len().saturating_sub(1) as u64 * u64::from(blob.thread_stack)
    }

    /// The parts of the area, in `all`.
    fn area(&self, all: Range, args: u32) -> Option<Area> {
        let blob = self.whole.options.blob;
        let mut at = all.start;
        let mut next = |len: u32| {
            let r = Range {
                start: at,
                end: at + len,
            };
            at = r.end;
            r
        };
        let rx = next(blob.rx);
        Some(Area {
            all,
            keep: Range {
                start: rx.start,
                end: rx.start + PAGE_SIZE,
            },
            rx,
            rw: next(blob.rw),
            stack: next(page_up(u64::from(blob.stack))?),
            heap: next(page_up(u64::from(blob.heap))?),
            threads: next(page_up(self.stacks(blob))?),
            args: next(args),
            progress: next(PAGE_SIZE),
            gate: next(self.gate()),
        })
    }

    /// What the task holds from before the blob.
    fn kept(&self) -> &[Kept] {
        self.whole.inherited.kept(self.index)
    }

    /// Ranges that must survive the unmap: the kernel's own pages, and what the task holds.
    fn own_kept(&self) -> Vec<Range> {
        self.kernel
            .parking
            .iter()
            .chain(&self.kernel.in_place)
            .copied()
            .chain(self.kept().iter().map(Kept::range))
            .collect()
    }

    /// What is taken while attachments are made: old memory is gone, and other memory of the checkpoint is yet to come.
    fn before_other_memory(&self, area: &Area) -> Space {
        let low = self.machine.mmap_min_addr.max(0x1_0000);
        let mut space = Space::new(low, self.machine.task_size);
        space.take(area.all);
        for r in self.own_kept() {
            space.take(r);
        }
        for a in shm::attachments(self.cp, &self.live.mm.vmas) {
            space.take(Range {
                start: a.base,
                end: a.base.saturating_add(a.len),
            });
        }
        space
    }

    /// Everything below the end of the highest mapping of ours, without the area and without `[vectors]`.
    fn unmaps(&self, area: &Area) -> Vec<Range> {
        let ours = |m: &&OwnMap| m.range.start < 0xffff_0000;
        let top = self
            .machine
            .maps
            .iter()
            .filter(ours)
            .map(|m| m.range.end)
            .max()
            .unwrap_or(0)
            .max(area.all.end);
        let whole = space::uncovered(
            Range {
                start: 0,
                // An emulator's own allocations may lie above what we saw; `[vectors]` must stay.
                end: if self.machine.emulated {
                    self.machine.task_size.min(0xffff_0000)
                } else {
                    top.min(self.machine.task_size)
                },
            },
            &[&[area.all][..], &self.own_kept()].concat(),
        );
        if self.machine.emulated {
            return whole;
        }
        // ARM kernels seem to flush the TLB page by page from the first to the last mapping of a munmap: 0.26 s in QEMU
        // for the 124 MiB from program to stack, 0.7 ms when cut there. So the ranges are cut where ours has wide
        // gaps; together they stay the same.
        let mut starts: Vec<u32> = Vec::new();
        let mut end = 0;
        let mut maps: Vec<Range> = self
            .machine
            .maps
            .iter()
            .filter(ours)
            .map(|m| m.range.into())
            .collect();
        maps.sort_by_key(|m| m.start);
        for m in maps {
            let gap = m.start.saturating_sub(end);
            if gap >= WIDE_GAP && starts.len() < MOST_CUTS {
                // What this program maps from here on lies at the upper end of the gap, if not at the lower.
                starts.extend([end + ((gap / 2) & !(PAGE_SIZE - 1)), m.start]);
            }
            end = end.max(m.end);
        }
        whole
            .into_iter()
            .flat_map(|range| {
                let mut at = range.start;
                let mut cut = Vec::new();
                for &start in starts.iter().filter(|&&s| range.start < s && s < range.end) {
                    cut.push(Range {
                        start: at,
                        end: start,
                    });
                    at = start;
                }
                cut.push(Range {
                    start: at,
                    end: range.end,
                });
                cut
            })
            .collect()
    }

    /// Refuse before ENOMEM would strike in the middle: targets, ours, and what splits need at the worst moment.
    fn count_maps(&self, tables: &Tables, refuse: &mut Vec<Refusal>) {
        let special = self
            .live
            .mm
            .vmas
            .iter()
            .filter(|v| matches!(v.kind, VmaKind::SysV { .. }))
            .count();
        let need = self.live.mm.vmas.len().max(tables.maps.len() + special) + 8 + 3;
        let max = self.machine.max_map_count as usize;
        if need > max {
            refuse.push(Refusal {
                kind: RefusalKind::Machine,
                what: format!("{need} mappings are needed (targets, ours and splits), vm.max_map_count allows {max}"),
                hint: format!("sysctl -w vm.max_map_count={}", need.next_multiple_of(1024)),
            });
        }
    }

    /// The kernel's mm fields can be set in one way or the other.
    fn sets_mm(&self) -> bool {
        mm::way(self.live, self.machine) != 0
    }

    fn wants(&self) -> u32 {
        let m = self.machine;
        let mut w = 0;
        if m.own_rseq.is_some() {
            w |= want::OLD_RSEQ;
        }
        if m.has_robust_list {
            w |= want::OLD_ROBUST;
        }
        w |= mm::way(self.live, m);
        if self.live.mm.thp_disabled && m.has_thp_disable {
            w |= want::THP_DISABLE;
        }
        if self.whole.gated() {
            w |= want::GATE;
        }
        w
    }

    /// How threads get their ids.
    fn tids(&mut self, options: &Options) -> (u32, Option<u32>) {
        if self.live.threads.len() < 2 {
            (0, None)
        } else if options.any_pid {
            self.notes.push(
                "threads have ids that the kernel gave: what the program keeps of them is wrong"
                    .into(),
            );
            (0, None)
        } else if self.machine.has_set_tid {
            (want::SET_TID, None)
        } else {
            (want::LAST_PID, Some(self.source(SourceKind::LastPid)))
        }
    }

    /// Without the kernel's mm fields: our own break is moved to the checkpoint's, if nothing of ours is in the way.
    fn grow_brk(&self) -> Option<u32> {
        let (m, brk) = (self.machine, self.live.mm.fields[5]);
        let between = Range {
            start: m.own_brk,
            end: brk,
        };
        let free = !m
            .maps
            .iter()
            // Our own heap begins below its break; that it reaches a page beyond says only that it shrank since.
            .any(|o| o.range.start >= m.own_brk && Range::from(o.range).overlaps(between));
        (!self.sets_mm() && m.own_brk > 0 && brk >= m.own_brk && free).then_some(brk)
    }

    /// What this kernel lacks and the checkpoint had: said, never hidden.
    fn say_what_is_missing(&mut self) {
        let m = self.machine;
        let threads = &self.live.threads;
        let mut lost = Vec::new();
        if threads.iter().any(|t| t.robust.1 != 0) && !m.has_robust_list {
            lost.push("the robust futex list");
        }
        if threads.iter().any(|t| t.rseq.is_some_and(|r| r.0 != 0)) && !m.has_rseq {
            lost.push("the rseq registration");
        }
        if !self.sets_mm() {
            lost.push("the kernel's mm fields (PR_SET_MM_MAP)");
        }
        if !lost.is_empty() {
            self.notes
                .push(format!("not here, so left out: {}", lost.join(", ")));
        }
        if mm::way(self.live, m) == want::MM_SINGLES {
            self.notes
                .push("the kernel's mm fields are set one by one (no PR_SET_MM_MAP)".into());
        }
        if !self.sets_mm() && self.grow_brk().is_none() {
            let brk = self.live.mm.fields[5];
            let state = if brk < m.own_brk {
                "sbrk() would return memory that is not mapped"
            } else {
                "sbrk() does not continue the heap"
            };
            self.notes.push(format!(
                "the break {brk:08x} cannot be set here: after the restore {state}"
            ));
        }
    }
}

impl Sketch<'_> {
    /// Room for the area of a task that is alone.
    fn room(&self) -> Result<Range, Refusal> {
        let mut spaces = self.spaces.iter();
        spaces
            .find_map(|s| s.find(self.len, PAGE_SIZE))
            .ok_or_else(no_room)
    }

    /// The first number above all its helper descriptors; the executable's is given out later.
    fn helpers_end(&self) -> u32 {
        self.draft.next_fd + u32::from(self.draft.sets_mm())
    }

    /// The plan with its area in `room`. `machine` is as the task finds it, others' areas included.
    fn finish(self, room: Range, machine: &Machine, made: &Made) -> Result<Plan, Refusals> {
        let Sketch {
            mut draft,
            mut tables,
            exit,
            leaves,
            ..
        } = self;
        draft.machine = machine;
        let (live, options) = (draft.live, draft.whole.options);
        let vmas = &live.mm.vmas;
        let mut refuse = Vec::new();
        let area = draft
            .area(room, self.args)
            .ok_or_else(|| Refusals(vec![no_room()]))?;
        // Nothing but the places of attachments depends on it.
        let mut space = match draft.cp.segments.is_empty() {
            true => Space::new(0, 0),
            false => draft.spaces().1,
        };
        space.take(area.all);
        let facts = shm::ShmFacts {
            space: &space,
            tight: &draft.before_other_memory(&area),
            vmas,
            task_size: draft.machine.task_size,
            own: &[&[area.all][..], &draft.own_kept()].concat(),
            may_ask: &|base| base.is_multiple_of(consts::SHMLBA) || !draft.machine.shmlba_enforced,
            cache_aliases: draft.machine.cache_aliases,
            shmlba_enforced: draft.machine.shmlba_enforced,
        };
        let shm_plan = shm::plan_shm(draft.cp, &facts, &mut tables, &mut refuse);
        shm::protects(&shm_plan.attached, vmas, &mut tables);
        // From the top down, as they are mapped: a kernel splits mappings cheapest that way.
        tables.protects.sort_by_key(|p| Reverse(p.start));
        draft.warnings.extend(shm_plan.warnings);
        tables.unmaps = draft.unmaps(&area);
        draft.count_maps(&tables, &mut refuse);

        let exe_fd = if draft.sets_mm() {
            Some(draft.source(SourceKind::Exe { file: live.mm.exe }))
        } else {
            None
        };
        tables.closes = draft.sources.iter().map(|s| s.fd).collect();
        let mut want_bits = draft.wants() | self.want;
        tables.threads[0].frame = area.keep.start + armrest_abi::FRAME_OFFSET;
        threads::stacks(&mut tables.threads, area.threads, options.blob.thread_stack);
        draft.say_what_is_missing();
        let grow_brk = draft.grow_brk();
        threads::leave(&mut tables.threads, &leaves, exit, &mut refuse);
        let dumpable = live.mm.dumpable.unwrap_or(1);
        want_bits |= want::DUMPABLE;
        if dumpable >= 2 {
            draft
                .notes
                .push("dumpable 2 cannot be set by a program: it is 0".into());
        }
        if !refuse.is_empty() {
            return Err(Refusals(refuse));
        }
        let pages = live.pages.runs.iter().map(|r| u64::from(r.pages)).sum();
        // What is true of the whole is said once.
        if draft.index == 0 {
            draft.notes.extend(made.notes());
            draft.notes.extend(draft.whole.inherited.notes.clone());
        }
        let legacy = draft.whole.inherited.tasks.get(&draft.index);
        let legacy = legacy.cloned().unwrap_or_default();
        draft.notes.extend(legacy.note());
        Ok(Plan {
            task: draft.index,
            ipc: Rc::clone(&made.ipc),
            area,
            scratch: shm_plan.scratch.into_iter().collect(),
            tables,
            want: want_bits,
            old_rseq: draft
                .machine
                .own_rseq
                .map_or(Rseq::default(), |(addr, len, sig)| Rseq { addr, len, sig }),
            dumpable: if dumpable == 1 { 1 } else { 0 },
            mm: mm_map(&live.mm.fields, exe_fd),
            auxv: live.mm.auxv.clone(),
            frames: self.frames,
            last_pid_fd: self.last_pid_fd,
            report_fd: self.report_fd,
            sources: draft.sources,
            files: Rc::clone(&made.files),
            clocks: made.clocks,
            grow_brk,
            exit,
            stay: draft.kernel.stay,
            traced: self.traced,
            stop: draft.cp.tasks.get(draft.index).and_then(finish::stops),
            pages,
            lazy: self.lazy,
            legacy,
            notes: draft.notes,
            warnings: draft.warnings,
        })
    }
}

fn no_room() -> Refusal {
    Refusal {
        kind: RefusalKind::Machine,
        what: "no free range for the bootstrap area".into(),
        hint: "the checkpoint and this program fill the address space".into(),
    }
}

/// Bytes that the rows of attaches, pieces and holes can need at most.
fn cp_attach_bytes(cp: &Checkpoint, vmas: &[Vma]) -> usize {
    shm::attachments(cp, vmas)
        .iter()
        .map(|a| 36 + (16 + 8) * (a.vmas.len() + 1))
        .sum::<usize>()
        + cp.segments.len() * 8
}

fn mm_map(f: &[u32; 11], exe_fd: Option<u32>) -> MmMap {
    let at = |i: usize| u64::from(f[i]);
    MmMap {
        start_code: at(0),
        end_code: at(1),
        start_data: at(2),
        end_data: at(3),
        start_brk: at(4),
        brk: at(5),
        start_stack: at(6),
        arg_start: at(7),
        arg_end: at(8),
        env_start: at(9),
        env_end: at(10),
        auxv: 0,
        auxv_size: 0,
        exe_fd: exe_fd.unwrap_or(u32::MAX),
        pad: 0,
    }
}

fn frame(t: &Thread) -> Vec<u8> {
    let mut r = [0; 16];
    r.copy_from_slice(&t.regs[..16]);
    r[15] = threads::goes_on_at(t);
    let alt = t
        .altstack
        .map_or(AltStack::NONE, |(sp, size, flags)| AltStack {
            sp,
            size,
            flags,
        });
    sigframe(
        &Regs {
            r,
            cpsr: t.regs[16],
        },
        &Vfp {
            d: t.vfp,
            fpscr: t.fpscr,
        },
        t.sigmask,
        alt,
    )
    .to_vec()
}

/// A VMA in the words of an error message, e.g. `VMA b6e03000-b6e05000 r--s SysV segment 5+0x0`.
pub fn vma_name(cp: &Checkpoint, v: &Vma) -> String {
    let bit = |b: u32, c: char| if v.prot & b != 0 { c } else { '-' };
    let has_offset = matches!(
        v.kind,
        VmaKind::File { .. } | VmaKind::Memfd { .. } | VmaKind::SysV { .. }
    );
    let offset = if has_offset {
        format!("+{:#x}", v.offset)
    } else {
        String::new()
    };
    format!(
        "VMA {:08x}-{:08x} {}{}{}{} {}{offset}",
        v.range.start(),
        v.range.end(),
        bit(1, 'r'),
        bit(2, 'w'),
        bit(4, 'x'),
        if v.shared { 's' } else { 'p' },
        vma_what(cp, v),
    )
}

/// What a VMA is, without its offset.
fn vma_what(cp: &Checkpoint, v: &Vma) -> String {
    match v.kind {
        VmaKind::Anon if v.grows_down => "[stack]".into(),
        VmaKind::Anon if v.heap => "[heap]".into(),
        VmaKind::Anon => "anonymous".into(),
        VmaKind::Sigpage => "[sigpage]".into(),
        VmaKind::Vdso => "[vdso]".into(),
        VmaKind::Vvar => "[vvar]".into(),
        VmaKind::Vectors => "[vectors]".into(),
        VmaKind::File { file } => match cp.files.get(&file) {
            Some(armrest_images::File::Reg(r)) => r.path.clone(),
            _ => format!("file {file}"),
        },
        VmaKind::Memfd { inode, .. } => match cp.memfds.get(&inode) {
            Some(m) => format!("memfd {}", m.name),
            None => format!("memfd {inode}"),
        },
        VmaKind::AnonShared { .. } => "anonymous shared".into(),
        VmaKind::SysV { shmid } => format!("SysV segment {shmid}"),
        VmaKind::Socket => "packet socket".into(),
        VmaKind::AioRing => "AIO ring".into(),
        VmaKind::Plugin => "plugin".into(),
    }
}
