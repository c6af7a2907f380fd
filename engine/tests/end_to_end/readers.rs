//! Readers that are not ours find the same sums in our tables.

use crate::world::{TOKENS, World};
use std::env;
use tokio::process::Command;
use tollgate::generator::{Load, Workload};

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
    let world = World::new(TOKENS).await;
    let mut workload = Workload::new(Load {
        seed: 3,
        events: 20_000,
        start_us: 1_760_000_000_000_000,
        events_per_second: 5,
    });
    let mut lines = Vec::new();
    workload.write(20_000, &mut lines);
    lines.extend_from_slice(b"\nnot an event");
    std::fs::write(world.path("events.ndjson"), lines).unwrap();
    world.cli().publish(&world.path("events.ndjson"), 100).await;
    let summary = world
        .cli()
        .with("TOLLGATE_SOURCE_BATCH_BYTES", "200kB")
        .with("TOLLGATE_FLUSH_MAX_BYTES", "200kB")
        .run_to_end()
        .await;
    assert_eq!(summary.of("rejected"), 1);

    let events = "SELECT count(*), sum(llm_completion['input_tokens']), \
                  sum(llm_completion['output_tokens']) FROM events WHERE status IN ('ok', 'late')";
    let panes = "SELECT sum(calls), sum(input), sum(output) FROM tokens";
    let Some(rows) = outside(&world, "lake", &[events, panes]).await else {
        return;
    };
    let totals = workload.totals();
    let sums = format!(
        "{} {} {}",
        totals.events, totals.input_tokens, totals.output_tokens
    );
    let [delta, duck] = ["deltalake", "duckdb"].map(|tool| format!("{tool} {sums}"));
    let expected = [delta.clone(), delta, duck.clone(), duck];
    assert_eq!(rows, expected);
    // They find the same in merged files.
    let said = world.cli().succeed(&["maintain"]).await;
    assert!(!said.starts_with("events: 0 files"), "{said}");
    let merged = outside(&world, "lake", &[events, panes]).await;
    assert_eq!(merged.unwrap_or_default(), expected);
}
