//! Bounds of a file's columns, as the Delta log writes them and as a query reads them back.
//!
//! A bound may be wider than the data, never narrower: times are rounded outward to the millisecond and
//! long text is cut so that it still lies outside. Decimals are written digit by digit.

use crate::number;
use arrow::{
    array::ArrayRef,
    datatypes::{DataType, Field, Schema},
};
use datafusion::scalar::ScalarValue;
use parquet::{
    data_type::AsBytes,
    file::{metadata::ParquetMetaData, statistics::Statistics},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fmt::Write};

/// Characters of text that are kept in a bound.
const TEXT_CHARS: usize = 32;
const MS_US: i64 = 1_000;

/// A bound of one column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Number(i128),
    Text(String),
}

/// What is known of one column of one file.
#[derive(Debug, Default)]
struct Column {
    nulls: u64,
    /// `None` when there is no value, or when the bounds are not known.
    bounds: Option<(Bound, Bound)>,
}

/// A JSON value for some columns.
#[derive(Debug, Default)]
struct Values(BTreeMap<String, String>);

/// The statistics JSON of a file that was just written; `schema` has the columns in the file. What is in a struct prunes no
/// file, and would be a number for each column of each event type in each entry of the log.
pub(crate) fn of_file(metadata: &ParquetMetaData, schema: &Schema) -> String {
    let mut bounds = Bounds::default();
    for field in schema.fields() {
        if let Some(column) = column_of(metadata, field) {
            bounds.add(field, &column);
        }
    }
    let rows = metadata.file_metadata().num_rows();
    let mut json = format!("{{\"numRecords\":{rows},\"minValues\":");
    bounds.min.write(&mut json);
    json.push_str(",\"maxValues\":");
    bounds.max.write(&mut json);
    json.push_str(",\"nullCount\":");
    bounds.nulls.write(&mut json);
    json.push('}');
    json
}

#[derive(Debug, Default)]
struct Bounds {
    min: Values,
    max: Values,
    nulls: Values,
}

impl Bounds {
    fn add(&mut self, field: &Field, column: &Column) {
        let (name, data_type) = (field.name(), field.data_type());
        self.nulls.set(name, column.nulls.to_string());
        let Some((low, high)) = &column.bounds else {
            return;
        };
        // One bound without the other is of little use, and some readers expect both.
        if let (Some(low), Some(high)) = (lower(low, data_type), upper(high, data_type)) {
            self.min.set(name, low);
            self.max.set(name, high);
        }
    }
}

impl Values {
    fn set(&mut self, name: &str, json: String) {
        self.0.insert(name.to_owned(), json);
    }

    fn write(&self, json: &mut String) {
        json.push('{');
        for (index, (name, value)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            // Writing to a String cannot fail.
            let _ = write!(json, "{comma}{}:{value}", quoted(name));
        }
        json.push('}');
    }
}

/// Null count and bounds over all row groups; `None` for a list or a struct, which have no bounds.
fn column_of(metadata: &ParquetMetaData, field: &Field) -> Option<Column> {
    let columns = metadata.file_metadata().schema_descr().columns();
    let is_it = |parts: &[String]| matches!(parts, [name] if name == field.name());
    let index = columns.iter().position(|c| is_it(c.path().parts()))?;
    let mut column = Column::default();
    let mut known = true;
    for group in metadata.row_groups() {
        let statistics = group.column(index).statistics()?;
        let nulls = statistics.null_count_opt()?;
        column.nulls += nulls;
        match bounds_of(statistics, field.data_type()) {
            Some((low, high)) => {
                column.bounds = Some(match column.bounds.take() {
                    Some((l, h)) => (l.min(low), h.max(high)),
                    None => (low, high),
                })
            }
            // A row group of NULLs has no bounds and changes none.
            None => known &= i64::try_from(nulls) == Ok(group.num_rows()),
        }
    }
    column.bounds = column.bounds.filter(|_| known);
    Some(column)
}

fn bounds_of(statistics: &Statistics, data_type: &DataType) -> Option<(Bound, Bound)> {
    match (statistics, data_type) {
        (Statistics::Int32(s), _) => Some((number(*s.min_opt()?), number(*s.max_opt()?))),
        (Statistics::Int64(s), _) => Some((number(*s.min_opt()?), number(*s.max_opt()?))),
        (Statistics::FixedLenByteArray(s), DataType::Decimal128(..)) => Some((
            big_endian(s.min_opt()?.as_bytes())?,
            big_endian(s.max_opt()?.as_bytes())?,
        )),
        (Statistics::ByteArray(s), DataType::Utf8) => Some((
            text(s.min_opt()?.as_bytes())?,
            text(s.max_opt()?.as_bytes())?,
        )),
        // No order that every reader agrees on: booleans, bytes.
        _ => None,
    }
}

fn number(value: impl Into<i128>) -> Bound {
    Bound::Number(value.into())
}

fn text(bytes: &[u8]) -> Option<Bound> {
    std::str::from_utf8(bytes)
        .ok()
        .map(|t| Bound::Text(t.to_owned()))
}

/// A two's complement number of up to 16 bytes, highest first.
fn big_endian(bytes: &[u8]) -> Option<Bound> {
    let first = *bytes.first()?;
    let fill = if first >= 0x80 { 0xff } else { 0 };
    let mut all = [fill; 16];
    all.get_mut(16_usize.checked_sub(bytes.len())?..)?
        .copy_from_slice(bytes);
    Some(Bound::Number(i128::from_be_bytes(all)))
}

/// A lower bound as JSON.
fn lower(bound: &Bound, data_type: &DataType) -> Option<String> {
    match (bound, data_type) {
        (Bound::Text(text), _) => Some(quoted(&text.chars().take(TEXT_CHARS).collect::<String>())),
        (Bound::Number(us), DataType::Timestamp(..)) => {
            instant(i64::try_from(*us).ok()?.div_euclid(MS_US))
        }
        (Bound::Number(value), _) => plain_number(*value, data_type),
    }
}

/// An upper bound as JSON.
fn upper(bound: &Bound, data_type: &DataType) -> Option<String> {
    match (bound, data_type) {
        (Bound::Text(text), _) => text_above(text).map(|t| quoted(&t)),
        (Bound::Number(us), DataType::Timestamp(..)) => {
            let us = i64::try_from(*us).ok()?;
            let up = i64::from(us.rem_euclid(MS_US) > 0);
            instant(us.div_euclid(MS_US) + up)
        }
        (Bound::Number(value), _) => plain_number(*value, data_type),
    }
}

fn plain_number(value: i128, data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Int32 | DataType::Int64 => Some(value.to_string()),
        DataType::Decimal128(_, scale) => decimal(value, usize::try_from(*scale).ok()?),
        DataType::Date32 => day_text(i32::try_from(value).ok()?).map(|day| quoted(&day)),
        _ => None,
    }
}

/// `digits / 10^scale`, exactly.
fn decimal(digits: i128, scale: usize) -> Option<String> {
    let sign = if digits < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = text.split_at_checked(text.len() - scale)?;
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

fn instant(ms: i64) -> Option<String> {
    let instant = jiff::Timestamp::from_millisecond(ms).ok()?;
    Some(quoted(
        &instant.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    ))
}

/// `YYYY-MM-DD` of a day counted from 1970-01-01; `None` beyond the calendar.
pub(crate) fn day_text(day: i32) -> Option<String> {
    let epoch = jiff::civil::date(1970, 1, 1);
    let date = epoch
        .checked_add(jiff::Span::new().try_days(day).ok()?)
        .ok()?;
    Some(date.strftime("%Y-%m-%d").to_string())
}

/// The day counted from 1970-01-01.
pub(crate) fn day_number(text: &str) -> Option<i32> {
    let date: jiff::civil::Date = text.parse().ok()?;
    Some(date.since(jiff::civil::date(1970, 1, 1)).ok()?.get_days())
}

/// Text that is not below `text`, of at most [`TEXT_CHARS`] characters.
fn text_above(text: &str) -> Option<String> {
    if text.chars().count() <= TEXT_CHARS {
        return Some(text.to_owned());
    }
    let mut kept: Vec<char> = text.chars().take(TEXT_CHARS).collect();
    while let Some(last) = kept.pop() {
        if let Some(next) = char_after(last) {
            kept.push(next);
            return Some(kept.into_iter().collect());
        }
    }
    None
}

fn char_after(c: char) -> Option<char> {
    match c {
        // The surrogates between are not characters.
        '\u{d7ff}' => Some('\u{e000}'),
        char::MAX => None,
        c => char::from_u32(u32::from(c) + 1),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Statistics read back from the log, top-level columns only.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FileStatistics<'a> {
    pub(crate) num_records: Option<u64>,
    #[serde(borrow)]
    min_values: BTreeMap<String, &'a RawValue>,
    #[serde(borrow)]
    max_values: BTreeMap<String, &'a RawValue>,
    #[serde(borrow)]
    null_count: BTreeMap<String, &'a RawValue>,
}

impl<'a> FileStatistics<'a> {
    /// Reads what is there; what cannot be read counts as not known.
    pub(crate) fn parse(json: Option<&'a str>) -> Self {
        json.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    /// A lower bound; the NULL of the type when not known.
    pub(crate) fn min(&self, column: &str, data_type: &DataType) -> Option<ScalarValue> {
        let bound = self
            .min_values
            .get(column)
            .and_then(|v| scalar(v.get(), data_type, 0));
        bound.or_else(|| ScalarValue::try_from(data_type).ok())
    }

    /// An upper bound; the NULL of the type when not known.
    pub(crate) fn max(&self, column: &str, data_type: &DataType) -> Option<ScalarValue> {
        // Other writers cut times down to the millisecond.
        let bound = self
            .max_values
            .get(column)
            .and_then(|v| scalar(v.get(), data_type, MS_US - 1));
        bound.or_else(|| ScalarValue::try_from(data_type).ok())
    }

    pub(crate) fn nulls(&self, column: &str) -> Option<u64> {
        self.null_count
            .get(column)
            .and_then(|v| v.get().parse().ok())
    }
}

/// A bound from its JSON; `widen_us` is added to times.
fn scalar(json: &str, data_type: &DataType, widen_us: i64) -> Option<ScalarValue> {
    let text = || serde_json::from_str::<String>(json).ok();
    match data_type {
        DataType::Int32 => Some(ScalarValue::Int32(Some(json.parse().ok()?))),
        DataType::Int64 => Some(ScalarValue::Int64(Some(json.parse().ok()?))),
        DataType::Utf8 => Some(ScalarValue::Utf8(Some(text()?))),
        DataType::Date32 => Some(ScalarValue::Date32(Some(day_number(&text()?)?))),
        DataType::Timestamp(_, zone) => {
            let us = text()?.parse::<jiff::Timestamp>().ok()?.as_microsecond();
            let us = us.checked_add(widen_us)?;
            Some(ScalarValue::TimestampMicrosecond(Some(us), zone.clone()))
        }
        DataType::Decimal128(precision, scale) => {
            let digits = bound_digits(json, *precision, *scale)?;
            Some(ScalarValue::Decimal128(Some(digits), *precision, *scale))
        }
        _ => None,
    }
}

/// The digits of a decimal that was written out. One with an exponent went through a float and may be off: it is no bound.
fn bound_digits(json: &str, precision: u8, scale: i8) -> Option<i128> {
    let is_number = json.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    if !is_number || json.contains(['e', 'E']) {
        return None;
    }
    number::decimal(json, precision, u32::try_from(scale).ok()?).ok()
}

/// One array from one bound a file.
pub(crate) fn array_of(bounds: impl Iterator<Item = Option<ScalarValue>>) -> Option<ArrayRef> {
    let bounds: Option<Vec<ScalarValue>> = bounds.collect();
    ScalarValue::iter_to_array(bounds?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_digit_by_digit_and_read_back() {
        let cases = [
            (0, 0, "0"),
            (-5, 2, "-0.05"),
            (123, 2, "1.23"),
            (
                10_i128.pow(38) - 1,
                0,
                "99999999999999999999999999999999999999",
            ),
            (-100, 9, "-0.000000100"),
        ];
        for (digits, scale, text) in cases {
            assert_eq!(decimal(digits, scale).as_deref(), Some(text));
            let scale = i8::try_from(scale).unwrap();
            assert_eq!(bound_digits(text, 38, scale), Some(digits));
        }
        let too_fine = "more digits after the point than the column has";
        assert_eq!(bound_digits("1.234", 38, 2), None, "{too_fine}");
        assert_eq!(bound_digits("1e3", 38, 2), None);
        assert_eq!(bound_digits("\"1.5\"", 38, 2), None);
    }

    #[test]
    fn times_are_rounded_outward_also_before_1970() {
        let data_type = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        let both = |us: i64| {
            let bound = Bound::Number(us.into());
            (
                lower(&bound, &data_type).unwrap(),
                upper(&bound, &data_type).unwrap(),
            )
        };
        let (low, high) = both(-1);
        assert_eq!(low, "\"1969-12-31T23:59:59.999Z\"");
        assert_eq!(high, "\"1970-01-01T00:00:00.000Z\"");
        let (low, high) = both(1_000);
        assert_eq!(
            (low.as_str(), high.as_str()),
            (
                "\"1970-01-01T00:00:00.001Z\"",
                "\"1970-01-01T00:00:00.001Z\""
            )
        );
        assert_eq!(
            lower(&Bound::Number(i64::MAX.into()), &data_type),
            None,
            "beyond the calendar"
        );
    }

    #[test]
    fn long_text_is_cut_outside_the_data() {
        let long = "x".repeat(33);
        assert_eq!(text_above(&long).unwrap(), format!("{}y", "x".repeat(31)));
        assert_eq!(text_above(&"x".repeat(32)).unwrap(), "x".repeat(32));
        let last = format!("{}{}z", "x".repeat(31), char::MAX);
        assert_eq!(text_above(&last).unwrap(), format!("{}y", "x".repeat(30)));
        assert_eq!(text_above(&char::MAX.to_string().repeat(33)), None);
        let gap = format!("{}\u{d7ff}z", "x".repeat(31));
        assert_eq!(
            text_above(&gap).unwrap(),
            format!("{}\u{e000}", "x".repeat(31))
        );
        for text in [long, last, gap] {
            let low: String = text.chars().take(TEXT_CHARS).collect();
            assert!(low <= text && text_above(&text).unwrap() >= text);
        }
    }

    #[test]
    fn two_s_complement_is_read_at_any_width() {
        let read = |bytes: &[u8]| big_endian(bytes);
        assert_eq!(read(&[0x00, 0x80]), Some(Bound::Number(128)));
        assert_eq!(read(&[0xff]), Some(Bound::Number(-1)));
        assert_eq!(read(&[0x80, 0x00]), Some(Bound::Number(-32_768)));
        assert_eq!(
            read(&i128::MIN.to_be_bytes()),
            Some(Bound::Number(i128::MIN))
        );
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0; 17]), None);
    }

    #[test]
    fn days_are_read_and_written() {
        for (day, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (20_665, "2026-07-31"),
        ] {
            assert_eq!(day_text(day).as_deref(), Some(text));
            assert_eq!(day_number(text), Some(day));
        }
        assert_eq!(day_text(i32::MAX), None);
        assert_eq!(day_number("2026-02-30"), None);
    }

    #[test]
    fn statistics_of_other_writers_are_widened_or_ignored() {
        let json = r#"{"numRecords":3,"minValues":{"t":"2026-01-01T00:00:00.000Z","x":1.5e3},
            "maxValues":{"t":"2026-01-01T00:00:00.001Z"},"nullCount":{"t":1,"s":{"a":2}}}"#;
        let statistics = FileStatistics::parse(Some(json));
        let instant = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
        let start = 1_767_225_600_000_000;
        let time = |us| Some(ScalarValue::TimestampMicrosecond(Some(us), None));
        assert_eq!(statistics.min("t", &instant), time(start));
        assert_eq!(statistics.max("t", &instant), time(start + 1_999));
        let unknown = Some(ScalarValue::Decimal128(None, 9, 2));
        assert_eq!(statistics.min("x", &DataType::Decimal128(9, 2)), unknown);
        assert_eq!(
            (statistics.nulls("t"), statistics.nulls("s")),
            (Some(1), None)
        );
        assert_eq!(FileStatistics::parse(Some("{")).num_records, None);
        assert_eq!(FileStatistics::parse(None).num_records, None);
    }
}
