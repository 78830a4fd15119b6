//! Terminals: pseudo terminals with both ends in the checkpoint are made anew; one that lies outside of it is the
//! caller's (`--shell-job`), or opened by its path, or refused by name.

use std::collections::{BTreeMap, BTreeSet};

use armrest_images::{Checkpoint, File, Modes, Terminal, TerminalKind};

use crate::files::Inherited;
use crate::types::{Refusal, RefusalKind};

/// All that is decided about terminals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terminals {
    /// Pseudo terminals that are made.
    pub ptys: Vec<Pty>,
    /// Where each opening comes from, by file id.
    pub openings: BTreeMap<u32, Opening>,
    /// Sessions of the checkpoint that get their terminal back.
    pub controls: Vec<Control>,
    /// What becomes of the caller's terminal, if a task uses it.
    pub caller: Option<Caller>,
}

/// A pseudo terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pty {
    /// Its number.
    pub index: u32,
    /// Its master end: key in `Checkpoint::terminals`.
    pub master: u32,
    /// Its other end, if somebody has it open.
    pub slave: Option<u32>,
}

/// Where an open terminal comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The master end of the pseudo terminal with this place in [`Terminals::ptys`].
    Master(usize),
    /// The other end.
    Slave(usize),
    /// `/dev/tty`, opened where it means this one.
    Controlling(usize),
    /// The caller's terminal.
    Caller,
    /// By its path.
    Path,
}

/// A session whose leader takes its terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Pid of the leader in the checkpoint.
    pub sid: u32,
    /// Place in [`Terminals::ptys`].
    pub pty: usize,
    /// Foreground group.
    pub pgrp: u32,
}

/// The caller's terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The group of the checkpoint that was in the foreground, if one was.
    pub pgrp: Option<u32>,
    /// Its modes.
    pub modes: Option<Modes>,
}

/// Openings of terminals that the caller does not give.
fn openings<'a>(
    cp: &'a Checkpoint,
    given: &'a Inherited,
) -> impl Iterator<Item = (u32, u32, &'a Terminal)> {
    cp.files.iter().filter_map(move |(id, f)| match f {
        File::Terminal(t) if !given.contains_key(id) => {
            Some((*id, t.terminal, cp.terminals.get(&t.terminal)?))
        }
        _ => None,
    })
}

/// Decide. `shell_job`: the caller's terminal may be used.
pub fn plan(
    cp: &Checkpoint,
    given: &Inherited,
    shell_job: bool,
    out: &mut Vec<Refusal>,
) -> Terminals {
    let mut t = Terminals::default();
    let mut no = |what: String, hint: &str| {
        out.push(Refusal {
            kind: RefusalKind::Unsupported,
            what,
            hint: hint.to_owned(),
        });
    };
    let later = "this version does not restore it";
    let pids: BTreeSet<u32> = cp.tasks.iter().map(|t| t.pid).collect();
    let groups: BTreeSet<u32> = cp.tasks.iter().map(|t| t.pgid).collect();
    let alive = cp.tasks.iter().filter(|t| t.live.is_some());
    let leaders: BTreeSet<u32> = alive.filter(|t| t.sid == t.pid).map(|t| t.pid).collect();
    // By index; of several the first.
    let mut slaves: BTreeMap<u32, (u32, &Terminal)> = BTreeMap::new();
    for (id, terminal) in &cp.terminals {
        if let TerminalKind::Slave(index) = terminal.kind {
            slaves.entry(index).or_insert((*id, terminal));
        }
    }
    let mut indices = BTreeSet::new();
    for (file, master, terminal) in openings(cp, given) {
        let TerminalKind::Master(index) = terminal.kind else {
            continue;
        };
        let who = crate::files::name(cp, file);
        if !indices.insert(index) {
            no(
                format!("{who}: opened twice"),
                "no kernel does that: the images are damaged",
            );
            continue;
        }
        if let Some(m) = terminal.modes.filter(|m| m.line != 0) {
            no(format!("{who}: line discipline {}", m.line), later);
        }
        let slave = slaves.get(&index);
        let pty = Pty {
            index,
            master,
            slave: slave.map(|s| s.0),
        };
        t.openings.insert(file, Opening::Master(t.ptys.len()));
        t.ptys.push(pty);
        let sid = slave.map_or(0, |s| s.1.sid).max(terminal.sid);
        let pgrp = slave.map_or(terminal.pgrp, |s| s.1.pgrp);
        if sid == 0 {
            continue;
        }
        if !leaders.contains(&sid) {
            no(
                format!("{who}: controls session {sid}, whose leader is not in the checkpoint"),
                later,
            );
            continue;
        }
        t.controls.push(Control {
            sid,
            pty: t.ptys.len() - 1,
            pgrp,
        });
    }
    let other_ends: BTreeMap<u32, usize> = t
        .ptys
        .iter()
        .zip(0..)
        .filter_map(|(p, n)| Some((p.slave?, n)))
        .collect();
    // Of several that claim the same session, the first.
    let controls: BTreeMap<u32, usize> = t.controls.iter().rev().map(|c| (c.sid, c.pty)).collect();
    for (file, id, terminal) in openings(cp, given) {
        let who = crate::files::name(cp, file);
        let own = match terminal.kind {
            TerminalKind::Master(_) => continue,
            TerminalKind::Slave(_) => other_ends.get(&id).copied().map(Opening::Slave),
            TerminalKind::Controlling => {
                let pty = controls.get(&terminal.sid).copied();
                pty.map(Opening::Controlling)
            }
            TerminalKind::Console | TerminalKind::Virtual | TerminalKind::Serial
                if terminal.sid == 0 =>
            {
                Some(Opening::Path)
            }
            TerminalKind::External => {
                let given = outside_name(terminal).unwrap_or_else(|| "tty[RDEV:DEV]".into());
                no(
                    format!("{who}: external to the checkpoint"),
                    &format!("give it: --inherit-fd fd[N]:{given}"),
                );
                continue;
            }
            _ => None,
        };
        let leader = pids.contains(&terminal.sid);
        match own {
            Some(own) => {
                t.openings.insert(file, own);
            }
            None if leader => no(
                format!(
                    "{who}: controls session {} of the checkpoint, but its other end is outside",
                    terminal.sid
                ),
                later,
            ),
            None if shell_job => {
                t.openings.insert(file, Opening::Caller);
                let caller = t.caller.get_or_insert_default();
                if groups.contains(&terminal.pgrp) {
                    caller.pgrp = Some(terminal.pgrp);
                    caller.modes = caller.modes.or(terminal.modes);
                }
            }
            None => no(
                format!("{who}: a terminal outside of the checkpoint"),
                "restore from a terminal with --shell-job: the task gets that one",
            ),
        }
    }
    t
}

/// What criu calls a terminal outside: both numbers in hexadecimal. Nothing if the images do not tell its file system.
pub(crate) fn outside_name(t: &Terminal) -> Option<String> {
    t.dev.map(|dev| format!("tty[{:x}:{dev:x}]", t.rdev))
}

/// What comes back otherwise than it was.
pub fn notes(cp: &Checkpoint, t: &Terminals) -> Vec<String> {
    let mut out = Vec::new();
    let groups: BTreeSet<(u32, u32)> = cp.tasks.iter().map(|t| (t.pgid, t.sid)).collect();
    for c in &t.controls {
        if !groups.contains(&(c.pgrp, c.sid)) {
            out.push(format!(
                "terminal {}: its foreground group {} is gone: that of the session leader",
                t.ptys.get(c.pty).map_or(0, |p| p.index),
                c.pgrp
            ));
        }
    }
    if t.caller.is_some() {
        out.push("terminals are the caller's: window and unread input are what they are".into());
    }
    if t.openings.values().any(|o| *o == Opening::Path) {
        out.push("a console is opened as it is: its modes are not touched".into());
    }
    // Speeds beside the standard ones are no part of what the dumper asks for.
    const CBAUD: u32 = 0o10017;
    let other = |m: &Option<Modes>| m.is_some_and(|m| m.control & CBAUD == 0o10000);
    if t.ptys
        .iter()
        .filter_map(|p| cp.terminals.get(&p.master))
        .any(|t| other(&t.modes))
    {
        out.push(
            "the images do not record a terminal's speed that is none of the standard ones".into(),
        );
    }
    out
}

/// A terminal in words.
pub fn words(t: &Terminal) -> String {
    match t.kind {
        TerminalKind::Master(n) => format!("master of terminal /dev/pts/{n}"),
        TerminalKind::Slave(n) => format!("terminal /dev/pts/{n}"),
        TerminalKind::Console => "terminal /dev/console".into(),
        TerminalKind::Virtual => format!("virtual console {}", t.rdev & 0xff),
        TerminalKind::Controlling => "controlling terminal /dev/tty".into(),
        TerminalKind::External => "external terminal".into(),
        TerminalKind::Serial => format!("serial terminal {}:{}", t.rdev >> 8, t.rdev & 0xff),
    }
}
