//! The kernel's `[sigpage]`: a page of filler around the code that returns from signal handlers.

/// The word with which the kernel fills the page: an undefined instruction (arch/arm/kernel/signal.c).
pub const SIGPAGE_FILLER: u32 = 0xe7fd_def1;

/// Words of the code: ARM and Thumb, sigreturn and rt_sigreturn, and the FDPIC forms.
const CODE_WORDS: usize = 17;
/// `mov r7, #119` (sigreturn): the first word of the code.
const FIRST: u32 = 0xe3a0_7077;
/// `mov r7, #173` (rt_sigreturn): the fourth word.
const FOURTH: u32 = 0xe3a0_70ad;

/// A function that asks for the pid (r7 = 20) with the immediate of OABI's getppid (0x900040): a kernel without OABI
/// support answers with the pid. `push {r7, lr}; mov r7, #20; svc #0x900040; pop {r7, pc}`, ARM state.
pub const SVC_PROBE: [u32; 4] = [0xe92d_4080, 0xe3a0_7014, 0xef90_0040, 0xe8bd_8080];

/// What was found in a page that is a sigpage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sigpage {
    /// Byte offset of the code, drawn by the kernel at each boot.
    pub code: u32,
}

/// Recognise a sigpage by its contents.
pub fn sigpage(page: &[u8]) -> Option<Sigpage> {
    if page.len() != armrest_abi::PAGE_SIZE as usize {
        return None;
    }
    let word = |i: usize| {
        let bytes = page.get(4 * i..4 * i + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let words = page.len() / 4;
    let first = (0..words).find(|i| word(*i) != Some(SIGPAGE_FILLER))?;
    let rest_is_filler = (first + CODE_WORDS..words).all(|i| word(i) == Some(SIGPAGE_FILLER));
    let code = word(first) == Some(FIRST) && word(first + 3) == Some(FOURTH);
    if code && rest_is_filler {
        Some(Sigpage {
            code: u32::try_from(4 * first).ok()?,
        })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn page(code_at: usize) -> Vec<u8> {
        let code = [
            0xe3a0_7077,
            0xef90_0077,
            0xdf00_2777,
            0xe3a0_70ad,
            0xef90_00ad,
            0xdf00_27ad,
        ];
        let mut words = [SIGPAGE_FILLER; 1024];
        words[code_at / 4..code_at / 4 + 6].copy_from_slice(&code);
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    #[test]
    fn the_code_is_found_where_it_is() {
        assert_eq!(sigpage(&page(0x9b0)), Some(Sigpage { code: 0x9b0 }));
        assert_eq!(sigpage(&page(0x200)), Some(Sigpage { code: 0x200 }));
    }

    #[test]
    fn other_pages_are_not_sigpages() {
        let mut p = page(0x9b0);
        p[0] ^= 1;
        assert_eq!(sigpage(&p), None, "something before the code");
        let mut p = page(0x9b0);
        p[0x9b0 + 17 * 4] ^= 1;
        assert_eq!(sigpage(&p), None, "something behind the code");
        assert_eq!(sigpage(&[0; 4096]), None);
        assert_eq!(sigpage(&page(0x200)[..4092]), None);
        assert_eq!(sigpage(&SIGPAGE_FILLER.to_le_bytes().repeat(1024)), None);
    }
}
