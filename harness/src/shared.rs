//! Words of memory that several processes share, and the call to wait for one of them to change.

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// So many words, zero at first, shared with every process that is forked from now on. Unmapped when dropped.
#[derive(Debug)]
pub struct Words {
    at: *const AtomicU32,
    count: usize,
}

impl Words {
    /// Fresh memory.
    ///
    /// # Errors
    /// There is none.
    pub fn new(count: usize) -> io::Result<Words> {
        // SAFETY: a fresh mapping where the kernel likes; nothing of ours is replaced.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                count * size_of::<AtomicU32>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Words {
            at: at.cast_const().cast(),
            count,
        })
    }

    /// One word.
    ///
    /// # Panics
    /// There are not so many.
    pub fn get(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.count);
        // SAFETY: the mapping has `count` words, lives as long as `self`, and is used as atomics alone.
        unsafe { &*self.at.add(index) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        let bytes = self.count * size_of::<AtomicU32>();
        // SAFETY: our own mapping; no reference to it outlives `self`.
        unsafe { libc::munmap(self.at.cast_mut().cast(), bytes) };
    }
}

/// `futex`, between processes. Its result says nothing that the word itself does not say.
pub fn futex(word: &AtomicU32, op: libc::c_int, value: u32, wait: Option<Duration>) {
    let time = wait.map(|w| libc::timespec {
        tv_sec: libc::time_t::try_from(w.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::try_from(w.as_nanos() % 1_000_000_000).unwrap_or(0),
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word lives through the call, and the time too.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), op, value, time) };
}
