//! Numbers of the kernel's interface that the plan, the harness and the blob share (include/uapi, ARM values).
#![expect(missing_docs, reason = "the kernel's names, as in its own headers")]

pub const PROT_READ: u32 = 1;
pub const PROT_WRITE: u32 = 2;
pub const PROT_EXEC: u32 = 4;

pub const MAP_SHARED: u32 = 0x01;
pub const MAP_PRIVATE: u32 = 0x02;
pub const MAP_DROPPABLE: u32 = 0x08;
pub const MAP_FIXED: u32 = 0x10;
pub const MAP_ANONYMOUS: u32 = 0x20;
pub const MAP_GROWSDOWN: u32 = 0x100;
pub const MAP_LOCKED: u32 = 0x2000;
pub const MAP_NORESERVE: u32 = 0x4000;
pub const MAP_HUGETLB: u32 = 0x4_0000;
/// Shift of log2 of the huge page's size in the flags of `mmap2`.
pub const MAP_HUGE_SHIFT: u32 = 26;

pub const MREMAP_MAYMOVE: u32 = 1;
pub const MREMAP_FIXED: u32 = 2;

pub const SHM_RDONLY: u32 = 0o10000;
pub const SHM_REMAP: u32 = 0o40000;
pub const SHM_EXEC: u32 = 0o100000;

pub const IPC_RMID: u32 = 0;
/// Or-ed to the command of a raw `shmctl` on ARM: the new structures.
pub const IPC_64: u32 = 0x100;

pub const PR_SET_PDEATHSIG: u32 = 1;
pub const PR_SET_DUMPABLE: u32 = 4;
pub const PR_SET_KEEPCAPS: u32 = 8;
pub const PR_SET_NAME: u32 = 15;
pub const PR_CAPBSET_DROP: u32 = 24;
pub const PR_SET_SECUREBITS: u32 = 28;
pub const PR_SET_NO_NEW_PRIVS: u32 = 38;
pub const PR_CAP_AMBIENT: u32 = 47;
pub const PR_CAP_AMBIENT_RAISE: u32 = 2;
pub const PR_CAP_AMBIENT_LOWER: u32 = 3;
pub const SECCOMP_SET_MODE_STRICT: u32 = 0;
pub const SECCOMP_SET_MODE_FILTER: u32 = 1;
pub const SECCOMP_FILTER_FLAG_TSYNC: u32 = 1;
pub const PR_SET_MM: u32 = 35;
pub const PR_SET_MM_AUXV: u32 = 12;
pub const PR_SET_MM_EXE_FILE: u32 = 13;
pub const PR_SET_MM_MAP: u32 = 14;
/// Where ranges begin for a moment while their fields are set one by one: at or above any `vm.mmap_min_addr` that a
/// plan accepts, below every range of the old program and the new one.
pub const MM_LOW: u32 = 0x1_0000;
pub const PR_SET_THP_DISABLE: u32 = 41;
pub const PR_TIMER_CREATE_RESTORE_IDS: u32 = 77;

/// What a thread shares with its leader: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM.
pub const CLONE_FOR_THREAD: u32 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;

pub const SS_ONSTACK: u32 = 1;
pub const SS_DISABLE: u32 = 2;
pub const RSEQ_FLAG_UNREGISTER: u32 = 1;
/// Bytes of `struct robust_list_head` on ARM.
pub const ROBUST_LIST_HEAD_SIZE: u32 = 12;

pub const MADV_DONTFORK: u32 = 10;
pub const MADV_MERGEABLE: u32 = 12;
pub const MADV_HUGEPAGE: u32 = 14;
pub const MADV_NOHUGEPAGE: u32 = 15;
pub const MADV_DONTDUMP: u32 = 16;
pub const MADV_WIPEONFORK: u32 = 18;
pub const MADV_GUARD_INSTALL: u32 = 102;
