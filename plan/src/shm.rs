//! SysV attachments: which are asked for directly, which go through a scratch range, and with what rights.
//!
//! An attachment is the set of VMAs with the same segment and the same base (start minus offset in the segment).
//! Rights are those of the attachment (`fdflags`), never of the segment, never the current protection.

use armrest_abi::{Attach, Move, Protect, Range, Remove};
use armrest_images::{Checkpoint, Segment, Vma, VmaKind};
use std::collections::BTreeMap;

use crate::space::{Space, page_up, uncovered};
use crate::types::{Refusal, RefusalKind, Tables};
use crate::{consts, u32_of, words};

/// One attachment of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Segment id.
    pub shmid: u32,
    /// Address that offset 0 of the segment has, mapped or not.
    pub base: u32,
    /// Bytes of the segment, whole pages.
    pub len: u32,
    /// Attached read-only.
    pub read_only: bool,
    /// A piece is executable.
    pub exec: bool,
    /// Indices of its VMAs, ascending.
    pub vmas: Vec<usize>,
}

/// Group the SysV VMAs by attachment. Ascending by base.
pub fn attachments(cp: &Checkpoint, vmas: &[Vma]) -> Vec<Attachment> {
    if cp.segments.is_empty() {
        return Vec::new();
    }
    let mut groups: BTreeMap<(i64, u32), Attachment> = BTreeMap::new();
    let segments: BTreeMap<u32, &Segment> = cp.segments.iter().map(|s| (s.perm.id, s)).collect();
    for (i, v) in vmas.iter().enumerate() {
        let VmaKind::SysV { shmid } = v.kind else {
            continue;
        };
        let Some(segment) = segments.get(&shmid) else {
            continue;
        };
        let (Ok(offset), Some(len)) = (u32::try_from(v.offset), page_up(segment.size)) else {
            continue;
        };
        let base = v.range.start().wrapping_sub(offset);
        let a = groups
            .entry((i64::from(base), shmid))
            .or_insert_with(|| Attachment {
                shmid,
                base,
                len,
                read_only: true,
                exec: false,
                vmas: Vec::new(),
            });
        // An attachment is read-write if any VMA says so; a dumper that does not know records no mode.
        a.read_only &= v.access == Some(0);
        a.exec |= v.prot & consts::PROT_EXEC != 0;
        a.vmas.push(i);
    }
    groups.into_values().collect()
}

/// What the plan of SysV memory needs to know besides the checkpoint.
pub struct ShmFacts<'a> {
    /// Old and new mappings, the area, everything that a scratch range must avoid.
    pub space: &'a Space,
    /// The same, without memory that comes later: for an address space that is full.
    pub tight: &'a Space,
    /// All target VMAs.
    pub vmas: &'a [Vma],
    /// First byte after the last mappable one.
    pub task_size: u32,
    /// Ranges of our own that a direct attach must not touch (the area, parked things).
    pub own: &'a [Range],
    /// The architecture's answer: may this base be asked for directly?
    pub may_ask: &'a dyn Fn(u32) -> bool,
    /// The data cache aliases.
    pub cache_aliases: bool,
    /// SHMLBA is enforced here: a sign of a kernel on which colours can matter.
    pub shmlba_enforced: bool,
}

/// What came of it besides table rows.
#[derive(Default, Debug)]
pub struct ShmPlan {
    /// The scratch range that all moved attachments share in turn.
    pub scratch: Option<Range>,
    /// Warnings.
    pub warnings: Vec<String>,
    /// Rights a VMA has after attach and move, by VMA index.
    pub attached: Vec<(usize, u32)>,
}

/// Fill the shm tables.
pub fn plan_shm(
    cp: &Checkpoint,
    facts: &ShmFacts<'_>,
    tables: &mut Tables,
    refuse: &mut Vec<Refusal>,
) -> ShmPlan {
    let mut out = ShmPlan::default();
    let groups = attachments(cp, facts.vmas);
    let direct: Vec<bool> = groups.iter().map(|a| is_direct(a, facts)).collect();
    let longest = groups
        .iter()
        .zip(&direct)
        .filter(|(_, d)| !**d)
        .map(|(a, _)| a.len)
        .max();
    if let Some(len) = longest {
        let find = |space: &Space| space.find(len, consts::SHMLBA);
        // Nothing of the scratch range is left when the other memory is mapped.
        out.scratch = find(facts.space).or_else(|| find(facts.tight));
        if out.scratch.is_none() {
            refuse.push(Refusal {
                kind: RefusalKind::Machine,
                what: format!(
                    "no free range of {len} bytes for moving SysV attachments into place"
                ),
                hint:
                    "the checkpoint fills the address space; restore on a kernel with a 3G/1G split"
                        .into(),
            });
            return out;
        }
    }
    let mut off = Vec::new();
    for (a, direct) in groups.iter().zip(direct) {
        let aligned = a.base.is_multiple_of(consts::SHMLBA);
        if !aligned && facts.cache_aliases {
            refuse.push(Refusal {
                kind: RefusalKind::Machine,
                what: format!("SysV segment {} attached at {:08x}, off SHMLBA, on a CPU whose data cache aliases", a.shmid, a.base),
                hint: "the kernel refuses such a move (cache colours differ): restore on a CPU with a PIPT or non-aliasing cache".into(),
            });
            continue;
        }
        if !aligned && facts.shmlba_enforced && !a.read_only {
            off.push(format!("segment {} at {:08x}", a.shmid, a.base));
        }
        attach_one(a, direct, out.scratch, facts, tables, &mut out.attached);
    }
    if !off.is_empty() {
        out.warnings.push(format!(
            "SysV memory attached read-write off SHMLBA is coherent here, but not on a CPU whose cache aliases: {}",
            words::some(&off)
        ));
    }
    for s in cp.segments.iter().filter(|s| s.dest) {
        if let Some(a) = groups.iter().find(|a| a.shmid == s.perm.id) {
            tables.removes.push(Remove {
                shmid: i32_of(s.perm.id),
                object: u32_of(a.vmas[0]),
            });
        }
    }
    out
}

/// Aligned, and the whole segment's range is free of everything that is not this attachment.
fn is_direct(a: &Attachment, facts: &ShmFacts<'_>) -> bool {
    let Some(end) = a.base.checked_add(a.len) else {
        return false;
    };
    let whole = Range { start: a.base, end };
    (facts.may_ask)(a.base)
        && end <= facts.task_size
        && a.base > 0
        && !facts.own.iter().any(|r| r.overlaps(whole))
        && overlapping(facts.vmas, whole).all(|i| belongs(a, &facts.vmas[i]))
}

/// Indices of the VMAs that share a byte with `range`: they are sorted and apart.
fn overlapping(vmas: &[Vma], range: Range) -> impl Iterator<Item = usize> + '_ {
    let first = vmas.partition_point(|v| v.range.end() <= range.start);
    (first..vmas.len()).take_while(move |i| vmas[*i].range.start() < range.end)
}

/// Is `v` a piece of this attachment?
fn belongs(a: &Attachment, v: &Vma) -> bool {
    let same_base = u64::from(v.range.start()) == u64::from(a.base) + v.offset;
    v.kind == (VmaKind::SysV { shmid: a.shmid }) && same_base
}

fn attach_one(
    a: &Attachment,
    direct: bool,
    scratch: Option<Range>,
    facts: &ShmFacts<'_>,
    tables: &mut Tables,
    attached: &mut Vec<(usize, u32)>,
) {
    let at = if direct {
        a.base
    } else {
        scratch.map_or(0, |s| s.start)
    };
    let mut flags = consts::SHM_REMAP;
    let mut prot = consts::PROT_READ;
    if a.read_only {
        flags |= consts::SHM_RDONLY;
    } else {
        prot |= consts::PROT_WRITE;
    }
    // SHM_EXEC on a writable attachment would make all of it writable and executable at once; an executable piece gets
    // its right by mprotect instead, unless the whole attachment was like that.
    let both = consts::PROT_WRITE | consts::PROT_EXEC;
    if a.exec && (a.read_only || a.vmas.iter().all(|&i| facts.vmas[i].prot & both == both)) {
        flags |= consts::SHM_EXEC;
        prot |= consts::PROT_EXEC;
    }
    let (piece, hole) = (u32_of(tables.pieces.len()), u32_of(tables.holes.len()));
    // In the attachment's own coordinates: which offsets are wanted.
    let wanted: Vec<Range> = a
        .vmas
        .iter()
        .map(|&i| {
            let start = facts.vmas[i]
                .range
                .start()
                .wrapping_sub(a.base)
                .wrapping_add(at);
            Range {
                start,
                end: start.wrapping_add(facts.vmas[i].range.size()),
            }
        })
        .collect();
    if direct {
        tables.holes.extend(uncovered(
            Range {
                start: at,
                end: at + a.len,
            },
            &wanted,
        ));
    } else {
        for (w, &i) in wanted.iter().zip(&a.vmas) {
            tables.pieces.push(Move {
                from: w.start,
                to: facts.vmas[i].range.start(),
                len: w.len(),
                object: u32_of(i),
            });
        }
        // What was moved away is no longer there: only the rest is unmapped.
        tables.holes.extend(uncovered(
            Range {
                start: at,
                end: at + a.len,
            },
            &wanted,
        ));
    }
    tables.attaches.push(Attach {
        shmid: i32_of(a.shmid),
        at,
        len: a.len,
        flags,
        piece,
        pieces: u32_of(tables.pieces.len()) - piece,
        hole,
        holes: u32_of(tables.holes.len()) - hole,
        object: u32_of(a.vmas[0]),
    });
    attached.extend(a.vmas.iter().map(|&i| (i, prot)));
}

/// Protections that attached VMAs still need.
pub fn protects(attached: &[(usize, u32)], vmas: &[Vma], tables: &mut Tables) {
    for &(i, prot) in attached {
        let v = &vmas[i];
        if v.prot != prot {
            tables.protects.push(Protect {
                start: v.range.start(),
                len: v.range.size(),
                prot: v.prot,
                object: u32_of(i),
            });
        }
    }
}

fn i32_of(id: u32) -> i32 {
    i32::try_from(id).unwrap_or(i32::MAX)
}
