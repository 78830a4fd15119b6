//! Where the task stands.

use armrest_images::LiveTask;

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
