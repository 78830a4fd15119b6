//! The kernel's mm fields and relations in `/proc/PID/stat`, and the auxiliary vector.

use std::collections::BTreeMap;

use armrest_images::{LiveTask, Task, TaskState};

use super::{Finding, Weight, compare};

/// Index in the mm fields, number in `/proc/PID/stat` (proc(5)), name. The break is not there.
const STAT: [(usize, usize, &str); 10] = [
    (0, 26, "start_code"),
    (1, 27, "end_code"),
    (2, 45, "start_data"),
    (3, 46, "end_data"),
    (4, 47, "start_brk"),
    (6, 28, "start_stack"),
    (7, 48, "arg_start"),
    (8, 49, "arg_end"),
    (9, 50, "env_start"),
    (10, 51, "env_end"),
];

/// Compare the mm fields of `/proc/PID/stat`.
pub fn stat(live: &LiveTask, text: &str) -> Vec<Finding> {
    let mut out = Vec::new();
    let words: Vec<&str> = crate::os::stat_fields(text).collect();
    for (i, number, name) in STAT {
        let task = words.get(number - 3).and_then(|w| w.parse::<u64>().ok());
        let task = task.map_or("nothing".into(), |n| format!("{n:#010x}"));
        let images = format!("{:#010x}", live.mm.fields[i]);
        compare(
            &mut out,
            Weight::Differs,
            format!("mm {name}"),
            images,
            task,
        );
    }
    out
}

/// Compare parent, process group and session, by ids of the checkpoint; of a zombie its state and how it ended. `here`: id
/// in the checkpoint → id here. What the root has of its caller is masked.
pub fn relations(task: &Task, root: bool, here: &BTreeMap<u32, u32>, text: &str) -> Vec<Finding> {
    let mut out = Vec::new();
    let words: Vec<&str> = crate::os::stat_fields(text).collect();
    let word = |number: usize| words.get(number - 3).copied().unwrap_or("nothing");
    for (number, name, id) in [
        (4, "parent", task.ppid),
        (5, "process group", task.pgid),
        (6, "session", task.sid),
    ] {
        if root && number == 4 {
            continue;
        }
        // Ids of nobody in the tree are the caller's, or of a leader that is gone and cannot be looked up.
        let Some(id) = here.get(&id) else { continue };
        let weight = if root && task.pid != task.sid && task.pid != task.pgid {
            Weight::Masked
        } else {
            Weight::Differs
        };
        compare(
            &mut out,
            weight,
            name,
            id.to_string(),
            word(number).to_owned(),
        );
    }
    if let TaskState::Dead { exit_code } = task.state {
        let differs = Weight::Differs;
        compare(&mut out, differs, "state", "Z", word(3));
        compare(
            &mut out,
            differs,
            "exit code",
            exit_code.to_string(),
            word(52).to_owned(),
        );
    }
    out
}

/// Compare the auxiliary vector, up to its end mark.
pub fn auxv(live: &LiveTask, bytes: &[u8]) -> Vec<Finding> {
    let words: Vec<u32> = bytes
        .chunks_exact(4)
        .map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]))
        .collect();
    fn pairs(w: &[u32]) -> Vec<(u32, u32)> {
        w.chunks_exact(2)
            .map(|p| (p[0], p[1]))
            .take_while(|p| p.0 != 0)
            .collect()
    }
    let (images, task) = (pairs(&live.mm.auxv), pairs(&words));
    let mut out = Vec::new();
    let show =
        |p: Option<&(u32, u32)>| p.map_or("nothing".into(), |p| format!("{}={:#x}", p.0, p.1));
    for i in 0..images.len().max(task.len()) {
        compare(
            &mut out,
            Weight::Differs,
            format!("auxv entry {i}"),
            show(images.get(i)),
            show(task.get(i)),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::{live, load};

    #[test]
    fn mm_fields_are_found_behind_a_strange_name() {
        let cp = load("counter");
        let mut words = vec!["0".to_owned(); 50];
        for (i, number, _) in STAT {
            words[number - 3] = live(&cp).mm.fields[i].to_string();
        }
        let text = |w: &[String]| format!("136 (a) b (c) {}\n", w.join(" "));
        assert_eq!(stat(live(&cp), &text(&words)), []);
        for (_, number, name) in STAT {
            let mut w = words.clone();
            w[number - 3] = "1".into();
            let f = stat(live(&cp), &text(&w));
            assert_eq!(f.len(), 1);
            assert_eq!(f[0].what, format!("mm {name}"));
        }
        assert_eq!(stat(live(&cp), "").len(), STAT.len());
    }

    #[test]
    fn relations_are_those_of_the_tree_and_a_zombie_has_ended_as_it_did() {
        let cp = load("workers");
        let here: BTreeMap<u32, u32> = cp.tasks.iter().map(|t| (t.pid, t.pid + 1000)).collect();
        let now = |id: &u32| here.get(id).copied().unwrap_or(1);
        let mut seen = 0;
        for (i, t) in cp.tasks.iter().enumerate() {
            let (state, code) = match t.state {
                TaskState::Dead { exit_code } => ("Z", exit_code),
                _ => ("S", 0),
            };
            let mut words = vec!["0".to_owned(); 50];
            words[0] = state.to_owned();
            for (at, id) in [(1, &t.ppid), (2, &t.pgid), (3, &t.sid)] {
                words[at] = now(id).to_string();
            }
            words[49] = code.to_string();
            let text = |w: &[String]| format!("1 (a) b) {}\n", w.join(" "));
            assert_eq!(relations(t, i == 0, &here, &text(&words)), []);
            for at in [1, 2, 3] {
                let mut w = words.clone();
                w[at] = "7".into();
                let n = relations(t, i == 0, &here, &text(&w)).len();
                assert!(n <= 1);
                seen += n;
            }
            if state == "Z" {
                words[49] = (code + 256).to_string();
                words[0] = "S".into();
                assert_eq!(relations(t, false, &here, &text(&words)).len(), 2);
            }
        }
        assert!(seen > 0);
    }

    #[test]
    fn auxv_is_compared_up_to_its_end() {
        let cp = load("counter");
        let mut bytes: Vec<u8> = live(&cp)
            .mm
            .auxv
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect();
        bytes.extend([0; 16]);
        assert_eq!(auxv(live(&cp), &bytes), []);
        bytes[4] ^= 1;
        assert_eq!(auxv(live(&cp), &bytes).len(), 1);
        assert!(auxv(live(&cp), &[]).len() > 10);
    }
}
