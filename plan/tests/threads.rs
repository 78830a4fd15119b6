//! Threads: where their frames go, which calls they ask for, and what is refused.

mod common;

use armrest_abi::want;
use armrest_images::{AddrRange, Checkpoint, LiveTask, RseqCs, Thread};
use armrest_plan::model::{self, Trouble, machine};
use armrest_plan::{Exit, Machine, Options, Plan, SourceKind, plan, threads};

const FRAME: u32 = 888;

/// One task with `n` threads whose stacks lie side by side in one mapping, `room` bytes each.
fn crowd(n: u32, room: u32) -> Checkpoint {
    let mut cp = common::checkpoint(
        vec![common::anon(0x4000_0000, (n * room).div_ceil(4096), 3)],
        Vec::new(),
        Vec::new(),
    );
    let live = live(&mut cp);
    let first = live.threads[0].clone();
    live.threads = (0..n)
        .map(|i| {
            let mut t = Thread {
                tid: first.tid + 2 * i,
                tls: 0x100 * i,
                comm: Some(format!("thread {i}")),
                ..first.clone()
            };
            t.regs[13] = 0x4000_0000 + (i + 1) * room - 16;
            t
        })
        .collect();
    cp
}

fn live(cp: &mut Checkpoint) -> &mut LiveTask {
    cp.tasks[0].live.as_mut().expect("alive")
}

fn planned(cp: &Checkpoint, m: &Machine) -> Plan {
    plan(cp, m, &common::options()).expect("a plan")
}

fn refused(cp: &Checkpoint, m: &Machine) -> Vec<String> {
    let refusals = plan(cp, m, &common::options()).expect_err("a refusal").0;
    refusals.into_iter().map(|r| r.what).collect()
}

fn proved(cp: &Checkpoint, m: &Machine) -> Plan {
    let p = planned(cp, m);
    model::prove(cp, m, &p, Trouble::default()).expect("the steps succeed");
    p
}

#[test]
fn threads_are_proved_on_the_model_with_either_way_to_their_ids() {
    for n in [1, 2, 6, 300] {
        let mut cp = crowd(n, 0x1000);
        for (i, t) in (0..).zip(&mut live(&mut cp).threads) {
            t.nice = Some(i % 20);
            t.sched = Some((if i % 3 == 0 { 1 } else { 0 }, u32::from(i % 3 == 0)));
            t.robust = (0x4000_0000 + 8, 12);
            t.rseq = Some((0x4000_0020, 32, 5, 0));
            let mut info = [0; 128];
            info[0] = 34;
            t.pending = vec![info; usize::from(i == 1) * 3];
        }
        let p = proved(&cp, &machine());
        let bits = want::SET_TID | want::LAST_PID;
        assert_eq!(p.want & bits, if n == 1 { 0 } else { want::SET_TID });
        let without = Machine {
            has_set_tid: false,
            ..machine()
        };
        let p = proved(&cp, &without);
        assert_eq!(p.want & bits, if n == 1 { 0 } else { want::LAST_PID });
        let fd = p.sources.iter().find(|s| s.what == SourceKind::LastPid);
        assert_eq!(fd.map(|s| s.fd), p.last_pid_fd);
        assert_eq!(fd.is_some(), n > 1);
    }
}

#[test]
fn any_pid_means_any_ids_of_threads_and_says_so() {
    let any = Options {
        any_pid: true,
        ..common::options()
    };
    let p = plan(&crowd(3, 0x1000), &machine(), &any).expect("a plan");
    assert_eq!(p.want & (want::SET_TID | want::LAST_PID), 0);
    assert!(p.notes.iter().any(|n| n.starts_with("threads have ids")));
}

#[test]
fn frames_go_where_no_other_thread_is() {
    let mut cp = crowd(3, 0x1000);
    let frames = threads::exit_frames(live(&mut cp));
    for (frame, t) in frames.iter().zip(&live(&mut cp).threads) {
        assert_eq!(*frame, Some((t.regs[13] - FRAME) & !7));
    }
    // Less room than a frame takes: each but the lowest would write over the thread below it.
    let mut tight = crowd(3, 512);
    let frames = threads::exit_frames(live(&mut tight));
    assert_eq!(frames[1..], [None, None]);
    // A tracer keeps the area until all are out: then they need none.
    let p = proved(&tight, &machine());
    assert!(matches!(p.exit, Exit::Ptrace(_)), "{:?}", p.exit);
    assert_eq!(p.tables.threads[1].exit_frame, 0);
    let alone = Machine {
        has_ptrace: false,
        ..machine()
    };
    let what = refused(&tight, &alone);
    assert!(what[0].contains("no room for a signal frame"), "{what:?}");
    // Between two stacks: each frame is clear of the other's stack pointer, but not of its frame.
    let mut close = crowd(2, 0x1000);
    live(&mut close).threads[0].regs[13] = 0x4000_1f00;
    live(&mut close).threads[1].regs[13] = 0x4000_1f40;
    assert_eq!(
        threads::exit_frames(live(&mut close))
            .iter()
            .flatten()
            .count(),
        1
    );
}

/// Small stacks without a guard between: what is below one may be in use above the other's stack pointer.
#[test]
fn no_frame_reaches_into_a_near_neighbour() {
    let frames = |apart: u32, altstack| {
        let mut cp = crowd(2, 0x1000);
        let live = live(&mut cp);
        live.threads[1].regs[13] = live.threads[0].regs[13] + apart;
        live.threads[1].altstack = altstack;
        threads::exit_frames(live)[1].is_some()
    };
    assert!(!frames(0x900, None));
    assert!(!frames(0xfff, None));
    assert!(frames(0x1000, None));
    // The bounds of an alternate stack are known.
    let mut cp = crowd(2, 0x1000);
    let low = live(&mut cp).threads[0].regs[13];
    assert!(frames(0x900, Some((low, 0x900, 0))));
}

#[test]
fn an_interrupted_sequence_goes_on_where_it_is_aborted() {
    let mut cp = crowd(2, 0x1000);
    let pc = |p: &Plan| u32::from_le_bytes(p.frames[1][220..224].try_into().unwrap());
    let set = |cp: &mut Checkpoint, at: u32, flags: u32| {
        let t = &mut live(cp).threads[1];
        t.regs[15] = at;
        t.rseq_cs = Some(RseqCs::Section {
            start: 0x4000_0100,
            len: 0x20,
            abort: 0x4000_0200,
            flags,
        });
    };
    for (at, goes_on) in [
        (0x4000_00fc, 0x4000_00fc),
        (0x4000_0100, 0x4000_0200),
        (0x4000_011c, 0x4000_0200),
        (0x4000_0120, 0x4000_0120),
    ] {
        set(&mut cp, at, 0);
        assert_eq!(pc(&planned(&cp, &machine())), goes_on, "{at:x}");
    }
    set(&mut cp, 0x4000_0120, 1);
    assert_eq!(pc(&planned(&cp, &machine())), 0x4000_0120);
    set(&mut cp, 0x4000_0100, 1);
    assert!(refused(&cp, &machine())[0].contains("does not want to be restarted"));
    live(&mut cp).threads[1].rseq_cs = Some(RseqCs::Unreadable(0x1_0000));
    assert!(refused(&cp, &machine())[0].contains("that the images do not hold"));
}

#[test]
fn what_scheduling_needs_rights_or_parameters_is_refused_without_them() {
    let mut cp = crowd(2, 0x1000);
    let poor = Machine {
        may_nice: false,
        own_nice: 5,
        ..machine()
    };
    let bits = |p: &Plan| p.tables.threads[1].want & (want::SCHED | want::NICE);
    live(&mut cp).threads[1].nice = Some(5);
    live(&mut cp).threads[1].sched = Some((0, 0));
    assert_eq!(bits(&planned(&cp, &poor)), 0, "as armrest itself");
    live(&mut cp).threads[1].nice = Some(6);
    assert_eq!(bits(&planned(&cp, &poor)), want::NICE);
    live(&mut cp).threads[1].nice = Some(0);
    assert!(refused(&cp, &poor)[0].contains("nice value 0, and armrest runs with 5"));
    let rich = Machine {
        may_nice: true,
        ..poor.clone()
    };
    assert_eq!(bits(&planned(&cp, &rich)), want::NICE);
    live(&mut cp).threads[1].nice = None;
    for (policy, ok) in [(1, true), (2, true), (0x4000_0001, true), (6, false)] {
        live(&mut cp).threads[1].sched = Some((policy, 1));
        assert_eq!(plan(&cp, &rich, &common::options()).is_ok(), ok, "{policy}");
        assert!(plan(&cp, &poor, &common::options()).is_err(), "{policy}");
    }
}

#[test]
fn an_id_that_is_taken_is_named() {
    let taken = Machine {
        tid_taken_by: Some((138, "\"sh\" (pid 138)".into())),
        ..machine()
    };
    assert_eq!(
        refused(&crowd(2, 0x1000), &taken),
        ["tid 138: taken by \"sh\" (pid 138)"]
    );
}

#[test]
fn the_area_has_a_stack_for_each_and_the_frames_in_its_arguments() {
    let p = planned(&crowd(1001, 0x1000), &machine());
    let stacks: Vec<u32> = p.tables.threads[1..].iter().map(|t| t.stack).collect();
    assert_eq!(stacks.len(), 1000);
    assert!(stacks.is_sorted_by(|a, b| b - a == 0x400));
    assert_eq!(stacks[0] - 0x400, p.area.threads.start);
    assert_eq!(stacks[999], p.area.threads.end);
    let range = AddrRange::new(p.area.args.start.into(), p.area.args.end.into()).unwrap();
    let host = armrest_plan::record::HostArgs::of(&p).unwrap();
    for (t, frame) in host.args().threads.iter().zip(&p.frames).skip(1) {
        assert!(range.has(t.frame) && t.frame.is_multiple_of(8));
        let at = usize::try_from(t.frame - p.area.args.start).unwrap();
        assert_eq!(armrest_plan::args::bytes(&p)[at..at + 888], frame[..]);
    }
}
