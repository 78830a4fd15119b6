//! Stage 2: make what outlives this process, and the bootstrap areas.

use armrest_abi::{Attach, Remove};

use super::Restore;
use super::open::Opened;
use crate::cgroup::Groups;
use crate::error::Error;
use crate::load::Loaded;
use crate::objects::ghost::Links;
use crate::objects::sysv::{self, Kind, SysV};
use crate::objects::tty::Lent;
use crate::task::Allowed;

/// What the second stage made: taken back when dropped.
pub(super) struct Made {
    /// Of each member.
    pub(super) allowed: Vec<Allowed>,
    pub(super) cgroups: Groups,
    pub(super) sysv: SysV,
    /// Of each member.
    pub(super) loaded: Vec<Loaded>,
    pub(super) links: Links,
    /// The caller's terminal, if the task uses it.
    pub(super) lent: Option<Lent>,
    pub(super) notes: Vec<String>,
}

impl Restore<'_> {
    /// Make what outlives this process and lies outside the task: segments; and the bootstrap area.
    pub(super) fn make(&mut self, opened: &mut Opened) -> Result<Made, Error> {
        let cap_eff = self.machine.cap_eff;
        let allowed = self.members.iter().map(|m| {
            Allowed::new(m.live, cap_eff).map_err(|e| Error::Machine {
                what: format!("limits of pid {}", m.task.pid),
                why: e.to_string(),
            })
        });
        let allowed = allowed.collect::<Result<Vec<_>, _>>()?;
        let cgroups = Groups::here(self.root().live.cgroups.as_deref());
        let go_on = || {
            self.forward.interrupted()?;
            self.deadline.check(|| "SysV objects".into())
        };
        let mut notes = cgroups.notes.clone();
        notes.extend(sysv::write_limits(&self.root().plan.ipc.raise));
        let mut sysv = SysV::make(
            self.cp,
            &opened.pages,
            self.o.rare.any_ids,
            &go_on,
            self.journal,
        )?;
        notes.extend(sysv::write_limits(&self.root().plan.ipc.exact));
        for m in &mut self.members {
            renumber(
                &mut m.plan.tables.attaches,
                &mut m.plan.tables.removes,
                &sysv,
            );
        }
        renumber(&mut [], &mut self.forest.removes, &sysv);
        notes.extend(renumbered(&sysv));
        notes.append(&mut sysv.notes);
        notes.extend(opened.objects.notes.iter().cloned());
        let plans: Vec<_> = self.members.iter().map(|m| &m.plan).collect();
        let loaded = match opened.kept.memory.take() {
            Some(memory) => Loaded::of_tree(&plans, memory)?,
            None => vec![Loaded::alone(plans[0])?],
        };
        Ok(Made {
            allowed,
            cgroups,
            sysv,
            loaded,
            links: Links::default(),
            lent: match self.root().plan.files.terminals.caller {
                Some(_) => Some(Lent::new()?),
                None => None,
            },
            notes,
        })
    }
}

/// With `--any-ids` the attaches use the ids that the kernel gave.
fn renumber(attaches: &mut [Attach], removes: &mut [Remove], sysv: &SysV) {
    let now = |was: i32| {
        sysv.made()
            .iter()
            .find(|m| m.kind == Kind::Segment && i32::try_from(m.was) == Ok(was))
            .map_or(was, |m| m.id)
    };
    for a in attaches {
        a.shmid = now(a.shmid);
    }
    for r in removes {
        r.shmid = now(r.shmid);
    }
}

fn renumbered(sysv: &SysV) -> Vec<String> {
    sysv.made()
        .iter()
        .filter(|m| u32::try_from(m.id) != Ok(m.was))
        .map(|m| format!("{} {} is now {}", m.kind.name(), m.was, m.id))
        .collect()
}
