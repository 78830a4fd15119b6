//! Compares a restored task with the images it came from, through `/proc`; see docs/verify.md.
//!
//! Each part takes the text of one file of `/proc` and says what differs, so that it can be tried on text alone;
//! [`verify()`] reads the files and puts the parts together. Nothing is changed in the task, and it is not traced.

pub mod fds;
pub mod maps;
pub mod memory;
pub mod registers;
pub mod stat;
pub mod status;
pub mod sysv;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use armrest_abi::BLOB_MAGIC;
use armrest_images::{Checkpoint, File as ImageFile, FsDir};
use serde::Serialize;

use crate::error::Error;
use crate::objects::memory::PagesFiles;
use crate::probe;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Not as the images say.
    Differs,
    /// Not as the images say, and no wonder: the task has run since the restore.
    Ran,
    /// On the fixed list of what must differ.
    Masked,
}

/// One thing that is not as the images say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it weighs.
    pub weight: Weight,
    /// Which thing.
    pub what: String,
    /// Both values.
    pub why: String,
}

/// What was compared and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The task.
    pub pid: u32,
    /// Why its writable pages and positions may differ, if they may.
    pub ran: Option<String>,
    /// Everything found, in the order of the parts.
    pub findings: Vec<Finding>,
    /// How many of each were compared.
    pub compared: BTreeMap<&'static str, u64>,
}

impl Report {
    /// How many findings of this weight.
    pub fn count(&self, weight: Weight) -> usize {
        self.findings.iter().filter(|f| f.weight == weight).count()
    }
}

/// What verify is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The images.
    pub images: &'a Path,
    /// The tree that the task was restored below.
    pub root: Option<&'a Path>,
    /// The task.
    pub pid: u32,
    /// It may have run since the restore.
    pub allow_ran: bool,
}

fn found(weight: Weight, what: impl Into<String>, why: impl Into<String>) -> Finding {
    Finding {
        weight,
        what: what.into(),
        why: why.into(),
    }
}

/// A finding if the two are not the same.
fn compare<T: PartialEq + std::fmt::Display>(
    out: &mut Vec<Finding>,
    weight: Weight,
    what: impl Into<String>,
    images: T,
    task: T,
) {
    if images != task {
        out.push(found(
            weight,
            what,
            format!("{images} in the images, {task} in the task"),
        ));
    }
}

/// A path of the images as the kernel shows it to us.
fn shown(path: &str, root: &str) -> String {
    let path = match (root, path) {
        ("", p) => p.to_owned(),
        (r, "/") => r.to_owned(),
        (r, p) => format!("{r}{p}"),
    };
    path.replace('\n', "\\012")
}

fn path_of(cp: &Checkpoint, file: u32, root: &str) -> Option<String> {
    match cp.files.get(&file)? {
        ImageFile::Reg(r) => Some(fds::reg(r, root)),
        ImageFile::Memfd { inode, .. } => {
            Some(format!("/memfd:{} (deleted)", cp.memfds.get(inode)?.name))
        }
        file => fds::link(cp, file, root),
    }
}

fn key<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    Some(text.lines().find_map(|l| l.strip_prefix(key))?.trim())
}

/// Compare a task with the images.
///
/// # Errors
/// The images cannot be used, there is no such task, or it cannot be looked into. That something differs is no error
/// here: it is in the report.
pub fn verify(request: Request<'_>) -> Result<Report, Error> {
    let pid = request.pid;
    let dir = format!("/proc/{pid}");
    let cannot = |name: &str, e: &io::Error| Error::Machine {
        what: format!("{dir}/{name}"),
        why: e.to_string(),
    };
    let bytes = |name: &str| fs::read(format!("{dir}/{name}")).map_err(|e| cannot(name, &e));
    let text = |name: &str| bytes(name).map(|b| String::from_utf8_lossy(&b).into_owned());
    let link = |name: &str| {
        fs::read_link(format!("{dir}/{name}"))
            .map(|p| p.to_string_lossy().into_owned())
            .map_err(|e| cannot(name, &e))
    };
    if !Path::new(&dir).exists() {
        return Err(Error::Usage {
            what: format!("-t {pid}: there is no such process"),
        });
    }
    let cp = armrest_images::load(&FsDir::new(request.images))?;
    let Some((task, live)) = cp.tasks.first().and_then(|t| Some((t, t.live.as_ref()?))) else {
        return Err(Error::Usage {
            what: "the checkpoint holds no living task".into(),
        });
    };
    let map_text = text("maps")?;
    let wide = map_text
        .lines()
        .filter_map(maps::line)
        .any(|l| l.end > u64::from(u32::MAX));
    if wide || probe::emulated() {
        return Err(Error::Machine {
            what: format!("{dir}/maps"),
            why:
                "shows the memory of an emulator or of a 64-bit program, not that of a 32-bit task"
                    .into(),
        });
    }
    let root = match request.root {
        None => String::new(),
        Some(r) => fs::canonicalize(r)
            .map_err(|e| Error::Usage {
                what: format!("--root {}: {e}", r.display()),
            })?
            .to_string_lossy()
            .trim_end_matches('/')
            .to_owned(),
    };
    let open = |name: &str| File::open(format!("{dir}/{name}")).map_err(|e| cannot(name, &e));
    let memory = memory::Proc {
        mem: open("mem")?,
        pagemap: open("pagemap")?,
    };
    let status_text = text("status")?;
    let stopped = key(&status_text, "State:").is_some_and(|s| s.starts_with(['T', 't']));
    let went = if stopped {
        text("syscall").map_or_else(
            |_| Some("where it stands cannot be read".into()),
            |t| registers::moved(live, &t),
        )
    } else {
        Some("it is not stopped".to_owned())
    };
    let ran = went.or(request.allow_ran.then(|| "--allow-ran".to_owned()));
    let mut report = Report {
        pid,
        ran,
        ..Report::default()
    };
    let may = report.ran.is_some();
    let out = &mut report.findings;
    let kept = |at: u64| {
        let mut magic = [0; 4];
        memory::Memory::read(&memory, at, &mut magic).is_ok()
            && u32::from_le_bytes(magic) == BLOB_MAGIC
    };
    out.extend(maps::maps(&cp, live, &map_text, &root, &kept));
    out.extend(maps::vm_flags(live, &text("smaps")?));
    out.extend(stat::stat(live, &text("stat")?));
    out.extend(stat::auxv(live, &bytes("auxv")?));
    for (what, file) in [("exe", live.mm.exe), ("cwd", live.cwd), ("root", live.root)] {
        if let Some(path) = path_of(&cp, file, &root) {
            compare(out, Weight::Differs, what, path, link(what)?);
        }
    }
    let comm = text("comm")?;
    compare(
        out,
        Weight::Differs,
        "comm",
        task.comm.as_str(),
        comm.trim_end_matches('\n'),
    );
    out.extend(status::status(task, live, &status_text));
    let now = fds::descriptors_now(&dir).map_err(|e| cannot("fd", &e))?;
    out.extend(fds::descriptors(&cp, live, &now, &root, may));
    if !(cp.segments.is_empty() && cp.semaphores.is_empty() && cp.queues.is_empty()) {
        sysv::enter_ipc(&dir).map_err(|e| cannot("ns/ipc", &e))?;
        out.extend(sysv::all(&cp, may)?);
    }
    let files = PagesFiles::open(request.images, &cp)?;
    let kernel = memory::KernelNow::of(&map_text, &memory);
    let (pages, compared) = memory::contents(&cp, live, &files, &memory, may, &kernel)?;
    out.extend(pages);
    report.compared = BTreeMap::from([
        ("mappings", live.mm.vmas.len() as u64),
        ("pages", compared),
        ("descriptors", live.fds.len() as u64),
        ("segments", cp.segments.len() as u64),
        ("semaphore sets", cp.semaphores.len() as u64),
        ("queues", cp.queues.len() as u64),
    ]);
    Ok(report)
}
