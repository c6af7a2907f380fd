//! One event type with more and more meters of the same keys, each with a filter and a sum of its own: what a meter costs.
//!
//! `TOLLGATE_BENCH_EVENTS` is how many events there are; 1,000,000 by default.

use super::{EVENTS_FILE, Failure, Result, check, ms, settings, types};
use arrow::{array::AsArray, datatypes::Int64Type};
use std::{
    fs,
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

const SUBJECTS: u64 = 10_000;
const MODELS: u64 = 3;

/// A lake of one event type and so many meters, with 30,000 groups in each window of each.
pub(super) fn meters(folder: &Path, count: u64) -> Result<()> {
    let events = types::events_asked_for()?;
    cli::runtime()?.block_on(async {
        let settings = settings(folder, &definitions_of(count), EVENTS_FILE)?;
        write_events(&folder.join("events.ndjson"), events)?;
        let catalog = Arc::new(Catalog::load(&settings).await?);
        let run = async || {
            let (_stop, stopped) = watch::channel(false);
            let questions = Questions::none();
            let started = Instant::now();
            Box::pin(supervise(&settings, &catalog, true, stopped, questions)).await?;
            Ok::<_, Failure>(started.elapsed())
        };
        types::forget_peak()?;
        let first = run().await?;
        let peak = types::peak_mb()?;
        let again = run().await?;
        let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
        let view = View::open(Arc::clone(&catalog), &lake).await?;
        for meter in [0, count / 2, count - 1] {
            let sql = format!(
                "SELECT CAST(SUM(n) AS BIGINT) AS n, CAST(SUM(calls) AS BIGINT) AS calls FROM meter_{meter}"
            );
            let rows = view.session(&sql).await?.sql(&sql).await?.collect().await?;
            let number = |column: &str| rows[0][column].as_primitive::<Int64Type>().value(0);
            let found = (u64::try_from(number("n"))?, u64::try_from(number("calls"))?);
            let counted = (0..events).filter(|event| event * 31 % 100 >= meter);
            let sums = counted.map(|event| (event % 50 + meter, 1));
            let expected = sums.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
            check(&format!("sum and calls of meter {meter}"), found, expected)?;
        }
        let each_ns = first.as_nanos() / u128::from(events);
        let rate = 1_000_000_000 / each_ns.max(1);
        println!("{count:>9} {rate:>9} {each_ns:>13} {peak:>9} {:>16}", ms(again));
        Ok(())
    })
}

fn definitions_of(meters: u64) -> String {
    let event_type =
        "CREATE EVENT TYPE call (model VARCHAR NOT NULL, n BIGINT NOT NULL, m BIGINT NOT NULL)
         WITH (type = 'bench.call');\n"
            .to_owned();
    let meter = |number: u64| {
        format!(
            "CREATE METER meter_{number} WITH (window = '1 hour', lateness = '10 minutes') AS
             SELECT subject, model, SUM(n + {number}) AS n, COUNT(*) AS calls FROM call
             WHERE m >= {number} GROUP BY subject, model;\n"
        )
    };
    event_type + &(0..meters).map(meter).collect::<String>()
}

fn write_events(path: &Path, events: u64) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for event in 0..events {
        let time = types::START_S + i64::try_from(event * 7_000 / events)?;
        let time = jiff::Timestamp::from_second(time)?;
        let group = event.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
        let (subject, model) = (group / MODELS % SUBJECTS, group % MODELS);
        let (n, m) = (event % 50, event * 31 % 100);
        writeln!(
            file,
            r#"{{"specversion":"1.0","id":"{event:016x}","source":"bench","type":"bench.call","subject":"customer-{subject:05}","time":"{time}","data":{{"model":"model-{model}","n":{n},"m":{m}}}}}"#
        )?;
    }
    file.flush()?;
    Ok(())
}
