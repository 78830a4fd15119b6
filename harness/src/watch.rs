//! From the fork to the end: reports and progress of the blob, proof that the task runs, signals and exit status.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use armrest_abi::{ABI_VERSION, Report, ReportKind, Step};
use armrest_images::Checkpoint;
use armrest_plan::{Exit, Plan, words};

use crate::blob::BLOB;
use crate::error::Error;
use crate::load::Loaded;
use crate::objects::tty;
use crate::os;

/// Number of munmap.
const MUNMAP: u32 = 91;
/// Bytes of the blob by which it is known.
const CODE: usize = 64;
/// How long a task may take from its last report to its first own instruction.
pub const ENTER_TIME: Duration = Duration::from_secs(20);
/// What its last calls take at least: sooner there is nothing to see.
pub const LAST_CALLS: Duration = Duration::from_micros(25);
/// Signals that a foreground restore passes on.
const FORWARDED: [i32; 8] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCONT,
    libc::SIGTSTP,
];

/// How a process ended, as `wait` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `exit(status)`.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// What a status of `wait` means, if it means an end.
    pub fn of(status: i32) -> Option<Ended> {
        if libc::WIFEXITED(status) {
            Some(Ended::Exit(libc::WEXITSTATUS(status)))
        } else {
            libc::WIFSIGNALED(status).then(|| Ended::Signal(libc::WTERMSIG(status)))
        }
    }

    /// What a shell would say: the status, or 128 + signal.
    pub fn status(self) -> i32 {
        match self {
            Ended::Exit(s) => s,
            Ended::Signal(s) => 128 + s,
        }
    }

    /// In words, of a task that made no report. The exit routine reports all but one of its calls.
    pub fn while_entered(self) -> String {
        match self {
            Ended::Exit(s) if s == Report::EXIT_CODE.cast_signed() => {
                format!("exit status {s}: close of the report pipe failed")
            }
            end => end.words(),
        }
    }

    /// In words.
    pub fn words(self) -> String {
        match self {
            Ended::Exit(s) => format!("exit status {s}"),
            Ended::Signal(s) => format!("signal {s}"),
        }
    }
}

/// The child of a restore, killed and reaped when dropped before it is let go.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
    ended: Option<Ended>,
    let_go: bool,
    own: bool,
}

impl Child {
    /// Take charge of `pid`.
    pub fn new(pid: libc::pid_t) -> Child {
        Child {
            pid,
            ended: None,
            let_go: false,
            own: true,
        }
    }

    /// Someone else's child: it is looked at, and never killed here.
    pub fn stranger(pid: libc::pid_t) -> Child {
        Child {
            pid,
            ended: None,
            let_go: true,
            own: false,
        }
    }

    /// Its pid.
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// It runs its own code: what happens to it is its own business now.
    pub fn let_go(&mut self) {
        self.let_go = true;
    }

    /// Wait for its end, at most this long.
    pub fn wait_for(&mut self, most: Duration) -> Option<Ended> {
        let start = Instant::now();
        while self.ended().is_none() && start.elapsed() < most {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ended
    }

    /// Something went wrong: because it has ended, if it has.
    pub fn lost(&mut self, e: Error) -> Error {
        match self.wait_for(Duration::from_millis(100)) {
            Some(end) => Error::Lost {
                what: "the restoring child".into(),
                why: end.words(),
            },
            None => e,
        }
    }

    /// It and all that is a child of this process besides: killed and reaped, until there is none. With this process a
    /// subreaper, that is all of a tree, and no pid can be anyone else's.
    ///
    /// False: the kernel does not list children (CONFIG_PROC_CHILDREN).
    pub fn end_all() -> bool {
        let list = format!("/proc/self/task/{}/children", std::process::id());
        loop {
            let Ok(text) = std::fs::read_to_string(&list) else {
                return false;
            };
            let pids: Vec<libc::pid_t> = text
                .split_whitespace()
                .filter_map(|p| p.parse().ok())
                .collect();
            if pids.is_empty() {
                return true;
            }
            for pid in &pids {
                // SAFETY: our own children, not reaped yet: nobody else can.
                unsafe { libc::kill(*pid, libc::SIGKILL) };
            }
            // What is traced is waited for as it comes: a leader ends after its threads, a parent before its children.
            let mut left: BTreeSet<libc::pid_t> = pids.into_iter().collect();
            while !left.is_empty() {
                let mut status = 0;
                // SAFETY: `status` is writable.
                let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
                if pid < 0 {
                    break;
                }
                if Ended::of(status).is_some() {
                    left.remove(&pid);
                }
            }
        }
    }

    /// Somebody else has waited for it.
    pub fn has_ended(&mut self, how: Ended) {
        self.ended = Some(how);
    }

    /// Has it ended? Does not wait, and leaves it to be waited for: its pid is its own until then.
    pub fn ended(&mut self) -> Option<Ended> {
        if !self.own {
            self.ended = state(self.pid).dead();
        } else if self.ended.is_none() {
            let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
            let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            let id = libc::id_t::from(self.pid.cast_unsigned());
            // SAFETY: `info` is writable and all zeroes are one; WNOHANG returns at once.
            let info = unsafe {
                libc::waitid(libc::P_PID, id, info.as_mut_ptr(), how);
                info.assume_init()
            };
            // SAFETY: as above; no end leaves the zeroes.
            if unsafe { info.si_pid() } == self.pid {
                self.ended = Ended::of(os::wait_status(&info));
            }
        }
        self.ended
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.let_go && self.ended.is_some() {
            // SAFETY: our own child: nothing happens if somebody has waited for it already.
            unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) };
        } else if !self.let_go {
            // SAFETY: our own child, not reaped yet, so the pid is still its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            // Threads that are traced are reaped one by one, and their leader after them.
            let mut status = 0;
            // SAFETY: `status` is writable.
            while !matches!(unsafe { libc::waitpid(-1, &mut status, libc::__WALL) }, pid
                if pid < 0 || pid == self.pid && Ended::of(status).is_some())
            {}
        }
    }
}

/// What `/proc/PID/stat` says of a process that may be someone else's child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Lives,
    /// Its wait status, as far as it can be seen.
    Dead(i32),
}

impl State {
    fn dead(self) -> Option<Ended> {
        match self {
            State::Lives => None,
            State::Dead(status) => Ended::of(status).or(Some(Ended::Exit(0))),
        }
    }
}

fn state(pid: libc::pid_t) -> State {
    let Ok(text) = os::read_small(&format!("/proc/{pid}/stat")) else {
        return State::Dead(0);
    };
    let mut words = os::stat_fields(&text);
    match words.next() {
        Some("Z" | "X") => {
            // Field 52, and 2 are before the parenthesis.
            let status = words.last().and_then(|w| w.parse().ok());
            State::Dead(status.unwrap_or(0))
        }
        _ => State::Lives,
    }
}

/// When a tree is looked at again. To look at all its processes takes time that grows with their number, and must not take
/// most of the time that they have.
#[derive(Debug)]
pub struct Pace(Instant);

impl Default for Pace {
    /// The first look is due.
    fn default() -> Pace {
        Pace(Instant::now())
    }
}

impl Pace {
    /// The least between two looks.
    const LEAST: Duration = Duration::from_millis(10);
    /// So much of the time goes by between looks.
    const SHARE: u32 = 16;

    /// Look, if it is due.
    pub fn look<T>(&mut self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        let start = Instant::now();
        if start < self.0 {
            return None;
        }
        let seen = look();
        self.0 = Instant::now() + Self::LEAST.max(start.elapsed() * Self::SHARE);
        seen
    }
}

/// Is a process dead, or gone?
pub fn is_dead(pid: libc::pid_t) -> bool {
    state(pid) != State::Lives
}

/// Progress on a terminal, for restores with many pages.
pub struct Bar(Option<indicatif::ProgressBar>);

impl Bar {
    /// A bar if standard error is a terminal and there is something to see.
    pub fn new(bytes: u64) -> Bar {
        let show = bytes >= 16 << 20 && io::IsTerminal::is_terminal(&io::stderr());
        Bar(show.then(|| indicatif::ProgressBar::new(bytes)))
    }
    /// How far they are, together.
    pub fn show(&self, loaded: &[Loaded]) {
        if let Some(bar) = &self.0 {
            bar.set_position(loaded.iter().map(|l| l.progress().filled).sum());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// The read end of the report pipe, and what came through it.
pub struct Reports {
    pipe: File,
    said: Vec<u8>,
    ended: bool,
}

impl Reports {
    /// Listen there.
    pub fn new(pipe: OwnedFd) -> Reports {
        Reports {
            pipe: File::from(pipe),
            said: Vec::new(),
            ended: false,
        }
    }

    /// Take what there is, waiting at most this long for it. True at the end of the pipe.
    pub fn take(&mut self, wait: Duration) -> Result<bool, Error> {
        if !self.ended && readable(&self.pipe.as_fd(), wait).map_err(internal("poll"))? {
            let mut buf = [0; 512];
            match self.pipe.read(&mut buf) {
                Ok(0) => self.ended = true,
                Ok(n) => self.said.extend_from_slice(&buf[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(internal("read of the report pipe")(e)),
            }
        }
        Ok(self.ended)
    }

    /// Has anything come?
    pub fn said_anything(&self) -> bool {
        !self.said.is_empty()
    }

    /// The first report; others may follow it when several tasks fail at once.
    fn report(&self) -> Option<Report> {
        let first = self.said.get(..size_of::<Report>())?;
        Report::from_bytes(first).filter(|r| r.magic == Report::MAGIC)
    }

    /// The two words of the exit routine, which has no room for more: its munmap failed.
    fn stayed(&self, plan: &Plan) -> Option<Report> {
        let (result, call) = self.said.get(..8)?.split_at(4);
        if call != MUNMAP.to_le_bytes() {
            return None;
        }
        let (start, end) = (plan.area.keep.end, plan.area.all.end);
        Some(Report {
            magic: Report::MAGIC,
            version: ABI_VERSION,
            kind: ReportKind::Errno as u32,
            step: Step::Enter.number(),
            object: Report::NO_OBJECT,
            row: 0,
            syscall: MUNMAP,
            args: [start, end - start, 0, 0, 0, 0],
            result: i32::from_le_bytes(result.try_into().ok()?),
            tid: 0,
            pid: 0,
        })
    }

    /// Take the rest of what is being said, which comes at once.
    pub fn hear_out(&mut self) -> Result<(), Error> {
        let until = Instant::now() + Duration::from_millis(200);
        while !self.take(Duration::from_millis(20))? && Instant::now() < until {}
        Ok(())
    }

    /// The task that the report is of, by its pid in the checkpoint, if there is one.
    pub fn reporter(&self) -> Option<u32> {
        self.report().map(|r| r.pid)
    }

    /// What an ended pipe means for a task: `child` is the one that can be waited for.
    pub fn judge(
        &self,
        pid: u32,
        child: &mut Child,
        cp: &Checkpoint,
        plan: &Plan,
        loaded: &Loaded,
    ) -> Result<(), Error> {
        if let Some(report) = self.report().or_else(|| self.stayed(plan)) {
            return Err(Error::Blob {
                what: format!("pid {pid}"),
                why: words::report(&report, plan, cp),
            });
        }
        if !self.said.is_empty() {
            return Err(Error::Machine {
                what: "the restoring child".into(),
                why: String::from_utf8_lossy(&self.said).into_owned(),
            });
        }
        // The pipe ends too when the child dies without a word; then it is gone in a moment, if it is not yet.
        if loaded.progress().step < Step::Enter.number() {
            let end = child.wait_for(ENTER_TIME);
            let step = words_of(loaded.progress().step);
            return Err(Error::Lost {
                what: format!("restoring child, pid {pid}, in step \"{step}\""),
                why: end.map_or_else(
                    || "it closed its report pipe and went on".into(),
                    Ended::words,
                ),
            });
        }
        Ok(())
    }
}

/// Wait until the report pipe ends: all tasks are being entered, if it ends without a report.
pub fn until_ended(
    reports: &mut Reports,
    pages: u64,
    loaded: &[Loaded],
    deadline: Deadline,
    forward: &Forward,
) -> Result<(), Error> {
    let bar = Bar::new(pages * 4096);
    while !reports.take(Duration::from_millis(50))? {
        forward.interrupted()?;
        deadline.check(|| loaded.first().map_or_else(String::new, in_step))?;
        bar.show(loaded);
    }
    Ok(())
}

/// How far a task is, in words.
pub fn in_step(loaded: &Loaded) -> String {
    format!("restore, in step \"{}\"", words_of(loaded.progress().step))
}

fn words_of(step: u32) -> String {
    Step::from_number(step).map_or_else(|| format!("{step}"), words::step_name)
}

fn internal(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |e| Error::Internal {
        what: what.into(),
        why: e.to_string(),
    }
}

/// Can something (or the end) be read within `wait`?
pub fn readable(fd: &impl AsRawFd, wait: Duration) -> io::Result<bool> {
    let mut p = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, writable.
    let n = unsafe {
        libc::poll(
            &mut p,
            1,
            i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        )
    };
    match os::check(n) {
        Ok(n) => Ok(n > 0),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(e) => Err(e),
    }
}

/// Signals that no mask has: the kernel never blocks SIGKILL and SIGSTOP; an emulator leaves SIGBUS, SIGSEGV, and what its
/// libc keeps for itself (32, 33) unblocked on the host.
const fn unseen(emulated: bool) -> u64 {
    const NEVER: u64 = 1 << 8 | 1 << 18;
    const EMULATOR: u64 = 1 << 6 | 1 << 10 | 1 << 31 | 1 << 32;
    if emulated { NEVER | EMULATOR } else { NEVER }
}

/// Does this mask block all signals that can be, here or under an emulator?
pub fn all_blocked(mask: u64) -> bool {
    mask | unseen(true) == u64::MAX
}

/// Wait until all `threads` (id and mask, the leader first) run their own code. All signals are blocked until
/// `rt_sigreturn`, so the checkpoint's mask is the proof; if that mask is all signals itself, living on is all that can be
/// seen. A thread that is gone has run: until then only the end of the whole process takes it away.
pub fn until_running(
    child: &mut Child,
    threads: &[(u32, u64)],
    deadline: Deadline,
    forward: &Forward,
    emulated: bool,
) -> Result<(), Error> {
    // A signal that the kernel forces upon the task (a frame that it refuses, a fault) is unblocked before it kills.
    const FORCED: [u64; 6] = [1 << 3, 1 << 4, 1 << 6, 1 << 7, 1 << 10, 1 << 30];
    let unseen = unseen(emulated);
    let forced = |m: u64| FORCED.contains(&!(m | unseen));
    let all = |m: u64| m | unseen == u64::MAX;
    let start = Instant::now();
    let mut left: Vec<(u32, u64)> = threads.to_vec();
    let mut pause = LAST_CALLS;
    loop {
        let pid = child.pid;
        left.retain(|(tid, mask)| {
            // Who was forced to take a signal is dead in a moment; who lives on has such a mask of its own.
            let lived = Duration::from_millis(if all(*mask) { 100 } else { 1000 });
            match os::blocked_signals(pid, *tid) {
                None => false,
                Some(m) if !all(m) && !forced(m) => false,
                Some(m) => !((forced(m) || all(*mask)) && start.elapsed() > lived),
            }
        });
        if let Some(end) = child.ended() {
            // It may have run and ended of its own accord already.
            return match end {
                Ended::Exit(s) if s != Report::EXIT_CODE.cast_signed() => Ok(()),
                end => Err(Error::Lost {
                    what: format!("the task, pid {pid}, right after it was entered"),
                    why: end.while_entered(),
                }),
            };
        }
        if left.is_empty() {
            return Ok(());
        }
        forward.interrupted()?;
        deadline.check(|| "first instruction of the task".into())?;
        if start.elapsed() > ENTER_TIME {
            return Err(Error::Lost {
                what: format!("thread {}", left[0].0),
                why: "it did not leave the restorer (its signal mask never changed)".into(),
            });
        }
        std::thread::sleep(pause);
        pause = Duration::from_micros(500).min(2 * pause);
    }
}

/// Is the code of the blob gone from the task's maps, but for the page that is kept? The task runs already and may have
/// mapped memory of its own there, which is never ours: executable and right behind the kept page.
///
/// # Errors
/// It is still there. Under an emulator the maps of another process are the emulator's own, so nothing can be said.
pub fn area_gone(child: &mut Child, plan: &Plan, emulated: bool) -> Result<(), Error> {
    if emulated {
        return Ok(());
    }
    let keep = plan.area.keep;
    // The maps of a task with many mappings are long: its memory tells as well, if we may read it.
    let rest = BLOB.get(4096..).unwrap_or(&[]);
    let kept = (!matches!(plan.exit, Exit::Page(_))).then_some((keep.start, BLOB));
    let there = |(at, code): (u32, &[u8])| match os::same_bytes(
        child.pid,
        at,
        code.get(..CODE).unwrap_or(code),
    ) {
        Err(e) => !matches!(e.raw_os_error(), Some(libc::EFAULT | libc::ESRCH)),
        Ok(same) => same,
    };
    if !kept.into_iter().chain([(keep.end, rest)]).any(there) {
        return Ok(());
    }
    let Ok(text) = std::fs::read_to_string(format!("/proc/{}/maps", child.pid)) else {
        return Ok(());
    };
    let rest = format!("{:08x}-", keep.end);
    let whole = format!("{:08x}-{:08x} r-xp", keep.start, plan.area.rx.end);
    let kept = format!("{:08x}-{:08x} r-xp", keep.start, keep.end);
    let ours = |l: &&str| {
        l.starts_with(&whole)
            || !matches!(plan.exit, Exit::Page(_)) && l.starts_with(&kept)
            || l.starts_with(&rest) && l.contains(" r-xp 00000000 00:00 0")
    };
    match text.lines().find(ours).filter(|_| child.ended().is_none()) {
        None => Ok(()),
        Some(line) => Err(Error::Lost {
            what: format!("bootstrap area of pid {}", child.pid),
            why: format!("still in the maps of the task: {line}"),
        }),
    }
}

/// When `--timeout` is over, if ever.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<(Instant, u64)>);

impl Deadline {
    /// `seconds` after `start`; a time that no clock reaches is none.
    pub fn new(start: Instant, seconds: Option<u64>) -> Deadline {
        Deadline(seconds.and_then(|s| Some((start.checked_add(Duration::from_secs(s))?, s))))
    }

    /// An error if it is over; `what` was waited for.
    pub fn check(&self, what: impl FnOnce() -> String) -> Result<(), Error> {
        match self.0 {
            Some((at, seconds)) if Instant::now() >= at => Err(Error::Timeout {
                what: what(),
                seconds,
            }),
            _ => Ok(()),
        }
    }
}

/// Signals of a foreground restore: blocked from before the fork, taken one by one.
pub struct Forward {
    set: libc::sigset_t,
    old: u64,
}

impl Forward {
    /// Block all signals of this process; what comes is taken by [`Forward::wait`].
    pub fn new() -> Result<Forward, Error> {
        // Inherited as ignored, the end of a child could not be waited for.
        // SAFETY: the default action is no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        let old = os::block_all_signals().map_err(internal("sigprocmask"))?;
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set; the numbers are valid signals.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for s in FORWARDED.iter().chain([&libc::SIGCHLD]) {
                libc::sigaddset(set.as_mut_ptr(), *s);
            }
            set.assume_init()
        };
        Ok(Forward { set, old })
    }

    /// An error if someone asked this program to end: nothing is restored yet, so everything is taken back.
    pub fn interrupted(&self) -> Result<(), Error> {
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        loop {
            // SAFETY: the set is initialised; no information about the signal is asked for.
            let signo = unsafe { libc::sigtimedwait(&self.set, std::ptr::null_mut(), &now) };
            match signo {
                libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT => {
                    return Err(Error::Lost {
                        what: "restore".into(),
                        why: format!("ended by signal {signo}"),
                    });
                }
                n if n > 0 => {}
                _ => return Ok(()),
            }
        }
    }

    /// Pass signals on to `child` until it ends. Reaps whatever else is a child of this process (an init's duty).
    pub fn wait(&self, child: &mut Child, same_group: bool) -> Ended {
        loop {
            if let Some(end) = self.reap(child) {
                return end;
            }
            let tick = libc::timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
            // SAFETY: the set is initialised and `info` writable; the call returns a signal of the set, or -1.
            let signo = unsafe { libc::sigtimedwait(&self.set, info.as_mut_ptr(), &tick) };
            if !FORWARDED.contains(&signo) {
                continue;
            }
            // SAFETY: sigtimedwait filled it.
            let from_terminal = unsafe { info.assume_init() }.si_code > 0;
            // A key press reaches the whole foreground group by itself.
            if !(from_terminal && same_group) {
                // SAFETY: our child, not reaped: `reap` would have returned.
                unsafe { libc::kill(child.pid, signo) };
            }
        }
    }

    fn reap(&self, child: &mut Child) -> Option<Ended> {
        loop {
            let mut status = 0;
            // SAFETY: `status` is writable.
            let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::WUNTRACED) };
            if pid == child.pid && libc::WIFSTOPPED(status) {
                stop_along(child.pid, libc::WSTOPSIG(status));
                continue;
            }
            if pid == child.pid
                && let Some(end) = Ended::of(status)
            {
                child.ended = Some(end);
                return Some(end);
            }
            if pid <= 0 {
                return child.ended;
            }
        }
    }
}

/// The task was stopped from its terminal: stop along, so that the shell takes the terminal back, and go on along with
/// it. A SIGSTOP is somebody's affair with the task alone, and an init cannot stop.
fn stop_along(task: libc::pid_t, signo: i32) {
    // SAFETY: numbers only.
    unsafe {
        if matches!(signo, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) && libc::getpid() != 1 {
            libc::kill(libc::getpid(), libc::SIGSTOP);
            let group = libc::getpgid(task);
            if group <= 0 || group == libc::getpgrp() {
                libc::kill(task, libc::SIGCONT);
                return;
            }
            // A job of its own (--shell-job): if the shell has put us into the foreground, that is its place.
            if let Ok(terminal) = tty::callers()
                && tty::in_front(terminal.as_raw_fd()).is_ok_and(|g| g == libc::getpgrp())
            {
                let _ = tty::foreground(terminal.as_raw_fd(), group);
            }
            libc::killpg(group, libc::SIGCONT);
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // What came too late to be heeded must not end this program before it has said how the restore went.
        // SAFETY: the set is initialised; no information about the signal is asked for.
        while unsafe { libc::sigtimedwait(&self.set, std::ptr::null_mut(), &now) } > 0 {}
        let _ = os::signal_mask(self.old);
    }
}
