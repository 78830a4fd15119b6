//! Fill: page contents are read straight into place, up to 1,024 runs a call.
//!
//! A short read is continued where it ended; the rest of the batch is built in the heap. A read of nothing means that
//! the pages file ends early: never a reason to try again.

use crate::args::{Args, Check};
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use crate::step::verify;
use alloc::vec::Vec;
use armrest_abi::{Batch, Iovec, Report, ReportKind, Step};

pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done {
    run.begin(Step::Fill);
    for (i, b) in args.batches.iter().enumerate() {
        run.row(i, Report::NO_OBJECT);
        let Some(iovecs) = verify::iovecs(args, b) else {
            return Err(run.stop(ReportKind::BadArgs, Check::RowIndex.number()));
        };
        batch(run, b, iovecs)?;
    }
    Ok(())
}

fn batch<K: Kernel>(run: &mut Run<'_, K>, b: &Batch, iovecs: &[Iovec]) -> Done {
    let (mut offset, mut left) = (b.offset, b.len);
    let mut rest: Vec<Iovec> = Vec::new();
    loop {
        let now = if rest.is_empty() { iovecs } else { &rest };
        let res = run.k.preadv(b.fd, now, offset);
        let n = run.ok(res)?.min(left);
        if n == 0 {
            return Err(run.stop(ReportKind::Truncated, left));
        }
        run.filled(n);
        left -= n;
        if left == 0 {
            return Ok(());
        }
        offset += u64::from(n);
        rest = match remaining(now, n) {
            Ok(rest) => rest,
            Err(size) => return Err(run.stop(ReportKind::OutOfHeap, size)),
        };
    }
}

/// The iovecs without their first `done` bytes, or the size that the heap could not give.
fn remaining(iovecs: &[Iovec], mut done: u32) -> Result<Vec<Iovec>, u32> {
    let mut rest = Vec::new();
    let size = u32::try_from(size_of_val(iovecs)).unwrap_or(u32::MAX);
    rest.try_reserve_exact(iovecs.len()).map_err(|_| size)?;
    for v in iovecs {
        let skip = done.min(v.len);
        done -= skip;
        if skip < v.len {
            rest.push(Iovec { base: v.base.wrapping_add(skip), len: v.len - skip });
        }
    }
    Ok(rest)
}
