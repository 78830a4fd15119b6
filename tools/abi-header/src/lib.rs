//! The C header of the blob's ABI, made from the abi crate.
//!
//! Sizes, offsets and numbers come from the compiler: what stands here is only which fields there are, and that list
//! does not compile if it is not the whole truth. The comments are those of the abi crate's sources.

mod ctype;
mod docs;
mod structs;

use armrest_abi as abi;
use armrest_abi::{Report, ReportKind, Step, want};
use docs::Docs;
use std::fmt::Write;

const HEAD: &str = "\
/* The ABI of armrest.bin: how a loader finds its way in it, what it tells the blob, and what the blob answers.
 *
 * Made by tools/abi-header from the abi crate; do not edit. How to load and enter the blob: docs/abi.md; a program
 * that does so: tests/embed/embed.c. All numbers are little-endian, addresses are those of the restoring task, sizes
 * are bytes. */
#ifndef ARMREST_H
#define ARMREST_H

#include <stddef.h>
#include <stdint.h>
";

/// The header's text.
pub fn header() -> String {
    let docs = Docs::of_abi();
    let mut out = HEAD.to_owned();
    let mut number = |name: &str, value: u32, about: &str| {
        let text = docs.constant(about);
        push(
            &mut out,
            format_args!("\n/* {text} */\n#define ARMREST_{name} {value:#x}u\n"),
        );
    };
    number("ABI_VERSION", abi::ABI_VERSION, "ABI_VERSION");
    number("PAGE_SIZE", abi::PAGE_SIZE, "PAGE_SIZE");
    number("IOV_MAX", abi::IOV_MAX, "IOV_MAX");
    number("BLOB_MAGIC", abi::BLOB_MAGIC, "BLOB_MAGIC");
    number("ARGS_MAGIC", abi::ARGS_MAGIC, "ARGS_MAGIC");
    number("FRAME_OFFSET", abi::FRAME_OFFSET, "FRAME_OFFSET");
    number("FRAME_SIZE", abi::FRAME_SIZE, "FRAME_SIZE");
    number("REPORT_MAGIC", Report::MAGIC, "MAGIC");
    number("NO_OBJECT", Report::NO_OBJECT, "NO_OBJECT");
    number("EXIT_CODE", Report::EXIT_CODE, "EXIT_CODE");
    number("GATE_OFFSET", abi::GATE_OFFSET, "GATE_OFFSET");
    number("BEAT_OFFSET", abi::BEAT_OFFSET, "BEAT_OFFSET");
    number("REACHED_OFFSET", abi::REACHED_OFFSET, "REACHED_OFFSET");
    for (name, value) in WANTS {
        number(&format!("WANT_{name}"), *value, name);
    }
    steps(&mut out, &docs);
    kinds(&mut out, &docs);
    structs::all(&mut out, &docs);
    out.push_str("\n#endif\n");
    out
}

macro_rules! wants {
    ($($name:ident)*) => { &[$((stringify!($name), want::$name)),*] };
}
/// The bits of `want`; a test counts them in the source.
const WANTS: &[(&str, u32)] = wants!(OLD_RSEQ OLD_ROBUST MM_MAP THP_DISABLE DUMPABLE TIMER_IDS TIME64 MM_SINGLES GATE SPIN SET_TID LAST_PID ROBUST RSEQ PDEATH SCHED NICE);

fn steps(out: &mut String, docs: &Docs) {
    let all = (0..)
        .map_while(Step::from_number)
        .map(|s| (format!("{s:?}"), s.number()));
    enumeration(out, docs, "Step", all);
}

fn kinds(out: &mut String, docs: &Docs) {
    let all = (1..)
        .map_while(ReportKind::from_number)
        .map(|k| (format!("{k:?}"), k as u32));
    enumeration(out, docs, "ReportKind", all);
}

fn enumeration(
    out: &mut String,
    docs: &Docs,
    name: &str,
    all: impl Iterator<Item = (String, u32)>,
) {
    let c_name = snake(name);
    push(
        out,
        format_args!(
            "\n/* {} */\nenum armrest_{c_name} {{\n",
            docs.item(&format!("enum {name}"))
        ),
    );
    for (variant, value) in all {
        let c_variant = format!("{c_name}_{}", snake(&variant)).to_uppercase();
        push(
            out,
            format_args!(
                "    /* {} */\n    ARMREST_{c_variant} = {value},\n",
                docs.member(name, &variant)
            ),
        );
    }
    out.push_str("};\n");
}

/// `BlobHeader` as `blob_header`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.char_indices() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A String takes everything.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_want_is_there() {
        let source = include_str!("../../../abi/src/restore.rs");
        let module = source
            .split_once("pub mod want {")
            .unwrap()
            .1
            .split_once("\n}")
            .unwrap()
            .0;
        assert_eq!(module.matches("pub const ").count(), WANTS.len());
    }

    #[test]
    fn every_structure_is_there() {
        let text = header();
        for source in docs::SOURCES {
            for name in source
                .lines()
                .filter_map(|l| l.strip_prefix("pub struct ")?.strip_suffix(" {"))
            {
                assert!(
                    text.contains(&format!("struct armrest_{} {{", snake(name))),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn nothing_is_without_a_comment() {
        assert!(!header().contains("/*  */"));
    }
}
