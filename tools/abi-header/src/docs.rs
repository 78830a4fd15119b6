//! The comments of the abi crate, read from its sources: `///` lines before an item or a member.

use std::collections::HashMap;

/// The sources in which every public item of the ABI stands.
pub const SOURCES: [&str; 5] = [
    include_str!("../../../abi/src/lib.rs"),
    include_str!("../../../abi/src/header.rs"),
    include_str!("../../../abi/src/records.rs"),
    include_str!("../../../abi/src/report.rs"),
    include_str!("../../../abi/src/restore.rs"),
];

/// Comments by what they belong to: `struct Map`, `Map.start`, `enum Step`, `Step.Fill`, `PAGE_SIZE`.
pub struct Docs(HashMap<String, String>);

impl Docs {
    /// Read the sources.
    pub fn of_abi() -> Docs {
        let mut docs = HashMap::new();
        for source in SOURCES {
            read(source, &mut docs);
        }
        Docs(docs)
    }
    /// The comment of a structure or enumeration: `struct Map`.
    pub fn item(&self, item: &str) -> &str {
        self.0.get(item).map_or("", String::as_str)
    }
    /// The comment of a field or variant.
    pub fn member(&self, item: &str, member: &str) -> &str {
        self.item(&format!("{item}.{member}"))
    }
    /// The comment of a constant.
    pub fn constant(&self, name: &str) -> &str {
        self.item(name)
    }
}

fn read(source: &str, docs: &mut HashMap<String, String>) {
    let mut comment = String::new();
    let mut inside = String::new();
    for line in source.lines() {
        let code = line.trim();
        if let Some(text) = code.strip_prefix("///") {
            if !comment.is_empty() {
                comment.push(' ');
            }
            comment.push_str(text.trim());
            continue;
        }
        if code.starts_with("#[") {
            continue;
        }
        if let Some(key) = key(code, &inside) {
            docs.insert(key, in_c(comment.trim()));
        }
        comment.clear();
        if let Some(name) = opened(line) {
            inside = name.to_owned();
        } else if line == "}" {
            inside.clear();
        }
    }
}

/// The structure or enumeration that this line opens.
fn opened(line: &str) -> Option<&str> {
    let rest = line
        .strip_prefix("pub struct ")
        .or_else(|| line.strip_prefix("pub enum "))?;
    rest.strip_suffix(" {")
}

/// What this line of code declares.
fn key(code: &str, inside: &str) -> Option<String> {
    if let Some(rest) = code
        .strip_prefix("pub const ")
        .filter(|r| !r.starts_with("fn "))
    {
        return Some(rest.split_once(':')?.0.to_owned());
    }
    if let Some(rest) = code
        .strip_prefix("pub struct ")
        .or_else(|| code.strip_prefix("pub enum "))
    {
        let kind = if code.starts_with("pub struct ") {
            "struct"
        } else {
            "enum"
        };
        return Some(format!("{kind} {}", rest.strip_suffix(" {")?));
    }
    if inside.is_empty() {
        return None;
    }
    // A field, `pub name: type,`, or a variant, `Name = 1,`.
    let name = match code.strip_prefix("pub ") {
        Some(field) => field.split_once(": ")?.0,
        None => code.split_once(" = ")?.0,
    };
    Some(format!("{inside}.{name}"))
}

/// Rust's links are of no use in C.
fn in_c(text: &str) -> String {
    text.replace("[`", "`")
        .replace("`]", "`")
        .replace("crate::", "")
        .replace("this crate", "this ABI")
        .replace("*/", "* /")
}
