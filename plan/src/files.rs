//! Descriptors: which open file descriptions are made, each once and in which order, who gets them, and what has to be
//! done where they lie at their numbers. What cannot be made is refused by name.
//!
//! A description is made in the harness, by file id, and placed into every table that holds it: so descriptors that
//! shared a position share it again, and others do not.

use std::collections::{BTreeMap, BTreeSet};

use armrest_images::{
    Checkpoint, Epoll, File, FileLock, FileOwner, LiveTask, LockKind, Remap, SocketState, VmaKind,
};

use crate::consts;
use crate::late::{self, Late};
use crate::machine::Machine;
use crate::sockets;
use crate::terminals::{self, Terminals};
use crate::types::{Refusal, RefusalKind};
use crate::whole::{Held, Whole};

/// Event bits of an epoll entry that say how, not what: EXCLUSIVE, WAKEUP, ONESHOT, ET.
pub const EPOLL_HOW: u32 = 0xf000_0000;
/// Watches are numbered by making and removing others: so many are made at most.
const MAX_WATCH: u32 = 1 << 20;
const S_IFMT: u32 = 0o170_000;

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
fn unsupported(kind: &str) -> &str {
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

/// Descriptions that the caller gives: file id, and which of its gifts.
pub type Inherited = BTreeMap<u32, usize>;

/// Which descriptions these ids mean (`--inherit-fd`): `pipe[N]`, a path, or `file[MOUNT:INODE]` for what was external
/// at the dump. Ids that mean nothing are refused.
pub(crate) fn inherited(
    cp: &Checkpoint,
    held: &Held<'_>,
    ids: &[String],
    out: &mut Vec<Refusal>,
) -> Inherited {
    let mut all = Inherited::new();
    for (gift, id) in ids.iter().enumerate() {
        let before = all.len();
        for (file, f) in &cp.files {
            if means(cp, f, id) && !held.holders(*file).is_empty() {
                all.insert(*file, gift);
            }
        }
        if all.len() == before {
            out.push(Refusal {
                kind: RefusalKind::Unsupported,
                what: format!("--inherit-fd {id}: no descriptor of the checkpoint is that"),
                hint: "pipe[N], socket:[N], tty[RDEV:DEV], a path, or file[MOUNT:INODE]: armrest plan lists the descriptors".into(),
            });
        }
    }
    all
}

fn means(cp: &Checkpoint, file: &File, id: &str) -> bool {
    match file {
        File::Socket(s) => {
            let forms = ["socket:[", "socket[", "unix["];
            forms.iter().any(|f| id == format!("{f}{}]", s.ino))
        }
        // Both numbers in hexadecimal, as criu writes them.
        File::Terminal(t) => cp.terminals.get(&t.terminal).is_some_and(|t| {
            t.dev
                .is_some_and(|dev| id == format!("tty[{:x}:{dev:x}]", t.rdev))
        }),
        File::Pipe(p) => id == format!("pipe[{}]", p.pipe) || id == format!("pipe:[{}]", p.pipe),
        // criu writes paths without the first slash.
        File::Reg(r) => r.path.trim_start_matches('/') == id.trim_start_matches('/'),
        _ => false,
    }
}

/// Collects refusals.
type No<'a> = &'a mut dyn FnMut(String, &str);

/// What of a task's descriptors and fs state cannot be restored.
pub(crate) fn refuse(whole: &Whole<'_>, index: usize, live: &LiveTask, out: &mut Vec<Refusal>) {
    let cp = whole.cp;
    let no: No<'_> = &mut |what, hint| out.push(unsupported_yet(what, hint));
    let ours = live
        .fds
        .iter()
        .filter(|f| !whole.given.contains_key(&f.file));
    for fd in ours {
        let who = format!("fd {}", fd.fd);
        let Some(file) = cp.files.get(&fd.file) else {
            let hint = "the images are damaged";
            no(
                format!("{who}: file {} is not in the checkpoint", fd.file),
                hint,
            );
            continue;
        };
        one(cp, &who, file, no);
        // What a description is or has is looked at once, with who holds it first.
        if whole.held.holders(fd.file).first() != Some(&(index, fd.fd)) {
            continue;
        }
        if let File::Epoll(e) = file
            && let Err((what, hint)) = filler(whole, fd.file, e)
        {
            no(format!("{who}: {what}"), hint);
        }
        owned(whole, &who, facts(cp, file).1, no);
        if whole.options.any_pid {
            owned_by_thread(whole, &who, facts(cp, file).1, no);
        }
    }
    for (who, id) in [
        ("working directory", live.cwd),
        ("root directory", live.root),
    ] {
        if let Some(File::Reg(f)) = cp.files.get(&id) {
            by_path(cp, who, f, no);
        }
    }
    by_id(cp, "executable", live.mm.exe, no);
    let mut seen = BTreeSet::new();
    for v in &live.mm.vmas {
        match v.kind {
            VmaKind::File { file } if seen.insert(file) => by_id(cp, "mapping", file, no),
            VmaKind::Memfd { file, inode } if seen.insert(file) => {
                memfd(cp, "mapping", inode, no);
            }
            _ => {}
        }
    }
    locks(whole, cp.tasks[index].pid, live, no);
}

/// What is in flight, and held by no descriptor.
pub(crate) fn refuse_flights(whole: &Whole<'_>, out: &mut Vec<Refusal>) {
    let cp = whole.cp;
    let no: No<'_> = &mut |what, hint| out.push(unsupported_yet(what, hint));
    for id in sockets::in_flight(cp, &whole.given) {
        let ours = whole.held.holders(id).is_empty() && !whole.given.contains_key(&id);
        let Some(file) = cp.files.get(&id).filter(|_| ours) else {
            continue;
        };
        match file {
            File::Epoll(e) => {
                if let Err((what, hint)) = filler(whole, id, e) {
                    no(format!("in flight: {what}"), hint);
                }
            }
            _ => {
                one(cp, "in flight", file, no);
                owned(whole, "in flight", facts(cp, file).1, no);
            }
        }
    }
}

fn unsupported_yet(what: String, hint: &str) -> Refusal {
    Refusal {
        kind: RefusalKind::Unsupported,
        what,
        hint: hint.into(),
    }
}

fn by_id(cp: &Checkpoint, who: &str, id: u32, no: No<'_>) {
    if let Some(File::Reg(f)) = cp.files.get(&id) {
        by_path(cp, who, f, no);
    }
}

fn by_path(cp: &Checkpoint, who: &str, f: &armrest_images::RegFile, no: No<'_>) {
    let later = "this version does not restore it";
    if f.external {
        no(
            format!("{who}: {} is external to the checkpoint", f.path),
            "give it: --inherit-fd fd[N]:ID",
        );
    }
    match f.remap {
        Some(Remap::Process(pid)) => no(
            format!(
                "{who}: {} of a process {pid} that was dead at the dump",
                f.path
            ),
            later,
        ),
        Some(Remap::Ghost(id)) => {
            let mode = cp.ghosts.get(&id).map_or(0, |g| g.mode & S_IFMT);
            if !matches!(mode, 0o100_000 | 0o040_000 | 0o010_000) {
                no(
                    format!(
                        "{who}: {} was deleted, and is no file, directory or FIFO",
                        f.path
                    ),
                    later,
                );
            }
        }
        _ => {}
    }
}

fn one(cp: &Checkpoint, who: &str, file: &File, no: No<'_>) {
    let later = "this version does not restore it";
    match file {
        File::Reg(f) => {
            by_path(cp, who, f, no);
            let kind = f.mode.map_or(0o100_000, |m| m & S_IFMT);
            if !matches!(kind, 0o100_000 | 0o020_000 | 0o040_000) && f.flags & consts::O_PATH == 0 {
                let what = format!(
                    "{who}: {} is a device or socket of a kind of its own",
                    f.path
                );
                no(what, later);
            }
        }
        File::Fifo(f) => by_id(cp, who, f.reg, no),
        File::Memfd { inode, .. } => memfd(cp, who, *inode, no),
        File::Inotify(i) => {
            if let Some(w) = i.watches.last().filter(|w| w.wd > MAX_WATCH) {
                no(
                    format!("{who}: inotify watch number {}", w.wd),
                    "too many to count up to",
                );
            }
            for w in i
                .watches
                .iter()
                .filter(|w| w.path.is_none() && w.handle.is_none())
            {
                no(
                    format!("{who}: inotify watch {} of an unknown file", w.wd),
                    "dump with --force-irmap",
                );
            }
        }
        File::Other { kind } => no(format!("{who}: {}", unsupported(kind)), later),
        _ => {}
    }
}

/// Seals that kernels have: SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE, EXEC.
const SEALS: u32 = 0x3f;

fn memfd(cp: &Checkpoint, who: &str, inode: u32, no: No<'_>) {
    let later = "this version does not restore it";
    let Some(m) = cp.memfds.get(&inode) else {
        return;
    };
    if m.hugetlb != 0 {
        no(format!("{who}: memory file {}: huge pages", m.name), later);
    }
    if m.seals & !SEALS != 0 {
        no(
            format!("{who}: memory file {}: seals {:#x}", m.name, m.seals),
            later,
        );
    }
}

/// Signals go to tasks and groups of the checkpoint, or to nobody.
fn owned(whole: &Whole<'_>, who: &str, owner: FileOwner, no: No<'_>) {
    let held = &whole.held;
    let there = match owner.pid_type {
        2 => held.groups.contains(&owner.pid),
        0 => held.threads.contains(&owner.pid),
        _ => held.tasks.contains_key(&owner.pid),
    };
    if owner.pid != 0 && !there {
        let kind = ["thread", "process", "process group"];
        let kind = kind.get(owner.pid_type as usize).copied().unwrap_or("?");
        no(
            format!(
                "{who}: its signals went to {kind} {}, which is not in the checkpoint (F_SETOWN)",
                owner.pid
            ),
            "this version does not restore it",
        );
    }
}

/// Threads get other ids with another pid, and nobody knows which.
fn owned_by_thread(whole: &Whole<'_>, who: &str, owner: FileOwner, no: No<'_>) {
    let leader = whole.held.tasks.contains_key(&owner.pid);
    if owner.pid != 0 && owner.pid_type == 0 && !leader {
        no(
            format!("{who}: its signals went to thread {} (F_SETOWN)", owner.pid),
            "with --any-pid it has another id",
        );
    }
}

/// Which task fills an epoll set: its numbers must mean in that task's table what they meant when they were added.
///
/// The images hold the numbers alone. So all tasks that have the set and descriptors of all these numbers must agree on
/// what they are; the first is taken.
fn filler(whole: &Whole<'_>, set: u32, e: &Epoll) -> Result<usize, (String, &'static str)> {
    let cp = whole.cp;
    // Sorted by number.
    let at = |l: &LiveTask, fd: u32| {
        let at = l.fds.binary_search_by_key(&fd, |f| f.fd);
        at.ok().map(|i| l.fds[i].file)
    };
    let holders = || {
        let mut tasks: Vec<usize> = whole.held.holders(set).iter().map(|h| h.0).collect();
        tasks.dedup();
        tasks
            .into_iter()
            .filter_map(|i| Some((i, cp.tasks[i].live.as_ref()?)))
    };
    let mut tables = holders().filter_map(|(i, l)| {
        let files: Option<Vec<u32>> = e.targets.iter().map(|t| at(l, t.fd)).collect();
        Some((i, files?))
    });
    if let Some((first, files)) = tables.next() {
        return match tables.find(|(_, other)| *other != files) {
            None => Ok(first),
            Some((other, _)) => Err((
                format!(
                    "its epoll set is shared, and its numbers are other files in pid {} than in pid {}",
                    cp.tasks[other].pid, cp.tasks[first].pid
                ),
                "the images do not say which of them are watched",
            )),
        };
    }
    let closed = holders().find_map(|(_, l)| e.targets.iter().find(|t| at(l, t.fd).is_none()));
    match (closed, e.targets.first()) {
        (Some(t), _) => Err((
            format!("its epoll set watches descriptor {}, which is closed", t.fd),
            "a duplicate of it is watched under a number that is gone",
        )),
        (None, Some(_)) => Err((
            "an epoll set that no task holds, with entries".into(),
            "nobody has the numbers that it watches",
        )),
        (None, None) => Ok(0),
    }
}

/// Locks are on files. And a write lease wants nobody else to have the file open, which a mapping has of its own.
fn locks(whole: &Whole<'_>, pid: u32, live: &LiveTask, no: No<'_>) {
    let Some(locks) = whole.held.locks.get(&pid) else {
        return;
    };
    let cp = whole.cp;
    let path = |id: u32| match cp.files.get(&id) {
        Some(File::Reg(f)) => Some(f.path.as_str()),
        _ => None,
    };
    let mapped = |live: &LiveTask| {
        let files = live.mm.vmas.iter().filter_map(|v| match v.kind {
            VmaKind::File { file } => Some(file),
            _ => None,
        });
        let all = files.chain([live.mm.exe]);
        all.filter_map(path).collect::<BTreeSet<_>>()
    };
    // Whoever has the same table closes descriptors in it too, at a time of its own.
    let others = crate::whole::lives(cp)
        .map(|(_, l)| l)
        .filter(|l| l.files_id == live.files_id && !std::ptr::eq(*l, live));
    let others: BTreeSet<&str> = others.flat_map(mapped).collect();
    let mapped = mapped(live);
    for l in locks {
        let file = live
            .fds
            .iter()
            .find(|f| f.fd == l.fd)
            .and_then(|f| path(f.file));
        let Some(file) = file else {
            no(
                format!("fd {}: a lock on something that is no file", l.fd),
                "the images are damaged",
            );
            continue;
        };
        if l.kind == LockKind::Lease && l.write && mapped.contains(file) {
            no(
                format!("fd {}: {file} has a write lease and is mapped too", l.fd),
                "this version maps a file through an opening of its own, which such a lease forbids",
            );
        }
        if l.kind == LockKind::Posix && others.contains(file) {
            no(
                format!(
                    "fd {}: {file} has a record lock, and is mapped by another process with the same descriptor table",
                    l.fd
                ),
                "the descriptor that a mapping is made through is closed, and with it the lock goes",
            );
        }
    }
}

/// What this machine's rights do not allow.
pub fn rights(cp: &Checkpoint, live: &LiveTask, machine: &Machine) -> Option<Refusal> {
    const CAP_SYS_CHROOT: u64 = 1 << 18;
    let root = chroot(cp, live)?;
    (machine.cap_eff & CAP_SYS_CHROOT == 0).then(|| Refusal {
        kind: RefusalKind::Machine,
        what: format!("the root directory is {root}, and chroot is not allowed here"),
        hint: "needs CAP_SYS_CHROOT".into(),
    })
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
    live.is_some_and(|live| {
        let mut fds = live.fds.iter();
        fds.any(|f| f.fd == l.fd && whole.given.contains_key(&f.file))
    })
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
