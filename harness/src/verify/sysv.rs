//! SysV objects: the tables in `/proc/sysvipc`, values of semaphores, messages of queues (copied, not received).

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use armrest_images::{Checkpoint, IpcPerm, VmaKind};

use super::{Finding, Weight, compare, found};
use crate::error::Error;
use crate::objects::sysv::{msg, sem};
use crate::os;

/// One of the tables in `/proc/sysvipc`, by the names in its head.
struct Table<'a> {
    heads: Vec<&'a str>,
    rows: Vec<Vec<&'a str>>,
}

impl<'a> Table<'a> {
    fn new(text: &'a str) -> Table<'a> {
        let mut lines = text.lines().map(|l| l.split_whitespace().collect());
        Table {
            heads: lines.next().unwrap_or_default(),
            rows: lines.collect(),
        }
    }

    fn cell(&self, row: &[&'a str], head: &str) -> &'a str {
        let at = self.heads.iter().position(|h| *h == head);
        at.and_then(|i| row.get(i).copied()).unwrap_or("nothing")
    }

    /// Compare the row whose `id` is that of `perm`: what all objects have, and `more`. Is there one?
    fn compare(
        &self,
        id: &str,
        what: &str,
        perm: &IpcPerm,
        more: &[(&str, Weight, String)],
        out: &mut Vec<Finding>,
    ) -> bool {
        let wanted = perm.id.to_string();
        let Some(row) = self.rows.iter().find(|r| self.cell(r, id) == wanted) else {
            out.push(found(Weight::Differs, what, "not there"));
            return false;
        };
        let mut one = |head: &str, weight, images: &str| {
            compare(
                out,
                weight,
                format!("{what}: {head}"),
                images,
                self.cell(row, head),
            );
        };
        one("key", Weight::Differs, &perm.key.cast_signed().to_string());
        one("perms", Weight::Differs, &format!("{:o}", perm.mode));
        for (head, images) in [
            ("uid", perm.uid),
            ("gid", perm.gid),
            ("cuid", perm.cuid),
            ("cgid", perm.cgid),
        ] {
            one(head, Weight::Differs, &images.to_string());
        }
        for (head, weight, images) in more {
            one(head, *weight, images);
        }
        true
    }
}

/// Compare everything of the IPC namespace that this process is in now. `may_have_run`: values and messages may be others.
pub(super) fn all(cp: &Checkpoint, may_have_run: bool) -> Result<Vec<Finding>, Error> {
    let read = |name: &str| {
        let path = format!("/proc/sysvipc/{name}");
        fs::read_to_string(&path).map_err(|e| Error::Machine {
            what: path,
            why: e.to_string(),
        })
    };
    let mut out = segments(cp, &read("shm")?);
    if !cp.semaphores.is_empty() {
        out.extend(semaphores(cp, &read("sem")?, &sem::values, may_have_run));
    }
    if !cp.queues.is_empty() {
        out.extend(queues(cp, &read("msg")?, &Kernel, may_have_run));
    }
    Ok(out)
}

/// Compare the segments that the images hold with `/proc/sysvipc/shm`.
pub fn segments(cp: &Checkpoint, text: &str) -> Vec<Finding> {
    let table = Table::new(text);
    let mut out = Vec::new();
    for s in &cp.segments {
        // The kernel counts mappings, not calls of shmat.
        let attached = cp
            .tasks
            .iter()
            .filter_map(|t| t.live.as_ref())
            .flat_map(|l| &l.mm.vmas)
            .filter(|v| v.kind == VmaKind::SysV { shmid: s.perm.id })
            .count();
        let mut perm = s.perm;
        perm.mode += u32::from(s.dest) * 0o1000 + u32::from(s.locked) * 0o2000;
        let more = [
            ("size", Weight::Differs, s.size.to_string()),
            ("nattch", Weight::Differs, attached.to_string()),
        ];
        table.compare(
            "shmid",
            &format!("SysV {}", s.perm.id),
            &perm,
            &more,
            &mut out,
        );
    }
    out
}

fn weight(may_have_run: bool) -> Weight {
    if may_have_run {
        Weight::Ran
    } else {
        Weight::Differs
    }
}

/// Compare the semaphore sets with `/proc/sysvipc/sem` and what `values` tells of a set of so many.
pub fn semaphores(
    cp: &Checkpoint,
    text: &str,
    values: &dyn Fn(i32, usize) -> io::Result<Vec<u16>>,
    may_have_run: bool,
) -> Vec<Finding> {
    let table = Table::new(text);
    let mut out = Vec::new();
    for s in &cp.semaphores {
        let what = format!("SysV semaphore set {}", s.perm.id);
        let more = [("nsems", Weight::Differs, s.values.len().to_string())];
        let before = out.len();
        let there = table.compare("semid", &what, &s.perm, &more, &mut out);
        if !there || out[before..].iter().any(|f| f.what.ends_with(": nsems")) {
            continue;
        }
        match values(s.perm.id.cast_signed(), s.values.len()) {
            Ok(now) => {
                for (n, (images, task)) in s.values.iter().zip(&now).enumerate() {
                    let what = format!("{what}: value of semaphore {n}");
                    compare(&mut out, weight(may_have_run), what, images, task);
                }
            }
            Err(e) => out.push(found(
                Weight::Differs,
                what,
                format!("values cannot be read: {e}"),
            )),
        }
    }
    out
}

/// How a queue is looked into without taking anything out of it.
pub trait Peek {
    /// The most bytes that it takes.
    fn qbytes(&self, id: i32) -> io::Result<u64>;
    /// Type and text of its `index`th message, if the text is not longer than `room`.
    fn message(&self, id: i32, index: i32, room: usize) -> io::Result<(i64, Vec<u8>)>;
}

struct Kernel;

impl Peek for Kernel {
    fn qbytes(&self, id: i32) -> io::Result<u64> {
        msg::qbytes(id)
    }
    fn message(&self, id: i32, index: i32, room: usize) -> io::Result<(i64, Vec<u8>)> {
        msg::peek(id, index, room)
    }
}

/// Compare the queues with `/proc/sysvipc/msg` and what `peek` sees in them.
pub fn queues(cp: &Checkpoint, text: &str, peek: &dyn Peek, may_have_run: bool) -> Vec<Finding> {
    /// Longer messages than `kernel.msgmax` are rare.
    const ROOM: usize = 1 << 16;
    let table = Table::new(text);
    let may = weight(may_have_run);
    let mut out = Vec::new();
    for q in &cp.queues {
        let (id, what) = (
            q.perm.id.cast_signed(),
            format!("SysV message queue {}", q.perm.id),
        );
        let bytes: usize = q.messages.iter().map(|m| m.text.len()).sum();
        let more = [
            ("qnum", may, q.messages.len().to_string()),
            ("cbytes", may, bytes.to_string()),
        ];
        if !table.compare("msqid", &what, &q.perm, &more, &mut out) {
            continue;
        }
        let unread = |what: String, e: io::Error| {
            found(Weight::Differs, what, format!("cannot be read: {e}"))
        };
        match peek.qbytes(id) {
            Ok(now) => compare(
                &mut out,
                Weight::Differs,
                format!("{what}: qbytes"),
                u64::from(q.qbytes),
                now,
            ),
            Err(e) => out.push(unread(format!("{what}: qbytes"), e)),
        }
        for (n, m) in (0..).zip(&q.messages) {
            let what = format!("{what}: message {n}");
            match peek.message(id, n, m.text.len().max(ROOM)) {
                Ok((kind, text)) => {
                    compare(
                        &mut out,
                        may,
                        format!("{what}: type"),
                        i64::from(m.kind),
                        kind,
                    );
                    if text != m.text {
                        let why = format!(
                            "other text: {} bytes in the images, {} in the task",
                            m.text.len(),
                            text.len()
                        );
                        out.push(found(may, what, why));
                    }
                }
                // Fewer messages: the number says so.
                Err(e) if e.raw_os_error() == Some(libc::ENOMSG) => {}
                Err(e) => out.push(unread(what, e)),
            }
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
                .filter(|v| v.kind == VmaKind::SysV { shmid: s.perm.id })
                .count();
            let perms = s.perm.mode + u32::from(s.dest) * 0o1000;
            format!(
                "{} {} {perms:o} {} 1 2 {} {} {} {} {}\n",
                s.perm.key.cast_signed(),
                s.perm.id,
                s.size,
                n + extra,
                s.perm.uid,
                s.perm.gid,
                s.perm.cuid,
                s.perm.cgid
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

    #[test]
    fn semaphores_are_compared_with_their_values() {
        let cp = load("shm300");
        let text = "key semid perms nsems uid gid cuid cgid otime ctime\n\
            119 0 600 2 0 0 0 0 0 0\n0 1 600 5 0 0 0 0 0 0\n0 2 600 8 0 0 0 0 0 0\n";
        let values = |id: i32, n: usize| {
            let set = cp.semaphores.iter().find(|s| s.perm.id.cast_signed() == id);
            assert_eq!(set.unwrap().values.len(), n);
            Ok(set.unwrap().values.clone())
        };
        assert_eq!(semaphores(&cp, text, &values, false), []);
        for (was, now, what) in [
            ("119 0", "120 0", "SysV semaphore set 0: key"),
            ("0 1 600", "0 1 640", "SysV semaphore set 1: perms"),
            ("600 5", "600 4", "SysV semaphore set 1: nsems"),
            ("8 0 0 0 0", "8 1 0 0 0", "SysV semaphore set 2: uid"),
            ("8 0 0 0 0", "8 0 0 0 1", "SysV semaphore set 2: cgid"),
            ("0 2 600", "0 3 600", "SysV semaphore set 2"),
        ] {
            let all = semaphores(&cp, &text.replacen(was, now, 1), &values, true);
            assert_eq!(all.len(), 1, "{all:?}");
            assert_eq!(
                (all[0].what.as_str(), all[0].weight),
                (what, Weight::Differs)
            );
        }
        let other = |id: i32, n: usize| {
            let mut all = values(id, n)?;
            all[1] += u16::from(id == 1);
            Ok(all)
        };
        let all = semaphores(&cp, text, &other, false);
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!(all[0].what, "SysV semaphore set 1: value of semaphore 1");
        assert_eq!(semaphores(&cp, text, &other, true)[0].weight, Weight::Ran);
    }

    struct Made(Checkpoint);

    impl Peek for Made {
        fn qbytes(&self, id: i32) -> io::Result<u64> {
            Ok(self.0.queues[usize::try_from(id).unwrap()].qbytes.into())
        }
        fn message(&self, id: i32, index: i32, _: usize) -> io::Result<(i64, Vec<u8>)> {
            let q = &self.0.queues[usize::try_from(id).unwrap()];
            let m = q.messages.get(usize::try_from(index).unwrap());
            m.map(|m| (m.kind.into(), m.text.clone()))
                .ok_or(io::Error::from_raw_os_error(libc::ENOMSG))
        }
    }

    #[test]
    fn queues_are_compared_with_their_messages() {
        let cp = load("shm300");
        let text = "key msqid perms cbytes qnum lspid lrpid uid gid cuid cgid stime rtime ctime\n\
            0 0 600 54 3 9 0 0 0 0 0 1 0 1\n0 1 600 74 4 9 0 0 0 0 0 1 0 1\n";
        assert_eq!(queues(&cp, text, &Made(cp.clone()), false), []);
        let one = |change: fn(&mut Checkpoint)| {
            let mut other = cp.clone();
            change(&mut other);
            let all = queues(&cp, text, &Made(other), false);
            assert_eq!(all.len(), 1, "{all:?}");
            all[0].what.clone()
        };
        assert_eq!(
            one(|c| c.queues[1].qbytes = 5),
            "SysV message queue 1: qbytes"
        );
        assert_eq!(
            one(|c| c.queues[0].messages[2].kind = 5),
            "SysV message queue 0: message 2: type"
        );
        assert_eq!(
            one(|c| c.queues[0].messages[0].text[3] = 5),
            "SysV message queue 0: message 0"
        );
        let fewer = text.replacen("54 3", "36 2", 1);
        let all = queues(&cp, &fewer, &Made(cp.clone()), true);
        let what: Vec<_> = all.iter().map(|f| (f.what.as_str(), f.weight)).collect();
        assert_eq!(
            what,
            [
                ("SysV message queue 0: qnum", Weight::Ran),
                ("SysV message queue 0: cbytes", Weight::Ran)
            ]
        );
    }
}
