//! Creds: dumpable and the parent-death signal, both of which any change of ids would reset.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{Step, want};

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done {
    run.begin(Step::Creds);
    if args.fixed.want & want::DUMPABLE != 0 {
        let res = run.k.set_dumpable(args.fixed.dumpable);
        run.ok(res)?;
    }
    if let Some(leader) = args.threads.first()
        && leader.want & want::PDEATH != 0
    {
        let res = run.k.set_pdeath(leader.pdeath);
        run.ok(res)?;
    }
    Ok(())
}
