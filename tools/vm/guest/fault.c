// Makes calls of a restore fail, or kills the harness between them, one run for each, and looks at what is left.
//
//   fault MODE SAMPLE [PER] -- armrest restore …
//
// blob     each call of the blob fails in turn (at most PER for each step and call)
// child    each call that the child makes before it enters the blob fails in turn
// harness  calls of the harness itself fail in turn: about PER of them, spread evenly
// kill     the harness is killed while the child is at the first call of each step, and at calls of the child before
// killself the harness is killed before and after calls of its own: about PER of them, and those that make things
// term     the harness gets SIGTERM or SIGINT while the child is at the first call of each step
//
// The calls are counted in a first run, whose task ends before its first instruction. The tracer follows forks; the
// harness itself runs at full speed unless its own calls are meant. ARM only: registers by PTRACE_GETREGS, the number
// of a call by PTRACE_SET_SYSCALL.
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
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
    "registering the thread's own things", "queueing pending signals", "arming timers", "setting credentials",
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
    { 0xf0005, "set_tls", "0x" },
};

struct call { unsigned nr, step, row; long arg[6]; };
enum what { NOTHING, FAIL, KILL_HARNESS, SIGNAL_HARNESS, KILL_SELF };
enum where { IN_BLOB, IN_CHILD, IN_HARNESS };

// One run: what to do, at which call of which part; what came of it.
static struct {
    enum what what;
    enum where where;
    int at;          // index of the call; -1: none. In the blob, where the number of unmaps differs from run to run:
    unsigned step;   // the at-th call of this step
    unsigned nr;     // with this number, if not 0
    int error;       // for FAIL
    int sign;        // for SIGNAL_HARNESS
    bool after;      // for KILL_SELF: when the call is done
    bool end_task;   // end the task when it would be entered
    // Results.
    int status;      // exit status of the harness, 128 + signal
    bool acted, entered;
    int seen;
    pid_t task, child;
    char *said;
    struct call failed; // the call that was made to fail: addresses differ from run to run
    int calls[3];
    struct call call[3][MANY];
} run;

static char **command;
static const char *sample;
static int failures;

static void die(const char *what) { perror(what); exit(125); }

static void bad(const char *format, ...) {
    va_list v;
    va_start(v, format);
    printf("FAIL %s: ", sample);
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

static uint32_t code_start, code_end, progress_at;

// The blob's code and its progress page, once the child exists.
static void find_area(pid_t pid) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *f = fopen(path, "r");
    uint32_t last = 0, magic;
    code_start = progress_at = 0;
    while (f && fgets(line, sizeof line, f)) {
        uint32_t start, end;
        char rights[5];
        if (sscanf(line, "%x-%x %4s", &start, &end, rights) != 3) continue;
        if (!code_start && !strcmp(rights, "r-xp") && peek(pid, start, &magic, 4) && !memcmp(&magic, "ARMB", 4)) {
            code_start = start;
            code_end = last = end;
        } else if (code_start && start == last) {
            last = end;
            if (rights[3] == 's') {
                progress_at = start;
                break;
            }
        }
    }
    if (f) fclose(f);
}

enum { HARNESS = 1, INIT, CHILD };
static struct traced { pid_t pid, parent; int kind; bool in_call, in_blob, fail, known, held, left; } traced[64];
static bool namespaces, own_calls;

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

static void note(enum where w, const struct regs *r, pid_t pid, bool blob) {
    if (run.calls[w] >= MANY) die("too many calls");
    struct call *c = &run.call[w][run.calls[w]];
    c->nr = r->r[7];
    for (int i = 0; i < 6; i++) c->arg[i] = i == 0 ? r->r[17] : r->r[i];
    uint32_t progress[2] = { 17, 0 };
    if (blob && !peek(pid, progress_at, progress, sizeof progress)) progress[0] = 17;
    // The exit routine lies in the first page; the kernel's sigpage is outside.
    uint32_t pc = r->r[15];
    if (blob && (pc < code_start + 4096 || pc >= code_end)) progress[0] = 17;
    c->step = blob ? progress[0] : 0;
    c->row = progress[1];
}

// A stop at a call. False: the run is over for this process (it was detached).
static bool at_call(struct traced *t, pid_t harness) {
    struct regs r;
    if (!get(t->pid, &r)) return true;
    bool entry = !t->in_call;
    t->in_call = entry;
    if (!entry) {
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
        if (!t->known) {
            find_area(t->pid);
            t->known = true;
        }
        if (!t->in_blob && r.r[15] >= code_start && r.r[15] < code_end) t->in_blob = true;
        w = t->in_blob ? IN_BLOB : IN_CHILD;
        if (w == IN_BLOB) run.task = t->pid;
        // A report and the exit after it are no calls of a restore.
        if (w == IN_BLOB && run.acted && run.what == FAIL && run.where == IN_BLOB) return true;
    }
    note(w, &r, t->pid, w == IN_BLOB);
    int index = run.calls[w]++;
    bool here = w == run.where && index == run.at;
    if (w == IN_BLOB && run.where == IN_BLOB) {
        struct call *c = &run.call[w][index];
        here = c->step == run.step && (!run.nr || c->nr == run.nr) && run.seen++ == run.at;
    }
    if (here && !run.acted) {
        run.acted = true;
        run.failed = run.call[w][index];
        switch (run.what) {
        case FAIL:
            t->fail = true;
            ptrace(PTRACE_SET_SYSCALL, t->pid, 0, -1);
            break;
        case KILL_SELF:
            if (run.after) break;
            // fall through
        case KILL_HARNESS:
            // The child waits here until the harness is dead, or it is.
            if (w != IN_HARNESS) return kill(harness, SIGKILL), false;
            kill(harness, SIGKILL);
            break;
        case SIGNAL_HARNESS:
            kill(harness, run.sign);
            return false;
        case NOTHING:
            break;
        }
    }
    if (w == IN_BLOB && r.r[7] == 173) {
        run.entered = t->left = true;
        if (run.end_task) kill(t->pid, SIGKILL);
    }
    return true;
}

// One run of the command; everything that it forked has ended, or was let go as the task, when it returns.
static void once(void) {
    int out = memfd_create("said", MFD_CLOEXEC), pipes[2];
    if (out < 0 || pipe2(pipes, O_CLOEXEC)) die("memfd or pipe");
    run.calls[0] = run.calls[1] = run.calls[2] = 0;
    run.acted = run.entered = false;
    run.seen = 0;
    run.task = run.child = 0;
    run.status = -1;
    memset(traced, 0, sizeof traced);
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
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                   PTRACE_O_TRACEEXEC;
    if (ptrace(PTRACE_SEIZE, harness, 0, options)) die("PTRACE_SEIZE");
    add(harness)->kind = HARNESS;
    bool execed = false;
    if (write(pipes[1], "x", 1) != 1) die("pipe");
    close(pipes[0]);
    close(pipes[1]);
    while (find(harness) || run.status < 0) {
        int status;
        alarm(30);
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0 && errno != EINTR) break;
        if (pid < 0) {
            bad("hangs at call %d", run.at);
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
            n->kind = namespaces && t->kind == HARNESS ? INIT : CHILD;
            if (n->kind == CHILD) run.child = made;
            if (n->held) go_on(n, 0);
            n->held = false;
            go_on(t, 0);
        } else if (event == PTRACE_EVENT_EXEC) {
            execed = true;
            t->in_call = true;
            go_on(t, 0);
        } else if (event == PTRACE_EVENT_STOP) {
            // The event of its parent, which tells what it is, comes before or after.
            if (t->kind) go_on(t, 0);
            else t->held = true;
        } else if (sign == (SIGTRAP | 0x80)) {
            if (!execed) t->in_call = !t->in_call, go_on(t, 0);
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
    off_t n = lseek(out, 0, SEEK_END);
    free(run.said);
    run.said = calloc(1, n + 1);
    if (pread(out, run.said, n, 0) != n) die("output");
    close(out);
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
    if (c->step >= 17) {
        // The exit routine has neither stack nor report.
        if (run.status != 104) bad("%s: exit status %d, not 104:\n%s", what, run.status, run.said);
        wants(what, "armrest: watch: ");
        return;
    }
    if (run.status != 103) bad("%s: exit status %d, not 103:\n%s", what, run.status, run.said);
    snprintf(text, sizeof text, "armrest: blob: pid %d: while %s", run.task, WHILE[c->step]);
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
    default: return;
    }
    wants(what, text);
}

static void mode_blob(int per) {
    int count = run.calls[IN_BLOB], done[STEPS] = { 0 }, had[STEPS] = { 0 };
    static struct call all[MANY];
    memcpy(all, run.call[IN_BLOB], sizeof all);
    char *before = snapshot();
    for (int i = 0; i < count; i++) {
        int n = 0, mine = 0;
        for (int k = 0; k < count; k++)
            if (all[k].step == all[i].step && all[k].nr == all[i].nr) {
                if (k < i) mine++;
                n++;
            }
        had[all[i].step]++;
        // One unmap more or less, as the address space is laid out this time.
        bool unsure = all[i].step == 4 && n > 1 && mine == n - 1;
        if (unsure || !taken(mine, n, per)) continue;
        int error = i % (int)(sizeof ERRNO / sizeof *ERRNO);
        char what[128];
        snprintf(what, sizeof what, "call %d, step %s, %s, %s", i, STEP[all[i].step], name_of(all[i].nr), ERRNO[error].name);
        run.what = FAIL, run.where = IN_BLOB, run.step = all[i].step, run.nr = all[i].nr, run.at = mine;
        run.error = ERRNO[error].e;
        once();
        if (run.acted) snprintf(what, sizeof what, "call %d, step %s, %s, %s", i, STEP[run.failed.step], name_of(run.failed.nr), ERRNO[error].name);
        if (!run.acted) bad("%s: not reached", what);
        else blob_failed(&run.failed, error, what);
        clean(&before, what, false);
        if (run.acted) done[run.failed.step]++;
    }
    printf("%s: %d calls of the blob; made to fail:", sample, count);
    for (int s = 0; s < STEPS; s++) {
        if (had[s]) printf(" %s %d of %d", STEP[s], done[s], had[s]);
        if (had[s] && !done[s]) bad("step %s: none failed", STEP[s]);
    }
    printf("\n");
}

// Calls of ordinary code: an error that is named, or a restore that did not need the call.
static void mode_ordinary(enum where w, int per) {
    int count = run.calls[w], failed = 0, needless = 0, cleaned = 0, done = 0;
    static struct call all[MANY];
    memcpy(all, run.call[w], sizeof all);
    char *before = snapshot();
    for (int i = 0; i < count; i++) {
        if (!taken(i, count, per)) continue;
        // Neither fails: exit_group, rt_sigreturn.
        if (all[i].nr == 248 || all[i].nr == 173) continue;
        int error = i % (int)(sizeof ERRNO / sizeof *ERRNO);
        char what[128];
        snprintf(what, sizeof what, "%s's call %d (%u), %s", w == IN_CHILD ? "child" : "harness", i, all[i].nr, ERRNO[error].name);
        run.what = FAIL, run.where = w, run.at = i, run.error = ERRNO[error].e;
        once();
        done++;
        if (!run.acted) { bad("%s: not reached", what); continue; }
        if (run.status == 0) {
            needless++;
            if (!lives(run.task)) bad("%s: status 0, but the task does not live:\n%s", what, run.said);
            end_task();
        } else {
            failed++;
            if (run.status >= 128 || run.status < 80) bad("%s: exit status %d:\n%s", what, run.status, run.said);
            if (!strstr(run.said, "armrest: ")) bad("%s: no error is said:\n%s", what, run.said);
            if (run.status == 108) printf("%s: called internal: %s", what, run.said);
        }
        cleaned += clean(&before, what, w == IN_HARNESS);
    }
    printf("%s: %d of %d calls of the %s made to fail: %d times an error, %d times restored without; cleaned later: %d\n",
           sample, done, count, w == IN_CHILD ? "child" : "harness", failed, needless, cleaned);
    if (!failed) bad("none of them mattered");
}

// After the harness was killed: no child that is half restored.
static void after_kill(char **before, const char *what, int *restored, int *cleaned) {
    if (run.status != 128 + SIGKILL) bad("%s: exit status %d:\n%s", what, run.status, run.said);
    bool alive = false;
    if (!run.task && run.child) gone(run.child);
    if (run.task) {
        // A task that left the restorer lives without us, and in full: anything else must end.
        for (int i = 0; i < 3000 && lives(run.task); i++) {
            struct regs;
            char path[64];
            snprintf(path, sizeof path, "/proc/%d/status", run.task);
            FILE *f = fopen(path, "r");
            char line[256];
            alive = true;
            while (f && fgets(line, sizeof line, f))
                if (!strncmp(line, "SigBlk:\tffffffff", 16)) alive = false;
            if (f) fclose(f);
            if (alive) break;
            usleep(1000);
        }
        if (alive && lives(run.task)) {
            (*restored)++;
            uint32_t magic = 0;
            if (peek(run.task, code_start, &magic, 4) && !memcmp(&magic, "ARMB", 4)) bad("%s: the blob is still in the task", what);
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
        } else if (lives(run.task)) {
            bad("%s: the child lives, and is not restored", what);
            kill(run.task, SIGKILL);
            gone(run.task);
        }
    }
    *cleaned += clean(before, what, true);
}

static void mode_kill(bool signals) {
    int restored = 0, cleaned = 0, done = 0;
    static struct call all[MANY];
    int count = run.calls[IN_BLOB], ordinary = run.calls[IN_CHILD];
    memcpy(all, run.call[IN_BLOB], sizeof all);
    char *before = snapshot();
    bool seen[STEPS] = { false };
    for (int i = -ordinary; i < count; i++) {
        char what[128];
        if (i < 0) {
            if (!taken(i + ordinary, ordinary, 6)) continue;
            snprintf(what, sizeof what, "harness %s at the child's call %d", signals ? "interrupted" : "killed", i + ordinary);
        } else {
            if (seen[all[i].step] && i != count - 1) continue;
            seen[all[i].step] = true;
            snprintf(what, sizeof what, "harness %s in step %s", signals ? "interrupted" : "killed", STEP[all[i].step]);
        }
        run.where = i < 0 ? IN_CHILD : IN_BLOB;
        run.at = i < 0 ? i + ordinary : 0;
        run.step = i < 0 ? 0 : all[i].step;
        run.nr = i == count - 1 ? all[i].nr : 0;
        run.what = signals ? SIGNAL_HARNESS : KILL_HARNESS;
        run.sign = done % 2 ? SIGINT : SIGTERM;
        once();
        done++;
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
    printf("%s: %s at %d places", sample, signals ? "interrupted" : "killed", done);
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
    static struct call all[MANY];
    memcpy(all, run.call[IN_HARNESS], sizeof all);
    char *before = snapshot();
    for (int i = 0; i < count; i++) {
        if (!taken(i, count, per) && !makes(&all[i])) continue;
        for (int after = 0; after < 2; after++) {
            char what[128];
            snprintf(what, sizeof what, "harness killed %s its call %d (%u)", after ? "after" : "before", i, all[i].nr);
            if (all[i].nr == 248) continue;
            run.where = IN_HARNESS, run.at = i, run.what = KILL_SELF, run.after = after;
            once();
            done++;
            if (!run.acted) { bad("%s: not reached", what); continue; }
            after_kill(&before, what, &restored, &cleaned);
        }
    }
    printf("%s: the harness killed around %d of its %d calls; task restored nevertheless: %d; left something for clean: %d\n",
           sample, done / 2, count, restored, cleaned);
}

static void late(int sign) { (void)sign; }

int main(int argc, char **argv) {
    int dashes = 0, per = 3;
    for (int i = 1; i < argc && !dashes; i++) if (!strcmp(argv[i], "--")) dashes = i;
    if (dashes < 3 || argc < dashes + 2) {
        fprintf(stderr, "fault MODE SAMPLE [PER] -- armrest restore …\n");
        return 2;
    }
    struct sigaction act = { .sa_handler = late };
    sigaction(SIGALRM, &act, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    sample = argv[2];
    if (dashes > 3) per = atoi(argv[3]);
    command = argv + dashes + 1;
    for (char **a = command; *a; a++) if (!strcmp(*a, "--new-namespaces")) namespaces = true;
    const char *mode = argv[1];
    own_calls = !strcmp(mode, "harness") || !strcmp(mode, "killself");
    // The run that counts: its task ends at the last moment.
    char *before = snapshot();
    run.what = NOTHING;
    run.at = -1;
    run.end_task = !own_calls;
    once();
    run.end_task = false;
    if (!run.entered) {
        bad("the run that only counts: exit status %d:\n%s", run.status, run.said);
        return 1;
    }
    if (own_calls) end_task();
    clean(&before, "the run that only counts", true);
    if (!strcmp(mode, "blob")) mode_blob(per);
    else if (!strcmp(mode, "child")) mode_ordinary(IN_CHILD, per);
    else if (!strcmp(mode, "harness")) mode_ordinary(IN_HARNESS, per);
    else if (!strcmp(mode, "kill")) mode_kill(false);
    else if (!strcmp(mode, "term")) mode_kill(true);
    else if (!strcmp(mode, "killself")) mode_killself(per);
    else return 2;
    return failures != 0;
}
