//! The blob's heap: an arena in the bootstrap area, bounded, used only for what cannot be sized beforehand.

use armrest_abi::Range;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};
use linked_list_allocator::Heap;

/// Less is not worth a heap, and the allocator panics below a few words.
const LEAST: u32 = 64;

#[global_allocator]
static ARENA: Arena = Arena(UnsafeCell::new(Heap::empty()));

struct Arena(UnsafeCell<Heap>);

// SAFETY: the blob has one thread, and no signal handler runs in it.
unsafe impl Sync for Arena {}

/// Give the heap its arena. Without one, or with one that is too small, every allocation fails.
///
/// # Safety
/// The range is mapped, writable and used by nobody else; called once, before the first allocation.
pub unsafe fn init(arena: Range) {
    if arena.len() >= LEAST && arena.start.is_multiple_of(8) {
        // SAFETY: one thread, and no reference to the heap outlives a call; the arena is ours by the caller's promise.
        unsafe { (*ARENA.0.get()).init(arena.start as usize as *mut u8, arena.len() as usize) };
    }
}

// SAFETY: blocks come from `Heap`, which hands each out once and keeps alignment and size; failure is null.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread, and no reference to the heap outlives a call.
        let heap = unsafe { &mut *self.0.get() };
        heap.allocate_first_fit(layout).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if let Some(ptr) = NonNull::new(ptr) {
            // SAFETY: one thread; the caller got `ptr` from `alloc` with this layout.
            unsafe { (*self.0.get()).deallocate(ptr, layout) };
        }
    }
}
