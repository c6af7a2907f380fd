//! Definitions as commands and doors take them: whole, with prices tried and settings looked at.

use crate::{
    billing::{no_default_plan, wrong_prices},
    catalog::{Catalog, Examined},
    config::Settings,
    error::{Error, Result},
};
use std::{fmt::Write, sync::Arc};
use tollgate_sql::definitions::SourceFile;

/// Reads and checks the definitions, prices included, and what `[billing]` says of them.
///
/// # Errors
/// All that is wrong.
pub async fn load(settings: &Settings) -> Result<Arc<Catalog>> {
    let (catalog, errors) = examine(settings).await?;
    Error::all(errors).map(|()| catalog)
}

/// The definitions as far as they are right, and all that is wrong in them and in `billing.time_zone`.
///
/// # Errors
/// The folder cannot be read.
pub async fn examine(settings: &Settings) -> Result<(Arc<Catalog>, Vec<Error>)> {
    of_settings(settings, Catalog::examine(settings).await?).await
}

/// The same of files that are given, see [`Catalog::examine_given`].
///
/// # Errors
/// There are no definitions among them.
pub async fn examine_given(
    settings: &Settings,
    files: &[SourceFile],
) -> Result<(Arc<Catalog>, Vec<Error>)> {
    of_settings(settings, Catalog::examine_given(files).await?).await
}

async fn of_settings(
    settings: &Settings,
    mut examined: Examined,
) -> Result<(Arc<Catalog>, Vec<Error>)> {
    let mut errors = std::mem::take(&mut examined.errors);
    // Any month will do: the zone is what is checked.
    errors.extend(settings.month("2026-01").err());
    if errors.is_empty() {
        let starts = settings.billing.starts_us();
        errors.extend(starts.err().map(|error| settings.placed(error)));
    }
    let catalog = Arc::new(examined.catalog);
    errors.extend(wrong_prices(&catalog).await?);
    Ok((catalog, errors))
}

/// What is likely wrong with `billing.default_plan`, where it is none of the plans: with accounts no customer needs it, so that a default
/// that was not written is lawful.
///
/// # Errors
/// It is written.
pub fn default_plan(settings: &Settings, catalog: &Catalog) -> Result<Option<String>> {
    match no_default_plan(&catalog.definitions, settings) {
        Some(error) if settings.is_given("billing.default_plan") => Err(error),
        Some(error) => Ok(Some(format!("{error}; with accounts it is not needed"))),
        None => Ok(None),
    }
}

/// Columns of which it is not clear what they read, in a lake that has none of them yet.
pub fn unclear(catalog: &Catalog) -> Vec<Error> {
    let unclear = catalog.definitions.unclear_paths(|_, _| false);
    unclear.into_iter().map(Error::from).collect()
}

/// What the definitions say, one by one, then `ok`.
pub fn describe(catalog: &Catalog) -> String {
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
