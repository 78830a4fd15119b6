//! Room: what is taken when, the area and its parts, and what is unmapped.

use armrest_abi::{PAGE_SIZE, Range};
use armrest_images::VmaKind;

use super::{Draft, Sketch};
use crate::inherit::Kept;
use crate::machine::{OwnMap, STACK_ROOM};
use crate::shm;
use crate::space::{self, Space, page_up};
use crate::types::{Area, BlobSizes, Refusal, RefusalKind, Tables};

/// A gap between our own mappings at which the unmapping is cut in two.
const WIDE_GAP: u32 = 16 << 20;
/// The most cuts.
const MOST_CUTS: usize = 16;

impl Draft<'_> {
    /// What is taken by targets and by our own mappings: with elbow room for growing stacks and heaps, and without.
    pub(super) fn spaces(&self) -> (Space, Space) {
        let low = self.machine.mmap_min_addr.max(0x1_0000);
        let mut hard = Space::new(low, self.machine.task_size);
        for m in &self.machine.maps {
            hard.take(m.reach(512 * PAGE_SIZE));
        }
        for v in &self.live.mm.vmas {
            // The kernel keeps a guard gap of 256 pages below a growing stack.
            let below = if v.grows_down { 257 * PAGE_SIZE } else { 0 };
            hard.take(Range {
                start: v.range.start().saturating_sub(below),
                end: v.range.end(),
            });
        }
        if let Some(parking) = self.kernel.parking {
            hard.take(parking);
        }
        for a in shm::attachments(self.cp, &self.live.mm.vmas) {
            hard.take(Range {
                start: a.base,
                end: a.base.saturating_add(a.len),
            });
        }
        let mut soft = hard.clone();
        for m in &self.machine.maps {
            soft.take(m.reach(STACK_ROOM));
        }
        for v in &self.live.mm.vmas {
            if v.grows_down {
                soft.take(Range {
                    start: v.range.start().saturating_sub(16 << 20),
                    end: v.range.end(),
                });
            } else if v.heap {
                soft.take(Range {
                    start: v.range.start(),
                    end: v.range.end().saturating_add(64 << 20),
                });
            }
        }
        (soft, hard)
    }

    /// What our own mappings take, if that is known to be all until the unmap: a task of a tree inherits memory, and a
    /// break may be moved first.
    pub(super) fn own_space(&self) -> Option<Space> {
        let alone = self.cp.tasks.len() == 1 && self.sets_mm() && !self.machine.emulated;
        alone.then(|| {
            let low = self.machine.mmap_min_addr.max(0x1_0000);
            let mut space = Space::new(low, self.machine.task_size);
            for m in &self.machine.maps {
                space.take(m.reach(512 * PAGE_SIZE));
            }
            space
        })
    }

    /// How long the area is, with so many bytes of arguments.
    pub(super) fn area_len(&self, blob: BlobSizes, args: u32) -> Option<u32> {
        [
            blob.rx,
            blob.rw,
            page_up(u64::from(blob.stack))?,
            page_up(u64::from(blob.heap))?,
            page_up(self.stacks(blob))?,
            args,
            PAGE_SIZE,
            self.gate(),
        ]
        .into_iter()
        .try_fold(0u32, u32::checked_add)
    }

    /// Bytes of the page that all tasks share that wait for each other, or for the harness.
    fn gate(&self) -> u32 {
        if self.whole.gated() { PAGE_SIZE } else { 0 }
    }

    /// Bytes of the stacks of threads.
    fn stacks(&self, blob: BlobSizes) -> u64 {
        self.live.threads.len().saturating_sub(1) as u64 * u64::from(blob.thread_stack)
    }

    /// The parts of the area, in `all`.
    pub(super) fn area(&self, all: Range, args: u32) -> Option<Area> {
        let blob = self.whole.options.blob;
        let mut at = all.start;
        let mut next = |len: u32| {
            let r = Range {
                start: at,
                end: at + len,
            };
            at = r.end;
            r
        };
        let rx = next(blob.rx);
        Some(Area {
            all,
            keep: Range {
                start: rx.start,
                end: rx.start + PAGE_SIZE,
            },
            rx,
            rw: next(blob.rw),
            stack: next(page_up(u64::from(blob.stack))?),
            heap: next(page_up(u64::from(blob.heap))?),
            threads: next(page_up(self.stacks(blob))?),
            args: next(args),
            progress: next(PAGE_SIZE),
            gate: next(self.gate()),
        })
    }

    /// Ranges that must survive the unmap: the kernel's own pages, and what the task holds.
    pub(super) fn own_kept(&self) -> Vec<Range> {
        self.kernel
            .parking
            .iter()
            .chain(&self.kernel.in_place)
            .copied()
            .chain(self.kept().iter().map(Kept::range))
            .collect()
    }

    /// What is taken while attachments are made: old memory is gone, and other memory of the checkpoint is yet to come.
    pub(super) fn before_other_memory(&self, area: &Area) -> Space {
        let low = self.machine.mmap_min_addr.max(0x1_0000);
        let mut space = Space::new(low, self.machine.task_size);
        space.take(area.all);
        for r in self.own_kept() {
            space.take(r);
        }
        for a in shm::attachments(self.cp, &self.live.mm.vmas) {
            space.take(Range {
                start: a.base,
                end: a.base.saturating_add(a.len),
            });
        }
        space
    }

    /// Everything below the end of the highest mapping of ours, without the area and without `[vectors]`.
    pub(super) fn unmaps(&self, area: &Area) -> Vec<Range> {
        let ours = |m: &&OwnMap| m.range.start < 0xffff_0000;
        let top = self
            .machine
            .maps
            .iter()
            .filter(ours)
            .map(|m| m.range.end)
            .max()
            .unwrap_or(0)
            .max(area.all.end);
        let whole = space::uncovered(
            Range {
                start: 0,
                // An emulator's own allocations may lie above what we saw; `[vectors]` must stay.
                end: if self.machine.emulated {
                    self.machine.task_size.min(0xffff_0000)
                } else {
                    top.min(self.machine.task_size)
                },
            },
            &[&[area.all][..], &self.own_kept()].concat(),
        );
        if self.machine.emulated {
            return whole;
        }
        // ARM kernels seem to flush the TLB page by page from the first to the last mapping of a munmap: 0.26 s in QEMU
        // for the 124 MiB from program to stack, 0.7 ms when cut there. So the ranges are cut where ours has wide
        // gaps; together they stay the same.
        let mut starts: Vec<u32> = Vec::new();
        let mut end = 0;
        let mut maps: Vec<Range> = self
            .machine
            .maps
            .iter()
            .filter(ours)
            .map(|m| m.range.into())
            .collect();
        maps.sort_by_key(|m| m.start);
        for m in maps {
            let gap = m.start.saturating_sub(end);
            if gap >= WIDE_GAP && starts.len() < MOST_CUTS {
                // What this program maps from here on lies at the upper end of the gap, if not at the lower.
                starts.extend([end + ((gap / 2) & !(PAGE_SIZE - 1)), m.start]);
            }
            end = end.max(m.end);
        }
        whole
            .into_iter()
            .flat_map(|range| {
                let mut at = range.start;
                let mut cut = Vec::new();
                for &start in starts.iter().filter(|&&s| range.start < s && s < range.end) {
                    cut.push(Range {
                        start: at,
                        end: start,
                    });
                    at = start;
                }
                cut.push(Range {
                    start: at,
                    end: range.end,
                });
                cut
            })
            .collect()
    }

    /// Refuse before ENOMEM would strike in the middle: targets, ours, and what splits need at the worst moment.
    pub(super) fn count_maps(&self, tables: &Tables, refuse: &mut Vec<Refusal>) {
        let special = self
            .live
            .mm
            .vmas
            .iter()
            .filter(|v| matches!(v.kind, VmaKind::SysV { .. }))
            .count();
        let need = self.live.mm.vmas.len().max(tables.maps.len() + special) + 8 + 3;
        let max = self.machine.max_map_count as usize;
        if need > max {
            refuse.push(Refusal {
                kind: RefusalKind::Machine,
                what: format!("{need} mappings are needed (targets, ours and splits), vm.max_map_count allows {max}"),
                hint: format!("sysctl -w vm.max_map_count={}", need.next_multiple_of(1024)),
            });
        }
    }
}

impl Sketch<'_> {
    /// Room for the area of a task that is alone.
    pub(crate) fn room(&self) -> Result<Range, Refusal> {
        let mut spaces = self.spaces.iter();
        spaces
            .find_map(|s| s.find(self.len, PAGE_SIZE))
            .ok_or_else(no_room)
    }
}

pub(super) fn no_room() -> Refusal {
    Refusal {
        kind: RefusalKind::Machine,
        what: "no free range for the bootstrap area".into(),
        hint: "the checkpoint and this program fill the address space".into(),
    }
}
