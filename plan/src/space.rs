//! Finding room: the address space as a set of taken ranges.

use armrest_abi::{PAGE_SIZE, Range};

/// Ranges that must not be used, and the bounds inside which room is looked for.
#[derive(Clone, Debug)]
pub struct Space {
    low: u32,
    high: u32,
    taken: Vec<Range>,
}

impl Space {
    /// An empty space between `low` and `high`.
    pub fn new(low: u32, high: u32) -> Space {
        Space {
            low,
            high,
            taken: Vec::new(),
        }
    }

    /// Mark a range as taken.
    pub fn take(&mut self, range: Range) {
        match self.taken.last_mut() {
            _ if range.is_empty() => {}
            // Neighbours are one: there may be tens of thousands.
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.taken.push(range),
        }
    }

    /// True if no byte of `range` is taken and it lies within the bounds.
    pub fn is_free(&self, range: Range) -> bool {
        range.start >= self.low
            && range.end <= self.high
            && !self.taken.iter().any(|t| t.overlaps(range))
    }

    /// The highest free range of `len` bytes whose start is a multiple of `align` (a power of two, at least a page).
    pub fn find(&self, len: u32, align: u32) -> Option<Range> {
        let align = align.max(PAGE_SIZE);
        let mut taken = self.taken.clone();
        // By their ends: ranges may overlap, and what ends highest bounds the gap above it.
        taken.sort_unstable_by_key(|t| t.end);
        let mut gap_end = self.high;
        for t in taken.iter().rev().chain([&Range {
            start: 0,
            end: self.low,
        }]) {
            if t.end < gap_end
                && let Some(start) = gap_end.checked_sub(len).map(|s| s & !(align - 1))
                && start >= t.end
                && start >= self.low
            {
                return Some(Range {
                    start,
                    end: start + len,
                });
            }
            gap_end = gap_end.min(t.start);
        }
        None
    }
}

/// The parts of `within` that none of `cover` (any order) covers, ascending.
pub fn uncovered(within: Range, cover: &[Range]) -> Vec<Range> {
    let mut sorted: Vec<Range> = cover
        .iter()
        .copied()
        .filter(|r| r.overlaps(within))
        .collect();
    sorted.sort_unstable();
    let mut gaps = Vec::new();
    let mut at = within.start;
    for r in sorted {
        if r.start > at {
            gaps.push(Range {
                start: at,
                end: r.start,
            });
        }
        at = at.max(r.end);
    }
    if at < within.end {
        gaps.push(Range {
            start: at,
            end: within.end,
        });
    }
    gaps
}

/// `len` rounded up to whole pages; `None` if that does not fit.
pub fn page_up(len: u64) -> Option<u32> {
    u32::try_from(len.checked_add(u64::from(PAGE_SIZE) - 1)? & !(u64::from(PAGE_SIZE) - 1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn r(start: u32, end: u32) -> Range {
        Range { start, end }
    }

    #[test]
    fn the_highest_gap_is_found_and_alignment_kept() {
        let mut s = Space::new(0x10000, 0xbf00_0000);
        s.take(r(0xbe00_0000, 0xbf00_0000));
        s.take(r(0xb000_1000, 0xbdff_f000));
        assert_eq!(s.find(0x1000, 0x1000), Some(r(0xbdff_f000, 0xbe00_0000)));
        assert_eq!(s.find(0x2000, 0x4000), Some(r(0xafff_c000, 0xafff_e000)));
        assert!(!s.is_free(r(0xb000_0000, 0xb000_2000)));
    }

    #[test]
    fn overlapping_ranges_hide_no_gap_and_make_none() {
        let mut s = Space::new(0x1_0000, 0xbf00_0000);
        s.take(r(0x1000_0000, 0xbe00_0000));
        s.take(r(0x4080_0000, 0x4080_1000));
        s.take(r(0xbe80_0000, 0xbf00_0000));
        let found = s.find(16 << 20, 0x1000).unwrap();
        assert!(s.is_free(found), "{found:x?}");
        assert_eq!(found, r(0x0f00_0000, 0x1000_0000));
        assert_eq!(s.find(8 << 20, 0x1000), Some(r(0xbe00_0000, 0xbe80_0000)));
    }

    #[test]
    fn a_full_space_has_no_room() {
        let mut s = Space::new(0x1000, 0x4000);
        s.take(r(0x2000, 0x3000));
        assert_eq!(s.find(0x2000, 0x1000), None);
        assert_eq!(s.find(0x1000, 0x1000), Some(r(0x3000, 0x4000)));
    }

    #[test]
    fn gaps_are_what_is_left() {
        assert_eq!(
            uncovered(r(0, 10), &[r(4, 6), r(2, 5), r(9, 20)]),
            vec![r(0, 2), r(6, 9)]
        );
        assert_eq!(uncovered(r(0, 10), &[]), vec![r(0, 10)]);
        assert_eq!(uncovered(r(0, 10), &[r(0, 10)]), vec![]);
    }
}
