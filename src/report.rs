//! Failures become the one record that the harness reads.

use crate::raw::Raw;
use armrest_abi::{ABI_VERSION, Report, ReportKind};
use armrest_blob::Stop;

/// Report why the restore stopped, and exit.
pub fn fail(k: &mut Raw, stop: &Stop) -> ! {
    let last = k.last();
    let by_call = matches!(stop.kind, ReportKind::Errno | ReportKind::WrongAddress | ReportKind::Truncated);
    let report = Report {
        magic: Report::MAGIC,
        version: ABI_VERSION,
        kind: stop.kind as u32,
        step: stop.step.number(),
        object: stop.object,
        row: stop.row,
        syscall: if by_call { last.nr } else { 0 },
        args: if by_call { last.args } else { [0; 6] },
        result: stop.result.cast_signed(),
        tid: 0,
        reserved: 0,
    };
    k.exit(&report)
}

/// Report that the blob panicked, and exit.
pub fn panicked() -> ! {
    let (mut k, step) = Raw::after_panic();
    let report = Report {
        magic: Report::MAGIC,
        version: ABI_VERSION,
        kind: ReportKind::Panic as u32,
        step,
        object: Report::NO_OBJECT,
        row: 0,
        syscall: 0,
        args: [0; 6],
        result: 0,
        tid: 0,
        reserved: 0,
    };
    k.exit(&report)
}
