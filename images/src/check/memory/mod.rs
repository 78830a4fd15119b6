//! Address spaces: VMAs, page maps, and the special pages of ARM.

mod special;
mod vmas;

pub(super) use special::{rseq_cs, sigpage_users};

use std::collections::BTreeMap;

use super::at::{At, need, word};
use super::source::{Source, Space};
use super::{files, objects};
use crate::checkpoint::{Checkpoint, Mm, PAGE, PageMap, Vma, VmaKind};
use crate::error::{Error, Fault};
use crate::{magic, proto};
use special::{find_platform, find_sigpage, find_vdso};
use vmas::vmas;

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
    let mut rest = &areas[..];
    for run in &pages.runs {
        let end = run.addr + u64::from(run.pages) * u64::from(PAGE);
        // Both are ascending.
        while let [first, behind @ ..] = rest
            && first.1 <= run.addr
        {
            rest = behind;
        }
        if !rest.first().is_some_and(|a| a.0 <= run.addr && end <= a.1) {
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
