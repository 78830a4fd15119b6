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
        release: "6.1.0-armmp".into(),
        emulated: false,
        maps: vec![
            own(0x40_0000, 0x52_0000, "/usr/bin/armrest"),
            own(0xb6f0_0000, 0xb6f2_1000, ""),
            own(0xbed0_0000, 0xbed2_1000, "[stack]"),
            own(0xffff_0000, 0xffff_1000, "[vectors]"),
        ],
        task_size: 0xbf00_0000,
        mmap_min_addr: 0x1000,
        max_map_count: 65_530,
        shmlba_enforced: true,
        cache_aliases: false,
        has_robust_list: true,
        has_rseq: true,
        own_rseq: None,
        has_set_tid: true,
        has_mm_map: true,
        has_ptrace: true,
        madvise: vec![10, 12, 14, 15, 16, 18],
        has_thp_disable: true,
        may_choose_pid: true,
        may_choose_ids: true,
        pid_taken_by: None,
        hwcap: u32::MAX,
        hwcap2: u32::MAX,
        page_size: 4096,
        platform: "v7l".into(),
        monotonic_ns: 0,
        own_brk: 0x53_0000,
        euid: 0,
        privileged: true,
        cap_eff: u64::MAX,
        cap_bnd: u64::MAX,
        vdso: None,
        sigpage: None,
        svc_by_r7: false,
    }
}

/// What qemu-user shows: no robust list, no rseq, no PR_SET_MM_MAP.
pub fn emulator() -> Machine {
    Machine {
        emulated: true,
        has_robust_list: false,
        has_rseq: false,
        has_mm_map: false,
        has_ptrace: false,
        ..machine()
    }
}
