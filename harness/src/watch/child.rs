//! The child of a restore, its end, and how others' ends are seen.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::os;

/// How a process ended, as `wait` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// `exit(status)`.
    Exit(i32),
    /// By this signal.
    Signal(i32),
}

impl Ended {
    /// What a status of `wait` means, if it means an end.
    pub fn of(status: i32) -> Option<Ended> {
        if libc::WIFEXITED(status) {
            Some(Ended::Exit(libc::WEXITSTATUS(status)))
        } else {
            libc::WIFSIGNALED(status).then(|| Ended::Signal(libc::WTERMSIG(status)))
        }
    }

    /// What a shell would say: the status, or 128 + signal.
    pub fn status(self) -> i32 {
        match self {
            Ended::Exit(s) => s,
            Ended::Signal(s) => 128 + s,
        }
    }

    /// In words.
    pub fn words(self) -> String {
        match self {
            Ended::Exit(s) => format!("exit status {s}"),
            Ended::Signal(s) => format!("signal {s}"),
        }
    }
}

/// The child of a restore, killed and reaped when dropped before it is let go.
#[derive(Debug)]
pub struct Child {
    pub(super) pid: libc::pid_t,
    pub(super) ended: Option<Ended>,
    let_go: bool,
    own: bool,
}

impl Child {
    /// Take charge of `pid`.
    pub fn new(pid: libc::pid_t) -> Child {
        Child {
            pid,
            ended: None,
            let_go: false,
            own: true,
        }
    }

    /// Someone else's child: it is looked at, and never killed here.
    pub fn stranger(pid: libc::pid_t) -> Child {
        Child {
            pid,
            ended: None,
            let_go: true,
            own: false,
        }
    }

    /// Its pid.
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// It runs its own code: what happens to it is its own business now.
    pub fn let_go(&mut self) {
        self.let_go = true;
    }

    /// Wait for its end, at most this long.
    pub fn wait_for(&mut self, most: Duration) -> Option<Ended> {
        let start = Instant::now();
        while self.ended().is_none() && start.elapsed() < most {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ended
    }

    /// Something went wrong: because it has ended, if it has.
    pub fn lost(&mut self, e: Error) -> Error {
        match self.wait_for(Duration::from_millis(100)) {
            Some(end) => Error::Lost {
                what: "the restoring child".into(),
                why: end.words(),
            },
            None => e,
        }
    }

    /// It and all that is a child of this process besides: killed and reaped, until there is none. With this process a
    /// subreaper, that is all of a tree, and no pid can be anyone else's.
    ///
    /// False: `/proc` cannot be read.
    pub fn end_all() -> bool {
        loop {
            let Ok(pids) = listed().or_else(|_| sought()) else {
                return false;
            };
            if pids.is_empty() {
                return true;
            }
            for pid in &pids {
                // SAFETY: our own children, not reaped yet: nobody else can.
                unsafe { libc::kill(*pid, libc::SIGKILL) };
            }
            // What is traced is waited for as it comes: a leader ends after its threads, a parent before its children.
            let mut left: BTreeSet<libc::pid_t> = pids.into_iter().collect();
            while !left.is_empty() {
                let mut status = 0;
                // SAFETY: `status` is writable.
                let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
                if pid < 0 {
                    break;
                }
                if Ended::of(status).is_some() {
                    left.remove(&pid);
                }
            }
        }
    }

    /// Somebody else has waited for it.
    pub fn has_ended(&mut self, how: Ended) {
        self.ended = Some(how);
    }

    /// Has it ended? Does not wait, and leaves it to be waited for: its pid is its own until then.
    pub fn ended(&mut self) -> Option<Ended> {
        if !self.own {
            self.ended = state(self.pid).dead();
        } else if self.ended.is_none() {
            let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
            let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            let id = libc::id_t::from(self.pid.cast_unsigned());
            // SAFETY: `info` is writable and all zeroes are one; WNOHANG returns at once.
            let info = unsafe {
                libc::waitid(libc::P_PID, id, info.as_mut_ptr(), how);
                info.assume_init()
            };
            // SAFETY: as above; no end leaves the zeroes.
            if unsafe { info.si_pid() } == self.pid {
                self.ended = Ended::of(os::wait_status(&info));
            }
        }
        self.ended
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.let_go && self.ended.is_some() {
            // SAFETY: our own child: nothing happens if somebody has waited for it already.
            unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) };
        } else if !self.let_go {
            // SAFETY: our own child, not reaped yet, so the pid is still its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
            // Threads that are traced are reaped one by one, and their leader after them.
            let mut status = 0;
            // SAFETY: `status` is writable.
            while !matches!(unsafe { libc::waitpid(-1, &mut status, libc::__WALL) }, pid
                if pid < 0 || pid == self.pid && Ended::of(status).is_some())
            {}
        }
    }
}

/// The children of this process, as the kernel lists them: with CONFIG_PROC_CHILDREN.
fn listed() -> io::Result<Vec<libc::pid_t>> {
    let own = std::process::id();
    let text = std::fs::read_to_string(format!("/proc/self/task/{own}/children"))?;
    Ok(text
        .split_whitespace()
        .filter_map(|p| p.parse().ok())
        .collect())
}

/// The same without that: all processes that call this one their parent.
fn sought() -> io::Result<Vec<libc::pid_t>> {
    let own = std::process::id().to_string();
    let ours = |pid: &libc::pid_t| {
        let text = os::read_small(&format!("/proc/{pid}/stat"));
        text.is_ok_and(|t| os::stat_fields(&t).nth(1) == Some(&own))
    };
    let names = std::fs::read_dir("/proc")?.flatten().map(|e| e.file_name());
    Ok(names
        .filter_map(|n| n.to_str()?.parse().ok())
        .filter(ours)
        .collect())
}

/// What `/proc/PID/stat` says of a process that may be someone else's child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Lives,
    /// Its wait status, as far as it can be seen.
    Dead(i32),
}

impl State {
    fn dead(self) -> Option<Ended> {
        match self {
            State::Lives => None,
            State::Dead(status) => Ended::of(status).or(Some(Ended::Exit(0))),
        }
    }
}

fn state(pid: libc::pid_t) -> State {
    let Ok(text) = os::read_small(&format!("/proc/{pid}/stat")) else {
        return State::Dead(0);
    };
    let mut words = os::stat_fields(&text);
    match words.next() {
        Some("Z" | "X") => {
            // Field 52, and 2 are before the parenthesis.
            let status = words.last().and_then(|w| w.parse().ok());
            State::Dead(status.unwrap_or(0))
        }
        _ => State::Lives,
    }
}

/// Is a process dead, or gone?
pub fn is_dead(pid: libc::pid_t) -> bool {
    state(pid) != State::Lives
}

#[cfg(test)]
mod tests {
    #[test]
    fn children_are_found_without_the_kernels_list() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let found = super::sought().unwrap();
        child.kill().unwrap();
        // Dead, it is one until it is waited for.
        let dead = super::sought().unwrap();
        child.wait().unwrap();
        assert!(
            found.contains(&pid) && dead.contains(&pid),
            "{found:?} {dead:?}"
        );
        assert!(!found.contains(&std::process::id().cast_signed()));
        assert!(!super::sought().unwrap().contains(&pid));
    }
}
