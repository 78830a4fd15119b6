/* One process of two threads that has stopped itself. It goes on when it is told to, and the other thread did not run. */
#include "check.h"
#include <pthread.h>
static volatile uint32_t n, at_stop, at_cont; static volatile sig_atomic_t told;
static void on_cont(int s) { (void)s; at_cont = n; told++; }
static void *count(void *x) { for (;;) { n++; struct timespec t = {0, 2000000}; nanosleep(&t, 0); } return x; }
int main(void) {
    pthread_t t; signal(SIGCONT, on_cont);
    if (pthread_create(&t, 0, count, 0)) return 3;
    while (n < 100) tick();
    start(); at_stop = n; raise(SIGSTOP);
    while (!stop) tick();
    CHECK(told == 1, "SIGCONT: %d", (int)told);
    CHECK(at_cont - at_stop < 20, "the other thread ran while all were stopped: %u to %u", at_stop, at_cont);
    CHECK(n > at_cont, "the other thread does not go on");
    return verdict();
}
