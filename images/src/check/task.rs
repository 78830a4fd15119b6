//! Tasks and their threads: registers, signals, timers, limits, credentials.

use super::at::{At, need, word};
use super::source::Source;
use super::{Node, cgroup, files, memory};
use crate::checkpoint::{
    BpfInsn, Checkpoint, Creds, LiveTask, PosixTimer, SeccompFilter, Shares, SigAction, Task,
    TaskState, Thread,
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

fn length(n: usize) -> u64 {
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
    let leader_mask = need!(at, tc.blk_sigset);
    if !node.dead {
        let ids = context
            .ids
            .ok_or_else(|| Error::new(&format!("ids-{}.img", node.pid), Fault::Missing))?;
        let live = live(source, checkpoint, context, ids, node, tc, &at, leader_mask)?;
        task.live = Some(live);
    }
    Ok(task)
}

#[allow(clippy::too_many_arguments)]
fn live(
    source: &mut Source<'_>,
    checkpoint: &Checkpoint,
    context: &Context<'_>,
    ids: &proto::Ids,
    node: &Node,
    tc: &proto::TaskCore,
    at: &At,
    leader_mask: u64,
) -> Result<LiveTask, Error> {
    let pid = node.pid;
    let ids_at = At::file(&format!("ids-{pid}.img"));
    let files_id = need!(ids_at, ids.files_id);
    let (mut mm, pages) = memory::read(source, checkpoint, pid)?;
    let mut threads = Vec::new();
    let mut sets = Vec::new();
    for tid in node.tids.iter().copied() {
        let name = format!("core-{tid}.img");
        let file = At::file(&name);
        let read;
        let core = if tid == pid {
            &node.core
        } else {
            read = source.one::<proto::Core>(&name, magic::CORE)?;
            machine(&file, &read)?;
            &read
        };
        let own_mask = core.thread_core.as_ref().and_then(|t| t.blk_sigset);
        let mask = if tid == pid {
            Some(leader_mask)
        } else {
            own_mask
        };
        let thread = thread(&file, core, tid, mask, context.filters)?;
        for (field, address, low) in [("pc", thread.regs[15], 0), ("sp", thread.regs[13], 1)] {
            // An empty stack points one past its area.
            let inside = |a: u32| memory::mapped(&mm.vmas, a);
            if !inside(address) && !inside(address.wrapping_sub(low)) {
                return Err(file.sub("ti_arm.gpregs").bad(
                    field,
                    address,
                    "outside of all mappings",
                ));
            }
        }
        let set = core.thread_core.as_ref().and_then(|t| t.cg_set);
        sets.push(set.or(tc.cg_set));
        threads.push(thread);
    }
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

fn thread(
    file: &At,
    core: &proto::Core,
    tid: u32,
    mask: Option<u64>,
    filters: u32,
) -> Result<Thread, Error> {
    let info = file.req("ti_arm", core.ti_arm.as_ref())?;
    let tc = file.req("thread_core", core.thread_core.as_ref())?;
    let at = file.sub("ti_arm");
    let gp = at.req("gpregs", info.gpregs.as_ref())?;
    let gp_at = at.sub("gpregs");
    let regs = [
        need!(gp_at, gp.r0),
        need!(gp_at, gp.r1),
        need!(gp_at, gp.r2),
        need!(gp_at, gp.r3),
        need!(gp_at, gp.r4),
        need!(gp_at, gp.r5),
        need!(gp_at, gp.r6),
        need!(gp_at, gp.r7),
        need!(gp_at, gp.r8),
        need!(gp_at, gp.r9),
        need!(gp_at, gp.r10),
        need!(gp_at, gp.fp),
        need!(gp_at, gp.ip),
        need!(gp_at, gp.sp),
        need!(gp_at, gp.lr),
        need!(gp_at, gp.pc),
        need!(gp_at, gp.cpsr),
        need!(gp_at, gp.orig_r0),
    ];
    if regs[16] & 0x1f != 0x10 {
        return Err(gp_at.bad("cpsr", regs[16], "not user mode"));
    }
    let fp = at.req("fpstate", info.fpstate.as_ref())?;
    let fp_at = at.sub("fpstate");
    let vfp: [u64; 32] = fp.vfp_regs.as_slice().try_into().map_err(|_| {
        fp_at.err(
            "vfp_regs",
            Fault::BadCount {
                expected: "exactly 32",
                found: length(fp.vfp_regs.len()),
            },
        )
    })?;
    let fpscr = need!(fp_at, fp.fpscr);
    let clear_tid = word!(at, info.clear_tid_addr);
    let tls = need!(at, info.tls);

    let at = file.sub("thread_core");
    let sigmask = at.req("blk_sigset", mask)?;
    let robust = match need!(at, tc.futex_rla_len) {
        0 => (0, 0),
        len => (word!(at, tc.futex_rla), len),
    };
    let altstack = match &tc.sas {
        None => None,
        Some(sas) => {
            let at = at.sub("sas");
            let flags = need!(at, sas.ss_flags);
            if flags & !(1 << 31) > 2 {
                return Err(at.unknown("ss_flags", flags));
            }
            Some((word!(at, sas.ss_sp), word!(at, sas.ss_size), flags))
        }
    };
    let rseq = match &tc.rseq_entry {
        None => None,
        Some(rseq) => {
            let at = at.sub("rseq_entry");
            let (pointer, size) = (
                word!(at, rseq.rseq_abi_pointer),
                need!(at, rseq.rseq_abi_size),
            );
            let signature = need!(at, rseq.signature);
            (pointer != 0).then_some((pointer, size, signature, rseq.rseq_cs_pointer.unwrap_or(0)))
        }
    };
    if tc.sched_nice.is_some_and(|n| !(-20..=19).contains(&n)) {
        let nice = tc.sched_nice.unwrap_or(0);
        return Err(at.bad(
            "sched_nice",
            u64::from(nice.unsigned_abs()),
            "not in -20 to 19",
        ));
    }
    let sched = match tc.sched_policy {
        Some(p) if p & !0x4000_0000 > 7 => return Err(at.unknown("sched_policy", p)),
        Some(p) => Some((p, tc.sched_prio.unwrap_or(0))),
        None => None,
    };
    let pdeath = tc.pdeath_sig.unwrap_or(0);
    if pdeath > 64 {
        return Err(at.bad("pdeath_sig", pdeath, "no signal"));
    }
    let mode = tc.seccomp_mode.unwrap_or(0);
    if mode > 2 {
        return Err(at.unknown("seccomp_mode", mode));
    }
    if let Some(filter) = tc.seccomp_filter
        && filter >= filters
    {
        return Err(at.dangling("seccomp_filter", "seccomp filter", filter));
    }
    if mode == 2 {
        at.req("seccomp_filter", tc.seccomp_filter)?;
    }
    Ok(Thread {
        tid,
        regs,
        vfp,
        fpscr,
        tls,
        clear_tid,
        robust,
        sigmask,
        altstack,
        comm: tc
            .comm
            .clone()
            .map(|c| at.text("comm", c, 15))
            .transpose()?,
        nice: tc.sched_nice,
        sched,
        pdeath,
        pending: queue(&at, "signals_p", tc.signals_p.as_ref())?,
        rseq,
        rseq_cs: None,
        creds: tc
            .creds
            .as_ref()
            .map(|c| creds(&at.sub("creds"), c))
            .transpose()?,
        seccomp: (mode, tc.seccomp_filter),
    })
}

fn queue(
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

fn creds(at: &At, c: &proto::CredsEntry) -> Result<Creds, Error> {
    let caps = |field: &str, words: &[u32]| match *words {
        [] => Ok(0),
        [low] => Ok(u64::from(low)),
        [low, high] => Ok(u64::from(low) | u64::from(high) << 32),
        _ => Err(at.err(
            field,
            Fault::BadCount {
                expected: "two words",
                found: length(words.len()),
            },
        )),
    };
    let (uid, euid, suid) = (need!(at, c.uid), need!(at, c.euid), need!(at, c.suid));
    let (fsuid, fsgid) = (need!(at, c.fsuid), need!(at, c.fsgid));
    let egid = need!(at, c.egid);
    // The dumper asks with 16-bit calls and leaves old memory in the upper halves of the three user ids; the fsuid is
    // whole. If it equals the euid, no such thing happened.
    let low = |id: u32| id & 0xffff;
    let (ids, lost) = if euid == fsuid {
        if fsuid < 0x1_0000 {
            ([low(uid), euid, low(suid)], false)
        } else {
            ([uid, euid, suid], false)
        }
    } else if fsuid < 0x1_0000 && low(euid) == fsuid {
        ([low(uid), low(euid), low(suid)], false)
    } else {
        let whole = [uid, euid, suid].iter().all(|id| *id < 0x1_0000);
        (
            [low(uid), low(euid), low(suid)],
            fsuid >= 0x1_0000 || !whole,
        )
    };
    let [uid, euid, suid] = ids;
    Ok(Creds {
        uid,
        gid: need!(at, c.gid),
        euid,
        egid,
        suid,
        sgid: need!(at, c.sgid),
        fsuid,
        fsgid,
        cap_inh: caps("cap_inh", &c.cap_inh)?,
        cap_prm: caps("cap_prm", &c.cap_prm)?,
        cap_eff: caps("cap_eff", &c.cap_eff)?,
        cap_bnd: caps("cap_bnd", &c.cap_bnd)?,
        cap_amb: caps("cap_amb", &c.cap_amb)?,
        securebits: at.req("secbits", c.secbits)?,
        groups: c.groups.clone(),
        no_new_privs: c.no_new_privs.unwrap_or(0) != 0,
        lsm_profile: lsm(at, c)?,
        ids_lost: lost || (fsgid >= 0x1_0000 && egid != fsgid),
    })
}

/// What a security module says of the thread, if that confines it.
fn lsm(at: &At, c: &proto::CredsEntry) -> Result<Option<String>, Error> {
    for (field, text) in [
        ("lsm_profile", &c.lsm_profile),
        ("lsm_sockcreate", &c.lsm_sockcreate),
    ] {
        let text = at.text(field, text.clone().unwrap_or_default(), 4095)?;
        if !text.is_empty() && text.trim_end() != "unconfined" {
            return Ok(Some(text));
        }
    }
    if c.apparmor_data.as_ref().is_some_and(|d| !d.is_empty()) {
        return Ok(Some("AppArmor data".to_owned()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(uid: u32, euid: u32, fsuid: u32) -> Creds {
        let entry = proto::CredsEntry {
            uid: Some(uid),
            euid: Some(euid),
            suid: Some(uid),
            fsuid: Some(fsuid),
            gid: Some(0),
            egid: Some(0),
            sgid: Some(0),
            fsgid: Some(0),
            secbits: Some(0),
            cap_eff: vec![0xffff_ffff, 0x1ff],
            ..Default::default()
        };
        creds(&At::file("core-1.img"), &entry).unwrap()
    }

    #[test]
    fn rubbish_in_the_upper_half_of_ids_is_cut() {
        let c = entry(0xbef1_03e8, 0x1234_03e9, 1001);
        assert_eq!(
            (c.uid, c.euid, c.suid, c.ids_lost),
            (1000, 1001, 1000, false)
        );
        assert_eq!(c.cap_eff, 0x1ff_ffff_ffff);
        // The 16-bit call says 65534, the kernel's text 100000.
        assert!(entry(65534, 65534, 100_000).ids_lost);
        // A dumper without that fault.
        let c = entry(100_000, 100_000, 100_000);
        assert_eq!((c.uid, c.ids_lost), (100_000, false));
        // setfsuid: nothing wrong with small ids.
        let c = entry(0, 0, 1000);
        assert_eq!((c.uid, c.euid, c.fsuid, c.ids_lost), (0, 0, 1000, false));
    }

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
