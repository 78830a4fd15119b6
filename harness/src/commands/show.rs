//! `armrest show`: one image file as a tree, as `crit show` prints it.

use super::{print, print_json};
use crate::cli::ShowOptions;
use crate::error::Error;
use armrest_images::{Error as ImageError, Fault, FsDir, ImageDir, Place, view};
use std::path::Path;

/// Print the image.
///
/// # Errors
/// No such file, or not an image that can be read; standard output cannot be written.
pub fn run(options: &ShowOptions) -> Result<i32, Error> {
    let (dir, name) = split(&options.file)?;
    let usage = |what| Err(Error::Usage { what });
    if options.file.is_dir() {
        let dir = options.file.display();
        return usage(format!(
            "{dir}: a directory, not one image; armrest x {dir} ps explores a checkpoint"
        ));
    }
    if name.starts_with("pages-") {
        return usage(format!(
            "{name}: bare pages, without a header; armrest x {} rss tells what lies where in memory",
            dir.display()
        ));
    }
    let bad = |fault| {
        Error::Images(ImageError {
            place: Place {
                file: name.clone(),
                ..Place::default()
            },
            fault,
        })
    };
    let bytes = FsDir::new(dir)
        .read(&name)
        .map_err(|e| bad(Fault::Io(e.to_string())))?
        .ok_or_else(|| bad(Fault::Missing))?;
    let tree = view::show(&name, &bytes)?;
    if options.json {
        print_json(&tree)?;
    } else {
        print(&format!("{tree:#}\n"))?;
    }
    Ok(0)
}

/// Directory and plain name.
fn split(path: &Path) -> Result<(&Path, String), Error> {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .ok_or_else(|| Error::Usage {
            what: format!("{} is no name of an image file", path.display()),
        })?;
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Ok((dir, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_looked_for_here() {
        assert_eq!(
            split(Path::new("mm-1.img")).unwrap(),
            (Path::new("."), "mm-1.img".to_owned())
        );
        assert_eq!(
            split(Path::new("a/mm-1.img")).unwrap(),
            (Path::new("a"), "mm-1.img".to_owned())
        );
        assert!(split(Path::new("..")).is_err());
    }
}
