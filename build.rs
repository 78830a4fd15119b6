//! Builds nothing on the host. For the blob (feature `blob`, target ARM): assembles `arch/arm/*.S` and tells the linker
//! how to lay the flat image out, with the numbers that the ABI crate owns.

use armrest_abi::{ABI_VERSION, BLOB_MAGIC, BlobHeader, FRAME_OFFSET, RestoreArgs};
use std::env;
use std::path::PathBuf;

/// Stack that a loader must give: two pages. The measured need is in docs/benchmarks.md.
const STACK_SIZE: u32 = 0x2000;
/// Arena that a loader must give: the rest of a batch after a short read takes 8 KiB, the allocator a little.
const HEAP_SIZE: u32 = 0x3000;
/// Stack that a loader must give each further thread. The frames of its deepest path add up to some 350 bytes.
const THREAD_STACK_SIZE: u32 = 0x400;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=linker.ld");
    println!("cargo::rerun-if-changed=arch/arm");
    let arm = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|a| a == "arm");
    if arm && env::var_os("CARGO_FEATURE_BLOB").is_some() {
        blob();
    }
}

fn blob() {
    let root =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let sources = ["entry.S", "exit.S", "mem.S", "thread.S"].map(|f| root.join("arch/arm").join(f));
    for object in cc::Build::new()
        .files(sources)
        .flag("-marm")
        .compile_intermediates()
    {
        link_arg(&object.display().to_string());
    }
    link_arg("-nostartfiles");
    link_arg("-nostdlib");
    link_arg("-T");
    link_arg(&root.join("linker.ld").display().to_string());
    for flag in [
        "--build-id=none",
        "--gc-sections",
        "-z,norelro",
        "--no-dynamic-linker",
        "-z,noexecstack",
        "--no-warn-rwx-segments",
    ] {
        link_arg(&format!("-Wl,{flag}"));
    }
    let numbers = [
        ("magic", BLOB_MAGIC),
        ("version", ABI_VERSION),
        ("header_size", size::<BlobHeader>()),
        ("args_size", size::<RestoreArgs>()),
        ("frame_offset", FRAME_OFFSET),
        ("stack_size", STACK_SIZE),
        ("heap_size", HEAP_SIZE),
        ("thread_stack_size", THREAD_STACK_SIZE),
    ];
    for (name, number) in numbers {
        link_arg(&format!("-Wl,--defsym=__abi_{name}={number}"));
    }
}

fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).expect("ABI structures are small")
}

fn link_arg(arg: &str) {
    println!("cargo::rustc-link-arg-bins={arg}");
}
