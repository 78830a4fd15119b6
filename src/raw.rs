//! The kernel itself: the only file with raw system calls.

use crate::{report, threads};
use armrest_abi::{
    BEAT_OFFSET, FRAME_SIZE, GATE_OFFSET, Progress, REACHED_OFFSET, Report, Step, ThreadArgs,
    bytes_of_slice,
};
use armrest_blob::kernel::{Data, Errno, Kernel, Res, Stage, nr};
use armrest_blob::{Args, Entry, Stop};
use core::convert::Infallible;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use syscalls::raw::syscall6;

/// For the panic handler, which is handed nothing: where to report, and which step runs.
static REPORT_FD: AtomicI32 = AtomicI32::new(-1);
static STEP: AtomicU32 = AtomicU32::new(Step::Start.number());
/// For any report: whose it is.
pub static PID: AtomicU32 = AtomicU32::new(0);

/// A call as it was made; arch/arm/thread.S reads it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// Number.
    pub nr: u32,
    /// r0 to r5.
    pub args: [u32; 6],
}

/// The kernel below.
pub struct Raw {
    report_fd: i32,
    progress: *mut Progress,
    /// True from the step after verify on, which has seen that `progress` lies in the area.
    shows: bool,
    last: Call,
}

impl Raw {
    /// A kernel that reports failures to `report_fd` and shows progress at this address.
    pub fn new(report_fd: i32, progress: u32) -> Raw {
        REPORT_FD.store(report_fd, Ordering::Relaxed);
        Raw {
            report_fd,
            progress: progress as usize as *mut Progress,
            shows: false,
            last: Call {
                nr: 0,
                args: [0; 6],
            },
        }
    }
    /// The kernel of another thread: it shows no progress.
    pub fn of_thread() -> Raw {
        Raw::new(REPORT_FD.load(Ordering::Relaxed), 0)
    }
    /// As the panic handler finds it.
    pub fn after_panic() -> (Raw, u32) {
        (
            Raw::new(REPORT_FD.load(Ordering::Relaxed), 0),
            STEP.load(Ordering::Relaxed),
        )
    }
    /// The call made last.
    pub fn last(&self) -> Call {
        self.last
    }
    /// Write the report, if it can be written, and exit.
    pub fn exit(&mut self, report: &Report) -> ! {
        threads::first_to_fail();
        // Nothing can be done about an error here; the exit code tells the harness that the report is missing.
        let _ = self.write_report(self.report_fd, report);
        exit_group()
    }
    /// Let the exit routine do the last calls.
    pub fn enter(&self, e: &Entry) -> ! {
        unsafe extern "C" {
            /// arch/arm/exit.S
            fn armrest_exit(
                start: u32,
                len: u32,
                report_fd: i32,
                frame: u32,
                svc: u32,
                pid: u32,
            ) -> !;
        }
        // SAFETY: the routine lies in the kept page and uses nothing of what it unmaps; nothing of ours runs after it,
        // as all other threads have left.
        unsafe {
            armrest_exit(
                e.unmap.start,
                e.unmap.len(),
                e.report_fd,
                placed(e.frame, e.exit[0]),
                e.exit[1],
                PID.load(Ordering::Relaxed),
            )
        }
    }
}

impl Raw {
    fn remember(&mut self, nr: u32, mut args: [u32; 6], data: Option<Data<'_>>) {
        if let Some(data) = data
            && let Some(slot) = args.get_mut(data.arg)
        {
            *slot = word(data.bytes.as_ptr().addr());
        }
        self.last = Call { nr, args };
    }
}

/// What a call returned, in words.
fn answer(result: u32) -> Res {
    match result.wrapping_neg() {
        errno @ 1..=4095 => Err(Errno(errno)),
        _ => Ok(result),
    }
}

/// How often the gate is looked at without a call while the harness gives no sign of life.
const SPINS: u32 = 1 << 27;

/// A call on memory that is the blob's own. Whoever waits looks again after a while: so a wake-up may fail.
pub fn futex(word_at: &AtomicU32, op: u32, value: u32) -> u32 {
    let at = core::ptr::from_ref(word_at).addr();
    let patience = threads::patience();
    let time = match op {
        threads::WAIT => patience.as_ptr().addr(),
        _ => 0,
    };
    // SAFETY: the kernel reads the word, or does to it what other threads may do to an atomic at any time, and reads the
    // time.
    let result = unsafe {
        syscall6(
            nr::FUTEX as usize,
            at,
            (op | threads::PRIVATE) as usize,
            value as usize,
            time,
            at,
            threads::ADD_NOTHING as usize,
        )
    };
    word(result)
}

impl Kernel for Raw {
    /// The process ends there.
    type Failure = Infallible;

    #[inline(never)]
    fn fail(&mut self, why: Stop) -> Infallible {
        report::fail(self, &why, why.step.number())
    }

    #[inline(never)]
    fn call(&mut self, nr: u32, args: [u32; 6], data: Option<Data<'_>>) -> Res {
        self.remember(nr, args, data);
        let [a, b, c, d, e, f] = self.last.args.map(|a| a as usize);
        // SAFETY: the steps ask only for calls on memory outside the bootstrap area, where no Rust object lies (the
        // verify step has seen to that), and for reads of `data`, which is borrowed until the call is over.
        answer(word(unsafe { syscall6(nr as usize, a, b, c, d, e, f) }))
    }

    fn start(
        &mut self,
        nr: u32,
        args: [u32; 6],
        data: Option<Data<'_>>,
        of: &Args<'_>,
        row: usize,
    ) -> Res {
        unsafe extern "C" {
            /// arch/arm/thread.S
            fn armrest_spawn(call: &Call, of: *const (), row: usize) -> u32;
        }
        self.remember(nr, args, data);
        // SAFETY: the call gives the new thread the stack of its row, which the verify step has found in the area and
        // which nobody else uses. `of` lives on the leader's stack, which the leader leaves when all others are gone.
        answer(unsafe { armrest_spawn(&self.last, core::ptr::from_ref(of).cast(), row) })
    }

    fn expect_threads(&mut self, others: usize) -> Res {
        self.last.nr = nr::FUTEX;
        answer(threads::expect(word(others)))
    }

    fn meet(&mut self, _: &Args<'_>, stage: Stage) -> Result<(), Infallible> {
        // A thread that fails ends all of them.
        if stage == Stage::Last {
            threads::wait_alone();
        } else {
            threads::meet(stage);
        }
        Ok(())
    }

    fn gate(&mut self, time: u32, spins: bool) {
        // SAFETY: the verify step has seen that these words lie in the area; nothing else is kept there. The harness and
        // other tasks use them at the same time, hence atomic.
        let [open, beat, reached] =
            [GATE_OFFSET, BEAT_OFFSET, REACHED_OFFSET].map(|offset| unsafe {
                let at = self.progress.wrapping_byte_add(offset as usize);
                AtomicU32::from_ptr(at.cast())
            });
        // pollfd: descriptor, events, revents.
        let mut report = [self.report_fd.cast_unsigned(), 0];
        let (mut alone, mut turns, mut heard) = (false, 0u32, 0);
        reached.store(time, Ordering::Release);
        while open.load(Ordering::Acquire) < time {
            // Who could open it was gone before it was looked at: nobody comes through.
            if alone {
                exit_group();
            }
            if spins {
                let now = beat.load(Ordering::Relaxed);
                turns = if now == heard {
                    turns.wrapping_add(1)
                } else {
                    0
                };
                heard = now;
                // About a second of this process's own time. Who gives up shuts the gate for all, if it is not open yet.
                let shut =
                    || open.compare_exchange(time - 1, 0, Ordering::AcqRel, Ordering::Acquire);
                alone = turns > SPINS && shut().unwrap_or_else(|now| now) < time;
                continue;
            }
            // FUTEX_WAIT for a while; whatever it returns, the word is looked at again.
            let wait = Data {
                arg: 3,
                bytes: bytes_of_slice(&threads::A_WHILE),
            };
            let at = [word(open.as_ptr().addr()), 0, time.wrapping_sub(1), 0, 0, 0];
            let _ = self.call(nr::FUTEX, at, Some(wait));
            // An error on the pipe: nobody reads it.
            let fds = self.place_of(&mut report[0]);
            alone = self.call3(nr::POLL, fds, 1, 0) == Ok(1);
        }
    }

    fn place_frame(&mut self, t: &ThreadArgs) {
        let words = |at: u32| core::ptr::with_exposed_provenance_mut::<u32>(at as usize);
        if t.exit_frame != 0 {
            // SAFETY: the verify step has seen that the one lies in the area and the other outside of it, both aligned; that
            // is memory of the task where the plan has found room, and nobody else uses it before the task runs.
            unsafe {
                words(t.frame).copy_to_nonoverlapping(words(t.exit_frame), FRAME_SIZE as usize / 4);
            }
        }
    }

    fn place_of(&mut self, word: &mut u32) -> u32 {
        u32::try_from(core::ptr::from_mut(word).expose_provenance()).unwrap_or(0)
    }

    fn progress(&mut self, progress: Progress) {
        if self.shows {
            // SAFETY: the address lies in the area, is aligned and not used for anything else; the harness reads the page
            // meanwhile, hence volatile.
            unsafe { self.progress.write_volatile(progress) };
        }
    }

    fn step(&mut self, step: Step) {
        STEP.store(step.number(), Ordering::Relaxed);
        self.shows = step != Step::Verify;
    }
}

/// Leave the area for good: the thread's frame is loaded.
pub fn leave(args: &Args<'_>, t: &ThreadArgs) -> ! {
    unsafe extern "C" {
        /// arch/arm/exit.S
        fn armrest_leave(frame: u32, svc: u32, left: &AtomicU32) -> !;
    }
    let frame = placed(t.frame, t.exit_frame);
    // SAFETY: the routine lies in the kept page, and uses nothing of the area once its one call has counted this thread
    // out.
    unsafe { armrest_leave(frame, args.fixed.exit_svc, threads::left()) }
}

/// Where a frame lies when its thread leaves.
fn placed(frame: u32, exit_frame: u32) -> u32 {
    if exit_frame == 0 { frame } else { exit_frame }
}

/// End without a word.
pub fn exit_group() -> ! {
    unsafe extern "C" {
        /// arch/arm/exit.S
        fn armrest_end() -> !;
    }
    // SAFETY: ends the process, whatever its state.
    unsafe { armrest_end() }
}

/// A register's contents: lossless on the device, where `usize` has 32 bits.
fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
