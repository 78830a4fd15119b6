//! Credentials: which calls, in which order, make a thread who it was, from the rights that this process has. What may
//! not be set is refused or told: a restored program never has more rights than it had.
//!
//! Ids fall before capabilities (under SECBIT_NO_SETUID_FIXUP, which keeps them apart), the bounding set while
//! CAP_SETPCAP is there, securebits after the ambient set (a bit of theirs forbids raising it), effective and permitted
//! capabilities last.

use armrest_abi::{Cred, consts as c, cred};
use armrest_blob::kernel::nr;
use armrest_images::Creds;

use crate::identity::MEMBARRIERS;
use crate::machine::Rights;
use crate::types::{CredCall, CredData, Refusal, RefusalKind};

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SETPCAP: u32 = 8;
const CAP_SYS_ADMIN: u32 = 21;
/// SECBIT_* of 6.1; later kernels have bits that this version does not know.
const SECUREBITS: u32 = 0xff;
const NO_SETUID_FIXUP: u32 = 1 << 2;
const KEEP_CAPS: u32 = 1 << 4;
const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
/// `_LINUX_CAPABILITY_VERSION_3`.
const CAP_VERSION: u32 = 0x2008_0522;

/// Names of capabilities by number (include/uapi/linux/capability.h).
const CAPS: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// `net_raw, sys_admin`, or `all` for many.
pub fn cap_names(set: u64) -> String {
    let names: Vec<String> = (0..64usize)
        .filter(|n| set >> n & 1 == 1)
        .map(|n| CAPS.get(n).map_or(format!("{n}"), |s| (*s).to_owned()))
        .collect();
    if names.len() > 20 {
        format!("{} of them ({set:#x})", names.len())
    } else {
        names.join(", ")
    }
}

/// What a thread does to become who it was.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Become {
    /// Before any thread enters the program.
    pub calls: Vec<CredCall>,
    /// True if the filters can be installed after all of `calls`: by no_new_privs or CAP_SYS_ADMIN. Otherwise they go
    /// before the last of them.
    pub filters_last: bool,
    /// What comes out otherwise than the checkpoint says.
    pub notes: Vec<String>,
}

/// The sets that change on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sets {
    eff: u64,
    prm: u64,
    inh: u64,
    amb: u64,
}

struct Way<'a> {
    own: &'a Rights,
    now: Sets,
    securebits: u32,
    out: Become,
}

impl Way<'_> {
    fn has(&self, cap: u32) -> bool {
        self.now.eff >> cap & 1 == 1
    }
    fn call(&mut self, call: u32, args: [u32; 3], expect: u32) {
        let [x, y, z] = args;
        let cred = Cred {
            call,
            args: [x, y, z, 0, 0],
            expect,
        };
        self.out.calls.push(CredCall { cred, data: None });
    }
    fn prctl(&mut self, option: u32, value: u32) {
        self.call(cred::PRCTL, [option, value, 0], 0);
    }
    fn securebits(&mut self, bits: u32) {
        if self.securebits != bits {
            self.prctl(c::PR_SET_SECUREBITS, bits);
            self.securebits = bits;
        }
    }
    fn capset(&mut self, to: Sets) {
        if (to.eff, to.prm, to.inh) == (self.now.eff, self.now.prm, self.now.inh) {
            return;
        }
        self.out.calls.push(capset(to.eff, to.prm, to.inh));
        self.now = Sets {
            amb: self.now.amb & to.prm & to.inh,
            ..to
        };
    }
}

fn capset(eff: u64, prm: u64, inh: u64) -> CredCall {
    let half = |set: u64, by: u32| u32::try_from(set >> by & 0xffff_ffff).unwrap_or(0);
    let mut words = vec![CAP_VERSION, 0];
    for by in [0, 32] {
        words.extend([half(eff, by), half(prm, by), half(inh, by)]);
    }
    CredCall {
        cred: Cred {
            call: cred::CAPSET,
            args: [0; 5],
            expect: 0,
        },
        data: Some(CredData::Caps(words)),
    }
}

/// Decide for one thread. `who` names it in refusals.
pub fn become_again(
    who: &str,
    want: &Creds,
    own: &Rights,
    any_ids: bool,
    refuse: &mut Vec<Refusal>,
) -> Become {
    let mut way = Way {
        own,
        now: Sets {
            eff: own.cap_eff,
            prm: own.cap_prm,
            inh: own.cap_inh,
            amb: own.cap_amb,
        },
        securebits: own.securebits,
        out: Become::default(),
    };
    let mut no = |kind, what: String, hint: &str| {
        refuse.push(Refusal {
            kind,
            what: format!("{who}: {what}"),
            hint: hint.to_owned(),
        })
    };
    let full = u64::MAX >> (63 - own.last_cap.min(63));
    let unknown = want.securebits & !SECUREBITS;
    if unknown != 0 {
        no(
            RefusalKind::Unsupported,
            format!("securebits {unknown:#x}"),
            "this version does not know them",
        );
    }
    if want.cap_bnd & full != own.cap_bnd & full {
        let more = own.cap_bnd & full & !want.cap_bnd;
        if more != 0 && !way.has(CAP_SETPCAP) {
            no(
                RefusalKind::Unsupported,
                format!(
                    "capabilities that it had dropped from its bounding set: {}",
                    cap_names(more)
                ),
                "dropping them needs CAP_SETPCAP: run as root, or drop them around armrest (capsh, setpriv)",
            );
        }
    }
    ids(&mut way, want, any_ids, &mut no);
    let gone =
        (want.cap_prm | want.cap_eff) & full & !own.cap_prm | want.cap_bnd & full & !own.cap_bnd;
    if gone != 0 {
        way.out.notes.push(format!(
            "capabilities that the program had and has no more: {}",
            cap_names(gone)
        ));
    }
    let prm = want.cap_prm & full & own.cap_prm;
    let eff = want.cap_eff & prm;
    // What may be inherited: out of what we have, or with CAP_SETPCAP out of the bounding set.
    let mut may = own.cap_inh | own.cap_prm;
    if way.has(CAP_SETPCAP) {
        may |= own.cap_bnd;
    }
    may &= own.cap_inh | own.cap_bnd;
    let inh = want.cap_inh & full & may;
    let lost = want.cap_inh & full & !may;
    if lost != 0 {
        way.out.notes.push(format!(
            "inheritable capabilities that are lost: {}",
            cap_names(lost)
        ));
    }
    let keep = Sets {
        inh: inh | (way.now.inh & way.now.amb & want.cap_amb),
        ..way.now
    };
    way.capset(keep);
    let drop = own.cap_bnd & full & !want.cap_bnd;
    for n in bits(drop) {
        way.prctl(c::PR_CAPBSET_DROP, n);
    }
    ambient(&mut way, want.cap_amb & prm & inh, want.cap_amb & full);
    if want.securebits & SECUREBITS != way.securebits & SECUREBITS {
        let locked = (way.securebits & 0xaa) >> 1;
        let differs = way.securebits ^ want.securebits;
        if differs & locked != 0 || way.securebits & 0xaa & !want.securebits != 0 {
            no(
                RefusalKind::Machine,
                format!(
                    "securebits {:#x}, and ours ({:#x}) are locked",
                    want.securebits, way.securebits
                ),
                "run armrest from a process without locked securebits",
            );
        } else if way.has(CAP_SETPCAP) {
            way.securebits(want.securebits & SECUREBITS);
        } else if differs == KEEP_CAPS {
            way.prctl(
                c::PR_SET_KEEPCAPS,
                u32::from(want.securebits & KEEP_CAPS != 0),
            );
        } else {
            no(
                RefusalKind::Machine,
                format!("securebits {:#x}", want.securebits),
                "setting them needs CAP_SETPCAP: run as root",
            );
        }
    }
    if want.no_new_privs && !own.no_new_privs {
        way.prctl(c::PR_SET_NO_NEW_PRIVS, 1);
    } else if own.no_new_privs && !want.no_new_privs {
        way.out
            .notes
            .push("no_new_privs, which armrest has, cannot be taken back".into());
    }
    let last = Sets {
        eff,
        prm,
        inh,
        amb: way.now.amb,
    };
    let privileged = |s: Sets| s.eff >> CAP_SYS_ADMIN & 1 == 1;
    way.out.filters_last = want.no_new_privs || own.no_new_privs || privileged(last);
    way.capset(last);
    way.out
}

fn bits(set: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |n| set >> n & 1 == 1)
}

fn mapped(map: &[(u32, u32)], id: u32) -> bool {
    map.iter()
        .any(|(first, count)| id.checked_sub(*first).is_some_and(|n| n < *count))
}

fn ids(
    way: &mut Way<'_>,
    want: &Creds,
    any_ids: bool,
    no: &mut dyn FnMut(RefusalKind, String, &str),
) {
    let own = way.own;
    let mut groups = want.groups.clone();
    groups.sort_unstable();
    let mut has = own.groups.clone();
    has.sort_unstable();
    let all = |map: &[(u32, u32)], ids: &[u32]| ids.iter().all(|id| mapped(map, *id));
    let gids = [want.gid, want.egid, want.sgid];
    let uids = [want.uid, want.euid, want.suid];
    let set_gids = (gids, want.fsgid) != (own.gids, own.fsgid);
    let set_uids = (uids, want.fsuid) != (own.uids, own.fsuid);
    let among = |own: &[u32; 3], to: &[u32; 3], fs: u32| {
        to.iter().all(|i| own.contains(i)) && to.contains(&fs)
    };
    let may_gids = all(&own.gid_map, &gids)
        && mapped(&own.gid_map, want.fsgid)
        && (way.has(CAP_SETGID) || among(&own.gids, &gids, want.fsgid));
    let may_uids = all(&own.uid_map, &uids)
        && mapped(&own.uid_map, want.fsuid)
        && (way.has(CAP_SETUID) || among(&own.uids, &uids, want.fsuid));
    // The caller's own groups may be unmapped here and show as 65534: then they are not the program's.
    if groups != has {
        if way.has(CAP_SETGID) && own.may_setgroups && all(&own.gid_map, &groups) {
            let count = u32::try_from(groups.len()).unwrap_or(u32::MAX);
            let cred = Cred {
                call: cred::SETGROUPS,
                args: [count, 0, 0, 0, 0],
                expect: 0,
            };
            way.out.calls.push(CredCall {
                cred,
                data: Some(CredData::Groups(groups)),
            });
        } else {
            way.out.notes.push(format!(
                "supplementary groups are the caller's ({:?}), not {:?}",
                own.groups, want.groups
            ));
        }
    }
    if set_gids && may_gids {
        way.call(cred::SETRESGID, gids, 0);
        if want.fsgid != want.egid {
            way.call(cred::SETFSGID, [want.fsgid, 0, 0], Cred::ANY);
            way.call(cred::SETFSGID, [want.fsgid, 0, 0], want.fsgid);
        }
    } else if set_gids {
        way.out
            .notes
            .push(format!("gid {} is now {}", want.egid, own.gids[1]));
    }
    if !set_uids {
        return;
    }
    if !may_uids {
        if any_ids {
            way.out
                .notes
                .push(format!("uid {} is now {}", want.euid, own.uids[1]));
        } else {
            no(
                RefusalKind::Ids,
                format!(
                    "it ran as uid {}, and this is uid {}",
                    want.euid, own.uids[1]
                ),
                "run as root, or in a user namespace (unshare -Urpif --mount-proc); --any-ids takes the uid that is there",
            );
        }
        return;
    }
    // Without the fixup capabilities stay as they are, whatever the ids become.
    let mut guard = 0;
    if own.securebits & NO_SETUID_FIXUP == 0 {
        let locked = own.securebits & NO_SETUID_FIXUP << 1 != 0;
        if way.has(CAP_SETPCAP) && !locked {
            let bits = way.securebits | NO_SETUID_FIXUP;
            // Before the first change of an id.
            way.out.calls.insert(0, securebits(bits));
            way.securebits = bits;
        } else {
            guard = 1;
        }
    }
    let was = way.now;
    if guard == 1 && way.securebits & KEEP_CAPS == 0 {
        if way.securebits & KEEP_CAPS << 1 != 0 {
            no(
                RefusalKind::Machine,
                format!(
                    "uid {}, and our securebits {:#x} are locked",
                    want.euid, way.securebits
                ),
                "run armrest from a process without locked securebits",
            );
            return;
        }
        way.prctl(c::PR_SET_KEEPCAPS, 1);
        way.securebits |= KEEP_CAPS;
    }
    way.call(cred::SETRESUID, uids, 0);
    if guard == 1 {
        way.now = Sets {
            eff: 0,
            amb: 0,
            ..way.now
        };
        way.capset(Sets { amb: 0, ..was });
    }
    if want.fsuid != want.euid {
        way.call(cred::SETFSUID, [want.fsuid, 0, 0], Cred::ANY);
        way.call(cred::SETFSUID, [want.fsuid, 0, 0], want.fsuid);
        if guard == 1 {
            // Capabilities over files went with the id.
            way.out.calls.push(capset(was.eff, was.prm, was.inh));
        }
    }
}

fn securebits(bits: u32) -> CredCall {
    CredCall {
        cred: Cred {
            call: cred::PRCTL,
            args: [c::PR_SET_SECUREBITS, bits, 0, 0, 0],
            expect: 0,
        },
        data: None,
    }
}

fn ambient(way: &mut Way<'_>, to: u64, wanted: u64) {
    // Some of it may be gone already: to lower that is no error, nor is it to raise what is there.
    for n in bits(way.own.cap_amb & !to) {
        way.call(
            cred::PRCTL,
            [c::PR_CAP_AMBIENT, c::PR_CAP_AMBIENT_LOWER, n],
            0,
        );
    }
    way.now.amb &= to;
    let raise = to & !way.now.amb;
    let mut lost = wanted & !to;
    if way.securebits & NO_CAP_AMBIENT_RAISE == 0 {
        for n in bits(raise) {
            way.call(
                cred::PRCTL,
                [c::PR_CAP_AMBIENT, c::PR_CAP_AMBIENT_RAISE, n],
                0,
            );
        }
        way.now.amb |= raise;
    } else {
        lost |= raise;
    }
    if lost != 0 {
        way.out.notes.push(format!(
            "ambient capabilities that are lost: {}",
            cap_names(lost)
        ));
    }
}

/// Bits of securebits by name (include/uapi/linux/securebits.h); the next higher bit locks each.
const SECUREBIT_NAMES: [&str; 4] = [
    "NOROOT",
    "NO_SETUID_FIXUP",
    "KEEP_CAPS",
    "NO_CAP_AMBIENT_RAISE",
];

fn securebits_words(bits: u32) -> String {
    let names: Vec<String> = SECUREBIT_NAMES
        .iter()
        .zip([0u32, 2, 4, 6])
        .flat_map(|(name, at)| {
            let named =
                |by: u32, end: &str| (bits >> (at + by) & 1 == 1).then(|| format!("{name}{end}"));
            [named(0, ""), named(1, "_LOCKED")]
        })
        .flatten()
        .collect();
    if names.is_empty() {
        format!("{bits:#x}")
    } else {
        names.join("|")
    }
}

/// The arguments of a call of this step in words; `words` is what it reads. `None` if it is none.
pub(crate) fn describe(n: u32, a: &[u32; 6], words: &[u32]) -> Option<String> {
    let pair = |i: usize| {
        let at = |i: usize| words.get(i).copied().map_or(0, u64::from);
        match at(i) | at(i + 3) << 32 {
            0 => "none".to_owned(),
            set => cap_names(set),
        }
    };
    Some(match n {
        nr::SETGROUPS32 if words.is_empty() => format!("{} groups", a[0]),
        nr::SETGROUPS32 => format!("{words:?}"),
        nr::SETRESUID32 | nr::SETRESGID32 => {
            format!("real {}, effective {}, saved {}", a[0], a[1], a[2])
        }
        nr::SETFSUID32 | nr::SETFSGID32 => format!("{}", a[0]),
        nr::CAPSET if words.len() < 8 => format!("{:#x}, {:#x}", a[0], a[1]),
        nr::CAPSET => format!(
            "effective {}; permitted {}; inheritable {}",
            pair(2),
            pair(3),
            pair(4)
        ),
        nr::MEMBARRIER => {
            let name = MEMBARRIERS.iter().find(|(bit, _)| *bit == a[0]);
            name.map_or(format!("{:#x}", a[0]), |n| format!("REGISTER_{}", n.1))
        }
        nr::FCNTL64 => {
            let wide = |i: usize| {
                let at = |i: usize| words.get(i).copied().map_or(0, u64::from);
                at(i) | at(i + 1) << 32
            };
            let how = ["F_RDLCK", "F_WRLCK"].get(words.first().map_or(2, |w| *w as usize));
            let how = how.unwrap_or(&"?");
            format!(
                "fd {}, F_SETLK64, {how}, {} bytes from {}",
                a[0],
                wide(4),
                wide(2)
            )
        }
        nr::SECCOMP if a[0] == c::SECCOMP_SET_MODE_STRICT => "SECCOMP_SET_MODE_STRICT".to_owned(),
        // A report has the address of the filter alone.
        nr::SECCOMP if words.is_empty() => format!("SECCOMP_SET_MODE_FILTER, flags {:#x}", a[1]),
        nr::SECCOMP => format!(
            "SECCOMP_SET_MODE_FILTER, flags {:#x}, {} instructions",
            a[1],
            words.len() / 2
        ),
        nr::PRCTL => match a[0] {
            c::PR_SET_SECUREBITS => format!("PR_SET_SECUREBITS, {}", securebits_words(a[1])),
            c::PR_SET_KEEPCAPS => format!("PR_SET_KEEPCAPS, {}", a[1]),
            c::PR_SET_NO_NEW_PRIVS => format!("PR_SET_NO_NEW_PRIVS, {}", a[1]),
            c::PR_CAPBSET_DROP => format!("PR_CAPBSET_DROP, {}", cap_names(1 << (a[1] & 63))),
            c::PR_CAP_AMBIENT => {
                let how = if a[1] == c::PR_CAP_AMBIENT_RAISE {
                    "RAISE"
                } else {
                    "LOWER"
                };
                format!("PR_CAP_AMBIENT_{how}, {}", cap_names(1 << (a[2] & 63)))
            }
            _ => return None,
        },
        _ => return None,
    })
}
