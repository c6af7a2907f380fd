//! `tollgate maintain`: merges small files, and deletes files and log that no reader needs any more.

use crate::{
    cli::{load, output},
    clock::SystemClock,
    config::Settings,
    error::{Error, Result},
    jobs::maintenance::Upkeep,
};
use clap::Args;
use tollgate_connectors::{ErrorKind, lake::maintenance::Done};
use tollgate_sql::parser::did_you_mean;

/// Flags of `tollgate maintain`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Tables to maintain, such as `events` or `meters/tokens`. The default is all of them.
    #[arg(long = "table", value_name = "NAME", num_args = 1..)]
    pub tables: Vec<String>,
    /// Say what there is to do, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Maintains tables, and prints a line for each.
///
/// # Errors
/// A table is not one of ours, or cannot be read or written.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let catalog = load(settings).await?;
    let upkeep = Upkeep::new(settings, &catalog)?;
    let tables = chosen(&upkeep.tables, &arguments.tables)?;
    let lake = upkeep.open().await?;
    for name in tables {
        let done = upkeep.maintain(&lake, name, &SystemClock, arguments.dry_run);
        let line = match done.await {
            Ok(Some(done)) => line(&done, arguments.dry_run),
            Ok(None) => "no such table yet".to_owned(),
            Err(error) if error.kind() == ErrorKind::Fenced => {
                "another process is maintaining it; nothing to do here".to_owned()
            }
            Err(error) => return Err(error),
        };
        output::print(&format!("{name}: {line}\n"))?;
    }
    Ok(())
}

/// The tables that were asked for, or all.
fn chosen<'a>(all: &'a [String], asked: &'a [String]) -> Result<&'a [String]> {
    match asked.iter().find(|name| !all.contains(name)) {
        None if asked.is_empty() => Ok(all),
        None => Ok(asked),
        Some(unknown) => Err(Error::Usage(format!(
            "there is no table `{unknown}` to maintain\n  hint: {}",
            did_you_mean(unknown, "tables", all)
        ))),
    }
}

fn line(done: &Done, dry_run: bool) -> String {
    let would = if dry_run { "would be " } else { "" };
    format!(
        "{} files {would}merged into {}; {} files ({} bytes) and {} files of the log {would}deleted",
        done.merged, done.into, done.vacuumed, done.vacuumed_bytes, done.log
    )
}
