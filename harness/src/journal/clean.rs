//! Taking back what a dead restore left: on the next run, by `armrest clean`, and by a restore that fails.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, Instant};

use super::judge::{self, Found, Row, Verdict};
use super::place::{Dir, Place};
use super::text::{Begun, Head, Journal, Node, What};
use crate::error::Error;
use crate::objects::sysv::Kind;
use crate::os;

/// No journal is longer.
const LONGEST: u64 = 64 << 20;

/// What became of something in a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was removed, or put back.
    Removed,
    /// It would be.
    Would,
    /// It was not there any more, or never.
    Gone,
    /// It belongs to this process, which lives.
    Theirs(u32),
    /// It cannot be told or done from here, because of that.
    Left(String),
}

impl Fate {
    /// Nothing is left to do.
    pub fn is_over(&self) -> bool {
        !matches!(self, Fate::Left(_) | Fate::Would)
    }
}

/// Something in a journal, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// In words.
    pub what: String,
    /// What became of it.
    pub fate: Fate,
}

/// A journal whose owner is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Its file.
    pub path: String,
    /// Pid that the owner had.
    pub pid: u32,
    /// What it restored.
    pub what: String,
    /// Everything that was not known to be gone.
    pub all: Vec<Done>,
}

/// Take back what dead restores of this user left. With `look_only` nothing is done, only said.
///
/// # Errors
/// A place that the user named cannot be read.
pub fn run(place: &Place, look_only: bool) -> Result<Vec<Dead>, Error> {
    let failed = |path: &std::path::Path, source| Error::Output {
        path: format!("journals in {}", path.display()).into(),
        source,
    };
    let mut out = Vec::new();
    for dir in place
        .existing()
        .map_err(|e| failed("$ARMREST_JOURNAL".as_ref(), e))?
    {
        let mut names: Vec<String> =
            std::fs::read_dir(format!("/proc/self/fd/{}", dir.fd.as_raw_fd()))
                .map_err(|e| failed(&dir.path, e))?
                .filter_map(|e| e.ok()?.file_name().into_string().ok())
                .collect();
        names.sort();
        for name in names {
            out.extend(one(&dir, &name, look_only));
        }
        if dir.ours && !look_only {
            // Empty, if its maker was killed right after it was made. Not empty: somebody's journal is there.
            let _ = std::fs::remove_dir(&dir.path);
        }
    }
    Ok(out)
}

/// The journal `name`, if it is one and its owner is dead.
fn one(dir: &Dir, name: &str, look_only: bool) -> Option<Dead> {
    let path = dir.path.join(name).display().to_string();
    let left = |why: String| {
        Some(Dead {
            path: path.clone(),
            pid: 0,
            what: String::new(),
            all: vec![Done {
                what: "journal".into(),
                fate: Fate::Left(why),
            }],
        })
    };
    let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = match os::openat(dir.fd.as_fd(), name, flags, 0) {
        Ok(fd) => File::from(fd),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => return left(e.to_string()),
    };
    let meta = file.metadata().ok()?;
    // SAFETY: cannot fail.
    let uid = unsafe { libc::geteuid() };
    if !meta.is_file() || meta.uid() != uid || meta.mode() & 0o7777 != 0o600 || meta.len() > LONGEST
    {
        return left("not a journal of this user: a plain file of its own, mode 0600".into());
    }
    if !owner_is_gone(&file) || links(&file).ok()? == 0 {
        return None;
    }
    let mut bytes = Vec::new();
    if let Err(e) = file.read_to_end(&mut bytes) {
        return left(e.to_string());
    }
    let journal = match Journal::parse(&bytes) {
        Ok(Some(j)) if j.head.uid == uid => j,
        // Nothing was made before its first line was whole.
        Ok(None) => {
            if !look_only {
                remove(dir, name);
            }
            return None;
        }
        Ok(Some(j)) => return left(format!("of user {}", j.head.uid)),
        Err(n) => return left(format!("line {n} makes no sense")),
    };
    let last = u64::try_from(meta.mtime()).unwrap_or(0);
    let all = if look_only {
        settle(&journal, last, &mut |_| Ok(false))
    } else {
        take_back(&journal, last)
    };
    if !look_only && all.iter().all(|d| d.fate.is_over()) {
        remove(dir, name);
    }
    Some(Dead {
        path: path.clone(),
        pid: journal.head.pid,
        what: journal.head.what,
        all,
    })
}

/// How long processes of a restore whose harness is dead may take to end.
const LINGER: Duration = Duration::from_secs(2);
/// How long tasks on their way into the program may take to come there or to end: who waits for the gate without calls, and
/// shares its CPU with others that do, takes seconds to see that the harness is dead.
const ON_THE_WAY: Duration = Duration::from_secs(12);

/// Lock a journal. Its owner holds the lock as long as it lives. So do its children until they let go of the descriptor, or
/// see that it is gone and end: these are waited for.
fn owner_is_gone(file: &File) -> bool {
    let start = Instant::now();
    loop {
        // SAFETY: numbers only.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return true;
        }
        let mut begin = [0; 4096];
        let n = file.read_at(&mut begin, 0).unwrap_or(0);
        let Ok(Some(journal)) = Journal::parse(&begin[..n]) else {
            return false;
        };
        // What is more than a page long is judged by its first line as well.
        if !Here::new(&journal.head).same_pids
            || !dead(journal.head.pid)
            || start.elapsed() > LINGER
        {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Take back everything in a journal, newest first. `last`: when it was written last.
pub(super) fn take_back(journal: &Journal, last: u64) -> Vec<Done> {
    settle(journal, last, &mut |act| act.run().map(|()| true))
}

/// Something to do.
enum Act<'a> {
    RemoveIpc(Kind, i32),
    ForgetId(Kind),
    Unlink(&'a OwnedFd, &'a str),
    PutBack(&'a OwnedFd, &'a str, &'a str),
}

/// What becomes of everything in a journal; `act` does it (true), or not.
fn settle(
    journal: &Journal,
    last: u64,
    act: &mut dyn FnMut(Act<'_>) -> io::Result<bool>,
) -> Vec<Done> {
    let here = Here::new(&journal.head);
    let open = journal.open();
    let owner = here.owner(journal);
    let mut all = Vec::new();
    for begun in &open {
        let fate = match (owner, begun.what) {
            (Some(pid), _) => Fate::Theirs(pid),
            (None, What::Sysv { kind, .. }) => {
                sysv(*kind, begun, &open, &here, &journal.head, last, act)
            }
            (None, What::File { dir, path, name }) => {
                file(*dir, path, name, begun, &journal.head, act).unwrap_or_else(left)
            }
            (
                None,
                What::Aside {
                    dir,
                    path,
                    name,
                    aside,
                    node,
                },
            ) => put_back(*dir, path, (name, aside), *node, act).unwrap_or_else(left),
        };
        all.push(Done {
            what: words(begun),
            fate,
        });
    }
    all
}

fn left(e: io::Error) -> Fate {
    Fate::Left(e.to_string())
}

fn words(begun: &Begun<'_>) -> String {
    match begun.what {
        What::Sysv { kind, key, .. } => match begun.id {
            Some(id) => format!("{} {id} (key {key:#x})", kind.name()),
            None => format!("{} (key {key:#x})", kind.name()),
        },
        What::File { path, name, .. } => format!("{}/{name}", path.trim_end_matches('/')),
        What::Aside {
            path, name, aside, ..
        } => {
            format!("{}/{aside}, which was {name}", path.trim_end_matches('/'))
        }
    }
}

fn sysv(
    kind: Kind,
    begun: &Begun<'_>,
    open: &[Begun<'_>],
    here: &Here,
    head: &Head,
    last: u64,
    act: &mut dyn FnMut(Act<'_>) -> io::Result<bool>,
) -> Fate {
    if !here.same_boot {
        return Fate::Gone;
    }
    if !here.same_ipc {
        return match users_of(&head.ipc_ns) {
            // It went with its last process.
            Some(None) => Fate::Gone,
            Some(Some(pid)) => Fate::Left(format!(
                "in the IPC namespace of process {pid}: nsenter -i -t {pid} armrest clean"
            )),
            None => Fate::Left(format!("in another IPC namespace, {}", head.ipc_ns)),
        };
    }
    let text = match std::fs::read_to_string(format!("/proc/sysvipc/{}", kind.short())) {
        Ok(text) => text,
        Err(e) => return Fate::Left(format!("/proc/sysvipc/{}: {e}", kind.short())),
    };
    let rows: Vec<Row> = judge::rows(&text);
    let others: Vec<i32> = open
        .iter()
        .filter(|b| b.n != begun.n && matches!(b.what, What::Sysv { kind: k, .. } if *k == kind))
        .filter_map(|b| b.id)
        .collect();
    let did = match judge::sysv(head, begun, &rows, last, here.same_pids, &others) {
        Verdict::Remove(id) => act(Act::RemoveIpc(kind, id)),
        Verdict::Gone => {
            if begun.id.is_some() && next_id(kind) == begun.id {
                // The wanted id still waits for the next object, whoever makes it.
                let _ = act(Act::ForgetId(kind));
            }
            return Fate::Gone;
        }
        Verdict::Unclear(n) => {
            return Fate::Left(format!(
                "{n} objects could be it: see ipcs, remove it with ipcrm"
            ));
        }
    };
    did.map_or_else(left, |done| if done { Fate::Removed } else { Fate::Would })
}

fn file(
    dir: Node,
    path: &str,
    name: &str,
    begun: &Begun<'_>,
    head: &Head,
    act: &mut dyn FnMut(Act<'_>) -> io::Result<bool>,
) -> io::Result<Fate> {
    let Some(at) = same_directory(dir, path)? else {
        return Ok(Fate::Gone);
    };
    match found(at.as_fd(), name)? {
        Some(f) if judge::file(head, begun, &f) => {
            let done = act(Act::Unlink(&at, name))?;
            Ok(if done { Fate::Removed } else { Fate::Would })
        }
        _ => Ok(Fate::Gone),
    }
}

fn put_back(
    dir: Node,
    path: &str,
    (name, aside): (&str, &str),
    node: Node,
    act: &mut dyn FnMut(Act<'_>) -> io::Result<bool>,
) -> io::Result<Fate> {
    let Some(at) = same_directory(dir, path)? else {
        return Ok(Fate::Gone);
    };
    if found(at.as_fd(), aside)?.is_none_or(|f| f.node != node) {
        return Ok(Fate::Gone);
    }
    let done = act(Act::PutBack(&at, aside, name))?;
    Ok(if done { Fate::Removed } else { Fate::Would })
}

impl Act<'_> {
    fn run(self) -> io::Result<()> {
        match self {
            Act::RemoveIpc(kind, id) => kind.remove(id),
            Act::ForgetId(kind) => kind.forget_next_id(),
            Act::Unlink(dir, name) => unlink(dir.as_fd(), name),
            Act::PutBack(dir, aside, name) => rename_back(dir.as_fd(), aside, name),
        }
    }
}

/// The id that the next object of this kind gets, if one is wanted.
fn next_id(kind: Kind) -> Option<i32> {
    let text = std::fs::read_to_string(kind.next_id()).ok()?;
    text.trim().parse().ok().filter(|id| *id >= 0)
}

fn unlink(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let c = os::c_path(name)?;
    // SAFETY: `c` is NUL-terminated; the descriptor is open.
    let flat = os::check(unsafe { libc::unlinkat(dir.as_raw_fd(), c.as_ptr(), 0) });
    match flat {
        Err(e) if e.raw_os_error() == Some(libc::EISDIR) => {
            // SAFETY: as above.
            os::check(unsafe { libc::unlinkat(dir.as_raw_fd(), c.as_ptr(), libc::AT_REMOVEDIR) })
                .map(drop)
        }
        other => other.map(drop),
    }
}

fn rename_back(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    let (from, to) = (os::c_path(from)?, os::c_path(to)?);
    let fd = dir.as_raw_fd();
    const NOREPLACE: u32 = 1;
    // SAFETY: both names are NUL-terminated; the descriptor is open.
    os::check_long(unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            fd,
            from.as_ptr(),
            fd,
            to.as_ptr(),
            NOREPLACE,
        )
    })
    .map(drop)
}

/// What has the name now; no link is followed.
fn found(dir: BorrowedFd<'_>, name: &str) -> io::Result<Option<Found>> {
    let fd = match os::openat(dir, name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
        Ok(fd) => fd,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let meta = os::metadata(fd.as_fd())?;
    Ok(Some(Found {
        node: Node {
            dev: meta.dev(),
            ino: meta.ino(),
        },
        uid: meta.uid(),
        ctime: u64::try_from(meta.ctime()).unwrap_or(0),
    }))
}

/// Device and inode number of what has the name now.
pub(super) fn node(dir: BorrowedFd<'_>, name: &str) -> io::Result<Option<Node>> {
    Ok(found(dir, name)?.map(|f| f.node))
}

pub(super) fn node_of(meta: &os::Stat) -> Node {
    Node {
        dev: meta.dev(),
        ino: meta.ino(),
    }
}

/// The directory that was at `path`, if it still is. Whatever links lead there now, its numbers tell.
fn same_directory(dir: Node, path: &str) -> io::Result<Option<OwnedFd>> {
    let here = File::open("/")?;
    let fd = match os::openat(here.as_fd(), path, libc::O_PATH | libc::O_DIRECTORY, 0) {
        Ok(fd) => fd,
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            return Ok(None);
        }
        Err(e) => return Err(e),
    };
    let same = node_of(&os::fstat(fd.as_fd())?) == dir;
    Ok(same.then_some(fd))
}

pub(super) fn links(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.nlink())
}

/// Remove a journal, and its directory with the last one.
pub(super) fn remove(dir: &Dir, name: &str) {
    if unlink(dir.fd.as_fd(), name).is_ok() && dir.ours {
        // Not empty: somebody else's journal is there.
        let _ = std::fs::remove_dir(&dir.path);
    }
}

fn namespace(pid: &str, kind: &str) -> io::Result<String> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}"))?;
    Ok(link.to_string_lossy().into_owned())
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// Who we are.
pub(super) fn head(token: &str, what: &str) -> Head {
    Head {
        pid: std::process::id(),
        // SAFETY: cannot fail.
        uid: unsafe { libc::geteuid() },
        boot: boot(),
        ipc_ns: namespace("self", "ipc").unwrap_or_default(),
        pid_ns: namespace("self", "pid").unwrap_or_default(),
        token: token.into(),
        what: what.into(),
    }
}

/// When a process started, in ticks since the boot.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    let stat = crate::os::read_small(&format!("/proc/{pid}/stat")).ok()?;
    crate::os::stat_fields(&stat).nth(19)?.parse().ok()
}

/// How this process relates to the owner of a journal.
struct Here {
    same_boot: bool,
    same_ipc: bool,
    same_pids: bool,
}

impl Here {
    fn new(head: &Head) -> Here {
        let now = self::head("", "");
        let same_boot = now.boot == head.boot;
        Here {
            same_boot,
            same_ipc: same_boot && now.ipc_ns == head.ipc_ns,
            same_pids: same_boot && now.pid_ns == head.pid_ns,
        }
    }

    /// A task that lives, and owns what the journal speaks of. One that is still on its way into the restored program is
    /// waited for: whether it comes there was decided when the harness died, and it ends soon if not. A program that blocks
    /// all signals looks the same for ever, hence the end of waiting.
    fn owner(&self, journal: &Journal) -> Option<u32> {
        let until = Instant::now() + ON_THE_WAY;
        loop {
            let living = journal.tasks().filter_map(|t| Some((t.0, self.lives(t)?)));
            let living: Vec<(u32, u32)> = living.collect();
            let there = living.iter().find(|(_, here)| !on_its_way(*here));
            // One that runs is enough: either all of a tree come there or none.
            if there.is_some() || living.is_empty() || Instant::now() > until {
                return there.or(living.first()).map(|(pid, _)| *pid);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The task of a journal, by its number here, if it lives. It says so by pid and start time, so a pid that was given out
    /// again is another.
    fn lives(&self, (pid, start): (u32, u64)) -> Option<u32> {
        if !self.same_boot {
            return None;
        }
        if self.same_pids {
            return (start_time(pid) == Some(start) && !dead(pid)).then_some(pid);
        }
        // The owner's pids are not ours: look at what each process is called in its innermost namespace.
        processes().find(|&p| {
            start_time(p) == Some(start)
                && !dead(p)
                && std::fs::read_to_string(format!("/proc/{p}/status")).is_ok_and(|s| {
                    let inner = s.lines().find_map(|l| l.strip_prefix("NSpid:"));
                    inner.and_then(|l| l.split_whitespace().next_back()?.parse().ok()) == Some(pid)
                })
        })
    }
}

/// All signals are blocked from before the fork to the task's own first instruction.
fn on_its_way(pid: u32) -> bool {
    os::blocked_signals(pid.cast_signed(), pid).is_some_and(crate::watch::all_blocked)
}

/// A zombie owns nothing.
fn dead(pid: u32) -> bool {
    crate::watch::is_dead(pid.cast_signed())
}

fn processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
}

/// A process in this IPC namespace: `Some(None)` if there is none, `None` if not every process could be asked.
fn users_of(ipc_ns: &str) -> Option<Option<u32>> {
    let mut all_asked = true;
    for p in processes() {
        match namespace(&p.to_string(), "ipc") {
            Ok(ns) if ns == ipc_ns => return Some(Some(p)),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(_) => all_asked = false,
        }
    }
    all_asked.then_some(None)
}
