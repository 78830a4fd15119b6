//! Descriptors: `/proc/PID/fd` and `fdinfo`.

use std::fs;
use std::io;

use armrest_images::{Checkpoint, File as ImageFile, LiveTask, RegFile};

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
        let (flags, pos) = match cp.files.get(&f.file) {
            Some(ImageFile::Reg(r)) => (r.flags, r.pos),
            Some(ImageFile::Memfd { flags, pos, .. }) => (*flags, Some(*pos)),
            _ => continue,
        };
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
