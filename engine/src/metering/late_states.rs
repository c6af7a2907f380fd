//! State of events that came when their windows were closed.

use super::{States, micros};
use crate::error::Result;
use arrow::array::RecordBatch;
use std::collections::BTreeMap;
use tollgate_sql::meter::Meter;

/// Late usage that is written together.
#[derive(Debug, Clone)]
pub(super) struct Late {
    pub(super) states: States,
    /// When the last of it was stored, in microseconds.
    pub(super) stored_us: i64,
}

impl Default for Late {
    fn default() -> Self {
        Late {
            states: States::default(),
            stored_us: i64::MIN,
        }
    }
}

/// Late usage of one micro-batch.
#[derive(Debug)]
pub(super) struct LatePart {
    pub(super) states: RecordBatch,
    pub(super) stored_us: i64,
}

/// Late usage on its way to the table.
#[derive(Debug, Clone)]
pub(super) struct PendingLate {
    pub(super) states: Vec<RecordBatch>,
    pub(super) stored_us: i64,
    /// The number of the pane of each window start.
    pub(super) numbers: BTreeMap<i64, i32>,
}

impl Late {
    pub(super) async fn push(&mut self, meter: &Meter, part: LatePart) -> Result<()> {
        self.stored_us = self.stored_us.max(part.stored_us);
        self.states.push(meter, part.states).await
    }

    /// The starts of its windows, in no particular order, some of them many times.
    pub(super) fn starts(&self) -> impl Iterator<Item = i64> {
        let batches = self.states.batches().iter();
        batches
            .flat_map(|batch| micros(batch, "window_start"))
            .copied()
    }

    pub(super) fn pending(self, numbers: BTreeMap<i64, i32>) -> PendingLate {
        PendingLate {
            states: self.states.into_batches(),
            stored_us: self.stored_us,
            numbers,
        }
    }
}
