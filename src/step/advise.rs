//! Advise: madvise bits, then mlock.
//!
//! After the contents: some advice zaps pages (guards) or forbids filling, and locking faults in what is there.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::Step;

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    run.begin(Step::Advise);
    for (i, a) in args.advises.iter().enumerate() {
        run.row(i, a.object);
        let res = run.k.madvise(a);
        run.ok(res)?;
    }
    for (i, l) in args.locks.iter().enumerate() {
        run.row(i, l.object);
        let res = run.k.mlock(l);
        run.ok(res)?;
    }
    Ok(())
}
