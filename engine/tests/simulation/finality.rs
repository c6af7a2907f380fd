//! Whether a billing period is over, asked between two processes: what is final then holds everything that the streams
//! had stored in time, and a window that was closed by then never counts more in time: nothing but late usage can be added.

use super::{
    Fact, Lake, Log, Reading, Setup, StreamEnd, expected, in_time, live::check_groups, measured,
    newest, position, readings,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tollgate::{
    standing::{Standing, Standings},
    view::View,
};
use tollgate_connectors::{Table, memory::MemoryTable};
use tollgate_sql::{definitions::LatePolicy, period::Period};

/// A view of the lake as it is, whether the billing period is over by it, and the `events` that it is of. What wakes up
/// meanwhile may commit more.
pub(crate) async fn ask(setup: &Setup, lake: &Lake) -> (View, bool, MemoryTable) {
    let events = newest(&lake.events);
    let boxed = |table| Some(Box::new(table) as Box<dyn Table>);
    let panes = lake.panes.iter().map(|table| boxed(newest(table)));
    let panes = panes.collect();
    let view = View::of(Arc::clone(&setup.catalog), boxed(events.clone()), panes).unwrap();
    let is_over = view.unfinished_shard(&period()).await.unwrap().is_none();
    (view, is_over, events)
}

fn period() -> Period {
    Period::month("2026-09", "UTC").unwrap()
}

/// The ids of the events that are in time, by window, for each log in turn.
type InTime = Vec<BTreeMap<i64, BTreeSet<usize>>>;

/// What was in time in the windows of the period when it was over.
pub(crate) struct Final(InTime);

impl Final {
    /// What was in time in these windows is so still, and nothing more.
    pub(crate) fn check(&self, setup: &Setup, readings: &[Reading<'_>]) {
        for (was, now) in self.0.iter().zip(&windows_in_time(setup, readings)) {
            for (start, ids) in was {
                assert_eq!(
                    now.get(start),
                    Some(ids),
                    "a window counts more after its period was over"
                );
            }
        }
    }
}

/// What a naive reading finds in time in the windows of the period, for the meter that counts nothing else.
fn windows_in_time(setup: &Setup, readings: &[Reading<'_>]) -> InTime {
    let meters = setup.catalog.meters.iter().map(|meter| meter.definition());
    let mut strict = meters.filter(|meter| matches!(meter.late, LatePolicy::Quarantine));
    let meter = strict.next().unwrap();
    let period = period();
    let windows = |reading: &Reading<'_>| {
        let mut windows = BTreeMap::<i64, BTreeSet<usize>>::new();
        for fact in in_time::in_time(meter, &reading.counted, reading.ends) {
            let start = fact.time_us - fact.time_us.rem_euclid(meter.window_us);
            if start < period.end_us && start + meter.window_us > period.start_us {
                windows.entry(start).or_default().insert(fact.id);
            }
        }
        windows
    };
    readings.iter().map(windows).collect()
}

/// Asks once, and checks the answer; returns what was in time when the period was over. The clock has closed windows of
/// the log at a place, and will, at these ends.
pub(crate) async fn check(
    setup: &Setup,
    lake: &Lake,
    logs: &[Log],
    (at, closings): (usize, &[StreamEnd]),
) -> Option<Final> {
    let (view, is_over, events) = ask(setup, lake).await;
    if !is_over {
        return None;
    }
    let period = period();
    let meters = setup.catalog.meters.iter();
    let lateness_us = meters.map(|meter| meter.definition().lateness_us).max();
    let stored_in_time_us = period.end_us + lateness_us.unwrap();
    let mut read = readings(logs, &events);
    read[at].ends = closings;
    let over = Final(windows_in_time(setup, &read));
    for (at, meter) in (0..).zip(&setup.catalog.meters) {
        for kind in 0..3 {
            check_groups(&view, meter, &read, [kind, (at + kind) % 3, at % 2]).await;
        }
    }
    let standings = Standings::of(&events);
    // A shard that never began is not known, and of one that is over nothing more comes.
    let begun = |log: &&Log| standings.shards().any(|shard| shard == log.shard);
    for log in logs.iter().filter(begun) {
        let is_live = standings.standing(log.shard) == Standing::Live;
        let until = position(&events, log.shard).sequence.0;
        let missing = log.sent.iter().find(|fact| {
            is_live
                && !log.jumps_back
                && fact.sequence > until
                && fact.time_us < period.end_us
                && fact.ingest_us < stored_in_time_us
        });
        assert_eq!(missing, None, "the period was over without it");
    }
    for reading in &mut read {
        reading
            .counted
            .retain(|fact: &Fact| fact.time_us < period.end_us);
    }
    let windows = view.windows(0, Some(&period)).await.unwrap();
    let wanted = expected(&setup.catalog.meters[0], &read as &[Reading<'_>]);
    assert_eq!(measured(&windows), wanted, "a period that is over");
    Some(over)
}
