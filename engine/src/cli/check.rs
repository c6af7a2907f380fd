//! `tollgate check`: validates configuration and definitions, and shows each meter's plan.

use crate::{
    billing,
    catalog::Catalog,
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
    let unclear = catalog.definitions.unclear_paths(|_, _| false);
    errors.extend(unclear.into_iter().map(Error::from));
    // While a plan is wrong, it may be that one.
    let no_plan = billing::no_default_plan(&catalog.definitions, settings);
    // With a lake, it is one of what does not go with that.
    let no_plan = no_plan.filter(|_| errors.is_empty() && !arguments.lake);
    // With accounts no customer needs it, so that a default that nobody wrote is lawful.
    match no_plan {
        Some(error) if settings.is_given("billing.default_plan") => errors.push(error),
        Some(error) => eprintln!("warning: {error}; with accounts it is not needed"),
        None => {}
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

fn describe(catalog: &Catalog) -> String {
    let definitions = &catalog.definitions;
    let mut text = String::new();
    let mut line = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    for event_type in &definitions.event_types {
        let (name, of) = (&event_type.name, &event_type.cloud_event_type);
        let checks = match event_type.checks.len() {
            0 => String::new(),
            checks => format!(", {checks} checks"),
        };
        line(format!(
            "event type {name}: `{of}`, {} columns{checks}",
            event_type.columns.len()
        ));
    }
    for meter in &catalog.meters {
        line(format!("meter {}:", meter.definition().name));
        meter
            .describe()
            .lines()
            .for_each(|described| line(format!("    {described}")));
    }
    for (table, rows) in definitions.rate_tables.iter().zip(&catalog.rate_tables) {
        line(format!(
            "rate table {}: {} rows",
            table.name,
            rows.num_rows()
        ));
    }
    for currency in &definitions.currencies {
        let (name, digits) = (&currency.name, currency.digits);
        line(format!("currency {name}: {digits} digits"));
    }
    for price in &definitions.prices {
        line(format!("price {} in {}", price.name, price.currency));
    }
    for plan in &definitions.plans {
        line(format!(
            "plan {} in {}: {}",
            plan.name,
            plan.currency,
            plan.prices.join(", ")
        ));
    }
    text + "ok\n"
}
