//! A lake of more and more customers: what one of them costs.

use super::{EVENTS_FILE, Result, STREAM, TASKS, check, ms, part, quickest, settings};
use arrow::{array::AsArray, datatypes::Int64Type};
use bytes::Bytes;
use std::{
    fs,
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
    live,
    shard::Questions,
    view::View,
};
use tollgate_connectors::{
    lake::Lake,
    nats::{NatsOptions, Publisher, server::NatsServer},
};

/// 2026-01-05: long ago, so that every window is due.
const START_S: i64 = 1_767_571_200;
/// Hours in which each customer has an event.
const HOURS: u64 = 10;
const PER_MESSAGE: usize = 100;

/// A lake of so many customers, each with an event in every hour: what one of them costs.
pub(super) fn customers(folder: &Path, count: u64) -> Result<()> {
    cli::runtime()?.block_on(async {
        let settings = settings(folder, TASKS, EVENTS_FILE)?;
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
        let period = settings.month("2026-01")?;
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
    let settings = settings(&home, TASKS, &format!("url = \"{url}\"\n"))?;
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

async fn calls(view: &View, condition: &str) -> Result<u64> {
    let sql = format!("SELECT CAST(SUM(calls) AS BIGINT) AS calls FROM tasks {condition}");
    let rows = view.session(&sql).await?.sql(&sql).await?.collect().await?;
    let calls = rows[0]["calls"].as_primitive::<Int64Type>().value(0);
    Ok(u64::try_from(calls)?)
}

pub(super) fn write_events(path: &Path, customers: u64) -> Result<()> {
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
