//! What the harness and the blob tell each other.
//!
//! Every structure here is `repr(C)` with fixed-width fields, the same bytes on the host that plans and on the ARM
//! task that restores; the const assertions at the end of each file hold on both. Nothing is written twice: the
//! blob, the plan, the checker and embedders (through the generated C header) all use this crate.
//! Addresses are 32-bit target addresses, sizes are bytes unless a field says pages.
#![no_std]

mod bytes;
pub mod consts;
mod header;
mod records;
mod report;
mod restore;

pub use bytes::{Plain, bytes_of, bytes_of_slice, words_of_slice};
pub use header::{BLOB_MAGIC, BlobHeader, EXIT_CODE_LIMIT, FRAME_OFFSET, FRAME_SIZE};
pub use records::{
    Advise, Attach, Batch, CloneArgs, Cred, Flush, Iovec, Lock, Map, MmMap, Move, PosixTimer,
    Protect, Queued, Range, Remove, Timer, cred,
};
pub use report::{BEAT_OFFSET, GATE_OFFSET, Progress, REACHED_OFFSET, Report, ReportKind, Step};
pub use restore::{ARGS_MAGIC, RestoreArgs, Rows, Rseq, Table, ThreadArgs, want};

/// Version of every structure in this crate. A blob refuses arguments of another version.
pub const ABI_VERSION: u32 = 1;
/// Bytes in a page: the only page size of ARMv7 Linux.
pub const PAGE_SIZE: u32 = 4096;
/// `UIO_MAXIOV`: iovecs that one `preadv` may have (include/uapi/linux/uio.h).
pub const IOV_MAX: u32 = 1024;
