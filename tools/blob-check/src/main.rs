//! `blob-check ELF BIN [--budget BYTES]`: refuses a blob that could not run at any address.

use std::process::ExitCode;

const USAGE: &str = "usage: blob-check ELF BIN [--budget BYTES]";

fn main() -> ExitCode {
    match run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(lines) => {
            for line in lines {
                eprintln!("blob-check: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, Vec<String>> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut budget = blob_check::DEFAULT_BUDGET;
    if let Some(at) = words.iter().position(|w| w == "--budget") {
        let value = words.get(at + 1).and_then(|n| n.parse().ok());
        budget = value.ok_or_else(|| vec!["--budget needs a number of bytes".to_owned()])?;
        words.drain(at..=at + 1);
    }
    let [elf, bin] = words.as_slice() else {
        return Err(vec![USAGE.to_owned()]);
    };
    let read = |path: &String| std::fs::read(path).map_err(|e| vec![format!("{path}: {e}")]);
    let summary = blob_check::check(&read(elf)?, &read(bin)?, budget).map_err(|findings| {
        findings
            .iter()
            .map(|f| format!("{bin}: {f}"))
            .collect::<Vec<_>>()
    })?;
    Ok(format!(
        "{bin}: {} of {budget} bytes of code and constants in {} pages, {} page of data; \
         no relocation, no GOT entry, no undefined symbol, no page writable and executable",
        summary.rx_used,
        summary.rx_size / armrest_abi::PAGE_SIZE,
        summary.rw_size / armrest_abi::PAGE_SIZE,
    ))
}
