//! Map: every other VMA is made directly in its place, with the rights that filling needs.
//!
//! Huge pages are switched off first if the task had them off, since that decides what the pages become.

use crate::args::{Args, Check};
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::{ReportKind, Step, want};

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    run.begin(Step::Map);
    if args.fixed.want & want::THP_DISABLE != 0 {
        let res = run.k.disable_thp();
        run.ok(res)?;
    }
    for (i, m) in args.maps.iter().enumerate() {
        run.row(i, m.object);
        let Ok(page_offset) = u32::try_from(m.page_offset) else {
            return Err(run.stop(ReportKind::BadArgs, Check::PageOffset.number()));
        };
        let res = run.k.mmap2(m, page_offset);
        run.at(res, m.start)?;
    }
    Ok(())
}
