//! Who is who: the processes and threads of a checkpoint by their ids here, from the text of `/proc/*/status`.

use std::collections::BTreeMap;
use std::{fs, io};

use super::key;

/// A process or thread as its status tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id here.
    pub id: u32,
    /// Its parent here.
    pub parent: u32,
    /// Its id in the innermost pid namespace: the checkpoint's.
    pub inner: u32,
}

/// Read one status.
pub fn known(status: &str) -> Option<Known> {
    let number = |name: &str| key(status, name)?.split_whitespace().last()?.parse().ok();
    Some(Known {
        id: number("Pid:")?,
        parent: number("PPid:")?,
        inner: number("NSpid:")?,
    })
}

/// All whose ids are the names in this directory: `/proc`, or a process's `task`.
///
/// # Errors
/// The directory cannot be read.
pub fn listed(dir: &str) -> io::Result<Vec<Known>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(n) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        // Whoever is gone meanwhile was none of the checkpoint's.
        if let Ok(status) = fs::read_to_string(format!("{dir}/{n}/status")) {
            out.extend(known(&status));
        }
    }
    out.sort_by_key(|k| k.id);
    Ok(out)
}

/// The descendants of `root`, itself included: id in the checkpoint's namespace → id here.
pub fn descendants(all: &[Known], root: u32) -> BTreeMap<u32, u32> {
    let mut ids = vec![root];
    let mut at = 0;
    while let Some(parent) = ids.get(at).copied() {
        ids.extend(all.iter().filter(|k| k.parent == parent).map(|k| k.id));
        at += 1;
    }
    let of = |id: &u32| all.iter().find(|k| k.id == *id);
    ids.iter()
        .filter_map(|id| Some((of(id)?.inner, *id)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_by_their_parents_and_named_by_their_inner_ids() {
        let status = |id: u32, parent: u32, inner: u32| {
            known(&format!(
                "Name:\tx\nPid:\t{id}\nPPid:\t{parent}\nNSpid:\t{id}\t{inner}\n"
            ))
            .expect("a status")
        };
        let all = [
            status(1, 0, 1),
            status(500, 1, 136),
            status(501, 500, 137),
            status(502, 501, 138),
            status(600, 1, 137),
        ];
        let want = BTreeMap::from([(136, 500), (137, 501), (138, 502)]);
        assert_eq!(descendants(&all, 500), want);
        assert_eq!(known("Name:\tx\n"), None);
    }
}
