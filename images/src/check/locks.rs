//! Locks on files.

use std::collections::BTreeMap;

use super::at::{At, need};
use super::source::Source;
use crate::checkpoint::{LiveTask, Task};
use crate::error::Error;
use crate::kinds::{FileLock, LockKind};
use crate::{magic, proto};

/// Reads `filelocks.img`. Every lock names a descriptor that is there.
pub(super) fn read(source: &mut Source<'_>, tasks: &[Task]) -> Result<Vec<FileLock>, Error> {
    let name = "filelocks.img";
    let file = At::file(name);
    let entries: Vec<proto::FileLock> = source.array(name, magic::FILE_LOCKS)?;
    let lives: BTreeMap<u32, &LiveTask> = tasks
        .iter()
        .filter_map(|t| Some((t.pid, t.live.as_ref()?)))
        .collect();
    let mut locks = Vec::new();
    for (n, e) in entries.into_iter().enumerate() {
        let at = file.entry(n);
        let flag = need!(at, e.flag);
        let kind = match flag {
            1 => LockKind::Posix,
            2 => LockKind::Flock,
            4 => LockKind::Ofd,
            8 => LockKind::Lease,
            other => return Err(at.unknown("flag", other)),
        };
        let (kind_of, pid, fd) = (need!(at, e.kind), need!(at, e.pid), need!(at, e.fd));
        if kind_of > 1 {
            return Err(at.bad("type", kind_of, "neither a read nor a write lock"));
        }
        let wide = |field: &str, v: Option<i64>| {
            let v = at.req(field, v)?;
            u64::try_from(v).map_err(|_| at.bad(field, v.cast_unsigned(), "negative"))
        };
        let (start, len) = (wide("start", e.start)?, wide("len", e.len)?);
        if start.checked_add(len).is_none_or(|end| end > 1 << 63) {
            return Err(at.bad("len", len, "beyond the end of any file"));
        }
        let table = u32::try_from(pid)
            .ok()
            .and_then(|p| lives.get_key_value(&p));
        let Some((&pid, live)) = table else {
            return Err(at.dangling("pid", "task", pid.unsigned_abs()));
        };
        let Some(fd) = u32::try_from(fd).ok().filter(|f| live.fd(*f).is_some()) else {
            return Err(at.dangling("fd", "descriptor", fd.unsigned_abs()));
        };
        locks.push(FileLock {
            kind,
            write: kind_of == 1,
            pid,
            fd,
            start,
            len,
        });
    }
    Ok(locks)
}
