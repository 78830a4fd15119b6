//! How the last page of ours goes: by the kernel's sigpage, by ptrace from outside, or not at all.
//!
//! Sigpage first, because it needs nobody else. Where it cannot be (no frame below sp, other words, an OABI kernel, a
//! filter in the way), the harness stops the task at the exit of `rt_sigreturn` and lets it unmap the area with an `svc`
//! of that very page. Where there is no ptrace, or a user says so, the page stays and is named.

use armrest_abi::Queued;
use armrest_images::{LiveTask, Task, TaskState};

use crate::kernel_pages::{KernelPages, sigpage_exit};
use crate::machine::Machine;
use crate::types::{Exit, Finish, Options, Refusal, RefusalKind};

/// Calls that the way out makes after the checkpoint's own filters are in force.
pub const LAST_CALLS: [(u32, &str); 3] = [(91, "munmap"), (6, "close"), (173, "rt_sigreturn")];
const SIGCONT: u32 = 18;
const SIGSTOP: u32 = 19;
/// Suspending filters takes CAP_SYS_ADMIN.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// What is known of a task besides its images.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Every thread has a place for its signal frame.
    pub room: bool,
    /// It is traced in any case: it is to be stopped again, or another of its tree is traced.
    pub traced: bool,
}

/// The signal that stopped a task: SIGSTOP if it is not recorded.
pub fn stops(task: &Task) -> Option<u32> {
    match task.state {
        TaskState::Stopped { signo: 0 } => Some(SIGSTOP),
        TaskState::Stopped { signo } => Some(signo),
        _ => None,
    }
}

/// Decide. `forbidden(nr)`: a filter of the checkpoint would not let this call pass.
///
/// # Errors
/// What was asked for cannot be, or nothing can.
pub fn decide(
    live: &LiveTask,
    machine: &Machine,
    pages: &KernelPages,
    asked: Asked,
    options: &Options,
    forbidden: &dyn Fn(u32) -> bool,
) -> Result<Exit, Refusal> {
    let refuse = |kind, what: String, hint: &str| Refusal {
        kind,
        what,
        hint: hint.into(),
    };
    const NO_PTRACE: &str =
        "armrest check says whether ptrace works; it does not under an emulator or a debugger";
    let wanted = [
        (options.leave_stopped, "--leave-stopped without ptrace"),
        (
            options.finish == Finish::Ptrace,
            "--finish=ptrace without ptrace",
        ),
        (asked.traced, "a stopped task without ptrace"),
    ];
    if let Some((_, what)) = wanted.iter().find(|w| w.0 && !machine.has_ptrace) {
        return Err(refuse(RefusalKind::Machine, (*what).into(), NO_PTRACE));
    }
    const NO_ROOM: &str = "there is no room for a signal frame below the stack pointer";
    let filtered = LAST_CALLS.iter().find(|c| forbidden(c.0)).map(|c| c.1);
    let sigpage = match filtered {
        None => {
            sigpage_exit(machine, pages).and_then(|exit| asked.room.then_some(exit).ok_or(NO_ROOM))
        }
        Some("munmap") => Err("a filter of the checkpoint forbids munmap"),
        Some(_) => Err("a filter of the checkpoint forbids close or rt_sigreturn"),
    };
    let exit = match (options.finish, sigpage) {
        (Finish::Auto | Finish::Sigpage, Ok(exit)) => Exit::Sigpage(exit),
        (Finish::Sigpage, Err(why)) => {
            return Err(refuse(
                RefusalKind::Machine,
                format!("--finish=sigpage: {why}"),
                "--finish=ptrace, or --finish=auto, which takes what works",
            ));
        }
        (Finish::Auto, Err(why)) if machine.has_ptrace => Exit::Ptrace(why),
        (Finish::Auto, Err(why)) => Exit::Page(why),
        (Finish::Ptrace, _) => Exit::Ptrace("asked for"),
        (Finish::Page, _) => Exit::Page("asked for"),
    };
    let traced = asked.traced || options.leave_stopped || matches!(exit, Exit::Ptrace(_));
    if let Some(call) = filtered
        && !(traced && machine.cap_eff & CAP_SYS_ADMIN != 0)
    {
        return Err(refuse(
            RefusalKind::Machine,
            format!(
                "a filter of the checkpoint forbids {call}, which the way into the program needs"
            ),
            "ptrace and CAP_SYS_ADMIN are needed to suspend it for that moment",
        ));
    }
    if traced && discards_a_signal(live) {
        return Err(refuse(
            RefusalKind::Unsupported,
            "a pending SIGCONT, with the task stopped by ptrace: a stop discards it".into(),
            "--finish=page without --leave-stopped does not stop the task",
        ));
    }
    Ok(exit)
}

fn discards_a_signal(live: &LiveTask) -> bool {
    let all = live
        .pending
        .iter()
        .chain(live.threads.iter().flat_map(|t| &t.pending));
    all.into_iter()
        .any(|info| info[..4] == SIGCONT.to_le_bytes())
}

/// The signal that a thread sends to itself when all but the way out is done: its tracer takes it, and follows it call
/// by call from there. Nothing else of the restore has to know.
pub fn here_i_am() -> Queued {
    /// `SI_QUEUE`: what a program may claim.
    const SI_QUEUE: u32 = 0xffff_ffff;
    let mut info = [0; 32];
    info[0] = SIGSTOP;
    info[2] = SI_QUEUE;
    Queued {
        signo: SIGSTOP,
        private: 1,
        info,
    }
}
