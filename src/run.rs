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

/// What a step returns.
pub(crate) type Done<K, T = ()> = Result<T, <K as Kernel>::Failure>;

/// The kernel and the place in the list of steps.
pub(crate) struct Run<'k, K> {
    pub k: &'k mut K,
    at: Progress,
    step: Step,
    object: u32,
    tid: u32,
}

impl<'k, K: Kernel> Run<'k, K> {
    pub fn new(k: &'k mut K) -> Self {
        Run {
            k,
            at: Progress {
                step: Step::Start.number(),
                row: 0,
                filled: 0,
            },
            step: Step::Start,
            object: Report::NO_OBJECT,
            tid: 0,
        }
    }
    /// The same for another thread than the leader: its number in the table of threads, its id, and what it is at.
    pub fn thread(k: &'k mut K, row: usize, tid: u32, step: Step) -> Self {
        let mut run = Run::new(k);
        run.tid = tid;
        run.step = step;
        run.at.row = u32::try_from(row).unwrap_or(u32::MAX);
        run
    }
    /// A step begins.
    #[inline(never)]
    pub fn begin(&mut self, step: Step) {
        self.step = step;
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
    pub fn stop(&mut self, kind: ReportKind, result: u32) -> K::Failure {
        self.k.fail(Stop {
            kind,
            step: self.step,
            object: self.object,
            row: self.at.row,
            result,
            tid: self.tid,
        })
    }
    /// The result of a call, or a stop with its errno.
    pub fn ok(&mut self, res: Res) -> Done<K, u32> {
        ok(res, self)
    }
    /// The result of a call that had to return `want`.
    pub fn at(&mut self, res: Res, want: u32) -> Done<K> {
        at(res, self, want)
    }
    /// All threads have come to the end of `stage`.
    pub fn meet(&mut self, args: &Args<'_>, stage: Stage) -> Done<K> {
        if args.threads.len() < 2 {
            return Ok(());
        }
        self.k.meet(args, stage)
    }
}

// The result comes first: so it stays in the registers in which the call returned it.

#[inline(never)]
fn ok<K: Kernel>(res: Res, run: &mut Run<'_, K>) -> Done<K, u32> {
    res.map_err(|e| run.stop(ReportKind::Errno, e.0.wrapping_neg()))
}

#[inline(never)]
fn at<K: Kernel>(res: Res, run: &mut Run<'_, K>, want: u32) -> Done<K> {
    let got = ok(res, run)?;
    if got == want {
        Ok(())
    } else {
        Err(run.stop(ReportKind::WrongAddress, got))
    }
}
