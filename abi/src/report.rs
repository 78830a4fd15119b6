//! What the blob says: one report when it fails, progress while it works.

use crate::Plain;

/// The steps of a restore in the order in which the blob takes them.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Before the first step.
    Start = 0,
    /// The arguments are checked.
    Verify = 1,
    /// Registrations of the old program are taken back: rseq, robust list, alternate stack, clear-tid address.
    Detach = 2,
    /// What the kernel cannot recreate is moved out of the way.
    Park = 3,
    /// The old address space goes.
    Unmap = 4,
    /// SysV segments are attached.
    Shm = 5,
    /// Every other VMA is mapped in its place.
    Map = 6,
    /// Contents are read into place.
    Fill = 7,
    /// Final protections, and the instruction cache.
    Protect = 8,
    /// Parked areas go to the checkpoint's addresses.
    Unpark = 9,
    /// madvise bits and mlock.
    Advise = 10,
    /// The mm fields of the kernel.
    Mm = 11,
    /// Threads, and what each thread registers: name, clear-tid address, TLS, robust list, rseq.
    Threads = 12,
    /// Pending signals.
    Signals = 13,
    /// Timers are armed.
    Timers = 14,
    /// Credentials: ids, groups, capabilities, dumpable, the parent-death signal.
    Creds = 15,
    /// Filters of system calls; the area goes, the task is entered.
    Enter = 16,
}

impl Step {
    /// The step with this number.
    pub const fn from_number(n: u32) -> Option<Step> {
        const ALL: [Step; 17] = [
            Step::Start,
            Step::Verify,
            Step::Detach,
            Step::Park,
            Step::Unmap,
            Step::Shm,
            Step::Map,
            Step::Fill,
            Step::Protect,
            Step::Unpark,
            Step::Advise,
            Step::Mm,
            Step::Threads,
            Step::Signals,
            Step::Timers,
            Step::Creds,
            Step::Enter,
        ];
        if (n as usize) < ALL.len() {
            Some(ALL[n as usize])
        } else {
            None
        }
    }
    /// Its number, as in [`Report::step`] and [`Progress::step`].
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// What kind of failure a [`Report`] tells.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// A system call returned an error: `result` is the negative errno.
    Errno = 1,
    /// A mapping call returned another address than asked for: `result` is that address.
    WrongAddress = 2,
    /// A pages file ended early: `preadv` returned 0.
    Truncated = 3,
    /// The restore arguments contradict themselves: `result` is the number of the check.
    BadArgs = 4,
    /// The heap's arena is used up: `result` is the size asked for.
    OutOfHeap = 5,
    /// The blob panicked. `result` is the line.
    Panic = 6,
    /// A new thread got another id than the checkpoint's: `result` is that id.
    WrongTid = 7,
    /// A call that returned no error returned another value than it had to: `result` is that value.
    WrongResult = 8,
}

impl ReportKind {
    /// The kind with this number.
    pub const fn from_number(n: u32) -> Option<ReportKind> {
        match n {
            1 => Some(ReportKind::Errno),
            2 => Some(ReportKind::WrongAddress),
            3 => Some(ReportKind::Truncated),
            4 => Some(ReportKind::BadArgs),
            5 => Some(ReportKind::OutOfHeap),
            6 => Some(ReportKind::Panic),
            7 => Some(ReportKind::WrongTid),
            8 => Some(ReportKind::WrongResult),
            _ => None,
        }
    }
}

/// The one record that a failing blob writes to the report descriptor before it exits with
/// [`Report::EXIT_CODE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// [`Report::MAGIC`].
    pub magic: u32,
    /// [`crate::ABI_VERSION`].
    pub version: u32,
    /// A [`ReportKind`].
    pub kind: u32,
    /// A [`Step`].
    pub step: u32,
    /// Index of the object in the plan's list, or [`Report::NO_OBJECT`].
    pub object: u32,
    /// Row in the step's own table.
    pub row: u32,
    /// Number (r7) of the system call made last: the one that failed if [`ReportKind`] says so; 0 if none was made.
    pub syscall: u32,
    /// r0 to r5 of that call.
    pub args: [u32; 6],
    /// What the call returned, or what [`ReportKind`] says.
    pub result: i32,
    /// Which thread (tid), or 0 for the leader.
    pub tid: u32,
    /// Of which task: the leader's `tid` in the arguments; 0 = they were not read yet.
    pub pid: u32,
}

impl Report {
    /// The bytes `ARMR`.
    pub const MAGIC: u32 = u32::from_le_bytes(*b"ARMR");
    /// `object` when the failure belongs to none.
    pub const NO_OBJECT: u32 = u32::MAX;
    /// Status with which a blob exits after a report (and, without a report, when even that could not be written).
    pub const EXIT_CODE: u32 = 112;

    /// The report in these bytes, if they are one of this version.
    pub fn from_bytes(bytes: &[u8]) -> Option<Report> {
        let mut words = [0u32; size_of::<Report>() / 4];
        let whole: &[u8; size_of::<Report>()] = bytes.try_into().ok()?;
        for (word, bytes) in words.iter_mut().zip(whole.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let [
            magic,
            version,
            kind,
            step,
            object,
            row,
            syscall,
            args @ ..,
            result,
            tid,
            pid,
        ] = words;
        (magic == Report::MAGIC && version == crate::ABI_VERSION).then_some(Report {
            magic,
            version,
            kind,
            step,
            object,
            row,
            syscall,
            args,
            result: result.cast_signed(),
            tid,
            pid,
        })
    }
}

/// The shared page through which the blob shows where it is. Written with plain stores, read by the harness.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The [`Step`] that runs.
    pub step: u32,
    /// Rows of its table that are done.
    pub row: u32,
    /// Bytes of page contents read so far.
    pub filled: u64,
}

/// Where the tasks of a tree wait for each other, twice. At the first time memory and threads are there; at the second
/// everything but the way out is done, and no task has run yet.
///
/// One word at this offset from the [`Progress`], in a page that all tasks of the tree share: how many times the gate is
/// open. The harness opens it for all by one compare and exchange, since a task may shut it ([`crate::want::SPIN`]); so a
/// death of the harness lets either all through or none. The blob waits by `FUTEX_WAIT`, shared between processes, or by
/// looking alone, and ends if nobody reads its reports and the gate is shut.
pub const GATE_OFFSET: u32 = 4096;
/// Behind the gate: a word that changes as long as somebody is there to open it.
pub const BEAT_OFFSET: u32 = GATE_OFFSET + 4;

/// Offset from the [`Progress`], in the same page, of the word in which the blob says how many times it has come to the gate.
pub const REACHED_OFFSET: u32 = 16;

const _: () = assert!(size_of::<Progress>() == REACHED_OFFSET as usize);
// SAFETY: repr(C), sixteen 32-bit fields, no padding (asserted below).
unsafe impl Plain for Report {}
// SAFETY: repr(C), 4 + 4 + 8 bytes, no padding (asserted below).
unsafe impl Plain for Progress {}
const _: () = assert!(size_of::<Report>() == 64);
const _: () = assert!(size_of::<Progress>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written_and_nothing_else_is_one() {
        let report = Report {
            magic: Report::MAGIC,
            version: crate::ABI_VERSION,
            kind: 1,
            step: 2,
            object: 3,
            row: 4,
            syscall: 5,
            args: [6, 7, 8, 9, 10, 11],
            result: -12,
            tid: 13,
            pid: 14,
        };
        let bytes = crate::bytes_of(&report);
        assert_eq!(Report::from_bytes(bytes), Some(report));
        assert_eq!(Report::from_bytes(&bytes[..63]), None);
        for word in [0, 4] {
            let mut other = [0; 64];
            other.copy_from_slice(bytes);
            other[word] ^= 1;
            assert_eq!(Report::from_bytes(&other), None);
        }
    }
}
