//! SysV segments and memory objects with their contents.

use std::collections::{BTreeMap, BTreeSet};

use super::at::{At, need};
use super::source::{Source, Space};
use crate::checkpoint::{Memfd, PageMap, Segment};
use crate::error::{Error, Fault};
use crate::{magic, proto};

const SHM_DEST: u32 = 0o1000;
const SHM_LOCKED: u32 = 0o2000;

/// Reads the segments of the dumped IPC namespace.
pub(super) fn segments(source: &mut Source<'_>, ns: Option<u32>) -> Result<Vec<Segment>, Error> {
    let Some(ns) = ns else { return Ok(Vec::new()) };
    let name = format!("ipcns-shm-{ns}.img");
    let Some(bytes) = source.image(&name)? else {
        return Ok(Vec::new());
    };
    let file = At::file(&name);
    let mut reader = crate::container::Reader::open(&name, &bytes, magic::IPC_SHM)?;
    let (mut segments, mut seen) = (Vec::new(), BTreeSet::new());
    while let Some(e) = reader.entry_or_end::<proto::IpcShm>()? {
        let at = file.entry(reader.entry().unwrap_or_default());
        if e.in_pagemaps != Some(true) {
            return Err(at.err(
                "in_pagemaps",
                Fault::Unsupported("old images: contents of SysV segments inline"),
            ));
        }
        let segment = segment(source, &at, &e)?;
        if !seen.insert(segment.id) {
            return Err(at.twice("SysV segment", segment.id));
        }
        segments.push(segment);
    }
    Ok(segments)
}

fn segment(source: &mut Source<'_>, at: &At, e: &proto::IpcShm) -> Result<Segment, Error> {
    let desc = at.req("desc", e.desc.as_ref())?;
    let size = need!(at, e.size);
    // A 32-bit kernel counts the bytes in a size_t.
    if size == 0 || size > 0xffff_f000 {
        return Err(at.bad("size", size, "no size of a segment"));
    }
    let at = &at.sub("desc");
    let (id, mode) = (need!(at, desc.id), need!(at, desc.mode));
    if id > i32::MAX.cast_unsigned() {
        return Err(at.bad("id", id, "negative"));
    }
    if mode & !(0o777 | SHM_DEST | SHM_LOCKED) != 0 {
        return Err(at.unknown("mode", mode));
    }
    let pages = contents(source, u64::from(id), size)?;
    Ok(Segment {
        id,
        key: need!(at, desc.key),
        uid: need!(at, desc.uid),
        gid: need!(at, desc.gid),
        cuid: need!(at, desc.cuid),
        cgid: need!(at, desc.cgid),
        mode: mode & 0o777,
        dest: mode & SHM_DEST != 0,
        locked: mode & SHM_LOCKED != 0,
        size,
        hugetlb: e.hugetlb_flag.unwrap_or(0),
        pages,
    })
}

/// Reads `memfd.img`.
pub(super) fn memfds(source: &mut Source<'_>) -> Result<BTreeMap<u32, Memfd>, Error> {
    let name = "memfd.img";
    let file = At::file(name);
    let entries: Vec<proto::MemfdInode> = source.array(name, magic::MEMFD)?;
    let mut memfds = BTreeMap::new();
    for (n, e) in entries.into_iter().enumerate() {
        let at = file.entry(n);
        let inode = at.word("inode_id", e.inode_id)?;
        let (size, shmid) = (need!(at, e.size), need!(at, e.shmid));
        if size > 1 << 43 {
            return Err(at.bad("size", size, "larger than any file"));
        }
        // The dumper writes no page map for an empty one.
        let pages = if size == 0 {
            PageMap::default()
        } else {
            contents(source, u64::from(shmid), size)?
        };
        let memfd = Memfd {
            name: at.text("name", at.req("name", e.name.clone())?, 4095)?,
            uid: need!(at, e.uid),
            gid: need!(at, e.gid),
            size,
            seals: need!(at, e.seals),
            mode: e.mode,
            hugetlb: e.hugetlb_flag.unwrap_or(0),
            pages,
        };
        if memfds.insert(inode, memfd).is_some() {
            return Err(at.twice("memfd inode", inode));
        }
    }
    Ok(memfds)
}

/// Contents of a shared object; the dumper writes a page map even if nothing was ever written to the object.
pub(super) fn contents(source: &mut Source<'_>, shmid: u64, size: u64) -> Result<PageMap, Error> {
    let name = format!("pagemap-shmem-{shmid}.img");
    source
        .page_map(&name, Space::Object(size))?
        .ok_or_else(|| Error::new(&name, Fault::Missing))
}
