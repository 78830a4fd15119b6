//! Stage 1: open everything that the tasks will own or map, and compare it with the images.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use armrest_images::{Checkpoint, LiveTask};
use armrest_plan::{Plan, SourceKind};

use super::start::pipe;
use super::{Member, Restore};
use crate::error::Error;
use crate::hand::Hand;
use crate::objects::Objects;
use crate::objects::file::Compare;
use crate::objects::ghost::Links;
use crate::objects::make::Maker;
use crate::objects::memory::PagesFiles;
use crate::os;
use crate::pid;
use crate::root::Root;
use crate::summary::Log;

/// What the first stage opened: closed when dropped.
pub(super) struct Opened {
    pub(super) objects: Objects,
    pub(super) pages: PagesFiles,
    /// Of each member.
    pub(super) dirs: Vec<Dirs>,
    pub(super) links: Links,
    pub(super) notes: Vec<String>,
    pub(super) kept: Kept,
}

/// Descriptors that all processes of a tree keep while they become tasks. They are opened first, so that their numbers are
/// low: a fork copies a table up to the highest.
pub(super) struct Kept {
    /// The report pipe: read, write.
    pub(super) report: (OwnedFd, OwnedFd),
    /// How they come by what they have for themselves.
    pub(super) hand: Hand,
    /// What becomes the memory that they share.
    pub(super) memory: Option<OwnedFd>,
}

impl Kept {
    fn new(restore: &Restore<'_>) -> Result<Kept, Error> {
        let memory = || {
            os::memfd("armrest-tree", &[], false).map_err(|e| Error::Machine {
                what: "memory that the tasks of a tree share".into(),
                why: e.to_string(),
            })
        };
        let many = restore.forest.tree.nodes.len() > 1;
        Ok(Kept {
            report: pipe("report pipe")?,
            hand: Hand::new(many && !restore.machine.emulated),
            memory: restore.gated().then(memory).transpose()?,
        })
    }
}

impl Restore<'_> {
    /// Open everything that the task will own or map, and compare it with the images. Nothing is touched.
    pub(super) fn open(&self, log: &mut Log) -> Result<Opened, Error> {
        let (o, cp) = (self.o, self.cp);
        let kept = Kept::new(self)?;
        let root = Root::open(o.usual.root.as_deref()).map_err(|e| Error::MissingFile {
            path: o
                .usual
                .root
                .as_deref()
                .unwrap_or(Path::new("/"))
                .display()
                .to_string(),
            why: format!("--root: {e}"),
        })?;
        let compare = Compare::new(&o.rare.allow_changed, o.rare.dry_run)?;
        let mut objects = Objects::default();
        let sources = || self.members.iter().flat_map(|m| &m.plan.sources);
        let reports = self.members.iter().map(|m| m.plan.report_fd);
        let above = sources().map(|s| s.fd).chain(reports).max().unwrap_or(0) + 1;
        let late = self.root().plan.files.late.len();
        let most = cp.files.len() + late + sources().count() + 2 * cp.pages_files.len() + 64;
        let most = above.saturating_add(u32::try_from(most).unwrap_or(u32::MAX));
        os::raise_open_files(most).map_err(|e| Error::Machine {
            what: format!("descriptors up to number {most}"),
            why: e.to_string(),
        })?;
        let pages = PagesFiles::open(&o.usual.images, cp)?;
        let mut maker = Maker::new(cp, &root, &pages, &o.usual.images, compare, self.journal);
        maker.inherit(&self.root().plan.files.inherited, &o.rare.inherit_fd)?;
        let mut dirs: Vec<Dirs> = self.members.iter().map(|_| Dirs::default()).collect();
        let mut opened = Sources::default();
        // First what is only opened and compared, then what leaves traces while it is made.
        for touching in [false, true] {
            open_descriptors(
                cp,
                &self.root().plan,
                &mut maker,
                &mut objects,
                above,
                touching,
            )?;
            for m in &self.members {
                let to = (&mut objects, above);
                opened.open(cp, m, &mut maker, &pages, to, touching)?;
            }
            for (m, dirs) in self.members.iter().zip(&mut dirs) {
                dirs.open(cp, m.live, &mut maker, touching)?;
            }
            if !maker.compare.changed.is_empty() {
                return Err(Error::ChangedFiles(maker.compare.changed));
            }
        }
        for fd in maker.fill(&self.root().plan.files)? {
            let index = objects.keep(fd, above)?;
            objects.controls.push(index);
        }
        for w in &maker.compare.warnings {
            log.line(0, &format!("warning: {w}"))?;
        }
        maker.keep_for_later(&self.root().plan.files, &mut objects.late);
        let (links, notes) = maker.finish()?;
        if !o.rare.dry_run {
            objects.lock(cp, &self.root().plan.files.locks)?;
        }
        objects.sort();
        Ok(Opened {
            objects,
            pages,
            dirs,
            links,
            notes,
            kept,
        })
    }
}

/// Open file descriptions once each, and place every descriptor that shares them.
fn open_descriptors(
    cp: &Checkpoint,
    plan: &Plan,
    maker: &mut Maker<'_>,
    objects: &mut Objects,
    above: u32,
    touching: bool,
) -> Result<(), Error> {
    for m in &plan.files.makes {
        if maker.touches(m.file) != touching {
            continue;
        }
        let who = match m.at.first() {
            Some((_, first)) => format!("fd {first}"),
            None => "in flight".into(),
        };
        let Some(fd) = maker.make(&plan.files, m.file, &who)? else {
            continue;
        };
        if m.at.is_empty() {
            continue;
        }
        let index = objects.keep(fd, above)?;
        for (task, number) in &m.at {
            let live = cp.tasks.get(*task).and_then(|t| t.live.as_ref());
            if let Some(f) = live.and_then(|l| l.fd(*number)) {
                objects.place(*task, index, f.fd, f.cloexec);
            }
        }
    }
    Ok(())
}

/// The task's directories.
#[derive(Default)]
pub struct Dirs {
    /// Working directory.
    pub cwd: Option<OwnedFd>,
    /// Root directory, if it is not the machine's.
    pub root: Option<OwnedFd>,
}

impl Dirs {
    pub(super) fn open(
        &mut self,
        cp: &Checkpoint,
        live: &LiveTask,
        maker: &mut Maker<'_>,
        touching: bool,
    ) -> Result<(), Error> {
        let how = libc::O_RDONLY | libc::O_DIRECTORY;
        if maker.touches(live.cwd) == touching {
            self.cwd = Some(maker.open(live.cwd, how, "the working directory")?);
        }
        let chroot = armrest_plan::files::chroot(cp, live).is_some();
        if chroot && maker.touches(live.root) == touching {
            self.root = Some(maker.open(live.root, how, "the root directory")?);
        }
        Ok(())
    }
}

/// Sources that are open, each once for all tasks: what is shared has to be the same.
#[derive(Default)]
pub(super) struct Sources(BTreeMap<SourceKind, usize>);

impl Sources {
    /// Open those of one task, and place them.
    pub(super) fn open(
        &mut self,
        cp: &Checkpoint,
        m: &Member<'_>,
        maker: &mut Maker<'_>,
        pages: &PagesFiles,
        (objects, above): (&mut Objects, u32),
        touching: bool,
    ) -> Result<(), Error> {
        for s in &m.plan.sources {
            let touches = match &s.what {
                SourceKind::File { file, .. } | SourceKind::Exe { file } => maker.touches(*file),
                _ => false,
            };
            if touches != touching {
                continue;
            }
            let index = match self.0.get(&s.what) {
                Some(index) => *index,
                None => {
                    let fd = open_source(cp, &s.what, maker, pages)?;
                    let index = objects.keep(fd, above)?;
                    self.0.insert(s.what.clone(), index);
                    index
                }
            };
            objects.place(m.index, index, s.fd, false);
        }
        Ok(())
    }
}

fn open_source(
    cp: &Checkpoint,
    what: &SourceKind,
    maker: &mut Maker<'_>,
    pages: &PagesFiles,
) -> Result<OwnedFd, Error> {
    let output = |name: &str, source| Error::Output {
        path: name.into(),
        source,
    };
    Ok(match what {
        SourceKind::Pages(i) => pages.0[*i]
            .1
            .try_clone()
            .map_err(|e| output(&pages.0[*i].0, e))?
            .into(),
        SourceKind::Overlay(bytes) => {
            os::memfd("armrest-overlay", bytes, false).map_err(|e| output("patched vdso", e))?
        }
        SourceKind::LastPid => pid::last_pid_file()?.into(),
        SourceKind::File { file, access } => {
            let flags = access.cast_signed() | libc::O_LARGEFILE;
            maker.open(*file, flags, "a mapping")?
        }
        SourceKind::Exe { file } => maker.open(*file, libc::O_RDONLY, "the executable")?,
        SourceKind::Memfd { inode } => maker
            .memfd(*inode)?
            .try_clone()
            .map_err(|e| output("memory file", e))?
            .into(),
        SourceKind::AnonShared { shmid, size } => {
            let none = armrest_images::PageMap::default();
            let contents = cp.anon_shared.get(shmid).unwrap_or(&none);
            pages.anonymous(*size, contents, &mut maker.notes)?.into()
        }
    })
}
