//! A rate table's CSV file, read exactly.

use super::{Place, not_a_batch};
use crate::{
    definitions::{
        csv_file::{self, BadLine, Row, Unread},
        decimal::{DecimalError, parse_decimal},
        model::{Column, RateTable},
        time::{instant_us, parse_date},
    },
    error::{Error, Result},
    schema,
};
use datafusion::arrow::{
    array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::DataType,
};
use jiff::civil::date;
use std::sync::Arc;

impl RateTable {
    /// Reads the table's file: CSV in UTF-8 with a header, columns found by name, in any order;
    /// columns that are not declared are not read. `file` is its name in errors.
    ///
    /// An empty cell is NULL. Nothing is trimmed and nothing is rounded. DECIMAL and BIGINT are plain
    /// numbers, BOOLEAN is `true` or `false`, DATE is `2026-10-01`, TIMESTAMP has an offset
    /// (`2026-10-01T00:00:00Z`) and at most microseconds.
    ///
    /// # Errors
    /// [`Error::RateTable`](crate::Error::RateTable) with file, line and column: a header that lacks a column or has it
    /// twice, a row with other than the header's number of cells, a cell that does not fit its column, is empty in
    /// a NOT NULL column, or has a line break (the mark of a quote that was never closed); two rows with one key, or with
    /// one key and periods that overlap.
    pub fn read_csv(&self, file: &str, bytes: &[u8]) -> Result<RecordBatch> {
        let bad = |bad: BadLine| self.bad_line(file, &bad);
        let (header, rows) = csv_file::read(bytes).map_err(bad)?;
        let csv = Csv {
            table: self,
            file,
            rows: rows.collect::<Result<_, _>>().map_err(bad)?,
        };
        let places = self.places(file, &Place::Line(1), &header)?;
        let columns = self.columns.iter().zip(&places);
        let arrays = columns.map(|(column, place)| {
            Cells {
                csv: &csv,
                column,
                place: *place,
            }
            .read()
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let table = RecordBatch::try_new(self.schema(), arrays).map_err(not_a_batch)?;
        self.check_key(file, &table, |row| Place::Line(csv.rows[row].line))?;
        Ok(table)
    }

    fn bad_line(&self, file: &str, bad: &BadLine) -> Error {
        let place = Place::Line(bad.line);
        self.error(file, &place, bad.column.as_deref(), &bad.problem, &bad.hint)
    }
}

/// The cells of a file.
struct Csv<'a> {
    table: &'a RateTable,
    file: &'a str,
    rows: Vec<Row>,
}

/// One column of the file.
struct Cells<'a> {
    csv: &'a Csv<'a>,
    column: &'a Column,
    /// Which cell of each row.
    place: usize,
}

impl Cells<'_> {
    fn read(&self) -> Result<ArrayRef> {
        Ok(match &self.column.data_type {
            DataType::Boolean => Arc::new(BooleanArray::from(self.parse(boolean)?)),
            DataType::Int64 => Arc::new(Int64Array::from(self.parse(bigint)?)),
            DataType::Date32 => Arc::new(Date32Array::from(self.parse(day)?)),
            DataType::Timestamp(..) => {
                let array = TimestampMicrosecondArray::from(self.parse(instant)?);
                Arc::new(array.with_data_type(schema::timestamp()))
            }
            DataType::Decimal128(precision, scale) => {
                let read = |cell: &str| decimal(cell, *precision, *scale);
                let array = Decimal128Array::from(self.parse(read)?)
                    .with_precision_and_scale(*precision, *scale)
                    .map_err(not_a_batch)?;
                Arc::new(array)
            }
            _ => Arc::new(StringArray::from(self.parse(|cell| Ok(cell.to_owned()))?)),
        })
    }

    /// Reads every cell; an empty one is NULL.
    fn parse<T>(&self, read: impl Fn(&str) -> Result<T, Unread>) -> Result<Vec<Option<T>>> {
        let Csv {
            table, file, rows, ..
        } = self.csv;
        let one = |row: &Row| {
            let refused = |problem: &str, hint: &str| {
                table.error(
                    file,
                    &Place::Line(row.line),
                    Some(&self.column.name),
                    problem,
                    hint,
                )
            };
            let refused_cell = |(problem, hint): Unread| refused(&problem, &hint);
            match row.cell(self.place).map_err(refused_cell)? {
                "" if self.column.nullable => Ok(None),
                "" => {
                    let (problem, hint) = table.missing(self.column, "empty");
                    Err(refused(&problem, hint))
                }
                cell => read(cell)
                    .map(Some)
                    .map_err(|(problem, hint)| refused(&format!("`{cell}`: {problem}"), &hint)),
            }
        };
        rows.iter().map(one).collect()
    }
}

fn boolean(cell: &str) -> Result<bool, Unread> {
    match cell {
        _ if cell.eq_ignore_ascii_case("true") => Ok(true),
        _ if cell.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err((
            "neither `true` nor `false`".to_owned(),
            "write `true`, `false`, or nothing for NULL".to_owned(),
        )),
    }
}

fn bigint(cell: &str) -> Result<i64, Unread> {
    cell.parse().map_err(|_| {
        (
            "not a whole number of 64 bits".to_owned(),
            "write digits alone, or declare the column DECIMAL(p, s)".to_owned(),
        )
    })
}

fn decimal(cell: &str, precision: u8, scale: i8) -> Result<i128, Unread> {
    parse_decimal(cell, precision, scale).map_err(|error| (error.to_string(), decimal_hint(error)))
}

/// What to write in place of a decimal that does not fit.
pub(super) fn decimal_hint(error: DecimalError) -> String {
    match error {
        DecimalError::TooFine { scale } => format!(
            "declare the column with more digits after the point, DECIMAL(38, {}), or write fewer",
            (i16::from(scale) + 6).min(38)
        ),
        DecimalError::TooLarge { scale, .. } => {
            format!("declare the column DECIMAL(38, {scale}), or write a smaller number")
        }
        DecimalError::TooLong | DecimalError::NotANumber => {
            "write a number such as 0.0025 or 2.5e-3, without spaces, currency and marks between thousands".to_owned()
        }
    }
}

/// Days since the Unix epoch.
fn day(cell: &str) -> Result<i32, Unread> {
    let unread = || {
        (
            "not a date such as 2026-10-01".to_owned(),
            "write the year, the month and the day, with a `-` between them".to_owned(),
        )
    };
    let found = parse_date(cell).ok_or_else(unread)?;
    let since = found.since(date(1970, 1, 1)).map_err(|_| unread())?;
    Ok(since.get_days())
}

/// Microseconds since the Unix epoch.
fn instant(cell: &str) -> Result<i64, Unread> {
    instant_us(cell).map_err(|problem| {
        let hint = "write it with its offset and at most microseconds, or declare the column DATE";
        (problem, hint.to_owned())
    })
}
