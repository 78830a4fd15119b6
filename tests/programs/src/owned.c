/* What a task owns in ways that only hold once everything else is there: signals of descriptors that go to another thread, another
 * process and its group; record locks and a lease on files that are mapped; memory files that are sealed and mapped; timer
 * descriptors, one of them on its way through a socket; a terminal that is locked and exclusive; datagrams to one who does not
 * answer; a name of a socket that is gone; private signals of a thread in their order. Dumped with --file-locks. */
#include "check.h"
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <termios.h>
#define MUST(c) do { if ((long)(c) < 0) { say("%s: %s\n", #c, strerror(errno)); exit(2); } } while (0)
enum { PAGE = 4096, ASKED = 40, TOLD = 41, GROUPED = 42, QUEUED = 43, WORKER = 3 };
static struct board { volatile int thread, child, group, asked_by, told_by; } *board;
static volatile pid_t worker_tid; static volatile int done; static int queued[8], queued_n;
static void *worker(void *x) {
    sigset_t s; sigemptyset(&s); sigaddset(&s, ASKED); sigaddset(&s, QUEUED); pthread_sigmask(SIG_BLOCK, &s, 0); prctl(PR_SET_NAME, "worker"); worker_tid = syscall(SYS_gettid); sigdelset(&s, QUEUED);
    /* QUEUED stays pending until the end. */
    while (!done) { struct timespec t = {0, 50000000}; siginfo_t i; if (sigtimedwait(&s, &i, &t) == ASKED) { board->thread++; board->asked_by = i.si_fd; } }
    sigemptyset(&s); sigaddset(&s, QUEUED); struct timespec no = {0, 0}; siginfo_t i;
    while (queued_n < 8 && sigtimedwait(&s, &i, &no) == QUEUED) queued[queued_n++] = i.si_value.sival_int;
    return x;
}
static void on_told(int n, siginfo_t *i, void *u) { (void)u; if (n == TOLD) { board->child++; board->told_by = i->si_fd; } else board->group++; }
static pid_t child(void) {
    pid_t p = fork(); if (p) return p;
    prctl(PR_SET_PDEATHSIG, SIGKILL); setpgid(0, 0); prctl(PR_SET_NAME, "child");
    struct sigaction a = {.sa_sigaction = on_told, .sa_flags = SA_SIGINFO | SA_RESTART}; sigaction(TOLD, &a, 0); sigaction(GROUPED, &a, 0);
    for (;;) pause();
}
static struct sockaddr_un name(const char *s) { struct sockaddr_un a = {.sun_family = AF_UNIX}; strcpy(a.sun_path, s); return a; }
static int bound(int type, const char *s) { struct sockaddr_un a = name(s); unlink(s); int fd = socket(AF_UNIX, type, 0); MUST(bind(fd, (void *)&a, sizeof a)); return fd; }
/* One end of a pair whose signals go to `type` `id`; the other is written to. */
static void owned(int s[2], int type, pid_t id, int sig) {
    struct f_owner_ex o = {type, id}; MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, s)); MUST(fcntl(s[0], F_SETSIG, sig)); MUST(fcntl(s[0], F_SETOWN_EX, &o)); MUST(fcntl(s[0], F_SETFL, O_ASYNC | O_RDWR));
}
static int rec(int fd, int cmd, int type, int from, int n, struct flock *l) { *l = (struct flock){type, SEEK_SET, from, n, 0}; return fcntl(fd, cmd, l); }
static int file(const char *name, int flags) { int fd = open(name, O_CREAT | O_RDWR, 0600); if (fd < 0 || ftruncate(fd, PAGE)) exit(2); close(fd); return open(name, flags); }
static int timer(int clock, int flags, int sec, int nsec, int every) { struct itimerspec t = {{0, every}, {sec, nsec}}; int fd = timerfd_create(clock, 0); MUST(timerfd_settime(fd, flags, &t, 0)); return fd; }
static double left(int fd) { struct itimerspec t; return fd < 0 || timerfd_gettime(fd, &t) ? -1 : t.it_value.tv_sec + t.it_value.tv_nsec / 1e9; }
static void pass(int s, int fd) {
    char b[CMSG_SPACE(4)] = {0}; struct iovec v = {"timer", 5}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = b, .msg_controllen = sizeof b};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m); c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(4); memcpy(CMSG_DATA(c), &fd, 4); MUST(sendmsg(s, &m, 0));
}
static int passed(int s) {
    char b[CMSG_SPACE(4)] = {0}, t[8]; int fd = -1; struct iovec v = {t, 8}; struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = b, .msg_controllen = sizeof b};
    if (recvmsg(s, &m, MSG_DONTWAIT) == 5 && CMSG_FIRSTHDR(&m)) memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), 4);
    return fd;
}
int main(void) {
    board = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)); pid_t c = child(); pthread_t w; pthread_create(&w, 0, worker, 0); while (!worker_tid) usleep(1000);
    for (int i = 0; i < WORKER; i++) { union sigval v = {70 + i}; MUST(pthread_sigqueue(w, QUEUED, v) ? -1 : 0); }
    int a[2], b[2], g[2]; usleep(100000); owned(a, F_OWNER_TID, worker_tid, ASKED); owned(b, F_OWNER_PID, c, TOLD); owned(g, F_OWNER_PGRP, c, GROUPED);
    struct flock l; int locked = file("locked", O_RDWR); char *m = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, locked, 0); MUST(rec(locked, F_SETLK, F_WRLCK, 10, 20, &l)); MUST(rec(locked, F_SETLK, F_RDLCK, 1000, 0, &l)); strcpy(m, "mapped and locked");
    int leased = file("leased", O_RDONLY); char *r = mmap(0, PAGE, PROT_READ, MAP_SHARED, leased, 0); MUST(fcntl(leased, F_SETLEASE, F_RDLCK));
    int later = memfd_create("later", MFD_ALLOW_SEALING), never = memfd_create("never", MFD_ALLOW_SEALING); MUST(ftruncate(later, 2 * PAGE)); MUST(ftruncate(never, PAGE)); MUST(write(never, "never", 5));
    char *wr = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, later, 0); fill(wr, 2 * PAGE, 7); MUST(fcntl(later, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK));
    char path[64]; snprintf(path, 64, "/proc/self/fd/%d", never); int ro = open(path, O_RDONLY); MUST(fcntl(never, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW)); char *rd = mmap(0, PAGE, PROT_READ, MAP_SHARED, ro, 0); close(ro); if (rd == MAP_FAILED) return 2;
    int far = timer(CLOCK_MONOTONIC, 0, 1000, 0, 0), wall = timer(CLOCK_REALTIME, TFD_TIMER_ABSTIME, time(0) + 5000, 0, 0), often = timer(CLOCK_BOOTTIME, 0, 0, 1, 90000000);
    int way[2]; MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, way)); int flying = timer(CLOCK_MONOTONIC, 0, 2000, 0, 0); pass(way[0], flying); close(flying);
    int pt = posix_openpt(O_RDWR | O_NOCTTY); char tty[64]; MUST(unlockpt(pt)); ptsname_r(pt, tty, sizeof tty); int s = open(tty, O_RDWR | O_NOCTTY); struct termios t; memset(&t, 0, sizeof t); t.c_lflag = ECHO | ISIG; t.c_cc[VINTR] = 1; MUST(ioctl(s, TIOCSLCKTRMIOS, &t)); MUST(ioctl(s, TIOCEXCL));
    int to = bound(SOCK_DGRAM, "to.sock"), from = bound(SOCK_DGRAM, "from.sock"); struct sockaddr_un at = name("to.sock"); MUST(connect(from, (void *)&at, sizeof at)); MUST(write(from, "one way", 7));
    int gone = bound(SOCK_STREAM, "gone.sock"); MUST(listen(gone, 3)); unlink("gone.sock");
    double before = left(far), jump = 0; start();
    while (!stop) { double now = left(far); if (before - now > jump) jump = before - now; before = now; uint64_t n; if (poll(&(struct pollfd){often, POLLIN, 0}, 1, 20) == 1 && read(often, &n, 8) != 8) break; }
    CHECK(jump < 2.5, "the timer lost %d ms at once", (int)(jump * 1000)); CHECK(before > 900 && before < 1000, "%d s left", (int)before); double x = left(wall); CHECK(x > 4000 && x <= 5000, "%d s left of the clock on the wall", (int)x);
    int got = passed(way[1]); x = left(got); CHECK(x > 1900 && x < 2000, "in flight: %d, %d s left", got, (int)x); uint64_t n = 0; struct timespec t0, t1; clock_gettime(CLOCK_MONOTONIC, &t0); usleep(250000); int r8 = read(often, &n, 8); clock_gettime(CLOCK_MONOTONIC, &t1); int ms = (t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000; CHECK(r8 == 8 && (int)n >= ms / 90 - 1 && (int)n <= ms / 90 + 2, "every 90 ms: %d in %d", (int)n, ms);
    struct f_owner_ex o = {0}; CHECK(!fcntl(a[0], F_GETOWN_EX, &o) && o.type == F_OWNER_TID && o.pid == worker_tid, "owner %d %d", o.type, o.pid); CHECK(!fcntl(b[0], F_GETOWN_EX, &o) && o.type == F_OWNER_PID && o.pid == c, "owner %d %d", o.type, o.pid); CHECK(!fcntl(g[0], F_GETOWN_EX, &o) && o.type == F_OWNER_PGRP && o.pid == c && getpgid(c) == c, "owner %d %d", o.type, o.pid);
    CHECK(!board->thread && !board->child && !board->group, "signals before anything was written: %d %d %d", board->thread, board->child, board->group); MUST(write(a[1], "x", 1)); MUST(write(b[1], "x", 1)); MUST(write(g[1], "x", 1)); usleep(300000);
    CHECK(board->thread == 1 && board->child == 1 && board->group == 1, "signals: %d %d %d", board->thread, board->child, board->group); CHECK(board->asked_by == a[0] && board->told_by == b[0], "of descriptors %d %d, not %d %d", board->asked_by, board->told_by, a[0], b[0]);
    int so_far = failures; pid_t k = fork(); if (!k) {
        CHECK(!rec(locked, F_GETLK, F_WRLCK, 0, 100, &l) && l.l_type == F_WRLCK && l.l_start == 10 && l.l_len == 20 && l.l_pid == getppid(), "record: %d %d %d of %d", l.l_type, (int)l.l_start, (int)l.l_len, l.l_pid); CHECK(!rec(locked, F_GETLK, F_WRLCK, 500, 0, &l) && l.l_type == F_RDLCK && l.l_start == 1000 && l.l_len == 0, "record: %d %d %d", l.l_type, (int)l.l_start, (int)l.l_len);
        int e = open(tty, O_RDWR | O_NOCTTY); CHECK(e >= 0, "root opens an exclusive terminal: %s", strerror(errno)); close(e); MUST(chmod(tty, 0666)); MUST(setuid(1000)); e = open(tty, O_RDWR | O_NOCTTY); CHECK(e < 0 && errno == EBUSY, "an exclusive terminal was opened: %s", strerror(errno)); _exit(failures != so_far);
    }
    int st; CHECK(waitpid(k, &st, 0) == k && !st, "status %x", st); CHECK(!strcmp(m, "mapped and locked"), "mapping"); CHECK(fcntl(leased, F_GETLEASE) == F_RDLCK && *r == 0, "lease %d", fcntl(leased, F_GETLEASE));
    CHECK(fcntl(later, F_GET_SEALS) == (F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK), "seals %x", fcntl(later, F_GET_SEALS)); CHECK(differs(wr, 2 * PAGE, 7) < 0, "contents"); wr[5] = 'w'; char one = 0; CHECK(pread(later, &one, 1, 5) == 1 && one == 'w', "not one object"); CHECK(write(later, "x", 1) < 0 && mmap(0, PAGE, PROT_WRITE, MAP_SHARED, later, 0) == MAP_FAILED, "written to");
    CHECK(fcntl(never, F_GET_SEALS) == (F_SEAL_WRITE | F_SEAL_GROW), "seals %x", fcntl(never, F_GET_SEALS)); CHECK(!strcmp(rd, "never") && pwrite(never, "x", 1, 0) < 0, "contents"); CHECK(mprotect(rd, PAGE, PROT_READ | PROT_WRITE) < 0, "made writable");
    struct termios lk; CHECK(!ioctl(s, TIOCGLCKTRMIOS, &lk) && lk.c_lflag == t.c_lflag && lk.c_cc[VINTR] == 1, "locked %x %d", lk.c_lflag, lk.c_cc[VINTR]); int ex = 0; CHECK(!ioctl(s, TIOCGEXCL, &ex) && ex, "exclusive %d", ex); struct termios mode; tcgetattr(s, &mode); unsigned was = mode.c_lflag; MUST(ioctl(s, TIOCSLCKTRMIOS, &t)); mode.c_lflag ^= ECHO | ICANON; tcsetattr(s, TCSANOW, &mode); tcgetattr(s, &mode); CHECK(mode.c_lflag == (was ^ ICANON), "modes %x, then %x", was, mode.c_lflag);
    /* Who sent what waits is not in the images. */
    char d[32]; struct sockaddr_un who; socklen_t len; CHECK(recv(to, d, 32, MSG_DONTWAIT) == 7 && !memcmp(d, "one way", 7), "what waits"); CHECK(write(from, "again", 5) == 5 && read(to, d, 32) == 5, "the way: %s", strerror(errno)); memset(&who, 0, sizeof who); len = sizeof who; CHECK(write(from, "once more", 9) == 9 && recvfrom(to, d, 32, MSG_DONTWAIT, (void *)&who, &len) == 9 && !strcmp(who.sun_path, "from.sock"), "a datagram of %s", who.sun_path); CHECK(getpeername(to, (void *)&who, &len) < 0, "it has a peer");
    memset(&who, 0, sizeof who); len = sizeof who; CHECK(!getsockname(gone, (void *)&who, &len) && !strcmp(who.sun_path, "gone.sock"), "name %s", who.sun_path); CHECK(access("gone.sock", F_OK) < 0, "the name is there again");
    CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1, "huge pages");
    done = 1; pthread_join(w, 0); CHECK(queued_n == WORKER && queued[0] == 70 && queued[1] == 71 && queued[2] == 72, "queued: %d, %d %d %d", queued_n, queued[0], queued[1], queued[2]);
    CHECK(!kill(c, SIGKILL) && waitpid(c, &st, 0) == c && WIFSIGNALED(st), "the child: %x", st);
    return verdict();
}
