//! Looks into images and checkpoints: the data behind `armrest show` and `armrest x`.

use serde_json::{Map, Value};

pub use crate::explore::*;

use crate::container::Reader;
use crate::error::{Error, Fault};
use crate::proto::{self, Show, Style};
use crate::{container, magic};

type Entry = Option<Value>;

fn next<M: prost::Message + Default + Show>(r: &mut Reader<'_>) -> Result<Entry, Error> {
    Ok(r.entry_or_end::<M>()?.and_then(|m| m.show(Style::Plain)))
}

/// Adds the raw bytes that follow an entry.
fn with(value: Entry, name: &str, bytes: &[u8]) -> Entry {
    value.map(|mut v| {
        if let Value::Object(map) = &mut v
            && !bytes.is_empty()
        {
            map.insert(name.to_owned(), raw(bytes));
        }
        v
    })
}

/// Raw bytes, shortened.
fn raw(bytes: &[u8]) -> Value {
    let head = bytes.get(..64).unwrap_or(bytes);
    let dots = if bytes.len() > head.len() { "..." } else { "" };
    Value::from(format!("{} bytes: {}{dots}", bytes.len(), proto::hex(head)))
}

/// One kind of image: magic, name, reader of one entry (with what follows it).
struct Kind {
    magic: u32,
    name: &'static str,
    entry: fn(&mut Reader<'_>) -> Result<Entry, Error>,
}

macro_rules! kinds {
    ($($magic:ident $name:literal $entry:expr;)*) => { &[$(Kind { magic: magic::$magic, name: $name, entry: $entry }),*] };
}

const KINDS: &[Kind] = kinds! {
    INVENTORY "INVENTORY" next::<proto::Inventory>;
    PSTREE "PSTREE" next::<proto::Pstree>;
    CORE "CORE" next::<proto::Core>;
    IDS "IDS" next::<proto::Ids>;
    MM "MM" next::<proto::Mm>;
    FS "FS" next::<proto::Fs>;
    FDINFO "FDINFO" next::<proto::Fdinfo>;
    FILES "FILES" next::<proto::FileEntry>;
    PAGEMAP "PAGEMAP" pagemap;
    MEMFD "MEMFD_INODE" next::<proto::MemfdInode>;
    SECCOMP "SECCOMP" next::<proto::Seccomp>;
    STATS "STATS" next::<proto::Stats>;
    TIMENS "TIMENS" next::<proto::Timens>;
    IPC_VAR "IPCNS_VAR" next::<proto::IpcVar>;
    IPC_SHM "IPCNS_SHM" segment;
    IPC_MSG "IPCNS_MSG" queue;
    IPC_SEM "IPCNS_SEM" semaphores;
    UTSNS "UTSNS" next::<proto::Utsns>;
    USERNS "USERNS" next::<proto::Opaque>;
    PIDNS "PIDNS" next::<proto::Opaque>;
    MOUNTPOINTS "MNTS" next::<proto::Opaque>;
    NETNS "NETNS" next::<proto::Opaque>;
    NETDEV "NETDEV" next::<proto::Opaque>;
    CGROUP "CGROUP" next::<proto::Cgroup>;
    PIPES_DATA "PIPES_DATA" pipe_data;
    FIFO_DATA "FIFO_DATA" pipe_data;
    SK_QUEUES "SK_QUEUES" packet;
    TCP_STREAM "TCP_STREAM" tcp;
    TTY_INFO "TTY_INFO" next::<proto::TtyInfo>;
    TTY_DATA "TTY_DATA" next::<proto::TtyData>;
    REMAP_FPATH "REMAP_FPATH" next::<proto::RemapFpath>;
    GHOST_FILE "GHOST_FILE" ghost;
    FILE_LOCKS "FILE_LOCKS" next::<proto::FileLock>;
    BPFMAP_FILE "BPFMAP_FILE" next::<proto::Opaque>;
    BPFMAP_DATA "BPFMAP_DATA" rest;
    AUTOFS "AUTOFS" next::<proto::Opaque>;
    BINFMT_MISC "BINFMT_MISC" next::<proto::Opaque>;
    APPARMOR "APPARMOR" next::<proto::Opaque>;
    SIGACTS "SIGACT" next::<proto::Sigaction>;
};

fn pagemap(r: &mut Reader<'_>) -> Result<Entry, Error> {
    if r.entry().is_none() {
        next::<proto::PagemapHead>(r)
    } else {
        next::<proto::PagemapEntry>(r)
    }
}

fn segment(r: &mut Reader<'_>) -> Result<Entry, Error> {
    let Some(e) = r.entry_or_end::<proto::IpcShm>()? else {
        return Ok(None);
    };
    let bytes = match (e.in_pagemaps, e.size) {
        (Some(true), _) | (_, None) => &[],
        (_, Some(size)) => r.bytes(size.checked_next_multiple_of(4).unwrap_or(u64::MAX))?,
    };
    Ok(with(e.show(Style::Plain), "contents", bytes))
}

fn queue(r: &mut Reader<'_>) -> Result<Entry, Error> {
    let Some(e) = r.entry_or_end::<proto::IpcMsgQueue>()? else {
        return Ok(None);
    };
    let mut messages = Vec::new();
    for _ in 0..e.qnum.unwrap_or(0) {
        let m: proto::IpcMsg = r.framed()?;
        let size = u64::from(m.msize.unwrap_or(0));
        let padded = r.bytes(size.next_multiple_of(8))?;
        let text = usize::try_from(size)
            .ok()
            .and_then(|n| padded.get(..n))
            .unwrap_or(padded);
        messages.extend(with(m.show(Style::Plain), "text", text));
    }
    let value = e.show(Style::Plain).map(|mut v| {
        if let Value::Object(map) = &mut v {
            map.insert("messages".to_owned(), Value::from(messages));
        }
        v
    });
    Ok(value)
}

fn semaphores(r: &mut Reader<'_>) -> Result<Entry, Error> {
    let Some(e) = r.entry_or_end::<proto::IpcSem>()? else {
        return Ok(None);
    };
    let count = u64::from(e.nsems.unwrap_or(0));
    let padded = r.bytes((count * 2).next_multiple_of(8))?;
    let values = padded
        .as_chunks::<2>()
        .0
        .iter()
        .map(|v| u16::from_le_bytes(*v));
    let values: Vec<u16> = values
        .take(usize::try_from(count).unwrap_or(usize::MAX))
        .collect();
    let value = e.show(Style::Plain).map(|mut v| {
        if let Value::Object(map) = &mut v {
            map.insert("values".to_owned(), Value::from(values));
        }
        v
    });
    Ok(value)
}

fn pipe_data(r: &mut Reader<'_>) -> Result<Entry, Error> {
    let Some(e) = r.entry_or_end::<proto::PipeData>()? else {
        return Ok(None);
    };
    let bytes = r.bytes(u64::from(e.bytes.unwrap_or(0)))?;
    Ok(with(e.show(Style::Plain), "data", bytes))
}

fn packet(r: &mut Reader<'_>) -> Result<Entry, Error> {
    let Some(e) = r.entry_or_end::<proto::SkPacket>()? else {
        return Ok(None);
    };
    let bytes = r.bytes(u64::from(e.length.unwrap_or(0)))?;
    Ok(with(e.show(Style::Plain), "data", bytes))
}

fn tcp(r: &mut Reader<'_>) -> Result<Entry, Error> {
    let Some(e) = r.entry_or_end::<proto::TcpStream>()? else {
        return Ok(None);
    };
    let input = r.bytes(u64::from(e.inq_len.unwrap_or(0)))?;
    let output = r.bytes(u64::from(e.outq_len.unwrap_or(0)))?;
    Ok(with(
        with(e.show(Style::Plain), "inq", input),
        "outq",
        output,
    ))
}

fn ghost(r: &mut Reader<'_>) -> Result<Entry, Error> {
    let Some(e) = r.entry_or_end::<proto::GhostFile>()? else {
        return Ok(None);
    };
    if e.chunks != Some(true) {
        return Ok(with(e.show(Style::Plain), "contents", r.all()));
    }
    let mut chunks = Vec::new();
    while !r.at_end() {
        let c: proto::GhostChunk = r.framed()?;
        let bytes = r.bytes(c.len.unwrap_or(0))?;
        chunks.extend(with(c.show(Style::Plain), "contents", bytes));
    }
    let value = e.show(Style::Plain).map(|mut v| {
        if let Value::Object(map) = &mut v {
            map.insert("data".to_owned(), Value::from(chunks));
        }
        v
    });
    Ok(value)
}

fn rest(r: &mut Reader<'_>) -> Result<Entry, Error> {
    if r.at_end() {
        return Ok(None);
    }
    Ok(with(next::<proto::Opaque>(r)?, "data", r.all()))
}

fn entries(file: &str, bytes: &[u8], mut each: impl FnMut(Value)) -> Result<&'static str, Error> {
    let (found, mut reader) = Reader::any(file, bytes)?;
    let Some(kind) = KINDS.iter().find(|k| k.magic == found) else {
        return Err(Error::new(
            file,
            Fault::WrongMagic {
                found,
                expected: container::COMMON,
            },
        ));
    };
    while let Some(value) = (kind.entry)(&mut reader)? {
        each(value);
    }
    Ok(kind.name)
}

/// Number of entries of an image of any known kind.
///
/// # Errors
/// As [`show`].
pub fn count(file: &str, bytes: &[u8]) -> Result<usize, Error> {
    let mut n = 0;
    entries(file, bytes, |_| n += 1)?;
    Ok(n)
}

/// The image as a tree: `{"magic": KIND, "entries": [...]}`, fields in the order of the message, addresses in
/// hexadecimal.
///
/// # Errors
/// Damage, or a kind that nobody knows.
pub fn show(file: &str, bytes: &[u8]) -> Result<Value, Error> {
    let mut list = Vec::new();
    let name = entries(file, bytes, |v| list.push(v))?;
    let mut map = Map::new();
    map.insert("magic".to_owned(), Value::from(name));
    map.insert("entries".to_owned(), Value::from(list));
    Ok(Value::Object(map))
}
