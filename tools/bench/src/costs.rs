//! What a checkpoint may cost, worked out from its images alone, and what the calls of a restore did cost.

use std::collections::BTreeSet;

use armrest_images::{Checkpoint, LiveTask, PageRun, VmaKind};

use crate::Fail;
use crate::measure::Call;

const PROT_WRITE: u32 = 2;
const PROT_EXEC: u32 = 4;
const PAGE: u64 = armrest_abi::PAGE_SIZE as u64;
/// Runs that one `preadv` takes.
const IOV_MAX: u64 = armrest_abi::IOV_MAX as u64;

/// The goals, in calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Goal {
    /// VMAs that a call has to make: all but SysV and the kernel's vectors.
    pub maps: u64,
    /// Those that must lose the right to write, or gain that to execute, once their contents are there.
    pub protects: u64,
    /// `preadv`: one per 1,024 runs of a file.
    pub reads: u64,
    /// SysV: attachments, and VMAs, holes and changed rights of each; segments to be removed.
    pub sysv: u64,
}

/// Calls made, by what for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// All.
    pub total: u64,
    /// `mmap2`.
    pub maps: u64,
    /// `mprotect` of VMAs that are not SysV memory.
    pub protects: u64,
    /// `preadv`.
    pub reads: u64,
    /// SysV.
    pub sysv: u64,
    /// `close` of the harness's helper descriptors (pages files, files behind mappings).
    pub helpers: u64,
    /// The rest: paid once, whatever the checkpoint.
    pub fixed: u64,
    /// Their names, in order.
    pub fixed_names: Vec<String>,
}

/// What this checkpoint may cost.
pub fn goal(cp: &Checkpoint, live: &LiveTask) -> Goal {
    let mut goal = Goal::default();
    let mut attached = BTreeSet::new();
    for v in &live.mm.vmas {
        let (start, end) = (u64::from(v.range.start()), u64::from(v.range.end()));
        match v.kind {
            VmaKind::Vectors => {}
            VmaKind::SysV { shmid } => {
                // It may have to be moved, and its rights be changed.
                let rights = if v.access == Some(0) { 1 } else { 3 };
                goal.sysv += 1 + u64::from(v.prot != rights);
                let base = i64::from(v.range.start()) - i64::try_from(v.offset).unwrap_or(0);
                attached.insert((shmid, base));
            }
            _ => {
                goal.maps += 1;
                let narrowed = v.prot & PROT_WRITE == 0 || v.prot & PROT_EXEC != 0;
                goal.protects += u64::from(narrowed && has_contents(&live.pages.runs, start, end));
            }
        }
    }
    for (shmid, base) in attached {
        goal.sysv += 1 + holes(cp, live, shmid, base);
    }
    let marked = cp.segments.iter().filter(|s| s.dest).count();
    goal.sysv += u64::try_from(marked).unwrap_or(0);
    for file in live
        .pages
        .runs
        .iter()
        .map(|r| r.file)
        .collect::<BTreeSet<_>>()
    {
        goal.reads += runs_of(&live.pages.runs, file).div_ceil(IOV_MAX);
    }
    // The vdso's page with its functions replaced comes from a file of its own.
    let vdso = |v: &armrest_images::Vma| v.kind == VmaKind::Vdso;
    goal.reads += u64::from(live.mm.vmas.iter().any(vdso));
    goal
}

/// Runs of a pages file: what is contiguous in the file and in memory is one.
fn runs_of(all: &[PageRun], file: usize) -> u64 {
    let mut mine: Vec<&PageRun> = all.iter().filter(|r| r.file == file).collect();
    mine.sort_by_key(|r| r.offset);
    let (mut runs, mut next) = (0, None);
    for r in mine {
        let len = u64::from(r.pages) * PAGE;
        runs += u64::from(next != Some((r.offset, r.addr)));
        next = Some((r.offset + len, r.addr + len));
    }
    runs
}

fn has_contents(runs: &[PageRun], start: u64, end: u64) -> bool {
    let after = runs.partition_point(|r| r.addr < end);
    // Runs are sorted by address and apart, so the last that starts before the end reaches furthest.
    runs[..after]
        .last()
        .is_some_and(|r| r.addr + u64::from(r.pages) * PAGE > start)
}

/// Parts of an attachment that no VMA covers any more.
fn holes(cp: &Checkpoint, live: &LiveTask, shmid: u32, base: i64) -> u64 {
    let Some(segment) = cp.segments.iter().find(|s| s.perm.id == shmid) else {
        return 0;
    };
    let end = base + i64::try_from(segment.size.next_multiple_of(PAGE)).unwrap_or(0);
    let (mut at, mut holes) = (base, 0);
    for v in &live.mm.vmas {
        let start = i64::from(v.range.start());
        if v.kind != (VmaKind::SysV { shmid })
            || start - i64::try_from(v.offset).unwrap_or(0) != base
        {
            continue;
        }
        holes += u64::from(start > at);
        at = i64::from(v.range.end());
    }
    holes + u64::from(at < end)
}

/// Sort the calls of a restore by what they were for.
pub fn made(calls: &[Call], helpers: usize, live: &LiveTask) -> Result<Made, Fail> {
    let sysv = |addr: u64| {
        live.mm.vmas.iter().any(|v| {
            let (start, end) = (u64::from(v.range.start()), u64::from(v.range.end()));
            matches!(v.kind, VmaKind::SysV { .. }) && (start..end).contains(&addr)
        })
    };
    let mut m = Made {
        total: u64::try_from(calls.len())?,
        helpers: u64::try_from(helpers)?,
        ..Made::default()
    };
    let mut closed = 0;
    for c in calls {
        match (c.step.as_str(), c.name.as_str()) {
            ("shm", _) => m.sysv += 1,
            ("protect", _) if sysv(c.args[0]) => m.sysv += 1,
            ("protect", _) => m.protects += 1,
            ("map", "mmap2") => m.maps += 1,
            ("fill", "preadv") => m.reads += 1,
            ("enter", "close") if closed < helpers => closed += 1,
            (_, name) => m.fixed_names.push(name.to_owned()),
        }
    }
    m.fixed = u64::try_from(m.fixed_names.len())?;
    if closed < helpers {
        return Err(format!("{closed} of {helpers} helper descriptors are closed").into());
    }
    Ok(m)
}

#[cfg(test)]
mod tests {
    use super::*;
    use armrest_images::FsDir;
    use bench::generate::{self, Added, Contents};
    use std::path::Path;

    fn goals(added: Added) -> Goal {
        let counter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/images/counter");
        let name = format!("armrest-bench-test-{}-{added:?}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        generate::write(&counter, &dir, added).expect("written");
        let cp = armrest_images::load(&FsDir::new(&dir)).expect("a whole checkpoint");
        std::fs::remove_dir_all(dir).expect("removed");
        goal(&cp, cp.tasks[0].live.as_ref().expect("alive"))
    }

    #[test]
    fn goals_of_generated_checkpoints() {
        let none = goals(Added::OnePage(4000, Contents::None));
        let half = goals(Added::OnePage(4000, Contents::Every2nd));
        let all = goals(Added::OnePage(4000, Contents::All));
        let one = goals(Added::OneVma(4000));
        assert_eq!(none.maps, one.maps + 3999);
        assert_eq!((half.maps, all.maps), (none.maps, none.maps));
        assert_eq!(none.protects, one.protects);
        assert_eq!(half.protects, one.protects);
        assert_eq!(all.protects, one.protects + 2000);
        // The patched vdso, and the pages file: one run and 2,000 runs beside those of counter.
        assert_eq!((none.reads, one.reads, all.reads, half.reads), (2, 2, 2, 3));
        assert_eq!(none.sysv, 0);
    }
}
