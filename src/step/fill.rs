//! Fill: page contents are read straight into place, up to 1,024 runs a call.
//!
//! A short read is continued where it ended; the rest of the batch is built in the heap. A read of nothing means that
//! the pages file ends early: never a reason to try again.

use crate::args::{Args, Check};
use crate::heap::Heap;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use crate::step::verify;
use armrest_abi::{Batch, Iovec, Report, ReportKind, Step};

#[inline(never)]
pub(crate) fn run<K: Kernel, H: Heap>(
    run: &mut Run<'_, K>,
    args: &Args<'_>,
    heap: &mut H,
) -> Done<K> {
    run.begin(Step::Fill);
    for (i, b) in args.batches.iter().enumerate() {
        run.row(i, Report::NO_OBJECT);
        let Some(iovecs) = verify::iovecs(args, b) else {
            return Err(run.stop(ReportKind::BadArgs, Check::RowIndex.number()));
        };
        let done = read(run, b, 0, iovecs)?;
        if done < b.len {
            rest(run, b, done, iovecs, heap)?;
        }
    }
    Ok(())
}

/// Read into `iovecs` what follows the first `done` bytes of a batch. Returns how much of the batch is there now.
#[inline(never)]
fn read<K: Kernel>(run: &mut Run<'_, K>, b: &Batch, done: u32, iovecs: &[Iovec]) -> Done<K, u32> {
    let left = b.len.wrapping_sub(done);
    let res = run
        .k
        .preadv(b.fd, iovecs, b.offset.wrapping_add(u64::from(done)));
    let n = run.ok(res)?.min(left);
    if n == 0 {
        return Err(run.stop(ReportKind::Truncated, left));
    }
    run.filled(n);
    Ok(done.wrapping_add(n))
}

/// Go on after a short read, until the batch is complete.
fn rest<K: Kernel, H: Heap>(
    run: &mut Run<'_, K>,
    b: &Batch,
    done: u32,
    iovecs: &[Iovec],
    heap: &mut H,
) -> Done<K> {
    let Some(rest) = heap.iovecs(iovecs.len()) else {
        let size = u32::try_from(size_of_val(iovecs)).unwrap_or(u32::MAX);
        return Err(run.stop(ReportKind::OutOfHeap, size));
    };
    let mut done = done;
    while done < b.len {
        let rows = remaining(iovecs, done, rest);
        let rows = rest.get(..rows).unwrap_or(&[]);
        done = read(run, b, done, rows)?;
    }
    Ok(())
}

/// Put the iovecs without their first `done` bytes into `rest`. Returns how many there are.
fn remaining(iovecs: &[Iovec], mut done: u32, rest: &mut [Iovec]) -> usize {
    let mut places = rest.iter_mut();
    let mut rows = 0;
    for v in iovecs {
        let skip = done.min(v.len);
        done = done.wrapping_sub(skip);
        if skip < v.len
            && let Some(place) = places.next()
        {
            *place = Iovec {
                base: v.base.wrapping_add(skip),
                len: v.len.wrapping_sub(skip),
            };
            rows += 1;
        }
    }
    rows
}
