//! The checked checkpoint: types in which an invalid checkpoint cannot be written down.
//!
//! Made by [`crate::load`] alone. VMAs are sorted, apart, page-aligned and cannot wrap; every id resolves; every run
//! of pages lies in a VMA or segment and in its pages file. What a *restorer* does not support is still represented
//! here: refusing by name is the plan's business.

mod files;
mod ipc;
mod memory;
mod task;

pub use files::*;
pub use ipc::*;
pub use memory::*;
pub use task::*;

use std::collections::BTreeMap;

use crate::kinds::{FileLock, Ghost, PipeContents};
use crate::sockets::Packet;
use crate::terminals::Terminal;

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

    /// The ids that the tasks need: the root's pid, then all others and those of threads.
    pub fn ids(&self) -> Vec<u32> {
        let pids = self.tasks.iter().map(|t| t.pid);
        let live = self.tasks.iter().filter_map(|t| t.live.as_ref());
        let threads = live.flat_map(|l| l.threads.iter().skip(1));
        pids.chain(threads.map(|t| t.tid)).collect()
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
#[expect(missing_docs, reason = "the fields of `struct sock_filter`")]
pub struct BpfInsn {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// CLOCK_MONOTONIC and CLOCK_BOOTTIME at the dump, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Monotonic.
    pub monotonic_ns: u64,
    /// Boot time.
    pub boottime_ns: u64,
}
