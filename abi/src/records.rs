//! One record a thing to restore: the rows of the tables that [`crate::RestoreArgs`] points to.
//!
//! `object` fields are indices into the plan's list of objects; the blob only carries them back in a report, so that
//! the harness can say which VMA or descriptor was meant.

use crate::Plain;

/// A half-open range of target addresses, page-aligned in every table of this crate.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Range {
    /// Bytes in the range; 0 if it is upside down.
    pub const fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }
    /// True if no byte lies in the range.
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }
    /// True if the two ranges share a byte.
    pub const fn overlaps(self, other: Range) -> bool {
        self.start < other.end && other.start < self.end
    }
    /// True if every byte of `other` lies in `self`.
    pub const fn contains(self, other: Range) -> bool {
        self.start <= other.start && other.end <= self.end
    }
    /// The bytes that lie in both; `None` if there are none.
    pub fn meet(self, other: Range) -> Option<Range> {
        let both = Range {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        };
        (!both.is_empty()).then_some(both)
    }
}

/// `mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to)`: one whole mapping moved, as it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where it lies.
    pub from: u32,
    /// Where it goes.
    pub to: u32,
    /// Bytes, a multiple of the page size.
    pub len: u32,
    /// Which object, for reports.
    pub object: u32,
}

/// One SysV attachment: `shmat(shmid, at, flags)`, then moves of its pieces, then unmaps of what it must not cover.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    /// Segment id in the IPC namespace of the task.
    pub shmid: i32,
    /// Where to attach: the base of the attachment, or a scratch address. A multiple of SHMLBA.
    pub at: u32,
    /// Bytes that the kernel maps there: the segment's size rounded up to pages.
    pub len: u32,
    /// `SHM_RDONLY`, `SHM_EXEC`, `SHM_REMAP`.
    pub flags: u32,
    /// First row in the table of pieces.
    pub piece: u32,
    /// Rows: VMAs to move out of a scratch attachment; 0 for a direct one.
    pub pieces: u32,
    /// First row in the table of holes.
    pub hole: u32,
    /// Rows: ranges of the attachment that are unmapped after the moves.
    pub holes: u32,
    /// Which object (the first VMA of the attachment), for reports.
    pub object: u32,
}

/// `shmctl(shmid, IPC_RMID)` after the last attach: the segment was marked for deletion in the checkpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remove {
    /// Segment id.
    pub shmid: i32,
    /// Which object, for reports.
    pub object: u32,
}

/// `mmap2(start, len, prot, flags, fd, page_offset)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Where: page-aligned, mapped with MAP_FIXED.
    pub start: u32,
    /// Bytes.
    pub len: u32,
    /// `PROT_*` while it is filled; the final rights come with a [`Protect`] if they differ.
    pub prot: u32,
    /// `MAP_*`, MAP_FIXED included.
    pub flags: u32,
    /// Descriptor in the restoring task, or -1.
    pub fd: i32,
    /// Which object (the first VMA that it covers), for reports.
    pub object: u32,
    /// File offset in pages. 64 bits up to the call, which takes 32: a plan refuses what does not fit.
    pub page_offset: u64,
}

/// `preadv(fd, &iovecs[first..first + count], count, offset)`: one run of a pages file into its places.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Byte offset in the file.
    pub offset: u64,
    /// Descriptor of the pages file.
    pub fd: i32,
    /// First row in the table of iovecs.
    pub first: u32,
    /// Rows, 1 to [`crate::IOV_MAX`].
    pub count: u32,
    /// Bytes: the sum of the rows' lengths.
    pub len: u32,
}

/// `struct iovec` of a 32-bit task (include/uapi/linux/uio.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iovec {
    /// Address.
    pub base: u32,
    /// Bytes.
    pub len: u32,
}

/// `mprotect(start, len, prot)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protect {
    /// Where.
    pub start: u32,
    /// Bytes.
    pub len: u32,
    /// `PROT_*`.
    pub prot: u32,
    /// Which VMA, for reports.
    pub object: u32,
}

/// `cacheflush(start, end, 0)`: the ARM private call that makes written code visible to instruction fetch.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
    /// Which VMA, for reports.
    pub object: u32,
}

/// `madvise(start, len, advice)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advise {
    /// Where.
    pub start: u32,
    /// Bytes.
    pub len: u32,
    /// `MADV_*` number.
    pub advice: u32,
    /// Which VMA, for reports.
    pub object: u32,
}

/// `mlock(start, len)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Where.
    pub start: u32,
    /// Bytes.
    pub len: u32,
    /// Which VMA, for reports.
    pub object: u32,
}

/// `setitimer(which, value)`: an interval timer with its remaining time (`struct itimerval`, 32-bit).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// 0 ITIMER_REAL, 1 ITIMER_VIRTUAL, 2 ITIMER_PROF.
    pub which: u32,
    /// `it_interval` seconds, microseconds, `it_value` seconds, microseconds.
    pub value: [u32; 4],
}

/// A POSIX timer: `timer_create(clock, event)` under its number, then `timer_settime(id, 0, value)`.
///
/// A kernel without `PR_TIMER_CREATE_RESTORE_IDS` counts its numbers up from 0 in a new process: those that `skip` names
/// are made and deleted first. That the number came is seen by arming: another one is EINVAL.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PosixTimer {
    /// Its number in the process (`timer_t`).
    pub id: u32,
    /// Numbers below it that no timer has, down to the timer before: 0 if the kernel takes the number from us.
    pub skip: u32,
    /// `CLOCK_*`, or a CPU clock's negative number.
    pub clock: u32,
    /// Reserved, zero.
    pub reserved: u32,
    /// `struct sigevent`, all 64 bytes that the kernel reads: value, signo, notify, tid, padding.
    pub event: [u32; 16],
    /// `struct itimerspec`: interval, then remaining time, all zero = not armed. With [`crate::want::TIME64`] seconds
    /// (two words, low first), nanoseconds, zero; else seconds, nanoseconds, in the first four words.
    pub value: [u32; 8],
}

/// A pending signal: `rt_sigqueueinfo` (shared) or `rt_tgsigqueueinfo` (private to the thread), sent to itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Signal number.
    pub signo: u32,
    /// 1 if private to the thread, 0 if it belongs to the process.
    pub private: u32,
    /// `siginfo_t`, ARM layout, 128 bytes.
    pub info: [u32; 32],
}

/// One call by which a thread becomes who it was: ids, groups, capabilities, privileges, filters. The plan decides which
/// calls, in which order, for the rights that the restoring process has.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cred {
    /// Which call, of [`crate::cred`].
    pub call: u32,
    /// r0 to r4. Addresses lie in the restore-args, behind the tables.
    pub args: [u32; 5],
    /// What the call must return; [`Cred::ANY`] = whatever is no error.
    pub expect: u32,
}

impl Cred {
    /// In [`Cred::expect`]: not looked at. `setfsuid32` tells of no error: a second call returns what the first one set.
    pub const ANY: u32 = u32::MAX;
}

/// The calls of a [`Cred`], by number.
pub mod cred {
    /// `setgroups32(count, list)`.
    pub const SETGROUPS: u32 = 0;
    /// `setresgid32(real, effective, saved)`.
    pub const SETRESGID: u32 = 1;
    /// `setresuid32(real, effective, saved)`.
    pub const SETRESUID: u32 = 2;
    /// `setfsgid32(id)`.
    pub const SETFSGID: u32 = 3;
    /// `setfsuid32(id)`.
    pub const SETFSUID: u32 = 4;
    /// `capset(header, data)`.
    pub const CAPSET: u32 = 5;
    /// `prctl(option, ...)`.
    pub const PRCTL: u32 = 6;
    /// `membarrier(command, 0)`.
    pub const MEMBARRIER: u32 = 7;
    /// `seccomp(operation, flags, program)`.
    pub const SECCOMP: u32 = 8;
    /// `fcntl64(fd, command, lock)`.
    pub const FCNTL64: u32 = 9;
}

/// `struct prctl_mm_map` as a 32-bit ARM kernel lays it out: exactly 104 bytes (include/uapi/linux/prctl.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct MmMap {
    /// Start of the text.
    pub start_code: u64,
    /// End of the text.
    pub end_code: u64,
    /// Start of the initialised data.
    pub start_data: u64,
    /// End of the initialised data.
    pub end_data: u64,
    /// Start of the heap.
    pub start_brk: u64,
    /// Current break.
    pub brk: u64,
    /// Bottom of the main stack.
    pub start_stack: u64,
    /// Start of the command line.
    pub arg_start: u64,
    /// End of the command line.
    pub arg_end: u64,
    /// Start of the environment.
    pub env_start: u64,
    /// End of the environment.
    pub env_end: u64,
    /// Address of the saved auxiliary vector (in the restore-args area).
    pub auxv: u32,
    /// Bytes of it.
    pub auxv_size: u32,
    /// Descriptor of the executable, or 0xffff_ffff.
    pub exe_fd: u32,
    /// The kernel's tail padding, zero.
    pub pad: u32,
}

/// `struct clone_args` of Linux 5.5 (include/uapi/linux/sched.h): `clone3` with `set_tid`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CloneArgs {
    /// `CLONE_*`.
    pub flags: u64,
    /// Not used: pidfd, child_tid, parent_tid, exit_signal.
    pub unused: [u64; 4],
    /// Lowest byte of the stack.
    pub stack: u64,
    /// Bytes of it.
    pub stack_size: u64,
    /// Not used: tls.
    pub tls: u64,
    /// Address of the wanted id.
    pub set_tid: u64,
    /// Ids there: 1.
    pub set_tid_size: u64,
}

macro_rules! plain {
    ($($name:ident = $size:literal),* $(,)?) => {$(
        // SAFETY: repr(C) of fixed-width integers; the assertion below shows that the fields fill the size.
        unsafe impl Plain for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}
plain!(
    Range = 8,
    Move = 16,
    Attach = 36,
    Remove = 8,
    Map = 32,
    Batch = 24,
    Iovec = 8,
    Protect = 16,
    Flush = 12,
    Advise = 16,
    Lock = 12,
    Timer = 20,
    PosixTimer = 112,
    Queued = 136,
    Cred = 28,
    MmMap = 104,
    CloneArgs = 80,
);
// SAFETY: integers without padding.
unsafe impl Plain for u32 {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet_in_the_bytes_of_both() {
        let r = |start, end| Range { start, end };
        let rows = [
            (r(2, 6), r(4, 9), Some(r(4, 6))),
            (r(2, 9), r(4, 6), Some(r(4, 6))),
            (r(2, 6), r(2, 6), Some(r(2, 6))),
            // Side by side, apart, and empty ones.
            (r(2, 4), r(4, 6), None),
            (r(2, 3), r(4, 6), None),
            (r(4, 4), r(2, 6), None),
            (r(5, 3), r(2, 6), None),
            (
                r(0, u32::MAX),
                r(u32::MAX - 1, u32::MAX),
                Some(r(u32::MAX - 1, u32::MAX)),
            ),
        ];
        for (a, b, both) in rows {
            assert_eq!(a.meet(b), both, "{a:?} {b:?}");
            assert_eq!(b.meet(a), both, "{b:?} {a:?}");
            let whole = !a.is_empty() && !b.is_empty();
            assert!(!whole || a.overlaps(b) == both.is_some(), "{a:?} {b:?}");
        }
    }
}
