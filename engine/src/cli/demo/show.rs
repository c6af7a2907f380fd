//! What the demo prints.

use super::{accounts::FEATURED, cents, folder::Folder, generator::CUSTOMERS, seconds};
use crate::{
    cli::{output, run::summary},
    error::{Result, query_error},
    telemetry::Report,
    view::View,
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use std::sync::Arc;
use tollgate_sql::{invoice::Invoice, money::Money, period::Period, session};

const WINDOWS: &str = include_str!("windows.sql");
const SET_ASIDE: &str = include_str!("set_aside.sql");

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

/// The months, and which customer has what.
pub(super) fn the_beginning(months: &[Period; 2], seed: u64) -> String {
    let [first, second] = months;
    let others = CUSTOMERS.len() - FEATURED.len();
    let mut text =
        format!("\nTwo months of usage: {first} and {second}, seed {seed}\n\nWho has what\n");
    for terms in FEATURED {
        text += &format!("  {:<16} {}\n", terms.customer, terms.words);
    }
    text + &format!("  {others} others        payg: usage alone\n\n")
}

/// What was issued for a month: the documents of who has more than usage to pay, and the sums of the others and of all.
pub(super) fn documents(issued: &[Invoice], period: &Period) -> String {
    let is_featured = |invoice: &&Invoice| {
        let mut featured = FEATURED.iter();
        featured.any(|terms| terms.customer == invoice.customer)
    };
    let (featured, others): (Vec<&Invoice>, Vec<&Invoice>) = issued.iter().partition(is_featured);
    let mut text = format!(
        "\n{period} is over, and {} documents are issued\n",
        issued.len()
    );
    text += &row(
        "",
        "",
        ["discount", "tax", "total", "prepaid", "due"].map(str::to_owned),
    );
    for invoice in &featured {
        let number = invoice.number.as_deref().unwrap_or("draft");
        text += &row(number, &invoice.customer, sums(&[invoice]).map(cents));
    }
    text += &row("", "the others", sums(&others).map(cents));
    let all: Vec<&Invoice> = issued.iter().collect();
    text + &row("", "all, in USD", sums(&all).map(cents))
}

/// What there is to see on a document that is shown line by line.
pub(super) fn one(place: usize, [first, second]: &[Period; 2]) -> String {
    match place {
        0 => "\nOne of them with base fee, seats, usage, tax, discount, and what was paid in advance\n".into(),
        _ => format!(
            "\nThe same customer in {second}: late usage of {first} is an adjustment, at the terms of {first}\n"
        ),
    }
}

fn row(number: &str, customer: &str, amounts: [String; 5]) -> String {
    let amounts = amounts.map(|amount| format!("{amount:>12}"));
    format!("{number:<12} {customer:<16}{}\n", amounts.concat())
}

/// Discount, tax, total, prepaid credits and amount due of some documents, in cents: all are in US dollars.
fn sums(invoices: &[&Invoice]) -> [i128; 5] {
    let amounts: [fn(&Invoice) -> Money; 5] = [
        |invoice| invoice.discount,
        |invoice| invoice.tax,
        |invoice| invoice.total,
        |invoice| invoice.credits,
        |invoice| invoice.amount_due,
    ];
    amounts.map(|amount| invoices.iter().map(|invoice| amount(invoice).minor()).sum())
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
         tollgate query \"SELECT customer, price, quantity, amount, corrects FROM line_items WHERE kind = 'adjustment' LIMIT 5\" --config {config}\n  \
         tollgate accounts list subscriptions --config {config}\n  \
         tollgate invoice --period {period} --customer halcyon-health --config {config}\n  \
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
