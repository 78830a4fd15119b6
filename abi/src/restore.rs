//! The restore-args: everything that the blob is told.

use crate::{CloneArgs, MmMap, Plain, Range};

/// First word of [`RestoreArgs`]: the bytes `ARMA`.
pub const ARGS_MAGIC: u32 = u32::from_le_bytes(*b"ARMA");

/// Where a table of records lies in the bootstrap area.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Table {
    /// Address of the first record, aligned to 8. Any value if `count` is 0.
    pub addr: u32,
    /// Records.
    pub count: u32,
}

/// A restartable-sequences registration (`rseq`, include/uapi/linux/rseq.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rseq {
    /// Address of `struct rseq`; 0 = none.
    pub addr: u32,
    /// Bytes registered.
    pub len: u32,
    /// Signature before abort handlers.
    pub sig: u32,
}

/// Rows of a table of [`RestoreArgs`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rows {
    /// Index of the first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// What one thread puts back for itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ThreadArgs {
    /// Argument of the `clone3` that makes it; `set_tid` is the address of `tid` below. The leader's is not looked at.
    pub clone: CloneArgs,
    /// What is written to `last_pid_fd` before a `clone`: `tid` - 1 in decimal digits after blanks.
    pub last_pid: [u8; 12],
    /// Thread id in the checkpoint's pid namespace; the leader's is the pid.
    pub tid: u32,
    /// Bits of [`want`]: which of the fields below are applied.
    pub want: u32,
    /// TPIDRURO, for the ARM private call `set_tls`.
    pub tls: u32,
    /// Argument of `set_tid_address`.
    pub clear_tid: u32,
    /// Head of the robust futex list.
    pub robust_head: u32,
    /// Its size: 12 on ARM.
    pub robust_len: u32,
    /// Registration to make.
    pub rseq: Rseq,
    /// `PR_SET_NAME`: NUL-terminated.
    pub comm: [u8; 16],
    /// Address of the signal frame with which the thread enters the restored program, 8-aligned: anywhere in the area, but
    /// the leader's without `exit_frame` in the kept page.
    pub frame: u32,
    /// Where in the task's own memory the frame is copied to before the thread leaves, 8-aligned; 0 = it is used where it
    /// is (but for the leader, a tracer then keeps the area until the thread is out). All threads have one if [`RestoreArgs::exit_svc`] is set.
    pub exit_frame: u32,
    /// End of the thread's stack in the area, 8-aligned. The leader's is not looked at: it runs on the blob's stack.
    pub stack: u32,
    /// `PR_SET_PDEATHSIG` number.
    pub pdeath: u32,
    /// `sched_setscheduler`: `SCHED_*`, with its flags.
    pub policy: u32,
    /// Its real-time priority.
    pub priority: u32,
    /// `setpriority`: nice value.
    pub nice: i32,
    /// Pending signals: rows of [`RestoreArgs::queued`].
    pub queue: Rows,
    /// First row of its own in the table of credentials; threads that are alike have the same.
    pub cred: u32,
    /// Rows that every thread has taken before any of them enters the program.
    pub creds: u32,
    /// Rows after those: filters, which the thread takes last of all.
    pub seals: u32,
    /// Reserved, zero.
    pub reserved: [u32; 2],
}

/// Bits that say which optional call the plan asks for. A kernel that lacks one gets a plan without it, named in the
/// summary; the blob never ignores an error.
pub mod want {
    /// Detach: `rseq(old_rseq, RSEQ_FLAG_UNREGISTER)`.
    pub const OLD_RSEQ: u32 = 1 << 0;
    /// Detach: `set_robust_list(NULL, 12)`.
    pub const OLD_ROBUST: u32 = 1 << 1;
    /// Mm: `prctl(PR_SET_MM, PR_SET_MM_MAP)`.
    pub const MM_MAP: u32 = 1 << 2;
    /// Map, before the first mapping: `prctl(PR_SET_THP_DISABLE, 1)`.
    pub const THP_DISABLE: u32 = 1 << 3;
    /// Creds: `prctl(PR_SET_DUMPABLE, dumpable)`.
    pub const DUMPABLE: u32 = 1 << 4;
    /// Timers: the kernel takes the numbers of POSIX timers from us (`PR_TIMER_CREATE_RESTORE_IDS`).
    pub const TIMER_IDS: u32 = 1 << 5;
    /// Timers: armed by `timer_settime64`.
    pub const TIME64: u32 = 1 << 6;
    /// Threads: they are made by `clone3` with `set_tid`.
    pub const SET_TID: u32 = 1 << 7;
    /// Threads: `last_pid_fd` is written before each is made. With neither bit they get the ids that the kernel gives.
    pub const LAST_PID: u32 = 1 << 16;
    /// Mm: the fields of `mm` one by one (`PR_SET_MM_START_CODE` ...), where the kernel cannot take them at once.
    pub const MM_SINGLES: u32 = 1 << 20;
    /// Wait twice at the gate ([`crate::GATE_OFFSET`]): in the timers step before the first is armed, and in the enter step
    /// behind everything but the way out.
    pub const GATE: u32 = 1 << 21;
    /// The second time the leader waits without a call, since its filters, which are in force by then, forbid those of a
    /// wait. It gives up when the word at [`crate::BEAT_OFFSET`] has not changed for about a second of its own time: the
    /// gate, if it is not open, becomes 0 and stays shut.
    pub const SPIN: u32 = 1 << 22;
    /// Thread: `set_robust_list(robust_head, robust_len)`.
    pub const ROBUST: u32 = 1 << 8;
    /// Thread: `rseq(rseq)`.
    pub const RSEQ: u32 = 1 << 9;
    /// Creds, by each thread: `prctl(PR_SET_PDEATHSIG)`.
    pub const PDEATH: u32 = 1 << 10;
    /// Thread: `sched_setscheduler(policy, priority)`.
    pub const SCHED: u32 = 1 << 11;
    /// Thread: `setpriority(nice)`.
    pub const NICE: u32 = 1 << 12;
}

/// The restore arguments: one structure at the start of the tables, all of it inside [`RestoreArgs::area`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreArgs {
    /// [`ARGS_MAGIC`].
    pub magic: u32,
    /// [`crate::ABI_VERSION`].
    pub version: u32,
    /// `size_of::<RestoreArgs>()`.
    pub size: u32,
    /// Bits of [`want`] that concern the process.
    pub want: u32,
    /// The whole bootstrap area: blob, stack, heap, these arguments, progress page. Survives the unmap step.
    pub area: Range,
    /// The part of it that stays mapped when the task runs: the blob's first page, at the start of the area.
    pub keep: Range,
    /// The arena of the heap, inside the area.
    pub heap: Range,
    /// Address of the [`crate::Progress`] page.
    pub progress: u32,
    /// Descriptor that takes a [`crate::Report`]; the exit routine closes it as its last act.
    pub report_fd: i32,
    /// [`Range`]s to unmap: everything that is neither the area, nor parked, nor the kernel's own.
    pub unmaps: Table,
    /// [`crate::Move`]s of what is parked before the unmap.
    pub parks: Table,
    /// [`crate::Attach`]es.
    pub attaches: Table,
    /// [`crate::Move`]s out of scratch attachments.
    pub pieces: Table,
    /// [`Range`]s of attachments to unmap.
    pub holes: Table,
    /// [`crate::Remove`]s.
    pub removes: Table,
    /// [`crate::Map`]s.
    pub maps: Table,
    /// [`crate::Iovec`]s.
    pub iovecs: Table,
    /// [`crate::Batch`]es.
    pub batches: Table,
    /// [`crate::Protect`]s.
    pub protects: Table,
    /// [`crate::Flush`]es.
    pub flushes: Table,
    /// [`crate::Move`]s of parked areas to the checkpoint's addresses.
    pub unparks: Table,
    /// [`crate::Advise`]s.
    pub advises: Table,
    /// [`crate::Lock`]s.
    pub locks: Table,
    /// Descriptors (u32) to close before the task is entered: pages files and files of mappings.
    pub closes: Table,
    /// [`ThreadArgs`], the leader first.
    pub threads: Table,
    /// [`crate::Timer`]s.
    pub timers: Table,
    /// [`crate::PosixTimer`]s, by ascending number.
    pub posix_timers: Table,
    /// [`crate::Queued`], of all threads.
    pub queued: Table,
    /// [`crate::Cred`]s of all threads.
    pub creds: Table,
    /// The old program's registration, taken back in the detach step.
    pub old_rseq: Rseq,
    /// `PR_SET_DUMPABLE` value.
    pub dumpable: u32,
    /// The kernel's idea of the address space.
    pub mm: MmMap,
    /// Address of the `svc` behind `mov r7, #119` in the kernel's sigpage, where it lies for the task; 0 = keep a page.
    /// With it the exit routine leaves nothing of ours behind: see arch/arm/exit.S.
    pub exit_svc: u32,
    /// Descriptor of /proc/sys/kernel/ns_last_pid, or -1.
    pub last_pid_fd: i32,
    /// Record locks: rows of [`RestoreArgs::creds`] that the leader takes once the helper descriptors are closed.
    pub records: Rows,
}

// SAFETY: repr(C) of 32-bit fields, no padding (asserted below).
unsafe impl Plain for Table {}
// SAFETY: repr(C) of 32-bit fields, no padding (asserted below).
unsafe impl Plain for Rows {}
// SAFETY: repr(C) of 32-bit fields, no padding (asserted below).
unsafe impl Plain for Rseq {}
// SAFETY: repr(C) of ten 64-bit fields, then bytes and 32-bit fields, no padding (asserted below).
unsafe impl Plain for ThreadArgs {}
// SAFETY: repr(C); `mm` begins at a multiple of 8 and the rest are 32-bit fields, no padding (asserted below).
unsafe impl Plain for RestoreArgs {}
const _: () = assert!(size_of::<Table>() == 8);
const _: () = assert!(size_of::<Rseq>() == 12);
const _: () = assert!(size_of::<ThreadArgs>() == 200);
const _: () = assert!(size_of::<Rows>() == 8);
const _: () = assert!(core::mem::offset_of!(RestoreArgs, mm) == 224);
const _: () = assert!(size_of::<RestoreArgs>() == 224 + 104 + 16);
