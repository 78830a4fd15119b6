//! The build id of an ELF file: what tells a rebuilt library of the same size from the one that was mapped.
//!
//! Only headers and notes are read, with bounds; a file that is no 32-bit little-endian ELF has none.

use std::fs::File;
use std::os::unix::fs::FileExt;

const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
/// Program headers and bytes of notes that are looked at, at most.
const MOST_HEADERS: u16 = 64;
const MOST_NOTES: u32 = 64 << 10;

/// The build id, if the file has one.
pub fn build_id(file: &File) -> Option<Vec<u8>> {
    let mut head = [0u8; 52];
    file.read_exact_at(&mut head, 0).ok()?;
    if head.get(..6)? != b"\x7fELF\x01\x01" {
        return None;
    }
    let (offset, size, count) = (word(&head, 28)?, half(&head, 42)?, half(&head, 44)?);
    let (size, count) = (usize::from(size), usize::from(count.min(MOST_HEADERS)));
    let mut table = vec![0u8; size * count];
    file.read_exact_at(&mut table, offset.into()).ok()?;
    for ph in table.chunks_exact(size.max(1)) {
        if word(ph, 0)? == PT_NOTE {
            let mut notes = vec![0u8; usize::try_from(word(ph, 16)?.min(MOST_NOTES)).ok()?];
            file.read_exact_at(&mut notes, u64::from(word(ph, 4)?))
                .ok()?;
            if let Some(id) = gnu_build_id(&notes) {
                return Some(id);
            }
        }
    }
    None
}

/// The build id among these notes: each is three words, a padded name, padded contents.
fn gnu_build_id(mut notes: &[u8]) -> Option<Vec<u8>> {
    while notes.len() >= 12 {
        let name_size = usize::try_from(word(notes, 0)?).ok()?;
        let size = usize::try_from(word(notes, 4)?).ok()?;
        let name_end = 12usize
            .checked_add(name_size)?
            .checked_next_multiple_of(4)?;
        let end = name_end.checked_add(size)?;
        let name = notes.get(12..12usize.checked_add(name_size)?)?;
        if word(notes, 8)? == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return notes.get(name_end..end).map(<[u8]>::to_vec);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
    None
}

fn word(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        b.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

fn half(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        b.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_have_the_ids_that_their_images_record() {
        let tests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
        let images = armrest_images::FsDir::new(tests.join("images/counter"));
        let cp = armrest_images::load(&images).unwrap();
        let recorded = cp
            .files
            .values()
            .find_map(|f| match f {
                armrest_images::File::Reg(r)
                    if r.path.ends_with("/counter") && !r.build_id.is_empty() =>
                {
                    Some(r.build_id.clone())
                }
                _ => None,
            })
            .expect("the executable has a build id in the images");
        let file = File::open(tests.join("programs/bin/counter")).unwrap();
        assert_eq!(build_id(&file), Some(recorded));
    }

    #[test]
    fn damaged_notes_have_no_id() {
        assert_eq!(gnu_build_id(&[0xff; 64]), None);
        assert_eq!(gnu_build_id(&[]), None);
    }
}
