//! What a hint proposes is planned, and gives the exact value.

use super::*;

/// Plans and measures, and returns `subject` and the measures of the only window.
async fn measured(query: &str, events: &[Event]) -> Vec<String> {
    let meter = meter(query).await;
    let states = meter.partial(batch(events)).await.unwrap();
    let pane = meter.finish(&[states]).await.unwrap();
    let first = pane.schema().index_of("subject").unwrap();
    let last = pane.schema().index_of("window_end").unwrap();
    let names =
        std::iter::once("subject").chain(meter.measures().iter().map(|f| f.name().as_str()));
    assert!(last < first);
    let columns: Vec<usize> = names
        .map(|name| pane.schema().index_of(name).unwrap())
        .collect();
    shown(&pane.project(&columns).unwrap())
}

/// `write percentile(x, 0.95)` and the like, for a number x.
#[tokio::test]
async fn calls_are_written_as_the_hints_write_them() {
    let events = [event(0, "a", Some("m"), 3), event(1, "a", Some("m"), 5)];
    for (call, expected) in [
        ("count(distinct input)", "2"),
        ("percentile(input, 0.95)", "5"),
        ("latest(input)", "5"),
        ("first(input)", "3"),
        ("COUNT(*)", "2"),
    ] {
        let query = format!("SELECT subject, {call} AS x FROM llm GROUP BY subject");
        assert_eq!(
            measured(&query, &events).await,
            [format!("a {expected}")],
            "{call}"
        );
    }
    let adds = "SELECT subject, unique_count(input, model IS DISTINCT FROM 'remove') AS x FROM llm GROUP BY subject";
    assert_eq!(measured(adds, &events).await, ["a 2"]);
}

/// Two expressions that differ in a cast alone: `+ 0` and `|| ''` make another of one and keep its value.
#[tokio::test]
async fn a_twin_is_told_apart_without_changing_its_value() {
    let events = [
        event(0, "a", Some("9"), 9_007_199_254_740_993),
        event(1, "a", Some("10"), 1),
    ];
    let numbers = "SELECT subject, SUM(CAST(input AS DECIMAL(38, 2))) AS x, SUM(CAST(input AS BIGINT) + 0) AS y FROM llm
                   GROUP BY subject";
    assert_eq!(
        measured(numbers, &events).await,
        ["a 9007199254740994.00 9007199254740994"]
    );
    let texts = "SELECT subject, MAX(CAST(model AS BIGINT)) AS x, MAX(CAST(model AS VARCHAR) || '') AS y FROM llm GROUP BY subject";
    assert_eq!(measured(texts, &events).await, ["a 10 9"]);
}
