//! Numbers in messages, read without prost: for the two kinds of messages of which there may be tens of thousands.

/// The first member of a message, if it is a number (a varint of up to 32 bits, with a tag below 16): tag, value, rest.
/// Whatever else it is, prost knows better.
#[inline]
pub(super) fn number(bytes: &[u8]) -> Option<(u8, u32, &[u8])> {
    let (key, mut rest) = bytes.split_first()?;
    if key & 0x87 != 0 {
        return None;
    }
    let mut value = 0u32;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let fits = shift < 28 || *byte < 0x10;
            return fits.then_some((key >> 3, value, rest));
        }
    }
    None
}

/// True if two members or so have the same bytes: of so few, word by word costs less than a call of `memcmp`.
#[inline]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    a.iter().eq(b) && a_rest.iter().eq(b_rest)
}

#[cfg(test)]
mod tests {
    use super::{number, same};
    use prost::encoding::{WireType, encode_key, encode_varint};

    #[test]
    fn numbers_are_what_prost_says() {
        for value in [0, 1, 127, 128, 0xfff_ffff, 0x1000_0000, 0xffff_ffff] {
            let mut bytes = Vec::new();
            encode_key(15, WireType::Varint, &mut bytes);
            encode_varint(u64::from(value), &mut bytes);
            bytes.push(7);
            assert_eq!(number(&bytes), Some((15, value, &[7][..])), "{value:x}");
            for cut in 0..bytes.len() - 1 {
                assert_eq!(number(&bytes[..cut]), None, "{value:x}");
            }
        }
    }

    #[test]
    fn whatever_else_is_left_to_prost() {
        // More than 32 bits, cut off, a tag of two bytes, other wire types, nothing.
        let long = |value| {
            let mut bytes = vec![0x08];
            encode_varint(value, &mut bytes);
            bytes
        };
        for other in [
            &long(1 << 32)[..],
            &long(1 << 35),
            &long(u64::MAX),
            &[0x08, 0x80],
            &[0x80, 1, 1],
            &[0x0d, 1],
            &[0x0a, 0],
            &[],
        ] {
            assert_eq!(number(other), None, "{other:x?}");
        }
    }

    #[test]
    fn the_same_is_the_same_in_every_byte() {
        let bytes: Vec<u8> = (0..11).collect();
        let copy = bytes.clone();
        for len in 0..=bytes.len() {
            assert!(same(&bytes[..len], &copy[..len]));
            assert!(len == 0 || !same(&bytes[..len], &bytes[..len - 1]));
            for at in 0..len {
                let mut other = bytes[..len].to_vec();
                other[at] ^= 0x80;
                assert!(!same(&bytes[..len], &other), "byte {at} of {len}");
            }
        }
    }
}
