//! `tollgate replay`: events that were set aside for a reason that was not theirs, published again.
//!
//! With `--unmatched` those that had no event type, now that they have one; with `--rejected` those that earlier versions
//! of Tollgate set aside because an expression of a meter failed on them, which now count and put a group in error at
//! most.

use crate::{
    cli::{open_to_read, output, publish::progress_bar},
    config::{Settings, SourceKind},
    error::{Error, Result, printable, query_error},
    metering::micros,
    outgoing::Batches,
    source::nats_options,
    view::View,
};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use clap::Args;
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write,
    num::NonZeroUsize,
};
use tollgate_connectors::{
    event::{event_key, with_time},
    nats::{Published, Publisher},
};
use tollgate_sql::session;

/// Arguments of `tollgate replay`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Replay events that had no event type when they were read.
    #[arg(long, required_unless_present = "rejected")]
    pub unmatched: bool,
    /// Replay events that were rejected because an expression of a meter failed on them, as earlier versions did.
    /// What an event type rejects is not replayed: it would be rejected again.
    #[arg(long)]
    pub rejected: bool,
    /// Only events of this CloudEvents type.
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Count only; publish nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Events by what becomes of them.
#[derive(Debug, Default)]
struct Replay {
    /// How many are published again, by type.
    by_type: BTreeMap<String, u64>,
    /// How many still have no event type.
    untyped: u64,
    /// Source, id and content of those that are published: the same need not be published twice.
    seen: HashSet<(u128, i64)>,
}

/// Publishes again, each as a message of its own in the order of the stream, the events whose type is
/// defined by now and whose id was not counted since; prints how many, by type.
///
/// They keep source, id, data and the time at which they happened, so [`mod@crate::cli::run`] counts each
/// once, however often it is replayed within the dedupe horizon, and later because it is left out here.
///
/// # Errors
/// The source is no stream, or a message was not acknowledged after several tries. Replaying again is safe.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    if settings.source.kind == SourceKind::Files {
        let problem = "source.kind is `files`, and replay publishes to a stream: a lake does not read a file \
                       twice, so define the event type and run again with another lake.url, which reads all of it";
        return Err(Error::Usage(problem.to_owned()));
    }
    let mut publisher = match arguments.dry_run {
        true => None,
        false => Some(Publisher::connect(nats_options(settings)).await?),
    };
    let mut replay = Replay::default();
    replay
        .publish_all(settings, arguments, publisher.as_mut())
        .await?;
    let published = match publisher {
        Some(publisher) => Some(publisher.finish().await?),
        None => None,
    };
    output::print(&replay.report(published))
}

impl Replay {
    async fn publish_all(
        &mut self,
        settings: &Settings,
        arguments: &Arguments,
        mut publisher: Option<&mut Publisher>,
    ) -> Result<()> {
        let doing = "reading events that were set aside";
        let (catalog, lake) = open_to_read(settings).await?;
        let view = View::open(catalog, &lake).await?;
        let sql = include_str!("replay.sql");
        let shard = ScalarValue::from(settings.source.stream.as_str());
        let frame = session::query(&view.session(sql).await?, sql).await;
        let values = vec![
            ("shard", shard),
            ("unmatched", ScalarValue::from(arguments.unmatched)),
            ("rejected", ScalarValue::from(arguments.rejected)),
        ];
        let rows = frame.and_then(|frame| frame.with_param_values(values));
        let rows = rows.map_err(query_error(doing))?.execute_stream().await;
        let mut rows = rows.map_err(query_error(doing))?;
        let mut messages = Batches::new(settings, NonZeroUsize::MIN);
        let bar = progress_bar();
        while let Some(batch) = rows.try_next().await.map_err(query_error(doing))? {
            for event in self.select(&view, arguments, &batch) {
                bar.inc(1);
                let message = messages.add(&event);
                if let (Some(publisher), Some((subject, payload))) = (&mut publisher, message) {
                    publisher
                        .publish(&subject, messages.headers(), payload)
                        .await?;
                }
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// The events of a batch that are published again.
    fn select(&mut self, view: &View, arguments: &Arguments, batch: &RecordBatch) -> Vec<Vec<u8>> {
        let text = |name: &str| batch[name].as_string::<i32>();
        let (types, sources, ids) = (text("type"), text("source"), text("event_id"));
        let contents = batch["content_hash"].as_primitive::<Int64Type>();
        let event_times = micros(batch, "event_time");
        let raws = batch["raw"].as_binary::<i32>();
        let mut events = Vec::new();
        for (row, event_time) in event_times.iter().enumerate() {
            let kind = types.value(row);
            if arguments
                .event_type
                .as_ref()
                .is_some_and(|only| only != kind)
            {
                continue;
            }
            let key = event_key(sources.value(row), ids.value(row));
            if !self.seen.insert((key, contents.value(row))) {
                continue;
            }
            let known = &view.catalog().definitions.event_types;
            if !known.iter().any(|known| known.cloud_event_type == kind) {
                self.untyped += 1;
                continue;
            }
            let time = Timestamp::from_microsecond(*event_time)
                .expect("an event's time was read from a year of four digits, or is the server's");
            if let Some(event) = with_time(raws.value(row), &time.to_string()) {
                *self.by_type.entry(kind.to_owned()).or_default() += 1;
                events.push(event.into_owned());
            }
        }
        events
    }

    fn report(&self, published: Option<Published>) -> String {
        let events: u64 = self.by_type.values().sum();
        let mut text = match published {
            Some(published) => format!(
                "{events} events published again, {} messages acknowledged, {} sent again\n",
                published.acknowledged, published.retries
            ),
            None => format!("{events} events to publish again\n"),
        };
        for (kind, events) in &self.by_type {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {}: {events}", printable(kind));
        }
        let _ = writeln!(text, "{} events still have no event type", self.untyped);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;
    use tollgate_sql::session;

    /// Of each row of `events`: id, status, reason.
    const ROWS: [(&str, &str, Option<&str>); 7] = [
        (
            "untyped",
            "unmatched",
            Some("no event type is defined for `gpu`"),
        ),
        (
            "of a meter",
            "rejected",
            Some(
                "meter `px` failed in the window that starts at 2026-01-15T10:00:00Z: Execution error: overflow",
            ),
        ),
        (
            "counted since",
            "rejected",
            Some("meter `px` failed in the window that starts at any: Execution error: overflow"),
        ),
        ("of its type", "rejected", Some("check failed: meter > 0")),
        (
            "malformed",
            "rejected",
            Some("field `meter` is required but missing or null"),
        ),
        (
            "other",
            "conflict",
            Some("meter `px` failed in the window that starts at any"),
        ),
        ("counted since", "late", None),
    ];

    /// An id, a status and a reason.
    type Row<'a> = (&'a str, &'a str, Option<&'a str>);

    /// The ids that are published again.
    async fn replayed(unmatched: bool, rejected: bool) -> Vec<String> {
        let text = |of: fn(&Row<'_>) -> Option<String>| -> ArrayRef {
            Arc::new(ROWS.iter().map(of).collect::<StringArray>())
        };
        let numbers = || -> ArrayRef { Arc::new(Int64Array::from_iter_values(0..7)) };
        let rows = RecordBatch::try_from_iter([
            ("shard", text(|_| Some("USAGE".into()))),
            ("type", text(|_| Some("gpu".into()))),
            ("source", text(|_| Some("s".into()))),
            ("event_id", text(|row| Some(row.0.into()))),
            ("status", text(|row| Some(row.1.into()))),
            ("reason", text(|row| row.2.map(str::to_owned))),
            ("raw", text(|_| None)),
            ("content_hash", numbers()),
            ("event_time", numbers()),
            ("sequence", numbers()),
            ("ordinal", numbers()),
        ]);
        let context = session::context();
        context.register_batch("events", rows.unwrap()).unwrap();
        let frame = context.sql(include_str!("replay.sql")).await.unwrap();
        let values = vec![
            ("shard", ScalarValue::from("USAGE")),
            ("unmatched", ScalarValue::from(unmatched)),
            ("rejected", ScalarValue::from(rejected)),
        ];
        let frame = frame.with_param_values(values).unwrap();
        let found = frame.collect().await.unwrap();
        let ids = found
            .iter()
            .flat_map(|rows| rows["event_id"].as_string::<i32>());
        ids.map(|id| id.unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn what_was_set_aside_for_our_reasons_is_replayed_and_nothing_else() {
        assert_eq!(replayed(true, false).await, ["untyped"]);
        assert_eq!(replayed(false, true).await, ["of a meter"]);
        assert_eq!(replayed(true, true).await, ["untyped", "of a meter"]);
    }
}
