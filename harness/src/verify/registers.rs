//! Registers of a thread, by ptrace; and where the task stands, without it.

use armrest_images::{LiveTask, Thread};

use super::{Finding, Weight, found};
use crate::trace::Seen;

const NAMES: [&str; 17] = [
    "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "fp", "ip", "sp", "lr",
    "pc", "cpsr",
];
/// How many values [`registers`] compares.
pub const COUNT: usize = 17 + 1 + 32 + 1 + 1;

/// Compare core registers, VFP registers with FPSCR, and the thread register.
pub fn registers(t: &Thread, seen: &Seen, weight: Weight) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut differ = |weight, name: &str, images: u64, task: u64, digits: usize| {
        if images != task {
            let why = format!("{images:0digits$x} in the images, {task:0digits$x} in the task");
            out.push(found(weight, format!("register {name}"), why));
        }
    };
    for (name, (images, task)) in NAMES.iter().zip(t.regs.iter().zip(&seen.regs)) {
        differ(weight, name, (*images).into(), (*task).into(), 8);
    }
    // What r0 was when the last call began. Only a call that is restarted needs it; images hold no such call: the dumper
    // has set the registers back to before it.
    let last = (t.regs[17].into(), seen.regs[17].into());
    differ(Weight::Masked, "orig_r0", last.0, last.1, 8);
    for (i, (images, task)) in t.vfp.iter().zip(seen.vfp.as_chunks::<2>().0).enumerate() {
        let task = u64::from(task[0]) | u64::from(task[1]) << 32;
        differ(weight, &format!("d{i}"), *images, task, 16);
    }
    differ(weight, "fpscr", t.fpscr.into(), seen.vfp[64].into(), 8);
    differ(weight, "tls", t.tls.into(), seen.tls.into(), 8);
    out
}

/// Why the task must have run since the restore: `/proc/PID/syscall` against the registers of the images.
/// Only stack and program counter are there; they tell that it moved, not that it came back to where it was.
pub fn moved(live: &LiveTask, syscall: &str) -> Option<String> {
    let words: Vec<&str> = syscall.split_whitespace().collect();
    let number = |w: &str| u64::from_str_radix(w.trim_start_matches("0x"), 16).ok();
    let r = &live.threads[0].regs;
    match words[..] {
        [.., sp, pc] => match (number(sp)?, number(pc)?) {
            (sp, pc) if (sp, pc) == (u64::from(r[13]), u64::from(r[15])) => None,
            (sp, pc) => Some(format!(
                "pc {pc:08x}, sp {sp:08x}; in the images pc {:08x}, sp {:08x}",
                r[15], r[13]
            )),
        },
        _ => Some("it is running".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::{live, load};

    #[test]
    fn every_register_is_compared_and_the_last_calls_is_masked() {
        let cp = load("counter");
        let t = &live(&cp).threads[0];
        let mut vfp = [0; 65];
        for (i, d) in t.vfp.iter().enumerate() {
            vfp[2 * i] = u32::try_from(d & 0xffff_ffff).expect("low half");
            vfp[2 * i + 1] = u32::try_from(d >> 32).expect("high half");
        }
        vfp[64] = t.fpscr;
        let same = Seen {
            regs: t.regs,
            vfp,
            tls: t.tls,
        };
        assert_eq!(registers(t, &same, Weight::Differs), []);
        let mut changed: Vec<(String, Seen)> = Vec::new();
        for (i, name) in NAMES.iter().chain([&"orig_r0"]).enumerate() {
            let mut s = same;
            s.regs[i] ^= 1 << 31;
            changed.push(((*name).into(), s));
        }
        for i in 0..65 {
            let mut s = same;
            s.vfp[i] ^= 1;
            let name = if i == 64 {
                "fpscr".into()
            } else {
                format!("d{}", i / 2)
            };
            changed.push((name, s));
        }
        let tls = same.tls ^ 1;
        changed.push(("tls".into(), Seen { tls, ..same }));
        for (name, seen) in changed {
            let f = registers(t, &seen, Weight::Differs);
            assert_eq!(f.len(), 1, "{name}");
            assert_eq!(f[0].what, format!("register {name}"));
            let weight = if name == "orig_r0" {
                Weight::Masked
            } else {
                Weight::Differs
            };
            assert_eq!(f[0].weight, weight, "{name}");
        }
    }

    #[test]
    fn a_task_that_moved_is_told_by_its_pc_and_sp() {
        let cp = load("counter");
        let r = &live(&cp).threads[0].regs;
        let at = |sp: u32, pc: u32| format!("162 0x1 0x2 0x3 0x4 0x5 0x6 {sp:#x} {pc:#x}\n");
        assert_eq!(moved(live(&cp), &at(r[13], r[15])), None);
        assert!(moved(live(&cp), &at(r[13], r[15] + 4)).is_some());
        assert_eq!(
            moved(live(&cp), &format!("-1 {:#x} {:#x}\n", r[13], r[15])),
            None
        );
        assert!(moved(live(&cp), "running\n").is_some());
    }
}
