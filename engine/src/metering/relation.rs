//! Rows of `events` as the relation that a meter reads.

use crate::error::{Result, query_error};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array,
    },
    buffer::BooleanBuffer,
    compute::filter_record_batch,
    datatypes::{Field, Schema, SchemaRef},
    error::ArrowError,
};
use datafusion::prelude::{Expr, col, lit};
use std::sync::Arc;
use tollgate_connectors::event::Status;
use tollgate_sql::{definitions::EventType, meter::Meter};

/// Which rows of `events` count.
pub(crate) fn is_counted() -> Expr {
    let status = |is: &str| col("status").eq(lit(is));
    status(Status::Ok.as_str()).or(status(Status::Late.as_str()))
}

/// The rows of a micro-batch that one meter reads.
pub(super) struct Relation<'a> {
    events: &'a RecordBatch,
    event_type: &'a EventType,
    meter: &'a Meter,
    /// `None` when every row is of the meter's type.
    rows: Option<BooleanBuffer>,
}

/// `None` when no row is of the meter's type, which `events` of a lake may not have yet.
pub(super) fn relation<'a>(
    events: &'a RecordBatch,
    event_type: &'a EventType,
    meter: &'a Meter,
) -> Result<Option<Relation<'a>>> {
    let Some(structs) = events.column_by_name(&event_type.name) else {
        return Ok(None);
    };
    let rows = match structs.nulls() {
        None => None,
        Some(nulls) if nulls.null_count() == 0 => None,
        Some(nulls) if nulls.null_count() == nulls.len() => return Ok(None),
        Some(nulls) => Some(nulls.inner().clone()),
    };
    Ok((events.num_rows() > 0).then_some(Relation {
        events,
        event_type,
        meter,
        rows,
    }))
}

impl Relation<'_> {
    pub(super) fn within(&self, mask: BooleanBuffer) -> BooleanBuffer {
        match &self.rows {
            Some(rows) => rows & &mask,
            None => mask,
        }
    }

    pub(super) fn all(&self) -> Result<RecordBatch> {
        match &self.rows {
            None => self.project(self.events),
            Some(rows) => self.filter(rows.clone()),
        }
    }

    pub(super) fn only(&self, mask: BooleanBuffer) -> Result<RecordBatch> {
        self.filter(self.within(mask))
    }

    fn filter(&self, mask: BooleanBuffer) -> Result<RecordBatch> {
        let projected = self.project(self.events)?;
        filter_record_batch(&projected, &BooleanArray::from(mask))
            .map_err(query_error("selecting a meter's events"))
    }

    /// The columns that the meter reads, from the head or from its type's struct.
    fn project(&self, events: &RecordBatch) -> Result<RecordBatch> {
        project(events, &self.event_type.name, self.meter.input_schema())
            .map_err(query_error("selecting a meter's columns"))
    }
}

/// Projects `events` to an event type's relation: head columns by name, the others from the struct.
/// Every field becomes nullable, since rows of other types hold nulls until they are filtered out. What a
/// lake does not have yet, because the event type was replaced since, is NULL.
pub(crate) fn project(
    events: &RecordBatch,
    event_type: &str,
    wanted: &SchemaRef,
) -> Result<RecordBatch, ArrowError> {
    let structs = events[event_type].as_struct();
    let columns: Vec<ArrayRef> = wanted
        .fields()
        .iter()
        .map(|field| {
            let column = structs.column_by_name(field.name());
            match column.or_else(|| events.column_by_name(field.name())) {
                Some(column) => Ok(Arc::clone(column)),
                None if field.is_nullable() => {
                    Ok(new_null_array(field.data_type(), events.num_rows()))
                }
                None => {
                    let problem = format!("`events` has no column `{}`", field.name());
                    Err(ArrowError::SchemaError(problem))
                }
            }
        })
        .collect::<Result<_, _>>()?;
    let fields: Vec<Field> = wanted
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(events.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}
