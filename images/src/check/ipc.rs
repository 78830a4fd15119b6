//! Shared memory, semaphore sets, message queues and limits of the dumped IPC namespace.

use std::collections::BTreeSet;

use super::at::{At, need};
use super::objects;
use super::source::Source;
use crate::checkpoint::{IpcLimits, IpcPerm, Message, Queue, Segment, SemSet};
use crate::container::Reader;
use crate::error::{Error, Fault};
use crate::{magic, proto};

/// The largest value of a semaphore (SEMVMX).
const SEMVMX: u16 = 32767;

const SHM_DEST: u32 = 0o1000;
const SHM_LOCKED: u32 = 0o2000;

/// The entries of an image of the namespace: things with an id and an owner each.
trait Owned: prost::Message + Default {
    /// The image's name, without that of the namespace.
    const IMAGE: &str;
    const MAGIC: u32;
    /// What it is.
    const WHAT: &str;
    /// Mode bits that it can have.
    const MODE: u32;

    fn desc(&self) -> Option<&proto::IpcDesc>;
}

impl Owned for proto::IpcShm {
    const IMAGE: &str = "shm";
    const MAGIC: u32 = magic::IPC_SHM;
    const WHAT: &str = "SysV segment";
    const MODE: u32 = 0o777 | SHM_DEST | SHM_LOCKED;

    fn desc(&self) -> Option<&proto::IpcDesc> {
        self.desc.as_ref()
    }
}

impl Owned for proto::IpcSem {
    const IMAGE: &str = "sem";
    const MAGIC: u32 = magic::IPC_SEM;
    const WHAT: &str = "semaphore set";
    const MODE: u32 = 0o777;

    fn desc(&self) -> Option<&proto::IpcDesc> {
        self.desc.as_ref()
    }
}

impl Owned for proto::IpcMsgQueue {
    const IMAGE: &str = "msg";
    const MAGIC: u32 = magic::IPC_MSG;
    const WHAT: &str = "message queue";
    const MODE: u32 = 0o777;

    fn desc(&self) -> Option<&proto::IpcDesc> {
        self.desc.as_ref()
    }
}

/// Reads what an image of the namespace holds, with `read` for what is not id and owner; no id may come twice.
fn all<E: Owned, T>(
    source: &mut Source<'_>,
    ns: Option<u32>,
    mut read: impl FnMut(&mut Source<'_>, &mut Reader<'_>, &At, &E, IpcPerm) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let Some(ns) = ns else { return Ok(Vec::new()) };
    let name = format!("ipcns-{}-{ns}.img", E::IMAGE);
    let Some(bytes) = source.image(&name)? else {
        return Ok(Vec::new());
    };
    let file = At::file(&name);
    let mut reader = Reader::open(&name, &bytes, E::MAGIC)?;
    let (mut out, mut seen) = (Vec::new(), BTreeSet::new());
    while let Some(e) = reader.entry_or_end::<E>()? {
        let at = file.entry(reader.entry().unwrap_or_default());
        let perm = perm(&at, e.desc(), E::MODE)?;
        if !seen.insert(perm.id) {
            return Err(at.twice(E::WHAT, perm.id));
        }
        out.push(read(source, &mut reader, &at, &e, perm)?);
    }
    Ok(out)
}

/// Reads the segments of shared memory.
pub(super) fn segments(source: &mut Source<'_>, ns: Option<u32>) -> Result<Vec<Segment>, Error> {
    all(source, ns, |source, _, at, e: &proto::IpcShm, perm| {
        if e.in_pagemaps != Some(true) {
            return Err(at.err(
                "in_pagemaps",
                Fault::Unsupported("old images: contents of SysV segments inline"),
            ));
        }
        let size = need!(at, e.size);
        // A 32-bit kernel counts the bytes in a size_t.
        if size == 0 || size > 0xffff_f000 {
            return Err(at.bad("size", size, "no size of a segment"));
        }
        Ok(Segment {
            perm: IpcPerm {
                mode: perm.mode & 0o777,
                ..perm
            },
            dest: perm.mode & SHM_DEST != 0,
            locked: perm.mode & SHM_LOCKED != 0,
            size,
            hugetlb: e.hugetlb_flag.unwrap_or(0),
            pages: objects::contents(source, u64::from(perm.id), size)?,
        })
    })
}

/// Reads the semaphore sets.
pub(super) fn semaphores(source: &mut Source<'_>, ns: Option<u32>) -> Result<Vec<SemSet>, Error> {
    all(source, ns, |_, reader, at, e: &proto::IpcSem, perm| {
        let count = need!(at, e.nsems);
        if count == 0 {
            return Err(at.bad("nsems", count, "a set has at least one semaphore"));
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
        Ok(SemSet { perm, values })
    })
}

/// Reads the message queues with their messages, first to last.
pub(super) fn queues(source: &mut Source<'_>, ns: Option<u32>) -> Result<Vec<Queue>, Error> {
    all(source, ns, |_, reader, at, e: &proto::IpcMsgQueue, perm| {
        let mut messages = Vec::new();
        for n in 0..need!(at, e.qnum) {
            let at = at.index("messages", usize::try_from(n).unwrap_or(usize::MAX));
            let m: proto::IpcMsg = reader.framed()?;
            messages.push(message(reader, &at, &m)?);
        }
        Ok(Queue {
            perm,
            qbytes: need!(at, e.qbytes),
            messages,
        })
    })
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

fn perm(at: &At, desc: Option<&proto::IpcDesc>, known: u32) -> Result<IpcPerm, Error> {
    let desc = at.req("desc", desc)?;
    let at = &at.sub("desc");
    let (id, mode) = (need!(at, desc.id), need!(at, desc.mode));
    if id > i32::MAX.cast_unsigned() {
        return Err(at.bad("id", id, "negative"));
    }
    if mode & !known != 0 {
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
    let at = At::file(&name).entry(0);
    let Some(e) = source.one_or_none::<proto::IpcVar>(&name, magic::IPC_VAR)? else {
        return Ok(None);
    };
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
