//! The lines of a journal: written by one process, read by another that believes nothing.

use std::fmt;

use crate::objects::sysv::Kind;

/// As in `/proc/sysvipc`.
fn kind(s: &str) -> Option<Kind> {
    [Kind::Segment, Kind::Set, Kind::Queue]
        .into_iter()
        .find(|k| k.short() == s)
}

/// Which file: device and inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

/// The first line: whose journal this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Pid of the owner, in its pid namespace.
    pub pid: u32,
    /// Its effective user id.
    pub uid: u32,
    /// Which boot of the machine.
    pub boot: String,
    /// Its IPC and pid namespaces, as `/proc/self/ns` names them.
    pub ipc_ns: String,
    /// As above.
    pub pid_ns: String,
    /// Part of each name that is nobody else's.
    pub token: String,
    /// What was restored.
    pub what: String,
}

/// What is about to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Sysv {
        kind: Kind,
        id: Option<i32>,
        key: u32,
        mode: u32,
        /// The user that its creator will be, if this process may choose.
        creator: u32,
    },
    File {
        dir: Node,
        path: String,
        name: String,
    },
    Aside {
        dir: Node,
        path: String,
        name: String,
        aside: String,
        node: Node,
    },
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Number `n` is about to be made.
    Make { n: u32, time: u64, what: What },
    /// It has this id.
    Id { n: u32, id: i32 },
    /// It is this file.
    Node { n: u32, node: Node },
    /// It is gone.
    Gone { n: u32 },
    /// A process that everything belongs to as long as it lives: pid in the owner's pid namespace, start time.
    Task { pid: u32, start: u64 },
}

/// A journal that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    pub head: Head,
    pub lines: Vec<Line>,
}

const MAGIC: &str = "armrest-journal-1";

/// Without blanks and line ends, never empty.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("'")?;
        for b in self.0.bytes() {
            if b.is_ascii_graphic() && b != b'%' {
                write!(f, "{}", char::from(b))?;
            } else {
                write!(f, "%{b:02x}")?;
            }
        }
        Ok(())
    }
}

fn unword(word: &str) -> Option<String> {
    let mut rest = word.strip_prefix('\'')?.as_bytes();
    let mut out = Vec::with_capacity(rest.len());
    while let [b, tail @ ..] = rest {
        if *b == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            out.push(u8::from_str_radix(hex, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            out.push(*b);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

/// A name in a directory, not a way out of it.
fn name(word: &str) -> Option<String> {
    unword(word).filter(|n| !n.is_empty() && !n.contains(['/', '\0']) && n != "." && n != "..")
}

fn path(word: &str) -> Option<String> {
    unword(word).filter(|p| p.starts_with('/') && !p.contains('\0'))
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{MAGIC} {} {} {} {} {} {} {}",
            self.pid,
            self.uid,
            Word(&self.boot),
            Word(&self.ipc_ns),
            Word(&self.pid_ns),
            Word(&self.token),
            Word(&self.what)
        )
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Make { n, time, what } => {
                write!(f, "make {n} {time} ")?;
                match what {
                    What::Sysv {
                        kind,
                        id,
                        key,
                        mode,
                        creator,
                    } => {
                        let id = id.map_or_else(|| "-".into(), |i| i.to_string());
                        writeln!(f, "{} {id} {key:#x} {mode:o} {creator}", kind.short())
                    }
                    What::File { dir, path, name } => writeln!(
                        f,
                        "file {} {} {} {}",
                        dir.dev,
                        dir.ino,
                        Word(path),
                        Word(name)
                    ),
                    What::Aside {
                        dir,
                        path,
                        name,
                        aside,
                        node,
                    } => writeln!(
                        f,
                        "aside {} {} {} {} {} {} {}",
                        dir.dev,
                        dir.ino,
                        Word(path),
                        Word(name),
                        Word(aside),
                        node.dev,
                        node.ino
                    ),
                }
            }
            Line::Id { n, id } => writeln!(f, "id {n} {id}"),
            Line::Node { n, node } => writeln!(f, "node {n} {} {}", node.dev, node.ino),
            Line::Gone { n } => writeln!(f, "gone {n}"),
            Line::Task { pid, start } => writeln!(f, "task {pid} {start}"),
        }
    }
}

fn parse_head(line: &str) -> Option<Head> {
    let w: Vec<&str> = line.split(' ').collect();
    let [MAGIC, pid, uid, boot, ipc_ns, pid_ns, token, what] = w[..] else {
        return None;
    };
    Some(Head {
        pid: pid.parse().ok()?,
        uid: uid.parse().ok()?,
        boot: unword(boot)?,
        ipc_ns: unword(ipc_ns)?,
        pid_ns: unword(pid_ns)?,
        token: unword(token)
            .filter(|t| t.len() == 16 && t.bytes().all(|b| b.is_ascii_hexdigit()))?,
        what: unword(what)?,
    })
}

fn node(dev: &str, ino: &str) -> Option<Node> {
    Some(Node {
        dev: dev.parse().ok()?,
        ino: ino.parse().ok()?,
    })
}

fn parse_line(line: &str) -> Option<Line> {
    let w: Vec<&str> = line.split(' ').collect();
    Some(match w[..] {
        [
            "make",
            n,
            time,
            word @ ("shm" | "sem" | "msg"),
            id,
            key,
            mode,
            creator,
        ] => Line::Make {
            n: n.parse().ok()?,
            time: time.parse().ok()?,
            what: What::Sysv {
                kind: kind(word)?,
                id: if id == "-" {
                    None
                } else {
                    Some(id.parse().ok().filter(|i| *i >= 0)?)
                },
                key: u32::from_str_radix(key.strip_prefix("0x")?, 16).ok()?,
                mode: u32::from_str_radix(mode, 8).ok()?,
                creator: creator.parse().ok()?,
            },
        },
        ["make", n, time, "file", dev, ino, dir, file] => Line::Make {
            n: n.parse().ok()?,
            time: time.parse().ok()?,
            what: What::File {
                dir: node(dev, ino)?,
                path: path(dir)?,
                name: name(file)?,
            },
        },
        [
            "make",
            n,
            time,
            "aside",
            dev,
            ino,
            dir,
            file,
            aside,
            fdev,
            fino,
        ] => Line::Make {
            n: n.parse().ok()?,
            time: time.parse().ok()?,
            what: What::Aside {
                dir: node(dev, ino)?,
                path: path(dir)?,
                name: name(file)?,
                aside: name(aside)?,
                node: node(fdev, fino)?,
            },
        },
        ["id", n, id] => Line::Id {
            n: n.parse().ok()?,
            id: id.parse().ok().filter(|i| *i >= 0)?,
        },
        ["node", n, dev, ino] => Line::Node {
            n: n.parse().ok()?,
            node: node(dev, ino)?,
        },
        ["gone", n] => Line::Gone { n: n.parse().ok()? },
        ["task", pid, start] => Line::Task {
            pid: pid.parse().ok()?,
            start: start.parse().ok()?,
        },
        _ => return None,
    })
}

impl Journal {
    /// Read a journal. Without a whole first line nothing was made yet: `Ok(None)`.
    ///
    /// # Errors
    /// The number of the line that makes no sense.
    pub fn parse(bytes: &[u8]) -> Result<Option<Journal>, usize> {
        // Only whole lines count: each is written before it is acted upon.
        let Some(end) = bytes.iter().rposition(|b| *b == b'\n') else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| 0usize)?;
        let mut lines = text.split('\n');
        let head = lines.next().and_then(parse_head).ok_or(1usize)?;
        let lines = lines
            .enumerate()
            .map(|(i, l)| parse_line(l).ok_or(i + 2))
            .collect::<Result<_, _>>()?;
        Ok(Some(Journal { head, lines }))
    }

    /// What was begun and is not known to be gone, newest first: number, time, what, its id and its file.
    pub fn open(&self) -> Vec<Begun<'_>> {
        let mut all: Vec<Begun<'_>> = Vec::new();
        for line in &self.lines {
            match line {
                Line::Make { n, time, what } => {
                    let id = match what {
                        What::Sysv { id, .. } => *id,
                        _ => None,
                    };
                    all.push(Begun {
                        n: *n,
                        time: *time,
                        what,
                        id,
                        node: None,
                    });
                }
                Line::Id { n, id } => {
                    if let Some(b) = all.iter_mut().find(|b| b.n == *n) {
                        b.id = Some(*id);
                    }
                }
                Line::Node { n, node } => {
                    if let Some(b) = all.iter_mut().find(|b| b.n == *n) {
                        b.node = Some(*node);
                    }
                }
                Line::Gone { n } => all.retain(|b| b.n != *n),
                Line::Task { .. } => {}
            }
        }
        all.reverse();
        all
    }

    /// The processes that everything belongs to.
    pub fn tasks(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.lines.iter().filter_map(|l| match l {
            Line::Task { pid, start } => Some((*pid, *start)),
            _ => None,
        })
    }
}

/// Something that was begun.
#[derive(Clone, Debug)]
pub struct Begun<'a> {
    /// Its number.
    pub n: u32,
    /// When, in seconds since 1970.
    pub time: u64,
    /// What.
    pub what: &'a What,
    /// Its SysV id, as far as known.
    pub id: Option<i32>,
    /// Its file, as far as known.
    pub node: Option<Node>,
}
