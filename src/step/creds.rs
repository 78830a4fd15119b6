//! Creds: dumpable and the parent-death signal, both of which any change of ids would reset.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{Step, want};

pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done {
    run.begin(Step::Creds);
    if args.fixed.want & want::DUMPABLE != 0 {
        let res = run.k.set_dumpable(args.fixed.dumpable);
        run.ok(res)?;
    }
    for t in args.threads {
        if t.want & want::PDEATH != 0 {
            let res = run.k.set_pdeath(t.pdeath);
            run.ok(res)?;
        }
    }
    Ok(())
}
