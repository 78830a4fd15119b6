//! Checkpoints that nobody dumped: `counter` with memory added between its heap and its mappings. They show how the
//! costs grow. Each says in its inventory's neighbour `GENERATED` what it is.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use armrest_abi::PAGE_SIZE;
use armrest_images::container::{Reader, Writer};
use armrest_images::{magic, proto};

use crate::Fail;

/// Where the added memory starts.
const BASE: u64 = 0x1000_0000;
const READ: u32 = 1;
const READ_WRITE: u32 = 3;
/// Flags of mmap.
const PRIVATE_ANONYMOUS: u32 = 0x22;
/// `PE_PRESENT` of a pagemap entry.
const PRESENT: u32 = 4;

/// What is added to `counter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// So many one-page VMAs side by side, read-write and read-only by turns; which of them have contents.
    OnePage(u32, Contents),
    /// One read-write VMA of so many pages, all with contents, in one run of the pages file.
    OneVma(u32),
}

/// Which of the one-page VMAs have contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// None.
    None,
    /// The read-write ones: each is a run of its own, as its neighbours have none.
    Every2nd,
    /// All: the read-only ones must lose the right to write once they are filled.
    All,
}

/// A range to be added: start, pages, rights, contents.
struct Piece {
    start: u64,
    pages: u32,
    prot: u32,
    filled: bool,
}

impl Piece {
    fn end(&self) -> u64 {
        self.start + u64::from(self.pages) * u64::from(PAGE_SIZE)
    }
}

fn pieces(added: Added) -> Vec<Piece> {
    match added {
        Added::OneVma(pages) => vec![Piece {
            start: BASE,
            pages,
            prot: READ_WRITE,
            filled: true,
        }],
        Added::OnePage(count, contents) => (0..count)
            .map(|i| Piece {
                start: BASE + u64::from(i) * u64::from(PAGE_SIZE),
                pages: 1,
                prot: if i % 2 == 0 { READ_WRITE } else { READ },
                filled: match contents {
                    Contents::None => false,
                    Contents::Every2nd => i % 2 == 0,
                    Contents::All => true,
                },
            })
            .collect(),
    }
}

/// Where the added pages lie in the pages file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Name of the pages file.
    pub file: String,
    /// Bytes before the gap.
    pub at: u64,
    /// Bytes of the gap, a hole of the file: zeros.
    pub len: u64,
}

/// Write the checkpoint: the images of `from` (`counter`, or a tree) with `added` in each task, into the fresh directory
/// `to`. One gap a task.
pub fn write(from: &Path, to: &Path, added: Added) -> Result<Vec<Gap>, Fail> {
    fs::create_dir_all(to)?;
    let pieces = pieces(added);
    let mut gaps = Vec::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".img") || name.starts_with("pages-") {
            continue;
        }
        let bytes = fs::read(entry.path())?;
        let bytes = if name.starts_with("mm-") {
            mm(&name, &bytes, &pieces)?
        } else if name.starts_with("pagemap-shmem-") {
            let (_, _, file) = pages_file(&name, &bytes)?;
            fs::copy(from.join(&file), to.join(&file))?;
            bytes
        } else if name.starts_with("pagemap-") {
            let (bytes, there) = pages(from, to, &name, &bytes, &pieces)?;
            gaps.push(there);
            bytes
        } else {
            bytes
        };
        fs::write(to.join(name), bytes)?;
    }
    fs::write(
        to.join("GENERATED"),
        format!("by tools/bench from {}: {added:?}\n", from.display()),
    )?;
    Ok(gaps)
}

fn mm(name: &str, bytes: &[u8], pieces: &[Piece]) -> Result<Vec<u8>, Fail> {
    let mut mm: proto::Mm = Reader::open(name, bytes, magic::MM)?.only()?;
    let at = mm.vmas.partition_point(|v| v.start < Some(BASE));
    let like = mm.vmas[at..]
        .iter()
        .find(|v| v.flags == Some(PRIVATE_ANONYMOUS))
        .ok_or("there is no plain memory above the heap")?
        .clone();
    let new = pieces.iter().map(|p| proto::VmaEntry {
        start: Some(p.start),
        end: Some(p.end()),
        prot: Some(p.prot),
        ..like.clone()
    });
    let new: Vec<_> = new.collect();
    mm.vmas.splice(at..at, new);
    Ok(Writer::new(magic::MM).entry(&mm).finish())
}

/// The entries of a pagemap, its head, and the name of its pages file.
fn pages_file<'a>(
    name: &'a str,
    bytes: &'a [u8],
) -> Result<(Reader<'a>, proto::PagemapHead, String), Fail> {
    let mut reader = Reader::open(name, bytes, magic::PAGEMAP)?;
    let head: proto::PagemapHead = reader.framed()?;
    let id = head.pages_id.ok_or("pagemap without id")?;
    Ok((reader, head, format!("pages-{id}.img")))
}

/// The pagemap, and the pages file in its order. Added pages are holes of the file, so it takes no room: zeros.
fn pages(
    from: &Path,
    to: &Path,
    name: &str,
    bytes: &[u8],
    pieces: &[Piece],
) -> Result<(Vec<u8>, Gap), Fail> {
    let (mut reader, head, file) = pages_file(name, bytes)?;
    let mut entries: Vec<proto::PagemapEntry> = Vec::new();
    while let Some(e) = reader.entry_or_end()? {
        entries.push(e);
    }
    let at = entries.partition_point(|e| e.vaddr < Some(BASE));
    let before: u64 = entries[..at].iter().filter_map(|e| e.nr_pages).sum();
    let split = usize::try_from(before * u64::from(PAGE_SIZE))?;
    let old = fs::read(from.join(&file))?;
    let new: Vec<_> = pieces
        .iter()
        .filter(|p| p.filled)
        .map(|p| proto::PagemapEntry {
            vaddr: Some(p.start),
            compat_nr_pages: Some(0),
            in_parent: None,
            flags: Some(PRESENT),
            nr_pages: Some(u64::from(p.pages)),
        })
        .collect();
    let gap: u64 = new.iter().filter_map(|e| e.nr_pages).sum();
    entries.splice(at..at, new);
    let mut out = File::create(to.join(&file))?;
    out.write_all(&old[..split])?;
    out.seek(SeekFrom::Current(i64::try_from(
        gap * u64::from(PAGE_SIZE),
    )?))?;
    out.write_all(&old[split..])?;
    let writer = Writer::new(magic::PAGEMAP).entry(&head);
    let bytes = entries.iter().fold(writer, |w, e| w.entry(e)).finish();
    let there = Gap {
        file,
        at: u64::try_from(split)?,
        len: gap * u64::from(PAGE_SIZE),
    };
    Ok((bytes, there))
}
