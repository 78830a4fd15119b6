//! When to look again, and when to give up.

use std::time::{Duration, Instant};

use crate::error::Error;

/// When a tree is looked at again. To look at all its processes takes time that grows with their number, and must not take
/// most of the time that they have.
#[derive(Debug)]
pub struct Pace(Instant);

impl Default for Pace {
    /// The first look is due.
    fn default() -> Pace {
        Pace(Instant::now())
    }
}

impl Pace {
    /// The least between two looks.
    const LEAST: Duration = Duration::from_millis(10);
    /// So much of the time goes by between looks.
    const SHARE: u32 = 16;

    /// Look, if it is due.
    pub fn look<T>(&mut self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        let start = Instant::now();
        if start < self.0 {
            return None;
        }
        let seen = look();
        self.0 = Instant::now() + Self::LEAST.max(start.elapsed() * Self::SHARE);
        seen
    }
}

/// When `--timeout` is over, if ever.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Option<(Instant, u64)>);

impl Deadline {
    /// `seconds` after `start`; a time that no clock reaches is none.
    pub fn new(start: Instant, seconds: Option<u64>) -> Deadline {
        Deadline(seconds.and_then(|s| Some((start.checked_add(Duration::from_secs(s))?, s))))
    }

    /// An error if it is over; `what` was waited for.
    pub fn check(&self, what: impl FnOnce() -> String) -> Result<(), Error> {
        match self.0 {
            Some((at, seconds)) if Instant::now() >= at => Err(Error::Timeout {
                what: what(),
                seconds,
            }),
            _ => Ok(()),
        }
    }
}
