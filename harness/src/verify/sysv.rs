//! SysV segments: `/proc/sysvipc/shm`.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use armrest_images::{Checkpoint, VmaKind};

use super::{Finding, Weight, compare, found};
use crate::os;

/// Compare the segments that the images hold with `/proc/sysvipc/shm`.
pub fn segments(cp: &Checkpoint, text: &str) -> Vec<Finding> {
    let mut lines = text.lines();
    let heads: Vec<&str> = lines.next().unwrap_or("").split_whitespace().collect();
    let rows: Vec<Vec<&str>> = lines.map(|l| l.split_whitespace().collect()).collect();
    let cell = |row: &[&str], head: &str| {
        let at = heads.iter().position(|h| *h == head);
        at.and_then(|i| row.get(i).copied())
            .unwrap_or("nothing")
            .to_owned()
    };
    let mut out = Vec::new();
    for s in &cp.segments {
        let what = format!("SysV {}", s.id);
        let Some(row) = rows.iter().find(|r| cell(r, "shmid") == s.id.to_string()) else {
            out.push(found(Weight::Differs, what, "not there"));
            continue;
        };
        // The kernel counts mappings, not calls of shmat.
        let attached = cp
            .tasks
            .iter()
            .filter_map(|t| t.live.as_ref())
            .flat_map(|l| &l.mm.vmas)
            .filter(|v| v.kind == VmaKind::SysV { shmid: s.id })
            .count();
        let perms = s.mode + u32::from(s.dest) * 0o1000 + u32::from(s.locked) * 0o2000;
        for (head, images) in [
            ("key", s.key.cast_signed().to_string()),
            ("perms", format!("{perms:o}")),
            ("size", s.size.to_string()),
            ("nattch", attached.to_string()),
            ("uid", s.uid.to_string()),
            ("gid", s.gid.to_string()),
            ("cuid", s.cuid.to_string()),
            ("cgid", s.cgid.to_string()),
        ] {
            let task = cell(row, head);
            compare(
                &mut out,
                Weight::Differs,
                format!("{what}: {head}"),
                images,
                task,
            );
        }
    }
    out
}

/// Look at the SysV objects that the task sees: its namespace, if it is another than ours.
pub(super) fn enter_ipc(dir: &str) -> io::Result<()> {
    let name = format!("{dir}/ns/ipc");
    if fs::read_link(&name)? == fs::read_link("/proc/self/ns/ipc")? {
        return Ok(());
    }
    let ns = File::open(name)?;
    // SAFETY: a number only; `ns` is open. The calling thread's view of SysV objects changes, nothing else.
    os::check(unsafe { libc::setns(ns.as_raw_fd(), libc::CLONE_NEWIPC) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::{live, load};

    #[test]
    fn segments_are_compared_with_their_attachments() {
        let cp = load("sysvshm");
        let head = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid\n";
        let row = |s: &armrest_images::Segment, extra: usize| {
            let n = live(&cp)
                .mm
                .vmas
                .iter()
                .filter(|v| v.kind == VmaKind::SysV { shmid: s.id })
                .count();
            let perms = s.mode + u32::from(s.dest) * 0o1000;
            format!(
                "{} {} {perms:o} {} 1 2 {} {} {} {} {}\n",
                s.key.cast_signed(),
                s.id,
                s.size,
                n + extra,
                s.uid,
                s.gid,
                s.cuid,
                s.cgid
            )
        };
        let text: String = cp.segments.iter().map(|s| row(s, 0)).collect();
        assert_eq!(segments(&cp, &format!("{head}{text}")), []);
        let text: String = cp.segments.iter().map(|s| row(s, 1)).collect();
        assert_eq!(
            segments(&cp, &format!("{head}{text}")).len(),
            cp.segments.len()
        );
        assert_eq!(segments(&cp, head).len(), cp.segments.len());
    }
}
