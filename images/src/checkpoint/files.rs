//! Descriptors and open file descriptions.

use crate::kinds::{Epoll, Eventfd, FifoEnd, Inotify, PipeEnd, Remap, Signalfd, Timerfd};
use crate::sockets::Socket;
use crate::terminals::TerminalFile;

/// A descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fd {
    /// Number.
    pub fd: u32,
    /// FD_CLOEXEC.
    pub cloexec: bool,
    /// File id.
    pub file: u32,
}

/// Owner of a descriptor's signals (F_SETOWN, F_SETSIG); all zero = none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields of the image, by their names there")]
pub struct FileOwner {
    pub uid: u32,
    pub euid: u32,
    pub signum: u32,
    pub pid_type: u32,
    pub pid: u32,
}

/// One open file description, or a file that only mappings, exe, cwd or root name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum File {
    /// Regular file, directory or character device, by path.
    Reg(RegFile),
    /// An open memfd.
    Memfd {
        /// Inode id.
        inode: u32,
        /// Open flags.
        flags: u32,
        /// Position.
        pos: u64,
        /// Owner.
        owner: FileOwner,
    },
    /// One end of a pipe.
    Pipe(PipeEnd),
    /// An open FIFO.
    Fifo(FifoEnd),
    /// An event counter.
    Eventfd(Eventfd),
    /// An epoll set.
    Epoll(Epoll),
    /// A signal descriptor.
    Signalfd(Signalfd),
    /// A timer descriptor.
    Timerfd(Timerfd),
    /// A set of inotify watches.
    Inotify(Inotify),
    /// A unix socket.
    Socket(Box<Socket>),
    /// An open terminal.
    Terminal(TerminalFile),
    /// Any other kind, by its CRIU name ("INETSK", ...): refused.
    Other {
        /// Name.
        kind: &'static str,
    },
}

/// A file known by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegFile {
    /// Absolute path without NUL.
    pub path: String,
    /// Open flags with ARM numbers.
    pub flags: u32,
    /// Position; `None` = not seekable.
    pub pos: Option<u64>,
    /// Owner.
    pub owner: FileOwner,
    /// Bytes at the dump (regular files).
    pub size: Option<u64>,
    /// st_mode at the dump.
    pub mode: Option<u32>,
    /// ELF build id.
    pub build_id: Vec<u8>,
    /// What a remap entry says of a name that is gone.
    pub remap: Option<Remap>,
    /// Externally supplied (`--external`).
    pub external: bool,
    /// Mount id, -1 = none.
    pub mnt_id: i32,
}
