//! Proof that a task runs its own code, and that nothing of ours is left in it.

use std::time::{Duration, Instant};

use armrest_abi::Report;
use armrest_plan::{Exit, Plan};

use super::{Child, Deadline, ENTER_TIME, Ended, Forward};
use crate::blob::BLOB;
use crate::error::Error;
use crate::os;

/// Bytes of the blob by which it is known.
const CODE: usize = 64;
/// What its last calls take at least: sooner there is nothing to see.
pub const LAST_CALLS: Duration = Duration::from_micros(25);

/// Signals that no mask has: the kernel never blocks SIGKILL and SIGSTOP; an emulator leaves SIGBUS, SIGSEGV, and what its
/// libc keeps for itself (32, 33) unblocked on the host.
const fn unseen(emulated: bool) -> u64 {
    const NEVER: u64 = 1 << 8 | 1 << 18;
    const EMULATOR: u64 = 1 << 6 | 1 << 10 | 1 << 31 | 1 << 32;
    if emulated { NEVER | EMULATOR } else { NEVER }
}

/// Does this mask block all signals that can be, here or under an emulator?
pub fn all_blocked(mask: u64) -> bool {
    mask | unseen(true) == u64::MAX
}

/// Wait until all `threads` (id and mask, the leader first) run their own code. All signals are blocked until
/// `rt_sigreturn`, so the checkpoint's mask is the proof; if that mask is all signals itself, living on is all that can be
/// seen. A thread that is gone has run: until then only the end of the whole process takes it away.
pub fn until_running(
    child: &mut Child,
    threads: &[(u32, u64)],
    deadline: Deadline,
    forward: &Forward,
    emulated: bool,
) -> Result<(), Error> {
    // A signal that the kernel forces upon the task (a frame that it refuses, a fault) is unblocked before it kills.
    const FORCED: [u64; 6] = [1 << 3, 1 << 4, 1 << 6, 1 << 7, 1 << 10, 1 << 30];
    let unseen = unseen(emulated);
    let forced = |m: u64| FORCED.contains(&!(m | unseen));
    let all = |m: u64| m | unseen == u64::MAX;
    let start = Instant::now();
    let mut left: Vec<(u32, u64)> = threads.to_vec();
    let mut pause = LAST_CALLS;
    loop {
        let pid = child.pid;
        left.retain(|(tid, mask)| {
            // Who was forced to take a signal is dead in a moment; who lives on has such a mask of its own.
            let lived = Duration::from_millis(if all(*mask) { 100 } else { 1000 });
            match os::blocked_signals(pid, *tid) {
                None => false,
                Some(m) if !all(m) && !forced(m) => false,
                Some(m) => !((forced(m) || all(*mask)) && start.elapsed() > lived),
            }
        });
        if let Some(end) = child.ended() {
            // It may have run and ended of its own accord already.
            return match end {
                Ended::Exit(s) if s != Report::EXIT_CODE.cast_signed() => Ok(()),
                end => Err(Error::Lost {
                    what: format!("the task, pid {pid}, right after it was entered"),
                    why: end.words(),
                }),
            };
        }
        if left.is_empty() {
            return Ok(());
        }
        forward.interrupted()?;
        deadline.check(|| "first instruction of the task".into())?;
        if start.elapsed() > ENTER_TIME {
            return Err(Error::Lost {
                what: format!("thread {}", left[0].0),
                why: "it did not leave the restorer (its signal mask never changed)".into(),
            });
        }
        std::thread::sleep(pause);
        pause = Duration::from_micros(500).min(2 * pause);
    }
}

/// Is the code of the blob gone from the task's maps, but for the page that is kept? The task runs already and may have
/// mapped memory of its own there, which is never ours: executable and right behind the kept page.
///
/// # Errors
/// It is still there. Under an emulator the maps of another process are the emulator's own, so nothing can be said.
pub fn area_gone(child: &mut Child, plan: &Plan, emulated: bool) -> Result<(), Error> {
    if emulated {
        return Ok(());
    }
    let keep = plan.area.keep;
    // The maps of a task with many mappings are long: its memory tells as well, if we may read it.
    let rest = BLOB.get(4096..).unwrap_or(&[]);
    let kept = (!matches!(plan.exit, Exit::Page(_))).then_some((keep.start, BLOB));
    let there = |(at, code): (u32, &[u8])| match os::same_bytes(
        child.pid,
        at,
        code.get(..CODE).unwrap_or(code),
    ) {
        Err(e) => !matches!(e.raw_os_error(), Some(libc::EFAULT | libc::ESRCH)),
        Ok(same) => same,
    };
    if !kept.into_iter().chain([(keep.end, rest)]).any(there) {
        return Ok(());
    }
    let Ok(text) = std::fs::read_to_string(format!("/proc/{}/maps", child.pid)) else {
        return Ok(());
    };
    let rest = format!("{:08x}-", keep.end);
    let whole = format!("{:08x}-{:08x} r-xp", keep.start, plan.area.rx.end);
    let kept = format!("{:08x}-{:08x} r-xp", keep.start, keep.end);
    let ours = |l: &&str| {
        l.starts_with(&whole)
            || !matches!(plan.exit, Exit::Page(_)) && l.starts_with(&kept)
            || l.starts_with(&rest) && l.contains(" r-xp 00000000 00:00 0")
    };
    match text.lines().find(ours).filter(|_| child.ended().is_none()) {
        None => Ok(()),
        Some(line) => Err(Error::Lost {
            what: format!("bootstrap area of pid {}", child.pid),
            why: format!("still in the maps of the task: {line}"),
        }),
    }
}
