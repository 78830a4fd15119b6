//! The blob in somebody else's tool: a C program (`tests/embed/embed.c`) loads `armrest.bin` with nothing but
//! `include/armrest.h` and has it become a tiny task, at several addresses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn blob() -> PathBuf {
    let blob = std::env::var_os("ARMREST_BLOB")
        .map_or_else(|| Path::new(ROOT).join("target/armrest.bin"), PathBuf::from);
    assert!(blob.is_file(), "{} is missing: make blob", blob.display());
    blob
}

/// Build the loader for ARM.
fn loader(dir: &Path) -> PathBuf {
    let out = dir.join("embed");
    let status = Command::new("arm-linux-gnueabihf-gcc")
        .args([
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O1",
            "-static",
            "-I",
        ])
        .arg(Path::new(ROOT).join("include"))
        .arg("-o")
        .arg(&out)
        .arg(Path::new(ROOT).join("tests/embed/embed.c"))
        .status()
        .expect("arm-linux-gnueabihf-gcc: tools/setup installs it");
    assert!(status.success(), "embed.c does not compile");
    out
}

fn run(loader: &Path, blob: &Path, address: &str) -> Output {
    let qemu = std::env::var_os("QEMU").unwrap_or_else(|| "qemu-arm".into());
    Command::new(qemu)
        .arg(loader)
        .arg(blob)
        .arg(address)
        .output()
        .expect("qemu-arm: tools/setup installs it")
}

#[test]
fn a_c_program_loads_the_blob_at_any_page() {
    let dir = tempfile::tempdir().unwrap();
    let (loader, blob) = (loader(dir.path()), blob());
    // Low, odd pages, above 2 GiB, close to the top of a 3 GiB task, above it.
    for address in [
        "01000000", "20003000", "41235000", "80001000", "beef0000", "f0007000",
    ] {
        let out = run(&loader, &blob, address);
        assert_eq!(
            out.status.code(),
            Some(42),
            "at {address}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        assert_eq!(out.stdout, b"restored\n", "at {address}");
    }
}

#[test]
fn an_area_off_a_page_is_refused_by_the_loader() {
    let dir = tempfile::tempdir().unwrap();
    let out = run(&loader(dir.path()), &blob(), "20003004");
    assert_eq!(out.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&out.stderr).contains("no room"),
        "{out:?}"
    );
}

#[test]
fn rows_that_would_hit_the_area_are_reported_before_anything_happens() {
    let dir = tempfile::tempdir().unwrap();
    // The task's own page is where the area is: the map row must not replace the blob.
    let out = run(&loader(dir.path()), &blob(), "2ffff000");
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    // Step verify, kind BadArgs, check RowHitsArea.
    assert!(
        said.contains("step 1,") && said.contains("kind 4,") && said.contains("result 8"),
        "{said}"
    );
}
