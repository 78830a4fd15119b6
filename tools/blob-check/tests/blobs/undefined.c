/* A call of a function that nobody has. */
void nobody_has_this(void);
__attribute__((visibility("hidden"))) int blob_main(void) { nobody_has_this(); return 0; }
