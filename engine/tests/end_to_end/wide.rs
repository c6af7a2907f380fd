//! A lake of many event types.

use crate::world::World;

const TYPES: u64 = 100;
/// More than a batch that is read back has.
const EVENTS: u64 = 12_000;

/// 100 event types with a meter each, of a whole day.
fn definitions() -> String {
    let of_type = |number: u64| {
        format!(
            "CREATE EVENT TYPE type_{number} (n BIGINT NOT NULL, a VARCHAR, b BIGINT, c DECIMAL(18, 9), d BOOLEAN, e VARCHAR)
                 WITH (type = 'type.{number}');
             CREATE METER meter_{number} WITH (window = '1 day', lateness = '1 hour') AS
             SELECT subject, SUM(n) AS n, COUNT(*) AS calls FROM type_{number} GROUP BY subject;\n"
        )
    };
    (0..TYPES).map(of_type).collect()
}

fn kind(event: u64) -> u64 {
    (event * 7_919) % TYPES
}

fn line(event: u64) -> String {
    let (kind, subject) = (kind(event), event % 3);
    format!(
        r#"{{"specversion":"1.0","id":"{event}","source":"s","type":"type.{kind}","subject":"c{subject}","time":"2026-07-31T10:00:00Z","data":{{"n":{event},"a":"x"}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_types_whose_windows_are_open_go_on_after_a_crash_with_exact_totals() {
    let world = World::new(&definitions()).await;
    let cli = world.cli();
    let publish = async |events: std::ops::Range<u64>| {
        let lines: Vec<String> = events.map(line).collect();
        world.write("events.ndjson", &lines.join("\n"));
        cli.publish(&world.path("events.ndjson"), 100).await;
    };
    publish(0..EVENTS).await;
    let quick = cli
        .with("TOLLGATE_SOURCE_BATCH_BYTES", "200kB")
        .with("TOLLGATE_FLUSH_MAX_BYTES", "200kB");
    // A flush has two files, for there are many columns: it dies in the third flush.
    quick.crash("events/uploaded:5", &["run"]).await;
    // Its windows are open: a start meters them again, and goes on.
    publish(EVENTS..EVENTS + 1_000).await;
    assert_eq!(cli.run(&["run", "--until-end"]).await.code, Some(0));

    let totals = (0..TYPES).map(|number| {
        format!("SELECT {number} AS number, SUM(n) AS n, SUM(calls) AS calls FROM meter_{number}")
    });
    let totals: Vec<String> = totals.collect();
    let totals = format!(
        "SELECT * FROM ({}) ORDER BY number",
        totals.join(" UNION ALL ")
    );
    let of_type = |number: u64| {
        let events = (0..EVENTS + 1_000).filter(move |event| kind(*event) == number);
        let (n, calls) = events.fold((0, 0), |(n, calls), event| (n + event, calls + 1));
        vec![number.to_string(), n.to_string(), calls.to_string()]
    };
    let expected: Vec<Vec<String>> = (0..TYPES).map(of_type).collect();
    assert_eq!(cli.query(&totals).await, expected);
    cli.audit().await;
}
