//! `tollgate check`: validates configuration and definitions, and shows each meter's plan.

use crate::{
    billing,
    catalog::Catalog,
    cli::{load, output},
    config::Settings,
    error::Result,
};
use std::fmt::Write;

/// Prints what the definitions say, one by one, then `ok`; and to stderr what in prices and plans is lawful and likely wrong.
///
/// # Errors
/// The first problem, with its place and a hint.
pub async fn run(settings: &Settings) -> Result<()> {
    let catalog = load(settings).await?;
    catalog.definitions.check_paths(|_, _| false)?;
    for warning in billing::warnings(&catalog).await? {
        eprintln!("warning: {warning}");
    }
    output::print(&describe(&catalog))
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
