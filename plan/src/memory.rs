//! VMAs and their contents: which calls map them, which rights they have while they are filled, and the batches.

use armrest_abi::{Advise, Batch, IOV_MAX, Iovec, Lock, Map, Move, PAGE_SIZE, Protect};
use armrest_images::{PageMap, PageRun, Vma, VmaKind};

use crate::inherit::Kept;
use crate::lazy::{self, Mapped};
use crate::types::Tables;
use crate::{consts, u32_of};

/// Bytes that one `preadv` may be asked for: enough to make calls rare, small enough for a progress bar to move.
const BATCH_BYTES: u32 = 64 << 20;

/// Where the bytes of a mapping come from, as the blob sees it.
pub trait Sources {
    /// Descriptor of the file behind a VMA; `None` for anonymous memory.
    fn backing(&self, vma: &Vma) -> Option<u32>;
    /// Descriptor of a pages file.
    fn pages_fd(&self, file: usize) -> u32;
}

/// True if the blob makes this VMA with `mmap2`.
pub fn is_mapped(kind: VmaKind) -> bool {
    matches!(
        kind,
        VmaKind::Anon
            | VmaKind::Sigpage
            | VmaKind::Vdso
            | VmaKind::Vvar
            | VmaKind::File { .. }
            | VmaKind::Memfd { .. }
            | VmaKind::AnonShared { .. }
    )
}

/// Rights while contents are read: writable, never executable.
pub fn fill_prot(prot: u32, filled: bool) -> u32 {
    if filled {
        (prot | consts::PROT_READ | consts::PROT_WRITE) & !consts::PROT_EXEC
    } else {
        prot
    }
}

/// Fill the tables of maps and final protections. `filled[i]`: VMA i gets contents; `comes(i)`: it comes by a move;
/// `lazy`: parts that are mapped from pages files, in order.
pub fn plan_maps(
    vmas: &[Vma],
    filled: &[bool],
    comes: &dyn Fn(usize) -> bool,
    sources: &dyn Sources,
    lazy: &[Mapped],
    tables: &mut Tables,
) {
    tables.maps.reserve(vmas.len());
    for (i, v) in vmas
        .iter()
        .enumerate()
        .filter(|(i, v)| is_mapped(v.kind) && !comes(*i))
    {
        let from = lazy.partition_point(|m| m.vma < i);
        let to = lazy.partition_point(|m| m.vma <= i);
        let mapped = lazy.get(from..to).unwrap_or(&[]);
        let backing = sources.backing(v);
        let whole = Map {
            start: v.range.start(),
            len: v.range.size(),
            prot: fill_prot(v.prot, filled[i]),
            flags: map_flags(v, backing.is_some()),
            fd: backing.map_or(-1, |f| i32::try_from(f).unwrap_or(-1)),
            object: u32_of(i),
            page_offset: backing.map_or(0, |_| v.offset / u64::from(PAGE_SIZE)),
        };
        if mapped.is_empty() {
            push_map(tables, whole, v.prot);
            continue;
        }
        lazy::parts(v, mapped, |start, len, mapped| {
            let part = Map {
                start,
                len,
                ..whole
            };
            let part = mapped.map_or(part, |m| Map {
                prot: v.prot,
                flags: map_flags(v, true),
                fd: i32::try_from(sources.pages_fd(m.file)).unwrap_or(-1),
                page_offset: m.page.into(),
                ..part
            });
            push_map(tables, part, v.prot);
        });
    }
}

/// Add a mapping whose final rights are `prot`, or make the last one longer: what differs in final rights alone is one
/// mapping until it is protected.
fn push_map(tables: &mut Tables, next: Map, prot: u32) {
    let before = tables.maps.last_mut().filter(|m| joins(m, &next));
    if next.prot != prot {
        let joined = before.is_some();
        let protects = &mut tables.protects;
        match protects.last_mut() {
            Some(p) if joined && p.prot == prot && p.start + p.len == next.start => {
                p.len += next.len
            }
            _ => protects.push(Protect {
                start: next.start,
                len: next.len,
                prot,
                object: next.object,
            }),
        }
    }
    match before {
        Some(m) => m.len += next.len,
        None => tables.maps.push(next),
    }
}

/// The kernel would merge the two mappings anyway.
fn joins(a: &Map, b: &Map) -> bool {
    a.start + a.len == b.start
        && a.prot == b.prot
        && a.flags == b.flags
        && a.fd == b.fd
        && a.flags & consts::MAP_GROWSDOWN == 0
        && (a.fd < 0 || a.page_offset + u64::from(a.len / PAGE_SIZE) == b.page_offset)
        && !(a.fd < 0 && a.flags & consts::MAP_SHARED != 0)
}

/// A VMA that is made and filled before the blob, where it is kept.
pub fn kept_row(v: &Vma, kept: &Kept) -> Map {
    Map {
        start: kept.at,
        len: kept.len,
        prot: fill_prot(v.prot, true),
        flags: map_flags(v, false),
        fd: -1,
        object: u32_of(kept.vma),
        page_offset: 0,
    }
}

/// What the blob still has to do about such VMAs: their rights, and the way to their places.
pub fn plan_kept(vmas: &[Vma], kept: &[Kept], tables: &mut Tables) {
    for k in kept {
        let v = &vmas[k.vma];
        let (start, len, object) = (k.at, k.len, u32_of(k.vma));
        if fill_prot(v.prot, true) != v.prot {
            let prot = v.prot;
            tables.protects.push(Protect {
                start,
                len,
                prot,
                object,
            });
        }
        if start != v.range.start() {
            tables.unparks.push(Move {
                from: start,
                to: v.range.start(),
                len,
                object,
            });
        }
    }
}

fn map_flags(v: &Vma, backed: bool) -> u32 {
    let mut flags = consts::MAP_FIXED
        | if v.shared {
            consts::MAP_SHARED
        } else {
            consts::MAP_PRIVATE
        };
    if !backed {
        flags |= consts::MAP_ANONYMOUS;
    }
    if let Some(log2) = v.hugetlb.filter(|_| !backed) {
        flags |= consts::MAP_HUGETLB | u32::from(log2) << consts::MAP_HUGE_SHIFT;
    }
    if v.grows_down {
        flags |= consts::MAP_GROWSDOWN;
    }
    if v.noreserve {
        flags |= consts::MAP_NORESERVE;
    }
    if locked_unreadable(v) {
        flags |= consts::MAP_LOCKED;
    }
    flags
}

/// Which VMAs have contents of their own to be read.
pub fn filled(vmas: &[Vma], pages: &PageMap) -> Vec<bool> {
    // Both are ascending and apart, so one walk sees all.
    let mut runs = pages.runs.iter().map(run_range);
    let mut run = runs.next();
    let filled = |v: &Vma| {
        let (start, end) = (u64::from(v.range.start()), u64::from(v.range.end()));
        while run.is_some_and(|r| r.1 <= start) {
            run = runs.next();
        }
        run.is_some_and(|r| r.0 < end)
    };
    vmas.iter().map(filled).collect()
}

/// True if some of these runs is read into this VMA.
pub fn reads_into(v: &Vma, runs: &[PageRun]) -> bool {
    let first = runs.partition_point(|r| run_range(r).1 <= u64::from(v.range.start()));
    runs.get(first)
        .is_some_and(|r| r.addr < u64::from(v.range.end()))
}

fn run_range(run: &PageRun) -> (u64, u64) {
    (
        run.addr,
        run.addr + u64::from(run.pages) * u64::from(PAGE_SIZE),
    )
}

/// Fill the tables of iovecs and batches. `fd_of` gives the descriptor of a pages file. Runs go in file order, so that
/// what is contiguous in the file is one batch.
pub fn plan_fill(runs: &[PageRun], fd_of: &dyn Fn(usize) -> u32, tables: &mut Tables) {
    let place = |r: &PageRun| (r.file, r.offset);
    let mut sorted: Vec<PageRun>;
    let mut runs = runs;
    if !runs.is_sorted_by_key(place) {
        sorted = runs.to_vec();
        sorted.sort_by_key(place);
        runs = &sorted;
    }
    tables.iovecs.reserve(runs.len());
    let mut of = None;
    for run in runs {
        let fd = match of {
            Some((file, fd)) if file == run.file => fd,
            _ => i32::try_from(fd_of(run.file)).unwrap_or(-1),
        };
        of = Some((run.file, fd));
        let bytes = u64::from(run.pages) * u64::from(PAGE_SIZE);
        let mut done = 0;
        while done < bytes {
            let left = bytes - done;
            let len = u32::try_from(left.min(u64::from(BATCH_BYTES))).unwrap_or(BATCH_BYTES);
            let base = u32::try_from(run.addr + done).unwrap_or(0);
            push_iovec(tables, fd, run.offset + done, Iovec { base, len });
            done += u64::from(len);
        }
    }
}

fn push_iovec(tables: &mut Tables, fd: i32, offset: u64, iov: Iovec) {
    if let Some(b) = tables.batches.last_mut()
        && b.fd == fd
        && b.offset + u64::from(b.len) == offset
        && b.len + iov.len <= BATCH_BYTES
    {
        if let Some(last) = tables
            .iovecs
            .last_mut()
            .filter(|l| l.base + l.len == iov.base)
        {
            last.len += iov.len;
            b.len += iov.len;
            return;
        }
        if b.count < IOV_MAX {
            b.count += 1;
            b.len += iov.len;
            tables.iovecs.push(iov);
            return;
        }
    }
    tables.batches.push(Batch {
        offset,
        fd,
        first: u32_of(tables.iovecs.len()),
        count: 1,
        len: iov.len,
    });
    tables.iovecs.push(iov);
}

/// A guard page of a program that called mlockall: `mlock` would lock it, and yet fail since it cannot fault it in.
/// MAP_LOCKED does not care.
fn locked_unreadable(v: &Vma) -> bool {
    v.locked && v.prot == 0
}

/// madvise bits and locks.
pub fn plan_advice(vmas: &[Vma], known: &dyn Fn(u32) -> bool, tables: &mut Tables) -> Vec<String> {
    let mut lost = Vec::new();
    for (i, v) in vmas.iter().enumerate() {
        let most = if v.madv == 0 { 0 } else { u32::BITS };
        for advice in (0..most).filter(|b| v.madv >> b & 1 != 0) {
            if known(advice) {
                tables.advises.push(Advise {
                    start: v.range.start(),
                    len: v.range.size(),
                    advice,
                    object: u32_of(i),
                });
            } else {
                lost.push(format!(
                    "madvise {advice} of {:08x}-{:08x}: this kernel does not know it",
                    v.range.start(),
                    v.range.end()
                ));
            }
        }
        if locked_unreadable(v) && !is_mapped(v.kind) {
            lost.push(format!(
                "lock of {:08x}-{:08x}: inaccessible SysV memory cannot be locked",
                v.range.start(),
                v.range.end()
            ));
        } else if v.locked && !locked_unreadable(v) {
            tables.locks.push(Lock {
                start: v.range.start(),
                len: v.range.size(),
                object: u32_of(i),
            });
        }
    }
    lost
}
