//! Bits and numbers of arguments by name.

use armrest_abi::consts as c;

/// Bits by name, the rest in hex; `none` if there is no bit.
pub(super) fn flags(value: u32, names: &[(u32, &str)], none: &str) -> String {
    let mut rest = value;
    let mut out: Vec<String> = Vec::new();
    for (bits, name) in names.iter().filter(|(bits, _)| value & bits == *bits) {
        rest &= !bits;
        out.push((*name).to_owned());
    }
    if rest != 0 {
        out.push(format!("{rest:#x}"));
    }
    if out.is_empty() {
        none.to_owned()
    } else {
        out.join("|")
    }
}

/// `PROT_READ|PROT_WRITE`.
pub fn prot(value: u32) -> String {
    flags(
        value,
        &[
            (c::PROT_READ, "PROT_READ"),
            (c::PROT_WRITE, "PROT_WRITE"),
            (c::PROT_EXEC, "PROT_EXEC"),
        ],
        "PROT_NONE",
    )
}

pub(super) fn map_flags(value: u32) -> String {
    let names = [
        (c::MAP_SHARED, "MAP_SHARED"),
        (c::MAP_PRIVATE, "MAP_PRIVATE"),
        (c::MAP_FIXED, "MAP_FIXED"),
        (c::MAP_ANONYMOUS, "MAP_ANONYMOUS"),
        (c::MAP_GROWSDOWN, "MAP_GROWSDOWN"),
        (c::MAP_LOCKED, "MAP_LOCKED"),
        (c::MAP_NORESERVE, "MAP_NORESERVE"),
        (c::MAP_HUGETLB, "MAP_HUGETLB"),
    ];
    flags(value, &names, "0")
}

pub(super) fn shm_flags(value: u32) -> String {
    flags(
        value,
        &[
            (c::SHM_RDONLY, "SHM_RDONLY"),
            (c::SHM_REMAP, "SHM_REMAP"),
            (c::SHM_EXEC, "SHM_EXEC"),
        ],
        "0",
    )
}

pub(super) fn clone_flags(value: u32) -> String {
    let names = [
        (0x100, "CLONE_VM"),
        (0x200, "CLONE_FS"),
        (0x400, "CLONE_FILES"),
        (0x800, "CLONE_SIGHAND"),
        (0x1_0000, "CLONE_THREAD"),
        (0x4_0000, "CLONE_SYSVSEM"),
    ];
    flags(value, &names, "0")
}

/// Name of a `madvise` advice.
pub fn advice(value: u32) -> String {
    let name = match value {
        0 => "MADV_NORMAL",
        1 => "MADV_RANDOM",
        2 => "MADV_SEQUENTIAL",
        3 => "MADV_WILLNEED",
        4 => "MADV_DONTNEED",
        8 => "MADV_FREE",
        9 => "MADV_REMOVE",
        c::MADV_DONTFORK => "MADV_DONTFORK",
        11 => "MADV_DOFORK",
        c::MADV_MERGEABLE => "MADV_MERGEABLE",
        13 => "MADV_UNMERGEABLE",
        c::MADV_HUGEPAGE => "MADV_HUGEPAGE",
        c::MADV_NOHUGEPAGE => "MADV_NOHUGEPAGE",
        c::MADV_DONTDUMP => "MADV_DONTDUMP",
        17 => "MADV_DODUMP",
        c::MADV_WIPEONFORK => "MADV_WIPEONFORK",
        19 => "MADV_KEEPONFORK",
        20 => "MADV_COLD",
        21 => "MADV_PAGEOUT",
        c::MADV_GUARD_INSTALL => "MADV_GUARD_INSTALL",
        _ => return format!("advice {value}"),
    };
    name.to_owned()
}

pub(super) fn clock(id: u32) -> String {
    let names = [
        "CLOCK_REALTIME",
        "CLOCK_MONOTONIC",
        "CLOCK_PROCESS_CPUTIME_ID",
        "CLOCK_THREAD_CPUTIME_ID",
    ];
    let more = [
        (7, "CLOCK_BOOTTIME"),
        (8, "CLOCK_REALTIME_ALARM"),
        (9, "CLOCK_BOOTTIME_ALARM"),
        (11, "CLOCK_TAI"),
    ];
    let named = (0..).zip(names).chain(more).find(|n| n.0 == id);
    named.map_or_else(|| format!("clock {id:#x}"), |n| n.1.into())
}
