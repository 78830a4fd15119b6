//! Threads: their rows, where each one's signal frame goes when it leaves, and interrupted restartable sequences.

use armrest_abi::consts::{CLONE_FOR_THREAD, SS_DISABLE, SS_ONSTACK};
use armrest_abi::{CloneArgs, FRAME_SIZE, Queued, Range, Rows, Rseq, ThreadArgs, want};
use armrest_arch::{AltStack, Regs, Vfp, sigframe};
use armrest_images::{LiveTask, RseqCs, Task, Thread, Vma, VmaKind};

use crate::consts;
use crate::machine::Machine;
use crate::types::{Exit, Refusal, RefusalKind, Tables};
use crate::{finish, u32_of};

/// Fill the tables of threads and pending signals; addresses come later.
pub fn rows(task: &Task, live: &LiveTask, machine: &Machine, traced: bool, tables: &mut Tables) {
    for t in &live.threads {
        let first = tables.queued.len();
        if t.tid == task.pid {
            // Only the leader may fill the shared queue with what others sent.
            tables
                .queued
                .extend(live.pending.iter().map(|i| queued(i, 0)));
        }
        tables.queued.extend(t.pending.iter().map(|i| queued(i, 1)));
        if traced {
            tables.queued.push(finish::here_i_am());
        }
        let queue = Rows {
            first: u32_of(first),
            count: u32_of(tables.queued.len() - first),
        };
        let (policy, priority) = t.sched.unwrap_or((0, 0));
        tables.threads.push(ThreadArgs {
            last_pid: last_pid(t.tid),
            tid: t.tid,
            want: wants(t, t.tid == task.pid, machine),
            tls: t.tls,
            clear_tid: t.clear_tid,
            robust_head: t.robust.0,
            robust_len: t.robust.1,
            rseq: t.rseq.map_or(Rseq::default(), |(addr, len, sig, _)| Rseq {
                addr,
                len,
                sig,
            }),
            comm: name(t.comm.as_deref().unwrap_or(&task.comm)),
            pdeath: t.pdeath,
            policy,
            priority,
            nice: t.nice.unwrap_or(0),
            queue,
            ..ThreadArgs::default()
        });
    }
}

/// What of threads cannot be restored on this machine, or not at all.
pub fn refuse(live: &LiveTask, machine: &Machine, out: &mut Vec<Refusal>) {
    const RESET_ON_FORK: u32 = 0x4000_0000;
    let mut no = |kind, what: String, hint: &str| {
        out.push(Refusal {
            kind,
            what,
            hint: hint.into(),
        });
    };
    for t in &live.threads {
        let tid = t.tid;
        if let Some((policy, _)) = t.sched {
            match policy & !RESET_ON_FORK {
                0 | 3 | 5 => {}
                1 | 2 if machine.may_nice || t.sched == Some(machine.own_sched) => {}
                1 | 2 => no(
                    RefusalKind::Machine,
                    format!("tid {tid}: a real-time scheduling policy"),
                    "needs CAP_SYS_NICE: restore as root",
                ),
                policy => no(
                    RefusalKind::Unsupported,
                    format!("tid {tid}: scheduling policy {policy}"),
                    "the images do not record the parameters of SCHED_DEADLINE",
                ),
            }
        }
        if let Some(nice) = t.nice
            && nice < machine.own_nice
            && !machine.may_nice
        {
            no(
                RefusalKind::Machine,
                format!(
                    "tid {tid}: nice value {nice}, and armrest runs with {}",
                    machine.own_nice
                ),
                "needs CAP_SYS_NICE: restore as root, or run armrest with that nice value",
            );
        }
        match t.rseq_cs {
            Some(RseqCs::Unreadable(at)) => no(
                RefusalKind::Unsupported,
                format!("tid {tid}: a restartable sequence at {at:#x} that the images do not hold"),
                "dump it again: it is rarely in one",
            ),
            Some(cs @ RseqCs::Section { flags, .. }) if flags & 7 != 0 && in_section(t, cs) => no(
                RefusalKind::Unsupported,
                format!("tid {tid}: a restartable sequence that does not want to be restarted"),
                "dump it again: it is rarely in one",
            ),
            _ => {}
        }
    }
}

fn in_section(t: &Thread, cs: RseqCs) -> bool {
    match cs {
        RseqCs::Section { start, len, .. } => t.regs[15].wrapping_sub(start) < len,
        RseqCs::Unreadable(_) => false,
    }
}

/// The program counter that a thread starts with: that of the dump; but a restartable sequence that was interrupted is
/// aborted, as the kernel does it at any preemption. (A registration that outlives this is cleared by the kernel itself.)
pub fn goes_on_at(t: &Thread) -> u32 {
    match t.rseq_cs {
        Some(cs @ RseqCs::Section { abort, .. }) if in_section(t, cs) => abort,
        _ => t.regs[15],
    }
}

/// A signal as the blob queues it.
pub fn queued(info: &[u8; 128], private: u32) -> Queued {
    let mut words = [0; 32];
    for (word, bytes) in words.iter_mut().zip(info.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    Queued {
        signo: words[0],
        private,
        info: words,
    }
}

fn wants(t: &Thread, leader: bool, machine: &Machine) -> u32 {
    let mut bits = 0;
    // The leader's always: until here the signal of the restore itself is set, so that a lost harness leaves nothing.
    if leader || t.pdeath != 0 {
        bits |= want::PDEATH;
    }
    if t.robust.1 != 0 && machine.has_robust_list {
        bits |= want::ROBUST;
    }
    if t.rseq.is_some_and(|r| r.0 != 0) && machine.has_rseq {
        bits |= want::RSEQ;
    }
    if t.sched.is_some_and(|s| s != machine.own_sched) {
        bits |= want::SCHED;
    }
    if t.nice.is_some_and(|n| n != machine.own_nice) {
        bits |= want::NICE;
    }
    bits
}

fn name(text: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    let len = text.len().min(15);
    comm[..len].copy_from_slice(&text.as_bytes()[..len]);
    comm
}

fn last_pid(tid: u32) -> [u8; 12] {
    let mut digits = [b' '; 12];
    let text = tid.saturating_sub(1).to_string();
    let blanks = digits.len() - text.len();
    digits[blanks..].copy_from_slice(text.as_bytes());
    digits
}

/// Give each thread but the leader its stack out of `stacks`, the ends of which are multiples of `size`.
pub fn stacks(rows: &mut [ThreadArgs], stacks: Range, size: u32) {
    for (end, row) in (1..).map(|i| stacks.start + i * size).zip(&mut rows[1..]) {
        row.stack = end;
        row.clone = CloneArgs {
            flags: u64::from(CLONE_FOR_THREAD),
            stack: u64::from(end - 8),
            stack_size: 8,
            set_tid_size: 1,
            ..CloneArgs::default()
        };
    }
}

/// A thread whose stack pointer is nearer than this below another's may be a neighbour whose stack reaches up to it:
/// nothing says where one stack ends and the next begins. Twice the least stack that C libraries give a thread (2 KiB).
const NEAR: u32 = 4 << 10;

/// Where each thread's signal frame can go in the task's own memory: where the kernel itself would put one, on an
/// alternate stack that is not in use, else below sp, if that is in one private writable mapping and no other thread's
/// frame or stack pointer is there, nor near below it without a gap or a guard between. Stacks of no thread are not
/// known: what lies below sp is free as far as the ABI and any signal go.
pub fn exit_frames(live: &LiveTask) -> Vec<Option<u32>> {
    let placed: Vec<Option<Place>> = live
        .threads
        .iter()
        .map(|t| exit_frame(t, &live.mm.vmas))
        .collect();
    let mut frames: Vec<Option<u32>> = placed.iter().map(|p| Some(p.as_ref()?.frame)).collect();
    let mut taken: Vec<(u32, usize)> = (0..)
        .zip(&live.threads)
        .map(|(i, t)| (t.regs[13], i))
        .collect();
    taken.sort_unstable();
    let at_sp = |range: Range, me: usize| {
        let first = taken.partition_point(|(sp, _)| *sp < range.start);
        taken[first..]
            .iter()
            .take_while(|(sp, _)| *sp < range.end)
            .any(|(_, i)| *i != me)
    };
    let mut order: Vec<usize> = (0..frames.len()).collect();
    order.sort_unstable_by_key(|i| frames[*i]);
    let mut end = 0;
    for i in order {
        let Some(start) = frames[i] else { continue };
        let range = Range {
            start,
            end: start + FRAME_SIZE,
        };
        let alone = Range {
            start: placed[i].as_ref().map_or(start, |p| p.alone_from),
            end: range.end,
        };
        if start < end || at_sp(alone, i) {
            frames[i] = None;
        } else {
            end = range.end;
        }
    }
    frames
}

/// A frame, and from where on no other thread's stack pointer may be.
struct Place {
    frame: u32,
    alone_from: u32,
}

fn exit_frame(t: &Thread, vmas: &[Vma]) -> Option<Place> {
    let sp = t.regs[13];
    let (top, bottom) = match t.altstack {
        Some((low, size, flags)) if flags & SS_DISABLE == 0 && size > FRAME_SIZE + 8 => {
            // Whether it is in use the dumper may not have seen: it asks on another stack. The stack pointer tells.
            let within = sp.wrapping_sub(low).wrapping_sub(1) < size;
            match (within, flags & SS_ONSTACK != 0) {
                (true, _) => (sp, low),
                (false, true) => (sp, 0),
                (false, false) => (low.checked_add(size)?, low),
            }
        }
        _ => (sp, 0),
    };
    let frame = top.checked_sub(FRAME_SIZE)? & !7;
    // Sorted and apart: the one that ends above the frame.
    let at = vmas.partition_point(|v| v.range.end() <= frame);
    let v = vmas.get(at)?;
    let fits = v.range.has(frame)
        && top <= v.range.end()
        && !v.shared
        && v.prot & consts::PROT_WRITE != 0
        && matches!(v.kind, VmaKind::Anon | VmaKind::File { .. });
    if !fits || frame < bottom {
        return None;
    }
    // An alternate stack has bounds that are known.
    let near = top.saturating_sub(NEAR - 1);
    let mut alone_from = frame;
    if bottom == 0 {
        alone_from = v.range.start();
        for below in vmas[..at].iter().rev() {
            let joined = below.range.end() == alone_from && below.prot & consts::PROT_WRITE != 0;
            if !joined || alone_from <= near {
                break;
            }
            alone_from = below.range.start();
        }
        alone_from = alone_from.max(near);
    }
    Some(Place { frame, alone_from })
}

/// Write down where the frames go: the leader's only if it leaves by the sigpage. Where a tracer takes the area away, a
/// thread can use its frame where it is: the leader does not come to its end before the others are out.
pub fn leave(
    rows: &mut [ThreadArgs],
    frames: &[Option<u32>],
    exit: Exit,
    refuse: &mut Vec<Refusal>,
) {
    for (i, (row, frame)) in rows.iter_mut().zip(frames).enumerate() {
        if i == 0 && exit.sigpage().is_none() {
            continue;
        }
        match frame {
            Some(frame) => row.exit_frame = *frame,
            None if matches!(exit, Exit::Ptrace(_)) => {}
            None => refuse.push(Refusal {
                kind: RefusalKind::Unsupported,
                what: format!(
                    "tid {}: no room for a signal frame below its stack pointer",
                    row.tid
                ),
                hint: "dump it when less of that stack is in use".into(),
            }),
        }
    }
}

/// The signal frame that a thread enters its program by.
pub(crate) fn frame(t: &Thread) -> Vec<u8> {
    let mut r = [0; 16];
    r.copy_from_slice(&t.regs[..16]);
    r[15] = goes_on_at(t);
    let alt = t
        .altstack
        .map_or(AltStack::NONE, |(sp, size, flags)| AltStack {
            sp,
            size,
            flags,
        });
    sigframe(
        &Regs {
            r,
            cpsr: t.regs[16],
        },
        &Vfp {
            d: t.vfp,
            fpscr: t.fpscr,
        },
        t.sigmask,
        alt,
    )
    .to_vec()
}
