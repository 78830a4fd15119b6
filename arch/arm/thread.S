@ How a thread of the blob begins, ARM state.

        .syntax unified
        .arch   armv7-a
        .arm

@ armrest_spawn: make a thread
@   in:       r0 = address of seven words: number and r0 to r5 of a clone or clone3 that gives the child a stack
@             r1, r2 = what armrest_thread_main gets as its arguments
@   out:      r0 = what the call returned; never 0
@   clobbers: what a C function may
@ The child leaves it at armrest_thread: sp is its own stack's end, 8-aligned, and its frame chain ends there.
        .section .text.spawn, "ax", %progbits
        .global armrest_spawn
        .hidden armrest_spawn
        .type   armrest_spawn, %function
        .global armrest_thread
        .hidden armrest_thread
armrest_spawn:
        push    {r4, r5, r6, r7, r8, lr}
        mov     r6, r1
        mov     r8, r2
        ldr     r7, [r0], #4
        ldm     r0, {r0, r1, r2, r3, r4, r5}
        svc     #0
        cmp     r0, #0
        popne   {r4, r5, r6, r7, r8, pc}
armrest_thread:
        mov     r0, r6
        mov     r1, r8
        mov     fp, #0
        mov     lr, #0
        b       armrest_thread_main
        .size   armrest_spawn, . - armrest_spawn

        .section .note.GNU-stack, "", %progbits
