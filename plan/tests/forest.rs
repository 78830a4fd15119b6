//! Trees: plans side by side. Each task's steps are run on the model and end with its own memory; what is common is done
//! once; what processes share and this version would tear apart is refused.

mod common;

use std::path::Path;

use armrest_abi::want;
use armrest_images::{Checkpoint, FsDir, LiveTask, Task, load};
use armrest_plan::forest::{Forest, forest};
use armrest_plan::model::{Trouble, emulator, machine, prove};
use armrest_plan::{Exit, Finish, Machine, Options, OwnMap, Plan};
use common::{live, options};

fn sample(name: &str) -> Checkpoint {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images");
    load(&FsDir::new(images.join(name))).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn planned(cp: &Checkpoint, machine: &Machine) -> Forest {
    forest(cp, machine, &options()).unwrap_or_else(|r| panic!("{r:#?}"))
}

/// A second process, the child of the first, with everything of its own.
fn with_a_child(mut cp: Checkpoint) -> Checkpoint {
    let first = &cp.tasks[0];
    let pid = first.pid + 7;
    let mut child = Task {
        pid,
        ppid: first.pid,
        ..first.clone()
    };
    let l: &mut LiveTask = child.live.as_mut().expect("it lives");
    l.threads.truncate(1);
    l.threads[0].tid = pid;
    l.files_id += 1;
    l.shares = armrest_images::Shares::default();
    cp.tasks.push(child);
    cp
}

#[test]
fn every_task_of_a_tree_ends_with_its_own_memory() {
    for (name, on) in [
        ("family", machine()),
        ("family", emulator()),
        ("workers", machine()),
        ("workers", emulator()),
        ("troop8", machine()),
        ("troop8", emulator()),
        ("orphans", machine()),
        ("shared_table", machine()),
        ("script", machine()),
        ("script", emulator()),
    ] {
        let cp = sample(name);
        let f = planned(&cp, &on);
        let living = cp.tasks.iter().filter(|t| t.live.is_some()).count();
        assert_eq!(f.each().count(), living);
        for (i, p) in f.each() {
            assert_eq!(p.task, i);
            let who = cp.tasks[i].pid;
            let model = prove(&cp, &f.inside(&on, i), p, Trouble::default());
            model.unwrap_or_else(|s| panic!("{name}, pid {who}: {s:?}"));
        }
    }
}

/// Nobody runs before all are there: if one has to be traced, because it is to be stopped, or leaves no room for its
/// frame, or since that is asked for, all are.
#[test]
fn one_that_is_traced_means_all_are() {
    let traced = |cp: &Checkpoint, m: &Machine, options: &Options| {
        let f = forest(cp, m, options).expect("a plan");
        let all: Vec<bool> = f.each().map(|(_, p)| p.traced).collect();
        assert!(all.iter().all(|t| *t == all[0]), "{all:?}");
        // (The model does not leave by a sigpage.)
        for (i, p) in f.each().filter(|(_, p)| p.exit.sigpage().is_none()) {
            prove(cp, &f.inside(m, i), p, Trouble::default()).expect("its own memory");
        }
        (all[0], f)
    };
    let asked = |finish, leave_stopped| Options {
        finish,
        leave_stopped,
        ..options()
    };
    let mut cp = sample("workers");
    let live = cp.tasks[0].live.as_ref().expect("alive");
    let m = Machine {
        sigpage: live.mm.sigpage.clone(),
        ..Machine::generic()
    };
    assert!(!traced(&cp, &m, &asked(Finish::Auto, false)).0);
    assert!(traced(&cp, &m, &asked(Finish::Auto, true)).0);
    let (all, f) = traced(&cp, &m, &asked(Finish::Ptrace, false));
    assert!(all && f.each().all(|(_, p)| matches!(p.exit, Exit::Ptrace(_))));
    let (all, f) = traced(&sample("stopped"), &m, &asked(Finish::Auto, false));
    let stops: Vec<_> = f.each().map(|(_, p)| p.stop).collect();
    assert!(
        all && stops == [None, Some(19), Some(20), None],
        "{stops:?}"
    );
    // One worker has no room below its stack pointer.
    let live = cp.tasks[2].live.as_mut().expect("alive");
    let stack = live
        .mm
        .vmas
        .iter()
        .find(|v| v.grows_down)
        .expect("a stack")
        .range;
    live.threads[0].regs[13] = stack.start() + 880;
    let (all, f) = traced(&cp, &m, &asked(Finish::Auto, false));
    let by_ptrace: Vec<_> = f
        .each()
        .map(|(_, p)| matches!(p.exit, Exit::Ptrace(_)))
        .collect();
    assert!(
        all && by_ptrace == [false, false, true, false, false],
        "{by_ptrace:?}"
    );
    let alone = Machine {
        has_ptrace: false,
        ..m.clone()
    };
    assert!(!traced(&cp, &alone, &asked(Finish::Auto, false)).0);
}

#[test]
fn areas_are_free_in_all_tasks() {
    let cp = sample("family");
    let f = planned(&cp, &machine());
    let areas: Vec<_> = f.each().map(|(_, p)| p.area.all).collect();
    for a in &areas {
        assert_eq!(a.start, areas[0].start, "one place for all");
        let vmas = cp.tasks.iter().filter_map(|t| t.live.as_ref());
        let (start, end) = (u64::from(a.start), u64::from(a.end));
        for v in vmas.flat_map(|l| &l.mm.vmas) {
            let (from, to) = (u64::from(v.range.start()), u64::from(v.range.end()));
            assert!(to <= start || end <= from, "{a:?} {v:?}");
        }
        let maps = machine().maps;
        let own = |m: &OwnMap| m.range.end <= a.start || a.end <= m.range.start;
        assert!(maps.iter().all(own), "{a:?}");
    }
}

/// The child alone has something where the area of a single process would lie.
#[test]
fn a_place_that_one_task_uses_is_nobodys() {
    let cp = with_a_child(sample("counter"));
    let f = planned(&cp, &machine());
    let place = f.root().expect("a plan").area.all;
    let mut other = cp.clone();
    let l = other.tasks[1].live.as_mut().expect("it lives");
    let vma = common::anon(place.start, 2, 3);
    l.mm.vmas.push(vma);
    l.mm.vmas.sort_by_key(|v| v.range.start());
    let moved = planned(&other, &machine());
    let used = place.start..place.start + 0x2000;
    for (_, p) in moved.each() {
        assert!(p.area.all.end <= used.start || used.end <= p.area.all.start);
    }
}

#[test]
fn all_wait_at_the_gate_and_one_alone_does_not() {
    let cp = sample("counter");
    let f = planned(&cp, &machine());
    assert_eq!(f.root().expect("a plan").want & want::GATE, 0);
    let f = planned(&with_a_child(cp), &machine());
    assert!(f.each().all(|(_, p)| p.want & want::GATE != 0));
    assert_eq!(f.each().count(), 2);
}

/// A segment that both have attached and that is marked for deletion: after both have it, once, and by neither.
#[test]
fn what_is_marked_for_deletion_is_removed_once() {
    let alone = planned(&sample("sysvsplit"), &machine());
    let own: Vec<i32> = alone
        .root()
        .expect("a plan")
        .tables
        .removes
        .iter()
        .map(|r| r.shmid)
        .collect();
    assert!(!own.is_empty() && alone.removes.is_empty());
    let f = planned(&with_a_child(sample("sysvsplit")), &machine());
    let removes: Vec<i32> = f.removes.iter().map(|r| r.shmid).collect();
    assert_eq!(removes, own);
    assert!(f.each().all(|(_, p)| p.tables.removes.is_empty()));
    assert!(f.each().all(|(_, p)| !p.tables.attaches.is_empty()));
}

/// Every descriptor of ours lies above those of all tasks, or it would take a number that a child wants.
#[test]
fn helper_descriptors_lie_above_everybodys() {
    let mut cp = with_a_child(sample("counter"));
    let l = cp.tasks[1].live.as_mut().expect("it lives");
    let mut fd = *l.fds.last().expect("descriptors");
    fd.fd = 300;
    l.fds.push(fd);
    for (_, p) in planned(&cp, &machine()).each() {
        assert!(p.report_fd > 300);
        assert!(p.sources.iter().all(|s| s.fd > 300));
    }
}

#[test]
fn shared_tables_are_refused_by_name() {
    let cp = with_a_child(sample("counter"));
    let (one, other) = (cp.tasks[0].pid, cp.tasks[1].pid);
    type Change = fn(&mut LiveTask, &LiveTask);
    let changes: [(&str, Change); 3] = [
        ("CLONE_VM", |c, p| c.shares.vm = p.shares.vm),
        ("CLONE_FS", |c, p| c.shares.fs = p.shares.fs),
        ("CLONE_SIGHAND", |c, p| c.shares.sighand = p.shares.sighand),
    ];
    for (flag, change) in changes {
        let mut cp = cp.clone();
        let parent = live(&cp).clone();
        assert!(parent.shares.vm.is_some() && parent.shares.fs.is_some());
        change(cp.tasks[1].live.as_mut().expect("it lives"), &parent);
        let refused = forest(&cp, &machine(), &options()).expect_err(flag);
        let words: Vec<&str> = refused.0.iter().map(|r| r.what.as_str()).collect();
        assert_eq!(words.len(), 1, "{words:?}");
        assert!(words[0].starts_with(&format!("pid {one} and pid {other}: one ")));
        assert!(words[0].ends_with(&format!("({flag})")));
    }
}

/// Two tasks of one table: the first has its descriptors, each has helpers of its own that nobody else touches.
#[test]
fn a_shared_table_has_everybodys_helpers_side_by_side() {
    let mut cp = with_a_child(sample("counter"));
    let files = live(&cp).files_id;
    let alone = planned(&cp, &machine());
    cp.tasks[1].live.as_mut().expect("it lives").files_id = files;
    let f = planned(&cp, &machine());
    let numbers = |f: &Forest| -> Vec<Vec<u32>> {
        let of = |p: &Plan| {
            p.sources
                .iter()
                .map(|s| s.fd)
                .chain([p.report_fd])
                .collect()
        };
        f.each().map(|(_, p)| of(p)).collect()
    };
    let (one, other) = (&numbers(&f)[0], &numbers(&f)[1]);
    assert!(one.len() > 1 && one.len() == other.len());
    assert!(one.iter().all(|n| !other.contains(n)), "{one:?} {other:?}");
    assert_eq!(numbers(&alone)[0], numbers(&alone)[1]);
    // What the blob closes, and what its exit routine closes, are its own.
    for (_, p) in f.each() {
        let mut closes = p.tables.closes.clone();
        closes.push(p.report_fd);
        closes.sort_unstable();
        let mut own = numbers(&f)[p.task].clone();
        own.sort_unstable();
        assert_eq!(closes, own);
    }
    let files = &f.root().expect("a plan").files;
    assert!(
        files
            .makes
            .iter()
            .all(|m| m.at.iter().all(|(task, _)| *task == 0))
    );
    let files = &alone.root().expect("a plan").files;
    assert!(
        files
            .makes
            .iter()
            .any(|m| m.at.iter().any(|(task, _)| *task == 1))
    );
    let refused = forest(&cp, &emulator(), &options()).expect_err("qemu cannot");
    assert!(refused.0[0].what.contains("(CLONE_FILES)"), "{refused:?}");
}

/// Taken ids are named as what they are, once, whichever task's plan finds them; leaders that are gone need theirs too.
#[test]
fn taken_ids_are_named() {
    let cp = sample("family");
    let named = |m: Machine| -> Vec<String> {
        let refused = forest(&cp, &m, &options()).expect_err("it is taken");
        refused.0.into_iter().map(|r| r.what).collect()
    };
    let by = || "\"sleep\" (pid 9)".to_owned();
    let root = Machine {
        pid_taken_by: Some(by()),
        ..machine()
    };
    assert_eq!(named(root), ["pid 175: taken by \"sleep\" (pid 9)"]);
    let child = Machine {
        tid_taken_by: Some((180, by())),
        ..machine()
    };
    assert_eq!(named(child), ["pid 180: taken by \"sleep\" (pid 9)"]);
    let orphans = sample("orphans");
    let ids = armrest_plan::tree::ids(&orphans);
    let gone = |id: u32| id != 0 && orphans.tasks.iter().all(|t| t.pid != id);
    let leaders = orphans
        .tasks
        .iter()
        .flat_map(|t| [t.sid, t.pgid])
        .filter(|i| gone(*i));
    assert!(leaders.clone().count() > 0);
    assert!(leaders.into_iter().all(|l| ids.contains(&l)), "{ids:?}");
}

/// Nothing lies where our own stack would grow, wherever the kernel has put it: above all that was dumped too.
#[test]
fn no_area_is_in_the_way_of_our_own_stack() {
    for name in ["counter", "family", "forked"] {
        let mut on = machine();
        let stack = on.maps.iter_mut().find(|m| m.name == "[stack]");
        let stack = &mut stack.expect("a stack").range;
        (stack.start, stack.end) = (on.task_size - 0x2_1000, on.task_size);
        let low = stack.start - (8 << 20);
        for (_, p) in planned(&sample(name), &on).each() {
            assert!(p.area.all.end <= low, "{name}: {:08x}", p.area.all.end);
        }
    }
}
