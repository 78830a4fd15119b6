//! The kernel's fields of an address space, and what a kernel can set of what it keeps about a task.

use armrest_abi::{MmMap, Range, want};

use super::Draft;
use crate::mm;

impl Draft<'_> {
    /// The kernel's mm fields can be set in one way or the other.
    pub(super) fn sets_mm(&self) -> bool {
        mm::way(self.live, self.machine) != 0
    }

    pub(super) fn wants(&self) -> u32 {
        let m = self.machine;
        let mut w = 0;
        if m.own_rseq.is_some() {
            w |= want::OLD_RSEQ;
        }
        if m.has_robust_list {
            w |= want::OLD_ROBUST;
        }
        w |= mm::way(self.live, m);
        if self.live.mm.thp_disabled && m.has_thp_disable {
            w |= want::THP_DISABLE;
        }
        if self.whole.gated() {
            w |= want::GATE;
        }
        w
    }

    /// Without the kernel's mm fields: our own break is moved to the checkpoint's, if nothing of ours is in the way.
    pub(super) fn grow_brk(&self) -> Option<u32> {
        let (m, brk) = (self.machine, self.live.mm.fields[5]);
        let between = Range {
            start: m.own_brk,
            end: brk,
        };
        let free = !m
            .maps
            .iter()
            // Our own heap begins below its break; that it reaches a page beyond says only that it shrank since.
            .any(|o| o.range.start >= m.own_brk && Range::from(o.range).overlaps(between));
        (!self.sets_mm() && m.own_brk > 0 && brk >= m.own_brk && free).then_some(brk)
    }

    /// What this kernel lacks and the checkpoint had: said, never hidden.
    pub(super) fn say_what_is_missing(&mut self) {
        let m = self.machine;
        let threads = &self.live.threads;
        let mut lost = Vec::new();
        if threads.iter().any(|t| t.robust.1 != 0) && !m.has_robust_list {
            lost.push("the robust futex list");
        }
        if threads.iter().any(|t| t.rseq.is_some_and(|r| r.0 != 0)) && !m.has_rseq {
            lost.push("the rseq registration");
        }
        if !self.sets_mm() {
            lost.push("the kernel's mm fields (PR_SET_MM_MAP)");
        }
        if !lost.is_empty() {
            self.notes
                .push(format!("not here, so left out: {}", lost.join(", ")));
        }
        if mm::way(self.live, m) == want::MM_SINGLES {
            self.notes
                .push("the kernel's mm fields are set one by one (no PR_SET_MM_MAP)".into());
        }
        if !self.sets_mm() && self.grow_brk().is_none() {
            let brk = self.live.mm.fields[5];
            let state = if brk < m.own_brk {
                "sbrk() would return memory that is not mapped"
            } else {
                "sbrk() does not continue the heap"
            };
            self.notes.push(format!(
                "the break {brk:08x} cannot be set here: after the restore {state}"
            ));
        }
    }
}

pub(super) fn mm_map(f: &[u32; 11], exe_fd: Option<u32>) -> MmMap {
    let at = |i: usize| u64::from(f[i]);
    MmMap {
        start_code: at(0),
        end_code: at(1),
        start_data: at(2),
        end_data: at(3),
        start_brk: at(4),
        brk: at(5),
        start_stack: at(6),
        arg_start: at(7),
        arg_end: at(8),
        env_start: at(9),
        env_end: at(10),
        auxv: 0,
        auxv_size: 0,
        exe_fd: exe_fd.unwrap_or(u32::MAX),
        pad: 0,
    }
}
