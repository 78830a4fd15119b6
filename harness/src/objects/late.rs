//! What the harness does with descriptions that it shares with the tasks, while all of them wait at the second gate: a
//! thin layer over the plan's list (`plan/src/late.rs`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use armrest_images::{Checkpoint, File, FileOwner, Timerfd};
use armrest_plan::late::Late;

use crate::error::Error;
use crate::objects::{acts, event};
use crate::os;

const F_SETOWN_EX: libc::c_int = 15;
const F_SETSIG: libc::c_int = 10;

/// Things to do, each with a descriptor of ours.
pub type Lates = Vec<(Late, OwnedFd)>;

/// Do all of it, in order. `id_now` knows the id that an owner has here.
///
/// # Errors
/// What cannot be done, by name.
pub fn act(
    cp: &Checkpoint,
    all: &Lates,
    id_now: &dyn Fn(&FileOwner) -> libc::pid_t,
) -> Result<(), Error> {
    for (late, fd) in all {
        let fd = fd.as_raw_fd();
        let done = match late {
            Late::Seal { seals, .. } => {
                // SAFETY: numbers only.
                os::check(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, *seals) }).map(drop)
            }
            Late::Owner { owner: who, .. } => owner(fd, who, id_now(who)),
            Late::Timer { file } => match cp.files.get(file) {
                Some(File::Timerfd(t)) => arm(fd, t),
                _ => Ok(()),
            },
        };
        done.map_err(|e| Error::Machine {
            what: late.words(cp),
            why: e.to_string(),
        })?;
    }
    Ok(())
}

/// The kernel keeps the ids of whoever names the owner, and checks signals with them.
fn owner(fd: RawFd, o: &FileOwner, pid: libc::pid_t) -> io::Result<()> {
    if o.signum != 0 {
        // SAFETY: numbers only.
        os::check(unsafe { libc::fcntl(fd, F_SETSIG, o.signum) })?;
    }
    if o.pid == 0 {
        return Ok(());
    }
    let who = [o.pid_type.cast_signed(), pid];
    // SAFETY: the structure is two ints.
    let set = || os::check(unsafe { libc::fcntl(fd, F_SETOWN_EX, who.as_ptr()) }).map(drop);
    acts::as_user((o.uid, o.euid), set)
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
