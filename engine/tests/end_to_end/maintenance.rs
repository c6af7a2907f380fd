//! Maintenance of a lake that is written, read and killed: totals, audit and every row stay.

use crate::world::{Cli, TOKENS, World};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};
use tollgate::cli::demo::generator::{Load, Totals, Workload};
use tollgate_connectors::{Table, lake::Lake};

const START_US: i64 = 1_760_000_000_000_000; // 2025-10-09 08:53:20
const BY_MODEL: &str = "SELECT subject, model, SUM(calls), SUM(input), SUM(output)
    FROM tokens GROUP BY subject, model ORDER BY subject, model";
const ROWS: &str = "SELECT ingest_day, COUNT(*), COUNT(DISTINCT event_id), SUM(sequence), SUM(ordinal),
    COUNT(llm_completion['region']), SUM(llm_completion['input_tokens']), MIN(event_time), MAX(event_time)
    FROM events GROUP BY ingest_day ORDER BY ingest_day";

/// Writes a file of 10,000 events that were stored on a day, and settings that read it in many flushes.
fn source(world: &World, name: &str, day: u64, seed: u64) -> (Cli, Totals) {
    let mut workload = Workload::new(Load {
        seed,
        events: 10_000,
        start_us: START_US,
        events_per_second: 5,
    });
    let mut lines = Vec::new();
    workload.write(10_000, &mut lines);
    let path = world.path(&format!("{name}.ndjson"));
    fs::write(&path, lines).unwrap();
    let stored = UNIX_EPOCH
        + Duration::from_micros(START_US.unsigned_abs())
        + Duration::from_secs(day * 86_400);
    let file = File::options().append(true).open(&path).unwrap();
    file.set_modified(stored).unwrap();
    let cli = world
        .cli()
        .with("TOLLGATE_SOURCE_KIND", "files")
        .with("TOLLGATE_SOURCE_PATH", &format!("{name}.ndjson"))
        .with("TOLLGATE_SOURCE_BATCH_BYTES", "50kB")
        .with("TOLLGATE_FLUSH_MAX_BYTES", "1kB");
    (cli, workload.totals())
}

/// The newest version of a table: its number, and its files.
async fn files(world: &World, table: &str) -> (i64, Vec<String>) {
    let lake = Lake::open_to_read("lake", &world.path("")).await.unwrap();
    let table = lake.existing(table).await.unwrap().unwrap();
    let paths = table.files().iter().map(|file| file.path.clone());
    (table.version(), paths.collect())
}

/// Makes a file old.
fn age(path: &Path) {
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH).unwrap();
}

/// Every file below a folder.
fn stored(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let below = |path: PathBuf| match path.is_dir() {
        true => stored(&path),
        false => vec![path],
    };
    entries.flat_map(|entry| below(entry.path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_tables_hold_the_same_rows() {
    let world = World::new(TOKENS).await;
    let (first, totals) = source(&world, "first", 1, 1);
    let (second, more) = source(&world, "second", 2, 2);
    first.run_to_end().await;
    second.run_to_end().await;
    let cli = world.cli();
    let (version, before) = files(&world, "events").await;
    assert!(before.len() > 80, "{} files", before.len());
    let (rows, by_model) = (cli.query(ROWS).await, cli.query(BY_MODEL).await);
    let counted = rows.iter().map(|row| row[1].parse::<u64>().unwrap());
    assert_eq!(counted.sum::<u64>(), totals.events + more.events);
    assert_eq!(rows.len(), 2, "two days");

    let planned = cli.succeed(&["maintain", "--dry-run"]).await;
    assert!(
        planned.starts_with(&format!("events: {} files would be merged", before.len())),
        "{planned}"
    );
    assert_eq!(files(&world, "events").await, (version, before.clone()));

    // What was never committed goes when it is old.
    let events = world.path("lake/events");
    let orphan = events.join("ingest_day=2025-10-10/part-0-orphan.parquet");
    fs::copy(events.join(&before[0]), &orphan).unwrap();
    age(&orphan);
    let said = cli.succeed(&["maintain"]).await;
    assert!(said.contains("; 1 files ("), "{said}");
    assert!(!orphan.exists());
    assert!(said.contains("\nmeters/tokens: "), "{said}");
    let (_, after) = files(&world, "events").await;
    assert!(after.len() <= 16, "{} files", after.len());
    let of_first_day = after.iter().filter(|path| path.contains("2025-10-10"));
    assert_eq!(of_first_day.count(), 1, "{after:?}");
    let (_, panes) = files(&world, "meters/tokens").await;
    assert!(panes.len() < 32, "{} files", panes.len());
    assert_eq!(cli.query(ROWS).await, rows);
    assert_eq!(cli.query(BY_MODEL).await, by_model);
    cli.audit().await;
    // A shard starts from merged files as it does from others: nothing is counted again.
    assert_eq!(second.run_to_end().await.of("counted"), 0);
    assert_eq!(cli.query(ROWS).await, rows);

    // What was replaced stays for readers.
    let said = cli.succeed(&["maintain", "--table", "events"]).await;
    assert!(
        said.starts_with("events: ") && said.lines().count() == 1,
        "{said}"
    );
    assert!(before.iter().all(|path| events.join(path).exists()));
    assert_eq!(cli.query(ROWS).await, rows);

    let unknown = cli.run(&["maintain", "--table", "invoices"]).await;
    assert_eq!(unknown.code, Some(2), "{unknown:#?}");
    assert!(
        unknown.stderr.starts_with(
            "error: there is no table `invoices` to maintain\n  hint: known tables: `events`, `meters/tokens`"
        ),
        "{unknown:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_maintenance_changes_nothing() {
    let world = World::new(TOKENS).await;
    let (first, _) = source(&world, "first", 1, 1);
    let (second, _) = source(&world, "second", 2, 2);
    first.run_to_end().await;
    second.run_to_end().await;
    let rows = world.cli().query(ROWS).await;
    let by_model = world.cli().query(BY_MODEL).await;
    // Everything is old, and one file was never committed: there is something to do of every kind.
    let lake = world.path("lake");
    let (_, paths) = files(&world, "events").await;
    let orphan = "events/ingest_day=2025-10-10/part-0-orphan.parquet";
    fs::copy(lake.join("events").join(&paths[0]), lake.join(orphan)).unwrap();
    stored(&lake).iter().for_each(|path| age(path));

    let trace = world.path("steps");
    let traced = copied(&world, "traced");
    let traced = traced.with("TOLLGATE_FAILPOINT_TRACE", trace.to_str().unwrap());
    traced.succeed(&["maintain"]).await;
    let mut steps: BTreeMap<String, usize> = BTreeMap::new();
    for step in fs::read_to_string(&trace).unwrap().lines() {
        *steps.entry(step.to_owned()).or_default() += 1;
    }
    for step in ["uploaded", "committing", "committed", "deleted"] {
        assert!(steps.contains_key(&format!("events/{step}")), "{steps:?}");
    }
    let crashes = steps.iter().flat_map(|(step, passes)| {
        let passes = BTreeSet::from([1, passes.div_ceil(2), *passes]);
        passes.into_iter().map(move |pass| format!("{step}:{pass}"))
    });
    for (number, crash) in crashes.enumerate() {
        let cli = copied(&world, &format!("crashed-{number}"));
        let crashed = cli.with("TOLLGATE_FAILPOINT", &crash);
        assert_eq!(crashed.run(&["maintain"]).await.code, None, "{crash}");
        assert_eq!(cli.query(ROWS).await, rows, "{crash}");
        cli.succeed(&["maintain"]).await;
        assert_eq!(cli.query(ROWS).await, rows, "{crash}");
        assert_eq!(cli.query(BY_MODEL).await, by_model, "{crash}");
        assert!(
            !world
                .path(&format!("crashed-{number}"))
                .join(orphan)
                .exists()
        );
    }
}

/// Commands on a copy of the lake, whose files are as old.
fn copied(world: &World, name: &str) -> Cli {
    let lake = world.path("lake");
    for path in stored(&lake) {
        let copy = world.path(name).join(path.strip_prefix(&lake).unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(path, &copy).unwrap();
        age(&copy);
    }
    world.cli().lake(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_maintains_its_tables_counts_exactly() {
    const LOAD: Load = Load {
        seed: 4,
        events: 60_000,
        start_us: START_US,
        events_per_second: 20,
    };
    let world = World::new(TOKENS).await;
    let cli = world
        .cli()
        .with("TOLLGATE_SOURCE_BATCH_BYTES", "100kB")
        .with("TOLLGATE_FLUSH_MAX_BYTES", "100kB")
        .with("TOLLGATE_MAINTENANCE_INTERVAL", "100ms");
    let mut workload = Workload::new(LOAD);
    let mut part = |events: usize| {
        let mut lines = Vec::new();
        workload.write(events, &mut lines);
        fs::write(world.path("part.ndjson"), lines).unwrap();
        world.path("part.ndjson")
    };
    cli.publish(&part(40_000), 50).await;
    let mut run = cli.start(&["run"]);
    run.logged("table maintained", 1).await;
    run.kill().await;
    let mut run = cli.start(&["run"]);
    cli.publish(&part(20_000), 50).await;
    run.logged("table maintained", 1).await;
    // Another process maintains the same tables while the run does.
    cli.succeed(&["maintain"]).await;
    let ran = run.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let ran_to_end = cli.run_to_end().await;
    assert_eq!(ran_to_end.sequence(), 1_200);

    let expected = Workload::totals_by_subject_and_model(LOAD);
    let expected: Vec<Vec<String>> = expected
        .into_iter()
        .map(|((subject, model), totals)| {
            let numbers = [totals.events, totals.input_tokens, totals.output_tokens];
            let numbers = numbers.map(|number| number.to_string());
            [subject, model].into_iter().chain(numbers).collect()
        })
        .collect();
    assert!(cli.query(BY_MODEL).await == expected, "totals differ");
    cli.audit().await;
    let off = cli.with("TOLLGATE_MAINTENANCE_VACUUM_AFTER", "8 days");
    let refused = off.run(&["run", "--until-end"]).await;
    assert_eq!(refused.code, Some(2), "{refused:#?}");
    assert!(
        refused
            .stderr
            .contains("maintenance.vacuum_after: is above 7 days")
    );
}
