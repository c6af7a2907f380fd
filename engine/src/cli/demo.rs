//! `tollgate demo`: a month of generated usage end to end, ending in invoices.
//!
//! ```text
//! folder::prepare ─▶ feed: generator::Month ─▶ JetStream or a file ─▶ run::supervise
//!                                │ what it must come to                    │ what was counted
//!                                └──────────────▶ check ◀──────────────────┤
//!                            billing::issue, audit: as the commands ◀──────┘
//! ```
//!
//! The generator knows what the month adds up to, so the demo does not only show numbers: where one
//! differs, it fails.

mod check;
mod feed;
mod folder;
pub mod generator;
mod show;

use crate::{
    billing,
    catalog::Catalog,
    cli::{
        audit::print as print_finding,
        demo::generator::{Expected, Month, MonthSettings},
        output,
        run::{stop_on_signal, supervise},
    },
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, Result},
    jobs::audit::{Finding, audit},
    shard::Questions,
    telemetry::Counts,
    view::View,
};
use clap::Args;
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tollgate_connectors::{lake::Lake, nats::server::NatsServer};
use tollgate_sql::period::Period;

/// Arguments of `tollgate demo`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The nats-server to use; otherwise the one that TOLLGATE_NATS_SERVER names or PATH has.
    #[arg(long, value_name = "PATH")]
    pub nats_server: Option<PathBuf>,
    /// Where everything goes. What an earlier demo left there is replaced.
    #[arg(long, default_value = ".demo", value_name = "DIR")]
    pub dir: PathBuf,
    /// Another seed, another month.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// How many events to make, good and bad.
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    pub events: u64,
}

/// Runs the whole story and prints it to stdout.
///
/// # Errors
/// The folder is not a demo's, a step fails, or a number is not what was generated.
pub async fn run(arguments: &Arguments) -> Result<()> {
    let binary = arguments.nats_server.clone().or_else(NatsServer::find);
    if binary.is_none() {
        output::print(
            "There is no nats-server on PATH, and neither TOLLGATE_NATS_SERVER nor --nats-server names \
             one: the demo reads its events from a file instead.\n",
        )?;
    }
    Box::pin(tell(arguments, binary)).await
}

async fn tell(arguments: &Arguments, binary: Option<PathBuf>) -> Result<()> {
    let clock = SystemClock;
    let started_us = clock.now_us();
    let period = last_month(started_us)?;
    let folder = folder::prepare(&arguments.dir)?;
    let server = match binary {
        Some(binary) => Some(start_server(&binary, &folder).await?),
        None => None,
    };
    let url = server.as_ref().map(|server| server.url().to_owned());
    let settings = folder.write(url.as_deref())?;
    let catalog = Arc::new(Catalog::load(&settings).await?);

    let mut month = Month::new(month_settings(arguments, &period));
    output::print(&format!(
        "\nA month of usage: {period}, seed {}\n",
        arguments.seed
    ))?;
    output::print(&format!(
        "{}\n",
        feed::send(&mut month, &settings, arguments.events).await?
    ))?;
    let counts = meter(&settings, &catalog).await?;
    if let Some(server) = server {
        server.stop().await?;
    }
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let view = View::open(catalog, &lake).await?;
    compare(month.expected(), &counts, &view).await?;
    bill(&view, &lake, &settings, &period).await?;
    audit_all(&view).await?;

    let elapsed_us = clock.now_us() - started_us;
    output::print(&show::the_end(
        &folder,
        &period,
        elapsed_us,
        arguments.events,
    ))?;
    url.map_or(Ok(()), |url| {
        output::print(&show::the_stream(&folder, &url))
    })
}

/// The last calendar month that is over, UTC.
fn last_month(now_us: i64) -> Result<Period> {
    let odd = |_| Error::Usage("the machine's clock is set to a time that has no calendar".into());
    let now = Timestamp::from_microsecond(now_us).map_err(odd)?;
    let today = now.to_zoned_datetime(TimeZone::UTC).date();
    let last = today.first_of_month().checked_sub(1.day()).map_err(odd)?;
    Ok(Period::month(
        &format!("{:04}-{:02}", last.year(), last.month()),
        "UTC",
    )?)
}

fn month_settings(arguments: &Arguments, period: &Period) -> MonthSettings {
    MonthSettings {
        seed: arguments.seed,
        events: arguments.events,
        start_us: period.start_us,
        end_us: period.end_us,
        batch: feed::EVENTS_PER_MESSAGE,
    }
}

async fn start_server(binary: &Path, folder: &folder::Folder) -> Result<NatsServer> {
    let server = NatsServer::start(binary, &folder.nats(), None).await?;
    output::print(&format!(
        "nats-server: {} at {}\n",
        binary.display(),
        server.url()
    ))?;
    Ok(server)
}

/// Meters until the end of what was sent.
async fn meter(settings: &Settings, catalog: &Catalog) -> Result<Counts> {
    let started_us = SystemClock.now_us();
    let stop = stop_on_signal()?;
    let report = supervise(settings, catalog, true, stop.clone(), Questions::none())
        .await?
        .filter(|_| !*stop.borrow())
        .ok_or_else(|| {
            Error::Usage("the demo was stopped before it had metered everything".into())
        })?;
    output::print(&show::metered(&report, SystemClock.now_us() - started_us))?;
    Ok(report.counts)
}

/// Shows what became of the events, and fails unless it is what was generated.
async fn compare(expected: &Expected, counts: &Counts, view: &View) -> Result<()> {
    show::windows(view).await?;
    show::set_aside(view).await?;
    check::counts(expected, counts)?;
    check::totals(expected, view).await?;
    output::print("\nEvery count and every customer's totals are what was generated.\n")
}

/// As `tollgate invoice --finalize` does.
async fn bill(view: &View, lake: &Lake, settings: &Settings, period: &Period) -> Result<()> {
    let drafts = billing::draft(view, &settings.billing, period).await?;
    let issued = billing::issue(view, lake, drafts, period, &SystemClock).await?;
    output::print(&show::invoices(&issued, period)?)
}

/// As `tollgate audit` does.
async fn audit_all(view: &View) -> Result<()> {
    output::print("\nAudit: every meter computed again from events\n")?;
    let findings = audit(view).await?;
    findings.iter().try_for_each(print_finding)?;
    match findings.iter().map(Finding::count).sum() {
        0 => Ok(()),
        differences => Err(Error::Audit { differences }),
    }
}

/// Seconds with one digit, in integers.
fn seconds(us: i64) -> String {
    let tenths = Duration::from_micros(us.unsigned_abs()).as_millis() / 100;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn month_before(now: &str) -> String {
        let now: Timestamp = now.parse().unwrap();
        last_month(now.as_microsecond()).unwrap().to_string()
    }

    #[test]
    fn the_month_is_the_last_one_that_is_over() {
        assert_eq!(month_before("2026-11-23T13:00:00Z"), "2026-10");
        assert_eq!(month_before("2026-11-01T00:00:00Z"), "2026-10");
        assert_eq!(month_before("2026-10-31T23:59:59.999999Z"), "2026-09");
        assert_eq!(month_before("2027-01-15T00:00:00Z"), "2026-12");
    }

    /// From a file, so that the test needs nothing that is not here.
    #[tokio::test]
    async fn a_small_month_ends_in_invoices_that_the_audit_confirms() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("demo");
        let arguments = Arguments {
            nats_server: None,
            dir: dir.clone(),
            seed: 3,
            events: 3_000,
        };
        Box::pin(tell(&arguments, None)).await.unwrap();
        let settings = Settings::load(&dir.join("tollgate.toml"), std::iter::empty()).unwrap();
        let lake = Lake::open_to_read(&settings.lake.url, &settings.base)
            .await
            .unwrap();
        let view = View::open(Arc::new(Catalog::load(&settings).await.unwrap()), &lake)
            .await
            .unwrap();
        let (_, rows) = show::rows(&view, "SELECT DISTINCT customer FROM invoices")
            .await
            .unwrap();
        let customers: usize = rows.iter().map(arrow::array::RecordBatch::num_rows).sum();
        assert!((35..=40).contains(&customers), "{customers}");
    }

    #[test]
    fn times_are_shown_to_a_tenth_of_a_second() {
        assert_eq!(seconds(0), "0.0 s");
        assert_eq!(seconds(12_399_999), "12.3 s");
    }
}
