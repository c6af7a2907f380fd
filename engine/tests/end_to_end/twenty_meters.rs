//! Twenty meters with every aggregate give the same bytes in batches of 1, 1,000 and 65,536 events and
//! after three restarts, and those are what `tollgate audit` and DuckDB make of the events, and what the meters
//! give that are filled in afterwards.
//!
//! Every line of the file has the same length, so `source.batch_bytes` says exactly how many events a
//! micro-batch has. Batches of one event take far the longest, so fewer events go that way.
//! `TOLLGATE_PROOF_EVENTS=1000000` sends that many every way, and `--nocapture` shows the times.

use crate::world::{Cli, Summary, World};
use Interrupted::{Killed, Stopped};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write,
    fs,
    sync::Arc,
    time::Instant,
};
use tokio::process::Command;
use tollgate::{
    catalog::Catalog,
    cli::{
        demo::generator::Random,
        output::{Format, encode_rows},
    },
    clock::SystemClock,
    jobs::backfill::{Panes, Span, backfill},
    view::View,
};
use tollgate_connectors::lake::Lake;

const DEFINITIONS: &str = include_str!("twenty_meters.sql");
const DUCKDB: &str = include_str!("twenty_meters.py");

/// Events in large batches, one by one, and in parts, unless the variable says otherwise.
const EVENTS: usize = 70_000;
const EVENTS_ONE_BY_ONE: usize = 1_000;
const EVENTS_IN_PARTS: usize = 6_000;

/// Where the events are, in the world's folder.
const FILE: &str = "usage.ndjson";

/// Bytes of a line without its line break.
const LINE_BYTES: usize = 400;

/// 2025-10-10T00:00:00Z, and three days from there.
const START_US: i64 = 1_760_054_400_000_000;
const SPAN_US: i64 = 3 * 24 * HOUR_US;
const HOUR_US: i64 = 3_600_000_000;

/// Made-up usage, and what is known of it.
#[derive(Default)]
struct Usage {
    lines: Vec<String>,
    repeats: u64,
    rejected: u64,
}

impl Usage {
    fn new(seed: u64, events: usize) -> Self {
        let mut random = Random::new(seed);
        let mut usage = Usage::default();
        let mut before_us = START_US;
        for number in 0..events {
            let line = if number > 0 && random.one_in(100) {
                usage.repeats += 1;
                // A line that is not an event is none the second time either.
                let recent = number.min(3_000);
                usage.lines[number - 1 - random.index(recent)].clone()
            } else {
                let elapsed = i128::from(SPAN_US) * number as i128 / events as i128;
                let now_us = START_US + i64::try_from(elapsed).unwrap();
                before_us = time_us(&mut random, now_us, before_us);
                line(&mut random, number, before_us)
            };
            usage.lines.push(line);
        }
        usage.count_rejected();
        usage
    }

    /// The ones that are no events are all rejected, again and again.
    fn count_rejected(&mut self) {
        let is_rejected = |line: &&String| line.contains("\"units\":\"many\"");
        let rejected = self.lines.iter().filter(is_rejected);
        self.rejected = rejected.count() as u64;
        let mut ids = BTreeMap::new();
        for line in self.lines.iter().filter(|line| !is_rejected(line)) {
            *ids.entry(line.as_str()).or_insert(0_u64) += 1;
        }
        self.repeats = ids.values().map(|times| times - 1).sum();
    }

    fn text(&self) -> String {
        self.lines.join("\n") + "\n"
    }
}

/// Up to two minutes out of order; some exactly on a boundary or a microsecond before it, some at the
/// same time as another, some hours or a day late.
fn time_us(random: &mut Random, now_us: i64, before_us: i64) -> i64 {
    let below = |random: &mut Random, end: i64| random.below(end.unsigned_abs()).cast_signed();
    let boundary = |width: i64| now_us - now_us.rem_euclid(width);
    let time_us = match random.below(200) {
        0 => now_us - HOUR_US - below(random, 30 * HOUR_US),
        1..=3 => boundary(60_000_000),
        4..=6 => boundary(60_000_000) - 1,
        7..=8 => boundary(HOUR_US),
        9..=10 => boundary(HOUR_US) - 1,
        11 => boundary(24 * HOUR_US),
        12 => boundary(24 * HOUR_US) - 1,
        13..=30 => before_us,
        _ => now_us - below(random, 120_000_000),
    };
    time_us.max(START_US)
}

/// One event, filled up with spaces.
fn line(random: &mut Random, number: usize, time_us: i64) -> String {
    let time = jiff::Timestamp::from_microsecond(time_us).unwrap();
    // Some subjects are busier than others.
    let subject = random.below(25).min(random.below(25));
    let mut line = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"e{number}\",\"source\":\"proof\",\"type\":\"proof.reading\",\
         \"subject\":\"s{subject:02}\",\"time\":\"{time}\",\"data\":{{"
    );
    for (name, values) in [
        ("model", &["small", "large", "internal", "large"][..]),
        ("region", &["eu", "us", ""]),
        (
            "member",
            &["ann", "ben", "Ünï", "cy", "dee", "eve", "fay", "gil"],
        ),
        ("operation", &["join", "leave", "touch"]),
    ] {
        let value = match random.one_in(6) {
            true => "null".to_owned(),
            false => format!("\"{}\"", values[random.index(values.len())]),
        };
        write!(line, "\"{name}\":{value},").unwrap();
    }
    let units = match random.one_in(5_000) {
        true => "\"many\"".to_owned(),
        false => number_or_null(random, 1_050, -50, 0),
    };
    let huge = match random.one_in(2) {
        true => number_or_null(random, 1_000, i128::from(i64::MAX) - 999, 0),
        false => number_or_null(random, 1_000, i128::from(i64::MIN), 0),
    };
    let seats = number_or_null(random, 11, -5, 0);
    let cost = match random.one_in(3) {
        true => number_or_null(
            random,
            2_000_000_000_000_000_000 - 1,
            1 - 10_i128.pow(18),
            9,
        ),
        false => number_or_null(random, 10_000_000_000, -1_000_000_000, 9),
    };
    let rate = {
        let high = i128::from(random.below(1_000_000)) * 10_i128.pow(18);
        number_or_null(random, 1_000_000_000_000_000_000, high, 18)
    };
    let level = number_or_null(random, 1_999_999, -999_999, 3);
    write!(
        line,
        "\"units\":{units},\"huge\":{huge},\"seats\":{seats},\"cost\":{cost},\"rate\":{rate},\
         \"level\":{level}}}}}"
    )
    .unwrap();
    let bytes = line.len();
    assert!(bytes <= LINE_BYTES, "{bytes} bytes: {line}");
    line + &" ".repeat(LINE_BYTES - bytes)
}

/// `least` and up to `count` more, in units of the last of `scale` digits after the point; one in eight
/// is null.
fn number_or_null(random: &mut Random, count: u64, least: i128, scale: u32) -> String {
    if random.one_in(8) {
        return "null".to_owned();
    }
    let digits = least + i128::from(random.below(count));
    let unit = 10_i128.pow(scale);
    let sign = if digits < 0 { "-" } else { "" };
    let (whole, rest) = (digits.abs() / unit, digits.abs() % unit);
    match usize::try_from(scale).unwrap() {
        0 => format!("{sign}{whole}"),
        width => format!("{sign}{whole}.{rest:0>width$}"),
    }
}

/// How many events a test sends, unless the variable says otherwise.
fn scale(default: usize) -> usize {
    match env::var("TOLLGATE_PROOF_EVENTS") {
        Ok(events) => events.parse().unwrap(),
        Err(_) => default,
    }
}

/// How a run is interrupted: after so many flushes.
enum Interrupted {
    Killed(usize),
    Stopped(usize),
}

/// What one way of metering gave: the CSV of each meter, by name.
type Answers = BTreeMap<String, String>;

fn meters() -> impl Iterator<Item = &'static str> {
    let names = DEFINITIONS.split("CREATE METER ").skip(1);
    names.map(|text| text.split_whitespace().next().unwrap())
}

const REGION: &str = "REPLACE (COALESCE(region, 'NULL') AS region)";

/// Every window and group of every meter, in order, as `tollgate query` prints them. NULL and the empty
/// text are told apart where both are regions.
async fn answers(cli: &Cli) -> Answers {
    let view = view(cli).await;
    let mut answers = Answers::new();
    for meter in meters() {
        let all = csv(&view, &select(meter, meter)).await;
        assert!(
            csv(&view, &select_some(meter)).await == some_of(&all),
            "{meter}"
        );
        answers.insert(meter.to_owned(), all);
    }
    assert_eq!(answers.len(), 20);
    // One of them through the command, whose code that was.
    let printed = cli
        .succeed(&["query", "--format", "csv", &select("ends", "ends")])
        .await;
    assert!(printed == answers["ends"]);
    answers
}

async fn view(cli: &Cli) -> View {
    let settings = cli.settings();
    let catalog = Arc::new(Catalog::load(&settings).await.unwrap());
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base).await;
    View::open(catalog, &lake.unwrap()).await.unwrap()
}

async fn csv(view: &View, sql: &str) -> String {
    let context = view.session(sql).await.unwrap();
    let frame = context.sql(sql).await.unwrap();
    let schema = Arc::clone(frame.schema().inner());
    let rows = frame.collect().await.unwrap();
    let csv = encode_rows(&schema, &rows, Format::Csv).unwrap();
    String::from_utf8(csv).unwrap()
}

/// Every window and group of a relation that has the columns of a meter.
fn select(meter: &str, relation: &str) -> String {
    let (region, keys) = region_and_keys(meter);
    format!(
        "SELECT * FROM (SELECT * EXCLUDE (window_end, is_final, customer, error) {region} FROM {relation})
         ORDER BY window_start, subject{keys}"
    )
}

/// A part of the time that all windows span, which begins and ends within some.
const SOME: [&str; 2] = ["2025-10-11T00:00:30Z", "2025-10-12T06:20:00Z"];

/// The windows that start in [`SOME`] of the time.
fn select_some(meter: &str) -> String {
    let [from, to] = SOME;
    let some = format!("{meter} WHERE window_start > '{from}' AND window_start <= '{to}'");
    select(meter, &some)
}

/// The same from the CSV of all windows, where an instant is text of one length.
fn some_of(csv: &str) -> String {
    let [from, to] = SOME;
    let (header, lines) = csv.split_once('\n').unwrap();
    let within = lines
        .lines()
        .filter(|line| *line > from && &line[..to.len()] <= to);
    let lines = within.map(|line| format!("{line}\n"));
    format!("{header}\n{}", lines.collect::<String>())
}

/// The panes of the close, as they are in the table.
fn select_panes(meter: &str, relation: &str) -> String {
    let (region, keys) = region_and_keys(meter);
    format!(
        "SELECT * FROM (SELECT * {region} FROM {relation}_panes WHERE pane = 0)
         ORDER BY window_start, subject{keys}"
    )
}

fn region_and_keys(meter: &str) -> (&'static str, &'static str) {
    match meter {
        "extremes" | "medians" => ("", ", model"),
        "counts" => (REGION, ", model, region"),
        "ends" => (REGION, ", region"),
        "by_many" => (REGION, ", model, region, verb"),
        _ => ("", ""),
    }
}

/// A lake of its own, read from a file in micro-batches of exactly so many events.
fn reading(world: &World, lake: &str, batch: usize) -> Cli {
    let bytes = (batch * LINE_BYTES).to_string();
    world
        .cli()
        .lake(lake)
        .with("TOLLGATE_SOURCE_KIND", "files")
        .with("TOLLGATE_SOURCE_PATH", FILE)
        .with("TOLLGATE_SOURCE_BATCH_BYTES", &bytes)
}

/// Meters to the end, interrupted on the way; returns what the last run said.
async fn run(cli: &Cli, interruptions: &[Interrupted]) -> Summary {
    let since = Instant::now();
    for interruption in interruptions {
        let (Killed(flushes) | Stopped(flushes)) = interruption;
        let run = cli.start_and_halt(*flushes, &["run"]).await;
        match interruption {
            Killed(_) => run.kill().await,
            Stopped(_) => {
                let ran = run.terminate_halted().await;
                assert_eq!(ran.code, Some(0), "{ran:#?}");
                assert!(ran.stderr.contains("stop was asked for"), "{ran:#?}");
            }
        }
    }
    let summary = cli.run_to_end().await;
    println!(
        "metered in {:.1?}, {} interruptions",
        since.elapsed(),
        interruptions.len()
    );
    summary
}

/// It answers, byte for byte, what is expected.
async fn check(cli: &Cli, expected: &Answers) {
    for (meter, csv) in answers(cli).await {
        let wanted = &expected[&meter];
        assert!(
            csv == *wanted,
            "{meter}: {}",
            first_difference(&csv, wanted)
        );
    }
}

fn first_difference(got: &str, wanted: &str) -> String {
    let lines = got.lines().zip(wanted.lines());
    let differ = lines.filter(|(got, wanted)| got != wanted);
    let shown = differ
        .take(3)
        .map(|(got, wanted)| format!("\n  got    {got}\n  wanted {wanted}"));
    let counts = (got.lines().count(), wanted.lines().count());
    format!("{counts:?} lines{}", shown.collect::<String>())
}

/// The same meters under other names, filled in from the lake, have the same windows and panes of the close,
/// row for row.
async fn check_backfill(world: &World, cli: &Cli, expected: &Answers) {
    let later = DEFINITIONS.split_once("CREATE METER ").unwrap().1;
    let later = format!("CREATE METER {later}").replace("CREATE METER ", "CREATE METER later_");
    world.write("definitions/later.sql", &later);
    let settings = cli.settings();
    let catalog = Catalog::load(&settings).await.unwrap();
    let lake = Lake::open(&settings.lake.url, &settings.base)
        .await
        .unwrap();
    for meter in meters() {
        let (name, all) = (format!("later_{meter}"), Span::default());
        let panes = Panes::Written(&SystemClock);
        let filled = backfill(&catalog, &lake, &name, all, 1_000_000, panes).await;
        assert!(filled.unwrap()[0].panes > 0, "{meter}");
    }
    let view = view(cli).await;
    for meter in meters() {
        let relation = format!("later_{meter}");
        let windows = csv(&view, &select(meter, &relation)).await;
        let wanted = &expected[meter];
        assert!(
            windows == *wanted,
            "{meter}: {}",
            first_difference(&windows, wanted)
        );
        let panes = csv(&view, &select_panes(meter, &relation)).await;
        let wanted = csv(&view, &select_panes(meter, meter)).await;
        assert!(
            panes == wanted,
            "{meter}: {}",
            first_difference(&panes, &wanted)
        );
    }
    cli.audit().await;
    fs::remove_file(world.path("definitions/later.sql")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_batches_and_restarts_give_the_same_bytes_as_the_audit_and_duckdb() {
    let world = World::new(DEFINITIONS).await;
    let events = scale(EVENTS);
    let usage = Usage::new(1, events);
    world.write(FILE, &usage.text());
    // A flush for every batch of 65,536, some twenty for batches of 1,000.
    let flush_bytes = (events * 8).to_string();
    let way =
        |lake, batch| reading(&world, lake, batch).with("TOLLGATE_FLUSH_MAX_BYTES", &flush_bytes);

    let whole = way("whole", 65_536);
    let summary = run(&whole, &[]).await;
    assert_eq!(summary.of("events"), events as u64, "{summary:?}");
    assert_eq!(summary.of("repeats"), usage.repeats, "{summary:?}");
    assert_eq!(summary.of("rejected"), usage.rejected, "{summary:?}");
    let counted = events as u64 - usage.repeats - usage.rejected;
    assert_eq!(summary.of("counted"), counted, "{summary:?}");
    let late = summary.late();
    assert!(late > counted / 1_000, "{summary:?}");
    let expected = answers(&whole).await;
    whole.audit().await;
    if let Some(statuses) = compare_with_duckdb(&world, "whole", &expected).await {
        let ok = counted - late;
        let wanted = format!("late {late}\nok {ok}\nrejected {}\n", usage.rejected);
        assert_eq!(statuses, wanted);
    }

    check_backfill(&world, &whole, &expected).await;

    let killed = way("killed", 65_536);
    run(&killed, &[Killed(1)]).await;
    check(&killed, &expected).await;

    let smaller = way("smaller", 1_000);
    run(&smaller, &[]).await;
    check(&smaller, &expected).await;

    let thrice = way("thrice", 1_000);
    run(&thrice, &[Killed(2), Stopped(4), Killed(6)]).await;
    check(&thrice, &expected).await;
    thrice.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_one_by_one_and_restarts_give_the_same_bytes() {
    let world = World::new(DEFINITIONS).await;
    let events = scale(EVENTS_ONE_BY_ONE);
    let usage = Usage::new(2, events);
    world.write(FILE, &usage.text());
    let whole = reading(&world, "whole", 65_536);
    run(&whole, &[]).await;
    let expected = answers(&whole).await;
    compare_with_duckdb(&world, "whole", &expected).await;

    let flush_bytes = (events * 1_000).to_string();
    let one = reading(&world, "one", 1).with("TOLLGATE_FLUSH_MAX_BYTES", &flush_bytes);
    run(&one, &[Killed(1), Stopped(1), Killed(2)]).await;
    check(&one, &expected).await;
    one.audit().await;
}

/// Where the input ends every window is closed, so where it ends decides what is late afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_late_elsewhere_give_the_same_bytes() {
    let world = World::new(DEFINITIONS).await;
    let usage = Usage::new(3, scale(EVENTS_IN_PARTS));
    let once = world.cli().stream("once");
    let mut late = vec![publish_and_run(&world, &once, &usage, &[]).await];
    let expected = answers(&once).await;
    for (name, ends) in [("early", [1, 3, 9]), ("even", [5, 10, 15])] {
        let cli = world.cli().stream(name);
        late.push(publish_and_run(&world, &cli, &usage, &ends).await);
        check(&cli, &expected).await;
    }
    world.cli().stream("even").audit().await;
    assert_eq!(BTreeSet::from_iter(&late).len(), 3, "{late:?}");
    compare_with_duckdb(&world, "lake-even", &expected).await;
}

/// Publishes in parts that end at these twentieths, an event a message, and meters each to its end.
/// Returns how many events were late.
async fn publish_and_run(world: &World, cli: &Cli, usage: &Usage, ends: &[usize]) -> u64 {
    let mut late = 0;
    let mut from = 0;
    for twentieths in ends.iter().chain([&20]) {
        let end = usage.lines.len() * twentieths / 20;
        world.write(FILE, &(usage.lines[from..end].join("\n") + "\n"));
        cli.publish(&world.path(FILE), 1).await;
        late += run(cli, &[]).await.late();
        from = end;
    }
    late
}

/// What DuckDB makes of `events`, and of the panes of plain measures, is what `tollgate query` printed.
/// Returns how many events there are of each status; `None` where there is no DuckDB.
async fn compare_with_duckdb(world: &World, lake: &str, answers: &Answers) -> Option<String> {
    let Some(python) = env::var_os("TOLLGATE_READERS").filter(|python| !python.is_empty()) else {
        println!("skipped: TOLLGATE_READERS names no python with duckdb and deltalake");
        return None;
    };
    world.write("twenty_meters.py", DUCKDB);
    let out = world.path("duckdb");
    fs::create_dir_all(&out).unwrap();
    let since = Instant::now();
    let ran = Command::new(python)
        .arg(world.path("twenty_meters.py"))
        .arg(world.path(lake))
        .arg(&out)
        .output()
        .await
        .unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{stderr}");
    let mut wrong = String::new();
    let mut compared = 0;
    for (meter, csv) in answers {
        let mut got: Vec<&str> = csv.lines().skip(1).collect();
        got.sort_unstable();
        let got = got.join("\n") + "\n";
        for file in [format!("{meter}.csv"), format!("{meter}.panes.csv")] {
            let Ok(wanted) = fs::read_to_string(out.join(&file)) else {
                assert!(file.ends_with(".panes.csv"), "DuckDB did not write {file}");
                continue;
            };
            compared += wanted.lines().count();
            if got != wanted {
                writeln!(wrong, "{file}: {}", first_difference(&got, &wanted)).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "DuckDB says otherwise:\n{wrong}");
    println!(
        "DuckDB: {compared} rows are the same, in {:.1?}",
        since.elapsed()
    );
    Some(String::from_utf8(ran.stdout).unwrap())
}
