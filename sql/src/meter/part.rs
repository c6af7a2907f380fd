//! A part of a meter's groups, where all of them together take too much memory.

use super::{Meter, merging, shape::ERROR};
use crate::{aggregates::fault::About, error::Result};
use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::TimestampMicrosecondType,
    row::{RowConverter, SortField},
};
use std::collections::BTreeSet;
use xxhash_rust::xxh3::xxh3_64;

/// One of several parts of all groups, told by a hash of window and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    number: u64,
    /// A power of two.
    of: u64,
}

/// Windows and subjects, of which a subject's fault takes all groups along.
pub type SubjectsInError = BTreeSet<(i64, String)>;

impl Part {
    /// All groups.
    pub const WHOLE: Part = Part { number: 0, of: 1 };

    /// There are never more parts than this.
    const PARTS_MAX: u64 = 1 << 16;

    /// Two parts that together are this one.
    pub fn halves(self) -> (Self, Self) {
        let of = 2 * self.of;
        let other = Part {
            number: self.number + self.of,
            of,
        };
        (Part { of, ..self }, other)
    }

    /// Whether it is not to be split any further.
    pub fn is_least(self) -> bool {
        self.of >= Self::PARTS_MAX
    }

    fn holds(self, hash: u64) -> bool {
        hash % self.of == self.number
    }
}

impl Meter {
    /// The states of the groups of one part.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] for states of another meter.
    pub fn part_of(&self, states: &RecordBatch, part: Part) -> Result<RecordBatch> {
        if part == Part::WHOLE {
            return Ok(states.clone());
        }
        let keys = &states.columns()[..=self.layout.key_count];
        let fields = keys
            .iter()
            .map(|key| SortField::new(key.data_type().clone()));
        let rows = RowConverter::new(fields.collect()).and_then(|rows| rows.convert_columns(keys));
        let rows = rows.map_err(|error| merging(error.into()))?;
        let held = rows.iter().map(|row| Some(part.holds(xxh3_64(row.data()))));
        filtered(states, &held.collect())
    }

    /// The subjects of which all groups are in error, each with its window.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] for states of another meter.
    pub fn subjects_in_error(&self, states: &RecordBatch) -> Result<SubjectsInError> {
        let is_of_subject = of_subject(states);
        let rows = (0..states.num_rows()).filter(|row| is_of_subject(*row));
        Ok(rows.map(|row| window_and_subject(states, row)).collect())
    }

    /// States without the groups that a subject's fault takes along, wherever that fault is kept.
    ///
    /// # Errors
    /// [`crate::Error::Engine`] for states of another meter.
    pub fn without_taken_along(
        &self,
        states: &RecordBatch,
        in_error: &SubjectsInError,
    ) -> Result<RecordBatch> {
        if in_error.is_empty() {
            return Ok(states.clone());
        }
        let is_of_subject = of_subject(states);
        let is_kept =
            |row: usize| is_of_subject(row) || !in_error.contains(&window_and_subject(states, row));
        let kept = (0..states.num_rows()).map(|row| Some(is_kept(row)));
        filtered(states, &kept.collect())
    }
}

/// Whether a row is a fault of a subject.
fn of_subject(states: &RecordBatch) -> impl Fn(usize) -> bool {
    let faults = states.column_by_name(ERROR);
    let faults = faults.and_then(|faults| faults.as_string_opt::<i32>());
    let faults = faults.filter(|faults| faults.null_count() < faults.len());
    move |row| {
        let fault = faults.filter(|faults| faults.is_valid(row));
        fault.is_some_and(|faults| About::of(faults.value(row)) == About::Subject)
    }
}

/// The first key of every meter is the window, the second the subject.
fn window_and_subject(states: &RecordBatch, row: usize) -> (i64, String) {
    let starts = states.column(0).as_primitive::<TimestampMicrosecondType>();
    let subjects = states.column(1).as_string::<i32>();
    (starts.value(row), subjects.value(row).to_owned())
}

fn filtered(states: &RecordBatch, rows: &BooleanArray) -> Result<RecordBatch> {
    filter_record_batch(states, rows).map_err(|error| merging(error.into()))
}
