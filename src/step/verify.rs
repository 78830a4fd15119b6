//! Verify: the arguments cannot make the blob destroy itself.
//!
//! First, because it is the last moment at which nothing has happened. It checks what a wrong loader could break: that
//! no row touches the bootstrap area and that batches add up. Indices of attachments and file offsets are checked where
//! they are used. That the rows describe a sensible task is the plan's business.

use crate::args::{Args, Check, Slice, number};
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{
    Advise, Attach, BEAT_OFFSET, Batch, IOV_MAX, Iovec, Map, Move, PAGE_SIZE, Progress, Protect,
    Range, Report, ReportKind, Step, ThreadArgs, want,
};
use core::mem::offset_of;

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    run.begin(Step::Verify);
    if let Err(check) = area(args) {
        return Err(bad(run, 0, Report::NO_OBJECT, check));
    }
    for shape in &SHAPES {
        outside(run, args, shape)?;
    }
    for (i, b) in args.batches.iter().enumerate() {
        if let Err(check) = batch(args, b) {
            return Err(bad(run, i, Report::NO_OBJECT, check));
        }
    }
    Ok(())
}

#[cold]
#[inline(never)]
fn bad<K: Kernel>(run: &mut Run<'_, K>, row: usize, object: u32, check: Check) -> K::Failure {
    run.row(row, object);
    run.stop(ReportKind::BadArgs, check.number())
}

/// Where the records of a table say what they touch, in words.
#[derive(Clone, Copy)]
#[repr(C)]
struct Shape {
    /// The table.
    table: u8,
    /// Words in a record.
    words: u8,
    /// The address.
    start: u8,
    /// The length; with [`Shape::END`] the end.
    len: u8,
    /// The object, or [`Shape::NONE`].
    object: u8,
}

impl Shape {
    const END: u8 = 0x80;
    const NONE: u8 = 0xff;
}

/// The shape of the records of a table: their type, the fields of address and length, and the object's if they have one.
macro_rules! shape {
    ($table:ident: $record:ident, $start:ident, $len:ident, $flag:expr, $object:expr) => {{
        // The table holds such records.
        let _: fn(&Args<'static>) -> Slice<'static, $record> = |a| a.$table;
        Shape {
            table: number(offset_of!(Args<'_>, $table)).to_le_bytes()[0],
            words: word(size_of::<$record>()),
            start: word(offset_of!($record, $start)),
            len: word(offset_of!($record, $len)) | $flag,
            object: $object,
        }
    }};
    ($table:ident: $record:ident, $start:ident) => {
        shape!(
            $table: $record,
            $start,
            len,
            0,
            word(offset_of!($record, object))
        )
    };
    ($table:ident: Range) => {
        shape!($table: Range, start, end, Shape::END, Shape::NONE)
    };
}

/// Whatever tells of memory that is not the area's.
static SHAPES: [Shape; 13] = [
    shape!(unmaps: Range),
    shape!(holes: Range),
    shape!(parks: Move, from),
    shape!(parks: Move, to),
    shape!(pieces: Move, from),
    shape!(pieces: Move, to),
    shape!(unparks: Move, from),
    shape!(unparks: Move, to),
    shape!(attaches: Attach, at),
    shape!(maps: Map, start),
    shape!(protects: Protect, start),
    shape!(advises: Advise, start),
    shape!(iovecs: Iovec, base, len, 0, Shape::NONE),
];

/// Bytes in words, for a constant.
const fn word(bytes: usize) -> u8 {
    assert!(bytes / 4 < 0x80 && bytes.is_multiple_of(4));
    (bytes / 4).to_le_bytes()[0]
}

/// See that every row of a table is whole pages that cannot wrap, and none of the area's.
#[inline(never)]
fn outside<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>, shape: &Shape) -> Done<K> {
    let mut rest = args.words(usize::from(shape.table));
    let mut i = 0;
    // Not `chunks_exact`, which would divide.
    while let Some((row, others)) = rest.split_at_checked(usize::from(shape.words))
        && !row.is_empty()
    {
        let word = |at: u8| row.get(usize::from(at)).copied();
        let start = word(shape.start).unwrap_or(0);
        let len = word(shape.len & !Shape::END).unwrap_or(0);
        let end = if shape.len & Shape::END == 0 {
            // Upside down, if it wraps.
            start.wrapping_add(len)
        } else {
            len
        };
        let range = Range { start, end };
        let check = if !aligned(range) {
            Check::RowShape
        } else if range.overlaps(args.fixed.area) {
            Check::RowHitsArea
        } else {
            rest = others;
            i += 1;
            continue;
        };
        let object = word(shape.object).unwrap_or(Report::NO_OBJECT);
        return Err(bad(run, i, object, check));
    }
    Ok(())
}

/// The bootstrap area itself.
#[inline(never)]
fn area(args: &Args<'_>) -> Result<(), Check> {
    let f = args.fixed;
    if !aligned(f.area)
        || f.keep.start != f.area.start
        || f.keep.len() != PAGE_SIZE
        || f.area.len() <= PAGE_SIZE
    {
        return Err(Check::Area);
    }
    let shared = if f.want & want::GATE == 0 {
        PROGRESS_SIZE
    } else {
        BEAT_OFFSET + 4
    };
    let progress = Range {
        start: f.progress,
        end: f.progress.saturating_add(shared),
    };
    if f.heap.is_empty()
        || !f.area.contains(f.heap)
        || !f.area.contains(progress)
        || !f.progress.is_multiple_of(8)
    {
        return Err(Check::AreaParts);
    }
    let Some(leader) = args.threads.first() else {
        return Err(Check::Threads);
    };
    if !f.keep.contains(frame_at(leader.frame)) {
        return Err(Check::Frame);
    }
    args.threads
        .iter()
        .enumerate()
        .try_for_each(|(i, t)| thread(args, i, t))
}

fn frame_at(start: u32) -> Range {
    Range {
        start,
        end: start.saturating_add(armrest_abi::FRAME_SIZE),
    }
}

/// A thread's frame, stack and queue.
fn thread(args: &Args<'_>, i: usize, t: &ThreadArgs) -> Result<(), Check> {
    let f = args.fixed;
    let copied = t.exit_frame != 0;
    // A thread whose frame is used where it is has a tracer, which keeps the area until it is out.
    let from = if copied || i != 0 { f.area } else { f.keep };
    if !from.contains(frame_at(t.frame))
        || !(t.frame | t.exit_frame).is_multiple_of(8)
        || frame_at(t.exit_frame).overlaps(f.area)
        || f.exit_svc != 0 && !copied
        || i == 0 && copied && f.exit_svc == 0
    {
        return Err(Check::Frame);
    }
    let stack = Range {
        start: t.stack.saturating_sub(8),
        end: t.stack,
    };
    if i != 0 && (!f.area.contains(stack) || !t.stack.is_multiple_of(8))
        || slice(&args.queued, t.queue.first, t.queue.count).is_none()
    {
        return Err(Check::Threads);
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
    let sum = iovecs
        .iter()
        .try_fold(0u32, |sum, v| sum.checked_add(v.len));
    if sum == Some(b.len) {
        Ok(())
    } else {
        Err(Check::BatchLength)
    }
}

/// The iovecs of a batch: 1 to IOV_MAX.
#[inline(never)]
pub(crate) fn iovecs<'a>(args: &Args<'a>, b: &Batch) -> Option<&'a [Iovec]> {
    if b.count == 0 || b.count > IOV_MAX {
        None
    } else {
        slice(args.iovecs.rows(), b.first, b.count)
    }
}

/// `count` rows from `first` on.
pub(crate) fn slice<T>(rows: &[T], first: u32, count: u32) -> Option<&[T]> {
    rows.get(first as usize..)?.get(..count as usize)
}
