//! Code for the functions of a dumped vdso: each jumps to its counterpart in the kernel's own, or makes the system call.
//!
//! The dumped code would read a data page that no kernel keeps up to date. Its entry points must stay callable, as libc
//! holds their addresses; so each is overwritten, in ARM or Thumb state as the symbol says.

/// Code for one entry point: at most five words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stub {
    bytes: [u8; Stub::MAX],
    len: usize,
}

impl Stub {
    /// Bytes of the longest stub.
    pub const MAX: usize = 20;

    /// The code.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    fn arm(words: &[u32]) -> Stub {
        let mut stub = Stub {
            bytes: [0; Stub::MAX],
            len: 4 * words.len(),
        };
        for (to, from) in stub
            .bytes
            .iter_mut()
            .zip(words.iter().flat_map(|w| w.to_le_bytes()))
        {
            *to = from;
        }
        stub
    }

    fn thumb(halfwords: &[u16]) -> Stub {
        let mut stub = Stub {
            bytes: [0; Stub::MAX],
            len: 2 * halfwords.len(),
        };
        for (to, from) in stub
            .bytes
            .iter_mut()
            .zip(halfwords.iter().flat_map(|h| h.to_le_bytes()))
        {
            *to = from;
        }
        stub
    }
}

/// A function that makes system call `nr` with its own arguments and returns what the kernel returns.
///
/// Arguments beyond the fourth are not passed on: the functions with a call in [`vdso_syscall`] need none of them.
/// r7 is kept in ip, which a callee may change and the kernel does not, so no stack is used.
pub fn syscall_stub(nr: u16, thumb: bool) -> Stub {
    let n = u32::from(nr);
    if thumb {
        // movw r7, #nr (T3): i and imm4 in the first halfword, imm3 and imm8 in the second.
        let movw = 0xf240 | (nr >> 11 & 1) << 10 | nr >> 12;
        let imm = (nr >> 8 & 7) << 12 | 7 << 8 | nr & 0xff;
        // mov ip, r7; movw r7, #nr; svc 0; mov r7, ip; bx lr
        Stub::thumb(&[0x46bc, movw, imm, 0xdf00, 0x4667, 0x4770])
    } else {
        // movw r7, #nr (A2): imm4 in bits 16 to 19, imm12 in bits 0 to 11.
        let movw = 0xe300_7000 | (n >> 12) << 16 | n & 0xfff;
        Stub::arm(&[0xe1a0_c007, movw, 0xef00_0000, 0xe1a0_700c, 0xe12f_ff1e])
    }
}

/// A jump from `at` to `target` (bit 0 set: Thumb code) that changes no register: a load into pc, which switches state
/// as bit 0 says.
pub fn jump(at: u32, target: u32, thumb: bool) -> Stub {
    let [low, high] = [target & 0xffff, target >> 16].map(|h| u16::try_from(h).unwrap_or(0));
    match (thumb, at & 2) {
        // ldr pc, [pc, #-4]: pc reads as the address of the instruction and 8.
        (false, _) => Stub::arm(&[0xe51f_f004, target]),
        // ldr.w pc, [pc, #0]: pc reads as the address of the instruction and 4, rounded down to words.
        (true, 0) => Stub::thumb(&[0xf8df, 0xf000, low, high]),
        // ldr.w pc, [pc, #4]; nop, so that the word is aligned.
        (true, _) => Stub::thumb(&[0xf8df, 0xf004, 0xbf00, low, high]),
    }
}

/// A function that returns `-ENOSYS`: for a vdso function of which no call is known. libc then falls back.
pub fn enosys_stub(thumb: bool) -> Stub {
    if thumb {
        // movs r0, #38; negs r0, r0; bx lr
        Stub::thumb(&[0x2026, 0x4240, 0x4770])
    } else {
        // mvn r0, #37; bx lr
        Stub::arm(&[0xe3e0_0025, 0xe12f_ff1e])
    }
}

/// The system call with the same arguments and result as the vdso function of this name.
pub fn vdso_syscall(name: &str) -> Option<u16> {
    match name {
        "__vdso_clock_gettime" => Some(263),
        "__vdso_clock_gettime64" => Some(403),
        "__vdso_clock_getres" => Some(264),
        "__vdso_clock_getres_time64" => Some(406),
        "__vdso_gettimeofday" => Some(78),
        "__vdso_getrandom" => Some(384),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against GNU as (`arm-linux-gnueabihf-as -march=armv7-a`, `objdump -d`).
    #[test]
    fn stubs_are_what_the_assembler_makes() {
        let words: std::vec::Vec<u32> = syscall_stub(263, false)
            .bytes()
            .chunks_exact(4)
            .map(|w| u32::from_le_bytes(w.try_into().unwrap()))
            .collect();
        assert_eq!(
            words,
            [0xe1a0c007, 0xe3007107, 0xef000000, 0xe1a0700c, 0xe12fff1e]
        );
        let halves = |s: Stub| -> std::vec::Vec<u16> {
            s.bytes()
                .chunks_exact(2)
                .map(|w| u16::from_le_bytes(w.try_into().unwrap()))
                .collect()
        };
        assert_eq!(
            halves(syscall_stub(403, true)),
            [0x46bc, 0xf240, 0x1793, 0xdf00, 0x4667, 0x4770]
        );
        assert_eq!(
            halves(syscall_stub(78, true)),
            [0x46bc, 0xf240, 0x074e, 0xdf00, 0x4667, 0x4770]
        );
        assert_eq!(halves(syscall_stub(0x1abc, true))[1..3], [0xf641, 0x27bc]);
        assert_eq!(halves(enosys_stub(true)), [0x2026, 0x4240, 0x4770]);
        assert_eq!(
            enosys_stub(false).bytes(),
            [0x25, 0, 0xe0, 0xe3, 0x1e, 0xff, 0x2f, 0xe1]
        );
    }

    /// Against GNU as, for both alignments; and the word is where the processor looks for it.
    #[test]
    fn jumps_are_what_the_assembler_makes() {
        let halves = |s: Stub| -> std::vec::Vec<u16> {
            s.bytes()
                .chunks_exact(2)
                .map(|w| u16::from_le_bytes(w.try_into().unwrap()))
                .collect()
        };
        assert_eq!(
            halves(jump(0x600, 0xb6ff_e601, true)),
            [0xf8df, 0xf000, 0xe601, 0xb6ff]
        );
        assert_eq!(
            halves(jump(0x602, 0xb6ff_e600, true)),
            [0xf8df, 0xf004, 0xbf00, 0xe600, 0xb6ff]
        );
        assert_eq!(
            jump(0x604, 0x1234_5679, false).bytes(),
            [0x04, 0xf0, 0x1f, 0xe5, 0x79, 0x56, 0x34, 0x12]
        );
    }

    #[test]
    fn names_have_the_calls_of_the_arm_table() {
        assert_eq!(vdso_syscall("__vdso_clock_gettime"), Some(263));
        assert_eq!(vdso_syscall("__vdso_clock_gettime64"), Some(403));
        assert_eq!(vdso_syscall("__vdso_something_new"), None);
    }
}
