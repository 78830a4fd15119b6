//! One restore under qemu-arm: its plan, and what really happened between entering the blob and the first instruction
//! of the restored program, seen by three witnesses that must agree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Fail;

/// Ids are never asked for: they may be taken or not be chosen where this runs. The blob's calls do not depend on them.
const ANY_IDS: [&str; 2] = ["--any-pid", "--any-ids"];
/// A restore of 10,000 mappings takes a few seconds under emulation.
const PATIENCE: Duration = Duration::from_secs(120);

/// What runs the restores.
pub struct Bench {
    /// The static ARM executable.
    pub armrest: PathBuf,
    /// `qemu-arm`.
    pub qemu: PathBuf,
    /// The plugin, once built.
    pub plugin: PathBuf,
    /// The checkpoints: `tests/`.
    pub tests: PathBuf,
    /// Scratch.
    pub work: PathBuf,
}

/// A checkpoint to be restored.
pub struct Subject {
    /// Name in the tables.
    pub name: String,
    /// Program that it was made from: `tests/programs/bin/` and the files of `tests/images/` by this name.
    pub program: String,
    /// The images.
    pub images: PathBuf,
}

/// A call that the plan expects.
#[derive(Clone, Debug)]
pub struct Call {
    /// The step that makes it.
    pub step: String,
    /// Its name.
    pub name: String,
    /// Its number.
    pub nr: u64,
    /// r0 to r5.
    pub args: Vec<u64>,
}

/// What was counted.
pub struct Counted {
    /// The calls, as planned and as made.
    pub calls: Vec<Call>,
    /// Instructions in the bootstrap area.
    pub instructions: u64,
    /// Loads from outside of it.
    pub loads_outside: u64,
    /// Stores to outside of it.
    pub stores_outside: u64,
    /// Stack high-water mark, bytes.
    pub stack: u64,
    /// Most memory that the harness had mapped for itself at a time: break and mappings, without the executable.
    pub harness_bytes: u64,
    /// Descriptors of helpers that the task had to close.
    pub helpers: usize,
}

/// The call that qemu answers without showing it to plugins or -strace.
const SET_TLS: u64 = 0x000f_0005;

impl Bench {
    /// Build the plugin.
    pub fn build_plugin(&self, source: &Path) -> Result<(), Fail> {
        let cc = std::env::var("HOSTCC").unwrap_or_else(|_| "gcc".to_owned());
        let status = Command::new(&cc)
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC"])
            .args(["-fvisibility=hidden", "-shared", "-o"])
            .args([&self.plugin, source])
            .status()
            .map_err(|e| format!("{cc}: {e}"))?;
        if !status.success() {
            return Err(format!("{cc} {}: {status}", source.display()).into());
        }
        Ok(())
    }

    /// Restore twice, and count. Whatever differs between the two, or between the witnesses, is an error.
    pub fn count(&self, s: &Subject) -> Result<Counted, Fail> {
        let plan = self.plan(s)?;
        let calls = calls(&plan)?;
        let first = self.restore(s, &plan, true)?;
        let second = self.restore(s, &plan, false)?;
        if first.witness != second.witness {
            return Err(format!(
                "{}: two runs differ:\n  {}\n  {}",
                s.name, first.witness, second.witness
            )
            .into());
        }
        let (numbers, order) = parse_witness(&first.witness)?;
        let get = |name: &str| {
            numbers
                .get(name)
                .copied()
                .ok_or_else(|| format!("the plugin says nothing of {name}"))
        };
        self.agree(s, &calls, get("svcs")?, &order, &first.strace)?;
        Ok(Counted {
            instructions: get("instructions")?,
            loads_outside: get("loads_outside")?,
            stores_outside: get("stores_outside")?,
            stack: get("stack_used")?,
            harness_bytes: harness_memory(&first.parent),
            helpers: plan["sources"].as_array().map_or(0, Vec::len),
            calls,
        })
    }

    /// Plan = executed `svc` instructions = system calls by number = lines of -strace.
    fn agree(
        &self,
        s: &Subject,
        calls: &[Call],
        svcs: u64,
        order: &[u64],
        strace: &[String],
    ) -> Result<(), Fail> {
        if u64::try_from(calls.len()) != Ok(svcs) {
            return Err(format!(
                "{}: {} calls planned, {svcs} svc instructions executed",
                s.name,
                calls.len()
            )
            .into());
        }
        let shown: Vec<&Call> = calls.iter().filter(|c| c.nr != SET_TLS).collect();
        let numbers: Vec<u64> = shown.iter().map(|c| c.nr).collect();
        if numbers != order {
            return Err(format!("{}: other calls were made than planned", s.name).into());
        }
        let names: Vec<&str> = shown.iter().map(|c| c.name.as_str()).collect();
        if names != strace {
            let at = names.iter().zip(strace).position(|(a, b)| a != b);
            return Err(format!(
                "{}: -strace shows {} calls, {} were planned; first difference at {at:?}",
                s.name,
                strace.len(),
                names.len()
            )
            .into());
        }
        Ok(())
    }

    /// `armrest plan --json`: the blob's own steps on the recording kernel of the plan crate, for this very machine.
    fn plan(&self, s: &Subject) -> Result<Value, Fail> {
        let root = self.fresh_root(s)?;
        let out = Command::new(&self.qemu)
            .arg(&self.armrest)
            .args(["plan", "--json", "-D"])
            .arg(&s.images)
            .arg("-r")
            .arg(&root)
            .args(ANY_IDS)
            .output()?;
        if !out.status.success() {
            return Err(format!(
                "{}: armrest plan: {}",
                s.name,
                String::from_utf8_lossy(&out.stderr)
            )
            .into());
        }
        Ok(serde_json::from_slice(&out.stdout)?)
    }

    /// A directory that looks to the restored program like the one that it ran in.
    fn fresh_root(&self, s: &Subject) -> Result<PathBuf, Fail> {
        let root = self.work.join("root");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let bin = root.join("samples/bin");
        let run = root.join("samples/run").join(&s.program);
        fs::create_dir_all(&bin)?;
        fs::create_dir_all(&run)?;
        fs::copy(
            self.tests.join("programs/bin").join(&s.program),
            bin.join(&s.program),
        )?;
        let images = self.tests.join("images").join(&s.program);
        copy_tree(&images.join("files"), &run)?;
        if images.join("root").is_dir() {
            copy_tree(&images.join("root"), &root)?;
            if !root.join("lib").exists() {
                std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
            }
        }
        if let Ok(modes) = fs::read_to_string(images.join("files.modes")) {
            for line in modes.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let ["f", mode, file] = words[..] else {
                    return Err(format!("{}: cannot make {line:?}", s.name).into());
                };
                let mode = u32::from_str_radix(mode, 8)?;
                fs::set_permissions(run.join(file), fs::Permissions::from_mode(mode))?;
            }
        }
        Ok(root)
    }

    fn restore(&self, s: &Subject, plan: &Value, strace: bool) -> Result<Seen, Fail> {
        let root = self.fresh_root(s)?;
        let witness = self.work.join("witness");
        let log = self.work.join("parent.log");
        let pidfile = self.work.join("pid");
        for file in [&witness, &pidfile] {
            if file.exists() {
                fs::remove_file(file)?;
            }
        }
        let mut qemu = Command::new(&self.qemu);
        if strace {
            qemu.arg("-strace");
        }
        qemu.arg("-plugin").arg(format!(
            "{},area={},stack={},out={}",
            self.plugin.display(),
            range(&plan["area"])?,
            range(part(plan, "stack")?)?,
            witness.display()
        ));
        qemu.arg(&self.armrest)
            .args(["restore", "-D"])
            .arg(&s.images)
            .arg("-r")
            .arg(&root)
            .arg("--pidfile")
            .arg(&pidfile)
            .args(ANY_IDS)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let mut child = qemu.spawn()?;
        let seen = wait_for(&mut child, &witness, &pidfile);
        end(&mut child, &pidfile)?;
        remove_segments(child.id());
        let parent = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        seen.map_err(|e| format!("{}: {e}; its log ends:\n{}", s.name, tail(&parent)))?;
        // The task has put the program's own descriptors into place by then: -strace goes on where its standard error
        // goes, the program's log.
        let out = root.join("samples/run").join(&s.program).join("out.log");
        let task = String::from_utf8_lossy(&fs::read(out)?).into_owned();
        Ok(Seen {
            witness: fs::read_to_string(&witness)?,
            strace: if strace {
                blob_lines(&task)?
            } else {
                Vec::new()
            },
            parent,
        })
    }
}

struct Seen {
    witness: String,
    strace: Vec<String>,
    parent: String,
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|l| l.starts_with("armrest")).collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

/// The plugin writes when the restored program runs; the harness writes the pid when it has seen that.
fn wait_for(child: &mut Child, witness: &Path, pidfile: &Path) -> Result<(), String> {
    let start = Instant::now();
    let whole = |file: &Path| fs::read_to_string(file).is_ok_and(|t| t.ends_with('\n'));
    let filled =
        |file: &Path| whole(file) && fs::read_to_string(file).is_ok_and(|t| t.trim() != "0");
    loop {
        if whole(witness) && filled(pidfile) {
            return Ok(());
        }
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return Err(format!("ended too early: {status}")),
            Err(e) => return Err(e.to_string()),
        }
        if start.elapsed() > PATIENCE {
            return Err("does not come back to life".to_owned());
        }
        sleep(Duration::from_millis(20));
    }
}

/// SIGTERM to the harness, which passes it on; the programs check themselves and end. What does not is killed, by pid.
fn end(child: &mut Child, pidfile: &Path) -> Result<(), Fail> {
    signal("TERM", child.id());
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > Duration::from_secs(10) {
            if let Ok(pid) = fs::read_to_string(pidfile)
                .unwrap_or_default()
                .trim()
                .parse()
            {
                signal("KILL", pid);
            }
            child.kill()?;
            child.wait()?;
            break;
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// SysV segments outlive programs. Those that the harness of this restore made are removed again.
fn remove_segments(harness: u32) {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    for line in table.lines().skip(1) {
        // key, shmid, perms, size, cpid, ...
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, id, _, _, maker, ..] = words[..]
            && maker == harness.to_string()
        {
            // If it is gone by itself, so much the better.
            let _ = Command::new("ipcrm")
                .args(["-m", id])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn signal(name: &str, pid: u32) {
    if pid > 1 {
        // Gone already: nothing to do.
        let _ = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(pid.to_string())
            .stderr(Stdio::null())
            .status();
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), Fail> {
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            let mode = entry.metadata()?.permissions().mode() | 0o200;
            fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// `{"start": "0x1", "end": "0x2"}` as the plugin takes it.
fn range(v: &Value) -> Result<String, Fail> {
    let side = |name: &str| {
        v[name]
            .as_str()
            .map(|t| t.trim_start_matches("0x").to_owned())
            .ok_or("the plan has no such range")
    };
    Ok(format!("{}-{}", side("start")?, side("end")?))
}

fn part<'v>(plan: &'v Value, what: &str) -> Result<&'v Value, Fail> {
    let parts = plan["parts"].as_array().ok_or("the plan names no parts")?;
    let part = parts.iter().find(|p| p["what"] == what);
    Ok(&part.ok_or_else(|| format!("the plan names no {what}"))?["range"])
}

fn calls(plan: &Value) -> Result<Vec<Call>, Fail> {
    let calls = plan["calls"].as_array().ok_or("the plan has no calls")?;
    calls
        .iter()
        .map(|c| {
            let text = |name: &str| c[name].as_str().map(str::to_owned);
            Some(Call {
                step: text("step")?,
                name: text("name")?,
                nr: c["nr"].as_u64()?,
                args: c["args"]
                    .as_array()?
                    .iter()
                    .filter_map(Value::as_u64)
                    .collect(),
            })
        })
        .collect::<Option<_>>()
        .ok_or_else(|| "a call of the plan cannot be read".into())
}

fn parse_witness(line: &str) -> Result<(BTreeMap<String, u64>, Vec<u64>), Fail> {
    let (head, order) = line
        .split_once(" order")
        .ok_or("the plugin's line is cut")?;
    let words: Vec<&str> = head.split_whitespace().collect();
    let numbers = words
        .chunks_exact(2)
        .map(|pair| Ok((pair[0].to_owned(), pair[1].parse()?)));
    let order = order.split_whitespace().map(|n| Ok(n.parse()?));
    Ok((
        numbers.collect::<Result<_, Fail>>()?,
        order.collect::<Result<_, Fail>>()?,
    ))
}

/// `NAME` of `PID NAME(…`, if the line is one of -strace.
fn call_of(line: &str) -> Option<(&str, &str)> {
    let (pid, rest) = line.split_once(' ')?;
    let (name, _) = rest.split_once('(')?;
    (pid.bytes().all(|b| b.is_ascii_digit()) && !pid.is_empty()).then_some((pid, name))
}

/// The blob's lines: from the last call that only the harness makes (`prlimit64`, `brk`), to `rt_sigreturn`.
fn blob_lines(log: &str) -> Result<Vec<String>, Fail> {
    let names: Vec<&str> = log.lines().filter_map(call_of).map(|(_, n)| n).collect();
    let end = names
        .iter()
        .position(|n| *n == "rt_sigreturn")
        .ok_or("-strace shows no rt_sigreturn")?;
    let start = names[..end]
        .iter()
        .rposition(|n| matches!(*n, "prlimit64" | "brk"))
        .ok_or("-strace does not show where the blob was entered")?;
    Ok(names[start + 1..=end]
        .iter()
        .map(|n| (*n).to_owned())
        .collect())
}

/// Peak of the harness's own break and anonymous mappings, out of its part of the -strace log. What it maps without
/// ever touching it counts too, so this is more than it uses.
fn harness_memory(log: &str) -> u64 {
    let Some((own, _)) = log.lines().find_map(call_of) else {
        return 0;
    };
    let lines = log.lines().filter_map(|l| Some((call_of(l)?, l)));
    let (mut first_brk, mut heap, mut peak) = (None, 0, 0);
    let mut maps: BTreeMap<u64, u64> = BTreeMap::new();
    for ((pid, name), line) in lines {
        let Some((_, result)) = line.rsplit_once(" = 0x").filter(|_| pid == own) else {
            if pid == own && name == "munmap" {
                unmap(&mut maps, line);
            }
            continue;
        };
        let digits = result.split_whitespace().next().unwrap_or_default();
        let Ok(at) = u64::from_str_radix(digits, 16) else {
            continue;
        };
        match name {
            "brk" => heap = at - *first_brk.get_or_insert(at),
            "mmap2" if !line.contains("MAP_FIXED") && line.contains("MAP_ANONYMOUS") => {
                let len = line.split(',').nth(1).and_then(|n| n.parse().ok());
                maps.insert(at, len.unwrap_or(0));
            }
            _ => {}
        }
        peak = peak.max(heap + maps.values().sum::<u64>());
    }
    peak
}

/// `munmap(0xADDRESS,LENGTH)`.
fn unmap(maps: &mut BTreeMap<u64, u64>, line: &str) {
    let hex = line.split_once("(0x").and_then(|(_, r)| r.split_once(','));
    if let Some(at) = hex.and_then(|(a, _)| u64::from_str_radix(a, 16).ok()) {
        maps.remove(&at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blobs_lines_are_those_between_the_harness_and_the_program() {
        let log = "count 1\n7 prlimit64(0,1) = 0\n7 brk(0x1000) = 0x1000\n7 munmap(NULL,-1) = 0\n\
                   7 mmap2(0x1000,1) = 0x1000\n7 rt_sigreturn(0) = -1\n7 write(1,0x1,2)count 2\n";
        assert_eq!(
            blob_lines(log).expect("complete"),
            ["munmap", "mmap2", "rt_sigreturn"]
        );
        assert!(blob_lines("7 brk(0) = 0x1\n").is_err());
    }

    #[test]
    fn memory_of_the_harness_is_a_peak() {
        let log = "7 brk(NULL) = 0x00001000\n7 brk(0x3000) = 0x00003000\n\
                   7 mmap2(NULL,4096,PROT_READ,MAP_PRIVATE|MAP_ANONYMOUS,-1,0) = 0x40000000\n\
                   7 munmap(0x40000000,4096) = 0\n\
                   7 mmap2(NULL,4096,PROT_READ,MAP_PRIVATE|MAP_ANONYMOUS,-1,0) = 0x40001000\n";
        assert_eq!(harness_memory(log), 0x3000);
    }

    #[test]
    fn the_plugins_line_is_read() {
        let (numbers, order) =
            parse_witness("instructions 5 svcs 2 order 91 173\n").expect("whole");
        assert_eq!(numbers["instructions"], 5);
        assert_eq!(order, [91, 173]);
    }
}
