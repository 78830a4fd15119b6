//! Contents of pages: `/proc/PID/mem` and `pagemap`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use armrest_abi::FRAME_SIZE;
use armrest_images::{Checkpoint, LiveTask, PAGE, PageMap, PageRun, Vma, VmaKind};
use armrest_plan::threads::exit_frames;
use armrest_plan::{consts, vdso, vma_name};

use super::maps::line;
use super::{Finding, Weight, found};
use crate::error::Error;
use crate::objects::memory::PagesFiles;

/// Bytes that must differ, and why.
fn masks(live: &LiveTask) -> Vec<(u64, u64, &'static str)> {
    let mut out = Vec::new();
    for (t, frame) in live.threads.iter().zip(exit_frames(live)) {
        if let Some(frame) = frame.map(u64::from) {
            let why = "a signal frame below the stack pointer or on a free alternate stack";
            out.push((frame, frame + u64::from(FRAME_SIZE), why));
        }
        if let Some((addr, ..)) = t.rseq.filter(|r| r.0 != 0) {
            let addr = u64::from(addr);
            out.push((addr, addr + 8, "cpu words of rseq"));
            out.push((addr + 20, addr + 28, "cpu words of rseq"));
        }
    }
    out
}

/// The memory of a task.
pub trait Memory {
    /// Fill `to` from this address.
    ///
    /// # Errors
    /// Nothing can be read there.
    fn read(&self, at: u64, to: &mut [u8]) -> io::Result<()>;
    /// The word of `/proc/PID/pagemap` of the page with this address.
    ///
    /// # Errors
    /// It cannot be read.
    fn pagemap(&self, at: u64, to: &mut [u64]) -> io::Result<()>;
}

/// The memory of a process, through `/proc`.
pub struct Proc {
    /// `/proc/PID/mem`.
    pub mem: File,
    /// `/proc/PID/pagemap`.
    pub pagemap: File,
}

impl Memory for Proc {
    fn read(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
        self.mem.read_exact_at(to, at)
    }
    fn pagemap(&self, at: u64, to: &mut [u64]) -> io::Result<()> {
        let mut bytes = vec![0; to.len() * 8];
        self.pagemap
            .read_exact_at(&mut bytes, at / u64::from(PAGE) * 8)?;
        for (word, b) in to.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        }
        Ok(())
    }
}

/// Pages of a VMA that differ.
#[derive(Default)]
struct Pages {
    unequal: Vec<String>,
    masked: BTreeMap<&'static str, u64>,
}

impl Pages {
    /// Compare one page.
    fn page(&mut self, at: u64, images: &[u8], task: &[u8], masks: &[(u64, u64, &'static str)]) {
        if images == task {
            return;
        }
        let (mut count, mut first) = (0u32, None);
        for ((a, b), addr) in images.iter().zip(task).zip(at..) {
            if a == b {
                continue;
            }
            match masks.iter().find(|m| m.0 <= addr && addr < m.1) {
                Some(m) => *self.masked.entry(m.2).or_default() += 1,
                None => {
                    count += 1;
                    first = first.or(Some(addr));
                }
            }
        }
        if let Some(first) = first {
            self.unequal.push(format!(
                "{at:08x} ({count} bytes, the first at {first:08x})"
            ));
        }
    }

    fn finish(self, what: String, weight: Weight, out: &mut Vec<Finding>) {
        for (why, bytes) in self.masked {
            out.push(found(
                Weight::Masked,
                what.clone(),
                format!("{why}: {bytes} differ"),
            ));
        }
        if !self.unequal.is_empty() {
            let n = self.unequal.len();
            let why = format!("{n} pages differ: {}", self.unequal.join(", "));
            out.push(found(weight, what, why));
        }
    }
}

/// What the kernel's own pages are in the task.
#[derive(Clone, Debug, Default)]
pub struct KernelNow {
    /// Where its sigpage lies.
    pub sigpage: Option<u64>,
    /// Where its vdso lies, and the bytes.
    pub vdso: Option<(u64, Vec<u8>)>,
}

impl KernelNow {
    /// Look at a task's maps and memory.
    pub fn of(maps: &str, memory: &dyn Memory) -> KernelNow {
        let named = |name: &str| maps.lines().filter_map(line).find(|l| l.name == name);
        let vdso = named("[vdso]").and_then(|l| {
            let mut bytes = vec![0; usize::try_from(l.end - l.start).ok()?];
            memory.read(l.start, &mut bytes).ok()?;
            Some((l.start, bytes))
        });
        KernelNow {
            sigpage: named("[sigpage]").map(|l| l.start),
            vdso,
        }
    }

    /// What the images' vdso may have become, and the words for it.
    fn patched(&self, live: &LiveTask, v: &Vma) -> Option<(Vec<u8>, &'static str)> {
        let images = live
            .mm
            .vdso
            .as_deref()
            .filter(|_| v.kind == VmaKind::Vdso)?;
        match &self.vdso {
            Some((at, bytes)) if *at == u64::from(v.range.start()) => vdso::alike(images, bytes)
                .then(|| {
                    (
                        bytes.clone(),
                        "this kernel's vdso, with the same functions at the same places",
                    )
                }),
            Some((at, bytes)) => {
                let at = u32::try_from(*at).ok()?;
                let patched = vdso::patched(images, Some((bytes, at)))?;
                Some((
                    patched.bytes,
                    "a patched vdso: its functions jump to this kernel's own",
                ))
            }
            None => {
                let patched = vdso::patched(images, None)?;
                Some((
                    patched.bytes,
                    "a patched vdso: its functions make system calls",
                ))
            }
        }
    }
}

/// Compare the contents of every present page; the findings, and how many pages were compared.
///
/// # Errors
/// The pages files cannot be read.
pub fn contents(
    cp: &Checkpoint,
    live: &LiveTask,
    files: &PagesFiles,
    memory: &dyn Memory,
    ran: bool,
    kernel: &KernelNow,
) -> Result<(Vec<Finding>, u64), Error> {
    let mut out = Vec::new();
    let mut compared = 0;
    let masks = masks(live);
    for v in &live.mm.vmas {
        let what = format!("contents of {}", vma_name(cp, v));
        let (start, end) = (u64::from(v.range.start()), u64::from(v.range.end()));
        let writable = v.prot & consts::PROT_WRITE != 0 || v.shared;
        let weight = if ran && writable {
            Weight::Ran
        } else {
            Weight::Differs
        };
        let empty = PageMap::default();
        // Where the object's byte 0 would lie, and its pages.
        let (pages, base) = match v.kind {
            VmaKind::Memfd { inode, .. } if v.shared => (
                cp.memfds.get(&inode).map_or(&empty, |m| &m.pages),
                i128::from(start) - i128::from(v.offset),
            ),
            VmaKind::AnonShared { shmid } => (
                cp.anon_shared.get(&shmid).unwrap_or(&empty),
                i128::from(start) - i128::from(v.offset),
            ),
            VmaKind::SysV { shmid } => (
                cp.segments
                    .iter()
                    .find(|s| s.perm.id == shmid)
                    .map_or(&empty, |s| &s.pages),
                i128::from(start) - i128::from(v.offset),
            ),
            VmaKind::Vectors | VmaKind::Vvar => continue,
            _ => (&live.pages, 0),
        };
        // What the images say of each page of the VMA, in turn.
        let mut mine = PageMap::default();
        for run in &pages.runs {
            mine.runs.extend(cut(run, base, start, end));
        }
        let patched = kernel.patched(live, v);
        let own_sigpage = v.kind == VmaKind::Sigpage && kernel.sigpage == Some(start);
        let mut pages = Pages::default();
        let why = patched.as_ref().map(|p| p.1);
        let (mut unread, mut masked_page) = (Vec::new(), None);
        let page = usize::try_from(PAGE).unwrap_or(4096);
        files.each(&mine, |at, bytes| {
            let mut now = vec![0; bytes.len()];
            if let Err(e) = memory.read(at, &mut now) {
                unread.push(format!("{at:08x}: {e}"));
                return Ok(());
            }
            for (i, (image, task)) in bytes.chunks(page).zip(now.chunks(page)).enumerate() {
                compared += 1;
                let addr = at + (i * page) as u64;
                let in_vma = usize::try_from(addr - start).unwrap_or(usize::MAX);
                let stub = patched
                    .as_ref()
                    .and_then(|(p, _)| p.get(in_vma..in_vma.checked_add(page)?));
                if let (true, Some(why)) = (image != task && stub == Some(task), why) {
                    masked_page = Some(why);
                } else if image != task && own_sigpage {
                    masked_page = Some("another kernel's sigpage");
                } else {
                    pages.page(addr, image, task, &masks);
                }
            }
            Ok(())
        })?;
        for u in unread {
            out.push(found(
                Weight::Differs,
                what.clone(),
                format!("cannot be read: {u}"),
            ));
        }
        if let Some(why) = masked_page {
            out.push(found(Weight::Masked, what.clone(), why));
        }
        if matches!(v.kind, VmaKind::Anon | VmaKind::File { .. }) && !v.shared {
            compared += unrecorded(v, &mine, memory, &mut pages, &masks);
        }
        pages.finish(what, weight, &mut out);
    }
    Ok((out, compared))
}

/// The part of a run, moved by `base`, that lies in `start..end`.
fn cut(run: &PageRun, base: i128, start: u64, end: u64) -> Option<PageRun> {
    let size = i128::from(PAGE);
    let low = i128::from(run.addr) + base;
    let high = low + i128::from(run.pages) * size;
    let (from, to) = (low.max(start.into()), high.min(end.into()));
    (from < to).then_some(())?;
    Some(PageRun {
        addr: u64::try_from(from).ok()?,
        pages: u32::try_from((to - from) / size).ok()?,
        file: run.file,
        offset: run.offset + u64::try_from(from - low).ok()?,
    })
}

/// Private pages that the task has and the images do not: zeros are as good as absent. How many were looked at.
fn unrecorded(
    v: &Vma,
    mine: &PageMap,
    memory: &dyn Memory,
    pages: &mut Pages,
    masks: &[(u64, u64, &'static str)],
) -> u64 {
    /// Bits of pagemap (Documentation/admin-guide/mm/pagemap.rst).
    const PRESENT_OR_SWAPPED: u64 = 3 << 62;
    const FILE_OR_SHARED: u64 = 1 << 61;
    let size = u64::from(PAGE);
    let mut words = vec![0u64; 512];
    let mut looked = 0;
    let mut at = u64::from(v.range.start());
    let end = u64::from(v.range.end());
    while at < end {
        let n = usize::try_from((end - at) / size).unwrap_or(512).min(512);
        if memory.pagemap(at, &mut words[..n]).is_err() {
            // A mapping that is not there has been reported by its missing line.
            return looked;
        }
        for word in &words[..n] {
            let next = mine
                .runs
                .partition_point(|r| r.addr + u64::from(r.pages) * size <= at);
            let recorded = mine.runs.get(next).is_some_and(|r| r.addr <= at);
            if word & PRESENT_OR_SWAPPED != 0 && word & FILE_OR_SHARED == 0 && !recorded {
                let (zeros, mut now) = ([0; 4096], [0; 4096]);
                if memory.read(at, &mut now).is_ok() {
                    looked += 1;
                    if v.kind == VmaKind::Anon {
                        pages.page(at, &zeros, &now, masks);
                    } else {
                        pages.unequal.push(format!(
                            "{at:08x} (a copy of the task's own, not in the images)"
                        ));
                    }
                }
            }
            at += size;
        }
    }
    looked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::{images, live, load, weights};

    /// Memory as the images say, but for some bytes.
    struct Fake<'a> {
        cp: &'a Checkpoint,
        dir: std::path::PathBuf,
        poked: BTreeMap<u64, u8>,
    }

    impl Memory for Fake<'_> {
        fn read(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
            to.fill(0);
            let end = at + to.len() as u64;
            for r in &live(self.cp).pages.runs {
                if let Some(c) = cut(r, 0, at, end) {
                    let from = usize::try_from(c.addr - at).expect("small");
                    let len = c.pages as usize * 4096;
                    let name = &self.cp.pages_files[c.file].name;
                    File::open(self.dir.join(name))?
                        .read_exact_at(&mut to[from..from + len], c.offset)?;
                }
            }
            for (addr, byte) in self.poked.range(at..end) {
                to[usize::try_from(addr - at).expect("small")] ^= byte;
            }
            Ok(())
        }
        fn pagemap(&self, _: u64, to: &mut [u64]) -> io::Result<()> {
            to.fill(1 << 63);
            Ok(())
        }
    }

    #[test]
    fn every_changed_byte_is_found_but_for_the_masked_ones() {
        let mut cp = load("counter");
        // Text that was never written is the file's: this machine's pagemap says so.
        for v in &mut cp.tasks[0].live.as_mut().expect("alive").mm.vmas {
            if matches!(v.kind, VmaKind::File { .. }) {
                v.shared = true;
            }
        }
        let files = PagesFiles::open(&images("counter"), &cp).expect("pages");
        let l = live(&cp);
        let look = |at: &[u64], ran| {
            let fake = Fake {
                cp: &cp,
                dir: images("counter"),
                poked: at.iter().map(|a| (*a, 1)).collect(),
            };
            let (f, n) = contents(&cp, l, &files, &fake, ran, &KernelNow::default()).expect("read");
            assert!(n > 100, "{n} pages");
            f
        };
        assert_eq!(look(&[], false), []);
        let sp = u64::from(l.threads[0].regs[13]);
        let vdso =
            l.mm.vmas
                .iter()
                .find(|v| v.kind == VmaKind::Vdso)
                .expect("there");
        let vdso = u64::from(vdso.range.start()) + 100;
        assert_eq!(weights(&look(&[sp - 8], false)), [Weight::Masked]);
        assert_eq!(weights(&look(&[sp - 888], false)), [Weight::Masked]);
        assert_eq!(weights(&look(&[sp - 900], false)), [Weight::Differs]);
        assert_eq!(weights(&look(&[sp], false)), [Weight::Differs]);
        assert_eq!(weights(&look(&[sp], true)), [Weight::Ran]);
        // A read-only page does not change by running; a page that was never touched is zero.
        assert_eq!(weights(&look(&[vdso], true)), [Weight::Differs]);
        assert_eq!(
            weights(&look(&[0xb6f6_a000 - 4096], false)),
            [Weight::Differs]
        );
        let (rseq, ..) = l.threads[0].rseq.expect("registered");
        let rseq = u64::from(rseq);
        assert_eq!(
            weights(&look(&[rseq, rseq + 7, rseq + 20], false)),
            [Weight::Masked]
        );
        assert_eq!(weights(&look(&[rseq + 8], false)), [Weight::Differs]);
    }

    #[test]
    fn runs_are_cut_at_both_ends_of_a_mapping() {
        let run = PageRun {
            addr: 0x1000,
            pages: 4,
            file: 0,
            offset: 0x8000,
        };
        assert_eq!(
            cut(&run, 0x10000, 0x12000, 0x13000),
            Some(PageRun {
                addr: 0x12000,
                pages: 1,
                file: 0,
                offset: 0x9000
            })
        );
        assert_eq!(
            cut(&run, -0x3000, 0x1000, 0x9000).map(|r| (r.addr, r.pages, r.offset)),
            Some((0x1000, 1, 0xb000))
        );
        assert_eq!(cut(&run, 0, 0x5000, 0x9000), None);
    }
}
