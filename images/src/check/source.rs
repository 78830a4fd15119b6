//! Reads images and page maps on behalf of the checks, and keeps the list of pages files.

use std::collections::BTreeMap;

use prost::Message;

use super::at::{At, need};
use super::number::number;
use crate::checkpoint::{AddrRange, PAGE, PageMap, PageRun, PagesFile};
use crate::container::Reader;
use crate::dir::ImageDir;
use crate::error::{Error, Fault};
use crate::magic;
use crate::proto::{PagemapEntry, PagemapHead};

/// So many incremental dumps may be stacked.
pub(super) const MAX_PARENTS: usize = 64;

const PE_PARENT: u32 = 1;
const PE_LAZY: u32 = 2;
const PE_PRESENT: u32 = 4;

/// The images directory and its parents.
pub(super) struct Source<'a> {
    dir: &'a dyn ImageDir,
    parents: Vec<Box<dyn ImageDir>>,
    /// Bytes read so far.
    pub bytes: u64,
    /// Pages files so far.
    pub pages_files: Vec<PagesFile>,
    /// For each of them: level and plain name.
    homes: Vec<(usize, String)>,
    /// Index in both by name.
    known: BTreeMap<String, usize>,
}

/// What a page map describes: decides which counts are sane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// 4 GiB of addresses.
    Task,
    /// An object of this many bytes (rounded up to pages by the callee).
    Object(u64),
}

impl<'a> Source<'a> {
    pub fn new(dir: &'a dyn ImageDir) -> Source<'a> {
        Source {
            dir,
            parents: Vec::new(),
            bytes: 0,
            pages_files: Vec::new(),
            homes: Vec::new(),
            known: BTreeMap::new(),
        }
    }

    fn level(&mut self, n: usize) -> Result<&dyn ImageDir, Error> {
        while self.parents.len() < n {
            let name = format!("{}parent", prefix(self.parents.len()));
            if self.parents.len() >= MAX_PARENTS {
                return Err(Error::new(
                    "parent",
                    Fault::BadCount {
                        expected: "at most 64 parents",
                        found: 65,
                    },
                ));
            }
            let from: &dyn ImageDir = self.parents.last().map_or(self.dir, |p| p.as_ref());
            let parent = from.parent().map_err(|e| io(&name, &e))?;
            self.parents
                .push(parent.ok_or_else(|| Error::new(&name, Fault::Missing))?);
        }
        Ok(match n.checked_sub(1).and_then(|i| self.parents.get(i)) {
            Some(p) => p.as_ref(),
            None => self.dir,
        })
    }

    fn read(&mut self, level: usize, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let shown = |e| io(&format!("{}{name}", prefix(level)), &e);
        let bytes = self.level(level)?.read(name).map_err(shown)?;
        if let Some(b) = &bytes {
            self.bytes = self
                .bytes
                .saturating_add(u64::try_from(b.len()).unwrap_or(u64::MAX));
        }
        Ok(bytes)
    }

    /// Names of all images.
    pub fn list(&self) -> Result<Vec<String>, Error> {
        self.dir.list().map_err(|e| io(".", &e))
    }

    /// An image that may be missing.
    pub fn image(&mut self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read(0, name)
    }

    /// The entry of a one-entry image that must be there.
    pub fn one<M: Message + Default>(&mut self, name: &str, magic: u32) -> Result<M, Error> {
        self.one_or_none(name, magic)?
            .ok_or_else(|| Error::new(name, Fault::Missing))
    }

    /// The entry of a one-entry image, if there is such an image.
    pub fn one_or_none<M: Message + Default>(
        &mut self,
        name: &str,
        magic: u32,
    ) -> Result<Option<M>, Error> {
        let Some(bytes) = self.image(name)? else {
            return Ok(None);
        };
        Reader::open(name, &bytes, magic)?.only().map(Some)
    }

    /// The one entry in the bytes of an image, its members `tag` apart.
    pub fn apart<'b, M: Message + Default>(
        name: &'b str,
        bytes: &'b [u8],
        magic: u32,
        tag: u32,
    ) -> Result<(M, Vec<&'b [u8]>), Error> {
        Reader::open(name, bytes, magic)?.only_without(tag)
    }

    /// All entries of an array image; none if it is missing, as empty images are never written.
    pub fn array<M: Message + Default>(&mut self, name: &str, magic: u32) -> Result<Vec<M>, Error> {
        let Some(bytes) = self.image(name)? else {
            return Ok(Vec::new());
        };
        let mut reader = Reader::open(name, &bytes, magic)?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.entry_or_end()? {
            entries.push(entry);
        }
        Ok(entries)
    }

    /// An image that is walked without being read whole: what its messages are followed by may be long.
    pub fn stream(&mut self, name: &str, magic: u32) -> Result<Stream<'_>, Error> {
        let size = self.dir.size(name).map_err(|e| io(name, &e))?;
        let size = size.ok_or_else(|| Error::new(name, Fault::Missing))?;
        let mut stream = Stream {
            dir: self.dir,
            name: name.to_owned(),
            size,
            at: 0,
        };
        let head = stream.bytes(8)?;
        Reader::open(name, &head, magic)?;
        self.bytes = self.bytes.saturating_add(size);
        Ok(stream)
    }

    /// The page map `name`, with everything that lies in parents resolved; `None` if there is no such image.
    pub fn page_map(&mut self, name: &str, space: Space) -> Result<Option<PageMap>, Error> {
        self.page_map_at(0, name, space)
    }

    fn page_map_at(
        &mut self,
        level: usize,
        name: &str,
        space: Space,
    ) -> Result<Option<PageMap>, Error> {
        let Some(bytes) = self.read(level, name)? else {
            return Ok(None);
        };
        let shown = format!("{}{name}", prefix(level));
        let mut reader = Reader::open(&shown, &bytes, magic::PAGEMAP)?;
        let Some(head) = reader.entry_or_end::<PagemapHead>()? else {
            return Err(reader.fault(
                "",
                Fault::Entries {
                    expected: "a head",
                    found: 0,
                },
            ));
        };
        let at = At::file(&shown);
        let head_at = at.entry(0);
        let pages_id = need!(head_at, head.pages_id);

        // Bounds: a page map of a parent may tell of memory that is gone by now, but never of more than can be.
        let limit = match space {
            Space::Object(size) if level == 0 => size
                .checked_next_multiple_of(u64::from(PAGE))
                .unwrap_or(u64::MAX),
            Space::Object(_) => 1 << 44,
            Space::Task => 1 << 32,
        };
        // What is here has its place in the file; which file is known when all are read. What is in the parent follows
        // `here.0` runs of that, with the number of its entry.
        let mut here: Vec<PageRun> = Vec::new();
        let mut there: Vec<(usize, usize, u64, u32)> = Vec::new();
        let (mut end_before, mut need) = (0u64, 0u64);
        let mut entry_at = at.entry(0);
        while let Some(e) = reader.entry_of(quick_entry)? {
            let n = reader.entry().unwrap_or_default();
            entry_at.go_to(n);
            let (addr, pages, in_parent) = check_run(&entry_at, &e, end_before, space, limit)?;
            let size = u64::from(pages) * u64::from(PAGE);
            end_before = addr + size;
            if in_parent {
                there.push((here.len(), n, addr, pages));
                continue;
            }
            let run = PageRun {
                addr,
                pages,
                file: 0,
                offset: need,
            };
            // Not over a run of the parent: a run has one file.
            if there.last().is_some_and(|t| t.0 == here.len()) {
                here.push(run);
            } else {
                push_run(&mut here, run);
            }
            need += size;
        }

        let file = self.pages_file(level, pages_id, need)?;
        for run in &mut here {
            run.file = file;
        }
        if there.is_empty() {
            return Ok(Some(PageMap { runs: here }));
        }
        let below = self.page_map_at(level + 1, name, space)?;
        let mut runs = Vec::new();
        let mut here = here.into_iter();
        let mut taken = 0;
        for (before, n, addr, pages) in there {
            runs.extend(here.by_ref().take(before - taken));
            taken = before;
            let found = below
                .as_ref()
                .is_some_and(|b| copy_runs(b, addr, pages, &mut runs));
            if !found {
                let fault = Fault::BadPagemap {
                    addr,
                    pages: u64::from(pages),
                    why: "not in the parent checkpoint",
                };
                return Err(at.entry(n).err("", fault));
            }
        }
        runs.extend(here);
        Ok(Some(PageMap { runs }))
    }

    /// Registers `pages-ID.img` of a level after comparing its size with what the page map told.
    fn pages_file(&mut self, level: usize, id: u32, need: u64) -> Result<usize, Error> {
        let plain = format!("pages-{id}.img");
        let name = format!("{}{plain}", prefix(level));
        let size = self.level(level)?.size(&plain).map_err(|e| io(&name, &e))?;
        let have = match size {
            None if need > 0 => return Err(Error::new(&name, Fault::Missing)),
            None => 0,
            Some(n) => n,
        };
        if have < need {
            return Err(Error::new(&name, Fault::PagesShort { need, have }));
        }
        if have > need {
            return Err(Error::new(&name, Fault::PagesLong { need, have }));
        }
        if let Some(n) = self.known.get(&name) {
            return Ok(*n);
        }
        self.known.insert(name.clone(), self.pages_files.len());
        self.pages_files.push(PagesFile { name, size: have });
        self.homes.push((level, plain));
        Ok(self.pages_files.len() - 1)
    }

    /// The saved pages of a map from `from` up to `to`, with their addresses; both are whole pages.
    pub fn saved(
        &mut self,
        map: &PageMap,
        from: u64,
        to: u64,
    ) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let size = u64::from(PAGE);
        let first = map
            .runs
            .partition_point(|r| r.addr + u64::from(r.pages) * size <= from);
        let mut out = Vec::new();
        for run in map.runs.iter().skip(first).take_while(|r| r.addr < to) {
            let low = run.addr.max(from);
            let high = (run.addr + u64::from(run.pages) * size).min(to);
            let Some((level, name)) = self.homes.get(run.file).cloned() else {
                continue;
            };
            let len = usize::try_from(high - low).unwrap_or(usize::MAX);
            let bytes = self
                .level(level)?
                .read_at(&name, run.offset + (low - run.addr), len)
                .map_err(|e| io(&name, &e))?;
            out.push((low, bytes));
        }
        Ok(out)
    }

    /// Contents of `range` if all its pages are in the map.
    pub fn contents(&mut self, map: &PageMap, range: AddrRange) -> Result<Option<Vec<u8>>, Error> {
        let mut runs = Vec::new();
        if !copy_runs(map, u64::from(range.start()), range.pages(), &mut runs) {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        for run in runs {
            let Some((level, name)) = self.homes.get(run.file).cloned() else {
                return Ok(None);
            };
            let len = usize::try_from(u64::from(run.pages) * u64::from(PAGE)).unwrap_or(usize::MAX);
            let part = self
                .level(level)?
                .read_at(&name, run.offset, len)
                .map_err(|e| io(&name, &e))?;
            bytes.extend_from_slice(&part);
        }
        Ok(Some(bytes))
    }
}

/// An image that is walked.
pub(super) struct Stream<'a> {
    dir: &'a dyn ImageDir,
    name: String,
    size: u64,
    at: u64,
}

impl Stream<'_> {
    /// Bytes that are left.
    pub fn rest(&self) -> u64 {
        self.size - self.at
    }
    /// Where the next byte is.
    pub fn offset(&self) -> u64 {
        self.at
    }
    /// Goes on behind `n` bytes.
    pub fn skip(&mut self, n: u64) -> Result<(), Error> {
        if n > self.rest() {
            let (need, have) = (n, self.rest());
            return Err(Error::new(&self.name, Fault::Truncated { need, have }));
        }
        self.at += n;
        Ok(())
    }
    fn bytes(&mut self, n: u64) -> Result<Vec<u8>, Error> {
        let at = self.at;
        self.skip(n)?;
        // A message of more than 1 MiB is none that follows contents.
        let len = usize::try_from(n).ok().filter(|n| *n <= 1 << 20);
        let len = len.ok_or_else(|| Error::new(&self.name, Fault::TooLarge))?;
        self.dir
            .read_at(&self.name, at, len)
            .map_err(|e| io(&self.name, &e))
    }
    /// The next message.
    pub fn framed<M: Message + Default>(&mut self) -> Result<M, Error> {
        let head = self.bytes(4)?;
        let len = head.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let body = self.bytes(len)?;
        M::decode(&body[..]).map_err(|e| Error::new(&self.name, Fault::Damaged(e.to_string())))
    }
}

/// An entry of a page map, unless it is an unusual one.
fn quick_entry(mut bytes: &[u8]) -> Option<PagemapEntry> {
    let mut e = PagemapEntry::default();
    while !bytes.is_empty() {
        let (tag, value, rest) = number(bytes)?;
        bytes = rest;
        match tag {
            1 => e.vaddr = Some(value.into()),
            2 => e.compat_nr_pages = Some(value),
            3 => e.in_parent = Some(value != 0),
            4 => e.flags = Some(value),
            5 => e.nr_pages = Some(value.into()),
            _ => return None,
        }
    }
    Some(e)
}

/// One entry of a page map: address, pages, in parent.
fn check_run(
    at: &At,
    e: &PagemapEntry,
    after: u64,
    space: Space,
    limit: u64,
) -> Result<(u64, u32, bool), Error> {
    let addr = need!(at, e.vaddr);
    let old_count = need!(at, e.compat_nr_pages);
    let pages = e.nr_pages.unwrap_or(u64::from(old_count));
    let field = if e.nr_pages.is_some() {
        "nr_pages"
    } else {
        "compat_nr_pages"
    };
    let (most, expected) = match space {
        Space::Task => (1 << 20, "1 to 2^20 pages"),
        Space::Object(_) => (1 << 28, "1 to 2^28 pages"),
    };
    if pages == 0 || pages > most {
        return Err(at.err(
            field,
            Fault::BadCount {
                expected,
                found: pages,
            },
        ));
    }
    let count = u32::try_from(pages).map_err(|_| {
        at.err(
            field,
            Fault::BadCount {
                expected,
                found: pages,
            },
        )
    })?;
    let bad = |why| at.err("", Fault::BadPagemap { addr, pages, why });
    if !addr.is_multiple_of(u64::from(PAGE)) {
        return Err(bad("not page-aligned"));
    }
    if addr < after {
        return Err(bad("overlaps the run before it, or runs are out of order"));
    }
    if addr
        .checked_add(pages * u64::from(PAGE))
        .is_none_or(|end| end > limit)
    {
        return Err(bad("beyond the end"));
    }
    let flags = match (e.in_parent, e.flags) {
        (Some(true), f) => f.unwrap_or(0) | PE_PARENT,
        (_, Some(f)) => f,
        (_, None) => PE_PRESENT,
    };
    if flags & !(PE_PARENT | PE_LAZY | PE_PRESENT) != 0 {
        return Err(at.unknown("flags", flags));
    }
    match (flags & PE_PARENT != 0, flags & PE_PRESENT != 0) {
        (true, true) => Err(bad("both here and in the parent checkpoint")),
        (false, false) => Err(bad(
            "its pages are neither here nor in the parent checkpoint",
        )),
        (in_parent, _) => Ok((addr, count, in_parent)),
    }
}

/// Adds a run, or makes the last one longer: dumpers end a run at the end of each mapping.
fn push_run(runs: &mut Vec<PageRun>, next: PageRun) {
    if let Some(last) = runs.last_mut()
        && last.file == next.file
        && last.addr + u64::from(last.pages) * u64::from(PAGE) == next.addr
        && last.offset + u64::from(last.pages) * u64::from(PAGE) == next.offset
        && let Some(pages) = last.pages.checked_add(next.pages)
    {
        last.pages = pages;
        return;
    }
    runs.push(next);
}

/// Copies the runs that cover `pages` pages at `addr`; false if some page is not covered.
fn copy_runs(map: &PageMap, addr: u64, pages: u32, into: &mut Vec<PageRun>) -> bool {
    let end_of = |r: &PageRun| r.addr + u64::from(r.pages) * u64::from(PAGE);
    let end = addr + u64::from(pages) * u64::from(PAGE);
    let mut next = addr;
    let first = map.runs.partition_point(|r| end_of(r) <= addr);
    for run in map.runs.iter().skip(first) {
        if next >= end || run.addr > next {
            break;
        }
        let to = end_of(run).min(end);
        let Ok(count) = u32::try_from((to - next) / u64::from(PAGE)) else {
            return false;
        };
        into.push(PageRun {
            addr: next,
            pages: count,
            file: run.file,
            offset: run.offset + (next - run.addr),
        });
        next = to;
    }
    next >= end
}

/// `parent/` once a level.
fn prefix(level: usize) -> String {
    "parent/".repeat(level)
}

pub(super) fn io(file: &str, e: &std::io::Error) -> Error {
    let fault = match e.kind() {
        std::io::ErrorKind::FileTooLarge => Fault::TooLarge,
        std::io::ErrorKind::NotFound => Fault::Missing,
        _ => Fault::Io(e.to_string()),
    };
    Error::new(file, fault)
}
