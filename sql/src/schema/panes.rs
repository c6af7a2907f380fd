//! The tables `meters/<name>`: one row a pane.

use super::timestamp;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// The schema of a meter's table: the columns of a finished window ([`crate::meter::Meter::pane_schema`]), then where each
/// pane comes from. `late` is the policy by which a late pane counts, and NULL for pane 0.
pub fn panes_schema(finished: &Schema) -> SchemaRef {
    let mut fields: Vec<Field> = finished
        .fields()
        .iter()
        .map(|f| f.as_ref().clone())
        .collect();
    fields.extend([
        Field::new("pane", DataType::Int32, false),
        Field::new("shard", DataType::Utf8, false),
        Field::new("cut", DataType::Int64, false),
        Field::new("meter_version", DataType::Int32, false),
        Field::new("closed_at", timestamp(), false),
        Field::new("late", DataType::Utf8, true),
    ]);
    Arc::new(Schema::new(fields))
}
