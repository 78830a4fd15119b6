//! Semaphores and message queues under `qemu-arm`: what is in the way, and that nothing is left when it is.

mod common;

use common::{Scratch, Setup, not_proved, provable};

/// An id of each kind that somebody has: named, with the words that remove it, and the segments made before are gone.
#[test]
fn a_taken_set_and_a_taken_queue() {
    if !provable("taken ids of semaphores and queues") {
        return;
    }
    for (before, what, hint) in [
        (
            "ipcmk -S 1 > /dev/null",
            "SysV semaphore set 0 (2 semaphores, key 0x77): its id is in use",
            "ipcrm -s ID",
        ),
        (
            "ipcmk -Q > /dev/null; ipcmk -Q > /dev/null; ipcrm -q 0",
            "SysV message queue 1 (4 messages, key 0x0): its id is in use",
            "ipcrm -q ID",
        ),
    ] {
        let s = Scratch::new("shm300");
        let setup = Setup::before(before);
        let done = s.refused(&setup, &[], 99, &[what, hint]);
        assert_eq!(done.json()["name"], "shm-taken");
        // It restores all the same with other ids; the program, which remembers the old ones, says so.
        let mut run = s.start_with(&setup, &["--any-ids"]);
        run.restored();
        let done = run.term();
        assert!(done.log.contains("FAIL"), "{done:?}");
    }
}

/// The key of a set that somebody has under another id.
#[test]
fn a_taken_key_of_a_set() {
    if !provable("taken key of a semaphore set") {
        return;
    }
    let perl = std::process::Command::new("perl").arg("-e1").status();
    if !perl.is_ok_and(|s| s.success()) {
        not_proved("taken key of a semaphore set: no perl to take one");
        return;
    }
    let s = Scratch::new("shm300");
    let before = "echo 9 > /proc/sys/kernel/sem_next_id; perl -e 'semget(0x77, 1, 01600) // die'";
    let setup = Setup::before(before);
    s.refused(
        &setup,
        &[],
        99,
        &["SysV semaphore set 0 ", "its key is in use"],
    );
}

/// Limits that the objects do not fit: refused before any is made.
#[test]
fn limits_of_the_namespace_of_others() {
    if !provable("limits of an IPC namespace") {
        return;
    }
    let s = Scratch::new("shm300");
    let before = "echo 16 > /proc/sys/kernel/msgmax && echo 4 32000 32 128 > /proc/sys/kernel/sem";
    s.refused(
        &Setup::before(before),
        &[],
        102,
        &[
            "plan: SysV message queue 0: a message of 19 bytes, kernel.msgmax is 16",
            "plan: SysV semaphore set 1: 5 semaphores, kernel.sem allows 4",
            "armrest: try: raise kernel.msgmax, or use --new-namespaces",
        ],
    );
}

/// An ordinary user with any ids: objects that cannot have their creator or owner have the user's, and that is said.
#[test]
fn an_ordinary_user() {
    if !provable("any ids as an ordinary user") {
        return;
    }
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) != 0 {
        not_proved("any ids as an ordinary user: only root becomes one");
        return;
    }
    // Whoever runs the tests at another nice value: an ordinary user could not leave it.
    let wrap = [
        "sh",
        "-c",
        r#"renice -n 0 -p $$ >/dev/null && exec "$@""#,
        "sh",
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ];
    let setup = Setup {
        before: r#"chmod -R a+rwX "$S""#,
        wrap: &wrap,
        hold: false,
    };
    for (name, said) in [
        (
            "shm300",
            "this user is that of SysV segment 0 (of 0:0), SysV segment 1 (of 0:0)",
        ),
        (
            "memory",
            " belongs to uid 65534 gid 65534, not to uid 0 gid 0",
        ),
    ] {
        let s = Scratch::new(name);
        let mut run = s.start_with(&setup, &["--any-pid", "--any-ids"]);
        run.restored();
        let done = run.term();
        assert!(done.stderr.contains(said), "{done:?}");
        if name == "memory" {
            done.passed();
        }
    }
}
