//! Who the threads were and what judges their calls: the rows of the table of credentials, thread by thread.

use armrest_abi::{Cred, consts as c, cred};
use armrest_blob::kernel::nr;
use armrest_images::{Checkpoint, LiveTask, SeccompFilter, Thread};

use crate::creds::{self, Become};
use crate::finish::LAST_CALLS;
use crate::machine::Machine;
use crate::seccomp::{self, Call};
use crate::types::{CredCall, CredData, Options, Refusal, RefusalKind, Tables};
use crate::u32_of;
use crate::words;

/// `SECCOMP_FILTER_FLAG_TSYNC`, `_LOG` and `_SPEC_ALLOW`: what is put back.
const FILTER_FLAGS: u32 = 1 | 2 | 4;
/// Registrations that `membarrier` takes, by bit (include/uapi/linux/membarrier.h).
pub(crate) const MEMBARRIERS: [(u32, &str); 4] = [
    (1 << 2, "GLOBAL_EXPEDITED"),
    (1 << 4, "PRIVATE_EXPEDITED"),
    (1 << 6, "PRIVATE_EXPEDITED_SYNC_CORE"),
    (1 << 8, "PRIVATE_EXPEDITED_RSEQ"),
];

/// The calls of all threads.
#[derive(Debug, Default)]
pub struct Identities {
    /// The table.
    pub rows: Vec<CredCall>,
    /// For each thread of the checkpoint: first row, rows, rows of filters.
    pub threads: Vec<[u32; 3]>,
    /// What comes out otherwise, in sentences.
    pub notes: Vec<String>,
    /// Of the calls of the way out, those that filters of the leader do not let pass: `finish` finds another way.
    pub forbidden: Vec<u32>,
    /// The leader installs its filters for all threads.
    pub for_all: bool,
    /// Filters of the leader forbid what it needs to wait at the gate: it waits without calls.
    pub spins: bool,
}

impl Identities {
    /// Into the tables, whose threads are there.
    pub fn place(&self, tables: &mut Tables) {
        tables.creds.clone_from(&self.rows);
        for (row, [cred, creds, seals]) in tables.threads.iter_mut().zip(&self.threads) {
            (row.cred, row.creds, row.seals) = (*cred, *creds, *seals);
        }
    }
}

/// True if all threads have the leader's filters. The dumper says so by a flag, and then records them with the leader
/// alone; or it records the same chain with each.
fn shared(cp: &Checkpoint, live: &LiveTask) -> bool {
    let chain = |t: &Thread| {
        let first = t.seccomp.1.filter(|_| t.seccomp.0 == 2);
        first.map_or(Vec::new(), |f| cp.filter_chain(f))
    };
    let Some((leader, others)) = live.threads.split_first() else {
        return false;
    };
    let all = chain(leader);
    let said = all
        .iter()
        .any(|f| f.flags & c::SECCOMP_FILTER_FLAG_TSYNC != 0);
    let same = |t: &Thread| {
        let own = chain(t);
        (said && own.is_empty())
            || own.len() == all.len()
                && own
                    .iter()
                    .zip(&all)
                    .all(|(a, b)| (&a.program, a.flags) == (&b.program, b.flags))
    };
    !all.is_empty() && !others.is_empty() && others.iter().all(same)
}

/// True if the leader may not make the calls of a wait at the gate, or end itself there, once its filters are in force.
fn cannot_wait(cp: &Checkpoint, live: &LiveTask) -> bool {
    let forbids = |f: &&SeccompFilter| {
        let mut calls = [nr::FUTEX, nr::POLL, nr::EXIT_GROUP]
            .map(Call::any)
            .into_iter();
        calls.any(|call| seccomp::objection(&f.program, &call).is_some())
    };
    match live.threads.first().map(|t| t.seccomp) {
        Some((1, _)) => true,
        Some((2, Some(first))) => cp.filter_chain(first).iter().any(forbids),
        _ => false,
    }
}

/// What makes two threads take the same rows.
type Key<'a> = (Option<&'a armrest_images::Creds>, (u32, Option<u32>), bool);

/// Decide for all threads.
pub fn identities(
    cp: &Checkpoint,
    live: &LiveTask,
    machine: &Machine,
    options: &Options,
    refuse: &mut Vec<Refusal>,
) -> Identities {
    let mut out = Identities {
        for_all: shared(cp, live),
        spins: cannot_wait(cp, live),
        ..Identities::default()
    };
    let mut known: Vec<(Key<'_>, [u32; 3])> = Vec::new();
    // The parents of all others are of the tree themselves.
    let root = cp.tasks.first().and_then(|t| t.live.as_ref());
    let is_root = root.is_some_and(|r| std::ptr::eq(r, live));
    for (n, t) in live.threads.iter().enumerate() {
        if t.pdeath != 0 && options.detached && is_root {
            parent_death(live, t, &mut out, refuse);
        }
        let key = (t.creds.as_ref(), t.seccomp, n == 0);
        if let Some((_, rows)) = known.iter().find(|(k, _)| *k == key) {
            out.threads.push(*rows);
            continue;
        }
        let who = format!("tid {}", t.tid);
        let mut first = Vec::new();
        if n == 0 {
            membarrier(&who, live.membarrier, machine, &mut first, refuse);
        }
        let mut become_again = match &t.creds {
            Some(c) => creds::become_again(&who, c, &machine.own, options.any_ids, refuse),
            None => Become::default(),
        };
        become_again.calls.splice(0..0, first);
        let mut seals = filters(
            cp,
            (live, n),
            machine,
            out.for_all,
            &mut become_again,
            refuse,
        );
        out.forbidden.append(&mut seals.forbidden);
        for note in become_again.notes {
            if n == 0 {
                out.notes.push(note);
            } else if !out.notes.contains(&note) {
                out.notes.push(format!("{who}: {note}"));
            }
        }
        let (calls, seals) = (become_again.calls, seals.calls);
        let rows = [out.rows.len(), calls.len(), seals.len()].map(u32_of);
        out.rows.extend(calls);
        out.rows.extend(seals);
        out.threads.push(rows);
        known.push((key, rows));
    }
    let filtered = |t: &&Thread| t.seccomp.0 == 2;
    if !out.for_all && live.threads.iter().filter(filtered).count() > 1 {
        out.notes.push(
            "threads that shared their seccomp filters have copies now: a later SECCOMP_FILTER_FLAG_TSYNC fails".into(),
        );
    }
    for id in live.threads.iter().filter_map(|t| t.creds.as_ref()) {
        let overflow = [id.uid, id.suid, id.gid, id.egid, id.sgid].contains(&65534);
        let note = "an id of 65534 may have been one of 65536 or more: the dumper reads 16 bits";
        if overflow && !out.notes.iter().any(|n| n == note) {
            out.notes.push(note.into());
        }
    }
    out.notes.push(
        "not recorded by the dumper, so armrest's own: timer slack, CPU affinity, I/O priority"
            .into(),
    );
    out
}

/// A signal on the death of the parent that would end the program, where the parent, armrest, ends at once.
fn parent_death(live: &LiveTask, t: &Thread, out: &mut Identities, refuse: &mut Vec<Refusal>) {
    /// SIGCHLD, SIGCONT, SIGURG, SIGWINCH: ignored unless handled.
    const HARMLESS: [u32; 4] = [17, 18, 23, 28];
    let action = live.sigactions.iter().find(|a| a.0 == t.pdeath);
    let handler = action.map_or(0, |a| a.1.handler);
    if handler == 0 && !HARMLESS.contains(&t.pdeath) {
        refuse.push(Refusal {
            kind: RefusalKind::Unsupported,
            what: format!(
                "tid {}: a signal on the death of its parent ({}), which would end it at once with --restore-detached",
                t.tid, t.pdeath
            ),
            hint: "restore without -d: armrest is its parent and stays".into(),
        });
    } else {
        out.notes.push(format!(
            "tid {}: signal {} on the death of its parent comes when armrest ends",
            t.tid, t.pdeath
        ));
    }
}

fn membarrier(
    who: &str,
    wanted: u32,
    machine: &Machine,
    calls: &mut Vec<CredCall>,
    refuse: &mut Vec<Refusal>,
) {
    let mut rest = wanted;
    for (bit, name) in MEMBARRIERS.iter().filter(|(bit, _)| wanted & bit != 0) {
        rest &= !bit;
        if machine.membarrier & bit == 0 {
            refuse.push(Refusal {
                kind: RefusalKind::Machine,
                what: format!("{who}: registered for membarrier {name}, which is missing here"),
                hint: "restore on a kernel that has it (CONFIG_MEMBARRIER)".into(),
            });
            continue;
        }
        let cred = Cred {
            call: cred::MEMBARRIER,
            args: [*bit, 0, 0, 0, 0],
            expect: 0,
        };
        calls.push(CredCall { cred, data: None });
    }
    if rest != 0 {
        refuse.push(Refusal {
            kind: RefusalKind::Unsupported,
            what: format!("{who}: membarrier registrations {rest:#x}"),
            hint: "this version does not know them".into(),
        });
    }
}

/// What comes after everything else of a thread.
#[derive(Default)]
struct Seals {
    /// Filters, which are installed last.
    calls: Vec<CredCall>,
    /// Of the calls of the way out, those that they do not let pass. Of a program of one thread only.
    forbidden: Vec<u32>,
}

/// The filters of a thread (by number): among the calls by which it becomes who it was, if they need its rights, else last.
fn filters(
    cp: &Checkpoint,
    (live, thread): (&LiveTask, usize),
    machine: &Machine,
    for_all: bool,
    become_again: &mut Become,
    refuse: &mut Vec<Refusal>,
) -> Seals {
    let mut out = Seals::default();
    let (leader, alone) = (thread == 0, live.threads.len() == 1);
    let (last, calls) = (become_again.filters_last, &mut become_again.calls);
    let Some(t) = live.threads.get(thread) else {
        return out;
    };
    let mut no = |kind, what: String, hint: &str| {
        refuse.push(Refusal {
            kind,
            what: format!("tid {}: {what}", t.tid),
            hint: hint.into(),
        })
    };
    let (mode, first) = t.seccomp;
    if mode == 1 {
        if alone {
            // It leaves read, write, exit and rt_sigreturn: only a tracer, who suspends it, gets the rest out of the way.
            out.forbidden.extend(LAST_CALLS.map(|c| c.0));
            let cred = Cred {
                call: cred::SECCOMP,
                args: [c::SECCOMP_SET_MODE_STRICT, 0, 0, 0, 0],
                expect: 0,
            };
            out.calls.push(CredCall { cred, data: None });
        } else {
            no(
                RefusalKind::Unsupported,
                "seccomp's strict mode in a program of many threads".into(),
                "this version does not restore it",
            );
        }
        return out;
    }
    let of_leader = live.threads.first().and_then(|l| l.seccomp.1);
    let first = if for_all {
        of_leader
    } else {
        first.filter(|_| mode == 2)
    };
    let Some(first) = first else {
        return out;
    };
    if !machine.has_seccomp {
        no(
            RefusalKind::Machine,
            "seccomp filters, and there are none here".into(),
            "restore on a kernel with CONFIG_SECCOMP_FILTER",
        );
        return out;
    }
    let chain = cp.filter_chain(first);
    let mut rows: Vec<CredCall> = chain.iter().map(|f| install(f)).collect();
    for row in rows.iter_mut().filter(|_| for_all) {
        row.cred.args[1] |= c::SECCOMP_FILTER_FLAG_TSYNC;
    }
    if for_all && !leader {
        rows.clear();
    }
    for f in &chain {
        if let Some(why) = seccomp::fault(&f.program) {
            no(
                RefusalKind::Unsupported,
                format!("a seccomp filter with {why}"),
                "no kernel takes it: the images are damaged",
            );
        }
        let other = f.flags & !FILTER_FLAGS;
        if other != 0 {
            no(
                RefusalKind::Unsupported,
                format!("a seccomp filter with flags {other:#x}"),
                "a supervisor (SECCOMP_FILTER_FLAG_NEW_LISTENER) is not restored",
            );
        }
    }
    // What comes after them: the rest of their own thread's rows, and the way out.
    let mut after: Vec<Call> = Vec::new();
    if last || (for_all && !leader) {
        out.calls.extend(rows);
    } else if for_all {
        no(
            RefusalKind::Unsupported,
            "seccomp filters without no_new_privs in a program of many threads".into(),
            "this version does not restore it",
        );
    } else if machine.own.cap_eff >> 21 & 1 == 0 || calls.is_empty() {
        no(
            RefusalKind::Machine,
            "seccomp filters without no_new_privs".into(),
            "installing them needs CAP_SYS_ADMIN: run as root",
        );
    } else {
        after.push(call_of(&calls[calls.len() - 1].cred));
        let prctl = |option, value| Call {
            nr: nr::PRCTL,
            args: [Some(option), Some(value), Some(0), None, None, None],
        };
        after.push(prctl(c::PR_SET_PDEATHSIG, t.pdeath));
        after.push(prctl(c::PR_SET_DUMPABLE, live.mm.dumpable.unwrap_or(1)));
        if cp
            .locks
            .iter()
            .any(|l| l.kind == armrest_images::LockKind::Posix)
        {
            after.push(Call::any(nr::FCNTL64));
        }
        let at = calls.len() - 1;
        calls.splice(at..at, rows);
    }
    after.extend(LAST_CALLS.map(|c| Call::any(c.0)));
    if !alone {
        after.push(Call::any(nr::FUTEX));
    }
    let mut objections: Vec<String> = Vec::new();
    for (n, f) in chain.iter().enumerate() {
        let newer = chain.iter().skip(n + 1).map(|f| call_of(&install(f).cred));
        for call in after.iter().copied().chain(newer) {
            if let Some(what) = seccomp::objection(&f.program, &call) {
                if alone && LAST_CALLS.iter().any(|c| c.0 == call.nr) {
                    out.forbidden.push(call.nr);
                    continue;
                }
                let text = format!("{what} {}", words::call_name(call.nr));
                if !objections.contains(&text) {
                    objections.push(text);
                }
            }
        }
    }
    if !objections.is_empty() {
        no(
            RefusalKind::Unsupported,
            format!("its seccomp filter {}", objections.join(", ")),
            "armrest makes that call after the filter is there",
        );
    }
    out
}

fn install(f: &SeccompFilter) -> CredCall {
    let flags = f.flags & FILTER_FLAGS & !c::SECCOMP_FILTER_FLAG_TSYNC;
    CredCall {
        cred: Cred {
            call: cred::SECCOMP,
            args: [c::SECCOMP_SET_MODE_FILTER, flags, 0, 0, 0],
            expect: 0,
        },
        data: Some(CredData::Program(f.program.clone())),
    }
}

/// A row as a filter sees it; addresses are not known yet.
fn call_of(row: &Cred) -> Call {
    let number = usize::try_from(row.call)
        .ok()
        .and_then(|n| armrest_blob::kernel::CRED_CALLS.get(n));
    let known = |i: usize| match row.call {
        cred::CAPSET => None,
        cred::SETGROUPS if i == 1 => None,
        cred::SECCOMP if i > 0 => None,
        cred::FCNTL64 if i > 1 => None,
        _ => row.args.get(i).copied(),
    };
    Call {
        nr: number.copied().unwrap_or(u32::MAX),
        args: [known(0), known(1), known(2), known(3), known(4), None],
    }
}
