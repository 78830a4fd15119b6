//! From the fork to the end: reports and progress of the blob, proof that the task runs, signals and exit status.

mod bar;
mod child;
mod entered;
mod forward;
mod reports;
mod time;

pub use bar::Bar;
pub use child::{Child, Ended, is_dead};
pub use entered::{LAST_CALLS, all_blocked, area_gone, until_running};
pub use forward::Forward;
pub use reports::{Reports, in_step, readable, until_ended};
pub use time::{Deadline, Pace};

use std::io;
use std::time::Duration;

use crate::error::Error;

/// How long a task may take from its last report to its first own instruction.
pub const ENTER_TIME: Duration = Duration::from_secs(20);

fn internal(what: &'static str) -> impl Fn(io::Error) -> Error {
    move |e| Error::Internal {
        what: what.into(),
        why: e.to_string(),
    }
}
