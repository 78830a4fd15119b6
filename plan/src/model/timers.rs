//! Timers as the kernel keeps them: numbered upwards, or as asked; armed only under a number that exists.

use std::collections::BTreeMap;

use armrest_abi::consts as c;
use armrest_blob::kernel::{Data, Errno, Res, nr};

use crate::timers::TimerIds;

const EINVAL: Errno = Errno(22);
const EBUSY: Errno = Errno(16);

/// One POSIX timer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Clock.
    pub clock: u32,
    /// `struct sigevent` bytes; none = the default.
    pub event: Vec<u8>,
    /// `struct itimerspec` bytes and whether by the 64-bit call; none = never armed.
    pub value: Option<(bool, Vec<u8>)>,
}

/// The timers of a process.
#[derive(Clone, Debug)]
pub struct Timers {
    ids: TimerIds,
    asked: bool,
    next: u32,
    /// POSIX timers by number.
    pub posix: BTreeMap<u32, Made>,
    /// Interval timers by kind.
    pub interval: BTreeMap<u32, Vec<u8>>,
}

impl Timers {
    /// None yet.
    pub fn new(ids: TimerIds) -> Timers {
        Timers {
            ids,
            asked: false,
            next: 0,
            posix: BTreeMap::new(),
            interval: BTreeMap::new(),
        }
    }

    /// `prctl(PR_TIMER_CREATE_RESTORE_IDS)`.
    pub(super) fn prctl(&mut self, a: &[u32; 6]) -> Option<Res> {
        if a[0] != c::PR_TIMER_CREATE_RESTORE_IDS {
            return None;
        }
        if self.ids != TimerIds::Chosen || a[1] > 1 {
            return Some(Err(EINVAL));
        }
        self.asked = a[1] == 1;
        Some(Ok(0))
    }

    /// The calls of timers; `None` for any other.
    pub(super) fn call(&mut self, n: u32, a: &[u32; 6], data: Option<Data<'_>>) -> Option<Res> {
        let bytes = data.map_or(&[][..], |d| d.bytes);
        Some(match n {
            nr::TIMER_CREATE => self.create(a[0], bytes, a[2]),
            nr::TIMER_DELETE => self.posix.remove(&a[0]).map(|_| 0).ok_or(EINVAL),
            nr::TIMER_SETTIME | nr::TIMER_SETTIME64 => match self.posix.get_mut(&a[0]) {
                Some(t) => {
                    t.value = Some((n == nr::TIMER_SETTIME64, bytes.to_vec()));
                    Ok(0)
                }
                None => Err(EINVAL),
            },
            nr::SETITIMER => {
                self.interval.insert(a[0], bytes.to_vec());
                Ok(0)
            }
            _ => return None,
        })
    }

    /// The number that is asked for stands in place of its address: see `Kernel::place_of`.
    fn create(&mut self, clock: u32, event: &[u8], wanted: u32) -> Res {
        let id = if self.asked { wanted } else { self.next };
        if self.posix.contains_key(&id) {
            return Err(EBUSY);
        }
        self.next = id + 1;
        self.posix.insert(
            id,
            Made {
                clock,
                event: event.to_vec(),
                value: None,
            },
        );
        Ok(0)
    }

    /// Nothing of a restore may stay switched on.
    pub fn asks_for_numbers(&self) -> bool {
        self.asked
    }
}
