//! `/proc/PID/status` of a process and of its threads: pid, signal masks, actions, pending signals, umask.

use armrest_images::{LiveTask, PosixTimer, Task, TaskState, Thread};

use super::{Finding, Weight, compare, found, key};

fn bit(signo: u32) -> u64 {
    1u64.checked_shl(signo.wrapping_sub(1)).unwrap_or(0)
}

fn pending(queue: &[[u8; 128]]) -> u64 {
    queue.iter().fold(0, |set, info| {
        set | bit(u32::from_le_bytes([info[0], info[1], info[2], info[3]]))
    })
}

/// The signals of timers that were armed: those of clocks run while the task is stopped, and those of its own time have run
/// while it was restored. A periodic one that was about to go off has no time left.
fn timers(live: &LiveTask) -> u64 {
    /// SIGALRM, SIGVTALRM, SIGPROF.
    const INTERVAL: [u32; 3] = [14, 26, 27];
    let interval = live.itimers.iter().zip(INTERVAL);
    let interval = interval.filter_map(|(t, signo)| (*t != [0; 4]).then_some(signo));
    let armed = |t: &&PosixTimer| t.remaining != (0, 0) || t.interval != (0, 0);
    let posix = live.posix_timers.iter().filter(armed).map(|t| t.signo);
    interval.chain(posix).fold(0, |set, signo| set | bit(signo))
}

/// Pending signals: those that timers have sent meanwhile are masked.
fn queue(out: &mut Vec<Finding>, text: &str, name: &str, images: u64, timers: u64) {
    let task = key(text, &format!("{name}:")).unwrap_or("nothing");
    let only_timers = u64::from_str_radix(task, 16)
        .is_ok_and(|now| now & images == images && now & !timers == images & !timers);
    if only_timers && task != format!("{images:016x}") {
        let why = format!("{images:016x} in the images, {task} in the task: a timer went off");
        out.push(found(Weight::Masked, name, why));
    } else {
        sets(out, Weight::Differs, text, &[(name, images)]);
    }
}

fn sets(out: &mut Vec<Finding>, weight: Weight, text: &str, all: &[(&str, u64)]) {
    for (name, images) in all {
        let task = key(text, &format!("{name}:")).unwrap_or("nothing");
        let images = format!("{images:016x}");
        compare(out, weight, *name, &*images, task);
    }
}

/// Whether a thread is in a call that has a signal mask of its own for its duration, by its `/proc/PID/syscall`.
pub fn mask_of_a_call(syscall: &str) -> bool {
    /// sigsuspend, rt_sigsuspend, pselect6, ppoll, epoll_pwait, pselect6_time64, ppoll_time64, epoll_pwait2.
    const CALLS: [&str; 8] = ["72", "179", "335", "336", "346", "413", "414", "441"];
    let number = syscall.split(' ').next();
    number.is_some_and(|n| CALLS.contains(&n))
}

/// Compare what `/proc/PID/task/TID/status` says of a thread: its signal mask and private pending signals. Images hold the
/// mask outside of a call; `within`: it went into one that has a mask of its own.
pub fn thread(live: &LiveTask, t: &Thread, text: &str, within: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    queue(&mut out, text, "SigPnd", pending(&t.pending), timers(live));
    let weight = if within { Weight::Ran } else { Weight::Differs };
    sets(&mut out, weight, text, &[("SigBlk", t.sigmask)]);
    out
}

/// Compare what `/proc/PID/status` says of the process: pid, actions, shared pending signals, umask.
pub fn status(task: &Task, live: &LiveTask, text: &str) -> Vec<Finding> {
    let mut out = Vec::new();
    // The other way round nothing is said: a restore can leave any task stopped.
    let state = key(text, "State:").unwrap_or("nothing");
    if matches!(task.state, TaskState::Stopped { .. }) && !state.starts_with(['T', 't']) {
        let why = format!("stopped in the images, {state} in the task");
        out.push(found(Weight::Differs, "state", why));
    }
    let which = |f: &dyn Fn(u32) -> bool| {
        live.sigactions
            .iter()
            .filter(|(_, a)| f(a.handler))
            .fold(0, |set, (n, _)| set | bit(*n))
    };
    queue(
        &mut out,
        text,
        "ShdPnd",
        pending(&live.pending),
        timers(live),
    );
    let all = [
        ("SigIgn", which(&|h| h == 1)),
        ("SigCgt", which(&|h| h > 1)),
    ];
    sets(&mut out, Weight::Differs, text, &all);
    if let Some(umask) = live.umask {
        let task = key(text, "Umask:").unwrap_or("nothing");
        compare(
            &mut out,
            Weight::Differs,
            "umask",
            &*format!("{umask:04o}"),
            task,
        );
    }
    // The last number is the pid in the task's own namespace.
    let pid = key(text, "NSpid:")
        .and_then(|l| l.split_whitespace().last())
        .unwrap_or("nothing");
    compare(
        &mut out,
        Weight::Differs,
        "pid",
        &*task.pid.to_string(),
        pid,
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::{live, load};

    #[test]
    fn masks_and_actions_are_compared() {
        let cp = load("counter");
        let look = |t: &str| {
            let mut all = status(&cp.tasks[0], live(&cp), t);
            all.extend(thread(live(&cp), &live(&cp).threads[0], t, false));
            all
        };
        let all = look("");
        assert_eq!(all.len(), 7);
        let text: String = all
            .iter()
            .map(|f| {
                let value = f.why.split(' ').next().unwrap_or("");
                match &*f.what {
                    "umask" => format!("Umask:\t{value}\n"),
                    "pid" => format!("NSpid:\t5012\t{value}\n"),
                    name => format!("{name}:\t{value}\n"),
                }
            })
            .collect();
        assert_eq!(look(&text), []);
        let f = look(&text.replace("SigBlk:\t0", "SigBlk:\t8"));
        assert_eq!(f.len(), 1);
        assert_eq!((&*f[0].what, f[0].weight), ("SigBlk", Weight::Differs));
        // A call that waits with a mask of its own.
        let text = text.replace("SigBlk:\t0", "SigBlk:\t8");
        let f = thread(live(&cp), &live(&cp).threads[0], &text, true);
        assert_eq!((f.len(), f[0].weight), (1, Weight::Ran));
    }

    #[test]
    fn calls_that_have_a_mask_of_their_own() {
        assert!(mask_of_a_call(
            "179 0xbea9e498 0x8 0x0 0x0 0x0 0x0 0xbea9e490 0x3b5a8"
        ));
        for other in ["17 0x0", "1790 0x0", "running", "-1 0xbea9e498 0x3b5a8", ""] {
            assert!(!mask_of_a_call(other), "{other}");
        }
    }

    #[test]
    fn signals_of_timers_that_went_off_meanwhile_are_masked() {
        let mut cp = load("counter");
        let mut live = cp.tasks[0].live.take().expect("alive");
        live.pending.clear();
        live.itimers = [[0, 1000, 0, 0], [0, 0, 0, 1], [0; 4]];
        let timer = |signo, interval, remaining| PosixTimer {
            id: 0,
            clock: 1,
            signo,
            notify: 0,
            value: 0,
            overrun: 0,
            interval: (interval, 0),
            remaining: (0, remaining),
            thread: None,
        };
        live.posix_timers = vec![timer(40, 0, 1), timer(41, 1, 0), timer(42, 0, 0)];
        let look = |live: &LiveTask, set: u64| {
            let text = format!("ShdPnd:\t{set:016x}\n");
            let all = status(&cp.tasks[0], live, &text);
            let of = |f: &Finding| (f.what == "ShdPnd").then_some(f.weight);
            all.iter().find_map(of)
        };
        assert_eq!(look(&live, 0), None);
        for n in [14, 26, 40, 41] {
            assert_eq!(look(&live, bit(n)), Some(Weight::Masked), "{n}");
        }
        // Timers that were not armed; and another signal is another signal.
        for n in [27, 42, 10] {
            assert_eq!(look(&live, bit(14) | bit(n)), Some(Weight::Differs), "{n}");
        }
        // One that waited and is gone is a difference.
        let mut alarm = [0; 128];
        alarm[0] = 14;
        live.pending.push(alarm);
        assert_eq!(look(&live, 0), Some(Weight::Differs));
        live.itimers = [[0; 4]; 3];
        live.pending.clear();
        assert_eq!(look(&live, bit(14)), Some(Weight::Differs));
    }
}
