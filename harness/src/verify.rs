//! Compares a restored task with the images it came from, through `/proc`; see docs/verify.md.
//!
//! Each part takes the text of one file of `/proc` and says what differs, so that it can be tried on text alone;
//! [`verify()`] reads the files and puts the parts together. Nothing is changed in the task, and it is not traced.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use armrest_abi::BLOB_MAGIC;
use armrest_images::{
    Checkpoint, File as ImageFile, FsDir, LiveTask, PAGE, PageMap, PageRun, Task, Vma, VmaKind,
};
use armrest_plan::{consts, vdso, vma_name};
use serde::Serialize;

use crate::error::Error;
use crate::objects::memory::PagesFiles;
use crate::{os, probe};

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

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// First byte.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// `rwxp`.
    pub rights: String,
    /// Byte offset.
    pub offset: u64,
    /// What is mapped.
    pub name: String,
}

impl Line {
    fn show(&self) -> String {
        format!(
            "{:08x}-{:08x} {} {:08x} {}",
            self.start, self.end, self.rights, self.offset, self.name
        )
        .trim_end()
        .to_owned()
    }
}

/// One line of maps or the heading of a mapping in smaps.
pub fn line(text: &str) -> Option<Line> {
    let mut rest = text;
    let mut word = || {
        let (word, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = tail.trim_start_matches(' ');
        word
    };
    let (start, end) = word().split_once('-')?;
    let (rights, offset) = (word(), word());
    let (_device, _inode) = (word(), word());
    Some(Line {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        rights: rights.to_owned(),
        offset: u64::from_str_radix(offset, 16).ok()?,
        name: rest.to_owned(),
    })
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

/// The line that the images promise for a VMA.
pub fn promised(cp: &Checkpoint, live: &LiveTask, v: &Vma, root: &str) -> Line {
    let bit = |b: u32, c: char| if v.prot & b != 0 { c } else { '-' };
    let shared = v.shared || matches!(v.kind, VmaKind::SysV { .. });
    let rights = [
        bit(consts::PROT_READ, 'r'),
        bit(consts::PROT_WRITE, 'w'),
        bit(consts::PROT_EXEC, 'x'),
        if shared { 's' } else { 'p' },
    ];
    let stack = u64::from(live.mm.fields[6]);
    let zero = || "/dev/zero (deleted)".to_owned();
    let name = match v.kind {
        VmaKind::Anon if v.heap => "[heap]".into(),
        VmaKind::Anon
            if u64::from(v.range.start()) <= stack && stack <= u64::from(v.range.end()) =>
        {
            "[stack]".into()
        }
        VmaKind::Sigpage => "[sigpage]".into(),
        VmaKind::Vdso => "[vdso]".into(),
        VmaKind::Vvar => "[vvar]".into(),
        VmaKind::Vectors => "[vectors]".into(),
        VmaKind::File { file } => path_of(cp, file, root).unwrap_or_default(),
        VmaKind::Memfd { inode, .. } => match cp.memfds.get(&inode) {
            Some(m) if m.name == "/dev/zero" => zero(),
            Some(m) => format!("/memfd:{} (deleted)", m.name.replace('\n', "\\012")),
            None => String::new(),
        },
        VmaKind::AnonShared { .. } => zero(),
        VmaKind::SysV { shmid } => {
            let key = cp
                .segments
                .iter()
                .find(|s| s.id == shmid)
                .map_or(0, |s| s.key);
            format!("/SYSV{key:08x} (deleted)")
        }
        VmaKind::Anon | VmaKind::Socket | VmaKind::AioRing | VmaKind::Plugin => String::new(),
    };
    // The kernel shows an offset where there is a file, and 0 elsewhere.
    let backed = matches!(
        v.kind,
        VmaKind::File { .. }
            | VmaKind::Memfd { .. }
            | VmaKind::AnonShared { .. }
            | VmaKind::SysV { .. }
    );
    Line {
        start: u64::from(v.range.start()),
        end: u64::from(v.range.end()),
        rights: rights.iter().collect(),
        offset: if backed { v.offset } else { 0 },
        name,
    }
}

fn path_of(cp: &Checkpoint, file: u32, root: &str) -> Option<String> {
    match cp.files.get(&file)? {
        ImageFile::Reg(r) => Some(shown(&r.path, root)),
        ImageFile::Memfd { inode, .. } => {
            Some(format!("/memfd:{} (deleted)", cp.memfds.get(inode)?.name))
        }
        ImageFile::Other { .. } => None,
    }
}

/// Compare maps. `kept(start)`: the page there is the one of ours that stays.
pub fn maps(
    cp: &Checkpoint,
    live: &LiveTask,
    text: &str,
    root: &str,
    kept: &dyn Fn(u64) -> bool,
) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut lines = text.lines().filter_map(line).peekable();
    let mut one_kept = false;
    let mut extra = |l: &Line, out: &mut Vec<Finding>| {
        let page = l.end - l.start == u64::from(PAGE);
        if !one_kept && page && l.rights == "r-xp" && l.name.is_empty() && kept(l.start) {
            one_kept = true;
            out.push(found(
                Weight::Masked,
                format!("maps {}", l.show()),
                "one read-execute page of armrest's stays",
            ));
        } else {
            out.push(found(
                Weight::Differs,
                format!("maps {}", l.show()),
                "not in the images",
            ));
        }
    };
    for v in &live.mm.vmas {
        let want = promised(cp, live, v, root);
        while let Some(l) = lines.next_if(|l| l.start < want.start) {
            extra(&l, &mut out);
        }
        let Some(l) = lines.next_if(|l| l.start == want.start) else {
            out.push(found(
                Weight::Differs,
                format!("maps {}", want.show()),
                "not in the task",
            ));
            continue;
        };
        if l == want {
            continue;
        }
        let but_name = Line {
            name: want.name.clone(),
            ..l.clone()
        };
        let (weight, why) = match masked_name(&want.name, &l.name).filter(|_| but_name == want) {
            Some(why) => (Weight::Masked, format!("{}: {why}", l.show())),
            None => (Weight::Differs, format!("{} in the task", l.show())),
        };
        out.push(found(weight, format!("maps {}", want.show()), why));
    }
    for l in lines {
        extra(&l, &mut out);
    }
    out
}

/// Names that must differ.
fn masked_name(images: &str, task: &str) -> Option<&'static str> {
    match (images, task) {
        ("/dev/zero (deleted)", "/memfd:/dev/zero (deleted)") => {
            Some("anonymous shared memory is a memfd")
        }
        ("[vdso]", "") => Some("the vdso of another kernel, patched"),
        ("[vvar]", "") => Some("the data page of a patched vdso"),
        ("[sigpage]", "") => Some("the sigpage of another kernel"),
        _ => None,
    }
}

/// Flags that images record, by their word in smaps.
fn flags_of(v: &Vma) -> Vec<(&'static str, bool)> {
    let advised = |n: u32| v.madv >> n & 1 != 0;
    vec![
        ("gd", v.grows_down),
        ("lo", v.locked),
        ("nr", v.noreserve),
        ("rr", advised(1)),
        ("sr", advised(2)),
        ("dc", advised(10)),
        ("mg", advised(12)),
        ("hg", advised(14)),
        ("nh", advised(15)),
        ("dd", advised(16)),
        ("wf", advised(18)),
    ]
}

/// Compare VmFlags of smaps for the mappings that begin where the images say.
pub fn vm_flags(live: &LiveTask, smaps: &str) -> Vec<Finding> {
    let mut by_start: BTreeMap<u64, (String, Vec<&str>)> = BTreeMap::new();
    let mut at = None;
    for text in smaps.lines() {
        if let Some(flags) = text.strip_prefix("VmFlags:") {
            if let Some((start, name)) = at.take() {
                by_start.insert(start, (name, flags.split_whitespace().collect()));
            }
        } else if let Some(l) = line(text) {
            at = Some((l.start, l.name));
        }
    }
    let mut out = Vec::new();
    for v in &live.mm.vmas {
        // The kernel's own pages have flags of the kernel's own.
        if matches!(
            v.kind,
            VmaKind::Vectors | VmaKind::Sigpage | VmaKind::Vdso | VmaKind::Vvar
        ) {
            continue;
        }
        let Some((name, flags)) = by_start.get(&u64::from(v.range.start())) else {
            continue;
        };
        for (word, wanted) in flags_of(v) {
            if flags.contains(&word) != wanted {
                let has = |yes: bool| if yes { "set" } else { "not set" };
                out.push(found(
                    Weight::Differs,
                    format!("VmFlags {:08x} {name}: {word}", v.range.start()),
                    format!(
                        "{} in the images, {} in the task",
                        has(wanted),
                        has(!wanted)
                    ),
                ));
            }
        }
    }
    out
}

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
    // The name may hold spaces and brackets; field 3 follows its last one.
    let words: Vec<&str> = text
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
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

fn key<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    Some(text.lines().find_map(|l| l.strip_prefix(key))?.trim())
}

/// Compare what `/proc/PID/status` says: pid, signal masks, actions, pending signals, umask.
pub fn status(task: &Task, live: &LiveTask, text: &str) -> Vec<Finding> {
    let mut out = Vec::new();
    let bit = |n: u32| 1u64.checked_shl(n.wrapping_sub(1)).unwrap_or(0);
    let pending = |queue: &[[u8; 128]]| {
        queue.iter().fold(0, |set, info| {
            set | bit(u32::from_le_bytes([info[0], info[1], info[2], info[3]]))
        })
    };
    let which = |f: &dyn Fn(u32) -> bool| {
        live.sigactions
            .iter()
            .filter(|(_, a)| f(a.handler))
            .fold(0, |set, (n, _)| set | bit(*n))
    };
    let leader = &live.threads[0];
    for (name, images) in [
        ("SigPnd", pending(&leader.pending)),
        ("ShdPnd", pending(&live.pending)),
        ("SigBlk", leader.sigmask),
        ("SigIgn", which(&|h| h == 1)),
        ("SigCgt", which(&|h| h > 1)),
    ] {
        let task = key(text, &format!("{name}:")).unwrap_or("nothing");
        compare(
            &mut out,
            Weight::Differs,
            name,
            &*format!("{images:016x}"),
            task,
        );
    }
    if let Some(umask) = live.umask {
        let task = key(text, "Umask:").unwrap_or("nothing");
        compare(
            &mut out,
            Weight::Differs,
            "umask",
            &*format!("{umask:04o}"),
            task,
        );
    }
    // The last number is the pid in the task's own namespace.
    let pid = key(text, "NSpid:")
        .and_then(|l| l.split_whitespace().last())
        .unwrap_or("nothing");
    compare(
        &mut out,
        Weight::Differs,
        "pid",
        &*task.pid.to_string(),
        pid,
    );
    out
}

/// A descriptor as `/proc/PID/fd` and `fdinfo` tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdNow {
    /// Number.
    pub fd: u32,
    /// Target of the link.
    pub link: String,
    /// Text of fdinfo.
    pub info: String,
}

/// Compare descriptors. A position may have moved if the task ran.
pub fn descriptors(
    cp: &Checkpoint,
    live: &LiveTask,
    now: &[FdNow],
    root: &str,
    ran: bool,
) -> Vec<Finding> {
    const CLOEXEC: u32 = 0o2_000_000;
    let mut out = Vec::new();
    for n in now.iter().filter(|n| live.fds.iter().all(|f| f.fd != n.fd)) {
        out.push(found(
            Weight::Differs,
            format!("fd {}: {}", n.fd, n.link),
            "not in the images",
        ));
    }
    for f in &live.fds {
        let what = format!("fd {}", f.fd);
        let Some(n) = now.iter().find(|n| n.fd == f.fd) else {
            out.push(found(Weight::Differs, what, "not in the task"));
            continue;
        };
        if let Some(path) = path_of(cp, f.file, root)
            && !(root_device(cp, f.file) && path.strip_prefix(root) == Some(&n.link))
        {
            compare(
                &mut out,
                Weight::Differs,
                format!("{what}: path"),
                path,
                n.link.clone(),
            );
        }
        let (flags, pos) = match cp.files.get(&f.file) {
            Some(ImageFile::Reg(r)) => (r.flags, r.pos),
            Some(ImageFile::Memfd { flags, pos, .. }) => (*flags, Some(*pos)),
            _ => continue,
        };
        let flags = flags & !CLOEXEC | if f.cloexec { CLOEXEC } else { 0 };
        let task = key(&n.info, "flags:").and_then(|w| u32::from_str_radix(w, 8).ok());
        compare(
            &mut out,
            Weight::Differs,
            format!("{what}: flags"),
            format!("0{flags:o}"),
            task.map_or("nothing".into(), |t| format!("0{t:o}")),
        );
        if let Some(pos) = pos {
            let weight = if ran { Weight::Ran } else { Weight::Differs };
            let task = key(&n.info, "pos:").unwrap_or("nothing");
            compare(
                &mut out,
                weight,
                format!("{what}: position"),
                &*pos.to_string(),
                task,
            );
        }
    }
    out
}

/// Devices come from the host even below a root.
fn root_device(cp: &Checkpoint, file: u32) -> bool {
    matches!(cp.files.get(&file), Some(ImageFile::Reg(r)) if r.path.starts_with("/dev/"))
}

/// Compare the segments that the images hold with `/proc/sysvipc/shm`.
pub fn segments(cp: &Checkpoint, text: &str) -> Vec<Finding> {
    let mut lines = text.lines();
    let heads: Vec<&str> = lines.next().unwrap_or("").split_whitespace().collect();
    let rows: Vec<Vec<&str>> = lines.map(|l| l.split_whitespace().collect()).collect();
    let cell = |row: &[&str], head: &str| {
        let at = heads.iter().position(|h| *h == head);
        at.and_then(|i| row.get(i).copied())
            .unwrap_or("nothing")
            .to_owned()
    };
    let mut out = Vec::new();
    for s in &cp.segments {
        let what = format!("SysV {}", s.id);
        let Some(row) = rows.iter().find(|r| cell(r, "shmid") == s.id.to_string()) else {
            out.push(found(Weight::Differs, what, "not there"));
            continue;
        };
        // The kernel counts mappings, not calls of shmat.
        let attached = cp
            .tasks
            .iter()
            .filter_map(|t| t.live.as_ref())
            .flat_map(|l| &l.mm.vmas)
            .filter(|v| v.kind == VmaKind::SysV { shmid: s.id })
            .count();
        let perms = s.mode + u32::from(s.dest) * 0o1000 + u32::from(s.locked) * 0o2000;
        for (head, images) in [
            ("key", s.key.cast_signed().to_string()),
            ("perms", format!("{perms:o}")),
            ("size", s.size.to_string()),
            ("nattch", attached.to_string()),
            ("uid", s.uid.to_string()),
            ("gid", s.gid.to_string()),
            ("cuid", s.cuid.to_string()),
            ("cgid", s.cgid.to_string()),
        ] {
            let task = cell(row, head);
            compare(
                &mut out,
                Weight::Differs,
                format!("{what}: {head}"),
                images,
                task,
            );
        }
    }
    out
}

/// Bytes that must differ, and why.
fn masks(live: &LiveTask) -> Vec<(u64, u64, &'static str)> {
    let mut out = Vec::new();
    for t in &live.threads {
        let sp = t.regs[13];
        if let Some(v) = live
            .mm
            .vmas
            .iter()
            .find(|v| v.range.has(sp.wrapping_sub(1)))
        {
            out.push((
                u64::from(v.range.start()),
                u64::from(sp),
                "bytes below the stack pointer",
            ));
        }
        if let Some((addr, ..)) = t.rseq.filter(|r| r.0 != 0) {
            let addr = u64::from(addr);
            out.push((addr, addr + 8, "cpu words of rseq"));
            out.push((addr + 20, addr + 28, "cpu words of rseq"));
        }
    }
    out
}

/// The memory of a task.
pub trait Memory {
    /// Fill `to` from this address.
    ///
    /// # Errors
    /// Nothing can be read there.
    fn read(&self, at: u64, to: &mut [u8]) -> io::Result<()>;
    /// The word of `/proc/PID/pagemap` of the page with this address.
    ///
    /// # Errors
    /// It cannot be read.
    fn pagemap(&self, at: u64, to: &mut [u64]) -> io::Result<()>;
}

struct Proc {
    mem: File,
    pagemap: File,
}

impl Memory for Proc {
    fn read(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
        self.mem.read_exact_at(to, at)
    }
    fn pagemap(&self, at: u64, to: &mut [u64]) -> io::Result<()> {
        let mut bytes = vec![0; to.len() * 8];
        self.pagemap
            .read_exact_at(&mut bytes, at / u64::from(PAGE) * 8)?;
        for (word, b) in to.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        }
        Ok(())
    }
}

/// Pages of a VMA that differ.
#[derive(Default)]
struct Pages {
    unequal: Vec<String>,
    masked: BTreeMap<&'static str, u64>,
}

impl Pages {
    /// Compare one page.
    fn page(&mut self, at: u64, images: &[u8], task: &[u8], masks: &[(u64, u64, &'static str)]) {
        if images == task {
            return;
        }
        let (mut count, mut first) = (0u32, None);
        for ((a, b), addr) in images.iter().zip(task).zip(at..) {
            if a == b {
                continue;
            }
            match masks.iter().find(|m| m.0 <= addr && addr < m.1) {
                Some(m) => *self.masked.entry(m.2).or_default() += 1,
                None => {
                    count += 1;
                    first = first.or(Some(addr));
                }
            }
        }
        if let Some(first) = first {
            self.unequal.push(format!(
                "{at:08x} ({count} bytes, the first at {first:08x})"
            ));
        }
    }

    fn finish(self, what: String, weight: Weight, out: &mut Vec<Finding>) {
        for (why, bytes) in self.masked {
            out.push(found(
                Weight::Masked,
                what.clone(),
                format!("{why}: {bytes} differ"),
            ));
        }
        if !self.unequal.is_empty() {
            let n = self.unequal.len();
            let why = format!("{n} pages differ: {}", self.unequal.join(", "));
            out.push(found(weight, what, why));
        }
    }
}

/// Compare the contents of every present page; the findings, and how many pages were compared.
///
/// # Errors
/// The pages files cannot be read.
pub fn contents(
    cp: &Checkpoint,
    live: &LiveTask,
    files: &PagesFiles,
    memory: &dyn Memory,
    ran: bool,
    kernel_sigpage: bool,
) -> Result<(Vec<Finding>, u64), Error> {
    let mut out = Vec::new();
    let mut compared = 0;
    let masks = masks(live);
    for v in &live.mm.vmas {
        let what = format!("contents of {}", vma_name(cp, v));
        let (start, end) = (u64::from(v.range.start()), u64::from(v.range.end()));
        let writable = v.prot & consts::PROT_WRITE != 0 || v.shared;
        let weight = if ran && writable {
            Weight::Ran
        } else {
            Weight::Differs
        };
        let empty = PageMap::default();
        // Where the object's byte 0 would lie, and its pages.
        let (pages, base) = match v.kind {
            VmaKind::Memfd { inode, .. } if v.shared => (
                cp.memfds.get(&inode).map_or(&empty, |m| &m.pages),
                i128::from(start) - i128::from(v.offset),
            ),
            VmaKind::AnonShared { shmid } => (
                cp.anon_shared.get(&shmid).unwrap_or(&empty),
                i128::from(start) - i128::from(v.offset),
            ),
            VmaKind::SysV { shmid } => (
                cp.segments
                    .iter()
                    .find(|s| s.id == shmid)
                    .map_or(&empty, |s| &s.pages),
                i128::from(start) - i128::from(v.offset),
            ),
            VmaKind::Vectors | VmaKind::Vvar => continue,
            _ => (&live.pages, 0),
        };
        // What the images say of each page of the VMA, in turn.
        let mut mine = PageMap::default();
        for run in &pages.runs {
            mine.runs.extend(cut(run, base, start, end));
        }
        let patched = (v.kind == VmaKind::Vdso)
            .then(|| live.mm.vdso.as_deref().and_then(vdso::patched))
            .flatten();
        let mut pages = Pages::default();
        let (mut unread, mut masked_page) = (Vec::new(), None);
        let page = usize::try_from(PAGE).unwrap_or(4096);
        files.each(&mine, |at, bytes| {
            let mut now = vec![0; bytes.len()];
            if let Err(e) = memory.read(at, &mut now) {
                unread.push(format!("{at:08x}: {e}"));
                return Ok(());
            }
            for (i, (image, task)) in bytes.chunks(page).zip(now.chunks(page)).enumerate() {
                compared += 1;
                let addr = at + (i * page) as u64;
                let in_vma = usize::try_from(addr - start).unwrap_or(usize::MAX);
                let stub = patched
                    .as_ref()
                    .and_then(|(p, _)| p.get(in_vma..in_vma.checked_add(page)?));
                if image != task && stub == Some(task) {
                    masked_page = Some("a patched vdso");
                } else if image != task && v.kind == VmaKind::Sigpage && kernel_sigpage {
                    masked_page = Some("another kernel's sigpage");
                } else {
                    pages.page(addr, image, task, &masks);
                }
            }
            Ok(())
        })?;
        for u in unread {
            out.push(found(
                Weight::Differs,
                what.clone(),
                format!("cannot be read: {u}"),
            ));
        }
        if let Some(why) = masked_page {
            out.push(found(Weight::Masked, what.clone(), why));
        }
        if matches!(v.kind, VmaKind::Anon | VmaKind::File { .. }) && !v.shared {
            compared += unrecorded(v, &mine, memory, &mut pages, &masks);
        }
        pages.finish(what, weight, &mut out);
    }
    Ok((out, compared))
}

/// The part of a run, moved by `base`, that lies in `start..end`.
fn cut(run: &PageRun, base: i128, start: u64, end: u64) -> Option<PageRun> {
    let size = i128::from(PAGE);
    let low = i128::from(run.addr) + base;
    let high = low + i128::from(run.pages) * size;
    let (from, to) = (low.max(start.into()), high.min(end.into()));
    (from < to).then_some(())?;
    Some(PageRun {
        addr: u64::try_from(from).ok()?,
        pages: u32::try_from((to - from) / size).ok()?,
        file: run.file,
        offset: run.offset + u64::try_from(from - low).ok()?,
    })
}

/// Private pages that the task has and the images do not: zeros are as good as absent. How many were looked at.
fn unrecorded(
    v: &Vma,
    mine: &PageMap,
    memory: &dyn Memory,
    pages: &mut Pages,
    masks: &[(u64, u64, &'static str)],
) -> u64 {
    /// Bits of pagemap (Documentation/admin-guide/mm/pagemap.rst).
    const PRESENT_OR_SWAPPED: u64 = 3 << 62;
    const FILE_OR_SHARED: u64 = 1 << 61;
    let size = u64::from(PAGE);
    let mut words = vec![0u64; 512];
    let mut looked = 0;
    let mut at = u64::from(v.range.start());
    let end = u64::from(v.range.end());
    while at < end {
        let n = usize::try_from((end - at) / size).unwrap_or(512).min(512);
        if memory.pagemap(at, &mut words[..n]).is_err() {
            // A mapping that is not there has been reported by its missing line.
            return looked;
        }
        for word in &words[..n] {
            let next = mine
                .runs
                .partition_point(|r| r.addr + u64::from(r.pages) * size <= at);
            let recorded = mine.runs.get(next).is_some_and(|r| r.addr <= at);
            if word & PRESENT_OR_SWAPPED != 0 && word & FILE_OR_SHARED == 0 && !recorded {
                let (zeros, mut now) = ([0; 4096], [0; 4096]);
                if memory.read(at, &mut now).is_ok() {
                    looked += 1;
                    if v.kind == VmaKind::Anon {
                        pages.page(at, &zeros, &now, masks);
                    } else {
                        pages.unequal.push(format!(
                            "{at:08x} (a copy of the task's own, not in the images)"
                        ));
                    }
                }
            }
            at += size;
        }
    }
    looked
}

/// Why the task must have run since the restore: `/proc/PID/syscall` against the registers of the images.
/// Only stack and program counter are there; they tell that it moved, not that it came back to where it was.
pub fn moved(live: &LiveTask, syscall: &str) -> Option<String> {
    let words: Vec<&str> = syscall.split_whitespace().collect();
    let number = |w: &str| u64::from_str_radix(w.trim_start_matches("0x"), 16).ok();
    let r = &live.threads[0].regs;
    match words[..] {
        [.., sp, pc] => match (number(sp)?, number(pc)?) {
            (sp, pc) if (sp, pc) == (u64::from(r[13]), u64::from(r[15])) => None,
            (sp, pc) => Some(format!(
                "pc {pc:08x}, sp {sp:08x}; in the images pc {:08x}, sp {:08x}",
                r[15], r[13]
            )),
        },
        _ => Some("it is running".into()),
    }
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
        .filter_map(line)
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
    let memory = Proc {
        mem: open("mem")?,
        pagemap: open("pagemap")?,
    };
    let status_text = text("status")?;
    let stopped = key(&status_text, "State:").is_some_and(|s| s.starts_with(['T', 't']));
    let went = if stopped {
        text("syscall").map_or_else(
            |_| Some("where it stands cannot be read".into()),
            |t| moved(live, &t),
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
        memory.read(at, &mut magic).is_ok() && u32::from_le_bytes(magic) == BLOB_MAGIC
    };
    out.extend(maps(&cp, live, &map_text, &root, &kept));
    out.extend(vm_flags(live, &text("smaps")?));
    out.extend(stat(live, &text("stat")?));
    out.extend(auxv(live, &bytes("auxv")?));
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
    out.extend(status(task, live, &status_text));
    let now = descriptors_now(&dir).map_err(|e| cannot("fd", &e))?;
    out.extend(descriptors(&cp, live, &now, &root, may));
    if !cp.segments.is_empty() {
        enter_ipc(&dir).map_err(|e| cannot("ns/ipc", &e))?;
        let shm = fs::read_to_string("/proc/sysvipc/shm").map_err(|e| Error::Machine {
            what: "/proc/sysvipc/shm".into(),
            why: e.to_string(),
        })?;
        out.extend(segments(&cp, &shm));
    }
    let files = PagesFiles::open(request.images, &cp)?;
    let kernel_sigpage = map_text.lines().any(|l| l.ends_with("[sigpage]"));
    let (pages, compared) = contents(&cp, live, &files, &memory, may, kernel_sigpage)?;
    out.extend(pages);
    report.compared = BTreeMap::from([
        ("mappings", live.mm.vmas.len() as u64),
        ("pages", compared),
        ("descriptors", live.fds.len() as u64),
        ("segments", cp.segments.len() as u64),
    ]);
    Ok(report)
}

fn descriptors_now(dir: &str) -> io::Result<Vec<FdNow>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(format!("{dir}/fd"))? {
        let entry = entry?;
        let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        out.push(FdNow {
            fd,
            link: fs::read_link(entry.path())?.to_string_lossy().into_owned(),
            info: fs::read_to_string(format!("{dir}/fdinfo/{fd}"))?,
        });
    }
    out.sort_by_key(|f| f.fd);
    Ok(out)
}

/// Look at the SysV objects that the task sees: its namespace, if it is another than ours.
fn enter_ipc(dir: &str) -> io::Result<()> {
    let name = format!("{dir}/ns/ipc");
    if fs::read_link(&name)? == fs::read_link("/proc/self/ns/ipc")? {
        return Ok(());
    }
    let ns = File::open(name)?;
    // SAFETY: a number only; `ns` is open. The calling thread's view of SysV objects changes, nothing else.
    os::check(unsafe { libc::setns(ns.as_raw_fd(), libc::CLONE_NEWIPC) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/images")
            .join(name)
    }

    fn load(name: &str) -> Checkpoint {
        armrest_images::load(&FsDir::new(images(name))).expect("images")
    }

    fn live(cp: &Checkpoint) -> &LiveTask {
        cp.tasks[0].live.as_ref().expect("alive")
    }

    /// maps as the images promise them.
    fn map_text(cp: &Checkpoint) -> String {
        let live = live(cp);
        live.mm
            .vmas
            .iter()
            .map(|v| {
                let l = promised(cp, live, v, "");
                format!(
                    "{:08x}-{:08x} {} {:08x} 00:01 7    {}\n",
                    l.start, l.end, l.rights, l.offset, l.name
                )
            })
            .collect()
    }

    fn weights(f: &[Finding]) -> Vec<Weight> {
        f.iter().map(|f| f.weight).collect()
    }

    #[test]
    fn maps_as_promised_are_equal_and_every_change_is_found() {
        for name in ["counter", "memory", "sysvshm", "dyn"] {
            let cp = load(name);
            let text = map_text(&cp);
            let look = |t: &str| maps(&cp, live(&cp), t, "", &|_| false);
            assert_eq!(look(&text), [], "{name}");
            let lines: Vec<&str> = text.lines().collect();
            for i in 0..lines.len() {
                let but = |new: &[String]| {
                    let mut all: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
                    all.splice(i..=i, new.iter().cloned());
                    look(&all.join("\n"))
                };
                assert_eq!(
                    weights(&but(&[])),
                    [Weight::Differs],
                    "{name}: line {i} gone"
                );
                let l = lines[i];
                for new in [
                    l.replacen(['p', 's'], "q", 1),
                    format!("{l}x"),
                    l.replacen(" 00", " f0", 1),
                ] {
                    assert_eq!(
                        weights(&but(std::slice::from_ref(&new))),
                        [Weight::Differs],
                        "{new}"
                    );
                }
            }
        }
    }

    #[test]
    fn one_kept_page_is_masked_and_no_second_one() {
        let cp = load("counter");
        let text = map_text(&cp)
            + "ffff2000-ffff3000 r-xp 00000000 00:00 0 \nffff4000-ffff5000 r-xp 00000000 00:00 0 \n";
        let f = maps(&cp, live(&cp), &text, "", &|_| true);
        assert_eq!(weights(&f), [Weight::Masked, Weight::Differs]);
        let f = maps(&cp, live(&cp), &text, "", &|_| false);
        assert_eq!(weights(&f), [Weight::Differs, Weight::Differs]);
    }

    #[test]
    fn names_of_the_fixed_list_are_masked_but_not_with_other_rights() {
        let cp = load("memory");
        let text = map_text(&cp).replace(" /dev/zero", " /memfd:/dev/zero");
        let look = |t: &str| weights(&maps(&cp, live(&cp), t, "", &|_| false));
        assert_eq!(look(&text), [Weight::Masked]);
        let zero = text
            .lines()
            .find(|l| l.contains("/dev/zero"))
            .expect("there");
        let other = text.replace(zero, &zero.replace("rw-s", "r--s"));
        assert_eq!(look(&other), [Weight::Differs]);
    }

    #[test]
    fn vm_flags_are_compared_both_ways() {
        let cp = load("counter");
        let mut cp2 = cp.clone();
        let smaps: String = map_text(&cp)
            .lines()
            .map(|l| {
                let gd = if l.ends_with("[stack]") { " gd" } else { "" };
                format!("{l}\nSize:    4 kB\nVmFlags: rd mr{gd} \n")
            })
            .collect();
        assert_eq!(vm_flags(live(&cp), &smaps), []);
        let l = cp2.tasks[0].live.as_mut().expect("alive");
        l.mm.vmas[0].locked = true;
        l.mm.vmas[1].madv = 1 << 10 | 1 << 16;
        for v in &mut l.mm.vmas {
            v.grows_down = false;
        }
        let f = vm_flags(live(&cp2), &smaps);
        let ends: Vec<&str> = f.iter().filter_map(|f| f.what.rsplit(' ').next()).collect();
        assert_eq!(ends, ["lo", "dc", "dd", "gd"]);
    }

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

    #[test]
    fn masks_and_actions_are_compared() {
        let cp = load("counter");
        let look = |t: &str| status(&cp.tasks[0], live(&cp), t);
        let all = look("");
        assert_eq!(all.len(), 7);
        let text: String = all
            .iter()
            .map(|f| {
                let value = f.why.split(' ').next().unwrap_or("");
                match &*f.what {
                    "umask" => format!("Umask:\t{value}\n"),
                    "pid" => format!("NSpid:\t5012\t{value}\n"),
                    name => format!("{name}:\t{value}\n"),
                }
            })
            .collect();
        assert_eq!(look(&text), []);
        let f = look(&text.replace("SigBlk:\t0", "SigBlk:\t8"));
        assert_eq!(f.len(), 1);
        assert_eq!(f[0].what, "SigBlk");
    }

    #[test]
    fn descriptors_differ_by_path_flags_and_position() {
        let cp = load("counter");
        let now: Vec<FdNow> = live(&cp)
            .fds
            .iter()
            .map(|f| {
                let Some(ImageFile::Reg(r)) = cp.files.get(&f.file) else {
                    panic!("a file")
                };
                FdNow {
                    fd: f.fd,
                    link: r.path.clone(),
                    info: format!(
                        "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t1\n",
                        r.pos.unwrap_or(0),
                        r.flags
                    ),
                }
            })
            .collect();
        let look = |n: &[FdNow], ran| descriptors(&cp, live(&cp), n, "", ran);
        assert_eq!(look(&now, false), []);
        assert_eq!(look(&now[1..], false).len(), 1);
        let mut more = now.clone();
        more.push(FdNow {
            fd: 99,
            ..now[0].clone()
        });
        more[1].link.push('x');
        more[2].info = "pos:\t7777\nflags:\t01\n".into();
        assert_eq!(weights(&look(&more, false)), [Weight::Differs; 4]);
        assert_eq!(
            look(&more, true)
                .iter()
                .filter(|f| f.weight == Weight::Ran)
                .count(),
            1
        );
    }

    #[test]
    fn segments_are_compared_with_their_attachments() {
        let cp = load("sysvshm");
        let head = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid\n";
        let row = |s: &armrest_images::Segment, extra: usize| {
            let n = live(&cp)
                .mm
                .vmas
                .iter()
                .filter(|v| v.kind == VmaKind::SysV { shmid: s.id })
                .count();
            let perms = s.mode + u32::from(s.dest) * 0o1000;
            format!(
                "{} {} {perms:o} {} 1 2 {} {} {} {} {}\n",
                s.key.cast_signed(),
                s.id,
                s.size,
                n + extra,
                s.uid,
                s.gid,
                s.cuid,
                s.cgid
            )
        };
        let text: String = cp.segments.iter().map(|s| row(s, 0)).collect();
        assert_eq!(segments(&cp, &format!("{head}{text}")), []);
        let text: String = cp.segments.iter().map(|s| row(s, 1)).collect();
        assert_eq!(
            segments(&cp, &format!("{head}{text}")).len(),
            cp.segments.len()
        );
        assert_eq!(segments(&cp, head).len(), cp.segments.len());
    }

    /// Memory as the images say, but for some bytes.
    struct Fake<'a> {
        cp: &'a Checkpoint,
        dir: std::path::PathBuf,
        poked: BTreeMap<u64, u8>,
    }

    impl Memory for Fake<'_> {
        fn read(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
            to.fill(0);
            let end = at + to.len() as u64;
            for r in &live(self.cp).pages.runs {
                if let Some(c) = cut(r, 0, at, end) {
                    let from = usize::try_from(c.addr - at).expect("small");
                    let len = c.pages as usize * 4096;
                    let name = &self.cp.pages_files[c.file].name;
                    File::open(self.dir.join(name))?
                        .read_exact_at(&mut to[from..from + len], c.offset)?;
                }
            }
            for (addr, byte) in self.poked.range(at..end) {
                to[usize::try_from(addr - at).expect("small")] ^= byte;
            }
            Ok(())
        }
        fn pagemap(&self, _: u64, to: &mut [u64]) -> io::Result<()> {
            to.fill(1 << 63);
            Ok(())
        }
    }

    #[test]
    fn every_changed_byte_is_found_but_for_the_masked_ones() {
        let mut cp = load("counter");
        // Text that was never written is the file's: this machine's pagemap says so.
        for v in &mut cp.tasks[0].live.as_mut().expect("alive").mm.vmas {
            if matches!(v.kind, VmaKind::File { .. }) {
                v.shared = true;
            }
        }
        let files = PagesFiles::open(&images("counter"), &cp).expect("pages");
        let l = live(&cp);
        let look = |at: &[u64], ran| {
            let fake = Fake {
                cp: &cp,
                dir: images("counter"),
                poked: at.iter().map(|a| (*a, 1)).collect(),
            };
            let (f, n) = contents(&cp, l, &files, &fake, ran, false).expect("read");
            assert!(n > 100, "{n} pages");
            f
        };
        assert_eq!(look(&[], false), []);
        let sp = u64::from(l.threads[0].regs[13]);
        let vdso =
            l.mm.vmas
                .iter()
                .find(|v| v.kind == VmaKind::Vdso)
                .expect("there");
        let vdso = u64::from(vdso.range.start()) + 100;
        assert_eq!(weights(&look(&[sp - 1], false)), [Weight::Masked]);
        assert_eq!(weights(&look(&[sp], false)), [Weight::Differs]);
        assert_eq!(weights(&look(&[sp], true)), [Weight::Ran]);
        // A read-only page does not change by running; a page that was never touched is zero.
        assert_eq!(weights(&look(&[vdso], true)), [Weight::Differs]);
        assert_eq!(
            weights(&look(&[0xb6f6_a000 - 4096], false)),
            [Weight::Differs]
        );
        let (rseq, ..) = l.threads[0].rseq.expect("registered");
        let rseq = u64::from(rseq);
        assert_eq!(
            weights(&look(&[rseq, rseq + 7, rseq + 20], false)),
            [Weight::Masked]
        );
        assert_eq!(weights(&look(&[rseq + 8], false)), [Weight::Differs]);
    }

    #[test]
    fn runs_are_cut_at_both_ends_of_a_mapping() {
        let run = PageRun {
            addr: 0x1000,
            pages: 4,
            file: 0,
            offset: 0x8000,
        };
        assert_eq!(
            cut(&run, 0x10000, 0x12000, 0x13000),
            Some(PageRun {
                addr: 0x12000,
                pages: 1,
                file: 0,
                offset: 0x9000
            })
        );
        assert_eq!(
            cut(&run, -0x3000, 0x1000, 0x9000).map(|r| (r.addr, r.pages, r.offset)),
            Some((0x1000, 1, 0xb000))
        );
        assert_eq!(cut(&run, 0, 0x5000, 0x9000), None);
    }

    #[test]
    fn a_task_that_moved_is_told_by_its_pc_and_sp() {
        let cp = load("counter");
        let r = &live(&cp).threads[0].regs;
        let at = |sp: u32, pc: u32| format!("162 0x1 0x2 0x3 0x4 0x5 0x6 {sp:#x} {pc:#x}\n");
        assert_eq!(moved(live(&cp), &at(r[13], r[15])), None);
        assert!(moved(live(&cp), &at(r[13], r[15] + 4)).is_some());
        assert_eq!(
            moved(live(&cp), &format!("-1 {:#x} {:#x}\n", r[13], r[15])),
            None
        );
        assert!(moved(live(&cp), "running\n").is_some());
    }
}
