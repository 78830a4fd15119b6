//! Stage 5: say what was restored and how.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use armrest_images::stats::RestoreStats;
use armrest_plan::Exit;

use super::make::Made;
use super::start::Running;
use super::{Member, Restore};
use crate::error::Error;
use crate::summary::{Log, PidFile};
use crate::task;

impl Restore<'_> {
    pub(super) fn say_dry_run(&self, log: &mut Log) -> Result<(), Error> {
        let (pid, comm) = (self.root().task.pid, &self.root().task.comm);
        let counts = counts(&self.members);
        log.line(
            0,
            &format!("dry run: pid {pid} \"{comm}\" could be restored: {counts}"),
        )
    }

    /// Say what was restored and how, while a failure to say it can still take everything back. The status line.
    pub(super) fn say(
        &self,
        log: &mut Log,
        pidfile: Option<&mut PidFile<'_>>,
        running: &Running,
        made: &Made,
    ) -> Result<Option<serde_json::Value>, Error> {
        let pid = running.child.pid();
        // Held by a tracer, or else our own child, which nobody else waits for: the number is its own.
        let late = if self.gated() {
            Vec::new()
        } else {
            late_limits(running, made)
        };
        if let Some(p) = pidfile {
            p.fill(pid, running.tracer.is_some())?;
        }
        let notes = self.notes(running, made, late);
        self.said(log, running, &notes)
    }

    fn notes(&self, running: &Running, made: &Made, late: Vec<String>) -> Vec<String> {
        let mut notes = made.notes.clone();
        notes.extend(running.notes.iter().cloned());
        notes.extend(late);
        let others = running.others.iter();
        let all = [&running.child].into_iter().chain(others);
        for (m, child) in self.members.iter().zip(all) {
            if u32::try_from(child.pid()) != Ok(m.task.pid) {
                notes.insert(0, format!("pid {} is now {}", m.task.pid, child.pid()));
            }
        }
        notes.push(format!("pid by {}", running.way));
        let Member { task, plan, .. } = self.root();
        if plan.clocks.is_some() {
            notes.push("CLOCK_MONOTONIC and CLOCK_BOOTTIME go on, in a time namespace".into());
        }
        if self.as_init {
            notes.push("an init, pid 1 of the new namespaces, stays until the task ends".into());
        }
        if task.sid != task.pid && task.pgid != task.pid {
            notes.push("session and process group are the caller's".into());
        }
        for m in &self.members {
            match m.plan.exit {
                Exit::Sigpage(_) => {}
                Exit::Ptrace(why) => {
                    notes.push(format!("the last page of ours went by ptrace: {why}"));
                }
                Exit::Page(why) => notes.push(format!(
                    "one read-execute page of ours stays at {:08x}: {why}",
                    m.plan.area.keep.start
                )),
            }
        }
        let stopped = self.members.iter().filter(|m| m.plan.stop.is_some());
        notes.extend(stopped.map(|m| format!("pid {} is stopped, as it was", m.task.pid)));
        if self.o.rare.leave_stopped {
            notes.push("stopped before its first instruction: kill -CONT lets it go on".into());
        }
        for allowed in &made.allowed {
            notes.extend(allowed.notes.iter().cloned());
        }
        if self.cp.own_ipc_namespace && !made.sysv.made().is_empty() && !self.o.rare.new_namespaces
        {
            notes.push("SysV objects were made in the IPC namespace of the caller".into());
        }
        notes.extend(
            self.members
                .iter()
                .flat_map(|m| m.plan.notes.iter().cloned()),
        );
        // What is true of all tasks is said once.
        let mut seen = std::collections::BTreeSet::new();
        notes.retain(|n| seen.insert(n.clone()));
        notes
    }

    /// What the plans warn of. What is true of several tasks is said once.
    pub(super) fn warnings(&self) -> Vec<&String> {
        let mut seen = std::collections::BTreeSet::new();
        let all = self.members.iter().flat_map(|m| &m.plan.warnings);
        all.filter(|w| seen.insert(*w)).collect()
    }

    /// The summary, said while a failure to say it can still take everything back. The status line.
    fn said(
        &self,
        log: &mut Log,
        running: &Running,
        notes: &[String],
    ) -> Result<Option<serde_json::Value>, Error> {
        let (o, Member { task, .. }) = (self.o, self.root());
        let ms = log.elapsed().as_secs_f64() * 1000.0;
        let text = format!(
            "restored pid {} \"{}\": {} in {ms:.1} ms",
            task.pid,
            task.comm,
            counts(&self.members)
        );
        log.line(0, &text)?;
        for n in notes {
            log.line(0, &format!("  {n}"))?;
        }
        let pages: u64 = self.members.iter().map(|m| m.plan.pages).sum();
        if let Some(dir) = &o.usual.work_dir {
            write_stats(log, dir, pages)?;
        }
        if !o.rare.json && !log.tells_status() {
            return Ok(None);
        }
        let count = |f: fn(&Member<'_>) -> usize| self.members.iter().map(f).sum::<usize>();
        let others = running.others.iter();
        let all = [&running.child].into_iter().chain(others);
        let tasks: Vec<_> = self
            .members
            .iter()
            .zip(all)
            .map(|(m, child)| {
                serde_json::json!({
                    "pid": child.pid(), "checkpoint_pid": m.task.pid, "comm": m.task.comm,
                    "threads": m.live.threads.len(), "vmas": m.live.mm.vmas.len(),
                    "files": m.live.fds.len(), "pages": m.plan.pages,
                })
            })
            .collect();
        let warnings = self.warnings();
        let json = serde_json::json!({
            "event": "restored", "pid": running.child.pid(), "checkpoint_pid": task.pid, "comm": task.comm,
            "threads": count(|m| m.live.threads.len()), "vmas": count(|m| m.live.mm.vmas.len()),
            "files": descriptors(&self.members), "pages": pages, "milliseconds": ms, "phases": phases(log),
            "tasks": tasks, "notes": notes, "warnings": warnings,
        });
        if o.rare.json {
            crate::commands::print(&format!("{json}\n"))?;
        }
        Ok(Some(json))
    }
}

/// Limits that the restore itself might have hit, of all tasks. It is through with all that they could hinder: what cannot
/// be set is said.
pub(super) fn late_limits(running: &Running, made: &Made) -> Vec<String> {
    let mut said = Vec::new();
    for (pid, allowed) in running.pids().into_iter().zip(&made.allowed) {
        let limits = allowed.limits.iter();
        for (resource, limit) in limits.filter(|l| task::LATE_LIMITS.contains(&l.0)) {
            match task::set_limit(pid, *resource, *limit) {
                Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                    said.push(format!("resource limit {resource} could not be set: {e}"))
                }
                _ => {}
            }
        }
    }
    said
}

/// Descriptors, those of a table that several have once.
fn descriptors(members: &[Member<'_>]) -> usize {
    let tables = members.iter().map(|m| (m.live.files_id, m.live.fds.len()));
    tables.collect::<BTreeMap<_, _>>().values().sum()
}

fn counts(members: &[Member<'_>]) -> String {
    let many = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let count = |f: fn(&Member<'_>) -> usize| members.iter().map(f).sum::<usize>();
    let pages: u64 = members.iter().map(|m| m.plan.pages).sum();
    let mib = pages as f64 * 4096.0 / f64::from(1 << 20);
    let processes = match members.len() {
        1 => String::new(),
        n => format!("{n} processes, "),
    };
    format!(
        "{processes}{}, {}, {}, {mib:.1} MiB",
        many(count(|m| m.live.threads.len()), "thread"),
        many(count(|m| m.live.mm.vmas.len()), "VMA"),
        many(descriptors(members), "file")
    )
}

/// Milliseconds of each phase, by its name.
fn phases(log: &Log) -> serde_json::Map<String, serde_json::Value> {
    let ms = |d: &Duration| serde_json::json!(d.as_secs_f64() * 1000.0);
    log.phases()
        .iter()
        .map(|(name, took)| ((*name).to_owned(), ms(took)))
        .collect()
}

/// `stats-restore` in the work directory, as criu leaves it there.
fn write_stats(log: &Log, dir: &Path, pages: u64) -> Result<(), Error> {
    let us = |d: Duration| u32::try_from(d.as_micros()).unwrap_or(u32::MAX);
    let forking = log.phases().iter().find(|p| p.0 == "fork");
    let bytes = armrest_images::stats::encode(RestoreStats {
        forking_us: forking.map_or(0, |p| us(p.1)),
        restore_us: us(log.elapsed()),
        pages,
    });
    let path = dir.join("stats-restore");
    std::fs::write(&path, bytes).map_err(|source| Error::Output { path, source })
}
