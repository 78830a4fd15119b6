/* The ABI of armrest.bin: how a loader finds its way in it, what it tells the blob, and what the blob answers.
 *
 * Made by tools/abi-header from the abi crate; do not edit. How to load and enter the blob: docs/abi.md; a program
 * that does so: tests/embed/embed.c. All numbers are little-endian, addresses are those of the restoring task, sizes
 * are bytes. */
#ifndef ARMREST_H
#define ARMREST_H

#include <stddef.h>
#include <stdint.h>

/* Version of every structure in this ABI. A blob refuses arguments of another version. */
#define ARMREST_ABI_VERSION 0x1u

/* Bytes in a page: the only page size of ARMv7 Linux. */
#define ARMREST_PAGE_SIZE 0x1000u

/* `UIO_MAXIOV`: iovecs that one `preadv` may have (include/uapi/linux/uio.h). */
#define ARMREST_IOV_MAX 0x400u

/* First word of `armrest.bin`: the bytes `ARMB`. */
#define ARMREST_BLOB_MAGIC 0x424d5241u

/* First word of `RestoreArgs`: the bytes `ARMA`. */
#define ARMREST_ARGS_MAGIC 0x414d5241u

/* Offset in the blob's first page at which the loader writes the signal frame of the restored task, 8-aligned. */
#define ARMREST_FRAME_OFFSET 0x800u

/* Bytes of that frame: what current kernels check to be readable (arch/arm/kernel/signal.c, `struct rt_sigframe`). */
#define ARMREST_FRAME_SIZE 0x378u

/* The bytes `ARMR`. */
#define ARMREST_REPORT_MAGIC 0x524d5241u

/* `object` when the failure belongs to none. */
#define ARMREST_NO_OBJECT 0xffffffffu

/* Status with which a blob exits after a report (and, without a report, when even that could not be written). */
#define ARMREST_EXIT_CODE 0x70u

/* Where the tasks of a tree wait for each other, twice. At the first time memory and threads are there; at the second everything but the way out is done, and no task has run yet.  One word at this offset from the `Progress`, in a page that all tasks of the tree share: how many times the gate is open. The harness opens it for all by one compare and exchange, since a task may shut it (`want::SPIN`); so a death of the harness lets either all through or none. The blob waits by `FUTEX_WAIT`, shared between processes, or by looking alone, and ends if nobody reads its reports and the gate is shut. */
#define ARMREST_GATE_OFFSET 0x1000u

/* Behind the gate: a word that changes as long as somebody is there to open it. */
#define ARMREST_BEAT_OFFSET 0x1004u

/* Offset from the `Progress`, in the same page, of the word in which the blob says how many times it has come to the gate. */
#define ARMREST_REACHED_OFFSET 0x10u

/* Detach: `rseq(old_rseq, RSEQ_FLAG_UNREGISTER)`. */
#define ARMREST_WANT_OLD_RSEQ 0x1u

/* Detach: `set_robust_list(NULL, 12)`. */
#define ARMREST_WANT_OLD_ROBUST 0x2u

/* Mm: `prctl(PR_SET_MM, PR_SET_MM_MAP)`. */
#define ARMREST_WANT_MM_MAP 0x4u

/* Map, before the first mapping: `prctl(PR_SET_THP_DISABLE, 1)`. */
#define ARMREST_WANT_THP_DISABLE 0x8u

/* Creds: `prctl(PR_SET_DUMPABLE, dumpable)`. */
#define ARMREST_WANT_DUMPABLE 0x10u

/* Timers: the kernel takes the numbers of POSIX timers from us (`PR_TIMER_CREATE_RESTORE_IDS`). */
#define ARMREST_WANT_TIMER_IDS 0x20u

/* Timers: armed by `timer_settime64`. */
#define ARMREST_WANT_TIME64 0x40u

/* Mm: the fields of `mm` one by one (`PR_SET_MM_START_CODE` ...), where the kernel cannot take them at once. */
#define ARMREST_WANT_MM_SINGLES 0x100000u

/* Wait twice at the gate (`GATE_OFFSET`): in the timers step before the first is armed, and in the enter step behind everything but the way out. */
#define ARMREST_WANT_GATE 0x200000u

/* The second time the leader waits without a call, since its filters, which are in force by then, forbid those of a wait. It gives up when the word at `BEAT_OFFSET` has not changed for about a second of its own time: the gate, if it is not open, becomes 0 and stays shut. */
#define ARMREST_WANT_SPIN 0x400000u

/* Threads: they are made by `clone3` with `set_tid`. */
#define ARMREST_WANT_SET_TID 0x80u

/* Threads: `last_pid_fd` is written before each is made. With neither bit they get the ids that the kernel gives. */
#define ARMREST_WANT_LAST_PID 0x10000u

/* Thread: `set_robust_list(robust_head, robust_len)`. */
#define ARMREST_WANT_ROBUST 0x100u

/* Thread: `rseq(rseq)`. */
#define ARMREST_WANT_RSEQ 0x200u

/* Creds, by each thread: `prctl(PR_SET_PDEATHSIG)`. */
#define ARMREST_WANT_PDEATH 0x400u

/* Thread: `sched_setscheduler(policy, priority)`. */
#define ARMREST_WANT_SCHED 0x800u

/* Thread: `setpriority(nice)`. */
#define ARMREST_WANT_NICE 0x1000u

/* The steps of a restore in the order in which the blob takes them. */
enum armrest_step {
    /* Before the first step. */
    ARMREST_STEP_START = 0,
    /* The arguments are checked. */
    ARMREST_STEP_VERIFY = 1,
    /* Registrations of the old program are taken back: rseq, robust list, alternate stack, clear-tid address. */
    ARMREST_STEP_DETACH = 2,
    /* What the kernel cannot recreate is moved out of the way. */
    ARMREST_STEP_PARK = 3,
    /* The old address space goes. */
    ARMREST_STEP_UNMAP = 4,
    /* SysV segments are attached. */
    ARMREST_STEP_SHM = 5,
    /* Every other VMA is mapped in its place. */
    ARMREST_STEP_MAP = 6,
    /* Contents are read into place. */
    ARMREST_STEP_FILL = 7,
    /* Final protections, and the instruction cache. */
    ARMREST_STEP_PROTECT = 8,
    /* Parked areas go to the checkpoint's addresses. */
    ARMREST_STEP_UNPARK = 9,
    /* madvise bits and mlock. */
    ARMREST_STEP_ADVISE = 10,
    /* The mm fields of the kernel. */
    ARMREST_STEP_MM = 11,
    /* Threads, and what each thread registers: name, clear-tid address, TLS, robust list, rseq. */
    ARMREST_STEP_THREADS = 12,
    /* Pending signals. */
    ARMREST_STEP_SIGNALS = 13,
    /* Timers are armed. */
    ARMREST_STEP_TIMERS = 14,
    /* Credentials: ids, groups, capabilities, dumpable, the parent-death signal. */
    ARMREST_STEP_CREDS = 15,
    /* Filters of system calls; the area goes, the task is entered. */
    ARMREST_STEP_ENTER = 16,
};

/* What kind of failure a `Report` tells. */
enum armrest_report_kind {
    /* A system call returned an error: `result` is the negative errno. */
    ARMREST_REPORT_KIND_ERRNO = 1,
    /* A mapping call returned another address than asked for: `result` is that address. */
    ARMREST_REPORT_KIND_WRONG_ADDRESS = 2,
    /* A pages file ended early: `preadv` returned 0. */
    ARMREST_REPORT_KIND_TRUNCATED = 3,
    /* The restore arguments contradict themselves: `result` is the number of the check. */
    ARMREST_REPORT_KIND_BAD_ARGS = 4,
    /* The heap's arena is used up: `result` is the size asked for. */
    ARMREST_REPORT_KIND_OUT_OF_HEAP = 5,
    /* The blob panicked. `result` is the line. */
    ARMREST_REPORT_KIND_PANIC = 6,
    /* A new thread got another id than the checkpoint's: `result` is that id. */
    ARMREST_REPORT_KIND_WRONG_TID = 7,
    /* A call that returned no error returned another value than it had to: `result` is that value. */
    ARMREST_REPORT_KIND_WRONG_RESULT = 8,
};

/* A half-open range of target addresses, page-aligned in every table of this ABI. */
struct armrest_range {
    /* First byte. */
    uint32_t start;
    /* One past the last byte. */
    uint32_t end;
};
_Static_assert(sizeof(struct armrest_range) == 8, "size of Range");
_Static_assert(offsetof(struct armrest_range, start) == 0, "Range.start");
_Static_assert(offsetof(struct armrest_range, end) == 4, "Range.end");

/* `mremap(from, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to)`: one whole mapping moved, as it is. */
struct armrest_move {
    /* Where it lies. */
    uint32_t from;
    /* Where it goes. */
    uint32_t to;
    /* Bytes, a multiple of the page size. */
    uint32_t len;
    /* Which object, for reports. */
    uint32_t object;
};
_Static_assert(sizeof(struct armrest_move) == 16, "size of Move");
_Static_assert(offsetof(struct armrest_move, from) == 0, "Move.from");
_Static_assert(offsetof(struct armrest_move, to) == 4, "Move.to");
_Static_assert(offsetof(struct armrest_move, len) == 8, "Move.len");
_Static_assert(offsetof(struct armrest_move, object) == 12, "Move.object");

/* One SysV attachment: `shmat(shmid, at, flags)`, then moves of its pieces, then unmaps of what it must not cover. */
struct armrest_attach {
    /* Segment id in the IPC namespace of the task. */
    int32_t shmid;
    /* Where to attach: the base of the attachment, or a scratch address. A multiple of SHMLBA. */
    uint32_t at;
    /* Bytes that the kernel maps there: the segment's size rounded up to pages. */
    uint32_t len;
    /* `SHM_RDONLY`, `SHM_EXEC`, `SHM_REMAP`. */
    uint32_t flags;
    /* First row in the table of pieces. */
    uint32_t piece;
    /* Rows: VMAs to move out of a scratch attachment; 0 for a direct one. */
    uint32_t pieces;
    /* First row in the table of holes. */
    uint32_t hole;
    /* Rows: ranges of the attachment that are unmapped after the moves. */
    uint32_t holes;
    /* Which object (the first VMA of the attachment), for reports. */
    uint32_t object;
};
_Static_assert(sizeof(struct armrest_attach) == 36, "size of Attach");
_Static_assert(offsetof(struct armrest_attach, shmid) == 0, "Attach.shmid");
_Static_assert(offsetof(struct armrest_attach, at) == 4, "Attach.at");
_Static_assert(offsetof(struct armrest_attach, len) == 8, "Attach.len");
_Static_assert(offsetof(struct armrest_attach, flags) == 12, "Attach.flags");
_Static_assert(offsetof(struct armrest_attach, piece) == 16, "Attach.piece");
_Static_assert(offsetof(struct armrest_attach, pieces) == 20, "Attach.pieces");
_Static_assert(offsetof(struct armrest_attach, hole) == 24, "Attach.hole");
_Static_assert(offsetof(struct armrest_attach, holes) == 28, "Attach.holes");
_Static_assert(offsetof(struct armrest_attach, object) == 32, "Attach.object");

/* `shmctl(shmid, IPC_RMID)` after the last attach: the segment was marked for deletion in the checkpoint. */
struct armrest_remove {
    /* Segment id. */
    int32_t shmid;
    /* Which object, for reports. */
    uint32_t object;
};
_Static_assert(sizeof(struct armrest_remove) == 8, "size of Remove");
_Static_assert(offsetof(struct armrest_remove, shmid) == 0, "Remove.shmid");
_Static_assert(offsetof(struct armrest_remove, object) == 4, "Remove.object");

/* `mmap2(start, len, prot, flags, fd, page_offset)`. */
struct armrest_map {
    /* Where: page-aligned, mapped with MAP_FIXED. */
    uint32_t start;
    /* Bytes. */
    uint32_t len;
    /* `PROT_*` while it is filled; the final rights come with a `Protect` if they differ. */
    uint32_t prot;
    /* `MAP_*`, MAP_FIXED included. */
    uint32_t flags;
    /* Descriptor in the restoring task, or -1. */
    int32_t fd;
    /* Which object (the first VMA that it covers), for reports. */
    uint32_t object;
    /* File offset in pages. 64 bits up to the call, which takes 32: a plan refuses what does not fit. */
    uint64_t page_offset;
};
_Static_assert(sizeof(struct armrest_map) == 32, "size of Map");
_Static_assert(offsetof(struct armrest_map, start) == 0, "Map.start");
_Static_assert(offsetof(struct armrest_map, len) == 4, "Map.len");
_Static_assert(offsetof(struct armrest_map, prot) == 8, "Map.prot");
_Static_assert(offsetof(struct armrest_map, flags) == 12, "Map.flags");
_Static_assert(offsetof(struct armrest_map, fd) == 16, "Map.fd");
_Static_assert(offsetof(struct armrest_map, object) == 20, "Map.object");
_Static_assert(offsetof(struct armrest_map, page_offset) == 24, "Map.page_offset");

/* `preadv(fd, &iovecs[first..first + count], count, offset)`: one run of a pages file into its places. */
struct armrest_batch {
    /* Byte offset in the file. */
    uint64_t offset;
    /* Descriptor of the pages file. */
    int32_t fd;
    /* First row in the table of iovecs. */
    uint32_t first;
    /* Rows, 1 to `IOV_MAX`. */
    uint32_t count;
    /* Bytes: the sum of the rows' lengths. */
    uint32_t len;
};
_Static_assert(sizeof(struct armrest_batch) == 24, "size of Batch");
_Static_assert(offsetof(struct armrest_batch, offset) == 0, "Batch.offset");
_Static_assert(offsetof(struct armrest_batch, fd) == 8, "Batch.fd");
_Static_assert(offsetof(struct armrest_batch, first) == 12, "Batch.first");
_Static_assert(offsetof(struct armrest_batch, count) == 16, "Batch.count");
_Static_assert(offsetof(struct armrest_batch, len) == 20, "Batch.len");

/* `struct iovec` of a 32-bit task (include/uapi/linux/uio.h). */
struct armrest_iovec {
    /* Address. */
    uint32_t base;
    /* Bytes. */
    uint32_t len;
};
_Static_assert(sizeof(struct armrest_iovec) == 8, "size of Iovec");
_Static_assert(offsetof(struct armrest_iovec, base) == 0, "Iovec.base");
_Static_assert(offsetof(struct armrest_iovec, len) == 4, "Iovec.len");

/* `mprotect(start, len, prot)`. */
struct armrest_protect {
    /* Where. */
    uint32_t start;
    /* Bytes. */
    uint32_t len;
    /* `PROT_*`. */
    uint32_t prot;
    /* Which VMA, for reports. */
    uint32_t object;
};
_Static_assert(sizeof(struct armrest_protect) == 16, "size of Protect");
_Static_assert(offsetof(struct armrest_protect, start) == 0, "Protect.start");
_Static_assert(offsetof(struct armrest_protect, len) == 4, "Protect.len");
_Static_assert(offsetof(struct armrest_protect, prot) == 8, "Protect.prot");
_Static_assert(offsetof(struct armrest_protect, object) == 12, "Protect.object");

/* `cacheflush(start, end, 0)`: the ARM private call that makes written code visible to instruction fetch. */
struct armrest_flush {
    /* First byte. */
    uint32_t start;
    /* One past the last byte. */
    uint32_t end;
    /* Which VMA, for reports. */
    uint32_t object;
};
_Static_assert(sizeof(struct armrest_flush) == 12, "size of Flush");
_Static_assert(offsetof(struct armrest_flush, start) == 0, "Flush.start");
_Static_assert(offsetof(struct armrest_flush, end) == 4, "Flush.end");
_Static_assert(offsetof(struct armrest_flush, object) == 8, "Flush.object");

/* `madvise(start, len, advice)`. */
struct armrest_advise {
    /* Where. */
    uint32_t start;
    /* Bytes. */
    uint32_t len;
    /* `MADV_*` number. */
    uint32_t advice;
    /* Which VMA, for reports. */
    uint32_t object;
};
_Static_assert(sizeof(struct armrest_advise) == 16, "size of Advise");
_Static_assert(offsetof(struct armrest_advise, start) == 0, "Advise.start");
_Static_assert(offsetof(struct armrest_advise, len) == 4, "Advise.len");
_Static_assert(offsetof(struct armrest_advise, advice) == 8, "Advise.advice");
_Static_assert(offsetof(struct armrest_advise, object) == 12, "Advise.object");

/* `mlock(start, len)`. */
struct armrest_lock {
    /* Where. */
    uint32_t start;
    /* Bytes. */
    uint32_t len;
    /* Which VMA, for reports. */
    uint32_t object;
};
_Static_assert(sizeof(struct armrest_lock) == 12, "size of Lock");
_Static_assert(offsetof(struct armrest_lock, start) == 0, "Lock.start");
_Static_assert(offsetof(struct armrest_lock, len) == 4, "Lock.len");
_Static_assert(offsetof(struct armrest_lock, object) == 8, "Lock.object");

/* `setitimer(which, value)`: an interval timer with its remaining time (`struct itimerval`, 32-bit). */
struct armrest_timer {
    /* 0 ITIMER_REAL, 1 ITIMER_VIRTUAL, 2 ITIMER_PROF. */
    uint32_t which;
    /* `it_interval` seconds, microseconds, `it_value` seconds, microseconds. */
    uint32_t value[4];
};
_Static_assert(sizeof(struct armrest_timer) == 20, "size of Timer");
_Static_assert(offsetof(struct armrest_timer, which) == 0, "Timer.which");
_Static_assert(offsetof(struct armrest_timer, value) == 4, "Timer.value");

/* A POSIX timer: `timer_create(clock, event)` under its number, then `timer_settime(id, 0, value)`.  A kernel without `PR_TIMER_CREATE_RESTORE_IDS` counts its numbers up from 0 in a new process: those that `skip` names are made and deleted first. That the number came is seen by arming: another one is EINVAL. */
struct armrest_posix_timer {
    /* Its number in the process (`timer_t`). */
    uint32_t id;
    /* Numbers below it that no timer has, down to the timer before: 0 if the kernel takes the number from us. */
    uint32_t skip;
    /* `CLOCK_*`, or a CPU clock's negative number. */
    uint32_t clock;
    /* Reserved, zero. */
    uint32_t reserved;
    /* `struct sigevent`, all 64 bytes that the kernel reads: value, signo, notify, tid, padding. */
    uint32_t event[16];
    /* `struct itimerspec`: interval, then remaining time, all zero = not armed. With `want::TIME64` seconds (two words, low first), nanoseconds, zero; else seconds, nanoseconds, in the first four words. */
    uint32_t value[8];
};
_Static_assert(sizeof(struct armrest_posix_timer) == 112, "size of PosixTimer");
_Static_assert(offsetof(struct armrest_posix_timer, id) == 0, "PosixTimer.id");
_Static_assert(offsetof(struct armrest_posix_timer, skip) == 4, "PosixTimer.skip");
_Static_assert(offsetof(struct armrest_posix_timer, clock) == 8, "PosixTimer.clock");
_Static_assert(offsetof(struct armrest_posix_timer, reserved) == 12, "PosixTimer.reserved");
_Static_assert(offsetof(struct armrest_posix_timer, event) == 16, "PosixTimer.event");
_Static_assert(offsetof(struct armrest_posix_timer, value) == 80, "PosixTimer.value");

/* A pending signal: `rt_sigqueueinfo` (shared) or `rt_tgsigqueueinfo` (private to the thread), sent to itself. */
struct armrest_queued {
    /* Signal number. */
    uint32_t signo;
    /* 1 if private to the thread, 0 if it belongs to the process. */
    uint32_t private;
    /* `siginfo_t`, ARM layout, 128 bytes. */
    uint32_t info[32];
};
_Static_assert(sizeof(struct armrest_queued) == 136, "size of Queued");
_Static_assert(offsetof(struct armrest_queued, signo) == 0, "Queued.signo");
_Static_assert(offsetof(struct armrest_queued, private) == 4, "Queued.private");
_Static_assert(offsetof(struct armrest_queued, info) == 8, "Queued.info");

/* One call by which a thread becomes who it was: ids, groups, capabilities, privileges, filters. The plan decides which calls, in which order, for the rights that the restoring process has. */
struct armrest_cred {
    /* Which call, of `cred`. */
    uint32_t call;
    /* r0 to r4. Addresses lie in the restore-args, behind the tables. */
    uint32_t args[5];
    /* What the call must return; `Cred::ANY` = whatever is no error. */
    uint32_t expect;
};
_Static_assert(sizeof(struct armrest_cred) == 28, "size of Cred");
_Static_assert(offsetof(struct armrest_cred, call) == 0, "Cred.call");
_Static_assert(offsetof(struct armrest_cred, args) == 4, "Cred.args");
_Static_assert(offsetof(struct armrest_cred, expect) == 24, "Cred.expect");

/* `struct prctl_mm_map` as a 32-bit ARM kernel lays it out: exactly 104 bytes (include/uapi/linux/prctl.h). */
struct armrest_mm_map {
    /* Start of the text. */
    uint64_t start_code;
    /* End of the text. */
    uint64_t end_code;
    /* Start of the initialised data. */
    uint64_t start_data;
    /* End of the initialised data. */
    uint64_t end_data;
    /* Start of the heap. */
    uint64_t start_brk;
    /* Current break. */
    uint64_t brk;
    /* Bottom of the main stack. */
    uint64_t start_stack;
    /* Start of the command line. */
    uint64_t arg_start;
    /* End of the command line. */
    uint64_t arg_end;
    /* Start of the environment. */
    uint64_t env_start;
    /* End of the environment. */
    uint64_t env_end;
    /* Address of the saved auxiliary vector (in the restore-args area). */
    uint32_t auxv;
    /* Bytes of it. */
    uint32_t auxv_size;
    /* Descriptor of the executable, or 0xffff_ffff. */
    uint32_t exe_fd;
    /* The kernel's tail padding, zero. */
    uint32_t pad;
};
_Static_assert(sizeof(struct armrest_mm_map) == 104, "size of MmMap");
_Static_assert(offsetof(struct armrest_mm_map, start_code) == 0, "MmMap.start_code");
_Static_assert(offsetof(struct armrest_mm_map, end_code) == 8, "MmMap.end_code");
_Static_assert(offsetof(struct armrest_mm_map, start_data) == 16, "MmMap.start_data");
_Static_assert(offsetof(struct armrest_mm_map, end_data) == 24, "MmMap.end_data");
_Static_assert(offsetof(struct armrest_mm_map, start_brk) == 32, "MmMap.start_brk");
_Static_assert(offsetof(struct armrest_mm_map, brk) == 40, "MmMap.brk");
_Static_assert(offsetof(struct armrest_mm_map, start_stack) == 48, "MmMap.start_stack");
_Static_assert(offsetof(struct armrest_mm_map, arg_start) == 56, "MmMap.arg_start");
_Static_assert(offsetof(struct armrest_mm_map, arg_end) == 64, "MmMap.arg_end");
_Static_assert(offsetof(struct armrest_mm_map, env_start) == 72, "MmMap.env_start");
_Static_assert(offsetof(struct armrest_mm_map, env_end) == 80, "MmMap.env_end");
_Static_assert(offsetof(struct armrest_mm_map, auxv) == 88, "MmMap.auxv");
_Static_assert(offsetof(struct armrest_mm_map, auxv_size) == 92, "MmMap.auxv_size");
_Static_assert(offsetof(struct armrest_mm_map, exe_fd) == 96, "MmMap.exe_fd");
_Static_assert(offsetof(struct armrest_mm_map, pad) == 100, "MmMap.pad");

/* Header of the flat blob, at offset 0.  Layout of the file: page 0 (this header, the exit routine, room for the signal frame), then the rest of the read-execute part, then the read-write part. Both parts are whole pages. Page 0 is the only page that may outlive the restore (`RestoreArgs::keep`). */
struct armrest_blob_header {
    /* `BLOB_MAGIC`. */
    uint32_t magic;
    /* `ABI_VERSION`. */
    uint32_t version;
    /* `size_of::<BlobHeader>()`. */
    uint32_t header_size;
    /* `size_of::<RestoreArgs>()` that this blob understands. */
    uint32_t args_size;
    /* Bytes of the read-execute part, a multiple of the page size, page 0 included. */
    uint32_t rx_size;
    /* Bytes of the read-execute part that are not padding. */
    uint32_t rx_used;
    /* Bytes of the read-write part that follows, a multiple of the page size. The file ends after it. */
    uint32_t rw_size;
    /* Offset of the ARM-state entry point: r0 = address of `RestoreArgs`, r1 = top of the blob's stack; a C function `void entry(uint32_t args, uint32_t stack_top)` that does not return. */
    uint32_t entry_offset;
    /* Offset at which the blob's own threads begin (ARM state), or 0 if it cannot start threads. */
    uint32_t thread_entry_offset;
    /* Offset of the exit routine in page 0 (ARM state). */
    uint32_t exit_offset;
    /* Offset in page 0 where the loader writes the frame: `FRAME_OFFSET`. */
    uint32_t frame_offset;
    /* Bytes of stack that a loader must give the blob's main thread. */
    uint32_t stack_size;
    /* Bytes of arena that a loader must give the blob's heap. */
    uint32_t heap_size;
    /* Bytes of stack that a loader must give each further thread. */
    uint32_t thread_stack_size;
    /* Reserved, zero. */
    uint32_t reserved[2];
};
_Static_assert(sizeof(struct armrest_blob_header) == 64, "size of BlobHeader");
_Static_assert(offsetof(struct armrest_blob_header, magic) == 0, "BlobHeader.magic");
_Static_assert(offsetof(struct armrest_blob_header, version) == 4, "BlobHeader.version");
_Static_assert(offsetof(struct armrest_blob_header, header_size) == 8, "BlobHeader.header_size");
_Static_assert(offsetof(struct armrest_blob_header, args_size) == 12, "BlobHeader.args_size");
_Static_assert(offsetof(struct armrest_blob_header, rx_size) == 16, "BlobHeader.rx_size");
_Static_assert(offsetof(struct armrest_blob_header, rx_used) == 20, "BlobHeader.rx_used");
_Static_assert(offsetof(struct armrest_blob_header, rw_size) == 24, "BlobHeader.rw_size");
_Static_assert(offsetof(struct armrest_blob_header, entry_offset) == 28, "BlobHeader.entry_offset");
_Static_assert(offsetof(struct armrest_blob_header, thread_entry_offset) == 32, "BlobHeader.thread_entry_offset");
_Static_assert(offsetof(struct armrest_blob_header, exit_offset) == 36, "BlobHeader.exit_offset");
_Static_assert(offsetof(struct armrest_blob_header, frame_offset) == 40, "BlobHeader.frame_offset");
_Static_assert(offsetof(struct armrest_blob_header, stack_size) == 44, "BlobHeader.stack_size");
_Static_assert(offsetof(struct armrest_blob_header, heap_size) == 48, "BlobHeader.heap_size");
_Static_assert(offsetof(struct armrest_blob_header, thread_stack_size) == 52, "BlobHeader.thread_stack_size");
_Static_assert(offsetof(struct armrest_blob_header, reserved) == 56, "BlobHeader.reserved");

/* The one record that a failing blob writes to the report descriptor before it exits with `Report::EXIT_CODE`. */
struct armrest_report {
    /* `Report::MAGIC`. */
    uint32_t magic;
    /* `ABI_VERSION`. */
    uint32_t version;
    /* A `ReportKind`. */
    uint32_t kind;
    /* A `Step`. */
    uint32_t step;
    /* Index of the object in the plan's list, or `Report::NO_OBJECT`. */
    uint32_t object;
    /* Row in the step's own table. */
    uint32_t row;
    /* Number (r7) of the system call made last: the one that failed if `ReportKind` says so; 0 if none was made. */
    uint32_t syscall;
    /* r0 to r5 of that call. */
    uint32_t args[6];
    /* What the call returned, or what `ReportKind` says. */
    int32_t result;
    /* Which thread (tid), or 0 for the leader. */
    uint32_t tid;
    /* Of which task: the leader's `tid` in the arguments; 0 = they were not read yet. */
    uint32_t pid;
};
_Static_assert(sizeof(struct armrest_report) == 64, "size of Report");
_Static_assert(offsetof(struct armrest_report, magic) == 0, "Report.magic");
_Static_assert(offsetof(struct armrest_report, version) == 4, "Report.version");
_Static_assert(offsetof(struct armrest_report, kind) == 8, "Report.kind");
_Static_assert(offsetof(struct armrest_report, step) == 12, "Report.step");
_Static_assert(offsetof(struct armrest_report, object) == 16, "Report.object");
_Static_assert(offsetof(struct armrest_report, row) == 20, "Report.row");
_Static_assert(offsetof(struct armrest_report, syscall) == 24, "Report.syscall");
_Static_assert(offsetof(struct armrest_report, args) == 28, "Report.args");
_Static_assert(offsetof(struct armrest_report, result) == 52, "Report.result");
_Static_assert(offsetof(struct armrest_report, tid) == 56, "Report.tid");
_Static_assert(offsetof(struct armrest_report, pid) == 60, "Report.pid");

/* The shared page through which the blob shows where it is. Written with plain stores, read by the harness. */
struct armrest_progress {
    /* The `Step` that runs. */
    uint32_t step;
    /* Rows of its table that are done. */
    uint32_t row;
    /* Bytes of page contents read so far. */
    uint64_t filled;
};
_Static_assert(sizeof(struct armrest_progress) == 16, "size of Progress");
_Static_assert(offsetof(struct armrest_progress, step) == 0, "Progress.step");
_Static_assert(offsetof(struct armrest_progress, row) == 4, "Progress.row");
_Static_assert(offsetof(struct armrest_progress, filled) == 8, "Progress.filled");

/* Where a table of records lies in the bootstrap area. */
struct armrest_table {
    /* Address of the first record, aligned to 8. Any value if `count` is 0. */
    uint32_t addr;
    /* Records. */
    uint32_t count;
};
_Static_assert(sizeof(struct armrest_table) == 8, "size of Table");
_Static_assert(offsetof(struct armrest_table, addr) == 0, "Table.addr");
_Static_assert(offsetof(struct armrest_table, count) == 4, "Table.count");

/* A restartable-sequences registration (`rseq`, include/uapi/linux/rseq.h). */
struct armrest_rseq {
    /* Address of `struct rseq`; 0 = none. */
    uint32_t addr;
    /* Bytes registered. */
    uint32_t len;
    /* Signature before abort handlers. */
    uint32_t sig;
};
_Static_assert(sizeof(struct armrest_rseq) == 12, "size of Rseq");
_Static_assert(offsetof(struct armrest_rseq, addr) == 0, "Rseq.addr");
_Static_assert(offsetof(struct armrest_rseq, len) == 4, "Rseq.len");
_Static_assert(offsetof(struct armrest_rseq, sig) == 8, "Rseq.sig");

/* Rows of a table of `RestoreArgs`. */
struct armrest_rows {
    /* Index of the first. */
    uint32_t first;
    /* How many. */
    uint32_t count;
};
_Static_assert(sizeof(struct armrest_rows) == 8, "size of Rows");
_Static_assert(offsetof(struct armrest_rows, first) == 0, "Rows.first");
_Static_assert(offsetof(struct armrest_rows, count) == 4, "Rows.count");

/* `struct clone_args` of Linux 5.5 (include/uapi/linux/sched.h): `clone3` with `set_tid`. */
struct armrest_clone_args {
    /* `CLONE_*`. */
    uint64_t flags;
    /* Not used: pidfd, child_tid, parent_tid, exit_signal. */
    uint64_t unused[4];
    /* Lowest byte of the stack. */
    uint64_t stack;
    /* Bytes of it. */
    uint64_t stack_size;
    /* Not used: tls. */
    uint64_t tls;
    /* Address of the wanted id. */
    uint64_t set_tid;
    /* Ids there: 1. */
    uint64_t set_tid_size;
};
_Static_assert(sizeof(struct armrest_clone_args) == 80, "size of CloneArgs");
_Static_assert(offsetof(struct armrest_clone_args, flags) == 0, "CloneArgs.flags");
_Static_assert(offsetof(struct armrest_clone_args, unused) == 8, "CloneArgs.unused");
_Static_assert(offsetof(struct armrest_clone_args, stack) == 40, "CloneArgs.stack");
_Static_assert(offsetof(struct armrest_clone_args, stack_size) == 48, "CloneArgs.stack_size");
_Static_assert(offsetof(struct armrest_clone_args, tls) == 56, "CloneArgs.tls");
_Static_assert(offsetof(struct armrest_clone_args, set_tid) == 64, "CloneArgs.set_tid");
_Static_assert(offsetof(struct armrest_clone_args, set_tid_size) == 72, "CloneArgs.set_tid_size");

/* What one thread puts back for itself. */
struct armrest_thread_args {
    /* Argument of the `clone3` that makes it; `set_tid` is the address of `tid` below. The leader's is not looked at. */
    struct armrest_clone_args clone;
    /* What is written to `last_pid_fd` before a `clone`: `tid` - 1 in decimal digits after blanks. */
    uint8_t last_pid[12];
    /* Thread id in the checkpoint's pid namespace; the leader's is the pid. */
    uint32_t tid;
    /* Bits of `want`: which of the fields below are applied. */
    uint32_t want;
    /* TPIDRURO, for the ARM private call `set_tls`. */
    uint32_t tls;
    /* Argument of `set_tid_address`. */
    uint32_t clear_tid;
    /* Head of the robust futex list. */
    uint32_t robust_head;
    /* Its size: 12 on ARM. */
    uint32_t robust_len;
    /* Registration to make. */
    struct armrest_rseq rseq;
    /* `PR_SET_NAME`: NUL-terminated. */
    uint8_t comm[16];
    /* Address of the signal frame with which the thread enters the restored program, 8-aligned: anywhere in the area, but the leader's without `exit_frame` in the kept page. */
    uint32_t frame;
    /* Where in the task's own memory the frame is copied to before the thread leaves, 8-aligned; 0 = it is used where it is (but for the leader, a tracer then keeps the area until the thread is out). All threads have one if `RestoreArgs::exit_svc` is set. */
    uint32_t exit_frame;
    /* End of the thread's stack in the area, 8-aligned. The leader's is not looked at: it runs on the blob's stack. */
    uint32_t stack;
    /* `PR_SET_PDEATHSIG` number. */
    uint32_t pdeath;
    /* `sched_setscheduler`: `SCHED_*`, with its flags. */
    uint32_t policy;
    /* Its real-time priority. */
    uint32_t priority;
    /* `setpriority`: nice value. */
    int32_t nice;
    /* Pending signals: rows of `RestoreArgs::queued`. */
    struct armrest_rows queue;
    /* First row of its own in the table of credentials; threads that are alike have the same. */
    uint32_t cred;
    /* Rows that every thread has taken before any of them enters the program. */
    uint32_t creds;
    /* Rows after those: filters, which the thread takes last of all. */
    uint32_t seals;
    /* Reserved, zero. */
    uint32_t reserved[2];
};
_Static_assert(sizeof(struct armrest_thread_args) == 200, "size of ThreadArgs");
_Static_assert(offsetof(struct armrest_thread_args, clone) == 0, "ThreadArgs.clone");
_Static_assert(offsetof(struct armrest_thread_args, last_pid) == 80, "ThreadArgs.last_pid");
_Static_assert(offsetof(struct armrest_thread_args, tid) == 92, "ThreadArgs.tid");
_Static_assert(offsetof(struct armrest_thread_args, want) == 96, "ThreadArgs.want");
_Static_assert(offsetof(struct armrest_thread_args, tls) == 100, "ThreadArgs.tls");
_Static_assert(offsetof(struct armrest_thread_args, clear_tid) == 104, "ThreadArgs.clear_tid");
_Static_assert(offsetof(struct armrest_thread_args, robust_head) == 108, "ThreadArgs.robust_head");
_Static_assert(offsetof(struct armrest_thread_args, robust_len) == 112, "ThreadArgs.robust_len");
_Static_assert(offsetof(struct armrest_thread_args, rseq) == 116, "ThreadArgs.rseq");
_Static_assert(offsetof(struct armrest_thread_args, comm) == 128, "ThreadArgs.comm");
_Static_assert(offsetof(struct armrest_thread_args, frame) == 144, "ThreadArgs.frame");
_Static_assert(offsetof(struct armrest_thread_args, exit_frame) == 148, "ThreadArgs.exit_frame");
_Static_assert(offsetof(struct armrest_thread_args, stack) == 152, "ThreadArgs.stack");
_Static_assert(offsetof(struct armrest_thread_args, pdeath) == 156, "ThreadArgs.pdeath");
_Static_assert(offsetof(struct armrest_thread_args, policy) == 160, "ThreadArgs.policy");
_Static_assert(offsetof(struct armrest_thread_args, priority) == 164, "ThreadArgs.priority");
_Static_assert(offsetof(struct armrest_thread_args, nice) == 168, "ThreadArgs.nice");
_Static_assert(offsetof(struct armrest_thread_args, queue) == 172, "ThreadArgs.queue");
_Static_assert(offsetof(struct armrest_thread_args, cred) == 180, "ThreadArgs.cred");
_Static_assert(offsetof(struct armrest_thread_args, creds) == 184, "ThreadArgs.creds");
_Static_assert(offsetof(struct armrest_thread_args, seals) == 188, "ThreadArgs.seals");
_Static_assert(offsetof(struct armrest_thread_args, reserved) == 192, "ThreadArgs.reserved");

/* The restore arguments: one structure at the start of the tables, all of it inside `RestoreArgs::area`. */
struct armrest_restore_args {
    /* `ARGS_MAGIC`. */
    uint32_t magic;
    /* `ABI_VERSION`. */
    uint32_t version;
    /* `size_of::<RestoreArgs>()`. */
    uint32_t size;
    /* Bits of `want` that concern the process. */
    uint32_t want;
    /* The whole bootstrap area: blob, stack, heap, these arguments, progress page. Survives the unmap step. */
    struct armrest_range area;
    /* The part of it that stays mapped when the task runs: the blob's first page, at the start of the area. */
    struct armrest_range keep;
    /* The arena of the heap, inside the area. */
    struct armrest_range heap;
    /* Address of the `Progress` page. */
    uint32_t progress;
    /* Descriptor that takes a `Report`; the exit routine closes it as its last act. */
    int32_t report_fd;
    /* `Range`s to unmap: everything that is neither the area, nor parked, nor the kernel's own. */
    struct armrest_table unmaps;
    /* `Move`s of what is parked before the unmap. */
    struct armrest_table parks;
    /* `Attach`es. */
    struct armrest_table attaches;
    /* `Move`s out of scratch attachments. */
    struct armrest_table pieces;
    /* `Range`s of attachments to unmap. */
    struct armrest_table holes;
    /* `Remove`s. */
    struct armrest_table removes;
    /* `Map`s. */
    struct armrest_table maps;
    /* `Iovec`s. */
    struct armrest_table iovecs;
    /* `Batch`es. */
    struct armrest_table batches;
    /* `Protect`s. */
    struct armrest_table protects;
    /* `Flush`es. */
    struct armrest_table flushes;
    /* `Move`s of parked areas to the checkpoint's addresses. */
    struct armrest_table unparks;
    /* `Advise`s. */
    struct armrest_table advises;
    /* `Lock`s. */
    struct armrest_table locks;
    /* Descriptors (u32) to close before the task is entered: pages files and files of mappings. */
    struct armrest_table closes;
    /* `ThreadArgs`, the leader first. */
    struct armrest_table threads;
    /* `Timer`s. */
    struct armrest_table timers;
    /* `PosixTimer`s, by ascending number. */
    struct armrest_table posix_timers;
    /* `Queued`, of all threads. */
    struct armrest_table queued;
    /* `Cred`s of all threads. */
    struct armrest_table creds;
    /* The old program's registration, taken back in the detach step. */
    struct armrest_rseq old_rseq;
    /* `PR_SET_DUMPABLE` value. */
    uint32_t dumpable;
    /* The kernel's idea of the address space. */
    struct armrest_mm_map mm;
    /* Address of the `svc` behind `mov r7, #119` in the kernel's sigpage, where it lies for the task; 0 = keep a page. With it the exit routine leaves nothing of ours behind: see arch/arm/exit.S. */
    uint32_t exit_svc;
    /* Descriptor of /proc/sys/kernel/ns_last_pid, or -1. */
    int32_t last_pid_fd;
    /* Record locks: rows of `RestoreArgs::creds` that the leader takes once the helper descriptors are closed. */
    struct armrest_rows records;
};
_Static_assert(sizeof(struct armrest_restore_args) == 344, "size of RestoreArgs");
_Static_assert(offsetof(struct armrest_restore_args, magic) == 0, "RestoreArgs.magic");
_Static_assert(offsetof(struct armrest_restore_args, version) == 4, "RestoreArgs.version");
_Static_assert(offsetof(struct armrest_restore_args, size) == 8, "RestoreArgs.size");
_Static_assert(offsetof(struct armrest_restore_args, want) == 12, "RestoreArgs.want");
_Static_assert(offsetof(struct armrest_restore_args, area) == 16, "RestoreArgs.area");
_Static_assert(offsetof(struct armrest_restore_args, keep) == 24, "RestoreArgs.keep");
_Static_assert(offsetof(struct armrest_restore_args, heap) == 32, "RestoreArgs.heap");
_Static_assert(offsetof(struct armrest_restore_args, progress) == 40, "RestoreArgs.progress");
_Static_assert(offsetof(struct armrest_restore_args, report_fd) == 44, "RestoreArgs.report_fd");
_Static_assert(offsetof(struct armrest_restore_args, unmaps) == 48, "RestoreArgs.unmaps");
_Static_assert(offsetof(struct armrest_restore_args, parks) == 56, "RestoreArgs.parks");
_Static_assert(offsetof(struct armrest_restore_args, attaches) == 64, "RestoreArgs.attaches");
_Static_assert(offsetof(struct armrest_restore_args, pieces) == 72, "RestoreArgs.pieces");
_Static_assert(offsetof(struct armrest_restore_args, holes) == 80, "RestoreArgs.holes");
_Static_assert(offsetof(struct armrest_restore_args, removes) == 88, "RestoreArgs.removes");
_Static_assert(offsetof(struct armrest_restore_args, maps) == 96, "RestoreArgs.maps");
_Static_assert(offsetof(struct armrest_restore_args, iovecs) == 104, "RestoreArgs.iovecs");
_Static_assert(offsetof(struct armrest_restore_args, batches) == 112, "RestoreArgs.batches");
_Static_assert(offsetof(struct armrest_restore_args, protects) == 120, "RestoreArgs.protects");
_Static_assert(offsetof(struct armrest_restore_args, flushes) == 128, "RestoreArgs.flushes");
_Static_assert(offsetof(struct armrest_restore_args, unparks) == 136, "RestoreArgs.unparks");
_Static_assert(offsetof(struct armrest_restore_args, advises) == 144, "RestoreArgs.advises");
_Static_assert(offsetof(struct armrest_restore_args, locks) == 152, "RestoreArgs.locks");
_Static_assert(offsetof(struct armrest_restore_args, closes) == 160, "RestoreArgs.closes");
_Static_assert(offsetof(struct armrest_restore_args, threads) == 168, "RestoreArgs.threads");
_Static_assert(offsetof(struct armrest_restore_args, timers) == 176, "RestoreArgs.timers");
_Static_assert(offsetof(struct armrest_restore_args, posix_timers) == 184, "RestoreArgs.posix_timers");
_Static_assert(offsetof(struct armrest_restore_args, queued) == 192, "RestoreArgs.queued");
_Static_assert(offsetof(struct armrest_restore_args, creds) == 200, "RestoreArgs.creds");
_Static_assert(offsetof(struct armrest_restore_args, old_rseq) == 208, "RestoreArgs.old_rseq");
_Static_assert(offsetof(struct armrest_restore_args, dumpable) == 220, "RestoreArgs.dumpable");
_Static_assert(offsetof(struct armrest_restore_args, mm) == 224, "RestoreArgs.mm");
_Static_assert(offsetof(struct armrest_restore_args, exit_svc) == 328, "RestoreArgs.exit_svc");
_Static_assert(offsetof(struct armrest_restore_args, last_pid_fd) == 332, "RestoreArgs.last_pid_fd");
_Static_assert(offsetof(struct armrest_restore_args, records) == 336, "RestoreArgs.records");

#endif
