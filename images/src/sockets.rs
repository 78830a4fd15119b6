//! Unix sockets and what waits to be read in them.

use crate::checkpoint::{File, FileOwner};

/// Types of unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SocketKind {
    /// SOCK_STREAM.
    Stream,
    /// SOCK_DGRAM.
    Datagram,
    /// SOCK_SEQPACKET.
    Packet,
}

/// What a socket is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// Connected, or once connected.
    Connected,
    /// Neither.
    Closed,
    /// Waits for connections.
    Listening,
}

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketName {
    /// A name that is no path, without the NUL before it.
    Abstract(Vec<u8>),
    /// A path, as it was given to bind.
    Path {
        /// As given.
        given: String,
        /// The directory that it begins at, if it is relative.
        dir: Option<String>,
        /// Nothing has that name any more.
        deleted: bool,
    },
}

impl SocketName {
    /// The absolute path, if it is one.
    pub fn path(&self) -> Option<String> {
        match self {
            SocketName::Abstract(_) => None,
            SocketName::Path { given, dir, .. } => Some(match dir {
                Some(dir) => format!("{}/{given}", dir.trim_end_matches('/')),
                None => given.clone(),
            }),
        }
    }
}

/// A unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its number: what `peer` of others means. Not 0.
    pub ino: u32,
    /// Type.
    pub kind: SocketKind,
    /// State.
    pub state: SocketState,
    /// Open flags.
    pub flags: u32,
    /// CRIU's own flags: external, inherited and so on.
    pub special: u32,
    /// How many connections may wait, if it listens.
    pub backlog: u32,
    /// Number of the socket that it is connected to; that of a listening one, if nobody has accepted it yet; 0 = none.
    pub peer: u32,
    /// Owner.
    pub owner: FileOwner,
    /// Where it is bound.
    pub name: Option<SocketName>,
    /// Mode, owner and group of the file of its path.
    pub perms: Option<(u32, u32, u32)>,
    /// 1 = no more to read, 2 = no more to write.
    pub shutdown: u32,
    /// Options.
    pub options: SocketOptions,
}

/// Socket options. `None`: not recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the option of that name (socket(7))")]
pub struct SocketOptions {
    pub send_buffer: u32,
    pub receive_buffer: u32,
    /// Seconds and microseconds.
    pub send_timeout: (u32, u32),
    pub receive_timeout: (u32, u32),
    /// Flags and numbers, by number of the option at SOL_SOCKET.
    pub values: Vec<(u32, u32)>,
    /// SO_LINGER in seconds, if on.
    pub linger: Option<u32>,
    /// SO_BINDTODEVICE.
    pub device: Option<String>,
    /// Instructions of a filter.
    pub filter: usize,
}

/// What one write put into a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Bytes.
    pub bytes: Vec<u8>,
    /// Descriptors in flight with it: file ids.
    pub rights: Vec<u32>,
    /// Who sent it, if recorded: pid, uid, gid.
    pub sender: Option<(u32, u32, u32)>,
}

impl crate::checkpoint::Checkpoint {
    /// The socket with this number, and its file id.
    pub fn socket(&self, ino: u32) -> Option<(u32, &Socket)> {
        self.files.iter().find_map(|(id, f)| match f {
            File::Socket(s) if s.ino == ino => Some((*id, &**s)),
            _ => None,
        })
    }
}
