//! The commands beside `restore`: each turns its options into lines on standard output.

pub mod check;
pub mod clean;
pub mod plan;
pub mod show;
mod table;
pub mod verify;
pub mod x;

pub use table::Table;

use crate::error::Error;
use std::io::{self, Write};

/// Write to standard output; a reader that went away (`armrest plan | head`) is no error.
///
/// # Errors
/// Standard output cannot be written: a full disk.
pub fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output {
            path: "standard output".into(),
            source: e,
        }),
        _ => Ok(()),
    }
}

/// Print a value as JSON, one line.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &serde_json::Value) -> Result<(), Error> {
    print(&format!("{value}\n"))
}
