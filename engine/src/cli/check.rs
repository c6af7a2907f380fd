//! `tollgate check`: validates configuration and definitions, and shows each meter's plan.

use crate::{
    billing,
    catalog::Catalog,
    checking::{default_plan, describe, unclear},
    cli::{examine, output, print_error},
    clock::{Clock, SystemClock},
    config::Settings,
    error::{Error, Result},
    jobs::fit,
};
use clap::Args;
use std::{fmt::Write, sync::Arc};
use tollgate_connectors::lake::Lake;

/// Flags of `tollgate check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Also whether the lake goes on with these definitions and settings. Changes nothing.
    #[arg(long)]
    pub lake: bool,
}

/// Prints what the definitions say, one by one, then `ok`; and to stderr what in prices and plans is lawful and likely wrong.
///
/// # Errors
/// Every problem of the definitions, with its place and a hint; with `--lake`, that the lake does not go with the definitions, when all that
/// differs was printed.
pub async fn run(settings: &Settings, arguments: &Arguments) -> Result<()> {
    let (catalog, mut errors) = examine(settings).await?;
    errors.extend(unclear(&catalog));
    // While a plan is wrong, it may be that one. With a lake, it is one of what does not go with that.
    if errors.is_empty() && !arguments.lake {
        match default_plan(settings, &catalog) {
            Ok(Some(warning)) => eprintln!("warning: {warning}"),
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    Error::all(errors)?;
    for warning in billing::warnings(&catalog).await? {
        eprintln!("warning: {warning}");
    }
    let mut text = describe(&catalog);
    if arguments.lake {
        check_lake(settings, &catalog).await?;
        let _ = writeln!(
            text,
            "{}: goes on with these definitions",
            settings.lake.url
        );
    }
    output::print(&text)
}

async fn check_lake(settings: &Settings, catalog: &Arc<Catalog>) -> Result<()> {
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
    let problems = fit::problems(catalog, settings, &lake, SystemClock.now_us()).await?;
    problems.iter().for_each(|problem| print_error(problem));
    match problems.len() {
        0 => {
            let billing = &settings.billing;
            for warning in fit::issued_by_earlier_versions(catalog, billing, &lake).await? {
                eprintln!("warning: {warning}");
            }
            Ok(())
        }
        problems => Err(Error::Unfit { problems }),
    }
}
