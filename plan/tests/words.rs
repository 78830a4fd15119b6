//! Every failure in words: which step, which object, which call with its arguments, which error, what to try.

mod common;

use armrest_abi::{Report, ReportKind, Step};
use armrest_blob::kernel::{Errno, nr};
use armrest_images::Checkpoint;
use armrest_plan::model::machine;
use armrest_plan::record::{Recorder, record};
use armrest_plan::{Plan, plan, words};
use common::*;

fn cp() -> Checkpoint {
    let vmas = vec![
        anon(0x2_0000, 4, 3),
        anon(0x3_0000, 2, 5),
        sysv(2, 0xb000_1000, 0, 8, 3, false),
    ];
    let runs = vec![page_run(0x2_0000, 2, 0), page_run(0x3_0000, 1, 0x2000)];
    checkpoint(vmas, vec![segment(2, 8)], runs)
}

fn the_plan() -> Plan {
    plan(&cp(), &machine(), &options()).unwrap()
}

/// The report of a restore whose first `nr` fails.
fn failing(plan: &Plan, step: Step, nr: u32, errno: u32) -> String {
    let n = record(plan)
        .iter()
        .position(|c| c.step == step && c.nr == nr)
        .expect("the call is made");
    let mut r = Recorder::failing(n, Errno(errno));
    let stop = r.run(plan).unwrap_err();
    assert_eq!(r.calls.len(), n + 1, "nothing is called after a failure");
    words::report(&r.report(&stop), plan, &cp())
}

#[test]
fn a_failure_says_everything() {
    let p = the_plan();
    assert_eq!(
        failing(&p, Step::Map, nr::MMAP2, 12),
        "while mapping memory: VMA 00020000-00024000 rw-p anonymous: mmap2(0x20000, 16384, PROT_READ|PROT_WRITE, \
         MAP_PRIVATE|MAP_FIXED|MAP_ANONYMOUS) failed with ENOMEM; out of memory or of mappings: look at vm.max_map_count, \
         vm.overcommit_memory, RLIMIT_AS and the memory cgroup"
    );
    let shm = failing(&p, Step::Shm, nr::SHMAT, 22);
    assert!(shm.contains("while attaching SysV shared memory: VMA b0001000-b0009000 rw-s SysV segment 2+0x0: shmat(id 2, "), "{shm}");
    assert!(shm.contains("SHM_REMAP) failed with EINVAL"), "{shm}");
    let fill = failing(&p, Step::Fill, nr::PREADV, 5);
    assert!(
        fill.contains(
            "12288 bytes to 2 runs from 0x20000 on, offset 0) failed with EIO; the medium"
        ),
        "{fill}"
    );
    let unmap = failing(&p, Step::Unmap, nr::MUNMAP, 12);
    assert!(
        unmap.contains("of the old address space: munmap(0x0, "),
        "{unmap}"
    );
}

#[test]
fn every_call_of_a_plan_can_fail_and_is_reported() {
    let p = the_plan();
    for n in 0..record(&p).len() - 3 {
        let mut r = Recorder::failing(n, Errno(1));
        let stop = r.run(&p).unwrap_err();
        let text = words::report(&r.report(&stop), &p, &cp());
        assert!(
            text.contains("failed with EPERM") && !text.contains("syscall "),
            "{text}"
        );
    }
}

#[test]
fn a_truncated_pages_file_is_named() {
    let p = the_plan();
    let mut r = Recorder::reading(0);
    let stop = r.run(&p).unwrap_err();
    assert_eq!(stop.kind, ReportKind::Truncated);
    let text = words::report(&r.report(&stop), &p, &cp());
    assert!(text.contains("returned 0 with 12288 bytes to go"), "{text}");
}

#[test]
fn short_reads_are_continued() {
    let p = the_plan();
    let mut r = Recorder::reading(5000);
    r.run(&p).unwrap();
    assert_eq!(r.calls.iter().filter(|c| c.nr == nr::PREADV).count(), 3);
}

#[test]
fn nonsense_reports_are_told_as_such() {
    let p = the_plan();
    let good = Report {
        magic: Report::MAGIC,
        version: armrest_abi::ABI_VERSION,
        kind: 1,
        step: 6,
        object: 9999,
        row: u32::MAX,
        syscall: 0xdead,
        args: [u32::MAX; 6],
        result: i32::MIN,
        tid: 4,
        pid: 0,
    };
    assert!(words::report(&good, &p, &cp()).contains("object 9999"));
    assert!(words::report(&Report { magic: 1, ..good }, &p, &cp()).contains("another version"));
    assert!(words::report(&Report { step: 99, ..good }, &p, &cp()).contains("unknown step"));
    assert!(words::report(&Report { kind: 99, ..good }, &p, &cp()).contains("unknown kind"));
    for kind in 1..=6 {
        for step in 0..=16 {
            for n in [0, nr::PREADV, nr::SIGALTSTACK, nr::SETITIMER, nr::PRCTL] {
                words::report(
                    &Report {
                        kind,
                        step,
                        syscall: n,
                        ..good
                    },
                    &p,
                    &cp(),
                );
            }
        }
    }
}

#[test]
fn a_plan_is_recorded_to_the_last_call() {
    let calls = record(&the_plan());
    let text: Vec<String> = calls.iter().map(words::describe_recorded).collect();
    assert_eq!(text.last().map(String::as_str), Some("rt_sigreturn()"));
    assert!(
        text.iter().any(|t| t == "prctl(PR_SET_NAME, \"counter\")"),
        "{text:#?}"
    );
    assert!(text.iter().any(|t| t == "sigaltstack(SS_DISABLE)"));
    assert!(
        text.iter()
            .any(|t| t == "mprotect(0x30000, 8192, PROT_READ|PROT_EXEC)")
    );
    assert!(calls.iter().all(|c| c.result.is_ok()));
}
