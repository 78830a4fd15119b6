//! Detach: what the old program registered with the kernel is taken back.
//!
//! Before the old memory goes, because the kernel writes to it on its own: rseq at every preemption (and kills if it
//! cannot), the clear-tid word and the robust list when a thread dies. The alternate stack must be off as the kernel
//! silently keeps it if the new stack pointer happens to lie in it.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::consts::RSEQ_FLAG_UNREGISTER;
use armrest_abi::{Step, want};

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    run.begin(Step::Detach);
    if args.fixed.want & want::OLD_RSEQ != 0 {
        let res = run.k.rseq(&args.fixed.old_rseq, RSEQ_FLAG_UNREGISTER);
        run.ok(res)?;
    }
    if args.fixed.want & want::OLD_ROBUST != 0 {
        let res = run.k.set_robust_list(0);
        run.ok(res)?;
    }
    let res = run.k.altstack_off();
    run.ok(res)?;
    let res = run.k.set_tid_address(0);
    run.ok(res)?;
    Ok(())
}
