//! What the IPC namespace holds.

use super::PageMap;

/// A SysV shared memory segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Id, key, owners and rights.
    pub perm: IpcPerm,
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
