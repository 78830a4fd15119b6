//! Credentials of a thread.

use super::at::{At, need};
use super::task::length;
use crate::checkpoint::Creds;
use crate::error::{Error, Fault};
use crate::proto;

/// Checks them, and repairs what the dumper asks for with calls that are too narrow.
pub(super) fn creds(at: &At, c: &proto::CredsEntry) -> Result<Creds, Error> {
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
}
