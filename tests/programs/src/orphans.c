/* A subreaper with descendants whose relations outlived their makers: a daemon whose session leader is gone, two members
 * of a group whose leader is gone, a child born before its parent opened a session, a zombie killed by a signal. */
#include "check.h"
#include <sys/prctl.h>
struct seen { pid_t pid, ppid, sid, pgid; };
static struct seen *s; /* shared: what each one is, told by itself whenever asked */
static volatile int *ask;
static void live(int k) {
    signal(SIGTERM, SIG_DFL); int last = 0;
    for (;;) { if (*ask != last) { last = *ask; s[k] = (struct seen){getpid(), getppid(), getsid(0), getpgid(0)}; } struct timespec t = {0, 20000000}; nanosleep(&t, 0); }
}
static void look(struct seen *into, int n) { ++*ask; usleep(300000); memcpy(into, s, n * sizeof *into); }
int main(void) {
    enum { DAEMON, ONE, TWO, EARLY, LEADER, N };
    s = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0); ask = (int *)(s + N);
    if (prctl(PR_SET_CHILD_SUBREAPER, 1)) return 2;
    pid_t p; int st;
    if (!(p = fork())) { setsid(); if (!fork()) live(DAEMON); _exit(0); } waitpid(p, &st, 0);
    if (!(p = fork())) { setpgid(0, 0); if (!fork()) live(ONE); if (!fork()) live(TWO); _exit(0); } waitpid(p, &st, 0);
    pid_t leader = fork(); if (!leader) { if (!fork()) live(EARLY); setsid(); live(LEADER); }
    pid_t dead = fork(); if (!dead) for (;;) pause();
    kill(dead, SIGKILL); usleep(300000);
    struct seen before[N], after[N]; look(before, N);
    start(); while (!stop) tick();
    look(after, N);
    const char *name[N] = {"daemon", "one", "two", "early", "leader"};
    for (int k = 0; k < N; k++) CHECK(!memcmp(&before[k], &after[k], sizeof *after), "%s: was %d of %d, session %d, group %d; is %d of %d, session %d, group %d", name[k], before[k].pid, before[k].ppid, before[k].sid, before[k].pgid, after[k].pid, after[k].ppid, after[k].sid, after[k].pgid);
    CHECK(after[DAEMON].ppid == getpid() && after[DAEMON].sid != after[DAEMON].pid && after[DAEMON].sid != getsid(0), "a daemon");
    CHECK(after[ONE].pgid == after[TWO].pgid && after[ONE].pgid != after[ONE].pid && after[ONE].pgid != after[TWO].pid, "a group without its leader");
    CHECK(after[EARLY].sid == getsid(0) && after[LEADER].sid == leader, "sessions"); CHECK(waitpid(dead, &st, WNOHANG) == dead && WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL, "zombie %x", st);
    for (int k = 0; k < N; k++) { kill(after[k].pid, SIGKILL); } int reaped = 0; while (wait(&st) > 0) reaped++; CHECK(reaped == N, "%d of %d fell to the subreaper", reaped, N);
    return verdict();
}
