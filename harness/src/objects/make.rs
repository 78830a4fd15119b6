//! Makes open file descriptions, each once, from what the images say: the one place that knows which kind is made how.
//!
//! What must exist as one object under several descriptions (a pipe, a FIFO, a memory file, a deleted file) is made at
//! its first use and kept until [`Maker::finish`]. Every description is then an opening of its own of that object.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use armrest_images::{Checkpoint, File, PipeContents, RegFile, Remap};
use armrest_plan::files::{FilesPlan, Inherited, facts};
use armrest_plan::late::Late;

use crate::cli::Inherit;
use crate::error::Error;
use crate::journal::Journal;
use crate::objects::file::{self, Compare};
use crate::objects::ghost::{Ghosts, Links};
use crate::objects::late::Lates;
use crate::objects::memory::PagesFiles;
use crate::objects::tty::Ttys;
use crate::objects::unix::{self, Sockets};
use crate::objects::{event, pipe, watch};
use crate::os;
use crate::root::Root;

/// Flags that are no property of the description, or are set where it is owned.
const NOT_KEPT: i32 =
    libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_ASYNC;
/// What F_SETFL can change.
const SETTABLE: i32 = libc::O_APPEND | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_NOATIME;

/// Makes descriptions.
pub struct Maker<'a> {
    cp: &'a Checkpoint,
    root: &'a Root,
    pages: &'a PagesFiles,
    /// Nothing is made: paths are looked at.
    look_only: bool,
    /// What differs from the images.
    pub compare: Compare,
    pipes: BTreeMap<u32, pipe::Ends>,
    fifos: BTreeMap<u32, OwnedFd>,
    memfds: BTreeMap<u32, std::fs::File>,
    ghosts: Ghosts<'a>,
    journal: &'a Journal,
    links: Links,
    watches: Vec<OwnedFd>,
    sockets: Option<Sockets<'a>>,
    ttys: Option<Ttys<'a>>,
    /// Descriptions that go through sockets, by file id.
    flights: BTreeMap<u32, OwnedFd>,
    /// What is to be done later with what was made.
    late: Lates,
    /// What the caller gives, by file id.
    inherited: BTreeMap<u32, OwnedFd>,
    /// What comes back otherwise than it was.
    pub notes: Vec<String>,
}

impl<'a> Maker<'a> {
    /// Nothing is made yet.
    pub fn new(
        cp: &'a Checkpoint,
        root: &'a Root,
        pages: &'a PagesFiles,
        images: &Path,
        compare: Compare,
        journal: &'a Journal,
    ) -> Maker<'a> {
        Maker {
            cp,
            root,
            pages,
            look_only: compare.look_only(),
            compare,
            pipes: BTreeMap::new(),
            fifos: BTreeMap::new(),
            memfds: BTreeMap::new(),
            ghosts: Ghosts::new(images, journal),
            journal,
            links: Links::default(),
            watches: Vec::new(),
            sockets: None,
            ttys: None,
            flights: BTreeMap::new(),
            late: Lates::new(),
            inherited: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    /// Take the caller's descriptors for those of the checkpoint that the plan found. The task gets the caller's own
    /// description, position and flags included; of a pipe, an end of its own.
    pub fn inherit(&mut self, which: &Inherited, gifts: &[Inherit]) -> Result<(), Error> {
        for (file, gift) in which {
            let (Some(gift), Some(made)) = (gifts.get(*gift), self.cp.files.get(file)) else {
                continue;
            };
            let wrong = |why: String| Error::Usage {
                what: format!("--inherit-fd fd[{}]:{}: {why}", gift.fd, gift.id),
            };
            // SAFETY: numbers only; the duplicate is a new descriptor.
            let fd = unsafe { os::made(libc::fcntl(gift.fd, libc::F_DUPFD_CLOEXEC, 3)) }
                .map_err(|e| wrong(e.to_string()))?;
            let flags = facts(self.cp, made).0.cast_signed();
            if matches!(made, File::Pipe(_)) {
                // The pipe is the caller's; which end, and how, is the task's.
                let kind = os::fstat(fd.as_fd()).map_err(|e| wrong(e.to_string()))?;
                if !kind.is(libc::S_IFIFO) {
                    return Err(wrong("is no pipe".into()));
                }
                let end = os::reopen(fd.as_fd(), flags & !NOT_KEPT | libc::O_NONBLOCK)
                    .map_err(|e| wrong(e.to_string()))?;
                settle(&end, flags & !NOT_KEPT).map_err(|e| wrong(e.to_string()))?;
                self.inherited.insert(*file, end);
                continue;
            }
            // SAFETY: numbers only.
            let now = os::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })
                .map_err(|e| wrong(e.to_string()))?
                & libc::O_ACCMODE;
            if now != flags & libc::O_ACCMODE && now != libc::O_RDWR {
                return Err(wrong(
                    "is not open for what the task needs (read, write)".into(),
                ));
            }
            self.inherited.insert(*file, fd);
        }
        Ok(())
    }

    /// Making this one touches a directory or shared memory: it waits until all files were compared.
    pub fn touches(&self, id: u32) -> bool {
        match self.cp.files.get(&id) {
            Some(File::Reg(r)) => r.remap.is_some(),
            _ => true,
        }
    }

    /// Make the description with this id. Only looking, `None` for what has no path.
    pub fn make(&mut self, plan: &FilesPlan, id: u32, who: &str) -> Result<Option<OwnedFd>, Error> {
        let fd = self.make_one(plan, id, who)?;
        let flies = self
            .cp
            .packets
            .values()
            .flatten()
            .any(|p| p.rights.contains(&id));
        let again = |fd: &OwnedFd| {
            fd.try_clone().map_err(|e| Error::Machine {
                what: format!("{who}: once more"),
                why: e.to_string(),
            })
        };
        if let Some(fd) = fd.as_ref().filter(|_| flies) {
            self.flights.insert(id, again(fd)?);
        }
        if let Some(fd) = &fd {
            for late in plan.late.iter().filter(|l| l.file() == Some(id)) {
                self.late.push((late.clone(), again(fd)?));
            }
        }
        Ok(fd)
    }

    /// Descriptors of what is done when all tasks are ready, in the order of the plan. Memory files among it are not
    /// sealed by [`Maker::finish`].
    pub fn keep_for_later(&mut self, plan: &FilesPlan, to: &mut Lates) {
        for late in &plan.late {
            if let Late::Seal { inode, .. } = late
                && let Some(file) = self.memfds.remove(inode)
            {
                to.push((late.clone(), file.into()));
            }
        }
        // By file, as they were made: timers go to the end, as in the plan.
        self.late
            .sort_by_key(|(l, _)| matches!(l, Late::Timer { .. }));
        to.append(&mut self.late);
    }

    /// All descriptions are there: put into sockets what waits in them, descriptors in flight included. Terminals that
    /// sessions take, in the order of the plan.
    pub fn fill(&mut self, plan: &FilesPlan) -> Result<Vec<OwnedFd>, Error> {
        if let Some(mut sockets) = self.sockets.take() {
            sockets.finish(&plan.sockets, &self.flights, &mut self.links)?;
            self.notes.append(&mut sockets.notes);
        }
        self.flights.clear();
        let Some(ttys) = self.ttys.take() else {
            return Ok(Vec::new());
        };
        let (controls, notes) = ttys.finish(&plan.terminals)?;
        self.notes.extend(notes);
        Ok(controls)
    }

    fn make_one(&mut self, plan: &FilesPlan, id: u32, who: &str) -> Result<Option<OwnedFd>, Error> {
        if let Some(given) = self.inherited.get(&id) {
            return given.try_clone().map(Some).map_err(|e| Error::Machine {
                what: format!("{who}: inherited"),
                why: e.to_string(),
            });
        }
        let missing = || Error::Internal {
            what: who.to_owned(),
            why: "a kind of file that the plan should have refused".into(),
        };
        let cp = self.cp;
        let made = cp.files.get(&id).ok_or_else(missing)?;
        let (flags, _) = facts(cp, made);
        let flags = flags.cast_signed();
        let failed = |e: io::Error| Error::Machine {
            what: format!("{who}: {}", armrest_plan::files::name(cp, id)),
            why: e.to_string(),
        };
        let fd = match made {
            File::Reg(reg) => {
                let fd = self.open(id, flags & !NOT_KEPT, who)?;
                if !self.look_only {
                    file::seek(&fd, reg.pos, &reg.path, who)?;
                }
                return Ok(Some(fd));
            }
            File::Socket(s) if self.look_only => {
                unix::look(self.root, s)?;
                return Ok(None);
            }
            File::Fifo(f) if self.look_only => return self.open_fifo(f.reg, who).map(Some),
            _ if self.look_only => return Ok(None),
            File::Memfd { inode, pos, .. } => {
                let base = self.memfd(*inode)?.try_clone().map_err(failed)?;
                let fd = os::reopen(base.as_fd(), flags & !NOT_KEPT).map_err(failed)?;
                file::seek(&fd, Some(*pos), "memory file", who)?;
                fd
            }
            File::Pipe(p) => {
                if !self.pipes.contains_key(&p.pipe) {
                    let ends = pipe::Ends::new(self.contents(&cp.pipes, p.pipe)).map_err(failed)?;
                    self.pipes.insert(p.pipe, ends);
                }
                let ends = self.pipes.get(&p.pipe).ok_or_else(missing)?;
                ends.open(flags & !NOT_KEPT).map_err(failed)?
            }
            File::Fifo(f) => {
                if !self.fifos.contains_key(&f.pipe) {
                    let found = self.open_fifo(f.reg, who)?;
                    let base = pipe::fill_fifo(&found, self.contents(&cp.fifos, f.pipe));
                    self.fifos.insert(f.pipe, base.map_err(failed)?);
                }
                let base = self.fifos.get(&f.pipe).ok_or_else(missing)?;
                os::reopen(base.as_fd(), flags & !NOT_KEPT).map_err(failed)?
            }
            File::Eventfd(e) => event::eventfd(e).map_err(failed)?,
            File::Epoll(_) => event::epoll().map_err(failed)?,
            File::Signalfd(s) => event::signalfd(s).map_err(failed)?,
            File::Timerfd(t) => event::timerfd(t).map_err(failed)?,
            File::Inotify(i) => {
                let fd = watch::inotify(i, self.root, who)?;
                self.watches.push(fd.try_clone().map_err(failed)?);
                fd
            }
            File::Socket(_) => {
                if self.sockets.is_none() {
                    let made = Sockets::make(cp, self.root, self.journal, &plan.sockets)?;
                    self.sockets = Some(made);
                }
                let all = self.sockets.as_ref().and_then(|s| s.get(id));
                all.ok_or_else(missing)?.try_clone().map_err(failed)?
            }
            File::Terminal(t) => {
                if self.ttys.is_none() {
                    self.ttys = Some(Ttys::make(cp, &plan.terminals)?);
                }
                let ttys = self.ttys.as_mut().ok_or_else(missing)?;
                match ttys.open(&plan.terminals, id, flags & !NOT_KEPT)? {
                    Some(fd) => fd,
                    None => self.open(t.reg.ok_or_else(missing)?, flags & !NOT_KEPT, who)?,
                }
            }
            File::Other { .. } => return Err(missing()),
        };
        settle(&fd, flags & !NOT_KEPT).map_err(failed)?;
        Ok(Some(fd))
    }

    fn contents<'c>(
        &self,
        all: &'c BTreeMap<u32, PipeContents>,
        id: u32,
    ) -> Option<&'c PipeContents> {
        all.get(&id)
    }

    /// Open the file of the images with this id with these flags: where it is, or what stands in for it.
    pub fn open(&mut self, id: u32, flags: i32, who: &str) -> Result<OwnedFd, Error> {
        let Some(File::Reg(reg)) = self.cp.files.get(&id) else {
            return Err(Error::Internal {
                what: format!("{who}: file {id}"),
                why: "not known by path".into(),
            });
        };
        match reg.remap {
            None => file::open(self.root, reg, flags, who, &mut self.compare),
            Some(Remap::Ghost(ghost)) => {
                let g = self.cp.ghosts.get(&ghost).ok_or_else(|| dangling(reg))?;
                let base = self.ghosts.get(ghost, g, reg, self.root, self.look_only)?;
                self.again(base, flags, reg, who)
            }
            Some(Remap::Linked(to)) => {
                let Some(File::Reg(link)) = self.cp.files.get(&to) else {
                    return Err(dangling(reg));
                };
                let base = self
                    .links
                    .get(reg, link, self.root, &mut self.compare, self.journal)?;
                self.again(base, flags, reg, who)
            }
            Some(Remap::Process(_)) => Err(dangling(reg)),
        }
    }

    fn again(&self, base: OwnedFd, flags: i32, reg: &RegFile, who: &str) -> Result<OwnedFd, Error> {
        if self.look_only {
            return Ok(base);
        }
        os::reopen(base.as_fd(), flags).map_err(|e| file::failed(&reg.path, who, &e))
    }

    /// The FIFO that a path means, without opening it for use.
    fn open_fifo(&mut self, id: u32, who: &str) -> Result<OwnedFd, Error> {
        let fd = self.open(id, libc::O_PATH, who)?;
        let is = os::fstat(fd.as_fd()).is_ok_and(|m| m.is(libc::S_IFIFO) || self.look_only);
        if is {
            return Ok(fd);
        }
        Err(Error::BadPath {
            path: armrest_plan::files::name(self.cp, id),
            why: format!("{who}: not a FIFO now"),
        })
    }

    /// The memory object with this inode id.
    pub fn memfd(&mut self, inode: u32) -> Result<&std::fs::File, Error> {
        if !self.memfds.contains_key(&inode) {
            let m = self.cp.memfds.get(&inode).ok_or_else(|| Error::Internal {
                what: format!("memfd {inode}"),
                why: "not there".into(),
            })?;
            let file = self.pages.memfd(m, &mut self.notes)?;
            self.memfds.insert(inode, file);
        }
        self.memfds.get(&inode).ok_or_else(|| Error::Internal {
            what: format!("memfd {inode}"),
            why: "not kept".into(),
        })
    }

    /// All descriptions are open: give the objects what would have been in the way. What is to be removed after a
    /// success, and what to say.
    pub fn finish(mut self) -> Result<(Links, Vec<String>), Error> {
        for (inode, file) in &self.memfds {
            // F_SEAL_SEAL alone is how the kernel shows an object that cannot be sealed.
            if let Some(m) = self.cp.memfds.get(inode).filter(|m| m.seals > 1) {
                // SAFETY: numbers only.
                os::check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, m.seals) })
                    .map_err(|e| Error::Machine {
                        what: format!("memory file {}: seals {:#x}", m.name, m.seals),
                        why: e.to_string(),
                    })?;
            }
        }
        self.notes.extend(self.ghosts.finish(self.cp)?);
        for fd in &self.watches {
            watch::drain(fd).map_err(|e| Error::Machine {
                what: "inotify: events of the restore itself".into(),
                why: e.to_string(),
            })?;
        }
        Ok((self.links, self.notes))
    }
}

fn dangling(reg: &RegFile) -> Error {
    Error::Internal {
        what: reg.path.clone(),
        why: "nothing stands in for it although the checks found something".into(),
    }
}

/// Give a description the flags that could not be given when it was made.
fn settle(fd: &OwnedFd, flags: i32) -> io::Result<()> {
    // SAFETY: numbers only.
    let now = os::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    if (now ^ flags) & SETTABLE != 0 {
        let wanted = now & !SETTABLE | flags & SETTABLE;
        // SAFETY: numbers only.
        os::check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, wanted) })?;
    }
    Ok(())
}
