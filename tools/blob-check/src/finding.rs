//! The offences a blob can commit, in words that name the offender.

use thiserror::Error;

/// One reason to refuse a blob.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Finding {
    /// `object` cannot read the linked file.
    #[error("the linked file cannot be read: {why}")]
    Unreadable {
        /// What `object` says.
        why: String,
    },
    /// Another machine, or not a linked program.
    #[error("the linked file is not a 32-bit little-endian ARM program")]
    NotArm,
    /// The flat file is too short or starts with something else.
    #[error("the flat file has no header: {why}")]
    NoHeader {
        /// What is wrong.
        why: String,
    },
    /// A header field that lies or is out of range.
    #[error("header: {field} is {found}, {wanted}")]
    Header {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        found: u32,
        /// What it should be, as the rest of the sentence.
        wanted: String,
    },
    /// The length is not what the header says.
    #[error("the flat file has {found} bytes, its header says rx_size + rw_size = {wanted}")]
    FileSize {
        /// Bytes in the file.
        found: u64,
        /// Bytes by the header.
        wanted: u64,
    },
    /// The room for the signal frame is not free.
    #[error("byte {offset:#x} lies in the room for the signal frame and is not zero: {place}")]
    FrameRoom {
        /// Offset in the flat file.
        offset: u32,
        /// Function or section there.
        place: String,
    },
    /// More code than promised.
    #[error("{used} bytes of code and constants, the budget is {budget}; the largest: {largest}")]
    OverBudget {
        /// Bytes in use.
        used: u32,
        /// Bytes allowed.
        budget: u32,
        /// The largest functions and objects.
        largest: String,
    },
    /// The linked file was linked for one address and kept no list of what depends on it.
    #[error(
        "linked for a fixed address without --emit-relocs: absolute words would go unseen; link it with -pie"
    )]
    CannotTell,
    /// A word that a dynamic linker would have to mend, or that holds an address.
    #[error("relocation {kind} at {offset:#x} in {place} against {symbol}")]
    Relocation {
        /// `R_ARM_*`.
        kind: String,
        /// Address of the word.
        offset: u32,
        /// Function or section that holds it.
        place: String,
        /// What it refers to.
        symbol: String,
    },
    /// The dynamic section asks for something.
    #[error("the dynamic section has {name} = {value:#x}")]
    DynamicTag {
        /// `DT_*`.
        name: &'static str,
        /// Value.
        value: u32,
    },
    /// A slot of the global offset table.
    #[error("GOT entry {index} in {section} for {symbol}")]
    GotEntry {
        /// Section that holds it.
        section: String,
        /// Number of the entry, after the reserved words.
        index: usize,
        /// What it refers to.
        symbol: String,
    },
    /// A global offset table in the flat file.
    #[error("the flat file contains the GOT section {section} ({size} bytes at {address:#x})")]
    GotInImage {
        /// Section.
        section: String,
        /// First address.
        address: u32,
        /// Bytes.
        size: u32,
    },
    /// An instruction or word that looks into the global offset table.
    #[error("{kind} at {offset:#x} in {place} goes through the GOT for {symbol}")]
    GotReference {
        /// `R_ARM_*`.
        kind: String,
        /// Address of the word.
        offset: u32,
        /// Function or section that holds it.
        place: String,
        /// What it refers to.
        symbol: String,
    },
    /// Something that nobody defines.
    #[error("undefined symbol {name}")]
    Undefined {
        /// Name.
        name: String,
    },
    /// Memory that could be written and executed.
    #[error("{what} at {address:#x} ({size} bytes) is writable and executable")]
    WriteExec {
        /// Segment or section.
        what: String,
        /// First address.
        address: u32,
        /// Bytes.
        size: u32,
    },
    /// A section in the part with the wrong rights.
    #[error("{section} at {address:#x} is {rights} but lies in the {part} part")]
    WrongPart {
        /// Section.
        section: String,
        /// First address.
        address: u32,
        /// What the section is.
        rights: &'static str,
        /// Where it lies.
        part: &'static str,
    },
    /// Code or data that the flat file leaves out.
    #[error("{section} ({size} bytes at {address:#x}) is not in the flat file")]
    LeftOut {
        /// Section.
        section: String,
        /// First address.
        address: u32,
        /// Bytes.
        size: u32,
    },
    /// A reference from the flat file to what it leaves out.
    #[error("{place} at {offset:#x} refers to {symbol}, which is not in the flat file")]
    RefersOutside {
        /// Function or section that refers.
        place: String,
        /// Address of the reference.
        offset: u32,
        /// What it refers to.
        symbol: String,
    },
    /// The flat file was not made from this ELF.
    #[error("the flat file differs from the linked file at byte {offset:#x}, in {section}")]
    Differs {
        /// Offset in the flat file.
        offset: u32,
        /// Section of the linked file.
        section: String,
    },
}
