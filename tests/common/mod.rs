//! Runs the real `armrest` (under `qemu-arm` where the host is no ARM) in namespaces of its own, and tells what came
//! of it: exit status, both streams, the status line, the program's own log, and what was there before and after.
//!
//! Every run is a fresh pid, ipc and mount namespace made by `unshare`, whose init is a small shell script ([`INIT`]):
//! so ids are free, tests can run side by side, and whatever a failing test leaves dies with the namespace.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use armrest_images::container;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take: the machine of a test run may be slow and busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// The init of a run: notes what is there, runs the command with `--status-fd 7` open, notes what is there now.
/// `$D` is the directory of notes, `$BEFORE` shell code that prepares the namespace, `$HOLD` non-empty if the
/// namespace must outlive the command (until the file `release` appears).
const INIT: &str = r#"
seen() {
    cat /proc/sysvipc/shm > "$D/shm.$1"
    cat /proc/sysvipc/sem /proc/sysvipc/msg > "$D/ipc.$1"
    for p in /proc/[0-9]*; do
        { read -r _ comm state _ < "$p/stat"; } 2>/dev/null || continue
        [ "$state" = Z ] || echo "${p#/proc/} $comm"
    done > "$D/ps.$1"
}
eval "$BEFORE" || { echo "test: BEFORE failed" >&2; exit 99; }
seen before
: > "$D/go"
"$@" 7> "$D/status" > "$D/stdout" 2> "$D/stderr" < /dev/null
rc=$?
seen after
echo $rc > "$D/rc"
while [ -n "$HOLD" ] && [ ! -e "$D/release" ]; do sleep 0.05; done
exit $rc
"#;

/// How namespaces of their own are made here, if they may be made.
fn unshare() -> Option<&'static [&'static str]> {
    static WAY: OnceLock<Option<&'static [&'static str]>> = OnceLock::new();
    *WAY.get_or_init(|| {
        let ways: [&[&str]; 2] = [
            &["-ipf", "--mount-proc", "--kill-child"],
            &["-Uripf", "--mount-proc", "--kill-child"],
        ];
        ways.into_iter().find(|w| {
            // Choosing a pid is part of what must be possible.
            let sh = ["sh", "-c", "echo 135 > /proc/sys/kernel/ns_last_pid"];
            Command::new("unshare")
                .args(*w)
                .args(sh)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|s| s.success())
        })
    })
}

/// Say that something could not be proved here, where `make test` looks. Without such a place that is a failure.
pub fn not_proved(what: &str) {
    let Some(path) = std::env::var_os("ARMREST_NOT_PROVED") else {
        panic!("not proved here: {what} (ARMREST_NOT_PROVED names no file to note that in)");
    };
    let mut f = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("ARMREST_NOT_PROVED");
    writeln!(f, "{what}").expect("ARMREST_NOT_PROVED");
}

/// True if namespaces can be made and ids chosen; else says that `what` is not proved.
#[must_use]
pub fn provable(what: &str) -> bool {
    let can = unshare().is_some();
    if !can {
        not_proved(&format!(
            "{what}: no namespaces of their own, or pids may not be chosen (unshare -ipf)"
        ));
    }
    can
}

/// The command that runs armrest: an emulator in front of it, unless `QEMU` is set and empty.
pub fn armrest() -> Vec<String> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program =
        std::env::var("ARMREST").map_or_else(|_| here.join("target/armrest"), PathBuf::from);
    assert!(
        program.is_file(),
        "{} is not there: `make` builds it, `make test` runs these tests",
        program.display()
    );
    let qemu = std::env::var("QEMU").unwrap_or_else(|_| "qemu-arm".into());
    let program = program.display().to_string();
    if qemu.is_empty() {
        vec![program]
    } else {
        vec![qemu, program]
    }
}

/// Run armrest where nothing needs choosing: `plan`, `x`, `--dry-run`.
pub fn look(args: &[&str]) -> (Option<i32>, String, String) {
    let words = armrest();
    let out = Command::new(&words[0])
        .args(&words[1..])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("armrest runs");
    (
        out.status.code(),
        String::from_utf8_lossy(&out.stdout).into(),
        String::from_utf8_lossy(&out.stderr).into(),
    )
}

/// A checkpoint and the root directory that it needs, both copies of our own.
pub struct Scratch {
    dir: TempDir,
    name: String,
}

impl Scratch {
    /// A copy of the sample `name`.
    pub fn new(name: &str) -> Scratch {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let sample = tests.join("images").join(name);
        let s = Scratch {
            dir: tempfile::tempdir().expect("a temporary directory"),
            name: name.into(),
        };
        fs::create_dir_all(s.images()).expect("images");
        for e in fs::read_dir(&sample)
            .expect("the sample")
            .map(|e| e.expect("an entry").path())
        {
            if e.extension().is_some_and(|x| x == "img") {
                fs::copy(&e, s.images().join(e.file_name().expect("a name")))
                    .expect("copy of an image");
            }
        }
        s.fresh_root();
        s
    }

    /// Make the root directory as it was at the dump.
    pub fn fresh_root(&self) {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let sample = tests.join("images").join(&self.name);
        let root = self.root();
        let _ = fs::remove_dir_all(&root);
        let bin = root.join("samples/bin");
        fs::create_dir_all(&bin).expect("bin");
        copy(
            &tests.join("programs/bin").join(&self.name),
            &bin.join(&self.name),
        );
        copy_tree(&sample.join("files"), &self.run_dir());
        self.modes(&fs::read_to_string(sample.join("files.modes")).unwrap_or_default());
        if sample.join("root").is_dir() {
            copy_tree(&sample.join("root"), &root);
            // As Debian has it.
            std::os::unix::fs::symlink("usr/lib", root.join("lib")).expect("lib");
        }
    }

    /// What version control does not keep of the files: the samples' README tells the format.
    fn modes(&self, list: &str) {
        use std::os::unix::fs::PermissionsExt;
        for line in list.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [kind, mode, name] = words[..] else {
                panic!("files.modes: {line}")
            };
            let path = self.run_dir().join(name);
            let bits = || u32::from_str_radix(mode, 8).expect("a mode");
            match kind {
                "f" => fs::set_permissions(&path, fs::Permissions::from_mode(bits())),
                "d" => fs::create_dir_all(&path)
                    .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(bits()))),
                "h" => fs::hard_link(&path, self.run_dir().join(mode)),
                "p" => {
                    let made = Command::new("mkfifo")
                        .args(["-m", mode])
                        .arg(&path)
                        .status();
                    made.map(|s| assert!(s.success(), "mkfifo {name}"))
                }
                _ => panic!("files.modes: {line}"),
            }
            .unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    /// Where everything of this scratch lies.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The images.
    pub fn images(&self) -> PathBuf {
        self.dir().join("images")
    }

    /// The root directory.
    pub fn root(&self) -> PathBuf {
        self.dir().join("root")
    }

    /// The program's working directory.
    pub fn run_dir(&self) -> PathBuf {
        self.root().join("samples/run").join(&self.name)
    }

    /// What the program wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.run_dir().join("out.log")).unwrap_or_default()
    }

    /// Edit the entries of an image.
    pub fn edit<M: prost::Message + Default>(
        &self,
        name: &str,
        magic: u32,
        change: impl FnOnce(&mut Vec<M>),
    ) {
        let path = self.images().join(name);
        let bytes = fs::read(&path).expect(name);
        fs::write(
            &path,
            container::edit(name, &bytes, magic, change).expect(name),
        )
        .expect(name);
    }

    /// Edit the bytes of an image.
    pub fn edit_bytes(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.images().join(name);
        let mut bytes = fs::read(&path).expect(name);
        change(&mut bytes);
        fs::write(&path, bytes).expect(name);
    }

    /// Everything below the images and the root: type and mode, size, time of change, contents.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, (u32, u64, i64, Vec<u8>)> {
        let mut out = BTreeMap::new();
        let mut todo = vec![self.images(), self.root()];
        while let Some(dir) = todo.pop() {
            for p in fs::read_dir(&dir)
                .expect("a directory")
                .map(|e| e.expect("an entry").path())
            {
                let m = fs::symlink_metadata(&p).expect("metadata");
                if m.is_dir() {
                    todo.push(p.clone());
                }
                let bytes = if m.is_file() {
                    fs::read(&p).expect("contents")
                } else {
                    Vec::new()
                };
                out.insert(p, (m.mode(), m.len(), m.mtime_nsec(), bytes));
            }
        }
        out
    }

    /// Start `armrest restore` on this scratch, in fresh namespaces.
    pub fn start(&self, args: &[&str]) -> Running<'_> {
        self.start_with(&Setup::default(), args)
    }

    /// The same with preparations.
    pub fn start_with(&self, setup: &Setup<'_>, args: &[&str]) -> Running<'_> {
        let notes = tempfile::tempdir_in(self.dir()).expect("notes");
        let unshare = unshare().expect("asked provable() before");
        let images = self.images().display().to_string();
        let root = self.root().display().to_string();
        let mut command = Command::new("unshare");
        command
            .args(unshare)
            .args(["sh", "-c", INIT, "init"])
            .args(setup.wrap)
            .args(armrest());
        command
            .args(["restore", "-D", &images, "-r", &root, "--status-fd", "7"])
            .args(args);
        command
            .env("D", notes.path())
            .env("BEFORE", setup.before)
            .env("S", self.dir());
        command
            .env("HOLD", if setup.hold { "1" } else { "" })
            .stdin(Stdio::null());
        let child = command.spawn().expect("unshare runs");
        Running {
            scratch: self,
            notes,
            child,
            done: None,
        }
    }

    /// Restore and expect a failure with this code and these words on standard error, and that nothing is left.
    #[track_caller]
    pub fn refused(&self, setup: &Setup<'_>, args: &[&str], code: i32, words: &[&str]) -> Done {
        let before = self.snapshot();
        let done = self.start_with(setup, args).finish();
        assert_eq!(done.code, Some(code), "{done:?}");
        for w in words {
            assert!(done.stderr.contains(w), "{w:?} is not in: {done:?}");
        }
        let text = if done.stderr.is_empty() {
            &done.log_file
        } else {
            &done.stderr
        };
        assert!(text.contains("armrest: "), "{done:?}");
        assert!(!text.contains("restored pid"), "{done:?}");
        assert!(before == self.snapshot(), "files changed: {done:?}");
        done.nothing_left();
        done
    }
}

/// Preparations of a run.
#[derive(Clone, Copy, Default)]
pub struct Setup<'a> {
    /// Shell code run in the new namespaces before armrest; `$S` is the scratch directory.
    pub before: &'a str,
    /// Words in front of the command: `setpriv ...`.
    pub wrap: &'a [&'a str],
    /// Keep the namespaces after armrest's end, until [`Running::finish`].
    pub hold: bool,
}

impl<'a> Setup<'a> {
    /// Shell code before armrest, nothing else.
    pub fn before(before: &'a str) -> Setup<'a> {
        Setup {
            before,
            ..Setup::default()
        }
    }

    /// Words in front of the command, nothing else.
    pub fn wrapped(wrap: &'a [&'a str]) -> Setup<'a> {
        Setup {
            wrap,
            ..Setup::default()
        }
    }
}

/// A run that has begun.
pub struct Running<'a> {
    scratch: &'a Scratch,
    notes: TempDir,
    child: Child,
    done: Option<i32>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Done {
    /// Exit status of armrest; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Lines of `--status-fd`.
    pub status: String,
    /// The program's own output.
    pub log: String,
    log_file: String,
    shm: [String; 2],
    /// Semaphore sets and message queues.
    ipc: [String; 2],
    ps: [String; 2],
}

impl Done {
    /// The one line of `--status-fd`.
    #[track_caller]
    pub fn json(&self) -> Value {
        let mut lines = self.status.lines();
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("no status line: {self:?}"));
        assert_eq!(lines.next(), None, "more than one status line: {self:?}");
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The program checked itself and was content.
    #[track_caller]
    pub fn passed(&self) {
        assert!(
            self.log.ends_with("PASS\n") && !self.log.contains("FAIL"),
            "{self:?}"
        );
        assert_eq!(self.code, Some(0), "{self:?}");
    }

    /// What the program found wrong with itself.
    pub fn fails(&self) -> Vec<&str> {
        let lines = self.log.lines();
        lines.filter(|l| l.starts_with("FAIL ")).collect()
    }

    /// No process and no SysV segment that was not there before.
    #[track_caller]
    pub fn nothing_left(&self) {
        assert_eq!(
            pids(&self.ps[0]),
            pids(&self.ps[1]),
            "processes left: {self:?}"
        );
        assert_eq!(
            shm_ids(&self.shm[0]),
            shm_ids(&self.shm[1]),
            "SysV segments left: {self:?}"
        );
        let ids = |t: &str| shm_ids(t);
        assert_eq!(
            ids(&self.ipc[0]),
            ids(&self.ipc[1]),
            "semaphores or queues left: {self:?}"
        );
    }

    /// Ids of SysV segments after the run.
    pub fn shm_after(&self) -> Vec<u32> {
        shm_ids(&self.shm[1])
    }
}

/// Without the names: a process of the preparations may still be about to `exec`.
fn pids(list: &str) -> Vec<&str> {
    list.lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect()
}

fn shm_ids(table: &str) -> Vec<u32> {
    table
        .lines()
        .skip(1)
        .filter_map(|l| l.split_whitespace().nth(1)?.parse().ok())
        .collect()
}

impl Running<'_> {
    fn note(&self, name: &str) -> String {
        fs::read_to_string(self.notes.path().join(name)).unwrap_or_default()
    }

    /// Wait until the status line says that the task is restored, and return it.
    #[track_caller]
    pub fn restored(&mut self) -> Value {
        let json = self.outcome();
        assert_eq!(json["event"], "restored", "{json}: {}", self.note("stderr"));
        json
    }

    /// Wait for the status line.
    #[track_caller]
    pub fn outcome(&self) -> Value {
        let line = wait_for("a status line", || {
            let text = self.note("status");
            let ended = !self.note("rc").is_empty();
            assert!(
                !ended || !text.is_empty(),
                "ended without a status line: {}",
                self.note("stderr")
            );
            text.split_once('\n').map(|(line, _)| line.to_owned())
        });
        serde_json::from_str(&line).expect("JSON")
    }

    /// Wait until the program has written `text`.
    #[track_caller]
    pub fn logged(&self, text: &str) {
        wait_for(&format!("{text:?} in the program's log"), || {
            self.scratch.log().contains(text).then_some(())
        });
    }

    /// The pids, as seen from here, of all processes of the run, ancestors first.
    fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.child.id()];
        let mut next = 0;
        while next < all.len() {
            all.extend(children(all[next]));
            next += 1;
        }
        all
    }

    /// armrest itself, as seen from here: the child of the init.
    #[track_caller]
    pub fn armrest(&self) -> u32 {
        wait_for("armrest", || {
            let init = *children(self.child.id()).first()?;
            children(init).into_iter().find(|p| {
                let line = fs::read(format!("/proc/{p}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains("restore\0-D")
            })
        })
    }

    /// The process with this pid in the innermost namespace: the pid as seen from here.
    #[track_caller]
    pub fn task(&self, pid: u32) -> u32 {
        wait_for(&format!("a task with pid {pid}"), || {
            self.processes()
                .into_iter()
                .find(|p| ns_pids(*p).last() == Some(&pid) && *p != self.child.id())
        })
    }

    /// Send a signal to armrest.
    #[track_caller]
    pub fn signal(&self, signo: i32) {
        kill(self.armrest(), signo);
    }

    /// Wait until armrest has ended while the namespaces are held; its exit status.
    #[track_caller]
    pub fn returned(&self) -> i32 {
        wait_for("armrest's end", || self.note("rc").trim().parse().ok())
    }

    /// Wait for the end.
    #[track_caller]
    pub fn finish(mut self) -> Done {
        fs::write(self.notes.path().join("release"), "").expect("release");
        let status = wait_for("the end of the run", || {
            self.child.try_wait().expect("wait")
        });
        self.done = status.code();
        Done {
            code: self.note("rc").trim().parse().ok(),
            stdout: self.note("stdout"),
            stderr: self.note("stderr"),
            status: self.note("status"),
            log: self.scratch.log(),
            log_file: fs::read_to_string(self.scratch.dir().join("restore.log"))
                .unwrap_or_default(),
            shm: [self.note("shm.before"), self.note("shm.after")],
            ipc: [self.note("ipc.before"), self.note("ipc.after")],
            ps: [self.note("ps.before"), self.note("ps.after")],
        }
    }

    /// SIGTERM to armrest, which passes it on; then the end.
    #[track_caller]
    pub fn term(self) -> Done {
        self.signal(libc::SIGTERM);
        self.finish()
    }
}

impl Scratch {
    /// Restore the sample, let it judge itself for a moment and end it.
    pub fn judged(&self) -> Done {
        let mut run = self.start(&[]);
        run.restored();
        std::thread::sleep(Duration::from_millis(200));
        run.term()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.done.is_none() {
            // `--kill-child`: the init dies with it, and everything in its namespace.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Wait until `look` finds something.
#[track_caller]
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Send a signal to a process of this test.
#[track_caller]
pub fn kill(pid: u32, signo: i32) {
    let pid = libc::pid_t::try_from(pid).expect("a pid");
    // SAFETY: numbers only; the pid is a descendant of this test, found a moment ago.
    let r = unsafe { libc::kill(pid, signo) };
    assert_eq!(r, 0, "kill {pid}: {}", std::io::Error::last_os_error());
}

/// Children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let parent = format!("\nPPid:\t{pid}\n");
    let all = fs::read_dir("/proc").expect("/proc");
    let pids = all.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<u32> = pids.filter(|p| status(*p).contains(&parent)).collect();
    found.sort_unstable();
    found
}

/// Pids of a process, outermost namespace first.
pub fn ns_pids(pid: u32) -> Vec<u32> {
    let status = status(pid);
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("NSpid:"))
        .unwrap_or_default();
    line.split_whitespace()
        .filter_map(|w| w.parse().ok())
        .collect()
}

/// `/proc/PID/status`.
pub fn status(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

/// A mapping of a restored task, in the task's own addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    /// `rw-s` and the like.
    pub perms: String,
    pub offset: u64,
    pub inode: u64,
    pub name: String,
}

/// Memory of a restored task. Under qemu-user the guest's addresses lie in the emulator's at a constant distance, which
/// the mapping of the program's text tells; so this looks at what the kernel says, not at what armrest says.
pub struct Memory {
    pid: u32,
    base: u64,
    /// What the kernel lists, below 4 GiB of the guest.
    pub maps: Vec<Mapping>,
}

impl Memory {
    /// Of the task with this pid, whose text `program` is mapped at `text`.
    #[track_caller]
    pub fn of(pid: u32, program: &str, text: u64) -> Memory {
        let lines = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
        let all: Vec<Mapping> = lines.lines().filter_map(mapping).collect();
        let found = all
            .iter()
            .find(|m| m.name.ends_with(program) && m.offset == 0);
        let base = found
            .unwrap_or_else(|| panic!("{program} is not in {lines}"))
            .start
            - text;
        let shown = |m: Mapping| {
            let (start, end) = (m.start.checked_sub(base)?, m.end.checked_sub(base)?);
            (end <= 1 << 32).then_some(Mapping { start, end, ..m })
        };
        Memory {
            pid,
            base,
            maps: all.into_iter().filter_map(shown).collect(),
        }
    }

    /// Parts of SysV segments: `(start, end, perms, offset, id)`.
    pub fn sysv(&self) -> Vec<(u64, u64, &str, u64, u64)> {
        let ours = self.maps.iter().filter(|m| m.name.starts_with("/SYSV"));
        ours.map(|m| (m.start, m.end, m.perms.as_str(), m.offset, m.inode))
            .collect()
    }

    /// Contents.
    #[track_caller]
    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let file = fs::File::open(format!("/proc/{}/mem", self.pid)).expect("mem");
        file.read_exact_at(&mut bytes, self.base + at)
            .unwrap_or_else(|e| panic!("read of {at:#x}: {e}"));
        bytes
    }
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let hex = |s: &str| u64::from_str_radix(s, 16).ok();
    let (perms, offset) = (words.next()?.to_owned(), hex(words.next()?)?);
    let inode = words.nth(1)?.parse().ok()?;
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        perms,
        offset,
        inode,
        name: words.collect::<Vec<_>>().join(" "),
    })
}

fn copy(from: &Path, to: &Path) {
    fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    let mode = fs::metadata(to).expect("metadata").permissions().mode();
    fs::set_permissions(to, fs::Permissions::from_mode(mode | 0o200)).expect("permissions");
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for e in fs::read_dir(from)
        .unwrap_or_else(|e| panic!("{}: {e}", from.display()))
        .map(|e| e.expect("an entry"))
    {
        let (src, dst) = (e.path(), to.join(e.file_name()));
        let kind = e.file_type().expect("a type");
        if kind.is_dir() {
            copy_tree(&src, &dst);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&src).expect("a link"), &dst).expect("a link");
        } else {
            copy(&src, &dst);
        }
    }
}
