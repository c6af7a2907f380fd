//! State batches of one meter, or of meters that are measured together, that wait to be merged.

use super::micros;
use crate::error::{Result, query_error};
use arrow::{
    array::{BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::{concat_batches, filter_record_batch},
};
use tollgate_sql::{meter::Meter, window::EventTime};

/// State batches that belong together, merged when they pile up.
#[derive(Debug, Default, Clone)]
pub struct States {
    batches: Vec<RecordBatch>,
    /// How many of the last batches are as they came, and may be small.
    small: usize,
    rows: usize,
    rows_merged: usize,
    /// How many of the next batches are merged sooner.
    sooner: u32,
    pub(super) bytes: usize,
}

impl States {
    /// Below this many rows, merging costs more than it saves.
    const ROWS_MIN: usize = 131_072;
    /// The same while a caller asks for these states: the caller has to merge what is not merged.
    const ROWS_MIN_ASKED: usize = 16_384;
    /// How many batches after a question the next one is expected.
    const ASKED_BATCHES: u32 = 64;
    /// So many batches are put together as they are: each alone costs a kilobyte or more.
    const SMALL_MAX: usize = 128;

    /// A caller asks for these states, and may do so again.
    pub(super) fn asked(&mut self) {
        self.sooner = Self::ASKED_BATCHES;
    }

    /// Adds a state batch, and merges all of them when that is due.
    pub async fn push(&mut self, meter: &Meter, batch: RecordBatch) -> Result<()> {
        if self.add(batch)? {
            self.become_merged(meter.reduce(&self.batches).await?);
        }
        Ok(())
    }

    /// Adds a state batch. True when all are to be merged: they have grown fourfold since last time, or twofold while a
    /// caller asks for them.
    pub(super) fn add(&mut self, batch: RecordBatch) -> Result<bool> {
        if batch.num_rows() == 0 {
            return Ok(false);
        }
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
        self.small += 1;
        let due = match self.sooner {
            0 => Self::ROWS_MIN.max(4 * self.rows_merged),
            _ => Self::ROWS_MIN_ASKED.max(2 * self.rows_merged),
        };
        self.sooner = self.sooner.saturating_sub(1);
        if self.rows >= due {
            return Ok(true);
        }
        if self.small == Self::SMALL_MAX {
            let from = self.batches.len() - self.small;
            let small = &self.batches[from..];
            let together = concat_batches(&small[0].schema(), small);
            self.become_one(together.map_err(query_error("collecting states"))?, from);
        }
        Ok(false)
    }

    /// Takes what all batches were merged into in their place.
    pub(super) fn become_merged(&mut self, batch: RecordBatch) {
        self.become_one(batch, 0);
        self.rows_merged = self.rows;
    }

    /// Puts `batch` in the place of all batches from `from` on.
    fn become_one(&mut self, batch: RecordBatch, from: usize) {
        self.batches.truncate(from);
        self.batches.push(batch);
        self.small = 0;
        self.count();
    }

    fn count(&mut self) {
        self.rows = self.batches.iter().map(RecordBatch::num_rows).sum();
        let bytes = self.batches.iter().map(RecordBatch::get_array_memory_size);
        self.bytes = bytes.sum();
    }

    /// The batches, in no particular order.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// The batches, taken out.
    pub(super) fn into_batches(self) -> Vec<RecordBatch> {
        self.batches
    }

    /// True when there is no state.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Takes out the states of windows that start before `boundary`, leaving the others.
    pub(super) fn split_off_before(&mut self, boundary: EventTime) -> Result<Vec<RecordBatch>> {
        let mut taken = Vec::new();
        let mut kept = Vec::new();
        for batch in self.batches.drain(..) {
            let starts = micros(&batch, "window_start");
            let before = starts.iter().filter(|start| **start < boundary.0).count();
            if before == batch.num_rows() {
                taken.push(batch);
            } else if before == 0 {
                kept.push(batch);
            } else {
                let mask = BooleanBuffer::collect_bool(starts.len(), |i| starts[i] < boundary.0);
                let mask = BooleanArray::from(mask);
                let rest = arrow::compute::not(&mask).map_err(query_error("splitting states"))?;
                let split = |mask| {
                    filter_record_batch(&batch, mask).map_err(query_error("splitting states"))
                };
                taken.push(split(&mask)?);
                kept.push(split(&rest)?);
            }
        }
        self.batches = kept;
        self.small = 0;
        self.count();
        self.rows_merged = self.rows_merged.min(self.rows);
        Ok(taken)
    }

    pub(super) fn starts(&self) -> impl Iterator<Item = EventTime> {
        let starts = self
            .batches
            .iter()
            .flat_map(|batch| micros(batch, "window_start"));
        starts.copied().map(EventTime)
    }
}
