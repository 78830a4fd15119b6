//! What the harness does, for all tasks, with descriptions that it shares with them: last of all, while every task waits
//! at the second gate. So the ids of the owners of signals mean somebody, no timer runs while memory is filled, and what
//! is sealed against writing is mapped already.

use std::collections::BTreeMap;

use armrest_images::{Checkpoint, File, FileOwner, LiveTask, VmaKind};

use crate::files::{Inherited, Make, facts};
use crate::whole::lives;

const SEAL_FUTURE_WRITE: u32 = 0x10;

/// One thing, done to a description or to a memory object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Late {
    /// Seals of a memory file that is mapped to write and sealed against more of that.
    Seal {
        /// Its inode in the images.
        inode: u32,
        /// All of them.
        seals: u32,
    },
    /// Who gets the signals of a description, and which (F_SETOWN_EX, F_SETSIG).
    Owner {
        /// File id.
        file: u32,
        /// As recorded.
        owner: FileOwner,
    },
    /// A timer descriptor: the time that is left counts from here.
    Timer {
        /// File id.
        file: u32,
    },
}

impl Late {
    /// The description that it is done to; none for a memory object.
    pub fn file(&self) -> Option<u32> {
        match self {
            Late::Seal { .. } => None,
            Late::Owner { file, .. } | Late::Timer { file } => Some(*file),
        }
    }

    /// In the words of `armrest plan`.
    pub fn words(&self, cp: &Checkpoint) -> String {
        match self {
            Late::Seal { inode, seals } => {
                let name = cp.memfds.get(inode).map_or("?", |m| m.name.as_str());
                format!("memory file {name}: seals {seals:#x}")
            }
            Late::Owner { file, owner } => {
                let who = match (owner.pid, owner.pid_type) {
                    (0, _) => "nobody".to_owned(),
                    (pid, 2) => format!("process group {pid}"),
                    (pid, 0) => format!("thread {pid}"),
                    (pid, _) => format!("process {pid}"),
                };
                let what = crate::files::name(cp, *file);
                format!("{what}: signals to {who}, number {}", owner.signum)
            }
            Late::Timer { file } => match cp.files.get(file) {
                Some(File::Timerfd(t)) => format!(
                    "timer descriptor: {}.{:09} s left, every {}.{:09} s, {} expiries unread",
                    t.value.0, t.value.1, t.interval.0, t.interval.1, t.ticks
                ),
                _ => "timer descriptor".to_owned(),
            },
        }
    }
}

fn has_owner(o: FileOwner) -> bool {
    o.pid != 0 || o.signum != 0
}

/// May there be something to do?
pub fn any(cp: &Checkpoint) -> bool {
    let has = |f: &File| matches!(f, File::Timerfd(_)) || has_owner(facts(cp, f).1);
    cp.files.values().any(has) || !sealed(cp).is_empty()
}

/// Everything, in order: timers last. What the caller gives stays as the caller has it.
pub fn plan(cp: &Checkpoint, makes: &[Make], given: &Inherited) -> Vec<Late> {
    let (mut owners, mut timers) = (Vec::new(), Vec::new());
    for m in makes.iter().filter(|m| !given.contains_key(&m.file)) {
        let Some(made) = cp.files.get(&m.file) else {
            continue;
        };
        let owner = facts(cp, made).1;
        if has_owner(owner) {
            owners.push(Late::Owner {
                file: m.file,
                owner,
            });
        }
        if matches!(made, File::Timerfd(_)) {
            timers.push(Late::Timer { file: m.file });
        }
    }
    let seals = sealed(cp).into_iter();
    let seals = seals.map(|(inode, seals)| Late::Seal { inode, seals });
    seals.chain(owners).chain(timers).collect()
}

/// Memory files that are mapped to write although they are sealed against future writes, with their seals.
fn sealed(cp: &Checkpoint) -> BTreeMap<u32, u32> {
    let mapped = |live: &LiveTask| {
        let vmas = live.mm.vmas.iter();
        let inode = |v: &armrest_images::Vma| match v.kind {
            VmaKind::Memfd { inode, .. } if v.shared && v.access != Some(0) => Some(inode),
            _ => None,
        };
        vmas.filter_map(inode).collect::<Vec<_>>()
    };
    let all = lives(cp)
        .map(|(_, l)| l)
        .flat_map(mapped)
        .filter_map(|inode| {
            let seals = cp.memfds.get(&inode)?.seals;
            (seals & SEAL_FUTURE_WRITE != 0).then_some((inode, seals))
        });
    all.collect()
}
