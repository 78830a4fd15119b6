//! Pending signals: the shared queue by the leader, each thread's own by itself, in order and with all that was recorded.

mod common;

use armrest_plan::model::{Trouble, prove};
use armrest_plan::{Machine, plan};
use common::*;

fn info(signo: u32, code: i32, value: u32) -> [u8; 128] {
    let mut info = [0; 128];
    info[..4].copy_from_slice(&signo.to_le_bytes());
    info[8..12].copy_from_slice(&code.to_le_bytes());
    info[20..24].copy_from_slice(&value.to_le_bytes());
    info
}

#[test]
fn both_queues_come_back_in_order() {
    let mut cp = checkpoint(vec![anon(0x2_0000, 4, 3)], vec![], vec![]);
    let live = cp.tasks[0].live.as_mut().unwrap();
    live.pending = vec![
        info(35, -1, 2),
        info(35, -1, 1),
        info(10, 0, 0),
        info(34, -2, 7),
    ];
    live.threads[0].pending = vec![info(12, -6, 0)];
    let machine = Machine::generic();
    let p = plan(&cp, &machine, &options()).unwrap();
    // The model compares its queues with the checkpoint's.
    let m = prove(&cp, &machine, &p, Trouble::default()).unwrap();
    assert_eq!(m.pending.len(), 4);
}
