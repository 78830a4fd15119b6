//! Control groups: `cgroup.img` lists sets of them by number; a thread names its set. The directories that it holds too,
//! with their settings, are not read: a restored task enters groups that exist.

use std::collections::BTreeMap;

use super::at::{At, need};
use super::source::Source;
use crate::checkpoint::Cgroup;
use crate::error::Error;
use crate::{magic, proto};

/// Longest path that is believed.
const PATH_MAX: usize = 4096;
/// Longest list of controllers.
const NAME_MAX: usize = 256;

/// The sets by number; `None` if there is no image.
pub(super) type Sets = Option<BTreeMap<u32, Vec<Cgroup>>>;

/// Read them.
pub(super) fn sets(source: &mut Source<'_>) -> Result<Sets, Error> {
    let name = "cgroup.img";
    let Some(image) = source.one_or_none::<proto::Cgroup>(name, magic::CGROUP)? else {
        return Ok(None);
    };
    let at = At::file(name);
    let mut sets = BTreeMap::new();
    for (n, set) in image.sets.into_iter().enumerate() {
        let at = at.index("sets", n);
        let id = need!(at, set.id);
        let mut groups = Vec::new();
        for (n, member) in set.ctls.into_iter().enumerate() {
            groups.push(group(&at.index("ctls", n), member)?);
        }
        if sets.insert(id, groups).is_some() {
            return Err(at.twice("cgroup set", id));
        }
    }
    Ok(Some(sets))
}

fn group(at: &At, member: proto::CgMember) -> Result<Cgroup, Error> {
    let controllers = at.text("name", member.name.unwrap_or_default(), NAME_MAX)?;
    let path = at.text("path", need!(at, member.path), PATH_MAX)?;
    if !path.starts_with('/') {
        return Err(at.bad("path", 0u32, "not an absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(at.bad("path", 0u32, "a path that goes up"));
    }
    // Some dumpers have a word for the hierarchy without a name.
    let controllers = if controllers == "unified" {
        String::new()
    } else {
        controllers
    };
    Ok(Cgroup { controllers, path })
}

/// The groups of one set.
pub(super) fn of(at: &At, sets: &Sets, id: u32) -> Result<Vec<Cgroup>, Error> {
    match sets {
        None => Ok(Vec::new()),
        Some(sets) => match sets.get(&id) {
            Some(groups) => Ok(groups.clone()),
            None => Err(at.dangling("cg_set", "cgroup set", id)),
        },
    }
}
