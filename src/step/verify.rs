//! Verify: the arguments cannot make the blob destroy itself.
//!
//! First, because it is the last moment at which nothing has happened. It checks what a wrong loader could break: that
//! no row touches the bootstrap area and that batches add up. Indices of attachments and file offsets are checked where
//! they are used. That the rows describe a sensible task is the plan's business.

use crate::args::{Args, Check};
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{
    Advise, Attach, Batch, IOV_MAX, Iovec, Map, Move, PAGE_SIZE, Progress, Protect, Range, Report,
    ReportKind, Step, ThreadArgs, words_of_slice as words,
};
use core::mem::offset_of;

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    run.begin(Step::Verify);
    let mut at = At {
        row: 0,
        object: Report::NO_OBJECT,
        area: args.fixed.area,
        bad: area(args).err(),
    };
    rows(&mut at, args);
    match at.bad {
        None => Ok(()),
        Some(check) => {
            run.row(at.row, at.object);
            Err(run.stop(ReportKind::BadArgs, check.number()))
        }
    }
}

/// Which row is looked at, and the first check that failed.
struct At {
    area: Range,
    row: usize,
    object: u32,
    bad: Option<Check>,
}

/// Where a record says what it touches, in words; small, so that it travels in a register.
#[derive(Clone, Copy)]
#[repr(C)]
struct Shape {
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

/// The shape of a record: its type, the fields of address and length, and the object's if it has one.
macro_rules! shape {
    ($record:ident, $start:ident, $len:ident, $flag:expr, $object:expr) => {
        const {
            Shape {
                words: word(size_of::<$record>()),
                start: word(offset_of!($record, $start)),
                len: word(offset_of!($record, $len)) | $flag,
                object: $object,
            }
        }
    };
    ($record:ident, $start:ident) => {
        shape!($record, $start, len, 0, word(offset_of!($record, object)))
    };
}

/// Bytes in words, for a constant.
const fn word(bytes: usize) -> u8 {
    assert!(bytes / 4 < 0x80 && bytes.is_multiple_of(4));
    (bytes / 4).to_le_bytes()[0]
}

impl At {
    /// See that every row is whole pages that cannot wrap, and none of the area's. Does nothing after a failure, so that
    /// the first one is told.
    #[inline(never)]
    fn outside(&mut self, table: &[u32], shape: Shape) {
        let mut rest = table;
        let mut i = 0;
        // Not `chunks_exact`, which would divide.
        while self.bad.is_none()
            && let Some((row, others)) = rest.split_at_checked(usize::from(shape.words))
            && !row.is_empty()
        {
            rest = others;
            self.row = i;
            i += 1;
            self.bad = self.row_outside(row, shape).err();
        }
    }

    fn row_outside(&mut self, row: &[u32], shape: Shape) -> Result<(), Check> {
        let word = |at: u8| row.get(usize::from(at)).copied();
        self.object = word(shape.object).unwrap_or(Report::NO_OBJECT);
        let start = word(shape.start).unwrap_or(0);
        let len = word(shape.len & !Shape::END).unwrap_or(0);
        let end = if shape.len & Shape::END == 0 {
            start.checked_add(len).ok_or(Check::RowShape)?
        } else {
            len
        };
        let range = Range { start, end };
        if !aligned(range) {
            return Err(Check::RowShape);
        }
        if range.overlaps(self.area) {
            Err(Check::RowHitsArea)
        } else {
            Ok(())
        }
    }
}

fn rows(at: &mut At, args: &Args<'_>) {
    let range = shape!(Range, start, end, Shape::END, Shape::NONE);
    at.outside(words(args.unmaps), range);
    at.outside(words(args.holes), range);
    for table in [args.parks, args.pieces, args.unparks] {
        at.outside(words(table), shape!(Move, from));
        at.outside(words(table), shape!(Move, to));
    }
    at.outside(words(args.attaches), shape!(Attach, at));
    at.outside(words(args.maps), shape!(Map, start));
    at.outside(words(args.protects), shape!(Protect, start));
    at.outside(words(args.advises), shape!(Advise, start));
    at.outside(words(args.iovecs), shape!(Iovec, base, len, 0, Shape::NONE));
    for (i, b) in args.batches.iter().enumerate() {
        if at.bad.is_none() {
            at.row = i;
            at.bad = batch(args, b).err();
        }
    }
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
    let progress = Range {
        start: f.progress,
        end: f.progress.saturating_add(PROGRESS_SIZE),
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
    let from = if copied { f.area } else { f.keep };
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
        || slice(args.queued, t.queue.first, t.queue.count).is_none()
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
        slice(args.iovecs, b.first, b.count)
    }
}

/// `count` rows from `first` on.
pub(crate) fn slice<T>(rows: &[T], first: u32, count: u32) -> Option<&[T]> {
    rows.get(first as usize..)?.get(..count as usize)
}
