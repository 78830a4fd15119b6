//! Unix sockets and terminals: an order in which a kernel makes them as they were, or a refusal by name.

mod common;

use armrest_images::{
    Checkpoint, File, FileOwner, Modes, Packet, Socket, SocketKind, SocketName, SocketOptions,
    SocketState, Terminal, TerminalFile, TerminalKind,
};
use armrest_plan::files::{Act, FilesPlan};
use armrest_plan::sockets::{Sender, Step};
use armrest_plan::terminals::{Control, Opening};
use armrest_plan::{Machine, Options, plan};
use common::*;

fn socket(ino: u32, kind: SocketKind, state: SocketState, peer: u32) -> Socket {
    Socket {
        ino,
        kind,
        state,
        flags: 2,
        special: 0,
        backlog: 5,
        peer,
        owner: FileOwner::default(),
        name: None,
        perms: None,
        shutdown: 0,
        options: SocketOptions::default(),
    }
}

fn named(s: Socket, path: &str, deleted: bool) -> Socket {
    let name = SocketName::Path {
        given: path.into(),
        dir: None,
        deleted,
    };
    Socket {
        name: Some(name),
        ..s
    }
}

/// These at descriptors 3 and up.
fn with(files: Vec<File>) -> Checkpoint {
    with_fds((3..).map(|fd| [fd]).zip(files))
}

fn sockets(all: Vec<Socket>) -> Checkpoint {
    with(all.into_iter().map(|s| File::Socket(Box::new(s))).collect())
}

fn holds(cp: &mut Checkpoint, file: u32, rights: Vec<u32>) {
    let packet = Packet {
        bytes: b"words".to_vec(),
        rights,
        sender: None,
    };
    cp.packets.entry(file).or_default().push(packet);
}

#[track_caller]
fn planned(cp: &Checkpoint, o: &Options) -> FilesPlan {
    plan(cp, &Machine::generic(), o)
        .unwrap_or_else(|r| panic!("{r:?}"))
        .files
        .as_ref()
        .clone()
}

fn steps(cp: &Checkpoint) -> Vec<Step> {
    let all = planned(cp, &options()).sockets;
    let settle = |s: &Step| !matches!(s, Step::Settle { .. });
    assert_eq!(
        all.iter().filter(|s| !settle(s)).count(),
        cp.files
            .values()
            .filter(|f| matches!(f, File::Socket(_)))
            .count()
    );
    all.into_iter().filter(settle).collect()
}

#[track_caller]
fn refused(cp: &Checkpoint, machine: &Machine, o: &Options, words: &str) {
    let r = plan(cp, machine, o).map(|_| ()).expect_err(words);
    assert!(r.0.iter().any(|r| r.what.contains(words)), "{words}: {r:?}");
}

use SocketKind::{Datagram, Stream};
use SocketState::{Closed, Connected, Listening};

#[test]
fn pairs_are_made_as_pairs_and_filled_by_the_other_end() {
    let mut cp = sockets(vec![
        socket(1, Stream, Connected, 2),
        socket(2, Stream, Connected, 1),
        socket(3, Stream, Connected, 0),
        socket(4, Datagram, Connected, 0),
        socket(5, Stream, Closed, 0),
    ]);
    holds(&mut cp, 101, vec![]);
    holds(&mut cp, 103, vec![]);
    assert_eq!(
        steps(&cp),
        [
            Step::Pair {
                file: 100,
                other: Some(101)
            },
            Step::Pair {
                file: 102,
                other: None
            },
            Step::Pair {
                file: 103,
                other: None
            },
            Step::Single { file: 104 },
            Step::Fill {
                file: 101,
                by: Sender::Peer(100)
            },
            Step::Fill {
                file: 102,
                by: Sender::Gone
            },
            Step::Fill {
                file: 103,
                by: Sender::Gone
            },
        ]
    );
}

#[test]
fn connections_go_through_who_listens_and_the_accepted_come_first() {
    let path = "/run/x";
    let cp = sockets(vec![
        socket(1, Stream, Connected, 4),
        named(socket(2, Stream, Connected, 3), path, false),
        socket(3, Stream, Connected, 2),
        named(socket(4, Stream, Listening, 0), path, false),
        socket(5, Stream, Connected, 4),
    ]);
    assert_eq!(
        steps(&cp),
        [
            Step::Single { file: 100 },
            Step::Single { file: 102 },
            Step::Single { file: 103 },
            Step::Single { file: 104 },
            Step::Bind {
                file: 103,
                hidden: false
            },
            Step::Listen { file: 103, room: 5 },
            Step::Connect {
                file: 102,
                to: 103,
                accepted: Some(101)
            },
            Step::Connect {
                file: 100,
                to: 103,
                accepted: None
            },
            Step::Connect {
                file: 104,
                to: 103,
                accepted: None
            },
        ]
    );
    let p = plan(&cp, &Machine::generic(), &options()).expect("planned");
    assert_eq!(p.files.acts, [(0, Act::Listen { fd: 6, backlog: 5 })]);
    assert!(
        p.notes.iter().any(|n| n.contains("in which order waiting")),
        "{:?}",
        p.notes
    );
    assert!(
        p.notes.iter().any(|n| n.contains("SO_PEERCRED")),
        "{:?}",
        p.notes
    );
}

#[test]
fn a_name_is_had_once_and_what_is_gone_is_bound_out_of_sight() {
    let cp = sockets(vec![
        named(socket(1, Stream, Connected, 0), "/run/x", false),
        named(socket(2, Stream, Connected, 0), "/run/x", false),
        named(socket(3, Datagram, Closed, 0), "/run/y", true),
    ]);
    let binds: Vec<(u32, bool)> = steps(&cp)
        .iter()
        .filter_map(|s| match s {
            Step::Bind { file, hidden } => Some((*file, *hidden)),
            _ => None,
        })
        .collect();
    assert_eq!(binds, [(102, true), (100, false), (101, true)]);
    let m = Machine {
        cap_eff: !(1 << 21),
        ..Machine::generic()
    };
    refused(&cp, &m, &options(), "where nobody sees it");
    let up = sockets(vec![named(
        socket(3, Datagram, Closed, 0),
        "/run/../y",
        true,
    )]);
    refused(&up, &Machine::generic(), &options(), "went upwards");
    let same = |ino| Socket {
        name: Some(SocketName::Abstract(b"n".to_vec())),
        ..socket(ino, Stream, Connected, 0)
    };
    let cp = sockets(vec![same(1), same(2)]);
    refused(
        &cp,
        &Machine::generic(),
        &options(),
        "the same abstract name",
    );
}

#[test]
fn datagram_sockets_are_filled_before_they_are_connected_and_connected_before_their_peers() {
    // 1 to 2, 2 to 3, 3 to itself.
    let mut cp = sockets(vec![
        named(socket(2, Datagram, Connected, 3), "/run/2", false),
        named(socket(1, Datagram, Connected, 2), "/run/1", false),
        named(socket(3, Datagram, Connected, 3), "/run/3", false),
    ]);
    holds(&mut cp, 100, vec![]);
    let all = steps(&cp);
    assert_eq!(
        all[6..],
        [
            Step::Fill {
                file: 100,
                by: Sender::Named(102)
            },
            Step::Join { file: 101, to: 100 },
            Step::Join { file: 100, to: 102 },
            Step::Join { file: 102, to: 102 },
        ]
    );
    let cp = sockets(vec![
        socket(1, Datagram, Connected, 2),
        socket(2, Datagram, Closed, 0),
    ]);
    refused(&cp, &Machine::generic(), &options(), "which has no name");
    let mut cp = sockets(vec![named(socket(1, Datagram, Closed, 0), "/run/1", false)]);
    holds(&mut cp, 100, vec![]);
    assert_eq!(
        steps(&cp).last(),
        Some(&Step::Fill {
            file: 100,
            by: Sender::Stranger
        })
    );
}

/// CRIU records an absolute name as it was given to bind, by a task in a jail too.
#[test]
fn an_absolute_name_of_a_task_in_a_jail_may_lie_anywhere() {
    let jail = |deleted| {
        let mut cp = sockets(vec![named(socket(1, Stream, Listening, 0), "/s", deleted)]);
        let File::Reg(mut root) = cp.files[&6].clone() else {
            panic!()
        };
        root.path = "/jail".into();
        cp.files.insert(7, File::Reg(root));
        cp.tasks[0].live.as_mut().unwrap().root = 7;
        cp
    };
    let words = "bound to /s, held by a task with a root of its own";
    refused(&jail(false), &Machine::generic(), &options(), words);
    planned(&jail(true), &options());
}

#[test]
fn what_lies_outside_is_refused_or_given() {
    let cp = sockets(vec![socket(1, Stream, Connected, 77)]);
    let m = Machine::generic();
    refused(
        &cp,
        &m,
        &options(),
        "connected to socket 77, which is not in the checkpoint",
    );
    let given = |ids: &[&str]| Options {
        inherit: ids.iter().map(|s| (*s).to_owned()).collect(),
        ..options()
    };
    for id in ["socket:[1]", "socket[1]", "unix[1]"] {
        let p = planned(&cp, &given(&[id]));
        assert_eq!((p.inherited.len(), p.sockets.len()), (1, 0), "{id}");
    }
    let cp = sockets(vec![
        socket(1, Stream, Connected, 2),
        socket(2, Stream, Connected, 1),
    ]);
    refused(&cp, &m, &given(&["socket:[1]"]), "which is inherited");
    let options_of = |o| Socket {
        options: o,
        ..socket(1, Stream, Closed, 0)
    };
    let device = options_of(SocketOptions {
        device: Some("eth0".into()),
        ..SocketOptions::default()
    });
    refused(
        &sockets(vec![device]),
        &m,
        &options(),
        "bound to device eth0",
    );
    let filter = options_of(SocketOptions {
        filter: 1,
        ..SocketOptions::default()
    });
    refused(&sockets(vec![filter]), &m, &options(), "SO_ATTACH_FILTER");
    let special = Socket {
        special: 1,
        ..socket(1, Stream, Closed, 0)
    };
    refused(
        &sockets(vec![special]),
        &m,
        &options(),
        "external to the checkpoint",
    );
}

#[test]
fn what_is_in_flight_is_made_too() {
    let mut cp = sockets(vec![
        socket(1, Stream, Connected, 2),
        socket(2, Stream, Connected, 1),
    ]);
    cp.files
        .insert(200, File::Socket(Box::new(socket(3, Stream, Closed, 0))));
    holds(&mut cp, 100, vec![200, 101]);
    let p = planned(&cp, &options());
    let flying = p.makes.iter().find(|m| m.file == 200).expect("made");
    assert_eq!(flying.at, []);
    cp.files
        .insert(200, File::Socket(Box::new(socket(3, Stream, Listening, 0))));
    refused(&cp, &Machine::generic(), &options(), "in flight: ");
    let other = File::Other { kind: "INETSK" };
    cp.files.insert(200, other);
    refused(
        &cp,
        &Machine::generic(),
        &options(),
        "in flight: an internet socket",
    );
}

fn terminal(kind: TerminalKind, sid: u32, pgrp: u32) -> Terminal {
    Terminal {
        kind,
        locked: false,
        exclusive: false,
        packet_mode: false,
        sid,
        pgrp,
        rdev: 0x8803,
        dev: Some(0x13),
        modes: Some(Modes {
            input: 1,
            output: 2,
            control: 0o275,
            local: 0,
            line: 0,
            chars: [0; 19],
        }),
        locked_modes: None,
        size: None,
        owner: None,
        input: vec![],
    }
}

/// A task with these terminals open, each with its own number.
fn terminals(all: Vec<Terminal>, sid: u32) -> Checkpoint {
    let open = |n| {
        File::Terminal(TerminalFile {
            terminal: n,
            flags: 2,
            owner: FileOwner::default(),
            reg: None,
        })
    };
    let mut cp = with((0..).take(all.len()).map(open).collect());
    cp.terminals = (0..).zip(all).collect();
    cp.tasks[0].sid = sid;
    cp.tasks[0].pgid = cp.tasks[0].pid;
    cp
}

use TerminalKind::{Controlling, Master, Serial, Slave};

#[test]
fn a_pseudo_terminal_with_both_ends_is_made_and_taken_by_its_session() {
    let all = vec![
        terminal(Slave(3), 136, 136),
        terminal(Master(3), 136, 136),
        terminal(Controlling, 136, 136),
        terminal(Serial, 0, 0),
    ];
    let p = planned(&terminals(all.clone(), 136), &options()).terminals;
    assert_eq!(
        (p.ptys.len(), p.ptys[0].index, p.ptys[0].slave),
        (1, 3, Some(0))
    );
    let from: Vec<Opening> = p.openings.values().copied().collect();
    assert_eq!(
        from,
        [
            Opening::Slave(0),
            Opening::Master(0),
            Opening::Controlling(0),
            Opening::Path
        ]
    );
    let control = Control {
        sid: 136,
        pty: 0,
        pgrp: 136,
    };
    assert_eq!((p.controls, p.caller), (vec![control], None));
    let other = vec![terminal(Slave(3), 9, 9), terminal(Master(3), 9, 9)];
    refused(
        &terminals(other, 136),
        &Machine::generic(),
        &options(),
        "controls session 9",
    );
    let twice = vec![terminal(Master(3), 0, 0), terminal(Master(3), 0, 0)];
    refused(
        &terminals(twice, 136),
        &Machine::generic(),
        &options(),
        "opened twice",
    );
    let mut line = all;
    line[1].modes.as_mut().unwrap().line = 3;
    refused(
        &terminals(line, 136),
        &Machine::generic(),
        &options(),
        "line discipline 3",
    );
}

#[test]
fn a_terminal_outside_is_the_callers_or_refused() {
    let all = vec![terminal(Slave(3), 9, 136), terminal(Controlling, 9, 136)];
    let cp = terminals(all.clone(), 9);
    refused(
        &cp,
        &Machine::generic(),
        &options(),
        "a terminal outside of the checkpoint",
    );
    let job = Options {
        shell_job: true,
        ..options()
    };
    let p = planned(&cp, &job).terminals;
    assert!(p.openings.values().all(|o| *o == Opening::Caller));
    let caller = p.caller.expect("the caller's");
    assert_eq!((caller.pgrp, caller.modes), (Some(136), all[0].modes));
    let behind = vec![terminal(Slave(3), 9, 9)];
    let caller = planned(&terminals(behind, 9), &job)
        .terminals
        .caller
        .expect("the caller's");
    assert_eq!(
        (caller.pgrp, caller.modes),
        (None, None),
        "it was in the background"
    );
    let leads = vec![terminal(Slave(3), 136, 136)];
    refused(
        &terminals(leads.clone(), 136),
        &Machine::generic(),
        &job,
        "its other end is outside",
    );
    let given = Options {
        inherit: vec!["tty[8803:13]".into()],
        ..options()
    };
    let p = planned(&terminals(leads, 136), &given);
    assert_eq!((p.inherited.len(), p.terminals.openings.len()), (1, 0));
}
