//! The relation `conflicts`: what an event that was set aside as a conflict says otherwise than the event that was counted
//! under its source and id. A row is one value that differs.
//!
//! * `path` is an attribute, such as `subject`, or a place in `data`, such as `$.billing.cost`; NULL where nothing that is
//!   stored tells.
//! * `value` is what the conflict says, `counted_value` what the counted event says; NULL where one has no value. In `data`
//!   they are JSON. Both are cut short.
//! * `counted_shard` and `counted_sequence` are NULL where the counted event is not found.

use super::timestamp;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// The schema of `conflicts`.
pub fn conflicts_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("shard", DataType::Utf8, false),
        Field::new("sequence", DataType::Int64, false),
        Field::new("ordinal", DataType::Int32, false),
        Field::new("ingest_time", timestamp(), false),
        Field::new("source", DataType::Utf8, true),
        Field::new("event_id", DataType::Utf8, true),
        Field::new("path", DataType::Utf8, true),
        Field::new("value", DataType::Utf8, true),
        Field::new("counted_value", DataType::Utf8, true),
        Field::new("counted_shard", DataType::Utf8, true),
        Field::new("counted_sequence", DataType::Int64, true),
    ]))
}
