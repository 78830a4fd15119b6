//! What is said of a restore: log lines, the summary, the status line. Never a word of success before it is true.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cli::RestoreOptions;
use crate::error::{Error, printable};
use crate::journal::{Entry, Journal, Thing};
use crate::os;

/// Where lines go: standard error, or the log file. Opened before anything else happens.
pub struct Log {
    start: Instant,
    file: Option<(PathBuf, File)>,
    verbose: u8,
    status: Option<File>,
    on_restored: Option<Box<dyn FnMut(libc::pid_t)>>,
    phases: Vec<(&'static str, Duration)>,
}

impl Log {
    /// A log that goes to standard error until [`Log::begin`]; errors can be told by `--status-fd` from now on.
    pub fn open(o: &RestoreOptions) -> Result<Log, Error> {
        let status = match o.rare.status_fd {
            None => None,
            Some(fd) => {
                // SAFETY: F_GETFD takes no argument; a number that is not open is refused.
                if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
                    return Err(Error::Usage {
                        what: format!("--status-fd {fd}: not an open descriptor"),
                    });
                }
                // SAFETY: open, and given to us by the caller for this purpose.
                Some(unsafe { File::from_raw_fd(fd) })
            }
        };
        Ok(Log {
            start: Instant::now(),
            file: None,
            verbose: o.usual.verbose,
            status,
            on_restored: None,
            phases: Vec::new(),
        })
    }

    /// See that the work directory is there, open the log file, if there is to be one, and write its first line: a full
    /// disk is found before anything happens.
    pub fn begin(&mut self, o: &RestoreOptions) -> Result<(), Error> {
        if let Some(dir) = &o.usual.work_dir {
            std::fs::read_dir(dir).map_err(|source| Error::Output {
                path: dir.clone(),
                source,
            })?;
        }
        let Some(p) = &o.usual.log_file else {
            return Ok(());
        };
        let path = below(o.usual.work_dir.as_deref(), p);
        let file = File::create(&path).map_err(|source| Error::Output {
            path: path.clone(),
            source,
        })?;
        self.file = Some((path, file));
        self.line(0, concat!("armrest ", env!("CARGO_PKG_VERSION")))
    }

    /// A line, shown from this level of `-v` on (always in a log file).
    pub fn line(&mut self, level: u8, text: &str) -> Result<(), Error> {
        let text = printable(text);
        if let Some((path, file)) = &mut self.file {
            let t = self.start.elapsed();
            writeln!(file, "({:>3}.{:06}) {text}", t.as_secs(), t.subsec_micros()).map_err(
                |source| Error::Output {
                    path: path.clone(),
                    source,
                },
            )?;
        } else if self.verbose >= level {
            // In one piece: standard error has no buffer.
            let _ = std::io::stderr().write_all(format!("armrest: {text}\n").as_bytes());
        }
        Ok(())
    }

    /// Is there a `--status-fd`?
    pub fn tells_status(&self) -> bool {
        self.status.is_some()
    }

    /// The one JSON line of `--status-fd`.
    pub fn status(&mut self, value: &serde_json::Value) {
        if let Some(f) = &mut self.status {
            // The caller may have gone: that is no failure of the restore.
            // One write: a reader never sees half a line.
            let _ = f.write_all(format!("{value}\n").as_bytes());
        }
    }

    /// What to do when a restore is known to be done, before it is said.
    pub fn on_restored(&mut self, f: Box<dyn FnMut(libc::pid_t)>) {
        self.on_restored = Some(f);
    }

    /// The restore is done: of this root, which is not waited for yet.
    pub fn restored(&mut self, root: libc::pid_t) {
        if let Some(f) = &mut self.on_restored {
            f(root);
        }
    }

    /// A phase is over: it took the time since the one before.
    pub fn phase(&mut self, name: &'static str) {
        let before: Duration = self.phases.iter().map(|p| p.1).sum();
        let took = self.start.elapsed().saturating_sub(before);
        self.phases.push((name, took));
    }

    /// The phases so far, in order.
    pub fn phases(&self) -> &[(&'static str, Duration)] {
        &self.phases
    }

    /// Time since the start.
    pub fn elapsed(&self) -> std::time::Duration {
        self.start.elapsed()
    }

    /// When the restore began.
    pub fn start(&self) -> Instant {
        self.start
    }
}

/// `path` below the work directory, unless it is absolute.
pub fn below(work_dir: Option<&Path>, path: &Path) -> PathBuf {
    work_dir.map_or_else(|| path.to_owned(), |d| d.join(path))
}

/// A pidfile: its bytes are reserved early, so that a full disk is found early; it gets its name when it holds the pid,
/// so that nobody reads half of it. Without a name it goes with this process, whatever happens to that.
pub struct PidFile<'a> {
    path: PathBuf,
    dir: OwnedFd,
    name: String,
    file: File,
    /// Where the file system has no files without a name: one that nobody else uses, in the journal.
    hidden: Option<(String, Entry)>,
    named: bool,
    journal: &'a Journal,
}

impl<'a> PidFile<'a> {
    /// Reserve it; nothing of its name may exist.
    pub fn create(path: PathBuf, journal: &'a Journal) -> Result<PidFile<'a>, Error> {
        let failed = |source| Error::Output {
            path: path.clone(),
            source,
        };
        if path.symlink_metadata().is_ok() {
            return Err(failed(std::io::Error::from_raw_os_error(libc::EEXIST)));
        }
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?
            .to_owned();
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let dir: OwnedFd = File::open(parent.unwrap_or(Path::new(".")))
            .map_err(failed)?
            .into();
        let mut hidden = None;
        let nameless = os::openat(dir.as_fd(), ".", libc::O_TMPFILE | libc::O_WRONLY, 0o644);
        let file = match nameless {
            Ok(fd) => fd,
            Err(_) => {
                let other = journal.hidden();
                let entry = journal.will_make(&Thing::File {
                    dir: dir.as_fd(),
                    name: &other,
                })?;
                let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW;
                let fd = os::openat(dir.as_fd(), &other, flags, 0o644).map_err(failed)?;
                hidden = Some((other, entry));
                fd
            }
        };
        let file = File::from(file);
        let mut f = PidFile {
            path,
            dir,
            name,
            file,
            hidden,
            named: false,
            journal,
        };
        f.put(&format!("{:<10}\n", 0))?;
        Ok(f)
    }

    fn put(&mut self, text: &str) -> Result<(), Error> {
        use std::os::unix::fs::FileExt;
        self.file
            .write_all_at(text.as_bytes(), 0)
            .and_then(|()| self.file.set_len(text.len() as u64))
            .map_err(|source| Error::Output {
                path: self.path.clone(),
                source,
            })
    }

    /// Write the pid, and give the file its name. Dropped before [`PidFile::keep`], it is removed again.
    ///
    /// `bound`: the process still ends with this one, and then the file would name nobody, so the journal has it. Who
    /// lives on without us is named rightly whatever happens to us.
    pub fn fill(&mut self, pid: libc::pid_t, bound: bool) -> Result<(), Error> {
        self.put(&format!("{pid}\n"))?;
        if bound {
            let entry = self.journal.will_make(&Thing::File {
                dir: self.dir.as_fd(),
                name: &self.name,
            })?;
            self.journal.will_be(&entry, self.file.as_fd())?;
            self.journal.belongs_to(pid)?;
        }
        let dir = self.dir.as_fd();
        let named = match &self.hidden {
            Some((hidden, _)) => {
                let from = format!("/proc/self/fd/{}/{hidden}", self.dir.as_raw_fd());
                os::linkat(&from, dir, &self.name)
            }
            None => os::name_file(self.file.as_fd(), dir, &self.name),
        };
        named.map_err(|source| Error::Output {
            path: self.path.clone(),
            source,
        })?;
        self.named = true;
        Ok(())
    }

    /// The restore succeeded: the name is the task's.
    pub fn keep(mut self) {
        self.named = false;
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        if let Some((hidden, entry)) = &self.hidden
            && os::unlinkat(self.dir.as_fd(), hidden).is_ok()
        {
            // If it cannot be said, the journal finds nothing of that name.
            let _ = self.journal.gone(entry);
        }
        if self.named {
            let _ = os::unlinkat(self.dir.as_fd(), &self.name);
        }
    }
}
