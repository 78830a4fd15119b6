//! What mappings are called.

use armrest_images::{Checkpoint, Vma, VmaKind};

/// A VMA in the words of an error message, e.g. `VMA b6e03000-b6e05000 r--s SysV segment 5+0x0`.
pub fn vma_name(cp: &Checkpoint, v: &Vma) -> String {
    let bit = |b: u32, c: char| if v.prot & b != 0 { c } else { '-' };
    let has_offset = matches!(
        v.kind,
        VmaKind::File { .. } | VmaKind::Memfd { .. } | VmaKind::SysV { .. }
    );
    let offset = if has_offset {
        format!("+{:#x}", v.offset)
    } else {
        String::new()
    };
    format!(
        "VMA {:08x}-{:08x} {}{}{}{} {}{offset}",
        v.range.start(),
        v.range.end(),
        bit(1, 'r'),
        bit(2, 'w'),
        bit(4, 'x'),
        if v.shared { 's' } else { 'p' },
        vma_what(cp, v),
    )
}

/// What a VMA is, without its offset.
fn vma_what(cp: &Checkpoint, v: &Vma) -> String {
    match v.kind {
        VmaKind::Anon if v.grows_down => "[stack]".into(),
        VmaKind::Anon if v.heap => "[heap]".into(),
        VmaKind::Anon => "anonymous".into(),
        VmaKind::Sigpage => "[sigpage]".into(),
        VmaKind::Vdso => "[vdso]".into(),
        VmaKind::Vvar => "[vvar]".into(),
        VmaKind::Vectors => "[vectors]".into(),
        VmaKind::File { file } => match cp.files.get(&file) {
            Some(armrest_images::File::Reg(r)) => r.path.clone(),
            _ => format!("file {file}"),
        },
        VmaKind::Memfd { inode, .. } => match cp.memfds.get(&inode) {
            Some(m) => format!("memfd {}", m.name),
            None => format!("memfd {inode}"),
        },
        VmaKind::AnonShared { .. } => "anonymous shared".into(),
        VmaKind::SysV { shmid } => format!("SysV segment {shmid}"),
        VmaKind::Socket => "packet socket".into(),
        VmaKind::AioRing => "AIO ring".into(),
        VmaKind::Plugin => "plugin".into(),
    }
}
