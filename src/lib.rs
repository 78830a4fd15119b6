//! The steps of a restore, generic over [`kernel::Kernel`].
//!
//! [`restore`] reads like a table of contents: one step a line, one file a step. Nothing here makes a system call of
//! its own or touches an address of the task; that is the kernel's side of the trait. The device runs it on `svc`,
//! `armrest plan` on a recorder, the tests on models. See docs/design.md.
//!
//! `#[inline(never)]` stands on every step and on what they share: one copy each, with registers of its own, makes the
//! blob a quarter smaller than what the optimiser does alone.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod args;
pub mod heap;
pub mod kernel;
mod run;
pub mod step;

pub use args::{Args, Check, Slice};
pub use heap::NoHeap;
pub use run::Stop;
pub use step::enter::Entry;

use heap::Heap;
use kernel::{Kernel, Stage};
use run::Run;

/// Make the caller the task that `args` describe, up to the point where only [`Entry`] is left to do.
///
/// The order is that of [`armrest_abi::Step`]; the reason for each place is told in the step's own file. On an error the
/// old address space may be gone: the only thing to do is to report and to exit.
pub fn restore<K: Kernel, H: Heap>(
    k: &mut K,
    args: &Args<'_>,
    heap: &mut H,
) -> Result<Entry, K::Failure> {
    let run = &mut Run::new(k);
    step::verify::run(run, args)?;
    step::detach::run(run, args)?;
    step::park::run(run, args)?;
    step::unmap::run(run, args)?;
    step::shm::run(run, args)?;
    step::map::run(run, args)?;
    step::fill::run(run, args, heap)?;
    step::protect::run(run, args)?;
    step::unpark::run(run, args)?;
    step::advise::run(run, args)?;
    step::mm::run(run, args)?;
    let tid = step::threads::run(run, args)?;
    step::signals::run(run, args, tid)?;
    step::timers::run(run, args)?;
    step::creds::run(run, args)?;
    step::enter::run(run, args)
}

/// What thread number `row` of the table does in a stage; the leader has [`restore`].
pub fn thread<K: Kernel>(
    k: &mut K,
    args: &Args<'_>,
    row: usize,
    stage: Stage,
) -> Result<(), K::Failure> {
    step::threads::thread(k, args, row, stage)
}

/// The same for all threads, one after the other: how a kernel that runs nothing at once answers [`Kernel::meet`].
pub fn threads_in_turn<K: Kernel>(
    k: &mut K,
    args: &Args<'_>,
    stage: Stage,
) -> Result<(), K::Failure> {
    (1..args.threads.len()).try_for_each(|row| thread(k, args, row, stage))
}

#[cfg(test)]
mod tests;
