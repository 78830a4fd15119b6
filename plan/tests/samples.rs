//! The real checkpoints, whole and damaged: a plan or a refusal by name, and whatever is planned ends as it should.

mod common;

use std::path::{Path, PathBuf};

use armrest_abi::ReportKind;
use armrest_images::{Checkpoint, FsDir, MemDir, load};
use armrest_plan::forest::forest;
use armrest_plan::model::{Model, Trouble, drill, emulator, machine, prove};
use armrest_plan::{HugePages, Machine, Options, Refusal, plan};
use common::options;

fn images() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images")
}

fn sample(name: &str) -> Checkpoint {
    load(&FsDir::new(images().join(name))).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn proved(name: &str, machine: &Machine) -> Model {
    let cp = sample(name);
    let p = plan(&cp, machine, &options()).unwrap_or_else(|r| panic!("{name}: {r:#?}"));
    prove(&cp, machine, &p, Trouble::default()).unwrap_or_else(|stop| panic!("{name}: {stop:?}"))
}

#[test]
fn what_must_pass_is_planned_and_proved() {
    for name in ["counter", "memory", "sysvshm", "sysvsplit", "dyn"] {
        for machine in [machine(), emulator()] {
            proved(name, &machine);
        }
    }
}

/// Names of the samples.
fn names() -> Vec<String> {
    let dirs = std::fs::read_dir(images()).unwrap().map(|d| d.unwrap());
    let mut names: Vec<String> = dirs
        .filter(|d| d.file_type().unwrap().is_dir())
        .map(|d| d.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What a sample needs of the caller: of `lent` the other ends are outside.
fn given(name: &str) -> Options {
    let outside = ["tty[8800:13]", "unix[9863]", "pipe[9864]", "file[18:6]"];
    let ids: &[&str] = if name == "lent" { &outside } else { &[] };
    Options {
        inherit: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..options()
    }
}

/// A machine that has what the sample was dumped with: `huge` of a kernel for LPAE.
fn here(name: &str) -> Machine {
    let two_mib = HugePages {
        log2: 21,
        default: true,
        free: 2,
    };
    let mut here = machine();
    here.huge_pages.extend((name == "huge").then_some(two_mib));
    here
}

#[test]
fn what_is_outside_is_refused_unless_it_is_given() {
    let cp = sample("lent");
    let all = given("lent");
    assert!(forest(&cp, &machine(), &all).is_ok());
    for without in [0, 1, 3] {
        let mut options = all.clone();
        let id = options.inherit.remove(without);
        let refused = forest(&cp, &machine(), &options).expect_err(&id).0;
        assert_eq!(refused.len(), 1, "{refused:?}");
        let id = id.replace("unix[", "socket:[");
        assert!(
            refused[0].hint.ends_with(&format!("fd[N]:{id}")),
            "{refused:?}"
        );
    }
}

#[test]
fn every_task_of_every_sample_is_planned_and_proved() {
    for name in names() {
        let cp = sample(&name);
        let here = here(&name);
        let forest = forest(&cp, &here, &given(&name)).unwrap_or_else(|r| panic!("{name}: {r:#?}"));
        for (_, p) in forest.each() {
            prove(&cp, &here, p, Trouble::default())
                .unwrap_or_else(|s| panic!("{name}, task {}: {s:?}", p.task));
        }
        let live = cp.tasks.iter().filter(|t| t.live.is_some()).count();
        assert_eq!(forest.each().count(), live, "{name}");
    }
}

#[test]
fn what_an_emulator_cannot_restore_is_refused_by_name() {
    let refused: Vec<String> = names()
        .into_iter()
        .filter(
            |name| match forest(&sample(name), &emulator(), &given(name)) {
                Ok(_) => false,
                Err(r) => {
                    let named = |r: &Refusal| !r.what.is_empty() && !r.hint.is_empty();
                    assert!(!r.0.is_empty() && r.0.iter().all(named), "{name}: {r:?}");
                    true
                }
            },
        )
        .collect();
    assert_eq!(
        refused,
        [
            "halted",
            "huge",
            "orphans",
            "shared_table",
            "stopped",
            "task",
            "ticking"
        ]
    );
}

/// Seconds for the next test: short in CI, `ARMREST_FUZZ_SECONDS=600` for a long run.
fn seconds() -> u64 {
    std::env::var("ARMREST_FUZZ_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(3)
}

/// A small generator (xorshift), the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % n
    }
}

/// Change one byte of an image, mostly of those that plans are made of.
fn damage(dir: &mut MemDir, dice: &mut Dice) {
    let likely = |n: &&String| ["mm-", "pagemap", "ipcns"].iter().any(|p| n.starts_with(p));
    let all: Vec<String> = dir
        .files
        .keys()
        .filter(|n| !n.starts_with("pages-"))
        .cloned()
        .collect();
    let few: Vec<String> = all.iter().filter(likely).cloned().collect();
    let from = if dice.below(4) == 0 { &all } else { &few };
    let name = &from[dice.below(from.len())];
    let mut bytes = dir.files[name].to_vec();
    if bytes.is_empty() {
        return;
    }
    let at = dice.below(bytes.len());
    bytes[at] = match dice.below(3) {
        0 => bytes[at] ^ (1 << dice.below(8)),
        1 => bytes[at].wrapping_add(1),
        _ => dice.below(256).to_le_bytes()[0],
    };
    dir.put(name, bytes);
}

#[test]
fn damaged_checkpoints_break_no_promise() {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(seconds());
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let dirs = ["counter", "memory", "sysvshm", "sysvsplit", "dyn"]
        .map(|n| MemDir::from_fs(images().join(n)).unwrap());
    let (mut tried, mut planned) = (0u32, 0u32);
    while std::time::Instant::now() < until {
        let mut dir = dirs[dice.below(dirs.len())].clone();
        for _ in 0..=dice.below(4) {
            damage(&mut dir, &mut dice);
        }
        tried += 1;
        if let Ok(cp) = load(&dir) {
            planned += u32::from(drill(&cp, &machine()).is_some());
            drill(&cp, &emulator());
        }
    }
    assert!(planned > 0, "{tried} tried, none planned");
}

#[test]
fn a_stop_on_the_model_is_always_an_error_of_the_kernel() {
    // A full table of mappings, met in the middle: said with its errno.
    let cp = sample("counter");
    let p = plan(
        &cp,
        &machine(),
        &Options {
            any_pid: true,
            ..options()
        },
    )
    .unwrap();
    let small = Machine {
        max_map_count: 8,
        ..machine()
    };
    assert_eq!(
        prove(&cp, &small, &p, Trouble::default()).unwrap_err().kind,
        ReportKind::Errno
    );
}

/// A sibling whose pid is tried for by ns_last_pid leaves the failed ones to a parent that does not know of them.
#[test]
fn siblings_need_a_pid_that_is_given() {
    let cp = sample("orphans");
    let words = |m: &Machine, any_pid| {
        let o = Options {
            any_pid,
            ..options()
        };
        match armrest_plan::forest::forest(&cp, m, &o) {
            Ok(f) => {
                assert!(f.tree.needs_siblings());
                false
            }
            Err(r) => r.0.iter().any(|r| r.what.contains("CLONE_PARENT")),
        }
    };
    let old = Machine {
        has_set_tid: false,
        ..machine()
    };
    let new = Machine {
        has_set_tid: true,
        ..machine()
    };
    assert!(words(&old, false));
    assert!(!words(&old, true));
    assert!(!words(&new, false));
}
