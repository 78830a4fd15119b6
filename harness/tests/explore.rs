//! `x`, `show` and `plan` on real checkpoints.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/images")
        .join(name)
}

fn armrest(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_armrest"))
        .args(args)
        .output()
        .expect("armrest runs")
}

fn text(args: &[&str]) -> String {
    let o = armrest(args);
    assert!(
        o.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&o.stderr)
    );
    String::from_utf8(o.stdout).expect("UTF-8")
}

fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&text(args)).expect("JSON")
}

#[test]
fn a_checkpoint_is_explored() {
    let dir = sample("counter");
    let dir = dir.to_str().expect("UTF-8");
    assert!(text(&["x", dir, "ps"]).contains("counter"));
    assert!(text(&["x", dir, "mems"]).contains("/samples/bin/counter"));
    assert!(text(&["x", dir, "fds"]).contains("/dev/null"));
    assert!(text(&["x", dir, "rss"]).contains("[stack]"));
    let ps = json(&["x", dir, "ps", "--json"]);
    assert_eq!(
        (&ps[0]["pid"], &ps[0]["comm"]),
        (&136.into(), &"counter".into())
    );
    for (what, list) in [("mems", "vmas"), ("fds", "fds"), ("rss", "vmas")] {
        let v = json(&["x", dir, what, "--json"]);
        assert!(
            v[0][list].as_array().is_some_and(|l| !l.is_empty()),
            "{what}"
        );
    }
}

#[test]
fn a_tree_is_shown_as_one() {
    let dir = sample("family");
    let shown = text(&["x", dir.to_str().expect("UTF-8"), "ps"]);
    // The name of each stands below its parent's.
    let depths: Vec<(&str, usize)> = shown
        .lines()
        .filter_map(|l| Some((l.split_whitespace().next()?, l.find("family")?)))
        .collect();
    let root = depths.first().expect("a root").1;
    assert_eq!(
        depths,
        [
            ("175", root),
            ("179", root + 2),
            ("180", root + 2),
            ("183", root + 4),
            ("181", root + 2),
            ("182", root + 2)
        ]
    );
    assert!(shown.contains("(zombie)"));
}

#[test]
fn an_image_is_shown() {
    let file = sample("counter").join("pstree.img");
    let v = json(&["show", "--json", file.to_str().expect("UTF-8")]);
    assert_eq!(v["magic"], "PSTREE");
    assert_eq!(v["entries"][0]["pid"], 136);
}

#[test]
fn a_plan_says_what_would_be_done() {
    if cfg!(target_arch = "arm") {
        // There the plan depends on what this machine permits: tests/ of the repository look at it.
        return;
    }
    let dir = sample("sysvshm");
    let dir = dir.to_str().expect("UTF-8");
    let text = text(&["plan", "-D", dir]);
    for word in [
        "Target map",
        "Bootstrap area",
        "Scratch areas",
        "Helper descriptors",
        "Calls",
        "shmat(",
        "made up",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(text.starts_with("Restoring pid "));
    let v = json(&["plan", "-D", dir, "--json"]);
    let calls = v["calls"].as_array().expect("calls");
    assert_eq!(v["call_count"], calls.len());
    assert_eq!(v["counts"]["shmat"], 7);
    assert_eq!(calls.last().expect("a call")["name"], "rt_sigreturn");
    assert!(json(&["plan", "-D", dir, "--json", "--summary"])["calls"].is_null());
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    // A checkpoint with something of a kind that is only named: a binary format's registration.
    let dir = tempfile::tempdir().expect("a folder");
    for e in std::fs::read_dir(sample("counter")).expect("the sample") {
        let e = e.expect("an entry");
        if e.path().is_file() {
            std::fs::copy(e.path(), dir.path().join(e.file_name())).expect("a copy");
        }
    }
    let words = [
        armrest_images::container::COMMON,
        armrest_images::magic::BPFMAP_FILE,
        0,
    ];
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    std::fs::write(dir.path().join("bpfmap-file.img"), bytes).expect("an image");
    let o = armrest(&["plan", "-D", dir.path().to_str().expect("UTF-8")]);
    assert_eq!(o.status.code(), Some(94));
    let text = String::from_utf8_lossy(&o.stderr).into_owned();
    assert!(
        text.contains("bpf maps: 1") && text.starts_with("armrest: plan: "),
        "{text}"
    );
}
