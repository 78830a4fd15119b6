//! Timers: armed as late as possible, so that little of their time passes in the restore.
//!
//! POSIX timers come after the threads, since some send their signal to one of them, and all are made before the first
//! is armed. In between, the tasks of a tree wait for each other, so that no time runs while others fill their memory.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{PosixTimer, Report, Step, want};

/// A clock that every kernel has: for timers that are deleted again.
const CLOCK_MONOTONIC: u32 = 1;

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    run.begin(Step::Timers);
    if !args.posix_timers.is_empty() {
        make(run, args)?;
    }
    if args.fixed.want & want::GATE != 0 {
        run.k.gate(1, false);
    }
    for (i, t) in args.timers.iter().enumerate() {
        run.row(i, Report::NO_OBJECT);
        let res = run.k.setitimer(t);
        run.ok(res)?;
    }
    let wide = args.fixed.want & want::TIME64 != 0;
    for (i, t) in args.posix_timers.iter().enumerate() {
        run.row(args.timers.len() + i, Report::NO_OBJECT);
        let res = run.k.timer_settime(t, wide);
        run.ok(res)?;
    }
    Ok(())
}

#[inline(never)]
fn make<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    let ours = args.fixed.want & want::TIMER_IDS != 0;
    if ours {
        let res = run.k.timer_ids(1);
        run.ok(res)?;
    }
    for (i, t) in args.posix_timers.iter().enumerate() {
        run.row(args.timers.len() + i, Report::NO_OBJECT);
        skip(run, t)?;
        let res = run.k.timer_create(t.clock, Some(&t.event), t.id);
        run.ok(res)?;
    }
    if ours {
        let res = run.k.timer_ids(0);
        run.ok(res)?;
    }
    Ok(())
}

/// Use up the numbers before this timer's. That it is they that come is seen by deleting them.
fn skip<K: Kernel>(run: &mut Run<'_, K>, t: &PosixTimer) -> Done<K> {
    for id in t.id.wrapping_sub(t.skip)..t.id {
        let res = run.k.timer_create(CLOCK_MONOTONIC, None, id);
        run.ok(res)?;
        let res = run.k.timer_delete(id);
        run.ok(res)?;
    }
    Ok(())
}
