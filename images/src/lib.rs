//! CRIU image files into a checked [`Checkpoint`].
pub mod checkpoint;
pub use checkpoint::*;
