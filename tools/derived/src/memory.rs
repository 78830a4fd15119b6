//! Derived from `memory` and `dyn`: what memory can be that the samples' is not. An incremental dump, locks and advice, a
//! stack that touches its neighbour, the vdso of another kernel.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use armrest_images::container::{self, Writer};
use armrest_images::magic;
use armrest_images::proto::{Mm, PagemapEntry, PagemapHead, VmaEntry};

use crate::{Images, PG};

/// Pages lie in the parent's images by this flag, here by that.
const PARENT: u32 = 1;
const PRESENT: u32 = 4;
/// Folders of a chain of three dumps, the youngest last: what a `parent` link of the next leads to.
const OLDEST: &str = "dump-1";
const OLDER: &str = "dump-2";

/// The saved pages of a page map: one entry a page, with its bytes.
fn pages(images: &Images, name: &str) -> (PagemapHead, BTreeMap<u64, Vec<u8>>) {
    let old = images.read(name);
    let mut reader = container::Reader::open(name, &old, magic::PAGEMAP).expect(name);
    let head: PagemapHead = reader.entry_or_end().expect(name).expect("a head");
    let file = images.read(&format!("pages-{}.img", head.pages_id.expect("an id")));
    let mut left = file.chunks_exact(4096);
    let mut out = BTreeMap::new();
    while let Some(run) = reader.entry_or_end::<PagemapEntry>().expect(name) {
        for i in 0..run.nr_pages.expect("a count") {
            let page = left.next().expect("a page");
            out.insert(run.vaddr.expect("an address") + i * PG, page.to_vec());
        }
    }
    (head, out)
}

/// Write a page map and its pages: runs of neighbours that are all here or all in the parent.
fn write(images: &Images, name: &str, head: &PagemapHead, pages: &[(u64, Option<&[u8]>)]) {
    let mut runs: Vec<PagemapEntry> = Vec::new();
    let mut bytes = Vec::new();
    for (at, here) in pages {
        let flags = if here.is_some() { PRESENT } else { PARENT };
        match runs.last_mut() {
            Some(r)
                if r.flags == Some(flags)
                    && r.vaddr.unwrap_or(0) + r.nr_pages.unwrap_or(0) * PG == *at =>
            {
                r.nr_pages = r.nr_pages.map(|n| n + 1);
            }
            _ => runs.push(PagemapEntry {
                vaddr: Some(*at),
                compat_nr_pages: Some(0),
                nr_pages: Some(1),
                flags: Some(flags),
                in_parent: None,
            }),
        }
        bytes.extend_from_slice(here.unwrap_or(&[]));
    }
    let all = Writer::new(magic::PAGEMAP).entry(head);
    images.write(name, runs.iter().fold(all, |w, r| w.entry(r)).finish());
    let file = format!("pages-{}.img", head.pages_id.expect("an id"));
    images.write(&file, bytes);
}

/// Split into a chain of three dumps: of five pages in a row two lie in the youngest, two in the older one, one in the
/// oldest. What a younger dump has is also in the older ones, as it was then: other bytes.
pub(crate) fn split(images: &Images) {
    let (older, oldest) = (images.0.join(OLDER), images.0.join(OLDEST));
    for dir in [&older, &oldest] {
        fs::create_dir(dir).expect("a new folder");
    }
    symlink(OLDER, images.0.join("parent")).expect("a link");
    symlink(format!("../{OLDEST}"), older.join("parent")).expect("a link");
    let (older, oldest) = (Images(older), Images(oldest));
    let names = fs::read_dir(&images.0).expect("the images");
    let names = names.map(|e| {
        e.expect("an entry")
            .file_name()
            .into_string()
            .expect("text")
    });
    for name in names.filter(|n| n.starts_with("pagemap-")) {
        let (head, all) = pages(images, &name);
        let stale = vec![0xee; 4096];
        // Which dump has the page: 0 the youngest.
        let home = |n: usize| [0, 0, 1, 1, 2][n % 5];
        let level = |level: usize| -> Vec<(u64, Option<&[u8]>)> {
            all.iter()
                .enumerate()
                .map(|(n, (at, bytes))| match home(n).cmp(&level) {
                    std::cmp::Ordering::Equal => (*at, Some(bytes.as_slice())),
                    std::cmp::Ordering::Greater => (*at, None),
                    std::cmp::Ordering::Less => (*at, Some(stale.as_slice())),
                })
                .collect()
        };
        write(images, &name, &head, &level(0));
        write(&older, &name, &head, &level(1));
        write(&oldest, &name, &head, &level(2));
    }
}

fn vmas(images: &Images, change: impl FnOnce(&mut Vec<VmaEntry>)) {
    images.edit::<Mm>("mm-201.img", magic::MM, |m| change(&mut m[0].vmas));
}

/// Locks of memory with contents, without rights, and shared; advice of each kind that Debian's kernel knows; a mapping
/// that the stack has grown down to.
pub(crate) fn advise(images: &Images) {
    const LOCKED: u32 = 0x2000;
    let bits = |all: &[u32]| Some(all.iter().fold(0u64, |b, n| b | 1 << n));
    vmas(images, |vmas| {
        let mut at = |start: u64, lock: bool, advice: &[u32]| {
            let found = vmas.iter_mut().find(|v| v.start == Some(start));
            let v = found.expect("a VMA");
            if lock {
                v.flags = v.flags.map(|f| f | LOCKED);
            }
            if !advice.is_empty() {
                v.madv = bits(advice);
            }
        };
        at(0x2000_0000, true, &[10, 16]);
        at(0xb6eb_f000, true, &[]);
        at(0xb6ec_7000, true, &[10]);
        at(0xb6eb_3000, false, &[2]);
        at(0xb6eb_7000, false, &[1]);
        at(0x008c_e000, false, &[16, 18]);
        let stack = vmas
            .iter()
            .position(|v| v.start == Some(0xbefb_7000))
            .expect("the stack");
        let neighbour = VmaEntry {
            start: Some(0xbefb_7000 - 3 * PG),
            end: Some(0xbefb_7000),
            flags: Some(0x22),
            ..vmas[stack].clone()
        };
        vmas.insert(stack, neighbour);
    });
}

/// A function of the dumped vdso has another name, as if another kernel had made it: in the page's string table.
pub(crate) fn rename_vdso_function(images: &Images) {
    let mut bytes = images.read("pages-1.img");
    let (from, to) = (b"__vdso_clock_getres\0", b"__vdso_clock_getrez\0");
    let mut places = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, w)| w == from)
        .map(|(i, _)| i);
    let at = places.next().expect("the name");
    assert!(places.next().is_none(), "only once");
    bytes[at..at + to.len()].copy_from_slice(to);
    images.write("pages-1.img", bytes);
}
