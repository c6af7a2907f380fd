//! What a meter measures, and what it refuses to be.

use super::*;
use crate::{
    definitions::{Column, Frame, LatePolicy},
    error::{ErrorKind, Location},
};
use arrow::array::ArrayRef;
use arrow::{
    array::{Decimal128Array, Int32Array, Int64Array, StringArray},
    datatypes::DataType,
    util::pretty::pretty_format_batches,
};

mod accumulators;
mod bundles;
mod exact;
mod faults;
mod frames;
mod hints;
mod properties;
mod refusals;
mod spans;
mod versions;

pub(super) const HOUR: i64 = 3_600_000_000;

pub(super) fn event_type() -> EventType {
    let column = |name: &str, data_type, nullable| Column {
        name: name.to_owned(),
        data_type,
        nullable,
        path: vec![crate::definitions::Step::Key(name.to_owned())],
        default: None,
        strings: false,
    };
    EventType {
        name: "llm".to_owned(),
        cloud_event_type: "llm.completion".to_owned(),
        columns: vec![
            column("model", DataType::Utf8, true),
            column("input", DataType::Int64, true),
            column("output", DataType::Int64, true),
            column("cost", DataType::Decimal128(18, 9), true),
        ],
        checks: Vec::new(),
        unclear: Vec::new(),
        at: Location::default(),
    }
}

pub(super) fn definition(query: &str) -> MeterDefinition {
    MeterDefinition {
        name: "tokens".to_owned(),
        window_us: HOUR,
        frame: Frame::Tumbling,
        lateness_us: 0,
        late: LatePolicy::Correct,
        carry_over: false,
        unit: None,
        event_type: "llm".to_owned(),
        query: query.to_owned(),
        query_at: Location {
            file: "meters.sql".to_owned(),
            line: 4,
            column: 1,
        },
        options_at: ["window", "late", "effective_from"]
            .into_iter()
            .zip(10..)
            .map(|(option, line)| {
                let at = Location {
                    file: "meters.sql".to_owned(),
                    line,
                    column: 5,
                };
                (option.to_owned(), at)
            })
            .collect(),
        version: 1,
        effective_from_us: None,
        earlier: Vec::new(),
        at: Location {
            file: "meters.sql".to_owned(),
            line: 3,
            column: 1,
        },
    }
}

pub(super) async fn meter(query: &str) -> Meter {
    Meter::plan(&definition(query), &event_type())
        .await
        .unwrap()
}

/// One event: time, subject, model, input, output, cost in billionths.
pub(super) type Event = (
    i64,
    String,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i128>,
);

pub(super) fn event(time_us: i64, subject: &str, model: Option<&str>, input: i64) -> Event {
    let model = model.map(str::to_owned);
    (
        time_us,
        subject.to_owned(),
        model,
        Some(input),
        Some(0),
        None,
    )
}

/// Events as a batch with every column a meter may read.
pub(super) fn batch(events: &[Event]) -> RecordBatch {
    let relation = schema::event_relation(&event_type());
    let times: TimestampMicrosecondArray = events.iter().map(|e| Some(e.0)).collect();
    let times: ArrayRef = Arc::new(times.with_timezone("UTC"));
    let text = |of: &dyn Fn(&Event) -> Option<String>| -> ArrayRef {
        Arc::new(events.iter().map(of).collect::<StringArray>())
    };
    let integers = |of: &dyn Fn(&Event) -> Option<i64>| -> ArrayRef {
        Arc::new(events.iter().map(of).collect::<Int64Array>())
    };
    let costs: Decimal128Array = events.iter().map(|e| e.5).collect();
    let costs = costs.with_precision_and_scale(18, 9).unwrap();
    let columns = vec![
        text(&|e| Some(e.0.to_string())),
        text(&|_| Some("test".to_owned())),
        text(&|e| Some(e.1.clone())),
        Arc::clone(&times),
        times,
        text(&|_| Some("shard".to_owned())),
        integers(&|e| Some(e.0)),
        Arc::new(Int32Array::from(vec![0; events.len()])),
        text(&|e| e.2.clone()),
        integers(&|e| e.3),
        integers(&|e| e.4),
        Arc::new(costs),
    ];
    RecordBatch::try_new(relation, columns).unwrap()
}

/// Without what nothing is in error or wide for.
pub(super) fn without_faults(batch: &RecordBatch) -> RecordBatch {
    let fields = batch.schema();
    let seen = (0..batch.num_columns()).filter(|at| {
        let name = fields.field(*at).name();
        let is_of_faults = name == ERROR || name.ends_with("_wide");
        !is_of_faults || batch.column(*at).null_count() < batch.num_rows()
    });
    batch.project(&seen.collect::<Vec<_>>()).unwrap()
}

pub(super) fn shown(batch: &RecordBatch) -> Vec<String> {
    let table = pretty_format_batches(&[without_faults(batch)]).unwrap();
    let table = table.to_string();
    let rows = table.lines().skip(3).filter(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|').map(str::trim);
        cells.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    })
    .collect()
}

fn names(schema: &SchemaRef) -> Vec<&str> {
    schema.fields().iter().map(|f| f.name().as_str()).collect()
}

const SUMS: &str = "SELECT subject, model, SUM(input) AS input, COUNT(*) AS calls
    FROM llm GROUP BY subject, model";

#[tokio::test]
async fn panes_are_sorted_by_window_then_keys_with_null_first() {
    let meter = meter(SUMS).await;
    let events = batch(&[
        event(HOUR, "b", Some("x"), 1),
        event(5, "b", Some("x"), 10),
        event(7, "b", None, 100),
        event(-1, "z", Some("y"), 3),
        event(HOUR - 1, "a", Some("y"), 1000),
        event(6, "b", Some("x"), 20),
    ]);
    let states = meter.partial(events).await.unwrap();
    let panes = meter.finish(&[states]).await.unwrap();
    assert_eq!(
        shown(&panes),
        [
            "1969-12-31T23:00:00Z 1970-01-01T00:00:00Z z y 3 1",
            "1970-01-01T00:00:00Z 1970-01-01T01:00:00Z a y 1000 1",
            "1970-01-01T00:00:00Z 1970-01-01T01:00:00Z b  100 1",
            "1970-01-01T00:00:00Z 1970-01-01T01:00:00Z b x 30 2",
            "1970-01-01T01:00:00Z 1970-01-01T02:00:00Z b x 1 1",
        ]
    );
}

#[tokio::test]
async fn a_plain_measure_is_its_own_state() {
    let meter = meter(SUMS).await;
    let columns = [
        "window_start",
        "subject",
        "model",
        "input",
        "input__state_wide",
        "calls",
        "error",
    ];
    assert_eq!(names(meter.state_schema()), columns);
    assert_eq!(meter.pane_schema().fields().len(), columns.len() + 1);
    let measures: Vec<_> = meter
        .measures()
        .iter()
        .map(|f| f.data_type().clone())
        .collect();
    assert_eq!(measures, [DataType::Decimal128(38, 0), DataType::Int64]);
    assert_eq!(meter.dimensions().len(), 1);
}

#[tokio::test]
async fn an_expression_over_aggregates_keeps_its_states_beside_it() {
    let query = "SELECT subject, SUM(input) + SUM(output) AS total, MAX(cost) AS dearest,
            CASE WHEN COUNT(*) > 1 THEN MAX(cost) * 2 END AS twice
        FROM llm GROUP BY subject";
    let meter = meter(query).await;
    let expected = [
        "window_start",
        "window_end",
        "subject",
        "total",
        "dearest",
        "twice",
        "total__state0",
        "total__state0_wide",
        "total__state1",
        "total__state1_wide",
        "twice__state0",
        "error",
    ];
    assert_eq!(names(meter.pane_schema()), expected);
    let mut one = event(0, "a", None, 1);
    (one.4, one.5) = (Some(10), Some(1_500_000_000));
    let mut two = event(1, "a", None, 2);
    (two.4, two.5) = (Some(20), Some(2_500_000_000));
    let first = meter.partial(batch(&[one])).await.unwrap();
    let second = meter.partial(batch(&[two])).await.unwrap();
    let pane = meter.finish(std::slice::from_ref(&first)).await.unwrap();
    assert_eq!(
        shown(&pane),
        ["1970-01-01T00:00:00Z 1970-01-01T01:00:00Z a 11 1.500000000  1 10 1"]
    );
    let restored = meter.states_of(&pane).unwrap();
    assert_eq!(restored, first);
    let totals = meter.totals(&[restored, second]).await.unwrap();
    assert_eq!(shown(&totals), ["a 33 2.500000000 5.000000000"]);
}

#[tokio::test]
async fn where_and_filter_apply_before_anything_is_counted() {
    let query = "SELECT subject, COUNT(*) FILTER (WHERE model = 'x') AS xs,
            SUM(input) FILTER (WHERE model = 'x') AS x_input,
            SUM(CASE WHEN model = 'y' THEN input ELSE 0 END) AS y_input
        FROM llm WHERE input <> 7 GROUP BY subject";
    let meter = meter(query).await;
    let events = [
        event(0, "a", Some("x"), 1),
        event(0, "a", Some("x"), 7),
        event(0, "a", Some("y"), 30),
        event(0, "b", Some("y"), 400),
    ];
    let states = meter.partial(batch(&events)).await.unwrap();
    let states = meter.reduce(&[states.clone(), states]).await.unwrap();
    let totals = meter.totals(&[states]).await.unwrap();
    assert_eq!(shown(&totals), ["a 2 2 60", "b 0  800"]);
}

#[tokio::test]
async fn a_key_may_be_an_expression_with_a_name() {
    let query = "SELECT upper(model) AS family, subject, MIN(input) AS least, MAX(model) AS last
        FROM llm AS l GROUP BY subject, upper(model)";
    let meter = meter(query).await;
    assert_eq!(
        names(meter.totals_schema()),
        ["subject", "family", "least", "last"]
    );
    let events = [event(0, "a", Some("x"), 5), event(0, "a", Some("X"), -5)];
    let states = meter.partial(batch(&events)).await.unwrap();
    let totals = meter.totals(&[states]).await.unwrap();
    assert_eq!(shown(&totals), ["a X -5 x"]);
}

#[tokio::test]
async fn only_the_columns_that_the_query_uses_are_read() {
    let meter = meter(SUMS).await;
    let used = ["subject", "event_time", "model", "input"];
    assert_eq!(meter.input_columns().collect::<Vec<_>>(), used);
    let all = batch(&[event(0, "a", None, 5)]);
    let few = columns_of(&all, meter.input_schema()).unwrap();
    assert_eq!(
        meter.partial(all).await.unwrap(),
        meter.partial(few).await.unwrap()
    );
}

#[tokio::test]
async fn a_batch_without_a_column_or_with_another_type_is_refused() {
    let meter = meter(SUMS).await;
    let all = batch(&[event(0, "a", None, 5)]);
    let without = all.project(&[2, 3, 7]).unwrap();
    let error = meter.partial(without).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let swapped = RecordBatch::try_from_iter([
        ("subject", Arc::clone(all.column(2))),
        ("event_time", Arc::clone(all.column(3))),
        ("model", Arc::clone(all.column(7))),
        ("input", Arc::clone(all.column(10))),
    ]);
    assert!(meter.partial(swapped.unwrap()).await.is_err());
}

#[tokio::test]
async fn no_events_make_no_panes() {
    let meter = meter(SUMS).await;
    let states = meter.partial(batch(&[])).await.unwrap();
    assert_eq!(
        states,
        RecordBatch::new_empty(Arc::clone(meter.state_schema()))
    );
    assert_eq!(meter.reduce(&[]).await.unwrap().num_rows(), 0);
    assert_eq!(meter.finish(&[]).await.unwrap().num_rows(), 0);
    assert_eq!(meter.totals(&[states]).await.unwrap().num_rows(), 0);
}

#[tokio::test]
async fn a_sum_of_integers_beyond_64_bits_is_exact() {
    let meter = meter(SUMS).await;
    let events = [event(0, "a", None, i64::MAX), event(0, "a", None, i64::MAX)];
    let states = meter.partial(batch(&events)).await.unwrap();
    let totals = meter.totals(&vec![states; 3]).await.unwrap();
    // 6 × 9223372036854775807
    assert_eq!(shown(&totals), ["a  55340232221128654842 6"]);
}

#[tokio::test]
async fn products_of_integers_beyond_64_bits_are_exact() {
    let query = "SELECT subject, SUM(input * output + 1) AS area FROM llm GROUP BY subject";
    let meter = meter(query).await;
    let mut large = event(0, "a", None, i64::MAX);
    large.4 = Some(i64::MIN);
    let states = meter.partial(batch(&[large])).await.unwrap();
    let totals = meter.totals(&[states]).await.unwrap();
    // 9223372036854775807 × -9223372036854775808 + 1
    assert_eq!(
        shown(&totals),
        ["a -85070591730234615856620279821087277055"]
    );
}

#[tokio::test]
async fn panes_of_another_meter_are_refused() {
    let meter = meter(SUMS).await;
    let states = meter
        .partial(batch(&[event(0, "a", None, 1)]))
        .await
        .unwrap();
    let pane = meter.finish(&[states]).await.unwrap();
    assert!(
        meter
            .states_of(&pane.project(&[0, 1, 2, 3, 4]).unwrap())
            .is_err()
    );
    let other = self::meter(
        "SELECT subject, model, MAX(input) AS input, COUNT(*) AS calls
        FROM llm GROUP BY subject, model",
    )
    .await;
    assert!(other.states_of(&pane).is_err());
}

#[tokio::test]
async fn the_fingerprint_ignores_looks_and_sees_meaning() {
    let print = |query: &str, window_us| {
        let mut definition = definition(query);
        definition.window_us = window_us;
        async move {
            let meter = Meter::plan(&definition, &event_type()).await;
            meter.unwrap().versions()[0].fingerprint
        }
    };
    let original = print(SUMS, HOUR).await;
    let looks = "select Subject, MODEL, sum(input) AS input, -- the prompt
        count(*) as calls from LLM group by subject, model";
    assert_eq!(print(looks, HOUR).await, original);
    assert_ne!(print(SUMS, 2 * HOUR).await, original);
    let renamed = SUMS.replace("calls", "requests");
    assert_ne!(print(&renamed, HOUR).await, original);
    let filtered = SUMS.replace("GROUP", "WHERE model <> 'X' GROUP");
    assert_ne!(print(&filtered, HOUR).await, original);
    let otherwise = SUMS.replace("GROUP", "WHERE model <> 'x' GROUP");
    assert_ne!(print(&filtered, HOUR).await, print(&otherwise, HOUR).await);
}

#[tokio::test]
async fn the_fingerprint_is_stored_and_so_stays_the_same() {
    let stored = meter(SUMS).await.versions()[0].fingerprint;
    assert_eq!(stored.by_rule_1, 14_949_295_206_012_965_971);
    assert_eq!(stored.value, 5_500_283_796_070_787_704);
    // What is stored with a rule is compared by that rule alone.
    let Fingerprint { value, by_rule_1 } = stored;
    assert!(stored.is(by_rule_1, None) && stored.is(value, Some(2)));
    assert!(!stored.is(value, None) && !stored.is(by_rule_1, Some(2)));
    assert!(!stored.is(value, Some(3)) && !stored.is(value + 1, Some(2)));
}

#[tokio::test]
async fn the_description_shows_what_is_read_and_kept() {
    let text = meter(SUMS).await.describe();
    for part in [
        "reads: subject Utf8, event_time",
        "state: window_start",
        "mode=Partial",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

/// Rows a second of `partial` for some measures, printed; run by hand with `--ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn partial_throughput() {
    for measures in [
        "SUM(input) AS input, SUM(output) AS output, COUNT(*) AS calls",
        "COUNT(DISTINCT input) AS inputs",
        "AVG(input) AS mean",
        "LATEST(input) AS last",
        "PERCENTILE(input, 0.95) AS p95",
        "TIME_WEIGHTED_SUM(input) AS level",
        "UNIQUE_COUNT(model, TRUE) AS models",
    ] {
        let query = format!("SELECT subject, model, {measures} FROM llm GROUP BY subject, model");
        let meter = meter(&query).await;
        for rows in [1_000_i64, 65_536] {
            let subject = |i| format!("cust_{:05}", i * 7919 % 10_000);
            let model = |i| format!("model-{}", i % 3);
            let events = (0..rows).map(|i| event(i * 1000, &subject(i), Some(&model(i)), i));
            let events = batch(&events.collect::<Vec<_>>());
            let events = columns_of(&events, meter.input_schema()).unwrap();
            let runs = 1_000_000 / rows;
            let started = std::time::Instant::now();
            for _ in 0..runs {
                meter.partial(events.clone()).await.unwrap();
            }
            let rate =
                u128::try_from(rows * runs).unwrap() * 1_000_000 / started.elapsed().as_micros();
            println!("{measures}, {rows} rows a batch: {rate} rows/s");
        }
    }
}
