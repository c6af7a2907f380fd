//! A case as it is written, and what counts as the expected answer.

use jiff::Timestamp;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::fmt::Display;
use tollgate_sql::money::Exact;

/// One line of a file.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    /// What to call it in the output; nothing depends on it.
    pub id: String,
    /// The kind of price or aggregation.
    pub model: String,
    /// Terms.
    pub params: Value,
    /// Usage.
    pub input: Value,
    /// What an engine answers, or a part of it.
    pub expected: Value,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine cannot do this kind yet; the text says which part, or is empty.
    NotBuilt(String),
    /// The engine was asked, and failed.
    Error(String),
}

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Error(error.to_string())
    }
}

/// A result of asking the engine.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Terms or usage that this runner does not read.
pub(crate) fn unread<T>(what: impl Display) -> Outcome<T> {
    Err(Failure::Error(format!("the runner does not read {what}")))
}

/// A kind of case that the engine does not have yet.
pub(crate) fn not_built<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Failure::NotBuilt(what.into()))
}

/// Reads terms or usage. A field that the translation does not know may change the answer, so it fails,
/// and is never ignored.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Outcome<T> {
    T::deserialize(value).or_else(unread)
}

/// The fraction digits that these numbers need, 0 for what is no number.
pub(crate) fn scale_of<'a>(numbers: impl IntoIterator<Item = &'a str>) -> u8 {
    let scales = numbers
        .into_iter()
        .filter_map(|text| Exact::parse(text).ok());
    scales.map(|number| number.scale).max().unwrap_or(0)
}

/// The digits before the point that these numbers need, 0 for what is no number.
pub(crate) fn whole_digits_of<'a>(numbers: impl IntoIterator<Item = &'a str>) -> u8 {
    let numbers = numbers
        .into_iter()
        .filter_map(|text| Exact::parse(text).ok());
    let digits = numbers.map(|number| {
        let whole = number.to_string();
        let whole = whole
            .trim_start_matches('-')
            .split('.')
            .next()
            .map_or(0, str::len);
        u8::try_from(whole).unwrap_or(u8::MAX)
    });
    digits.max().unwrap_or(0)
}

/// Whether the answer says what is expected. Numbers are compared as decimals, times as instants; an
/// object may say more than is expected; groups may come in any order.
pub(crate) fn check(expected: &Value, got: &Value) -> bool {
    match (expected, got) {
        (Value::Object(expected), Value::Object(got)) => expected.iter().all(|(key, wanted)| {
            got.get(key)
                .is_some_and(|found| check_field(key, wanted, found))
        }),
        (Value::Array(expected), Value::Array(got)) => {
            expected.len() == got.len() && expected.iter().zip(got).all(|(e, g)| check(e, g))
        }
        (Value::String(expected), Value::String(got)) => {
            expected == got || is_same_number(expected, got) || is_same_instant(expected, got)
        }
        _ => expected == got,
    }
}

fn check_field(key: &str, expected: &Value, got: &Value) -> bool {
    match (key, expected.as_array(), got.as_array()) {
        ("groups", Some(expected), Some(got)) => {
            let found = |wanted: &Value| got.iter().any(|group| check(wanted, group));
            expected.len() == got.len() && expected.iter().all(found)
        }
        _ => check(expected, got),
    }
}

fn is_same_number(left: &str, right: &str) -> bool {
    match (Exact::parse(left), Exact::parse(right)) {
        (Ok(left), Ok(right)) => left.without_trailing_zeros() == right.without_trailing_zeros(),
        _ => false,
    }
}

fn is_same_instant(left: &str, right: &str) -> bool {
    match (left.parse::<Timestamp>(), right.parse::<Timestamp>()) {
        (Ok(left), Ok(right)) => left == right,
        _ => false,
    }
}
