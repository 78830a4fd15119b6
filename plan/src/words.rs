//! Calls, errors and reports in words: for `armrest plan`, and for the one sentence of a restore that failed.

use armrest_abi::consts as c;
use armrest_abi::{CloneArgs, Iovec, Report, ReportKind, Step};
use armrest_blob::Check;
use armrest_blob::kernel::nr;
use armrest_images::Checkpoint;

use crate::record::{Recorded, iovecs};
use crate::types::{Plan, SourceKind};

/// Linux error numbers in order from 1 (include/uapi/asm-generic/errno-base.h and errno.h, which ARM uses).
const ERRNOS: [&str; 133] = [
    "EPERM",
    "ENOENT",
    "ESRCH",
    "EINTR",
    "EIO",
    "ENXIO",
    "E2BIG",
    "ENOEXEC",
    "EBADF",
    "ECHILD",
    "EAGAIN",
    "ENOMEM",
    "EACCES",
    "EFAULT",
    "ENOTBLK",
    "EBUSY",
    "EEXIST",
    "EXDEV",
    "ENODEV",
    "ENOTDIR",
    "EISDIR",
    "EINVAL",
    "ENFILE",
    "EMFILE",
    "ENOTTY",
    "ETXTBSY",
    "EFBIG",
    "ENOSPC",
    "ESPIPE",
    "EROFS",
    "EMLINK",
    "EPIPE",
    "EDOM",
    "ERANGE",
    "EDEADLK",
    "ENAMETOOLONG",
    "ENOLCK",
    "ENOSYS",
    "ENOTEMPTY",
    "ELOOP",
    "",
    "ENOMSG",
    "EIDRM",
    "ECHRNG",
    "EL2NSYNC",
    "EL3HLT",
    "EL3RST",
    "ELNRNG",
    "EUNATCH",
    "ENOCSI",
    "EL2HLT",
    "EBADE",
    "EBADR",
    "EXFULL",
    "ENOANO",
    "EBADRQC",
    "EBADSLT",
    "",
    "EBFONT",
    "ENOSTR",
    "ENODATA",
    "ETIME",
    "ENOSR",
    "ENONET",
    "ENOPKG",
    "EREMOTE",
    "ENOLINK",
    "EADV",
    "ESRMNT",
    "ECOMM",
    "EPROTO",
    "EMULTIHOP",
    "EDOTDOT",
    "EBADMSG",
    "EOVERFLOW",
    "ENOTUNIQ",
    "EBADFD",
    "EREMCHG",
    "ELIBACC",
    "ELIBBAD",
    "ELIBSCN",
    "ELIBMAX",
    "ELIBEXEC",
    "EILSEQ",
    "ERESTART",
    "ESTRPIPE",
    "EUSERS",
    "ENOTSOCK",
    "EDESTADDRREQ",
    "EMSGSIZE",
    "EPROTOTYPE",
    "ENOPROTOOPT",
    "EPROTONOSUPPORT",
    "ESOCKTNOSUPPORT",
    "EOPNOTSUPP",
    "EPFNOSUPPORT",
    "EAFNOSUPPORT",
    "EADDRINUSE",
    "EADDRNOTAVAIL",
    "ENETDOWN",
    "ENETUNREACH",
    "ENETRESET",
    "ECONNABORTED",
    "ECONNRESET",
    "ENOBUFS",
    "EISCONN",
    "ENOTCONN",
    "ESHUTDOWN",
    "ETOOMANYREFS",
    "ETIMEDOUT",
    "ECONNREFUSED",
    "EHOSTDOWN",
    "EHOSTUNREACH",
    "EALREADY",
    "EINPROGRESS",
    "ESTALE",
    "EUCLEAN",
    "ENOTNAM",
    "ENAVAIL",
    "EISNAM",
    "EREMOTEIO",
    "EDQUOT",
    "ENOMEDIUM",
    "EMEDIUMTYPE",
    "ECANCELED",
    "ENOKEY",
    "EKEYEXPIRED",
    "EKEYREVOKED",
    "EKEYREJECTED",
    "EOWNERDEAD",
    "ENOTRECOVERABLE",
    "ERFKILL",
    "EHWPOISON",
];

/// Name of a positive error number, e.g. `ENOMEM`, or `errno 4000`.
pub fn errno(n: u32) -> String {
    let at = usize::try_from(n).unwrap_or(0).wrapping_sub(1);
    match ERRNOS.get(at) {
        Some(name) if !name.is_empty() => (*name).to_owned(),
        _ => format!("errno {n}"),
    }
}

/// What a step does, as in "while … ".
pub fn step(step: Step) -> &'static str {
    match step {
        Step::Start => "entering the blob",
        Step::Verify => "checking the restore arguments",
        Step::Detach => "taking back the old program's registrations",
        Step::Park => "parking what the kernel cannot recreate",
        Step::Unmap => "unmapping the old address space",
        Step::Shm => "attaching SysV shared memory",
        Step::Map => "mapping memory",
        Step::Fill => "reading memory contents",
        Step::Protect => "setting the final protections",
        Step::Unpark => "putting parked mappings in place",
        Step::Advise => "applying madvise and mlock",
        Step::Mm => "setting the kernel's mm fields",
        Step::Threads => "making threads and registering what is theirs",
        Step::Signals => "queueing pending signals",
        Step::Timers => "arming timers",
        Step::Creds => "setting credentials",
        Step::Enter => "entering the restored program",
    }
}

/// Short name of a step, as in docs and in `armrest plan`.
pub fn step_name(step: Step) -> String {
    format!("{step:?}").to_lowercase()
}

/// Names of a call; `syscall 999` if the blob makes no such call.
pub fn call_name(n: u32) -> String {
    let name = match n {
        nr::WRITE => "write",
        nr::CLOSE => "close",
        nr::GETPID => "getpid",
        nr::MUNMAP => "munmap",
        nr::SETPRIORITY => "setpriority",
        nr::CLONE => "clone",
        nr::SCHED_SETSCHEDULER => "sched_setscheduler",
        nr::PWRITE64 => "pwrite64",
        nr::CLONE3 => "clone3",
        nr::SETITIMER => "setitimer",
        nr::TIMER_CREATE => "timer_create",
        nr::TIMER_SETTIME => "timer_settime",
        nr::TIMER_SETTIME64 => "timer_settime64",
        nr::TIMER_DELETE => "timer_delete",
        nr::MPROTECT => "mprotect",
        nr::MLOCK => "mlock",
        nr::MREMAP => "mremap",
        nr::PRCTL => "prctl",
        nr::RT_SIGRETURN => "rt_sigreturn",
        nr::RT_SIGQUEUEINFO => "rt_sigqueueinfo",
        nr::SIGALTSTACK => "sigaltstack",
        nr::MMAP2 => "mmap2",
        nr::MADVISE => "madvise",
        nr::EXIT_GROUP => "exit_group",
        nr::SET_TID_ADDRESS => "set_tid_address",
        nr::SHMAT => "shmat",
        nr::SHMCTL => "shmctl",
        nr::SET_ROBUST_LIST => "set_robust_list",
        nr::PREADV => "preadv",
        nr::RT_TGSIGQUEUEINFO => "rt_tgsigqueueinfo",
        nr::RSEQ => "rseq",
        nr::FUTEX => "futex",
        nr::SETGROUPS32 => "setgroups32",
        nr::SETRESUID32 => "setresuid32",
        nr::SETRESGID32 => "setresgid32",
        nr::SETFSUID32 => "setfsuid32",
        nr::SETFSGID32 => "setfsgid32",
        nr::CAPSET => "capset",
        nr::SECCOMP => "seccomp",
        nr::MEMBARRIER => "membarrier",
        nr::FCNTL64 => "fcntl64",
        nr::CACHEFLUSH => "cacheflush",
        nr::SET_TLS => "set_tls",
        _ => return format!("syscall {n}"),
    };
    name.to_owned()
}

/// Bits by name, the rest in hex; `none` if there is no bit.
fn flags(value: u32, names: &[(u32, &str)], none: &str) -> String {
    let mut rest = value;
    let mut out: Vec<String> = Vec::new();
    for (bits, name) in names.iter().filter(|(bits, _)| value & bits == *bits) {
        rest &= !bits;
        out.push((*name).to_owned());
    }
    if rest != 0 {
        out.push(format!("{rest:#x}"));
    }
    if out.is_empty() {
        none.to_owned()
    } else {
        out.join("|")
    }
}

/// `PROT_READ|PROT_WRITE`.
pub fn prot(value: u32) -> String {
    flags(
        value,
        &[
            (c::PROT_READ, "PROT_READ"),
            (c::PROT_WRITE, "PROT_WRITE"),
            (c::PROT_EXEC, "PROT_EXEC"),
        ],
        "PROT_NONE",
    )
}

fn map_flags(value: u32) -> String {
    let names = [
        (c::MAP_SHARED, "MAP_SHARED"),
        (c::MAP_PRIVATE, "MAP_PRIVATE"),
        (c::MAP_FIXED, "MAP_FIXED"),
        (c::MAP_ANONYMOUS, "MAP_ANONYMOUS"),
        (c::MAP_GROWSDOWN, "MAP_GROWSDOWN"),
        (c::MAP_LOCKED, "MAP_LOCKED"),
        (c::MAP_NORESERVE, "MAP_NORESERVE"),
        (c::MAP_HUGETLB, "MAP_HUGETLB"),
    ];
    flags(value, &names, "0")
}

fn shm_flags(value: u32) -> String {
    flags(
        value,
        &[
            (c::SHM_RDONLY, "SHM_RDONLY"),
            (c::SHM_REMAP, "SHM_REMAP"),
            (c::SHM_EXEC, "SHM_EXEC"),
        ],
        "0",
    )
}

/// Name of a `madvise` advice.
pub fn advice(value: u32) -> String {
    let name = match value {
        0 => "MADV_NORMAL",
        1 => "MADV_RANDOM",
        2 => "MADV_SEQUENTIAL",
        3 => "MADV_WILLNEED",
        4 => "MADV_DONTNEED",
        8 => "MADV_FREE",
        9 => "MADV_REMOVE",
        c::MADV_DONTFORK => "MADV_DONTFORK",
        11 => "MADV_DOFORK",
        c::MADV_MERGEABLE => "MADV_MERGEABLE",
        13 => "MADV_UNMERGEABLE",
        c::MADV_HUGEPAGE => "MADV_HUGEPAGE",
        c::MADV_NOHUGEPAGE => "MADV_NOHUGEPAGE",
        c::MADV_DONTDUMP => "MADV_DONTDUMP",
        17 => "MADV_DODUMP",
        c::MADV_WIPEONFORK => "MADV_WIPEONFORK",
        19 => "MADV_KEEPONFORK",
        20 => "MADV_COLD",
        21 => "MADV_PAGEOUT",
        c::MADV_GUARD_INSTALL => "MADV_GUARD_INSTALL",
        _ => return format!("advice {value}"),
    };
    name.to_owned()
}

fn signed(fd: u32) -> i32 {
    fd.cast_signed()
}

/// One call with its arguments decoded, e.g.
/// `mmap2(0x10000, 344064, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED, fd 7, page 12)`. `data` is the memory that the
/// call reads, if it is known.
pub fn describe(n: u32, a: &[u32; 6], data: Option<&[u8]>) -> String {
    let words: Vec<u32> = data
        .map(|d| {
            (0..d.len() / 4)
                .filter_map(|i| crate::record::read(d, i * 4))
                .collect()
        })
        .unwrap_or_default();
    let word = |i: usize| words.get(i).copied().unwrap_or(0);
    if let Some(inner) = crate::creds::describe(n, a, &words) {
        return format!("{}({inner})", call_name(n));
    }
    let inner = match n {
        nr::MMAP2 if a[3] & c::MAP_ANONYMOUS != 0 => {
            format!("{:#x}, {}, {}, {}", a[0], a[1], prot(a[2]), map_flags(a[3]))
        }
        nr::MMAP2 => format!(
            "{:#x}, {}, {}, {}, fd {}, page {}",
            a[0],
            a[1],
            prot(a[2]),
            map_flags(a[3]),
            signed(a[4]),
            a[5]
        ),
        nr::MUNMAP | nr::MLOCK => format!("{:#x}, {}", a[0], a[1]),
        nr::MPROTECT => format!("{:#x}, {}, {}", a[0], a[1], prot(a[2])),
        nr::MREMAP => {
            let how = flags(
                a[3],
                &[
                    (c::MREMAP_MAYMOVE, "MREMAP_MAYMOVE"),
                    (c::MREMAP_FIXED, "MREMAP_FIXED"),
                ],
                "0",
            );
            format!("{:#x}, {}, {}, {how}, {:#x}", a[0], a[1], a[2], a[4])
        }
        nr::MADVISE => format!("{:#x}, {}, {}", a[0], a[1], advice(a[2])),
        nr::SHMAT => format!("id {}, {:#x}, {}", signed(a[0]), a[1], shm_flags(a[2])),
        nr::SHMCTL if a[1] == c::IPC_RMID | c::IPC_64 => format!("id {}, IPC_RMID", signed(a[0])),
        nr::SHMCTL => format!("id {}, command {:#x}", signed(a[0]), a[1]),
        nr::PREADV => {
            let offset = u64::from(a[3]) | u64::from(a[4]) << 32;
            let what = match data {
                Some(d) => runs(&iovecs(d)),
                None => format!("{} runs", a[2]),
            };
            format!("fd {}, {what}, offset {offset}", signed(a[0]))
        }
        nr::CLOSE => format!("fd {}", signed(a[0])),
        nr::WRITE => format!("fd {}, {} bytes", signed(a[0]), a[2]),
        nr::CACHEFLUSH => format!("{:#x}, {:#x}, 0", a[0], a[1]),
        nr::SET_TLS | nr::SET_TID_ADDRESS => format!("{:#x}", a[0]),
        nr::SET_ROBUST_LIST => format!("{:#x}, {}", a[0], a[1]),
        nr::SIGALTSTACK if word(1) & c::SS_DISABLE != 0 => "SS_DISABLE".into(),
        nr::SIGALTSTACK => format!("{:#x}", a[0]),
        nr::RSEQ => {
            let how = if a[2] & c::RSEQ_FLAG_UNREGISTER != 0 {
                "RSEQ_FLAG_UNREGISTER"
            } else {
                "0"
            };
            format!("{:#x}, {}, {how}, signature {:#x}", a[0], a[1], a[3])
        }
        nr::PRCTL => prctl(a, data),
        nr::SETITIMER => {
            let which = ["ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"]
                .get(usize::try_from(a[0]).unwrap_or(9))
                .copied()
                .unwrap_or("?");
            if words.len() == 4 {
                format!(
                    "{which}, {}.{:06} s every {}.{:06} s",
                    word(2),
                    word(3),
                    word(0),
                    word(1)
                )
            } else {
                which.into()
            }
        }
        nr::TIMER_CREATE => {
            let event = match word(2) {
                _ if words.is_empty() => "SIGALRM".into(),
                1 => "SIGEV_NONE".into(),
                4 => format!("SIGEV_THREAD_ID {}, signal {}", word(3), word(1)),
                _ => format!("SIGEV_SIGNAL, signal {}", word(1)),
            };
            format!("{}, {event}", clock(a[0]))
        }
        nr::TIMER_DELETE => format!("timer {}", a[0]),
        nr::TIMER_SETTIME => timer_value(a[0], [word(2), 0, word(3)], [word(0), 0, word(1)]),
        nr::TIMER_SETTIME64 => timer_value(
            a[0],
            [word(4), word(5), word(6)],
            [word(0), word(1), word(2)],
        ),
        nr::RT_SIGQUEUEINFO => format!("pid {}, signal {}", a[0], a[1]),
        nr::GETPID => String::new(),
        nr::PWRITE64 => match data {
            Some(d) => format!(
                "fd {}, {:?}",
                signed(a[0]),
                String::from_utf8_lossy(d).trim_start()
            ),
            None => format!("fd {}, {} bytes", signed(a[0]), a[2]),
        },
        nr::CLONE => format!("{}, stack {:#x}", clone_flags(a[0]), a[1]),
        nr::CLONE3 => match data.and_then(|d| crate::record::read::<CloneArgs>(d, 0)) {
            Some(clone) => format!(
                "{}, stack {:#x}, set_tid at {:#x}",
                clone_flags(u32::try_from(clone.flags).unwrap_or(0)),
                clone.stack + clone.stack_size,
                clone.set_tid
            ),
            None => format!("{:#x}, {}", a[0], a[1]),
        },
        nr::SETPRIORITY => format!("PRIO_PROCESS, {}, {}", a[1], signed(a[2])),
        nr::SCHED_SETSCHEDULER => {
            let names = [
                (0, "SCHED_OTHER"),
                (1, "SCHED_FIFO"),
                (2, "SCHED_RR"),
                (3, "SCHED_BATCH"),
                (5, "SCHED_IDLE"),
            ];
            const RESET_ON_FORK: u32 = 0x4000_0000;
            let policy = names
                .iter()
                .find(|(n, _)| *n == a[1] & !RESET_ON_FORK)
                .map_or_else(|| format!("policy {:#x}", a[1]), |(_, name)| (*name).into());
            let reset = if a[1] & RESET_ON_FORK != 0 {
                "|SCHED_RESET_ON_FORK"
            } else {
                ""
            };
            format!("{}, {policy}{reset}, priority {}", a[0], word(0))
        }
        nr::RT_TGSIGQUEUEINFO => format!("pid {}, tid {}, signal {}", a[0], a[1], a[2]),
        nr::EXIT_GROUP => format!("{}", a[0]),
        nr::RT_SIGRETURN => String::new(),
        _ => a.map(|x| format!("{x:#x}")).join(", "),
    };
    format!("{}({inner})", call_name(n))
}

fn clone_flags(value: u32) -> String {
    let names = [
        (0x100, "CLONE_VM"),
        (0x200, "CLONE_FS"),
        (0x400, "CLONE_FILES"),
        (0x800, "CLONE_SIGHAND"),
        (0x1_0000, "CLONE_THREAD"),
        (0x4_0000, "CLONE_SYSVSEM"),
    ];
    flags(value, &names, "0")
}

fn runs(iovecs: &[Iovec]) -> String {
    let bytes: u64 = iovecs.iter().map(|v| u64::from(v.len)).sum();
    match iovecs {
        [one] => format!("{} bytes to {:#x}", one.len, one.base),
        [first, ..] => format!(
            "{bytes} bytes to {} runs from {:#x} on",
            iovecs.len(),
            first.base
        ),
        [] => "nothing".into(),
    }
}

/// Arming a timer: seconds (low, high) and nanoseconds.
fn timer_value(id: u32, left: [u32; 3], every: [u32; 3]) -> String {
    let time = |[lo, hi, ns]: [u32; 3]| {
        let sec = u64::from(hi) << 32 | u64::from(lo);
        format!("{sec}.{ns:09} s")
    };
    format!("timer {id}, {} every {}", time(left), time(every))
}

fn clock(id: u32) -> String {
    let names = [
        "CLOCK_REALTIME",
        "CLOCK_MONOTONIC",
        "CLOCK_PROCESS_CPUTIME_ID",
        "CLOCK_THREAD_CPUTIME_ID",
    ];
    let more = [
        (7, "CLOCK_BOOTTIME"),
        (8, "CLOCK_REALTIME_ALARM"),
        (9, "CLOCK_BOOTTIME_ALARM"),
        (11, "CLOCK_TAI"),
    ];
    let named = (0..).zip(names).chain(more).find(|n| n.0 == id);
    named.map_or_else(|| format!("clock {id:#x}"), |n| n.1.into())
}

fn prctl(a: &[u32; 6], data: Option<&[u8]>) -> String {
    match a[0] {
        c::PR_SET_NAME if data.is_none() => "PR_SET_NAME".into(),
        c::PR_SET_NAME => {
            let name = data.unwrap_or_default();
            let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
            format!("PR_SET_NAME, {:?}", String::from_utf8_lossy(&name[..end]))
        }
        c::PR_SET_MM if (1..=13).contains(&a[1]) => {
            const FIELDS: [&str; 13] = [
                "START_CODE",
                "END_CODE",
                "START_DATA",
                "END_DATA",
                "START_STACK",
                "START_BRK",
                "BRK",
                "ARG_START",
                "ARG_END",
                "ENV_START",
                "ENV_END",
                "AUXV",
                "EXE_FILE",
            ];
            let field = usize::try_from(a[1] - 1).map_or("", |i| FIELDS[i]);
            match a[1] {
                c::PR_SET_MM_AUXV => format!("PR_SET_MM, PR_SET_MM_{field}, {} bytes", a[3]),
                c::PR_SET_MM_EXE_FILE => format!("PR_SET_MM, PR_SET_MM_{field}, fd {}", a[2]),
                _ => format!("PR_SET_MM, PR_SET_MM_{field}, {:08x}", a[2]),
            }
        }
        c::PR_SET_MM if a[1] == c::PR_SET_MM_MAP => {
            format!("PR_SET_MM, PR_SET_MM_MAP, {} bytes", a[3])
        }
        c::PR_SET_THP_DISABLE => format!("PR_SET_THP_DISABLE, {}", a[1]),
        c::PR_TIMER_CREATE_RESTORE_IDS => format!("PR_TIMER_CREATE_RESTORE_IDS, {}", a[1]),
        c::PR_SET_DUMPABLE => format!("PR_SET_DUMPABLE, {}", a[1]),
        c::PR_SET_PDEATHSIG => format!("PR_SET_PDEATHSIG, {}", a[1]),
        option => format!("{option}, {:#x}, {:#x}, {:#x}", a[1], a[2], a[3]),
    }
}

/// A recorded call in words.
pub fn describe_recorded(r: &Recorded) -> String {
    describe(r.nr, &r.args, r.data.as_deref())
}

/// What a report means: where, of what, which call, which error, and what to try. `plan` is one of `cp`.
pub fn report(r: &Report, plan: &Plan, cp: &Checkpoint) -> String {
    if r.magic != Report::MAGIC || r.version != armrest_abi::ABI_VERSION {
        return format!(
            "the blob wrote a report of another version ({:#x}, {}): harness and blob do not belong together",
            r.magic, r.version
        );
    }
    let Some(step_known) = Step::from_number(r.step) else {
        return format!("the blob wrote a report with the unknown step {}", r.step);
    };
    let thread = if r.tid == 0 {
        String::new()
    } else {
        format!(", thread {}", r.tid)
    };
    let place = object(r, step_known, plan, cp).map_or(String::new(), |o| format!(": {o}"));
    let call = describe_in_plan(r, step_known, plan);
    let (what, hint) = match ReportKind::from_number(r.kind) {
        Some(ReportKind::Errno) => {
            let e = r.result.unsigned_abs();
            (
                format!("{call} failed with {}", errno(e)),
                hint(r.syscall, &errno(e)),
            )
        }
        Some(ReportKind::WrongAddress) => (
            format!(
                "{call} returned {:#x}, another address than asked for",
                r.result.cast_unsigned()
            ),
            "the kernel does not honour fixed addresses: run `armrest check`",
        ),
        Some(ReportKind::Truncated) => (
            format!(
                "{call} returned 0 with {} bytes to go: {} ends early",
                r.result.cast_unsigned(),
                pages_file(r, plan)
            ),
            "the file became shorter since the restore began: copy the checkpoint again",
        ),
        Some(ReportKind::WrongResult) => (
            format!("{call} returned {}", r.result),
            "the kernel did not do what it was asked for",
        ),
        Some(ReportKind::BadArgs) => (
            match Check::from_number(r.result.cast_unsigned()) {
                Some(check) => format!(
                    "the restore arguments contradict themselves ({})",
                    check_words(check)
                ),
                None => format!(
                    "the restore arguments contradict themselves (check {})",
                    r.result
                ),
            },
            "a defect of armrest or of the tool that loaded the blob: please report it",
        ),
        Some(ReportKind::OutOfHeap) => (
            format!(
                "the blob's heap is used up (asked for {} bytes)",
                r.result.cast_unsigned()
            ),
            "a defect of armrest: please report it",
        ),
        Some(ReportKind::Panic) => (
            format!("the blob panicked at line {}", r.result),
            "a defect of armrest: please report it",
        ),
        Some(ReportKind::WrongTid) => (
            format!(
                "the kernel gave a new thread the id {}, not {}",
                r.result,
                wanted_tid(r, plan)
            ),
            "another process was faster: end it, or use --new-namespaces or --any-pid",
        ),
        None => (
            format!("the blob wrote a report of the unknown kind {}", r.kind),
            "harness and blob do not belong together",
        ),
    };
    format!("while {}{thread}{place}: {what}; {hint}", step(step_known))
}

/// The thing that a report is about.
fn object(r: &Report, step: Step, plan: &Plan, cp: &Checkpoint) -> Option<String> {
    let row = usize::try_from(r.row).ok()?;
    if r.object != Report::NO_OBJECT {
        let at = usize::try_from(r.object).ok()?;
        let live = cp.tasks.get(plan.task).and_then(|t| t.live.as_ref());
        let vma = live.and_then(|l| l.mm.vmas.get(at));
        return Some(vma.map_or_else(
            || format!("object {}", r.object),
            |v| crate::vma_name(cp, v),
        ));
    }
    match step {
        Step::Unmap => plan
            .tables
            .unmaps
            .get(row)
            .map(|u| format!("{:08x}-{:08x} of the old address space", u.start, u.end)),
        Step::Fill => Some(format!(
            "batch {} of {} of {}",
            row + 1,
            plan.tables.batches.len(),
            pages_file(r, plan)
        )),
        Step::Timers => match row.checked_sub(plan.tables.timers.len()) {
            None => Some(format!("interval timer {row}")),
            Some(nth) => plan
                .tables
                .posix_timers
                .get(nth)
                .map(|t| format!("POSIX timer {}", t.id)),
        },
        Step::Threads if row > 0 && r.tid == 0 => {
            Some(format!("making thread {}", wanted_tid(r, plan)))
        }
        Step::Signals => Some(format!("pending signal {row}")),
        _ => None,
    }
}

/// The id of the thread that was to be made.
fn wanted_tid(r: &Report, plan: &Plan) -> u32 {
    let row = usize::try_from(r.row).ok();
    row.and_then(|row| plan.tables.threads.get(row))
        .map_or(0, |t| t.tid)
}

/// The source of the batch that a report of the fill step is about.
fn pages_file(r: &Report, plan: &Plan) -> String {
    let batch = usize::try_from(r.row)
        .ok()
        .and_then(|row| plan.tables.batches.get(row));
    let source = batch.and_then(|b| {
        plan.sources
            .iter()
            .find(|s| i32::try_from(s.fd) == Ok(b.fd))
    });
    match source.map(|s| &s.what) {
        Some(SourceKind::Pages(i)) => format!("pages file {i} (by index)"),
        Some(SourceKind::Overlay(_)) => "the patched vdso".into(),
        _ => "the pages file".into(),
    }
}

/// The call of a report; what it read is known from the plan's own tables.
fn describe_in_plan(r: &Report, step: Step, plan: &Plan) -> String {
    let batch = usize::try_from(r.row)
        .ok()
        .and_then(|row| plan.tables.batches.get(row));
    if let (Step::Fill, nr::PREADV, Some(b)) = (step, r.syscall, batch)
        && b.count == r.args[2]
        && let (Ok(first), Ok(count)) = (usize::try_from(b.first), usize::try_from(b.count))
        && let Some(rows) = plan.tables.iovecs.get(first..).and_then(|v| v.get(..count))
    {
        return describe(r.syscall, &r.args, Some(armrest_abi::bytes_of_slice(rows)));
    }
    if let Some(data) = timer_data(r, step, plan) {
        return describe(r.syscall, &r.args, Some(data));
    }
    let thread = usize::try_from(r.row)
        .ok()
        .and_then(|row| plan.tables.threads.get(row));
    if let (Step::Threads, nr::CLONE3, Some(t)) = (step, r.syscall, thread) {
        return describe(r.syscall, &r.args, Some(armrest_abi::bytes_of(&t.clone)));
    }
    if (step, r.syscall) == (Step::Detach, nr::SIGALTSTACK) {
        // This step only takes one away.
        let none = [0, c::SS_DISABLE, 0];
        return describe(r.syscall, &r.args, Some(armrest_abi::bytes_of_slice(&none)));
    }
    describe(r.syscall, &r.args, None)
}

/// What the call of a report about a timer was given in memory.
fn timer_data<'p>(r: &Report, step: Step, plan: &'p Plan) -> Option<&'p [u8]> {
    let row = usize::try_from(r.row)
        .ok()
        .filter(|_| step == Step::Timers)?;
    let (plain, posix) = (&plan.tables.timers, &plan.tables.posix_timers);
    let nth = row.checked_sub(plain.len());
    match r.syscall {
        nr::SETITIMER => plain
            .get(row)
            .map(|t| armrest_abi::bytes_of_slice(&t.value)),
        // Numbers in between are used up by timers without an event.
        nr::TIMER_CREATE if r.args[1] == 0 => None,
        nr::TIMER_CREATE => posix
            .get(nth?)
            .map(|t| armrest_abi::bytes_of_slice(&t.event)),
        nr::TIMER_SETTIME | nr::TIMER_SETTIME64 => posix
            .get(nth?)
            .map(|t| armrest_abi::bytes_of_slice(&t.value)),
        _ => None,
    }
}

fn check_words(check: Check) -> &'static str {
    match check {
        Check::Version => "magic, version or size are those of another blob",
        Check::Area => "the bootstrap area makes no sense",
        Check::AreaParts => "heap or progress page lie outside the bootstrap area",
        Check::Table => "a table lies outside the bootstrap area",
        Check::Threads => "no thread, or its stack or queue is not there",
        Check::Frame => "a signal frame lies neither in the kept page nor goes out of the area",
        Check::RowShape => "a row is not page-aligned, is empty or wraps",
        Check::RowHitsArea => "a row would hit the bootstrap area",
        Check::RowIndex => "a row points to rows that are not there",
        Check::BatchLength => "the runs of a batch do not add up",
        Check::PageOffset => "a file offset does not fit mmap2",
        Check::CredCall => "a row of credentials asks for another kind of call",
    }
}

/// What to try, by call and error.
fn hint(n: u32, errno: &str) -> &'static str {
    match (n, errno) {
        (_, "ENOSYS") => "this kernel lacks the call: run `armrest check`",
        (nr::MMAP2 | nr::MREMAP | nr::MPROTECT | nr::MUNMAP, "ENOMEM") => {
            "out of memory or of mappings: look at vm.max_map_count, vm.overcommit_memory, RLIMIT_AS and the memory cgroup"
        }
        (nr::SHMAT, "ENOMEM") => {
            "no room for the attachment: look at RLIMIT_AS and the memory cgroup"
        }
        (nr::MMAP2, "EACCES") => {
            "the file's mode or mount options (noexec, read-only) do not allow this mapping"
        }
        (nr::MMAP2, "EPERM") => "below vm.mmap_min_addr, or the file system is mounted noexec",
        (nr::MMAP2, "ENODEV") => "the file system of this file cannot be mapped",
        (nr::MPROTECT, "EACCES") => {
            "the attachment or file behind it is read-only, or a security module forbids it"
        }
        (nr::SHMAT | nr::SHMCTL, "EINVAL" | "EIDRM") => {
            "the segment is gone or the address is not free: is another restore using the same ids?"
        }
        (nr::SHMAT | nr::SHMCTL, "EACCES" | "EPERM") => {
            "the segment belongs to someone else: run as its owner, or as root"
        }
        (nr::MREMAP, "EINVAL") => {
            "the kernel refuses the move: on a CPU with an aliasing cache attachments must keep their colour"
        }
        (nr::MREMAP, "EFAULT") => {
            "the mapping to move is not what the plan expected: please report it"
        }
        (nr::CLONE | nr::CLONE3, "EAGAIN") => {
            "no more processes: look at RLIMIT_NPROC (ulimit -u), kernel.threads-max and the pids cgroup"
        }
        (nr::CLONE | nr::CLONE3, "EEXIST") => {
            "its id is in use: end who has it, or use --new-namespaces or --any-pid"
        }
        (nr::RT_SIGQUEUEINFO | nr::RT_TGSIGQUEUEINFO | nr::TIMER_CREATE, "EAGAIN") => {
            "too many signals wait: look at RLIMIT_SIGPENDING (ulimit -i)"
        }
        (nr::PREADV, "EIO") => "the medium of the checkpoint is damaged",
        (nr::PREADV, "EFAULT") => "the target memory is not writable: please report it",
        (nr::MLOCK, "ENOMEM" | "EPERM" | "EAGAIN") => {
            "raise RLIMIT_MEMLOCK (ulimit -l), or restore as root"
        }
        (nr::PRCTL, "EPERM" | "EACCES") => {
            "needs CAP_SYS_RESOURCE or CAP_CHECKPOINT_RESTORE: restore as root"
        }
        (nr::PRCTL, "EBUSY") => "the old executable is still mapped: please report it",
        (_, "EPERM" | "EACCES") => "not permitted here: restore as root, or see `armrest check`",
        (_, "ENOMEM" | "EAGAIN") => "the system is short of memory",
        _ => "run again with -vv and report it with `armrest plan`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_names() {
        for (n, name) in [
            (1, "EPERM"),
            (12, "ENOMEM"),
            (22, "EINVAL"),
            (38, "ENOSYS"),
            (40, "ELOOP"),
            (41, "errno 41"),
            (42, "ENOMSG"),
            (59, "EBFONT"),
            (75, "EOVERFLOW"),
            (84, "EILSEQ"),
            (95, "EOPNOTSUPP"),
            (110, "ETIMEDOUT"),
            (122, "EDQUOT"),
            (125, "ECANCELED"),
            (131, "ENOTRECOVERABLE"),
            (133, "EHWPOISON"),
            (134, "errno 134"),
            (0, "errno 0"),
        ] {
            assert_eq!(errno(n), name);
        }
    }

    #[test]
    fn calls_are_decoded() {
        let map = [0x10000, 344_064, 3, 0x12, 7, 12];
        assert_eq!(
            describe(nr::MMAP2, &map, None),
            "mmap2(0x10000, 344064, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_FIXED, fd 7, page 12)"
        );
        let anon = [0xb6f0_0000, 4096, 0, 0x32, u32::MAX, 0];
        assert_eq!(
            describe(nr::MMAP2, &anon, None),
            "mmap2(0xb6f00000, 4096, PROT_NONE, MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS)"
        );
        let moved = [0x8000_0000, 4096, 4096, 3, 0xb6f0_1000, 0];
        assert_eq!(
            describe(nr::MREMAP, &moved, None),
            "mremap(0x80000000, 4096, 4096, MREMAP_MAYMOVE|MREMAP_FIXED, 0xb6f01000)"
        );
        assert_eq!(
            describe(nr::SHMAT, &[5, 0x4000, 0o50000, 0, 0, 0], None),
            "shmat(id 5, 0x4000, SHM_RDONLY|SHM_REMAP)"
        );
        assert_eq!(
            describe(nr::SHMCTL, &[5, 0x100, 0, 0, 0, 0], None),
            "shmctl(id 5, IPC_RMID)"
        );
        let iov = [
            Iovec {
                base: 0x1000,
                len: 4096,
            },
            Iovec {
                base: 0x8000,
                len: 8192,
            },
        ];
        let data = armrest_abi::bytes_of_slice(&iov);
        assert_eq!(
            describe(nr::PREADV, &[9, 0, 2, 4096, 1, 0], Some(data)),
            "preadv(fd 9, 12288 bytes to 2 runs from 0x1000 on, offset 4294971392)"
        );
        assert_eq!(
            describe(
                nr::PRCTL,
                &[15, 0, 0, 0, 0, 0],
                Some(b"counter\0\0\0\0\0\0\0\0\0")
            ),
            "prctl(PR_SET_NAME, \"counter\")"
        );
        assert_eq!(
            describe(nr::MADVISE, &[0x1000, 4096, 16, 0, 0, 0], None),
            "madvise(0x1000, 4096, MADV_DONTDUMP)"
        );
        assert_eq!(
            describe(777, &[0; 6], None),
            "syscall 777(0x0, 0x0, 0x0, 0x0, 0x0, 0x0)"
        );
    }

    #[test]
    fn every_call_of_the_blob_has_a_name() {
        let all = [
            nr::WRITE,
            nr::CLOSE,
            nr::MUNMAP,
            nr::SETITIMER,
            nr::TIMER_CREATE,
            nr::TIMER_SETTIME,
            nr::TIMER_SETTIME64,
            nr::TIMER_DELETE,
            nr::MPROTECT,
            nr::MLOCK,
            nr::MREMAP,
            nr::PRCTL,
            nr::RT_SIGRETURN,
            nr::RT_SIGQUEUEINFO,
            nr::SIGALTSTACK,
            nr::MMAP2,
            nr::MADVISE,
            nr::EXIT_GROUP,
            nr::SET_TID_ADDRESS,
            nr::SHMAT,
            nr::SHMCTL,
            nr::SET_ROBUST_LIST,
            nr::PREADV,
            nr::RT_TGSIGQUEUEINFO,
            nr::RSEQ,
            nr::CACHEFLUSH,
            nr::SET_TLS,
        ];
        assert!(all.iter().all(|n| !call_name(*n).starts_with("syscall")));
    }
}
