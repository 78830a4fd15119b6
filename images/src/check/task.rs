//! Tasks and their threads: registers, signals, timers, limits, credentials.

use super::at::{At, need, word};
use super::source::Source;
use super::{Node, cgroup, files, memory, thread};
use crate::checkpoint::{
    BpfInsn, Checkpoint, LiveTask, PosixTimer, SeccompFilter, Shares, SigAction, Task, TaskState,
};
use crate::error::{Error, Fault};
use crate::{magic, proto};

/// What a task needs to know of the rest.
pub(super) struct Context<'a> {
    pub inventory: &'a proto::Inventory,
    pub ids: Option<&'a proto::Ids>,
    /// Number of seccomp filters.
    pub filters: u32,
    pub cgroups: &'a cgroup::Sets,
}

pub(super) fn length(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Refuses checkpoints of other machines.
pub(super) fn machine(at: &At, core: &proto::Core) -> Result<(), Error> {
    let name = match need!(at, core.mtype) {
        2 => return Ok(()),
        1 => "x86-64",
        3 => "arm64",
        4 => "ppc64",
        5 => "s390",
        6 => "mips",
        7 => "loongarch64",
        8 => "riscv64",
        n => return Err(at.err("mtype", Fault::WrongMachine(format!("number {n}")))),
    };
    Err(at.err("mtype", Fault::WrongMachine(name.to_owned())))
}

/// The seccomp filters; their chains have ends.
pub(super) fn filters(source: &mut Source<'_>) -> Result<Vec<SeccompFilter>, Error> {
    let name = "seccomp.img";
    let Some(list) = source.one_or_none::<proto::Seccomp>(name, magic::SECCOMP)? else {
        return Ok(Vec::new());
    };
    let at = At::file(name);
    let count = u32::try_from(list.seccomp_filters.len()).unwrap_or(u32::MAX);
    let mut filters = Vec::new();
    for (n, filter) in list.seccomp_filters.iter().enumerate() {
        let at = at.index("seccomp_filters", n);
        let code = at.req("filter", filter.filter.as_ref())?;
        let (insns, rest) = code.as_chunks::<8>();
        if insns.is_empty() || !rest.is_empty() || insns.len() > 4096 {
            return Err(at.err(
                "filter",
                Fault::BadCount {
                    expected: "1 to 4096 instructions",
                    found: length(code.len()),
                },
            ));
        }
        if let Some(prev) = filter.prev
            && prev >= count
        {
            return Err(at.dangling("prev", "seccomp filter", prev));
        }
        let insn = |i: &[u8; 8]| BpfInsn {
            code: u16::from_le_bytes([i[0], i[1]]),
            jt: i[2],
            jf: i[3],
            k: u32::from_le_bytes([i[4], i[5], i[6], i[7]]),
        };
        filters.push(SeccompFilter {
            program: insns.iter().map(insn).collect(),
            newer: filter.prev,
            flags: filter.flags.unwrap_or(0),
        });
    }
    // Where a walk has come by: in which walk.
    let mut seen = vec![None; filters.len()];
    for start in 0..filters.len() {
        let mut next = Some(start);
        while let Some(n) = next.filter(|n| seen.get(*n).is_some_and(Option::is_none)) {
            seen[n] = Some(start);
            next = filters[n].newer.and_then(|p| usize::try_from(p).ok());
        }
        if let Some(n) = next
            && seen.get(n) == Some(&Some(start))
        {
            let newer = filters[n].newer.unwrap_or(0);
            return Err(at.index("seccomp_filters", n).bad(
                "prev",
                newer,
                "a chain without an end",
            ));
        }
    }
    Ok(filters)
}

/// Reads one task.
pub(super) fn read(
    source: &mut Source<'_>,
    checkpoint: &Checkpoint,
    context: &Context<'_>,
    node: &Node,
) -> Result<Task, Error> {
    let name = format!("core-{}.img", node.pid);
    let file = At::file(&name);
    let tc = file.req("tc", node.core.tc.as_ref())?;
    let at = file.sub("tc");
    let exit_code = need!(at, tc.exit_code);
    let state = match need!(at, tc.task_state) {
        1 => TaskState::Alive,
        2 => TaskState::Dead { exit_code },
        3 => TaskState::Stopped {
            signo: tc.stop_signo.unwrap_or(0),
        },
        n => return Err(at.unknown("task_state", n)),
    };
    let comm = at.text("comm", at.req("comm", tc.comm.clone())?, 15)?;
    let mut task = Task::from_node(node, state, comm);
    at.req("blk_sigset", tc.blk_sigset)?;
    if !node.dead {
        let ids = context
            .ids
            .ok_or_else(|| Error::new(&format!("ids-{}.img", node.pid), Fault::Missing))?;
        let live = live(source, checkpoint, context, ids, node, tc, &at)?;
        task.live = Some(live);
    }
    Ok(task)
}

fn live(
    source: &mut Source<'_>,
    checkpoint: &Checkpoint,
    context: &Context<'_>,
    ids: &proto::Ids,
    node: &Node,
    tc: &proto::TaskCore,
    at: &At,
) -> Result<LiveTask, Error> {
    let pid = node.pid;
    let ids_at = At::file(&format!("ids-{pid}.img"));
    let files_id = need!(ids_at, ids.files_id);
    let (mut mm, pages) = memory::read(source, checkpoint, pid)?;
    let (mut threads, sets) = thread::threads(source, context, node, tc, &mm.vmas)?;
    for t in &mut threads {
        t.rseq_cs = memory::rseq_cs(source, &pages, t.rseq)?;
    }
    mm.sigpage_users = memory::sigpage_users(source, &mm, &pages, &threads)?;

    let fs_name = format!("fs-{pid}.img");
    let fs: proto::Fs = source.one(&fs_name, magic::FS)?;
    let fs_at = At::file(&fs_name);
    let cwd = files::regular_id(&fs_at, "cwd_id", &checkpoint.files, need!(fs_at, fs.cwd_id))?;
    let root = files::regular_id(
        &fs_at,
        "root_id",
        &checkpoint.files,
        need!(fs_at, fs.root_id),
    )?;
    if fs.umask.is_some_and(|m| m > 0o777) {
        return Err(fs_at.bad("umask", fs.umask.unwrap_or(0), "more than 0777"));
    }
    let (itimers, posix_timers) = timers(at, tc)?;
    Ok(LiveTask {
        personality: personality(need!(at, tc.personality)),
        itimers,
        posix_timers,
        rlimits: rlimits(at, tc)?,
        pending: queue(at, "signals_s", tc.signals_s.as_ref())?,
        sigactions: sigactions(source, at, tc, pid)?,
        // strtol saturates in the dumper: both mean "unset".
        loginuid: tc
            .loginuid
            .filter(|id| *id != 0x7fff_ffff && *id != u32::MAX),
        oom_score_adj: tc.oom_score_adj,
        child_subreaper: tc.child_subreaper.unwrap_or(false),
        membarrier: tc.membarrier_registration_mask.unwrap_or(0),
        cgroups: match sets.first().copied().flatten() {
            Some(set) if Some(set) != context.inventory.root_cg_set => {
                Some(cgroup::of(at, context.cgroups, set)?)
            }
            _ => None,
        },
        thread_apart: threads
            .iter()
            .zip(&sets)
            .find_map(|(t, set)| (Some(set) != sets.first()).then_some(t.tid)),
        threads,
        mm,
        pages,
        fds: files::descriptors(source, &checkpoint.files, files_id)?,
        files_id,
        shares: Shares {
            vm: ids.vm_id,
            fs: ids.fs_id,
            sighand: ids.sighand_id,
        },
        cwd,
        root,
        umask: fs.umask,
    })
}

/// The dumper reads the kernel's hexadecimal text as decimal: print it so and read it as hexadecimal. It stops at a
/// letter, and what is left then moves down to where no kernel has a flag: unreadable.
fn personality(recorded: u32) -> Option<u32> {
    /// PER_LINUX and PER_LINUX32; flags begin above.
    const KINDS: [u32; 2] = [0, 8];
    u32::from_str_radix(&recorded.to_string(), 16)
        .ok()
        .filter(|p| KINDS.contains(&(p & 0xffff)))
}

/// Signals that are pending.
pub(super) fn queue(
    at: &At,
    field: &str,
    queue: Option<&proto::SignalQueue>,
) -> Result<Vec<[u8; 128]>, Error> {
    let at = at.sub(field);
    let signals = queue.map(|q| q.signals.as_slice()).unwrap_or_default();
    let mut pending = Vec::new();
    for (n, s) in signals.iter().enumerate() {
        let at = at.index("signals", n);
        let bytes = at.req("siginfo", s.siginfo.as_ref())?;
        let info: [u8; 128] = bytes.as_slice().try_into().map_err(|_| {
            at.err(
                "siginfo",
                Fault::BadCount {
                    expected: "exactly 128 bytes",
                    found: length(bytes.len()),
                },
            )
        })?;
        let signo = u32::from_le_bytes([info[0], info[1], info[2], info[3]]);
        if !(1..=64).contains(&signo) {
            return Err(at.bad("siginfo", signo, "no signal"));
        }
        pending.push(info);
    }
    Ok(pending)
}

fn sigactions(
    source: &mut Source<'_>,
    at: &At,
    tc: &proto::TaskCore,
    pid: u32,
) -> Result<Vec<(u32, SigAction)>, Error> {
    let old;
    let (at, list) = if tc.sigactions.is_empty() {
        let name = format!("sigacts-{pid}.img");
        old = source.array::<proto::Sigaction>(&name, magic::SIGACTS)?;
        if old.is_empty() {
            return Err(at.err(
                "sigactions",
                Fault::BadCount {
                    expected: "exactly 62",
                    found: 0,
                },
            ));
        }
        (At::file(&name), &old)
    } else {
        (at.clone(), &tc.sigactions)
    };
    if list.len() != 62 {
        return Err(at.err(
            "sigactions",
            Fault::BadCount {
                expected: "exactly 62",
                found: length(list.len()),
            },
        ));
    }
    let signals = (1..=64).filter(|s| *s != 9 && *s != 19);
    let mut actions = Vec::new();
    for ((n, a), signal) in list.iter().enumerate().zip(signals) {
        let at = at.index("sigactions", n);
        let action = SigAction {
            handler: word!(at, a.sigaction),
            flags: word!(at, a.flags),
            restorer: word!(at, a.restorer),
            mask: need!(at, a.mask),
        };
        actions.push((signal, action));
    }
    Ok(actions)
}

type Timers = ([[u64; 4]; 3], Vec<PosixTimer>);

fn timers(at: &At, tc: &proto::TaskCore) -> Result<Timers, Error> {
    let at = at.sub("timers");
    // Optional in the message; absent = nothing armed.
    let Some(timers) = &tc.timers else {
        return Ok(([[0; 4]; 3], Vec::new()));
    };
    let one = |field: &str, t: Option<&proto::Itimer>| {
        let t = at.req(field, t)?;
        let at = at.sub(field);
        Ok([
            need!(at, t.isec),
            need!(at, t.iusec),
            need!(at, t.vsec),
            need!(at, t.vusec),
        ])
    };
    let itimers = [
        one("real", timers.real.as_ref())?,
        one("virt", timers.virt.as_ref())?,
        one("prof", timers.prof.as_ref())?,
    ];
    let mut posix = Vec::new();
    for (n, t) in timers.posix.iter().enumerate() {
        let at = at.index("posix", n);
        posix.push(PosixTimer {
            id: need!(at, t.it_id),
            clock: need!(at, t.clock_id),
            signo: need!(at, t.si_signo),
            notify: need!(at, t.it_sigev_notify),
            value: need!(at, t.sival_ptr),
            overrun: need!(at, t.overrun),
            interval: (need!(at, t.isec), need!(at, t.insec)),
            remaining: (need!(at, t.vsec), need!(at, t.vnsec)),
            thread: t.notify_thread_id.and_then(|id| u32::try_from(id).ok()),
        });
    }
    Ok((itimers, posix))
}

fn rlimits(at: &At, tc: &proto::TaskCore) -> Result<Vec<(u64, u64)>, Error> {
    let at = at.sub("rlimits");
    let list = tc
        .rlimits
        .as_ref()
        .map(|r| r.rlimits.as_slice())
        .unwrap_or_default();
    if list.len() > 16 {
        return Err(at.err(
            "rlimits",
            Fault::BadCount {
                expected: "at most 16",
                found: length(list.len()),
            },
        ));
    }
    list.iter()
        .enumerate()
        .map(|(n, r)| {
            let at = at.index("rlimits", n);
            Ok((need!(at, r.cur), need!(at, r.max)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personality_is_hexadecimal_read_as_decimal() {
        assert_eq!(personality(800_000), Some(0x0080_0000));
        assert_eq!(personality(0), Some(0));
        assert_eq!(personality(40_000), Some(0x0004_0000));
        // 0084c000 up to its letter.
        assert_eq!(personality(84), None);
        assert_eq!(personality(u32::MAX), None);
    }
}
