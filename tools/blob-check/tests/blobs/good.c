/* Constants, calls, initialised and zeroed data, all by distance. */
#pragma GCC visibility push(hidden)
static const unsigned table[4] = { 3, 1, 4, 1 };
unsigned counter = 7, zeroed;
__attribute__((noinline)) unsigned step(unsigned n) { return table[n & 3] + counter++; }
int blob_main(void) { return (int)(zeroed += step(counter)); }
