//! A hash of what a JSON text says, however it is spelled: blanks, the order of keys, escapes in strings, and digits of
//! numbers that add nothing change no hash. It is stored, so it may never change.
//!
//! | value | hashed with the seed of its kind |
//! |---|---|
//! | object | the hash of each key and of its value, in order of the keys' hashes |
//! | array | the hashes of its elements, in order |
//! | string | its characters, escapes undone, as UTF-8 |
//! | number | its exact value: sign, digits, exponent |
//! | `true`, `false`, `null` | the word |
//!
//! Values that are given under one key keep the order of the text: parsers do not agree which of them counts, so the
//! other order is another content.

use super::scan::{Broken, Scanner, Token};
use crate::number::put_value;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Seeds, so that no value of one kind has the hash of one of another.
const OBJECT: u64 = 1;
const ARRAY: u64 = 2;
const TEXT: u64 = 3;
const NUMBER: u64 = 4;
const WORD: u64 = 5;
const UNREADABLE: u64 = 6;

/// Deeper values are hashed as they are written. No event that counts has any.
const MAX_DEPTH: usize = 128;

/// Room that is used again for each text.
#[derive(Debug, Default)]
pub(super) struct ValueHasher {
    /// Of objects and arrays that are open: hash of the key, hash of the value. An element has the key 0.
    members: Vec<[u8; 16]>,
    number: Vec<u8>,
}

impl ValueHasher {
    /// The hash of one JSON value, whose grammar was checked before.
    pub(super) fn hash(&mut self, text: &str) -> u64 {
        self.members.clear();
        let hash = self.value(&mut Scanner::new(text.as_bytes()), text, 0);
        hash.unwrap_or_else(|Broken| unreadable(text))
    }

    fn value(
        &mut self,
        scanner: &mut Scanner<'_>,
        text: &str,
        depth: usize,
    ) -> Result<u64, Broken> {
        match scanner.next_byte() {
            Some(b'{') if depth < MAX_DEPTH => self.object(scanner, text, depth),
            Some(b'[') if depth < MAX_DEPTH => self.array(scanner, text, depth),
            _ => {
                let token = scanner.value()?;
                Ok(self.scalar(token, text))
            }
        }
    }

    fn object(
        &mut self,
        scanner: &mut Scanner<'_>,
        text: &str,
        depth: usize,
    ) -> Result<u64, Broken> {
        let first = self.members.len();
        let mut more = scanner.enter(b'{', b'}')?;
        while more {
            let key = key_hash(scanner.key()?, text);
            let value = self.value(scanner, text, depth + 1)?;
            self.members.push(member(key, value));
            more = scanner.more(b'}')?;
        }
        let members = self.members.get_mut(first..).unwrap_or_default();
        // A stable sort, which leaves the values of one key in their order.
        members.sort_by(|a, b| a[..8].cmp(&b[..8]));
        Ok(self.close(first, OBJECT))
    }

    fn array(
        &mut self,
        scanner: &mut Scanner<'_>,
        text: &str,
        depth: usize,
    ) -> Result<u64, Broken> {
        let first = self.members.len();
        let mut more = scanner.enter(b'[', b']')?;
        while more {
            let value = self.value(scanner, text, depth + 1)?;
            self.members.push(member(0, value));
            more = scanner.more(b']')?;
        }
        Ok(self.close(first, ARRAY))
    }

    /// The hash of an object or an array that ends.
    fn close(&mut self, first: usize, seed: u64) -> u64 {
        let members = self.members.get(first..).unwrap_or_default();
        let hash = xxh3_64_with_seed(members.as_flattened(), seed);
        self.members.truncate(first);
        hash
    }

    fn scalar(&mut self, token: Token, text: &str) -> u64 {
        let raw = token.raw(text);
        match raw.as_bytes() {
            [b'"', content @ .., b'"'] if !token.escaped => xxh3_64_with_seed(content, TEXT),
            [b'"', ..] => match token.text(text) {
                Some(content) => xxh3_64_with_seed(content.as_bytes(), TEXT),
                None => unreadable(raw),
            },
            [b'-' | b'0'..=b'9', ..] => {
                self.number.clear();
                put_value(raw, &mut self.number);
                xxh3_64_with_seed(&self.number, NUMBER)
            }
            [b't' | b'f' | b'n', ..] => xxh3_64_with_seed(raw.as_bytes(), WORD),
            _ => unreadable(raw),
        }
    }
}

fn member(key: u64, value: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key.to_be_bytes());
    bytes[8..].copy_from_slice(&value.to_be_bytes());
    bytes
}

fn key_hash(key: Token, text: &str) -> u64 {
    match key.text(text) {
        Some(name) => xxh3_64(name.as_bytes()),
        None => unreadable(key.raw(text)),
    }
}

/// What has no value, as a lone surrogate: the same only when it is written alike.
fn unreadable(raw: &str) -> u64 {
    xxh3_64_with_seed(raw.as_bytes(), UNREADABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn hash(text: &str) -> u64 {
        ValueHasher::default().hash(text)
    }

    /// Each row has spellings of one value; no two rows are the same value.
    const VALUES: [&[&str]; 26] = [
        &["null"],
        &["true"],
        &["false"],
        &[
            "0",
            "-0",
            "0.0",
            "0e7",
            "-0.00E-99999999999999999999999999999999999999999",
        ],
        &[
            "40000000",
            "4e7",
            "4E+7",
            "40000000.0",
            "0.4e8",
            "400000000e-1",
        ],
        &["-40000000", "-4e7"],
        &["1.5", "1.50", "15e-1", "0.15e1", "1500e-3"],
        // A float has one value for these two.
        &["9007199254740993", "9007199254740993.0"],
        &["9007199254740992"],
        &["0.1", "1e-1"],
        &["0.1000000000000000055511151231257827"],
        // Exponents beyond any machine number.
        &[
            "1e100000000000000000000000000000",
            "10e99999999999999999999999999999",
            "0.1e100000000000000000000000000001",
        ],
        &["1e100000000000000000000000000001"],
        &["1e-100000000000000000000000000000"],
        &["12345678901234567890123456789012345678901234567890e-50"],
        &[r#""""#],
        &[
            r#""a/b\né😀""#,
            r#""a\/b\u000aé\ud83d\ude00""#,
            r#""a/b\u000A\u00e9😀""#,
        ],
        &[r#""40000000""#],
        &[r#""null""#],
        &["[]"],
        &["{}"],
        &["[1,2]", " [ 1.0 ,\t2e0 ] "],
        &["[2,1]"],
        &["[[1],2]"],
        &[
            r#"{"a":1,"b":{"c":[true,null],"d":"x"}}"#,
            r#"{ "b" : { "d" : "x", "c" : [ true, null ] }, "a" : 1.0 }"#,
            r#"{"\u0061":1,"b":{"c":[true,null],"d":"\u0078"}}"#,
        ],
        &[r#"{"a":1,"b":{"c":[true,null]},"d":"x"}"#],
    ];

    #[test]
    fn a_value_has_one_hash_however_it_is_spelled_and_no_other_value_has_it() {
        for (row, spellings) in VALUES.iter().enumerate() {
            for spelling in *spellings {
                assert_eq!(hash(spelling), hash(spellings[0]), "{spelling}");
                for other in &VALUES[..row] {
                    assert_ne!(hash(spelling), hash(other[0]), "{spelling} {}", other[0]);
                }
            }
        }
    }

    #[test]
    fn values_of_one_key_count_in_their_order() {
        let first = r#"{"a":1,"a":2,"b":3}"#;
        assert_eq!(hash(first), hash(r#"{"b":3,"a":1,"a":2}"#));
        for other in [
            r#"{"a":2,"a":1,"b":3}"#,
            r#"{"a":1,"b":3}"#,
            r#"{"a":2,"b":3}"#,
        ] {
            assert_ne!(hash(first), hash(other), "{other}");
        }
    }

    #[test]
    fn what_has_no_value_is_hashed_as_it_is_written() {
        assert_eq!(hash(r#"["\ud800"]"#), hash(r#"[ "\ud800" ]"#));
        assert_ne!(hash(r#""\ud800""#), hash(r#""\uD800""#));
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(hash(&deep), hash(&deep));
        assert_ne!(hash(&deep), hash(&deep[1..199_999]));
    }

    /// They are in lakes.
    #[test]
    fn hashes_are_the_documented_ones() {
        assert_eq!(hash("null"), xxh3_64_with_seed(b"null", WORD));
        assert_eq!(hash("\"a\""), xxh3_64_with_seed(b"a", TEXT));
        let mut number = b"15".to_vec();
        number.extend((-1i128).to_le_bytes());
        number.push(b'-');
        assert_eq!(hash("-1.50"), xxh3_64_with_seed(&number, NUMBER));
        let (key, value) = (xxh3_64(b"k"), xxh3_64_with_seed(b"true", WORD));
        let member = [key.to_be_bytes(), value.to_be_bytes()].concat();
        assert_eq!(hash(r#"{"k":true}"#), xxh3_64_with_seed(&member, OBJECT));
    }

    fn values() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,6}".prop_map(Value::from),
            "[\"\\\\/\u{1}\u{202e}]{0,3}".prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec(("[a-e]{1,2}", inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The value with its keys the other way round, blanks, escapes, and numbers with an exponent.
    fn respelled(value: &Value) -> String {
        match value {
            Value::Object(members) => {
                let members = members.iter().rev();
                let members =
                    members.map(|(key, value)| format!("{} :\t{}", escaped(key), respelled(value)));
                format!("{{ {} }}", members.collect::<Vec<_>>().join(" ,\n"))
            }
            Value::Array(elements) => {
                let elements = elements.iter().map(respelled);
                format!("[ {} ]", elements.collect::<Vec<_>>().join(" , "))
            }
            Value::String(text) => escaped(text),
            Value::Number(number) => format!("{number}00.0e-2"),
            word => word.to_string(),
        }
    }

    fn escaped(text: &str) -> String {
        let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
        format!("\"{}\"", units.collect::<String>())
    }

    proptest! {
        #[test]
        fn a_value_that_is_serialised_anew_is_the_same(value in values(), other in values()) {
            prop_assert_eq!(hash(&value.to_string()), hash(&respelled(&value)));
            prop_assert_eq!(value == other, hash(&value.to_string()) == hash(&other.to_string()));
        }
    }
}
