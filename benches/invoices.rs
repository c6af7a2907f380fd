//! A month of very many customers: drafts, and issuing with and without accounts, range by range.
//!
//! ```text
//! cargo bench --workspace --bench invoices
//! ```
//! Each size makes a lake from a seed: a meter whose windows are days, with a pane of each customer for each day of January, a rate table of
//! models, and three prices. Then processes, one after the other, go through it; `s` is from opening the lake on, and `peak MB` the most memory
//! that was resident:
//!
//! * `duckdb`: the sums of the month over the same Parquet files, and the arithmetic of the prices, each result a table of its own, by the
//!   python that `TOLLGATE_READERS` names. It is left out, with a word, where there is none.
//! * `draft`: what `tollgate invoice --period 2026-01` makes.
//! * `issue`: the same with `--finalize`; what it wrote is taken away again.
//! * `accounts`: each customer with a subject and a subscription of its own, imported before, and `--finalize`.
//!
//! The lines of each price are as many as customers, and their sum is DuckDB's. At the end it says how large the tables are.
//!
//! | variable | default | |
//! |---|---|---|
//! | `TOLLGATE_BENCH_SIZES` | 1000000 | customers |
//! | `TOLLGATE_BENCH_DAYS` | 30 | days in which each has usage |
//! | `TOLLGATE_BENCH_MODELS` | 2000 | rows of the rate table |
//! | `TOLLGATE_BENCH_MAX_BYTES` | 1GB | `billing.max_bytes` |
//! | `TOLLGATE_READERS` | | a python with duckdb |
#![expect(clippy::print_stdout, reason = "the table is the result")]

#[path = "rating/made.rs"]
mod made;

use made::{
    FOLDER, Found, Result, WAY, by_process, elapsed_ms, in_duckdb, make_lake, opened, peak_mb,
    print_found, seconds,
};
use std::{collections::BTreeMap, env, fmt::Write, fs, path::Path, sync::Arc, time::Instant};
use tollgate::{
    billing::{Asked, DocumentsInRanges, DraftsInRanges, Issuing, PeriodIssuing, Which, accounts},
    cli,
    clock::{Clock, SystemClock},
    config::{BillingSettings, Settings},
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{accounts::AccountsFile, invoice::Invoice, money::Exact};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PRICES: [&str; 3] = ["tokens", "calls", "payments"];

fn main() -> Result<()> {
    if let (Ok(folder), Ok(way)) = (env::var(FOLDER), env::var(WAY)) {
        let folder = Path::new(&folder);
        let found = cli::runtime()?.block_on(Box::pin(async {
            match way.as_str() {
                "draft" => drafted(folder).await,
                "import" => imported(folder).await,
                "accounts" => issued_with_accounts(folder).await,
                _ => issued(folder).await,
            }
        }))?;
        return print_found(&found);
    }
    let number = |name: &str, default: u64| -> Result<u64> {
        Ok(env::var(name).map_or(Ok(default), |text| text.parse())?)
    };
    let days = number("TOLLGATE_BENCH_DAYS", 30)?;
    let models = number("TOLLGATE_BENCH_MODELS", 2_000)?;
    let sizes = env::var("TOLLGATE_BENCH_SIZES").unwrap_or_else(|_| "1000000".to_owned());
    for size in sizes.split(',') {
        let customers: u64 = size.parse()?;
        let folder = tempfile::tempdir()?;
        make_lake(folder.path(), customers, models, days)?;
        measure(folder.path(), customers, days)?;
    }
    Ok(())
}

fn measure(folder: &Path, customers: u64, days: u64) -> Result<()> {
    println!("{customers} customers, {days} days each");
    println!("| by | s | customers/s | peak MB |");
    println!("|---|---|---|---|");
    let theirs = in_duckdb(folder)?;
    match &theirs {
        None => println!("| DuckDB: TOLLGATE_READERS names no python | | | |"),
        Some(theirs) => {
            let sums_ms = theirs.sums_ms;
            print_row("DuckDB, the sums", customers, sums_ms, theirs.peak_mb);
            let all_ms = sums_ms + theirs.prices_ms;
            print_row("DuckDB, with the prices", customers, all_ms, theirs.peak_mb);
        }
    }
    for way in ["draft", "issue", "import", "accounts"] {
        let ours = by_process(folder, way)?;
        print_row(way, customers, ours.prices_ms, ours.peak_mb);
        let found: Vec<(u64, Exact)> = ours.charges.iter().map(|of| (of.0, of.1)).collect();
        let counts: Vec<u64> = found.iter().map(|(count, _)| *count).collect();
        let sums = |of: &Found| of.charges.iter().map(|of| of.1).collect::<Vec<_>>();
        let is_theirs = theirs
            .as_ref()
            .is_none_or(|theirs| sums(theirs) == sums(&ours));
        if way != "import" && (counts != [customers; 3] || !is_theirs) {
            return Err(format!("{way}: {ours:?} here, {theirs:?} there").into());
        }
        if way == "issue" {
            print_tables(folder)?;
            for table in ["invoices", "line_items", "rated_by"] {
                fs::remove_dir_all(folder.join("lake").join(table))?;
            }
        }
    }
    print_tables(folder)
}

fn print_row(by: &str, customers: u64, ms: u64, peak_mb: u64) {
    let each_second = customers * 1_000 / ms.max(1);
    println!("| {by} | {} | {each_second} | {peak_mb} |", seconds(ms));
}

fn print_tables(folder: &Path) -> Result<()> {
    for table in ["meters", "accounts", "invoices", "line_items"] {
        let bytes = bytes_in(&folder.join("lake").join(table))?;
        println!("| table {table}, MB | {} | | |", bytes / 1_000_000);
    }
    Ok(())
}

/// The bytes of all files in a folder; none where there is no such folder.
fn bytes_in(folder: &Path) -> Result<u64> {
    let Ok(files) = fs::read_dir(folder) else {
        return Ok(0);
    };
    let mut bytes = 0;
    for file in files {
        let file = file?;
        bytes += match file.file_type()?.is_dir() {
            true => bytes_in(&file.path())?,
            false => file.metadata()?.len(),
        };
    }
    Ok(bytes)
}

/// The settings of invoices.
fn billing(settings: &Settings) -> Result<BillingSettings> {
    let mut billing = settings.billing.clone();
    if let Ok(text) = env::var("TOLLGATE_BENCH_MAX_BYTES") {
        billing.max_bytes = text.parse()?;
    }
    Ok(billing)
}

/// The lines of each price, and their sum.
#[derive(Default)]
struct Lines(BTreeMap<&'static str, (u64, Exact)>);

impl Lines {
    fn add(&mut self, invoices: &[Invoice]) -> Result<()> {
        for line in invoices.iter().flat_map(|invoice| &invoice.lines) {
            let price = PRICES
                .iter()
                .find(|price| line.price.as_deref() == Some(**price));
            let price = price.ok_or("a line of no price")?;
            let (count, sum) = self.0.entry(price).or_insert((0, Exact::ZERO));
            *count += 1;
            *sum = sum.checked_add(line.amount_exact)?;
        }
        Ok(())
    }

    fn found(self, since: Instant) -> Result<Found> {
        let of_price = |price: &&str| {
            let (count, sum) = self.0.get(price).copied().unwrap_or((0, Exact::ZERO));
            (count, sum, Exact::ZERO, Exact::ZERO)
        };
        Ok(Found {
            sums_ms: 0,
            prices_ms: elapsed_ms(since)?,
            peak_mb: peak_mb()?,
            charges: PRICES.iter().map(of_price).collect(),
        })
    }
}

async fn drafted(folder: &Path) -> Result<Found> {
    let started = Instant::now();
    let (view, settings, period) = opened(folder).await?;
    let billing = billing(&settings)?;
    let mut lines = Lines::default();
    let mut job = DraftsInRanges::begin(&view, &billing, &period, None).await?;
    while let Some(drafts) = job.next().await? {
        lines.add(&drafts.invoices)?;
    }
    lines.found(started)
}

async fn issued(folder: &Path) -> Result<Found> {
    let started = Instant::now();
    let (view, settings, period) = opened(folder).await?;
    let billing = billing(&settings)?;
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let mut lines = Lines::default();
    let mut job = DraftsInRanges::begin(&view, &billing, &period, None).await?;
    let mut issuing = PeriodIssuing::begin(&view, &lake, &period, &SystemClock).await?;
    while let Some(drafts) = job.next().await? {
        lines.add(&issuing.add(drafts).await?.issued)?;
    }
    lines.add(&issuing.commit(&lake).await?.issued)?;
    lines.found(started)
}

/// Imports an account for each customer.
async fn imported(folder: &Path) -> Result<Found> {
    let started = Instant::now();
    let (view, settings, period) = opened(folder).await?;
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let names = view.all_totals(&period).await?.customers();
    let mut customers = "customer\n".to_owned();
    let mut subjects = "subject,customer\n".to_owned();
    let mut subscriptions = "subscription,customer,plan,starts_at,ends_at\n".to_owned();
    for name in &names {
        writeln!(customers, "{name}")?;
        writeln!(subjects, "{name},{name}")?;
        writeln!(subscriptions, "s-{name},{name},payg,2026-01-01,2026-02-01")?;
    }
    let file = |name: &str, text: String| AccountsFile {
        name: format!("{name}.csv"),
        bytes: text.into_bytes(),
    };
    let files = [
        file("customers", customers),
        file("subjects", subjects),
        file("subscriptions", subscriptions),
    ];
    let (definitions, zone) = (&view.catalog().definitions, &settings.billing.time_zone);
    accounts::import(&lake, &files, definitions, zone, &SystemClock).await?;
    Lines::default().found(started)
}

async fn issued_with_accounts(folder: &Path) -> Result<Found> {
    let started = Instant::now();
    let (view, settings, _) = opened(folder).await?;
    let billing = billing(&settings)?;
    let lake = Lake::open(&settings.lake.url, &settings.base).await?;
    let asked = Asked {
        which: &Which::Due,
        customer: None,
        corrects: false,
    };
    let now_us = SystemClock.now_us();
    let accounts = Arc::new(accounts::ByRange::begin(&lake, None).await?);
    let job = DocumentsInRanges::begin(&view, &lake, &billing, &accounts, asked, now_us);
    let (mut job, mut lines) = (job.await?, Lines::default());
    let mut issuing = Issuing::begin(&lake, &SystemClock).await?;
    while let Some(documents) = job.next().await? {
        lines.add(&issuing.add(documents).await?)?;
    }
    issuing.commit(&lake).await?;
    lines.found(started)
}
