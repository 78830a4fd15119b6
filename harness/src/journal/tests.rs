use super::clean::{Fate, run};
use super::judge::{self, Found, Row, Verdict};
use super::text::{Begun, Head, Journal as Text, Line, What};
use super::*;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

struct Room {
    tmp: tempfile::TempDir,
    dir: OwnedFd,
    place: Place,
}

impl Room {
    fn new() -> Room {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir(tmp.path().join("work")).unwrap();
        let dir = File::open(tmp.path().join("work")).unwrap().into();
        let journals = tmp.path().join("journals");
        std::fs::create_dir(&journals).unwrap();
        std::fs::set_permissions(&journals, PermissionsExt::from_mode(0o700)).unwrap();
        let place = Place::at(&journals);
        Room { tmp, dir, place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tmp.path().join("work").join(name)
    }

    fn journal(&self) -> Journal {
        Journal::new(&self.place, Path::new("/images of a/test"), false)
    }

    /// It says that it will make this file.
    fn will_make(&self, j: &Journal, name: &str) -> Entry {
        let dir = self.dir.as_fd();
        j.will_make(&Thing::File { dir, name }).unwrap()
    }

    /// It says so and makes it.
    fn makes(&self, j: &Journal, name: &str) -> Entry {
        let entry = self.will_make(j, name);
        std::fs::write(self.path(name), "").unwrap();
        entry
    }

    fn journals(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.tmp.path().join("journals"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect()
    }

    fn fates(&self) -> Vec<Fate> {
        let dead = run(&self.place, false).unwrap();
        dead.into_iter()
            .flat_map(|d| d.all)
            .map(|d| d.fate)
            .collect()
    }
}

/// As if its process had been killed: the lock is gone, the file is not.
fn killed(journal: Journal) {
    drop(journal.written.borrow_mut().take());
}

fn head() -> Head {
    Head {
        pid: 4711,
        uid: 1000,
        boot: "b".into(),
        ipc_ns: "ipc:[1]".into(),
        pid_ns: "pid:[2]".into(),
        token: "0123456789abcdef".into(),
        what: "/images\nof % x".into(),
    }
}

fn lines() -> Vec<Line> {
    let node = Node { dev: 7, ino: 8 };
    let make = |n, what| Line::Make {
        n,
        time: 1_700_000_000,
        what,
    };
    let sysv = |kind, id| What::Sysv {
        kind,
        id,
        key: 0xffff_fff0,
        mode: 0o640,
        creator: 1000,
    };
    vec![
        make(0, sysv(Kind::Segment, Some(5))),
        make(1, sysv(Kind::Set, None)),
        Line::Id { n: 1, id: 9 },
        make(
            2,
            What::File {
                dir: node,
                path: "/a b/\u{e4}".into(),
                name: "x %y".into(),
            },
        ),
        Line::Node { n: 2, node },
        make(
            3,
            What::Aside {
                dir: node,
                path: "/".into(),
                name: "n".into(),
                aside: ".armrest-1".into(),
                node,
            },
        ),
        Line::Gone { n: 0 },
        Line::Task { pid: 12, start: 99 },
    ]
}

#[test]
fn what_is_written_is_read() {
    let mut text = head().to_string();
    for l in lines() {
        text.push_str(&l.to_string());
    }
    let read = Text::parse(text.as_bytes()).unwrap().unwrap();
    assert_eq!((&read.head, &read.lines), (&head(), &lines()));
    let open = read.open();
    assert_eq!(open.iter().map(|b| b.n).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(
        (open[2].id, open[1].node),
        (Some(9), Some(Node { dev: 7, ino: 8 }))
    );
    assert_eq!(read.tasks().collect::<Vec<_>>(), [(12, 99)]);
    // Cut anywhere: whole lines count, the rest never happened.
    for end in 0..text.len() {
        let cut = Text::parse(&text.as_bytes()[..end]).unwrap();
        let whole = text.as_bytes()[..end]
            .iter()
            .filter(|b| **b == b'\n')
            .count();
        assert_eq!(cut.map_or(0, |j| j.lines.len() + 1), whole);
    }
}

#[test]
fn what_makes_no_sense_is_not_believed() {
    let bad = [
        "make 0 1 file 7 8 'relative 'x",
        "make 0 1 file 7 8 '/a '..",
        "make 0 1 file 7 8 '/a '",
        "make 0 1 file 7 8 '/a 'b/c",
        "make 0 1 file 7 8 '/a 'b%00",
        "make 0 1 file 7 8 '/a 'b%zz",
        "make 0 1 aside 7 8 '/a 'b '../c 1 2",
        "make 0 1 shm -5 0x0 600 0",
        "make 0 1 shm 5 0 600 0",
        "make 0 99999999999999999999 shm 5 0x0 600 0",
        "id 0 -1",
        "rm -rf /",
        "",
    ];
    for line in bad {
        let text = format!("{}{line}\n", head());
        assert_eq!(Text::parse(text.as_bytes()), Err(2), "{line}");
    }
    assert_eq!(Text::parse(b"armrest-journal-2 1 2\n"), Err(1));
    assert_eq!(Text::parse(b"\xff\n"), Err(0));
}

#[test]
fn only_the_very_object_is_removed() {
    let segment = Row {
        id: 5,
        key: 7,
        mode: 0o600,
        cuid: 1000,
        cpid: Some(4711),
        ctime: 100,
    };
    let what = What::Sysv {
        kind: Kind::Segment,
        id: Some(5),
        key: 7,
        mode: 0o600,
        creator: 1000,
    };
    let begun = |id| Begun {
        n: 0,
        time: 100,
        what: &what,
        id,
        node: None,
    };
    let ask = |id, rows: &[Row]| judge::sysv(&head(), &begun(id), rows, 100, true, &[]);
    assert_eq!(
        ask(Some(5), std::slice::from_ref(&segment)),
        Verdict::Remove(5)
    );
    assert_eq!(
        ask(None, std::slice::from_ref(&segment)),
        Verdict::Remove(5)
    );
    let others = [
        Row {
            id: 6,
            ..segment.clone()
        },
        Row {
            key: 8,
            ..segment.clone()
        },
        Row {
            cuid: 0,
            ..segment.clone()
        },
        Row {
            cpid: Some(4712),
            ..segment.clone()
        },
        Row {
            ctime: 98,
            ..segment.clone()
        },
    ];
    for other in &others {
        assert_eq!(
            ask(Some(5), std::slice::from_ref(other)),
            Verdict::Gone,
            "{other:?}"
        );
    }
    let late = Row {
        ctime: 111,
        ..segment.clone()
    };
    // Its id is known and its creator is: no time is too late. Without an id it is.
    assert_eq!(
        ask(Some(5), std::slice::from_ref(&late)),
        Verdict::Remove(5)
    );
    assert_eq!(ask(None, &[late]), Verdict::Gone);
    assert_eq!(
        ask(
            None,
            &[Row {
                mode: 0o644,
                ..segment.clone()
            }]
        ),
        Verdict::Gone
    );
    assert_eq!(
        ask(
            None,
            &[
                segment.clone(),
                Row {
                    id: 6,
                    ..segment.clone()
                }
            ]
        ),
        Verdict::Unclear(2)
    );
    // Nobody notes who made a semaphore set: the time must fit.
    let set = What::Sysv {
        kind: Kind::Set,
        id: Some(5),
        key: 7,
        mode: 0o600,
        creator: 1000,
    };
    let begun = Begun {
        n: 0,
        time: 100,
        what: &set,
        id: Some(5),
        node: None,
    };
    let row = |ctime| {
        [Row {
            cpid: None,
            ctime,
            ..segment.clone()
        }]
    };
    let ask = |rows: &[Row]| judge::sysv(&head(), &begun, rows, 110, true, &[]);
    assert_eq!(ask(&row(170)), Verdict::Remove(5));
    assert_eq!(ask(&row(171)), Verdict::Gone);
}

#[test]
fn columns_are_found_by_their_names() {
    let shm = "       key      shmid perms       size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime        rss       swap\n         0          3  1600       4096   172   172      0     0     0     7     0          0          0 1700000000          0          0\n-1 4 644 1 1 1 0 0 0 7 0 0 0 1 0 0\n";
    let rows = judge::rows(shm);
    assert_eq!(
        rows[0],
        Row {
            id: 3,
            key: 0,
            mode: 0o600,
            cuid: 7,
            cpid: Some(172),
            ctime: 1_700_000_000
        }
    );
    assert_eq!(rows[1].key, u32::MAX);
    let sem = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n 5 1 600 2 0 0 9 0 0 77\n";
    assert_eq!(
        judge::rows(sem),
        [Row {
            id: 1,
            key: 5,
            mode: 0o600,
            cuid: 9,
            cpid: None,
            ctime: 77
        }]
    );
}

#[test]
fn a_file_is_told_by_its_number_or_at_least_by_its_time() {
    let node = Node { dev: 1, ino: 2 };
    let plain = What::File {
        dir: node,
        path: "/a".into(),
        name: "sock".into(),
    };
    let hidden = What::File {
        dir: node,
        path: "/a".into(),
        name: ".armrest-0123456789abcdef-3".into(),
    };
    let begun = |what, node| Begun {
        n: 0,
        time: 100,
        what,
        id: None,
        node,
    };
    let found = |uid, ctime| Found { node, uid, ctime };
    let ours = |b: &Begun<'_>, f: &Found| judge::file(&head(), b, f);
    assert!(ours(&begun(&plain, Some(node)), &found(0, 0)));
    assert!(!ours(
        &begun(&plain, Some(Node { dev: 1, ino: 3 })),
        &found(1000, 100)
    ));
    assert!(ours(&begun(&plain, None), &found(1000, 110)));
    assert!(!ours(&begun(&plain, None), &found(1000, 111)));
    assert!(!ours(&begun(&plain, None), &found(1000, 98)));
    assert!(!ours(&begun(&plain, None), &found(1001, 100)));
    assert!(ours(&begun(&hidden, None), &found(1000, 9999)));
}

#[test]
fn files_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let r = Room::new();
    let j = r.journal();
    let entry = r.makes(&j, "sock et");
    j.made_file(&entry, r.dir.as_fd(), "sock et").unwrap();
    let _never = r.will_make(&j, "never");
    let gone = r.makes(&j, "kept");
    j.gone(&gone).unwrap();
    let hidden = j.hidden();
    let _unsaid = r.will_make(&j, &hidden);
    std::fs::create_dir(r.path(&hidden)).unwrap();
    assert_eq!(r.journals().len(), 1);
    // It lives: nothing is even read.
    assert_eq!(run(&r.place, false).unwrap(), []);
    killed(j);
    let look = run(&r.place, true).unwrap();
    assert_eq!(look[0].what, "/images of a/test");
    let fates: Vec<_> = look[0].all.iter().map(|d| d.fate.clone()).collect();
    assert_eq!(fates, [Fate::Would, Fate::Gone, Fate::Would]);
    assert!(r.path("sock et").exists());
    assert_eq!(r.fates(), [Fate::Removed, Fate::Gone, Fate::Removed]);
    assert!(!r.path("sock et").exists() && !r.path(&hidden).exists() && r.path("kept").exists());
    assert!(r.journals().is_empty());
}

#[test]
fn a_name_that_is_somebody_elses_by_now_stays() {
    let r = Room::new();
    let j = r.journal();
    let entry = r.will_make(&j, "x");
    std::fs::write(r.path("x"), "ours").unwrap();
    j.made_file(&entry, r.dir.as_fd(), "x").unwrap();
    killed(j);
    std::fs::write(r.path("y"), "theirs").unwrap();
    std::fs::rename(r.path("y"), r.path("x")).unwrap();
    assert_eq!(r.fates(), [Fate::Gone]);
    assert_eq!(std::fs::read(r.path("x")).unwrap(), b"theirs");
}

#[test]
fn another_directory_at_the_same_path_is_left_alone() {
    let r = Room::new();
    let j = r.journal();
    let _e = r.makes(&j, "x");
    killed(j);
    let (work, old) = (r.tmp.path().join("work"), r.tmp.path().join("old"));
    std::fs::rename(&work, &old).unwrap();
    std::fs::create_dir(&work).unwrap();
    std::fs::write(r.path("x"), "").unwrap();
    assert_eq!(r.fates(), [Fate::Gone]);
    assert!(r.path("x").exists() && old.join("x").exists());
}

#[test]
fn what_was_put_aside_comes_back_or_is_kept_where_it_is() {
    let r = Room::new();
    for occupied in [false, true] {
        std::fs::write(r.path("data"), "precious").unwrap();
        let j = r.journal();
        let aside = j.hidden();
        let _e = j
            .will_make(&Thing::Aside {
                dir: r.dir.as_fd(),
                name: "data",
                aside: &aside,
            })
            .unwrap();
        std::fs::rename(r.path("data"), r.path(&aside)).unwrap();
        if occupied {
            std::fs::write(r.path("data"), "new").unwrap();
        }
        killed(j);
        let fates = r.fates();
        if occupied {
            assert!(matches!(&fates[..], [Fate::Left(_)]), "{fates:?}");
            assert_eq!(std::fs::read(r.path(&aside)).unwrap(), b"precious");
            assert_eq!(std::fs::read(r.path("data")).unwrap(), b"new");
            assert_eq!(r.journals().len(), 1);
        } else {
            assert_eq!(fates, [Fate::Removed]);
            assert_eq!(std::fs::read(r.path("data")).unwrap(), b"precious");
            assert!(r.journals().is_empty());
        }
    }
}

#[test]
fn a_restore_that_fails_takes_its_things_back_and_one_that_succeeds_does_not() {
    let r = Room::new();
    for success in [false, true] {
        let j = r.journal();
        let entry = r.makes(&j, "f");
        j.made_file(&entry, r.dir.as_fd(), "f").unwrap();
        if success {
            j.done();
        } else {
            drop(j);
        }
        assert_eq!(r.path("f").exists(), success);
        assert!(r.journals().is_empty());
    }
}

#[test]
fn a_restored_task_that_lives_keeps_everything() {
    let r = Room::new();
    let j = r.journal();
    let _e = r.makes(&j, "f");
    // This very process plays the task.
    j.claim().unwrap();
    killed(j);
    assert_eq!(r.fates(), [Fate::Theirs(std::process::id())]);
    assert!(r.path("f").exists() && r.journals().is_empty());
}

#[test]
fn only_plain_files_of_ours_are_read() {
    let r = Room::new();
    let j = r.journal();
    let _e = r.makes(&j, "f");
    killed(j);
    let journal = r.journals().remove(0);
    std::fs::set_permissions(&journal, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(matches!(r.fates()[..], [Fate::Left(_)]));
    std::fs::set_permissions(&journal, PermissionsExt::from_mode(0o600)).unwrap();
    let elsewhere = r.path("elsewhere");
    std::fs::rename(&journal, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &journal).unwrap();
    assert!(matches!(r.fates()[..], [Fate::Left(_)]));
    assert!(r.path("f").exists());
    std::fs::rename(&elsewhere, &journal).unwrap();
    assert_eq!(r.fates(), [Fate::Removed]);
    // A place that others can write to is none.
    let dir = r.tmp.path().join("journals");
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(run(&r.place, false).is_err());
    let e = r.journal().will_make(&Thing::File {
        dir: r.dir.as_fd(),
        name: "g",
    });
    assert_eq!(e.unwrap_err().exit_code(), 105);
}

fn segments() -> String {
    std::fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default()
}

#[test]
fn a_segment_of_a_dead_restore_is_removed_whether_its_id_was_noted_or_not() {
    if segments().is_empty() {
        // A kernel without SysV: nothing to test, and nothing that could be left.
        return;
    }
    let r = Room::new();
    for noted in [false, true] {
        let j = r.journal();
        let key = 0x4a00_0000 | std::process::id();
        let entry = j
            .will_make(&Thing::Sysv {
                kind: Kind::Segment,
                id: None,
                key,
                mode: 0o600,
                creator: 1000,
            })
            .unwrap();
        // SAFETY: numbers only.
        let id = unsafe {
            libc::shmget(
                key.cast_signed(),
                4096,
                libc::IPC_CREAT | libc::IPC_EXCL | 0o600,
            )
        };
        assert!(id >= 0);
        if noted {
            j.made_id(&entry, id).unwrap();
        }
        killed(j);
        assert_eq!(r.fates(), [Fate::Removed]);
        assert!(!judge::rows(&segments()).iter().any(|row| row.id == id));
    }
}

#[test]
fn objects_of_a_namespace_that_ends_with_the_restore_are_not_written_down() {
    let r = Room::new();
    let j = Journal::new(&r.place, Path::new("/i"), true);
    let thing = Thing::Sysv {
        kind: Kind::Queue,
        id: None,
        key: 1,
        mode: 0,
        creator: 0,
    };
    let entry = j.will_make(&thing).unwrap();
    j.made_id(&entry, 1).unwrap();
    assert!(r.journals().is_empty());
}
