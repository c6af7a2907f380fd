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
/// the logs name. A meter's table goes by the meter's name.
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
    duck.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({table.file_uris()!r})")
for query in queries:
    table = delta.execute(query).read_all()
    for row in range(table.num_rows):
        print("deltalake", *(table[column][row].as_py() for column in range(table.num_columns)))
for query in queries:
    for row in duck.sql(query).fetchall():
        print("duckdb", *row)
"#;

/// The rows of each query, as both tools find them in the lake `lake`, each begun by the tool's name.
/// `None`, and a line that says so, where these tools are missing.
pub(crate) async fn outside(world: &World, lake: &str, queries: &[&str]) -> Option<Vec<String>> {
    let Some(python) = env::var_os("TOLLGATE_READERS").filter(|python| !python.is_empty()) else {
        println!("skipped: TOLLGATE_READERS names no python with duckdb and deltalake");
        return None;
    };
    world.write("read.py", SCRIPT);
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
async fn duckdb_and_delta_rs_read_the_same_sums() {
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
    // They find the same in merged files.
    let said = world.cli().succeed(&["maintain"]).await;
    assert!(!said.starts_with("events: 0 files"), "{said}");
    let merged = outside(&world, "lake", &queries).await;
    assert_eq!(merged.unwrap_or_default(), expected);
}

/// Subject and model of an event.
fn pair(line: &[u8]) -> [String; 2] {
    let event: serde_json::Value = serde_json::from_slice(line).unwrap();
    [&event["subject"], &event["data"]["model"]].map(|text| text.as_str().unwrap().to_owned())
}
