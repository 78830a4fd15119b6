//! Mm: the kernel's own idea of the address space: code, data, heap, stack, arguments, auxv, exe.
//!
//! After the old executable is unmapped (the exe link is busy until then) and before credentials fall.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{Step, want};

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done {
    run.begin(Step::Mm);
    if args.fixed.want & want::MM_MAP != 0 {
        let res = run.k.set_mm_map(&args.fixed.mm);
        run.ok(res)?;
    }
    Ok(())
}
