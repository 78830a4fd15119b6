//! `armrest x`: processes, mappings, descriptors and present pages of a checkpoint, in the columns of `crit x`; and its
//! SysV objects.

use super::{print, print_json};
use crate::cli::{ExploreOptions, What};
use crate::error::Error;
use armrest_images::view;
use serde::Serialize;

/// Print what was asked for.
///
/// # Errors
/// The images cannot be used, or standard output cannot be written.
pub fn run(options: &ExploreOptions) -> Result<i32, Error> {
    let cp = armrest_images::load_from(&options.images)?;
    let json = options.json;
    match options.what {
        What::Ps => put(json, view::ps(&cp), view::ps_text),
        What::Mems => put(json, view::mems(&cp), view::mems_text),
        What::Fds => put(json, view::fds(&cp), view::fds_text),
        What::Ipc => put(json, view::ipc(&cp), view::ipc_text),
        What::Rss => put(json, view::rss(&cp), view::rss_text),
    }?;
    Ok(0)
}

fn put<R: Serialize>(json: bool, rows: Vec<R>, text: impl Fn(&[R]) -> String) -> Result<(), Error> {
    if json {
        print_json(&serde_json::json!(rows))
    } else {
        print(&text(&rows))
    }
}
