//! Park: what the kernel gives a process only once (sigpage, vvar, vdso) is moved out of the way.
//!
//! Before the unmap, which would be final for it.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{Move, Step};

pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    moves(run, Step::Park, &args.parks)
}

/// A step of moves: each mapping goes to its place, and it is seen that it got there.
#[inline(never)]
pub(crate) fn moves<K: Kernel>(run: &mut Run<'_, K>, step: Step, rows: &[Move]) -> Done<K> {
    run.begin(step);
    for (i, m) in rows.iter().enumerate() {
        run.row(i, m.object);
        let res = run.k.mremap_fixed(m);
        run.at(res, m.to)?;
    }
    Ok(())
}
