//! Timers: on any kernel the steps leave those of the checkpoint, under their numbers, or the plan says why not.

mod common;

use armrest_images::{Clocks, PosixTimer};
use armrest_plan::model::{Trouble, prove};
use armrest_plan::timers::TimerIds;
use armrest_plan::{Machine, Options, RefusalKind, plan};
use common::*;
use proptest::prelude::*;

fn timer(id: u32) -> PosixTimer {
    PosixTimer {
        id,
        clock: 7,
        signo: 34,
        notify: 0,
        value: 5000 + u64::from(id),
        overrun: 0,
        interval: (0, 60_000_000),
        remaining: (3, 4),
        thread: None,
    }
}

fn with(timers: Vec<PosixTimer>) -> armrest_images::Checkpoint {
    let mut cp = checkpoint(vec![anon(0x2_0000, 4, 3)], vec![], vec![]);
    cp.tasks[0].live.as_mut().unwrap().posix_timers = timers;
    cp
}

fn refusals(
    cp: &armrest_images::Checkpoint,
    machine: &Machine,
    o: &Options,
) -> Vec<(RefusalKind, String)> {
    match plan(cp, machine, o) {
        Ok(_) => Vec::new(),
        Err(r) => r.0.into_iter().map(|r| (r.kind, r.what)).collect(),
    }
}

proptest! {
    #[test]
    fn the_timers_come_back_under_their_numbers(
        ids in prop::collection::btree_set(0u32..200, 0..20),
        chosen: bool,
        has_time64: bool,
    ) {
        let cp = with(ids.iter().map(|id| timer(*id)).collect());
        let timer_ids = if chosen { TimerIds::Chosen } else { TimerIds::Counted };
        let machine = Machine { timer_ids, has_time64, ..Machine::generic() };
        let p = plan(&cp, &machine, &options()).unwrap();
        let m = prove(&cp, &machine, &p, Trouble::default()).unwrap();
        prop_assert!(!m.timers.asks_for_numbers());
        prop_assert!(m.timers.posix.keys().eq(ids.iter()));
        for (id, t) in &m.timers.posix {
            prop_assert_eq!(t.clock, 7);
            prop_assert_eq!(t.event.len(), 64);
            prop_assert_eq!(&t.event[..4], &(5000 + id).to_le_bytes());
            prop_assert_eq!(&t.event[4..8], &34u32.to_le_bytes());
            let words: Vec<u32> = if has_time64 {
                vec![0, 0, 60_000_000, 0, 3, 0, 4, 0]
            } else {
                vec![0, 60_000_000, 3, 4, 0, 0, 0, 0]
            };
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            prop_assert_eq!(t.value.clone(), Some((has_time64, bytes)));
        }
    }
}

#[test]
fn interval_timers_are_armed_with_what_was_left() {
    let mut cp = with(vec![]);
    let machine = Machine::generic();
    let mut armed = |itimers| {
        cp.tasks[0].live.as_mut().unwrap().itimers = itimers;
        let p = plan(&cp, &machine, &options()).unwrap();
        let m = prove(&cp, &machine, &p, Trouble::default()).unwrap();
        m.timers.interval
    };
    let words = |w: [u32; 4]| w.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let m = armed([[0, 70_000, 0, 3], [0; 4], [5, 0, 0, 0]]);
    assert_eq!(m.len(), 2);
    assert_eq!(m[&0], words([0, 70_000, 0, 3]));
    assert_eq!(m[&2], words([5, 0, 0, 0]), "disarmed, with its interval");
    let m = armed([[5, 0, 0, 0], [0; 4], [0; 4]]);
    assert_eq!(m[&0], words([5, 0, 5, 0]), "due: the interval stands in");
}

#[test]
fn clocks_go_on_where_the_kernel_can_and_jump_aloud_elsewhere() {
    let mut cp = with(vec![]);
    let then = Clocks {
        monotonic_ns: 29_000_000_000,
        boottime_ns: 30_000_000_000,
    };
    cp.clocks = Some(then);
    let can = Machine {
        has_timens: true,
        monotonic_ns: 5_000_000_000,
        ..Machine::generic()
    };
    let jumps = |p: &armrest_plan::Plan| p.notes.iter().filter(|n| n.contains("jumps")).count();
    let p = plan(&cp, &can, &options()).unwrap();
    assert_eq!((p.clocks, jumps(&p)), (Some(then), 0));
    let cannot = Machine {
        has_timens: false,
        ..can
    };
    let p = plan(&cp, &cannot, &options()).unwrap();
    assert_eq!(p.clocks, None);
    assert!(
        p.notes.iter().any(|n| n.contains("jumps back by 24 s")),
        "{:?}",
        p.notes
    );
}

#[test]
fn what_cannot_be_had_is_named() {
    let generic = Machine::generic();
    let emulator = Machine {
        timer_ids: TimerIds::Foreign,
        ..Machine::generic()
    };
    let old = Machine {
        has_time64: false,
        ..Machine::generic()
    };
    let newest = Machine {
        timer_ids: TimerIds::Chosen,
        ..Machine::generic()
    };
    let far = with(vec![timer(2_000_000)]);
    let long = with(vec![PosixTimer {
        remaining: (1 << 31, 0),
        ..timer(0)
    }]);
    let scrambled = with(vec![PosixTimer {
        remaining: (7 << 32, 0),
        ..timer(0)
    }]);
    let twice = with(vec![timer(1), timer(1)]);
    let of_thread = |tid| {
        with(vec![PosixTimer {
            notify: 4,
            thread: Some(tid),
            ..timer(0)
        }])
    };
    let cpu = |tid: u32| {
        with(vec![PosixTimer {
            clock: !tid << 3 | 6,
            ..timer(0)
        }])
    };
    let any_pid = Options {
        any_pid: true,
        ..options()
    };
    let leader = with(vec![]).tasks[0].pid;
    use RefusalKind::{Ids, Machine as Kernel, Unsupported};
    for (cp, machine, o, kind, what) in [
        (
            &with(vec![timer(0)]),
            &emulator,
            options(),
            Kernel,
            "POSIX timer 0: timers are numbered",
        ),
        (
            &far,
            &generic,
            options(),
            Kernel,
            "POSIX timer 2000000: 2000000 numbers",
        ),
        (
            &long,
            &old,
            options(),
            Kernel,
            "POSIX timer 0 has more than 68 years left",
        ),
        (
            &scrambled,
            &generic,
            options(),
            Unsupported,
            "POSIX timer 0 with impossible values (time left 30064771072 s",
        ),
        (
            &twice,
            &generic,
            options(),
            Unsupported,
            "POSIX timer 1 is not above the one before",
        ),
        (
            &of_thread(9999),
            &generic,
            options(),
            Unsupported,
            "POSIX timer 0 signals thread 9999, which is gone",
        ),
        (
            &cpu(9999),
            &generic,
            options(),
            Unsupported,
            "POSIX timer 0 counts the CPU time of thread 9999",
        ),
        (
            &of_thread(leader),
            &generic,
            any_pid.clone(),
            Ids,
            "POSIX timer 0 signals thread",
        ),
    ] {
        let found = refusals(cp, machine, &o);
        assert!(
            found.iter().any(|f| f.0 == kind && f.1.contains(what)),
            "{what}: {found:?}"
        );
    }
    assert_eq!(refusals(&far, &newest, &options()), []);
    assert_eq!(refusals(&long, &generic, &options()), []);
    assert_eq!(refusals(&of_thread(leader), &generic, &options()), []);
    assert_eq!(refusals(&cpu(leader), &generic, &options()), []);
}
