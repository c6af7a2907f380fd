//! A number that changes when, and only when, a meter may measure something else.

use super::{canonical, syntax};
use crate::definitions::{EventType, Frame, MeterDefinition, Step};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::error::DataFusionError;
use xxhash_rust::xxh3::Xxh3;

/// Tells whether stored panes were made by this very version: XXH3-64 of its query without layout, comments and letter
/// case, the window, the parts of the event type that it reads, its columns, and since when it is effective. Name,
/// number, unit and lateness do not count, because they change no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint {
    /// By [`Fingerprint::RULE`]: over the pieces of the query that `canonical` finds.
    pub value: u64,
    /// By the rule that tables without a rule were written with: over tokens as sqlparser prints them.
    pub by_rule_1: u64,
}

impl Fingerprint {
    /// The rule of what is written; it stands beside the value.
    pub const RULE: i64 = 2;

    /// Whether a value that is stored with a rule, or from before there were rules, is of this version.
    pub fn is(self, value: u64, rule: Option<i64>) -> bool {
        match rule {
            None => self.by_rule_1 == value,
            Some(Self::RULE) => self.value == value,
            Some(_) => false,
        }
    }
}

/// The fingerprint of a version. It is stored, so what goes in, and in which order, is part of the format.
pub(super) fn of(
    definition: &MeterDefinition,
    event_type: &EventType,
    input: &SchemaRef,
    panes: &SchemaRef,
) -> Result<Fingerprint, DataFusionError> {
    let by = |rule: &str, query: &[String]| {
        let mut hash = Fields(Xxh3::new());
        hash.add(rule);
        hash.add_version(definition, event_type, (input, panes), query);
        hash.0.digest()
    };
    Ok(Fingerprint {
        value: by("tollgate meter 2", &canonical::pieces(&definition.query)),
        by_rule_1: by(
            "tollgate meter 1",
            &syntax::tokens_as_printed(&definition.query)?,
        ),
    })
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
        DataType::Int32 => "Int32".to_owned(),
        DataType::UInt64 => "UInt64".to_owned(),
        DataType::Binary => "Binary".to_owned(),
        DataType::List(element) => format!("list of {}", type_name(element.data_type())),
        other => other.to_string(),
    }
}

/// Hashes texts with their lengths, so that no two lists of texts run together.
struct Fields(Xxh3);

/// A step as one text: a key as it is, and an element as no key of a reasonable publisher.
fn step_text(step: &Step) -> String {
    match step {
        Step::Key(key) => key.clone(),
        Step::Element { key, value } => format!("\u{1}[{key}\u{1}={value}]"),
    }
}

impl Fields {
    fn add_version(
        &mut self,
        definition: &MeterDefinition,
        event_type: &EventType,
        (input, panes): (&SchemaRef, &SchemaRef),
        query: &[String],
    ) {
        self.add(&definition.window_us.to_string());
        self.add(&event_type.cloud_event_type);
        self.add_all(query);
        for field in input.fields() {
            self.add(field.name());
            self.add(&type_name(field.data_type()));
            let column = event_type.columns.iter().find(|c| &c.name == field.name());
            let path = column.map_or(&[][..], |column| &column.path);
            self.add_all(&path.iter().map(step_text).collect::<Vec<_>>());
        }
        for field in panes.fields() {
            self.add(field.name());
            self.add(&type_name(field.data_type()));
        }
        match definition.frame {
            Frame::Tumbling => {}
            Frame::Hopping { size_us } => self.add(&format!("hopping {size_us}")),
            Frame::Session { gap_us } => self.add(&format!("session {gap_us}")),
        }
        if let Some(from_us) = definition.effective_from_us {
            self.add(&from_us.to_string());
        }
    }

    fn add(&mut self, text: &str) {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn add_all(&mut self, texts: &[String]) {
        self.add(&texts.len().to_string());
        texts.iter().for_each(|text| self.add(text));
    }
}
