//! Limits of the IPC namespace: what is set where the namespace is ours, what is said where it is not, and what the
//! checkpoint's objects need in either case.

use armrest_images::{Checkpoint, IpcLimits};

use crate::types::{Refusal, RefusalKind};

/// CAP_SYS_RESOURCE: a queue may take more than `msgmnb`.
const SYS_RESOURCE: u64 = 1 << 24;

/// One file below /proc/sys and the text to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// Below /proc/sys, e.g. `kernel/msgmax`.
    pub path: &'static str,
    /// The value as the kernel prints it, one blank between numbers.
    pub value: String,
}

/// What becomes of the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Written before any object is made: as large as the larger of both.
    pub raise: Vec<Sysctl>,
    /// Written when all objects are made: as in the checkpoint.
    pub exact: Vec<Sysctl>,
    /// For the summary.
    pub notes: Vec<String>,
}

/// One limit: where it is, and its numbers.
type Row = (&'static str, Vec<u64>);

/// The rows of limits that the kernel lists as numbers.
fn rows(l: &IpcLimits) -> Vec<Row> {
    let mut rows: Vec<Row> = vec![
        ("kernel/sem", l.sem.map(u64::from).to_vec()),
        ("kernel/msgmax", vec![l.msgmax.into()]),
        ("kernel/msgmnb", vec![l.msgmnb.into()]),
        ("kernel/msgmni", vec![l.msgmni.into()]),
        ("kernel/shmmax", vec![l.shmmax]),
        ("kernel/shmall", vec![l.shmall]),
        ("kernel/shmmni", vec![l.shmmni.into()]),
        ("kernel/shm_rmid_forced", vec![l.shm_rmid_forced.into()]),
    ];
    let names = [
        "fs/mqueue/queues_max",
        "fs/mqueue/msg_max",
        "fs/mqueue/msgsize_max",
        "fs/mqueue/msg_default",
        "fs/mqueue/msgsize_default",
    ];
    let known = names.into_iter().zip(l.mqueue);
    rows.extend(known.filter_map(|(n, v)| Some((n, vec![u64::from(v?)]))));
    rows
}

fn text(numbers: &[u64]) -> String {
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    words.join(" ")
}

/// Decide. `here` are the limits of the namespace that the objects are made in, `None` where they could not be read or
/// where the namespace is yet to be made; `own` says that the namespace is new and ours.
pub fn limits(cp: &Checkpoint, here: Option<&IpcLimits>, own: bool) -> Limits {
    let mut out = Limits::default();
    let (Some(was), Some(here)) = (&cp.ipc_limits, here) else {
        return out;
    };
    let there = rows(here);
    let mut differ = Vec::new();
    for (path, wanted) in rows(was) {
        let Some((_, now)) = there.iter().find(|r| r.0 == path) else {
            differ.push(format!("{path} ({}, not here)", text(&wanted)));
            continue;
        };
        if *now == wanted {
            continue;
        }
        if !own {
            differ.push(format!("{path} ({}, {} here)", text(&wanted), text(now)));
            continue;
        }
        let larger: Vec<u64> = now.iter().zip(&wanted).map(|(a, b)| *a.max(b)).collect();
        if larger != *now && path != "kernel/shm_rmid_forced" {
            out.raise.push(Sysctl {
                path,
                value: text(&larger),
            });
        }
        out.exact.push(Sysctl {
            path,
            value: text(&wanted),
        });
    }
    if !differ.is_empty() {
        out.notes.push(format!(
            "limits of the IPC namespace that differ from the checkpoint's: {}",
            differ.join(", ")
        ));
    }
    let names = [
        "kernel/msg_next_id",
        "kernel/sem_next_id",
        "kernel/shm_next_id",
    ];
    for (path, id) in names.into_iter().zip(was.next) {
        match id {
            Some(id) if own => out.exact.push(Sysctl {
                path,
                value: id.to_string(),
            }),
            Some(id) => out
                .notes
                .push(format!("{path} was {id} in the checkpoint and is not set")),
            None => {}
        }
    }
    if here.shm_rmid_forced == 1 && !own && !cp.segments.is_empty() {
        out.notes.push(
            "kernel/shm_rmid_forced is 1 here: segments that nobody attaches go when armrest ends"
                .into(),
        );
    }
    out
}

/// What the objects need and a namespace that is not ours does not allow.
pub fn needs(
    cp: &Checkpoint,
    here: Option<&IpcLimits>,
    own: bool,
    cap_eff: u64,
    out: &mut Vec<Refusal>,
) {
    let Some(here) = here.filter(|_| !own) else {
        return;
    };
    let mut no = |what: String, sysctl: &str| {
        out.push(Refusal {
            kind: RefusalKind::Machine,
            what,
            hint: format!("raise {sysctl}, or use --new-namespaces"),
        });
    };
    for s in cp.segments.iter().filter(|s| s.size > here.shmmax) {
        let (id, size, max) = (s.perm.id, s.size, here.shmmax);
        no(
            format!("SysV segment {id}: {size} bytes, kernel.shmmax is {max}"),
            "kernel.shmmax",
        );
    }
    for s in &cp.semaphores {
        let (id, count, max) = (s.perm.id, s.values.len(), here.sem[0]);
        if u32::try_from(count).is_ok_and(|c| c > max) || count > 65535 {
            no(
                format!("SysV semaphore set {id}: {count} semaphores, kernel.sem allows {max}"),
                "kernel.sem",
            );
        }
    }
    for q in &cp.queues {
        let id = q.perm.id;
        if q.qbytes > here.msgmnb && cap_eff & SYS_RESOURCE == 0 {
            let (bytes, max) = (q.qbytes, here.msgmnb);
            no(
                format!("SysV message queue {id}: {bytes} bytes, kernel.msgmnb is {max}"),
                "kernel.msgmnb",
            );
        }
        let largest = q.messages.iter().map(|m| m.text.len()).max().unwrap_or(0);
        if u32::try_from(largest).map_or(true, |n| n > here.msgmax) {
            let max = here.msgmax;
            no(
                format!(
                    "SysV message queue {id}: a message of {largest} bytes, kernel.msgmax is {max}"
                ),
                "kernel.msgmax",
            );
        }
    }
}
