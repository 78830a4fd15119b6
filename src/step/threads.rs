//! Threads: what each thread registers for itself; so far there is only the leader.
//!
//! After memory, since the kernel writes to what is registered, and before pending signals and timers.

use crate::args::{Args, Check};
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{ReportKind, Step, ThreadArgs, want};

/// Returns the leader's id as the kernel knows it, which with `--any-pid` is not the checkpoint's.
#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<u32> {
    run.begin(Step::Threads);
    let [leader] = args.threads else {
        return Err(run.stop(ReportKind::BadArgs, Check::Threads.number()));
    };
    register(run, leader)
}

fn register<K: Kernel>(run: &mut Run<'_, K>, t: &ThreadArgs) -> Done<u32> {
    let res = run.k.set_name(&t.comm);
    run.ok(res)?;
    let res = run.k.set_tid_address(t.clear_tid);
    let tid = run.ok(res)?;
    let res = run.k.set_tls(t.tls);
    run.ok(res)?;
    if t.want & want::ROBUST != 0 {
        let res = run.k.set_robust_list(t.robust_head);
        run.ok(res)?;
    }
    if t.want & want::RSEQ != 0 {
        let res = run.k.rseq(&t.rseq, 0);
        run.ok(res)?;
    }
    Ok(tid)
}
