//! The system calls that the steps make: one typed method each, over one required method.
//!
//! The device answers them with `svc` (`raw.rs`, feature `blob`), `armrest plan` with a recorder, the property tests
//! with a model of an address space. A step never knows which.

use armrest_abi::consts::{
    CLONE_FOR_THREAD, IPC_64, IPC_RMID, MREMAP_FIXED, MREMAP_MAYMOVE, PR_SET_DUMPABLE, PR_SET_MM,
    PR_SET_MM_MAP, PR_SET_NAME, PR_SET_PDEATHSIG, PR_SET_THP_DISABLE, PR_TIMER_CREATE_RESTORE_IDS,
    ROBUST_LIST_HEAD_SIZE, SS_DISABLE,
};
use armrest_abi::{
    Advise, Attach, Cred, Flush, Iovec, Lock, Map, MmMap, Move, PosixTimer, Progress, Protect,
    Queued, Range, Report, Rseq, Step, ThreadArgs, Timer, bytes_of, bytes_of_slice, want,
};

use crate::args::Args;
use crate::run::Stop;

/// A kernel error number (1 to 4095). A whole word, so that a [`Res`] travels in two registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub u32);

/// What a call returned.
pub type Res = Result<u32, Errno>;

/// Memory of the blob that a call reads: it goes into argument register `arg` as an address.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Which of r0 to r5 holds the address.
    pub arg: usize,
    /// The bytes there.
    pub bytes: &'a [u8],
}

/// System call numbers of ARM EABI (arch/arm/tools/syscall.tbl).
pub mod nr {
    #![expect(missing_docs, reason = "the kernel's names, as in its own table")]
    pub const WRITE: u32 = 4;
    pub const CLOSE: u32 = 6;
    pub const GETPID: u32 = 20;
    pub const MUNMAP: u32 = 91;
    pub const SETPRIORITY: u32 = 97;
    pub const SETITIMER: u32 = 104;
    pub const CLONE: u32 = 120;
    pub const MPROTECT: u32 = 125;
    pub const MLOCK: u32 = 150;
    pub const SCHED_SETSCHEDULER: u32 = 156;
    pub const MREMAP: u32 = 163;
    pub const POLL: u32 = 168;
    pub const PRCTL: u32 = 172;
    pub const RT_SIGRETURN: u32 = 173;
    pub const RT_SIGQUEUEINFO: u32 = 178;
    pub const PWRITE64: u32 = 181;
    pub const SIGALTSTACK: u32 = 186;
    pub const MMAP2: u32 = 192;
    pub const MADVISE: u32 = 220;
    pub const FUTEX: u32 = 240;
    pub const EXIT_GROUP: u32 = 248;
    pub const SET_TID_ADDRESS: u32 = 256;
    pub const TIMER_CREATE: u32 = 257;
    pub const TIMER_SETTIME: u32 = 258;
    pub const TIMER_DELETE: u32 = 261;
    pub const SHMAT: u32 = 305;
    pub const SHMCTL: u32 = 308;
    pub const SET_ROBUST_LIST: u32 = 338;
    pub const PREADV: u32 = 361;
    pub const RT_TGSIGQUEUEINFO: u32 = 363;
    pub const RSEQ: u32 = 398;
    pub const TIMER_SETTIME64: u32 = 409;
    pub const CLONE3: u32 = 435;
    pub const SETGROUPS32: u32 = 206;
    pub const SETRESUID32: u32 = 208;
    pub const SETRESGID32: u32 = 210;
    pub const SETFSUID32: u32 = 215;
    pub const SETFSGID32: u32 = 216;
    pub const FCNTL64: u32 = 221;
    pub const CAPSET: u32 = 185;
    pub const SECCOMP: u32 = 383;
    pub const MEMBARRIER: u32 = 389;
    pub const CACHEFLUSH: u32 = 0x000f_0002;
    pub const SET_TLS: u32 = 0x000f_0005;
}

/// Where all threads wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All threads are there, and each has registered what is its own.
    Register,
    /// Each has the ids, the rights and the parent-death signal that it keeps, and filters of its own.
    Ids,
    /// The leader says that all may go: the last moment at which no thread runs its own code.
    Go,
    /// Each of the others has done everything and has left the area. Only the leader waits for it.
    Last,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Stage; 4] = [Stage::Register, Stage::Ids, Stage::Go, Stage::Last];
}

/// The calls of [`armrest_abi::cred`], in the order of their numbers there.
pub const CRED_CALLS: [u32; 10] = [
    nr::SETGROUPS32,
    nr::SETRESGID32,
    nr::SETRESUID32,
    nr::SETFSGID32,
    nr::SETFSUID32,
    nr::CAPSET,
    nr::PRCTL,
    nr::MEMBARRIER,
    nr::SECCOMP,
    nr::FCNTL64,
];

/// The kernel as the steps see it. Addresses are the task's, whoever answers.
pub trait Kernel {
    /// What a failure hands up: the [`Stop`] itself, or a type without values where [`Kernel::fail`] does not come back.
    /// Then the compiler leaves out every way back, which makes the blob much smaller.
    type Failure;
    /// The restore has failed, or this thread's part of it.
    fn fail(&mut self, why: Stop) -> Self::Failure;
    /// Issue call `nr` with `args` in r0 to r5. If `data` is there, the address of its bytes replaces `args[data.arg]`.
    /// An implementation remembers a failing call, for the report.
    fn call(&mut self, nr: u32, args: [u32; 6], data: Option<Data<'_>>) -> Res;
    /// A [`Kernel::call`] that makes a thread: the new one runs [`crate::thread`] of `row` for each stage in turn, on a
    /// kernel of its own. For the leader alone; returns the new thread's id.
    fn start(
        &mut self,
        nr: u32,
        args: [u32; 6],
        data: Option<Data<'_>>,
        of: &Args<'_>,
        row: usize,
    ) -> Res;
    /// So many threads will be started. An error if they could not leave together.
    fn expect_threads(&mut self, others: usize) -> Res;
    /// The leader has come to the end of `stage`: wait for the others. Where they do not run at once, run them now:
    /// [`crate::threads_in_turn`].
    fn meet(&mut self, args: &Args<'_>, stage: Stage) -> Result<(), Self::Failure>;
    /// Wait until the harness lets the tasks of a tree go on together, for the `time`-th time; `spins`: without a call.
    fn gate(&mut self, _time: u32, _spins: bool) {}
    /// Copy a thread's signal frame to where it is loaded from, if that is in the task's own memory.
    fn place_frame(&mut self, _t: &ThreadArgs) {}
    /// Show where the restore is. Costs no call.
    fn progress(&mut self, progress: Progress);
    /// A step begins: a place for recorders to mark their records.
    fn step(&mut self, _step: Step) {}

    /// What stands for the address of `word` in an argument, for a call that reads and writes it: the address, or its value
    /// where nobody looks at addresses.
    fn place_of(&mut self, word: &mut u32) -> u32 {
        *word
    }

    /// A call of three arguments or fewer, all of them plain numbers.
    #[inline(never)]
    fn call3(&mut self, nr: u32, a: u32, b: u32, c: u32) -> Res {
        self.call(nr, [a, b, c, 0, 0, 0], None)
    }

    /// `munmap`.
    fn munmap(&mut self, range: Range) -> Res {
        self.call3(nr::MUNMAP, range.start, range.len(), 0)
    }
    /// `mremap` of a whole mapping to a fixed place.
    fn mremap_fixed(&mut self, m: &Move) -> Res {
        self.call(
            nr::MREMAP,
            [m.from, m.len, m.len, MREMAP_MAYMOVE | MREMAP_FIXED, m.to, 0],
            None,
        )
    }
    /// `mmap2` at `page_offset`, which the caller has narrowed to what the call takes.
    fn mmap2(&mut self, m: &Map, page_offset: u32) -> Res {
        self.call(
            nr::MMAP2,
            [
                m.start,
                m.len,
                m.prot,
                m.flags,
                m.fd.cast_unsigned(),
                page_offset,
            ],
            None,
        )
    }
    /// `mprotect`.
    fn mprotect(&mut self, p: &Protect) -> Res {
        self.call3(nr::MPROTECT, p.start, p.len, p.prot)
    }
    /// `preadv`: the position is two longs, low first, not a register pair.
    fn preadv(&mut self, fd: i32, iovecs: &[Iovec], offset: u64) -> Res {
        let args = [
            fd.cast_unsigned(),
            0,
            len32(iovecs.len()),
            low(offset),
            low(offset >> 32),
            0,
        ];
        self.call(
            nr::PREADV,
            args,
            Some(Data {
                arg: 1,
                bytes: bytes_of_slice(iovecs),
            }),
        )
    }
    /// `shmat`: the address comes back as the result.
    fn shmat(&mut self, a: &Attach) -> Res {
        self.call3(nr::SHMAT, a.shmid.cast_unsigned(), a.at, a.flags)
    }
    /// `shmctl(IPC_RMID)`.
    fn shm_remove(&mut self, shmid: i32) -> Res {
        self.call3(nr::SHMCTL, shmid.cast_unsigned(), IPC_RMID | IPC_64, 0)
    }
    /// `madvise`.
    fn madvise(&mut self, a: &Advise) -> Res {
        self.call3(nr::MADVISE, a.start, a.len, a.advice)
    }
    /// `mlock`.
    fn mlock(&mut self, l: &Lock) -> Res {
        self.call3(nr::MLOCK, l.start, l.len, 0)
    }
    /// ARM's `cacheflush`: the end is exclusive.
    fn cacheflush(&mut self, f: &Flush) -> Res {
        self.call3(nr::CACHEFLUSH, f.start, f.end, 0)
    }
    /// `close`.
    fn close(&mut self, fd: u32) -> Res {
        self.call3(nr::CLOSE, fd, 0, 0)
    }
    /// `sigaltstack`: none.
    fn altstack_off(&mut self) -> Res {
        // stack_t on ARM: sp, flags, size.
        let none = [0, SS_DISABLE, 0];
        self.call(
            nr::SIGALTSTACK,
            [0; 6],
            Some(Data {
                arg: 0,
                bytes: bytes_of_slice::<u32>(&none),
            }),
        )
    }
    /// `set_tid_address`: returns the caller's thread id.
    fn set_tid_address(&mut self, addr: u32) -> Res {
        self.call3(nr::SET_TID_ADDRESS, addr, 0, 0)
    }
    /// `set_robust_list`: a head of 0 takes the registration back.
    fn set_robust_list(&mut self, head: u32) -> Res {
        self.call3(nr::SET_ROBUST_LIST, head, ROBUST_LIST_HEAD_SIZE, 0)
    }
    /// `rseq`: register with flags 0, take back with `RSEQ_FLAG_UNREGISTER`.
    #[inline(never)]
    fn rseq(&mut self, r: &Rseq, flags: u32) -> Res {
        self.call(nr::RSEQ, [r.addr, r.len, flags, r.sig, 0, 0], None)
    }
    /// ARM's `set_tls`.
    fn set_tls(&mut self, value: u32) -> Res {
        self.call3(nr::SET_TLS, value, 0, 0)
    }
    /// `prctl(PR_SET_NAME)`: `name` ends with a NUL.
    fn set_name(&mut self, name: &[u8; 16]) -> Res {
        self.call(
            nr::PRCTL,
            [PR_SET_NAME, 0, 0, 0, 0, 0],
            Some(Data {
                arg: 1,
                bytes: name,
            }),
        )
    }
    /// `getpid`.
    fn getpid(&mut self) -> Res {
        self.call3(nr::GETPID, 0, 0, 0)
    }
    /// `pwrite64` of a number to the sysctl, at offset 0.
    fn set_last_pid(&mut self, fd: i32, digits: &[u8; 12]) -> Res {
        let data = Data {
            arg: 1,
            bytes: digits,
        };
        let args = [fd.cast_unsigned(), 0, len32(digits.len()), 0, 0, 0];
        self.call(nr::PWRITE64, args, Some(data))
    }
    /// `clone3` with `set_tid`, or `clone`: the thread of row `row`.
    fn spawn(&mut self, of: &Args<'_>, row: usize, t: &ThreadArgs) -> Res {
        let (nr, args, data) = if of.fixed.want & want::SET_TID == 0 {
            (nr::CLONE, [CLONE_FOR_THREAD, t.stack], None)
        } else {
            let bytes = bytes_of(&t.clone);
            let data = Data { arg: 0, bytes };
            (nr::CLONE3, [0, len32(bytes.len())], Some(data))
        };
        self.start(nr, [args[0], args[1], 0, 0, 0, 0], data, of, row)
    }
    /// `sched_setscheduler` of the caller.
    fn set_scheduler(&mut self, policy: u32, priority: u32) -> Res {
        let data = Data {
            arg: 2,
            bytes: bytes_of(&priority),
        };
        self.call(nr::SCHED_SETSCHEDULER, [0, policy, 0, 0, 0, 0], Some(data))
    }
    /// `setpriority` of the calling thread.
    fn set_nice(&mut self, nice: i32) -> Res {
        self.call3(nr::SETPRIORITY, 0, 0, nice.cast_unsigned())
    }
    /// `prctl(PR_SET_MM, PR_SET_MM_MAP)`.
    fn set_mm_map(&mut self, mm: &MmMap) -> Res {
        let args = [PR_SET_MM, PR_SET_MM_MAP, 0, len32(size_of::<MmMap>()), 0, 0];
        self.call(
            nr::PRCTL,
            args,
            Some(Data {
                arg: 2,
                bytes: bytes_of(mm),
            }),
        )
    }
    /// `prctl(PR_SET_MM)` of one field; `len` is that of an auxiliary vector.
    #[inline(never)]
    fn set_mm(&mut self, option: u32, value: u32, len: u32) -> Res {
        self.call(nr::PRCTL, [PR_SET_MM, option, value, len, 0, 0], None)
    }
    /// `prctl(PR_SET_THP_DISABLE, 1)`.
    fn disable_thp(&mut self) -> Res {
        self.call3(nr::PRCTL, PR_SET_THP_DISABLE, 1, 0)
    }
    /// `prctl(PR_SET_DUMPABLE)`.
    fn set_dumpable(&mut self, value: u32) -> Res {
        self.call3(nr::PRCTL, PR_SET_DUMPABLE, value, 0)
    }
    /// One of [`CRED_CALLS`]: the addresses among its arguments are the plan's. `None` if it is no such call.
    fn cred(&mut self, c: &Cred) -> Option<Res> {
        let nr = CRED_CALLS.get(c.call as usize)?;
        let [a, b, c, d, e] = c.args;
        Some(self.call(*nr, [a, b, c, d, e, 0], None))
    }
    /// `prctl(PR_SET_PDEATHSIG)`.
    fn set_pdeath(&mut self, signo: u32) -> Res {
        self.call3(nr::PRCTL, PR_SET_PDEATHSIG, signo, 0)
    }
    /// `rt_sigqueueinfo` or `rt_tgsigqueueinfo` to the caller, whose id is `tid`, in process `tgid`.
    fn queue_signal(&mut self, tgid: u32, tid: u32, q: &Queued) -> Res {
        let bytes = bytes_of_slice::<u32>(&q.info);
        let (nr, args, arg) = if q.private == 0 {
            (nr::RT_SIGQUEUEINFO, [tgid, q.signo, 0, 0, 0, 0], 2)
        } else {
            (nr::RT_TGSIGQUEUEINFO, [tgid, tid, q.signo, 0, 0, 0], 3)
        };
        self.call(nr, args, Some(Data { arg, bytes }))
    }
    /// `setitimer`: the old value is not asked for.
    fn setitimer(&mut self, t: &Timer) -> Res {
        let data = Data {
            arg: 1,
            bytes: bytes_of_slice::<u32>(&t.value),
        };
        self.call(nr::SETITIMER, [t.which, 0, 0, 0, 0, 0], Some(data))
    }
    /// `prctl(PR_TIMER_CREATE_RESTORE_IDS)`.
    fn timer_ids(&mut self, on: u32) -> Res {
        self.call3(nr::PRCTL, PR_TIMER_CREATE_RESTORE_IDS, on, 0)
    }
    /// `timer_create`: without an event the kernel takes a default one. The new number is not looked at: using it tells.
    fn timer_create(&mut self, clock: u32, event: Option<&[u32; 16]>, id: u32) -> Res {
        let mut id = id;
        let out = self.place_of(&mut id);
        let data = event.map(|e| Data {
            arg: 1,
            bytes: bytes_of_slice::<u32>(e),
        });
        self.call(nr::TIMER_CREATE, [clock, 0, out, 0, 0, 0], data)
    }
    /// `timer_delete`.
    fn timer_delete(&mut self, id: u32) -> Res {
        self.call3(nr::TIMER_DELETE, id, 0, 0)
    }
    /// `timer_settime` or `timer_settime64`, relative: the old value is not asked for.
    fn timer_settime(&mut self, t: &PosixTimer, wide: bool) -> Res {
        let nr = if wide {
            nr::TIMER_SETTIME64
        } else {
            nr::TIMER_SETTIME
        };
        let data = Data {
            arg: 2,
            bytes: bytes_of_slice::<u32>(&t.value),
        };
        self.call(nr, [t.id, 0, 0, 0, 0, 0], Some(data))
    }
    /// `write` of a report.
    fn write_report(&mut self, fd: i32, report: &Report) -> Res {
        let args = [fd.cast_unsigned(), 0, len32(size_of::<Report>()), 0, 0, 0];
        self.call(
            nr::WRITE,
            args,
            Some(Data {
                arg: 1,
                bytes: bytes_of(report),
            }),
        )
    }
}

/// A length of the blob's own, which is below 4 GiB on the device and in any test.
fn len32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The low word.
pub fn low(n: u64) -> u32 {
    let [a, b, c, d, ..] = n.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
