//! The system calls that the steps make: one typed method each, over one required method.
//!
//! The device answers them with `svc` (`raw.rs`, feature `blob`), `armrest plan` with a recorder, the property tests
//! with a model of an address space. A step never knows which.

use armrest_abi::{Iovec, MmMap, Progress, Range, Report, Step};

/// A kernel error number (1 to 4095).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u16);

/// What a call returned.
pub type Res = Result<u32, Errno>;

/// Memory of the blob that a call reads: it goes into argument register `arg` as an address.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Which of r0 to r5 holds the address.
    pub arg: usize,
    /// The bytes there.
    pub bytes: &'a [u8],
}

/// System call numbers of ARM EABI (arch/arm/tools/syscall.tbl).
pub mod nr {
    #![allow(missing_docs)]
    pub const WRITE: u32 = 4;
    pub const CLOSE: u32 = 6;
    pub const MUNMAP: u32 = 91;
    pub const SETITIMER: u32 = 104;
    pub const MPROTECT: u32 = 125;
    pub const MLOCK: u32 = 150;
    pub const MREMAP: u32 = 163;
    pub const PRCTL: u32 = 172;
    pub const RT_SIGRETURN: u32 = 173;
    pub const RT_SIGQUEUEINFO: u32 = 178;
    pub const SIGALTSTACK: u32 = 186;
    pub const MMAP2: u32 = 192;
    pub const MADVISE: u32 = 220;
    pub const EXIT_GROUP: u32 = 248;
    pub const SET_TID_ADDRESS: u32 = 256;
    pub const SHMAT: u32 = 305;
    pub const SHMCTL: u32 = 308;
    pub const SET_ROBUST_LIST: u32 = 338;
    pub const PREADV: u32 = 361;
    pub const RT_TGSIGQUEUEINFO: u32 = 363;
    pub const RSEQ: u32 = 398;
    pub const CACHEFLUSH: u32 = 0x000f_0002;
    pub const SET_TLS: u32 = 0x000f_0005;
}

/// The kernel as the steps see it. Addresses are the task's, whoever answers.
pub trait Kernel {
    /// Issue call `nr` with `args` in r0 to r5. If `data` is there, the address of its bytes replaces `args[data.arg]`.
    /// An implementation remembers a failing call, for the report.
    fn call(&mut self, nr: u32, args: [u32; 6], data: Option<Data<'_>>) -> Res;
    /// Show where the restore is. Costs no call.
    fn progress(&mut self, progress: Progress);
    /// A step begins: a place for recorders to mark their records.
    fn step(&mut self, _step: Step) {}
}
