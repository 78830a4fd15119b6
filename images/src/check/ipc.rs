//! Semaphore sets, message queues and limits of the dumped IPC namespace.

use std::collections::BTreeSet;

use super::at::{At, need};
use super::source::Source;
use crate::checkpoint::{IpcLimits, IpcPerm, Message, Queue, SemSet};
use crate::container::Reader;
use crate::error::{Error, Fault};
use crate::{magic, proto};

/// The largest value of a semaphore (SEMVMX).
const SEMVMX: u16 = 32767;

/// Reads the semaphore sets.
pub(super) fn semaphores(source: &mut Source<'_>, ns: Option<u32>) -> Result<Vec<SemSet>, Error> {
    let Some(ns) = ns else { return Ok(Vec::new()) };
    let name = format!("ipcns-sem-{ns}.img");
    let Some(bytes) = source.image(&name)? else {
        return Ok(Vec::new());
    };
    let file = At::file(&name);
    let mut reader = Reader::open(&name, &bytes, magic::IPC_SEM)?;
    let (mut sets, mut seen) = (Vec::new(), BTreeSet::new());
    while let Some(e) = reader.entry_or_end::<proto::IpcSem>()? {
        let at = file.entry(reader.entry().unwrap_or_default());
        let count = need!(at, e.nsems);
        if count == 0 {
            return Err(at.bad("nsems", count, "a set has at least one semaphore"));
        }
        let perm = perm(&at, e.desc.as_ref())?;
        if !seen.insert(perm.id) {
            return Err(at.twice("semaphore set", perm.id));
        }
        let bytes = u64::from(count) * 2;
        let padded = reader.bytes(bytes.next_multiple_of(8))?;
        let values: Vec<u16> = padded
            .as_chunks::<2>()
            .0
            .iter()
            .take(usize::try_from(count).unwrap_or(usize::MAX))
            .map(|v| u16::from_le_bytes(*v))
            .collect();
        if let Some(v) = values.iter().find(|v| **v > SEMVMX) {
            return Err(at.bad("values", *v, "more than a semaphore can be"));
        }
        sets.push(SemSet { perm, values });
    }
    Ok(sets)
}

/// Reads the message queues with their messages, first to last.
pub(super) fn queues(source: &mut Source<'_>, ns: Option<u32>) -> Result<Vec<Queue>, Error> {
    let Some(ns) = ns else { return Ok(Vec::new()) };
    let name = format!("ipcns-msg-{ns}.img");
    let Some(bytes) = source.image(&name)? else {
        return Ok(Vec::new());
    };
    let file = At::file(&name);
    let mut reader = Reader::open(&name, &bytes, magic::IPC_MSG)?;
    let (mut queues, mut seen) = (Vec::new(), BTreeSet::new());
    while let Some(e) = reader.entry_or_end::<proto::IpcMsgQueue>()? {
        let at = file.entry(reader.entry().unwrap_or_default());
        let perm = perm(&at, e.desc.as_ref())?;
        if !seen.insert(perm.id) {
            return Err(at.twice("message queue", perm.id));
        }
        let mut messages = Vec::new();
        for n in 0..need!(at, e.qnum) {
            let at = at.index("messages", usize::try_from(n).unwrap_or(usize::MAX));
            let m: proto::IpcMsg = reader.framed()?;
            messages.push(message(&mut reader, &at, &m)?);
        }
        queues.push(Queue {
            perm,
            qbytes: need!(at, e.qbytes),
            messages,
        });
    }
    Ok(queues)
}

fn message(reader: &mut Reader<'_>, at: &At, m: &proto::IpcMsg) -> Result<Message, Error> {
    let (kind, size) = (need!(at, m.mtype), need!(at, m.msize));
    // A type is a positive long of the 32-bit program.
    let kind = i32::try_from(kind)
        .ok()
        .filter(|k| *k > 0)
        .ok_or_else(|| at.bad("mtype", kind, "no type of a message"))?;
    let padded = reader.bytes(u64::from(size).next_multiple_of(8))?;
    let text = usize::try_from(size).ok().and_then(|n| padded.get(..n));
    Ok(Message {
        kind,
        text: text.unwrap_or_default().to_vec(),
    })
}

fn perm(at: &At, desc: Option<&proto::IpcDesc>) -> Result<IpcPerm, Error> {
    let desc = at.req("desc", desc)?;
    let at = &at.sub("desc");
    let (id, mode) = (need!(at, desc.id), need!(at, desc.mode));
    if id > i32::MAX.cast_unsigned() {
        return Err(at.bad("id", id, "negative"));
    }
    if mode & !0o777 != 0 {
        return Err(at.unknown("mode", mode));
    }
    Ok(IpcPerm {
        id,
        key: need!(at, desc.key),
        uid: need!(at, desc.uid),
        gid: need!(at, desc.gid),
        cuid: need!(at, desc.cuid),
        cgid: need!(at, desc.cgid),
        mode,
    })
}

/// Reads the namespace's limits.
pub(super) fn limits(source: &mut Source<'_>, ns: Option<u32>) -> Result<Option<IpcLimits>, Error> {
    let Some(ns) = ns else { return Ok(None) };
    let name = format!("ipcns-var-{ns}.img");
    if source.image(&name)?.is_none() {
        return Ok(None);
    }
    let at = At::file(&name).entry(0);
    let e: proto::IpcVar = source.one(&name, magic::IPC_VAR)?;
    let sem: [u32; 4] = e.sem_ctls.as_slice().try_into().map_err(|_| {
        at.err(
            "sem_ctls",
            Fault::BadCount {
                expected: "4 limits of semaphores",
                found: u64::try_from(e.sem_ctls.len()).unwrap_or(u64::MAX),
            },
        )
    })?;
    // -1: no id was waiting.
    let next = |id: Option<u32>| id.filter(|id| *id <= i32::MAX.cast_unsigned());
    Ok(Some(IpcLimits {
        sem,
        msgmax: need!(at, e.msg_ctlmax),
        msgmnb: need!(at, e.msg_ctlmnb),
        msgmni: need!(at, e.msg_ctlmni),
        shmmax: need!(at, e.shm_ctlmax),
        shmall: need!(at, e.shm_ctlall),
        shmmni: need!(at, e.shm_ctlmni),
        shm_rmid_forced: need!(at, e.shm_rmid_forced),
        mqueue: [
            Some(need!(at, e.mq_queues_max)),
            Some(need!(at, e.mq_msg_max)),
            Some(need!(at, e.mq_msgsize_max)),
            e.mq_msg_default,
            e.mq_msgsize_default,
        ],
        next: [
            next(e.msg_next_id),
            next(e.sem_next_id),
            next(e.shm_next_id),
        ],
    }))
}
