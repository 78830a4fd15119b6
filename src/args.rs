//! The restore arguments as slices that cannot be out of bounds.
//!
//! [`Args`] borrows the tables of a plan on the host, or what [`RestoreArgs`] points to on the device
//! ([`Args::in_area`]). Whether the rows make sense is the verify step's business.

use armrest_abi::{
    ABI_VERSION, ARGS_MAGIC, Advise, Attach, Batch, Cred, Flush, Iovec, Lock, Map, Move, Plain,
    PosixTimer, Protect, Queued, Range, Remove, RestoreArgs, Table, ThreadArgs, Timer,
    words_of_slice,
};
use core::mem::offset_of;

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
    /// There is no thread, or one's stack or queue does not lie in the area or in the table.
    Threads = 5,
    /// A signal frame is not 8-aligned in the area, or is not copied out of it although it does not stay.
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
    /// A row of credentials asks for a call that is none of theirs.
    CredCall = 12,
}

impl Check {
    /// All checks.
    pub const ALL: [Check; 12] = [
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
        Check::CredCall,
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
    pub posix_timers: &'a [PosixTimer],
    pub queued: &'a [Queued],
    pub creds: &'a [Cred],
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
            posix_timers: &[],
            queued: &[],
            creds: &[],
        }
    }

    /// Call `f` with the tables that `fixed` points to, each proved to lie in the area.
    ///
    /// # Safety
    /// The caller's address space is the one that `fixed` speaks of: `fixed.area`, if it passes the checks, is readable
    /// memory that lives and stays unchanged as long as `'a`, but for the blob's own data, stack and heap, where no
    /// table lies.
    pub unsafe fn in_area<R>(
        fixed: &'a RestoreArgs,
        f: impl FnOnce(&Args<'a>) -> R,
    ) -> Result<R, Check> {
        let size = u32::try_from(size_of::<RestoreArgs>()).unwrap_or(0);
        if fixed.magic != ARGS_MAGIC || fixed.version != ABI_VERSION || fixed.size != size {
            return Err(Check::Version);
        }
        let mut places = [Place::NONE; SIZES.len()];
        find(fixed, &mut places)?;
        // SAFETY: each place was found in the area, which the caller vouches for.
        let args = unsafe { all(fixed, &places) };
        Ok(f(&args))
    }
}

/// The fields of [`RestoreArgs`] that are tables, in their order there, with their records.
macro_rules! tables {
    ($($index:literal $field:ident $record:ident),* $(,)?) => {
        /// Bytes of a record of each table.
        const SIZES: &[u8] = &[$(size_of::<$record>().to_le_bytes()[0]),*];
        $(const _: () = assert!(size_of::<$record>() < 256 && at($index) == offset_of!(RestoreArgs, $field));)*

        /// Every table as a slice.
        ///
        /// # Safety
        /// The places were found for these tables, in an area for which the caller of [`Args::in_area`] vouches.
        #[inline(never)]
        unsafe fn all<'a>(fixed: &'a RestoreArgs, places: &[Place; SIZES.len()]) -> Args<'a> {
            // SAFETY: handed on from the caller.
            Args { fixed, $($field: unsafe { places[$index].rows() }),* }
        }
    };
}

/// Where table number `index` stands in [`RestoreArgs`].
const fn at(index: usize) -> usize {
    offset_of!(RestoreArgs, unmaps) + index * size_of::<Table>()
}

tables!(
    0 unmaps Range, 1 parks Move, 2 attaches Attach, 3 pieces Move, 4 holes Range, 5 removes Remove, 6 maps Map,
    7 iovecs Iovec, 8 batches Batch, 9 protects Protect, 10 flushes Flush, 11 unparks Move, 12 advises Advise,
    13 locks Lock, 14 closes u32, 15 threads ThreadArgs, 16 timers Timer, 17 posix_timers PosixTimer, 18 queued Queued,
    19 creds Cred,
);

/// Address and number of the records of a table that lies in the area.
#[derive(Clone, Copy)]
struct Place(usize, usize);

impl Place {
    /// Aligned for a slice of nothing.
    const NONE: Place = Place(8, 0);

    /// The records.
    ///
    /// # Safety
    /// The place was found for `T`, in an area for which the caller of [`Args::in_area`] vouches.
    unsafe fn rows<'a, T: Plain>(self) -> &'a [T] {
        // SAFETY: all records lie in the area, or there are none; `T: Plain` is valid for any bytes, and 8 is a multiple
        // of every record's alignment.
        unsafe { core::slice::from_raw_parts(self.0 as *const T, self.1) }
    }
}

/// Find the places of all tables.
#[inline(never)]
fn find(fixed: &RestoreArgs, places: &mut [Place; SIZES.len()]) -> Result<(), Check> {
    let words = words_of_slice(core::slice::from_ref(fixed))
        .get(at(0) / 4..)
        .unwrap_or(&[]);
    for ((found, size), table) in places.iter_mut().zip(SIZES).zip(words.as_chunks::<2>().0) {
        let [addr, count] = *table;
        *found = place(fixed.area, Table { addr, count }, usize::from(*size))?;
    }
    Ok(())
}

/// The place of one table.
fn place(area: Range, table: Table, size: usize) -> Result<Place, Check> {
    if table.count == 0 {
        return Ok(Place::NONE);
    }
    let end = u64::from(table.addr) + u64::from(table.count) * size as u64;
    let fits = table.addr.is_multiple_of(8)
        && table.addr >= area.start.max(8)
        && end <= u64::from(area.end);
    if fits {
        Ok(Place(table.addr as usize, table.count as usize))
    } else {
        Err(Check::Table)
    }
}
