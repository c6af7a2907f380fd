//! Rows sorted, and columns found, renamed and checked.

use arrow::{
    array::{ArrayRef, RecordBatch, UInt64Array},
    compute::{SortOptions, cast, take_record_batch},
    datatypes::{DataType, FieldRef, SchemaRef},
    row::{Row, RowConverter, SortField},
};
use datafusion::{common::exec_err, error::DataFusionError};
use std::sync::Arc;

/// Rows sorted by the first columns, NULL first.
pub(super) fn sorted(
    batch: &RecordBatch,
    key_count: usize,
) -> Result<RecordBatch, DataFusionError> {
    let options = SortOptions {
        descending: false,
        nulls_first: true,
    };
    let keys = &batch.columns()[..key_count];
    let fields = keys.iter().map(|key| {
        let data_type = key.data_type().clone();
        SortField::new_with_options(data_type, options)
    });
    // Keys as bytes that compare as the keys do: several times faster than column by column.
    let rows = RowConverter::new(fields.collect())?.convert_columns(keys)?;
    let mut order: Vec<(Row<'_>, u64)> = rows.iter().zip(0..).collect();
    order.sort_unstable();
    let order: UInt64Array = order.into_iter().map(|(_, at)| at).collect();
    Ok(take_record_batch(batch, &order)?)
}

pub(super) fn without_first_column(batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
    let others: Vec<usize> = (1..batch.num_columns()).collect();
    Ok(batch.project(&others)?)
}

/// The same columns under our names.
pub(super) fn with_schema(
    batch: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    Ok(RecordBatch::try_new(
        Arc::clone(schema),
        batch.columns().to_vec(),
    )?)
}

/// The columns of a schema, found by name.
pub(super) fn columns_of(
    batch: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, DataFusionError> {
    let columns = schema.fields().iter().map(|field| {
        let Some(column) = batch.column_by_name(field.name()) else {
            return exec_err!("column `{}` is missing", field.name());
        };
        as_type(column, field)
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// A column in another encoding of the same type. Anything else could change a value.
fn as_type(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef, DataFusionError> {
    let (from, to) = (column.data_type(), field.data_type());
    if from == to {
        return Ok(Arc::clone(column));
    }
    if !same_values(from, to) {
        return exec_err!("column `{}` is {from}, not {to}", field.name());
    }
    Ok(cast(column, to)?)
}

fn same_values(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Timestamp(a, Some(_)), DataType::Timestamp(b, Some(_))) => a == b,
        (DataType::Dictionary(_, inner), to) => inner.is_string() && to.is_string(),
        (DataType::List(from), DataType::List(to)) => same_values(from.data_type(), to.data_type()),
        (from, to) => from == to || from.is_string() && to.is_string(),
    }
}
