/* Processes with one descriptor table: a parent, its child, a grandchild, and one whose maker is gone with the session that
 * it led. A second child has a table to itself, and shares that one with a child of its own. */
#include "check.h"
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
enum { PARENT, CHILD, GRAND, ORPHAN, OTHER, NEPHEW, N };
static const char *name[N] = {"parent", "child", "grandchild", "orphan", "other", "nephew"};
enum order { OPEN, DUP, CLOSE, PEEK, CLOEXEC, FLAGS, LOCK, LOCKER, PIPE, WATCH, READY };
/* Shared memory: everybody does what it is told, in its own process. */
static struct box { volatile int told, done; enum order what; int fd, arg, result, error; pid_t pid; char path[32]; } *box;

static int obey(struct box *b) {
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 4}; struct epoll_event e = {.events = EPOLLIN, .data.u64 = b->arg}; char c; int two[2];
    switch (b->what) {
    case OPEN: return open(b->path, O_RDWR | O_CREAT, 0644);
    case DUP: return fcntl(b->fd, F_DUPFD, b->arg);
    case CLOSE: return close(b->fd);
    case PEEK: return read(b->fd, &c, 1) == 1 ? c : -1;
    case CLOEXEC: return fcntl(b->fd, F_SETFD, FD_CLOEXEC);
    case FLAGS: return fcntl(b->fd, F_GETFD);
    case LOCK: return fcntl(b->fd, F_SETLK, &l);
    case LOCKER: return fcntl(b->fd, F_GETLK, &l) ? -1 : l.l_type == F_UNLCK ? 0 : l.l_pid;
    case PIPE: return pipe(two) || write(two[1], "pipe", 4) != 4 ? -1 : two[0];
    case WATCH: { int set = epoll_create1(0); return epoll_ctl(set, EPOLL_CTL_ADD, b->fd, &e) ? -1 : set; }
    case READY: return epoll_wait(b->fd, &e, 1, 0) == 1 ? (int)e.data.u64 : -1;
    }
    return -1;
}
static void live(int k) {
    signal(SIGTERM, SIG_DFL); struct box *b = &box[k]; b->pid = getpid();
    for (;;) { if (b->told != b->done) { b->result = obey(b); b->error = errno; b->done = b->told; } struct timespec t = {0, 1000000}; nanosleep(&t, 0); }
}
static int tell(int k, enum order what, int fd, int arg, const char *path) {
    struct box *b = &box[k]; b->what = what; b->fd = fd; b->arg = arg; if (path) strcpy(b->path, path);
    if (k == PARENT) { b->result = obey(b); b->error = errno; return b->result; }
    b->told++; for (int i = 0; i < 5000 && b->done != b->told; i++) usleep(1000);
    CHECK(b->done == b->told, "%s does not answer", name[k]); errno = b->error; return b->result;
}
static pid_t sharer(void) { return syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0); }
/* Who has this descriptor, a bit each. */
static unsigned have(int fd) { unsigned who = 0; for (int k = 0; k < N; k++) who |= (tell(k, FLAGS, fd, 0, 0) >= 0) << k; return who; }
enum { ONE = 1 << PARENT | 1 << CHILD | 1 << GRAND | 1 << ORPHAN, TWO = 1 << OTHER | 1 << NEPHEW };
#define HAVE(fd, who) do { unsigned h = have(fd); CHECK(h == (who), "fd %d of %x", fd, h); } while (0)

int main(void) {
    box = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1)) return 2;
    int st; pid_t p, other = fork();
    if (!other) { if (!sharer()) live(NEPHEW); live(OTHER); }
    pid_t child = sharer(); if (!child) { if (!sharer()) live(GRAND); live(CHILD); }
    if (!(p = sharer())) { setsid(); if (!sharer()) live(ORPHAN); _exit(0); }
    waitpid(p, &st, 0); usleep(300000);
    int notes = tell(CHILD, OPEN, 0, 0, "notes"); CHECK(write(notes, "0123456789", 10) == 10 && lseek(notes, 3, SEEK_SET) == 3, "notes");
    int copy = tell(GRAND, DUP, notes, 40, 0), own = tell(OTHER, OPEN, 0, 0, "notes"), in = tell(ORPHAN, PIPE, 0, 0, 0), set = tell(CHILD, WATCH, in, 77, 0);
    int gone = tell(ORPHAN, OPEN, 0, 0, "gone"); CHECK(write(gone, "gone", 4) == 4 && !unlink("gone") && lseek(gone, 0, SEEK_SET) == 0, "gone");
    CHECK(!tell(GRAND, CLOEXEC, copy, 0, 0) && !tell(CHILD, LOCK, notes, 0, 0) && !tell(NEPHEW, CLOEXEC, own, 0, 0), "flags and lock");
    HAVE(notes, ONE | (notes == own ? TWO : 0)); HAVE(copy, ONE); HAVE(gone, ONE);
    start(); while (!stop) tick();
    for (int k = 0; k < N; k++) CHECK(tell(k, FLAGS, 1, 0, 0) == 0, "%s: fd 1", name[k]);
    HAVE(copy, ONE); HAVE(in, ONE); HAVE(set, ONE); HAVE(gone, ONE);
    /* What was there is one thing for all: position, flags of the table, lock, what waits. */
    CHECK(tell(GRAND, PEEK, copy, 0, 0) == '3' && tell(PARENT, PEEK, notes, 0, 0) == '4' && tell(NEPHEW, PEEK, own, 0, 0) == '0', "positions");
    for (int k = 0; k < OTHER; k++) CHECK(tell(k, FLAGS, copy, 0, 0) == FD_CLOEXEC && tell(k, FLAGS, notes, 0, 0) == 0, "%s: flags", name[k]);
    for (int k = 0; k < OTHER; k++) CHECK(tell(k, LOCKER, notes, 0, 0) == 0, "%s: the lock is its own, held by %d", name[k], box[k].result);
    /* Whose table it is: the dumper says it of the first that has the table, whoever took the lock. */
    for (int k = OTHER; k < N; k++) { int by = tell(k, LOCKER, own, 0, 0); CHECK(by == getpid() || by == child, "%s: locked by %d", name[k], by); }
    CHECK(tell(ORPHAN, READY, set, 0, 0) == 77 && tell(CHILD, PEEK, in, 0, 0) == 'p' && tell(PARENT, PEEK, in, 0, 0) == 'i', "pipe and epoll set");
    CHECK(tell(PARENT, PEEK, gone, 0, 0) == 'g' && tell(GRAND, PEEK, gone, 0, 0) == 'o', "a deleted file");
    /* What one opens, others see; what one closes is gone for all. */
    for (int k = 0; k < OTHER; k++) {
        int fd = tell(k, DUP, notes, 60 + k, 0); CHECK(fd == 60 + k, "%s: dup: %d", name[k], fd); HAVE(fd, ONE);
        int by = (k + 1) % OTHER; CHECK(!tell(by, CLOSE, fd, 0, 0), "%s: close: %s", name[by], strerror(errno)); HAVE(fd, 0);
    }
    int fd = tell(NEPHEW, DUP, own, 80, 0); CHECK(fd == 80, "dup: %d", fd); HAVE(fd, TWO); CHECK(!tell(OTHER, CLOSE, fd, 0, 0), "close"); HAVE(fd, 0);
    CHECK(tell(NEPHEW, FLAGS, own, 0, 0) == FD_CLOEXEC, "the other table's flags"); CHECK(!tell(ORPHAN, CLOSE, gone, 0, 0), "close"); HAVE(gone, 0);
    /* A restore leaves no descriptor of its own. */
    for (int k = 0; k < N; k += OTHER) { int open = 0; for (int i = 0; i < 100; i++) open += tell(k, FLAGS, i, 0, 0) >= 0; CHECK(open == (k ? 4 : 8), "%s: %d descriptors", name[k], open); }
    CHECK(getsid(box[ORPHAN].pid) == p, "the orphan's session");
    for (int k = N - 1; k > 0; k--) kill(box[k].pid, SIGKILL);
    int reaped = 0; while (wait(&st) > 0) reaped++; CHECK(reaped >= 3, "%d children", reaped);
    return verdict();
}
