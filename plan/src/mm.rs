//! How the kernel's mm fields are set: at once, one by one on a kernel without PR_SET_MM_MAP (before 3.18, or without
//! CONFIG_CHECKPOINT_RESTORE), or not at all.

use armrest_abi::consts::MM_LOW;
use armrest_abi::want;
use armrest_images::LiveTask;

use crate::machine::Machine;

/// The bit of `want`, or 0.
pub fn way(live: &LiveTask, machine: &Machine) -> u32 {
    if machine.has_mm_map {
        want::MM_MAP
    } else if machine.has_mm_singles && one_by_one(&live.mm.fields, machine) {
        want::MM_SINGLES
    } else {
        0
    }
}

/// True if a kernel accepts these fields one by one, in the order of `src/step/mm.rs`.
pub fn one_by_one(fields: &[u32; 11], machine: &Machine) -> bool {
    machine.mmap_min_addr <= MM_LOW
        && fields
            .iter()
            .all(|f| *f > MM_LOW + 1 || *f == MM_LOW && fields[0] == *f)
        && accepts(fields, machine)
}

/// What `prctl` checks after each call (kernel/sys.c; that the heap lies above the data until 5.2).
pub fn accepts(fields: &[u32; 11], machine: &Machine) -> bool {
    let [
        start_code,
        end_code,
        start_data,
        end_data,
        start_brk,
        brk,
        _,
        args,
        args_end,
        env,
        env_end,
    ] = *fields;
    fields
        .iter()
        .all(|f| machine.mmap_min_addr <= *f && *f < machine.task_size)
        && start_code < end_code
        && start_data <= end_data
        && start_brk <= brk
        && args <= args_end
        && env <= env_end
        && start_brk > end_data
}
