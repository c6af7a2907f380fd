//! Which window a failure belongs to: the input is run again, window by window.

use super::{Meter, pipeline::Stage};
use crate::error::Error;
use arrow::{
    array::{AsArray, RecordBatch, TimestampMicrosecondArray, UInt32Array},
    compute::take_record_batch,
    datatypes::TimestampMicrosecondType,
};
use datafusion::error::DataFusionError;
use std::collections::BTreeMap;

/// Rows of several batches, by the window they belong to.
type ByWindow = BTreeMap<i64, Vec<RecordBatch>>;

impl Meter {
    /// The error of a failed merge of states; `stage` is run again.
    pub(super) async fn blame_states(
        &self,
        stage: &Stage,
        states: &[RecordBatch],
        error: DataFusionError,
    ) -> Error {
        let mut by_window = ByWindow::new();
        let split = states.iter().try_for_each(|state| {
            let starts = state.column(0).as_primitive::<TimestampMicrosecondType>();
            split_rows(state, starts, &mut by_window)
        });
        if split.is_err() {
            by_window.clear();
        }
        self.blame(stage, by_window, error).await
    }

    async fn blame(&self, stage: &Stage, by_window: ByWindow, error: DataFusionError) -> Error {
        for (start_us, batches) in by_window {
            if let Err(source) = stage.run(batches).await {
                return self.measure_error(rfc3339(start_us), source);
            }
        }
        self.measure_error("any".to_owned(), error)
    }

    pub(super) fn measure_error(&self, window_start: String, source: DataFusionError) -> Error {
        Error::Measure {
            meter: self.definition.name.clone(),
            window_start,
            source: Box::new(source),
        }
    }
}

fn split_rows(
    batch: &RecordBatch,
    starts: &TimestampMicrosecondArray,
    by_window: &mut ByWindow,
) -> Result<(), DataFusionError> {
    let mut rows: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (row, start_us) in (0_u32..).zip(starts.values()) {
        rows.entry(*start_us).or_default().push(row);
    }
    for (start_us, rows) in rows {
        let part = take_record_batch(batch, &UInt32Array::from(rows))?;
        by_window.entry(start_us).or_default().push(part);
    }
    Ok(())
}

/// The instant as people read it; in microseconds if it is in no year they know.
fn rfc3339(time_us: i64) -> String {
    match jiff::Timestamp::from_microsecond(time_us) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{time_us} µs"),
    }
}
