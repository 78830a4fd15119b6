//! Memory objects with their contents.

use std::collections::BTreeMap;

use super::at::{At, need};
use super::source::{Source, Space};
use crate::checkpoint::{Memfd, PageMap};
use crate::error::{Error, Fault};
use crate::{magic, proto};

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
