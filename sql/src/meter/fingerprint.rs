//! A number that changes when, and only when, a meter may measure something else.

use super::syntax;
use crate::definitions::{EventType, MeterDefinition};
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use xxhash_rust::xxh3::Xxh3;

/// The fingerprint; see [`super::Meter::fingerprint`]. It is stored, so what goes in, and in which
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
        hash.add(&field.data_type().to_string());
        let column = event_type.columns.iter().find(|c| &c.name == field.name());
        hash.add_all(column.map_or(&[][..], |column| &column.path));
    }
    for field in panes.fields() {
        hash.add(field.name());
        hash.add(&field.data_type().to_string());
    }
    Ok(hash.0.digest())
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
