//! Ids of threads and processes, kept for them under an emulator.
//!
//! qemu-user has a thread of its own in every process, and starts it right after a fork: it would take the next id,
//! which is often that of the task's second thread. So a helper process holds all wanted ids with threads that do
//! nothing, until the fork is over. A thread costs one id alone, so these can be chosen.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::load::write_raw;
use crate::shared::{Words, futex};
use crate::{os, pid};

/// The helper; killed and reaped when dropped by the process that made it.
#[derive(Debug)]
pub struct Held {
    helper: libc::pid_t,
    owner: libc::pid_t,
    ids: Vec<u32>,
    /// Shared with the helper and all processes of a tree: one word an id, not 0 = let go of it; and behind them a lock.
    /// Never unmapped: the helper's threads and whoever has the turn look at them.
    words: &'static Words,
}

/// While it lives, no other process of the tree is forked.
#[derive(Debug)]
pub struct Turn(&'static AtomicU32);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl Held {
    /// Hold `tids`.
    ///
    /// # Errors
    /// One is taken, or the kernel does not let us choose.
    pub fn hold(tids: &[u32]) -> Result<Held, Error> {
        let failed = |what: &str| {
            let what = format!("ids of threads: {what}");
            move |e: io::Error| Error::Machine {
                what,
                why: e.to_string(),
            }
        };
        let file = pid::last_pid_file()?;
        let words = Words::new(tids.len() + 1).map_err(failed("memory"))?;
        let words: &'static Words = Box::leak(Box::new(words));
        let (read, write) = os::pipe().map_err(failed("pipe"))?;
        // The helper and its hidden thread lie behind all that is wanted.
        let above = tids.iter().max().copied().unwrap_or(0).saturating_add(8);
        let choose = |tid: u32| file.write_all_at(tid.to_string().as_bytes(), 0);
        choose(above).map_err(failed(pid::LAST_PID))?;
        // SAFETY: cannot fail.
        let owner = unsafe { libc::getpid() };
        // SAFETY: this process has a single thread, so the child may go on with everything.
        let helper = match os::check(unsafe { libc::fork() }).map_err(failed("fork"))? {
            0 => {
                drop(read);
                let stopped = be_helper(tids, words, owner, &choose);
                write_raw(&write, &stopped.unwrap_or(0).to_le_bytes());
                loop {
                    // SAFETY: waits for the signal that ends this process.
                    unsafe { libc::pause() };
                }
            }
            helper => Held {
                helper,
                owner,
                ids: tids.to_vec(),
                words,
            },
        };
        drop(write);
        let mut said = [0; 4];
        io::Read::read_exact(&mut std::fs::File::from(read), &mut said)
            .map_err(failed("the helper that holds them"))?;
        match u32::from_le_bytes(said) {
            0 => Ok(helper),
            tid => Err(Error::PidTaken {
                pid: tid,
                by: os::comm(tid),
            }),
        }
    }

    /// Let go of one id, to fork the process that wants it. Nobody else forks until the turn is over.
    ///
    /// # Errors
    /// It does not become free.
    pub fn free(&self, id: u32) -> Result<Turn, Error> {
        let lock = self.words.get(self.ids.len());
        while lock
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            std::thread::sleep(Duration::from_micros(200));
        }
        let turn = Turn(lock);
        let Some(at) = self.ids.iter().position(|i| *i == id) else {
            return Ok(turn);
        };
        let word = self.words.get(at);
        word.store(1, Ordering::Release);
        futex(word, libc::FUTEX_WAKE, 1, None);
        let there = format!("/proc/{}/task/{id}", self.helper);
        let start = Instant::now();
        while std::fs::exists(&there).unwrap_or(false) {
            if start.elapsed() > Duration::from_secs(5) {
                return Err(Error::Machine {
                    what: format!("id {id}"),
                    why: "the helper that holds it does not let go".into(),
                });
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(turn)
    }

    /// Let go of them, once the emulator has started its own thread in `child`.
    pub fn release(self, child: libc::pid_t) {
        self.settled(child);
    }

    /// Wait until the emulator has started its own thread in `child`.
    pub fn settled(&self, child: libc::pid_t) {
        let start = Instant::now();
        let tasks = || std::fs::read_dir(format!("/proc/{child}/task")).map_or(0, Iterator::count);
        // An emulator that starts none costs a second.
        while tasks() < 2 && start.elapsed() < Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: in the process that made it, it is our own child, not reaped yet.
        unsafe {
            if libc::getpid() == self.owner {
                libc::kill(self.helper, libc::SIGKILL);
                libc::waitpid(self.helper, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// One thread with each id; the first that could not be had.
fn be_helper(
    tids: &[u32],
    words: &'static Words,
    owner: libc::pid_t,
    choose: &dyn Fn(u32) -> io::Result<()>,
) -> Option<u32> {
    // SAFETY: numbers only. The helper ends with the harness, or at once if that is gone already.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != owner {
            libc::_exit(0);
        }
    }
    let held = tids.iter().copied().zip(0..).find(|(tid, index)| {
        let word = words.get(*index);
        let (say, hear) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        let made = choose(tid - 1).and_then(|()| {
            thread.spawn(move || {
                // SAFETY: cannot fail.
                let tid = unsafe { libc::syscall(libc::SYS_gettid) };
                let _ = say.send(tid);
                while word.load(Ordering::Acquire) == 0 {
                    futex(word, libc::FUTEX_WAIT, 0, None);
                }
            })
        });
        made.is_err() || hear.recv().ok().and_then(|got| u32::try_from(got).ok()) != Some(*tid)
    });
    held.map(|(tid, _)| tid)
}
