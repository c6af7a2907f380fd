//! What grows with a lake, and what stays flat.
//!
//! ```text
//! cargo bench --workspace --bench growth
//! ```
//! Each row of the table is a lake of its own, made in this process from a seed: events in files, read to their end. What
//! is asked is compared with what was made. `one of` divides what a question about one customer takes by what the same
//! takes of all: that can be compared between machines and profiles. Questions are asked of a lake in which all windows are
//! closed, which is open, and of a running shard in which the last hour of each customer is open.
//!
//! | variable | default | |
//! |---|---|---|
//! | `TOLLGATE_BENCH_ROW` | all | the one row to measure: `customers` |
//! | `TOLLGATE_NATS_SERVER` | on `PATH` | the nats-server to start; without one no running shard is asked |
//! | `TOLLGATE_BENCH_SIZES` | 1000,10000,100000 | the sizes of the row; `1000000` takes long |
#![expect(clippy::print_stdout, reason = "the table is the result")]

use arrow::{array::AsArray, datatypes::Int64Type};
use bytes::Bytes;
use std::{
    env, fs,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tollgate::{
    billing,
    catalog::Catalog,
    cli::{self, run::supervise},
    config::Settings,
    live,
    shard::Questions,
    view::View,
};
use tollgate_connectors::{
    lake::Lake,
    nats::{NatsOptions, Publisher, server::NatsServer},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// What is measured of a lake that grows in one way.
struct Row {
    name: &'static str,
    sizes: &'static [u64],
    measure: fn(&Path, u64) -> Result<()>,
    /// What the columns that it prints are.
    columns: &'static str,
}

const ROWS: &[Row] = &[Row {
    name: "customers",
    sizes: &[1_000, 10_000, 100_000],
    measure: customers,
    columns: "customers  events/s   usage of all ms   of one ms   one of   draft of all ms   of one ms   one of   live: of all ms   of one ms   one of",
}];

/// 2026-01-05: long ago, so that every window is due.
const START_S: i64 = 1_767_571_200;
/// Hours in which each customer has an event.
const HOURS: u64 = 10;
const STREAM: &str = "BENCH";
const PER_MESSAGE: usize = 100;
/// How often each question is asked; the quickest counts.
const TIMES: usize = 5;

const DEFINITIONS: &str = "
CREATE EVENT TYPE task (n BIGINT NOT NULL) WITH (type = 'task');
CREATE METER tasks WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, SUM(n) AS n, COUNT(*) AS calls FROM task GROUP BY subject;
CREATE PRICE per_task WITH (currency = 'USD') AS
SELECT customer, SUM(n) AS quantity, 0.01 * SUM(n) AS amount FROM tasks GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD') AS (per_task);
";

fn main() -> Result<()> {
    let only = env::var("TOLLGATE_BENCH_ROW").ok();
    let sizes = env::var("TOLLGATE_BENCH_SIZES").ok();
    let is_asked_for = |row: &&Row| only.as_deref().is_none_or(|only| only == row.name);
    for row in ROWS.iter().filter(is_asked_for) {
        println!("{}", row.columns);
        let sizes = match &sizes {
            Some(text) => text.split(',').map(str::parse).collect(),
            None => Ok(row.sizes.to_vec()),
        };
        for size in sizes? {
            let folder = tempfile::tempdir()?;
            (row.measure)(folder.path(), size)?;
        }
        println!();
    }
    Ok(())
}

/// A lake of so many customers, each with an event in every hour: what one of them costs.
fn customers(folder: &Path, count: u64) -> Result<()> {
    cli::runtime()?.block_on(async {
        let settings = settings(folder)?;
        write_events(&folder.join("events.ndjson"), count)?;
        let catalog = Arc::new(Catalog::load(&settings).await?);
        let (_stop, stopped) = watch::channel(false);
        let started = Instant::now();
        let questions = Questions::none();
        Box::pin(supervise(&settings, &catalog, true, stopped, questions)).await?;
        let rate = u128::from(count * HOURS) * 1_000 / started.elapsed().as_millis().max(1);

        let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
        let view = View::open(catalog, &lake).await?;
        let one = format!("customer-{:07}", count / 2);
        let of_one = format!("WHERE customer = '{one}'");
        let (all_ms, all) = quickest(async || calls(&view, "").await).await?;
        let (one_ms, own) = quickest(async || calls(&view, &of_one).await).await?;
        check("calls", (all, own), (count * HOURS, HOURS))?;
        let period = settings.billing.month("2026-01")?;
        let billing = &settings.billing;
        let (draft_ms, drafts) = quickest(async || {
            let drafts = billing::draft(&view, billing, &period).await?;
            Ok(drafts.invoices.len() as u64)
        })
        .await?;
        let (own_ms, own) = quickest(async || {
            let drafts = billing::draft_of(&view, billing, &period, &one).await?;
            Ok(drafts.invoices.len() as u64)
        })
        .await?;
        check("drafts", (drafts, own), (count, 1))?;
        let live = live(folder, count, &of_one).await?;
        println!(
            "{count:>9} {rate:>9} {:>17} {:>11} {:>8} {:>17} {:>11} {:>8} {live}",
            ms(all_ms),
            ms(one_ms),
            part(one_ms, all_ms),
            ms(draft_ms),
            ms(own_ms),
            part(own_ms, draft_ms)
        );
        Ok(())
    })
}

/// What the same costs of a running shard.
async fn live(folder: &Path, count: u64, of_one: &str) -> Result<String> {
    let Some(binary) = NatsServer::find() else {
        return Ok(String::new());
    };
    let server = NatsServer::start(&binary, &folder.join("nats"), None).await?;
    let home = folder.join("live");
    let url = server.url();
    let settings = settings_of(&home, &format!("url = \"{url}\"\n"))?;
    let messages = publish(&folder.join("events.ndjson"), url).await?;
    let catalog = Arc::new(Catalog::load(&settings).await?);
    let (live, questions) = live::live(Arc::clone(&catalog));
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(async move {
        Box::pin(supervise(&settings, &catalog, false, stopped, questions)).await
    });
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    loop {
        ticks.tick().await;
        let cuts = live.view().await?.cuts().await?;
        if cuts
            .iter()
            .any(|(_, position)| position.sequence.0 == messages)
        {
            break;
        }
    }
    let (one_ms, own) = quickest(async || calls(&live.view().await?, of_one).await).await?;
    let (all_ms, all) = quickest(async || calls(&live.view().await?, "").await).await?;
    check("calls, live,", (all, own), (count * HOURS, HOURS))?;
    stop.send_replace(true);
    running.await??;
    server.stop().await?;
    let of = part(one_ms, all_ms);
    Ok(format!("{:>17} {:>11} {of:>8}", ms(all_ms), ms(one_ms)))
}

/// Publishes the events; returns how many messages they are.
async fn publish(events: &Path, url: &str) -> Result<u64> {
    let options = NatsOptions {
        subjects: vec!["bench.>".into()],
        create: true,
        ..NatsOptions::new(url, STREAM)
    };
    let headers = [("Content-Type".to_owned(), "application/x-ndjson".to_owned())];
    let mut publisher = Publisher::connect(options).await?.without_ids();
    let mut lines = BufReader::new(fs::File::open(events)?).lines();
    loop {
        let part: Vec<String> = lines
            .by_ref()
            .take(PER_MESSAGE)
            .collect::<std::io::Result<_>>()?;
        if part.is_empty() {
            break;
        }
        let payload = Bytes::from(part.join("\n"));
        publisher.publish("bench.usage", &headers, payload).await?;
    }
    Ok(publisher.finish().await?.acknowledged)
}

/// What is asked takes, and says every time.
async fn quickest(ask: impl AsyncFn() -> Result<u64>) -> Result<(Duration, u64)> {
    let mut best = Duration::MAX;
    let mut answer = 0;
    for _ in 0..TIMES {
        let started = Instant::now();
        answer = ask().await?;
        best = best.min(started.elapsed());
    }
    Ok((best, answer))
}

async fn calls(view: &View, condition: &str) -> Result<u64> {
    let sql = format!("SELECT CAST(SUM(calls) AS BIGINT) AS calls FROM tasks {condition}");
    let rows = view.session(&sql).await?.sql(&sql).await?.collect().await?;
    let calls = rows[0]["calls"].as_primitive::<Int64Type>().value(0);
    Ok(u64::try_from(calls)?)
}

fn check(what: &str, found: (u64, u64), expected: (u64, u64)) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{found:?} {what} found, {expected:?} made").into()),
    }
}

/// Milliseconds with one digit after the point.
fn ms(time: Duration) -> String {
    let tenths = time.as_micros() / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A part of a whole, as one in so many.
fn part(part: Duration, whole: Duration) -> String {
    let tenths = whole.as_micros() * 10 / part.as_micros().max(1);
    format!("1/{}.{}", tenths / 10, tenths % 10)
}

fn write_events(path: &Path, customers: u64) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for hour in 0..HOURS {
        let time = START_S + 3_600 * i64::try_from(hour)? + 60;
        let time = jiff::Timestamp::from_second(time)?;
        for customer in 0..customers {
            let n = 1 + (customer * 7 + hour) % 50;
            writeln!(
                file,
                r#"{{"specversion":"1.0","id":"{hour}-{customer}","source":"bench","type":"task","subject":"customer-{customer:07}","time":"{time}","data":{{"n":{n}}}}}"#
            )?;
        }
    }
    file.flush()?;
    Ok(())
}

fn settings(folder: &Path) -> Result<Settings> {
    settings_of(folder, "kind = \"files\"\npath = \"events.ndjson\"\n")
}

fn settings_of(folder: &Path, source: &str) -> Result<Settings> {
    fs::create_dir_all(folder.join("definitions"))?;
    fs::write(folder.join("definitions/all.sql"), DEFINITIONS)?;
    let file = folder.join("tollgate.toml");
    let source = format!("[source]\nstream = \"{STREAM}\"\n{source}");
    fs::write(&file, source + "[lake]\nurl = \"file://./lake\"\n")?;
    Ok(Settings::load(&file, std::iter::empty())?)
}
