//! Sockets and terminals, asked themselves: through a copy of the task's descriptor (pidfd_getfd). Looking changes
//! nothing: what waits is peeked at.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use armrest_images::{
    Checkpoint, File as ImageFile, LiveTask, Modes, Socket, SocketKind, SocketName, SocketState,
    Terminal, TerminalFile, TerminalKind,
};

use super::{Finding, Weight, compare};
use crate::os;

/// What a socket says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketNow {
    /// SO_TYPE.
    pub kind: u32,
    /// SO_ACCEPTCONN.
    pub listens: bool,
    /// It has a peer.
    pub peer: bool,
    /// The address that it is bound to.
    pub name: Vec<u8>,
    /// Bytes that can be read at once, as far as they were asked for.
    pub waits: Vec<u8>,
    /// Send and receive buffers.
    pub buffers: (u32, u32),
    /// Values of the options that the images name; none: no such option here.
    pub options: Vec<(u32, Option<u32>)>,
}

/// What a terminal says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TerminalNow {
    /// Number of a pseudo terminal, asked at its master.
    pub index: Option<u32>,
    /// Modes, as words, line and characters.
    pub modes: Option<([u32; 4], [u8; 19])>,
    /// Window.
    pub size: Option<[u16; 4]>,
    /// Foreground group, asked at a master.
    pub pgrp: Option<i32>,
    /// Unread bytes.
    pub unread: Option<u32>,
    /// Packet mode, exclusive, locked.
    pub flags: [Option<bool>; 3],
}

/// Compare all sockets and terminals of a task. Where the kernel gives no copies of descriptors, nothing is compared.
pub fn descriptors(cp: &Checkpoint, live: &LiveTask, pid: u32, ran: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    let Ok(task) = os::pidfd(pid) else { return out };
    for f in &live.fds {
        let what = format!("fd {}", f.fd);
        match cp.files.get(&f.file) {
            Some(ImageFile::Socket(s)) => {
                let Ok(fd) = os::pidfd_getfd(&task, f.fd) else {
                    continue;
                };
                let expected = expected_socket(cp, f.file, s);
                if let Ok(now) = socket_now(fd.as_raw_fd(), &expected) {
                    out.extend(socket(&what, &expected, &now, ran));
                }
            }
            Some(ImageFile::Terminal(t)) => {
                let Some(image) = cp.terminals.get(&t.terminal) else {
                    continue;
                };
                let Ok(fd) = os::pidfd_getfd(&task, f.fd) else {
                    continue;
                };
                let now = terminal_now(fd.as_raw_fd());
                out.extend(terminal(&what, image, made(cp, t), &now, ran));
            }
            _ => {}
        }
    }
    out
}

/// Both ends of a pseudo terminal are in the checkpoint: everything about it is its own.
fn made(cp: &Checkpoint, t: &TerminalFile) -> bool {
    let has = |kind: TerminalKind| {
        cp.files.values().any(|f| match f {
            ImageFile::Terminal(o) => cp
                .terminals
                .get(&o.terminal)
                .is_some_and(|o| o.kind == kind),
            _ => false,
        })
    };
    match cp.terminals.get(&t.terminal).map(|t| t.kind) {
        Some(TerminalKind::Master(_)) => true,
        Some(TerminalKind::Slave(n)) => has(TerminalKind::Master(n)),
        _ => false,
    }
}

/// What a socket of the images would say.
fn expected_socket(cp: &Checkpoint, file: u32, s: &Socket) -> SocketNow {
    let packets = cp.packets.get(&file).map_or(&[][..], |p| p);
    // A stream shows bytes up to those with descriptors, and these; the others show one packet.
    let waits = match s.kind {
        SocketKind::Stream => {
            let with = packets.iter().position(|p| !p.rights.is_empty());
            let shown = packets.iter().take(with.map_or(packets.len(), |n| n + 1));
            shown.flat_map(|p| p.bytes.clone()).collect()
        }
        _ => packets.first().map_or(Vec::new(), |p| p.bytes.clone()),
    };
    SocketNow {
        kind: match s.kind {
            SocketKind::Stream => 1,
            SocketKind::Datagram => 2,
            SocketKind::Packet => 5,
        },
        listens: s.state == SocketState::Listening,
        // One that was closed is a peer still.
        peer: s.peer != 0
            || s.state == SocketState::Connected
                && (s.kind != SocketKind::Datagram || s.name.is_none()),
        name: match &s.name {
            None => Vec::new(),
            Some(SocketName::Abstract(n)) => [&[0], &n[..]].concat(),
            Some(SocketName::Path { given, .. }) => given.clone().into_bytes(),
        },
        waits,
        buffers: (s.options.send_buffer, s.options.receive_buffer),
        options: s
            .options
            .values
            .iter()
            .map(|(n, v)| (*n, Some(*v)))
            .collect(),
    }
}

fn socket(what: &str, image: &SocketNow, now: &SocketNow, ran: bool) -> Vec<Finding> {
    let mut out = Vec::new();
    let read = if ran { Weight::Ran } else { Weight::Differs };
    let text = |b: &[u8]| b.escape_ascii().to_string();
    let mut line = |weight, name: &str, image: String, now: String| {
        compare(&mut out, weight, format!("{what}: {name}"), image, now);
    };
    let differs = Weight::Differs;
    line(
        differs,
        "type",
        image.kind.to_string(),
        now.kind.to_string(),
    );
    line(
        differs,
        "listens",
        image.listens.to_string(),
        now.listens.to_string(),
    );
    line(
        read,
        "has a peer",
        image.peer.to_string(),
        now.peer.to_string(),
    );
    line(differs, "name", text(&image.name), text(&now.name));
    line(
        read,
        "waits to be read",
        text(&image.waits),
        text(&now.waits),
    );
    line(
        differs,
        "buffers",
        format!("{:?}", image.buffers),
        format!("{:?}", now.buffers),
    );
    for ((n, image), (_, now)) in image.options.iter().zip(&now.options) {
        let (image, now) = (image.unwrap_or(0), now.unwrap_or(0));
        line(
            differs,
            &format!("socket option {n}"),
            image.to_string(),
            now.to_string(),
        );
    }
    out
}

fn terminal(
    what: &str,
    image: &Terminal,
    made: bool,
    now: &TerminalNow,
    ran: bool,
) -> Vec<Finding> {
    let mut out = Vec::new();
    // The caller's terminal is what it is.
    if !made {
        return out;
    }
    let read = if ran { Weight::Ran } else { Weight::Differs };
    let mut line = |weight, name: &str, image: String, now: String| {
        compare(&mut out, weight, format!("{what}: {name}"), image, now);
    };
    let differs = Weight::Differs;
    let words = |m: &Modes| ([m.input, m.output, m.control, m.local], m.chars);
    if let (Some(m), Some(n)) = (&image.modes, &now.modes) {
        // The line's number and unused characters apart, modes are words and characters.
        line(
            differs,
            "modes",
            format!("{:x?}", words(m)),
            format!("{n:x?}"),
        );
    }
    if let (Some(m), Some(n)) = (&image.size, &now.size) {
        line(differs, "window", format!("{m:?}"), format!("{n:?}"));
    }
    if let (TerminalKind::Master(m), Some(n)) = (image.kind, now.index) {
        line(differs, "number", m.to_string(), n.to_string());
    }
    if let (TerminalKind::Master(_), Some(n)) = (image.kind, now.pgrp) {
        line(
            read,
            "foreground group",
            image.pgrp.to_string(),
            n.to_string(),
        );
    }
    if let Some(n) = now.unread {
        line(
            read,
            "unread bytes",
            image.input.len().to_string(),
            n.to_string(),
        );
    }
    let flags = [image.packet_mode, image.exclusive, image.locked];
    for ((name, image), now) in ["packet mode", "exclusive", "locked"]
        .iter()
        .zip(flags)
        .zip(now.flags)
    {
        if let Some(now) = now {
            line(differs, name, image.to_string(), now.to_string());
        }
    }
    out
}

fn option(fd: RawFd, number: libc::c_int) -> io::Result<u32> {
    let mut now: libc::c_int = 0;
    let mut len: libc::socklen_t = 4;
    let at = std::ptr::from_mut(&mut now).cast();
    // SAFETY: room for one int, as the call is told.
    os::check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, number, at, &mut len) })?;
    Ok(now.cast_unsigned())
}

/// The bytes of one's own address, or an error if there is no peer.
fn address(
    fd: RawFd,
    call: unsafe extern "C" fn(
        libc::c_int,
        *mut libc::sockaddr,
        *mut libc::socklen_t,
    ) -> libc::c_int,
) -> io::Result<Vec<u8>> {
    let mut bytes = [0u8; 2 + 108 + 2];
    let mut len = libc::socklen_t::try_from(bytes.len()).unwrap_or(0);
    // SAFETY: room as the call is told.
    os::check(unsafe { call(fd, bytes.as_mut_ptr().cast(), &mut len) })?;
    let len = usize::try_from(len).unwrap_or(0).min(bytes.len());
    let mut name = bytes.get(2..len).unwrap_or_default().to_vec();
    if name.first() != Some(&0) {
        name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
    }
    Ok(name)
}

fn socket_now(fd: RawFd, image: &SocketNow) -> io::Result<SocketNow> {
    let mut waits = vec![0u8; image.waits.len() + 4096];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: room as the call is told.
    let n = unsafe { libc::recv(fd, waits.as_mut_ptr().cast(), waits.len(), flags) };
    waits.truncate(usize::try_from(n).unwrap_or(0));
    Ok(SocketNow {
        kind: option(fd, libc::SO_TYPE)?,
        listens: option(fd, libc::SO_ACCEPTCONN)? != 0,
        peer: address(fd, libc::getpeername).is_ok(),
        name: address(fd, libc::getsockname)?,
        waits,
        buffers: (option(fd, libc::SO_SNDBUF)?, option(fd, libc::SO_RCVBUF)?),
        options: image
            .options
            .iter()
            .map(|(n, _)| (*n, option(fd, n.cast_signed()).ok()))
            .collect(),
    })
}

fn ask<T: Default>(fd: RawFd, request: u32) -> Option<T> {
    let mut value = T::default();
    // SAFETY: these requests write a structure of this type.
    let done = unsafe { libc::ioctl(fd, request as _, std::ptr::from_mut(&mut value)) };
    (done >= 0).then_some(value)
}

fn terminal_now(fd: RawFd) -> TerminalNow {
    #[derive(Default)]
    #[repr(C)]
    struct Raw([u32; 4], u8, [u8; 19]);
    let flag = |request| ask::<i32>(fd, request).map(|n| n != 0);
    TerminalNow {
        index: ask(fd, 0x8004_5430),
        modes: ask::<Raw>(fd, 0x5401).map(|r| (r.0, r.2)),
        size: ask(fd, 0x5413),
        pgrp: ask(fd, 0x540f),
        unread: ask(fd, 0x541b),
        flags: [flag(0x8004_5438), flag(0x8004_5440), flag(0x8004_5439)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::load;

    #[test]
    fn a_socket_differs_by_what_it_says() {
        let cp = load("sockets");
        let (id, s) = cp.socket(10854).unwrap();
        let good = expected_socket(&cp, id, s);
        assert_eq!(good.waits, b"one");
        assert_eq!(socket("fd", &good, &good, false), []);
        let wrong = |f: fn(&mut SocketNow)| {
            let mut now = good.clone();
            f(&mut now);
            socket("fd", &good, &now, false).len()
        };
        assert_eq!(wrong(|n| n.kind = 1), 1);
        assert_eq!(wrong(|n| n.listens = true), 1);
        assert_eq!(wrong(|n| n.peer = false), 1);
        assert_eq!(wrong(|n| n.name = b"x".to_vec()), 1);
        assert_eq!(wrong(|n| n.waits.clear()), 1);
        assert_eq!(wrong(|n| n.buffers.1 = 1), 1);
        assert_eq!(wrong(|n| n.options[0].1 = Some(9)), 1);
    }

    #[test]
    fn a_terminal_differs_by_what_it_says() {
        let cp = load("tty");
        let t = &cp.terminals[&1];
        let m = t.modes.unwrap();
        let good = TerminalNow {
            index: Some(0),
            modes: Some(([m.input, m.output, m.control, m.local], m.chars)),
            size: t.size,
            pgrp: Some(2901),
            unread: Some(0),
            flags: [Some(false); 3],
        };
        assert_eq!(terminal("fd", t, true, &good, false), []);
        let wrong = |f: fn(&mut TerminalNow)| {
            let mut now = good.clone();
            f(&mut now);
            terminal("fd", t, true, &now, false).len()
        };
        assert_eq!(wrong(|n| n.index = Some(3)), 1);
        assert_eq!(wrong(|n| n.modes = Some(([0; 4], [0; 19]))), 1);
        assert_eq!(wrong(|n| n.size = Some([24, 80, 0, 0])), 1);
        assert_eq!(wrong(|n| n.pgrp = Some(1)), 1);
        assert_eq!(wrong(|n| n.unread = Some(5)), 1);
        assert_eq!(wrong(|n| n.flags[0] = Some(true)), 1);
    }
}
