//! The blob that `build.rs` put into this program; empty if there was none when it was built.

use armrest_abi::{ABI_VERSION, BLOB_MAGIC, BlobHeader};
use armrest_plan::BlobSizes;

/// Bytes of `armrest.bin`.
pub static BLOB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/armrest.bin"));

/// What a plan reckons with when there is no blob: the budget of docs/abi.md.
const BUDGET: BlobSizes = BlobSizes { rx: 8192, rw: 4096, stack: 16384, heap: 16384 };

/// The header of `blob`, if it is one that this harness can load.
pub fn header(blob: &[u8]) -> Option<BlobHeader> {
    let word = |i: usize| Some(u32::from_le_bytes(blob.get(i * 4..i * 4 + 4)?.try_into().ok()?));
    let h = BlobHeader {
        magic: word(0)?,
        version: word(1)?,
        header_size: word(2)?,
        args_size: word(3)?,
        rx_size: word(4)?,
        rx_used: word(5)?,
        rw_size: word(6)?,
        entry_offset: word(7)?,
        thread_entry_offset: word(8)?,
        exit_offset: word(9)?,
        frame_offset: word(10)?,
        stack_size: word(11)?,
        heap_size: word(12)?,
        reserved: [word(13)?, word(14)?, word(15)?],
    };
    (h.magic == BLOB_MAGIC && h.version == ABI_VERSION).then_some(h)
}

/// Sizes of the blob inside this program, and whether there is one: without it, those of the budget.
pub fn sizes() -> (BlobSizes, bool) {
    match header(BLOB) {
        Some(h) => (BlobSizes { rx: h.rx_size, rw: h.rw_size, stack: h.stack_size, heap: h.heap_size }, true),
        None => (BUDGET, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use armrest_abi::bytes_of;

    #[test]
    fn a_header_is_read_back_and_another_version_refused() {
        let mut h = BlobHeader {
            magic: BLOB_MAGIC,
            version: ABI_VERSION,
            header_size: 64,
            args_size: 1,
            rx_size: 2,
            rx_used: 3,
            rw_size: 4,
            entry_offset: 5,
            thread_entry_offset: 6,
            exit_offset: 7,
            frame_offset: 8,
            stack_size: 9,
            heap_size: 10,
            reserved: [11, 12, 13],
        };
        assert_eq!(header(bytes_of(&h)), Some(h));
        h.version += 1;
        assert_eq!(header(bytes_of(&h)), None);
        assert_eq!(header(&[]), None);
    }
}
