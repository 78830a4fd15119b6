//! Rules about the flat file and its header.

use crate::elf::Elf;
use crate::finding::Finding;
use armrest_abi::{
    ABI_VERSION, BLOB_MAGIC, BlobHeader, EXIT_CODE_LIMIT, FRAME_OFFSET, FRAME_SIZE, PAGE_SIZE,
    RestoreArgs,
};

/// A run of zero bytes at least this long counts as padding when `rx_used` is doubted.
const PADDING_RUN: usize = 64;

/// The header of a flat file.
pub fn read_header(bin: &[u8]) -> Result<BlobHeader, Finding> {
    let header = BlobHeader::from_bytes(bin).ok_or_else(|| Finding::NoHeader {
        why: format!("{} bytes only", bin.len()),
    })?;
    if header.magic != BLOB_MAGIC {
        return Err(Finding::NoHeader {
            why: format!("starts with {:#010x}, not {BLOB_MAGIC:#010x}", header.magic),
        });
    }
    Ok(header)
}

/// Holds every field against the ABI, the file and the budget.
pub fn judge_header(
    header: &BlobHeader,
    bin: &[u8],
    budget: u32,
    elf: &Elf<'_>,
    findings: &mut Vec<Finding>,
) {
    let size_of_header = small(size_of::<BlobHeader>());
    let mut field = |name, found, good: bool, wanted: String| {
        if !good {
            findings.push(Finding::Header {
                field: name,
                found,
                wanted,
            });
        }
    };
    let exact = |n: u32| format!("should be {n}");
    let h = header;
    field(
        "version",
        h.version,
        h.version == ABI_VERSION,
        exact(ABI_VERSION),
    );
    field(
        "header_size",
        h.header_size,
        h.header_size == size_of_header,
        exact(size_of_header),
    );
    let args = small(size_of::<RestoreArgs>());
    field("args_size", h.args_size, h.args_size == args, exact(args));
    let pages = h.rx_size > 0 && h.rx_size.is_multiple_of(PAGE_SIZE);
    field(
        "rx_size",
        h.rx_size,
        pages,
        "should be whole pages, one at least".into(),
    );
    field(
        "rw_size",
        h.rw_size,
        h.rw_size == PAGE_SIZE,
        "should be exactly one page".into(),
    );
    let in_use = in_use(bin.get(..large(h.rx_size)).unwrap_or(bin));
    let honest = h.rx_used <= h.rx_size && h.rx_used >= in_use;
    field(
        "rx_used",
        h.rx_used,
        honest,
        format!("should lie between the {in_use} bytes in use and rx_size"),
    );
    let is_code =
        |offset: u32| offset >= size_of_header && offset < h.rx_size && offset.is_multiple_of(4);
    let code = "should be a multiple of 4 in the read-execute part after the header";
    field(
        "entry_offset",
        h.entry_offset,
        is_code(h.entry_offset),
        code.into(),
    );
    let thread = h.thread_entry_offset;
    field(
        "thread_entry_offset",
        thread,
        thread == 0 || is_code(thread),
        format!("{code}, or 0"),
    );
    let exit = is_code(h.exit_offset) && h.exit_offset < EXIT_CODE_LIMIT;
    field(
        "exit_offset",
        h.exit_offset,
        exit,
        format!("should be a multiple of 4 after the header, below {EXIT_CODE_LIMIT}"),
    );
    field(
        "frame_offset",
        h.frame_offset,
        h.frame_offset == FRAME_OFFSET,
        exact(FRAME_OFFSET),
    );
    let stack = h.stack_size > 0 && h.stack_size.is_multiple_of(PAGE_SIZE);
    field(
        "stack_size",
        h.stack_size,
        stack,
        "should be whole pages, one at least".into(),
    );
    let heap = h.heap_size > 0 && h.heap_size.is_multiple_of(PAGE_SIZE);
    field(
        "heap_size",
        h.heap_size,
        heap,
        "should be whole pages, one at least".into(),
    );
    for word in h.reserved {
        field("reserved", word, word == 0, exact(0));
    }
    let wanted = u64::from(h.rx_size) + u64::from(h.rw_size);
    let found = u64::try_from(bin.len()).unwrap_or(u64::MAX);
    if found != wanted {
        findings.push(Finding::FileSize { found, wanted });
    }
    if h.rx_used > budget {
        findings.push(Finding::OverBudget {
            used: h.rx_used,
            budget,
            largest: largest(elf),
        });
    }
}

/// Whether the loader may write the signal frame into page 0. `base` is the address of byte 0 in `elf`.
pub fn judge_frame_room(bin: &[u8], base: u32, elf: &Elf<'_>, findings: &mut Vec<Finding>) {
    let room = bin
        .iter()
        .zip(0u32..)
        .skip(large(FRAME_OFFSET))
        .take(large(FRAME_SIZE));
    if let Some((_, offset)) = room.into_iter().find(|(byte, _)| **byte != 0) {
        findings.push(Finding::FrameRoom {
            offset,
            place: elf.place(base.wrapping_add(offset)),
        });
    }
}

/// Bytes that do not belong to a long run of zeroes.
fn in_use(bytes: &[u8]) -> u32 {
    let mut used = 0;
    let mut zeroes = 0;
    for byte in bytes {
        if *byte == 0 {
            zeroes += 1;
            continue;
        }
        used += if zeroes < PADDING_RUN { zeroes + 1 } else { 1 };
        zeroes = 0;
    }
    small(used)
}

/// The five largest symbols, to know where to cut.
fn largest(elf: &Elf<'_>) -> String {
    let mut symbols: Vec<_> = elf.symbols.iter().filter(|s| s.size > 0).collect();
    symbols.sort_by_key(|s| (core::cmp::Reverse(s.size), s.value));
    symbols.dedup_by_key(|s| s.value);
    let words: Vec<String> = symbols
        .iter()
        .take(5)
        .map(|s| format!("{} {}", s.name, s.size))
        .collect();
    words.join(", ")
}

/// A size that is known to be small.
fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// An offset as an index.
fn large(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
