/* A loader of armrest.bin in C: makes a tiny task out of nothing and has the blob become it. See docs/abi.md.
 *
 *   embed BLOB ADDRESS      load BLOB at ADDRESS (hexadecimal); ends with the task's exit status
 *
 * The task is one page of code, filled from a file, which writes "restored" and ends with 42. */
#define _GNU_SOURCE
#include "armrest.h"
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE ARMREST_PAGE_SIZE
#define TASK 0x30000000u /* where the task lives */
#define PTR(address) ((void *)(uintptr_t)(address))

static const uint32_t code[] = {
    0xe3a00001, 0xe28f1014, 0xe3a02009, 0xe3a07004, 0xef000000, /* write(1, text, 9) */
    0xe3a0002a, 0xe3a070f8, 0xef000000,                         /* exit_group(42) */
    0x74736572, 0x6465726f, 0x0000000a,                         /* "restored\n" */
};

/* What the area holds behind the blob's own two parts, stack and heap: the arguments with their tables. */
struct tables {
    struct armrest_restore_args args;
    struct armrest_range unmaps[2];
    struct armrest_map map;
    struct armrest_iovec iovec;
    struct armrest_batch batch;
    struct armrest_protect protect;
    struct armrest_thread_args thread __attribute__((aligned(8))); /* every table is */
    uint32_t close __attribute__((aligned(8)));
};
#define TABLE(t, field) ((struct armrest_table){(uint32_t)(uintptr_t)&(t)->field, 1})

/* The registers with which the task starts: what a kernel pushes before a signal handler. */
struct frame { siginfo_t info; ucontext_t context; uint32_t retcode[4]; };
_Static_assert(sizeof(struct frame) == ARMREST_FRAME_SIZE, "frame");

static uint32_t end_of_old_memory(void) { /* but for the kernel's [vectors] */
    unsigned long start, end, top = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    if (!maps) err(1, "maps");
    while (fscanf(maps, "%lx-%lx%*[^\n]", &start, &end) == 2) if (start < 0xffff0000 && end > top) top = end;
    fclose(maps);
    return top;
}

static struct armrest_range map_area(uint32_t at, uint32_t len) {
    void *p = mmap(PTR(at), len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (p != PTR(at)) errx(1, "no room at %x", at); /* qemu-user ignores NOREPLACE, but not the address */
    return (struct armrest_range){at, at + len};
}

int main(int argc, char **argv) {
    struct armrest_blob_header h;
    int blob = argc == 3 ? open(argv[1], O_RDONLY) : -1;
    if (blob < 0 || read(blob, &h, sizeof h) != sizeof h) errx(1, "usage: embed BLOB ADDRESS");
    if (h.magic != ARMREST_BLOB_MAGIC || h.version != ARMREST_ABI_VERSION || h.args_size != sizeof(struct armrest_restore_args))
        errx(1, "not a blob of ABI version %u", ARMREST_ABI_VERSION);

    /* 1. The area: blob (rx, rw), stack, heap, tables, progress page. */
    uint32_t size = h.rx_size + h.rw_size, stack_top, heap, tables, progress;
    struct armrest_range area = map_area(strtoul(argv[2], 0, 16), size + h.stack_size + h.heap_size + 2 * PAGE);
    stack_top = area.start + size + h.stack_size, heap = stack_top, tables = heap + h.heap_size, progress = tables + PAGE;
    if (pread(blob, PTR(area.start), size, 0) != (ssize_t)size) err(1, "%s", argv[1]);

    /* 2. The task: its contents in a file, and how its memory is to be made. */
    int report[2], pages = memfd_create("pages", 0);
    if (pages < 0 || write(pages, code, sizeof code) != sizeof code || ftruncate(pages, PAGE) || pipe(report)) err(1, "files");
    struct tables *t = PTR(tables);
    t->unmaps[0] = (struct armrest_range){0, area.start};
    t->unmaps[1] = (struct armrest_range){area.end, end_of_old_memory()};
    t->map = (struct armrest_map){TASK, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0, 0};
    t->iovec = (struct armrest_iovec){TASK, PAGE}; /* contents come in whole pages */
    t->batch = (struct armrest_batch){.offset = 0, .fd = pages, .first = 0, .count = 1, .len = PAGE};
    t->protect = (struct armrest_protect){TASK, PAGE, PROT_READ | PROT_EXEC, 0};
    t->close = pages;
    t->thread = (struct armrest_thread_args){.frame = area.start + h.frame_offset, .comm = "embedded"};
    t->args = (struct armrest_restore_args){
        .magic = ARMREST_ARGS_MAGIC, .version = ARMREST_ABI_VERSION, .size = sizeof t->args,
        .area = area, .keep = {area.start, area.start + PAGE}, .heap = {heap, tables},
        .progress = progress, .report_fd = report[1],
        .unmaps = TABLE(t, unmaps), .maps = TABLE(t, map), .iovecs = TABLE(t, iovec), .batches = TABLE(t, batch),
        .protects = TABLE(t, protect), .closes = TABLE(t, close), .threads = TABLE(t, thread),
    };
    t->args.unmaps.count = t->unmaps[1].start < t->unmaps[1].end ? 2 : 1;

    /* What this program's libc has registered must be taken back, where the kernel has it. */
    if (__rseq_size) {
        t->args.want |= ARMREST_WANT_OLD_RSEQ;
        t->args.old_rseq = (struct armrest_rseq){(uint32_t)(uintptr_t)__builtin_thread_pointer() + __rseq_offset, 32, RSEQ_SIG};
    }
    if (syscall(SYS_set_robust_list, 0, 0) == 0 || errno != ENOSYS) t->args.want |= ARMREST_WANT_OLD_ROBUST;

    /* 3. The frame, in the page that stays. */
    struct frame *f = PTR(t->thread.frame);
    f->context.uc_stack.ss_flags = SS_DISABLE;
    f->context.uc_mcontext.arm_pc = TASK;
    f->context.uc_mcontext.arm_sp = TASK + PAGE;
    f->context.uc_mcontext.arm_cpsr = 0x10; /* user mode, ARM state */
    f->context.uc_regspace[0] = 0x56465001; /* VFP_MAGIC, and the size of its record */
    f->context.uc_regspace[1] = 288;

    /* 4. Rights, a process, and in. */
    __builtin___clear_cache(PTR(area.start), PTR(area.start + h.rx_size));
    if (mprotect(PTR(area.start), h.rx_size, PROT_READ | PROT_EXEC) || mprotect(t, PAGE, PROT_READ)) err(1, "mprotect");
    pid_t pid = fork();
    if (pid < 0) err(1, "fork");
    if (pid == 0) {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, 0);
        close(report[0]);
        close(blob);
        ((void (*)(uint32_t, uint32_t))PTR(area.start + h.entry_offset))(tables, stack_top);
    }

    /* 5. An end of file without a report: the task runs. */
    struct armrest_report r;
    int status;
    close(report[1]);
    if (read(report[0], &r, sizeof r) != 0)
        errx(1, "step %u, row %u: kind %u, call %u, result %d", r.step, r.row, r.kind, r.syscall, r.result);
    if (waitpid(pid, &status, 0) != pid) err(1, "wait");
    if (WIFSIGNALED(status)) errx(1, "the task was ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}
