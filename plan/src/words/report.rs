//! A report of the blob as one sentence.

use armrest_abi::consts as c;
use armrest_abi::{Report, ReportKind, Step};
use armrest_blob::Check;
use armrest_blob::kernel::nr;
use armrest_images::Checkpoint;

use super::{describe, errno, step};
use crate::types::{Plan, SourceKind};

/// What a report means: where, of what, which call, which error, and what to try. `plan` is one of `cp`.
pub fn report(r: &Report, plan: &Plan, cp: &Checkpoint) -> String {
    if r.magic != Report::MAGIC || r.version != armrest_abi::ABI_VERSION {
        return format!(
            "the blob wrote a report of another version ({:#x}, {}): harness and blob do not belong together",
            r.magic, r.version
        );
    }
    let Some(step_known) = Step::from_number(r.step) else {
        return format!("the blob wrote a report with the unknown step {}", r.step);
    };
    let thread = if r.tid == 0 {
        String::new()
    } else {
        format!(", thread {}", r.tid)
    };
    let place = object(r, step_known, plan, cp).map_or(String::new(), |o| format!(": {o}"));
    let call = describe_in_plan(r, step_known, plan);
    let (what, hint) = match ReportKind::from_number(r.kind) {
        Some(ReportKind::Errno) => {
            let e = r.result.unsigned_abs();
            (
                format!("{call} failed with {}", errno(e)),
                hint(r.syscall, &errno(e)),
            )
        }
        Some(ReportKind::WrongAddress) => (
            format!(
                "{call} returned {:#x}, another address than asked for",
                r.result.cast_unsigned()
            ),
            "the kernel does not honour fixed addresses: run `armrest check`",
        ),
        Some(ReportKind::Truncated) => (
            format!(
                "{call} returned 0 with {} bytes to go: {} ends early",
                r.result.cast_unsigned(),
                pages_file(r, plan)
            ),
            "the file became shorter since the restore began: copy the checkpoint again",
        ),
        Some(ReportKind::WrongResult) => (
            format!("{call} returned {}", r.result),
            "the kernel did not do what it was asked for",
        ),
        Some(ReportKind::BadArgs) => (
            match Check::from_number(r.result.cast_unsigned()) {
                Some(check) => format!(
                    "the restore arguments contradict themselves ({})",
                    check_words(check)
                ),
                None => format!(
                    "the restore arguments contradict themselves (check {})",
                    r.result
                ),
            },
            "a defect of armrest or of the tool that loaded the blob: please report it",
        ),
        Some(ReportKind::OutOfHeap) => (
            format!(
                "the blob's heap is used up (asked for {} bytes)",
                r.result.cast_unsigned()
            ),
            "a defect of armrest: please report it",
        ),
        Some(ReportKind::Panic) => (
            format!("the blob panicked at line {}", r.result),
            "a defect of armrest: please report it",
        ),
        Some(ReportKind::WrongTid) => (
            format!(
                "the kernel gave a new thread the id {}, not {}",
                r.result,
                wanted_tid(r, plan)
            ),
            "another process was faster: end it, or use --new-namespaces or --any-pid",
        ),
        None => (
            format!("the blob wrote a report of the unknown kind {}", r.kind),
            "harness and blob do not belong together",
        ),
    };
    format!("while {}{thread}{place}: {what}; {hint}", step(step_known))
}

/// The thing that a report is about.
fn object(r: &Report, step: Step, plan: &Plan, cp: &Checkpoint) -> Option<String> {
    let row = usize::try_from(r.row).ok()?;
    if r.object != Report::NO_OBJECT {
        let at = usize::try_from(r.object).ok()?;
        let live = cp.tasks.get(plan.task).and_then(|t| t.live.as_ref());
        let vma = live.and_then(|l| l.mm.vmas.get(at));
        return Some(vma.map_or_else(
            || format!("object {}", r.object),
            |v| crate::vma_name(cp, v),
        ));
    }
    match step {
        Step::Unmap => plan
            .tables
            .unmaps
            .get(row)
            .map(|u| format!("{:08x}-{:08x} of the old address space", u.start, u.end)),
        Step::Fill => Some(format!(
            "batch {} of {} of {}",
            row + 1,
            plan.tables.batches.len(),
            pages_file(r, plan)
        )),
        Step::Timers => match row.checked_sub(plan.tables.timers.len()) {
            None => Some(format!("interval timer {row}")),
            Some(nth) => plan
                .tables
                .posix_timers
                .get(nth)
                .map(|t| format!("POSIX timer {}", t.id)),
        },
        Step::Threads if row > 0 && r.tid == 0 => {
            Some(format!("making thread {}", wanted_tid(r, plan)))
        }
        Step::Signals => Some(format!("pending signal {row}")),
        _ => None,
    }
}

/// The id of the thread that was to be made.
fn wanted_tid(r: &Report, plan: &Plan) -> u32 {
    let row = usize::try_from(r.row).ok();
    row.and_then(|row| plan.tables.threads.get(row))
        .map_or(0, |t| t.tid)
}

/// The source of the batch that a report of the fill step is about.
fn pages_file(r: &Report, plan: &Plan) -> String {
    let batch = usize::try_from(r.row)
        .ok()
        .and_then(|row| plan.tables.batches.get(row));
    let source = batch.and_then(|b| {
        plan.sources
            .iter()
            .find(|s| i32::try_from(s.fd) == Ok(b.fd))
    });
    match source.map(|s| &s.what) {
        Some(SourceKind::Pages(i)) => format!("pages file {i} (by index)"),
        Some(SourceKind::Overlay(_)) => "the patched vdso".into(),
        _ => "the pages file".into(),
    }
}

/// The call of a report; what it read is known from the plan's own tables.
fn describe_in_plan(r: &Report, step: Step, plan: &Plan) -> String {
    let batch = usize::try_from(r.row)
        .ok()
        .and_then(|row| plan.tables.batches.get(row));
    if let (Step::Fill, nr::PREADV, Some(b)) = (step, r.syscall, batch)
        && b.count == r.args[2]
        && let (Ok(first), Ok(count)) = (usize::try_from(b.first), usize::try_from(b.count))
        && let Some(rows) = plan.tables.iovecs.get(first..).and_then(|v| v.get(..count))
    {
        return describe(r.syscall, &r.args, Some(armrest_abi::bytes_of_slice(rows)));
    }
    if let Some(data) = timer_data(r, step, plan) {
        return describe(r.syscall, &r.args, Some(data));
    }
    let thread = usize::try_from(r.row)
        .ok()
        .and_then(|row| plan.tables.threads.get(row));
    if let (Step::Threads, nr::CLONE3, Some(t)) = (step, r.syscall, thread) {
        return describe(r.syscall, &r.args, Some(armrest_abi::bytes_of(&t.clone)));
    }
    if (step, r.syscall) == (Step::Detach, nr::SIGALTSTACK) {
        // This step only takes one away.
        let none = [0, c::SS_DISABLE, 0];
        return describe(r.syscall, &r.args, Some(armrest_abi::bytes_of_slice(&none)));
    }
    describe(r.syscall, &r.args, None)
}

/// What the call of a report about a timer was given in memory.
fn timer_data<'p>(r: &Report, step: Step, plan: &'p Plan) -> Option<&'p [u8]> {
    let row = usize::try_from(r.row)
        .ok()
        .filter(|_| step == Step::Timers)?;
    let (plain, posix) = (&plan.tables.timers, &plan.tables.posix_timers);
    let nth = row.checked_sub(plain.len());
    match r.syscall {
        nr::SETITIMER => plain
            .get(row)
            .map(|t| armrest_abi::bytes_of_slice(&t.value)),
        // Numbers in between are used up by timers without an event.
        nr::TIMER_CREATE if r.args[1] == 0 => None,
        nr::TIMER_CREATE => posix
            .get(nth?)
            .map(|t| armrest_abi::bytes_of_slice(&t.event)),
        nr::TIMER_SETTIME | nr::TIMER_SETTIME64 => posix
            .get(nth?)
            .map(|t| armrest_abi::bytes_of_slice(&t.value)),
        _ => None,
    }
}

fn check_words(check: Check) -> &'static str {
    match check {
        Check::Version => "magic, version or size are those of another blob",
        Check::Area => "the bootstrap area makes no sense",
        Check::AreaParts => "heap or progress page lie outside the bootstrap area",
        Check::Table => "a table lies outside the bootstrap area",
        Check::Threads => "no thread, or its stack or queue is not there",
        Check::Frame => "a signal frame lies neither in the kept page nor goes out of the area",
        Check::RowShape => "a row is not page-aligned, is empty or wraps",
        Check::RowHitsArea => "a row would hit the bootstrap area",
        Check::RowIndex => "a row points to rows that are not there",
        Check::BatchLength => "the runs of a batch do not add up",
        Check::PageOffset => "a file offset does not fit mmap2",
        Check::CredCall => "a row of credentials asks for another kind of call",
    }
}

/// What to try, by call and error.
fn hint(n: u32, errno: &str) -> &'static str {
    match (n, errno) {
        (_, "ENOSYS") => "this kernel lacks the call: run `armrest check`",
        (nr::MMAP2 | nr::MREMAP | nr::MPROTECT | nr::MUNMAP, "ENOMEM") => {
            "out of memory or of mappings: look at vm.max_map_count, vm.overcommit_memory, RLIMIT_AS and the memory cgroup"
        }
        (nr::SHMAT, "ENOMEM") => {
            "no room for the attachment: look at RLIMIT_AS and the memory cgroup"
        }
        (nr::MMAP2, "EACCES") => {
            "the file's mode or mount options (noexec, read-only) do not allow this mapping"
        }
        (nr::MMAP2, "EPERM") => "below vm.mmap_min_addr, or the file system is mounted noexec",
        (nr::MMAP2, "ENODEV") => "the file system of this file cannot be mapped",
        (nr::MPROTECT, "EACCES") => {
            "the attachment or file behind it is read-only, or a security module forbids it"
        }
        (nr::SHMAT | nr::SHMCTL, "EINVAL" | "EIDRM") => {
            "the segment is gone or the address is not free: is another restore using the same ids?"
        }
        (nr::SHMAT | nr::SHMCTL, "EACCES" | "EPERM") => {
            "the segment belongs to someone else: run as its owner, or as root"
        }
        (nr::MREMAP, "EINVAL") => {
            "the kernel refuses the move: on a CPU with an aliasing cache attachments must keep their colour"
        }
        (nr::MREMAP, "EFAULT") => {
            "the mapping to move is not what the plan expected: please report it"
        }
        (nr::CLONE | nr::CLONE3, "EAGAIN") => {
            "no more processes: look at RLIMIT_NPROC (ulimit -u), kernel.threads-max and the pids cgroup"
        }
        (nr::CLONE | nr::CLONE3, "EEXIST") => {
            "its id is in use: end who has it, or use --new-namespaces or --any-pid"
        }
        (nr::RT_SIGQUEUEINFO | nr::RT_TGSIGQUEUEINFO | nr::TIMER_CREATE, "EAGAIN") => {
            "too many signals wait: look at RLIMIT_SIGPENDING (ulimit -i)"
        }
        (nr::PREADV, "EIO") => "the medium of the checkpoint is damaged",
        (nr::PREADV, "EFAULT") => "the target memory is not writable: please report it",
        (nr::MLOCK, "ENOMEM" | "EPERM" | "EAGAIN") => {
            "raise RLIMIT_MEMLOCK (ulimit -l), or restore as root"
        }
        (nr::PRCTL, "EPERM" | "EACCES") => {
            "needs CAP_SYS_RESOURCE or CAP_CHECKPOINT_RESTORE: restore as root"
        }
        (nr::PRCTL, "EBUSY") => "the old executable is still mapped: please report it",
        (_, "EPERM" | "EACCES") => "not permitted here: restore as root, or see `armrest check`",
        (_, "ENOMEM" | "EAGAIN") => "the system is short of memory",
        _ => "run again with -vv and report it with `armrest plan`",
    }
}
