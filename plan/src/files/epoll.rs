//! Epoll sets: whose numbers their entries are.

use std::collections::BTreeSet;

use armrest_images::{Epoll, LiveTask};

use crate::whole::Whole;

/// Event bits of an epoll entry that say how, not what: EXCLUSIVE, WAKEUP, ONESHOT, ET.
pub const EPOLL_HOW: u32 = 0xf000_0000;

/// Which task fills an epoll set: its numbers must mean in that task's table what they meant when they were added.
///
/// The images hold the numbers alone. So all tasks that have the set and descriptors of all these numbers must agree on
/// what they are; the first is taken.
pub(super) fn filler(
    whole: &Whole<'_>,
    set: u32,
    e: &Epoll,
) -> Result<usize, (String, &'static str)> {
    let cp = whole.cp;
    let at = |l: &LiveTask, fd: u32| l.fd(fd).map(|f| f.file);
    // Each once: entries may have the same number, and there may be many of both.
    let numbers: BTreeSet<u32> = e.targets.iter().map(|t| t.fd).collect();
    let holders = || {
        let mut tasks: Vec<usize> = whole.held.holders(set).iter().map(|h| h.0).collect();
        tasks.dedup();
        tasks
            .into_iter()
            .filter_map(|i| Some((i, cp.tasks[i].live.as_ref()?)))
    };
    let mut tables = holders().filter_map(|(i, l)| {
        let files: Option<Vec<u32>> = numbers.iter().map(|fd| at(l, *fd)).collect();
        Some((i, files?))
    });
    if let Some((first, files)) = tables.next() {
        return match tables.find(|(_, other)| *other != files) {
            None => Ok(first),
            Some((other, _)) => Err((
                format!(
                    "its epoll set is shared, and its numbers are other files in pid {} than in pid {}",
                    cp.tasks[other].pid, cp.tasks[first].pid
                ),
                "the images do not say which of them are watched",
            )),
        };
    }
    let closed = holders().find_map(|(_, l)| numbers.iter().find(|fd| at(l, **fd).is_none()));
    match (closed, numbers.first()) {
        (Some(fd), _) => Err((
            format!("its epoll set watches descriptor {fd}, which is closed"),
            "a duplicate of it is watched under a number that is gone",
        )),
        (None, Some(_)) => Err((
            "an epoll set that no task holds, with entries".into(),
            "nobody has the numbers that it watches",
        )),
        (None, None) => Ok(0),
    }
}
