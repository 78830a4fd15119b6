//! Exit codes, as `docs/exit-codes.md` lists them.

use armrest_images::Class;
use armrest_plan::{RefusalKind, Refusals};

use super::Error;

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
    row(
        80,
        "image-missing",
        "an image file, or the whole directory, is missing",
    ),
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
