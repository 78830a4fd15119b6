//! The restore arguments as slices that cannot be out of bounds.
//!
//! [`Args`] borrows the tables of a plan on the host, or what [`RestoreArgs`] points to on the device
//! ([`Args::in_area`]). Whether the rows make sense is the verify step's business.

use armrest_abi::{
    ABI_VERSION, ARGS_MAGIC, Advise, Attach, Batch, Flush, Iovec, Lock, Map, Move, Plain, Protect, Queued, Range,
    Remove, RestoreArgs, Table, ThreadArgs, Timer,
};

/// The checks of the arguments: what `result` of a [`armrest_abi::ReportKind::BadArgs`] report means.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Magic, version or size of [`RestoreArgs`] are those of another blob.
    Version = 1,
    /// The area is upside down or not page-aligned, or `keep` is not its beginning.
    Area = 2,
    /// Heap or progress page do not lie in the area.
    AreaParts = 3,
    /// A table does not lie in the area, or is not aligned to 8.
    Table = 4,
    /// Not exactly one thread.
    Threads = 5,
    /// The signal frame is not 8-aligned in the kept page.
    Frame = 6,
    /// A row is not page-aligned, is empty or wraps.
    RowShape = 7,
    /// A row would hit the area.
    RowHitsArea = 8,
    /// A row points to rows that its table has not, or to too many.
    RowIndex = 9,
    /// The iovecs of a batch do not add up to its length.
    BatchLength = 10,
    /// A file offset does not fit `mmap2`.
    PageOffset = 11,
}

impl Check {
    /// All checks.
    pub const ALL: [Check; 11] = [
        Check::Version,
        Check::Area,
        Check::AreaParts,
        Check::Table,
        Check::Threads,
        Check::Frame,
        Check::RowShape,
        Check::RowHitsArea,
        Check::RowIndex,
        Check::BatchLength,
        Check::PageOffset,
    ];
    /// Its number, as in a report.
    pub const fn number(self) -> u32 {
        self as u32
    }
    /// The check with this number.
    pub fn from_number(n: u32) -> Option<Check> {
        Check::ALL.into_iter().find(|c| c.number() == n)
    }
}

/// Everything that the steps are told.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the fields are the tables of `RestoreArgs`, documented there
pub struct Args<'a> {
    /// The fixed part. Its tables are not looked at: the slices below are.
    pub fixed: &'a RestoreArgs,
    pub unmaps: &'a [Range],
    pub parks: &'a [Move],
    pub attaches: &'a [Attach],
    pub pieces: &'a [Move],
    pub holes: &'a [Range],
    pub removes: &'a [Remove],
    pub maps: &'a [Map],
    pub iovecs: &'a [Iovec],
    pub batches: &'a [Batch],
    pub protects: &'a [Protect],
    pub flushes: &'a [Flush],
    pub unparks: &'a [Move],
    pub advises: &'a [Advise],
    pub locks: &'a [Lock],
    pub closes: &'a [u32],
    pub threads: &'a [ThreadArgs],
    pub timers: &'a [Timer],
    /// The pending signals of the leader.
    pub queue: &'a [Queued],
}

impl<'a> Args<'a> {
    /// No rows at all.
    pub const fn empty(fixed: &'a RestoreArgs) -> Args<'a> {
        Args {
            fixed,
            unmaps: &[],
            parks: &[],
            attaches: &[],
            pieces: &[],
            holes: &[],
            removes: &[],
            maps: &[],
            iovecs: &[],
            batches: &[],
            protects: &[],
            flushes: &[],
            unparks: &[],
            advises: &[],
            locks: &[],
            closes: &[],
            threads: &[],
            timers: &[],
            queue: &[],
        }
    }

    /// The tables that `fixed` points to, each proved to lie in the area.
    ///
    /// # Safety
    /// The caller's address space is the one that `fixed` speaks of: `fixed.area`, if it passes the checks, is readable
    /// memory that lives and stays unchanged as long as `'a`, but for the blob's own data, stack and heap, where no
    /// table lies.
    pub unsafe fn in_area(fixed: &'a RestoreArgs) -> Result<Args<'a>, Check> {
        let size = u32::try_from(size_of::<RestoreArgs>()).unwrap_or(0);
        if fixed.magic != ARGS_MAGIC || fixed.version != ABI_VERSION || fixed.size != size {
            return Err(Check::Version);
        }
        let area = fixed.area;
        // SAFETY (each `rows` below): handed on from the caller.
        unsafe {
            let threads: &[ThreadArgs] = rows(area, fixed.threads)?;
            let queue = threads.first().map_or(Table::default(), |leader| leader.queue);
            Ok(Args {
                fixed,
                unmaps: rows(area, fixed.unmaps)?,
                parks: rows(area, fixed.parks)?,
                attaches: rows(area, fixed.attaches)?,
                pieces: rows(area, fixed.pieces)?,
                holes: rows(area, fixed.holes)?,
                removes: rows(area, fixed.removes)?,
                maps: rows(area, fixed.maps)?,
                iovecs: rows(area, fixed.iovecs)?,
                batches: rows(area, fixed.batches)?,
                protects: rows(area, fixed.protects)?,
                flushes: rows(area, fixed.flushes)?,
                unparks: rows(area, fixed.unparks)?,
                advises: rows(area, fixed.advises)?,
                locks: rows(area, fixed.locks)?,
                closes: rows(area, fixed.closes)?,
                threads,
                timers: rows(area, fixed.timers)?,
                queue: rows(area, queue)?,
            })
        }
    }
}

/// One table as a slice.
///
/// # Safety
/// As [`Args::in_area`].
unsafe fn rows<'a, T: Plain>(area: Range, table: Table) -> Result<&'a [T], Check> {
    if table.count == 0 {
        return Ok(&[]);
    }
    let (addr, count) = (u64::from(table.addr), u64::from(table.count));
    let end = addr.saturating_add(count.saturating_mul(size_of::<T>() as u64));
    if !table.addr.is_multiple_of(8) || table.addr < area.start || end > u64::from(area.end) {
        return Err(Check::Table);
    }
    // SAFETY: all `count` records lie in the area, which the caller vouches for; `T: Plain` is valid for any bytes, and
    // 8 is a multiple of every record's alignment.
    Ok(unsafe { core::slice::from_raw_parts(table.addr as usize as *const T, table.count as usize) })
}
