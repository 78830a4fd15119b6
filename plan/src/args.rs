//! The bytes of the restore-args: tables laid out behind the structure, as they will lie in the task.

use armrest_abi::{ABI_VERSION, ARGS_MAGIC, Plain, RestoreArgs, Table, bytes_of, bytes_of_slice};

use crate::types::{Plan, Tables};
use crate::u32_of;

/// Bytes that structure and tables need.
pub fn size(tables: &Tables, auxv: &[u32]) -> u64 {
    let mut w = Writer {
        base: 0,
        bytes: Vec::new(),
        count_only: 0,
    };
    let _ = w.all(tables, auxv);
    w.count_only
}

/// The bytes for `plan.area.args`, not padded to its end.
pub fn bytes(plan: &Plan) -> Vec<u8> {
    let mut w = Writer {
        base: plan.area.args.start,
        bytes: vec![0; size_of::<RestoreArgs>()],
        count_only: 0,
    };
    let (args, auxv) = w.all(&plan.tables, &plan.auxv);
    let mut mm = plan.mm;
    mm.auxv = auxv.addr;
    mm.auxv_size = auxv.count * 4;
    let args = RestoreArgs {
        want: plan.want,
        area: plan.area.all,
        keep: plan.area.keep,
        heap: plan.area.heap,
        progress: plan.area.progress.start,
        report_fd: i32::try_from(plan.report_fd).unwrap_or(-1),
        old_rseq: plan.old_rseq,
        dumpable: plan.dumpable,
        mm,
        exit_svc: plan.exit.sigpage().map_or(0, |e| e.svc),
        exit_frame: plan.exit.sigpage().map_or(0, |e| e.frame),
        ..args
    };
    w.bytes[..size_of::<RestoreArgs>()].copy_from_slice(bytes_of(&args));
    w.bytes
}

struct Writer {
    base: u32,
    bytes: Vec<u8>,
    count_only: u64,
}

impl Writer {
    /// Append every table; the structure with the tables filled in, and where the auxv words lie.
    fn all(&mut self, t: &Tables, auxv: &[u32]) -> (RestoreArgs, Table) {
        self.count_only = size_of::<RestoreArgs>() as u64;
        let none = armrest_abi::Range { start: 0, end: 0 };
        let queue = self.table(&t.queued);
        let mut threads = t.threads.clone();
        if let Some(leader) = threads.first_mut() {
            leader.queue = queue;
        }
        let args = RestoreArgs {
            magic: ARGS_MAGIC,
            version: ABI_VERSION,
            size: u32_of(size_of::<RestoreArgs>()),
            want: 0,
            area: none,
            keep: none,
            heap: none,
            progress: 0,
            report_fd: -1,
            unmaps: self.table(&t.unmaps),
            parks: self.table(&t.parks),
            attaches: self.table(&t.attaches),
            pieces: self.table(&t.pieces),
            holes: self.table(&t.holes),
            removes: self.table(&t.removes),
            maps: self.table(&t.maps),
            iovecs: self.table(&t.iovecs),
            batches: self.table(&t.batches),
            protects: self.table(&t.protects),
            flushes: self.table(&t.flushes),
            unparks: self.table(&t.unparks),
            advises: self.table(&t.advises),
            locks: self.table(&t.locks),
            closes: self.table(&t.closes),
            threads: self.table(&threads),
            timers: self.table(&t.timers),
            posix_timers: self.table(&t.posix_timers),
            old_rseq: Default::default(),
            dumpable: 0,
            mm: Default::default(),
            exit_svc: 0,
            exit_frame: 0,
            reserved: [0; 2],
        };
        let auxv = self.table(auxv);
        (args, auxv)
    }

    fn table<T: Plain>(&mut self, rows: &[T]) -> Table {
        let start = self.count_only.next_multiple_of(8);
        self.count_only = start + size_of_val(rows) as u64;
        let at = usize::try_from(start).unwrap_or(usize::MAX);
        if !self.bytes.is_empty() {
            self.bytes.resize(at, 0);
            self.bytes.extend_from_slice(bytes_of_slice(rows));
        }
        Table {
            addr: self
                .base
                .wrapping_add(u32::try_from(start).unwrap_or(u32::MAX)),
            count: u32_of(rows.len()),
        }
    }
}
