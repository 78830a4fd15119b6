//! The processes of a tree: born where they belong, brought into their groups, ended where they only stand in for
//! somebody. What each of them does is decided in `armrest_plan::tree`; here it is done, stage by stage.
//!
//! All stages are met at a [`Board`], memory that all processes share. The harness opens one stage after the other, and
//! none if something went wrong: then everybody is killed. Whoever loses the harness ends by itself.

mod board;
mod heap;

pub use board::{Board, Stage};

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::Ordering;

use armrest_images::{Checkpoint, TaskState};
use armrest_plan::Machine;
use armrest_plan::tree::{Act, Group, Node, Role, Tree};

use crate::error::Error;
use crate::hold::Held;
use crate::load::write_raw;
use crate::os;
use crate::pid::{self, Side};
use crate::task::FAILED;

/// What all processes of the tree are told.
pub struct Family<'a> {
    /// Who does what.
    pub tree: &'a Tree,
    /// What they become.
    pub cp: &'a Checkpoint,
    /// Where they meet; none for a tree of one.
    pub board: Option<&'a Board>,
    /// Facts of the machine.
    pub machine: &'a Machine,
    /// Take any pid.
    pub any_pid: bool,
    /// Pid of the harness.
    pub harness: libc::pid_t,
    /// The group in which the harness runs.
    pub group: libc::pid_t,
    /// Where failures are told.
    pub report: &'a OwnedFd,
    /// Who keeps the pids for them under an emulator.
    pub held: Option<&'a Held>,
    /// Where the root waits for a byte: until then the harness is about to trace it, or the emulator is not settled.
    pub go: Option<&'a OwnedFd>,
    /// What the root does before all: give up what was inherited.
    pub prepare: &'a dyn Fn() -> io::Result<()>,
    /// What a process does with the memory that it is born with, before it has children: that of the task of this index.
    pub inherit: &'a dyn Fn(usize) -> Result<(), (String, io::Error)>,
    /// What a process does once it is in its place: it becomes the task of this index, and does not return.
    pub become_task: &'a dyn Fn(usize) -> core::convert::Infallible,
}

impl Family<'_> {
    /// The life of a node from its birth on. Does not return.
    pub fn live(&self, node: usize, bound: bool) -> ! {
        match self.grow(node, bound) {
            Ok(never) => match never {},
            Err((what, e)) => {
                let pid = self.tree.nodes[node].pid;
                let words = format!("pid {pid}: {what}: {e}\n");
                write_raw(self.report, words.as_bytes());
                // SAFETY: ends this process alone, without exit handlers.
                unsafe { libc::_exit(FAILED) }
            }
        }
    }

    fn grow(
        &self,
        node: usize,
        bound: bool,
    ) -> Result<core::convert::Infallible, (String, io::Error)> {
        let n = &self.tree.nodes[node];
        let named = |what: &'static str| move |e: io::Error| (what.to_owned(), e);
        if bound {
            self.bind(node).map_err(named("PR_SET_PDEATHSIG"))?;
        }
        if node == 0 {
            self.wait().map_err(named("waiting for the harness"))?;
        }
        if let Some(b) = self.board {
            // SAFETY: cannot fail.
            b.enter(node, unsafe { libc::getpid() });
        }
        if n.reaper {
            reaper(true).map_err(named("PR_SET_CHILD_SUBREAPER"))?;
        }
        if node == 0 {
            (self.prepare)().map_err(named("closing descriptors"))?;
            if self.board.is_some() && !self.machine.emulated {
                // Without it each fork costs more, and nothing else changes.
                let _ = heap::into_file();
            }
        }
        if let Role::Task(task) = n.role {
            (self.inherit)(task)?;
        }
        for act in &n.acts {
            match *act {
                // SAFETY: no argument.
                Act::SetSid => os::check(unsafe { libc::setsid() })
                    .map(drop)
                    .map_err(named("setsid"))?,
                // SAFETY: numbers only.
                Act::Unshare => os::check(unsafe { libc::unshare(libc::CLONE_FILES) })
                    .map(drop)
                    .map_err(named("unshare(CLONE_FILES)"))?,
                Act::Fork {
                    node,
                    sibling,
                    shared,
                } => self.fork(n, node, sibling, shared)?,
            }
        }
        let Some(board) = self.board else {
            self.group_alone(n).map_err(named("setpgid"))?;
            self.settle(n);
        };
        let mut stages = 0..board.stages().len();
        let mut meet = || {
            if let Some(i) = stages.next() {
                board.meet(i, self.harness);
            }
        };
        meet();
        if n.leads {
            self.setpgid(0).map_err(named("setpgid(0, 0)"))?;
        }
        meet();
        for round in 0..self.tree.rounds {
            if n.round == round {
                match n.group {
                    Group::Born => {}
                    Group::Join(g) => self.join(g).map_err(named("setpgid"))?,
                    Group::Callers => self.setpgid(self.group).map_err(named("setpgid"))?,
                }
            }
            meet();
        }
        self.reap(n, board).map_err(named("a stand-in's end"))?;
        if n.role == Role::StandIn {
            // SAFETY: ends this process alone, without exit handlers.
            unsafe { libc::_exit(0) }
        }
        meet();
        self.parent_is(node, board)
            .map_err(named("the parent is not the checkpoint's"))?;
        if !bound {
            self.bind(node).map_err(named("PR_SET_PDEATHSIG"))?;
        }
        if n.reaper {
            reaper(false).map_err(named("PR_SET_CHILD_SUBREAPER"))?;
        }
        self.see_dead(n, board).map_err(named("a zombie's end"))?;
        if let Role::Zombie(task) = n.role {
            self.end(task)
        }
        meet();
        self.settle(n)
    }

    /// In its place. Deaths on the way have left a signal, which is not one of the checkpoint's.
    fn settle(&self, n: &Node) -> ! {
        // SAFETY: the default action is no handler; setting it discards what is pending.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        match n.role {
            Role::Task(task) => match (self.become_task)(task) {},
            Role::Zombie(task) => self.end(task),
            // SAFETY: ends this process alone, without exit handlers.
            Role::StandIn => unsafe { libc::_exit(0) },
        }
    }

    /// Should its parent die, the process must not stay. A parent that is dead already is seen.
    fn bind(&self, node: usize) -> io::Result<()> {
        // SAFETY: numbers only.
        os::check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        // SAFETY: cannot fail.
        let parent = unsafe { libc::getppid() };
        // Orphans fall to the harness, which is a subreaper, or to an init.
        let orphan = if node == 0 {
            parent != self.harness
        } else {
            parent == self.harness || parent == 1 && self.harness != 1
        };
        if orphan {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    }

    fn wait(&self) -> io::Result<()> {
        let Some(go) = self.go else { return Ok(()) };
        let mut byte = 0u8;
        // SAFETY: one byte, writable.
        let n = unsafe { libc::read(go.as_raw_fd(), (&raw mut byte).cast(), 1) };
        if n == 1 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Whoever lost its parent has the right one now.
    fn parent_is(&self, node: usize, board: &Board) -> io::Result<()> {
        let (Role::Task(task) | Role::Zombie(task)) = self.tree.nodes[node].role else {
            return Ok(());
        };
        let ppid = self.cp.tasks.get(task).map_or(0, |t| t.ppid);
        let Some(parent) = self.tree.nodes.iter().position(|n| n.pid == ppid) else {
            return Ok(());
        };
        // SAFETY: cannot fail.
        let now = unsafe { libc::getppid() }.cast_unsigned();
        if now == board.pid(parent).load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    }

    fn fork(
        &self,
        maker: &Node,
        node: usize,
        sibling: bool,
        shared: bool,
    ) -> Result<(), (String, io::Error)> {
        let want = self.tree.nodes[node].pid;
        let failed = |e: Error| {
            (
                format!("fork of pid {want}"),
                io::Error::other(e.to_string()),
            )
        };
        let lock = match self.held {
            Some(held) => Some(held.free(want).map_err(failed)?),
            None => None,
        };
        let wanted = (!self.any_pid).then_some(want);
        let parent = if sibling { libc::CLONE_PARENT } else { 0 };
        let files = if shared { libc::CLONE_FILES } else { 0 };
        match pid::fork(wanted, self.machine, parent | files).map_err(failed)? {
            Side::Child => {
                // It is the maker's, who gives it back once the emulator is settled here.
                std::mem::forget(lock);
                // A stand-in that is a parent will be gone before its child becomes a task.
                self.live(node, sibling || maker.role != Role::StandIn)
            }
            Side::Parent(pid, _) => {
                // Its own entry may never come: it can die before.
                if let Some(board) = self.board {
                    board.enter(node, pid);
                }
                if let Some(held) = self.held {
                    held.settled(pid);
                }
                drop(lock);
                Ok(())
            }
        }
    }

    fn setpgid(&self, group: libc::pid_t) -> io::Result<()> {
        // SAFETY: numbers only.
        os::check(unsafe { libc::setpgid(0, group) }).map(drop)
    }

    /// Join the group of this number of the checkpoint.
    fn join(&self, group: u32) -> io::Result<()> {
        let leader = self.tree.nodes.iter().position(|n| n.pid == group);
        let now = leader
            .zip(self.board)
            .map(|(l, b)| b.pid(l).load(Ordering::Acquire));
        self.setpgid(now.unwrap_or(group).cast_signed())
    }

    /// A tree of one has its group by itself, or the caller's.
    fn group_alone(&self, n: &Node) -> io::Result<()> {
        if n.leads { self.setpgid(0) } else { Ok(()) }
    }

    fn reap(&self, n: &Node, board: &Board) -> io::Result<()> {
        for e in &n.reaps {
            let pid = board.pid(*e).load(Ordering::Acquire).cast_signed();
            // SAFETY: our own child; no status is asked for.
            os::check(unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) })?;
            // The number may be anybody's from now on.
            board.pid(*e).store(0, Ordering::Release);
        }
        Ok(())
    }

    fn see_dead(&self, n: &Node, board: &Board) -> io::Result<()> {
        for e in &n.zombies {
            let pid = board.pid(*e).load(Ordering::Acquire);
            let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::uninit();
            // SAFETY: our own child; `info` is writable; WNOWAIT leaves it as it is.
            os::check(unsafe {
                libc::waitid(
                    libc::P_PID,
                    pid,
                    info.as_mut_ptr(),
                    libc::WEXITED | libc::WNOWAIT,
                )
            })?;
            // SAFETY: the call has filled it.
            let now = os::wait_status(unsafe { info.assume_init_ref() });
            let Role::Zombie(task) = self.tree.nodes[*e].role else {
                continue;
            };
            // No core is written, whatever was then.
            if now.cast_unsigned() != self.end_of(task) & !0x80 {
                let pid = self.tree.nodes[*e].pid;
                return Err(io::Error::other(format!(
                    "pid {pid} has the status {now:#x}"
                )));
            }
        }
        Ok(())
    }

    /// The status with which this zombie ended.
    fn end_of(&self, task: usize) -> u32 {
        match self.cp.tasks.get(task).map(|t| &t.state) {
            Some(TaskState::Dead { exit_code }) => *exit_code,
            _ => 0,
        }
    }

    /// End as this zombie ended. Does not return.
    fn end(&self, task: usize) -> ! {
        let Some(t) = self.cp.tasks.get(task) else {
            // SAFETY: ends this process alone.
            unsafe { libc::_exit(FAILED) }
        };
        let code = self.end_of(task);
        let mut name = [0u8; 16];
        for (to, from) in name.iter_mut().zip(t.comm.bytes().take(15)) {
            *to = from;
        }
        let signo = (code & 0x7f).cast_signed();
        // SAFETY: the name ends with NUL; numbers else. A limit of 0 keeps the kernel from writing a core; the signal is
        // unblocked and has its default action, so the process ends here.
        unsafe {
            libc::prctl(libc::PR_SET_NAME, name.as_ptr());
            if signo != 0 {
                let none = libc::rlimit {
                    rlim_cur: 0,
                    rlim_max: 0,
                };
                libc::setrlimit(libc::RLIMIT_CORE, &none);
                libc::signal(signo, libc::SIG_DFL);
                libc::kill(libc::getpid(), signo);
                let _ = os::signal_mask(0);
            }
            libc::_exit((code >> 8 & 0xff).cast_signed())
        }
    }
}

fn reaper(on: bool) -> io::Result<()> {
    // SAFETY: numbers only.
    os::check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(on)) })
        .map(drop)
}

/// Make this process the one to which the orphans of a failed tree fall, or no longer.
///
/// # Errors
/// The kernel cannot (before 3.4, or an emulator): then the parent-death signal alone ends them.
pub fn catch_orphans(on: bool) -> io::Result<()> {
    reaper(on)
}
