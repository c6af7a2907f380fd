//! Totals over a span: usage weighed by the time that is left, and what earlier usage leaves.

use super::{
    exact::{Reading, cells, decimal, events, plan, readings, rounded, states},
    *,
};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const DAY: i64 = 24 * HOUR;

fn reading(time_us: i64, model: &'static str, input: i64, adds: bool) -> Reading {
    Reading {
        time_us,
        sequence: time_us,
        ordinal: 0,
        shard: "s",
        model: Some(model),
        input: Some(input),
        adds: Some(adds),
        cost: None,
    }
}

async fn carrying(query: &str, carry_over: bool) -> Meter {
    let mut definition = definition(query);
    definition.carry_over = carry_over;
    Meter::plan(&definition, &event_type()).await.unwrap()
}

/// Totals over a span of events in it and before it.
async fn totals(meter: &Meter, events: &[Reading], span: &Span) -> Vec<Vec<String>> {
    let within = |e: &&Reading| (span.from_us..span.until_us).contains(&e.time_us);
    let within: Vec<Reading> = events.iter().filter(within).cloned().collect();
    let before = |e: &&Reading| e.time_us < span.from_us && meter.carries();
    let before: Vec<Reading> = events.iter().filter(before).cloned().collect();
    let within = meter.partial(readings(&within)).await.unwrap();
    let before = meter.partial(readings(&before)).await.unwrap();
    let totals = meter.totals_over(&[within], &[before], span).await;
    cells(&totals.unwrap())
}

const LEVEL: &str = "SELECT subject, TIME_WEIGHTED_SUM(input) AS level_seconds,
    TIME_WEIGHTED_AVG(input) AS level, COUNT(*) AS changes, SUM(input) AS net
    FROM llm GROUP BY subject";

#[tokio::test]
async fn a_level_weighs_from_its_change_to_the_end_of_the_span() {
    let meter = carrying(LEVEL, false).await;
    let span = Span::new(0, 4 * HOUR, TimeZone::UTC);
    let events = [
        reading(HOUR, "x", 10, true),
        reading(3 * HOUR, "x", -4, true),
    ];
    // 10 for two hours, then 6 for one: 26 hours, over four.
    let expected = ["a", "93600.000000", "6.500000000000", "2", "6"];
    assert_eq!(totals(&meter, &events, &span).await, [expected]);
}

#[tokio::test]
async fn a_span_begins_with_the_level_that_was_left_and_counts_nothing_else_of_it() {
    let meter = carrying(LEVEL, false).await;
    let span = Span::new(DAY, DAY + 4 * HOUR, TimeZone::UTC);
    let mut events = vec![reading(5, "x", 10, true), reading(HOUR, "x", -3, true)];
    // 7 for all four hours: 28 hours of it, no change.
    let expected = ["a", "100800.000000", "7.000000000000", "0", "NULL"];
    assert_eq!(totals(&meter, &events, &span).await, [expected]);
    events.push(reading(DAY + 3 * HOUR, "x", 4, true));
    let expected = ["a", "115200.000000", "8.000000000000", "1", "4"];
    assert_eq!(totals(&meter, &events, &span).await, [expected]);
}

#[tokio::test]
async fn a_level_that_came_back_to_zero_leaves_no_row() {
    let meter = carrying(LEVEL, false).await;
    let span = Span::new(DAY, 2 * DAY, TimeZone::UTC);
    let events = [reading(5, "x", 10, true), reading(HOUR, "x", -10, true)];
    assert!(totals(&meter, &events, &span).await.is_empty());
}

#[tokio::test]
async fn a_span_may_begin_and_end_within_windows() {
    let meter = carrying(LEVEL, false).await;
    let span = Span::new(HOUR / 2, HOUR + HOUR / 2, TimeZone::UTC);
    let events = [
        reading(HOUR / 4, "x", 2, true),
        reading(HOUR, "x", 6, true),
        reading(2 * HOUR, "x", 9, true),
    ];
    // 2 for an hour, 6 for half of it: five hours' worth.
    let expected = ["a", "18000.000000", "5.000000000000", "1", "6"];
    assert_eq!(totals(&meter, &events, &span).await, [expected]);
}

#[tokio::test]
async fn a_window_has_what_its_own_changes_weigh_until_its_end() {
    let meter = meter(LEVEL).await;
    let events = [reading(HOUR / 4, "x", 4, true), reading(HOUR, "x", 1, true)];
    let states = meter.partial(readings(&events)).await.unwrap();
    let panes = cells(&meter.finish(&[states]).await.unwrap());
    assert_eq!(panes[0][3..7], ["10800.000000", "3.000000000000", "1", "4"]);
    assert_eq!(panes[1][3..7], ["3600.000000", "1.000000000000", "1", "1"]);
}

const PRORATED: &str = "SELECT subject, PRORATED_SUM(input) AS prorated, SUM(input) AS net,
    PRORATED_UNIQUE_COUNT(model, output > 0) AS user_months, UNIQUE_COUNT(model, output > 0) AS users
    FROM llm GROUP BY subject";

#[tokio::test]
async fn usage_is_prorated_by_the_days_from_its_own_to_the_last() {
    let meter = carrying(PRORATED, false).await;
    // Ten days.
    let span = Span::new(10 * DAY, 20 * DAY, TimeZone::UTC);
    let events = [
        reading(9 * DAY, "w", 1000, true),
        reading(10 * DAY, "x", 7, true),
        reading(13 * DAY + 5, "y", 10, true),
        reading(20 * DAY - 1, "z", -1, true),
        reading(20 * DAY, "w", 1000, true),
    ];
    // 7 · 10/10 + 10 · 7/10 − 1 · 1/10; x ten days, y seven, z one.
    let expected = ["a", "13.900000000000", "16", "1.800000000000", "3"];
    assert_eq!(totals(&meter, &events, &span).await, [expected]);
}

#[tokio::test]
async fn a_window_in_two_days_of_the_zone_cannot_be_prorated() {
    let meter = carrying(PRORATED, false).await;
    // Midnight in Kolkata is 18:30 UTC; windows are an hour.
    let zone = TimeZone::get("Asia/Kolkata").unwrap();
    let midnight = 10 * DAY + 37 * HOUR / 2;
    let span = Span::new(midnight, midnight + 10 * DAY, zone);
    let states = |time_us| {
        let events = readings(&[reading(time_us, "x", 7, true)]);
        async { meter.partial(events).await.unwrap() }
    };
    let in_one_day = states(midnight + HOUR).await;
    assert!(meter.totals_over(&[in_one_day], &[], &span).await.is_ok());
    let in_two = states(midnight + DAY).await;
    let error = meter.totals_over(&[in_two], &[], &span).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    let says = "starts at 1970-01-12T18:00:00Z lies in two days of the billing time zone";
    assert!(cause.contains(says), "{cause}");
}

#[tokio::test]
async fn usage_that_is_carried_over_weighs_the_whole_span() {
    let meter = carrying(PRORATED, true).await;
    let span = Span::new(10 * DAY, 20 * DAY, TimeZone::UTC);
    let events = [
        reading(5, "x", 3, true),
        reading(9 * DAY, "y", 5, true),
        reading(9 * DAY + 1, "x", 1, false),
        reading(15 * DAY, "y", 10, false),
    ];
    // (3 + 5 + 1) + 10 · 5/10; y is active from before the span to its sixth day.
    let expected = ["a", "14.000000000000", "19", "0.600000000000", "0"];
    assert_eq!(totals(&meter, &events, &span).await, [expected]);
}

#[tokio::test]
async fn a_span_may_be_a_part_of_the_whole_it_is_prorated_over() {
    let meter = carrying(PRORATED, false).await;
    let mut span = Span::new(10 * DAY, 20 * DAY, TimeZone::UTC);
    (span.whole_us, span.whole_days) = (30 * DAY, 30);
    let events = [reading(10 * DAY, "x", 1, true)];
    let expected = ["a", "0.333333333333", "1", "0.333333333333", "1"];
    assert_eq!(totals(&meter, &events, &span).await, [expected]);
}

#[tokio::test]
async fn days_are_those_of_the_zone() {
    let meter = carrying(PRORATED, false).await;
    // 30 and 31 October 1970 in Berlin, which is UTC+1 then.
    let (from, until) = (302 * DAY - HOUR, 304 * DAY - HOUR);
    let span = Span::new(from, until, TimeZone::get("Europe/Berlin").unwrap());
    assert_eq!(span.whole_days, 2);
    // Both are on the second day there; the first of them is on the first day in UTC.
    let events = [
        reading(303 * DAY - HOUR, "x", 4, true),
        reading(304 * DAY - HOUR - 1, "y", 6, true),
    ];
    let expected = ["a", "5.000000000000", "10", "1.000000000000", "2"];
    assert_eq!(totals(&meter, &events, &span).await, [expected]);
}

#[tokio::test]
async fn toggles_on_one_day_count_it_once_and_a_late_removal_changes_what_was() {
    let meter = carrying(PRORATED, false).await;
    let span = Span::new(0, 10 * DAY, TimeZone::UTC);
    let mut events = vec![
        reading(DAY, "x", 0, false),
        reading(DAY + 1, "x", 0, true),
        reading(DAY + 2, "x", 0, false),
        reading(DAY + 3, "x", 0, true),
        reading(5 * DAY, "x", 0, true),
        reading(7 * DAY, "x", 0, false),
    ];
    assert_eq!(
        totals(&meter, &events, &span).await[0][3..],
        ["0.700000000000", "0"]
    );
    // Days 1 and 2, then 5 to 7.
    events.push(reading(2 * DAY, "x", 0, false));
    assert_eq!(
        totals(&meter, &events, &span).await[0][3..],
        ["0.500000000000", "0"]
    );
}

#[tokio::test]
async fn totals_without_a_span_are_refused_where_they_depend_on_it() {
    let meter = meter(LEVEL).await;
    let error = meter.totals(&[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_level_is_exact_though_its_moment_has_more_than_38_digits() {
    let query =
        "SELECT subject, TIME_WEIGHTED_SUM(input * 10000) AS level FROM llm GROUP BY subject";
    let meter = carrying(query, false).await;
    let late = 250_000_000 * HOUR;
    let event = reading(late, "x", i64::MAX, true);
    let states = meter.partial(readings(&[event])).await.unwrap();
    let panes = meter.finish(&[states]).await.unwrap();
    // 9223372036854775807 × 10000 for an hour; its product with the time has 41 digits.
    let level = &cells(&panes.project(&[3]).unwrap())[0][0];
    assert_eq!(level, "332041393326771929052000000.000000");
    let restored = meter.states_of(&panes).unwrap();
    assert_eq!(
        cells(&meter.finish(&[restored]).await.unwrap()),
        cells(&panes)
    );
}

const MIXED: &str =
    "SELECT subject, TIME_WEIGHTED_SUM(cost) AS seconds, TIME_WEIGHTED_AVG(cost) AS level,
    PRORATED_SUM(input) AS prorated, PRORATED_UNIQUE_COUNT(model, output > 0) AS active,
    LATEST(input) AS last, COUNT(DISTINCT model) AS models FROM llm GROUP BY subject";

/// The integral of the level, instant by instant.
fn integral(events: &[&Reading], span: &Span) -> Option<i128> {
    let changes: BTreeMap<i64, i128> = events.iter().fold(BTreeMap::new(), |mut changes, event| {
        if let Some(cost) = event.cost {
            *changes.entry(event.time_us.max(span.from_us)).or_default() += cost;
        }
        changes
    });
    let (mut level, mut area, mut since) = (0, 0, span.from_us);
    for (at, change) in &changes {
        area += level * i128::from(at - since);
        (level, since) = (level + change, *at);
    }
    (!changes.is_empty()).then(|| area + level * i128::from(span.until_us - since))
}

/// The days on which each model is active, day by day.
fn active_days(events: &[&Reading], span: &Span) -> i128 {
    let mut count = 0;
    let models: BTreeSet<_> = events.iter().filter_map(|e| e.model).collect();
    for model in models {
        let own = || events.iter().filter(|e| e.model == Some(model));
        let is_added = |last: Option<&&Reading>| last.is_some_and(|e| e.adds != Some(false));
        for day in span.from_us.div_euclid(DAY)..span.until_us.div_euclid(DAY) {
            let at_start = is_added(own().rfind(|e| e.time_us.div_euclid(DAY) < day));
            let added = own().any(|e| e.adds != Some(false) && e.time_us.div_euclid(DAY) == day);
            count += i128::from(at_start || added);
        }
    }
    count
}

fn recompute(events: &[Reading], carry_over: bool, span: &Span) -> Vec<String> {
    let mut all: Vec<&Reading> = events
        .iter()
        .filter(|e| e.time_us < span.until_us)
        .collect();
    all.sort_by_key(|e| (e.time_us, e.sequence, e.ordinal, e.shard));
    let within = |e: &&&Reading| carry_over || e.time_us >= span.from_us;
    let counted: Vec<&Reading> = all.iter().filter(within).copied().collect();
    let or_null = |text: Option<String>| text.unwrap_or_else(|| "NULL".to_owned());
    let area = integral(&all, span);
    let last_day = span.until_us / DAY;
    let days = |e: &&&Reading| {
        let day = e.time_us.max(span.from_us).div_euclid(DAY);
        Some(i128::from(e.input?) * i128::from(last_day - day))
    };
    let prorated: Vec<i128> = counted.iter().filter_map(|e| days(&e)).collect();
    let prorated = (!prorated.is_empty()).then(|| prorated.iter().sum());
    let models: BTreeSet<_> = counted.iter().filter_map(|e| e.model).collect();
    vec![
        or_null(area.map(|area| decimal(area, 15))),
        or_null(area.map(|area| decimal(rounded(area, span.whole_us.into()), 21))),
        or_null(prorated.map(|sum| decimal(rounded(sum, span.whole_days.into()), 12))),
        decimal(
            rounded(active_days(&counted, span), span.whole_days.into()),
            12,
        ),
        or_null(
            counted
                .iter()
                .rev()
                .find_map(|e| e.input)
                .map(|i| i.to_string()),
        ),
        models.len().to_string(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn totals_of_any_span_are_those_of_its_days_and_instants(
        events in events(100),
        ends in prop::collection::vec(any::<bool>(), 50),
        reduces in prop::collection::vec(any::<bool>(), 50),
        stored in any::<bool>(),
        carry_over in any::<bool>(),
        from_day in -4_i64..2,
        days in 1_i64..4,
    ) {
        let mut meter = plan(MIXED, true);
        meter.definition.carry_over = carry_over;
        futures::executor::block_on(async {
            let span = Span::new(from_day * DAY, (from_day + days) * DAY, TimeZone::UTC);
            let part = |wanted: &dyn Fn(i64) -> bool| -> Vec<Reading> {
                events.iter().filter(|e| wanted(e.time_us)).cloned().collect()
            };
            let within = part(&|us| us >= span.from_us && us < span.until_us);
            let before = part(&|us| us < span.from_us);
            let has_rows = !within.is_empty() || carry_over && !before.is_empty();
            let within = states(&meter, &within, &ends, &reduces, stored).await;
            let before = states(&meter, &before, &reduces, &ends, stored).await;
            let totals = cells(&meter.totals_over(&within, &before, &span).await.unwrap());
            if has_rows {
                prop_assert_eq!(totals[0][1..].to_vec(), recompute(&events, carry_over, &span));
            }
            Ok(())
        })?;
    }
}
