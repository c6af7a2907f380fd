//! Whatever cannot matter does not: the order of events within a window, how the log is cut into
//! batches and flushes, and where processes stop or die.

use super::{Fact, Lake, MINUTE_US, START_US, Setup, runtime};
use proptest::prelude::*;
use std::{iter::once, sync::Arc};
use tokio::sync::watch;
use tollgate::{
    dedupe,
    shard::{self, Options, Questions},
    telemetry::Progress,
};
use tollgate_connectors::{Message, Sequence, fault::Faults, memory::MemoryStream};

/// One minute of events: subject, model, tokens, and how far into the minute, in microseconds.
type Minute = Vec<(i64, i64, i64, i64)>;

fn minutes() -> impl Strategy<Value = Vec<Minute>> {
    let event = (0_i64..3, 0_i64..2, 0_i64..100, 0..MINUTE_US);
    prop::collection::vec(prop::collection::vec(event, 0..8), 1..20)
}

const SHARD: &str = "first";

/// How the log is read.
#[derive(Debug, Clone)]
struct Reading {
    batch_bytes: usize,
    flush_bytes: usize,
    memory_bytes: usize,
    windows_bytes: usize,
    /// Where processes end before the last one goes to the end; true: in good order.
    ends: Vec<(u64, bool)>,
}

fn reading() -> impl Strategy<Value = Reading> {
    let ends = prop::collection::vec((0_u64..100, any::<bool>()), 0..4);
    let sizes = (
        1_usize..4_000,
        1_usize..100_000,
        0_usize..20_000,
        0_usize..200_000,
    );
    (sizes, ends).prop_map(|(sizes, ends)| {
        let (batch_bytes, flush_bytes, memory_bytes, windows_bytes) = sizes;
        Reading {
            batch_bytes,
            flush_bytes,
            memory_bytes,
            windows_bytes,
            ends,
        }
    })
}

/// A message each, stored 90 seconds after its minute began, so that no event is late. The first of
/// each minute stands fixed half a minute in: it closes the minute before, whatever order follows.
fn log_of(minutes: &[Minute]) -> (MemoryStream, u64) {
    let stream = MemoryStream::default();
    let mut sequence = 0;
    for (minute, events) in (0_i64..).zip(minutes) {
        let start_us = START_US + minute * MINUTE_US;
        let first = (0, 0, 100, MINUTE_US / 2);
        for (subject, model, tokens, offset_us) in once(&first).chain(events) {
            sequence += 1;
            let fact = Fact {
                // Wherever it stands in its minute, the same event has the same id.
                id: usize::try_from(
                    (((minute * 3 + subject) * 2 + model) * 101 + tokens) * MINUTE_US + offset_us,
                )
                .unwrap(),
                subject: *subject,
                model: *model,
                tokens: *tokens,
                time_us: start_us + offset_us,
                ingest_us: start_us + 3 * MINUTE_US / 2,
                sequence,
            };
            stream.append(Message {
                sequence: Sequence(sequence),
                ingest_time_us: start_us + 3 * MINUTE_US / 2,
                headers: Vec::new(),
                payload: fact.line().into(),
                unread: None,
            });
        }
    }
    (stream, sequence)
}

async fn panes_of(setup: &Setup, minutes: &[Minute], reading: &Reading) -> Vec<Vec<String>> {
    let (stream, last) = log_of(minutes);
    let mut lake = Lake::new(setup);
    lake.streams.insert(SHARD, stream);
    for (at, in_order) in &reading.ends {
        run(setup, &lake, reading, Some((at % (last + 1), *in_order))).await;
    }
    run(setup, &lake, reading, None).await;
    lake.panes.iter().map(super::first_panes).collect()
}

/// Runs one process: to the end, or until it has come somewhere, where it stops or is dropped.
async fn run(setup: &Setup, lake: &Lake, reading: &Reading, end: Option<(u64, bool)>) {
    let options = Options {
        batch_bytes: reading.batch_bytes,
        flush_interval_us: i64::MAX,
        flush_bytes: reading.flush_bytes,
        windows_bytes: reading.windows_bytes,
        dedupe: dedupe::Options {
            horizon_us: i64::MAX,
            memory_bytes: reading.memory_bytes,
            directory: lake.ids.path().to_owned(),
        },
        until_end: end.is_none(),
        start: None,
        replaces: Vec::new(),
    };
    let (stop, stopped) = watch::channel(false);
    let progress = watch::Sender::new(Progress::default());
    let mut position = progress.subscribe();
    let parts = lake
        .parts(
            setup,
            SHARD,
            START_US + 366 * 86_400_000_000,
            &Faults::none(),
        )
        .await;
    let mut nobody = Questions::none();
    let run = shard::run(parts, options, stopped, progress, &mut nobody);
    tokio::pin!(run);
    let Some((at, in_order)) = end else {
        run.await.unwrap();
        return;
    };
    tokio::select! {
        ended = &mut run => panic!("it ended by itself: {ended:?}"),
        reached = position.wait_for(|p| p.position.0 >= at) => drop(reached.unwrap()),
    }
    if in_order {
        stop.send_replace(true);
        run.await.unwrap();
    }
}

/// Any order of the events of each minute.
fn shuffled() -> impl Strategy<Value = (Vec<Minute>, Vec<Minute>)> {
    minutes().prop_flat_map(|minutes| {
        let orders: Vec<_> = minutes
            .iter()
            .map(|minute| Just(minute.clone()).prop_shuffle())
            .collect();
        (Just(minutes), orders)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn order_batches_flushes_and_restarts_change_no_closed_byte(
        (minutes, other) in shuffled(),
        first in reading(),
        second in reading(),
    ) {
        let runtime = runtime();
        let setup = Arc::new(runtime.block_on(Setup::new()));
        let first = runtime.block_on(panes_of(&setup, &minutes, &first));
        let second = runtime.block_on(panes_of(&setup, &other, &second));
        prop_assert_eq!(first, second);
    }
}
