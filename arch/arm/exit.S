@ The last instructions of a restore. Linked into page 0 of the blob, the page that stays mapped.

        .syntax unified
        .arch   armv7-a
        .arm

        .equ    NR_write, 4
        .equ    NR_close, 6
        .equ    NR_munmap, 91
        .equ    NR_rt_sigreturn, 173
        .equ    NR_exit_group, 248
        .equ    EXIT_CODE, 112          @ Report::EXIT_CODE

@ armrest_exit
@   in:       r0 = start and r1 = bytes of what is unmapped: everything of ours but this page
@             r2 = report descriptor to close, none if negative
@             r3 = address of the signal frame, 8-aligned, in this page or, with a sigpage, in the task's memory
@             [sp] = address of the svc behind `mov r7, #119` in the kernel's sigpage, or 0; [sp, #4] = the pid that the
@             task has in the checkpoint
@   out:      does not return: the task runs with the frame's registers; if munmap fails, three words to the report
@             descriptor (its result, 91, and that pid) and exit_group(112)
@   clobbers: everything
@ Uses no stack and no data once a call took both away (if munmap fails, none did). Position-independent.
@ What close returns does not matter: the descriptor is gone whatever it says, and there is none to report to.
@
@ With a sigpage, this page goes too: r0 and r1 then name the whole area. The kernel's own code makes the last two calls:
@ svc (munmap, as r7 says: the immediate is ignored), a Thumb pair that reads as an ARM svcle, mov r7, #173, svc. The
@ flags make LE false, and sp is at the frame in the task's memory.
        .section .exit, "ax", %progbits
        .global armrest_exit
        .hidden armrest_exit
        .type   armrest_exit, %function
armrest_exit:
        mov     r4, r2
        mov     r5, r3
        ldr     r9, [sp]
        cmp     r9, #0
        bne     2f
        mov     r7, #NR_munmap
        svc     #0
        cmp     r0, #0
        bne     1f
        movs    r0, r4
        bmi     0f
        mov     r7, #NR_close
        svc     #0
0:      mov     sp, r5
        mov     r7, #NR_rt_sigreturn
        svc     #0                      @ does not come back
1:      ldr     r8, [sp, #4]
        push    {r0, r7, r8}            @ in this order upwards
        mov     r0, r4
        mov     r1, sp
        mov     r2, #12
        mov     r7, #NR_write
        svc     #0
        @ and on to armrest_end

@ armrest_end: the end of this process, without a word
@   in:       nothing
@   out:      does not return: exit_group(112), or SIGILL where a filter forbids that call and lets its caller live
@   clobbers: everything
        .global armrest_end
        .hidden armrest_end
        .type   armrest_end, %function
armrest_end:
        mov     r0, #EXIT_CODE
        mov     r7, #NR_exit_group
        svc     #0
        udf     #0
2:      mov     r10, r0
        movs    r0, r4
        bmi     4f
        mov     r7, #NR_close
        svc     #0
4:      mov     sp, r5
        mov     r0, r10
        mov     r7, #NR_munmap
        cmp     r7, #0                  @ greater: LE is false
        bx      r9
        .size   armrest_exit, . - armrest_exit

@ armrest_leave: how every thread but the leader leaves
@   in:       r0 = address of its signal frame, 8-aligned, in the task's memory or, without a sigpage, in this page
@             r1 = address of the svc in the kernel's sigpage as above, or 0: this page stays
@             r2 = address of the word that counts the threads that have not left
@   out:      does not return: the thread runs with the frame's registers
@   clobbers: everything
@ The kernel counts it out: futex(word + 4, FUTEX_WAKE_OP, 1, 1, word, add -1 and wake if it was 1). When the word has
@ changed the thread is in the kernel, and comes back to the sigpage or this page, never to the rest of the area.
        .equ    NR_futex, 240
        .equ    WAKE_OP_PRIVATE, 0x85
        .global armrest_leave
        .hidden armrest_leave
        .type   armrest_leave, %function
armrest_leave:
        mov     sp, r0
        mov     r6, r1
        mov     r4, r2
        add     r0, r2, #4              @ where nobody waits
        mov     r1, #WAKE_OP_PRIVATE
        mov     r2, #1
        mov     r3, #1
        movw    r5, #0xf001
        movt    r5, #0x10ff
        mov     r7, #NR_futex
        cmp     r6, #0
        cmpne   r7, #0                  @ greater: LE is false
        bxne    r6
        svc     #0
        mov     r7, #NR_rt_sigreturn
        svc     #0                      @ does not come back
        b       armrest_end
        .size   armrest_leave, . - armrest_leave

        .section .note.GNU-stack, "", %progbits
