//! Open file descriptions, descriptor tables, and what remap entries say of paths.

use std::collections::{BTreeMap, BTreeSet};

use super::at::{At, need};
use super::kinds;
use super::source::Source;
use super::{sockets, terminals};
use crate::checkpoint::{Fd, File, FileOwner, Memfd, RegFile};
use crate::error::{Error, Fault};
use crate::{magic, proto};

/// Kinds of files with CRIU's numbers.
const KINDS: &[(u32, &str)] = &[
    (1, "REG"),
    (2, "PIPE"),
    (3, "FIFO"),
    (4, "INETSK"),
    (5, "UNIXSK"),
    (6, "EVENTFD"),
    (7, "EVENTPOLL"),
    (8, "INOTIFY"),
    (9, "SIGNALFD"),
    (10, "PACKETSK"),
    (11, "TTY"),
    (12, "FANOTIFY"),
    (13, "NETLINKSK"),
    (14, "NS"),
    (15, "TUNF"),
    (16, "EXT"),
    (17, "TIMERFD"),
    (18, "MEMFD"),
    (19, "BPFMAP"),
    (20, "PIDFD"),
];
const REG: u32 = 1;
const PIPE: u32 = 2;
const FIFO: u32 = 3;
const EVENTFD: u32 = 6;
const EVENTPOLL: u32 = 7;
const INOTIFY: u32 = 8;
const SIGNALFD: u32 = 9;
const UNIXSK: u32 = 5;
const TTY: u32 = 11;
const TIMERFD: u32 = 17;
const MEMFD: u32 = 18;

fn kind_name(kind: u32) -> Option<&'static str> {
    KINDS
        .iter()
        .find(|(n, _)| *n == kind)
        .map(|(_, name)| *name)
}

/// Reads `files.img`.
pub(super) fn read(source: &mut Source<'_>) -> Result<BTreeMap<u32, File>, Error> {
    let name = "files.img";
    let file = At::file(name);
    let mut files = BTreeMap::new();
    let entries: Vec<proto::FileEntry> = source.array(name, magic::FILES)?;
    if entries.is_empty() {
        for old in ["reg-files.img", "pipes.img"] {
            if source.image(old)?.is_some() {
                let fault = Fault::Version(
                    "old images: files are kept by kind, not in files.img".to_owned(),
                );
                return Err(Error::new(old, fault));
            }
        }
        return Err(Error::new(name, Fault::Missing));
    }
    for (n, e) in entries.into_iter().enumerate() {
        let at = file.entry(n);
        let kind = at.req("type", e.kind)?;
        let id = need!(at, e.id);
        let Some(kind_name) = kind_name(kind) else {
            return Err(at.unknown("type", kind));
        };
        let file = match kind {
            REG => {
                let reg = at.req("reg", e.reg)?;
                let at = at.sub("reg");
                same_id(&at, reg.id, id)?;
                File::Reg(regular(&at, reg)?)
            }
            MEMFD => {
                let memfd = at.req("memfd", e.memfd)?;
                let at = at.sub("memfd");
                same_id(&at, memfd.id, id)?;
                File::Memfd {
                    inode: need!(at, memfd.inode_id),
                    flags: need!(at, memfd.flags),
                    pos: need!(at, memfd.pos),
                    owner: owner(&at, memfd.fown)?,
                }
            }
            PIPE => {
                let e = at.req("pipe", e.pipe)?;
                let at = at.sub("pipe");
                same_id(&at, e.id, id)?;
                File::Pipe(kinds::pipe(&at, e)?)
            }
            FIFO => {
                let e = at.req("fifo", e.fifo)?;
                let at = at.sub("fifo");
                same_id(&at, e.id, id)?;
                File::Fifo(kinds::fifo(&at, &e)?)
            }
            EVENTFD => {
                let e = at.req("efd", e.efd)?;
                let at = at.sub("efd");
                same_id(&at, e.id, id)?;
                File::Eventfd(kinds::eventfd(&at, e)?)
            }
            EVENTPOLL => {
                let e = at.req("epfd", e.epfd)?;
                let at = at.sub("epfd");
                same_id(&at, e.id, id)?;
                File::Epoll(kinds::epoll(&at, e)?)
            }
            INOTIFY => {
                let e = at.req("ify", e.ify)?;
                let at = at.sub("ify");
                same_id(&at, e.id, id)?;
                File::Inotify(kinds::inotify(&at, e)?)
            }
            SIGNALFD => {
                let e = at.req("sgfd", e.sgfd)?;
                let at = at.sub("sgfd");
                same_id(&at, e.id, id)?;
                File::Signalfd(kinds::signalfd(&at, e)?)
            }
            TIMERFD => {
                let e = at.req("tfd", e.tfd)?;
                let at = at.sub("tfd");
                same_id(&at, e.id, id)?;
                File::Timerfd(kinds::timerfd(&at, e)?)
            }
            UNIXSK => {
                let e = at.req("usk", e.usk)?;
                let at = at.sub("usk");
                same_id(&at, e.id, id)?;
                if sockets::outside(&e) {
                    continue;
                }
                File::Socket(Box::new(sockets::socket(&at, e)?))
            }
            TTY => {
                let e = at.req("tty", e.tty)?;
                let at = at.sub("tty");
                same_id(&at, e.id, id)?;
                File::Terminal(terminals::opening(&at, &e)?)
            }
            _ => File::Other { kind: kind_name },
        };
        if files.insert(id, file).is_some() {
            return Err(at.twice("file", id));
        }
    }
    Ok(files)
}

fn same_id(at: &At, inner: Option<u32>, outer: u32) -> Result<(), Error> {
    let inner = at.req("id", inner)?;
    if inner == outer {
        Ok(())
    } else {
        Err(at.bad("id", inner, "differs from the entry's id"))
    }
}

pub(super) fn owner(at: &At, fown: Option<proto::Fown>) -> Result<FileOwner, Error> {
    let fown = at.req("fown", fown)?;
    let at = at.sub("fown");
    let owner = FileOwner {
        uid: need!(at, fown.uid),
        euid: need!(at, fown.euid),
        signum: need!(at, fown.signum),
        pid_type: need!(at, fown.pid_type),
        pid: need!(at, fown.pid),
    };
    if owner.signum > 64 {
        return Err(at.bad("signum", owner.signum, "no signal"));
    }
    if owner.pid != 0 && owner.pid_type > 2 {
        return Err(at.bad("pid_type", owner.pid_type, "no kind of owner"));
    }
    Ok(owner)
}

fn regular(at: &At, reg: proto::Reg) -> Result<RegFile, Error> {
    let external = reg.ext == Some(true);
    let path = at.text("name", at.req("name", reg.name)?, 4095)?;
    if !external && !path.starts_with('/') {
        return Err(at.err(
            "name",
            Fault::BadText {
                text: path,
                why: "is not an absolute path",
            },
        ));
    }
    let pos = match at.req("pos", reg.pos)? {
        u64::MAX => None,
        n if n > i64::MAX.cast_unsigned() => {
            return Err(at.bad("pos", n, "beyond the end of any file"));
        }
        n => Some(n),
    };
    if reg.build_id.len() > 64 {
        let found = u64::try_from(reg.build_id.len()).unwrap_or(u64::MAX);
        return Err(at.err(
            "build_id",
            Fault::BadCount {
                expected: "at most 64",
                found,
            },
        ));
    }
    Ok(RegFile {
        path,
        flags: need!(at, reg.flags),
        pos,
        owner: owner(at, reg.fown)?,
        size: reg.size,
        mode: reg.mode,
        build_id: reg.build_id.iter().flat_map(|w| w.to_le_bytes()).collect(),
        remap: None,
        external,
        mnt_id: reg.mnt_id.unwrap_or(-1),
    })
}

/// Every open memfd must have its inode.
pub(super) fn check_memfds(
    files: &BTreeMap<u32, File>,
    memfds: &BTreeMap<u32, Memfd>,
) -> Result<(), Error> {
    for file in files.values() {
        if let File::Memfd { inode, .. } = file
            && !memfds.contains_key(inode)
        {
            return Err(At::file("files.img").dangling("memfd.inode_id", "memfd inode", *inode));
        }
    }
    Ok(())
}

/// Reads a descriptor table.
pub(super) fn descriptors(
    source: &mut Source<'_>,
    files: &BTreeMap<u32, File>,
    files_id: u32,
) -> Result<Vec<Fd>, Error> {
    let name = format!("fdinfo-{files_id}.img");
    let file = At::file(&name);
    let entries: Vec<proto::Fdinfo> = source.array(&name, magic::FDINFO)?;
    let (mut fds, mut numbers) = (Vec::new(), BTreeSet::new());
    for (n, e) in entries.into_iter().enumerate() {
        let at = file.entry(n);
        let (id, flags, fd) = (need!(at, e.id), need!(at, e.flags), need!(at, e.fd));
        let kind = at.req("type", e.kind)?;
        if fd >= 1 << 30 {
            return Err(at.bad("fd", fd, "no descriptor number"));
        }
        if flags & !1 != 0 {
            return Err(at.unknown("flags", flags));
        }
        let Some(kind) = kind_name(kind) else {
            return Err(at.unknown("type", kind));
        };
        let found = match files.get(&id) {
            Some(file) => file.kind(),
            None => "",
        };
        if found != kind {
            return Err(at.dangling("id", kind, id));
        }
        if !numbers.insert(fd) {
            return Err(at.twice("descriptor", fd));
        }
        fds.push(Fd {
            fd,
            cloexec: flags == 1,
            file: id,
        });
    }
    fds.sort_by_key(|f| f.fd);
    Ok(fds)
}

/// Checks that `id` is a file known by path.
pub(super) fn regular_id(
    at: &At,
    field: &str,
    files: &BTreeMap<u32, File>,
    id: u32,
) -> Result<u32, Error> {
    match files.get(&id) {
        Some(File::Reg(_)) => Ok(id),
        _ => Err(at.dangling(field, "regular file", id)),
    }
}
