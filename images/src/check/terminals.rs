//! Terminals: openings, the terminals themselves, and their unread input.

use std::collections::BTreeMap;

use super::at::{At, need};
use super::files::owner;
use super::source::Source;
use crate::checkpoint::File;
use crate::error::{Error, Fault};
use crate::terminals::{Modes, Terminal, TerminalFile, TerminalKind};
use crate::{magic, proto};

/// Numbers of pseudo terminals end here (NR_UNIX98_PTY_MAX).
const MAX_INDEX: u32 = 1 << 20;
/// More than a terminal holds of unread input in either direction.
const MAX_INPUT: usize = 1 << 17;
/// Entries of c_cc that userspace may have.
const MAX_CHARS: usize = 64;

pub(super) fn opening(at: &At, e: &proto::Tty) -> Result<TerminalFile, Error> {
    Ok(TerminalFile {
        terminal: need!(at, e.tty_info_id),
        flags: need!(at, e.flags),
        owner: owner(at, e.fown.clone())?,
        reg: e.regf_id,
    })
}

/// Reads `tty-info.img` and `tty-data.img`. Every opening has its terminal, and its path if it says so.
pub(super) fn read(
    source: &mut Source<'_>,
    files: &BTreeMap<u32, File>,
) -> Result<BTreeMap<u32, Terminal>, Error> {
    let name = "tty-info.img";
    let file = At::file(name);
    let mut all = BTreeMap::new();
    let entries: Vec<proto::TtyInfo> = source.array(name, magic::TTY_INFO)?;
    for (n, e) in entries.into_iter().enumerate() {
        let at = file.entry(n);
        let id = need!(at, e.id);
        if all.insert(id, terminal(&at, &e)?).is_some() {
            return Err(at.twice("terminal", id));
        }
    }
    let name = "tty-data.img";
    let file = At::file(name);
    let entries: Vec<proto::TtyData> = source.array(name, magic::TTY_DATA)?;
    for (n, e) in entries.into_iter().enumerate() {
        let at = file.entry(n);
        let (id, data) = (need!(at, e.tty_id), at.req("data", e.data)?);
        let Some(t) = all.get_mut(&id) else {
            return Err(at.dangling("tty_id", "terminal", id));
        };
        if data.len() > MAX_INPUT - t.input.len() {
            let found = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let expected = "less than a terminal holds";
            return Err(at.err("data", Fault::BadCount { expected, found }));
        }
        t.input.extend(data);
    }
    let at = At::file("files.img");
    for f in files.values() {
        if let File::Terminal(t) = f {
            if !all.contains_key(&t.terminal) {
                return Err(at.dangling("tty.tty_info_id", "terminal", t.terminal));
            }
            if let Some(reg) = t.reg {
                super::files::regular_id(&at, "tty.regf_id", files, reg)?;
            }
        }
    }
    Ok(all)
}

fn terminal(at: &At, e: &proto::TtyInfo) -> Result<Terminal, Error> {
    let (kind, rdev) = (need!(at, e.kind), need!(at, e.rdev));
    let kind = match kind {
        1 => {
            let pty = at.req("pty", e.pty.as_ref())?;
            let at = at.sub("pty");
            let index = need!(at, pty.index);
            if index >= MAX_INDEX {
                return Err(at.bad("index", index, "no number of a pseudo terminal"));
            }
            // Major 5, minor 2 is the master's; slaves have the majors from 136 on.
            if rdev == 0x502 {
                TerminalKind::Master(index)
            } else {
                TerminalKind::Slave(index)
            }
        }
        2 => TerminalKind::Console,
        3 => TerminalKind::Virtual,
        4 => TerminalKind::Controlling,
        5 => TerminalKind::External,
        6 => TerminalKind::Serial,
        _ => return Err(at.unknown("type", kind)),
    };
    let modes = |field: &str, m: &Option<proto::Termios>| match m {
        None => Ok(None),
        Some(m) => modes(&at.sub(field), m).map(Some),
    };
    let size = match &e.winsize {
        None => None,
        Some(w) => {
            let at = at.sub("winsize");
            let all = [
                need!(at, w.ws_row),
                need!(at, w.ws_col),
                need!(at, w.ws_xpixel),
                need!(at, w.ws_ypixel),
            ];
            let mut size = [0u16; 4];
            for (to, from) in size.iter_mut().zip(all) {
                *to = u16::try_from(from).map_err(|_| at.bad("ws_row", from, "no window"))?;
            }
            Some(size)
        }
    };
    Ok(Terminal {
        kind,
        locked: need!(at, e.locked),
        exclusive: need!(at, e.exclusive),
        packet_mode: need!(at, e.packet_mode),
        sid: need!(at, e.sid),
        pgrp: need!(at, e.pgrp),
        rdev,
        dev: e.dev,
        modes: modes("termios", &e.termios)?,
        locked_modes: modes("termios_locked", &e.termios_locked)?,
        size,
        owner: e.uid.zip(e.gid),
        input: Vec::new(),
    })
}

/// The dumper copies the bytes of c_cc over an array of words: four characters a word, and what lies behind is not its
/// business.
fn modes(at: &At, m: &proto::Termios) -> Result<Modes, Error> {
    if m.c_cc.len() > MAX_CHARS {
        let found = u64::try_from(m.c_cc.len()).unwrap_or(u64::MAX);
        let expected = "at most 64";
        return Err(at.err("c_cc", Fault::BadCount { expected, found }));
    }
    let mut chars = [0u8; 19];
    let bytes = m.c_cc.iter().flat_map(|w| w.to_le_bytes());
    for (to, from) in chars.iter_mut().zip(bytes) {
        *to = from;
    }
    let line = need!(at, m.c_line);
    Ok(Modes {
        input: need!(at, m.c_iflag),
        output: need!(at, m.c_oflag),
        control: need!(at, m.c_cflag),
        local: need!(at, m.c_lflag),
        line: u8::try_from(line).map_err(|_| at.bad("c_line", line, "no line discipline"))?,
        chars,
    })
}
