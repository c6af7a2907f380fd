//! Where two JSON texts say something else: the paths of the values that differ, and both values.

use super::scan::{Broken, Scanner};
use super::text::shorten;
use super::value_hash::ValueHasher;
use std::collections::BTreeMap;

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where it is, from `$`: `$.a['b c'][2]`.
    pub path: String,
    /// The value of the first text as it is written, at most forty characters of it; `None` where it has none.
    pub first: Option<String>,
    /// The same of the second.
    pub second: Option<String>,
}

/// The first `limit` values that differ between two JSON texts, in the order of the first text. Blanks, the order of keys
/// and the spelling of values are no difference. What is no JSON, or is nested more than 128 deep, is compared whole.
///
/// ```
/// # use tollgate_connectors::event::json_differences;
/// let found = json_differences(r#"{"n":1.50,"tags":["a"]}"#, r#"{"tags":["b"],"n":1.5}"#, 8);
/// assert_eq!(found[0].path, "$.tags[0]");
/// assert_eq!(found[0].first.as_deref(), Some(r#""a""#));
/// assert_eq!(found.len(), 1);
/// ```
pub fn json_differences(first: &str, second: &str, limit: usize) -> Vec<Difference> {
    let mut comparing = Comparing {
        found: Vec::new(),
        limit,
    };
    comparing.values("$", Some(first), Some(second), 0);
    comparing.found
}

/// Deeper values are compared whole. No event that counts has any.
const MAX_DEPTH: usize = 128;

struct Comparing {
    found: Vec<Difference>,
    limit: usize,
}

impl Comparing {
    fn values(&mut self, path: &str, first: Option<&str>, second: Option<&str>, depth: usize) {
        if self.found.len() >= self.limit || is_same(first, second) {
            return;
        }
        let before = self.found.len();
        let parts = |text: Option<_>| text.filter(|_| depth < MAX_DEPTH).and_then(Parts::of);
        match (parts(first), parts(second)) {
            (Some(Parts::Members(first)), Some(Parts::Members(second))) => {
                self.members(path, &first, &second, depth);
            }
            (Some(Parts::Elements(first)), Some(Parts::Elements(second))) => {
                for place in 0..first.len().max(second.len()) {
                    let path = format!("{path}[{place}]");
                    let (first, second) = (first.get(place).copied(), second.get(place).copied());
                    self.values(&path, first, second, depth + 1);
                }
            }
            _ => {}
        }
        // Scalars, values of two kinds, and keys that are given twice.
        if self.found.len() == before {
            self.note(path, first, second);
        }
    }

    fn members(&mut self, path: &str, first: &[Member<'_>], second: &[Member<'_>], depth: usize) {
        let (in_first, in_second) = (by_key(first), by_key(second));
        let only_second = second
            .iter()
            .filter(|member| !in_first.contains_key(member.key.as_str()));
        for member in first.iter().chain(only_second) {
            let key = member.key.as_str();
            let path = format!("{path}{}", step(key));
            let (first, second) = (in_first.get(key).copied(), in_second.get(key).copied());
            self.values(&path, first, second, depth + 1);
        }
    }

    fn note(&mut self, path: &str, first: Option<&str>, second: Option<&str>) {
        let shown = |text: Option<&str>| text.map(|text| shorten(text.trim()));
        self.found.push(Difference {
            path: path.to_owned(),
            first: shown(first),
            second: shown(second),
        });
    }
}

/// The value of each key; of a key that is given twice, the first.
fn by_key<'m>(members: &'m [Member<'_>]) -> BTreeMap<&'m str, &'m str> {
    let members = members.iter().rev();
    members
        .map(|member| (member.key.as_str(), member.value))
        .collect()
}

fn is_same(first: Option<&str>, second: Option<&str>) -> bool {
    let hash = |text: &str| ValueHasher::default().hash(text);
    match (first, second) {
        (Some(first), Some(second)) => first == second || hash(first) == hash(second),
        (None, None) => true,
        _ => false,
    }
}

/// What an object or an array is made of.
enum Parts<'a> {
    Members(Vec<Member<'a>>),
    Elements(Vec<&'a str>),
}

struct Member<'a> {
    key: String,
    value: &'a str,
}

impl<'a> Parts<'a> {
    /// `None` for a scalar and for what is no JSON.
    fn of(text: &'a str) -> Option<Self> {
        let mut scanner = Scanner::new(text.as_bytes());
        let parts = match scanner.next_byte()? {
            b'{' => members(&mut scanner, text).map(Parts::Members),
            b'[' => elements(&mut scanner, text).map(Parts::Elements),
            _ => return None,
        };
        parts.ok()
    }
}

fn members<'a>(scanner: &mut Scanner<'_>, text: &'a str) -> Result<Vec<Member<'a>>, Broken> {
    let mut members = Vec::new();
    let mut more = scanner.enter(b'{', b'}')?;
    while more {
        let key = scanner.key()?;
        // A key that has no value, as a lone surrogate, is known by how it is written.
        let name = key.text(text).unwrap_or_else(|| key.raw(text).into());
        let value = scanner.value()?.raw(text);
        let key = name.into_owned();
        members.push(Member { key, value });
        more = scanner.more(b'}')?;
    }
    Ok(members)
}

fn elements<'a>(scanner: &mut Scanner<'_>, text: &'a str) -> Result<Vec<&'a str>, Broken> {
    let mut elements = Vec::new();
    let mut more = scanner.enter(b'[', b']')?;
    while more {
        elements.push(scanner.value()?.raw(text));
        more = scanner.more(b']')?;
    }
    Ok(elements)
}

/// A key as a step of a path, as definitions write it.
fn step(key: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    match key.chars().next() {
        Some(first) if !first.is_numeric() && key.chars().all(is_part) => {
            format!(".{}", shorten(key))
        }
        _ => {
            let quoted = shorten(key).replace('\\', "\\\\").replace('\'', "\\'");
            format!("['{quoted}']")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn found(first: &str, second: &str) -> Vec<(String, Option<String>, Option<String>)> {
        let found = json_differences(first, second, 8).into_iter();
        found.map(|d| (d.path, d.first, d.second)).collect()
    }

    fn differs(path: &str, first: &str, second: &str) -> (String, Option<String>, Option<String>) {
        let value = |text: &str| (text != "-").then(|| text.to_owned());
        (path.to_owned(), value(first), value(second))
    }

    #[test]
    fn each_value_that_differs_is_named_with_both() {
        for (first, second, expected) in [
            ("{}", " { } ", vec![]),
            (
                r#"{"a":4e1,"b":[1,{"c":"\u0041"}]}"#,
                r#"{"b":[1.0,{"c":"A"}],"a":40}"#,
                vec![],
            ),
            (r#"{"a":1}"#, r#"{"a": 2}"#, vec![differs("$.a", "1", "2")]),
            (
                r#"{"a":1}"#,
                r#"{"b":1}"#,
                vec![differs("$.a", "1", "-"), differs("$.b", "-", "1")],
            ),
            (r#"{"a":null}"#, "{}", vec![differs("$.a", "null", "-")]),
            (
                r#"{"a b":{"it's":[1,2]}}"#,
                r#"{"a b":{"it's":[1,3,{"x":1}]}}"#,
                vec![
                    differs(r"$['a b']['it\'s'][1]", "2", "3"),
                    differs(r"$['a b']['it\'s'][2]", "-", r#"{"x":1}"#),
                ],
            ),
            (
                r#"{"a":[1]}"#,
                r#"{"a":{"b":1}}"#,
                vec![differs("$.a", "[1]", r#"{"b":1}"#)],
            ),
            // Digits that a float does not have.
            (
                r#"{"n":9007199254740993}"#,
                r#"{"n":9007199254740992}"#,
                vec![differs("$.n", "9007199254740993", "9007199254740992")],
            ),
            (
                r#"{"a":{"x":1,"x":2}}"#,
                r#"{"a":{"x":1,"x":3}}"#,
                vec![differs("$.a", r#"{"x":1,"x":2}"#, r#"{"x":1,"x":3}"#)],
            ),
            ("no JSON", "{}", vec![differs("$", "no JSON", "{}")]),
        ] {
            assert_eq!(found(first, second), expected, "{first} {second}");
        }
    }

    #[test]
    fn values_and_their_number_are_bounded() {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(1_000));
        let found = json_differences(&long, r#"{"a":""}"#, 8);
        assert_eq!(found[0].first, Some(format!("\"{}…", "x".repeat(39))));
        let many = |value: u32| {
            let members = (0..1_000).map(|n| format!("\"k{n}\":{value}"));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        };
        assert_eq!(json_differences(&many(1), &many(2), 8).len(), 8);
        let deep = |end: &str| "[".repeat(200) + end + &"]".repeat(200);
        let found = json_differences(&deep("1"), &deep("2"), 8);
        assert_eq!(found[0].path, format!("${}", "[0]".repeat(128)));
    }

    fn values() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i8>().prop_map(Value::from)
        ];
        scalar.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-c]", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// There is a difference just when the values are not the same, and the other way round it has the same paths.
        #[test]
        fn what_is_the_same_has_no_difference_and_what_is_not_has_one(first in values(), second in values()) {
            let (one, other) = (json!({"v": first}), json!({"v": second}));
            let there = found(&one.to_string(), &other.to_string());
            prop_assert_eq!(there.is_empty(), one == other);
            let mut back = found(&other.to_string(), &one.to_string());
            if there.len() < 8 {
                back.iter_mut().for_each(|(_, first, second)| std::mem::swap(first, second));
                let sorted = |mut found: Vec<_>| { found.sort(); found };
                prop_assert_eq!(sorted(there), sorted(back));
            }
        }
    }
}
