//! Descriptors of every kind, under the emulator: what it can show of the sample `files`.

mod common;

use common::{Scratch, provable};

/// The sample judges itself. Under qemu-user it fails in one thing without any checkpoint too (`docs/emulator.md`).
#[test]
fn files() {
    if !provable("files") {
        return;
    }
    let s = Scratch::new("files");
    let done = s.judged();
    let failed = done.fails();
    let others: Vec<_> = failed
        .iter()
        .filter(|l| !l.contains("SIGIO of descriptor") && **l != "FAIL 1")
        .collect();
    assert!(others.is_empty() && !done.log.is_empty(), "{done:?}");
    assert!(
        done.log.contains("PASS") || failed.contains(&"FAIL 1"),
        "{done:?}"
    );
    // Neither the dumper's name nor anything of ours is left.
    let dir = s.root().join("samples/run/files");
    let names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !names
            .iter()
            .any(|n| n.contains("remap") || n.contains("armrest")),
        "{names:?}"
    );
    assert!(
        !names.iter().any(|n| n == "gone" || n == "first"),
        "{names:?}"
    );
}
