//! CLOCK_MONOTONIC and CLOCK_BOOTTIME: they count from the start of a machine, and another machine has another start.
//! Where the kernel has time namespaces (time_namespaces(7)) they go on from their readings at the dump; elsewhere they
//! jump, and that is said: absolute sleeps and deadlines that the program has computed are then wrong.

use armrest_images::{Checkpoint, Clocks};

use crate::machine::Machine;

/// The readings with which the clocks go on, in a time namespace to be made for the task. What cannot be is told in
/// `notes`.
pub fn plan(cp: &Checkpoint, machine: &Machine, notes: &mut Vec<String>) -> Option<Clocks> {
    let then = cp.clocks?;
    if machine.has_timens {
        return Some(then);
    }
    let jump = i128::from(machine.monotonic_ns) - i128::from(then.monotonic_ns);
    if jump.abs() > 1_000_000_000 {
        let way = if jump < 0 { "back" } else { "forward" };
        let secs = jump.abs() / 1_000_000_000;
        notes.push(format!(
            "CLOCK_MONOTONIC jumps {way} by {secs} s: no time namespaces here"
        ));
    }
    None
}

/// What is written to `/proc/self/timens_offsets` so that a clock that stands at `now` reads `then`: whole seconds, which
/// may be negative, and nanoseconds from 0 up.
pub fn offset(then: u64, now: u64) -> (i64, u64) {
    const SECOND: i128 = 1_000_000_000;
    let apart = i128::from(then) - i128::from(now);
    let seconds = i64::try_from(apart.div_euclid(SECOND)).unwrap_or(i64::MAX);
    (
        seconds,
        u64::try_from(apart.rem_euclid(SECOND)).unwrap_or(0),
    )
}

/// What a clock reads outside of all time namespaces, which offsets count from: `now` is its reading here, `here` what
/// `/proc/self/timens_offsets` says.
pub fn outside(now: u64, clock: &str, here: &str) -> u64 {
    let ours = here.lines().find_map(|l| {
        let mut words = l.split_whitespace();
        let name = words.next()?;
        // Older kernels write the number of the clock.
        let number = if clock == "monotonic" { "1" } else { "7" };
        if name != clock && name != number {
            return None;
        }
        let secs: i128 = words.next()?.parse().ok()?;
        let nsec: i128 = words.next()?.parse().ok()?;
        Some(secs * 1_000_000_000 + nsec)
    });
    u64::try_from(i128::from(now) - ours.unwrap_or(0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_have_seconds_of_either_sign_and_nanoseconds_of_one() {
        assert_eq!(offset(5_000_000_007, 3_000_000_000), (2, 7));
        assert_eq!(offset(3_000_000_000, 5_000_000_007), (-3, 999_999_993));
        assert_eq!(offset(9, 9), (0, 0));
    }

    #[test]
    fn offsets_of_here_are_taken_off() {
        let here = "monotonic          -3 999999999\nboottime           10         7\n";
        assert_eq!(outside(5_000_000_000, "monotonic", here), 7_000_000_001);
        assert_eq!(outside(15_000_000_007, "boottime", here), 5_000_000_000);
        assert_eq!(outside(5, "boottime", "7 0 2\n"), 3);
        assert_eq!(outside(5, "monotonic", ""), 5);
    }
}
