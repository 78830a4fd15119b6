//! Message queues: their messages are sent again, in order.

#![allow(
    clippy::useless_conversion,
    reason = "the width of C's long and of msglen_t differs between targets"
)]

use std::io;

use armrest_images::{Message, Queue};

use super::{Kind, Maker, words, wrong};
use crate::error::Error;
use crate::os;

pub(super) fn make(q: &Queue, maker: &mut Maker<'_>) -> Result<(), Error> {
    let what = words(
        Kind::Queue,
        &q.perm,
        &format!("{} messages", q.messages.len()),
    );
    let failed = |call: &str, e: &io::Error| wrong(&what, Kind::Queue, call, e);
    let id = maker.create(Kind::Queue, &q.perm, 0, 0, &what)?;
    let mut ds = stat(id).map_err(|e| failed("ctl(IPC_STAT)", &e))?;
    let now = ds.msg_perm;
    // The limit may have been lowered when the messages were in it already; their number is limited by it too.
    let bytes: usize = q.messages.iter().map(|m| m.text.len()).sum();
    let bytes =
        libc::msglen_t::try_from(bytes.max(q.messages.len())).unwrap_or(libc::msglen_t::MAX);
    if bytes > ds.msg_qbytes {
        ds.msg_qbytes = bytes;
        // SAFETY: IPC_SET reads the structure that IPC_STAT filled.
        os::check(unsafe { libc::msgctl(id, libc::IPC_SET, &mut ds) })
            .map_err(|e| failed("ctl(IPC_SET)", &e))?;
    }
    for (n, m) in q.messages.iter().enumerate() {
        send(id, m).map_err(|e| failed(&format!("snd of message {n}"), &e))?;
    }
    ds.msg_qbytes = q.qbytes.into();
    let set = |perm: &mut libc::ipc_perm| {
        ds.msg_perm = *perm;
        // SAFETY: IPC_SET reads the structure that IPC_STAT filled.
        os::check(unsafe { libc::msgctl(id, libc::IPC_SET, &mut ds) }).map(drop)
    };
    maker.finish(Kind::Queue, &q.perm, &what, set, now)
}

fn send(id: libc::c_int, m: &Message) -> io::Result<()> {
    const WORD: usize = size_of::<libc::c_long>();
    let mut words: Vec<libc::c_long> = vec![0; 1 + m.text.len().div_ceil(WORD)];
    words[0] = m.kind.into();
    for (word, bytes) in words[1..].iter_mut().zip(m.text.chunks(WORD)) {
        let mut all = [0; WORD];
        all[..bytes.len()].copy_from_slice(bytes);
        *word = libc::c_long::from_ne_bytes(all);
    }
    // SAFETY: `words` holds the type and at least as many bytes of text as the call is told.
    let sent = unsafe { libc::msgsnd(id, words.as_ptr().cast(), m.text.len(), libc::IPC_NOWAIT) };
    os::check(sent).map(drop)
}

fn stat(id: libc::c_int) -> io::Result<libc::msqid_ds> {
    let mut ds = std::mem::MaybeUninit::<libc::msqid_ds>::zeroed();
    // SAFETY: IPC_STAT fills the structure; zeroed it is valid.
    unsafe {
        os::check(libc::msgctl(id, libc::IPC_STAT, ds.as_mut_ptr()))?;
        Ok(ds.assume_init())
    }
}

/// The most bytes that a queue takes.
///
/// # Errors
/// What the kernel says.
pub fn qbytes(id: libc::c_int) -> io::Result<u64> {
    stat(id).map(|ds| ds.msg_qbytes.into())
}

/// Type and text of the `index`th message of a queue, which stays in it. E2BIG if the text is longer than `room`.
///
/// # Errors
/// What the kernel says; ENOMSG: there are fewer.
pub fn peek(id: libc::c_int, index: i32, room: usize) -> io::Result<(i64, Vec<u8>)> {
    const WORD: usize = size_of::<libc::c_long>();
    const MSG_COPY: libc::c_int = 0o40000;
    let mut words: Vec<libc::c_long> = vec![0; 1 + room.div_ceil(WORD)];
    // SAFETY: `words` has room for the type and `room` bytes of text.
    let got = unsafe {
        libc::msgrcv(
            id,
            words.as_mut_ptr().cast(),
            room,
            index.into(),
            MSG_COPY | libc::IPC_NOWAIT,
        )
    };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    let mut text: Vec<u8> = words[1..].iter().flat_map(|w| w.to_ne_bytes()).collect();
    text.truncate(got);
    Ok((words[0].into(), text))
}
