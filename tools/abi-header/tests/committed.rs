//! The committed header is the one that is made, and compilers agree with its assertions.

use std::path::Path;
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[test]
fn the_committed_header_is_current() {
    let committed = std::fs::read_to_string(Path::new(ROOT).join("include/armrest.h")).unwrap();
    assert!(
        committed == abi_header::header(),
        "run: cargo run -p abi-header -- include/armrest.h"
    );
}

/// The ARM compiler and the host's: sizes and offsets are the same for both.
#[test]
fn compilers_agree_with_the_layout() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("use.c");
    std::fs::write(
        &source,
        "#include \"armrest.h\"\nint main(void) { return 0; }\n",
    )
    .unwrap();
    for compiler in ["cc", "arm-linux-gnueabihf-gcc"] {
        let status = Command::new(compiler)
            .args([
                "-std=c11",
                "-Wall",
                "-Wextra",
                "-Wpedantic",
                "-Werror",
                "-fsyntax-only",
                "-I",
            ])
            .arg(Path::new(ROOT).join("include"))
            .arg(&source)
            .status()
            .unwrap();
        assert!(status.success(), "{compiler}");
    }
}
