//! Every sample checkpoint loads, and what it says is what `criu-images.md` says of it.

use std::path::{Path, PathBuf};

use armrest_images::{
    Checkpoint, File, FsDir, Packet, SocketKind, SocketName, SocketState, TaskState, TerminalKind,
    VmaKind, load, view,
};

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images")
}

fn sample(name: &str) -> Checkpoint {
    load(&FsDir::new(images().join(name))).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn names() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(images())
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.file_type().unwrap().is_dir())
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 19, "samples are missing: {names:?}");
    names
}

#[test]
fn all_samples_load() {
    for name in names() {
        let c = sample(&name);
        assert!(!c.tasks.is_empty(), "{name}");
        for live in c.tasks.iter().filter_map(|t| t.live.as_ref()) {
            assert!(live.mm.sigpage.is_some(), "{name}: sigpage");
            assert!(live.mm.vdso.is_some(), "{name}: vdso");
            assert_eq!(live.sigactions.len(), 62, "{name}");
            assert_eq!(live.mm.auxv.len(), 40, "{name}");
            assert_eq!((&live.cgroups, live.thread_apart), (&None, None), "{name}");
            assert_eq!(
                live.mm.vmas.last().map(|v| v.kind),
                Some(VmaKind::Vectors),
                "{name}"
            );
        }
        assert!(c.clocks.is_some(), "{name}");
    }
}

#[test]
fn crowd_has_its_threads() {
    let c = sample("crowd");
    assert_eq!(c.tasks[0].live.as_ref().unwrap().threads.len(), 1001);
}

#[test]
fn memory_is_as_documented() {
    let c = sample("memory");
    let live = c.tasks[0].live.as_ref().unwrap();
    let vma = |start: u32| {
        live.mm
            .vmas
            .iter()
            .find(|v| v.range.start() == start)
            .unwrap()
    };
    assert!(matches!(vma(0xb6eb_3000).kind, VmaKind::File { file: 2 }));
    assert_eq!(
        (
            vma(0xb6eb_3000).offset,
            vma(0xb6eb_3000).shared,
            vma(0xb6eb_3000).access
        ),
        (0x4000, true, Some(2))
    );
    assert!(!vma(0xb6eb_7000).shared);
    assert_eq!(vma(0xb6eb_f000).prot, 0);
    assert!(matches!(
        vma(0xb6ec_7000).kind,
        VmaKind::Memfd { file: 3, .. }
    ));
    assert!(vma(0xbefb_7000).grows_down);
    assert_eq!(vma(0xbefe_3000).kind, VmaKind::Sigpage);
    let memfd = c.memfds.values().next().unwrap();
    assert_eq!(
        (memfd.name.as_str(), memfd.size, memfd.pages.runs.len()),
        ("/dev/zero", 65536, 1)
    );
    let pages: u32 = live.pages.runs.iter().map(|r| r.pages).sum();
    assert_eq!(pages, 131);
    assert_eq!(live.personality, Some(0x0080_0000));
    assert_eq!(live.loginuid, None);
    let File::Reg(exe) = &c.files[&live.mm.exe] else {
        panic!()
    };
    assert_eq!(exe.path, "/samples/bin/memory");
    assert_eq!(exe.build_id.len(), 20);
}

#[test]
fn segments_are_as_documented() {
    let c = sample("sysvshm");
    assert!(c.own_ipc_namespace);
    let sizes: Vec<_> = c
        .segments
        .iter()
        .map(|s| (s.perm.id, s.size, s.perm.mode))
        .collect();
    let want = [
        (0, 16384),
        (1, 12288),
        (2, 20480),
        (3, 4096),
        (4, 65536),
        (5, 8192),
    ];
    assert_eq!(sizes, want.map(|(id, size)| (id, size, 0o600)));
    for s in &c.segments {
        assert_eq!(
            u64::from(s.pages.runs.iter().map(|r| r.pages).sum::<u32>()) * 4096,
            s.size
        );
    }
    let vmas = &c.tasks[0].live.as_ref().unwrap().mm.vmas;
    assert_eq!(
        vmas.iter()
            .filter(|v| matches!(v.kind, VmaKind::SysV { .. }))
            .count(),
        7
    );
    assert!(!sample("counter").own_ipc_namespace);
    assert!(sample("sysvsplit").segments.iter().any(|s| s.dest));
}

#[test]
fn semaphores_and_queues_are_as_documented() {
    let c = sample("shm300");
    let ids: Vec<_> = c
        .semaphores
        .iter()
        .map(|s| (s.perm.id, s.perm.key, s.perm.mode))
        .collect();
    assert_eq!(ids, [(0, 0x77, 0o600), (1, 0, 0o600), (2, 0, 0o600)]);
    let values: Vec<_> = c.semaphores.iter().map(|s| s.values.clone()).collect();
    // Padded to 8 bytes in the image: 2, 5 and 8 values.
    assert_eq!(
        values,
        [
            vec![0, 1],
            (10..15).collect::<Vec<u16>>(),
            (20..28).collect()
        ]
    );
    let queues: Vec<_> = c
        .queues
        .iter()
        .map(|q| (q.perm.id, q.qbytes, q.messages.len()))
        .collect();
    assert_eq!(queues, [(0, 16384, 3), (1, 16384, 4)]);
    for (i, q) in c.queues.iter().enumerate() {
        for (j, m) in q.messages.iter().enumerate() {
            let mut text = format!("queue {i} message {j}").into_bytes();
            text.resize(17 + j, 0);
            assert_eq!(
                (m.kind, &m.text),
                (i32::try_from(1 + j % 2 + i * 10).unwrap(), &text)
            );
        }
    }
    let limits = c.ipc_limits.unwrap();
    assert_eq!(
        (limits.sem[0], limits.msgmax, limits.shmmax, limits.next),
        (32000, 8192, 0xff00_0000 - 1, [None; 3])
    );
    assert!(c.others.is_empty(), "{:?}", c.others);
    assert!(sample("counter").ipc_limits.is_none());
}

#[test]
fn trees_zombies_and_threads_are_read() {
    let family = sample("family");
    assert_eq!(family.tasks.len(), 6);
    let zombie = family.tasks.iter().find(|t| t.live.is_none()).unwrap();
    assert!(matches!(zombie.state, TaskState::Dead { exit_code: 0x700 }));
    assert_eq!(zombie.comm, "family");
    let threads = sample("threads");
    assert_eq!(threads.tasks[0].live.as_ref().unwrap().threads.len(), 6);
}

#[test]
fn seccomp_chains_are_in_the_order_of_their_installation() {
    let cp = sample("seccomp");
    let threads = &cp.tasks[0].live.as_ref().unwrap().threads;
    let denied = |t: &armrest_images::Thread| -> Vec<u32> {
        let chain = t.seccomp.1.map_or(Vec::new(), |f| cp.filter_chain(f));
        // The fifth instruction of the sample's filters compares with the call that they deny.
        chain.iter().map(|f| f.program[4].k).collect()
    };
    let all: Vec<(u32, Vec<u32>)> = threads.iter().map(|t| (t.seccomp.0, denied(t))).collect();
    // getpgid is 132, sched_getscheduler 157.
    assert_eq!(all, [(2, vec![132, 157]), (0, vec![]), (2, vec![132])]);
}

#[test]
fn unsupported_things_are_named() {
    for quiet in [
        "counter",
        "memory",
        "sysvshm",
        "sysvsplit",
        "dyn",
        "files",
        "task",
        "sockets",
        "tty",
    ] {
        assert_eq!(sample(quiet).others, Vec::<String>::new(), "{quiet}");
    }
}

#[test]
fn every_image_can_be_shown() {
    for name in names() {
        let dir = images().join(&name);
        for entry in std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap()) {
            let file = entry.file_name().into_string().unwrap();
            if !file.ends_with(".img") || file.starts_with("pages-") {
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            let tree = view::show(&file, &bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(
                !tree["entries"].as_array().unwrap().is_empty(),
                "{name}/{file}"
            );
        }
    }
}

#[test]
fn tables_have_crits_columns() {
    let c = sample("family");
    let ps = view::ps(&c);
    let text = view::ps_text(&ps);
    assert!(
        text.starts_with("    PID    PGID     SID   COMM\n    175     175     175   family\n"),
        "{text}"
    );
    assert!(text.contains("family (zombie)"), "{text}");
    assert_eq!(serde_json::to_value(&ps).unwrap()[0]["pid"], 175);

    let c = sample("sysvshm");
    let text = view::mems_text(&view::mems(&c));
    assert!(
        text.contains("    b6e03000-b6e05000      r--s       8K ipc[5] (read-only attach)\n"),
        "{text}"
    );
    assert!(
        text.contains("[sigpage]")
            && text.contains("[stack]")
            && text.contains("/samples/bin/sysvshm"),
        "{text}"
    );

    let text = view::fds_text(&view::fds(&c));
    assert!(text.contains("          0: /dev/null\n"), "{text}");
    assert!(
        text.contains("        cwd: /samples/run/sysvshm\n"),
        "{text}"
    );

    for name in names() {
        for row in view::rss(&sample(&name)) {
            let sum: u64 = row.vmas.iter().map(|v| u64::from(v.saved)).sum();
            assert_eq!(sum, row.saved, "{name}");
            assert!(row.vmas.iter().all(|v| v.saved <= v.pages), "{name}");
        }
    }
    let text = view::rss_text(&view::rss(&sample("memory")));
    assert!(text.starts_with("201: 131 pages\n"), "{text}");
    println!("{text}");
}

#[test]
fn images_are_shown_in_the_order_of_their_messages() {
    let name = "mm-136.img";
    let tree = view::show(
        name,
        &std::fs::read(images().join("counter").join(name)).unwrap(),
    )
    .unwrap();
    assert_eq!(tree["magic"], "MM");
    let vma = serde_json::to_string(&tree["entries"][0]["vmas"][0]).unwrap();
    let want = r#"{"start":"0x10000","end":"0x66000","pgoff":"0x0","shmid":1,"prot":"PROT_READ | PROT_EXEC","#;
    assert!(vma.starts_with(want), "{vma}");
    assert!(
        vma.contains(r#""status":"REGULAR | FILE_PRIVATE","fd":-1"#),
        "{vma}"
    );
}

#[test]
fn sysv_objects_are_listed() {
    let text = view::ipc_text(&view::ipc(&sample("shm300")));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 20 + 3 + 2);
    assert_eq!(
        lines[1],
        "shm           0     0x5a00      0      0  640   4096 bytes, 15 mappings"
    );
    assert_eq!(
        lines[21],
        "sem           0       0x77      0      0  600   values 0 1"
    );
    assert_eq!(
        lines[25],
        "msg           1        0x0      0      0  600   4 messages, 74 of 16384 bytes"
    );
    let split = view::ipc_text(&view::ipc(&sample("sysvsplit")));
    assert!(split.contains("12288 bytes, 1 mappings, marked for deletion"));
}

#[test]
fn sockets_have_names_peers_options_and_what_waits_in_them() {
    let cp = sample("sockets");
    let socket = |ino| cp.socket(ino).map(|(id, s)| (id, s.clone())).unwrap();
    let (id, listening) = socket(10863);
    assert_eq!(id, 12);
    assert_eq!(
        (listening.state, listening.backlog),
        (SocketState::Listening, 5)
    );
    let name = listening.name.as_ref().unwrap();
    assert_eq!(
        name.path().as_deref(),
        Some("/samples/run/sockets/listen.sock")
    );
    assert_eq!(listening.perms, Some((0o140_777, 0, 0)));
    assert_eq!(socket(10865).1.name, listening.name);
    let abstract_name = SocketName::Abstract(b"samples.sockets".to_vec());
    assert_eq!(socket(10867).1.name, Some(abstract_name));
    let (_, waiting) = socket(10866);
    assert_eq!(
        (waiting.peer, waiting.state),
        (10863, SocketState::Connected)
    );
    assert_eq!((socket(10857).1.shutdown, socket(10858).1.shutdown), (2, 1));
    let (_, small) = socket(10854);
    assert_eq!(
        (small.kind, small.options.receive_buffer),
        (SocketKind::Datagram, 40_000)
    );
    assert!(small.options.values.contains(&(72, 2)));
    assert!(socket(10856).1.options.values.contains(&(16, 1)));
    let words = |id: u32| -> Vec<String> {
        let text = |p: &Packet| String::from_utf8(p.bytes.clone()).unwrap();
        cp.packets[&id].iter().map(text).collect()
    };
    assert_eq!(words(7), ["one", "second", "3"]);
    assert_eq!(words(8), ["packet A", "B"]);
    assert_eq!(cp.packets[&15][0].rights, [16]);
    assert_eq!(cp.packets.values().map(Vec::len).sum::<usize>(), 13);
}

#[test]
fn terminals_have_modes_a_window_and_unread_input() {
    let cp = sample("tty");
    let kinds: Vec<TerminalKind> = cp.terminals.values().map(|t| t.kind).collect();
    assert_eq!(
        kinds,
        [
            TerminalKind::Slave(0),
            TerminalKind::Master(0),
            TerminalKind::Controlling
        ]
    );
    let t = &cp.terminals[&0];
    assert_eq!((t.sid, t.pgrp, t.size), (2901, 2901, Some([43, 132, 0, 0])));
    assert_eq!(t.input, b"typed ahead");
    let m = t.modes.unwrap();
    // VINTR, VEOF, VTIME, VMIN; B9600 with eight bits.
    assert_eq!(
        (m.chars[0], m.chars[4], m.chars[5], m.chars[6]),
        (b'Q', 4, 0, 3)
    );
    assert_eq!((m.control, m.local & 0o12), (0o275, 0));
    assert_eq!(t.owner, Some((0, 5)));
}
