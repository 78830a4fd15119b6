//! `armrest check`: what this kernel can do for a restore, found out by trying.

use super::{Table, print, print_json};
use crate::cli::CheckOptions;
use crate::error::Error;
use crate::machine;
use crate::probe::{self, Fact};
use armrest_plan::timers::TimerIds;
use serde::Serialize;

/// How much a restore needs a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Every restore.
    Always,
    /// Some checkpoints, or only for fidelity.
    Some,
    /// Neither yes nor no is better: it decides how something is done.
    Fact,
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The feature.
    pub feature: &'static str,
    /// What needs it.
    pub needed_for: &'static str,
    /// How much.
    pub need: Need,
    /// Found; `null` if it could not be asked.
    pub found: Option<bool>,
    /// Why not, or details.
    pub detail: String,
    /// Kernel option, `-` if it is always there.
    pub option: &'static str,
    /// First kernel version.
    pub since: &'static str,
}

impl Row {
    fn new(
        feature: &'static str,
        needed_for: &'static str,
        option: &'static str,
        since: &'static str,
        fact: Fact,
    ) -> Row {
        let (found, detail) = match fact {
            Fact::Yes => (Some(true), String::new()),
            Fact::No(why) => (Some(false), why),
            Fact::Unknown(why) => (None, why),
        };
        Row {
            feature,
            needed_for,
            need: Need::Some,
            found,
            detail,
            option,
            since,
        }
    }
    fn need(mut self, need: Need) -> Row {
        self.need = need;
        self
    }
    fn found_words(&self) -> String {
        let word = match self.found {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        if self.detail.is_empty() {
            word.to_owned()
        } else {
            format!("{word}: {}", self.detail)
        }
    }
}

/// Ask everything.
pub fn rows() -> Vec<Row> {
    let madvise = match probe::madvise() {
        Ok(all) => {
            let lacks: Vec<&str> = probe::ADVICE
                .iter()
                .filter(|(n, _)| !all.contains(n))
                .map(|(_, w)| *w)
                .collect();
            if lacks.is_empty() {
                Fact::Yes
            } else {
                Fact::No(format!("lacks {}", lacks.join(", ")))
            }
        }
        Err(e) => Fact::Unknown(e.to_string()),
    };
    vec![
        Row::new(
            "mremap to an address",
            "every restore",
            "-",
            "2.4",
            probe::mremap(),
        )
        .need(Need::Always),
        Row::new("preadv", "page contents", "-", "2.6.30", probe::preadv()).need(Need::Always),
        Row::new(
            "memfd_create",
            "patched vdso, memory files",
            "MEMFD_CREATE",
            "3.17",
            probe::memfd_create(),
        ),
        Row::new(
            "shmat at an address",
            "SysV shared memory",
            "SYSVIPC",
            "2.4",
            probe::sysv_shm(),
        ),
        Row::new(
            "SHMLBA is enforced",
            "how segments are attached",
            "-",
            "-",
            probe::shmlba_enforced(),
        )
        .need(Need::Fact),
        Row::new(
            "data cache aliases",
            "off-colour segments: refused",
            "-",
            "-",
            probe::cache_aliases(),
        )
        .need(Need::Fact),
        Row::new(
            "clone3 with set_tid",
            "pid of the checkpoint",
            "-",
            "5.5",
            probe::set_tid(),
        ),
        Row::new(
            "... and permitted",
            "pid of the checkpoint",
            "-",
            "5.5",
            probe::may_set_tid(),
        ),
        Row::new(
            "ns_last_pid",
            "the pid without set_tid",
            "CHECKPOINT_RESTORE",
            "3.3",
            probe::ns_last_pid(),
        ),
        Row::new(
            "shm_next_id",
            "SysV ids of the checkpoint",
            "CHECKPOINT_RESTORE",
            "3.8",
            probe::shm_next_id(),
        ),
        Row::new(
            "PR_SET_MM_MAP",
            "brk, /proc/PID/cmdline, exe",
            "CHECKPOINT_RESTORE",
            "3.18",
            probe::mm_map(),
        ),
        Row::new(
            "rseq",
            "restartable sequences",
            "RSEQ",
            "4.18",
            probe::rseq(),
        ),
        Row::new(
            "set_robust_list",
            "robust mutexes",
            "FUTEX",
            "2.6.17",
            probe::robust_list(),
        ),
        Row::new(
            "madvise bits",
            "advice of mappings",
            "ADVISE_SYSCALLS",
            "4.14",
            madvise,
        ),
        Row::new(
            "numbers of POSIX timers",
            "tasks with POSIX timers",
            "POSIX_TIMERS",
            "2.6",
            match probe::timer_ids() {
                TimerIds::Foreign => Fact::No("an emulator's".to_owned()),
                TimerIds::Counted | TimerIds::Chosen => Fact::Yes,
            },
        ),
        Row::new(
            "time namespaces",
            "clocks that go on",
            "TIME_NS",
            "5.6",
            probe::timens(machine::cap_eff()),
        ),
        Row::new(
            "PR_SET_THP_DISABLE",
            "tasks without huge pages",
            "-",
            "3.15",
            probe::thp_disable(),
        ),
        Row::new(
            "seccomp filters",
            "programs that had some",
            "SECCOMP_FILTER",
            "3.17",
            probe::seccomp(),
        ),
        Row::new(
            "close_range",
            "closing many descriptors",
            "-",
            "5.9",
            probe::close_range(),
        ),
        Row::new(
            "ptrace",
            "later versions: exact stop",
            "-",
            "2.4",
            probe::ptrace(),
        ),
    ]
}

/// The rows as text.
pub fn render(rows: &[Row]) -> String {
    let mut t = Table::new(&["feature", "needed for", "found", "option", "since"]);
    for r in rows {
        t.row([r.feature, r.needed_for, &r.found_words(), r.option, r.since]);
    }
    t.render()
}

/// Print the table; the exit status.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(options: &CheckOptions) -> Result<i32, Error> {
    let rows = rows();
    let missing = rows
        .iter()
        .filter(|r| r.need == Need::Always && r.found == Some(false))
        .count();
    if options.json {
        print_json(&serde_json::json!(rows))?;
    } else {
        let (release, machine) = (probe::release(), probe::machine_name());
        let how = if probe::emulated() {
            ", emulated by qemu-user: found is what the emulator does"
        } else {
            ""
        };
        print(&format!(
            "Linux {release} {machine}{how}\n\n{}",
            render(&rows)
        ))?;
    }
    Ok(if missing == 0 { 0 } else { 102 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_says_why_not() {
        let rows = [
            Row::new("a", "b", "-", "1", Fact::Yes),
            Row::new("c", "d", "X", "2", Fact::No("no such call".into())),
            Row::new("e", "f", "-", "-", Fact::Unknown("not permitted".into())),
        ];
        assert_eq!(
            render(&rows),
            "feature  needed for  found                   option  since\n\
             a        b           yes                     -       1\n\
             c        d           no: no such call        X       2\n\
             e        f           unknown: not permitted  -       -\n"
        );
    }

    #[test]
    fn this_host_can_do_what_every_restore_needs() {
        assert!(
            rows()
                .iter()
                .filter(|r| r.need == Need::Always)
                .all(|r| r.found == Some(true))
        );
    }
}
