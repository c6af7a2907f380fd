//! A lake of more and more days: what its last month takes.

use super::{EVENTS_FILE, Result, STREAM, TASKS, check, ms, quickest, settings};
use arrow::{array::AsArray, datatypes::Int64Type};
use std::{
    fmt::Write,
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::watch;
use tollgate::{
    billing,
    catalog::Catalog,
    cli,
    clock::{Clock, ManualClock, SystemClock},
    config::Settings,
    dedupe,
    jobs::maintenance::Upkeep,
    shard::{self, Options, Questions},
    supervisor::parts,
    telemetry::Progress,
    view::View,
};
use tollgate_connectors::{
    Message, Sequence, event::DecodeOptions, lake::Lake, memory::MemoryStream,
};

/// The end of the last day, 2026-01-01.
const END_S: i64 = 1_767_225_600;
const DAY_S: i64 = 86_400;
/// Each of them has an event in each of the first hours of a day, and so a pane.
const CUSTOMERS: u64 = 1_000;
const HOURS: u64 = 4;
/// Days of December.
const MONTH: u64 = 31;

/// Bytes of decoded events that make a commit due: several commits a day.
const FLUSH_BYTES: usize = 100_000;
const MONTH_S_USAGE: &str = "SELECT CAST(SUM(calls) AS BIGINT) AS calls FROM tasks \
    WHERE window_start >= TIMESTAMP '2025-12-01' AND window_start < TIMESTAMP '2026-01-01'";

/// Reads events that were stored on so many days, maintains the lake, and asks for what the last month says.
pub(super) fn age(folder: &Path, days: u64) -> Result<()> {
    cli::runtime()?.block_on(async {
        let settings = settings(folder, TASKS, EVENTS_FILE)?;
        let stream = stored(days)?;
        let catalog = Arc::new(Catalog::load(&settings).await?);
        let (read, ()) = timed(async || start(&settings, &catalog, &stream).await).await?;
        // Days were merged as they ended. What was replaced is forgotten a week later, so that a lake of a year remembers no more of
        // it than one of a month.
        let lake_folder = folder.join("lake");
        let now_us = SystemClock.now_us();
        let before_us = |days: i64| now_us - days * DAY_S * 1_000_000;
        let written = SystemTime::UNIX_EPOCH + Duration::from_micros(before_us(60).try_into()?);
        age_files(&lake_folder, written)?;
        let (maintained, ()) = timed(async || {
            // What the first round replaced is a week old at the next ones, and goes.
            for days in [24, 16] {
                maintain(&settings, &catalog, before_us(days)).await?;
            }
            Ok(())
        })
        .await?;
        // The log of all those days is forgotten, too.
        age_files(&lake_folder, written)?;
        maintain(&settings, &catalog, before_us(8)).await?;

        // Now and then a round looks through everything that is stored; the others list no days.
        let (swept, ()) = timed(async || maintain(&settings, &catalog, now_us).await).await?;
        let (idle, ()) = timed(async || maintain(&settings, &catalog, now_us).await).await?;
        let (again, ()) = timed(async || start(&settings, &catalog, &stream).await).await?;
        let (opening, view) = timed(async || {
            let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
            Ok(View::open(Arc::clone(&catalog), &lake).await?)
        })
        .await?;
        let (usage, calls) = quickest(async || {
            let session = view.session(MONTH_S_USAGE).await?;
            let rows = session.sql(MONTH_S_USAGE).await?.collect().await?;
            let calls = rows[0]["calls"].as_primitive::<Int64Type>().value(0);
            Ok(u64::try_from(calls)?)
        })
        .await?;
        let period = settings.month("2025-12")?;
        let (draft, invoices) = quickest(async || {
            let drafts = billing::draft(&view, &settings.billing, &period).await?;
            Ok(drafts.invoices.len() as u64)
        })
        .await?;
        let made = days.min(MONTH) * CUSTOMERS * HOURS;
        check("calls and invoices", (calls, invoices), (made, CUSTOMERS))?;
        println!(
            "{days:>4} {:>10} {:>9} {:>14} {:>10} {:>12} {:>10} {:>10} {:>12} {:>12}",
            days * CUSTOMERS * HOURS,
            ms(read),
            ms(maintained),
            ms(swept),
            ms(idle),
            ms(again),
            ms(opening),
            ms(usage),
            ms(draft),
        );
        Ok(())
    })
}

/// Reads the stream to its end.
async fn start(settings: &Settings, catalog: &Catalog, stream: &MemoryStream) -> Result<()> {
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let (source, clock) = (Box::new(stream.source(STREAM)), Arc::new(SystemClock));
    let parts = parts(catalog, &lake, source, DecodeOptions::default(), clock).await?;
    let options = Options {
        // One message: a commit is due after each.
        batch_bytes: 1,
        flush_interval_us: i64::MAX,
        flush_bytes: FLUSH_BYTES,
        windows_bytes: settings.windows.max_bytes.0,
        dedupe: dedupe::Options {
            horizon_us: settings.dedupe.horizon.0,
            memory_bytes: settings.dedupe.memory.0,
            directory: settings.resolve(&settings.dedupe.directory),
        },
        until_end: true,
        start: None,
        replaces: Vec::new(),
    };
    let (_stop, stopped) = watch::channel(false);
    let progress = watch::Sender::new(Progress::default());
    let mut questions = Questions::none();
    let running = shard::run(parts, options, stopped, progress, &mut questions);
    Box::pin(running).await?;
    Ok(())
}

/// Makes files as old as if they had been written then.
fn age_files(folder: &Path, written: SystemTime) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => age_files(&path, written)?,
            false => File::options()
                .write(true)
                .open(&path)?
                .set_modified(written)?,
        }
    }
    Ok(())
}

async fn maintain(settings: &Settings, catalog: &Catalog, now_us: i64) -> Result<()> {
    let clock = ManualClock::at(now_us);
    let upkeep = Upkeep::new(settings, catalog)?;
    let lake = upkeep.open().await?;
    for table in &upkeep.tables {
        upkeep.maintain(&lake, table, &clock, false).await?;
    }
    Ok(())
}

async fn timed<T>(act: impl AsyncFnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let started = Instant::now();
    let made = act().await?;
    Ok((started.elapsed(), made))
}

/// A message for each hour in which there are events, stored a minute after them.
fn stored(days: u64) -> Result<MemoryStream> {
    let stream = MemoryStream::default();
    for hour in 0..days * HOURS {
        let (day, hour_of_day) = (hour / HOURS, hour % HOURS);
        let day_s = END_S - DAY_S * i64::try_from(days - day)?;
        let time_s = day_s + 3_600 * i64::try_from(hour_of_day)?;
        let time = jiff::Timestamp::from_second(time_s)?;
        let mut payload = String::new();
        for customer in 0..CUSTOMERS {
            writeln!(
                payload,
                r#"{{"specversion":"1.0","id":"{hour}-{customer}","source":"bench","type":"task","subject":"customer-{customer:04}","time":"{time}","data":{{"n":{hour_of_day}}}}}"#
            )?;
        }
        stream.append(Message {
            sequence: Sequence(hour + 1),
            ingest_time_us: (time_s + 60) * 1_000_000,
            headers: vec![("Content-Type".into(), "application/x-ndjson".into())],
            payload: payload.into(),
            unread: None,
        });
    }
    Ok(stream)
}
