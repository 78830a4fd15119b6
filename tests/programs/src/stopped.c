/* Jobs that are stopped: one of two threads by SIGSTOP, which its parent has not waited for yet; one in a group of its own by
 * SIGTSTP, which it has; and one that runs. Nobody is told again, and each goes on when it is told to. */
#include "check.h"
#include <pthread.h>
enum { FIRST, SECOND, JOB, RUNS, COUNTERS };
static struct board { volatile uint32_t n[COUNTERS]; volatile uint32_t back; } *board;
static volatile sig_atomic_t told;
static void on_chld(int s) { (void)s; told++; }
static void *count(void *n) { for (;;) { ++*(volatile uint32_t *)n; struct timespec t = {0, 2000000}; nanosleep(&t, 0); } return 0; }
static char state(pid_t pid) {
    char path[64], text[512]; snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY); ssize_t n = read(fd, text, sizeof text - 1); close(fd);
    if (n <= 0) return 0;
    text[n] = 0; char *end = strrchr(text, ')'); return end ? end[2] : 0;
}
static int moves(int i) {
    uint32_t was = board->n[i];
    for (int k = 0; k < 100; k++) { if (board->n[i] != was) return 1; tick(); }
    return 0;
}
static void two_threads(void) {
    pthread_t t; if (pthread_create(&t, 0, count, (void *)&board->n[SECOND])) _exit(3);
    count((void *)&board->n[FIRST]);
}
static void job(void) {
    setpgid(0, 0); raise(SIGTSTP);
    board->back++; count((void *)&board->n[JOB]);
}
int main(void) {
    board = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct sigaction a = {.sa_handler = on_chld, .sa_flags = SA_RESTART}; sigaction(SIGCHLD, &a, 0);
    pid_t threads, tstp, runs; int st; siginfo_t info;
    if (!(threads = fork())) two_threads();
    if (!(tstp = fork())) job();
    if (!(runs = fork())) count((void *)&board->n[RUNS]);
    if (!moves(FIRST) || !moves(SECOND) || waitpid(tstp, &st, WUNTRACED) != tstp || !WIFSTOPPED(st)) return 2;
    if (kill(threads, SIGSTOP) || waitid(P_PID, threads, &info, WSTOPPED | WNOWAIT)) return 2;
    tick(); uint32_t was[COUNTERS]; for (int i = 0; i < COUNTERS; i++) was[i] = board->n[i];
    int heard = told;
    start(); while (!stop) tick();
    CHECK(told == heard, "SIGCHLD: %d before, %d now", heard, (int)told);
    CHECK(state(threads) == 'T' && state(tstp) == 'T', "%c %c", state(threads), state(tstp));
    for (int i = 0; i < RUNS; i++) CHECK(board->n[i] == was[i], "counter %d: %u, then %u", i, was[i], board->n[i]);
    CHECK(moves(RUNS), "it does not run"); CHECK(!board->back, "the job went on");
    pid_t who = waitpid(threads, &st, WUNTRACED | WNOHANG);
    CHECK(who == threads && WIFSTOPPED(st) && WSTOPSIG(st) == SIGSTOP, "waitpid: %d, %x", (int)who, st);
    who = waitpid(tstp, &st, WUNTRACED | WNOHANG);
    CHECK(!who || (who == tstp && WIFSTOPPED(st) && WSTOPSIG(st) == SIGTSTP), "waitpid: %d, %x", (int)who, st);
    CHECK(!kill(threads, SIGCONT), "%s", strerror(errno));
    CHECK(waitpid(threads, &st, WCONTINUED) == threads && WIFCONTINUED(st), "%x", st);
    CHECK(moves(FIRST) && moves(SECOND), "the threads do not go on"); CHECK(!board->back, "the job went on");
    CHECK(getpgid(tstp) == tstp && !killpg(tstp, SIGCONT), "%s", strerror(errno));
    CHECK(moves(JOB) && board->back == 1, "the job does not go on: %u", board->back);
    pid_t all[] = {threads, tstp, runs};
    for (int i = 0; i < 3; i++) { kill(all[i], SIGKILL); CHECK(waitpid(all[i], &st, 0) == all[i] && WIFSIGNALED(st), "%d: %x", i, st); }
    return verdict();
}
