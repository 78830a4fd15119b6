//! The tables of `armrest x`: crit's columns, as rows for JSON and as text for people.

use core::fmt::Write;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::checkpoint::{Checkpoint, File, IpcPerm, LiveTask, PAGE, Task, TaskState, Vma, VmaKind};

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PsRow {
    /// Process id.
    pub pid: u32,
    /// Parent.
    pub ppid: u32,
    /// Process group.
    pub pgid: u32,
    /// Session.
    pub sid: u32,
    /// Threads; 0 for a zombie.
    pub threads: usize,
    /// "alive", "zombie" or "stopped".
    pub state: &'static str,
    /// Name.
    pub comm: String,
}

/// The processes, parents first.
pub fn ps(checkpoint: &Checkpoint) -> Vec<PsRow> {
    let row = |t: &Task| PsRow {
        pid: t.pid,
        ppid: t.ppid,
        pgid: t.pgid,
        sid: t.sid,
        threads: t.live.as_ref().map_or(0, |l| l.threads.len()),
        state: match t.state {
            TaskState::Alive => "alive",
            TaskState::Dead { .. } => "zombie",
            TaskState::Stopped { .. } => "stopped",
        },
        comm: t.comm.clone(),
    };
    checkpoint.tasks.iter().map(row).collect()
}

/// [`ps`] as crit prints it, children indented below their parents.
pub fn ps_text(rows: &[PsRow]) -> String {
    let mut depths: BTreeMap<u32, usize> = BTreeMap::new();
    let mut text = format!("{:>7} {:>7} {:>7}   COMM\n", "PID", "PGID", "SID");
    for r in rows {
        let depth = depths.get(&r.ppid).map_or(0, |d| d + 1);
        depths.insert(r.pid, depth);
        let state = if r.state == "alive" {
            String::new()
        } else {
            format!(" ({})", r.state)
        };
        let threads = if r.threads > 1 {
            format!(" [{} threads]", r.threads)
        } else {
            String::new()
        };
        let indent = "  ".repeat(depth.min(40));
        line(
            &mut text,
            format_args!(
                "{:>7} {:>7} {:>7}   {indent}{}{threads}{state}",
                r.pid,
                r.pgid,
                r.sid,
                clean(&r.comm)
            ),
        );
    }
    text
}

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemVma {
    /// First byte, hexadecimal.
    pub start: String,
    /// One past the last byte, hexadecimal.
    pub end: String,
    /// "rwxp", the last letter `s` if shared.
    pub prot: String,
    /// Bytes.
    pub size: u32,
    /// What lies there.
    pub what: String,
}

/// The address space of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemsRow {
    /// Process id.
    pub pid: u32,
    /// Path of the executable.
    pub exe: String,
    /// Its mappings.
    pub vmas: Vec<MemVma>,
}

/// The address spaces of all processes.
pub fn mems(checkpoint: &Checkpoint) -> Vec<MemsRow> {
    let row = |(task, live): (&Task, &LiveTask)| MemsRow {
        pid: task.pid,
        exe: name(checkpoint, live.mm.exe),
        vmas: live
            .mm
            .vmas
            .iter()
            .map(|v| mem_vma(checkpoint, v))
            .collect(),
    };
    live(checkpoint).map(row).collect()
}

fn mem_vma(checkpoint: &Checkpoint, v: &Vma) -> MemVma {
    MemVma {
        start: format!("{:#x}", v.range.start()),
        end: format!("{:#x}", v.range.end()),
        prot: prot(v),
        size: v.range.size(),
        what: what(checkpoint, v),
    }
}

/// [`mems`] as text.
pub fn mems_text(rows: &[MemsRow]) -> String {
    let mut text = String::new();
    for r in rows {
        line(&mut text, format_args!("{}", r.pid));
        line(
            &mut text,
            format_args!("    {:<22} {}", "exe", clean(&r.exe)),
        );
        for v in &r.vmas {
            let range = format!("{}-{}", plain(&v.start), plain(&v.end));
            line(
                &mut text,
                format_args!(
                    "    {range:<22} {} {:>8} {}",
                    v.prot,
                    kib(v.size),
                    clean(&v.what)
                ),
            );
        }
    }
    text
}

/// A descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FdEntry {
    /// Number, or "cwd", "root".
    pub fd: String,
    /// Path or kind.
    pub path: String,
}

/// The descriptors of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FdsRow {
    /// Process id.
    pub pid: u32,
    /// Its descriptors, then cwd and root.
    pub fds: Vec<FdEntry>,
}

/// The descriptors of all processes.
pub fn fds(checkpoint: &Checkpoint) -> Vec<FdsRow> {
    let row = |(task, live): (&Task, &LiveTask)| {
        let numbered = live.fds.iter().map(|f| (f.fd.to_string(), f.file));
        let named = [("cwd".to_owned(), live.cwd), ("root".to_owned(), live.root)];
        let entry = |(fd, file)| FdEntry {
            fd,
            path: name(checkpoint, file),
        };
        FdsRow {
            pid: task.pid,
            fds: numbered.chain(named).map(entry).collect(),
        }
    };
    live(checkpoint).map(row).collect()
}

/// [`fds`] as text.
pub fn fds_text(rows: &[FdsRow]) -> String {
    let mut text = String::new();
    for r in rows {
        line(&mut text, format_args!("{}", r.pid));
        for f in &r.fds {
            line(
                &mut text,
                format_args!("    {:>7}: {}", f.fd, clean(&f.path)),
            );
        }
    }
    text
}

/// Saved pages of a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RssVma {
    /// First byte, hexadecimal.
    pub start: String,
    /// One past the last byte, hexadecimal.
    pub end: String,
    /// Pages of the mapping.
    pub pages: u32,
    /// Pages in the images.
    pub saved: u32,
    /// What lies there.
    pub what: String,
}

/// Saved pages of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RssRow {
    /// Process id.
    pub pid: u32,
    /// All its saved private pages.
    pub saved: u64,
    /// The mappings that have any.
    pub vmas: Vec<RssVma>,
}

/// Saved pages of all processes.
pub fn rss(checkpoint: &Checkpoint) -> Vec<RssRow> {
    let row = |(task, live): (&Task, &LiveTask)| {
        let mut vmas = Vec::new();
        let mut runs = live.pages.runs.iter().peekable();
        for v in &live.mm.vmas {
            let (start, end) = (u64::from(v.range.start()), u64::from(v.range.end()));
            let mut saved = 0u64;
            while let Some(run) = runs.peek() {
                let run_end = run.addr + u64::from(run.pages) * u64::from(PAGE);
                let (from, to) = (run.addr.max(start), run_end.min(end));
                saved += to.saturating_sub(from) / u64::from(PAGE);
                if run_end > end {
                    break;
                }
                runs.next();
            }
            if saved > 0 {
                vmas.push(RssVma {
                    start: format!("{start:#x}"),
                    end: format!("{end:#x}"),
                    pages: v.range.pages(),
                    saved: u32::try_from(saved).unwrap_or(u32::MAX),
                    what: what(checkpoint, v),
                });
            }
        }
        RssRow {
            pid: task.pid,
            saved: live.pages.runs.iter().map(|r| u64::from(r.pages)).sum(),
            vmas,
        }
    };
    live(checkpoint).map(row).collect()
}

/// [`rss`] as text.
pub fn rss_text(rows: &[RssRow]) -> String {
    let mut text = String::new();
    for r in rows {
        line(&mut text, format_args!("{}: {} pages", r.pid, r.saved));
        for v in &r.vmas {
            let range = format!("{}-{}", plain(&v.start), plain(&v.end));
            line(
                &mut text,
                format_args!(
                    "    {range:<22} {:>6} / {:<6} {}",
                    v.saved,
                    v.pages,
                    clean(&v.what)
                ),
            );
        }
    }
    text
}

/// A SysV object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IpcRow {
    /// "shm", "sem" or "msg".
    pub kind: &'static str,
    /// Id.
    pub id: u32,
    /// Key, hexadecimal.
    pub key: String,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Permission bits, octal.
    pub mode: String,
    /// What it holds.
    pub what: String,
}

/// The SysV objects of the checkpoint's IPC namespace: segments, semaphore sets, message queues.
pub fn ipc(checkpoint: &Checkpoint) -> Vec<IpcRow> {
    let row = |kind, p: &IpcPerm, what| IpcRow {
        kind,
        id: p.id,
        key: format!("{:#x}", p.key),
        uid: p.uid,
        gid: p.gid,
        mode: format!("{:o}", p.mode),
        what,
    };
    let mut attached: BTreeMap<u32, usize> = BTreeMap::new();
    for v in live(checkpoint).flat_map(|(_, l)| &l.mm.vmas) {
        if let VmaKind::SysV { shmid } = v.kind {
            *attached.entry(shmid).or_default() += 1;
        }
    }
    let segments = checkpoint.segments.iter().map(|s| {
        let mappings = attached.get(&s.perm.id).copied().unwrap_or(0);
        let locked = if s.locked { ", locked" } else { "" };
        let dest = if s.dest { ", marked for deletion" } else { "" };
        let what = format!("{} bytes, {mappings} mappings{locked}{dest}", s.size);
        row("shm", &s.perm, what)
    });
    let sets = checkpoint.semaphores.iter().map(|s| {
        let values: Vec<String> = s.values.iter().map(u16::to_string).collect();
        row("sem", &s.perm, format!("values {}", values.join(" ")))
    });
    let queues = checkpoint.queues.iter().map(|q| {
        let bytes: usize = q.messages.iter().map(|m| m.text.len()).sum();
        let what = format!(
            "{} messages, {bytes} of {} bytes",
            q.messages.len(),
            q.qbytes
        );
        row("msg", &q.perm, what)
    });
    segments.chain(sets).chain(queues).collect()
}

/// [`ipc`] as text.
pub fn ipc_text(rows: &[IpcRow]) -> String {
    let mut text = format!(
        "{:<4} {:>10} {:>10} {:>6} {:>6} {:>4}   WHAT\n",
        "KIND", "ID", "KEY", "UID", "GID", "MODE"
    );
    for r in rows {
        line(
            &mut text,
            format_args!(
                "{:<4} {:>10} {:>10} {:>6} {:>6} {:>4}   {}",
                r.kind, r.id, r.key, r.uid, r.gid, r.mode, r.what
            ),
        );
    }
    text
}

fn live(checkpoint: &Checkpoint) -> impl Iterator<Item = (&Task, &LiveTask)> {
    checkpoint
        .tasks
        .iter()
        .filter_map(|t| t.live.as_ref().map(|l| (t, l)))
}

fn line(text: &mut String, words: core::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(words);
    while text.ends_with(' ') {
        text.pop();
    }
    text.push('\n');
}

/// Names come from an image: no control character of theirs reaches the terminal.
fn clean(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn plain(hex: &str) -> &str {
    hex.strip_prefix("0x").unwrap_or(hex)
}

fn kib(bytes: u32) -> String {
    format!("{}K", bytes / 1024)
}

fn prot(v: &Vma) -> String {
    let letter = |bit, l| if v.prot & bit != 0 { l } else { '-' };
    [
        letter(1, 'r'),
        letter(2, 'w'),
        letter(4, 'x'),
        if v.shared { 's' } else { 'p' },
    ]
    .iter()
    .collect()
}

/// A file as a user knows it.
fn name(checkpoint: &Checkpoint, id: u32) -> String {
    match checkpoint.files.get(&id) {
        Some(File::Reg(r)) if r.remap.is_some() => format!("{} (deleted or renamed)", r.path),
        Some(File::Reg(r)) => r.path.clone(),
        Some(File::Memfd { inode, .. }) => {
            let name = checkpoint
                .memfds
                .get(inode)
                .map_or("?", |m| m.name.as_str());
            if name == "/dev/zero" {
                "[anonymous shared]".to_owned()
            } else {
                format!("memfd:{name}")
            }
        }
        Some(File::Pipe(p)) => format!("pipe:[{}]", p.pipe),
        Some(File::Fifo(f)) => name(checkpoint, f.reg),
        Some(file) => file.kind().to_owned(),
        None => "?".to_owned(),
    }
}

/// What a mapping maps.
fn what(checkpoint: &Checkpoint, v: &Vma) -> String {
    let at = |name: String| {
        if v.offset == 0 {
            name
        } else {
            format!("{name} + {:#x}", v.offset)
        }
    };
    match v.kind {
        VmaKind::Anon if v.heap => "[heap]".to_owned(),
        VmaKind::Anon if v.grows_down => "[stack]".to_owned(),
        VmaKind::Anon => String::new(),
        VmaKind::Sigpage => "[sigpage]".to_owned(),
        VmaKind::Vdso => "[vdso]".to_owned(),
        VmaKind::Vvar => "[vvar]".to_owned(),
        VmaKind::Vectors => "[vectors]".to_owned(),
        VmaKind::File { file } | VmaKind::Memfd { file, .. } => at(name(checkpoint, file)),
        VmaKind::AnonShared { shmid } => at(format!("shmem[{shmid:x}]")),
        VmaKind::SysV { shmid } => {
            let read_only = if v.access == Some(0) {
                " (read-only attach)"
            } else {
                ""
            };
            at(format!("ipc[{shmid:x}]")) + read_only
        }
        VmaKind::Socket => "[packet socket ring]".to_owned(),
        VmaKind::AioRing => "[aio ring]".to_owned(),
        VmaKind::Plugin => "[device]".to_owned(),
    }
}
