//! Unpark: what was parked goes to the checkpoint's addresses; the kernel follows such moves.
//!
//! After the contents, so that a saved vdso could be read before the decision where the own one goes.

use crate::args::Args;
use crate::kernel::Kernel;
use crate::run::{Done, Run};
use crate::step::park::moves;
use armrest_abi::Step;

pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K> {
    moves(run, Step::Unpark, &args.unparks)
}
