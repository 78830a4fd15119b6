//! The harness's own system calls: small safe wrappers over libc, errors as `io::Error`.

use std::ffi::CString;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

pub use armrest_images::stat::{Stat, fstat};

/// What a program has to do before it uses descriptors: the three standard ones are open, so that no other file gets their
/// numbers, and a reader that goes away or a limit of file sizes is an error of a write and not the end.
pub fn begin() {
    #[cfg(target_env = "gnu")]
    // SAFETY: numbers only. Set, they no longer follow what was freed: a long table goes back to the kernel when it is no
    // longer needed, and the little that is freed in between does not go back and forth.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
    for fd in 0..3 {
        // SAFETY: numbers, and a constant that ends with NUL. The first free number is `fd`, as those below are open.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) == -1 {
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            }
        }
    }
    for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
        // SAFETY: to ignore a signal runs no code of ours.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// The result of a libc call that returns -1 on error.
pub fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// The result of a raw system call through libc's `syscall`.
pub fn check_long(ret: libc::c_long) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| io::Error::last_os_error())
}

/// A path as libc wants it.
pub fn c_path(path: &str) -> io::Result<CString> {
    CString::new(path).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// `openat(dir, name, flags | O_CLOEXEC, mode)`.
pub fn openat(dir: BorrowedFd<'_>, name: &str, flags: i32, mode: u32) -> io::Result<OwnedFd> {
    let name = c_path(name)?;
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: `name` is NUL-terminated and lives through the call, which makes a descriptor.
    unsafe { made(libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, mode)) }
}

/// `RESOLVE_IN_ROOT` (include/uapi/linux/openat2.h): the directory is the root of the path.
pub const RESOLVE_IN_ROOT: u64 = 0x10;

/// `openat2(dir, name, { flags | O_CLOEXEC, 0, resolve })`.
pub fn openat2(dir: BorrowedFd<'_>, name: &str, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    /// The same number everywhere (include/uapi/asm-generic/unistd.h).
    const NR_OPENAT2: libc::c_long = 437;
    let name = c_path(name)?;
    let flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    let how = [flags, 0, resolve];
    // SAFETY: `name` is NUL-terminated, `how` has the three words of struct open_how, and both live through the call,
    // which makes a descriptor.
    unsafe {
        made(libc::syscall(
            NR_OPENAT2,
            dir.as_raw_fd(),
            name.as_ptr(),
            how.as_ptr(),
            size_of_val(&how),
        ))
    }
}

/// Has somebody this name, whatever it is?
pub fn exists(dir: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    match openat(dir, name, libc::O_PATH | libc::O_NOFOLLOW, 0) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Open again what `fd` refers to, as a description of its own. Creates, truncates and follows nothing.
pub fn reopen(fd: BorrowedFd<'_>, flags: i32) -> io::Result<OwnedFd> {
    /// The bit that makes O_TMPFILE of O_DIRECTORY.
    const TMPFILE: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;
    let never = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOFOLLOW;
    let flags = if flags & TMPFILE == 0 {
        flags
    } else {
        flags & !libc::O_TMPFILE
    };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    openat(fd, &path, flags & !never | libc::O_NOCTTY, 0)
}

/// The first name of a file that has none. By the descriptor itself; whoever may not (CAP_DAC_READ_SEARCH) goes by /proc.
pub fn name_file(file: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let to = c_path(name)?;
    // SAFETY: both names are NUL-terminated and live through the call; both descriptors are open.
    let named = check(unsafe {
        libc::linkat(
            file.as_raw_fd(),
            c"".as_ptr(),
            dir.as_raw_fd(),
            to.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    });
    match named {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            linkat(&format!("/proc/self/fd/{}", file.as_raw_fd()), dir, name)
        }
        named => named.map(drop),
    }
}

/// Another name for the file that `from` leads to, links followed; nothing is replaced.
pub fn linkat(from: &str, dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let (from, name) = (c_path(from)?, c_path(name)?);
    let to = dir.as_raw_fd();
    // SAFETY: both names are NUL-terminated and live through the call; `dir` is an open descriptor.
    check(unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            from.as_ptr(),
            to,
            name.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        )
    })
    .map(drop)
}

/// Take the name of a file away.
pub fn unlinkat(dir: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let name = c_path(name)?;
    // SAFETY: `name` is NUL-terminated and lives through the call; `dir` is an open descriptor.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), 0) }).map(drop)
}

/// The target of a symbolic link `name` in `dir`.
pub fn readlinkat(dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let name = c_path(name)?;
    let mut buf = vec![0u8; 4096];
    // SAFETY: `buf` has as many bytes as the call is told.
    let n = unsafe {
        libc::readlinkat(
            dir.as_raw_fd(),
            name.as_ptr(),
            buf.as_mut_ptr().cast(),
            buf.len(),
        )
    };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    buf.truncate(n);
    String::from_utf8(buf).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// What std tells of a file, times included, on O_PATH descriptors too. Without times [`fstat`] is cheaper.
pub fn metadata(fd: BorrowedFd<'_>) -> io::Result<std::fs::Metadata> {
    as_file(fd).metadata()
}

/// A descriptor as a file, which stays whose it is.
pub fn as_file(fd: BorrowedFd<'_>) -> ManuallyDrop<std::fs::File> {
    // SAFETY: the descriptor is open; the file that is made of it is never dropped.
    ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(fd.as_raw_fd()) })
}

/// A copy of a descriptor, close-on-exec, at the lowest free number from `above` on.
pub fn dup_above(fd: BorrowedFd<'_>, above: u32) -> io::Result<OwnedFd> {
    let above = i32::try_from(above).unwrap_or(i32::MAX);
    // SAFETY: numbers only; the duplicate is a new descriptor.
    unsafe { made(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above)) }
}

/// What that process has open under this number, here (Linux 5.6).
pub fn pidfd_getfd(process: &OwnedFd, number: u32) -> io::Result<OwnedFd> {
    let process = process.as_raw_fd();
    // SAFETY: numbers only; the call makes a descriptor.
    unsafe { made(libc::syscall(libc::SYS_pidfd_getfd, process, number, 0)) }
}

/// An anonymous memory file with these bytes; `sealable` allows seals later (MFD_ALLOW_SEALING).
pub fn memfd(name: &str, bytes: &[u8], sealable: bool) -> io::Result<OwnedFd> {
    let name = c_path(name)?;
    let flags = libc::MFD_CLOEXEC | if sealable { libc::MFD_ALLOW_SEALING } else { 0 };
    // SAFETY: `name` is NUL-terminated; the call makes a descriptor.
    let fd = unsafe { made(libc::memfd_create(name.as_ptr(), flags)) }?;
    let mut file = std::fs::File::from(fd);
    io::Write::write_all(&mut file, bytes)?;
    Ok(file.into())
}

/// A pipe, both ends close-on-exec: (read, write).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the call succeeded: both are open and ours.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// A descriptor that means the process of this number whatever becomes of the number (Linux 5.3).
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only; the call makes a descriptor.
    unsafe { made(libc::syscall(libc::SYS_pidfd_open, pid, 0)) }
}

/// The descriptor that a system call has made.
///
/// # Safety
/// `result` is what a call has returned that makes a descriptor: one that nobody owns yet, or -1.
pub unsafe fn made(result: impl Into<i64>) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(result.into()).ok().filter(|fd| *fd >= 0);
    let fd = fd.ok_or_else(io::Error::last_os_error)?;
    // SAFETY: by the caller's promise it is open, and nobody's yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Duplicate `fd` to the number `to` without close-on-exec.
pub fn dup_to(fd: RawFd, to: RawFd, cloexec: bool) -> io::Result<()> {
    if fd == to {
        let flag = if cloexec { libc::FD_CLOEXEC } else { 0 };
        // SAFETY: F_SETFD takes an integer.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, flag) })?;
        return Ok(());
    }
    // SAFETY: numbers only; `to` is a number that the plan gave and nobody owns here.
    check(unsafe { libc::dup3(fd, to, if cloexec { libc::O_CLOEXEC } else { 0 }) })?;
    Ok(())
}

/// Block every signal of the calling thread, those that libc keeps for itself included; the previous mask, bit n-1 =
/// signal n. By the raw call: libc's own would leave two signals out.
pub fn block_all_signals() -> io::Result<u64> {
    signal_mask(u64::MAX)
}

/// Give the calling thread this signal mask; the previous one.
pub fn signal_mask(mask: u64) -> io::Result<u64> {
    let mut old = 0u64;
    let (new, old_at) = (std::ptr::from_ref(&mask), std::ptr::from_mut(&mut old));
    // SAFETY: both are sets of 64 signals, 8 bytes, as the call is told.
    let ret = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, new, old_at, 8) };
    check_long(ret)?;
    Ok(old)
}

/// The fields of `/proc/PID/stat` from the third on, the state: the name before them may hold spaces and brackets.
pub fn stat_fields(text: &str) -> impl Iterator<Item = &str> {
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace()
}

/// What a clock reads, in nanoseconds.
pub fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is writable.
    unsafe { libc::clock_gettime(clock, &mut t) };
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// The first line of `/proc/PID/comm`, or `?`.
pub fn comm(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "?".into(), |s| s.trim_end().to_owned())
}

/// True if these bytes lie at this address of another process.
pub fn same_bytes(pid: libc::pid_t, at: u32, bytes: &[u8]) -> io::Result<bool> {
    let mut there = vec![0u8; bytes.len()];
    let to = libc::iovec {
        iov_base: there.as_mut_ptr().cast(),
        iov_len: there.len(),
    };
    let from = libc::iovec {
        iov_base: std::ptr::without_provenance_mut(at as usize),
        iov_len: bytes.len(),
    };
    // SAFETY: `to` is writable for its length; what `from` names is the other process's.
    let n = unsafe { libc::process_vm_readv(pid, &to, 1, &from, 1, 0) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(n) == Ok(bytes.len()) && there == bytes)
}

/// A file of /proc that the kernel gives in one piece of less than a page: one read.
pub fn read_small(path: &str) -> io::Result<String> {
    let mut bytes = vec![0; 4096];
    let n = io::Read::read(&mut std::fs::File::open(path)?, &mut bytes)?;
    bytes.truncate(n);
    // The name of a process may be any bytes; it seldom is.
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// A file of /proc that comes in pieces.
pub fn read_proc(path: &str) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let (mut bytes, mut done) = (vec![0; 8192], 0);
    loop {
        if bytes.len() - done < 4096 {
            bytes.resize(2 * bytes.len(), 0);
        }
        match io::Read::read(&mut file, &mut bytes[done..])? {
            0 => break,
            n => done += n,
        }
    }
    bytes.truncate(done);
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// The blocked signals of a task's leader, from `/proc/PID/status`; bit n-1 = signal n.
pub fn blocked_signals(pid: libc::pid_t, tid: u32) -> Option<u64> {
    signals(&format!("/proc/{pid}/task/{tid}/status"), "SigBlk:")
}

/// The signals that wait for a process as a whole.
pub fn pending_signals(pid: libc::pid_t) -> Option<u64> {
    signals(&format!("/proc/{pid}/status"), "ShdPnd:")
}

fn signals(path: &str, which: &str) -> Option<u64> {
    status_hex(&read_small(path).ok()?, which)
}

/// What stands after `key`, its colon included, in the text of a `/proc/PID/status`. The kernel escapes the ends of lines
/// in a task's name, so no name can look like a field.
pub fn status_field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = status.as_bytes();
    loop {
        let found = find(rest, key.as_bytes())?;
        let at = status.len() - rest.len() + found;
        rest = &rest[found + key.len()..];
        if at == 0 || status.as_bytes()[at - 1] == b'\n' {
            let end = find(rest, b"\n").unwrap_or(rest.len());
            let from = at + key.len();
            return Some(status[from..from + end].trim());
        }
    }
}

/// Where these bytes first are in others. By libc, which looks at several at once: a `status` has 1,500.
fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    // SAFETY: both are readable for the lengths given.
    let at = unsafe {
        libc::memmem(
            text.as_ptr().cast(),
            text.len(),
            what.as_ptr().cast(),
            what.len(),
        )
    };
    (!at.is_null()).then(|| at.addr() - text.as_ptr().addr())
}

/// The same, as a hexadecimal number.
pub fn status_hex(status: &str, key: &str) -> Option<u64> {
    u64::from_str_radix(status_field(status, key)?, 16).ok()
}

/// The process of a thread.
pub fn thread_group(tid: libc::pid_t) -> Option<libc::pid_t> {
    let status = read_small(&format!("/proc/{tid}/status")).ok()?;
    status_field(&status, "Tgid:")?.parse().ok()
}

/// Let this process have descriptors below `number`, if it may not yet.
pub fn raise_open_files(number: u32) -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    let number = libc::rlim_t::from(number);
    if limit.rlim_cur >= number {
        return Ok(());
    }
    limit.rlim_cur = number;
    limit.rlim_max = limit.rlim_max.max(number);
    // SAFETY: `limit` is initialised.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    Ok(())
}

/// Real and effective user, effective group: as whom something is done for a while.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// Real user; `None` keeps it.
    pub real: Option<libc::uid_t>,
    /// Effective user.
    pub user: libc::uid_t,
    /// Effective group; `None` keeps it.
    pub group: Option<libc::gid_t>,
}

/// Do `f` with other ids, and take back those of now; `f` is told whether they could be taken. For root, in a process
/// with one thread.
///
/// Whoever changes its effective ids is no longer dumpable, and loses the bond to its parent's death: both are as before
/// afterwards. A parent that died meanwhile is seen by having another one.
///
/// # Errors
/// Those of `f`, or the ids could not be taken back.
pub fn with_ids<T>(ids: Ids, f: impl FnOnce(io::Result<()>) -> io::Result<T>) -> io::Result<T> {
    const KEEP: u32 = u32::MAX;
    let (mut real, mut user, mut saved) = (0, 0, 0);
    let mut death: libc::c_int = 0;
    // SAFETY: all four are writable; the rest takes no argument and cannot fail.
    let (group, dumpable, parent) = unsafe {
        check(libc::getresuid(&mut real, &mut user, &mut saved))?;
        check(libc::prctl(libc::PR_GET_PDEATHSIG, &mut death))?;
        let dumpable = libc::prctl(libc::PR_GET_DUMPABLE);
        (libc::getegid(), dumpable, libc::getppid())
    };
    // SAFETY: numbers only. The saved user becomes that of now, so that it can be taken back.
    let taken = unsafe {
        check(libc::setresgid(KEEP, ids.group.unwrap_or(KEEP), KEEP))
            .and_then(|_| check(libc::setresuid(ids.real.unwrap_or(KEEP), ids.user, user)))
    };
    let done = f(taken.map(drop));
    // SAFETY: numbers only; the user first, without whom the group may not be changed. The signal may be this process's
    // end: it was to end with its parent.
    unsafe {
        check(libc::setresuid(KEEP, user, KEEP))?;
        check(libc::setresuid(real, user, saved))?;
        check(libc::setresgid(KEEP, group, KEEP))?;
        libc::prctl(libc::PR_SET_DUMPABLE, dumpable, 0, 0, 0);
        if death != 0 {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, death))?;
            if libc::getppid() != parent {
                libc::kill(libc::getpid(), death);
            }
        }
    }
    done
}

/// The status that `wait` would give, of what `waitid` told of an end.
pub fn wait_status(info: &libc::siginfo_t) -> i32 {
    // SAFETY: `waitid` fills in such a structure, or leaves the zeroes of its maker.
    let how = unsafe { info.si_status() };
    if info.si_code == libc::CLD_EXITED {
        how << 8
    } else {
        how
    }
}
