//! Facts of the kernel and of our own process, gathered once by the harness: plain data, so tests can make up machines.

use armrest_abi::Range;
use armrest_images::IpcLimits;
use serde::Serialize;

use crate::timers::TimerIds;

/// What the restore runs on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Kernel release, e.g. `6.1.0-50-armmp`.
    pub release: String,
    /// True under qemu's user-mode emulation.
    pub emulated: bool,
    /// Maps of the restoring process, ascending.
    #[serde(skip)]
    pub maps: Vec<OwnMap>,
    /// One past the last address that a task may map.
    pub task_size: u32,
    /// `vm.mmap_min_addr`.
    pub mmap_min_addr: u32,
    /// `vm.max_map_count`.
    pub max_map_count: u32,
    /// `shmat` at an address that is page-aligned but off SHMLBA is EINVAL.
    pub shmlba_enforced: bool,
    /// The data cache aliases: shared pages must keep their colour.
    pub cache_aliases: bool,
    /// `set_robust_list` exists.
    pub has_robust_list: bool,
    /// `rseq` exists.
    pub has_rseq: bool,
    /// The registration that libc made for us, to be taken back: address, length, signature.
    pub own_rseq: Option<(u32, u32, u32)>,
    /// `clone3` with `set_tid` exists.
    pub has_set_tid: bool,
    /// `PR_SET_MM_MAP` of 104 bytes exists.
    pub has_mm_map: bool,
    /// The fields can be set one by one (`PR_SET_MM_START_CODE` ...).
    pub has_mm_singles: bool,
    /// `ptrace` works.
    pub has_ptrace: bool,
    /// Advice numbers that `madvise` takes here.
    pub madvise: Vec<u32>,
    /// How POSIX timers are numbered.
    pub timer_ids: TimerIds,
    /// Time namespaces exist, and we may make one.
    pub has_timens: bool,
    /// Calls with 64-bit time exist (5.1).
    pub has_time64: bool,
    /// Sizes of huge pages (hugetlb) that this kernel has.
    pub huge_pages: Vec<HugePages>,
    /// `PR_SET_THP_DISABLE` exists.
    pub has_thp_disable: bool,
    /// We may choose pids.
    pub may_choose_pid: bool,
    /// We may choose SysV ids.
    pub may_choose_ids: bool,
    /// Limits of our IPC namespace.
    #[serde(skip)]
    pub ipc: Option<IpcLimits>,
    /// The wanted pid is taken by this process (filled for the pid asked for).
    pub pid_taken_by: Option<String>,
    /// The first of the wanted ids of threads that is taken, and by which process.
    pub tid_taken_by: Option<(u32, String)>,
    /// Our own nice value.
    pub own_nice: i32,
    /// Our own scheduling policy and priority.
    pub own_sched: (u32, u32),
    /// We may lower nice values and take real-time policies.
    pub may_nice: bool,
    /// AT_HWCAP, AT_HWCAP2, AT_PAGESZ, AT_PLATFORM of our own auxiliary vector.
    pub hwcap: u32,
    /// AT_HWCAP2.
    pub hwcap2: u32,
    /// AT_PAGESZ.
    pub page_size: u32,
    /// AT_PLATFORM, e.g. `v7l`.
    pub platform: String,
    /// Current CLOCK_MONOTONIC in nanoseconds.
    pub monotonic_ns: u64,
    /// The break of our own process (under an emulator the emulator keeps it).
    pub own_brk: u32,
    /// `seccomp` with filters exists.
    pub has_seccomp: bool,
    /// Commands that `membarrier` takes here, by bit.
    pub membarrier: u32,
    /// Who we are and what we may do.
    pub own: Rights,
    /// Effective user id.
    pub euid: u32,
    /// Bytes of our own `[vdso]`.
    #[serde(skip)]
    pub vdso: Option<Vec<u8>>,
    /// Bytes of our own `[sigpage]`.
    #[serde(skip)]
    pub sigpage: Option<Vec<u8>>,
    /// A system call's number is r7 whatever the immediate of `svc` says: a kernel without OABI support.
    pub svc_by_r7: bool,
    /// Our effective capabilities.
    pub cap_eff: u64,
    /// Our bounding set.
    pub cap_bnd: u64,
    /// `TFD_IOC_SET_TICKS` exists: unread expiries of a timer descriptor can be set.
    pub has_timerfd_ticks: bool,
    /// True if we have CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE here.
    pub privileged: bool,
}

/// Huge pages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HugePages {
    /// log2 of the size in bytes.
    pub log2: u32,
    /// What MAP_HUGETLB without a size means.
    pub default: bool,
    /// How many can be had.
    pub free: u64,
}

/// Credentials of the restoring process, and what bounds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rights {
    /// Real, effective and saved user id.
    pub uids: [u32; 3],
    /// User id for files.
    pub fsuid: u32,
    /// Real, effective and saved group id.
    pub gids: [u32; 3],
    /// Group id for files.
    pub fsgid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// `setgroups` is not forbidden (`/proc/self/setgroups`).
    pub may_setgroups: bool,
    /// Capabilities: inheritable.
    pub cap_inh: u64,
    /// Permitted.
    pub cap_prm: u64,
    /// Effective.
    pub cap_eff: u64,
    /// Bounding set.
    pub cap_bnd: u64,
    /// Ambient.
    pub cap_amb: u64,
    /// The highest capability that this kernel knows.
    pub last_cap: u32,
    /// `PR_GET_SECUREBITS`.
    pub securebits: u32,
    /// `PR_GET_NO_NEW_PRIVS`.
    pub no_new_privs: bool,
    /// User ids that exist in our user namespace: first, count.
    pub uid_map: Vec<(u32, u32)>,
    /// Group ids.
    pub gid_map: Vec<(u32, u32)>,
}

impl Rights {
    /// Root of the first user namespace, with everything.
    pub fn root() -> Rights {
        Rights {
            uids: [0; 3],
            fsuid: 0,
            gids: [0; 3],
            fsgid: 0,
            groups: Vec::new(),
            may_setgroups: true,
            cap_inh: 0,
            cap_prm: (1 << 41) - 1,
            cap_eff: (1 << 41) - 1,
            cap_bnd: (1 << 41) - 1,
            cap_amb: 0,
            last_cap: 40,
            securebits: 0,
            no_new_privs: false,
            uid_map: vec![(0, u32::MAX)],
            gid_map: vec![(0, u32::MAX)],
        }
    }
}

/// One line of our own `/proc/self/maps`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnMap {
    /// Where.
    pub range: MapRange,
    /// `[vectors]`, a path, or empty.
    pub name: String,
}

/// What our own stack may come to need below its mapping. If something lies there, or less than a guard gap away, the
/// stack cannot grow and the process ends.
pub const STACK_ROOM: u32 = 8 << 20;

impl OwnMap {
    /// The range, and this much below a stack.
    pub fn reach(&self, below: u32) -> Range {
        let below = if self.name == "[stack]" { below } else { 0 };
        Range {
            start: self.range.start.saturating_sub(below),
            end: self.range.end,
        }
    }
}

/// A range that serialises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MapRange {
    /// First byte.
    pub start: u32,
    /// One past the last; the last page of 4 GiB is cut off.
    pub end: u32,
}

impl From<MapRange> for Range {
    fn from(r: MapRange) -> Range {
        Range {
            start: r.start,
            end: r.end,
        }
    }
}

impl Machine {
    /// A made-up machine to plan for where no ARM machine is at hand: Debian 12's kernel (6.1 armmp, 3 GiB for tasks),
    /// root, every CPU feature, and the maps that a small static program has there.
    pub fn generic() -> Machine {
        use crate::model::own as map;
        Machine {
            release: "6.1.0-armmp".to_owned(),
            emulated: false,
            maps: vec![
                map(0x0001_0000, 0x0012_0000, "/usr/bin/armrest"),
                map(0x0012_f000, 0x0013_8000, "/usr/bin/armrest"),
                map(0x0080_0000, 0x0084_2000, "[heap]"),
                map(0xb6f0_0000, 0xb6f8_0000, ""),
                map(0xb6ff_c000, 0xb6ff_d000, "[sigpage]"),
                map(0xb6ff_d000, 0xb6ff_e000, "[vvar]"),
                map(0xb6ff_e000, 0xb6ff_f000, "[vdso]"),
                map(0xbefd_f000, 0xbf00_0000, "[stack]"),
                map(0xffff_0000, 0xffff_1000, "[vectors]"),
            ],
            task_size: 0xbf00_0000,
            mmap_min_addr: 32768,
            max_map_count: 65530,
            shmlba_enforced: true,
            cache_aliases: false,
            has_robust_list: true,
            has_rseq: true,
            own_rseq: None,
            has_set_tid: true,
            has_mm_map: true,
            has_mm_singles: true,
            has_ptrace: true,
            madvise: vec![1, 2, 10, 12, 14, 15, 16, 18],
            timer_ids: TimerIds::Counted,
            has_timens: false,
            has_time64: true,
            huge_pages: Vec::new(),
            has_thp_disable: true,
            may_choose_pid: true,
            may_choose_ids: true,
            ipc: None,
            pid_taken_by: None,
            tid_taken_by: None,
            own_nice: 0,
            own_sched: (0, 0),
            may_nice: true,
            hwcap: u32::MAX,
            hwcap2: u32::MAX,
            page_size: 4096,
            platform: "v7l".to_owned(),
            monotonic_ns: 0,
            own_brk: 0x0084_2000,
            has_seccomp: true,
            membarrier: 0x3ff,
            own: Rights::root(),
            euid: 0,
            privileged: true,
            cap_eff: u64::MAX,
            cap_bnd: u64::MAX,
            vdso: None,
            sigpage: None,
            svc_by_r7: true,
            has_timerfd_ticks: true,
        }
    }
}
