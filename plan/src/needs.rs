//! Which facts of a machine a plan for a checkpoint looks at: the harness asks the kernel for these alone. To ask for all
//! of them takes longer than a small restore. `tests/needs.rs` holds it to that: whatever else the rest is, the plan is
//! the same.

use armrest_images::{Checkpoint, Creds, File, LiveTask, Vma};

use crate::machine::Rights;
use crate::whole::lives;

/// Fewer mappings than any machine allows: `vm.max_map_count` is not looked at for less. (A machine with a smaller limit
/// has been told to: there the blob's `mmap2` fails, by name.)
const ALWAYS_ALLOWED: usize = 1024;

/// What is asked on behalf of a checkpoint, or all there is.
#[derive(Clone, Copy, Debug)]
pub struct Needs<'a>(Option<&'a Checkpoint>);

impl<'a> Needs<'a> {
    /// Every fact.
    pub fn all() -> Needs<'a> {
        Needs(None)
    }

    /// What this one needs.
    pub fn of(cp: &'a Checkpoint) -> Needs<'a> {
        Needs(Some(cp))
    }

    fn any(&self, which: impl Fn(&Checkpoint) -> bool) -> bool {
        self.0.is_none_or(which)
    }

    fn live(&self, which: impl Fn(&LiveTask) -> bool) -> bool {
        self.any(|cp| lives(cp).any(|(_, l)| which(l)))
    }

    fn vma(&self, which: impl Fn(&Vma) -> bool) -> bool {
        self.live(|l| l.mm.vmas.iter().any(&which))
    }

    fn creds(&self, which: impl Fn(&Creds) -> bool) -> bool {
        self.live(|l| {
            l.threads
                .iter()
                .filter_map(|t| t.creds.as_ref())
                .any(&which)
        })
    }

    /// Is SHMLBA enforced, does the data cache alias?
    pub fn colours(&self) -> bool {
        self.any(|cp| !cp.segments.is_empty())
    }

    /// May SysV ids be chosen, and what are the limits of the IPC namespace?
    pub fn ipc(&self) -> bool {
        self.any(|cp| {
            !cp.segments.is_empty()
                || !cp.semaphores.is_empty()
                || !cp.queues.is_empty()
                || cp.ipc_limits.is_some()
        })
    }

    /// Which advice does `madvise` take?
    pub fn advice(&self) -> bool {
        self.vma(|v| v.madv != 0) || self.live(|l| !l.mm.guards.is_empty())
    }

    /// Sizes of huge pages.
    pub fn huge_pages(&self) -> bool {
        self.vma(|v| v.hugetlb.is_some())
    }

    /// How are POSIX timers numbered?
    pub fn timers(&self) -> bool {
        self.live(|l| !l.posix_timers.is_empty())
    }

    /// Can unread expiries of timer descriptors be set?
    pub fn timerfd_ticks(&self) -> bool {
        self.any(|cp| cp.files.values().any(|f| matches!(f, File::Timerfd(_))))
    }

    /// May we make time namespaces?
    pub fn timens(&self) -> bool {
        self.any(|cp| cp.clocks.is_some())
    }

    /// `vm.max_map_count`.
    pub fn map_count(&self) -> bool {
        self.live(|l| l.mm.vmas.len() >= ALWAYS_ALLOWED)
    }

    /// The mappings of our user namespace, and whether groups may be set in it: not for who is who it was.
    pub fn id_maps(&self, own: &Rights) -> bool {
        self.creds(|c| {
            let sorted = |g: &[u32]| {
                let mut g = g.to_vec();
                g.sort_unstable();
                g
            };
            ([c.uid, c.euid, c.suid], c.fsuid) != (own.uids, own.fsuid)
                || ([c.gid, c.egid, c.sgid], c.fsgid) != (own.gids, own.fsgid)
                || sorted(&c.groups) != sorted(&own.groups)
        })
    }

    /// May a nice value be lowered, and a real-time policy be taken: for whoever has another than ours.
    pub fn nice(&self, own_nice: i32, own_sched: (u32, u32)) -> bool {
        self.live(|l| {
            l.threads.iter().any(|t| {
                t.sched.is_some_and(|s| s != own_sched && s.0 != 0)
                    || t.nice.is_some_and(|n| n < own_nice)
            })
        })
    }

    /// The highest capability that the kernel knows: not if ours go as high as the checkpoint's.
    pub fn last_cap(&self, own_bounding: u64) -> bool {
        self.creds(|c| {
            let sets = c.cap_bnd | c.cap_eff | c.cap_prm | c.cap_inh | c.cap_amb;
            sets.checked_ilog2() > own_bounding.checked_ilog2()
        })
    }
}
