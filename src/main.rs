//! The entry of the flat blob and its panic handler; everything else is in the library.
//!
//! Runs alone in its process, with all signals blocked, at any page-aligned address. Must never be linked into anything
//! else. How to load and enter it: docs/abi.md.
#![no_std]
#![no_main]

mod arena;
mod raw;
mod report;
mod threads;

use arena::Arena;
use armrest_abi::{ARGS_MAGIC, Report, ReportKind, RestoreArgs, Step};
use armrest_blob::kernel::Kernel;
use armrest_blob::{Args, Stop, restore};
use core::sync::atomic::Ordering;
use raw::Raw;

/// Called by `armrest_entry` (arch/arm/entry.S) on the blob's own stack.
///
/// # Safety
/// `fixed` is what the loader passed in r0: restore arguments in the area that it has set up as docs/abi.md says.
#[unsafe(no_mangle)]
unsafe extern "C" fn armrest_main(fixed: &'static RestoreArgs) -> ! {
    if fixed.magic != ARGS_MAGIC {
        raw::exit_group();
    }
    // Up to and including the descriptor, the arguments look the same in every version. The rest is looked at when the
    // verify step has seen it.
    let mut k = Raw::new(fixed.report_fd, fixed.progress);
    // SAFETY: the loader gives the blob this part of the area as its heap, and nobody else uses it.
    let mut heap = unsafe { Arena::new(fixed.heap) };
    // SAFETY: the area is the loader's, mapped and unchanged until the exit routine runs.
    let done = unsafe {
        Args::in_area(fixed, |args| {
            let leader = args.threads.first().map_or(0, |t| t.tid);
            raw::PID.store(leader, Ordering::Relaxed);
            restore(&mut k, args, &mut heap)
        })
    };
    match done {
        Ok(Ok(entry)) => k.enter(&entry),
        Ok(Err(never)) => match never {},
        Err(check) => match k.fail(Stop {
            kind: ReportKind::BadArgs,
            step: Step::Verify,
            object: Report::NO_OBJECT,
            row: 0,
            result: check.number(),
            tid: 0,
        }) {},
    }
}

/// Silent: messages would need relocations. The report says that it happened, and in which step.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    report::panicked()
}
