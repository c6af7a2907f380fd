//! Account rows as columns, for the lake and for queries.

use super::{
    Accounts,
    files::AMOUNT_SCALE,
    table::{Kind, Table, Value, Values},
};
use crate::{
    error::{Error, Result},
    money::{Exact, MoneyError},
    schema::{
        accounts::{accounts_schema, stored_accounts_schema},
        timestamp,
    },
};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Int64Array, RecordBatch,
        StringArray, TimestampMicrosecondArray,
    },
    compute::cast,
    datatypes::{DataType, Int64Type, TimestampMicrosecondType},
};
use datafusion::error::DataFusionError;
use std::sync::Arc;

/// The rows of a table, with the columns of its files; `None` when there is no such table.
///
/// # Errors
/// An amount does not fit the column; none that was read from a file or from the lake does not.
pub fn rows_of(accounts: &Accounts, table: &str) -> Option<Result<RecordBatch>> {
    super::with_table!(table, R => batch_of::<R>(R::rows(accounts)))
}

/// The rows of a table as the lake keeps them, written by one import; `None` when there is no such table.
///
/// # Errors
/// As for [`rows_of`].
pub fn stored_rows_of(
    accounts: &Accounts,
    table: &str,
    import: &str,
    written_at_us: i64,
) -> Option<Result<RecordBatch>> {
    let rows = rows_of(accounts, table)?;
    let schema = stored_accounts_schema(table)?;
    Some(rows.and_then(|rows| {
        let count = rows.num_rows();
        let written_at = TimestampMicrosecondArray::from(vec![written_at_us; count]);
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(written_at.with_data_type(timestamp())));
        columns.push(Arc::new(StringArray::from(vec![import; count])));
        RecordBatch::try_new(schema, columns).map_err(not_rows)
    }))
}

impl Accounts {
    /// Takes in rows of a table that the lake keeps, in the order in which they were written, whatever their order is. Nothing
    /// when there is no such table.
    ///
    /// # Errors
    /// The columns are not the table's.
    pub fn take_in(&mut self, table: &str, batches: &[RecordBatch]) -> Result<()> {
        super::with_table!(table, R => take_in::<R>(self, batches)).unwrap_or(Ok(()))
    }
}

fn take_in<R: Table>(accounts: &mut Accounts, batches: &[RecordBatch]) -> Result<()> {
    let mut rows: Vec<(i64, R)> = Vec::new();
    for batch in batches {
        let written_at = column(batch, "written_at", &timestamp())?;
        let written_at = written_at.as_primitive::<TimestampMicrosecondType>();
        let cells = cells_of::<R>(batch)?;
        for (row, values) in cells.into_iter().enumerate() {
            rows.push((written_at.value(row), R::of(Values(values.into_iter()))));
        }
    }
    rows.sort_by_key(|(written_at, _)| *written_at);
    R::rows_mut(accounts).extend(rows.into_iter().map(|(_, row)| row));
    Ok(())
}

/// The values of each row.
fn cells_of<R: Table>(batch: &RecordBatch) -> Result<Vec<Vec<Value>>> {
    let width = R::COLUMNS.len();
    let mut rows: Vec<Vec<Value>> = (0..batch.num_rows())
        .map(|_| Vec::with_capacity(width))
        .collect();
    let schema = accounts_schema(R::NAME).unwrap_or_else(|| batch.schema());
    for (known, field) in R::COLUMNS.iter().zip(schema.fields()) {
        let array = column(batch, known.name, field.data_type())?;
        for (row, values) in rows.iter_mut().enumerate() {
            values.push(match array.is_null(row) {
                true => Value::Null,
                false => value_in(known.kind, &array, row)?,
            });
        }
    }
    Ok(rows)
}

fn value_in(kind: Kind, array: &ArrayRef, row: usize) -> Result<Value, MoneyError> {
    Ok(match kind {
        Kind::Name
        | Kind::Text
        | Kind::Currency
        | Kind::Zone
        | Kind::Prices
        | Kind::Length
        | Kind::OneOf(_) => Value::Text(array.as_string::<i32>().value(row).to_owned()),
        Kind::Flag => Value::Flag(array.as_boolean().value(row)),
        Kind::Whole(_) => Value::Whole(array.as_primitive::<Int64Type>().value(row)),
        Kind::Instant => {
            Value::Instant(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        Kind::Amount(_) => match Exact::from_array(array, row)? {
            Some(amount) => Value::Amount(amount.without_trailing_zeros()),
            None => Value::Null,
        },
    })
}

/// A column as the type that it is written with: readers of Parquet may say another one for text.
fn column(batch: &RecordBatch, name: &str, data_type: &DataType) -> Result<ArrayRef> {
    let array = batch.schema().index_of(name).map_err(not_rows)?;
    cast(batch.column(array), data_type).map_err(not_rows)
}

fn batch_of<R: Table>(rows: &[R]) -> Result<RecordBatch> {
    let mut columns: Vec<Vec<Value>> = R::COLUMNS
        .iter()
        .map(|_| Vec::with_capacity(rows.len()))
        .collect();
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row.values()) {
            column.push(value);
        }
    }
    let schema = accounts_schema(R::NAME).ok_or_else(|| {
        let error = DataFusionError::Internal(format!("`{}` has no schema", R::NAME));
        engine(error)
    })?;
    let arrays = columns.into_iter().zip(schema.fields());
    let arrays = arrays.map(|(values, field)| array_of(values, field.data_type()));
    let arrays = arrays.collect::<Result<Vec<_>>>()?;
    RecordBatch::try_new(schema, arrays).map_err(not_rows)
}

fn array_of(values: Vec<Value>, data_type: &DataType) -> Result<ArrayRef> {
    let values = values.into_iter();
    Ok(match data_type {
        DataType::Boolean => Arc::new(
            values
                .map(|value| match value {
                    Value::Flag(flag) => Some(flag),
                    _ => None,
                })
                .collect::<BooleanArray>(),
        ),
        DataType::Int64 => Arc::new(
            values
                .map(|value| match value {
                    Value::Whole(number) => Some(number),
                    _ => None,
                })
                .collect::<Int64Array>(),
        ),
        DataType::Timestamp(..) => {
            let instants = values.map(|value| match value {
                Value::Instant(us) => Some(us),
                _ => None,
            });
            let array: TimestampMicrosecondArray = instants.collect();
            Arc::new(array.with_data_type(timestamp()))
        }
        DataType::Decimal128(precision, scale) => {
            let digits = values.map(|value| match value {
                Value::Amount(amount) => amount.digits_at(AMOUNT_SCALE).map(Some),
                _ => Ok(None),
            });
            let array: Decimal128Array = digits.collect::<Result<Vec<_>, MoneyError>>()?.into();
            let array = array.with_precision_and_scale(*precision, *scale);
            Arc::new(array.map_err(not_rows)?)
        }
        _ => Arc::new(
            values
                .map(|value| match value {
                    Value::Text(text) => Some(text),
                    _ => None,
                })
                .collect::<StringArray>(),
        ),
    })
}

fn not_rows(error: arrow::error::ArrowError) -> Error {
    engine(error.into())
}

fn engine(source: DataFusionError) -> Error {
    Error::Engine {
        doing: "reading or writing rows of accounts",
        source: Box::new(source),
    }
}
