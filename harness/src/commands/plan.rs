//! `armrest plan`: what a restore would do. Counts first, then the target map, our areas, and every call: recorded
//! from the blob's own steps, so what is printed is what would run. Touches nothing.

use super::{Table, print, print_json};
use crate::cli::PlanOptions;
use crate::error::{Error, printable};
use crate::{inherit, load, machine};
use armrest_abi::Range;
use armrest_images::{Checkpoint, File, LiveTask, Remap};
use armrest_plan::files::{Make, lock_words};
use armrest_plan::forest::forest;
use armrest_plan::needs::Needs;
use armrest_plan::record::{Recorded, record};
use armrest_plan::tree::{Act, Group, Node, Role, Tree};
use armrest_plan::{Machine, Options, Plan, SourceKind, vma_name, words};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Everything that is printed.
struct Report<'a> {
    cp: &'a Checkpoint,
    live: &'a LiveTask,
    machine: &'a Machine,
    made_up: bool,
    has_blob: bool,
    plan: &'a Plan,
    calls: Vec<Recorded>,
    files: Vec<FileRow>,
}

/// Print the plan.
///
/// # Errors
/// The images cannot be used, the plan refuses, or standard output cannot be written.
pub fn run(options: &PlanOptions) -> Result<i32, Error> {
    let cp = armrest_images::load_from(&options.images)?;
    let (machine, made_up) = this_machine(&armrest_plan::tree::ids(&cp))?;
    let (sizes, has_blob) = (load::sizes(), load::header().is_ok());
    let mut wanted = Options {
        any_pid: options.any_pid,
        any_ids: options.any_ids,
        inherit: Vec::new(),
        shell_job: options.shell_job,
        lazy: options.lazy,
        new_namespaces: options.new_namespaces,
        own_ipc: false,
        blob: sizes,
        ..Options::default()
    };
    if !options.lazy {
        wanted.alike = inherit::compare(&options.images, &cp, &machine, &wanted, &|| Ok(()))?;
    }
    let forest = forest(&cp, &machine, &wanted)?;
    let look = options.root.is_some() || !made_up;
    let mut reports = Vec::new();
    for (index, plan) in forest.each() {
        let live = cp
            .tasks
            .get(index)
            .and_then(|t| t.live.as_ref())
            .ok_or_else(|| Error::Internal {
                what: "the plan's task".to_owned(),
                why: "is not alive in the checkpoint".to_owned(),
            })?;
        reports.push(Report {
            cp: &cp,
            live,
            machine: &machine,
            made_up,
            has_blob,
            plan,
            calls: record(plan),
            files: if look {
                files(&cp, live, options)?
            } else {
                Vec::new()
            },
        });
    }
    let births = births(&forest.tree);
    if options.json {
        let all = reports.iter().map(|r| r.json(options.summary));
        let all: Vec<serde_json::Value> = all.collect();
        return match <[_; 1]>::try_from(all) {
            Ok([one]) => print_json(&one),
            Err(all) => print_json(&serde_json::json!({ "births": births, "tasks": all })),
        }
        .map(|()| 0);
    }
    let mut text = String::new();
    for r in &reports {
        text.push_str(&r.summary());
        if !options.summary {
            text.push_str(&r.details());
        }
    }
    if !births.is_empty() {
        text.push_str("births:\n");
        for line in &births {
            text.push_str(&format!("  {line}\n"));
        }
    }
    print(&text)?;
    Ok(0)
}

/// How the processes of a tree are made, one line a process; none for a tree of one.
fn births(tree: &Tree) -> Vec<String> {
    if tree.nodes.len() == 1 {
        return Vec::new();
    }
    let pid = |i: &usize| tree.nodes[*i].pid;
    let line = |n: &Node| {
        let mut words = Vec::new();
        for act in &n.acts {
            words.push(match act {
                Act::SetSid => "opens a session".to_owned(),
                Act::Unshare => "parts from its descriptor table".to_owned(),
                Act::Fork {
                    node,
                    sibling,
                    shared,
                } => {
                    let sibling = if *sibling { " as its sibling" } else { "" };
                    let shared = if *shared {
                        ", which has its descriptor table"
                    } else {
                        ""
                    };
                    format!("forks {}{sibling}{shared}", pid(node))
                }
            });
        }
        if n.leads {
            words.push("leads its group".to_owned());
        }
        match n.group {
            Group::Born => {}
            Group::Join(g) => words.push(format!("joins group {g}")),
            Group::Callers => words.push("joins the caller's group".to_owned()),
        }
        words.extend(n.reaps.iter().map(|i| format!("reaps {}", pid(i))));
        match n.role {
            Role::Task(_) => words.push("becomes the task".to_owned()),
            Role::Zombie(_) => words.push("ends as a zombie".to_owned()),
            Role::StandIn => words.push("ends: it stood in for one that is gone".to_owned()),
        }
        format!("{}: {}", n.pid, words.join(", "))
    };
    tree.nodes.iter().map(line).collect()
}

/// The facts to plan with: those of this machine if it is one, else made-up ones (true).
fn this_machine(ids: &[u32]) -> Result<(Machine, bool), Error> {
    if cfg!(target_arch = "arm") {
        let m = machine::probe(ids, machine::shmlba_enforced(), Needs::all()).map_err(|e| {
            Error::Internal {
                what: "facts of this machine".to_owned(),
                why: e.to_string(),
            }
        })?;
        Ok((m, false))
    } else {
        Ok((Machine::generic(), true))
    }
}

/// A file that the restore would open, and how it is now.
struct FileRow {
    path: String,
    at_dump: Option<u64>,
    now: Result<u64, String>,
}

impl FileRow {
    fn words(&self) -> String {
        match (&self.now, self.at_dump) {
            (Err(e), _) => e.clone(),
            (Ok(n), Some(d)) if *n != d => format!("{d} bytes at the dump, {n} now"),
            (Ok(n), Some(_)) => format!("{n} bytes, as at the dump"),
            (Ok(_), None) => "there".to_owned(),
        }
    }
}

/// Look at what the restore would open, without opening it for reading.
fn files(cp: &Checkpoint, live: &LiveTask, options: &PlanOptions) -> Result<Vec<FileRow>, Error> {
    use std::os::fd::AsFd;
    let shown = options.root.as_deref().unwrap_or(std::path::Path::new("/"));
    let root = crate::root::Root::open(options.root.as_deref()).map_err(|e| Error::BadPath {
        path: shown.display().to_string(),
        why: e.to_string(),
    })?;
    let mapped = live.mm.vmas.iter().filter_map(|v| match v.kind {
        armrest_images::VmaKind::File { file } => Some(file),
        _ => None,
    });
    let mut ids: Vec<u32> = live
        .fds
        .iter()
        .map(|f| f.file)
        .chain(mapped)
        .chain([live.mm.exe, live.cwd])
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let mut rows: BTreeMap<String, FileRow> = BTreeMap::new();
    for id in ids {
        let Some(File::Reg(f)) = cp.files.get(&id) else {
            continue;
        };
        let f = match f.remap {
            None => f,
            Some(Remap::Linked(to)) => match cp.files.get(&to) {
                Some(File::Reg(link)) => link,
                _ => continue,
            },
            Some(_) => continue,
        };
        let now = root
            .open_path(&f.path, libc::O_PATH)
            .and_then(|fd| crate::os::fstat(fd.as_fd()))
            .map(|m| m.len())
            .map_err(|e| e.to_string());
        rows.insert(
            f.path.clone(),
            FileRow {
                path: f.path.clone(),
                at_dump: f.size,
                now,
            },
        );
    }
    Ok(rows.into_values().collect())
}

fn hex(n: u32) -> String {
    format!("{n:08x}")
}

fn span(r: Range) -> String {
    format!("{}-{}", hex(r.start), hex(r.end))
}

/// `12 KiB`, or bytes if it is no whole number of them.
fn kib(bytes: u64) -> String {
    if bytes.is_multiple_of(1024) {
        format!("{} KiB", bytes / 1024)
    } else {
        format!("{bytes} bytes")
    }
}

/// `1 call`, `2 calls`.
fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

impl Report<'_> {
    /// How often which call is made, in the order of first use.
    fn counts(&self) -> Vec<(String, usize)> {
        let mut out: Vec<(String, usize)> = Vec::new();
        for c in &self.calls {
            let name = words::call_name(c.nr);
            match out.iter_mut().find(|(n, _)| *n == name) {
                Some((_, n)) => *n += 1,
                None => out.push((name, 1)),
            }
        }
        out
    }

    fn parts(&self) -> [(&'static str, Range); 9] {
        let a = &self.plan.area;
        [
            ("first page: exit routine and signal frame (stays)", a.keep),
            (
                "code",
                Range {
                    start: a.keep.end,
                    end: a.rx.end,
                },
            ),
            ("data", a.rw),
            ("stack", a.stack),
            ("heap", a.heap),
            ("stacks of threads", a.threads),
            ("restore arguments", a.args),
            ("progress, shared with armrest", a.progress),
            ("gate, shared with the harness and all tasks", a.gate),
        ]
    }

    fn summary(&self) -> String {
        let task = self.cp.tasks.get(self.plan.task);
        let (pid, comm) = task.map_or((0, ""), |t| (t.pid, t.comm.as_str()));
        let counts: Vec<String> = self
            .counts()
            .iter()
            .map(|(name, n)| format!("{n} {name}"))
            .collect();
        let plan = self.plan;
        let mut s = String::new();
        let _ = writeln!(
            s,
            "Restoring pid {pid} \"{}\" would take {}:",
            printable(comm),
            count(self.calls.len(), "call")
        );
        let _ = writeln!(s, "  {}", counts.join(", "));
        let _ = writeln!(
            s,
            "  {} of {} with {} of contents, {}",
            count(self.live.mm.vmas.len(), "mapping"),
            kib(self
                .live
                .mm
                .vmas
                .iter()
                .map(|v| u64::from(v.range.size()))
                .sum()),
            kib(plan.pages * u64::from(armrest_abi::PAGE_SIZE)),
            count(self.live.fds.len(), "descriptor"),
        );
        let _ = writeln!(
            s,
            "  bootstrap area {} ({}), of which {} stays; {}",
            span(plan.area.all),
            kib(u64::from(plan.area.all.len())),
            kib(u64::from(plan.area.keep.len())),
            count(plan.scratch.len(), "scratch area"),
        );
        let made_up = if self.made_up {
            " (made up: this is no ARM machine)"
        } else {
            ""
        };
        let _ = writeln!(
            s,
            "  on Linux {}{made_up}",
            printable(&self.machine.release)
        );
        if !self.has_blob {
            s.push_str("  this armrest carries no blob: its sizes are assumed\n");
        }
        for n in &plan.notes {
            let _ = writeln!(s, "note: {}", printable(n));
        }
        for w in &plan.warnings {
            let _ = writeln!(s, "warning: {}", printable(w));
        }
        s
    }

    fn details(&self) -> String {
        let plan = self.plan;
        let mut s = String::from("\nTarget map\n");
        let mut t = Table::new(&["from-to", "KiB", "rights", "what"]).right(1);
        for v in &self.live.mm.vmas {
            let name = vma_name(self.cp, v);
            // "VMA from-to rights what": the first three are columns of their own.
            let mut parts = name.splitn(4, ' ').skip(1);
            let (place, rights) = (
                parts.next().unwrap_or_default(),
                parts.next().unwrap_or_default(),
            );
            t.row([
                place,
                &(v.range.size() / 1024).to_string(),
                rights,
                parts.next().unwrap_or_default(),
            ]);
        }
        s.push_str(&t.render());

        s.push_str("\nBootstrap area\n");
        let mut t = Table::new(&["from-to", "KiB", "what"]).right(1);
        for (what, r) in self.parts().iter().filter(|(_, r)| !r.is_empty()) {
            t.row([&span(*r), &(r.len() / 1024).to_string(), *what]);
        }
        s.push_str(&t.render());

        if !plan.scratch.is_empty() {
            s.push_str("\nScratch areas\n");
            for r in &plan.scratch {
                let _ = writeln!(s, "{}", span(*r));
            }
        }
        s.push_str("\nHelper descriptors\n");
        let mut t = Table::new(&["fd", "what"]).right(0);
        t.row([plan.report_fd.to_string(), "pipe for the report".to_owned()]);
        for source in &plan.sources {
            t.row([source.fd.to_string(), self.source(&source.what)]);
        }
        s.push_str(&t.render());

        s.push_str("\nDescriptors\n");
        let mut t = Table::new(&["fd", "what"]).right(0);
        for m in &plan.files.makes {
            let numbers: Vec<String> = self.numbers(m).iter().map(u32::to_string).collect();
            t.row([numbers.join(", "), m.name.clone()]);
        }
        s.push_str(&t.render());
        for words in self.acts() {
            let _ = writeln!(s, "then {words}");
        }

        if !self.files.is_empty() {
            s.push_str("\nFiles\n");
            let mut t = Table::new(&["path", "now"]);
            for f in &self.files {
                t.row([f.path.clone(), f.words()]);
            }
            s.push_str(&t.render());
        }
        s.push_str("\nCalls\n");
        let mut last = None;
        for c in &self.calls {
            if last != Some(c.step) {
                let _ = writeln!(s, "{}: {}", words::step_name(c.step), words::step(c.step));
                last = Some(c.step);
            }
            let _ = writeln!(s, "  {}", printable(&words::describe_recorded(c)));
        }
        s
    }

    /// Descriptor numbers of the task that share a description.
    fn numbers(&self, m: &Make) -> Vec<u32> {
        let of_task = m.at.iter().filter(|a| a.0 == self.plan.task);
        of_task.map(|a| a.1).collect()
    }

    /// What is done with descriptors once they are there.
    fn acts(&self) -> impl Iterator<Item = String> {
        let files = &self.plan.files;
        let locks = files.locks.iter().map(lock_words);
        let acts = files.acts.iter().map(|(_, a)| a.words(self.cp));
        let late = files.late.iter().map(|l| l.words(self.cp));
        locks.chain(acts).chain(late)
    }

    fn source(&self, what: &SourceKind) -> String {
        let path = |id: &u32| match self.cp.files.get(id) {
            Some(File::Reg(f)) => f.path.clone(),
            _ => format!("file {id}"),
        };
        match what {
            SourceKind::Pages(i) => self
                .cp
                .pages_files
                .get(*i)
                .map_or_else(|| format!("pages file {i}"), |p| p.name.clone()),
            SourceKind::Overlay(bytes) => {
                format!("memory file: the patched vdso, {} bytes", bytes.len())
            }
            SourceKind::File { file, access } => {
                let how = ["read-only", "write-only", "read-write"]
                    .get(usize::try_from(*access).unwrap_or(9))
                    .copied();
                format!("{}, {}", path(file), how.unwrap_or("?"))
            }
            SourceKind::Memfd { inode } => match self.cp.memfds.get(inode) {
                Some(m) => format!("memory file {}, {} bytes", m.name, m.size),
                None => format!("memory file {inode}"),
            },
            SourceKind::AnonShared { size, .. } => {
                format!("memory file: anonymous shared memory, {size} bytes")
            }
            SourceKind::LastPid => format!("{}, to choose thread ids", crate::pid::LAST_PID),
            SourceKind::Exe { file } => format!("{}, the executable", path(file)),
        }
    }

    /// Memory that is there before the blob: shared with the maker, read then, and where it lies.
    fn inherited(&self) -> Value {
        let l = &self.plan.legacy;
        let kept = l.kept.iter().map(|k| {
            let vma = &self.live.mm.vmas[k.vma];
            json!({"start": format!("0x{}", hex(vma.range.start())), "at": format!("0x{}", hex(k.at)), "bytes": k.len})
        });
        json!({"shared_pages": l.shared, "read_pages": l.read, "kept": kept.collect::<Vec<_>>()})
    }

    fn json(&self, summary_only: bool) -> Value {
        let plan = self.plan;
        let task = self.cp.tasks.get(plan.task);
        let range = |r: Range| json!({"start": format!("0x{}", hex(r.start)), "end": format!("0x{}", hex(r.end))});
        let mut v = json!({
            "pid": task.map(|t| t.pid),
            "comm": task.map(|t| t.comm.as_str()),
            "machine": {"release": self.machine.release, "made_up": self.made_up, "emulated": self.machine.emulated},
            "blob": self.has_blob,
            "mappings": self.live.mm.vmas.len(),
            "pages": plan.pages,
            "call_count": self.calls.len(),
            "counts": self.counts().into_iter().map(|(n, c)| (n, Value::from(c))).collect::<serde_json::Map<_, _>>(),
            "area": range(plan.area.all),
            "keep": range(plan.area.keep),
            "scratch": plan.scratch.iter().map(|r| range(*r)).collect::<Vec<_>>(),
            "inherited": self.inherited(),
            "notes": plan.notes,
            "warnings": plan.warnings,
        });
        if summary_only {
            return v;
        }
        let target = self.live.mm.vmas.iter().map(|m| {
            json!({
                "start": format!("0x{}", hex(m.range.start())),
                "end": format!("0x{}", hex(m.range.end())),
                "prot": words::prot(m.prot),
                "shared": m.shared,
                "name": vma_name(self.cp, m),
            })
        });
        v["target"] = target.collect();
        v["parts"] = self
            .parts()
            .iter()
            .map(|(what, r)| json!({"what": what, "range": range(*r)}))
            .collect();
        v["sources"] = plan
            .sources
            .iter()
            .map(|s| json!({"fd": s.fd, "what": self.source(&s.what)}))
            .collect();
        v["descriptions"] = plan
            .files
            .makes
            .iter()
            .map(|m| json!({"file": m.file, "what": m.name, "fds": self.numbers(m)}))
            .collect();
        v["acts"] = self.acts().collect();
        v["fds"] = self
            .live
            .fds
            .iter()
            .map(|f| json!({"fd": f.fd, "cloexec": f.cloexec, "file": f.file}))
            .collect();
        v["files"] = self
            .files
            .iter()
            .map(|f| json!({"path": f.path, "size_at_dump": f.at_dump, "now": f.words()}))
            .collect();
        let calls = self.calls.iter().map(|c| {
            json!({
                "step": words::step_name(c.step),
                "row": c.row,
                "nr": c.nr,
                "name": words::call_name(c.nr),
                "args": c.args,
                "text": words::describe_recorded(c),
            })
        });
        v["calls"] = calls.collect();
        v
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_read_well() {
        assert_eq!(kib(4096), "4 KiB");
        assert_eq!(kib(100), "100 bytes");
        assert_eq!(count(1, "call"), "1 call");
        assert_eq!(count(0, "scratch area"), "0 scratch areas");
    }

    #[test]
    fn a_file_is_told_with_both_sizes() {
        let row = |at_dump, now| FileRow {
            path: "/x".into(),
            at_dump,
            now,
        };
        assert_eq!(row(Some(1), Ok(2)).words(), "1 bytes at the dump, 2 now");
        assert_eq!(row(Some(2), Ok(2)).words(), "2 bytes, as at the dump");
        assert_eq!(row(None, Err("gone".into())).words(), "gone");
    }
}
