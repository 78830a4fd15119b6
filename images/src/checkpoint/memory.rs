//! Address spaces: ranges, VMAs, and where their pages are.

/// Bytes of a page.
pub const PAGE: u32 = 4096;

/// A page-aligned range of target addresses; `start < end`, made only by [`AddrRange::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddrRange {
    start: u32,
    end: u32,
}

impl AddrRange {
    /// A range if both ends are page-aligned, `start < end` and `end` fits (the last page of 4 GiB is not expressible).
    pub fn new(start: u64, end: u64) -> Option<AddrRange> {
        let (s, e) = (u32::try_from(start).ok()?, u32::try_from(end).ok()?);
        (s < e && s.is_multiple_of(PAGE) && e.is_multiple_of(PAGE))
            .then_some(AddrRange { start: s, end: e })
    }
    /// First byte.
    pub const fn start(self) -> u32 {
        self.start
    }
    /// One past the last byte.
    pub const fn end(self) -> u32 {
        self.end
    }
    /// Bytes, more than 0.
    pub const fn size(self) -> u32 {
        self.end - self.start
    }
    /// Pages, more than 0.
    pub const fn pages(self) -> u32 {
        self.size() / PAGE
    }
    /// True if the ranges share a byte.
    pub const fn overlaps(self, other: AddrRange) -> bool {
        self.start < other.end && other.start < self.end
    }
    /// True if `addr` lies in the range.
    pub const fn has(self, addr: u32) -> bool {
        self.start <= addr && addr < self.end
    }
}

/// A pages file of the checkpoint or of a parent checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagesFile {
    /// Path relative to the images directory, e.g. `pages-1.img` or `parent/pages-1.img`.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// Pages that are there: ascending, apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageMap {
    /// The runs.
    pub runs: Vec<PageRun>,
}

/// A run of pages with contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRun {
    /// Target address (or byte offset in the shared object), page-aligned.
    pub addr: u64,
    /// Pages, more than 0.
    pub pages: u32,
    /// Index in [`Checkpoint::pages_files`](super::Checkpoint::pages_files).
    pub file: usize,
    /// Byte offset in that file.
    pub offset: u64,
}

/// The address space of a task.
#[derive(Clone, Debug)]
pub struct Mm {
    /// start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end
    /// (the order of `prctl_mm_map`).
    pub fields: [u32; 11],
    /// auxv words.
    pub auxv: Vec<u32>,
    /// File id of the executable.
    pub exe: u32,
    /// Dumpable: 0, 1, 2.
    pub dumpable: Option<u32>,
    /// THP disabled by prctl.
    pub thp_disabled: bool,
    /// AIO contexts: ring address.
    pub aios: Vec<u64>,
    /// Sorted, apart.
    pub vmas: Vec<Vma>,
    /// Guard ranges (pseudo entries).
    pub guards: Vec<AddrRange>,
    /// The string that AT_PLATFORM of the auxiliary vector points to, if its page was dumped.
    pub platform: Option<String>,
    /// Contents of the vdso VMA as dumped, if there is one with all its pages.
    pub vdso: Option<Vec<u8>>,
    /// Contents of the page recognised as sigpage.
    pub sigpage: Option<Vec<u8>>,
    /// Threads with a register or a frame on their stacks that points into that page: they are inside a handler which
    /// returns through it, or in the page itself.
    pub sigpage_users: Vec<u32>,
}

/// What a VMA maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmaKind {
    /// Private anonymous memory, heap and stack included.
    Anon,
    /// The kernel's signal trampoline page of the dumped process.
    Sigpage,
    /// The kernel's vdso.
    Vdso,
    /// Its data page(s).
    Vvar,
    /// `[vectors]`: every process has it.
    Vectors,
    /// A file, private or shared ([`Vma::shared`]).
    File {
        /// File id.
        file: u32,
    },
    /// A memfd or anonymous shared object recorded as memfd, private or shared.
    Memfd {
        /// File id of the MEMFD entry.
        file: u32,
        /// Inode id in [`Checkpoint::memfds`](super::Checkpoint::memfds).
        inode: u32,
    },
    /// Anonymous shared memory recorded by inode number.
    AnonShared {
        /// Key in [`Checkpoint::anon_shared`](super::Checkpoint::anon_shared).
        shmid: u64,
    },
    /// Part of a SysV attachment.
    SysV {
        /// Segment id.
        shmid: u32,
    },
    /// The ring of a packet socket.
    Socket,
    /// The ring of an AIO context.
    AioRing,
    /// Device memory of a CRIU plugin.
    Plugin,
}

/// One VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vma {
    /// Where.
    pub range: AddrRange,
    /// What.
    pub kind: VmaKind,
    /// `PROT_*` at the dump.
    pub prot: u32,
    /// MAP_SHARED.
    pub shared: bool,
    /// MAP_GROWSDOWN.
    pub grows_down: bool,
    /// Locked in memory.
    pub locked: bool,
    /// MAP_NORESERVE.
    pub noreserve: bool,
    /// MAP_HUGETLB with log2 of the page size (0 = default size).
    pub hugetlb: Option<u8>,
    /// MAP_DROPPABLE.
    pub droppable: bool,
    /// Marked as heap.
    pub heap: bool,
    /// madvise bits: bit number = advice.
    pub madv: u32,
    /// Access mode of the file behind it: 0 RDONLY, 1 WRONLY, 2 RDWR.
    pub access: Option<u8>,
    /// Byte offset in the file or segment.
    pub offset: u64,
}

/// A memory object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memfd {
    /// Name; `/dev/zero` = anonymous shared memory.
    pub name: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Seals.
    pub seals: u32,
    /// st_mode.
    pub mode: Option<u32>,
    /// hugetlb flags, 0 = none.
    pub hugetlb: u32,
    /// Contents.
    pub pages: PageMap,
}
