//! Copy-on-write memory: what a child keeps of the memory that it is forked with is its own memory of the checkpoint, page
//! by page, and what cannot be kept exactly is copied.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use armrest_abi::Range;
use armrest_images::{
    Checkpoint, FsDir, LiveTask, PageMap, PageRun, PagesFile, Shares, Task, Vma, load,
};
use armrest_plan::forest::{Forest, forest};
use armrest_plan::inherit::{Alike, Legacy, joined, questions};
use armrest_plan::model::{Trouble, emulator, machine, own, prove};
use armrest_plan::tree::{Act, tree};
use armrest_plan::{Machine, Options, Plan};
use common::*;
use proptest::prelude::*;

/// Free in the harness of `machine()`.
const BASE: u32 = 0x1000_0000;
/// Where the harness of `machine()` itself lies.
const OURS: u32 = 0x40_0000;
const READ: u32 = 1;
const READ_WRITE: u32 = 3;
const PAGE: u32 = 4096;

/// The bytes of a page, as far as they matter.
type Bytes = u8;

/// A task of a made-up tree: its parent, its VMAs, and the contents of its pages.
#[derive(Clone, Debug)]
struct Made {
    parent: usize,
    vmas: Vec<Vma>,
    pages: BTreeMap<u32, Bytes>,
}

fn made(parent: usize, vmas: Vec<Vma>, pages: &[(u32, Bytes)]) -> Made {
    Made {
        parent,
        vmas,
        pages: pages.iter().copied().collect(),
    }
}

/// A checkpoint of these tasks. Task i has pages file i, in which its pages follow each other.
fn tree_of(tasks: &[Made]) -> Checkpoint {
    let mut cp = checkpoint(Vec::new(), Vec::new(), Vec::new());
    let first = cp.tasks.remove(0);
    for (i, t) in tasks.iter().enumerate() {
        let id = u32::try_from(i).unwrap();
        let pid = first.pid + id;
        let mut task = Task {
            pid,
            ppid: if i == 0 { 0 } else { cp.tasks[t.parent].pid },
            ..first.clone()
        };
        let l: &mut LiveTask = task.live.as_mut().unwrap();
        l.threads[0].tid = pid;
        l.files_id = 1 + id;
        l.shares = Shares::default();
        l.mm.vmas.clone_from(&t.vmas);
        l.mm.vmas.sort_by_key(|v| v.range.start());
        let runs = t.pages.keys().zip(0..).map(|(at, n)| PageRun {
            addr: u64::from(*at),
            pages: 1,
            file: i,
            offset: n * PAGE64,
        });
        l.pages = PageMap {
            runs: runs.collect(),
        };
        cp.tasks.push(task);
    }
    cp.pages_files = tasks
        .iter()
        .enumerate()
        .map(|(i, t)| PagesFile {
            name: format!("pages-{i}.img"),
            size: t.pages.len() as u64 * PAGE64,
        })
        .collect();
    cp
}

/// The bytes at an offset of a pages file.
fn bytes_at(tasks: &[Made], file: usize, offset: u64) -> Bytes {
    let n = usize::try_from(offset / PAGE64).unwrap();
    *tasks[file]
        .pages
        .values()
        .nth(n)
        .expect("it is in the file")
}

/// Answer what the plan has to know, by looking into all pages.
fn compared(cp: &Checkpoint, tasks: &[Made]) -> Rc<Alike> {
    let mut alike = Alike::default();
    for q in questions(cp, &tree(&cp.tasks).expect("a tree")) {
        let mut same = Vec::new();
        for s in &q.spans {
            for at in (s.range.start..s.range.end).step_by(4096) {
                let by = u64::from(at - s.range.start);
                let own = bytes_at(tasks, s.own.0, s.own.1 + by);
                if own == bytes_at(tasks, s.makers.0, s.makers.1 + by) {
                    let end = at + PAGE;
                    same.push(Range { start: at, end });
                }
            }
        }
        alike.0.insert(q.task, joined(same));
    }
    Rc::new(alike)
}

fn planned_on(m: &Machine, cp: &Checkpoint, tasks: &[Made], lazy: bool) -> Forest {
    let options = Options {
        alike: compared(cp, tasks),
        lazy,
        any_pid: true,
        ..options()
    };
    forest(cp, m, &options).unwrap_or_else(|r| panic!("{r:#?}"))
}

/// Memory of a process before the blob: reserved ranges that are in use, and what is in their pages.
#[derive(Clone, Default)]
struct Memory {
    mapped: BTreeSet<u32>,
    pages: BTreeMap<u32, Bytes>,
}

fn pages_of(r: Range) -> impl Iterator<Item = u32> {
    (r.start..r.end).step_by(4096)
}

impl Memory {
    /// Do what the plan says.
    fn inherit(&mut self, l: &Legacy, f: &Forest, tasks: &[Made]) {
        let reserved = |r: Range| f.reserve.iter().any(|o| o.contains(r));
        for r in &l.leaves {
            assert!(reserved(*r), "{r:x?} is not reserved");
            for at in pages_of(*r) {
                assert!(self.mapped.remove(&at), "{at:x} was not held");
                self.pages.remove(&at);
            }
        }
        for m in &l.maps {
            let r = Range {
                start: m.start,
                end: m.start + m.len,
            };
            assert!(reserved(r), "{r:x?} is not reserved");
            for at in pages_of(r) {
                assert!(self.mapped.insert(at), "{at:x} is in use");
            }
        }
        for r in &l.zaps {
            for at in pages_of(*r) {
                assert!(self.mapped.contains(&at), "{at:x} is not held");
                assert!(
                    self.pages.remove(&at).is_some(),
                    "{at:x} is thrown away in vain"
                );
            }
        }
        for b in &l.batches {
            let file = usize::try_from(b.fd).unwrap();
            let mut offset = b.offset;
            let first = b.first as usize;
            for v in &l.iovecs[first..first + b.count as usize] {
                let (start, end) = (v.base, v.base + v.len);
                for at in pages_of(Range { start, end }) {
                    assert!(self.mapped.contains(&at), "{at:x} is not held");
                    let new = self.pages.insert(at, bytes_at(tasks, file, offset));
                    assert!(new.is_none(), "{at:x} is read twice");
                    offset += PAGE64;
                }
            }
        }
    }

    /// What is held is this task's own memory, all of it and nothing else.
    fn is_of(&self, p: &Plan, t: &Made, cp: &Checkpoint) {
        let vmas = &cp.tasks[p.task].live.as_ref().unwrap().mm.vmas;
        let mut mapped = BTreeSet::new();
        for k in &p.legacy.kept {
            let v = &vmas[k.vma];
            mapped.extend(pages_of(k.range()));
            let wanted = t.pages.range(v.range.start()..v.range.end());
            let there = |(at, b): (&u32, &Bytes)| (at - v.range.start() + k.at, *b);
            let wanted: BTreeMap<u32, Bytes> = wanted.map(there).collect();
            let range = k.range();
            let found = self.pages.range(range.start..range.end);
            let found: BTreeMap<u32, Bytes> = found.map(|(a, b)| (*a, *b)).collect();
            assert_eq!(found, wanted, "task {}, VMA {:x?}", p.task, v.range);
        }
        assert_eq!(mapped, self.mapped, "task {} holds more or less", p.task);
    }
}

/// Fork the tree as the plan says, and see that each process becomes its task.
fn born(cp: &Checkpoint, on: &Machine, f: &Forest, tasks: &[Made]) {
    let mut todo = vec![(0, Memory::default())];
    let mut seen = 0;
    while let Some((node, mut memory)) = todo.pop() {
        if let Some(Some(p)) = f.plans.get(node) {
            memory.inherit(&p.legacy, f, tasks);
            memory.is_of(p, &tasks[node], cp);
            seen += 1;
        }
        for act in &f.tree.nodes[node].acts {
            if let Act::Fork { node, .. } = act {
                todo.push((*node, memory.clone()));
            }
        }
    }
    assert_eq!(seen, tasks.len());
    for (i, p) in f.each() {
        let model = prove(cp, &f.inside(on, i), p, Trouble::default());
        model.unwrap_or_else(|s| panic!("task {i}: {s:?}"));
    }
}

/// Plan on the usual machine, and see it through.
fn planned(tasks: &[Made]) -> (Checkpoint, Forest) {
    let cp = tree_of(tasks);
    let f = planned_on(&machine(), &cp, tasks, false);
    born(&cp, &machine(), &f, tasks);
    (cp, f)
}

fn legacy(f: &Forest, task: usize) -> &Legacy {
    &f.plans[task].as_ref().expect("it lives").legacy
}

/// A parent and its child with one VMA of four pages: the first the same, the second the child's own, the third only the
/// parent's, the fourth only the child's.
fn couple(vma: impl Fn(usize) -> Vma) -> [Made; 2] {
    let at = vma(0).range.start();
    let page = |n: u32| at + n * PAGE;
    [
        made(0, vec![vma(0)], &[(page(0), 1), (page(1), 2), (page(2), 3)]),
        made(0, vec![vma(1)], &[(page(0), 1), (page(1), 9), (page(3), 4)]),
    ]
}

#[test]
fn a_child_keeps_what_is_the_same_and_has_its_own_of_the_rest() {
    let (_, f) = planned(&couple(|_| anon(BASE, 4, READ_WRITE)));
    let (parent, child) = (legacy(&f, 0), legacy(&f, 1));
    assert_eq!((parent.shared, parent.read), (0, 3));
    assert_eq!((parent.maps.len(), child.maps.len()), (1, 0));
    assert_eq!((child.shared, child.read), (1, 2));
    // The one that differs and the one that the child has not: neither may be the parent's.
    let zap = Range {
        start: BASE + PAGE,
        end: BASE + 3 * PAGE,
    };
    assert_eq!(child.zaps, [zap]);
    let read: Vec<u32> = child.iovecs.iter().map(|v| v.base).collect();
    assert_eq!(read, [BASE + PAGE, BASE + 3 * PAGE]);
    for (_, p) in f.each() {
        // It lies in its place: the blob neither maps nor reads nor moves it, and does not unmap it.
        assert_eq!(p.legacy.kept[0].at, BASE);
        assert!(p.tables.maps.is_empty() && p.tables.iovecs.is_empty());
        assert!(p.tables.unparks.is_empty());
        let place = p.legacy.kept[0].range();
        assert!(p.tables.unmaps.iter().all(|u| !u.overlaps(place)));
    }
}

/// Rights are each task's own; reading needs writing, so the blob takes it away where it was not.
#[test]
fn rights_are_each_tasks_own() {
    let prots = [READ_WRITE, READ];
    let (_, f) = planned(&couple(|i| anon(BASE, 4, prots[i])));
    let protects = |i: usize| f.plans[i].as_ref().unwrap().tables.protects.len();
    assert_eq!((protects(0), protects(1)), (0, 1));
}

#[test]
fn what_lies_where_we_lie_waits_elsewhere_and_is_moved() {
    let (cp, f) = planned(&couple(|_| anon(OURS, 4, READ_WRITE)));
    let [k] = legacy(&f, 1).kept[..] else {
        panic!("it is kept");
    };
    let moved = &f.plans[1].as_ref().unwrap().tables.unparks;
    assert_eq!((moved.len(), moved[0].from, moved[0].to), (1, k.at, OURS));
    assert_eq!(legacy(&f, 0).kept, [k]);
    let vmas = cp
        .tasks
        .iter()
        .flat_map(|t| &t.live.as_ref().unwrap().mm.vmas);
    let others = vmas.map(|v| (v.range.start(), v.range.end()));
    let ours = machine().maps;
    let ours = ours.iter().map(|m| (m.range.start, m.range.end));
    let areas = f.each().map(|(_, p)| (p.area.all.start, p.area.all.end));
    for (start, end) in others.chain(ours).chain(areas) {
        assert!(!k.range().overlaps(Range { start, end }));
    }
}

/// What a fork would not give, or gives otherwise, is copied.
#[test]
fn memory_that_a_fork_gives_otherwise_is_copied() {
    type Change = fn(&mut Vma);
    let changes: [(&str, Change); 8] = [
        ("stack", |v| v.grows_down = true),
        ("locked", |v| v.locked = true),
        ("droppable", |v| v.droppable = true),
        ("executable", |v| v.prot |= 4),
        ("MADV_DONTFORK", |v| v.madv = 1 << 10),
        ("MADV_WIPEONFORK", |v| v.madv = 1 << 18),
        ("MADV_MERGEABLE", |v| v.madv = 1 << 12),
        ("MADV_HUGEPAGE", |v| v.madv = 1 << 14),
    ];
    for (name, change) in changes {
        for who in [[true, true], [true, false], [false, true]] {
            let tasks = couple(|i| {
                let mut v = anon(BASE, 4, READ_WRITE);
                if who[i] {
                    change(&mut v);
                }
                v
            });
            let cp = tree_of(&tasks);
            assert!(
                questions(&cp, &tree(&cp.tasks).unwrap()).is_empty(),
                "{name}"
            );
            // And whatever is claimed of it is not believed.
            let all = vec![Range {
                start: BASE,
                end: BASE + 4 * PAGE,
            }];
            let options = Options {
                alike: Rc::new(Alike(BTreeMap::from([(1, all)]))),
                any_pid: true,
                ..options()
            };
            let Ok(f) = forest(&cp, &machine(), &options) else {
                assert_eq!(name, "droppable", "only that is refused");
                continue;
            };
            assert!(
                f.each().all(|(_, p)| p.legacy == Legacy::default()),
                "{name}"
            );
            assert!(f.reserve.is_empty());
        }
    }
    let alike = |change: fn(&mut LiveTask)| {
        let mut cp = tree_of(&couple(|_| anon(BASE, 4, READ_WRITE)));
        change(cp.tasks[1].live.as_mut().unwrap());
        questions(&cp, &tree(&cp.tasks).unwrap())
    };
    assert_eq!(alike(|_| ()).len(), 1);
    assert!(alike(|l| l.mm.thp_disabled = true).is_empty());
    assert!(alike(|l| l.mm.vmas[0].noreserve = true).is_empty());
    assert!(alike(|l| l.mm.vmas[0].madv = 1 << 16).is_empty());
    assert!(alike(|l| l.mm.vmas[0].range = range(BASE, 5)).is_empty());
    assert!(alike(|l| l.mm.guards = vec![range(BASE + PAGE, 1)]).is_empty());
}

/// No place of 1 GiB is free beside both, so that is copied; the small one is inherited.
#[test]
fn what_has_no_place_is_copied_and_said() {
    let big = |start: u32| anon(start, 0x4_0000, READ_WRITE);
    let small = anon(OURS, 4, READ_WRITE);
    let vmas = vec![small, big(0x2000_0000), big(0x7000_0000)];
    let at = [(OURS, 1), (0x2000_0000, 2), (0x7000_0000, 3)];
    let tasks = [made(0, vmas.clone(), &at), made(0, vmas, &at)];
    let mut m = machine();
    // Both of the big ones' places are taken by ours.
    m.maps.push(own(0x2000_0000, 0x2000_1000, ""));
    m.maps.push(own(0x7000_0000, 0x7000_1000, ""));
    m.maps.sort_by_key(|m| m.range.start);
    let cp = tree_of(&tasks);
    let f = planned_on(&m, &cp, &tasks, false);
    born(&cp, &m, &f, &tasks);
    let kept: Vec<usize> = legacy(&f, 1).kept.iter().map(|k| k.vma).collect();
    assert_eq!(kept, [0]);
    let notes = &f.root().unwrap().notes;
    assert!(
        notes
            .iter()
            .any(|n| n.contains("2048.0 MiB in 2 VMAs are copied")),
        "{notes:?}"
    );
}

#[test]
fn nothing_is_inherited_with_lazy_or_under_an_emulator_and_that_is_said() {
    let tasks = couple(|_| anon(BASE, 4, READ_WRITE));
    let cp = tree_of(&tasks);
    for (m, lazy) in [(machine(), true), (emulator(), false)] {
        let f = planned_on(&m, &cp, &tasks, lazy);
        born_without(&cp, &m, &f);
        let notes = &f.root().unwrap().notes;
        assert!(
            notes.iter().any(|n| n.contains("not inherited")),
            "{notes:?}"
        );
    }
}

fn born_without(cp: &Checkpoint, on: &Machine, f: &Forest) {
    for (i, p) in f.each() {
        assert_eq!(p.legacy, Legacy::default());
        prove(cp, &f.inside(on, i), p, Trouble::default()).unwrap();
    }
}

/// The way of our break to the checkpoint's stays free where the kernel's mm fields cannot be set.
#[test]
fn nothing_is_in_the_way_of_the_break() {
    let mut m = machine();
    (m.has_mm_map, m.has_mm_singles) = (false, false);
    let at = m.own_brk + 0x10_0000;
    let tasks = couple(|_| anon(at, 4, READ_WRITE));
    let mut cp = tree_of(&tasks);
    for t in &mut cp.tasks {
        t.live.as_mut().unwrap().mm.fields[5] = at + 4 * PAGE;
    }
    let f = planned_on(&m, &cp, &tasks, false);
    assert!(f.each().all(|(_, p)| p.grow_brk.is_some()));
    assert!(legacy(&f, 1).kept.iter().all(|k| k.at > at + 4 * PAGE));
    born(&cp, &m, &f, &tasks);
}

/// One that holds nothing of it between two that do: it gives the memory back, and its child has its own.
#[test]
fn a_chain_with_a_gap_holds_no_more_than_its_own() {
    let v = || anon(BASE, 4, READ_WRITE);
    let other = || anon(BASE + PAGE, 8, READ_WRITE);
    let (a, b) = ((BASE, 1), (BASE + 2 * PAGE, 7));
    let tasks = [
        made(0, vec![v()], &[a]),
        made(0, vec![v()], &[a]),
        made(0, vec![other()], &[b]),
        made(2, vec![other()], &[b]),
        made(1, vec![v()], &[a]),
    ];
    let (_, f) = planned(&tasks);
    let shared: Vec<u64> = f.each().map(|(_, p)| p.legacy.shared).collect();
    assert_eq!(shared, [0, 1, 0, 1, 1]);
    assert_eq!(legacy(&f, 2).leaves.len(), 1);
    assert_eq!(legacy(&f, 2).maps.len(), 1);
}

/// A real tree: ten processes, whose pages are compared here by reading all of them.
#[test]
fn a_forked_server_shares_what_it_shared() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images/forked");
    let cp = load(&FsDir::new(&images)).unwrap();
    let files = cp
        .pages_files
        .iter()
        .map(|p| std::fs::read(images.join(&p.name)).unwrap());
    let files: Vec<Vec<u8>> = files.collect();
    let bytes = |(file, offset): (usize, u64), by: u32| {
        let at = usize::try_from(offset).unwrap() + by as usize;
        &files[file][at..at + PAGE as usize]
    };
    let mut alike = Alike::default();
    for q in questions(&cp, &tree(&cp.tasks).unwrap()) {
        let mut same = Vec::new();
        for s in &q.spans {
            for by in (0..s.range.len()).step_by(4096) {
                if bytes(s.own, by) == bytes(s.makers, by) {
                    let start = s.range.start + by;
                    let end = start + PAGE;
                    same.push(Range { start, end });
                }
            }
        }
        alike.0.insert(q.task, joined(same));
    }
    let options = Options {
        alike: Rc::new(alike),
        ..options()
    };
    // The model has no sigpage to leave through, so the usual machine is not proved.
    for (m, proved) in [(machine(), true), (Machine::generic(), false)] {
        let f = forest(&cp, &m, &options).unwrap();
        let (mut pages, mut shared) = (0, 0);
        for (i, p) in f.each() {
            if proved {
                prove(&cp, &f.inside(&m, i), p, Trouble::default()).unwrap();
            }
            if i > 0 {
                // Of 128 pages the server has written 16 since and given back 8, a worker 3 and 2, its child as many again.
                assert!(p.legacy.shared >= 99, "task {i}: {}", p.legacy.shared);
                assert!(p.legacy.zaps.len() >= 3, "task {i}: {:x?}", p.legacy.zaps);
            }
            pages += p.pages;
            shared += p.legacy.shared;
        }
        assert!(
            shared * 10 > pages * 6,
            "{shared} of {pages} pages are shared"
        );
    }
}

/// A task's VMAs: pieces of two layouts, so that places of several tasks overlap.
fn vmas() -> impl Strategy<Value = Vec<Vma>> {
    let one = (any::<bool>(), 0u32..4, any::<bool>(), any::<bool>());
    proptest::collection::vec(one, 1..5).prop_map(|all| {
        let mut out: Vec<Vma> = Vec::new();
        for (ours, n, wide, read_only) in all {
            let start = if ours { OURS } else { BASE } + n * 6 * PAGE;
            let pages = if wide { 8 } else { 5 };
            let v = anon(start, pages, if read_only { READ } else { READ_WRITE });
            if out.iter().all(|o| !o.range.overlaps(v.range)) {
                out.push(v);
            }
        }
        out
    })
}

fn trees() -> impl Strategy<Value = Vec<Made>> {
    let pages = proptest::collection::vec((any::<proptest::sample::Index>(), 0u8..3), 0..40);
    proptest::collection::vec((any::<proptest::sample::Index>(), vmas(), pages), 1..6).prop_map(
        |all| {
            let mut out: Vec<Made> = Vec::new();
            for (i, (parent, vmas, pages)) in all.into_iter().enumerate() {
                let places: Vec<u32> = vmas
                    .iter()
                    .flat_map(|v| (v.range.start()..v.range.end()).step_by(4096))
                    .collect();
                let pages = pages
                    .into_iter()
                    .map(|(n, b)| (places[n.index(places.len())], b));
                out.push(Made {
                    parent: if i == 0 { 0 } else { parent.index(i) },
                    vmas,
                    pages: pages.collect(),
                });
            }
            out
        },
    )
}

proptest! {
    /// Whatever the tree: every process ends with its own memory, shared or not.
    #[test]
    fn every_process_becomes_its_own_task(tasks in trees()) {
        planned(&tasks);
    }
}
