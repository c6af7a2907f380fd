//! A shard without an end: what a stream says that is never quiet, and what the clock closes in one that is.

use super::{
    End, Fact, HORIZON_US, Lake, MINUTE_US, NAMES, START_US, Setup, finality, newest, runtime,
};
use arrow::{
    array::AsArray,
    datatypes::{Int32Type, Int64Type},
};
use std::sync::Arc;
use tokio::{sync::watch, task::yield_now};
use tollgate::{
    clock::ManualClock,
    commit::CaughtUp,
    dedupe,
    shard::{self, Options, Parts, Questions},
    telemetry::Progress,
};
use tollgate_connectors::{Message, Sequence, fault::Faults};
use tollgate_sql::window::EventTime;

const SHARD: &str = NAMES[0];

/// An event that happened and was stored so many microseconds after the start.
fn message(sequence: u64, event_us: i64, stored_us: i64) -> Message {
    let fact = Fact {
        id: usize::try_from(sequence).unwrap(),
        subject: 0,
        model: 0,
        tokens: 1,
        time_us: START_US + event_us,
        sequence,
        ingest_us: START_US + stored_us,
    };
    Message {
        sequence: Sequence(sequence),
        ingest_time_us: fact.ingest_us,
        headers: Vec::new(),
        payload: fact.line().into(),
        unread: None,
    }
}

/// A message at a time, and no flush before the end.
fn options(lake: &Lake) -> Options {
    Options {
        batch_bytes: 1,
        flush_interval_us: i64::MAX,
        flush_bytes: usize::MAX,
        windows_bytes: usize::MAX,
        dedupe: dedupe::Options {
            horizon_us: HORIZON_US,
            memory_bytes: 1 << 20,
            directory: lake.ids.path().to_owned(),
        },
        until_end: false,
        start: None,
        replaces: Vec::new(),
    }
}

/// Reads until a message is processed, and stops in good order.
async fn read_to(lake: &Lake, setup: &Setup, last: u64) {
    let (stop, stopped) = watch::channel(false);
    let progress = watch::Sender::new(Progress::default());
    let mut position = progress.subscribe();
    let parts = lake.parts(setup, SHARD, START_US, &Faults::none()).await;
    let mut nobody = Questions::none();
    let run = shard::run(parts, options(lake), stopped, progress, &mut nobody);
    tokio::pin!(run);
    tokio::select! {
        ended = &mut run => panic!("it ended by itself: {ended:?}"),
        reached = position.wait_for(|p| p.position.0 >= last) => drop(reached.unwrap()),
    }
    stop.send_replace(true);
    run.await.unwrap();
}

#[test]
fn a_stream_that_is_never_quiet_says_by_its_messages_how_far_it_is_read() {
    runtime().block_on(async {
        let setup = Setup::new().await;
        let lake = Lake::new(&setup);
        // It says so with the first message, and then every quarter hour. The period ends at 30 minutes, and one meter
        // waits for one more: so it is not over at 31 less a microsecond. No window is closed by it.
        for (read_to_minute, said_minute, is_over) in [
            (1, 1, false),
            (45, 31, false),
            (46, 46, true),
            (60, 46, true),
        ] {
            for minute in 1..=read_to_minute {
                let at_us = i64::try_from(minute).unwrap() * MINUTE_US;
                lake.streams[SHARD].append(message(minute, at_us, at_us));
            }
            read_to(&lake, &setup, read_to_minute).await;
            let caught_up = CaughtUp {
                time: EventTime(START_US + said_minute * MINUTE_US - 1),
                sequence: None,
            };
            assert_eq!(
                lake.position(SHARD).caught_up,
                Some(caught_up),
                "{read_to_minute}"
            );
            let (_, over, _) = finality::ask(&setup, &lake).await;
            assert_eq!(over, is_over, "{read_to_minute}");
        }
    });
}

#[test]
fn a_period_with_an_open_window_is_not_over_though_the_stream_is_read_beyond_it() {
    runtime().block_on(async {
        let setup = Setup::new().await;
        let lake = Lake::new(&setup);
        // The second message says that the stream is read to minute 44. The event in it is older, so its windows are open,
        // and the third event is in time. The fourth, at minute 31, moves the watermark there: the meter that waits for one
        // minute closes its last window of the period.
        for (sequence, event_second, stored_minute, is_over) in [
            (1, 28 * 60, 29, false),
            (2, 29 * 60, 44, false),
            (3, 29 * 60 + 59, 45, false),
            (4, 31 * 60, 46, true),
        ] {
            let event_us = event_second * 1_000_000;
            let stored_us = stored_minute * MINUTE_US;
            lake.streams[SHARD].append(message(sequence, event_us, stored_us));
            read_to(&lake, &setup, sequence).await;
            let (_, over, _) = finality::ask(&setup, &lake).await;
            assert_eq!(over, is_over, "{sequence}");
        }
    });
}

#[test]
fn what_the_clock_closed_stays_closed_though_the_process_dies_before_its_panes() {
    runtime().block_on(async {
        let setup = Setup::new().await;
        let lake = Lake::new(&setup);
        lake.streams[SHARD].append(message(1, 0, 0));
        let clock = Arc::new(ManualClock::at(START_US));
        // The first call on a meter's table after the process has started stands still.
        let (stop, stopped) = watch::channel(false);
        let progress = watch::Sender::new(Progress::default());
        let mut position = progress.subscribe();
        let calls_of_a_start = 2 * 4;
        let faults = Faults::new(0, 0, calls_of_a_start + 1);
        let parts = Parts {
            tables: lake.tables(&faults).await,
            clock: Arc::clone(&clock) as Arc<dyn tollgate::clock::Clock>,
            ..lake.parts(&setup, SHARD, START_US, &Faults::none()).await
        };
        let mut nobody = Questions::none();
        let run = async {
            match shard::run(parts, options(&lake), stopped, progress, &mut nobody).await {
                Ok(report) => End::Finished(Box::new(report)),
                Err(error) => End::Failed(error),
            }
        };
        let script = async {
            position.wait_for(|p| p.position.0 >= 1).await.unwrap();
            // The stream is quiet for an hour and a half: the windows of that event are due.
            clock.advance(90 * MINUTE_US);
            for _ in 0..1_000 {
                yield_now().await;
            }
            lake.streams[SHARD].append(message(2, 1, 91 * MINUTE_US));
            position.wait_for(|p| p.position.0 >= 2).await.unwrap();
            stop.send_replace(true);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = script => {}
            _ = run => panic!("it should stand still"),
            () = faults.halted() => {}
        }
        lake.streams[SHARD].append(message(2, 1, 91 * MINUTE_US));
        let mut again = lake
            .parts(&setup, SHARD, START_US + 92 * MINUTE_US, &Faults::none())
            .await;
        again.tables = lake.tables(&Faults::none()).await;
        let options = Options {
            until_end: true,
            ..options(&lake)
        };
        let (_stop, stopped) = watch::channel(false);
        shard::run(
            again,
            options,
            stopped,
            watch::Sender::default(),
            &mut Questions::none(),
        )
        .await
        .unwrap();
        // The second event came when its window was closed, and stays late.
        let mut panes = Vec::new();
        for batch in newest(&lake.panes[0]).rows() {
            let (pane, calls) = (
                batch["pane"].as_primitive::<Int32Type>(),
                batch["calls"].as_primitive::<Int64Type>(),
            );
            panes.extend((0..batch.num_rows()).map(|row| (pane.value(row), calls.value(row))));
        }
        panes.sort_unstable();
        assert_eq!(panes, [(0, 1), (1, 1)]);
    });
}
