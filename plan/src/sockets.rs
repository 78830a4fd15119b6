//! Unix sockets: in which order they are made, bound, connected and filled, and what cannot come back.
//!
//! All are made by the harness, so that each is made once, whoever holds it. A pair is made as a pair; a connection to
//! a listening socket of the checkpoint is made through it, and accepted or left to wait; what waits to be read is sent
//! by the peer before anybody may connect elsewhere or shut anything down.

use std::collections::{BTreeMap, BTreeSet};

use armrest_images::{Checkpoint, File, Socket, SocketKind, SocketName, SocketState};

use crate::files::Inherited;
use crate::machine::Machine;
use crate::types::{Refusal, RefusalKind};
use crate::whole::lives;

/// One step. Sockets are file ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// One by itself.
    Single {
        /// It.
        file: u32,
    },
    /// Two that are connected.
    Pair {
        /// One.
        file: u32,
        /// The other; none: it was closed once, and is closed again when its words are sent.
        other: Option<u32>,
    },
    /// Give it its name.
    Bind {
        /// Which.
        file: u32,
        /// At a place that nobody sees: the name is gone, or another socket of the checkpoint has it.
        hidden: bool,
    },
    /// Let it wait for connections: these many will come, and wait.
    Listen {
        /// Which.
        file: u32,
        /// Connections that are made here, more than its own backlog perhaps.
        room: u32,
    },
    /// Connect to a listening one.
    Connect {
        /// Which.
        file: u32,
        /// To what.
        to: u32,
        /// What accepts it there; none: it waits.
        accepted: Option<u32>,
    },
    /// Put what waits to be read into it.
    Fill {
        /// Which.
        file: u32,
        /// Who sends.
        by: Sender,
    },
    /// Connect a datagram socket to one that is not connected to it.
    Join {
        /// Which.
        file: u32,
        /// To what.
        to: u32,
    },
    /// Options, the final backlog, shutdown, and the file that a name was needed for taken away.
    Settle {
        /// Which.
        file: u32,
    },
}

/// Who sends what waits in a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The socket that it is connected with, both ways.
    Peer(u32),
    /// The other end of a pair that is closed then.
    Gone,
    /// One that it alone is connected to, by its name.
    Named(u32),
    /// A socket without a name.
    Stranger,
}

/// All sockets that are made, by file id.
fn made<'a>(cp: &'a Checkpoint, given: &Inherited) -> BTreeMap<u32, &'a Socket> {
    let all = cp.files.iter().filter(|(id, _)| !given.contains_key(*id));
    all.filter_map(|(id, f)| match f {
        File::Socket(s) => Some((*id, &**s)),
        _ => None,
    })
    .collect()
}

/// All sockets by their number (the inode), the given ones too, with their file ids.
fn numbered(cp: &Checkpoint) -> BTreeMap<u32, (u32, &Socket)> {
    let all = cp.files.iter().filter_map(|(id, f)| match f {
        File::Socket(s) => Some((s.ino, (*id, &**s))),
        _ => None,
    });
    all.collect()
}

/// Files that are on their way through sockets, and are held by no descriptor otherwise perhaps.
pub fn in_flight(cp: &Checkpoint, given: &Inherited) -> BTreeSet<u32> {
    let all = cp.packets.iter().filter(|(id, _)| !given.contains_key(*id));
    all.flat_map(|(_, p)| p)
        .flat_map(|p| &p.rights)
        .copied()
        .collect()
}

/// What a socket is reached by, as bytes: an abstract name begins with a zero, a path does not.
fn address(s: &Socket) -> Option<Vec<u8>> {
    match s.name.as_ref()? {
        SocketName::Abstract(name) => Some([&[0], &name[..]].concat()),
        name => Some(name.path()?.into_bytes()),
    }
}

/// The order. The checkpoint was not refused.
pub fn steps(cp: &Checkpoint, given: &Inherited) -> Vec<Step> {
    let all = made(cp, given);
    let id_of: BTreeMap<u32, u32> = all.iter().map(|(id, s)| (s.ino, *id)).collect();
    let peer_of = |s: &Socket| {
        let id = *id_of.get(&s.peer)?;
        Some((id, *all.get(&id)?))
    };
    let listening = listening(&all);
    let mut out = Vec::new();
    let mut taken = BTreeSet::new();
    let (mut listens, mut connects, mut joins) = (Vec::new(), Vec::new(), Vec::new());
    let mut filled: BTreeMap<u32, Sender> = BTreeMap::new();
    let mut done = BTreeSet::new();
    // Made by accepting, and so named like the one that listens.
    let mut accepted = BTreeSet::new();
    for (id, s) in &all {
        if done.contains(id) {
            continue;
        }
        let peer = peer_of(s);
        let connected = s.kind != SocketKind::Datagram;
        match peer {
            Some((other, p)) if p.peer == s.ino && other != *id => {
                done.insert(other);
                filled.insert(*id, Sender::Peer(other));
                filled.insert(other, Sender::Peer(*id));
                let through = connected
                    .then(|| through(&listening, (*id, s), (other, p)))
                    .flatten();
                match through {
                    Some((listening, client, server)) => {
                        out.push(Step::Single { file: client });
                        accepted.insert(server);
                        connects.push(Step::Connect {
                            file: client,
                            to: listening,
                            accepted: Some(server),
                        });
                    }
                    None => out.push(Step::Pair {
                        file: *id,
                        other: Some(other),
                    }),
                }
            }
            Some((to, _)) => {
                out.push(Step::Single { file: *id });
                if connected {
                    connects.push(Step::Connect {
                        file: *id,
                        to,
                        accepted: None,
                    });
                } else {
                    joins.push((*id, to));
                    filled.insert(*id, Sender::Named(to));
                }
            }
            // A datagram socket without a name has got what it holds, and its state, from a pair.
            None if s.state == SocketState::Connected && (connected || s.name.is_none())
                || !connected && s.name.is_none() && cp.packets.contains_key(id) =>
            {
                out.push(Step::Pair {
                    file: *id,
                    other: None,
                });
                filled.insert(*id, Sender::Gone);
            }
            None => {
                out.push(Step::Single { file: *id });
                filled.insert(*id, Sender::Stranger);
            }
        }
        if s.state == SocketState::Listening {
            listens.push(*id);
        }
    }
    // Who listens, or may be written to by name, has the name; of others with the same one, the first.
    let mut named: Vec<(&u32, &&Socket)> = all.iter().filter(|(_, s)| s.name.is_some()).collect();
    named.retain(|(id, _)| !accepted.contains(*id));
    named.sort_by_key(|(id, s)| {
        (
            s.state != SocketState::Listening,
            s.kind != SocketKind::Datagram,
            **id,
        )
    });
    for (id, s) in named {
        let gone = matches!(s.name, Some(SocketName::Path { deleted: true, .. }));
        let hidden = gone || !taken.insert(address(s).unwrap_or_default());
        out.push(Step::Bind { file: *id, hidden });
    }
    let mut coming: BTreeMap<u32, u32> = BTreeMap::new();
    for c in &connects {
        if let Step::Connect { to, .. } = c {
            *coming.entry(*to).or_default() += 1;
        }
    }
    for file in listens {
        let come = coming.get(&file).copied().unwrap_or(0);
        let backlog = all.get(&file).map_or(0, |s| s.backlog);
        out.push(Step::Listen {
            file,
            room: come.max(backlog),
        });
    }
    // Connections that somebody accepts come first: what is left waits.
    let (now, later): (Vec<_>, Vec<_>) = connects.into_iter().partition(|c| {
        matches!(
            c,
            Step::Connect {
                accepted: Some(_),
                ..
            }
        )
    });
    out.extend(now.into_iter().chain(later));
    let holds = |id: &u32| cp.packets.get(id).is_some_and(|p| !p.is_empty());
    // An other end that is gone goes when its words are sent, and also if there are none.
    let fills = filled
        .into_iter()
        .filter(|(id, by)| holds(id) || *by == Sender::Gone);
    out.extend(fills.map(|(file, by)| Step::Fill { file, by }));
    out.extend(chains(joins));
    out.extend(all.keys().map(|id| Step::Settle { file: *id }));
    out
}

/// Sockets that listen, by type and address; of several with the same, the first.
fn listening(all: &BTreeMap<u32, &Socket>) -> BTreeMap<(SocketKind, Vec<u8>), u32> {
    let mut out = BTreeMap::new();
    for (id, s) in all
        .iter()
        .filter(|(_, s)| s.state == SocketState::Listening)
    {
        if let Some(address) = address(s) {
            out.entry((s.kind, address)).or_insert(*id);
        }
    }
    out
}

/// The listening socket that a pair of connected ones came about through: it, who connected, who was accepted.
fn through(
    listening: &BTreeMap<(SocketKind, Vec<u8>), u32>,
    (a, sa): (u32, &Socket),
    (b, sb): (u32, &Socket),
) -> Option<(u32, u32, u32)> {
    let (of_a, of_b) = (address(sa), address(sb));
    if of_a == of_b {
        return None;
    }
    // Who was accepted is named like the one that listened.
    let find = |address: Option<Vec<u8>>| listening.get(&(sa.kind, address?)).copied();
    let by_b = find(of_b).map(|l| (l, a, b));
    let by_a = find(of_a).map(|l| (l, b, a));
    by_a.into_iter().chain(by_b).min()
}

/// Who is connected to has to be so before it connects elsewhere. Otherwise in the order of `joins`.
fn chains(joins: Vec<(u32, u32)>) -> Vec<Step> {
    let place: BTreeMap<u32, usize> = joins.iter().map(|j| j.0).zip(0..).collect();
    // How many still have to join each one; itself apart.
    let mut awaited = vec![0usize; joins.len()];
    let others = joins.iter().filter(|(file, to)| file != to);
    for at in others.filter_map(|(_, to)| place.get(to)) {
        awaited[*at] += 1;
    }
    let mut left: BTreeSet<usize> = (0..joins.len()).collect();
    let mut free: BTreeSet<usize> = left.iter().copied().filter(|i| awaited[*i] == 0).collect();
    let mut out = Vec::new();
    // A circle has been refused; here one would be broken at its first.
    while let Some(next) = free.pop_first().or_else(|| left.first().copied()) {
        left.remove(&next);
        let (file, to) = joins[next];
        out.push(Step::Join { file, to });
        if let Some(at) = place.get(&to).filter(|at| left.contains(at)) {
            awaited[*at] -= 1;
            if awaited[*at] == 0 {
                free.insert(*at);
            }
        }
    }
    out
}

/// What cannot come back.
pub fn refuse(cp: &Checkpoint, given: &Inherited, machine: &Machine, out: &mut Vec<Refusal>) {
    let later = "this version does not restore it";
    let all = made(cp, given);
    let mut no = |kind, what: String, hint: &str| {
        out.push(Refusal {
            kind,
            what,
            hint: hint.to_owned(),
        });
    };
    let unsupported = RefusalKind::Unsupported;
    let numbered = numbered(cp);
    let jails = lives(cp)
        .map(|(_, l)| l)
        .filter(|l| crate::files::chroot(cp, l).is_some());
    let jailed: BTreeSet<u32> = jails.flat_map(|l| &l.fds).map(|f| f.file).collect();
    for (id, s) in &all {
        let who = crate::files::name(cp, *id);
        if s.special != 0 {
            let hint = "give it: --inherit-fd fd[N]:socket:[INODE]";
            no(
                unsupported,
                format!("{who}: external to the checkpoint"),
                hint,
            );
        }
        if let Some(d) = &s.options.device {
            no(unsupported, format!("{who}: bound to device {d}"), later);
        }
        if s.options.filter > 0 {
            no(
                unsupported,
                format!("{who}: a packet filter (SO_ATTACH_FILTER)"),
                later,
            );
        }
        if let Some(SocketName::Path {
            given,
            dir: None,
            deleted: false,
        }) = &s.name
            && jailed.contains(id)
        {
            no(
                unsupported,
                format!("{who}: bound to {given}, held by a task with a root of its own"),
                "the images do not say whether that name lies below that root or outside of it",
            );
        }
        if s.peer == 0 {
            continue;
        }
        match numbered.get(&s.peer) {
            None => no(
                unsupported,
                format!(
                    "{who}: connected to socket {}, which is not in the checkpoint",
                    s.peer
                ),
                &format!(
                    "checkpoint both processes, or give a connected one: --inherit-fd fd[N]:socket:[{}]",
                    s.ino
                ),
            ),
            Some((peer, _)) if given.contains_key(peer) => no(
                unsupported,
                format!("{who}: connected to socket {}, which is inherited", s.peer),
                "give both of them, or none",
            ),
            Some((_, p)) => {
                let one_way = s.kind == SocketKind::Datagram && p.peer != s.ino;
                if one_way && p.name.is_none() {
                    no(
                        unsupported,
                        format!("{who}: connected to socket {}, which has no name", s.peer),
                        "it was a pair, and the other end connected elsewhere",
                    );
                }
            }
        }
    }
    hidden(cp, given, machine, &mut no);
    flights(cp, given, &mut |what, hint| no(unsupported, what, hint));
}

type No<'a> = &'a mut dyn FnMut(RefusalKind, String, &str);

/// A name that is bound where nobody sees it: in a file system of its own, or not at all.
fn hidden(cp: &Checkpoint, given: &Inherited, machine: &Machine, no: No<'_>) {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    for step in steps(cp, given) {
        let Step::Bind { file, hidden: true } = step else {
            continue;
        };
        let Some(File::Socket(s)) = cp.files.get(&file) else {
            continue;
        };
        let who = crate::files::name(cp, file);
        match &s.name {
            Some(SocketName::Abstract(_)) => no(
                RefusalKind::Unsupported,
                format!("{who}: another socket has the same abstract name"),
                "nobody listens there any more: this version does not restore it",
            ),
            Some(SocketName::Path { given, .. }) if given.split('/').any(|c| c == "..") => no(
                RefusalKind::Unsupported,
                format!("{who}: its name is gone and went upwards ({given})"),
                "this version does not restore it",
            ),
            _ if machine.cap_eff & CAP_SYS_ADMIN == 0 => no(
                RefusalKind::Machine,
                format!("{who}: its name is gone, and cannot be made where nobody sees it"),
                "needs CAP_SYS_ADMIN",
            ),
            _ => {}
        }
    }
}

/// What is in flight alone is held by no number: what a task would do with it there cannot be done.
fn flights(cp: &Checkpoint, given: &Inherited, no: &mut dyn FnMut(String, &str)) {
    let held: BTreeSet<u32> = lives(cp)
        .flat_map(|(_, l)| &l.fds)
        .map(|f| f.file)
        .collect();
    for id in in_flight(cp, given) {
        let Some(file) = cp
            .files
            .get(&id)
            .filter(|_| !held.contains(&id) && !given.contains_key(&id))
        else {
            continue;
        };
        let who = format!("in flight: {}", crate::files::name(cp, id));
        const O_ASYNC: u32 = 0o20000;
        let acts = matches!(file, File::Epoll(_))
            || matches!(file, File::Socket(s) if s.state == SocketState::Listening)
            || crate::files::facts(cp, file).0 & O_ASYNC != 0;
        if acts {
            no(
                who,
                "it would have to be set up under a number that no task has",
            );
        }
    }
}

/// What comes back otherwise than it was.
pub fn notes(cp: &Checkpoint, given: &Inherited) -> Vec<String> {
    let all = made(cp, given);
    let mut out = Vec::new();
    let mut note = |text: String| {
        if !out.contains(&text) {
            out.push(text);
        }
    };
    const SO_PASSCRED: u32 = 16;
    let numbered = numbered(cp);
    let mut waiting: BTreeMap<u32, u32> = BTreeMap::new();
    for (id, s) in &all {
        if s.peer != 0 || s.state == SocketState::Connected {
            note("unix sockets that were connected: SO_PEERCRED names the pid of armrest (ids are the task's)".into());
        }
        let packets = cp.packets.get(id).map_or(&[][..], |p| p);
        if s.kind == SocketKind::Datagram && s.peer == 0 && s.name.is_some() && !packets.is_empty()
        {
            note(
                "the images do not say from which address a waiting datagram came: it has none"
                    .into(),
            );
        }
        let credentials = s.options.values.contains(&(SO_PASSCRED, 1));
        if !packets.is_empty() && (credentials || packets.iter().any(|p| p.sender.is_some())) {
            note("who sent what waits in a socket (SCM_CREDENTIALS) is not kept: pid 0".into());
        }
        if numbered
            .get(&s.peer)
            .is_some_and(|(_, p)| p.state == SocketState::Listening)
        {
            *waiting.entry(s.peer).or_default() += 1;
        }
    }
    if waiting.values().any(|n| *n > 1) {
        note("the images do not say in which order waiting connections came".into());
    }
    out
}

/// A socket in words.
pub fn words(s: &Socket) -> String {
    let kind = match s.kind {
        SocketKind::Stream => "stream",
        SocketKind::Datagram => "datagram",
        SocketKind::Packet => "seqpacket",
    };
    let name = match &s.name {
        None => String::new(),
        Some(SocketName::Abstract(n)) => format!(" @{}", String::from_utf8_lossy(n)),
        Some(n) => format!(" {}", n.path().unwrap_or_default()),
    };
    let how = match (s.state, s.peer) {
        (SocketState::Listening, _) => format!(", listens, backlog {}", s.backlog),
        (_, 0) => String::new(),
        (_, peer) => format!(", to {peer}"),
    };
    format!("unix {kind} socket {}{name}{how}", s.ino)
}
