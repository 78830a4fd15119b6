//! Checkpoints that no dumper writes today, derived from the samples by editing their images: attachments with holes,
//! strangers in the holes, places that a kernel would choose itself. The tests under qemu-arm and those of the machine
//! use the same ones. A folder of derived images holds a file `DERIVED` that says so.
//!
//! Most are made from `sysvsplit`, which has, besides reserved ranges that lie around them (`---p`):
//!
//! | segment | VMAs | |
//! |---|---|---|
//! | 0, 6 pages | b6f2d000 2 pages rw, b6f2f000 2 pages r, b6f31000 2 pages rw | one attachment, base b6f2d000 |
//! | 1, 2 pages | b6eff000 2 pages | attached read-only |
//! | 1, 2 pages | b6f15000 2 pages | attached read-write |
//! | 2, 3 pages | b6ee5000 3 pages | marked for deletion |

mod filters;
mod memory;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use armrest_images::container::{self, Writer};
use armrest_images::magic;
use armrest_images::proto::{
    CgMember, CgSet, Cgroup, Core, Fdinfo, FileEntry, Fs, IpcDesc, IpcMsg, IpcMsgQueue, IpcSem,
    IpcShm, IpcVar, Mm, PagemapEntry, PagemapHead, Pstree, Pty, Termios, Tty, TtyInfo, VmaEntry,
};

/// Bytes of a page.
pub const PG: u64 = 4096;
/// First VMA of segment 0's attachment.
pub const HEAD: u64 = 0xb6f2_d000;
/// Second.
pub const MIDDLE: u64 = 0xb6f2_f000;
/// Third.
pub const TAIL: u64 = 0xb6f3_1000;
/// The read-write attachment of segment 1.
pub const WRITABLE: u64 = 0xb6f1_5000;
/// What Debian's kernel chooses for a segment of six pages in a program without mappings, where addresses are not
/// randomised: here while the kernel's own three pages lie above, three pages higher when they are gone, as they may be
/// in the middle of a restore. A test in the machine asks the kernel again.
pub const CHOSEN: u64 = 0xb6ff_7000;
/// Where segment 0 is put so that it overlaps both places and is neither.
pub const OVERLAPPING: u64 = CHOSEN + 2 * PG;

/// A derived checkpoint.
pub struct Derived {
    /// Name of its folder.
    pub name: &'static str,
    /// The sample that it is made from.
    pub of: &'static str,
    /// What was changed, in a sentence.
    pub what: &'static str,
    change: fn(&Images),
}

/// All of them.
pub const ALL: &[Derived] = &[
    Derived {
        name: "shell-job",
        of: "counter",
        what: "it was started from a shell: standard input is the shell's terminal, raw, with it in the foreground",
        change: |i| i.shell_job(),
    },
    Derived {
        name: "hole-in-head",
        of: "sysvsplit",
        what: "the first VMA of segment 0's attachment is cut",
        change: |i| i.cut(HEAD, 2),
    },
    Derived {
        name: "hole-in-middle",
        of: "sysvsplit",
        what: "the second VMA of segment 0's attachment is cut",
        change: |i| i.cut(MIDDLE, 2),
    },
    Derived {
        name: "hole-in-tail",
        of: "sysvsplit",
        what: "the last page of the third VMA of segment 0's attachment is cut",
        change: |i| i.cut(TAIL + PG, 1),
    },
    Derived {
        name: "holes-everywhere",
        of: "sysvsplit",
        what: "a page each is cut from head, middle and tail of segment 0's attachment",
        change: |i| {
            i.cut(HEAD, 1);
            i.cut(MIDDLE + PG, 1);
            i.cut(TAIL + PG, 1);
        },
    },
    Derived {
        name: "at-an-offset",
        of: "sysvsplit",
        what: "the first page of the read-write attachment of segment 1 is cut: its only VMA begins at an offset",
        change: |i| i.cut(WRITABLE, 1),
    },
    Derived {
        name: "stranger",
        of: "sysvsplit",
        what: "the second VMA of segment 0's attachment is private memory with the same contents",
        change: |i| {
            i.cut(MIDDLE, 2);
            i.stranger(MIDDLE, 1, &contents(2, 2));
        },
    },
    Derived {
        name: "aligned-hole",
        of: "sysvsplit",
        what: "segment 0's attachment lies a page lower, on a multiple of SHMLBA, and its second VMA is cut",
        change: |i| {
            i.shift(|a| a - PG);
            i.cut(MIDDLE - PG, 2);
        },
    },
    Derived {
        name: "aligned-stranger",
        of: "sysvsplit",
        what: "as aligned-hole, and private memory lies in the hole",
        change: |i| {
            i.shift(|a| a - PG);
            i.cut(MIDDLE - PG, 2);
            i.stranger(MIDDLE - PG, 3, &pattern(77, 8192));
        },
    },
    Derived {
        name: "own-target",
        of: "sysvsplit",
        what: "segment 0 is attached where an attach at a place of the kernel's choice would overlap the target",
        change: |i| {
            i.cut(HEAD - 22 * PG, 22);
            i.cut(TAIL + 2 * PG, 14);
            i.shift(|a| a - HEAD + OVERLAPPING);
        },
    },
    Derived {
        name: "others-target",
        of: "sysvsplit",
        what: "private memory lies where the kernel would attach segment 0 if it were asked to choose",
        change: |i| i.stranger(CHOSEN, 3, &pattern(78, 9 * 4096)),
    },
    Derived {
        name: "incremental",
        of: "memory",
        what: "the last of three incremental dumps: of five pages in a row two lie here, two in its parent, one in that one's",
        change: memory::split,
    },
    Derived {
        name: "advised",
        of: "memory",
        what: "locked memory of three kinds, advice, and a mapping that the stack has grown down to",
        change: memory::advise,
    },
    Derived {
        name: "other-vdso",
        of: "dyn",
        what: "a function of the vdso has another name, as if another kernel had made it",
        change: memory::rename_vdso_function,
    },
    Derived {
        name: "ipc-owners",
        of: "shm300",
        what: "owners, creators and modes of their own, a locked segment, a queue that holds more than it may take",
        change: |i| {
            i.edit::<IpcShm>("ipcns-shm-9.img", magic::IPC_SHM, |all| {
                all.iter_mut().for_each(|e| owners(&mut e.desc));
                // SHM_LOCKED.
                let mode = &mut all[3].desc.as_mut().expect("desc").mode;
                *mode = mode.map(|m| m | 0o2000);
            });
            i.semaphore_owners();
            i.queue_owners();
        },
    },
    Derived {
        name: "no-room",
        of: "threads",
        what: "one thread has used its stack up to the last 64 bytes",
        change: |i| {
            i.edit::<Core>("core-232.img", magic::CORE, |c| {
                let info = c[0].ti_arm.as_mut().expect("registers");
                let regs = info.gpregs.as_mut().expect("registers");
                regs.sp = Some(0xb67a_a040);
            });
        },
    },
    Derived {
        name: "sealed",
        of: "family",
        what: "three tasks have filters of system calls, one of them such that forbid its waits",
        change: filters::seal,
    },
    Derived {
        name: "at-its-end",
        of: "counter",
        what: "the call that it is about to make again is exit_group(7)",
        change: |i| {
            i.edit::<Core>("core-136.img", magic::CORE, |c| {
                let info = c[0].ti_arm.as_mut().expect("registers");
                let regs = info.gpregs.as_mut().expect("registers");
                (regs.r7, regs.r0) = (Some(248), Some(7));
            });
        },
    },
    Derived {
        name: "logged-in",
        of: "counter",
        what: "its login user id is 1000",
        change: |i| {
            i.edit::<Core>("core-136.img", magic::CORE, |c| {
                c[0].tc.as_mut().expect("task").loginuid = Some(1000);
            });
        },
    },
    Derived {
        name: "in-a-jail",
        of: "counter",
        what: "its root directory is the one that it works in",
        change: |i| {
            i.edit::<Fs>("fs-136.img", magic::FS, |f| f[0].root_id = f[0].cwd_id);
        },
    },
    Derived {
        name: "in-a-cgroup",
        of: "counter",
        what: "it sat in the cgroup /restored of the version 2 hierarchy",
        change: |i| {
            i.edit::<Core>("core-136.img", magic::CORE, |c| {
                c[0].thread_core.as_mut().expect("thread").cg_set = Some(2);
            });
            let member = |path: &[u8]| CgMember {
                name: Some(Vec::new()),
                path: Some(path.to_vec()),
                cgns_prefix: None,
            };
            let set = |id, path: &[u8]| CgSet {
                id: Some(id),
                ctls: vec![member(path)],
            };
            let image = Cgroup {
                sets: vec![set(1, b"/"), set(2, b"/restored")],
            };
            i.write(
                "cgroup.img",
                Writer::new(magic::CGROUP).entry(&image).finish(),
            );
        },
    },
    Derived {
        name: "ipc-limits",
        of: "shm300",
        what: "other limits of the IPC namespace, some lower than its objects need; a queue that needs higher ones",
        change: |i| {
            i.edit::<IpcVar>("ipcns-var-9.img", magic::IPC_VAR, |e| {
                let e = &mut e[0];
                e.sem_ctls = vec![4, 1000, 20, 100];
                (e.msg_ctlmax, e.msg_ctlmnb) = (Some(20_000), Some(45_000));
                (e.shm_ctlmax, e.shm_ctlmni) = (Some(8192), Some(50));
                (e.mq_queues_max, e.mq_msg_default) = (Some(11), Some(7));
                (e.msg_next_id, e.shm_next_id) = (Some(70), Some(90));
            });
            i.long_message(15_000);
        },
    },
];

/// The one of this name.
///
/// # Panics
/// There is none.
pub fn named(name: &str) -> &'static Derived {
    ALL.iter().find(|d| d.name == name).expect(name)
}

impl Derived {
    /// Changes the images in `dir`, which are a copy of the sample's.
    ///
    /// # Errors
    /// The mark cannot be written.
    ///
    /// # Panics
    /// They are not what the sample holds.
    pub fn change(&self, dir: &Path) -> io::Result<()> {
        (self.change)(&Images(dir.to_owned()));
        let (of, what) = (self.of, self.what);
        fs::write(
            dir.join("DERIVED"),
            format!("Not dumped: derived from the sample {of}: {what}.\n"),
        )
    }

    /// Copies the images of the sample below `samples` into the new folder `to` and changes them there.
    ///
    /// # Errors
    /// Something cannot be read or written.
    pub fn write(&self, samples: &Path, to: &Path) -> io::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(samples.join(self.of))? {
            let path = entry?.path();
            if let Some(name) = path.file_name()
                && path.extension().is_some_and(|x| x == "img")
            {
                fs::copy(&path, to.join(name))?;
            }
        }
        self.change(to)
    }
}

/// Bytes of the samples' pattern (see their check.h).
pub fn pattern(seed: u32, len: usize) -> Vec<u8> {
    let word = |i: u32| {
        let x = seed.wrapping_mul(2_654_435_761) ^ i.wrapping_mul(40503).wrapping_add(0x9e37_79b9);
        (x ^ x >> 15).wrapping_mul(2_246_822_519)
    };
    (0..u32::MAX)
        .map(word)
        .take(len / 4)
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// Contents of segment 0 from this page on.
pub fn contents(page: usize, pages: usize) -> Vec<u8> {
    pattern(1, 6 * 4096)[page * 4096..(page + pages) * 4096].to_vec()
}

/// Ids that are nobody's elsewhere.
fn owners(desc: &mut Option<IpcDesc>) {
    let desc = desc.as_mut().expect("desc");
    (desc.uid, desc.gid) = (Some(101), Some(102));
    (desc.cuid, desc.cgid) = (Some(103), Some(104));
}

/// A folder of images that may be edited. Every edit expects what the samples hold and panics otherwise.
struct Images(PathBuf);

impl Images {
    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).expect(name)
    }

    fn write(&self, name: &str, bytes: Vec<u8>) {
        fs::write(self.0.join(name), bytes).expect(name);
    }

    fn edit<M: prost::Message + Default>(
        &self,
        name: &str,
        magic: u32,
        change: impl FnOnce(&mut Vec<M>),
    ) {
        let bytes = container::edit(name, &self.read(name), magic, change).expect(name);
        self.write(name, bytes);
    }

    fn vmas(&self, change: impl FnOnce(&mut Vec<VmaEntry>)) {
        self.edit::<Mm>("mm-136.img", magic::MM, |m| change(&mut m[0].vmas));
    }

    /// Standard input becomes terminal 7 of session 100, whose leader is not in the checkpoint.
    fn shell_job(&self) {
        self.edit::<Pstree>("pstree.img", magic::PSTREE, |all| all[0].sid = Some(100));
        self.edit::<Fdinfo>("fdinfo-2.img", magic::FDINFO, |all| {
            let fd = all.iter_mut().find(|f| f.fd == Some(0)).expect("fd 0");
            (fd.kind, fd.id) = (Some(11), Some(90));
        });
        self.edit::<FileEntry>("files.img", magic::FILES, |all| {
            let mut path = all
                .iter()
                .find(|f| f.id == Some(2))
                .expect("file 2")
                .clone();
            let reg = path.reg.as_mut().expect("a path");
            (path.id, reg.id, reg.flags) = (Some(91), Some(91), Some(2));
            (reg.name, reg.mode) = (Some(b"/dev/pts/7".to_vec()), Some(0o020_620));
            let fown = reg.fown.clone();
            all.push(path);
            all.push(FileEntry {
                kind: Some(11),
                id: Some(90),
                tty: Some(Tty {
                    id: Some(90),
                    tty_info_id: Some(7),
                    flags: Some(2),
                    fown,
                    regf_id: Some(91),
                }),
                ..FileEntry::default()
            });
        });
        // Eight bits, 9,600 baud; neither lines nor echo nor signals; VMIN 1.
        let modes = Termios {
            c_iflag: Some(0x500),
            c_oflag: Some(5),
            c_cflag: Some(0o275),
            c_lflag: Some(0),
            c_line: Some(0),
            c_ispeed: Some(0),
            c_ospeed: Some(0),
            c_cc: vec![0, 0x0001_0000, 0, 0, 0],
        };
        let terminal = TtyInfo {
            id: Some(7),
            kind: Some(1),
            locked: Some(false),
            exclusive: Some(false),
            packet_mode: Some(false),
            sid: Some(100),
            pgrp: Some(136),
            rdev: Some(0x8807),
            termios: Some(modes),
            pty: Some(Pty { index: Some(7) }),
            dev: Some(0x13),
            ..TtyInfo::default()
        };
        let image = Writer::new(magic::TTY_INFO).entry(&terminal).finish();
        self.write("tty-info.img", image);
    }

    /// Cuts `[start, start + pages)` out of the VMA that holds it: one or two VMAs are left, or none.
    fn cut(&self, start: u64, pages: u64) {
        let end = start + pages * PG;
        self.vmas(|vmas| {
            let at = vmas
                .iter()
                .position(|v| v.start.unwrap() <= start && end <= v.end.unwrap())
                .expect("a VMA");
            let old = vmas.remove(at);
            let (from, to, off) = (old.start.unwrap(), old.end.unwrap(), old.pgoff.unwrap_or(0));
            if end < to {
                vmas.insert(
                    at,
                    VmaEntry {
                        start: Some(end),
                        pgoff: Some(off + (end - from)),
                        ..old.clone()
                    },
                );
            }
            if from < start {
                vmas.insert(
                    at,
                    VmaEntry {
                        end: Some(start),
                        ..old
                    },
                );
            }
        });
    }

    /// Moves segment 0's attachment, and the borders of the reserved ranges that touch it. The program does not know
    /// and reads at its old place: its verdict is worth nothing then.
    fn shift(&self, to: fn(u64) -> u64) {
        let moved = |a: u64| {
            if (HEAD..=TAIL + 2 * PG).contains(&a) {
                to(a)
            } else {
                a
            }
        };
        self.vmas(|vmas| {
            for v in vmas.iter_mut() {
                (v.start, v.end) = (v.start.map(moved), v.end.map(moved));
            }
            vmas.sort_by_key(|v| v.start);
        });
    }

    /// Puts private anonymous memory with `bytes` at `start`, which must be free: a VMA, a run of pages, the pages.
    fn stranger(&self, start: u64, prot: u32, bytes: &[u8]) {
        let pages = bytes.len() as u64 / PG;
        self.vmas(|vmas| {
            let at = vmas.partition_point(|v| v.start.unwrap() < start);
            // As a reserved range of this program is, but for place and rights.
            let like = vmas
                .iter()
                .find(|v| v.status == Some(0x201) && v.prot == Some(0))
                .expect("a reserved range")
                .clone();
            let new = VmaEntry {
                start: Some(start),
                end: Some(start + bytes.len() as u64),
                prot: Some(prot),
                ..like
            };
            vmas.insert(at, new);
        });
        let name = "pagemap-136.img";
        let old = self.read(name);
        let mut reader = container::Reader::open(name, &old, magic::PAGEMAP).unwrap();
        let head: PagemapHead = reader.entry_or_end().unwrap().unwrap();
        let mut runs: Vec<PagemapEntry> = Vec::new();
        while let Some(run) = reader.entry_or_end().unwrap() {
            runs.push(run);
        }
        let count = |r: &PagemapEntry| {
            r.nr_pages
                .unwrap_or_else(|| u64::from(r.compat_nr_pages.unwrap()))
        };
        let at = runs.partition_point(|r| r.vaddr.unwrap() < start);
        // Runs lie in the pages file in order, but for those that are not present (zero pages).
        let before: u64 = runs[..at]
            .iter()
            .filter(|r| r.flags.is_none_or(|f| f & 4 != 0))
            .map(count)
            .sum();
        let new = PagemapEntry {
            vaddr: Some(start),
            compat_nr_pages: Some(0),
            nr_pages: Some(pages),
            flags: Some(4),
            in_parent: None,
        };
        runs.insert(at, new);
        let all = Writer::new(magic::PAGEMAP).entry(&head);
        self.write(name, runs.iter().fold(all, |w, r| w.entry(r)).finish());
        let name = format!("pages-{}.img", head.pages_id.unwrap());
        let mut file = self.read(&name);
        let at = usize::try_from(before * PG).unwrap();
        file.splice(at..at, bytes.iter().copied());
        self.write(&name, file);
    }

    fn semaphore_owners(&self) {
        let name = "ipcns-sem-9.img";
        let old = self.read(name);
        let mut reader = container::Reader::open(name, &old, magic::IPC_SEM).unwrap();
        let mut all = Writer::new(magic::IPC_SEM);
        while let Some(mut e) = reader.entry_or_end::<IpcSem>().unwrap() {
            owners(&mut e.desc);
            e.desc.as_mut().unwrap().mode = Some(0o624);
            let values = u64::from(e.nsems.unwrap()) * 2;
            let values = reader.bytes(values.next_multiple_of(8)).unwrap();
            all = all.entry(&e).raw(values);
        }
        self.write(name, all.finish());
    }

    /// One more queue, number 7, with one message.
    fn long_message(&self, len: usize) {
        let desc = IpcDesc {
            key: Some(0x700),
            uid: Some(0),
            gid: Some(0),
            cuid: Some(0),
            cgid: Some(0),
            mode: Some(0o600),
            id: Some(7),
        };
        let queue = IpcMsgQueue {
            desc: Some(desc),
            qbytes: Some(40_000),
            qnum: Some(1),
        };
        let message = IpcMsg {
            mtype: Some(5),
            msize: Some(u32::try_from(len).unwrap()),
        };
        let mut text = pattern(79, len.next_multiple_of(8));
        text[len..].fill(0);
        let new = Writer::new(magic::IPC_MSG)
            .entry(&queue)
            .entry(&message)
            .raw(&text)
            .finish();
        let mut all = self.read("ipcns-msg-9.img");
        // Without the two words of its magic.
        all.extend_from_slice(&new[8..]);
        self.write("ipcns-msg-9.img", all);
    }

    /// The first queue holds 54 bytes and may take 30.
    fn queue_owners(&self) {
        let name = "ipcns-msg-9.img";
        let old = self.read(name);
        let mut reader = container::Reader::open(name, &old, magic::IPC_MSG).unwrap();
        let mut all = Writer::new(magic::IPC_MSG);
        while let Some(mut e) = reader.entry_or_end::<IpcMsgQueue>().unwrap() {
            owners(&mut e.desc);
            let desc = e.desc.as_mut().unwrap();
            desc.mode = Some(0o460);
            if desc.id == Some(0) {
                e.qbytes = Some(30);
            }
            all = all.entry(&e);
            for _ in 0..e.qnum.unwrap() {
                let m: IpcMsg = reader.framed().unwrap();
                let text = u64::from(m.msize.unwrap()).next_multiple_of(8);
                all = all.entry(&m).raw(reader.bytes(text).unwrap());
            }
        }
        self.write(name, all.finish());
    }
}
