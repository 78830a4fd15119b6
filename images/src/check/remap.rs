//! Names that are gone: deleted files with their contents, and names that the dumper made (`link_remap.N`).

use std::collections::BTreeMap;

use super::at::{At, need};
use super::source::Source;
use crate::checkpoint::File;
use crate::error::{Error, Fault};
use crate::kinds::{Ghost, GhostPiece, Remap};
use crate::{magic, proto};

const GHOST: u32 = 1 << 31;
/// A deleted file with more holes than this is none that a program makes.
const MAX_PIECES: usize = 1 << 16;

/// Reads `remap-fpath.img` into the files, and the ghosts that it names.
pub(super) fn read(
    source: &mut Source<'_>,
    files: &mut BTreeMap<u32, File>,
) -> Result<BTreeMap<u32, Ghost>, Error> {
    let name = "remap-fpath.img";
    let file = At::file(name);
    let mut ghosts = BTreeMap::new();
    let entries: Vec<proto::RemapFpath> = source.array(name, magic::REMAP_FPATH)?;
    for (n, e) in entries.into_iter().enumerate() {
        let at = file.entry(n);
        let (orig, id) = (need!(at, e.orig_id), need!(at, e.remap_id));
        let remap = match e.remap_type {
            // Old images say by the highest bit what a type says now.
            None if id & GHOST != 0 => Remap::Ghost(id & !GHOST),
            None | Some(0) => Remap::Linked(id),
            Some(1) => Remap::Ghost(id & !GHOST),
            Some(2) => Remap::Process(id),
            Some(other) => return Err(at.unknown("remap_type", other)),
        };
        match remap {
            Remap::Ghost(id) if !ghosts.contains_key(&id) => {
                ghosts.insert(id, ghost(source, id)?);
            }
            Remap::Linked(id) => linked(&at, files, orig, id)?,
            _ => {}
        }
        match files.get_mut(&orig) {
            Some(File::Reg(reg)) if reg.remap.is_none() => reg.remap = Some(remap),
            Some(File::Reg(_)) => return Err(at.twice("remap of file", orig)),
            _ => return Err(at.dangling("orig_id", "regular file", orig)),
        }
    }
    Ok(ghosts)
}

/// The name that stands in is one that a dumper makes, next to the name that is gone: it is removed after the restore,
/// and no other file may ever be.
fn linked(at: &At, files: &BTreeMap<u32, File>, orig: u32, id: u32) -> Result<(), Error> {
    let (Some(File::Reg(to)), Some(File::Reg(from))) = (files.get(&id), files.get(&orig)) else {
        return Err(at.dangling("remap_id", "regular file", id));
    };
    let (dir, name) = to.path.rsplit_once('/').unwrap_or_default();
    let made = name
        .strip_prefix("link_remap.")
        .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if !made || from.path.rsplit_once('/').map(|p| p.0) != Some(dir) {
        let (text, why) = (to.path.clone(), "is no name that a dumper makes");
        return Err(at.err("remap_id", Fault::BadText { text, why }));
    }
    Ok(())
}

fn ghost(source: &mut Source<'_>, id: u32) -> Result<Ghost, Error> {
    let name = format!("ghost-file-{id:x}.img");
    let at = At::file(&name).entry(0);
    let mut image = source.stream(&name, magic::GHOST_FILE)?;
    let e: proto::GhostFile = image.framed()?;
    let time = |field: &str, t: Option<&proto::Timeval>| {
        let at = at.sub(field);
        let Some(t) = t else { return Ok(None) };
        let (sec, usec) = (need!(at, t.tv_sec), need!(at, t.tv_usec));
        match u32::try_from(usec).ok().filter(|u| *u < 1_000_000) {
            Some(usec) => Ok(Some((sec, usec))),
            None => Err(at.bad("tv_usec", usec, "a second or more")),
        }
    };
    let times = match (
        time("atim", e.atim.as_ref())?,
        time("mtim", e.mtim.as_ref())?,
    ) {
        (Some(a), Some(m)) => Some([a, m]),
        _ => None,
    };
    let mut pieces = Vec::new();
    let mut end = 0;
    let rest = image.rest();
    if e.chunks != Some(true) {
        if rest > 0 {
            let from = image.offset();
            pieces.push(GhostPiece {
                from,
                to: 0,
                len: rest,
            });
        }
        end = rest;
    } else {
        while image.rest() > 0 {
            let c: proto::GhostChunk = image.framed()?;
            let (to, len) = (need!(at, c.off), need!(at, c.len));
            let from = image.offset();
            image.skip(len)?;
            let Some(after) = to
                .checked_add(len)
                .filter(|a| *a <= i64::MAX.cast_unsigned())
            else {
                return Err(at.bad("off", to, "beyond the end of any file"));
            };
            if to < end {
                return Err(at.bad("off", to, "chunks overlap or are out of order"));
            }
            if pieces.len() >= MAX_PIECES {
                let (expected, found) = (
                    "at most 65536 chunks",
                    u64::try_from(pieces.len()).unwrap_or(u64::MAX),
                );
                return Err(at.err("", Fault::BadCount { expected, found }));
            }
            if len > 0 {
                pieces.push(GhostPiece { from, to, len });
            }
            end = after;
        }
    }
    let size = e.size.unwrap_or(end);
    if size < end || size > i64::MAX.cast_unsigned() {
        return Err(at.bad("size", size, "less than its contents"));
    }
    Ok(Ghost {
        image: name.clone(),
        uid: need!(at, e.uid),
        gid: need!(at, e.gid),
        mode: need!(at, e.mode),
        times,
        size,
        pieces,
    })
}
