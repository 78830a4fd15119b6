//! `--lazy`: what is mapped from the pages files, and what must not be.

mod common;

use armrest_images::{Checkpoint, PageRun, Vma};
use armrest_plan::model::{Model, Trouble, emulator, machine, prove};
use armrest_plan::{Options, Plan, SourceKind, plan};
use common::*;
use proptest::prelude::*;

const BASE: u32 = 0x1000_0000;
const READ_WRITE: u32 = 3;

fn lazily() -> Options {
    Options {
        lazy: true,
        ..options()
    }
}

fn run(addr: u32, pages: u32, offset_pages: u64) -> PageRun {
    page_run(addr.into(), pages, offset_pages * PAGE64)
}

fn proved(cp: &Checkpoint) -> (Plan, Model) {
    let p = plan(cp, &machine(), &lazily()).unwrap();
    let m = prove(cp, &machine(), &p, Trouble::default()).unwrap();
    (p, m)
}

/// Mappings of pages files that the plan makes: start, bytes, rights, first page in the file.
fn from_pages(p: &Plan) -> Vec<(u32, u32, u32, u64)> {
    let of = |fd: i32| {
        p.sources
            .iter()
            .any(|s| i32::try_from(s.fd) == Ok(fd) && matches!(s.what, SourceKind::Pages(_)))
    };
    let maps = p.tables.maps.iter().filter(|m| of(m.fd));
    let mut found: Vec<_> = maps
        .map(|m| (m.start, m.len, m.prot, m.page_offset))
        .collect();
    found.sort_unstable();
    found
}

/// One VMA of 100 pages with contents in pages 10 to 89, and one small run in the file before them.
fn one(change: impl Fn(&mut Vma)) -> Checkpoint {
    let mut vma = anon(BASE, 100, READ_WRITE);
    change(&mut vma);
    checkpoint(
        vec![anon(0x2_0000, 4, READ_WRITE), vma],
        Vec::new(),
        vec![run(0x2_0000, 3, 0), run(BASE + 10 * 4096, 80, 3)],
    )
}

#[test]
fn a_long_run_is_mapped_where_it_lies_and_short_ones_are_read() {
    let cp = one(|_| ());
    let (p, m) = proved(&cp);
    assert_eq!(
        from_pages(&p),
        [(BASE + 10 * 4096, 80 * 4096, READ_WRITE, 3)]
    );
    assert_eq!((p.lazy, p.pages), (80, 83));
    // Three pages were read, into the other VMA.
    assert_eq!(m.written.len(), 3);
    assert!(
        p.notes.iter().any(|n| n.contains("pages-0.img")),
        "{:?}",
        p.notes
    );
    // Without the option nothing of it is mapped.
    let eager = plan(&cp, &machine(), &options()).unwrap();
    assert_eq!((from_pages(&eager).len(), eager.lazy), (0, 0));
}

#[test]
fn rights_are_the_checkpoints() {
    for prot in [0, 1, READ_WRITE] {
        let (p, m) = proved(&one(|v| v.prot = prot));
        assert_eq!(from_pages(&p), [(BASE + 10 * 4096, 80 * 4096, prot, 3)]);
        let area = m.areas[&(BASE + 10 * 4096)];
        assert!(!area.shared && area.may_write, "{area:?}");
        assert!(p.tables.protects.is_empty(), "{:?}", p.tables.protects);
    }
}

#[test]
fn what_must_stay_anonymous_is_read() {
    type Change = fn(&mut Vma);
    let changes: [(&str, Change); 7] = [
        ("a stack", |v| v.grows_down = true),
        ("the heap", |v| v.heap = true),
        ("locked memory", |v| v.locked = true),
        ("advised memory", |v| v.madv = 1 << 18),
        ("code", |v| v.prot = 5),
        ("writable code", |v| v.prot = 7),
        ("a private mapping of a file", |v| {
            v.kind = armrest_images::VmaKind::File { file: 1 }
        }),
    ];
    for (what, change) in changes {
        let (p, m) = proved(&one(change));
        assert_eq!(from_pages(&p), [], "{what}");
        assert_eq!((p.lazy, m.written.len()), (0, 83), "{what}");
        assert!(
            p.notes.iter().any(|n| n.contains("all were read")),
            "{what}"
        );
    }
}

#[test]
fn a_run_over_several_mappings_is_divided() {
    let mut stack = anon(BASE + 64 * 4096, 32, READ_WRITE);
    stack.madv = 1 << 14;
    let cp = checkpoint(
        vec![
            anon(BASE, 64, READ_WRITE),
            stack,
            anon(BASE + 96 * 4096, 8, 1),
            anon(BASE + 104 * 4096, 20, 1),
        ],
        Vec::new(),
        vec![run(BASE, 124, 7)],
    );
    let (p, m) = proved(&cp);
    assert_eq!(
        from_pages(&p),
        [
            (BASE, 64 * 4096, READ_WRITE, 7),
            (BASE + 104 * 4096, 20 * 4096, 1, 7 + 104),
        ]
    );
    assert_eq!(m.written.len(), 40);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_end_is_the_checkpoint(cp in checkpoints(), machine in machines()) {
        let p = plan(&cp, &machine, &lazily()).unwrap();
        prove(&cp, &machine, &p, Trouble::default()).unwrap();
    }

    #[test]
    fn any_run_in_any_of_three_mappings(start in 0u32..200, pages in 1u32..200, cut in 1u32..100, prot in 0u32..4) {
        let vmas = vec![
            anon(BASE, cut, prot),
            anon(BASE + cut * 4096, 150, READ_WRITE),
            anon(BASE + (cut + 150) * 4096, 250, prot),
        ];
        let cp = checkpoint(vmas, Vec::new(), vec![run(BASE + start * 4096, pages, 5)]);
        for machine in [machine(), emulator()] {
            let p = plan(&cp, &machine, &lazily()).unwrap();
            let m = prove(&cp, &machine, &p, Trouble::default()).unwrap();
            prop_assert_eq!(u64::from(pages), p.lazy + u64::try_from(m.written.len()).unwrap());
            prop_assert!(pages < 48 || p.lazy > 0);
        }
    }
}
