/* A pointer in initialised data: its value is known only when the blob is loaded. */
#pragma GCC visibility push(hidden)
int pointed_at;
int *the_pointer = &pointed_at;
int blob_main(void) { return *the_pointer; }
