//! Credentials: whatever a thread was and whatever we may do, the calls of the plan end in who it was, or in less.

mod common;

use armrest_abi::{consts as c, cred, want};
use armrest_blob::kernel::CRED_CALLS;
use armrest_images::{BpfInsn, Checkpoint, Creds, FsDir, SeccompFilter, SigAction, load};
use armrest_plan::forest::forest;
use armrest_plan::model::creds::Thread;
use armrest_plan::model::{Trouble, machine, prove};
use armrest_plan::record::record;
use armrest_plan::{
    CredCall, CredData, Exit, Machine, Options, RefusalKind, Rights, creds, plan, words,
};
use common::*;
use proptest::prelude::*;

const ALL: u64 = (1 << 41) - 1;
const SETPCAP: u64 = 1 << 8;
const SYS_ADMIN: u64 = 1 << 21;

/// Root's, as the images have it.
fn root() -> Creds {
    Creds {
        cap_prm: ALL,
        cap_eff: ALL,
        cap_bnd: ALL,
        ..Creds::default()
    }
}

/// As the sample `identity`.
fn someone() -> Creds {
    Creds {
        uid: 1000,
        euid: 1007,
        suid: 1008,
        fsuid: 1009,
        gid: 1001,
        egid: 1005,
        sgid: 1006,
        fsgid: 1011,
        groups: vec![4, 1002, 1003, 1010],
        cap_eff: 1 << 5,
        cap_prm: 1 << 5 | 1 << 10 | 1 << 23 | SETPCAP,
        cap_inh: 1 << 10 | 1 << 23 | 1,
        cap_amb: 1 << 10,
        cap_bnd: ALL & !(1 << 16 | 1 << 27),
        securebits: 0x1c,
        no_new_privs: true,
        lsm_profile: None,
        ids_lost: false,
    }
}

/// Make the calls on the kernel's rules. Each must be granted.
fn run(calls: &[CredCall], own: &Rights) -> Thread {
    let mut thread = Thread::new(own);
    for call in calls {
        let number = CRED_CALLS[usize::try_from(call.cred.call).unwrap()];
        let [a, b, c, d, e] = call.cred.args;
        let data: Vec<u8> = match &call.data {
            Some(CredData::Groups(w) | CredData::Caps(w)) => {
                w.iter().flat_map(|w| w.to_le_bytes()).collect()
            }
            _ => Vec::new(),
        };
        let res = thread.call(number, &[a, b, c, d, e, 0], Some(&data));
        let got = res
            .unwrap_or_else(|| panic!("{call:?} is no call for credentials"))
            .unwrap_or_else(|e| panic!("{call:?}: errno {}", e.0));
        let expect = call.cred.expect;
        assert!(expect == u32::MAX || expect == got, "{call:?}: {got}");
    }
    thread
}

/// What a thread becomes, with the refusals.
fn become_again(want: &Creds, own: &Rights, any_ids: bool) -> Result<(Creds, Vec<String>), String> {
    let mut refuse = Vec::new();
    let way = creds::become_again("tid 1", want, own, any_ids, &mut refuse);
    if !refuse.is_empty() {
        return Err(format!("{refuse:?}"));
    }
    Ok((run(&way.calls, own).creds, way.notes))
}

#[test]
fn root_becomes_anyone() {
    for want in [root(), someone()] {
        assert_eq!(
            become_again(&want, &Rights::root(), false),
            Ok((want, vec![]))
        );
    }
}

#[test]
fn who_is_the_same_already_makes_no_call() {
    let mut refuse = Vec::new();
    let way = creds::become_again("tid 1", &root(), &Rights::root(), false, &mut refuse);
    assert_eq!((way.calls, refuse), (vec![], vec![]));
}

/// Each field, changed alone, takes calls, and without them it would be another.
#[test]
fn each_field_is_put_back() {
    type Change = fn(&mut Creds);
    let fields: [(&str, Change); 17] = [
        ("uid", |c| c.uid = 100_000),
        ("euid", |c| (c.euid, c.fsuid) = (7, 7)),
        ("suid", |c| c.suid = 7),
        ("fsuid", |c| c.fsuid = 7),
        ("gid", |c| c.gid = 7),
        ("egid", |c| (c.egid, c.fsgid) = (7, 7)),
        ("sgid", |c| c.sgid = 7),
        ("fsgid", |c| c.fsgid = 7),
        ("groups", |c| c.groups = vec![7, 70_000]),
        ("effective", |c| c.cap_eff &= !1),
        ("permitted", |c| (c.cap_prm, c.cap_eff) = (ALL - 1, ALL - 1)),
        ("inheritable", |c| c.cap_inh = 1 << 40),
        ("bounding", |c| c.cap_bnd &= !(1 << 33)),
        ("ambient", |c| (c.cap_inh, c.cap_amb) = (2, 2)),
        ("securebits", |c| c.securebits = 0x2f),
        ("keepcaps", |c| c.securebits = 0x10),
        ("no_new_privs", |c| c.no_new_privs = true),
    ];
    for (name, change) in fields {
        let mut want = root();
        change(&mut want);
        let is =
            become_again(&want, &Rights::root(), false).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(is, (want, vec![]), "{name}");
    }
}

#[test]
fn an_ambient_set_that_may_not_be_raised_any_more_is_raised_before_that_is_said() {
    let want = Creds {
        securebits: 0xc0,
        ..someone()
    };
    assert_eq!(
        become_again(&want, &Rights::root(), false),
        Ok((want, vec![]))
    );
}

#[test]
fn without_setpcap_ids_fall_all_the_same() {
    let own = Rights {
        cap_prm: ALL & !SETPCAP,
        cap_eff: ALL & !SETPCAP,
        ..Rights::root()
    };
    let want = Creds {
        cap_bnd: ALL,
        cap_prm: 1 << 10,
        cap_eff: 1 << 10,
        securebits: 0,
        ..someone()
    };
    let want = Creds {
        cap_inh: want.cap_inh,
        ..want
    };
    assert_eq!(become_again(&want, &own, false), Ok((want.clone(), vec![])));
    // What needs it is refused.
    for (field, want) in [
        (
            "bounding",
            Creds {
                cap_bnd: 0,
                ..want.clone()
            },
        ),
        (
            "securebits",
            Creds {
                securebits: 4,
                ..want.clone()
            },
        ),
    ] {
        let e = become_again(&want, &own, false).unwrap_err();
        assert!(e.contains(field) && e.contains("CAP_SETPCAP"), "{e}");
    }
}

/// A user without any right.
fn user() -> Rights {
    Rights {
        uids: [1000; 3],
        fsuid: 1000,
        gids: [1000; 3],
        fsgid: 1000,
        groups: vec![27, 1000],
        cap_prm: 0,
        cap_eff: 0,
        ..Rights::root()
    }
}

#[test]
fn a_user_restores_what_is_his_and_is_told_of_the_rest() {
    let his = Creds {
        uid: 1000,
        euid: 1000,
        suid: 1000,
        fsuid: 1000,
        gid: 1000,
        egid: 1000,
        sgid: 1000,
        fsgid: 1000,
        groups: vec![27, 1000],
        cap_bnd: ALL,
        ..Creds::default()
    };
    assert_eq!(
        become_again(&his, &user(), false),
        Ok((his.clone(), vec![]))
    );
    let nnp = Creds {
        no_new_privs: true,
        ..his.clone()
    };
    assert_eq!(become_again(&nnp, &user(), false), Ok((nnp, vec![])));
    let e = become_again(&root(), &user(), false).unwrap_err();
    assert!(e.contains("it ran as uid 0, and this is uid 1000"), "{e}");
    let (is, notes) = become_again(&root(), &user(), true).unwrap();
    assert_eq!(is, his);
    let text = notes.join("; ");
    for part in [
        "uid 0 is now 1000",
        "gid 0 is now 1000",
        "groups",
        "capabilities",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn ids_that_do_not_exist_here_are_refused() {
    let own = Rights {
        uid_map: vec![(0, 1)],
        gid_map: vec![(0, 1)],
        may_setgroups: false,
        ..Rights::root()
    };
    let want = Creds {
        groups: vec![],
        ..root()
    };
    assert!(become_again(&want, &own, false).is_ok());
    assert!(become_again(&someone(), &own, false).is_err());
    assert!(become_again(&someone(), &own, true).is_ok());
}

#[test]
fn locked_securebits_of_ours_are_no_surprise() {
    let own = Rights {
        securebits: 0x3,
        ..Rights::root()
    };
    let e = become_again(&someone(), &own, false).unwrap_err();
    assert!(e.contains("locked"), "{e}");
    let want = Creds {
        securebits: 0x3f,
        ..someone()
    };
    assert_eq!(become_again(&want, &own, false), Ok((want.clone(), vec![])));
    // The bit that keeps capabilities and ids apart is locked away.
    let own = Rights {
        securebits: 0x8,
        ..Rights::root()
    };
    let want = Creds {
        securebits: 0x8,
        ..someone()
    };
    assert_eq!(become_again(&want, &own, false), Ok((want.clone(), vec![])));
}

fn id() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0u32), Just(1000), Just(1001), Just(70_000)]
}

fn creds_of_anyone() -> impl Strategy<Value = Creds> {
    let set = || prop_oneof![Just(0), Just(ALL), any::<u64>().prop_map(|s| s & ALL)];
    let ids = (id(), id(), id(), id());
    let gids = (id(), id(), id(), id());
    let sets = (set(), set(), set(), set(), set());
    let more = (
        0u32..0x100,
        any::<bool>(),
        proptest::collection::vec(id(), 0..4),
    );
    (ids, gids, sets, more).prop_map(|(u, g, s, (securebits, no_new_privs, groups))| {
        let mut groups = groups;
        groups.sort_unstable();
        groups.dedup();
        Creds {
            uid: u.0,
            euid: u.1,
            suid: u.2,
            fsuid: u.3,
            gid: g.0,
            egid: g.1,
            sgid: g.2,
            fsgid: g.3,
            cap_prm: s.0,
            cap_eff: s.0 & s.1,
            cap_inh: s.2,
            cap_amb: s.0 & s.2 & s.3,
            cap_bnd: s.4,
            securebits,
            groups,
            no_new_privs,
            lsm_profile: None,
            ids_lost: false,
        }
    })
}

/// As [`Rights`] of a process that can exist: effective in permitted, ambient in both.
fn rights() -> impl Strategy<Value = Rights> {
    (creds_of_anyone(), any::<bool>(), any::<bool>()).prop_map(|(c, may_setgroups, small)| {
        let map = if small { (0, 1001) } else { (0, u32::MAX) };
        Rights {
            uids: [c.uid, c.euid, c.suid],
            fsuid: c.fsuid,
            gids: [c.gid, c.egid, c.sgid],
            fsgid: c.fsgid,
            groups: c.groups,
            may_setgroups,
            cap_inh: c.cap_inh,
            cap_prm: c.cap_prm,
            cap_eff: c.cap_eff,
            cap_bnd: c.cap_bnd,
            cap_amb: c.cap_amb,
            last_cap: 40,
            securebits: c.securebits,
            no_new_privs: c.no_new_privs,
            uid_map: vec![map],
            gid_map: vec![map],
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn root_becomes_anyone_at_all(want in creds_of_anyone()) {
        // A right that the bounding set lacks can have been inherited before it was dropped.
        prop_assert_eq!(become_again(&want, &Rights::root(), false), Ok((want, vec![])));
    }

    #[test]
    fn every_planned_call_is_granted_and_gives_no_right_too_many(want in creds_of_anyone(), own in rights(), any_ids in any::<bool>()) {
        if let Ok((is, notes)) = become_again(&want, &own, any_ids) {
            prop_assert_eq!(is.cap_eff & !want.cap_eff, 0);
            prop_assert_eq!(is.cap_prm & !want.cap_prm, 0);
            prop_assert_eq!(is.cap_bnd & !want.cap_bnd, 0);
            prop_assert_eq!(is.cap_amb & !want.cap_amb, 0);
            prop_assert_eq!(is.securebits, want.securebits);
            prop_assert!(is.no_new_privs || !want.no_new_privs);
            if !any_ids {
                prop_assert_eq!((is.uid, is.euid, is.suid, is.fsuid), (want.uid, want.euid, want.suid, want.fsuid));
            }
            prop_assert!(is == want || !notes.is_empty(), "{is:?} is not {want:?}, and nobody says so");
        }
    }
}

fn sample(name: &str) -> Checkpoint {
    let images = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images");
    load(&FsDir::new(images.join(name))).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn the_sample_is_planned_and_proved() {
    let cp = sample("identity");
    let p = plan(&cp, &machine(), &options()).unwrap_or_else(|r| panic!("{r:#?}"));
    let m = prove(&cp, &machine(), &p, Trouble::default()).unwrap_or_else(|s| panic!("{s:?}"));
    let c = &m.who[&2501].creds;
    assert_eq!((c.uid, c.euid, c.fsgid), (1000, 1007, 1011));
    assert_eq!((m.who[&2501].pdeath, m.who[&2501].dumpable), (23, 0));
}

/// A checkpoint of one thread that runs as `creds` says.
fn checkpoint_of(creds: Creds) -> Checkpoint {
    let mut cp = checkpoint(vec![anon(0x2_0000, 4, 3)], vec![], vec![]);
    cp.tasks[0].live.as_mut().unwrap().threads[0].creds = Some(creds);
    cp
}

fn insn(code: u16, k: u32, jf: u8) -> BpfInsn {
    BpfInsn { code, jt: 0, jf, k }
}

/// Denies one call.
fn filter(denied: u32, newer: Option<u32>) -> SeccompFilter {
    SeccompFilter {
        program: vec![
            insn(0x20, 0, 0),
            insn(0x15, denied, 1),
            insn(0x06, 0x5_0001, 0),
            insn(0x06, 0x7fff_0000, 0),
        ],
        newer,
        flags: 0,
    }
}

fn with_filters(mut cp: Checkpoint, denied: &[u32]) -> Checkpoint {
    let count = u32::try_from(denied.len()).unwrap();
    cp.filters = denied
        .iter()
        .zip(1..)
        .map(|(d, n)| filter(*d, (n < count).then_some(n)))
        .collect();
    cp.tasks[0].live.as_mut().unwrap().threads[0].seccomp = (2, Some(0));
    cp
}

#[test]
fn filters_come_back_in_their_order_and_last() {
    let nnp = Creds {
        no_new_privs: true,
        ..someone()
    };
    let cp = with_filters(checkpoint_of(nnp), &[132, 157, 20]);
    let p = plan(&cp, &machine(), &options()).unwrap();
    // The end is compared with the checkpoint, filters included.
    let m = prove(&cp, &machine(), &p, Trouble::default()).unwrap();
    assert_eq!(m.who[&136].filters.len(), 3);
    assert_eq!(p.tables.threads[0].seals, 3);
}

#[test]
fn filters_without_no_new_privs_come_before_the_right_to_install_them_falls() {
    let mut creds = Creds {
        no_new_privs: false,
        ..someone()
    };
    let cp = with_filters(checkpoint_of(creds.clone()), &[132, 157]);
    let p = plan(&cp, &machine(), &options()).unwrap();
    assert_eq!(p.tables.threads[0].seals, 0);
    prove(&cp, &machine(), &p, Trouble::default()).unwrap();
    // Then they judge capset and prctl too.
    for denied in [185, 172] {
        let cp = with_filters(checkpoint_of(creds.clone()), &[132, denied]);
        let e = plan(&cp, &machine(), &options()).unwrap_err();
        assert!(e.0[0].what.contains("its seccomp filter denies"), "{e:?}");
    }
    // It keeps the right: last.
    creds.cap_prm |= SYS_ADMIN;
    creds.cap_eff |= SYS_ADMIN;
    let cp = with_filters(checkpoint_of(creds), &[185]);
    let p = plan(&cp, &machine(), &options()).unwrap();
    assert_eq!(p.tables.threads[0].seals, 1);
    prove(&cp, &machine(), &p, Trouble::default()).unwrap();
}

#[test]
fn filters_that_forbid_the_way_out_take_a_tracer_or_are_refused_by_name() {
    let traced = Machine {
        has_ptrace: true,
        ..machine()
    };
    let none = Machine {
        has_ptrace: false,
        ..machine()
    };
    for (denied, name) in [
        (&[91][..], "munmap"),
        (&[173], "rt_sigreturn"),
        (&[6, 1], "close"),
    ] {
        let cp = with_filters(checkpoint_of(someone()), denied);
        let e = plan(&cp, &none, &options()).unwrap_err();
        assert!(e.0[0].what.contains(&format!("forbids {name}")), "{e:?}");
        let p = plan(&cp, &traced, &options()).unwrap();
        assert!(matches!(p.exit, Exit::Ptrace(_)), "{:?}", p.exit);
        prove(&cp, &traced, &p, Trouble::default()).unwrap();
    }
    // An older one forbids the installation of a newer one.
    let cp = with_filters(checkpoint_of(someone()), &[383, 1]);
    let e = plan(&cp, &traced, &options()).unwrap_err();
    assert_eq!(e.0[0].what, "tid 136: its seccomp filter denies seccomp");
    // The last one may.
    let cp = with_filters(checkpoint_of(someone()), &[1, 383]);
    assert!(plan(&cp, &machine(), &options()).is_ok());
}

/// Two threads.
fn with_thread(mut cp: Checkpoint) -> Checkpoint {
    let live = cp.tasks[0].live.as_mut().unwrap();
    live.threads[0].regs[13] = 0x2_1000;
    let mut second = armrest_images::Thread {
        tid: 137,
        seccomp: (0, None),
        ..live.threads[0].clone()
    };
    second.regs[13] = 0x2_2000;
    live.threads.push(second);
    cp
}

#[test]
fn threads_become_who_they_were_each_for_itself() {
    let mut cp = with_thread(checkpoint_of(someone()));
    let live = cp.tasks[0].live.as_mut().unwrap();
    live.threads[1].creds = Some(Creds {
        uid: 7,
        securebits: 0,
        ..someone()
    });
    live.threads[1].pdeath = 12;
    let p = plan(&cp, &machine(), &options()).unwrap();
    let m = prove(&cp, &machine(), &p, Trouble::default()).unwrap();
    assert_eq!((m.who[&136].creds.uid, m.who[&137].creds.uid), (1000, 7));
    assert_eq!(m.who[&137].pdeath, 12);
    // Those that are alike share their rows, but for the leader.
    let live = cp.tasks[0].live.as_mut().unwrap();
    let mut third = armrest_images::Thread {
        tid: 138,
        ..live.threads[1].clone()
    };
    third.regs[13] = 0x2_3000;
    live.threads.push(third);
    let p = plan(&cp, &machine(), &options()).unwrap();
    let rows: Vec<[u32; 2]> = p.tables.threads.iter().map(|t| [t.cred, t.creds]).collect();
    assert!(rows[1] == rows[2] && rows[0] != rows[1], "{rows:?}");
    prove(&cp, &machine(), &p, Trouble::default()).unwrap();
}

#[test]
fn filters_of_all_threads_are_shared_again_and_others_are_copies() {
    let shared = |cp: &Checkpoint| {
        let p = plan(cp, &machine(), &options()).unwrap();
        let m = prove(cp, &machine(), &p, Trouble::default()).unwrap();
        let copies = p.notes.iter().any(|n| n.contains("copies"));
        let counts: Vec<usize> = [136, 137]
            .iter()
            .map(|tid| m.who.get(tid).map_or(0, |w| w.filters.len()))
            .collect();
        let for_all =
            |c: &armrest_plan::CredCall| (c.cred.call, c.cred.args[1] & 1) == (cred::SECCOMP, 1);
        (p.tables.creds.iter().any(for_all), copies, counts)
    };
    // Recorded with the leader, by a flag.
    let mut cp = with_filters(with_thread(checkpoint_of(someone())), &[132, 157]);
    cp.filters[1].flags = 1;
    assert_eq!(shared(&cp), (true, false, vec![2, 2]));
    // Recorded with each.
    let mut same = cp.clone();
    same.filters[1].flags = 0;
    same.tasks[0].live.as_mut().unwrap().threads[1].seccomp = (2, Some(0));
    assert_eq!(shared(&same), (true, false, vec![2, 2]));
    // The other has none.
    let mut none = same.clone();
    none.tasks[0].live.as_mut().unwrap().threads[1].seccomp = (0, None);
    assert_eq!(shared(&none), (false, false, vec![2, 0]));
    // It has one of them.
    let mut one = same.clone();
    one.filters.push(filter(132, None));
    one.tasks[0].live.as_mut().unwrap().threads[1].seccomp = (2, Some(2));
    assert_eq!(shared(&one), (false, true, vec![2, 1]));
    // A filter in the way of the others' way out.
    let mut bad = same;
    bad.filters[0] = filter(240, Some(1));
    let e = plan(&bad, &machine(), &options()).unwrap_err();
    assert!(e.0.iter().any(|r| r.what.contains("denies futex")), "{e:?}");
}

#[test]
fn the_sample_of_filters_is_planned_and_proved() {
    let cp = sample("seccomp");
    let p = plan(&cp, &machine(), &options()).unwrap_or_else(|r| panic!("{r:#?}"));
    let m = prove(&cp, &machine(), &p, Trouble::default()).unwrap_or_else(|s| panic!("{s:?}"));
    let filters = |tid: u32| m.who.get(&tid).map_or(0, |w| w.filters.len());
    assert_eq!([filters(2601), filters(2603), filters(2604)], [2, 0, 1]);
}

#[test]
fn filters_are_there_before_the_last_gate_and_who_may_not_wait_there_spins() {
    // A timer descriptor is armed at the gate, so a task alone has one.
    let gated = |denied: &[u32]| {
        let mut cp = with_filters(checkpoint_of(someone()), denied);
        let p = plan(&cp, &machine(), &options()).unwrap();
        assert_eq!(p.want & want::GATE, 0);
        let mut other = cp.tasks[0].clone();
        (other.pid, other.ppid) = (137, 136);
        let live = other.live.as_mut().unwrap();
        (live.threads[0].tid, live.threads[0].seccomp) = (137, (0, None));
        cp.tasks.push(other);
        let f = forest(&cp, &machine(), &options()).unwrap_or_else(|r| panic!("{r:#?}"));
        let spins: Vec<bool> = f.each().map(|(_, p)| p.want & want::SPIN != 0).collect();
        assert!(f.each().all(|(_, p)| p.want & want::GATE != 0));
        // The model makes no call behind the gate, and those of a wait are judged too.
        for (_, p) in f.each() {
            prove(&cp, &machine(), p, Trouble::default()).unwrap();
        }
        spins
    };
    assert_eq!(gated(&[132]), [false, false]);
    assert_eq!(gated(&[132, 240]), [true, false]);
    assert_eq!(gated(&[168]), [true, false]);
    // Who may not end itself does so by a fault.
    assert_eq!(gated(&[248]), [true, false]);
}

#[test]
fn strict_mode_takes_a_tracer() {
    let mut cp = checkpoint_of(someone());
    cp.tasks[0].live.as_mut().unwrap().threads[0].seccomp = (1, None);
    let traced = Machine {
        has_ptrace: true,
        ..machine()
    };
    let p = plan(&cp, &traced, &options()).unwrap();
    prove(&cp, &traced, &p, Trouble::default()).unwrap();
    let none = Machine {
        has_ptrace: false,
        ..machine()
    };
    assert!(plan(&cp, &none, &options()).is_err());
}

#[test]
fn filters_that_no_kernel_takes_and_kernels_without_filters_are_refused() {
    let mut cp = with_filters(checkpoint_of(someone()), &[1]);
    let none = Machine {
        has_seccomp: false,
        ..machine()
    };
    let e = plan(&cp, &none, &options()).unwrap_err();
    assert_eq!(e.0[0].kind, RefusalKind::Machine);
    cp.filters[0].flags = 8;
    assert!(plan(&cp, &machine(), &options()).is_err());
    cp.filters[0].flags = 0;
    cp.filters[0].program.pop();
    assert!(plan(&cp, &machine(), &options()).is_err());
}

#[test]
fn membarrier_registrations_are_made_again_or_refused() {
    let mut cp = checkpoint_of(root());
    cp.tasks[0].live.as_mut().unwrap().membarrier = 4 | 16 | 64;
    let p = plan(&cp, &machine(), &options()).unwrap();
    prove(&cp, &machine(), &p, Trouble::default()).unwrap();
    let few = Machine {
        membarrier: 16,
        ..machine()
    };
    let e = plan(&cp, &few, &options()).unwrap_err();
    assert!(e.0[0].what.contains("GLOBAL_EXPEDITED"), "{e:?}");
    cp.tasks[0].live.as_mut().unwrap().membarrier = 1 << 20;
    assert!(plan(&cp, &machine(), &options()).is_err());
}

#[test]
fn a_deadly_signal_on_the_death_of_the_parent_is_no_surprise() {
    let mut cp = checkpoint_of(root());
    cp.tasks[0].live.as_mut().unwrap().threads[0].pdeath = 15;
    let detached = Options {
        detached: true,
        ..options()
    };
    assert!(plan(&cp, &machine(), &options()).is_ok());
    let e = plan(&cp, &machine(), &detached).unwrap_err();
    assert!(e.0[0].hint.contains("without -d"), "{e:?}");
    // SIGURG, and one that is handled.
    cp.tasks[0].live.as_mut().unwrap().threads[0].pdeath = 23;
    assert!(plan(&cp, &machine(), &detached).is_ok());
    let live = cp.tasks[0].live.as_mut().unwrap();
    live.threads[0].pdeath = 15;
    let action = SigAction {
        handler: 0x2_0000,
        ..SigAction::default()
    };
    live.sigactions.push((15, action));
    let p = plan(&cp, &machine(), &detached).unwrap();
    assert!(
        p.notes
            .iter()
            .any(|n| n.contains("comes when armrest ends"))
    );
}

#[test]
fn the_calls_are_told_in_words() {
    let cp = with_filters(checkpoint_of(someone()), &[132]);
    let p = plan(&cp, &machine(), &options()).unwrap();
    let said: Vec<String> = record(&p).iter().map(words::describe_recorded).collect();
    for line in [
        "prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP)",
        "setgroups32([4, 1002, 1003, 1010])",
        "setresgid32(real 1001, effective 1005, saved 1006)",
        "setfsgid32(1011)",
        "setresuid32(real 1000, effective 1007, saved 1008)",
        "prctl(PR_CAPBSET_DROP, mknod)",
        "prctl(PR_CAP_AMBIENT_RAISE, net_bind_service)",
        "prctl(PR_SET_SECUREBITS, NO_SETUID_FIXUP|NO_SETUID_FIXUP_LOCKED|KEEP_CAPS)",
        "prctl(PR_SET_NO_NEW_PRIVS, 1)",
        "capset(effective kill; permitted kill, setpcap, net_bind_service, sys_nice; inheritable chown, net_bind_service, sys_nice)",
        "seccomp(SECCOMP_SET_MODE_FILTER, flags 0x0, 4 instructions)",
    ] {
        assert!(said.iter().any(|s| s == line), "{line}: {said:#?}");
    }
}

#[test]
fn dumpable_and_the_parent_death_signal_survive_the_change_of_ids() {
    for (dumpable, is) in [(0, 0), (1, 1), (2, 0)] {
        let mut cp = checkpoint_of(someone());
        let live = cp.tasks[0].live.as_mut().unwrap();
        live.mm.dumpable = Some(dumpable);
        live.threads[0].pdeath = 15;
        let p = plan(&cp, &machine(), &options()).unwrap();
        let m = prove(&cp, &machine(), &p, Trouble::default()).unwrap();
        assert_eq!((m.who[&136].dumpable, m.who[&136].pdeath), (is, 15));
        assert_eq!(
            p.notes.iter().any(|n| n.contains("dumpable")),
            dumpable == 2
        );
    }
    assert_eq!(c::PR_SET_DUMPABLE, 4);
}
