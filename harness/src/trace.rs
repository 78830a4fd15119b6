//! ptrace: the restored task followed to the exit of `rt_sigreturn`, thread by thread; and a look at registers.
//!
//! Threads are told apart by their ids as this process sees them. A thread says that it is about to leave by a SIGSTOP
//! to itself (`armrest_plan::finish`), which only its tracer sees; from there it goes from call to call. At the exit of
//! `rt_sigreturn` its registers are the program's and no instruction of the program has run.
//!
//! Two things of ARM and one of Linux decide the order of calls here. In a stop at a call the kernel shows 0 or 1 in
//! `ip` and forgets what is written there, so registers are read and written in event stops alone. Those lie behind the
//! kernel's restart of calls, which would take a value like -512 in `r0` for its own. And whoever waits in an event stop
//! has taken no signal yet; all signals are blocked until the last moment, so that pending ones come to the program.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use armrest_abi::Range;

use crate::error::Error;
use crate::guard::Guard;
use crate::os;
use crate::watch::Ended;

const GETREGS: u32 = 12;
const SETREGS: u32 = 13;
const GET_THREAD_AREA: u32 = 22;
const GETVFPREGS: u32 = 27;
const CONT: u32 = 7;
const DETACH: u32 = 17;
const SYSCALL: u32 = 24;
const SETOPTIONS: u32 = 0x4200;
const GETSIGINFO: u32 = 0x4202;
const SEIZE: u32 = 0x4206;
const INTERRUPT: u32 = 0x4207;
const GETSIGMASK: u32 = 0x420a;
const SETSIGMASK: u32 = 0x420b;
/// Options: stops at calls are told from SIGTRAP; new threads are traced too; who traces takes the task along.
const O_TRACESYSGOOD: usize = 1;
const O_TRACECLONE: usize = 1 << 3;
const O_EXITKILL: usize = 1 << 20;
/// Filters of the task are not asked while it is traced. Needs CAP_SYS_ADMIN.
const O_SUSPEND_SECCOMP: usize = 1 << 21;

const EVENT_STOP: i32 = 128;
const AT_CALL: i32 = libc::SIGTRAP | 0x80;
const NR_MUNMAP: u32 = 91;
const NR_RT_SIGRETURN: u32 = 173;
const SI_QUEUE: u32 = 0xffff_ffff;
/// How long a thread may take from one stop to the next.
const STEP_TIME: Duration = Duration::from_secs(20);

/// r0 to r15, cpsr, the r0 with which the last call began.
pub type Regs = [u32; 18];
const IP: usize = 12;
const PC: usize = 15;
const CPSR: usize = 16;

/// What a thread has in its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Core registers.
    pub regs: Regs,
    /// d0 to d31, two words each, then FPSCR.
    pub vfp: [u32; 65],
    /// TPIDRURO.
    pub tls: u32,
}

/// One request. `data` is a number, or the address of something that lives through the call.
fn ptrace(request: u32, tid: libc::pid_t, addr: usize, data: usize) -> io::Result<()> {
    // SAFETY: raw call. Those requests of this file that read or write this process's memory are given the address and
    // the size of an array of their size by the functions below.
    os::check_long(unsafe { libc::syscall(libc::SYS_ptrace, request, tid, addr, data) }).map(drop)
}

fn words<const N: usize>(request: u32, tid: libc::pid_t, addr: usize) -> io::Result<[u32; N]> {
    let mut out = [0u32; N];
    ptrace(request, tid, addr, out.as_mut_ptr().expose_provenance())?;
    Ok(out)
}

fn regs(tid: libc::pid_t) -> io::Result<Regs> {
    words(GETREGS, tid, 0)
}

fn set_regs(tid: libc::pid_t, regs: &Regs) -> io::Result<()> {
    ptrace(SETREGS, tid, 0, regs.as_ptr().expose_provenance())
}

/// Give a thread this signal mask; the one that it had.
fn swap_mask(tid: libc::pid_t, mask: u64) -> io::Result<u64> {
    let mut old = 0u64;
    let at = |m: *const u64| m.expose_provenance();
    ptrace(GETSIGMASK, tid, 8, at(&raw mut old))?;
    ptrace(SETSIGMASK, tid, 8, at(&raw const mask))?;
    Ok(old)
}

/// What `wait` told of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Stopped: signal and event number.
    Stop(i32, i32),
    /// Ended: the whole status.
    End(i32),
}

/// Instead of the stop that was waited for, the thread ended.
#[derive(Clone, Copy, Debug)]
struct Gone {
    tid: libc::pid_t,
    status: i32,
}

impl std::fmt::Display for Gone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let how = Ended::of(self.status).map_or_else(|| "itself".into(), Ended::words);
        write!(f, "it was ended: {how}")
    }
}

impl std::error::Error for Gone {}

/// One event of `tid`, or of anybody (-1). Does not wait.
fn event(tid: libc::pid_t) -> Option<(libc::pid_t, Event)> {
    let mut status = 0;
    // SAFETY: `status` is writable; WNOHANG returns at once.
    let who = unsafe { libc::waitpid(tid, &mut status, libc::WNOHANG | libc::__WALL) };
    (who > 0).then(|| {
        let event = if libc::WIFSTOPPED(status) {
            Event::Stop(libc::WSTOPSIG(status), status >> 16)
        } else {
            Event::End(status)
        };
        (who, event)
    })
}

/// The next event of a thread, waited for.
fn next(tid: libc::pid_t) -> io::Result<Event> {
    let start = Instant::now();
    loop {
        if let Some((_, event)) = event(tid) {
            return Ok(event);
        }
        if start.elapsed() > STEP_TIME {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Let a thread go on until its next event stop. Other signals than SIGSTOP cannot come: they are blocked. True if one
/// came.
fn to_event_stop(tid: libc::pid_t) -> io::Result<bool> {
    let mut stop = false;
    loop {
        ptrace(CONT, tid, 0, 0)?;
        match next(tid)? {
            Event::Stop(_, EVENT_STOP) => return Ok(stop),
            Event::Stop(libc::SIGSTOP, 0) => stop = true,
            Event::Stop(..) => {}
            Event::End(status) => return Err(io::Error::other(Gone { tid, status })),
        }
    }
}

/// To the next begin or end of a call. `stop`: a SIGSTOP came before it.
fn to_call(tid: libc::pid_t, stop: &mut bool) -> io::Result<Regs> {
    loop {
        ptrace(SYSCALL, tid, 0, 0)?;
        match next(tid)? {
            Event::Stop(AT_CALL, _) => return regs(tid),
            Event::Stop(libc::SIGSTOP, 0) => *stop = true,
            Event::Stop(..) => {}
            Event::End(status) => return Err(io::Error::other(Gone { tid, status })),
        }
    }
}

/// How far a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Somewhere in the restore.
    Running,
    /// It has said that it is about to leave.
    Following,
    /// The leader, about to take the area away: others may still need it.
    Waiting,
    /// In `rt_sigreturn`.
    Leaving,
    /// Stopped at its exit: the registers are the program's.
    Out,
}

/// A thread that is traced.
#[derive(Clone, Copy, Debug)]
struct Thread {
    /// Its process.
    of: libc::pid_t,
    at: At,
    /// The program's mask and registers, once it is parked.
    parked: Option<(u64, Regs)>,
}

impl Thread {
    fn new(of: libc::pid_t) -> Thread {
        Thread {
            of,
            at: At::Running,
            parked: None,
        }
    }
}

/// What happened to a process that is traced.
#[derive(Clone, Copy, Debug, Default)]
struct Process {
    /// Somebody sent a SIGSTOP meanwhile: it shall have its effect.
    stop: bool,
    /// Somebody sent a SIGCONT meanwhile, and no SIGSTOP after it.
    go_on: bool,
    /// It is left stopped.
    held: bool,
}

/// The tasks as their tracer sees them. A process is named by its leader's id.
#[derive(Debug, Default)]
pub struct Tracer {
    threads: BTreeMap<libc::pid_t, Thread>,
    processes: BTreeMap<libc::pid_t, Process>,
    /// A process that ended, and was waited for here.
    ended: Option<(libc::pid_t, Ended)>,
    /// Who ends all of a tree if this process is killed while it lets them go.
    guard: Option<Guard>,
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |e| Error::Machine {
        what: format!("ptrace of the restored task: {what}"),
        why: e.to_string(),
    }
}

impl Tracer {
    /// Trace a process that has one thread so far, and all threads that it makes.
    ///
    /// # Errors
    /// It may not be traced.
    pub fn seize(&mut self, pid: libc::pid_t, suspend_filters: bool) -> Result<(), Error> {
        let mut options = O_TRACESYSGOOD | O_TRACECLONE | O_EXITKILL;
        if suspend_filters {
            options |= O_SUSPEND_SECCOMP;
        }
        ptrace(SEIZE, pid, 0, options).map_err(failed("PTRACE_SEIZE"))?;
        self.threads.insert(pid, Thread::new(pid));
        self.processes.insert(pid, Process::default());
        Ok(())
    }

    /// Take all events that there are. A process that has ended, and how.
    ///
    /// # Errors
    /// A thread cannot be followed.
    pub fn follow(&mut self) -> Result<Option<(libc::pid_t, Ended)>, Error> {
        while let Some((tid, event)) = event(-1) {
            match event {
                Event::End(status) if self.processes.contains_key(&tid) => {
                    self.threads.retain(|_, t| t.of != tid);
                    self.processes.remove(&tid);
                    return Ok(Ended::of(status).map(|how| (tid, how)));
                }
                Event::End(_) => {
                    self.threads.remove(&tid);
                }
                Event::Stop(signal, event) => match self.stopped(tid, signal, event) {
                    // It was killed in this moment: its end is the next event.
                    Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
                    done => done.map_err(failed("following it to rt_sigreturn"))?,
                },
            }
        }
        Ok(None)
    }

    fn stopped(&mut self, tid: libc::pid_t, signal: i32, event: i32) -> io::Result<()> {
        let (known, mut thread) = match self.threads.get(&tid) {
            Some(thread) => (true, *thread),
            None => (false, Thread::new(leader_of(tid)?)),
        };
        let of = thread.of;
        let process = self.processes.entry(of).or_default();
        let mut on = Some(0);
        if signal == AT_CALL {
            let r = regs(tid)?;
            // `ip` is 0 where a call begins and 1 where it ends.
            match (r[IP], r[7]) {
                (0, NR_RT_SIGRETURN) => thread.at = At::Leaving,
                (1, _) if thread.at == At::Leaving => (thread.at, on) = (At::Out, None),
                // From the exit routine: frames of other threads may still be in there.
                (0, NR_MUNMAP) if tid == of && self.others_in(of) => {
                    (thread.at, on) = (At::Waiting, None);
                }
                _ => {}
            }
        } else if event == EVENT_STOP {
            // The first of a new thread, a stop of the whole group, or word of a SIGCONT.
            if signal != libc::SIGTRAP || known {
                process.stop = signal != libc::SIGTRAP;
                process.go_on = !process.stop;
            }
        } else if event == 0 && signal == libc::SIGSTOP {
            if words::<32>(GETSIGINFO, tid, 0)?[2] == SI_QUEUE {
                thread.at = At::Following;
            } else {
                (process.stop, process.go_on) = (true, false);
            }
        } else if event == 0 {
            // All others are blocked: the kernel forced it upon a thread that went wrong.
            on = Some(usize::try_from(signal).unwrap_or(0));
        }
        self.threads.insert(tid, thread);
        if let Some(signal) = on {
            let how = if thread.at == At::Running {
                CONT
            } else {
                SYSCALL
            };
            ptrace(how, tid, 0, signal)?;
        }
        if let Some(leader) = self.threads.get_mut(&of)
            && leader.at == At::Waiting
            && thread.at == At::Out
            && !self.others_in(of)
        {
            self.threads.entry(of).and_modify(|t| t.at = At::Following);
            ptrace(SYSCALL, of, 0, 0)?;
        }
        Ok(())
    }

    /// Is a thread of this process, but the leader, still in the restore?
    fn others_in(&self, of: libc::pid_t) -> bool {
        let mut threads = self.threads.iter();
        threads.any(|(tid, t)| t.of == of && *tid != of && t.at != At::Out)
    }

    /// Threads that have left the restore for the program.
    pub fn out(&self) -> usize {
        self.threads.values().filter(|t| t.at == At::Out).count()
    }

    /// A process with a thread that is still in the restore.
    pub fn behind(&self) -> Option<libc::pid_t> {
        let mut threads = self.threads.values();
        threads.find(|t| t.at != At::Out).map(|t| t.of)
    }

    /// Let everybody go on: the restore has failed, and its child is to end as it likes.
    pub fn give_up(&mut self) {
        for tid in self.threads.keys() {
            let _ = ptrace(CONT, *tid, 0, 0);
        }
    }

    /// End all processes. They are waited for elsewhere.
    pub fn kill(&mut self) {
        self.guard = None;
        for pid in self.processes.keys() {
            // SAFETY: numbers only; who is traced is reaped by nobody else before it is here.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
    }

    /// Bring all threads to where registers can be read and written, with every signal blocked.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn park(&mut self) -> Result<(), Error> {
        for (tid, thread) in &mut self.threads {
            let process = self.processes.entry(thread.of).or_default();
            let mut run = || {
                let mask = swap_mask(*tid, u64::MAX)?;
                ptrace(INTERRUPT, *tid, 0, 0)?;
                if to_event_stop(*tid)? {
                    (process.stop, process.go_on) = (true, false);
                }
                thread.parked = Some((mask, regs(*tid)?));
                Ok(())
            };
            if let Err(e) = run() {
                let of = thread.of;
                return Err(self.lost(of, "stopping it at its first instruction", e));
            }
        }
        Ok(())
    }

    /// Why a request failed: the task was killed meanwhile, or the kernel does not do it.
    fn lost(&mut self, pid: libc::pid_t, what: &'static str, e: io::Error) -> Error {
        let gone = e.get_ref().and_then(|g| g.downcast_ref::<Gone>()).copied();
        if gone.is_none() && e.raw_os_error() != Some(libc::ESRCH) {
            return failed(what)(e);
        }
        let mut end = gone.filter(|g| g.tid == pid).map(|g| g.status);
        let start = Instant::now();
        while end.is_none() && start.elapsed() < STEP_TIME {
            match event(-1) {
                Some((tid, Event::End(status))) if tid == pid => end = Some(status),
                Some((tid, Event::Stop(..))) => {
                    let _ = ptrace(CONT, tid, 0, 0);
                }
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        let end = end.and_then(Ended::of);
        self.ended = end.map(|how| (pid, how));
        Error::Lost {
            what: format!("the task, while {what}"),
            why: end.map_or_else(|| "it is not there any more".into(), Ended::words),
        }
    }

    /// How a process ended, if that was seen here and nowhere else.
    pub fn ended(&self) -> Option<(libc::pid_t, Ended)> {
        self.ended
    }

    /// Let the leader of a parked process unmap `range`, by the `svc` at that address of the range itself: it never
    /// comes back there.
    ///
    /// # Errors
    /// It cannot, or the kernel refuses.
    pub fn unmap(&mut self, pid: libc::pid_t, range: Range, svc: u32) -> Result<(), Error> {
        const JAZELLE_IT_ENDIAN_THUMB: u32 = 1 << 24 | 3 << 25 | 0x3f << 10 | 1 << 9 | 1 << 5;
        let Some((_, own)) = self.threads.get(&pid).and_then(|t| t.parked) else {
            return Err(Error::Internal {
                what: "ptrace of the restored task".into(),
                why: "the leader is not parked".into(),
            });
        };
        let mut call = own;
        (call[0], call[1], call[7], call[PC]) = (range.start, range.len(), NR_MUNMAP, svc);
        call[CPSR] &= !JAZELLE_IT_ENDIAN_THUMB;
        let mut stop = false;
        let mut run = || {
            set_regs(pid, &call)?;
            let begun = to_call(pid, &mut stop)?;
            if begun[IP] != 0 || begun[7] != NR_MUNMAP {
                return Err(io::Error::other("it makes another call than munmap"));
            }
            let done = to_call(pid, &mut stop)?;
            ptrace(INTERRUPT, pid, 0, 0)?;
            stop |= to_event_stop(pid)?;
            set_regs(pid, &own)?;
            match done[0].cast_signed() {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(-error)),
            }
        };
        let done = run();
        self.saw_stop(pid, stop);
        done.map_err(|e| self.lost(pid, "unmapping the last page of ours in it", e))
    }

    /// A SIGSTOP of somebody else's was taken from a process meanwhile, if so.
    fn saw_stop(&mut self, pid: libc::pid_t, stop: bool) {
        if let Some(process) = self.processes.get_mut(&pid).filter(|_| stop) {
            (process.stop, process.go_on) = (true, false);
        }
    }

    /// Take a SIGCHLD out of the queue of a parked process, if one waits there: it came of what the restore did.
    ///
    /// # Errors
    /// The process is gone.
    pub fn quiet(&mut self, pid: libc::pid_t) -> Result<(), Error> {
        if os::pending_signals(pid).is_none_or(|p| p & bit(libc::SIGCHLD) == 0) {
            return Ok(());
        }
        let mut stop = false;
        let mut run = || {
            swap_mask(pid, !bit(libc::SIGCHLD))?;
            ptrace(CONT, pid, 0, 0)?;
            loop {
                match next(pid)? {
                    Event::Stop(_, EVENT_STOP) => return Ok(()),
                    Event::Stop(libc::SIGSTOP, 0) => {
                        stop = true;
                        ptrace(CONT, pid, 0, 0)?;
                    }
                    Event::Stop(..) => {
                        swap_mask(pid, u64::MAX)?;
                        ptrace(INTERRUPT, pid, 0, 0)?;
                        ptrace(CONT, pid, 0, 0)?;
                    }
                    Event::End(status) => return Err(io::Error::other(Gone { tid: pid, status })),
                }
            }
        };
        let done = run();
        self.saw_stop(pid, stop);
        done.map_err(|e| self.lost(pid, "taking back a SIGCHLD of the restore's own", e))
    }

    /// Stop a whole parked process as this signal does, with no other signal taken before. Where the signal has no
    /// effect (in a group without a parent in its session), by SIGSTOP: then false.
    ///
    /// # Errors
    /// It is gone.
    pub fn hold(&mut self, pid: libc::pid_t, mut signal: i32) -> Result<bool, Error> {
        let asked = signal;
        let mut run = || {
            while !stop_by(pid, signal)? {
                if signal == libc::SIGSTOP {
                    return Err(io::Error::other("SIGSTOP has no effect"));
                }
                signal = libc::SIGSTOP;
            }
            swap_mask(pid, u64::MAX)?;
            let others = self
                .threads
                .iter()
                .filter(|(t, o)| o.of == pid && **t != pid);
            for (other, _) in others {
                to_event_stop(*other)?;
            }
            Ok(())
        };
        run().map_err(|e| self.lost(pid, "leaving it stopped", e))?;
        self.processes.entry(pid).or_default().held = true;
        Ok(signal == asked)
    }

    /// True if somebody stopped a process while it was being restored, and nobody let it go on again. A SIGCONT waits, as
    /// every signal does here, unless a later SIGSTOP takes it away: the one by which a thread says that it leaves, too,
    /// so what was seen of it counts as well.
    pub fn was_stopped(&self, pid: libc::pid_t) -> bool {
        let stop = self.processes.get(&pid).is_some_and(|p| p.stop);
        stop && os::pending_signals(pid).is_none_or(|p| p & bit(libc::SIGCONT) == 0)
    }

    /// All is done but to let them go. One process ends or lives as a whole in any case; several are watched over.
    ///
    /// # Errors
    /// That cannot be done.
    pub fn ready(&mut self) -> Result<(), Error> {
        if self.processes.len() > 1 {
            let pids: Vec<libc::pid_t> = self.processes.keys().copied().collect();
            self.guard = Some(Guard::post(&pids)?);
        }
        Ok(())
    }

    /// Give all threads their masks back and let them go: into the program, or as stopped as they are. A thread that was
    /// killed meanwhile is nobody's concern.
    ///
    /// Until all can do without this process, each ends with it or by the guard. Then the guard is told; who has not been
    /// let go of by then, the kernel lets go when this process ends.
    pub fn release(mut self) {
        for (pid, process) in &self.processes {
            let lost = || os::pending_signals(*pid).is_some_and(|p| p & bit(libc::SIGCONT) == 0);
            if process.go_on && !process.held && lost() {
                // What said that a thread leaves has taken it away.
                // SAFETY: numbers only; it is ours until the next lines.
                unsafe { libc::kill(*pid, libc::SIGCONT) };
            }
        }
        for (tid, thread) in &self.threads {
            if let Some((mask, _)) = thread.parked {
                let _ = swap_mask(*tid, mask);
            }
            let _ = ptrace(SETOPTIONS, *tid, 0, 0);
        }
        let _guard = self.guard.take().map(Guard::dismiss);
        for tid in self.threads.keys() {
            let _ = ptrace(DETACH, *tid, 0, 0);
        }
    }
}

/// Let a leader that is parked take this signal. True if its process stops.
fn stop_by(pid: libc::pid_t, signal: i32) -> io::Result<bool> {
    // SAFETY: numbers only; the thread is ours.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGSTOP) };
    os::check_long(sent)?;
    ptrace(CONT, pid, 0, 0)?;
    let mut taken = false;
    loop {
        match next(pid)? {
            Event::Stop(libc::SIGSTOP, 0) => {
                taken = true;
                swap_mask(pid, !bit(signal))?;
                // Should it have no effect, it must not run all the same.
                ptrace(INTERRUPT, pid, 0, 0)?;
                ptrace(CONT, pid, 0, usize::try_from(signal).unwrap_or(0))?;
            }
            Event::Stop(by, EVENT_STOP) if taken => return Ok(by == signal),
            Event::Stop(..) => ptrace(CONT, pid, 0, 0)?,
            Event::End(status) => return Err(io::Error::other(Gone { tid: pid, status })),
        }
    }
}

/// A signal's place in a mask.
fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The process of a thread that was not seen before.
fn leader_of(tid: libc::pid_t) -> io::Result<libc::pid_t> {
    os::thread_group(tid).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

/// The registers of a thread of another process: it is stopped for a moment if it runs, and stays stopped if it was.
///
/// # Errors
/// It may not be traced, or is traced already.
pub fn look(tid: libc::pid_t) -> io::Result<Seen> {
    ptrace(SEIZE, tid, 0, 0)?;
    let mut pass = 0;
    let seen = (|| {
        ptrace(INTERRUPT, tid, 0, 0)?;
        match next(tid)? {
            Event::Stop(signal, 0) => pass = usize::try_from(signal).unwrap_or(0),
            Event::Stop(..) => {}
            Event::End(status) => return Err(io::Error::other(Gone { tid, status })),
        }
        Ok(Seen {
            regs: regs(tid)?,
            vfp: words(GETVFPREGS, tid, 0)?,
            tls: words::<1>(GET_THREAD_AREA, tid, 0)?[0],
        })
    })();
    let _ = ptrace(DETACH, tid, 0, pass);
    seen
}
