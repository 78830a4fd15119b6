//! Park: what the kernel gives a process only once (sigpage, vvar, vdso) is moved out of the way.
//!
//! Before the unmap, which would be final for it.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{Move, Step};

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done {
    run.begin(Step::Park);
    moves(run, args.parks)
}

/// Move each mapping to its place and see that it got there.
pub(crate) fn moves<K: Kernel>(run: &mut Run<'_, K>, rows: &[Move]) -> Done {
    for (i, m) in rows.iter().enumerate() {
        run.row(i, m.object);
        let res = run.k.mremap_fixed(m);
        run.at(res, m.to)?;
    }
    Ok(())
}
