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
    let mut run = s.start(&[]);
    run.restored();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let done = run.term();
    let wrong: Vec<&str> = done
        .log
        .lines()
        .filter(|l| l.starts_with("FAIL "))
        .collect();
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
    let mut run = s.start(&[]);
    run.restored();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let done = run.term();
    let wrong = done.log.lines().filter(|l| l.starts_with("FAIL "));
    let others: Vec<&str> = wrong
        .filter(|l| !l.contains("getsid") && *l != "FAIL 1")
        .collect();
    assert!(others.is_empty() && !done.log.is_empty(), "{done:?}");
}
