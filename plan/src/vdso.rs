//! The dumped vdso on a kernel that has another one, or none: every exported function jumps to its counterpart in the
//! real one, which stays mapped elsewhere; without a counterpart it becomes a stub that makes the system call.
//!
//! libc keeps the old addresses in its data, so the old entry points must stay callable. A zero vvar page must never
//! answer a clock call: a function that we do not know returns ENOSYS, after which callers make the call themselves.

/// An exported function of the vdso.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// True if a program cannot tell one vdso from the other by calling it: the same size, and every function of either at
/// the same place and in the same state.
pub fn alike(a: &[u8], b: &[u8]) -> bool {
    let sorted = |elf| {
        let mut all = functions(elf)?;
        all.sort_unstable();
        Some(all)
    };
    a == b || a.len() == b.len() && sorted(a).is_some_and(|f| !f.is_empty() && sorted(b) == Some(f))
}

/// A vdso whose functions were patched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patched {
    /// The image.
    pub bytes: Vec<u8>,
    /// Functions that jump to the real vdso.
    pub jumps: Vec<String>,
    /// Functions that make the system call.
    pub calls: Vec<String>,
    /// Functions that only say ENOSYS.
    pub unknown: Vec<String>,
}

impl Patched {
    /// A sentence for the summary.
    pub fn note(&self) -> String {
        let mut parts = Vec::new();
        if !self.jumps.is_empty() {
            parts.push(format!(
                "{} jump to this kernel's own",
                self.jumps.join(", ")
            ));
        }
        if self.jumps.is_empty() {
            parts.push("its functions now make system calls".to_owned());
        } else if !self.calls.is_empty() {
            parts.push(format!("{} make system calls", self.calls.join(", ")));
        }
        if !self.unknown.is_empty() {
            parts.push(format!("{} return ENOSYS", self.unknown.join(", ")));
        }
        format!("vdso of the checkpoint: {}", parts.join("; "))
    }
}

/// The vdso image with every exported function patched. `real`: the kernel's own vdso and where it will lie.
/// `None` if the image cannot be understood or a patch does not fit.
pub fn patched(elf: &[u8], real: Option<(&[u8], u32)>) -> Option<Patched> {
    let functions = functions(elf)?;
    let counterparts = real
        .and_then(|(bytes, at)| Some((self::functions(bytes)?, at)))
        .unwrap_or_default();
    let mut out = Patched {
        bytes: elf.to_vec(),
        ..Patched::default()
    };
    for f in &functions {
        let target = counterparts
            .0
            .iter()
            .find(|c| c.name == f.name)
            .and_then(|c| {
                let at = counterparts.1.checked_add(u32::try_from(c.offset).ok()?)?;
                Some(at | u32::from(c.thumb))
            });
        let stub = match (target, armrest_arch::vdso_syscall(&f.name)) {
            (Some(target), _) => {
                out.jumps.push(f.name.clone());
                armrest_arch::jump(u32::try_from(f.offset).ok()?, target, f.thumb)
            }
            (None, Some(nr)) => {
                out.calls.push(f.name.clone());
                armrest_arch::syscall_stub(nr, f.thumb)
            }
            (None, None) => {
                out.unknown.push(f.name.clone());
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
        out.bytes
            .get_mut(f.offset..f.offset + stub.len())?
            .copy_from_slice(stub);
    }
    Some(out)
}
