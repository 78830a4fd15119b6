//! What the child does in ordinary code, before the blob: everything that a task owns outside its address space.
//!
//! All signals are blocked. The child maps nothing but its area, if it is of a tree, and leaves by [`Loaded::enter`] or
//! `_exit`.

use std::cell::LazyCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use armrest_images::{Checkpoint, LiveTask, Task};
use armrest_plan::Plan;

use crate::family::Stage;
use crate::hand::Hand;
use crate::journal::Journal;
use crate::load::{Loaded, write_raw};
use crate::objects::{Objects, acts, tty};
use crate::os;
use crate::restore::open::Dirs;

/// Status of a child that failed here; its words went to the report pipe.
pub const FAILED: i32 = 113;
/// Limits that the restore itself could hit: set from outside at the last gate, or once the task is entered (AS, DATA,
/// STACK, MEMLOCK; NPROC for its threads, SIGPENDING for what waits, NICE and RTPRIO for their scheduling).
pub const LATE_LIMITS: [u32; 8] = [9, 2, 3, 8, 6, 11, 13, 14];

/// What the child becomes.
pub struct Becoming<'a> {
    /// Index of the task.
    pub index: usize,
    /// The task.
    pub task: &'a Task,
    /// Its live part.
    pub live: &'a LiveTask,
    /// The plan.
    pub plan: &'a Plan,
    /// How it comes by what is open.
    pub hand: &'a Hand,
    /// Open things.
    pub objects: &'a Objects,
    /// The checkpoint: what its descriptors were.
    pub cp: &'a Checkpoint,
    /// Working directory and root.
    pub dirs: &'a Dirs,
    /// Those that have this task's descriptor table, itself included: index, and number of the report pipe. The first puts
    /// into it what all of them need.
    pub sharers: &'a [(usize, u32)],
    /// Come to a stage, if the tree has it.
    pub meet: &'a dyn Fn(Stage),
    /// The report pipe's write end.
    pub report: &'a OwnedFd,
    /// Where what was made outside is written down.
    pub journal: &'a Journal,
    /// What may be set of the image's limits and weights.
    pub allowed: &'a Allowed,
    /// The caller's terminal, if the task uses it.
    pub lent: Option<&'a tty::Lent>,
    /// Under an emulator the personality is the emulator's own.
    pub emulated: bool,
}

impl Becoming<'_> {
    /// Become the task. Does not return.
    pub fn run(&self, loaded: &Loaded) -> ! {
        let mut told = self.report.as_raw_fd();
        let prepared = loaded.fill(self.plan);
        if let Err((what, e)) = prepared.and_then(|()| self.prepare(&mut told)) {
            let words = format!("pid {}: {what}: {e}\n", self.task.pid);
            write_raw(&told, words.as_bytes());
            // SAFETY: ends this child without running the parent's exit handlers.
            unsafe { libc::_exit(FAILED) }
        }
        loaded.enter()
    }

    /// Move the break, after the last allocation of this process: its allocator does not know.
    fn grow_brk(&self) -> io::Result<()> {
        let Some(brk) = self.plan.grow_brk else {
            return Ok(());
        };
        // SAFETY: grows the heap's mapping over addresses that the plan found free; nothing refers to them.
        let now = unsafe { libc::syscall(libc::SYS_brk, brk) };
        if now.cast_unsigned() == libc::c_ulong::from(brk) {
            Ok(())
        } else {
            Err(io::ErrorKind::OutOfMemory.into())
        }
    }

    fn prepare(&self, told: &mut RawFd) -> Result<(), (String, io::Error)> {
        let named = |what: &'static str| move |e: io::Error| (what.to_owned(), e);
        // The blob ends the bond of a parent's death; from then on this process may outlive the harness, with all that was made for it.
        self.journal.claim().map_err(named("journal"))?;
        self.terminal().map_err(named("terminal"))?;
        self.actions()?;
        if let Some(p) = self.live.personality.filter(|_| !self.emulated) {
            // SAFETY: numbers only.
            os::check(unsafe { libc::personality(libc::c_ulong::from(p)) })
                .map_err(named("personality"))?;
        }
        if let Some(mask) = self.live.umask {
            // SAFETY: cannot fail.
            unsafe { libc::umask(libc::mode_t::try_from(mask & 0o777).unwrap_or(0o022)) };
        }
        self.oom().map_err(named("oom_score_adj"))?;
        self.loginuid().map_err(named("loginuid"))?;
        self.subreaper().map_err(named("PR_SET_CHILD_SUBREAPER"))?;
        // Behind a root of its own there may be no /proc.
        self.directories()
            .map_err(named("working directory and root"))?;
        self.descriptors(told).map_err(named("descriptors"))?;
        self.acts()?;
        self.limits().map_err(named("resource limits"))?;
        self.grow_brk().map_err(named("brk"))
    }

    /// Root first: the working directory may lie outside of it.
    fn directories(&self) -> io::Result<()> {
        if let Some(root) = &self.dirs.root {
            let root = self.hand.take(root)?;
            // SAFETY: numbers, and a constant that ends with NUL.
            unsafe {
                os::check(libc::fchdir(root.as_raw_fd()))?;
                os::check(libc::chroot(c".".as_ptr()))?;
            }
        }
        if let Some(cwd) = &self.dirs.cwd {
            let cwd = self.hand.take(cwd)?;
            // SAFETY: numbers only.
            os::check(unsafe { libc::fchdir(cwd.as_raw_fd()) })?;
        }
        Ok(())
    }

    /// What is done with descriptors at their numbers.
    fn acts(&self) -> Result<(), (String, io::Error)> {
        for (of, act) in &self.plan.files.acts {
            if *of == self.index {
                acts::act(self.cp, self.task, act)?;
            }
        }
        Ok(())
    }

    /// The leader of a session takes its terminal; with the caller's, its group comes into the foreground.
    fn terminal(&self) -> io::Result<()> {
        let t = &self.plan.files.terminals;
        // With another pid than the checkpoint's the task still means its own group.
        let group = |pgrp: u32| {
            if pgrp == self.task.pgid {
                // SAFETY: cannot fail.
                unsafe { libc::getpgrp() }
            } else {
                pgrp.cast_signed()
            }
        };
        let controls = t.controls.iter().zip(&self.objects.controls);
        for (c, index) in controls.filter(|(c, _)| c.sid == self.task.pid) {
            let fd = self.hand.take(&self.objects.open[*index])?;
            tty::take(fd.as_raw_fd(), group(c.pgrp))?;
        }
        match (&t.caller, self.lent) {
            (Some(caller), Some(lent)) => {
                let ours = caller.pgrp.filter(|p| *p == self.task.pgid);
                lent.use_it(caller, ours.map(group))
            }
            _ => Ok(()),
        }
    }

    fn actions(&self) -> Result<(), (String, io::Error)> {
        for (signo, a) in &self.live.sigactions {
            let (low, high) = (a.mask & 0xffff_ffff, a.mask >> 32);
            let mask = [low, high].map(|w| u32::try_from(w).unwrap_or(0));
            // The kernel's own structure on ARM: handler, flags, restorer, mask; 20 bytes.
            let act = [a.handler, a.flags, a.restorer, mask[0], mask[1]];
            // SAFETY: `act` has the layout that a 32-bit ARM kernel reads; handlers are addresses of the restored
            // program and cannot run before it does, since all signals are blocked.
            let ret = unsafe { libc::syscall(libc::SYS_rt_sigaction, *signo, act.as_ptr(), 0, 8) };
            os::check_long(ret).map_err(|e| (format!("rt_sigaction of signal {signo}"), e))?;
        }
        Ok(())
    }

    fn oom(&self) -> io::Result<()> {
        match self.allowed.oom_score_adj {
            Some(adj) => std::fs::write(OOM, adj.to_string()),
            None => Ok(()),
        }
    }

    fn loginuid(&self) -> io::Result<()> {
        match self.allowed.loginuid {
            Some(id) => std::fs::write(LOGINUID, id.to_string()),
            None => Ok(()),
        }
    }

    fn subreaper(&self) -> io::Result<()> {
        if self.live.child_subreaper && !self.emulated {
            // SAFETY: numbers only.
            os::check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) })?;
        }
        Ok(())
    }

    /// The descriptor table becomes the task's, by itself or by the first of those that share it; `told`: where the report
    /// pipe lies.
    fn descriptors(&self, told: &mut RawFd) -> io::Result<()> {
        (self.meet)(Stage::Idle);
        if self.sharers.first().is_some_and(|s| s.0 == self.index) {
            self.fill_table(told)?;
        }
        (self.meet)(Stage::Placed);
        *told = self.plan.report_fd.cast_signed();
        Ok(())
    }

    /// Put every descriptor at its number and close all others.
    fn fill_table(&self, told: &mut RawFd) -> io::Result<()> {
        let number = |fd: u32| i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidInput);
        let placed = || {
            let sharers = self.sharers.iter();
            sharers.flat_map(|(index, _)| self.objects.placed_in(*index))
        };
        let reports = self.sharers.iter().map(|(_, report)| *report);
        // What is still needed lies above all targets: placing cannot overwrite it.
        let above = placed().map(|p| p.to).chain(reports.clone()).max();
        let above = above.unwrap_or(0) + 1;
        let report = os::dup_above(self.report.as_fd(), above)?.into_raw_fd();
        *told = report;
        self.hand.step_aside(above)?;
        let mut wanted: Vec<RawFd> = Vec::new();
        for p in placed() {
            let to = number(p.to)?;
            let fd = self.hand.take(&self.objects.open[p.index])?;
            fd.place(to, p.cloexec)?;
            wanted.push(to);
        }
        for to in reports {
            let to = number(to)?;
            os::dup_to(report, to, false)?;
            wanted.push(to);
        }
        *told = self.plan.report_fd.cast_signed();
        close_all_but(wanted)
    }

    fn limits(&self) -> io::Result<()> {
        for (resource, limit) in self
            .allowed
            .limits
            .iter()
            .filter(|l| !LATE_LIMITS.contains(&l.0))
        {
            set_limit(0, *resource, *limit)?;
        }
        Ok(())
    }
}

const OOM: &str = "/proc/self/oom_score_adj";
const LOGINUID: &str = "/proc/self/loginuid";

/// What of the image's limits and weights this process may give a child: known before there is one.
#[derive(Debug, Default)]
pub struct Allowed {
    /// Limits to set.
    pub limits: Vec<(u32, (u64, u64))>,
    /// Weight for the OOM killer to set.
    pub oom_score_adj: Option<i32>,
    /// Login user id to set; all ones = none.
    pub loginuid: Option<u32>,
    /// What stays otherwise, in sentences.
    pub notes: Vec<String>,
}

impl Allowed {
    /// Compare the image with what this process has and may do.
    pub fn new(live: &LiveTask, cap_eff: u64) -> io::Result<Allowed> {
        const CAP_SYS_RESOURCE: u64 = 1 << 24;
        let may_raise = LazyCell::new(|| may(cap_eff, CAP_SYS_RESOURCE));
        let mut out = Allowed::default();
        for (resource, limit) in (0u32..).zip(&live.rlimits) {
            let now = get_limit(resource)?;
            if limit.1 > now.1 && !*may_raise {
                out.notes.push(format!(
                    "resource limit {resource}: a hard limit of {} cannot be raised to {}",
                    now.1, limit.1
                ));
                let lower = (limit.0.min(now.1), now.1);
                out.limits.push((resource, lower));
            } else if *limit != now {
                out.limits.push((resource, *limit));
            }
        }
        if let Some(adj) = live.oom_score_adj {
            let now: i32 = os::read_small(OOM)?
                .trim()
                .parse()
                .map_err(|_| io::ErrorKind::InvalidData)?;
            if adj < now && !*may_raise {
                out.notes.push(format!(
                    "oom_score_adj stays {now}: {adj} needs CAP_SYS_RESOURCE"
                ));
            } else if adj != now {
                out.oom_score_adj = Some(adj);
            }
        }
        out.login(live, cap_eff);
        Ok(out)
    }

    /// The login id: a kernel without audit has none. It can be given once, and with CAP_AUDIT_CONTROL again.
    fn login(&mut self, live: &LiveTask, cap_eff: u64) {
        const CAP_AUDIT_CONTROL: u64 = 1 << 30;
        let wanted = live.loginuid.unwrap_or(u32::MAX);
        let now = os::read_small(LOGINUID).ok();
        let Some(now) = now.and_then(|s| s.trim().parse::<u32>().ok()) else {
            if live.loginuid.is_some() {
                self.notes.push(format!(
                    "login uid {wanted} is left out: this kernel has none"
                ));
            }
            return;
        };
        if now == wanted {
            return;
        }
        if now == u32::MAX || may(cap_eff, CAP_AUDIT_CONTROL) {
            self.loginuid = Some(wanted);
        } else {
            let words = |id: u32| {
                if id == u32::MAX {
                    "none".into()
                } else {
                    id.to_string()
                }
            };
            self.notes.push(format!(
                "login uid stays {}: {} needs CAP_AUDIT_CONTROL",
                words(now),
                words(wanted)
            ));
        }
    }
}

/// True if we have this right where the kernel asks for it: in the first user namespace, whose number is fixed
/// (PROC_USER_INIT_INO), and not in one of our own.
fn may(cap_eff: u64, right: u64) -> bool {
    const FIRST: u64 = 0xefff_fffd;
    let first = || {
        let ours = std::fs::metadata("/proc/self/ns/user").ok();
        ours.is_none_or(|ns| ns.ino() == FIRST)
    };
    cap_eff & right != 0 && first()
}

/// A limit of this process: soft, hard.
///
/// # Errors
/// There is none of this number.
pub fn get_limit(resource: u32) -> io::Result<(u64, u64)> {
    let mut now = [0u64; 2];
    // SAFETY: the structure is two u64, as prlimit64 wants it.
    os::check_long(unsafe {
        libc::syscall(libc::SYS_prlimit64, 0, resource, 0, now.as_mut_ptr())
    })?;
    Ok((now[0], now[1]))
}

/// Give a process a limit if it has another. One that has ended, reaped or not, needs none.
pub fn set_limit(pid: libc::pid_t, resource: u32, (cur, max): (u64, u64)) -> io::Result<()> {
    let new = [cur, max];
    let mut old = [0u64; 2];
    // SAFETY: the structures are two u64 each, as prlimit64 wants them.
    let mut done = os::check_long(unsafe {
        libc::syscall(libc::SYS_prlimit64, pid, resource, 0, old.as_mut_ptr())
    });
    if done.is_ok() && old != new {
        // SAFETY: as above.
        done = os::check_long(unsafe {
            libc::syscall(libc::SYS_prlimit64, pid, resource, new.as_ptr(), 0)
        });
    }
    match done {
        Err(e) if pid == 0 || !ended(pid) => Err(e),
        _ => Ok(()),
    }
}

/// Has this process ended, as far as /proc tells?
fn ended(pid: libc::pid_t) -> bool {
    match os::read_small(&format!("/proc/{pid}/stat")) {
        Ok(stat) => matches!(os::stat_fields(&stat).next(), Some("Z" | "X")),
        Err(e) => {
            e.kind() == io::ErrorKind::NotFound && std::path::Path::new("/proc/self").exists()
        }
    }
}

/// Number of RLIMIT_FSIZE.
pub const FSIZE: u32 = 1;
/// Number of RLIMIT_NOFILE.
const NOFILE: u32 = 7;

/// Close all descriptors of this process but these.
///
/// # Errors
/// What the kernel says.
pub fn close_all_but(mut keep: Vec<RawFd>) -> io::Result<()> {
    keep.sort_unstable();
    let mut next = 0;
    for keep in keep.into_iter().chain([i32::MAX]) {
        if keep > next {
            close_between(next, keep - 1)?;
        }
        next = keep.saturating_add(1);
    }
    Ok(())
}

/// Close all descriptors from `first` to `last`, by `close_range` or, where that is missing, one by one.
fn close_between(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: this child uses none of them any more.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return Ok(());
    }
    let Ok(listed) = std::fs::read_dir("/proc/self/fd") else {
        // Behind a root of its own: every number that there may be.
        let (most, _) = get_limit(NOFILE)?;
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        for fd in first..=last.min(most) {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
        return Ok(());
    };
    let open: Vec<RawFd> = listed
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| (first..=last).contains(fd))
        .collect();
    for fd in open {
        // SAFETY: as above. The directory's own descriptor is in the list and already closed.
        unsafe { libc::close(fd) };
    }
    Ok(())
}
