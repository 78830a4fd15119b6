//! Open files that have no path of their own, what deleted files held, and locks on files.

use crate::checkpoint::{File, FileOwner};

/// One end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PipeEnd {
    /// Which pipe: ends with the same number belong together. Key in [`crate::Checkpoint::pipes`].
    pub pipe: u32,
    /// Open flags; the access mode says which end (a reopened one may be both).
    pub flags: u32,
    /// Owner.
    pub owner: FileOwner,
}

/// An open FIFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FifoEnd {
    /// Which FIFO, as for pipes. Key in [`crate::Checkpoint::fifos`].
    pub pipe: u32,
    /// File id of its path, flags and owner.
    pub reg: u32,
}

/// What was in a pipe or FIFO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipeContents {
    /// Capacity in bytes, if recorded.
    pub capacity: Option<u32>,
    /// Unread bytes.
    pub bytes: Vec<u8>,
}

/// An event counter. Whether it is a semaphore is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eventfd {
    /// Open flags.
    pub flags: u32,
    /// Owner.
    pub owner: FileOwner,
    /// Value, less than 2^64 - 1.
    pub counter: u64,
}

/// An epoll set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoll {
    /// Open flags.
    pub flags: u32,
    /// Owner.
    pub owner: FileOwner,
    /// What it watches.
    pub targets: Vec<EpollTarget>,
}

/// One entry of an epoll set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpollTarget {
    /// Descriptor number that it was added as.
    pub fd: u32,
    /// EPOLL* bits; a one-shot that has fired has none but its flags.
    pub events: u32,
    /// Data word.
    pub data: u64,
}

/// A descriptor that reads signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signalfd {
    /// Open flags.
    pub flags: u32,
    /// Owner.
    pub owner: FileOwner,
    /// Signals, bit n-1 = signal n.
    pub mask: u64,
}

/// A descriptor that reads timer expiries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timerfd {
    /// Open flags.
    pub flags: u32,
    /// Owner.
    pub owner: FileOwner,
    /// Clock.
    pub clock: u32,
    /// Unread expiries.
    pub ticks: u64,
    /// TFD_TIMER_ABSTIME 1, TFD_TIMER_CANCEL_ON_SET 2.
    pub settime: u32,
    /// Time until the next expiry, seconds and nanoseconds, also for absolute timers; zero with unread expiries of a
    /// periodic timer: it is armed, and goes on when it is read.
    pub value: (u64, u32),
    /// Period.
    pub interval: (u64, u32),
}

/// A set of inotify watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inotify {
    /// Open flags.
    pub flags: u32,
    /// Owner.
    pub owner: FileOwner,
    /// Watches, ascending by number.
    pub watches: Vec<Watch>,
}

/// One watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Number.
    pub wd: u32,
    /// IN_* bits.
    pub mask: u32,
    /// Inode at the dump.
    pub ino: u64,
    /// Path, if the dumper found one (`--force-irmap`).
    pub path: Option<String>,
    /// File handle: type and bytes.
    pub handle: Option<(u32, Vec<u8>)>,
}

/// What stands in for a name that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remap {
    /// The file was deleted: key in [`crate::Checkpoint::ghosts`].
    Ghost(u32),
    /// The file has another name: file id of a name that the dumper made (`link_remap.N`).
    Linked(u32),
    /// A file of a dead process in /proc.
    Process(u32),
}

/// A deleted file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ghost {
    /// Image that holds the contents.
    pub image: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// st_mode.
    pub mode: u32,
    /// Access and modification times: seconds and microseconds.
    pub times: Option<[(u64, u32); 2]>,
    /// Bytes of the file.
    pub size: u64,
    /// Contents: ascending, apart. What is not named is a hole.
    pub pieces: Vec<GhostPiece>,
}

/// Bytes of a deleted file in its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GhostPiece {
    /// Offset in the image.
    pub from: u64,
    /// Offset in the file.
    pub to: u64,
    /// Bytes, more than 0.
    pub len: u64,
}

/// Kinds of [`FileLock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Record lock of a process.
    Posix,
    /// flock.
    Flock,
    /// Record lock of an open file description.
    Ofd,
    /// Lease.
    Lease,
}

/// A lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLock {
    /// Kind.
    pub kind: LockKind,
    /// Exclusive.
    pub write: bool,
    /// The task that the dumper found it in.
    pub pid: u32,
    /// Its descriptor there.
    pub fd: u32,
    /// First byte.
    pub start: u64,
    /// Bytes, 0 = to the end.
    pub len: u64,
}

impl File {
    /// CRIU's name of the kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            File::Reg(_) => "REG",
            File::Memfd { .. } => "MEMFD",
            File::Pipe(_) => "PIPE",
            File::Fifo(_) => "FIFO",
            File::Eventfd(_) => "EVENTFD",
            File::Epoll(_) => "EVENTPOLL",
            File::Signalfd(_) => "SIGNALFD",
            File::Timerfd(_) => "TIMERFD",
            File::Inotify(_) => "INOTIFY",
            File::Socket(_) => "UNIXSK",
            File::Terminal(_) => "TTY",
            File::Other { kind } => kind,
        }
    }
}
