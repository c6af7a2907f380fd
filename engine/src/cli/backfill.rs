//! `tollgate backfill`: fills a new meter in over the history that is in the lake.

use crate::{
    cli::{load, output},
    clock::SystemClock,
    config::Settings,
    error::{Error, Result},
    jobs::backfill::{Filled, Panes, Span, backfill},
};
use clap::Args;
use jiff::Timestamp;
use tollgate_connectors::lake::Lake;
use tollgate_sql::definitions::parse_instant;

/// Arguments of `tollgate backfill`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The meter.
    pub meter: String,
    /// Leave out, for good, the windows that start before this: a date, which is its midnight UTC, or an
    /// instant such as 2026-10-01T00:00:00+02:00.
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Stop when every window that ends by this is closed; another backfill, or `run`, goes on from there.
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Meter everything, write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Fills the meter in, and prints a line for each shard.
///
/// # Errors
/// There is no such meter, a time cannot be read, the lake cannot be written, or `tollgate run` has the meter.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let catalog = load(settings).await?;
    let span = Span {
        from_us: time("--from", arguments.from.as_deref())?,
        to_us: time("--to", arguments.to.as_deref())?,
    };
    let (url, base) = (&settings.lake.url, &settings.base);
    let (lake, panes) = match arguments.dry_run {
        true => (Lake::open_to_read(url, base).await?, Panes::Counted),
        false => (Lake::open(url, base).await?, Panes::Written(&SystemClock)),
    };
    let flush_bytes = settings.flush.max_bytes.0;
    let filled = backfill(&catalog, &lake, &arguments.meter, span, flush_bytes, panes).await?;
    if filled.is_empty() {
        output::print("the lake has no events yet\n")?;
    }
    for filled in &filled {
        output::print(&line(filled, arguments.dry_run))?;
    }
    Ok(())
}

fn time(flag: &str, text: Option<&str>) -> Result<Option<i64>> {
    let Some(text) = text else {
        return Ok(None);
    };
    match parse_instant(text) {
        Some(time) => Ok(Some(time.as_microsecond())),
        None => Err(Error::Usage(format!(
            "{flag} `{text}` is neither a date such as 2026-10-01 nor an instant such as \
             2026-10-01T00:00:00Z"
        ))),
    }
}

fn line(filled: &Filled, dry_run: bool) -> String {
    let Filled {
        shard,
        after,
        cut,
        panes,
        windows,
    } = filled;
    let would = if dry_run { "would be " } else { "" };
    let time = |us: i64| Timestamp::from_microsecond(us).unwrap_or_default();
    let windows = windows.map_or(String::new(), |(first, last)| {
        format!(
            ", of windows that start from {} to {}",
            time(first),
            time(last)
        )
    });
    format!(
        "shard {shard}: {panes} panes {would}written from sequences {} to {}{windows}\n",
        after.0 + 1,
        cut.0
    )
}
