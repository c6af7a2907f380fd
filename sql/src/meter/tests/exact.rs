//! Every aggregate against the same recomputed from all events at once, in integers, by the rules of
//! `docs/meters.md`.

use super::*;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// An event of one subject; its place is unique.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) time_us: i64,
    pub(super) sequence: i64,
    pub(super) ordinal: i32,
    pub(super) shard: &'static str,
    pub(super) model: Option<&'static str>,
    pub(super) input: Option<i64>,
    /// Whether it adds its model: `output > 0`.
    pub(super) adds: Option<bool>,
    /// In billionths.
    pub(super) cost: Option<i128>,
}

impl Reading {
    fn place(&self) -> (i64, i64, i32, &'static str) {
        (self.time_us, self.sequence, self.ordinal, self.shard)
    }
}

pub(super) fn readings(readings: &[Reading]) -> RecordBatch {
    let events: Vec<Event> = readings
        .iter()
        .map(|r| {
            let model = r.model.map(str::to_owned);
            let output = r.adds.map(i64::from);
            (r.time_us, "a".to_owned(), model, r.input, output, r.cost)
        })
        .collect();
    let events = batch(&events);
    let mut columns = events.columns().to_vec();
    let schema = events.schema();
    let at = |name| schema.index_of(name).unwrap();
    columns[at("sequence")] = Arc::new(Int64Array::from_iter_values(
        readings.iter().map(|r| r.sequence),
    ));
    columns[at("ordinal")] = Arc::new(Int32Array::from_iter_values(
        readings.iter().map(|r| r.ordinal),
    ));
    columns[at("shard")] = Arc::new(StringArray::from_iter_values(
        readings.iter().map(|r| r.shard),
    ));
    RecordBatch::try_new(events.schema(), columns).unwrap()
}

pub(super) fn cells(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("NULL");
    let formatter = |column| ArrayFormatter::try_new(column, &options).unwrap();
    let batch = without_faults(batch);
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|c| formatter(c.as_ref()))
        .collect();
    let row = |row| columns.iter().map(|c| c.value(row).to_string()).collect();
    (0..batch.num_rows()).map(row).collect()
}

/// Digits with a point before the last `scale` of them.
pub(super) fn decimal(digits: i128, scale: usize) -> String {
    let sign = if digits < 0 { "-" } else { "" };
    let text = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = text.split_at(text.len() - scale);
    match scale {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{fraction}"),
    }
}

/// `digits / divisor` with twelve more digits, rounded half away from zero, by long division.
pub(super) fn rounded(digits: i128, divisor: i128) -> i128 {
    let zeros = 10_i128.pow(12);
    let (whole, rest) = (digits.abs() / divisor, digits.abs() % divisor);
    let below = rest * zeros / divisor;
    let up = i128::from((rest * zeros % divisor) * 2 >= divisor);
    digits.signum() * (whole * zeros + below + up)
}

fn or_null(text: Option<String>) -> String {
    text.unwrap_or_else(|| "NULL".to_owned())
}

const QUERY: &str = "SELECT subject,
    COUNT(DISTINCT model) AS models, COUNT(DISTINCT cost) AS costs,
    AVG(cost) AS mean, AVG(input) AS mean_input,
    FIRST(input) AS opening, LATEST(cost) AS closing, LATEST(model) AS last_model,
    PERCENTILE(cost, 0.95) AS p95, PERCENTILE(model, 0.5) AS mid_model,
    PERCENTILE_CONT(cost, 0.25) AS q1, MEDIAN(input) AS middle,
    TIME_WEIGHTED_SUM(cost) AS seconds, TIME_WEIGHTED_AVG(input) AS mean_level,
    PRORATED_SUM(input) AS prorated,
    UNIQUE_COUNT(model, output > 0) AS active,
    PRORATED_UNIQUE_COUNT(model, output > 0) AS active_days,
    COUNT(DISTINCT model) FILTER (WHERE input > 0) AS positive
    FROM llm GROUP BY subject";

/// The value at an index from 0, of values in any order.
fn nth<T: Ord + Clone>(values: &[T], index: usize) -> T {
    let mut sorted = values.to_vec();
    sorted.sort();
    sorted[index].clone()
}

/// The least value with at least `hundredths` of all values not above it.
fn rank<T: Ord + Clone>(values: &[T], hundredths: usize) -> Option<T> {
    let not_above = |value: &T| values.iter().filter(|other| *other <= value).count();
    let reaches = |value: &&T| not_above(value) * 100 >= hundredths * values.len();
    values.iter().filter(reaches).min().cloned()
}

/// On the line between neighbours, times `unit`.
fn line(values: &[i128], numerator: usize, unit: usize) -> Option<i128> {
    let place = values.len().checked_sub(1)? * numerator;
    let low = nth(values, place / unit);
    let high = nth(values, (place / unit + 1).min(values.len() - 1));
    let (part, unit) = (
        i128::try_from(place % unit).unwrap(),
        i128::try_from(unit).unwrap(),
    );
    Some(low * (unit - part) + high * part)
}

/// Which models are active after these events, in the order of their places.
fn active(events: &[&Reading]) -> BTreeSet<&'static str> {
    let mut active = BTreeSet::new();
    for event in events {
        match (event.model, event.adds) {
            (Some(model), Some(false)) => drop(active.remove(model)),
            (Some(model), _) => drop(active.insert(model)),
            (None, _) => {}
        }
    }
    active
}

/// One row: what the query means for the events of one window.
fn recompute(start: i64, events: &[&Reading]) -> Vec<String> {
    let mut ordered = events.to_vec();
    ordered.sort_by_key(|event| event.place());
    let end = start + HOUR;
    let inputs: Vec<i128> = ordered
        .iter()
        .filter_map(|e| e.input)
        .map(i128::from)
        .collect();
    let costs: Vec<i128> = ordered.iter().filter_map(|e| e.cost).collect();
    let models: Vec<&str> = ordered.iter().filter_map(|e| e.model).collect();
    let mean = |values: &[i128], scale| {
        let count = i128::try_from(values.len()).unwrap();
        let mean = || decimal(rounded(values.iter().sum(), count), scale);
        or_null((count > 0).then(mean))
    };
    let weighed = |value: &dyn Fn(&Reading) -> Option<i128>| {
        let until_end = |e: &&Reading| Some(value(e)? * i128::from(end - e.time_us));
        let all: Vec<i128> = ordered.iter().filter_map(until_end).collect();
        (!all.is_empty()).then(|| all.iter().sum::<i128>())
    };
    let seconds = weighed(&|e| e.cost);
    let level = weighed(&|e| e.input.map(i128::from));
    // A window is of one day: each value that some event adds is active on that day.
    let ever = ordered
        .iter()
        .filter(|e| e.adds != Some(false))
        .filter_map(|e| e.model);
    let ever = i128::try_from(ever.collect::<BTreeSet<_>>().len()).unwrap();
    let positive = ordered.iter().filter(|e| e.input.is_some_and(|i| i > 0));
    let positive: BTreeSet<_> = positive.filter_map(|e| e.model).collect();
    let latest_cost = ordered.iter().rev().find_map(|e| e.cost);
    vec![
        models.iter().collect::<BTreeSet<_>>().len().to_string(),
        costs.iter().collect::<BTreeSet<_>>().len().to_string(),
        mean(&costs, 21),
        mean(&inputs, 12),
        or_null(inputs.first().map(i128::to_string)),
        or_null(latest_cost.map(|cost| decimal(cost, 9))),
        or_null(models.last().map(|model| (*model).to_owned())),
        or_null(rank(&costs, 95).map(|cost| decimal(cost, 9))),
        or_null(rank(&models, 50).map(str::to_owned)),
        or_null(line(&costs, 25, 100).map(|cost| decimal(cost, 11))),
        or_null(line(&inputs, 5, 10).map(|input| decimal(input, 1))),
        or_null(seconds.map(|seconds| decimal(seconds, 15))),
        or_null(level.map(|level| decimal(rounded(level, HOUR.into()), 12))),
        or_null(
            (!inputs.is_empty())
                .then(|| decimal(inputs.iter().sum::<i128>() * 10_i128.pow(12), 12)),
        ),
        active(&ordered).len().to_string(),
        decimal(ever * 10_i128.pow(12), 12),
        positive.len().to_string(),
    ]
}

fn expected(events: &[Reading]) -> Vec<Vec<String>> {
    let mut windows: BTreeMap<i64, Vec<&Reading>> = BTreeMap::new();
    for event in events {
        let start = event.time_us.div_euclid(HOUR) * HOUR;
        windows.entry(start).or_default().push(event);
    }
    windows
        .iter()
        .map(|(start, events)| recompute(*start, events))
        .collect()
}

/// Events in some order; times often tie, places never.
pub(super) fn events(hours: i64) -> impl Strategy<Value = Vec<Reading>> {
    let time = prop_oneof![
        -hours * HOUR..hours * HOUR,
        (-hours..hours).prop_map(|h| h * HOUR)
    ];
    let model = prop::option::of(prop::sample::select(vec!["x", "y", "Ünï", ""]));
    let input = prop::option::of(prop_oneof![-9_i64..9, any::<i64>()]);
    let cost = prop_oneof![
        -99_i128..99,
        -999_999_999_999_999_999_i128..999_999_999_999_999_999
    ];
    let adds = prop::option::of(any::<bool>());
    let event = (
        time,
        0_i64..3,
        0_i32..3,
        any::<bool>(),
        model,
        input,
        prop::option::of(cost),
        adds,
    );
    let event = event.prop_map(
        |(time_us, sequence, ordinal, other, model, input, cost, adds)| {
            let shard = if other { "s2" } else { "s10" };
            Reading {
                time_us,
                sequence,
                ordinal,
                shard,
                model,
                input,
                adds,
                cost,
            }
        },
    );
    prop::collection::vec(event, 0..50).prop_map(|events| {
        let mut places = BTreeSet::new();
        events
            .into_iter()
            .filter(|event| places.insert(event.place()))
            .collect()
    })
}

pub(super) fn plan(query: &str, migration_aggregate: bool) -> Meter {
    let mut config = SessionConfig::new();
    config.options_mut().execution.enable_migration_aggregate = migration_aggregate;
    let definition = definition(query);
    let planned = futures::executor::block_on(Meter::plan_with(&definition, &event_type(), config));
    planned.unwrap()
}

/// States of the events in batches that end where `ends` says, merged after those that `reduces`
/// says, through stored panes if `stored`; last ones first.
pub(super) async fn states(
    meter: &Meter,
    events: &[Reading],
    ends: &[bool],
    reduces: &[bool],
    stored: bool,
) -> Vec<RecordBatch> {
    let mut states = Vec::new();
    let mut from = 0;
    for to in 1..=events.len() {
        if to < events.len() && !ends[to] {
            continue;
        }
        states.push(meter.partial(readings(&events[from..to])).await.unwrap());
        if reduces[to - 1] {
            states = vec![meter.reduce(&states).await.unwrap()];
        }
        from = to;
    }
    if stored {
        let pane = meter.finish(&states).await.unwrap();
        states = vec![meter.states_of(&pane).unwrap()];
    }
    states.reverse();
    states
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_and_any_merge_give_what_the_rules_say(
        events in events(2),
        ends in prop::collection::vec(any::<bool>(), 50),
        reduces in prop::collection::vec(any::<bool>(), 50),
        stored in any::<bool>(),
        rotation in 0_usize..50,
    ) {
        let (new, old) = (plan(QUERY, true), plan(QUERY, false));
        futures::executor::block_on(async {
            let whole = new.partial(readings(&events)).await.unwrap();
            let whole = new.finish(&[whole]).await.unwrap();
            let measures = 3..3 + new.measures().len();
            let got: Vec<_> = cells(&whole).iter().map(|row| row[measures.clone()].to_vec()).collect();
            prop_assert_eq!(got, expected(&events));
            for meter in [&new, &old] {
                let split = states(meter, &events, &ends, &reduces, stored).await;
                prop_assert_eq!(&meter.finish(&split).await.unwrap(), &whole);
            }
            let mut shuffled = events;
            let middle = rotation.min(shuffled.len());
            shuffled.rotate_left(middle);
            let shuffled = states(&new, &shuffled, &reduces, &ends, stored).await;
            prop_assert_eq!(&new.finish(&shuffled).await.unwrap(), &whole);
            Ok(())
        })?;
    }
}
