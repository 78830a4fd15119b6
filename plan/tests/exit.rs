//! The way out through the kernel's sigpage: only if the page has the known words, and only with a frame where the
//! kernel itself would put one. Each test says which condition it takes away.

mod common;

use armrest_images::{Checkpoint, FsDir, TaskState, VmaKind};
use armrest_plan::kernel_pages::KernelPages;
use armrest_plan::{Exit, Finish, Machine, Options, Plan, finish, plan};
use std::path::Path;

const ASKED: finish::Asked = finish::Asked {
    room: true,
    traced: false,
};

fn sample(name: &str) -> Checkpoint {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/images")
        .join(name);
    armrest_images::load(&FsDir::new(dir)).expect(name)
}

/// The machine that the samples were made on: its sigpage is theirs.
fn machine(cp: &Checkpoint) -> Machine {
    let live = cp.tasks[0].live.as_ref().expect("alive");
    Machine {
        sigpage: live.mm.sigpage.clone(),
        ..Machine::generic()
    }
}

fn planned(cp: &Checkpoint, machine: &Machine) -> Plan {
    plan(cp, machine, &common::options()).expect("a plan")
}

fn live(cp: &mut Checkpoint) -> &mut armrest_images::LiveTask {
    cp.tasks[0].live.as_mut().expect("alive")
}

#[test]
fn the_frame_goes_below_sp_and_the_jump_into_the_moved_sigpage() {
    let cp = sample("counter");
    let p = planned(&cp, &machine(&cp));
    let exit = p.exit.sigpage().expect("a way out");
    let l = cp.tasks[0].live.as_ref().unwrap();
    let sp = l.threads[0].regs[13];
    let frame = p.tables.threads[0].exit_frame;
    assert!(frame.is_multiple_of(8) && frame + 888 <= sp && sp - frame < 888 + 8);
    let page =
        l.mm.vmas
            .iter()
            .find(|v| v.kind == VmaKind::Sigpage)
            .unwrap()
            .range;
    let at = usize::try_from(exit.svc - page.start()).unwrap();
    let bytes = l.mm.sigpage.as_ref().unwrap();
    assert_eq!(bytes[at..at + 4], 0xef90_0077u32.to_le_bytes(), "an svc");
    assert_eq!(
        bytes[at + 12..at + 16],
        0xef90_00adu32.to_le_bytes(),
        "and the one of rt_sigreturn"
    );
}

#[test]
fn an_alternate_stack_that_is_free_takes_the_frame_and_one_in_use_does_not() {
    let mut cp = sample("counter");
    let m = machine(&cp);
    let heap = live(&mut cp).mm.vmas.iter().find(|v| v.heap).unwrap().range;
    live(&mut cp).threads[0].altstack = Some((heap.start(), 8192, 0));
    let frame = planned(&cp, &m).tables.threads[0].exit_frame;
    assert_eq!(frame, heap.start() + 8192 - 888);
    // In use, whatever the dumper's flags say: sp is in it.
    live(&mut cp).threads[0].regs[13] = heap.start() + 4096;
    let frame = planned(&cp, &m).tables.threads[0].exit_frame;
    assert_eq!(frame, (heap.start() + 4096 - 888) & !7, "below sp");
}

/// The same machine, with one thing of it taken away.
fn without(cp: &Checkpoint) -> [(&'static str, Machine); 3] {
    let good = machine(cp);
    let mut other = good.clone();
    let page = other.sigpage.as_mut().unwrap();
    let code = page
        .windows(4)
        .position(|w| w == 0xef90_0077u32.to_le_bytes())
        .unwrap();
    page[code] ^= 1;
    [
        (
            "OABI",
            Machine {
                svc_by_r7: false,
                ..good.clone()
            },
        ),
        ("other words", other),
        (
            "no sigpage",
            Machine {
                maps: good
                    .maps
                    .iter()
                    .filter(|m| m.name != "[sigpage]")
                    .cloned()
                    .collect(),
                ..good
            },
        ),
    ]
}

fn no_room_below_sp(cp: &mut Checkpoint) {
    let vmas = &live(cp).mm.vmas;
    let stack = vmas.iter().find(|v| v.grows_down).unwrap().range;
    live(cp).threads[0].regs[13] = stack.start() + 880;
}

fn refused(cp: &Checkpoint, machine: &Machine, options: &Options) -> String {
    let refusals = plan(cp, machine, options).expect_err("a refusal").0;
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    refusals[0].what.clone()
}

#[test]
fn without_room_or_known_words_or_with_oabi_ptrace_takes_the_page_and_without_ptrace_it_is_kept() {
    let cp = sample("counter");
    let mut tight = cp.clone();
    no_room_below_sp(&mut tight);
    let mut cases = vec![(tight, "no room", machine(&cp))];
    for (name, m) in without(&cp) {
        cases.push((cp.clone(), name, m));
    }
    for (cp, name, m) in cases {
        let p = planned(&cp, &m);
        assert!(matches!(p.exit, Exit::Ptrace(_)), "{name}: {:?}", p.exit);
        assert!(p.traced, "{name}");
        let alone = Machine {
            has_ptrace: false,
            ..m.clone()
        };
        let p = planned(&cp, &alone);
        assert!(matches!(p.exit, Exit::Page(_)), "{name}: {:?}", p.exit);
        assert!(!p.traced, "{name}");
        let asked = Options {
            finish: Finish::Sigpage,
            ..common::options()
        };
        let what = refused(&cp, &m, &asked);
        assert!(what.starts_with("--finish=sigpage: "), "{name}: {what}");
    }
}

#[test]
fn what_is_asked_for_is_done_or_refused() {
    let cp = sample("counter");
    let m = machine(&cp);
    let asked = |finish, leave_stopped| Options {
        finish,
        leave_stopped,
        ..common::options()
    };
    let p = |finish, stop| plan(&cp, &m, &asked(finish, stop)).expect("a plan");
    assert!(p(Finish::Auto, false).exit.sigpage().is_some());
    assert!(!p(Finish::Auto, false).traced);
    assert!(p(Finish::Auto, true).exit.sigpage().is_some());
    assert!(p(Finish::Auto, true).traced);
    assert!(matches!(p(Finish::Ptrace, false).exit, Exit::Ptrace(_)));
    assert!(matches!(p(Finish::Page, false).exit, Exit::Page(_)));
    assert!(!p(Finish::Page, false).traced);
    let alone = Machine {
        has_ptrace: false,
        ..m.clone()
    };
    assert_eq!(
        refused(&cp, &alone, &asked(Finish::Auto, true)),
        "--leave-stopped without ptrace"
    );
    assert_eq!(
        refused(&cp, &alone, &asked(Finish::Ptrace, false)),
        "--finish=ptrace without ptrace"
    );
}

#[test]
fn a_pending_sigcont_does_not_survive_a_stop() {
    let mut cp = sample("counter");
    let m = machine(&cp);
    let mut info = [0; 128];
    info[0] = 18;
    live(&mut cp).pending.push(info);
    let pages = Default::default();
    let decide = |m: &Machine, leave_stopped| {
        let options = Options {
            leave_stopped,
            finish: Finish::Page,
            ..common::options()
        };
        let live = cp.tasks[0].live.as_ref().unwrap();
        finish::decide(live, m, &pages, ASKED, &options, &|_| false)
    };
    assert!(decide(&m, false).is_ok());
    assert!(decide(&m, true).unwrap_err().what.contains("SIGCONT"));
}

#[test]
fn filters_in_the_way_are_suspended_by_a_tracer_with_the_right_to_or_refused() {
    let cp = sample("counter");
    let live = cp.tasks[0].live.as_ref().unwrap();
    let m = machine(&cp);
    let p = planned(&cp, &m);
    assert!(p.exit.sigpage().is_some());
    // Decided again as the plan does, with the sigpage moved.
    let pages = KernelPages {
        sigpage: live
            .mm
            .vmas
            .iter()
            .find(|v| v.kind == VmaKind::Sigpage)
            .map(|v| v.range.start()),
        ..KernelPages::default()
    };
    let decide = |m: &Machine, forbidden: u32| {
        finish::decide(live, m, &pages, ASKED, &common::options(), &|nr| {
            nr == forbidden
        })
    };
    assert!(decide(&m, 0).unwrap().sigpage().is_some());
    for (nr, name) in finish::LAST_CALLS {
        assert!(matches!(decide(&m, nr), Ok(Exit::Ptrace(_))), "{name}");
        let weak = Machine {
            cap_eff: !(1 << 21),
            ..m.clone()
        };
        let alone = Machine {
            has_ptrace: false,
            ..m.clone()
        };
        for m in [weak, alone] {
            let refusal = decide(&m, nr).unwrap_err();
            assert!(refusal.what.contains(name), "{refusal:?}");
        }
    }
}

#[test]
fn an_alternate_stack_in_use_is_seen_by_the_stack_pointer_too() {
    let mut cp = sample("counter");
    let m = machine(&cp);
    let heap = live(&mut cp).mm.vmas.iter().find(|v| v.heap).unwrap().range;
    let low = heap.start();
    live(&mut cp).threads[0].altstack = Some((low, 8192, 0));
    live(&mut cp).threads[0].regs[13] = low + 4096;
    let frame = planned(&cp, &m).tables.threads[0].exit_frame;
    assert!(frame + 888 <= low + 4096 && frame > low, "{frame:x}");
    // And never below its end.
    live(&mut cp).threads[0].regs[13] = low + 800;
    assert!(matches!(planned(&cp, &m).exit, Exit::Ptrace(_)));
}

#[test]
fn a_traced_plan_has_its_thread_say_when_it_leaves() {
    let cp = sample("counter");
    let m = machine(&cp);
    let options = Options {
        leave_stopped: true,
        ..common::options()
    };
    let p = plan(&cp, &m, &options).expect("a plan");
    let calls = armrest_plan::record::record(&p);
    let stops: Vec<usize> = (0..calls.len())
        .filter(|i| calls[*i].nr == 363 && calls[*i].args[2] == 19)
        .collect();
    assert_eq!(stops.len(), 1);
    // Behind everything that takes long.
    let slow = [192, 125, 361, 163];
    assert!(calls[stops[0]..].iter().all(|c| !slow.contains(&c.nr)));
    let none = planned(&cp, &m);
    let calls = armrest_plan::record::record(&none);
    assert!(calls.iter().all(|c| c.nr != 363));
}

/// `halted` stopped itself by SIGSTOP, `stopped` has a child each by SIGSTOP and SIGTSTP.
#[test]
fn a_stopped_task_is_traced_and_stopped_by_its_own_signal() {
    let mut cp = sample("halted");
    let m = machine(&cp);
    let p = planned(&cp, &m);
    assert_eq!((p.traced, p.stop), (true, Some(19)));
    assert!(p.exit.sigpage().is_some());
    let alone = Machine {
        has_ptrace: false,
        ..m.clone()
    };
    let options = common::options();
    assert_eq!(
        refused(&cp, &alone, &options),
        "a stopped task without ptrace"
    );
    for (signo, by) in [(0, 19), (20, 20), (21, 21), (22, 22)] {
        cp.tasks[0].state = TaskState::Stopped { signo };
        assert_eq!(planned(&cp, &m).stop, Some(by));
    }
    for signo in [9, 18, 23, 65] {
        cp.tasks[0].state = TaskState::Stopped { signo };
        let what = refused(&cp, &m, &options);
        assert_eq!(what, format!("pid 401: stopped by signal {signo}"));
    }
    cp.tasks[0].state = TaskState::Alive;
    let p = planned(&cp, &m);
    assert_eq!((p.traced, p.stop), (false, None));
}

/// Only where a thread will return through the dumped page does that stay: of the samples in `handlers`, where a second
/// thread is inside a handler without SA_RESTORER. The kernel's then lies elsewhere, and is the way out all the same.
#[test]
fn another_sigpage_matters_only_to_those_inside_a_handler() {
    let decided = |name: &str, same: bool| {
        let mut cp = sample(name);
        let mut page = machine(&cp).sigpage.unwrap();
        if !same {
            page.rotate_left(64);
        }
        let machine = Machine {
            sigpage: Some(page),
            ..Machine::generic()
        };
        let space = armrest_plan::space::Space::new(0x1_0000, 0xb000_0000);
        let live = live(&mut cp);
        let pages =
            armrest_plan::kernel_pages::plan_kernel_pages(live, &machine, (&space, &space), None);
        let exit = armrest_plan::kernel_pages::sigpage_exit(&machine, &pages);
        let at = live
            .mm
            .vmas
            .iter()
            .position(|v| v.kind == VmaKind::Sigpage)
            .unwrap();
        let users = live.mm.sigpage_users.len();
        (users, pages.moved.contains(&at), pages, exit)
    };
    for name in ["counter", "memory", "dyn", "threads", "jit"] {
        let (users, moved, pages, _) = decided(name, false);
        assert!(
            users == 0 && moved && pages.notes.is_empty(),
            "{name}: {pages:?}"
        );
    }
    let (users, moved, pages, _) = decided("handlers", true);
    assert!(users == 1 && moved && pages.notes.is_empty(), "{pages:?}");
    let (_, moved, pages, exit) = decided("handlers", false);
    assert!(!moved && pages.notes.len() == 1, "{pages:?}");
    let at = pages.sigpage.expect("it is somewhere");
    assert!(pages.stay.iter().any(|r| r.start == at), "{pages:?}");
    let svc = exit.expect("a way out").svc;
    assert!(at < svc && svc < at + 4096, "{svc:x}");
}
