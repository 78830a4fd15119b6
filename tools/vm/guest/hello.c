/* The least that a new program costs: what `counter` is compared with. */
#include <stdio.h>

int main(void) { return puts("hello") < 0; }
