//! What a checkpoint holds that a restore cannot put back: everything at once, by name, before anything is touched.

use std::collections::BTreeMap;

use armrest_images::{Checkpoint, LiveTask, Task, TaskState, Thread, VmaKind};

use crate::machine::Machine;
use crate::memory;
use crate::types::{Refusal, RefusalKind};

/// Instruction sets of AT_HWCAP that a program may have been built for (arch/arm/include/uapi/asm/hwcap.h), by bit.
/// Left out: EVTSTRM (21), a detail of delays; THUMBEE (11), which no toolchain emits; LPAE (20), which only says that
/// 64-bit loads are atomic.
const HWCAPS: [(u32, &str); 15] = [
    (0, "swp"),
    (1, "half"),
    (2, "thumb"),
    (4, "fastmult"),
    (6, "vfp"),
    (7, "edsp"),
    (9, "iwmmxt"),
    (12, "neon"),
    (13, "vfpv3"),
    (14, "vfpv3d16"),
    (15, "tls"),
    (16, "vfpv4"),
    (17, "idiva"),
    (18, "idivt"),
    (19, "vfpd32"),
];

/// Collect the refusals of what tasks share, and of what belongs to none of them.
pub fn whole(cp: &Checkpoint, out: &mut Vec<Refusal>) {
    let mut no = |what: String, hint: &str| {
        out.push(Refusal {
            kind: RefusalKind::Unsupported,
            what,
            hint: hint.to_owned(),
        });
    };
    let cgroups = |t: &Task| t.live.as_ref().map(|l| l.cgroups.clone());
    for task in cp.tasks.iter().skip(1).filter(|t| t.live.is_some()) {
        if cp.tasks.first().map(cgroups) != Some(cgroups(task)) {
            no(
                format!("pid {}: a cgroup other than the first task's", task.pid),
                "this version moves whole trees into the cgroup of the first task",
            );
        }
    }
    for (one, other, what) in shared(cp) {
        no(
            format!("pid {one} and pid {other}: one {what}"),
            "this version restores processes that have such things to themselves",
        );
    }
    for other in &cp.others {
        no(other.clone(), "this version does not restore it");
    }
    for s in cp.segments.iter().filter(|s| s.hugetlb != 0) {
        no(
            format!("SysV segment {}: huge pages", s.perm.id),
            "this version does not restore it",
        );
    }
}

/// Collect the refusals of things of a task that this version does not restore.
pub fn unsupported(cp: &Checkpoint, task: usize, out: &mut Vec<Refusal>) {
    let mut no = |what: String, hint: &str| {
        out.push(Refusal {
            kind: RefusalKind::Unsupported,
            what,
            hint: hint.to_owned(),
        });
    };
    if let Some(task) = cp.tasks.get(task) {
        match task.state {
            TaskState::Alive => {}
            TaskState::Dead { .. } => {
                no(format!("pid {}: a zombie", task.pid), "nothing to restore")
            }
            // 0: it is not recorded. SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU.
            TaskState::Stopped { signo: 0 | 19..=22 } => {}
            TaskState::Stopped { signo } => no(
                format!("pid {}: stopped by signal {signo}", task.pid),
                "no task is stopped by that: the images are damaged",
            ),
        }
        if let Some(live) = &task.live {
            live_task(task, live, &mut no);
        }
    }
}

/// Pairs of processes that share what each would get a copy of.
fn shared(cp: &Checkpoint) -> Vec<(u32, u32, &'static str)> {
    type Number = fn(&LiveTask) -> Option<u32>;
    let kinds: [(Number, &str); 3] = [
        (|l| l.shares.vm, "address space (CLONE_VM)"),
        (|l| l.shares.fs, "fs state (CLONE_FS)"),
        (
            |l| l.shares.sighand,
            "table of signal actions (CLONE_SIGHAND)",
        ),
    ];
    let mut pairs = Vec::new();
    for (number, what) in kinds {
        let mut first = BTreeMap::new();
        for t in &cp.tasks {
            if let Some(n) = t.live.as_ref().and_then(number) {
                let one = *first.entry(n).or_insert(t.pid);
                if one != t.pid {
                    pairs.push((one, t.pid, what));
                }
            }
        }
    }
    pairs
}

fn live_task(task: &Task, live: &LiveTask, no: &mut dyn FnMut(String, &str)) {
    let later = "this version does not restore such memory";
    let pid = task.pid;
    if let Some(tid) = live.thread_apart {
        no(
            format!("tid {tid}: a cgroup other than its leader's"),
            "this version moves whole tasks into their cgroup",
        );
    }
    match live.personality {
        None => no(
            format!("pid {pid}: a personality that the dumper wrote unreadably"),
            "the image holds hex digits read as decimal",
        ),
        Some(0) if live.mm.vmas.iter().any(|v| v.grows_down && v.prot & 4 != 0) => no(
            format!("pid {pid}: a personality that the dumper wrote unreadably"),
            "the image says 0, and an executable stack says READ_IMPLIES_EXEC: 00c00000 was read up to its first letter",
        ),
        Some(_) => {}
    }
    for t in &live.threads {
        thread(pid, t, no);
    }
    if !live.mm.aios.is_empty() {
        no(
            format!("pid {pid}: {} AIO contexts", live.mm.aios.len()),
            "AIO rings are not restored",
        );
    }
    for v in &live.mm.vmas {
        let at = || format!("VMA {:08x}-{:08x}", v.range.start(), v.range.end());
        match v.kind {
            VmaKind::Socket => no(format!("{}: packet socket ring", at()), later),
            VmaKind::AioRing => no(format!("{}: AIO ring", at()), later),
            VmaKind::Plugin => no(format!("{}: device memory of a CRIU plugin", at()), later),
            _ if v.droppable => no(format!("{}: droppable memory (MAP_DROPPABLE)", at()), later),
            _ => {}
        }
        // Contents are read into private memory alone: what others see is never written through a mapping.
        let foreign = v.shared || matches!(v.kind, VmaKind::SysV { .. } | VmaKind::Vectors);
        if foreign && memory::reads_into(v, &live.pages.runs) {
            no(
                format!("{}: private contents for memory that is shared", at()),
                "no dumper writes that: the images are damaged",
            );
        }
    }
}

fn thread(pid: u32, t: &Thread, no: &mut dyn FnMut(String, &str)) {
    let later = "this version does not restore it";
    let who = format!("pid {pid}, tid {}", t.tid);
    if let Some(c) = &t.creds {
        if c.ids_lost {
            no(
                format!("{who}: user ids of 65536 or more, which the dumper lost"),
                "CRIU reads ids with 16-bit calls on ARM",
            );
        }
        if let Some(label) = &c.lsm_profile {
            no(
                format!("{who}: confined by a security module ({label})"),
                later,
            );
        }
    }
}

/// Compare the CPU of the checkpoint (its auxiliary vector) with this one.
pub fn cpu(auxv: &[u32], platform: Option<&str>, machine: &Machine, out: &mut Vec<Refusal>) {
    let get = |key: u32| auxv.chunks_exact(2).find(|p| p[0] == key).map(|p| p[1]);
    let mut no = |what: String, hint: &str| {
        out.push(Refusal {
            kind: RefusalKind::Machine,
            what,
            hint: hint.to_owned(),
        });
    };
    if let Some(was) = platform.filter(|p| family(p) != family(&machine.platform)) {
        no(
            format!(
                "the program was told of platform {was}, this is {}",
                machine.platform
            ),
            "restore on a CPU of the same architecture",
        );
    }
    if let Some(size) = get(6).filter(|s| *s != machine.page_size) {
        no(
            format!(
                "page size {size} in the checkpoint, {} here",
                machine.page_size
            ),
            "the program has computed with its page size",
        );
    }
    if let Some(caps) = get(16) {
        let missing: Vec<&str> = HWCAPS
            .iter()
            .filter(|(b, _)| caps >> b & 1 == 1 && machine.hwcap >> b & 1 == 0)
            .map(|(_, n)| *n)
            .collect();
        if !missing.is_empty() {
            no(
                format!(
                    "the program was told of CPU features that are missing here: {}",
                    missing.join(", ")
                ),
                "restore on a CPU that has them",
            );
        }
    }
    if let Some(caps) = get(26) {
        let missing = caps & !machine.hwcap2;
        if missing != 0 {
            no(
                format!("CPU features (AT_HWCAP2 {missing:#x}) are missing here"),
                "aes 1, pmull 2, sha1 4, sha2 8, crc32 10: restore on a CPU that has them",
            );
        }
    }
}

/// `v7l` and `v8l` run the same ARMv7 code; the last letter is the byte order.
fn family(platform: &str) -> (bool, Option<char>) {
    let version = platform
        .trim_start_matches('v')
        .trim_end_matches(['l', 'b'])
        .parse::<u32>()
        .unwrap_or(7);
    (version >= 7, platform.chars().last().filter(|c| *c == 'b'))
}

/// Numbers of descriptors that hardly any kernel gives.
pub fn numbers(live: &LiveTask, out: &mut Vec<Refusal>) {
    for fd in live.fds.iter().filter(|f| f.fd >= 1 << 20) {
        out.push(Refusal {
            kind: RefusalKind::Unsupported,
            what: format!(
                "fd {}: a number above the kernel's usual limit (fs.nr_open)",
                fd.fd
            ),
            hint: "this version does not restore it".into(),
        });
    }
}
