//! What the tests of the parts share.

use std::path::Path;

use armrest_images::{Checkpoint, FsDir, LiveTask};

use super::maps::promised;
use super::{Finding, Weight};

/// The images of a sample.
pub fn images(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/images")
        .join(name)
}

/// A sample, loaded.
pub fn load(name: &str) -> Checkpoint {
    armrest_images::load(&FsDir::new(images(name))).expect("images")
}

/// Its first task.
pub fn live(cp: &Checkpoint) -> &LiveTask {
    cp.tasks[0].live.as_ref().expect("alive")
}

/// maps as the images promise them.
pub fn map_text(cp: &Checkpoint) -> String {
    let live = live(cp);
    live.mm
        .vmas
        .iter()
        .map(|v| {
            let l = promised(cp, live, v, "");
            format!(
                "{:08x}-{:08x} {} {:08x} 00:01 7    {}\n",
                l.start, l.end, l.rights, l.offset, l.name
            )
        })
        .collect()
}

/// The weights of findings.
pub fn weights(f: &[Finding]) -> Vec<Weight> {
    f.iter().map(|f| f.weight).collect()
}
