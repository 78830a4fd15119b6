//! The checked checkpoint: types in which an invalid checkpoint cannot be written down.
//!
//! Made by [`crate::load`] alone. VMAs are sorted, apart, page-aligned and cannot wrap; every id resolves; every run
//! of pages lies in a VMA or segment and in its pages file. What a *restorer* does not support is still represented
//! here: refusing by name is the plan's business.

use std::collections::BTreeMap;

use crate::kinds::{
    Epoll, Eventfd, FifoEnd, FileLock, Ghost, Inotify, PipeContents, PipeEnd, Remap, Signalfd,
    Timerfd,
};
use crate::sockets::{Packet, Socket};
use crate::terminals::{Terminal, TerminalFile};

/// Bytes of a page.
pub const PAGE: u32 = 4096;

/// A page-aligned range of target addresses; `start < end`, made only by [`AddrRange::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrRange {
    start: u32,
    end: u32,
}

impl AddrRange {
    /// A range if both ends are page-aligned, `start < end` and `end` fits (the last page of 4 GiB is not expressible).
    pub fn new(start: u64, end: u64) -> Option<AddrRange> {
        let (s, e) = (u32::try_from(start).ok()?, u32::try_from(end).ok()?);
        (s < e && s.is_multiple_of(PAGE) && e.is_multiple_of(PAGE))
            .then_some(AddrRange { start: s, end: e })
    }
    /// First byte.
    pub const fn start(self) -> u32 {
        self.start
    }
    /// One past the last byte.
    pub const fn end(self) -> u32 {
        self.end
    }
    /// Bytes, more than 0.
    pub const fn size(self) -> u32 {
        self.end - self.start
    }
    /// Pages, more than 0.
    pub const fn pages(self) -> u32 {
        self.size() / PAGE
    }
    /// True if the ranges share a byte.
    pub const fn overlaps(self, other: AddrRange) -> bool {
        self.start < other.end && other.start < self.end
    }
    /// True if `addr` lies in the range.
    pub const fn has(self, addr: u32) -> bool {
        self.start <= addr && addr < self.end
    }
}

/// Everything the images tell.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Tasks, parents first.
    pub tasks: Vec<Task>,
    /// Open files and files of mappings, by id.
    pub files: BTreeMap<u32, File>,
    /// Pipes by their number: what was in them.
    pub pipes: BTreeMap<u32, PipeContents>,
    /// FIFOs likewise.
    pub fifos: BTreeMap<u32, PipeContents>,
    /// Deleted files that are still open.
    pub ghosts: BTreeMap<u32, Ghost>,
    /// What waits to be read in unix sockets, in order, by file id of the socket.
    pub packets: BTreeMap<u32, Vec<Packet>>,
    /// Terminals by their number.
    pub terminals: BTreeMap<u32, Terminal>,
    /// Locks on files.
    pub locks: Vec<FileLock>,
    /// SysV shared memory segments of the dumped IPC namespace.
    pub segments: Vec<Segment>,
    /// SysV semaphore sets of that namespace.
    pub semaphores: Vec<SemSet>,
    /// SysV message queues of that namespace.
    pub queues: Vec<Queue>,
    /// Limits of that namespace, if it was dumped.
    pub ipc_limits: Option<IpcLimits>,
    /// Memory objects: memfds and anonymous shared memory written as such (`memfd.img`), by inode id.
    pub memfds: BTreeMap<u32, Memfd>,
    /// Contents of anonymous shared memory recorded without memfd entry, by shmid (inode).
    pub anon_shared: BTreeMap<u64, PageMap>,
    /// Pages files that [`PageRun`]s point into.
    pub pages_files: Vec<PagesFile>,
    /// Filters of system calls, by index; see [`Checkpoint::filter_chain`].
    pub filters: Vec<SeccompFilter>,
    /// True if the task lived in an IPC namespace of its own.
    pub own_ipc_namespace: bool,
    /// Clock readings at the dump, if recorded.
    pub clocks: Option<Clocks>,
    /// What the images hold that no version of armrest looks into, or this reader only names: image kinds and counts
    /// ("tcp-stream", "net namespace of its own"). The plan refuses what matters.
    pub others: Vec<String>,
    /// Bytes of the images that were read (without pages files).
    pub image_bytes: u64,
}

impl Checkpoint {
    /// The filters of a thread whose oldest one is `oldest`, in the order in which they were installed.
    pub fn filter_chain(&self, oldest: u32) -> Vec<&SeccompFilter> {
        let get = |i: u32| self.filters.get(usize::try_from(i).ok()?);
        std::iter::successors(get(oldest), |f| f.newer.and_then(get)).collect()
    }
}

/// A filter of system calls: a classic BPF program over `struct seccomp_data`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeccompFilter {
    /// The program, 1 to 4096 instructions.
    pub program: Vec<BpfInsn>,
    /// The filter that was installed after this one, if any. Chains have an end.
    pub newer: Option<u32>,
    /// `SECCOMP_FILTER_FLAG_*` bits.
    pub flags: u32,
}

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct BpfInsn {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// A pages file of the checkpoint or of a parent checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagesFile {
    /// Path relative to the images directory, e.g. `pages-1.img` or `parent/pages-1.img`.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// Pages that are there: ascending, apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageMap {
    /// The runs.
    pub runs: Vec<PageRun>,
}

/// A run of pages with contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Target address (or byte offset in the shared object), page-aligned.
    pub addr: u64,
    /// Pages, more than 0.
    pub pages: u32,
    /// Index in [`Checkpoint::pages_files`].
    pub file: usize,
    /// Byte offset in that file.
    pub offset: u64,
}

/// CLOCK_MONOTONIC and CLOCK_BOOTTIME at the dump, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Monotonic.
    pub monotonic_ns: u64,
    /// Boot time.
    pub boottime_ns: u64,
}

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

impl Checkpoint {
    /// The ids that the tasks need: the root's pid, then all others and those of threads.
    pub fn ids(&self) -> Vec<u32> {
        let pids = self.tasks.iter().map(|t| t.pid);
        let live = self.tasks.iter().filter_map(|t| t.live.as_ref());
        let threads = live.flat_map(|l| l.threads.iter().skip(1));
        pids.chain(threads.map(|t| t.tid)).collect()
    }
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
#[allow(missing_docs)]
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
#[allow(missing_docs)]
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

/// The address space of a task.
#[derive(Clone, Debug)]
pub struct Mm {
    /// start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end
    /// (the order of `prctl_mm_map`).
    pub fields: [u32; 11],
    /// auxv words.
    pub auxv: Vec<u32>,
    /// File id of the executable.
    pub exe: u32,
    /// Dumpable: 0, 1, 2.
    pub dumpable: Option<u32>,
    /// THP disabled by prctl.
    pub thp_disabled: bool,
    /// AIO contexts: ring address.
    pub aios: Vec<u64>,
    /// Sorted, apart.
    pub vmas: Vec<Vma>,
    /// Guard ranges (pseudo entries).
    pub guards: Vec<AddrRange>,
    /// The string that AT_PLATFORM of the auxiliary vector points to, if its page was dumped.
    pub platform: Option<String>,
    /// Contents of the vdso VMA as dumped, if there is one with all its pages.
    pub vdso: Option<Vec<u8>>,
    /// Contents of the page recognised as sigpage.
    pub sigpage: Option<Vec<u8>>,
    /// Threads with a register or a frame on their stacks that points into that page: they are inside a handler which
    /// returns through it, or in the page itself.
    pub sigpage_users: Vec<u32>,
}

/// What a VMA maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmaKind {
    /// Private anonymous memory, heap and stack included.
    Anon,
    /// The kernel's signal trampoline page of the dumped process.
    Sigpage,
    /// The kernel's vdso.
    Vdso,
    /// Its data page(s).
    Vvar,
    /// `[vectors]`: every process has it.
    Vectors,
    /// A file, private or shared ([`Vma::shared`]).
    File {
        /// File id.
        file: u32,
    },
    /// A memfd or anonymous shared object recorded as memfd, private or shared.
    Memfd {
        /// File id of the MEMFD entry.
        file: u32,
        /// Inode id in [`Checkpoint::memfds`].
        inode: u32,
    },
    /// Anonymous shared memory recorded by inode number.
    AnonShared {
        /// Key in [`Checkpoint::anon_shared`].
        shmid: u64,
    },
    /// Part of a SysV attachment.
    SysV {
        /// Segment id.
        shmid: u32,
    },
    /// The ring of a packet socket.
    Socket,
    /// The ring of an AIO context.
    AioRing,
    /// Device memory of a CRIU plugin.
    Plugin,
}

/// One VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vma {
    /// Where.
    pub range: AddrRange,
    /// What.
    pub kind: VmaKind,
    /// `PROT_*` at the dump.
    pub prot: u32,
    /// MAP_SHARED.
    pub shared: bool,
    /// MAP_GROWSDOWN.
    pub grows_down: bool,
    /// Locked in memory.
    pub locked: bool,
    /// MAP_NORESERVE.
    pub noreserve: bool,
    /// MAP_HUGETLB with log2 of the page size (0 = default size).
    pub hugetlb: Option<u32>,
    /// MAP_DROPPABLE.
    pub droppable: bool,
    /// Marked as heap.
    pub heap: bool,
    /// madvise bits: bit number = advice.
    pub madv: u64,
    /// Access mode of the file behind it: 0 RDONLY, 1 WRONLY, 2 RDWR.
    pub access: Option<u32>,
    /// Byte offset in the file or segment.
    pub offset: u64,
}

/// A SysV shared memory segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Id.
    pub id: u32,
    /// Key (0 = IPC_PRIVATE).
    pub key: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Creator.
    pub cuid: u32,
    /// Creating group.
    pub cgid: u32,
    /// Permission bits (0777).
    pub mode: u32,
    /// Marked for deletion.
    pub dest: bool,
    /// SHM_LOCKed.
    pub locked: bool,
    /// Bytes as given to shmget.
    pub size: u64,
    /// SHM_HUGETLB and size bits, 0 = none.
    pub hugetlb: u32,
    /// Contents; `addr` of a run is the byte offset.
    pub pages: PageMap,
}

impl Segment {
    /// Id, key, owners and rights.
    pub const fn perm(&self) -> IpcPerm {
        IpcPerm {
            id: self.id,
            key: self.key,
            uid: self.uid,
            gid: self.gid,
            cuid: self.cuid,
            cgid: self.cgid,
            mode: self.mode,
        }
    }
}

/// What all SysV objects have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct IpcPerm {
    /// Id.
    pub id: u32,
    /// Key (0 = IPC_PRIVATE).
    pub key: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Creator.
    pub cuid: u32,
    /// Creating group.
    pub cgid: u32,
    /// Permission bits (0777).
    pub mode: u32,
}

/// A SysV semaphore set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SemSet {
    /// Id, key, owners and rights.
    pub perm: IpcPerm,
    /// Values, one or more, each at most 32767.
    pub values: Vec<u16>,
}

/// A SysV message queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Id, key, owners and rights.
    pub perm: IpcPerm,
    /// The most bytes that it takes.
    pub qbytes: u32,
    /// Messages, the first to be received first.
    pub messages: Vec<Message>,
}

/// A message in a [`Queue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Type, more than 0.
    pub kind: i32,
    /// Bytes after the type.
    pub text: Vec<u8>,
}

/// Limits of an IPC namespace, by the names in /proc/sys/kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpcLimits {
    /// `sem`: SEMMSL, SEMMNS, SEMOPM, SEMMNI.
    pub sem: [u32; 4],
    /// `msgmax`.
    pub msgmax: u32,
    /// `msgmnb`.
    pub msgmnb: u32,
    /// `msgmni`.
    pub msgmni: u32,
    /// `shmmax`.
    pub shmmax: u64,
    /// `shmall`.
    pub shmall: u64,
    /// `shmmni`.
    pub shmmni: u32,
    /// `shm_rmid_forced`.
    pub shm_rmid_forced: u32,
    /// `queues_max`, `msg_max`, `msgsize_max`, `msg_default`, `msgsize_default` in /proc/sys/fs/mqueue.
    pub mqueue: [Option<u32>; 5],
    /// `msg_next_id`, `sem_next_id`, `shm_next_id`, where an id was waiting.
    pub next: [Option<u32>; 3],
}

/// A memory object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memfd {
    /// Name; `/dev/zero` = anonymous shared memory.
    pub name: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Seals.
    pub seals: u32,
    /// st_mode.
    pub mode: Option<u32>,
    /// hugetlb flags, 0 = none.
    pub hugetlb: u32,
    /// Contents.
    pub pages: PageMap,
}

/// A descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fd {
    /// Number.
    pub fd: u32,
    /// FD_CLOEXEC.
    pub cloexec: bool,
    /// File id.
    pub file: u32,
}

/// Owner of a descriptor's signals (F_SETOWN, F_SETSIG); all zero = none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct FileOwner {
    pub uid: u32,
    pub euid: u32,
    pub signum: u32,
    pub pid_type: u32,
    pub pid: u32,
}

/// One open file description, or a file that only mappings, exe, cwd or root name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum File {
    /// Regular file, directory or character device, by path.
    Reg(RegFile),
    /// An open memfd.
    Memfd {
        /// Inode id.
        inode: u32,
        /// Open flags.
        flags: u32,
        /// Position.
        pos: u64,
        /// Owner.
        owner: FileOwner,
    },
    /// One end of a pipe.
    Pipe(PipeEnd),
    /// An open FIFO.
    Fifo(FifoEnd),
    /// An event counter.
    Eventfd(Eventfd),
    /// An epoll set.
    Epoll(Epoll),
    /// A signal descriptor.
    Signalfd(Signalfd),
    /// A timer descriptor.
    Timerfd(Timerfd),
    /// A set of inotify watches.
    Inotify(Inotify),
    /// A unix socket.
    Socket(Box<Socket>),
    /// An open terminal.
    Terminal(TerminalFile),
    /// Any other kind, by its CRIU name ("INETSK", ...): refused.
    Other {
        /// Name.
        kind: &'static str,
    },
}

/// A file known by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegFile {
    /// Absolute path without NUL.
    pub path: String,
    /// Open flags with ARM numbers.
    pub flags: u32,
    /// Position; `None` = not seekable.
    pub pos: Option<u64>,
    /// Owner.
    pub owner: FileOwner,
    /// Bytes at the dump (regular files).
    pub size: Option<u64>,
    /// st_mode at the dump.
    pub mode: Option<u32>,
    /// ELF build id.
    pub build_id: Vec<u8>,
    /// What a remap entry says of a name that is gone.
    pub remap: Option<Remap>,
    /// Externally supplied (`--external`).
    pub external: bool,
    /// Mount id, -1 = none.
    pub mnt_id: i32,
}
