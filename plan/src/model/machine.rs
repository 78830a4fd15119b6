//! Machines that tests and the fuzzer share.

use crate::machine::{Machine, MapRange, OwnMap};

/// A mapping of our own.
pub fn own(start: u32, end: u32, name: &str) -> OwnMap {
    OwnMap {
        range: MapRange { start, end },
        name: name.into(),
    }
}

/// A native kernel with everything.
pub fn machine() -> Machine {
    Machine {
        maps: vec![
            own(0x40_0000, 0x52_0000, "/usr/bin/armrest"),
            own(0xb6f0_0000, 0xb6f2_1000, ""),
            own(0xbed0_0000, 0xbed2_1000, "[stack]"),
            own(0xffff_0000, 0xffff_1000, "[vectors]"),
        ],
        mmap_min_addr: 0x1000,
        madvise: vec![10, 12, 14, 15, 16, 18],
        own_brk: 0x53_0000,
        // The model has no sigpage to leave through: a page is kept.
        svc_by_r7: false,
        ..Machine::generic()
    }
}

/// What qemu-user shows: no robust list, no rseq, no PR_SET_MM_MAP.
pub fn emulator() -> Machine {
    Machine {
        timer_ids: crate::timers::TimerIds::Foreign,
        emulated: true,
        has_robust_list: false,
        has_rseq: false,
        has_mm_map: false,
        has_mm_singles: false,
        has_ptrace: false,
        ..machine()
    }
}
