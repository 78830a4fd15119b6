//! The harness: everything with side effects on the host. See docs/design.md.

pub mod machine;
pub mod os;
pub mod root;
pub mod blob;
pub mod cli;
pub mod commands;
pub mod error;
pub mod probe;
pub mod restore;
pub mod load;
pub mod namespaces;
pub mod objects;
pub mod pid;
pub mod summary;
pub mod task;
pub mod watch;
