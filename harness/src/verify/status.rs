//! `/proc/PID/status`: pid, signal masks, actions, pending signals, umask.

use armrest_images::{LiveTask, Task};

use super::{Finding, Weight, compare, key};

/// Compare what `/proc/PID/status` says: pid, signal masks, actions, pending signals, umask.
pub fn status(task: &Task, live: &LiveTask, text: &str) -> Vec<Finding> {
    let mut out = Vec::new();
    let bit = |n: u32| 1u64.checked_shl(n.wrapping_sub(1)).unwrap_or(0);
    let pending = |queue: &[[u8; 128]]| {
        queue.iter().fold(0, |set, info| {
            set | bit(u32::from_le_bytes([info[0], info[1], info[2], info[3]]))
        })
    };
    let which = |f: &dyn Fn(u32) -> bool| {
        live.sigactions
            .iter()
            .filter(|(_, a)| f(a.handler))
            .fold(0, |set, (n, _)| set | bit(*n))
    };
    let leader = &live.threads[0];
    for (name, images) in [
        ("SigPnd", pending(&leader.pending)),
        ("ShdPnd", pending(&live.pending)),
        ("SigBlk", leader.sigmask),
        ("SigIgn", which(&|h| h == 1)),
        ("SigCgt", which(&|h| h > 1)),
    ] {
        let task = key(text, &format!("{name}:")).unwrap_or("nothing");
        compare(
            &mut out,
            Weight::Differs,
            name,
            &*format!("{images:016x}"),
            task,
        );
    }
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
        let look = |t: &str| status(&cp.tasks[0], live(&cp), t);
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
