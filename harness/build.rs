//! Puts the blob into the program, tells the linker how to lay it out, and writes completions and man pages.
//!
//! The blob is `$ARMREST_BLOB`, else `target/armrest.bin` of this repository, else nothing: then `armrest` can look
//! and plan, and says so when asked to restore. Completions and man pages go to `OUT_DIR`, and to `$ARMREST_GEN_DIR`
//! if that is set.

#[allow(
    dead_code,
    missing_docs,
    reason = "a module of the program: here its parser alone is used"
)]
#[path = "src/cli.rs"]
mod cli;

use clap::CommandFactory;
use clap_complete::Shell;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    embed(&out)?;
    generate(&out.join("gen"))?;
    let arm = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|a| a == "arm");
    if arm && env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|e| e == "gnu") {
        let layout = Path::new(env!("CARGO_MANIFEST_DIR")).join("layout.ld");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", layout.display());
    }
    println!("cargo::rerun-if-changed=layout.ld");
    println!("cargo::rerun-if-changed=src/cli.rs");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ARMREST_GEN_DIR");
    if let Some(dir) = env::var_os("ARMREST_GEN_DIR") {
        generate(Path::new(&dir))?;
    }
    Ok(())
}

/// Copy the blob to where `src/blob.rs` includes it.
fn embed(out: &Path) -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=ARMREST_BLOB");
    let named = env::var_os("ARMREST_BLOB")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from);
    let must = named.is_some();
    let path = named
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/armrest.bin"));
    println!("cargo::rerun-if-changed={}", path.display());
    let blob = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if must => {
            return Err(io::Error::new(
                e.kind(),
                format!("ARMREST_BLOB={}: {e}", path.display()),
            ));
        }
        Err(_) => Vec::new(),
    };
    fs::write(out.join("armrest.bin"), blob)
}

fn generate(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut command = cli::Cli::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, "armrest", dir)?;
    }
    clap_mangen::generate_to(command, dir)
}
