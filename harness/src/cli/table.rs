//! What can be typed: the one table that the parser, the help, the completions and the man pages come from.
//!
//! `build.rs` compiles this file too, so it uses nothing but `core`. Each `--help` fits a screen of 24 lines of 80
//! columns; a test counts.

/// The program in a line.
pub const ABOUT: &str = "Restores checkpointed processes (CRIU images) on ARMv7 Linux.";

/// The end of `armrest --help`.
pub const EXAMPLES: &str = "Examples:
  armrest check                             what can this kernel do?
  armrest x IMAGES mems                     what lies where in the checkpoint?
  armrest plan -D IMAGES                    what would a restore do?
  armrest restore -D IMAGES -r ROOT         restore, wait, pass on the status
  armrest restore -D IMAGES -d --pidfile F  restore and leave it running
Errors end with exit codes of their own (docs/exit-codes.md) and say `armrest:`.";

/// A command.
#[derive(Debug)]
pub struct Sub {
    /// Its name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// How it is called.
    pub usage: &'static str,
    /// Words that are no options, all needed, in order.
    pub operands: &'static [Arg],
    /// Its options.
    pub options: &'static [Arg],
    /// The end of its help.
    pub after: &'static str,
}

/// An option, or an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    /// The name: of an option after `--`.
    pub name: &'static str,
    /// The letter after `-`, if there is one.
    pub short: Option<char>,
    /// What its value is called, if it takes one.
    pub value: Option<&'static str>,
    /// The values there are; none: any.
    pub choices: &'static [&'static str],
    /// Must it be given?
    pub required: bool,
    /// May it be given more than once?
    pub many: bool,
    /// Is it left out of the help?
    pub hidden: bool,
    /// What it is for.
    pub help: &'static str,
}

impl Arg {
    const fn flag(name: &'static str, help: &'static str) -> Arg {
        Arg {
            name,
            short: None,
            value: None,
            choices: &[],
            required: false,
            many: false,
            hidden: false,
            help,
        }
    }

    const fn option(name: &'static str, value: &'static str, help: &'static str) -> Arg {
        Arg {
            value: Some(value),
            ..Arg::flag(name, help)
        }
    }

    const fn operand(value: &'static str, help: &'static str) -> Arg {
        Arg {
            required: true,
            ..Arg::option(value, value, help)
        }
    }

    const fn short(self, short: char) -> Arg {
        Arg {
            short: Some(short),
            ..self
        }
    }

    const fn one_of(self, choices: &'static [&'static str]) -> Arg {
        Arg { choices, ..self }
    }

    const fn required(self) -> Arg {
        Arg {
            required: true,
            ..self
        }
    }

    const fn many(self) -> Arg {
        Arg { many: true, ..self }
    }

    const fn hidden(self) -> Arg {
        Arg {
            hidden: true,
            ..self
        }
    }

    /// Is the value a path?
    pub fn is_path(&self) -> bool {
        const PATHS: [&str; 7] = ["IMAGES", "ROOT", "FILE", "FILE.img", "DIR", "LOG", "PATH"];
        self.value.is_some_and(|v| PATHS.contains(&v))
    }
}

const IMAGES: Arg = Arg::option(
    "images-dir",
    "IMAGES",
    "The checkpoint, as criu dump wrote it",
)
.short('D')
.required();

const JSON: Arg = Arg::flag("json", "Print JSON");

/// Values of `--finish`.
pub const FINISHES: [&str; 4] = ["auto", "sigpage", "ptrace", "page"];

/// What `armrest x` can show.
pub const VIEWS: [&str; 5] = ["ps", "mems", "fds", "rss", "ipc"];

/// The commands.
pub static COMMANDS: [Sub; 7] = [
    Sub {
        name: "restore",
        about: "Restore a checkpoint: the process runs on from where it was",
        usage: "armrest restore -D IMAGES [OPTIONS]",
        operands: &[],
        options: &[
            IMAGES,
            Arg::option(
                "root",
                "ROOT",
                "Resolve all recorded paths below this directory",
            )
            .short('r'),
            Arg::flag("restore-detached", "Leave the process running and return").short('d'),
            Arg::flag(
                "leave-stopped",
                "Leave it stopped before its first instruction",
            )
            .short('s'),
            Arg::option(
                "finish",
                "HOW",
                "How the last page of armrest's leaves the process: auto, sigpage, ptrace, page (it stays)",
            )
            .one_of(&FINISHES)
            .hidden(),
            Arg::option("pidfile", "FILE", "Write the pid there"),
            Arg::flag("new-namespaces", "Fresh pid, ipc and mount namespaces"),
            Arg::flag("any-pid", "Take any pid, not the checkpoint's"),
            Arg::flag("any-ids", "Take any SysV ids, not the checkpoint's"),
            Arg::flag("lazy", "Map pages from the images, which must stay"),
            Arg::option(
                "allow-changed",
                "PATH",
                "Accept this changed file (glob, repeatable)",
            )
            .many(),
            Arg::option(
                "inherit-fd",
                "fd[N]:ID",
                "Give it descriptor N of this program for ID: pipe[INODE], a path, file[MOUNT:INODE] (repeatable)",
            )
            .many()
            .hidden(),
            Arg::option(
                "external",
                "ID",
                "ID lies outside of the checkpoint: it must be given by --inherit-fd (repeatable)",
            )
            .many()
            .hidden(),
            Arg::flag("shell-job", "A terminal of the task is the caller's")
                .short('j')
                .hidden(),
            Arg::option(
                "timeout",
                "SECONDS",
                "Give up if not restored after that long",
            ),
            Arg::option("work-dir", "DIR", "Where logs and pidfile go, if relative").short('W'),
            Arg::option("log-file", "LOG", "Log to this file instead of stderr").short('o'),
            Arg::flag("verbose", "Say more (up to three times)")
                .short('v')
                .many(),
            Arg::flag("dry-run", "Check and plan everything, restore nothing"),
            Arg::option("status-fd", "FD", "Write the outcome there, one JSON line"),
            Arg::flag("json", "Print the summary as JSON"),
            Arg::option(
                "pretend-without",
                "WHAT",
                "Do as if this kernel lacked it, to test what is done on older ones",
            )
            .one_of(&["mm-map"])
            .many()
            .hidden(),
        ],
        after: "Also: -j, --shell-job; --inherit-fd fd[N]:ID; --external ID; --finish HOW (man)
  armrest restore -D img --any-pid --any-ids    where ids may not be chosen",
    },
    Sub {
        name: "plan",
        about: "Say what a restore would do: map, areas, every call. Does nothing",
        usage: "armrest plan -D IMAGES [OPTIONS]",
        operands: &[],
        options: &[
            IMAGES,
            Arg::option("root", "ROOT", "Compare files below this directory").short('r'),
            Arg::flag("new-namespaces", "As for a restore in fresh namespaces"),
            Arg::flag("any-pid", "As for a restore that takes any pid"),
            Arg::flag("any-ids", "As for a restore that takes any SysV ids"),
            Arg::flag("lazy", "As for a restore that maps pages"),
            Arg::flag("shell-job", "As for a restore to the caller's terminal")
                .short('j')
                .hidden(),
            Arg::flag("summary", "The summary only").short('s'),
            JSON,
        ],
        after: r#"Examples:
  armrest plan -D img | less
  armrest plan -D img --json | jq '.calls[] | select(.name == "shmat")'"#,
    },
    Sub {
        name: "show",
        about: "Show one image file",
        usage: "armrest show [OPTIONS] FILE.img",
        operands: &[Arg::operand("FILE.img", "The image file")],
        options: &[Arg::flag("json", "Print compact JSON")],
        after: "Examples:
  armrest show img/pstree.img
  armrest show img/mm-136.img --json | jq .entries[0]",
    },
    Sub {
        name: "x",
        about: "Explore a checkpoint: processes, memory, files, pages, SysV objects",
        usage: "armrest x [OPTIONS] IMAGES WHAT",
        operands: &[
            Arg::operand("IMAGES", "The checkpoint, as criu dump wrote it"),
            Arg::operand(
                "WHAT",
                "ps: processes, mems: mappings, fds: files, rss: pages, ipc: SysV",
            )
            .one_of(&VIEWS),
        ],
        options: &[JSON],
        after: "Examples:
  armrest x img ps
  armrest x img mems --json",
    },
    Sub {
        name: "check",
        about: "Say what this kernel can do for a restore",
        usage: "armrest check [OPTIONS]",
        operands: &[],
        options: &[JSON],
        after: "Ends with 0 if a restore is possible here, with 102 if something every restore
needs is missing.

Examples:
  armrest check
  armrest check --json | jq '.[] | select(.found == false)'",
    },
    Sub {
        name: "verify",
        about: "Compare a restored process with its checkpoint",
        usage: "armrest verify -D IMAGES -t PID [OPTIONS]",
        operands: &[],
        options: &[
            IMAGES,
            Arg::option("tree", "PID", "The process")
                .short('t')
                .required(),
            Arg::option(
                "root",
                "ROOT",
                "The directory below which it was restored",
            )
            .short('r'),
            Arg::flag("allow-ran", "It has run: its writable pages may differ"),
            JSON,
        ],
        after: "Ends with 0 if all is as in the images, with 109 if not.

Examples:
  kill -STOP 136; armrest verify -D img -t 136
  armrest verify -D img -t 136 --json | jq '.findings[]'",
    },
    Sub {
        name: "clean",
        about: "Remove what a restore left that was killed; each restore does so too",
        usage: "armrest clean [OPTIONS]",
        operands: &[],
        options: &[
            Arg::flag("dry-run", "Say what would be removed, remove nothing"),
            JSON,
        ],
        after: "Ends with 0 if nothing is left, with 110 if something cannot be removed.
ARMREST_JOURNAL=DIR names another place of the journals.

Examples:
  armrest clean --dry-run
  armrest clean --json | jq '.[].all[]'",
    },
];
