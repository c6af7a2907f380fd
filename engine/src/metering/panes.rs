//! Panes: the rows of a meter's table.

use super::micros;
use crate::{
    commit::Position,
    error::{Result, query_error},
    watermark::{Closing, Closings},
    window::EventTime,
};
use arrow::{
    array::{
        ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Int32Type, Schema, SchemaRef},
};
use std::{collections::BTreeMap, sync::Arc};
use tollgate_sql::{meter::Meter, schema};

/// The panes one flush adds to a meter's table, still as state, so that finishing them can overlap
/// with reading on.
#[derive(Debug)]
pub struct Pending {
    /// Which lane.
    pub lane: usize,
    pub(super) closed: Vec<RecordBatch>,
    pub(super) late: Vec<RecordBatch>,
    pub(super) closings: Closings,
    pub(super) panes: BTreeMap<i64, i32>,
}

/// The schema of a meter's table: what [`Meter::finish`] returns, then where each pane comes from.
pub fn table_schema(meter: &Meter) -> SchemaRef {
    let mut fields: Vec<Field> = meter
        .pane_schema()
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .collect();
    fields.extend([
        Field::new("pane", DataType::Int32, false),
        Field::new("shard", DataType::Utf8, false),
        Field::new("cut", DataType::Int64, false),
        Field::new("meter_version", DataType::Int32, false),
        Field::new("closed_at", schema::timestamp(), false),
    ]);
    Arc::new(Schema::new(fields))
}

impl Pending {
    /// Finishes the states: pane 0 of each window that closed, then the late panes, as rows of the
    /// meter's table.
    pub async fn panes(
        &self,
        meter: &Meter,
        shard: &str,
        position: &Position,
    ) -> Result<Vec<RecordBatch>> {
        let at = Closing {
            closed_end: EventTime::MIN,
            cut: position.sequence,
            closed_at_us: position.ingest_time_us(),
        };
        let mut panes = Vec::new();
        if !self.closed.is_empty() {
            let rows = meter.finish(&self.closed).await?;
            let of_row =
                |end: i64, _start: i64| (0, self.closings.of(EventTime(end)).unwrap_or(at));
            panes.push(with_origin(meter, rows, shard, of_row)?);
        }
        if !self.late.is_empty() {
            let rows = meter.finish(&self.late).await?;
            let of_row = |_end: i64, start: i64| (self.panes.get(&start).copied().unwrap_or(1), at);
            panes.push(with_origin(meter, rows, shard, of_row)?);
        }
        Ok(panes)
    }
}

/// Adds `pane, shard, cut, meter_version, closed_at` to finished rows.
fn with_origin(
    meter: &Meter,
    rows: RecordBatch,
    shard: &str,
    of_row: impl Fn(i64, i64) -> (i32, Closing),
) -> Result<RecordBatch> {
    let origins: Vec<(i32, Closing)> = micros(&rows, "window_end")
        .iter()
        .zip(micros(&rows, "window_start"))
        .map(|(end, start)| of_row(*end, *start))
        .collect();
    let version = i32::try_from(meter.definition().version).unwrap_or(i32::MAX);
    let mut columns = rows.columns().to_vec();
    columns.extend::<[ArrayRef; 5]>([
        Arc::new(
            origins
                .iter()
                .map(|(pane, _)| Some(*pane))
                .collect::<Int32Array>(),
        ),
        Arc::new(StringArray::from(vec![shard; origins.len()])),
        Arc::new(
            origins
                .iter()
                .map(|(_, closing)| Some(closing.cut.signed()))
                .collect::<Int64Array>(),
        ),
        Arc::new(Int32Array::from(vec![version; origins.len()])),
        Arc::new(
            origins
                .iter()
                .map(|(_, closing)| Some(closing.closed_at_us))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("UTC"),
        ),
    ]);
    RecordBatch::try_new(table_schema(meter), columns).map_err(query_error("writing panes"))
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
