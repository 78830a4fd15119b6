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

/// A 32-bit task of a 64-bit kernel: it ends below 4 GiB, its stack lies above any split of a 32-bit kernel, `shmat`
/// takes any page, and the structure of PR_SET_MM_MAP has another layout. Not run anywhere: no such kernel at hand.
#[test]
fn a_64_bit_kernel_is_planned_for() {
    use armrest_plan::model::own;
    let compat = Machine {
        maps: vec![
            own(0x40_0000, 0x52_0000, "/usr/bin/armrest"),
            own(0xf7c0_0000, 0xf7c2_1000, ""),
            own(0xf7fc_0000, 0xf7fc_1000, "[vvar]"),
            own(0xf7fc_1000, 0xf7fc_2000, "[vdso]"),
            own(0xffa0_0000, 0xffa2_1000, "[stack]"),
            own(0xffff_0000, 0xffff_1000, "[vectors]"),
        ],
        task_size: 0xffff_0000,
        shmlba_enforced: false,
        has_mm_map: false,
        platform: "v8l".into(),
        ..machine()
    };
    for name in ["counter", "memory", "sysvshm", "sysvsplit", "dyn", "jit"] {
        let cp = sample(name);
        let p = plan(&cp, &compat, &free()).expect(name);
        let m = prove(&cp, &compat, &p, Trouble::default()).expect(name);
        assert_eq!(m.mm.fields, common::live(&cp).mm.fields);
        // Off SHMLBA, and no detour: every attach goes where it belongs.
        assert!(p.tables.pieces.is_empty() || name == "sysvsplit", "{name}");
    }
    // What lived at the top there cannot live here.
    let mut cp = sample("counter");
    for v in &mut cp.tasks[0].live.as_mut().unwrap().mm.vmas {
        if v.grows_down {
            v.range = common::range(0xff00_0000, 0x21);
        }
    }
    let refused = plan(&cp, &machine(), &free()).expect_err("too high");
    assert!(
        refused.0.iter().any(|r| r.what.contains("task size")),
        "{refused:?}"
    );
}
