//! Threads: they are made, and each registers for itself what the kernel keeps by thread.
//!
//! After memory, since the kernel writes to what is registered, and before timers, which may name a thread. A new thread
//! starts on a stack of its own in the area with all signals blocked, as the leader has them. Then all go through the
//! stages of [`Stage`] together and leave one by one (arch/arm/exit.S), the leader last.

use crate::args::{Args, Check};
use crate::kernel::{Kernel, Stage};
use crate::run::{Done, Run};
use crate::step::{creds, signals};
use armrest_abi::{Report, ReportKind, Step, ThreadArgs, want};

/// Returns the leader's id as the kernel knows it, which with `--any-pid` is not the checkpoint's.
#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K, u32> {
    run.begin(Step::Threads);
    let Some((leader, others)) = args.threads.split_first() else {
        return Err(run.stop(ReportKind::BadArgs, Check::Threads.number()));
    };
    let tid = register(run, leader)?;
    if !others.is_empty() {
        let res = run.k.expect_threads(others.len());
        run.ok(res)?;
    }
    for (i, t) in others.iter().enumerate() {
        run.row(i + 1, Report::NO_OBJECT);
        spawn(run, args, i + 1, t)?;
    }
    // After the others are made, since they inherit it.
    schedule(run, leader)?;
    run.meet(args, Stage::Register)?;
    Ok(tid)
}

#[inline(never)]
fn spawn<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>, row: usize, t: &ThreadArgs) -> Done<K> {
    let f = args.fixed;
    if f.want & want::LAST_PID != 0 {
        let res = run.k.set_last_pid(f.last_pid_fd, &t.last_pid);
        run.ok(res)?;
    }
    let res = run.k.spawn(args, row, t);
    let tid = run.ok(res)?;
    if tid != t.tid && f.want & (want::SET_TID | want::LAST_PID) != 0 {
        return Err(run.stop(ReportKind::WrongTid, tid));
    }
    Ok(())
}

/// One stage of thread number `row`.
#[inline(never)]
pub(crate) fn thread<K: Kernel>(k: &mut K, args: &Args<'_>, row: usize, stage: Stage) -> Done<K> {
    let Some(t) = args.threads.get(row) else {
        return Ok(());
    };
    let step = match stage {
        Stage::Register => Step::Threads,
        Stage::Ids | Stage::Go | Stage::Last => Step::Creds,
    };
    let run = &mut Run::thread(k, row, t.tid, step);
    match stage {
        Stage::Register => registered(run, args, t),
        Stage::Ids => {
            creds::ids(run, args, t)?;
            run.k.place_frame(t);
            creds::seal(run, args, t)
        }
        Stage::Go | Stage::Last => Ok(()),
    }
}

fn registered<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>, t: &ThreadArgs) -> Done<K> {
    let tid = register(run, t)?;
    schedule(run, t)?;
    if t.queue.count == 0 {
        return Ok(());
    }
    let res = run.k.getpid();
    let pid = run.ok(res)?;
    signals::queue(run, args, t, pid, tid)
}

#[inline(never)]
fn register<K: Kernel>(run: &mut Run<'_, K>, t: &ThreadArgs) -> Done<K, u32> {
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

/// While the rights for it are still there.
#[inline(never)]
fn schedule<K: Kernel>(run: &mut Run<'_, K>, t: &ThreadArgs) -> Done<K> {
    if t.want & want::SCHED != 0 {
        let res = run.k.set_scheduler(t.policy, t.priority);
        run.ok(res)?;
    }
    if t.want & want::NICE != 0 {
        let res = run.k.set_nice(t.nice);
        run.ok(res)?;
    }
    Ok(())
}
