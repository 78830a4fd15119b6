//! How a tree of processes is made: who forks whom, in which session, and how the groups come together.
//!
//! A process cannot be put into a session or below a parent from outside; it has to be born there. So each process gets
//! a short list of [`Act`]s. Where a leader is gone, a *stand-in* takes its number, opens the session or the group, and
//! ends once all members are there. The stages, with a barrier between them:
//!
//! 1. births: every process does its acts in order;
//! 2. leaders of groups lead: `setpgid(0, 0)`;
//! 3. members join: `setpgid(0, group)`, in rounds: a leader who joined another group leaves its own to a member that is
//!    already there;
//! 4. stand-ins end, and their parents reap them;
//! 5. zombies end, and their parents see them dead.
//!
//! Rules: setsid(2), setpgid(2), clone(2) for CLONE_PARENT, PR_SET_CHILD_SUBREAPER(2const).

use std::collections::{BTreeMap, BTreeSet};

use armrest_images::{Checkpoint, Task, TaskState};

use crate::tables;

/// The group of the caller, which has no number here.
const CALLERS: u32 = 0;

/// What a process does before it becomes a task, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Open a session of its own.
    SetSid,
    /// Fork this node.
    Fork {
        /// Index in [`Tree::nodes`].
        node: usize,
        /// As a child of the forking process's own parent (CLONE_PARENT).
        sibling: bool,
        /// With the forking process's own descriptor table (CLONE_FILES).
        shared: bool,
    },
    /// Part from a descriptor table that others have too: go on with a copy.
    Unshare,
}

/// What a process does about its group, once all are born.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Nothing: it was born in it, leads it, or leads a session.
    Born,
    /// It joins this one.
    Join(u32),
    /// It joins the group in which the caller started the root.
    Callers,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A task of the checkpoint that lives, by index.
    Task(usize),
    /// One that is dead and not yet waited for, by index.
    Zombie(usize),
    /// The number of a leader that is gone, or a parent to lose: it ends when all are in their places.
    StandIn,
}

/// One process of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its pid in the checkpoint.
    pub pid: u32,
    /// What it is.
    pub role: Role,
    /// What it does first.
    pub acts: Vec<Act>,
    /// It leads a group of its own number, if only for others to join.
    pub leads: bool,
    /// Which group it then joins.
    pub group: Group,
    /// In which round, from 0 up.
    pub round: usize,
    /// Stand-ins that are its children: it reaps them.
    pub reaps: Vec<usize>,
    /// Zombies that are its children.
    pub zombies: Vec<usize>,
    /// It is a child subreaper until all are in their places: somebody's parent will be lost to it.
    pub reaper: bool,
    /// Its descriptor table is that of other tasks too.
    pub shares: bool,
}

impl Node {
    /// It does nothing yet.
    fn new(pid: u32, role: Role) -> Node {
        Node {
            pid,
            role,
            acts: Vec::new(),
            leads: false,
            group: Group::Born,
            round: 0,
            reaps: Vec::new(),
            zombies: Vec::new(),
            reaper: false,
            shares: false,
        }
    }
}

/// The tree: node 0 is the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Tasks in the order of the checkpoint, then stand-ins.
    pub nodes: Vec<Node>,
    /// Rounds of joining.
    pub rounds: usize,
}

impl Tree {
    /// True if a process is made as its maker's sibling: an emulator cannot.
    pub fn needs_siblings(&self) -> bool {
        let acts = self.nodes.iter().flat_map(|n| &n.acts);
        acts.into_iter()
            .any(|a| matches!(a, Act::Fork { sibling: true, .. }))
    }

    /// How many tasks share their descriptor table with others.
    pub fn sharers(&self) -> usize {
        self.nodes.iter().filter(|n| n.shares).count()
    }
}

/// Can a process end like this? A wait status of `exit`, or of a signal that ends.
///
/// # Errors
/// Why not.
pub fn possible_end(status: u32) -> Result<(), String> {
    /// Ignored or stopping by default: SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH.
    const NOT_DEADLY: [u32; 8] = [17, 18, 19, 20, 21, 22, 23, 28];
    let signo = status & 0x7f;
    if status > 0xffff || signo != 0 && status & 0xff00 != 0 {
        return Err(format!("ended with the status {status:#x}"));
    }
    if signo > 64 || NOT_DEADLY.contains(&signo) {
        return Err(format!("was killed by signal {signo}"));
    }
    Ok(())
}

/// The ids that a tree needs: the root's pid, then all others, those of threads, and the numbers of those that are gone.
pub fn ids(cp: &Checkpoint) -> Vec<u32> {
    let mut ids = cp.ids();
    if let Ok(tree) = tree(&cp.tasks) {
        let gone = tree.nodes.iter().filter(|n| n.role == Role::StandIn);
        ids.extend(gone.map(|n| n.pid));
    }
    ids
}

/// Decide how the tree is made.
///
/// # Errors
/// Relations that cannot be, or that no order of births leads to, in words.
pub fn tree(tasks: &[Task]) -> Result<Tree, Vec<String>> {
    let table = |t: &Task| t.live.as_ref().map(|l| l.files_id);
    tree_with(tasks, &tasks.iter().map(table).collect::<Vec<_>>())
}

/// The same, with the numbers of the tasks' descriptor tables apart; `None` = nobody else's.
///
/// # Errors
/// As above.
pub fn tree_with(tasks: &[Task], tables: &[Option<u32>]) -> Result<Tree, Vec<String>> {
    let mut d = Draft::new(tasks);
    d.check();
    if d.bad.is_empty() {
        d.births();
        d.groups();
        d.all_born();
    }
    if d.bad.is_empty() {
        d.ends();
        d.bad.extend(
            tables::share(tables, &mut d.nodes)
                .err()
                .into_iter()
                .flatten(),
        );
    }
    let rounds = if d.bad.is_empty() { d.rounds() } else { 0 };
    if d.bad.is_empty() {
        Ok(Tree {
            nodes: d.nodes,
            rounds,
        })
    } else {
        Err(d.bad)
    }
}

struct Draft<'a> {
    tasks: &'a [Task],
    /// Nodes by number.
    by_pid: BTreeMap<u32, usize>,
    nodes: Vec<Node>,
    /// Parent and session of each node, stand-ins included.
    places: Vec<(usize, u32)>,
    /// Acts that come before the node's own setsid.
    early: Vec<Vec<Act>>,
    /// Numbers that something has, or names its group or session by.
    taken: BTreeSet<u32>,
    /// Of the numbers from here up to the highest none is free.
    full_from: u32,
    bad: Vec<String>,
}

impl<'a> Draft<'a> {
    fn new(tasks: &'a [Task]) -> Draft<'a> {
        let by_pid: BTreeMap<u32, usize> = tasks.iter().map(|t| t.pid).zip(0..).collect();
        let node = |(i, t): (usize, &Task)| {
            let role = match t.state {
                TaskState::Dead { .. } => Role::Zombie(i),
                _ => Role::Task(i),
            };
            Node::new(t.pid, role)
        };
        let place = |t: &Task| (by_pid.get(&t.ppid).copied().unwrap_or(0), t.sid);
        Draft {
            tasks,
            nodes: tasks.iter().enumerate().map(node).collect(),
            places: tasks.iter().map(place).collect(),
            early: vec![Vec::new(); tasks.len()],
            by_pid,
            taken: tasks.iter().flat_map(|t| [t.pid, t.pgid, t.sid]).collect(),
            full_from: u32::MAX,
            bad: Vec::new(),
        }
    }

    /// Relations that no kernel has.
    fn check(&mut self) {
        for t in self.tasks {
            let pid = t.pid;
            if t.sid == pid && t.pgid != pid {
                self.bad.push(format!(
                    "pid {pid} leads its session, but group {} is not its own",
                    t.pgid
                ));
            }
            if let Some(leader) = self.task(t.pgid)
                && leader.sid != t.sid
            {
                self.bad.push(format!(
                    "pid {pid} is in group {}, which is in another session",
                    t.pgid
                ));
            }
            if let Some(leader) = self.task(t.sid)
                && leader.sid != t.sid
            {
                self.bad.push(format!(
                    "pid {pid} is in session {}, which pid {} does not lead",
                    t.sid, t.sid
                ));
            }
            if let Some(p) = self.task(t.ppid)
                && matches!(p.state, TaskState::Dead { .. })
            {
                self.bad
                    .push(format!("pid {pid} is a child of pid {}, a zombie", p.pid));
            }
            if self.by_pid.get(&t.ppid) == self.by_pid.get(&pid) && t.ppid == pid {
                self.bad.push(format!("pid {pid} is its own parent"));
            }
        }
    }

    fn task(&self, pid: u32) -> Option<&'a Task> {
        self.by_pid.get(&pid).and_then(|i| self.tasks.get(*i))
    }

    /// The session in which each task has to be born; `None` = any.
    fn born(&self) -> Vec<Option<u32>> {
        let mut born = vec![None; self.tasks.len()];
        // Younger than the parent is every child that is looked at: the root's own place is its own.
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.tasks.len()];
        for (i, (parent, _)) in self.places.iter().enumerate().filter(|(i, p)| *i > p.0) {
            children[*parent].push(i);
        }
        for (i, t) in self.tasks.iter().enumerate().rev() {
            if t.sid != t.pid {
                born[i] = Some(t.sid);
                continue;
            }
            // It opens a session itself: before that it may have children in the one in which it was born.
            let parent = self.places[i].0;
            let mut early: Vec<u32> = children[i]
                .iter()
                .filter_map(|c| born[*c])
                .filter(|s| *s != t.pid)
                // A child in the session of another descendant is that one's sibling.
                .filter(|s| !self.by_pid.get(s).is_some_and(|l| self.is_ancestor(i, *l)))
                .collect();
            let parents = self.tasks[parent].sid;
            early.sort_unstable_by_key(|s| (*s != parents, *s));
            born[i] = early.first().copied();
        }
        // The root is born where the caller is.
        born[0] = None;
        born
    }

    fn births(&mut self) {
        let born = self.born();
        // Who is forked by its own parent, before or after that one's setsid; the others wait for a stand-in's place.
        let mut odd = Vec::new();
        for i in 1..self.tasks.len() {
            let parent = self.places[i].0;
            let p = &self.tasks[parent];
            let fork = Act::Fork {
                node: i,
                sibling: false,
                shared: false,
            };
            match born[i] {
                None => self.nodes[parent].acts.push(fork),
                Some(s) if s == p.sid => self.nodes[parent].acts.push(fork),
                Some(s) if p.sid == p.pid && born[parent] == Some(s) => {
                    self.early[parent].push(fork);
                }
                Some(s) => odd.push((i, parent, s)),
            }
        }
        for (i, parent, session) in odd {
            self.born_elsewhere(i, parent, session);
        }
        for (i, t) in self.tasks.iter().enumerate() {
            if t.sid == t.pid {
                let mut acts = std::mem::take(&mut self.early[i]);
                acts.push(Act::SetSid);
                acts.append(&mut self.nodes[i].acts);
                self.nodes[i].acts = acts;
            }
        }
    }

    /// A task in a session that its parent never was in: its maker was another, and is gone or a relative.
    fn born_elsewhere(&mut self, i: usize, parent: usize, session: u32) {
        let leader = match self.node(session) {
            Some(l) => l,
            None => {
                let fork_at = self.stand_in(session, parent, session);
                self.nodes[fork_at].acts.push(Act::SetSid);
                self.nodes[parent].acts.push(Act::Fork {
                    node: fork_at,
                    sibling: false,
                    shared: false,
                });
                fork_at
            }
        };
        if self.places[leader].0 == parent {
            self.nodes[leader].acts.push(Act::Fork {
                node: i,
                sibling: true,
                shared: false,
            });
            return;
        }
        if !self.is_ancestor(parent, leader) {
            self.bad.push(format!(
                "pid {} is in session {session}, whose leader is no descendant of its parent, pid {}",
                self.tasks[i].pid, self.tasks[parent].pid
            ));
            return;
        }
        // Its maker was a child of the leader's, and is gone: then the task fell to its parent, a subreaper.
        let number = self.free_pid();
        let maker = self.stand_in(number, leader, session);
        self.nodes[leader].acts.push(Act::Fork {
            node: maker,
            sibling: false,
            shared: false,
        });
        self.nodes[maker].acts.push(Act::Fork {
            node: i,
            sibling: false,
            shared: false,
        });
        self.nodes[parent].reaper = true;
    }

    /// A node for a number that no task has.
    fn stand_in(&mut self, pid: u32, parent: usize, session: u32) -> usize {
        self.nodes.push(Node::new(pid, Role::StandIn));
        self.places.push((parent, session));
        let node = self.nodes.len() - 1;
        self.by_pid.entry(pid).or_insert(node);
        self.taken.insert(pid);
        node
    }

    fn node(&self, pid: u32) -> Option<usize> {
        self.by_pid.get(&pid).copied()
    }

    fn is_ancestor(&self, of: usize, mut node: usize) -> bool {
        while node != 0 {
            node = self.places[node].0;
            if node == of {
                return true;
            }
        }
        false
    }

    /// A number that nothing of the tree has: the one above the highest, or below the lowest if that is no pid.
    fn free_pid(&mut self) -> u32 {
        const PID_MAX: u32 = 32767;
        let free = |p: &u32| !self.taken.contains(p);
        let highest = self.by_pid.last_key_value().map_or(1, |(pid, _)| *pid);
        if let Some(above) = (highest + 1..=PID_MAX).find(free) {
            return above;
        }
        let below = (2..highest.min(self.full_from)).rev().find(free);
        // Whoever asks takes it.
        self.full_from = below.unwrap_or(2);
        below.unwrap_or(highest)
    }

    fn groups(&mut self) {
        let root = &self.tasks[0];
        for i in 0..self.tasks.len() {
            let t = &self.tasks[i];
            let group = t.pgid;
            self.nodes[i].group = if t.sid == t.pid {
                Group::Born
            } else if group == t.pid {
                self.nodes[i].leads = true;
                Group::Born
            } else if group == root.pgid && root.pgid != root.pid && self.node(group).is_none() {
                // The group of whoever started the root, which is not part of the checkpoint.
                if t.sid != root.sid {
                    self.bad.push(format!(
                        "pid {} is in the group of the root's starter, but in another session",
                        t.pid
                    ));
                }
                Group::Callers
            } else {
                match self.node(group) {
                    None => {
                        let leader = self.stand_in(group, i, t.sid);
                        self.nodes[leader].leads = true;
                        self.nodes[i].acts.push(Act::Fork {
                            node: leader,
                            sibling: false,
                            shared: false,
                        });
                    }
                    Some(l) if self.places[l].1 != t.sid => self.bad.push(format!(
                        "pid {} is in group {group} of another session",
                        t.pid
                    )),
                    // Who leads a session leads the group of the same number already.
                    Some(l) => self.nodes[l].leads = self.places[l].1 != group,
                }
                Group::Join(group)
            };
        }
    }

    /// When each joins its group, so that no group is empty before its last member is there. The number of rounds.
    fn rounds(&mut self) -> usize {
        // Who is in which group once the leaders lead; those that are born into theirs are where they belong.
        let mut inside: Vec<Option<u32>> = self
            .nodes
            .iter()
            .map(|n| n.leads.then_some(n.pid))
            .collect();
        for (i, n) in self.nodes.iter().enumerate() {
            if self.places[i].1 == n.pid {
                inside[i] = Some(n.pid);
            }
        }
        let mut waiting: Vec<(usize, u32)> = self
            .nodes
            .iter()
            .enumerate()
            .filter_map(|(i, n)| match n.group {
                Group::Join(g) => Some((i, g)),
                Group::Callers => Some((i, CALLERS)),
                Group::Born => None,
            })
            .collect();
        let mut round = 0;
        while !waiting.is_empty() {
            let mut count: BTreeMap<u32, usize> = BTreeMap::new();
            for g in inside.iter().flatten() {
                *count.entry(*g).or_default() += 1;
            }
            let members = |g: u32, but: usize| {
                let all = count.get(&g).copied().unwrap_or(0);
                g == CALLERS || all > usize::from(inside[but] == Some(g))
            };
            let wanted: BTreeSet<u32> = waiting.iter().map(|w| w.1).collect();
            let (go, stay): (Vec<_>, Vec<_>) = waiting.iter().copied().partition(|(i, g)| {
                let own = self.nodes[*i].pid;
                // The group may not end while somebody is still to come to it or has come.
                let may_leave = !self.nodes[*i].leads || !wanted.contains(&own) || members(own, *i);
                may_leave && members(*g, *i)
            });
            // Who keeps a group alive in this round must not leave it in the same.
            let going: BTreeSet<usize> = go.iter().map(|m| m.0).collect();
            let stays = |(i, at): (usize, &Option<u32>)| at.filter(|_| !going.contains(&i));
            let kept: BTreeSet<u32> = inside.iter().enumerate().filter_map(stays).collect();
            let go = go.iter().copied();
            let go: BTreeMap<usize, u32> = go
                .filter(|(_, g)| *g == CALLERS || kept.contains(g))
                .collect();
            if go.is_empty() {
                let (i, g) = stay.first().or(waiting.first()).copied().unwrap_or((0, 0));
                self.bad.push(format!(
                    "pid {} cannot come into group {g}",
                    self.nodes[i].pid
                ));
                return 0;
            }
            for (i, g) in &go {
                inside[*i] = Some(*g);
                self.nodes[*i].round = round;
            }
            waiting.retain(|w| !go.contains_key(&w.0));
            round += 1;
        }
        round
    }

    /// Relations that need each other lead to nobody's birth.
    fn all_born(&mut self) {
        let mut born = vec![0];
        let mut next = 0;
        while let Some(i) = born.get(next).copied() {
            let children = self.nodes[i].acts.iter().filter_map(|a| match a {
                Act::Fork { node, .. } => Some(*node),
                _ => None,
            });
            born.extend(children);
            next += 1;
        }
        born.sort_unstable();
        let unborn = (0..self.nodes.len()).find(|i| born.binary_search(i).is_err());
        if let Some(i) = unborn {
            self.bad.push(format!(
                "pid {} cannot be born where it belongs",
                self.nodes[i].pid
            ));
        }
    }

    fn ends(&mut self) {
        for i in 1..self.nodes.len() {
            let parent = self.places[i].0;
            match self.nodes[i].role {
                Role::Task(_) => {}
                Role::Zombie(_) => self.nodes[parent].zombies.push(i),
                Role::StandIn => self.nodes[parent].reaps.push(i),
            }
        }
    }
}
