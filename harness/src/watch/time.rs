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
    /// The most: a look during which this machine stood still says nothing about the next one.
    const MOST: Duration = Duration::from_secs(1);

    /// Look, if it is due.
    pub fn look<T>(&mut self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        let start = Instant::now();
        if start < self.0 {
            return None;
        }
        let seen = look();
        self.0 = Instant::now() + Self::pause(start.elapsed());
        seen
    }

    /// How long not to look, after a look that took so long.
    fn pause(took: Duration) -> Duration {
        (took * Self::SHARE).clamp(Self::LEAST, Self::MOST)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_neither_too_often_nor_too_seldom() {
        let ms = Duration::from_millis;
        let pauses = [0, 1, 20, 4000].map(|took| Pace::pause(ms(took)));
        assert_eq!(pauses, [ms(10), ms(16), ms(320), ms(1000)]);
    }
}
