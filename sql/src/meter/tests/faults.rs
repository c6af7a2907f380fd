//! What fails puts its group or its subject in error, whatever batch it came in, and nothing else.

use super::*;
use proptest::prelude::*;

/// A product of 37 digits: eleven of them fit 38 digits, twelve do not.
const NEAR_THE_LIMIT: &str =
    "SELECT subject, SUM(input * 1000000000000000000) AS large, COUNT(*) AS calls
    FROM llm GROUP BY subject";

fn near_the_limit(time_us: i64, sign: i64) -> Event {
    event(time_us, "a", None, sign * 9_000_000_000_000_000_000)
}

const TOO_LARGE: &str = "the values cannot be made: Execution error: sum overflow: the result needs more than 38 digits";

/// The rows' columns of these names.
fn of(rows: &RecordBatch, names: &[&str]) -> Vec<String> {
    let at = names
        .iter()
        .map(|name| rows.schema().index_of(name).unwrap());
    shown(&rows.project(&at.collect::<Vec<_>>()).unwrap())
}

#[tokio::test]
async fn a_sum_is_judged_by_its_whole_when_it_is_finished() {
    let meter = meter(NEAR_THE_LIMIT).await;
    let up = batch(&vec![near_the_limit(HOUR, 1); 12]);
    let up = meter.partial(up).await.unwrap();
    let down = batch(&vec![near_the_limit(2 * HOUR, -1); 13]);
    let down = meter.partial(down).await.unwrap();
    let other = meter
        .partial(batch(&[event(HOUR, "b", None, 7)]))
        .await
        .unwrap();
    let states = [up, down, other];
    let pane = meter.finish(&states).await.unwrap();
    let expected = [
        format!("1970-01-01T01:00:00Z a  12 {TOO_LARGE}"),
        "1970-01-01T01:00:00Z b 7000000000000000000 1".to_owned(),
        format!("1970-01-01T02:00:00Z a  13 {TOO_LARGE}"),
    ];
    let columns = ["window_start", "subject", "large", "calls", "error"];
    assert_eq!(of(&pane, &columns), expected);
    // What is kept of panes adds up to what the events do: a window in error, no total.
    let restored = meter.states_of(&pane).unwrap();
    for states in [&states[..], &[restored]] {
        let totals = meter.totals(states).await.unwrap();
        assert_eq!(
            shown(&totals),
            [
                "a -9000000000000000000000000000000000000 25",
                "b 7000000000000000000 1"
            ]
        );
    }
    let totals = meter.totals(&states[..1]).await.unwrap();
    assert_eq!(
        of(&totals, &["subject", "error"]),
        [format!("a {TOO_LARGE}")]
    );
}

/// Fails on a model that is no number: in an argument, in WHERE, in a key.
const CASTS: [&str; 3] = [
    "SELECT subject, output, SUM(CAST(model AS BIGINT)) AS x, COUNT(*) AS calls FROM llm GROUP BY subject, output",
    "SELECT subject, output, SUM(input) AS x, COUNT(*) AS calls FROM llm WHERE CAST(model AS BIGINT) > 0
     GROUP BY subject, output",
    "SELECT subject, CAST(model AS BIGINT) AS output, SUM(input) AS x, COUNT(*) AS calls FROM llm
     GROUP BY subject, CAST(model AS BIGINT)",
];

fn cast(time_us: i64, subject: &str, model: &str, output: i64) -> Event {
    let mut event = event(time_us, subject, Some(model), 1);
    event.4 = Some(output);
    event
}

#[tokio::test]
async fn an_argument_puts_its_group_in_error_and_a_filter_or_a_key_its_subject() {
    let events = [
        cast(0, "a", "1", 1),
        cast(1, "a", "one", 1),
        cast(2, "a", "2", 2),
        cast(3, "b", "3", 1),
        cast(HOUR, "a", "4", 1),
    ];
    let cause = "Arrow error: Cast error: Cannot cast string 'one' to value of Int64 type";
    let of_group = format!("an event cannot be measured: {cause}");
    let of_subject = format!("the group of an event cannot be told: {cause}");
    let columns = ["window_start", "subject", "output", "x", "calls", "error"];
    let (first, second) = ("1970-01-01T00:00:00Z", "1970-01-01T01:00:00Z");
    let expected = [
        vec![
            format!("{first} a 1   {of_group}"),
            format!("{first} a 2 2 1"),
            format!("{first} b 1 3 1"),
            format!("{second} a 1 4 1"),
        ],
        vec![
            format!("{first} a    {of_subject}"),
            format!("{first} b 1 1 1"),
            format!("{second} a 1 1 1"),
        ],
        vec![
            format!("{first} a    {of_subject}"),
            format!("{first} b 3 1 1"),
            format!("{second} a 4 1 1"),
        ],
    ];
    for (query, expected) in CASTS.iter().zip(expected) {
        let meter = meter(query).await;
        let states = meter.partial(batch(&events)).await.unwrap();
        let pane = meter.finish(std::slice::from_ref(&states)).await.unwrap();
        assert_eq!(of(&pane, &columns), expected, "{query}");
        // A group in error stays in error, whatever else comes and wherever it is stored in between.
        let more = meter.partial(batch(&[cast(4, "a", "5", 1)])).await.unwrap();
        let restored = meter.states_of(&pane).unwrap();
        let merged = meter.finish(&[more.clone(), restored]).await.unwrap();
        assert_eq!(
            of(&merged, &["subject", "error"])[0],
            of(&pane, &["subject", "error"])[0]
        );
        let totals = meter.totals(&[states, more]).await.unwrap();
        assert!(
            of(&totals, &["subject", "error"])[0].starts_with("a "),
            "{query}"
        );
    }
}

#[tokio::test]
async fn panes_that_were_stored_before_are_read_as_they_were() {
    let meter =
        meter("SELECT subject, SUM(input) AS input, AVG(output) AS mean FROM llm GROUP BY subject")
            .await;
    let events = [event(0, "a", None, 1), event(1, "a", None, 2)];
    let states = meter.partial(batch(&events)).await.unwrap();
    let pane = meter.finish(std::slice::from_ref(&states)).await.unwrap();
    let before = pane.schema();
    let before = before.fields().iter().enumerate();
    let before = before.filter(|(_, f)| f.name() != ERROR && !f.name().ends_with("_wide"));
    let before: Vec<usize> = before.map(|(at, _)| at).collect();
    let names: Vec<String> = before
        .iter()
        .map(|at| pane.schema().field(*at).name().clone())
        .collect();
    let known = [
        "window_start",
        "window_end",
        "subject",
        "input",
        "mean",
        "mean__state0",
        "mean__state1",
    ];
    assert_eq!(names, known);
    let pane = pane.project(&before).unwrap();
    assert_eq!(meter.states_of(&pane).unwrap(), states);
}

#[tokio::test]
async fn a_session_is_in_error_with_each_of_its_events() {
    let mut definition = definition(CASTS[0]);
    definition.frame = Frame::Session { gap_us: 10 };
    let meter = Meter::plan(&definition, &event_type()).await.unwrap();
    let events = [
        cast(0, "a", "1", 1),
        cast(5, "a", "one", 1),
        cast(12, "a", "2", 1),
        cast(100, "a", "3", 1),
    ];
    let mut states = Vec::new();
    for event in events {
        let state = meter.partial(batch(&[event])).await.unwrap();
        let pane = meter.finish(&[state]).await.unwrap();
        states.push(meter.states_of(&pane).unwrap());
    }
    let rows = meter.rows(&states).await.unwrap();
    let rows = of(&rows, &["window_start", "window_end", "x", "error"]);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(
        rows[0].starts_with("1970-01-01T00:00:00Z 1970-01-01T00:00:00.000022Z  an event cannot"),
        "{rows:?}"
    );
    assert_eq!(
        rows[1],
        "1970-01-01T00:00:00.000100Z 1970-01-01T00:00:00.000110Z 3"
    );
}

#[tokio::test]
async fn what_fails_on_every_event_is_refused() {
    for (query, fails) in [
        (
            "SELECT subject, COUNT(*) AS n FROM llm WHERE date_trunc('day', event_time AT TIME ZONE 'Mars/Base') > event_time GROUP BY subject",
            "Mars",
        ),
        (
            "SELECT subject, SUM(input + CAST('one' AS BIGINT)) AS n FROM llm GROUP BY subject",
            "one",
        ),
        (
            "SELECT subject, date_trunc('fortnight', event_time) AS t, COUNT(*) AS n FROM llm
          GROUP BY subject, date_trunc('fortnight', event_time)",
            "fortnight",
        ),
    ] {
        let planned = Meter::plan(&definition(query), &event_type()).await;
        let error = planned.map(|_| ()).unwrap_err().to_string();
        assert!(
            error.contains("fails whatever an event says") && error.contains(fails),
            "{error}"
        );
    }
    for query in CASTS {
        meter(query).await;
    }
}

/// Which of the events fail in what.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let models = prop::sample::select(vec!["1", "2", "x", "y"]);
    let event = (0_i64..3, 0_usize..2, models, 0_i64..2);
    let event = event.prop_map(|(hour, subject, model, output)| {
        cast(hour * HOUR, ["a", "b"][subject], model, output)
    });
    prop::collection::vec(event, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn batches_and_order_change_no_fault(
        (events, shuffled) in events().prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle())),
        size in 1_usize..8,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for query in CASTS {
                let meter = meter(query).await;
                let whole = meter.partial(batch(&events)).await.unwrap();
                let whole = meter.finish(&[whole]).await.unwrap();
                let mut states = Vec::new();
                for part in shuffled.chunks(size) {
                    let part = meter.partial(batch(part)).await.unwrap();
                    let pane = meter.finish(&[part]).await.unwrap();
                    states.push(meter.states_of(&pane).unwrap());
                }
                let merged = meter.finish(&states).await.unwrap();
                prop_assert_eq!(&merged, &whole);
            }
            Ok(())
        })?;
    }
}

/// An argument that fails on a model that is no number, or on a large number, under what leaves that event out.
const SHIELDED: [&str; 6] = [
    "SUM(CAST(model AS BIGINT)) FILTER (WHERE output = 1) AS x FROM llm",
    "SUM(CASE WHEN output = 1 THEN CAST(model AS BIGINT) END) AS x FROM llm",
    "SUM(CAST(model AS BIGINT)) AS x FROM llm WHERE output = 1",
    "MAX(CAST(model AS BIGINT) * 1 + 0) FILTER (WHERE output = 1 AND input > 0) AS x FROM llm",
    "SUM(CAST(model AS BIGINT)) FILTER (WHERE output = 1) + 0 * COUNT(*) AS x FROM llm",
    "SUM(CASE WHEN output = 2 THEN 0 WHEN output = 1 THEN CAST(model AS BIGINT) ELSE 0 END) FILTER (WHERE output < 3) AS x
     FROM llm",
];

#[tokio::test]
async fn what_is_left_out_makes_nothing_fail() {
    let events = [
        cast(0, "a", "7", 1),
        cast(1, "a", "seven", 2),
        cast(2, "a", "", 3),
        cast(3, "b", "8", 1),
    ];
    for select in SHIELDED {
        let meter = meter(&format!("SELECT subject, {select} GROUP BY subject")).await;
        let states = meter.partial(batch(&events)).await.unwrap();
        let pane = meter.finish(&[states]).await.unwrap();
        assert_eq!(
            of(&pane, &["subject", "x", "error"]),
            ["a 7", "b 8"],
            "{select}"
        );
        // The audit reads the same SQL as a batch.
        let context = crate::session::context();
        context.register_batch("llm", batch(&events)).unwrap();
        let rows = context.sql(&meter.batch_query().unwrap()).await.unwrap();
        let rows = rows.sort_by(vec![datafusion::prelude::col("subject")]);
        let rows = rows.unwrap().collect().await.unwrap();
        let rows: Vec<String> = rows
            .iter()
            .flat_map(|rows| of(rows, &["subject", "x"]))
            .collect();
        assert_eq!(rows, ["a 7", "b 8"], "{select}");
    }
}

#[tokio::test]
async fn what_is_not_left_out_still_fails() {
    let events = [
        cast(0, "a", "7", 1),
        cast(1, "a", "seven", 1),
        cast(2, "b", "8", 1),
    ];
    for select in SHIELDED {
        let meter = meter(&format!("SELECT subject, {select} GROUP BY subject")).await;
        let states = meter.partial(batch(&events)).await.unwrap();
        let pane = meter.finish(&[states]).await.unwrap();
        let rows = of(&pane, &["subject", "x", "error"]);
        assert!(
            rows[0].starts_with("a  an event cannot be measured: "),
            "{rows:?}"
        );
        assert_eq!(rows[1], "b 8", "{select}");
    }
}

#[tokio::test]
async fn a_filter_that_fails_puts_its_group_in_error() {
    let query = "SELECT subject, SUM(input) FILTER (WHERE CAST(model AS BIGINT) > 0) AS x FROM llm GROUP BY subject";
    let meter = meter(query).await;
    let events = [cast(0, "a", "seven", 1), cast(1, "b", "8", 1)];
    let states = meter.partial(batch(&events)).await.unwrap();
    let pane = meter.finish(&[states]).await.unwrap();
    let rows = of(&pane, &["subject", "x", "error"]);
    assert!(
        rows[0].starts_with("a  an event cannot be measured: "),
        "{rows:?}"
    );
    assert_eq!(rows[1], "b 1");
}
