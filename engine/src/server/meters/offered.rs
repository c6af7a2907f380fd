//! Meters as OpenMeter's clients know them: each numeric measure of a meter is one, with one value.

use crate::catalog::Catalog;
use arrow::datatypes::DataType;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tollgate_sql::{
    definitions::EventType,
    meter::{Aggregation, Meter},
};

/// A measure that can be asked for by its slug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offered {
    /// The meter's place in the catalog.
    pub(super) index: usize,
    pub(super) measure: String,
    pub(super) by: Aggregation,
    /// The meter's name where it has one measure, else `<meter>_<measure>`.
    pub(super) slug: String,
    /// What is aggregated, as a JSON path.
    value_property: Option<String>,
    event_type: String,
    /// The dimensions, each with its JSON path.
    group_by: BTreeMap<String, String>,
    unit: Option<String>,
}

/// Every measure of every meter that is a number, in order of definition.
pub(crate) fn offered(catalog: &Catalog) -> Vec<Offered> {
    let mut all = Vec::new();
    for (index, meter) in catalog.meters.iter().enumerate() {
        let Some(event_type) = catalog
            .definitions
            .event_type(&meter.definition().event_type)
        else {
            continue;
        };
        let is_number =
            |kind: &DataType| matches!(kind, DataType::Decimal128(..) | DataType::Int64);
        let measures = meter.measures().iter();
        let measures = measures.filter(|field| is_number(field.data_type()));
        all.extend(measures.map(|field| of_measure(index, meter, event_type, field.name())));
    }
    all
}

fn of_measure(index: usize, meter: &Meter, event_type: &EventType, measure: &str) -> Offered {
    let aggregated = meter.aggregated(measure);
    let name = &meter.definition().name;
    let path_of = |column: &str| {
        let mut columns = event_type.columns.iter();
        let column = columns.find(|known| known.name == column);
        column.map(|column| column.path_text())
    };
    let dimensions = meter.dimensions().iter().map(|field| {
        let path = path_of(field.name()).unwrap_or_else(|| format!("$.{}", field.name()));
        (field.name().clone(), path)
    });
    Offered {
        index,
        measure: measure.to_owned(),
        by: aggregated.by,
        slug: match meter.measures().len() {
            1 => name.clone(),
            _ => format!("{name}_{measure}"),
        },
        value_property: aggregated.column.as_deref().and_then(path_of),
        event_type: event_type.cloud_event_type.clone(),
        group_by: dimensions.collect(),
        unit: meter.definition().unit.clone(),
    }
}

/// The one that a path names by its slug or its id; a meter's whole name comes before a name that is put together.
pub(super) fn find<'a>(all: &'a [Offered], catalog: &Catalog, name: &str) -> Option<&'a Offered> {
    let is_whole = |offered: &&Offered| catalog.meters[offered.index].definition().name == name;
    let mut found = all.iter().filter(|offered| offered.slug == name);
    let first = found.next();
    first
        .filter(is_whole)
        .or_else(|| found.find(is_whole))
        .or(first)
        .or_else(|| all.iter().find(|offered| id(&offered.slug) == name))
}

/// A ULID that stays the same for a slug: its time is the epoch, and the rest a hash.
fn id(slug: &str) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let hash = Sha256::digest(slug.as_bytes());
    // 10 digits of time, then 16 of 5 bits each.
    let digits = hash
        .iter()
        .take(16)
        .map(|byte| char::from(DIGITS[usize::from(byte & 31)]));
    "0".repeat(10).chars().chain(digits).collect()
}

/// A meter as `GET /api/v1/meters` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown<'a> {
    id: String,
    slug: &'a str,
    name: &'a str,
    aggregation: &'static str,
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_property: Option<&'a str>,
    group_by: &'a BTreeMap<String, String>,
    metadata: BTreeMap<&'static str, &'a str>,
    /// Definitions have no time of birth.
    created_at: &'static str,
    updated_at: &'static str,
}

impl Offered {
    /// As a client sees it.
    pub(super) fn shown<'a>(&'a self, catalog: &'a Catalog) -> Shown<'a> {
        const EPOCH: &str = "1970-01-01T00:00:00Z";
        let mut metadata = BTreeMap::from([
            (
                "meter",
                catalog.meters[self.index].definition().name.as_str(),
            ),
            ("measure", self.measure.as_str()),
        ]);
        metadata.extend(self.unit.as_deref().map(|unit| ("unit", unit)));
        Shown {
            id: id(&self.slug),
            slug: &self.slug,
            name: &self.slug,
            aggregation: aggregation(self.by),
            event_type: &self.event_type,
            value_property: self.value_property.as_deref(),
            group_by: &self.group_by,
            metadata,
            created_at: EPOCH,
            updated_at: EPOCH,
        }
    }
}

/// OpenMeter's word. It has none for other aggregates, and its clients refuse what they do not know: `SUM` stands for them.
fn aggregation(by: Aggregation) -> &'static str {
    match by {
        Aggregation::Sum | Aggregation::Other => "SUM",
        Aggregation::Count => "COUNT",
        Aggregation::UniqueCount => "UNIQUE_COUNT",
        Aggregation::Avg => "AVG",
        Aggregation::Min => "MIN",
        Aggregation::Max => "MAX",
        Aggregation::Latest => "LATEST",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_ulid_and_stays_the_same() {
        let first = id("tokens_input");
        assert_eq!(first.len(), 26);
        assert!(first.starts_with("0000000000"));
        assert_eq!(first, id("tokens_input"));
        assert_ne!(first, id("tokens_output"));
    }
}
