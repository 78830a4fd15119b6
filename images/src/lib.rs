//! CRIU image files into a checked [`Checkpoint`].
//!
//! [`load`] is the door: hostile bytes go in, and either types come out that cannot be wrong, or an [`Error`] that names
//! file, entry and field. Nothing in this crate writes, follows a link out of the images directory (but the documented
//! `parent`), or panics on any input. The format is described in `docs` of the project and in `criu-images.md`.
mod check;
pub mod checkpoint;
pub mod container;
pub mod dir;
pub mod error;
mod explore;
pub mod kinds;
pub mod magic;
pub mod proto;
mod sockets;
pub mod stat;
pub mod stats;
mod terminals;
pub mod view;

pub use check::{load, load_from};
pub use checkpoint::*;
pub use dir::{FsDir, ImageDir, MemDir};
pub use error::{Class, Error, Fault, Place};
pub use kinds::*;
pub use sockets::*;
pub use terminals::*;
