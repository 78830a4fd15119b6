//! The steps of a restore, generic over [`kernel::Kernel`].
#![no_std]

pub mod kernel;
