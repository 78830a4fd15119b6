//! Unix sockets: what a message says of one, what waits in them, and who belongs to whom.

use std::collections::BTreeMap;

use super::at::{At, need};
use super::files::owner;
use super::source::Source;
use crate::checkpoint::File;
use crate::container::Reader;
use crate::error::{Error, Fault};
use crate::sockets::{Packet, Socket, SocketKind, SocketName, SocketOptions, SocketState};
use crate::{magic, proto};

/// Bytes of `sun_path`.
const MAX_NAME: usize = 108;
/// Larger than any socket buffer (`net.core.wmem_max` is an int).
const MAX_BUFFER: u32 = i32::MAX as u32;
/// Descriptors that one message can carry (SCM_MAX_FD).
const MAX_RIGHTS: usize = 253;
const SCM_RIGHTS: u32 = 1;

/// What the dumper writes for the other end of a connection that leaves the checkpoint (`--external unix[INODE]`): no socket
/// of any task, "listening" datagrams.
pub(super) fn outside(e: &proto::UnixSk) -> bool {
    const EXTERN: u32 = 1;
    (e.uflags, e.state, e.kind, e.peer) == (Some(EXTERN), Some(10), Some(2), Some(0))
}

pub(super) fn socket(at: &At, e: proto::UnixSk) -> Result<Socket, Error> {
    let kind = need!(at, e.kind);
    let kind = match kind {
        1 => SocketKind::Stream,
        2 => SocketKind::Datagram,
        5 => SocketKind::Packet,
        _ => return Err(at.bad("type", kind, "no type of a unix socket")),
    };
    let state = need!(at, e.state);
    let state = match state {
        1 => SocketState::Connected,
        7 => SocketState::Closed,
        10 => SocketState::Listening,
        _ => return Err(at.bad("state", state, "no state of a unix socket")),
    };
    let (ino, peer) = (need!(at, e.ino), need!(at, e.peer));
    if ino == 0 {
        return Err(at.bad("ino", ino, "no number of a socket"));
    }
    if state == SocketState::Listening && (kind == SocketKind::Datagram || peer != 0) {
        return Err(at.bad("state", 10u32, "listens, and cannot"));
    }
    let backlog = need!(at, e.backlog);
    let shutdown = e.shutdown.unwrap_or(0);
    if shutdown > 3 {
        return Err(at.unknown("shutdown", shutdown));
    }
    let perms = match &e.file_perms {
        None => None,
        Some(p) => {
            let at = at.sub("file_perms");
            let mode = need!(at, p.mode);
            if mode & 0o170_000 != 0o140_000 || mode & !0o177_777 != 0 {
                return Err(at.bad("mode", mode, "not that of a socket"));
            }
            Some((mode, need!(at, p.uid), need!(at, p.gid)))
        }
    };
    Ok(Socket {
        ino,
        kind,
        state,
        flags: need!(at, e.flags),
        special: need!(at, e.uflags),
        backlog,
        peer,
        owner: owner(at, e.fown)?,
        name: name(
            at,
            at.req("name", e.name)?,
            e.name_dir,
            e.deleted == Some(true),
        )?,
        perms,
        shutdown,
        options: options(&at.sub("opts"), &at.req("opts", e.opts)?)?,
    })
}

fn name(
    at: &At,
    bytes: Vec<u8>,
    dir: Option<Vec<u8>>,
    deleted: bool,
) -> Result<Option<SocketName>, Error> {
    if bytes.len() > MAX_NAME {
        let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let expected = "at most 108";
        return Err(at.err("name", Fault::BadCount { expected, found }));
    }
    match bytes.split_first() {
        None => return Ok(None),
        Some((0, rest)) => return Ok(Some(SocketName::Abstract(rest.to_vec()))),
        Some(_) => {}
    }
    // The NUL that ends a path may have been counted.
    let end = bytes.iter().rposition(|b| *b != 0).map_or(0, |n| n + 1);
    let given = at.text("name", bytes[..end].to_vec(), MAX_NAME)?;
    let wrong = |text: String, why| Err(at.err("name", Fault::BadText { text, why }));
    if given.ends_with('/') {
        return wrong(given, "names a directory");
    }
    if given.starts_with('/') {
        return Ok(Some(SocketName::Path {
            given,
            dir: None,
            deleted,
        }));
    }
    let dir = at.text("name_dir", at.req("name_dir", dir)?, 4095)?;
    if !dir.starts_with('/') {
        return wrong(dir, "is relative to no absolute directory");
    }
    Ok(Some(SocketName::Path {
        given,
        dir: Some(dir),
        deleted,
    }))
}

fn options(at: &At, o: &proto::SkOpts) -> Result<SocketOptions, Error> {
    let buffer = |field: &str, size: Option<u32>| {
        let size = at.req(field, size)?;
        if size > MAX_BUFFER {
            return Err(at.bad(field, size, "more than any buffer has"));
        }
        Ok(size)
    };
    let time = |s: &str, sec: Option<u64>, us: &str, usec: Option<u64>| {
        let (sec, usec) = (at.req(s, sec)?, at.req(us, usec)?);
        let small = |n: u64, most: u64| u32::try_from(n).ok().filter(|_| n < most);
        match (small(sec, 1 << 31), small(usec, 1_000_000)) {
            (Some(sec), Some(usec)) => Ok((sec, usec)),
            (None, _) => Err(at.bad(s, sec, "longer than anybody waits")),
            _ => Err(at.bad(us, usec, "a second or more")),
        }
    };
    let mut values = Vec::new();
    let flags = [
        (2, o.reuseaddr),
        (5, o.so_dontroute),
        (6, o.so_broadcast),
        (9, o.so_keepalive),
        (11, o.so_no_check),
        (15, o.so_reuseport),
        (16, o.so_passcred),
        (34, o.so_passsec),
    ];
    let flags = flags
        .iter()
        .filter_map(|(n, v)| Some((*n, u32::from((*v)?))));
    values.extend(flags);
    let numbers = [
        ("so_oobinline", 10, o.so_oobinline),
        ("so_priority", 12, o.so_priority),
        ("so_rcvlowat", 18, o.so_rcvlowat),
        ("so_mark", 36, o.so_mark),
        ("so_buf_lock", 72, o.so_buf_lock),
    ];
    for (field, number, value) in numbers {
        let Some(value) = value else { continue };
        if number != 36 && value > i32::MAX.cast_unsigned() {
            return Err(at.bad(field, value, "negative"));
        }
        values.push((number, value));
    }
    if let Some(lock) = o.so_buf_lock.filter(|l| *l > 3) {
        return Err(at.unknown("so_buf_lock", lock));
    }
    let device = match o.so_bound_dev.clone().filter(|d| !d.is_empty()) {
        Some(d) => Some(at.text("so_bound_dev", d, 15)?),
        None => None,
    };
    Ok(SocketOptions {
        send_buffer: buffer("so_sndbuf", o.so_sndbuf)?,
        receive_buffer: buffer("so_rcvbuf", o.so_rcvbuf)?,
        send_timeout: time(
            "so_snd_tmo_sec",
            o.so_snd_tmo_sec,
            "so_snd_tmo_usec",
            o.so_snd_tmo_usec,
        )?,
        receive_timeout: time(
            "so_rcv_tmo_sec",
            o.so_rcv_tmo_sec,
            "so_rcv_tmo_usec",
            o.so_rcv_tmo_usec,
        )?,
        values,
        linger: o.so_linger,
        device,
        filter: o.so_filter.len(),
    })
}

/// Reads `sk-queues.img`.
pub(super) fn packets(
    source: &mut Source<'_>,
    files: &BTreeMap<u32, File>,
) -> Result<BTreeMap<u32, Vec<Packet>>, Error> {
    let name = "sk-queues.img";
    let mut all: BTreeMap<u32, Vec<Packet>> = BTreeMap::new();
    let Some(bytes) = source.image(name)? else {
        return Ok(all);
    };
    let file = At::file(name);
    let mut reader = Reader::open(name, &bytes, magic::SK_QUEUES)?;
    while let Some(e) = reader.entry_or_end::<proto::SkPacket>()? {
        let at = file.entry(reader.entry().unwrap_or_default());
        let (socket, len) = (need!(at, e.id_for), need!(at, e.length));
        let packet = Packet {
            rights: rights(&at, &e, files)?,
            sender: match &e.ucred {
                None => None,
                Some(u) => {
                    let at = at.sub("ucred");
                    Some((need!(at, u.pid), need!(at, u.uid), need!(at, u.gid)))
                }
            },
            bytes: reader.bytes(u64::from(len))?.to_vec(),
        };
        let kind = match files.get(&socket) {
            Some(File::Socket(s)) if s.state != SocketState::Listening => s.kind,
            // Queues of other kinds of sockets belong to what the plan refuses.
            Some(File::Other { .. }) => SocketKind::Datagram,
            _ => return Err(at.dangling("id_for", "socket that can hold data", socket)),
        };
        if len == 0 && kind == SocketKind::Stream {
            return Err(at.bad("length", len, "nothing in a stream"));
        }
        all.entry(socket).or_default().push(packet);
    }
    Ok(all)
}

fn rights(at: &At, e: &proto::SkPacket, files: &BTreeMap<u32, File>) -> Result<Vec<u32>, Error> {
    let mut rights = Vec::new();
    for (n, scm) in e.scm.iter().enumerate() {
        let at = at.index("scm", n);
        let kind = at.req("type", scm.kind)?;
        if kind != SCM_RIGHTS {
            return Err(at.bad("type", kind, "no kind of ancillary data"));
        }
        rights.extend(&scm.rights);
        if let Some(gone) = scm.rights.iter().find(|id| !files.contains_key(id)) {
            return Err(at.dangling("rights", "file", *gone));
        }
    }
    if rights.len() > MAX_RIGHTS {
        let found = u64::try_from(rights.len()).unwrap_or(u64::MAX);
        let expected = "at most 253";
        return Err(at.err("scm", Fault::BadCount { expected, found }));
    }
    Ok(rights)
}

/// Numbers are unique; a stream's peer is a stream of the same type that has it as its own peer, or listens; what waits
/// to be read is of somebody who can have got it.
pub(super) fn check(
    files: &BTreeMap<u32, File>,
    packets: &BTreeMap<u32, Vec<Packet>>,
) -> Result<(), Error> {
    let at = At::file("files.img");
    let mut all: BTreeMap<u32, &Socket> = BTreeMap::new();
    let sockets = files.iter().filter_map(|(id, f)| match f {
        File::Socket(s) => Some((id, &**s)),
        _ => None,
    });
    for (_, s) in sockets.clone() {
        if all.insert(s.ino, s).is_some() {
            return Err(at.twice("socket", s.ino));
        }
    }
    for (id, s) in sockets {
        let waits = packets.contains_key(id);
        if s.peer == 0 {
            if waits && s.kind != SocketKind::Datagram && s.state == SocketState::Closed {
                return Err(at.dangling("usk.peer", "sender of what waits", *id));
            }
            continue;
        }
        // A peer that is not there lies outside of the checkpoint: the plan's business.
        let Some(peer) = all.get(&s.peer) else {
            continue;
        };
        let fits = peer.kind == s.kind
            && match s.kind {
                SocketKind::Datagram => true,
                _ if peer.state == SocketState::Listening => !waits,
                _ => peer.peer == s.ino && s.ino != s.peer,
            };
        if !fits || s.state == SocketState::Listening {
            return Err(at.dangling("usk.peer", "socket that has it as its peer", s.peer));
        }
    }
    circle(&at, &all)
}

/// Connecting a datagram socket to one that is connected elsewhere fails, so no circle of three can have come about.
fn circle(at: &At, all: &BTreeMap<u32, &Socket>) -> Result<(), Error> {
    // By number: the first socket of the chain in which it was met. Every socket is met once.
    let mut seen: BTreeMap<u32, u32> = BTreeMap::new();
    for s in all.values().filter(|s| s.kind == SocketKind::Datagram) {
        let mut now = *s;
        while let Some(peer) = all.get(&now.peer) {
            // A pair, or connected to itself: that is where a chain may end.
            if peer.peer == now.ino {
                break;
            }
            match seen.insert(now.ino, s.ino) {
                None => now = peer,
                Some(first) if first == s.ino => {
                    return Err(at.dangling("usk.peer", "end of a chain of sockets", s.ino));
                }
                // The rest of the way has been gone.
                Some(_) => break,
            }
        }
    }
    Ok(())
}
