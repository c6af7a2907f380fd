//! Values that a client binds to `$1`, `$2`, …, as SQL has them (pure). A statement is planned with its values, so what is known of
//! conditions with constants bounds what is read, here too.

use super::{
    super::refusal::Refusal,
    kinds::Kind,
    numeric::Numeric,
    rows::Format,
    time::{self, Zone},
};
use tollgate_sql::statements::text_literal;

/// The SQL of a value; `None` stands for NULL.
///
/// # Errors
/// The bytes are no value of the type.
pub(crate) fn literal(
    kind: &Kind,
    format: Format,
    bytes: Option<&[u8]>,
    zone: &Zone,
) -> Result<String, Refusal> {
    let Some(bytes) = bytes else {
        return Ok(null(kind));
    };
    match format {
        Format::Text => {
            let text = str::from_utf8(bytes).map_err(|_| wrong(kind, "is not UTF-8"))?;
            of_text(kind, text, zone)
        }
        Format::Binary => of_binary(kind, bytes),
    }
}

/// A value of the type, for a statement that is only described.
pub(crate) fn sample(kind: &Kind) -> String {
    let text = match kind {
        Kind::Bool => "f",
        // A text is whatever it is cast to: an empty one is no number.
        Kind::Text | Kind::Json => return null(kind),
        Kind::Bytea => "",
        Kind::Int8 | Kind::Int2 | Kind::Int4 | Kind::Oid | Kind::Float4 | Kind::Float8 => "0",
        Kind::Numeric => "0.0",
        Kind::Date | Kind::Timestamp | Kind::TimestampTz => "2000-01-01",
        Kind::Time => "00:00",
        Kind::Interval => "0 seconds",
        Kind::Uuid => "00000000-0000-0000-0000-000000000000",
        Kind::Array(item) => return format!("[{}]", sample(item)),
    };
    of_text(kind, text, &Zone::UTC).unwrap_or_else(|_| null(kind))
}

fn null(kind: &Kind) -> String {
    match arrow_type(kind) {
        Some(arrow) => format!("arrow_cast(NULL, '{arrow}')"),
        None => "NULL".to_owned(),
    }
}

/// The type of the SQL of values, as `arrow_cast` names it.
fn arrow_type(kind: &Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Bool => "Boolean",
        Kind::Int8 | Kind::Int2 | Kind::Int4 | Kind::Oid => "Int64",
        Kind::Text | Kind::Json | Kind::Uuid => "Utf8",
        Kind::Bytea => "Binary",
        Kind::Float4 | Kind::Float8 => "Float64",
        Kind::Date => "Date32",
        Kind::Time => "Time64(Microsecond)",
        Kind::Timestamp => "Timestamp(Microsecond, None)",
        Kind::TimestampTz => "Timestamp(Microsecond, Some(\"UTC\"))",
        Kind::Interval => "Interval(MonthDayNano)",
        Kind::Numeric => "Decimal128(38, 9)",
        Kind::Array(_) => return None,
    })
}

/// A text that is cast to the type of its values.
fn cast(kind: &Kind, text: &str) -> String {
    let text = text_literal(text);
    match arrow_type(kind) {
        Some(arrow) => format!("arrow_cast({text}, '{arrow}')"),
        None => text,
    }
}

/// A number, so that a sign before it is no part of what stands there.
fn number(text: String) -> String {
    match text.starts_with('-') {
        true => format!("({text})"),
        false => text,
    }
}

fn of_text(kind: &Kind, text: &str, zone: &Zone) -> Result<String, Refusal> {
    let wrong = || wrong(kind, &format!("cannot be read from `{}`", shortened(text)));
    let trimmed = text.trim();
    Ok(match kind {
        Kind::Bool => match trimmed.to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => "TRUE".to_owned(),
            "f" | "false" | "n" | "no" | "off" | "0" => "FALSE".to_owned(),
            _ => return Err(wrong()),
        },
        Kind::Int2 => whole(trimmed.parse::<i16>().map_err(|_| wrong())?.into()),
        Kind::Int4 => whole(trimmed.parse::<i32>().map_err(|_| wrong())?.into()),
        Kind::Oid => whole(trimmed.parse::<u32>().map_err(|_| wrong())?.into()),
        Kind::Int8 => whole(trimmed.parse().map_err(|_| wrong())?),
        Kind::Float4 | Kind::Float8 => float(trimmed.parse().map_err(|_| wrong())?),
        Kind::Numeric => number(Numeric::read_text(trimmed).map_err(|_| wrong())?.text()),
        Kind::Text | Kind::Json | Kind::Uuid => text_literal(text),
        Kind::Bytea => bytea(&unescaped(text).ok_or_else(wrong)?),
        Kind::Date => cast(kind, &time::read_date(text).ok_or_else(wrong)?.to_string()),
        Kind::Time => cast(kind, &time::read_time(text).ok_or_else(wrong)?.to_string()),
        Kind::Timestamp => cast(kind, &time::read_datetime(text).ok_or_else(wrong)?),
        Kind::TimestampTz => instant(time::read_instant(text, zone).ok_or_else(wrong)?)?,
        Kind::Interval => format!("INTERVAL {}", text_literal(trimmed)),
        Kind::Array(item) => {
            let items = array_items(trimmed).ok_or_else(wrong)?.into_iter();
            let items = items.map(|value| match value {
                Some(value) => of_text(item, &value, zone),
                None => Ok(null(item)),
            });
            list(&items.collect::<Result<Vec<_>, _>>()?)
        }
    })
}

fn of_binary(kind: &Kind, bytes: &[u8]) -> Result<String, Refusal> {
    let wrong = || wrong(kind, &format!("cannot be read from {} bytes", bytes.len()));
    Ok(match kind {
        Kind::Bool => match bytes {
            [0] => "FALSE".to_owned(),
            [_] => "TRUE".to_owned(),
            _ => return Err(wrong()),
        },
        Kind::Int2 => whole(i16::from_be_bytes(fixed(bytes).ok_or_else(wrong)?).into()),
        Kind::Int4 => whole(i32::from_be_bytes(fixed(bytes).ok_or_else(wrong)?).into()),
        Kind::Oid => whole(u32::from_be_bytes(fixed(bytes).ok_or_else(wrong)?).into()),
        Kind::Int8 => whole(i64::from_be_bytes(fixed(bytes).ok_or_else(wrong)?)),
        Kind::Float4 => float(f32::from_be_bytes(fixed(bytes).ok_or_else(wrong)?).into()),
        Kind::Float8 => float(f64::from_be_bytes(fixed(bytes).ok_or_else(wrong)?)),
        Kind::Numeric => {
            let read = Numeric::read_binary(bytes).map_err(|why| Refusal::of_parameter(&why))?;
            number(read.text())
        }
        Kind::Text | Kind::Json => text_literal(str::from_utf8(bytes).map_err(|_| wrong())?),
        Kind::Uuid => {
            let id = uuid::Uuid::from_bytes(fixed(bytes).ok_or_else(wrong)?);
            text_literal(&id.to_string())
        }
        Kind::Bytea => bytea(bytes),
        Kind::Date => {
            let days = i32::from_be_bytes(fixed(bytes).ok_or_else(wrong)?);
            let date = time::date_of(time::days_since_1970(days).ok_or_else(wrong)?)?;
            cast(kind, &date.to_string())
        }
        Kind::Time => {
            let us = i64::from_be_bytes(fixed(bytes).ok_or_else(wrong)?);
            cast(kind, &time::time_text(us))
        }
        Kind::Timestamp => {
            let us = i64::from_be_bytes(fixed(bytes).ok_or_else(wrong)?);
            let us = time::us_since_1970(us).ok_or_else(wrong)?;
            cast(kind, &time::timestamp_text(us, None)?)
        }
        Kind::TimestampTz => {
            let us = i64::from_be_bytes(fixed(bytes).ok_or_else(wrong)?);
            instant(time::us_since_1970(us).ok_or_else(wrong)?)?
        }
        Kind::Interval => {
            let read: [u8; 16] = fixed(bytes).ok_or_else(wrong)?;
            interval(read)
        }
        Kind::Array(item) => array_of_binary(item, bytes).ok_or_else(wrong)??,
    })
}

/// The items of an array in binary, of one dimension; `None` when it is none.
fn array_of_binary(item: &Kind, bytes: &[u8]) -> Option<Result<String, Refusal>> {
    let mut rest = bytes;
    let mut word = || -> Option<i32> {
        let (word, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        Some(i32::from_be_bytes(*word))
    };
    let (dimensions, _has_null, of) = (word()?, word()?, word()?);
    if Kind::of_oid(of.cast_unsigned()).as_ref() != Some(item) || !(0..=1).contains(&dimensions) {
        return None;
    }
    let count = match dimensions {
        0 => 0,
        _ => {
            let count = usize::try_from(word()?).ok()?;
            word()?;
            count
        }
    };
    let mut items = Vec::new();
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let value = match i32::from_be_bytes(*length) {
            -1 => {
                rest = after;
                Ok(null(item))
            }
            length => {
                let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
                rest = after;
                of_binary(item, value)
            }
        };
        match value {
            Ok(value) => items.push(value),
            Err(refusal) => return Some(Err(refusal)),
        }
    }
    rest.is_empty().then(|| Ok(list(&items)))
}

fn list(items: &[String]) -> String {
    format!("[{}]", items.join(", "))
}

/// The items of an array of one dimension as PostgreSQL writes it, `{1,"a b",NULL}`; `None` when it is none.
fn array_items(text: &str) -> Option<Vec<Option<String>>> {
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    let (mut items, mut characters) = (Vec::new(), inside.chars().peekable());
    if inside.trim().is_empty() {
        return Some(items);
    }
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let mut item = String::new();
        if characters.next_if_eq(&'"').is_some() {
            loop {
                match characters.next()? {
                    '"' => break,
                    '\\' => item.push(characters.next()?),
                    other => item.push(other),
                }
            }
            while characters.next_if(|c| c.is_whitespace()).is_some() {}
            items.push(Some(item));
        } else {
            while let Some(c) = characters.next_if(|c| *c != ',') {
                match c {
                    '\\' => item.push(characters.next()?),
                    '{' | '}' | '"' => return None,
                    other => item.push(other),
                }
            }
            let item = item.trim_end();
            match item {
                "" => return None,
                _ if item.eq_ignore_ascii_case("null") => items.push(None),
                _ => items.push(Some(item.to_owned())),
            }
        }
        match characters.next() {
            None => return Some(items),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// The bytes that a text of BYTEA stands for: `\x` and digits.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let (pairs, rest) = digits.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    let bytes = pairs.iter().map(byte).collect::<Option<_>>();
    bytes.filter(|_| rest.is_empty())
}

fn fixed<const LENGTH: usize>(bytes: &[u8]) -> Option<[u8; LENGTH]> {
    bytes.try_into().ok()
}

fn whole(value: i64) -> String {
    number(value.to_string())
}

fn float(value: f64) -> String {
    format!("arrow_cast('{value:?}', 'Float64')")
}

fn bytea(bytes: &[u8]) -> String {
    format!("X'{}'", crate::keys::hex(bytes))
}

fn instant(us: i64) -> Result<String, Refusal> {
    Ok(cast(&Kind::TimestampTz, &time::instant_of(us)?.to_string()))
}

fn interval(bytes: [u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, days @ .., i, j, k, l] = bytes;
    let us = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let (days, months) = (i32::from_be_bytes(days), i32::from_be_bytes([i, j, k, l]));
    let sign = if us < 0 { "-" } else { "" };
    let (seconds, fraction) = (us.unsigned_abs() / 1_000_000, us.unsigned_abs() % 1_000_000);
    format!("INTERVAL '{months} months {days} days {sign}{seconds}.{fraction:06} seconds'")
}

fn wrong(kind: &Kind, why: &str) -> Refusal {
    Refusal::of_parameter(&format!("a value of type {kind:?} {why}"))
}

/// The beginning of a text, for a message.
fn shortened(text: &str) -> String {
    crate::error::printable(text).chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: Kind, text: &str) -> Option<String> {
        let read = literal(&kind, Format::Text, Some(text.as_bytes()), &Zone::UTC);
        read.ok()
    }

    fn binary(kind: Kind, bytes: &[u8]) -> Option<String> {
        literal(&kind, Format::Binary, Some(bytes), &Zone::UTC).ok()
    }

    #[test]
    fn a_value_is_the_same_in_text_and_in_binary() {
        let array = Kind::Array(&Kind::Int4);
        let two = [1_i32, 1, 23, 2, 1, 4, 7, -1];
        let two: Vec<u8> = two.iter().flat_map(|word| word.to_be_bytes()).collect();
        let numeric = [2_u16, 0, 0x4000, 2, 123, 4500]
            .map(u16::to_be_bytes)
            .concat();
        for (kind, written, bytes, sql) in [
            (Kind::Bool, "t", vec![1], "TRUE"),
            (Kind::Int2, "-7", vec![0xFF, 0xF9], "(-7)"),
            (Kind::Int8, "5", 5_i64.to_be_bytes().to_vec(), "5"),
            (
                Kind::Float8,
                "0.5",
                0.5_f64.to_be_bytes().to_vec(),
                "arrow_cast('0.5', 'Float64')",
            ),
            (Kind::Numeric, "-123.45", numeric, "(-123.45)"),
            (Kind::Text, "it's", b"it's".to_vec(), "'it''s'"),
            (Kind::Bytea, "\\x00ff", vec![0, 255], "X'00ff'"),
            (
                Kind::Date,
                "2000-01-02",
                1_i32.to_be_bytes().to_vec(),
                "arrow_cast('2000-01-02', 'Date32')",
            ),
            (
                Kind::TimestampTz,
                "2000-01-01 00:00:00.5+00",
                500_000_i64.to_be_bytes().to_vec(),
                "arrow_cast('2000-01-01T00:00:00.5Z', 'Timestamp(Microsecond, Some(\"UTC\"))')",
            ),
            (
                Kind::Uuid,
                "00000000-0000-0000-0000-0000000000ff",
                [[0; 15].as_slice(), &[255]].concat(),
                "'00000000-0000-0000-0000-0000000000ff'",
            ),
            (array, "{7,NULL}", two, "[7, arrow_cast(NULL, 'Int64')]"),
        ] {
            assert_eq!(text(kind.clone(), written).as_deref(), Some(sql));
            assert_eq!(binary(kind.clone(), &bytes).as_deref(), Some(sql));
            assert!(
                binary(kind.clone(), &[1, 2, 3]).is_none()
                    || matches!(kind, Kind::Text | Kind::Bytea)
            );
        }
        let mut length = 3_000_001_i64.to_be_bytes().to_vec();
        length.extend(2_i32.to_be_bytes());
        length.extend(1_i32.to_be_bytes());
        let sql = "INTERVAL '1 months 2 days 3.000001 seconds'";
        assert_eq!(binary(Kind::Interval, &length).as_deref(), Some(sql));
    }

    #[test]
    fn what_is_no_value_of_its_type_is_refused() {
        for (kind, wrong) in [
            (Kind::Int2, "32768"),
            (Kind::Int8, "1.5"),
            (Kind::Numeric, "NaN"),
            (Kind::Bool, "maybe"),
            (Kind::Date, "2026-02-30"),
            (Kind::TimestampTz, "'; DROP TABLE events"),
            (Kind::Bytea, "\\x0"),
            (Kind::Array(&Kind::Int4), "{1"),
            (Kind::Array(&Kind::Int4), "{1,}"),
            (Kind::Array(&Kind::Int4), "{{1}}"),
        ] {
            assert_eq!(text(kind.clone(), wrong), None, "{kind:?} {wrong}");
        }
        let hostile = text(Kind::Interval, "1 day' OR '1'='1").unwrap();
        assert_eq!(hostile, "INTERVAL '1 day'' OR ''1''=''1'");
    }

    #[test]
    fn an_array_is_read_as_postgresql_writes_it() {
        let items = array_items("{a, \"b c\" ,\"\\\"\\\\\",null,\"NULL\",\"\"}").unwrap();
        let expected = [
            Some("a"),
            Some("b c"),
            Some("\"\\"),
            None,
            Some("NULL"),
            Some(""),
        ];
        assert_eq!(items, expected.map(|item| item.map(str::to_owned)));
        assert_eq!(array_items("{}"), Some(Vec::new()));
    }
}
