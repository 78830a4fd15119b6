//! Terminals: pseudo terminals are made with both ends, under their numbers if these are free; `/dev/tty` is opened by a
//! child that has the terminal for a moment, so that it too is one description, whoever holds it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use armrest_images::{Checkpoint, File, Modes, Terminal};
use armrest_plan::terminals::{Caller, Opening, Terminals};

use crate::error::Error;
use crate::objects::helper;
use crate::os;

const TCGETS: u32 = 0x5401;
const TCSETS: u32 = 0x5402;
const TIOCEXCL: u32 = 0x540c;
const TIOCSCTTY: u32 = 0x540e;
const TIOCGPGRP: u32 = 0x540f;
const TIOCSPGRP: u32 = 0x5410;
const TIOCSWINSZ: u32 = 0x5414;
const FIONREAD: u32 = 0x541b;
const TIOCPKT: u32 = 0x5420;
const TIOCNOTTY: u32 = 0x5422;
const TIOCGPTPEER: u32 = 0x5441;
const TIOCSLCKTRMIOS: u32 = 0x5457;
const TIOCGPTN: u32 = 0x8004_5430;
const TIOCSPTLCK: u32 = 0x4004_5431;
/// Numbers that may have to be tried until the right one comes.
const MAX_TRIES: u32 = 4096;
/// How long the kernel may take to pass bytes on from one end to the other.
const PASSING: Duration = Duration::from_secs(2);

/// The kernel's structure, as TCGETS knows it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Raw {
    input: u32,
    output: u32,
    control: u32,
    local: u32,
    line: u8,
    chars: [u8; 19],
}

impl From<&Modes> for Raw {
    fn from(m: &Modes) -> Raw {
        Raw {
            input: m.input,
            output: m.output,
            control: m.control,
            local: m.local,
            line: m.line,
            chars: m.chars,
        }
    }
}

fn number(fd: RawFd, request: u32, value: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: these requests take a number.
    os::check(unsafe { libc::ioctl(fd, request as _, value) })
}

fn with<T>(fd: RawFd, request: u32, value: &mut T) -> io::Result<()> {
    // SAFETY: these requests read or write a structure of this type.
    os::check(unsafe { libc::ioctl(fd, request as _, std::ptr::from_mut(value)) }).map(drop)
}

struct Pty {
    master: OwnedFd,
    slave: OwnedFd,
    /// Its number here.
    index: u32,
}

/// Terminals of the checkpoint.
pub struct Ttys<'a> {
    cp: &'a Checkpoint,
    ptys: Vec<Pty>,
    caller: Option<OwnedFd>,
    /// What became otherwise, in sentences.
    pub notes: Vec<String>,
}

impl<'a> Ttys<'a> {
    /// Make all pseudo terminals, with modes and what waits in them.
    pub fn make(cp: &'a Checkpoint, plan: &Terminals) -> Result<Ttys<'a>, Error> {
        let mut all = Ttys {
            cp,
            ptys: Vec::new(),
            caller: None,
            notes: Vec::new(),
        };
        for p in &plan.ptys {
            let failed =
                |what: &str, e: io::Error| failed(&format!("/dev/pts/{}: {what}", p.index), &e);
            let flags = plan
                .openings
                .iter()
                .find_map(|(id, o)| match (o, cp.files.get(id)) {
                    (Opening::Master(n), Some(File::Terminal(t))) if *n == all.ptys.len() => {
                        Some(t.flags)
                    }
                    _ => None,
                });
            let flags = flags.map_or(libc::O_RDWR, u32::cast_signed);
            let (master, index) = master(p.index, flags).map_err(|e| failed("/dev/ptmx", e))?;
            if index != p.index {
                all.notes
                    .push(format!("/dev/pts/{} is now /dev/pts/{index}", p.index));
            }
            let slave =
                slave(master.as_fd(), index, libc::O_RDWR).map_err(|e| failed("opening", e))?;
            let pty = Pty {
                master,
                slave,
                index,
            };
            let (m, s) = (
                cp.terminals.get(&p.master),
                p.slave.and_then(|s| cp.terminals.get(&s)),
            );
            fill(&pty, m, s).map_err(|e| failed("unread input", e))?;
            let any = s.or(m);
            if let Some(modes) = any.and_then(|t| t.modes.as_ref()) {
                with(pty.slave.as_raw_fd(), TCSETS, &mut Raw::from(modes))
                    .map_err(|e| failed("modes", e))?;
            }
            if let Some(mut size) = any.and_then(|t| t.size) {
                with(pty.master.as_raw_fd(), TIOCSWINSZ, &mut size)
                    .map_err(|e| failed("window size", e))?;
            }
            owner(cp, &pty, s).map_err(|e| failed("owner and mode", e))?;
            all.ptys.push(pty);
        }
        Ok(all)
    }

    /// The description with this file id.
    pub fn open(
        &mut self,
        plan: &Terminals,
        id: u32,
        flags: i32,
    ) -> Result<Option<OwnedFd>, Error> {
        let none = || Error::Internal {
            what: format!("terminal {id}"),
            why: "not planned".into(),
        };
        let opening = plan.openings.get(&id).ok_or_else(none)?;
        let pty = |n: &usize| self.ptys.get(*n).ok_or_else(none);
        let name = armrest_plan::files::name(self.cp, id);
        let wrong = |e: io::Error| failed(&name, &e);
        Ok(Some(match opening {
            Opening::Master(n) => pty(n)?.master.try_clone().map_err(wrong)?,
            Opening::Slave(n) => {
                let p = pty(n)?;
                slave(p.master.as_fd(), p.index, flags).map_err(wrong)?
            }
            Opening::Controlling(n) => controlling(&pty(n)?.slave, flags).map_err(wrong)?,
            Opening::Caller => {
                if self.caller.is_none() {
                    self.caller = Some(callers()?);
                }
                let caller = self.caller.as_ref().ok_or_else(none)?;
                os::reopen(caller.as_fd(), flags).map_err(wrong)?
            }
            Opening::Path => return Ok(None),
        }))
    }

    /// All are open: what would have been in the way. Terminals that sessions take, in the order of the plan.
    pub fn finish(self, plan: &Terminals) -> Result<(Vec<OwnedFd>, Vec<String>), Error> {
        for (pty, p) in self.ptys.iter().zip(&plan.ptys) {
            let failed =
                |what: &str, e: io::Error| failed(&format!("/dev/pts/{}: {what}", p.index), &e);
            let master = self.cp.terminals.get(&p.master);
            let slave = p.slave.and_then(|s| self.cp.terminals.get(&s));
            let locked = slave.or(master).and_then(|t| t.locked_modes.as_ref());
            let any =
                |m: &&Modes| (m.input, m.output, m.control, m.local, m.line) != (0, 0, 0, 0, 0);
            if let Some(m) = locked.filter(any) {
                with(pty.slave.as_raw_fd(), TIOCSLCKTRMIOS, &mut Raw::from(m))
                    .map_err(|e| failed("locked modes", e))?;
            }
            for (t, fd) in [(master, &pty.master), (slave, &pty.slave)] {
                let fd = fd.as_raw_fd();
                if t.is_some_and(|t| t.exclusive) {
                    number(fd, TIOCEXCL, 0).map_err(|e| failed("TIOCEXCL", e))?;
                }
            }
            if let Some(m) = master {
                let fd = pty.master.as_raw_fd();
                if m.packet_mode {
                    with(fd, TIOCPKT, &mut 1i32).map_err(|e| failed("packet mode", e))?;
                }
                if m.locked {
                    with(fd, TIOCSPTLCK, &mut 1i32).map_err(|e| failed("TIOCSPTLCK", e))?;
                }
            }
        }
        let mut controls = Vec::new();
        for c in &plan.controls {
            if let Some(p) = self.ptys.get(c.pty) {
                let fd = p.slave.try_clone();
                controls.push(fd.map_err(|e| failed("terminal of a session", &e))?);
            }
        }
        Ok((controls, self.notes))
    }
}

fn failed(what: &str, e: &io::Error) -> Error {
    Error::Machine {
        what: what.to_owned(),
        why: e.to_string(),
    }
}

/// A master with this number if it is free, else with the next that is.
fn master(index: u32, flags: i32) -> io::Result<(OwnedFd, u32)> {
    let flags = flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC) | libc::O_NOCTTY;
    let here = std::fs::File::open("/")?;
    // Lower ones are held until the right one has come: the kernel gives the lowest that is free.
    let mut lower = Vec::new();
    loop {
        let fd = os::openat(here.as_fd(), "/dev/ptmx", flags, 0)?;
        let mut n = 0u32;
        with(fd.as_raw_fd(), TIOCGPTN, &mut n)?;
        let tried = u32::try_from(lower.len()).unwrap_or(MAX_TRIES);
        if n >= index || tried >= MAX_TRIES {
            with(fd.as_raw_fd(), TIOCSPTLCK, &mut 0i32)?;
            return Ok((fd, n));
        }
        lower.push(fd);
    }
}

/// An opening of the other end.
fn slave(master: BorrowedFd<'_>, index: u32, flags: i32) -> io::Result<OwnedFd> {
    let once = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC;
    let flags = flags & !once | libc::O_NOCTTY;
    // O_CLOEXEC would stay with the description, where the task would see it (F_GETFL).
    match number(master.as_raw_fd(), TIOCGPTPEER, flags) {
        Ok(fd) => {
            // SAFETY: TIOCGPTPEER makes a descriptor.
            let fd = unsafe { os::made(fd) }?;
            // SAFETY: numbers only.
            os::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) })?;
            Ok(fd)
        }
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::ENOTTY | libc::EINVAL | libc::ENOSYS)
            ) =>
        {
            os::openat(master, &format!("/dev/pts/{index}"), flags, 0)
        }
        Err(e) => Err(e),
    }
}

/// `/dev/tty` where it means this terminal: opened by a child that leads a session and takes the terminal for as long.
fn controlling(slave: &OwnedFd, flags: i32) -> io::Result<OwnedFd> {
    let got = helper::elsewhere(|| {
        // SAFETY: numbers only.
        os::check(unsafe { libc::setsid() })?;
        number(slave.as_raw_fd(), TIOCSCTTY, 0)?;
        let tty = os::openat(slave.as_fd(), "/dev/tty", flags, 0);
        // Left of its own will, or it would be hung up with the end of this session. All signals are blocked.
        number(slave.as_raw_fd(), TIOCNOTTY, 0)?;
        tty.map(Some)
    })?;
    got.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The caller's terminal: that of a standard descriptor, or of its session.
pub fn callers() -> Result<OwnedFd, Error> {
    for fd in 0..3 {
        // SAFETY: a number.
        if unsafe { libc::isatty(fd) } == 1 {
            // SAFETY: numbers only; the duplicate is a new descriptor.
            return unsafe { os::made(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3)) }
                .map_err(|e| failed("the caller's terminal", &e));
        }
    }
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map(OwnedFd::from)
        .map_err(|e| Error::Machine {
            what: "--shell-job: the caller has no terminal".into(),
            why: e.to_string(),
        })
}

/// Give the name of a slave its owner, group and mode.
fn owner(cp: &Checkpoint, pty: &Pty, t: Option<&Terminal>) -> io::Result<()> {
    let Some(t) = t else { return Ok(()) };
    let slave = std::fs::File::from(pty.slave.try_clone()?);
    let now = slave.metadata()?;
    if let Some((uid, gid)) = t.owner.filter(|o| *o != (now.uid(), now.gid())) {
        std::os::unix::fs::fchown(&slave, Some(uid), Some(gid))?;
    }
    let mode = cp.files.values().find_map(|f| match f {
        File::Terminal(f)
            if cp
                .terminals
                .get(&f.terminal)
                .is_some_and(|o| o.kind == t.kind) =>
        {
            match cp.files.get(&f.reg?)? {
                File::Reg(r) => r.mode,
                _ => None,
            }
        }
        _ => None,
    });
    if let Some(mode) = mode.filter(|m| (m ^ now.mode()) & 0o7777 != 0) {
        use std::os::unix::fs::PermissionsExt;
        slave.set_permissions(std::fs::Permissions::from_mode(mode & 0o7777))?;
    }
    Ok(())
}

const ICANON: u32 = 2;

/// Put back what nobody has read yet, in either direction. What was processed then is not processed again.
fn fill(pty: &Pty, master: Option<&Terminal>, slave: Option<&Terminal>) -> io::Result<()> {
    let input = slave.map_or(&[][..], |t| &t.input);
    let output = master.map_or(&[][..], |t| &t.input);
    if input.is_empty() && output.is_empty() {
        return Ok(());
    }
    let mut raw = Raw::default();
    with(pty.slave.as_raw_fd(), TCGETS, &mut raw)?;
    // Whole lines stay lines. Otherwise what is there becomes one line when lines are asked for.
    let modes = slave.or(master).and_then(|t| t.modes.as_ref());
    let lines = modes.is_some_and(|m| m.local & ICANON != 0) && input.last() == Some(&b'\n');
    raw.input = 0;
    raw.output = 0;
    raw.local = if lines { ICANON } else { 0 };
    raw.chars = [0; 19];
    // VMIN: a read waits for one byte.
    raw.chars[6] = 1;
    with(pty.slave.as_raw_fd(), TCSETS, &mut raw)?;
    pass(&pty.master, &pty.slave, input)?;
    pass(&pty.slave, &pty.master, output)
}

fn pass(from: &OwnedFd, to: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let start = Instant::now();
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: as many bytes as the call is told.
        let n = unsafe { libc::write(from.as_raw_fd(), rest.as_ptr().cast(), rest.len().min(256)) };
        match usize::try_from(n) {
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(_) if start.elapsed() < PASSING => {
                let e = io::Error::last_os_error();
                if e.kind() != io::ErrorKind::WouldBlock {
                    return Err(e);
                }
            }
            Err(_) => return Err(io::Error::last_os_error()),
        }
        until(to, bytes.len() - rest.len(), start)?;
    }
    Ok(())
}

/// The kernel passes bytes on in its own time.
fn until(fd: &OwnedFd, bytes: usize, start: Instant) -> io::Result<()> {
    loop {
        let mut there: libc::c_int = 0;
        with(fd.as_raw_fd(), FIONREAD, &mut there)?;
        if usize::try_from(there).is_ok_and(|n| n >= bytes) {
            return Ok(());
        }
        if start.elapsed() > PASSING {
            return Err(io::Error::other(format!(
                "{there} of {bytes} bytes came through"
            )));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// In the leader of a session: take the terminal, and say who is in the foreground. A group that is gone is no error.
pub fn take(fd: RawFd, pgrp: libc::pid_t) -> io::Result<()> {
    number(fd, TIOCSCTTY, 0)?;
    match foreground(fd, pgrp) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::EPERM)) => Ok(()),
        done => done,
    }
}

/// Put a group into the foreground of the caller's terminal. SIGTTOU must be blocked.
pub fn foreground(fd: RawFd, mut pgrp: libc::pid_t) -> io::Result<()> {
    with(fd, TIOCSPGRP, &mut pgrp)
}

/// Which group is there.
pub fn in_front(fd: RawFd) -> io::Result<libc::pid_t> {
    let mut pgrp = 0;
    with(fd, TIOCGPGRP, &mut pgrp).map(|()| pgrp)
}

/// The caller's terminal while a task uses it: as it was, if the restore fails.
pub struct Lent {
    fd: OwnedFd,
    modes: Raw,
    pgrp: Option<libc::pid_t>,
    kept: bool,
}

impl Lent {
    /// Remember how it is.
    pub fn new() -> Result<Lent, Error> {
        let fd = callers()?;
        let mut modes = Raw::default();
        with(fd.as_raw_fd(), TCGETS, &mut modes)
            .map_err(|e| failed("the caller's terminal", &e))?;
        let pgrp = in_front(fd.as_raw_fd()).ok();
        Ok(Lent {
            fd,
            modes,
            pgrp,
            kept: false,
        })
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// In the child: foreground and modes are the task's.
    pub fn use_it(&self, caller: &Caller, pgrp: Option<libc::pid_t>) -> io::Result<()> {
        if let Some(pgrp) = pgrp {
            foreground(self.fd(), pgrp)?;
        }
        match &caller.modes {
            Some(m) => with(self.fd(), TCSETS, &mut Raw::from(m)),
            None => Ok(()),
        }
    }

    /// The restore succeeded.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let _ = with(self.fd.as_raw_fd(), TCSETS, &mut self.modes.clone());
        if let Some(pgrp) = self.pgrp {
            let _ = foreground(self.fd.as_raw_fd(), pgrp);
        }
    }
}
