//! Unix sockets and terminals under the emulator: what it can show of the samples `sockets` and `tty`.

mod common;

use common::{Scratch, provable};

/// The sample judges itself.
#[test]
fn sockets() {
    if !provable("sockets") {
        return;
    }
    let s = Scratch::new("sockets");
    let done = s.judged();
    let wrong = done.fails();
    assert!(wrong.is_empty(), "{wrong:?}");
    done.passed();
    // Nothing of ours is left beside it.
    let dir = s.root().join("samples/run/sockets");
    let names = std::fs::read_dir(dir).unwrap();
    let names: Vec<String> = names
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.iter().any(|n| n.contains("armrest")), "{names:?}");
}

/// The sample fails here by itself in one thing: tcgetsid (`docs/emulator.md`).
#[test]
fn tty() {
    if !provable("tty") {
        return;
    }
    let s = Scratch::new("tty");
    let done = s.judged();
    let others: Vec<&str> = done
        .fails()
        .into_iter()
        .filter(|l| !l.contains("getsid") && *l != "FAIL 1")
        .collect();
    assert!(others.is_empty() && !done.log.is_empty(), "{done:?}");
}
