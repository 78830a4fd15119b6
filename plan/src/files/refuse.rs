//! What of descriptors and of the fs state cannot be restored, by name.

use std::collections::BTreeSet;

use armrest_images::{Checkpoint, File, FileOwner, LiveTask, LockKind, Remap, VmaKind};

use super::epoll::filler;
use super::words::unsupported;
use super::{chroot, facts};
use crate::consts;
use crate::machine::Machine;
use crate::sockets;
use crate::types::{Refusal, RefusalKind};
use crate::whole::Whole;

/// Watches are numbered by making and removing others: so many are made at most.
const MAX_WATCH: u32 = 1 << 20;
const S_IFMT: u32 = 0o170_000;
/// Seals that kernels have: SEAL, SHRINK, GROW, WRITE, FUTURE_WRITE, EXEC.
const SEALS: u32 = 0x3f;

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
            &format!("give it: --inherit-fd fd[N]:{}", f.path),
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
        let file = live.fd(l.fd).and_then(|f| path(f.file));
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
