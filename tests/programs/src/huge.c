/* Private huge pages (hugetlb): a kernel has them that was built for LPAE. */
#include "check.h"
enum { HUGE = 2 << 20 };
static int is_huge(const void *at) {
    char l[256], want[16]; snprintf(want, sizeof want, "%08lx-", (unsigned long)at); int in = 0, kib = 0;
    FILE *f = fopen("/proc/self/smaps", "r"); while (fgets(l, sizeof l, f)) { if (!strncmp(l, want, 9)) in = 1; if (in && sscanf(l, "KernelPageSize: %d", &kib)) break; }
    fclose(f); return kib == 2048;
}
int main(void) {
    char *p = mmap(0, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (p == MAP_FAILED) { say("no huge pages: %s\n", strerror(errno)); return 2; }
    fill(p, 4096, 1); fill(p + HUGE - 4096, 4096, 2); fill(p + 2 * HUGE - 4096, 4096, 3); mprotect(p + HUGE, HUGE, PROT_READ);
    start(); while (!stop) tick();
    CHECK(is_huge(p) && is_huge(p + HUGE), "not of huge pages");
    CHECK(differs(p, 4096, 1) < 0 && differs(p + HUGE - 4096, 4096, 2) < 0 && differs(p + 2 * HUGE - 4096, 4096, 3) < 0, "contents");
    long other = 0; for (long i = 4096; i < HUGE - 4096; i++) other += p[i] != 0; CHECK(!other, "%ld bytes of others", other);
    int nul = open("/dev/zero", O_RDONLY); CHECK(read(nul, p + HUGE, 4) == -1 && errno == EFAULT, "the second page can be written to");
    p[5] = 9; CHECK(p[5] == 9, "the first page cannot be written to");
    return verdict();
}
