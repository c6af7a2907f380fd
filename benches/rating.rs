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

use std::{
    env, fs,
    io::{BufWriter, Write},
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::Instant,
};
use tokio::sync::watch;
use tollgate::{
    billing,
    catalog::Catalog,
    cli::{self, run::supervise},
    config::Settings,
    shard::Questions,
    view::View,
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{
    money::Exact,
    period::Period,
    rating::{Charge, rate},
    subscriptions,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

const DEFINITIONS: &str = "
CREATE EVENT TYPE used (
    model VARCHAR NOT NULL, tokens BIGINT NOT NULL, calls BIGINT NOT NULL, paid DECIMAL(18, 2) NOT NULL
) WITH (type = 'used');
CREATE METER used_by_model WITH (window = '1 day', lateness = '10 minutes') AS
SELECT subject, model, SUM(tokens) AS tokens, SUM(calls) AS calls, SUM(paid) AS paid FROM used GROUP BY subject, model;
CREATE RATE TABLE rates (model VARCHAR PRIMARY KEY, rate DECIMAL(18, 9) NOT NULL, percent DECIMAL(9, 3) NOT NULL)
WITH (location = 'rates.csv');

CREATE PRICE tokens WITH (currency = 'USD') AS
SELECT u.customer, u.model, SUM(u.tokens) AS quantity, SUM(per_unit(u.tokens, r.rate)) AS amount
FROM used_by_model u LEFT JOIN rates r ON r.model = u.model
GROUP BY u.customer, u.model;

CREATE PRICE calls WITH (currency = 'USD') AS
SELECT customer, SUM(calls) AS quantity,
       graduated(SUM(calls), [{up_to: 1000, unit_amount: 0}, {up_to: 3000, unit_amount: 0.002}, {unit_amount: 0.0005}]) AS amount
FROM used_by_model
GROUP BY customer;

CREATE PRICE payments WITH (currency = 'USD') AS
SELECT u.customer, u.model, SUM(u.paid) AS quantity, SUM(percentage(u.paid, r.percent, 0.25)) AS amount
FROM used_by_model u LEFT JOIN rates r ON r.model = u.model
GROUP BY u.customer, u.model;

CREATE PLAN payg WITH (currency = 'USD') AS (tokens, calls, payments);
";
const PRICES: [&str; 3] = ["tokens", "calls", "payments"];

/// The same sums and arithmetic in DuckDB. Prints seconds of the sums and of the prices, peak memory in MB, then one line a price.
const DUCKDB: &str = include_str!("rating/duckdb.py");

/// Days in which each customer has an event.
const DAYS: u64 = 2;
/// 2026-01-05: long ago, so that every window is due.
const START_S: i64 = 1_767_571_200;
const MONTH: &str = "2026-01";
const SEED: u64 = 14;

/// Asks a process of this bench for one way through the lake in this folder.
const FOLDER: &str = "TOLLGATE_BENCH_FOLDER";
const WAY: &str = "TOLLGATE_BENCH_WAY";

/// What one way made of a lake.
#[derive(Debug, PartialEq)]
struct Found {
    sums_ms: u64,
    prices_ms: u64,
    peak_mb: u64,
    /// Of each price: how many charges, their sum, the least and the greatest.
    charges: Vec<(u64, Exact, Exact, Exact)>,
}

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
        make_lake(folder.path(), customers, models)?;
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

/// Seconds with two digits after the point.
fn seconds(ms: u64) -> String {
    format!("{}.{:02}", ms / 1_000, ms % 1_000 / 10)
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

/// What one customer used in a day.
struct Used {
    model: u64,
    tokens: u64,
    calls: u64,
    paid_cents: u64,
}

fn used(customer: u64, day: u64) -> Used {
    let of_customer = mixed(customer + SEED);
    let of_day = mixed(of_customer + day);
    Used {
        model: of_customer,
        tokens: of_day % 5_000_000,
        calls: (of_day >> 24) % 3_000,
        paid_cents: (of_day >> 40) % 1_000_000,
    }
}

/// A number that looks like chance (SplitMix64).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Makes a lake whose windows are closed.
fn make_lake(folder: &Path, customers: u64, models: u64) -> Result<()> {
    fs::create_dir_all(folder.join("definitions"))?;
    fs::write(folder.join("definitions/all.sql"), DEFINITIONS)?;
    let mut rates = "model,rate,percent\n".to_owned();
    for model in 0..models {
        let (rate, percent) = (1 + model * 37 % 9_973, 5 * (1 + model % 400));
        rates += &format!(
            "model-{model:04},0.{rate:09},{}.{:03}\n",
            percent / 1_000,
            percent % 1_000
        );
    }
    fs::write(folder.join("definitions/rates.csv"), rates)?;
    fs::write(
        folder.join("tollgate.toml"),
        "[source]\nkind = \"files\"\npath = \"events.ndjson\"\nstream = \"BENCH\"\n[lake]\nurl = \"file://./lake\"\n",
    )?;
    write_events(&folder.join("events.ndjson"), customers, models)?;
    cli::runtime()?.block_on(async {
        let settings = settings(folder)?;
        let catalog = Arc::new(Catalog::load(&settings).await?);
        let (_stop, stopped) = watch::channel(false);
        let questions = Questions::none();
        Box::pin(supervise(&settings, &catalog, true, stopped, questions)).await?;
        Ok::<_, Failure>(())
    })?;
    Ok(fs::remove_file(folder.join("events.ndjson"))?)
}

fn write_events(path: &Path, customers: u64, models: u64) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for day in 0..DAYS {
        let time = jiff::Timestamp::from_second(START_S + 86_400 * i64::try_from(day)?)?;
        for customer in 0..customers {
            let Used {
                model,
                tokens,
                calls,
                paid_cents,
            } = used(customer, day);
            let (model, whole, cents) = (model % models, paid_cents / 100, paid_cents % 100);
            writeln!(
                file,
                r#"{{"specversion":"1.0","id":"{day}-{customer}","source":"bench","type":"used","subject":"customer-{customer:07}","time":"{time}","data":{{"model":"model-{model:04}","tokens":{tokens},"calls":{calls},"paid":{whole}.{cents:02}}}}}"#
            )?;
        }
    }
    Ok(file.flush()?)
}

fn settings(folder: &Path) -> Result<Settings> {
    Ok(Settings::load(
        &folder.join("tollgate.toml"),
        std::iter::empty(),
    )?)
}

/// A view of the lake in a folder, and the month that is rated.
async fn opened(folder: &Path) -> Result<(View, Settings, Period)> {
    let settings = settings(folder)?;
    let catalog = Arc::new(Catalog::load(&settings).await?);
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
    let view = View::open(catalog, &lake).await?;
    let period = settings.month(MONTH)?;
    Ok((view, settings, period))
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

fn elapsed_ms(since: Instant) -> Result<u64> {
    Ok(u64::try_from(since.elapsed().as_millis())?)
}

/// The most memory that was resident in this process, in MB.
fn peak_mb() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.ok_or("/proc/self/status has no VmHWM")?;
    Ok(peak.trim().trim_end_matches(" kB").parse::<u64>()? / 1_000)
}

/// What one way finds in a process of its own, whose memory is its own too.
fn by_process(folder: &Path, way: &str) -> Result<Found> {
    let mut command = Command::new(env::current_exe()?);
    command.env(FOLDER, folder).env(WAY, way);
    found_by(command)
}

/// What DuckDB finds; `None` where it is not there.
fn in_duckdb(folder: &Path) -> Result<Option<Found>> {
    let Some(python) = env::var_os("TOLLGATE_READERS").filter(|python| !python.is_empty()) else {
        return Ok(None);
    };
    let threads = thread::available_parallelism()?.to_string();
    let mut command = Command::new(python);
    command.args(["-c", DUCKDB]).arg(folder).arg(threads);
    found_by(command).map(Some)
}

fn print_found(found: &Found) -> Result<()> {
    println!("{} {} {}", found.sums_ms, found.prices_ms, found.peak_mb);
    for (count, sum, least, greatest) in &found.charges {
        println!("{count} {sum} {least} {greatest}");
    }
    Ok(())
}

/// Reads what [`print_found`] and the script print.
fn found_by(mut command: Command) -> Result<Found> {
    let ran = command.output()?;
    let text = String::from_utf8(ran.stdout)?;
    if !ran.status.success() {
        let program = command.get_program().display();
        let said = String::from_utf8_lossy(&ran.stderr);
        return Err(format!("{program} failed: {text}{said}").into());
    }
    let mut lines = text.lines().map(|line| line.split(' '));
    let mut times = lines.next().ok_or("a way says nothing")?;
    let mut time = || -> Result<u64> { Ok(times.next().ok_or("a time is missing")?.parse()?) };
    let (sums_ms, prices_ms, peak_mb) = (time()?, time()?, time()?);
    let charges = lines.map(|mut words| {
        let mut word = || words.next().ok_or("a number is missing");
        let count: u64 = word()?.parse()?;
        let mut amount = || -> Result<Exact> { Ok(Exact::parse(word()?)?) };
        Ok((count, amount()?, amount()?, amount()?))
    });
    Ok(Found {
        sums_ms,
        prices_ms,
        peak_mb,
        charges: charges.collect::<Result<_>>()?,
    })
}
