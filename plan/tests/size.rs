//! Images may claim very much of anything: what is decided about n of a thing takes about n times as long as about one.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use armrest_images::{
    Checkpoint, Epoll, EpollTarget, Eventfd, File, FileLock, FileOwner, LockKind, Socket,
    SocketKind, SocketName, SocketOptions, SocketState, Task, TaskState, Terminal, TerminalFile,
    TerminalKind,
};
use armrest_plan::sockets::Step;
use armrest_plan::tree::tree;
use armrest_plan::{Machine, plan, terminals};
use common::*;

/// Processor time that this thread has had.
fn spent() -> Duration {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel that counts");
    let first = text.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(first.expect("a number"))
}

/// Four times as many take less than nine times as long; if each looked at all others it would be sixteen.
#[track_caller]
fn grows(make: impl Fn(usize) -> usize) {
    let took = |n| {
        let before = spent();
        assert!(make(n) >= n, "not all were decided");
        spent() - before
    };
    // As many as take long enough for the kernel's clock.
    let mut few = 64;
    while took(few) < Duration::from_millis(20) {
        few *= 2;
    }
    // Whatever else the machine does adds to a time: the least is the nearest.
    let least = |n| (0..3).map(|_| took(n)).min().unwrap_or_default();
    let (one, four) = (least(few), least(4 * few));
    assert!(
        four < 9 * one,
        "{few}: {one:?}, four times as many: {four:?}"
    );
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("few")
}

fn socket(ino: usize, kind: SocketKind, state: SocketState, peer: usize, name: usize) -> File {
    File::Socket(Box::new(Socket {
        ino: number(ino),
        kind,
        state,
        flags: 2,
        special: 0,
        backlog: 5,
        peer: number(peer),
        owner: FileOwner::default(),
        name: Some(SocketName::Abstract(name.to_string().into())),
        perms: None,
        shutdown: 0,
        options: SocketOptions::default(),
    }))
}

/// These at descriptors 3 and up.
fn with(files: impl IntoIterator<Item = File>) -> Checkpoint {
    with_fds((3..).map(|fd| [fd]).zip(files))
}

fn steps(cp: &Checkpoint) -> Vec<Step> {
    let p = plan(cp, &Machine::generic(), &options());
    p.unwrap_or_else(|r| panic!("{r:?}")).files.sockets.clone()
}

/// A chain of datagram sockets, each connected to the one after it: the last of them connects first.
#[test]
fn chains_of_sockets() {
    grows(|n| {
        let chain = (1..=n).map(|i| {
            let (kind, state) = (SocketKind::Datagram, SocketState::Connected);
            socket(i, kind, state, if i == n { 0 } else { i + 1 }, i)
        });
        let steps = steps(&with(chain));
        let joins = steps.iter().filter(|s| matches!(s, Step::Join { .. }));
        joins.count() + 1
    });
}

/// Sockets that listen, each with a connection that it accepted.
#[test]
fn accepted_connections() {
    use SocketState::{Connected, Listening};
    grows(|n| {
        let kind = SocketKind::Stream;
        let all = (1..=n).flat_map(|i| {
            let i = 3 * i;
            [
                socket(i, kind, Listening, 0, i),
                socket(i + 1, kind, Connected, i + 2, i),
                socket(i + 2, kind, Connected, i + 1, i + 2),
            ]
        });
        let steps = steps(&with(all));
        let accepted = |s: &&Step| {
            matches!(
                s,
                Step::Connect {
                    accepted: Some(_),
                    ..
                }
            )
        };
        steps.iter().filter(accepted).count()
    });
}

/// Pseudo terminals with both ends open.
#[test]
fn pseudo_terminals() {
    let end = |terminal| {
        File::Terminal(TerminalFile {
            terminal,
            flags: 2,
            owner: FileOwner::default(),
            reg: None,
        })
    };
    let terminal = |kind| Terminal {
        kind,
        locked: false,
        exclusive: false,
        packet_mode: false,
        sid: 0,
        pgrp: 0,
        rdev: 0,
        dev: None,
        modes: None,
        locked_modes: None,
        size: None,
        owner: None,
        input: Vec::new(),
    };
    grows(|n| {
        let n = number(n);
        let mut cp = with((0..2 * n).map(end));
        for i in 0..n {
            cp.terminals.insert(i, terminal(TerminalKind::Master(i)));
            cp.terminals.insert(n + i, terminal(TerminalKind::Slave(i)));
        }
        let mut refused = Vec::new();
        let t = terminals::plan(&cp, &BTreeMap::new(), false, &mut refused);
        assert!(refused.is_empty(), "{refused:?}");
        t.openings.len() / 2
    });
}

/// Locks of descriptors of the same task.
#[test]
fn locks_of_a_task() {
    grows(|n| {
        let mut cp = with((0..n).map(|_| reg("/file")));
        let locks = cp.tasks[0]
            .live
            .iter()
            .flat_map(|l| &l.fds)
            .map(|f| FileLock {
                kind: LockKind::Flock,
                write: false,
                pid: cp.tasks[0].pid,
                fd: f.fd,
                start: 0,
                len: 0,
            });
        cp.locks = locks.collect();
        let p = plan(&cp, &Machine::generic(), &options());
        p.unwrap_or_else(|r| panic!("{r:?}")).files.locks.len()
    });
}

/// An epoll set that all tasks hold, and that was given the same number again and again.
#[test]
fn an_epoll_set_of_many() {
    grows(|n| {
        let entry = EpollTarget {
            fd: 4,
            events: 1,
            data: 0,
        };
        let set = Epoll {
            flags: 2,
            owner: FileOwner::default(),
            targets: vec![entry; n],
        };
        let event = Eventfd {
            flags: 2,
            owner: FileOwner::default(),
            counter: 0,
        };
        let mut cp = with([File::Epoll(set), File::Eventfd(event)]);
        let first = cp.tasks[0].clone();
        cp.tasks.extend((1..).take(n).map(|i| {
            let mut t = first.clone();
            t.pid += i;
            let live = t.live.as_mut().expect("alive");
            live.files_id += i;
            live.mm.vmas.clear();
            t
        }));
        let p = plan(&cp, &Machine::generic(), &options());
        let acts = p.unwrap_or_else(|r| panic!("{r:?}")).files.acts.len();
        assert_eq!(acts, 1);
        n
    });
}

fn task(pid: usize, ppid: usize, sid: usize) -> Task {
    Task {
        pid: number(pid),
        ppid: number(ppid),
        pgid: number(sid),
        sid: number(sid),
        state: TaskState::Alive,
        comm: String::new(),
        live: None,
    }
}

/// Children that lead sessions.
#[test]
fn sessions_of_a_tree() {
    grows(|n| {
        let mut all = vec![task(10, 0, 10)];
        all.extend((11..11 + n).map(|pid| task(pid, 10, pid)));
        tree(&all).expect("a tree").nodes.len()
    });
}

/// Children of the root in the session of another child's child: each needs a maker that is gone, and a number for it.
/// The highest numbers are taken.
#[test]
fn makers_that_are_gone() {
    grows(|n| {
        let top = 4_000_000 - n;
        let mut all = vec![task(10, 0, 10), task(11, 10, 10), task(12, 11, 12)];
        all.extend((top + 1..=top + n).map(|pid| task(pid, 10, 12)));
        tree(&all).expect("a tree").nodes.len()
    });
}
