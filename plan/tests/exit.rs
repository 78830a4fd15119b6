//! The way out through the kernel's sigpage: only if the page has the known words, and only with a frame where the
//! kernel itself would put one. Each test says which condition it takes away.

mod common;

use armrest_images::{Checkpoint, FsDir, VmaKind};
use armrest_plan::{Machine, Plan, plan};
use std::path::Path;

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
    let exit = p.exit.expect("a way out");
    let l = cp.tasks[0].live.as_ref().unwrap();
    let sp = l.threads[0].regs[13];
    assert!(exit.frame.is_multiple_of(8) && exit.frame + 888 <= sp && sp - exit.frame < 888 + 8);
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
    let frame = planned(&cp, &m).exit.expect("a way out").frame;
    assert_eq!(frame, heap.start() + 8192 - 888);
    live(&mut cp).threads[0].altstack = Some((heap.start(), 8192, 1));
    let frame = planned(&cp, &m).exit.expect("a way out").frame;
    assert!(frame > heap.end(), "below sp");
}

#[test]
fn without_room_or_known_words_or_with_oabi_a_page_is_kept() {
    let mut cp = sample("counter");
    let good = machine(&cp);
    let oabi = Machine {
        svc_by_r7: false,
        ..good.clone()
    };
    assert_eq!(planned(&cp, &oabi).exit, None);
    let mut other = good.clone();
    let page = other.sigpage.as_mut().unwrap();
    let code = page
        .windows(4)
        .position(|w| w == 0xef90_0077u32.to_le_bytes())
        .unwrap();
    page[code] ^= 1;
    assert_eq!(planned(&cp, &other).exit, None, "an unknown word");
    let stack = live(&mut cp)
        .mm
        .vmas
        .iter()
        .find(|v| v.grows_down)
        .unwrap()
        .range;
    live(&mut cp).threads[0].regs[13] = stack.start() + 880;
    assert_eq!(planned(&cp, &good).exit, None, "no room below sp");
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
        let pages = armrest_plan::kernel_pages::plan_kernel_pages(live, &machine, &space, &space);
        let exit = armrest_plan::kernel_pages::sigpage_exit(live, &machine, &pages);
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
