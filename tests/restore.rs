//! The samples live again: under `qemu-arm`, with the pid and the SysV ids of the checkpoint.

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use armrest_images::{magic, proto};
use common::{Scratch, Setup, kill, ns_pids, provable, wait_for};

/// Restores `name`, sees its pid, ends it and reads its verdict.
#[track_caller]
fn passes(name: &str, pid: u32, ids: &[u64]) {
    if !provable(name) {
        return;
    }
    let s = Scratch::new(name);
    let before = s.log();
    let mut run = s.start(&[]);
    let said = run.restored();
    assert_eq!(
        (said["pid"].as_u64(), said["comm"].as_str()),
        (Some(pid.into()), Some(name)),
        "{said}"
    );
    let task = run.task(pid);
    assert_eq!(ns_pids(task).last(), Some(&pid));
    if !ids.is_empty() {
        let memory = common::Memory::of(task, &format!("samples/bin/{name}"), 0x1_0000);
        let mut here: Vec<u64> = memory.sysv().iter().map(|m| m.4).collect();
        here.sort_unstable();
        here.dedup();
        assert_eq!(here, ids, "the kernel shows a segment's id as inode number");
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    let done = run.term();
    done.passed();
    assert!(done.log.starts_with(&before), "the old log is kept");
    assert!(
        done.stderr.is_empty() || done.stderr.lines().all(|l| l.starts_with("armrest: ")),
        "{done:?}"
    );
}

/// All threads, their ids, names and masks. The program's own check ends with a new thread, which its libc cannot make
/// here: it had registered rseq, and the emulator has none (docs/emulator.md). The machine runs it to its PASS.
#[test]
fn threads() {
    if !provable("threads") {
        return;
    }
    let s = Scratch::new("threads");
    let mut run = s.start(&[]);
    assert_eq!(run.restored()["threads"], 6);
    let task = run.task(229);
    let field = |status: &str, key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key));
        line.unwrap_or_default().trim().to_owned()
    };
    let mut threads: Vec<(String, String, u64)> = fs::read_dir(format!("/proc/{task}/task"))
        .expect("threads")
        .map(|t| fs::read_to_string(t.expect("a thread").path().join("status")).expect("status"))
        .map(|t| {
            let id = field(&t, "NSpid:");
            let mask = u64::from_str_radix(&field(&t, "SigBlk:"), 16).expect("a mask");
            let id = id.split_whitespace().last().unwrap_or_default();
            (id.to_owned(), field(&t, "Name:"), mask)
        })
        .collect();
    threads.sort();
    // The emulator gives real-time signals other numbers on the host, side by side like the program's.
    const REAL_TIME: u64 = u64::MAX << 33;
    let of = |id: &str| threads.iter().find(|t| t.0 == id).expect("the id");
    for (k, id) in (0..).zip(["233", "234", "235", "236"]) {
        let (_, name, mask) = of(id);
        assert_eq!(*name, format!("worker-{k}"));
        let first = of("233").2 & REAL_TIME;
        assert!(first.is_power_of_two());
        assert_eq!(mask & REAL_TIME, first << k, "{mask:x}");
    }
    assert_eq!(of("229").1, "threads");
    assert_eq!(of("229").2 & REAL_TIME, 0);
    assert!(of("232").2.count_ones() > 50, "the waiter blocks all");
    kill(task, libc::SIGKILL);
}

#[test]
fn crowd() {
    passes("crowd", 3001, &[]);
}

#[test]
fn counter() {
    passes("counter", 136, &[]);
}

#[test]
fn memory() {
    passes("memory", 201, &[]);
}

#[test]
fn sysvshm() {
    passes("sysvshm", 172, &[0, 1, 2, 3, 4, 5]);
}

/// A parent, four children and a grandchild, each with its pid.
#[test]
fn family() {
    passes("family", 175, &[0]);
}

/// A server and four workers in `accept` on one socket.
#[test]
fn workers() {
    passes("workers", 401, &[]);
}

/// A parent and eight children with pipes of their own and one that all share.
#[test]
fn troop8() {
    passes("troop8", 401, &[]);
}

/// A shell script: a pipeline, a job with traps and a child of its own, one that is blocked, one that has ended.
#[test]
fn script() {
    passes("script", 401, &[]);
}

/// A server whose eight workers and one of their children have most of their memory in common with it.
#[test]
fn forked() {
    passes("forked", 401, &[]);
}

/// 300 attachments of 20 segments; three semaphore sets and two message queues besides.
#[test]
fn shm300() {
    passes("shm300", 2801, &(0..20).collect::<Vec<_>>());
}

#[test]
fn sysvsplit() {
    passes("sysvsplit", 136, &[0, 1, 2]);
}

#[test]
fn dynamically_linked() {
    passes("dyn", 124, &[]);
}

/// Pages are mapped from the images; the program cannot tell, and the images are as before.
#[test]
fn lazily() {
    if !provable("lazily") {
        return;
    }
    for (name, pid) in [("counter", 136), ("memory", 201)] {
        let s = Scratch::new(name);
        let mut run = s.start(&["--lazy"]);
        let said = run.restored();
        assert_eq!(said["pid"], pid);
        assert!(
            said["notes"].to_string().contains("are mapped from pages-"),
            "{said}"
        );
        std::thread::sleep(std::time::Duration::from_millis(200));
        run.term().passed();
    }
}

/// No count is lost between the dump and the restore, and none said twice.
#[test]
fn counter_counts_on() {
    if !provable("counter counts on") {
        return;
    }
    let s = Scratch::new("counter");
    let last = |log: &str| -> u32 {
        log.lines()
            .rev()
            .find_map(|l| l.strip_prefix("count ")?.parse().ok())
            .unwrap()
    };
    let then = last(&s.log());
    let mut run = s.start(&[]);
    run.restored();
    run.logged(&format!("count {}\n", then + 3));
    let done = run.term();
    done.passed();
    let counts: Vec<u32> = done
        .log
        .lines()
        .filter_map(|l| l.strip_prefix("count ")?.parse().ok())
        .collect();
    assert!(counts.iter().copied().eq(0..=last(&done.log)), "{done:?}");
}

#[test]
fn copies_side_by_side() {
    if !provable("copies side by side") {
        return;
    }
    let scratches: Vec<Scratch> = (0..8).map(|_| Scratch::new("counter")).collect();
    let mut runs: Vec<_> = scratches
        .iter()
        .map(|s| s.start(&["--new-namespaces"]))
        .collect();
    for run in &mut runs {
        assert_eq!(run.restored()["pid"], 136);
    }
    // All of them live at the same time, each in a pid namespace below that of armrest.
    let tasks: Vec<u32> = runs.iter().map(|r| r.task(136)).collect();
    for (run, task) in runs.iter().zip(&tasks) {
        assert_eq!(ns_pids(*task).len(), ns_pids(run.armrest()).len() + 1);
    }
    for run in runs {
        run.term().passed();
    }
}

/// Where pid and ids are taken, `--new-namespaces` alone makes room.
#[test]
fn new_namespaces_where_the_ids_are_taken() {
    if !provable("--new-namespaces where pid and SysV ids are taken") {
        return;
    }
    let s = Scratch::new("sysvshm");
    // The ids and the pid are taken outside; inside they are free.
    let setup = Setup {
        before: "ipcmk -M 4096 > /dev/null; echo 171 > /proc/sys/kernel/ns_last_pid; sleep 300 &",
        ..Setup::default()
    };
    let mut run = s.start_with(&setup, &["--new-namespaces"]);
    assert_eq!(run.restored()["pid"], 172);
    let done = run.term();
    done.passed();
    done.nothing_left();
}

#[test]
fn new_namespaces_name_their_init_and_write_the_outer_pid() {
    if !provable("--new-namespaces --pidfile") {
        return;
    }
    let s = Scratch::new("counter");
    let pidfile = s.dir().join("pid");
    let mut run = s.start(&["--new-namespaces", "--pidfile", pidfile.to_str().unwrap()]);
    run.restored();
    let pid: u32 = wait_for("the pidfile", || {
        fs::read_to_string(&pidfile)
            .ok()?
            .trim()
            .parse()
            .ok()
            .filter(|p| *p != 0)
    });
    let task = ns_pids(run.task(136));
    assert_eq!(
        task[task.len() - 2],
        pid,
        "the pidfile holds the pid that the caller can signal"
    );
    let done = run.term();
    done.passed();
    assert!(
        done.stderr.contains("init"),
        "the summary names the init: {done:?}"
    );
}

#[test]
fn any_pid_and_any_ids_say_what_is_now_what() {
    if !provable("--any-pid --any-ids") {
        return;
    }
    let s = Scratch::new("counter");
    let mut run = s.start(&["--any-pid"]);
    let pid = run.restored()["pid"].as_u64().unwrap();
    assert_ne!(pid, 136);
    assert_eq!(
        ns_pids(run.task(u32::try_from(pid).unwrap()))
            .last()
            .map(|p| u64::from(*p)),
        Some(pid)
    );
    let done = run.term();
    done.passed();
    assert!(
        done.stderr.contains(&format!("pid 136 is now {pid}")),
        "{done:?}"
    );

    // Segment 0 is taken; others may come as they were.
    let s = Scratch::new("sysvsplit");
    let setup = Setup {
        before: "ipcmk -M 4096 > /dev/null",
        ..Setup::default()
    };
    let mut run = s.start_with(&setup, &["--any-pid", "--any-ids"]);
    let said = run.restored();
    let pid = u32::try_from(said["pid"].as_u64().unwrap()).unwrap();
    let said = said.to_string();
    assert!(
        said.contains("pid 136 is now") && said.contains("SysV segment 0 is now"),
        "{said}"
    );
    // This program knows its ids by heart and so cannot be content; its memory is what it was.
    let task = run.task(pid);
    let memory = common::Memory::of(task, "samples/bin/sysvsplit", 0x1_0000);
    assert_eq!(
        memory.read(0xb6f2_d000, 6 * 4096),
        derived::pattern(1, 6 * 4096)
    );
    assert!(memory.sysv().iter().all(|m| m.4 != 0));
    drop(run);
}

#[test]
fn detached_with_pidfile() {
    if !provable("-d --pidfile") {
        return;
    }
    let s = Scratch::new("counter");
    let setup = Setup {
        hold: true,
        ..Setup::default()
    };
    let mut run = s.start_with(
        &setup,
        &[
            "-d",
            "--pidfile",
            "restored.pid",
            "-W",
            s.dir().to_str().unwrap(),
        ],
    );
    run.restored();
    assert_eq!(run.returned(), 0);
    assert_eq!(
        fs::read_to_string(s.dir().join("restored.pid")).unwrap(),
        "136\n"
    );
    let task = run.task(136);
    let log = s.log();
    wait_for("the program to go on", || {
        (s.log().len() > log.len()).then_some(())
    });
    kill(task, libc::SIGTERM);
    run.logged("PASS");
    let done = run.finish();
    assert!(done.log.ends_with("PASS\n"));
}

/// A pidfile that is there already is not overwritten.
#[test]
fn a_pidfile_in_the_way() {
    if !provable("an existing pidfile") {
        return;
    }
    let s = Scratch::new("counter");
    let path = s.root().join("pid");
    fs::write(&path, "mine").unwrap();
    s.refused(
        &Setup::default(),
        &["--pidfile", path.to_str().unwrap()],
        105,
        &["armrest: output: "],
    );
}

/// `counter` has no handler for these: they end it. (SIGINT and SIGQUIT it ignores, as a shell's background job does.)
#[test]
fn a_death_by_signal_is_passed_on() {
    if !provable("128 + signal") {
        return;
    }
    for signo in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
        let s = Scratch::new("counter");
        let mut run = s.start(&[]);
        run.restored();
        run.signal(signo);
        let done = run.finish();
        assert_eq!(done.code, Some(128 + signo), "{done:?}");
        done.nothing_left();
    }
    // Killed from the side.
    let s = Scratch::new("counter");
    let mut run = s.start(&[]);
    run.restored();
    kill(run.task(136), libc::SIGKILL);
    assert_eq!(run.finish().code, Some(137));
}

/// Every signal that a foreground restore passes on arrives. The images are edited: the handler of SIGTERM, which makes
/// the program check itself and end, is that of the other signal too. (Seen by its default action SIGTSTP would not
/// do: the task is a session leader, and the kernel does not stop orphaned process groups by it.)
#[test]
fn signals_pass_through() {
    if !provable("signals are passed on") {
        return;
    }
    for signo in [
        libc::SIGINT,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGCONT,
        libc::SIGTSTP,
    ] {
        let s = Scratch::new("counter");
        s.edit::<proto::Core>("core-136.img", magic::CORE, |c| {
            let actions = &mut c[0].tc.as_mut().unwrap().sigactions;
            // Actions of 1 to 64 but for 9 and 19.
            let at =
                |n: i32| usize::try_from(n - 1 - i32::from(n > 9) - i32::from(n > 19)).unwrap();
            actions[at(signo)] = actions[at(libc::SIGTERM)].clone();
        });
        let mut run = s.start(&[]);
        run.restored();
        run.signal(signo);
        run.finish().passed();
    }
}

/// A program that finds fault with itself ends with 1, and that is passed on.
#[test]
fn the_programs_own_failure_is_passed_on() {
    if !provable("exit status 1 of the program") {
        return;
    }
    let s = Scratch::new("sysvsplit");
    // The second attachment of segment 1, read-only at the dump, comes back writable: the program sees that.
    s.edit::<proto::Mm>("mm-136.img", magic::MM, |m| {
        for v in m[0]
            .vmas
            .iter_mut()
            .filter(|v| v.start == Some(0xb6ef_f000))
        {
            v.fdflags = Some(2);
        }
    });
    let mut run = s.start(&[]);
    run.restored();
    let done = run.term();
    assert_eq!(done.code, Some(1), "{done:?}");
    let fails = done.fails();
    assert!(
        fails.len() == 2
            && fails[0].contains("a read-only attachment stays read-only")
            && fails[1] == "FAIL 1",
        "{done:?}"
    );
    assert!(
        !done.stderr.lines().any(|l| l.starts_with("armrest: blob")),
        "{done:?}"
    );
}

#[test]
fn the_status_line_tells_all() {
    if !provable("--status-fd") {
        return;
    }
    let s = Scratch::new("sysvsplit");
    let work = tempfile::tempdir().unwrap();
    let mut run = s.start(&["--json", "-W", work.path().to_str().unwrap()]);
    run.restored();
    let done = run.term();
    done.passed();
    let json = done.json();
    let phases = json["phases"].as_object().unwrap();
    assert_eq!(
        phases.keys().map(String::as_str).collect::<Vec<_>>(),
        ["images", "plan", "open", "make", "fork", "task"]
    );
    let sum: f64 = phases.values().map(|p| p.as_f64().unwrap()).sum();
    let all = json["milliseconds"].as_f64().unwrap();
    assert!(
        sum <= all && phases.values().all(|p| p.as_f64() > Some(0.0)),
        "{json}"
    );
    let file = fs::read(work.path().join("stats-restore")).unwrap();
    let mut stats =
        armrest_images::container::Reader::open("stats-restore", &file, magic::STATS).unwrap();
    let stats = stats.entry_or_end::<proto::Stats>().unwrap().unwrap();
    assert_eq!(
        stats.restore.unwrap().pages_restored,
        json["pages"].as_u64()
    );
    assert_eq!(json["event"], "restored");
    assert_eq!(
        (json["pid"].as_u64(), json["checkpoint_pid"].as_u64()),
        (Some(136), Some(136))
    );
    assert_eq!(
        (
            json["threads"].as_u64(),
            json["vmas"].as_u64(),
            json["files"].as_u64()
        ),
        (Some(1), Some(21), Some(3))
    );
    assert!(
        json["notes"]
            .as_array()
            .unwrap()
            .iter()
            .any(|n| n.as_str().unwrap().contains("stays at"))
    );
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&done.stdout).unwrap(),
        json,
        "--json prints the same"
    );
}

#[test]
fn the_summary_names_what_the_emulator_cannot_do() {
    if !provable("the summary under qemu-user") {
        return;
    }
    let s = Scratch::new("memory");
    let mut run = s.start(&[]);
    run.restored();
    let done = run.term();
    done.passed();
    for words in [
        "restored pid 201 \"memory\"",
        "PR_SET_MM_MAP",
        "stays at",
        "CLOCK_MONOTONIC",
    ] {
        assert!(done.stderr.contains(words), "{words}: {done:?}");
    }
}

/// The emulator hands time namespaces through to the kernel below, so this is that kernel's own answer.
#[test]
fn clocks_go_on_from_the_dump() {
    if !provable("clocks that go on") {
        return;
    }
    if fs::metadata("/proc/self/ns/time_for_children").is_err() {
        return common::not_proved("clocks that go on: this kernel has no time namespaces");
    }
    let now = || {
        let mut t = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `t` is writable.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
        i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec)
    };
    let s = Scratch::new("counter");
    let cp = armrest_images::load(&armrest_images::FsDir::new(s.images())).unwrap();
    let then = i128::from(cp.clocks.expect("recorded").monotonic_ns);
    let begin = now();
    let mut run = s.start(&[]);
    run.restored();
    let offsets = fs::read_to_string(format!("/proc/{}/timens_offsets", run.task(136))).unwrap();
    let words: Vec<i128> = offsets
        .lines()
        .find_map(|l| l.strip_prefix("monotonic"))
        .unwrap()
        .split_whitespace()
        .map(|w| w.parse().unwrap())
        .collect();
    let end = now();
    let reads = end + words[0] * 1_000_000_000 + words[1];
    assert!(
        then <= reads && reads <= then + (end - begin),
        "{then} at the dump, {reads} now"
    );
    let done = run.term();
    done.passed();
    assert!(
        done.stderr
            .contains("CLOCK_MONOTONIC and CLOCK_BOOTTIME go on")
    );
}

#[test]
fn a_dry_run_restores_nothing() {
    if !provable("--dry-run") {
        return;
    }
    let s = Scratch::new("sysvshm");
    let before = s.snapshot();
    let done = s.start(&["--dry-run"]).finish();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.stderr.contains("could be restored") && !done.stderr.contains("restored pid"),
        "{done:?}"
    );
    done.nothing_left();
    assert!(before == s.snapshot());
}

/// `--timeout`: a restore that cannot get on is given up and leaves nothing. The restoring child is stopped from
/// outside as soon as it is there; where it was faster than that, once more.
#[test]
fn a_timeout_ends_a_restore_that_hangs() {
    if !provable("--timeout") {
        return;
    }
    for _ in 0..20 {
        let s = Scratch::new("sysvshm");
        let stopper = "( while :; do kill -STOP 172 2>/dev/null && break; done ) & sleep 0.2";
        // One instruction a block: gives the stopper more time.
        let setup = Setup {
            before: stopper,
            wrap: &["env", "QEMU_SINGLESTEP=1"],
            ..Setup::default()
        };
        let before = s.snapshot();
        let run = s.start_with(&setup, &["--timeout", "3"]);
        if run.outcome()["event"] == "restored" {
            continue;
        }
        let done = run.finish();
        assert_eq!(done.code, Some(106), "{done:?}");
        assert!(
            done.stderr.contains("armrest: watch: ") && done.stderr.contains("not done after 3 s"),
            "{done:?}"
        );
        assert!(done.shm_after().is_empty(), "{done:?}");
        assert!(before == s.snapshot());
        return;
    }
    panic!("the restore was faster than its stopper, 20 times over");
}

/// The second warm start: the log has grown since the dump.
#[test]
fn a_grown_log_is_named_and_can_be_accepted() {
    if !provable("--allow-changed") {
        return;
    }
    let s = Scratch::new("counter");
    let was = s.log().len();
    let mut run = s.start(&[]);
    run.restored();
    run.term().passed();
    let now = s.log().len();
    assert!(now > was);
    let words = format!("/samples/run/counter/out.log: changed: size {was} at the dump, {now} now");
    s.refused(
        &Setup::default(),
        &[],
        96,
        &[&words, "or --allow-changed PATH"],
    );
    s.refused(
        &Setup::default(),
        &["--allow-changed", "/else/*"],
        96,
        &[&words],
    );
    for glob in [
        "/samples/run/counter/out.log",
        "/samples/run/*/out.log",
        "*.log",
    ] {
        let mut run = s.start(&["--allow-changed", "/nothing", "--allow-changed", glob]);
        run.restored();
        let done = run.term();
        assert_eq!(done.code, Some(0), "{done:?}");
        // The position is that of the dump, so the program writes over what the first run had written.
        assert!(done.log.contains("PASS"), "{done:?}");
        assert!(done.stderr.contains("(allowed)"), "{done:?}");
        // Back to the log of after the first run.
        fs::OpenOptions::new()
            .write(true)
            .open(s.run_dir().join("out.log"))
            .unwrap()
            .set_len(now as u64)
            .unwrap();
    }
}

/// A file that is open for appending may grow: that is what it is open for.
#[test]
fn a_log_open_for_appending_only_warns() {
    if !provable("a file open for appending") {
        return;
    }
    let s = Scratch::new("counter");
    s.edit::<proto::FileEntry>("files.img", magic::FILES, |files| {
        for reg in files.iter_mut().filter_map(|f| f.reg.as_mut()) {
            if reg.name.as_deref().is_some_and(|n| n.ends_with(b"out.log")) {
                reg.flags = Some(reg.flags.unwrap_or(0) | 0o2000);
            }
        }
    });
    let path = s.run_dir().join("out.log");
    fs::write(&path, s.log() + "a line of somebody else\n").unwrap();
    let mut run = s.start(&[]);
    run.restored();
    // Written at the end, not at the position of the dump.
    run.logged("a line of somebody else\ncount ");
    let done = run.term();
    done.passed();
    assert!(done.stderr.contains("(open for appending)"), "{done:?}");
}

/// Links below ROOT that point out of it lead nowhere else, and what lies outside is not opened.
#[test]
fn links_do_not_leave_root() {
    if !provable("hostile links below ROOT") {
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    for (what, target) in [
        ("absolute", outside.path().join("out.log")),
        (
            "relative",
            std::path::PathBuf::from("../../../../../../../../../../../../")
                .join(outside.path().strip_prefix("/").unwrap())
                .join("out.log"),
        ),
    ] {
        let s = Scratch::new("counter");
        let log = s.run_dir().join("out.log");
        fs::copy(&log, outside.path().join("out.log")).unwrap();
        let before = fs::read(&log).unwrap();
        fs::remove_file(&log).unwrap();
        symlink(&target, &log).unwrap();
        let done = s.start(&[]).finish();
        assert!(matches!(done.code, Some(95 | 97)), "{what}: {done:?}");
        assert!(done.stderr.contains("out.log"), "{what}: {done:?}");
        done.nothing_left();
        assert_eq!(
            fs::read(outside.path().join("out.log")).unwrap(),
            before,
            "{what}: written to outside of ROOT"
        );
    }
    // A directory on the way.
    let s = Scratch::new("counter");
    let away = outside.path().join("run");
    fs::rename(s.run_dir(), &away).unwrap();
    symlink(&away, s.run_dir()).unwrap();
    let done = s.start(&[]).finish();
    assert!(matches!(done.code, Some(95 | 97)), "{done:?}");
    done.nothing_left();
    // A link that stays inside is followed, absolute ones from ROOT on.
    let s = Scratch::new("counter");
    let log = s.run_dir().join("out.log");
    fs::rename(&log, s.root().join("kept.log")).unwrap();
    symlink("/kept.log", &log).unwrap();
    let mut run = s.start(&[]);
    run.restored();
    let armrest = run.armrest();
    kill(armrest, libc::SIGTERM);
    let done = run.finish();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        fs::read_to_string(s.root().join("kept.log"))
            .unwrap()
            .ends_with("PASS\n")
    );
}

#[test]
fn images_on_a_read_only_medium() {
    if !provable("images on a read-only medium") {
        return;
    }
    let s = Scratch::new("sysvsplit");
    let ro = r#"mount --bind "$S/images" "$S/images" && mount -o remount,bind,ro "$S/images" && ! touch "$S/images/x" 2>/dev/null"#;
    let mut run = s.start_with(
        &Setup {
            before: ro,
            ..Setup::default()
        },
        &[],
    );
    run.restored();
    run.term().passed();
}

#[test]
fn logs_go_where_they_are_told() {
    if !provable("-o and -W") {
        return;
    }
    let s = Scratch::new("counter");
    let mut run = s.start(&[
        "-o",
        "restore.log",
        "-W",
        s.dir().to_str().unwrap(),
        "-v",
        "-v",
        "-v",
    ]);
    run.restored();
    let done = run.term();
    done.passed();
    assert_eq!(done.stderr, "");
    assert!(
        fs::read_to_string(s.dir().join("restore.log"))
            .unwrap()
            .contains("restored pid 136 \"counter\"")
    );
}
