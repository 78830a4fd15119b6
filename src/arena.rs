//! The blob's heap: an arena in the bootstrap area, bounded, used only for what cannot be sized beforehand.

use armrest_abi::{IOV_MAX, Iovec, Range};
use armrest_blob::heap::Heap;
use core::alloc::Layout;

/// The allocator panics below a few words; so small an arena is taken as none.
const LEAST: u32 = 64;
/// Rows of the one table that is ever needed: the rest of the largest batch.
const ROWS: usize = IOV_MAX as usize;

/// The arena.
pub struct Arena {
    range: Range,
    heap: linked_list_allocator::Heap,
    iovecs: Option<&'static mut [Iovec; ROWS]>,
}

impl Arena {
    /// This range as the arena; it is looked at when the first request comes.
    ///
    /// # Safety
    /// If the verify step lets it pass, the range is mapped, writable and used by nobody else as long as the blob runs.
    pub const unsafe fn new(range: Range) -> Arena {
        Arena {
            range,
            heap: linked_list_allocator::Heap::empty(),
            iovecs: None,
        }
    }

    /// The table, made of a fresh arena.
    fn table(&mut self) -> Option<&'static mut [Iovec; ROWS]> {
        let Range { start, .. } = self.range;
        if self.range.len() < LEAST || !start.is_multiple_of(8) {
            return None;
        }
        // SAFETY: ours by the promise to `new`; called once, as a failure ends the restore.
        unsafe {
            self.heap
                .init(start as usize as *mut u8, self.range.len() as usize)
        };
        let block = self
            .heap
            .allocate_first_fit(Layout::new::<[Iovec; ROWS]>())
            .ok()?;
        // SAFETY: the block has the array's size and alignment and is never given back; zeros are iovecs.
        unsafe {
            block.write_bytes(0, size_of::<[Iovec; ROWS]>());
            Some(block.cast::<[Iovec; ROWS]>().as_mut())
        }
    }
}

impl Heap for Arena {
    /// The table is made at the first request, for all requests.
    fn iovecs(&mut self, count: usize) -> Option<&mut [Iovec]> {
        if self.iovecs.is_none() {
            self.iovecs = self.table();
        }
        self.iovecs.as_mut()?.get_mut(..count)
    }
}
