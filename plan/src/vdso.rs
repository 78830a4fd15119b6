//! The dumped vdso on a kernel that has another one, or none: every exported function becomes a stub.
//!
//! libc keeps the old addresses in its data, so the old entry points must stay callable. A zero vvar page must never
//! answer a clock call: a function that we do not know returns ENOSYS, after which callers make the call themselves.

/// An exported function of the vdso.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Symbol name.
    pub name: String,
    /// Offset of its first instruction in the image, bit 0 clear.
    pub offset: usize,
    /// Thumb code.
    pub thumb: bool,
}

fn u16_at(b: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(
        b.get(at..at.checked_add(2)?)?.try_into().ok()?,
    )))
}
fn u32_at(b: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(
        b.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
    .ok()
}

/// The functions that a vdso exports, by its dynamic symbols. `None` if the bytes are no 32-bit ARM ELF image that
/// makes sense. The vdso is linked at 0, so addresses are offsets.
pub fn functions(elf: &[u8]) -> Option<Vec<Function>> {
    const PT_DYNAMIC: usize = 2;
    const DT_HASH: usize = 4;
    const DT_STRTAB: usize = 5;
    const DT_SYMTAB: usize = 6;
    const STT_FUNC: u8 = 2;
    if elf.get(..6)? != b"\x7fELF\x01\x01" || u16_at(elf, 18)? != 40 {
        return None;
    }
    let (phoff, phentsize, phnum) = (u32_at(elf, 28)?, u16_at(elf, 42)?, u16_at(elf, 44)?);
    let dynamic = (0..phnum).find_map(|i| {
        let at = phoff.checked_add(i.checked_mul(phentsize)?)?;
        (u32_at(elf, at)? == PT_DYNAMIC).then_some((u32_at(elf, at + 4)?, u32_at(elf, at + 16)?))
    })?;
    let tag = |wanted: usize| {
        (0..dynamic.1.min(elf.len()) / 8).find_map(|i| {
            let at = dynamic.0.checked_add(i * 8)?;
            (u32_at(elf, at)? == wanted).then_some(u32_at(elf, at + 4)?)
        })
    };
    let (hash, strtab, symtab) = (tag(DT_HASH)?, tag(DT_STRTAB)?, tag(DT_SYMTAB)?);
    let count = u32_at(elf, hash.checked_add(4)?)?;
    let mut out = Vec::new();
    for i in 0..count.min(1024) {
        let at = symtab.checked_add(i * 16)?;
        let (name, value, info, shndx) = (
            u32_at(elf, at)?,
            u32_at(elf, at + 4)?,
            *elf.get(at + 12)?,
            u16_at(elf, at + 14)?,
        );
        if info & 15 != STT_FUNC || shndx == 0 {
            continue;
        }
        let text = elf.get(strtab.checked_add(name)?..)?;
        let name = std::str::from_utf8(text.get(..text.iter().position(|b| *b == 0)?)?)
            .ok()?
            .to_owned();
        if value & !1 >= elf.len() {
            return None;
        }
        out.push(Function {
            name,
            offset: value & !1,
            thumb: value & 1 != 0,
        });
    }
    Some(out)
}

/// The vdso image with every exported function patched; the names that now only say ENOSYS.
/// `None` if the image cannot be understood or a stub does not fit.
pub fn patched(elf: &[u8]) -> Option<(Vec<u8>, Vec<String>)> {
    let functions = functions(elf)?;
    let mut out = elf.to_vec();
    let mut unknown = Vec::new();
    for f in &functions {
        let stub = match armrest_arch::vdso_syscall(&f.name) {
            Some(nr) => armrest_arch::syscall_stub(nr, f.thumb),
            None => {
                unknown.push(f.name.clone());
                armrest_arch::enosys_stub(f.thumb)
            }
        };
        let stub = stub.bytes();
        let room = functions
            .iter()
            .map(|o| o.offset)
            .filter(|o| *o > f.offset)
            .min()
            .unwrap_or(elf.len())
            - f.offset;
        if stub.len() > room {
            return None;
        }
        out.get_mut(f.offset..f.offset + stub.len())?
            .copy_from_slice(stub);
    }
    Some((out, unknown))
}
