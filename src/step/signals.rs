//! Signals: what was pending is queued again, by the thread itself, as the kernel demands.
//!
//! All signals are blocked and the actions are final, so nothing is delivered or discarded before the task runs.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use crate::step::verify::slice;
use armrest_abi::{Report, Step, ThreadArgs};

/// The leader's: the shared queue, and its own private one.
#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>, tid: u32) -> Done<K> {
    run.begin(Step::Signals);
    match args.threads.first() {
        Some(leader) => queue(run, args, leader, tid, tid),
        None => Ok(()),
    }
}

/// What is in the queue of the calling thread.
#[inline(never)]
pub(crate) fn queue<K: Kernel>(
    run: &mut Run<'_, K>,
    args: &Args<'_>,
    t: &ThreadArgs,
    pid: u32,
    tid: u32,
) -> Done<K> {
    let rows = slice(&args.queued, t.queue.first, t.queue.count).unwrap_or(&[]);
    for (i, q) in rows.iter().enumerate() {
        run.row(i, Report::NO_OBJECT);
        let res = run.k.queue_signal(pid, tid, q);
        run.ok(res)?;
    }
    Ok(())
}
