/* What a restore is compared with, and the clock. `bench WHAT …` prints one line of numbers.
 *
 *   pages COUNT              so many pages of noise on standard output
 *   run CMD…                 fork, exec, wait: nanoseconds, peak resident KiB of the command
 *   fill FILE                map fresh memory, preadv FILE into it: nanoseconds
 *   vmas FILE AT COUNT FULL  COUNT mmap2 calls of a page each, the preadv calls for their contents, which lie in FILE
 *                            from AT on, and the mprotect calls: nanoseconds. FULL 0: every second VMA has contents. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, MOST = 64 << 20, IOVECS = 1024 };

#define MUST(c) ((c) ? (void)0 : (perror(#c), exit(1)))

static long long now(void)
{
    struct timespec t;
    MUST(!clock_gettime(CLOCK_MONOTONIC, &t));
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void pages(long count)
{
    static uint32_t page[PAGE / 4];
    uint32_t x = 1;
    while (count-- > 0) {
        for (int i = 0; i < PAGE / 4; i++)
            page[i] = x = x * 1664525 + 1013904223;
        MUST(fwrite(page, PAGE, 1, stdout) == 1);
    }
}

static void run(char **command)
{
    struct rusage usage;
    int status;
    long long start = now();
    pid_t pid = fork();
    MUST(pid >= 0);
    if (pid == 0) {
        execvp(command[0], command);
        _exit(127);
    }
    MUST(wait4(pid, &status, 0, &usage) == pid);
    printf("%lld %ld\n", now() - start, usage.ru_maxrss);
    exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static void fill(const char *path)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    MUST(fd >= 0 && !fstat(fd, &st));
    long long start = now();
    char *at = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(at != MAP_FAILED);
    for (off_t done = 0; done < st.st_size;) {
        struct iovec v = {at + done, st.st_size - done < MOST ? st.st_size - done : MOST};
        ssize_t n = preadv(fd, &v, 1, done);
        MUST(n > 0);
        done += n;
    }
    printf("%lld\n", now() - start);
}

/* The neighbours of a page with contents have none or the next page of the file, so a run is one iovec. */
static void vmas(const char *path, long long at, long count, int full)
{
    static struct iovec v[IOVECS];
    char *base = (char *)0x10000000;
    int fd = open(path, O_RDONLY);
    MUST(fd >= 0);
    long long start = now();
    for (long i = 0; i < count; i++) {
        int prot = i % 2 && !full ? PROT_READ : PROT_READ | PROT_WRITE;
        char *place = base + i * PAGE;
        MUST(mmap(place, PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == place);
    }
    if (full) {
        for (long done = 0; done < count * PAGE;) {
            struct iovec all = {base + done, count * PAGE - done < MOST ? count * PAGE - done : MOST};
            ssize_t n = preadv(fd, &all, 1, at + done);
            MUST(n > 0);
            done += n;
        }
        for (long i = 1; i < count; i += 2)
            MUST(!mprotect(base + i * PAGE, PAGE, PROT_READ));
    } else {
        for (long i = 0; i < count;) {
            int n = 0;
            for (; n < IOVECS && i < count; n++, i += 2)
                v[n] = (struct iovec){base + i * PAGE, PAGE};
            MUST(preadv(fd, v, n, at) == n * PAGE);
            at += n * PAGE;
        }
    }
    printf("%lld\n", now() - start);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "pages") && argc == 3)
        pages(atol(argv[2]));
    else if (!strcmp(what, "run") && argc > 2)
        run(argv + 2);
    else if (!strcmp(what, "fill") && argc == 3)
        fill(argv[2]);
    else if (!strcmp(what, "vmas") && argc == 6)
        vmas(argv[2], atoll(argv[3]), atol(argv[4]), atoi(argv[5]));
    else
        return 2;
    return fflush(stdout) != 0;
}
