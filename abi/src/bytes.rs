//! Views of ABI structures as bytes, in one audited place.

/// A structure whose every byte is initialised: `repr(C)`, fixed-width integer fields, no padding.
///
/// # Safety
/// The implementer promises that the type is `repr(C)`, has no padding bytes, holds no pointer or reference, and is
/// valid for every bit pattern. The const assertions beside each implementation check that sizes add up.
pub unsafe trait Plain: Copy + 'static {}

/// The bytes of one record, as they lie in the restore-args area.
pub fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `T: Plain` has no padding, so all `size_of::<T>()` bytes are initialised; the borrow keeps them alive.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }
}

/// The bytes of a table of records.
pub fn bytes_of_slice<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: as in `bytes_of`; `size_of_val` is the exact extent of the slice.
    unsafe { core::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) }
}

/// The same table as words: for code that goes over tables of different records in one loop.
pub fn words_of_slice<T: Plain>(values: &[T]) -> &[u32] {
    const { assert!(size_of::<T>().is_multiple_of(4) && align_of::<T>() >= 4) };
    // SAFETY: as in `bytes_of`; the assertion shows that the extent is whole, aligned words.
    unsafe { core::slice::from_raw_parts(values.as_ptr().cast::<u32>(), size_of_val(values) / 4) }
}
