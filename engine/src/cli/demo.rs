//! `tollgate demo`: two months of generated usage end to end, ending in invoices.
//!
//! ```text
//! folder::prepare ─▶ accounts: files ─▶ as `tollgate accounts import`
//! story, twice:  generator::Month ─▶ feed ─▶ JetStream or a file ─▶ run::supervise ─▶ billing, as `tollgate invoice --due`
//!                     │ what it must come to: owed                        │ what was counted and billed
//!                     └──────────────▶ check ◀────────────────────────────┘
//! ```
//!
//! The generator knows what the months add up to, so the demo does not only show numbers: where one
//! differs, it fails.

mod accounts;
mod check;
mod feed;
mod folder;
pub mod generator;
mod owed;
mod show;
mod story;

use crate::{
    catalog::Catalog,
    cli::{accounts::import, audit::print as print_finding, output},
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, Result},
    jobs::audit::{Finding, audit},
    view::View,
};
use clap::{Args, value_parser};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use story::Story;
use tollgate_connectors::{lake::Lake, nats::server::NatsServer};
use tollgate_sql::{period::Period, window::DAY_US};

/// Arguments of `tollgate demo`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The nats-server to use; otherwise the one that TOLLGATE_NATS_SERVER names or PATH has.
    #[arg(long, value_name = "PATH")]
    pub nats_server: Option<PathBuf>,
    /// Where everything goes. What an earlier demo left there is replaced.
    #[arg(long, default_value = ".demo", value_name = "DIR")]
    pub dir: PathBuf,
    /// Another seed, other usage.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// How many events to make, good and bad, at least 1000: half of them in each month.
    #[arg(long, default_value_t = 200_000, value_name = "N", value_parser = value_parser!(u64).range(1_000..))]
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
    let months = last_months(SystemClock.now_us())?;
    Box::pin(tell(arguments, binary, months)).await
}

/// Tells the story of two months that are over.
async fn tell(arguments: &Arguments, binary: Option<PathBuf>, months: [Period; 2]) -> Result<()> {
    let started_us = SystemClock.now_us();
    let folder = folder::prepare(&arguments.dir)?;
    let server = match binary {
        Some(binary) => Some(start_server(&binary, &folder).await?),
        None => None,
    };
    let url = server.as_ref().map(|server| server.url().to_owned());
    let settings = folder.write(url.as_deref(), folder::EVENTS[0])?;
    let catalog = Arc::new(Catalog::load(&settings).await?);
    output::print(&show::the_beginning(&months, arguments.seed))?;
    let files = folder.write_accounts(&accounts::files(&months[0]))?;
    import(&settings, &files).await?;

    let from = (&folder, url.as_deref());
    let mut story = Story::begin(from, Arc::clone(&catalog), &months, arguments.seed);
    story.tell(arguments.events).await?;
    if let Some(server) = server {
        server.stop().await?;
    }
    audit_all(&settings, catalog).await?;

    let elapsed_us = SystemClock.now_us() - started_us;
    let events = arguments.events;
    output::print(&show::the_end(&folder, &months[1], elapsed_us, events))?;
    url.map_or(Ok(()), |url| {
        output::print(&show::the_stream(&folder, &url))
    })
}

/// The last two calendar months that are over, UTC. On a month's first day the last windows of the one before may still be open, so
/// that one is not over yet.
fn last_months(now_us: i64) -> Result<[Period; 2]> {
    let odd = |_| Error::Usage("the machine's clock is set to a time that has no calendar".into());
    let yesterday = Timestamp::from_microsecond(now_us - DAY_US).map_err(odd)?;
    let end = yesterday.to_zoned_datetime(TimeZone::UTC).date();
    let month = |before: i32| -> Result<Period> {
        let first_day = end.first_of_month().checked_sub(before.months());
        let first_day = first_day.map_err(odd)?;
        let text = format!("{:04}-{:02}", first_day.year(), first_day.month());
        Ok(Period::month(&text, "UTC")?)
    };
    Ok([month(2)?, month(1)?])
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

/// As `tollgate audit` does.
async fn audit_all(settings: &Settings, catalog: Arc<Catalog>) -> Result<()> {
    output::print("\nAudit: every meter computed again from events\n")?;
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let view = View::open(catalog, &lake).await?;
    let findings = audit(&view).await?;
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

/// Dollars with two digits, in integers.
fn cents(cents: i128) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;

    #[test]
    fn the_months_are_the_last_two_that_are_over() {
        let months_before = |now: &str| {
            let now: Timestamp = now.parse().unwrap();
            let months = last_months(now.as_microsecond()).unwrap();
            months.map(|month| month.to_string())
        };
        for (now, expected) in [
            ("2026-11-23T13:00:00Z", ["2026-09", "2026-10"]),
            ("2026-11-02T00:00:00Z", ["2026-09", "2026-10"]),
            ("2026-11-01T23:59:59.999999Z", ["2026-08", "2026-09"]),
            ("2027-01-15T00:00:00Z", ["2026-11", "2026-12"]),
            ("2027-02-28T00:00:00Z", ["2026-12", "2027-01"]),
        ] {
            assert_eq!(months_before(now), expected);
        }
    }

    #[test]
    fn amounts_are_shown_in_dollars() {
        let shown = [0, 5, 123, -1, -250].map(cents);
        assert_eq!(shown, ["0.00", "0.05", "1.23", "-0.01", "-2.50"]);
    }

    /// Which kinds of lines the customers with more than usage have, in both months.
    const STORY: &str = "
SELECT l.customer, l.kind, COALESCE(l.corrects_kind, '') AS corrects, COUNT(DISTINCT l.invoice) AS documents
FROM line_items l
WHERE l.customer IN ('acme', 'halcyon-health', 'hollow-oak', 'kestrel-air', 'northgate-bank')
GROUP BY l.customer, l.kind, COALESCE(l.corrects_kind, '') ORDER BY 1, 2, 3";

    const LINES: &str = "\
customer,kind,corrects,documents
acme,adjustment,usage,1
acme,base,,2
acme,usage,,2
halcyon-health,adjustment,usage,1
halcyon-health,base,,2
halcyon-health,tax,,2
halcyon-health,tax,tax,1
halcyon-health,usage,,2
hollow-oak,adjustment,minimum,1
hollow-oak,adjustment,usage,1
hollow-oak,minimum,,2
hollow-oak,usage,,2
kestrel-air,adjustment,usage,1
kestrel-air,base,,2
kestrel-air,usage,,2
northgate-bank,adjustment,usage,1
northgate-bank,tax,,2
northgate-bank,tax,tax,1
northgate-bank,usage,,2
";

    /// The demo itself compares all amounts. From a file, so that the test needs nothing that is not here, and of months that stay the
    /// same.
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
        let months = ["2024-05", "2024-06"].map(|month| Period::month(month, "UTC").unwrap());
        Box::pin(tell(&arguments, None, months)).await.unwrap();
        let settings = Settings::load(&dir.join("tollgate.toml"), std::iter::empty()).unwrap();
        let lake = Lake::open_to_read(&settings.lake.url, &settings.base)
            .await
            .unwrap();
        let view = View::open(Arc::new(Catalog::load(&settings).await.unwrap()), &lake)
            .await
            .unwrap();
        let (schema, rows) = show::rows(&view, STORY).await.unwrap();
        let found = output::encode_rows(&schema, &rows, Format::Csv).unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), LINES);
    }

    #[test]
    fn times_are_shown_to_a_tenth_of_a_second() {
        assert_eq!(seconds(0), "0.0 s");
        assert_eq!(seconds(12_399_999), "12.3 s");
    }
}
