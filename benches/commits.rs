//! What a writer costs that has committed for a long time: latency, memory and the time to open its table,
//! at the start and after many flushes, with maintenance running beside it.
//!
//! ```text
//! cargo bench --workspace --bench commits
//! ```
//! One table as `events` is, on local disk; each flush stages and commits a few rows of one day, as a
//! quiet stream does every few seconds. Maintenance goes over the table after every so many flushes, in
//! the same process, with a handle of its own, as `tollgate run` does.
//!
//! | what | bound |
//! |---|---|
//! | median commit, last 500 against first 500 | 3 times |
//! | median resident memory, last 500 against second 500 | 1.3 times |
//! | opening the table at the end | 1 s |
//!
//! The bounds are checked, and the command fails when one is passed. Memory is that of the whole process, with
//! the allocator that the binary has; it is compared with the second 500 flushes.
//!
//! | variable | default | |
//! |---|---|---|
//! | `TOLLGATE_BENCH_FLUSHES` | 10000 | flushes |
//! | `TOLLGATE_BENCH_MAINTAIN` | 120 | flushes between two rounds: 10 minutes at one every 5 seconds |
#![expect(clippy::print_stdout, reason = "the table is the result")]

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant},
};
use tollgate::{
    cli::{
        self,
        demo::generator::{Load, Workload},
    },
    telemetry::memory_kib,
};
use tollgate_connectors::{
    Attempt, CommitId, Message, Sequence, Table,
    event::{DecodeOptions, Decoder},
    lake::{
        Lake,
        maintenance::{Limits, plan},
    },
};
use tollgate_sql::{
    definitions::{Definitions, SourceFile},
    schema,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const DEFINITIONS: &str = "CREATE EVENT TYPE llm_completion (
    model VARCHAR NOT NULL, region VARCHAR, input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL
) WITH (type = 'llm.completion');";
/// 2026-01-01.
const START_US: i64 = 1_767_225_600_000_000;
/// After the last event, so that none is ahead of it.
const INGEST_US: i64 = START_US + 8_640_000_000_000;
/// Events of a flush.
const EVENTS: usize = 100;
/// Flushes that a median is taken of.
const SPAN: usize = 500;
const LIMITS: Limits = Limits {
    file_bytes: 128_000_000,
    vacuum_after_ms: 604_800_000,
    log_after_ms: 604_800_000,
};

/// What was measured over some flushes.
struct Stretch {
    flushes: usize,
    commit: Duration,
    slowest: Duration,
    rss_kib: u64,
    rss_kib_max: u64,
    files: usize,
}

fn main() -> Result<()> {
    cli::runtime()?.block_on(measure())
}

async fn measure() -> Result<()> {
    let flushes = number("TOLLGATE_BENCH_FLUSHES", 10_000)?;
    let every = number("TOLLGATE_BENCH_MAINTAIN", 120)?;
    let folder = tempfile::tempdir()?;
    let lake = Lake::open("lake", folder.path()).await?;
    let mut flow = Flow::new()?;
    let (schema, none) = (SchemaRef::clone(flow.decoder.schema()), BTreeMap::new());
    let opening = lake.table("events", &schema, &["ingest_day"], &none);
    let mut table = opening.await?;
    println!("   flushes  commit median  slowest  RSS MiB median   most  files");
    let (mut samples, mut stretches) = (Vec::new(), Vec::new());
    for flush in 1..=flushes {
        let took = commit(&mut table, flush, flow.next(flush)?).await?;
        samples.push((took, memory_kib(std::process::id(), "VmRSS").unwrap_or(0)));
        if flush % every == 0 {
            maintain(&lake).await?;
        }
        if flush % SPAN == 0 {
            let stretch = Stretch::of(flush, std::mem::take(&mut samples), table.files().len());
            stretch.print();
            stretches.push(stretch);
        }
    }
    let started = Instant::now();
    let opened = lake.existing("events").await?.ok_or("the table is gone")?;
    let open = started.elapsed();
    println!(
        "opened in {} ms, {} files",
        open.as_millis(),
        opened.files().len()
    );
    check_bounds(&stretches, open)
}

async fn commit(table: &mut impl Table, flush: usize, rows: RecordBatch) -> Result<Duration> {
    let started = Instant::now();
    let attempt = Attempt {
        commit_id: CommitId(format!("bench-{flush}")),
        marks: BTreeMap::from([("BENCH/seq".to_owned(), i64::try_from(flush)?)]),
        info: BTreeMap::new(),
    };
    let staged = table.stage(&attempt.commit_id, &[rows]).await?;
    table.commit(&attempt, &staged).await?;
    Ok(started.elapsed())
}

async fn maintain(lake: &Lake) -> Result<()> {
    let mut table = lake.existing("events").await?.ok_or("the table is gone")?;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let seen = table
        .look(&["shard", "sequence", "ordinal"], &LIMITS, now_ms)
        .await?;
    table.carry_out(&plan(&seen, &LIMITS), now_ms).await?;
    Ok(())
}

/// Events as they come, and the rows of `events` that they become.
struct Flow {
    workload: Workload,
    decoder: Decoder,
}

impl Flow {
    fn new() -> Result<Self> {
        let definitions = Definitions::parse(&[SourceFile {
            name: "bench.sql".into(),
            text: DEFINITIONS.into(),
        }])?;
        let schema = schema::usage_events(&definitions.event_types);
        let workload = Workload::new(Load {
            seed: 42,
            events: u64::MAX,
            start_us: START_US,
            events_per_second: 20,
        });
        Ok(Flow {
            workload,
            decoder: Decoder::new(schema, "BENCH", DecodeOptions::default())?,
        })
    }

    /// One message, whose events all are of one day.
    fn next(&mut self, flush: usize) -> Result<RecordBatch> {
        let mut payload = Vec::new();
        self.workload.write(EVENTS, &mut payload);
        let message = Message {
            sequence: Sequence(u64::try_from(flush)?),
            ingest_time_us: INGEST_US + i64::try_from(flush)?,
            headers: vec![("content-type".into(), "application/x-ndjson".into())],
            payload: payload.into(),
            unread: None,
        };
        Ok(self.decoder.decode(&[message])?.events.whole()?)
    }
}

impl Stretch {
    fn of(flushes: usize, samples: Vec<(Duration, u64)>, files: usize) -> Self {
        let (mut times, mut rss): (Vec<_>, Vec<_>) = samples.into_iter().unzip();
        times.sort_unstable();
        rss.sort_unstable();
        Stretch {
            flushes,
            commit: times[times.len() / 2],
            slowest: times[times.len() - 1],
            rss_kib: rss[rss.len() / 2],
            rss_kib_max: rss[rss.len() - 1],
            files,
        }
    }

    fn print(&self) {
        println!(
            "{:>10} {:>14.2?} {:>8.1?} {:>15} {:>6} {:>6}",
            self.flushes,
            self.commit,
            self.slowest,
            self.rss_kib / 1024,
            self.rss_kib_max / 1024,
            self.files
        );
    }
}

fn check_bounds(stretches: &[Stretch], open: Duration) -> Result<()> {
    let [first, second, .., last] = stretches else {
        return Err(format!("{} flushes are the least that can be compared", 3 * SPAN).into());
    };
    let percent = |last: u128, first: u128| last * 100 / first.max(1);
    let latency = percent(last.commit.as_micros(), first.commit.as_micros());
    let memory = percent(last.rss_kib.into(), second.rss_kib.into());
    println!(
        "commit latency is {latency} % of the first {SPAN}, memory is {memory} % of the second"
    );
    match latency <= 300 && memory <= 130 && open < Duration::from_secs(1) {
        true => Ok(()),
        false => Err("a bound is passed".into()),
    }
}

fn number(variable: &str, default: usize) -> Result<usize> {
    match env::var(variable) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(default),
    }
}
