//! The structures of the ABI, field by field.

use crate::ctype::CType;
use crate::docs::Docs;
use crate::{push, snake};
use armrest_abi::{
    Advise, Attach, Batch, BlobHeader, CloneArgs, Cred, Flush, Iovec, Lock, Map, MmMap, Move,
    PosixTimer, Progress, Protect, Queued, Range, Remove, Report, RestoreArgs, Rows, Rseq, Table,
    ThreadArgs, Timer,
};
use std::mem::offset_of;

/// One field.
struct Field {
    rust: &'static str,
    declaration: String,
    offset: usize,
}

/// The declaration of the field that `_pick` picks: the compiler finds its type.
fn declare<S, T: CType>(name: &str, _pick: fn(&S) -> &T) -> String {
    T::declare(name)
}

macro_rules! structures {
    ($($name:ident { $($field:ident)* })*) => {
        /// Declare every structure, with assertions on sizes and offsets.
        pub fn all(out: &mut String, docs: &Docs) {$({
            // Does not compile if a field is missing here.
            const _: fn(&$name) = |s| { let $name { $($field: _),* } = s; };
            let fields = [$(Field {
                rust: stringify!($field),
                declaration: declare::<$name, _>(stringify!($field), |s| &s.$field),
                offset: offset_of!($name, $field),
            }),*];
            one(out, docs, stringify!($name), &fields, size_of::<$name>());
        })*}
    };
}

structures! {
    Range { start end }
    Move { from to len object }
    Attach { shmid at len flags piece pieces hole holes object }
    Remove { shmid object }
    Map { start len prot flags fd object page_offset }
    Batch { offset fd first count len }
    Iovec { base len }
    Protect { start len prot object }
    Flush { start end object }
    Advise { start len advice object }
    Lock { start len object }
    Timer { which value }
    PosixTimer { id skip clock reserved event value }
    Queued { signo private info }
    Cred { call args expect }
    MmMap {
        start_code end_code start_data end_data start_brk brk start_stack arg_start arg_end env_start env_end auxv
        auxv_size exe_fd pad
    }
    BlobHeader {
        magic version header_size args_size rx_size rx_used rw_size entry_offset thread_entry_offset exit_offset
        frame_offset stack_size heap_size thread_stack_size reserved
    }
    Report { magic version kind step object row syscall args result tid pid }
    Progress { step row filled }
    Table { addr count }
    Rseq { addr len sig }
    Rows { first count }
    CloneArgs { flags unused stack stack_size tls set_tid set_tid_size }
    ThreadArgs {
        clone last_pid tid want tls clear_tid robust_head robust_len rseq comm frame exit_frame stack pdeath policy priority nice queue
        cred creds seals reserved
    }
    RestoreArgs {
        magic version size want area keep heap progress report_fd unmaps parks attaches pieces holes removes maps
        iovecs batches protects flushes unparks advises locks closes threads timers posix_timers queued creds old_rseq
        dumpable mm exit_svc last_pid_fd records
    }
}

fn one(out: &mut String, docs: &Docs, name: &str, fields: &[Field], size: usize) {
    let tag = format!("struct armrest_{}", snake(name));
    push(
        out,
        format_args!(
            "\n/* {} */\n{tag} {{\n",
            docs.item(&format!("struct {name}"))
        ),
    );
    for f in fields {
        push(
            out,
            format_args!(
                "    /* {} */\n    {};\n",
                docs.member(name, f.rust),
                f.declaration
            ),
        );
    }
    push(
        out,
        format_args!("}};\n_Static_assert(sizeof({tag}) == {size}, \"size of {name}\");\n"),
    );
    for f in fields {
        let (field, offset) = (f.rust, f.offset);
        push(
            out,
            format_args!(
                "_Static_assert(offsetof({tag}, {field}) == {offset}, \"{name}.{field}\");\n"
            ),
        );
    }
}
