//! Images of sockets and terminals that no dumper writes: refused by file, entry and field.

mod common;

use armrest_images::container::{Writer, edit};
use armrest_images::{Error, MemDir, load, magic, proto};
use common::{consistent, sample};

#[track_caller]
fn refused(dir: &MemDir, words: &str) {
    let e: Error = load(dir).map(|_| ()).expect_err("loaded although damaged");
    let text = e.to_string();
    assert!(text.contains(words), "{text}");
}

/// Changes the socket with this number.
#[track_caller]
fn socket(ino: u32, f: impl Fn(&mut proto::UnixSk), words: &str) {
    let mut dir = sample("sockets");
    let name = "files.img";
    let bytes = edit(
        name,
        &dir.files[name],
        magic::FILES,
        |all: &mut Vec<proto::FileEntry>| {
            let all = all.iter_mut().filter_map(|e| e.usk.as_mut());
            f(all
                .into_iter()
                .find(|s| s.ino == Some(ino))
                .expect("a socket"));
        },
    );
    dir.put(name, bytes.unwrap());
    refused(&dir, words);
}

/// The dumper's entry for the other end of a connection that leaves the checkpoint is no socket of anybody's.
#[test]
fn what_is_outside_is_no_socket_of_the_checkpoint() {
    let dir = sample("lent");
    let sockets = |dir: &MemDir| {
        let cp = load(dir)?;
        let all = cp.files.into_values();
        let of = |f| match f {
            armrest_images::File::Socket(s) => Some((s.ino, s.peer)),
            _ => None,
        };
        Ok::<Vec<_>, Error>(all.filter_map(of).collect())
    };
    assert_eq!(sockets(&dir).expect("it loads"), [(9863, 9862)]);
    // Only just that entry.
    let changes: [fn(&mut proto::UnixSk); 3] = [
        |s| s.uflags = Some(0),
        |s| s.kind = Some(1),
        |s| s.peer = Some(9863),
    ];
    for f in changes {
        let mut dir = sample("lent");
        let change = |all: &mut Vec<proto::FileEntry>| {
            let mut all = all.iter_mut().filter_map(|e| e.usk.as_mut());
            f(all.find(|s| s.ino == Some(9862)).expect("the other end"));
        };
        let bytes = edit("files.img", &dir.files["files.img"], magic::FILES, change);
        dir.put("files.img", bytes.unwrap());
        assert_ne!(sockets(&dir).ok(), Some(vec![(9863, 9862)]));
    }
}

#[test]
fn sockets_that_cannot_be() {
    socket(10852, |s| s.ino = Some(0), "ino");
    socket(10852, |s| s.ino = Some(10851), "twice");
    socket(10852, |s| s.kind = Some(3), "type");
    socket(10852, |s| s.state = Some(2), "state");
    socket(10863, |s| s.kind = Some(2), "state");
    socket(10863, |s| s.peer = Some(10851), "state");
    socket(10852, |s| s.shutdown = Some(4), "shutdown");
    socket(10852, |s| s.name = Some(vec![b'x'; 109]), "name");
    socket(10863, |s| s.name_dir = None, "name_dir");
    socket(10863, |s| s.name_dir = Some(b"here".to_vec()), "name");
    socket(10863, |s| s.name = Some(b"a\0b".to_vec()), "name");
    socket(10863, |s| s.name = Some(b"a/".to_vec()), "name");
    socket(10863, |s| s.name = Some(vec![b'/', 0xff]), "name");
    let mode = |s: &mut proto::UnixSk, mode| s.file_perms.as_mut().unwrap().mode = Some(mode);
    socket(10863, |s| mode(s, 0o100_644), "mode");
    socket(10863, |s| mode(s, 0o4_140_644), "mode");
    let opts = |f: fn(&mut proto::SkOpts)| move |s: &mut proto::UnixSk| f(s.opts.as_mut().unwrap());
    socket(10852, opts(|o| o.so_sndbuf = Some(1 << 31)), "so_sndbuf");
    socket(10852, opts(|o| o.so_rcvbuf = None), "so_rcvbuf");
    socket(
        10852,
        opts(|o| o.so_snd_tmo_sec = Some(1 << 31)),
        "so_snd_tmo_sec",
    );
    socket(
        10852,
        opts(|o| o.so_rcv_tmo_usec = Some(1_000_000)),
        "so_rcv_tmo_usec",
    );
    socket(
        10852,
        opts(|o| o.so_priority = Some(1 << 31)),
        "so_priority",
    );
    socket(10852, opts(|o| o.so_buf_lock = Some(4)), "so_buf_lock");
    socket(
        10852,
        opts(|o| o.so_bound_dev = Some(vec![b'x'; 16])),
        "so_bound_dev",
    );
    // Peers: somebody else's, of another type, its own, one that listens where data waits.
    socket(10852, |s| s.peer = Some(10855), "usk.peer");
    socket(10852, |s| s.peer = Some(10857), "usk.peer");
    socket(10852, |s| s.peer = Some(10852), "usk.peer");
    socket(10865, |s| s.peer = Some(10863), "usk.peer");
    socket(10860, |s| s.state = Some(7), "usk.peer");
}

#[test]
fn datagram_sockets_are_not_connected_in_a_circle() {
    let mut dir = sample("sockets");
    let name = "files.img";
    let next = [(10853, 10854), (10854, 10867), (10867, 10853)];
    let bytes = edit(
        name,
        &dir.files[name],
        magic::FILES,
        |all: &mut Vec<proto::FileEntry>| {
            for s in all.iter_mut().filter_map(|e| e.usk.as_mut()) {
                if let Some((_, to)) = next.iter().find(|n| s.ino == Some(n.0)) {
                    s.peer = Some(*to);
                }
            }
        },
    );
    dir.put(name, bytes.unwrap());
    refused(&dir, "usk.peer");
}

/// sk-queues.img with one packet.
fn packet(e: &proto::SkPacket, bytes: &[u8]) -> MemDir {
    let mut dir = sample("sockets");
    let w = Writer::new(magic::SK_QUEUES);
    dir.put("sk-queues.img", w.entry(e).raw(bytes).finish());
    dir
}

#[test]
fn packets_that_cannot_be() {
    let e = |id: u32, length: u32| proto::SkPacket {
        id_for: Some(id),
        length: Some(length),
        ..Default::default()
    };
    consistent(&load(&packet(&e(4, 2), b"ok")).unwrap());
    refused(&packet(&e(4, 3), b"ok"), "sk-queues.img");
    refused(&packet(&e(4, 0), b""), "length");
    // Nobody, no socket, one that listens.
    for id in [99, 3, 12] {
        refused(&packet(&e(id, 2), b"ok"), "id_for");
    }
    let with = |kind: u32, rights: Vec<u32>| proto::SkPacket {
        scm: vec![proto::Scm {
            kind: Some(kind),
            rights,
        }],
        ..e(4, 2)
    };
    assert!(load(&packet(&with(1, vec![16, 3]), b"ok")).is_ok());
    refused(&packet(&with(2, vec![16]), b"ok"), "scm[0].type");
    refused(&packet(&with(1, vec![99]), b"ok"), "rights");
    refused(&packet(&with(1, vec![16; 254]), b"ok"), "scm");
}

#[track_caller]
fn terminal(f: impl Fn(&mut Vec<proto::TtyInfo>), words: &str) {
    let mut dir = sample("tty");
    let name = "tty-info.img";
    let bytes = edit(name, &dir.files[name], magic::TTY_INFO, |all| f(all));
    dir.put(name, bytes.unwrap());
    refused(&dir, words);
}

#[test]
fn terminals_that_cannot_be() {
    terminal(|t| t[0].id = Some(0), "twice");
    terminal(|t| drop(t.remove(0)), "tty_info_id");
    terminal(|t| drop(t.remove(1)), "tty_id");
    terminal(|t| t[0].kind = Some(9), "type");
    terminal(|t| t[0].pty = None, "pty");
    terminal(
        |t| t[0].pty.as_mut().unwrap().index = Some(1 << 20),
        "index",
    );
    terminal(
        |t| t[0].winsize.as_mut().unwrap().ws_col = Some(1 << 16),
        "winsize",
    );
    terminal(
        |t| t[0].termios.as_mut().unwrap().c_cc = vec![0; 65],
        "c_cc",
    );
    terminal(
        |t| t[0].termios.as_mut().unwrap().c_line = Some(256),
        "c_line",
    );
    terminal(|t| t[0].termios.as_mut().unwrap().c_iflag = None, "c_iflag");
    let mut dir = sample("tty");
    let name = "tty-data.img";
    let bytes = edit(
        name,
        &dir.files[name],
        magic::TTY_DATA,
        |all: &mut Vec<proto::TtyData>| {
            all[0].data = Some(vec![0; (1 << 17) + 1]);
        },
    );
    dir.put(name, bytes.unwrap());
    refused(&dir, "data");
}
