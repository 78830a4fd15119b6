//! Any bytes as a directory of images: the reader and the viewer must refuse or read them, never panic or hang.
#![no_main]

use armrest_images::{MemDir, load, view};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = MemDir::from_archive(bytes);
    for (name, image) in &dir.files {
        let _ = view::show(name, image);
    }
    if let Ok(checkpoint) = load(&dir) {
        let _ = view::ps_text(&view::ps(&checkpoint));
        let _ = view::mems_text(&view::mems(&checkpoint));
        let _ = view::fds_text(&view::fds(&checkpoint));
        let _ = view::rss_text(&view::rss(&checkpoint));
        let _ = view::ipc_text(&view::ipc(&checkpoint));
    }
});
