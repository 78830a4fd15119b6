//! CRIU's protobuf messages in our own declarations. Every single field is an `Option`, so that "absent" can be told
//! from 0: prost does not enforce what proto2 calls required, [`crate::load`] does. Field names are CRIU's; their
//! meaning is in `criu-images.md`. Text is kept as bytes: nobody promises UTF-8.
#![expect(
    missing_docs,
    reason = "the messages and fields of CRIU's images, by their names there"
)]
#![expect(
    clippy::len_without_is_empty,
    reason = "prost makes an accessor for every field, also for one that CRIU calls `len`"
)]

use serde_json::{Map, Value};

/// How `show` prints numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Decimal, text as text.
    Plain,
    /// Hexadecimal; bytes as hex digits.
    Hex,
    /// PROT_ bits.
    Prot,
    /// MAP_ bits.
    Map,
    /// VMA status bits.
    Vma,
    /// Page map bits.
    Pagemap,
}

/// Tag of `Mm::vmas`, which are decoded one by one.
pub const MM_VMAS: u32 = 14;

const PROT: &[(u64, &str)] = &[(1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC")];
const MAP: &[(u64, &str)] = &[
    (1, "MAP_SHARED"),
    (2, "MAP_PRIVATE"),
    (8, "MAP_DROPPABLE"),
    (0x20, "MAP_ANONYMOUS"),
    (0x100, "MAP_GROWSDOWN"),
    (0x2000, "MAP_LOCKED"),
    (0x4000, "MAP_NORESERVE"),
    (0x4_0000, "MAP_HUGETLB"),
];
const VMA: &[(u64, &str)] = &[
    (1, "REGULAR"),
    (2, "STACK"),
    (4, "VSYSCALL"),
    (8, "VDSO"),
    (0x20, "HEAP"),
    (0x40, "FILE_PRIVATE"),
    (0x80, "FILE_SHARED"),
    (0x100, "ANON_SHARED"),
    (0x200, "ANON_PRIVATE"),
    (0x400, "SYSVIPC"),
    (0x800, "SOCKET"),
    (0x1000, "VVAR"),
    (0x2000, "AIORING"),
    (0x4000, "MEMFD"),
    (0x8000, "SHSTK"),
    (0x1_0000, "GUARD"),
    (0x2_0000, "UPROBES"),
    (0x800_0000, "EXT_PLUGIN"),
];
const PAGEMAP: &[(u64, &str)] = &[(1, "PE_PARENT"), (2, "PE_LAZY"), (4, "PE_PRESENT")];

fn bits(mut n: u64, names: &[(u64, &str)]) -> Value {
    let mut words: Vec<String> = Vec::new();
    for (bit, name) in names {
        if n & bit != 0 {
            words.push((*name).to_owned());
            n &= !bit;
        }
    }
    if n != 0 || words.is_empty() {
        words.push(format!("{n:#x}"));
    }
    Value::from(words.join(" | "))
}

fn number(n: u64, style: Style) -> Value {
    match style {
        Style::Plain => Value::from(n),
        Style::Hex => Value::from(format!("{n:#x}")),
        Style::Prot => bits(n, PROT),
        Style::Map => bits(n, MAP),
        Style::Vma => bits(n, VMA),
        Style::Pagemap => bits(n, PAGEMAP),
    }
}

/// Turns a field into a tree; `None` = absent.
pub trait Show {
    /// The tree.
    fn show(&self, style: Style) -> Option<Value>;
}
impl Show for u32 {
    fn show(&self, style: Style) -> Option<Value> {
        Some(number(u64::from(*self), style))
    }
}
impl Show for u64 {
    fn show(&self, style: Style) -> Option<Value> {
        Some(number(*self, style))
    }
}
impl Show for i32 {
    fn show(&self, _: Style) -> Option<Value> {
        Some(Value::from(*self))
    }
}
impl Show for i64 {
    fn show(&self, _: Style) -> Option<Value> {
        Some(Value::from(*self))
    }
}
impl Show for bool {
    fn show(&self, _: Style) -> Option<Value> {
        Some(Value::from(*self))
    }
}
/// A protobuf `bytes` or `string`.
pub type Bytes = Vec<u8>;
impl Show for Bytes {
    fn show(&self, style: Style) -> Option<Value> {
        Some(match core::str::from_utf8(self) {
            Ok(text) if style != Style::Hex => Value::from(text),
            _ => Value::from(hex(self)),
        })
    }
}
/// Bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use core::fmt::Write;
    bytes.iter().fold(String::new(), |mut s, b| {
        // Writing to a String cannot fail.
        let _ = write!(s, "{b:02x}");
        s
    })
}
impl<T: Show> Show for Option<T> {
    fn show(&self, style: Style) -> Option<Value> {
        self.as_ref().and_then(|v| v.show(style))
    }
}
impl<T: Show> Show for Box<T> {
    fn show(&self, style: Style) -> Option<Value> {
        self.as_ref().show(style)
    }
}
/// Repeated fields (a trait of its own would clash with [`Bytes`] only for `u8`, which is no protobuf scalar).
macro_rules! show_list {
    ($($t:ty),*) => { $(impl Show for Vec<$t> {
        fn show(&self, style: Style) -> Option<Value> {
            (!self.is_empty()).then(|| Value::from(self.iter().filter_map(|v| v.show(style)).collect::<Vec<_>>()))
        }
    })* };
}
show_list!(u32, u64, Bytes);

macro_rules! messages {
    ($( $name:ident { $( $field:ident : $ty:ty = ($($attr:tt)*) $style:ident; )* } )*) => { $(
        #[derive(Clone, PartialEq, prost::Message)]
        pub struct $name { $( #[prost($($attr)*)] pub $field: $ty, )* }
        impl Show for $name {
            fn show(&self, _: Style) -> Option<Value> {
                #[allow(unused_mut, reason = "a message may have no fields")]
                let mut map = Map::new();
                $( if let Some(v) = self.$field.show(Style::$style) { map.insert(stringify!($field).to_owned(), v); } )*
                Some(Value::Object(map))
            }
        }
        show_list!($name);
    )* };
}

messages! {
Inventory {
    img_version: Option<u32> = (uint32, optional, tag = "1") Plain;
    fdinfo_per_id: Option<bool> = (bool, optional, tag = "2") Plain;
    root_ids: Option<Ids> = (message, optional, tag = "3") Plain;
    ns_per_id: Option<bool> = (bool, optional, tag = "4") Plain;
    root_cg_set: Option<u32> = (uint32, optional, tag = "5") Plain;
    lsmtype: Option<u32> = (uint32, optional, tag = "6") Plain;
    dump_uptime: Option<u64> = (uint64, optional, tag = "8") Plain;
    pre_dump_mode: Option<u32> = (uint32, optional, tag = "9") Plain;
    tcp_close: Option<bool> = (bool, optional, tag = "10") Plain;
    network_lock_method: Option<u32> = (uint32, optional, tag = "11") Plain;
    plugins_entry: Option<Plugins> = (message, optional, tag = "12") Plain;
    dump_criu_run_id: Option<Bytes> = (bytes = "vec", optional, tag = "13") Plain;
    allow_uprobes: Option<bool> = (bool, optional, tag = "14") Plain;
}
Plugins {
    plugins: Vec<Bytes> = (bytes = "vec", repeated, tag = "12") Plain;
}
Pstree {
    pid: Option<u32> = (uint32, optional, tag = "1") Plain;
    ppid: Option<u32> = (uint32, optional, tag = "2") Plain;
    pgid: Option<u32> = (uint32, optional, tag = "3") Plain;
    sid: Option<u32> = (uint32, optional, tag = "4") Plain;
    threads: Vec<u32> = (uint32, repeated, packed = "false", tag = "5") Plain;
}
Ids {
    vm_id: Option<u32> = (uint32, optional, tag = "1") Plain;
    files_id: Option<u32> = (uint32, optional, tag = "2") Plain;
    fs_id: Option<u32> = (uint32, optional, tag = "3") Plain;
    sighand_id: Option<u32> = (uint32, optional, tag = "4") Plain;
    pid_ns_id: Option<u32> = (uint32, optional, tag = "5") Plain;
    net_ns_id: Option<u32> = (uint32, optional, tag = "6") Plain;
    ipc_ns_id: Option<u32> = (uint32, optional, tag = "7") Plain;
    uts_ns_id: Option<u32> = (uint32, optional, tag = "8") Plain;
    mnt_ns_id: Option<u32> = (uint32, optional, tag = "9") Plain;
    user_ns_id: Option<u32> = (uint32, optional, tag = "10") Plain;
    cgroup_ns_id: Option<u32> = (uint32, optional, tag = "11") Plain;
    time_ns_id: Option<u32> = (uint32, optional, tag = "12") Plain;
}
Core {
    mtype: Option<u32> = (uint32, optional, tag = "1") Plain;
    tc: Option<TaskCore> = (message, optional, tag = "3") Plain;
    ids: Option<Ids> = (message, optional, tag = "4") Plain;
    thread_core: Option<ThreadCore> = (message, optional, tag = "5") Plain;
    ti_arm: Option<ThreadInfoArm> = (message, optional, tag = "6") Plain;
}
ThreadInfoArm {
    clear_tid_addr: Option<u64> = (uint64, optional, tag = "1") Hex;
    tls: Option<u32> = (uint32, optional, tag = "2") Hex;
    gpregs: Option<Gpregs> = (message, optional, tag = "3") Plain;
    fpstate: Option<Fpstate> = (message, optional, tag = "4") Plain;
}
Gpregs {
    r0: Option<u32> = (uint32, optional, tag = "1") Hex;
    r1: Option<u32> = (uint32, optional, tag = "2") Hex;
    r2: Option<u32> = (uint32, optional, tag = "3") Hex;
    r3: Option<u32> = (uint32, optional, tag = "4") Hex;
    r4: Option<u32> = (uint32, optional, tag = "5") Hex;
    r5: Option<u32> = (uint32, optional, tag = "6") Hex;
    r6: Option<u32> = (uint32, optional, tag = "7") Hex;
    r7: Option<u32> = (uint32, optional, tag = "8") Hex;
    r8: Option<u32> = (uint32, optional, tag = "9") Hex;
    r9: Option<u32> = (uint32, optional, tag = "10") Hex;
    r10: Option<u32> = (uint32, optional, tag = "11") Hex;
    fp: Option<u32> = (uint32, optional, tag = "12") Hex;
    ip: Option<u32> = (uint32, optional, tag = "13") Hex;
    sp: Option<u32> = (uint32, optional, tag = "14") Hex;
    lr: Option<u32> = (uint32, optional, tag = "15") Hex;
    pc: Option<u32> = (uint32, optional, tag = "16") Hex;
    cpsr: Option<u32> = (uint32, optional, tag = "17") Hex;
    orig_r0: Option<u32> = (uint32, optional, tag = "18") Hex;
}
Fpstate {
    vfp_regs: Vec<u64> = (uint64, repeated, packed = "false", tag = "1") Hex;
    fpscr: Option<u32> = (uint32, optional, tag = "2") Hex;
    fpexc: Option<u32> = (uint32, optional, tag = "3") Hex;
    fpinst: Option<u32> = (uint32, optional, tag = "4") Hex;
    fpinst2: Option<u32> = (uint32, optional, tag = "5") Hex;
}
TaskCore {
    task_state: Option<u32> = (uint32, optional, tag = "1") Plain;
    exit_code: Option<u32> = (uint32, optional, tag = "2") Plain;
    personality: Option<u32> = (uint32, optional, tag = "3") Plain;
    flags: Option<u32> = (uint32, optional, tag = "4") Hex;
    blk_sigset: Option<u64> = (uint64, optional, tag = "5") Hex;
    comm: Option<Bytes> = (bytes = "vec", optional, tag = "6") Plain;
    timers: Option<TaskTimers> = (message, optional, tag = "7") Plain;
    rlimits: Option<Rlimits> = (message, optional, tag = "8") Plain;
    cg_set: Option<u32> = (uint32, optional, tag = "9") Plain;
    signals_s: Option<SignalQueue> = (message, optional, tag = "10") Plain;
    old_seccomp_mode: Option<u32> = (uint32, optional, tag = "11") Plain;
    old_seccomp_filter: Option<u32> = (uint32, optional, tag = "12") Plain;
    loginuid: Option<u32> = (uint32, optional, tag = "13") Plain;
    oom_score_adj: Option<i32> = (int32, optional, tag = "14") Plain;
    sigactions: Vec<Sigaction> = (message, repeated, tag = "15") Plain;
    child_subreaper: Option<bool> = (bool, optional, tag = "18") Plain;
    blk_sigset_extended: Option<u64> = (uint64, optional, tag = "20") Hex;
    stop_signo: Option<u32> = (uint32, optional, tag = "21") Plain;
    membarrier_registration_mask: Option<u32> = (uint32, optional, tag = "22") Hex;
}
Rlimits {
    rlimits: Vec<Rlimit> = (message, repeated, tag = "1") Plain;
}
Rlimit {
    cur: Option<u64> = (uint64, optional, tag = "1") Plain;
    max: Option<u64> = (uint64, optional, tag = "2") Plain;
}
SignalQueue {
    signals: Vec<Siginfo> = (message, repeated, tag = "1") Plain;
}
Siginfo {
    siginfo: Option<Bytes> = (bytes = "vec", optional, tag = "1") Hex;
}
Sigaction {
    sigaction: Option<u64> = (uint64, optional, tag = "1") Hex;
    flags: Option<u64> = (uint64, optional, tag = "2") Hex;
    restorer: Option<u64> = (uint64, optional, tag = "3") Hex;
    mask: Option<u64> = (uint64, optional, tag = "4") Hex;
    compat_sigaction: Option<bool> = (bool, optional, tag = "5") Plain;
    mask_extended: Option<u64> = (uint64, optional, tag = "6") Hex;
}
TaskTimers {
    real: Option<Itimer> = (message, optional, tag = "1") Plain;
    virt: Option<Itimer> = (message, optional, tag = "2") Plain;
    prof: Option<Itimer> = (message, optional, tag = "3") Plain;
    posix: Vec<PosixTimer> = (message, repeated, tag = "4") Plain;
}
Itimer {
    isec: Option<u64> = (uint64, optional, tag = "1") Plain;
    iusec: Option<u64> = (uint64, optional, tag = "2") Plain;
    vsec: Option<u64> = (uint64, optional, tag = "3") Plain;
    vusec: Option<u64> = (uint64, optional, tag = "4") Plain;
}
PosixTimer {
    it_id: Option<u32> = (uint32, optional, tag = "1") Plain;
    clock_id: Option<u32> = (uint32, optional, tag = "2") Plain;
    si_signo: Option<u32> = (uint32, optional, tag = "3") Plain;
    it_sigev_notify: Option<u32> = (uint32, optional, tag = "4") Plain;
    sival_ptr: Option<u64> = (uint64, optional, tag = "5") Hex;
    overrun: Option<u32> = (uint32, optional, tag = "6") Plain;
    isec: Option<u64> = (uint64, optional, tag = "7") Plain;
    insec: Option<u64> = (uint64, optional, tag = "8") Plain;
    vsec: Option<u64> = (uint64, optional, tag = "9") Plain;
    vnsec: Option<u64> = (uint64, optional, tag = "10") Plain;
    notify_thread_id: Option<i32> = (int32, optional, tag = "11") Plain;
}
ThreadCore {
    futex_rla: Option<u64> = (uint64, optional, tag = "1") Hex;
    futex_rla_len: Option<u32> = (uint32, optional, tag = "2") Plain;
    sched_nice: Option<i32> = (sint32, optional, tag = "3") Plain;
    sched_policy: Option<u32> = (uint32, optional, tag = "4") Plain;
    sched_prio: Option<u32> = (uint32, optional, tag = "5") Plain;
    blk_sigset: Option<u64> = (uint64, optional, tag = "6") Hex;
    sas: Option<Sas> = (message, optional, tag = "7") Plain;
    pdeath_sig: Option<u32> = (uint32, optional, tag = "8") Plain;
    signals_p: Option<SignalQueue> = (message, optional, tag = "9") Plain;
    creds: Option<CredsEntry> = (message, optional, tag = "10") Plain;
    seccomp_mode: Option<u32> = (uint32, optional, tag = "11") Plain;
    seccomp_filter: Option<u32> = (uint32, optional, tag = "12") Plain;
    comm: Option<Bytes> = (bytes = "vec", optional, tag = "13") Plain;
    blk_sigset_extended: Option<u64> = (uint64, optional, tag = "14") Hex;
    rseq_entry: Option<Rseq> = (message, optional, tag = "15") Plain;
    cg_set: Option<u32> = (uint32, optional, tag = "16") Plain;
}
Sas {
    ss_sp: Option<u64> = (uint64, optional, tag = "1") Hex;
    ss_size: Option<u64> = (uint64, optional, tag = "2") Plain;
    ss_flags: Option<u32> = (uint32, optional, tag = "3") Hex;
}
Rseq {
    rseq_abi_pointer: Option<u64> = (uint64, optional, tag = "1") Hex;
    rseq_abi_size: Option<u32> = (uint32, optional, tag = "2") Plain;
    signature: Option<u32> = (uint32, optional, tag = "3") Hex;
    rseq_cs_pointer: Option<u64> = (uint64, optional, tag = "4") Hex;
}
CredsEntry {
    uid: Option<u32> = (uint32, optional, tag = "1") Plain;
    gid: Option<u32> = (uint32, optional, tag = "2") Plain;
    euid: Option<u32> = (uint32, optional, tag = "3") Plain;
    egid: Option<u32> = (uint32, optional, tag = "4") Plain;
    suid: Option<u32> = (uint32, optional, tag = "5") Plain;
    sgid: Option<u32> = (uint32, optional, tag = "6") Plain;
    fsuid: Option<u32> = (uint32, optional, tag = "7") Plain;
    fsgid: Option<u32> = (uint32, optional, tag = "8") Plain;
    cap_inh: Vec<u32> = (uint32, repeated, packed = "false", tag = "9") Hex;
    cap_prm: Vec<u32> = (uint32, repeated, packed = "false", tag = "10") Hex;
    cap_eff: Vec<u32> = (uint32, repeated, packed = "false", tag = "11") Hex;
    cap_bnd: Vec<u32> = (uint32, repeated, packed = "false", tag = "12") Hex;
    secbits: Option<u32> = (uint32, optional, tag = "13") Hex;
    groups: Vec<u32> = (uint32, repeated, packed = "false", tag = "14") Plain;
    lsm_profile: Option<Bytes> = (bytes = "vec", optional, tag = "15") Plain;
    lsm_sockcreate: Option<Bytes> = (bytes = "vec", optional, tag = "16") Plain;
    apparmor_data: Option<Bytes> = (bytes = "vec", optional, tag = "17") Hex;
    no_new_privs: Option<u32> = (uint32, optional, tag = "18") Plain;
    cap_amb: Vec<u32> = (uint32, repeated, packed = "false", tag = "19") Hex;
}
Mm {
    mm_start_code: Option<u64> = (uint64, optional, tag = "1") Hex;
    mm_end_code: Option<u64> = (uint64, optional, tag = "2") Hex;
    mm_start_data: Option<u64> = (uint64, optional, tag = "3") Hex;
    mm_end_data: Option<u64> = (uint64, optional, tag = "4") Hex;
    mm_start_stack: Option<u64> = (uint64, optional, tag = "5") Hex;
    mm_start_brk: Option<u64> = (uint64, optional, tag = "6") Hex;
    mm_brk: Option<u64> = (uint64, optional, tag = "7") Hex;
    mm_arg_start: Option<u64> = (uint64, optional, tag = "8") Hex;
    mm_arg_end: Option<u64> = (uint64, optional, tag = "9") Hex;
    mm_env_start: Option<u64> = (uint64, optional, tag = "10") Hex;
    mm_env_end: Option<u64> = (uint64, optional, tag = "11") Hex;
    exe_file_id: Option<u32> = (uint32, optional, tag = "12") Plain;
    mm_saved_auxv: Vec<u64> = (uint64, repeated, packed = "false", tag = "13") Hex;
    vmas: Vec<VmaEntry> = (message, repeated, tag = "14") Plain;
    dumpable: Option<i32> = (int32, optional, tag = "15") Plain;
    aios: Vec<AioRing> = (message, repeated, tag = "16") Plain;
    thp_disabled: Option<bool> = (bool, optional, tag = "17") Plain;
}
AioRing {
    id: Option<u64> = (uint64, optional, tag = "1") Hex;
    nr_req: Option<u32> = (uint32, optional, tag = "2") Plain;
    ring_len: Option<u32> = (uint32, optional, tag = "3") Plain;
}
VmaEntry {
    start: Option<u64> = (uint64, optional, tag = "1") Hex;
    end: Option<u64> = (uint64, optional, tag = "2") Hex;
    pgoff: Option<u64> = (uint64, optional, tag = "3") Hex;
    shmid: Option<u64> = (uint64, optional, tag = "4") Plain;
    prot: Option<u32> = (uint32, optional, tag = "5") Prot;
    flags: Option<u32> = (uint32, optional, tag = "6") Map;
    status: Option<u32> = (uint32, optional, tag = "7") Vma;
    fd: Option<i64> = (sint64, optional, tag = "8") Plain;
    madv: Option<u64> = (uint64, optional, tag = "9") Hex;
    fdflags: Option<u32> = (uint32, optional, tag = "10") Hex;
}
Fs {
    cwd_id: Option<u32> = (uint32, optional, tag = "1") Plain;
    root_id: Option<u32> = (uint32, optional, tag = "2") Plain;
    umask: Option<u32> = (uint32, optional, tag = "3") Hex;
}
Fdinfo {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    flags: Option<u32> = (uint32, optional, tag = "2") Hex;
    kind: Option<u32> = (uint32, optional, tag = "3") Plain;
    fd: Option<u32> = (uint32, optional, tag = "4") Plain;
    xattr_security_selinux: Option<Bytes> = (bytes = "vec", optional, tag = "5") Plain;
}
PagemapHead {
    pages_id: Option<u32> = (uint32, optional, tag = "1") Plain;
}
PagemapEntry {
    vaddr: Option<u64> = (uint64, optional, tag = "1") Hex;
    compat_nr_pages: Option<u32> = (uint32, optional, tag = "2") Plain;
    in_parent: Option<bool> = (bool, optional, tag = "3") Plain;
    flags: Option<u32> = (uint32, optional, tag = "4") Pagemap;
    nr_pages: Option<u64> = (uint64, optional, tag = "5") Plain;
}
MemfdInode {
    name: Option<Bytes> = (bytes = "vec", optional, tag = "1") Plain;
    uid: Option<u32> = (uint32, optional, tag = "2") Plain;
    gid: Option<u32> = (uint32, optional, tag = "3") Plain;
    size: Option<u64> = (uint64, optional, tag = "4") Plain;
    shmid: Option<u32> = (uint32, optional, tag = "5") Plain;
    seals: Option<u32> = (uint32, optional, tag = "6") Hex;
    inode_id: Option<u64> = (uint64, optional, tag = "7") Plain;
    hugetlb_flag: Option<u32> = (uint32, optional, tag = "8") Hex;
    mode: Option<u32> = (uint32, optional, tag = "9") Hex;
}
Seccomp {
    seccomp_filters: Vec<SeccompFilter> = (message, repeated, tag = "1") Plain;
}
SeccompFilter {
    filter: Option<Bytes> = (bytes = "vec", optional, tag = "1") Hex;
    prev: Option<u32> = (uint32, optional, tag = "2") Plain;
    flags: Option<u32> = (uint32, optional, tag = "3") Hex;
}
Cgroup {
    sets: Vec<CgSet> = (message, repeated, tag = "1") Plain;
}
CgSet {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    ctls: Vec<CgMember> = (message, repeated, tag = "2") Plain;
}
CgMember {
    name: Option<Bytes> = (bytes = "vec", optional, tag = "1") Plain;
    path: Option<Bytes> = (bytes = "vec", optional, tag = "2") Plain;
    cgns_prefix: Option<u32> = (uint32, optional, tag = "3") Plain;
}
Timens {
    monotonic: Option<Timespec> = (message, optional, tag = "1") Plain;
    boottime: Option<Timespec> = (message, optional, tag = "2") Plain;
}
Timespec {
    tv_sec: Option<u64> = (uint64, optional, tag = "1") Plain;
    tv_nsec: Option<u64> = (uint64, optional, tag = "2") Plain;
}
Stats {
    dump: Option<DumpStats> = (message, optional, tag = "1") Plain;
    restore: Option<RestoreStats> = (message, optional, tag = "2") Plain;
}
DumpStats {
    freezing_time: Option<u32> = (uint32, optional, tag = "1") Plain;
    frozen_time: Option<u32> = (uint32, optional, tag = "2") Plain;
    memdump_time: Option<u32> = (uint32, optional, tag = "3") Plain;
    memwrite_time: Option<u32> = (uint32, optional, tag = "4") Plain;
    pages_scanned: Option<u64> = (uint64, optional, tag = "5") Plain;
    pages_skipped_parent: Option<u64> = (uint64, optional, tag = "6") Plain;
    pages_written: Option<u64> = (uint64, optional, tag = "7") Plain;
    irmap_resolve: Option<u32> = (uint32, optional, tag = "8") Plain;
    pages_lazy: Option<u64> = (uint64, optional, tag = "9") Plain;
}
RestoreStats {
    pages_compared: Option<u64> = (uint64, optional, tag = "1") Plain;
    pages_skipped_cow: Option<u64> = (uint64, optional, tag = "2") Plain;
    forking_time: Option<u32> = (uint32, optional, tag = "3") Plain;
    restore_time: Option<u32> = (uint32, optional, tag = "4") Plain;
    pages_restored: Option<u64> = (uint64, optional, tag = "5") Plain;
}
Timeval {
    tv_sec: Option<u64> = (uint64, optional, tag = "1") Plain;
    tv_usec: Option<u64> = (uint64, optional, tag = "2") Plain;
}
IpcDesc {
    key: Option<u32> = (uint32, optional, tag = "1") Hex;
    uid: Option<u32> = (uint32, optional, tag = "2") Plain;
    gid: Option<u32> = (uint32, optional, tag = "3") Plain;
    cuid: Option<u32> = (uint32, optional, tag = "4") Plain;
    cgid: Option<u32> = (uint32, optional, tag = "5") Plain;
    mode: Option<u32> = (uint32, optional, tag = "6") Hex;
    id: Option<u32> = (uint32, optional, tag = "7") Plain;
}
IpcShm {
    desc: Option<IpcDesc> = (message, optional, tag = "1") Plain;
    size: Option<u64> = (uint64, optional, tag = "2") Plain;
    in_pagemaps: Option<bool> = (bool, optional, tag = "3") Plain;
    hugetlb_flag: Option<u32> = (uint32, optional, tag = "4") Hex;
}
IpcSem {
    desc: Option<IpcDesc> = (message, optional, tag = "1") Plain;
    nsems: Option<u32> = (uint32, optional, tag = "2") Plain;
}
IpcMsgQueue {
    desc: Option<IpcDesc> = (message, optional, tag = "1") Plain;
    qbytes: Option<u32> = (uint32, optional, tag = "2") Plain;
    qnum: Option<u32> = (uint32, optional, tag = "3") Plain;
}
IpcMsg {
    mtype: Option<u64> = (uint64, optional, tag = "1") Plain;
    msize: Option<u32> = (uint32, optional, tag = "2") Plain;
}
IpcVar {
    sem_ctls: Vec<u32> = (uint32, repeated, packed = "false", tag = "1") Plain;
    msg_ctlmax: Option<u32> = (uint32, optional, tag = "2") Plain;
    msg_ctlmnb: Option<u32> = (uint32, optional, tag = "3") Plain;
    msg_ctlmni: Option<u32> = (uint32, optional, tag = "4") Plain;
    auto_msgmni: Option<u32> = (uint32, optional, tag = "5") Plain;
    shm_ctlmax: Option<u64> = (uint64, optional, tag = "6") Plain;
    shm_ctlall: Option<u64> = (uint64, optional, tag = "7") Plain;
    shm_ctlmni: Option<u32> = (uint32, optional, tag = "8") Plain;
    shm_rmid_forced: Option<u32> = (uint32, optional, tag = "9") Plain;
    mq_queues_max: Option<u32> = (uint32, optional, tag = "10") Plain;
    mq_msg_max: Option<u32> = (uint32, optional, tag = "11") Plain;
    mq_msgsize_max: Option<u32> = (uint32, optional, tag = "12") Plain;
    mq_msg_default: Option<u32> = (uint32, optional, tag = "13") Plain;
    mq_msgsize_default: Option<u32> = (uint32, optional, tag = "14") Plain;
    msg_next_id: Option<u32> = (uint32, optional, tag = "15") Plain;
    sem_next_id: Option<u32> = (uint32, optional, tag = "16") Plain;
    shm_next_id: Option<u32> = (uint32, optional, tag = "17") Plain;
}
FileEntry {
    kind: Option<u32> = (uint32, optional, tag = "1") Plain;
    id: Option<u32> = (uint32, optional, tag = "2") Plain;
    reg: Option<Reg> = (message, optional, tag = "3") Plain;
    isk: Option<Opaque> = (message, optional, tag = "4") Plain;
    nsf: Option<Opaque> = (message, optional, tag = "5") Plain;
    psk: Option<Opaque> = (message, optional, tag = "6") Plain;
    nlsk: Option<Opaque> = (message, optional, tag = "7") Plain;
    efd: Option<Eventfd> = (message, optional, tag = "8") Plain;
    epfd: Option<Eventpoll> = (message, optional, tag = "9") Plain;
    sgfd: Option<Signalfd> = (message, optional, tag = "10") Plain;
    tunf: Option<Opaque> = (message, optional, tag = "11") Plain;
    tfd: Option<Timerfd> = (message, optional, tag = "12") Plain;
    ify: Option<Inotify> = (message, optional, tag = "13") Plain;
    ffy: Option<Opaque> = (message, optional, tag = "14") Plain;
    ext: Option<Opaque> = (message, optional, tag = "15") Plain;
    usk: Option<UnixSk> = (message, optional, tag = "16") Plain;
    fifo: Option<Fifo> = (message, optional, tag = "17") Plain;
    pipe: Option<Pipe> = (message, optional, tag = "18") Plain;
    tty: Option<Tty> = (message, optional, tag = "19") Plain;
    memfd: Option<MemfdFile> = (message, optional, tag = "20") Plain;
    bpf: Option<Opaque> = (message, optional, tag = "21") Plain;
    pidfd: Option<Opaque> = (message, optional, tag = "22") Plain;
}
Opaque {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
}
Fown {
    uid: Option<u32> = (uint32, optional, tag = "1") Plain;
    euid: Option<u32> = (uint32, optional, tag = "2") Plain;
    signum: Option<u32> = (uint32, optional, tag = "3") Plain;
    pid_type: Option<u32> = (uint32, optional, tag = "4") Plain;
    pid: Option<u32> = (uint32, optional, tag = "5") Plain;
}
Reg {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    flags: Option<u32> = (uint32, optional, tag = "2") Hex;
    pos: Option<u64> = (uint64, optional, tag = "3") Plain;
    fown: Option<Fown> = (message, optional, tag = "5") Plain;
    name: Option<Bytes> = (bytes = "vec", optional, tag = "6") Plain;
    mnt_id: Option<i32> = (sint32, optional, tag = "7") Plain;
    size: Option<u64> = (uint64, optional, tag = "8") Plain;
    ext: Option<bool> = (bool, optional, tag = "9") Plain;
    mode: Option<u32> = (uint32, optional, tag = "10") Hex;
    build_id: Vec<u32> = (uint32, repeated, packed = "false", tag = "11") Hex;
    checksum: Option<u32> = (uint32, optional, tag = "12") Hex;
    checksum_config: Option<u32> = (uint32, optional, tag = "13") Plain;
    checksum_parameter: Option<u32> = (uint32, optional, tag = "14") Plain;
}
MemfdFile {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    flags: Option<u32> = (uint32, optional, tag = "2") Hex;
    pos: Option<u64> = (uint64, optional, tag = "3") Plain;
    fown: Option<Fown> = (message, optional, tag = "4") Plain;
    inode_id: Option<u32> = (uint32, optional, tag = "5") Plain;
}
Pipe {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    pipe_id: Option<u32> = (uint32, optional, tag = "2") Plain;
    flags: Option<u32> = (uint32, optional, tag = "3") Hex;
    fown: Option<Fown> = (message, optional, tag = "4") Plain;
}
PipeData {
    pipe_id: Option<u32> = (uint32, optional, tag = "1") Plain;
    bytes: Option<u32> = (uint32, optional, tag = "2") Plain;
    size: Option<u32> = (uint32, optional, tag = "3") Plain;
}
Fifo {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    pipe_id: Option<u32> = (uint32, optional, tag = "2") Plain;
    regf_id: Option<u32> = (uint32, optional, tag = "3") Plain;
}
Eventfd {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    flags: Option<u32> = (uint32, optional, tag = "2") Hex;
    fown: Option<Fown> = (message, optional, tag = "3") Plain;
    counter: Option<u64> = (uint64, optional, tag = "4") Plain;
}
Eventpoll {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    flags: Option<u32> = (uint32, optional, tag = "2") Hex;
    fown: Option<Fown> = (message, optional, tag = "3") Plain;
    tfd: Vec<EventpollTfd> = (message, repeated, tag = "4") Plain;
}
EventpollTfd {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    tfd: Option<u32> = (uint32, optional, tag = "2") Plain;
    events: Option<u32> = (uint32, optional, tag = "3") Hex;
    data: Option<u64> = (uint64, optional, tag = "4") Hex;
    dev: Option<u32> = (uint32, optional, tag = "5") Hex;
    inode: Option<u64> = (uint64, optional, tag = "6") Plain;
    pos: Option<u64> = (uint64, optional, tag = "7") Plain;
}
Signalfd {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    flags: Option<u32> = (uint32, optional, tag = "2") Hex;
    fown: Option<Fown> = (message, optional, tag = "3") Plain;
    sigmask: Option<u64> = (uint64, optional, tag = "4") Hex;
}
Timerfd {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    flags: Option<u32> = (uint32, optional, tag = "2") Hex;
    fown: Option<Fown> = (message, optional, tag = "3") Plain;
    clockid: Option<u32> = (uint32, optional, tag = "4") Plain;
    ticks: Option<u64> = (uint64, optional, tag = "5") Plain;
    settime_flags: Option<u32> = (uint32, optional, tag = "6") Plain;
    vsec: Option<u64> = (uint64, optional, tag = "7") Plain;
    vnsec: Option<u64> = (uint64, optional, tag = "8") Plain;
    isec: Option<u64> = (uint64, optional, tag = "9") Plain;
    insec: Option<u64> = (uint64, optional, tag = "10") Plain;
}
Inotify {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    flags: Option<u32> = (uint32, optional, tag = "2") Hex;
    fown: Option<Fown> = (message, optional, tag = "4") Plain;
    wd: Vec<InotifyWd> = (message, repeated, tag = "5") Plain;
}
InotifyWd {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    i_ino: Option<u64> = (uint64, optional, tag = "2") Plain;
    mask: Option<u32> = (uint32, optional, tag = "3") Hex;
    ignored_mask: Option<u32> = (uint32, optional, tag = "4") Hex;
    s_dev: Option<u32> = (uint32, optional, tag = "5") Hex;
    wd: Option<u32> = (uint32, optional, tag = "6") Plain;
    f_handle: Option<Fh> = (message, optional, tag = "7") Plain;
}
Fh {
    bytes: Option<u32> = (uint32, optional, tag = "1") Plain;
    kind: Option<u32> = (uint32, optional, tag = "2") Plain;
    handle: Vec<u64> = (uint64, repeated, packed = "false", tag = "3") Hex;
    path: Option<Bytes> = (bytes = "vec", optional, tag = "4") Plain;
    mnt_id: Option<u32> = (uint32, optional, tag = "5") Plain;
}
UnixSk {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    ino: Option<u32> = (uint32, optional, tag = "2") Plain;
    kind: Option<u32> = (uint32, optional, tag = "3") Plain;
    state: Option<u32> = (uint32, optional, tag = "4") Plain;
    flags: Option<u32> = (uint32, optional, tag = "5") Hex;
    uflags: Option<u32> = (uint32, optional, tag = "6") Hex;
    backlog: Option<u32> = (uint32, optional, tag = "7") Plain;
    peer: Option<u32> = (uint32, optional, tag = "8") Plain;
    fown: Option<Fown> = (message, optional, tag = "9") Plain;
    opts: Option<SkOpts> = (message, optional, tag = "10") Plain;
    name: Option<Bytes> = (bytes = "vec", optional, tag = "11") Plain;
    shutdown: Option<u32> = (uint32, optional, tag = "12") Plain;
    file_perms: Option<FilePerms> = (message, optional, tag = "13") Plain;
    name_dir: Option<Bytes> = (bytes = "vec", optional, tag = "14") Plain;
    deleted: Option<bool> = (bool, optional, tag = "15") Plain;
    ns_id: Option<u32> = (uint32, optional, tag = "16") Plain;
    mnt_id: Option<i32> = (sint32, optional, tag = "17") Plain;
}
FilePerms {
    mode: Option<u32> = (uint32, optional, tag = "1") Hex;
    uid: Option<u32> = (uint32, optional, tag = "2") Plain;
    gid: Option<u32> = (uint32, optional, tag = "3") Plain;
}
SkOpts {
    so_sndbuf: Option<u32> = (uint32, optional, tag = "1") Plain;
    so_rcvbuf: Option<u32> = (uint32, optional, tag = "2") Plain;
    so_snd_tmo_sec: Option<u64> = (uint64, optional, tag = "3") Plain;
    so_snd_tmo_usec: Option<u64> = (uint64, optional, tag = "4") Plain;
    so_rcv_tmo_sec: Option<u64> = (uint64, optional, tag = "5") Plain;
    so_rcv_tmo_usec: Option<u64> = (uint64, optional, tag = "6") Plain;
    reuseaddr: Option<bool> = (bool, optional, tag = "7") Plain;
    so_priority: Option<u32> = (uint32, optional, tag = "8") Plain;
    so_rcvlowat: Option<u32> = (uint32, optional, tag = "9") Plain;
    so_mark: Option<u32> = (uint32, optional, tag = "10") Plain;
    so_passcred: Option<bool> = (bool, optional, tag = "11") Plain;
    so_passsec: Option<bool> = (bool, optional, tag = "12") Plain;
    so_dontroute: Option<bool> = (bool, optional, tag = "13") Plain;
    so_no_check: Option<bool> = (bool, optional, tag = "14") Plain;
    so_bound_dev: Option<Bytes> = (bytes = "vec", optional, tag = "15") Plain;
    so_filter: Vec<u64> = (fixed64, repeated, packed = "false", tag = "16") Hex;
    so_reuseport: Option<bool> = (bool, optional, tag = "17") Plain;
    so_broadcast: Option<bool> = (bool, optional, tag = "18") Plain;
    so_keepalive: Option<bool> = (bool, optional, tag = "19") Plain;
    so_oobinline: Option<u32> = (uint32, optional, tag = "23") Plain;
    so_linger: Option<u32> = (uint32, optional, tag = "24") Plain;
    so_buf_lock: Option<u32> = (uint32, optional, tag = "25") Plain;
}
SkPacket {
    id_for: Option<u32> = (uint32, optional, tag = "1") Plain;
    length: Option<u32> = (uint32, optional, tag = "2") Plain;
    scm: Vec<Scm> = (message, repeated, tag = "4") Plain;
    ucred: Option<SkUcred> = (message, optional, tag = "128") Plain;
}
Scm {
    kind: Option<u32> = (uint32, optional, tag = "1") Plain;
    rights: Vec<u32> = (uint32, repeated, packed = "false", tag = "2") Plain;
}
SkUcred {
    uid: Option<u32> = (uint32, optional, tag = "1") Plain;
    gid: Option<u32> = (uint32, optional, tag = "2") Plain;
    pid: Option<u32> = (uint32, optional, tag = "3") Plain;
}
Tty {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    tty_info_id: Option<u32> = (uint32, optional, tag = "2") Plain;
    flags: Option<u32> = (uint32, optional, tag = "3") Hex;
    fown: Option<Fown> = (message, optional, tag = "4") Plain;
    regf_id: Option<u32> = (uint32, optional, tag = "6") Plain;
}
TtyInfo {
    id: Option<u32> = (uint32, optional, tag = "1") Plain;
    kind: Option<u32> = (uint32, optional, tag = "2") Plain;
    locked: Option<bool> = (bool, optional, tag = "3") Plain;
    exclusive: Option<bool> = (bool, optional, tag = "4") Plain;
    packet_mode: Option<bool> = (bool, optional, tag = "5") Plain;
    sid: Option<u32> = (uint32, optional, tag = "6") Plain;
    pgrp: Option<u32> = (uint32, optional, tag = "7") Plain;
    rdev: Option<u32> = (uint32, optional, tag = "8") Hex;
    termios: Option<Termios> = (message, optional, tag = "9") Plain;
    termios_locked: Option<Termios> = (message, optional, tag = "10") Plain;
    winsize: Option<Winsize> = (message, optional, tag = "11") Plain;
    pty: Option<Pty> = (message, optional, tag = "12") Plain;
    dev: Option<u32> = (uint32, optional, tag = "13") Hex;
    uid: Option<u32> = (uint32, optional, tag = "14") Plain;
    gid: Option<u32> = (uint32, optional, tag = "15") Plain;
}
Termios {
    c_iflag: Option<u32> = (uint32, optional, tag = "1") Hex;
    c_oflag: Option<u32> = (uint32, optional, tag = "2") Hex;
    c_cflag: Option<u32> = (uint32, optional, tag = "3") Hex;
    c_lflag: Option<u32> = (uint32, optional, tag = "4") Hex;
    c_line: Option<u32> = (uint32, optional, tag = "5") Plain;
    c_ispeed: Option<u32> = (uint32, optional, tag = "6") Plain;
    c_ospeed: Option<u32> = (uint32, optional, tag = "7") Plain;
    c_cc: Vec<u32> = (uint32, repeated, packed = "false", tag = "8") Plain;
}
Winsize {
    ws_row: Option<u32> = (uint32, optional, tag = "1") Plain;
    ws_col: Option<u32> = (uint32, optional, tag = "2") Plain;
    ws_xpixel: Option<u32> = (uint32, optional, tag = "3") Plain;
    ws_ypixel: Option<u32> = (uint32, optional, tag = "4") Plain;
}
Pty {
    index: Option<u32> = (uint32, optional, tag = "1") Plain;
}
TtyData {
    tty_id: Option<u32> = (uint32, optional, tag = "1") Plain;
    data: Option<Bytes> = (bytes = "vec", optional, tag = "2") Plain;
}
RemapFpath {
    orig_id: Option<u32> = (uint32, optional, tag = "1") Plain;
    remap_id: Option<u32> = (uint32, optional, tag = "2") Plain;
    remap_type: Option<u32> = (uint32, optional, tag = "3") Plain;
}
GhostFile {
    uid: Option<u32> = (uint32, optional, tag = "1") Plain;
    gid: Option<u32> = (uint32, optional, tag = "2") Plain;
    mode: Option<u32> = (uint32, optional, tag = "3") Hex;
    dev: Option<u32> = (uint32, optional, tag = "4") Hex;
    ino: Option<u64> = (uint64, optional, tag = "5") Plain;
    rdev: Option<u32> = (uint32, optional, tag = "6") Hex;
    atim: Option<Timeval> = (message, optional, tag = "7") Plain;
    mtim: Option<Timeval> = (message, optional, tag = "8") Plain;
    chunks: Option<bool> = (bool, optional, tag = "9") Plain;
    size: Option<u64> = (uint64, optional, tag = "10") Plain;
    symlnk_target: Option<Bytes> = (bytes = "vec", optional, tag = "11") Plain;
}
GhostChunk {
    len: Option<u64> = (uint64, optional, tag = "1") Plain;
    off: Option<u64> = (uint64, optional, tag = "2") Plain;
}
FileLock {
    flag: Option<u32> = (uint32, optional, tag = "1") Hex;
    kind: Option<u32> = (uint32, optional, tag = "2") Plain;
    pid: Option<i32> = (int32, optional, tag = "3") Plain;
    fd: Option<i32> = (int32, optional, tag = "4") Plain;
    start: Option<i64> = (int64, optional, tag = "5") Plain;
    len: Option<i64> = (int64, optional, tag = "6") Plain;
}
Utsns {
    nodename: Option<Bytes> = (bytes = "vec", optional, tag = "1") Plain;
    domainname: Option<Bytes> = (bytes = "vec", optional, tag = "2") Plain;
}
TcpStream {
    inq_len: Option<u32> = (uint32, optional, tag = "1") Plain;
    inq_seq: Option<u32> = (uint32, optional, tag = "2") Plain;
    outq_len: Option<u32> = (uint32, optional, tag = "3") Plain;
    outq_seq: Option<u32> = (uint32, optional, tag = "4") Plain;
}
}
