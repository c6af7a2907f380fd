//! The Arrow schema of every table, and what each column means.
//!
//! Field metadata carries what a decoder needs to know, so that a connector can work from the schema
//! alone: [`TYPE_KEY`] on an event type's struct field, the other keys on its children.

pub mod accounts;
pub mod conflicts;
pub mod credits;
pub mod invoices;
pub mod panes;

use crate::definitions::{EventType, json_path};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::{
    common::ScalarValue,
    prelude::{Expr, lit},
};
use std::{collections::HashMap, sync::Arc};

/// Metadata key on a struct field of `events`: the CloudEvents `type` whose data it holds.
pub const TYPE_KEY: &str = "tollgate.type";

/// Metadata key on a child of such a struct: where in `data` the value is, as a JSON array of keys.
pub const PATH_KEY: &str = "tollgate.path";

/// Metadata key on such a child: present and `true` for NOT NULL columns.
pub const REQUIRED_KEY: &str = "tollgate.required";

/// Metadata key on such a child: present and `true` when numbers may come in quotes.
pub const STRINGS_KEY: &str = "tollgate.strings";

/// Metadata key on such a child: the JSON value that stands for one that is missing.
pub const DEFAULT_KEY: &str = "tollgate.default";

/// Who pays, in every relation of usage that a price sees.
pub const CUSTOMER: &str = "customer";

/// Microseconds since the Unix epoch, UTC: the type of every instant.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// An instant as a literal of that type; microseconds since the Unix epoch.
pub fn instant(us: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(
        Some(us),
        Some("UTC".into()),
    ))
}

/// A list of these, as Delta tables have it. An element is never NULL, but readers may say it could be.
pub(crate) fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", element, true)))
}

/// A column's type as it is declared.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "VARCHAR".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Timestamp(..) => "TIMESTAMP".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::List(element) => format!("{}[]", type_name(element.data_type())),
        other => other.to_string(),
    }
}

/// The columns every event has, before the structs of the event types.
///
/// `content_hash` is XXH3-64 over type, subject, event time and what `data` says as JSON; with the same `source` and
/// `event_id` it tells a repeat from a conflict. `content_version` says by which rule it was made: 2 is this one, NULL the
/// first, over the bytes of `data`.
fn event_head() -> Vec<Field> {
    vec![
        Field::new("shard", DataType::Utf8, false),
        Field::new("sequence", DataType::Int64, false),
        Field::new("ordinal", DataType::Int32, false),
        Field::new("event_id", DataType::Utf8, true),
        Field::new("source", DataType::Utf8, true),
        Field::new("type", DataType::Utf8, true),
        Field::new("subject", DataType::Utf8, true),
        Field::new("event_time", timestamp(), true),
        Field::new("ingest_time", timestamp(), false),
        Field::new("status", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, true),
        Field::new("raw", DataType::Binary, true),
        Field::new("content_hash", DataType::Int64, true),
        Field::new("content_version", DataType::Int32, true),
    ]
}

/// The schema of `events` for these event types: the head, one nullable struct per type, `extra`
/// (undeclared `data` fields as JSON text), and the partition column `ingest_day`.
pub fn usage_events(types: &[EventType]) -> SchemaRef {
    let mut fields = event_head();
    fields.extend(types.iter().map(event_struct));
    fields.push(Field::new("extra", DataType::Utf8, true));
    fields.push(Field::new("ingest_day", DataType::Date32, false));
    Arc::new(Schema::new(fields))
}

/// The struct field of one event type. Children are all nullable in storage; NOT NULL is checked by
/// the decoder, which reads it from `tollgate.required`.
fn event_struct(event_type: &EventType) -> Field {
    let children: Fields = event_type
        .columns
        .iter()
        .map(|column| {
            let path = json_path::json(&column.path);
            let mut metadata = HashMap::from([(PATH_KEY.to_owned(), path)]);
            if !column.nullable {
                metadata.insert(REQUIRED_KEY.to_owned(), "true".to_owned());
            }
            if column.strings {
                metadata.insert(STRINGS_KEY.to_owned(), "true".to_owned());
            }
            if let Some(default) = &column.default {
                metadata.insert(DEFAULT_KEY.to_owned(), default.clone());
            }
            Field::new(&column.name, column.data_type.clone(), true).with_metadata(metadata)
        })
        .collect();
    let metadata = HashMap::from([(TYPE_KEY.to_owned(), event_type.cloud_event_type.clone())]);
    Field::new(&event_type.name, DataType::Struct(children), true).with_metadata(metadata)
}

/// What a meter's query can select from an event type: the columns every counted event has, then the
/// declared ones.
///
/// A column with a default may be NULL even when it is NOT NULL: events that were stored before the
/// column was declared have nothing there.
pub fn event_relation(event_type: &EventType) -> SchemaRef {
    let mut fields = vec![
        Field::new("event_id", DataType::Utf8, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("subject", DataType::Utf8, false),
        Field::new("event_time", timestamp(), false),
        Field::new("ingest_time", timestamp(), false),
        Field::new("shard", DataType::Utf8, false),
        Field::new("sequence", DataType::Int64, false),
        Field::new("ordinal", DataType::Int32, false),
    ];
    fields.extend(event_type.columns.iter().map(|column| {
        let nullable = column.nullable || column.default.is_some();
        Field::new(&column.name, column.data_type.clone(), nullable)
    }));
    Arc::new(Schema::new(fields))
}

/// What a price can select from an event type: who pays, then the columns of [`event_relation`].
pub fn priced_events(event_type: &EventType) -> SchemaRef {
    let relation = event_relation(event_type);
    let customer = Arc::new(Field::new(CUSTOMER, DataType::Utf8, false));
    let fields = std::iter::once(customer).chain(relation.fields().iter().cloned());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
