//! Rules about the linked file: what it says of the bytes that the flat file no longer says.

use crate::elf::{Elf, Relocation, Section};
use crate::finding::Finding;
use crate::{flat, kinds};
use armrest_abi::{BLOB_MAGIC, BlobHeader};
use std::collections::{BTreeMap, BTreeSet};

/// Words that `ld -pie` always puts at the head of the table: the address of the dynamic section and two zeroes.
const GOT_RESERVED_WORDS: usize = 3;

/// Holds the linked file against every rule; `header` says which of its addresses are in the flat file.
pub fn judge(elf: &Elf<'_>, header: &BlobHeader, bin: &[u8], findings: &mut Vec<Finding>) {
    let Some(base) = image_base(elf) else {
        findings.push(Finding::NoHeader {
            why: "no section of the linked file starts with the magic".into(),
        });
        return;
    };
    let image = Image {
        base,
        rx: header.rx_size,
        length: header.rx_size.saturating_add(header.rw_size),
    };
    undefined_symbols(elf, findings);
    relocations(elf, image, findings);
    dynamic_tags(elf, findings);
    got_sections(elf, image, findings);
    write_exec(elf, image, findings);
    section_places(elf, image, findings);
    same_bytes(elf, image, bin, findings);
    flat::judge_frame_room(bin, base, elf, findings);
}

/// Addresses of the flat file's bytes in the linked file.
#[derive(Clone, Copy)]
struct Image {
    base: u32,
    rx: u32,
    length: u32,
}

impl Image {
    fn holds(self, address: u32) -> bool {
        address.wrapping_sub(self.base) < self.length
    }

    /// One past the last byte is still ours (a symbol may mark the end), unless something else lies there.
    fn reaches(self, elf: &Elf<'_>, address: u32) -> bool {
        let neighbour =
            |s: &Section<'_>| s.alloc && s.content && s.size > 0 && s.address == address;
        let end = address.wrapping_sub(self.base) == self.length;
        self.holds(address) || (end && !elf.sections.iter().any(neighbour))
    }

    /// Whether any byte of the section is in the flat file.
    fn touches(self, section: &Section<'_>) -> bool {
        let (start, end) = (
            u64::from(section.address),
            u64::from(section.address) + u64::from(section.size),
        );
        section.alloc
            && start < u64::from(self.base) + u64::from(self.length)
            && end > u64::from(self.base)
    }
}

/// The address of the header: that of the section which starts with the magic.
fn image_base(elf: &Elf<'_>) -> Option<u32> {
    let starts =
        |s: &&Section<'_>| s.alloc && s.content && s.data.starts_with(&BLOB_MAGIC.to_le_bytes());
    elf.sections.iter().find(starts).map(|s| s.address)
}

fn undefined_symbols(elf: &Elf<'_>, findings: &mut Vec<Finding>) {
    let names: BTreeSet<&str> = elf
        .symbols
        .iter()
        .filter(|s| s.undefined)
        .map(|s| s.name.as_str())
        .collect();
    findings.extend(names.into_iter().map(|name| Finding::Undefined {
        name: name.to_owned(),
    }));
}

/// One finding an address: the relocation that the compiler asked for says more than the one left for the loader.
fn relocations(elf: &Elf<'_>, image: Image, findings: &mut Vec<Finding>) {
    let mut found = BTreeMap::new();
    let (dynamic, emitted): (Vec<_>, Vec<_>) = elf.relocations.iter().partition(|r| r.dynamic);
    for relocation in dynamic {
        found.insert(relocation.offset, as_relocation(elf, relocation));
    }
    let mut emitted_in_image = false;
    for relocation in emitted.into_iter().filter(|r| image.holds(r.offset)) {
        emitted_in_image = true;
        if let Some(finding) = judge_emitted(elf, image, relocation) {
            found.insert(relocation.offset, finding);
        }
    }
    if !elf.movable && !emitted_in_image {
        findings.push(Finding::CannotTell);
    }
    findings.extend(found.into_values());
}

fn judge_emitted(elf: &Elf<'_>, image: Image, relocation: &Relocation) -> Option<Finding> {
    let absolute_number = relocation.symbol.as_ref().is_some_and(|s| s.absolute);
    match kinds::meaning(relocation.kind) {
        kinds::Meaning::Got => Some(Finding::GotReference {
            kind: kinds::name(relocation.kind),
            offset: relocation.offset,
            place: elf.place(relocation.offset),
            symbol: target_name(elf, relocation),
        }),
        kinds::Meaning::Absolute if absolute_number => None,
        kinds::Meaning::Absolute => Some(as_relocation(elf, relocation)),
        kinds::Meaning::Relative if kinds::is_marker(relocation.kind) => None,
        // The distance to a fixed number changes with the load address.
        kinds::Meaning::Relative if absolute_number => Some(as_relocation(elf, relocation)),
        kinds::Meaning::Relative => {
            let inside = relocation
                .symbol
                .as_ref()
                .is_none_or(|s| s.undefined || image.reaches(elf, s.value & !1));
            (!inside).then(|| Finding::RefersOutside {
                place: elf.place(relocation.offset),
                offset: relocation.offset,
                symbol: target_name(elf, relocation),
            })
        }
    }
}

fn as_relocation(elf: &Elf<'_>, relocation: &Relocation) -> Finding {
    Finding::Relocation {
        kind: kinds::name(relocation.kind),
        offset: relocation.offset,
        place: elf.place(relocation.offset),
        symbol: target_name(elf, relocation),
    }
}

/// The symbol, or for a relocation without one the name of what its word points at.
fn target_name(elf: &Elf<'_>, relocation: &Relocation) -> String {
    if let Some(symbol) = &relocation.symbol {
        return symbol.name.clone();
    }
    match elf.word_at(relocation.offset) {
        Some(word) => elf
            .name_at(word)
            .map_or_else(|| format!("address {word:#x}"), str::to_owned),
        None => "the load address".to_owned(),
    }
}

/// Tags that ask a dynamic linker for work, whose sections a linker script may have thrown away.
const TAGS: &[(i64, &str)] = &[
    (1, "DT_NEEDED"),
    (2, "DT_PLTRELSZ"),
    (8, "DT_RELASZ"),
    (18, "DT_RELSZ"),
    (22, "DT_TEXTREL"),
    (25, "DT_INIT_ARRAY"),
    (26, "DT_FINI_ARRAY"),
    (35, "DT_RELRSZ"),
];

fn dynamic_tags(elf: &Elf<'_>, findings: &mut Vec<Finding>) {
    for tag in &elf.dynamic {
        let Some((number, name)) = TAGS.iter().find(|(number, _)| *number == tag.tag) else {
            continue;
        };
        let is_size = matches!(number, 2 | 8 | 18 | 35);
        if !is_size || tag.value != 0 {
            findings.push(Finding::DynamicTag {
                name,
                value: tag.value,
            });
        }
    }
}

fn got_sections(elf: &Elf<'_>, image: Image, findings: &mut Vec<Finding>) {
    let is_got = |s: &&Section<'_>| s.size > 0 && (s.name == ".got" || s.name.starts_with(".got."));
    let split = elf
        .sections
        .iter()
        .any(|s| s.name == ".got.plt" && s.size > 0);
    for section in elf.sections.iter().filter(is_got) {
        if image.touches(section) {
            let (address, size) = (section.address, section.size);
            findings.push(Finding::GotInImage {
                section: section.name.clone(),
                address,
                size,
            });
        }
        let reserved = if split && section.name != ".got.plt" {
            0
        } else {
            GOT_RESERVED_WORDS
        };
        let words = section
            .data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word));
        for (index, (word, address)) in words
            .zip((section.address..).step_by(4))
            .enumerate()
            .skip(reserved)
        {
            let asked = elf
                .relocations
                .iter()
                .find(|r| r.offset == address)
                .and_then(|r| r.symbol.as_ref());
            let name = asked.map(|s| s.name.as_str()).or_else(|| elf.name_at(word));
            let symbol = name.map_or_else(|| format!("address {word:#x}"), str::to_owned);
            findings.push(Finding::GotEntry {
                section: section.name.clone(),
                index: index - reserved,
                symbol,
            });
        }
    }
}

fn write_exec(elf: &Elf<'_>, image: Image, findings: &mut Vec<Finding>) {
    for segment in elf
        .segments
        .iter()
        .filter(|s| s.write && s.exec && s.size > 0)
    {
        let what = "a segment".to_owned();
        findings.push(Finding::WriteExec {
            what,
            address: segment.address,
            size: segment.size,
        });
    }
    for section in elf
        .sections
        .iter()
        .filter(|s| image.touches(s) && s.write && s.exec && s.size > 0)
    {
        let what = format!("section {}", section.name);
        findings.push(Finding::WriteExec {
            what,
            address: section.address,
            size: section.size,
        });
    }
}

/// Writable sections belong to the read-write part, code to the read-execute part, and nothing outside.
fn section_places(elf: &Elf<'_>, image: Image, findings: &mut Vec<Finding>) {
    for section in elf.sections.iter().filter(|s| s.alloc && s.size > 0) {
        let (name, address) = (section.name.clone(), section.address);
        let offset = address.wrapping_sub(image.base);
        let end = u64::from(offset) + u64::from(section.size);
        if !image.touches(section) {
            if section.content && !section.name.starts_with(".got") && section.name != ".interp" {
                findings.push(Finding::LeftOut {
                    section: name,
                    address,
                    size: section.size,
                });
            }
        } else if end > u64::from(image.length) {
            findings.push(Finding::LeftOut {
                section: name,
                address,
                size: section.size,
            });
        } else if section.write && offset < image.rx {
            let (rights, part) = ("writable", "read-execute");
            findings.push(Finding::WrongPart {
                section: name,
                address,
                rights,
                part,
            });
        } else if section.exec && end > u64::from(image.rx) {
            let (rights, part) = ("code", "read-write");
            findings.push(Finding::WrongPart {
                section: name,
                address,
                rights,
                part,
            });
        }
    }
}

/// The flat file must be this ELF's bytes.
fn same_bytes(elf: &Elf<'_>, image: Image, bin: &[u8], findings: &mut Vec<Finding>) {
    for section in elf.sections.iter().filter(|s| image.touches(s)) {
        let start = usize::try_from(section.address.wrapping_sub(image.base)).unwrap_or(usize::MAX);
        let flat = bin.get(start..).unwrap_or_default();
        let length = usize::try_from(section.size).unwrap_or(usize::MAX);
        let wanted = section
            .data
            .iter()
            .copied()
            .chain(core::iter::repeat(0))
            .take(length.min(flat.len()));
        if let Some(at) = flat
            .iter()
            .zip(wanted)
            .position(|(byte, wanted)| *byte != wanted)
        {
            let offset = u32::try_from(start + at).unwrap_or(u32::MAX);
            findings.push(Finding::Differs {
                offset,
                section: section.name.clone(),
            });
        }
    }
}
