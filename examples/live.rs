//! Spend while events stream in: a dashboard beside a running shard, in one process.
//!
//! ```text
//! cargo run -p tollgate --example live
//! ```
//!
//! A gateway publishes calls that cost what `examples/token_pricing` says. Nothing is flushed for an hour,
//! so the lake stays empty while we look; still, every answer is exact up to the message that it names,
//! priced by the query that the invoice is made by. At the end the lake says the same.
//!
//! It starts a nats-server of its own in a temporary folder (the binary is the one that
//! `TOLLGATE_NATS_SERVER` names, else the one on `PATH`), and fails if an answer is not the one worked out
//! by hand below.
#![expect(
    clippy::print_stdout,
    reason = "an example shows what it does on stdout"
)]

use async_nats::jetstream::{self, stream::Config};
use serde_json::json;
use std::{error::Error, path::Path, sync::Arc};
use tokio::sync::watch;
use tollgate::{
    billing,
    catalog::Catalog,
    cli::run::supervise,
    config::{Length, Settings},
    live::{self, Live},
    view::View,
};
use tollgate_connectors::{lake::Lake, nats::server::NatsServer};
use tollgate_sql::period::Period;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const SETTINGS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../examples/token_pricing/tollgate.toml"
);

/// A call has 1,200 input tokens, 1,000 of them cached, and 80 output tokens; by the rates of
/// `model_rates.csv` for sage-2 that is
/// 200 × 0.000003 + 1,000 × 0.0000003 + 80 × 0.000015 = 0.0021 dollars.
const CALLS: [u64; 3] = [100, 1_000, 5_000];
const SPEND: [&str; 3] = ["0.21", "2.10", "10.50"];

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let binary = NatsServer::find()
        .ok_or("no nats-server: put one on PATH, or name it in TOLLGATE_NATS_SERVER")?;
    let server = NatsServer::start(&binary, &folder.path().join("nats"), None).await?;
    let mut settings = Settings::load(Path::new(SETTINGS), std::iter::empty())?;
    settings.source.url = server.url().into();
    settings.lake.url = format!("file://{}", folder.path().join("lake").display());
    settings.flush.interval = Length(3_600_000_000);
    let jetstream = jetstream::new(async_nats::connect(server.url()).await?);
    let stream = Config {
        name: settings.source.stream.clone(),
        subjects: settings.source.subjects.clone(),
        ..Config::default()
    };
    jetstream.create_stream(stream).await?;

    let catalog = Arc::new(Catalog::load(&settings).await?);
    let (live, questions) = live::live(Arc::clone(&catalog));
    let (stop, stopped) = watch::channel(false);
    let metering = {
        let (settings, catalog) = (settings.clone(), Arc::clone(&catalog));
        tokio::spawn(async move {
            let report = supervise(&settings, &catalog, false, stopped, questions).await;
            report.map_err(|error| error.to_string())
        })
    };
    let subject = settings.source.subjects[0].replace('>', "llm.completion");
    let mut published = 0;
    for (calls, expected) in CALLS.into_iter().zip(SPEND) {
        while published < calls {
            published += 1;
            let payload = call(published)?.into();
            jetstream.publish(subject.clone(), payload).await?.await?;
        }
        let view = up_to(&live, published).await?;
        let spend = spend(&view, &settings).await?;
        println!("{calls:>5} calls, {spend:>5} dollars so far");
        assert_eq!(spend, expected);
        let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
        let committed = View::open(Arc::clone(&catalog), &lake).await?;
        for (shard, position) in committed.cuts().await? {
            assert_eq!(position.sequence.0, 0, "nothing of {shard} is flushed yet");
        }
    }

    stop.send_replace(true);
    metering.await??;
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
    let committed = spend(&View::open(catalog, &lake).await?, &settings).await?;
    println!("      and in the lake: {committed}");
    assert_eq!(committed, SPEND[2]);
    server.stop().await?;
    folder.close()?;
    Ok(())
}

/// The shard, once it has processed a message.
async fn up_to(live: &Live, message: u64) -> Result<View> {
    loop {
        let view = live.view().await?;
        if view.cuts().await?[0].1.sequence.0 >= message {
            return Ok(view);
        }
    }
}

/// What acme's next invoice comes to.
async fn spend(view: &View, settings: &Settings) -> Result<String> {
    let period = Period::month("2026-01", &settings.billing.time_zone)?;
    let drafts = billing::draft(view, &settings.billing, &period)
        .await?
        .invoices;
    Ok(drafts[0].total.amount_text())
}

/// One call as a CloudEvent, a second after the one before.
fn call(number: u64) -> Result<String> {
    let time = jiff::Timestamp::from_second(1_767_225_600 + i64::try_from(number)?)?;
    let event = json!({
        "specversion": "1.0",
        "id": number.to_string(),
        "source": "gateway-1",
        "type": "llm.completion",
        "subject": "acme",
        "time": time.to_string(),
        "data": {
            "model": "sage-2",
            "input_tokens": 1_200,
            "cached_tokens": 1_000,
            "output_tokens": 80,
        },
    });
    Ok(event.to_string())
}
