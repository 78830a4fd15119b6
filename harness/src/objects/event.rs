//! Counters, timers, signal descriptors and epoll sets: made here, armed and filled by the task itself (`acts`).

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use armrest_images::{Eventfd, Signalfd, Timerfd};

use crate::os;

/// A counter with its value.
pub fn eventfd(e: &Eventfd) -> io::Result<OwnedFd> {
    // SAFETY: numbers only; the call makes a descriptor.
    let fd = unsafe { os::made(libc::eventfd(0, libc::EFD_CLOEXEC)) }?;
    if e.counter > 0 {
        std::fs::File::from(fd.try_clone()?).write_all(&e.counter.to_ne_bytes())?;
    }
    Ok(fd)
}

/// A descriptor that reads these signals.
pub fn signalfd(s: &Signalfd) -> io::Result<OwnedFd> {
    let mask = std::ptr::from_ref(&s.mask);
    let how = libc::SFD_CLOEXEC;
    // SAFETY: the mask is 8 bytes, as the call is told, which makes a descriptor.
    unsafe { os::made(libc::syscall(libc::SYS_signalfd4, -1, mask, 8, how)) }
}

/// A timer that is not armed yet.
pub fn timerfd(t: &Timerfd) -> io::Result<OwnedFd> {
    timer(t.clock.cast_signed())
}

fn timer(clock: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: numbers only; the call makes a descriptor.
    unsafe { os::made(libc::timerfd_create(clock, libc::TFD_CLOEXEC)) }
}

/// `TFD_IOC_SET_TICKS`: `_IOW('T', 0, u64)`.
const SET_TICKS: libc::c_ulong = 0x4008_5400;

/// Set how many expiries are unread; false if this kernel cannot.
pub fn set_ticks(fd: RawFd, ticks: u64) -> io::Result<bool> {
    // SAFETY: the call reads 8 bytes.
    match os::check(unsafe { libc::ioctl(fd, SET_TICKS as _, std::ptr::from_ref(&ticks)) }) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::ENOSYS)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Can unread expiries be set here?
pub fn can_set_ticks() -> bool {
    timer(libc::CLOCK_MONOTONIC)
        .and_then(|fd| set_ticks(fd.as_raw_fd(), 1))
        .unwrap_or(false)
}

/// An epoll set that is empty yet.
pub fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: numbers only; the call makes a descriptor.
    unsafe { os::made(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }
}
