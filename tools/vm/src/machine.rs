//! The machine itself: an initramfs for one job, qemu-system-arm, and what it says on its serial port.

use crate::cpio::Archive;
use crate::packages::{self, Packages, output};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime};

/// Where things are.
pub struct Places {
    /// The repository.
    pub root: PathBuf,
    /// Our own folder below `target/`.
    pub cache: PathBuf,
    /// The program under test.
    pub armrest: PathBuf,
}

impl Places {
    /// The repository that this tool was built from; `ARMREST` names another program.
    pub fn new() -> Result<Self, String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.ancestors().nth(2).ok_or("no repository")?.to_owned();
        let cache = root.join("target/vm");
        fs::create_dir_all(&cache).map_err(|e| format!("{}: {e}", cache.display()))?;
        let armrest =
            std::env::var_os("ARMREST").map_or_else(|| root.join("target/armrest"), PathBuf::from);
        Ok(Self {
            root,
            cache,
            armrest,
        })
    }
}

/// What the machine is to do after its boot.
pub enum Job<'a> {
    /// A shell on the terminal.
    Shell,
    /// Tests (name, seconds, script), which it asks for one by one; which of several machines it is.
    Tests(&'a [(String, u64, String)], usize),
    /// One command in the shell's language, and a folder for it.
    Run(String, Option<&'a Path>),
    /// The bench: a script, and a folder that becomes `/bench`.
    Bench(&'a str, &'a Path),
}

/// The machine, running.
pub struct Machine {
    child: Child,
    bytes: Receiver<Vec<u8>>,
    nonce: String,
    pending: Vec<u8>,
    console: File,
    /// Where all is that it says.
    pub log: PathBuf,
    started: Instant,
}

/// What came over the serial port.
pub enum Event {
    /// Output of whatever runs.
    Output(Vec<u8>),
    /// One of init's lines: its words.
    Line(Vec<String>),
    /// Nothing came for too long.
    Late,
    /// The machine is off.
    Off,
}

fn programs(places: &Places) -> Result<Vec<(String, PathBuf)>, String> {
    let sources = places.root.join("tools/vm/guest");
    let out = places.cache.join("guest");
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let mut made = Vec::new();
    for entry in fs::read_dir(&sources).map_err(|e| format!("{}: {e}", sources.display()))? {
        let source = entry.map_err(|e| e.to_string())?.path();
        let (Some(name), true) = (
            source.file_stem().and_then(|n| n.to_str()),
            source.extension().is_some_and(|e| e == "c"),
        ) else {
            continue;
        };
        let program = out.join(name);
        let time = |p: &Path| fs::metadata(p).and_then(|m| m.modified()).ok();
        if time(&program) < time(&source) {
            output(
                Command::new("arm-linux-gnueabihf-gcc")
                    .args([
                        "-std=gnu11",
                        "-O2",
                        "-Wall",
                        "-Wextra",
                        "-Werror",
                        "-static",
                        "-s",
                        "-o",
                    ])
                    .arg(&program)
                    .arg(&source),
            )?;
        }
        made.push((name.to_owned(), program));
    }
    Ok(made)
}

fn initramfs(places: &Places, found: &Packages, nonce: &str, job: &Job) -> Result<Vec<u8>, String> {
    let programs = programs(places)?;
    let fill = || -> std::io::Result<Vec<u8>> {
        let guest = places.root.join("tools/vm/guest");
        let samples = places.root.join("tests");
        let mut a = Archive::new();
        for dir in ["proc", "sys", "dev", "tmp", "root", "sbin", "samples/run"] {
            a.directory(dir, 0o755)?;
        }
        a.device("dev/console", 0o600, 5, 1)?;
        a.device("dev/null", 0o666, 1, 3)?;
        a.file("init", 0o755, &fs::read(guest.join("init"))?)?;
        a.file("vm/lib.sh", 0o644, &fs::read(guest.join("lib.sh"))?)?;
        let unit = fs::read(places.root.join("dist/armrest@.service"))?;
        a.file("vm/armrest@.service", 0o644, &unit)?;
        a.file("vm/restored", 0o644, &fs::read(guest.join("restored"))?)?;
        a.file("vm/nonce", 0o644, nonce.as_bytes())?;
        a.file("bin/busybox", 0o755, &fs::read(&found.busybox)?)?;
        a.link("bin/sh", "busybox")?;
        a.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
        a.file("etc/group", 0o644, b"root:x:0:\n")?;
        a.file("bin/armrest", 0o755, &fs::read(&places.armrest)?)?;
        for (name, path) in &programs {
            a.file(&format!("bin/{name}"), 0o755, &fs::read(path)?)?;
        }
        a.copy("samples/bin", &samples.join("programs/bin"))?;
        a.copy("images", &samples.join("images"))?;
        // Checkpoints derived from them, beside them: `/images/SAMPLE+NAME`.
        let derived = places.cache.join(format!("derived.{nonce}"));
        for d in derived::ALL {
            let (name, dir) = (format!("images/{}+{}", d.of, d.name), derived.join(d.name));
            d.write(&samples.join("images"), &dir)?;
            a.copy(&name, &dir)?;
        }
        fs::remove_dir_all(&derived)?;
        // What else a sample needs at its recorded place: the libraries of `dyn`, the shell of `script`.
        for sample in fs::read_dir(samples.join("images"))? {
            let root = fs::read_dir(sample?.path().join("root"));
            for entry in root.into_iter().flatten() {
                let path = entry?.path();
                if let Some(name) = path.file_name().and_then(|n| n.to_str()) {
                    a.copy(name, &path)?;
                }
            }
        }
        a.link("lib", "usr/lib")?;
        let mode = match job {
            Job::Shell => "shell",
            Job::Tests(tests, _) => {
                for (name, _, script) in *tests {
                    a.file(&format!("vm/tests/{name}"), 0o644, script.as_bytes())?;
                }
                "test"
            }
            Job::Run(command, share) => {
                a.file("vm/command", 0o644, command.as_bytes())?;
                if share.is_some() {
                    a.directory("share", 0o755)?;
                    for (module, number) in packages::SHARE_MODULES.iter().zip(0..) {
                        let name = module.rsplit('/').next().unwrap_or(module);
                        let from = found.modules.join("kernel").join(module);
                        a.file(
                            &format!("vm/modules/{number}-{name}"),
                            0o644,
                            &fs::read(from)?,
                        )?;
                    }
                }
                "run"
            }
            Job::Bench(script, inputs) => {
                a.file("vm/command", 0o644, script.as_bytes())?;
                a.copy("bench", inputs)?;
                "run"
            }
        };
        a.file("vm/mode", 0o644, mode.as_bytes())?;
        a.finish()
    };
    fill().map_err(|e| format!("initramfs: {e}"))
}

impl Machine {
    /// Boots. Everything that the machine says goes to `target/vm/console.log`, and for a shell to the terminal alone.
    pub fn boot(places: &Places, job: &Job) -> Result<Self, String> {
        if !places.armrest.is_file() {
            return Err(format!(
                "{}: not there; `make` builds it, ARMREST names another",
                places.armrest.display()
            ));
        }
        let found = packages::packages(&places.cache)?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| d.subsec_nanos());
        let nonce = format!("{:x}.{now:x}", std::process::id());
        // One of its own for each machine: two may run at once.
        let archive = places.cache.join(format!("initramfs.{nonce}"));
        fs::write(&archive, initramfs(places, &found, &nonce, job)?)
            .map_err(|e| format!("{}: {e}", archive.display()))?;
        let shell = matches!(job, Job::Shell);
        let log = places.cache.join(match job {
            Job::Tests(_, number @ 1..) => format!("console.{number}.log"),
            _ => "console.log".to_owned(),
        });
        let console = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let mut qemu = Command::new("qemu-system-arm");
        qemu.args([
            "-M",
            "virt",
            "-cpu",
            "cortex-a15",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
        ]);
        // Files lie in memory there: the bench needs room for its inputs and for what they become.
        qemu.args([
            "-m",
            if matches!(job, Job::Bench(..)) {
                "2048"
            } else {
                "512"
            },
        ]);
        qemu.args(["-display", "none", "-kernel"])
            .arg(&found.kernel)
            .arg("-initrd")
            .arg(&archive);
        qemu.args([
            "-serial",
            if shell { "mon:stdio" } else { "stdio" },
            "-append",
        ]);
        qemu.arg(if shell {
            "console=ttyAMA0 panic=-1 cryptomgr.notests quiet"
        } else {
            "console=ttyAMA0 panic=-1 cryptomgr.notests"
        });
        if let Ok(more) = std::env::var("VM_QEMU") {
            qemu.args(more.split_whitespace());
        }
        if let Job::Run(_, Some(dir)) = job {
            // Commas separate options, so one in the path is written twice.
            let path = fs::canonicalize(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            let path = path
                .to_str()
                .ok_or_else(|| format!("{}: not UTF-8", path.display()))?;
            qemu.arg("-fsdev").arg(format!(
                "local,id=share,security_model=none,path={}",
                path.replace(',', ",,")
            ));
            qemu.args(["-device", "virtio-9p-device,fsdev=share,mount_tag=share"]);
        }
        if !shell {
            let asks = matches!(job, Job::Tests(..));
            qemu.stdin(if asks { Stdio::piped() } else { Stdio::null() });
            qemu.stdout(Stdio::piped());
        }
        // SAFETY: prctl is async-signal-safe and touches no memory of ours.
        unsafe {
            qemu.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
            );
        }
        let started = Instant::now();
        let mut child = qemu.spawn().map_err(|e| format!("qemu-system-arm: {e}"))?;
        let (send, bytes) = channel();
        if let Some(mut out) = child.stdout.take() {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(n @ 1..) = out.read(&mut buffer) {
                    if send.send(buffer[..n].to_vec()).is_err() {
                        break;
                    }
                }
            });
        }
        let mut machine = Self {
            child,
            bytes,
            nonce,
            pending: Vec::new(),
            console,
            log,
            started,
        };
        // The machine reads the archive before its first instruction, so before its first word.
        if shell {
            let _ = machine.child.wait();
        } else if let Ok(first) = machine.bytes.recv_timeout(Duration::from_secs(60)) {
            machine.take(&first);
        }
        let _ = fs::remove_file(&archive);
        Ok(machine)
    }

    fn take(&mut self, bytes: &[u8]) {
        // The log is for people; a full disk is no reason to lose the results.
        let _ = self.console.write_all(bytes);
        self.pending.extend_from_slice(bytes);
    }

    /// A line for what asked for one. If it cannot be written the machine is gone, which is seen elsewhere.
    pub fn tell(&mut self, line: &str) {
        if let Some(to) = &mut self.child.stdin {
            let _ = writeln!(to, "{line}");
        }
    }

    /// Waits for the machine to switch itself off; no if it does not.
    pub fn off(&mut self) -> bool {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match self.next(until.saturating_duration_since(Instant::now())) {
                Event::Off => return true,
                Event::Late => return false,
                Event::Output(_) | Event::Line(_) => {}
            }
        }
    }

    /// Since the start of the boot.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The next thing that the machine says, within `limit`.
    pub fn next(&mut self, limit: Duration) -> Event {
        let until = Instant::now() + limit;
        let mark = format!("\n@@{} ", self.nonce).into_bytes();
        loop {
            if let Some(at) = find(&self.pending, &mark) {
                if at > 0 {
                    return Event::Output(self.pending.drain(..at).collect());
                }
                if let Some(end) = find(&self.pending[mark.len()..], b"\n") {
                    let line: Vec<u8> = self.pending.drain(..=mark.len() + end).collect();
                    let text = String::from_utf8_lossy(&line[mark.len()..]).into_owned();
                    return Event::Line(text.split_whitespace().map(str::to_owned).collect());
                }
            } else {
                // All but what may be the beginning of a mark.
                let keep = (0..mark.len())
                    .rev()
                    .find(|&n| self.pending.ends_with(&mark[..n]))
                    .unwrap_or(0);
                if self.pending.len() > keep {
                    let all = self.pending.len() - keep;
                    return Event::Output(self.pending.drain(..all).collect());
                }
            }
            match self
                .bytes
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(more) => self.take(&more),
                Err(RecvTimeoutError::Timeout) => return Event::Late,
                Err(RecvTimeoutError::Disconnected) if self.pending.is_empty() => {
                    return Event::Off;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Event::Output(std::mem::take(&mut self.pending));
                }
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|w| w == needle)
}
