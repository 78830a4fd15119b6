// Makes calls of a restore fail, or kills the harness between them, one run for each, and looks at what is left.
//
//   fault MODE SAMPLE[+HOW] [PER [STEP or NUMBER]] -- armrest restore …
//
// blob     each call of the blob fails in turn (at most PER for each step, call, and leader or other thread); every step
//          that makes calls must have failed once, and then nobody ran. All goes well where waits by futex or poll fail,
//          which are repeated, wake-ups, which waits do not depend on, and the last close. STEP: of this step alone.
//          Left alone: the call by which a thread counts itself out as it leaves. It was tried before, on the same word.
// child    each call that the child makes before it enters the blob fails in turn; all calls of that NUMBER alone
// harness  calls of the harness itself fail in turn: about PER of them, spread evenly; of that NUMBER alone,
//          about PER of each kind (which of those of futex must not matter)
// kill     the harness is killed while the child is at the first call of each step, and at calls of the child before
// killself the harness is killed before and after calls of its own: about PER of them, and those that make things. STEP
//          "release": the calls by which it lets go of who it traces, about PER of each kind. NUMBER: those alone, and none
//          of them may be made when tasks run already
// term     the harness gets SIGTERM or SIGINT while the child is at the first call of each step
// childkill  the child is killed before calls of the harness: about PER of them
// childstop  the child gets SIGSTOP before calls of the harness, and every other time SIGCONT a moment later
//          (both: about PER of each kind of that NUMBER alone)
// taskkill  each process is killed at calls of its own: about PER before it enters the blob, and the first of each step
//
// A tree of processes: calls are told by the process too, whose pids are the checkpoint's; after a kill of the harness all
// tasks of it live or none.
//
// Where the harness itself traces the child (-s, --finish=ptrace) the child is not traced here: the last four modes but
// term, `harness`, and `blob`, work then. For `blob` a seccomp filter with a listener, which all inherit, shows each call
// of the blob and makes it fail.
//
// The calls are counted in a first run, whose task ends before its first instruction. The tracer follows forks; the
// harness itself runs at full speed unless its own calls are meant. ARM only: registers by PTRACE_GETREGS, the number
// of a call by PTRACE_SET_SYSCALL.
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PTRACE_SET_SYSCALL
#define PTRACE_SET_SYSCALL 23
#endif
enum { MANY = 4096, TEXT = 1 << 20, STEPS = 18 };

// What the error of a step must say, and its name here. The numbers are those of the ABI.
static const char *const STEP[STEPS] = {
    "start", "verify", "detach", "park", "unmap", "shm", "map", "fill", "protect",
    "unpark", "advise", "mm", "threads", "signals", "timers", "creds", "enter", "exit",
};
static const char *const WHILE[STEPS] = {
    "entering the blob", "checking the restore arguments", "taking back the old program's registrations",
    "parking what the kernel cannot recreate", "unmapping the old address space", "attaching SysV shared memory",
    "mapping memory", "reading memory contents", "setting the final protections",
    "putting parked mappings in place", "applying madvise and mlock", "setting the kernel's mm fields",
    "making threads and registering what is theirs", "queueing pending signals", "arming timers", "setting credentials",
    "entering the restored program", "",
};
static const struct { int e; const char *name; } ERRNO[] = {
    { ENOMEM, "ENOMEM" }, { EINVAL, "EINVAL" }, { EPERM, "EPERM" }, { EFAULT, "EFAULT" }, { EAGAIN, "EAGAIN" },
};
// Calls of the blob: number, name, and what its decoded arguments contain.
static const struct { unsigned nr; const char *name, *flag; } CALL[] = {
    { 6, "close", "fd " }, { 91, "munmap", "0x" }, { 104, "setitimer", "ITIMER_" }, { 125, "mprotect", "PROT_" },
    { 150, "mlock", "0x" }, { 163, "mremap", "MREMAP_MAYMOVE|MREMAP_FIXED" }, { 172, "prctl", "PR_" },
    { 178, "rt_sigqueueinfo", "signal " }, { 186, "sigaltstack", "SS_DISABLE" }, { 192, "mmap2", "MAP_FIXED" },
    { 220, "madvise", "MADV_" }, { 256, "set_tid_address", "0x" }, { 305, "shmat", "id " },
    { 308, "shmctl", "IPC_RMID" }, { 338, "set_robust_list", "0x" }, { 361, "preadv", "bytes to " },
    { 363, "rt_tgsigqueueinfo", "signal " }, { 398, "rseq", "signature" }, { 0xf0002, "cacheflush", "0x" },
    { 0xf0005, "set_tls", "0x" }, { 20, "getpid", "" }, { 97, "setpriority", "PRIO_PROCESS" }, { 120, "clone", "CLONE_VM" },
    { 156, "sched_setscheduler", "SCHED_" }, { 181, "pwrite64", "fd " }, { 240, "futex", "" },
    { 257, "timer_create", "SIGEV_" }, { 258, "timer_settime", "timer " }, { 261, "timer_delete", "timer " },
    { 383, "seccomp", "SECCOMP_SET_MODE_" }, { 409, "timer_settime64", "timer " }, { 435, "clone3", "CLONE_VM" },
};

// `op`: which futex operation or prctl option. `thread`: not the leader.
struct call { unsigned nr, op, step, row; bool thread; pid_t tid, pid; long arg[6]; };
enum what { NOTHING, FAIL, KILL_HARNESS, SIGNAL_HARNESS, KILL_SELF, SIGNAL_CHILD, KILL_TASK };
enum where { IN_BLOB, IN_CHILD, IN_HARNESS };

// One run: what to do, at which call of which part; what came of it.
static struct {
    enum what what;
    enum where where;
    int at;          // index of the call; -1: none. In the blob, where the number of unmaps differs from run to run:
    unsigned step;   // the at-th call of this step
    unsigned nr, op; // with this number, if not 0, and operation
    bool thread;     // of a thread that is not the leader
    pid_t pid;       // of this process, if not 0; in the child at is then an index of its own calls
    int error;       // for FAIL
    int sign;        // for SIGNAL_HARNESS, SIGNAL_CHILD
    bool after;      // for KILL_SELF: when the call is done
    bool end_task;   // end the task when it would be entered
    // Results.
    int status;      // exit status of the harness, 128 + signal
    bool acted, entered;
    int seen;
    pid_t task, child;
    int tasks, procs;
    pid_t in_blob[64], proc[64]; // processes that came into the blob, and all that were to
    char *said;
    struct call failed; // the call that was made to fail: addresses differ from run to run
    int calls[3];
    struct call call[3][MANY];
} run;

static char **command;
static const char *sample, *label, *only;
static int failures, expected;
// The tasks of the checkpoint that live, by pid.
static pid_t member[64];
enum { PTRACE = 26 };

static void die(const char *what) { perror(what); exit(125); }

static void bad(const char *format, ...) {
    va_list v;
    va_start(v, format);
    printf("FAIL %s: ", label);
    vprintf(format, v);
    va_end(v);
    printf("\n");
    failures++;
}

// ---- what is there: processes, SysV objects, mounts, files ----

static char *grow(char *to, const char *format, ...) {
    va_list v;
    va_start(v, format);
    to += vsprintf(to, format, v);
    va_end(v);
    return to;
}

static char *files(char *to, const char *dir) {
    DIR *d = opendir(dir);
    if (!d) return to;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char path[4096];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (lstat(path, &st)) continue;
        if (S_ISDIR(st.st_mode)) {
            to = grow(to, "dir %s %o\n", path, st.st_mode);
            to = files(to, path);
        } else {
            to = grow(to, "file %s %o %lld\n", path, st.st_mode, (long long)st.st_size);
        }
    }
    closedir(d);
    return to;
}

static char *lines(char *to, const char *what, const char *path, int words) {
    FILE *f = fopen(path, "r");
    char line[4096];
    if (!f) return to;
    while (fgets(line, sizeof line, f)) {
        char *end = line, *word = strtok_r(line, " \t\n", &end);
        to = grow(to, "%s", what);
        for (int i = 0; word && (words == 0 || i < words); i++, word = strtok_r(NULL, " \t\n", &end))
            to = grow(to, " %s", word);
        to = grow(to, "\n");
    }
    fclose(f);
    return to;
}

static bool proc_stat(int pid, char *state, int *parent, unsigned long long *start) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f) return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *rest = strrchr(text, ')');
    return rest && sscanf(rest + 2, "%c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                          state, parent, start) == 3;
}

static char *processes(char *to) {
    DIR *d = opendir("/proc");
    if (!d) die("/proc");
    for (struct dirent *e; (e = readdir(d));) {
        int pid = atoi(e->d_name), parent;
        char state;
        unsigned long long start;
        if (pid <= 0 || pid == getpid() || !proc_stat(pid, &state, &parent, &start)) continue;
        // Threads of the kernel come and go by themselves; init will reap what is dead.
        if (pid == 2 || parent == 2 || (parent == 1 && state == 'Z')) continue;
        to = grow(to, "process %d started %llu\n", pid, start);
    }
    closedir(d);
    return to;
}

static int order(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

// Everything, in sorted lines.
static char *snapshot(void) {
    static char raw[TEXT];
    static char *line[1 << 14];
    char *to = processes(raw);
    to = lines(to, "shm", "/proc/sysvipc/shm", 2);
    to = lines(to, "sem", "/proc/sysvipc/sem", 2);
    to = lines(to, "msg", "/proc/sysvipc/msg", 2);
    to = lines(to, "mount", "/proc/self/mountinfo", 0);
    to = lines(to, "next", "/proc/sys/kernel/shm_next_id", 1);
    to = lines(to, "next", "/proc/sys/kernel/sem_next_id", 1);
    to = lines(to, "next", "/proc/sys/kernel/msg_next_id", 1);
    static const char *const places[] = { "/tmp", "/run", "/var", "/samples/run", "/dev/shm", "/root" };
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) to = files(to, places[i]);
    int n = 0;
    for (char *l = strtok(raw, "\n"); l; l = strtok(NULL, "\n")) line[n++] = l;
    qsort(line, n, sizeof *line, order);
    char *out = malloc(TEXT), *at = out;
    for (int i = 0; i < n; i++) at = grow(at, "%s\n", line[i]);
    *at = 0;
    return out;
}

// Lines of one that are not in the other, into `out`.
static int differences(const char *before, const char *after, char *out, size_t room) {
    int n = 0;
    size_t used = 0;
    for (int way = 0; way < 2; way++) {
        const char *from = way ? before : after, *in = way ? after : before;
        for (const char *l = from; *l;) {
            size_t len = strcspn(l, "\n") + 1;
            const char *hit = memmem(in, strlen(in), l, len);
            while (hit && hit != in && hit[-1] != '\n') hit = memmem(hit + 1, strlen(hit + 1), l, len);
            if (!hit) {
                n++;
                if (used + len + 4 < room) used += sprintf(out + used, "  %c %.*s", way ? '-' : '+', (int)len, l);
            }
            l += len;
        }
    }
    out[used] = 0;
    return n;
}

// ---- the tracer ----

struct regs { uint32_t r[18]; };

static bool get(pid_t pid, struct regs *r) { return ptrace(PTRACE_GETREGS, pid, 0, r) == 0; }

static bool peek(pid_t pid, uint32_t addr, void *to, size_t n) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = pread64(fd, to, n, (off64_t)addr) == (ssize_t)n;
    close(fd);
    return ok;
}

// The blob's code and its progress page, for each task; all are inherited.
static struct area { uint32_t start, end, progress; } area[64];
static int areas;

static void find_areas(pid_t pid) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *f = fopen(path, "r");
    uint32_t last = 0, magic;
    areas = 0;
    struct area now = { 0 };
    while (f && areas < 64 && fgets(line, sizeof line, f)) {
        uint32_t start, end;
        char rights[5];
        if (sscanf(line, "%x-%x %4s", &start, &end, rights) != 3) continue;
        if (!now.start && !strcmp(rights, "r-xp") && peek(pid, start, &magic, 4) && !memcmp(&magic, "ARMB", 4)) {
            now.start = start;
            now.end = last = end;
        } else if (now.start && start == last) {
            last = end;
            if (rights[3] == 's') {
                now.progress = start;
                area[areas++] = now;
                now.start = 0;
            }
        }
    }
    if (f) fclose(f);
}

enum { HARNESS = 1, INIT, CHILD };
static struct traced { pid_t pid, parent, proc; int kind, calls; bool in_blob, fail, held, left, thread; const struct area *area; } traced[64];
// `untraced`: the child is not traced here. `traced_by_it`: but by the harness. `held`: it is left stopped.
// `listens`: calls of the blob come by a seccomp listener. `stays`: its first page, so that it makes the last munmap itself.
static bool namespaces, own_calls, untraced, traced_by_it, held, listens, stays;

static struct traced *find(pid_t pid) {
    for (int i = 0; i < 64; i++) if (traced[i].pid == pid) return &traced[i];
    return NULL;
}

static struct traced *add(pid_t pid) {
    struct traced *t = find(pid);
    if (!t) {
        t = find(0);
        if (!t) die("too many processes");
        memset(t, 0, sizeof *t);
        t->pid = pid;
    }
    return t;
}

static void go_on(struct traced *t, int sign) {
    bool calls = t->kind == CHILD || (t->kind == HARNESS && own_calls);
    ptrace(calls ? PTRACE_SYSCALL : PTRACE_CONT, t->pid, 0, sign);
}

static void note(enum where w, const struct regs *r, const struct traced *t, bool blob) {
    pid_t pid = t->pid;
    // A harness that waits for 20 seconds looks more often than that: the last is as good as those before.
    if (run.calls[w] >= MANY) run.calls[w] = MANY - 1;
    struct call *c = &run.call[w][run.calls[w]];
    c->nr = r->r[7];
    for (int i = 0; i < 6; i++) c->arg[i] = i == 0 ? r->r[17] : r->r[i];
    uint32_t progress[2] = { 17, 0 };
    if (blob && !peek(pid, t->area->progress, progress, sizeof progress)) progress[0] = 17;
    // The exit routine lies in the first page; the kernel's sigpage is outside.
    uint32_t pc = r->r[15];
    if (blob && (pc < t->area->start + 4096 || pc >= t->area->end)) progress[0] = 17;
    c->step = blob ? progress[0] : 0;
    c->row = progress[1];
    c->op = c->nr == 240 ? c->arg[1] & 0x7f : c->nr == 172 || c->nr == PTRACE ? c->arg[0] : 0;
    c->thread = t->thread;
    c->tid = pid;
    c->pid = t->proc;
    if (blob && t->thread && c->step != 17) {
        // The page shows how far the leader is. What a thread registers of its own is one step, the rest another.
        static const unsigned own[] = { 20, 97, 156, 240, 256, 338, 363, 398, 0xf0005 };
        c->step = c->nr == 172 && c->op == 15 ? 12 : 15;
        for (unsigned i = 0; i < sizeof own / sizeof *own; i++) if (c->nr == own[i]) c->step = 12;
    }
}

static bool same_kind(const struct call *a, const struct call *b) {
    return a->step == b->step && a->nr == b->nr && a->op == b->op && a->thread == b->thread && a->pid == b->pid;
}

// Is this the process that is meant? In namespaces a task alone has another pid each time.
static bool of_it(pid_t pid) { return expected == 1 || pid == run.pid; }

// Many tasks make the same calls: each step of a third of them, and the last steps of all. A call that none of these makes
// is taken wherever it is.
static bool sampled(const struct call *all, int count, int i) {
    const struct call *c = &all[i];
    if (expected == 1 || c->step >= 16 || (c->pid + c->step) % 3 == 0) return true;
    for (int k = 0; k < count; k++)
        if ((all[k].pid + c->step) % 3 == 0 && all[k].step == c->step && all[k].nr == c->nr && all[k].op == c->op && all[k].thread == c->thread)
            return false;
    return true;
}

static bool forks(unsigned nr) { return nr == 2 || nr == 120 || nr == 190 || nr == 435; }

// In what was just read of /proc/self/status.
static void hide_tracer(pid_t pid, uint32_t at, uint32_t n) {
    static const char key[] = "TracerPid:\t";
    char text[8193], path[64], *hit;
    if (n >= sizeof text || !peek(pid, at, text, n)) return;
    text[n] = 0;
    if (!(hit = strstr(text, key))) return;
    hit += sizeof key - 1;
    size_t digits = strspn(hit, "0123456789");
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || !digits) die("hiding the tracer");
    memset(hit, ' ', digits);
    *hit = '0';
    if (pwrite64(fd, hit, digits, (off64_t)at + (hit - text)) != (ssize_t)digits) die("hiding the tracer");
    close(fd);
}

// A stop at a call. False: the run is over for this process (it was detached).
static bool at_call(struct traced *t, pid_t harness) {
    struct regs r;
    if (!get(t->pid, &r)) return true;
    // The kernel shows 0 in ip where a call begins and 1 where it ends. Counting stops would go wrong: after an exec the
    // first of them is an end or not.
    bool entry = r.r[12] == 0;
    if (!entry) {
        // The child that nobody traces here: what the last fork returned tells which.
        if (untraced && t->kind == HARNESS && forks(r.r[7]) && (int)r.r[0] > 0) run.child = run.task = r.r[0];
        // A program that is traced does not trace others, since its tracer might have them: not so here.
        if (traced_by_it && r.r[7] == 3 && (int)r.r[0] > 0) hide_tracer(t->pid, r.r[1], r.r[0]);
        if (t->fail) {
            t->fail = false;
            r.r[0] = -run.error;
            ptrace(PTRACE_SETREGS, t->pid, 0, &r);
            if (t->left) t->kind = INIT;
        } else if (t->left) {
            // It runs its own code.
            t->kind = INIT;
        } else if (run.what == KILL_SELF && run.after && run.acted && t->kind == HARNESS) {
            kill(harness, SIGKILL);
        }
        return true;
    }
    enum where w = IN_HARNESS;
    if (t->kind == CHILD) {
        if (!areas) find_areas(t->pid);
        for (int i = 0; i < areas && !t->in_blob; i++)
            if (r.r[15] >= area[i].start && r.r[15] < area[i].end) {
                t->in_blob = true;
                t->area = &area[i];
                run.in_blob[run.tasks++] = t->pid;
            }
        w = t->in_blob ? IN_BLOB : IN_CHILD;
        if (w == IN_BLOB && !t->thread) run.task = t->pid;
        // A report and the exit after it are no calls of a restore.
        if (w == IN_BLOB && run.acted && run.what == FAIL && run.where == IN_BLOB) return true;
    }
    note(w, &r, t, w == IN_BLOB);
    int index = run.calls[w]++;
    // Rust's library holds that a sleep fails for a signal alone and that there are random numbers, and so it is: the
    // next call then.
    static const unsigned sure[] = { 162, 265, 384, 407 };
    for (unsigned i = 0; i < sizeof sure / sizeof *sure; i++)
        if (w == IN_HARNESS && run.what == FAIL && !run.nr && index == run.at && r.r[7] == sure[i]) {
            run.at++;
            break;
        }
    bool here = w == run.where && index == run.at;
    if (w == IN_CHILD && run.where == IN_CHILD) {
        int own = t->calls++;
        here = of_it(t->proc) && own == run.at;
    }
    if (w == IN_BLOB && run.where == IN_BLOB) {
        struct call *c = &run.call[w][index < MANY ? index : MANY - 1];
        here = of_it(c->pid) && c->step == run.step && c->thread == run.thread && (!run.nr || (c->nr == run.nr && c->op == run.op)) &&
               run.seen++ == run.at;
    }
    if (w == IN_HARNESS && run.where == IN_HARNESS && run.nr)
        here = r.r[7] == run.nr && run.call[w][index < MANY ? index : MANY - 1].op == run.op && run.seen++ == run.at;
    if (here && !run.acted) {
        run.acted = true;
        run.failed = run.call[w][index < MANY ? index : MANY - 1];
        switch (run.what) {
        case FAIL:
            t->fail = true;
            // A close that fails has closed nevertheless.
            if (r.r[7] != 6) ptrace(PTRACE_SET_SYSCALL, t->pid, 0, -1);
            break;
        case KILL_SELF:
            // No run makes as many calls as another. The last one never ends: too late.
            if (run.after) {
                run.acted = r.r[7] != 248;
                break;
            }
            // fall through
        case KILL_HARNESS:
            // The child waits here until the harness is dead, or it is.
            if (w != IN_HARNESS) return kill(harness, SIGKILL), false;
            kill(harness, SIGKILL);
            break;
        case SIGNAL_HARNESS:
            kill(harness, run.sign);
            return false;
        case SIGNAL_CHILD:
            if (run.child) kill(run.child, run.sign);
            if (run.child && run.sign == SIGSTOP && run.after) usleep(50000), kill(run.child, SIGCONT);
            break;
        case KILL_TASK:
            kill(t->proc, SIGKILL);
            break;
        case NOTHING:
            break;
        }
    }
    if (w == IN_BLOB && r.r[7] == 173) {
        t->left = true;
        if (!t->thread) run.entered = true;
        if (run.end_task && !t->thread) kill(t->pid, SIGKILL);
    }
    return true;
}

// What the command said.
static void said(int out) {
    off_t n = lseek(out, 0, SEEK_END);
    free(run.said);
    run.said = calloc(1, n + 1);
    if (pread(out, run.said, n, 0) != n) die("output");
    close(out);
}

static void once_listening(int out);

// One run of the command; everything that it forked has ended, or was let go as the task, when it returns.
static void once(void) {
    int out = memfd_create("said", MFD_CLOEXEC), pipes[2];
    if (out < 0 || pipe2(pipes, O_CLOEXEC)) die("memfd or pipe");
    run.calls[0] = run.calls[1] = run.calls[2] = 0;
    run.acted = run.entered = false;
    run.seen = 0;
    run.task = run.child = 0;
    run.tasks = run.procs = 0;
    run.status = -1;
    areas = 0;
    memset(traced, 0, sizeof traced);
    if (listens) {
        close(pipes[0]);
        close(pipes[1]);
        once_listening(out);
        said(out);
        return;
    }
    pid_t harness = fork();
    if (harness == 0) {
        char c;
        close(pipes[1]);
        if (read(pipes[0], &c, 1) != 1) _exit(125);
        dup2(out, 1);
        dup2(out, 2);
        execvp(command[0], command);
        _exit(125);
    }
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC;
    if (!untraced) options |= PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE;
    if (ptrace(PTRACE_SEIZE, harness, 0, options)) die("PTRACE_SEIZE");
    add(harness)->kind = HARNESS;
    bool execed = false, killed = false;
    time_t begun = time(NULL);
    if (write(pipes[1], "x", 1) != 1) die("pipe");
    close(pipes[0]);
    close(pipes[1]);
    while (find(harness) || run.status < 0) {
        int status;
        alarm(30);
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0 && errno != EINTR) break;
        // One that looks again and again hangs as well: the longest wait of armrest's own is 20 s.
        if (pid < 0 || (time(NULL) > begun + 60 && !killed)) {
            killed = true;
            bad("hangs at call %d, number %u, which was to fail, and makes call %u", run.at, run.failed.nr,
                run.calls[IN_HARNESS] ? run.call[IN_HARNESS][run.calls[IN_HARNESS] - 1].nr : 0);
            for (int i = 0; i < 64; i++) if (traced[i].pid) kill(traced[i].pid, SIGKILL);
            continue;
        }
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (pid == harness) run.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            struct traced *t = find(pid);
            if (t) t->pid = 0;
            continue;
        }
        struct traced *t = add(pid);
        int sign = WSTOPSIG(status), event = status >> 16;
        if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
            unsigned long made;
            ptrace(PTRACE_GETEVENTMSG, pid, 0, &made);
            struct traced *n = add(made);
            n->parent = pid;
            // A task is made by clone3, for its pid; a helper that does one thing elsewhere by a plain fork.
            struct regs r;
            uint64_t flags = 0;
            bool helper = get(pid, &r) && r.r[7] != 435;
            if (!helper) peek(pid, r.r[17], &flags, sizeof flags);
            // Threads may be made by clone too: whatever the blob makes is one.
            if (t->kind == CHILD && t->in_blob) helper = false, flags = 0x10000;
            n->kind = helper || (namespaces && t->kind == HARNESS) ? INIT : CHILD;
            n->proc = made;
            if (n->kind == CHILD && flags & 0x10000) n->thread = n->in_blob = true, n->proc = t->proc, n->area = t->area;
            else if (n->kind == CHILD) run.child = run.proc[run.procs++] = made;
            if (n->held) go_on(n, 0);
            n->held = false;
            go_on(t, 0);
        } else if (event == PTRACE_EVENT_EXEC) {
            execed = true;
            go_on(t, 0);
        } else if (event == PTRACE_EVENT_STOP) {
            // The event of its parent, which tells what it is, comes before or after.
            if (t->kind) go_on(t, 0);
            else t->held = true;
        } else if (sign == (SIGTRAP | 0x80)) {
            if (!execed) go_on(t, 0);
            else if (at_call(t, harness)) go_on(t, 0);
        } else {
            go_on(t, sign);
        }
    }
    alarm(0);
    // Whoever is left: a task that runs, or a child whose harness was killed. Let go: what happens is its own affair.
    // All at once: the init of a namespace does not end before what it holds has ended and was seen here.
    int left = 0;
    for (int i = 0; i < 64; i++) {
        if (!traced[i].pid) continue;
        if (ptrace(PTRACE_DETACH, traced[i].pid, 0, 0) == 0) traced[i].pid = 0;
        else left++, ptrace(PTRACE_INTERRUPT, traced[i].pid, 0, 0);
    }
    for (int j = 0; left && j < 5000; j++) {
        int status;
        pid_t p = waitpid(-1, &status, __WALL | WNOHANG);
        if (p < 0) break;
        if (p == 0) {
            usleep(1000);
            continue;
        }
        struct traced *t = find(p);
        if (WIFSTOPPED(status)) ptrace(PTRACE_DETACH, p, 0, 0);
        if (t) t->pid = 0, left--;
    }
    // Nobody looked into them, or knew them when they were made in another way than usual: they are who they were.
    bool unseen = untraced ? expected > 1 : !run.tasks && !namespaces && run.status == 0;
    for (int i = 0; unseen && i < expected; i++) run.in_blob[run.tasks++] = member[i];
    said(out);
}

// ---- the listener ----

static int group_of(pid_t tid) {
    char path[64], line[256];
    int group = 0;
    snprintf(path, sizeof path, "/proc/%d/status", tid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) if (sscanf(line, "Tgid: %d", &group) == 1) break;
    if (f) fclose(f);
    return group;
}

// The filter: calls that the blob makes are shown, all others pass. A descriptor of the listener, or -1.
static int listen_to_blob(void) {
    enum { CALLS = sizeof CALL / sizeof *CALL };
    struct sock_filter f[CALLS + 4];
    unsigned n = 0;
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < CALLS; i++)
        f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CALL[i].nr, CALLS + 1 - i, 0);
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 173, 1, 0);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog prog = { n, f };
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog);
}

// What happens at a call that is shown: 0 = it is made, or the error with which it fails.
static int shown(const struct seccomp_notif *req, pid_t harness) {
    if ((pid_t)req->pid == harness) return 0;
    uint32_t pc = req->data.instruction_pointer;
    if (!areas) find_areas(req->pid);
    const struct area *in = NULL;
    for (int i = 0; i < areas && !in; i++) if (pc >= area[i].start && pc < area[i].end) in = &area[i];
    if (!in) return 0;
    struct regs r = { { 0 } };
    for (int i = 0; i < 6; i++) r.r[i] = req->data.args[i];
    r.r[17] = r.r[0], r.r[7] = req->data.nr, r.r[15] = pc;
    int group = group_of(req->pid);
    struct traced t = { .pid = req->pid, .proc = group, .area = in, .kind = CHILD, .thread = group != (int)req->pid };
    run.task = run.child = group;
    if (r.r[7] == 173) {
        if (!t.thread) run.entered = true;
        return 0;
    }
    if (run.acted) return 0;
    note(IN_BLOB, &r, &t, true);
    struct call *c = &run.call[IN_BLOB][run.calls[IN_BLOB]++];
    if (run.what != FAIL || c->step != run.step || c->thread != run.thread || c->nr != run.nr || c->op != run.op || run.seen++ != run.at)
        return 0;
    run.acted = true;
    run.failed = *c;
    return run.error;
}

static void once_listening(int out) {
    volatile int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) die("mmap");
    // Its descriptors are ours until we have the listener.
    pid_t harness = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (harness == 0) {
        int fd = listen_to_blob();
        shared[0] = fd < 0 ? -errno : fd + 1;
        while (!shared[1]) sched_yield();
        if (fd < 0 || unshare(CLONE_FILES)) _exit(125);
        dup2(out, 1);
        dup2(out, 2);
        execvp(command[0], command);
        _exit(125);
    }
    while (!shared[0]) sched_yield();
    if (shared[0] < 0) errno = -shared[0], die("seccomp listener");
    int listener = shared[0] - 1;
    shared[1] = 1;
    time_t begun = time(NULL);
    for (int status; run.status < 0;) {
        struct pollfd p = { .fd = listener, .events = POLLIN };
        struct seccomp_notif req;
        memset(&req, 0, sizeof req);
        if (poll(&p, 1, 20) > 0 && (p.revents & POLLIN) && ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &req) == 0) {
            struct seccomp_notif_resp answer = { .id = req.id, .error = -shown(&req, harness) };
            if (!answer.error) answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
            ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
            continue;
        }
        if (waitpid(harness, &status, WNOHANG) == harness)
            run.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (time(NULL) > begun + 60) {
            bad("hangs");
            kill(harness, SIGKILL);
            if (run.task) kill(run.task, SIGKILL);
            begun = time(NULL);
        }
    }
    // Calls that would be shown fail from now on: nobody listens.
    close(listener);
    munmap((void *)shared, 4096);
}

// ---- checks ----

static bool lives(pid_t pid) {
    char state;
    int parent;
    unsigned long long start;
    return pid > 0 && proc_stat(pid, &state, &parent, &start) && state != 'Z' && state != 'X';
}

static bool gone(pid_t pid) {
    for (int i = 0; i < 5000 && lives(pid); i++) usleep(1000);
    return !lives(pid);
}

// Tasks of the restore that live.
static int living(void) {
    int n = 0;
    for (int i = 0; i < run.tasks; i++) n += lives(run.in_blob[i]);
    // Where nobody looked into the child.
    return run.tasks ? n : lives(run.task);
}

// One that left the restorer has a mask of its own.
static bool on_its_way(pid_t pid) {
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    FILE *f = fopen(path, "r");
    bool all = false;
    while (f && fgets(line, sizeof line, f)) all |= !strncmp(line, "SigBlk:\tffffffff", 16);
    if (f) fclose(f);
    return all;
}

static int shell(const char *format, ...) {
    char text[1024];
    va_list v;
    va_start(v, format);
    vsnprintf(text, sizeof text, format, v);
    va_end(v);
    return system(text);
}

// End a task that was restored well, and put everything back as it was.
static void end_task(void) {
    if (run.task) kill(run.task, SIGKILL), gone(run.task);
    for (int i = 0; i < run.tasks; i++) kill(run.in_blob[i], SIGKILL);
    for (int i = 0; i < run.tasks; i++) gone(run.in_blob[i]);
    while (waitpid(-1, NULL, WNOHANG | __WALL) > 0) {}
    shell("rm -f /tmp/fault.pid; . /vm/lib.sh; put_files %s", sample);
    static const char *const path[] = { "/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg" };
    for (int k = 0; k < 3; k++) {
        char line[512];
        FILE *f = fopen(path[k], "r");
        while (f && fgets(line, sizeof line, f)) {
            int id;
            if (sscanf(line, "%*d %d", &id) != 1) continue;
            if (k == 0) shmctl(id, IPC_RMID, NULL);
            if (k == 1) semctl(id, 0, IPC_RMID);
            if (k == 2) msgctl(id, IPC_RMID, NULL);
        }
        if (f) fclose(f);
    }
}

// Nothing is left, at once or (true) after `armrest clean`.
static bool clean(char **before, const char *what, bool by_clean) {
    static char text[1 << 16];
    while (waitpid(-1, NULL, WNOHANG | __WALL) > 0) {}
    char *after = snapshot();
    bool cleaned = false;
    if (differences(*before, after, text, sizeof text) && by_clean) {
        cleaned = true;
        if (shell("armrest clean >/tmp/fault.clean 2>&1")) {
            bad("%s: armrest clean fails:", what);
            shell("cat /tmp/fault.clean");
        }
        unlink("/tmp/fault.clean");
        free(after);
        after = snapshot();
    }
    if (differences(*before, after, text, sizeof text)) {
        bad("%s: left behind:\n%s", what, text);
        end_task();
        free(*before);
        *before = snapshot();
    }
    free(after);
    return cleaned;
}

static const char *name_of(unsigned nr) {
    static char other[32];
    for (unsigned i = 0; i < sizeof CALL / sizeof *CALL; i++) if (CALL[i].nr == nr) return CALL[i].name;
    snprintf(other, sizeof other, "syscall %u", nr);
    return other;
}

static void wants(const char *what, const char *text) {
    if (!strstr(run.said, text)) bad("%s: the error does not say \"%s\":\n%s", what, text, run.said);
}

// Which indices of [0, n) to take: all if `per` is enough, else spread evenly with the first and last.
static bool taken(int i, int n, int per) {
    if (n <= per) return true;
    if (per < 2) return i == 0;
    for (int k = 0; k < per; k++) if (i == (int)((long)k * (n - 1) / (per - 1))) return true;
    return false;
}

static void blob_failed(const struct call *c, int error, const char *what) {
    char text[256];
    snprintf(text, sizeof text, "armrest: blob: pid %d: while %s", c->pid, WHILE[c->step]);
    if (c->thread && c->step < 17) {
        snprintf(text, sizeof text, "armrest: blob: pid %d: while %s, thread %d", c->pid, WHILE[c->step], c->tid);
    } else if (c->step >= 17) {
        if (c->nr == 91 && traced_by_it && strstr(run.said, "unmapping the last page of ours")) {
            if (run.status != 102) bad("%s: exit status %d, not 102:\n%s", what, run.status, run.said);
            return wants(what, "armrest: machine: ptrace of the restored task: ");
        }
        if (c->nr == 91 && stays) {
            if (run.status != 103) bad("%s: exit status %d, not 103:\n%s", what, run.status, run.said);
            snprintf(text, sizeof text, "armrest: blob: pid %d: while entering the restored program: munmap(0x", c->pid);
            wants(what, text);
            snprintf(text, sizeof text, "failed with %s", ERRNO[error].name);
            return wants(what, text);
        }
        if (run.status != 104) bad("%s: exit status %d, not 104:\n%s", what, run.status, run.said);
        wants(what, "armrest: watch: ");
        snprintf(text, sizeof text, "pid %d", c->pid);
        if (expected > 1) wants(what, text);
        return;
    }
    if (run.status != 103) bad("%s: exit status %d, not 103:\n%s", what, run.status, run.said);
    if (run.entered) bad("%s: a task ran nevertheless", what);
    wants(what, text);
    snprintf(text, sizeof text, "%s(", name_of(c->nr));
    wants(what, text);
    for (unsigned i = 0; i < sizeof CALL / sizeof *CALL; i++) if (CALL[i].nr == c->nr) wants(what, CALL[i].flag);
    snprintf(text, sizeof text, "failed with %s", ERRNO[error].name);
    wants(what, text);
    // Steps about memory name the object: what lies where.
    long at = c->nr == 163 ? c->arg[4] : c->nr == 305 ? c->arg[1] : c->arg[0];
    switch (c->step) {
    case 4: snprintf(text, sizeof text, ": %08lx-%08lx of the old address space", at, at + c->arg[1]); break;
    case 6: case 8: case 9: case 10: snprintf(text, sizeof text, ": VMA %08lx-", at); break;
    case 5: snprintf(text, sizeof text, " SysV segment "); break;
    case 3: snprintf(text, sizeof text, ": VMA "); break;
    case 7: snprintf(text, sizeof text, "pages file "); break;
    case 12:
        if (c->nr != 120 && c->nr != 435) return;
        snprintf(text, sizeof text, ": making thread ");
        break;
    case 13: snprintf(text, sizeof text, ": pending signal "); break;
    case 14: snprintf(text, sizeof text, " timer "); break;
    default: return;
    }
    wants(what, text);
}

// Which of the calls of its process the i-th is, and how many there are.
static int place_of(const struct call *all, int count, int i, int *of) {
    int mine = 0;
    *of = 0;
    for (int k = 0; k < count; k++)
        if (all[k].pid == all[i].pid) {
            if (k < i) mine++;
            ++*of;
        }
    return mine;
}

static void mode_blob(int per) {
    int made_good = 0, count = run.calls[IN_BLOB], done[2][STEPS] = { 0 }, had[2][STEPS] = { 0 };
    static struct call all[MANY];
    memcpy(all, run.call[IN_BLOB], sizeof all);
    char *before = snapshot();
    for (int i = 0; i < count; i++) {
        int n = 0, mine = 0;
        const struct call *c = &all[i];
        // Futex operation 5 is tried by the leader first, and makes the others leave.
        bool closes = c->nr == 6 && c->step == 17, well = (c->nr == 240 && c->op != 5) || c->nr == 168 || closes;
        if (c->nr == 240 && c->op == 5 && c->step == 17) continue;
        // The listener cannot let it close and fail.
        if (closes && listens) continue;
        if (!sampled(all, count, i) || (only && strcmp(only, STEP[c->step]))) continue;
        for (int k = 0; k < count; k++)
            if (same_kind(&all[k], c)) {
                if (k < i) mine++;
                n++;
            }
        if (!well) had[c->thread][c->step]++;
        // One unmap more or less, as the address space is laid out this time.
        bool unsure = c->step == 4 && n > 1 && mine == n - 1;
        if (unsure || !taken(mine, n, per)) continue;
        int error = i % (int)(sizeof ERRNO / sizeof *ERRNO);
        char what[128];
        snprintf(what, sizeof what, "call %d, pid %d, step %s, %s%s, %s", i, c->pid, STEP[c->step], name_of(c->nr),
                 c->thread ? " of a thread" : "", ERRNO[error].name);
        run.what = FAIL, run.where = IN_BLOB, run.step = c->step, run.nr = c->nr, run.op = c->op, run.at = mine;
        run.thread = c->thread, run.error = ERRNO[error].e, run.pid = c->pid;
        once();
        if (well) {
            // Who waits for whom differs from run to run.
            made_good += run.acted;
            if (run.status) bad("%s: exit status %d:\n%s", what, run.status, run.said);
            end_task();
            clean(&before, what, true);
            continue;
        }
        if (!run.acted) bad("%s: not reached:\n%s", what, run.said);
        else blob_failed(&run.failed, error, what);
        clean(&before, what, false);
        if (run.acted) done[c->thread][c->step]++;
    }
    printf("%s: %d calls of the blob; made to fail:", label, count);
    for (int t = 0; t < 2; t++)
        for (int s = 0; s < STEPS; s++) {
            if (had[t][s]) printf(" %s%s %d of %d", t ? "thread's " : "", STEP[s], done[t][s], had[t][s]);
            if (had[t][s] && !done[t][s]) bad("step %s: none failed", STEP[s]);
        }
    printf("; failed without harm: %d\n", made_good);
}

// Which of the calls of its kind the i-th is, and how many there are.
static int place_in_kind(const struct call *all, int count, int i, int *of) {
    int mine = 0;
    *of = 0;
    for (int k = 0; k < count; k++)
        if (all[k].nr == all[i].nr && all[k].op == all[i].op) {
            if (k < i) mine++;
            ++*of;
        }
    return mine;
}

// Calls of ordinary code: an error that is named, or a restore that did not need the call.
static void mode_ordinary(enum where w, int per) {
    int count = run.calls[w], failed = 0, needless = 0, cleaned = 0, done = 0, missed = 0;
    static struct call all[MANY];
    memcpy(all, run.call[w], sizeof all);
    char *before = snapshot();
    // libc's own calls before it opens anything are not the harness's.
    int first = 0;
    while (w == IN_HARNESS && first < count && all[first].nr != 322) first++;
    for (int i = first; i < count; i++) {
        int of = count - first, mine = i - first;
        if (w == IN_CHILD) mine = place_of(all, count, i, &of);
        // Of a tree not the same calls of each process, but all kinds of calls.
        bool tree = w == IN_CHILD && expected > 1, kind = tree;
        for (int k = 0; k < i && kind; k++) kind = all[k].nr != all[i].nr;
        int of_kind, nth = place_in_kind(all, count, i, &of_kind);
        if (only ? all[i].nr != (unsigned)atoi(only) || !taken(nth, of_kind, per) : !kind && !taken(tree ? (mine + 7 * all[i].pid) % of : mine, of, per)) continue;
        // Neither fails: exit_group, rt_sigreturn.
        if (all[i].nr == 248 || all[i].nr == 173) continue;
        int error = i % (int)(sizeof ERRNO / sizeof *ERRNO);
        char what[128];
        snprintf(what, sizeof what, "%s's call %d (%u), %s", w == IN_CHILD ? "child" : "harness", i, all[i].nr, ERRNO[error].name);
        if (w == IN_CHILD && expected > 1) snprintf(what, sizeof what, "pid %d's call %d (%u), %s", all[i].pid, mine, all[i].nr, ERRNO[error].name);
        run.what = FAIL, run.where = w, run.at = w == IN_CHILD ? mine : i, run.error = ERRNO[error].e, run.pid = all[i].pid;
        run.nr = run.op = 0;
        // Where it waits and looks, calls come and go: the same one of its kind.
        if (only && w == IN_HARNESS) run.at = nth, run.nr = all[i].nr, run.op = all[i].op;
        once();
        done++;
        // Rust's library holds that a folder can be closed, and so it is.
        if (strstr(run.said, "during closedir")) { done--; clean(&before, what, w == IN_HARNESS); continue; }
        // How often somebody waits and looks differs from run to run: this one was shorter, and well.
        if (!run.acted && run.status == 0) { done--; missed++; end_task(); clean(&before, what, false); continue; }
        if (!run.acted) { bad("%s: not reached, status %d:\n%s", what, run.status, run.said); end_task(); clean(&before, what, false); continue; }
        if (run.status == 0) {
            needless++;
            if (living() != expected) bad("%s: status 0, but %d of %d tasks live:\n%s", what, living(), expected, run.said);
            end_task();
        } else {
            failed++;
            if (run.status >= 128 || run.status < 80) bad("%s: exit status %d:\n%s", what, run.status, run.said);
            if (!strstr(run.said, "armrest: ")) bad("%s: no error is said:\n%s", what, run.said);
            // Nobody makes a call fail so: a descriptor was mixed up.
            if (strstr(run.said, "Bad file")) bad("%s: a wrong descriptor:\n%s", what, run.said);
            // What another process or a limit can make fail is no fault of armrest's.
            if (run.status == 108 && run.failed.nr == 221) bad("%s: called internal:\n%s", what, run.said);
            else if (run.status == 108) printf("%s: call %u: called internal: %s", what, run.failed.nr, run.said);
        }
        cleaned += clean(&before, what, w == IN_HARNESS);
    }
    printf("%s: %d of %d calls of the %s made to fail: %d times an error, %d times restored without; cleaned later: %d\n",
           label, done, count, w == IN_CHILD ? "child" : "harness", failed, needless, cleaned);
    // Whoever waits looks again after a while.
    bool harmless = only && atoi(only) == 240;
    if (harmless && failed) bad("%d waits or wake-ups mattered", failed);
    if (!harmless && !failed) bad("none of them mattered");
    if (missed > done / 2) bad("%d were not reached", missed);
}

// After the harness was killed: no child that is half restored.
static void after_kill(char **before, const char *what, int *restored, int *cleaned) {
    if (run.status != 128 + SIGKILL) bad("%s: exit status %d:\n%s", what, run.status, run.said);
    if (!run.tasks && run.task) run.in_blob[run.tasks++] = run.task;
    if (!run.tasks && run.child) gone(run.child);
    // Tasks that left the restorer live without us, and in full: anything else must end.
    bool coming = true;
    for (int i = 0; i < 3000 && coming; i++) {
        coming = false;
        for (int k = 0; k < run.tasks; k++) coming |= lives(run.in_blob[k]) && on_its_way(run.in_blob[k]);
        if (coming) usleep(1000);
    }
    int live = living();
    for (int i = 0; i < run.procs && !live; i++) if (!gone(run.proc[i])) bad("%s: pid %d lives", what, run.proc[i]);
    if (coming || (live && live != expected)) {
        bad("%s: %d of %d tasks live, and %s", what, live, expected, coming ? "some are not restored" : "the others do not");
        end_task();
    } else if (live) {
        (*restored)++;
        for (int i = 0; i < run.tasks; i++) {
            char state;
            int parent;
            unsigned long long start;
            // Stopped, if that was asked for; it may be on its way there.
            for (int k = 0; held && k < 100 && proc_stat(run.in_blob[i], &state, &parent, &start) && state != 'T'; k++) usleep(10000);
            if (held && state != 'T') bad("%s: task %d is not stopped: %c", what, run.in_blob[i], state);
            uint32_t magic = 0;
            for (int k = 0; k < areas; k++)
                if (peek(run.in_blob[i], area[k].start, &magic, 4) && !memcmp(&magic, "ARMB", 4))
                    bad("%s: the blob is still in task %d", what, run.in_blob[i]);
        }
        char *now = snapshot();
        if (shell("armrest clean >/dev/null")) bad("%s: clean fails", what);
        char *then = snapshot();
        // The journal goes; what the living task owns does not.
        for (int k = 0; k < 3; k++) {
            static const char *const kind[] = { "shm", "sem", "msg" };
            int a = 0, b = 0;
            char mark[8];
            snprintf(mark, sizeof mark, "\n%s ", kind[k]);
            for (char *p = now; (p = strstr(p, mark)); p++) a++;
            for (char *p = then; (p = strstr(p, mark)); p++) b++;
            if (a != b) bad("%s: clean removed what a living task owns", what);
        }
        free(now), free(then);
        end_task();
    }
    *cleaned += clean(before, what, true);
}

// No call of this task, or thread of it, in this step came before.
static bool first_of_step(const struct call *all, int i) {
    for (int k = 0; k < i; k++) if (all[k].pid == all[i].pid && all[k].step == all[i].step) return false;
    return !all[i].thread;
}

static void mode_kill(bool signals) {
    int restored = 0, cleaned = 0, done = 0;
    static struct call all[MANY];
    int count = run.calls[IN_BLOB], ordinary = run.calls[IN_CHILD];
    memcpy(all, run.call[IN_BLOB], sizeof all);
    char *before = snapshot();
    bool seen[STEPS] = { false };
    static struct call child[MANY];
    memcpy(child, run.call[IN_CHILD], sizeof child);
    for (int i = -ordinary; i < count; i++) {
        char what[128];
        const struct call *c = i < 0 ? &child[i + ordinary] : &all[i];
        int of, mine = i < 0 ? place_of(child, ordinary, i + ordinary, &of) : 0;
        if (i < 0) {
            if (!taken(mine, of, expected > 1 ? 3 : 6)) continue;
            snprintf(what, sizeof what, "harness %s at pid %d's call %d", signals ? "interrupted" : "killed", c->pid, mine);
        } else {
            if ((!first_of_step(all, i) || !sampled(all, count, i)) && i != count - 1) continue;
            seen[c->step] = true;
            snprintf(what, sizeof what, "harness %s in step %s of pid %d", signals ? "interrupted" : "killed", STEP[c->step], c->pid);
        }
        run.where = i < 0 ? IN_CHILD : IN_BLOB;
        run.pid = c->pid;
        run.at = mine;
        run.step = i < 0 ? 0 : c->step;
        run.nr = i == count - 1 ? c->nr : 0;
        run.op = run.nr ? c->op : 0;
        run.what = signals ? SIGNAL_HARNESS : KILL_HARNESS;
        run.sign = done % 2 ? SIGINT : SIGTERM;
        once();
        done++;
        // Ends of processes may be seen one call earlier or later.
        if (!run.acted && i < 0 && expected > 1 && run.status == 0) { done--; end_task(); clean(&before, what, false); continue; }
        if (!run.acted) bad("%s: not reached", what);
        if (signals) {
            if (run.status != 104) bad("%s: exit status %d:\n%s", what, run.status, run.said);
            wants(what, run.sign == SIGINT ? "ended by signal 2" : "ended by signal 15");
            if (run.task && !gone(run.task)) bad("%s: the child lives", what);
            clean(&before, what, false);
        } else {
            after_kill(&before, what, &restored, &cleaned);
        }
    }
    printf("%s: %s at %d places", label, signals ? "interrupted" : "killed", done);
    if (!signals) printf(", %d of them behind the last call; left something for clean: %d", restored, cleaned);
    printf("; steps:");
    for (int s = 0; s < STEPS; s++) if (seen[s]) printf(" %s", STEP[s]);
    printf("\n");
}

// Calls that make things: SysV objects, files, processes, mounts, names.
static bool makes(const struct call *c) {
    switch (c->nr) {
    case 2: case 190: case 120: case 435: case 21: case 337: case 38: case 39: case 40: case 9: case 10: case 328: case 329: case 330:
    case 382: case 323: case 299: case 303: case 307: case 308: case 300: case 304: return true;
    case 322: return c->arg[2] & O_CREAT;
    }
    return false;
}

static void mode_killself(int per) {
    int restored = 0, cleaned = 0, done = 0, count = run.calls[IN_HARNESS];
    bool release = only && !strcmp(only, "release"), early = only && !release;
    static struct call all[MANY];
    memcpy(all, run.call[IN_HARNESS], sizeof all);
    char *before = snapshot();
    for (int i = 0; i < count; i++) {
        int of, mine = place_in_kind(all, count, i, &of);
        bool lets_go = all[i].nr == PTRACE && (all[i].op == PTRACE_SETOPTIONS || all[i].op == PTRACE_DETACH);
        if (early && (all[i].nr != (unsigned)atoi(only) || !taken(mine, of, per))) continue;
        if (early ? false : release ? !lets_go || !taken(mine, of, per) : !taken(i, count, per) && !makes(&all[i])) continue;
        for (int after = 0; after < 2; after++) {
            char what[128];
            snprintf(what, sizeof what, "harness killed %s its call %d (%u)", after ? "after" : "before", i, all[i].nr);
            if (all[i].nr == 248) continue;
            run.where = IN_HARNESS, run.at = i, run.what = KILL_SELF, run.after = after;
            run.nr = run.op = 0;
            if (release || early) run.at = mine, run.nr = all[i].nr, run.op = all[i].op;
            once();
            done++;
            // How often the harness looks at a tree differs from run to run.
            if (!run.acted && !only && (i > count * 8 / 10 || (expected > 1 && run.status == 0))) { done--; end_task(); clean(&before, what, false); continue; }
            if (!run.acted) { bad("%s: not reached", what); continue; }
            after_kill(&before, what, &restored, &cleaned);
        }
    }
    printf("%s: the harness killed around %d of its %d calls; task restored nevertheless: %d; left something for clean: %d\n",
           label, done / 2, count, restored, cleaned);
    // Before the first nobody lives, behind the last all do.
    if (release && (!restored || restored == done)) bad("restored %d times of %d", restored, done);
    if (early && (restored || !done)) bad("restored %d times of %d", restored, done);
}

// The child is killed or stopped from outside, between calls of the harness.
static void mode_child_signalled(int sign, int per) {
    int count = run.calls[IN_HARNESS], done = 0, failed = 0, well = 0, first = -1;
    static struct call all[MANY];
    memcpy(all, run.call[IN_HARNESS], sizeof all);
    for (int i = 0; i < count; i++) if (forks(all[i].nr)) first = i + 1;
    char *before = snapshot();
    for (int i = first; i < count; i++) {
        int of_kind, nth = place_in_kind(all, count, i, &of_kind);
        if (first < 0 || all[i].nr == 248) continue;
        if (only ? all[i].nr != (unsigned)atoi(only) || !taken(nth, of_kind, per) : !taken(i - first, count - first, per)) continue;
        char what[128];
        run.nr = run.op = 0;
        if (only) run.nr = all[i].nr, run.op = all[i].op;
        run.where = IN_HARNESS, run.at = only ? nth : i, run.what = SIGNAL_CHILD, run.sign = sign, run.after = done % 2;
        if (sign == SIGSTOP && !traced_by_it) run.after = true;
        bool stays = sign == SIGSTOP && !run.after;
        snprintf(what, sizeof what, "child %s at the harness's call %d (%u)",
                 sign == SIGKILL ? "killed" : stays ? "stopped" : "stopped and continued", i, all[i].nr);
        once();
        done++;
        // The harness polls: how many calls it makes before the end differs.
        if (!run.acted) { done--; end_task(); clean(&before, what, false); continue; }
        if (run.status == 0) {
            well++;
            if (sign == SIGSTOP) {
                char state = 0;
                int parent;
                unsigned long long start;
                // Stopped if it was asked for, or if nobody let it go on again; else not.
                for (int k = 0; k < 100 && proc_stat(run.task, &state, &parent, &start) && (state == 'T') != (held || stays); k++) usleep(10000);
                if ((state == 'T') != (held || stays)) bad("%s: the task's state is %c:\n%s", what, state, run.said);
                if (shell(". /vm/lib.sh; kill -CONT %d; usleep 100000; kill -TERM %d; gone %d; tail -n 1 /samples/run/%s/out.log | grep -q PASS",
                          run.task, run.task, run.task, sample))
                    bad("%s: the task does not go on to its PASS:\n%s", what, run.said);
            }
            end_task();
        } else {
            failed++;
            if (sign == SIGSTOP) bad("%s: exit status %d:\n%s", what, run.status, run.said);
            // Who died before a report was made is lost; that is said, and so is how.
            if (run.status != 104) bad("%s: exit status %d, not 104:\n%s", what, run.status, run.said);
            wants(what, "armrest: watch: ");
            wants(what, "signal 9");
        }
        clean(&before, what, false);
    }
    printf("%s: child %s at %d of %d calls of the harness since its fork: %d times an error, %d times restored\n", label,
           sign == SIGKILL ? "killed" : "stopped", done, count - first, failed, well);
    if (sign == SIGKILL && !failed) bad("it never mattered");
    if (sign == SIGSTOP && !well) bad("it never went well");
}

// Does this process come into the blob?
static bool enters(const struct call *all, int count, int pid) {
    for (int i = 0; i < count; i++) if (all[i].pid == pid) return true;
    return false;
}

// Each process in turn is killed at calls of its own: the error names it, and nothing stays.
static void mode_taskkill(int per) {
    int tried = 0, failed = 0, late = 0;
    const int counts[2] = { run.calls[IN_CHILD], run.calls[IN_BLOB] };
    static struct call calls[2][MANY];
    memcpy(calls[0], run.call[IN_CHILD], sizeof *calls);
    memcpy(calls[1], run.call[IN_BLOB], sizeof *calls);
    char *before = snapshot();
    for (int part = 0; part < 2; part++) {
        const struct call *all = calls[part];
        const enum where w = part ? IN_BLOB : IN_CHILD;
        for (int i = 0; i < counts[part]; i++) {
            const struct call *c = &all[i];
            int of, mine = place_of(all, counts[part], i, &of);
            if (part ? !first_of_step(all, i) || !sampled(all, counts[1], i) : !taken(mine, of, per)) continue;
            char what[128], text[32];
            snprintf(what, sizeof what, "pid %d killed at call %d%s%s", c->pid, mine, w == IN_BLOB ? ", step " : "", w == IN_BLOB ? STEP[c->step] : "");
            run.what = KILL_TASK, run.where = w, run.pid = c->pid, run.at = w == IN_BLOB ? 0 : mine;
            run.step = c->step, run.nr = run.op = 0, run.thread = false;
            once();
            tried++;
            // Behind the gate the others may have run, and its end is its own affair. So it is of one that only stands in
            // for a leader that is gone, in its last call: it was ending.
            bool own = w == IN_BLOB ? c->step == 17 : mine == of - 1 && !enters(calls[1], counts[1], c->pid);
            if (run.status == 0 && (own || !run.acted)) {
                late++;
                end_task();
            } else {
                failed++;
                if (run.status != 104 && run.status != 102) bad("%s: exit status %d:\n%s", what, run.status, run.said);
                snprintf(text, sizeof text, "pid %d", c->pid);
                wants(what, text);
            }
            clean(&before, what, false);
        }
    }
    printf("%s: processes killed at %d calls of their own: %d times an error, %d times restored before\n", label, tried, failed, late);
}

static void late(int sign) { (void)sign; }

int main(int argc, char **argv) {
    // Which calls a restore makes depends on where its own pages lie: each run the same.
    if (personality(ADDR_NO_RANDOMIZE) == -1) die("personality");
    int dashes = 0, per = 3;
    for (int i = 1; i < argc && !dashes; i++) if (!strcmp(argv[i], "--")) dashes = i;
    if (dashes < 3 || argc < dashes + 2) {
        fprintf(stderr, "fault MODE SAMPLE [PER] -- armrest restore …\n");
        return 2;
    }
    struct sigaction act = { .sa_handler = late };
    sigaction(SIGALRM, &act, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    label = argv[2];
    sample = strndup(label, strcspn(label, "+"));
    if (dashes > 3) per = atoi(argv[3]);
    if (dashes > 4) only = argv[4];
    command = argv + dashes + 1;
    // An empty second place of journals, left by a test before: the first run would take it away.
    rmdir("/tmp/armrest-0");
    for (char **a = command; *a; a++) {
        if (!strcmp(*a, "--new-namespaces")) namespaces = true;
        if (!strcmp(*a, "-s")) held = true;
        if (!strcmp(*a, "--finish=ptrace") || !strcmp(*a, "--finish=page")) stays = true;
        if (held || !strcmp(*a, "--finish=ptrace")) untraced = traced_by_it = true;
    }
    const char *mode = argv[1];
    own_calls = !strcmp(mode, "harness") || !strcmp(mode, "killself") || !strncmp(mode, "child", 5);
    if (!strcmp(mode, "child")) own_calls = false;
    else if (!strncmp(mode, "child", 5)) untraced = true;
    listens = !strcmp(mode, "blob") && traced_by_it;
    char pattern[256];
    glob_t live;
    snprintf(pattern, sizeof pattern, "/images/%s/mm-*.img", sample);
    expected = glob(pattern, 0, NULL, &live) ? 1 : (int)live.gl_pathc;
    for (int i = 0; i < (int)live.gl_pathc && i < 64; i++) member[i] = atoi(strrchr(live.gl_pathv[i], '/') + 4);
    // The run that counts: its task ends at the last moment, but one of a tree would take the others along.
    unlink("/tmp/fault.pid");
    char *before = snapshot();
    run.what = NOTHING;
    run.at = -1;
    run.end_task = !own_calls && !listens && expected == 1;
    once();
    run.end_task = false;
    if (untraced ? run.status != 0 : !run.entered) {
        bad("the run that only counts: exit status %d:\n%s", run.status, run.said);
        return 1;
    }
    if (own_calls || listens || expected > 1) end_task();
    clean(&before, "the run that only counts", true);
    if (!strcmp(mode, "blob")) mode_blob(per);
    else if (!strcmp(mode, "child")) mode_ordinary(IN_CHILD, per);
    else if (!strcmp(mode, "harness")) mode_ordinary(IN_HARNESS, per);
    else if (!strcmp(mode, "kill")) mode_kill(false);
    else if (!strcmp(mode, "term")) mode_kill(true);
    else if (!strcmp(mode, "killself")) mode_killself(per);
    else if (!strcmp(mode, "taskkill")) mode_taskkill(per);
    else if (!strcmp(mode, "childkill")) mode_child_signalled(SIGKILL, per);
    else if (!strcmp(mode, "childstop")) mode_child_signalled(SIGSTOP, per);
    else return 2;
    return failures != 0;
}
