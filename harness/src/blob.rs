//! The blob that `build.rs` put into this program; empty if there was none when it was built. `load` reads its header.

/// Bytes of `armrest.bin`.
pub static BLOB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/armrest.bin"));
