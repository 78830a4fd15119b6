//! Made-up checkpoints and machines, as plain values, and strategies that draw them.
#![allow(dead_code, reason = "each test program uses some of it")]

use std::collections::BTreeMap;

use armrest_images::*;
use armrest_plan::model::{emulator, machine, own};
use armrest_plan::{BlobSizes, Machine, Options};
use proptest::prelude::*;

pub const PAGE64: u64 = 4096;

/// Sizes of a blob like ours.
pub fn options() -> Options {
    Options {
        blob: BlobSizes {
            rx: 0x2000,
            rw: 0x1000,
            stack: 0x4000,
            heap: 0x8000,
            thread_stack: 0x400,
        },
        ..Options::default()
    }
}

pub fn reg(path: &str) -> File {
    File::Reg(RegFile {
        path: path.into(),
        flags: 0,
        pos: Some(0),
        owner: FileOwner::default(),
        size: Some(1 << 20),
        mode: Some(0o100_755),
        build_id: Vec::new(),
        remap: None,
        external: false,
        mnt_id: 1,
    })
}

/// A checkpoint of one thread with these VMAs (sorted here), segments and page runs.
pub fn checkpoint(
    mut vmas: Vec<Vma>,
    segments: Vec<Segment>,
    mut runs: Vec<PageRun>,
) -> Checkpoint {
    vmas.sort_by_key(|v| v.range.start());
    runs.sort_by_key(|r| r.addr);
    let sizes = (0..3).map(|f| {
        runs.iter()
            .filter(|r| r.file == f)
            .map(|r| r.offset + u64::from(r.pages) * PAGE64)
            .max()
            .unwrap_or(0)
    });
    let pages_files = sizes
        .enumerate()
        .map(|(i, size)| PagesFile {
            name: format!("pages-{i}.img"),
            size,
        })
        .collect();
    let files = (1..=4)
        .map(|i| (i, reg(&format!("/lib/file{i}.so"))))
        .chain([(5, memfd_file()), (6, reg("/"))])
        .collect();
    let memfds = BTreeMap::from([(7, memfd())]);
    let anon_shared = BTreeMap::from([(9, PageMap::default())]);
    Checkpoint {
        tasks: vec![task(vmas, runs)],
        files,
        pipes: BTreeMap::new(),
        fifos: BTreeMap::new(),
        ghosts: BTreeMap::new(),
        packets: BTreeMap::new(),
        terminals: BTreeMap::new(),
        locks: Vec::new(),
        segments,
        semaphores: Vec::new(),
        queues: Vec::new(),
        ipc_limits: None,
        memfds,
        anon_shared,
        pages_files,
        filters: Vec::new(),
        own_ipc_namespace: true,
        clocks: None,
        others: Vec::new(),
        image_bytes: 0,
    }
}

fn memfd_file() -> File {
    File::Memfd {
        inode: 7,
        flags: 2,
        pos: 0,
        owner: FileOwner::default(),
    }
}

fn memfd() -> Memfd {
    Memfd {
        name: "shared".into(),
        uid: 0,
        gid: 0,
        size: 1 << 20,
        seals: 0,
        mode: None,
        hugetlb: 0,
        pages: PageMap::default(),
    }
}

fn task(vmas: Vec<Vma>, runs: Vec<PageRun>) -> Task {
    let thread = Thread {
        tid: 136,
        regs: [0x10; 18],
        vfp: [0; 32],
        fpscr: 0,
        tls: 0x1_1000,
        clear_tid: 0x1_1008,
        robust: (0x1_2000, 12),
        sigmask: 0,
        altstack: None,
        comm: Some("counter".into()),
        nice: None,
        sched: None,
        pdeath: 0,
        pending: Vec::new(),
        rseq: None,
        rseq_cs: None,
        creds: None,
        seccomp: (0, None),
    };
    let mm = Mm {
        fields: [0x10000; 11],
        auxv: vec![6, 4096, 0, 0],
        exe: 1,
        dumpable: Some(1),
        thp_disabled: false,
        platform: None,
        aios: Vec::new(),
        vmas,
        guards: Vec::new(),
        vdso: None,
        sigpage: None,
        sigpage_users: Vec::new(),
    };
    let live = LiveTask {
        personality: Some(0x0080_0000),
        itimers: [[0; 4]; 3],
        posix_timers: Vec::new(),
        rlimits: Vec::new(),
        pending: Vec::new(),
        sigactions: Vec::new(),
        loginuid: None,
        oom_score_adj: None,
        child_subreaper: false,
        membarrier: 0,
        cgroups: None,
        thread_apart: None,
        threads: vec![thread],
        mm,
        pages: PageMap { runs },
        fds: vec![
            Fd {
                fd: 0,
                cloexec: false,
                file: 2,
            },
            Fd {
                fd: 9,
                cloexec: true,
                file: 3,
            },
        ],
        files_id: 1,
        shares: Shares::default(),
        cwd: 4,
        root: 6,
        umask: Some(0o22),
    };
    Task {
        pid: 136,
        ppid: 0,
        pgid: 136,
        sid: 136,
        state: TaskState::Alive,
        comm: "counter".into(),
        live: Some(live),
    }
}

/// The live task of a checkpoint.
/// A task with these descriptions, file ids 100 and up, at these numbers; several numbers share one.
pub fn with_fds(all: impl IntoIterator<Item = (impl AsRef<[u32]>, File)>) -> Checkpoint {
    let mut cp = checkpoint(vec![anon(0x2_0000, 4, 3)], vec![], vec![]);
    let live = cp.tasks[0].live.as_mut().unwrap();
    live.fds.clear();
    for (file, (numbers, made)) in (100..).zip(all) {
        cp.files.insert(file, made);
        let cloexec = false;
        let at = numbers.as_ref().iter();
        live.fds.extend(at.map(|fd| Fd {
            fd: *fd,
            cloexec,
            file,
        }));
    }
    live.fds.sort_by_key(|f| f.fd);
    cp
}

pub fn live(cp: &Checkpoint) -> &LiveTask {
    cp.tasks[0].live.as_ref().unwrap()
}

pub fn range(start: u32, pages: u32) -> AddrRange {
    AddrRange::new(
        u64::from(start),
        u64::from(start) + u64::from(pages) * PAGE64,
    )
    .unwrap()
}

/// A private anonymous VMA.
pub fn anon(start: u32, pages: u32, prot: u32) -> Vma {
    Vma {
        range: range(start, pages),
        kind: VmaKind::Anon,
        prot,
        shared: false,
        grows_down: false,
        locked: false,
        noreserve: false,
        hugetlb: None,
        droppable: false,
        heap: false,
        madv: 0,
        access: None,
        offset: 0,
    }
}

/// A run of pages in the first pages file.
pub fn page_run(addr: u64, pages: u32, offset: u64) -> PageRun {
    PageRun {
        addr,
        pages,
        file: 0,
        offset,
    }
}

/// A part of a SysV attachment, from page `first` of the segment.
pub fn sysv(shmid: u32, base: u32, first: u32, pages: u32, prot: u32, read_only: bool) -> Vma {
    Vma {
        kind: VmaKind::SysV { shmid },
        shared: true,
        access: Some(if read_only { 0 } else { 2 }),
        offset: u64::from(first) * PAGE64,
        ..anon(base + first * 4096, pages, prot)
    }
}

pub fn segment(id: u32, pages: u32) -> Segment {
    Segment {
        perm: IpcPerm {
            id,
            key: 0x1000 + id,
            mode: 0o600,
            ..IpcPerm::default()
        },
        dest: false,
        locked: false,
        // Segments have sizes in bytes.
        size: u64::from(pages) * PAGE64 - 100,
        hugetlb: 0,
        pages: PageMap::default(),
    }
}

/// A VMA to be placed, and which of its pages are present: `(pages to skip, pages, which pages file)`.
#[derive(Clone, Debug)]
pub struct Plain {
    pub pages: u32,
    pub prot: u32,
    pub what: Backing,
    pub noreserve: bool,
    pub locked: bool,
    pub madv: u32,
    pub present: Vec<(u32, u32, usize)>,
}

#[derive(Clone, Copy, Debug)]
pub enum Backing {
    Anon,
    Stack,
    File {
        file: u32,
        page: u32,
        shared: bool,
        access: Option<u8>,
    },
    Memfd {
        page: u32,
        shared: bool,
    },
    AnonShared {
        page: u32,
    },
}

/// A page of a segment's range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Attached, with these rights.
    Piece(u32),
    /// Unmapped.
    Hole,
    /// Someone else's memory.
    Stranger,
}

#[derive(Clone, Debug)]
pub enum Item {
    Plain(Plain),
    /// An attachment whose base is `off` pages behind a multiple of SHMLBA.
    Shm {
        off: u32,
        cells: Vec<Cell>,
        read_only: bool,
        dest: bool,
        again: bool,
        locked: bool,
    },
    /// Go on at this address.
    Jump(u32),
}

fn prot() -> impl Strategy<Value = u32> {
    prop_oneof![2 => Just(0u32), 4 => Just(1), 6 => Just(3), 3 => Just(5), 1 => Just(7)]
}

fn backing() -> impl Strategy<Value = Backing> {
    let page = || prop_oneof![0u32..64, Just(0x10_0000 - 3), 0x10_0000u32..0xffff_0000];
    prop_oneof![
        6 => Just(Backing::Anon),
        1 => Just(Backing::Stack),
        3 => (1u32..5, page(), any::<bool>(), proptest::option::of(Just(2u8)))
            .prop_map(|(file, page, shared, access)| Backing::File { file, page, shared, access }),
        1 => (page(), any::<bool>()).prop_map(|(page, shared)| Backing::Memfd { page, shared }),
        1 => (0u32..64).prop_map(|page| Backing::AnonShared { page }),
    ]
}

fn plain() -> impl Strategy<Value = Plain> {
    let present = proptest::collection::vec((0u32..4, 1u32..5, 0usize..2), 0..4);
    let madv = prop_oneof![4 => Just(0u32), 1 => Just(1 << 16), 1 => Just(1 << 10 | 1 << 12), 1 => Just(1 << 25)];
    (
        1u32..9,
        prot(),
        backing(),
        any::<bool>(),
        proptest::bool::weighted(0.1),
        madv,
        present,
    )
        .prop_map(
            |(pages, prot, what, noreserve, locked, madv, present)| Plain {
                pages,
                prot,
                what,
                noreserve,
                locked,
                madv,
                present,
            },
        )
}

fn cell() -> impl Strategy<Value = Cell> {
    prop_oneof![
        6 => Just(Cell::Piece(3)),
        2 => Just(Cell::Piece(1)),
        1 => Just(Cell::Piece(0)),
        1 => Just(Cell::Piece(5)),
        2 => Just(Cell::Hole),
        1 => Just(Cell::Stranger),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let jump = prop_oneof![
        Just(0x4000_0000u32),
        Just(0x7fff_d000),
        Just(0x8000_0000),
        Just(0xb6e0_0000),
        Just(0xb6ef_f000)
    ];
    let shm = (
        0u32..4,
        proptest::collection::vec(cell(), 1..10),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        proptest::bool::weighted(0.1),
    );
    prop_oneof![
        8 => plain().prop_map(Item::Plain),
        3 => shm.prop_map(|(off, cells, read_only, dest, again, locked)| Item::Shm { off, cells, read_only, dest, again, locked }),
        1 => jump.prop_map(Item::Jump),
    ]
}

/// Any checkpoint that our reader could hand on.
pub fn checkpoints() -> impl Strategy<Value = Checkpoint> {
    (
        proptest::collection::vec((prop_oneof![2 => Just(0u32), 1 => 1u32..40], item()), 1..40),
        any::<bool>(),
    )
        .prop_map(|(items, backwards)| place(&items, backwards))
}

struct Placing {
    vmas: Vec<Vma>,
    segments: Vec<Segment>,
    runs: Vec<PageRun>,
    at: u32,
    used: [u64; 2],
}

/// Put the items one behind the other.
pub fn place(items: &[(u32, Item)], backwards: bool) -> Checkpoint {
    let mut p = Placing {
        vmas: Vec::new(),
        segments: Vec::new(),
        runs: Vec::new(),
        at: 0x1_0000,
        used: [0; 2],
    };
    for (gap, item) in items {
        p.at += gap * 4096;
        match item {
            Item::Jump(to) => p.at = p.at.max(*to),
            Item::Plain(v) => p.plain(v),
            Item::Shm {
                off,
                cells,
                read_only,
                dest,
                again,
                locked,
            } => p.shm(*off, cells, *read_only, *dest, *again, *locked),
        }
    }
    if backwards {
        // A pages file whose order is not that of addresses, as in an incremental dump.
        let end = p.used[1];
        for r in p.runs.iter_mut().filter(|r| r.file == 1) {
            r.offset = end - r.offset - u64::from(r.pages) * PAGE64;
        }
    }
    checkpoint(p.vmas, p.segments, p.runs)
}

impl Placing {
    fn plain(&mut self, p: &Plain) {
        if matches!(p.what, Backing::Stack) {
            self.at += 300 * 4096;
        }
        let mut v = Vma {
            noreserve: p.noreserve,
            locked: p.locked,
            madv: p.madv,
            ..anon(self.at, p.pages, p.prot)
        };
        let offset = |page: u32| u64::from(page) * PAGE64;
        match p.what {
            Backing::Anon => {}
            Backing::Stack => v.grows_down = true,
            Backing::File {
                file,
                page,
                shared,
                access,
            } => {
                v = Vma {
                    kind: VmaKind::File { file },
                    shared,
                    access,
                    offset: offset(page),
                    ..v
                };
            }
            Backing::Memfd { page, shared } => {
                v = Vma {
                    kind: VmaKind::Memfd { file: 5, inode: 7 },
                    shared,
                    access: Some(2),
                    offset: offset(page),
                    ..v
                };
            }
            Backing::AnonShared { page } => {
                v = Vma {
                    kind: VmaKind::AnonShared { shmid: 9 },
                    shared: true,
                    offset: offset(page),
                    ..v
                };
            }
        }
        if !v.shared {
            self.present(&v, &p.present);
        }
        self.at = v.range.end();
        self.vmas.push(v);
    }

    fn present(&mut self, v: &Vma, runs: &[(u32, u32, usize)]) {
        let mut page = 0;
        for &(skip, len, file) in runs {
            page += skip;
            let pages = len.min(v.range.pages().saturating_sub(page));
            if pages == 0 {
                return;
            }
            let addr = u64::from(v.range.start()) + u64::from(page) * PAGE64;
            self.runs.push(PageRun {
                addr,
                pages,
                file,
                offset: self.used[file],
            });
            self.used[file] += u64::from(pages) * PAGE64;
            page += pages;
        }
    }

    fn shm(
        &mut self,
        off: u32,
        cells: &[Cell],
        read_only: bool,
        dest: bool,
        again: bool,
        locked: bool,
    ) {
        let pages = u32::try_from(cells.len()).unwrap();
        let base = self.at.next_multiple_of(0x4000) + off * 4096;
        self.at = base + pages * 4096;
        let have = self
            .segments
            .last()
            .filter(|s| again && s.size.div_ceil(PAGE64) == u64::from(pages))
            .map(|s| s.perm.id);
        let id = have.unwrap_or_else(|| {
            let id = u32::try_from(self.segments.len()).unwrap() * 3 + 2;
            self.segments.push(Segment {
                dest,
                ..segment(id, pages)
            });
            id
        });
        let mut i = 0;
        while i < cells.len() {
            let n = cells[i..].iter().take_while(|c| **c == cells[i]).count();
            let (first, len) = (u32::try_from(i).unwrap(), u32::try_from(n).unwrap());
            match cells[i] {
                Cell::Hole => {}
                Cell::Stranger => {
                    let v = anon(base + first * 4096, len, 3);
                    self.present(&v, &[(0, 1, 0)]);
                    self.vmas.push(v);
                }
                Cell::Piece(prot) => {
                    let prot = if read_only { prot & !2 } else { prot };
                    self.vmas.push(Vma {
                        locked,
                        ..sysv(id, base, first, len, prot, read_only)
                    });
                }
            }
            i += n;
        }
        if !self
            .vmas
            .iter()
            .any(|v| v.kind == VmaKind::SysV { shmid: id })
        {
            self.vmas.push(sysv(id, self.at, 0, pages, 1, read_only));
            self.at += pages * 4096;
        }
    }
}

/// Any machine that could restore them.
pub fn machines() -> impl Strategy<Value = Machine> {
    let maps = proptest::collection::vec(
        (
            prop_oneof![0x10u32..0x200, 0x7_fff0u32..0x8_0010, 0xb_6e00u32..0xb_ef00],
            1u32..40,
        ),
        0..12,
    );
    (
        maps,
        any::<bool>(),
        any::<bool>(),
        prop_oneof![Just(0xbf00_0000u32), Just(0xffff_f000)],
    )
        .prop_map(|(mut maps, enforced, emulated, task_size)| {
            maps.sort_unstable();
            let base = if emulated { emulator() } else { machine() };
            let mut m = Machine {
                shmlba_enforced: enforced,
                task_size,
                maps: Vec::new(),
                ..base
            };
            let mut at = 0;
            for (page, pages) in maps {
                let start = (page * 4096).max(at);
                at = start + pages * 4096;
                m.maps.push(own(start, at, ""));
            }
            m.maps.push(own(0xffff_0000, 0xffff_1000, "[vectors]"));
            m
        })
}
