//! A time namespace, in which the clocks of the checkpoint go on: time_namespaces(7).

use std::io;

use armrest_images::Clocks;
use armrest_plan::clocks::offset;

use crate::error::Error;
use crate::os;

/// `CLONE_NEWTIME` (include/uapi/linux/sched.h).
const CLONE_NEWTIME: libc::c_int = 0x80;

/// From now on children of this process live in a time namespace of their own, whose clocks stand at `then`. This process
/// stays where it is.
///
/// # Errors
/// The kernel refuses; then nothing has changed for this process.
pub fn for_children(then: Clocks) -> Result<(), Error> {
    enter(then).map_err(|e| Error::Machine {
        what: "a time namespace, for the clocks of the checkpoint".into(),
        why: e.to_string(),
    })
}

fn enter(then: Clocks) -> io::Result<()> {
    // SAFETY: unshare takes a number; the namespace is for children alone.
    os::check(unsafe { libc::unshare(CLONE_NEWTIME) })?;
    let monotonic = offset(then.monotonic_ns, os::clock_ns(libc::CLOCK_MONOTONIC));
    let boottime = offset(then.boottime_ns, os::clock_ns(libc::CLOCK_BOOTTIME));
    let text = format!(
        "monotonic {} {}\nboottime {} {}\n",
        monotonic.0, monotonic.1, boottime.0, boottime.1
    );
    std::fs::write("/proc/self/timens_offsets", text)
}
