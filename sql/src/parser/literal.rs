//! `DEFAULT literal`: checked against its column, and carried as the JSON an event would have.

use super::cursor::{Cursor, is_word};
use crate::{
    definitions::{
        decimal::parse_decimal,
        time::{instant_us, parse_date},
    },
    error::{Error, Location, Result},
    schema::type_name,
};
use datafusion::{arrow::datatypes::DataType, sql::sqlparser::tokenizer::Token};
use jiff::Timestamp;
use serde_json::Value;

/// The literal that follows, as JSON text.
///
/// # Errors
/// What is no literal, or no value of this type, at its place.
pub(super) fn json(cursor: &mut Cursor<'_>, column: &str, data_type: &DataType) -> Result<String> {
    let DataType::List(element) = data_type else {
        return scalar(cursor, column, data_type);
    };
    if !cursor.accept(&Token::LBracket) {
        let (at, found) = (cursor.here(), cursor.found());
        return Err(misfit(cursor, at, column, &found, data_type));
    }
    let mut elements = Vec::new();
    let mut is_open = !cursor.accept(&Token::RBracket);
    while is_open {
        elements.push(scalar(cursor, column, element.data_type())?);
        is_open = cursor.another(&Token::RBracket, "a list is `[value, …]`")?;
    }
    Ok(format!("[{}]", elements.join(",")))
}

fn scalar(cursor: &mut Cursor<'_>, column: &str, data_type: &DataType) -> Result<String> {
    let at = cursor.here();
    let sign = match cursor.accept(&Token::Minus) {
        true => "-",
        false => "",
    };
    let token = cursor.peek().cloned();
    let written = format!(
        "{sign}{}",
        token.as_ref().map_or(String::new(), Token::to_string)
    );
    let value = match &token {
        Some(Token::Number(number, false)) => number_json(&format!("{sign}{number}"), data_type),
        Some(Token::SingleQuotedString(text)) if sign.is_empty() => text_json(text, data_type),
        Some(word @ Token::Word(_)) if *data_type == DataType::Boolean && sign.is_empty() => {
            let is = |keyword| is_word(word, keyword);
            (is("TRUE") || is("FALSE")).then(|| is("TRUE").to_string())
        }
        _ => None,
    };
    let Some(value) = value else {
        let found = match token {
            Some(_) => format!("`{written}`"),
            None => cursor.found(),
        };
        return Err(misfit(cursor, at, column, &found, data_type));
    };
    cursor.advance();
    Ok(value)
}

fn number_json(number: &str, data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Int64 => Some(number.parse::<i64>().ok()?.to_string()),
        DataType::Decimal128(precision, scale) => {
            let digits = parse_decimal(number, *precision, *scale).ok()?;
            Some(format!("{digits}e-{scale}"))
        }
        _ => None,
    }
}

fn text_json(text: &str, data_type: &DataType) -> Option<String> {
    let text = match data_type {
        DataType::Utf8 => text.to_owned(),
        DataType::Date32 => parse_date(text)?.to_string(),
        DataType::Timestamp(..) => Timestamp::from_microsecond(instant_us(text).ok()?)
            .ok()?
            .to_string(),
        _ => return None,
    };
    Some(Value::from(text).to_string())
}

fn misfit(
    cursor: &Cursor<'_>,
    at: Location,
    column: &str,
    found: &str,
    data_type: &DataType,
) -> Error {
    let example = match data_type {
        DataType::Utf8 => "a string, such as DEFAULT 'none'".to_owned(),
        DataType::Boolean => "DEFAULT TRUE or DEFAULT FALSE".to_owned(),
        DataType::Int64 => "a whole number of 64 bits, such as DEFAULT 0".to_owned(),
        DataType::Decimal128(precision, scale) => format!(
            "a number of at most {precision} digits, {scale} of them after the point, such as DEFAULT 0"
        ),
        DataType::Date32 => "a date, such as DEFAULT '2026-01-31'".to_owned(),
        DataType::List(_) => "a list of literals, such as DEFAULT []".to_owned(),
        _ => "an instant, such as DEFAULT '2026-01-31T00:00:00Z'".to_owned(),
    };
    let problem = format!(
        "column `{column}`: DEFAULT {found} is not a value of {}",
        type_name(data_type)
    );
    let hint = format!("write {example}; without DEFAULT a missing value is NULL");
    cursor.error(at, problem, &hint)
}
