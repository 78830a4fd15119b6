//! The executable itself: what the emulator that we test on would get wrong is not in it.

use object::{Object as _, ObjectSection as _};

/// `ldrd RT, RT2, [RN, #imm]` in Thumb, as its two halves.
fn is_ldrd(first: u16, second: u16) -> bool {
    let (indexed_or_back, literal) = (first & 0x0120 != 0, first & 0xf == 15);
    first & 0xfe50 == 0xe850 && indexed_or_back && !literal && second & 0xf000 != 0xf000
}

/// How many loads of two words there are in Thumb code, and how many of them load their own base first.
fn loads(code: &[u8]) -> (u32, u32) {
    let mut halves = code
        .chunks_exact(2)
        .map(|h| u16::from_le_bytes([h[0], h[1]]));
    let (mut all, mut lost) = (0, 0);
    while let Some(first) = halves.next() {
        if first < 0xe800 {
            continue;
        }
        let Some(second) = halves.next() else { break };
        if is_ldrd(first, second) {
            all += 1;
            lost += u32::from(first & 0xf == second >> 12);
        }
    }
    (all, lost)
}

#[test]
fn no_load_of_ours_loses_its_base() {
    // ldrd r0, r1, [r0, #20]; ldrd r1, r0, [r0, #20]; nop
    let code = [0xd0, 0xe9, 0x05, 0x01, 0xd0, 0xe9, 0x05, 0x10, 0x00, 0xbf];
    assert_eq!(loads(&code), (2, 1));

    let path = std::env::var_os("ARMREST").expect("ARMREST names the executable");
    let bytes = std::fs::read(path).unwrap();
    let elf = object::File::parse(&*bytes).unwrap();
    // Code lies in several sections (harness/layout.ld).
    let code = elf
        .sections()
        .filter(|s| s.name().is_ok_and(|n| n.starts_with(".text")));
    let (all, lost) = code.fold((0, 0), |sum, s| {
        let (all, lost) = loads(s.data().unwrap());
        (sum.0 + all, sum.1 + lost)
    });
    // What is left is libc's own: streams and shared objects, of which we use none, and constants that look like one.
    assert!(all > 2000, "{all}: is this Thumb code?");
    assert!(
        lost < 40,
        "{lost} of {all} loads of two words load their own base first (docs/vm.md)"
    );
}
