//! Tasks and threads.

use super::{Fd, Mm, PageMap};

/// State of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Alive.
    Alive,
    /// A zombie with its wait status.
    Dead {
        /// As `wait` reports it.
        exit_code: u32,
    },
    /// Stopped by this signal (0 = not recorded).
    Stopped {
        /// Signal number.
        signo: u32,
    },
}

/// One process.
#[derive(Clone, Debug)]
pub struct Task {
    /// Process id.
    pub pid: u32,
    /// Parent; 0 for the root of the tree.
    pub ppid: u32,
    /// Process group.
    pub pgid: u32,
    /// Session.
    pub sid: u32,
    /// State.
    pub state: TaskState,
    /// Name, at most 15 bytes without NUL.
    pub comm: String,
    /// The rest, absent for a zombie.
    pub live: Option<LiveTask>,
}

/// What a task may share with others, by the dumper's numbers; `None` = not recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Address space (CLONE_VM).
    pub vm: Option<u32>,
    /// Directories and umask (CLONE_FS).
    pub fs: Option<u32>,
    /// Signal actions (CLONE_SIGHAND).
    pub sighand: Option<u32>,
}

/// What a task that is not a zombie owns.
#[derive(Clone, Debug)]
pub struct LiveTask {
    /// Personality word, its hex digits repaired; `None` if the recorded number cannot be hex digits.
    pub personality: Option<u32>,
    /// Interval timers: real, virtual, prof; `[interval s, interval us, value s, value us]`. All zero = off.
    pub itimers: [[u64; 4]; 3],
    /// POSIX timers.
    pub posix_timers: Vec<PosixTimer>,
    /// `(cur, max)` by resource number; `u64::MAX` = infinity.
    pub rlimits: Vec<(u64, u64)>,
    /// Shared pending queue: siginfo as ARM lays it out.
    pub pending: Vec<[u8; 128]>,
    /// Actions of signals 1 to 64 without 9 and 19.
    pub sigactions: Vec<(u32, SigAction)>,
    /// loginuid, `None` = unset.
    pub loginuid: Option<u32>,
    /// oom_score_adj.
    pub oom_score_adj: Option<i32>,
    /// Child subreaper.
    pub child_subreaper: bool,
    /// Registered membarrier commands.
    pub membarrier: u32,
    /// Where the task sat, if not in the dumper's own cgroups. An empty list: somewhere else, but nobody recorded where.
    pub cgroups: Option<Vec<Cgroup>>,
    /// A thread that sat in other cgroups than the leader.
    pub thread_apart: Option<u32>,
    /// Threads, the leader first.
    pub threads: Vec<Thread>,
    /// The address space.
    pub mm: Mm,
    /// Present pages of private memory.
    pub pages: PageMap,
    /// Descriptors, ascending by number.
    pub fds: Vec<Fd>,
    /// Number of the descriptor table (shared tables have the same).
    pub files_id: u32,
    /// Numbers of the address space, the fs state (directories, umask) and the table of signal actions, as `kcmp` told
    /// them apart: who shares one has the same.
    pub shares: Shares,
    /// File id of the working directory.
    pub cwd: u32,
    /// File id of the root directory.
    pub root: u32,
    /// umask.
    pub umask: Option<u32>,
}

impl LiveTask {
    /// Its descriptor with this number.
    pub fn fd(&self, number: u32) -> Option<&Fd> {
        let at = self.fds.binary_search_by_key(&number, |f| f.fd);
        at.ok().and_then(|i| self.fds.get(i))
    }
}

/// A control group, as a line of `/proc/PID/cgroup` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its controllers or the name of its hierarchy ("cpu,cpuacct", "name=systemd"); empty for version 2.
    pub controllers: String,
    /// Absolute, without `..`.
    pub path: String,
}

/// One `struct sigaction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SigAction {
    /// Handler, 0 default, 1 ignore.
    pub handler: u32,
    /// SA_ flags.
    pub flags: u32,
    /// Restorer.
    pub restorer: u32,
    /// Mask, bit n-1 = signal n.
    pub mask: u64,
}

/// A POSIX timer as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of the image, by their names there")]
pub struct PosixTimer {
    pub id: u32,
    pub clock: u32,
    pub signo: u32,
    pub notify: u32,
    pub value: u64,
    pub overrun: u32,
    pub interval: (u64, u64),
    pub remaining: (u64, u64),
    pub thread: Option<u32>,
}

/// One thread.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Thread id.
    pub tid: u32,
    /// r0 to r10, fp, ip, sp, lr, pc, cpsr, orig_r0.
    pub regs: [u32; 18],
    /// d0 to d31.
    pub vfp: [u64; 32],
    /// FPSCR.
    pub fpscr: u32,
    /// TPIDRURO.
    pub tls: u32,
    /// `set_tid_address` argument.
    pub clear_tid: u32,
    /// Robust list head and length (0 = none).
    pub robust: (u32, u32),
    /// Signal mask.
    pub sigmask: u64,
    /// Alternate stack: sp, size, flags.
    pub altstack: Option<(u32, u32, u32)>,
    /// Name.
    pub comm: Option<String>,
    /// Nice.
    pub nice: Option<i32>,
    /// Scheduling policy and real-time priority.
    pub sched: Option<(u32, u32)>,
    /// Parent-death signal, 0 = none.
    pub pdeath: u32,
    /// Private pending queue.
    pub pending: Vec<[u8; 128]>,
    /// rseq: pointer, size, signature, cs pointer.
    pub rseq: Option<(u32, u32, u32, u64)>,
    /// The restartable sequence that the area names: the thread may be in it.
    pub rseq_cs: Option<RseqCs>,
    /// Credentials.
    pub creds: Option<Creds>,
    /// seccomp mode (0 off, 1 strict, 2 filters) and the index of the oldest filter.
    pub seccomp: (u32, Option<u32>),
}

/// A restartable sequence (`struct rseq_cs`, include/uapi/linux/rseq.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RseqCs {
    /// As the dumped memory has it.
    Section {
        /// First instruction.
        start: u32,
        /// Bytes up to where it is done.
        len: u32,
        /// Where it goes on when it is interrupted.
        abort: u32,
        /// When it is not restarted; an old interface.
        flags: u32,
    },
    /// Its description, here, lies in memory that was not dumped.
    Unreadable(u32),
}

/// Credentials of a thread.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields of the image, by their names there")]
pub struct Creds {
    pub uid: u32,
    pub gid: u32,
    pub euid: u32,
    pub egid: u32,
    pub suid: u32,
    pub sgid: u32,
    pub fsuid: u32,
    pub fsgid: u32,
    pub cap_inh: u64,
    pub cap_prm: u64,
    pub cap_eff: u64,
    pub cap_bnd: u64,
    pub cap_amb: u64,
    pub securebits: u32,
    pub groups: Vec<u32>,
    pub no_new_privs: bool,
    /// Profile or label of a security module, if there is one and it confines.
    pub lsm_profile: Option<String>,
    /// True if the dumper's 16-bit id calls lost the ids (fsuid of 65536 or more).
    pub ids_lost: bool,
}
