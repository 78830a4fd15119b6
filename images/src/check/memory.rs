//! Address spaces: VMAs, page maps, and the special pages of ARM.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::at::{At, need, word};
use super::number::number;
use super::source::{Source, Space};
use super::{files, objects};
use crate::checkpoint::{
    AddrRange, Checkpoint, File, Mm, PAGE, PageMap, RseqCs, Thread, Vma, VmaKind,
};
use crate::error::{Error, Fault};
use crate::{magic, proto};

/// VMAs that two full address spaces of the default `vm.max_map_count` have.
const MAX_VMAS: usize = 65_530 * 2;
/// Start of `[vectors]`; nothing else lies at or above it.
const VECTORS: u32 = 0xffff_0000;
/// Largest vdso whose contents are kept.
const MAX_VDSO: u32 = 16 * PAGE;

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
const MADV: u64 = 1 << 1 | 1 << 2 | 1 << 10 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18;

/// Reads the address space of `pid` and its private pages.
pub(super) fn read(
    source: &mut Source<'_>,
    checkpoint: &Checkpoint,
    pid: u32,
) -> Result<(Mm, PageMap), Error> {
    let name = format!("mm-{pid}.img");
    let at = At::file(&name);
    let bytes = source.image(&name)?;
    let bytes = bytes.ok_or_else(|| Error::new(&name, Fault::Missing))?;
    let (mm, entries): (proto::Mm, _) = Source::apart(&name, &bytes, magic::MM, proto::MM_VMAS)?;
    let fields = [
        word!(at, mm.mm_start_code),
        word!(at, mm.mm_end_code),
        word!(at, mm.mm_start_data),
        word!(at, mm.mm_end_data),
        word!(at, mm.mm_start_brk),
        word!(at, mm.mm_brk),
        word!(at, mm.mm_start_stack),
        word!(at, mm.mm_arg_start),
        word!(at, mm.mm_arg_end),
        word!(at, mm.mm_env_start),
        word!(at, mm.mm_env_end),
    ];
    let exe = files::regular_id(
        &at,
        "exe_file_id",
        &checkpoint.files,
        need!(at, mm.exe_file_id),
    )?;
    let dumpable = match mm.dumpable {
        None => None,
        Some(n) => match u32::try_from(n) {
            Ok(n @ 0..=2) => Some(n),
            _ => return Err(at.bad("dumpable", u64::from(n.unsigned_abs()), "not 0, 1 or 2")),
        },
    };
    let auxv = auxv(&at, &mm.mm_saved_auxv)?;
    let (vmas, guards) = vmas(&at, &entries, checkpoint)?;
    drop(entries);
    drop(bytes);

    let map_name = format!("pagemap-{pid}.img");
    let pages = source
        .page_map(&map_name, Space::Task)?
        .ok_or_else(|| Error::new(&map_name, Fault::Missing))?;
    inside(&map_name, &pages, &vmas)?;

    let mut mm = Mm {
        fields,
        auxv,
        exe,
        dumpable,
        thp_disabled: mm.thp_disabled.unwrap_or(false),
        aios: mm
            .aios
            .iter()
            .enumerate()
            .map(|(n, a)| at.index("aios", n).req("id", a.id))
            .collect::<Result<_, _>>()?,
        vmas,
        guards,
        platform: None,
        vdso: None,
        sigpage: None,
        sigpage_users: Vec::new(),
    };
    find_vdso(source, &mut mm, &pages)?;
    find_platform(source, &mut mm, &pages)?;
    find_sigpage(source, &mut mm, &pages)?;
    Ok((mm, pages))
}

fn auxv(at: &At, words: &[u64]) -> Result<Vec<u32>, Error> {
    if words.len() > 512 {
        let found = u64::try_from(words.len()).unwrap_or(u64::MAX);
        return Err(at.err(
            "mm_saved_auxv",
            Fault::BadCount {
                expected: "at most 512 words",
                found,
            },
        ));
    }
    let mut auxv = Vec::new();
    for (n, w) in words.iter().enumerate() {
        let word = u32::try_from(*w);
        auxv.push(
            word.map_err(|_| at.bad(&format!("mm_saved_auxv[{n}]"), *w, "more than 32 bits"))?,
        );
    }
    // AT_PAGESZ is 6.
    if let Some(pair) = auxv
        .chunks_exact(2)
        .take_while(|p| p[0] != 0)
        .find(|p| p[0] == 6)
        && pair[1] != PAGE
    {
        return Err(at.err("mm_saved_auxv", Fault::PageSize(pair[1])));
    }
    Ok(auxv)
}

/// What mappings may refer to.
struct Known<'a> {
    files: &'a BTreeMap<u32, File>,
    /// Sizes by id.
    segments: BTreeMap<u32, u64>,
}

fn vmas(
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
        segments: checkpoint.segments.iter().map(|s| (s.id, s.size)).collect(),
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
    let areas = areas(&vmas, |_| true);
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
    /// The one that was found last.
    last: usize,
}

impl<'a> Alike<'a> {
    /// The VMA of an entry, if all but its range is known and its range is in order behind `after`.
    fn find(&mut self, entry: &[u8], after: u32) -> Option<Vma> {
        let (start, end, rest) = leading_range(entry)?;
        // The one behind the last first: two kinds often take turns.
        let slots = (1..=self.known.len()).map(|n| (self.last + n) % self.known.len());
        let is = |k: &(&[u8], Vma)| k.0 == rest;
        let found = slots.filter_map(|n| Some((n, self.known[n].filter(is)?.1)));
        let (slot, vma) = found.into_iter().next()?;
        self.last = slot;
        let range = AddrRange::new(start, end)?;
        (range.start() >= after && range.end() <= VECTORS).then_some(Vma { range, ..vma })
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
fn leading_range(entry: &[u8]) -> Option<(u64, u64, &[u8])> {
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
    let huge_bits = flags >> 26;
    if flags & !(flag::KNOWN | 0xfc00_0000) != 0 || (flags & flag::HUGETLB == 0 && huge_bits != 0) {
        return Err(at.unknown("flags", flags));
    }
    if prot > 7 {
        return Err(at.unknown("prot", prot));
    }
    let madv = e.madv.unwrap_or(0);
    if madv & !MADV != 0 {
        return Err(at.unknown("madv", madv));
    }
    if e.fdflags.is_some_and(|f| f > 2) {
        return Err(at.unknown("fdflags", e.fdflags.unwrap_or(0)));
    }
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
        access: e.fdflags,
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

/// VMAs that may have saved pages.
fn holds_pages(vma: &Vma) -> bool {
    match vma.kind {
        VmaKind::Anon | VmaKind::Sigpage | VmaKind::Vdso | VmaKind::AioRing => true,
        VmaKind::File { .. } | VmaKind::Memfd { .. } => !vma.shared,
        _ => false,
    }
}

/// Merged ranges of the VMAs that are wanted, ascending.
fn areas(vmas: &[Vma], want: impl Fn(&Vma) -> bool) -> Vec<(u64, u64)> {
    let mut areas: Vec<(u64, u64)> = Vec::new();
    for v in vmas.iter().filter(|v| want(v)) {
        let (start, end) = (u64::from(v.range.start()), u64::from(v.range.end()));
        match areas.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => areas.push((start, end)),
        }
    }
    areas
}

fn covered(areas: &[(u64, u64)], start: u64, end: u64) -> bool {
    let at = areas.partition_point(|a| a.1 <= start);
    areas.get(at).is_some_and(|a| a.0 <= start && end <= a.1)
}

/// Every run must lie in mappings that can hold saved pages; it may span several.
fn inside(file: &str, pages: &PageMap, vmas: &[Vma]) -> Result<(), Error> {
    let areas = areas(vmas, holds_pages);
    for run in &pages.runs {
        let end = run.addr + u64::from(run.pages) * u64::from(PAGE);
        if !covered(&areas, run.addr, end) {
            let fault = Fault::BadPagemap {
                addr: run.addr,
                pages: u64::from(run.pages),
                why: "outside of the mappings that have pages of their own",
            };
            return Err(Error::new(file, fault));
        }
    }
    Ok(())
}

fn find_vdso(source: &mut Source<'_>, mm: &mut Mm, pages: &PageMap) -> Result<(), Error> {
    let mut found = mm.vmas.iter().filter(|v| v.kind == VmaKind::Vdso);
    if let (Some(vdso), None) = (found.next(), found.next())
        && vdso.range.size() <= MAX_VDSO
    {
        mm.vdso = source.contents(pages, vdso.range)?;
    }
    Ok(())
}

/// AT_PLATFORM is a pointer to a short string on the stack.
/// The restartable sequence of a thread: what its area names, or, where the dumper's own code has made the kernel forget
/// that, what the dumper saw.
pub(super) fn rseq_cs(
    source: &mut Source<'_>,
    pages: &PageMap,
    rseq: Option<(u32, u32, u32, u64)>,
) -> Result<Option<RseqCs>, Error> {
    const POINTER: u32 = 8;
    let Some((area, _, _, seen)) = rseq else {
        return Ok(None);
    };
    let named = words::<2>(source, pages, area.saturating_add(POINTER))?;
    let pointer = match named {
        Some([low, 0]) if low != 0 => low,
        _ => match u32::try_from(seen) {
            Ok(0) => return Ok(None),
            Ok(low) => low,
            Err(_) => return Ok(Some(RseqCs::Unreadable(u32::MAX))),
        },
    };
    // version, flags, then three 64-bit fields.
    let read = words::<8>(source, pages, pointer)?;
    Ok(Some(match read {
        Some([0, flags, start, _, len, _, abort, _]) => RseqCs::Section {
            start,
            len,
            abort,
            flags,
        },
        _ => RseqCs::Unreadable(pointer),
    }))
}

/// Words of dumped memory that lie in one page.
fn words<const N: usize>(
    source: &mut Source<'_>,
    pages: &PageMap,
    at: u32,
) -> Result<Option<[u32; N]>, Error> {
    let first = u64::from(at & !(PAGE - 1));
    let Some(page) = AddrRange::new(first, first + u64::from(PAGE)) else {
        return Ok(None);
    };
    let Some(bytes) = source.contents(pages, page)? else {
        return Ok(None);
    };
    let offset = usize::try_from(at - page.start()).unwrap_or(usize::MAX);
    let mut out = [0; N];
    let Some(bytes) = offset
        .checked_add(4 * N)
        .and_then(|end| bytes.get(offset..end))
    else {
        return Ok(None);
    };
    for (word, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    Ok(Some(out))
}

fn find_platform(source: &mut Source<'_>, mm: &mut Mm, pages: &PageMap) -> Result<(), Error> {
    const AT_PLATFORM: u32 = 15;
    let Some(at) = mm
        .auxv
        .chunks_exact(2)
        .find(|p| p[0] == AT_PLATFORM)
        .map(|p| p[1])
    else {
        return Ok(());
    };
    let first = u64::from(at & !(PAGE - 1));
    let Some(page) = AddrRange::new(first, first + u64::from(PAGE)) else {
        return Ok(());
    };
    if let Some(bytes) = source.contents(pages, page)? {
        let offset = usize::try_from(at - page.start()).unwrap_or(usize::MAX);
        let text = bytes.get(offset..).unwrap_or_default();
        let text = text
            .get(..text.iter().take(16).position(|b| *b == 0).unwrap_or(0))
            .unwrap_or_default();
        mm.platform = std::str::from_utf8(text)
            .ok()
            .filter(|t| !t.is_empty())
            .map(str::to_owned);
    }
    Ok(())
}

/// The kernel's signal trampoline page looks like any page of code; only place and contents tell it.
fn find_sigpage(source: &mut Source<'_>, mm: &mut Mm, pages: &PageMap) -> Result<(), Error> {
    let special: BTreeSet<u32> = mm
        .vmas
        .iter()
        .filter(|v| matches!(v.kind, VmaKind::Vvar | VmaKind::Vdso))
        .map(|v| v.range.start())
        .collect();
    let looks =
        |v: &Vma| v.kind == VmaKind::Anon && v.prot == 5 && v.range.size() == PAGE && !v.shared;
    let mut candidates: Vec<usize> = (0..mm.vmas.len()).filter(|n| looks(&mm.vmas[*n])).collect();
    // Just below vvar or vdso first, then from the top.
    candidates.sort_by_key(|n| (!special.contains(&mm.vmas[*n].range.end()), usize::MAX - n));
    for n in candidates.into_iter().take(1024) {
        if let Some(page) = source.contents(pages, mm.vmas[n].range)?
            && is_sigpage(&page)
        {
            mm.vmas[n].kind = VmaKind::Sigpage;
            mm.sigpage = Some(page);
            return Ok(());
        }
    }
    Ok(())
}

/// Threads that will return through the sigpage: one of their registers points into it, or a word on their stacks above
/// sp. A signal frame on the way (told by its VFP block) leads on to the stack that it interrupted.
pub(super) fn sigpage_users(
    source: &mut Source<'_>,
    mm: &Mm,
    pages: &PageMap,
    threads: &[Thread],
) -> Result<Vec<u32>, Error> {
    /// What is looked at of one stack, and so many stacks in a row.
    const MOST: u64 = 256 << 10;
    const STACKS: usize = 8;
    /// Tag and size of the VFP block in a frame, 148 bytes behind the sp that was interrupted.
    const VFP: [u32; 2] = [0x5646_5001, 288];
    const BACK: usize = 148 / 4;
    let Some(page) = mm.vmas.iter().find(|v| v.kind == VmaKind::Sigpage) else {
        return Ok(Vec::new());
    };
    let mut out = Vec::new();
    for t in threads {
        let mut user = t.regs.iter().take(16).any(|r| page.range.has(*r));
        let (mut stacks, mut next) = (vec![t.regs[13]], 0);
        while let Some(&sp) = stacks.get(next).filter(|_| !user && next < STACKS) {
            next += 1;
            let first = mm.vmas.partition_point(|v| v.range.end() <= sp);
            let Some(vma) = mm.vmas.get(first).filter(|v| v.range.has(sp)) else {
                continue;
            };
            let from = u64::from(sp & !(PAGE - 1));
            let to = u64::from(vma.range.end()).min(from + MOST);
            for (at, bytes) in source.saved(pages, from, to)? {
                let skip = usize::try_from(u64::from(sp).saturating_sub(at)).unwrap_or(0) / 4;
                let words: Vec<u32> = bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .skip(skip)
                    .map(|w| u32::from_le_bytes(*w))
                    .collect();
                user |= words.iter().any(|w| page.range.has(*w));
                for i in BACK..words.len().saturating_sub(1) {
                    if words[i..i + 2] == VFP && !stacks.contains(&words[i - BACK]) {
                        stacks.push(words[i - BACK]);
                    }
                }
            }
        }
        if user {
            out.push(t.tid);
        }
    }
    Ok(out)
}

/// Filler all over but for one small block with the code `mov r7, #__NR_sigreturn`.
fn is_sigpage(page: &[u8]) -> bool {
    const FILLER: u32 = 0xe7fd_def1;
    const MOV_R7_SIGRETURN: u32 = 0xe3a0_7077;
    let words: Vec<u32> = page
        .as_chunks::<4>()
        .0
        .iter()
        .map(|w| u32::from_le_bytes(*w))
        .collect();
    let code = |w: &u32| *w != FILLER;
    let (Some(first), Some(last)) = (words.iter().position(code), words.iter().rposition(code))
    else {
        return false;
    };
    last - first < 32 && words[first..=last].contains(&MOV_R7_SIGRETURN)
}

/// Contents of anonymous shared memory that is recorded by inode number.
pub(super) fn anon_shared(
    source: &mut Source<'_>,
    checkpoint: &mut Checkpoint,
) -> Result<(), Error> {
    let mut sizes: BTreeMap<u64, u64> = BTreeMap::new();
    for vma in checkpoint
        .tasks
        .iter()
        .filter_map(|t| t.live.as_ref())
        .flat_map(|l| &l.mm.vmas)
    {
        if let VmaKind::AnonShared { shmid } = vma.kind {
            let end = vma.offset + u64::from(vma.range.size());
            let size = sizes.entry(shmid).or_insert(0);
            *size = (*size).max(end);
        }
    }
    for (shmid, size) in sizes {
        let map = objects::contents(source, shmid, size)?;
        checkpoint.anon_shared.insert(shmid, map);
    }
    Ok(())
}

/// True if `addr` is mapped.
pub(super) fn mapped(vmas: &[Vma], addr: u32) -> bool {
    let next = vmas.partition_point(|v| v.range.end() <= addr);
    vmas.get(next).is_some_and(|v| v.range.has(addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(words: &[(usize, u32)]) -> Vec<u8> {
        let mut page: Vec<u8> = 0xe7fd_def1_u32.to_le_bytes().repeat(1024);
        for (at, word) in words {
            page[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        page
    }

    #[test]
    fn sigpages_are_told_by_filler_and_code() {
        assert!(is_sigpage(&page(&[(600, 0xe3a0_7077), (616, 1)])));
        assert!(is_sigpage(&page(&[(0, 0xe3a0_7077)])));
        assert!(!is_sigpage(&page(&[])));
        assert!(!is_sigpage(&page(&[(600, 1)])));
        assert!(!is_sigpage(&page(&[(0, 0xe3a0_7077), (900, 1)])));
        assert!(!is_sigpage(&[0; 4096]));
    }

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

    #[test]
    fn runs_may_span_adjacent_areas_only() {
        let areas = [(0x1000, 0x3000), (0x4000, 0x5000)];
        assert!(covered(&areas, 0x1000, 0x3000));
        assert!(covered(&areas, 0x2000, 0x3000));
        assert!(!covered(&areas, 0x2000, 0x5000));
        assert!(!covered(&areas, 0, 0x2000));
        assert!(!covered(&areas, 0x5000, 0x6000));
    }
}
