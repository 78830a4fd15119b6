//! Progress on a terminal.

use std::io;

use crate::load::Loaded;

/// Progress on a terminal, for restores with many pages.
pub struct Bar(Option<indicatif::ProgressBar>);

impl Bar {
    /// A bar if standard error is a terminal and there is something to see.
    pub fn new(bytes: u64) -> Bar {
        let show = bytes >= 16 << 20 && io::IsTerminal::is_terminal(&io::stderr());
        Bar(show.then(|| indicatif::ProgressBar::new(bytes)))
    }
    /// How far they are, together.
    pub fn show(&self, loaded: &[Loaded]) {
        if let Some(bar) = &self.0 {
            bar.set_position(loaded.iter().map(|l| l.progress().filled).sum());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
