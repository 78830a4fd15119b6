//! Mm: the kernel's own idea of the address space: code, data, heap, stack, arguments, auxv, exe.
//!
//! After the old executable is unmapped (the exe link is busy until then) and before credentials fall. At once where the
//! kernel takes that, else field by field; then every state on the way must be one that the kernel accepts.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use armrest_abi::consts::{MM_LOW, PR_SET_MM_AUXV, PR_SET_MM_EXE_FILE};
use armrest_abi::{Report, Step, want, words_of_slice};

/// `MM_LOW` instead of a field.
const LOW: u8 = 11;
/// A byte above it.
const ABOVE: u8 = 12;
/// Options of PR_SET_MM and the field of `MmMap` that each takes. A range is first pulled down, whatever the old program
/// left there, so that its end may be set; then its start goes up. The heap must lie above the data all the time.
const SINGLES: [(u8, u8); 17] = [
    (1, LOW),
    (2, 1),
    (1, 0),
    (3, LOW),
    (4, LOW),
    (6, ABOVE),
    (7, 5),
    (6, 4),
    (4, 3),
    (3, 2),
    (5, 6),
    (8, LOW),
    (9, 8),
    (8, 7),
    (10, LOW),
    (11, 10),
    (10, 9),
];

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    run.begin(Step::Mm);
    let mm = &args.fixed.mm;
    if args.fixed.want & want::MM_MAP != 0 {
        let res = run.k.set_mm_map(mm);
        run.ok(res)?;
    }
    if args.fixed.want & want::MM_SINGLES != 0 {
        let words = words_of_slice(core::slice::from_ref(mm));
        for (i, (option, field)) in SINGLES.into_iter().enumerate() {
            run.row(i, Report::NO_OBJECT);
            // Fields are 64 bits wide; an address of the task fits the low word.
            let value = match field {
                LOW => MM_LOW,
                ABOVE => MM_LOW + 1,
                field => words.get(2 * usize::from(field)).copied().unwrap_or(0),
            };
            let res = run.k.set_mm(u32::from(option), value, 0);
            run.ok(res)?;
        }
        let res = run.k.set_mm(PR_SET_MM_AUXV, mm.auxv, mm.auxv_size);
        run.ok(res)?;
        let res = run.k.set_mm(PR_SET_MM_EXE_FILE, mm.exe_fd, 0);
        run.ok(res)?;
    }
    Ok(())
}
