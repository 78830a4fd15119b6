//! Enter: descriptors of the restore are closed, and what is left is told to the exit routine.
//!
//! Behind the last close come the record locks, then the filters, then the gate. What a harness does for tasks that it
//! shares descriptions with (timers, owners, seals) it does while they wait there.
//!
//! The exit routine (arch/arm/exit.S) lies in the kept page and needs neither stack nor data: it removes the rest of
//! the area, closes the report descriptor, whose end of file tells the harness that the task is being entered, and
//! loads the registers with `rt_sigreturn`.

use crate::args::{Args, Check};
use crate::kernel::{Kernel, Stage, nr};
use crate::run::{Done, Run};
use crate::step::creds;
use armrest_abi::{Range, Report, ReportKind, Step, want};

/// The last three calls of a restore, made by the exit routine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The area without the kept page, unmapped first.
    pub unmap: Range,
    /// Closed second; none if negative.
    pub report_fd: i32,
    /// Address of the signal frame for `rt_sigreturn`.
    pub frame: u32,
    /// Where the frame is copied to in the task's own memory, and the `svc` in the kernel's sigpage that makes the
    /// last two calls: then the kept page goes too. 0 = the exit routine makes them, and its page stays.
    pub exit: [u32; 2],
}

impl Entry {
    /// The calls with their arguments, in order. `rt_sigreturn` has none: its frame is the stack pointer.
    pub fn calls(&self) -> [(u32, [u32; 6]); 3] {
        let close = (nr::CLOSE, [self.report_fd.cast_unsigned(), 0, 0, 0, 0, 0]);
        if self.exit[1] != 0 {
            let all = [self.unmap.start, self.unmap.len(), 0, 0, 0, 0];
            return [close, (nr::MUNMAP, all), (nr::RT_SIGRETURN, [0; 6])];
        }
        [
            (nr::MUNMAP, [self.unmap.start, self.unmap.len(), 0, 0, 0, 0]),
            close,
            (nr::RT_SIGRETURN, [0; 6]),
        ]
    }
}

#[inline(never)]
pub(crate) fn run<K: Kernel>(run: &mut Run<'_, K>, args: &Args<'_>) -> Done<K, Entry> {
    run.begin(Step::Enter);
    for (i, fd) in args.closes.iter().enumerate() {
        run.row(i, Report::NO_OBJECT);
        let res = run.k.close(*fd);
        run.ok(res)?;
    }
    creds::records(run, args)?;
    let f = args.fixed;
    let Some(leader) = args.threads.first() else {
        return Err(run.stop(ReportKind::BadArgs, Check::Threads.number()));
    };
    // Memory may be short: then here, not when others run.
    run.k.place_frame(leader);
    // For this thread, or for all of them, which wait.
    creds::seal(run, args, leader)?;
    // Each task of a tree has the bond to its own parent, and none runs: a parent may end at once when it does. Nothing
    // comes after this but the way out.
    if f.want & want::GATE != 0 {
        run.k.gate(2, f.want & want::SPIN != 0);
    }
    run.meet(args, Stage::Go)?;
    // From here on nobody but the leader needs the area.
    run.meet(args, Stage::Last)?;
    Ok(Entry {
        unmap: Range {
            start: if f.exit_svc == 0 {
                f.keep.end
            } else {
                f.area.start
            },
            end: f.area.end,
        },
        report_fd: f.report_fd,
        frame: leader.frame,
        exit: [leader.exit_frame, f.exit_svc],
    })
}
