//! Creds: each thread becomes who it was, by the calls that the plan chose; then its parent-death signal and dumpable, which
//! any change of ids resets.
//!
//! After everything that needs the restoring program's rights. Filters come last in each thread ([`seal`]): they judge
//! every call after them.

use crate::args::{Args, Check};
use crate::kernel::{Kernel, Stage};
use crate::run::{Done, Run};
use crate::step::verify::slice;
use armrest_abi::{Cred, Report, ReportKind, Step, ThreadArgs, want};

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    run.begin(Step::Creds);
    let Some(leader) = args.threads.first() else {
        return Ok(());
    };
    ids(run, args, leader)?;
    // No thread goes on with rights that another has given up already.
    run.meet(args, Stage::Ids)?;
    if args.fixed.want & want::DUMPABLE != 0 {
        let res = run.k.set_dumpable(args.fixed.dumpable);
        run.ok(res)?;
    }
    Ok(())
}

/// Record locks of the process: once its helper descriptors are closed, since to close any of a file drops them.
pub(crate) fn records<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    let at = args.fixed.records;
    rows(run, args, at.first, at.count)
}

/// What each thread does before any goes on.
#[inline(never)]
pub(crate) fn ids<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>, t: &ThreadArgs) -> Done<K> {
    rows(run, args, t.cred, t.creds)?;
    if t.want & want::PDEATH != 0 {
        let res = run.k.set_pdeath(t.pdeath);
        run.ok(res)?;
    }
    Ok(())
}

/// The filters of a thread: before nothing but waits and the way out.
pub(crate) fn seal<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>, t: &ThreadArgs) -> Done<K> {
    rows(run, args, t.cred.saturating_add(t.creds), t.seals)
}

#[inline(never)]
fn rows<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>, first: u32, count: u32) -> Done<K> {
    let Some(rows) = slice(&args.creds, first, count) else {
        return Err(run.stop(ReportKind::BadArgs, Check::RowIndex.number()));
    };
    for (i, row) in rows.iter().enumerate() {
        run.row(i, Report::NO_OBJECT);
        let Some(res) = run.k.cred(row) else {
            return Err(run.stop(ReportKind::BadArgs, Check::CredCall.number()));
        };
        let got = run.ok(res)?;
        if row.expect != Cred::ANY && row.expect != got {
            return Err(run.stop(ReportKind::WrongResult, got));
        }
    }
    Ok(())
}
