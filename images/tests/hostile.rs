//! Bad images: each kind of damage has its class, and no bytes whatever make the reader panic or hang.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use armrest_images::container::{Writer, edit};
use armrest_images::proto::{self, PagemapEntry, PagemapHead, VmaEntry};
use armrest_images::{Class, Error, MemDir, Vma, load, magic};
use common::{consistent, sample};
use proptest::prelude::*;

fn change<M: prost::Message + Default>(
    dir: &mut MemDir,
    name: &str,
    magic: u32,
    f: impl FnOnce(&mut Vec<M>),
) {
    let bytes = edit(name, &dir.files[name], magic, f).unwrap();
    dir.put(name, bytes);
}

fn refused(dir: &MemDir) -> Error {
    load(dir).map(|_| ()).expect_err("loaded although damaged")
}

fn class(dir: &MemDir) -> Class {
    refused(dir).class()
}

/// Changes the VMAs of `counter` and says what is said to that.
fn with_vmas(f: impl FnOnce(&mut Vec<VmaEntry>)) -> Error {
    let mut dir = sample("counter");
    change::<proto::Mm>(&mut dir, "mm-136.img", magic::MM, |m| f(&mut m[0].vmas));
    refused(&dir)
}

fn with_core(f: impl FnOnce(&mut proto::Core)) -> Error {
    let mut dir = sample("counter");
    change::<proto::Core>(&mut dir, "core-136.img", magic::CORE, |c| f(&mut c[0]));
    refused(&dir)
}

fn entry(vaddr: u64, pages: u64) -> PagemapEntry {
    PagemapEntry {
        vaddr: Some(vaddr),
        compat_nr_pages: Some(0),
        flags: Some(4),
        nr_pages: Some(pages),
        in_parent: None,
    }
}

fn pagemap(entries: &[PagemapEntry]) -> Vec<u8> {
    let head = Writer::new(magic::PAGEMAP).entry(&PagemapHead { pages_id: Some(1) });
    entries.iter().fold(head, |w, e| w.entry(e)).finish()
}

fn with_pagemap(entries: &[PagemapEntry]) -> Error {
    let mut dir = sample("counter");
    dir.put("pagemap-136.img", pagemap(entries));
    refused(&dir)
}

#[test]
fn editing_loses_nothing() {
    for (name, magic) in [
        ("mm-136.img", magic::MM),
        ("pstree.img", magic::PSTREE),
        ("files.img", magic::FILES),
    ] {
        let mut dir = sample("counter");
        let before = dir.files[name].clone();
        match magic {
            magic::MM => change::<proto::Mm>(&mut dir, name, magic, |_| ()),
            magic::PSTREE => change::<proto::Pstree>(&mut dir, name, magic, |_| ()),
            _ => change::<proto::FileEntry>(&mut dir, name, magic, |_| ()),
        }
        assert_eq!(dir.files[name], before, "{name}");
    }
}

#[test]
fn missing_images_are_named() {
    for from in ["counter", "memory", "sysvshm", "sysvsplit", "dyn"] {
        let whole = sample(from);
        for name in whole.files.keys() {
            let optional = ["seccomp.img", "timens-0.img"].contains(&name.as_str())
                || name.starts_with("ipcns-var");
            if optional || !name.ends_with(".img") {
                continue;
            }
            let mut dir = whole.clone();
            dir.files.remove(name);
            let error = refused(&dir);
            if error.class() == Class::Missing {
                assert_eq!(&error.place.file, name, "{from}");
            } else {
                // An array image with no entries is not written, so the first reference to it tells.
                assert_eq!(
                    error.class(),
                    Class::BadReference,
                    "{from} without {name}: {error}"
                );
            }
        }
    }
    assert_eq!(class(&MemDir::default()), Class::Missing);
}

#[test]
fn magics_versions_and_machines() {
    let whole = sample("counter");
    for name in whole.files.keys().filter(|n| !n.starts_with("pages-")) {
        let mut dir = whole.clone();
        let mut bytes = dir.files[name].to_vec();
        bytes[0] ^= 1;
        dir.put(name, bytes);
        assert_eq!(class(&dir), Class::WrongMagic, "{name}");
    }
    let mut dir = whole.clone();
    dir.put("mm-136.img", whole.files["fs-136.img"].to_vec());
    assert_eq!(class(&dir), Class::WrongMagic);

    let mut dir = whole.clone();
    change::<proto::Inventory>(&mut dir, "inventory.img", magic::INVENTORY, |i| {
        i[0].img_version = Some(3)
    });
    assert_eq!(class(&dir), Class::Version);

    assert_eq!(
        with_core(|c| c.mtype = Some(1)).class(),
        Class::WrongMachine
    );
    assert_eq!(
        with_core(|c| c.mtype = Some(99)).class(),
        Class::WrongMachine
    );
    assert_eq!(with_core(|c| c.mtype = None).class(), Class::BadField);

    let mut dir = whole;
    change::<proto::Mm>(&mut dir, "mm-136.img", magic::MM, |m| {
        let at = m[0]
            .mm_saved_auxv
            .chunks(2)
            .position(|p| p[0] == 6)
            .unwrap();
        m[0].mm_saved_auxv[at * 2 + 1] = 16384;
    });
    assert_eq!(class(&dir), Class::PageSize);
}

#[test]
fn impossible_mappings() {
    type Change = Box<dyn FnOnce(&mut Vec<VmaEntry>)>;
    let cases: [(&str, Change); 12] = [
        ("not page-aligned", Box::new(|v| v[3].start = Some(0x6a800))),
        ("overlaps", Box::new(|v| v[3].start = Some(0x69000))),
        ("out of order", Box::new(|v| v.swap(0, 1))),
        ("empty", Box::new(|v| v[3].end = v[3].start)),
        (
            "ends before it starts",
            Box::new(|v| v[3].end = Some(0x1000)),
        ),
        ("beyond 32 bits", Box::new(|v| v[3].end = Some(1 << 32))),
        (
            "beyond 32 bits",
            Box::new(|v| v[3].end = Some(u64::MAX - 0xfff)),
        ),
        (
            "above the highest",
            Box::new(|v| v[9].end = Some(0xffff_f000)),
        ),
        (
            "vectors page as something",
            Box::new(|v| v.last_mut().unwrap().status = Some(0x205)),
        ),
        (
            "not exactly one of MAP_SHARED",
            Box::new(|v| v[3].flags = Some(0x23)),
        ),
        (
            "not exactly one of the four",
            Box::new(|v| v[3].status = Some(0x301)),
        ),
        ("differ in sharing", Box::new(|v| v[3].flags = Some(0x21))),
    ];
    for (why, f) in cases {
        let error = with_vmas(f);
        assert_eq!(error.class(), Class::BadVma, "{why}: {error}");
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
    let too_many = with_vmas(|v| *v = vec![v[0].clone(); 131_061]);
    assert_eq!(too_many.class(), Class::BadCount);
    assert_eq!(with_vmas(Vec::clear).class(), Class::BadCount);
}

#[test]
fn mappings_that_differ_in_range_alone_are_checked_too() {
    const BASE: u64 = 0x1000_0000;
    let triplet = |third: (u64, u64)| {
        move |v: &mut Vec<VmaEntry>| {
            let anon = |e: &VmaEntry| e.status == Some(0x201);
            let like = v.iter().find(|e| anon(e)).unwrap().clone();
            let after = v.partition_point(|e| e.start < Some(BASE));
            let ranges = [(BASE, BASE + 0x1000), (BASE + 0x1000, BASE + 0x3000), third];
            v.splice(
                after..after,
                ranges.map(|(start, end)| VmaEntry {
                    start: Some(start),
                    end: Some(end),
                    ..like.clone()
                }),
            );
        }
    };
    for (why, start, end) in [
        ("not page-aligned", BASE + 0x3800, BASE + 0x5000),
        ("not page-aligned", BASE + 0x4000, BASE + 0x4800),
        ("overlaps", BASE + 0x2000, BASE + 0x4000),
        ("out of order", BASE, BASE + 0x1000),
        ("empty", BASE + 0x4000, BASE + 0x4000),
        ("ends before it starts", BASE + 0x5000, BASE + 0x4000),
        ("beyond 32 bits", BASE + 0x4000, 1 << 32),
        ("above the highest", 0xffff_0000, 0xffff_f000),
    ] {
        let error = with_vmas(triplet((start, end)));
        assert_eq!(error.class(), Class::BadVma, "{why}: {error}");
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
    let mut dir = sample("counter");
    change::<proto::Mm>(&mut dir, "mm-136.img", magic::MM, |m| {
        triplet((BASE + 0x8000, BASE + 0x9000))(&mut m[0].vmas);
    });
    let c = load(&dir).unwrap();
    let vmas = &c.tasks[0].live.as_ref().unwrap().mm.vmas;
    let at = vmas.iter().position(|v| u64::from(v.range.start()) == BASE);
    let of = &vmas[at.unwrap()..][..3];
    let alike = |v: &Vma| Vma {
        range: of[0].range,
        ..*v
    };
    assert!(of.iter().all(|v| alike(v) == of[0]));
    assert_eq!(
        of.iter()
            .map(|v| (v.range.start(), v.range.size()))
            .collect::<Vec<_>>(),
        [
            (0x1000_0000, 0x1000),
            (0x1000_1000, 0x2000),
            (0x1000_8000, 0x1000)
        ]
    );
}

#[test]
fn unknown_bits_are_refused() {
    for bit in [4, 15, 17, 18, 26, 28, 29, 30, 31] {
        let error = with_vmas(|v| v[3].status = Some(v[3].status.unwrap() | 1 << bit));
        assert_eq!(error.class(), Class::UnknownFlag, "status bit {bit}");
        assert_eq!(error.place.field, "vmas[3].status");
    }
    assert_eq!(
        with_vmas(|v| v[3].flags = Some(0x22 | 0x10)).class(),
        Class::UnknownFlag
    );
    assert_eq!(
        with_vmas(|v| v[3].flags = Some(0x22 | 1 << 27)).class(),
        Class::UnknownFlag
    );
    assert_eq!(
        with_vmas(|v| v[3].prot = Some(8)).class(),
        Class::UnknownFlag
    );
    assert_eq!(
        with_vmas(|v| v[3].madv = Some(1 << 4)).class(),
        Class::UnknownFlag
    );
    assert_eq!(
        with_vmas(|v| v[0].fdflags = Some(3)).class(),
        Class::UnknownFlag
    );
    for flags in [8, 12, 1 << 31] {
        let e = PagemapEntry {
            flags: Some(flags),
            ..entry(0x10000, 1)
        };
        assert_eq!(with_pagemap(&[e]).class(), Class::UnknownFlag);
    }
    assert_eq!(
        with_core(|c| c.tc.as_mut().unwrap().task_state = Some(7)).class(),
        Class::UnknownFlag
    );
}

#[test]
fn impossible_page_maps() {
    // The pages file of `counter` has 267 pages.
    assert_eq!(
        with_pagemap(&[entry(0xb000_0000, 267)]).class(),
        Class::BadPagemap
    );
    assert_eq!(
        with_pagemap(&[entry(0x10800, 267)]).class(),
        Class::BadPagemap
    );
    assert_eq!(
        with_pagemap(&[entry(0xb6e6_a000, 256), entry(0xb6e6_b000, 11)]).class(),
        Class::BadPagemap
    );
    assert_eq!(
        with_pagemap(&[entry(0xffff_0000, 267)]).class(),
        Class::BadPagemap
    );
    assert_eq!(
        with_pagemap(&[entry(u64::MAX - 0xfff, 267)]).class(),
        Class::BadPagemap
    );
    assert_eq!(
        with_pagemap(&[entry(0xb6e6_a000, 268)]).class(),
        Class::PagesShort
    );
    assert_eq!(
        with_pagemap(&[entry(0xb6e6_a000, 100)]).class(),
        Class::PagesShort
    );
    assert_eq!(
        with_pagemap(&[entry(0xb6e6_a000, 0)]).class(),
        Class::BadCount
    );
    let neither = PagemapEntry {
        flags: Some(2),
        ..entry(0xb6e6_a000, 1)
    };
    assert_eq!(with_pagemap(&[neither]).class(), Class::BadPagemap);
    let both = PagemapEntry {
        flags: Some(5),
        ..entry(0xb6e6_a000, 1)
    };
    assert_eq!(with_pagemap(&[both]).class(), Class::BadPagemap);
    for count in [u64::from(u32::MAX), u64::MAX, 1 << 52] {
        assert_eq!(
            with_pagemap(&[entry(0x1000, count)]).class(),
            Class::BadCount
        );
    }
    let old = PagemapEntry {
        compat_nr_pages: Some(u32::MAX),
        nr_pages: None,
        ..entry(0x1000, 0)
    };
    assert_eq!(with_pagemap(&[old]).class(), Class::BadCount);
    let many: Vec<_> = (0..4096u64).map(|n| entry(n << 20, 1 << 20)).collect();
    assert_eq!(with_pagemap(&many).class(), Class::BadPagemap);
}

#[test]
fn pages_files_of_the_wrong_size() {
    for from in ["counter", "sysvshm"] {
        let whole = sample(from);
        for name in whole.files.keys().filter(|n| n.starts_with("pages-")) {
            let size = whole.files[name].len();
            for cut in [0, 1, 4096, size - 4096, size - 1] {
                let mut dir = whole.clone();
                dir.put(name, whole.files[name][..cut.min(size - 1)].to_vec());
                let error = refused(&dir);
                assert_eq!(
                    (error.class(), &error.place.file),
                    (Class::PagesShort, name)
                );
            }
            let mut dir = whole.clone();
            dir.put(name, [&whole.files[name][..], &[0]].concat());
            assert_eq!(class(&dir), Class::PagesShort);
        }
    }
}

#[test]
fn counts_and_registers() {
    let fp = |f: fn(&mut Vec<u64>)| {
        with_core(move |c| {
            f(&mut c
                .ti_arm
                .as_mut()
                .unwrap()
                .fpstate
                .as_mut()
                .unwrap()
                .vfp_regs)
        })
    };
    assert_eq!(fp(|v| v.truncate(31)).class(), Class::BadCount);
    assert_eq!(fp(|v| v.push(0)).class(), Class::BadCount);
    assert_eq!(
        with_core(|c| c.tc.as_mut().unwrap().sigactions.truncate(61)).class(),
        Class::BadCount
    );
    assert_eq!(
        with_core(|c| c.tc.as_mut().unwrap().sigactions.clear()).class(),
        Class::BadCount
    );
    let gp = |f: fn(&mut proto::Gpregs)| {
        with_core(move |c| f(c.ti_arm.as_mut().unwrap().gpregs.as_mut().unwrap()))
    };
    assert_eq!(gp(|r| r.pc = Some(0x4000_0000)).class(), Class::BadField);
    assert_eq!(gp(|r| r.sp = Some(0x4000_0000)).class(), Class::BadField);
    assert_eq!(gp(|r| r.cpsr = Some(0x13)).class(), Class::BadField);
    assert_eq!(gp(|r| r.r7 = None).place.field, "ti_arm.gpregs.r7");
    assert_eq!(
        with_core(|c| c.tc.as_mut().unwrap().comm = Some(b"a\0b".to_vec())).class(),
        Class::BadField
    );
    assert_eq!(
        with_core(|c| c.tc.as_mut().unwrap().comm = Some(vec![b'x'; 16])).class(),
        Class::BadField
    );
}

#[test]
fn references_must_resolve() {
    assert_eq!(
        with_vmas(|v| v[0].shmid = Some(77)).class(),
        Class::BadReference
    );
    assert_eq!(
        with_vmas(|v| v[0].shmid = Some(u64::MAX)).class(),
        Class::BadReference
    );

    let mut dir = sample("counter");
    change::<proto::Fdinfo>(&mut dir, "fdinfo-2.img", magic::FDINFO, |f| {
        f[1].fd = f[0].fd
    });
    assert_eq!(class(&dir), Class::BadReference);
    let mut dir = sample("counter");
    change::<proto::Fdinfo>(&mut dir, "fdinfo-2.img", magic::FDINFO, |f| {
        f[1].kind = Some(2)
    });
    assert_eq!(class(&dir), Class::BadReference);
    let mut dir = sample("counter");
    change::<proto::Pstree>(&mut dir, "pstree.img", magic::PSTREE, |p| {
        p[0].threads.push(136)
    });
    assert_eq!(class(&dir), Class::BadReference);
    for pid in [0, 5 << 20, u32::MAX] {
        let mut dir = sample("counter");
        change::<proto::Pstree>(&mut dir, "pstree.img", magic::PSTREE, |p| {
            p[0].pid = Some(pid)
        });
        assert_eq!(class(&dir), Class::BadField);
    }
    let cgroup = |set: u32, path: &[u8]| {
        let mut dir = sample("counter");
        change::<proto::Core>(&mut dir, "core-136.img", magic::CORE, |c| {
            c[0].thread_core.as_mut().unwrap().cg_set = Some(5);
        });
        let member = proto::CgMember {
            path: Some(path.to_vec()),
            ..Default::default()
        };
        let set = proto::CgSet {
            id: Some(set),
            ctls: vec![member],
        };
        let image = proto::Cgroup { sets: vec![set] };
        let bytes = Writer::new(magic::CGROUP).entry(&image).finish();
        dir.put("cgroup.img", bytes);
        dir
    };
    let there = load(&cgroup(5, b"/a")).unwrap();
    let groups = there.tasks[0]
        .live
        .as_ref()
        .unwrap()
        .cgroups
        .as_ref()
        .unwrap();
    assert_eq!((groups.len(), &*groups[0].path), (1, "/a"));
    assert_eq!(class(&cgroup(6, b"/a")), Class::BadReference);
    // A thread elsewhere is told apart.
    let mut dir = sample("threads");
    let other = sample("threads")
        .files
        .keys()
        .filter_map(|n| n.strip_prefix("core-")?.strip_suffix(".img")?.parse().ok())
        .max()
        .unwrap();
    change::<proto::Core>(&mut dir, &format!("core-{other}.img"), magic::CORE, |c| {
        c[0].thread_core.as_mut().unwrap().cg_set = Some(5)
    });
    let cp = load(&dir).unwrap();
    let live = cp.tasks[0].live.as_ref().unwrap();
    assert_eq!((&live.cgroups, live.thread_apart), (&None, Some(other)));
    for path in [&b"relative"[..], b"/a\0b", b"", b"/\xff", b"/a/../../b"] {
        assert_eq!(class(&cgroup(5, path)), Class::BadField);
    }
    for path in [&b"relative"[..], b"/a\0b", b"", b"/\xff"] {
        let mut dir = sample("counter");
        change::<proto::FileEntry>(&mut dir, "files.img", magic::FILES, |f| {
            f[0].reg.as_mut().unwrap().name = Some(path.to_vec());
        });
        assert_eq!(class(&dir), Class::BadField);
    }
}

#[test]
fn trees_that_cannot_be() {
    let with = |f: fn(&mut [proto::Pstree])| {
        let mut dir = sample("family");
        change::<proto::Pstree>(&mut dir, "pstree.img", magic::PSTREE, |p| f(p));
        refused(&dir).to_string()
    };
    // A pid twice, a task that is its own parent, two that are each other's, a root with a parent, a parent of nowhere.
    let again = with(|p| (p[2].pid, p[2].threads) = (Some(179), vec![179]));
    assert!(again.contains("179"), "{again}");
    let itself = with(|p| p[1].ppid = p[1].pid);
    assert!(itself.contains("ppid"), "{itself}");
    let circle = with(|p| (p[1].ppid, p[2].ppid) = (p[2].pid, p[1].pid));
    assert!(circle.contains("ppid"), "{circle}");
    let rooted = with(|p| p[0].ppid = p[1].pid);
    assert!(rooted.contains("root of the tree"), "{rooted}");
    let nowhere = with(|p| p[1].ppid = Some(4711));
    assert!(
        nowhere.contains("ppid") && nowhere.contains("4711"),
        "{nowhere}"
    );
    // The descriptors of a task are gone, and some belong to a table of nobody.
    let mut dir = sample("family");
    let lost = dir.files.remove("fdinfo-3.img").unwrap();
    dir.put("fdinfo-99.img", lost.to_vec());
    assert_eq!(class(&dir), Class::Missing);
}

#[test]
fn segments_hold_their_attachments() {
    let edited = |f: fn(&mut proto::IpcShm)| {
        let mut dir = sample("sysvshm");
        change::<proto::IpcShm>(
            &mut dir,
            "ipcns-shm-9.img",
            magic::IPC_SHM,
            |s| f(&mut s[0]),
        );
        class(&dir)
    };
    assert_eq!(edited(|s| s.in_pagemaps = None), Class::Unsupported);
    assert_eq!(edited(|s| s.size = Some(4096)), Class::BadPagemap);
    assert_eq!(edited(|s| s.size = Some(0)), Class::BadField);
    assert_eq!(edited(|s| s.size = Some(u64::MAX)), Class::BadField);
    assert_eq!(
        edited(|s| s.desc.as_mut().unwrap().mode = Some(0o14600)),
        Class::UnknownFlag
    );
    let vma = |f: fn(&mut VmaEntry)| {
        let mut dir = sample("sysvshm");
        change::<proto::Mm>(&mut dir, "mm-172.img", magic::MM, |m| {
            f(m[0]
                .vmas
                .iter_mut()
                .find(|v| v.status == Some(0x501))
                .unwrap());
        });
        class(&dir)
    };
    assert_eq!(vma(|v| v.pgoff = Some(4096)), Class::BadVma);
    assert_eq!(vma(|v| v.pgoff = Some(u64::MAX - 0xfff)), Class::BadField);
    assert_eq!(vma(|v| v.shmid = Some(42)), Class::BadReference);
}

#[test]
fn old_forms_are_read() {
    let new = load(&sample("counter")).unwrap();
    let runs = &new.tasks[0].live.as_ref().unwrap().pages.runs;
    // Page counts in field 2, no flags.
    let old = |r: &armrest_images::PageRun| PagemapEntry {
        vaddr: Some(r.addr),
        compat_nr_pages: Some(r.pages),
        in_parent: None,
        flags: None,
        nr_pages: None,
    };
    let mut dir = sample("counter");
    dir.put(
        "pagemap-136.img",
        pagemap(&runs.iter().map(old).collect::<Vec<_>>()),
    );
    // Signal actions in a file of their own.
    let mut actions = Vec::new();
    change::<proto::Core>(&mut dir, "core-136.img", magic::CORE, |c| {
        actions = std::mem::take(&mut c[0].tc.as_mut().unwrap().sigactions);
    });
    let file = actions
        .iter()
        .fold(Writer::new(magic::SIGACTS), |w, a| w.entry(a))
        .finish();
    dir.put("sigacts-136.img", file);
    let read = load(&dir).unwrap();
    let (read, new) = (
        read.tasks[0].live.as_ref().unwrap(),
        new.tasks[0].live.as_ref().unwrap(),
    );
    assert_eq!(read.pages, new.pages);
    assert_eq!(read.sigactions, new.sigactions);
}

#[test]
fn anonymous_shared_memory_without_memfd_is_read() {
    let mut dir = sample("memory");
    change::<proto::Mm>(&mut dir, "mm-201.img", magic::MM, |m| {
        let v = m[0]
            .vmas
            .iter_mut()
            .find(|v| v.status == Some(0x4081))
            .unwrap();
        (v.status, v.flags, v.shmid, v.fdflags) = (Some(0x101), Some(0x21), Some(1030), None);
    });
    let c = load(&dir).unwrap();
    assert_eq!(c.anon_shared[&1030].runs[0].pages, 16);
}

#[test]
fn parents_are_followed_by_address() {
    let parent = sample("counter");
    let whole = load(&parent).unwrap();
    let runs = whole.tasks[0].live.as_ref().unwrap().pages.runs.clone();
    let mut dir = parent.clone();
    // Everything in the parent but the first page of the first run, which changed since.
    let mut entries = vec![entry(runs[0].addr, 1)];
    for (n, r) in runs.iter().enumerate() {
        let skip = u64::from(n == 0);
        if u64::from(r.pages) > skip {
            let in_parent = PagemapEntry {
                flags: Some(1),
                ..entry(r.addr + skip * 4096, u64::from(r.pages) - skip)
            };
            entries.push(in_parent);
        }
    }
    dir.put("pagemap-136.img", pagemap(&entries));
    dir.put("pages-1.img", vec![7; 4096]);
    dir.parent = Some(std::sync::Arc::new(parent.clone()));
    let c = load(&dir).unwrap();
    consistent(&c);
    let pages = &c.tasks[0].live.as_ref().unwrap().pages;
    let names: Vec<_> = c.pages_files.iter().map(|f| f.name.as_str()).collect();
    let total: u32 = pages.runs.iter().map(|r| r.pages).sum();
    assert_eq!(total, 267);
    assert!(
        names.contains(&"pages-1.img") && names.contains(&"parent/pages-1.img"),
        "{names:?}"
    );
    // The vdso and the sigpage are found in the parent's pages.
    let mm = |c: &armrest_images::Checkpoint| {
        let mm = c.tasks[0].live.as_ref().unwrap().mm.clone();
        (mm.vdso, mm.sigpage)
    };
    assert_eq!(mm(&c), mm(&whole));

    dir.parent = None;
    assert_eq!(class(&dir), Class::Missing);
    dir.parent = Some(std::sync::Arc::new(MemDir::default()));
    assert_eq!(class(&dir), Class::BadPagemap);
    // A chain without end, as a `parent` that leads to its own directory would make.
    let mut chain = dir.clone();
    chain.parent = None;
    for _ in 0..200 {
        chain = MemDir {
            files: dir.files.clone(),
            parent: Some(std::sync::Arc::new(chain)),
        };
    }
    assert_eq!(class(&chain), Class::BadCount);
    // The longest that there may be, which is followed by recursion: the only one over input. A small stack is enough.
    let mut chain = parent;
    for _ in 0..64 {
        chain = MemDir {
            files: dir.files.clone(),
            parent: Some(std::sync::Arc::new(chain)),
        };
    }
    let reader = std::thread::Builder::new().stack_size(512 << 10);
    let read = reader.spawn(move || load(&chain).map(|c| c.pages_files.len()));
    assert_eq!(read.unwrap().join().unwrap().unwrap(), 65);
}

/// Where an image may end as far as its framing goes.
fn boundaries(bytes: &[u8], name: &str) -> Vec<usize> {
    let mut at = if name == "inventory.img" { 4 } else { 8 };
    let mut all = vec![at];
    while let Some(len) = bytes.get(at..at + 4) {
        at += 4 + usize::try_from(u32::from_le_bytes(len.try_into().unwrap())).unwrap();
        all.push(at);
    }
    all
}

/// Cut at every byte of every small file: an error. Only a cut between two entries of an array may go unseen, as
/// the format keeps no count; what is then read must still be consistent.
#[test]
fn truncation_at_every_byte() {
    for from in ["counter", "sysvshm"] {
        let whole = sample(from);
        for (name, bytes) in whole.files.iter().filter(|(n, _)| !n.starts_with("pages-")) {
            // Never looked into.
            if name.starts_with("ipcns-var") {
                continue;
            }
            let cuts = boundaries(bytes, name);
            for cut in 0..bytes.len() {
                let mut dir = whole.clone();
                dir.put(name, bytes[..cut].to_vec());
                match load(&dir) {
                    Err(e) if !cuts.contains(&cut) => {
                        assert_eq!(
                            (e.class(), &e.place.file),
                            (Class::Damaged, name),
                            "{name} cut at {cut}: {e}"
                        );
                    }
                    Err(_) => {}
                    Ok(c) => {
                        assert!(cuts.contains(&cut), "{name} cut at {cut} was accepted");
                        assert!(
                            name.starts_with("fdinfo"),
                            "{name} cut at {cut} was accepted"
                        );
                        consistent(&c);
                    }
                }
            }
        }
    }
}

#[test]
fn every_byte_mutated() {
    for from in ["counter", "sysvshm"] {
        let whole = sample(from);
        for (name, bytes) in whole.files.iter().filter(|(n, _)| !n.starts_with("pages-")) {
            for at in 0..bytes.len() {
                for mask in [0xff, 0x80, 0x01] {
                    let mut dir = whole.clone();
                    let mut changed = bytes.to_vec();
                    changed[at] ^= mask;
                    dir.put(name, changed);
                    if let Ok(c) = load(&dir) {
                        consistent(&c);
                    }
                }
            }
        }
    }
}

#[test]
fn memory_asked_for_is_bounded() {
    // Two bytes an empty VMA: 8 million of them.
    let body: Vec<u8> = [0x72, 0].repeat(8 << 20);
    let mut dir = sample("counter");
    let len = u32::try_from(body.len()).unwrap().to_le_bytes();
    dir.put(
        "mm-136.img",
        Writer::new(magic::MM).raw(&len).raw(&body).finish(),
    );
    assert_eq!(class(&dir), Class::BadCount);
}

/// A little generator: the same mutations for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }
}

/// Fuzzing for the stable toolchain: seconds of random mutation of the samples (`ARMREST_FUZZ_SECONDS`, 3).
#[test]
fn smoke_of_random_mutations() {
    let seconds = std::env::var("ARMREST_FUZZ_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(3);
    let seeds: Vec<MemDir> = [
        "counter", "memory", "sysvshm", "family", "task", "files", "shm300", "sockets", "tty",
    ]
    .map(sample)
    .into();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (end, mut runs, mut loaded) = (Instant::now() + Duration::from_secs(seconds), 0u32, 0u32);
    while Instant::now() < end {
        let mut dir = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(3) {
            let name = dir
                .files
                .keys()
                .nth(random.below(dir.files.len()))
                .unwrap()
                .clone();
            let mut bytes = dir.files[&name].to_vec();
            if name.starts_with("pages-") || bytes.is_empty() {
                continue;
            }
            let at = random.below(bytes.len());
            match random.below(6) {
                0 => bytes[at] = u8::try_from(random.next() & 0xff).unwrap(),
                1 => bytes[at] ^= 1 << random.below(8),
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..(at + random.below(16)).min(bytes.len()))),
                4 => bytes.splice(at..at, [0xff; 9]).for_each(drop),
                _ => {
                    let from = random.below(bytes.len());
                    let piece = bytes[from..(from + random.below(64)).min(bytes.len())].to_vec();
                    bytes.splice(at..at, piece).for_each(drop);
                }
            }
            dir.put(&name, bytes);
        }
        runs += 1;
        if let Ok(c) = load(&dir) {
            consistent(&c);
            loaded += 1;
        }
    }
    assert!(runs > 10);
    println!("{runs} mutated checkpoints, {loaded} of them still valid");
}

#[test]
fn archives_come_back() {
    let mut dir = sample("counter");
    dir.parent = Some(std::sync::Arc::new(sample("sysvshm")));
    let back = MemDir::from_archive(&dir.to_archive());
    assert_eq!(back.files, dir.files);
    assert_eq!(back.parent.unwrap().files, dir.parent.unwrap().files);
}

#[test]
fn directories_are_not_left() {
    use armrest_images::{FsDir, ImageDir};
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), b"x").unwrap();
    let images = dir.path().join("images");
    std::fs::create_dir(&images).unwrap();
    std::os::unix::fs::symlink("../secret", images.join("inventory.img")).unwrap();
    let fs = FsDir::new(&images);
    assert_eq!(load(&fs).unwrap_err().class(), Class::Io);
    for name in ["../secret", "/etc/passwd", ".", "..", "", "a/b"] {
        assert!(fs.read(name).is_err(), "{name}");
    }
    std::os::unix::fs::symlink(".", images.join("parent")).unwrap();
    assert!(fs.parent().unwrap().is_some());
    std::fs::create_dir(images.join("x.img")).unwrap();
    assert!(fs.read("x.img").is_err());
    assert_eq!(
        load(&FsDir::new(Path::new("/nonexistent")))
            .unwrap_err()
            .class(),
        Class::Missing
    );
}

fn any_vma() -> impl Strategy<Value = VmaEntry> {
    let word = prop_oneof![
        0u64..16,
        (0u64..0x10_0000).prop_map(|p| p << 12),
        any::<u64>()
    ];
    let bits = prop_oneof![
        Just(0x201u32),
        Just(0x41),
        Just(0x501),
        Just(0x81),
        Just(0x4081),
        any::<u32>()
    ];
    let flags = prop_oneof![Just(0x22u32), Just(2), Just(0x21), Just(1), any::<u32>()];
    (
        word.clone(),
        word.clone(),
        word,
        bits,
        flags,
        0u32..9,
        0u64..8,
    )
        .prop_map(|(start, end, pgoff, status, flags, prot, shmid)| VmaEntry {
            start: Some(start),
            end: Some(end),
            pgoff: Some(pgoff),
            shmid: Some(shmid),
            prot: Some(prot),
            flags: Some(flags),
            status: Some(status),
            fd: Some(-1),
            madv: None,
            fdflags: Some(2),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes_never_panic(which in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..300), keep in 0usize..16) {
        let mut dir = sample("sysvshm");
        let name = which.get(&dir.files.keys().cloned().collect::<Vec<_>>()).clone();
        let mut body = dir.files[&name][..keep.min(dir.files[&name].len())].to_vec();
        body.extend(bytes);
        dir.put(&name, body);
        if let Ok(c) = load(&dir) {
            consistent(&c);
        }
    }

    #[test]
    fn arbitrary_archives_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = load(&MemDir::from_archive(&bytes));
    }

    #[test]
    fn arbitrary_images_can_be_shown(bytes in prop::collection::vec(any::<u8>(), 0..400), which in any::<prop::sample::Index>()) {
        let dir = sample("shm300");
        let names: Vec<_> = dir.files.keys().filter(|n| !n.starts_with("pages-")).collect();
        let mut body = dir.files[*which.get(&names)][..8].to_vec();
        body.extend(bytes);
        let _ = armrest_images::view::show("x.img", &body);
    }

    #[test]
    fn arbitrary_mappings_are_refused_or_consistent(extra in prop::collection::vec(any_vma(), 1..4)) {
        let mut dir = sample("sysvshm");
        change::<proto::Mm>(&mut dir, "mm-172.img", magic::MM, |m| {
            m[0].vmas.extend(extra);
            m[0].vmas.sort_by_key(|v| v.start);
        });
        if let Ok(c) = load(&dir) {
            consistent(&c);
        }
    }

    #[test]
    fn arbitrary_page_maps_are_refused_or_consistent(
        runs in prop::collection::vec((0u64..0x10_0000, prop_oneof![0u64..300, any::<u64>()], 0u32..9), 0..6),
    ) {
        let mut dir = sample("counter");
        let entries: Vec<_> = runs.iter().map(|(p, n, f)| PagemapEntry { flags: Some(*f), ..entry(p << 12, *n) }).collect();
        dir.put("pagemap-136.img", pagemap(&entries));
        if let Ok(c) = load(&dir) {
            consistent(&c);
        }
    }
}
