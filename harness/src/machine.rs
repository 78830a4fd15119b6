//! The facts of this kernel and of our own process, gathered once: [`probe`] fills a [`Machine`].
//!
//! Every probe is harmless: it maps and frees scratch memory of its own, opens sysctls without writing, and asks calls
//! for what they would refuse.

use std::ffi::CStr;
use std::io;

use armrest_plan::{Machine, MapRange, OwnMap};

use crate::os;

/// CAP_SYS_ADMIN and CAP_CHECKPOINT_RESTORE, either of which lets a process choose ids (capabilities(7)).
const CHOOSERS: u64 = 1 << 21 | 1 << 40;
const PAGE: usize = 4096;
const SHMLBA: usize = 4 * PAGE;

/// Gather the facts. `pid` is the pid that a restore would want, to say who has it.
pub fn probe(pid: Option<u32>) -> io::Result<Machine> {
    let maps = own_maps(&std::fs::read_to_string("/proc/self/maps")?);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let emulated = is_emulated(&status);
    let privileged = status_hex(&status, "CapEff:").unwrap_or(0) & CHOOSERS != 0;
    let release = release();
    let own_rseq = own_rseq();
    Ok(Machine {
        task_size: task_size(&maps, emulated),
        emulated,
        mmap_min_addr: sysctl("vm/mmap_min_addr").unwrap_or(0x1_0000),
        max_map_count: sysctl("vm/max_map_count").unwrap_or(65530),
        shmlba_enforced: shmlba_enforced().unwrap_or(true),
        cache_aliases: cache_aliases().unwrap_or(false),
        has_robust_list: has_robust_list(),
        has_rseq: has_rseq(),
        own_rseq,
        has_set_tid: !emulated && privileged && has_clone3() && at_least(&release, 5, 5),
        has_mm_map: privileged && mm_map_size() == Some(104),
        has_ptrace: !emulated,
        madvise: known_advice(),
        has_thp_disable: has_thp_disable(),
        may_choose_pid: privileged && writable("/proc/sys/kernel/ns_last_pid"),
        may_choose_ids: privileged && writable("/proc/sys/kernel/shm_next_id"),
        pid_taken_by: pid.and_then(taken_by),
        hwcap: auxval(libc::AT_HWCAP),
        hwcap2: auxval(libc::AT_HWCAP2),
        page_size: auxval(libc::AT_PAGESZ),
        platform: platform(),
        monotonic_ns: monotonic_ns(),
        own_brk: own_brk(),
        // SAFETY: takes no argument and cannot fail.
        euid: unsafe { libc::geteuid() },
        privileged,
        release,
        maps,
    })
}

/// The ranges of `/proc/self/maps` text. Lines that do not fit 32 bits (a 64-bit host) are left out.
pub fn own_maps(text: &str) -> Vec<OwnMap> {
    text.lines()
        .filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let start = u32::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?.min(0xffff_f000);
            let name = rest.split_whitespace().nth(4).unwrap_or_default().to_owned();
            Some(OwnMap { range: MapRange { start, end: u32::try_from(end).ok()? }, name })
        })
        .collect()
}

/// A 32-bit task cannot have more than 4 GiB of address space, but the emulator that runs one reserves more.
fn is_emulated(status: &str) -> bool {
    cfg!(target_pointer_width = "32")
        && status.lines().find_map(|l| l.strip_prefix("VmPeak:")).and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok()).is_some_and(|kib| kib >= 4 << 20)
}

fn status_hex(status: &str, key: &str) -> Option<u64> {
    u64::from_str_radix(status.lines().find_map(|l| l.strip_prefix(key))?.trim(), 16).ok()
}

/// The user/kernel split: the smallest that the kernel offers above our highest mapping (asm/memory.h; C.6 of the docs).
fn task_size(maps: &[OwnMap], emulated: bool) -> u32 {
    if emulated {
        return 0xffff_0000;
    }
    let top = maps.iter().filter(|m| m.range.start < 0xffff_0000).map(|m| m.range.end).max().unwrap_or(0);
    [0x3f00_0000, 0x7f00_0000, 0xaf00_0000, 0xbf00_0000].into_iter().find(|s| *s >= top).unwrap_or(0xffff_0000)
}

fn sysctl(name: &str) -> Option<u32> {
    std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok()
}

fn writable(path: &str) -> bool {
    std::fs::OpenOptions::new().write(true).open(path).is_ok()
}

/// Who has this pid: `armrest (pid 136)`.
fn taken_by(pid: u32) -> Option<String> {
    let n = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: signal 0 only asks whether the process exists.
    let free = unsafe { libc::kill(n, 0) } != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    (!free).then(|| format!("\"{}\" (pid {pid})", os::comm(pid)))
}

fn release() -> String {
    let mut u = std::mem::MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: uname fills the structure with NUL-terminated strings; zeroed it is valid too.
    let u = unsafe {
        libc::uname(u.as_mut_ptr());
        u.assume_init()
    };
    // SAFETY: `release` is NUL-terminated within its array.
    unsafe { CStr::from_ptr(u.release.as_ptr()) }.to_string_lossy().into_owned()
}

fn at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut n = release.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse::<u32>().unwrap_or(0));
    (n.next().unwrap_or(0), n.next().unwrap_or(0)) >= (major, minor)
}

fn auxval(key: libc::c_ulong) -> u32 {
    // SAFETY: getauxval only reads the auxiliary vector.
    u32::try_from(unsafe { libc::getauxval(key) } & 0xffff_ffff).unwrap_or(0)
}

fn platform() -> String {
    // SAFETY: getauxval only reads the auxiliary vector.
    let p = unsafe { libc::getauxval(libc::AT_PLATFORM) };
    let p = std::ptr::with_exposed_provenance::<libc::c_char>(usize::try_from(p).unwrap_or(0));
    if p.is_null() {
        return String::new();
    }
    // SAFETY: the kernel put a NUL-terminated string there, and nothing changes it.
    unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned()
}

fn monotonic_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    u64::try_from(i64::from(t.tv_sec) * 1_000_000_000 + i64::from(t.tv_nsec)).unwrap_or(0)
}

fn own_brk() -> u32 {
    // SAFETY: brk(0) only asks.
    u32::try_from(unsafe { libc::syscall(libc::SYS_brk, 0) }.cast_unsigned() & 0xffff_ffff).unwrap_or(0)
}

/// `ENOSYS` or not: does the call exist?
fn exists(ret: libc::c_long) -> bool {
    ret >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}

fn has_robust_list() -> bool {
    // SAFETY: a length of 0 is refused with EINVAL before anything is looked at.
    exists(unsafe { libc::syscall(libc::SYS_set_robust_list, 0, 0) })
}

fn has_rseq() -> bool {
    // SAFETY: unknown flags are refused with EINVAL before anything is looked at.
    exists(unsafe { libc::syscall(libc::SYS_rseq, 0, 0, 0x80, 0) })
}

fn has_clone3() -> bool {
    // SAFETY: a size of 0 is refused with EINVAL before anything is looked at.
    exists(unsafe { libc::syscall(libc::SYS_clone3, 0, 0) })
}

fn mm_map_size() -> Option<u32> {
    let mut size = 0u32;
    // SAFETY: PR_SET_MM_MAP_SIZE writes one unsigned int.
    let ret = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP_SIZE, std::ptr::from_mut(&mut size), 0, 0) };
    (ret == 0).then_some(size)
}

fn has_thp_disable() -> bool {
    // SAFETY: only reads the flag.
    unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, 0, 0, 0, 0) >= 0 }
}

/// Our own registration, made by glibc 2.35 and later: address, length, signature.
fn own_rseq() -> Option<(u32, u32, u32)> {
    /// Signature of ARM (sys/rseq.h).
    const SIG: u32 = 0xe7f5_def3;
    /// The ARM private call `get_tls` (arch/arm/include/uapi/asm/unistd.h).
    const GET_TLS: libc::c_long = 0x000f_0006;
    if cfg!(not(target_arch = "arm")) || !has_rseq() {
        return None;
    }
    unsafe extern "C" {
        static __rseq_offset: isize;
        static __rseq_size: libc::c_uint;
    }
    // SAFETY: constants that glibc exports and sets before main.
    let (offset, size) = unsafe { (__rseq_offset, __rseq_size) };
    if size == 0 {
        return None;
    }
    // SAFETY: reads the thread register.
    let tp = unsafe { libc::syscall(GET_TLS) };
    let addr = u32::try_from((tp as isize).wrapping_add(offset).cast_unsigned() & 0xffff_ffff).ok()?;
    (tp != -1).then_some((addr, size.max(32), SIG))
}

/// Reserved scratch memory that goes away again.
struct Scratch {
    at: usize,
    len: usize,
}

impl Scratch {
    fn new(len: usize) -> io::Result<Scratch> {
        // SAFETY: a new private mapping without rights, placed by the kernel.
        let p = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        if p == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Scratch { at: p.expose_provenance(), len }) }
    }
    /// An address in it that is a page behind a multiple of SHMLBA, with at least two SHMLBA behind it.
    fn off_shmlba(&self) -> *mut libc::c_void {
        std::ptr::with_exposed_provenance_mut(self.at.next_multiple_of(SHMLBA) + PAGE)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: our own reservation, with whatever a probe mapped into it.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.at), self.len) };
    }
}

/// Is `shmat` off SHMLBA refused? (`__ARCH_FORCE_SHMLBA`)
pub fn shmlba_enforced() -> io::Result<bool> {
    let scratch = Scratch::new(4 * SHMLBA)?;
    // SAFETY: makes a private one-page segment.
    let id = os::check(unsafe { libc::shmget(libc::IPC_PRIVATE, PAGE, libc::IPC_CREAT | 0o600) })?;
    // SAFETY: SHM_REMAP replaces a page of our own reservation.
    let p = unsafe { libc::shmat(id, scratch.off_shmlba(), libc::SHM_REMAP) };
    let enforced = p.expose_provenance() == usize::MAX;
    if !enforced {
        // SAFETY: attached just now.
        unsafe { libc::shmdt(p) };
    }
    // SAFETY: removes our own segment.
    unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    Ok(enforced)
}

/// Does the data cache alias? Then a shared mapping at the wrong colour is refused.
pub fn cache_aliases() -> io::Result<bool> {
    let scratch = Scratch::new(4 * SHMLBA)?;
    let fd = os::memfd("armrest-probe", &[0; 2 * PAGE])?;
    // SAFETY: MAP_FIXED inside our own reservation.
    let p = unsafe {
        libc::mmap(scratch.off_shmlba(), PAGE, libc::PROT_READ, libc::MAP_SHARED | libc::MAP_FIXED, std::os::fd::AsRawFd::as_raw_fd(&fd), 0)
    };
    Ok(p == libc::MAP_FAILED && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL))
}

/// Which of the advice numbers that images record does this kernel take?
fn known_advice() -> Vec<u32> {
    let Ok(scratch) = Scratch::new(PAGE) else { return Vec::new() };
    [1, 2, 10, 12, 14, 15, 16, 18]
        .into_iter()
        .filter(|a| {
            let advice = libc::c_int::try_from(*a).unwrap_or(0);
            // SAFETY: advice on a page of our own reservation.
            unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(scratch.at), PAGE, advice) == 0 }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_lines_are_read() {
        let m = own_maps("00010000-00066000 r-xp 00000000 08:00 12 /bin/x\nffff0000-ffff1000 r-xp 00000000 00:00 0 [vectors]\n7fff00000000-7fff00001000 r--p 0 0 0\n");
        assert_eq!(m.len(), 2);
        assert_eq!(m[1].name, "[vectors]");
        assert_eq!(m[0].range, MapRange { start: 0x10000, end: 0x66000 });
    }

    #[test]
    fn releases_compare_by_number() {
        assert!(at_least("6.1.0-50-armmp", 5, 5) && at_least("5.10", 5, 5) && !at_least("5.4.0", 5, 5));
    }
}
