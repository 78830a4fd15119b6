//! Builds one good blob and bad ones with the cross compiler, and holds the checker to both.
//!
//! Each bad blob commits one offence in real C or assembly, so what the compiler and linker make of it is what is
//! judged, not a description of it.

use armrest_abi::{ABI_VERSION, RestoreArgs};
use blob_check::{DEFAULT_BUDGET, Finding, Summary, check};
use std::path::{Path, PathBuf};
use std::process::Command;

const GCC: &str = "arm-linux-gnueabihf-gcc";
const OBJCOPY: &str = "arm-linux-gnueabihf-objcopy";

/// How the real blob is linked: movable, and with the list of all relocations that the linker applied.
const LINK: &[&str] = &["-pie", "-Wl,--emit-relocs"];

/// A linked blob and its flat file, in a directory of their own.
struct Blob {
    elf: PathBuf,
    bin: PathBuf,
}

impl Blob {
    /// Builds `tests/blobs/SOURCE` with the header; `edit` may change the linker script; `link` is how to link.
    fn build(name: &str, source: &str, edit: impl Fn(String) -> String, link: &[&str]) -> Self {
        let blobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/blobs");
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&dir).expect("a directory for the blob");
        let script = dir.join("blob.ld");
        let text = std::fs::read_to_string(blobs.join("blob.ld")).expect("the linker script");
        std::fs::write(&script, edit(text)).expect("the linker script written");
        let (elf, bin) = (dir.join("blob.elf"), dir.join("blob.bin"));
        let mut gcc = Command::new(GCC);
        gcc.args([
            "-Os",
            "-marm",
            "-fPIC",
            "-ffreestanding",
            "-nostdlib",
            "-fno-unwind-tables",
        ])
        .arg(format!(
            "-Wl,--defsym=abi_version={ABI_VERSION},--defsym=args_size={}",
            size_of::<RestoreArgs>()
        ))
        .arg("-Wl,--build-id=none,--hash-style=sysv,-z,max-page-size=4096,--no-warn-rwx-segments")
        .arg(format!("-Wl,-T,{}", script.display()))
        .args([blobs.join("head.S"), blobs.join(source)])
        .args(link)
        .arg("-o")
        .arg(&elf);
        run(&mut gcc);
        run(Command::new(OBJCOPY)
            .args(["-O", "binary", "-j", ".rx", "-j", ".rw"])
            .args([&elf, &bin]));
        Self { elf, bin }
    }

    fn plain(name: &str, source: &str) -> Self {
        Self::build(name, source, |script| script, LINK)
    }

    fn check(&self) -> Result<Summary, Vec<Finding>> {
        check(&read(&self.elf), &read(&self.bin), DEFAULT_BUDGET)
    }

    /// What is wrong with it, as sentences.
    fn offences(&self) -> Vec<String> {
        self.check()
            .expect_err("a bad blob must be refused")
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("a file that was just built")
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .expect("the cross compiler (tools/setup installs it)");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The one offence that a blob commits must be the only one told.
fn only(offences: &[String], wanted: &str) {
    assert!(
        offences.len() == 1 && offences[0].contains(wanted),
        "wanted only {wanted:?}, got {offences:#?}"
    );
}

fn among(offences: &[String], wanted: &str) {
    assert!(
        offences.iter().any(|o| o.contains(wanted)),
        "wanted {wanted:?} among {offences:#?}"
    );
}

#[test]
fn a_good_blob_passes() {
    let summary = Blob::plain("good", "good.c").check().expect("a good blob");
    assert_eq!((summary.rx_size, summary.rw_size), (4096, 4096));
    assert!((0xc00..4096).contains(&summary.rx_used));
}

#[test]
fn a_good_blob_passes_without_emitted_relocations() {
    Blob::build("good-pie", "good.c", |s| s, &["-pie"])
        .check()
        .expect("a good blob");
}

#[test]
fn a_relocation_is_refused_and_its_word_named() {
    only(
        &Blob::plain("relocation", "relocation.c").offences()[..1],
        "in the_pointer against pointed_at",
    );
    among(
        &Blob::plain("relocation-2", "relocation.c").offences(),
        "DT_RELSZ",
    );
}

#[test]
fn a_relocation_is_named_without_emitted_relocations() {
    let blob = Blob::build("relocation-pie", "relocation.c", |s| s, &["-pie"]);
    among(
        &blob.offences(),
        "relocation R_ARM_RELATIVE at 0x11000 in the_pointer against pointed_at",
    );
}

#[test]
fn a_relocation_that_a_linker_script_throws_away_is_still_seen() {
    let hide = |s: String| {
        s.replace(".rel.dyn : { *(.rel.*) } :rest", "")
            .replace("*(.note*)", "*(.rel.*) *(.note*)")
    };
    let offences = Blob::build("relocation-hidden", "relocation.c", hide, LINK).offences();
    among(
        &offences,
        "R_ARM_ABS32 at 0x11000 in the_pointer against pointed_at",
    );
}

#[test]
fn a_fixed_address_hides_nothing() {
    let kept = &["-no-pie", "-static", "-Wl,--emit-relocs"];
    let fixed = |name, source, link: &[&str]| Blob::build(name, source, |s| s, link);
    only(
        &fixed("fixed-relocation", "relocation.c", kept).offences(),
        "R_ARM_ABS32 at 0x11000 in the_pointer",
    );
    only(
        &fixed("fixed-blind", "relocation.c", &kept[..2]).offences(),
        "linked for a fixed address",
    );
    fixed("fixed-good", "good.c", kept)
        .check()
        .expect("a good blob, linked for a fixed address");
}

#[test]
fn a_got_entry_is_refused_and_its_symbol_named() {
    let offences = Blob::plain("got", "got.c").offences();
    among(&offences, "GOT entry 0 in .got for looked_up");
    among(&offences, "in find goes through the GOT for looked_up");
}

#[test]
fn a_got_inside_the_image_is_refused() {
    let inside = |s: String| {
        s.replace(".got : { *(.got.plt) *(.got) } :rest", "")
            .replace(
                "  .dynamic : {",
                "  .got : { *(.got.plt) *(.got) } :rw\n  .dynamic : {",
            )
    };
    // The read-write part then is a section of 4096 bytes and a GOT behind it; shrink the first to make room.
    let inside = |s: String| inside(s).replace(". = 4096;\n  } :rw", ". = 4032;\n  } :rw");
    let blob = Blob::build("got-inside", "good.c", inside, LINK);
    among(
        &blob.offences(),
        "the flat file contains the GOT section .got",
    );
}

#[test]
fn an_undefined_symbol_is_refused_and_named() {
    let blob = Blob::build(
        "undefined",
        "undefined.c",
        |s| s,
        &["-pie", "-Wl,--emit-relocs,--unresolved-symbols=ignore-all"],
    );
    among(&blob.offences(), "undefined symbol nobody_has_this");
}

#[test]
fn a_writable_and_executable_segment_is_refused() {
    let rwx = |s: String| s.replace("rx PT_LOAD FLAGS(5)", "rx PT_LOAD FLAGS(7)");
    let offences = Blob::build("rwx-segment", "good.c", rwx, LINK).offences();
    only(
        &offences,
        "a segment at 0x10000 (4096 bytes) is writable and executable",
    );
}

#[test]
fn a_writable_and_executable_section_is_refused() {
    let offences = Blob::plain("rwx-section", "writable_code.c").offences();
    among(
        &offences,
        "section .rw at 0x11000 (4096 bytes) is writable and executable",
    );
    among(
        &offences,
        ".rw at 0x11000 is code but lies in the read-write part",
    );
}

#[test]
fn writable_data_among_the_code_is_refused() {
    let mixed = |s: String| {
        s.replace(
            "*(.rodata .rodata.*)",
            "*(.rodata .rodata.*) *(.data .data.*)",
        )
    };
    among(
        &Blob::build("mixed", "good.c", mixed, LINK).offences(),
        ".rx at 0x10000 is writable but lies in",
    );
}

#[test]
fn a_blob_over_budget_is_refused_and_the_largest_named() {
    only(
        &Blob::plain("large", "large.c").offences(),
        "the budget is 12288; the largest: huge_table 13000",
    );
}

#[test]
fn a_budget_counts_to_the_byte() {
    let blob = Blob::plain("budget", "good.c");
    let used = blob.check().expect("a good blob").rx_used;
    let (elf, bin) = (read(&blob.elf), read(&blob.bin));
    assert!(check(&elf, &bin, used).is_ok());
    assert!(matches!(
        &check(&elf, &bin, used - 1).unwrap_err()[..],
        [Finding::OverBudget { .. }]
    ));
}

#[test]
fn data_of_two_pages_is_refused() {
    let two = |s: String| s.replace(". = 4096;", ". = 8192;");
    let offences = Blob::build("two-pages", "good.c", two, LINK).offences();
    among(&offences, "the flat file has 12288 bytes");
}

#[test]
fn code_left_out_of_the_flat_file_is_refused() {
    let outside = |s: String| {
        s.replace("*(.rodata .rodata.*)", "").replace(
            "  .dynamic : {",
            "  .rodata : { *(.rodata .rodata.*) } :rest\n  .dynamic : {",
        )
    };
    let offences = Blob::build("left-out", "good.c", outside, LINK).offences();
    among(
        &offences,
        ".rodata (16 bytes at 0x12000) is not in the flat file",
    );
    among(
        &offences,
        "refers to .rodata, which is not in the flat file",
    );
}

/// Each header field, made to lie.
#[test]
fn a_header_that_lies_is_refused() {
    let blob = Blob::plain("header", "good.c");
    let (elf, bin) = (read(&blob.elf), read(&blob.bin));
    let lies = [
        (4, 999, "version"),
        (8, 60, "header_size"),
        (12, 4, "args_size"),
        (16, 4095, "rx_size"),
        (16, 0, "rx_size"),
        (20, 64, "rx_used"),
        (20, 4097, "rx_used"),
        (24, 0, "rw_size"),
        (24, 8192, "rw_size"),
        (28, 0, "entry_offset"),
        (28, 66, "entry_offset"),
        (28, 4096, "entry_offset"),
        (32, 4096, "thread_entry_offset"),
        (36, 0x800, "exit_offset"),
        (40, 0x900, "frame_offset"),
        (44, 0, "stack_size"),
        (48, 1, "heap_size"),
        (60, 1, "reserved"),
    ];
    for (at, value, field) in lies {
        let mut bin = bin.clone();
        bin[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        let findings = check(&elf, &bin, DEFAULT_BUDGET).expect_err("a header that lies");
        let named = findings
            .iter()
            .any(|f| matches!(f, Finding::Header { field: name, .. } if *name == field));
        assert!(named, "{field} = {value}: {findings:#?}");
    }
}

#[test]
fn a_flat_file_from_another_build_is_refused() {
    let blob = Blob::plain("differs", "good.c");
    let mut bin = read(&blob.bin);
    bin[0xc04] ^= 1;
    let findings = check(&read(&blob.elf), &bin, DEFAULT_BUDGET).unwrap_err();
    assert_eq!(
        findings,
        [Finding::Differs {
            offset: 0xc04,
            section: ".rx".into()
        }]
    );
}

#[test]
fn an_occupied_frame_room_is_refused() {
    let crowded = |s: String| s.replace(". = 0xc00;", ". = 0x900;");
    among(
        &Blob::build("frame", "good.c", crowded, LINK).offences(),
        "byte 0x900 lies in the room for the signal frame",
    );
}

#[test]
fn garbage_is_an_error_and_no_panic() {
    let blob = Blob::plain("garbage", "good.c");
    let (elf, bin) = (read(&blob.elf), read(&blob.bin));
    for length in (0..elf.len()).step_by(7) {
        assert!(
            check(&elf[..length], &bin, DEFAULT_BUDGET).is_err(),
            "an ELF cut at {length}"
        );
    }
    for length in (0..bin.len()).step_by(13) {
        assert!(
            check(&elf, &bin[..length], DEFAULT_BUDGET).is_err(),
            "a flat file cut at {length}"
        );
    }
    assert!(check(b"", &bin, DEFAULT_BUDGET).is_err());
    // A host program is not an ARM program.
    let ourselves = read(&std::env::current_exe().expect("our path"));
    assert!(check(&ourselves, &bin, DEFAULT_BUDGET).is_err());
}
