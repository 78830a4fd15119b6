//! Numbers in messages, read without prost: for the two kinds of messages of which there may be tens of thousands.

/// The first member of a message, if it is a number (a varint of up to 63 bits, with a tag below 16): tag, value, rest.
/// Whatever else it is, prost knows better.
#[inline]
pub(super) fn number(bytes: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (key, mut rest) = bytes.split_first()?;
    if key & 0x87 != 0 {
        return None;
    }
    // What fits a register is put together in one.
    let (mut low, mut high) = (0u32, 0u64);
    for shift in (0..63).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        if shift < 28 {
            low |= u32::from(byte & 0x7f) << shift;
        } else {
            high |= u64::from(byte & 0x7f) << shift;
        }
        if byte & 0x80 == 0 {
            return Some((key >> 3, high | u64::from(low), rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::number;
    use prost::encoding::{WireType, encode_key, encode_varint};

    #[test]
    fn numbers_are_what_prost_says() {
        for value in [0, 1, 127, 128, 0x1000_0000, 0xffff_f000, (1 << 63) - 1] {
            let mut bytes = Vec::new();
            encode_key(15, WireType::Varint, &mut bytes);
            encode_varint(value, &mut bytes);
            bytes.push(7);
            assert_eq!(number(&bytes), Some((15, value, &[7][..])), "{value:x}");
            for cut in 0..bytes.len() - 1 {
                assert_eq!(number(&bytes[..cut]), None, "{value:x}");
            }
        }
    }

    #[test]
    fn whatever_else_is_left_to_prost() {
        // 64 bits, more than ten bytes, a tag of two bytes, other wire types.
        let mut long = vec![0x08];
        encode_varint(u64::MAX, &mut long);
        for other in [
            &long[..],
            &[0x08, 0x80],
            &[0x80, 1, 1],
            &[0x0d, 1],
            &[0x0a, 0],
            &[],
        ] {
            assert_eq!(number(other), None, "{other:x?}");
        }
    }
}
