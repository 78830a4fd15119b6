//! What this kernel can do: one question a function, each harmless, each answered by trying.
//!
//! Nothing stays behind: segments are removed, maps unmapped, sysctls written with the value that they had. The same
//! functions serve `armrest check` and the facts of a restore (`machine`). Under qemu-user missing calls are ENOSYS,
//! which is an answer like any other. See `sysv-and-arm.md`, part D.5, for the two probes of the cache.

use armrest_plan::timers::TimerIds;
use libc::{c_char, c_int, c_long, c_ulong, c_void};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::ptr;

use armrest_plan::HugePages;

use crate::os;

/// Bytes of a page on ARM, and of the host's pages wherever armrest is developed.
const PAGE: usize = 4096;
/// SHMLBA of ARM: four pages.
const SHMLBA: usize = 4 * PAGE;
/// `PR_SET_MM_MAP_SIZE` (include/uapi/linux/prctl.h).
const PR_SET_MM_MAP_SIZE: c_ulong = 15;
/// `PR_TIMER_CREATE_RESTORE_IDS` and its question (Linux 6.15).
const PR_TIMER_CREATE_RESTORE_IDS: c_int = 77;
const PR_TIMER_CREATE_RESTORE_IDS_GET: c_ulong = 2;
/// `clock_gettime64` of 32-bit machines.
const NR_CLOCK_GETTIME64: c_long = 403;
/// `clone3` and `close_range` have the same number everywhere (include/uapi/asm-generic/unistd.h).
const NR_CLONE3: c_long = 435;
const NR_CLOSE_RANGE: c_long = 436;

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Yes.
    Yes,
    /// No, because of that.
    No(String),
    /// It could not be asked, because of that.
    Unknown(String),
}

impl Fact {
    /// True for [`Fact::Yes`].
    pub fn is_yes(&self) -> bool {
        matches!(self, Fact::Yes)
    }
}

fn no(e: &io::Error) -> Fact {
    Fact::No(words(e))
}

/// An error in short words: `ENOSYS` is the one that matters most.
fn words(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::ENOSYS) => "no such call".to_owned(),
        Some(libc::EPERM | libc::EACCES) => "not permitted".to_owned(),
        Some(libc::ENOENT) => "no such file".to_owned(),
        Some(libc::EROFS) => "read-only here".to_owned(),
        Some(libc::EINVAL) => "refused (EINVAL)".to_owned(),
        _ => e.to_string(),
    }
}

/// A call that exists answers `expected` to arguments that make no sense; anything else says why not.
fn exists(r: io::Result<usize>, expected: c_int) -> Fact {
    match r {
        Ok(_) => Fact::Yes,
        Err(e) if e.raw_os_error() == Some(expected) => Fact::Yes,
        Err(e) => no(&e),
    }
}

/// Reserved address space of our own, given back at the end.
struct Reserved {
    at: *mut c_void,
    len: usize,
}

impl Reserved {
    fn new(len: usize) -> io::Result<Reserved> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping where the kernel likes; nothing of ours is replaced.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Reserved { at, len })
        }
    }

    /// The address in the range that is `off` bytes above a multiple of SHMLBA; one SHMLBA of slack is lost.
    fn off_shmlba(&self, off: usize) -> *mut c_void {
        let base = self.at.addr().next_multiple_of(SHMLBA);
        self.at.with_addr(base + off)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: the range is ours alone, and nobody holds a reference into it.
        unsafe { libc::munmap(self.at, self.len) };
    }
}

/// A SysV segment of one page, marked for deletion when dropped.
struct Segment(c_int);

impl Segment {
    fn new() -> io::Result<Segment> {
        // SAFETY: makes a segment, touches no memory.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, PAGE, libc::IPC_CREAT | 0o600) };
        if id < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(Segment(id))
        }
    }

    /// Attach over reserved pages of ours; they stay attached until the reservation goes.
    fn attach(&self, at: *mut c_void) -> io::Result<()> {
        // SAFETY: `at` lies in a reservation of ours with a page of room, so SHM_REMAP replaces only that.
        let got = unsafe { libc::shmat(self.0, at, libc::SHM_REMAP) };
        if got.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        if got == at {
            Ok(())
        } else {
            Err(io::Error::other("attached elsewhere"))
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID takes no buffer.
        unsafe { libc::shmctl(self.0, libc::IPC_RMID, ptr::null_mut()) };
    }
}

/// Can SysV shared memory be made and attached at an address of our choice?
pub fn sysv_shm() -> Fact {
    let tried = || -> io::Result<()> {
        let room = Reserved::new(4 * SHMLBA)?;
        Segment::new()?.attach(room.off_shmlba(0))
    };
    tried().map_or_else(|e| no(&e), |()| Fact::Yes)
}

/// Is SHMLBA enforced: is `shmat` refused at an address that is page-aligned but no multiple of 16 KiB?
///
/// Native ARM kernels enforce it, 64-bit kernels do not for their 32-bit tasks. Under qemu-user this tells what the
/// emulator does, which is what a restore there has to live with.
pub fn shmlba_enforced() -> Fact {
    let tried = || -> io::Result<Fact> {
        let room = Reserved::new(4 * SHMLBA)?;
        let segment = Segment::new()?;
        // The control: without it EINVAL could have any reason.
        segment.attach(room.off_shmlba(0))?;
        match segment.attach(room.off_shmlba(SHMLBA + PAGE)) {
            Ok(()) => Ok(Fact::No("any page may be asked for".to_owned())),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(Fact::Yes),
            Err(e) => Err(e),
        }
    };
    tried().unwrap_or_else(|e| Fact::Unknown(words(&e)))
}

/// Does the data cache alias: is a shared mapping refused where its address and file offset differ in colour?
pub fn cache_aliases() -> Fact {
    let tried = || -> io::Result<Fact> {
        let fd = memfd("armrest-probe")?;
        fd.set_len(u64::try_from(8 * PAGE).unwrap_or(0))?;
        let room = Reserved::new(4 * SHMLBA)?;
        map_shared(&fd, room.off_shmlba(0))?;
        match map_shared(&fd, room.off_shmlba(SHMLBA + PAGE)) {
            Ok(()) => Ok(Fact::No("pages of any colour may be shared".to_owned())),
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(Fact::Yes),
            Err(e) => Err(e),
        }
    };
    tried().unwrap_or_else(|e| Fact::Unknown(words(&e)))
}

/// Map the first page of `fd` over reserved pages of ours.
fn map_shared(fd: &fs::File, at: *mut c_void) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    // SAFETY: `at` lies in a reservation of ours with a page of room, so MAP_FIXED replaces only that.
    let got = unsafe { libc::mmap(at, PAGE, libc::PROT_READ, flags, fd.as_raw_fd(), 0) };
    if got == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A memory file, closed on exec.
fn memfd(name: &str) -> io::Result<fs::File> {
    os::memfd(name, &[], false).map(fs::File::from)
}

/// Are there memory files (`memfd_create`)?
pub fn memfd_create() -> Fact {
    memfd("armrest-probe").map_or_else(|e| no(&e), |_| Fact::Yes)
}

/// `struct clone_args` up to `set_tid_size`, the form of 5.5: 80 bytes.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
}

fn clone3(args: &CloneArgs) -> io::Result<usize> {
    // SAFETY: the structure lives through the call. Neither memory nor a stack is shared, so a child, should there be
    // one, is a plain fork of this thread; callers end it at once.
    os::check_long(unsafe { libc::syscall(NR_CLONE3, ptr::from_ref(args), size_of::<CloneArgs>()) })
}

/// Does `clone3` take `set_tid`? Asked with an array that cannot be, so no child is made.
pub fn set_tid() -> Fact {
    let args = CloneArgs {
        set_tid: 0,
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    exists(clone3(&args), libc::EINVAL)
}

/// May we choose pids with `set_tid`? Asked for our own pid, which is taken: EEXIST means that we may.
pub fn may_set_tid() -> Fact {
    let own = std::process::id();
    let tid = [i32::try_from(own).unwrap_or(1)];
    let args = CloneArgs {
        exit_signal: u64::try_from(libc::SIGCHLD).unwrap_or(17),
        set_tid: u64::try_from(tid.as_ptr().addr()).unwrap_or(0),
        set_tid_size: 1,
        ..CloneArgs::default()
    };
    match clone3(&args) {
        // Children go to another pid namespace, where our number was free.
        Ok(0) => {
            // SAFETY: ends the child without running anything of ours.
            unsafe { libc::_exit(0) }
        }
        Ok(pid) => {
            let pid = c_int::try_from(pid).unwrap_or(-1);
            // SAFETY: waits for the child made above, without a status.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
            Fact::Yes
        }
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Fact::Yes,
        Err(e) => no(&e),
    }
}

/// May we choose pids by `/proc/sys/kernel/ns_last_pid`? Anybody may open it; the kernel decides when it is written, so
/// the value that it has is written back.
pub fn ns_last_pid() -> Fact {
    let tried = || -> io::Result<()> {
        let mut f = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/proc/sys/kernel/ns_last_pid")?;
        let mut value = String::new();
        f.read_to_string(&mut value)?;
        f.rewind()?;
        f.write_all(value.as_bytes())
    };
    tried().map_or_else(|e| no(&e), |()| Fact::Yes)
}

/// May we choose SysV ids by `/proc/sys/kernel/shm_next_id`? Opening it for writing is where the kernel decides; its
/// value at rest, -1, could not be written back.
pub fn shm_next_id() -> Fact {
    let opened = OpenOptions::new()
        .write(true)
        .open("/proc/sys/kernel/shm_next_id");
    opened.map_or_else(|e| no(&e), |_| Fact::Yes)
}

/// Size of `struct prctl_mm_map` of this kernel; 104 on a 32-bit one.
///
/// # Errors
/// EINVAL: a kernel without CONFIG_CHECKPOINT_RESTORE, or an emulator.
pub fn mm_map_size() -> io::Result<u32> {
    let mut size: u32 = 0;
    // SAFETY: the kernel writes one unsigned int to `size`, which lives through the call.
    let r = unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            PR_SET_MM_MAP_SIZE,
            ptr::from_mut(&mut size),
            0 as c_ulong,
            0 as c_ulong,
        )
    };
    os::check_long(c_long::from(r)).map(|_| size)
}

/// Can the kernel's mm fields be set in one go (`PR_SET_MM_MAP`)?
pub fn mm_map() -> Fact {
    match mm_map_size() {
        Ok(104) => Fact::Yes,
        Ok(n) => Fact::No(format!("{n} bytes, not 104: not a 32-bit ARM kernel")),
        Err(e) => no(&e),
    }
}

/// Can the kernel's mm fields be set one by one? Asked for the exe link with a descriptor that cannot be.
pub fn mm_singles() -> Fact {
    const PR_SET_MM_EXE_FILE: c_ulong = 13;
    // SAFETY: numbers only; nothing is set, since there is no such descriptor.
    let r = unsafe {
        libc::prctl(
            libc::PR_SET_MM,
            PR_SET_MM_EXE_FILE,
            c_ulong::MAX,
            0 as c_ulong,
            0 as c_ulong,
        )
    };
    exists(os::check_long(c_long::from(r)), libc::EBADF)
}

/// Is there `rseq`? Asked with a length of 0, which is never right.
pub fn rseq() -> Fact {
    // SAFETY: the kernel refuses a length of 0 before it looks at anything.
    exists(
        os::check_long(unsafe { libc::syscall(libc::SYS_rseq, 0usize, 0usize, 0usize, 0usize) }),
        libc::EINVAL,
    )
}

/// Is there `set_robust_list`? Asked with a length of 0, which is never right.
pub fn robust_list() -> Fact {
    // SAFETY: the kernel refuses a length of 0 and registers nothing.
    exists(
        os::check_long(unsafe { libc::syscall(libc::SYS_set_robust_list, 0usize, 0usize) }),
        libc::EINVAL,
    )
}

/// Is there `ptrace`? Asked about process 0, which never is.
pub fn ptrace() -> Fact {
    // SAFETY: raw call, so that libc's own handling of PEEK results is not in the way; no process is touched, and the
    // kernel would only write to the one word given.
    let r = unsafe {
        let mut word: c_long = 0;
        libc::syscall(
            libc::SYS_ptrace,
            libc::PTRACE_PEEKDATA,
            0usize,
            0usize,
            ptr::from_mut(&mut word),
        )
    };
    exists(os::check_long(r), libc::ESRCH)
}

/// May we trace our own children? `status`: the text of `/proc/self/status`. Asked without tracing anybody.
pub fn may_ptrace(status: &str) -> Fact {
    let there = ptrace();
    if !there.is_yes() {
        return there;
    }
    // Where Yama is not built in there is no such file.
    let scope = os::read_small("/proc/sys/kernel/yama/ptrace_scope");
    if scope.is_ok_and(|s| s.trim() == "3") {
        return Fact::No("kernel.yama.ptrace_scope is 3".to_owned());
    }
    // A tracer that follows forks would have our children before we do.
    let traced = os::status_field(status, "TracerPid:").is_some_and(|pid| pid != "0");
    if traced {
        return Fact::No("this program is traced itself".to_owned());
    }
    Fact::Yes
}

/// Is there `close_range`? Asked to close the number that no descriptor has.
pub fn close_range() -> Fact {
    // SAFETY: closes nothing: descriptors end far below.
    exists(
        os::check_long(unsafe { libc::syscall(NR_CLOSE_RANGE, u32::MAX, u32::MAX, 0usize) }),
        libc::EINVAL,
    )
}

/// Is there `preadv`?
pub fn preadv() -> Fact {
    // SAFETY: no iovecs, no descriptor: EBADF.
    let r = unsafe {
        libc::syscall(
            libc::SYS_preadv,
            -1 as c_long,
            0usize,
            0usize,
            0usize,
            0usize,
        )
    };
    exists(os::check_long(r), libc::EBADF)
}

/// Can a whole mapping be moved to a fixed address (`mremap`)?
pub fn mremap() -> Fact {
    let tried = || -> io::Result<()> {
        let room = Reserved::new(4 * SHMLBA)?;
        let to = room.off_shmlba(SHMLBA + PAGE);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both pages lie in one reservation of ours; nothing refers to them.
        let got = unsafe { libc::mremap(room.off_shmlba(0), PAGE, PAGE, flags, to) };
        if got == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    tried().map_or_else(|e| no(&e), |()| Fact::Yes)
}

/// Are there seccomp filters? Asked without a program, which is never right.
pub fn seccomp() -> Fact {
    // SAFETY: the kernel cannot read a program at address 0, and installs none.
    let r = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            ptr::null::<c_void>(),
        )
    };
    exists(os::check_long(r), libc::EFAULT)
}

/// Commands that `membarrier` takes here, by bit; 0 without it.
pub fn membarrier() -> u32 {
    // SAFETY: MEMBARRIER_CMD_QUERY takes no pointer and changes nothing.
    let mask = unsafe { libc::syscall(libc::SYS_membarrier, 0, 0, 0) };
    u32::try_from(mask).unwrap_or(0)
}

/// Is there `PR_SET_THP_DISABLE`?
pub fn thp_disable() -> Fact {
    // SAFETY: asks for a flag; no pointers.
    let r = unsafe {
        libc::prctl(
            libc::PR_GET_THP_DISABLE,
            0 as c_ulong,
            0 as c_ulong,
            0 as c_ulong,
            0 as c_ulong,
        )
    };
    exists(os::check_long(c_long::from(r)), 0)
}

/// Are there calls with 64-bit seconds (`clock_gettime64` and its kind)?
pub fn time64() -> Fact {
    if cfg!(target_pointer_width = "64") {
        return Fact::Yes;
    }
    let mut now = [0u64; 2];
    // SAFETY: the kernel writes two 64-bit words.
    let r = unsafe { libc::syscall(NR_CLOCK_GETTIME64, 0, ptr::from_mut(&mut now)) };
    exists(os::check_long(r), 0)
}

/// Are there time namespaces, and may we make one with these capabilities?
pub fn timens(cap_eff: u64) -> Fact {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    if let Err(e) = fs::metadata("/proc/self/ns/time_for_children") {
        return no(&e);
    }
    if cap_eff & CAP_SYS_ADMIN == 0 {
        return Fact::No("needs CAP_SYS_ADMIN".to_owned());
    }
    Fact::Yes
}

/// How POSIX timers are numbered: as asked, by counting, or so that a number comes back at once.
pub fn timer_ids() -> TimerIds {
    let none: c_ulong = 0;
    // SAFETY: asks for a flag; no pointers.
    let r = unsafe {
        libc::prctl(
            PR_TIMER_CREATE_RESTORE_IDS,
            PR_TIMER_CREATE_RESTORE_IDS_GET,
            none,
            none,
            none,
        )
    };
    if r >= 0 {
        return TimerIds::Chosen;
    }
    match (passing_timer(), passing_timer()) {
        (Some(first), Some(second)) if second == first.wrapping_add(1) => TimerIds::Counted,
        _ => TimerIds::Foreign,
    }
}

/// The number of a timer that is gone again.
fn passing_timer() -> Option<c_int> {
    let mut id: c_int = 0;
    let nothing: *mut c_void = ptr::null_mut();
    // SAFETY: the kernel writes one word; without an event it takes a default one, and the timer is never armed.
    let made = unsafe {
        libc::syscall(
            libc::SYS_timer_create,
            libc::CLOCK_MONOTONIC,
            nothing,
            ptr::from_mut(&mut id),
        )
    };
    // SAFETY: numbers only.
    (made == 0 && unsafe { libc::syscall(libc::SYS_timer_delete, id) } == 0).then_some(id)
}

/// Advice numbers that a checkpoint can record (include/uapi/asm-generic/mman-common.h).
pub const ADVICE: [(u32, &str); 9] = [
    (1, "RANDOM"),
    (2, "SEQUENTIAL"),
    (10, "DONTFORK"),
    (12, "MERGEABLE"),
    (14, "HUGEPAGE"),
    (15, "NOHUGEPAGE"),
    (16, "DONTDUMP"),
    (18, "WIPEONFORK"),
    (102, "GUARD_INSTALL"),
];

/// Sizes of huge pages (hugetlb) that this kernel has, and how many of each could be mapped now.
pub fn huge_pages() -> Vec<HugePages> {
    let number =
        |path: &Path| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
    let default = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let default = default
        .lines()
        .find_map(|l| l.strip_prefix("Hugepagesize:"))
        .and_then(|l| l.trim().strip_suffix("kB"))
        .and_then(|n| n.trim().parse::<u64>().ok());
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages");
    let mut out: Vec<HugePages> = sizes
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let dir = entry.ok()?.path();
            let name = dir.file_name()?.to_str()?;
            let kib: u64 = name
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse()
                .ok()?;
            let of = |what: &str| number(&dir.join(what)).unwrap_or(0);
            let more = of("nr_overcommit_hugepages").saturating_sub(of("surplus_hugepages"));
            Some(HugePages {
                log2: (kib << 10).trailing_zeros(),
                default: default == Some(kib),
                free: of("free_hugepages").saturating_sub(of("resv_hugepages")) + more,
            })
        })
        .collect();
    out.sort_by_key(|h| h.log2);
    out
}

/// Those of [`ADVICE`] that this kernel takes for private anonymous memory.
///
/// # Errors
/// No page could be had.
pub fn madvise() -> io::Result<Vec<u32>> {
    let takes = |advice: u32| -> io::Result<bool> {
        let page = Reserved::new(PAGE)?;
        let advice = c_int::try_from(advice).map_err(io::Error::other)?;
        // SAFETY: advice about a page of ours that nobody uses; none of the numbers asked writes to it.
        Ok(unsafe { libc::madvise(page.at, PAGE, advice) } == 0)
    };
    let mut out = Vec::new();
    for (advice, _) in ADVICE {
        if takes(advice)? {
            out.push(advice);
        }
    }
    Ok(out)
}

/// True under qemu's user-mode emulation of a 32-bit machine on a 64-bit one: it imitates `/proc/self/maps`, but not
/// the same file by its other name.
pub fn emulated() -> bool {
    size_of::<usize>() == 4
        && fs::read_to_string("/proc/thread-self/maps").is_ok_and(|maps| has_wide_address(&maps))
}

fn has_wide_address(maps: &str) -> bool {
    maps.lines()
        .any(|l| l.split('-').next().is_some_and(|start| start.len() > 8))
}

/// `uname -r`.
pub fn release() -> String {
    uname().map_or_else(String::new, |u| text(&u.release))
}

/// `uname -m`.
pub fn machine_name() -> String {
    uname().map_or_else(String::new, |u| text(&u.machine))
}

fn text(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field
        .iter()
        .map(|c| c.to_ne_bytes()[0])
        .take_while(|b| *b != 0)
        .collect();
    String::from_utf8(bytes).unwrap_or_default()
}

fn uname() -> Option<libc::utsname> {
    let mut u = std::mem::MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: uname fills the structure; zeroed bytes are valid for it in any case.
    unsafe { (libc::uname(u.as_mut_ptr()) == 0).then(|| u.assume_init()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_the_calls_that_every_linux_has() {
        for (name, fact) in [
            ("memfd", memfd_create()),
            ("preadv", preadv()),
            ("mremap", mremap()),
        ] {
            assert_eq!(fact, Fact::Yes, "{name}");
        }
        assert!(!emulated() || size_of::<usize>() == 4);
    }

    #[test]
    fn nothing_stays_behind() {
        let maps = || {
            fs::read_to_string("/proc/self/maps")
                .unwrap_or_default()
                .lines()
                .filter(|l| l.contains("SYSV"))
                .count()
        };
        let _ = (shmlba_enforced(), cache_aliases(), sysv_shm());
        assert_eq!(maps(), 0);
    }

    #[test]
    fn wide_addresses_give_an_emulator_away() {
        assert!(has_wide_address(
            "7f0000000000-7f0000001000 r--p 00000000 00:00 0\n"
        ));
        assert!(!has_wide_address(
            "00010000-00011000 r-xp 00000000 00:00 0\nffff0000-ffff1000 r-xp 0 0 0 [vectors]\n"
        ));
    }
}
