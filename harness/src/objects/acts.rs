//! What the task does with its descriptors once they lie at their numbers: a thin layer over the plan's list.

use std::io;
use std::os::fd::RawFd;

use armrest_images::{Checkpoint, Epoll, File, FileOwner, Task, Timerfd};
use armrest_plan::files::{Act, EPOLL_HOW};

use crate::objects::{event, lock};
use crate::os;

const F_SETOWN_EX: libc::c_int = 15;
const F_SETSIG: libc::c_int = 10;

/// Do one act of `task`. What was tried, if it failed.
pub fn act(cp: &Checkpoint, task: &Task, act: &Act) -> Result<(), (String, io::Error)> {
    let number = |fd: u32| fd.cast_signed();
    let named = |fd: u32, what: &str| {
        let text = format!("fd {fd}: {what}");
        move |e: io::Error| (text, e)
    };
    match act {
        Act::Owner {
            fd,
            owner: who,
            asynchronous,
        } => {
            owner(number(*fd), task, who, *asynchronous).map_err(named(*fd, "owner of its signals"))
        }
        Act::Epoll { fd, file } => match cp.files.get(file) {
            Some(File::Epoll(e)) => fill(number(*fd), e).map_err(named(*fd, "epoll set")),
            _ => Ok(()),
        },
        Act::Listen { fd, backlog } => {
            listen(number(*fd), task, *backlog).map_err(named(*fd, "listen"))
        }
        Act::Lock(l) => lock::take(number(l.fd), l).map_err(named(l.fd, "lock")),
        Act::Timer { fd, file } => match cp.files.get(file) {
            Some(File::Timerfd(t)) => arm(number(*fd), t).map_err(named(*fd, "timer")),
            _ => Ok(()),
        },
    }
}

/// The kernel keeps the ids of whoever names the owner, and checks signals with them.
fn owner(fd: RawFd, task: &Task, o: &FileOwner, asynchronous: bool) -> io::Result<()> {
    if o.signum != 0 {
        // SAFETY: numbers only.
        os::check(unsafe { libc::fcntl(fd, F_SETSIG, o.signum) })?;
    }
    if o.pid != 0 {
        // With another pid than the checkpoint's the task still means itself.
        // SAFETY: cannot fail.
        let pid = unsafe {
            match o.pid_type {
                2 if o.pid == task.pgid => libc::getpgrp(),
                0 | 1 if o.pid == task.pid => libc::getpid(),
                _ => o.pid.cast_signed(),
            }
        };
        let who = [o.pid_type.cast_signed(), pid];
        // SAFETY: the structure is two ints.
        let set = || os::check(unsafe { libc::fcntl(fd, F_SETOWN_EX, who.as_ptr()) }).map(drop);
        as_user((o.uid, o.euid), set)?;
    }
    if asynchronous {
        // SAFETY: numbers only.
        let now = os::check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
        // SAFETY: numbers only.
        os::check(unsafe { libc::fcntl(fd, libc::F_SETFL, now | libc::O_ASYNC) })?;
    }
    Ok(())
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
fn as_user((uid, euid): (u32, u32), f: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
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

/// `struct itimerspec` with 64-bit times: interval, value.
type Spec = [i64; 4];

fn arm(fd: RawFd, t: &Timerfd) -> io::Result<()> {
    let mut value = t.value;
    if value == (0, 0) && t.ticks > 0 {
        // It has expired and was not read: a periodic one goes on from its interval. That one expiry is unread comes
        // back by letting it expire at once; more are set below, where the kernel can.
        value = (0, 1);
    }
    if value == (0, 0) {
        return Ok(());
    }
    if t.settime & 1 != 0 {
        // What the images hold of an absolute timer is the time that is left.
        let mut now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `now` is writable.
        os::check(unsafe { libc::clock_gettime(t.clock.cast_signed(), &mut now) })?;
        let secs = u64::try_from(now.tv_sec).unwrap_or(0);
        let nsec = value.1 + u32::try_from(now.tv_nsec).unwrap_or(0);
        value = (
            value.0 + secs + u64::from(nsec / 1_000_000_000),
            nsec % 1_000_000_000,
        );
    }
    let wide = |(s, ns): (u64, u32)| {
        let s = i64::try_from(s).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        io::Result::Ok((s, i64::from(ns)))
    };
    let (value, interval) = (wide(value)?, wide(t.interval)?);
    set(fd, t.settime, [interval.0, interval.1, value.0, value.1])?;
    if t.ticks > 0 {
        // Where the kernel cannot, the plan has said so.
        event::set_ticks(fd, t.ticks)?;
    }
    Ok(())
}

#[cfg(target_pointer_width = "32")]
fn set(fd: RawFd, flags: u32, spec: Spec) -> io::Result<()> {
    const SYS_TIMERFD_SETTIME64: libc::c_long = 411;
    // SAFETY: the structure is four 64-bit words, as this call takes it.
    let ret = unsafe { libc::syscall(SYS_TIMERFD_SETTIME64, fd, flags, spec.as_ptr(), 0) };
    match os::check_long(ret) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
            let narrow =
                |n: i64| i32::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
            let spec = [
                narrow(spec[0])?,
                narrow(spec[1])?,
                narrow(spec[2])?,
                narrow(spec[3])?,
            ];
            // SAFETY: the structure is four 32-bit words, as the older call takes it.
            let ret =
                unsafe { libc::syscall(libc::SYS_timerfd_settime, fd, flags, spec.as_ptr(), 0) };
            os::check_long(ret).map(drop)
        }
        done => done.map(drop),
    }
}

#[cfg(not(target_pointer_width = "32"))]
fn set(fd: RawFd, flags: u32, spec: Spec) -> io::Result<()> {
    // SAFETY: the structure is four 64-bit words, as the call takes it on 64-bit hosts.
    let ret = unsafe { libc::syscall(libc::SYS_timerfd_settime, fd, flags, spec.as_ptr(), 0) };
    os::check_long(ret).map(drop)
}
