//! What differs by architecture, as pure code for both sides: constants, the `shmat` hook, the bytes of signal frames,
//! vdso stubs and the sigpage.
//!
//! An architecture is a type that implements [`Arch`] and a folder of assembly for the blob; [`Native`] picks the one
//! that armrest restores. Nothing here makes a system call.
#![no_std]
#[cfg(test)]
extern crate std;

mod arm;
mod sigframe;
mod sigpage;
mod vdso;

pub use arm::Arm;
pub use sigframe::{AltStack, Regs, Vfp, sigframe};
pub use sigpage::{SIGPAGE_FILLER, SVC_PROBE, Sigpage, sigpage};
pub use vdso::{Stub, enosys_stub, jump, syscall_stub, vdso_syscall};

/// The architecture of the tasks that armrest restores.
pub type Native = Arm;

/// What a restore needs to know of an architecture. Defaults are those of one without peculiarities.
pub trait Arch {
    /// Bytes of a page.
    const PAGE_SIZE: u32 = armrest_abi::PAGE_SIZE;
    /// What `shmat` wants addresses to be a multiple of.
    const SHMLBA: u32 = Self::PAGE_SIZE;
    /// Where user space may end, highest first: the possible values of the kernel's TASK_SIZE.
    const TASK_SIZES: &'static [u32];
    /// True if `shmat` takes this base as it is. Where not, the segment is attached elsewhere and moved.
    fn attach_directly(_base: u32) -> bool {
        true
    }
}
