//! The command line: parsed into plain structures that know nothing of how they were typed.
//!
//! `build.rs` compiles this file too, for completions and the man page; so it uses clap and std alone.
//! Each `--help` fits a screen of 24 lines of 80 columns; a test counts.

use clap::{Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

const TEMPLATE: &str = "{about}\n{usage-heading} {usage}\n{all-args}{after-help}";

/// The program.
#[derive(Debug, Parser)]
#[command(
    name = "armrest",
    version,
    about = "Restores checkpointed processes (CRIU images) on ARMv7 Linux.",
    after_help = "Examples:
  armrest check                             what can this kernel do?
  armrest x IMAGES mems                     what lies where in the checkpoint?
  armrest plan -D IMAGES                    what would a restore do?
  armrest restore -D IMAGES -r ROOT         restore, wait, pass on the status
  armrest restore -D IMAGES -d --pidfile F  restore and leave it running
Errors end with exit codes of their own (docs/exit-codes.md) and say `armrest:`.",
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = false
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Parse the words of a command line, the program's name first.
    ///
    /// A plain `restore` is parsed by its usual options alone: to describe all commands first takes longer than a small
    /// restore. Whatever is not understood that way (other options, help, mistakes) is parsed again in full, so the words
    /// are the same.
    ///
    /// # Errors
    /// What clap says.
    pub fn from_words(words: Vec<OsString>) -> Result<Cli, clap::Error> {
        if words.get(1).is_some_and(|w| w == "restore") {
            let alone = clap::Command::new("restore").disable_help_flag(true);
            // Freed with the process: it has a hundred small parts.
            let mut alone = std::mem::ManuallyDrop::new(UsualOptions::augment_args(alone));
            let parsed = alone.try_get_matches_from_mut(words.iter().skip(1));
            let usual = parsed.and_then(|mut m| UsualOptions::from_arg_matches_mut(&mut m));
            if let Ok(usual) = usual {
                let rare = RareOptions::default();
                return Ok(Cli {
                    command: Command::Restore(Box::new(RestoreOptions { usual, rare })),
                });
            }
        }
        Cli::try_parse_from(words)
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
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

/// How the last page of armrest's leaves the restored process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
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
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(
    about = "Restore a checkpoint: the process runs on from where it was.",
    help_template = TEMPLATE,
    override_usage = "armrest restore -D IMAGES [OPTIONS]",
    after_help = "Also: -j, --shell-job; --inherit-fd fd[N]:ID; --external ID; --finish HOW (man)
  armrest restore -D img --any-pid --any-ids    where ids may not be chosen"
)]
pub struct RestoreOptions {
    /// Those of most restores.
    #[command(flatten)]
    pub usual: UsualOptions,
    /// All others.
    #[command(flatten)]
    pub rare: RareOptions,
}

/// What most restores are asked for: these alone are described to clap first.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct UsualOptions {
    /// The checkpoint, as criu dump wrote it
    #[arg(short = 'D', long = "images-dir", value_name = "IMAGES")]
    pub images: PathBuf,
    /// Resolve all recorded paths below this directory
    #[arg(short, long, value_name = "ROOT")]
    pub root: Option<PathBuf>,
    /// Leave the process running and return
    #[arg(short = 'd', long = "restore-detached")]
    pub detached: bool,
    /// Write the pid there
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Where logs and pidfile go, if relative
    #[arg(short = 'W', long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
    /// Log to this file instead of stderr
    #[arg(short = 'o', long, value_name = "LOG")]
    pub log_file: Option<PathBuf>,
    /// Say more (up to three times)
    #[arg(short, long = "verbose", action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What a restore may be asked for besides.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct RareOptions {
    /// Leave it stopped before its first instruction
    #[arg(short = 's', long)]
    pub leave_stopped: bool,
    /// How the last page of armrest's leaves the process: auto, sigpage, ptrace, page (it stays)
    #[arg(long, value_name = "HOW", value_enum, default_value_t, hide = true)]
    pub finish: Finish,
    /// Fresh pid, ipc and mount namespaces
    #[arg(long)]
    pub new_namespaces: bool,
    /// Take any pid, not the checkpoint's
    #[arg(long)]
    pub any_pid: bool,
    /// Take any SysV ids, not the checkpoint's
    #[arg(long)]
    pub any_ids: bool,
    /// Map pages from the images, which must stay
    #[arg(long)]
    pub lazy: bool,
    /// Accept this changed file (glob, repeatable)
    #[arg(long, value_name = "PATH")]
    pub allow_changed: Vec<String>,
    #[allow(
        rustdoc::broken_intra_doc_links,
        reason = "the text is for the help: brackets are brackets there"
    )]
    /// Give it descriptor N of this program for ID: pipe[INODE], a path, file[MOUNT:INODE] (repeatable)
    #[arg(long, value_name = "fd[N]:ID", value_parser = inherit, hide = true)]
    pub inherit_fd: Vec<Inherit>,
    /// ID lies outside of the checkpoint: it must be given by --inherit-fd (repeatable)
    #[arg(long, value_name = "ID", hide = true)]
    pub external: Vec<String>,
    /// A terminal of the task is the caller's
    #[arg(long, short = 'j', hide = true)]
    pub shell_job: bool,
    /// Give up if not restored after that long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: Option<u64>,
    /// Check and plan everything, restore nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Write the outcome there, one JSON line
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(0..))]
    pub status_fd: Option<i32>,
    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// Do as if this kernel lacked it, to test what is done on older ones: mm-map
    #[arg(long, value_name = "WHAT", hide = true, value_parser = ["mm-map"])]
    pub pretend_without: Vec<String>,
}

/// What `armrest plan` was asked for.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(
    about = "Say what a restore would do: map, areas, every call. Does nothing.",
    help_template = TEMPLATE,
    after_help = "Examples:\n  armrest plan -D img | less\n  armrest plan -D img --json | jq '.calls[] | select(.name == \"shmat\")'"
)]
pub struct PlanOptions {
    /// The checkpoint, as criu dump wrote it
    #[arg(short = 'D', long = "images-dir", value_name = "IMAGES")]
    pub images: PathBuf,
    /// Compare files below this directory
    #[arg(short, long, value_name = "ROOT")]
    pub root: Option<PathBuf>,
    /// As for a restore in fresh namespaces
    #[arg(long)]
    pub new_namespaces: bool,
    /// As for a restore that takes any pid
    #[arg(long)]
    pub any_pid: bool,
    /// As for a restore that takes any SysV ids
    #[arg(long)]
    pub any_ids: bool,
    /// As for a restore that maps pages
    #[arg(long)]
    pub lazy: bool,
    /// As for a restore to the caller's terminal
    #[arg(long, short = 'j', hide = true)]
    pub shell_job: bool,
    /// The summary only
    #[arg(short, long)]
    pub summary: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `armrest show` was asked for.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(
    about = "Show one image file.",
    help_template = TEMPLATE,
    after_help = "Examples:\n  armrest show img/pstree.img\n  armrest show img/mm-136.img --json | jq .entries[0]"
)]
pub struct ShowOptions {
    /// The image file
    #[arg(value_name = "FILE.img")]
    pub file: PathBuf,
    /// Print compact JSON
    #[arg(long)]
    pub json: bool,
}

/// What `armrest x` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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

/// What `armrest x` was asked for.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[command(
    about = "Explore a checkpoint: processes, memory, descriptors, pages, SysV objects.",
    help_template = TEMPLATE,
    after_help = "Examples:\n  armrest x img ps\n  armrest x img mems --json"
)]
pub struct ExploreOptions {
    /// The checkpoint, as criu dump wrote it
    #[arg(value_name = "IMAGES")]
    pub images: PathBuf,
    /// ps: processes, mems: mappings, fds: files, rss: pages, ipc: SysV
    #[arg(value_name = "WHAT", value_enum, hide_possible_values = true)]
    pub what: What,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `armrest check` was asked for.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(
    about = "Say what this kernel can do for a restore.",
    help_template = TEMPLATE,
    after_help = "Ends with 0 if a restore is possible here, with 102 if something every restore\nneeds is missing.\n\nExamples:\n  armrest check\n  armrest check --json | jq '.[] | select(.found == false)'"
)]
pub struct CheckOptions {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `armrest verify` was asked for.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(
    about = "Compare a restored process with its checkpoint.",
    help_template = TEMPLATE,
    override_usage = "armrest verify -D IMAGES -t PID [OPTIONS]",
    after_help = "Ends with 0 if all is as in the images, with 109 if not.\n\nExamples:\n  kill -STOP 136; armrest verify -D img -t 136\n  armrest verify -D img -t 136 --json | jq '.findings[]'"
)]
pub struct VerifyOptions {
    /// The checkpoint, as criu dump wrote it
    #[arg(short = 'D', long = "images-dir", value_name = "IMAGES")]
    pub images: PathBuf,
    /// The process
    #[arg(short = 't', long = "tree", value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: u32,
    /// The directory below which it was restored
    #[arg(short, long, value_name = "ROOT")]
    pub root: Option<PathBuf>,
    /// It has run: its writable pages may differ
    #[arg(long)]
    pub allow_ran: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `armrest clean` was asked for.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(
    about = "Remove what a restore left that was killed; each restore does so too.",
    help_template = TEMPLATE,
    after_help = "Ends with 0 if nothing is left, with 110 if something cannot be removed.
ARMREST_JOURNAL=DIR names another place of the journals.

Examples:
  armrest clean --dry-run\n  armrest clean --json | jq '.[].all[]'"
)]
pub struct CleanOptions {
    /// Say what would be removed, remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The short way and the long one understand the same.
    #[test]
    fn usual_options_alone_are_understood_as_among_all() {
        let usual = [
            "armrest",
            "restore",
            "-D",
            "i",
            "-d",
            "--pidfile",
            "p",
            "-vv",
        ];
        let words = |more: &[&str]| -> Vec<OsString> {
            usual.iter().chain(more).map(OsString::from).collect()
        };
        let restore = |cli: Cli| match cli.command {
            Command::Restore(o) => *o,
            other => panic!("{other:?}"),
        };
        let short = restore(Cli::from_words(words(&[])).unwrap());
        let long = restore(Cli::try_parse_from(words(&[])).unwrap());
        assert_eq!(short, long);
        assert_eq!((short.usual.verbose, short.usual.detached), (2, true));
        let rare = restore(Cli::from_words(words(&["--any-pid"])).unwrap());
        assert!(rare.rare.any_pid && rare.usual == short.usual);
        for wrong in ["--help", "-h", "--no-such-option"] {
            let ways = [
                Cli::from_words(words(&[wrong])),
                Cli::try_parse_from(words(&[wrong])),
            ];
            let [short, long] = ways.map(|w| w.unwrap_err().to_string());
            assert_eq!(short, long);
        }
    }
}
