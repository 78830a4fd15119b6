//! Descriptors: `/proc/PID/fd` and `fdinfo`.

use std::fs;
use std::io;

use armrest_images::{Checkpoint, File as ImageFile, FileLock, LiveTask, LockKind, RegFile};
use armrest_plan::files::facts;

use super::{Finding, Weight, compare, found, key, path_of, shown};

/// A descriptor as `/proc/PID/fd` and `fdinfo` tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdNow {
    /// Number.
    pub fd: u32,
    /// Target of the link.
    pub link: String,
    /// Text of fdinfo.
    pub info: String,
}

/// Compare descriptors. A position may have moved if the task ran.
pub fn descriptors(
    cp: &Checkpoint,
    live: &LiveTask,
    now: &[FdNow],
    root: &str,
    ran: bool,
) -> Vec<Finding> {
    const CLOEXEC: u32 = 0o2_000_000;
    let mut out = Vec::new();
    for n in now.iter().filter(|n| live.fds.iter().all(|f| f.fd != n.fd)) {
        out.push(found(
            Weight::Differs,
            format!("fd {}: {}", n.fd, n.link),
            "not in the images",
        ));
    }
    for f in &live.fds {
        let what = format!("fd {}", f.fd);
        let Some(n) = now.iter().find(|n| n.fd == f.fd) else {
            out.push(found(Weight::Differs, what, "not in the task"));
            continue;
        };
        if let Some(path) = path_of(cp, f.file, root)
            && !(root_device(cp, f.file) && path.strip_prefix(root) == Some(&n.link))
        {
            compare(
                &mut out,
                Weight::Differs,
                format!("{what}: path"),
                path,
                n.link.clone(),
            );
        }
        let Some(file) = cp.files.get(&f.file) else {
            continue;
        };
        let pos = match file {
            ImageFile::Reg(r) => r.pos,
            ImageFile::Memfd { pos, .. } => Some(*pos),
            _ => None,
        };
        out.extend(state(&what, file, &n.info, ran));
        out.extend(locks(cp, live, f.fd, &what, &n.info));
        if matches!(file, ImageFile::Other { .. }) {
            continue;
        }
        let (flags, _) = facts(cp, file);
        let flags = flags & !CLOEXEC | if f.cloexec { CLOEXEC } else { 0 };
        let task = key(&n.info, "flags:").and_then(|w| u32::from_str_radix(w, 8).ok());
        compare(
            &mut out,
            Weight::Differs,
            format!("{what}: flags"),
            format!("0{flags:o}"),
            task.map_or("nothing".into(), |t| format!("0{t:o}")),
        );
        if let Some(pos) = pos {
            let weight = if ran { Weight::Ran } else { Weight::Differs };
            let task = key(&n.info, "pos:").unwrap_or("nothing");
            compare(
                &mut out,
                weight,
                format!("{what}: position"),
                &*pos.to_string(),
                task,
            );
        }
    }
    out
}

/// What fdinfo tells of a descriptor without a path.
fn state(what: &str, file: &ImageFile, info: &str, ran: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    // What reading changes may have changed if it ran.
    let read = if ran { Weight::Ran } else { Weight::Differs };
    let mut line = |weight, name: &str, image: String| {
        let now = key(info, &format!("{name}:")).unwrap_or("nothing");
        compare(
            &mut out,
            weight,
            format!("{what}: {name}"),
            image,
            now.to_owned(),
        );
    };
    match file {
        ImageFile::Eventfd(e) => {
            let now = key(info, "eventfd-count:").and_then(|n| u64::from_str_radix(n, 16).ok());
            let now = now.map_or("nothing".into(), |n| n.to_string());
            let name = format!("{what}: counter");
            compare(&mut out, read, name, e.counter.to_string(), now);
        }
        ImageFile::Signalfd(s) => line(Weight::Differs, "sigmask", format!("{:016x}", s.mask)),
        ImageFile::Timerfd(t) => {
            line(Weight::Differs, "clockid", t.clock.to_string());
            line(
                Weight::Differs,
                "settime flags",
                format!("0{:o}", t.settime),
            );
            let (s, ns) = t.interval;
            line(Weight::Differs, "it_interval", format!("({s}, {ns})"));
            // Time goes on also while it is stopped: more unread expiries and less time left are right.
            let ticks = key(info, "ticks:").and_then(|n| n.parse::<u64>().ok());
            if ticks.is_none_or(|n| n < t.ticks) {
                line(read, "ticks", t.ticks.to_string());
            }
        }
        ImageFile::Epoll(e) => {
            let mut wanted: Vec<String> = e
                .targets
                .iter()
                .map(|t| format!("{} {:x} {:x}", t.fd, t.events, t.data))
                .collect();
            let mut now: Vec<String> = info.lines().filter_map(epoll_entry).collect();
            wanted.sort();
            now.sort();
            let name = format!("{what}: entries (descriptor, events, data)");
            compare(&mut out, read, name, wanted.join(", "), now.join(", "));
        }
        ImageFile::Inotify(i) => {
            let mut wanted: Vec<(u32, u32)> = i.watches.iter().map(|w| (w.wd, w.mask)).collect();
            let mut now: Vec<(u32, u32)> = info.lines().filter_map(watch).collect();
            wanted.sort_unstable();
            now.sort_unstable();
            let name = format!("{what}: watches (number, mask)");
            compare(
                &mut out,
                Weight::Differs,
                name,
                format!("{wanted:x?}"),
                format!("{now:x?}"),
            );
        }
        _ => {}
    }
    out
}

/// `tfd:        5 events:       19 data:              309 ...`
fn epoll_entry(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["tfd:", fd, "events:", events, "data:", data, ..] => Some(format!("{fd} {events} {data}")),
        _ => None,
    }
}

/// `inotify wd:1 ino:6f9 sdev:2 mask:6 ...`
fn watch(line: &str) -> Option<(u32, u32)> {
    let mut words = line.split_whitespace();
    (words.next() == Some("inotify")).then_some(())?;
    let mut wd = None;
    let mut mask = None;
    for w in words {
        match w.split_once(':')? {
            ("wd", n) => wd = u32::from_str_radix(n, 16).ok(),
            ("mask", n) => mask = u32::from_str_radix(n, 16).ok(),
            _ => {}
        }
    }
    Some((wd?, mask?))
}

/// The locks that fdinfo shows of a descriptor. A record lock shows on every descriptor of its file.
fn locks(cp: &Checkpoint, live: &LiveTask, fd: u32, what: &str, info: &str) -> Vec<Finding> {
    let mut out = Vec::new();
    let file = live.fds.iter().find(|f| f.fd == fd).map(|f| f.file);
    let same = |l: &&FileLock| {
        // Of a record lock the owner is the table of whoever took it; of others, the description.
        let of = cp.tasks.iter().find(|t| t.pid == l.pid);
        of.and_then(|t| t.live.as_ref()).is_some_and(|of| {
            of.fds.iter().any(|f| f.fd == l.fd && Some(f.file) == file)
                && (l.kind != LockKind::Posix || of.files_id == live.files_id)
        })
    };
    let mut wanted: Vec<String> = cp.locks.iter().filter(same).map(shown_lock).collect();
    let mut now: Vec<String> = info.lines().filter_map(lock).collect();
    wanted.sort();
    now.sort();
    let name = format!("{what}: locks");
    compare(
        &mut out,
        Weight::Differs,
        name,
        wanted.join(", "),
        now.join(", "),
    );
    out
}

fn shown_lock(l: &FileLock) -> String {
    let kind = match l.kind {
        LockKind::Posix => "POSIX",
        LockKind::Flock => "FLOCK",
        LockKind::Ofd => "OFDLCK",
        LockKind::Lease => "LEASE",
    };
    let how = if l.write { "WRITE" } else { "READ" };
    if matches!(l.kind, LockKind::Flock | LockKind::Lease) || l.len == 0 {
        return format!("{kind} {how} {}-EOF", l.start);
    }
    format!("{kind} {how} {}-{}", l.start, l.start + l.len - 1)
}

/// `lock:  1: POSIX  ADVISORY  WRITE 2401 00:02:1786 2 6`
fn lock(line: &str) -> Option<String> {
    let words: Vec<&str> = line.strip_prefix("lock:")?.split_whitespace().collect();
    match words[..] {
        [_, kind, _, how, _, _, start, end] => Some(format!("{kind} {how} {start}-{end}")),
        _ => None,
    }
}

/// A file known by path as `/proc/PID/fd` shows it: with its name gone, if it is.
pub(super) fn reg(r: &RegFile, root: &str) -> String {
    let gone = if r.remap.is_some() { " (deleted)" } else { "" };
    format!("{}{gone}", shown(&r.path, root))
}

/// Where the link of a descriptor without a path of its own points to, if that is known.
pub(super) fn link(cp: &Checkpoint, file: &ImageFile, root: &str) -> Option<String> {
    let inode = |kind: &str| Some(format!("anon_inode:{kind}"));
    match file {
        ImageFile::Fifo(f) => match cp.files.get(&f.reg)? {
            ImageFile::Reg(r) => Some(reg(r, root)),
            _ => None,
        },
        ImageFile::Eventfd(_) => inode("[eventfd]"),
        ImageFile::Epoll(_) => inode("[eventpoll]"),
        ImageFile::Signalfd(_) => inode("[signalfd]"),
        ImageFile::Timerfd(_) => inode("[timerfd]"),
        ImageFile::Inotify(_) => inode("inotify"),
        _ => None,
    }
}

/// Devices come from the host even below a root.
fn root_device(cp: &Checkpoint, file: u32) -> bool {
    matches!(cp.files.get(&file), Some(ImageFile::Reg(r)) if r.path.starts_with("/dev/"))
}

pub(super) fn descriptors_now(dir: &str) -> io::Result<Vec<FdNow>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(format!("{dir}/fd"))? {
        let entry = entry?;
        let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        out.push(FdNow {
            fd,
            link: fs::read_link(entry.path())?.to_string_lossy().into_owned(),
            info: fs::read_to_string(format!("{dir}/fdinfo/{fd}"))?,
        });
    }
    out.sort_by_key(|f| f.fd);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::{live, load, weights};

    /// What a 6.1 kernel shows, and what differs from it.
    #[test]
    fn descriptors_without_a_path_differ_by_their_state() {
        let find = |cp: &Checkpoint, kind: &str| {
            let of_kind = |f: &&ImageFile| f.kind() == kind;
            cp.files.values().find(of_kind).expect(kind).clone()
        };
        let (task, files) = (load("task"), load("files"));
        for (cp, kind, info, wrong) in [
            (
                &task,
                "EVENTFD",
                "pos:\t0\neventfd-count:               29\neventfd-id: 3\n",
                "29",
            ),
            (&task, "SIGNALFD", "sigmask:\t0000000000000800\n", "800"),
            (
                &task,
                "TIMERFD",
                "clockid: 1\nticks: 1\nsettime flags: 00\nit_value: (0, 0)\nit_interval: (0, 50000000)\n",
                "50000000",
            ),
            (
                &task,
                "EVENTPOLL",
                "tfd:        3 events:       19 data:              378  pos:0 ino:4e3 sdev:c\n\
                 tfd:        5 events:       19 data:              309  pos:0 ino:41f sdev:d\n",
                "378",
            ),
            (
                &files,
                "INOTIFY",
                "inotify wd:1 ino:6f9 sdev:2 mask:6 ignored_mask:0\n",
                "mask:6",
            ),
        ] {
            let file = find(cp, kind);
            assert_eq!(state("fd", &file, info, false), [], "{kind}");
            let other = info.replace(wrong, "7");
            assert_eq!(
                state("fd", &file, &other, false).len(),
                1,
                "{kind}: {other}"
            );
            assert!(!state("fd", &file, "", false).is_empty(), "{kind}");
        }
        let all = "lock:\t1: POSIX  ADVISORY  WRITE 2401 00:02:1786 2 6\n\
                   lock:\t2: POSIX  ADVISORY  READ 2401 00:02:1786 21 27\n";
        let found = |info: &str| locks(&files, live(&files), 12, "fd 12", info).len();
        assert_eq!((found(all), found(&all[..52]), found("")), (0, 1, 1));
        let flock = "lock:\t1: FLOCK  ADVISORY  READ 2401 00:02:1787 0 EOF\n";
        assert_eq!(locks(&files, live(&files), 13, "fd 13", flock), []);
    }

    #[test]
    fn descriptors_differ_by_path_flags_and_position() {
        let cp = load("counter");
        let now: Vec<FdNow> = live(&cp)
            .fds
            .iter()
            .map(|f| {
                let Some(ImageFile::Reg(r)) = cp.files.get(&f.file) else {
                    panic!("a file")
                };
                FdNow {
                    fd: f.fd,
                    link: r.path.clone(),
                    info: format!(
                        "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t1\n",
                        r.pos.unwrap_or(0),
                        r.flags
                    ),
                }
            })
            .collect();
        let look = |n: &[FdNow], ran| descriptors(&cp, live(&cp), n, "", ran);
        assert_eq!(look(&now, false), []);
        assert_eq!(look(&now[1..], false).len(), 1);
        let mut more = now.clone();
        more.push(FdNow {
            fd: 99,
            ..now[0].clone()
        });
        more[1].link.push('x');
        more[2].info = "pos:\t7777\nflags:\t01\n".into();
        assert_eq!(weights(&look(&more, false)), [Weight::Differs; 4]);
        assert_eq!(
            look(&more, true)
                .iter()
                .filter(|f| f.weight == Weight::Ran)
                .count(),
            1
        );
    }
}
