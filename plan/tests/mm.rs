//! The kernel's mm fields on kernels that take them one by one only: every sample's, from whatever the old program left.

mod common;

use std::path::Path;

use armrest_abi::{Step, want};
use armrest_blob::kernel::nr;
use armrest_images::{Checkpoint, FsDir};
use armrest_plan::model::{Trouble, emulator, machine, prove};
use armrest_plan::{Machine, Options, mm, plan};
use common::options;

fn sample(name: &str) -> Checkpoint {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/images")
        .join(name);
    armrest_images::load(&FsDir::new(dir)).expect(name)
}

fn older() -> Machine {
    Machine {
        has_mm_map: false,
        ..machine()
    }
}

fn free() -> Options {
    Options {
        any_pid: true,
        any_ids: true,
        ..options()
    }
}

/// The model checks after each call what the kernel checks, and at the end all eleven fields, auxv and exe.
#[test]
fn the_fields_of_every_sample_can_be_set_one_by_one() {
    for name in ["counter", "memory", "dyn", "jit", "coroutines"] {
        let cp = sample(name);
        let p = plan(&cp, &older(), &free()).expect(name);
        assert_eq!(p.want & (want::MM_MAP | want::MM_SINGLES), want::MM_SINGLES);
        assert_eq!(p.grow_brk, None);
        assert!(
            p.notes.iter().any(|n| n.contains("one by one")),
            "{:?}",
            p.notes
        );
        let m = prove(&cp, &older(), &p, Trouble::default()).unwrap();
        assert_eq!(m.count(Step::Mm, nr::PRCTL), 19);
        // In one go where the kernel can.
        let p = plan(&cp, &machine(), &free()).expect(name);
        let m = prove(&cp, &machine(), &p, Trouble::default()).unwrap();
        assert_eq!(m.count(Step::Mm, nr::PRCTL), 1);
    }
}

#[test]
fn fields_that_are_not_set_are_seen_by_the_model() {
    let cp = sample("counter");
    let mut p = plan(&cp, &older(), &free()).unwrap();
    p.want &= !want::MM_SINGLES;
    let broken = std::panic::catch_unwind(|| prove(&cp, &older(), &p, Trouble::default()).is_ok());
    assert!(broken.is_err());
}

#[test]
fn where_neither_way_goes_it_is_said() {
    let mut cp = sample("counter");
    let missing = |cp: &Checkpoint, m: &Machine| {
        let p = plan(cp, m, &free()).unwrap();
        assert_eq!(p.want & (want::MM_MAP | want::MM_SINGLES), 0);
        p.notes
            .iter()
            .any(|n| n.contains("mm fields (PR_SET_MM_MAP)"))
    };
    assert!(missing(&cp, &emulator()));
    let high = Machine {
        mmap_min_addr: 0x2_0000,
        ..older()
    };
    assert!(missing(&cp, &high), "no room below the fields");
    // A heap below the data, as newer kernels allow.
    let fields = &mut cp.tasks[0].live.as_mut().unwrap().mm.fields;
    (fields[4], fields[5]) = (fields[3] - 0x1000, fields[3] - 0x1000);
    assert!(!mm::one_by_one(fields, &older()));
    assert!(missing(&cp, &older()));
}
