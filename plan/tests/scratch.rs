//! Room for moving SysV attachments where there is next to none.

mod common;

use armrest_images::{Checkpoint, Vma};
use armrest_plan::model::machine;
use armrest_plan::model::{Trouble, prove};
use armrest_plan::plan;
use common::{anon, checkpoint, options, segment, sysv};

/// The attachment: 256 pages off SHMLBA.
const BASE: u32 = 0x8000_1000;
const PAGES: u32 = 256;
/// A hole of 128 pages for the bootstrap area; there is no other.
const HOLE: u32 = 0x4000_0000;

/// Reserved memory over the whole address space but for the attachments and the hole.
fn full(mut attachments: Vec<Vma>) -> Checkpoint {
    let segments = [1, 2].map(|id| segment(id, PAGES));
    let mut vmas = Vec::new();
    let mut at = 0x1_0000;
    attachments.sort_by_key(|v| v.range.start());
    let taken = attachments
        .iter()
        .map(|v| (v.range.start(), v.range.end()))
        .chain([(HOLE, HOLE + 128 * 4096)]);
    let mut taken: Vec<(u32, u32)> = taken.chain([(0xbf00_0000, 0xbf00_0000)]).collect();
    taken.sort_unstable();
    for (start, end) in taken {
        if start > at {
            vmas.push(anon(at, (start - at) / 4096, 0));
        }
        at = end;
    }
    vmas.append(&mut attachments);
    checkpoint(vmas, segments.to_vec(), vec![])
}

#[test]
fn the_scratch_range_may_lie_where_memory_is_to_come() {
    let two = vec![
        sysv(1, BASE, 0, PAGES, 3, false),
        // Its own target is directly above the other.
        sysv(2, BASE + PAGES * 4096, 0, PAGES, 1, true),
    ];
    let cp = full(two);
    let machine = machine();
    let p = plan(&cp, &machine, &options()).unwrap();
    let [scratch] = p.scratch[..] else {
        panic!("{:?}", p.scratch)
    };
    let vmas = &cp.tasks[0].live.as_ref().unwrap().mm.vmas;
    let over: Vec<_> = vmas
        .iter()
        .filter(|v| v.range.start() < scratch.end && scratch.start < v.range.end())
        .collect();
    assert!(
        !over.is_empty() && over.iter().all(|v| v.prot == 0),
        "{scratch:x?}: {over:x?}"
    );
    // The steps end with the checkpoint's map, on the model of the kernel.
    prove(&cp, &machine, &p, Trouble::default()).unwrap();
}

#[test]
fn without_any_room_it_is_refused_by_name() {
    // Attachments take every place that is long enough.
    let step = PAGES * 4096;
    let count = (0xbf00_0000 - 0x1_1000) / step;
    let all: Vec<Vma> = (0..count)
        .map(|i| sysv(1 + i % 2, 0x1_1000 + i * step, 0, PAGES, 3, false))
        .filter(|v| v.range.start() >= HOLE + 128 * 4096 || v.range.end() <= HOLE)
        .collect();
    let refusals = plan(&full(all), &machine(), &options()).unwrap_err();
    assert!(
        refusals
            .0
            .iter()
            .any(|r| r.what.contains("no free range of 1048576 bytes")),
        "{refusals:?}"
    );
}
