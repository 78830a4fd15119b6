//! The command line: parsed into plain structures that know nothing of how they were typed.
//!
//! What can be typed is said in [`table`]. The parser is our own, as small as the table allows: a big one's work to
//! describe all options to itself would be a good part of a small restore, and of the executable.

mod help;
mod parse;
pub mod table;

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::Error;
use parse::{Bad, Given};

/// What was asked for.
#[derive(Debug)]
pub enum Asked {
    /// A command.
    Run(Command),
    /// A text on standard output: help, or the version.
    Text(String),
}

impl Asked {
    /// Read the words of a command line, the program's name first.
    ///
    /// # Errors
    /// [`Error::Usage`] names the mistake.
    pub fn from_words(words: impl Iterator<Item = OsString>) -> Result<Asked, Error> {
        asked(words.skip(1)).map_err(|what| Error::Usage { what })
    }
}

fn asked(mut words: impl Iterator<Item = OsString>) -> Result<Asked, Bad> {
    let names = || table::COMMANDS.each_ref().map(|s| s.name).join(", ");
    let Some(first) = words.next() else {
        return Err(format!(
            "'armrest' requires a subcommand but one was not provided [subcommands: {}]",
            names()
        ));
    };
    match first.to_str() {
        Some("-h" | "--help") => return Ok(Asked::Text(help::program())),
        Some("-V" | "--version") => {
            let version = concat!("armrest ", env!("CARGO_PKG_VERSION"), "\n");
            return Ok(Asked::Text(version.to_owned()));
        }
        Some(word) if word.starts_with('-') => return Err(parse::unexpected(&first)),
        _ => {}
    }
    let Some(sub) = table::COMMANDS.iter().find(|s| first == s.name) else {
        return Err(format!(
            "unrecognized subcommand '{}' [subcommands: {}]",
            first.display(),
            names()
        ));
    };
    match parse::parse(sub, words)? {
        None => Ok(Asked::Text(help::of(sub))),
        Some(given) => Command::new(sub.name, &given).map(Asked::Run),
    }
}

/// The commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Restore a checkpoint: the process runs on from where it was.
    Restore(Box<RestoreOptions>),
    /// Say what a restore would do: map, areas, every call. Does nothing.
    Plan(PlanOptions),
    /// Show one image file.
    Show(ShowOptions),
    /// Explore a checkpoint: processes, memory, descriptors, pages.
    X(ExploreOptions),
    /// Say what this kernel can do for a restore.
    Check(CheckOptions),
    /// Compare a restored process with its checkpoint.
    Verify(VerifyOptions),
    /// Remove what a restore left that was killed.
    Clean(CleanOptions),
}

impl Command {
    fn new(name: &str, given: &Given) -> Result<Command, Bad> {
        let json = given.flag("json");
        // The parser has seen to it that what is needed is there.
        let images = |name| given.path(name).unwrap_or_default();
        Ok(match name {
            "restore" => Command::Restore(Box::new(RestoreOptions::new(given)?)),
            "plan" => Command::Plan(PlanOptions {
                images: images("images-dir"),
                root: given.path("root"),
                new_namespaces: given.flag("new-namespaces"),
                any_pid: given.flag("any-pid"),
                any_ids: given.flag("any-ids"),
                lazy: given.flag("lazy"),
                shell_job: given.flag("shell-job"),
                summary: given.flag("summary"),
                json,
            }),
            "show" => Command::Show(ShowOptions {
                file: images("FILE.img"),
                json,
            }),
            "x" => Command::X(ExploreOptions {
                images: images("IMAGES"),
                what: What::ALL[given.choice("WHAT").unwrap_or(0)],
                json,
            }),
            "check" => Command::Check(CheckOptions { json }),
            "verify" => Command::Verify(VerifyOptions {
                images: images("images-dir"),
                pid: given
                    .number("tree", 1..=u64::from(u32::MAX))?
                    .and_then(|pid| u32::try_from(pid).ok())
                    .unwrap_or_default(),
                root: given.path("root"),
                allow_ran: given.flag("allow-ran"),
                json,
            }),
            "clean" => Command::Clean(CleanOptions {
                dry_run: given.flag("dry-run"),
                json,
            }),
            other => return Err(format!("{other}: in the table, and nowhere else")),
        })
    }
}

/// How the last page of armrest's leaves the restored process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Finish {
    /// What works
    #[default]
    Auto,
    /// By the kernel's sigpage
    Sigpage,
    /// By ptrace
    Ptrace,
    /// Not at all: it stays
    Page,
}

impl Finish {
    /// In the order of [`table::FINISHES`].
    const ALL: [Finish; table::FINISHES.len()] =
        [Finish::Auto, Finish::Sigpage, Finish::Ptrace, Finish::Page];
}

/// A descriptor of the caller, given for one of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inherit {
    /// Its number here.
    pub fd: i32,
    /// What it is given for.
    pub id: String,
}

/// `fd[N]:ID`, as criu writes it.
fn inherit(text: &str) -> Result<Inherit, String> {
    let parts = text.strip_prefix("fd[").and_then(|t| t.split_once("]:"));
    let fd = parts
        .and_then(|p| p.0.parse::<i32>().ok())
        .filter(|n| *n >= 0);
    match (fd, parts) {
        (Some(fd), Some((_, id))) if !id.is_empty() => Ok(Inherit {
            fd,
            id: id.to_owned(),
        }),
        _ => Err("not of the form fd[N]:ID".into()),
    }
}

/// What `armrest restore` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreOptions {
    /// The checkpoint, as criu dump wrote it
    pub images: PathBuf,
    /// Resolve all recorded paths below this directory
    pub root: Option<PathBuf>,
    /// Leave the process running and return
    pub detached: bool,
    /// Leave it stopped before its first instruction
    pub leave_stopped: bool,
    /// How the last page of armrest's leaves the process: auto, sigpage, ptrace, page (it stays)
    pub finish: Finish,
    /// Write the pid there
    pub pidfile: Option<PathBuf>,
    /// Fresh pid, ipc and mount namespaces
    pub new_namespaces: bool,
    /// Take any pid, not the checkpoint's
    pub any_pid: bool,
    /// Take any SysV ids, not the checkpoint's
    pub any_ids: bool,
    /// Map pages from the images, which must stay
    pub lazy: bool,
    /// Accept this changed file (glob, repeatable)
    pub allow_changed: Vec<String>,
    /// Give it descriptors of this program (repeatable)
    pub inherit_fd: Vec<Inherit>,
    /// ID lies outside of the checkpoint: it must be given by --inherit-fd (repeatable)
    pub external: Vec<String>,
    /// A terminal of the task is the caller's
    pub shell_job: bool,
    /// Give up if not restored after that long
    pub timeout: Option<u64>,
    /// Where logs and pidfile go, if relative
    pub work_dir: Option<PathBuf>,
    /// Log to this file instead of stderr
    pub log_file: Option<PathBuf>,
    /// Say more (up to three times)
    pub verbose: u8,
    /// Check and plan everything, restore nothing
    pub dry_run: bool,
    /// Write the outcome there, one JSON line
    pub status_fd: Option<i32>,
    /// Print the summary as JSON
    pub json: bool,
    /// Do as if this kernel lacked it, to test what is done on older ones: mm-map
    pub pretend_without: Vec<String>,
}

impl RestoreOptions {
    fn new(given: &Given) -> Result<RestoreOptions, Bad> {
        let text = |text: &str| Ok(text.to_owned());
        Ok(RestoreOptions {
            images: given.path("images-dir").unwrap_or_default(),
            root: given.path("root"),
            detached: given.flag("restore-detached"),
            leave_stopped: given.flag("leave-stopped"),
            finish: given
                .choice("finish")
                .map_or(Finish::Auto, |n| Finish::ALL[n]),
            pidfile: given.path("pidfile"),
            new_namespaces: given.flag("new-namespaces"),
            any_pid: given.flag("any-pid"),
            any_ids: given.flag("any-ids"),
            lazy: given.flag("lazy"),
            allow_changed: given.all("allow-changed", text)?,
            inherit_fd: given.all("inherit-fd", inherit)?,
            external: given.all("external", text)?,
            shell_job: given.flag("shell-job"),
            timeout: given.number("timeout", 1..=u64::MAX)?,
            work_dir: given.path("work-dir"),
            log_file: given.path("log-file"),
            verbose: given.count("verbose"),
            dry_run: given.flag("dry-run"),
            status_fd: given
                .number("status-fd", 0..=u64::from(i32::MAX.unsigned_abs()))?
                .and_then(|fd| i32::try_from(fd).ok()),
            json: given.flag("json"),
            pretend_without: given.all("pretend-without", text)?,
        })
    }
}

/// What `armrest plan` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// The checkpoint, as criu dump wrote it
    pub images: PathBuf,
    /// Compare files below this directory
    pub root: Option<PathBuf>,
    /// As for a restore in fresh namespaces
    pub new_namespaces: bool,
    /// As for a restore that takes any pid
    pub any_pid: bool,
    /// As for a restore that takes any SysV ids
    pub any_ids: bool,
    /// As for a restore that maps pages
    pub lazy: bool,
    /// As for a restore to the caller's terminal
    pub shell_job: bool,
    /// The summary only
    pub summary: bool,
    /// Print JSON
    pub json: bool,
}

/// What `armrest show` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShowOptions {
    /// The image file
    pub file: PathBuf,
    /// Print compact JSON
    pub json: bool,
}

/// What `armrest x` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Processes
    Ps,
    /// Mappings
    Mems,
    /// Descriptors
    Fds,
    /// Pages present
    Rss,
    /// SysV segments, semaphore sets, message queues
    Ipc,
}

impl What {
    /// In the order of [`table::VIEWS`].
    const ALL: [What; table::VIEWS.len()] = [What::Ps, What::Mems, What::Fds, What::Rss, What::Ipc];
}

/// What `armrest x` was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExploreOptions {
    /// The checkpoint, as criu dump wrote it
    pub images: PathBuf,
    /// ps: processes, mems: mappings, fds: files, rss: pages, ipc: SysV
    pub what: What,
    /// Print JSON
    pub json: bool,
}

/// What `armrest check` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Print JSON
    pub json: bool,
}

/// What `armrest verify` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// The checkpoint, as criu dump wrote it
    pub images: PathBuf,
    /// The process
    pub pid: u32,
    /// The directory below which it was restored
    pub root: Option<PathBuf>,
    /// It has run: its writable pages may differ
    pub allow_ran: bool,
    /// Print JSON
    pub json: bool,
}

/// What `armrest clean` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanOptions {
    /// Say what would be removed, remove nothing
    pub dry_run: bool,
    /// Print JSON
    pub json: bool,
}

#[cfg(test)]
mod tests;
