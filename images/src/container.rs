//! The outside of an image file: magic words, then length-prefixed messages, some followed by raw bytes.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};

use crate::error::{Error, Fault, Place};

/// First word of ordinary images.
pub const COMMON: u32 = 0x5456_4319;
/// First word of service files (`stats-dump`, `irmap-cache`).
pub const SERVICE: u32 = 0x5510_5940;
/// `inventory.img`, which has no second word.
pub const INVENTORY: u32 = 0x5831_3116;

/// A message may hold this many top-level fields: two VMA lists of a full address space.
const MAX_FIELDS: usize = 300_000;

/// Reads the entries of one image.
#[derive(Debug)]
pub struct Reader<'a> {
    file: &'a str,
    rest: &'a [u8],
    entry: Option<usize>,
}

impl<'a> Reader<'a> {
    /// Checks the magic of image `file`.
    ///
    /// # Errors
    /// [`Fault::Truncated`], [`Fault::WrongMagic`].
    pub fn open(file: &'a str, bytes: &'a [u8], magic: u32) -> Result<Reader<'a>, Error> {
        let (found, reader) = Reader::any(file, bytes)?;
        if found == magic {
            Ok(reader)
        } else {
            Err(Error::new(
                file,
                Fault::WrongMagic {
                    found,
                    expected: magic,
                },
            ))
        }
    }

    /// Reads the magic, whatever it is.
    ///
    /// # Errors
    /// [`Fault::Truncated`], [`Fault::WrongMagic`] if the first word is that of no image.
    pub fn any(file: &'a str, bytes: &'a [u8]) -> Result<(u32, Reader<'a>), Error> {
        let mut reader = Reader {
            file,
            rest: bytes,
            entry: None,
        };
        let first = reader.word()?;
        match first {
            INVENTORY => Ok((first, reader)),
            COMMON | SERVICE => Ok((reader.word()?, reader)),
            found => Err(Error::new(
                file,
                Fault::WrongMagic {
                    found,
                    expected: COMMON,
                },
            )),
        }
    }

    /// True at the end of the file.
    pub const fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Number of the entry read last.
    pub const fn entry(&self) -> Option<usize> {
        self.entry
    }

    /// Makes an error of a fault in the entry read last.
    #[cold]
    pub fn fault(&self, field: &str, fault: Fault) -> Error {
        Error {
            place: Place {
                file: self.file.to_owned(),
                entry: self.entry,
                field: field.to_owned(),
            },
            fault,
        }
    }

    fn word(&mut self) -> Result<u32, Error> {
        let bytes = self.bytes(4)?;
        Ok(bytes.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)))
    }

    /// Takes `n` raw bytes.
    ///
    /// # Errors
    /// [`Fault::Truncated`].
    #[inline]
    pub fn bytes(&mut self, n: u64) -> Result<&'a [u8], Error> {
        let split = usize::try_from(n)
            .ok()
            .and_then(|n| self.rest.split_at_checked(n));
        let Some((head, tail)) = split else {
            let have = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
            return Err(self.fault("", Fault::Truncated { need: n, have }));
        };
        self.rest = tail;
        Ok(head)
    }

    /// Takes all that is left.
    pub fn all(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// The next entry; `None` at the end of the file.
    ///
    /// # Errors
    /// [`Fault::Truncated`], [`Fault::Damaged`], [`Fault::BadCount`].
    pub fn entry_or_end<M: Message + Default>(&mut self) -> Result<Option<M>, Error> {
        self.entry_of(|_| None)
    }

    /// The same, decoded by `quick` if that can.
    ///
    /// # Errors
    /// As [`Reader::entry_or_end`].
    pub fn entry_of<M: Message + Default>(
        &mut self,
        quick: impl Fn(&[u8]) -> Option<M>,
    ) -> Result<Option<M>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.entry = Some(self.entry.map_or(0, |n| n + 1));
        let bytes = self.framed_bytes()?;
        match quick(bytes) {
            None => self.decoded(bytes).map(Some),
            found => Ok(found),
        }
    }

    /// A framed message that belongs to the entry read last (chunks of a ghost file, queued messages).
    ///
    /// # Errors
    /// [`Fault::Truncated`], [`Fault::Damaged`], [`Fault::BadCount`].
    pub fn framed<M: Message + Default>(&mut self) -> Result<M, Error> {
        let bytes = self.framed_bytes()?;
        self.decoded(bytes)
    }

    fn decoded<M: Message + Default>(&self, bytes: &[u8]) -> Result<M, Error> {
        M::decode(bytes).map_err(|e| self.fault("", Fault::Damaged(e.to_string())))
    }

    #[inline]
    fn framed_bytes(&mut self) -> Result<&'a [u8], Error> {
        let len = self.word()?;
        let bytes = self.bytes(u64::from(len))?;
        if too_many_fields(bytes) {
            return Err(self.fault(
                "",
                Fault::BadCount {
                    expected: "at most 300000 fields",
                    found: u64::from(len),
                },
            ));
        }
        Ok(bytes)
    }

    /// The single entry of a one-entry image.
    ///
    /// # Errors
    /// As [`Reader::entry_or_end`], and [`Fault::Entries`].
    pub fn only<M: Message + Default>(mut self) -> Result<M, Error> {
        let bytes = self.only_bytes()?;
        self.entry = Some(0);
        self.decoded(bytes)
    }

    /// The same without the members `tag`, and these: there may be so many that their structures would be most of our
    /// memory, so each is decoded when it is its turn.
    ///
    /// # Errors
    /// As [`Reader::only`].
    pub fn only_without<M: Message + Default>(
        mut self,
        tag: u32,
    ) -> Result<(M, Vec<&'a [u8]>), Error> {
        let bytes = self.only_bytes()?;
        self.entry = Some(0);
        split(bytes, tag)
            .and_then(|(rest, members)| Ok((M::decode(&rest[..])?, members)))
            .map_err(|e| self.fault("", Fault::Damaged(e.to_string())))
    }

    fn only_bytes(&mut self) -> Result<&'a [u8], Error> {
        let message = if self.rest.is_empty() {
            None
        } else {
            self.entry = Some(0);
            Some(self.framed_bytes()?)
        };
        let Some(message) = message else {
            return Err(self.fault(
                "",
                Fault::Entries {
                    expected: "one",
                    found: 0,
                },
            ));
        };
        if !self.at_end() {
            self.entry = None;
            return Err(self.fault(
                "",
                Fault::Entries {
                    expected: "one",
                    found: 2,
                },
            ));
        }
        Ok(message)
    }
}

/// The members `tag` of a message, and all the other bytes of it.
fn split(bytes: &[u8], tag: u32) -> Result<(Vec<u8>, Vec<&[u8]>), DecodeError> {
    let (mut rest, mut members, mut left) = (Vec::new(), Vec::new(), bytes);
    while !left.is_empty() {
        let field = left;
        let (key, wire) = decode_key(&mut left)?;
        let mut body = left;
        if key == tag && wire == WireType::LengthDelimited {
            let len = usize::try_from(decode_varint(&mut left)?).unwrap_or(usize::MAX);
            let Some((member, behind)) = left.split_at_checked(len) else {
                // It is cut off: the error is that of skipping it.
                skip_field(wire, key, &mut body, DecodeContext::default())?;
                break;
            };
            members.push(member);
            left = behind;
        } else {
            skip_field(wire, key, &mut left, DecodeContext::default())?;
            rest.extend_from_slice(&field[..field.len() - left.len()]);
        }
    }
    Ok((rest, members))
}

/// Walks the top level of a message without building it, so that a small file cannot ask for much memory.
fn too_many_fields(mut bytes: &[u8]) -> bool {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    if bytes.len() <= MAX_FIELDS {
        return false;
    }
    let mut fields = 0usize;
    while !bytes.is_empty() {
        fields += 1;
        if fields > MAX_FIELDS {
            return true;
        }
        let Some(key) = varint(&mut bytes) else {
            return false;
        };
        let skip = match key & 7 {
            0 => varint(&mut bytes).map(|_| 0),
            1 => Some(8),
            2 => varint(&mut bytes),
            5 => Some(4),
            _ => None,
        };
        let rest = skip
            .and_then(|n| usize::try_from(n).ok())
            .and_then(|n| bytes.get(n..));
        let Some(rest) = rest else { return false };
        bytes = rest;
    }
    false
}

/// Builds an image: the opposite of [`Reader`], for tests and tools that edit images.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Starts an image with this type magic.
    pub fn new(magic: u32) -> Writer {
        let mut bytes = Vec::new();
        if magic != INVENTORY {
            bytes.extend_from_slice(&COMMON.to_le_bytes());
        }
        bytes.extend_from_slice(&magic.to_le_bytes());
        Writer { bytes }
    }
    /// Adds an entry. Messages of 4 GiB cannot exist in memory of the machines that this runs on.
    #[must_use]
    pub fn entry<M: Message>(mut self, message: &M) -> Writer {
        let body = message.encode_to_vec();
        self.bytes
            .extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(&body);
        self
    }
    /// Adds raw bytes.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Writer {
        self.bytes.extend_from_slice(bytes);
        self
    }
    /// The image.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Decodes all entries of an image, lets `change` edit them, and encodes them again. For tests and tools; only for
/// kinds whose entries are all of one type and have no raw bytes behind them. Unknown fields get lost.
///
/// # Errors
/// As [`Reader::open`] and [`Reader::entry_or_end`].
pub fn edit<M: Message + Default>(
    file: &str,
    bytes: &[u8],
    magic: u32,
    change: impl FnOnce(&mut Vec<M>),
) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::open(file, bytes, magic)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.entry_or_end()? {
        entries.push(entry);
    }
    change(&mut entries);
    Ok(entries
        .iter()
        .fold(Writer::new(magic), |w, e| w.entry(e))
        .finish())
}
