//! Compares a restored task with the images it came from, through `/proc`; see docs/verify.md.
//!
//! Each part takes the text of one file of `/proc` and says what differs, so that it can be tried on text alone;
//! [`verify()`] reads the files and puts the parts together, process by process and thread by thread. Nothing is changed in the
//! task. Of a task that is stopped the registers are read by ptrace.

pub mod family;
pub mod fds;
pub mod identity;
pub mod live;
pub mod maps;
pub mod memory;
pub mod registers;
pub mod stat;
pub mod status;
pub mod sysv;
pub mod tables;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use armrest_abi::BLOB_MAGIC;
use armrest_images::{Checkpoint, File as ImageFile, LiveTask, Task};
use serde::Serialize;

use crate::error::Error;
use crate::objects::memory::PagesFiles;
use crate::{probe, trace};

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

/// The highest capability that this kernel has.
const LAST_CAP: &str = "/proc/sys/kernel/cap_last_cap";

/// A process, through `/proc`.
struct Process {
    dir: String,
}

impl Process {
    fn cannot(&self, name: &str, e: &io::Error) -> Error {
        Error::Machine {
            what: format!("{}/{name}", self.dir),
            why: e.to_string(),
        }
    }
    fn bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        fs::read(format!("{}/{name}", self.dir)).map_err(|e| self.cannot(name, &e))
    }
    fn text(&self, name: &str) -> Result<String, Error> {
        self.bytes(name)
            .map(|b| String::from_utf8_lossy(&b).into_owned())
    }
    /// A file that this kernel may not have.
    fn if_there(&self, name: &str) -> Result<Option<String>, Error> {
        match fs::read_to_string(format!("{}/{name}", self.dir)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            text => text.map(Some).map_err(|e| self.cannot(name, &e)),
        }
    }
    fn link(&self, name: &str) -> Result<String, Error> {
        fs::read_link(format!("{}/{name}", self.dir))
            .map(|p| p.to_string_lossy().into_owned())
            .map_err(|e| self.cannot(name, &e))
    }
    fn open(&self, name: &str) -> Result<File, Error> {
        File::open(format!("{}/{name}", self.dir)).map_err(|e| self.cannot(name, &e))
    }
}

/// A comparison: what it compares with, and what it has found.
struct Comparison<'a> {
    request: Request<'a>,
    cp: &'a Checkpoint,
    root: String,
    files: PagesFiles,
    report: Report,
}

/// Compare a task, and all that descend from it in the checkpoint, with the images.
///
/// # Errors
/// The images cannot be used, there is no such task, or it cannot be looked into. That something differs is no error
/// here: it is in the report.
pub fn verify(request: Request<'_>) -> Result<Report, Error> {
    let pid = request.pid;
    if !Path::new(&format!("/proc/{pid}")).exists() {
        return Err(Error::Usage {
            what: format!(
                "-t {pid}: there is no such process; the pid is what restore printed or wrote into its --pidfile"
            ),
        });
    }
    let cp = armrest_images::load_from(request.images)?;
    if cp.tasks.first().is_none_or(|t| t.live.is_none()) {
        return Err(Error::Usage {
            what: "the checkpoint holds no living task".into(),
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
    let files = PagesFiles::open(request.images, &cp)?;
    let mut all = Comparison {
        request,
        cp: &cp,
        root,
        files,
        report: Report {
            pid,
            ..Report::default()
        },
    };
    let processes = family::listed("/proc").map_err(|e| Error::Machine {
        what: "/proc".into(),
        why: e.to_string(),
    })?;
    let here = family::descendants(&processes, pid);
    let mut numbers = BTreeMap::new();
    for (i, task) in cp.tasks.iter().enumerate() {
        // The first is the one that was named, whatever its number.
        let known = here.get(&task.pid).copied();
        let number = if i == 0 { Some(pid) } else { known };
        let before = all.report.findings.len();
        if let Some(number) = number {
            numbers.insert(i, number);
            let p = Process {
                dir: format!("/proc/{number}"),
            };
            let mut ids = here.clone();
            // With another number the root still leads what it led.
            ids.insert(cp.tasks[0].pid, pid);
            all.report
                .findings
                .extend(stat::relations(task, i == 0, &ids, &p.text("stat")?));
        }
        match (number, &task.live) {
            (Some(number), Some(live)) => all.process(task, live, number)?,
            (Some(_), None) => {}
            (None, _) => all
                .report
                .findings
                .push(found(Weight::Differs, "process", "not there")),
        }
        for f in all
            .report
            .findings
            .iter_mut()
            .skip(before)
            .filter(|_| i > 0)
        {
            f.what = format!("pid {}: {}", task.pid, f.what);
        }
    }
    let (findings, compared) = tables::tables(&cp, &numbers, &tables::one_table);
    all.report.findings.extend(findings);
    all.count("descriptor tables", compared);
    all.sysv()?;
    Ok(all.report)
}

impl Comparison<'_> {
    fn count(&mut self, what: &'static str, n: usize) {
        *self.report.compared.entry(what).or_default() += n as u64;
    }

    /// One process.
    fn process(&mut self, task: &Task, live: &LiveTask, pid: u32) -> Result<(), Error> {
        let cp = self.cp;
        let p = Process {
            dir: format!("/proc/{pid}"),
        };
        let map_text = p.text("maps")?;
        let wide = map_text
            .lines()
            .filter_map(maps::line)
            .any(|l| l.end > u64::from(u32::MAX));
        if wide || probe::emulated() {
            return Err(Error::Machine {
                what: format!("{}/maps", p.dir),
                why:
                    "shows the memory of an emulator or of a 64-bit program, not that of a 32-bit \
                      task"
                        .into(),
            });
        }
        let memory = memory::Proc {
            mem: p.open("mem")?,
            pagemap: p.open("pagemap")?,
        };
        let status_text = p.text("status")?;
        let stopped = key(&status_text, "State:").is_some_and(|s| s.starts_with(['T', 't']));
        let went = if stopped {
            p.text("syscall").map_or_else(
                |_| Some("where it stands cannot be read".into()),
                |t| registers::moved(live, &t),
            )
        } else {
            Some("it is not stopped: its registers are not looked at".to_owned())
        };
        let ran = went.or(self.request.allow_ran.then(|| "--allow-ran".to_owned()));
        let may = ran.is_some();
        self.report.ran = self.report.ran.take().or(ran);
        let kept = |at: u64| {
            let mut magic = [0; 4];
            memory::Memory::read(&memory, at, &mut magic).is_ok()
                && u32::from_le_bytes(magic) == BLOB_MAGIC
        };
        let mut out = maps::maps(cp, live, &map_text, &self.root, &kept);
        out.extend(maps::vm_flags(live, &p.text("smaps")?));
        out.extend(stat::stat(live, &p.text("stat")?));
        out.extend(stat::auxv(live, &p.bytes("auxv")?));
        for (what, file) in [("exe", live.mm.exe), ("cwd", live.cwd), ("root", live.root)] {
            // Below --root paths are resolved, but the root directory stays what it is.
            let below = match cp.files.get(&file) {
                Some(ImageFile::Reg(r)) if what == "root" && r.path == "/" => "",
                _ => &self.root,
            };
            if let Some(path) = path_of(cp, file, below) {
                compare(&mut out, Weight::Differs, what, path, p.link(what)?);
            }
        }
        out.extend(status::status(task, live, &status_text));
        out.extend(identity::limits(live, &p.text("limits")?));
        let numbers = identity::Numbers {
            personality: p.if_there("personality")?,
            oom_score_adj: p.if_there("oom_score_adj")?,
            loginuid: p.if_there("loginuid")?,
        };
        out.extend(identity::numbers(live, &numbers));
        out.extend(identity::cgroups(
            live,
            &p.if_there("cgroup")?.unwrap_or_default(),
        ));
        self.report.findings.append(&mut out);
        self.threads(task, live, &p, stopped, may)?;
        let now = fds::descriptors_now(&p.dir).map_err(|e| p.cannot("fd", &e))?;
        out.extend(fds::descriptors(cp, live, &now, &self.root, may));
        out.extend(live::descriptors(cp, live, pid, may));
        let kernel = memory::KernelNow::of(&map_text, &memory);
        let (pages, compared) = memory::contents(cp, live, &self.files, &memory, may, &kernel)?;
        out.extend(pages);
        self.report.findings.append(&mut out);
        self.count("mappings", live.mm.vmas.len());
        self.count("limits", live.rlimits.len());
        self.count("pages", usize::try_from(compared).unwrap_or(usize::MAX));
        self.count("descriptors", live.fds.len());
        Ok(())
    }

    /// The threads of a process: none more, none less, each as it was.
    fn threads(
        &mut self,
        task: &Task,
        live: &LiveTask,
        p: &Process,
        stopped: bool,
        may: bool,
    ) -> Result<(), Error> {
        let now = family::listed(&format!("{}/task", p.dir)).map_err(|e| p.cannot("task", &e))?;
        let leader = p.dir.rsplit('/').next().and_then(|n| n.parse().ok());
        let last_cap = fs::read_to_string(LAST_CAP).ok();
        let last_cap = last_cap.and_then(|n| n.trim().parse().ok()).unwrap_or(63);
        let mut seen = Vec::new();
        for (i, t) in live.threads.iter().enumerate() {
            let is_it = |k: &&family::Known| {
                if i == 0 {
                    Some(k.id) == leader
                } else {
                    k.inner == t.tid && Some(k.id) != leader
                }
            };
            let mut out = Vec::new();
            match now.iter().find(is_it) {
                None => out.push(found(Weight::Differs, "thread", "not in the task")),
                Some(k) => {
                    seen.push(k.id);
                    let dir = format!("task/{}", k.id);
                    let text = p.text(&format!("{dir}/status"))?;
                    let call = p.text(&format!("{dir}/syscall"));
                    let within = may && call.is_ok_and(|c| status::mask_of_a_call(&c));
                    out.extend(status::thread(live, t, &text, within));
                    let stat = p.text(&format!("{dir}/stat"))?;
                    out.extend(identity::thread(self.cp, live, t, &text, &stat, last_cap));
                    let comm = p.text(&format!("{dir}/comm"))?;
                    compare(
                        &mut out,
                        Weight::Differs,
                        "comm",
                        t.comm.as_deref().unwrap_or(&task.comm),
                        comm.trim_end_matches('\n'),
                    );
                    if stopped {
                        let id = libc::pid_t::try_from(k.id).unwrap_or(-1);
                        let r =
                            trace::look(id).map_err(|e| p.cannot(&format!("{dir}: ptrace"), &e))?;
                        let weight = if may { Weight::Ran } else { Weight::Differs };
                        out.extend(registers::registers(t, &r, weight));
                        self.count("registers", registers::COUNT);
                    }
                }
            }
            for mut f in out {
                if i > 0 {
                    f.what = format!("tid {}: {}", t.tid, f.what);
                }
                self.report.findings.push(f);
            }
        }
        for k in now.iter().filter(|k| !seen.contains(&k.id)) {
            let what = format!("thread {}", k.inner);
            self.report
                .findings
                .push(found(Weight::Differs, what, "not in the images"));
        }
        self.count("threads", live.threads.len());
        Ok(())
    }

    /// SysV objects, which belong to all.
    fn sysv(&mut self) -> Result<(), Error> {
        let cp = self.cp;
        if !(cp.segments.is_empty() && cp.semaphores.is_empty() && cp.queues.is_empty()) {
            let dir = format!("/proc/{}", self.request.pid);
            sysv::enter_ipc(&dir).map_err(|e| Error::Machine {
                what: format!("{dir}/ns/ipc"),
                why: e.to_string(),
            })?;
            let may = self.report.ran.is_some();
            self.report.findings.extend(sysv::all(cp, may)?);
        }
        self.count("segments", cp.segments.len());
        self.count("semaphore sets", cp.semaphores.len());
        self.count("queues", cp.queues.len());
        Ok(())
    }
}
