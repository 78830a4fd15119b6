//! Shm: SysV segments are attached, pieces moved to where `shmat` would not put them, and holes cut.
//!
//! Before ordinary mappings: an attachment covers its whole segment, and where the program had unmapped a part of it,
//! other memory may have to follow. Marked segments are removed after the last attach, as their ids end with it.

use crate::args::{Args, Check};
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use crate::step::unmap::unmap;
use armrest_abi::{Attach, ReportKind, Step};

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    run.begin(Step::Shm);
    for (i, a) in args.attaches.iter().enumerate() {
        run.row(i, a.object);
        attach(run, args, a)?;
    }
    for (i, r) in args.removes.iter().enumerate() {
        run.row(i, r.object);
        let res = run.k.shm_remove(r.shmid);
        run.ok(res)?;
    }
    Ok(())
}

fn attach<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>, a: &Attach) -> Done<K> {
    let res = run.k.shmat(a);
    run.at(res, a.at)?;
    for i in 0..a.pieces {
        let row = a.piece.wrapping_add(i) as usize;
        let Some(m) = args.pieces.get(row) else {
            return bad_row(run);
        };
        run.row(row, m.object);
        let res = run.k.mremap_fixed(m);
        run.at(res, m.to)?;
    }
    for i in 0..a.holes {
        let row = a.hole.wrapping_add(i) as usize;
        let Some(r) = args.holes.get(row) else {
            return bad_row(run);
        };
        run.row(row, a.object);
        unmap(run, *r)?;
    }
    Ok(())
}

#[cold]
fn bad_row<K: Kernel>(run: &mut Run<'_, K>) -> Done<K> {
    Err(run.stop(ReportKind::BadArgs, Check::RowIndex.number()))
}
