//! `armrest restore`: the whole of it, in order. Everything that can be refused is refused before the fork.

mod follow;
mod make;
pub mod open;
mod say;
mod start;
mod traced;

use std::mem::ManuallyDrop;

use armrest_images::{Checkpoint, LiveTask, Task};
use armrest_plan::forest::Forest;
use armrest_plan::needs::Needs;
use armrest_plan::{Finish, Machine, Options, Plan};

use crate::cli::{self, RestoreOptions};
use crate::commands;
use crate::error::Error;
use crate::inherit;
use crate::journal::{Journal, Place, Thing, clean};
use crate::load;
use crate::machine;
use crate::namespaces;
use crate::objects::sysv::Kind;
use crate::summary::{Log, PidFile, below};
use crate::watch::{Deadline, Forward};

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
    // Freed with the process, as the plans are: piece by piece takes longer.
    let cp = ManuallyDrop::new(armrest_images::load_from(&o.usual.images)?);
    log.phase("images");
    if !o.rare.dry_run {
        clean_up(log)?;
    }
    // From here on a signal is not the end: what was made is taken back first.
    let forward = Forward::new()?;
    // Dropped last: it takes back what is left once the child is dead.
    let journal = Journal::new(&Place::usual(), &o.usual.images, false);
    let pidfile = match &o.usual.pidfile {
        Some(p) if !o.rare.dry_run => Some(PidFile::create(
            below(o.usual.work_dir.as_deref(), p),
            &journal,
        )?),
        _ => None,
    };
    if o.rare.new_namespaces && !o.rare.dry_run {
        return namespaces::run(o, log, pidfile, (&forward, &journal), &|log| {
            // What is made for the namespaces ends with them; what is not is the init's to take back.
            let own = Journal::new(&Place::usual(), &o.usual.images, true);
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
    let is_given = |id: &&String| !o.rare.inherit_fd.iter().any(|i| same(&i.id) == same(id));
    match o.rare.external.iter().find(is_given) {
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
    let (mut machine, mut options) = facts(o, cp, as_init, journal)?;
    let deadline = Deadline::new(log.start(), o.rare.timeout);
    if cp.tasks.len() > 1 && !o.rare.lazy && !machine.emulated {
        let go_on = || {
            forward.interrupted()?;
            deadline.check(|| "the comparison of pages".into())
        };
        options.alike = inherit::compare(&o.usual.images, cp, &machine, &options, &go_on)?;
        log.phase("compare");
    }
    let (mut forest, reserved) = inherit::planned(cp, &mut machine, &mut options)?;
    let plans = std::mem::take(&mut forest.plans);
    log.phase("plan");
    let members = members(cp, plans)?;
    let mut places = vec![None; cp.tasks.len()];
    for (at, m) in members.iter().enumerate() {
        places[m.index] = Some(at);
    }
    let mut restore = ManuallyDrop::new(Restore {
        o,
        cp,
        members,
        places,
        forest,
        machine,
        as_init,
        forward,
        journal,
        deadline,
    });
    for w in restore.warnings() {
        log.line(0, &format!("warning: {w}"))?;
    }
    let mut opened = restore.open(log)?;
    log.phase("open");
    if o.rare.dry_run {
        restore.say_dry_run(log)?;
        return Ok(0);
    }
    let mut made = restore.make(&mut opened)?;
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
    log.restored(running.child.pid());
    if let Some(status) = status {
        log.status(&status);
    }
    if o.usual.detached && !as_init {
        // Unmapped with all the rest in a moment.
        std::mem::forget(made.loaded);
        return Ok(0);
    }
    drop(made.loaded);
    drop(reserved);
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
    let wanted = if o.rare.new_namespaces && !as_init {
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
    if o.rare.pretend_without.iter().any(|w| w == "mm-map") {
        machine.has_mm_map = false;
    }
    let options = Options {
        any_pid: o.rare.any_pid,
        any_ids: o.rare.any_ids,
        inherit: o.rare.inherit_fd.iter().map(|i| i.id.clone()).collect(),
        shell_job: o.rare.shell_job,
        lazy: o.rare.lazy,
        // Inside the namespaces ids are free, and that is checked like everywhere else.
        new_namespaces: o.rare.new_namespaces && !as_init,
        own_ipc: as_init,
        finish: match o.rare.finish {
            cli::Finish::Auto => Finish::Auto,
            cli::Finish::Sigpage => Finish::Sigpage,
            cli::Finish::Ptrace => Finish::Ptrace,
            cli::Finish::Page => Finish::Page,
        },
        leave_stopped: o.rare.leave_stopped,
        detached: o.usual.detached && !as_init,
        blob: load::sizes(),
        ..Options::default()
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
    /// The place among them of each task of the checkpoint.
    places: Vec<Option<usize>>,
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

impl Restore<'_> {
    fn root(&self) -> &Member<'_> {
        &self.members[0]
    }

    /// The member that is the task of this index, and its place among them.
    fn member(&self, index: usize) -> Option<(usize, &Member<'_>)> {
        let at = (*self.places.get(index)?)?;
        Some((at, &self.members[at]))
    }
}
