//! SysV attachments that no dumper writes today: holes in the head, middle and tail, attachments that begin at an
//! offset, strangers living in a hole. The checkpoints are made from `sysvsplit` by editing its images; each test says
//! which VMA was cut. Checked by what the kernel lists and holds after the restore, and by the program's own verdict
//! where it can give one; and against the calls that `armrest plan --json` shows.
//!
//! The derived checkpoints are in `tools/derived`; the machine's tests restore the same ones.

mod common;

use common::{Done, Memory, Running, Scratch, Setup, look, provable};
use derived::{CHOSEN, HEAD, MIDDLE, OVERLAPPING, PG, TAIL, contents, pattern};
use serde_json::Value;

/// A copy of the sample, changed.
fn derived(name: &str) -> Scratch {
    let d = derived::named(name);
    let s = Scratch::new(d.of);
    d.change(&s.images()).expect("the mark");
    s
}

/// The plan's calls with this name, in order: their arguments.
fn calls(s: &Scratch, name: &str) -> Vec<Vec<u64>> {
    let (code, out, err) = look(&[
        "plan",
        "-D",
        s.images().to_str().unwrap(),
        "--new-namespaces",
        "--json",
    ]);
    assert_eq!(code, Some(0), "{err}");
    let plan: Value = serde_json::from_str(&out).expect("JSON");
    let all = plan["calls"].as_array().expect("calls").iter();
    let ours = all.filter(|c| c["name"] == name && c["step"] == "shm");
    ours.map(|c| {
        c["args"]
            .as_array()
            .unwrap()
            .iter()
            .map(|a| a.as_u64().unwrap())
            .collect()
    })
    .collect()
}

/// `(length, target)` of the moves, and the lengths of the holes unmapped.
fn moves_and_holes(s: &Scratch) -> (Vec<(u64, u64)>, Vec<u64>) {
    let moves = calls(s, "mremap").iter().map(|a| (a[1], a[4])).collect();
    let holes = calls(s, "munmap").iter().map(|a| a[1]).collect();
    (moves, holes)
}

/// The plan moves `all` pieces, these among them, and unmaps holes of these lengths.
#[track_caller]
fn moved(s: &Scratch, some: &[(u64, u64)], all: usize, gone: &[u64]) {
    let (moves, holes) = moves_and_holes(s);
    assert!(
        some.iter().all(|m| moves.contains(m)) && moves.len() == all,
        "{moves:x?}"
    );
    assert_eq!(holes, gone);
}

/// What the restored program has.
fn memory(run: &Running<'_>) -> Memory {
    Memory::of(run.task(136), "samples/bin/sysvsplit", 0x1_0000)
}

/// What every variant keeps: segments 1 and 2, with rights and ids.
const OTHERS: [(u64, u64, &str, u64, u64); 3] = [
    (0xb6ee_5000, 0xb6ee_8000, "rw-s", 0, 2),
    (0xb6ef_f000, 0xb6f0_1000, "r--s", 0, 1),
    (0xb6f1_5000, 0xb6f1_7000, "rw-s", 0, 1),
];

/// Restores, compares the parts of segments with `expected` (neighbours with equal rights may be one), lets `more` look
/// at the memory, ends the program.
fn restored(
    s: &Scratch,
    expected: &[(u64, u64, &str, u64, u64)],
    more: impl FnOnce(&Memory),
) -> Done {
    let (run, memory) = started(s, expected);
    more(&memory);
    run.term()
}

/// Restores and compares as `restored` does; the program runs on.
fn started<'a>(s: &'a Scratch, expected: &[(u64, u64, &str, u64, u64)]) -> (Running<'a>, Memory) {
    let mut run = s.start_with(&Setup::default(), &[]);
    run.restored();
    let memory = memory(&run);
    assert_eq!(memory.sysv(), expected);
    (run, memory)
}

fn with_others(
    own: &[(u64, u64, &'static str, u64, u64)],
) -> Vec<(u64, u64, &'static str, u64, u64)> {
    let mut all = [&OTHERS[..], own].concat();
    all.sort_unstable();
    all
}

/// The program reads the hole when it checks itself, and that is its end: SIGSEGV, because nothing is there.
#[track_caller]
fn died_of_the_hole(done: &Done) {
    assert_eq!(done.code, Some(128 + libc::SIGSEGV), "{done:?}");
    assert!(!done.log.contains("PASS"), "{done:?}");
}

/// Cut: the first VMA of segment 0's attachment (b6f2d000). What is left begins at offset 0x2000.
#[test]
fn a_hole_in_the_head() {
    if !provable("SysV: a hole in the head") {
        return;
    }
    let s = derived("hole-in-head");
    moved(&s, &[(0x2000, MIDDLE), (0x2000, TAIL)], 5, &[0x2000]);
    let expected = with_others(&[
        (MIDDLE, MIDDLE + 0x2000, "r--s", 0x2000, 0),
        (TAIL, TAIL + 0x2000, "rw-s", 0x4000, 0),
    ]);
    let done = restored(&s, &expected, |m| {
        assert_eq!(m.read(MIDDLE, 4 * 4096), contents(2, 4))
    });
    died_of_the_hole(&done);
}

/// Cut: the second VMA of segment 0's attachment (b6f2f000).
#[test]
fn a_hole_in_the_middle() {
    if !provable("SysV: a hole in the middle") {
        return;
    }
    let s = derived("hole-in-middle");
    moved(&s, &[(0x2000, HEAD), (0x2000, TAIL)], 5, &[0x2000]);
    let expected = with_others(&[
        (HEAD, HEAD + 0x2000, "rw-s", 0, 0),
        (TAIL, TAIL + 0x2000, "rw-s", 0x4000, 0),
    ]);
    let done = restored(&s, &expected, |m| {
        assert_eq!(
            (m.read(HEAD, 2 * 4096), m.read(TAIL, 2 * 4096)),
            (contents(0, 2), contents(4, 2))
        );
    });
    died_of_the_hole(&done);
}

/// Cut: the last page of the third VMA of segment 0's attachment (b6f32000).
#[test]
fn a_hole_in_the_tail() {
    if !provable("SysV: a hole in the tail") {
        return;
    }
    let s = derived("hole-in-tail");
    moved(&s, &[(0x1000, TAIL)], 6, &[0x1000]);
    let expected = with_others(&[
        (HEAD, MIDDLE, "rw-s", 0, 0),
        (MIDDLE, TAIL, "r--s", 0x2000, 0),
        (TAIL, TAIL + PG, "rw-s", 0x4000, 0),
    ]);
    let done = restored(&s, &expected, |m| {
        assert_eq!(m.read(HEAD, 5 * 4096), contents(0, 5))
    });
    died_of_the_hole(&done);
}

/// Cut: head, middle and tail at once, one page each (b6f2d000, b6f30000, b6f32000).
#[test]
fn holes_everywhere() {
    if !provable("SysV: holes everywhere") {
        return;
    }
    let s = derived("holes-everywhere");
    assert_eq!(moves_and_holes(&s).1, [0x1000; 3]);
    let expected = with_others(&[
        (HEAD + PG, MIDDLE, "rw-s", 0x1000, 0),
        (MIDDLE, MIDDLE + PG, "r--s", 0x2000, 0),
        (TAIL, TAIL + PG, "rw-s", 0x4000, 0),
    ]);
    let done = restored(&s, &expected, |m| {
        assert_eq!(
            (m.read(HEAD + PG, 2 * 4096), m.read(TAIL, 4096)),
            (contents(1, 2), contents(4, 1))
        );
    });
    died_of_the_hole(&done);
}

/// Cut: the first page of the read-write attachment of segment 1 (b6f15000): a single VMA that begins at an offset.
/// Its other attachment is whole, and they still share their pages.
#[test]
fn an_attachment_at_an_offset() {
    if !provable("SysV: an attachment at an offset") {
        return;
    }
    let s = derived("at-an-offset");
    moved(&s, &[(0x1000, 0xb6f1_6000)], 6, &[0x1000]);
    let expected = [
        OTHERS[0],
        OTHERS[1],
        (0xb6f1_6000, 0xb6f1_7000, "rw-s", 0x1000, 1),
        (HEAD, MIDDLE, "rw-s", 0, 0),
        (MIDDLE, TAIL, "r--s", 0x2000, 0),
        (TAIL, TAIL + 0x2000, "rw-s", 0x4000, 0),
    ];
    let done = restored(&s, &expected, |m| {
        assert_eq!(m.read(0xb6f1_6000, 4096), pattern(4, 8192)[4096..]);
        assert_eq!(m.read(0xb6ef_f000, 8192), pattern(4, 8192));
    });
    died_of_the_hole(&done);
}

/// Cut: the second VMA of segment 0's attachment (b6f2f000), and private memory with the same contents put there. The
/// program finds everything as it was, but that its attachment has two pieces instead of three: that one line it says.
#[test]
fn a_stranger_in_the_hole() {
    if !provable("SysV: a stranger in a hole") {
        return;
    }
    let s = derived("stranger");
    let expected = with_others(&[
        (HEAD, MIDDLE, "rw-s", 0, 0),
        (TAIL, TAIL + 0x2000, "rw-s", 0x4000, 0),
    ]);
    let done = restored(&s, &expected, |m| {
        assert_eq!(m.read(HEAD, 6 * 4096), contents(0, 6));
        let stranger = m
            .maps
            .iter()
            .find(|m| m.start <= MIDDLE && MIDDLE < m.end)
            .expect("the stranger");
        assert_eq!(&stranger.perms[3..], "p", "{stranger:?}");
    });
    let fails = done.fails();
    assert!(
        fails.len() == 2 && fails[0].ends_with("nattch of three pieces: 2") && fails[1] == "FAIL 1",
        "{done:?}"
    );
    assert_eq!(done.code, Some(1));
}

/// Aligned, with a hole where nobody lives (cut: the second VMA, now at b6f2e000): attached directly, then unmapped.
#[test]
fn an_aligned_attachment_with_a_hole() {
    if !provable("SysV: an aligned attachment with a hole") {
        return;
    }
    let s = derived("aligned-hole");
    let attach = calls(&s, "shmat");
    assert!(
        attach.iter().any(|a| a[..3] == [0, HEAD - PG, 0o40000]),
        "asked for directly: {attach:x?}"
    );
    let (moves, holes) = moves_and_holes(&s);
    assert_eq!((moves.len(), holes), (3, vec![0x2000]));
    let expected = with_others(&[
        (HEAD - PG, MIDDLE - PG, "rw-s", 0, 0),
        (TAIL - PG, TAIL + PG, "rw-s", 0x4000, 0),
    ]);
    let (_run, memory) = started(&s, &expected);
    assert_eq!(
        (memory.read(HEAD - PG, 8192), memory.read(TAIL - PG, 8192)),
        (contents(0, 2), contents(4, 2))
    );
}

/// Aligned, with a stranger in the hole (cut: the second VMA, now at b6f2e000): a direct attach would need the whole
/// range, so this one goes through the scratch range too, and the stranger keeps its contents.
#[test]
fn an_aligned_attachment_with_a_stranger() {
    if !provable("SysV: an aligned attachment with a stranger in its hole") {
        return;
    }
    let s = derived("aligned-stranger");
    let mine = pattern(77, 8192);
    moved(
        &s,
        &[(0x2000, HEAD - PG), (0x2000, TAIL - PG)],
        5,
        &[0x2000],
    );
    let expected = with_others(&[
        (HEAD - PG, MIDDLE - PG, "rw-s", 0, 0),
        (TAIL - PG, TAIL + PG, "rw-s", 0x4000, 0),
    ]);
    let (_run, memory) = started(&s, &expected);
    assert_eq!(
        memory.read(HEAD - PG, 6 * 4096),
        [contents(0, 2), mine, contents(4, 2)].concat()
    );
}

/// Segment 0 where a kernel that chooses would attach it too, nearly: the move would overlap its own target.
#[test]
fn an_attachment_above_the_place_of_the_kernels_choice() {
    if !provable("SysV: a target that the kernel's choice overlaps") {
        return;
    }
    let s = derived("own-target");
    let at = OVERLAPPING;
    let (moves, holes) = moves_and_holes(&s);
    assert!(
        [0, 2, 4]
            .iter()
            .all(|p| moves.contains(&(0x2000, at + p * PG)))
            && holes.is_empty(),
        "{moves:x?} {holes:x?}"
    );
    let expected = with_others(&[
        (at, at + 2 * PG, "rw-s", 0, 0),
        (at + 2 * PG, at + 4 * PG, "r--s", 0x2000, 0),
        (at + 4 * PG, at + 6 * PG, "rw-s", 0x4000, 0),
    ]);
    let (_run, memory) = started(&s, &expected);
    assert_eq!(memory.read(at, 6 * 4096), contents(0, 6));
}

/// Private memory where a kernel that chooses would attach segment 0. The program knows nothing of it, and all that it
/// does know is as it was.
#[test]
fn a_stranger_at_the_place_of_the_kernels_choice() {
    if !provable("SysV: a stranger where the kernel would attach") {
        return;
    }
    let s = derived("others-target");
    let expected = with_others(&[
        (HEAD, MIDDLE, "rw-s", 0, 0),
        (MIDDLE, TAIL, "r--s", 0x2000, 0),
        (TAIL, TAIL + 0x2000, "rw-s", 0x4000, 0),
    ]);
    let done = restored(&s, &expected, |m| {
        assert_eq!(m.read(CHOSEN, 9 * 4096), pattern(78, 9 * 4096));
    });
    done.passed();
}
