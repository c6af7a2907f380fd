//! Rating beside DuckDB: three prices over the totals of very many customers.
//!
//! ```text
//! cargo bench --workspace --bench rating
//! ```
//! Each size makes a lake of its own from a seed: a meter with two days of each customer, and a rate table of models. Then three
//! processes, one after the other, find what that month costs:
//!
//! * `tollgate`: the totals of the month from the meter's panes, and the charges of three prices over them: per unit by a rate table,
//!   graduated, and a percentage by model. All charges are kept until the end, as an invoice job does.
//! * `duckdb`: the same sums and the same arithmetic in SQL over the same Parquet files, each result a table of its own, by the python
//!   that `TOLLGATE_READERS` names. It is left out, with a word, where there is none.
//! * `draft`: what `tollgate invoice` makes of it: also usage by subject, lines, rounding and documents.
//!
//! How many charges each price has, their sum, the least and the greatest amount must be the same by the first two, and are the same as the
//! generator's where it can say them.
//!
//! | variable | default | |
//! |---|---|---|
//! | `TOLLGATE_BENCH_SIZES` | 1000000,2000000 | customers |
//! | `TOLLGATE_BENCH_MODELS` | 2000 | rows of the rate table |
//! | `TOLLGATE_READERS` | | a python with duckdb |
#![expect(clippy::print_stdout, reason = "the table is the result")]

#[path = "rating/made.rs"]
mod made;

use made::{
    FOLDER, Found, Result, WAY, by_process, elapsed_ms, in_duckdb, make_lake, opened, peak_mb,
    print_found, seconds, used,
};
use std::{env, path::Path, time::Instant};
use tollgate::{billing, cli};
use tollgate_sql::{
    money::Exact,
    rating::{Charge, rate},
    subscriptions,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Days in which each customer has an event.
const DAYS: u64 = 2;
const PRICES: [&str; 3] = ["tokens", "calls", "payments"];

fn main() -> Result<()> {
    if let (Ok(folder), Ok(way)) = (env::var(FOLDER), env::var(WAY)) {
        let found = cli::runtime()?.block_on(Box::pin(async {
            match way.as_str() {
                "draft" => drafted(Path::new(&folder)).await,
                _ => rated(Path::new(&folder)).await,
            }
        }))?;
        return print_found(&found);
    }
    let sizes = env::var("TOLLGATE_BENCH_SIZES").unwrap_or_else(|_| "1000000,2000000".to_owned());
    let models = env::var("TOLLGATE_BENCH_MODELS").unwrap_or_else(|_| "2000".to_owned());
    let models: u64 = models.parse()?;
    println!("| customers | by | sums s | prices s | all s | customers/s | peak MB |");
    println!("|---|---|---|---|---|---|---|");
    for size in sizes.split(',') {
        let customers: u64 = size.parse()?;
        let folder = tempfile::tempdir()?;
        make_lake(folder.path(), customers, models, DAYS)?;
        let ours = by_process(folder.path(), "tollgate")?;
        check_charges(&ours, customers)?;
        print_row(customers, "tollgate", &ours);
        match in_duckdb(folder.path())? {
            None => {
                println!("| {customers} | DuckDB: TOLLGATE_READERS names no python | | | | | |")
            }
            Some(theirs) => {
                if ours.charges != theirs.charges {
                    return Err(
                        format!("{:?} here, {:?} there", ours.charges, theirs.charges).into(),
                    );
                }
                print_row(customers, "DuckDB", &theirs);
            }
        }
        print_row(customers, "draft", &by_process(folder.path(), "draft")?);
    }
    Ok(())
}

fn print_row(customers: u64, by: &str, found: &Found) {
    let all_ms = found.sums_ms + found.prices_ms;
    println!(
        "| {customers} | {by} | {} | {} | {} | {} | {} |",
        seconds(found.sums_ms),
        seconds(found.prices_ms),
        seconds(all_ms),
        customers * 1_000 / all_ms.max(1),
        found.peak_mb
    );
}

/// Each customer has a charge of each price, and calls cost what the generator says.
fn check_charges(found: &Found, customers: u64) -> Result<()> {
    let counts: Vec<u64> = found.charges.iter().map(|(count, ..)| *count).collect();
    let of_customer = |customer: u64| {
        let calls: u64 = (0..DAYS).map(|day| used(customer, day).calls).sum();
        // In units of 0.0005.
        calls.clamp(1_000, 3_000) * 4 - 4_000 + calls.max(3_000) - 3_000
    };
    let units: u64 = (0..customers).map(of_customer).sum();
    let sum = Exact::new(i128::from(units) * 5, 4)?;
    match counts == [customers; 3] && found.charges[1].1 == sum {
        true => Ok(()),
        false => Err(format!(
            "{:?} found, {customers} customers and {sum} made",
            found.charges
        )
        .into()),
    }
}

/// The totals of the month and the charges of each price.
async fn rated(folder: &Path) -> Result<Found> {
    let (view, _, period) = opened(folder).await?;
    let started = Instant::now();
    let totals = view.all_totals(&period).await?;
    let sums_ms = elapsed_ms(started)?;
    let started = Instant::now();
    let mut all: Vec<Vec<Charge>> = Vec::new();
    for price in &view.catalog().definitions.prices {
        let nobody = subscriptions::relation(&[], &period)?;
        let session = view
            .period_session(&period, &price.query, &totals, nobody)
            .await?;
        let rated = rate(&session.context, price, &session.left_out).await?;
        all.push(rated.whole()?);
    }
    let prices_ms = elapsed_ms(started)?;
    Ok(Found {
        sums_ms,
        prices_ms,
        peak_mb: peak_mb()?,
        charges: all
            .iter()
            .map(|charges| summed(charges))
            .collect::<Result<_>>()?,
    })
}

fn summed(charges: &[Charge]) -> Result<(u64, Exact, Exact, Exact)> {
    let mut sum = Exact::ZERO;
    for charge in charges {
        sum = sum.checked_add(charge.amount)?;
    }
    let amounts = || charges.iter().map(|charge| charge.amount);
    let least = amounts().min().unwrap_or(Exact::ZERO);
    let greatest = amounts().max().unwrap_or(Exact::ZERO);
    Ok((u64::try_from(charges.len())?, sum, least, greatest))
}

/// The drafts of the month.
async fn drafted(folder: &Path) -> Result<Found> {
    let (view, settings, period) = opened(folder).await?;
    let started = Instant::now();
    let drafts = billing::draft(&view, &settings.billing, &period).await?;
    let prices_ms = elapsed_ms(started)?;
    let mut charges = Vec::new();
    for price in PRICES {
        let lines = drafts.invoices.iter().flat_map(|invoice| &invoice.lines);
        let lines = lines.filter(|line| line.price.as_deref() == Some(price));
        let amounts: Vec<Exact> = lines.map(|line| line.amount_exact).collect();
        let mut sum = Exact::ZERO;
        for amount in &amounts {
            sum = sum.checked_add(*amount)?;
        }
        charges.push((u64::try_from(amounts.len())?, sum, Exact::ZERO, Exact::ZERO));
    }
    Ok(Found {
        sums_ms: 0,
        prices_ms,
        peak_mb: peak_mb()?,
        charges,
    })
}
