//! A gateway that serves completions, reports them to a stream, and bills the month.
//!
//! ```text
//! cargo run -p tollgate --example publisher
//! ```
//!
//! The first half is what a backend service does, with nothing but async-nats: it creates a stream,
//! publishes CloudEvents a hundred to a message, awaits every acknowledgement, and sends again what
//! it is not sure of. The second half is what `tollgate run --until-end`, `query` and `invoice` do,
//! called as a library, with the definitions in `examples/token_pricing`.
//!
//! It starts a nats-server of its own in a temporary folder (the binary is the one that
//! `TOLLGATE_NATS_SERVER` names, else the one on `PATH`), prints the invoices, and fails if a total is
//! not the one worked out by hand below.
#![expect(
    clippy::print_stdout,
    reason = "an example shows what it does on stdout"
)]

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
    },
};
use serde_json::json;
use std::{error::Error, path::Path, sync::Arc};
use tokio::sync::watch;
use tollgate::{
    billing,
    catalog::Catalog,
    cli::{
        invoice::listing,
        output::{Format, encode_rows},
        run::{summary, supervise},
    },
    clock::SystemClock,
    config::{Settings, SourceSettings},
    shard::Questions,
    view::View,
};
use tollgate_connectors::{lake::Lake, nats::server::NatsServer};
use tollgate_sql::period::Period;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The definitions, rates and settings that the example bills with.
const SETTINGS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/token_pricing/tollgate.toml"
);

/// 2026-01-01T00:00:00Z in seconds: a month that is over, so its invoices can be issued.
const START_S: i64 = 1_767_225_600;
/// A step of the story: every quarter of an hour a customer asks for something.
const STEP_S: i64 = 900;
const STEPS: u32 = 2_000;
/// Events in one message. A message is stored, or not, as a whole.
const BATCH: usize = 100;

/// Every call has the same size, so that what the month must come to can be worked out by hand.
const INPUT: u32 = 1_200;
/// Of the input, read from the prompt cache: a part of it, not on top of it.
const CACHED: u32 = 1_000;
const OUTPUT: u32 = 80;

/// Calls times 1,200, 1,000 and 80 tokens.
const USAGE: &str = "\
subject,model,calls,input,cached,output
acme,sage-2,2000,2400000,2000000,160000
acme,swift-1,333,399600,333000,26640
globex,sage-2,500,600000,500000,40000
";

/// In dollars, by the rates of `model_rates.csv`:
///
/// ```text
/// acme    sage-2   (2,400,000 - 2,000,000) × 0.000003    = 1.20
///                              2,000,000  × 0.0000003   = 0.60
///                                160,000  × 0.000015    = 2.40       4.20
///         swift-1  (399,600 - 333,000) × 0.00000025     = 0.01665
///                              333,000 × 0.000000025    = 0.008325
///                               26,640 × 0.00000125     = 0.0333     0.058275, rounded 0.06
/// globex  sage-2   (600,000 - 500,000) × 0.000003       = 0.30
///                              500,000 × 0.0000003      = 0.15
///                               40,000 × 0.000015       = 0.60       1.05
/// ```
const TOTALS: [(&str, &str); 2] = [("acme", "4.26"), ("globex", "1.05")];

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let binary = NatsServer::find()
        .ok_or("no nats-server: put one on PATH, or name it in TOLLGATE_NATS_SERVER")?;
    let server = NatsServer::start(&binary, &folder.path().join("nats"), None).await?;
    let settings = settings(server.url(), folder.path())?;

    publish(&settings.source).await?;
    bill(&settings).await?;

    server.stop().await?;
    folder.close()?;
    Ok(())
}

/// The example's settings, but this server's stream and a lake in the temporary folder.
fn settings(url: &str, folder: &Path) -> Result<Settings> {
    let mut settings = Settings::load(Path::new(SETTINGS), std::iter::empty())?;
    settings.source.url = url.into();
    settings.lake.url = format!("file://{}", folder.join("lake").display());
    Ok(settings)
}

/// What the service does: reports a month of calls, and some of them more than once.
async fn publish(source: &SourceSettings) -> Result<()> {
    let client = async_nats::connect(source.url.expose()).await?;
    let jetstream = jetstream::new(client);
    jetstream.create_stream(stream(source)).await?;
    let subject = source.subjects[0].replace('>', "llm.completion");

    let calls = calls()?;
    for (number, batch) in calls.chunks(BATCH).enumerate() {
        let message_id = format!("gateway-1/{number}");
        let is_duplicate = send(&jetstream, &subject, batch, &message_id).await?;
        assert!(!is_duplicate, "message {number} was sent once");
    }
    println!(
        "{} events in {} messages, all acknowledged",
        calls.len(),
        calls.len().div_ceil(BATCH)
    );

    // An acknowledgement that got lost: the same message at once again. The stream knows its id for two
    // minutes by default and stores nothing.
    let again = &calls[..BATCH];
    let is_duplicate = send(&jetstream, &subject, again, "gateway-1/0").await?;
    assert!(is_duplicate, "the stream recognised the message");

    // A restart that forgot what was acknowledged: the same events in another message, which the stream
    // does store. Tollgate knows the events by their source and id, and counts none of them twice.
    let is_duplicate = send(&jetstream, &subject, again, "gateway-1-restarted/0").await?;
    assert!(!is_duplicate, "the stream took it for a new message");
    println!("{BATCH} of them sent again, twice\n");
    Ok(())
}

/// A stream that Tollgate can read exactly once: everything is kept within its limits, on disk, no
/// client can take anything out, and a full stream refuses the publisher instead of forgetting what was not yet
/// metered.
fn stream(source: &SourceSettings) -> Config {
    Config {
        name: source.stream.clone(),
        subjects: source.subjects.clone(),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        deny_delete: true,
        deny_purge: true,
        ..Config::default()
    }
}

/// Publishes one message of events, one a line, and waits until it is stored. Returns whether the
/// stream had it already.
async fn send(
    jetstream: &jetstream::Context,
    subject: &str,
    events: &[String],
    message_id: &str,
) -> Result<bool> {
    let mut headers = HeaderMap::new();
    headers.insert("Content-Type", "application/x-ndjson");
    headers.insert("Nats-Msg-Id", message_id);
    let payload = events.join("\n");
    let acknowledgement = jetstream
        .publish_with_headers(subject.to_owned(), headers, payload.into())
        .await?;
    Ok(acknowledgement.await?.duplicate)
}

/// The month's calls in the order they happened: acme's agent runs all the time, its summaries and
/// globex only at first.
fn calls() -> Result<Vec<String>> {
    let mut events = Vec::new();
    for step in 0..STEPS {
        events.push(call(step, "acme", "sage-2")?);
        if step < 333 {
            events.push(call(step, "acme", "swift-1")?);
        }
        if step < 500 {
            events.push(call(step, "globex", "sage-2")?);
        }
    }
    Ok(events)
}

/// One call as a CloudEvent. Its id says what happened, not when it was sent: the same call has the same
/// id however often it is sent.
fn call(step: u32, customer: &str, model: &str) -> Result<String> {
    let time = jiff::Timestamp::from_second(START_S + STEP_S * i64::from(step))?;
    let event = json!({
        "specversion": "1.0",
        "id": format!("{customer}/{model}/{step}"),
        "source": "gateway-1",
        "type": "llm.completion",
        "subject": customer,
        "time": time.to_string(),
        "data": {
            "model": model,
            "input_tokens": INPUT,
            "cached_tokens": CACHED,
            "output_tokens": OUTPUT,
        },
    });
    Ok(event.to_string())
}

/// What Tollgate does: meters the stream to its end, answers a query, issues the month's invoices.
async fn bill(settings: &Settings) -> Result<()> {
    let catalog = Arc::new(Catalog::load(settings).await?);
    // No caller stops this run early; the sender must live as long as the run.
    let (_stop, stopped) = watch::channel(false);
    let report = supervise(settings, &catalog, true, stopped, Questions::none()).await?;
    let report = report.ok_or("the run was stopped")?;
    println!("{}", summary(&report));
    assert_eq!(report.counts.counted, 2_833);
    assert_eq!(report.counts.repeats, 100);
    assert_eq!(report.counts.rejected, 0);

    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let view = View::open(catalog, &lake).await?;
    let usage = usage(&view).await?;
    println!("{usage}");
    assert_eq!(usage, USAGE);

    let period = Period::month("2026-01", &settings.billing.time_zone)?;
    let drafts = billing::draft(&view, &settings.billing, &period).await?;
    let issued = billing::issue(&view, &lake, drafts, &period, &SystemClock).await?;
    print!("{}", listing(&issued.issued));
    let invoices = issued.issued.iter();
    let totals: Vec<(&str, String)> = invoices
        .map(|invoice| (invoice.customer.as_str(), invoice.total.amount_text()))
        .collect();
    let expected = TOTALS.map(|(customer, total)| (customer, total.to_owned()));
    assert_eq!(totals, expected);
    Ok(())
}

/// What was used in all, as CSV.
async fn usage(view: &View) -> Result<String> {
    let sql = "SELECT subject, model, SUM(calls) AS calls, SUM(input) AS input, SUM(cached) AS cached, \
               SUM(output) AS output FROM tokens GROUP BY subject, model ORDER BY subject, model";
    let rows = view.session(sql).await?.sql(sql).await?;
    let schema = Arc::clone(rows.schema().inner());
    let csv = encode_rows(&schema, &rows.collect().await?, Format::Csv)?;
    Ok(String::from_utf8(csv)?)
}
