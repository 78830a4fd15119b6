//! How the threads of a restore wait for each other: three words in the blob's data, and futexes on them.
//!
//! A thread that fails reports and ends the process, so nobody waits for ever.

use crate::raw::{Raw, futex, leave};
use armrest_blob::kernel::Stage;
use armrest_blob::{Args, thread};
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// FUTEX_WAIT.
pub const WAIT: u32 = 0;
const WAKE: u32 = 1;
const WAKE_OP: u32 = 5;
/// How long a wait at the gate is at most: a timespec of 0.3 s.
pub static A_WHILE: [u32; 2] = [0, 300_000_000];
/// FUTEX_PRIVATE_FLAG.
pub const PRIVATE: u32 = 128;
/// FUTEX_WAKE_OP: add 0; wake if the old value was 4095, which it never is.
pub const ADD_NOTHING: u32 = 0x1000_0fff;

/// Threads that have come to the end of a stage, counted on through all stages, the leader among them.
static CAME: AtomicU32 = AtomicU32::new(0);
/// Stages that all have ended.
static PASSED: AtomicU32 = AtomicU32::new(0);
/// Threads but the leader that have not left the area. Counted down by the kernel: arch/arm/exit.S.
static LEFT: AtomicU32 = AtomicU32::new(0);
/// 1 as soon as one has failed.
static FAILED: AtomicU32 = AtomicU32::new(0);

/// So many others will be started. The call that they leave by is tried once, harmlessly: its result.
pub fn expect(others: u32) -> u32 {
    LEFT.store(others, SeqCst);
    futex(&LEFT, WAKE_OP, 0)
}

/// The word that counts who has not left.
pub fn left() -> &'static AtomicU32 {
    &LEFT
}

/// How long a wait for other threads is at most, as a timespec: the more there are the longer, since a tracer has to follow
/// each that looks again.
pub fn patience() -> [u32; 2] {
    let [seconds, rest] = A_WHILE;
    [seconds + (LEFT.load(SeqCst) >> 6), rest]
}

/// Come to the end of `stage`, and wait until all have.
pub fn meet(stage: Stage) {
    let stage = stage as u32;
    // The number of others does not change before the last stage, which has no meeting.
    let all = LEFT.load(SeqCst) + 1;
    if CAME.fetch_add(1, SeqCst) + 1 == all * (stage + 1) {
        PASSED.store(stage + 1, SeqCst);
        futex(&PASSED, WAKE, u32::MAX >> 1);
    }
    while PASSED.load(SeqCst) <= stage {
        futex(&PASSED, WAIT, stage);
    }
}

/// Wait until all others have left.
pub fn wait_alone() {
    loop {
        match LEFT.load(SeqCst) {
            0 => return,
            n => futex(&LEFT, WAIT, n),
        };
    }
}

/// Returns in the first thread that fails, alone: its report is the one that is written.
pub fn first_to_fail() {
    if FAILED.swap(1, SeqCst) != 0 {
        loop {
            futex(&FAILED, WAIT, 1);
        }
    }
}

/// A new thread, on a stack of its own (arch/arm/thread.S).
#[unsafe(no_mangle)]
extern "C" fn armrest_thread_main(args: &Args<'_>, row: usize) -> ! {
    let mut k = Raw::of_thread();
    for stage in Stage::ALL {
        let Ok(()) = thread(&mut k, args, row, stage);
        if stage != Stage::Last {
            meet(stage);
        }
    }
    match args.threads.get(row) {
        Some(t) => leave(args, t),
        None => crate::raw::exit_group(),
    }
}
