//! The kernel's rules, one method a call, with the promises that belong to it.

use armrest_abi::consts as c;
use armrest_abi::{PAGE_SIZE, Range};
use armrest_blob::kernel::Res;

use super::errno::{EACCES, EBADF, EFAULT, EINVAL, ENOMEM, EOVERFLOW, EPERM};
use super::{Kind, Mapping, Model, PAGE, Written, span};
use crate::consts::SHMLBA;
use crate::machine::HugePages;
use crate::record::iovecs;

impl Model {
    pub(super) fn munmap(&mut self, start: u32, len: u32) -> Res {
        let r = span(start, len).filter(|r| {
            start.is_multiple_of(PAGE_SIZE) && !r.is_empty() && r.end <= self.task_size
        });
        let r = r.ok_or(EINVAL)?;
        self.spare_own("munmap", r);
        if let [s] = self.in_range(r)[..]
            && s < r.start
            && self.areas[&s].end > r.end
            && self.full()
        {
            return Err(ENOMEM);
        }
        self.clear(r);
        Ok(0)
    }

    pub(super) fn mmap2(&mut self, a: &[u32; 6]) -> Res {
        let [start, len, prot, flags, fd, page] = *a;
        assert!(
            flags & c::MAP_FIXED != 0,
            "mmap2 without MAP_FIXED: the kernel would choose the place"
        );
        if len == 0 || !start.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        let r = span(start, len)
            .filter(|r| r.end <= self.task_size)
            .ok_or(ENOMEM)?;
        if start < self.min_addr && !self.root {
            return Err(EPERM);
        }
        let shared = match flags & 3 {
            c::MAP_SHARED => true,
            c::MAP_PRIVATE => false,
            _ => return Err(EINVAL),
        };
        if self.areas.len() > self.max_maps {
            return Err(ENOMEM);
        }
        let mut m = Mapping::new(r.end, Kind::Anon, prot);
        if flags & c::MAP_ANONYMOUS == 0 {
            let f = *self.open.get(&fd).ok_or(EBADF)?;
            if page.checked_add(r.len() / PAGE_SIZE).is_none() {
                return Err(EOVERFLOW);
            }
            if !f.readable || (shared && prot & c::PROT_WRITE != 0 && !f.writable) {
                return Err(EACCES);
            }
            if shared
                && self.cache_aliases
                && (start ^ page.wrapping_mul(PAGE_SIZE)) & (SHMLBA - 1) != 0
            {
                return Err(EINVAL);
            }
            m.may_write = !shared || f.writable;
            m.kind = Kind::File {
                fd,
                page: u64::from(page),
            };
        } else {
            assert!(
                !shared,
                "shared anonymous memory without a source has nothing to share with: {r:x?}"
            );
        }
        if flags & c::MAP_HUGETLB != 0 {
            let bits = flags >> c::MAP_HUGE_SHIFT;
            let size = |h: &&HugePages| h.log2 == bits || bits == 0 && h.default;
            let at = self.huge_pages.iter().position(|h| size(&h));
            let h = self.huge_pages.get_mut(at.ok_or(EINVAL)?).ok_or(EINVAL)?;
            let aligned = |n: u32| n.trailing_zeros() >= h.log2;
            assert!(
                flags & c::MAP_ANONYMOUS != 0 && aligned(start) && aligned(len),
                "huge pages of {} bits at {r:x?}",
                h.log2
            );
            h.free = h.free.checked_sub(u64::from(len >> h.log2)).ok_or(ENOMEM)?;
            m.huge = Some(h.log2);
        }
        m.shared = shared;
        m.grows_down = flags & c::MAP_GROWSDOWN != 0;
        m.noreserve = flags & c::MAP_NORESERVE != 0;
        m.locked = flags & c::MAP_LOCKED != 0;
        self.spare_own("mmap2", r);
        self.check_wx("mmap2", r, prot);
        self.replace(r);
        self.insert(start, m);
        Ok(start)
    }

    pub(super) fn shmat(&mut self, id: u32, at: u32, flags: u32) -> Res {
        let id = id.cast_signed();
        assert!(
            at != 0,
            "shmat without an address: the kernel would choose the place"
        );
        assert!(
            !self.removed.contains(&id),
            "segment {id} is attached after its removal"
        );
        let size = *self.segments.get(&id).ok_or(EINVAL)?;
        let lba = if self.shmlba_enforced {
            SHMLBA
        } else {
            PAGE_SIZE
        };
        let r = span(at, size)
            .filter(|r| at.is_multiple_of(lba) && r.end <= self.task_size)
            .ok_or(EINVAL)?;
        if at < self.min_addr && !self.root {
            return Err(EPERM);
        }
        if flags & c::SHM_REMAP == 0 && !self.in_range(r).is_empty() {
            return Err(EINVAL);
        }
        if self.areas.len() > self.max_maps {
            return Err(ENOMEM);
        }
        let mut prot = c::PROT_READ;
        let may_write = flags & c::SHM_RDONLY == 0;
        if may_write {
            prot |= c::PROT_WRITE;
        }
        if flags & c::SHM_EXEC != 0 {
            prot |= c::PROT_EXEC;
            assert!(
                !may_write || self.segments_wx.contains(&id),
                "segment {id} is attached writable and executable at once"
            );
        }
        self.spare_own("shmat", r);
        self.replace(r);
        self.insert(
            at,
            Mapping {
                shared: true,
                may_write,
                ..Mapping::new(r.end, Kind::Shm { id, page: 0 }, prot)
            },
        );
        Ok(at)
    }

    pub(super) fn remove_segment(&mut self, id: u32, command: u32) -> Res {
        let id = id.cast_signed();
        if command != c::IPC_RMID | c::IPC_64 || !self.segments.contains_key(&id) {
            return Err(EINVAL);
        }
        let attached = self
            .areas
            .values()
            .any(|m| matches!(m.kind, Kind::Shm { id: i, .. } if i == id));
        assert!(
            attached,
            "segment {id} is removed while nothing holds it: its contents are gone"
        );
        assert!(self.removed.insert(id), "segment {id} is removed twice");
        Ok(0)
    }

    pub(super) fn mremap(&mut self, a: &[u32; 6]) -> Res {
        let [from, len, new_len, flags, to, _] = *a;
        assert_eq!(
            flags,
            c::MREMAP_MAYMOVE | c::MREMAP_FIXED,
            "mremap may choose the place"
        );
        assert_eq!(len, new_len, "mremap changes the size");
        if len == 0 || !from.is_multiple_of(PAGE_SIZE) || !to.is_multiple_of(PAGE_SIZE) {
            return Err(EINVAL);
        }
        let inside = |r: &Range| r.end <= self.task_size;
        let (src, dst) = (
            span(from, len).filter(inside).ok_or(EINVAL)?,
            span(to, len).filter(inside).ok_or(EINVAL)?,
        );
        if src.overlaps(dst) {
            return Err(EINVAL);
        }
        if to < self.min_addr && !self.root {
            return Err(EPERM);
        }
        if self.areas.len() + 3 >= self.max_maps {
            return Err(ENOMEM);
        }
        self.spare_own("mremap from", src);
        self.spare_own("mremap to", dst);
        self.replace(dst);
        let [start] = self.in_range(src)[..] else {
            return Err(EFAULT);
        };
        let m = self.areas[&start];
        if start > src.start || m.end < src.end {
            return Err(EFAULT);
        }
        assert!(
            !matches!(m.kind, Kind::Kernel(_)) || (start, m.end) == (src.start, src.end),
            "the kernel follows a move of {:?} only as a whole",
            m.kind
        );
        if let Kind::Shm { page, .. } | Kind::File { page, .. } = m.kind.further(src.start - start)
            && m.shared
            && self.cache_aliases
            && (u64::from(to) ^ (page * PAGE)) & u64::from(SHMLBA - 1) != 0
        {
            return Err(EINVAL);
        }
        self.split(src.start);
        self.split(src.end);
        if let Some(m) = self.areas.remove(&src.start) {
            self.insert(dst.start, Mapping { end: dst.end, ..m });
        }
        let mut pages = self.written.split_off(&src.start);
        self.written.extend(pages.split_off(&src.end));
        assert!(
            pages.is_empty() || self.kept.contains(&src),
            "{src:x?} is moved after it was filled"
        );
        self.written
            .extend(pages.into_iter().map(|(at, w)| (at - from + to, w)));
        Ok(to)
    }

    /// Change every mapping in a range that has no hole.
    pub(super) fn change(
        &mut self,
        what: &str,
        start: u32,
        len: u32,
        how: impl Fn(&mut Mapping),
    ) -> Res {
        let r = span(start, len)
            .filter(|_| start.is_multiple_of(PAGE_SIZE))
            .ok_or(EINVAL)?;
        self.spare_own(what, r);
        if !self.covered(r) {
            return Err(ENOMEM);
        }
        let inside = |at: u32| {
            self.areas
                .range(..at)
                .next_back()
                .is_some_and(|(_, m)| m.end > at)
        };
        if (inside(r.start) || inside(r.end)) && self.full() {
            return Err(ENOMEM);
        }
        self.split(r.start);
        self.split(r.end);
        for m in self.areas.range_mut(r.start..r.end) {
            how(m.1);
        }
        Ok(0)
    }

    pub(super) fn mprotect(&mut self, start: u32, len: u32, prot: u32) -> Res {
        let r = span(start, len).ok_or(ENOMEM)?;
        let read_only = |s: &u32| !self.areas[s].may_write;
        if prot & c::PROT_WRITE != 0 && self.in_range(r).iter().any(read_only) {
            return Err(EACCES);
        }
        let splits = |s: &u32| {
            let m = self.areas[s];
            let whole = |at: u32| m.huge.is_none_or(|log2| at.trailing_zeros() >= log2);
            !whole(r.start.max(*s)) || !whole(r.end.min(m.end))
        };
        if self.in_range(r).iter().any(splits) {
            return Err(EINVAL);
        }
        self.check_wx("mprotect", r, prot);
        self.change("mprotect", start, len, |m| m.prot = prot)
    }

    pub(super) fn madvise(&mut self, start: u32, len: u32, advice: u32) -> Res {
        if advice == c::MADV_GUARD_INSTALL && self.advice.contains(&advice) {
            return self.guard(start, len);
        }
        if advice >= 64 {
            return Err(EINVAL);
        }
        assert!(
            !matches!(advice, 4 | 8 | 9),
            "advice {advice} throws contents away"
        );
        self.change("madvise", start, len, |m| m.advice |= 1 << advice)
    }

    /// Guard ranges throw away what lies below them, and cannot be in locked or huge memory.
    fn guard(&mut self, start: u32, len: u32) -> Res {
        let r = span(start, len)
            .filter(|_| start.is_multiple_of(PAGE_SIZE))
            .ok_or(EINVAL)?;
        self.spare_own("madvise", r);
        if !self.covered(r) {
            return Err(ENOMEM);
        }
        let refuses = |s: &u32| self.areas[s].locked || self.areas[s].huge.is_some();
        if self.in_range(r).iter().any(refuses) {
            return Err(EINVAL);
        }
        assert!(
            self.written.range(r.start..r.end).next().is_none(),
            "contents below the guard range {r:x?}"
        );
        self.guards.extend((r.start..r.end).step_by(4096));
        Ok(0)
    }

    /// The kernel locks first and then faults the pages in: what cannot be read is locked, and yet an error.
    pub(super) fn mlock(&mut self, start: u32, len: u32) -> Res {
        self.change("mlock", start, len, |m| m.locked = true)?;
        let r = span(start, len).ok_or(EINVAL)?;
        let guarded = self.guards.range(r.start..r.end).next().is_some();
        if guarded || self.in_range(r).iter().any(|s| self.areas[s].prot == 0) {
            Err(ENOMEM)
        } else {
            Ok(0)
        }
    }

    pub(super) fn preadv(&mut self, a: &[u32; 6], data: Option<&[u8]>) -> Res {
        let iov = iovecs(data.unwrap_or_default());
        let offset = u64::from(a[3]) | u64::from(a[4]) << 32;
        let f = *self.open.get(&a[0]).ok_or(EBADF)?;
        let size = f
            .contents
            .unwrap_or_else(|| panic!("fd {} is read, but holds no page contents", a[0]));
        assert_eq!(Ok(iov.len()), usize::try_from(a[2]), "count of iovecs");
        if iov.len() > usize::try_from(armrest_abi::IOV_MAX).unwrap_or(0) {
            return Err(EINVAL);
        }
        let mut left = size
            .saturating_sub(offset)
            .min(u64::from(self.trouble.read_limit.unwrap_or(0x7fff_f000)));
        let (mut at, mut done) = (offset, 0u32);
        for v in iov {
            let want = u32::try_from(left.min(u64::from(v.len))).unwrap_or(v.len);
            let end = v.base.checked_add(want).ok_or(EFAULT)?;
            let r = Range { start: v.base, end };
            self.spare_own("preadv", r);
            let writable = |s: &u32| self.areas[s].prot & c::PROT_WRITE != 0;
            let fits = r.is_empty() || (self.covered(r) && self.in_range(r).iter().all(writable));
            if !fits {
                return if done == 0 { Err(EFAULT) } else { Ok(done) };
            }
            self.write(a[0], r, at);
            left -= u64::from(want);
            at += u64::from(want);
            done += want;
        }
        Ok(done)
    }

    pub(super) fn write(&mut self, fd: u32, r: Range, offset: u64) {
        for s in self.in_range(r) {
            let m = self.areas[&s];
            assert!(
                !m.shared,
                "contents are written through a shared mapping, into what others see: {r:x?}"
            );
            assert!(
                matches!(m.kind, Kind::Anon | Kind::File { .. }),
                "contents are written over {:?}",
                m.kind
            );
            if m.prot & c::PROT_EXEC != 0 {
                let (from, to) = (r.start.max(s), r.end.min(m.end));
                self.stale
                    .extend((from & !(PAGE_SIZE - 1)..to).step_by(4096));
            }
        }
        let (mut addr, mut offset) = (r.start, offset);
        while addr < r.end {
            let page = addr & !(PAGE_SIZE - 1);
            let n = (PAGE_SIZE - (addr - page)).min(r.end - addr);
            let first = offset
                .checked_sub(u64::from(addr - page))
                .expect("a page begins before its file");
            let w = self.written.entry(page).or_insert(Written {
                fd,
                offset: first,
                bytes: 0,
            });
            assert_eq!(
                (w.fd, w.offset),
                (fd, first),
                "page {page:x} is written from two places"
            );
            assert_eq!(
                w.bytes,
                addr - page,
                "page {page:x} is not written once, front to back"
            );
            w.bytes += n;
            addr += n;
            offset += u64::from(n);
        }
    }

    pub(super) fn prctl(&mut self, a: &[u32; 6], data: Option<&[u8]>) -> Res {
        if let Some(done) = self.timers.prctl(a) {
            return done;
        }
        if a[0] == c::PR_SET_MM {
            let old = self.areas.values().any(|m| m.kind == Kind::Old);
            assert!(
                !old,
                "PR_SET_MM_MAP while old mappings are there: the exe link is busy"
            );
            return self.set_mm(a[1], a[2], a[3], data);
        }
        Ok(0)
    }

    fn set_mm(&mut self, option: u32, value: u32, len: u32, data: Option<&[u8]>) -> Res {
        /// Which of `prctl_mm_map`'s fields an option sets, from 1 on.
        const FIELDS: [usize; 11] = [0, 1, 2, 3, 6, 4, 5, 7, 8, 9, 10];
        match (option, data) {
            (c::PR_SET_MM_MAP, Some(map)) => {
                for (field, bytes) in self.mm.fields.iter_mut().zip(map.as_chunks::<8>().0) {
                    *field = u32::try_from(u64::from_le_bytes(*bytes)).map_err(|_| EINVAL)?;
                }
                (self.mm.auxv, self.mm.exe) = (true, true);
            }
            (c::PR_SET_MM_AUXV, _) => {
                assert!(
                    value != 0 && len.is_multiple_of(8),
                    "auxv of {len} bytes at {value:x}"
                );
                self.mm.auxv = true;
            }
            (c::PR_SET_MM_EXE_FILE, _) => {
                self.open.get(&value).ok_or(EBADF)?;
                self.mm.exe = true;
            }
            (1..=11, _) => {
                let mut fields = self.mm.fields;
                let index = usize::try_from(option - 1).unwrap_or(0);
                fields[FIELDS[index]] = value;
                if !crate::mm::accepts(&fields, &self.machine) {
                    return Err(EINVAL);
                }
                self.mm.fields = fields;
            }
            _ => return Err(EINVAL),
        }
        Ok(0)
    }
}
