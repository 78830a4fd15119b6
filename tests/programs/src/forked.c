/* A server that forked eight workers over its memory, and what became of it since: pages that all share, pages that one
 * side has written, pages that one has given back, memory that only one has, other rights, a worker's own child. Most pages
 * hold one word, so the images pack well. */
#include "check.h"
#include <sys/prctl.h>
enum { WORKERS = 8, PAGE = 4096, STEP = 30, OWN = 3, GONE = 2, LATE = 30, TABLE = 4, HEAP = 6000, GRAND = WORKERS };
struct board { volatile uint32_t go, done, bad[WORKERS + 1]; };
static struct board *b;
static char *big, *table, *heap;
static uint32_t pages = 128; /* or as many MiB as it is told */
static uint32_t early[1024] = {1};

static uint32_t *page(uint32_t n) { return (uint32_t *)(big + (size_t)n * PAGE); }
/* A page that nobody touches now is not there: the kernel shows no frame. */
static int there(const void *at) {
    static int map = -1; uint64_t e = 0;
    if (map < 0) map = open("/proc/self/pagemap", O_RDONLY);
    if (pread(map, &e, 8, (off_t)((uintptr_t)at / PAGE) * 8) != 8) return -1;
    return e >> 62 != 0;
}
/* An emulator's pages are its host's business: it has no sigpage. */
static int kernel(void) {
    static char maps[16384]; int fd = open("/proc/self/maps", O_RDONLY); size_t n = 0; ssize_t got;
    while ((got = read(fd, maps + n, sizeof maps - 1 - n)) > 0) n += (size_t)got;
    close(fd); maps[n] = 0; return strstr(maps, "[sigpage]") != 0;
}
/* Worker k writes pages k, k + STEP, ... and gives the one after each of these back; its child does the same as worker 8. */
static uint32_t first(int k) { return LATE + (uint32_t)k * 3; }
static void change(int k) {
    for (uint32_t i = 0; i < OWN; i++) { uint32_t n = first(k) + i * STEP; page(n)[0] = 7000 + (uint32_t)k * 100 + i; page(n)[1023] = n; }
    for (uint32_t i = 0; i < GONE; i++) madvise(page(first(k) + 1 + i * STEP), PAGE, MADV_DONTNEED);
}
/* What this process must see; k < 0: the parent. `from`: the worker that it comes from, too. */
static uint32_t wrong(int k, int from) {
    uint32_t bad = 0, gone = 0;
    int known = kernel();
    for (uint32_t n = 0; n < pages; n++) {
        uint32_t word = 1000000 + n, last = 0; int absent = 0;
        for (int who = 0; who < 2; who++) {
            int w = who ? k : from;
            if (w < 0 || n < first(w)) continue;
            uint32_t i = (n - first(w)) / STEP, off = (n - first(w)) % STEP;
            if (off == 0 && i < OWN) word = 7000 + (uint32_t)w * 100 + i, last = n, absent = 0;
            if (off == 1 && i < GONE) word = 0, last = 0, absent = 1;
        }
        if (k < 0 && n < 16) word = 5000 + n;           /* the parent's since the forks */
        if (k < 0 && n >= 16 && n < 24) word = 0, absent = 1;
        if (absent && known && there(page(n))) bad += 50000;
        gone += absent;
        if (page(n)[0] != word || page(n)[1023] != last || page(n)[512] != 0) bad++;
    }
    if (gone != (k < 0 ? 8u : k == GRAND ? 2u * GONE : (uint32_t)GONE)) bad += 100000;
    if (differs(table, TABLE * PAGE, 77) >= 0) bad += 1000;
    if (differs(heap, HEAP, 78) >= 0) bad += 10000;
    for (uint32_t i = 0; i < 1024; i++) if (early[i] != (i ? i * 3 : 1u)) bad += 1000000;
    return bad;
}
static void serve(int k) {
    int from = -1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    change(k);
    if (k == 0 && !fork()) { k = GRAND; from = 0; prctl(PR_SET_PDEATHSIG, SIGKILL); change(k); }
    if (k == 2) mprotect(table, TABLE * PAGE, PROT_READ);
    char *own = k == 4 ? mmap(0, 12 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : 0;
    if (own) fill(own, 12 * PAGE, 500);
    __atomic_add_fetch(&b->done, 1, __ATOMIC_SEQ_CST);
    while (!b->go) tick();
    b->bad[k] = wrong(k, from) + (own && differs(own, 12 * PAGE, 500) >= 0);
    /* Written now: nobody else may see it. */
    for (uint32_t n = 0; n < pages; n += 97) page(n)[2] = (uint32_t)k + 1;
    __atomic_add_fetch(&b->done, 1, __ATOMIC_SEQ_CST);
    while (b->go < 2) tick();
    for (uint32_t n = 0; n < pages; n += 97) if (page(n)[2] != (uint32_t)k + 1) b->bad[k]++;
    __atomic_add_fetch(&b->done, 1, __ATOMIC_SEQ_CST);
    for (;;) pause();
}
static void all(uint32_t n) { for (int i = 0; i < 1200 && b->done < n; i++) tick(); CHECK(b->done == n, "%u of %u came", b->done, n); }
int main(int argc, char **argv) {
    if (argc > 1) pages = (uint32_t)atoi(argv[1]) << 8;
    b = mmap(0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    big = mmap(0, (size_t)pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    table = mmap(0, TABLE * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    heap = sbrk(HEAP);
    if (big == MAP_FAILED || table == MAP_FAILED || heap == (void *)-1) return 2;
    for (uint32_t n = 0; n < pages; n++) page(n)[0] = 1000000 + n;
    fill(table, TABLE * PAGE, 77); fill(heap, HEAP, 78);
    for (uint32_t i = 1; i < 1024; i++) early[i] = i * 3;
    pid_t pid[WORKERS];
    for (int k = 0; k < WORKERS; k++) if (!(pid[k] = fork())) serve(k);
    all(WORKERS + 1);
    for (uint32_t n = 0; n < 16; n++) page(n)[0] = 5000 + n;
    madvise(page(16), 8 * PAGE, MADV_DONTNEED);
    start(); while (!stop) tick();
    CHECK(!wrong(-1, -1), "%u pages of the parent's are wrong", wrong(-1, -1));
    b->go = 1; all(2 * (WORKERS + 1));
    uint32_t seen = 0; for (uint32_t n = 0; n < pages; n++) seen += page(n)[2] != 0;
    CHECK(!seen, "%u pages that children wrote are the parent's too", seen);
    b->go = 2; all(3 * (WORKERS + 1));
    for (int k = 0; k <= WORKERS; k++) CHECK(!b->bad[k], "worker %d: %u", k, b->bad[k]);
    int st; for (int k = 0; k < WORKERS; k++) { CHECK(!kill(pid[k], SIGKILL), "worker %d", k); CHECK(waitpid(pid[k], &st, 0) == pid[k] && WIFSIGNALED(st), "worker %d: %x", k, st); }
    return verdict();
}
