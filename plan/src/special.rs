//! Memory that only some kernels have: huge pages (hugetlb) and guard ranges (MADV_GUARD_INSTALL, Linux 6.13).

use std::collections::BTreeMap;

use armrest_abi::{Advise, PAGE_SIZE};
use armrest_images::{AddrRange, LiveTask, Vma, VmaKind};

use crate::consts::MADV_GUARD_INSTALL;
use crate::machine::Machine;
use crate::types::{Refusal, RefusalKind, Tables};
use crate::u32_of;

/// log2 of the size of a VMA's huge pages; 0 in the image stands for the kernel's default size.
fn size_of(v: &Vma, machine: &Machine) -> Option<u32> {
    match v.hugetlb? {
        0 => machine
            .huge_pages
            .iter()
            .find(|h| h.default)
            .map(|h| h.log2),
        log2 => Some(log2.into()),
    }
}

/// What this machine lacks, or what nobody could restore.
pub fn refuse(live: &LiveTask, machine: &Machine, out: &mut Vec<Refusal>) {
    let mut no = |kind, what: String, hint: String| out.push(Refusal { kind, what, hint });
    let at = |r: AddrRange| format!("VMA {:08x}-{:08x}", r.start(), r.end());
    let mut need: BTreeMap<u32, u64> = BTreeMap::new();
    for v in live.mm.vmas.iter().filter(|v| v.hugetlb.is_some()) {
        let who = at(v.range);
        if v.kind != VmaKind::Anon || v.shared || v.grows_down {
            no(
                RefusalKind::Unsupported,
                format!("{who}: huge pages (hugetlb) that are shared or a file's"),
                "private anonymous ones alone are restored".into(),
            );
            continue;
        }
        let log2 = size_of(v, machine);
        let known = log2.filter(|l| machine.huge_pages.iter().any(|h| h.log2 == *l));
        let Some(log2) = known else {
            let size = log2.map_or("the default size".into(), |l| {
                format!("{} KiB", 1u64 << l >> 10)
            });
            no(
                RefusalKind::Machine,
                format!("{who}: huge pages (hugetlb) of {size}, which this kernel does not have"),
                "restore on a kernel with CONFIG_HUGETLBFS and pages of that size".into(),
            );
            continue;
        };
        let size = 1u64 << log2;
        if u64::from(v.range.start()) % size != 0 || u64::from(v.range.size()) % size != 0 {
            no(
                RefusalKind::Unsupported,
                format!("{who}: not whole huge pages of {} KiB", size >> 10),
                "no dumper writes that: the images are damaged".into(),
            );
        }
        *need.entry(log2).or_default() += u64::from(v.range.size()) / size;
    }
    for (log2, need) in need {
        let free = machine
            .huge_pages
            .iter()
            .find(|h| h.log2 == log2)
            .map_or(0, |h| h.free);
        if free < need {
            let kib = 1u64 << log2 >> 10;
            no(
                RefusalKind::Machine,
                format!("{need} huge pages of {kib} KiB are needed, {free} are free"),
                format!(
                    "raise /sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages by {}",
                    need - free
                ),
            );
        }
    }
    if !live.mm.guards.is_empty() && !machine.madvise.contains(&MADV_GUARD_INSTALL) {
        no(
            RefusalKind::Machine,
            format!(
                "{} guard ranges, the first at {:08x}: this kernel has no MADV_GUARD_INSTALL",
                live.mm.guards.len(),
                live.mm.guards[0].start()
            ),
            "restore on Linux 6.13 or later".into(),
        );
    }
    for g in &live.mm.guards {
        for v in live.mm.vmas.iter().filter(|v| overlap(v.range, *g)) {
            if v.locked || v.hugetlb.is_some() {
                no(
                    RefusalKind::Unsupported,
                    format!("{}: a guard range in locked or huge memory", at(v.range)),
                    "the kernel makes none there".into(),
                );
            }
        }
        let (start, end) = (u64::from(g.start()), u64::from(g.end()));
        let next = live
            .pages
            .runs
            .partition_point(|r| r.addr + u64::from(r.pages) * u64::from(PAGE_SIZE) <= start);
        if live.pages.runs.get(next).is_some_and(|r| r.addr < end) {
            no(
                RefusalKind::Unsupported,
                format!(
                    "guard range {:08x}-{:08x}: contents below it",
                    g.start(),
                    g.end()
                ),
                "no dumper writes that: the images are damaged".into(),
            );
        }
    }
}

fn overlap(a: AddrRange, b: AddrRange) -> bool {
    a.start() < b.end() && b.start() < a.end()
}

/// Guard ranges, as the last advice: it throws away what lies there.
pub fn plan_guards(live: &LiveTask, tables: &mut Tables) {
    for g in &live.mm.guards {
        let vma = live.mm.vmas.partition_point(|v| v.range.end() <= g.start());
        tables.advises.push(Advise {
            start: g.start(),
            len: g.size(),
            advice: MADV_GUARD_INSTALL,
            object: u32_of(vma),
        });
    }
}
