//! Threads of the model: the kernel's rules for making them, and what each has of its own at the end.

use std::collections::VecDeque;

use armrest_abi::consts as c;
use armrest_abi::{CloneArgs, Range, ThreadArgs};
use armrest_blob::kernel::{Data, Errno, Res, Stage, nr};
use armrest_blob::{Args, Stop};
use armrest_images::{Checkpoint, LiveTask};

use super::errno::{EBADF, EINVAL};
use super::{Kind, Model};
use crate::machine::Machine;
use crate::record;
use crate::types::Plan;

const EEXIST: Errno = Errno(17);

/// What the kernel keeps by thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what the call of that name sets")]
pub struct Own {
    pub name: Option<[u8; 16]>,
    pub clear_tid: Option<u32>,
    pub tls: Option<u32>,
    pub robust: Option<u32>,
    pub rseq: Option<[u32; 3]>,
    pub pdeath: Option<u32>,
    pub nice: Option<u32>,
    pub policy: Option<[u32; 2]>,
    /// Signals of its private queue, in order.
    pub pending: VecDeque<Vec<u8>>,
}

impl Model {
    /// `pwrite64` to the sysctl.
    pub(super) fn last_pid(&mut self, fd: u32, data: Option<&[u8]>) -> Res {
        if !self.open.get(&fd).is_some_and(|o| o.writable) {
            return Err(EBADF);
        }
        let digits = data.and_then(|d| std::str::from_utf8(d).ok());
        let number = digits.and_then(|d| d.trim_start().parse().ok());
        self.last_pid = number.ok_or(EINVAL)?;
        Ok(12)
    }

    /// A `clone` or `clone3` in the leader: the stack must be room of ours that no other thread has.
    pub(super) fn new_thread(
        &mut self,
        n: u32,
        a: [u32; 6],
        data: Option<Data<'_>>,
        of: &Args<'_>,
        row: usize,
    ) -> Res {
        assert_eq!(self.current, self.pid, "a thread makes a thread");
        let size = u32::try_from(size_of::<ThreadArgs>()).unwrap_or(0);
        let (flags, stack, tid) = if n == nr::CLONE {
            (a[0], a[1], self.last_pid + 1)
        } else {
            let clone: CloneArgs = data
                .and_then(|d| record::read(d.bytes, 0))
                .expect("the argument of clone3");
            let low = |n: u64| u32::try_from(n).expect("an address");
            let own = of.fixed.threads.addr + u32::try_from(row).unwrap_or(0) * size;
            assert!(
                (own..own + size).contains(&low(clone.set_tid)) && clone.set_tid_size == 1,
                "set_tid is not in the thread's own row"
            );
            let at = usize::try_from(low(clone.set_tid) - own).unwrap_or(0);
            let bytes = armrest_abi::bytes_of_slice(&of.threads);
            let tid = record::read(bytes, row * size_of::<ThreadArgs>() + at);
            (
                low(clone.flags),
                low(clone.stack + clone.stack_size),
                tid.expect("in the row"),
            )
        };
        self.last_pid = tid;
        assert_eq!(flags, c::CLONE_FOR_THREAD);
        assert!(stack.is_multiple_of(8), "stack {stack:x}");
        let room = Range {
            start: stack - self.stack_size,
            end: stack,
        };
        let ours = self.in_range(room).iter().all(|s| {
            self.areas[s].kind == Kind::Own && self.areas[s].prot == c::PROT_READ | c::PROT_WRITE
        });
        assert!(
            ours && self.own.contains(room),
            "the stack {room:x?} is no memory of ours"
        );
        assert!(
            self.stacks.insert(stack),
            "two threads have the same stack {stack:x}"
        );
        if tid == self.pid || self.threads.contains_key(&tid) {
            return Err(EEXIST);
        }
        self.threads.insert(tid, Own::default());
        Ok(tid)
    }

    /// The others run up to the end of `stage`, one after the other.
    pub(super) fn meet_threads(&mut self, args: &Args<'_>, stage: Stage) -> Result<(), Stop> {
        assert_eq!(self.current, self.pid);
        let (shown, pid) = (self.step, self.pid);
        for (row, t) in args.threads.iter().enumerate().skip(1) {
            self.current = t.tid;
            armrest_blob::thread(self, args, row, stage)?;
            if stage == Stage::Last {
                self.leave(args, t);
            }
        }
        self.current = pid;
        assert_eq!(self.step, shown, "a thread begins a step");
        Ok(())
    }

    /// The frame must be readable when the area is gone: in the task's own writable memory, or in the kept page.
    fn leave(&mut self, args: &Args<'_>, t: &ThreadArgs) {
        assert!(self.placed.contains(&t.tid), "its frame is not placed");
        if t.exit_frame == 0 {
            let there = Range {
                start: t.frame,
                end: t.frame + armrest_abi::FRAME_SIZE,
            };
            assert!(args.fixed.exit_svc == 0);
            // A tracer takes the area away when all are out.
            assert!(self.keep.contains(there) || self.first.suspended);
        }
        self.left += 1;
    }

    /// A frame that is copied goes to writable memory of the task.
    pub(super) fn frame_goes(&self, t: &ThreadArgs) {
        if t.exit_frame == 0 {
            return;
        }
        let frame = Range {
            start: t.exit_frame,
            end: t.exit_frame + armrest_abi::FRAME_SIZE,
        };
        assert!(
            self.covered(frame) && !frame.overlaps(self.own),
            "{frame:x?}"
        );
        let writable = |s: &u32| self.areas[s].prot & c::PROT_WRITE != 0;
        assert!(
            self.in_range(frame).iter().all(writable),
            "the frame {frame:x?} cannot be written"
        );
    }

    /// Calls that change what the caller has of its own.
    pub(super) fn threads_own(&mut self, n: u32, a: &[u32; 6], data: Option<&[u8]>) -> Res {
        let (current, pid) = (self.current, self.pid);
        let own = self.threads.entry(current).or_default();
        let bytes = || data.unwrap_or_default().to_vec();
        match n {
            nr::PRCTL if a[0] == c::PR_SET_NAME => {
                own.name = data.and_then(|d| d.try_into().ok());
            }
            nr::PRCTL if a[0] == c::PR_SET_PDEATHSIG => own.pdeath = Some(a[1]),
            nr::SET_TID_ADDRESS => {
                own.clear_tid = Some(a[0]);
                return Ok(current);
            }
            nr::SET_TLS => own.tls = Some(a[0]),
            nr::SET_ROBUST_LIST => own.robust = Some(a[0]),
            nr::RSEQ => own.rseq = (a[2] == 0).then_some([a[0], a[1], a[3]]),
            nr::SETPRIORITY => own.nice = Some(a[2]),
            nr::SCHED_SETSCHEDULER => {
                let priority: u32 = record::read(data.unwrap_or_default(), 0).ok_or(EINVAL)?;
                own.policy = Some([a[1], priority]);
            }
            nr::RT_TGSIGQUEUEINFO => {
                // The kernel lets a thread forge information for itself alone.
                assert_eq!((a[0], a[1]), (pid, current), "a signal for someone else");
                own.pending.push_back(bytes());
            }
            nr::RT_SIGQUEUEINFO => {
                assert_eq!((a[0], current), (pid, pid));
                let info = bytes();
                self.pending.push(info);
            }
            _ => {}
        }
        Ok(0)
    }

    /// Every thread of the checkpoint has what it had.
    pub(super) fn prove_threads(
        &self,
        cp: &Checkpoint,
        machine: &Machine,
        live: &LiveTask,
        plan: &Plan,
    ) {
        let comm = cp
            .tasks
            .get(plan.task)
            .map_or("", |task| task.comm.as_str());
        assert_eq!(
            self.threads.len(),
            live.threads.len(),
            "another number of threads"
        );
        for t in &live.threads {
            let own = self
                .threads
                .get(&t.tid)
                .unwrap_or_else(|| panic!("there is no thread {}", t.tid));
            let mut name = [0; 16];
            let text = t.comm.as_deref().unwrap_or(comm).as_bytes();
            name[..text.len().min(15)].copy_from_slice(&text[..text.len().min(15)]);
            let leader = t.tid == self.pid;
            let want = Own {
                name: Some(name),
                clear_tid: Some(t.clear_tid),
                tls: Some(t.tls),
                robust: match t.robust {
                    (head, len) if len != 0 && machine.has_robust_list => Some(head),
                    // Taken back from the old program.
                    _ => (leader && machine.has_robust_list).then_some(0),
                },
                rseq: t
                    .rseq
                    .filter(|r| r.0 != 0 && machine.has_rseq)
                    .map(|(addr, len, sig, _)| [addr, len, sig]),
                pdeath: (leader || t.pdeath != 0).then_some(t.pdeath),
                nice: t
                    .nice
                    .filter(|n| *n != machine.own_nice)
                    .map(i32::cast_unsigned),
                policy: t
                    .sched
                    .filter(|s| *s != machine.own_sched)
                    .map(|(policy, priority)| [policy, priority]),
                pending: (t.pending.iter().map(|i| i.to_vec()))
                    .chain(plan.traced.then(|| {
                        armrest_abi::bytes_of_slice::<u32>(&crate::finish::here_i_am().info)
                            .to_vec()
                    }))
                    .collect(),
            };
            assert_eq!(*own, want, "thread {}", t.tid);
        }
        let shared: Vec<Vec<u8>> = live.pending.iter().map(|i| i.to_vec()).collect();
        assert_eq!(self.pending, shared, "the shared queue of signals");
    }
}
