//! A lake of very many customers that is made from a seed, and ways through it, each in a process of its own.
#![expect(clippy::print_stdout, reason = "a process says what it found")]

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
    catalog::Catalog,
    cli::{self, run::supervise},
    config::Settings,
    shard::Questions,
    view::View,
};
use tollgate_connectors::lake::Lake;
use tollgate_sql::{money::Exact, period::Period};

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Failure>;

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

/// The same sums and arithmetic in DuckDB. Prints seconds of the sums and of the prices, peak memory in MB, then one line a price.
const DUCKDB: &str = include_str!("duckdb.py");

/// 2026-01-01: long ago, so that every window is due.
const START_S: i64 = 1_767_225_600;
const MONTH: &str = "2026-01";
const SEED: u64 = 14;

/// Asks a process of this bench for one way through the lake in this folder.
pub(crate) const FOLDER: &str = "TOLLGATE_BENCH_FOLDER";
pub(crate) const WAY: &str = "TOLLGATE_BENCH_WAY";

/// What one way made of a lake.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) sums_ms: u64,
    pub(crate) prices_ms: u64,
    pub(crate) peak_mb: u64,
    /// Of each price: how many charges, their sum, the least and the greatest.
    pub(crate) charges: Vec<(u64, Exact, Exact, Exact)>,
}

/// Seconds with two digits after the point.
pub(crate) fn seconds(ms: u64) -> String {
    format!("{}.{:02}", ms / 1_000, ms % 1_000 / 10)
}

/// What one customer used in a day.
pub(crate) struct Used {
    pub(crate) model: u64,
    pub(crate) tokens: u64,
    pub(crate) calls: u64,
    pub(crate) paid_cents: u64,
}

pub(crate) fn used(customer: u64, day: u64) -> Used {
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
pub(crate) fn make_lake(folder: &Path, customers: u64, models: u64, days: u64) -> Result<()> {
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
    write_events(&folder.join("events.ndjson"), customers, models, days)?;
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

fn write_events(path: &Path, customers: u64, models: u64, days: u64) -> Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for day in 0..days {
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

pub(crate) fn settings(folder: &Path) -> Result<Settings> {
    Ok(Settings::load(
        &folder.join("tollgate.toml"),
        std::iter::empty(),
    )?)
}

/// A view of the lake in a folder, and the month that is rated.
pub(crate) async fn opened(folder: &Path) -> Result<(View, Settings, Period)> {
    let settings = settings(folder)?;
    let catalog = Arc::new(Catalog::load(&settings).await?);
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await?;
    let view = View::open(catalog, &lake).await?;
    let period = settings.month(MONTH)?;
    Ok((view, settings, period))
}

pub(crate) fn elapsed_ms(since: Instant) -> Result<u64> {
    Ok(u64::try_from(since.elapsed().as_millis())?)
}

/// The most memory that was resident in this process, in MB.
pub(crate) fn peak_mb() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.ok_or("/proc/self/status has no VmHWM")?;
    Ok(peak.trim().trim_end_matches(" kB").parse::<u64>()? / 1_000)
}

/// What one way finds in a process of its own, whose memory is its own too.
pub(crate) fn by_process(folder: &Path, way: &str) -> Result<Found> {
    let mut command = Command::new(env::current_exe()?);
    command.env(FOLDER, folder).env(WAY, way);
    found_by(command)
}

/// What DuckDB finds; `None` where it is not there.
pub(crate) fn in_duckdb(folder: &Path) -> Result<Option<Found>> {
    let Some(python) = env::var_os("TOLLGATE_READERS").filter(|python| !python.is_empty()) else {
        return Ok(None);
    };
    let threads = thread::available_parallelism()?.to_string();
    let mut command = Command::new(python);
    command.args(["-c", DUCKDB]).arg(folder).arg(threads);
    found_by(command).map(Some)
}

pub(crate) fn print_found(found: &Found) -> Result<()> {
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
