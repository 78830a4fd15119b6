/* A symbol of default visibility in position-independent code is reached through the GOT. */
int looked_up = 5;
int *find(void) { return &looked_up; }
__attribute__((visibility("hidden"))) int blob_main(void) { return *find(); }
