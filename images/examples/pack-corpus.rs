//! Packs checkpoints into the archives that the fuzz targets eat: `pack-corpus OUT DIR...`.
//!
//! A page map needs its pages files in full, so checkpoints with more than `LIMIT` bytes are left out.

use std::path::Path;
use std::process::ExitCode;

use armrest_images::MemDir;

const LIMIT: usize = 700 << 10;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(out) = args.next() else {
        eprintln!("usage: pack-corpus OUT DIR...");
        return ExitCode::FAILURE;
    };
    for dir in args {
        let path = Path::new(&dir);
        let name = path.file_name().unwrap_or_default();
        let result = MemDir::from_fs(path).and_then(|mut mem| {
            mem.files.retain(|name, _| name.ends_with(".img"));
            let archive = mem.to_archive();
            if archive.len() > LIMIT {
                println!("{dir}: {} bytes, left out", archive.len());
                return Ok(());
            }
            std::fs::create_dir_all(&out)?;
            std::fs::write(Path::new(&out).join(name), archive)
        });
        if let Err(e) = result {
            eprintln!("{dir}: {e}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
