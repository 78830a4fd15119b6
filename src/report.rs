//! Failures become the one record that the harness reads.

use crate::raw::{PID, Raw};
use armrest_abi::{ABI_VERSION, Report, ReportKind, Step};
use armrest_blob::Stop;
use core::sync::atomic::Ordering;

/// Report why the restore stopped, and in which step, and exit.
pub fn fail(k: &mut Raw, stop: &Stop, step: u32) -> ! {
    let last = k.last();
    let report = Report {
        magic: Report::MAGIC,
        version: ABI_VERSION,
        kind: stop.kind as u32,
        step,
        object: stop.object,
        row: stop.row,
        syscall: last.nr,
        args: last.args,
        result: stop.result.cast_signed(),
        tid: stop.tid,
        pid: PID.load(Ordering::Relaxed),
    };
    k.exit(&report)
}

/// Report that the blob panicked, and exit.
pub fn panicked() -> ! {
    let (mut k, step) = Raw::after_panic();
    let stop = Stop {
        kind: ReportKind::Panic,
        step: Step::Start,
        object: Report::NO_OBJECT,
        row: 0,
        result: 0,
        tid: 0,
    };
    fail(&mut k, &stop, step)
}
