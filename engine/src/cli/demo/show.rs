//! What the demo prints.

use super::{folder::Folder, seconds};
use crate::{
    billing::Issued,
    cli::{invoice, output, run::summary},
    error::{Result, query_error},
    telemetry::Report,
    view::View,
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use std::sync::Arc;
use tollgate_sql::{invoice::Invoice, period::Period, session};

const WINDOWS: &str = include_str!("windows.sql");
const SET_ASIDE: &str = include_str!("set_aside.sql");
/// How many customers are listed.
const TOP: usize = 10;

/// What one metering did, and how fast.
pub(super) fn metered(report: &Report, elapsed_us: i64) -> String {
    format!(
        "\nMetered in {}, {} events/s\n{}",
        seconds(elapsed_us),
        per_second(report.counts.events, elapsed_us),
        summary(report)
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

/// What was issued: the largest invoices, the sum of all, and one with its lines.
///
/// # Errors
/// The sum has more digits than money can have.
pub(super) fn invoices(issued: &Issued, period: &Period) -> Result<String> {
    let mut invoices = issued.issued.clone();
    invoices.sort_by(|a, b| {
        b.total
            .minor()
            .cmp(&a.total.minor())
            .then(a.customer.cmp(&b.customer))
    });
    let mut text = format!("\nInvoices for {period}: {}", invoice::summary(issued));
    text += "Spend by customer, the largest first\n";
    let shown = invoices.len().min(TOP);
    text += &invoice::listing(&invoices[..shown]);
    text += &format!(
        "{:<12} {:<32} {:>4} invoices {:>15}\n",
        "all",
        "",
        invoices.len(),
        total(&invoices)?
    );
    if let Some(largest) = invoices.first() {
        text += &lines(largest);
    }
    Ok(text)
}

/// The sum over all invoices, which are in one currency because they are on one plan.
fn total(invoices: &[Invoice]) -> Result<String> {
    let mut totals = invoices.iter().map(|invoice| invoice.total);
    let Some(first) = totals.next() else {
        return Ok("0".into());
    };
    let sum = totals.try_fold(first, |sum, total| sum.checked_add(total));
    let sum = sum.map_err(tollgate_sql::Error::from)?;
    Ok(format!("{} {}", sum.amount_text(), sum.currency().code()))
}

fn lines(invoice: &Invoice) -> String {
    let number = invoice.number.as_deref().unwrap_or("draft");
    let mut text = format!(
        "\nInvoice {number} for {}, line by line\n",
        invoice.customer
    );
    for line in &invoice.lines {
        let dimensions: Vec<&str> = line
            .dimensions
            .iter()
            .filter_map(|(_, value)| value.as_deref())
            .collect();
        let quantity = line
            .quantity
            .map_or_else(String::new, |quantity| quantity.to_string());
        text += &format!(
            "  {:<18} {:<14} {quantity:>20} {:>15} {}\n",
            line.price.as_deref().unwrap_or_default(),
            dimensions.join(" "),
            line.amount.amount_text(),
            line.amount.currency().code(),
        );
    }
    text + &format!(
        "  {:<18} {:<14} {:>20} {:>15} {}\n",
        "total",
        "",
        "",
        invoice.total.amount_text(),
        invoice.total.currency().code()
    )
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
    let frame = session::query(&context, sql)
        .await
        .map_err(query_error(doing))?;
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

/// How to go on with the stream, whose server has stopped.
pub(super) fn the_stream(folder: &Folder, url: &str) -> String {
    let port = url.rsplit(':').next().unwrap_or_default();
    format!(
        "The stream is still there: to send more, start\n  \
         nats-server -js -sd {} -a 127.0.0.1 -p {port}\n\
         and then `tollgate publish` and `tollgate run` with the same --config.\n",
        folder.nats().display()
    )
}

fn per_second(events: u64, elapsed_us: i64) -> u128 {
    u128::from(events) * 1_000_000 / u128::from(elapsed_us.unsigned_abs().max(1))
}
