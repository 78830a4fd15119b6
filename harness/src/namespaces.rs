//! `--new-namespaces`: fresh pid, ipc and mount namespaces, so that copies of one checkpoint run side by side.
//!
//! The first process of a pid namespace is its init: a fork of this program that mounts a /proc, restores the task as
//! its child, passes signals on, reaps orphans, and ends with the task's status. It stays until the task ends.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use crate::cli::RestoreOptions;
use crate::error::Error;
use crate::journal::Journal;
use crate::objects::helper;
use crate::os;
use crate::summary::{Log, PidFile};
use crate::watch::{self, Child, Ended, Forward};

/// Status of an init whose program was killed: nobody sees it.
const LEFT_ALONE: i32 = 104;
/// What the init says when its task runs.
const RESTORED: u8 = b'r';

/// Restore by `inside`, run by the init of new namespaces; the exit status to pass on.
///
/// # Errors
/// The namespaces cannot be made. Errors of the restore itself are told by the init: its exit status is passed on.
pub fn run(
    o: &RestoreOptions,
    log: &mut Log,
    mut pidfile: Option<PidFile<'_>>,
    (forward, journal): (&Forward, &Journal),
    inside: &dyn Fn(&mut Log) -> Result<i32, Error>,
) -> Result<i32, Error> {
    let failed = |what: &'static str| {
        move |e: io::Error| Error::Namespaces {
            what: what.into(),
            why: e.to_string(),
        }
    };
    // SAFETY: numbers only; this process has a single thread.
    os::check(unsafe { libc::unshare(libc::CLONE_NEWPID | libc::CLONE_NEWIPC) })
        .map_err(failed("unshare(CLONE_NEWPID | CLONE_NEWIPC)"))?;
    let (read, write) = helper::pair(libc::SOCK_STREAM).map_err(failed("socket pair"))?;
    // SAFETY: this process has a single thread, so the child may go on with everything.
    let pid = os::check(unsafe { libc::fork() }).map_err(failed("fork of the init"))?;
    if pid == 0 {
        drop(read);
        init(log, write, inside, o);
    }
    drop(write);
    let mut init = Child::new(pid);
    // Dropped on an error, the init is killed, and with it everything in the namespaces.
    let Some(task) = answer(&read, forward, &mut init)? else {
        // The init has said why; its status is ours.
        drop(pidfile);
        return match forward.wait(&mut init, false) {
            Ended::Exit(status) => Ok(status),
            Ended::Signal(s) => Err(Error::Lost {
                what: "init of the new namespaces".into(),
                why: format!("signal {s}"),
            }),
        };
    };
    if let Some(p) = &mut pidfile {
        let told = task.and_then(|fd| pid_of(&fd));
        p.fill(
            told.or_else(|| task_of(pid)).unwrap_or(pid),
            !o.usual.detached,
        )?;
    }
    init.let_go();
    if let Some(p) = pidfile {
        p.keep();
    }
    // Whatever becomes of the task: the file stays.
    journal.done();
    if o.usual.detached {
        return Ok(0);
    }
    Ok(forward.wait(&mut init, false).status())
}

/// The init of the new pid namespace. Does not return.
fn init(
    log: &mut Log,
    write: OwnedFd,
    inside: &dyn Fn(&mut Log) -> Result<i32, Error>,
    o: &RestoreOptions,
) -> ! {
    // The bond is made below; who died before that is seen by this.
    let waits = write.try_clone();
    let mut tell = Some(write);
    let detached = o.usual.detached;
    log.on_restored(Box::new(move |task| {
        if let Some(w) = tell.take() {
            if detached {
                // SAFETY: numbers only.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0) };
            }
            // Nobody reads: the program that we restore for was killed before we were done.
            if !say_restored(&w, task) {
                // SAFETY: ends this process, and with it everything in its pid namespace.
                unsafe { libc::_exit(LEFT_ALONE) }
            }
            shed_code();
            if detached {
                // Whoever reads the caller's output must not wait for the end of this init.
                if let Ok(null) = std::fs::File::options()
                    .read(true)
                    .write(true)
                    .open("/dev/null")
                {
                    for fd in 0..3 {
                        let _ = os::dup_to(null.as_raw_fd(), fd, false);
                    }
                }
            }
        }
    }));
    // An init must not outlive the program that waits for it; a detached one may once it has said "restored".
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if waits.as_ref().is_ok_and(unread) {
        // SAFETY: ends this process, and with it everything in its pid namespace.
        unsafe { libc::_exit(LEFT_ALONE) }
    }
    drop(waits);
    let done = mounts().and_then(|()| inside(log));
    let status = match done {
        Ok(status) => status,
        Err(e) => {
            for line in e.lines() {
                let _ = writeln!(io::stderr(), "{line}");
                let _ = log.line(u8::MAX, &line);
            }
            log.status(&e.json());
            i32::from(e.exit_code())
        }
    };
    // SAFETY: ends this process, and with it everything in its pid namespace.
    unsafe { libc::_exit(status & 0xff) }
}

/// Tell the program that waits that `task` runs, which is not waited for yet: its pid has another number there. False: it is
/// gone.
fn say_restored(w: &OwnedFd, task: libc::pid_t) -> bool {
    // Kernels before 5.3 have none.
    let fd = os::pidfd(task.cast_unsigned()).ok();
    let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    helper::send(w.as_fd(), &[RESTORED], &fds, None).is_ok()
}

/// The number here of the process of a pidfd.
fn pid_of(fd: &OwnedFd) -> Option<libc::pid_t> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    let pid = text
        .lines()
        .find_map(|l| l.strip_prefix("Pid:"))?
        .trim()
        .parse();
    pid.ok().filter(|p| *p > 0)
}

/// Is nobody left who hears what is said here?
fn unread(w: &OwnedFd) -> bool {
    let mut p = libc::pollfd {
        fd: w.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    // SAFETY: one pollfd, writable; returns at once.
    unsafe { libc::poll(&mut p, 1, 0) == 1 && p.revents & libc::POLLHUP != 0 }
}

/// Give back the pages of the program's code: waiting needs few of them, and the kernel reads those again.
fn shed_code() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    // Code of a file is never written, so nothing is lost; read-only data may have been written before it became so.
    for line in maps
        .lines()
        .filter(|l| l.contains(" r-xp ") && l.contains(" /"))
    {
        let range = line.split(' ').next().and_then(|r| r.split_once('-'));
        let Some((start, end)) = range else { continue };
        if let (Ok(start), Ok(end)) = (
            usize::from_str_radix(start, 16),
            usize::from_str_radix(end, 16),
        ) {
            let at = std::ptr::with_exposed_provenance_mut(start);
            // SAFETY: a clean private file mapping of ours, whole: its pages come back from the file when they are used.
            unsafe { libc::madvise(at, end.saturating_sub(start), libc::MADV_DONTNEED) };
        }
    }
}

/// A /proc of the new pid namespace, seen by nobody outside.
fn mounts() -> Result<(), Error> {
    let failed = |what: &'static str| {
        move |e: io::Error| Error::Namespaces {
            what: what.into(),
            why: e.to_string(),
        }
    };
    // The mount namespace is the init's alone: its /proc must not hide that of the program that waits for it.
    // SAFETY: numbers only; this process has a single thread.
    os::check(unsafe { libc::unshare(libc::CLONE_NEWNS) })
        .map_err(failed("unshare(CLONE_NEWNS)"))?;
    // SAFETY: all strings are NUL-terminated; a null source and type are allowed for a change of propagation.
    unsafe {
        os::check(libc::mount(
            std::ptr::null(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        ))
        .map_err(failed("mount --make-rprivate /"))?;
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        os::check(libc::mount(
            c"proc".as_ptr(),
            c"/proc".as_ptr(),
            c"proc".as_ptr(),
            flags,
            std::ptr::null(),
        ))
        .map_err(failed("mount of /proc"))?;
    }
    Ok(())
}

/// What the init says: that its task runs, and which it is, or nothing. A signal meanwhile is the end of it.
fn answer(
    from: &OwnedFd,
    forward: &Forward,
    init: &mut Child,
) -> Result<Option<Option<OwnedFd>>, Error> {
    loop {
        forward.interrupted()?;
        // Its end alone would not do: a task of its own may hold the other end until it is placed.
        let heard = watch::readable(from, Duration::from_millis(50));
        if heard.map_err(|e| Error::Namespaces {
            what: "answer of the init".into(),
            why: e.to_string(),
        })? {
            return Ok(match helper::receive(from.as_fd()) {
                Ok((RESTORED, task)) => Some(task),
                _ => None,
            });
        }
        if init.ended().is_some() {
            return Ok(None);
        }
    }
}

/// The restored task as seen from here: the init's only child. For kernels that cannot tell otherwise: it may have ended.
fn task_of(init: libc::pid_t) -> Option<libc::pid_t> {
    let parent = format!("PPid:\t{init}\n");
    std::fs::read_dir("/proc").ok()?.find_map(|e| {
        let pid: libc::pid_t = e.ok()?.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.contains(&parent).then_some(pid)
    })
}
