/* An entry that calls C, and an exit routine in page 0; the header is written by blob.ld. */
        .syntax unified
        .arm
        .section .exit, "ax", %progbits
        .globl  exit_routine
        .hidden exit_routine
exit_routine:
        mov     r7, #1
        svc     #0

        .section .text.entry, "ax", %progbits
        .globl  entry
        .hidden entry
        .type   entry, %function
entry:  bl      blob_main
        b       exit_routine
        .size   entry, . - entry

        .section .note.GNU-stack, "", %progbits
