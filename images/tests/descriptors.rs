//! Descriptors of every kind: what the samples hold is read, and what cannot be is refused by file, entry and field.

mod common;

use armrest_images::container::edit;
use armrest_images::{
    Class, Error, File, GhostPiece, LockKind, MemDir, PipeContents, Remap, load, magic, proto,
};
use common::{consistent, sample};

fn with<M: prost::Message + Default>(name: &str, magic: u32, f: impl FnOnce(&mut Vec<M>)) -> Error {
    let mut dir = sample("files");
    let bytes = edit(name, &dir.files[name], magic, f).unwrap();
    dir.put(name, bytes);
    refused(&dir)
}

#[track_caller]
fn refused(dir: &MemDir) -> Error {
    load(dir).map(|_| ()).expect_err("loaded although damaged")
}

/// Changes the entry of files.img that has a member of this kind.
#[track_caller]
fn with_file(kind: u32, f: impl FnOnce(&mut proto::FileEntry), class: Class) {
    let sample = if matches!(kind, 1 | 2 | 3 | 8) {
        "files"
    } else {
        "task"
    };
    let mut dir = common::sample(sample);
    let bytes = edit(
        "files.img",
        &dir.files["files.img"],
        magic::FILES,
        |all: &mut Vec<proto::FileEntry>| {
            f(all
                .iter_mut()
                .find(|e| e.kind == Some(kind))
                .expect("one of the kind"));
        },
    );
    dir.put("files.img", bytes.unwrap());
    let e = refused(&dir);
    assert_eq!(
        (e.class(), e.place.file.as_str()),
        (class, "files.img"),
        "{e}"
    );
}

#[test]
fn what_the_samples_hold() {
    let c = load(&sample("files")).unwrap();
    consistent(&c);
    let live = c.tasks[0].live.as_ref().unwrap();
    let file = |fd: u32| &c.files[&live.fds.iter().find(|f| f.fd == fd).unwrap().file];
    let File::Reg(gone) = file(6) else { panic!() };
    assert_eq!((gone.remap, gone.pos), (Some(Remap::Ghost(1)), Some(8)));
    let g = &c.ghosts[&1];
    assert_eq!(
        (g.mode, g.size, g.image.as_str()),
        (0o100_644, 16, "ghost-file-1.img")
    );
    assert_eq!(
        g.pieces,
        [GhostPiece {
            from: 52,
            to: 0,
            len: 16
        }]
    );
    let bytes = &sample("files").files["ghost-file-1.img"][52..];
    assert_eq!(bytes, b"deleted contents");
    let File::Reg(first) = file(7) else { panic!() };
    assert_eq!(first.remap, Some(Remap::Linked(9)));
    let File::Fifo(fifo) = file(8) else { panic!() };
    assert_eq!(c.fifos[&fifo.pipe].bytes, b"through the fifo");
    let File::Pipe(pipe) = file(17) else { panic!() };
    assert_eq!((pipe.owner.signum, pipe.owner.pid), (36, 2401));
    let empty = PipeContents {
        capacity: Some(65536),
        bytes: Vec::new(),
    };
    assert_eq!(c.pipes[&pipe.pipe], empty);
    let File::Inotify(i) = file(11) else { panic!() };
    assert_eq!((i.watches[0].wd, i.watches[0].mask), (1, 6));
    assert_eq!(
        i.watches[0].path.as_deref(),
        Some("/samples/run/files/watched")
    );
    assert_eq!(i.watches[0].handle.as_ref().map(|h| h.1.len()), Some(8));
    let kinds: Vec<LockKind> = c.locks.iter().map(|l| l.kind).collect();
    assert_eq!(
        kinds,
        [
            LockKind::Posix,
            LockKind::Posix,
            LockKind::Flock,
            LockKind::Ofd
        ]
    );

    let c = load(&sample("task")).unwrap();
    consistent(&c);
    let found = |kind: &str| c.files.values().find(|f| f.kind() == kind).unwrap();
    let File::Timerfd(t) = found("TIMERFD") else {
        panic!()
    };
    assert_eq!((t.ticks, t.value, t.interval), (1, (0, 0), (0, 50_000_000)));
    let File::Eventfd(e) = found("EVENTFD") else {
        panic!()
    };
    assert_eq!(e.counter, 41);
    let File::Signalfd(s) = found("SIGNALFD") else {
        panic!()
    };
    assert_eq!(s.mask, 1 << 11);
    let File::Epoll(p) = found("EVENTPOLL") else {
        panic!()
    };
    let words: Vec<_> = p.targets.iter().map(|t| (t.fd, t.data)).collect();
    assert_eq!(words, [(3, 888), (5, 777)]);
}

#[test]
fn members_that_cannot_be() {
    use Class::{BadField, BadReference, UnknownFlag};
    with_file(2, |e| e.pipe.as_mut().unwrap().flags = Some(3), BadField);
    with_file(
        2,
        |e| e.pipe.as_mut().unwrap().pipe_id = Some(7),
        BadReference,
    );
    with_file(2, |e| e.pipe.as_mut().unwrap().id = Some(7), BadField);
    with_file(2, |e| e.pipe = None, BadField);
    with_file(
        3,
        |e| e.fifo.as_mut().unwrap().regf_id = Some(22),
        BadReference,
    );
    with_file(
        6,
        |e| e.efd.as_mut().unwrap().counter = Some(u64::MAX),
        BadField,
    );
    with_file(9, |e| e.sgfd.as_mut().unwrap().sigmask = None, BadField);
    with_file(7, |e| e.epfd.as_mut().unwrap().tfd[0].data = None, BadField);
    with_file(
        17,
        |e| e.tfd.as_mut().unwrap().vnsec = Some(1_000_000_000),
        BadField,
    );
    with_file(
        17,
        |e| e.tfd.as_mut().unwrap().isec = Some(u64::MAX),
        BadField,
    );
    with_file(
        17,
        |e| e.tfd.as_mut().unwrap().settime_flags = Some(4),
        UnknownFlag,
    );
    with_file(17, |e| e.tfd.as_mut().unwrap().clockid = Some(2), BadField);
    let watch = |f: fn(&mut proto::InotifyWd), class| {
        with_file(8, |e| f(&mut e.ify.as_mut().unwrap().wd[0]), class);
    };
    watch(|w| w.wd = Some(0), BadField);
    watch(|w| w.mask = Some(0x1000), UnknownFlag);
    watch(|w| w.f_handle.as_mut().unwrap().bytes = Some(129), BadField);
    watch(
        |w| w.f_handle.as_mut().unwrap().path = Some(b"watched".to_vec()),
        BadField,
    );
    with_file(
        8,
        |e| {
            let all = &mut e.ify.as_mut().unwrap().wd;
            all.push(all[0].clone());
        },
        BadReference,
    );
    with_file(
        2,
        |e| e.pipe.as_mut().unwrap().fown.as_mut().unwrap().signum = Some(65),
        BadField,
    );
}

/// What is removed after a restore is named by the images: only what a dumper can have made may be.
#[test]
fn a_link_remap_cannot_name_another_file() {
    let named = |path: &str| {
        with::<proto::FileEntry>("files.img", magic::FILES, |all| {
            let e = all.iter_mut().find(|e| e.id == Some(9)).unwrap();
            e.reg.as_mut().unwrap().name = Some(path.as_bytes().to_vec());
        })
    };
    for path in [
        "/etc/passwd",
        "/samples/run/files/second",
        "/samples/run/files/link_remap.",
        "/samples/run/files/link_remap.9x",
        "/samples/run/link_remap.9",
        "/samples/run/files/../link_remap.9",
    ] {
        assert_eq!(named(path).place.file, "remap-fpath.img", "{path}");
    }
}

#[test]
fn remaps_ghosts_and_locks_that_cannot_be() {
    let remap = |f: fn(&mut Vec<proto::RemapFpath>)| {
        let e = with("remap-fpath.img", magic::REMAP_FPATH, f);
        (e.class(), e.place.file)
    };
    let here = "remap-fpath.img".to_owned();
    assert_eq!(
        remap(|r| r[0].remap_type = Some(3)),
        (Class::UnknownFlag, here.clone())
    );
    assert_eq!(
        remap(|r| r[0].orig_id = Some(22)),
        (Class::BadReference, here.clone())
    );
    assert_eq!(
        remap(|r| r[1].orig_id = Some(7)),
        (Class::BadReference, here.clone()).clone()
    );
    assert_eq!(
        remap(|r| r[1].remap_id = Some(99)),
        (Class::BadReference, here)
    );
    assert_eq!(
        remap(|r| r[0].remap_id = Some(2)),
        (Class::Missing, "ghost-file-2.img".into())
    );

    let lock = |f: fn(&mut proto::FileLock)| {
        with::<proto::FileLock>("filelocks.img", magic::FILE_LOCKS, |l| f(&mut l[0])).class()
    };
    assert_eq!(lock(|l| l.flag = Some(3)), Class::UnknownFlag);
    assert_eq!(lock(|l| l.kind = Some(2)), Class::BadField);
    assert_eq!(lock(|l| l.pid = Some(7)), Class::BadReference);
    assert_eq!(lock(|l| l.fd = Some(99)), Class::BadReference);
    assert_eq!(lock(|l| l.start = Some(-1)), Class::BadField);
    assert_eq!(lock(|l| l.len = Some(i64::MAX)), Class::BadField);
}

/// The contents of a ghost or a pipe are as long as is said, and not longer than there is.
#[test]
fn contents_end_where_they_should() {
    for (name, class) in [
        ("pipes-data.img", Class::BadReference),
        ("fifo-data.img", Class::BadReference),
        ("ghost-file-1.img", Class::Missing),
    ] {
        let mut dir = sample("files");
        dir.files.remove(name);
        assert_eq!(refused(&dir).class(), class, "without {name}");
    }
    for name in ["fifo-data.img", "ghost-file-1.img"] {
        let whole = sample("files").files[name].to_vec();
        let header = if name.starts_with("ghost") {
            52
        } else {
            whole.len()
        };
        for cut in 0..header {
            let mut dir = sample("files");
            dir.put(name, whole[..cut].to_vec());
            // Two magic words alone are an image without entries: FIFO contents that are missed.
            refused(&dir);
        }
    }
    // Two chunks with a hole between them; then out of order, and longer than the image.
    let chunks = |chunks: &[(u64, u64)], bytes: usize| {
        let mut dir = sample("files");
        let whole = &dir.files["ghost-file-1.img"];
        let ghost = edit(
            "g",
            &whole[..52],
            magic::GHOST_FILE,
            |g: &mut Vec<proto::GhostFile>| {
                g[0].chunks = Some(true);
                g[0].size = Some(1 << 20);
            },
        );
        let mut image = ghost.unwrap();
        for (off, len) in chunks {
            let c = proto::GhostChunk {
                len: Some(*len),
                off: Some(*off),
            };
            let body = prost::Message::encode_to_vec(&c);
            image.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
            image.extend(body);
            image.extend(vec![7; bytes]);
        }
        dir.put("ghost-file-1.img", image);
        load(&dir)
            .map(|c| c.ghosts[&1].clone())
            .map_err(|e| e.class())
    };
    let g = chunks(&[(4096, 5), (65536, 5)], 5).unwrap();
    assert_eq!(g.size, 1 << 20);
    assert_eq!(
        g.pieces.iter().map(|p| (p.to, p.len)).collect::<Vec<_>>(),
        [(4096, 5), (65536, 5)]
    );
    assert_eq!(chunks(&[(4096, 5), (4096, 5)], 5), Err(Class::BadField));
    assert_eq!(chunks(&[(u64::MAX, 5)], 5), Err(Class::BadField));
    assert_eq!(chunks(&[(2 << 20, 5)], 5), Err(Class::BadField));
    assert_eq!(chunks(&[(0, 6)], 5), Err(Class::Damaged));
}
