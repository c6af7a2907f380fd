//! A lake of more and more event types, with the same number of events: what an event costs.
//!
//! `TOLLGATE_BENCH_EVENTS` is how many events there are, of all types together; 1,000,000 by default.

use super::{EVENTS_FILE, Failure, Result, check, ms, quickest, settings};
use arrow::{array::AsArray, datatypes::Int64Type};
use std::{
    env, fs,
    io::{BufWriter, Write},
    path::Path,
    sync::Arc,
    time::Instant,
};
use tokio::sync::watch;
use tollgate::{
    catalog::Catalog,
    cli::{self, run::supervise},
    shard::Questions,
    view::View,
};
use tollgate_connectors::lake::Lake;

/// 2026-01-05: long ago, so that every window is due.
pub(super) const START_S: i64 = 1_767_571_200;

/// A lake of events of so many types, each with eight columns and a meter: what an event costs.
pub(super) fn types(folder: &Path, count: u64) -> Result<()> {
    let events = events_asked_for()?;
    cli::runtime()?.block_on(async {
        let settings = settings(folder, &definitions_of(count), EVENTS_FILE)?;
        write_typed_events(&folder.join("events.ndjson"), count, events)?;
        let catalog = Arc::new(Catalog::load(&settings).await?);
        let run = async || {
            let (_stop, stopped) = watch::channel(false);
            let questions = Questions::none();
            let started = Instant::now();
            Box::pin(supervise(&settings, &catalog, true, stopped, questions)).await?;
            Ok::<_, Failure>(started.elapsed())
        };
        forget_peak()?;
        let rate = u128::from(events) * 1_000 / run().await?.as_millis().max(1);
        let peak = peak_mb()?;
        let again = run().await?;

        let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
        let (open_ms, _) = quickest(async || {
            let view = View::open(Arc::clone(&catalog), &lake).await?;
            drop(view);
            Ok(0)
        })
        .await?;
        let view = View::open(Arc::clone(&catalog), &lake).await?;
        let all = "SELECT COUNT(*) AS calls FROM events";
        let (count_ms, found) = quickest(async || number(&view, all).await).await?;
        let last = count - 1;
        let of_one = format!("SELECT CAST(SUM(n) AS BIGINT) AS calls FROM type_{last}");
        let (one_ms, own) = quickest(async || number(&view, &of_one).await).await?;
        let metered = format!("SELECT CAST(SUM(n) AS BIGINT) AS calls FROM meter_{last}");
        let metered = number(&view, &metered).await?;
        let of_type = (0..events).filter(|event| type_of(*event, count) == last);
        let expected = of_type.map(|event| event % 50).sum();
        check("events and sum", (found, own), (events, expected))?;
        check("sums", (own, metered), (expected, expected))?;
        let files = files_of(&folder.join("lake/events"))?;
        let bytes: u64 = files.iter().sum();
        println!(
            "{count:>9} {rate:>9} {peak:>9} {:>9} {:>7} {:>9} {:>13} {:>13} {:>16}",
            bytes / 1_000_000,
            files.len(),
            ms(open_ms),
            ms(count_ms),
            ms(one_ms),
            ms(again),
        );
        Ok(())
    })
}

/// How many events the lake has.
pub(super) fn events_asked_for() -> Result<u64> {
    match env::var("TOLLGATE_BENCH_EVENTS") {
        Ok(events) => Ok(events.parse()?),
        Err(_) => Ok(1_000_000),
    }
}

/// The sizes of all data files below a folder.
fn files_of(folder: &Path) -> Result<Vec<u64>> {
    let mut sizes = Vec::new();
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
        match kind?.is_dir() {
            true => sizes.extend(files_of(&path)?),
            false if path.extension().is_some_and(|it| it == "parquet") => {
                sizes.push(fs::metadata(&path)?.len());
            }
            false => {}
        }
    }
    Ok(sizes)
}

/// Begins to measure the peak of resident memory anew, where the system can.
pub(super) fn forget_peak() -> Result<()> {
    Ok(fs::write("/proc/self/clear_refs", "5")?)
}

/// The most memory that was resident since, in MB.
pub(super) fn peak_mb() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.ok_or("/proc/self/status has no VmHWM")?;
    Ok(peak.trim().trim_end_matches(" kB").parse::<u64>()? / 1_000)
}

/// The type of an event, in no order.
fn type_of(event: u64, types: u64) -> u64 {
    (event.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % types
}

fn definitions_of(types: u64) -> String {
    let of_type = |number: u64| {
        format!(
            "CREATE EVENT TYPE type_{number} (
                 model VARCHAR NOT NULL, region VARCHAR, tier VARCHAR, n BIGINT NOT NULL, m BIGINT, retries BIGINT,
                 cost DECIMAL(18, 9), cached BOOLEAN
             ) WITH (type = 'bench.type.{number}');
             CREATE METER meter_{number} WITH (window = '1 hour', lateness = '10 minutes') AS
             SELECT subject, SUM(n) AS n, COUNT(*) AS calls FROM type_{number} GROUP BY subject;\n"
        )
    };
    (0..types).map(of_type).collect()
}

fn write_typed_events(path: &Path, types: u64, events: u64) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for event in 0..events {
        let kind = type_of(event, types);
        let time = START_S + i64::try_from(event * 3_000 / events)?;
        let time = jiff::Timestamp::from_second(time)?;
        let (subject, model, n) = (event * 7 % 100, event % 9, event % 50);
        writeln!(
            file,
            r#"{{"specversion":"1.0","id":"{event:016x}","source":"bench","type":"bench.type.{kind}","subject":"customer-{subject:03}","time":"{time}","data":{{"model":"model-{model}","region":"us-west-{}","tier":"pro","n":{n},"m":{},"retries":0,"cost":0.00{:04},"cached":{}}}}}"#,
            event % 3,
            event * 31 % 4_096,
            event % 9_999,
            event % 2 == 0,
        )?;
    }
    file.flush()?;
    Ok(())
}

/// The number `calls` that a query answers.
async fn number(view: &View, sql: &str) -> Result<u64> {
    let rows = view.session(sql).await?.sql(sql).await?.collect().await?;
    let calls = rows[0]["calls"].as_primitive::<Int64Type>().value(0);
    Ok(u64::try_from(calls)?)
}
