//! Descriptors: made once each, in an order that works, acted upon where they lie, or refused by name.

mod common;

use armrest_images::{
    AddrRange, Checkpoint, Epoll, EpollTarget, Eventfd, Fd, File, FileLock, FileOwner, Ghost,
    Inotify, LockKind, PipeContents, PipeEnd, Remap, Timerfd, Vma, VmaKind, Watch,
};
use armrest_plan::files::{Act, FilesPlan};
use armrest_plan::forest::forest;
use armrest_plan::late::Late;
use armrest_plan::model::{Trouble, machine, prove};
use armrest_plan::{CredData, Machine, plan};
use common::*;

fn with(all: Vec<(&[u32], File)>) -> Checkpoint {
    with_fds(all)
}

fn planned(cp: &Checkpoint) -> FilesPlan {
    plan(cp, &Machine::generic(), &options())
        .unwrap_or_else(|r| panic!("{r:?}"))
        .files
        .as_ref()
        .clone()
}

#[track_caller]
fn refused(cp: &Checkpoint, words: &str) {
    let r = plan(cp, &Machine::generic(), &options())
        .map(|_| ())
        .expect_err(words);
    assert!(r.0.iter().any(|r| r.what.contains(words)), "{words}: {r:?}");
}

/// Rows of the table of record locks: descriptor and `struct flock64`.
fn locked(cp: &Checkpoint) -> Vec<(u32, [u32; 8])> {
    let t = plan(cp, &Machine::generic(), &options()).unwrap().tables;
    let first = usize::try_from(t.records.first).unwrap();
    let rows = t.creds[first..].iter();
    rows.map(|c| match c.data {
        Some(CredData::Lock(words)) => (c.cred.args[0], words),
        _ => panic!("{c:?}"),
    })
    .collect()
}

fn event(owner: FileOwner, flags: u32) -> File {
    File::Eventfd(Eventfd {
        flags,
        owner,
        counter: 1,
    })
}

fn epoll(targets: &[u32]) -> File {
    File::Epoll(Epoll {
        flags: 2,
        owner: FileOwner::default(),
        targets: targets
            .iter()
            .map(|fd| EpollTarget {
                fd: *fd,
                events: 1,
                data: 5,
            })
            .collect(),
    })
}

fn inotify(wd: u32, path: Option<&str>) -> File {
    File::Inotify(Inotify {
        flags: 0,
        owner: FileOwner::default(),
        watches: vec![Watch {
            wd,
            mask: 2,
            ino: 1,
            path: path.map(str::to_owned),
            handle: None,
        }],
    })
}

fn plain() -> File {
    File::Pipe(PipeEnd {
        pipe: 1,
        flags: 0,
        owner: FileOwner::default(),
    })
}

fn owner(pid: u32, pid_type: u32) -> FileOwner {
    FileOwner {
        signum: 36,
        pid,
        pid_type,
        ..FileOwner::default()
    }
}

#[test]
fn each_description_is_made_once_and_watches_come_last() {
    let cp = with(vec![
        (&[9], inotify(1, Some("/a"))),
        (&[8], epoll(&[3, 9])),
        (&[3, 4, 40], plain()),
        (&[5], plain()),
        (&[6], event(FileOwner::default(), 2)),
    ]);
    let p = planned(&cp);
    let order: Vec<_> = p
        .makes
        .iter()
        .map(|m| m.at.iter().map(|a| a.1).collect::<Vec<_>>())
        .collect();
    assert_eq!(order, [vec![3, 4, 40], vec![5], vec![6], vec![8], vec![9]]);
    let notes = plan(&cp, &Machine::generic(), &options()).unwrap().notes;
    assert!(notes.iter().any(|n| n.contains("semaphore")), "{notes:?}");
    assert!(notes.iter().any(|n| n.contains("inotify")), "{notes:?}");
}

/// Leases name an owner if there is none, so owners come after them; timers begin to run, so they come last. A record lock
/// is the blob's.
#[test]
fn acts_are_in_order() {
    let timer = File::Timerfd(Timerfd {
        flags: 2,
        owner: FileOwner::default(),
        clock: 1,
        ticks: 2,
        settime: 0,
        value: (0, 0),
        interval: (0, 50_000_000),
    });
    let mut cp = with(vec![
        (&[3], timer),
        (&[4], epoll(&[5])),
        (&[5, 6], event(owner(136, 1), 0o20002)),
        (&[7], cp_file()),
    ]);
    let lock = |kind| FileLock {
        kind,
        write: true,
        pid: 136,
        fd: 7,
        start: 1,
        len: 2,
    };
    cp.locks = [
        LockKind::Posix,
        LockKind::Flock,
        LockKind::Lease,
        LockKind::Ofd,
    ]
    .map(lock)
    .to_vec();
    let p = planned(&cp);
    let acts: Vec<_> = p.acts.iter().map(|(task, a)| (*task, a.clone())).collect();
    assert_eq!(
        acts,
        [
            (0, Act::Lock(lock(LockKind::Lease))),
            (0, Act::Async { fd: 5 }),
            (0, Act::Epoll { fd: 4, file: 101 }),
        ]
    );
    assert_eq!(
        p.late,
        [
            Late::Owner {
                file: 102,
                owner: owner(136, 1)
            },
            Late::Timer { file: 100 },
        ]
    );
    assert_eq!(locked(&cp), [(7, [1, 0, 1, 0, 2, 0, 0, 0])]);
    assert_eq!(p.locks, [lock(LockKind::Flock), lock(LockKind::Ofd)]);
    let notes = |m: &Machine| plan(&cp, m, &options()).unwrap().notes;
    assert!(
        !notes(&Machine::generic())
            .iter()
            .any(|n| n.contains("unread timer"))
    );
    let old = Machine {
        has_timerfd_ticks: false,
        ..Machine::generic()
    };
    let notes = notes(&old);
    assert!(
        notes.iter().any(|n| n.contains("2 unread timer expiries")),
        "{notes:?}"
    );
}

fn cp_file() -> File {
    checkpoint(vec![], vec![], vec![]).files[&2].clone()
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (kind, words) in [
        ("INETSK", "fd 3: an internet socket (TCP or UDP)"),
        ("PACKETSK", "a packet socket"),
        ("NETLINKSK", "a netlink socket"),
        ("FANOTIFY", "a fanotify group"),
        ("NS", "a namespace"),
        ("TUNF", "a tun or tap device"),
        ("EXT", "a file of a CRIU plugin"),
        ("BPFMAP", "a BPF map"),
        ("PIDFD", "a process descriptor (pidfd)"),
    ] {
        refused(&with(vec![(&[3], File::Other { kind })]), words);
    }
    refused(
        &with(vec![(&[3], epoll(&[9]))]),
        "watches descriptor 9, which is closed",
    );
    refused(
        &with(vec![(&[3], inotify(1 << 21, Some("/a")))]),
        "watch number 2097152",
    );
    refused(
        &with(vec![(&[3], inotify(1, None))]),
        "watch 1 of an unknown file",
    );
    refused(
        &with(vec![(&[3], event(owner(7, 1), 2))]),
        "signals went to process 7",
    );
    refused(
        &with(vec![(&[3], event(owner(137, 0), 2))]),
        "signals went to thread 137",
    );
    refused(
        &with(vec![(&[3], event(owner(7, 2), 2))]),
        "signals went to process group 7",
    );

    let File::Reg(mut reg) = cp_file() else {
        panic!()
    };
    reg.external = true;
    refused(&with(vec![(&[3], File::Reg(reg.clone()))]), "is external");
    reg.external = false;
    reg.remap = Some(Remap::Process(5));
    refused(
        &with(vec![(&[3], File::Reg(reg.clone()))]),
        "of a process 5 that was dead",
    );
    reg.remap = Some(Remap::Ghost(1));
    let mut cp = with(vec![(&[3], File::Reg(reg.clone()))]);
    let ghost = |mode| Ghost {
        image: "ghost-file-1.img".into(),
        uid: 0,
        gid: 0,
        mode,
        times: None,
        size: 0,
        pieces: vec![],
    };
    cp.ghosts.insert(1, ghost(0o060_600));
    refused(&cp, "no file, directory or FIFO");
    for mode in [0o100_600, 0o040_700, 0o010_600] {
        cp.ghosts.insert(1, ghost(mode));
        planned(&cp);
    }
    reg.remap = None;
    reg.mode = Some(0o140_755);
    refused(
        &with(vec![(&[3], File::Reg(reg.clone()))]),
        "of a kind of its own",
    );
    reg.flags = 0o10_000_000;
    planned(&with(vec![(&[3], File::Reg(reg))]));
}

/// A record lock goes when the process closes any descriptor of the file, and mappings are made through some.
#[test]
fn a_lease_to_write_on_a_file_that_is_mapped_too_is_refused() {
    let mut cp = with(vec![(&[3], cp_file())]);
    cp.locks = vec![FileLock {
        kind: LockKind::Posix,
        write: false,
        pid: 136,
        fd: 3,
        start: 0,
        len: 0,
    }];
    planned(&cp);
    let live = cp.tasks[0].live.as_mut().unwrap();
    let range = AddrRange::new(0x10_0000, 0x10_1000).unwrap();
    live.mm.vmas.push(Vma {
        range,
        kind: VmaKind::File { file: 2 },
        ..anon(0x10_0000, 1, 1)
    });
    assert_eq!(locked(&cp), [(3, [0; 8])]);
    let mut shared = cp.clone();
    fork(&mut shared, 137, &[(3, 100)]);
    planned(&shared);
    shared.tasks[1].live.as_mut().unwrap().files_id =
        shared.tasks[0].live.as_ref().unwrap().files_id;
    refused(&shared, "mapped by another process with the same");
    cp.locks[0].kind = LockKind::Lease;
    planned(&cp);
    cp.locks[0].write = true;
    refused(&cp, "has a write lease and is mapped too");
    cp.locks[0].kind = LockKind::Flock;
    planned(&cp);
}

#[test]
fn memory_files_that_cannot_be() {
    let file = File::Memfd {
        inode: 7,
        flags: 2,
        pos: 0,
        owner: FileOwner::default(),
    };
    let mut cp = with(vec![(&[3], file)]);
    let mut sealed = |seals| {
        cp.memfds.get_mut(&7).unwrap().seals = seals;
        cp.clone()
    };
    planned(&sealed(0xf));
    planned(&sealed(0x10));
    refused(&sealed(0x40), "seals 0x40");
    let mut cp = sealed(0x10);
    let live = cp.tasks[0].live.as_mut().unwrap();
    let kind = VmaKind::Memfd { file: 5, inode: 7 };
    let v = Vma {
        kind,
        shared: true,
        access: Some(2),
        ..anon(0x10_0000, 1, 3)
    };
    live.mm.vmas.push(v);
    let seal = Late::Seal {
        inode: 7,
        seals: 0x10,
    };
    assert_eq!(planned(&cp).late, [seal]);
    // What is not mapped to write is sealed before.
    cp.tasks[0]
        .live
        .as_mut()
        .unwrap()
        .mm
        .vmas
        .last_mut()
        .unwrap()
        .access = Some(0);
    assert_eq!(planned(&cp).late, []);
}

/// The harness knows ids: a thread's, another task's, a group's. A task by itself that has something to wait for waits at
/// the gate; others do not.
#[test]
fn owners_are_named_once_everybody_is_there() {
    let gates = |cp: &Checkpoint| {
        let forest = forest(cp, &Machine::generic(), &options()).unwrap();
        forest.root().unwrap().want & armrest_abi::want::GATE != 0
    };
    let cp = with(vec![(&[3], event(owner(140, 0), 2))]);
    assert!(!gates(&with(vec![(&[3], plain())])));
    refused(&cp, "signals went to thread 140");
    let late = |id, kind| {
        vec![Late::Owner {
            file: 100,
            owner: owner(id, kind),
        }]
    };
    let cp = with(vec![(&[3], event(owner(136, 0), 2))]);
    assert_eq!(planned(&cp).late, late(136, 0));
    assert!(gates(&cp));
    // A group whose leader is gone.
    let mut cp = with(vec![(&[3], event(owner(139, 2), 2))]);
    refused(&cp, "signals went to process group 139");
    cp.tasks[0].pgid = 139;
    assert_eq!(planned(&cp).late, late(139, 2));
}

/// Record locks on what is mapped too: to close any descriptor of a file drops them, so they come behind the last close.
#[test]
fn record_locks_are_there_at_the_end() {
    let mut cp = with(vec![(&[7], cp_file())]);
    cp.locks = vec![FileLock {
        kind: LockKind::Posix,
        write: true,
        pid: 136,
        fd: 7,
        start: 1 << 33,
        len: 5,
    }];
    let file = VmaKind::File { file: 2 };
    let v = Vma {
        kind: file,
        ..anon(0x10_0000, 1, 1)
    };
    cp.tasks[0].live.as_mut().unwrap().mm.vmas.push(v);
    let plan = plan(&cp, &machine(), &options()).unwrap();
    assert!(!plan.tables.closes.is_empty());
    let model = prove(&cp, &machine(), &plan, Trouble::default()).unwrap();
    let words = |b: &[u8]| -> Vec<u32> {
        let (words, _) = b.as_chunks::<4>();
        words.iter().map(|w| u32::from_le_bytes(*w)).collect()
    };
    let found: Vec<_> = model
        .records
        .iter()
        .map(|(fd, l)| (*fd, words(l)))
        .collect();
    assert_eq!(found, [(7, vec![1, 0, 0, 2, 5, 0, 0, 0])]);
}

#[test]
fn a_root_of_its_own_needs_the_right() {
    let mut cp = with(vec![]);
    cp.pipes.insert(1, PipeContents::default());
    let File::Reg(mut root) = cp.files[&6].clone() else {
        panic!()
    };
    root.path = "/jail".into();
    cp.files.insert(7, File::Reg(root));
    cp.tasks[0].live.as_mut().unwrap().root = 7;
    planned(&cp);
    let m = Machine {
        cap_eff: !(1 << 18),
        ..Machine::generic()
    };
    let r = plan(&cp, &m, &options())
        .map(|_| ())
        .expect_err("no chroot");
    assert!(
        r.0.iter()
            .any(|r| r.what.contains("root directory is /jail")),
        "{r:?}"
    );
}

#[test]
fn what_the_caller_gives_is_not_made_nor_refused() {
    let File::Reg(mut reg) = cp_file() else {
        panic!()
    };
    reg.external = true;
    reg.path = "file[1f:7]".into();
    reg.owner = owner(7, 1);
    let mut cp = with(vec![
        (&[3], File::Reg(reg)),
        (&[4, 5], plain()),
        (&[6], plain()),
    ]);
    cp.locks = vec![FileLock {
        kind: LockKind::Flock,
        write: true,
        pid: 136,
        fd: 3,
        start: 0,
        len: 0,
    }];
    refused(&cp, "is external");
    let with_ids = |ids: &[&str]| armrest_plan::Options {
        inherit: ids.iter().map(|s| (*s).to_owned()).collect(),
        ..options()
    };
    let o = with_ids(&["pipe[1]", "file[1f:7]"]);
    let p = plan(&cp, &Machine::generic(), &o)
        .unwrap_or_else(|r| panic!("{r:?}"))
        .files;
    let given: Vec<_> = p.inherited.iter().map(|(f, n)| (*f, *n)).collect();
    assert_eq!(given, [(100, 1), (101, 0), (102, 0)]);
    assert_eq!(
        (p.acts.len(), p.locks.len()),
        (0, 0),
        "its owner and locks are the caller's"
    );
    let r = plan(&cp, &Machine::generic(), &with_ids(&["pipe[2]"]))
        .map(|_| ())
        .expect_err("no such");
    assert!(
        r.0.iter()
            .any(|r| r.what.contains("--inherit-fd pipe[2]: no descriptor")),
        "{r:?}"
    );
}

/// The first task again, as another process with descriptors of its own.
fn fork(cp: &mut Checkpoint, pid: u32, fds: &[(u32, u32)]) {
    let mut t = cp.tasks[0].clone();
    (t.pid, t.ppid) = (pid, cp.tasks[0].pid);
    let live = t.live.as_mut().unwrap();
    live.threads[0].tid = pid;
    live.files_id = pid;
    live.fds = fds
        .iter()
        .map(|(fd, file)| Fd {
            fd: *fd,
            cloexec: false,
            file: *file,
        })
        .collect();
    cp.tasks.push(t);
}

#[track_caller]
fn with_options(cp: &Checkpoint, o: &armrest_plan::Options) -> Vec<String> {
    match plan(cp, &Machine::generic(), o) {
        Ok(_) => vec![],
        Err(r) => r.0.into_iter().map(|r| r.what).collect(),
    }
}

/// The numbers of an epoll set's entries are those of whoever added them.
#[test]
fn a_shared_epoll_set_is_filled_where_its_numbers_are() {
    let set: Vec<(&[u32], File)> = vec![(&[4], epoll(&[5])), (&[5], plain()), (&[6], plain())];
    let filled = |cp: &Checkpoint| -> Vec<usize> {
        let acts = planned(cp).acts.into_iter();
        acts.filter(|(_, a)| matches!(a, Act::Epoll { .. }))
            .map(|a| a.0)
            .collect()
    };
    let mut cp = with(set.clone());
    fork(&mut cp, 137, &[(4, 100), (5, 101)]);
    assert_eq!(filled(&cp), [0]);
    cp.tasks[0].live.as_mut().unwrap().fds.retain(|f| f.fd != 5);
    assert_eq!(filled(&cp), [1]);
    let mut cp = with(set);
    fork(&mut cp, 137, &[(4, 100), (5, 102)]);
    refused(
        &cp,
        "its numbers are other files in pid 137 than in pid 136",
    );
}

#[test]
fn with_another_pid_signals_do_not_go_to_a_thread() {
    let any = armrest_plan::Options {
        any_pid: true,
        ..options()
    };
    let mut cp = with(vec![(&[5], event(owner(137, 1), 0o20002))]);
    fork(&mut cp, 137, &[]);
    assert_eq!(with_options(&cp, &options()), Vec::<String>::new());
    assert_eq!(
        with_options(&cp, &any),
        Vec::<String>::new(),
        "the harness knows which"
    );
    let mut cp = with(vec![(&[5], event(owner(140, 0), 0o20002))]);
    let live = cp.tasks[0].live.as_mut().unwrap();
    let mut thread = live.threads[0].clone();
    thread.tid = 140;
    live.threads.push(thread);
    let other = "fd 5: its signals went to thread 140 (F_SETOWN)".to_owned();
    assert!(with_options(&cp, &any).contains(&other));
    assert!(!with_options(&cp, &options()).contains(&other));
    let cp = with(vec![(&[5], event(owner(136, 1), 0o20002))]);
    assert_eq!(with_options(&cp, &any), Vec::<String>::new());
}

/// Locks name a descriptor of their own task.
#[test]
fn a_lock_of_another_task_is_that_tasks_matter() {
    let mut cp = with(vec![(&[3], plain()), (&[7], cp_file())]);
    fork(&mut cp, 137, &[(3, 101)]);
    let lock = FileLock {
        kind: LockKind::Flock,
        write: true,
        pid: 137,
        fd: 3,
        start: 0,
        len: 0,
    };
    cp.locks = vec![lock];
    assert_eq!(planned(&cp).locks, [lock]);
    cp.locks[0].pid = 136;
    refused(&cp, "fd 3: a lock on something that is no file");
}
