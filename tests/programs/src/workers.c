/* A server that forked its workers: four of them wait in accept on one listening socket, and share memory with their
 * parent, some of it written since by one side or the other. */
#include "check.h"
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
enum { WORKERS = 4, BIG = 512 << 10, PAGE = 4096 };
struct board { volatile uint32_t served[WORKERS]; };
static struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "socket"};

static int ask(uint32_t *n, uint32_t *worker) {
    int s = socket(AF_UNIX, SOCK_STREAM, 0); uint32_t answer[2];
    if (connect(s, (void *)&at, sizeof at) || write(s, n, 4) != 4 || read(s, answer, 8) != 8) return -1;
    close(s); *n = answer[0]; *worker = answer[1]; return 0;
}
static void serve(int listening, struct board *b, char *big, int k) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    fill(big + k * PAGE, PAGE, 100 + k);
    for (;;) {
        int c = accept(listening, 0, 0); uint32_t n;
        if (c < 0) continue;
        if (read(c, &n, 4) == 4) {
            /* Its own page, and one that all share with the parent. */
            uint32_t good = differs(big + k * PAGE, PAGE, 100 + k) < 0 && *(uint32_t *)(big + BIG / 2) == pattern(50, BIG / 8);
            uint32_t answer[2] = {good ? n + 1 : 0, k}; b->served[k]++;
            if (write(c, answer, 8) != 8) _exit(3);
        }
        close(c);
    }
}
int main(void) {
    struct board *b = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char *big = mmap(0, BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); fill(big, BIG, 50);
    int listening = socket(AF_UNIX, SOCK_STREAM, 0); unlink(at.sun_path);
    if (bind(listening, (void *)&at, sizeof at) || listen(listening, 16)) return 2;
    pid_t pid[WORKERS];
    for (int k = 0; k < WORKERS; k++) if (!(pid[k] = fork())) serve(listening, b, big, k);
    fill(big + (WORKERS + 1) * PAGE, PAGE, 60); /* the parent's since the fork */
    start(); while (!stop) tick();
    uint32_t n, w = 0, seen = 0;
    for (int i = 0; i < 40; i++) { n = 1000 + i; CHECK(!ask(&n, &w), "asked: %s", strerror(errno)); CHECK(n == 1001u + i, "answer %u of worker %u", n, w); seen |= 1 << w; }
    CHECK(seen, "nobody served"); uint32_t sum = 0; for (int k = 0; k < WORKERS; k++) sum += b->served[k]; CHECK(sum == 40, "%u served", sum);
    CHECK(differs(big + (WORKERS + 1) * PAGE, PAGE, 60) < 0, "the parent's page"); size_t bad = 0, from = (WORKERS + 1) * PAGE / 4;
    for (size_t i = 0; i < BIG / 4; i++) bad += (i < from || i >= from + PAGE / 4) && ((uint32_t *)big)[i] != pattern(50, i);
    CHECK(!bad, "%zu words differ", bad);
    int st; for (int k = 0; k < WORKERS; k++) { CHECK(!kill(pid[k], SIGKILL), "worker %d", k); CHECK(waitpid(pid[k], &st, 0) == pid[k] && WIFSIGNALED(st), "worker %d: %x", k, st); }
    return verdict();
}
