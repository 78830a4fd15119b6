//! Where a restore stands: shared by all steps, so that a failure knows its step, row and object.

use crate::args::Args;
use crate::kernel::{Kernel, Res, Stage};
use armrest_abi::{Progress, Report, ReportKind, Step};

/// Why a restore stopped. The kernel's side adds the call that it made last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What went wrong.
    pub kind: ReportKind,
    /// In which step.
    pub step: Step,
    /// Index of the object in the plan's list, or [`Report::NO_OBJECT`].
    pub object: u32,
    /// Row in the step's table.
    pub row: u32,
    /// What [`ReportKind`] says: a negative errno, an address, a number of a check, a size, a thread's id.
    pub result: u32,
    /// Which thread, 0 = the leader.
    pub tid: u32,
}

/// A step that failed: the [`Stop`] waits in [`Run`], so that nothing big is handed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// What a step returns.
pub(crate) type Done<T = ()> = Result<T, Stopped>;

/// The kernel and the place in the list of steps.
pub(crate) struct Run<'k, K> {
    pub k: &'k mut K,
    at: Progress,
    object: u32,
    why: Stop,
}

impl<'k, K: Kernel> Run<'k, K> {
    pub fn new(k: &'k mut K) -> Self {
        let object = Report::NO_OBJECT;
        // Replaced before anyone looks.
        let why = Stop {
            kind: ReportKind::Panic,
            step: Step::Start,
            object,
            row: 0,
            result: 0,
            tid: 0,
        };
        Run {
            k,
            at: Progress {
                step: Step::Start.number(),
                row: 0,
                filled: 0,
            },
            object,
            why,
        }
    }
    /// The same for another thread than the leader: its number in the table of threads, its id, and what it is at.
    pub fn thread(k: &'k mut K, row: usize, tid: u32, step: Step) -> Self {
        let mut run = Run::new(k);
        run.why.tid = tid;
        run.why.step = step;
        run.at.row = u32::try_from(row).unwrap_or(u32::MAX);
        run
    }
    /// A step begins.
    #[inline(never)]
    pub fn begin(&mut self, step: Step) {
        self.why.step = step;
        self.at.step = step.number();
        self.k.step(step);
        self.row(0, Report::NO_OBJECT);
    }
    /// A row of the step's table begins.
    #[inline(never)]
    pub fn row(&mut self, row: usize, object: u32) {
        self.at.row = u32::try_from(row).unwrap_or(u32::MAX);
        self.object = object;
        self.k.progress(self.at);
    }
    /// Page contents arrived.
    pub fn filled(&mut self, bytes: u32) {
        self.at.filled = self.at.filled.wrapping_add(u64::from(bytes));
        self.k.progress(self.at);
    }
    /// Stop here: `return Err(run.stop(..))`.
    #[cold]
    #[inline(never)]
    pub fn stop(&mut self, kind: ReportKind, result: u32) -> Stopped {
        self.why = Stop {
            kind,
            step: self.why.step,
            object: self.object,
            row: self.at.row,
            result,
            tid: self.why.tid,
        };
        Stopped
    }
    /// The result of a call, or a stop with its errno.
    pub fn ok(&mut self, res: Res) -> Done<u32> {
        ok(res, self)
    }
    /// The result of a call that had to return `want`.
    pub fn at(&mut self, res: Res, want: u32) -> Done {
        at(res, self, want)
    }
    /// All threads have come to the end of `stage`.
    pub fn meet(&mut self, args: &Args<'_>, stage: Stage) -> Done {
        if args.threads.len() < 2 {
            return Ok(());
        }
        self.k.meet(args, stage).map_err(|why| {
            self.why = why;
            Stopped
        })
    }
    /// Why a step failed.
    pub fn why(&self) -> Stop {
        self.why
    }
}

// The result comes first: so it stays in the registers in which the call returned it.

#[inline(never)]
fn ok<K: Kernel>(res: Res, run: &mut Run<'_, K>) -> Done<u32> {
    res.map_err(|e| run.stop(ReportKind::Errno, e.0.wrapping_neg()))
}

#[inline(never)]
fn at<K: Kernel>(res: Res, run: &mut Run<'_, K>, want: u32) -> Done {
    let got = ok(res, run)?;
    if got == want {
        Ok(())
    } else {
        Err(run.stop(ReportKind::WrongAddress, got))
    }
}
