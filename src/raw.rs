//! The kernel itself: the only file with raw system calls.

use armrest_abi::{Progress, Report, Step};
use armrest_blob::Entry;
use armrest_blob::kernel::{Data, Errno, Kernel, Res, nr};
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use syscalls::raw::{syscall1, syscall6};

/// For the panic handler, which is handed nothing: where to report, and which step runs.
static REPORT_FD: AtomicI32 = AtomicI32::new(-1);
static STEP: AtomicU32 = AtomicU32::new(Step::Start.number());

/// A call as it was made.
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
                to: u32,
                svc: u32,
            ) -> !;
        }
        // SAFETY: the routine lies in the kept page and uses nothing of what it unmaps; nothing of ours runs after it.
        unsafe {
            armrest_exit(
                e.unmap.start,
                e.unmap.len(),
                e.report_fd,
                e.frame,
                e.exit[0],
                e.exit[1],
            )
        }
    }
}

impl Kernel for Raw {
    #[inline(never)]
    fn call(&mut self, nr: u32, mut args: [u32; 6], data: Option<Data<'_>>) -> Res {
        if let Some(data) = data
            && let Some(slot) = args.get_mut(data.arg)
        {
            *slot = word(data.bytes.as_ptr().addr());
        }
        self.last = Call { nr, args };
        let [a, b, c, d, e, f] = args.map(|a| a as usize);
        // SAFETY: the steps ask only for calls on memory outside the bootstrap area, where no Rust object lies (the
        // verify step has seen to that), and for reads of `data`, which is borrowed until the call is over.
        let result = word(unsafe { syscall6(nr as usize, a, b, c, d, e, f) });
        match result.wrapping_neg() {
            errno @ 1..=4095 => Err(Errno(errno)),
            _ => Ok(result),
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

/// End without a word.
pub fn exit_group() -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { syscall1(nr::EXIT_GROUP as usize, Report::EXIT_CODE as usize) };
    }
}

/// A register's contents: lossless on the device, where `usize` has 32 bits.
fn word(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
