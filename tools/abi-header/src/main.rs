//! `abi-header [FILE]`: writes the C header of the blob's ABI to FILE, or to standard output.

use std::io::Write;

fn main() -> std::io::Result<()> {
    let text = abi_header::header();
    match std::env::args_os().nth(1) {
        Some(path) => std::fs::write(path, text),
        None => std::io::stdout().lock().write_all(text.as_bytes()),
    }
}
