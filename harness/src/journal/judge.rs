//! Is what is found now what the journal speaks of? Pure: facts in, a judgement out. In doubt it is not ours.

use super::text::{Begun, Head, Node, What};
use crate::objects::sysv::Kind;

/// A row of `/proc/sysvipc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub id: i32,
    pub key: u32,
    /// Nine bits.
    pub mode: u32,
    /// Creator's user.
    pub cuid: u32,
    /// Creator's pid; segments only.
    pub cpid: Option<u32>,
    /// Last change, in seconds since 1970.
    pub ctime: u64,
}

/// Rows of a file of `/proc/sysvipc`; its first line names the columns.
pub fn rows(text: &str) -> Vec<Row> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let at = |name: &str| names.iter().position(|n| *n == name);
    let id = ["shmid", "semid", "msqid"].into_iter().find_map(at);
    lines
        .filter_map(|l| {
            let w: Vec<&str> = l.split_whitespace().collect();
            let get = |i: Option<usize>| w.get(i?).copied();
            let key: i64 = get(at("key"))?.parse().ok()?;
            Some(Row {
                id: get(id)?.parse().ok()?,
                key: u32::try_from(key & 0xffff_ffff).ok()?,
                mode: u32::from_str_radix(get(at("perms"))?, 8).ok()? & 0o777,
                cuid: get(at("cuid"))?.parse().ok()?,
                cpid: get(at("cpid")).and_then(|p| p.parse().ok()),
                ctime: get(at("ctime"))?.parse().ok()?,
            })
        })
        .collect()
}

/// What becomes of a SysV object in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This one is ours: remove it.
    Remove(i32),
    /// It is not there.
    Gone,
    /// Who can tell: more than one could be meant.
    Unclear(usize),
}

/// Seconds after its line in which a thing is made whose number is not known yet.
const SOON: u64 = 10;
/// Seconds after the journal's last line in which semaphores and queues may still be filled.
const LATER: u64 = 60;

/// Which of `rows` is the object that `begun` speaks of. `last`: when the journal was written last. `same_pids`: we see
/// the pids that its owner saw. `others`: ids that other lines of the journal speak of.
pub fn sysv(
    head: &Head,
    begun: &Begun<'_>,
    rows: &[Row],
    last: u64,
    same_pids: bool,
    others: &[i32],
) -> Verdict {
    let What::Sysv {
        kind,
        key,
        mode,
        creator,
        ..
    } = begun.what
    else {
        return Verdict::Gone;
    };
    // The kernel's clock of such times may be a tick behind.
    let from = begun.time.saturating_sub(1);
    let ours = |r: &Row| {
        let by_us = match (kind, r.cpid) {
            (Kind::Segment, Some(pid)) => !same_pids || pid == head.pid,
            // Nobody notes the creator of semaphores and queues: then the time must do.
            _ => r.ctime <= last.saturating_add(LATER),
        };
        by_us && r.key == *key && [head.uid, *creator].contains(&r.cuid) && r.ctime >= from
    };
    if let Some(id) = begun.id {
        return match rows.iter().find(|r| r.id == id) {
            Some(r) if ours(r) => Verdict::Remove(id),
            _ => Verdict::Gone,
        };
    }
    let all: Vec<&Row> = rows
        .iter()
        .filter(|r| {
            ours(r)
                && r.mode == *mode
                && r.ctime <= begun.time.saturating_add(SOON)
                && !others.contains(&r.id)
        })
        .collect();
    match all[..] {
        [] => Verdict::Gone,
        [one] => Verdict::Remove(one.id),
        _ => Verdict::Unclear(all.len()),
    }
}

/// What is known of a name now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub node: Node,
    pub uid: u32,
    pub ctime: u64,
}

/// Is the file that has the name now the one that `begun` speaks of?
pub fn file(head: &Head, begun: &Begun<'_>, found: &Found) -> bool {
    match (begun.node, begun.what) {
        (Some(node), _) => node == found.node,
        (None, What::File { name, .. }) => {
            found.uid == head.uid
                && (name.contains(&head.token)
                    || found.ctime >= begun.time.saturating_sub(1)
                        && found.ctime <= begun.time.saturating_add(SOON))
        }
        _ => false,
    }
}
