//! Ids of threads, kept for them under an emulator.
//!
//! qemu-user has a thread of its own in every process, and starts it right after a fork: it would take the next id,
//! which is often that of the task's second thread. So a helper process holds all wanted ids with threads that do
//! nothing, until the fork is over. A thread costs one id alone, so these can be chosen.

use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::load::write_raw;
use crate::{os, pid};

/// The helper; killed and reaped when dropped.
#[derive(Debug)]
pub struct Held(libc::pid_t);

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
        let (read, write) = os::pipe().map_err(failed("pipe"))?;
        // The helper and its hidden thread lie behind all that is wanted.
        let above = tids.iter().max().copied().unwrap_or(0).saturating_add(8);
        let choose = |tid: u32| file.write_all_at(tid.to_string().as_bytes(), 0);
        choose(above).map_err(failed(pid::LAST_PID))?;
        // SAFETY: this process has a single thread, so the child may go on with everything.
        let helper = match os::check(unsafe { libc::fork() }).map_err(failed("fork"))? {
            0 => {
                drop(read);
                let stopped = be_helper(tids, &choose);
                write_raw(&write, &stopped.unwrap_or(0).to_le_bytes());
                loop {
                    // SAFETY: waits for the signal that ends this process.
                    unsafe { libc::pause() };
                }
            }
            helper => Held(helper),
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

    /// Let go of them, once the emulator has started its own thread in `child`.
    pub fn release(self, child: libc::pid_t) {
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
        // SAFETY: our own child, not reaped yet.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// One thread with each id; the first that could not be had.
fn be_helper(tids: &[u32], choose: &dyn Fn(u32) -> io::Result<()>) -> Option<u32> {
    // SAFETY: numbers only. The helper ends with the harness.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    tids.iter().copied().find(|tid| {
        let (say, hear) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        let made = choose(tid - 1).and_then(|()| {
            thread.spawn(move || {
                // SAFETY: cannot fail.
                let tid = unsafe { libc::syscall(libc::SYS_gettid) };
                let _ = say.send(tid);
                loop {
                    std::thread::park();
                }
            })
        });
        made.is_err() || hear.recv().ok().and_then(|got| u32::try_from(got).ok()) != Some(*tid)
    })
}
