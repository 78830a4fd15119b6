//! The texts of `--help`, from the table.

use std::fmt::Write;

use super::table::{ABOUT, Arg, COMMANDS, EXAMPLES, Sub};

const HELP: (&str, &str) = ("-h, --help", "Print help");

/// `armrest --help`.
pub fn program() -> String {
    let mut text = format!("{ABOUT}\n\nUsage: armrest <COMMAND>\n\nCommands:\n");
    rows(&mut text, COMMANDS.iter().map(|s| (s.name, s.about)));
    text.push_str("\nOptions:\n");
    rows(&mut text, [HELP, ("-V, --version", "Print version")]);
    text.push('\n');
    text.push_str(EXAMPLES);
    text.push('\n');
    text
}

/// `armrest SUB --help`.
pub fn of(sub: &Sub) -> String {
    let mut text = format!("{}\nUsage: {}\n", sub.about, sub.usage);
    if !sub.operands.is_empty() {
        text.push_str("Arguments:\n");
        let names: Vec<String> = sub.operands.iter().map(name).collect();
        let helps = sub.operands.iter().map(|o| o.help);
        rows(&mut text, names.iter().map(String::as_str).zip(helps));
        text.push('\n');
    }
    text.push_str("Options:\n");
    let shown = || sub.options.iter().filter(|o| !o.hidden);
    let names: Vec<String> = shown().map(column).collect();
    let helps = shown().map(|o| o.help);
    let options = names.iter().map(String::as_str).zip(helps);
    rows(&mut text, options.chain([HELP]));
    text.push('\n');
    text.push_str(sub.after);
    text.push('\n');
    text
}

/// What an option or an operand is called in texts: `--root <ROOT>`, `<WHAT>`.
pub fn name(arg: &Arg) -> String {
    match arg.value {
        Some(value) if value == arg.name => format!("<{value}>"),
        Some(value) => format!("--{} <{value}>", arg.name),
        None => format!("--{}", arg.name),
    }
}

fn column(option: &Arg) -> String {
    let short = match option.short {
        Some(c) => format!("-{c}, "),
        None => "    ".to_owned(),
    };
    let more = if option.many && option.value.is_none() {
        "..."
    } else {
        ""
    };
    format!("{short}{}{more}", name(option))
}

/// Two columns, the second as far to the left as it can be.
fn rows<'a>(text: &mut String, rows: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let rows: Vec<_> = rows.into_iter().collect();
    let width = rows.iter().map(|r| r.0.len()).max().unwrap_or(0);
    for (left, right) in rows {
        // A string takes everything.
        let _ = writeln!(text, "  {left:<width$}  {right}");
    }
}
