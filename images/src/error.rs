//! What can be wrong with a checkpoint: where (file, entry, field) and how. Nothing here is ever a panic.

use core::fmt;

/// Where in the images a fault was found.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Place {
    /// Image file, relative to the images directory.
    pub file: String,
    /// Entry of an array file, counted from 0.
    pub entry: Option<usize>,
    /// Field, with indices and members as CRIU names them (`vmas[3].start`); empty = the entry as a whole.
    pub field: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(n) = self.entry {
            write!(f, ", entry {n}")?;
        }
        if !self.field.is_empty() {
            write!(f, ", {}", self.field)?;
        }
        Ok(())
    }
}

/// A refused checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct Error {
    /// Where.
    pub place: Place,
    /// What.
    pub fault: Fault,
}

impl Error {
    /// The kind of fault, for exit codes.
    pub const fn class(&self) -> Class {
        self.fault.class()
    }
    #[cold]
    pub(crate) fn new(file: &str, fault: Fault) -> Error {
        Error {
            place: Place {
                file: file.to_owned(),
                ..Place::default()
            },
            fault,
        }
    }
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file does not exist.
    #[error("this image is missing")]
    Missing,
    /// The directory of the images does not exist.
    #[error("there is no such directory")]
    NoDirectory,
    /// A file is given for the directory of the images.
    #[error("this is a file, not the directory of a checkpoint")]
    NotADirectory,
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(String),
    /// The file is larger than any sane image.
    #[error("is too large for an image")]
    TooLarge,
    /// The file ends early.
    #[error("the image ends in the middle ({need} more bytes expected, {have} left)")]
    Truncated {
        /// Bytes that should follow.
        need: u64,
        /// Bytes that do.
        have: u64,
    },
    /// The bytes of an entry are no protobuf message of the right kind.
    #[error("damaged entry: {0}")]
    Damaged(String),
    /// More or fewer entries than the kind of image has.
    #[error("{found} entries where {expected} expected")]
    Entries {
        /// "one" or the like.
        expected: &'static str,
        /// How many.
        found: usize,
    },
    /// First bytes are not those of this kind of image.
    #[error("wrong magic {found:#010x}, expected {expected:#010x}")]
    WrongMagic {
        /// In the file.
        found: u32,
        /// Of the kind.
        expected: u32,
    },
    /// A form of images that this reader does not know.
    #[error("{0}")]
    Version(String),
    /// From another kind of machine.
    #[error("checkpoint of another machine: {0}, not 32-bit ARM")]
    WrongMachine(String),
    /// From a kernel with another page size.
    #[error("checkpoint with pages of {0} bytes, not 4096")]
    PageSize(u32),
    /// A VMA that cannot be.
    #[error("bad mapping {start:#x}-{end:#x}: {why}")]
    BadVma {
        /// As recorded.
        start: u64,
        /// As recorded.
        end: u64,
        /// Reason.
        why: &'static str,
    },
    /// Pages where none can be.
    #[error("bad page run at {addr:#x} ({pages} pages): {why}")]
    BadPagemap {
        /// As recorded.
        addr: u64,
        /// As recorded.
        pages: u64,
        /// Reason.
        why: &'static str,
    },
    /// A pages file is shorter than its page map says.
    #[error("pages file has {have} bytes, the page map needs {need}")]
    PagesShort {
        /// Needed.
        need: u64,
        /// There.
        have: u64,
    },
    /// A pages file is longer than its page map says.
    #[error("pages file has {have} bytes, the page map tells of {need} only")]
    PagesLong {
        /// Told.
        need: u64,
        /// There.
        have: u64,
    },
    /// Too many or too few of something.
    #[error("{found} of them, {expected} expected")]
    BadCount {
        /// How many may be.
        expected: &'static str,
        /// How many are.
        found: u64,
    },
    /// A bit or number of which this reader does not know the meaning.
    #[error("unknown value {0:#x}")]
    UnknownFlag(u64),
    /// Names something that does not exist.
    #[error("refers to {what} {id}, which is not in the images")]
    BadReference {
        /// Kind of thing.
        what: &'static str,
        /// Its number.
        id: u64,
    },
    /// A required field is missing.
    #[error("required field is missing")]
    MissingField,
    /// A value out of its range.
    #[error("{value:#x} is impossible: {why}")]
    BadValue {
        /// The value.
        value: u64,
        /// Reason.
        why: &'static str,
    },
    /// A text that cannot be a name or path.
    #[error("{text:?} is impossible: {why}")]
    BadText {
        /// The text.
        text: String,
        /// Reason.
        why: &'static str,
    },
    /// The same thing twice.
    #[error("{what} {id} is there twice")]
    Twice {
        /// Kind of thing.
        what: &'static str,
        /// Its number.
        id: u64,
    },
    /// A valid form that armrest does not read.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
}

/// Kinds of faults, one exit code each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// An image is missing.
    Missing,
    /// An image cannot be read.
    Io,
    /// An image is truncated or its bytes make no sense.
    Damaged,
    /// Wrong magic.
    WrongMagic,
    /// Unknown version or ancient form.
    Version,
    /// Checkpoint of another machine.
    WrongMachine,
    /// Another page size.
    PageSize,
    /// Impossible mapping.
    BadVma,
    /// Impossible page map.
    BadPagemap,
    /// Pages file and page map disagree.
    PagesShort,
    /// Impossible count.
    BadCount,
    /// Unknown flag, status bit or kind.
    UnknownFlag,
    /// Dangling or doubled id.
    BadReference,
    /// Missing or impossible field.
    BadField,
    /// Valid but not supported by the reader.
    Unsupported,
}

impl Fault {
    /// The kind of fault.
    pub const fn class(&self) -> Class {
        match self {
            Fault::Missing | Fault::NoDirectory | Fault::NotADirectory => Class::Missing,
            Fault::Io(_) => Class::Io,
            Fault::Truncated { .. }
            | Fault::Damaged(_)
            | Fault::Entries { .. }
            | Fault::TooLarge => Class::Damaged,
            Fault::WrongMagic { .. } => Class::WrongMagic,
            Fault::Version(_) => Class::Version,
            Fault::WrongMachine(_) => Class::WrongMachine,
            Fault::PageSize(_) => Class::PageSize,
            Fault::BadVma { .. } => Class::BadVma,
            Fault::BadPagemap { .. } => Class::BadPagemap,
            Fault::PagesShort { .. } | Fault::PagesLong { .. } => Class::PagesShort,
            Fault::BadCount { .. } => Class::BadCount,
            Fault::UnknownFlag(_) => Class::UnknownFlag,
            Fault::BadReference { .. } | Fault::Twice { .. } => Class::BadReference,
            Fault::MissingField | Fault::BadValue { .. } | Fault::BadText { .. } => Class::BadField,
            Fault::Unsupported(_) => Class::Unsupported,
        }
    }
}
