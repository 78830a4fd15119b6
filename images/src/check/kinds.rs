//! Open files that have no path: pipes, counters, timers, signals, epoll and inotify sets.

use std::collections::{BTreeMap, BTreeSet};

use super::at::{At, need};
use super::files::owner;
use super::source::Source;
use crate::checkpoint::File;
use crate::container::Reader;
use crate::error::{Error, Fault};
use crate::kinds::{
    Epoll, EpollTarget, Eventfd, FifoEnd, Inotify, PipeContents, PipeEnd, Signalfd, Timerfd, Watch,
};
use crate::{magic, proto};

/// Largest capacity that a pipe can have: 2^31 bytes are refused by every kernel.
const MAX_PIPE: u32 = 1 << 30;
/// More entries than a descriptor table can give an epoll set.
const MAX_ENTRIES: usize = 1 << 20;

/// Flags whose access mode is one of three.
fn flags(at: &At, flags: Option<u32>) -> Result<u32, Error> {
    let flags = at.req("flags", flags)?;
    if flags & 3 == 3 {
        return Err(at.bad("flags", flags, "no access mode"));
    }
    Ok(flags)
}

pub(super) fn pipe(at: &At, e: proto::Pipe) -> Result<PipeEnd, Error> {
    Ok(PipeEnd {
        pipe: need!(at, e.pipe_id),
        flags: flags(at, e.flags)?,
        owner: owner(at, e.fown)?,
    })
}

pub(super) fn fifo(at: &At, e: &proto::Fifo) -> Result<FifoEnd, Error> {
    Ok(FifoEnd {
        pipe: need!(at, e.pipe_id),
        reg: need!(at, e.regf_id),
    })
}

pub(super) fn eventfd(at: &At, e: proto::Eventfd) -> Result<Eventfd, Error> {
    let counter = need!(at, e.counter);
    if counter == u64::MAX {
        return Err(at.bad("counter", counter, "more than a counter holds"));
    }
    Ok(Eventfd {
        flags: flags(at, e.flags)?,
        owner: owner(at, e.fown)?,
        counter,
    })
}

pub(super) fn signalfd(at: &At, e: proto::Signalfd) -> Result<Signalfd, Error> {
    Ok(Signalfd {
        flags: flags(at, e.flags)?,
        owner: owner(at, e.fown)?,
        mask: need!(at, e.sigmask),
    })
}

pub(super) fn timerfd(at: &At, e: proto::Timerfd) -> Result<Timerfd, Error> {
    let time = |s: &str, sec: Option<u64>, n: &str, nsec: Option<u64>| {
        let (sec, nsec) = (at.req(s, sec)?, at.req(n, nsec)?);
        if sec > i64::MAX.cast_unsigned() / 1_000_000_000 {
            return Err(at.bad(s, sec, "longer than any timer runs"));
        }
        match u32::try_from(nsec).ok().filter(|n| *n < 1_000_000_000) {
            Some(nsec) => Ok((sec, nsec)),
            None => Err(at.bad(n, nsec, "a second or more")),
        }
    };
    let settime = need!(at, e.settime_flags);
    if settime & !3 != 0 {
        return Err(at.unknown("settime_flags", settime));
    }
    let clock = need!(at, e.clockid);
    if !matches!(clock, 0 | 1 | 7 | 8 | 9) {
        return Err(at.bad("clockid", clock, "no clock of timer descriptors"));
    }
    Ok(Timerfd {
        flags: flags(at, e.flags)?,
        owner: owner(at, e.fown)?,
        clock,
        ticks: need!(at, e.ticks),
        settime,
        value: time("vsec", e.vsec, "vnsec", e.vnsec)?,
        interval: time("isec", e.isec, "insec", e.insec)?,
    })
}

fn few(at: &At, field: &str, n: usize) -> Result<(), Error> {
    if n > MAX_ENTRIES {
        let found = u64::try_from(n).unwrap_or(u64::MAX);
        let expected = "at most 2^20";
        return Err(at.err(field, Fault::BadCount { expected, found }));
    }
    Ok(())
}

pub(super) fn epoll(at: &At, e: proto::Eventpoll) -> Result<Epoll, Error> {
    few(at, "tfd", e.tfd.len())?;
    let mut targets = Vec::new();
    for (n, t) in e.tfd.iter().enumerate() {
        let at = at.index("tfd", n);
        targets.push(EpollTarget {
            fd: need!(at, t.tfd),
            events: need!(at, t.events),
            data: need!(at, t.data),
        });
    }
    Ok(Epoll {
        flags: flags(at, e.flags)?,
        owner: owner(at, e.fown)?,
        targets,
    })
}

/// What user space may ask inotify for, and IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED, which kernels show.
const IN_MASK: u32 = 0xf700_efff;
/// Bytes of a file handle at most (MAX_HANDLE_SZ).
const MAX_HANDLE: u32 = 128;

pub(super) fn inotify(at: &At, e: proto::Inotify) -> Result<Inotify, Error> {
    few(at, "wd", e.wd.len())?;
    let (mut watches, mut seen) = (Vec::new(), BTreeSet::new());
    for (n, w) in e.wd.into_iter().enumerate() {
        let at = at.index("wd", n);
        let (wd, mask) = (need!(at, w.wd), need!(at, w.mask));
        if wd == 0 || wd > i32::MAX.cast_unsigned() {
            return Err(at.bad("wd", wd, "no number of a watch"));
        }
        if mask & 0xfff == 0 || mask & !IN_MASK != 0 {
            return Err(at.unknown("mask", mask));
        }
        if !seen.insert(wd) {
            return Err(at.twice("watch", wd));
        }
        let (mut path, mut handle) = (None, None);
        if let Some(h) = w.f_handle {
            let at = at.sub("f_handle");
            let (bytes, kind) = (need!(at, h.bytes), need!(at, h.kind));
            let room = u64::try_from(h.handle.len()).unwrap_or(u64::MAX) * 8;
            if bytes > MAX_HANDLE || u64::from(bytes) > room {
                return Err(at.bad("bytes", bytes, "more than the handle has"));
            }
            let all = h.handle.iter().flat_map(|w| w.to_le_bytes());
            let all = all.take(usize::try_from(bytes).unwrap_or(0)).collect();
            handle = Some((kind, all));
            if let Some(p) = h.path.filter(|p| !p.is_empty()) {
                let text = at.text("path", p, 4095)?;
                if !text.starts_with('/') {
                    let why = "is not an absolute path";
                    return Err(at.err("path", Fault::BadText { text, why }));
                }
                path = Some(text);
            }
        }
        watches.push(Watch {
            wd,
            mask,
            ino: need!(at, w.i_ino),
            path,
            handle,
        });
    }
    watches.sort_by_key(|w| w.wd);
    Ok(Inotify {
        flags: flags(at, e.flags)?,
        owner: owner(at, e.fown)?,
        watches,
    })
}

/// Reads `pipes-data.img` or `fifo-data.img`.
pub(super) fn contents(
    source: &mut Source<'_>,
    name: &str,
    magic: u32,
) -> Result<BTreeMap<u32, PipeContents>, Error> {
    let mut all = BTreeMap::new();
    let Some(bytes) = source.image(name)? else {
        return Ok(all);
    };
    let file = At::file(name);
    let mut reader = Reader::open(name, &bytes, magic)?;
    while let Some(e) = reader.entry_or_end::<proto::PipeData>()? {
        let at = file.entry(reader.entry().unwrap_or_default());
        let (pipe, len) = (need!(at, e.pipe_id), need!(at, e.bytes));
        let most = e.size.unwrap_or(MAX_PIPE);
        if most == 0 || most > MAX_PIPE {
            return Err(at.bad("size", most, "no capacity of a pipe"));
        }
        if len > most {
            return Err(at.bad("bytes", len, "more than the pipe holds"));
        }
        let one = PipeContents {
            capacity: e.size,
            bytes: reader.bytes(u64::from(len))?.to_vec(),
        };
        if all.insert(pipe, one).is_some() {
            return Err(at.twice("contents of pipe", pipe));
        }
    }
    Ok(all)
}

/// Every pipe that can be read has contents (the dumper writes them even if there are none), all contents have a pipe,
/// and every FIFO has a path.
pub(super) fn check_pipes(
    files: &BTreeMap<u32, File>,
    pipes: &BTreeMap<u32, PipeContents>,
    fifos: &BTreeMap<u32, PipeContents>,
) -> Result<(), Error> {
    let at = At::file("files.img");
    let (mut of_pipes, mut of_fifos) = (BTreeSet::new(), BTreeSet::new());
    for file in files.values() {
        match file {
            File::Pipe(p) => {
                of_pipes.insert(p.pipe);
                if p.flags & 3 != 1 && !pipes.contains_key(&p.pipe) {
                    return Err(at.dangling("pipe.pipe_id", "contents of a pipe", p.pipe));
                }
            }
            File::Fifo(f) => {
                of_fifos.insert(f.pipe);
                let Some(File::Reg(reg)) = files.get(&f.reg) else {
                    return Err(at.dangling("fifo.regf_id", "regular file", f.reg));
                };
                if reg.flags & 3 != 1 && !fifos.contains_key(&f.pipe) {
                    return Err(at.dangling("fifo.pipe_id", "contents of a FIFO", f.pipe));
                }
            }
            _ => {}
        }
    }
    let stray = |all: &BTreeMap<u32, PipeContents>, used: &BTreeSet<u32>, name: &str| match all
        .keys()
        .find(|p| !used.contains(p))
    {
        Some(p) => Err(At::file(name).dangling("pipe_id", "open end", *p)),
        None => Ok(()),
    };
    stray(pipes, &of_pipes, "pipes-data.img")?;
    stray(fifos, &of_fifos, "fifo-data.img")
}

/// Magics of the two.
pub(super) const IMAGES: [(&str, u32); 2] = [
    ("pipes-data.img", magic::PIPES_DATA),
    ("fifo-data.img", magic::FIFO_DATA),
];
