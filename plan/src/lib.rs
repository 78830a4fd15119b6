//! The pure decisions of a restore: [`plan()`] turns a checked [`Checkpoint`] and the facts of a [`Machine`] into a
//! [`Plan`], or into everything that cannot be restored, at once. Nothing here makes a system call.
//!
//! Where to look: `draft` draws the plan of a task, `space` finds room, `shm` decides SysV attachments, `memory` the
//! mappings and batches, `vdso` patches a foreign vdso, `refuse` names what is not supported, `args` lays the result out
//! as bytes.

pub mod args;
pub mod clocks;
pub mod consts;
pub mod creds;
mod draft;
pub mod files;
pub mod finish;
pub mod forest;
mod identity;
pub mod inherit;
pub mod ipc;
pub mod kernel_pages;
pub mod late;
pub mod lazy;
pub mod machine;
pub mod memory;
pub mod mm;
pub mod model;
mod names;
pub mod needs;
pub mod record;
mod records;
mod refuse;
pub mod seccomp;
pub mod shm;
pub mod sockets;
pub mod space;
pub mod special;
pub mod tables;
pub mod terminals;
pub mod threads;
pub mod timers;
pub mod tree;
pub mod types;
pub mod vdso;
mod whole;
pub mod words;

pub use machine::{HugePages, Machine, MapRange, OwnMap, Rights};
pub use names::vma_name;
pub use types::*;

use armrest_images::Checkpoint;

use draft::sketch;
use whole::Whole;

/// `usize` as the ABI's `u32`; tables never have 2^32 rows, because a checked checkpoint cannot.
pub(crate) fn u32_of(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Decide everything about restoring the first task of `cp` on `machine`.
///
/// # Errors
/// All refusals at once; nothing has been touched.
pub fn plan(cp: &Checkpoint, machine: &Machine, options: &Options) -> Result<Plan, Refusals> {
    let mut refuse = Vec::new();
    let whole = Whole::new(cp, machine, options, &mut refuse);
    let sketch = sketch(&whole, 0, whole.above, &mut refuse);
    match sketch {
        Some(sketch) if refuse.is_empty() => {
            let room = sketch.room().map_err(|none| Refusals(vec![none]))?;
            sketch.finish(room, machine, &whole.made())
        }
        _ => Err(Refusals(refuse)),
    }
}
