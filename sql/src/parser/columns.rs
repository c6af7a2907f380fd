//! Declared columns: `name TYPE [NOT NULL] [OPTIONS (path = '$.a.b')]`.

use super::{
    cursor::{Cursor, Name},
    json_path,
    options::Options,
    reserved_columns,
    suggest::list,
};
use crate::{
    definitions::Column,
    error::{Error, Location, Result},
    schema,
};
use datafusion::{
    arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType},
    sql::sqlparser::tokenizer::Token,
};

const TYPES: &str = "VARCHAR, BOOLEAN, BIGINT, DECIMAL(p, s), TIMESTAMP or DATE";
const COLUMNS_SHAPE: &str = "columns are `(name TYPE [NOT NULL], …)`, the type one of VARCHAR, BOOLEAN, BIGINT, DECIMAL(p, s), TIMESTAMP, DATE";

/// The columns of an event type, at least one.
///
/// # Errors
/// Names that every event or window has already, names declared twice, types that are not exact.
pub(super) fn event_columns(cursor: &mut Cursor<'_>) -> Result<Vec<Column>> {
    let reserved = reserved_columns();
    columns(cursor, &["path"], &reserved)
}

/// The columns of a rate table, at least one. They have no path: a CSV file has headers.
pub(super) fn rate_columns(cursor: &mut Cursor<'_>) -> Result<Vec<Column>> {
    columns(cursor, &[], &[])
}

fn columns(cursor: &mut Cursor<'_>, options: &[&str], reserved: &[String]) -> Result<Vec<Column>> {
    cursor.expect(&Token::LParen, COLUMNS_SHAPE)?;
    let mut columns: Vec<Column> = Vec::new();
    loop {
        let name = cursor.name("the name of a column")?;
        check_name(cursor, &name, &columns, reserved)?;
        columns.push(column(cursor, name, options)?);
        if !cursor.accept(&Token::Comma) {
            break;
        }
    }
    cursor.expect(&Token::RParen, COLUMNS_SHAPE)?;
    Ok(columns)
}

fn check_name(
    cursor: &Cursor<'_>,
    name: &Name,
    before: &[Column],
    reserved: &[String],
) -> Result<()> {
    if reserved.contains(&name.text) {
        let problem = format!("column `{}` is there already", name.text);
        let hint = format!(
            "every event or window has {}; choose another name and read the field with OPTIONS (path = '$.{}')",
            list(reserved),
            name.text
        );
        return Err(cursor.error(name.at.clone(), problem, &hint));
    }
    if before.iter().any(|column| column.name == name.text) {
        let problem = format!("column `{}` is declared twice", name.text);
        return Err(cursor.error(name.at.clone(), problem, "remove or rename one of them"));
    }
    Ok(())
}

fn column(cursor: &mut Cursor<'_>, name: Name, options: &[&str]) -> Result<Column> {
    let data_type = data_type(cursor, &name)?;
    let mut column = Column {
        path: vec![name.text.clone()],
        name: name.text,
        data_type,
        nullable: true,
    };
    if cursor.accept_keyword("NOT") {
        cursor.expect_keyword("NULL", "write `NOT NULL`")?;
        column.nullable = false;
    } else {
        // `NULL` is what a column is without saying so.
        let _ = cursor.accept_keyword("NULL");
    }
    if !options.is_empty() && cursor.accept_keyword("OPTIONS") {
        let options = Options::in_parentheses(cursor, options)?;
        if let Some(path) = options.get("path") {
            column.path = keys(cursor, path)?;
        }
    }
    match cursor.peek() {
        Some(Token::Comma | Token::RParen) => Ok(column),
        _ => Err(unexpected_after(cursor, &column, options)),
    }
}

fn unexpected_after(cursor: &Cursor<'_>, column: &Column, options: &[&str]) -> Error {
    let problem = format!(
        "unexpected {} after column `{}`",
        cursor.found(),
        column.name
    );
    let hint = match options.is_empty() {
        true => "a column is `name TYPE [NOT NULL]`; separate columns with `,` and end with `)`",
        false => {
            "a column is `name TYPE [NOT NULL] [OPTIONS (path = '$.a.b')]`; separate columns with `,` and end with `)`"
        }
    };
    cursor.error(cursor.here(), problem, hint)
}

fn keys(cursor: &Cursor<'_>, path: &Name) -> Result<Vec<String>> {
    json_path::parse(&path.text).map_err(|problem| {
        let problem = format!("path `{}`: {problem}", path.text);
        let hint =
            "a path is `$.billing.cost`, or `$['any key'].cost` for keys with other characters";
        cursor.error(path.at.clone(), problem, hint)
    })
}

fn data_type(cursor: &mut Cursor<'_>, column: &Name) -> Result<DataType> {
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
        "TINYINT" | "SMALLINT" | "INT2" | "INT4" | "INT8" => {
            ("is not a type", "use BIGINT".to_owned())
        }
        "DATETIME" | "TIMESTAMPTZ" => (
            "is not a type",
            "use TIMESTAMP, which is an instant in UTC".to_owned(),
        ),
        _ => ("is not a type", format!("use {TYPES}")),
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
