//! What `make bench` and `make bench-vm` share: generated checkpoints.

pub mod generate;
pub mod grow;
pub mod table;

/// Anything that ends a bench: its words are all that is needed.
pub type Fail = Box<dyn std::error::Error>;
