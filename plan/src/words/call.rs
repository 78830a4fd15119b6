//! A call with its arguments decoded.

use armrest_abi::consts as c;
use armrest_abi::{CloneArgs, Iovec};
use armrest_blob::kernel::nr;

use super::flags::{advice, clock, clone_flags, flags, map_flags, prot, shm_flags};
use crate::record::{Recorded, iovecs};

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

#[cfg(test)]
mod tests {
    use super::*;

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
