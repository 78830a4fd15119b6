@ The entry of the blob, ARM state.

        .syntax unified
        .arch   armv7-a
        .arm

@ armrest_entry
@   in:       r0 = address of RestoreArgs; r1 = top of the blob's stack, any alignment; other registers: anything
@             so that a loader calls it as a C function: void entry(uint32_t args, uint32_t stack_top)
@   out:      does not return
@   clobbers: everything
@ All signals are blocked by the loader. The frame chain ends here: fp and lr are zero.
        .section .text.entry, "ax", %progbits
        .global armrest_entry
        .hidden armrest_entry
        .type   armrest_entry, %function
armrest_entry:
        bic     sp, r1, #7
        mov     fp, #0
        mov     lr, #0
        b       armrest_main
        .size   armrest_entry, . - armrest_entry

        .section .note.GNU-stack, "", %progbits
