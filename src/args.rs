//! The restore arguments as slices that cannot be out of bounds.
//!
//! [`Args`] borrows the tables of a plan on the host, or what [`RestoreArgs`] points to on the device
//! ([`Args::in_area`]). Whether the rows make sense is the verify step's business.

use armrest_abi::{
    ABI_VERSION, ARGS_MAGIC, Advise, Attach, Batch, Cred, Flush, Iovec, Lock, Map, Move, Plain,
    PosixTimer, Protect, Queued, Range, Remove, RestoreArgs, Table, ThreadArgs, Timer,
    words_of_slice,
};
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ops::Deref;

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

/// A slice whose layout is known: so all of them are found in one loop ([`Args::in_area`]).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Slice<'a, T> {
    at: *const T,
    count: usize,
    of: PhantomData<&'a [T]>,
}

impl<'a, T> Slice<'a, T> {
    /// Its rows.
    pub const fn rows(self) -> &'a [T]
    where
        T: Copy,
    {
        // SAFETY: made of a slice that lives as long, or in `in_area` of a place that holds so many records.
        unsafe { core::slice::from_raw_parts(self.at, self.count) }
    }
}

impl<T: Copy> Deref for Slice<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.rows()
    }
}

impl<'a, T, R: AsRef<[T]> + ?Sized> From<&'a R> for Slice<'a, T> {
    fn from(rows: &'a R) -> Slice<'a, T> {
        let rows = rows.as_ref();
        Slice {
            at: rows.as_ptr(),
            count: rows.len(),
            of: PhantomData,
        }
    }
}

/// Everything that the steps are told.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[expect(
    missing_docs,
    reason = "the fields are the tables of `RestoreArgs`, documented there"
)]
pub struct Args<'a> {
    /// The fixed part. Its tables are not looked at: the slices below are.
    pub fixed: &'a RestoreArgs,
    pub unmaps: Slice<'a, Range>,
    pub parks: Slice<'a, Move>,
    pub attaches: Slice<'a, Attach>,
    pub pieces: Slice<'a, Move>,
    pub holes: Slice<'a, Range>,
    pub removes: Slice<'a, Remove>,
    pub maps: Slice<'a, Map>,
    pub iovecs: Slice<'a, Iovec>,
    pub batches: Slice<'a, Batch>,
    pub protects: Slice<'a, Protect>,
    pub flushes: Slice<'a, Flush>,
    pub unparks: Slice<'a, Move>,
    pub advises: Slice<'a, Advise>,
    pub locks: Slice<'a, Lock>,
    pub closes: Slice<'a, u32>,
    pub threads: Slice<'a, ThreadArgs>,
    pub timers: Slice<'a, Timer>,
    pub posix_timers: Slice<'a, PosixTimer>,
    pub queued: Slice<'a, Queued>,
    pub creds: Slice<'a, Cred>,
}

impl<'a> Args<'a> {
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
        let mut found = Found {
            fixed,
            places: [Place::NONE; SIZES.len()],
        };
        find(fixed, &mut found.places)?;
        // SAFETY: `Found` has the layout of `Args` (asserted below). Each place was found in the area, which the caller
        // vouches for: all records lie in it, or there are none; records are valid for any bytes (`Plain`, asserted
        // below), and 8 is a multiple of every record's alignment.
        Ok(f(unsafe {
            &*core::ptr::from_ref(&found).cast::<Args<'a>>()
        }))
    }
}

impl Args<'_> {
    /// The records of table number `index` as words: for code that goes over all tables in one loop. Nothing if there is no
    /// such table.
    pub(crate) fn words(&self, index: usize) -> &[u32] {
        // SAFETY: `Found` has the layout of `Args` (asserted below).
        let found = unsafe { &*core::ptr::from_ref(self).cast::<Found<'_>>() };
        let (Some(place), Some(size)) = (found.places.get(index), SIZES.get(index)) else {
            return &[];
        };
        let words = usize::from(size / 4) * place.count;
        // SAFETY: the slice that is there has `count` records of this size, whole aligned words that are all initialised
        // (`Plain`); it lives as long as `self`.
        unsafe { core::slice::from_raw_parts(place.at.cast(), words) }
    }
}

/// The number of the table that stands at this offset in [`Args`].
pub(crate) const fn number(offset: usize) -> usize {
    (offset - offset_of!(Found<'_>, places)) / size_of::<Place>()
}

/// [`Args`] before the records of its tables have types.
#[repr(C)]
struct Found<'a> {
    fixed: &'a RestoreArgs,
    places: [Place; SIZES.len()],
}

/// Address and number of the records of a table that lies in the area. The layout is that of [`Slice`].
#[repr(C)]
#[derive(Clone, Copy)]
struct Place {
    at: *const u64,
    count: usize,
}

impl Place {
    /// Aligned for a slice of nothing.
    const NONE: Place = Place {
        at: core::ptr::NonNull::dangling().as_ptr(),
        count: 0,
    };
}

const fn plain<T: Plain>() {}

/// The fields of [`RestoreArgs`] that are tables, in their order there and in [`Args`], with their records.
macro_rules! tables {
    ($($index:literal $field:ident $record:ident),* $(,)?) => {
        /// Bytes of a record of each table.
        const SIZES: &[u8] = &[$(size_of::<$record>().to_le_bytes()[0]),*];
        $(const _: () = {
            plain::<$record>();
            assert!(size_of::<$record>() < 256 && size_of::<$record>() % 4 == 0);
            assert!(align_of::<$record>() >= 4 && 8 % align_of::<$record>() == 0);
            assert!(at($index) == offset_of!(RestoreArgs, $field));
            assert!(size_of::<Slice<'_, $record>>() == size_of::<Place>());
            assert!(offset_of!(Args<'_>, $field) == offset_of!(Found<'_>, places) + $index * size_of::<Place>());
        };)*
        const _: () = assert!(size_of::<Args<'_>>() == size_of::<Found<'_>>());

        impl<'a> Args<'a> {
            /// No rows at all.
            pub fn empty(fixed: &'a RestoreArgs) -> Args<'a> {
                Args { fixed, $($field: Slice::<$record>::from(&[])),* }
            }
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
        Ok(Place {
            at: core::ptr::with_exposed_provenance(table.addr as usize),
            count: table.count as usize,
        })
    } else {
        Err(Check::Table)
    }
}
