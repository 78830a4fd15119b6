//! The harness: everything with side effects on the host. See docs/design.md.

pub mod blob;
mod cgroup;
pub mod cli;
pub mod commands;
pub mod error;
pub mod family;
pub mod guard;
pub mod hand;
pub mod hold;
pub mod inherit;
pub mod journal;
pub mod load;
pub mod machine;
pub mod namespaces;
pub mod objects;
pub mod os;
pub mod pid;
pub mod probe;
pub mod restore;
pub mod root;
pub mod shared;
pub mod summary;
pub mod task;
pub mod timens;
pub mod trace;
pub mod verify;
pub mod watch;
