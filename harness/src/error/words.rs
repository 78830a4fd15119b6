//! What went wrong in words: the lines for a person, and the same for programs.

use std::io;

use armrest_images::Class;
use armrest_plan::{Refusal, RefusalKind};

use super::Error;

impl Error {
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
                io::ErrorKind::FileTooLarge => "allow larger files (ulimit -f)",
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
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return text.to_owned();
    }
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
