//! What to rebuild when a shard starts: whether its stream is still the one that was committed
//! (pure), then the open windows from `events`, and the dedupe index from what the process before left of it, as far as
//! that can be proven, and from `events`. Nothing lives only in memory.

mod ids;
mod lanes;

pub use ids::dedupe;
pub use lanes::{For, lane, lanes};

use crate::{
    commit::{Cut, Position},
    error::{Error, Result, query_error},
    metering::{
        Lane, Metering,
        committed::{Committed, execute, session},
        micros,
        pane_writer::PaneSink,
    },
};
use arrow::{
    array::{AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{Int64Type, SchemaRef},
};
use datafusion::{
    catalog::streaming::StreamingTable,
    error::Result as Planned,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchStreamAdapter, streaming::PartitionStream},
    prelude::{DataFrame, col, lit},
};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use std::{collections::BTreeSet, sync::Arc};
use tollgate_connectors::{
    Anchor, Bounds, Sequence, Table,
    event::{EventBatch, Packer},
};
use tollgate_sql::{schema, window::EventTime};

/// What the stream shows of the last committed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What the stream holds now.
    pub bounds: Bounds,
    /// The anchor of the last message that was read, if the stream still has it.
    pub anchor: Option<Anchor>,
    /// Whether the lake says where the shard began, so that `source.start` changes nothing any more.
    pub has_begun: bool,
}

/// Decides whether reading may go on after `position`. Does no I/O.
///
/// # Errors
/// The stream lost messages that were never read, was rolled back, or is another stream. Going on
/// would count wrongly without a sign of it, so the error says what to compare.
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
            match seen.has_begun {
                false => {
                    "if they were never meant to be metered, set source.start = 'first'; else publish them again under \
                     their ids, to a stream whose max_age, max_bytes and max_msgs hold what is not read yet"
                }
                true => {
                    "raise the stream's max_age, max_bytes or max_msgs so that it holds what is not read \
                     yet; the missing events must be published again under their ids"
                }
            },
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

/// Where panes go that are ready while committed events are metered again, and when: each time the
/// windows have grown by so many bytes.
pub(crate) struct Sink<'a> {
    /// Takes the panes.
    pub(crate) panes: &'a mut dyn PaneSink,
    /// How much more the windows may take in memory before what closed is written.
    pub(crate) bytes: usize,
}

/// Rebuilds the open windows of every meter as of the last commit of `events`, beginning with what
/// the meters' tables hold. What closes on the way goes to `sink`, so that a meter that is far behind fits
/// into memory; without one it is kept.
pub(crate) async fn open_windows(
    mut metering: Metering,
    events: &dyn Table,
    shard: &str,
    position: &Position,
    mut sink: Option<Sink<'_>>,
) -> Result<Metering> {
    let doing = "reading committed events back";
    restore(&mut metering, events, shard).await?;
    let types = event_types(metering.lanes());
    let mut messages = messages_after(metering.lowest_cut(), events, shard, &types).await?;
    let mut kept = metering.bytes();
    while let Some(batch) = messages.try_next().await.map_err(query_error(doing))? {
        metering.apply(&batch).await?;
        if let Some(sink) = &mut sink
            && metering.bytes() > kept.saturating_add(sink.bytes)
            && let Some(cut) = cut_at(&batch, metering.watermark())
        {
            let pending = metering.take_pending(cut).await?;
            for (lane, error) in sink.panes.take(&pending, cut, events).await? {
                metering.stop(lane, error);
            }
            kept = metering.bytes();
        }
    }
    metering.settle(position);
    Ok(metering)
}

/// Takes in what was counted up to the lowest cut in windows that were open there.
pub(crate) async fn restore(
    metering: &mut Metering,
    events: &dyn Table,
    shard: &str,
) -> Result<()> {
    let doing = "reading committed events back";
    let cut = metering.lowest_cut();
    if cut == Sequence(0) {
        return Ok(());
    }
    let closed_ends = metering.lanes().iter().map(|lane| lane.closed_end().0);
    let open = closed_ends.min().map_or(lit(true), |oldest| {
        col("event_time").gt_eq(schema::instant(oldest))
    });
    let up_to_cut = col("sequence").lt_eq(lit(cut.signed()));
    let committed = Committed { events, shard };
    for part in committed.parts(&event_types(metering.lanes()))? {
        let before = part.filter(up_to_cut.clone().and(open.clone()));
        let mut before = execute(before, doing).await?;
        while let Some(batch) = before.try_next().await.map_err(query_error(doing))? {
            let events = EventBatch::split(&batch).map_err(query_error(doing))?;
            metering.restore(&events).await?;
        }
    }
    Ok(())
}

/// The event types that some meters read.
pub(crate) fn event_types(lanes: &[Lane]) -> BTreeSet<String> {
    let types = lanes.iter();
    let types = types.map(|lane| lane.meter().definition().event_type.clone());
    types.collect()
}

/// The counted events after a cut in order, in batches that end where a message does. Those of other event types than
/// `types` are without their values.
pub(crate) async fn messages_after(
    cut: Sequence,
    events: &dyn Table,
    shard: &str,
    types: &BTreeSet<String>,
) -> Result<impl Stream<Item = Planned<EventBatch>> + Unpin + use<>> {
    let doing = "reading committed events back";
    let packer = Packer::new(events.provider()?.schema()).map_err(query_error(doing))?;
    let packer = Arc::new(packer);
    let parts = Committed { events, shard }.parts(types)?.into_iter();
    let parts = parts.map(|part| {
        let rows = part.filter(col("sequence").gt(lit(cut.signed())))?;
        let packer = Arc::clone(&packer);
        Ok(Arc::new(Packed { rows, packer }) as Arc<dyn PartitionStream>)
    });
    let parts: Planned<Vec<_>> = parts.collect();
    let after = parts
        .and_then(|parts| StreamingTable::try_new(Arc::clone(packer.schema()), parts))
        .and_then(|table| session()?.read_table(Arc::new(table)))
        .and_then(|rows| {
            rows.sort(vec![
                col("sequence").sort(true, false),
                col("ordinal").sort(true, false),
            ])
        });
    let rows = execute(after, doing).await?;
    let state = (rows, None, packer);
    let messages = stream::try_unfold(state, |(mut rows, mut held, packer)| async move {
        while let Some(batch) = rows.try_next().await? {
            let (whole, rest) = split_messages(held, batch)?;
            held = Some(rest);
            if whole.num_rows() > 0 {
                return Ok(Some((packer.unpack(&whole)?, (rows, held, packer))));
            }
        }
        match held {
            Some(last) => Ok(Some((packer.unpack(&last)?, (rows, None, packer)))),
            None => Ok(None),
        }
    });
    Ok(Box::pin(messages))
}

/// Rows of a part of `events`, packed so that all parts have the same few columns: only these are sorted.
#[derive(Debug)]
struct Packed {
    rows: DataFrame,
    packer: Arc<Packer>,
}

impl PartitionStream for Packed {
    fn schema(&self) -> &SchemaRef {
        self.packer.schema()
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (rows, packer) = (self.rows.clone(), Arc::clone(&self.packer));
        let rows = stream::once(rows.execute_stream()).try_flatten();
        let packed = rows.map(move |batch| Ok(packer.pack(&EventBatch::split(&batch?)?)?));
        let schema = Arc::clone(self.packer.schema());
        Box::pin(RecordBatchStreamAdapter::new(schema, packed))
    }
}

/// Cuts off the last message of what was held and what came, since more of it may follow.
fn split_messages(
    held: Option<RecordBatch>,
    batch: RecordBatch,
) -> Planned<(RecordBatch, RecordBatch)> {
    let rows = match held {
        Some(held) => concat_batches(&batch.schema(), [&held, &batch])?,
        None => batch,
    };
    let sequences = rows["sequence"].as_primitive::<Int64Type>().values();
    let whole = match sequences.last() {
        Some(last) => sequences.partition_point(|sequence| sequence < last),
        None => 0,
    };
    let rest = rows.slice(whole, rows.num_rows() - whole);
    Ok((rows.slice(0, whole), rest))
}

/// The cut after the last message of a batch.
pub(crate) fn cut_at(events: &EventBatch, watermark: EventTime) -> Option<Cut> {
    let head = events.head();
    let sequence = head["sequence"]
        .as_primitive::<Int64Type>()
        .values()
        .last()?;
    Some(Cut {
        sequence: Sequence(sequence.unsigned_abs()),
        ingest_time_us: *micros(head, "ingest_time").last()?,
        watermark,
    })
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
            caught_up: None,
        };
        let bounds = Bounds {
            first: Sequence(first),
            last: Sequence(last),
            asked_us: None,
        };
        let seen = Seen {
            bounds,
            anchor,
            has_begun: true,
        };
        check_stream("s", &position, &seen)
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
        let check = |first, has_begun| {
            let bounds = Bounds {
                first: Sequence(first),
                last: Sequence(9),
                asked_us: None,
            };
            let seen = Seen {
                bounds,
                anchor: None,
                has_begun,
            };
            let checked = check_stream("s", &Position::START, &seen);
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(check(1, false), Ok(()));
        // What to do depends on whether source.start is looked at any more.
        let first = "if they were never meant to be metered, set source.start = 'first'";
        assert!(check(2, false).unwrap_err().contains(first));
        assert!(!check(2, true).unwrap_err().contains(first));
    }
}
