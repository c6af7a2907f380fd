//! `tollgate audit`: recomputes every meter from events and compares.

use crate::{
    cli::{open_to_read, output},
    config::Settings,
    error::{Error, Result},
    jobs::audit::{Finding, audit},
    view::View,
};

/// Prints a line for each meter, and the rows that differ.
///
/// # Errors
/// [`Error::Audit`] when anything differs, so that the exit code is 1.
pub async fn run(settings: &Settings) -> Result<()> {
    let (catalog, lake) = open_to_read(settings).await?;
    let view = View::open(catalog, &lake).await?;
    let findings = audit(&view).await?;
    findings.iter().try_for_each(print)?;
    match findings.iter().map(Finding::count).sum() {
        0 => Ok(()),
        differences => Err(Error::Audit { differences }),
    }
}

/// Prints what was found for one meter.
///
/// # Errors
/// Stdout cannot be written.
pub fn print(finding: &Finding) -> Result<()> {
    let count = finding.count();
    output::print(&format!(
        "meter {}: {} rows, {count} differ\n",
        finding.meter, finding.rows
    ))?;
    match finding.differences.first() {
        Some(first) if count > 0 => {
            output::print_rows(&first.schema(), &finding.differences, output::Format::Table)
        }
        _ => Ok(()),
    }
}
