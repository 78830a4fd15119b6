/* A qemu-user plugin: what a process does between the first instruction that it runs inside a range of addresses (the
 * bootstrap area) and the first that it runs outside again (the restored program's).
 *
 *   qemu-arm -plugin libcount.so,area=START-END,stack=START-END,out=FILE program ...      (hexadecimal, END excluded)
 *
 * Appends one line of "name value" pairs to FILE when the range is left. The file is opened only then, by its absolute
 * path: the process closes every descriptor that it does not know, the emulator's as well.
 *
 * Debian's qemu-user ships no qemu-plugin.h. These few declarations are written by hand from the documented interface
 * (docs/devel/tcg-plugins.rst), version 1; qemu refuses a plugin of another version. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { CB_NO_REGS = 0 };
enum { MEM_READ_WRITE = 3 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*cb)(plugin_id, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, void (*cb)(unsigned, void *), int flags,
                                            void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
                                      void (*cb)(unsigned, uint32_t, uint64_t, void *), int flags, int which,
                                      void *data);
_Bool qemu_plugin_mem_is_store(uint32_t info);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id id,
                                          void (*cb)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                                     uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));

EXPORT int qemu_plugin_version = 1;

struct range {
    uint64_t start, end;
};
static struct range area, stack;
static char out[4096];
/* Not yet in the area, in it, done. */
static enum { BEFORE, INSIDE, AFTER } state;
static uint64_t instructions, svcs, loads_outside, stores_outside, lowest;
static char *order;
static size_t order_len, order_room;

static int in(struct range r, uint64_t addr)
{
    return addr >= r.start && addr < r.end;
}

static void write_result(void)
{
    FILE *f = fopen(out, "a");
    if (!f)
        abort();
    fprintf(f,
            "instructions %llu svcs %llu loads_outside %llu stores_outside %llu stack_used %llu "
            "order%s\n",
            (unsigned long long)instructions, (unsigned long long)svcs, (unsigned long long)loads_outside,
            (unsigned long long)stores_outside, (unsigned long long)(stack.end - lowest), order ? order : "");
    if (fclose(f))
        abort();
}

static void on_instruction(unsigned cpu, void *addr)
{
    (void)cpu;
    if (in(area, (uintptr_t)addr)) {
        if (state == BEFORE) {
            state = INSIDE;
            lowest = stack.end;
        }
        if (state == INSIDE)
            instructions++;
    } else if (state == INSIDE) {
        state = AFTER;
        write_result();
    }
}

/* qemu answers the ARM private calls (set_tls) itself and shows them to no call-back: so the instruction is counted. */
static void on_svc(unsigned cpu, void *data)
{
    (void)cpu;
    (void)data;
    if (state == INSIDE)
        svcs++;
}

static int is_svc(const struct qemu_plugin_insn *insn)
{
    static const unsigned char svc_0[4] = {0x00, 0x00, 0x00, 0xef}; /* little-endian, ARM state, always */
    return qemu_plugin_insn_size(insn) == sizeof svc_0 && !memcmp(qemu_plugin_insn_data(insn), svc_0, sizeof svc_0);
}

static void on_memory(unsigned cpu, uint32_t info, uint64_t addr, void *data)
{
    (void)cpu;
    (void)data;
    if (state != INSIDE)
        return;
    int store = qemu_plugin_mem_is_store(info);
    if (in(stack, addr)) {
        if (addr < lowest)
            lowest = addr;
    } else if (!in(area, addr)) {
        if (store)
            stores_outside++;
        else
            loads_outside++;
    }
}

static void on_call(plugin_id id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                    uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)cpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (state != INSIDE)
        return;
    if (order_room - order_len < 32) {
        order_room = order_room ? 2 * order_room : 4096;
        order = realloc(order, order_room);
        if (!order)
            abort();
    }
    order_len += (size_t)sprintf(order + order_len, " %lld", (long long)number);
}

static void on_translation(plugin_id id, struct qemu_plugin_tb *tb)
{
    (void)id;
    /* Every instruction outside asks only "were we inside?"; one a block is enough, since a jump starts a block. */
    size_t n = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t addr = qemu_plugin_insn_vaddr(insn);
        if (in(area, addr)) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_instruction, CB_NO_REGS, (void *)(uintptr_t)addr);
            if (is_svc(insn))
                qemu_plugin_register_vcpu_insn_exec_cb(insn, on_svc, CB_NO_REGS, NULL);
            qemu_plugin_register_vcpu_mem_cb(insn, on_memory, CB_NO_REGS, MEM_READ_WRITE, NULL);
        } else if (i == 0) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_instruction, CB_NO_REGS, (void *)(uintptr_t)addr);
        }
    }
}

static int parse_range(const char *text, struct range *r)
{
    char *rest;
    r->start = strtoull(text, &rest, 16);
    if (*rest != '-')
        return 0;
    r->end = strtoull(rest + 1, &rest, 16);
    return !*rest && r->start < r->end;
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "area=", 5) && parse_range(argv[i] + 5, &area))
            continue;
        if (!strncmp(argv[i], "stack=", 6) && parse_range(argv[i] + 6, &stack))
            continue;
        if (!strncmp(argv[i], "out=", 4) && strlen(argv[i] + 4) < sizeof out) {
            strcpy(out, argv[i] + 4);
            continue;
        }
        fprintf(stderr, "count: bad argument %s\n", argv[i]);
        return -1;
    }
    if (!area.end || !stack.end || !out[0]) {
        fprintf(stderr, "count: needs area=, stack= and out=\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_call);
    return 0;
}
