//! What grows with a lake, and what stays flat.
//!
//! ```text
//! cargo bench --workspace --bench growth
//! ```
//! Each row of the table is made in this process from a seed, and what is asked is compared with what was made.
//!
//! | row | what grows | what is measured |
//! |---|---|---|
//! | `customers` | customers of one meter | usage and draft of one of them and of all: from a lake in which all windows are closed, which is open, and from a running shard in which the last hour of each customer is open. `one of` divides what one takes by what all take: that can be compared between machines and profiles |
//! | `accounts` | customers with a subject and a subscription each | importing them; the documents of a month, of one and of all, from opening the lake on; issuing them; peak memory of both; and the document of one when all are issued |
//! | `ids` | event ids within the dedupe horizon | the part of a start that finds them: from `events`, from the local index, and from an index that lacks the last percent |
//! | `types` | event types with eight columns and a meter each, of the same number of events | events a second, peak memory, the size of `events`, opening the lake, counting all events, one type's sum, and a start that finds nothing new |
//! | `meters` | meters of one event type with the same keys, each with a filter and a sum of its own, and 30,000 groups a window | events a second, nanoseconds an event, peak memory, and a start that finds nothing new |
//! | `age` | days, with the same number of events each | reading them, maintaining the lake, looking through all that is stored, maintaining it when there is nothing to do, a start with nothing to read, opening the lake, usage and draft of the last month |
//!
//! | variable | default | |
//! |---|---|---|
//! | `TOLLGATE_BENCH_ROW` | all | the one row to measure |
//! | `TOLLGATE_BENCH_SIZES` | each row's own | the sizes of the row, in rising order |
//! | `TOLLGATE_BENCH_EVENTS` | 1000000 | events of the rows `types` and `meters` |
//! | `TOLLGATE_NATS_SERVER` | on `PATH` | the nats-server to start; without one no running shard is asked |
#![expect(clippy::print_stdout, reason = "the table is the result")]

#[path = "growth/accounts.rs"]
mod accounts;
#[path = "growth/age.rs"]
mod age;
#[path = "growth/customers.rs"]
mod customers;
#[path = "growth/ids.rs"]
mod ids;
#[path = "growth/meters.rs"]
mod meters;
#[path = "growth/types.rs"]
mod types;

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};
use tollgate::config::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// What is measured of a lake that grows in one way.
struct Row {
    name: &'static str,
    sizes: &'static [u64],
    /// Measures each size, in rising order, in a folder of its own.
    measure: fn(&Path, u64) -> Result<()>,
    /// What the columns that it prints are.
    columns: &'static str,
}

const ROWS: &[Row] = &[
    Row {
        name: "customers",
        sizes: &[1_000, 10_000, 100_000],
        measure: customers::customers,
        columns: "customers  events/s   usage of all ms   of one ms   one of   draft of all ms   of one ms   one of   live: of all ms   of one ms   one of",
    },
    Row {
        name: "accounts",
        sizes: &[1_000, 20_000, 200_000],
        measure: accounts::accounts,
        columns: "customers   import ms   of one ms   of all ms   issue ms   peak MB   of one, all issued, ms",
    },
    Row {
        name: "ids",
        sizes: &[1_000_000, 5_000_000, 20_000_000, 50_000_000],
        measure: ids::ids,
        columns: "ids        from events ms   from the index ms   lacking 1 % ms   index MB   peak MiB",
    },
    Row {
        name: "types",
        sizes: &[1, 20, 100, 300],
        measure: types::types,
        columns: "    types  events/s   peak MB   lake MB   files   open ms   count(*) ms   one type ms   start again ms",
    },
    Row {
        name: "meters",
        sizes: &[1, 10, 50],
        measure: meters::meters,
        columns: "   meters  events/s   ns an event   peak MB   start again ms",
    },
    Row {
        name: "age",
        sizes: &[1, 30, 365],
        measure: age::age,
        columns: "days      panes   read ms   maintain ms   sweep ms   again ms   start ms   open ms   month's usage ms   month's draft ms",
    },
];

/// One event type, its meter, and what it costs.
const TASKS: &str = "
CREATE EVENT TYPE task (n BIGINT NOT NULL) WITH (type = 'task');
CREATE METER tasks WITH (window = '1 hour', lateness = '10 minutes') AS
SELECT subject, SUM(n) AS n, COUNT(*) AS calls FROM task GROUP BY subject;
CREATE PRICE per_task WITH (currency = 'USD') AS
SELECT customer, SUM(n) AS quantity, 0.01 * SUM(n) AS amount FROM tasks GROUP BY customer;
CREATE PLAN payg WITH (currency = 'USD') AS (per_task);
";
const STREAM: &str = "BENCH";
/// The settings of a source that is a file.
const EVENTS_FILE: &str = "kind = \"files\"\npath = \"events.ndjson\"\n";

/// Writes definitions and a configuration with a lake beside them; `source` is what its source has besides the stream.
fn settings(folder: &Path, definitions: &str, source: &str) -> Result<Settings> {
    fs::create_dir_all(folder.join("definitions"))?;
    fs::write(folder.join("definitions/all.sql"), definitions)?;
    let file = folder.join("tollgate.toml");
    let source = format!("[source]\nstream = \"{STREAM}\"\n{source}");
    fs::write(&file, source + "[lake]\nurl = \"file://./lake\"\n")?;
    Ok(Settings::load(&file, std::iter::empty())?)
}

/// How often each question is asked; the quickest counts.
const TIMES: usize = 5;

fn main() -> Result<()> {
    let only = env::var("TOLLGATE_BENCH_ROW").ok();
    let sizes = env::var("TOLLGATE_BENCH_SIZES").ok();
    let is_asked_for = |row: &&Row| only.as_deref().is_none_or(|only| only == row.name);
    for row in ROWS.iter().filter(is_asked_for) {
        println!("{}", row.columns);
        let sizes = match &sizes {
            Some(text) => text.split(',').map(str::parse).collect(),
            None => Ok(row.sizes.to_vec()),
        };
        for size in sizes? {
            let folder = tempfile::tempdir()?;
            (row.measure)(folder.path(), size)?;
        }
        println!();
    }
    Ok(())
}

/// What is asked takes, and says every time.
async fn quickest(ask: impl AsyncFn() -> Result<u64>) -> Result<(Duration, u64)> {
    let mut best = Duration::MAX;
    let mut answer = 0;
    for _ in 0..TIMES {
        let started = Instant::now();
        answer = ask().await?;
        best = best.min(started.elapsed());
    }
    Ok((best, answer))
}

fn check(what: &str, found: (u64, u64), expected: (u64, u64)) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{found:?} {what} found, {expected:?} made").into()),
    }
}

/// Milliseconds with one digit after the point.
fn ms(time: Duration) -> String {
    let tenths = time.as_micros() / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A part of a whole, as one in so many.
fn part(part: Duration, whole: Duration) -> String {
    let tenths = whole.as_micros() * 10 / part.as_micros().max(1);
    format!("1/{}.{}", tenths / 10, tenths % 10)
}
