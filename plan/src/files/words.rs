//! Descriptions, acts and locks in words.

use armrest_images::{Checkpoint, File, FileLock, LockKind, Remap};

use super::{Act, facts};
use crate::{sockets, terminals};

/// A description in words.
pub fn name(cp: &Checkpoint, id: u32) -> String {
    let end = |flags: u32| ["read end", "write end", "both ends", "?"][flags as usize & 3];
    match cp.files.get(&id) {
        Some(File::Reg(r)) => match r.remap {
            None => r.path.clone(),
            Some(Remap::Ghost(_)) => format!("{} (deleted)", r.path),
            Some(Remap::Linked(to)) => format!("{} (gone; {})", r.path, name(cp, to)),
            Some(Remap::Process(pid)) => format!("{} (of dead process {pid})", r.path),
        },
        Some(File::Memfd { inode, .. }) => {
            let name = cp.memfds.get(inode).map_or("?", |m| m.name.as_str());
            format!("memory file {name}")
        }
        Some(File::Pipe(p)) => format!("pipe {}, {}", p.pipe, end(p.flags)),
        Some(file @ File::Fifo(f)) => {
            format!("FIFO {}, {}", name(cp, f.reg), end(facts(cp, file).0))
        }
        Some(File::Eventfd(e)) => format!("event counter at {}", e.counter),
        Some(File::Epoll(e)) => format!("epoll set of {}", e.targets.len()),
        Some(File::Signalfd(s)) => format!("signal descriptor {:#x}", s.mask),
        Some(File::Timerfd(t)) => format!("timer descriptor of clock {}", t.clock),
        Some(File::Inotify(i)) => format!("inotify set of {}", i.watches.len()),
        Some(File::Socket(s)) => sockets::words(s),
        Some(File::Terminal(t)) => {
            let words = cp.terminals.get(&t.terminal).map(terminals::words);
            words.unwrap_or_else(|| "a terminal".into())
        }
        Some(File::Other { kind }) => unsupported(kind).to_owned(),
        None => format!("file {id}"),
    }
}

/// What a user calls a kind that is not restored.
pub(super) fn unsupported(kind: &str) -> &str {
    match kind {
        "INETSK" => "an internet socket (TCP or UDP)",
        "PACKETSK" => "a packet socket",
        "NETLINKSK" => "a netlink socket",
        "FANOTIFY" => "a fanotify group",
        "NS" => "a namespace",
        "TUNF" => "a tun or tap device",
        "EXT" => "a file of a CRIU plugin",
        "BPFMAP" => "a BPF map",
        "PIDFD" => "a process descriptor (pidfd)",
        other => other,
    }
}

impl Act {
    /// In the words of `armrest plan`.
    pub fn words(&self, cp: &Checkpoint) -> String {
        match self {
            Act::Async { fd } => format!("fd {fd}: signals when it is ready (O_ASYNC)"),
            Act::Epoll { fd, file } => {
                let n = match cp.files.get(file) {
                    Some(File::Epoll(e)) => e.targets.len(),
                    _ => 0,
                };
                format!("fd {fd}: {n} entries of the epoll set")
            }
            Act::Listen { fd, backlog } => {
                format!("fd {fd}: listen as this task, backlog {backlog}")
            }
            Act::Lock(l) => lock_words(l),
        }
    }
}

/// A lock in the words of `armrest plan`.
pub fn lock_words(l: &FileLock) -> String {
    let kind = match l.kind {
        LockKind::Posix => "record lock",
        LockKind::Flock => "flock",
        LockKind::Ofd => "record lock of the description",
        LockKind::Lease => "lease",
    };
    let how = if l.write { "exclusive" } else { "shared" };
    format!(
        "fd {}: {how} {kind}, {} bytes from {}",
        l.fd, l.len, l.start
    )
}
