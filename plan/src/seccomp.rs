//! Filters of system calls: what they say about the calls that a restore makes after them, found by running them here.
//!
//! What is not known of a call (addresses, registers of the program) is kept unknown: both ways of a jump that depends
//! on it are looked at. So a verdict "allowed" holds for any value.

use std::collections::BTreeSet;

use armrest_images::BpfInsn;

/// `AUDIT_ARCH_ARM`.
const ARCH: u32 = 0x4000_0028;
/// Bytes of `struct seccomp_data`.
const DATA: u32 = 64;
/// Instructions looked at before a filter counts as too long to tell.
const MOST: usize = 1 << 20;
/// Ways kept, that are still to be looked at or have been: each is about 150 bytes.
const MOST_WAYS: usize = 1 << 16;

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_LOG: u32 = 0x7ffc_0000;

/// A call as a filter sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub nr: u32,
    /// Its arguments, where they are known.
    pub args: [Option<u32>; 6],
}

impl Call {
    /// A call of which only the number is known.
    pub fn any(nr: u32) -> Call {
        Call {
            nr,
            args: [None; 6],
        }
    }

    /// The word at `offset` of `struct seccomp_data`: nr, arch, instruction pointer, six arguments of 64 bits.
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.nr),
            4 => Some(ARCH),
            8 => None,
            12 => Some(0),
            // A task of 32 bits: little-endian, the upper halves are zero.
            _ if offset & 4 != 0 => Some(0),
            _ => *self.args.get(usize::try_from(offset / 8 - 2).ok()?)?,
        }
    }
}

/// Why a program is none that the kernel would take, if so.
pub fn fault(program: &[BpfInsn]) -> Option<&'static str> {
    let len = program.len();
    for (at, i) in program.iter().enumerate() {
        let left = len - at - 1;
        let ok = match i.code {
            // ld [k], ld #len, ldx #len, ld #k, ldx #k
            0x20 => i.k < DATA && i.k.is_multiple_of(4),
            0x80 | 0x81 | 0x00 | 0x01 => true,
            // ld M[k], ldx M[k], st, stx
            0x60 | 0x61 | 0x02 | 0x03 => i.k < 16,
            // ALU with k, with x; neg
            0x04 | 0x14 | 0x24 | 0x44 | 0x54 | 0xa4 => true,
            0x34 => i.k != 0,
            0x64 | 0x74 => i.k < 32,
            0x0c | 0x1c | 0x2c | 0x3c | 0x4c | 0x5c | 0xac | 0x6c | 0x7c | 0x84 => true,
            // tax, txa, ret k, ret a
            0x07 | 0x87 | 0x06 | 0x16 => true,
            0x05 => usize::try_from(i.k).is_ok_and(|k| k < left),
            0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                usize::from(i.jt.max(i.jf)) < left
            }
            _ => return Some("an instruction that filters do not have"),
        };
        if !ok {
            return Some("an instruction with an impossible operand");
        }
    }
    let ends = program
        .last()
        .is_some_and(|i| matches!(i.code, 0x06 | 0x16));
    (!ends).then_some("no return at its end")
}

type Word = Option<u32>;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    at: usize,
    a: Word,
    x: Word,
    m: [Word; 16],
}

/// Every value that `program` can return for `call`, or `None` if that cannot be told.
pub fn verdicts(program: &[BpfInsn], call: &Call) -> Option<BTreeSet<u32>> {
    let mut out = BTreeSet::new();
    // Registers and memory begin as zero.
    let mut todo = vec![State {
        at: 0,
        a: Some(0),
        x: Some(0),
        m: [Some(0); 16],
    }];
    let mut forks = BTreeSet::new();
    let mut steps = 0;
    while let Some(mut s) = todo.pop() {
        loop {
            steps += 1;
            if steps > MOST {
                return None;
            }
            let i = program.get(s.at)?;
            s.at += 1;
            let m = usize::try_from(i.k & 15).unwrap_or(0);
            match i.code {
                0x20 => s.a = call.word(i.k),
                0x80 => s.a = Some(DATA),
                0x81 => s.x = Some(DATA),
                0x00 => s.a = Some(i.k),
                0x01 => s.x = Some(i.k),
                0x60 => s.a = s.m[m],
                0x61 => s.x = s.m[m],
                0x02 => s.m[m] = s.a,
                0x03 => s.m[m] = s.x,
                0x07 => s.x = s.a,
                0x87 => s.a = s.x,
                0x06 => {
                    out.insert(i.k);
                    break;
                }
                0x16 => {
                    out.insert(s.a?);
                    break;
                }
                0x05 => s.at += usize::try_from(i.k).ok()?,
                code if code & 7 == 5 => {
                    let by = if code & 8 == 0 { Some(i.k) } else { s.x };
                    let (yes, no) = (s.at + usize::from(i.jt), s.at + usize::from(i.jf));
                    match s.a.zip(by).map(|(a, b)| jumps(code, a, b)) {
                        Some(true) => s.at = yes,
                        Some(false) => s.at = no,
                        None => {
                            let other = State {
                                at: no,
                                ..s.clone()
                            };
                            if forks.insert(other.clone()) {
                                if forks.len() > MOST_WAYS {
                                    return None;
                                }
                                todo.push(other);
                            }
                            s.at = yes;
                        }
                    }
                }
                code if code & 7 == 4 => {
                    let by = if code & 8 == 0 { Some(i.k) } else { s.x };
                    // A division by a zero in x ends a filter with 0.
                    if code == 0x3c && by != Some(0) && by.is_none() {
                        out.insert(0);
                    }
                    if code == 0x3c && by == Some(0) {
                        out.insert(0);
                        break;
                    }
                    s.a = arithmetic(code, s.a, by);
                }
                _ => return None,
            }
        }
    }
    Some(out)
}

fn jumps(code: u16, a: u32, b: u32) -> bool {
    match code & 0xf0 {
        0x10 => a == b,
        0x20 => a > b,
        0x30 => a >= b,
        _ => a & b != 0,
    }
}

fn arithmetic(code: u16, a: Word, b: Word) -> Word {
    let op = code & 0xf0;
    if op == 0x80 {
        return a.map(u32::wrapping_neg);
    }
    // What is masked away need not be known.
    if op == 0x50 && (a == Some(0) || b == Some(0)) {
        return Some(0);
    }
    let (a, b) = (a?, b?);
    Some(match op {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 => a.checked_div(b)?,
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a.wrapping_shl(b),
        0x70 => a.wrapping_shr(b),
        _ => a ^ b,
    })
}

/// What a filter does to `call` if it does not let it pass: in words.
pub fn objection(program: &[BpfInsn], call: &Call) -> Option<&'static str> {
    let Some(verdicts) = verdicts(program, call) else {
        return Some("decides in a way that cannot be foreseen on");
    };
    let passes = |v: &u32| matches!(v & 0xffff_0000, RET_ALLOW | RET_LOG);
    let worst = verdicts.into_iter().find(|v| !passes(v))?;
    Some(match worst & 0xffff_0000 {
        0x8000_0000 | 0 => "kills for",
        0x0003_0000 => "sends SIGSYS for",
        0x0005_0000 => "denies",
        0x7fc0_0000 => "asks a supervisor about",
        0x7ff0_0000 => "asks a tracer about",
        _ => "kills for",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn i(code: u16, k: u32) -> BpfInsn {
        BpfInsn {
            code,
            jt: 0,
            jf: 0,
            k,
        }
    }
    fn j(code: u16, k: u32, jt: u8, jf: u8) -> BpfInsn {
        BpfInsn { code, jt, jf, k }
    }
    const DENY: u32 = 0x0005_0001;

    /// As compilers of filters write: wrong architecture kills, one call is denied.
    fn deny(nr: u32) -> Vec<BpfInsn> {
        vec![
            i(0x20, 4),
            j(0x15, ARCH, 1, 0),
            i(0x06, 0x8000_0000),
            i(0x20, 0),
            j(0x15, nr, 0, 1),
            i(0x06, DENY),
            i(0x06, RET_ALLOW),
        ]
    }

    #[test]
    fn a_denied_call_is_found_and_the_others_pass() {
        assert_eq!(fault(&deny(91)), None);
        assert_eq!(objection(&deny(91), &Call::any(91)), Some("denies"));
        assert_eq!(objection(&deny(91), &Call::any(173)), None);
    }

    #[test]
    fn unknown_arguments_go_both_ways_and_known_ones_one() {
        // Denied if the second argument is 7.
        let f = [
            i(0x20, 24),
            j(0x15, 7, 0, 1),
            i(0x06, DENY),
            i(0x06, RET_ALLOW),
        ];
        assert_eq!(objection(&f, &Call::any(91)), Some("denies"));
        for (arg, want) in [(7, Some("denies")), (8, None)] {
            let mut call = Call::any(91);
            call.args[1] = Some(arg);
            assert_eq!(objection(&f, &call), want);
        }
        // The upper half of an argument is zero, the instruction pointer unknown.
        let upper = [
            i(0x20, 28),
            j(0x15, 0, 1, 0),
            i(0x06, DENY),
            i(0x06, RET_LOG),
        ];
        assert_eq!(objection(&upper, &Call::any(91)), None);
        let ip = [
            i(0x20, 8),
            j(0x25, 0xb000_0000, 1, 0),
            i(0x06, 0),
            i(0x06, RET_ALLOW),
        ];
        assert_eq!(objection(&ip, &Call::any(91)), Some("kills for"));
    }

    #[test]
    fn arithmetic_is_the_kernels() {
        // ((nr + 9) << 4 | 3) ^ 0x643, through memory and x: 91 gives 0.
        let mut f = vec![
            i(0x20, 0),
            i(0x04, 9),
            i(0x64, 4),
            i(0x44, 3),
            i(0x02, 5),
            i(0x00, 0x643),
            i(0x07, 0),
            i(0x60, 5),
            i(0xac, 0),
            j(0x15, 0, 0, 1),
            i(0x06, RET_ALLOW),
            i(0x06, 0),
        ];
        assert_eq!(objection(&f, &Call::any(91)), None);
        assert_eq!(objection(&f, &Call::any(90)), Some("kills for"));
        f[8].code = 0x3c;
        f[6] = i(0x01, 0);
        assert_eq!(
            verdicts(&f, &Call::any(91)),
            Some([0].into()),
            "division by zero"
        );
    }

    #[test]
    fn programs_that_a_kernel_refuses_are_named() {
        for bad in [
            vec![],
            vec![i(0x20, 0)],
            vec![i(0x20, 64), i(0x06, 0)],
            vec![i(0x20, 2), i(0x06, 0)],
            vec![i(0x28, 0), i(0x06, 0)],
            vec![i(0x94, 3), i(0x06, 0)],
            vec![i(0x34, 0), i(0x06, 0)],
            vec![i(0x64, 32), i(0x06, 0)],
            vec![i(0x60, 16), i(0x06, 0)],
            vec![i(0x05, 1), i(0x06, 0)],
            vec![j(0x15, 0, 0, 1), i(0x06, 0)],
        ] {
            assert!(fault(&bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn a_filter_too_long_to_tell_is_no_permission() {
        // Each of 40 unknown bits is looked at, and each adds to a sum.
        let mut f = Vec::new();
        for n in 0..40 {
            f.extend([i(0x20, 16 + 8 * (n % 6)), j(0x45, 1 << (n % 31), 0, 3)]);
            f.extend([i(0x60, 0), i(0x04, 1 << (n % 31)), i(0x02, 0)]);
        }
        f.push(i(0x06, RET_ALLOW));
        assert_eq!(fault(&f), None);
        assert_eq!(verdicts(&f, &Call::any(91)), None);
        let words = objection(&f, &Call::any(91));
        assert_eq!(words, Some("decides in a way that cannot be foreseen on"));
    }
}
