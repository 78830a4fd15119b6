//! Calls, errors and reports in words: for `armrest plan`, and for the one sentence of a restore that failed.

mod call;
mod errno;
mod flags;
mod report;

pub use call::{call_name, describe, describe_recorded};
pub use errno::errno;
pub use flags::{advice, prot};
pub use report::report;

use armrest_abi::Step;

/// What a step does, as in "while … ".
pub fn step(step: Step) -> &'static str {
    match step {
        Step::Start => "entering the blob",
        Step::Verify => "checking the restore arguments",
        Step::Detach => "taking back the old program's registrations",
        Step::Park => "parking what the kernel cannot recreate",
        Step::Unmap => "unmapping the old address space",
        Step::Shm => "attaching SysV shared memory",
        Step::Map => "mapping memory",
        Step::Fill => "reading memory contents",
        Step::Protect => "setting the final protections",
        Step::Unpark => "putting parked mappings in place",
        Step::Advise => "applying madvise and mlock",
        Step::Mm => "setting the kernel's mm fields",
        Step::Threads => "making threads and registering what is theirs",
        Step::Signals => "queueing pending signals",
        Step::Timers => "arming timers",
        Step::Creds => "setting credentials",
        Step::Enter => "entering the restored program",
    }
}

/// Short name of a step, as in docs and in `armrest plan`.
pub fn step_name(step: Step) -> String {
    format!("{step:?}").to_lowercase()
}

/// The first of many things in a sentence; the rest are counted.
pub fn some(things: &[String]) -> String {
    const NAMED: usize = 4;
    let named = &things[..things.len().min(NAMED)];
    match things.len() - named.len() {
        0 => named.join(", "),
        more => format!("{}, {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::some;

    #[test]
    fn many_things_are_named_in_part() {
        let things: Vec<String> = (1..=6).map(|n| n.to_string()).collect();
        assert_eq!(some(&things[..1]), "1");
        assert_eq!(some(&things[..4]), "1, 2, 3, 4");
        assert_eq!(some(&things), "1, 2, 3, 4, 2 more");
    }
}
