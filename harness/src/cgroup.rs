//! Control groups: a restored task enters those that the checkpoint names, if they exist here and take it. They are neither
//! made nor changed: their limits are the machine's business.
//!
//! What cannot be entered is said in a note. A frozen group is not entered: the restore would stand still in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use armrest_images::Cgroup;

/// Groups to enter, and what stays otherwise.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Directories, with the paths that images have for them.
    pub enter: Vec<(String, PathBuf)>,
    /// In sentences.
    pub notes: Vec<String>,
}

impl Groups {
    /// The groups that this machine has of those wanted.
    pub fn here(wanted: Option<&[Cgroup]>) -> Groups {
        let Some(wanted) = wanted else {
            return Groups::default();
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut all = found(wanted, &mounts);
        let mut enter = Vec::new();
        for (path, dir) in std::mem::take(&mut all.enter) {
            match state(&dir) {
                State::Thawed => enter.push((path, dir)),
                State::Missing => all.notes.push(stays(&path, "there is none here")),
                State::Frozen => all.notes.push(stays(&path, "it is frozen")),
            }
        }
        all.enter = enter;
        all
    }

    /// Move a process into them. It must not have begun to run the program.
    pub fn take(&self, pid: libc::pid_t) -> Vec<String> {
        let enter = |(path, dir): &(String, PathBuf)| {
            let file = dir.join("cgroup.procs");
            let e = write(&file, &pid.to_string()).err()?;
            Some(stays(path, &format!("{}: {e}", file.display())))
        };
        self.enter.iter().filter_map(enter).collect()
    }
}

/// To a file that exists: behind a broken mount nothing is made.
fn write(file: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().write(true).open(file)?;
    file.write_all(text.as_bytes())
}

fn stays(path: &str, why: &str) -> String {
    format!("the task was in cgroup {path} and is in armrest's own: {why}")
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Missing,
    Frozen,
    Thawed,
}

fn state(dir: &Path) -> State {
    if !dir.join("cgroup.procs").exists() {
        return State::Missing;
    }
    let is = |name: &str, test: &dyn Fn(&str) -> bool| {
        fs::read_to_string(dir.join(name)).is_ok_and(|text| test(&text))
    };
    // A parent's freezing shows in the events. Version 1 has words for it.
    if is("cgroup.events", &|t| t.lines().any(|l| l == "frozen 1"))
        || is("cgroup.freeze", &|t| t.trim() == "1")
        || is("freezer.state", &|t| t.trim() != "THAWED")
    {
        State::Frozen
    } else {
        State::Thawed
    }
}

/// Where the groups are by these mounts (`/proc/self/mountinfo`).
fn found(wanted: &[Cgroup], mounts: &str) -> Groups {
    let mut out = Groups::default();
    if wanted.is_empty() {
        let note = "the task was in another cgroup than the dumper, which did not record it: it is in armrest's own";
        out.notes.push(note.into());
    }
    for group in wanted {
        let dir = mounts.lines().find_map(|line| place(group, line));
        match dir {
            Some(dir) => out.enter.push((group.path.clone(), dir)),
            None => {
                let which = match &*group.controllers {
                    "" => "no version 2 hierarchy is mounted that holds it".into(),
                    name => format!("no hierarchy {name} is mounted that holds it"),
                };
                out.notes.push(stays(&group.path, &which));
            }
        }
    }
    out
}

/// The directory of a group if this mount holds it.
fn place(group: &Cgroup, line: &str) -> Option<PathBuf> {
    let (own, of) = line.split_once(" - ")?;
    let mut own = own.split(' ').skip(3);
    let (root, point) = (unescape(own.next()?), unescape(own.next()?));
    let mut of = of.split(' ');
    let (kind, _, options) = (of.next()?, of.next()?, of.next()?);
    let is_it = if group.controllers.is_empty() {
        kind == "cgroup2"
    } else {
        let has = |name: &str| options.split(',').any(|o| o == name);
        kind == "cgroup" && group.controllers.split(',').all(has)
    };
    if !is_it {
        return None;
    }
    let below = Path::new(&group.path).strip_prefix(&root).ok()?;
    Some(Path::new(&point).join(below))
}

/// Blanks and the like stand there as three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        match part
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) if byte.is_ascii() => {
                out.push(char::from(byte));
                out.push_str(part.get(3..).unwrap_or(""));
            }
            _ => {
                out.push('\\');
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str =
        "25 22 0:22 / /sys/fs/cgroup rw,relatime shared:5 - cgroup2 cgroup2 rw,nsdelegate\n";
    const LEGACY: &str = "\
        30 22 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        31 22 0:26 /docker/17 /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n\
        32 22 0:27 / /a\\040b rw - cgroup cgroup rw,freezer\n";

    fn group(controllers: &str, path: &str) -> Cgroup {
        Cgroup {
            controllers: controllers.into(),
            path: path.into(),
        }
    }

    #[test]
    fn groups_are_found_below_their_hierarchies() {
        for (controllers, path, mounts, dir) in [
            ("", "/", UNIFIED, Some("/sys/fs/cgroup")),
            ("", "/a/b", UNIFIED, Some("/sys/fs/cgroup/a/b")),
            ("", "/a", LEGACY, None),
            ("memory", "/a", UNIFIED, None),
            (
                "name=systemd",
                "/a",
                LEGACY,
                Some("/sys/fs/cgroup/systemd/a"),
            ),
            (
                "cpuacct,cpu",
                "/docker/17/x",
                LEGACY,
                Some("/sys/fs/cgroup/cpu,cpuacct/x"),
            ),
            // Another container's.
            ("cpu,cpuacct", "/docker/18", LEGACY, None),
            ("cpu,memory", "/docker/17", LEGACY, None),
            ("freezer", "/a", LEGACY, Some("/a b/a")),
            ("", "/a", "", None),
        ] {
            let all = found(&[group(controllers, path)], mounts);
            let dirs: Vec<_> = all.enter.iter().map(|(_, d)| d.as_path()).collect();
            assert_eq!(
                dirs,
                Vec::from_iter(dir.map(Path::new)),
                "{controllers}:{path}"
            );
            assert_eq!(all.notes.len(), usize::from(dir.is_none()));
        }
        assert_eq!(found(&[], UNIFIED).notes.len(), 1);
        assert_eq!(Groups::here(None), Groups::default());
    }

    #[test]
    fn a_group_must_be_there_and_not_be_frozen() {
        let dir = tempfile::tempdir().expect("folder");
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("file");
        assert_eq!(state(dir.path()), State::Missing);
        put("cgroup.procs", "");
        assert_eq!(state(dir.path()), State::Thawed);
        for (name, frozen, thawed) in [
            (
                "cgroup.events",
                "populated 0\nfrozen 1\n",
                "populated 1\nfrozen 0\n",
            ),
            ("cgroup.freeze", "1\n", "0\n"),
            ("freezer.state", "FREEZING\n", "THAWED\n"),
        ] {
            put(name, frozen);
            assert_eq!(state(dir.path()), State::Frozen, "{name}");
            put(name, thawed);
            assert_eq!(state(dir.path()), State::Thawed, "{name}");
        }
        let groups = Groups {
            enter: vec![("/x".into(), dir.path().to_owned())],
            notes: Vec::new(),
        };
        assert!(groups.take(4711).is_empty());
        assert_eq!(
            fs::read_to_string(dir.path().join("cgroup.procs")).expect("file"),
            "4711"
        );
        fs::remove_file(dir.path().join("cgroup.procs")).expect("file");
        assert_eq!(groups.take(4711).len(), 1);
        assert!(!dir.path().join("cgroup.procs").exists());
    }
}
