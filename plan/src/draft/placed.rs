//! The plan of a task whose area has its place.

use std::cmp::Reverse;
use std::rc::Rc;

use armrest_abi::{Range, Rseq, want};

use super::Sketch;
use super::fields::mm_map;
use super::room::no_room;
use crate::machine::Machine;
use crate::space::Space;
use crate::types::{Plan, Refusals, SourceKind};
use crate::whole::Made;
use crate::{consts, finish, shm, threads};

impl Sketch<'_> {
    /// The first number above all its helper descriptors; the executable's is given out later.
    pub(crate) fn helpers_end(&self) -> u32 {
        self.draft.next_fd + u32::from(self.draft.sets_mm())
    }

    /// The plan with its area in `room`. `machine` is as the task finds it, others' areas included.
    pub(crate) fn finish(
        self,
        room: Range,
        machine: &Machine,
        made: &Made,
    ) -> Result<Plan, Refusals> {
        let Sketch {
            mut draft,
            mut tables,
            exit,
            leaves,
            ..
        } = self;
        draft.machine = machine;
        let (live, options) = (draft.live, draft.whole.options);
        let vmas = &live.mm.vmas;
        let mut refuse = Vec::new();
        let area = draft
            .area(room, self.args)
            .ok_or_else(|| Refusals(vec![no_room()]))?;
        // Nothing but the places of attachments depends on it.
        let mut space = match draft.cp.segments.is_empty() {
            true => Space::new(0, 0),
            false => draft.spaces().1,
        };
        space.take(area.all);
        let facts = shm::ShmFacts {
            space: &space,
            tight: &draft.before_other_memory(&area),
            vmas,
            task_size: draft.machine.task_size,
            own: &[&[area.all][..], &draft.own_kept()].concat(),
            may_ask: &|base| base.is_multiple_of(consts::SHMLBA) || !draft.machine.shmlba_enforced,
            cache_aliases: draft.machine.cache_aliases,
            shmlba_enforced: draft.machine.shmlba_enforced,
        };
        let shm_plan = shm::plan_shm(draft.cp, &facts, &mut tables, &mut refuse);
        shm::protects(&shm_plan.attached, vmas, &mut tables);
        // From the top down, as they are mapped: a kernel splits mappings cheapest that way.
        tables.protects.sort_by_key(|p| Reverse(p.start));
        draft.warnings.extend(shm_plan.warnings);
        tables.unmaps = draft.unmaps(&area);
        draft.count_maps(&tables, &mut refuse);

        let exe_fd = if draft.sets_mm() {
            Some(draft.source(SourceKind::Exe { file: live.mm.exe }))
        } else {
            None
        };
        tables.closes = draft.sources.iter().map(|s| s.fd).collect();
        let mut want_bits = draft.wants() | self.want;
        tables.threads[0].frame = area.keep.start + armrest_abi::FRAME_OFFSET;
        threads::stacks(&mut tables.threads, area.threads, options.blob.thread_stack);
        draft.say_what_is_missing();
        let grow_brk = draft.grow_brk();
        threads::leave(&mut tables.threads, &leaves, exit, &mut refuse);
        let dumpable = live.mm.dumpable.unwrap_or(1);
        want_bits |= want::DUMPABLE;
        if dumpable >= 2 {
            draft
                .notes
                .push("dumpable 2 cannot be set by a program: it is 0".into());
        }
        if !refuse.is_empty() {
            return Err(Refusals(refuse));
        }
        let pages = live.pages.runs.iter().map(|r| u64::from(r.pages)).sum();
        // What is true of the whole is said once.
        if draft.index == 0 {
            draft.notes.extend(made.notes());
            draft.notes.extend(draft.whole.inherited.notes.clone());
        }
        let legacy = draft.whole.inherited.tasks.get(&draft.index);
        let legacy = legacy.cloned().unwrap_or_default();
        draft.notes.extend(legacy.note());
        Ok(Plan {
            task: draft.index,
            ipc: Rc::clone(&made.ipc),
            area,
            scratch: shm_plan.scratch.into_iter().collect(),
            tables,
            want: want_bits,
            old_rseq: draft
                .machine
                .own_rseq
                .map_or(Rseq::default(), |(addr, len, sig)| Rseq { addr, len, sig }),
            dumpable: if dumpable == 1 { 1 } else { 0 },
            mm: mm_map(&live.mm.fields, exe_fd),
            auxv: live.mm.auxv.clone(),
            frames: self.frames,
            last_pid_fd: self.last_pid_fd,
            report_fd: self.report_fd,
            sources: draft.sources,
            files: Rc::clone(&made.files),
            clocks: made.clocks,
            grow_brk,
            exit,
            stay: draft.kernel.stay,
            traced: self.traced,
            stop: draft.cp.tasks.get(draft.index).and_then(finish::stops),
            pages,
            lazy: self.lazy,
            legacy,
            notes: draft.notes,
            warnings: draft.warnings,
        })
    }
}
