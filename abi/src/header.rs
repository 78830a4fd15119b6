//! The first bytes of the flat blob: how a loader finds its way in it.

use crate::{PAGE_SIZE, Plain};

/// First word of `armrest.bin`: the bytes `ARMB`.
pub const BLOB_MAGIC: u32 = u32::from_le_bytes(*b"ARMB");
/// Offset in the blob's first page at which the loader writes the signal frame of the restored task, 8-aligned.
pub const FRAME_OFFSET: u32 = 0x800;
/// Bytes of that frame: what current kernels check to be readable (arch/arm/kernel/signal.c, `struct rt_sigframe`).
pub const FRAME_SIZE: u32 = 888;
/// Header and exit routine must end here, below the frame.
pub const EXIT_CODE_LIMIT: u32 = FRAME_OFFSET;

/// Header of the flat blob, at offset 0.
///
/// Layout of the file: page 0 (this header, the exit routine, room for the signal frame), then the rest of the
/// read-execute part, then the read-write part. Both parts are whole pages. Page 0 is the only page that may outlive
/// the restore (`RestoreArgs::keep`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobHeader {
    /// [`BLOB_MAGIC`].
    pub magic: u32,
    /// [`crate::ABI_VERSION`].
    pub version: u32,
    /// `size_of::<BlobHeader>()`.
    pub header_size: u32,
    /// `size_of::<RestoreArgs>()` that this blob understands.
    pub args_size: u32,
    /// Bytes of the read-execute part, a multiple of the page size, page 0 included.
    pub rx_size: u32,
    /// Bytes of the read-execute part that are not padding.
    pub rx_used: u32,
    /// Bytes of the read-write part that follows, a multiple of the page size. The file ends after it.
    pub rw_size: u32,
    /// Offset of the ARM-state entry point: r0 = address of `RestoreArgs`, r1 = top of the blob's stack; a C function
    /// `void entry(uint32_t args, uint32_t stack_top)` that does not return.
    pub entry_offset: u32,
    /// Offset at which the blob's own threads begin (ARM state), or 0 if it cannot start threads.
    pub thread_entry_offset: u32,
    /// Offset of the exit routine in page 0 (ARM state).
    pub exit_offset: u32,
    /// Offset in page 0 where the loader writes the frame: [`FRAME_OFFSET`].
    pub frame_offset: u32,
    /// Bytes of stack that a loader must give the blob's main thread.
    pub stack_size: u32,
    /// Bytes of arena that a loader must give the blob's heap.
    pub heap_size: u32,
    /// Bytes of stack that a loader must give each further thread.
    pub thread_stack_size: u32,
    /// Reserved, zero.
    pub reserved: [u32; 2],
}

impl BlobHeader {
    /// The header at the start of a flat blob, unchecked; `None` if the bytes are too few.
    pub fn from_bytes(blob: &[u8]) -> Option<BlobHeader> {
        let mut words = [0u32; size_of::<BlobHeader>() / 4];
        let bytes = blob.get(..size_of::<BlobHeader>())?;
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let [
            magic,
            version,
            header_size,
            args_size,
            rx_size,
            rx_used,
            rw_size,
            entry_offset,
            thread_entry_offset,
            exit_offset,
            frame_offset,
            stack_size,
            heap_size,
            thread_stack_size,
            reserved @ ..,
        ] = words;
        Some(BlobHeader {
            magic,
            version,
            header_size,
            args_size,
            rx_size,
            rx_used,
            rw_size,
            entry_offset,
            thread_entry_offset,
            exit_offset,
            frame_offset,
            stack_size,
            heap_size,
            thread_stack_size,
            reserved,
        })
    }
}

// SAFETY: repr(C), sixteen u32 fields, no padding (asserted below).
unsafe impl Plain for BlobHeader {}

const _: () = assert!(size_of::<BlobHeader>() == 64);
const _: () = assert!(FRAME_OFFSET.is_multiple_of(8) && FRAME_OFFSET + FRAME_SIZE <= PAGE_SIZE);
