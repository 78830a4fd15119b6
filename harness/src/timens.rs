//! A time namespace, in which the clocks of the checkpoint go on: time_namespaces(7).

use std::io;

use armrest_images::Clocks;
use armrest_plan::clocks::{offset, outside};

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
    let here = std::fs::read_to_string(OFFSETS)?;
    // SAFETY: unshare takes a number; the namespace is for children alone.
    os::check(unsafe { libc::unshare(CLONE_NEWTIME) })?;
    let mut text = String::new();
    for (name, clock, then) in [
        ("monotonic", libc::CLOCK_MONOTONIC, then.monotonic_ns),
        ("boottime", libc::CLOCK_BOOTTIME, then.boottime_ns),
    ] {
        let (secs, nsec) = offset(then, outside(os::clock_ns(clock), name, &here));
        text += &format!("{name} {secs} {nsec}\n");
    }
    std::fs::write(OFFSETS, text)
}

const OFFSETS: &str = "/proc/self/timens_offsets";
