//! Versions of a meter: how events become states from one moment on.
//!
//! Versions share everything after that: the same keys, states and measures, so their states merge in the
//! total of a period that has both, and a table holds the panes of all.

use super::{
    Meter,
    columns::columns_of,
    fingerprint::Fingerprint,
    pipeline::Stage,
    shape,
    syntax::{START, refused},
};
use crate::{
    definitions::{EventType, MeterDefinition},
    error::Result,
    schema,
};
use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{FieldRef, Schema, SchemaRef, TimestampMicrosecondType},
};
use datafusion::error::DataFusionError;
use std::sync::Arc;

/// One version of a meter.
#[derive(Debug)]
pub struct Version {
    /// 1 for the first.
    pub number: u32,
    /// The start of the first window that it measures, in microseconds; `i64::MIN` means always.
    pub from_us: i64,
    /// Tells whether stored panes were made by this very version.
    pub fingerprint: Fingerprint,
    /// The columns that it reads.
    pub(super) input: SchemaRef,
    pub(super) partial: Stage,
    /// The group of each event, without what is measured.
    pub(super) keys: Stage,
}

impl Meter {
    /// The versions, oldest first; there is always one.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The version that measures the window with this start; `None` before the first is effective.
    pub fn version_at(&self, window_start_us: i64) -> Option<&Version> {
        let effective = |version: &&Version| version.from_us <= window_start_us;
        self.versions.iter().rfind(effective)
    }

    /// Puts an earlier version in front of these.
    ///
    /// # Errors
    /// [`crate::Error::Definition`] when its states are not those of the later versions.
    pub(super) fn precede(
        &mut self,
        earlier: Meter,
        (ours, theirs): (&shape::Finishing, &shape::Finishing),
    ) -> Result<()> {
        let problem = if self.layout.state != earlier.layout.state
            || self.layout.pane != earlier.layout.pane
        {
            "does not have the same dimensions, measures and types as"
        } else if ours != theirs {
            "does not make its measures of the same aggregates as"
        } else {
            self.versions.splice(0..0, earlier.versions);
            return Ok(());
        };
        let (new, old) = (&self.definition, &earlier.definition);
        let problem = format!(
            "version {} {problem} version {}, at {}",
            new.version, old.version, old.at
        );
        let hint = "a version may change filters and what is aggregated; for other columns create a \
                    meter under another name";
        Err(refused(new, &problem, START, hint))
    }

    /// The events of each version that has any. Events before the first version belong to no version.
    pub(super) fn by_version(
        &self,
        events: &RecordBatch,
    ) -> Result<Vec<(&Version, RecordBatch)>, DataFusionError> {
        if let [version] = &self.versions[..]
            && version.from_us == i64::MIN
        {
            return Ok(vec![(version, events.clone())]);
        }
        let times = events.schema().index_of("event_time")?;
        let times = events
            .column(times)
            .as_primitive::<TimestampMicrosecondType>();
        let next = self.versions[1..].iter().map(|next| Some(next.from_us));
        let mut parts = Vec::new();
        for (version, until_us) in self.versions.iter().zip(next.chain([None])) {
            let is_within = |time_us: i64| {
                time_us >= version.from_us && until_us.is_none_or(|until_us| time_us < until_us)
            };
            let mask: BooleanArray = times.iter().map(|time| time.map(is_within)).collect();
            if mask.true_count() > 0 {
                let rows = filter_record_batch(events, &mask)?;
                parts.push((version, columns_of(&rows, &version.input)?));
            }
        }
        Ok(parts)
    }
}

impl Version {
    pub(super) fn new(
        definition: &MeterDefinition,
        fingerprint: Fingerprint,
        input: SchemaRef,
        (partial, keys): (Stage, Stage),
    ) -> Self {
        Self {
            number: definition.version,
            from_us: definition.effective_from_us.unwrap_or(i64::MIN),
            fingerprint,
            input,
            partial,
            keys,
        }
    }
}

/// The columns that any of these versions reads, in the order of the event type's relation.
pub(super) fn input_of(versions: &[Version], event_type: &EventType) -> SchemaRef {
    let relation = schema::event_relation(event_type);
    let is_read = |field: &&FieldRef| {
        let mut versions = versions.iter();
        versions.any(|version| version.input.column_with_name(field.name()).is_some())
    };
    let fields: Vec<FieldRef> = relation.fields().iter().filter(is_read).cloned().collect();
    Arc::new(Schema::new(fields))
}
