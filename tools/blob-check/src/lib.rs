//! Refuses a blob that could not run at any address, or that is bigger than promised.
//!
//! The blob is a flat file that a loader copies to any page and enters, without a dynamic linker to mend it. So
//! nothing in it may depend on where it lies: no relocation, no global offset table, no symbol from elsewhere; no
//! page may be writable and executable; its header must tell the truth. [`check`] looks at the linked ELF and at the
//! flat file made from it and lists every offence by name. It changes nothing.

mod elf;
mod finding;
mod flat;
mod kinds;
mod linked;

pub use finding::Finding;

/// Most bytes that the read-execute part may use, padding not counted.
pub const DEFAULT_BUDGET: u32 = 12288;

/// What a good blob looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the read-execute part in use.
    pub rx_used: u32,
    /// Bytes of the read-execute part.
    pub rx_size: u32,
    /// Bytes of the read-write part.
    pub rw_size: u32,
}

/// Judges the linked file `elf` and the flat file `bin` made from it; `budget` is the most that `rx_used` may be.
///
/// # Errors
/// Every offence that was found, never an empty list.
pub fn check(elf: &[u8], bin: &[u8], budget: u32) -> Result<Summary, Vec<Finding>> {
    let elf = elf::Elf::parse(elf).map_err(|e| vec![Finding::Unreadable { why: e.to_string() }])?;
    if !elf.arm_program {
        return Err(vec![Finding::NotArm]);
    }
    let mut findings = Vec::new();
    let header = flat::read_header(bin).map_err(|f| vec![f])?;
    flat::judge_header(&header, bin, budget, &elf, &mut findings);
    linked::judge(&elf, &header, bin, &mut findings);
    if !findings.is_empty() {
        return Err(findings);
    }
    Ok(Summary {
        rx_used: header.rx_used,
        rx_size: header.rx_size,
        rw_size: header.rw_size,
    })
}
