//! Whether a billing period is over, asked between two processes: what is final then holds everything that the streams
//! had stored in time, so nothing but late usage can ever be added.

use super::{Fact, Lake, Log, Reading, Setup, expected, measured, newest, readings};
use std::sync::Arc;
use tollgate::{
    standing::{Standing, Standings},
    view::View,
};
use tollgate_connectors::Table;
use tollgate_sql::period::Period;

/// A view of the lake as it is, and whether the billing period is over by it.
pub(crate) async fn ask(setup: &Setup, lake: &Lake) -> (View, bool) {
    let boxed = |table| Some(Box::new(table) as Box<dyn Table>);
    let panes = lake.panes.iter().map(|table| boxed(newest(table)));
    let panes = panes.collect();
    let view = View::of(
        Arc::clone(&setup.catalog),
        boxed(newest(&lake.events)),
        panes,
    )
    .unwrap();
    let is_over = view.unfinished_shard(&period()).await.unwrap().is_none();
    (view, is_over)
}

fn period() -> Period {
    Period::month("2026-09", "UTC").unwrap()
}

/// Asks once, and checks the answer; returns 1 when the period was over.
pub(crate) async fn check(setup: &Setup, lake: &Lake, logs: &[Log]) -> u64 {
    let (view, is_over) = ask(setup, lake).await;
    if !is_over {
        return 0;
    }
    let period = period();
    let events = newest(&lake.events);
    let meters = setup.catalog.meters.iter();
    let lateness_us = meters.map(|meter| meter.definition().lateness_us).max();
    let stored_in_time_us = period.end_us + lateness_us.unwrap();
    let mut read = readings(logs, lake);
    let standings = Standings::of(&events);
    // A shard that never began is not known, and of one that is over nothing more comes.
    let begun = |log: &&Log| standings.shards().any(|shard| shard == log.shard);
    for log in logs.iter().filter(begun) {
        let is_live = standings.standing(log.shard) == Standing::Live;
        let until = lake.position(log.shard).sequence.0;
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
    1
}
