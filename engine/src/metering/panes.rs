//! Panes: the rows of a meter's table.

use super::{again::Again, late_states::PendingLate, micros};
use crate::{
    commit::Cut,
    error::{Result, query_error},
    watermark::{Closing, Closings},
};
use arrow::{
    array::{
        ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::Int32Type,
};
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::Sequence;
use tollgate_sql::{
    meter::Meter,
    window::{EventTime, window_start},
};

/// What a meter's table already holds: every event up to `cut` whose window `closed` closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The sequence up to which panes were written.
    pub cut: Sequence,
    /// The shard's watermark at that cut: what its events say.
    pub watermark: EventTime,
    /// The watermark that closes just the windows of this meter that were closed at that cut. It is ahead of
    /// the shard's where the clock closed windows.
    pub closed: EventTime,
}

impl Written {
    /// Nothing was written yet.
    pub const NOTHING: Written = Written {
        cut: Sequence(0),
        watermark: EventTime::MIN,
        closed: EventTime::MIN,
    };
}

/// State that is in no table yet.
#[derive(Debug, Clone)]
pub struct Unwritten {
    /// States of windows that are open, or about to be written.
    pub states: RecordBatch,
    /// When the last event of these states was stored, in microseconds, if they came when their windows
    /// were closed.
    pub late_stored_us: Option<i64>,
}

/// The panes one flush adds to a meter's table, still as state, so that finishing them can overlap
/// with reading on.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Which lane.
    pub lane: usize,
    /// What the table holds when these are in it.
    pub written: Written,
    pub(super) closed: Vec<RecordBatch>,
    /// Windows that closed and are not among the states: they are metered again from `events`.
    pub(super) again: Again,
    pub(super) late: Vec<PendingLate>,
    pub(super) closings: Closings,
}

impl Pending {
    /// Whether its panes may be made and written beside those of other meters: they take little memory.
    pub(super) fn is_small(&self) -> bool {
        let late = self.late.iter().flat_map(|late| &late.states);
        let rows = self.closed.iter().chain(late).map(RecordBatch::num_rows);
        self.again.is_empty() && rows.sum::<usize>() <= Self::SMALL_ROWS
    }

    const SMALL_ROWS: usize = 131_072;

    /// The states, as long as they are in no table.
    pub(super) fn unwritten(&self) -> impl Iterator<Item = Unwritten> {
        let closed = self.closed.iter().map(|states| Unwritten {
            states: states.clone(),
            late_stored_us: None,
        });
        let late = self.late.iter().flat_map(|late| {
            late.states.iter().map(|states| Unwritten {
                states: states.clone(),
                late_stored_us: Some(late.stored_us),
            })
        });
        closed.chain(late)
    }

    /// Finishes the states: pane 0 of each window that closed, then the late panes, as rows of the
    /// meter's table; without the windows that are metered again.
    pub async fn panes(&self, meter: &Meter, shard: &str, at: Cut) -> Result<Vec<RecordBatch>> {
        let mut panes = Vec::new();
        if !self.closed.is_empty() {
            panes.push(self.closed_panes(meter, &self.closed, shard, at).await?);
        }
        for late in &self.late {
            let rows = meter.finish(&late.states).await?;
            let of_row = |_end: i64, start: i64| Origin {
                pane: late.numbers.get(&start).copied().unwrap_or(1),
                closing: closing(at, late.stored_us),
                late: Some(meter.definition().late.as_str()),
            };
            panes.push(with_origin(meter, rows, shard, of_row)?);
        }
        Ok(panes)
    }

    /// Pane 0 of windows that closed.
    pub(super) async fn closed_panes(
        &self,
        meter: &Meter,
        states: &[RecordBatch],
        shard: &str,
        at: Cut,
    ) -> Result<RecordBatch> {
        let rows = meter.finish(states).await?;
        let unknown = closing(at, at.ingest_time_us);
        let of_row = |end: i64, _start: i64| Origin {
            pane: 0,
            closing: self.closings.of(EventTime(end)).unwrap_or(unknown),
            late: None,
        };
        with_origin(meter, rows, shard, of_row)
    }
}

fn closing(at: Cut, closed_at_us: i64) -> Closing {
    Closing {
        closed_end: EventTime::MIN,
        cut: at.sequence,
        closed_at_us,
    }
}

/// Where one pane comes from.
struct Origin {
    pane: i32,
    closing: Closing,
    late: Option<&'static str>,
}

/// Adds `pane, shard, cut, meter_version, closed_at, late` to finished rows.
fn with_origin(
    meter: &Meter,
    rows: RecordBatch,
    shard: &str,
    of_row: impl Fn(i64, i64) -> Origin,
) -> Result<RecordBatch> {
    let starts = micros(&rows, "window_start");
    let width_us = meter.definition().window_us;
    // A session ends elsewhere than the base window that closed.
    let end = |start| {
        window_start(EventTime(start), width_us)
            .0
            .saturating_add(width_us)
    };
    let origins: Vec<Origin> = starts
        .iter()
        .map(|start| of_row(end(*start), *start))
        .collect();
    let version = |start: &i64| {
        let version = meter.version_at(*start).map(|version| version.number);
        version.and_then(|number| i32::try_from(number).ok())
    };
    let added: [ArrayRef; 6] = [
        Arc::new(Int32Array::from_iter_values(
            origins.iter().map(|origin| origin.pane),
        )),
        Arc::new(StringArray::from(vec![shard; origins.len()])),
        Arc::new(Int64Array::from_iter_values(
            origins.iter().map(|origin| origin.closing.cut.signed()),
        )),
        Arc::new(starts.iter().map(version).collect::<Int32Array>()),
        Arc::new(
            TimestampMicrosecondArray::from_iter_values(
                origins.iter().map(|origin| origin.closing.closed_at_us),
            )
            .with_timezone("UTC"),
        ),
        Arc::new(
            origins
                .iter()
                .map(|origin| origin.late)
                .collect::<StringArray>(),
        ),
    ];
    let mut columns = rows.columns().to_vec();
    columns.extend(added);
    RecordBatch::try_new(meter.table_schema(), columns).map_err(query_error("writing panes"))
}

/// The number of the last late pane of each window start, from rows `window_start, pane`.
pub fn last_panes(rows: &[RecordBatch]) -> BTreeMap<i64, i32> {
    let mut panes = BTreeMap::new();
    for batch in rows {
        let numbers = batch["pane"].as_primitive::<Int32Type>().values();
        for (start, number) in micros(batch, "window_start").iter().zip(numbers) {
            let last = panes.entry(*start).or_insert(*number);
            *last = (*last).max(*number);
        }
    }
    panes
}
