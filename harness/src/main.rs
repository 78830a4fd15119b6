//! The `armrest` program: parse, run, and turn the outcome into lines and an exit status.
//!
//! It is entered as a C program is. What Rust's runtime does before `main` would cost a small restore a tenth of its
//! time (it reads `/proc/self/maps` to report a stack overflow); what we need of it is `os::begin`.
#![cfg_attr(not(test), no_main)]

use armrest::cli::{Cli, Command};
use armrest::commands;
use armrest::error::Error;
use armrest::os;
use std::io::Write;

/// Called by libc's startup code.
// SAFETY: the one `main` of this program, with the type that libc expects.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn main(_argc: libc::c_int, _argv: *const *const libc::c_char) -> libc::c_int {
    os::begin();
    let status = match Cli::from_words(std::env::args_os().collect()) {
        Ok(cli) => match run(&cli.command) {
            Ok(status) => status & 0xff,
            Err(e) => fail(&e),
        },
        Err(e) => usage(&e),
    };
    // Nobody is left to hear that standard output is gone; commands have said so where it matters.
    let _ = std::io::stdout().flush();
    // SAFETY: ends this process: nothing else is registered to run at its end.
    unsafe { libc::_exit(status) }
}

fn run(command: &Command) -> Result<i32, Error> {
    match command {
        Command::Restore(o) => armrest::restore::run(o),
        Command::Plan(o) => commands::plan::run(o),
        Command::Show(o) => commands::show::run(o),
        Command::X(o) => commands::x::run(o),
        Command::Check(o) => commands::check::run(o),
        Command::Verify(o) => commands::verify::run(o),
        Command::Clean(o) => commands::clean::run(o),
    }
}

/// Help and version go to standard output and are a success; anything else is a mistake to be named.
fn usage(e: &clap::Error) -> i32 {
    let text = e.render().to_string();
    if !e.use_stderr() {
        return commands::print(&text).map_or_else(|e| fail(&e), |()| 0);
    }
    let what = text.strip_prefix("error: ").unwrap_or(&text);
    let what = what
        .split("\n\nUsage:")
        .next()
        .unwrap_or(what)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    fail(&Error::Usage {
        what: what.replace(" For more information, try '--help'.", ""),
    })
}

fn fail(e: &Error) -> i32 {
    let mut err = std::io::stderr().lock();
    for line in e.lines() {
        // Nobody is left to hear that standard error is gone.
        let _ = writeln!(err, "{line}");
    }
    i32::from(e.exit_code())
}
