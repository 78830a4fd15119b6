/* Code in a section that is writable and executable. */
#pragma GCC visibility push(hidden)
__asm__(".section .data.patched, \"awx\", %progbits\n.globl patched\n.hidden patched\npatched: bx lr\n.previous");
void patched(void);
int blob_main(void) { patched(); return 0; }
