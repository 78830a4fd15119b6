//! Verify: the arguments cannot make the blob destroy itself.
//!
//! First, because it is the last moment at which nothing has happened. It checks what a wrong loader could break: that
//! no row touches the bootstrap area, that indices resolve, that batches add up. That the rows describe a sensible task
//! is the plan's business.

use crate::args::{Args, Check};
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{Batch, IOV_MAX, Iovec, PAGE_SIZE, Progress, Range, Report, ReportKind, Step};

pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done {
    run.begin(Step::Verify);
    let mut at = At { row: 0, object: Report::NO_OBJECT, area: args.fixed.area };
    check(&mut at, args).map_err(|c| {
        run.row(at.row, at.object);
        run.stop(ReportKind::BadArgs, c.number())
    })
}

/// Which row is looked at.
struct At {
    area: Range,
    row: usize,
    object: u32,
}

impl At {
    /// Whole pages that cannot wrap, and none of the area's.
    #[inline(never)]
    fn outside(&mut self, row: usize, object: u32, start: u32, len: u32) -> Result<(), Check> {
        self.row = row;
        self.object = object;
        let range = Range { start, end: start.checked_add(len).ok_or(Check::RowShape)? };
        if !aligned(range) {
            return Err(Check::RowShape);
        }
        if range.overlaps(self.area) { Err(Check::RowHitsArea) } else { Ok(()) }
    }
}

fn check(at: &mut At, args: &Args<'_>) -> Result<(), Check> {
    area(args)?;
    for table in [args.unmaps, args.holes] {
        for (i, r) in table.iter().enumerate() {
            at.outside(i, Report::NO_OBJECT, r.start, r.len())?;
        }
    }
    for table in [args.parks, args.pieces, args.unparks] {
        for (i, m) in table.iter().enumerate() {
            at.outside(i, m.object, m.from, m.len)?;
            at.outside(i, m.object, m.to, m.len)?;
        }
    }
    for (i, a) in args.attaches.iter().enumerate() {
        at.outside(i, a.object, a.at, a.len)?;
        slice(args.pieces, a.piece, a.pieces).ok_or(Check::RowIndex)?;
        slice(args.holes, a.hole, a.holes).ok_or(Check::RowIndex)?;
    }
    for (i, m) in args.maps.iter().enumerate() {
        at.outside(i, m.object, m.start, m.len)?;
        if m.page_offset > u64::from(u32::MAX) {
            return Err(Check::PageOffset);
        }
    }
    for (i, p) in args.protects.iter().enumerate() {
        at.outside(i, p.object, p.start, p.len)?;
    }
    for (i, a) in args.advises.iter().enumerate() {
        at.outside(i, a.object, a.start, a.len)?;
    }
    for (i, v) in args.iovecs.iter().enumerate() {
        at.outside(i, Report::NO_OBJECT, v.base, v.len)?;
    }
    for (i, b) in args.batches.iter().enumerate() {
        at.row = i;
        batch(args, b)?;
    }
    Ok(())
}

/// The bootstrap area itself.
fn area(args: &Args<'_>) -> Result<(), Check> {
    let f = args.fixed;
    if !aligned(f.area) || f.keep.start != f.area.start || f.keep.len() != PAGE_SIZE || f.area.len() <= PAGE_SIZE {
        return Err(Check::Area);
    }
    let progress = Range { start: f.progress, end: f.progress.saturating_add(PROGRESS_SIZE) };
    if f.heap.is_empty() || !f.area.contains(f.heap) || !f.area.contains(progress) || !f.progress.is_multiple_of(8) {
        return Err(Check::AreaParts);
    }
    let [leader] = args.threads else { return Err(Check::Threads) };
    let frame = Range { start: leader.frame, end: leader.frame.saturating_add(armrest_abi::FRAME_SIZE) };
    if !f.keep.contains(frame) || !leader.frame.is_multiple_of(8) {
        return Err(Check::Frame);
    }
    Ok(())
}

const PROGRESS_SIZE: u32 = 16;
const _: () = assert!(size_of::<Progress>() == 16);

fn aligned(r: Range) -> bool {
    r.start.is_multiple_of(PAGE_SIZE) && r.end.is_multiple_of(PAGE_SIZE) && !r.is_empty()
}

fn batch(args: &Args<'_>, b: &Batch) -> Result<(), Check> {
    let iovecs = iovecs(args, b).ok_or(Check::RowIndex)?;
    let sum = iovecs.iter().try_fold(0u32, |sum, v| sum.checked_add(v.len));
    if sum == Some(b.len) { Ok(()) } else { Err(Check::BatchLength) }
}

/// The iovecs of a batch: 1 to IOV_MAX.
pub(crate) fn iovecs<'a>(args: &Args<'a>, b: &Batch) -> Option<&'a [Iovec]> {
    if b.count == 0 || b.count > IOV_MAX { None } else { slice(args.iovecs, b.first, b.count) }
}

/// `count` rows from `first` on.
pub(crate) fn slice<T>(rows: &[T], first: u32, count: u32) -> Option<&[T]> {
    rows.get(first as usize..)?.get(..count as usize)
}
