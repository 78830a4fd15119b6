/* Many processes: a parent with as many children as the end of the program's name says (troop8, troop199), each with
 * memory of its own, a pipe of its own from the parent, one to answer that all share, and a page that all see. */
#include "check.h"
#include <sys/prctl.h>
enum { MOST = 1000, OWN = 32 << 10, PAGE = 4096 };
static void serve(uint32_t k, int ask, int answer, volatile uint32_t *asked, char *old) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); pid_t parent = getppid();
    char *own = mmap(0, OWN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); fill(own, OWN, k); fill(old, PAGE, 5000 + k);
    for (uint32_t n; read(ask, &n, 4) == 4; asked[k]++) {
        uint32_t good = n == 7000 + k && getppid() == parent && differs(own, OWN, k) < 0 && differs(old, PAGE, 5000 + k) < 0 && differs(old + PAGE, PAGE, 1) < 0;
        uint32_t words[2] = {k, good}; if (write(answer, words, 8) != 8) _exit(99);
    }
    _exit(k % 90); /* the parent let go of the pipe */
}
int main(int argc, char **argv) {
    const char *digits = argc ? argv[0] + strcspn(argv[0], "0123456789") : ""; uint32_t count = atoi(digits), seen[MOST] = {0};
    static int to[MOST]; static pid_t pid[MOST]; int answer[2], ask[2], st; if (!count || count > MOST || pipe(answer)) return 2;
    volatile uint32_t *asked = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *old = mmap(0, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); fill(old, PAGE, 0); fill(old + PAGE, PAGE, 1);
    for (uint32_t k = 0; k < count; k++) {
        if (pipe(ask)) return 2;
        if (!(pid[k] = fork())) { for (uint32_t i = 0; i < k; i++) close(to[i]); close(ask[1]); close(answer[0]); serve(k, ask[0], answer[1], asked, old); }
        if (pid[k] < 0) return 2;
        close(ask[0]); to[k] = ask[1];
    }
    close(answer[1]); start(); while (!stop) tick();
    for (uint32_t k = 0; k < count; k++) { uint32_t n = 7000 + k; CHECK(write(to[k], &n, 4) == 4, "child %u: %s", k, strerror(errno)); }
    for (uint32_t i = 0; i < count; i++) { uint32_t w[2] = {MOST, 0}; CHECK(read(answer[0], w, 8) == 8 && w[0] < count && w[1], "answer %u of child %u", w[1], w[0]); if (w[0] < count) seen[w[0]]++; }
    for (uint32_t k = 0; k < count; k++) {
        CHECK(seen[k] == 1 && asked[k] <= 1, "child %u answered %u times", k, seen[k]); close(to[k]);
        CHECK(waitpid(pid[k], &st, 0) == pid[k] && WIFEXITED(st) && WEXITSTATUS(st) == (int)(k % 90), "child %u ended with %x", k, st);
    }
    CHECK(read(answer[0], &st, 1) == 0, "somebody still has the pipe"); CHECK(differs(old, PAGE, 0) < 0, "the parent's page");
    return verdict();
}
