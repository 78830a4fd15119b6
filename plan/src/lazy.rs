//! `--lazy`: runs of pages that are mapped privately from the pages files instead of being read.
//!
//! Such memory is no longer anonymous: its maps show the image, what the program drops (MADV_DONTNEED) or grows into
//! (mremap) shows the file again, and the file must stay as it is. So only memory is taken for which that is harmless as
//! long as the images stay: private, plain, of no stack and no heap, without advice or locks that files do not take, and
//! not executable (the images may lie where nothing may be executed). All else is read.

use armrest_abi::PAGE_SIZE;
use armrest_images::{AddrRange, PageRun, Vma, VmaKind};

use crate::consts;
use crate::inherit::mib;

/// The least pages of a run that a mapping of its own is made for: a mapping costs what reading some pages costs, and a
/// process may have 65,530 of them.
const LEAST: u32 = 16;

/// A part of a VMA that is mapped from a pages file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Index of the VMA.
    pub vma: usize,
    /// First byte.
    pub start: u32,
    /// Bytes, whole pages.
    pub len: u32,
    /// Index of the pages file.
    pub file: usize,
    /// Where in that file, in pages.
    pub page: u32,
}

/// True if contents of this VMA may be a private mapping of a file.
fn suits(v: &Vma, guards: &[AddrRange]) -> bool {
    v.kind == VmaKind::Anon
        && !v.shared
        && !v.grows_down
        && !v.heap
        && !v.locked
        && !v.droppable
        && v.madv == 0
        && v.hugetlb.is_none()
        && v.prot & consts::PROT_EXEC == 0
        && !guards.iter().any(|g| g.overlaps(v.range))
}

/// Divide runs into those that are read and those that are mapped. Runs are ascending and apart, VMAs too.
pub fn divide(vmas: &[Vma], guards: &[AddrRange], runs: &[PageRun]) -> (Vec<PageRun>, Vec<Mapped>) {
    let page = u64::from(PAGE_SIZE);
    let (mut read, mut mapped) = (Vec::new(), Vec::new());
    for run in runs {
        let end = run.addr + u64::from(run.pages) * page;
        let mut at = run.addr;
        // A run may reach over several VMAs.
        let first = vmas.partition_point(|v| u64::from(v.range.end()) <= run.addr);
        let mut rest = vmas.iter().enumerate().skip(first);
        while at < end {
            let next = rest.next();
            let until = next.map_or(end, |(_, v)| end.min(u64::from(v.range.end())));
            let pages = u32::try_from((until - at) / page).unwrap_or(u32::MAX);
            let offset = run.offset + (at - run.addr);
            let place = next
                .filter(|(_, v)| suits(v, guards) && pages >= LEAST && offset.is_multiple_of(page))
                .and_then(|(vma, _)| {
                    Some(Mapped {
                        vma,
                        start: u32::try_from(at).ok()?,
                        len: pages.checked_mul(PAGE_SIZE)?,
                        file: run.file,
                        page: u32::try_from(offset / page).ok()?,
                    })
                });
            match place {
                Some(m) => mapped.push(m),
                None => read.push(PageRun {
                    addr: at,
                    pages,
                    file: run.file,
                    offset,
                }),
            }
            at = until;
        }
    }
    (read, mapped)
}

/// A VMA in parts: start, length, and what it is mapped from unless it is as the VMA is.
pub(crate) fn parts(v: &Vma, mapped: &[Mapped], mut part: impl FnMut(u32, u32, Option<Mapped>)) {
    let mut at = v.range.start();
    for m in mapped {
        if at < m.start {
            part(at, m.start - at, None);
        }
        part(m.start, m.len, Some(*m));
        at = m.start + m.len;
    }
    if at < v.range.end() {
        part(at, v.range.end() - at, None);
    }
}

/// What is said of it.
pub(crate) fn note(mapped: &[Mapped], files: &[armrest_images::PagesFile]) -> String {
    let bytes: u64 = mapped.iter().map(|m| u64::from(m.len)).sum();
    if bytes == 0 {
        return "lazy: no run of pages could be mapped, all were read".into();
    }
    let mut of: Vec<usize> = mapped.iter().map(|m| m.file).collect();
    of.sort_unstable();
    of.dedup();
    let names: Vec<&str> = of
        .iter()
        .filter_map(|f| files.get(*f).map(|f| f.name.as_str()))
        .collect();
    format!(
        "lazy: {} are mapped from {}: keep the images unchanged while the task lives",
        mib(bytes),
        names.join(", ")
    )
}
