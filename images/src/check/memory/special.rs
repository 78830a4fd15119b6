//! What is looked for in dumped memory: vdso, platform, the signal page of ARM and who uses it, restartable sequences.

use std::collections::BTreeSet;

use super::super::source::Source;
use crate::checkpoint::{AddrRange, Mm, PAGE, PageMap, RseqCs, Thread, Vma, VmaKind};
use crate::error::Error;

/// Largest vdso whose contents are kept.
const MAX_VDSO: u32 = 16 * PAGE;

pub(super) fn find_vdso(
    source: &mut Source<'_>,
    mm: &mut Mm,
    pages: &PageMap,
) -> Result<(), Error> {
    let mut found = mm.vmas.iter().filter(|v| v.kind == VmaKind::Vdso);
    if let (Some(vdso), None) = (found.next(), found.next())
        && vdso.range.size() <= MAX_VDSO
    {
        mm.vdso = source.contents(pages, vdso.range)?;
    }
    Ok(())
}

/// The restartable sequence of a thread: what its area names, or, where the dumper's own code has made the kernel forget
/// that, what the dumper saw.
pub(in crate::check) fn rseq_cs(
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

/// The rest of a page of dumped memory, from an address on.
fn rest_of_page(
    source: &mut Source<'_>,
    pages: &PageMap,
    at: u32,
) -> Result<Option<Vec<u8>>, Error> {
    let first = u64::from(at & !(PAGE - 1));
    let Some(page) = AddrRange::new(first, first + u64::from(PAGE)) else {
        return Ok(None);
    };
    let offset = usize::try_from(at - page.start()).unwrap_or(usize::MAX);
    let bytes = source.contents(pages, page)?;
    Ok(bytes.and_then(|b| Some(b.get(offset..)?.to_vec())))
}

/// Words of dumped memory that lie in one page.
fn words<const N: usize>(
    source: &mut Source<'_>,
    pages: &PageMap,
    at: u32,
) -> Result<Option<[u32; N]>, Error> {
    let rest = rest_of_page(source, pages, at)?.unwrap_or_default();
    let words = rest.as_chunks::<4>().0.first_chunk::<N>();
    Ok(words.map(|words| words.map(u32::from_le_bytes)))
}

/// AT_PLATFORM is a pointer to a short string on the stack.
pub(super) fn find_platform(
    source: &mut Source<'_>,
    mm: &mut Mm,
    pages: &PageMap,
) -> Result<(), Error> {
    const AT_PLATFORM: u32 = 15;
    let Some(at) = mm
        .auxv
        .chunks_exact(2)
        .find(|p| p[0] == AT_PLATFORM)
        .map(|p| p[1])
    else {
        return Ok(());
    };
    if let Some(text) = rest_of_page(source, pages, at)? {
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
pub(super) fn find_sigpage(
    source: &mut Source<'_>,
    mm: &mut Mm,
    pages: &PageMap,
) -> Result<(), Error> {
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
pub(in crate::check) fn sigpage_users(
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
}
