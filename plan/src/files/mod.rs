//! Descriptors: which open file descriptions are made, each once and in which order, who gets them, and what has to be
//! done where they lie at their numbers. What cannot be made is refused by name.
//!
//! A description is made in the harness, by file id, and placed into every table that holds it: so descriptors that
//! shared a position share it again, and others do not.

mod epoll;
mod inherited;
mod refuse;
mod words;

pub use epoll::EPOLL_HOW;
pub use inherited::Inherited;
pub(crate) use inherited::inherited;
pub use refuse::rights;
pub(crate) use refuse::{refuse, refuse_flights};
pub use words::{lock_words, name};

use std::collections::BTreeMap;

use armrest_images::{Checkpoint, File, FileLock, FileOwner, LiveTask, LockKind, SocketState};

use crate::late::{self, Late};
use crate::machine::Machine;
use crate::sockets;
use crate::terminals::{self, Terminals};
use crate::whole::Whole;
use epoll::filler;

/// What is made, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesPlan {
    /// Open file descriptions, each once.
    pub makes: Vec<Make>,
    /// Descriptions that the caller gives.
    pub inherited: Inherited,
    /// Locks that belong to a description: taken by whoever has it.
    pub locks: Vec<FileLock>,
    /// What each task does with its descriptors at their numbers, in order: index of the task, and the act.
    pub acts: Vec<(usize, Act)>,
    /// What the harness does when all tasks are ready, in order.
    pub late: Vec<Late>,
    /// How unix sockets are made, in order.
    pub sockets: Vec<sockets::Step>,
    /// Where terminals come from.
    pub terminals: Terminals,
    /// What comes back otherwise than it was, in sentences.
    pub notes: Vec<String>,
}

/// One description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Make {
    /// File id.
    pub file: u32,
    /// In the words of a person.
    pub name: String,
    /// Where it goes: index of the task, the first of those that share a table; descriptor number.
    pub at: Vec<(usize, u32)>,
}

/// What a task does with a descriptor that lies at its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// O_ASYNC: the kernel keeps the number of the descriptor, for the signal.
    Async {
        /// Descriptor.
        fd: u32,
    },
    /// Entries of an epoll set, under the numbers that they were added as.
    Epoll {
        /// The set.
        fd: u32,
        /// File id of the set.
        file: u32,
    },
    /// Listen once more: whoever connects sees the ids and the pid of who did so last (SO_PEERCRED).
    Listen {
        /// Descriptor.
        fd: u32,
        /// How many connections may wait.
        backlog: u32,
    },
    /// A lease.
    Lock(FileLock),
}

/// Owner and flags of any description.
pub fn facts(cp: &Checkpoint, file: &File) -> (u32, FileOwner) {
    match file {
        File::Reg(r) => (r.flags, r.owner),
        File::Memfd { flags, owner, .. } => (*flags, *owner),
        File::Pipe(p) => (p.flags, p.owner),
        File::Fifo(f) => match cp.files.get(&f.reg) {
            Some(File::Reg(r)) => (r.flags, r.owner),
            _ => (0, FileOwner::default()),
        },
        File::Eventfd(e) => (e.flags, e.owner),
        File::Epoll(e) => (e.flags, e.owner),
        File::Signalfd(s) => (s.flags, s.owner),
        File::Timerfd(t) => (t.flags, t.owner),
        File::Inotify(i) => (i.flags, i.owner),
        File::Socket(s) => (s.flags, s.owner),
        File::Terminal(t) => (t.flags, t.owner),
        File::Other { .. } => (0, FileOwner::default()),
    }
}

/// The root directory of the task, if it is not that of the machine.
pub fn chroot<'a>(cp: &'a Checkpoint, live: &LiveTask) -> Option<&'a str> {
    match cp.files.get(&live.root) {
        Some(File::Reg(f)) if f.path != "/" => Some(&f.path),
        _ => None,
    }
}

/// Decide what is made and done. The checkpoint was not refused.
pub(crate) fn plan(whole: &Whole<'_>) -> FilesPlan {
    let (cp, given) = (whole.cp, &whole.given);
    let mut at: BTreeMap<u32, &[(usize, u32)]> = BTreeMap::new();
    for (file, holders) in &whole.held.by_file {
        at.insert(*file, holders);
    }
    for file in sockets::in_flight(cp, given) {
        at.entry(file).or_default();
    }
    let mut out = FilesPlan {
        sockets: sockets::steps(cp, given),
        terminals: terminals::plan(cp, given, true, &mut Vec::new()),
        locks: cp
            .locks
            .iter()
            .filter(|l| matches!(l.kind, LockKind::Flock | LockKind::Ofd))
            .filter(|l| !given_at(whole, l))
            .copied()
            .collect(),
        inherited: given.clone(),
        ..FilesPlan::default()
    };
    for (file, at) in at {
        let mut name = name(cp, file);
        if given.contains_key(&file) {
            name.push_str(" (inherited)");
        }
        out.makes.push(Make {
            file,
            name,
            at: at.to_vec(),
        });
    }
    // Watches come last, so that making the rest is not what they see.
    out.makes.sort_by_key(|m| match cp.files.get(&m.file) {
        Some(File::Inotify(_)) => 2,
        Some(File::Epoll(_)) => 1,
        _ => 0,
    });
    acts(whole, &mut out);
    out.late = late::plan(cp, &out.makes, given);
    notes(cp, whole.machine, &mut out);
    out.notes.extend(sockets::notes(cp, given));
    out.notes.extend(terminals::notes(cp, &out.terminals));
    out
}

/// A lock of something that the caller gives is the caller's business.
pub(crate) fn given_at(whole: &Whole<'_>, l: &FileLock) -> bool {
    let task = whole.held.tasks.get(&l.pid);
    let live = task.and_then(|i| whole.cp.tasks[*i].live.as_ref());
    let fd = live.and_then(|live| live.fd(l.fd));
    fd.is_some_and(|f| whole.given.contains_key(&f.file))
}

/// Every description's own acts are done once, by the first task that has it; an epoll set is filled by one whose
/// numbers are its entries'.
fn acts(whole: &Whole<'_>, out: &mut FilesPlan) {
    let cp = whole.cp;
    const O_ASYNC: u32 = 0o20000;
    let (mut asyncs, mut sets, mut listens) = (vec![], vec![], vec![]);
    for m in &out.makes {
        let (Some(file), Some(&(task, fd))) = (cp.files.get(&m.file), m.at.first()) else {
            continue;
        };
        // What the caller gives stays as the caller has it.
        if out.inherited.contains_key(&m.file) {
            continue;
        }
        if facts(cp, file).0 & O_ASYNC != 0 {
            asyncs.push((task, Act::Async { fd }));
        }
        match file {
            File::Epoll(e) => {
                // Not refused, so there is one.
                let by = filler(whole, m.file, e).unwrap_or(task);
                let fd = m.at.iter().find(|a| a.0 == by).map_or(fd, |a| a.1);
                sets.push((by, Act::Epoll { fd, file: m.file }));
            }
            File::Socket(s) if s.state == SocketState::Listening => {
                let backlog = s.backlog;
                listens.push((task, Act::Listen { fd, backlog }));
            }
            _ => {}
        }
    }
    let ours = cp.locks.iter().filter(|l| !given_at(whole, l));
    let locks = ours.filter_map(|l| {
        let task = *whole.held.tasks.get(&l.pid)?;
        (l.kind == LockKind::Lease).then_some((task, Act::Lock(*l)))
    });
    // A lease makes the caller the owner of its signals if there is none: the recorded one is named later.
    out.acts = [locks.collect(), asyncs, listens, sets].concat();
}

fn notes(cp: &Checkpoint, machine: &Machine, out: &mut FilesPlan) {
    const O_DIRECT: u32 = 0o200_000;
    let mut note = |text: String| {
        if !out.notes.contains(&text) {
            out.notes.push(text);
        }
    };
    for m in &out.makes {
        let fd = m.at.first().map_or(0, |a| a.1);
        match cp.files.get(&m.file) {
            Some(File::Eventfd(_)) => note(
                "the images do not say whether an eventfd is a semaphore: it comes back as none"
                    .into(),
            ),
            Some(File::Pipe(p)) if p.flags & O_DIRECT != 0 => {
                let filled = cp.pipes.get(&p.pipe).is_some_and(|c| !c.bytes.is_empty());
                if filled {
                    note(format!(
                        "fd {fd}: what the pipe holds has lost its packet boundaries"
                    ));
                }
            }
            Some(File::Inotify(i)) if !i.watches.is_empty() => {
                note("events that inotify had queued are not in the images".into());
            }
            // One expiry comes back by letting the timer expire.
            Some(File::Timerfd(t))
                if !machine.has_timerfd_ticks
                    && (t.ticks > 1 || t.ticks == 1 && t.value != (0, 0)) =>
            {
                note(format!(
                    "fd {fd}: {} unread timer expiries cannot be set here",
                    t.ticks
                ));
            }
            Some(File::Epoll(e)) if e.targets.iter().any(|t| t.events & !EPOLL_HOW == 0) => {
                note(format!(
                    "fd {fd}: an epoll entry that was used up (EPOLLONESHOT) and is not ready now still tells of hang-ups"
                ));
            }
            _ => {}
        }
    }
}
