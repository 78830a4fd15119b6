//! Which C declaration a field's Rust type has.

use crate::snake;

/// A type that may be a field of the ABI.
pub trait CType {
    /// A declaration of `name` with this type, without the semicolon.
    fn declare(name: &str) -> String;
}

macro_rules! plain {
    ($($rust:ty => $c:literal),*) => {$(
        impl CType for $rust {
            fn declare(name: &str) -> String {
                format!("{} {name}", $c)
            }
        }
    )*};
}
plain!(u8 => "uint8_t", u32 => "uint32_t", i32 => "int32_t", u64 => "uint64_t");

impl<T: CType, const N: usize> CType for [T; N] {
    fn declare(name: &str) -> String {
        T::declare(&format!("{name}[{N}]"))
    }
}

macro_rules! structures {
    ($($name:ident)*) => {$(
        impl CType for armrest_abi::$name {
            fn declare(name: &str) -> String {
                format!("struct armrest_{} {name}", snake(stringify!($name)))
            }
        }
    )*};
}
structures!(CloneArgs Range Rows Table Rseq MmMap);
