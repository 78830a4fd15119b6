//! `armrest restore`: the whole of it, in order. Everything that can be refused is refused before the fork.

use std::collections::BTreeMap;
use std::fs::File as OsFile;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use armrest_abi::{Attach, Remove};
use armrest_images::stats::RestoreStats;
use armrest_images::{Checkpoint, FsDir, LiveTask, Task};
use armrest_plan::forest::Forest;
use armrest_plan::needs::Needs;
use armrest_plan::tree::Role;
use armrest_plan::{Exit, Finish, Machine, Options, Plan, SourceKind};

use crate::cgroup::Groups;
use crate::cli::{self, RestoreOptions};
use crate::commands;
use crate::error::Error;
use crate::family::{self, Board, Family, Stage};
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
use crate::watch::{self, Child, Deadline, Ended, Forward, Reports};

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
    let mut forest = armrest_plan::forest::forest(cp, &machine, &options)?;
    let plans = std::mem::take(&mut forest.plans);
    log.phase("plan");
    let mut restore = Restore {
        o,
        cp,
        members: members(cp, plans)?,
        forest,
        machine,
        as_init,
        forward,
        journal,
        deadline: Deadline::new(log.start(), o.timeout),
    };
    for w in restore.members.iter().flat_map(|m| &m.plan.warnings) {
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
    running.let_go();
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
    for left in made.links.remove() {
        // The task runs: this is said, and no failure any more.
        let _ = log.line(0, &format!("warning: {left}"));
    }
    journal.done();
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
    if !Needs::of(cp).colours() {
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
        armrest_plan::tree::ids(cp)
    };
    let enforced = shmlba_enforced(cp, journal)?;
    let mut machine =
        machine::probe(&wanted, enforced, Needs::of(cp)).map_err(|e| Error::Machine {
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
    /// The tasks that live, the root first.
    members: Vec<Member<'a>>,
    /// How they are made; its plans are with the members.
    forest: Forest,
    machine: Machine,
    as_init: bool,
    forward: &'a Forward,
    journal: &'a Journal,
    deadline: Deadline,
}

/// One task that lives.
struct Member<'a> {
    /// Its index in the checkpoint.
    index: usize,
    task: &'a Task,
    live: &'a LiveTask,
    plan: Plan,
}

/// The tasks that live, with their plans.
fn members(cp: &Checkpoint, plans: Vec<Option<Plan>>) -> Result<Vec<Member<'_>>, Error> {
    let mut members = Vec::new();
    for ((index, task), plan) in cp.tasks.iter().enumerate().zip(plans) {
        if let (Some(live), Some(plan)) = (task.live.as_ref(), plan) {
            members.push(Member {
                index,
                task,
                live,
                plan,
            });
        }
    }
    if members.first().is_none_or(|m| m.index != 0) {
        return Err(Error::Internal {
            what: "checkpoint".into(),
            why: "no live root although the plan found one".into(),
        });
    }
    Ok(members)
}

/// What the first stage opened: closed when dropped.
struct Opened {
    objects: Objects,
    pages: PagesFiles,
    /// Of each member.
    dirs: Vec<Dirs>,
    links: Links,
    notes: Vec<String>,
    /// The first descriptor number that the task does not use.
    above: u32,
}

/// What the second stage made: taken back when dropped.
struct Made {
    /// Of each member.
    allowed: Vec<Allowed>,
    cgroups: Groups,
    sysv: SysV,
    /// Of each member.
    loaded: Vec<Loaded>,
    links: Links,
    /// The caller's terminal, if the task uses it.
    lent: Option<Lent>,
    notes: Vec<String>,
}

/// The child and how it got its pid, and all that came of it; killed when dropped, until they are let go.
struct Running {
    child: Child,
    board: Option<Board>,
    way: &'static str,
    reports: Option<Reports>,
    /// Who traces it, if the plan says so.
    tracer: Option<Tracer>,
    /// On `ns_last_pid`, while the task makes threads by it.
    lock: Option<OsFile>,
    /// Who keeps the ids of the others under an emulator.
    held: Option<Held>,
    /// The gate is open: tasks may run.
    through: bool,
    /// The other tasks: children of each other.
    others: Vec<Child>,
}

impl Running {
    /// They run their own code: what happens to them is their own business now.
    fn let_go(&mut self) {
        self.child.let_go();
        if self.board.take().is_some() {
            // Their orphans are no longer ours. It was switched on, so it can be switched off.
            let _ = family::catch_orphans(false);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(board) = &self.board else { return };
        // Its end is waited for by itself.
        self.held = None;
        if !watch::Child::end_all() {
            // Before the gate is open nobody reaps the others, so the numbers are theirs; later they may be anyone's.
            let all = if self.through {
                Vec::new()
            } else {
                board.pids()
            };
            for pid in all {
                // SAFETY: numbers only; see above.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            return;
        }
        self.child.has_ended(Ended::Signal(libc::SIGKILL));
        let _ = family::catch_orphans(false);
    }
}

/// How far a tree is while it is looked at.
#[derive(Clone, Copy)]
enum Making {
    /// On its way to this stage.
    Births(Stage),
    /// All are in their places, on their way to the gate.
    Memory,
}

impl Making {
    /// Stand-ins and future zombies live too.
    fn all_live(self) -> bool {
        matches!(self, Making::Births(stage) if stage < Stage::Alone)
    }

    fn what(self) -> &'static str {
        match self {
            Making::Births(_) => "processes of the tree",
            Making::Memory => "tasks of the tree",
        }
    }

    fn when(self) -> &'static str {
        match self {
            Making::Births(_) => "while the tree was made",
            Making::Memory => "before all were ready",
        }
    }
}

impl Restore<'_> {
    fn root(&self) -> &Member<'_> {
        &self.members[0]
    }

    /// Open everything that the task will own or map, and compare it with the images. Nothing is touched.
    fn open(&self, log: &mut Log) -> Result<Opened, Error> {
        let (o, cp) = (self.o, self.cp);
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
        let sources = || self.members.iter().flat_map(|m| &m.plan.sources);
        let reports = self.members.iter().map(|m| m.plan.report_fd);
        let above = sources().map(|s| s.fd).chain(reports).max().unwrap_or(0) + 1;
        let most = cp.files.len() + sources().count() + 2 * cp.pages_files.len() + 64;
        let most = above.saturating_add(u32::try_from(most).unwrap_or(u32::MAX));
        os::raise_open_files(most).map_err(|e| Error::Machine {
            what: format!("descriptors up to number {most}"),
            why: e.to_string(),
        })?;
        let pages = PagesFiles::open(&o.images, cp)?;
        let mut maker = Maker::new(cp, &root, &pages, &o.images, compare, self.journal);
        maker.inherit(&self.root().plan.files.inherited, &o.inherit_fd)?;
        let mut dirs: Vec<Dirs> = self.members.iter().map(|_| Dirs::default()).collect();
        let mut opened = Sources::default();
        // First what is only opened and compared, then what leaves traces while it is made.
        for touching in [false, true] {
            open_descriptors(
                cp,
                &self.root().plan,
                &mut maker,
                &mut objects,
                above,
                touching,
            )?;
            for m in &self.members {
                let to = (&mut objects, above);
                opened.open(cp, m, &mut maker, &pages, to, touching)?;
            }
            for (m, dirs) in self.members.iter().zip(&mut dirs) {
                dirs.open(cp, m.live, &mut maker, touching)?;
            }
            if !maker.compare.changed.is_empty() {
                return Err(Error::ChangedFiles(maker.compare.changed));
            }
        }
        for fd in maker.fill(&self.root().plan.files)? {
            let index = objects.keep(fd, above)?;
            objects.controls.push(index);
        }
        for w in &maker.compare.warnings {
            log.line(0, &format!("warning: {w}"))?;
        }
        let (links, notes) = maker.finish()?;
        if !o.dry_run {
            objects.lock(cp, &self.root().plan.files.locks)?;
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
        let (pid, comm) = (self.root().task.pid, &self.root().task.comm);
        let counts = counts(&self.members);
        log.line(
            0,
            &format!("dry run: pid {pid} \"{comm}\" could be restored: {counts}"),
        )
    }

    /// Make what outlives this process and lies outside the task: segments; and the bootstrap area.
    fn make(&mut self, opened: &Opened) -> Result<Made, Error> {
        let cap_eff = self.machine.cap_eff;
        let allowed = self.members.iter().map(|m| {
            Allowed::new(m.live, cap_eff).map_err(|e| Error::Machine {
                what: format!("limits of pid {}", m.task.pid),
                why: e.to_string(),
            })
        });
        let allowed = allowed.collect::<Result<Vec<_>, _>>()?;
        let cgroups = Groups::here(self.root().live.cgroups.as_deref());
        let go_on = || {
            self.forward.interrupted()?;
            self.deadline.check(|| "SysV objects".into())
        };
        let mut notes = cgroups.notes.clone();
        notes.extend(sysv::write_limits(&self.root().plan.ipc.raise));
        let mut sysv = SysV::make(self.cp, &opened.pages, self.o.any_ids, &go_on, self.journal)?;
        notes.extend(sysv::write_limits(&self.root().plan.ipc.exact));
        for m in &mut self.members {
            renumber(
                &mut m.plan.tables.attaches,
                &mut m.plan.tables.removes,
                &sysv,
            );
        }
        renumber(&mut [], &mut self.forest.removes, &sysv);
        notes.extend(renumbered(&sysv));
        notes.append(&mut sysv.notes);
        notes.extend(opened.objects.notes.iter().cloned());
        let loaded = self.members.iter().map(|m| Loaded::new(&m.plan));
        let loaded = loaded.collect::<Result<Vec<_>, _>>()?;
        Ok(Made {
            allowed,
            cgroups,
            sysv,
            loaded,
            links: Links::default(),
            lent: match self.root().plan.files.terminals.caller {
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
        let tree = &self.forest.tree;
        let many = tree.nodes.len() > 1;
        let by_last_pid = self.members.iter().any(|m| m.plan.last_pid_fd.is_some());
        let held = if self.machine.emulated && !self.o.any_pid && (by_last_pid || many) {
            Some(Held::hold(&self.ids())?)
        } else {
            None
        };
        let traced = self.root().plan.traced;
        let go = if traced || held.is_some() || !made.cgroups.enter.is_empty() {
            Some(os::pipe().map_err(|e| Error::Machine {
                what: "pipe".into(),
                why: e.to_string(),
            })?)
        } else {
            None
        };
        let board = if many { Some(Board::new(tree)?) } else { None };
        if many {
            // Where there is no such thing, the parent-death signal alone ends orphans.
            let _ = family::catch_orphans(true);
        }
        // SAFETY: cannot fail.
        let (harness, group) = unsafe { (libc::getpid(), libc::getpgrp()) };
        let want = (!self.o.any_pid).then_some(self.root().task.pid);
        if let Some(then) = self.root().plan.clocks {
            timens::for_children(then)?;
        }
        let become_task = |index: usize| -> std::convert::Infallible {
            let Some(at) = self.members.iter().position(|m| m.index == index) else {
                // SAFETY: ends this child alone, without exit handlers.
                unsafe { libc::_exit(task::FAILED) }
            };
            let m = &self.members[at];
            Becoming {
                index,
                task: m.task,
                live: m.live,
                plan: &m.plan,
                objects: &objects,
                cp: self.cp,
                dirs: &dirs[at],
                report: &objects.open[report],
                journal: self.journal,
                emulated: self.machine.emulated,
                allowed: &made.allowed[at],
                lent: made.lent.as_ref(),
            }
            .run(&made.loaded[at])
        };
        let family = Family {
            tree,
            cp: self.cp,
            board: board.as_ref(),
            machine: &self.machine,
            any_pid: self.o.any_pid,
            harness,
            group,
            report: &objects.open[report],
            held: held.as_ref(),
            go: go.as_ref().map(|g| &g.0),
            become_task: &become_task,
        };
        match pid::fork(want, &self.machine, false)? {
            Side::Child => {
                drop(read);
                family.live(0, true)
            }
            Side::Parent(pid, way) => {
                let mut running = Running {
                    child: Child::new(pid),
                    board,
                    way,
                    reports: Some(Reports::new(read)),
                    tracer: None,
                    lock: None,
                    held: None,
                    through: false,
                    others: Vec::new(),
                };
                // Before the others are made, which come after it.
                made.notes.extend(made.cgroups.take(pid));
                drop(objects);
                if let Some(held) = &held {
                    held.settled(pid);
                }
                if by_last_pid && !many {
                    drop(held);
                    running.lock = Some(pid::lock_last_pid()?);
                } else if many {
                    running.held = held;
                }
                if traced {
                    let filtered = self.root().live.threads.iter().any(|t| t.seccomp.0 != 0);
                    let tracer = Tracer::seize(pid, filtered).map_err(|e| running.child.lost(e));
                    running.tracer = Some(tracer?);
                }
                if let Some((_, go)) = go {
                    load::write_raw(&go, b"!");
                }
                self.settle(&mut running, &made.loaded)?;
                if by_last_pid && many {
                    running.lock = Some(pid::lock_last_pid()?);
                }
                Ok(running)
            }
        }
    }

    /// All ids but the root's pid.
    fn ids(&self) -> Vec<u32> {
        let nodes = self.forest.tree.nodes.iter().skip(1).map(|n| n.pid);
        let threads = self
            .members
            .iter()
            .flat_map(|m| m.live.threads.iter().skip(1));
        nodes.chain(threads.map(|t| t.tid)).collect()
    }

    /// Bring the processes of a tree to their places, stage by stage.
    fn settle(&self, running: &mut Running, loaded: &[Loaded]) -> Result<(), Error> {
        let tree = &self.forest.tree;
        for (i, stage) in Stage::of(tree).into_iter().enumerate() {
            let (Some(board), Some(reports)) = (&running.board, &mut running.reports) else {
                return Ok(());
            };
            board.gather(i, stage.members(tree), &mut || {
                self.look(
                    &mut running.child,
                    reports,
                    board,
                    loaded,
                    Making::Births(stage),
                )
            })?;
            if stage == Stage::Born {
                // Nobody is forked any more, so no emulator starts a thread of its own.
                running.held = None;
            }
            board.release(i);
        }
        let Some(board) = &running.board else {
            return Ok(());
        };
        for m in self.members.iter().skip(1) {
            let pid = board.pid(m.index).load(Ordering::Acquire);
            running.others.push(Child::stranger(pid.cast_signed()));
        }
        Ok(())
    }

    /// May the tree go on?
    fn look(
        &self,
        child: &mut Child,
        reports: &mut Reports,
        board: &Board,
        loaded: &[Loaded],
        making: Making,
    ) -> Result<(), Error> {
        self.forward.interrupted()?;
        self.deadline.check(|| making.what().into())?;
        let nodes = self.forest.tree.nodes.iter().enumerate();
        let dead = nodes
            .filter(|(_, n)| making.all_live() || matches!(n.role, Role::Task(_)))
            .filter_map(|(i, n)| Some((n.pid, board.born(i)?)))
            .find(|(_, pid)| watch::is_dead(*pid));
        // Looked at last: whoever died has said before what it had to say.
        if reports.take(Duration::ZERO)? || reports.said_anything() {
            reports.hear_out()?;
            self.judge(reports, child, loaded)?;
        }
        match dead {
            None => Ok(()),
            Some((was, pid)) => Err(Error::Lost {
                what: format!("pid {was} ({pid}), {}", making.when()),
                why: child.ended().map_or_else(|| "it died".into(), Ended::words),
            }),
        }
    }

    /// What the report pipe said, of whichever task.
    fn judge(&self, reports: &Reports, child: &mut Child, loaded: &[Loaded]) -> Result<(), Error> {
        let of = |tid: u32| {
            let has = |m: &Member<'_>| m.live.threads.iter().any(|t| t.tid == tid);
            self.members.iter().position(has).unwrap_or(0)
        };
        let at = reports.reporter().map_or(0, of);
        let m = &self.members[at];
        reports.judge(m.task.pid, child, &m.plan, &loaded[at])?;
        for (m, loaded) in self.members.iter().zip(loaded) {
            reports.judge(m.task.pid, child, &m.plan, loaded)?;
        }
        Ok(())
    }

    /// Wait until all tasks run their own code, and look whether anything of ours is left in them.
    fn watch(&self, running: &mut Running, made: &Made) -> Result<(), Error> {
        let Some(mut reports) = running.reports.take() else {
            return Ok(());
        };
        if running.board.is_some() {
            self.let_through(running, &mut reports, made)?;
        }
        // Nobody else chooses ids while the threads are made.
        let _lock = running.lock.take();
        let child = &mut running.child;
        let (plan, loaded) = (&self.root().plan, &made.loaded[0]);
        if let Some(tracer) = &mut running.tracer {
            let threads = self.root().live.threads.len();
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
        let all = self.members.iter().map(|m| m.plan.pages).sum();
        watch::until_ended(&mut reports, all, &made.loaded, self.deadline, self.forward)?;
        self.judge(&reports, child, &made.loaded)?;
        let others = running.others.iter_mut();
        for (m, child) in self.members.iter().zip([child].into_iter().chain(others)) {
            // Ids that nobody chose are not known here: then the leader, which leaves last, stands for all.
            let threads = m.live.threads.iter();
            let mut threads: Vec<(u32, u64)> = threads.map(|t| (t.tid, t.sigmask)).collect();
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
            watch::area_gone(child, &m.plan, self.machine.emulated)?;
        }
        Ok(())
    }

    /// Wait until all tasks are at the gate, do what is due once all have their memory, and open it.
    fn let_through(
        &self,
        running: &mut Running,
        reports: &mut Reports,
        made: &Made,
    ) -> Result<(), Error> {
        let Some(board) = &running.board else {
            return Ok(());
        };
        self.until_at_gate(1, board, &mut running.child, reports, made)?;
        for r in &self.forest.removes {
            // SAFETY: IPC_RMID takes no buffer.
            os::check(unsafe { libc::shmctl(r.shmid, libc::IPC_RMID, std::ptr::null_mut()) })
                .map_err(|e| Error::Machine {
                    what: format!("SysV segment {}: shmctl(IPC_RMID)", r.shmid),
                    why: e.to_string(),
                })?;
        }
        Loaded::open_gates(&made.loaded, 1);
        self.until_at_gate(2, board, &mut running.child, reports, made)?;
        running.through = true;
        Loaded::open_gates(&made.loaded, 2);
        Ok(())
    }

    /// Wait until all tasks have come to the gate for this time.
    fn until_at_gate(
        &self,
        time: u32,
        board: &Board,
        child: &mut Child,
        reports: &mut Reports,
        made: &Made,
    ) -> Result<(), Error> {
        let bytes: u64 = self.members.iter().map(|m| m.plan.pages * 4096).sum();
        let bar = watch::Bar::new(bytes);
        while !made.loaded.iter().all(|l| l.at_gate(time)) {
            self.look(child, reports, board, &made.loaded, Making::Memory)?;
            std::thread::sleep(Duration::from_millis(2));
            bar.show(&made.loaded);
        }
        Ok(())
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
        let others = running.others.iter();
        let all = [&running.child].into_iter().chain(others);
        let late = all
            .zip(&made.allowed)
            .flat_map(|(child, allowed)| late_limits(child, allowed))
            .collect();
        if let Some(p) = pidfile {
            p.fill(pid)?;
        }
        let notes = self.notes(running, made, late);
        self.said(log, running, &notes)
    }

    fn notes(&self, running: &Running, made: &Made, late: Vec<String>) -> Vec<String> {
        let mut notes = made.notes.clone();
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
        if self.o.leave_stopped {
            notes.push("stopped before its first instruction: kill -CONT lets it go on".into());
        }
        for allowed in &made.allowed {
            notes.extend(allowed.notes.iter().cloned());
        }
        if self.cp.own_ipc_namespace && !made.sysv.made().is_empty() && !self.o.new_namespaces {
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

    /// The summary, said while a failure to say it can still take everything back. The status line.
    fn said(
        &self,
        log: &mut Log,
        running: &Running,
        notes: &[String],
    ) -> Result<serde_json::Value, Error> {
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
        let count = |f: fn(&Member<'_>) -> usize| self.members.iter().map(f).sum::<usize>();
        let pages: u64 = self.members.iter().map(|m| m.plan.pages).sum();
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
        let warnings: Vec<_> = self.members.iter().flat_map(|m| &m.plan.warnings).collect();
        let json = serde_json::json!({
            "event": "restored", "pid": running.child.pid(), "checkpoint_pid": task.pid, "comm": task.comm,
            "threads": count(|m| m.live.threads.len()), "vmas": count(|m| m.live.mm.vmas.len()),
            "files": count(|m| m.live.fds.len()), "pages": pages, "milliseconds": ms, "phases": phases(log),
            "tasks": tasks, "notes": notes, "warnings": warnings,
        });
        if let Some(dir) = &o.work_dir {
            write_stats(log, dir, pages)?;
        }
        if o.json {
            crate::commands::print(&format!("{json}\n"))?;
        }
        Ok(json)
    }
}

/// Open file descriptions once each, and place every descriptor that shares them.
fn open_descriptors(
    cp: &Checkpoint,
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
        let who = match m.at.first() {
            Some((_, first)) => format!("fd {first}"),
            None => "in flight".into(),
        };
        let Some(fd) = maker
            .make(&plan.files, m.file, &who)?
            .filter(|_| !m.at.is_empty())
        else {
            continue;
        };
        let index = objects.keep(fd, above)?;
        for (task, number) in &m.at {
            let live = cp.tasks.get(*task).and_then(|t| t.live.as_ref());
            let fds = live.map_or(&[][..], |l| &l.fds);
            for f in fds.iter().filter(|f| f.fd == *number) {
                objects.place(*task, index, f.fd, f.cloexec);
            }
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

/// Sources that are open, each once for all tasks: what is shared has to be the same.
#[derive(Default)]
struct Sources(BTreeMap<SourceKind, usize>);

impl Sources {
    /// Open those of one task, and place them.
    fn open(
        &mut self,
        cp: &Checkpoint,
        m: &Member<'_>,
        maker: &mut Maker<'_>,
        pages: &PagesFiles,
        (objects, above): (&mut Objects, u32),
        touching: bool,
    ) -> Result<(), Error> {
        for s in &m.plan.sources {
            let touches = match &s.what {
                SourceKind::File { file, .. } | SourceKind::Exe { file } => maker.touches(*file),
                _ => false,
            };
            if touches != touching {
                continue;
            }
            let index = match self.0.get(&s.what) {
                Some(index) => *index,
                None => {
                    let fd = open_source(cp, &s.what, maker, pages)?;
                    let index = objects.keep(fd, above)?;
                    self.0.insert(s.what.clone(), index);
                    index
                }
            };
            objects.place(m.index, index, s.fd, false);
        }
        Ok(())
    }
}

fn open_source(
    cp: &Checkpoint,
    what: &SourceKind,
    maker: &mut Maker<'_>,
    pages: &PagesFiles,
) -> Result<OwnedFd, Error> {
    let output = |name: &str, source| Error::Output {
        path: name.into(),
        source,
    };
    Ok(match what {
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
    })
}

/// With `--any-ids` the attaches use the ids that the kernel gave.
fn renumber(attaches: &mut [Attach], removes: &mut [Remove], sysv: &SysV) {
    let now = |was: i32| {
        sysv.made()
            .iter()
            .find(|m| m.kind == Kind::Segment && i32::try_from(m.was) == Ok(was))
            .map_or(was, |m| m.id)
    };
    for a in attaches {
        a.shmid = now(a.shmid);
    }
    for r in removes {
        r.shmid = now(r.shmid);
    }
}

fn renumbered(sysv: &SysV) -> Vec<String> {
    sysv.made()
        .iter()
        .filter(|m| u32::try_from(m.id) != Ok(m.was))
        .map(|m| format!("{} {} is now {}", m.kind.name(), m.was, m.id))
        .collect()
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
        many(count(|m| m.live.fds.len()), "file")
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
