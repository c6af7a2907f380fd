//! What to rebuild when a shard starts: whether its stream is still the one that was committed
//! (pure), then the dedupe index and the open windows from `events`. Nothing lives only in memory.

use crate::{
    commit::{Marks, Position},
    dedupe::{self, Dedupe},
    error::{Error, Result, query_error},
    metering::{Lane, Metering, Written, last_panes},
    window::EventTime,
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use datafusion::{
    execution::{memory_pool::FairSpillPool, runtime_env::RuntimeEnvBuilder},
    functions_aggregate::expr_fn::max,
    prelude::{DataFrame, SessionConfig, SessionContext, col, lit},
};
use futures::TryStreamExt;
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::{Anchor, Bounds, Sequence, Table, event::event_key};
use tollgate_sql::{definitions::Definitions, meter::Meter, schema};

/// What the stream shows of the last committed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What the stream holds now.
    pub bounds: Bounds,
    /// The anchor of the last message that was read, if the stream still has it.
    pub anchor: Option<Anchor>,
}

/// Decides whether reading may go on after `position`. Does no I/O.
///
/// # Errors
/// The stream lost messages that were never read, was rolled back, or is another stream. Going on
/// would count wrongly without anybody noticing, so the error says what to compare.
pub fn check_stream(shard: &str, position: &Position, seen: &Seen) -> Result<()> {
    let committed = position.sequence;
    let broken = |problem: String, hint: &str| Error::Shard {
        shard: shard.to_owned(),
        problem,
        hint: hint.to_owned(),
    };
    if seen.bounds.last < committed {
        return Err(broken(
            format!(
                "the lake holds everything up to sequence {}, but the stream ends at {}",
                committed.0, seen.bounds.last.0
            ),
            "the stream was recreated, purged of its numbers or restored from an older copy; \
             restore it, or start a new lake for the new stream",
        ));
    }
    if seen.bounds.first.0 > committed.0 + 1 {
        return Err(broken(
            format!(
                "sequences {} to {} are gone from the stream and were never read",
                committed.0 + 1,
                seen.bounds.first.0 - 1
            ),
            "raise the stream's max_age, max_bytes or max_msgs so that it holds what is not read \
             yet; the missing events must be published again under their ids",
        ));
    }
    match (position.anchor, seen.anchor) {
        (Some((sequence, ours)), Some(theirs)) if ours != theirs => Err(broken(
            format!(
                "message {} is not the message that was committed",
                sequence.0
            ),
            "the stream was rolled back and its sequences were used again; restore the stream, or \
             start a new lake for it",
        )),
        // The message may have aged out of the stream; then the bounds are all there is to check.
        _ => Ok(()),
    }
}

/// What a meter's table already holds, from its marks.
fn written(table: &dyn Table, marks: &Marks) -> Written {
    let cut = table
        .mark(&marks.cut())
        .and_then(|cut| u64::try_from(cut).ok());
    let watermark = table.mark(&marks.closed());
    match cut.zip(watermark) {
        Some((cut, watermark)) => Written {
            cut: Sequence(cut),
            watermark: EventTime(watermark),
        },
        None => Written::NOTHING,
    }
}

/// Builds the lane of each meter from its table, `None` for a meter that has no table yet.
pub async fn lanes(
    definitions: &Definitions,
    meters: &[Arc<Meter>],
    tables: &[Option<&dyn Table>],
    marks: &Marks,
) -> Result<Vec<Lane>> {
    let mut lanes = Vec::with_capacity(meters.len());
    for (meter, table) in meters.iter().zip(tables) {
        let (written, panes) = match table {
            Some(table) => (
                written(*table, marks),
                late_panes(*table, marks.shard()).await?,
            ),
            None => (Written::NOTHING, BTreeMap::new()),
        };
        let event_type = definitions
            .event_type(&meter.definition().event_type)
            .ok_or(Error::Stage("definitions"))?;
        lanes.push(Lane::new(
            Arc::clone(meter),
            event_type.clone(),
            written,
            panes,
        ));
    }
    Ok(lanes)
}

async fn late_panes(table: &dyn Table, shard: &str) -> Result<BTreeMap<i64, i32>> {
    let doing = "reading the numbers of late panes";
    let frame = SessionContext::new()
        .read_table(table.provider()?)
        .and_then(|frame| frame.filter(col("pane").gt(lit(0)).and(col("shard").eq(lit(shard)))))
        .and_then(|frame| {
            frame.aggregate(
                vec![col("window_start")],
                vec![max(col("pane")).alias("pane")],
            )
        })
        .map_err(query_error(doing))?;
    Ok(last_panes(
        &frame.collect().await.map_err(query_error(doing))?,
    ))
}

/// Rebuilds the open windows of every meter as of the last commit of `events`, beginning with what
/// the meters' tables hold.
pub async fn open_windows(
    mut metering: Metering,
    events: &dyn Table,
    shard: &str,
    position: &Position,
) -> Result<Metering> {
    let doing = "reading committed events back";
    let cut = lit(metering.lowest_cut().signed());
    let oldest = metering
        .lanes()
        .iter()
        .map(|lane| lane.closed_end().0)
        .min();
    let counted = counted(events, shard)?;
    if metering.lowest_cut() > Sequence(0) {
        let open = oldest.map_or(lit(true), |oldest| {
            col("event_time").gt_eq(schema::instant(oldest))
        });
        let before = counted
            .clone()
            .filter(col("sequence").lt_eq(cut.clone()).and(open));
        let mut stream = stream(before, doing).await?;
        while let Some(batch) = stream.try_next().await.map_err(query_error(doing))? {
            metering.restore(&batch).await?;
        }
    }
    let after = counted.filter(col("sequence").gt(cut)).and_then(|f| {
        f.sort(vec![
            col("sequence").sort(true, false),
            col("ordinal").sort(true, false),
        ])
    });
    let mut stream = stream(after, doing).await?;
    while let Some(batch) = stream.try_next().await.map_err(query_error(doing))? {
        metering.apply_committed(&batch).await?;
    }
    let closed_at_us = position.ingest_time_us();
    metering.advance(position.watermark, position.sequence, closed_at_us);
    Ok(metering)
}

/// Rebuilds the dedupe index from the counted events within the horizon.
pub async fn dedupe(
    events: &dyn Table,
    shard: &str,
    position: &Position,
    options: dedupe::Options,
) -> Result<Dedupe> {
    let doing = "rebuilding the dedupe index";
    // Without a message there is no time to count back from: then every key is remembered.
    let since = position.anchor.map_or(i64::MIN, |(_, anchor)| {
        anchor.ingest_time_us.saturating_sub(options.horizon_us)
    });
    let mut dedupe = Dedupe::new(options);
    let frame = counted(events, shard)?
        .filter(col("ingest_time").gt_eq(schema::instant(since)))
        .and_then(|frame| {
            frame.select_columns(&["source", "event_id", "content_hash", "ingest_time"])
        });
    let mut stream = stream(frame, doing).await?;
    while let Some(batch) = stream.try_next().await.map_err(query_error(doing))? {
        remember(&mut dedupe, &batch)?;
        dedupe.settle(position.ingest_time_us())?;
    }
    Ok(dedupe)
}

fn remember(dedupe: &mut Dedupe, batch: &RecordBatch) -> Result<()> {
    let sources = batch["source"].as_string::<i32>();
    let ids = batch["event_id"].as_string::<i32>();
    let contents = batch["content_hash"].as_primitive::<Int64Type>();
    let ingest_times = batch["ingest_time"].as_primitive::<TimestampMicrosecondType>();
    for row in 0..batch.num_rows() {
        if ids.is_valid(row) && sources.is_valid(row) {
            let key = event_key(sources.value(row), ids.value(row));
            dedupe.judge(key, contents.value(row), ingest_times.value(row))?;
        }
    }
    Ok(())
}

/// The counted events of a shard.
fn counted(events: &dyn Table, shard: &str) -> Result<DataFrame> {
    let is_counted = col("status")
        .eq(lit("ok"))
        .or(col("status").eq(lit("late")));
    let doing = "reading committed events back";
    session()
        .map_err(query_error(doing))?
        .read_table(events.provider()?)
        .and_then(|frame| frame.filter(col("shard").eq(lit(shard)).and(is_counted)))
        .map_err(query_error(doing))
}

/// What sorting committed events may take in memory; the rest goes to disk.
const SORT_BYTES: usize = 256 << 20;

fn session() -> datafusion::error::Result<SessionContext> {
    let pool = Arc::new(FairSpillPool::new(SORT_BYTES));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .build_arc()?;
    Ok(SessionContext::new_with_config_rt(
        SessionConfig::new(),
        runtime,
    ))
}

async fn stream(
    frame: datafusion::error::Result<DataFrame>,
    doing: &'static str,
) -> Result<datafusion::execution::SendableRecordBatchStream> {
    frame
        .map_err(query_error(doing))?
        .execute_stream()
        .await
        .map_err(query_error(doing))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANCHOR: Anchor = Anchor {
        hash: 42,
        ingest_time_us: 1_000,
    };

    fn check(first: u64, last: u64, anchor: Option<Anchor>) -> Result<()> {
        let position = Position {
            sequence: Sequence(10),
            anchor: Some((Sequence(10), ANCHOR)),
            watermark: EventTime(0),
            caught_up_us: None,
        };
        let bounds = Bounds {
            first: Sequence(first),
            last: Sequence(last),
            asked_us: None,
        };
        check_stream("s", &position, &Seen { bounds, anchor })
    }

    #[test]
    fn the_same_stream_goes_on() {
        assert!(check(1, 10, Some(ANCHOR)).is_ok());
        assert!(check(5, 900, Some(ANCHOR)).is_ok());
    }

    #[test]
    fn a_committed_message_may_age_out_but_the_next_one_may_not() {
        assert!(check(11, 900, None).is_ok());
        let message = check(13, 900, None).unwrap_err().to_string();
        assert!(message.contains("sequences 11 to 12 are gone"), "{message}");
    }

    #[test]
    fn a_stream_that_ends_before_the_lake_was_rolled_back() {
        let message = check(1, 9, None).unwrap_err().to_string();
        assert!(
            message.contains("up to sequence 10, but the stream ends at 9"),
            "{message}"
        );
    }

    #[test]
    fn a_reused_sequence_is_another_message() {
        for other in [
            Anchor { hash: 43, ..ANCHOR },
            Anchor {
                ingest_time_us: 1_001,
                ..ANCHOR
            },
        ] {
            let message = check(1, 12, Some(other)).unwrap_err().to_string();
            assert!(
                message.contains("message 10 is not the message"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_new_lake_reads_a_stream_only_from_its_first_message() {
        let bounds = |first| Bounds {
            first: Sequence(first),
            last: Sequence(9),
            asked_us: None,
        };
        let seen = |first| Seen {
            bounds: bounds(first),
            anchor: None,
        };
        assert!(check_stream("s", &Position::START, &seen(1)).is_ok());
        assert!(check_stream("s", &Position::START, &seen(2)).is_err());
    }
}
