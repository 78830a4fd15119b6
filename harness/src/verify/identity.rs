//! Who a task and its threads are: ids, groups, capabilities, privileges, filters of system calls; scheduling, limits,
//! personality, weights. From the text of `status`, `stat`, `limits` and the small files beside them.
//!
//! What the kernel shows of nobody but the caller (securebits, child subreaper, parent-death signal, membarrier) is not
//! here: docs/verify.md lists it.

use armrest_images::{Checkpoint, Creds, LiveTask, Thread};

use super::{Finding, Weight, compare, found, key};

/// Fields of `stat`, by their numbers in proc(5).
const NICE: usize = 19;
const RT_PRIORITY: usize = 40;
const POLICY: usize = 41;
/// `SCHED_RESET_ON_FORK`: recorded with the policy, shown nowhere.
const RESET_ON_FORK: u32 = 0x4000_0000;
/// `SECCOMP_FILTER_FLAG_TSYNC`: the dumper records the chain of all threads with the leader alone.
const FOR_ALL: u32 = 1;
const FILTERS: u32 = 2;

/// Limits by number, as `limits` lists them (include/uapi/asm-generic/resource.h).
const LIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// The words behind a key, with one blank between them.
fn words(text: &str, name: &str) -> String {
    key(text, name).map_or("nothing".into(), |l| {
        l.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

fn joined(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(" ")
}

fn differs(out: &mut Vec<Finding>, what: &str, images: &str, task: &str) {
    compare(out, Weight::Differs, what, images, task);
}

/// A number of `stat`.
fn stat(text: &str, number: usize) -> String {
    crate::os::stat_fields(text)
        .nth(number - 3)
        .unwrap_or("nothing")
        .to_owned()
}

/// Compare a thread: `status` and `stat` below `/proc/PID/task/TID`, and the highest capability that this kernel has.
pub fn thread(
    cp: &Checkpoint,
    live: &LiveTask,
    t: &Thread,
    status: &str,
    stat_text: &str,
    last_cap: u32,
) -> Vec<Finding> {
    let mut out = Vec::new();
    if let Some(c) = &t.creds {
        creds(&mut out, c, status, last_cap);
    }
    let (mode, filters) = sealed(cp, live, t);
    differs(
        &mut out,
        "seccomp",
        &mode.to_string(),
        &words(status, "Seccomp:"),
    );
    // Since Linux 5.9.
    if let Some(task) = key(status, "Seccomp_filters:") {
        differs(&mut out, "seccomp filters", &filters.to_string(), task);
    }
    let nice = t.nice.map(|n| ("nice", NICE, n.to_string()));
    let sched = t.sched.map(|(policy, priority)| {
        let policy = policy & !RESET_ON_FORK;
        [
            ("scheduling policy", POLICY, policy.to_string()),
            ("real-time priority", RT_PRIORITY, priority.to_string()),
        ]
    });
    for (what, number, images) in nice.into_iter().chain(sched.into_iter().flatten()) {
        differs(&mut out, what, &images, &stat(stat_text, number));
    }
    out
}

fn creds(out: &mut Vec<Finding>, c: &Creds, status: &str, last_cap: u32) {
    let uids = joined(&[c.uid, c.euid, c.suid, c.fsuid]);
    let gids = joined(&[c.gid, c.egid, c.sgid, c.fsgid]);
    let mut groups = c.groups.clone();
    // The kernel keeps them sorted.
    groups.sort_unstable();
    for (what, name, images) in [
        ("user ids", "Uid:", uids),
        ("group ids", "Gid:", gids),
        ("groups", "Groups:", joined(&groups)),
        (
            "no_new_privs",
            "NoNewPrivs:",
            u32::from(c.no_new_privs).to_string(),
        ),
    ] {
        differs(out, what, &images, &words(status, name));
    }
    let known = u64::MAX >> 63u32.saturating_sub(last_cap);
    for (name, images) in [
        ("CapInh", c.cap_inh),
        ("CapPrm", c.cap_prm),
        ("CapEff", c.cap_eff),
        ("CapBnd", c.cap_bnd),
        ("CapAmb", c.cap_amb),
    ] {
        let task = words(status, &format!("{name}:"));
        // A kernel that lacks a capability shows it to nobody.
        let only_unknown = u64::from_str_radix(&task, 16).is_ok_and(|t| t == images & known);
        let weight = if only_unknown {
            Weight::Masked
        } else {
            Weight::Differs
        };
        compare(out, weight, name, format!("{images:016x}"), task);
    }
}

/// The mode of a thread, and how many filters it has.
fn sealed(cp: &Checkpoint, live: &LiveTask, t: &Thread) -> (u32, usize) {
    let chain = |t: &Thread| match t.seccomp {
        (FILTERS, Some(oldest)) => cp.filter_chain(oldest),
        _ => Vec::new(),
    };
    let own = chain(t).len();
    let leader = live.threads.first().map_or(Vec::new(), chain);
    if own == 0 && leader.iter().any(|f| f.flags & FOR_ALL != 0) {
        (FILTERS, leader.len())
    } else {
        (t.seccomp.0, own)
    }
}

/// Compare the limits of a process with its `limits`.
pub fn limits(live: &LiveTask, text: &str) -> Vec<Finding> {
    let mut out = Vec::new();
    let show = |n: u64| {
        if n == u64::MAX {
            "unlimited".to_owned()
        } else {
            n.to_string()
        }
    };
    let mut lines = text.lines().skip(1);
    for (name, (soft, hard)) in LIMITS.iter().zip(&live.rlimits) {
        // The name of the limit has blanks and takes 26 columns.
        let rest = lines.next().and_then(|l| l.get(26..)).unwrap_or("");
        let now: Vec<&str> = rest.split_whitespace().take(2).collect();
        let now = if now.is_empty() {
            "nothing".into()
        } else {
            now.join(" ")
        };
        let images = format!("{} {}", show(*soft), show(*hard));
        differs(&mut out, &format!("limit {name}"), &images, &now);
    }
    out
}

/// Compare the control groups with `cgroup`, where they are recorded.
pub fn cgroups(live: &LiveTask, text: &str) -> Vec<Finding> {
    let mut out = Vec::new();
    for group in live.cgroups.iter().flatten() {
        let now = text.lines().find_map(|line| {
            let (name, path) = line.split_once(':')?.1.split_once(':')?;
            (name == group.controllers).then_some(path)
        });
        let what = format!("cgroup {}", group.controllers);
        differs(
            &mut out,
            what.trim_end(),
            &group.path,
            now.unwrap_or("nothing"),
        );
    }
    out
}

/// The small files of a process that hold one number each; `None` where this kernel has no such file.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// `personality`.
    pub personality: Option<String>,
    /// `oom_score_adj`.
    pub oom_score_adj: Option<String>,
    /// `loginuid`.
    pub loginuid: Option<String>,
}

/// Compare them.
pub fn numbers(live: &LiveTask, now: &Numbers) -> Vec<Finding> {
    let mut out = Vec::new();
    let all = [
        (
            "personality",
            live.personality.map(|p| format!("{p:08x}")),
            &now.personality,
            Weight::Differs,
        ),
        (
            "oom_score_adj",
            live.oom_score_adj.map(|n| n.to_string()),
            &now.oom_score_adj,
            Weight::Differs,
        ),
        (
            "login user id",
            Some(live.loginuid.unwrap_or(u32::MAX).to_string()),
            &now.loginuid,
            Weight::Masked,
        ),
    ];
    for (what, images, now, without) in all {
        match (images, now) {
            (Some(images), Some(now)) => differs(&mut out, what, &images, now.trim()),
            // Without audit the kernel has no login ids: then nobody can miss that there is none.
            (Some(images), None) if without == Weight::Differs || live.loginuid.is_some() => out
                .push(found(
                    without,
                    what,
                    format!("{images} in the images, this kernel does not have it"),
                )),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::{live, load, weights};

    const LAST_CAP: u32 = 40;

    fn status_of(cp: &Checkpoint, t: &Thread) -> String {
        let c = t.creds.as_ref().expect("credentials");
        let (mode, filters) = sealed(cp, live(cp), t);
        let mut groups = c.groups.clone();
        groups.sort_unstable();
        format!(
            "Uid:\t{}\t{}\t{}\t{}\nGid:\t{}\t{}\t{}\t{}\nGroups:\t{} \nCapInh:\t{:016x}\nCapPrm:\t{:016x}\n\
             CapEff:\t{:016x}\nCapBnd:\t{:016x}\nCapAmb:\t{:016x}\nNoNewPrivs:\t{}\nSeccomp:\t{mode}\n\
             Seccomp_filters:\t{filters}\n",
            c.uid,
            c.euid,
            c.suid,
            c.fsuid,
            c.gid,
            c.egid,
            c.sgid,
            c.fsgid,
            joined(&groups),
            c.cap_inh,
            c.cap_prm,
            c.cap_eff,
            c.cap_bnd,
            c.cap_amb,
            u32::from(c.no_new_privs),
        )
    }

    fn stat_of(t: &Thread) -> String {
        let mut words = vec!["0".to_owned(); 50];
        words[NICE - 3] = t.nice.unwrap_or(0).to_string();
        let (policy, priority) = t.sched.unwrap_or_default();
        words[POLICY - 3] = (policy & !RESET_ON_FORK).to_string();
        words[RT_PRIORITY - 3] = priority.to_string();
        format!("136 (a) b (c) {}\n", words.join(" "))
    }

    #[test]
    fn each_line_of_a_thread_is_compared() {
        for name in ["identity", "seccomp", "threads", "task"] {
            let cp = load(name);
            let live = live(&cp);
            for t in &live.threads {
                let (status, stat) = (status_of(&cp, t), stat_of(t));
                assert_eq!(thread(&cp, live, t, &status, &stat, LAST_CAP), []);
                for line in status.lines() {
                    let wrong = status.replace(line, &format!("{line}9"));
                    let all = thread(&cp, live, t, &wrong, &stat, LAST_CAP);
                    assert_eq!(weights(&all), [Weight::Differs], "{line}");
                    // A line that is not there is a difference too, but for what older kernels lack.
                    let lacks = status.replace(line, "");
                    let all = thread(&cp, live, t, &lacks, &stat, LAST_CAP);
                    let missing = usize::from(!line.starts_with("Seccomp_filters"));
                    assert_eq!(all.len(), missing, "{line}");
                }
                let all = thread(&cp, live, t, &status, "", LAST_CAP);
                let recorded = usize::from(t.nice.is_some()) + 2 * usize::from(t.sched.is_some());
                assert!(recorded > 0);
                assert_eq!(all.len(), recorded);
            }
        }
    }

    #[test]
    fn capabilities_that_this_kernel_lacks_are_masked() {
        let mut cp = load("counter");
        let live = cp.tasks[0].live.as_mut().expect("alive");
        let mut c = live.threads[0].creds.clone().expect("credentials");
        c.cap_bnd = 1 << 40 | 1 << 38 | 7;
        live.threads[0].creds = Some(c);
        let live = cp.tasks[0].live.as_ref().expect("alive");
        let t = &live.threads[0];
        let here =
            status_of(&cp, t).replace("CapBnd:\t0000014000000007", "CapBnd:\t0000004000000007");
        let look = |last| weights(&thread(&cp, live, t, &here, &stat_of(t), last));
        assert_eq!(look(39), [Weight::Masked]);
        assert_eq!(look(40), [Weight::Differs]);
        // One that it has, and more than there were.
        let fewer = here.replace("CapBnd:\t0000004000000007", "CapBnd:\t0000004000000003");
        let more = here.replace("CapBnd:\t0000004000000007", "CapBnd:\t000000400000000f");
        for wrong in [fewer, more] {
            let all = thread(&cp, live, t, &wrong, &stat_of(t), 39);
            assert_eq!(weights(&all), [Weight::Differs]);
        }
    }

    #[test]
    fn each_limit_is_compared() {
        let cp = load("identity");
        let live = live(&cp);
        assert_eq!(live.rlimits.len(), LIMITS.len());
        let show = |n: u64| {
            if n == u64::MAX {
                "unlimited".into()
            } else {
                n.to_string()
            }
        };
        let mut text = format!(
            "{:26}{:21}{:21}Units\n",
            "Limit", "Soft Limit", "Hard Limit"
        );
        for (name, (soft, hard)) in LIMITS.iter().zip(&live.rlimits) {
            let name = format!("Max {name} of it");
            text += &format!("{name:26}{:21}{:21}bytes\n", show(*soft), show(*hard));
        }
        assert_eq!(limits(live, &text), []);
        for (n, name) in LIMITS.iter().enumerate() {
            let mut lines: Vec<&str> = text.lines().collect();
            let wrong = format!(
                "{:26}{:21}{:21}bytes",
                "Max of it",
                5,
                show(live.rlimits[n].1)
            );
            lines[n + 1] = &wrong;
            let all = limits(live, &lines.join("\n"));
            assert_eq!(all.len(), 1);
            assert_eq!(all[0].what, format!("limit {name}"));
        }
        assert_eq!(limits(live, "").len(), LIMITS.len());
    }

    #[test]
    fn each_control_group_is_compared() {
        let mut cp = load("counter");
        let live = cp.tasks[0].live.as_mut().expect("alive");
        assert_eq!(cgroups(live, "0::/wherever\n"), []);
        let group = |controllers: &str, path: &str| armrest_images::Cgroup {
            controllers: controllers.into(),
            path: path.into(),
        };
        live.cgroups = Some(vec![group("", "/a:b"), group("cpu,cpuacct", "/c")]);
        assert_eq!(cgroups(live, "4:cpu,cpuacct:/c\n0::/a:b\n"), []);
        let f = cgroups(live, "4:cpu,cpuacct:/a:b\n0::/a:b\n");
        assert_eq!(weights(&f), [Weight::Differs]);
        assert_eq!(f[0].what, "cgroup cpu,cpuacct");
        assert_eq!(cgroups(live, "").len(), 2);
    }

    #[test]
    fn the_small_files_are_compared() {
        let mut cp = load("identity");
        let live = cp.tasks[0].live.as_mut().expect("alive");
        live.personality = Some(0x0004_0000);
        live.oom_score_adj = Some(-17);
        live.loginuid = Some(1000);
        let now = Numbers {
            personality: Some("00040000\n".into()),
            oom_score_adj: Some("-17\n".into()),
            loginuid: Some("1000".into()),
        };
        assert_eq!(numbers(live, &now), []);
        for (n, other) in [
            Numbers {
                personality: Some("00000000\n".into()),
                ..now.clone()
            },
            Numbers {
                oom_score_adj: Some("0\n".into()),
                ..now.clone()
            },
            Numbers {
                loginuid: Some("4294967295".into()),
                ..now.clone()
            },
        ]
        .iter()
        .enumerate()
        {
            let all = numbers(live, other);
            assert_eq!(weights(&all), [Weight::Differs]);
            let what = ["personality", "oom_score_adj", "login user id"][n];
            assert_eq!(all[0].what, what);
        }
        let none = numbers(live, &Numbers::default());
        assert_eq!(
            weights(&none),
            [Weight::Differs, Weight::Differs, Weight::Masked]
        );
    }
}
