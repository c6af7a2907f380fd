//! Versions of a meter: which events each measures, and what a later one may change.

use super::*;

const FIRST: &str = "SELECT subject, SUM(input) AS tokens FROM llm GROUP BY subject";
const SECOND: &str =
    "SELECT subject, SUM(input + output) AS tokens FROM llm WHERE model = 'm' GROUP BY subject";

/// A meter whose versions have these queries, the second from the start of hour 2 on.
fn versions(first: &str, second: &str) -> MeterDefinition {
    MeterDefinition {
        version: 2,
        effective_from_us: Some(2 * HOUR),
        earlier: vec![definition(first)],
        ..definition(second)
    }
}

async fn plan(definition: &MeterDefinition) -> Result<Meter> {
    Meter::plan(definition, &event_type()).await
}

#[tokio::test]
async fn each_version_measures_the_windows_from_its_start_on() {
    let meter = plan(&versions(FIRST, SECOND)).await.unwrap();
    let mut events = vec![
        event(2 * HOUR - 1, "a", Some("other"), 1),
        event(2 * HOUR, "a", Some("other"), 10),
        event(2 * HOUR, "a", Some("m"), 100),
        event(9 * HOUR, "b", Some("m"), 1000),
    ];
    events[2].4 = Some(5);
    let states = meter.partial(batch(&events)).await.unwrap();
    let panes = meter.finish(&[states]).await.unwrap();
    assert_eq!(
        shown(&panes),
        [
            "1970-01-01T01:00:00Z 1970-01-01T02:00:00Z a 1",
            "1970-01-01T02:00:00Z 1970-01-01T03:00:00Z a 105",
            "1970-01-01T09:00:00Z 1970-01-01T10:00:00Z b 1000",
        ]
    );
    let number = |us| meter.version_at(us).map(|version| version.number);
    assert_eq!(
        [number(i64::MIN), number(HOUR), number(2 * HOUR)],
        [Some(1), Some(1), Some(2)]
    );
}

#[tokio::test]
async fn a_total_merges_the_windows_of_both_versions() {
    let meter = plan(&versions(FIRST, SECOND)).await.unwrap();
    let events = [
        event(HOUR, "a", Some("other"), 1),
        event(3 * HOUR, "a", Some("m"), 100),
        event(3 * HOUR, "a", Some("other"), 7),
    ];
    let states = meter.partial(batch(&events)).await.unwrap();
    let totals = meter.totals(&[states]).await.unwrap();
    assert_eq!(shown(&totals), ["a 101"]);
}

#[tokio::test]
async fn usage_from_before_the_first_version_is_nobodys() {
    let meter = MeterDefinition {
        effective_from_us: Some(2 * HOUR),
        ..definition(FIRST)
    };
    let meter = plan(&meter).await.unwrap();
    let events = [
        event(2 * HOUR - 1, "a", None, 1),
        event(2 * HOUR, "b", None, 10),
    ];
    let states = meter.partial(batch(&events)).await.unwrap();
    let totals = meter.totals(&[states]).await.unwrap();
    assert_eq!(shown(&totals), ["b 10"]);
    let before = meter.partial(batch(&events[..1])).await.unwrap();
    assert_eq!(
        (before.num_rows(), before.schema_ref()),
        (0, meter.state_schema())
    );
    assert!(meter.version_at(2 * HOUR - 1).is_none());
}

#[tokio::test]
async fn what_any_version_reads_is_read() {
    let meter = plan(&versions(FIRST, SECOND)).await.unwrap();
    let read: Vec<&str> = meter.input_columns().collect();
    assert_eq!(read, ["subject", "event_time", "model", "input", "output"]);
}

#[tokio::test]
async fn only_windows_of_the_version_that_fails_are_in_error() {
    let first = "SELECT subject, SUM(input * 1) AS tokens FROM llm GROUP BY subject";
    let second =
        "SELECT subject, SUM(input * 10000000000000000000) AS tokens FROM llm GROUP BY subject";
    let typed = |query: &str| query.replace("input", "CAST(input AS DECIMAL(19, 0))");
    let definition = versions(
        &typed(first).replace("* 1)", "* CAST(1 AS DECIMAL(20, 0)))"),
        &typed(second),
    );
    let meter = plan(&definition).await.unwrap();
    let large = 9_000_000_000_000_000_000;
    let events = [HOUR, 5 * HOUR, 5 * HOUR].map(|at| event(at, "a", None, large));
    let states = meter.partial(batch(&events)).await.unwrap();
    let pane = meter.finish(&[states]).await.unwrap();
    let pane = shown(&pane);
    let of_first = "1970-01-01T01:00:00Z 1970-01-01T02:00:00Z a 9000000000000000000";
    assert!(pane[0].starts_with(of_first), "{pane:?}");
    let of_second = "1970-01-01T05:00:00Z 1970-01-01T06:00:00Z a  ";
    assert!(
        pane[1].starts_with(of_second) && pane[1].contains("sum overflow"),
        "{pane:?}"
    );
}

#[tokio::test]
async fn a_version_has_the_columns_and_aggregates_of_the_one_before() {
    let refusal = async |second: &str| {
        let planned = plan(&versions(FIRST, second)).await;
        planned.unwrap_err().to_string()
    };
    let hint = "\n  hint: a version may change filters and what is aggregated; for other columns create \
                a meter under another name";
    let columns = format!(
        "meters.sql:4:1: meter `tokens`: version 2 does not have the same dimensions, measures and types \
         as version 1, at meters.sql:3:1{hint}"
    );
    for other in [
        "SELECT subject, model, SUM(input) AS tokens FROM llm GROUP BY subject, model",
        "SELECT subject, SUM(input) AS tokens, COUNT(*) AS calls FROM llm GROUP BY subject",
        "SELECT subject, SUM(input) AS usage FROM llm GROUP BY subject",
        "SELECT subject, SUM(cost) AS tokens FROM llm GROUP BY subject",
    ] {
        assert_eq!(refusal(other).await, columns, "{other}");
    }
    let aggregates = format!(
        "meters.sql:4:1: meter `tokens`: version 2 does not make its measures of the same aggregates as \
         version 1, at meters.sql:3:1{hint}"
    );
    let first = "SELECT subject, MEDIAN(input) AS m, SUM(input) + 1 AS n FROM llm GROUP BY subject";
    for other in [
        "SELECT subject, PERCENTILE_CONT(input, 0.9) AS m, SUM(input) + 1 AS n FROM llm GROUP BY subject",
        "SELECT subject, MEDIAN(input) AS m, SUM(input) + 2 AS n FROM llm GROUP BY subject",
    ] {
        let planned = plan(&versions(first, other)).await;
        assert_eq!(planned.unwrap_err().to_string(), aggregates, "{other}");
    }
    let values =
        "SELECT subject, MEDIAN(output) AS m, SUM(output) FILTER (WHERE model = 'm') + 1 AS n
                  FROM llm WHERE model <> 'x' GROUP BY subject";
    assert!(plan(&versions(first, values)).await.is_ok());
}

#[tokio::test]
async fn a_fingerprint_is_that_of_one_version_and_its_start() {
    let both = plan(&versions(FIRST, SECOND)).await.unwrap();
    let prints = |meter: &Meter| -> Vec<Fingerprint> {
        let versions = meter.versions().iter();
        versions.map(|version| version.fingerprint).collect()
    };
    assert_eq!(prints(&both)[..1], prints(&meter(FIRST).await));
    let moved = MeterDefinition {
        effective_from_us: Some(3 * HOUR),
        ..versions(FIRST, SECOND)
    };
    let moved = plan(&moved).await.unwrap();
    assert_eq!(prints(&moved)[0], prints(&both)[0]);
    assert_ne!(prints(&moved)[1], prints(&both)[1]);
}

#[tokio::test]
async fn an_audit_reads_each_window_with_its_own_version() {
    let meter = plan(&versions(FIRST, SECOND)).await.unwrap();
    let events = [
        event(HOUR, "a", Some("other"), 1),
        event(3 * HOUR, "a", Some("m"), 100),
        event(3 * HOUR, "a", Some("other"), 7),
    ];
    let context = crate::session::context();
    context.register_batch("llm", batch(&events)).unwrap();
    let rows = context.sql(&meter.batch_query().unwrap()).await.unwrap();
    let rows = rows.sort_by(vec![datafusion::prelude::col("window_start")]);
    let rows = rows.unwrap().collect().await.unwrap();
    let rows: Vec<String> = rows.iter().flat_map(shown).collect();
    assert_eq!(
        rows,
        ["1970-01-01T01:00:00Z a 1", "1970-01-01T03:00:00Z a 100"]
    );
}
