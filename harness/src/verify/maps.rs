//! Mappings: lines of `/proc/PID/maps`, VmFlags of smaps.

use std::collections::BTreeMap;

use armrest_images::{Checkpoint, LiveTask, PAGE, Vma, VmaKind};
use armrest_plan::consts;

use super::{Finding, Weight, found, path_of};

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// First byte.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// `rwxp`.
    pub rights: String,
    /// Byte offset.
    pub offset: u64,
    /// What is mapped.
    pub name: String,
}

impl Line {
    fn show(&self) -> String {
        format!(
            "{:08x}-{:08x} {} {:08x} {}",
            self.start, self.end, self.rights, self.offset, self.name
        )
        .trim_end()
        .to_owned()
    }
}

/// One line of maps or the heading of a mapping in smaps.
pub fn line(text: &str) -> Option<Line> {
    let mut rest = text;
    let mut word = || {
        let (word, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = tail.trim_start_matches(' ');
        word
    };
    let (start, end) = word().split_once('-')?;
    let (rights, offset) = (word(), word());
    let (_device, _inode) = (word(), word());
    Some(Line {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        rights: rights.to_owned(),
        offset: u64::from_str_radix(offset, 16).ok()?,
        name: rest.to_owned(),
    })
}

/// The line that the images promise for a VMA.
pub fn promised(cp: &Checkpoint, live: &LiveTask, v: &Vma, root: &str) -> Line {
    let bit = |b: u32, c: char| if v.prot & b != 0 { c } else { '-' };
    let shared = v.shared || matches!(v.kind, VmaKind::SysV { .. });
    let rights = [
        bit(consts::PROT_READ, 'r'),
        bit(consts::PROT_WRITE, 'w'),
        bit(consts::PROT_EXEC, 'x'),
        if shared { 's' } else { 'p' },
    ];
    let stack = u64::from(live.mm.fields[6]);
    let zero = || "/dev/zero (deleted)".to_owned();
    let name = match v.kind {
        VmaKind::Anon if v.hugetlb.is_some() => "/anon_hugepage (deleted)".into(),
        VmaKind::Anon if v.heap => "[heap]".into(),
        VmaKind::Anon
            if u64::from(v.range.start()) <= stack && stack <= u64::from(v.range.end()) =>
        {
            "[stack]".into()
        }
        VmaKind::Sigpage => "[sigpage]".into(),
        VmaKind::Vdso => "[vdso]".into(),
        VmaKind::Vvar => "[vvar]".into(),
        VmaKind::Vectors => "[vectors]".into(),
        VmaKind::File { file } => path_of(cp, file, root).unwrap_or_default(),
        VmaKind::Memfd { inode, .. } => match cp.memfds.get(&inode) {
            Some(m) if m.name == "/dev/zero" => zero(),
            Some(m) => format!("/memfd:{} (deleted)", m.name.replace('\n', "\\012")),
            None => String::new(),
        },
        VmaKind::AnonShared { .. } => zero(),
        VmaKind::SysV { shmid } => {
            let key = cp
                .segments
                .iter()
                .find(|s| s.perm.id == shmid)
                .map_or(0, |s| s.perm.key);
            format!("/SYSV{key:08x} (deleted)")
        }
        VmaKind::Anon | VmaKind::Socket | VmaKind::AioRing | VmaKind::Plugin => String::new(),
    };
    // The kernel shows an offset where there is a file, and 0 elsewhere.
    let backed = matches!(
        v.kind,
        VmaKind::File { .. }
            | VmaKind::Memfd { .. }
            | VmaKind::AnonShared { .. }
            | VmaKind::SysV { .. }
    );
    Line {
        start: u64::from(v.range.start()),
        end: u64::from(v.range.end()),
        rights: rights.iter().collect(),
        offset: if backed { v.offset } else { 0 },
        name,
    }
}

/// Compare maps. `kept(start)`: the page there is the one of ours that stays.
pub fn maps(
    cp: &Checkpoint,
    live: &LiveTask,
    text: &str,
    root: &str,
    kept: &dyn Fn(u64) -> bool,
) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut lines = text.lines().filter_map(line).peekable();
    let mut one_kept = false;
    // The kernel's own pages lie elsewhere if plain memory took the place that they had.
    let elsewhere: Vec<&str> = live
        .mm
        .vmas
        .iter()
        .filter_map(|v| {
            let name = kernel_name(v.kind)?;
            let at = u64::from(v.range.start());
            let plain = |l: Line| l.start == at && l.name.is_empty();
            text.lines().filter_map(line).any(plain).then_some(name)
        })
        .collect();
    let mut extra = |l: &Line, out: &mut Vec<Finding>| {
        let page = l.end - l.start == u64::from(PAGE);
        let name = if l.name == "[vvar_vclock]" {
            "[vvar]"
        } else {
            l.name.as_str()
        };
        if elsewhere.contains(&name) {
            out.push(found(
                Weight::Masked,
                format!("maps {}", l.show()),
                if name == "[sigpage]" {
                    "the kernel's own sigpage: a handler returns through the one of the images"
                } else {
                    "the kernel's own vdso: the one of the images jumps to it"
                },
            ));
        } else if !one_kept && page && l.rights == "r-xp" && l.name.is_empty() && kept(l.start) {
            one_kept = true;
            out.push(found(
                Weight::Masked,
                format!("maps {}", l.show()),
                "one read-execute page of armrest's stays",
            ));
        } else {
            out.push(found(
                Weight::Differs,
                format!("maps {}", l.show()),
                "not in the images",
            ));
        }
    };
    for v in &live.mm.vmas {
        let want = promised(cp, live, v, root);
        while let Some(l) = lines.next_if(|l| l.start < want.start) {
            extra(&l, &mut out);
        }
        let Some(l) = lines.next_if(|l| l.start == want.start) else {
            out.push(found(
                Weight::Differs,
                format!("maps {}", want.show()),
                "not in the task",
            ));
            continue;
        };
        if l == want {
            continue;
        }
        let but_name = Line {
            name: want.name.clone(),
            ..l.clone()
        };
        let (weight, why) = match masked_name(&want.name, &l.name).filter(|_| but_name == want) {
            Some(why) => (Weight::Masked, format!("{}: {why}", l.show())),
            None => (Weight::Differs, format!("{} in the task", l.show())),
        };
        out.push(found(weight, format!("maps {}", want.show()), why));
    }
    for l in lines {
        extra(&l, &mut out);
    }
    out
}

/// The kernel's name for a page that it made itself.
fn kernel_name(kind: VmaKind) -> Option<&'static str> {
    match kind {
        VmaKind::Sigpage => Some("[sigpage]"),
        VmaKind::Vdso => Some("[vdso]"),
        VmaKind::Vvar => Some("[vvar]"),
        _ => None,
    }
}

/// Names that must differ.
fn masked_name(images: &str, task: &str) -> Option<&'static str> {
    match (images, task) {
        ("/dev/zero (deleted)", "/memfd:/dev/zero (deleted)") => {
            Some("anonymous shared memory is a memfd")
        }
        ("[vdso]", "") => Some("the vdso of another kernel, patched"),
        ("[vvar]", "") => Some("the data page of a patched vdso"),
        ("[sigpage]", "") => Some("the sigpage of the images: a handler returns through it"),
        _ => None,
    }
}

/// Flags that images record, by their word in smaps.
fn flags_of(v: &Vma) -> Vec<(&'static str, bool)> {
    let advised = |n: u32| v.madv >> n & 1 != 0;
    vec![
        ("gd", v.grows_down),
        ("lo", v.locked),
        ("nr", v.noreserve),
        ("ht", v.hugetlb.is_some()),
        ("rr", advised(1)),
        ("sr", advised(2)),
        ("dc", advised(10)),
        ("mg", advised(12)),
        ("hg", advised(14)),
        ("nh", advised(15)),
        ("dd", advised(16)),
        ("wf", advised(18)),
    ]
}

/// Compare VmFlags of smaps for the mappings that begin where the images say.
pub fn vm_flags(live: &LiveTask, smaps: &str) -> Vec<Finding> {
    let mut by_start: BTreeMap<u64, (String, Vec<&str>)> = BTreeMap::new();
    let mut at = None;
    for text in smaps.lines() {
        if let Some(flags) = text.strip_prefix("VmFlags:") {
            if let Some((start, name)) = at.take() {
                by_start.insert(start, (name, flags.split_whitespace().collect()));
            }
        } else if let Some(l) = line(text) {
            at = Some((l.start, l.name));
        }
    }
    let mut out = Vec::new();
    for v in &live.mm.vmas {
        // The kernel's own pages have flags of the kernel's own.
        if matches!(
            v.kind,
            VmaKind::Vectors | VmaKind::Sigpage | VmaKind::Vdso | VmaKind::Vvar
        ) {
            continue;
        }
        let Some((name, flags)) = by_start.get(&u64::from(v.range.start())) else {
            continue;
        };
        for (word, wanted) in flags_of(v) {
            if flags.contains(&word) != wanted {
                let has = |yes: bool| if yes { "set" } else { "not set" };
                out.push(found(
                    Weight::Differs,
                    format!("VmFlags {:08x} {name}: {word}", v.range.start()),
                    format!(
                        "{} in the images, {} in the task",
                        has(wanted),
                        has(!wanted)
                    ),
                ));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::{live, load, map_text, weights};

    #[test]
    fn maps_as_promised_are_equal_and_every_change_is_found() {
        for name in ["counter", "memory", "sysvshm", "dyn", "huge"] {
            let cp = load(name);
            let text = map_text(&cp);
            let look = |t: &str| maps(&cp, live(&cp), t, "", &|_| false);
            assert_eq!(look(&text), [], "{name}");
            let lines: Vec<&str> = text.lines().collect();
            for i in 0..lines.len() {
                let but = |new: &[String]| {
                    let mut all: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
                    all.splice(i..=i, new.iter().cloned());
                    look(&all.join("\n"))
                };
                assert_eq!(
                    weights(&but(&[])),
                    [Weight::Differs],
                    "{name}: line {i} gone"
                );
                let l = lines[i];
                for new in [
                    l.replacen(['p', 's'], "q", 1),
                    format!("{l}x"),
                    l.replacen(" 00", " f0", 1),
                ] {
                    assert_eq!(
                        weights(&but(std::slice::from_ref(&new))),
                        [Weight::Differs],
                        "{new}"
                    );
                }
            }
        }
    }

    #[test]
    fn one_kept_page_is_masked_and_no_second_one() {
        let cp = load("counter");
        let text = map_text(&cp)
            + "ffff2000-ffff3000 r-xp 00000000 00:00 0 \nffff4000-ffff5000 r-xp 00000000 00:00 0 \n";
        let f = maps(&cp, live(&cp), &text, "", &|_| true);
        assert_eq!(weights(&f), [Weight::Masked, Weight::Differs]);
        let f = maps(&cp, live(&cp), &text, "", &|_| false);
        assert_eq!(weights(&f), [Weight::Differs, Weight::Differs]);
    }

    #[test]
    fn names_of_the_fixed_list_are_masked_but_not_with_other_rights() {
        let cp = load("memory");
        let text = map_text(&cp).replace(" /dev/zero", " /memfd:/dev/zero");
        let look = |t: &str| weights(&maps(&cp, live(&cp), t, "", &|_| false));
        assert_eq!(look(&text), [Weight::Masked]);
        let zero = text
            .lines()
            .find(|l| l.contains("/dev/zero"))
            .expect("there");
        let other = text.replace(zero, &zero.replace("rw-s", "r--s"));
        assert_eq!(look(&other), [Weight::Differs]);
    }

    #[test]
    fn vm_flags_are_compared_both_ways() {
        let cp = load("counter");
        let mut cp2 = cp.clone();
        let smaps: String = map_text(&cp)
            .lines()
            .map(|l| {
                let gd = if l.ends_with("[stack]") { " gd" } else { "" };
                format!("{l}\nSize:    4 kB\nVmFlags: rd mr{gd} \n")
            })
            .collect();
        assert_eq!(vm_flags(live(&cp), &smaps), []);
        let l = cp2.tasks[0].live.as_mut().expect("alive");
        l.mm.vmas[0].locked = true;
        l.mm.vmas[1].madv = 1 << 10 | 1 << 16;
        for v in &mut l.mm.vmas {
            v.grows_down = false;
        }
        let f = vm_flags(live(&cp2), &smaps);
        let ends: Vec<&str> = f.iter().filter_map(|f| f.what.rsplit(' ').next()).collect();
        assert_eq!(ends, ["lo", "dc", "dd", "gd"]);
    }
}
