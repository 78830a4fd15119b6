//! What the task does with its descriptors once they lie at their numbers: a thin layer over the plan's list.

use std::io;
use std::os::fd::RawFd;

use armrest_images::{Checkpoint, Epoll, File, Task};
use armrest_plan::files::{Act, EPOLL_HOW};

use crate::objects::lock;
use crate::os;

/// Do one act of `task`. What was tried, if it failed.
pub fn act(cp: &Checkpoint, task: &Task, act: &Act) -> Result<(), (String, io::Error)> {
    let number = |fd: u32| fd.cast_signed();
    let named = |fd: u32, what: &str| {
        let text = format!("fd {fd}: {what}");
        move |e: io::Error| (text, e)
    };
    match act {
        Act::Async { fd } => asynchronous(number(*fd)).map_err(named(*fd, "O_ASYNC")),
        Act::Epoll { fd, file } => match cp.files.get(file) {
            Some(File::Epoll(e)) => fill(number(*fd), e).map_err(named(*fd, "epoll set")),
            _ => Ok(()),
        },
        Act::Listen { fd, backlog } => {
            listen(number(*fd), task, *backlog).map_err(named(*fd, "listen"))
        }
        Act::Lock(l) => lock::take(number(l.fd), l).map_err(named(l.fd, "lock")),
    }
}

/// The kernel keeps the number, and tells it with the signal.
fn asynchronous(fd: RawFd) -> io::Result<()> {
    // SAFETY: numbers only.
    let now = os::check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: numbers only.
    os::check(unsafe { libc::fcntl(fd, libc::F_SETFL, now | libc::O_ASYNC) }).map(drop)
}

/// The kernel shows whoever connects the pid and the ids of who listened last.
fn listen(fd: RawFd, task: &Task, backlog: u32) -> io::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let creds = task
        .live
        .as_ref()
        .and_then(|l| l.threads.first()?.creds.as_ref());
    // SAFETY: numbers only.
    let listen = || os::check(unsafe { libc::listen(fd, backlog) }).map(drop);
    match creds {
        Some(c) => as_user((c.uid, c.euid), listen),
        None => listen(),
    }
}

/// Do this as another real and effective user, if we may.
pub(super) fn as_user(
    (uid, euid): (u32, u32),
    f: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    // SAFETY: cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root || (uid, euid) == (0, 0) {
        return f();
    }
    let ids = os::Ids {
        real: Some(uid),
        user: euid,
        group: None,
    };
    os::with_ids(ids, |taken| taken.and_then(|()| f()))
}

fn control(set: RawFd, op: libc::c_int, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
    let mut e = libc::epoll_event { events, u64: data };
    // SAFETY: `e` lives through the call.
    os::check(unsafe { libc::epoll_ctl(set, op, fd, &mut e) }).map(drop)
}

fn fill(set: RawFd, e: &Epoll) -> io::Result<()> {
    // An entry that was used up (EPOLLONESHOT) waits for nothing. It cannot be added so: it is added to wait for
    // anything once, which uses it up if it is ready; else it is told to wait for hang-ups alone, the least there is.
    let used = |t: &&armrest_images::EpollTarget| t.events & !EPOLL_HOW == 0;
    let any = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP).cast_unsigned();
    for t in e.targets.iter().filter(used) {
        let fd = t.fd.cast_signed();
        control(set, libc::EPOLL_CTL_ADD, fd, t.events | any, t.data)?;
        let mut got = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one event.
        let n = os::check(unsafe { libc::epoll_wait(set, &mut got, 1, 0) })?;
        let data = got.u64;
        if n == 0 || data != t.data {
            control(set, libc::EPOLL_CTL_MOD, fd, t.events, t.data)?;
        }
    }
    for t in e.targets.iter().filter(|t| !used(t)) {
        control(
            set,
            libc::EPOLL_CTL_ADD,
            t.fd.cast_signed(),
            t.events,
            t.data,
        )?;
    }
    Ok(())
}
