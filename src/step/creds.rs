//! Creds: dumpable and the parent-death signal, both of which any change of ids would reset.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::kernel::Stage;
use crate::run::{Done, Run};
use armrest_abi::{Step, ThreadArgs, want};

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done {
    run.begin(Step::Creds);
    if let Some(leader) = args.threads.first() {
        ids(run, leader)?;
    }
    // No thread goes on with rights that another has given up already.
    run.meet(args, Stage::Ids)?;
    if args.fixed.want & want::DUMPABLE != 0 {
        let res = run.k.set_dumpable(args.fixed.dumpable);
        run.ok(res)?;
    }
    match args.threads.first() {
        Some(leader) => last(run, leader),
        None => Ok(()),
    }
}

/// What each thread does before any goes on.
pub(crate) fn ids<K: Kernel>(_run: &mut Run<'_, K>, _t: &ThreadArgs) -> Done {
    Ok(())
}

/// What each thread does last.
#[inline(never)]
pub(crate) fn last<K: Kernel>(run: &mut Run<'_, K>, t: &ThreadArgs) -> Done {
    if t.want & want::PDEATH != 0 {
        let res = run.k.set_pdeath(t.pdeath);
        run.ok(res)?;
    }
    Ok(())
}
