//! Threads: registers, signals, scheduling, what the kernel keeps addresses for.

use super::at::{At, need, word};
use super::creds::creds;
use super::source::Source;
use super::task::{Context, length, machine, queue};
use super::{Node, memory};
use crate::checkpoint::{Thread, Vma};
use crate::error::{Error, Fault};
use crate::{magic, proto};

/// The threads of a task, and the control groups of each.
pub(super) fn threads(
    source: &mut Source<'_>,
    context: &Context<'_>,
    node: &Node,
    tc: &proto::TaskCore,
    vmas: &[Vma],
) -> Result<(Vec<Thread>, Vec<Option<u32>>), Error> {
    let (mut threads, mut sets) = (Vec::new(), Vec::new());
    for tid in node.tids.iter().copied() {
        let name = format!("core-{tid}.img");
        let file = At::file(&name);
        let read;
        let core = if tid == node.pid {
            &node.core
        } else {
            read = source.one::<proto::Core>(&name, magic::CORE)?;
            machine(&file, &read)?;
            &read
        };
        let own_mask = core.thread_core.as_ref().and_then(|t| t.blk_sigset);
        let mask = if tid == node.pid {
            tc.blk_sigset
        } else {
            own_mask
        };
        let thread = thread(&file, core, tid, mask, context.filters)?;
        for (field, address, low) in [("pc", thread.regs[15], 0), ("sp", thread.regs[13], 1)] {
            // An empty stack points one past its area.
            let inside = |a: u32| memory::mapped(vmas, a);
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
    Ok((threads, sets))
}

/// Checks one; `filters`: how many seccomp filters there are.
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
    let regs = registers(&at, info)?;
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
    let sched = scheduling(&at, tc)?;
    let pdeath = tc.pdeath_sig.unwrap_or(0);
    if pdeath > 64 {
        return Err(at.bad("pdeath_sig", pdeath, "no signal"));
    }
    let seccomp = seccomp(&at, tc, filters)?;
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
        seccomp,
    })
}

/// r0 to r10, fp, ip, sp, lr, pc, cpsr, orig_r0.
fn registers(at: &At, info: &proto::ThreadInfoArm) -> Result<[u32; 18], Error> {
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
    Ok(regs)
}

/// Policy and priority, if recorded; the nice value is in its bounds.
fn scheduling(at: &At, tc: &proto::ThreadCore) -> Result<Option<(u32, u32)>, Error> {
    if tc.sched_nice.is_some_and(|n| !(-20..=19).contains(&n)) {
        let nice = tc.sched_nice.unwrap_or(0);
        return Err(at.bad(
            "sched_nice",
            u64::from(nice.unsigned_abs()),
            "not in -20 to 19",
        ));
    }
    match tc.sched_policy {
        Some(p) if p & !0x4000_0000 > 7 => Err(at.unknown("sched_policy", p)),
        Some(p) => Ok(Some((p, tc.sched_prio.unwrap_or(0)))),
        None => Ok(None),
    }
}

/// Mode, and the first filter of the chain.
fn seccomp(at: &At, tc: &proto::ThreadCore, filters: u32) -> Result<(u32, Option<u32>), Error> {
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
    Ok((mode, tc.seccomp_filter))
}
