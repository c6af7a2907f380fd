//! Readers that are not ours find the same sums in our tables.

use crate::world::{TOKENS, World};
use std::{collections::BTreeSet, env};
use tokio::process::Command;
use tollgate::generator::{Load, Workload};

/// Which models each subject uses: a measure whose state is a list.
const MODELS: &str = "
CREATE METER models WITH (window = '1 hour') AS
SELECT subject, COUNT(DISTINCT model) AS models FROM llm_completion GROUP BY subject;
";

/// Prints count, input and output of counted events, then of the meter's panes, then how many pairs of
/// subject and model the lists of all panes hold: once as delta-rs reads the table, once as DuckDB reads
/// the files that the log names.
const SCRIPT: &str = r#"
import sys
import duckdb
from deltalake import DeltaTable, QueryBuilder

EVENTS = """SELECT count(*), sum(llm_completion['input_tokens']), sum(llm_completion['output_tokens'])
            FROM events WHERE status IN ('ok', 'late')"""
PANES = "SELECT sum(calls), sum(input), sum(output) FROM tokens"
PAIRS = """SELECT count(*), count(DISTINCT subject), count(DISTINCT model)
           FROM (SELECT DISTINCT subject, unnest(models__state0) AS model FROM models)"""

lake = sys.argv[1]
names = {"events": "/events", "tokens": "/meters/tokens", "models": "/meters/models"}
tables = {name: DeltaTable(lake + path) for name, path in names.items()}
delta = QueryBuilder()
for name, table in tables.items():
    delta = delta.register(name, table)
for query in (EVENTS, PANES, PAIRS):
    table = delta.execute(query).read_all()
    print("deltalake", *(table[i][0].as_py() for i in range(3)))
duck = duckdb.connect()
duck.sql("SET TimeZone = 'UTC'")
for name, table in tables.items():
    duck.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({table.file_uris()!r})")
for query in (EVENTS, PANES, PAIRS):
    print("duckdb", *duck.sql(query).fetchall()[0])
"#;

#[tokio::test(flavor = "multi_thread")]
async fn duckdb_and_delta_rs_read_the_same_sums() {
    let Some(python) = env::var_os("TOLLGATE_READERS").filter(|python| !python.is_empty()) else {
        println!("skipped: TOLLGATE_READERS names no python with duckdb and deltalake");
        return;
    };
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
        .with("TOLLGATE_FLUSH_MAX_BYTES", "1MB")
        .run_to_end()
        .await;
    assert_eq!(summary.of("rejected"), 1);

    world.write("read.py", SCRIPT);
    let ran = Command::new(python)
        .arg(world.path("read.py"))
        .arg(world.path("lake"))
        .output()
        .await
        .unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{stderr}");
    let totals = workload.totals();
    let sums = format!(
        "{} {} {}\n",
        totals.events, totals.input_tokens, totals.output_tokens
    );
    let different = |part: usize| {
        pairs
            .iter()
            .map(|pair| &pair[part])
            .collect::<BTreeSet<_>>()
    };
    let (subjects, models) = (different(0).len(), different(1).len());
    let pairs = format!("{} {subjects} {models}\n", pairs.len());
    let expected = format!(
        "deltalake {sums}deltalake {sums}deltalake {pairs}duckdb {sums}duckdb {sums}duckdb {pairs}"
    );
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), expected);
}

/// Subject and model of an event.
fn pair(line: &[u8]) -> [String; 2] {
    let event: serde_json::Value = serde_json::from_slice(line).unwrap();
    [&event["subject"], &event["data"]["model"]].map(|text| text.as_str().unwrap().to_owned())
}
