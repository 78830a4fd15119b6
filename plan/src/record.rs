//! The blob's own steps on a kernel that only writes down what it is asked for.
//!
//! `armrest plan` prints what comes of it, so what is printed is what would be executed: there is no second list of
//! calls. The arguments are read back from the very bytes that the harness would load, not from the plan's tables.

use armrest_abi::{Iovec, Plain, Progress, Report, RestoreArgs, Step, Table, ThreadArgs};
use armrest_blob::kernel::{Data, Errno, Kernel, Res, Stage, nr};
use armrest_blob::{Args, Entry, Stop};

use crate::types::{Plan, Tables};

/// The restore-args of a plan as the blob would see them, copied out of their bytes.
pub struct HostArgs {
    fixed: RestoreArgs,
    tables: Tables,
    creds: Vec<armrest_abi::Cred>,
    memory: Memory,
}

/// The bytes of the restore-args, where they lie in the task: calls of the table of credentials point into them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    base: u32,
    bytes: Vec<u8>,
}

impl Memory {
    /// The restore-args of a plan.
    pub(crate) fn of(plan: &Plan) -> Memory {
        Memory {
            base: plan.area.args.start,
            bytes: crate::args::bytes(plan),
        }
    }

    fn at(&self, addr: u32, len: u32) -> Option<&[u8]> {
        let first = usize::try_from(addr.checked_sub(self.base)?).ok()?;
        let len = usize::try_from(len).ok()?;
        self.bytes.get(first..first.checked_add(len)?)
    }

    /// What a call of the table of credentials reads: groups, capabilities (the header too), a BPF program, a lock.
    pub(crate) fn read_by(&self, n: u32, a: &[u32; 6]) -> Option<Vec<u8>> {
        match n {
            nr::SETGROUPS32 => self.at(a[1], a[0].checked_mul(4)?).map(<[u8]>::to_vec),
            nr::FCNTL64 => self.at(a[2], 32).map(<[u8]>::to_vec),
            nr::CAPSET => Some([self.at(a[0], 8)?, self.at(a[1], 24)?].concat()),
            nr::SECCOMP if a[2] != 0 => {
                let program = self.at(a[2], 8)?;
                let len: u32 = u32::from(read::<u32>(program, 0)?.to_le_bytes()[0])
                    | u32::from(program[1]) << 8;
                self.at(read(program, 4)?, len * 8).map(<[u8]>::to_vec)
            }
            _ => None,
        }
    }
}

impl HostArgs {
    /// Build the bytes that the harness loads and read them again. `None` if a table does not lie in them.
    pub fn of(plan: &Plan) -> Option<HostArgs> {
        let bytes = crate::args::bytes(plan);
        let base = plan.area.args.start;
        let fixed: RestoreArgs = read(&bytes, 0)?;
        let threads: Vec<ThreadArgs> = rows(&bytes, base, fixed.threads)?;
        Some(HostArgs {
            tables: Tables {
                unmaps: rows(&bytes, base, fixed.unmaps)?,
                parks: rows(&bytes, base, fixed.parks)?,
                attaches: rows(&bytes, base, fixed.attaches)?,
                pieces: rows(&bytes, base, fixed.pieces)?,
                holes: rows(&bytes, base, fixed.holes)?,
                removes: rows(&bytes, base, fixed.removes)?,
                maps: rows(&bytes, base, fixed.maps)?,
                iovecs: rows(&bytes, base, fixed.iovecs)?,
                batches: rows(&bytes, base, fixed.batches)?,
                protects: rows(&bytes, base, fixed.protects)?,
                flushes: rows(&bytes, base, fixed.flushes)?,
                unparks: rows(&bytes, base, fixed.unparks)?,
                advises: rows(&bytes, base, fixed.advises)?,
                locks: rows(&bytes, base, fixed.locks)?,
                closes: rows(&bytes, base, fixed.closes)?,
                threads,
                timers: rows(&bytes, base, fixed.timers)?,
                posix_timers: rows(&bytes, base, fixed.posix_timers)?,
                queued: rows(&bytes, base, fixed.queued)?,
                creds: Vec::new(),
                records: fixed.records,
            },
            creds: rows(&bytes, base, fixed.creds)?,
            fixed,
            memory: Memory { base, bytes },
        })
    }

    /// What the steps take.
    pub fn args(&self) -> Args<'_> {
        let t = &self.tables;
        Args {
            fixed: &self.fixed,
            unmaps: (&t.unmaps).into(),
            parks: (&t.parks).into(),
            attaches: (&t.attaches).into(),
            pieces: (&t.pieces).into(),
            holes: (&t.holes).into(),
            removes: (&t.removes).into(),
            maps: (&t.maps).into(),
            iovecs: (&t.iovecs).into(),
            batches: (&t.batches).into(),
            protects: (&t.protects).into(),
            flushes: (&t.flushes).into(),
            unparks: (&t.unparks).into(),
            advises: (&t.advises).into(),
            locks: (&t.locks).into(),
            closes: (&t.closes).into(),
            threads: (&t.threads).into(),
            timers: (&t.timers).into(),
            posix_timers: (&t.posix_timers).into(),
            queued: (&t.queued).into(),
            creds: (&self.creds).into(),
        }
    }
}

/// One record out of bytes, wherever it lies in them.
pub(crate) fn read<T: Plain>(bytes: &[u8], at: usize) -> Option<T> {
    let b = bytes.get(at..at.checked_add(size_of::<T>())?)?;
    // SAFETY: `b` is `size_of::<T>()` initialised bytes, `T: Plain` is valid for any of them, and the read does not ask
    // for alignment.
    Some(unsafe { b.as_ptr().cast::<T>().read_unaligned() })
}

/// A table out of the bytes that lie at `base` in the task.
fn rows<T: Plain>(bytes: &[u8], base: u32, table: Table) -> Option<Vec<T>> {
    if table.count == 0 {
        return Some(Vec::new());
    }
    let first = usize::try_from(table.addr.checked_sub(base)?).ok()?;
    let count = usize::try_from(table.count).ok()?;
    let all = bytes.get(first..first.checked_add(count.checked_mul(size_of::<T>())?)?)?;
    (0..count).map(|i| read(all, i * size_of::<T>())).collect()
}

/// Iovecs, or any table, out of the data of a call.
pub(crate) fn iovecs(data: &[u8]) -> Vec<Iovec> {
    (0..data.len() / size_of::<Iovec>())
        .filter_map(|i| read(data, i * size_of::<Iovec>()))
        .collect()
}

/// One call that a step made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The step that made it.
    pub step: Step,
    /// Row of the step's table.
    pub row: u32,
    /// System call number.
    pub nr: u32,
    /// r0 to r5; the register that holds the address of `data` is 0.
    pub args: [u32; 6],
    /// Bytes that the call reads.
    pub data: Option<Vec<u8>>,
    /// What it returned.
    pub result: Res,
}

/// A kernel that grants everything and remembers it.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// What was asked for, in order.
    pub calls: Vec<Recorded>,
    /// Let the n-th call (from 0) fail with this error.
    pub fail: Option<(usize, Errno)>,
    /// Let a `preadv` give at most so many bytes. 0 makes every file look empty.
    pub read_limit: Option<u32>,
    step: Option<Step>,
    row: u32,
    memory: Memory,
}

impl Recorder {
    /// One whose n-th call (from 0) fails.
    pub fn failing(n: usize, errno: Errno) -> Recorder {
        Recorder {
            fail: Some((n, errno)),
            ..Recorder::default()
        }
    }

    /// One that reads at most `limit` bytes at once.
    pub fn reading(limit: u32) -> Recorder {
        Recorder {
            read_limit: Some(limit),
            ..Recorder::default()
        }
    }

    /// Run the steps of a plan. On success the calls of the exit routine are recorded too.
    pub fn run(&mut self, plan: &Plan) -> Result<Entry, Stop> {
        let lost = Stop {
            kind: armrest_abi::ReportKind::BadArgs,
            step: Step::Start,
            object: Report::NO_OBJECT,
            row: 0,
            result: armrest_blob::Check::Table.number(),
            tid: 0,
        };
        let host = HostArgs::of(plan).ok_or(lost)?;
        self.memory = host.memory.clone();
        let entry = armrest_blob::restore(self, &host.args(), &mut heap())?;
        for (nr, args) in entry.calls() {
            // The steps are done: whether these succeed is the exit routine's business.
            let _ = self.call(nr, args, None);
        }
        Ok(entry)
    }

    /// The report that the blob would write for `stop`: its call is the last one recorded.
    pub fn report(&self, stop: &Stop) -> Report {
        let call = self.calls.last().filter(|_| kind_has_call(stop.kind));
        Report {
            magic: Report::MAGIC,
            version: armrest_abi::ABI_VERSION,
            kind: stop.kind as u32,
            step: stop.step.number(),
            object: stop.object,
            row: stop.row,
            syscall: call.map_or(0, |c| c.nr),
            args: call.map_or([0; 6], |c| c.args),
            result: stop.result.cast_signed(),
            tid: stop.tid,
            pid: 0,
        }
    }
}

fn kind_has_call(kind: armrest_abi::ReportKind) -> bool {
    use armrest_abi::ReportKind::{Errno, Truncated, WrongAddress};
    matches!(kind, Errno | WrongAddress | Truncated)
}

impl Kernel for Recorder {
    type Failure = Stop;
    fn fail(&mut self, why: Stop) -> Stop {
        why
    }
    fn call(&mut self, nr: u32, args: [u32; 6], data: Option<Data<'_>>) -> Res {
        let result = match self.fail {
            Some((n, errno)) if n == self.calls.len() => Err(errno),
            _ => Ok(answer(
                nr,
                &args,
                data.as_ref().map(|d| d.bytes),
                self.read_limit,
            )),
        };
        self.calls.push(Recorded {
            step: self.step.unwrap_or(Step::Start),
            row: self.row,
            nr,
            args,
            data: data
                .map(|d| d.bytes.to_vec())
                .or_else(|| self.memory.read_by(nr, &args)),
            result,
        });
        result
    }
    fn start(
        &mut self,
        nr: u32,
        args: [u32; 6],
        data: Option<Data<'_>>,
        of: &Args<'_>,
        row: usize,
    ) -> Res {
        self.call(nr, args, data)?;
        Ok(of.threads.get(row).map_or(0, |t| t.tid))
    }
    fn expect_threads(&mut self, _others: usize) -> Res {
        Ok(0)
    }
    fn meet(&mut self, args: &Args<'_>, stage: Stage) -> Result<(), Stop> {
        let (step, row) = (self.step, self.row);
        let done = armrest_blob::threads_in_turn(self, args, stage);
        (self.step, self.row) = (step, row);
        done
    }
    fn progress(&mut self, progress: Progress) {
        self.row = progress.row;
    }
    fn step(&mut self, step: Step) {
        self.step = Some(step);
    }
}

/// What a kernel that grants everything returns.
fn answer(nr: u32, args: &[u32; 6], data: Option<&[u8]>, read_limit: Option<u32>) -> u32 {
    match nr {
        nr::MMAP2 => args[0],
        nr::SHMAT => args[1],
        nr::MREMAP => args[4],
        nr::PREADV => {
            let all = data
                .map(iovecs)
                .unwrap_or_default()
                .iter()
                .map(|v| u64::from(v.len))
                .sum::<u64>();
            u32::try_from(all)
                .unwrap_or(u32::MAX)
                .min(read_limit.unwrap_or(u32::MAX))
        }
        nr::SET_TID_ADDRESS => 1,
        nr::WRITE => args[2],
        // The second call returns what the first one set.
        nr::SETFSUID32 | nr::SETFSGID32 => args[0],
        _ => 0,
    }
}

/// Room for the rest of any batch after a short read.
pub(crate) fn heap() -> [Iovec; armrest_abi::IOV_MAX as usize] {
    [Iovec { base: 0, len: 0 }; armrest_abi::IOV_MAX as usize]
}

/// Every call that the blob would make for a plan, the exit routine's included. A plan whose arguments the blob itself
/// refuses gives the calls up to there: none.
pub fn record(plan: &Plan) -> Vec<Recorded> {
    let mut recorder = Recorder::default();
    let _ = recorder.run(plan);
    recorder.calls
}
