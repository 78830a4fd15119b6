//! The processes of a tree: born where they belong, brought into their groups, ended where they only stand in for
//! somebody. What each of them does is decided in `armrest_plan::tree`; here it is done, stage by stage.
//!
//! All stages are met at a [`Board`], memory that all processes share. The harness opens one stage after the other, and
//! none if something went wrong: then everybody is killed. Whoever loses the harness ends by itself.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use armrest_images::{Checkpoint, TaskState};
use armrest_plan::Machine;
use armrest_plan::tree::{Act, Group, Node, Role, Tree};

use crate::error::Error;
use crate::hold::Held;
use crate::load::write_raw;
use crate::os;
use crate::pid::{self, Side};
use crate::shared::{Words, futex};
use crate::task::FAILED;

/// A stage that all, or all of a kind, come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Everybody is born.
    Born,
    /// Leaders lead their groups.
    Lead,
    /// A round of joining is over.
    Joined(usize),
    /// Stand-ins are gone, and reaped.
    Alone,
    /// Zombies are dead.
    Settled,
    /// If any share a descriptor table: nobody uses anything any more that lies in a table.
    Idle,
    /// All tables are as they were.
    Placed,
}

impl Stage {
    /// All stages of a tree, in order.
    pub fn of(tree: &Tree) -> Vec<Stage> {
        let mut stages = vec![Stage::Born, Stage::Lead];
        stages.extend((0..tree.rounds).map(Stage::Joined));
        stages.extend([Stage::Alone, Stage::Settled]);
        if tree.sharers() > 0 {
            stages.extend([Stage::Idle, Stage::Placed]);
        }
        stages
    }

    /// How many come to it.
    pub fn members(self, tree: &Tree) -> u32 {
        let counts = |n: &&Node| match self {
            Stage::Born | Stage::Lead | Stage::Joined(_) => true,
            Stage::Alone => n.role != Role::StandIn,
            Stage::Settled | Stage::Idle | Stage::Placed => matches!(n.role, Role::Task(_)),
        };
        u32::try_from(tree.nodes.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }
}

/// Memory that the harness and all processes of the tree share: how far the tree is, how many are where, who is who.
#[derive(Debug)]
pub struct Board {
    words: Words,
    stages: usize,
    nodes: usize,
}

impl Board {
    /// A board for `tree`.
    ///
    /// # Errors
    /// No memory.
    pub fn new(tree: &Tree) -> Result<Board, Error> {
        let (stages, nodes) = (Stage::of(tree).len(), tree.nodes.len());
        let words = Words::new(1 + stages + nodes).map_err(|e| Error::Machine {
            what: "memory for the processes of a tree".into(),
            why: e.to_string(),
        })?;
        Ok(Board {
            words,
            stages,
            nodes,
        })
    }

    /// How many stages are open.
    fn open(&self) -> &AtomicU32 {
        self.words.get(0)
    }

    fn arrived(&self, stage: usize) -> &AtomicU32 {
        self.words.get(1 + stage)
    }

    /// The pid of a node as it is now; 0 = not born.
    pub fn pid(&self, node: usize) -> &AtomicU32 {
        self.words.get(1 + self.stages + node)
    }

    /// A node is born: said by whoever knows first, itself or its maker.
    pub fn enter(&self, node: usize, pid: libc::pid_t) {
        self.pid(node).store(pid.cast_unsigned(), Ordering::Release);
    }

    /// The pid of a node, if it is born and not reaped.
    pub fn born(&self, node: usize) -> Option<libc::pid_t> {
        let pid = libc::pid_t::try_from(self.pid(node).load(Ordering::Acquire));
        pid.ok().filter(|p| *p > 0)
    }

    /// The pids of all that are born.
    pub fn pids(&self) -> Vec<libc::pid_t> {
        (0..self.nodes)
            .map(|n| self.pid(n).load(Ordering::Acquire))
            .filter_map(|p| libc::pid_t::try_from(p).ok().filter(|p| *p > 0))
            .collect()
    }

    /// Come to a stage of `tree`, and wait until it is open.
    pub fn come(&self, tree: &Tree, stage: Stage, harness: libc::pid_t) {
        if let Some(i) = Stage::of(tree).iter().position(|s| *s == stage) {
            self.meet(i, harness);
        }
    }

    fn meet(&self, stage: usize, harness: libc::pid_t) {
        self.arrived(stage).fetch_add(1, Ordering::AcqRel);
        futex(self.arrived(stage), libc::FUTEX_WAKE, 1, None);
        let wanted = u32::try_from(stage + 1).unwrap_or(u32::MAX);
        loop {
            let open = self.open().load(Ordering::Acquire);
            if open >= wanted {
                return;
            }
            futex(self.open(), libc::FUTEX_WAIT, open, Some(self.patience()));
            // SAFETY: signal 0 only asks whether the process is there.
            if unsafe { libc::kill(harness, 0) } != 0 {
                // SAFETY: ends this process alone, without exit handlers.
                unsafe { libc::_exit(FAILED) }
            }
        }
    }

    /// How long to wait before the harness is looked for: all that wait do so, and should not do it most of the time.
    fn patience(&self) -> Duration {
        let each = Duration::from_millis(4);
        let all = each * u32::try_from(self.nodes).unwrap_or(u32::MAX);
        all.clamp(Duration::from_millis(200), Duration::from_secs(10))
    }

    /// Wait until `members` have come to `stage`; `look` is asked again and again whether to go on waiting.
    ///
    /// # Errors
    /// What `look` says.
    pub fn gather(
        &self,
        stage: usize,
        members: u32,
        look: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            let here = self.arrived(stage).load(Ordering::Acquire);
            if here >= members {
                return Ok(());
            }
            look()?;
            let wait = Duration::from_millis(10);
            futex(self.arrived(stage), libc::FUTEX_WAIT, here, Some(wait));
        }
    }

    /// Let everybody go on from `stage`.
    pub fn release(&self, stage: usize) {
        let open = u32::try_from(stage + 1).unwrap_or(u32::MAX);
        self.open().store(open, Ordering::Release);
        futex(
            self.open(),
            libc::FUTEX_WAKE,
            i32::MAX.cast_unsigned(),
            None,
        );
    }
}

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
                let words = format!("pid {pid}: {what}: {e}");
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
        let mut stages = (0..).zip(Stage::of(self.tree));
        let mut meet = || {
            if let Some((i, _)) = stages.next() {
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
