//! Protect: memory gets its final rights now that it is filled, and no stale line stays in the instruction cache.
//!
//! PROT_EXEC comes only here, so no mapping was writable and executable unless the program's own was; for those the
//! cache is flushed by the rows of the flush table.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::Step;

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    run.begin(Step::Protect);
    for (i, p) in args.protects.iter().enumerate() {
        run.row(i, p.object);
        let res = run.k.mprotect(p);
        run.ok(res)?;
    }
    for (i, f) in args.flushes.iter().enumerate() {
        run.row(i, f.object);
        let res = run.k.cacheflush(f);
        run.ok(res)?;
    }
    Ok(())
}
