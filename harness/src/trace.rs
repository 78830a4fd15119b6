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
use crate::os;
use crate::watch::Ended;

const GETREGS: u32 = 12;
const SETREGS: u32 = 13;
const GET_THREAD_AREA: u32 = 22;
const GETVFPREGS: u32 = 27;
const CONT: u32 = 7;
const DETACH: u32 = 17;
const SYSCALL: u32 = 24;
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

/// Let a thread go on until its next event stop. Other signals than SIGSTOP cannot come: they are blocked.
fn to_event_stop(tid: libc::pid_t, request: u32, signal: i32) -> io::Result<()> {
    let mut signal = usize::try_from(signal).unwrap_or(0);
    loop {
        ptrace(request, tid, 0, signal)?;
        match next(tid)? {
            Event::Stop(_, EVENT_STOP) => return Ok(()),
            Event::Stop(libc::SIGSTOP, 0) => signal = 0,
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
    /// In `rt_sigreturn`.
    Leaving,
    /// Stopped at its exit: the registers are the program's.
    Out,
}

/// A thread that is traced.
#[derive(Clone, Copy, Debug)]
struct Thread {
    at: At,
    /// The program's mask and registers, once it is parked.
    parked: Option<(u64, Regs)>,
}

/// The task as its tracer sees it.
#[derive(Debug)]
pub struct Tracer {
    leader: libc::pid_t,
    threads: BTreeMap<libc::pid_t, Thread>,
    /// Somebody sent a SIGSTOP meanwhile: it shall have its effect.
    stop: bool,
    held: bool,
    /// Status of the leader, once it was waited for here.
    ended: Option<Ended>,
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
    pub fn seize(pid: libc::pid_t, suspend_filters: bool) -> Result<Tracer, Error> {
        let mut options = O_TRACESYSGOOD | O_TRACECLONE | O_EXITKILL;
        if suspend_filters {
            options |= O_SUSPEND_SECCOMP;
        }
        ptrace(SEIZE, pid, 0, options).map_err(failed("PTRACE_SEIZE"))?;
        let first = Thread {
            at: At::Running,
            parked: None,
        };
        Ok(Tracer {
            leader: pid,
            threads: BTreeMap::from([(pid, first)]),
            stop: false,
            held: false,
            ended: None,
        })
    }

    /// Take all events that there are. The status of the leader if it has ended.
    ///
    /// # Errors
    /// A thread cannot be followed.
    pub fn follow(&mut self) -> Result<Option<i32>, Error> {
        while let Some((tid, event)) = event(-1) {
            match event {
                Event::End(status) if tid == self.leader => return Ok(Some(status)),
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
        let thread = self.threads.entry(tid).or_insert(Thread {
            at: At::Running,
            parked: None,
        });
        if signal == AT_CALL {
            let r = regs(tid)?;
            // `ip` is 0 where a call begins and 1 where it ends.
            if r[IP] == 0 && r[7] == NR_RT_SIGRETURN {
                thread.at = At::Leaving;
            } else if r[IP] == 1 && thread.at == At::Leaving {
                thread.at = At::Out;
                return Ok(());
            }
            return ptrace(SYSCALL, tid, 0, 0);
        }
        let mut pass = 0;
        if event == EVENT_STOP {
            // A new thread, or a stop of the whole group.
            self.stop |= signal != libc::SIGTRAP;
        } else if event == 0 && signal == libc::SIGSTOP {
            if words::<32>(GETSIGINFO, tid, 0)?[2] == SI_QUEUE {
                thread.at = At::Following;
            } else {
                self.stop = true;
            }
        } else if event == 0 {
            // All others are blocked: the kernel forced it upon a thread that went wrong.
            pass = usize::try_from(signal).unwrap_or(0);
        }
        let on = if thread.at == At::Running {
            CONT
        } else {
            SYSCALL
        };
        ptrace(on, tid, 0, pass)
    }

    /// Threads that have left the restore for the program.
    pub fn out(&self) -> usize {
        self.threads.values().filter(|t| t.at == At::Out).count()
    }

    /// Let everybody go on: the restore has failed, and its child is to end as it likes.
    pub fn give_up(&mut self) {
        for tid in self.threads.keys() {
            let _ = ptrace(CONT, *tid, 0, 0);
        }
    }

    /// Bring all threads to where registers can be read and written, with every signal blocked.
    ///
    /// # Errors
    /// One of them is gone.
    pub fn park(&mut self) -> Result<(), Error> {
        let mut run = || {
            for (tid, thread) in &mut self.threads {
                let mask = swap_mask(*tid, u64::MAX)?;
                ptrace(INTERRUPT, *tid, 0, 0)?;
                to_event_stop(*tid, CONT, 0)?;
                thread.parked = Some((mask, regs(*tid)?));
            }
            Ok(())
        };
        run().map_err(|e| self.lost("stopping it at its first instruction", e))
    }

    /// Why a request failed: the task was killed meanwhile, or the kernel does not do it.
    fn lost(&mut self, what: &'static str, e: io::Error) -> Error {
        let gone = e.get_ref().and_then(|g| g.downcast_ref::<Gone>()).copied();
        if gone.is_none() && e.raw_os_error() != Some(libc::ESRCH) {
            return failed(what)(e);
        }
        let leader = self.leader;
        let mut end = gone.filter(|g| g.tid == leader).map(|g| g.status);
        let start = Instant::now();
        while end.is_none() && start.elapsed() < STEP_TIME {
            match event(-1) {
                Some((tid, Event::End(status))) if tid == leader => end = Some(status),
                Some((tid, Event::Stop(..))) => {
                    let _ = ptrace(CONT, tid, 0, 0);
                }
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        self.ended = end.and_then(Ended::of);
        Error::Lost {
            what: format!("the task, while {what}"),
            why: self
                .ended
                .map_or_else(|| "it is not there any more".into(), Ended::words),
        }
    }

    /// How the task ended, if that was seen here and nowhere else.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Let the leader unmap `range`, by the `svc` at that address of the range itself: it never comes back there.
    ///
    /// # Errors
    /// It cannot, or the kernel refuses.
    pub fn unmap(&mut self, range: Range, svc: u32) -> Result<(), Error> {
        const JAZELLE_IT_ENDIAN_THUMB: u32 = 1 << 24 | 3 << 25 | 0x3f << 10 | 1 << 9 | 1 << 5;
        let tid = self.leader;
        let Some((_, own)) = self.threads.get(&tid).and_then(|t| t.parked) else {
            return Err(Error::Internal {
                what: "ptrace of the restored task".into(),
                why: "the leader is not parked".into(),
            });
        };
        let mut call = own;
        (call[0], call[1], call[7], call[PC]) = (range.start, range.len(), NR_MUNMAP, svc);
        call[CPSR] &= !JAZELLE_IT_ENDIAN_THUMB;
        let run = || {
            set_regs(tid, &call)?;
            let begun = self.to_call(tid)?;
            if begun[IP] != 0 || begun[7] != NR_MUNMAP {
                return Err(io::Error::other("it makes another call than munmap"));
            }
            let done = self.to_call(tid)?;
            ptrace(INTERRUPT, tid, 0, 0)?;
            to_event_stop(tid, CONT, 0)?;
            set_regs(tid, &own)?;
            match done[0].cast_signed() {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(-error)),
            }
        };
        run().map_err(|e| self.lost("unmapping the last page of ours in it", e))
    }

    /// To the next begin or end of a call.
    fn to_call(&self, tid: libc::pid_t) -> io::Result<Regs> {
        loop {
            ptrace(SYSCALL, tid, 0, 0)?;
            match next(tid)? {
                Event::Stop(AT_CALL, _) => return regs(tid),
                Event::Stop(..) => {}
                Event::End(status) => return Err(io::Error::other(Gone { tid, status })),
            }
        }
    }

    /// Stop the whole task as SIGSTOP does, with no other signal taken before.
    ///
    /// # Errors
    /// It is gone.
    pub fn hold(&mut self) -> Result<(), Error> {
        let run = || {
            let tid = self.leader;
            // SAFETY: numbers only; the thread is ours.
            let sent = unsafe { libc::syscall(libc::SYS_tgkill, tid, tid, libc::SIGSTOP) };
            os::check_long(sent)?;
            ptrace(CONT, tid, 0, 0)?;
            loop {
                match next(tid)? {
                    Event::Stop(libc::SIGSTOP, EVENT_STOP) => break,
                    Event::Stop(libc::SIGSTOP, 0) => {
                        ptrace(CONT, tid, 0, libc::SIGSTOP.cast_unsigned() as usize)?;
                    }
                    Event::Stop(..) => ptrace(CONT, tid, 0, 0)?,
                    Event::End(status) => return Err(io::Error::other(Gone { tid, status })),
                }
            }
            for other in self.threads.keys().filter(|t| **t != tid) {
                to_event_stop(*other, CONT, 0)?;
            }
            Ok(())
        };
        run().map_err(|e| self.lost("leaving it stopped", e))?;
        self.held = true;
        Ok(())
    }

    /// True if somebody stopped the task while it was being restored,
    /// and nobody let it go on again. A SIGCONT waits, as every signal does here, and a later SIGSTOP takes it away.
    /// So does the one by which a thread says that it leaves: a SIGCONT before that is not known, and the task stays
    /// stopped.
    pub fn was_stopped(&self) -> bool {
        const SIGCONT: u64 = 1 << 17;
        self.stop && os::pending_signals(self.leader).is_none_or(|p| p & SIGCONT == 0)
    }

    /// Give all threads their masks back and let them go: into the program, or as stopped as they are. A thread that was
    /// killed meanwhile is nobody's concern.
    pub fn release(self) {
        for (tid, thread) in &self.threads {
            if let Some((mask, _)) = thread.parked {
                let _ = swap_mask(*tid, mask);
            }
            let _ = ptrace(DETACH, *tid, 0, 0);
        }
    }
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
