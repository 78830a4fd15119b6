//! Descriptor tables that several processes share (CLONE_FILES).
//!
//! A table is handed on at a fork and never later: whoever shares one was born into it, along forks from a process that
//! had it. So of the tree of births the smallest part that joins all sharers is marked, and each fork in it shares the
//! table. A process in between, or one whose own table is another, parts from it (`unshare(CLONE_FILES)`) once it has
//! handed it on; it cannot go back to one that it has left, which gives its forks an order.
//!
//! One task of each table, the first, puts the descriptors of all into it.

use std::collections::{BTreeMap, BTreeSet};

use armrest_images::{Checkpoint, LiveTask};

use crate::tree::{Act, Node, Role};
use crate::whole::lives;

/// The first task of each table: what is done with descriptors is done by it.
pub fn holders(cp: &Checkpoint) -> impl Iterator<Item = (usize, &LiveTask)> {
    let mut seen = BTreeSet::new();
    lives(cp).filter(move |(_, l)| seen.insert(l.files_id))
}

/// Mark the forks that share a table, and let processes part from tables that are not theirs. `tables`: the number of
/// each task's table, by index.
///
/// # Errors
/// Tables that no order of forks leads to, in words.
pub(crate) fn share(tables: &[Option<u32>], nodes: &mut [Node]) -> Result<(), Vec<String>> {
    let mut groups: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (i, table) in tables.iter().enumerate() {
        if let (Some(table), Role::Task(_)) = (table, nodes[i].role) {
            groups.entry(*table).or_default().push(i);
        }
    }
    groups.retain(|_, members| members.len() > 1);
    if groups.is_empty() {
        return Ok(());
    }
    let (born, mut bad) = born_into(&groups, nodes);
    for i in groups.values().flatten() {
        nodes[*i].shares = true;
    }
    for i in 0..nodes.len() {
        let own = match nodes[i].role {
            Role::Task(_) if nodes[i].shares => Own::Table(tables[i].unwrap_or(0)),
            Role::Task(_) => Own::Alone,
            _ => Own::Any,
        };
        match acts(i, nodes, &born, own) {
            Ok(acts) => nodes[i].acts = acts,
            Err(why) => bad.push(why),
        }
    }
    if bad.is_empty() { Ok(()) } else { Err(bad) }
}

/// What a process has to be left with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Own {
    /// This table of several.
    Table(u32),
    /// A table that nobody else has.
    Alone,
    /// It ends before that matters.
    Any,
}

/// The table that each node has to be born into, if it is one of several; and what contradicts itself.
fn born_into(
    groups: &BTreeMap<u32, Vec<usize>>,
    nodes: &[Node],
) -> (BTreeMap<usize, u32>, Vec<String>) {
    let mut maker = vec![0; nodes.len()];
    for (i, n) in nodes.iter().enumerate() {
        for act in &n.acts {
            if let Act::Fork { node, .. } = act {
                maker[*node] = i;
            }
        }
    }
    // Births before one's own. Makers come in any order of numbers, so from the root down.
    let mut depth = vec![0usize; nodes.len()];
    let mut order = vec![0];
    let mut next = 0;
    while let Some(i) = order.get(next).copied() {
        for act in &nodes[i].acts {
            if let Act::Fork { node, .. } = *act {
                depth[node] = depth[i] + 1;
                order.push(node);
            }
        }
        next += 1;
    }
    let (mut born, mut bad) = (BTreeMap::new(), Vec::new());
    for (table, members) in groups {
        // The deepest gives way to its maker until only one is left, who has the table from the beginning.
        let mut heads: BTreeSet<(usize, usize)> = members.iter().map(|m| (depth[*m], *m)).collect();
        while heads.len() > 1 {
            let Some((depth, node)) = heads.pop_last() else {
                break;
            };
            if born
                .insert(node, *table)
                .is_some_and(|other| other != *table)
            {
                bad.push(format!(
                    "pid {} would have to be born into two descriptor tables (CLONE_FILES): one of them is that of pid {}",
                    nodes[node].pid, nodes[members[0]].pid
                ));
                // Once is enough: further up there may be as many as there are tasks, for each table.
                break;
            }
            heads.insert((depth.saturating_sub(1), maker[node]));
        }
    }
    (born, bad)
}

/// The acts of a node with its forks marked, in an order that its tables allow.
fn acts(
    node: usize,
    nodes: &[Node],
    born: &BTreeMap<usize, u32>,
    own: Own,
) -> Result<Vec<Act>, String> {
    let n = &nodes[node];
    let table = |act: &Act| match act {
        Act::Fork { node, .. } => born.get(node).copied(),
        _ => None,
    };
    // Before which and after which opening of a session each table is handed on.
    let mut spans: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
    let mut part = 0;
    for act in &n.acts {
        part += usize::from(*act == Act::SetSid);
        if let Some(t) = table(act) {
            spans.entry(t).or_insert((part, part)).1 = part;
        }
    }
    let first = born.get(&node).copied();
    if let Some(t) = first {
        spans.entry(t).or_insert((0, 0));
    }
    let last = match own {
        Own::Table(t) => Some(t),
        _ => None,
    };
    let mut order: Vec<(u32, (usize, usize))> = spans.into_iter().collect();
    order.sort_by_key(|(t, span)| (Some(*t) != first, Some(*t) == last, *span));
    let fits = order.is_sorted_by(|(_, a), (_, b)| a.1 <= b.0);
    let ends = last.is_none_or(|l| order.last().is_some_and(|(t, _)| *t == l));
    if !fits || !ends {
        return Err(format!(
            "pid {} would have to go back to a descriptor table (CLONE_FILES) that it has left",
            n.pid
        ));
    }
    let phases: BTreeMap<u32, usize> = order.iter().map(|(t, _)| *t).zip(0..).collect();
    let phase = |t: u32| phases.get(&t).copied().unwrap_or(0);
    let mut out = Vec::new();
    let mut now = 0;
    for part in n.acts.split_inclusive(|a| *a == Act::SetSid) {
        let begin = now;
        let mut part: Vec<(usize, Act)> = part
            .iter()
            .map(|act| match (*act, table(act)) {
                (Act::Fork { node, sibling, .. }, Some(t)) => {
                    let shared = true;
                    let act = Act::Fork {
                        node,
                        sibling,
                        shared,
                    };
                    (phase(t), act)
                }
                // A session is opened last of its part.
                (Act::SetSid, _) => (usize::MAX, Act::SetSid),
                // Who gets a copy gets it of whatever is there.
                (act, _) => (begin, act),
            })
            .collect();
        part.sort_by_key(|(phase, _)| *phase);
        for (phase, act) in part {
            if act != Act::SetSid && phase > now {
                out.push(Act::Unshare);
                now = phase;
            }
            out.push(act);
        }
    }
    if own == Own::Alone && !order.is_empty() {
        out.push(Act::Unshare);
    }
    Ok(out)
}
