//! A lake of more and more event ids: what a start takes to know them.

use super::Result;
use arrow::{
    array::{
        ArrayRef, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray, new_null_array,
    },
    datatypes::SchemaRef,
};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tollgate::{
    cli,
    commit::{Marks, Position},
    dedupe::{Dedupe, Options, Proof},
    epoch::Epoch,
    recovery,
    telemetry::memory_kib,
};
use tollgate_connectors::{
    Anchor, Attempt, CommitId, Sequence, Table,
    lake::{DeltaTable, Lake},
};
use tollgate_sql::{schema, window::EventTime};

const SHARD: &str = "BENCH";
/// 2026-01-01.
const START_US: i64 = 1_767_225_600_000_000;
const DAY_US: i64 = 86_400_000_000;
/// Events of a commit.
const FLUSH: u64 = 250_000;

/// Starts over a lake with so many ids.
pub(super) fn ids(folder: &Path, size: u64) -> Result<()> {
    cli::runtime()?.block_on(async {
        let lake = Lake::open("lake", folder).await?;
        let (schema, none) = (schema::usage_events(&[]), BTreeMap::new());
        let opening = lake.table("events", &schema, &["ingest_day"], &none);
        let mut table = opening.await?;
        let kept = folder.join("ids");
        let last = fill(&mut table, &schema, 0, size - size / 100).await?;
        let whole = start(&table, &kept).await?;
        fill(&mut table, &schema, last, size).await?;
        let lacking = start(&table, &kept).await?;
        let newest = start(&table, &kept).await?;
        let memory = memory_kib(std::process::id(), "VmHWM").unwrap_or(0) / 1024;
        println!(
            "{size:>10} {:>14} {:>19} {:>16} {:>10} {memory:>10}",
            whole.as_millis(),
            newest.as_millis(),
            lacking.as_millis(),
            bytes_of(&kept)? / 1_000_000,
        );
        Ok(())
    })
}

/// Finds the ids as a start does, and keeps them as a process does that ends.
async fn start(table: &DeltaTable, directory: &Path) -> Result<Duration> {
    let options = Options {
        horizon_us: 35 * DAY_US,
        memory_bytes: 1_000_000_000,
        directory: directory.to_owned(),
    };
    let position = Position::load(table, &Marks::of(SHARD))?;
    let started = Instant::now();
    let mut dedupe: Dedupe = recovery::dedupe(table, SHARD, &position, options).await?;
    let took = started.elapsed();
    let ids = usize::try_from(position.sequence.0)?;
    if dedupe.len() != ids {
        return Err(format!("{} ids were found of {ids}", dedupe.len()).into());
    }
    if let Some(proof) = Proof::newest(table).await {
        dedupe.committed(&position, proof);
    }
    dedupe.finish(position.sequence);
    Ok(took)
}

/// Appends events until there are so many.
async fn fill(table: &mut DeltaTable, schema: &SchemaRef, from: u64, until: u64) -> Result<u64> {
    let mut at = from;
    while at < until {
        let end = until.min(at + FLUSH);
        let rows = events(schema, at + 1, end)?;
        let ingest_time_us = ingest_us(end)?;
        let sequence = Sequence(end);
        let position = Position {
            sequence,
            anchor: Some((
                sequence,
                Anchor {
                    hash: 0,
                    ingest_time_us,
                },
            )),
            watermark: EventTime(ingest_time_us),
            caught_up: None,
        };
        let attempt = Attempt {
            commit_id: CommitId(format!("bench-{end}")),
            marks: position.marks(&Marks::of(SHARD), Epoch(1)),
            info: BTreeMap::new(),
        };
        let staged = table.stage(&attempt.commit_id, &[rows]).await?;
        table.commit(&attempt, &staged).await?;
        at = end;
    }
    Ok(at)
}

/// All within the horizon: 50 million take 28 days.
fn ingest_us(sequence: u64) -> Result<i64> {
    Ok(START_US + i64::try_from(sequence)? * 50_000)
}

fn events(schema: &SchemaRef, first: u64, last: u64) -> Result<RecordBatch> {
    let rows = usize::try_from(last - first + 1)?;
    let text = |text: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
            text, rows,
        )))
    };
    let sequences = (first..=last).map(|n| Ok(i64::try_from(n)?));
    let sequences: Vec<i64> = sequences.collect::<Result<_>>()?;
    let times = (first..=last)
        .map(ingest_us)
        .collect::<Result<Vec<i64>>>()?;
    let days = times.iter().map(|us| Ok(i32::try_from(us / DAY_US)?));
    let days: Vec<i32> = days.collect::<Result<_>>()?;
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
    let ids = (first..=last).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match field.name().as_str() {
            "shard" => text(SHARD),
            "source" => text("bench"),
            "type" => text("bench"),
            "subject" => text("customer"),
            "status" => text("ok"),
            "event_id" => Arc::new(StringArray::from_iter_values(ids.clone())),
            "sequence" | "content_hash" => Arc::new(Int64Array::from(sequences.clone())),
            "ordinal" => Arc::new(Int32Array::from(vec![0; rows])),
            "event_time" | "ingest_time" => Arc::clone(&times),
            "ingest_day" => Arc::new(Date32Array::from(days.clone())),
            _ => new_null_array(field.data_type(), rows),
        });
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

fn bytes_of(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.metadata()? {
            data if data.is_dir() => bytes_of(&entry.path())?,
            data => data.len(),
        };
    }
    Ok(bytes)
}
