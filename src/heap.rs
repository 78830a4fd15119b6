//! Room for what cannot be sized beforehand. On the device it comes from the arena in the bootstrap area (`arena.rs`).

use armrest_abi::Iovec;

/// Gives the steps room.
pub trait Heap {
    /// Room for `count` iovecs, whose contents do not matter; `None` if there is not enough. The room of an earlier call
    /// is given up.
    fn iovecs(&mut self, count: usize) -> Option<&mut [Iovec]>;
}

/// No room at all: for kernels that never read short.
pub type NoHeap = [Iovec; 0];

impl<const N: usize> Heap for [Iovec; N] {
    fn iovecs(&mut self, count: usize) -> Option<&mut [Iovec]> {
        self.get_mut(..count)
    }
}
