//! An emulator hides stale lines of the instruction cache, so no run can show them: the calls are looked at instead. A
//! page that is written while it may be executed must be flushed afterwards. The plans avoid that case (memory is filled
//! without PROT_EXEC, and the kernel cleans the caches when the right comes), and the model asserts it for any plan.

mod common;

use std::collections::BTreeSet;
use std::path::Path;

use armrest_abi::{Flush, PAGE_SIZE};
use armrest_blob::kernel::nr;
use armrest_images::{Checkpoint, FsDir};
use armrest_plan::consts::PROT_EXEC;
use armrest_plan::record::{Recorded, record};
use armrest_plan::{Machine, Options, Plan, plan};
use common::options;

fn sample(name: &str) -> Checkpoint {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/images")
        .join(name);
    armrest_images::load(&FsDir::new(dir)).expect(name)
}

fn planned(cp: &Checkpoint) -> Option<Plan> {
    let options = Options {
        any_pid: true,
        any_ids: true,
        ..options()
    };
    plan(cp, &Machine::generic(), &options).ok()
}

/// What the recorded calls did to code.
#[derive(Default)]
struct Code {
    /// Pages that may be executed.
    executable: BTreeSet<u32>,
    /// Pages that were written.
    written: BTreeSet<u32>,
    /// Of these, pages that could be executed then, and were not flushed since.
    stale: BTreeSet<u32>,
}

impl Code {
    fn of(calls: &[Recorded]) -> Code {
        let mut code = Code::default();
        for c in calls {
            let [a0, a1, a2, ..] = c.args;
            match c.nr {
                nr::MMAP2 | nr::MPROTECT => code.rights(pages(a0, a1), a2 & PROT_EXEC != 0),
                nr::MUNMAP => code.rights(pages(a0, a1), false),
                nr::CACHEFLUSH => code.stale.retain(|p| !(a0..a1).contains(p)),
                nr::PREADV => {
                    let words = c.data.as_deref().unwrap_or_default().as_chunks::<4>().0;
                    let words: Vec<u32> = words.iter().map(|w| u32::from_le_bytes(*w)).collect();
                    for iov in words.as_chunks::<2>().0 {
                        for page in pages(iov[0], iov[1]) {
                            code.written.insert(page);
                            if code.executable.contains(&page) {
                                code.stale.insert(page);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        code
    }

    fn rights(&mut self, pages: impl Iterator<Item = u32>, executable: bool) {
        for page in pages {
            if executable {
                self.executable.insert(page);
            } else {
                self.executable.remove(&page);
            }
        }
    }
}

fn pages(start: u32, len: u32) -> impl Iterator<Item = u32> {
    // Unmapping covers the whole address space: only what was mapped matters.
    let len = if start < 0x1_0000 { 0 } else { len };
    (start..start + len.min(64 << 20)).step_by(4096)
}

#[test]
fn no_sample_runs_code_that_the_cache_may_not_know() {
    let mut planned_samples = 0;
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images");
    for entry in std::fs::read_dir(names).expect("samples") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("text");
        if !entry.path().join("inventory.img").exists() {
            continue;
        }
        let Some(p) = planned(&sample(&name)) else {
            continue;
        };
        planned_samples += 1;
        let code = Code::of(&record(&p));
        // The dumper itself makes a copy of the first page of text, so every sample has written code.
        let both = code.executable.intersection(&code.written).count();
        assert!(both > 0, "{name}: no page of code is written at all");
        assert_eq!(code.stale, BTreeSet::new(), "{name}");
    }
    assert!(planned_samples >= 5, "{planned_samples} samples");
}

/// `jit` has code that it made: private, private and writable, shared. Filled while it may be executed it is stale, and
/// with a row in the table of flushes it is not: what is looked at is what the blob does.
#[test]
fn code_of_jit_that_is_filled_too_late_is_found_and_a_flush_heals_it() {
    let good = planned(&sample("jit")).expect("a plan");
    let calls = Code::of(&record(&good));
    assert!(calls.executable.intersection(&calls.written).count() >= 3);

    let code = |p: &armrest_abi::Protect| p.prot & PROT_EXEC != 0;
    let mut late = good.clone();
    for p in good.tables.protects.iter().filter(|p| code(p)) {
        for m in late.tables.maps.iter_mut().filter(|m| m.start == p.start) {
            m.prot |= PROT_EXEC;
        }
    }
    let stale = Code::of(&record(&late)).stale;
    assert!(stale.len() >= 3, "{stale:x?}");

    let mut flushed = late.clone();
    flushed.tables.flushes = stale
        .iter()
        .map(|page| Flush {
            start: *page,
            end: page + PAGE_SIZE,
            object: 0,
        })
        .collect();
    assert_eq!(Code::of(&record(&flushed)).stale, BTreeSet::new());
    flushed.tables.flushes.pop();
    assert_eq!(Code::of(&record(&flushed)).stale.len(), 1);
}
