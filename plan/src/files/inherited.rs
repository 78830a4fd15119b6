//! Descriptions that the caller gives (`--inherit-fd`).

use std::collections::BTreeMap;

use armrest_images::{Checkpoint, File};

use crate::terminals::outside_name;
use crate::types::{Refusal, RefusalKind};
use crate::whole::Held;

/// Descriptions that the caller gives: file id, and which of its gifts.
pub type Inherited = BTreeMap<u32, usize>;

/// Which descriptions these ids mean (`--inherit-fd`): `pipe[N]`, a path, or `file[MOUNT:INODE]` for what was external
/// at the dump. Ids that mean nothing are refused.
pub(crate) fn inherited(
    cp: &Checkpoint,
    held: &Held<'_>,
    ids: &[String],
    out: &mut Vec<Refusal>,
) -> Inherited {
    let mut all = Inherited::new();
    for (gift, id) in ids.iter().enumerate() {
        let before = all.len();
        for (file, f) in &cp.files {
            if means(cp, f, id) && !held.holders(*file).is_empty() {
                all.insert(*file, gift);
            }
        }
        if all.len() == before {
            out.push(Refusal {
                kind: RefusalKind::Unsupported,
                what: format!("--inherit-fd {id}: no descriptor of the checkpoint is that"),
                hint: "pipe[N], socket:[N], tty[RDEV:DEV], a path, or file[MOUNT:INODE]: armrest plan lists the descriptors".into(),
            });
        }
    }
    all
}

fn means(cp: &Checkpoint, file: &File, id: &str) -> bool {
    match file {
        File::Socket(s) => {
            let forms = ["socket:[", "socket[", "unix["];
            forms.iter().any(|f| id == format!("{f}{}]", s.ino))
        }
        File::Terminal(t) => {
            let name = cp.terminals.get(&t.terminal).and_then(outside_name);
            name.is_some_and(|name| name == id)
        }
        File::Pipe(p) => id == format!("pipe[{}]", p.pipe) || id == format!("pipe:[{}]", p.pipe),
        // criu writes paths without the first slash.
        File::Reg(r) => r.path.trim_start_matches('/') == id.trim_start_matches('/'),
        _ => false,
    }
}
