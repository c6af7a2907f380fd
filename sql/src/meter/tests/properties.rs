//! The same events give the same bytes, however they are split and merged, and they are right.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const QUERY: &str = "SELECT subject, model,
        SUM(input) AS input, SUM(output * 3 - input) AS mixed, SUM(cost) AS cost,
        COUNT(*) AS calls, COUNT(input) AS counted, MIN(input) AS least, MAX(cost) AS dearest,
        SUM(input) FILTER (WHERE output > 0) AS useful
    FROM llm WHERE input IS NULL OR input <> 13 GROUP BY subject, model";

/// What the query means, in integers.
#[derive(Debug, Default, Clone, PartialEq)]
struct Expected {
    input: Option<i128>,
    mixed: Option<i128>,
    cost: Option<i128>,
    calls: i64,
    counted: i64,
    least: Option<i64>,
    dearest: Option<i128>,
    useful: Option<i128>,
}

fn plus(sum: Option<i128>, value: Option<i128>) -> Option<i128> {
    match (sum, value) {
        (Some(sum), Some(value)) => Some(sum + value),
        (sum, value) => sum.or(value),
    }
}

/// Window, subject and model.
type Key = (i64, String, Option<String>);

fn recompute(events: &[Event]) -> BTreeMap<Key, Expected> {
    let mut panes: BTreeMap<_, Expected> = BTreeMap::new();
    for (time, subject, model, input, output, cost) in events {
        if *input == Some(13) {
            continue;
        }
        let start = time.div_euclid(HOUR) * HOUR;
        let pane = panes
            .entry((start, subject.clone(), model.clone()))
            .or_default();
        let (wide_input, wide_output) = (input.map(i128::from), output.map(i128::from));
        let mixed = wide_input.zip(wide_output).map(|(i, o)| o * 3 - i);
        pane.input = plus(pane.input, wide_input);
        pane.mixed = plus(pane.mixed, mixed);
        pane.cost = plus(pane.cost, *cost);
        pane.calls += 1;
        pane.counted += i64::from(input.is_some());
        pane.least = [pane.least, *input].into_iter().flatten().min();
        pane.dearest = [pane.dearest, *cost].into_iter().flatten().max();
        let is_useful = output.is_some_and(|o| o > 0);
        pane.useful = plus(pane.useful, wide_input.filter(|_| is_useful));
    }
    panes
}

fn measured(panes: &RecordBatch) -> Vec<(Key, Expected)> {
    let decimals = |name: &str, row: usize| {
        let column = panes.column_by_name(name).unwrap();
        let column = column.as_primitive::<arrow::datatypes::Decimal128Type>();
        column.iter().nth(row).unwrap()
    };
    let integers = |name: &str, row: usize| {
        let column = panes.column_by_name(name).unwrap();
        let column = column.as_primitive::<arrow::datatypes::Int64Type>();
        column.iter().nth(row).unwrap()
    };
    let text = |index: usize, row: usize| {
        let column = panes.column(index).as_string::<i32>();
        column.iter().nth(row).unwrap().map(str::to_owned)
    };
    let row = |row: usize| {
        let starts = panes.column(0).as_primitive::<TimestampMicrosecondType>();
        let key = (starts.value(row), text(2, row).unwrap(), text(3, row));
        let values = Expected {
            input: decimals("input", row),
            mixed: decimals("mixed", row),
            cost: decimals("cost", row),
            calls: integers("calls", row).unwrap(),
            counted: integers("counted", row).unwrap(),
            least: integers("least", row),
            dearest: decimals("dearest", row),
            useful: decimals("useful", row),
        };
        (key, values)
    };
    (0..panes.num_rows()).map(row).collect()
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let time = prop_oneof![
        -3 * HOUR..3 * HOUR,
        Just(0),
        Just(HOUR),
        Just(HOUR - 1),
        Just(-1)
    ];
    let subject = prop::sample::select(vec!["a", "b", "Ünï"]);
    let model = prop::option::of(prop::sample::select(vec!["x", "y", ""]));
    let number = || prop::option::of(prop_oneof![-20_i64..20, any::<i64>()]);
    let cost = prop::option::of(-999_999_999_999_999_999_i128..999_999_999_999_999_999);
    let event = (time, subject, model, number(), number(), cost);
    let event = event.prop_map(|(time, subject, model, input, output, cost)| {
        let model = model.map(str::to_owned);
        (time, subject.to_owned(), model, input, output, cost)
    });
    prop::collection::vec(event, 0..60)
}

/// One of the two implementations of aggregates that DataFusion has.
fn plan(migration_aggregate: bool) -> Meter {
    let mut config = SessionConfig::new();
    config.options_mut().execution.enable_migration_aggregate = migration_aggregate;
    let definition = definition(QUERY);
    let planned = futures::executor::block_on(Meter::plan_with(&definition, &event_type(), config));
    planned.unwrap()
}

/// Measures in batches that end where `ends` says, reducing after those that `reduces` says, and
/// passing through stored panes at the end if `stored`.
fn measure(
    meter: &Meter,
    events: &[Event],
    ends: &[bool],
    reduces: &[bool],
    stored: bool,
) -> RecordBatch {
    futures::executor::block_on(async {
        let mut states = Vec::new();
        let mut from = 0;
        for to in 1..=events.len() {
            if to < events.len() && !ends[to] {
                continue;
            }
            states.push(meter.partial(batch(&events[from..to])).await.unwrap());
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
        meter.finish(&states).await.unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_and_any_merge_give_the_same_exact_panes(
        events in events(),
        ends in prop::collection::vec(any::<bool>(), 60),
        reduces in prop::collection::vec(any::<bool>(), 60),
        stored in any::<bool>(),
        rotation in 0_usize..60,
    ) {
        let (new, old) = (plan(true), plan(false));
        let whole = measure(&new, &events, &[false; 60], &[false; 60], false);
        let expected: Vec<_> = recompute(&events).into_iter().collect();
        prop_assert_eq!(measured(&whole), expected);
        for meter in [&new, &old] {
            let split = measure(meter, &events, &ends, &reduces, stored);
            prop_assert_eq!(shown(&split), shown(&whole));
            prop_assert_eq!(&split, &whole);
        }
        let mut shuffled = events;
        let middle = rotation.min(shuffled.len());
        shuffled.rotate_left(middle);
        prop_assert_eq!(&measure(&new, &shuffled, &reduces, &ends, stored), &whole);
    }
}
