//! Any bytes as a directory of images: what can be read is planned or refused, and the blob's own steps run on a model
//! of an address space that panics when a promise is broken.
#![no_main]

use armrest_images::{MemDir, load};
use armrest_plan::model::{drill, emulator, machine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = load(&MemDir::from_archive(bytes)) {
        drill(&checkpoint, &machine());
        drill(&checkpoint, &emulator());
    }
});
