//! Interval timers and POSIX timers: which records the blob gets, and what cannot be had.
//!
//! Images record the time that was left, whatever clock it was counted on; so every timer is armed relatively. See
//! timer_create(2), timer_settime(2), setitimer(2), PR_TIMER_CREATE_RESTORE_IDS(2const).

use armrest_abi::{PosixTimer, Timer, want};
use armrest_blob::kernel::low;
use armrest_images::{LiveTask, PosixTimer as Recorded};
use serde::Serialize;

use crate::machine::Machine;
use crate::types::{Options, Refusal, RefusalKind, Tables};

/// Numbers that are used up at most on a kernel that counts: each costs two calls.
const MOST_SKIPPED: u32 = 1 << 20;
/// `sigev_notify` values (include/uapi/asm-generic/siginfo.h).
const SIGEV_NONE: u32 = 1;
const SIGEV_THREAD_ID: u32 = 4;

/// How a kernel numbers POSIX timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TimerIds {
    /// It takes a number from the caller (`PR_TIMER_CREATE_RESTORE_IDS`, 6.15).
    Chosen,
    /// It counts up from 0 in each process.
    Counted,
    /// In its own way: qemu-user.
    Foreign,
}

/// Name what cannot be restored.
pub fn refuse(
    pid: u32,
    live: &LiveTask,
    machine: &Machine,
    options: &Options,
    out: &mut Vec<Refusal>,
) {
    let mut no = |kind, what: String, hint: &str| {
        out.push(Refusal {
            kind,
            what: format!("pid {pid}: {what}"),
            hint: hint.to_owned(),
        });
    };
    let scrambled = "dumped by a CRIU built with 64-bit time_t: the values are scrambled";
    for (which, t) in ["real", "virtual", "profiling"].iter().zip(&live.itimers) {
        if t[1] >= 1_000_000 || t[3] >= 1_000_000 || t[0] >= 1 << 31 || t[2] >= 1 << 31 {
            let what = format!("{which} interval timer with impossible values");
            no(RefusalKind::Unsupported, what, scrambled);
        }
    }
    let mut next = 0;
    for t in &live.posix_timers {
        let id = t.id;
        if let Err(why) = possible(t) {
            let what = format!("POSIX timer {id} with impossible values ({why})");
            no(RefusalKind::Unsupported, what, scrambled);
            continue;
        }
        if id < next || i32::try_from(id).is_err() {
            let what = format!("POSIX timer {id} is not above the one before");
            no(RefusalKind::Unsupported, what, "the images are damaged");
            continue;
        }
        let skipped = id - next;
        next = id + 1;
        match machine.timer_ids {
            TimerIds::Foreign => no(
                RefusalKind::Machine,
                format!("POSIX timer {id}: timers are numbered in another way here"),
                "qemu-user begins at 0x0caf0000: restore on a real kernel",
            ),
            TimerIds::Counted if skipped > MOST_SKIPPED => no(
                RefusalKind::Machine,
                format!("POSIX timer {id}: {skipped} numbers before it are free"),
                "restore on Linux 6.15 or newer, which takes a number from us",
            ),
            _ => {}
        }
        let wide = t.interval.0 >= 1 << 31 || t.remaining.0 >= 1 << 31;
        if wide && !machine.has_time64 {
            let what = format!("POSIX timer {id} has more than 68 years left");
            no(RefusalKind::Machine, what, "needs Linux 5.1 or newer");
        }
        let of = t.thread.filter(|_| t.notify == SIGEV_THREAD_ID);
        let cpu = cpu_clock_of(t.clock);
        for (tid, whose) in [(of, "signals"), (cpu, "counts the CPU time of")] {
            let Some(tid) = tid else { continue };
            if !live.threads.iter().any(|t| t.tid == tid) {
                let what = format!("POSIX timer {id} {whose} thread {tid}, which is gone");
                no(
                    RefusalKind::Unsupported,
                    what,
                    "no thread of this task has that id",
                );
            } else if options.any_pid {
                let what = format!("POSIX timer {id} {whose} thread {tid}");
                no(
                    RefusalKind::Ids,
                    what,
                    "with --any-pid the thread has another id",
                );
            }
        }
    }
}

/// Would a kernel have given these values?
fn possible(t: &Recorded) -> Result<(), String> {
    for (name, (sec, nsec)) in [("interval", t.interval), ("time left", t.remaining)] {
        if nsec >= 1_000_000_000 || sec >= 1 << 32 {
            return Err(format!("{name} {sec} s and {nsec} ns"));
        }
    }
    if u32::try_from(t.value).is_err() {
        return Err(format!("value {:#x}", t.value));
    }
    match t.notify {
        SIGEV_NONE => {}
        0 | 2 | SIGEV_THREAD_ID if !(1..=64).contains(&t.signo) => {
            return Err(format!("signal {}", t.signo));
        }
        SIGEV_THREAD_ID if t.thread.is_none() => return Err("no thread".into()),
        0 | 2 | SIGEV_THREAD_ID => {}
        other => return Err(format!("notification {other}")),
    }
    Ok(())
}

/// The thread or process whose CPU time a clock counts, if its number names one: `~id << 3 | type`, id 0 is the
/// caller. A process is named by its leader, which is a thread of it too.
fn cpu_clock_of(clock: u32) -> Option<u32> {
    let id = !(clock.cast_signed() >> 3);
    let names = clock.cast_signed() < 0 && clock & 3 != 3 && id != 0;
    names.then_some(id.cast_unsigned())
}

/// The records, and the bits of `want` that they need. What is lost is told in `notes`.
pub fn plan(
    live: &LiveTask,
    machine: &Machine,
    tables: &mut Tables,
    notes: &mut Vec<String>,
) -> u32 {
    for (which, t) in (0..).zip(&live.itimers) {
        let mut value = t.map(|v| u32::try_from(v).unwrap_or(u32::MAX));
        if value == [0; 4] {
            continue;
        }
        // The real timer with an interval and no time left had expired, and its signal was not taken yet: the interval
        // stands for the time that is left. The others read one tick then (getitimer(2)), and keep their interval when
        // they are disarmed: nothing left is what they are set to.
        if which == 0 && value[2] == 0 && value[3] == 0 {
            (value[2], value[3]) = (value[0], value[1]);
        }
        tables.timers.push(Timer { which, value });
    }
    let chosen = machine.timer_ids == TimerIds::Chosen;
    let mut next = 0;
    for t in &live.posix_timers {
        let skip = if chosen { 0 } else { t.id - next };
        next = t.id + 1;
        tables.posix_timers.push(PosixTimer {
            id: t.id,
            skip,
            clock: t.clock,
            reserved: 0,
            event: event(t),
            value: value(t, machine.has_time64),
        });
        if t.overrun != 0 {
            notes.push(format!(
                "POSIX timer {}: an overrun of {} is lost",
                t.id, t.overrun
            ));
        }
    }
    if tables.posix_timers.is_empty() {
        return 0;
    }
    let ids = if chosen { want::TIMER_IDS } else { 0 };
    let wide = if machine.has_time64 { want::TIME64 } else { 0 };
    ids | wide
}

/// `struct sigevent`.
fn event(t: &Recorded) -> [u32; 16] {
    let mut event = [0; 16];
    event[0] = low(t.value);
    event[1] = t.signo;
    event[2] = t.notify;
    event[3] = t
        .thread
        .filter(|_| t.notify == SIGEV_THREAD_ID)
        .unwrap_or(0);
    event
}

/// `struct itimerspec`, of 64-bit or 32-bit seconds.
fn value(t: &Recorded, wide: bool) -> [u32; 8] {
    // About to fire when it was dumped: the interval stands for the time that is left. One that counts CPU time would
    // have read 1 ns then; it keeps its interval when it is disarmed.
    let left = if t.remaining == (0, 0) && !counts_cpu(t.clock) {
        t.interval
    } else {
        t.remaining
    };
    let mut value = [0; 8];
    if wide {
        for (half, (sec, nsec)) in value.chunks_exact_mut(4).zip([t.interval, left]) {
            half[..3].copy_from_slice(&[low(sec), low(sec >> 32), low(nsec)]);
        }
    } else {
        for (half, (sec, nsec)) in value.chunks_exact_mut(2).zip([t.interval, left]) {
            half.copy_from_slice(&[low(sec), low(nsec)]);
        }
    }
    value
}

/// Is this a clock of CPU time: CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, or one of a process or thread by id?
fn counts_cpu(clock: u32) -> bool {
    matches!(clock, 2 | 3) || clock.cast_signed() < 0 && clock & 3 != 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer() -> Recorded {
        Recorded {
            id: 3,
            clock: 1,
            signo: 34,
            notify: 0,
            value: 5000,
            overrun: 0,
            interval: (1, 5),
            remaining: (0, 7),
            thread: None,
        }
    }

    #[test]
    fn values_in_both_widths() {
        let t = timer();
        assert_eq!(value(&t, false), [1, 5, 0, 7, 0, 0, 0, 0]);
        assert_eq!(value(&t, true), [1, 0, 5, 0, 0, 0, 7, 0]);
        let due = Recorded {
            remaining: (0, 0),
            interval: (5 << 32, 6),
            ..t
        };
        assert_eq!(value(&due, true), [0, 5, 6, 0, 0, 5, 6, 0]);
        let cpu = Recorded { clock: 2, ..due };
        assert_eq!(value(&cpu, true), [0, 5, 6, 0, 0, 0, 0, 0]);
        let off = Recorded {
            remaining: (0, 0),
            interval: (0, 0),
            ..t
        };
        assert_eq!(value(&off, true), [0; 8]);
    }

    #[test]
    fn scrambled_values_are_seen() {
        assert!(possible(&timer()).is_ok());
        let bad = [
            Recorded {
                interval: (7 << 32 | 1, 0),
                ..timer()
            },
            Recorded {
                remaining: (0, 1_000_000_000),
                ..timer()
            },
            Recorded {
                value: 1 << 32,
                ..timer()
            },
            Recorded {
                signo: 0,
                ..timer()
            },
            Recorded {
                signo: 65,
                ..timer()
            },
            Recorded {
                notify: 3,
                ..timer()
            },
            Recorded {
                notify: 4,
                ..timer()
            },
        ];
        for t in bad {
            assert!(possible(&t).is_err(), "{t:?}");
        }
    }

    #[test]
    fn cpu_clocks_name_their_thread() {
        assert_eq!(cpu_clock_of(2), None);
        assert_eq!(cpu_clock_of(11), None);
        // Of the caller: id 0.
        assert_eq!(cpu_clock_of((!0 << 3) | 2), None);
        assert_eq!(cpu_clock_of((!136u32 << 3) | 2), Some(136));
        assert_eq!(cpu_clock_of((!137u32 << 3) | 4 | 2), Some(137));
        // A clock of a file descriptor has type 3.
        assert_eq!(cpu_clock_of((!5u32 << 3) | 3), None);
    }
}
