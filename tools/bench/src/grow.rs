//! Checkpoints that nobody dumped, of more or fewer tasks and threads than a sample has: `troop8` with children added,
//! each a copy of its first, and `crowd` with threads left out. They show how the cost of a restore grows. What the
//! program says of itself afterwards is worth nothing: a copied child has another's number.

use std::fs;
use std::path::Path;

use armrest_abi::PAGE_SIZE;
use armrest_images::container::{Reader, Writer, edit};
use armrest_images::{magic, proto};
use prost::Message;

use crate::Fail;

/// Of the threads in `crowd`, each has a stack at the start of a slot of so many bytes.
const SLOT: u64 = 0x1_0000;
/// `PE_PRESENT` of a pagemap entry.
const PRESENT: u32 = 4;

/// The images of a sample, and the folder that gets them changed.
struct Growth<'a> {
    from: &'a Path,
    to: &'a Path,
}

/// The number in the names of all images of this kind.
fn number(name: &str, kind: &str) -> Option<u32> {
    let rest = name.strip_prefix(kind)?.strip_prefix('-')?;
    rest.strip_suffix(".img")?.parse().ok()
}

/// The highest value, and it must be there.
fn highest(values: impl Iterator<Item = Option<u32>>) -> Result<u32, Fail> {
    values.flatten().max().ok_or_else(|| "no number".into())
}

impl Growth<'_> {
    /// The names of all images.
    fn names(&self) -> Result<Vec<String>, Fail> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.from)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".img") {
                all.push(name);
            }
        }
        Ok(all)
    }

    /// Copies the images whose names are wanted.
    fn copy(&self, wanted: impl Fn(&str) -> bool) -> Result<(), Fail> {
        fs::create_dir_all(self.to)?;
        for name in self.names()?.iter().filter(|name| wanted(name)) {
            fs::copy(self.from.join(name), self.to.join(name))?;
        }
        Ok(())
    }

    /// Reads the image `name` of the sample, changes its entries, and writes it as `to`.
    fn edit<M: Message + Default>(
        &self,
        name: &str,
        kind: u32,
        to: &str,
        change: impl FnOnce(&mut Vec<M>),
    ) -> Result<(), Fail> {
        let old = fs::read(self.from.join(name))?;
        fs::write(self.to.join(to), edit(name, &old, kind, change)?)?;
        Ok(())
    }

    /// The entries of an image of the sample.
    fn entries<M: Message + Default>(&self, name: &str, kind: u32) -> Result<Vec<M>, Fail> {
        let bytes = fs::read(self.from.join(name))?;
        let mut reader = Reader::open(name, &bytes, kind)?;
        let mut all = Vec::new();
        while let Some(entry) = reader.entry_or_end()? {
            all.push(entry);
        }
        Ok(all)
    }

    fn only<M: Message + Default>(&self, name: &str, kind: u32) -> Result<M, Fail> {
        let bytes = fs::read(self.from.join(name))?;
        Ok(Reader::open(name, &bytes, kind)?.only()?)
    }

    /// Says what it is.
    fn mark(&self, what: &str) -> Result<(), Fail> {
        let text = format!("by tools/bench from {}: {what}\n", self.from.display());
        Ok(fs::write(self.to.join("GENERATED"), text)?)
    }

    /// The page map `name` with its head and entries changed, as `to`.
    fn pagemap(
        &self,
        name: &str,
        to: &str,
        change: impl FnOnce(&mut proto::PagemapHead, &mut Vec<proto::PagemapEntry>) -> Result<(), Fail>,
    ) -> Result<(), Fail> {
        let bytes = fs::read(self.from.join(name))?;
        let mut reader = Reader::open(name, &bytes, magic::PAGEMAP)?;
        let mut head: proto::PagemapHead = reader.framed()?;
        let mut entries = Vec::new();
        while let Some(entry) = reader.entry_or_end()? {
            entries.push(entry);
        }
        change(&mut head, &mut entries)?;
        let writer = Writer::new(magic::PAGEMAP).entry(&head);
        let image = entries.iter().fold(writer, |w, e| w.entry(e)).finish();
        Ok(fs::write(self.to.join(to), image)?)
    }
}

/// A descriptor like `of` at another number, of another file.
fn descriptor(of: &proto::Fdinfo, fd: u32, id: u32) -> proto::Fdinfo {
    proto::Fdinfo {
        id: Some(id),
        fd: Some(fd),
        ..of.clone()
    }
}

/// Writes `from` (`troop8`) into the fresh directory `to` as a tree of `tasks` processes: each new one is a copy of the
/// first child, memory included, with a pipe, a directory, ids and images of its own; the parent has the other end.
///
/// # Errors
/// A file cannot be read or written, or the sample is not as expected.
pub fn troop(from: &Path, to: &Path, tasks: u32) -> Result<(), Fail> {
    let growth = Growth { from, to };
    growth.copy(|_| true)?;
    let mut tree: Vec<proto::Pstree> = growth.entries("pstree.img", magic::PSTREE)?;
    let [root, child, ..] = tree.as_slice() else {
        return Err("troop: a parent and a child are wanted".into());
    };
    let (parent, child) = (root.pid.ok_or("a pid")?, child.clone());
    let model = child.pid.ok_or("a pid")?;
    let ids: proto::Ids = growth.only(&format!("ids-{model}.img"), magic::IDS)?;
    let place: proto::Fs = growth.only(&format!("fs-{model}.img"), magic::FS)?;
    let table = ids.files_id.ok_or("a table")?;
    let opened: Vec<proto::Fdinfo> =
        growth.entries(&format!("fdinfo-{table}.img"), magic::FDINFO)?;
    let root_ids: proto::Ids = growth.only(&format!("ids-{parent}.img"), magic::IDS)?;
    let held = format!("fdinfo-{}.img", root_ids.files_id.ok_or("a table")?);
    let mut held_by_parent: Vec<proto::Fdinfo> = growth.entries(&held, magic::FDINFO)?;
    let mut files: Vec<proto::FileEntry> = growth.entries("files.img", magic::FILES)?;
    let mut data: Vec<proto::PipeData> = growth.entries("pipes-data.img", magic::PIPES_DATA)?;

    // The pipe that the first child reads requests from, and the parent's end of it.
    let file = |id: Option<u32>| {
        let found = files.iter().find(|f| f.id == id);
        found.cloned().ok_or("a file that is not there")
    };
    let asked = opened.last().ok_or("a descriptor")?.clone();
    let reading = file(asked.id)?;
    let pipe = reading.pipe.as_ref().and_then(|p| p.pipe_id);
    let writing = files
        .iter()
        .find(|f| f.id != reading.id && f.pipe.as_ref().is_some_and(|p| p.pipe_id == pipe));
    let writing = writing.ok_or("the other end of a pipe")?.clone();
    let asking = held_by_parent.iter().find(|d| d.id == writing.id);
    let asking = asking.ok_or("a descriptor of the other end")?.clone();
    let (cwd, top) = (file(place.cwd_id)?, file(place.root_id)?);
    let contents = data
        .iter()
        .find(|d| d.pipe_id == pipe)
        .ok_or("a pipe")?
        .clone();

    let mut next_id = highest(files.iter().map(|f| f.id))?;
    let mut next_fd = highest(held_by_parent.iter().map(|d| d.fd))?;
    let mut next_pipe = highest(data.iter().map(|d| d.pipe_id))?;
    let mut next_pid = highest(tree.iter().map(|t| t.pid))?;
    let names = growth.names()?;
    let mut next_pages = highest(names.iter().map(|name| number(name, "pages")))?;
    let mut next_table = highest(names.iter().map(|name| number(name, "fdinfo")))?;
    let have = u32::try_from(tree.len())?;
    for _ in have..tasks {
        (next_pid, next_fd, next_pipe) = (next_pid + 1, next_fd + 1, next_pipe + 1);
        (next_pages, next_table) = (next_pages + 1, next_table + 1);
        let mut new = |of: &proto::FileEntry| {
            next_id += 1;
            let mut file = of.clone();
            file.id = Some(next_id);
            if let Some(reg) = &mut file.reg {
                reg.id = Some(next_id);
            }
            if let Some(pipe) = &mut file.pipe {
                (pipe.id, pipe.pipe_id) = (Some(next_id), Some(next_pipe));
            }
            files.push(file);
            next_id
        };
        let (write, read, cwd, top) = (new(&writing), new(&reading), new(&cwd), new(&top));
        held_by_parent.push(descriptor(&asking, next_fd, write));
        data.push(proto::PipeData {
            pipe_id: Some(next_pipe),
            ..contents.clone()
        });
        tree.push(proto::Pstree {
            pid: Some(next_pid),
            threads: vec![next_pid],
            ..child.clone()
        });
        growth.edit::<proto::Fdinfo>(
            &format!("fdinfo-{table}.img"),
            magic::FDINFO,
            &format!("fdinfo-{next_table}.img"),
            |all| {
                for d in all.iter_mut().filter(|d| d.id == asked.id) {
                    d.id = Some(read);
                }
            },
        )?;
        growth.edit::<proto::Ids>(
            &format!("ids-{model}.img"),
            magic::IDS,
            &format!("ids-{next_pid}.img"),
            |all| {
                for i in all {
                    (i.vm_id, i.files_id) = (Some(next_table), Some(next_table));
                    (i.fs_id, i.sighand_id) = (Some(next_table), Some(next_table));
                }
            },
        )?;
        growth.edit::<proto::Fs>(
            &format!("fs-{model}.img"),
            magic::FS,
            &format!("fs-{next_pid}.img"),
            |all| {
                for f in all {
                    (f.cwd_id, f.root_id) = (Some(cwd), Some(top));
                }
            },
        )?;
        for kind in ["core", "mm"] {
            fs::copy(
                from.join(format!("{kind}-{model}.img")),
                to.join(format!("{kind}-{next_pid}.img")),
            )?;
        }
        let mut pages = None;
        growth.pagemap(
            &format!("pagemap-{model}.img"),
            &format!("pagemap-{next_pid}.img"),
            |head, _| {
                pages = head.pages_id.replace(next_pages);
                Ok(())
            },
        )?;
        fs::copy(
            from.join(format!("pages-{}.img", pages.ok_or("a pages file")?)),
            to.join(format!("pages-{next_pages}.img")),
        )?;
    }
    growth.edit("pstree.img", magic::PSTREE, "pstree.img", |all| *all = tree)?;
    growth.edit("files.img", magic::FILES, "files.img", |all| *all = files)?;
    growth.edit(
        "pipes-data.img",
        magic::PIPES_DATA,
        "pipes-data.img",
        |all| *all = data,
    )?;
    growth.edit(&held, magic::FDINFO, &held, |all| *all = held_by_parent)?;
    growth.mark(&format!("{tasks} tasks"))
}

/// Writes `from` (`crowd`) into the fresh directory `to` with `threads` threads beside the first one: the others are left
/// out, and with them the pages of their stacks.
///
/// # Errors
/// A file cannot be read or written, or the sample is not as expected.
pub fn crowd(from: &Path, to: &Path, threads: usize) -> Result<(), Fail> {
    let growth = Growth { from, to };
    let tree: proto::Pstree = growth.only("pstree.img", magic::PSTREE)?;
    let pid = tree.pid.ok_or("a pid")?;
    let gone = tree
        .threads
        .get(threads + 1..)
        .ok_or("crowd: not so many threads")?;
    growth.copy(|name| number(name, "core").is_none_or(|tid| !gone.contains(&tid)))?;
    growth.edit::<proto::Pstree>("pstree.img", magic::PSTREE, "pstree.img", |all| {
        for task in all {
            task.threads.truncate(threads + 1);
        }
    })?;
    let mm: proto::Mm = growth.only(&format!("mm-{pid}.img"), magic::MM)?;
    let mut slots = Vec::new();
    for tid in gone {
        let core: proto::Core = growth.only(&format!("core-{tid}.img"), magic::CORE)?;
        let tls = core.ti_arm.and_then(|t| t.tls).map(u64::from);
        let tls = tls.ok_or("a thread without TLS")?;
        let area = mm
            .vmas
            .iter()
            .filter_map(|v| v.start)
            .rfind(|start| *start <= tls);
        let area = area.ok_or("TLS outside of all memory")?;
        slots.push(area + (tls - area) / SLOT * SLOT);
    }
    slots.sort_unstable();
    let name = format!("pagemap-{pid}.img");
    let page = u64::from(PAGE_SIZE);
    growth.pagemap(&name, &name, |head, entries| {
        let file = format!("pages-{}.img", head.pages_id.ok_or("pagemap without id")?);
        let old = fs::read(from.join(&file))?;
        let (mut new, mut kept, mut at) = (Vec::new(), Vec::new(), 0);
        for run in entries.drain(..) {
            let start = run.vaddr.ok_or("a run without address")?;
            let bytes = run.nr_pages.ok_or("a run without length")? * page;
            let here = run.flags.is_none_or(|f| f & PRESENT != 0);
            let next = at + if here { usize::try_from(bytes)? } else { 0 };
            let slot = slots[..slots.partition_point(|s| *s <= start)].last();
            if slot.is_none_or(|slot| *slot + SLOT <= start) {
                new.extend_from_slice(old.get(at..next).ok_or("a pages file that is short")?);
                kept.push(run);
            } else if slot.is_some_and(|slot| slot + SLOT < start + bytes) {
                return Err("a run of pages of several stacks".into());
            }
            at = next;
        }
        *entries = kept;
        Ok(fs::write(to.join(file), new)?)
    })?;
    growth.mark(&format!("{threads} threads beside the first"))
}
