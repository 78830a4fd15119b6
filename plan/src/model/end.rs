//! The end of a restore, compared with the checkpoint: the map, VMA by VMA, and where every page came from.

use std::collections::{BTreeMap, BTreeSet};

use armrest_abi::{PAGE_SIZE, Range, ReportKind};
use armrest_blob::Stop;
use armrest_images::{Checkpoint, LiveTask, Thread, VmaKind};

use super::{KernelPage, Kind, Model, PAGE, Trouble, Written};
use crate::machine::Machine;
use crate::record::HostArgs;
use crate::shm;
use crate::types::{BlobSizes, Options, Plan, SourceKind};

/// What a mapping shows, in terms of the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Anon,
    File(u32),
    Memfd(u32),
    AnonShared(u64),
    SysV(i32),
    Kernel(KernelPage),
}

impl What {
    /// Nothing that has offsets.
    fn is_anon(self) -> bool {
        matches!(self, What::Anon | What::Kernel(_))
    }
}

/// Which of the kernel's own pages a VMA was.
fn kernel_page(kind: VmaKind) -> Option<KernelPage> {
    match kind {
        VmaKind::Sigpage => Some(KernelPage::Sigpage),
        VmaKind::Vvar => Some(KernelPage::Vvar),
        VmaKind::Vdso => Some(KernelPage::Vdso),
        _ => None,
    }
}

/// True if the kernel's own page took this place; else it is plain memory.
fn came(m: &Model, at: u32) -> bool {
    m.areas
        .get(&at)
        .is_some_and(|a| matches!(a.kind, Kind::Kernel(_)))
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
    huge: Option<u32>,
    locked: bool,
    advice: u64,
    read_only: bool,
}

fn join(out: &mut Vec<Shown>, next: Shown) {
    if let Some(last) = out.last_mut() {
        let pages = u64::from(last.range.len() / PAGE_SIZE);
        let follows = if last.what.is_anon() {
            0
        } else {
            last.page + pages
        };
        let grown = Shown {
            range: Range {
                start: last.range.start,
                end: next.range.end,
            },
            page: last.page,
            ..next
        };
        if last.range.end == next.range.start
            && next.page == follows
            && (Shown {
                range: grown.range,
                ..*last
            }) == grown
        {
            *last = grown;
            return;
        }
    }
    out.push(next);
}

/// The checkpoint's map.
fn wanted(cp: &Checkpoint, machine: &Machine, live: &LiveTask, m: &Model) -> Vec<Shown> {
    let vmas = &live.mm.vmas;
    let mut read_only: BTreeSet<usize> = BTreeSet::new();
    for a in shm::attachments(cp, vmas).iter().filter(|a| a.read_only) {
        read_only.extend(a.vmas.iter().copied());
    }
    let known = machine
        .madvise
        .iter()
        .filter(|a| **a < 64)
        .fold(0u64, |bits, a| bits | 1 << a);
    let mut out = Vec::new();
    for (i, v) in vmas
        .iter()
        .enumerate()
        .filter(|(_, v)| v.kind != VmaKind::Vectors)
    {
        let what = match v.kind {
            VmaKind::File { file } => What::File(file),
            VmaKind::Memfd { inode, .. } => What::Memfd(inode),
            VmaKind::AnonShared { shmid } => What::AnonShared(shmid),
            VmaKind::SysV { shmid } => What::SysV(i32::try_from(shmid).unwrap_or(-1)),
            kind => kernel_page(kind)
                .filter(|_| came(m, v.range.start()))
                .map_or(What::Anon, What::Kernel),
        };
        let sysv = matches!(what, What::SysV(_));
        let shown = Shown {
            range: Range {
                start: v.range.start(),
                end: v.range.end(),
            },
            what,
            page: if what.is_anon() { 0 } else { v.offset / PAGE },
            prot: v.prot,
            shared: v.shared || sysv,
            grows_down: v.grows_down && !sysv,
            noreserve: v.noreserve && !sysv,
            huge: v.hugetlb.map(|bits| {
                let default = machine.huge_pages.iter().find(|h| h.default);
                default
                    .filter(|_| bits == 0)
                    .map_or(bits.into(), |h| h.log2)
            }),
            // The kernel cannot be made to lock inaccessible SysV memory without an error: the plan says so.
            locked: v.locked && !(sysv && v.prot == 0),
            advice: u64::from(v.madv) & known,
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
        let range = Range {
            start: *start,
            end: a.end,
        };
        let (what, page) = match a.kind {
            Kind::Own | Kind::Old | Kind::Vectors => continue,
            Kind::Anon => (What::Anon, 0),
            // Only where the plan says.
            Kind::Kernel(_) if plan.stay.contains(&range) => continue,
            Kind::Kernel(page) => (What::Kernel(page), 0),
            Kind::Shm { id, page } => (What::SysV(id), page),
            Kind::File { fd, page } => {
                match plan.sources.iter().find(|s| s.fd == fd).map(|s| &s.what) {
                    Some(SourceKind::File { file, .. }) => (What::File(*file), page),
                    Some(SourceKind::Memfd { inode }) => (What::Memfd(*inode), page),
                    Some(SourceKind::AnonShared { shmid, .. }) => (What::AnonShared(*shmid), page),
                    // Pages that are not read but mapped: `lazily` looks at them.
                    Some(SourceKind::Pages(_)) if !a.shared => (What::Anon, 0),
                    other => panic!("{other:?} is mapped at {start:x}"),
                }
            }
        };
        let shown = Shown {
            range,
            what,
            page,
            prot: a.prot,
            shared: a.shared,
            grows_down: a.grows_down,
            noreserve: a.noreserve,
            huge: a.huge,
            locked: a.locked,
            advice: a.advice,
            read_only: matches!(a.kind, Kind::Shm { .. }) && !a.may_write,
        };
        join(&mut out, shown);
    }
    out
}

fn fd_of(plan: &Plan, want: &dyn Fn(&SourceKind) -> bool) -> Option<u32> {
    plan.sources.iter().find(|s| want(&s.what)).map(|s| s.fd)
}

/// The pages of the images: for each the file and offset that it comes from.
pub(super) fn of_images(live: &LiveTask, plan: &Plan) -> BTreeMap<u32, Written> {
    let mut out = BTreeMap::new();
    for run in &live.pages.runs {
        let fd = fd_of(plan, &|s| *s == SourceKind::Pages(run.file)).unwrap_or(u32::MAX);
        for i in 0..u64::from(run.pages) {
            put(&mut out, run.addr + i * PAGE, fd, run.offset + i * PAGE);
        }
    }
    out
}

fn put(out: &mut BTreeMap<u32, Written>, addr: u64, fd: u32, offset: u64) {
    let addr = u32::try_from(addr).unwrap_or_else(|_| panic!("page {addr:x}"));
    let bytes = PAGE_SIZE;
    out.insert(addr, Written { fd, offset, bytes });
}

/// The contents of the checkpoint.
fn wanted_pages(live: &LiveTask, plan: &Plan, m: &Model) -> BTreeMap<u32, Written> {
    let overlay = fd_of(plan, &|s| matches!(s, SourceKind::Overlay(_)));
    let vdso = live
        .mm
        .vmas
        .iter()
        .find(|v| v.kind == VmaKind::Vdso)
        .map(|v| v.range);
    let mut out = of_images(live, plan);
    if let (Some(fd), Some(r)) = (overlay, vdso) {
        for i in 0..u64::from(r.pages()) {
            put(&mut out, u64::from(r.start()) + i * PAGE, fd, i * PAGE);
        }
    }
    // What the kernel's own pages bring along is not read.
    for v in live
        .mm
        .vmas
        .iter()
        .filter(|v| kernel_page(v.kind).is_some())
    {
        if came(m, v.range.start()) {
            out.retain(|at, _| !v.range.has(*at));
        }
    }
    out
}

/// Contents that are private mappings of pages files.
fn lazily(m: &Model, cp: &Checkpoint, plan: &Plan) -> BTreeMap<u32, Written> {
    let mut out = BTreeMap::new();
    for (start, a) in &m.areas {
        let Kind::File { fd, page } = a.kind else {
            continue;
        };
        let source = plan.sources.iter().find(|s| s.fd == fd).map(|s| &s.what);
        let Some(SourceKind::Pages(file)) = source else {
            continue;
        };
        let size = cp.pages_files.get(*file).map_or(0, |f| f.size);
        for (addr, page) in (*start..a.end).step_by(4096).zip(page..) {
            assert!(
                (page + 1) * PAGE <= size,
                "{addr:x} is mapped from behind the end of its pages file"
            );
            let at = Written {
                fd,
                offset: page * PAGE,
                bytes: PAGE_SIZE,
            };
            out.insert(addr, at);
        }
    }
    assert_eq!(
        u64::try_from(out.len()),
        Ok(plan.lazy),
        "pages that are mapped from pages files, and those that the plan says"
    );
    out
}

/// Run the blob's steps on a model of `machine` and compare the end with the checkpoint.
///
/// # Errors
/// The kernel's refusal, if there was one.
///
/// # Panics
/// If a promise is broken; see the module's text.
pub fn prove(
    cp: &Checkpoint,
    machine: &Machine,
    plan: &Plan,
    trouble: Trouble,
) -> Result<Model, Stop> {
    let mut m = Model::new(cp, machine, plan, trouble);
    let host = HostArgs::of(plan).expect("the tables lie in the bytes of the restore-args");
    let entry = armrest_blob::restore(&mut m, &host.args(), &mut crate::record::heap())?;
    m.enter(&entry);
    let Some(live) = cp.tasks.get(plan.task).and_then(|t| t.live.as_ref()) else {
        return Ok(m);
    };
    identity(&m, cp, machine, live);
    assert!(
        m.replaced.is_empty(),
        "{:x?} landed on something that lived there",
        m.replaced
    );
    let (wanted, found) = (wanted(cp, machine, live, &m), found(&m, plan));
    if let Some((w, f)) = wanted.iter().zip(&found).find(|(w, f)| w != f) {
        panic!("the map differs:\nwanted {w:x?}\nfound  {f:x?}");
    }
    assert_eq!(
        wanted.len(),
        found.len(),
        "the map has another number of VMAs"
    );
    if crate::mm::way(live, machine) != 0 {
        assert_eq!(m.mm.fields, live.mm.fields, "the mm fields differ");
        assert!(m.mm.auxv && m.mm.exe, "auxv or exe is the old one's");
    }
    let guards: BTreeSet<u32> = live
        .mm
        .guards
        .iter()
        .flat_map(|g| (g.start()..g.end()).step_by(4096))
        .collect();
    assert_eq!(m.guards, guards, "the guard ranges differ");
    m.prove_threads(cp, machine, live, plan);
    let pages = wanted_pages(live, plan, &m);
    let mut have = lazily(&m, cp, plan);
    assert!(
        have.keys().all(|at| !m.written.contains_key(at)),
        "a page is mapped from its file and read too"
    );
    have.extend(m.written.iter().map(|(at, w)| (*at, *w)));
    if have != pages {
        let wrong = pages.iter().find(|(a, w)| have.get(a) != Some(w));
        let extra = have.iter().find(|(a, w)| pages.get(a) != Some(w));
        panic!("the contents differ: wanted {wrong:x?}, found {extra:x?}");
    }
    Ok(m)
}

/// Every thread is who it was; where not all rights are there, it has at least none that it had not.
fn identity(m: &Model, cp: &Checkpoint, machine: &Machine, live: &LiveTask) {
    for t in &live.threads {
        let who = m.who.get(&t.tid).unwrap_or(&m.first);
        if t.tid == live.threads[0].tid {
            of_process(who, live);
            assert_eq!(who.pdeath, t.pdeath, "parent-death signal");
        }
        of_thread(who, cp, machine, t, &live.threads[0]);
    }
}

fn of_process(who: &super::creds::Thread, live: &LiveTask) {
    let dumpable = u32::from(live.mm.dumpable.unwrap_or(1) == 1);
    assert_eq!(who.dumpable, dumpable, "dumpable");
    assert_eq!(who.membarrier, live.membarrier, "membarrier registrations");
}

fn of_thread(
    who: &super::creds::Thread,
    cp: &Checkpoint,
    machine: &Machine,
    t: &Thread,
    leader: &Thread,
) {
    assert_eq!(who.strict, t.seccomp.0 == 1, "seccomp's strict mode");
    let first = |t: &Thread| t.seccomp.1.filter(|_| t.seccomp.0 == 2);
    // The dumper writes a chain that all threads share with the leader alone.
    let shared = first(leader).filter(|f| {
        let chain = cp.filter_chain(*f);
        t.seccomp.0 == 0 && chain.iter().any(|f| f.flags & 1 != 0)
    });
    let chain = first(t).or(shared);
    let chain = chain.map_or(Vec::new(), |f| cp.filter_chain(f));
    assert!(
        who.filters.iter().eq(chain.iter().map(|f| &f.program)),
        "seccomp filters"
    );
    let Some(want) = &t.creds else {
        return;
    };
    let tid = t.tid;
    let is = &who.creds;
    for (name, is, was) in [
        ("effective", is.cap_eff, want.cap_eff),
        ("permitted", is.cap_prm, want.cap_prm),
        ("bounding", is.cap_bnd, want.cap_bnd),
        ("ambient", is.cap_amb, want.cap_amb),
    ] {
        assert_eq!(
            is & !was,
            0,
            "tid {tid}: {name} capabilities that it had not"
        );
    }
    assert!(
        is.no_new_privs || !want.no_new_privs,
        "no_new_privs is lost"
    );
    if machine.own == crate::machine::Rights::root() {
        let known = (1u64 << 41) - 1;
        let mut want = want.clone();
        want.groups.sort_unstable();
        want.lsm_profile = None;
        for set in [
            &mut want.cap_inh,
            &mut want.cap_prm,
            &mut want.cap_eff,
            &mut want.cap_bnd,
            &mut want.cap_amb,
        ] {
            *set &= known;
        }
        want.no_new_privs |= shared.is_some();
        assert_eq!(*is, want, "tid {tid}: credentials");
    }
}

/// What a fuzzer does with a checkpoint: plan it, prove the plan, and prove it again with short reads. `None` if it is
/// refused.
///
/// # Panics
/// If a promise is broken, or the steps stop for another reason than an error of the kernel.
pub fn drill(cp: &Checkpoint, machine: &Machine) -> Option<Plan> {
    let blob = BlobSizes {
        rx: 0x2000,
        rw: 0x1000,
        stack: 0x4000,
        heap: 0x8000,
        thread_stack: 0x400,
    };
    let p = crate::plan(
        cp,
        machine,
        &Options {
            blob,
            ..Options::default()
        },
    )
    .ok()?;
    let largest = p.tables.batches.iter().map(|b| b.len).max().unwrap_or(1);
    for read_limit in [None, Some(largest / 3 + 1)] {
        if let Err(stop) = prove(
            cp,
            machine,
            &p,
            Trouble {
                read_limit,
                fail: None,
            },
        ) {
            assert_eq!(stop.kind, ReportKind::Errno, "{stop:?}");
        }
    }
    for r in crate::record::record(&p) {
        let _ = crate::words::describe_recorded(&r);
    }
    Some(p)
}
