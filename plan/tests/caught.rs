//! The model is no rubber stamp: a plan with one thing wrong is caught, and by the right promise.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use armrest_abi::{Flush, Iovec, Map, Move, Protect, Range, ReportKind};
use armrest_images::{Checkpoint, Vma};
use armrest_plan::model::{Trouble, errno, machine, prove};
use armrest_plan::{Machine, Plan, SourceKind, plan};
use common::*;

/// Anonymous memory, an executable with contents, an unaligned attachment in two pieces with a hole.
fn cp() -> Checkpoint {
    let vmas = vec![
        anon(0x2_0000, 4, 3),
        anon(0x3_0000, 2, 5),
        sysv(2, 0xb000_1000, 0, 3, 3, false),
        sysv(2, 0xb000_1000, 4, 4, 1, false),
    ];
    let runs = vec![page_run(0x2_0000, 2, 0), page_run(0x3_0000, 2, 0x2000)];
    checkpoint(vmas, vec![segment(2, 8)], runs)
}

/// What happens with a spoilt plan: the promise that is broken, or the error.
fn outcome(machine: &Machine, spoil: impl FnOnce(&mut Plan)) -> String {
    let cp = cp();
    let mut p = plan(&cp, machine, &options()).unwrap();
    spoil(&mut p);
    match catch_unwind(AssertUnwindSafe(|| {
        prove(&cp, machine, &p, Trouble::default())
    })) {
        Ok(Ok(_)) => "fine".into(),
        Ok(Err(stop)) if stop.kind == ReportKind::Errno => {
            format!("errno {}", stop.result.wrapping_neg())
        }
        Ok(Err(stop)) => format!("{:?} {}", stop.kind, stop.result),
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).into()))
            .unwrap(),
    }
}

#[track_caller]
fn caught(spoil: impl FnOnce(&mut Plan), promise: &str) {
    let what = outcome(&machine(), spoil);
    assert!(what.contains(promise), "wanted `{promise}`, got `{what}`");
}

#[test]
fn a_good_plan_passes() {
    caught(|_| {}, "fine");
}

#[test]
fn wrong_maps_are_caught() {
    caught(|p| assert!(p.tables.maps.pop().is_some()), "errno 14");
    caught(|p| p.tables.maps[0].len += 0x1000, "the map differs");
    let twice = Map {
        start: 0x2_3000,
        len: 0x1000,
        prot: 3,
        flags: 0x32,
        fd: -1,
        object: 0,
        page_offset: 0,
    };
    caught(|p| p.tables.maps.push(twice), "landed on something");
    caught(|p| p.tables.maps[0].flags |= 0x4000, "the map differs");
    caught(|p| p.tables.maps[1].prot = 7, "writable and executable");
    caught(|p| p.tables.maps[0].flags = 0x22, "without MAP_FIXED");
    let more = Map {
        start: 0xb100_0000,
        len: 0x1000,
        prot: 1,
        flags: 0x32,
        fd: -1,
        object: 0,
        page_offset: 0,
    };
    caught(|p| p.tables.maps.push(more), "another number of VMAs");
    caught(|p| p.tables.maps[0].page_offset = 1 << 32, "BadArgs");
}

#[test]
fn wrong_contents_are_caught() {
    caught(|p| p.tables.batches[0].offset += 0x1000, "Truncated");
    caught(|p| p.tables.iovecs[0].base = 0x3_0000, "written");
    caught(
        |p| assert!(p.tables.batches.pop().is_some()),
        "the contents differ",
    );
    caught(
        |p| p.tables.batches.push(p.tables.batches[0]),
        "written once",
    );
    caught(|p| p.tables.batches[0].len += 1, "BadArgs");
    let shm = |p: &mut Plan| {
        p.tables.iovecs[0] = Iovec {
            base: 0xb000_1000,
            len: p.tables.iovecs[0].len,
        }
    };
    caught(shm, "shared mapping");
}

#[test]
fn wrong_protections_are_caught() {
    caught(
        |p| assert!(p.tables.protects.pop().is_some()),
        "the map differs",
    );
    let hole = Protect {
        start: 0x7000_0000,
        len: 0x1000,
        prot: 1,
        object: 0,
    };
    caught(|p| p.tables.protects.push(hole), "errno 12");
    caught(|p| p.tables.protects[0].prot = 7, "writable and executable");
}

#[test]
fn stale_lines_are_caught() {
    // Filled while executable, as a careless plan would: W^X is what it breaks first.
    let careless = |p: &mut Plan| p.tables.maps[1].prot |= 4;
    caught(careless, "writable and executable");
    // Where the checkpoint itself is writable and executable, only the flush is missing.
    let cp = checkpoint(
        vec![anon(0x3_0000, 2, 7)],
        vec![],
        vec![page_run(0x3_0000, 2, 0)],
    );
    let run = |flush: bool| {
        let mut p = plan(&cp, &machine(), &options()).unwrap();
        p.tables.maps[0].prot = 7;
        p.tables.flushes.clear();
        if flush {
            p.tables.flushes.push(Flush {
                start: 0x3_0000,
                end: 0x3_2000,
                object: 0,
            });
        }
        catch_unwind(AssertUnwindSafe(|| {
            prove(&cp, &machine(), &p, Trouble::default()).map(|_| ())
        }))
        .is_ok()
    };
    assert!(!run(false) && run(true));
}

#[test]
fn wrong_attaches_are_caught() {
    caught(|p| p.tables.attaches[0].at += 0x1000, "errno 22");
    caught(|p| p.tables.attaches[0].at = 0, "kernel would choose");
    caught(|p| p.tables.attaches[0].shmid = 3, "errno 22");
    caught(|p| p.tables.attaches[0].flags |= 0o10000, "the map differs");
    caught(|p| p.tables.pieces[0].len -= 0x1000, "the map differs");
    caught(|p| p.tables.pieces[1].from -= 0x8000, "errno 14");
    caught(
        |p| p.tables.pieces[1].to = p.tables.pieces[0].to,
        "errno 12",
    );
    caught(
        |p| p.tables.pieces[0].to = p.tables.pieces[0].from + 0x1000,
        "errno 22",
    );
    caught(|p| p.tables.attaches[0].holes = 0, "another number of VMAs");
}

#[test]
fn our_own_area_is_guarded() {
    // The blob's verify step is the first guard, the model the second.
    caught(|p| p.tables.unmaps[0].end = p.area.all.end, "BadArgs 8");
    caught(|p| p.tables.maps[0].start = p.area.heap.start, "BadArgs 8");
    caught(|p| p.tables.unmaps.clear(), "old");
    caught(
        |p| p.tables.unmaps[0].start = 0x50_0000,
        "old mappings are there",
    );
    caught(
        |p| p.tables.threads[0].frame = p.area.keep.end - 8,
        "BadArgs 6",
    );
    caught(
        |p| {
            p.area.all = Range {
                start: p.area.all.start,
                end: p.area.all.end - 0x1000,
            }
        },
        "do not fill it",
    );
}

#[test]
fn descriptors_are_all_closed_once() {
    caught(
        |p| assert!(p.tables.closes.pop().is_some()),
        "descriptors of the restore are left",
    );
    caught(|p| p.tables.closes.push(77), "errno 9");
    caught(|p| p.report_fd = p.sources[0].fd, "number of a source");
    caught(|p| p.sources[1].fd = p.sources[0].fd, "same number");
    caught(
        |p| {
            p.sources.iter_mut().for_each(|s| {
                if matches!(s.what, SourceKind::Pages(_)) {
                    s.what = SourceKind::Exe { file: 1 }
                }
            })
        },
        "no page contents",
    );
}

#[test]
fn the_kernels_rules_are_linuxs() {
    let aliasing = Machine {
        cache_aliases: true,
        ..machine()
    };
    assert!(plan(&cp(), &aliasing, &options()).is_err());
    let small = Machine {
        max_map_count: 3,
        ..machine()
    };
    let cp: Checkpoint = cp();
    let p = plan(&cp, &machine(), &options()).unwrap();
    let stop = prove(&cp, &small, &p, Trouble::default()).unwrap_err();
    assert_eq!(stop.result, errno::ENOMEM.0.wrapping_neg());
    // On a kernel with an aliasing cache a plan made elsewhere ends in EINVAL.
    let stop = prove(&cp, &aliasing, &p, Trouble::default()).unwrap_err();
    assert_eq!(stop.result, errno::EINVAL.0.wrapping_neg());
}

#[test]
fn a_parked_mapping_comes_to_its_place() {
    // Not planned yet, but the steps and the model know it: an old mapping moved away, and to its target.
    let vma: Vma = anon(0x2_0000, 1, 1);
    let cp = checkpoint(vec![vma], vec![], vec![]);
    let mut p = plan(&cp, &machine(), &options()).unwrap();
    p.tables.parks.push(Move {
        from: 0x40_0000,
        to: 0x7000_0000,
        len: 0x12_0000,
        object: 0,
    });
    let broken = catch_unwind(AssertUnwindSafe(|| {
        prove(&cp, &machine(), &p, Trouble::default()).map(|_| ())
    }));
    // Parked below the unmap: it goes with the old address space, and nothing breaks.
    assert!(matches!(broken, Ok(Ok(()))), "{broken:?}");
}
