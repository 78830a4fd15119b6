//! What a plan is: the options that it was asked with, its objects, its tables, and what it cannot do.

use armrest_abi::{
    Advise, Attach, Batch, Cred, Flush, Iovec, Lock, Map, MmMap, Move, PosixTimer, Protect, Queued,
    Range, Remove, Rows, Rseq, ThreadArgs, Timer,
};
use armrest_images::BpfInsn;
use armrest_images::Clocks;
use serde::Serialize;
use std::rc::Rc;

use crate::inherit::{Alike, Legacy};

/// What the user asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Take whatever pid the kernel gives.
    pub any_pid: bool,
    /// Take whatever SysV ids the kernel gives.
    pub any_ids: bool,
    /// Fresh pid, ipc and mount namespaces: pids and ids are free there.
    pub new_namespaces: bool,
    /// The IPC namespace is new and ours: its limits are the checkpoint's.
    pub own_ipc: bool,
    /// Map pages from the images instead of reading them, where that can be.
    pub lazy: bool,
    /// Pages that tasks and those that they are forked from have alike.
    pub alike: Rc<Alike>,
    /// How the last page of ours goes.
    pub finish: Finish,
    /// Leave the task stopped before its first instruction.
    pub leave_stopped: bool,
    /// Descriptions that the caller gives, by id (`--inherit-fd`).
    pub inherit: Vec<String>,
    /// Tasks may use the caller's terminal.
    pub shell_job: bool,
    /// armrest ends when the task runs.
    pub detached: bool,
    /// Sizes of the blob, from its header.
    pub blob: BlobSizes,
}

/// How the last page of ours is to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// By the kernel's sigpage, else by ptrace, else it stays.
    #[default]
    Auto,
    /// By the kernel's sigpage or not at all.
    Sigpage,
    /// By ptrace.
    Ptrace,
    /// It stays.
    Page,
}

/// What the plan must know of the blob.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlobSizes {
    /// Read-execute bytes, whole pages.
    pub rx: u32,
    /// Read-write bytes, whole pages.
    pub rw: u32,
    /// Stack bytes.
    pub stack: u32,
    /// Heap bytes.
    pub heap: u32,
    /// Stack bytes of each thread but the leader.
    pub thread_stack: u32,
}

/// Where the parts of the bootstrap area lie. Each is whole pages; they follow each other without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// The whole.
    pub all: Range,
    /// The blob's first page: the one that stays.
    pub keep: Range,
    /// Read-execute part, `keep` included.
    pub rx: Range,
    /// Read-write part.
    pub rw: Range,
    /// Stack.
    pub stack: Range,
    /// Heap arena.
    pub heap: Range,
    /// Stacks of the threads but the leader, one after the other in their order; empty if there are none.
    pub threads: Range,
    /// Restore-args and tables.
    pub args: Range,
    /// Progress page.
    pub progress: Range,
    /// Behind it the page that all share who wait for each other, or for what the harness does last; empty for others.
    pub gate: Range,
}

/// A source of page contents or of a mapping, opened by the harness and installed at `fd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Descriptor number in the restoring task.
    pub fd: u32,
    /// What is opened.
    pub what: SourceKind,
}

/// Kinds of [`Source`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceKind {
    /// A pages file, index in `Checkpoint::pages_files`.
    Pages(usize),
    /// Pages that the plan itself changed (a patched vdso): put into a memfd.
    Overlay(Vec<u8>),
    /// A file of the checkpoint with this id, opened with this access mode (0, 1, 2).
    File {
        /// File id.
        file: u32,
        /// Access mode.
        access: u32,
    },
    /// A memory object with this inode id.
    Memfd {
        /// Inode id in `Checkpoint::memfds`.
        inode: u32,
    },
    /// Anonymous shared memory recorded by inode number.
    AnonShared {
        /// Key in `Checkpoint::anon_shared`.
        shmid: u64,
        /// Bytes: the end of its last VMA.
        size: u64,
    },
    /// `/proc/sys/kernel/ns_last_pid`, to be written.
    LastPid,
    /// The executable.
    Exe {
        /// File id.
        file: u32,
    },
}

/// A call of the table of credentials, before it is known where its memory lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredCall {
    /// The row; the argument that is the address of `data` is 0.
    pub cred: Cred,
    /// What it reads.
    pub data: Option<CredData>,
}

/// Memory that a [`CredCall`] reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredData {
    /// A list of groups: the second argument points to it.
    Groups(Vec<u32>),
    /// Header and data of `capset`, one behind the other: the first two arguments point to them.
    Caps(Vec<u32>),
    /// A BPF program, which the third argument's `struct sock_fprog` points to.
    Program(Vec<BpfInsn>),
    /// A `struct flock64`: the third argument points to it.
    Lock([u32; 8]),
}

/// The tables that the blob works through; see `armrest_abi::RestoreArgs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the fields are the tables of `RestoreArgs`, documented there"
)]
pub struct Tables {
    pub unmaps: Vec<Range>,
    pub parks: Vec<Move>,
    pub attaches: Vec<Attach>,
    pub pieces: Vec<Move>,
    pub holes: Vec<Range>,
    pub removes: Vec<Remove>,
    /// Ascending, and made by turns from the top down: see `args`.
    pub maps: Vec<Map>,
    pub iovecs: Vec<Iovec>,
    pub batches: Vec<Batch>,
    pub protects: Vec<Protect>,
    pub flushes: Vec<Flush>,
    pub unparks: Vec<Move>,
    pub advises: Vec<Advise>,
    pub locks: Vec<Lock>,
    pub closes: Vec<u32>,
    pub threads: Vec<ThreadArgs>,
    pub timers: Vec<Timer>,
    pub posix_timers: Vec<PosixTimer>,
    pub queued: Vec<Queued>,
    pub creds: Vec<CredCall>,
    /// Those of `creds` that are record locks.
    pub records: Rows,
}

/// The way out through the kernel's sigpage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigpageExit {
    /// Address of the `svc`, where the sigpage lies for the task. Where each thread's signal frame goes:
    /// [`ThreadArgs::exit_frame`].
    pub svc: u32,
}

/// How the last page of ours goes, and if not by the sigpage, why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By the kernel's sigpage.
    Sigpage(SigpageExit),
    /// By ptrace, from the harness.
    Ptrace(&'static str),
    /// It stays.
    Page(&'static str),
}

impl Exit {
    /// The way through the sigpage, if that is it.
    pub fn sigpage(self) -> Option<SigpageExit> {
        match self {
            Exit::Sigpage(exit) => Some(exit),
            Exit::Ptrace(_) | Exit::Page(_) => None,
        }
    }
}

/// A plan: everything decided, nothing done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Index of the task in the checkpoint.
    pub task: usize,
    /// The bootstrap area.
    pub area: Area,
    /// Scratch ranges of SysV attaches.
    pub scratch: Vec<Range>,
    /// The tables.
    pub tables: Tables,
    /// Limits of the IPC namespace.
    pub ipc: Rc<crate::ipc::Limits>,
    /// Bits of `want` for the process.
    pub want: u32,
    /// Our own registration, to take back.
    pub old_rseq: Rseq,
    /// `PR_SET_DUMPABLE` value.
    pub dumpable: u32,
    /// The kernel's mm fields; `auxv` is the address of the plan's auxv table.
    pub mm: MmMap,
    /// auxv words.
    pub auxv: Vec<u32>,
    /// The signal frames of all threads, the leader's first.
    pub frames: Vec<Vec<u8>>,
    /// Descriptor of `ns_last_pid` in the task, if threads get their ids that way.
    pub last_pid_fd: Option<u32>,
    /// Descriptor of the report pipe in the task.
    pub report_fd: u32,
    /// Helper descriptors.
    pub sources: Vec<Source>,
    /// Descriptors of the whole checkpoint: what is made, and what is done with it.
    pub files: Rc<crate::files::FilesPlan>,
    /// Readings with which CLOCK_MONOTONIC and CLOCK_BOOTTIME go on, in a time namespace of the task's own.
    pub clocks: Option<Clocks>,
    /// Where the restoring process moves its own break to, as its last act in ordinary code: where the kernel's mm fields
    /// cannot be set, or are an emulator's, this is how sbrk goes on working.
    pub grow_brk: Option<u32>,
    /// How the last page of ours goes.
    pub exit: Exit,
    /// Where the kernel's own vdso and its data stay for good, outside of the checkpoint's mappings.
    pub stay: Vec<Range>,
    /// The harness traces the task and stops it at the exit of `rt_sigreturn`: to unmap the last page, or to leave it so.
    pub traced: bool,
    /// The signal by which the task is stopped again once it is there.
    pub stop: Option<u32>,
    /// Pages with contents.
    pub pages: u64,
    /// Those of them that are mapped from pages files and not read.
    pub lazy: u64,
    /// What is held from before the blob, and how.
    pub legacy: Legacy,
    /// What is done otherwise than the checkpoint says, in sentences for the summary.
    pub notes: Vec<String>,
    /// Warnings.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Pages that are not there before the blob.
    pub fn read_by_blob(&self) -> u64 {
        self.pages - self.legacy.shared - self.legacy.read
    }
}

/// One thing that cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Refusal {
    /// Which kind, for the exit code.
    pub kind: RefusalKind,
    /// What, by name.
    pub what: String,
    /// What to try.
    pub hint: String,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum RefusalKind {
    /// armrest does not restore this yet, or never.
    Unsupported,
    /// This machine or kernel cannot.
    Machine,
    /// The pid is another process's now.
    Taken,
    /// The pid or a SysV id may not be chosen.
    Ids,
}

/// All refusals at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals(pub Vec<Refusal>);
