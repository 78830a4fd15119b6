//! What the tests share: samples in memory, and what must hold of any checkpoint that loads.

use std::path::Path;

use armrest_images::{Checkpoint, MemDir, PageMap, VmaKind};

/// A sample checkpoint in memory.
pub fn sample(name: &str) -> MemDir {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/images")
        .join(name);
    MemDir::from_fs(path).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Checks the promises that `checkpoint` makes.
pub fn consistent(c: &Checkpoint) {
    let map = |m: &PageMap| {
        let mut end = 0;
        for r in &m.runs {
            assert!(r.pages > 0 && r.addr.is_multiple_of(4096) && r.addr >= end);
            end = r.addr + u64::from(r.pages) * 4096;
            assert!(r.offset + u64::from(r.pages) * 4096 <= c.pages_files[r.file].size);
        }
        end
    };
    for task in &c.tasks {
        assert!(task.pid > 0);
        assert!(task.ppid == 0 || c.tasks.iter().any(|t| t.pid == task.ppid));
        let Some(live) = &task.live else { continue };
        assert_eq!(live.threads[0].tid, task.pid);
        for pair in live.mm.vmas.windows(2) {
            assert!(pair[0].range.end() <= pair[1].range.start());
        }
        for v in &live.mm.vmas {
            assert!(v.range.start() < v.range.end() && v.range.end() <= 0xffff_1000);
            match v.kind {
                VmaKind::File { file } => assert!(c.files.contains_key(&file)),
                VmaKind::Memfd { inode, .. } => assert!(c.memfds.contains_key(&inode)),
                VmaKind::SysV { shmid } => {
                    let segment = c.segments.iter().find(|s| s.perm.id == shmid).unwrap();
                    assert!(
                        v.offset + u64::from(v.range.size()) <= segment.size.next_multiple_of(4096)
                    );
                    assert!(u64::from(v.range.start()) >= v.offset);
                }
                VmaKind::AnonShared { shmid } => assert!(c.anon_shared.contains_key(&shmid)),
                _ => {}
            }
        }
        map(&live.pages);
        for r in &live.pages.runs {
            for page in (r.addr..r.addr + u64::from(r.pages) * 4096).step_by(4096) {
                let page = u32::try_from(page).unwrap();
                let v = live.mm.vmas.iter().find(|v| v.range.has(page)).unwrap();
                assert!(!v.shared && !matches!(v.kind, VmaKind::Vvar | VmaKind::Vectors));
            }
        }
        assert!(live.fds.windows(2).all(|p| p[0].fd < p[1].fd));
        for file in live
            .fds
            .iter()
            .map(|f| f.file)
            .chain([live.cwd, live.root, live.mm.exe])
        {
            assert!(c.files.contains_key(&file));
        }
    }
    for s in &c.segments {
        assert!(map(&s.pages) <= s.size.next_multiple_of(4096));
    }
    for m in c.memfds.values() {
        assert!(map(&m.pages) <= m.size.next_multiple_of(4096));
    }
    for m in c.anon_shared.values() {
        map(m);
    }
}
