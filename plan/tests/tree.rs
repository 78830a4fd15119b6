//! Trees: whatever a history of forks, sessions, groups and deaths led to, the plan's acts lead there again, by the
//! kernel's rules.

use std::collections::{BTreeMap, BTreeSet};

use armrest_images::{Task, TaskState};
use armrest_plan::tree::{Act, Group, Role, Tree, tree, tree_with};
use proptest::prelude::*;

/// A process as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proc {
    parent: u32,
    sid: u32,
    pgid: u32,
    dead: bool,
    reaper: bool,
    /// Its descriptor table.
    table: u32,
}

/// The process table; whoever is reaped is not in it. The root is a child of 1.
#[derive(Clone, Debug, Default)]
struct Kernel(BTreeMap<u32, Proc>);

impl Kernel {
    fn with_root(pid: u32, sid: u32, pgid: u32, reaper: bool) -> Kernel {
        let root = Proc {
            parent: 1,
            sid,
            pgid,
            dead: false,
            reaper,
            table: pid,
        };
        Kernel(BTreeMap::from([(pid, root)]))
    }

    fn at(&mut self, pid: u32) -> &mut Proc {
        self.0.get_mut(&pid).expect("a process")
    }

    fn fork(&mut self, maker: u32, child: u32, sibling: bool, shared: bool) -> Result<(), String> {
        let m = *self.0.get(&maker).ok_or("no maker")?;
        if m.dead || self.0.contains_key(&child) {
            return Err(format!("{maker} cannot fork {child}"));
        }
        // A number is not given out while it names a group or a session.
        if self.0.values().any(|p| p.sid == child || p.pgid == child) {
            return Err(format!("{child} is still in use as a number"));
        }
        let parent = if sibling { m.parent } else { maker };
        let reaper = false;
        self.0.insert(
            child,
            Proc {
                parent,
                reaper,
                ..m
            },
        );
        if !shared {
            self.unshare(child);
        }
        Ok(())
    }

    /// A table that nobody else has ever had.
    fn unshare(&mut self, pid: u32) {
        let highest = self.0.values().map(|p| p.table).max();
        self.at(pid).table = highest.unwrap_or(0).max(1000) + 1;
    }

    fn setsid(&mut self, pid: u32) -> Result<(), String> {
        if self.0.values().any(|p| p.pgid == pid) {
            return Err(format!("setsid: {pid} is a group"));
        }
        let p = self.at(pid);
        (p.sid, p.pgid) = (pid, pid);
        Ok(())
    }

    fn setpgid(&mut self, pid: u32, group: u32) -> Result<(), String> {
        let p = self.0[&pid];
        let members = |o: &Proc| o.pgid == group && o.sid == p.sid;
        // The caller holds its own group.
        let there = self.0.values().any(members) || (p.sid, group) == (7, 8);
        if p.sid == pid || (group != pid && !there) {
            return Err(format!("setpgid({pid}, {group})"));
        }
        self.at(pid).pgid = group;
        Ok(())
    }

    /// Die; children fall to the next subreaper above. False if there is none: then nothing happens.
    fn exit(&mut self, pid: u32) -> bool {
        let mut to = self.0[&pid].parent;
        while let Some(p) = self.0.get(&to)
            && (!p.reaper || p.dead)
        {
            to = p.parent;
        }
        let orphans: Vec<u32> = self
            .0
            .iter()
            .filter(|(_, p)| p.parent == pid)
            .map(|(pid, _)| *pid)
            .collect();
        if !orphans.is_empty() && !self.0.contains_key(&to) {
            return false;
        }
        for o in orphans {
            self.at(o).parent = to;
        }
        self.at(pid).dead = true;
        true
    }

    /// The table of each, in the order of the tasks.
    fn tables(&self, tasks: &[Task]) -> Vec<Option<u32>> {
        let table = |t: &Task| self.0.get(&t.pid).filter(|p| !p.dead).map(|p| p.table);
        tasks.iter().map(table).collect()
    }

    fn tasks(&self, root: u32) -> Vec<Task> {
        let mut order = vec![root];
        let mut next = 0;
        while let Some(p) = order.get(next).copied() {
            order.extend(self.0.iter().filter(|(_, c)| c.parent == p).map(|c| *c.0));
            next += 1;
        }
        let task = |pid: u32| {
            let p = self.0[&pid];
            Task {
                pid,
                ppid: if pid == root { 0 } else { p.parent },
                pgid: p.pgid,
                sid: p.sid,
                state: if p.dead {
                    TaskState::Dead { exit_code: 0 }
                } else {
                    TaskState::Alive
                },
                comm: String::new(),
                live: None,
            }
        };
        order.into_iter().map(task).collect()
    }
}

/// Make the tree as its acts say.
fn made(tree: &Tree, start: Kernel) -> Result<Kernel, String> {
    let mut k = start;
    let root = tree.nodes[0].pid;
    let callers = k.0[&root].pgid;
    for n in tree.nodes.iter().filter(|n| n.reaper) {
        // Set at the birth; nobody dies before all are born.
        assert!(matches!(n.role, Role::Task(_)), "{n:?}");
    }
    births(tree, 0, &mut k)?;
    for n in &tree.nodes {
        k.at(n.pid).reaper |= n.reaper;
    }
    for n in &tree.nodes {
        if n.leads {
            k.setpgid(n.pid, n.pid)?;
        }
    }
    for round in 0..tree.rounds.max(1) {
        // Those of one round join in any order: here against that of their births.
        for n in tree.nodes.iter().rev().filter(|n| n.round == round) {
            match n.group {
                Group::Join(g) => k.setpgid(n.pid, g)?,
                Group::Callers => k.setpgid(n.pid, callers)?,
                Group::Born => {}
            }
        }
    }
    // Whoever ends has reaped its own stand-ins before.
    let mut ended = BTreeSet::new();
    for n in tree.nodes.iter().rev() {
        for e in &n.reaps {
            let end = &tree.nodes[*e];
            assert_eq!((end.role, k.0[&end.pid].parent), (Role::StandIn, n.pid));
            assert!(k.0[&end.pid].dead, "{n:?} waits for {end:?}");
            k.0.remove(&end.pid);
            ended.insert(*e);
        }
        if n.role == Role::StandIn && !k.exit(n.pid) {
            return Err(format!("{} leaves orphans to nobody", n.pid));
        }
    }
    for n in &tree.nodes {
        for e in &n.zombies {
            let end = &tree.nodes[*e];
            assert_eq!((end.role, k.0[&end.pid].parent), (Role::Zombie(*e), n.pid));
            assert!(k.exit(end.pid));
            ended.insert(*e);
        }
    }
    let all = (0..tree.nodes.len()).filter(|i| tree.nodes[*i].role != Role::Task(*i));
    assert!(all.eq(ended), "somebody's end is awaited by nobody");
    Ok(k)
}

fn births(tree: &Tree, node: usize, k: &mut Kernel) -> Result<(), String> {
    for act in &tree.nodes[node].acts {
        let pid = tree.nodes[node].pid;
        match *act {
            Act::SetSid => k.setsid(pid)?,
            Act::Unshare => k.unshare(pid),
            Act::Fork {
                node,
                sibling,
                shared,
            } => {
                k.fork(pid, tree.nodes[node].pid, sibling, shared)?;
                births(tree, node, k)?;
            }
        }
    }
    Ok(())
}

/// Relations alone: what a restore must bring back.
fn relations(k: &Kernel) -> BTreeMap<u32, (u32, u32, u32, bool)> {
    k.0.iter()
        .map(|(pid, p)| (*pid, (p.parent, p.sid, p.pgid, p.dead)))
        .collect()
}

/// A session that was the caller's is that of today's caller, and so is a group that the root shares with it.
fn as_of_today(mut end: Kernel) -> Kernel {
    let root = end.0[&100];
    // Whose leader is not among us.
    let callers = root.sid == 50 && !end.0.contains_key(&root.pgid);
    for p in end.0.values_mut() {
        if root.sid == 50 && p.sid == 50 {
            p.sid = 7;
        }
        if callers && p.pgid == root.pgid {
            p.pgid = 8;
        }
    }
    end
}

#[derive(Clone, Debug)]
enum Op {
    Fork(usize),
    Share(usize),
    Sibling(usize, bool),
    Unshare(usize),
    SetSid(usize),
    Lead(usize),
    Join(usize, usize),
    Exit(usize),
    Reap(usize),
}

/// Histories; `tables`: with descriptor tables that are handed on and parted from.
fn ops(tables: bool) -> impl Strategy<Value = Vec<Op>> {
    let who = 0usize..64;
    let few = u32::from(tables);
    let op = prop_oneof![
        2 * few => who.clone().prop_map(Op::Share),
        few => who.clone().prop_map(Op::Unshare),
        few => (who.clone(), any::<bool>()).prop_map(|(a, shared)| Op::Sibling(a, shared)),
        4 => who.clone().prop_map(Op::Fork),
        1 => who.clone().prop_map(Op::SetSid),
        1 => who.clone().prop_map(Op::Lead),
        1 => (who.clone(), who.clone()).prop_map(|(a, b)| Op::Join(a, b)),
        1 => who.clone().prop_map(Op::Exit),
        1 => who.prop_map(Op::Reap),
    ];
    prop::collection::vec(op, 0..40)
}

/// Live through a history. Whoever cannot do a thing does not.
fn history(ops: &[Op], leads: bool, reaper: bool) -> Kernel {
    let (sid, pgid) = if leads { (100, 100) } else { (50, 60) };
    let mut k = Kernel::with_root(100, sid, pgid, reaper);
    let mut next = 101;
    for op in ops {
        let living: Vec<u32> = k.0.iter().filter(|p| !p.1.dead).map(|p| *p.0).collect();
        let who = |n: usize| living[n % living.len()];
        match *op {
            Op::Fork(a) => {
                k.fork(who(a), next, false, false).expect("a new number");
                next += 1;
            }
            Op::Share(a) => {
                k.fork(who(a), next, false, true).expect("a new number");
                next += 1;
            }
            Op::Sibling(a, shared) if who(a) != 100 => {
                k.fork(who(a), next, true, shared).expect("a new number");
                next += 1;
            }
            Op::Unshare(a) => k.unshare(who(a)),
            Op::SetSid(a) => drop(k.setsid(who(a))),
            Op::Lead(a) => drop(k.setpgid(who(a), who(a))),
            Op::Join(a, b) => {
                let group = k.0[&who(b)].pgid;
                drop(k.setpgid(who(a), group));
            }
            Op::Exit(a) if who(a) != 100 => drop(k.exit(who(a))),
            Op::Reap(a) => {
                let dead: Vec<u32> = k.0.iter().filter(|p| p.1.dead).map(|p| *p.0).collect();
                if !dead.is_empty() {
                    k.0.remove(&dead[a % dead.len()]);
                }
            }
            Op::Exit(_) | Op::Sibling(..) => {}
        }
    }
    k
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]
    #[test]
    fn what_came_about_comes_about_again(ops in ops(false), leads: bool, reaper: bool) {
        let end = history(&ops, leads, reaper);
        let t = tree(&end.tasks(100)).map_err(|e| TestCaseError::fail(e.join("; ")))?;
        // Session and group of today's caller: the root leaves them, or the numbers are others now.
        let start = Kernel::with_root(100, 7, 8, reaper);
        let again = made(&t, start).map_err(TestCaseError::fail)?;
        prop_assert_eq!(relations(&again), relations(&as_of_today(end)));
    }

    /// Whatever is made has the tables of the history; and what a dumper can write, who lets a task have its parent's
    /// table or one of its own, is made whenever the relations are.
    #[test]
    fn tables_are_shared_as_they_were(ops in ops(true), leads: bool, reaper: bool) {
        let end = history(&ops, leads, reaper);
        let tasks = end.tasks(100);
        let tables = end.tables(&tasks);
        let start = Kernel::with_root(100, 7, 8, reaper);
        match tree_with(&tasks, &tables) {
            Ok(t) => {
                let again = made(&t, start).map_err(TestCaseError::fail)?;
                prop_assert_eq!(relations(&again), relations(&as_of_today(end)));
                prop_assert_eq!(alike(&again.tables(&tasks)), alike(&tables));
                let shares = t.nodes.iter().filter(|n| n.shares).map(|n| n.pid);
                let several = |i: &usize| tables.iter().filter(|t| t.is_some() && **t == tables[*i]).count() > 1;
                prop_assert!(shares.eq((0..tasks.len()).filter(several).map(|i| tasks[i].pid)));
            }
            Err(why) => {
                let tables_only = tree(&tasks).is_ok();
                prop_assert!(!tables_only || why.iter().all(|w| w.contains("CLONE_FILES")), "{why:?}");
                prop_assert!(!tables_only || !dumpable(&tasks, &tables), "{why:?}");
            }
        }
    }
}

/// For each task, the first that has the same table.
fn alike(tables: &[Option<u32>]) -> Vec<Option<usize>> {
    let first = |t: &Option<u32>| t.and_then(|_| tables.iter().position(|o| o == t));
    tables.iter().map(first).collect()
}

/// Has each task its parent's table, or one that nobody has who comes before it?
fn dumpable(tasks: &[Task], tables: &[Option<u32>]) -> bool {
    (0..tasks.len()).all(|i| {
        let parent = tasks.iter().position(|t| t.pid == tasks[i].ppid);
        tables[i].is_none()
            || parent.is_some_and(|p| tables[p] == tables[i])
            || !tables[..i].contains(&tables[i])
    })
}

/// Families whose tables take some thought: who forks whom with which table, and when it parts.
#[test]
fn tables_are_handed_on_along_forks() {
    // A child whose table is its own between a parent and a grandchild with one.
    let line = [
        task(10, 0, 10, 10),
        task(11, 10, 10, 10),
        task(12, 11, 10, 10),
    ];
    let t = tree_with(&line, &[Some(1), Some(2), Some(1)]).expect("along the line");
    let fork = |node, shared| Act::Fork {
        node,
        sibling: false,
        shared,
    };
    assert_eq!(t.nodes[0].acts, [Act::SetSid, fork(1, true)]);
    assert_eq!(t.nodes[1].acts, [fork(2, true), Act::Unshare]);
    assert_eq!(t.sharers(), 2);
    // Siblings: their parent hands them a table, then takes one that it shares with a third.
    let kin = [
        task(10, 0, 10, 10),
        task(11, 10, 10, 10),
        task(12, 10, 10, 10),
        task(13, 10, 10, 10),
    ];
    let t = tree_with(&kin, &[Some(1), Some(2), Some(1), Some(2)]).expect("siblings");
    let acts = [
        Act::SetSid,
        fork(1, true),
        fork(3, true),
        Act::Unshare,
        fork(2, true),
    ];
    assert_eq!(t.nodes[0].acts, acts);
    // Alone, nobody shares and nobody parts.
    let t = tree_with(&kin, &[Some(1), Some(2), Some(3), Some(4)]).expect("alone");
    assert_eq!(
        t.nodes[0].acts[1..],
        [1, 2, 3].map(|node| fork(node, false))
    );
    assert_eq!(t.sharers(), 0);
}

#[test]
fn tables_that_no_forks_lead_to_are_refused() {
    // Two pairs of cousins, crosswise: neither line of births can carry two tables.
    let cousins = [
        task(10, 0, 10, 10),
        task(11, 10, 10, 10),
        task(12, 10, 10, 10),
        task(13, 11, 10, 10),
        task(14, 11, 10, 10),
        task(15, 12, 10, 10),
        task(16, 12, 10, 10),
    ];
    let tables = [1, 2, 3, 4, 5, 4, 5].map(Some);
    let bad = tree_with(&cousins, &tables)
        .expect_err("crosswise")
        .join("; ");
    assert!(
        bad.contains("pid 12 would have to be born into two"),
        "{bad}"
    );
    assert!(bad.contains("CLONE_FILES"), "{bad}");
    // The parent's own table is that of a child, and that of two others is handed on by whoever has the first.
    let tables = [1, 1, 2, 3, 3].map(Some);
    let bad = tree_with(&cousins[..5], &tables)
        .expect_err("back again")
        .join("; ");
    assert!(bad.contains("pid 11 would have to go back"), "{bad}");
}

/// Images may claim anything: of tables that contradict each other is said but so much as there are tasks.
#[test]
fn many_tables_that_cross_are_refused_in_few_words() {
    let most = 300;
    let line: Vec<Task> = (0..most)
        .map(|i| task(10 + i, if i == 0 { 0 } else { 9 + i }, 10, 10))
        .collect();
    // The first half and the second have the same tables, one by one.
    let tables: Vec<_> = (0..most).map(|i| Some(i % (most / 2))).collect();
    let bad = tree_with(&line, &tables).expect_err("crosswise");
    assert!(bad.len() <= 2 * line.len(), "{} sentences", bad.len());
}

fn task(pid: u32, ppid: u32, pgid: u32, sid: u32) -> Task {
    Task {
        pid,
        ppid,
        pgid,
        sid,
        state: TaskState::Alive,
        comm: String::new(),
        live: None,
    }
}

#[test]
fn zombies_have_ended_somehow() {
    use armrest_plan::tree::possible_end;
    for status in [0, 7 << 8, 255 << 8, 9, 11 | 0x80, 34] {
        assert_eq!(possible_end(status), Ok(()), "{status:#x}");
    }
    for status in [19, 17, 65, 0x1_0000, 0x709, u32::MAX] {
        assert!(possible_end(status).is_err(), "{status:#x}");
    }
}

#[test]
fn what_no_kernel_has_is_refused() {
    let root = || task(10, 0, 10, 10);
    let dead = Task {
        state: TaskState::Dead { exit_code: 0 },
        ..task(11, 10, 10, 10)
    };
    for (tasks, what) in [
        (
            vec![root(), task(11, 10, 10, 11)],
            "leads its session, but group 10",
        ),
        (
            vec![root(), task(11, 10, 11, 11), task(12, 10, 11, 10)],
            "group 11, which is in another session",
        ),
        (
            vec![root(), task(11, 10, 10, 10), task(12, 10, 12, 11)],
            "session 11, which pid 11 does not lead",
        ),
        (
            vec![root(), dead, task(12, 11, 10, 10)],
            "a child of pid 11, a zombie",
        ),
        (
            vec![root(), task(11, 10, 99, 10), task(12, 10, 99, 12)],
            "group 99",
        ),
    ] {
        let bad = tree(&tasks).expect_err(what).join("; ");
        assert!(bad.contains(what), "{what}: {bad}");
    }
}
