//! Timers: armed as late as possible, so that little of their time passes in the restore.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{Report, Step};

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done {
    run.begin(Step::Timers);
    for (i, t) in args.timers.iter().enumerate() {
        run.row(i, Report::NO_OBJECT);
        let res = run.k.setitimer(t);
        run.ok(res)?;
    }
    Ok(())
}
