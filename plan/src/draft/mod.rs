//! The plan of one task: all that does not depend on where its area lies ([`sketch`]), and then the rest.

mod fields;
mod placed;
mod room;

use std::collections::BTreeMap;

use armrest_abi::{PAGE_SIZE, Range, want};
use armrest_images::{Checkpoint, LiveTask, PageRun, Task, Vma, VmaKind};

use crate::inherit::Kept;
use crate::kernel_pages::{KernelPages, Vdso};
use crate::machine::Machine;
use crate::memory::Sources;
use crate::space::{Space, page_up};
use crate::types::{Exit, Options, Refusal, RefusalKind, Source, SourceKind, Tables};
use crate::whole::Whole;
use crate::{
    args, consts, files, finish, identity, inherit, kernel_pages, lazy, memory, records, refuse,
    shm, special, threads, timers, vdso, vma_name,
};
use room::no_room;

/// Decide about one task of the checkpoint all that does not depend on where its area lies; `None` if it cannot be, and
/// then `refuse` says why. Its helper descriptors have numbers from `above` on.
pub(crate) fn sketch<'a>(
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
pub(crate) struct Draft<'a> {
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
    pub kernel: KernelPages,
    by_source: BTreeMap<SourceKind, u32>,
}

/// A plan without the places: how much room its area takes is known.
pub(crate) struct Sketch<'a> {
    pub draft: Draft<'a>,
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
    pub traced: bool,
    /// Bytes for the arguments.
    args: u32,
    /// Bytes for the whole area.
    pub len: u32,
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
                access: v.access.map_or(assumed, u32::from),
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
        let ours = self.own_space();
        self.kernel =
            kernel_pages::plan_kernel_pages(live, self.machine, (&hard, &roomy), ours.as_ref());
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
        let of_one = runs.chunk_by(|a, b| a.file == b.file);
        let mut files: Vec<usize> = of_one.map(|runs| runs[0].file).collect();
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
        let moved = |i: usize| kernel_pages::is_one(vmas[i].kind) && self.kernel.moved.contains(&i);
        let comes = |i: usize| moved(i) || kept(i);
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
        let frames: Vec<Vec<u8>> = live.threads.iter().map(threads::frame).collect();
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
            want: timer_bits | tid_bits | if identities.spins { want::SPIN } else { 0 },
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

    /// What the task holds from before the blob.
    fn kept(&self) -> &[Kept] {
        self.whole.inherited.kept(self.index)
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
}

/// Bytes that the rows of attaches, pieces and holes can need at most.
fn cp_attach_bytes(cp: &Checkpoint, vmas: &[Vma]) -> usize {
    shm::attachments(cp, vmas)
        .iter()
        .map(|a| 36 + (16 + 8) * (a.vmas.len() + 1))
        .sum::<usize>()
        + cp.segments.len() * 8
}
