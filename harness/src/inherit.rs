//! Copy-on-write memory of a tree, the side effects: pages files compared before the plan, places reserved after it, and
//! what each process does with the memory that it is born with. What and why: `armrest_plan::inherit`.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use armrest_abi::{PAGE_SIZE, Range};
use armrest_images::Checkpoint;
use armrest_plan::forest::{Forest, forest};
use armrest_plan::inherit::{Alike, Legacy, Question, Span, joined, questions};
use armrest_plan::{Machine, Options};

use crate::error::Error;
use crate::hand::Hand;
use crate::load::{self, pointer};
use crate::machine;
use crate::objects::memory::PagesFiles;
use crate::os;

/// Bytes that are compared at once.
const PIECE: u32 = 64 << 10;
/// From how many bytes on the plan is asked first whether there will be anything to compare for.
const MUCH: u64 = 16 << 20;
/// How often a plan is made again because something of ours has come to lie in a place that it reserves.
const TRIES: usize = 3;

/// Compare the pages of each task with those of the one that it is forked from. `go_on` is asked again and again.
///
/// # Errors
/// A pages file cannot be read, or what `go_on` says, or, if that is cheaper than to read, what the plan refuses anyway.
pub fn compare(
    images: &Path,
    cp: &Checkpoint,
    machine: &Machine,
    options: &Options,
    go_on: &dyn Fn() -> Result<(), Error>,
) -> Result<Rc<Alike>, Error> {
    let mut alike = Alike::default();
    // A tree that cannot be is refused by the plan.
    let tree = (cp.tasks.len() > 1).then(|| armrest_plan::tree::tree(&cp.tasks));
    let Some(Ok(tree)) = tree else {
        return Ok(Rc::new(alike));
    };
    let mut by_maker: BTreeMap<usize, Vec<Comparing>> = BTreeMap::new();
    for q in questions(cp, &tree) {
        by_maker.entry(q.maker).or_default().push(q.into());
    }
    if by_maker.is_empty() {
        return Ok(Rc::new(alike));
    }
    let spans = by_maker.values().flatten().flat_map(|c| &c.spans);
    if spans.map(|s| u64::from(s.range.len())).sum::<u64>() > MUCH {
        forest(cp, machine, options)?;
    }
    let most = u32::try_from(cp.pages_files.len()).unwrap_or(u32::MAX);
    os::raise_open_files(most.saturating_add(64)).map_err(|e| Error::Machine {
        what: format!("descriptors for {most} pages files"),
        why: e.to_string(),
    })?;
    let mut reader = Reader {
        files: PagesFiles::open(images, cp)?,
        makers: vec![0; PIECE as usize],
        own: vec![0; PIECE as usize],
    };
    for mut children in by_maker.into_values() {
        reader.sweep(&mut children, go_on)?;
        for c in children.into_iter().filter(|c| !c.same.is_empty()) {
            alike.0.insert(c.task, joined(c.same));
        }
    }
    Ok(Rc::new(alike))
}

/// A task that is compared with its maker: how far, and what was the same.
struct Comparing {
    task: usize,
    spans: Vec<Span>,
    next: usize,
    same: Vec<Range>,
}

impl From<Question> for Comparing {
    fn from(q: Question) -> Comparing {
        Comparing {
            task: q.task,
            spans: q.spans,
            next: 0,
            same: Vec::new(),
        }
    }
}

impl Comparing {
    fn span(&self) -> Option<&Span> {
        self.spans.get(self.next)
    }
}

struct Reader {
    files: PagesFiles,
    makers: Vec<u8>,
    own: Vec<u8>,
}

impl Reader {
    /// Go through the pages of one maker once, piece by piece, beside those of all its children.
    fn sweep(
        &mut self,
        children: &mut [Comparing],
        go_on: &dyn Fn() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut at = 0;
        loop {
            // Where the next of them has something; the span reaches furthest that is read with it.
            let open = children.iter().filter_map(Comparing::span);
            let Some(first) = open.min_by_key(|s| (s.range.start.max(at), u32::MAX - s.range.end))
            else {
                return Ok(());
            };
            at = at.max(first.range.start);
            let piece = Range {
                start: at,
                end: first.range.end.min(at.saturating_add(PIECE)),
            };
            let (file, offset) = further(first.makers, piece.start - first.range.start);
            let makers = &mut self.makers[..piece.len() as usize];
            read(&self.files, file, offset, makers)?;
            for child in children.iter_mut() {
                while let Some(s) = child.span().copied()
                    && let Some(part) = s.range.meet(piece)
                {
                    let (file, offset) = further(s.own, part.start - s.range.start);
                    let own = &mut self.own[..part.len() as usize];
                    read(&self.files, file, offset, own)?;
                    let skip = (part.start - piece.start) as usize;
                    let pages = own
                        .chunks(PAGE_SIZE as usize)
                        .zip(makers[skip..].chunks(PAGE_SIZE as usize));
                    for (start, (a, b)) in (part.start..).step_by(PAGE_SIZE as usize).zip(pages) {
                        if a == b {
                            append(&mut child.same, start);
                        }
                    }
                    if s.range.end > piece.end {
                        break;
                    }
                    child.next += 1;
                }
            }
            at = piece.end;
            go_on()?;
        }
    }
}

/// One more page that is the same.
fn append(same: &mut Vec<Range>, start: u32) {
    let end = start + PAGE_SIZE;
    match same.last_mut().filter(|l| l.end == start) {
        Some(last) => last.end = end,
        None => same.push(Range { start, end }),
    }
}

fn further((file, offset): (usize, u64), by: u32) -> (usize, u64) {
    (file, offset + u64::from(by))
}

fn read(files: &PagesFiles, file: usize, offset: u64, to: &mut [u8]) -> Result<(), Error> {
    let (name, f) = &files.0[file];
    f.read_exact_at(to, offset).map_err(|e| Error::MissingFile {
        path: name.clone(),
        why: format!("pages file, offset {offset}: {e}"),
    })
}

/// Plan, and reserve the places in which memory is kept. Should something of ours have come to lie in one since the
/// machine was looked at, it is looked at again; in the end nothing is inherited.
///
/// # Errors
/// The plan's refusals, or no memory.
pub fn planned(
    cp: &Checkpoint,
    machine: &mut Machine,
    options: &mut Options,
) -> Result<(Forest, Reserved), Error> {
    let failed = |e: io::Error| Error::Machine {
        what: "reserving places for memory that children inherit".into(),
        why: e.to_string(),
    };
    for _ in 0..TRIES {
        let forest = forest(cp, machine, options)?;
        match Reserved::new(&forest.reserve) {
            Ok(reserved) => return Ok((forest, reserved)),
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {
                machine.maps =
                    machine::own_maps(&os::read_proc("/proc/self/maps").map_err(failed)?);
            }
            Err(e) => return Err(failed(e)),
        }
    }
    options.alike = Rc::default();
    let mut forest = forest(cp, machine, options)?;
    if let Some(root) = forest.plans.first_mut().and_then(Option::as_mut) {
        root.notes
            .push("memory: nothing is inherited, its places were taken again and again".into());
    }
    Ok((forest, Reserved(Vec::new())))
}

/// Places that nothing of ours comes to lie in. Given back when dropped.
#[derive(Debug)]
pub struct Reserved(Vec<Range>);

impl Reserved {
    fn new(ranges: &[Range]) -> io::Result<Reserved> {
        let mut done = Reserved(Vec::new());
        for r in ranges {
            reserve(*r, libc::MAP_FIXED_NOREPLACE)?;
            done.0.push(*r);
        }
        Ok(done)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        for r in &self.0 {
            // SAFETY: our own mapping, which nobody refers to.
            unsafe { libc::munmap(pointer(r.start).cast(), r.len() as usize) };
        }
    }
}

fn reserve(r: Range, fixed: libc::c_int) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    load::map(r, libc::PROT_NONE, flags, None)
}

/// Make the memory that this process was born with its task's own, as far as the plan says, before it has children.
///
/// # Errors
/// What the kernel says, in which call.
pub fn take(legacy: &Legacy, pages: &PagesFiles, hand: &Hand) -> Result<(), (String, io::Error)> {
    let named = |what: &'static str| move |e: io::Error| (what.to_owned(), e);
    for r in &legacy.leaves {
        reserve(*r, libc::MAP_FIXED).map_err(named("giving back inherited memory"))?;
    }
    for m in &legacy.maps {
        let r = Range {
            start: m.start,
            end: m.start + m.len,
        };
        load::map(r, m.prot.cast_signed(), m.flags.cast_signed(), None)
            .map_err(named("mapping memory for children"))?;
    }
    for r in &legacy.zaps {
        let at = pointer(r.start).cast();
        // SAFETY: private memory that the plan holds for this task alone; no reference into it exists.
        os::check(unsafe { libc::madvise(at, r.len() as usize, libc::MADV_DONTNEED) })
            .map_err(named("MADV_DONTNEED of inherited memory"))?;
    }
    for b in &legacy.batches {
        let file = usize::try_from(b.fd).ok().and_then(|f| pages.0.get(f));
        let file = file.map(|(_, f)| hand.take(f)).transpose();
        let file = file.map_err(named("a pages file"))?;
        let rows = legacy.iovecs.iter().skip(b.first as usize);
        let mut offset = b.offset;
        for v in rows.take(b.count as usize) {
            // SAFETY: writable memory of the kept VMAs, mapped above or by a maker; nobody else refers to it.
            let to = unsafe { std::slice::from_raw_parts_mut(pointer(v.base), v.len as usize) };
            let read = match &file {
                Some(f) => f.as_file().read_exact_at(to, offset),
                None => Err(io::ErrorKind::NotFound.into()),
            };
            read.map_err(named("reading memory for children"))?;
            offset += u64::from(v.len);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use armrest_images::Shares;
    use std::cell::Cell;
    use std::fs::File;
    use std::io::Write;

    /// A pages file of pages with these bytes.
    fn file(pages: &[u8]) -> (String, File) {
        let mut bytes = Vec::new();
        for b in pages {
            bytes.extend([*b; PAGE_SIZE as usize]);
        }
        let f = os::memfd("pages", &[], false).expect("a memory file");
        let mut f = File::from(f);
        f.write_all(&bytes).expect("bytes");
        ("pages".into(), f)
    }

    fn span(page: u32, pages: u32, own: (usize, u64), makers: (usize, u64)) -> Span {
        let page_size = u64::from(PAGE_SIZE);
        Span {
            range: pages_range(page, pages),
            own: (own.0, own.1 * page_size),
            makers: (makers.0, makers.1 * page_size),
        }
    }

    fn pages_range(page: u32, pages: u32) -> Range {
        Range {
            start: page * PAGE_SIZE,
            end: (page + pages) * PAGE_SIZE,
        }
    }

    fn comparing(task: usize, spans: Vec<Span>) -> Comparing {
        Question {
            task,
            maker: 0,
            spans,
        }
        .into()
    }

    /// Two children whose spans begin and end elsewhere, longer than a piece, in runs of their own.
    #[test]
    fn pages_are_compared_in_pieces_beside_each_other() {
        let makers: Vec<u8> = (0..40).collect();
        let mut one = makers.clone();
        one[3] = 200;
        one[39] = 201;
        let other: Vec<u8> = [99, 99].into_iter().chain(5..30).collect();
        let mut reader = Reader {
            files: PagesFiles(vec![file(&makers), file(&one), file(&other)]),
            makers: vec![0; PIECE as usize],
            own: vec![0; PIECE as usize],
        };
        let mut children = [
            // The maker's pages lie at 100; two runs of one child, three of the other.
            comparing(
                1,
                vec![
                    span(100, 30, (1, 0), (0, 0)),
                    span(130, 10, (1, 30), (0, 30)),
                ],
            ),
            comparing(
                2,
                vec![
                    span(105, 2, (2, 2), (0, 5)),
                    span(108, 22, (2, 5), (0, 8)),
                    span(130, 2, (2, 0), (0, 30)),
                ],
            ),
        ];
        let asked = Cell::new(0);
        let go_on = || {
            asked.set(asked.get() + 1);
            Ok(())
        };
        reader.sweep(&mut children, &go_on).expect("readable");
        let [a, b] = children.map(|c| joined(c.same));
        assert_eq!(a, [pages_range(100, 3), pages_range(104, 35)]);
        assert_eq!(b, [pages_range(105, 2), pages_range(108, 22)]);
        assert!(asked.get() >= 3, "asked {} times", asked.get());
    }

    /// With much to compare the plan is asked first: the pages files of this folder are not there.
    #[test]
    fn what_is_refused_anyway_is_refused_before_pages_are_read() {
        let mut cp = crate::verify::testing::load("workers");
        let last = cp.tasks.last().expect("a worker").clone();
        cp.tasks.extend((1..80).map(|n| {
            let mut t = last.clone();
            t.pid += n;
            let live = t.live.as_mut().expect("alive");
            live.threads[0].tid += n;
            live.files_id += n;
            live.shares = Shares::default();
            t
        }));
        let compared = |cp: &Checkpoint| {
            let options = Options::default();
            let nowhere = Path::new("/nowhere");
            compare(nowhere, cp, &Machine::generic(), &options, &|| Ok(()))
        };
        let e = compared(&cp).expect_err("no files");
        assert!(matches!(e, Error::MissingFile { .. }), "{e:?}");
        let live = cp.tasks[1].live.as_mut().expect("alive");
        live.fds[0].file = u32::MAX;
        let e = compared(&cp).expect_err("no file");
        assert!(matches!(e, Error::Refused(_)), "{e}");
    }

    #[test]
    fn a_file_that_ends_early_is_named() {
        let mut reader = Reader {
            files: PagesFiles(vec![file(&[1]), file(&[1, 2])]),
            makers: vec![0; PIECE as usize],
            own: vec![0; PIECE as usize],
        };
        let mut children = [comparing(1, vec![span(7, 2, (1, 0), (0, 0))])];
        let e = reader.sweep(&mut children, &|| Ok(())).expect_err("short");
        assert!(matches!(e, Error::MissingFile { .. }), "{e}");
    }
}
