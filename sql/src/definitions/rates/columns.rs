//! A rate table's rows from columns that a Parquet file has, read exactly.

use super::{Place, csv::decimal_hint, not_a_batch};
use crate::{
    definitions::{
        decimal::DecimalError,
        model::{Column, RateTable},
    },
    error::Result,
    money::Exact,
    schema::{self, type_name},
};
use datafusion::arrow::{
    array::{
        Array, ArrayRef, AsArray, Decimal128Array, Int64Array, RecordBatch,
        TimestampMicrosecondArray,
    },
    compute::cast,
    datatypes::{
        DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType, TimestampSecondType,
    },
};
use std::sync::Arc;

impl RateTable {
    /// The table's rows from a file of columns, such as Parquet, found by name; columns that are not declared are not
    /// read. `file` is its name in errors.
    ///
    /// Types are exact and values are kept: BIGINT takes any integers that fit, DECIMAL integers and decimals that have a
    /// place in it, VARCHAR texts, TIMESTAMP instants in UTC of at most microseconds.
    ///
    /// # Errors
    /// [`Error::RateTable`](crate::Error::RateTable) with file, row and column: a column that is missing or twice, a type
    /// that is not exact (floats) or another one, a value that does not fit, a NULL in a NOT NULL column, two rows with one
    /// key, or with one key and periods that overlap.
    pub fn read_columns(&self, file: &str, rows: &RecordBatch) -> Result<RecordBatch> {
        let schema = rows.schema();
        let header: Vec<String> = schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        let places = self.places(file, &Place::Columns, &header)?;
        let columns = self.columns.iter().zip(&places).map(|(column, place)| {
            let values = Values {
                table: self,
                file,
                column,
                values: rows.column(*place),
            };
            values.check_present()?;
            values.read()
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let table = RecordBatch::try_new(self.schema(), columns).map_err(not_a_batch)?;
        self.check_key(file, &table, |row| Place::Row(row + 1))?;
        Ok(table)
    }
}

/// One column of the file.
struct Values<'a> {
    table: &'a RateTable,
    file: &'a str,
    column: &'a Column,
    values: &'a ArrayRef,
}

impl Values<'_> {
    fn read(&self) -> Result<ArrayRef> {
        match (&self.column.data_type, self.values.data_type()) {
            (DataType::Decimal128(precision, scale), from) if is_exact_number(from) => {
                let read = |row| self.decimal(row, *precision, *scale);
                let array = Decimal128Array::from(self.each(read)?)
                    .with_precision_and_scale(*precision, *scale)
                    .map_err(not_a_batch)?;
                Ok(Arc::new(array))
            }
            (DataType::Int64, from) if is_exact_number(from) => Ok(Arc::new(Int64Array::from(
                self.each(|row| self.bigint(row))?,
            ))),
            (DataType::Timestamp(..), DataType::Timestamp(unit, Some(_))) => {
                let array =
                    TimestampMicrosecondArray::from(self.each(|row| self.instant(row, *unit))?);
                Ok(Arc::new(array.with_data_type(schema::timestamp())))
            }
            (DataType::Utf8, from) if is_text(from) => {
                cast(self.values, &DataType::Utf8).map_err(not_a_batch)
            }
            (declared, from) if declared == from => Ok(Arc::clone(self.values)),
            (declared, from) => Err(self.other_type(declared, from)),
        }
    }

    fn check_present(&self) -> Result<()> {
        let missing = || (0..self.values.len()).find(|row| self.values.is_null(*row));
        match missing().filter(|_| !self.column.nullable) {
            None => Ok(()),
            Some(row) => {
                let (problem, hint) = self.table.missing(self.column, "NULL");
                Err(self.refused(row, &problem, hint))
            }
        }
    }

    fn each<T>(&self, read: impl Fn(usize) -> Result<T>) -> Result<Vec<Option<T>>> {
        let rows = 0..self.values.len();
        let one = |row| match self.values.is_null(row) {
            true => Ok(None),
            false => read(row).map(Some),
        };
        rows.map(one).collect()
    }

    fn number(&self, row: usize) -> Result<Exact> {
        let number = Exact::from_array(self.values.as_ref(), row);
        let number = number.map_err(|error| {
            self.refused(
                row,
                &error.to_string(),
                "write numbers of at most 38 digits",
            )
        })?;
        Ok(number.unwrap_or(Exact::ZERO))
    }

    fn decimal(&self, row: usize, precision: u8, scale: i8) -> Result<i128> {
        let number = self.number(row)?;
        let does_not_fit = |error: DecimalError| {
            self.refused(row, &format!("`{number}`: {error}"), &decimal_hint(error))
        };
        let places = u8::try_from(scale).unwrap_or(0);
        let digits = number.digits_at(places).map_err(|_| {
            does_not_fit(match number.scale > places {
                true => DecimalError::TooFine { scale },
                false => DecimalError::TooLarge { precision, scale },
            })
        })?;
        match 10_i128.checked_pow(precision.into()) {
            Some(limit) if digits.abs() >= limit => {
                Err(does_not_fit(DecimalError::TooLarge { precision, scale }))
            }
            _ => Ok(digits),
        }
    }

    fn bigint(&self, row: usize) -> Result<i64> {
        let number = self.number(row)?;
        let whole = number.digits_at(0).ok();
        whole
            .and_then(|whole| i64::try_from(whole).ok())
            .ok_or_else(|| {
                let hint = "write whole numbers of 64 bits, or declare the column DECIMAL(p, s)";
                self.refused(
                    row,
                    &format!("`{number}`: not a whole number of 64 bits"),
                    hint,
                )
            })
    }

    fn instant(&self, row: usize, unit: TimeUnit) -> Result<i64> {
        let values = self.values;
        let us = match unit {
            TimeUnit::Second => values
                .as_primitive::<TimestampSecondType>()
                .value(row)
                .checked_mul(1_000_000),
            TimeUnit::Millisecond => values
                .as_primitive::<TimestampMillisecondType>()
                .value(row)
                .checked_mul(1_000),
            TimeUnit::Microsecond => {
                Some(values.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            TimeUnit::Nanosecond => {
                let ns = values.as_primitive::<TimestampNanosecondType>().value(row);
                if ns % 1_000 != 0 {
                    let hint = "write TIMESTAMP of microseconds";
                    return Err(self.refused(row, "finer than a microsecond", hint));
                }
                Some(ns / 1_000)
            }
        };
        us.ok_or_else(|| {
            let problem = "more microseconds since 1970 than fit 64 bits";
            self.refused(row, problem, "write an instant of this era")
        })
    }

    fn other_type(&self, declared: &DataType, from: &DataType) -> crate::Error {
        let declared = type_name(declared);
        let (problem, hint) = match from {
            from if from.is_floating() => (
                format!("{from} in the file, which is not exact; the column is {declared}"),
                format!("write it as DECIMAL, in DuckDB with `CAST({} AS DECIMAL(38, 12))`", self.column.name),
            ),
            DataType::Timestamp(_, None) => (
                format!("a time without a zone in the file; the column is {declared}"),
                "write instants: TIMESTAMP WITH TIME ZONE in DuckDB, a time zone in pandas or Arrow".to_owned(),
            ),
            from => (
                format!("{from} in the file; the column is {declared}"),
                format!("write it as {declared}, or declare the column as what it is"),
            ),
        };
        self.table.error(
            self.file,
            &Place::Columns,
            Some(&self.column.name),
            &problem,
            &hint,
        )
    }

    fn refused(&self, row: usize, problem: &str, hint: &str) -> crate::Error {
        let column = Some(self.column.name.as_str());
        self.table
            .error(self.file, &Place::Row(row + 1), column, problem, hint)
    }
}

fn is_exact_number(data_type: &DataType) -> bool {
    data_type.is_integer() || matches!(data_type, DataType::Decimal128(..))
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}
