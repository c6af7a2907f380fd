//! The whole job at full speed: a JetStream stream to a lake, beside a bare consumer that only reads.
//!
//! ```text
//! cargo bench --bench ingest
//! ```
//! What is measured is the release binary as people run it: `tollgate run --until-end` with one token
//! meter, every event archived, from start of the process to its end. Beside it, on the same stream and
//! machine, stands an async-nats pull consumer that drops every payload it reads. The rate that can
//! be compared between machines is the ratio of the two. Totals are checked against the generator.
//!
//! | variable | default | |
//! |---|---|---|
//! | `TOLLGATE_BENCH_EVENTS` | 5000000 | events, 100 to a message |
//! | `TOLLGATE_BENCH_SINGLES` | 500000 | events, one to a message |
//! | `TOLLGATE_BENCH_SPAN` | 86400 | seconds of event time that they span |
//! | `TOLLGATE_BENCH_ROUNDS` | 3 | how often each is measured |
//! | `TOLLGATE_NATS_SERVER` | on `PATH` | the nats-server to start |
#![expect(clippy::print_stdout, reason = "the table is the result")]

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use bytes::Bytes;
use futures::StreamExt;
use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tollgate::{
    cli::demo::generator::{Load, Totals, Workload},
    telemetry::memory_kib,
};
use tollgate_connectors::nats::{NatsOptions, Publisher, server::NatsServer};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const DEFINITIONS: &str = "
CREATE EVENT TYPE llm_completion (
    model VARCHAR NOT NULL, region VARCHAR NOT NULL,
    input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL
) WITH (type = 'llm.completion');

CREATE METER tokens WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, model, region, SUM(input_tokens) AS input, SUM(output_tokens) AS output, COUNT(*) AS calls
FROM llm_completion GROUP BY subject, model, region;
";
const TOTALS: &str = "SELECT CAST(SUM(calls) AS VARCHAR), CAST(SUM(input) AS VARCHAR), CAST(SUM(output) AS VARCHAR) FROM tokens";
/// 2026-01-01: long ago, so that no event is ahead of the stream's clock.
const START_US: i64 = 1_767_225_600_000_000;
const STREAM: &str = "BENCH";
const SUBJECT: &str = "bench.usage";

/// One load and how it is packed.
struct Case {
    name: &'static str,
    load: Load,
    per_message: usize,
}

/// What one round took.
struct Round {
    bare: Duration,
    run: Duration,
    lake: LakeSize,
    peak_kib: u64,
}

#[derive(Default)]
struct LakeSize {
    events_bytes: u64,
    meter_bytes: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Some(binary) = NatsServer::find() else {
        println!("skipped: no nats-server on PATH, and TOLLGATE_NATS_SERVER names none");
        return Ok(());
    };
    let rounds = number("TOLLGATE_BENCH_ROUNDS", 3)?;
    for case in cases()? {
        let folder = tempfile::tempdir()?;
        let server = NatsServer::start(&binary, &folder.path().join("nats"), None).await?;
        let (totals, messages) = publish(&case, server.url()).await?;
        println!(
            "{:<18} {:>9} {:>14} {:>14} {:>9} {:>13} {:>13} {:>10}",
            case.name,
            "round",
            "bare ev/s",
            "tollgate ev/s",
            "ratio",
            "events B/ev",
            "meter B/ev",
            "peak RSS"
        );
        for round in 1..=rounds {
            let measured = measure(&case, folder.path(), server.url(), messages, &totals).await?;
            println!("{}", line(&case, round, &measured));
        }
        server.stop().await?;
    }
    Ok(())
}

fn cases() -> Result<Vec<Case>> {
    let span_s = number("TOLLGATE_BENCH_SPAN", 86_400)?.max(1);
    let load = |events: u64| Load {
        seed: 42,
        events,
        start_us: START_US,
        events_per_second: (events / span_s).max(1),
    };
    let bulk = load(number("TOLLGATE_BENCH_EVENTS", 5_000_000)?);
    let single = load(number("TOLLGATE_BENCH_SINGLES", 500_000)?);
    let cases = [
        Case {
            name: "ingest/ndjson/100",
            load: bulk,
            per_message: 100,
        },
        Case {
            name: "ingest/json/1",
            load: single,
            per_message: 1,
        },
    ];
    Ok(cases
        .into_iter()
        .filter(|case| case.load.events > 0)
        .collect())
}

fn number(variable: &str, default: u64) -> Result<u64> {
    match env::var(variable) {
        Ok(text) => text
            .parse()
            .map_err(|_| format!("{variable}={text} is not a number").into()),
        Err(_) => Ok(default),
    }
}

/// Publishes the whole load; returns what it adds up to and in how many messages.
async fn publish(case: &Case, url: &str) -> Result<(Totals, u64)> {
    let options = NatsOptions {
        subjects: vec!["bench.>".into()],
        create: true,
        ..NatsOptions::new(url, STREAM)
    };
    let content_type = match case.per_message {
        1 => "application/cloudevents+json",
        _ => "application/x-ndjson",
    };
    let headers = [("Content-Type".to_owned(), content_type.to_owned())];
    let started = Instant::now();
    let mut publisher = Publisher::connect(options).await?.without_ids();
    let mut workload = Workload::new(case.load);
    loop {
        let mut payload = Vec::with_capacity(300 * case.per_message);
        if workload.write(case.per_message, &mut payload) == 0 {
            break;
        }
        publisher
            .publish(SUBJECT, &headers, Bytes::from(payload))
            .await?;
    }
    let messages = publisher.finish().await?.acknowledged;
    println!(
        "\n{} events in {messages} messages published, {} events/s",
        case.load.events,
        rate(case.load.events, started.elapsed())
    );
    Ok((workload.totals(), messages))
}

async fn measure(
    case: &Case,
    folder: &Path,
    url: &str,
    messages: u64,
    totals: &Totals,
) -> Result<Round> {
    let bare = read_only(url, messages).await?;
    let home = folder.join("tollgate");
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    write_home(&home, url)?;
    let (run, peak_kib) = meter(&home)?;
    verify(&home, totals)?;
    let lake = lake_size(&home.join("lake"))?;
    if case.load.events == 0 {
        return Err("nothing was measured".into());
    }
    Ok(Round {
        bare,
        run,
        lake,
        peak_kib,
    })
}

/// Reads every message and drops it, as fast as the client can.
async fn read_only(url: &str, messages: u64) -> Result<Duration> {
    let context = jetstream::new(async_nats::connect(url).await?);
    let started = Instant::now();
    let consumer = context
        .create_consumer_on_stream(
            pull::Config {
                deliver_policy: DeliverPolicy::All,
                ack_policy: AckPolicy::None,
                memory_storage: true,
                ..pull::Config::default()
            },
            STREAM,
        )
        .await?;
    let mut stream = consumer
        .stream()
        .max_messages_per_batch(10_000)
        // The server cuts off a client that has more than 64 MB to read.
        .max_bytes_per_batch(32 << 20)
        .messages()
        .await?;
    let (mut read, mut bytes) = (0_u64, 0);
    while read < messages {
        let message = stream
            .next()
            .await
            .ok_or("the bare consumer ended early")??;
        bytes += message.payload.len();
        read += 1;
    }
    std::hint::black_box(bytes);
    Ok(started.elapsed())
}

fn write_home(home: &Path, url: &str) -> Result<()> {
    fs::create_dir_all(home.join("definitions"))?;
    fs::write(home.join("definitions/tokens.sql"), DEFINITIONS)?;
    fs::write(
        home.join("tollgate.toml"),
        format!(
            "[source]\nurl = \"{url}\"\nstream = \"{STREAM}\"\n[lake]\nurl = \"file://./lake\"\n"
        ),
    )?;
    Ok(())
}

fn tollgate(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command
        .args(arguments)
        .arg("--config")
        .arg(home.join("tollgate.toml"))
        .stdin(Stdio::null());
    command
}

/// Runs the binary until the stream's end; returns how long it took and its largest resident set.
fn meter(home: &Path) -> Result<(Duration, u64)> {
    let started = Instant::now();
    let mut child = tollgate(home, &["run", "--until-end"])
        .stdout(Stdio::null())
        .spawn()?;
    let mut peak_kib = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak_kib = peak_kib.max(memory_kib(child.id(), "VmHWM").unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        return Err(format!("tollgate run ended with {status}").into());
    }
    Ok((started.elapsed(), peak_kib))
}

/// Asks the lake for its totals.
fn verify(home: &Path, totals: &Totals) -> Result<()> {
    let output = tollgate(home, &["query", TOTALS, "--format", "csv"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let found = text.lines().nth(1).unwrap_or_default();
    let expected = format!(
        "{},{},{}",
        totals.events, totals.input_tokens, totals.output_tokens
    );
    if found != expected {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(
            format!("totals differ: {expected} published, `{found}` found {errors}").into(),
        );
    }
    Ok(())
}

/// Bytes of the Parquet files of `events` and of the meters.
fn lake_size(lake: &Path) -> Result<LakeSize> {
    Ok(LakeSize {
        events_bytes: parquet_bytes(&lake.join("events"))?,
        meter_bytes: parquet_bytes(&lake.join("meters"))?,
    })
}

fn parquet_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if path.is_dir() && entry.file_name() != "_delta_log" {
            bytes += parquet_bytes(&path)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn line(case: &Case, round: u64, measured: &Round) -> String {
    let events = case.load.events;
    let per_event = |bytes: u64| hundredths(u128::from(bytes) * 100 / u128::from(events));
    let ratio = measured.bare.as_micros() * 100 / measured.run.as_micros().max(1);
    format!(
        "{:<18} {round:>9} {:>14} {:>14} {:>9} {:>13} {:>13} {:>7} MB",
        case.name,
        rate(events, measured.bare),
        rate(events, measured.run),
        hundredths(ratio),
        per_event(measured.lake.events_bytes),
        per_event(measured.lake.meter_bytes),
        measured.peak_kib / 1_000,
    )
}

fn rate(events: u64, elapsed: Duration) -> u128 {
    u128::from(events) * 1_000_000 / elapsed.as_micros().max(1)
}

fn hundredths(n: u128) -> String {
    format!("{}.{:02}", n / 100, n % 100)
}
