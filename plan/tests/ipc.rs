//! Limits of the IPC namespace: on made-up machines and a real checkpoint.

mod common;

use armrest_images::{Checkpoint, FsDir, IpcLimits, load};
use armrest_plan::ipc::{Sysctl, limits, needs};
use armrest_plan::{Machine, Options, RefusalKind, plan};
use common::options;

fn shm300() -> Checkpoint {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/images/shm300");
    load(&FsDir::new(dir)).unwrap()
}

/// Limits as the checkpoint has them.
fn same() -> IpcLimits {
    shm300().ipc_limits.unwrap()
}

fn sysctl(path: &'static str, value: &str) -> Sysctl {
    Sysctl {
        path,
        value: value.into(),
    }
}

#[test]
fn equal_limits_are_left_alone() {
    let cp = shm300();
    for own in [true, false] {
        assert_eq!(limits(&cp, Some(&same()), own), Default::default());
    }
    // A namespace that is yet to be made has no limits to compare.
    assert_eq!(limits(&cp, None, false), Default::default());
}

#[test]
fn in_a_namespace_of_our_own_limits_are_raised_first_and_exact_afterwards() {
    let cp = shm300();
    let here = IpcLimits {
        sem: [16_000, 1 << 30, 500, 32_000],
        msgmax: 100,
        shmmni: 5000,
        shm_rmid_forced: 1,
        ..same()
    };
    let l = limits(&cp, Some(&here), true);
    // shmmni is larger here already; segments that nobody attaches are not to go in the middle.
    assert_eq!(
        l.raise,
        [
            sysctl("kernel/sem", "32000 1073741824 500 32000"),
            sysctl("kernel/msgmax", "8192"),
        ]
    );
    assert_eq!(
        l.exact,
        [
            sysctl("kernel/sem", "32000 1024000000 500 32000"),
            sysctl("kernel/msgmax", "8192"),
            sysctl("kernel/shmmni", "4096"),
            sysctl("kernel/shm_rmid_forced", "0"),
        ]
    );
    assert!(l.notes.is_empty());
}

#[test]
fn ids_that_waited_wait_again() {
    let mut cp = shm300();
    cp.ipc_limits.as_mut().unwrap().next = [Some(5), None, Some(7)];
    let l = limits(&cp, Some(&same()), true);
    assert!(l.raise.is_empty());
    assert_eq!(
        l.exact,
        [
            sysctl("kernel/msg_next_id", "5"),
            sysctl("kernel/shm_next_id", "7")
        ]
    );
    let l = limits(&cp, Some(&same()), false);
    assert!(l.exact.is_empty());
    assert_eq!(l.notes.len(), 2);
}

#[test]
fn in_a_namespace_of_others_what_differs_is_said() {
    let cp = shm300();
    let here = IpcLimits {
        msgmnb: 20_000,
        mqueue: [None; 5],
        shm_rmid_forced: 1,
        ..same()
    };
    let l = limits(&cp, Some(&here), false);
    assert!(l.raise.is_empty() && l.exact.is_empty());
    assert!(
        l.notes[0].contains("kernel/msgmnb (16384, 20000 here)"),
        "{:?}",
        l.notes
    );
    assert!(l.notes[0].contains("fs/mqueue/queues_max (256, not here)"));
    assert!(l.notes[1].contains("shm_rmid_forced is 1 here"));
}

#[test]
fn what_the_limits_do_not_allow_is_refused_by_name() {
    let cp = shm300();
    let here = IpcLimits {
        sem: [4, 32_000, 32, 128],
        msgmax: 18,
        msgmnb: 1000,
        shmmax: 8192,
        ..same()
    };
    let mut out = Vec::new();
    needs(&cp, Some(&here), false, 0, &mut out);
    let count = |word: &str| out.iter().filter(|r| r.what.contains(word)).count();
    // Segments of three and four pages, sets of five and eight semaphores, messages of 19 and 20 bytes, both queues.
    assert_eq!(count("kernel.shmmax"), 10);
    assert_eq!(count("kernel.sem"), 2);
    assert_eq!(count("kernel.msgmax"), 2);
    assert_eq!(count("kernel.msgmnb"), 2);
    assert!(out.iter().all(|r| r.kind == RefusalKind::Machine));
    // CAP_SYS_RESOURCE lifts the last; in a namespace of our own they are raised.
    let mut out = Vec::new();
    needs(&cp, Some(&here), false, 1 << 24, &mut out);
    assert!(out.iter().all(|r| !r.what.contains("kernel.msgmnb")));
    let mut out = Vec::new();
    needs(&cp, Some(&here), true, 0, &mut out);
    assert_eq!(out, []);
}

#[test]
fn ids_of_semaphores_and_queues_must_be_choosable() {
    let mut cp = shm300();
    cp.segments.clear();
    let machine = Machine {
        may_choose_ids: false,
        ..Machine::generic()
    };
    let named = |o: &Options| {
        plan(&cp, &machine, o)
            .err()
            .is_some_and(|r| r.0.iter().any(|r| r.what.contains("SysV ids")))
    };
    assert!(named(&options()));
    assert!(!named(&Options {
        any_ids: true,
        ..options()
    }));
    cp.semaphores.clear();
    let queues_alone = plan(&cp, &machine, &options()).err().unwrap();
    assert!(queues_alone.0.iter().any(|r| r.what.contains("SysV ids")));
}
