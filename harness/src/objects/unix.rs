//! Unix sockets, made in the order that the plan has found: a thin layer of calls over its steps.
//!
//! What a path means is looked at first: it must be free, or hold the socket that the checkpoint left there, with
//! nobody behind it. That one is moved aside until the restore is over, and is put back if it fails.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use armrest_images::{Checkpoint, File, Packet, Socket, SocketKind, SocketName, SocketState};
use armrest_plan::sockets::{Sender, Step, words};

use crate::error::Error;
use crate::journal::{Journal, Thing};
use crate::objects::ghost::Links;
use crate::objects::helper::{self, Address};
use crate::os;
use crate::root::Root;

/// Sockets of the checkpoint, each once.
pub struct Sockets<'a> {
    cp: &'a Checkpoint,
    root: &'a Root,
    journal: &'a Journal,
    made: BTreeMap<u32, OwnedFd>,
    /// Other ends that are closed when their words are sent.
    gone: BTreeMap<u32, OwnedFd>,
    /// The file that a name is, for whoever connects to it here.
    nodes: BTreeMap<u32, OwnedFd>,
    /// What lay at a path before.
    asides: Vec<(String, OwnedFd, String, OwnedFd)>,
    /// What became otherwise, in sentences.
    pub notes: Vec<String>,
}

fn make(kind: SocketKind) -> libc::c_int {
    match kind {
        SocketKind::Stream => libc::SOCK_STREAM,
        SocketKind::Datagram => libc::SOCK_DGRAM,
        SocketKind::Packet => libc::SOCK_SEQPACKET,
    }
}

fn single(kind: SocketKind) -> io::Result<OwnedFd> {
    let kind = make(kind) | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: numbers only; the call makes a descriptor.
    unsafe { os::made(libc::socket(libc::AF_UNIX, kind, 0)) }
}

impl<'a> Sockets<'a> {
    /// Make, bind and connect all.
    pub fn make(
        cp: &'a Checkpoint,
        root: &'a Root,
        journal: &'a Journal,
        steps: &[Step],
    ) -> Result<Sockets<'a>, Error> {
        let mut all = Sockets {
            cp,
            root,
            journal,
            made: BTreeMap::new(),
            gone: BTreeMap::new(),
            nodes: BTreeMap::new(),
            asides: Vec::new(),
            notes: Vec::new(),
        };
        for step in steps {
            match step {
                Step::Single { file } => {
                    let fd =
                        single(all.of(*file)?.kind).map_err(|e| all.failed(*file, "socket", &e))?;
                    all.made.insert(*file, fd);
                }
                Step::Pair { file, other } => all.pair(*file, *other)?,
                Step::Bind { file, hidden } => all.bind(*file, *hidden)?,
                Step::Listen { file, room } => all.listen(*file, *room)?,
                Step::Connect { file, to, accepted } => all.connect(*file, *to, *accepted)?,
                Step::Fill { .. } | Step::Join { .. } | Step::Settle { .. } => {}
            }
        }
        Ok(all)
    }

    /// One of them.
    pub fn get(&self, file: u32) -> Option<&OwnedFd> {
        self.made.get(&file)
    }

    /// Everything that may be in flight is there: fill them, and give them what must come after that.
    pub fn finish(
        &mut self,
        steps: &[Step],
        flights: &BTreeMap<u32, OwnedFd>,
        links: &mut Links,
    ) -> Result<(), Error> {
        for step in steps {
            match step {
                Step::Fill { file, by } => self.fill(*file, *by, flights)?,
                Step::Join { file, to } => {
                    let at = self.address(*to)?;
                    at.connect(self.fd(*file)?)
                        .map_err(|e| self.failed(*file, "connect", &e))?;
                }
                Step::Settle { file } => self.settle(*file)?,
                _ => {}
            }
        }
        for (path, dir, name, file) in self.asides.drain(..) {
            links.gone_after_success(path, dir, name, file);
        }
        Ok(())
    }

    fn of(&self, file: u32) -> Result<&'a Socket, Error> {
        match self.cp.files.get(&file) {
            Some(File::Socket(s)) => Ok(s),
            _ => Err(Error::Internal {
                what: format!("socket {file}"),
                why: "not there".into(),
            }),
        }
    }

    fn fd(&self, file: u32) -> Result<BorrowedFd<'_>, Error> {
        self.made
            .get(&file)
            .map(AsFd::as_fd)
            .ok_or_else(|| Error::Internal {
                what: format!("socket {file}"),
                why: "not made".into(),
            })
    }

    fn failed(&self, file: u32, call: &str, e: &io::Error) -> Error {
        let what = armrest_plan::files::name(self.cp, file);
        Error::Machine {
            what: format!("{what}: {call}"),
            why: e.to_string(),
        }
    }

    fn pair(&mut self, file: u32, other: Option<u32>) -> Result<(), Error> {
        let kind = make(self.of(file)?.kind) | libc::SOCK_NONBLOCK;
        let ids = owner(self.cp, file).or_else(|| owner(self.cp, other?));
        let made = as_task(ids, || helper::pair(kind));
        let (a, b) = made.map_err(|e| self.failed(file, "socketpair", &e))?;
        self.made.insert(file, a);
        match other {
            Some(other) => self.made.insert(other, b),
            None => self.gone.insert(file, b),
        };
        Ok(())
    }

    fn bind(&mut self, file: u32, hidden: bool) -> Result<(), Error> {
        let s = self.of(file)?;
        match &s.name {
            None => Ok(()),
            Some(SocketName::Abstract(name)) => Address::named(name)
                .and_then(|a| a.bind(self.fd(file).map_err(io::Error::other)?))
                .map_err(|e| self.failed(file, "bind", &e)),
            Some(SocketName::Path { given, dir, .. }) if hidden => {
                let node = bind_hidden(self.fd(file)?, given, dir.is_some(), s.perms);
                let node = node.map_err(|e| self.failed(file, "bind out of sight", &e))?;
                self.nodes.extend(node.map(|n| (file, n)));
                Ok(())
            }
            Some(SocketName::Path { given, dir, .. }) => {
                let path = s
                    .name
                    .as_ref()
                    .and_then(SocketName::path)
                    .unwrap_or_default();
                let found = free(self.root, &path, s)?;
                let wrong = |e: io::Error| bad_path(&path, &words(s), &e);
                if let Some(old) = found.old {
                    let aside = self.journal.hidden();
                    let entry = self.journal.will_make(&Thing::Aside {
                        dir: found.dir.as_fd(),
                        name: &found.name,
                        aside: &aside,
                    })?;
                    if let Err(e) = rename(found.dir.as_fd(), &found.name, &aside) {
                        self.journal.gone(&entry)?;
                        return Err(wrong(e));
                    }
                    let dir = found.dir.try_clone().map_err(wrong)?;
                    self.asides.push((path.clone(), dir, aside, old));
                }
                let entry = self.journal.will_make(&Thing::File {
                    dir: found.dir.as_fd(),
                    name: &found.name,
                })?;
                let bound = bind_there(self.fd(file)?, given, dir.as_deref(), self.root);
                if let Err(e) = bound {
                    self.journal.gone(&entry)?;
                    return Err(self.failed(file, "bind", &e));
                }
                self.journal
                    .made_file(&entry, found.dir.as_fd(), &found.name)?;
                let node = os::openat(
                    found.dir.as_fd(),
                    &found.name,
                    libc::O_PATH | libc::O_NOFOLLOW,
                    0,
                )
                .map_err(wrong)?;
                attributes(&node, s.perms).map_err(wrong)?;
                self.nodes.insert(file, node);
                Ok(())
            }
        }
    }

    fn listen(&self, file: u32, room: u32) -> Result<(), Error> {
        let fd = self.fd(file)?.as_raw_fd();
        let room = i32::try_from(room).unwrap_or(i32::MAX);
        let listen = || {
            // SAFETY: numbers only.
            os::check(unsafe { libc::listen(fd, room) })
        };
        let done = as_task(owner(self.cp, file), listen);
        done.map(drop).map_err(|e| self.failed(file, "listen", &e))
    }

    /// How to get at one that has a name, wherever that name may be now.
    fn address(&self, file: u32) -> Result<Address, Error> {
        let at = match (&self.of(file)?.name, self.nodes.get(&file)) {
            (Some(SocketName::Abstract(name)), _) => Address::named(name),
            (_, Some(node)) => Address::path(&through(node)),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        at.map_err(|e| self.failed(file, "address", &e))
    }

    fn connect(&mut self, file: u32, to: u32, accepted: Option<u32>) -> Result<(), Error> {
        let at = self.address(to)?;
        let fd = self.fd(file)?;
        let connected = as_task(owner(self.cp, file), || at.connect(fd)).or_else(|e| {
            // The way there may be closed to the task, which once went another.
            let denied = e.kind() == io::ErrorKind::PermissionDenied;
            if denied { at.connect(fd) } else { Err(e) }
        });
        connected.map_err(|e| {
            let full = e.raw_os_error() == Some(libc::EAGAIN);
            let hint = if full {
                "connect (net.core.somaxconn is too small)"
            } else {
                "connect"
            };
            self.failed(file, hint, &e)
        })?;
        let Some(accepted) = accepted else {
            return Ok(());
        };
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let none = std::ptr::null_mut();
        let listening = self.fd(to)?.as_raw_fd();
        // SAFETY: no address is asked for; the call makes a descriptor.
        let got = unsafe { os::made(libc::accept4(listening, none, none.cast(), flags)) };
        let got = got.map_err(|e| self.failed(to, "accept", &e))?;
        self.made.insert(accepted, got);
        Ok(())
    }

    fn fill(
        &mut self,
        file: u32,
        by: Sender,
        flights: &BTreeMap<u32, OwnedFd>,
    ) -> Result<(), Error> {
        let none = Vec::new();
        let packets = self.cp.packets.get(&file).unwrap_or(&none);
        let kind = self.of(file)?.kind;
        let failed = |e: io::Error| {
            let full = matches!(e.raw_os_error(), Some(libc::EAGAIN));
            let call = match kind {
                SocketKind::Datagram if full => {
                    "what waits in it (net.unix.max_dgram_qlen is too small)"
                }
                _ => "what waits in it",
            };
            self.failed(file, call, &e)
        };
        let stranger;
        let (from, to) = match by {
            Sender::Peer(peer) => (self.fd(peer)?, None),
            Sender::Gone => match self.gone.get(&file) {
                Some(end) => (end.as_fd(), None),
                None => return Ok(()),
            },
            Sender::Named(peer) => (self.fd(peer)?, Some(self.address(file)?)),
            Sender::Stranger => {
                stranger = single(kind).map_err(failed)?;
                (stranger.as_fd(), Some(self.address(file)?))
            }
        };
        let all: usize = packets.iter().map(|p| p.bytes.len() + 4096).sum();
        room(from, all);
        for p in packets {
            send(from, p, kind, to.as_ref(), flights).map_err(failed)?;
        }
        if by == Sender::Gone {
            self.gone.remove(&file);
        }
        Ok(())
    }

    fn settle(&mut self, file: u32) -> Result<(), Error> {
        let s = self.of(file)?;
        let fd = self.fd(file)?;
        if s.state == SocketState::Listening {
            self.listen(file, s.backlog)?;
        }
        let o = &s.options;
        let raw = fd.as_raw_fd();
        for (name, force, usual, size) in [
            (
                "SO_SNDBUF",
                libc::SO_SNDBUFFORCE,
                libc::SO_SNDBUF,
                o.send_buffer,
            ),
            (
                "SO_RCVBUF",
                libc::SO_RCVBUFFORCE,
                libc::SO_RCVBUF,
                o.receive_buffer,
            ),
        ] {
            let now = buffer(raw, force, usual, size).map_err(|e| self.failed(file, name, &e))?;
            if now != size {
                let what = armrest_plan::files::name(self.cp, file);
                self.notes
                    .push(format!("{what}: {name} is {now}, not {size}"));
            }
        }
        let fd = self.fd(file)?;
        for (name, option, time) in [
            ("SO_SNDTIMEO", libc::SO_SNDTIMEO, o.send_timeout),
            ("SO_RCVTIMEO", libc::SO_RCVTIMEO, o.receive_timeout),
        ] {
            timeout(raw, option, time).map_err(|e| self.failed(file, name, &e))?;
        }
        for (option, value) in &o.values {
            let name = format!("socket option {option} = {value}");
            set(raw, *option, *value).map_err(|e| self.failed(file, &name, &e))?;
        }
        if let Some(seconds) = o.linger {
            let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
            let linger = [1, seconds];
            set_raw(raw, libc::SO_LINGER, &linger)
                .map_err(|e| self.failed(file, "SO_LINGER", &e))?;
        }
        let how = match s.shutdown {
            1 => libc::SHUT_RD,
            2 => libc::SHUT_WR,
            3 => libc::SHUT_RDWR,
            _ => return Ok(()),
        };
        // SAFETY: numbers only.
        match os::check(unsafe { libc::shutdown(fd.as_raw_fd(), how) }) {
            // One that is not connected: some kernels shut it down all the same.
            Err(e) if e.raw_os_error() != Some(libc::ENOTCONN) => {
                Err(self.failed(file, "shutdown", &e))
            }
            _ => Ok(()),
        }
    }
}

/// Look whether the path of a socket could be had. Nothing is touched.
pub fn look(root: &Root, s: &Socket) -> Result<(), Error> {
    match &s.name {
        Some(name @ SocketName::Path { deleted: false, .. }) => {
            free(root, &name.path().unwrap_or_default(), s).map(drop)
        }
        _ => Ok(()),
    }
}

/// The place of a name, and the socket without anybody that lies there.
struct Place {
    dir: OwnedFd,
    name: String,
    old: Option<OwnedFd>,
}

fn bad_path(path: &str, who: &str, e: &io::Error) -> Error {
    Error::BadPath {
        path: path.into(),
        why: format!("{who}: {e}"),
    }
}

/// Is the name free, or that of the socket which the checkpoint left behind?
fn free(root: &Root, path: &str, s: &Socket) -> Result<Place, Error> {
    let who = words(s);
    let wrong = |why: &str| Error::BadPath {
        path: path.into(),
        why: format!("{who}: {why}"),
    };
    let failed = |e: io::Error| bad_path(path, &who, &e);
    let (dir, name) = root.parent(path).map_err(failed)?;
    let old = match os::openat(dir.as_fd(), &name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
        Ok(old) => old,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Place {
                dir,
                name,
                old: None,
            });
        }
        Err(e) => return Err(failed(e)),
    };
    let meta = os::fstat(old.as_fd()).map_err(failed)?;
    if !meta.is(libc::S_IFSOCK) {
        return Err(wrong("another file has its name now"));
    }
    // A socket of another type learns that somebody is there, and leaves no trace.
    let other = match s.kind {
        SocketKind::Datagram => SocketKind::Stream,
        _ => SocketKind::Datagram,
    };
    let probe = single(other).map_err(failed)?;
    let at = Address::path(&through(&old)).map_err(failed)?;
    match at.connect(probe.as_fd()) {
        Err(e) if e.raw_os_error() == Some(libc::ECONNREFUSED) => {}
        Err(e) if e.raw_os_error() != Some(libc::EPROTOTYPE) => return Err(failed(e)),
        _ => return Err(wrong("another process is bound to it")),
    }
    if s.perms
        .is_some_and(|p| p != (meta.mode(), meta.uid(), meta.gid()))
    {
        return Err(wrong(
            "a socket with another mode or owner lies there: remove it",
        ));
    }
    Ok(Place {
        dir,
        name,
        old: Some(old),
    })
}

fn through(node: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", node.as_raw_fd())
}

fn rename(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<()> {
    let (from, to) = (os::c_path(from)?, os::c_path(to)?);
    let at = dir.as_raw_fd();
    // SAFETY: both names are NUL-terminated; `dir` is open. The new name is one that nobody else makes.
    os::check(unsafe { libc::renameat(at, from.as_ptr(), at, to.as_ptr()) }).map(drop)
}

/// Bind with the name as it was given. Nobody can connect before it has its mode.
fn bind_there(fd: BorrowedFd<'_>, given: &str, dir: Option<&str>, root: &Root) -> io::Result<()> {
    let how = libc::O_PATH | libc::O_DIRECTORY;
    let cwd = dir.map(|d| root.open_path(d, how)).transpose()?;
    let at = Address::path(given)?;
    let bind = || {
        if let Some(cwd) = &cwd {
            // SAFETY: numbers only.
            os::check(unsafe { libc::fchdir(cwd.as_raw_fd()) })?;
        }
        // SAFETY: cannot fail.
        unsafe { libc::umask(0o777) };
        at.bind(fd)
    };
    // In a child, so that this process stays where it is.
    helper::elsewhere(|| {
        if !root.is_host() {
            enter(root.dir())?;
        }
        bind().map(|()| None)
    })
    .map(drop)
}

fn enter(dir: &OwnedFd) -> io::Result<()> {
    // SAFETY: numbers, and a constant that ends with NUL.
    unsafe {
        os::check(libc::fchdir(dir.as_raw_fd()))?;
        os::check(libc::chroot(c".".as_ptr())).map(drop)
    }
}

/// Bind in a file system of its own, which nobody else sees and which goes with the socket. The file, to connect to.
fn bind_hidden(
    fd: BorrowedFd<'_>,
    given: &str,
    relative: bool,
    perms: Option<(u32, u32, u32)>,
) -> io::Result<Option<OwnedFd>> {
    let at = Address::path(given)?;
    helper::elsewhere(|| {
        let none = std::ptr::null();
        let tmpfs = c"tmpfs".as_ptr();
        // SAFETY: constants that end with NUL, and nothing that the calls would read. This child's mounts are its own.
        unsafe {
            os::check(libc::unshare(libc::CLONE_NEWNS))?;
            let private = libc::MS_REC | libc::MS_PRIVATE;
            os::check(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
            os::check(libc::mount(tmpfs, c"/proc".as_ptr(), tmpfs, 0, none.cast()))?;
        }
        let new = std::fs::File::open("/proc")?;
        let new = OwnedFd::from(new);
        // SAFETY: numbers only.
        os::check(unsafe { libc::fchdir(new.as_raw_fd()) })?;
        if !relative {
            enter(&new)?;
        }
        if let Some((dirs, _)) = given.rsplit_once('/').filter(|(d, _)| !d.is_empty()) {
            std::fs::create_dir_all(dirs)?;
        }
        at.bind(fd)?;
        if let Some((mode, uid, gid)) = perms {
            let name = os::c_path(given)?;
            // SAFETY: `name` ends with NUL.
            unsafe {
                os::check(libc::chown(name.as_ptr(), uid, gid))?;
                os::check(libc::chmod(name.as_ptr(), (mode & 0o7777) as libc::mode_t))?;
            }
        }
        let here = std::fs::File::open(".")?;
        os::openat(here.as_fd(), given, libc::O_PATH | libc::O_NOFOLLOW, 0).map(Some)
    })
}

fn attributes(node: &OwnedFd, perms: Option<(u32, u32, u32)>) -> io::Result<()> {
    let Some((mode, uid, gid)) = perms else {
        return chmod(node, 0o777);
    };
    let now = os::fstat(node.as_fd())?;
    if (now.uid(), now.gid()) != (uid, gid) {
        let path = os::c_path(&through(node))?;
        // SAFETY: `path` ends with NUL.
        os::check(unsafe { libc::chown(path.as_ptr(), uid, gid) })?;
    }
    chmod(node, mode & 0o7777)
}

fn chmod(node: &OwnedFd, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(through(node), std::fs::Permissions::from_mode(mode))
}

/// Effective ids of the task that holds a socket first: what SO_PEERCRED of its peer will say.
fn owner(cp: &Checkpoint, file: u32) -> Option<(u32, u32)> {
    let lives = cp.tasks.iter().filter_map(|t| t.live.as_ref());
    let live = lives
        .into_iter()
        .find(|l| l.fds.iter().any(|f| f.file == file))?;
    let creds = live.threads.first()?.creds.as_ref()?;
    Some((creds.euid, creds.egid))
}

/// Do this with a task's effective ids, if we may and are somebody else.
fn as_task<T>(ids: Option<(u32, u32)>, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // SAFETY: cannot fail.
    let ours = unsafe { (libc::geteuid(), libc::getegid()) };
    let Some((uid, gid)) = ids.filter(|ids| ours.0 == 0 && *ids != ours) else {
        return f();
    };
    let ids = os::Ids {
        real: None,
        user: uid,
        group: Some(gid),
    };
    os::with_ids(ids, |taken| taken.and_then(|()| f()))
}

/// Send one packet; a stream takes it in pieces if it must.
fn send(
    from: BorrowedFd<'_>,
    p: &Packet,
    kind: SocketKind,
    to: Option<&Address>,
    flights: &BTreeMap<u32, OwnedFd>,
) -> io::Result<()> {
    let fds = p
        .rights
        .iter()
        .map(|id| flights.get(id).map(AsRawFd::as_raw_fd))
        .collect::<Option<Vec<RawFd>>>()
        .ok_or(io::ErrorKind::NotFound)?;
    let mut fds = &fds[..];
    let mut rest = &p.bytes[..];
    loop {
        let n = helper::send(from, rest, fds, to)?;
        rest = rest.get(n..).unwrap_or_default();
        fds = &[];
        if rest.is_empty() || kind != SocketKind::Stream {
            return Ok(());
        }
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
}

fn get(fd: RawFd, option: libc::c_int) -> io::Result<u32> {
    let mut now: libc::c_int = 0;
    let mut len: libc::socklen_t = 4;
    let at = std::ptr::from_mut(&mut now).cast();
    // SAFETY: room for one int, as the call is told.
    os::check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, at, &mut len) })?;
    Ok(now.cast_unsigned())
}

fn set_raw<T>(fd: RawFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    let at = std::ptr::from_ref(value).cast();
    // SAFETY: the value is as long as the call is told.
    os::check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, at, len) }).map(drop)
}

/// Set an option if it is another now. One that this kernel lacks is right if it is off.
fn set(fd: RawFd, option: u32, value: u32) -> io::Result<()> {
    let option = option.cast_signed();
    let lacks = |e: &io::Error| e.raw_os_error() == Some(libc::ENOPROTOOPT);
    match get(fd, option) {
        Ok(now) if now == value => return Ok(()),
        Err(e) if lacks(&e) && value == 0 => return Ok(()),
        _ => {}
    }
    match set_raw(fd, option, &value) {
        Err(e) if lacks(&e) && option == SO_BUF_LOCK => Ok(()),
        done => done,
    }
}

/// Who has set a buffer's size by hand; nothing depends on it for a unix socket but what getsockopt says.
const SO_BUF_LOCK: libc::c_int = 72;

/// Give a buffer a size; kernels double what they are told. The size that it has then.
fn buffer(fd: RawFd, force: libc::c_int, usual: libc::c_int, size: u32) -> io::Result<u32> {
    if get(fd, usual)? != size {
        let half = size / 2;
        set_raw(fd, force, &half).or_else(|_| set_raw(fd, usual, &half))?;
    }
    get(fd, usual)
}

/// Room for so many bytes at once.
fn room(fd: BorrowedFd<'_>, bytes: usize) {
    let bytes = i32::try_from(bytes.saturating_mul(2)).unwrap_or(i32::MAX / 2);
    let fd = fd.as_raw_fd();
    if get(fd, libc::SO_SNDBUF).is_ok_and(|now| now < bytes.cast_unsigned()) {
        // If it is not granted, sending says so.
        let _ = set_raw(fd, libc::SO_SNDBUFFORCE, &bytes)
            .or_else(|_| set_raw(fd, libc::SO_SNDBUF, &bytes));
    }
}

/// Seconds and microseconds, as words of the kernel.
fn timeout(fd: RawFd, option: libc::c_int, (s, us): (u32, u32)) -> io::Result<()> {
    let wide = |n: u32| libc::c_long::from(i32::try_from(n).unwrap_or(i32::MAX));
    let time = [wide(s), wide(us)];
    let mut now: [libc::c_long; 2] = [0; 2];
    let mut len = libc::socklen_t::try_from(size_of_val(&now)).unwrap_or(0);
    let at = now.as_mut_ptr().cast();
    // SAFETY: room for two words, as the call is told.
    os::check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, at, &mut len) })?;
    if now == time {
        return Ok(());
    }
    set_raw(fd, option, &time)
}
