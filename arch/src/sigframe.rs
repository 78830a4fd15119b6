//! The frame that `rt_sigreturn` loads: `struct rt_sigframe` of arch/arm/kernel/signal.c, with one VFP record.

use armrest_abi::FRAME_SIZE;

const BYTES: usize = FRAME_SIZE as usize;

/// Core registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Regs {
    /// r0 to r10, fp, ip, sp, lr, pc.
    pub r: [u32; 16],
    /// Status register. Must say user mode, or the kernel refuses the frame.
    pub cpsr: u32,
}

/// Floating-point registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Vfp {
    /// d0 to d31.
    pub d: [u64; 32],
    /// Status and control.
    pub fpscr: u32,
}

/// Alternate signal stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    /// Lowest address.
    pub sp: u32,
    /// Bytes.
    pub size: u32,
    /// `SS_*`.
    pub flags: u32,
}

impl AltStack {
    /// No alternate stack: `SS_DISABLE`.
    pub const NONE: AltStack = AltStack {
        sp: 0,
        size: 0,
        flags: armrest_abi::consts::SS_DISABLE,
    };
}

impl Default for AltStack {
    fn default() -> Self {
        AltStack::NONE
    }
}

const ALTSTACK: usize = 136;
const REGS: usize = 160;
const CPSR: usize = 224;
const MASK: usize = 232;
const VFP: usize = 360;
const VFP_REGS: usize = 368;
const FPSCR: usize = 624;

const VFP_MAGIC: u32 = 0x5646_5001;
const VFP_SIZE: u32 = 288;

/// The frame's bytes. Fields not named are zero, which the kernel takes as: no more coprocessor records, a clean
/// floating-point unit.
pub fn sigframe(regs: &Regs, vfp: &Vfp, mask: u64, altstack: AltStack) -> [u8; BYTES] {
    let mut frame = [0; BYTES];
    // stack_t on ARM: flags come before size.
    put(&mut frame, ALTSTACK, &altstack.sp.to_le_bytes());
    put(&mut frame, ALTSTACK + 4, &altstack.flags.to_le_bytes());
    put(&mut frame, ALTSTACK + 8, &altstack.size.to_le_bytes());
    for (i, r) in regs.r.iter().enumerate() {
        put(&mut frame, REGS + 4 * i, &r.to_le_bytes());
    }
    put(&mut frame, CPSR, &regs.cpsr.to_le_bytes());
    put(&mut frame, MASK, &mask.to_le_bytes());
    put(&mut frame, VFP, &VFP_MAGIC.to_le_bytes());
    put(&mut frame, VFP + 4, &VFP_SIZE.to_le_bytes());
    for (i, d) in vfp.d.iter().enumerate() {
        put(&mut frame, VFP_REGS + 8 * i, &d.to_le_bytes());
    }
    put(&mut frame, FPSCR, &vfp.fpscr.to_le_bytes());
    frame
}

fn put(frame: &mut [u8; BYTES], at: usize, bytes: &[u8]) {
    for (to, from) in frame.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(frame: &[u8; BYTES], at: usize) -> u32 {
        u32::from_le_bytes(frame[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn every_field_has_its_offset() {
        let mut regs = Regs {
            r: [0; 16],
            cpsr: 0x6000_0030,
        };
        let mut vfp = Vfp {
            d: [0; 32],
            fpscr: 0x0300_0010,
        };
        for i in 0..16u32 {
            regs.r[i as usize] = 0x100 + i;
        }
        for i in 0..32u32 {
            vfp.d[i as usize] = u64::from(i) << 32 | 0xabc;
        }
        let alt = AltStack {
            sp: 0x11,
            size: 0x22,
            flags: 0x1,
        };
        let f = sigframe(&regs, &vfp, 0xfedc_ba98_7654_3210, alt);
        assert!(
            f[..136].iter().all(|b| *b == 0),
            "siginfo, uc_flags, uc_link"
        );
        assert_eq!(
            (word(&f, 136), word(&f, 140), word(&f, 144)),
            (0x11, 1, 0x22)
        );
        assert!(
            f[148..160].iter().all(|b| *b == 0),
            "trap_no, error_code, oldmask"
        );
        for i in 0..=10u32 {
            assert_eq!(word(&f, 160 + 4 * i as usize), 0x100 + i);
        }
        let fp_to_pc: std::vec::Vec<u32> = [204, 208, 212, 216, 220]
            .iter()
            .map(|at| word(&f, *at))
            .collect();
        assert_eq!(fp_to_pc, [0x10b, 0x10c, 0x10d, 0x10e, 0x10f]);
        assert_eq!((word(&f, 224), word(&f, 228)), (0x6000_0030, 0));
        assert_eq!((word(&f, 232), word(&f, 236)), (0x7654_3210, 0xfedc_ba98));
        assert!(f[240..360].iter().all(|b| *b == 0));
        assert_eq!((word(&f, 360), word(&f, 364)), (0x5646_5001, 0x120));
        assert_eq!((word(&f, 368), word(&f, 372)), (0xabc, 0));
        assert_eq!((word(&f, 616), word(&f, 620)), (0xabc, 31));
        assert_eq!(word(&f, 624), 0x0300_0010);
        assert!(
            f[628..].iter().all(|b| *b == 0),
            "fpexc, end magic, return code"
        );
        assert_eq!(f.len(), 888);
    }
}
