@ Memory functions of the C and ARM run-time ABIs, for code that the compiler makes. Small, not fast: the blob moves
@ page contents by preadv, never by these. No stack, no data, no NEON (which would touch registers for nothing).

        .syntax unified
        .arch   armv7-a
        .arm

        .macro  function name
        .global \name
        .hidden \name
        .type   \name, %function
\name:
        .endm

@ memcpy, __aeabi_memcpy, 4, 8: copy r2 bytes from r1 to r0; the two do not overlap
@ memmove, __aeabi_memmove, 4, 8: the same, overlap allowed
@   in:       r0 = to, r1 = from, r2 = bytes
@   out:      r0 = to, as given
@   clobbers: r1, r2, r3, ip, flags
        .section .text.memmove, "ax", %progbits
        function memcpy
        function memmove
        function __aeabi_memcpy
        function __aeabi_memcpy4
        function __aeabi_memcpy8
        function __aeabi_memmove
        function __aeabi_memmove4
        function __aeabi_memmove8
        sub     r3, r0, r1              @ to - from, unsigned: below r2 if a forward copy would overwrite its source
        cmp     r3, r2
        blo     2f
        mov     ip, r0
1:      subs    r2, r2, #1
        ldrbhs  r3, [r1], #1
        strbhs  r3, [ip], #1
        bhi     1b
        bx      lr
2:      subs    r2, r2, #1
        ldrbhs  r3, [r1, r2]
        strbhs  r3, [r0, r2]
        bhi     2b
        bx      lr

@ memset: fill
@   in:       r0 = to, r1 = byte (low 8 bits), r2 = bytes
@   out:      r0 = to, as given
@   clobbers: r2, ip, flags
@ __aeabi_memset, 4, 8: the same with r1 = bytes, r2 = byte
@ __aeabi_memclr, 4, 8: r0 = to, r1 = bytes: fill with zero
@   clobbers of both: r1, r2, r3, ip, flags
        .section .text.memset, "ax", %progbits
        function __aeabi_memclr
        function __aeabi_memclr4
        function __aeabi_memclr8
        mov     r2, #0
        function __aeabi_memset
        function __aeabi_memset4
        function __aeabi_memset8
        mov     r3, r1
        mov     r1, r2
        mov     r2, r3
        function memset
        mov     ip, r0
1:      subs    r2, r2, #1
        strbhs  r1, [ip], #1
        bhi     1b
        bx      lr

@ memcmp, bcmp: compare
@   in:       r0, r1 = two places, r2 = bytes
@   out:      r0 = 0 if equal, else the difference of the first unequal bytes, taken as unsigned
@   clobbers: r1, r2, r3, ip, flags
        .section .text.memcmp, "ax", %progbits
        function memcmp
        function bcmp
        mov     ip, r0
        mov     r0, #0
1:      subs    r2, r2, #1
        bxlo    lr
        ldrb    r0, [ip], #1
        ldrb    r3, [r1], #1
        subs    r0, r0, r3
        beq     1b
        bx      lr

        .section .note.GNU-stack, "", %progbits
