//! The commands, one file each: parse, call, render.

use crate::{
    catalog::Catalog,
    checking::{examine, load},
    config::{Settings, USUAL_FILE},
    error::{Error, Result, SHOWN_MAX, count_of, printable_lines},
    nearby,
    telemetry::start_logging,
};
use clap::{Parser, Subcommand};
use std::{
    env, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};
use tollgate_connectors::{Error as ConnectorError, lake::Lake};

pub mod accounts;
pub mod audit;
pub mod backfill;
pub mod check;
pub mod demo;
mod exports;
mod html;
pub mod init;
pub mod invoice;
mod issuing;
pub mod keys;
pub mod maintain;
pub mod output;
pub mod price;
pub mod publish;
pub mod query;
pub mod replay;
pub mod run;
pub mod serve;
pub mod shard;
mod statement;
pub mod watch;
pub mod worker;

/// Meters what AI agents and their users consume, and prices it, exactly.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// The configuration file. Every setting can also be given as `TOLLGATE_SECTION_KEY`.
    #[arg(
        long,
        global = true,
        default_value = USUAL_FILE,
        value_name = "FILE"
    )]
    pub config: PathBuf,
    /// What to log to stderr: error, warn, info, debug, or a filter such as tollgate=debug.
    /// The default is info for `run` and `serve`, and warn for the others.
    #[arg(long, global = true, env = "TOLLGATE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows two months of generated usage end to end, from events to invoices.
    Demo(demo::Arguments),
    /// Writes a commented configuration and definitions of a first product, which run as they are.
    Init(init::Arguments),
    /// Validates configuration and definitions, and shows each meter's plan.
    Check(check::Arguments),
    /// Meters events until it is stopped.
    Run(run::Arguments),
    /// Answers over HTTP from the lake, without metering.
    Serve(serve::Arguments),
    /// Makes, lists and revokes the keys with which programs ask over HTTP.
    Keys(keys::Arguments),
    /// Publishes NDJSON CloudEvents to the stream.
    Publish(publish::Arguments),
    /// Publishes events again that had no event type, once they have one.
    Replay(replay::Arguments),
    /// Answers SQL over events, meters, rate tables and invoices.
    Query(query::Arguments),
    /// Shows the newest windows of a meter, as they move.
    Watch(watch::Arguments),
    /// Drafts invoices for a billing period, or issues them.
    Invoice(invoice::Arguments),
    /// Imports, lists and exports who pays, on which plan, since when.
    Accounts(accounts::Arguments),
    /// Shows what some usage would cost, tier by tier, without a lake.
    Price(price::Arguments),
    /// Recomputes every meter from events and compares.
    Audit,
    /// Fills a new meter in over the history that is in the lake.
    Backfill(backfill::Arguments),
    /// Lists the shards of the lake, retires one, or brings it back.
    Shard(shard::Arguments),
    /// Merges small files of the tables, and deletes files and log that nobody needs any more.
    Maintain(maintain::Arguments),
    /// Answers statements for `run` and `serve`, which start it.
    #[command(hide = true)]
    Worker(worker::Arguments),
}

/// What the commands run on.
///
/// Few threads for blocking work, kept for good: every thread that comes and goes leaves memory behind in
/// the allocator, and files are read, written and encoded on them. `benches/commits.rs` shows it.
///
/// # Errors
/// The system gives us no threads.
pub fn runtime() -> Result<Runtime> {
    const BLOCKING_THREADS: usize = 8;
    const KEEP: Duration = Duration::from_secs(86_400);
    Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(KEEP)
        .build()
        .map_err(|source| Error::System {
            doing: "starting threads",
            source,
        })
}

/// Runs one command.
///
/// # Errors
/// Whatever the command cannot do; [`crate::Error::exit_code`] says how the process should end.
pub async fn run(cli: Cli) -> Result<()> {
    let usual = if matches!(cli.command, Command::Run(_) | Command::Serve(_)) {
        "info"
    } else {
        "warn"
    };
    let logging = start_logging(cli.log.as_deref().unwrap_or(usual))?;
    let done = Box::pin(command(cli)).await;
    logging.end().await;
    done
}

async fn command(cli: Cli) -> Result<()> {
    let settings = || Settings::load(&cli.config, variables());
    match cli.command {
        Command::Demo(arguments) => Box::pin(demo::run(&arguments)).await,
        Command::Init(arguments) => init::run(&arguments),
        Command::Check(arguments) => check::run(&settings()?, &arguments).await,
        Command::Run(arguments) => run::run(&settings()?, &arguments).await,
        Command::Serve(arguments) => serve::run(&settings()?, &arguments).await,
        Command::Keys(arguments) => keys::run(&settings()?, &arguments).await,
        Command::Publish(arguments) => publish::run(&settings()?, &arguments).await,
        Command::Replay(arguments) => replay::run(&settings()?, &arguments).await,
        Command::Query(arguments) => query::run(&settings()?, &arguments).await,
        Command::Watch(arguments) => watch::run(&settings()?, &arguments).await,
        Command::Invoice(arguments) => invoice::run(&settings()?, &arguments).await,
        Command::Accounts(arguments) => accounts::run(&settings()?, &arguments).await,
        Command::Price(arguments) => price::run(&settings()?, &arguments).await,
        Command::Audit => audit::run(&settings()?).await,
        Command::Backfill(arguments) => backfill::run(&settings()?, &arguments).await,
        Command::Shard(arguments) => shard::run(&settings()?, &arguments).await,
        Command::Maintain(arguments) => maintain::run(&settings()?, &arguments).await,
        Command::Worker(arguments) => worker::run(&settings()?, &arguments).await,
    }
}

/// The environment, as far as it is text.
fn variables() -> impl Iterator<Item = (String, String)> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Opens the definitions, and the lake without changing it.
async fn open_to_read(settings: &Settings) -> Result<(Arc<Catalog>, Lake)> {
    let catalog = load(settings).await?;
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
    Ok((catalog, lake))
}

/// Prints an error and its causes to stderr.
pub fn print_error(error: &(dyn std::error::Error + 'static)) {
    eprint!("{}", error_text(error));
}

/// An error and its causes, a line each, or each of several and their count; nothing in them is obeyed by a terminal.
fn error_text(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(Error::Several { errors }) = error.downcast_ref() {
        let shown = errors.iter().take(SHOWN_MAX);
        let each: String = shown.map(|error| error_text(error)).collect();
        return format!("{each}{}\n", count_of(errors));
    }
    let mut shown = error.to_string();
    let mut text = format!("error: {shown}\n");
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Wrappers repeat what was just said.
        if !shown.contains(&said) {
            text.push_str(&format!("  caused by: {said}\n"));
            shown = said;
        }
        cause = error.source();
    }
    if let Some(hint) = way_out(error) {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    printable_lines(&text)
}

/// What to do about an error that says it in no hint, because it is logged on one line too.
fn way_out(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    match error.downcast_ref()? {
        Error::Connector(ConnectorError::Unreachable { what: "NATS", .. }) => {
            Some("start the server, or set source.url to where it is".to_owned())
        }
        Error::File { file, source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Some(nearby::instead_of(Path::new(file)))
        }
        _ => None,
    }
}
