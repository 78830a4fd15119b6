//! Terminals.

use crate::checkpoint::FileOwner;

/// An open terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalFile {
    /// Which: key in [`crate::Checkpoint::terminals`].
    pub terminal: u32,
    /// Open flags.
    pub flags: u32,
    /// Owner.
    pub owner: FileOwner,
    /// File id of its path.
    pub reg: Option<u32>,
}

/// Kinds of terminals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalKind {
    /// The master end of a pseudo terminal, with its number.
    Master(u32),
    /// The other end.
    Slave(u32),
    /// `/dev/console`.
    Console,
    /// A virtual console.
    Virtual,
    /// `/dev/tty`: the controlling terminal of whoever opens it.
    Controlling,
    /// One that lies outside of the checkpoint (`--external`).
    External,
    /// A serial line.
    Serial,
}

/// A terminal, or one end of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Kind.
    pub kind: TerminalKind,
    /// TIOCSPTLCK.
    pub locked: bool,
    /// TIOCEXCL.
    pub exclusive: bool,
    /// TIOCPKT.
    pub packet_mode: bool,
    /// The session that it controls, 0 = none.
    pub sid: u32,
    /// Its foreground group.
    pub pgrp: u32,
    /// Device number, as the kernel encodes it.
    pub rdev: u32,
    /// Device number of the file system that it lies in, if recorded.
    pub dev: Option<u32>,
    /// Modes.
    pub modes: Option<Modes>,
    /// Bits of them that cannot be changed.
    pub locked_modes: Option<Modes>,
    /// Rows, columns, width and height in pixels.
    pub size: Option<[u16; 4]>,
    /// Owner and group of the device's name.
    pub owner: Option<(u32, u32)>,
    /// Unread input.
    pub input: Vec<u8>,
}

/// Modes of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of `struct termios`")]
pub struct Modes {
    pub input: u32,
    pub output: u32,
    pub control: u32,
    pub local: u32,
    pub line: u8,
    /// Special characters.
    pub chars: [u8; 19],
}
