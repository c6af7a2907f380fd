//! What the demo prints.

use super::{folder::Folder, seconds};
use crate::{
    cli::{output, run},
    error::{Result, query_error},
    period::Period,
    telemetry::Report,
    view::View,
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use std::sync::Arc;

const WINDOWS: &str = include_str!("windows.sql");
const SET_ASIDE: &str = include_str!("set_aside.sql");
const SPEND: &str = include_str!("spend.sql");
const ONE_INVOICE: &str = include_str!("one_invoice.sql");

/// What one metering did, and how fast.
pub(super) fn metered(report: &Report, elapsed_us: i64) -> String {
    format!(
        "\nMetered in {}, {} events/s\n{}",
        seconds(elapsed_us),
        per_second(report.counts.events, elapsed_us),
        run::summary(report)
    )
}

/// What closed.
pub(super) async fn windows(view: &View) -> Result<()> {
    table(view, "What closed", WINDOWS).await
}

/// What is kept but did not count, or counted later, and why.
pub(super) async fn set_aside(view: &View) -> Result<()> {
    table(view, "What was set aside, and why", SET_ASIDE).await
}

/// Who spent most, and the sum of all.
pub(super) async fn spend(view: &View) -> Result<()> {
    table(view, "Spend by customer", SPEND).await
}

/// The largest invoice with its lines.
pub(super) async fn one_invoice(view: &View) -> Result<()> {
    table(view, "The largest invoice", ONE_INVOICE).await
}

async fn table(view: &View, title: &str, sql: &str) -> Result<()> {
    let (schema, rows) = rows(view, sql).await?;
    output::print(&format!("\n{title}\n"))?;
    output::print_rows(&schema, &rows, output::Format::Table)
}

/// The answer to a query over the view.
pub(super) async fn rows(view: &View, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let context = view.session(sql).await?;
    let doing = "a query of the demo";
    let frame = context.sql(sql).await.map_err(query_error(doing))?;
    let schema = Arc::clone(frame.schema().inner());
    Ok((schema, frame.collect().await.map_err(query_error(doing))?))
}

/// How long it took, and what to try next.
pub(super) fn the_end(folder: &Folder, period: &Period, elapsed_us: i64, events: u64) -> String {
    let configuration = folder.configuration();
    let config = configuration.display();
    format!(
        "\n{events} events from nothing to invoices in {}, {} events/s. The lake is {}\n\
         Now try:\n  \
         tollgate query 'SELECT model, SUM(input), SUM(output) FROM tokens GROUP BY model' --config {config}\n  \
         tollgate query \"SELECT reason, CAST(raw AS VARCHAR) FROM events WHERE status = 'rejected' LIMIT 5\" --config {config}\n  \
         tollgate invoice --period {period} --config {config}\n  \
         tollgate audit --config {config}\n  \
         tollgate check --config {config}\n",
        seconds(elapsed_us),
        per_second(events, elapsed_us),
        folder.lake().display(),
    )
}

fn per_second(events: u64, elapsed_us: i64) -> u128 {
    u128::from(events) * 1_000_000 / u128::from(elapsed_us.unsigned_abs().max(1))
}
