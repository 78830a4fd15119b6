//! `/proc/PID/status` of a process and of its threads: pid, signal masks, actions, pending signals, umask.

use armrest_images::{LiveTask, Task, Thread};

use super::{Finding, Weight, compare, key};

fn bit(signo: u32) -> u64 {
    1u64.checked_shl(signo.wrapping_sub(1)).unwrap_or(0)
}

fn pending(queue: &[[u8; 128]]) -> u64 {
    queue.iter().fold(0, |set, info| {
        set | bit(u32::from_le_bytes([info[0], info[1], info[2], info[3]]))
    })
}

fn sets(out: &mut Vec<Finding>, text: &str, all: &[(&str, u64)]) {
    for (name, images) in all {
        let task = key(text, &format!("{name}:")).unwrap_or("nothing");
        let images = format!("{images:016x}");
        compare(out, Weight::Differs, *name, &*images, task);
    }
}

/// Compare what `/proc/PID/task/TID/status` says of a thread: its signal mask and private pending signals.
pub fn thread(t: &Thread, text: &str) -> Vec<Finding> {
    let mut out = Vec::new();
    let all = [("SigPnd", pending(&t.pending)), ("SigBlk", t.sigmask)];
    sets(&mut out, text, &all);
    out
}

/// Compare what `/proc/PID/status` says of the process: pid, actions, shared pending signals, umask.
pub fn status(task: &Task, live: &LiveTask, text: &str) -> Vec<Finding> {
    let mut out = Vec::new();
    let which = |f: &dyn Fn(u32) -> bool| {
        live.sigactions
            .iter()
            .filter(|(_, a)| f(a.handler))
            .fold(0, |set, (n, _)| set | bit(*n))
    };
    let all = [
        ("ShdPnd", pending(&live.pending)),
        ("SigIgn", which(&|h| h == 1)),
        ("SigCgt", which(&|h| h > 1)),
    ];
    sets(&mut out, text, &all);
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
            all.extend(thread(&live(&cp).threads[0], t));
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
        assert_eq!(f[0].what, "SigBlk");
    }
}
