//! What it costs a shard to be asked for a meter's total ten times a second while it ingests.
//!
//! ```text
//! cargo bench --workspace --bench live
//! ```
//! The whole ingest, from a JetStream stream to a lake, in this process: once alone and once asked through
//! [`live::Live`], in turns on the same stream, each with a lake of its own. Every answer is compared with
//! what had been published up to the position that it names, and the lake with everything at the end;
//! the command fails when one differs or goes back. What can be compared between machines is the ratio of
//! the two times; where other work disturbs the clock, the processor time of one answer says what ten of them
//! take of a second of all cores.
//!
//! | variable | default | |
//! |---|---|---|
//! | `TOLLGATE_BENCH_EVENTS` | 3000000 | events, 100 to a message |
//! | `TOLLGATE_BENCH_SPAN` | 7200 | seconds of event time that they span, in windows of an hour |
//! | `TOLLGATE_BENCH_ROUNDS` | 3 | how often each is measured |
//! | `TOLLGATE_BENCH_EVERY` | 100 | milliseconds between two questions |
//! | `TOLLGATE_NATS_SERVER` | on `PATH` | the nats-server to start |
#![expect(clippy::print_stdout, reason = "the table is the result")]

use arrow::{array::AsArray, datatypes::Int64Type};
use bytes::Bytes;
use std::{
    env, fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};
use tollgate::{
    Error,
    catalog::Catalog,
    cli::{
        self,
        demo::generator::{Load, Workload},
        run::supervise,
    },
    config::Settings,
    live::{self, Live},
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

const DEFINITIONS: &str = "
CREATE EVENT TYPE llm_completion (
    model VARCHAR NOT NULL, region VARCHAR NOT NULL,
    input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL
) WITH (type = 'llm.completion');

CREATE METER tokens WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, model, region, SUM(input_tokens) AS input, SUM(output_tokens) AS output, COUNT(*) AS calls
FROM llm_completion GROUP BY subject, model, region;
";
const TOTAL: &str = "SELECT CAST(COALESCE(SUM(calls), 0) AS BIGINT) AS calls FROM tokens";
/// 2026-01-01: long ago, so that no event is ahead of the stream's clock.
const START_US: i64 = 1_767_225_600_000_000;
const STREAM: &str = "BENCH";
const PER_MESSAGE: usize = 100;

fn main() -> Result<()> {
    cli::runtime()?.block_on(measure())
}

async fn measure() -> Result<()> {
    let Some(binary) = NatsServer::find() else {
        println!("skipped: no nats-server on PATH, and TOLLGATE_NATS_SERVER names none");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let server = NatsServer::start(&binary, &folder.path().join("nats"), None).await?;
    let published = Arc::new(publish(server.url()).await?);
    let every = Duration::from_millis(number("TOLLGATE_BENCH_EVERY", 100)?.max(1));
    println!(
        "round   alone ms   asked ms   slower by   CPU alone ms   answers   CPU ms each   median ms   slowest ms   last count"
    );
    let mut ratios = Vec::new();
    for round in 1..=number("TOLLGATE_BENCH_ROUNDS", 3)?.max(1) {
        let home = folder.path().join(format!("round-{round}"));
        let (alone, _) = ingest(&home.join("alone"), server.url(), &published, None).await?;
        let (asked, answers) =
            ingest(&home.join("asked"), server.url(), &published, Some(every)).await?;
        fs::remove_dir_all(&home)?;
        let slower = asked.clock.as_micros() * 1_000 / alone.clock.as_micros().max(1);
        ratios.push(slower);
        let answered = u128::try_from(answers.took.len())?.max(1);
        let each = asked.processor_ms.saturating_sub(alone.processor_ms) / answered;
        println!(
            "{round:>5} {:>10} {:>10} {:>11} {:>14} {:>9} {each:>13} {:>11} {:>12} {:>12}",
            alone.clock.as_millis(),
            asked.clock.as_millis(),
            percent(slower),
            alone.processor_ms,
            answers.took.len(),
            answers.quantile(50).as_millis(),
            answers.quantile(100).as_millis(),
            answers.last
        );
    }
    server.stop().await?;
    ratios.sort_unstable();
    println!(
        "\nmedian of {} rounds: slower by {}",
        ratios.len(),
        percent(ratios[ratios.len() / 2])
    );
    Ok(())
}

fn percent(permille: u128) -> String {
    let (sign, above) = match permille.checked_sub(1_000) {
        Some(above) => ("", above),
        None => ("-", 1_000 - permille),
    };
    format!("{sign}{}.{} %", above / 10, above % 10)
}

/// Publishes the load; returns how many events count up to each message, from none at all on.
async fn publish(url: &str) -> Result<Vec<u64>> {
    let events = number("TOLLGATE_BENCH_EVENTS", 3_000_000)?;
    let span_s = number("TOLLGATE_BENCH_SPAN", 7_200)?.max(1);
    let options = NatsOptions {
        subjects: vec!["bench.>".into()],
        create: true,
        ..NatsOptions::new(url, STREAM)
    };
    let headers = [("Content-Type".to_owned(), "application/x-ndjson".to_owned())];
    let mut publisher = Publisher::connect(options).await?.without_ids();
    let mut workload = Workload::new(Load {
        seed: 42,
        events,
        start_us: START_US,
        events_per_second: (events / span_s).max(1),
    });
    let mut counted = vec![0];
    loop {
        let mut payload = Vec::with_capacity(300 * PER_MESSAGE);
        if workload.write(PER_MESSAGE, &mut payload) == 0 {
            break;
        }
        let payload = Bytes::from(payload);
        publisher.publish("bench.usage", &headers, payload).await?;
        counted.push(workload.totals().events);
    }
    let messages = publisher.finish().await?.acknowledged;
    println!("{events} events in {messages} messages\n");
    Ok(counted)
}

/// What one ingest took.
struct Took {
    clock: Duration,
    processor_ms: u128,
}

/// What was answered during one ingest.
#[derive(Debug, Default)]
struct Answers {
    took: Vec<Duration>,
    last: u64,
}

impl Answers {
    fn quantile(&self, percent: usize) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(at).copied().unwrap_or_default()
    }
}

/// Ingests everything into a lake of its own; how long it took, and what was answered meanwhile.
async fn ingest(
    home: &Path,
    url: &str,
    published: &Arc<Vec<u64>>,
    every: Option<Duration>,
) -> Result<(Took, Answers)> {
    let settings = settings(home, url)?;
    let catalog = Arc::new(Catalog::load(&settings).await?);
    let (live, questions) = live::live(Arc::clone(&catalog));
    let (asking, questions) = match every {
        Some(every) => (Some(ask(live, every, Arc::clone(published))), questions),
        None => (None, Questions::none()),
    };
    let (_stop, stopped) = watch::channel(false);
    let (started, processor) = (Instant::now(), processor_ms()?);
    Box::pin(supervise(&settings, &catalog, true, stopped, questions)).await?;
    let took = Took {
        clock: started.elapsed(),
        processor_ms: processor_ms()? - processor,
    };
    let answers = match asking {
        Some(asking) => asking.await??,
        None => Answers::default(),
    };
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
    let (_, count) = total(&View::open(catalog, &lake).await?).await?;
    let expected = published.last().copied().unwrap_or_default();
    match count == expected {
        true => Ok((took, answers)),
        false => Err(format!("{expected} were published, {count} found").into()),
    }
}

/// Asks until the shard has ended.
fn ask(live: Live, every: Duration, published: Arc<Vec<u64>>) -> JoinHandle<Result<Answers>> {
    tokio::spawn(async move {
        let mut answers = Answers::default();
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let started = Instant::now();
            let view = match live.view().await {
                Err(Error::NotRunning) => return Ok(answers),
                view => view?,
            };
            let (position, count) = total(&view).await?;
            answers.took.push(started.elapsed());
            let expected = published[usize::try_from(position)?];
            if count != expected || count < answers.last {
                let last = answers.last;
                let what =
                    format!("{count} live at {position}, {expected} published, {last} before");
                return Err(what.into());
            }
            answers.last = count;
        }
    })
}

/// The position of a view, and its total.
async fn total(view: &View) -> Result<(u64, u64)> {
    let rows = view.session(TOTAL).await?.sql(TOTAL).await?;
    let rows = rows.collect().await?;
    let count = rows[0]["calls"].as_primitive::<Int64Type>().value(0);
    let cuts = view.cuts().await?;
    let position = cuts.first().map_or(0, |(_, position)| position.sequence.0);
    Ok((position, u64::try_from(count)?))
}

/// What this process has used of all processors so far, in milliseconds; 0 where the kernel does not say.
fn processor_ms() -> Result<u128> {
    /// A tick of the kernel's accounts, which are in hundredths of a second.
    const TICK_MS: u128 = 10;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name in parentheses and may hold anything; `utime` is the 14th.
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let mut ticks = 0;
    for time in fields.split_whitespace().skip(11).take(2) {
        ticks += time.parse::<u128>()?;
    }
    Ok(ticks * TICK_MS)
}

fn settings(home: &Path, url: &str) -> Result<Settings> {
    fs::create_dir_all(home.join("definitions"))?;
    fs::write(home.join("definitions/tokens.sql"), DEFINITIONS)?;
    let file = home.join("tollgate.toml");
    let source = format!("[source]\nurl = \"{url}\"\nstream = \"{STREAM}\"\n");
    fs::write(&file, source + "[lake]\nurl = \"file://./lake\"\n")?;
    Ok(Settings::load(&file, std::iter::empty())?)
}

fn number(variable: &str, default: u64) -> Result<u64> {
    match env::var(variable) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(default),
    }
}
