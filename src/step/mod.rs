//! One file a step; [`crate::restore`] has the order.

pub(crate) mod advise;
pub(crate) mod creds;
pub(crate) mod detach;
pub mod enter;
pub(crate) mod fill;
pub(crate) mod map;
pub(crate) mod mm;
pub(crate) mod park;
pub(crate) mod protect;
pub(crate) mod shm;
pub(crate) mod signals;
pub(crate) mod threads;
pub(crate) mod timers;
pub(crate) mod unmap;
pub(crate) mod unpark;
pub(crate) mod verify;
