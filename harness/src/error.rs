//! Everything that can go wrong, with its exit code and its words.
//!
//! Printed as `armrest: PHASE: WHAT: WHY` and `armrest: try: HINT`. Texts may come from images, so whatever could
//! steer a terminal is escaped here, in one place. The codes are listed in `docs/exit-codes.md`; a test compares.

use armrest_images::Class;
use armrest_plan::{Refusal, RefusalKind, Refusals};
use std::io;
use std::path::PathBuf;

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

/// A row of `docs/exit-codes.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRow {
    /// Exit status.
    pub code: u8,
    /// Stable word for `--status-fd` and JSON.
    pub name: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// All exit codes of armrest itself.
pub const CODES: &[CodeRow] = &[
    row(2, "usage", "the command line makes no sense"),
    row(80, "image-missing", "an image file is missing"),
    row(
        81,
        "image-damaged",
        "an image is truncated, or its bytes make no sense",
    ),
    row(
        82,
        "wrong-magic",
        "a file is not the kind of image that its name says",
    ),
    row(
        83,
        "wrong-machine",
        "a checkpoint of another kind of machine",
    ),
    row(84, "page-size", "a checkpoint with another page size"),
    row(
        85,
        "bad-vma",
        "an impossible mapping: unaligned, overlapping, empty, wrapping, too high",
    ),
    row(
        86,
        "bad-pagemap",
        "an impossible page map: outside any mapping, overlapping, too long",
    ),
    row(
        87,
        "pages-size",
        "a pages file is shorter or longer than its page map tells",
    ),
    row(88, "bad-count", "an impossible count"),
    row(
        89,
        "unknown-flag",
        "a flag, status bit or kind that this version does not know",
    ),
    row(
        90,
        "bad-reference",
        "an id that leads nowhere, or is there twice",
    ),
    row(
        91,
        "bad-field",
        "a field is missing or has an impossible value",
    ),
    row(
        92,
        "image-version",
        "a form of images that this version does not read",
    ),
    row(93, "image-unreadable", "the system cannot read an image"),
    row(
        94,
        "unsupported",
        "the checkpoint holds things that this version does not restore; each is named",
    ),
    row(
        95,
        "file-missing",
        "a file that a mapping or descriptor needs is not there",
    ),
    row(96, "file-changed", "a file changed since the dump"),
    row(
        97,
        "bad-path",
        "a recorded path leads out of ROOT or to something that may not be opened",
    ),
    row(
        98,
        "pid-taken",
        "the pid is in use; by which process is said",
    ),
    row(
        99,
        "shm-taken",
        "the id or key of a SysV segment, semaphore set or queue is in use",
    ),
    row(
        100,
        "may-not-choose",
        "no permission to choose pids or SysV ids",
    ),
    row(101, "namespaces", "namespaces of their own cannot be made"),
    row(
        102,
        "machine",
        "this kernel or CPU cannot do what the restore needs",
    ),
    row(
        103,
        "blob",
        "the blob reported a failure; step, object and call are named",
    ),
    row(104, "lost", "the restoring child ended without a report"),
    row(
        105,
        "output",
        "a log, pidfile, status line or memory object cannot be written: disk full, read-only",
    ),
    row(106, "timeout", "not done within --timeout"),
    row(107, "no-blob", "this program was built without the blob"),
    row(
        108,
        "internal",
        "a call failed that should not: please report it",
    ),
    row(
        109,
        "differs",
        "the task is not as the images say; each difference is listed",
    ),
    row(
        110,
        "left",
        "something that a killed restore left cannot be removed; each is named",
    ),
];

const fn row(code: u8, name: &'static str, meaning: &'static str) -> CodeRow {
    CodeRow {
        code,
        name,
        meaning,
    }
}

impl Error {
    /// The exit status that this error ends armrest with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage { .. } => 2,
            Error::Images(e) => image_code(e.class()),
            Error::Refused(r) => refused_code(r),
            Error::MissingFile { .. } => 95,
            Error::ChangedFiles(_) => 96,
            Error::BadPath { .. } => 97,
            Error::PidTaken { .. } => 98,
            Error::SysVTaken { .. } => 99,
            Error::MayNotChoose { .. } => 100,
            Error::Namespaces { .. } => 101,
            Error::Machine { .. } => 102,
            Error::Blob { .. } => 103,
            Error::Lost { .. } => 104,
            Error::Output { .. } => 105,
            Error::Timeout { .. } => 106,
            Error::NoBlob => 107,
            Error::Internal { .. } => 108,
            Error::Differs { .. } => 109,
            Error::Left(_) => 110,
        }
    }

    /// The stable word of the exit code.
    pub fn name(&self) -> &'static str {
        let code = self.exit_code();
        CODES
            .iter()
            .find(|r| r.code == code)
            .map_or("internal", |r| r.name)
    }

    /// In which part of the work it went wrong.
    pub fn phase(&self) -> &'static str {
        match self {
            Error::Usage { .. } => "usage",
            Error::Images(_) => "images",
            Error::Refused(r) if r.0.iter().all(|r| r.kind == RefusalKind::Taken) => "ids",
            Error::Refused(_) => "plan",
            Error::MissingFile { .. } | Error::ChangedFiles(_) | Error::BadPath { .. } => "files",
            Error::PidTaken { .. } | Error::SysVTaken { .. } | Error::MayNotChoose { .. } => "ids",
            Error::Namespaces { .. } => "namespaces",
            Error::Machine { .. } => "machine",
            Error::Blob { .. } | Error::NoBlob => "blob",
            Error::Lost { .. } | Error::Timeout { .. } => "watch",
            Error::Output { .. } => "output",
            Error::Internal { .. } => "internal",
            Error::Differs { .. } => "verify",
            Error::Left(_) => "clean",
        }
    }

    /// What went wrong, one entry a thing: `WHAT: WHY`.
    pub fn details(&self) -> Vec<String> {
        match self {
            Error::Refused(r) => r.0.iter().map(refusal_line).collect(),
            Error::ChangedFiles(all) => all
                .iter()
                .map(|c| format!("{}: changed: {}", c.path, c.how))
                .collect(),
            Error::Left(all) => all.clone(),
            other => vec![other.to_string()],
        }
    }

    /// What to try, at most one entry a thing.
    pub fn hints(&self) -> Vec<String> {
        let one = |s: &str| vec![s.to_owned()];
        match self {
            Error::Usage { .. } => one("armrest --help"),
            Error::Images(e) => image_hint(e.class()).map_or_else(Vec::new, one),
            Error::Refused(r) => {
                let mut hints: Vec<String> = Vec::new();
                for h in r.0.iter().map(|r| &r.hint).filter(|h| !h.is_empty()) {
                    if !hints.contains(h) {
                        hints.push(h.clone());
                    }
                }
                hints
            }
            Error::MissingFile { why, .. } if why.starts_with("--root: ") => one(
                "-r names the directory that holds the files of the task, by their recorded paths",
            ),
            Error::MissingFile { .. } => {
                one("put the file back, or give the tree that holds it with --root")
            }
            Error::ChangedFiles(_) => one(
                "put the file back as it was at the dump, or --allow-changed PATH if the program can live with it",
            ),
            Error::BadPath { .. } => one("replace links that leave ROOT by what they point to"),
            Error::PidTaken { .. } => one("end that process, or use --new-namespaces or --any-pid"),
            Error::SysVTaken { flag, .. } => vec![format!(
                "ipcrm -{flag} ID, or use --new-namespaces or --any-ids"
            )],
            Error::MayNotChoose { .. } => one(
                "CAP_CHECKPOINT_RESTORE (or root) chooses ids; --any-pid and --any-ids take what comes",
            ),
            Error::Namespaces { .. } => one("run as root, or below: unshare -Urpif --mount-proc"),
            Error::Machine { why, .. } if why.starts_with("Permission denied") => {
                one("run as root, or as the user whose task it is")
            }
            Error::Machine { .. } => one("armrest check shows what this kernel can do"),
            Error::Lost { .. } => one(
                "the kernel log (dmesg) may tell who ended it (a memory cgroup or the kernel short of memory: signal 9); \
                     -v -v says how far it came",
            ),
            Error::Output { source, .. } => one(match source.kind() {
                io::ErrorKind::AlreadyExists => "remove the old file, or choose another name",
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    "make the directory first, or choose another place (-o, -W, --pidfile)"
                }
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    "choose a place where you may write (-o, -W, --pidfile)"
                }
                _ => "free some space, or choose another place (-o, -W, --pidfile)",
            }),
            Error::Timeout { .. } => one("a longer --timeout, or faster storage"),
            Error::Differs { .. } => {
                one("docs/verify.md lists what must differ; --allow-ran if it has run")
            }
            Error::NoBlob => one("build with `make` and use target/armrest"),
            Error::Left(_) => one("remove it by hand, then remove the journal"),
            Error::Blob { .. } | Error::Internal { .. } => Vec::new(),
        }
    }

    /// The lines for stderr.
    pub fn lines(&self) -> Vec<String> {
        let phase = self.phase();
        let what = self
            .details()
            .into_iter()
            .map(|d| format!("armrest: {phase}: {}", printable(&d)));
        let hints = self
            .hints()
            .into_iter()
            .map(|h| format!("armrest: try: {}", printable(&h)));
        what.chain(hints).collect()
    }

    /// The JSON object for `--status-fd` and `--json`.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "event": "failed",
            "code": self.exit_code(),
            "name": self.name(),
            "phase": self.phase(),
            "what": self.details(),
            "try": self.hints(),
        })
    }
}

impl From<Refusals> for Error {
    fn from(r: Refusals) -> Error {
        Error::Refused(r)
    }
}

const fn image_code(class: Class) -> u8 {
    match class {
        Class::Missing => 80,
        Class::Damaged => 81,
        Class::WrongMagic => 82,
        Class::WrongMachine => 83,
        Class::PageSize => 84,
        Class::BadVma => 85,
        Class::BadPagemap => 86,
        Class::PagesShort => 87,
        Class::BadCount => 88,
        Class::UnknownFlag => 89,
        Class::BadReference => 90,
        Class::BadField => 91,
        Class::Version => 92,
        Class::Io => 93,
        Class::Unsupported => 94,
    }
}

const fn image_hint(class: Class) -> Option<&'static str> {
    match class {
        Class::Missing => {
            Some("is this the directory that `criu dump -D` wrote, and is it complete?")
        }
        Class::Damaged | Class::WrongMagic | Class::PagesShort => {
            Some("copy the images again from where they were dumped")
        }
        Class::WrongMachine | Class::PageSize => {
            Some("armrest restores 32-bit ARM tasks with pages of 4096 bytes")
        }
        Class::Version | Class::UnknownFlag | Class::Unsupported => {
            Some("`armrest show FILE.img` shows what is there")
        }
        Class::Io => Some(
            "each image must be a plain file that you may read; run as who made the dump, or as root",
        ),
        _ => None,
    }
}

/// What cannot be restored whatever the machine outweighs what this machine cannot do, that a pid that is taken, and that
/// ids which may not be chosen.
fn refused_code(r: &Refusals) -> u8 {
    let has = |k: RefusalKind| r.0.iter().any(|r| r.kind == k);
    if has(RefusalKind::Unsupported) {
        94
    } else if has(RefusalKind::Machine) {
        102
    } else if has(RefusalKind::Taken) {
        98
    } else {
        100
    }
}

/// A refusal in one line: what, and why.
pub fn refusal_line(r: &Refusal) -> String {
    let why = match r.kind {
        RefusalKind::Unsupported => "not supported",
        RefusalKind::Machine => "cannot be done on this machine",
        // By whom is said already.
        RefusalKind::Taken => return r.what.clone(),
        RefusalKind::Ids => "cannot be had",
    };
    format!("{}: {why}", r.what)
}

/// `text` with everything that could steer a terminal or fake a line of ours escaped.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Control characters, and the marks that turn the direction of text around.
        if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use armrest_plan::Refusal;

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
        let doc = include_str!("../../docs/exit-codes.md");
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
