//! Cgroups: a tree in one set of them is restored, whatever they are; one in several is refused by name.

mod common;

use armrest_images::{Cgroup, Checkpoint};
use armrest_plan::model::machine;
use armrest_plan::plan;
use common::{checkpoint, options};

fn refused(cp: &Checkpoint) -> Vec<String> {
    match plan(cp, &machine(), &options()) {
        Ok(_) => Vec::new(),
        Err(all) => all.0.into_iter().map(|r| r.what).collect(),
    }
}

#[test]
fn a_task_in_a_cgroup_is_restored_and_one_in_two_is_refused() {
    let mut cp = checkpoint(vec![], vec![], vec![]);
    assert_eq!(refused(&cp), Vec::<String>::new());
    let live = cp.tasks[0].live.as_mut().unwrap();
    live.cgroups = Some(vec![Cgroup {
        controllers: String::new(),
        path: "/a".into(),
    }]);
    assert_eq!(refused(&cp), Vec::<String>::new());
    let live = cp.tasks[0].live.as_mut().unwrap();
    live.thread_apart = Some(77);
    assert_eq!(refused(&cp), ["tid 77: a cgroup other than its leader's"]);
}

#[test]
fn processes_in_different_cgroups_are_refused() {
    let mut cp = checkpoint(vec![], vec![], vec![]);
    let mut child = cp.tasks[0].clone();
    (child.pid, child.ppid) = (78, cp.tasks[0].pid);
    cp.tasks.push(child);
    let of_cgroups = |cp: &Checkpoint| {
        let mut all = refused(cp);
        all.retain(|w| w.contains("cgroup"));
        all
    };
    assert_eq!(of_cgroups(&cp), Vec::<String>::new());
    cp.tasks[1].live.as_mut().unwrap().cgroups = Some(Vec::new());
    assert_eq!(
        of_cgroups(&cp),
        ["pid 78: a cgroup other than the first task's"]
    );
}
