/* What the kernel was told once and acts on later: lists of robust mutexes whose owners die after the restore, restartable
 * sequences (one is dumped inside), a membarrier registration, no huge pages. */
#include "check.h"
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
enum { PRIVATE_EXPEDITED = 8, REGISTER_PRIVATE_EXPEDITED = 16 };
struct shared { pthread_mutex_t mutex; volatile int held; };
static struct shared *shared; static pthread_mutex_t own; static volatile int go, holds, aborts, waited = -1;

static void robust(pthread_mutex_t *m, int pshared) {
    pthread_mutexattr_t a; pthread_mutexattr_init(&a); pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST); pthread_mutexattr_setpshared(&a, pshared);
    pthread_mutex_init(m, &a);
}
static struct rseq *area(void) { return (void *)((char *)__builtin_thread_pointer() + __rseq_offset); }
/* Each thread's area is registered, and the kernel writes the CPU's number there when it comes back from elsewhere. */
static void registered(const char *who) {
    struct rseq *r = area(); *(volatile uint32_t *)&r->cpu_id = 0x777; *(volatile uint32_t *)&r->cpu_id_start = 0x777; tick();
    CHECK(r->cpu_id < 8 && r->cpu_id_start < 8, "%s: CPU %x, %x", who, r->cpu_id, r->cpu_id_start);
    CHECK(syscall(SYS_rseq, r, 32, 0, RSEQ_SIG) == -1 && errno == EBUSY, "%s: rseq: %s", who, strerror(errno));
}
/* Holds a mutex, and ends as the kernel ends a thread, without giving it back. */
static void *holder(void *a) {
    (void)a; pthread_mutex_lock(&own); holds = 1; while (!go) syscall(SYS_futex, &go, 128, 0, 0, 0, 0);
    registered("the holder"); syscall(SYS_exit, 0); return 0;
}
/* Waits for the mutex that another process holds. */
static void *waiter(void *a) { (void)a; waited = pthread_mutex_lock(&shared->mutex); return 0; }
/* Spends its time inside a restartable sequence, which the main thread's ticks abort. */
static void *__attribute__((noinline)) restarting(void *a) {
    (void)a; extern struct rseq_cs section; uint32_t *link = (void *)&area()->rseq_cs;
    asm volatile(".pushsection .data\n .balign 32\n section: .long 0, 0, 3f, 0, 4f - 3f, 0, 2f, 0\n .popsection\n"
                 "b 5f\n .long 0xe7f5def3\n"                          /* RSEQ_SIG: before a handler that may be gone to */
                 "2: ldr r4, [%1]\n add r4, r4, #1\n str r4, [%1]\n" /* aborted, and counted */
                 "5: str %2, [%0]\n"
                 "3: ldr r4, [%3]\n cmp r4, #0\n beq 3b\n"           /* the section: until it is told to go on */
                 "4:\n" :: "r"(link), "r"(&aborts), "r"(&section), "r"(&go) : "r4", "memory", "cc");
    registered("the restarting thread"); return 0;
}
int main(void) {
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    CHECK(syscall(SYS_membarrier, PRIVATE_EXPEDITED, 0, 0) == -1 && errno == EPERM, "registered before");
    CHECK(!syscall(SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0), "membarrier: %s", strerror(errno));
    shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    robust(&own, PTHREAD_PROCESS_PRIVATE); robust(&shared->mutex, PTHREAD_PROCESS_SHARED);
    pid_t child = fork(); if (!child) { pthread_mutex_lock(&shared->mutex); shared->held = 1; for (;;) pause(); }
    while (!shared->held) tick();
    pthread_t h, w, r; pthread_create(&h, 0, holder, 0); while (!holds) tick();
    pthread_create(&w, 0, waiter, 0); pthread_create(&r, 0, restarting, 0);
    while (aborts < 3) tick();
    CHECK(pthread_mutex_trylock(&own) == EBUSY, "the mutex is free");
    start(); while (!stop) tick();
    int then = aborts, st; for (int i = 0; i < 40 && aborts == then; i++) tick(); CHECK(aborts > then, "%d sequences aborted, no more", aborts);
    registered("the main thread"); CHECK(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1, "huge pages");
    CHECK(!syscall(SYS_membarrier, PRIVATE_EXPEDITED, 0, 0), "membarrier: %s", strerror(errno));
    CHECK(waited == -1, "the mutex of the child: %d", waited);
    CHECK(!kill(child, SIGKILL) && waitpid(child, &st, 0) == child && WIFSIGNALED(st), "the child: %x", st);
    for (int i = 0; i < 40 && waited == -1; i++) tick();
    CHECK(waited == EOWNERDEAD, "the mutex of the child: %d", waited);
    go = 1; syscall(SYS_futex, &go, 129, 1 << 20, 0, 0, 0); int own_now = pthread_mutex_trylock(&own);
    for (int i = 0; i < 40 && own_now == EBUSY; i++) { tick(); own_now = pthread_mutex_trylock(&own); }
    CHECK(own_now == EOWNERDEAD, "the mutex of the thread: %d", own_now); pthread_join(r, 0);
    return verdict();
}
