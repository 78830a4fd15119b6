//! Bad input: each kind has its own message and exit code and leaves nothing behind: no process, no SysV segment, no
//! changed file. Through the real program; the reader alone is tried at every byte of every small file.

mod common;

use std::fs;

use armrest_images::proto::{self, PagemapEntry, PagemapHead, VmaEntry};
use armrest_images::{Class, FsDir, MemDir, container::Writer, load, magic};
use common::{Scratch, Setup, provable};

const PLAIN: Setup<'static> = Setup {
    before: "",
    wrap: &[],
    hold: false,
};

/// Refused by the door: `armrest: images: ` and these words, with this code.
#[track_caller]
fn refused(s: &Scratch, code: i32, words: &[&str]) {
    let words = [&["armrest: images: "], words].concat();
    let done = s.refused(&PLAIN, &[], code, &words);
    let json = done.json();
    assert_eq!(
        (json["event"].as_str(), json["code"].as_i64()),
        (Some("failed"), Some(code.into())),
        "{done:?}"
    );
}

/// `counter` with its VMAs edited.
fn with_vmas(change: impl FnOnce(&mut Vec<VmaEntry>)) -> Scratch {
    let s = Scratch::new("counter");
    s.edit::<proto::Mm>("mm-136.img", magic::MM, |m| change(&mut m[0].vmas));
    s
}

/// `counter` with another page map; its pages file has 267 pages.
fn with_pagemap(entries: &[(u64, u64, u32)]) -> Scratch {
    let s = Scratch::new("counter");
    let head = Writer::new(magic::PAGEMAP).entry(&PagemapHead { pages_id: Some(1) });
    let entry = |&(vaddr, pages, flags): &(u64, u64, u32)| PagemapEntry {
        vaddr: Some(vaddr),
        compat_nr_pages: Some(0),
        nr_pages: Some(pages),
        flags: Some(flags),
        in_parent: None,
    };
    let bytes = entries
        .iter()
        .fold(head, |w, e| w.entry(&entry(e)))
        .finish();
    fs::write(s.images().join("pagemap-136.img"), bytes).unwrap();
    s
}

#[test]
fn missing_images() {
    if !provable("missing image") {
        return;
    }
    for name in [
        "inventory.img",
        "pstree.img",
        "core-136.img",
        "mm-136.img",
        "pagemap-136.img",
        "pages-1.img",
        "files.img",
    ] {
        let s = Scratch::new("counter");
        fs::remove_file(s.images().join(name)).unwrap();
        refused(&s, 80, &[&format!("{name}: this image is missing")]);
    }
    let s = Scratch::new("counter");
    fs::remove_dir_all(s.images()).unwrap();
    fs::create_dir(s.images()).unwrap();
    refused(&s, 80, &["this image is missing"]);
}

/// Every small image file of the samples, cut at every byte: refused, or (a whole number of entries) still consistent.
#[test]
fn truncated_at_every_byte() {
    let images = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images");
    for name in ["counter", "memory", "sysvshm", "sysvsplit", "dyn"] {
        let whole = MemDir::from_fs(images.join(name)).unwrap();
        load(&whole).unwrap();
        let small: Vec<&String> = whole
            .files
            .keys()
            .filter(|n| !n.starts_with("pages-"))
            .collect();
        assert!(small.len() >= 10, "{small:?}");
        for file in small {
            let bytes = &whole.files[file];
            for cut in 0..bytes.len() {
                let mut dir = whole.clone();
                dir.put(file.as_str(), bytes[..cut].to_vec());
                // Array images end after any entry: then what refers to the missing entry tells, if anything does.
                if let Err(e) = load(&dir) {
                    let what = (e.class(), cut == 8);
                    // Nothing but a head is as good as no file.
                    assert!(
                        !matches!(what, (Class::Missing, false) | (Class::Io, _)),
                        "{name}/{file} cut at {cut}: {e}"
                    );
                }
            }
        }
        for file in ["inventory.img", "pstree.img"] {
            for cut in 0..whole.files[file].len() {
                let mut dir = whole.clone();
                dir.put(file, whole.files[file][..cut].to_vec());
                let error = load(&dir).map(|_| ()).expect_err("loaded although cut");
                assert_eq!(
                    error.class(),
                    Class::Damaged,
                    "{name}/{file} cut at {cut}: {error}"
                );
            }
        }
    }
}

#[test]
fn truncated_images() {
    if !provable("truncated image") {
        return;
    }
    for name in [
        "inventory.img",
        "core-136.img",
        "mm-136.img",
        "files.img",
        "pagemap-136.img",
    ] {
        let len = fs::metadata(Scratch::new("counter").images().join(name))
            .unwrap()
            .len();
        for cut in [0, 3, 9, len / 2, len - 1] {
            let s = Scratch::new("counter");
            s.edit_bytes(name, |b| b.truncate(usize::try_from(cut).unwrap()));
            refused(&s, 81, &[name]);
        }
    }
}

#[test]
fn wrong_magic() {
    if !provable("wrong magic") {
        return;
    }
    let s = Scratch::new("counter");
    s.edit_bytes("mm-136.img", |b| b[0] ^= 1);
    refused(&s, 82, &["mm-136.img: wrong magic"]);
    let s = Scratch::new("counter");
    fs::copy(s.images().join("fs-136.img"), s.images().join("mm-136.img")).unwrap();
    refused(&s, 82, &["mm-136.img: wrong magic 0x51403912"]);
}

#[test]
fn wrong_machine_and_page_size() {
    if !provable("wrong machine, other page size") {
        return;
    }
    let s = Scratch::new("counter");
    s.edit::<proto::Core>("core-136.img", magic::CORE, |c| c[0].mtype = Some(1));
    refused(&s, 83, &["another machine"]);
    let s = Scratch::new("counter");
    s.edit::<proto::Mm>("mm-136.img", magic::MM, |m| {
        let at = m[0]
            .mm_saved_auxv
            .chunks(2)
            .position(|p| p[0] == 6)
            .unwrap();
        m[0].mm_saved_auxv[at * 2 + 1] = 16384;
    });
    refused(&s, 84, &["pages of 16384 bytes"]);
}

#[test]
fn impossible_vmas() {
    if !provable("impossible VMAs") {
        return;
    }
    type Change = fn(&mut Vec<VmaEntry>);
    let cases: [(&str, Change); 7] = [
        ("not page-aligned", |v| v[3].start = Some(0x6a800)),
        ("overlaps", |v| v[3].start = Some(0x69000)),
        ("empty", |v| v[3].end = v[3].start),
        ("ends before it starts", |v| v[3].end = Some(0x1000)),
        ("beyond 32 bits", |v| v[3].end = Some(u64::MAX - 0xfff)),
        ("beyond 32 bits", |v| v[3].end = Some(1 << 32)),
        ("above the highest", |v| v[9].end = Some(0xffff_f000)),
    ];
    for (why, change) in cases {
        refused(&with_vmas(change), 85, &["mm-136.img", "bad mapping", why]);
    }
}

#[test]
fn unknown_flags() {
    if !provable("unknown VMA status, pagemap flag") {
        return;
    }
    refused(
        &with_vmas(|v| v[3].status = Some(v[3].status.unwrap() | 1 << 26)),
        89,
        &["vmas[3].status"],
    );
    refused(
        &with_vmas(|v| v[3].flags = Some(0x22 | 1 << 27)),
        89,
        &["vmas[3].flags"],
    );
    refused(
        &with_pagemap(&[(0xb6e6_a000, 267, 8 | 4)]),
        89,
        &["pagemap-136.img"],
    );
}

#[test]
fn impossible_page_maps() {
    if !provable("impossible page maps") {
        return;
    }
    refused(
        &with_pagemap(&[(0xb000_0000, 267, 4)]),
        86,
        &["pagemap-136.img", "bad page run"],
    );
    refused(
        &with_pagemap(&[(0xb6e6_a000, 256, 4), (0xb6e6_b000, 11, 4)]),
        86,
        &["bad page run"],
    );
    refused(
        &with_pagemap(&[(0xb6e6_a000, 268, 4)]),
        87,
        &["pages-1.img", "the page map needs"],
    );
    // Counts of 2^32-1 and beyond.
    for count in [u64::from(u32::MAX), u64::MAX, 1 << 52] {
        refused(
            &with_pagemap(&[(0x1000, count, 4)]),
            88,
            &["pagemap-136.img"],
        );
    }
}

#[test]
fn short_pages_files() {
    if !provable("pages file shorter than told") {
        return;
    }
    for cut in [0, 1, 4095, 4096] {
        let s = Scratch::new("counter");
        s.edit_bytes("pages-1.img", |b| {
            b.truncate(if cut == 0 { 0 } else { b.len() - cut })
        });
        refused(&s, 87, &["pages-1.img", "bytes, the page map needs"]);
    }
    // Of a SysV segment.
    let s = Scratch::new("sysvsplit");
    s.edit_bytes("pages-2.img", |b| b.truncate(b.len() - 1));
    refused(&s, 87, &["pages-2.img"]);
}

#[test]
fn huge_counts_elsewhere() {
    if !provable("count fields of 2^32-1") {
        return;
    }
    // The length word of an entry.
    for name in ["inventory.img", "mm-136.img", "files.img"] {
        let s = Scratch::new("counter");
        let at = if name == "inventory.img" { 4 } else { 8 };
        s.edit_bytes(name, |b| b[at..at + 4].fill(0xff));
        refused(&s, 81, &[name]);
    }
    let s = Scratch::new("sysvsplit");
    s.edit::<proto::IpcShm>("ipcns-shm-9.img", magic::IPC_SHM, |e| {
        e[0].size = Some(u32::MAX.into())
    });
    let done = s.start(&[]).finish();
    assert!(matches!(done.code, Some(86..=91)), "{done:?}");
    done.nothing_left();
}

#[test]
fn backing_files() {
    if !provable("missing and changed backing files") {
        return;
    }
    let s = Scratch::new("counter");
    fs::remove_file(s.root().join("samples/bin/counter")).unwrap();
    s.refused(
        &PLAIN,
        &[],
        95,
        &["armrest: files: /samples/bin/counter: ", "No such file"],
    );

    let s = Scratch::new("counter");
    let path = s.root().join("samples/bin/counter");
    let len = fs::metadata(&path).unwrap().len();
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(len + 1)
        .unwrap();
    let words = format!(
        "/samples/bin/counter: changed: size {len} at the dump, {} now",
        len + 1
    );
    s.refused(&PLAIN, &[], 96, &["armrest: files: ", &words]);

    // The same size, another build: as after an upgrade.
    let s = Scratch::new("counter");
    let path = s.root().join("samples/bin/counter");
    let mut bytes = fs::read(&path).unwrap();
    let note = bytes
        .windows(8)
        .position(|w| w == b"\x03\0\0\0GNU\0")
        .expect("a build id note");
    bytes[note + 8] ^= 1;
    fs::write(&path, bytes).unwrap();
    s.refused(
        &PLAIN,
        &[],
        96,
        &["/samples/bin/counter: changed: build id "],
    );

    let s = Scratch::new("dyn");
    let lib = s.root().join("usr/lib/arm-linux-gnueabihf/libm.so.6");
    let lib = fs::canonicalize(&lib).unwrap_or_else(|_| panic!("{}", lib.display()));
    fs::remove_file(&lib).unwrap();
    s.refused(&PLAIN, &[], 95, &["libm.so.6", "No such file"]);

    // The log of the program is gone, its directory too; ROOT itself is.
    let s = Scratch::new("counter");
    fs::remove_file(s.run_dir().join("out.log")).unwrap();
    s.refused(&PLAIN, &[], 95, &["/samples/run/counter/out.log"]);
    // Not what it was: a FIFO must not be opened, that would hang.
    let s = Scratch::new("counter");
    let path = s.root().join("samples/bin/counter");
    fs::remove_file(&path).unwrap();
    let fifo = std::ffi::CString::new(path.display().to_string()).unwrap();
    // SAFETY: a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    s.refused(
        &PLAIN,
        &[],
        97,
        &["/samples/bin/counter", "not a regular file"],
    );
}

#[test]
fn a_taken_pid() {
    if !provable("taken pid") {
        return;
    }
    let s = Scratch::new("sysvsplit");
    let setup = Setup::before("echo 135 > /proc/sys/kernel/ns_last_pid; sleep 300 & [ $! = 136 ]");
    let done = s.refused(
        &setup,
        &[],
        98,
        &["armrest: ids: pid 136: taken by", "sleep", "armrest: try: "],
    );
    assert_eq!(done.json()["name"], "pid-taken");
}

#[test]
fn a_taken_segment() {
    if !provable("taken SysV id and key") {
        return;
    }
    for before in [
        "ipcmk -M 4096 > /dev/null",
        "ipcmk -M 4096 > /dev/null; ipcmk -M 4096 > /dev/null; ipcrm -m 0",
    ] {
        let s = Scratch::new("sysvsplit");
        let done = s.refused(
            &Setup::before(before),
            &[],
            99,
            &["armrest: ids: SysV segment ", "its id is in use"],
        );
        assert_eq!(done.json()["name"], "shm-taken");
    }
    // A key: the image is edited to have one, and somebody has it.
    let s = Scratch::new("sysvsplit");
    s.edit::<proto::IpcShm>("ipcns-shm-9.img", magic::IPC_SHM, |e| {
        e[0].desc.as_mut().unwrap().key = Some(0x1234)
    });
    let take =
        "echo 9 > /proc/sys/kernel/shm_next_id; perl -e 'shmget(0x1234, 4096, 01600) // die'";
    if std::process::Command::new("perl")
        .arg("-e1")
        .status()
        .is_ok_and(|s| s.success())
    {
        s.refused(&Setup::before(take), &[], 99, &["its key is in use"]);
    } else {
        common::not_proved("taken SysV key: no perl to take one");
    }
}

/// Everything as root, but for the capabilities that choose ids.
#[test]
fn no_permission_for_the_ids() {
    if !provable("no permission for the ids") {
        return;
    }
    let wrap = [
        "setpriv",
        "--bounding-set",
        "-sys_admin,-checkpoint_restore",
        "--inh-caps",
        "-sys_admin,-checkpoint_restore",
    ];
    let setup = Setup::wrapped(&wrap);
    let s = Scratch::new("counter");
    s.refused(&setup, &[], 100, &["pid 136", "armrest: try: "]);
    let s = Scratch::new("sysvsplit");
    let done = s.refused(&setup, &["--any-pid"], 100, &["SysV", "--any-ids"]);
    assert_eq!(done.json()["name"], "may-not-choose");
    // And what the hint says works.
    let s = Scratch::new("counter");
    let mut run = s.start_with(&setup, &["--any-pid"]);
    run.restored();
    run.term().passed();
}

#[test]
fn no_namespaces() {
    if !provable("no permission for --new-namespaces") {
        return;
    }
    let wrap = [
        "setpriv",
        "--bounding-set",
        "-sys_admin",
        "--inh-caps",
        "-sys_admin",
    ];
    let s = Scratch::new("counter");
    s.refused(
        &Setup::wrapped(&wrap),
        &["--new-namespaces"],
        101,
        &["armrest: namespaces: unshare", "armrest: try: "],
    );
}

#[test]
fn a_full_disk() {
    if !provable("full disk for log and pidfile") {
        return;
    }
    let s = Scratch::new("sysvsplit");
    let done = s.refused(
        &PLAIN,
        &["-o", "/dev/full"],
        105,
        &["armrest: output: /dev/full: No space left"],
    );
    assert_eq!(done.json()["name"], "output");
    // A file system without a free byte: log and pidfile.
    let full = r#"mkdir -p "$S/full" && mount -t tmpfs -o size=4k none "$S/full" && { cat /dev/zero > "$S/full/x" 2>/dev/null; true; }"#;
    for args in [["-o", "log"], ["--pidfile", "pid"]] {
        let s = Scratch::new("counter");
        let dir = s.dir().join("full");
        let args = [&args[..], &["-W", dir.to_str().unwrap()]].concat();
        s.refused(
            &Setup::before(full),
            &args,
            105,
            &["armrest: output: ", "No space left"],
        );
    }
}

#[test]
fn a_read_only_place_for_the_log() {
    if !provable("read-only medium for images and log") {
        return;
    }
    let s = Scratch::new("counter");
    let ro = r#"mount --bind "$S/images" "$S/images" && mount -o remount,bind,ro "$S/images""#;
    let images = s.images();
    let args = ["-o", "log", "-W", images.to_str().unwrap()];
    s.refused(
        &Setup::before(ro),
        &args,
        105,
        &["armrest: output: ", "Read-only file system"],
    );
    let args = ["--pidfile", "pid", "-W", images.to_str().unwrap()];
    s.refused(
        &Setup::before(ro),
        &args,
        105,
        &["armrest: output: ", "Read-only file system"],
    );
}

/// What belongs to later versions is named, all of it at once, before anything happens.
#[test]
fn unsupported_things_are_named_all_at_once() {
    if !provable("unsupported checkpoints") {
        return;
    }
    let words: [&[&str]; 1] = [&[
        "pid 175 and pid 179: one address space (CLONE_VM)",
        "pid 175 and pid 179: one fs state (CLONE_FS)",
        "pid 175 and pid 179: one table of signal actions (CLONE_SIGHAND)",
    ]];
    for words in words {
        // A task that is no thread and no fork either.
        let s = Scratch::new("family");
        let mut parents = None;
        s.edit::<proto::Ids>("ids-175.img", magic::IDS, |i| parents = i.first().cloned());
        s.edit::<proto::Ids>("ids-179.img", magic::IDS, |i| {
            let parents = parents.as_ref().expect("ids of the parent");
            i[0].vm_id = parents.vm_id;
            i[0].fs_id = parents.fs_id;
            i[0].sighand_id = parents.sighand_id;
        });
        let words = [
            &["armrest: plan: ", ": not supported", "armrest: try: "],
            words,
        ]
        .concat();
        let done = s.refused(&PLAIN, &[], 94, &words);
        let json = done.json();
        assert_eq!(
            (json["name"].as_str(), json["phase"].as_str()),
            (Some("unsupported"), Some("plan"))
        );
        let named = done
            .stderr
            .lines()
            .filter(|l| l.ends_with(": not supported"))
            .count();
        assert_eq!(
            json["what"].as_array().map(Vec::len),
            Some(named),
            "{done:?}"
        );
        // The same under --new-namespaces, --dry-run and with any ids: nothing helps.
        for args in [
            &["--new-namespaces"][..],
            &["--dry-run"],
            &["--any-pid", "--any-ids"],
        ] {
            s.refused(&PLAIN, args, 94, &words);
        }
    }
    // What this version can restore and an emulator cannot is another thing, and has another code.
    let s = Scratch::new("seccomp");
    let words = [
        "tid 2601: seccomp filters, and there are none here: cannot be done on this machine",
        "tid 2604: seccomp filters",
    ];
    s.refused(&PLAIN, &[], 102, &words);
    let words = ["(CLONE_PARENT): cannot be done on this machine"];
    Scratch::new("orphans").refused(&PLAIN, &[], 102, &words);
    let words =
        ["processes with one descriptor table (CLONE_FILES): cannot be done on this machine"];
    Scratch::new("shared_table").refused(&PLAIN, &[], 102, &words);
}

/// Two pairs that share a descriptor table, crosswise: the one who would have to hand on both can hold only one.
#[test]
fn tables_that_no_order_of_births_leads_to() {
    if !provable("impossible descriptor tables") {
        return;
    }
    let s = Scratch::new("family");
    for (pid, like) in [("180", "175"), ("183", "179")] {
        let mut table = None;
        let ids = |pid: &str| format!("ids-{pid}.img");
        s.edit::<proto::Ids>(&ids(like), magic::IDS, |i| table = i[0].files_id);
        s.edit::<proto::Ids>(&ids(pid), magic::IDS, |i| i[0].files_id = table);
    }
    let words = [
        "would have to be born into two descriptor tables (CLONE_FILES)",
        "no order of births leads there",
    ];
    s.refused(&PLAIN, &[], 94, &words);
}

#[test]
fn images_that_the_system_cannot_read() {
    if !provable("unreadable image") {
        return;
    }
    let s = Scratch::new("counter");
    fs::remove_file(s.images().join("mm-136.img")).unwrap();
    fs::create_dir(s.images().join("mm-136.img")).unwrap();
    refused(&s, 93, &["mm-136.img: cannot be read"]);
    assert_eq!(
        load(&FsDir::new(s.images()))
            .map(|_| ())
            .unwrap_err()
            .class(),
        Class::Io
    );
}

#[test]
fn command_lines_that_make_no_sense() {
    if !provable("usage errors") {
        return;
    }
    let s = Scratch::new("counter");
    let before = s.snapshot();
    for args in [
        &["--no-such-option"][..],
        &["--timeout", "0"],
        &["--status-fd", "99"],
        &["--allow-changed", "[a"],
    ] {
        let done = s.start(args).finish();
        assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
        done.nothing_left();
    }
    assert!(before == s.snapshot());
}
