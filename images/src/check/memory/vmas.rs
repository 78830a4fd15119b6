//! VMAs: what a dumper records of each, and what it must not.

use std::collections::BTreeMap;

use prost::Message;

use super::super::at::{At, need};
use super::super::files;
use super::super::number::{number, same};
use super::{areas, covered};
use crate::checkpoint::{AddrRange, Checkpoint, File, PAGE, Vma, VmaKind};
use crate::error::{Error, Fault};
use crate::proto;

/// VMAs that two full address spaces of the default `vm.max_map_count` have.
const MAX_VMAS: usize = 65_530 * 2;
/// Start of `[vectors]`; nothing else lies at or above it.
const VECTORS: u32 = 0xffff_0000;

mod status {
    pub const REGULAR: u32 = 1;
    pub const VSYSCALL: u32 = 4;
    pub const VDSO: u32 = 8;
    pub const HEAP: u32 = 0x20;
    pub const FILE_PRIVATE: u32 = 0x40;
    pub const FILE_SHARED: u32 = 0x80;
    pub const ANON_SHARED: u32 = 0x100;
    pub const ANON_PRIVATE: u32 = 0x200;
    pub const SYSVIPC: u32 = 0x400;
    pub const SOCKET: u32 = 0x800;
    pub const VVAR: u32 = 0x1000;
    pub const AIORING: u32 = 0x2000;
    pub const MEMFD: u32 = 0x4000;
    pub const GUARD: u32 = 0x1_0000;
    pub const PLUGIN: u32 = 0x800_0000;
    /// STACK (never set any more) included.
    pub const KNOWN: u32 = 0x7fef | GUARD | PLUGIN;
    pub const BACKING: u32 = FILE_PRIVATE | FILE_SHARED | ANON_SHARED | ANON_PRIVATE;
}

mod flag {
    pub const SHARED: u32 = 1;
    pub const PRIVATE: u32 = 2;
    pub const DROPPABLE: u32 = 8;
    pub const GROWSDOWN: u32 = 0x100;
    pub const LOCKED: u32 = 0x2000;
    pub const NORESERVE: u32 = 0x4000;
    pub const HUGETLB: u32 = 0x4_0000;
    pub const ANONYMOUS: u32 = 0x20;
    pub const KNOWN: u32 =
        SHARED | PRIVATE | DROPPABLE | ANONYMOUS | GROWSDOWN | LOCKED | NORESERVE | HUGETLB;
}

/// madvise advices that are recorded.
const MADV: u32 = 1 << 1 | 1 << 2 | 1 << 10 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18;

/// What mappings may refer to.
struct Known<'a> {
    files: &'a BTreeMap<u32, File>,
    /// Sizes by id.
    segments: BTreeMap<u32, u64>,
}

pub(super) fn vmas(
    at: &At,
    entries: &[&[u8]],
    checkpoint: &Checkpoint,
) -> Result<(Vec<Vma>, Vec<AddrRange>), Error> {
    if entries.len() > MAX_VMAS {
        let found = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        return Err(at.err(
            "vmas",
            Fault::BadCount {
                expected: "at most 131060",
                found,
            },
        ));
    }
    let known = Known {
        files: &checkpoint.files,
        segments: checkpoint
            .segments
            .iter()
            .map(|s| (s.perm.id, s.size))
            .collect(),
    };
    let (mut vmas, mut guards) = (Vec::with_capacity(entries.len()), Vec::new());
    let mut alike = Alike::default();
    for (n, bytes) in entries.iter().enumerate() {
        let end = vmas.last().map_or(0, |v: &Vma| v.range.end());
        if let Some(vma) = alike.find(bytes, end) {
            vmas.push(vma);
            continue;
        }
        let at = at.index("vmas", n);
        let e = proto::VmaEntry::decode(*bytes);
        let e = &e.map_err(|e| at.err("", Fault::Damaged(e.to_string())))?;
        let bits = need!(at, e.status);
        let range = range(&at, e, bits)?;
        if bits & status::GUARD != 0 {
            if bits != status::GUARD {
                return Err(bad(&at, e, "a guard range that is more than that"));
            }
            guards.push((n, range));
            continue;
        }
        let vma = vma(&at, e, range, &known)?;
        if vmas
            .last()
            .is_some_and(|before: &Vma| before.range.end() > range.start())
        {
            return Err(bad(
                &at,
                e,
                "overlaps the one before it, or they are out of order",
            ));
        }
        vmas.push(vma);
        alike.add(bytes, vma);
    }
    if vmas.is_empty() {
        return Err(at.err(
            "vmas",
            Fault::BadCount {
                expected: "at least one",
                found: 0,
            },
        ));
    }
    let areas = match guards.is_empty() {
        true => Vec::new(),
        false => areas(&vmas, |_| true),
    };
    for (n, g) in &guards {
        if !covered(&areas, u64::from(g.start()), u64::from(g.end())) {
            let fault = Fault::BadVma {
                start: u64::from(g.start()),
                end: u64::from(g.end()),
                why: "a guard range outside of all mappings",
            };
            return Err(at.index("vmas", *n).err("", fault));
        }
    }
    Ok((vmas, guards.into_iter().map(|(_, g)| g).collect()))
}

/// VMAs that differ from one before in their range alone, as tens of thousands may, need not be looked at again.
#[derive(Default)]
struct Alike<'a> {
    /// What follows the range in an entry, and the VMA that had it; the last few.
    known: [Option<(&'a [u8], Vma)>; 4],
    next: usize,
    /// The one that was found last, and the one before that.
    found: [usize; 2],
}

impl<'a> Alike<'a> {
    /// The VMA of an entry, if all but its range is known and its range is in order behind `after`.
    fn find(&mut self, entry: &[u8], after: u32) -> Option<Vma> {
        let (start, end, rest) = leading_range(entry)?;
        // Two kinds often take turns.
        let [last, before] = self.found;
        let slots = [before, last].into_iter().chain(0..self.known.len());
        let mut known = slots.filter_map(|n| Some((n, self.known[n].as_ref()?)));
        let (slot, (_, vma)) = known.find(|(_, (bytes, _))| same(bytes, rest))?;
        self.found = [slot, last];
        let range = AddrRange::new(start.into(), end.into())?;
        (range.start() >= after && range.end() <= VECTORS).then_some(Vma { range, ..*vma })
    }

    /// Keep what this entry says, unless it depends on the range whether that is right.
    fn add(&mut self, entry: &'a [u8], vma: Vma) {
        if matches!(vma.kind, VmaKind::SysV { .. } | VmaKind::Vectors) {
            return;
        }
        let Some((_, _, rest)) = leading_range(entry) else {
            return;
        };
        // Whoever says it twice means the last one.
        let again = proto::VmaEntry::decode(rest);
        if again.is_ok_and(|e| e.start.is_none() && e.end.is_none()) {
            self.known[self.next] = Some((rest, vma));
            self.next = (self.next + 1) % self.known.len();
        }
    }
}

/// Start and end of a VMA, where an entry begins with both, and the rest of the entry.
fn leading_range(entry: &[u8]) -> Option<(u32, u32, &[u8])> {
    let (1, start, rest) = number(entry)? else {
        return None;
    };
    let (2, end, rest) = number(rest)? else {
        return None;
    };
    Some((start, end, rest))
}

fn bad(at: &At, e: &proto::VmaEntry, why: &'static str) -> Error {
    at.err(
        "",
        Fault::BadVma {
            start: e.start.unwrap_or(0),
            end: e.end.unwrap_or(0),
            why,
        },
    )
}

fn range(at: &At, e: &proto::VmaEntry, bits: u32) -> Result<AddrRange, Error> {
    let (start, end) = (need!(at, e.start), need!(at, e.end));
    if start == end {
        return Err(bad(at, e, "empty"));
    }
    if start > end {
        return Err(bad(at, e, "ends before it starts"));
    }
    if !start.is_multiple_of(u64::from(PAGE)) || !end.is_multiple_of(u64::from(PAGE)) {
        return Err(bad(at, e, "not page-aligned"));
    }
    let Some(range) = AddrRange::new(start, end) else {
        return Err(bad(at, e, "beyond 32 bits of address"));
    };
    let vectors = bits & status::VSYSCALL != 0;
    if vectors && (range.start() != VECTORS || range.size() != PAGE) {
        return Err(bad(at, e, "not where the vectors page is"));
    }
    if !vectors && range.end() > VECTORS {
        return Err(bad(at, e, "above the highest address of a task"));
    }
    Ok(range)
}

fn vma(at: &At, e: &proto::VmaEntry, range: AddrRange, known: &Known<'_>) -> Result<Vma, Error> {
    let (bits, flags, prot) = (need!(at, e.status), need!(at, e.flags), need!(at, e.prot));
    let (offset, shmid) = (need!(at, e.pgoff), need!(at, e.shmid));
    need!(at, e.fd);
    if bits & !status::KNOWN != 0 {
        return Err(at.unknown("status", bits));
    }
    // Six bits.
    let [_, _, _, high] = flags.to_le_bytes();
    let huge_bits = high >> 2;
    if flags & !(flag::KNOWN | 0xfc00_0000) != 0 || (flags & flag::HUGETLB == 0 && huge_bits != 0) {
        return Err(at.unknown("flags", flags));
    }
    if prot > 7 {
        return Err(at.unknown("prot", prot));
    }
    let advice = e.madv.unwrap_or(0);
    let madv = u32::try_from(advice).ok().filter(|bits| bits & !MADV == 0);
    let madv = madv.ok_or_else(|| at.unknown("madv", advice))?;
    let access = match e.fdflags.map(|f| (f, u8::try_from(f))) {
        None => None,
        Some((_, Ok(mode @ 0..=2))) => Some(mode),
        Some((f, _)) => return Err(at.unknown("fdflags", f)),
    };
    if !offset.is_multiple_of(u64::from(PAGE)) {
        return Err(at.bad("pgoff", offset, "not page-aligned"));
    }
    if offset > (1 << 43) {
        return Err(at.bad("pgoff", offset, "beyond the end of any file"));
    }
    let sharing = flags & (flag::SHARED | flag::PRIVATE | flag::DROPPABLE);
    if !sharing.is_power_of_two() {
        return Err(bad(
            at,
            e,
            "not exactly one of MAP_SHARED, MAP_PRIVATE and MAP_DROPPABLE",
        ));
    }
    let shared = sharing == flag::SHARED;
    let kind = kind(at, e, bits, shared, shmid, known)?;
    let has_offset = matches!(
        kind,
        VmaKind::File { .. }
            | VmaKind::Memfd { .. }
            | VmaKind::SysV { .. }
            | VmaKind::AnonShared { .. }
    );
    let vma = Vma {
        range,
        kind,
        prot,
        shared,
        grows_down: flags & flag::GROWSDOWN != 0,
        locked: flags & flag::LOCKED != 0,
        noreserve: flags & flag::NORESERVE != 0,
        hugetlb: (flags & flag::HUGETLB != 0).then_some(huge_bits),
        droppable: sharing == flag::DROPPABLE,
        heap: bits & status::HEAP != 0,
        madv,
        access,
        offset: if has_offset { offset } else { 0 },
    };
    if let VmaKind::SysV { shmid } = kind {
        in_segment(at, e, &vma, shmid, known)?;
    }
    Ok(vma)
}

fn kind(
    at: &At,
    e: &proto::VmaEntry,
    bits: u32,
    shared: bool,
    shmid: u64,
    known: &Known<'_>,
) -> Result<VmaKind, Error> {
    let has = |bit: u32| bits & bit != 0;
    if has(status::VSYSCALL) {
        if has(status::REGULAR) {
            return Err(bad(at, e, "the vectors page as something to restore"));
        }
        return Ok(VmaKind::Vectors);
    }
    if has(status::AIORING) {
        return Ok(VmaKind::AioRing);
    }
    if has(status::PLUGIN) {
        return Ok(VmaKind::Plugin);
    }
    if !has(status::REGULAR) {
        return Err(bad(at, e, "not marked as something to restore"));
    }
    if has(status::SOCKET) {
        return Ok(VmaKind::Socket);
    }
    let backing = bits & status::BACKING;
    if !backing.is_power_of_two() {
        return Err(bad(at, e, "not exactly one of the four kinds of backing"));
    }
    if (backing & (status::FILE_SHARED | status::ANON_SHARED) != 0) != shared {
        return Err(bad(at, e, "its status and its flags differ in sharing"));
    }
    let file = |what| u32::try_from(shmid).map_err(|_| at.dangling("shmid", what, shmid));
    match backing {
        status::ANON_SHARED if has(status::SYSVIPC) => Ok(VmaKind::SysV {
            shmid: file("SysV segment")?,
        }),
        _ if has(status::SYSVIPC) => {
            Err(bad(at, e, "SysV memory that is not anonymous and shared"))
        }
        status::ANON_SHARED => Ok(VmaKind::AnonShared { shmid }),
        status::ANON_PRIVATE if has(status::VVAR) => Ok(VmaKind::Vvar),
        status::ANON_PRIVATE if has(status::VDSO) => Ok(VmaKind::Vdso),
        status::ANON_PRIVATE => Ok(VmaKind::Anon),
        _ if has(status::MEMFD) => match known.files.get(&file("memfd file")?) {
            Some(File::Memfd { inode, .. }) => Ok(VmaKind::Memfd {
                file: file("memfd file")?,
                inode: *inode,
            }),
            _ => Err(at.dangling("shmid", "memfd file", shmid)),
        },
        _ => {
            let id = files::regular_id(at, "shmid", known.files, file("regular file")?)?;
            Ok(VmaKind::File { file: id })
        }
    }
}

fn in_segment(
    at: &At,
    e: &proto::VmaEntry,
    vma: &Vma,
    shmid: u32,
    known: &Known<'_>,
) -> Result<(), Error> {
    let Some(size) = known.segments.get(&shmid) else {
        return Err(at.dangling("shmid", "SysV segment", shmid));
    };
    // Both are below 2^44.
    let end = vma.offset + u64::from(vma.range.size());
    if end > size.next_multiple_of(u64::from(PAGE)) {
        return Err(bad(at, e, "beyond the end of its SysV segment"));
    }
    if vma.offset > u64::from(vma.range.start()) {
        return Err(bad(at, e, "an attachment that would start below address 0"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn what_says_its_range_twice_is_like_no_other() {
        let vma = Vma {
            range: AddrRange::new(0x1000, 0x2000).unwrap(),
            kind: VmaKind::Anon,
            prot: 3,
            shared: false,
            grows_down: false,
            locked: false,
            noreserve: false,
            hugetlb: None,
            droppable: false,
            heap: false,
            madv: 0,
            access: None,
            offset: 0,
        };
        let entry = |start: u64, behind: &[u8]| {
            let e = proto::VmaEntry {
                start: Some(start),
                end: Some(start + 0x1000),
                status: Some(0x201),
                ..proto::VmaEntry::default()
            };
            [&e.encode_to_vec(), behind].concat()
        };
        let second = AddrRange::new(0x5000, 0x6000).unwrap();
        let found = |kind, behind: &[u8]| {
            let (first, next) = (entry(0x1000, behind), entry(0x5000, behind));
            let mut alike = Alike::default();
            alike.add(&first, Vma { kind, ..vma });
            alike.find(&next, 0x2000)
        };
        let like = Vma {
            range: second,
            ..vma
        };
        assert_eq!(found(VmaKind::Anon, &[]), Some(like));
        assert_eq!(found(VmaKind::Anon, &[0x08, 0]), None);
        assert_eq!(found(VmaKind::Anon, &[0x10, 0x80, 0x40]), None);
        assert_eq!(found(VmaKind::SysV { shmid: 1 }, &[]), None);
        assert_eq!(found(VmaKind::Vectors, &[]), None);
    }
}
