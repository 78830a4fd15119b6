//! The kernel's rules for credentials (kernel/sys.c, security/commoncap.c, kernel/seccomp.c), for one thread.

use armrest_abi::consts as c;
use armrest_blob::kernel::{Res, nr};
use armrest_images::{BpfInsn, Creds};

use super::Model;
use super::errno::{EACCES, EINVAL, EPERM};
use crate::machine::Rights;
use crate::seccomp::{self, Call};

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SETPCAP: u32 = 8;
const CAP_SYS_ADMIN: u32 = 21;
/// Capabilities over files, which follow the file system's user id.
const FS_CAPS: u64 = 0x1f | 1 << 9 | 1 << 27 | 1 << 32;
const LOCKS: u32 = 0xaa;

/// A thread's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Ids, sets and bits, in the words of the images.
    pub creds: Creds,
    /// Filters, oldest first.
    pub filters: Vec<Vec<BpfInsn>>,
    /// `PR_SET_PDEATHSIG`.
    pub pdeath: u32,
    /// `PR_SET_DUMPABLE`, of the process.
    pub dumpable: u32,
    /// Registered membarrier commands, of the process.
    pub membarrier: u32,
    /// A tracer suspends the filters.
    pub suspended: bool,
    /// Strict mode.
    pub strict: bool,
    pub(super) own: Rights,
}

impl Thread {
    /// The restoring process.
    pub fn new(own: &Rights) -> Thread {
        let [uid, euid, suid] = own.uids;
        let [gid, egid, sgid] = own.gids;
        let creds = Creds {
            uid,
            gid,
            euid,
            egid,
            suid,
            sgid,
            fsuid: own.fsuid,
            fsgid: own.fsgid,
            cap_inh: own.cap_inh,
            cap_prm: own.cap_prm,
            cap_eff: own.cap_eff,
            cap_bnd: own.cap_bnd,
            cap_amb: own.cap_amb,
            securebits: own.securebits,
            groups: own.groups.clone(),
            no_new_privs: own.no_new_privs,
            lsm_profile: None,
            ids_lost: false,
        };
        Thread {
            creds,
            filters: Vec::new(),
            // As the harness sets it: SIGKILL.
            pdeath: 9,
            dumpable: 1,
            membarrier: 0,
            suspended: false,
            strict: false,
            own: own.clone(),
        }
    }

    fn has(&self, cap: u32) -> bool {
        self.creds.cap_eff >> cap & 1 == 1
    }

    /// One call; `data` is what it reads. `None` if it is no call of this kind.
    pub fn call(&mut self, n: u32, a: &[u32; 6], data: Option<&[u8]>) -> Option<Res> {
        let call = Call {
            nr: n,
            args: a.map(Some),
        };
        if let Some(f) = self
            .filters
            .iter()
            .find(|f| !self.suspended && seccomp::objection(f, &call).is_some())
        {
            panic!("call {n} is judged by a filter: {f:?}");
        }
        assert!(
            self.suspended || !self.strict,
            "call {n} in strict mode kills"
        );
        let words: Vec<u32> = data
            .unwrap_or_default()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|w| u32::from_le_bytes(*w))
            .collect();
        let old = self.creds.clone();
        let res = match n {
            nr::SETGROUPS32 => self.setgroups(a[0], &words),
            nr::SETRESGID32 => self.setresgid([a[0], a[1], a[2]]),
            nr::SETRESUID32 => self.setresuid([a[0], a[1], a[2]]),
            nr::SETFSGID32 => Ok(self.setfsgid(a[0])),
            nr::SETFSUID32 => Ok(self.setfsuid(a[0])),
            nr::CAPSET => self.capset(&words),
            nr::MEMBARRIER => {
                self.membarrier |= a[0];
                Ok(0)
            }
            nr::SECCOMP => self.seccomp(a, &words),
            nr::PRCTL => self.prctl(a)?,
            _ => return None,
        };
        // commit_creds: other ids or other capabilities take both back.
        let ids = |c: &Creds| (c.euid, c.egid, c.fsuid, c.fsgid);
        if ids(&old) != ids(&self.creds) || self.creds.cap_prm & !old.cap_prm != 0 {
            self.dumpable = 0;
            self.pdeath = 0;
        }
        Some(res)
    }

    fn exists(map: &[(u32, u32)], id: u32) -> bool {
        map.iter().any(|(f, n)| id >= *f && id - f < *n)
    }

    fn setgroups(&mut self, count: u32, list: &[u32]) -> Res {
        if !self.has(CAP_SETGID) || !self.own.may_setgroups {
            return Err(EPERM);
        }
        if !list.iter().all(|g| Self::exists(&self.own.gid_map, *g)) {
            return Err(EINVAL);
        }
        assert_eq!(usize::try_from(count), Ok(list.len()));
        self.creds.groups = list.to_vec();
        self.creds.groups.sort_unstable();
        Ok(0)
    }

    fn setresgid(&mut self, to: [u32; 3]) -> Res {
        let c = &mut self.creds;
        if !to.iter().all(|g| Self::exists(&self.own.gid_map, *g)) {
            return Err(EINVAL);
        }
        let own = [c.gid, c.egid, c.sgid];
        if c.cap_eff >> CAP_SETGID & 1 == 0 && !to.iter().all(|g| own.contains(g)) {
            return Err(EPERM);
        }
        [c.gid, c.egid, c.sgid] = to;
        c.fsgid = c.egid;
        Ok(0)
    }

    fn setresuid(&mut self, to: [u32; 3]) -> Res {
        let c = &mut self.creds;
        if !to.iter().all(|u| Self::exists(&self.own.uid_map, *u)) {
            return Err(EINVAL);
        }
        let was = [c.uid, c.euid, c.suid];
        if c.cap_eff >> CAP_SETUID & 1 == 0 && !to.iter().all(|u| was.contains(u)) {
            return Err(EPERM);
        }
        [c.uid, c.euid, c.suid] = to;
        c.fsuid = c.euid;
        if c.securebits & 4 == 0 {
            if was.contains(&0) && !to.contains(&0) {
                if c.securebits & 16 == 0 {
                    (c.cap_prm, c.cap_eff) = (0, 0);
                }
                c.cap_amb = 0;
            }
            if was[1] == 0 && to[1] != 0 {
                c.cap_eff = 0;
            }
            if was[1] != 0 && to[1] == 0 {
                c.cap_eff = c.cap_prm;
            }
        }
        Ok(0)
    }

    fn setfsgid(&mut self, to: u32) -> u32 {
        let c = &mut self.creds;
        let old = c.fsgid;
        let own = [c.gid, c.egid, c.sgid, c.fsgid];
        if Self::exists(&self.own.gid_map, to)
            && (own.contains(&to) || c.cap_eff >> CAP_SETGID & 1 == 1)
        {
            c.fsgid = to;
        }
        old
    }

    fn setfsuid(&mut self, to: u32) -> u32 {
        let c = &mut self.creds;
        let old = c.fsuid;
        let own = [c.uid, c.euid, c.suid, c.fsuid];
        if Self::exists(&self.own.uid_map, to)
            && (own.contains(&to) || c.cap_eff >> CAP_SETUID & 1 == 1)
        {
            c.fsuid = to;
            if c.securebits & 4 == 0 {
                if old == 0 && to != 0 {
                    c.cap_eff &= !FS_CAPS;
                }
                if old != 0 && to == 0 {
                    c.cap_eff |= c.cap_prm & FS_CAPS;
                }
            }
        }
        old
    }

    fn capset(&mut self, w: &[u32]) -> Res {
        let [version, pid, e0, p0, i0, e1, p1, i1] = w else {
            panic!("capset reads {} words", w.len());
        };
        if *version != 0x2008_0522 || *pid != 0 {
            return Err(EINVAL);
        }
        let known = u64::MAX >> (63 - self.own.last_cap);
        let both = |low: &u32, high: &u32| (u64::from(*low) | u64::from(*high) << 32) & known;
        let (eff, prm, inh) = (both(e0, e1), both(p0, p1), both(i0, i1));
        let setpcap = self.has(CAP_SETPCAP);
        let c = &mut self.creds;
        if (!setpcap && inh & !(c.cap_inh | c.cap_prm) != 0)
            || inh & !(c.cap_inh | c.cap_bnd) != 0
            || prm & !c.cap_prm != 0
            || eff & !prm != 0
        {
            return Err(EPERM);
        }
        (c.cap_eff, c.cap_prm, c.cap_inh) = (eff, prm, inh);
        c.cap_amb &= prm & inh;
        Ok(0)
    }

    fn seccomp(&mut self, a: &[u32; 6], words: &[u32]) -> Res {
        if a[..3] == [c::SECCOMP_SET_MODE_STRICT, 0, 0] && self.filters.is_empty() {
            self.strict = true;
            return Ok(0);
        }
        if a[0] != c::SECCOMP_SET_MODE_FILTER {
            return Err(EINVAL);
        }
        if !self.creds.no_new_privs && !self.has(CAP_SYS_ADMIN) {
            return Err(EACCES);
        }
        let insn = |w: &[u32; 2]| {
            let [a, b, jt, jf] = w[0].to_le_bytes();
            BpfInsn {
                code: u16::from_le_bytes([a, b]),
                jt,
                jf,
                k: w[1],
            }
        };
        let program: Vec<BpfInsn> = words.as_chunks::<2>().0.iter().map(insn).collect();
        if seccomp::fault(&program).is_some() {
            return Err(EINVAL);
        }
        self.filters.push(program);
        Ok(0)
    }

    fn prctl(&mut self, a: &[u32; 6]) -> Option<Res> {
        Some(match a[0] {
            c::PR_SET_SECUREBITS => self.set_securebits(a[1]),
            c::PR_SET_KEEPCAPS => {
                if self.creds.securebits & 32 != 0 || a[1] > 1 {
                    return Some(Err(EPERM));
                }
                self.creds.securebits = self.creds.securebits & !16 | a[1] << 4;
                Ok(0)
            }
            c::PR_CAPBSET_DROP if !self.has(CAP_SETPCAP) => Err(EPERM),
            c::PR_CAPBSET_DROP if a[1] > self.own.last_cap => Err(EINVAL),
            c::PR_CAPBSET_DROP => {
                self.creds.cap_bnd &= !(1 << a[1]);
                Ok(0)
            }
            c::PR_CAP_AMBIENT => self.ambient(a),
            c::PR_SET_NO_NEW_PRIVS if a[1..5] != [1, 0, 0, 0] => Err(EINVAL),
            c::PR_SET_NO_NEW_PRIVS => {
                self.creds.no_new_privs = true;
                Ok(0)
            }
            c::PR_SET_DUMPABLE if a[1] > 1 => Err(EINVAL),
            c::PR_SET_DUMPABLE => {
                self.dumpable = a[1];
                Ok(0)
            }
            c::PR_SET_PDEATHSIG if a[1] > 64 => Err(EINVAL),
            c::PR_SET_PDEATHSIG => {
                self.pdeath = a[1];
                Ok(0)
            }
            _ => return None,
        })
    }

    fn set_securebits(&mut self, to: u32) -> Res {
        let old = self.creds.securebits;
        if (old & LOCKS) >> 1 & (old ^ to) != 0
            || old & LOCKS & !to != 0
            || to & !0xff != 0
            || !self.has(CAP_SETPCAP)
        {
            return Err(EPERM);
        }
        self.creds.securebits = to;
        Ok(0)
    }

    fn ambient(&mut self, a: &[u32; 6]) -> Res {
        let bit = 1u64 << a[2];
        let c = &mut self.creds;
        if a[3] != 0 || a[4] != 0 || a[2] > self.own.last_cap {
            return Err(EINVAL);
        }
        match a[1] {
            c::PR_CAP_AMBIENT_LOWER => c.cap_amb &= !bit,
            c::PR_CAP_AMBIENT_RAISE
                if c.cap_prm & c.cap_inh & bit == 0 || c.securebits & 1 << 6 != 0 =>
            {
                return Err(EPERM);
            }
            c::PR_CAP_AMBIENT_RAISE => c.cap_amb |= bit,
            _ => return Err(EINVAL),
        }
        Ok(0)
    }
}

impl Model {
    /// A call of the current thread that concerns who it is. What belongs to the process is the same for all threads.
    pub(super) fn identity(&mut self, n: u32, a: &[u32; 6], data: Option<&[u8]>) -> Option<Res> {
        let (current, pid) = (self.current, self.pid);
        let of_process = self.who.get(&pid).map(|l| (l.dumpable, l.membarrier));
        let first = self.first.clone();
        let fresh = |tid| Thread {
            // Another thread has none from the harness.
            pdeath: if tid == pid { 9 } else { 0 },
            ..first.clone()
        };
        self.who.entry(pid).or_insert_with(|| fresh(pid));
        let who = self.who.entry(current).or_insert_with(|| fresh(current));
        if let Some((dumpable, membarrier)) = of_process {
            (who.dumpable, who.membarrier) = (dumpable, membarrier);
        }
        let res = who.call(n, a, data)?;
        let who = who.clone();
        if let Some(leader) = self.who.get_mut(&pid) {
            (leader.dumpable, leader.membarrier) = (who.dumpable, who.membarrier);
        }
        if res.is_ok() && n == nr::SECCOMP && a[1] & c::SECCOMP_FILTER_FLAG_TSYNC != 0 {
            let others: Vec<u32> = self.threads.keys().copied().collect();
            for tid in others {
                let other = self.who.entry(tid).or_insert_with(|| fresh(tid));
                assert!(
                    who.filters.starts_with(&other.filters),
                    "thread {tid} has filters of its own"
                );
                other.filters.clone_from(&who.filters);
                other.creds.no_new_privs |= who.creds.no_new_privs;
            }
        }
        Some(res)
    }
}
