//! Where a restore stands: shared by all steps, so that a failure knows its step, row and object.

use crate::kernel::{Kernel, Res};
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
    /// What [`ReportKind`] says: a negative errno, an address, a number of a check, a size.
    pub result: u32,
}

/// The kernel and the place in the list of steps.
pub(crate) struct Run<'k, K> {
    pub k: &'k mut K,
    step: Step,
    row: u32,
    object: u32,
    filled: u64,
}

impl<'k, K: Kernel> Run<'k, K> {
    pub fn new(k: &'k mut K) -> Self {
        Run { k, step: Step::Start, row: 0, object: Report::NO_OBJECT, filled: 0 }
    }
    /// A step begins.
    pub fn begin(&mut self, step: Step) {
        self.step = step;
        self.k.step(step);
        self.row(0, Report::NO_OBJECT);
    }
    /// A row of the step's table begins.
    pub fn row(&mut self, row: usize, object: u32) {
        self.row = u32::try_from(row).unwrap_or(u32::MAX);
        self.object = object;
        self.show();
    }
    /// Page contents arrived.
    pub fn filled(&mut self, bytes: u32) {
        self.filled = self.filled.wrapping_add(u64::from(bytes));
        self.show();
    }
    fn show(&mut self) {
        self.k.progress(Progress { step: self.step.number(), row: self.row, filled: self.filled });
    }
    /// Stop here.
    #[cold]
    pub fn stop(&self, kind: ReportKind, result: u32) -> Stop {
        Stop { kind, step: self.step, object: self.object, row: self.row, result }
    }
    /// The result of a call, or a stop with its errno.
    pub fn ok(&self, res: Res) -> Result<u32, Stop> {
        res.map_err(|e| self.stop(ReportKind::Errno, u32::from(e.0).wrapping_neg()))
    }
    /// The result of a call that had to return `want`.
    pub fn at(&self, res: Res, want: u32) -> Result<(), Stop> {
        let got = self.ok(res)?;
        if got == want { Ok(()) } else { Err(self.stop(ReportKind::WrongAddress, got)) }
    }
}
