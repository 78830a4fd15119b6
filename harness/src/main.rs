//! The `armrest` program: parse, run, and turn the outcome into lines and an exit status.

use armrest::cli::{Cli, Command};
use armrest::commands;
use armrest::error::Error;
use clap::Parser;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    match run(&cli.command) {
        Ok(status) => ExitCode::from(u8::try_from(status & 0xff).unwrap_or(0)),
        Err(e) => fail(&e),
    }
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
fn usage(e: &clap::Error) -> ExitCode {
    let text = e.render().to_string();
    if !e.use_stderr() {
        return commands::print(&text).map_or_else(|e| fail(&e), |()| ExitCode::SUCCESS);
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

fn fail(e: &Error) -> ExitCode {
    let mut err = std::io::stderr().lock();
    for line in e.lines() {
        // Nobody is left to hear that standard error is gone.
        let _ = writeln!(err, "{line}");
    }
    ExitCode::from(e.exit_code())
}
