//! Everything that can go wrong, with its exit code and its words.
//!
//! Printed as `armrest: PHASE: WHAT: WHY` and `armrest: try: HINT`. Texts may come from images, so whatever could
//! steer a terminal is escaped here, in one place. The codes are listed in `docs/exit-codes.md`; a test compares.

mod codes;
mod words;

pub use codes::{CODES, CodeRow};
pub use words::{printable, refusal_line};

use std::io;
use std::path::PathBuf;

use armrest_plan::Refusals;

/// A file that is not as it was at the dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Path as the images record it.
    pub path: String,
    /// What differs, both values named: `size 120 at the dump, 180 now`.
    pub how: String,
}

/// Why armrest gives up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense.
    #[error("{what}")]
    Usage {
        /// What is wrong.
        what: String,
    },
    /// The images cannot be what a dump wrote, or are not all there.
    #[error(transparent)]
    Images(#[from] armrest_images::Error),
    /// The plan refuses: each thing by name.
    #[error("{} things cannot be restored", .0.0.len())]
    Refused(Refusals),
    /// A file that a mapping or descriptor needs is not there.
    #[error("{path}: {why}")]
    MissingFile {
        /// Path as the images record it.
        path: String,
        /// Who needs it, and what the system said.
        why: String,
    },
    /// Files changed since the dump.
    #[error("{} files changed since the dump", .0.len())]
    ChangedFiles(Vec<Changed>),
    /// A path of the images leads out of ROOT, or to something that may not be opened.
    #[error("{path}: {why}")]
    BadPath {
        /// Path as the images record it.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The wanted pid is in use.
    #[error("pid {pid}: taken by {by}")]
    PidTaken {
        /// The pid of the checkpoint.
        pid: u32,
        /// Which process has it: `4711 (sshd)`.
        by: String,
    },
    /// A SysV id or key is in use.
    #[error("{what}: {why}")]
    SysVTaken {
        /// Which one: `SysV segment 5, key 0x1234`.
        what: String,
        /// By whom or how that was seen.
        why: String,
        /// The option of ipcrm for its kind.
        flag: char,
    },
    /// This process may not choose pids or SysV ids.
    #[error("{what}: {why}")]
    MayNotChoose {
        /// Which id.
        what: String,
        /// What the kernel said.
        why: String,
    },
    /// Namespaces of their own cannot be made.
    #[error("{what}: {why}")]
    Namespaces {
        /// Which step.
        what: String,
        /// What the kernel said.
        why: String,
    },
    /// The kernel or this machine cannot do what a restore needs.
    #[error("{what}: {why}")]
    Machine {
        /// What is needed.
        what: String,
        /// What was found.
        why: String,
    },
    /// The blob reported a failure.
    #[error("{what}: {why}")]
    Blob {
        /// Step and object, in words.
        what: String,
        /// Call and result, in words.
        why: String,
    },
    /// The restoring child ended, or is not what it should be, without a report.
    #[error("{what}: {why}")]
    Lost {
        /// What was waited for.
        what: String,
        /// How it ended.
        why: String,
    },
    /// A file of ours cannot be written: log, pidfile, status, memory object.
    #[error("{path}: {source}")]
    Output {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The restore took longer than `--timeout`.
    #[error("{what}: not done after {seconds} s")]
    Timeout {
        /// What was waited for.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// The program was built without the blob.
    #[error("this armrest carries no blob: it can look and plan, not restore")]
    NoBlob,
    /// A task is not as its images say.
    #[error("{what}: {why}")]
    Differs {
        /// Which task.
        what: String,
        /// How many differences.
        why: String,
    },
    /// Something that a dead restore left cannot be removed.
    #[error("{} things are left", .0.len())]
    Left(Vec<String>),
    /// A call failed that should not, or armrest contradicts itself.
    #[error("{what}: {why}")]
    Internal {
        /// What was tried.
        what: String,
        /// What happened.
        why: String,
    },
}

impl From<Refusals> for Error {
    fn from(r: Refusals) -> Error {
        Error::Refused(r)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use armrest_plan::{Refusal, RefusalKind};

    fn refusal(kind: RefusalKind, what: &str, hint: &str) -> Refusal {
        Refusal {
            kind,
            what: what.into(),
            hint: hint.into(),
        }
    }

    fn examples() -> Vec<Error> {
        let (what, why, path) = ("what".to_owned(), "why".to_owned(), "/p".to_owned());
        vec![
            Error::Usage { what: what.clone() },
            Error::MissingFile {
                path: path.clone(),
                why: why.clone(),
            },
            Error::ChangedFiles(vec![Changed {
                path: path.clone(),
                how: "size 1 at the dump, 2 now".into(),
            }]),
            Error::BadPath {
                path: path.clone(),
                why: why.clone(),
            },
            Error::PidTaken {
                pid: 136,
                by: "4711 (sshd)".into(),
            },
            Error::SysVTaken {
                what: what.clone(),
                why: why.clone(),
                flag: 'm',
            },
            Error::MayNotChoose {
                what: what.clone(),
                why: why.clone(),
            },
            Error::Namespaces {
                what: what.clone(),
                why: why.clone(),
            },
            Error::Machine {
                what: what.clone(),
                why: why.clone(),
            },
            Error::Blob {
                what: what.clone(),
                why: why.clone(),
            },
            Error::Lost {
                what: what.clone(),
                why: why.clone(),
            },
            Error::Output {
                path: path.into(),
                source: io::Error::from(io::ErrorKind::StorageFull),
            },
            Error::Timeout {
                what: what.clone(),
                seconds: 3,
            },
            Error::NoBlob,
            Error::Left(vec![what.clone()]),
            Error::Differs {
                what: what.clone(),
                why: why.clone(),
            },
            Error::Internal { what, why },
        ]
    }

    #[test]
    fn codes_are_distinct_and_out_of_the_way_of_shells_signals_and_the_blob() {
        let mut seen = std::collections::BTreeSet::new();
        for r in CODES {
            assert!(
                seen.insert(r.code) && (r.code == 2 || (80..112).contains(&r.code)),
                "{r:?}"
            );
        }
        let names: std::collections::BTreeSet<_> = CODES.iter().map(|r| r.name).collect();
        assert_eq!(names.len(), CODES.len());
    }

    #[test]
    fn every_error_has_a_code_of_its_own_in_the_table() {
        let codes: Vec<u8> = examples().iter().map(Error::exit_code).collect();
        let apart: std::collections::BTreeSet<_> = codes.iter().collect();
        assert_eq!(apart.len(), codes.len());
        for c in codes {
            assert!(CODES.iter().any(|r| r.code == c), "{c}");
        }
    }

    #[test]
    fn the_document_lists_the_same_codes() {
        let doc = include_str!("../../../docs/exit-codes.md");
        for r in CODES {
            let line = format!("| {} | `{}` | {} |", r.code, r.name, r.meaning);
            assert!(doc.contains(&line), "docs/exit-codes.md lacks: {line}");
        }
    }

    #[test]
    fn lines_name_phase_what_and_why_and_what_to_try() {
        let e = Error::PidTaken {
            pid: 136,
            by: "136 (sshd)".into(),
        };
        assert_eq!(
            e.lines(),
            [
                "armrest: ids: pid 136: taken by 136 (sshd)",
                "armrest: try: end that process, or use --new-namespaces or --any-pid",
            ]
        );
        for e in examples() {
            assert!(e.lines()[0].starts_with(&format!("armrest: {}: ", e.phase())));
            assert_eq!(e.json()["code"], e.exit_code());
        }
    }

    #[test]
    fn refusals_come_all_at_once_and_hints_only_once() {
        let r = Refusals(vec![
            refusal(RefusalKind::Ids, "pid 5", "later"),
            refusal(RefusalKind::Unsupported, "fd 3: pipe", "later"),
        ]);
        let e = Error::from(r);
        assert_eq!(e.exit_code(), 94);
        assert_eq!(
            e.lines(),
            [
                "armrest: plan: pid 5: cannot be had",
                "armrest: plan: fd 3: pipe: not supported",
                "armrest: try: later"
            ]
        );
    }

    #[test]
    fn a_path_cannot_steer_the_terminal_or_fake_a_line() {
        let e = Error::MissingFile {
            path: "/a\u{1b}[2J\narmrest: restored\u{202e}".into(),
            why: "gone".into(),
        };
        assert_eq!(
            e.lines()[0],
            "armrest: files: /a\\u{1b}[2J\\narmrest: restored\\u{202e}: gone"
        );
    }
}
