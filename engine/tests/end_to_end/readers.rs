//! Readers that are not ours find the same sums in our tables.

use crate::world::{TOKENS, World};
use std::{collections::BTreeSet, env};
use tokio::process::Command;
use tollgate::cli::demo::generator::{Load, Workload};

/// Which models each subject uses: a measure whose state is a list.
const MODELS: &str = "
CREATE METER models WITH (window = '1 hour') AS
SELECT subject, COUNT(DISTINCT model) AS models FROM llm_completion GROUP BY subject;
";

/// Prints the rows of each query: first as delta-rs reads the tables, then as DuckDB reads the files that
/// the logs name. Not every file of `events` has every event type. A meter's table goes by the meter's name.
const SCRIPT: &str = r#"
import os
import sys
import duckdb
from deltalake import DeltaTable, QueryBuilder

lake, *queries = sys.argv[1:]
tables = {"events": DeltaTable(lake + "/events")}
for name in os.listdir(lake + "/meters"):
    tables[name] = DeltaTable(lake + "/meters/" + name)
delta, duck = QueryBuilder(), duckdb.connect()
duck.sql("SET TimeZone = 'UTC'")
for name, table in tables.items():
    delta = delta.register(name, table)
    duck.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({table.file_uris()!r}, union_by_name = true)")
for query in queries:
    table = delta.execute(query).read_all()
    for row in range(table.num_rows):
        print("deltalake", *(table[column][row].as_py() for column in range(table.num_columns)))
for query in queries:
    for row in duck.sql(query).fetchall():
        print("duckdb", *row)
"#;

/// The same as Polars reads the tables. In its SQL a field of a struct is written with a point.
const POLARS: &str = r#"
import os
import re
import sys
import polars
from deltalake import DeltaTable

lake, *queries = sys.argv[1:]
tables = {"events": lake + "/events"}
for name in os.listdir(lake + "/meters"):
    tables[name] = lake + "/meters/" + name
frames = polars.SQLContext()
for name, place in tables.items():
    frames.register(name, polars.scan_delta(DeltaTable(place)))
for query in queries:
    query = re.sub(r"(\w+)\['(\w+)'\]", r"\1.\2", query)
    for row in frames.execute(query, eager=True).rows():
        print("polars", *row)
"#;

/// The rows of each query, as delta-rs and DuckDB find them in the lake `lake`, each begun by the tool's name.
/// `None`, and a line that says so, where these tools are missing.
pub(crate) async fn outside(world: &World, lake: &str, queries: &[&str]) -> Option<Vec<String>> {
    read(world, SCRIPT, lake, queries).await
}

/// The same as Polars finds them.
async fn in_polars(world: &World, lake: &str, queries: &[&str]) -> Option<Vec<String>> {
    read(world, POLARS, lake, queries).await
}

async fn read(world: &World, script: &str, lake: &str, queries: &[&str]) -> Option<Vec<String>> {
    let Some(python) = env::var_os("TOLLGATE_READERS").filter(|python| !python.is_empty()) else {
        println!("skipped: TOLLGATE_READERS names no python with duckdb, deltalake and polars");
        return None;
    };
    world.write("read.py", script);
    let ran = Command::new(python)
        .arg(world.path("read.py"))
        .arg(world.path(lake))
        .args(queries)
        .output()
        .await
        .unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{stderr}");
    let text = String::from_utf8(ran.stdout).unwrap();
    Some(text.lines().map(str::to_owned).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_delta_rs_and_polars_read_the_same_sums() {
    let world = World::new(&format!("{TOKENS}{MODELS}")).await;
    let mut workload = Workload::new(Load {
        seed: 3,
        events: 20_000,
        start_us: 1_760_000_000_000_000,
        events_per_second: 5,
    });
    let mut lines = Vec::new();
    workload.write(20_000, &mut lines);
    let pairs: BTreeSet<[String; 2]> = lines.split(|byte| *byte == b'\n').map(pair).collect();
    lines.extend_from_slice(b"\nnot an event");
    std::fs::write(world.path("events.ndjson"), lines).unwrap();
    world.cli().publish(&world.path("events.ndjson"), 100).await;
    let summary = world
        .cli()
        .with("TOLLGATE_SOURCE_BATCH_BYTES", "200kB")
        .with("TOLLGATE_FLUSH_MAX_BYTES", "1kB")
        .run_to_end()
        .await;
    assert_eq!(summary.of("rejected"), 1);

    let events = "SELECT count(*), sum(llm_completion['input_tokens']), \
                  sum(llm_completion['output_tokens']) FROM events WHERE status IN ('ok', 'late')";
    let panes = "SELECT sum(calls), sum(input), sum(output) FROM tokens";
    let listed = "SELECT count(*), count(DISTINCT subject), count(DISTINCT model) \
                  FROM (SELECT DISTINCT subject, unnest(models__state0) AS model FROM models)";
    let queries = [events, panes, listed];
    let Some(rows) = outside(&world, "lake", &queries).await else {
        return;
    };
    let totals = workload.totals();
    let sums = format!(
        "{} {} {}",
        totals.events, totals.input_tokens, totals.output_tokens
    );
    let different = |part: usize| {
        pairs
            .iter()
            .map(|pair| &pair[part])
            .collect::<BTreeSet<_>>()
    };
    let (subjects, models) = (different(0).len(), different(1).len());
    let pairs = format!("{} {subjects} {models}", pairs.len());
    let expected: Vec<String> = ["deltalake", "duckdb"]
        .into_iter()
        .flat_map(|tool| [&sums, &sums, &pairs].map(|row| format!("{tool} {row}")))
        .collect();
    assert_eq!(rows, expected);
    let of_polars = [&sums, &sums].map(|row| format!("polars {row}"));
    let polars = in_polars(&world, "lake", &queries[..2]).await;
    assert_eq!(polars.unwrap_or_default(), of_polars);
    // They find the same in merged files.
    let said = world.cli().succeed(&["maintain"]).await;
    assert!(!said.starts_with("events: 0 files"), "{said}");
    let merged = outside(&world, "lake", &queries).await;
    assert_eq!(merged.unwrap_or_default(), expected);
    let polars = in_polars(&world, "lake", &queries[..2]).await;
    assert_eq!(polars.unwrap_or_default(), of_polars);
}

/// 30 event types of 18 columns each, which is more than one file has, and a meter.
fn thirty_types() -> String {
    let columns: Vec<String> = (0..18).map(|column| format!("n{column} BIGINT")).collect();
    let columns = columns.join(", ");
    let of_type = |number: u64| {
        format!("CREATE EVENT TYPE type_{number} ({columns}) WITH (type = 'type.{number}');\n")
    };
    let types: String = (0..30).map(of_type).collect();
    types
        + "CREATE METER calls WITH (window = '1 hour') AS
           SELECT subject, SUM(n0) AS n FROM type_29 GROUP BY subject;"
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_event_types_are_one_table_for_every_reader() {
    let world = World::new(&thirty_types()).await;
    // The last type comes in the second half only: the files before do not have it.
    let kind = |event: u64| match event % 30 {
        29 if event < 1_500 => 0,
        number => number,
    };
    let line = |event: u64| {
        let (kind, other) = (kind(event), event * 2);
        format!(
            r#"{{"specversion":"1.0","id":"{event}","source":"s","type":"type.{kind}","subject":"c","time":"2026-07-31T10:00:00Z","data":{{"n0":{event},"n17":{other}}}}}"#
        )
    };
    let lines: Vec<String> = (0..3_000).map(line).collect();
    std::fs::write(world.path("events.ndjson"), lines.join("\n")).unwrap();
    world.cli().publish(&world.path("events.ndjson"), 100).await;
    let flushes = [
        ("TOLLGATE_SOURCE_BATCH_BYTES", "100kB"),
        ("TOLLGATE_FLUSH_MAX_BYTES", "1kB"),
    ];
    let mut run = world.cli();
    for (name, value) in flushes {
        run = run.with(name, value);
    }
    assert_eq!(run.run_to_end().await.of("counted"), 3_000);

    let of_type = |number: u64| {
        let events = (0..3_000).filter(move |event| kind(*event) == number);
        let (count, sum) = events.fold((0, 0), |(count, sum), event| (count + 1, sum + event));
        format!("{number} {count} {sum} {}", sum * 2)
    };
    let query = |number: u64| {
        format!(
            "SELECT {number}, count(type_{number}['n0']), sum(type_{number}['n0']), sum(type_{number}['n17']) FROM events"
        )
    };
    let mut queries = vec!["SELECT count(*), count(DISTINCT \"type\") FROM events".to_owned()];
    queries.extend((0..30).map(query));
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let rows = ["3000 30".to_owned()].into_iter();
    let rows: Vec<String> = rows.chain((0..30).map(of_type)).collect();
    let expected = ["deltalake", "duckdb"].iter();
    let expected: Vec<String> = expected
        .flat_map(|tool| rows.iter().map(move |row| format!("{tool} {row}")))
        .collect();
    for _ in 0..2 {
        let Some(found) = outside(&world, "lake", &queries).await else {
            return;
        };
        assert_eq!(found, expected);
        let of_polars = rows.iter().map(|row| format!("polars {row}"));
        let polars = in_polars(&world, "lake", &queries).await;
        assert_eq!(polars.unwrap_or_default(), of_polars.collect::<Vec<_>>());
        // Ours, from the table and from the meter.
        let sum = "SELECT CAST(SUM(n0) AS BIGINT) AS n FROM type_29";
        let of_29 = of_type(29);
        let ours = world.cli().succeed(&["query", sum]).await;
        assert!(ours.contains(of_29.split(' ').nth(2).unwrap()), "{ours}");
        let audited = world.cli().succeed(&["audit"]).await;
        assert!(audited.contains("0 differ"), "{audited}");
        // They find the same in merged files.
        world.cli().succeed(&["maintain"]).await;
    }
}

/// Subject and model of an event.
fn pair(line: &[u8]) -> [String; 2] {
    let event: serde_json::Value = serde_json::from_slice(line).unwrap();
    [&event["subject"], &event["data"]["model"]].map(|text| text.as_str().unwrap().to_owned())
}
