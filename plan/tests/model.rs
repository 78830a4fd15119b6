//! For any checkpoint and machine: if there is a plan, the blob's own steps end in the checkpoint's map exactly.

mod common;

use armrest_abi::Step;
use armrest_blob::kernel::{Errno, nr};
use armrest_images::{PageRun, Vma, VmaKind};
use armrest_plan::model::{Model, Trouble, emulator, machine, prove};
use armrest_plan::record::HostArgs;
use armrest_plan::{Machine, Options, Plan, RefusalKind, plan};
use common::*;
use proptest::prelude::*;

/// What a plan may cost, by the goals of the project.
fn within_budget(cp: &armrest_images::Checkpoint, machine: &Machine, p: &Plan, m: &Model) {
    let vmas = &live(cp).mm.vmas;
    let sysv = |v: &&Vma| matches!(v.kind, VmaKind::SysV { .. });
    let shm_vmas = vmas.iter().filter(sysv).count();
    assert!(
        m.count(Step::Map, nr::MMAP2) <= vmas.len() - shm_vmas,
        "one mmap2 a VMA"
    );
    let has_pages = |v: &Vma| {
        let (s, e) = (u64::from(v.range.start()), u64::from(v.range.end()));
        live(cp)
            .pages
            .runs
            .iter()
            .any(|r| r.addr < e && s < r.addr + u64::from(r.pages) * 4096)
    };
    let changed = vmas
        .iter()
        .filter(|v| sysv(v) || (has_pages(v) && (v.prot & 3 != 3 || v.prot & 4 != 0)))
        .count();
    assert!(
        m.count(Step::Protect, nr::MPROTECT) <= changed,
        "one mprotect a VMA that must change"
    );
    let attaches = armrest_plan::shm::attachments(cp, vmas).len();
    assert_eq!(
        m.count(Step::Shm, nr::SHMAT),
        attaches,
        "one shmat an attachment"
    );
    assert!(
        m.count(Step::Shm, nr::MREMAP) <= shm_vmas,
        "one mremap a moved VMA"
    );
    assert_eq!(
        m.count(Step::Shm, nr::MUNMAP),
        p.tables.holes.len(),
        "one munmap a hole"
    );
    // A kernel gets two more for each wide gap between mappings of ours, and one for each of its own pages that stays.
    let unmaps = m.count(Step::Unmap, nr::MUNMAP);
    let gaps = if machine.emulated {
        0
    } else {
        2 * machine.maps.len()
    };
    assert!(
        unmaps <= 3 + gaps,
        "the old address space goes in a few calls, not {unmaps}"
    );
    let rows = p.tables.maps.len()
        + p.tables.protects.len()
        + p.tables.batches.len()
        + p.tables.advises.len()
        + p.tables.locks.len()
        + p.tables.attaches.len()
        + p.tables.pieces.len()
        + p.tables.holes.len()
        + p.tables.removes.len()
        + p.tables.parks.len()
        + p.tables.unparks.len()
        + unmaps.saturating_sub(2)
        + p.tables.queued.len()
        + p.tables.closes.len();
    let fixed = m.calls + 1 - rows;
    // 12 under the emulator; a kernel has robust lists and PR_SET_MM_MAP too.
    let kernel = if machine.emulated { 0 } else { 3 };
    assert!(
        fixed <= 12 + kernel,
        "{fixed} calls besides those of the tables"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_end_is_the_checkpoint(cp in checkpoints(), machine in machines(), limit in proptest::option::of(1u32..20_000)) {
        let p = match plan(&cp, &machine, &options()) {
            Ok(p) => p,
            Err(refusals) => panic!("refused: {refusals:?}"),
        };
        // One byte a read would take for ever on big batches.
        let read_limit = limit.map(|l| l.max(p.tables.batches.iter().map(|b| b.len / 50).max().unwrap_or(1)));
        let m = prove(&cp, &machine, &p, Trouble { read_limit, fail: None }).unwrap_or_else(|stop| panic!("{stop:?}"));
        if read_limit.is_none() {
            within_budget(&cp, &machine, &p, &m);
        }
    }

    #[test]
    fn a_failing_call_stops_the_restore(cp in checkpoints(), machine in machines(), n in 0usize..60, e in 1u32..134) {
        let p = plan(&cp, &machine, &options()).unwrap();
        let trouble = Trouble { read_limit: None, fail: Some((n, Errno(e))) };
        let calls = prove(&cp, &machine, &p, Trouble::default()).unwrap().calls;
        match prove(&cp, &machine, &p, trouble) {
            Ok(_) => prop_assert!(n + 2 >= calls, "call {} of {} failed unseen", n, calls),
            Err(stop) => prop_assert_eq!(stop.result, e.wrapping_neg()),
        }
    }
}

/// Many one-page VMAs that no kernel merges.
fn many(n: u32) -> armrest_images::Checkpoint {
    let vma = |i: u32| {
        anon(
            0x1000_0000 + i * 0x2000,
            1,
            if i.is_multiple_of(2) { 3 } else { 1 },
        )
    };
    let run = |i: u32| PageRun {
        addr: 0x1000_0000 + u64::from(i) * 0x2000,
        pages: 1,
        file: 0,
        offset: u64::from(i) * 4096,
    };
    checkpoint((0..n).map(vma).collect(), vec![], (0..n).map(run).collect())
}

/// Each second one from the top down, then the others: see `by_turns` in plan/src/args.rs. Rights from the top down too.
#[test]
fn mappings_are_made_in_the_order_that_is_cheapest_for_a_kernel() {
    for n in [1, 2, 9, 10] {
        let p = plan(&many(n), &machine(), &options()).unwrap();
        let at = |i: u32| 0x1000_0000 + i * 0x2000;
        let all = (0..n).map(at);
        let of = |odd: u32| all.clone().filter(move |a| a / 0x2000 % 2 == odd).rev();
        let host = HostArgs::of(&p).unwrap();
        let args = host.args();
        let starts = args.maps.iter().map(|m| m.start);
        assert!(starts.eq(of(0).chain(of(1))), "{n}");
        let starts = p.tables.protects.iter().map(|m| m.start);
        assert!(starts.eq(of(1)), "{n}: the read-only ones, once filled");
    }
}

/// What this program maps after its maps were read lies at the upper end of a gap: the unmapping is cut in the middle of
/// one too, since a kernel flushes its TLB from the first to the last mapping of a call.
#[test]
fn the_unmapping_is_cut_twice_at_a_wide_gap() {
    let machine = machine();
    let p = plan(&many(1), &machine, &options()).unwrap();
    let mut maps: Vec<_> = machine.maps.iter().map(|m| m.range).collect();
    maps.retain(|r| r.start < 0xffff_0000);
    maps.sort_by_key(|r| r.start);
    let wide: Vec<_> = maps
        .windows(2)
        .map(|w| (w[0].end, w[1].start))
        .filter(|(from, to)| to - from >= 16 << 20)
        .collect();
    assert!(!wide.is_empty());
    for (from, to) in wide {
        let cut = |at: u32| p.tables.unmaps.iter().any(|u| u.start == at);
        let inside = |u: &&armrest_abi::Range| u.start > from + (16 << 20) / 4 && u.start < to;
        assert!(cut(to), "{to:x}");
        assert!(
            p.tables.unmaps.iter().any(|u| inside(&u)),
            "{from:x}-{to:x}"
        );
    }
}

#[test]
fn sixty_five_thousand_vmas() {
    let (n, machine) = (65_500, machine());
    let cp = many(n);
    let p = plan(&cp, &machine, &options()).unwrap();
    let m = prove(&cp, &machine, &p, Trouble::default()).unwrap();
    let n = usize::try_from(n).unwrap();
    assert_eq!(m.count(Step::Map, nr::MMAP2), n);
    assert_eq!(
        m.count(Step::Protect, nr::MPROTECT),
        n / 2,
        "one more for those that lose write"
    );
    assert_eq!(m.count(Step::Fill, nr::PREADV), n.div_ceil(1024));
    assert!(m.peak <= usize::try_from(machine.max_map_count).unwrap());
    assert!(m.calls < n + n / 2 + n.div_ceil(1024) + 24);
}

#[test]
fn too_many_vmas_are_refused_by_the_name_of_the_sysctl() {
    let refusals = plan(&many(65_530), &machine(), &options()).unwrap_err();
    let r = refusals
        .0
        .iter()
        .find(|r| r.what.contains("vm.max_map_count"))
        .expect("names the sysctl");
    assert_eq!(r.kind, RefusalKind::Machine);
    assert!(r.hint.contains("vm.max_map_count="), "{}", r.hint);
}

#[test]
fn whatever_the_limit_either_a_refusal_or_no_enomem() {
    let cells = [3u32, 1, 3, 1, 0, 3, 1, 3];
    let pieces = cells
        .iter()
        .zip(0..)
        .map(|(p, i)| sysv(2, 0xb000_1000, i, 1, *p, false));
    let vmas: Vec<Vma> = pieces
        .chain((0..10).map(|i| anon(0x2_0000 + i * 0x2000, 1, 3)))
        .collect();
    let cp = checkpoint(vmas, vec![segment(2, 8)], vec![]);
    for max_map_count in 4..60 {
        let machine = Machine {
            max_map_count,
            ..machine()
        };
        if let Ok(p) = plan(&cp, &machine, &options()) {
            prove(&cp, &machine, &p, Trouble::default())
                .unwrap_or_else(|stop| panic!("limit {max_map_count}: {stop:?}"));
        } else {
            assert!(
                max_map_count < 40,
                "refused with room to spare: {max_map_count}"
            );
        }
    }
}

#[test]
fn shm_attachments_go_the_way_that_the_plan_says() {
    // Aligned and whole: one call. Unaligned: shmat and a move. Aligned with a stranger in a hole: moves.
    for (base, stranger, pieces, holes) in [
        (0xb000_0000, false, 0, 0),
        (0xb000_1000, false, 1, 0),
        (0xb000_0000, true, 2, 1),
    ] {
        let mut vmas = vec![sysv(2, base, 0, if stranger { 3 } else { 8 }, 3, false)];
        if stranger {
            vmas.push(anon(base + 0x3000, 1, 3));
            vmas.push(sysv(2, base, 4, 4, 3, false));
        }
        let cp = checkpoint(vmas, vec![segment(2, 8)], vec![]);
        let p = plan(&cp, &machine(), &options()).unwrap();
        assert_eq!(
            (p.tables.pieces.len(), p.tables.holes.len()),
            (pieces, holes)
        );
        let m = prove(&cp, &machine(), &p, Trouble::default()).unwrap();
        assert_eq!(m.count(Step::Protect, nr::MPROTECT), 0);
    }
}

#[test]
fn an_aliasing_cache_refuses_before_anything_is_touched() {
    let cp = checkpoint(
        vec![sysv(2, 0xb000_1000, 0, 8, 3, false)],
        vec![segment(2, 8)],
        vec![],
    );
    let machine = Machine {
        cache_aliases: true,
        ..machine()
    };
    let refusals = plan(&cp, &machine, &options()).unwrap_err();
    assert!(refusals.0[0].what.contains("aliases"), "{refusals:?}");
}

#[test]
fn contents_for_memory_that_others_see_are_refused() {
    for kind in [
        VmaKind::File { file: 1 },
        VmaKind::SysV { shmid: 2 },
        VmaKind::AnonShared { shmid: 9 },
    ] {
        let v = Vma {
            kind,
            shared: true,
            access: Some(2),
            ..anon(0xb000_0000, 8, 3)
        };
        let run = page_run(0xb000_0000, 1, 0);
        let cp = checkpoint(vec![v], vec![segment(2, 8)], vec![run]);
        assert!(
            plan(&cp, &machine(), &options()).is_err(),
            "{kind:?}: a restore would write into what others see"
        );
    }
}

#[test]
fn a_locked_guard_page_is_no_failure() {
    let v = Vma {
        locked: true,
        ..anon(0x2_0000, 1, 0)
    };
    let cp = checkpoint(vec![v], vec![], vec![]);
    let p = plan(&cp, &machine(), &options()).unwrap();
    prove(&cp, &machine(), &p, Trouble::default()).unwrap();
}

#[test]
fn a_writable_executable_vma_is_filled_without_exec() {
    let cp = checkpoint(
        vec![anon(0x2_0000, 4, 7)],
        vec![],
        vec![page_run(0x2_0000, 4, 0)],
    );
    let p = plan(&cp, &machine(), &options()).unwrap();
    let m = prove(&cp, &machine(), &p, Trouble::default()).unwrap();
    assert_eq!(m.prot_at(0x2_1000), Some(7));
}

#[test]
fn the_emulator_and_the_kernel_get_plans_that_fit() {
    let cp = checkpoint(vec![anon(0x2_0000, 4, 3)], vec![], vec![]);
    for machine in [machine(), emulator()] {
        let p = plan(
            &cp,
            &machine,
            &Options {
                any_pid: true,
                ..options()
            },
        )
        .unwrap();
        let m = prove(&cp, &machine, &p, Trouble::default()).unwrap();
        within_budget(&cp, &machine, &p, &m);
        assert_eq!(
            m.count(Step::Mm, nr::PRCTL),
            usize::from(machine.has_mm_map)
        );
    }
}
