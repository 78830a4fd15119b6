//! Derived from `family`: tasks of a tree with filters of system calls.

use armrest_images::container::Writer;
use armrest_images::magic;
use armrest_images::proto::{Core, Seccomp, SeccompFilter};

use crate::Images;

const SWAPON: u32 = 87;
const SWAPOFF: u32 = 115;
const POLL: u32 = 168;
const FUTEX: u32 = 240;

/// A filter by which these calls fail with EPERM.
fn denies(calls: &[u32], newer: Option<u32>) -> SeccompFilter {
    let insn = |code: u16, jt: u8, k: u32| {
        let [k, code] = [k.to_le_bytes().to_vec(), code.to_le_bytes().to_vec()];
        [code, vec![jt, 0], k].concat()
    };
    let mut program = insn(0x20, 0, 0);
    for (n, call) in calls.iter().enumerate() {
        let behind = u8::try_from(calls.len() - n).expect("few");
        program.extend(insn(0x15, behind, *call));
    }
    program.extend(insn(0x06, 0, 0x7fff_0000));
    program.extend(insn(0x06, 0, 0x0005_0001));
    SeccompFilter {
        filter: Some(program),
        prev: newer,
        flags: Some(0),
    }
}

/// The root has one filter, another task one that forbids the calls by which it would wait for the others, a third task two.
pub(crate) fn seal(images: &Images) {
    let filters = vec![
        denies(&[SWAPON], None),
        denies(&[FUTEX, POLL], None),
        denies(&[SWAPON], Some(3)),
        denies(&[SWAPOFF], None),
    ];
    let list = Seccomp {
        seccomp_filters: filters,
    };
    images.write(
        "seccomp.img",
        Writer::new(magic::SECCOMP).entry(&list).finish(),
    );
    for (task, oldest) in [("175", 0), ("179", 1), ("183", 2)] {
        images.edit::<Core>(&format!("core-{task}.img"), magic::CORE, |c| {
            let thread = c[0].thread_core.as_mut().expect("thread");
            (thread.seccomp_mode, thread.seccomp_filter) = (Some(2), Some(oldest));
        });
    }
}
