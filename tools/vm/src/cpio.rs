//! The initramfs: an archive in cpio's "newc" form, as the kernel unpacks it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// An archive being written. All entries belong to root; parents of an entry are made when they are missing.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    present: BTreeSet<String>,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        if let Some((parent, _)) = name.rsplit_once('/')
            && !self.present.contains(parent)
        {
            self.directory(parent, 0o755)?;
        }
        self.present.insert(name.to_owned());
        self.raw(name, mode, device, data)
    }

    fn raw(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        let size = u32::try_from(data.len())
            .map_err(|_| io::Error::other(format!("{name}: over 4 GiB")))?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        self.inode += 1;
        let fields = [
            self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align(4);
        self.bytes.extend_from_slice(data);
        self.align(4);
        Ok(())
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// A directory.
    pub fn directory(&mut self, path: &str, mode: u32) -> io::Result<()> {
        if self.present.contains(path.trim_start_matches('/')) {
            return Ok(());
        }
        self.entry(path, 0o040_000 | mode, (0, 0), &[])
    }

    /// A regular file.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        self.entry(path, 0o100_000 | mode, (0, 0), data)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) -> io::Result<()> {
        self.entry(path, 0o120_777, (0, 0), to.as_bytes())
    }

    /// A character device.
    pub fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        self.entry(path, 0o020_000 | mode, (major, minor), &[])
    }

    /// A file or a whole folder of the host, with its modes; sockets and devices are left out.
    pub fn copy(&mut self, path: &str, from: &Path) -> io::Result<()> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", from.display()));
        let meta = fs::symlink_metadata(from).map_err(named)?;
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_dir() {
            self.directory(path, mode)?;
            let mut names = fs::read_dir(from)?
                .map(|e| e.map(|e| e.file_name()))
                .collect::<io::Result<Vec<_>>>()?;
            names.sort();
            for name in names {
                let text = name
                    .to_str()
                    .ok_or_else(|| io::Error::other(format!("{name:?}: not UTF-8")))?;
                self.copy(&format!("{path}/{text}"), &from.join(&name))?;
            }
            Ok(())
        } else if meta.is_symlink() {
            let to = fs::read_link(from)?;
            self.link(
                path,
                to.to_str()
                    .ok_or_else(|| io::Error::other(format!("{to:?}: not UTF-8")))?,
            )
        } else if meta.is_file() {
            self.file(path, mode, &fs::read(from).map_err(named)?)
        } else if meta.file_type().is_fifo() {
            self.entry(path, meta.mode(), (0, 0), &[])
        } else {
            Ok(())
        }
    }

    /// The finished archive.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        self.raw("TRAILER!!!", 0, (0, 0), &[])?;
        self.align(512);
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn parents_come_before_their_files_and_data_is_aligned() {
        let mut archive = Archive::new();
        archive.file("/a/b/c", 0o640, b"12345").unwrap();
        archive.link("/a/d", "b/c").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let mut at = 0;
        let mut seen = Vec::new();
        loop {
            let field = |i: usize| {
                let hex = std::str::from_utf8(&bytes[at + 6 + 8 * i..at + 14 + 8 * i]).unwrap();
                usize::from_str_radix(hex, 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name =
                String::from_utf8(bytes[at + 110..at + 110 + name_size - 1].to_vec()).unwrap();
            let data = (at + 110 + name_size).next_multiple_of(4);
            seen.push((name.clone(), mode, bytes[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                break;
            }
        }
        let expected: Vec<(String, usize, Vec<u8>)> = vec![
            ("a".into(), 0o040_755, vec![]),
            ("a/b".into(), 0o040_755, vec![]),
            ("a/b/c".into(), 0o100_640, b"12345".to_vec()),
            ("a/d".into(), 0o120_777, b"b/c".to_vec()),
            ("TRAILER!!!".into(), 0, vec![]),
        ];
        assert_eq!(seen, expected);
    }
}
