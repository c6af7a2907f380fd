//! Dedupe and status: which rows of a batch are stored, and which of them count.
//!
//! A verdict on an event depends on the event and on those before it in the log, never on a meter, nor on where a batch
//! begins or ends.

use super::reader::Batch;
use crate::{
    dedupe::{Dedupe, Verdict},
    error::{Result, query_error},
    telemetry::Counts,
    watermark::Watermark,
};
use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryBuilder, StringArray},
    buffer::BooleanBuffer,
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::{
    Sequence,
    event::{EventBatch, Status},
};

/// A batch after dedupe: no repeats any more.
pub(super) struct Judged {
    /// What is stored.
    pub(super) rows: EventBatch,
    /// Which of them are counted.
    is_counted: BooleanBuffer,
    /// Those alone.
    pub(super) counted: EventBatch,
    /// Rows of `rows` that are set aside here, beside those that the decoder did.
    aside: BTreeMap<usize, Aside>,
    pub(super) counts: Counts,
}

/// Why a row is kept without being counted.
struct Aside {
    status: Status,
    reason: String,
    raw: Vec<u8>,
}

/// Drops repeats and finds conflicts. Only an event that counts claims its id, so one that was
/// rejected may be corrected and sent again. `watermark` is the shard's before the batch. `refused` has rows that were accepted and yet cannot count,
/// and why.
pub(super) fn judge(
    dedupe: &mut Dedupe,
    mut watermark: Watermark,
    batch: &Batch,
    refused: &BTreeMap<usize, String>,
) -> Result<Judged> {
    let events = batch.decoded.events.head();
    let contents = events["content_hash"].as_primitive::<Int64Type>();
    let sequences = events["sequence"].as_primitive::<Int64Type>();
    let event_times = events["event_time"].as_primitive::<TimestampMicrosecondType>();
    let ingest_times = events["ingest_time"].as_primitive::<TimestampMicrosecondType>();
    let mut counts = Counts {
        events: events.num_rows() as u64,
        ..Counts::default()
    };
    let mut keep = Vec::with_capacity(events.num_rows());
    let mut is_counted = Vec::with_capacity(events.num_rows());
    let mut aside = BTreeMap::new();
    for row in 0..events.num_rows() {
        let sequence = Sequence(sequences.value(row).unsigned_abs());
        let before = watermark.before(sequence);
        let verdict = match batch.decoded.statuses[row] {
            Status::Ok if refused.contains_key(&row) => {
                counts.rejected += 1;
                let reason = refused[&row].clone();
                let rejected = set_aside(batch, row, Status::Rejected, reason);
                aside.insert(is_counted.len(), rejected);
                None
            }
            Status::Ok => {
                let ask = |content| {
                    let (key, ingest_us) = (batch.decoded.keys[row], ingest_times.value(row));
                    dedupe.judge(key, content, ingest_us, before)
                };
                Some(judge_content(ask, contents.value(row), || {
                    batch.decoded.first_content(&batch.messages, row)
                })?)
            }
            Status::Unmatched => {
                counts.unmatched += 1;
                None
            }
            Status::Rejected | Status::Late | Status::Conflict => {
                counts.rejected += 1;
                None
            }
        };
        if verdict == Some(Verdict::Conflict) {
            counts.conflicts += 1;
            let reason = "this source and id were counted before with other content".to_owned();
            aside.insert(
                is_counted.len(),
                set_aside(batch, row, Status::Conflict, reason),
            );
        }
        if verdict == Some(Verdict::New) {
            let event_us = event_times.value(row);
            counts.older_than_horizon += u64::from(dedupe.may_have_forgotten(event_us, before));
            watermark.observe(sequence, event_us, ingest_times.value(row));
        }
        counts.repeats += u64::from(verdict == Some(Verdict::Repeat));
        counts.counted += u64::from(verdict == Some(Verdict::New));
        keep.push(verdict != Some(Verdict::Repeat));
        if verdict != Some(Verdict::Repeat) {
            is_counted.push(verdict == Some(Verdict::New));
        }
    }
    let doing = "selecting events";
    let rows = batch.decoded.events.filter(&BooleanBuffer::from(keep));
    let rows = rows.map_err(query_error(doing))?;
    let is_counted = BooleanBuffer::from(is_counted);
    let counted = rows.filter(&is_counted).map_err(query_error(doing))?;
    Ok(Judged {
        rows,
        is_counted,
        counted,
        aside,
        counts,
    })
}

/// Judges an event by its content hash, and by the one of the first rule when an id is there with another: ids in older
/// lakes have only that. The index does not say which rule a hash is of; that one of another rule is the same is as
/// likely as that two contents share one.
fn judge_content(
    mut ask: impl FnMut(i64) -> Result<Verdict>,
    content: i64,
    first_content: impl FnOnce() -> Option<i64>,
) -> Result<Verdict> {
    match ask(content)? {
        Verdict::Conflict => first_content().map_or(Ok(Verdict::Conflict), ask),
        verdict => Ok(verdict),
    }
}

fn set_aside(batch: &Batch, row: usize, status: Status, reason: String) -> Aside {
    let raw = batch.decoded.raw(&batch.messages, row).unwrap_or_default();
    Aside {
        status,
        reason,
        raw: raw.into_owned(),
    }
}

/// Writes `late`, and what was set aside, into the columns `status`, `reason` and `raw`.
pub(super) fn with_late(judged: &Judged, late: Option<&BooleanBuffer>) -> Result<EventBatch> {
    if late.is_none() && judged.aside.is_empty() {
        return Ok(judged.rows.clone());
    }
    let rows = judged.rows.head();
    let statuses = rows["status"].as_string::<i32>();
    let reasons = rows["reason"].as_string::<i32>();
    let raws = rows["raw"].as_binary::<i32>();
    let mut counted = 0;
    let mut status = Vec::with_capacity(rows.num_rows());
    let mut reason = Vec::with_capacity(rows.num_rows());
    let mut raw = BinaryBuilder::new();
    for row in 0..rows.num_rows() {
        let is_late = judged.is_counted.value(row) && late.is_some_and(|late| late.value(counted));
        counted += usize::from(judged.is_counted.value(row));
        match judged.aside.get(&row) {
            Some(aside) => {
                status.push(aside.status.as_str());
                reason.push(Some(aside.reason.as_str()));
                raw.append_value(&aside.raw);
            }
            None => {
                status.push(if is_late {
                    Status::Late.as_str()
                } else {
                    statuses.value(row)
                });
                reason.push(reasons.is_valid(row).then(|| reasons.value(row)));
                raw.append_option(raws.is_valid(row).then(|| raws.value(row)));
            }
        }
    }
    let mut columns = rows.columns().to_vec();
    let replaced: [(&str, ArrayRef); 3] = [
        ("status", Arc::new(StringArray::from(status))),
        ("reason", Arc::new(StringArray::from(reason))),
        ("raw", Arc::new(raw.finish())),
    ];
    for (name, column) in replaced {
        let at = rows
            .schema()
            .index_of(name)
            .map_err(query_error("marking late events"))?;
        columns[at] = column;
    }
    let marked = judged.rows.with_head(columns);
    marked.map_err(query_error("marking late events"))
}
