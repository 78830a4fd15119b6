//! The linked blob as plain values: what the rules need of an ELF file, read once with the `object` crate.
//!
//! Nothing is judged here. Every read is bounds-checked by `object`; a file it cannot read is an error, not a panic.

use object::LittleEndian;
use object::elf;
use object::read::elf::{
    Dyn, FileHeader, ProgramHeader, Rel, Rela, SectionHeader, SectionTable, Sym,
};
use object::read::{SectionIndex, SymbolIndex};

type Header = elf::FileHeader32<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// A `PT_LOAD` entry.
#[derive(Debug)]
pub struct Segment {
    /// First address.
    pub address: u32,
    /// Bytes in memory.
    pub size: u32,
    /// `PF_W`.
    pub write: bool,
    /// `PF_X`.
    pub exec: bool,
}

/// A section header with its contents.
#[derive(Debug)]
pub struct Section<'a> {
    /// Name.
    pub name: String,
    /// First address.
    pub address: u32,
    /// Bytes in memory.
    pub size: u32,
    /// `SHF_ALLOC`.
    pub alloc: bool,
    /// `SHF_WRITE`.
    pub write: bool,
    /// `SHF_EXECINSTR`.
    pub exec: bool,
    /// `SHT_PROGBITS`, `SHT_NOBITS`, an array of constructors or destructors: things a program can refer to.
    pub content: bool,
    /// Bytes in the file; empty for `SHT_NOBITS`.
    pub data: &'a [u8],
}

/// A symbol with a name.
#[derive(Debug)]
pub struct Symbol {
    /// Name.
    pub name: String,
    /// Value: an address, except for an absolute symbol.
    pub value: u32,
    /// Bytes.
    pub size: u32,
    /// `SHN_UNDEF`.
    pub undefined: bool,
    /// `SHN_ABS`: the same number wherever the blob is loaded.
    pub absolute: bool,
}

/// One relocation, of the dynamic linker or kept by `--emit-relocs`.
#[derive(Debug)]
pub struct Relocation {
    /// For the dynamic linker (its section is loaded).
    pub dynamic: bool,
    /// Address of the word.
    pub offset: u32,
    /// `R_ARM_*`.
    pub kind: u32,
    /// Its symbol, if it has one.
    pub symbol: Option<Symbol>,
}

/// A number in the dynamic section.
#[derive(Debug)]
pub struct Tag {
    /// `DT_*`.
    pub tag: i64,
    /// Value.
    pub value: u32,
}

/// The file.
#[derive(Debug)]
pub struct Elf<'a> {
    /// Linked as movable, so that the linker had to record whatever depends on the load address. `ld -pie` says
    /// `ET_EXEC` when the first address is not 0; the dynamic section tells all the same.
    pub movable: bool,
    /// `EM_ARM` and neither a core nor an object file.
    pub arm_program: bool,
    /// `PT_LOAD` entries.
    pub segments: Vec<Segment>,
    /// All sections.
    pub sections: Vec<Section<'a>>,
    /// Named symbols of `.symtab` and `.dynsym`.
    pub symbols: Vec<Symbol>,
    /// Relocations of all kinds whose target is loaded.
    pub relocations: Vec<Relocation>,
    /// The dynamic section.
    pub dynamic: Vec<Tag>,
}

impl<'a> Elf<'a> {
    /// Reads `data`.
    pub fn parse(data: &'a [u8]) -> Result<Self, object::read::Error> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        let table = header.sections(endian, data)?;
        let kind = header.e_type(endian);
        let segments = header
            .program_headers(endian, data)?
            .iter()
            .filter(|s| s.p_type(endian) == elf::PT_LOAD)
            .map(|s| Segment {
                address: s.p_vaddr(endian),
                size: s.p_memsz(endian),
                write: s.p_flags(endian).0 & elf::PF_W.0 != 0,
                exec: s.p_flags(endian).0 & elf::PF_X.0 != 0,
            })
            .collect();
        let mut symbols = named_symbols(&table, data, elf::SHT_SYMTAB)?;
        symbols.extend(named_symbols(&table, data, elf::SHT_DYNSYM)?);
        let mut sections = Vec::new();
        let mut relocations = Vec::new();
        let mut dynamic = Vec::new();
        for section in table.iter() {
            sections.push(read_section(&table, section, data)?);
            relocations.extend(read_relocations(&table, section, data)?);
            if let Some((entries, _)) = section.dynamic(endian, data)? {
                dynamic.extend(entries.iter().map(|d| Tag {
                    tag: d.d_tag(endian).0,
                    value: d.d_val(endian),
                }));
            }
        }
        Ok(Self {
            movable: kind == elf::ET_DYN || !dynamic.is_empty(),
            arm_program: header.e_machine(endian) == elf::EM_ARM
                && (kind == elf::ET_DYN || kind == elf::ET_EXEC),
            segments,
            sections,
            symbols,
            relocations,
            dynamic,
        })
    }

    /// The name of what lies at `address` (a function's Thumb bit is ignored), for messages.
    pub fn name_at(&self, address: u32) -> Option<&str> {
        let exact = |s: &&Symbol| {
            !s.undefined && !s.absolute && s.value & !1 == address & !1 && !s.name.starts_with('$')
        };
        self.symbols.iter().find(exact).map(|s| s.name.as_str())
    }

    /// The function or object around `address`, or the section: where an offence lies, for messages.
    pub fn place(&self, address: u32) -> String {
        let around = self.symbols.iter().find(|s| {
            !s.undefined && !s.absolute && s.size > 0 && address.wrapping_sub(s.value & !1) < s.size
        });
        if let Some(symbol) = around {
            return symbol.name.clone();
        }
        let section = self
            .sections
            .iter()
            .find(|s| s.alloc && address.wrapping_sub(s.address) < s.size);
        section.map_or_else(|| "no section".to_owned(), |s| s.name.clone())
    }

    /// The little-endian word at `address`, if it is in the file.
    pub fn word_at(&self, address: u32) -> Option<u32> {
        let section = self
            .sections
            .iter()
            .find(|s| s.alloc && address.wrapping_sub(s.address) < s.size)?;
        let start = usize::try_from(address - section.address).ok()?;
        let bytes = section.data.get(start..start.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}

fn read_section<'a>(
    table: &SectionTable<'a, Header>,
    section: &elf::SectionHeader32<LittleEndian>,
    data: &'a [u8],
) -> Result<Section<'a>, object::read::Error> {
    let flags = section.sh_flags(LE).0;
    let has = |flag: elf::SectionFlags| flags & flag.0 != 0;
    let content = [
        elf::SHT_PROGBITS,
        elf::SHT_NOBITS,
        elf::SHT_INIT_ARRAY,
        elf::SHT_FINI_ARRAY,
        elf::SHT_PREINIT_ARRAY,
    ];
    Ok(Section {
        name: lossy(table.section_name(LE, section)?),
        address: section.sh_addr(LE),
        size: section.sh_size(LE),
        alloc: has(elf::SHF_ALLOC),
        write: has(elf::SHF_WRITE),
        exec: has(elf::SHF_EXECINSTR),
        content: content.contains(&section.sh_type(LE)),
        data: section.data(LE, data)?,
    })
}

fn named_symbols(
    table: &SectionTable<'_, Header>,
    data: &[u8],
    kind: elf::SectionType,
) -> Result<Vec<Symbol>, object::read::Error> {
    let symbols = table.symbols(LE, data, kind)?;
    let mut named = Vec::new();
    for symbol in symbols.iter() {
        let name = lossy(symbols.symbol_name(LE, symbol)?);
        if !name.is_empty() {
            named.push(to_symbol(symbol, name));
        }
    }
    Ok(named)
}

fn to_symbol(symbol: &elf::Sym32<LittleEndian>, name: String) -> Symbol {
    Symbol {
        name,
        value: symbol.st_value(LE),
        size: symbol.st_size(LE),
        undefined: symbol.is_undefined(LE),
        absolute: symbol.is_absolute(LE),
    }
}

/// The entries of one REL, RELA or RELR section; nothing for other sections and for those of debug information.
fn read_relocations(
    table: &SectionTable<'_, Header>,
    section: &elf::SectionHeader32<LittleEndian>,
    data: &[u8],
) -> Result<Vec<Relocation>, object::read::Error> {
    let kind = section.sh_type(LE);
    if ![elf::SHT_REL, elf::SHT_RELA, elf::SHT_RELR].contains(&kind) {
        return Ok(Vec::new());
    }
    let dynamic = section.sh_flags(LE).0 & elf::SHF_ALLOC.0 != 0;
    let target = SectionIndex(usize::try_from(section.sh_info(LE)).unwrap_or(0));
    let loaded =
        dynamic || (target.0 != 0 && table.section(target)?.sh_flags(LE).0 & elf::SHF_ALLOC.0 != 0);
    if !loaded {
        return Ok(Vec::new());
    }
    let mut entries = Vec::new();
    let mut link = SectionIndex(0);
    if let Some((rels, index)) = section.rel(LE, data)? {
        link = index;
        entries.extend(
            rels.iter()
                .map(|r| (r.r_offset(LE), r.r_type(LE).0, r.r_sym(LE))),
        );
    }
    if let Some((relas, index)) = section.rela(LE, data)? {
        link = index;
        entries.extend(
            relas
                .iter()
                .map(|r| (r.r_offset(LE), r.r_type(LE).0, r.r_sym(LE))),
        );
    }
    if kind == elf::SHT_RELR {
        let words = section.data_as_array::<elf::Relr32<LittleEndian>, _>(LE, data)?;
        entries.extend(
            words
                .iter()
                .map(|w| (w.0.get(LE), elf::R_ARM_RELATIVE.0, 0)),
        );
    }
    let mut relocations = Vec::new();
    for (offset, kind, index) in entries {
        let symbol = if index == 0 {
            None
        } else {
            Some(symbol_of(table, data, link, index)?)
        };
        relocations.push(Relocation {
            dynamic,
            offset,
            kind,
            symbol,
        });
    }
    Ok(relocations)
}

/// Symbol `index` of the symbol table in section `link`; a section's symbol is called by the section's name.
fn symbol_of(
    table: &SectionTable<'_, Header>,
    data: &[u8],
    link: SectionIndex,
    index: u32,
) -> Result<Symbol, object::read::Error> {
    let symbols = table.symbol_table_by_index(LE, data, link)?;
    let index = SymbolIndex(usize::try_from(index).unwrap_or(usize::MAX));
    let symbol = symbols.symbol(index)?;
    let mut name = lossy(symbols.symbol_name(LE, symbol)?);
    if name.is_empty()
        && let Some(section) = symbols.symbol_section(LE, symbol, index)?
    {
        name = lossy(table.section_name(LE, table.section(section)?)?);
    }
    Ok(to_symbol(symbol, name))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
