//! Who shares a descriptor table with whom, as `kcmp` tells.

use std::collections::BTreeMap;
use std::io;

use armrest_images::Checkpoint;

use super::{Finding, Weight, found};

/// Compare the tables of tasks, by their index and pid here: each with that of the first task that has the same, and with
/// its parent's. `alike`: have the two one table? What cannot be told is not compared. Findings, and how many were compared.
pub fn tables(
    cp: &Checkpoint,
    here: &BTreeMap<usize, u32>,
    alike: &dyn Fn(u32, u32) -> io::Result<bool>,
) -> (Vec<Finding>, usize) {
    let (mut out, mut compared) = (Vec::new(), 0);
    let mut first: BTreeMap<u32, usize> = BTreeMap::new();
    for (index, pid) in here {
        let Some((task, live)) = cp
            .tasks
            .get(*index)
            .and_then(|t| Some((t, t.live.as_ref()?)))
        else {
            continue;
        };
        let same = *first.entry(live.files_id).or_insert(*index);
        let parent = cp.tasks.iter().position(|t| t.pid == task.ppid);
        let mut others: Vec<usize> = parent.into_iter().chain([same]).collect();
        others.dedup();
        for other in others.into_iter().filter(|o| o != index) {
            let (Some(to), Some(o)) = (here.get(&other), cp.tasks.get(other)) else {
                continue;
            };
            let Ok(now) = alike(*pid, *to) else { continue };
            compared += 1;
            let was = o.live.as_ref().is_some_and(|o| o.files_id == live.files_id);
            let words = |one: bool| if one { "one" } else { "two" };
            if now != was {
                out.push(found(
                    Weight::Differs,
                    format!(
                        "pid {}: descriptor table, and that of pid {}",
                        task.pid, o.pid
                    ),
                    format!("{} in the images, {} in the tasks", words(was), words(now)),
                ));
            }
        }
    }
    (out, compared)
}

/// `kcmp` of two processes' descriptor tables.
///
/// # Errors
/// The kernel has no such call, or one of them is gone.
pub fn one_table(one: u32, other: u32) -> io::Result<bool> {
    const KCMP_FILES: libc::c_long = 2;
    // SAFETY: numbers only.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) };
    crate::os::check_long(order).map(|order| order == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing;

    #[test]
    fn tables_that_were_one_and_are_two_differ_and_the_other_way_round() {
        let mut cp = testing::load("shared_table");
        let here: BTreeMap<usize, u32> = (0..cp.tasks.len()).zip(500..).collect();
        let of = |cp: &Checkpoint, pid: u32| {
            let task = &cp.tasks[usize::try_from(pid - 500).unwrap()];
            task.live.as_ref().unwrap().files_id
        };
        let right = |one: u32, other: u32| Ok(of(&cp, one) == of(&cp, other));
        let (found, compared) = tables(&cp, &here, &right);
        assert_eq!((found, compared), (Vec::new(), 6));
        let apart = |_: u32, _: u32| Ok(false);
        let (found, _) = tables(&cp, &here, &apart);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[0].why.contains("one in the images, two in the tasks"));
        let unknown = |_: u32, _: u32| Err(io::Error::from_raw_os_error(libc::ENOSYS));
        assert_eq!(tables(&cp, &here, &unknown), (Vec::new(), 0));
        for t in &mut cp.tasks {
            let pid = t.pid;
            t.live.as_mut().unwrap().files_id = pid;
        }
        let one = |_: u32, _: u32| Ok(true);
        let (found, _) = tables(&cp, &here, &one);
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(found[0].why.contains("two in the images, one in the tasks"));
    }

    #[test]
    fn the_kernel_tells_a_process_and_itself_apart_from_others() {
        let me = std::process::id();
        match one_table(me, me) {
            Ok(same) => assert!(same),
            Err(e) => assert!(matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))),
        }
    }
}
