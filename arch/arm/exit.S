@ The last instructions of a restore. Linked into page 0 of the blob, the page that stays mapped.

        .syntax unified
        .arch   armv7-a
        .arm

        .equ    NR_close, 6
        .equ    NR_munmap, 91
        .equ    NR_rt_sigreturn, 173
        .equ    NR_exit_group, 248
        .equ    EXIT_CODE, 112          @ Report::EXIT_CODE

@ armrest_exit
@   in:       r0 = start and r1 = bytes of what is unmapped: everything of ours but this page
@             r2 = report descriptor to close, none if negative
@             r3 = address of the signal frame, 8-aligned, in this page
@   out:      does not return: the task runs with the frame's registers; if a call fails, exit_group(112)
@   clobbers: everything
@ Uses no stack and no data, since the first call takes both away. Position-independent.
        .section .exit, "ax", %progbits
        .global armrest_exit
        .hidden armrest_exit
        .type   armrest_exit, %function
armrest_exit:
        mov     r4, r2
        mov     r5, r3
        mov     r7, #NR_munmap
        svc     #0
        cmp     r0, #0
        bne     1f
        movs    r0, r4
        bmi     0f
        mov     r7, #NR_close
        svc     #0
        cmp     r0, #0
        bne     1f
0:      mov     sp, r5
        mov     r7, #NR_rt_sigreturn
        svc     #0                      @ does not come back
1:      mov     r0, #EXIT_CODE
        mov     r7, #NR_exit_group
        svc     #0
        b       1b
        .size   armrest_exit, . - armrest_exit

        .section .note.GNU-stack, "", %progbits
