//! The language of event types through a real server and a real lake: the example of its guide, an event
//! type that is replaced, and events that had none.

use crate::{
    guide::{self, rows},
    readers::outside,
    world::{Cli, TOKENS, World},
};
use arrow::{array::RecordBatch, compute::cast, datatypes::Field};
use datafusion::prelude::SessionContext;
use std::{collections::BTreeMap, sync::Arc};
use tollgate_connectors::{Attempt, CommitId, Table, lake::Lake};

const GUIDE: &str = include_str!("../../../docs/event-types.md");
const LINES: &[(&str, &str)] = &[("Content-Type", "application/x-ndjson")];

fn blocks(language: &str) -> Vec<&'static str> {
    guide::blocks(GUIDE, language)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_to_event_types_tells_what_happens() {
    let (sql, csv) = (blocks("sql"), blocks("csv"));
    let [definitions, quantities, refusals, replaced, both] = sql[..] else {
        panic!("the guide has five blocks of SQL, not {}", sql.len());
    };
    let [before, after] = blocks("json")[..] else {
        panic!("the guide has two lists of events");
    };
    let world = World::new(definitions).await;
    let cli = world.cli();
    world.send(LINES, before.trim_end()).await;
    let summary = cli.run_to_end().await;
    assert_eq!((summary.of("counted"), summary.of("rejected")), (3, 5));
    assert_eq!(cli.query(quantities).await, rows(csv[0]));
    assert_eq!(cli.query(refusals).await, rows(csv[1]));
    let kept = "SELECT COUNT(raw) FROM events WHERE status = 'rejected'";
    assert_eq!(cli.query(kept).await, [["5"]]);

    world.write("definitions/more.sql", replaced);
    world.send(LINES, after.trim_end()).await;
    assert_eq!(cli.run_to_end().await.of("counted"), 1);
    assert_eq!(cli.query(both).await, rows(csv[2]));
    cli.audit().await;
}

/// An event at noon; without a time when it is to happen as it is stored.
fn event(id: &str, kind: &str, time: Option<&str>, data: &str) -> String {
    let time = time.map_or(String::new(), |time| format!(r#""time":"{time}","#));
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"{kind}","subject":"u",{time}"data":{data}}}"#
    )
}

const NOON: Option<&str> = Some("2026-10-01T12:00:00Z");

const CALLS: &str = "
CREATE EVENT TYPE call (n BIGINT NOT NULL, region VARCHAR NOT NULL) WITH (type = 'call');
CREATE METER calls WITH (window = '1 hour') AS
SELECT subject, region, SUM(n) AS n FROM call GROUP BY subject, region;
";

const REPLACED: &str = "
CREATE OR REPLACE EVENT TYPE call (
    n BIGINT NOT NULL CHECK (n < 10), region VARCHAR, seats BIGINT NOT NULL DEFAULT 1, tags VARCHAR[]
) WITH (type = 'call');
CREATE METER seats WITH (window = '1 hour') AS
SELECT subject, SUM(seats) AS seats, COUNT(seats) AS known, COUNT(*) AS calls,
       SUM(array_length(tags)) AS tags
FROM call GROUP BY subject;
";

#[tokio::test(flavor = "multi_thread")]
async fn events_of_both_definitions_are_one_relation() {
    let world = World::new(CALLS).await;
    let cli = world.cli();
    for (id, data) in [
        ("1", r#"{"n":1,"region":"eu"}"#),
        ("2", r#"{"n":20,"region":"eu"}"#),
    ] {
        world.send(&[], &event(id, "call", NOON, data)).await;
    }
    assert_eq!(cli.run_to_end().await.of("counted"), 2);

    world.write("definitions/replaced.sql", REPLACED);
    // Before the lake has the new columns they can be asked for.
    let relation = "SELECT n, region, seats, array_length(tags) FROM call ORDER BY sequence";
    let old = [["1", "eu", "", ""], ["20", "eu", "", ""]];
    assert_eq!(cli.query(relation).await, old);
    let seats = "SELECT seats, known, calls, tags FROM seats";
    assert_eq!(cli.query(seats).await, [["", "0", "2", ""]]);
    for (id, data) in [
        // It claims no id, so it can be corrected.
        ("3", r#"{"n":10}"#),
        ("3", r#"{"n":3}"#),
        ("4", r#"{"n":4,"region":"eu","seats":5,"tags":["x","y"]}"#),
    ] {
        world.send(&[], &event(id, "call", NOON, data)).await;
    }
    let summary = cli.run_to_end().await;
    assert_eq!((summary.of("counted"), summary.of("rejected")), (2, 1));
    assert_eq!(
        cli.query(relation).await,
        [old[0], old[1], ["3", "", "1", ""], ["4", "eu", "5", "2"]]
    );
    let calls = "SELECT region, n FROM calls ORDER BY n";
    assert_eq!(cli.query(calls).await, [["", "3"], ["eu", "25"]]);
    assert_eq!(cli.query(seats).await, [["6", "2", "4", "2"]]);
    cli.audit().await;

    let counted = "SELECT count(*), sum(call['n']), sum(call['seats']), sum(array_length(call['tags'])), \
                   count(call['region']) FROM events WHERE status IN ('ok', 'late')";
    if let Some(rows) = outside(&world, "lake", &[counted]).await {
        assert_eq!(rows, ["deltalake 4 28 6 2 3", "duckdb 4 28 6 2 3"]);
    }
    refused_by_the_lake(&world, &cli).await;
}

/// A definition that lost a column, or changed one, without saying that it replaces.
async fn refused_by_the_lake(world: &World, cli: &Cli) {
    std::fs::remove_file(world.path("definitions/replaced.sql")).unwrap();
    for (columns, says) in [
        (
            "n BIGINT, region VARCHAR, tags VARCHAR[]",
            "error: table `events`: it has a column `call.seats` that the definitions do not have\n  \
             hint: put it back: what is stored stays readable, and it is NULL where it is not sent; or set \
             another lake url\n",
        ),
        (
            "n DECIMAL(20, 0), region VARCHAR, seats BIGINT, tags VARCHAR[]",
            "error: table `events`: its column `call.n` is Int64, not Decimal128(20, 0)\n  hint: give it back \
             its type and read the field into a column of another name too; or set another lake url\n",
        ),
    ] {
        let text = format!("CREATE EVENT TYPE call ({columns}) WITH (type = 'call');");
        world.write("definitions/all.sql", &text);
        let ran = cli.run(&["run", "--until-end"]).await;
        assert_eq!(ran.code, Some(1), "{ran:#?}");
        assert!(ran.stderr.ends_with(says), "{}", ran.stderr);
    }
}

const GPU: &str = "
CREATE EVENT TYPE gpu (s DECIMAL(9, 3) NOT NULL) WITH (type = 'gpu.seconds');
CREATE METER gpu_seconds WITH (window = '1 hour') AS
SELECT subject, SUM(s) AS s, COUNT(*) AS events FROM gpu GROUP BY subject;
";

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_type_that_is_defined_later_are_counted_once() {
    let world = World::new(TOKENS).await;
    let cli = world.cli();
    let gpu = |id, time, data| event(id, "gpu.seconds", time, data);
    world.send(&[], &gpu("1", NOON, r#"{"s":1.5}"#)).await;
    let other = event("1", "other", NOON, "{}").replace("\"s\"", "\"t\"");
    let lines = format!("{}\n{other}", gpu("2", NOON, r#"{"s":2}"#));
    world.send(LINES, &lines).await;
    // Neither says when it happened.
    let batch = [("Content-Type", "application/cloudevents-batch+json")];
    let pretty = gpu("3", None, "{\n  \"s\": 4\n}");
    world.send(&batch, &format!("[{pretty}]")).await;
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "4"),
        ("ce-source", "s"),
        ("ce-type", "gpu.seconds"),
        ("ce-subject", "u"),
        ("ce-trace", "abc"),
    ];
    world.send(&binary, r#"{"s":8}"#).await;
    // A repeat, and an id that comes with other content.
    world.send(&[], &gpu("1", NOON, r#"{"s":1.5}"#)).await;
    world.send(&[], &gpu("2", NOON, r#"{"s":100}"#)).await;
    assert_eq!(cli.run_to_end().await.of("unmatched"), 7);
    let nothing = "0 events to publish again\n6 events still have no event type\n";
    let dry_run = ["replay", "--unmatched", "--dry-run"];
    assert_eq!(cli.succeed(&dry_run).await, nothing);

    world.write("definitions/gpu.sql", GPU);
    assert_eq!(
        cli.succeed(&dry_run).await,
        "5 events to publish again\n  gpu.seconds: 5\n1 events still have no event type\n"
    );
    let only = [&dry_run[..], &["--type", "other"]].concat();
    assert_eq!(
        cli.succeed(&only).await,
        "0 events to publish again\n1 events still have no event type\n"
    );
    let total = "SELECT SUM(s) AS s, SUM(events) AS events FROM gpu_seconds";
    assert_eq!(cli.query(total).await, [["", ""]]);
    // Before it is metered again, a second replay only repeats.
    for _ in 0..2 {
        assert_eq!(
            cli.succeed(&["replay", "--unmatched"]).await,
            "5 events published again, 5 messages acknowledged, 0 sent again\n  gpu.seconds: 5\n\
             1 events still have no event type\n"
        );
    }
    let summary = cli.run_to_end().await;
    assert_eq!((summary.of("counted"), summary.of("repeats")), (4, 4));
    assert_eq!(summary.of("conflicts"), 2);
    assert_eq!(cli.query(total).await, [["15.500", "4"]]);
    let times = "SELECT event_id, COUNT(*), COUNT(DISTINCT event_time) FROM events \
                 WHERE event_id IN ('3', '4') GROUP BY event_id ORDER BY event_id";
    assert_eq!(cli.query(times).await, [["3", "2", "1"], ["4", "2", "1"]]);
    assert_eq!(
        cli.succeed(&["replay", "--unmatched"]).await,
        "0 events published again, 0 messages acknowledged, 0 sent again\n\
         1 events still have no event type\n"
    );
    cli.audit().await;

    let files = cli.with("TOLLGATE_SOURCE_KIND", "files");
    let ran = files.run(&["replay", "--unmatched"]).await;
    assert_eq!(ran.code, Some(2));
    assert_eq!(
        ran.stderr,
        "error: source.kind is `files`, and replay publishes to a stream: a lake does not read a file \
         twice, so define the event type and run again with another lake.url, which reads all of it\n"
    );
}

/// A lake of an older binary: `events` lacks the columns that were declared since, the event type that is new, and it has
/// an event that was rejected because a meter failed on it, as binaries did then.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_an_older_binary_rejected_is_replayed_into_columns_that_are_newer() {
    let old = "CREATE EVENT TYPE call (n BIGINT NOT NULL) WITH (type = 'call');
               CREATE METER calls WITH (window = '1 hour') AS SELECT subject, SUM(n) AS n FROM call GROUP BY subject;";
    let world = World::new(old).await;
    let cli = world.cli();
    world
        .send(&[], &event("1", "call", NOON, r#"{"n":1}"#))
        .await;
    cli.run_to_end().await;
    reject(
        &world,
        &event("2", "call", NOON, r#"{"n":2,"region":"eu"}"#),
    )
    .await;
    let rejected = "SELECT event_id, status FROM events ORDER BY event_id";
    assert_eq!(cli.query(rejected).await, [["1", "ok"], ["2", "rejected"]]);

    let region = "CREATE OR REPLACE EVENT TYPE call (n BIGINT NOT NULL, region VARCHAR) WITH (type = 'call');
                  CREATE EVENT TYPE other (n BIGINT) WITH (type = 'other');";
    world.write("definitions/all.sql", &format!("{old}{region}"));
    let replay = ["replay", "--rejected"];
    let replayed = "1 events published again, 1 messages acknowledged, 0 sent again\n  call: 1\n\
                    0 events still have no event type\n";
    assert_eq!(cli.succeed(&replay).await, replayed);
    assert_eq!(cli.run_to_end().await.of("counted"), 1);
    let counted = "SELECT event_id, n, region FROM call ORDER BY event_id";
    assert_eq!(cli.query(counted).await, [["1", "1", ""], ["2", "2", "eu"]]);
    assert_eq!(cli.query("SELECT SUM(n) FROM calls").await, [["3"]]);
    // It is counted now, so nothing is left to replay.
    let nothing = "0 events published again, 0 messages acknowledged, 0 sent again\n0 events still have no event type\n";
    assert_eq!(cli.succeed(&replay).await, nothing);
    cli.audit().await;
}

/// Adds a rejected event to `events` as it is, beside what is there: in the columns that the table has.
async fn reject(world: &World, payload: &str) {
    let lake = Lake::open("file://./lake", &world.path("")).await.unwrap();
    let mut events = lake.existing("events").await.unwrap().unwrap();
    let context = SessionContext::new();
    context
        .register_table("events", events.provider().unwrap())
        .unwrap();
    let schema = events.provider().unwrap().schema();
    let replaced = |field: &Field| match field.name().as_str() {
        "sequence" => "CAST(1000 AS BIGINT)".to_owned(),
        "event_id" => "'2'".to_owned(),
        "status" => "'rejected'".to_owned(),
        "reason" => "'meter `calls` failed in the window that starts at any: overflow'".to_owned(),
        "raw" => format!("CAST('{payload}' AS BYTEA)"),
        "content_hash" => "content_hash + 1".to_owned(),
        "call" => "NULL".to_owned(),
        name => format!("\"{name}\""),
    };
    let columns: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| format!("{} AS \"{}\"", replaced(field), field.name()))
        .collect();
    let query = format!("SELECT {} FROM events", columns.join(", "));
    let rows = context.sql(&query).await.unwrap().collect().await.unwrap();
    let rows = rows.iter().map(|rows| {
        let columns = rows.columns().iter().zip(schema.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()).unwrap());
        RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
    });
    let rows: Vec<RecordBatch> = rows.collect();
    let attempt = Attempt {
        commit_id: CommitId("older".into()),
        marks: BTreeMap::new(),
        info: BTreeMap::new(),
    };
    let staged = events.stage(&attempt.commit_id, &rows).await.unwrap();
    events.commit(&attempt, &staged).await.unwrap();
}
