//! Signals: what was pending is queued again, by the thread itself, as the kernel demands.
//!
//! All signals are blocked and the actions are final, so nothing is delivered or discarded before the task runs.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{Report, Step};

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>, tid: u32) -> Done {
    run.begin(Step::Signals);
    for (i, q) in args.queue.iter().enumerate() {
        run.row(i, Report::NO_OBJECT);
        let res = run.k.queue_signal(tid, tid, q);
        run.ok(res)?;
    }
    Ok(())
}
