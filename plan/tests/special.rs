//! Memory that Debian's armmp kernel lacks, on machines made up for it: huge pages and guard ranges. And what lies
//! close to a growing stack.

mod common;

use armrest_abi::PAGE_SIZE;
use armrest_images::{Checkpoint, PageRun, Vma};
use armrest_plan::consts::{MADV_GUARD_INSTALL, MAP_HUGETLB};
use armrest_plan::model::{Trouble, machine, prove};
use armrest_plan::record::record;
use armrest_plan::{HugePages, Machine, RefusalKind, plan, words};
use common::{anon, checkpoint, options, page_run, range};

const HUGE: u32 = 0x4000_0000;

/// LPAE, 2 MiB, so many of them free.
fn huge_machine(free: u64) -> Machine {
    Machine {
        huge_pages: vec![HugePages {
            log2: 21,
            default: true,
            free,
        }],
        ..machine()
    }
}

fn huge(bits: u8, pages: u32) -> Vma {
    Vma {
        hugetlb: Some(bits),
        ..anon(HUGE, pages, 3)
    }
}

fn run(addr: u32, pages: u32) -> PageRun {
    page_run(addr.into(), pages, 0)
}

/// The refusals, in words.
fn refused(cp: &Checkpoint, machine: &Machine) -> Vec<(RefusalKind, String)> {
    let refusals = plan(cp, machine, &options()).expect_err("refused");
    refusals.0.into_iter().map(|r| (r.kind, r.what)).collect()
}

/// Where huge pages are switched off in the calls of a plan, and where the first mapping is made.
fn switched_off(cp: &Checkpoint, machine: &Machine) -> (Option<usize>, Option<usize>) {
    let p = plan(cp, machine, &options()).unwrap();
    let calls: Vec<String> = record(&p).iter().map(words::describe_recorded).collect();
    let first = |words: &str| calls.iter().position(|c| c.starts_with(words));
    (first("prctl(PR_SET_THP_DISABLE, 1"), first("mmap2("))
}

#[test]
fn huge_pages_are_off_before_the_first_mapping_if_the_task_had_them_off() {
    let mut cp = checkpoint(vec![anon(HUGE, 1024, 3)], vec![], vec![]);
    assert_eq!(switched_off(&cp, &machine()).0, None);
    cp.tasks[0].live.as_mut().unwrap().mm.thp_disabled = true;
    let (off, map) = switched_off(&cp, &machine());
    assert!(off.is_some() && off < map, "{off:?} {map:?}");
    let without = Machine {
        has_thp_disable: false,
        ..machine()
    };
    assert_eq!(switched_off(&cp, &without).0, None);
}

#[test]
fn huge_pages_are_asked_for_by_size_and_filled() {
    for bits in [0, 21] {
        let cp = checkpoint(vec![huge(bits, 1024)], vec![], vec![run(HUGE, 512)]);
        let machine = huge_machine(2);
        let p = plan(&cp, &machine, &options()).unwrap();
        let map = p.tables.maps.iter().find(|m| m.start == HUGE).unwrap();
        assert_eq!(map.flags & !0x3f, MAP_HUGETLB | u32::from(bits) << 26);
        let m = prove(&cp, &machine, &p, Trouble::default()).unwrap();
        assert_eq!(m.areas[&HUGE].huge, Some(21));
    }
}

#[test]
fn huge_pages_that_cannot_be_had_are_refused_by_name() {
    let cp = checkpoint(vec![huge(21, 1024)], vec![], vec![]);
    let says = |cp: &Checkpoint, m: &Machine, kind, words: &str| {
        let all = refused(cp, m);
        assert!(
            all.iter().any(|(k, w)| *k == kind && w.contains(words)),
            "{words}: {all:?}"
        );
    };
    says(
        &cp,
        &machine(),
        RefusalKind::Machine,
        "of 2048 KiB, which this kernel does not have",
    );
    says(
        &cp,
        &huge_machine(1),
        RefusalKind::Machine,
        "2 huge pages of 2048 KiB are needed, 1 are free",
    );
    let odd = checkpoint(vec![huge(16, 1024)], vec![], vec![]);
    says(&odd, &huge_machine(9), RefusalKind::Machine, "of 64 KiB");
    let part = checkpoint(vec![huge(21, 1023)], vec![], vec![]);
    says(
        &part,
        &huge_machine(9),
        RefusalKind::Unsupported,
        "not whole huge pages",
    );
    let shared = Vma {
        shared: true,
        kind: armrest_images::VmaKind::AnonShared { shmid: 9 },
        ..huge(21, 1024)
    };
    let shared = checkpoint(vec![shared], vec![], vec![]);
    says(
        &shared,
        &huge_machine(9),
        RefusalKind::Unsupported,
        "shared or a file's",
    );
}

fn guard_machine() -> Machine {
    let mut m = machine();
    m.madvise.push(MADV_GUARD_INSTALL);
    m
}

/// 16 pages with contents in the first 4 and a guard range over the next 2.
fn guarded(change: impl FnOnce(&mut Vma)) -> Checkpoint {
    let mut v = anon(0x2000_0000, 16, 3);
    change(&mut v);
    let mut cp = checkpoint(vec![v], vec![], vec![run(0x2000_0000, 4)]);
    let live = cp.tasks[0].live.as_mut().unwrap();
    live.mm.guards.push(range(0x2000_4000, 2));
    cp
}

#[test]
fn guard_ranges_are_made_last_of_all_advice() {
    let cp = guarded(|v| v.madv = 1 << 10);
    let p = plan(&cp, &guard_machine(), &options()).unwrap();
    let advice: Vec<u32> = p.tables.advises.iter().map(|a| a.advice).collect();
    assert_eq!(advice, [10, MADV_GUARD_INSTALL]);
    let m = prove(&cp, &guard_machine(), &p, Trouble::default()).unwrap();
    assert_eq!(
        m.guards.iter().copied().collect::<Vec<_>>(),
        [0x2000_4000, 0x2000_5000]
    );
    // Without the row the model sees it.
    let mut spoilt = p.clone();
    spoilt.tables.advises.pop();
    let broken = std::panic::catch_unwind(|| {
        prove(&cp, &guard_machine(), &spoilt, Trouble::default()).is_ok()
    });
    assert!(broken.is_err(), "a guard range less went unnoticed");
}

#[test]
fn guard_ranges_that_cannot_be_are_refused() {
    let all = refused(&guarded(|_| ()), &machine());
    assert!(
        all.iter()
            .any(|(k, w)| *k == RefusalKind::Machine && w.contains("MADV_GUARD_INSTALL")),
        "{all:?}"
    );
    let all = refused(&guarded(|v| v.locked = true), &guard_machine());
    assert!(
        all.iter().any(|(_, w)| w.contains("guard range in locked")),
        "{all:?}"
    );
    let mut cp = guarded(|_| ());
    cp.tasks[0].live.as_mut().unwrap().pages.runs[0].pages = 5;
    let all = refused(&cp, &guard_machine());
    assert!(
        all.iter().any(|(_, w)| w.contains("contents below it")),
        "{all:?}"
    );
}

#[test]
fn droppable_memory_is_refused_by_name() {
    let v = Vma {
        droppable: true,
        ..anon(0x2000_0000, 4, 3)
    };
    let all = refused(&checkpoint(vec![v], vec![], vec![]), &machine());
    assert!(
        all.iter().any(|(_, w)| w.contains("MAP_DROPPABLE")),
        "{all:?}"
    );
}

/// A stack that has grown down to its neighbour, both with contents up to the border: mapped as they were, and nothing
/// of ours, not for a moment, in the gap that the kernel keeps below a stack.
#[test]
fn a_stack_may_touch_its_neighbour() {
    let stack = 0x7000_0000;
    let v = Vma {
        grows_down: true,
        ..anon(stack, 8, 3)
    };
    let cp = checkpoint(
        vec![anon(stack - 4 * PAGE_SIZE, 4, 3), v],
        vec![],
        vec![run(stack - 4 * PAGE_SIZE, 12)],
    );
    let p = plan(&cp, &machine(), &options()).unwrap();
    let below = armrest_abi::Range {
        start: stack - 260 * PAGE_SIZE,
        end: stack,
    };
    assert!(!p.area.all.overlaps(below), "{:x?}", p.area.all);
    let m = prove(&cp, &machine(), &p, Trouble::default()).unwrap();
    let (low, high) = (m.areas[&(stack - 4 * PAGE_SIZE)], m.areas[&stack]);
    assert_eq!((low.end, low.grows_down), (stack, false));
    assert!(high.grows_down);
}
