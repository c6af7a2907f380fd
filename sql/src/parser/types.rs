//! The type of a column.

use super::{
    cursor::{Cursor, Name},
    suggest::nearest,
};
use crate::{
    error::{Error, Location, Result},
    schema,
};
use datafusion::{
    arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType},
    sql::sqlparser::tokenizer::Token,
};

const NAMES: [&str; 6] = [
    "VARCHAR",
    "BOOLEAN",
    "BIGINT",
    "DECIMAL",
    "TIMESTAMP",
    "DATE",
];
const TYPES: &str = "VARCHAR, BOOLEAN, BIGINT, DECIMAL(p, s), TIMESTAMP or DATE";

/// A type, or a list of one: `VARCHAR[]`, `LIST(VARCHAR)`.
pub(super) fn data_type(cursor: &mut Cursor<'_>, column: &Name) -> Result<DataType> {
    let (element, is_list) = if cursor.accept_keyword("LIST") {
        cursor.expect(&Token::LParen, LIST_SHAPE)?;
        let element = scalar_type(cursor, column)?;
        cursor.expect(&Token::RParen, LIST_SHAPE)?;
        (element, true)
    } else {
        let element = scalar_type(cursor, column)?;
        let is_list = cursor.accept(&Token::LBracket);
        if is_list {
            cursor.expect(&Token::RBracket, LIST_SHAPE)?;
        }
        (element, is_list)
    };
    if cursor.peek() == Some(&Token::LBracket) {
        let problem = format!("column `{}`: a list of lists", column.text);
        let hint = "a list holds values of one plain type: VARCHAR[], BIGINT[], …";
        return Err(cursor.error(cursor.here(), problem, hint));
    }
    Ok(match is_list {
        true => schema::list_of(element),
        false => element,
    })
}

const LIST_SHAPE: &str = "a list is `VARCHAR[]` or `LIST(VARCHAR)`, of any length";

fn scalar_type(cursor: &mut Cursor<'_>, column: &Name) -> Result<DataType> {
    let expected = cursor.expected(
        &format!("the type of column `{}`", column.text),
        &format!("a type is {TYPES}"),
    );
    let (word, at) = cursor.accept_word().ok_or(expected)?;
    let data_type = match word.value.to_ascii_uppercase().as_str() {
        "VARCHAR" => DataType::Utf8,
        "BOOLEAN" => DataType::Boolean,
        "BIGINT" | "INT" | "INTEGER" => DataType::Int64,
        "TIMESTAMP" => schema::timestamp(),
        "DATE" => DataType::Date32,
        "DECIMAL" | "NUMERIC" => return decimal(cursor, column, at),
        other => return Err(unknown_type(cursor, column, other, at)),
    };
    if cursor.peek() == Some(&Token::LParen) {
        let problem = format!("column `{}`: {} takes no length", column.text, word.value);
        let hint = "write the type alone: lengths are not checked";
        return Err(cursor.error(cursor.here(), problem, hint));
    }
    Ok(data_type)
}

fn unknown_type(cursor: &Cursor<'_>, column: &Name, found: &str, at: Location) -> Error {
    let (problem, hint) = match found {
        "FLOAT" | "DOUBLE" | "REAL" | "FLOAT4" | "FLOAT8" | "FLOAT32" | "FLOAT64" => (
            "is not exact",
            "use DECIMAL(p, s), for example DECIMAL(18, 9)".to_owned(),
        ),
        "TEXT" | "STRING" | "CHAR" => ("is not a type", "use VARCHAR".to_owned()),
        "BOOL" => ("is not a type", "use BOOLEAN".to_owned()),
        "TINYINT" | "SMALLINT" | "INT2" | "INT4" | "INT8" | "INT64" | "LONG" | "UBIGINT" => {
            ("is not a type", "use BIGINT".to_owned())
        }
        "UUID" => ("is not a type", "use VARCHAR".to_owned()),
        "NUMBER" | "MONEY" => (
            "is not a type",
            "use DECIMAL(p, s), for example DECIMAL(18, 9)".to_owned(),
        ),
        "JSON" | "JSONB" | "STRUCT" | "MAP" => (
            "is not a type",
            "declare a column for each value in it: cost DECIMAL(18, 9) OPTIONS (path = '$.billing.cost')"
                .to_owned(),
        ),
        "DATETIME" | "TIMESTAMPTZ" => (
            "is not a type",
            "use TIMESTAMP, which is an instant in UTC".to_owned(),
        ),
        _ => {
            let near = nearest(found, &NAMES);
            let meant = near.map_or(String::new(), |near| format!("did you mean {near}? "));
            ("is not a type", format!("{meant}use {TYPES}"))
        }
    };
    let problem = format!("column `{}`: {found} {problem}", column.text);
    cursor.error(at, problem, &hint)
}

/// `DECIMAL(p)` or `DECIMAL(p, s)`: neither is guessed, since databases disagree on both.
fn decimal(cursor: &mut Cursor<'_>, column: &Name, at: Location) -> Result<DataType> {
    if !cursor.accept(&Token::LParen) {
        let problem = format!("column `{}`: DECIMAL needs a precision", column.text);
        return Err(cursor.error(at, problem, DECIMAL_SHAPE));
    }
    let precision = digits(cursor, column, "precision", 1, DECIMAL128_MAX_PRECISION)?;
    let scale = match cursor.accept(&Token::Comma) {
        true => digits(cursor, column, "scale", 0, precision)?,
        false => 0,
    };
    cursor.expect(&Token::RParen, DECIMAL_SHAPE)?;
    let scale = i8::try_from(scale).expect("a scale is at most the precision, which is at most 38");
    Ok(DataType::Decimal128(precision, scale))
}

const DECIMAL_SHAPE: &str =
    "write DECIMAL(p, s): p digits in all, at most 38, s of them after the point";

/// A whole number between two bounds, both included.
fn digits(cursor: &mut Cursor<'_>, column: &Name, what: &str, min: u8, max: u8) -> Result<u8> {
    let at = cursor.here();
    let Some(Token::Number(text, false)) = cursor.peek() else {
        return Err(cursor.expected(&format!("the {what} of DECIMAL"), DECIMAL_SHAPE));
    };
    let text = text.clone();
    cursor.advance();
    match text.parse::<u8>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => {
            let problem = format!(
                "column `{}`: {what} {text} is not between {min} and {max}",
                column.text
            );
            Err(cursor.error(at, problem, DECIMAL_SHAPE))
        }
    }
}
