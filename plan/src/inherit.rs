//! Copy-on-write memory of a tree: what a process finds in the memory that it is forked with, and keeps.
//!
//! A parent reads its private anonymous memory before it forks its children, each child only what it has otherwise; pages
//! that nobody has written since the fork are one page of the machine, as they were. The images do not say which pages
//! were shared, but pages of the same address with the same bytes might as well be, and no program can tell. Which those
//! are is a fact that is found by comparing the pages files ([`Question`], [`Alike`]).
//!
//! Such memory lies where the checkpoint has it, if that place is free of ours, and there survives the unmap step. Else it
//! is kept in a place that is free in all tasks, and moved at the end like the kernel's own pages. A process holds nothing
//! that is not its own when it becomes a task: what its maker held for itself or for others goes back to a reservation
//! that all inherit, so nothing of ours comes to lie there meanwhile.
//!
//! A page that the maker has and the child has not is thrown away in the child: exactness comes first.

use std::collections::{BTreeMap, BTreeSet};

use armrest_abi::{Batch, Iovec, Map, PAGE_SIZE, Range};
use armrest_images::{Checkpoint, LiveTask, PageRun, Vma, VmaKind};

use crate::machine::{Machine, STACK_ROOM};
use crate::space::Space;
use crate::tree::{Act, Role, Tree};
use crate::types::{Options, Tables};
use crate::whole::lives;
use crate::{consts, memory, mm, shm, u32_of};

/// Advice that changes nothing about whose a page is: RANDOM, SEQUENTIAL, NOHUGEPAGE, DONTDUMP.
const PLAIN_ADVICE: u32 = 1 << 1 | 1 << 2 | 1 << 15 | 1 << 16;

/// How many VMAs that do not fit beside the others are given a search of their own.
const MOST_SEARCHES: usize = 16;

/// Contents of some pages: where they belong, and where their bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    range: Range,
    file: usize,
    offset: u64,
}

impl Piece {
    /// The part of it that lies in `r`; `None` if there is none.
    fn within(self, r: Range) -> Option<Piece> {
        let range = self.range.meet(r)?;
        let offset = self.offset + u64::from(range.start - self.range.start);
        Some(Piece {
            range,
            offset,
            ..self
        })
    }
}

/// Bytes that two tasks have at one address: the same or not?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where.
    pub range: Range,
    /// Pages file of the task, and where in it.
    pub own: (usize, u64),
    /// Pages file of its maker, and where in it.
    pub makers: (usize, u64),
}

/// What has to be compared of a task and the one that it is forked from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Index of the task.
    pub task: usize,
    /// Index of the one whose memory it is born with.
    pub maker: usize,
    /// Ascending and apart.
    pub spans: Vec<Span>,
}

/// The answers: ranges, by task, in which its pages and its maker's have the same bytes. Ascending and apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alike(pub BTreeMap<usize, Vec<Range>>);

impl Alike {
    /// The parts that lie in `r`.
    fn within(&self, task: usize, r: Range) -> Vec<Range> {
        let all = self.0.get(&task).map_or(&[][..], Vec::as_slice);
        let first = all.partition_point(|a| a.end <= r.start);
        all[first..].iter().map_while(|a| a.meet(r)).collect()
    }
}

/// A VMA that is kept from before the blob, and where it lies until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Index of the VMA.
    pub vma: usize,
    /// Its first byte: the VMA's own, or another place.
    pub at: u32,
    /// Bytes.
    pub len: u32,
}

impl Kept {
    /// Where it lies.
    pub fn range(&self) -> Range {
        Range {
            start: self.at,
            end: self.at + self.len,
        }
    }
}

/// What a process does with the memory that it is born with, before it forks its own children; in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Legacy {
    /// What its maker held and it does not: reserved again, and empty.
    pub leaves: Vec<Range>,
    /// Memory that it holds anew.
    pub maps: Vec<Map>,
    /// Pages that it has not, or has otherwise.
    pub zaps: Vec<Range>,
    /// What it reads: descriptors are indices of pages files.
    pub batches: Vec<Batch>,
    /// Rows of the batches.
    pub iovecs: Vec<Iovec>,
    /// What it holds then: all of it its own. Ascending.
    pub kept: Vec<Kept>,
    /// Pages that it shares with its maker.
    pub shared: u64,
    /// Pages that are read here and not by the blob.
    pub read: u64,
}

/// What all tasks hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inheritance {
    /// Ranges that are reserved before the first fork. Ascending and apart.
    pub reserve: Vec<Range>,
    /// By task.
    pub tasks: BTreeMap<usize, Legacy>,
    /// What is done otherwise, in sentences.
    pub notes: Vec<String>,
}

impl Inheritance {
    /// What this task holds.
    pub fn kept(&self, task: usize) -> &[Kept] {
        self.tasks.get(&task).map_or(&[], |l| l.kept.as_slice())
    }
}

/// A VMA that a task and its maker have alike, but for contents: indices in both.
#[derive(Clone, Copy, Debug)]
struct Couple {
    task: usize,
    vma: usize,
    maker: usize,
    makers: usize,
}

/// May contents of this VMA come by a fork?
fn suits(live: &LiveTask, v: &Vma) -> bool {
    v.kind == VmaKind::Anon
        && !v.shared
        && !v.grows_down
        && !v.locked
        && !v.droppable
        && v.hugetlb.is_none()
        && v.prot & consts::PROT_EXEC == 0
        && v.madv & !PLAIN_ADVICE == 0
        && !live.mm.thp_disabled
        && !live.mm.guards.iter().any(|g| g.overlaps(v.range))
}

/// Every task that lives with the one whose memory it is born with: its maker, or if that only stands in for somebody,
/// the maker's. Makers come before those that they make.
fn births(tree: &Tree) -> Vec<(usize, Option<usize>)> {
    let mut out = Vec::new();
    let mut todo = vec![(0, None)];
    while let Some((node, from)) = todo.pop() {
        let Some(n) = tree.nodes.get(node) else {
            continue;
        };
        let memory = match n.role {
            Role::Task(task) => {
                out.push((task, from));
                Some(task)
            }
            _ => from,
        };
        for act in &n.acts {
            if let Act::Fork { node, .. } = act {
                todo.push((*node, memory));
            }
        }
    }
    out
}

fn live(cp: &Checkpoint, task: usize) -> Option<&LiveTask> {
    cp.tasks.get(task)?.live.as_ref()
}

/// Where a VMA lies.
pub fn range(v: &Vma) -> Range {
    Range {
        start: v.range.start(),
        end: v.range.end(),
    }
}

/// VMAs of a task that may come from its maker.
fn couples(cp: &Checkpoint, task: usize, maker: usize) -> Vec<Couple> {
    let (Some(own), Some(theirs)) = (live(cp, task), live(cp, maker)) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    let mut others = theirs.mm.vmas.iter().enumerate().peekable();
    for (vma, v) in own.mm.vmas.iter().enumerate() {
        while others
            .next_if(|(_, o)| o.range.start() < v.range.start())
            .is_some()
        {}
        let Some((makers, o)) = others.peek() else {
            break;
        };
        let alike =
            (o.range, o.heap, o.noreserve, o.madv) == (v.range, v.heap, v.noreserve, v.madv);
        if alike && suits(own, v) && suits(theirs, o) {
            out.push(Couple {
                task,
                vma,
                maker,
                makers: *makers,
            });
        }
    }
    out
}

/// The contents that lie in a range.
fn pieces(runs: &[PageRun], r: Range) -> Vec<Piece> {
    let bytes = |p: &PageRun| u64::from(p.pages) * u64::from(PAGE_SIZE);
    let first = runs.partition_point(|p| p.addr + bytes(p) <= u64::from(r.start));
    let inside = runs[first..]
        .iter()
        .take_while(|p| p.addr < u64::from(r.end));
    inside
        .filter_map(|p| {
            let start = p.addr.max(u64::from(r.start));
            let end = (p.addr + bytes(p)).min(u64::from(r.end));
            Some(Piece {
                range: Range {
                    start: u32::try_from(start).ok()?,
                    end: u32::try_from(end).ok()?,
                },
                file: p.file,
                offset: p.offset + (start - p.addr),
            })
        })
        .collect()
}

/// What is left of `pieces` without these ranges; both ascending and apart.
fn without(pieces: &[Piece], ranges: &[Range]) -> Vec<Piece> {
    let mut out = Vec::new();
    for p in pieces {
        let mut at = p.range.start;
        let first = ranges.partition_point(|r| r.end <= p.range.start);
        for r in ranges[first..].iter().take_while(|r| r.start < p.range.end) {
            let gap = Range {
                start: at,
                end: r.start,
            };
            out.extend(p.within(gap));
            at = r.end;
        }
        let rest = Range {
            start: at,
            end: p.range.end,
        };
        out.extend(p.within(rest));
    }
    out
}

/// Page runs without what lies in these ranges, which are ascending and apart.
pub fn cut(mut runs: Vec<PageRun>, ranges: &[Range]) -> Vec<PageRun> {
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
        return runs;
    };
    let whole = Range {
        start: 0,
        end: u32::MAX,
    };
    let hit = runs.partition_point(|r| {
        r.addr + u64::from(r.pages) * u64::from(PAGE_SIZE) <= u64::from(first.start)
    })..runs.partition_point(|r| r.addr < u64::from(last.end));
    let left = without(&pieces(&runs[hit.clone()], whole), ranges);
    runs.splice(hit, left.into_iter().map(|p| run(p.range, p)));
    runs
}

/// A run of these contents at `r`.
fn run(r: Range, p: Piece) -> PageRun {
    PageRun {
        addr: u64::from(r.start),
        pages: r.len() / PAGE_SIZE,
        file: p.file,
        offset: p.offset,
    }
}

/// What has to be compared before a plan can say what is inherited.
pub fn questions(cp: &Checkpoint, tree: &Tree) -> Vec<Question> {
    let mut out = Vec::new();
    for (task, maker) in births(tree) {
        let Some(maker) = maker else { continue };
        let mut spans = Vec::new();
        for c in couples(cp, task, maker) {
            spans.extend(both(cp, c));
        }
        if !spans.is_empty() {
            out.push(Question { task, maker, spans });
        }
    }
    out
}

/// Pages that both have in a VMA.
fn both(cp: &Checkpoint, c: Couple) -> Vec<Span> {
    let (Some(own), Some(theirs)) = (live(cp, c.task), live(cp, c.maker)) else {
        return Vec::new();
    };
    let r = range(&own.mm.vmas[c.vma]);
    let others = pieces(&theirs.pages.runs, r);
    let mut out = Vec::new();
    for p in pieces(&own.pages.runs, r) {
        let first = others.partition_point(|o| o.range.end <= p.range.start);
        for o in others[first..]
            .iter()
            .take_while(|o| o.range.start < p.range.end)
        {
            if let (Some(a), Some(b)) = (p.within(o.range), o.within(p.range)) {
                out.push(Span {
                    range: a.range,
                    own: (a.file, a.offset),
                    makers: (b.file, b.offset),
                });
            }
        }
    }
    out
}

/// Memory that a chain of processes holds one after the other.
#[derive(Clone, Copy, Debug)]
struct Slot {
    range: Range,
    /// Where it lies meanwhile; `None` = there is no room.
    at: Option<u32>,
}

/// Which VMAs are held by whom.
#[derive(Clone, Debug, Default)]
struct Slots {
    all: Vec<Slot>,
    /// By task, then by VMA: the slot, and the maker's VMA if it is inherited.
    tasks: BTreeMap<usize, BTreeMap<usize, (usize, Option<usize>)>>,
    births: Vec<(usize, Option<usize>)>,
}

impl Slots {
    /// Decide what is worth inheriting: VMAs with a page in common.
    fn of(cp: &Checkpoint, tree: &Tree, alike: &Alike) -> Slots {
        let mut out = Slots::default();
        if alike.0.is_empty() {
            return out;
        }
        out.births = births(tree);
        for (task, maker) in out.births.clone() {
            let Some(maker) = maker else { continue };
            for c in couples(cp, task, maker) {
                let r =
                    live(cp, task).map_or(Range { start: 0, end: 0 }, |l| range(&l.mm.vmas[c.vma]));
                if alike.within(task, r).is_empty() {
                    continue;
                }
                let next = out.all.len();
                let of_maker = out.tasks.entry(maker).or_default();
                let slot = of_maker.entry(c.makers).or_insert((next, None)).0;
                if slot == next {
                    out.all.push(Slot { range: r, at: None });
                }
                out.tasks
                    .entry(task)
                    .or_default()
                    .insert(c.vma, (slot, Some(c.makers)));
            }
        }
        out
    }

    /// Find places: each in its own, if nothing of ours is there, else anywhere.
    fn place(&mut self, cp: &Checkpoint, machine: &Machine) {
        let low = machine.mmap_min_addr.max(0x1_0000);
        let mut ours = Space::new(low, machine.task_size);
        for m in &machine.maps {
            ours.take(m.reach(STACK_ROOM));
        }
        let lives = || lives(cp).map(|(_, l)| l);
        for l in lives().filter(|l| mm::way(l, machine) == 0) {
            // The way of our break to the checkpoint's.
            ours.take(Range {
                start: machine.own_brk,
                end: l.mm.fields[5],
            });
        }
        let mut all = ours.clone();
        for l in lives() {
            for v in &l.mm.vmas {
                all.take(range(v));
            }
            for a in shm::attachments(cp, &l.mm.vmas) {
                all.take(Range {
                    start: a.base,
                    end: a.base.saturating_add(a.len),
                });
            }
        }
        let mut away: Vec<usize> = Vec::new();
        for (i, s) in self.all.iter_mut().enumerate() {
            if ours.is_free(s.range) {
                s.at = Some(s.range.start);
            } else {
                away.push(i);
            }
        }
        // As many as fit side by side, the smallest first: one place for all of them is found in a few searches, of which
        // each goes through the mappings of all tasks.
        let len = |i: &usize| self.all[*i].range.len();
        away.sort_by_key(len);
        let sums = away.iter().scan(0u32, |sum, i| {
            *sum = sum.saturating_add(len(i));
            Some(*sum)
        });
        let sums: Vec<u32> = sums.collect();
        let fit = sums.partition_point(|s| all.find(*s, PAGE_SIZE).is_some());
        let big = away.split_off(fit);
        let together = sums[..fit].last().and_then(|s| all.find(*s, PAGE_SIZE));
        if let Some(place) = together {
            all.take(place);
            let mut at = place.start;
            for i in away {
                self.all[i].at = Some(at);
                at += self.all[i].range.len();
            }
        }
        for i in big.into_iter().take(MOST_SEARCHES) {
            let found = all.find(self.all[i].range.len(), PAGE_SIZE);
            if let Some(r) = found {
                all.take(r);
            }
            self.all[i].at = found.map(|r| r.start);
        }
    }

    /// What each task holds and does.
    fn inheritance(&self, cp: &Checkpoint, alike: &Alike) -> Inheritance {
        let mut out = Inheritance::default();
        let homeless = self.all.iter().filter(|s| s.at.is_none());
        let (count, bytes) = homeless.fold((0, 0u64), |(n, sum), s| {
            (n + 1, sum + u64::from(s.range.len()))
        });
        if count > 0 {
            out.notes.push(format!(
                "memory: {} in {count} VMAs are copied and not inherited: no place is free in all tasks and here",
                mib(bytes)
            ));
        }
        let places = self.all.iter().filter_map(|s| Some(at(s)?.range()));
        out.reserve = joined(places.collect());
        for (task, maker) in &self.births {
            let held = self.of_task(*task);
            let before = maker.map_or(Vec::new(), |m| self.of_task(m));
            let Some(l) = live(cp, *task) else { continue };
            if held.is_empty() && before.is_empty() {
                continue;
            }
            let makers = maker.and_then(|m| live(cp, m));
            let legacy = legacy(*task, (l, makers), &held, &before, alike);
            out.tasks.insert(*task, legacy);
        }
        out
    }

    /// What a task holds, with the maker's VMA if it is inherited.
    fn of_task(&self, task: usize) -> Vec<(Kept, Option<usize>)> {
        let Some(slots) = self.tasks.get(&task) else {
            return Vec::new();
        };
        let held = |(vma, (slot, makers)): (&usize, &(usize, Option<usize>))| {
            let h = at(&self.all[*slot])?;
            Some((Kept { vma: *vma, ..h }, *makers))
        };
        slots.iter().filter_map(held).collect()
    }
}

/// What a task does to hold what it holds; `before`: what its maker held.
fn legacy(
    task: usize,
    (l, makers): (&LiveTask, Option<&LiveTask>),
    held: &[(Kept, Option<usize>)],
    before: &[(Kept, Option<usize>)],
    alike: &Alike,
) -> Legacy {
    let mut out = Legacy::default();
    let inherited = held.iter().filter(|(_, from)| from.is_some());
    let stays: BTreeSet<u32> = inherited.map(|(h, _)| h.at).collect();
    let left = before
        .iter()
        .map(|(h, _)| h)
        .filter(|h| !stays.contains(&h.at));
    out.leaves = left.map(Kept::range).collect();
    let mut reads: Vec<PageRun> = Vec::new();
    for (h, from) in held {
        let v = &l.mm.vmas[h.vma];
        let r = range(v);
        let there = |p: Range| Range {
            start: p.start - r.start + h.at,
            end: p.end - r.start + h.at,
        };
        let own = pieces(&l.pages.runs, r);
        let same = match (from, makers) {
            (Some(_), Some(m)) => {
                let same = alike.within(task, r);
                let theirs = pieces(&m.pages.runs, r);
                let zaps = without(&theirs, &same).into_iter().map(|p| there(p.range));
                out.zaps.extend(joined(zaps.collect()));
                same
            }
            _ => {
                out.maps.push(memory::kept_row(v, h));
                Vec::new()
            }
        };
        out.shared += same
            .iter()
            .map(|s| u64::from(s.len() / PAGE_SIZE))
            .sum::<u64>();
        for p in without(&own, &same) {
            let to = there(p.range);
            out.read += u64::from(to.len() / PAGE_SIZE);
            reads.push(run(to, p));
        }
        out.kept.push(*h);
    }
    let mut tables = Tables::default();
    memory::plan_fill(&reads, &u32_of, &mut tables);
    out.batches = tables.batches;
    out.iovecs = tables.iovecs;
    out
}

/// Where a slot lies, without its VMA.
fn at(s: &Slot) -> Option<Kept> {
    s.at.map(|at| Kept {
        vma: 0,
        at,
        len: s.range.len(),
    })
}

/// Ranges in order, neighbours and overlapping ones as one.
pub fn joined(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut out: Vec<Range> = Vec::new();
    for r in ranges {
        match out.last_mut().filter(|l| l.end >= r.start) {
            Some(last) => last.end = last.end.max(r.end),
            None => out.push(r),
        }
    }
    out
}

/// In words.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", (bytes / 4096) as f64 / 256.0)
}

/// Decide what is inherited in this tree, for what was found of its pages.
pub fn decide(cp: &Checkpoint, machine: &Machine, tree: &Tree, options: &Options) -> Inheritance {
    let why = if machine.emulated {
        "under an emulator"
    } else if options.lazy {
        "with --lazy, which reads no more than it must"
    } else {
        let mut slots = Slots::of(cp, tree, &options.alike);
        slots.place(cp, machine);
        return slots.inheritance(cp, &options.alike);
    };
    let mut out = Inheritance::default();
    if !questions(cp, tree).is_empty() {
        out.notes.push(format!(
            "memory is not inherited by children {why}: each task has its own copy"
        ));
    }
    out
}

impl Legacy {
    /// In a sentence, if anything is inherited.
    pub fn note(&self) -> Option<String> {
        (self.shared > 0).then(|| {
            format!(
                "memory: {} stay shared with the parent until written, {} were read",
                mib(self.shared * u64::from(PAGE_SIZE)),
                mib(self.read * u64::from(PAGE_SIZE))
            )
        })
    }
}
