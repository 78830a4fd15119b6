//! `armrest restore`: the whole of it, in order. Everything that can be refused is refused before the fork.

use std::fs::File as OsFile;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use armrest_images::stats::RestoreStats;
use armrest_images::{Checkpoint, FsDir, LiveTask, Task};
use armrest_plan::{Exit, Finish, Machine, Options, Plan, SourceKind};

use crate::cgroup::Groups;
use crate::cli::{self, RestoreOptions};
use crate::commands;
use crate::error::Error;
use crate::hold::Held;
use crate::journal::{Journal, Place, Thing, clean};
use crate::load::{self, Loaded};
use crate::machine;
use crate::namespaces;
use crate::objects::Objects;
use crate::objects::file::Compare;
use crate::objects::ghost::Links;
use crate::objects::make::Maker;
use crate::objects::memory::PagesFiles;
use crate::objects::sysv::{self, Kind, SysV};
use crate::objects::tty::Lent;
use crate::os;
use crate::pid::{self, Side};
use crate::root::Root;
use crate::summary::{Log, PidFile, below};
use crate::task::{self, Allowed, Becoming};
use crate::timens;
use crate::trace::Tracer;
use crate::watch::{self, Child, Deadline, Forward, Reports};

/// Restore as asked; the exit status to pass on.
///
/// # Errors
/// Whatever went wrong; nothing is left behind.
pub fn run(o: &RestoreOptions) -> Result<i32, Error> {
    let mut log = Log::open(o)?;
    let done = run_logged(o, &mut log);
    if let Err(e) = &done {
        for line in e.lines() {
            // The error is shown on standard error by the caller in any case.
            let _ = log.line(u8::MAX, &line);
        }
        log.status(&e.json());
    }
    done
}

fn run_logged(o: &RestoreOptions, log: &mut Log) -> Result<i32, Error> {
    log.begin(o)?;
    given(o)?;
    load::header()?;
    let cp = armrest_images::load(&FsDir::new(&o.images))?;
    log.phase("images");
    if !o.dry_run {
        clean_up(log)?;
    }
    // From here on a signal is not the end: what was made is taken back first.
    let forward = Forward::new()?;
    // Dropped last: it takes back what is left once the child is dead.
    let journal = Journal::new(&Place::usual(), &o.images, false);
    let pidfile = match &o.pidfile {
        Some(p) if !o.dry_run => Some(PidFile::create(below(o.work_dir.as_deref(), p), &journal)?),
        _ => None,
    };
    if o.new_namespaces && !o.dry_run {
        return namespaces::run(o, log, pidfile, &forward, &|log| {
            // What is made for the namespaces ends with them; what is not is the init's to take back.
            let own = Journal::new(&Place::usual(), &o.images, true);
            here(o, &cp, log, None, true, &own, &forward)
        });
    }
    here(o, &cp, log, pidfile, false, &journal, &forward)
}

/// What earlier restores left that were killed goes first: its ids may be ours.
fn clean_up(log: &mut Log) -> Result<(), Error> {
    let dead = clean::run(&Place::usual(), false)?;
    for line in commands::clean::lines(&dead) {
        log.line(0, &line)?;
    }
    for line in commands::clean::left(&dead) {
        log.line(0, &format!("warning: {line}"))?;
    }
    Ok(())
}

/// What is said to be external must be given.
fn given(o: &RestoreOptions) -> Result<(), Error> {
    // criu names a unix socket in one way to the dumper and in another to the restorer.
    let same = |id: &str| {
        id.replacen("unix[", "socket:[", 1)
            .replacen("socket[", "socket:[", 1)
    };
    let is_given = |id: &&String| !o.inherit_fd.iter().any(|i| same(&i.id) == same(id));
    match o.external.iter().find(is_given) {
        Some(id) => Err(Error::Usage {
            what: format!("--external {id}: needs --inherit-fd fd[N]:{id}"),
        }),
        None => Ok(()),
    }
}

/// What a restore in this process's namespaces came to: one stage after the other.
fn here(
    o: &RestoreOptions,
    cp: &Checkpoint,
    log: &mut Log,
    mut pidfile: Option<PidFile<'_>>,
    as_init: bool,
    journal: &Journal,
    forward: &Forward,
) -> Result<i32, Error> {
    let (machine, options) = facts(o, cp, as_init, journal)?;
    let plan = armrest_plan::plan(cp, &machine, &options)?;
    let (task, live) = first(cp)?;
    log.phase("plan");
    let mut restore = Restore {
        o,
        cp,
        task,
        live,
        machine,
        plan,
        as_init,
        forward,
        journal,
        deadline: Deadline::new(log.start(), o.timeout),
    };
    for w in &restore.plan.warnings {
        log.line(0, &format!("warning: {w}"))?;
    }
    let opened = restore.open(log)?;
    log.phase("open");
    if o.dry_run {
        restore.say_dry_run(log)?;
        return Ok(0);
    }
    let mut made = restore.make(&opened)?;
    log.phase("make");
    let mut running = restore.start(opened, &mut made)?;
    log.phase("fork");
    restore.watch(&mut running, &made)?;
    log.phase("task");
    let status = restore.say(log, pidfile.as_mut(), &running, &made)?;
    // Nothing can fail from here on.
    running.child.let_go();
    // While it is traced it ends with this process; what the journal holds must not outlive it.
    if let Some(tracer) = running.tracer.take() {
        tracer.release();
    }
    made.sysv.keep();
    if let Some(lent) = &mut made.lent {
        lent.keep();
    }
    if let Some(p) = pidfile {
        p.keep();
    }
    journal.done();
    for left in made.links.remove() {
        // The task runs: this is said, and no failure any more.
        let _ = log.line(0, &format!("warning: {left}"));
    }
    drop(made.loaded);
    log.restored();
    log.status(&status);
    if o.detached && !as_init {
        return Ok(0);
    }
    let pid = running.child.pid();
    // SAFETY: getpgrp and getpgid take numbers only.
    let same_group = unsafe { libc::getpgid(pid) == libc::getpgrp() };
    Ok(forward.wait(&mut running.child, same_group).status())
}

/// Is SHMLBA enforced, as far as it matters? The segment that tells could stay if we are killed, so it is written down.
fn shmlba_enforced(cp: &Checkpoint, journal: &Journal) -> Result<bool, Error> {
    if cp.segments.is_empty() {
        return Ok(true);
    }
    let entry = journal.will_make(&Thing::Sysv {
        kind: Kind::Segment,
        id: None,
        key: 0,
        mode: 0o600,
        // SAFETY: cannot fail.
        creator: unsafe { libc::geteuid() },
    })?;
    let enforced = machine::shmlba_enforced();
    journal.gone(&entry)?;
    Ok(enforced)
}

/// Facts of this machine, and what the plan is asked.
fn facts(
    o: &RestoreOptions,
    cp: &Checkpoint,
    as_init: bool,
    journal: &Journal,
) -> Result<(Machine, Options), Error> {
    let wanted = if o.new_namespaces && !as_init {
        Vec::new()
    } else {
        cp.ids()
    };
    let enforced = shmlba_enforced(cp, journal)?;
    let mut machine = machine::probe(&wanted, enforced).map_err(|e| Error::Machine {
        what: "facts of this kernel".into(),
        why: e.to_string(),
    })?;
    if o.pretend_without.iter().any(|w| w == "mm-map") {
        machine.has_mm_map = false;
    }
    let options = Options {
        any_pid: o.any_pid,
        any_ids: o.any_ids,
        inherit: o.inherit_fd.iter().map(|i| i.id.clone()).collect(),
        shell_job: o.shell_job,
        lazy: o.lazy,
        // Inside the namespaces ids are free, and that is checked like everywhere else.
        new_namespaces: o.new_namespaces && !as_init,
        own_ipc: as_init,
        finish: match o.finish {
            cli::Finish::Auto => Finish::Auto,
            cli::Finish::Sigpage => Finish::Sigpage,
            cli::Finish::Ptrace => Finish::Ptrace,
            cli::Finish::Page => Finish::Page,
        },
        leave_stopped: o.leave_stopped,
        detached: o.detached && !as_init,
        blob: load::sizes(),
    };
    Ok((machine, options))
}

/// A restore under way: what is asked, known and decided. Its methods are the stages, in order; each takes what the
/// stage before it made, so that dropping that takes everything back.
struct Restore<'a> {
    o: &'a RestoreOptions,
    cp: &'a Checkpoint,
    task: &'a Task,
    live: &'a LiveTask,
    machine: Machine,
    plan: Plan,
    as_init: bool,
    forward: &'a Forward,
    journal: &'a Journal,
    deadline: Deadline,
}

/// What the first stage opened: closed when dropped.
struct Opened {
    objects: Objects,
    pages: PagesFiles,
    dirs: Dirs,
    links: Links,
    notes: Vec<String>,
    /// The first descriptor number that the task does not use.
    above: u32,
}

/// What the second stage made: taken back when dropped.
struct Made {
    allowed: Allowed,
    cgroups: Groups,
    sysv: SysV,
    loaded: Loaded,
    links: Links,
    /// The caller's terminal, if the task uses it.
    lent: Option<Lent>,
    notes: Vec<String>,
}

/// The child and how it got its pid; killed when dropped, until it is let go.
struct Running {
    child: Child,
    way: &'static str,
    reports: Option<Reports>,
    /// Who traces it, if the plan says so.
    tracer: Option<Tracer>,
    /// On `ns_last_pid`, while the task makes threads by it.
    lock: Option<OsFile>,
}

impl Restore<'_> {
    /// Open everything that the task will own or map, and compare it with the images. Nothing is touched.
    fn open(&self, log: &mut Log) -> Result<Opened, Error> {
        let (o, cp, live, plan) = (self.o, self.cp, self.live, &self.plan);
        let root = Root::open(o.root.as_deref()).map_err(|e| Error::MissingFile {
            path: o
                .root
                .as_deref()
                .unwrap_or(Path::new("/"))
                .display()
                .to_string(),
            why: format!("--root: {e}"),
        })?;
        let compare = Compare::new(&o.allow_changed, o.dry_run)?;
        let mut objects = Objects::default();
        let above = plan
            .sources
            .iter()
            .map(|s| s.fd)
            .max()
            .unwrap_or(0)
            .max(plan.report_fd)
            + 1;
        let most = cp.files.len() + plan.sources.len() + 2 * cp.pages_files.len() + 64;
        let most = above.saturating_add(u32::try_from(most).unwrap_or(u32::MAX));
        os::raise_open_files(most).map_err(|e| Error::Machine {
            what: format!("descriptors up to number {most}"),
            why: e.to_string(),
        })?;
        let pages = PagesFiles::open(&o.images, cp)?;
        let mut maker = Maker::new(cp, &root, &pages, &o.images, compare, self.journal);
        maker.inherit(&plan.files.inherited, &o.inherit_fd)?;
        let mut dirs = Dirs::default();
        // First what is only opened and compared, then what leaves traces while it is made.
        for touching in [false, true] {
            open_descriptors(live, plan, &mut maker, &mut objects, above, touching)?;
            open_sources(cp, plan, &mut maker, &pages, &mut objects, above, touching)?;
            dirs.open(cp, live, &mut maker, touching)?;
            if !maker.compare.changed.is_empty() {
                return Err(Error::ChangedFiles(maker.compare.changed));
            }
        }
        for fd in maker.fill(&plan.files)? {
            let index = objects.keep(fd, above)?;
            objects.controls.push(index);
        }
        for w in &maker.compare.warnings {
            log.line(0, &format!("warning: {w}"))?;
        }
        let (links, notes) = maker.finish()?;
        if !o.dry_run {
            objects.lock(cp, &plan.files.locks)?;
        }
        Ok(Opened {
            objects,
            pages,
            dirs,
            links,
            notes,
            above,
        })
    }

    fn say_dry_run(&self, log: &mut Log) -> Result<(), Error> {
        let (pid, comm) = (self.task.pid, &self.task.comm);
        let counts = counts(self.live, &self.plan);
        log.line(
            0,
            &format!("dry run: pid {pid} \"{comm}\" could be restored: {counts}"),
        )
    }

    /// Make what outlives this process and lies outside the task: segments; and the bootstrap area.
    fn make(&mut self, opened: &Opened) -> Result<Made, Error> {
        let allowed =
            Allowed::new(self.live, self.machine.cap_eff).map_err(|e| Error::Machine {
                what: "limits of this process".into(),
                why: e.to_string(),
            })?;
        let cgroups = Groups::here(self.live.cgroups.as_deref());
        let go_on = || {
            self.forward.interrupted()?;
            self.deadline.check(|| "SysV objects".into())
        };
        let mut notes = cgroups.notes.clone();
        notes.extend(sysv::write_limits(&self.plan.ipc.raise));
        let mut sysv = SysV::make(self.cp, &opened.pages, self.o.any_ids, &go_on, self.journal)?;
        notes.extend(sysv::write_limits(&self.plan.ipc.exact));
        notes.extend(renumber(&mut self.plan, &sysv));
        notes.append(&mut sysv.notes);
        notes.extend(opened.objects.notes.iter().cloned());
        let loaded = Loaded::new(&self.plan)?;
        Ok(Made {
            allowed,
            cgroups,
            sysv,
            loaded,
            links: Links::default(),
            lent: match self.plan.files.terminals.caller {
                Some(_) => Some(Lent::new()?),
                None => None,
            },
            notes,
        })
    }

    /// Fork the child, which becomes the task. Objects are its own from now on.
    fn start(&self, opened: Opened, made: &mut Made) -> Result<Running, Error> {
        let Opened {
            mut objects,
            dirs,
            links,
            notes,
            above,
            pages: _pages,
        } = opened;
        made.notes.extend(notes);
        made.links = links;
        let (read, write) = os::pipe().map_err(|e| Error::Machine {
            what: "report pipe".into(),
            why: e.to_string(),
        })?;
        let report = objects.keep(write, above)?;
        let others: Vec<u32> = self.live.threads.iter().skip(1).map(|t| t.tid).collect();
        let held = if self.machine.emulated && self.plan.last_pid_fd.is_some() {
            Some(Held::hold(&others)?)
        } else {
            None
        };
        let go = if self.plan.traced || held.is_some() || !made.cgroups.enter.is_empty() {
            Some(os::pipe().map_err(|e| Error::Machine {
                what: "pipe".into(),
                why: e.to_string(),
            })?)
        } else {
            None
        };
        // SAFETY: cannot fail.
        let parent = unsafe { libc::getpid() };
        let want = (!self.o.any_pid).then_some(self.task.pid);
        if let Some(then) = self.plan.clocks {
            timens::for_children(then)?;
        }
        match pid::fork(want, &self.machine)? {
            Side::Child => {
                drop(read);
                Becoming {
                    task: self.task,
                    live: self.live,
                    plan: &self.plan,
                    objects: &objects,
                    cp: self.cp,
                    dirs: &dirs,
                    report: &objects.open[report],
                    journal: self.journal,
                    emulated: self.machine.emulated,
                    parent,
                    allowed: &made.allowed,
                    lent: made.lent.as_ref(),
                    go: go.as_ref().map(|g| &g.0),
                }
                .run(&made.loaded)
            }
            Side::Parent(pid, way) => {
                let mut running = Running {
                    child: Child::new(pid),
                    way,
                    reports: Some(Reports::new(read)),
                    tracer: None,
                    lock: None,
                };
                // Before the others are made, which come after it.
                made.notes.extend(made.cgroups.take(pid));
                if let Some(held) = held {
                    held.release(pid);
                }
                if self.plan.last_pid_fd.is_some() {
                    running.lock = Some(pid::lock_last_pid()?);
                }
                if self.plan.traced {
                    // So far no filter is restored that would have to be suspended.
                    let tracer = Tracer::seize(pid, false).map_err(|e| running.child.lost(e));
                    running.tracer = Some(tracer?);
                }
                if let Some((_, go)) = go {
                    load::write_raw(&go, b"!");
                }
                Ok(running)
            }
        }
    }

    /// Wait until the task runs its own code, and look whether anything of ours is left in it.
    fn watch(&self, running: &mut Running, made: &Made) -> Result<(), Error> {
        let child = &mut running.child;
        let Some(reports) = running.reports.take() else {
            return Ok(());
        };
        // Nobody else chooses ids while the threads are made.
        let _lock = running.lock.take();
        let (plan, loaded) = (&self.plan, &made.loaded);
        if let Some(tracer) = &mut running.tracer {
            let threads = self.live.threads.len();
            watch::until_out(
                child,
                reports,
                tracer,
                threads,
                plan,
                loaded,
                self.deadline,
                self.forward,
            )?;
            let mut settle = || -> Result<(), Error> {
                tracer.park()?;
                if let Exit::Ptrace(_) = plan.exit {
                    tracer.unmap(plan.area.all, plan.area.keep.start + load::svc_offset()?)?;
                }
                if self.o.leave_stopped || tracer.was_stopped() {
                    tracer.hold()?;
                }
                Ok(())
            };
            let settled = settle();
            if let Some(how) = tracer.ended() {
                child.has_ended(how);
            }
            settled?;
            return watch::area_gone(child, plan, self.machine.emulated);
        }
        watch::until_entered(child, reports, plan, loaded, self.deadline, self.forward)?;
        // Ids that nobody chose are not known here: then the leader, which leaves last, stands for all.
        let mut threads: Vec<(u32, u64)> = self
            .live
            .threads
            .iter()
            .map(|t| (t.tid, t.sigmask))
            .collect();
        threads[0].0 = child.pid().cast_unsigned();
        if self.o.any_pid {
            threads.truncate(1);
        }
        watch::until_running(
            child,
            &threads,
            self.deadline,
            self.forward,
            self.machine.emulated,
        )?;
        watch::area_gone(child, &self.plan, self.machine.emulated)
    }

    /// Say what was restored and how, while a failure to say it can still take everything back. The status line.
    fn say(
        &self,
        log: &mut Log,
        pidfile: Option<&mut PidFile<'_>>,
        running: &Running,
        made: &Made,
    ) -> Result<serde_json::Value, Error> {
        let pid = running.child.pid();
        let late = late_limits(&running.child, &made.allowed);
        if let Some(p) = pidfile {
            p.fill(pid)?;
        }
        let notes = self.notes(pid, running.way, made, late);
        said(self.o, log, self.task, self.live, &self.plan, pid, &notes)
    }

    fn notes(&self, pid: libc::pid_t, way: &str, made: &Made, late: Vec<String>) -> Vec<String> {
        let (task, plan) = (self.task, &self.plan);
        let mut notes = made.notes.clone();
        notes.extend(late);
        if u32::try_from(pid) != Ok(task.pid) {
            notes.insert(0, format!("pid {} is now {pid}", task.pid));
        }
        notes.push(format!("pid by {way}"));
        if plan.clocks.is_some() {
            notes.push("CLOCK_MONOTONIC and CLOCK_BOOTTIME go on, in a time namespace".into());
        }
        if self.as_init {
            notes.push("an init, pid 1 of the new namespaces, stays until the task ends".into());
        }
        if task.sid != task.pid && task.pgid != task.pid {
            notes.push("session and process group are the caller's".into());
        }
        match plan.exit {
            Exit::Sigpage(_) => {}
            Exit::Ptrace(why) => notes.push(format!("the last page of ours went by ptrace: {why}")),
            Exit::Page(why) => notes.push(format!(
                "one read-execute page of ours stays at {:08x}: {why}",
                plan.area.keep.start
            )),
        }
        if self.o.leave_stopped {
            notes.push("stopped before its first instruction: kill -CONT lets it go on".into());
        }
        notes.extend(made.allowed.notes.iter().cloned());
        if self.cp.own_ipc_namespace && !made.sysv.made().is_empty() && !self.o.new_namespaces {
            notes.push("SysV objects were made in the IPC namespace of the caller".into());
        }
        notes.extend(plan.notes.iter().cloned());
        notes
    }
}

fn first(cp: &Checkpoint) -> Result<(&Task, &LiveTask), Error> {
    cp.tasks
        .first()
        .and_then(|t| Some((t, t.live.as_ref()?)))
        .ok_or_else(|| Error::Internal {
            what: "checkpoint".into(),
            why: "no live task although the plan found one".into(),
        })
}

/// Open file descriptions once each, and place every descriptor that shares them.
fn open_descriptors(
    live: &LiveTask,
    plan: &Plan,
    maker: &mut Maker<'_>,
    objects: &mut Objects,
    above: u32,
    touching: bool,
) -> Result<(), Error> {
    for m in &plan.files.makes {
        if maker.touches(m.file) != touching {
            continue;
        }
        let mut of_task = live.fds.iter().filter(|f| f.file == m.file).peekable();
        let who = match of_task.peek() {
            Some(first) => format!("fd {}", first.fd),
            None => "in flight".into(),
        };
        let Some(fd) = maker
            .make(&plan.files, m.file, &who)?
            .filter(|_| of_task.peek().is_some())
        else {
            continue;
        };
        let index = objects.keep(fd, above)?;
        for f in of_task {
            objects.place(index, f.fd, f.cloexec);
        }
    }
    Ok(())
}

/// The task's directories.
#[derive(Default)]
pub struct Dirs {
    /// Working directory.
    pub cwd: Option<OwnedFd>,
    /// Root directory, if it is not the machine's.
    pub root: Option<OwnedFd>,
}

impl Dirs {
    fn open(
        &mut self,
        cp: &Checkpoint,
        live: &LiveTask,
        maker: &mut Maker<'_>,
        touching: bool,
    ) -> Result<(), Error> {
        let how = libc::O_RDONLY | libc::O_DIRECTORY;
        if maker.touches(live.cwd) == touching {
            self.cwd = Some(maker.open(live.cwd, how, "the working directory")?);
        }
        let chroot = armrest_plan::files::chroot(cp, live).is_some();
        if chroot && maker.touches(live.root) == touching {
            self.root = Some(maker.open(live.root, how, "the root directory")?);
        }
        Ok(())
    }
}

fn open_sources(
    cp: &Checkpoint,
    plan: &Plan,
    maker: &mut Maker<'_>,
    pages: &PagesFiles,
    objects: &mut Objects,
    above: u32,
    touching: bool,
) -> Result<(), Error> {
    let output = |name: &str, source| Error::Output {
        path: name.into(),
        source,
    };
    let touches = |what: &SourceKind, maker: &Maker<'_>| match what {
        SourceKind::File { file, .. } | SourceKind::Exe { file } => maker.touches(*file),
        _ => false,
    };
    for s in &plan.sources {
        if touches(&s.what, maker) != touching {
            continue;
        }
        let fd: OwnedFd = match &s.what {
            SourceKind::Pages(i) => pages.0[*i]
                .1
                .try_clone()
                .map_err(|e| output(&pages.0[*i].0, e))?
                .into(),
            SourceKind::Overlay(bytes) => {
                os::memfd("armrest-overlay", bytes, false).map_err(|e| output("patched vdso", e))?
            }
            SourceKind::LastPid => pid::last_pid_file()?.into(),
            SourceKind::File { file, access } => {
                let flags = access.cast_signed() | libc::O_LARGEFILE;
                maker.open(*file, flags, "a mapping")?
            }
            SourceKind::Exe { file } => maker.open(*file, libc::O_RDONLY, "the executable")?,
            SourceKind::Memfd { inode } => maker
                .memfd(*inode)?
                .try_clone()
                .map_err(|e| output("memory file", e))?
                .into(),
            SourceKind::AnonShared { shmid, size } => {
                let none = armrest_images::PageMap::default();
                let contents = cp.anon_shared.get(shmid).unwrap_or(&none);
                pages.anonymous(*size, contents, &mut maker.notes)?.into()
            }
        };
        let index = objects.keep(fd, above)?;
        objects.place(index, s.fd, false);
    }
    Ok(())
}

/// With `--any-ids` the attaches use the ids that the kernel gave.
fn renumber(plan: &mut Plan, sysv: &SysV) -> Vec<String> {
    let mut notes = Vec::new();
    let now = |was: i32| {
        sysv.made()
            .iter()
            .find(|m| m.kind == Kind::Segment && i32::try_from(m.was) == Ok(was))
            .map_or(was, |m| m.id)
    };
    for a in &mut plan.tables.attaches {
        a.shmid = now(a.shmid);
    }
    for r in &mut plan.tables.removes {
        r.shmid = now(r.shmid);
    }
    for m in sysv
        .made()
        .iter()
        .filter(|m| u32::try_from(m.id) != Ok(m.was))
    {
        notes.push(format!("{} {} is now {}", m.kind.name(), m.was, m.id));
    }
    notes
}

/// Limits that the restore itself might have hit. The task runs already: what cannot be set is said.
fn late_limits(child: &Child, allowed: &Allowed) -> Vec<String> {
    let late = allowed
        .limits
        .iter()
        .filter(|l| task::LATE_LIMITS.contains(&l.0));
    late.filter_map(
        |(resource, limit)| match task::set_limit(child.pid(), *resource, *limit) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                Some(format!("resource limit {resource} could not be set: {e}"))
            }
            _ => None,
        },
    )
    .collect()
}

fn counts(live: &LiveTask, plan: &Plan) -> String {
    let many = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let mib = plan.pages as f64 * 4096.0 / f64::from(1 << 20);
    format!(
        "{}, {}, {}, {mib:.1} MiB",
        many(live.threads.len(), "thread"),
        many(live.mm.vmas.len(), "VMA"),
        many(live.fds.len(), "file")
    )
}

/// The summary, said while a failure to say it can still take everything back. The status line.
fn said(
    o: &RestoreOptions,
    log: &mut Log,
    task: &Task,
    live: &LiveTask,
    plan: &Plan,
    pid: libc::pid_t,
    notes: &[String],
) -> Result<serde_json::Value, Error> {
    let ms = log.elapsed().as_secs_f64() * 1000.0;
    let text = format!(
        "restored pid {} \"{}\": {} in {ms:.1} ms",
        task.pid,
        task.comm,
        counts(live, plan)
    );
    log.line(0, &text)?;
    for n in notes {
        log.line(0, &format!("  {n}"))?;
    }
    let json = serde_json::json!({
        "event": "restored", "pid": pid, "checkpoint_pid": task.pid, "comm": task.comm,
        "threads": live.threads.len(), "vmas": live.mm.vmas.len(), "files": live.fds.len(),
        "pages": plan.pages, "milliseconds": ms, "phases": phases(log), "notes": notes, "warnings": plan.warnings,
    });
    if let Some(dir) = &o.work_dir {
        write_stats(log, dir, plan.pages)?;
    }
    if o.json {
        crate::commands::print(&format!("{json}\n"))?;
    }
    Ok(json)
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
