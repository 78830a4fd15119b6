//! The [`Board`] that all processes of a tree share, and the stages that they meet at.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use armrest_plan::tree::{Node, Role, Tree};

use crate::error::Error;
use crate::shared::{Words, futex};
use crate::task::FAILED;

/// A stage that all, or all of a kind, come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Everybody is born.
    Born,
    /// Leaders lead their groups.
    Lead,
    /// A round of joining is over.
    Joined(usize),
    /// Stand-ins are gone, and reaped.
    Alone,
    /// Zombies are dead.
    Settled,
    /// If any share a descriptor table: nobody uses anything any more that lies in a table.
    Idle,
    /// All tables are as they were.
    Placed,
}

impl Stage {
    /// All stages of a tree, in order.
    pub fn of(tree: &Tree) -> Vec<Stage> {
        let mut stages = vec![Stage::Born, Stage::Lead];
        stages.extend((0..tree.rounds).map(Stage::Joined));
        stages.extend([Stage::Alone, Stage::Settled]);
        if tree.sharers() > 0 {
            stages.extend([Stage::Idle, Stage::Placed]);
        }
        stages
    }

    /// How many come to it.
    pub fn members(self, tree: &Tree) -> u32 {
        let counts = |n: &&Node| match self {
            Stage::Born | Stage::Lead | Stage::Joined(_) => true,
            Stage::Alone => n.role != Role::StandIn,
            Stage::Settled | Stage::Idle | Stage::Placed => matches!(n.role, Role::Task(_)),
        };
        u32::try_from(tree.nodes.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }
}

/// Memory that the harness and all processes of the tree share: how far the tree is, how many are where, who is who.
#[derive(Debug)]
pub struct Board {
    words: Words,
    stages: Vec<Stage>,
    nodes: usize,
}

impl Board {
    /// A board for `tree`.
    ///
    /// # Errors
    /// No memory.
    pub fn new(tree: &Tree) -> Result<Board, Error> {
        let (stages, nodes) = (Stage::of(tree), tree.nodes.len());
        let words = Words::new(1 + stages.len() + nodes).map_err(|e| Error::Machine {
            what: "memory for the processes of a tree".into(),
            why: e.to_string(),
        })?;
        Ok(Board {
            words,
            stages,
            nodes,
        })
    }

    /// How many stages are open.
    fn open(&self) -> &AtomicU32 {
        self.words.get(0)
    }

    fn arrived(&self, stage: usize) -> &AtomicU32 {
        self.words.get(1 + stage)
    }

    /// The pid of a node as it is now; 0 = not born.
    pub fn pid(&self, node: usize) -> &AtomicU32 {
        self.words.get(1 + self.stages.len() + node)
    }

    /// A node is born: said by whoever knows first, itself or its maker.
    pub fn enter(&self, node: usize, pid: libc::pid_t) {
        self.pid(node).store(pid.cast_unsigned(), Ordering::Release);
    }

    /// The pid of a node, if it is born and not reaped.
    pub fn born(&self, node: usize) -> Option<libc::pid_t> {
        let pid = libc::pid_t::try_from(self.pid(node).load(Ordering::Acquire));
        pid.ok().filter(|p| *p > 0)
    }

    /// The pids of all that are born.
    pub fn pids(&self) -> Vec<libc::pid_t> {
        (0..self.nodes)
            .map(|n| self.pid(n).load(Ordering::Acquire))
            .filter_map(|p| libc::pid_t::try_from(p).ok().filter(|p| *p > 0))
            .collect()
    }

    /// Come to a stage, if the tree has it, and wait until it is open.
    pub fn come(&self, stage: Stage, harness: libc::pid_t) {
        if let Some(i) = self.stages.iter().position(|s| *s == stage) {
            self.meet(i, harness);
        }
    }

    /// All stages, in order.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    pub(super) fn meet(&self, stage: usize, harness: libc::pid_t) {
        self.arrived(stage).fetch_add(1, Ordering::AcqRel);
        futex(self.arrived(stage), libc::FUTEX_WAKE, 1, None);
        let wanted = u32::try_from(stage + 1).unwrap_or(u32::MAX);
        loop {
            let open = self.open().load(Ordering::Acquire);
            if open >= wanted {
                return;
            }
            futex(self.open(), libc::FUTEX_WAIT, open, Some(self.patience()));
            // SAFETY: signal 0 only asks whether the process is there.
            if unsafe { libc::kill(harness, 0) } != 0 {
                // SAFETY: ends this process alone, without exit handlers.
                unsafe { libc::_exit(FAILED) }
            }
        }
    }

    /// How long to wait before the harness is looked for: all that wait do so, and should not do it most of the time.
    fn patience(&self) -> Duration {
        let each = Duration::from_millis(4);
        let all = each * u32::try_from(self.nodes).unwrap_or(u32::MAX);
        all.clamp(Duration::from_millis(200), Duration::from_secs(10))
    }

    /// Wait until `members` have come to `stage`; `look` is asked again and again whether to go on waiting.
    ///
    /// # Errors
    /// What `look` says.
    pub fn gather(
        &self,
        stage: usize,
        members: u32,
        look: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        loop {
            let here = self.arrived(stage).load(Ordering::Acquire);
            if here >= members {
                return Ok(());
            }
            look()?;
            let wait = Duration::from_millis(10);
            futex(self.arrived(stage), libc::FUTEX_WAIT, here, Some(wait));
        }
    }

    /// Let everybody go on from `stage`.
    pub fn release(&self, stage: usize) {
        let open = u32::try_from(stage + 1).unwrap_or(u32::MAX);
        self.open().store(open, Ordering::Release);
        futex(
            self.open(),
            libc::FUTEX_WAKE,
            i32::MAX.cast_unsigned(),
            None,
        );
    }
}
