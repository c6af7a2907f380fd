//! `tollgate shard`: which shards a lake has, and whether they may run.

use crate::{
    catalog::Catalog,
    cli::{load, output},
    clock::SystemClock,
    commit::{Marks, Position},
    config::Settings,
    error::{Error, Result},
    over::{self, Over},
    standing::{self, Standing, Standings},
};
use clap::{Args, Subcommand};
use std::{fmt::Write, sync::Arc};
use tollgate_connectors::{Table, lake::Lake};
use tollgate_sql::window::EventTime;

/// Flags of `tollgate shard`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with shards.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Lists the shards: how far each has come, and whether it may run.
    List,
    /// Says that shards are over: they hold up no invoice, and do not start any more. Their owners are fenced.
    Retire {
        /// The shards: a stream's name, or a file's without its ending.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Brings retired shards back.
    Resume {
        /// The shards.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// Lists, retires or resumes shards.
///
/// # Errors
/// There is no such shard, or the lake cannot be read or written.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let catalog = load(settings).await?;
    match &arguments.action {
        Action::List => {
            let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
            match catalog.existing_events(&lake).await? {
                None => output::print("no shard yet\n"),
                Some(events) => output::print(&listing(events.as_ref())?),
            }
        }
        Action::Retire { names } => set_retired(settings, &catalog, names, true).await,
        Action::Resume { names } => set_retired(settings, &catalog, names, false).await,
    }
}

async fn set_retired(
    settings: &Settings,
    catalog: &Catalog,
    names: &[String],
    is_retired: bool,
) -> Result<()> {
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let Some(mut events) = catalog.existing_events(&lake).await? else {
        return Err(Error::Usage("there is no shard in this lake yet".into()));
    };
    for name in names {
        standing::set_retired(events.as_mut(), name, is_retired, &SystemClock).await?;
        if is_retired {
            close(settings, catalog, &lake, events.as_ref(), name).await?;
        }
        let done = match is_retired {
            true => "retired: it holds up no invoice, and does not start any more",
            false => "resumed: it may run, and invoices wait for it",
        };
        output::print(&format!("{name} {done}\n"))?;
    }
    Ok(())
}

/// Writes what a shard left open to the meters' tables.
async fn close(
    settings: &Settings,
    catalog: &Catalog,
    lake: &Lake,
    events: &dyn Table,
    shard: &str,
) -> Result<()> {
    let mut tables = Vec::with_capacity(catalog.meters.len());
    for meter in &catalog.meters {
        tables.push(catalog.create_meter(lake, meter).await?);
    }
    let over = Over {
        events,
        definitions: &catalog.definitions,
        meters: &catalog.meters,
        clock: Arc::new(SystemClock),
        bytes: settings.flush.max_bytes.0,
    };
    over::close(&over, shard, tables).await?;
    Ok(())
}

/// A line for each shard.
fn listing(events: &dyn Table) -> Result<String> {
    let mut text = String::new();
    let standings = Standings::of(events);
    for shard in standings.shards() {
        let marks = Marks::of(shard);
        let position = Position::load(events, &marks)?;
        let caught_up = position
            .caught_up
            .map_or(EventTime::MIN, |caught_up| caught_up.time);
        let standing = match standings.standing(shard) {
            Standing::Live => "live".to_owned(),
            Standing::Retired => "retired".to_owned(),
            Standing::ReplacedBy(by) => format!("replaced by {by}"),
        };
        let begun = events.mark(&marks.start());
        let begun = begun.map_or(String::new(), |after| format!(", begun after {after}"));
        let _ = writeln!(
            text,
            "{shard:<24} {standing:<12} up to {}{begun}, watermark {}, caught up at {}, epoch {}",
            position.sequence.0,
            time_text(position.watermark),
            time_text(caught_up),
            marks.epoch_in(events).unwrap_or_default(),
        );
    }
    Ok(text)
}

fn time_text(time: EventTime) -> String {
    match jiff::Timestamp::from_microsecond(time.0) {
        Ok(instant) if time != EventTime::MIN => instant.to_string(),
        Ok(_) | Err(_) => "never".to_owned(),
    }
}
