//! ARM relocation kinds (AAELF32) sorted by what they mean for code that is loaded anywhere.

use object::elf;

/// What a relocation that the linker already applied means for a blob at an unknown address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A distance: right at every address.
    Relative,
    /// Goes through the global offset table, which a flat blob has not.
    Got,
    /// An address, or something unknown: wrong unless the symbol is an absolute number.
    Absolute,
}

/// Sorts an `R_ARM_*` number. What is not known to be a distance is not taken for one.
pub fn meaning(kind: u32) -> Meaning {
    if RELATIVE.iter().any(|k| k.0 == kind) || (PC_GROUPS.0..=PC_GROUPS.1).contains(&kind) {
        Meaning::Relative
    } else if GOT.iter().any(|k| k.0 == kind) {
        Meaning::Got
    } else {
        Meaning::Absolute
    }
}

/// Whether the kind only marks an instruction and refers to nothing.
pub fn is_marker(kind: u32) -> bool {
    kind == elf::R_ARM_NONE.0 || kind == elf::R_ARM_V4BX.0
}

/// `R_ARM_ALU_PC_G0_NC` to `R_ARM_LDC_PC_G2`: parts of a distance in several instructions.
const PC_GROUPS: (u32, u32) = (elf::R_ARM_ALU_PC_G0_NC.0, elf::R_ARM_LDC_PC_G2.0);

const RELATIVE: &[elf::RelocationType] = &[
    elf::R_ARM_NONE,
    elf::R_ARM_V4BX,
    elf::R_ARM_PC24,
    elf::R_ARM_REL32,
    elf::R_ARM_REL32_NOI,
    elf::R_ARM_PC13,
    elf::R_ARM_THM_PC22,
    elf::R_ARM_THM_PC8,
    elf::R_ARM_PLT32,
    elf::R_ARM_CALL,
    elf::R_ARM_JUMP24,
    elf::R_ARM_THM_JUMP24,
    elf::R_ARM_PREL31,
    elf::R_ARM_MOVW_PREL_NC,
    elf::R_ARM_MOVT_PREL,
    elf::R_ARM_THM_MOVW_PREL_NC,
    elf::R_ARM_THM_MOVT_PREL,
    elf::R_ARM_THM_JUMP19,
    elf::R_ARM_THM_JUMP6,
    elf::R_ARM_THM_ALU_PREL_11_0,
    elf::R_ARM_THM_PC12,
    elf::R_ARM_THM_PC11,
    elf::R_ARM_THM_PC9,
];

const GOT: &[elf::RelocationType] = &[
    elf::R_ARM_GLOB_DAT,
    elf::R_ARM_JUMP_SLOT,
    elf::R_ARM_GOTOFF,
    elf::R_ARM_GOTPC,
    elf::R_ARM_GOT32,
    elf::R_ARM_GOT_ABS,
    elf::R_ARM_GOT_PREL,
    elf::R_ARM_GOT_BREL12,
    elf::R_ARM_GOTOFF12,
    elf::R_ARM_GOTRELAX,
    elf::R_ARM_THM_GOT_BREL12,
    elf::R_ARM_TLS_GD32,
    elf::R_ARM_TLS_LDM32,
    elf::R_ARM_TLS_IE32,
    elf::R_ARM_TLS_IE12GP,
    elf::R_ARM_TLS_GOTDESC,
];

/// The kind's name as in `readelf -r`, or its number.
pub fn name(kind: u32) -> String {
    let known = match elf::RelocationType(kind) {
        elf::R_ARM_ABS32 => "R_ARM_ABS32",
        elf::R_ARM_RELATIVE => "R_ARM_RELATIVE",
        elf::R_ARM_GLOB_DAT => "R_ARM_GLOB_DAT",
        elf::R_ARM_JUMP_SLOT => "R_ARM_JUMP_SLOT",
        elf::R_ARM_COPY => "R_ARM_COPY",
        elf::R_ARM_IRELATIVE => "R_ARM_IRELATIVE",
        elf::R_ARM_GOT_PREL => "R_ARM_GOT_PREL",
        elf::R_ARM_GOT32 => "R_ARM_GOT_BREL",
        elf::R_ARM_GOTPC => "R_ARM_BASE_PREL",
        elf::R_ARM_GOTOFF => "R_ARM_GOTOFF32",
        elf::R_ARM_TARGET1 => "R_ARM_TARGET1",
        elf::R_ARM_MOVW_ABS_NC => "R_ARM_MOVW_ABS_NC",
        elf::R_ARM_MOVT_ABS => "R_ARM_MOVT_ABS",
        elf::R_ARM_THM_MOVW_ABS_NC => "R_ARM_THM_MOVW_ABS_NC",
        elf::R_ARM_THM_MOVT_ABS => "R_ARM_THM_MOVT_ABS",
        _ => return format!("relocation kind {kind}"),
    };
    known.to_owned()
}
