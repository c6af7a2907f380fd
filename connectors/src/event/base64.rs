//! Bytes as base64 (RFC 4648, the standard alphabet), as CloudEvents write data that is no JSON.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let symbol = ALPHABET.get(((group >> shift) & 63) as usize);
            text.push(if place > chunk.len() {
                '='
            } else {
                symbol.map_or('=', |&s| char::from(s))
            });
        }
    }
    text
}

/// The bytes of a text, whose padding may be left out. `None` for anything else, with bits that belong to no byte too.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let is_padded = text.len().is_multiple_of(4);
    let padding = ["==", "="].into_iter().filter(|_| is_padded);
    let symbols = padding
        .filter_map(|padding| text.strip_suffix(padding))
        .next()
        .unwrap_or(text);
    let mut bytes = Vec::with_capacity(symbols.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0u32, 0u32);
    for symbol in symbols.bytes() {
        bits = (bits << 6) | value_of(symbol)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            let byte = bits >> count;
            bytes.push(u8::try_from(byte).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    (count < 6 && bits == 0).then_some(bytes)
}

fn value_of(symbol: u8) -> Option<u32> {
    Some(u32::from(match symbol {
        b'A'..=b'Z' => symbol - b'A',
        b'a'..=b'z' => symbol - b'a' + 26,
        b'0'..=b'9' => symbol - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_follows_the_standard_both_ways() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), encoded);
            assert_eq!(decode(encoded).as_deref(), Some(plain.as_bytes()));
            let bare = encoded.trim_end_matches('=');
            assert_eq!(decode(bare).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(encode(&[0xFB, 0xFF]), "+/8=");
        for bad in [
            "Z", "Zg=", "Zh==", "Zg==Zg==", "Z g=", "-_8=", "====", "Zm9vY",
        ] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
