//! Numbers that decisions need: the kernel's (from the ABI crate), ARM's open flags, SHMLBA.
#![expect(missing_docs, reason = "the kernel's names, as in its own headers")]
pub use armrest_abi::consts::*;

/// SHMLBA of 32-bit ARM: four pages (arch/arm/include/asm/shmparam.h).
pub const SHMLBA: u32 = 4 * armrest_abi::PAGE_SIZE;
pub const O_DIRECTORY: u32 = 0o40000;
pub const O_LARGEFILE: u32 = 0o400_000;
pub const O_PATH: u32 = 0o10_000_000;
pub const O_APPEND: u32 = 0o2000;
