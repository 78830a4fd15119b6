//! The steps on a small recording kernel: order, every failing call named, short reads, wrong addresses, bad arguments.

use crate::heap::{Heap, NoHeap};
use crate::kernel::{Data, Errno, Kernel, Res, Stage, nr};
use crate::{Args, Check, Entry, Stop, restore};
use armrest_abi::consts::*;
use armrest_abi::*;
use std::vec;
use std::vec::Vec;

type Call = (u32, [u32; 6], Vec<u8>);

/// Grants everything, but for one call, and remembers it.
#[derive(Default)]
struct Recorder {
    calls: Vec<(Step, Call)>,
    step: Option<Step>,
    shown: Vec<Progress>,
    /// Where all threads waited for each other.
    met: Vec<(usize, Stage)>,
    /// The gates: how many calls and meetings came before.
    gates: Vec<(usize, usize, u32, bool)>,
    /// Threads whose frames were placed, and the gates before.
    frames: Vec<(u32, usize)>,
    /// Fail the n-th call with this errno.
    fail: Option<(usize, u32)>,
    /// Return this from the n-th call.
    instead: Option<(usize, u32)>,
    /// Most bytes of one read.
    read_limit: Option<u32>,
}

impl Kernel for Recorder {
    type Failure = Stop;
    fn fail(&mut self, why: Stop) -> Stop {
        why
    }
    fn call(&mut self, nr: u32, args: [u32; 6], data: Option<Data<'_>>) -> Res {
        let bytes = data.map_or(Vec::new(), |d| d.bytes.to_vec());
        let n = self.calls.len();
        let len = |b: &[u8]| u32::from_le_bytes(b[4..8].try_into().unwrap());
        let result = match nr {
            nr::MMAP2 => args[0],
            nr::SHMAT => args[1],
            nr::MREMAP => args[4],
            nr::SET_TID_ADDRESS => 77,
            nr::PREADV => {
                let all = bytes.chunks_exact(8).map(len).sum::<u32>();
                self.read_limit.map_or(all, |limit| all.min(limit))
            }
            _ => 0,
        };
        self.calls.push((self.step.unwrap(), (nr, args, bytes)));
        match (self.fail, self.instead) {
            (Some((at, errno)), _) if at == n => Err(Errno(errno)),
            (_, Some((at, other))) if at == n => Ok(other),
            _ => Ok(result),
        }
    }
    fn start(
        &mut self,
        nr: u32,
        args: [u32; 6],
        data: Option<Data<'_>>,
        of: &Args<'_>,
        row: usize,
    ) -> Res {
        let other = self.instead.filter(|(at, _)| *at == self.calls.len());
        self.call(nr, args, data)?;
        Ok(other.map_or(of.threads[row].tid, |(_, other)| other))
    }
    fn expect_threads(&mut self, others: usize) -> Res {
        self.call(nr::FUTEX, [u32::try_from(others).unwrap(); 6], None)
    }
    fn meet(&mut self, args: &Args<'_>, stage: Stage) -> Result<(), Stop> {
        self.met.push((self.calls.len(), stage));
        crate::threads_in_turn(self, args, stage)
    }
    fn place_frame(&mut self, t: &ThreadArgs) {
        self.frames.push((t.tid, self.gates.len()));
    }
    fn gate(&mut self, time: u32, spins: bool) {
        self.gates
            .push((self.calls.len(), self.met.len(), time, spins));
    }
    fn progress(&mut self, progress: Progress) {
        self.shown.push(progress);
    }
    fn step(&mut self, step: Step) {
        self.step = Some(step);
    }
}

const AREA: Range = Range {
    start: 0x10_0000,
    end: 0x12_0000,
};

/// One of everything, in tables that a test may change.
#[derive(Clone)]
struct Case {
    fixed: RestoreArgs,
    unmaps: Vec<Range>,
    parks: Vec<Move>,
    attaches: Vec<Attach>,
    pieces: Vec<Move>,
    holes: Vec<Range>,
    removes: Vec<Remove>,
    maps: Vec<Map>,
    iovecs: Vec<Iovec>,
    batches: Vec<Batch>,
    protects: Vec<Protect>,
    flushes: Vec<Flush>,
    unparks: Vec<Move>,
    advises: Vec<Advise>,
    locks: Vec<Lock>,
    closes: Vec<u32>,
    threads: Vec<ThreadArgs>,
    timers: Vec<Timer>,
    posix_timers: Vec<PosixTimer>,
    queued: Vec<Queued>,
    creds: Vec<Cred>,
}

fn fixed() -> RestoreArgs {
    let none = Table::default();
    RestoreArgs {
        magic: ARGS_MAGIC,
        version: ABI_VERSION,
        size: u32::try_from(size_of::<RestoreArgs>()).unwrap(),
        want: want::OLD_RSEQ | want::OLD_ROBUST | want::MM_MAP | want::THP_DISABLE | want::DUMPABLE,
        area: AREA,
        keep: Range {
            start: AREA.start,
            end: AREA.start + 0x1000,
        },
        heap: Range {
            start: 0x10_8000,
            end: 0x10_b000,
        },
        progress: 0x11_f000,
        report_fd: 200,
        unmaps: none,
        parks: none,
        attaches: none,
        pieces: none,
        holes: none,
        removes: none,
        maps: none,
        iovecs: none,
        batches: none,
        protects: none,
        flushes: none,
        unparks: none,
        advises: none,
        locks: none,
        closes: none,
        threads: none,
        timers: none,
        posix_timers: none,
        queued: none,
        creds: none,
        old_rseq: Rseq {
            addr: 0x7000,
            len: 32,
            sig: 5,
        },
        dumpable: 1,
        mm: MmMap {
            exe_fd: 9,
            ..MmMap::default()
        },
        exit_svc: 0,
        last_pid_fd: -1,
        records: Rows { first: 5, count: 1 },
    }
}

fn case() -> Case {
    let leader = ThreadArgs {
        tid: 42,
        want: want::ROBUST | want::RSEQ | want::PDEATH,
        tls: 0x5000,
        clear_tid: 0x5100,
        robust_head: 0x5200,
        robust_len: 12,
        rseq: Rseq {
            addr: 0x5300,
            len: 32,
            sig: 6,
        },
        comm: *b"counter\0\0\0\0\0\0\0\0\0",
        frame: AREA.start + FRAME_OFFSET,
        pdeath: 15,
        queue: Rows { first: 0, count: 2 },
        cred: 1,
        creds: 2,
        seals: 1,
        ..ThreadArgs::default()
    };
    let queued = |private| Queued {
        signo: 10 + private,
        private,
        info: [private; 32],
    };
    let row = |call, x, y| Cred {
        call,
        args: [x, y, 0x10_2000, 4, 5],
        expect: 0,
    };
    Case {
        fixed: fixed(),
        unmaps: vec![
            Range {
                start: 0x1000,
                end: AREA.start,
            },
            Range {
                start: AREA.end,
                end: 0xbf00_0000,
            },
        ],
        parks: vec![Move {
            from: 0x20_0000,
            to: 0x30_0000,
            len: 0x1000,
            object: 1,
        }],
        attaches: vec![
            Attach {
                shmid: 7,
                at: 0x40_0000,
                len: 0x8000,
                flags: SHM_REMAP,
                piece: 0,
                pieces: 0,
                hole: 0,
                holes: 1,
                object: 2,
            },
            Attach {
                shmid: 8,
                at: 0x50_0000,
                len: 0x4000,
                flags: SHM_RDONLY,
                piece: 0,
                pieces: 2,
                hole: 1,
                holes: 1,
                object: 3,
            },
        ],
        pieces: vec![
            Move {
                from: 0x50_0000,
                to: 0x60_1000,
                len: 0x1000,
                object: 4,
            },
            Move {
                from: 0x50_1000,
                to: 0x60_3000,
                len: 0x1000,
                object: 5,
            },
        ],
        holes: vec![
            Range {
                start: 0x40_4000,
                end: 0x40_8000,
            },
            Range {
                start: 0x50_2000,
                end: 0x50_4000,
            },
        ],
        removes: vec![Remove {
            shmid: 8,
            object: 3,
        }],
        maps: vec![
            Map {
                start: 0x70_0000,
                len: 0x3000,
                prot: PROT_READ | PROT_WRITE,
                flags: MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS,
                fd: -1,
                object: 6,
                page_offset: 0,
            },
            Map {
                start: 0xb6f0_0000,
                len: 0x1000,
                prot: PROT_READ,
                flags: MAP_PRIVATE | MAP_FIXED,
                fd: 12,
                object: 7,
                page_offset: 0xffff_ffff,
            },
        ],
        iovecs: vec![
            Iovec {
                base: 0x70_0000,
                len: 0x1000,
            },
            Iovec {
                base: 0x70_2000,
                len: 0x1000,
            },
            Iovec {
                base: 0xb6f0_0000,
                len: 0x1000,
            },
        ],
        batches: vec![
            Batch {
                offset: 0x1_2345_6000,
                fd: 11,
                first: 0,
                count: 2,
                len: 0x2000,
            },
            Batch {
                offset: 0,
                fd: 11,
                first: 2,
                count: 1,
                len: 0x1000,
            },
        ],
        protects: vec![Protect {
            start: 0x70_0000,
            len: 0x1000,
            prot: PROT_READ | PROT_EXEC,
            object: 6,
        }],
        flushes: vec![Flush {
            start: 0x70_0000,
            end: 0x70_1000,
            object: 6,
        }],
        unparks: vec![Move {
            from: 0x30_0000,
            to: 0xbef9_9000,
            len: 0x1000,
            object: 8,
        }],
        advises: vec![Advise {
            start: 0x70_0000,
            len: 0x1000,
            advice: MADV_DONTFORK,
            object: 6,
        }],
        locks: vec![Lock {
            start: 0x70_0000,
            len: 0x1000,
            object: 6,
        }],
        closes: vec![11, 12],
        threads: vec![leader],
        timers: vec![Timer {
            which: 0,
            value: [1, 2, 3, 4],
        }],
        posix_timers: vec![PosixTimer {
            id: 7,
            skip: 2,
            clock: 1,
            reserved: 0,
            event: [9; 16],
            value: [8; 8],
        }],
        queued: vec![queued(0), queued(1)],
        creds: vec![
            row(cred::SETGROUPS, 0, 0),
            row(cred::SETRESUID, 1000, 1001),
            row(cred::PRCTL, 38, 1),
            row(cred::SECCOMP, 1, 0),
            row(cred::SECCOMP, 1, 2),
            row(cred::FCNTL64, 8, 13),
        ],
    }
}

impl Case {
    fn args(&self) -> Args<'_> {
        Args {
            fixed: &self.fixed,
            unmaps: (&self.unmaps).into(),
            parks: (&self.parks).into(),
            attaches: (&self.attaches).into(),
            pieces: (&self.pieces).into(),
            holes: (&self.holes).into(),
            removes: (&self.removes).into(),
            maps: (&self.maps).into(),
            iovecs: (&self.iovecs).into(),
            batches: (&self.batches).into(),
            protects: (&self.protects).into(),
            flushes: (&self.flushes).into(),
            unparks: (&self.unparks).into(),
            advises: (&self.advises).into(),
            locks: (&self.locks).into(),
            closes: (&self.closes).into(),
            threads: (&self.threads).into(),
            timers: (&self.timers).into(),
            posix_timers: (&self.posix_timers).into(),
            queued: (&self.queued).into(),
            creds: (&self.creds).into(),
        }
    }
    fn run(&self, k: &mut Recorder) -> Result<Entry, Stop> {
        restore(k, &self.args(), &mut [Iovec { base: 0, len: 0 }; 4])
    }
    /// The check that refuses it, before any call.
    fn refused(&self) -> Check {
        let mut k = Recorder::default();
        let stop = self.run(&mut k).unwrap_err();
        assert_eq!((stop.kind, stop.step), (ReportKind::BadArgs, Step::Verify));
        assert!(k.calls.is_empty());
        Check::from_number(stop.result).unwrap()
    }
}

#[test]
fn the_calls_come_in_order_with_their_arguments() {
    let mut k = Recorder::default();
    let entry = case().run(&mut k).unwrap();
    let calls: Vec<(Step, u32, [u32; 6])> =
        k.calls.iter().map(|(s, (n, a, _))| (*s, *n, *a)).collect();
    let anon = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS;
    let fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
    assert_eq!(
        calls,
        [
            (Step::Detach, nr::RSEQ, [0x7000, 32, 1, 5, 0, 0]),
            (Step::Detach, nr::SET_ROBUST_LIST, [0, 12, 0, 0, 0, 0]),
            (Step::Detach, nr::SIGALTSTACK, [0; 6]),
            (Step::Detach, nr::SET_TID_ADDRESS, [0; 6]),
            (
                Step::Park,
                nr::MREMAP,
                [0x20_0000, 0x1000, 0x1000, fixed, 0x30_0000, 0]
            ),
            (Step::Unmap, nr::MUNMAP, [0x1000, 0xf_f000, 0, 0, 0, 0]),
            (
                Step::Unmap,
                nr::MUNMAP,
                [0x12_0000, 0xbeee_0000, 0, 0, 0, 0]
            ),
            (Step::Shm, nr::SHMAT, [7, 0x40_0000, SHM_REMAP, 0, 0, 0]),
            (Step::Shm, nr::MUNMAP, [0x40_4000, 0x4000, 0, 0, 0, 0]),
            (Step::Shm, nr::SHMAT, [8, 0x50_0000, SHM_RDONLY, 0, 0, 0]),
            (
                Step::Shm,
                nr::MREMAP,
                [0x50_0000, 0x1000, 0x1000, fixed, 0x60_1000, 0]
            ),
            (
                Step::Shm,
                nr::MREMAP,
                [0x50_1000, 0x1000, 0x1000, fixed, 0x60_3000, 0]
            ),
            (Step::Shm, nr::MUNMAP, [0x50_2000, 0x2000, 0, 0, 0, 0]),
            (Step::Shm, nr::SHMCTL, [8, 0x100, 0, 0, 0, 0]),
            (Step::Map, nr::PRCTL, [PR_SET_THP_DISABLE, 1, 0, 0, 0, 0]),
            (
                Step::Map,
                nr::MMAP2,
                [0x70_0000, 0x3000, 3, anon, u32::MAX, 0]
            ),
            (
                Step::Map,
                nr::MMAP2,
                [
                    0xb6f0_0000,
                    0x1000,
                    1,
                    MAP_PRIVATE | MAP_FIXED,
                    12,
                    0xffff_ffff
                ]
            ),
            (Step::Fill, nr::PREADV, [11, 0, 2, 0x2345_6000, 1, 0]),
            (Step::Fill, nr::PREADV, [11, 0, 1, 0, 0, 0]),
            (Step::Protect, nr::MPROTECT, [0x70_0000, 0x1000, 5, 0, 0, 0]),
            (
                Step::Protect,
                nr::CACHEFLUSH,
                [0x70_0000, 0x70_1000, 0, 0, 0, 0]
            ),
            (
                Step::Unpark,
                nr::MREMAP,
                [0x30_0000, 0x1000, 0x1000, fixed, 0xbef9_9000, 0]
            ),
            (
                Step::Advise,
                nr::MADVISE,
                [0x70_0000, 0x1000, MADV_DONTFORK, 0, 0, 0]
            ),
            (Step::Advise, nr::MLOCK, [0x70_0000, 0x1000, 0, 0, 0, 0]),
            (
                Step::Mm,
                nr::PRCTL,
                [PR_SET_MM, PR_SET_MM_MAP, 0, 104, 0, 0]
            ),
            (Step::Threads, nr::PRCTL, [PR_SET_NAME, 0, 0, 0, 0, 0]),
            (Step::Threads, nr::SET_TID_ADDRESS, [0x5100, 0, 0, 0, 0, 0]),
            (Step::Threads, nr::SET_TLS, [0x5000, 0, 0, 0, 0, 0]),
            (Step::Threads, nr::SET_ROBUST_LIST, [0x5200, 12, 0, 0, 0, 0]),
            (Step::Threads, nr::RSEQ, [0x5300, 32, 0, 6, 0, 0]),
            // 77 is what the kernel calls the task, not the checkpoint's 42.
            (Step::Signals, nr::RT_SIGQUEUEINFO, [77, 10, 0, 0, 0, 0]),
            (Step::Signals, nr::RT_TGSIGQUEUEINFO, [77, 77, 11, 0, 0, 0]),
            // Timer 7, after the numbers 5 and 6 are used up; armed last.
            (Step::Timers, nr::TIMER_CREATE, [1, 0, 5, 0, 0, 0]),
            (Step::Timers, nr::TIMER_DELETE, [5, 0, 0, 0, 0, 0]),
            (Step::Timers, nr::TIMER_CREATE, [1, 0, 6, 0, 0, 0]),
            (Step::Timers, nr::TIMER_DELETE, [6, 0, 0, 0, 0, 0]),
            (Step::Timers, nr::TIMER_CREATE, [1, 0, 7, 0, 0, 0]),
            (Step::Timers, nr::SETITIMER, [0, 0, 0, 0, 0, 0]),
            (Step::Timers, nr::TIMER_SETTIME, [7, 0, 0, 0, 0, 0]),
            (
                Step::Creds,
                nr::SETRESUID32,
                [1000, 1001, 0x10_2000, 4, 5, 0]
            ),
            (Step::Creds, nr::PRCTL, [38, 1, 0x10_2000, 4, 5, 0]),
            (Step::Creds, nr::PRCTL, [PR_SET_PDEATHSIG, 15, 0, 0, 0, 0]),
            (Step::Creds, nr::PRCTL, [PR_SET_DUMPABLE, 1, 0, 0, 0, 0]),
            (Step::Enter, nr::CLOSE, [11, 0, 0, 0, 0, 0]),
            (Step::Enter, nr::CLOSE, [12, 0, 0, 0, 0, 0]),
            // A close of the same file would drop it.
            (Step::Enter, nr::FCNTL64, [8, 13, 0x10_2000, 4, 5, 0]),
            // Filters judge what comes after them: last.
            (Step::Enter, nr::SECCOMP, [1, 0, 0x10_2000, 4, 5, 0]),
        ]
    );
    let data = |n: usize| k.calls[n].1.2.clone();
    assert_eq!(
        data(2),
        [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        "SS_DISABLE in the second word"
    );
    assert_eq!(data(17), bytes_of_slice(&case().iovecs[..2]));
    assert_eq!(data(24).len(), 104);
    assert_eq!(data(25), b"counter\0\0\0\0\0\0\0\0\0");
    assert_eq!(data(31), bytes_of_slice(&[1u32; 32]));
    assert_eq!(data(36), bytes_of_slice(&[9u32; 16]));
    assert_eq!(data(37), bytes_of_slice(&[1u32, 2, 3, 4]));
    assert_eq!(data(38), bytes_of_slice(&[8u32; 8]));
    let end = entry.calls();
    assert_eq!(end[0], (nr::MUNMAP, [0x10_1000, 0x1_f000, 0, 0, 0, 0]));
    assert_eq!(end[1], (nr::CLOSE, [200, 0, 0, 0, 0, 0]));
    assert_eq!((end[2].0, entry.frame), (nr::RT_SIGRETURN, 0x10_0800));
}

#[test]
fn without_options_a_restore_has_few_fixed_calls() {
    let mut c = case();
    c.fixed.want = 0;
    c.threads[0].want = 0;
    c.threads[0].queue.count = 0;
    (c.threads[0].creds, c.threads[0].seals) = (0, 0);
    c.threads[0].cred = 0;
    c.fixed.records = Rows::default();
    let mut args = Args::empty(&c.fixed);
    args.threads = (&c.threads).into();
    args.queued = (&c.queued).into();
    let mut k = Recorder::default();
    restore(&mut k, &args, &mut NoHeap::default()).unwrap();
    // sigaltstack, set_tid_address, name, set_tid_address, set_tls; the exit routine adds three.
    assert_eq!(k.calls.len(), 5);
}

#[test]
fn each_failing_call_is_named() {
    let c = case();
    let mut all = Recorder::default();
    c.run(&mut all).unwrap();
    let objects = |step: Step, nr: u32, args: [u32; 6]| match (step, nr) {
        (Step::Park, _) => vec![1],
        (Step::Shm, nr::MUNMAP) if args[0] == 0x40_4000 => vec![2],
        (Step::Shm, nr::SHMAT) if args[0] == 7 => vec![2],
        (Step::Shm, nr::MREMAP) => vec![if args[4] == 0x60_1000 { 4 } else { 5 }],
        (Step::Shm, _) => vec![3],
        (Step::Map, nr::MMAP2) => vec![if args[0] == 0x70_0000 { 6 } else { 7 }],
        (Step::Protect | Step::Advise, _) => vec![6],
        (Step::Unpark, _) => vec![8],
        _ => vec![Report::NO_OBJECT],
    };
    for (n, (step, (nr, args, _))) in all.calls.iter().enumerate() {
        let mut k = Recorder {
            fail: Some((n, 12)),
            ..Recorder::default()
        };
        let stop = c.run(&mut k).unwrap_err();
        assert_eq!(stop.kind, ReportKind::Errno, "call {n}");
        assert_eq!(stop.step, *step, "call {n}");
        assert_eq!(stop.result, 0u32.wrapping_sub(12), "call {n}");
        assert_eq!(vec![stop.object], objects(*step, *nr, *args), "call {n}");
        assert_eq!(k.calls.len(), n + 1, "nothing is called after a failure");
        assert_eq!(
            k.shown.last().map(|p| (p.step, p.row)),
            Some((step.number(), stop.row))
        );
    }
}

#[test]
fn rows_are_told_as_rows_of_the_steps_table() {
    let c = case();
    let stop_of = |n| {
        c.run(&mut Recorder {
            fail: Some((n, 1)),
            ..Recorder::default()
        })
        .unwrap_err()
        .row
    };
    assert_eq!(
        [
            stop_of(6),
            stop_of(11),
            stop_of(12),
            stop_of(16),
            stop_of(18),
            stop_of(36)
        ],
        [1, 1, 1, 1, 1, 1]
    );
    assert_eq!([stop_of(5), stop_of(10), stop_of(15)], [0, 0, 0]);
}

#[test]
fn a_row_of_credentials_does_what_it_says_or_stops() {
    let mut c = case();
    c.creds[2].expect = 7;
    let stop = c.run(&mut Recorder::default()).unwrap_err();
    assert_eq!(
        (stop.kind, stop.step, stop.row, stop.result),
        (ReportKind::WrongResult, Step::Creds, 1, 0)
    );
    c.creds[2].expect = Cred::ANY;
    assert!(c.run(&mut Recorder::default()).is_ok());
    c.creds[2].call = 10;
    let stop = c.run(&mut Recorder::default()).unwrap_err();
    assert_eq!(
        (stop.kind, stop.result),
        (ReportKind::BadArgs, Check::CredCall.number())
    );
    c.creds.truncate(2);
    let stop = c.run(&mut Recorder::default()).unwrap_err();
    assert_eq!(
        (stop.kind, stop.result),
        (ReportKind::BadArgs, Check::RowIndex.number())
    );
}

#[test]
fn filters_come_last_in_each_thread_and_before_any_runs() {
    let mut c = case();
    with_threads(&mut c);
    c.threads[1].want |= want::PDEATH;
    (c.threads[1].cred, c.threads[1].seals) = (c.threads[0].cred + c.threads[0].creds, 1);
    let mut k = Recorder::default();
    c.run(&mut k).unwrap();
    let all = || k.calls.iter().enumerate();
    let seals: Vec<usize> = all()
        .filter(|c| c.1.1.0 == nr::SECCOMP)
        .map(|c| c.0)
        .collect();
    let [thread, leader] = seals[..] else {
        panic!("{seals:?}")
    };
    // The other's before it has met all with the rights that they keep; the leader's is the last call, while all wait.
    assert!(
        k.met[1].0 < thread && k.met[1].1 == Stage::Ids,
        "{seals:?} {:?}",
        k.met
    );
    assert_eq!(k.calls[thread - 1].1.1[0], PR_SET_PDEATHSIG);
    assert_eq!(
        (leader, k.met[2]),
        (k.calls.len() - 1, (k.calls.len(), Stage::Go))
    );
}

#[test]
fn another_address_than_asked_for_stops() {
    let c = case();
    let mut all = Recorder::default();
    c.run(&mut all).unwrap();
    let mut seen = 0;
    for (n, (step, (nr, ..))) in all.calls.iter().enumerate() {
        if matches!(*nr, nr::MMAP2 | nr::SHMAT | nr::MREMAP) {
            let mut k = Recorder {
                instead: Some((n, 0xdead_0000)),
                ..Recorder::default()
            };
            let stop = c.run(&mut k).unwrap_err();
            assert_eq!(
                (stop.kind, stop.step, stop.result),
                (ReportKind::WrongAddress, *step, 0xdead_0000)
            );
            assert_eq!(k.calls.len(), n + 1);
            seen += 1;
        }
    }
    assert_eq!(seen, 8);
}

/// The bytes that the reads of `k` put at each address: (address, offset in the file).
fn placed(k: &Recorder, limit: u32) -> Vec<(u32, u64)> {
    let mut bytes = Vec::new();
    for (_, (nr, args, data)) in &k.calls {
        if *nr == nr::PREADV {
            let mut offset = u64::from(args[4]) << 32 | u64::from(args[3]);
            let mut left = limit;
            for iovec in data.chunks_exact(8) {
                let word = |at: usize| u32::from_le_bytes(iovec[at..at + 4].try_into().unwrap());
                let n = word(4).min(left);
                bytes.extend((0..n).map(|i| (word(0) + i, offset + u64::from(i))));
                left -= n;
                offset += u64::from(n);
            }
        }
    }
    bytes
}

#[test]
fn short_reads_are_continued_where_they_ended() {
    let c = case();
    let mut whole = Recorder::default();
    c.run(&mut whole).unwrap();
    let want = placed(&whole, u32::MAX);
    assert_eq!(want.len(), 0x3000);
    for limit in [1000, 0x1000, 0xfff, 0x1001, 0x1fff, 1] {
        let mut k = Recorder {
            read_limit: Some(limit),
            ..Recorder::default()
        };
        c.run(&mut k).unwrap();
        assert_eq!(placed(&k, limit), want, "at most {limit} bytes a read");
        assert_eq!(k.shown.last().unwrap().filled, 0x3000);
    }
}

#[test]
fn the_end_of_a_pages_file_is_no_loop() {
    let mut k = Recorder {
        read_limit: Some(0),
        ..Recorder::default()
    };
    let stop = case().run(&mut k).unwrap_err();
    assert_eq!(
        (stop.kind, stop.step, stop.row, stop.result),
        (ReportKind::Truncated, Step::Fill, 0, 0x2000)
    );
    assert_eq!(k.calls.last().unwrap().1.0, nr::PREADV);
    // A file that ends in the middle: the second read of the first batch gives nothing.
    let first = k.calls.len() - 1;
    let mut k = Recorder {
        read_limit: Some(0x1800),
        instead: Some((first + 1, 0)),
        ..Recorder::default()
    };
    let stop = case().run(&mut k).unwrap_err();
    assert_eq!((stop.kind, stop.result), (ReportKind::Truncated, 0x800));
}

#[test]
fn a_heap_that_is_used_up_is_told() {
    let mut k = Recorder {
        read_limit: Some(1),
        ..Recorder::default()
    };
    let c = case();
    let stop = restore(&mut k, &c.args(), &mut NoHeap::default()).unwrap_err();
    assert_eq!(
        (stop.kind, stop.step, stop.result),
        (ReportKind::OutOfHeap, Step::Fill, 16)
    );
    let mut one = [Iovec { base: 0, len: 0 }; 1];
    assert!(one.iovecs(1).is_some() && one.iovecs(2).is_none());
}

#[test]
fn arguments_that_would_hit_the_area_are_refused() {
    let inside = AREA.end - 0x1000;
    let change: [fn(&mut Case, u32); 9] = [
        |c, at| c.unmaps[1].start = at,
        |c, at| c.parks[0].to = at,
        |c, at| c.attaches[1].at = at,
        |c, at| c.pieces[1].to = at,
        |c, at| c.unparks[0].from = at,
        |c, at| c.maps[0].start = at,
        |c, at| c.iovecs[1].base = at,
        |c, at| c.protects[0].start = at,
        |c, at| c.advises[0].start = at,
    ];
    for (i, f) in change.iter().enumerate() {
        let mut c = case();
        f(&mut c, inside);
        assert_eq!(c.refused(), Check::RowHitsArea, "table {i}");
        let mut c = case();
        f(&mut c, 0x7001);
        assert_eq!(c.refused(), Check::RowShape, "table {i}");
    }
    let mut c = case();
    c.holes[0] = Range {
        start: AREA.start,
        end: AREA.start + 0x1000,
    };
    assert_eq!(c.refused(), Check::RowHitsArea);
    c.holes[0] = Range {
        start: 0x40_8000,
        end: 0x40_4000,
    };
    assert_eq!(c.refused(), Check::RowShape, "upside down");
    let mut c = case();
    c.maps[0].len = 0;
    assert_eq!(c.refused(), Check::RowShape, "empty");
    c.maps[0].len = 0xfff0_0000;
    assert_eq!(c.refused(), Check::RowShape, "wraps");
}

#[test]
fn a_refusal_names_row_and_object() {
    let mut c = case();
    c.maps[1].start = AREA.start;
    let stop = c.run(&mut Recorder::default()).unwrap_err();
    assert_eq!((stop.row, stop.object), (1, 7));
}

#[test]
fn arguments_that_contradict_themselves_are_refused() {
    let refused = |f: fn(&mut Case)| {
        let mut c = case();
        f(&mut c);
        c.refused()
    };
    assert_eq!(refused(|c| c.fixed.keep.start += 0x1000), Check::Area);
    assert_eq!(refused(|c| c.fixed.keep.end += 0x1000), Check::Area);
    assert_eq!(
        refused(|c| c.fixed.area.end = c.fixed.area.start),
        Check::Area
    );
    assert_eq!(refused(|c| c.fixed.area.end += 4), Check::Area);
    assert_eq!(
        refused(|c| c.fixed.heap.end = AREA.end + 8),
        Check::AreaParts
    );
    assert_eq!(
        refused(|c| c.fixed.heap.end = c.fixed.heap.start),
        Check::AreaParts
    );
    assert_eq!(
        refused(|c| c.fixed.progress = AREA.end - 8),
        Check::AreaParts
    );
    assert_eq!(
        refused(|c| c.fixed.progress = u32::MAX - 7),
        Check::AreaParts
    );
    // The gate lies a page behind.
    let gate_at = |progress: u32| {
        let mut c = case();
        c.fixed.want |= want::GATE;
        c.fixed.progress = progress;
        c
    };
    assert_eq!(gate_at(AREA.end - 0x1000).refused(), Check::AreaParts);
    let mut k = Recorder::default();
    gate_at(AREA.end - 0x2000).run(&mut k).unwrap();
    assert_eq!(refused(|c| c.threads.clear()), Check::Threads);
    assert_eq!(
        refused(|c| c.threads.push(c.threads[0])),
        Check::Threads,
        "no stack"
    );
    assert_eq!(refused(|c| c.threads[0].queue.count = 3), Check::Threads);
    assert_eq!(refused(|c| c.threads[0].exit_frame = 0x7000), Check::Frame);
    assert_eq!(refused(|c| c.fixed.exit_svc = 0x9000), Check::Frame);
    let thread = |f: fn(&mut Case)| {
        let mut c = case();
        with_threads(&mut c);
        assert!(c.run(&mut Recorder::default()).is_ok());
        f(&mut c);
        c.refused()
    };
    assert_eq!(thread(|c| c.threads[1].stack += 4), Check::Threads);
    assert_eq!(
        thread(|c| c.threads[1].stack = AREA.end + 8),
        Check::Threads
    );
    assert_eq!(thread(|c| c.threads[2].stack = 0), Check::Threads);
    assert_eq!(
        thread(|c| c.threads[2].queue = Rows {
            first: u32::MAX,
            count: 1
        }),
        Check::Threads
    );
    assert_eq!(thread(|c| c.threads[1].exit_frame += 4), Check::Frame);
    assert_eq!(
        thread(|c| c.threads[1].exit_frame = AREA.end - 8),
        Check::Frame
    );
    assert_eq!(
        thread(|c| c.threads[1].exit_frame = AREA.start - 880),
        Check::Frame
    );
    assert_eq!(
        thread(|c| c.threads[1].frame = AREA.end - 880),
        Check::Frame
    );
    // Where it is: a tracer keeps the area. Not without one that takes it away.
    let mut c = case();
    with_threads(&mut c);
    c.threads[1].exit_frame = 0;
    assert!(c.run(&mut Recorder::default()).is_ok());
    c.threads[0].exit_frame = c.threads[1].frame - 0x4000;
    c.fixed.exit_svc = 0x9000;
    assert_eq!(c.refused(), Check::Frame);
    assert_eq!(refused(|c| c.threads[0].frame += 4), Check::Frame);
    assert_eq!(
        refused(|c| c.threads[0].frame = AREA.start + 0x1000 - 880),
        Check::Frame
    );
    assert_eq!(refused(|c| c.threads[0].frame = u32::MAX - 7), Check::Frame);
    assert_eq!(refused(|c| c.batches[1].first = 3), Check::RowIndex);
    assert_eq!(refused(|c| c.batches[0].count = 0), Check::RowIndex);
    assert_eq!(refused(|c| c.batches[0].count = u32::MAX), Check::RowIndex);
    assert_eq!(refused(|c| c.batches[0].len = 0x1fff), Check::BatchLength);
    assert_eq!(refused(|c| c.iovecs[1].len = 0x2000), Check::BatchLength);
    assert_eq!(
        refused(|c| {
            c.iovecs = vec![
                Iovec {
                    base: 0x20_0000,
                    len: 0x1000
                };
                1025
            ];
            c.batches = vec![Batch {
                offset: 0,
                fd: 1,
                first: 0,
                count: 1025,
                len: 1025 << 12,
            }];
        }),
        Check::RowIndex,
        "more than IOV_MAX"
    );
}

#[test]
fn indices_of_attachments_and_offsets_are_checked_where_they_are_used() {
    let stop = |f: fn(&mut Case)| {
        let mut c = case();
        f(&mut c);
        let stop = c.run(&mut Recorder::default()).unwrap_err();
        assert_eq!(stop.kind, ReportKind::BadArgs);
        (
            stop.step,
            Check::from_number(stop.result).unwrap(),
            stop.object,
        )
    };
    assert_eq!(
        stop(|c| c.attaches[0].pieces = 3),
        (Step::Shm, Check::RowIndex, 5)
    );
    assert_eq!(
        stop(|c| c.attaches[1].hole = u32::MAX),
        (Step::Shm, Check::RowIndex, 5)
    );
    assert_eq!(
        stop(|c| c.maps[1].page_offset = 1 << 32),
        (Step::Map, Check::PageOffset, 7)
    );
}

#[test]
fn tables_outside_the_area_are_refused() {
    // What is in the area is read on the device alone; that bad tables are refused is pure.
    let found = |f: fn(&mut RestoreArgs)| {
        let mut fixed = fixed();
        f(&mut fixed);
        // SAFETY: no table is both good and not empty, so nothing of the area is read.
        unsafe { Args::in_area(&fixed, |args| args.maps.len()) }
    };
    assert_eq!(found(|_| ()), Ok(0));
    assert_eq!(
        found(|f| f.maps = Table { addr: 3, count: 0 }),
        Ok(0),
        "any address if there are no rows"
    );
    assert_eq!(found(|f| f.magic += 1), Err(Check::Version));
    assert_eq!(found(|f| f.version += 1), Err(Check::Version));
    assert_eq!(found(|f| f.size += 4), Err(Check::Version));
    assert_eq!(
        found(|f| f.unmaps = Table {
            addr: AREA.start - 8,
            count: 1
        }),
        Err(Check::Table)
    );
    assert_eq!(
        found(|f| f.maps = Table {
            addr: AREA.start + 4,
            count: 1
        }),
        Err(Check::Table)
    );
    assert_eq!(
        found(|f| f.maps = Table {
            addr: AREA.end - 24,
            count: 1
        }),
        Err(Check::Table)
    );
    assert_eq!(
        found(|f| f.timers = Table {
            addr: AREA.start,
            count: u32::MAX
        }),
        Err(Check::Table)
    );
    assert_eq!(
        found(|f| f.closes = Table {
            addr: AREA.start,
            count: 0x4000_0000
        }),
        Err(Check::Table)
    );
}

#[test]
fn checks_and_steps_have_numbers_that_come_back() {
    for check in Check::ALL {
        assert_eq!(Check::from_number(check.number()), Some(check));
    }
    assert_eq!(Check::from_number(0), None);
}

/// Two more threads, made by `ns_last_pid`.
fn with_threads(c: &mut Case) {
    let more = |tid: u32, queue| ThreadArgs {
        tid,
        last_pid: *b"          41",
        clone: CloneArgs {
            set_tid: u64::from(tid),
            ..CloneArgs::default()
        },
        want: want::SCHED | want::NICE,
        policy: 3,
        nice: -5,
        tls: 0x100 * tid,
        stack: AREA.start + 0x100 * tid,
        frame: AREA.start + 0x2000,
        exit_frame: 0x8000 + 0x1000 * tid,
        queue,
        ..ThreadArgs::default()
    };
    c.fixed.want |= want::LAST_PID;
    c.fixed.last_pid_fd = 77;
    c.threads.extend([
        more(43, Rows { first: 1, count: 1 }),
        more(45, Rows::default()),
    ]);
}

#[test]
fn threads_are_made_then_go_through_the_stages_together() {
    let mut c = case();
    with_threads(&mut c);
    let mut k = Recorder::default();
    c.run(&mut k).unwrap();
    let of = |step: Step| -> Vec<(u32, [u32; 6])> {
        let of_step = k.calls.iter().filter(|c| c.0 == step);
        of_step.map(|c| (c.1.0, c.1.1)).collect()
    };
    let registered = |tid: u32| {
        [
            (nr::PRCTL, [PR_SET_NAME, 0, 0, 0, 0, 0]),
            (nr::SET_TID_ADDRESS, [0; 6]),
            (nr::SET_TLS, [0x100 * tid, 0, 0, 0, 0, 0]),
            (nr::SCHED_SETSCHEDULER, [0, 3, 0, 0, 0, 0]),
            (nr::SETPRIORITY, [0, 0, 0u32.wrapping_sub(5), 0, 0, 0]),
        ]
    };
    let made = |tid: u32| {
        let stack = AREA.start + 0x100 * tid;
        [
            (nr::PWRITE64, [77, 0, 12, 0, 0, 0]),
            (nr::CLONE, [CLONE_FOR_THREAD, stack, 0, 0, 0, 0]),
        ]
    };
    let mut want = vec![(nr::FUTEX, [2; 6])];
    want.extend(made(43).into_iter().chain(made(45)));
    want.extend(registered(43));
    want.extend([
        (nr::GETPID, [0; 6]),
        (nr::RT_TGSIGQUEUEINFO, [0, 77, 11, 0, 0, 0]),
    ]);
    want.extend(registered(45));
    assert_eq!(
        of(Step::Threads)[5..],
        want,
        "after what the leader registers"
    );
    let digits = k.calls.iter().find(|c| c.1.0 == nr::PWRITE64);
    assert_eq!(digits.unwrap().1.2, b"          41");
    let stages: Vec<Stage> = k.met.iter().map(|m| m.1).collect();
    assert_eq!(stages, Stage::ALL);
    // All threads are there before signals and timers; the last meeting is the end.
    assert_eq!(k.calls[k.met[0].0 - 1].1.0, nr::CLONE);
    // Nothing comes after it.
    assert_eq!(k.met[3].0, k.calls.len());
}

#[test]
fn with_set_tid_each_thread_is_made_by_the_argument_in_its_row() {
    let mut c = case();
    with_threads(&mut c);
    c.fixed.want = want::SET_TID;
    let mut k = Recorder::default();
    c.run(&mut k).unwrap();
    let made: Vec<&Call> = (k.calls.iter().map(|c| &c.1))
        .filter(|c| c.0 == nr::CLONE3)
        .collect();
    assert_eq!(made.len(), 2);
    for (call, t) in made.iter().zip(&c.threads[1..]) {
        assert_eq!(call.1, [0, 80, 0, 0, 0, 0]);
        assert_eq!(call.2, bytes_of(&t.clone));
    }
}

#[test]
fn a_thread_with_another_id_stops_unless_any_will_do() {
    let mut c = case();
    with_threads(&mut c);
    let run = |c: &Case| {
        let mut all = Recorder::default();
        c.run(&mut all).unwrap();
        let clone = all.calls.iter().position(|c| c.1.0 == nr::CLONE).unwrap();
        c.run(&mut Recorder {
            instead: Some((clone, 99)),
            ..Recorder::default()
        })
    };
    let stop = run(&c).unwrap_err();
    assert_eq!(
        (stop.kind, stop.step, stop.row, stop.result),
        (ReportKind::WrongTid, Step::Threads, 1, 99)
    );
    c.fixed.want &= !want::LAST_PID;
    assert!(run(&c).is_ok());
}

#[test]
fn a_failure_in_a_thread_names_it() {
    let mut c = case();
    with_threads(&mut c);
    let mut all = Recorder::default();
    c.run(&mut all).unwrap();
    let calls = all.calls.iter().enumerate();
    let nice: Vec<usize> = calls
        .filter(|(_, c)| c.1.0 == nr::SETPRIORITY)
        .map(|(n, _)| n)
        .collect();
    for (n, tid) in nice.into_iter().zip([43, 45]) {
        let mut k = Recorder {
            fail: Some((n, 13)),
            ..Recorder::default()
        };
        let stop = c.run(&mut k).unwrap_err();
        assert_eq!((stop.tid, stop.step), (tid, Step::Threads));
        assert_eq!(k.calls.len(), n + 1, "nothing is called after a failure");
    }
}

#[test]
fn no_thread_goes_before_the_last_gate_and_little_comes_after_it() {
    let mut c = case();
    with_threads(&mut c);
    let mut k = Recorder::default();
    c.run(&mut k).unwrap();
    assert_eq!(k.gates, [], "a task alone");
    c.fixed.want |= want::GATE;
    c.fixed.progress = AREA.end - 0x2000;
    let mut k = Recorder::default();
    c.run(&mut k).unwrap();
    let [(first, _, 1, false), (last, met, 2, false)] = k.gates[..] else {
        panic!("{:?}", k.gates)
    };
    // The timers are made, and none is armed.
    assert_eq!(k.calls[first].1.0, nr::SETITIMER);
    let armed = |c: &(Step, Call)| [nr::SETITIMER, nr::TIMER_SETTIME].contains(&c.1.0);
    assert!(!k.calls[..first].iter().any(armed));
    // The others are still to be let go, and nothing comes that could fail.
    assert_eq!(
        k.met[met..].iter().map(|m| m.1).collect::<Vec<_>>(),
        [Stage::Go, Stage::Last]
    );
    assert_eq!(last, k.calls.len());
    assert_eq!(k.frames, [(43, 1), (45, 1), (42, 1)]);
    let end = [nr::FCNTL64, nr::SECCOMP];
    assert_eq!([last - 2, last - 1].map(|n| k.calls[n].1.0), end);
    // Where the filter forbids it, that wait makes no calls.
    c.fixed.want |= want::SPIN;
    let mut k = Recorder::default();
    c.run(&mut k).unwrap();
    assert_eq!(
        k.gates.iter().map(|g| (g.2, g.3)).collect::<Vec<_>>(),
        [(1, false), (2, true)]
    );
}
