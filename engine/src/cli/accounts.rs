//! `tollgate accounts`: imports, lists and exports who pays, on which plan, since when.

use crate::{
    billing::accounts::{self, Imported},
    cli::{load, open_to_read, output},
    clock::SystemClock,
    config::Settings,
    error::{Error, Result},
};
use clap::{Args, Subcommand};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    accounts::{AccountsFile, TABLES, csv_of, instant_in, rows_of},
    parser::did_you_mean,
};

/// Arguments of `tollgate accounts`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Checks CSV files as a whole and writes their rows: all of them, or none.
    Import {
        /// Files that are named after their tables: customers.csv, subjects.csv, subscriptions.csv, grants.csv, one_offs.csv,
        /// discounts.csv.
        #[arg(required = true, value_name = "FILE.csv")]
        files: Vec<PathBuf>,
    },
    /// Lists the rows of a table that stand, or what holds at a time.
    List {
        /// The table.
        #[arg(value_name = "TABLE")]
        table: String,
        /// What holds at this instant; a day such as 2026-10-01 begins in `billing.time_zone`.
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// How to print the rows.
        #[arg(long, value_enum, default_value_t)]
        format: output::Format,
    },
    /// Writes the rows that stand as CSV files, which can be imported.
    Export {
        /// Where to write them.
        #[arg(long, value_name = "DIR", default_value = "accounts")]
        out: PathBuf,
    },
}

/// Does what was asked for and prints what came of it.
///
/// # Errors
/// See [`accounts::import`]; a file cannot be read or written; there is no such table.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    match &arguments.action {
        Action::Import { files } => import(settings, files).await,
        Action::List { table, at, format } => list(settings, table, at.as_deref(), *format).await,
        Action::Export { out } => export(settings, out).await,
    }
}

/// Imports files, and prints how many rows of each table were written.
///
/// # Errors
/// See [`accounts::import`]; a file cannot be read.
pub(super) async fn import(settings: &Settings, paths: &[PathBuf]) -> Result<()> {
    let catalog = load(settings).await?;
    let files = paths.iter().map(|path| {
        let name = path.display().to_string();
        match fs::read(path) {
            Ok(bytes) => Ok(AccountsFile { name, bytes }),
            Err(source) => Err(Error::File {
                file: name,
                doing: "reading the file",
                source,
            }),
        }
    });
    let files = files.collect::<Result<Vec<_>>>()?;
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let zone = &settings.billing.time_zone;
    let definitions = &catalog.definitions;
    let imported = accounts::import(&lake, &files, definitions, zone, &SystemClock);
    output::print(&summary(&imported.await?))
}

/// How many rows of each table were written.
fn summary(imported: &Imported) -> String {
    let mut text = String::new();
    for (table, rows) in &imported.written {
        let _ = writeln!(text, "{table}: {rows} written");
    }
    let written: usize = imported.written.values().sum();
    let _ = write!(text, "{} rows read, {written} written", imported.read);
    match imported.read.saturating_sub(written) {
        0 => text.push('\n'),
        others => {
            let _ = writeln!(text, "; {others} say what was there already");
        }
    }
    text
}

async fn list(
    settings: &Settings,
    table: &str,
    at: Option<&str>,
    format: output::Format,
) -> Result<()> {
    if !TABLES.contains(&table) {
        return Err(Error::Usage(format!(
            "there is no table `{table}` of accounts; {}",
            did_you_mean(table, "tables", &TABLES)
        )));
    }
    let at_us = at
        .map(|text| {
            instant_in(text, &settings.billing.time_zone)?.ok_or_else(|| {
                Error::Usage(format!(
                    "--at `{text}` is neither a date such as 2026-10-01 nor an instant such as 2026-10-01T00:00:00Z"
                ))
            })
        })
        .transpose()?;
    let (_, lake) = open_to_read(settings).await?;
    let index = accounts::load(&lake).await?.indexed();
    let rows = match at_us {
        Some(at_us) => index.at(at_us),
        None => index.into_accounts(),
    };
    let rows = rows_of(&rows, table).ok_or(Error::Contradiction {
        what: "every table of accounts has rows",
    })??;
    output::print_rows(&rows.schema(), std::slice::from_ref(&rows), format)
}

async fn export(settings: &Settings, folder: &Path) -> Result<()> {
    let (_, lake) = open_to_read(settings).await?;
    let rows = accounts::load(&lake).await?.indexed().into_accounts();
    let failed = |file: &Path, doing| {
        let file = file.display().to_string();
        move |source| Error::File {
            file,
            doing,
            source,
        }
    };
    fs::create_dir_all(folder).map_err(failed(folder, "creating the folder"))?;
    let mut text = String::new();
    for table in TABLES {
        let path = folder.join(format!("{table}.csv"));
        let csv = csv_of(&rows, table).unwrap_or_default();
        fs::write(&path, &csv).map_err(failed(&path, "writing the file"))?;
        let rows = rows_of(&rows, table)
            .transpose()?
            .map_or(0, |rows| rows.num_rows());
        let _ = writeln!(text, "{}: {rows} rows", path.display());
    }
    output::print(&text)
}
