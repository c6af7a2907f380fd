//! A number that changes when, and only when, a meter may measure something else.

use super::syntax;
use crate::definitions::{EventType, Frame, MeterDefinition};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::error::DataFusionError;
use xxhash_rust::xxh3::Xxh3;

/// The fingerprint; see [`super::Version::fingerprint`]. It is stored, so what goes in, and in which
/// order, is part of the format.
pub(super) fn of(
    definition: &MeterDefinition,
    event_type: &EventType,
    input: &SchemaRef,
    panes: &SchemaRef,
) -> Result<u64, DataFusionError> {
    let mut hash = Fields(Xxh3::new());
    hash.add("tollgate meter 1");
    hash.add(&definition.window_us.to_string());
    hash.add(&event_type.cloud_event_type);
    hash.add_all(&syntax::normalised(&definition.query)?);
    for field in input.fields() {
        hash.add(field.name());
        hash.add(&type_name(field.data_type()));
        let column = event_type.columns.iter().find(|c| &c.name == field.name());
        hash.add_all(column.map_or(&[][..], |column| &column.path));
    }
    for field in panes.fields() {
        hash.add(field.name());
        hash.add(&type_name(field.data_type()));
    }
    match definition.frame {
        Frame::Tumbling => {}
        Frame::Hopping { size_us } => hash.add(&format!("hopping {size_us}")),
        Frame::Session { gap_us } => hash.add(&format!("session {gap_us}")),
    }
    if let Some(from_us) = definition.effective_from_us {
        hash.add(&from_us.to_string());
    }
    Ok(hash.0.digest())
}

/// Our own name of a type, because a library's may change with its version.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "text".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int64 => "integer".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Decimal128(precision, scale) => format!("decimal {precision} {scale}"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "instant".to_owned(),
        DataType::List(element) => format!("list of {}", type_name(element.data_type())),
        other => other.to_string(),
    }
}

/// Hashes texts with their lengths, so that no two lists of texts run together.
struct Fields(Xxh3);

impl Fields {
    fn add(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn add_all(&mut self, texts: &[String]) {
        self.add(&texts.len().to_string());
        texts.iter().for_each(|text| self.add(text));
    }
}
