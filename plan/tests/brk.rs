//! The break where the kernel's mm fields cannot be set: moved if nothing is in the way, else the limit is said.

mod common;

use armrest_images::FsDir;
use armrest_plan::model::emulator;
use armrest_plan::{Machine, plan};
use std::path::Path;

fn planned(machine: &Machine) -> armrest_plan::Plan {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images/dyn");
    let cp = armrest_images::load(&FsDir::new(dir)).expect("dyn");
    plan(&cp, machine, &common::options()).expect("a plan")
}

/// The heap of `dyn` ends at 8e1000.
const BRK: u32 = 0x8e_1000;

fn says_so(p: &armrest_plan::Plan) -> bool {
    p.notes
        .iter()
        .any(|n| n.contains("the break 008e1000 cannot be set here"))
}

#[test]
fn the_break_moves_up_over_free_addresses() {
    let p = planned(&emulator());
    assert_eq!(p.grow_brk, Some(BRK));
    assert!(!says_so(&p), "{:?}", p.notes);
}

#[test]
fn a_break_below_ours_is_said() {
    let p = planned(&Machine {
        own_brk: BRK + 0x1000,
        ..emulator()
    });
    assert_eq!(p.grow_brk, None);
    assert!(says_so(&p), "{:?}", p.notes);
}

#[test]
fn a_mapping_in_the_way_is_said() {
    let mut m = emulator();
    m.maps.push(armrest_plan::OwnMap {
        range: armrest_plan::MapRange {
            start: 0x80_0000,
            end: 0x80_1000,
        },
        name: "/in/the/way".into(),
    });
    let p = planned(&m);
    assert_eq!(p.grow_brk, None);
    assert!(says_so(&p), "{:?}", p.notes);
}

#[test]
fn a_kernel_that_sets_the_fields_needs_no_trick() {
    let p = planned(&Machine {
        has_mm_map: true,
        ..emulator()
    });
    assert_eq!(p.grow_brk, None);
    assert!(!says_so(&p));
}
