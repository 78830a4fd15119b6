//! `armrest x`: processes, mappings, descriptors and present pages of a checkpoint, in the columns of `crit x`.

use super::{Table, print, print_json};
use crate::cli::{ExploreOptions, What};
use crate::error::{Error, printable};
use armrest_images::{Checkpoint, File, FsDir, LiveTask, PAGE, Task, TaskState, Vma};
use armrest_plan::vma_name;
use serde_json::{Value, json};
use std::fmt::Write;

/// Print what was asked for.
///
/// # Errors
/// The images cannot be used, or standard output cannot be written.
pub fn run(options: &ExploreOptions) -> Result<i32, Error> {
    let cp = armrest_images::load(&FsDir::new(&options.images))?;
    if options.json {
        print_json(&match options.what {
            What::Ps => cp.tasks.iter().map(ps_json).collect(),
            What::Mems => per_task(&cp, |l| l.mm.vmas.iter().map(|v| mem_json(&cp, v)).collect()),
            What::Fds => per_task(&cp, |l| fds(&cp, l).iter().map(|(fd, file)| json!({"fd": fd, "file": file})).collect()),
            What::Rss => per_task(&cp, |l| runs(&cp, l).iter().map(Run::json).collect()),
        })?;
    } else {
        print(&match options.what {
            What::Ps => ps(&cp),
            What::Mems => mems(&cp),
            What::Fds => fds_text(&cp),
            What::Rss => rss(&cp),
        })?;
    }
    Ok(0)
}

/// `[{"pid": .., "comm": .., "list": ..}]`
fn per_task(cp: &Checkpoint, list: impl Fn(&LiveTask) -> Vec<Value>) -> Value {
    let of = |t: &Task| json!({"pid": t.pid, "comm": t.comm, "list": t.live.as_ref().map(&list).unwrap_or_default()});
    cp.tasks.iter().map(of).collect()
}

fn state(t: &Task) -> String {
    match t.state {
        TaskState::Alive => "alive".to_owned(),
        TaskState::Dead { exit_code } => format!("zombie, wait status {exit_code:#x}"),
        TaskState::Stopped { signo } => format!("stopped by signal {signo}"),
    }
}

/// The heading of a task in lists of its things.
fn heading(t: &Task) -> String {
    format!("{} {}\n", t.pid, printable(&t.comm))
}

// Processes.

fn threads(t: &Task) -> usize {
    t.live.as_ref().map_or(0, |l| l.threads.len())
}

fn ps(cp: &Checkpoint) -> String {
    let mut table = Table::new(&["PID", "PGID", "SID", "THREADS", "STATE", "COMM"]).right(0).right(1).right(2).right(3);
    for t in &cp.tasks {
        let indent = "  ".repeat(depth(cp, t));
        let ids = [t.pid.to_string(), t.pgid.to_string(), t.sid.to_string(), threads(t).to_string()];
        table.row(ids.into_iter().chain([state(t), format!("{indent}{}", t.comm)]));
    }
    table.render()
}

/// Parents above `t`; parents come first in a checkpoint, so there is no loop, and none is believed.
fn depth(cp: &Checkpoint, t: &Task) -> usize {
    let mut depth = 0;
    let mut at = t;
    while let Some(parent) = cp.tasks.iter().find(|p| p.pid == at.ppid && p.pid != at.pid) {
        depth += 1;
        if depth > 32 {
            break;
        }
        at = parent;
    }
    depth
}

fn ps_json(t: &Task) -> Value {
    let pid = json!({"pid": t.pid, "ppid": t.ppid, "pgid": t.pgid, "sid": t.sid});
    let mut v = pid;
    v["threads"] = json!(threads(t));
    v["state"] = json!(state(t));
    v["comm"] = json!(t.comm);
    v
}

// Mappings.

/// `from-to`, rights, and what it is.
fn mem(cp: &Checkpoint, v: &Vma) -> [String; 3] {
    let name = vma_name(cp, v);
    let mut parts = name.splitn(4, ' ').skip(1).map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    [next(), next(), next()]
}

fn mems(cp: &Checkpoint) -> String {
    let mut s = String::new();
    for t in &cp.tasks {
        s.push_str(&heading(t));
        let Some(live) = &t.live else { continue };
        let mut table = Table::new(&["", "FROM-TO", "KiB", "PROT", "WHAT"]).right(2);
        for v in &live.mm.vmas {
            let [place, rights, what] = mem(cp, v);
            table.row(["", &place, &(v.range.size() / 1024).to_string(), &rights, &what]);
        }
        s.push_str(&table.render());
    }
    s
}

fn mem_json(cp: &Checkpoint, v: &Vma) -> Value {
    let [_, rights, what] = mem(cp, v);
    json!({
        "start": format!("{:#010x}", v.range.start()),
        "end": format!("{:#010x}", v.range.end()),
        "prot": rights,
        "what": what,
        "locked": v.locked,
        "offset": v.offset,
    })
}

// Descriptors.

fn file(cp: &Checkpoint, id: u32) -> String {
    match cp.files.get(&id) {
        Some(File::Reg(f)) => {
            let pos = f.pos.filter(|p| *p != 0).map_or(String::new(), |p| format!(" (at {p})"));
            let gone = if f.remapped { " (deleted or renamed)" } else { "" };
            format!("{}{pos}{gone}", f.path)
        }
        Some(File::Memfd { inode, .. }) => match cp.memfds.get(inode) {
            Some(m) => format!("memfd:{}", m.name),
            None => format!("memfd {inode}"),
        },
        Some(File::Other { kind }) => format!("{}.{id}", kind.to_lowercase()),
        None => format!("unknown.{id}"),
    }
}

/// Descriptors by number, then the executable and directories.
fn fds(cp: &Checkpoint, live: &LiveTask) -> Vec<(String, String)> {
    let open = live.fds.iter().map(|f| (f.fd.to_string(), file(cp, f.file)));
    let named = [("exe", live.mm.exe), ("cwd", live.cwd), ("root", live.root)];
    open.chain(named.map(|(n, id)| (n.to_owned(), file(cp, id)))).collect()
}

fn fds_text(cp: &Checkpoint) -> String {
    let mut s = String::new();
    for t in &cp.tasks {
        s.push_str(&heading(t));
        let Some(live) = &t.live else { continue };
        let mut table = Table::new(&["", "FD", "FILE"]).right(1);
        for (fd, what) in fds(cp, live) {
            table.row(["", &fd, &what]);
        }
        s.push_str(&table.render());
    }
    s
}

// Present pages.

/// A run of pages that have contents, and the mappings in which it lies.
struct Run {
    addr: u64,
    pages: u32,
    file: String,
    what: Vec<String>,
}

impl Run {
    fn json(&self) -> Value {
        json!({"addr": format!("{:#010x}", self.addr), "pages": self.pages, "file": self.file, "what": self.what})
    }
}

fn runs(cp: &Checkpoint, live: &LiveTask) -> Vec<Run> {
    let vmas = &live.mm.vmas;
    let of = |r: &armrest_images::PageRun| {
        let end = r.addr + u64::from(r.pages) * u64::from(PAGE);
        let first = vmas.partition_point(|v| u64::from(v.range.end()) <= r.addr);
        let within = vmas.iter().skip(first).take_while(|v| u64::from(v.range.start()) < end);
        let mut what: Vec<String> = within.map(|v| mem(cp, v)[2].clone()).collect();
        what.dedup();
        Run { addr: r.addr, pages: r.pages, file: cp.pages_files.get(r.file).map_or(String::new(), |f| f.name.clone()), what }
    };
    live.pages.runs.iter().map(of).collect()
}

fn rss(cp: &Checkpoint) -> String {
    let mut s = String::new();
    for t in &cp.tasks {
        s.push_str(&heading(t));
        let Some(live) = &t.live else { continue };
        let mut table = Table::new(&["", "ADDRESS", "PAGES", "FILE", "WHAT"]).right(2);
        let mut total = 0;
        for r in runs(cp, live) {
            total += u64::from(r.pages);
            table.row(["", &format!("{:08x}", r.addr), &r.pages.to_string(), &r.file, &r.what.join(", ")]);
        }
        s.push_str(&table.render());
        let _ = writeln!(s, "  {total} pages, {} KiB", total * u64::from(PAGE / 1024));
    }
    s
}
