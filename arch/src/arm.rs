//! 32-bit ARM, version 7.

use crate::Arch;

/// ARMv7 Linux, EABI, hard float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {}

impl Arch for Arm {
    /// Four pages, whatever the cache is (arch/arm/include/asm/shmparam.h).
    const SHMLBA: u32 = 4 * Self::PAGE_SIZE;
    /// A compat task of an arm64 kernel; PAGE_OFFSET less 16 MiB for each split of an ARM kernel: 3G, 3G_OPT, 2G, 1G.
    const TASK_SIZES: &'static [u32] = &[
        0xffff_f000,
        0xbf00_0000,
        0xaf00_0000,
        0x7f00_0000,
        0x3f00_0000,
    ];
    /// `shmat(NULL)` gives addresses that are merely page-aligned where the cache does not alias, so programs own
    /// attachments that cannot be asked for.
    fn attach_directly(base: u32) -> bool {
        base.is_multiple_of(Self::SHMLBA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Plain {}
    impl Arch for Plain {
        const TASK_SIZES: &'static [u32] = &[0xbf00_0000];
    }

    #[test]
    fn the_hook_is_plain_by_default_and_aligned_on_arm() {
        assert_eq!(Plain::SHMLBA, 4096);
        assert!(Plain::attach_directly(0x1000));
        assert_eq!(Arm::SHMLBA, 16384);
        assert!(Arm::attach_directly(0xb6f0_0000) && Arm::attach_directly(0));
        assert!(!Arm::attach_directly(0xb6f0_1000));
    }

    #[test]
    fn task_sizes_descend_and_are_whole_pages() {
        assert!(Arm::TASK_SIZES.is_sorted_by(|a, b| a > b));
        assert!(Arm::TASK_SIZES.iter().all(|t| t.is_multiple_of(4096)));
    }
}
