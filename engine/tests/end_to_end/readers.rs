//! Readers that are not ours find the same sums in our tables.

use crate::world::{TOKENS, World};
use std::{env, ffi::OsStr};
use tokio::process::Command;
use tollgate::generator::{Load, Workload};

/// Prints count, input and output of counted events, then of the meter's panes: once as delta-rs reads
/// the table, once as DuckDB reads the files that the log names.
const SCRIPT: &str = r#"
import sys
import duckdb
from deltalake import DeltaTable, QueryBuilder

EVENTS = """SELECT count(*), sum(llm_completion['input_tokens']), sum(llm_completion['output_tokens'])
            FROM events WHERE status IN ('ok', 'late')"""
PANES = "SELECT sum(calls), sum(input), sum(output) FROM tokens"

lake = sys.argv[1]
events, tokens = DeltaTable(lake + "/events"), DeltaTable(lake + "/meters/tokens")
delta = QueryBuilder().register("events", events).register("tokens", tokens)
for query in (EVENTS, PANES):
    table = delta.execute(query).read_all()
    print("deltalake", *(table[i][0].as_py() for i in range(3)))
duck = duckdb.connect()
duck.sql("SET TimeZone = 'UTC'")
for name, table in (("events", events), ("tokens", tokens)):
    duck.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({table.file_uris()!r})")
for query in (EVENTS, PANES):
    print("duckdb", *duck.sql(query).fetchall()[0])
"#;

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_and_delta_rs_read_the_same_sums() {
    let Some(python) = env::var_os("TOLLGATE_READERS").filter(|python| !python.is_empty()) else {
        println!("skipped: TOLLGATE_READERS names no python with duckdb and deltalake");
        return;
    };
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

    let totals = workload.totals();
    let sums = format!(
        "{} {} {}\n",
        totals.events, totals.input_tokens, totals.output_tokens
    );
    let expected = format!("deltalake {sums}deltalake {sums}duckdb {sums}duckdb {sums}");
    world.write("read.py", SCRIPT);
    assert_eq!(read(&world, &python).await, expected);
    // They find the same in merged files.
    let said = world.cli().succeed(&["maintain"]).await;
    assert!(!said.starts_with("events: 0 files"), "{said}");
    assert_eq!(read(&world, &python).await, expected);
}

/// What the script prints.
async fn read(world: &World, python: &OsStr) -> String {
    let ran = Command::new(python)
        .arg(world.path("read.py"))
        .arg(world.path("lake"))
        .output()
        .await
        .unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{stderr}");
    String::from_utf8(ran.stdout).unwrap()
}
