//! `armrest clean`: what dead restores left, removed or listed.

use serde_json::json;

use super::{print, print_json};
use crate::cli::CleanOptions;
use crate::error::{Error, printable};
use crate::journal::Place;
use crate::journal::clean::{self, Dead, Done, Fate};

/// Clean as asked.
///
/// # Errors
/// Something cannot be removed; standard output is full.
pub fn run(o: &CleanOptions) -> Result<i32, Error> {
    let dead = clean::run(&Place::usual(), o.dry_run)?;
    if o.json {
        let all: Vec<_> = dead.iter().map(json_of).collect();
        print_json(&json!(all))?;
    } else {
        let text: String = lines(&dead)
            .map(|l| format!("{}\n", printable(&l)))
            .collect();
        print(&text)?;
    }
    let left = left(&dead);
    if left.is_empty() {
        Ok(0)
    } else {
        Err(Error::Left(left))
    }
}

/// One line a thing: what was, or would be, done. What is left is an error, and not here.
pub fn lines(dead: &[Dead]) -> impl Iterator<Item = String> + '_ {
    dead.iter().flat_map(|d| {
        d.all.iter().filter_map(move |done| {
            let word = match &done.fate {
                Fate::Removed => "removed".into(),
                Fate::Would => "would be removed".into(),
                Fate::Theirs(pid) => format!("stays: the restored process {pid} lives"),
                Fate::Gone | Fate::Left(_) => return None,
            };
            Some(format!("{}: {word} ({})", done.what, by(d)))
        })
    })
}

/// What is left, and why.
pub fn left(dead: &[Dead]) -> Vec<String> {
    dead.iter()
        .flat_map(|d| {
            d.all.iter().filter_map(move |done| match &done.fate {
                Fate::Left(why) if d.pid == 0 => Some(format!("{}: {why}", d.path)),
                Fate::Left(why) => Some(format!("{}: {why} ({})", done.what, by(d))),
                _ => None,
            })
        })
        .collect()
}

fn by(d: &Dead) -> String {
    format!("left by the restore of {}, pid {}", d.what, d.pid)
}

fn json_of(d: &Dead) -> serde_json::Value {
    let all: Vec<_> = d.all.iter().map(done_json).collect();
    json!({"journal": d.path, "pid": d.pid, "images": d.what, "all": all})
}

fn done_json(done: &Done) -> serde_json::Value {
    let (fate, why) = match &done.fate {
        Fate::Removed => ("removed", None),
        Fate::Would => ("would be removed", None),
        Fate::Gone => ("gone", None),
        Fate::Theirs(pid) => ("stays", Some(format!("the restored process {pid} lives"))),
        Fate::Left(why) => ("left", Some(why.clone())),
    };
    json!({"what": done.what, "fate": fate, "why": why})
}
