//! The facts of this kernel and of our own process, gathered once: [`probe()`] fills a [`Machine`].
//!
//! What has to be tried is asked in `probe`, harmlessly; what can be read is read here.

use std::ffi::CStr;
use std::io;

use armrest_images::IpcLimits;
use armrest_plan::needs::Needs;
use armrest_plan::timers::TimerIds;
use armrest_plan::{Machine, MapRange, OwnMap, Rights};

use crate::os::{self, status_field, status_hex};
use crate::probe::{self, Fact};

/// CAP_SYS_ADMIN and CAP_CHECKPOINT_RESTORE, either of which lets a process choose ids (capabilities(7)).
const CHOOSERS: u64 = 1 << 21 | 1 << 40;

/// Is SHMLBA enforced? Asking makes a segment for a moment.
pub fn shmlba_enforced() -> bool {
    !matches!(probe::shmlba_enforced(), Fact::No(_))
}

/// Gather the facts that `needs` names; the others are what they are on most machines. `ids` are those that a restore
/// would want, the pid first, to say who has one; `shmlba_enforced` what was found of that, or true where it does not
/// matter.
pub fn probe(ids: &[u32], shmlba_enforced: bool, needs: Needs<'_>) -> io::Result<Machine> {
    let maps = own_maps(&os::read_proc("/proc/self/maps")?);
    let status = os::read_small("/proc/self/status").unwrap_or_default();
    // Every kernel gives its 32-bit tasks a sigpage, and no emulator shows one: no need to ask further.
    let emulated = !maps.iter().any(|m| m.name == "[sigpage]") && probe::emulated();
    let cap_eff = status_hex(&status, "CapEff:").unwrap_or(0);
    let privileged = cap_eff & CHOOSERS != 0;
    let has_rseq = probe::rseq().is_yes();
    let has_set_tid = privileged && probe::set_tid().is_yes();
    let (own_nice, own_sched) = (nice(), scheduler());
    let own_rseq = has_rseq.then(own_rseq).flatten();
    Ok(Machine {
        task_size: task_size(&maps, emulated),
        emulated,
        mmap_min_addr: sysctl("vm/mmap_min_addr").unwrap_or(0x1_0000),
        max_map_count: needs
            .map_count()
            .then(|| sysctl("vm/max_map_count"))
            .flatten()
            .unwrap_or(65530),
        shmlba_enforced,
        cache_aliases: needs.colours() && probe::cache_aliases().is_yes(),
        has_robust_list: probe::robust_list().is_yes(),
        has_rseq,
        own_rseq,
        has_set_tid,
        // A 64-bit kernel lays the structure out for 64-bit tasks, in as many bytes: there the fields go one by one.
        has_mm_map: privileged
            && task_size(&maps, emulated) <= HIGHEST_SPLIT
            && probe::mm_map().is_yes(),
        has_mm_singles: probe::mm_singles().is_yes(),
        has_ptrace: probe::may_ptrace(&status).is_yes(),
        madvise: needs
            .advice()
            .then(probe::madvise)
            .and_then(Result::ok)
            .unwrap_or_default()
            .into_iter()
            // An emulator says yes to any advice; of a guard range more would be missing than a wish.
            .filter(|a| !emulated || *a != armrest_plan::consts::MADV_GUARD_INSTALL)
            .collect(),
        // An emulator hands no sizes through.
        huge_pages: if needs.huge_pages() && !emulated {
            probe::huge_pages()
        } else {
            Vec::new()
        },
        has_seccomp: probe::seccomp().is_yes(),
        membarrier: probe::membarrier(),
        own: own_rights(&status, needs)?,
        timer_ids: if needs.timers() {
            probe::timer_ids()
        } else {
            TimerIds::Counted
        },
        has_timens: needs.timens() && probe::timens(cap_eff).is_yes(),
        has_time64: probe::time64().is_yes(),
        has_thp_disable: probe::thp_disable().is_yes(),
        has_timerfd_ticks: needs.timerfd_ticks() && crate::objects::event::can_set_ticks(),
        may_choose_pid: has_set_tid || privileged && writable("/proc/sys/kernel/ns_last_pid"),
        may_choose_ids: privileged && needs.ipc() && probe::shm_next_id().is_yes(),
        ipc: needs.ipc().then(ipc_limits).flatten(),
        pid_taken_by: ids.first().and_then(|pid| taken_by(*pid)),
        tid_taken_by: ids
            .iter()
            .skip(1)
            .find_map(|tid| Some((*tid, taken_by(*tid)?))),
        own_nice,
        own_sched,
        may_nice: needs.nice(own_nice, own_sched) && may_nice(),
        hwcap: auxval(libc::AT_HWCAP),
        hwcap2: auxval(libc::AT_HWCAP2),
        page_size: auxval(libc::AT_PAGESZ),
        platform: platform(),
        monotonic_ns: os::clock_ns(libc::CLOCK_MONOTONIC),
        own_brk: own_brk(),
        // SAFETY: takes no argument and cannot fail.
        euid: unsafe { libc::geteuid() },
        privileged,
        vdso: own_bytes(&maps, "[vdso]"),
        sigpage: own_bytes(&maps, "[sigpage]"),
        svc_by_r7: !emulated && svc_by_r7(),
        cap_eff,
        cap_bnd: status_hex(&status, "CapBnd:").unwrap_or(0),
        release: probe::release(),
        maps,
    })
}

/// Our effective capabilities.
pub fn cap_eff() -> u64 {
    let status = os::read_small("/proc/self/status").unwrap_or_default();
    status_hex(&status, "CapEff:").unwrap_or(0)
}

/// Limits of our IPC namespace; `None` if the kernel has no SysV IPC.
fn ipc_limits() -> Option<IpcLimits> {
    let many = |name: &str| -> Option<Vec<u64>> {
        let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
        text.split_whitespace().map(|w| w.parse().ok()).collect()
    };
    let one = |name: &str| many(name)?.first().copied();
    // A 64-bit kernel below an emulator has limits that no 32-bit program can reach.
    let word = |name: &str| Some(u32::try_from(one(name)?).unwrap_or(u32::MAX));
    let sem = many("kernel/sem")?;
    let sem = |i: usize| Some(u32::try_from(*sem.get(i)?).unwrap_or(u32::MAX));
    Some(IpcLimits {
        sem: [sem(0)?, sem(1)?, sem(2)?, sem(3)?],
        msgmax: word("kernel/msgmax")?,
        msgmnb: word("kernel/msgmnb")?,
        msgmni: word("kernel/msgmni")?,
        shmmax: one("kernel/shmmax")?,
        shmall: one("kernel/shmall")?,
        shmmni: word("kernel/shmmni")?,
        shm_rmid_forced: word("kernel/shm_rmid_forced")?,
        mqueue: [
            word("fs/mqueue/queues_max"),
            word("fs/mqueue/msg_max"),
            word("fs/mqueue/msgsize_max"),
            word("fs/mqueue/msg_default"),
            word("fs/mqueue/msgsize_default"),
        ],
        next: [None; 3],
    })
}

/// Who we are, from the text of `/proc/self/status`.
fn own_rights(status: &str, needs: Needs<'_>) -> io::Result<Rights> {
    let ids = |key| status_ids(status, key).ok_or(io::ErrorKind::InvalidData);
    let set = |key| status_hex(status, key).unwrap_or(0);
    let ([ruid, euid, suid, fsuid], [rgid, egid, sgid, fsgid]) = (ids("Uid:")?, ids("Gid:")?);
    let groups = status_field(status, "Groups:");
    let prctl = |option| {
        // SAFETY: numbers only; both options ask.
        u32::try_from(unsafe { libc::prctl(option, 0, 0, 0, 0) }).unwrap_or(0)
    };
    let bounding = set("CapBnd:");
    let last_cap = needs
        .last_cap(bounding)
        .then(|| sysctl("kernel/cap_last_cap"))
        .flatten();
    let mut rights = Rights {
        uids: [ruid, euid, suid],
        fsuid,
        gids: [rgid, egid, sgid],
        fsgid,
        groups: groups
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|g| g.parse().ok())
            .collect(),
        may_setgroups: true,
        cap_inh: set("CapInh:"),
        cap_prm: set("CapPrm:"),
        cap_eff: set("CapEff:"),
        cap_bnd: bounding,
        cap_amb: set("CapAmb:"),
        last_cap: last_cap.unwrap_or(bounding.checked_ilog2().unwrap_or(40)),
        securebits: prctl(libc::PR_GET_SECUREBITS),
        no_new_privs: prctl(libc::PR_GET_NO_NEW_PRIVS) == 1,
        uid_map: vec![(0, u32::MAX)],
        gid_map: vec![(0, u32::MAX)],
    };
    if needs.id_maps(&rights) {
        rights.may_setgroups =
            os::read_small("/proc/self/setgroups").map_or(true, |s| s.trim() == "allow");
        rights.uid_map = id_map("uid_map");
        rights.gid_map = id_map("gid_map");
    }
    Ok(rights)
}

/// Real, effective, saved, and for files.
fn status_ids(status: &str, key: &str) -> Option<[u32; 4]> {
    let ids: Vec<u32> = status_field(status, key)?
        .split_whitespace()
        .filter_map(|i| i.parse().ok())
        .collect();
    ids.try_into().ok()
}

/// Ids that exist in our user namespace; all, where there are no such namespaces.
fn id_map(name: &str) -> Vec<(u32, u32)> {
    let Ok(text) = std::fs::read_to_string(format!("/proc/self/{name}")) else {
        return vec![(0, u32::MAX)];
    };
    text.lines()
        .filter_map(|l| {
            let mut words = l.split_whitespace();
            let first = words.next()?.parse().ok()?;
            Some((first, words.nth(1)?.parse().ok()?))
        })
        .collect()
}

/// The ranges of `/proc/self/maps` text. Lines that do not fit 32 bits (a 64-bit host) are left out.
pub fn own_maps(text: &str) -> Vec<OwnMap> {
    text.lines()
        .filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let start = u32::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?.min(0xffff_f000);
            // Rights, offset, device and inode have neither.
            let begins = |b: u8| b == b'/' || b == b'[';
            let name = rest.bytes().position(begins).map_or("", |at| &rest[at..]);
            Some(OwnMap {
                range: MapRange {
                    start,
                    end: u32::try_from(end).ok()?,
                },
                name: name.to_owned(),
            })
        })
        .collect()
}

/// Does the kernel take the call's number from r7, whatever the immediate of `svc` says? OABI kernels do not.
#[cfg(target_arch = "arm")]
fn svc_by_r7() -> bool {
    /// Linked with the code, so that it can be run where it lies.
    #[unsafe(link_section = ".text.svc_probe")]
    static CODE: [u32; armrest_arch::SVC_PROBE.len()] = armrest_arch::SVC_PROBE;
    let code: *const u32 = std::hint::black_box(CODE.as_ptr());
    // SAFETY: these words are a leaf function in ARM state, word-aligned among the code of this program, which is mapped
    // readable and executable; it makes one harmless call and keeps what a callee must keep.
    unsafe {
        let ask: extern "C" fn() -> libc::pid_t = std::mem::transmute(code);
        ask() == libc::getpid()
    }
}

#[cfg(not(target_arch = "arm"))]
fn svc_by_r7() -> bool {
    false
}

/// Bytes of one of our own mappings that the kernel made and nobody writes.
fn own_bytes(maps: &[OwnMap], name: &str) -> Option<Vec<u8>> {
    let r = maps.iter().find(|m| m.name == name)?.range;
    let at: *const u8 = std::ptr::with_exposed_provenance(r.start as usize);
    // SAFETY: the kernel lists the range as mapped in this process, readable, and it stays so until the restore.
    Some(unsafe { std::slice::from_raw_parts(at, (r.end - r.start) as usize) }.to_vec())
}

/// Where the tasks of a 32-bit kernel end at most. Mappings above it are those of a 32-bit task of a 64-bit kernel.
const HIGHEST_SPLIT: u32 = 0xbf00_0000;

/// The user/kernel split: the smallest that the kernel offers above our highest mapping (asm/memory.h; C.6 of the docs).
fn task_size(maps: &[OwnMap], emulated: bool) -> u32 {
    if emulated {
        return 0xffff_0000;
    }
    let top = maps
        .iter()
        .filter(|m| m.range.start < 0xffff_0000)
        .map(|m| m.range.end)
        .max()
        .unwrap_or(0);
    [0x3f00_0000, 0x7f00_0000, 0xaf00_0000, 0xbf00_0000]
        .into_iter()
        .find(|s| *s >= top)
        .unwrap_or(0xffff_0000)
}

fn sysctl(name: &str) -> Option<u32> {
    os::read_small(&format!("/proc/sys/{name}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn writable(path: &str) -> bool {
    std::fs::OpenOptions::new().write(true).open(path).is_ok()
}

fn nice() -> i32 {
    // SAFETY: numbers only; it can be -1 without an error, which cannot happen here.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Policy and priority.
fn scheduler() -> (u32, u32) {
    let mut priority: libc::c_int = 0;
    // SAFETY: `struct sched_param` is one int on Linux; libc's own function is a stub in some of its versions.
    let policy = unsafe {
        libc::syscall(libc::SYS_sched_getparam, 0, &raw mut priority);
        libc::syscall(libc::SYS_sched_getscheduler, 0)
    };
    (
        u32::try_from(policy).unwrap_or(0),
        u32::try_from(priority).unwrap_or(0),
    )
}

/// May a nice value be lowered, and a real-time policy be taken? Tried on our own nice value, which is put back.
fn may_nice() -> bool {
    let now = nice();
    // At the lowest, the way down to it is asked for again.
    let lower = if now > -20 { now - 1 } else { now };
    // SAFETY: numbers only.
    unsafe {
        let may = libc::setpriority(libc::PRIO_PROCESS, 0, lower) == 0;
        libc::setpriority(libc::PRIO_PROCESS, 0, now);
        may
    }
}

/// Who has this pid: `armrest (pid 136)`.
fn taken_by(pid: u32) -> Option<String> {
    let n = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: signal 0 only asks whether the process exists.
    let free = unsafe { libc::kill(n, 0) } != 0
        && io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    (!free).then(|| format!("\"{}\" (pid {pid})", os::comm(pid)))
}

/// The low 32 bits of a machine word, whatever its size.
fn low32(word: impl Into<u64>) -> u32 {
    u32::try_from(word.into() & 0xffff_ffff).unwrap_or(0)
}

fn auxval(key: libc::c_ulong) -> u32 {
    // SAFETY: getauxval only reads the auxiliary vector.
    low32(unsafe { libc::getauxval(key) })
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

fn own_brk() -> u32 {
    // SAFETY: brk(0) only asks.
    low32(unsafe { libc::syscall(libc::SYS_brk, 0) }.cast_unsigned())
}

/// Our own registration, made by glibc 2.35 and later: address, length, signature.
fn own_rseq() -> Option<(u32, u32, u32)> {
    /// Signature of ARM (sys/rseq.h).
    const SIG: u32 = 0xe7f5_def3;
    /// The ARM private call `get_tls` (arch/arm/include/uapi/asm/unistd.h).
    const GET_TLS: libc::c_long = 0x000f_0006;
    if cfg!(not(target_arch = "arm")) {
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
    let addr = isize::try_from(tp)
        .ok()?
        .wrapping_add(offset)
        .cast_unsigned();
    (tp != -1).then_some((u32::try_from(addr).ok()?, size.max(32), SIG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_told_by_the_highest_mapping() {
        let size = |maps: &str| task_size(&own_maps(maps), false);
        let stack = |end: &str| {
            format!(
                "00010000-00011000 r-xp 0 0 0 /a\n{end} rw-p 0 0 0 [stack]\nffff0000-ffff1000 r-xp 0 0 0 [vectors]\n"
            )
        };
        assert_eq!(size(&stack("bed00000-bed21000")), 0xbf00_0000);
        assert_eq!(size(&stack("7efdf000-7f000000")), 0x7f00_0000);
        assert_eq!(size(&stack("aeddf000-aee00000")), 0xaf00_0000);
        assert_eq!(size(&stack("ffabd000-ffade000")), 0xffff_0000);
    }

    #[test]
    fn maps_lines_are_read() {
        let m = own_maps(
            "00010000-00066000 r-xp 00000000 08:00 12 /bin/x\nffff0000-ffff1000 r-xp 00000000 00:00 0 [vectors]\n7fff00000000-7fff00001000 r--p 0 0 0\n",
        );
        assert_eq!(m.len(), 2);
        assert_eq!(m[1].name, "[vectors]");
        assert_eq!(
            m[0].range,
            MapRange {
                start: 0x10000,
                end: 0x66000
            }
        );
    }
}
