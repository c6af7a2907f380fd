//! What HTTP takes: events of many requests at once, and how soon they are seen.
//!
//! ```text
//! cargo bench --workspace --bench http
//! ```
//! A real `tollgate run` over a real nats-server. First the same events three times, each time with ids of their own: by a bare publisher
//! over NATS, 100 events to a message; in requests of 100 events; in requests of one. Each request waits for its answer, which comes
//! when JetStream has acknowledged it. Each way begins when the shard has counted all events of the one before, every event once. Then how
//! fast it counts by itself, and beside ten statements of SQL that would run for ever. Then a load of a fixed
//! rate, beside which one event after the other is published and asked for until the answer has it. At last what one customer of very many has spent
//! in the running month, whose amount is known. What can be compared between machines is the share of the bare publisher's rate.
//!
//! | variable | default | |
//! |---|---|---|
//! | `TOLLGATE_BENCH_EVENTS` | 200000 | events of each way; a tenth of them in requests of one |
//! | `TOLLGATE_BENCH_RATE` | 20000 | events a second beside which visibility is measured, 100 to a request |
//! | `TOLLGATE_BENCH_PROBES` | 200 | events, and customers, that are asked for |
//! | `TOLLGATE_BENCH_CUSTOMERS` | 100000 | customers of whom one is asked for |
//! | `TOLLGATE_NATS_SERVER` | on `PATH` | the nats-server to start |
#![expect(clippy::print_stdout, reason = "the table is the result")]

use bytes::Bytes;
use reqwest::{Client, StatusCode};
use serde_json::Value;
use std::{
    env,
    fs::{self, File},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::Mutex,
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tollgate::cli::{
    self,
    demo::generator::{Load, Workload},
};
use tollgate_connectors::nats::{NatsOptions, Publisher, server::NatsServer};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

const DEFINITIONS: &str = "
CREATE EVENT TYPE llm_completion (
    model VARCHAR NOT NULL, region VARCHAR NOT NULL,
    input_tokens BIGINT NOT NULL, output_tokens BIGINT NOT NULL
) WITH (type = 'llm.completion');

CREATE METER tokens WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, model, SUM(input_tokens) AS input, COUNT(*) AS calls
FROM llm_completion GROUP BY subject, model;

CREATE PRICE input WITH (currency = 'USD') AS
SELECT customer, SUM(input) AS quantity, SUM(input) * 0.25 AS amount FROM tokens GROUP BY customer;

CREATE PLAN payg WITH (currency = 'USD', billing_period = 'month') AS (input);
";
/// 2026-01-01: long ago, so that no event is ahead of the stream's clock.
const START_US: i64 = 1_767_225_600_000_000;
const STREAM: &str = "BENCH";
const PER_MESSAGE: usize = 100;
/// Requests at once, as a gateway has them.
const AT_ONCE: usize = 16;
const AT_ONCE_OF_ONE: usize = 64;

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
    let engine = Engine::start(folder.path(), server.url()).await?;
    let events = number("TOLLGATE_BENCH_EVENTS", 200_000)?;
    println!(
        "by          events a request   at once    events   events/s   of bare    p50 ms    p99 ms"
    );
    let (bare, mut counted) = publish(server.url(), 1, events).await?;
    row("publisher", (PER_MESSAGE, 0), events, bare, &[], bare);
    engine.count(counted).await?;
    for (per_request, at_once, part, seed) in [
        (PER_MESSAGE, AT_ONCE, events, 2),
        (1, AT_ONCE_OF_ONE, events / 10, 3),
    ] {
        let (bodies, count) = bodies(seed, part, per_request);
        counted += count;
        let (took, answers) = engine.send(bodies, at_once).await?;
        let bare = share(bare, part, events);
        row("HTTP", (per_request, at_once), part, took, &answers, bare);
        engine.count(counted).await?;
    }
    counted = beside_greedy(&engine, server.url(), counted).await?;
    engine
        .until("/api/v1/meters/tokens_calls/query", counted)
        .await?;
    visible(&engine).await?;
    spend(&engine).await?;
    drop(engine);
    server.stop().await?;
    Ok(())
}

/// What a part of some events would have taken.
fn share(took: Duration, part: u64, of: u64) -> Duration {
    let micros = took.as_micros() * u128::from(part) / u128::from(of.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

fn row(
    by: &str,
    (per_request, at_once): (usize, usize),
    events: u64,
    took: Duration,
    answers: &[Duration],
    bare: Duration,
) {
    let rate = u128::from(events) * 1_000_000 / took.as_micros().max(1);
    let share = bare.as_micros() * 100 / took.as_micros().max(1);
    let ms = |permille| match answers.is_empty() {
        true => "-".to_owned(),
        false => millis(quantile(answers, permille)),
    };
    println!(
        "{by:<12} {per_request:>15} {at_once:>9} {events:>9} {rate:>10} {share:>7} % {:>9} {:>9}",
        ms(500),
        ms(990)
    );
}

fn millis(duration: Duration) -> String {
    let micros = duration.as_micros();
    format!("{}.{:02}", micros / 1_000, micros % 1_000 / 10)
}

fn quantile(took: &[Duration], permille: usize) -> Duration {
    let mut took = took.to_vec();
    took.sort_unstable();
    let at = (took.len() * permille / 1_000).min(took.len().saturating_sub(1));
    took.get(at).copied().unwrap_or_default()
}

fn workload(seed: u64, events: u64) -> Workload {
    Workload::new(Load {
        seed,
        events,
        start_us: START_US,
        events_per_second: 1_000,
    })
}

/// The bodies of requests, made before the clock runs, and how many of their events count: some are repeats.
fn bodies(seed: u64, events: u64, per_request: usize) -> (Vec<Bytes>, u64) {
    let mut workload = workload(seed, events);
    let mut bodies = Vec::new();
    loop {
        let mut body = Vec::with_capacity(300 * per_request);
        if workload.write(per_request, &mut body) == 0 {
            return (bodies, workload.totals().events);
        }
        bodies.push(body.into());
    }
}

/// Publishes as a program does that speaks NATS itself, many messages in flight.
async fn publish(url: &str, seed: u64, events: u64) -> Result<(Duration, u64)> {
    let (bodies, counted) = bodies(seed, events, PER_MESSAGE);
    let headers = [("Content-Type".to_owned(), "application/x-ndjson".to_owned())];
    let mut publisher = Publisher::connect(NatsOptions {
        subjects: vec!["bench.>".into()],
        ..NatsOptions::new(url, STREAM)
    })
    .await?;
    let began = Instant::now();
    for body in bodies {
        publisher.publish("bench.usage", &headers, body).await?;
    }
    publisher.finish().await?;
    Ok((began.elapsed(), counted))
}

/// How many statements run beside metering.
const GREEDY: usize = 10;

/// How fast the shard counts by itself, and beside statements that take all they may; how many events have counted then.
async fn beside_greedy(engine: &Engine, url: &str, mut counted: u64) -> Result<u64> {
    let events = 5 * number("TOLLGATE_BENCH_EVENTS", 200_000)?;
    let mut rates = Vec::new();
    for (seed, statements) in [(5, 0), (6, GREEDY), (7, 0), (8, GREEDY)] {
        let mut greedy = JoinSet::new();
        for _ in 0..statements {
            greedy.spawn(engine.greedy());
        }
        let began = Instant::now();
        let (_, more) = publish(url, seed, events).await?;
        counted += more;
        engine.count(counted).await?;
        rates.push(u128::from(events) * 1_000_000 / began.elapsed().as_micros().max(1));
        greedy.shutdown().await;
    }
    let (alone, beside) = (rates[0] + rates[2], rates[1] + rates[3]);
    println!(
        "\ncounted by itself {} and {} events/s, beside {GREEDY} greedy statements {} and {}: {} %",
        rates[0],
        rates[2],
        rates[1],
        rates[3],
        beside * 100 / alone.max(1)
    );
    Ok(counted)
}

/// How soon an event that was published is in an answer, beside a load.
async fn visible(engine: &Engine) -> Result<()> {
    let rate = number("TOLLGATE_BENCH_RATE", 20_000)?;
    let probes = number("TOLLGATE_BENCH_PROBES", 200)?;
    let stop = Arc::new(AtomicBool::new(false));
    let loading = engine.load(rate, Arc::clone(&stop));
    let (mut acknowledged, mut seen) = (Vec::new(), Vec::new());
    for probe in 0..probes {
        let event = serde_json::json!({
            "specversion": "1.0", "id": format!("probe-{probe}"), "source": "bench", "type": "llm.completion",
            "subject": format!("probe-{probe}"), "time": "2026-01-01T00:00:00Z",
            "data": {"model": "m", "region": "eu", "input_tokens": 1, "output_tokens": 1},
        });
        let began = Instant::now();
        engine.events.post(event.to_string().into()).await?;
        acknowledged.push(began.elapsed());
        let path = format!("/api/v1/meters/tokens_calls/query?subject=probe-{probe}");
        while engine.value(&path).await? != Some(1) {}
        seen.push(began.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    let (sent, took) = loading.await??;
    let kept = u128::from(sent) * 1_000_000 / took.as_micros().max(1);
    println!(
        "\nvisible beside {kept} events/s, {probes} events: acknowledged p50 {} ms, p99 {} ms; in an answer p50 {} ms, p99 {} ms",
        millis(quantile(&acknowledged, 500)),
        millis(quantile(&acknowledged, 990)),
        millis(quantile(&seen, 500)),
        millis(quantile(&seen, 990))
    );
    Ok(())
}

/// How soon one customer's spend of the running month is told, among very many.
async fn spend(engine: &Engine) -> Result<()> {
    let customers = number("TOLLGATE_BENCH_CUSTOMERS", 100_000)?;
    // Without a time an event happened when it was stored: now.
    let event = |customer: u64| {
        format!(
            "{{\"specversion\":\"1.0\",\"id\":\"spend-{customer}\",\"source\":\"bench\",\"type\":\"llm.completion\",\
             \"subject\":\"customer-{customer}\",\"data\":{{\"model\":\"spend\",\"region\":\"eu\",\
             \"input_tokens\":{customer},\"output_tokens\":1}}}}\n"
        )
    };
    let all: Vec<u64> = (1..=customers).collect();
    let bodies = all.chunks(PER_MESSAGE);
    let bodies = bodies.map(|chunk| chunk.iter().copied().map(event).collect::<String>().into());
    engine.send(bodies.collect(), AT_ONCE).await?;
    let path = "/api/v1/meters/tokens_calls/query?filterGroupBy%5Bmodel%5D=spend";
    engine.until(path, customers).await?;
    let probes = number("TOLLGATE_BENCH_PROBES", 200)?;
    let mut took = Vec::new();
    for probe in 0..probes {
        let customer = 1 + probe * (customers - 1) / probes.max(1);
        let began = Instant::now();
        let answer = engine
            .answer(&format!("/api/v1/customers/customer-{customer}/spend"))
            .await?;
        took.push(began.elapsed());
        // A quarter of a dollar each.
        let cents = customer * 25;
        let expected = format!("{}.{:02}", cents / 100, cents % 100);
        if !answer.contains(&expected) {
            return Err(format!("customer-{customer} owes {expected}: {answer}").into());
        }
    }
    println!(
        "spend of one of {customers} customers: p50 {} ms, p99 {} ms",
        millis(quantile(&took, 500)),
        millis(quantile(&took, 990))
    );
    Ok(())
}

/// A process that runs the shard, with HTTP beside it.
struct Engine {
    child: Child,
    door: String,
    client: Client,
    events: Sender,
}

impl Engine {
    async fn start(folder: &Path, url: &str) -> Result<Self> {
        fs::create_dir_all(folder.join("definitions"))?;
        fs::write(folder.join("definitions/tokens.sql"), DEFINITIONS)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = File::create(folder.join("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .arg("run")
            .current_dir(folder)
            .env("TOLLGATE_DEFINITIONS", "definitions/")
            .env("TOLLGATE_SOURCE_URL", url)
            .env("TOLLGATE_SOURCE_STREAM", STREAM)
            .env("TOLLGATE_SOURCE_SUBJECTS", "bench.>")
            .env("TOLLGATE_SOURCE_CREATE", "true")
            .env("TOLLGATE_HTTP_LISTEN", address.to_string())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let (door, client) = (format!("http://{address}"), Client::new());
        let events = Sender {
            path: format!("{door}/api/v1/events"),
            client: client.clone(),
        };
        let engine = Engine {
            child,
            door,
            client,
            events,
        };
        let ready = format!("{}/readyz", engine.door);
        let mut ticks = interval(Duration::from_millis(100));
        for _ in 0..600 {
            if let Ok(answer) = engine.client.get(&ready).send().await
                && answer.status() == StatusCode::OK
            {
                return Ok(engine);
            }
            ticks.tick().await;
        }
        Err("the engine did not become ready".into())
    }

    /// Sends all bodies, so many at once; how long that took, and each of them.
    async fn send(&self, bodies: Vec<Bytes>, at_once: usize) -> Result<(Duration, Vec<Duration>)> {
        let bodies = Arc::new(Mutex::new(bodies.into_iter()));
        let began = Instant::now();
        let mut senders = JoinSet::new();
        for _ in 0..at_once {
            let (bodies, events) = (Arc::clone(&bodies), self.events.clone());
            senders.spawn(async move {
                let mut took = Vec::new();
                loop {
                    let Some(body) = bodies.lock().await.next() else {
                        return Ok::<_, Failure>(took);
                    };
                    let began = Instant::now();
                    events.post(body).await?;
                    took.push(began.elapsed());
                }
            });
        }
        let mut took = Vec::new();
        while let Some(sent) = senders.join_next().await {
            took.extend(sent??);
        }
        Ok((began.elapsed(), took))
    }

    /// Sends so many events a second until it is told to stop; how many there were, and how long it took.
    fn load(&self, rate: u64, stop: Arc<AtomicBool>) -> JoinHandle<Result<(u64, Duration)>> {
        let sender = self.events.clone();
        let per_message = u64::try_from(PER_MESSAGE).unwrap_or(u64::MAX);
        let every = Duration::from_micros(1_000_000 * per_message / rate.max(1));
        let mut workload = workload(4, u64::MAX);
        tokio::spawn(async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut requests = JoinSet::new();
            let (mut sent, began) = (0, Instant::now());
            while !stop.load(Ordering::Relaxed) {
                ticks.tick().await;
                let mut body = Vec::with_capacity(300 * PER_MESSAGE);
                workload.write(PER_MESSAGE, &mut body);
                let sender = sender.clone();
                requests.spawn(async move { sender.post(body.into()).await });
                sent += per_message;
                while let Some(done) = requests.try_join_next() {
                    done??;
                }
            }
            while let Some(done) = requests.join_next().await {
                done??;
            }
            Ok((sent, began.elapsed()))
        })
    }

    /// Waits until the shard has counted so many events, by what it tells Prometheus.
    async fn count(&self, events: u64) -> Result<()> {
        let counted = format!("tollgate_events_total{{status=\"counted\"}} {events}\n");
        let mut ticks = interval(Duration::from_millis(5));
        for _ in 0..60_000 {
            if self.answer("/metrics").await?.contains(&counted) {
                return Ok(());
            }
            ticks.tick().await;
        }
        Err(format!("{events} events were acknowledged and did not count").into())
    }

    /// Asks for what takes for ever, again and again.
    fn greedy(&self) -> impl Future<Output = ()> + use<> {
        let sql = "SELECT COUNT(*) FROM events AS a, events AS b WHERE a.id < b.subject";
        let asked = serde_json::json!({ "sql": sql }).to_string();
        let (client, path) = (self.client.clone(), format!("{}/api/v1/query", self.door));
        async move {
            loop {
                let asked = client.post(&path).body(asked.clone());
                // That it ends with an error is what it is for.
                let _ = asked.send().await;
            }
        }
    }

    /// The value of a query without windows or groups of its own; `None` when there is none yet.
    async fn value(&self, path: &str) -> Result<Option<u64>> {
        let answer: Value = serde_json::from_str(&self.answer(path).await?)?;
        let rows = answer["data"]
            .as_array()
            .ok_or_else(|| answer.to_string())?;
        Ok(rows.first().and_then(|row| row["value"].as_u64()))
    }

    async fn answer(&self, path: &str) -> Result<String> {
        let asked = self.client.get(format!("{}{path}", self.door));
        Ok(asked.send().await?.text().await?)
    }

    /// Waits until the value of a query is what it must be.
    async fn until(&self, path: &str, events: u64) -> Result<()> {
        let mut last = None;
        let mut ticks = interval(Duration::from_millis(100));
        for _ in 0..600 {
            last = self.value(path).await?;
            if last == Some(events) {
                return Ok(());
            }
            ticks.tick().await;
        }
        Err(format!("{events} were acknowledged, {last:?} are counted").into())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Nothing can be done about a process that does not end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One that sends requests over connections of all.
#[derive(Clone)]
struct Sender {
    path: String,
    client: Client,
}

impl Sender {
    async fn post(&self, body: Bytes) -> Result<()> {
        let request = self.client.post(&self.path);
        let request = request.header("Content-Type", "application/x-ndjson");
        let answer = request.body(body).send().await?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(()),
            status => Err(format!("{status}: {}", answer.text().await?).into()),
        }
    }
}

fn number(variable: &str, default: u64) -> Result<u64> {
    match env::var(variable) {
        Ok(text) => Ok(text.parse()?),
        Err(_) => Ok(default),
    }
}
