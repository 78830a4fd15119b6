//! Unmap: the old address space goes, but for the area and what was parked.
//!
//! Before any new mapping: leftovers between targets would stay visible, and a mapping of the old executable forbids
//! changing the exe link. One call a gap, whatever lay in it.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{Range, Report, Step};

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    run.begin(Step::Unmap);
    for (i, r) in args.unmaps.iter().enumerate() {
        run.row(i, Report::NO_OBJECT);
        unmap(run, *r)?;
    }
    Ok(())
}

/// Unmap one range.
pub(crate) fn unmap<K: Kernel>(run: &mut Run<'_, K>, range: Range) -> Done<K> {
    let res = run.k.munmap(range);
    run.ok(res)?;
    Ok(())
}
