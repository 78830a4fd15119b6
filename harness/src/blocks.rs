//! Memory for the many small things of a plan: blocks of one size are a list, as libc's `malloc` has them too, but whoever
//! frees one says its size here, so there is nothing to look up, to join or to give back. That makes a tenth of a small
//! restore's instructions of what was a quarter of the harness's own. Big blocks are libc's: they go back to the kernel.
//!
//! Each thread has lists of its own: a block that another thread frees goes to that one's. What a thread leaves when it
//! ends is not used again; this program makes none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// Sizes differ by as much, and so is every block aligned.
const GRAIN: usize = 8;
/// The biggest that is ours.
const MOST: usize = 512;
/// What is taken from libc at once.
const CHUNK: Layout = match Layout::from_size_align(16 << 10, GRAIN) {
    Ok(layout) => layout,
    Err(_) => panic!("a size that is none"),
};

struct Lists {
    /// By size in grains, the first free block: it holds the address of the next.
    free: [Cell<*mut u8>; MOST / GRAIN + 1],
    /// The rest of the last chunk.
    rest: Cell<*mut u8>,
    left: Cell<usize>,
}

thread_local! {
    static LISTS: Lists = const {
        Lists {
            free: [const { Cell::new(ptr::null_mut()) }; MOST / GRAIN + 1],
            rest: Cell::new(ptr::null_mut()),
            left: Cell::new(0),
        }
    };
}

impl Lists {
    /// A block of this size, which is not zero; null if there is no memory.
    fn take(&self, size: usize) -> *mut u8 {
        let grains = size.div_ceil(GRAIN);
        let list = &self.free[grains];
        let first = list.get();
        if !first.is_null() {
            // SAFETY: a block in a list is nobody's, has at least a grain, and holds the address of the next.
            list.set(unsafe { first.cast::<*mut u8>().read() });
            return first;
        }
        let size = grains * GRAIN;
        if self.left.get() < size {
            // SAFETY: the size is not zero.
            let chunk = unsafe { System.alloc(CHUNK) };
            if chunk.is_null() {
                return chunk;
            }
            self.rest.set(chunk);
            self.left.set(CHUNK.size());
        }
        let block = self.rest.get();
        // SAFETY: so much is left of the chunk.
        self.rest.set(unsafe { block.add(size) });
        self.left.set(self.left.get() - size);
        block
    }

    /// A block of this size is no longer used.
    fn give(&self, block: *mut u8, size: usize) {
        let list = &self.free[size.div_ceil(GRAIN)];
        // SAFETY: it was taken with this size, so it has at least a grain and is aligned to one; it is nobody's now.
        unsafe { block.cast::<*mut u8>().write(list.get()) };
        list.set(block);
    }
}

fn small(size: usize, align: usize) -> bool {
    size <= MOST && align <= GRAIN
}

/// The allocator of the program.
#[derive(Debug)]
pub struct Blocks;

// SAFETY: a block belongs to nobody else from `take` to `give`; it has the size and the alignment that are asked for; all
// others are libc's. Which of the two a block is, is told by its layout alone, which is the same at both ends.
unsafe impl GlobalAlloc for Blocks {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if small(layout.size(), layout.align()) {
            return LISTS.with(|l| l.take(layout.size()));
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if small(layout.size(), layout.align()) {
            return LISTS.with(|l| l.give(block, layout.size()));
        }
        // SAFETY: as the caller promises; it came from there.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !small(layout.size(), layout.align()) {
            // SAFETY: as the caller promises.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as the caller promises; what it gives has so many bytes.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (was, is) = (
            small(layout.size(), layout.align()),
            small(size, layout.align()),
        );
        if was && is && layout.size().div_ceil(GRAIN) == size.div_ceil(GRAIN) {
            return block;
        }
        if !was && !is {
            // SAFETY: as the caller promises; it came from there and stays there.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: as the caller promises; both have the smaller of the two sizes, and are different blocks.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(block, size.min(layout.size()));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Blocks of all sizes at once, each filled with a byte of its own, and grown: nobody writes to another's.
    #[test]
    fn blocks_do_not_overlap() {
        let mut blocks = Vec::new();
        for n in 0..4000 {
            let layout = layout(1 + n * 7 % 700, 1 << (n % 6));
            let byte = u8::try_from(n % 251).unwrap();
            // SAFETY: no size is zero.
            let block = unsafe { Blocks.alloc(layout) };
            assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
            // SAFETY: it has so many bytes.
            unsafe { block.write_bytes(byte, layout.size()) };
            blocks.push((block, layout, byte));
        }
        for (n, (block, l, _)) in blocks.iter_mut().enumerate().skip(1).step_by(2) {
            let size = 1 + n * 13 % 900;
            // SAFETY: it is of this layout, and the size is not zero.
            *block = unsafe { Blocks.realloc(*block, *l, size) };
            *l = layout(size.min(l.size()), l.align());
            // What is freed below must have the size that it was made with.
            // SAFETY: as above.
            *block = unsafe { Blocks.realloc(*block, layout(size, l.align()), l.size()) };
        }
        for (block, l, byte) in &blocks {
            // SAFETY: so many bytes were written, or kept.
            let bytes = unsafe { std::slice::from_raw_parts(*block, l.size()) };
            assert!(bytes.iter().all(|b| b == byte), "{l:?}");
        }
        for (block, layout, _) in blocks {
            // SAFETY: each is of this layout, and not used any more.
            unsafe { Blocks.dealloc(block, layout) };
        }
    }

    #[test]
    fn a_freed_block_is_the_next_and_can_be_had_empty() {
        for size in [1, 8, 100, MOST] {
            let layout = layout(size, 1);
            // SAFETY: the size is not zero; what is written and read lies inside, and each is freed once.
            unsafe {
                let first = Blocks.alloc(layout);
                first.write_bytes(0xff, size);
                Blocks.dealloc(first, layout);
                let second = Blocks.alloc_zeroed(layout);
                assert_eq!(first, second);
                assert!((0..size).all(|n| second.add(n).read() == 0));
                Blocks.dealloc(second, layout);
            }
        }
    }
}
