//! A plan looks at no fact that `Needs` leaves out.

mod common;

use std::path::Path;

use armrest_images::{FsDir, load};
use armrest_plan::model::machine;
use armrest_plan::needs::Needs;
use armrest_plan::timers::TimerIds;
use armrest_plan::{HugePages, Machine, plan};
use common::options;

/// The machine, with another answer to everything that was not asked.
fn otherwise(mut m: Machine, needs: Needs<'_>) -> Machine {
    let page = HugePages {
        log2: 21,
        default: true,
        free: 9,
    };
    if !needs.colours() {
        m.cache_aliases = !m.cache_aliases;
        m.shmlba_enforced = !m.shmlba_enforced;
    }
    if !needs.ipc() {
        m.may_choose_ids = !m.may_choose_ids;
        m.ipc = None;
    }
    if !needs.advice() {
        m.madvise.clear();
    }
    if !needs.huge_pages() {
        m.huge_pages = if m.huge_pages.is_empty() {
            vec![page]
        } else {
            Vec::new()
        };
    }
    if !needs.timers() {
        m.timer_ids = TimerIds::Foreign;
    }
    if !needs.timens() {
        m.has_timens = !m.has_timens;
    }
    if !needs.timerfd_ticks() {
        m.has_timerfd_ticks = !m.has_timerfd_ticks;
    }
    if !needs.map_count() {
        m.max_map_count = 1100;
    }
    if !needs.id_maps(&m.own) {
        m.own.may_setgroups = !m.own.may_setgroups;
        m.own.uid_map.clear();
        m.own.gid_map.clear();
    }
    if !needs.nice(m.own_nice, m.own_sched) {
        m.may_nice = !m.may_nice;
    }
    if !needs.last_cap(m.own.cap_bnd) {
        m.own.last_cap = m.own.cap_bnd.checked_ilog2().unwrap_or(40);
    }
    m
}

#[test]
fn what_is_not_asked_does_not_matter() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images");
    let mut left_out = 0;
    for dir in std::fs::read_dir(images).unwrap().map(|d| d.unwrap()) {
        if !dir.file_type().unwrap().is_dir() {
            continue;
        }
        let cp = load(&FsDir::new(dir.path())).unwrap();
        let mut own = machine();
        // Who the program was, and somebody else.
        for uid in [0, 1000] {
            own.own.uids = [uid; 3];
            own.own.fsuid = uid;
            let needs = Needs::of(&cp);
            let said = |m: &Machine| format!("{:#?}", plan(&cp, m, &options()));
            let other = otherwise(own.clone(), needs);
            assert_eq!(said(&own), said(&other), "{:?}", dir.path());
            left_out += usize::from(!needs.ipc()) + usize::from(!needs.id_maps(&own.own));
        }
    }
    assert!(left_out > 0);
}

#[test]
fn all_is_all() {
    let needs = Needs::all();
    let own = machine().own;
    assert!(needs.colours() && needs.ipc() && needs.advice() && needs.huge_pages());
    assert!(needs.timers() && needs.timens() && needs.timerfd_ticks() && needs.map_count());
    assert!(needs.id_maps(&own) && needs.last_cap(u64::MAX) && needs.nice(0, (0, 0)));
}
