//! Rows of `events` as the relation that a meter reads.

use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array},
    datatypes::{Field, Schema, SchemaRef},
    error::ArrowError,
};
use datafusion::prelude::{Expr, col, lit};
use std::sync::Arc;
use tollgate_connectors::event::{Status, TypedRows};

/// Which rows of `events` count.
pub(crate) fn is_counted() -> Expr {
    let status = |is: &str| col("status").eq(lit(is));
    status(Status::Ok.as_str()).or(status(Status::Late.as_str()))
}

/// Some rows of one event type as its relation: head columns by name, the others from its values. Every field becomes
/// nullable. What a lake does not have yet, because the event type was replaced since, is NULL.
pub(crate) fn relation(
    head: &RecordBatch,
    rows: &TypedRows,
    wanted: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let values = rows.values();
    let columns = wanted.fields().iter().map(|field| {
        if let Some(column) = values.column_by_name(field.name()) {
            return Ok(Arc::clone(column));
        }
        match head.column_by_name(field.name()) {
            Some(column) => rows.take(column),
            None if field.is_nullable() => Ok(new_null_array(field.data_type(), values.len())),
            None => {
                let problem = format!("`events` has no column `{}`", field.name());
                Err(ArrowError::SchemaError(problem))
            }
        }
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
    let fields = wanted.fields().iter();
    let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Schema::new(fields.collect::<Vec<Field>>());
    let options = RecordBatchOptions::new().with_row_count(Some(values.len()));
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)
}
