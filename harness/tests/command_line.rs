//! What a user sees of the command line: help that fits a screen, mistakes that are named, exit codes.

use std::process::{Command, Output};

fn armrest(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_armrest"))
        .args(args)
        .env("COLUMNS", "80")
        .output()
        .expect("armrest runs")
}

fn out(o: &Output) -> String {
    String::from_utf8(o.stdout.clone()).expect("UTF-8")
}

fn err(o: &Output) -> String {
    String::from_utf8(o.stderr.clone()).expect("UTF-8")
}

#[test]
fn every_help_fits_a_screen_and_has_examples() {
    for command in [
        None,
        Some("restore"),
        Some("plan"),
        Some("show"),
        Some("x"),
        Some("check"),
        Some("verify"),
        Some("clean"),
    ] {
        for flag in ["--help", "-h"] {
            let args: Vec<&str> = command.into_iter().chain([flag]).collect();
            let o = armrest(&args);
            let text = out(&o);
            assert!(o.status.success() && o.stderr.is_empty(), "{args:?}");
            assert!(
                text.lines().count() <= 24,
                "{args:?}: {} lines\n{text}",
                text.lines().count()
            );
            assert!(
                text.lines().all(|l| l.chars().count() <= 80),
                "{args:?}\n{text}"
            );
            assert!(text.contains("  armrest "), "no example: {text}");
        }
    }
}

/// The docs page has every option of restore, those too that its help has no room for.
#[test]
fn the_page_of_the_command_line_names_every_option() {
    use armrest::cli::RestoreOptions;
    use clap::Args;
    let page = include_str!("../../docs/cli.md");
    let restore = RestoreOptions::augment_args(clap::Command::new("restore"));
    for option in restore.get_arguments().filter_map(|a| a.get_long()) {
        // For tests alone.
        if option != "pretend-without" {
            assert!(page.contains(&format!("`--{option}")), "--{option}");
        }
    }
}

#[test]
fn help_of_restore_names_every_option() {
    let text = out(&armrest(&["restore", "--help"]));
    for option in [
        "-D, --images-dir",
        "-r, --root",
        "-d, --restore-detached",
        "--pidfile",
        "--new-namespaces",
        "--any-pid",
        "--any-ids",
        "--timeout",
        "-W, --work-dir",
        "-o, --log-file",
        "-v, --verbose",
        "--dry-run",
        "--status-fd",
        "--allow-changed",
        "--json",
        "-j, --shell-job",
        "--inherit-fd",
        "--external",
        "--finish",
    ] {
        assert!(text.contains(option), "{option} is not in\n{text}");
    }
}

#[test]
fn a_mistake_is_named_with_what_to_try() {
    for (args, word) in [
        (&["restore"][..], "--images-dir"),
        (&["restor"], "restor"),
        (&[], "subcommand"),
        (&["restore", "-D", "x", "--timeout", "0"], "--timeout"),
        (&["x", "/nowhere", "what"], "what"),
        (&["check", "--nonsense"], "--nonsense"),
    ] {
        let o = armrest(args);
        let text = err(&o);
        assert_eq!(o.status.code(), Some(2), "{args:?}");
        assert!(
            text.starts_with("armrest: usage: ") && text.contains(word),
            "{args:?}: {text}"
        );
        assert!(text.lines().all(|l| l.starts_with("armrest: ")), "{text}");
        assert!(text.ends_with("armrest: try: armrest --help\n"), "{text}");
        assert!(o.stdout.is_empty());
    }
}

#[test]
fn version_is_told() {
    assert_eq!(
        out(&armrest(&["--version"])),
        format!("armrest {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn missing_and_wrong_images_have_codes_of_their_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("UTF-8");
    for args in [
        &["plan", "-D", path][..],
        &["x", path, "ps"],
        &["show", &format!("{path}/pstree.img")],
    ] {
        let o = armrest(args);
        assert_eq!(o.status.code(), Some(80), "{args:?}: {}", err(&o));
        assert!(err(&o).starts_with("armrest: images: "), "{}", err(&o));
    }
    let file = dir.path().join("pstree.img");
    std::fs::write(&file, [0u8; 64]).expect("written");
    let o = armrest(&["show", file.to_str().expect("UTF-8")]);
    assert_eq!(o.status.code(), Some(82), "{}", err(&o));
}

#[test]
fn check_shows_a_table_and_json() {
    let o = armrest(&["check"]);
    assert!(o.status.success());
    let text = out(&o);
    for word in [
        "feature",
        "needed for",
        "found",
        "option",
        "since",
        "SHMLBA",
        "aliases",
        "shm_next_id",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let rows: serde_json::Value =
        serde_json::from_slice(&armrest(&["check", "--json"]).stdout).expect("JSON");
    assert!(
        rows.as_array()
            .is_some_and(|r| r.len() > 10 && r.iter().all(|r| r["feature"].is_string()))
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_armrest"))
        .arg("check")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("armrest runs");
    drop(child.stdout.take());
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn verify_refuses_what_it_cannot_compare() {
    let images = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/images/counter");
    let o = armrest(&["verify", "-D", images, "-t", "4194305"]);
    assert_eq!(o.status.code(), Some(2), "{}", err(&o));
    assert!(err(&o).contains("no such process"), "{}", err(&o));
    // This test itself: no 32-bit task where addresses are wider, and never one of these images.
    let own = std::process::id().to_string();
    let o = armrest(&["verify", "-D", images, "-t", &own]);
    let code = if cfg!(target_pointer_width = "64") {
        102
    } else {
        109
    };
    assert_eq!(o.status.code(), Some(code), "{}", err(&o));
}

#[test]
fn directories_that_are_not_there_are_named_before_anything_happens() {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/images/counter");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (args, code, says) in [
        (
            ["plan", "-D", "/nowhere", "-s"],
            80,
            "/nowhere: there is no such directory",
        ),
        (
            ["plan", "-D", file, "-s"],
            80,
            "this is a file, not the directory",
        ),
    ] {
        let o = armrest(&args);
        assert!(
            o.status.code() == Some(code) && err(&o).contains(says),
            "{args:?}: {}",
            err(&o)
        );
    }
    let o = armrest(&["restore", "-D", here, "-W", "/nowhere"]);
    assert!(o.status.code() == Some(105), "{}", err(&o));
    assert!(
        err(&o).contains("armrest: output: /nowhere: No such file"),
        "{}",
        err(&o)
    );
    let o = armrest(&["show", here]);
    assert!(
        err(&o).contains("a directory, not one image"),
        "{}",
        err(&o)
    );
}
