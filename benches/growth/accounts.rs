//! More and more customers who have an account and a subscription: what a document of one of them costs.

use super::{
    EVENTS_FILE, Result, TASKS, check,
    customers::write_events,
    ms, quickest, settings,
    types::{forget_peak, peak_mb},
};
use std::{fmt::Write, path::Path, sync::Arc, time::Instant};
use tokio::sync::watch;
use tollgate::{
    billing::{Asked, Documents, Which, accounts, documents_of, issue_documents},
    catalog::Catalog,
    cli::{self, run::supervise},
    clock::{Clock, SystemClock},
    config::Settings,
    shard::Questions,
    view::View,
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::accounts::AccountsFile;

/// A lake of so many customers with usage, each with a subject and a subscription of its own.
pub(super) fn accounts(folder: &Path, count: u64) -> Result<()> {
    cli::runtime()?.block_on(async {
        let settings = settings(folder, TASKS, EVENTS_FILE)?;
        write_events(&folder.join("events.ndjson"), count)?;
        let catalog = Arc::new(Catalog::load(&settings).await?);
        let (_stop, stopped) = watch::channel(false);
        let questions = Questions::none();
        Box::pin(supervise(&settings, &catalog, true, stopped, questions)).await?;

        let lake = Lake::open(&settings.lake.url, &settings.base).await?;
        let started = Instant::now();
        let zone = &settings.billing.time_zone;
        let files = files(count);
        accounts::import(&lake, &files, &catalog.definitions, zone, &SystemClock).await?;
        let imported = started.elapsed();
        let one = format!("customer-{:07}", count / 2);
        let of_one = async || {
            let documents = documents(&settings, &catalog, Some(&one)).await?;
            Ok((documents.invoices.len() + documents.already.len()) as u64)
        };
        let (draft, drafted) = quickest(of_one).await?;
        forget_peak()?;
        let started = Instant::now();
        let all = documents(&settings, &catalog, None).await?;
        let (drafts, made) = (started.elapsed(), all.invoices.len() as u64);
        let started = Instant::now();
        let issued = issue_documents(&lake, all, &SystemClock).await?;
        let (issuing, peak_mb) = (started.elapsed(), peak_mb()?);
        check(
            "documents",
            (made, issued.issued.len() as u64),
            (count, count),
        )?;
        let (again, known) = quickest(of_one).await?;
        check("documents of one", (drafted, known), (1, 1))?;
        println!(
            "{count:>9} {:>11} {:>11} {:>11} {:>10} {peak_mb:>9} {:>25}",
            ms(imported),
            ms(draft),
            ms(drafts),
            ms(issuing),
            ms(again),
        );
        Ok(())
    })
}

/// What `tollgate invoice` makes of the month, from opening the lake on.
async fn documents(
    settings: &Settings,
    catalog: &Arc<Catalog>,
    customer: Option<&str>,
) -> Result<Documents> {
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
    let view = View::open(Arc::clone(catalog), &lake).await?;
    let which = Which::Month("2026-01".to_owned());
    let asked = Asked {
        which: &which,
        customer,
        corrects: false,
    };
    let billing = &settings.billing;
    let documents = documents_of(&view, &lake, billing, asked, SystemClock.now_us());
    Ok(documents.await?)
}

/// A row of each table for each customer.
fn files(count: u64) -> Vec<AccountsFile> {
    let mut customers = "customer,name\n".to_owned();
    let mut subjects = "subject,customer\n".to_owned();
    let mut subscriptions = "subscription,customer,plan,starts_at\n".to_owned();
    for customer in 0..count {
        // Writing to a String cannot fail.
        let _ = writeln!(customers, "customer-{customer:07},Customer {customer}");
        let _ = writeln!(subjects, "customer-{customer:07},customer-{customer:07}");
        let _ = writeln!(
            subscriptions,
            "s-{customer:07},customer-{customer:07},payg,2026-01-01"
        );
    }
    let tables = [
        ("customers", customers),
        ("subjects", subjects),
        ("subscriptions", subscriptions),
    ];
    let file = |(table, text): (&str, String)| AccountsFile {
        name: format!("{table}.csv"),
        bytes: text.into_bytes(),
    };
    tables.into_iter().map(file).collect()
}
