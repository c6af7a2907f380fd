//! A shard under a faulty source and a faulty lake: errors before and after the effect, processes that
//! halt at any call and may wake up again as zombies. Whatever happens, the lake must end with what a
//! naive recomputation of the log gives, and pane 0 of every window must be the same row as in a run
//! without faults.
//!
//! The log arrives in parts: at the end of each, a process reads to the stream's present end and closes what is
//! due by the stream's clock, for each meter by itself. Which events were in time is worked out apart, from the
//! watermark and those ends.
//!
//! While a process runs, its live view is asked for now and then: at any moment it must be what a naive
//! reading of the log gives up to its position.
//!
//! [`properties`] has what holds of every log without faults.
//!
//! Each seed is one history. `TOLLGATE_SIMULATION_SEEDS=N` runs more of them, and a failure names its
//! seed, which `TOLLGATE_SIMULATION_SEED=S` runs alone.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, and says what it went through"
)]

mod in_time;
mod live;
mod properties;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType},
    util::pretty::pretty_format_batches,
};
use live::Asker;
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, atomic::Ordering},
};
use tokio::sync::watch;
use tollgate::{
    Error,
    catalog::Catalog,
    clock::ManualClock,
    dedupe,
    metering::table_schema,
    shard::{self, Options, Parts},
    telemetry::{Progress, Report},
};
use tollgate_connectors::{
    ErrorKind, Message, Sequence, Table, Unread,
    event::{DecodeOptions, Decoder},
    fault::{Faults, FaultySource, FaultyTable},
    memory::{MemoryStream, MemoryTable},
};
use tollgate_sql::{
    definitions::{Definitions, LatePolicy, SourceFile},
    meter::Meter,
    schema,
};

const SEEDS: u64 = 2_000;
const MINUTE_US: i64 = 60_000_000;
/// 2026-10-01T00:00:00Z.
const START_US: i64 = 1_790_812_800_000_000;

const DEFINITIONS: &str = "
CREATE EVENT TYPE call (model VARCHAR NOT NULL, tokens BIGINT NOT NULL) WITH (type = 'call');
CREATE METER by_model WITH (window = '1 minute', lateness = '10 seconds') AS
SELECT subject, model, SUM(tokens) AS tokens, COUNT(*) AS calls FROM call GROUP BY subject, model;
CREATE METER by_subject WITH (window = '1 hour') AS
SELECT subject, SUM(tokens) FILTER (WHERE tokens > 50) AS tokens, COUNT(*) AS calls,
       COUNT(DISTINCT tokens) AS sizes, TIME_WEIGHTED_SUM(tokens) AS area
FROM call GROUP BY subject;
CREATE METER in_time WITH (window = '5 minutes', lateness = '1 minute', late = 'quarantine') AS
SELECT subject, SUM(tokens) AS tokens, COUNT(*) AS calls FROM call GROUP BY subject;
-- Events of 80 tokens and more put their group in error and those of 99 their subject, for a product has more than 38
-- digits; a sum of fifty times 2·10^36 does not fit, and may fit again.
CREATE METER risky WITH (window = '5 minutes', lateness = '10 seconds') AS
SELECT subject, model, SUM((tokens - 30) * 2000000000000000000000000000000000000) AS tokens, COUNT(*) AS calls
FROM call WHERE tokens * 1020000000000000000000000000000000000 <> 5
GROUP BY subject, model;
";

#[test]
fn every_history_ends_with_what_the_log_says() {
    let number = |name| {
        env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seeds = match number("TOLLGATE_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TOLLGATE_SIMULATION_SEEDS").unwrap_or(SEEDS),
    };
    let setup = runtime().block_on(Setup::new());
    let mut totals = Totals::default();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| simulate(seed, &setup))) {
            Ok(one) => totals.add(&one),
            Err(panic) => {
                eprintln!("seed {seed} failed; TOLLGATE_SIMULATION_SEED={seed} runs it alone");
                resume_unwind(panic);
            }
        }
    }
    println!("{totals:?}");
}

/// What the histories went through, to see that they went through something.
#[derive(Debug, Default)]
struct Totals {
    runs: u64,
    halts: u64,
    errors: u64,
    zombies: u64,
    answers: u64,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.runs += other.runs;
        self.halts += other.halts;
        self.errors += other.errors;
        self.zombies += other.zombies;
        self.answers += other.answers;
    }
}

/// What is the same for every seed.
struct Setup {
    catalog: Arc<Catalog>,
}

impl Setup {
    async fn new() -> Self {
        let file = SourceFile {
            name: "simulation.sql".into(),
            text: DEFINITIONS.into(),
        };
        let definitions = Definitions::parse(&[file]).unwrap();
        let mut meters = Vec::new();
        for meter in &definitions.meters {
            let event_type = definitions.event_type(&meter.event_type).unwrap();
            meters.push(Arc::new(Meter::plan(meter, event_type).await.unwrap()));
        }
        Setup {
            catalog: Arc::new(Catalog {
                definitions,
                checks: Vec::new(),
                meters,
                rate_tables: Vec::new(),
            }),
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u32) -> i64 {
        i64::try_from(self.next() % u64::from(limit)).unwrap()
    }

    fn size(&mut self, limit: u32) -> usize {
        usize::try_from(self.below(limit)).unwrap()
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

/// One event as it was meant, beside the bytes that were sent.
#[derive(Debug, Clone)]
struct Fact {
    id: usize,
    subject: i64,
    model: i64,
    tokens: i64,
    time_us: i64,
    /// The message it came in first.
    sequence: u64,
    /// When that was stored.
    ingest_us: i64,
}

impl Fact {
    fn line(&self) -> String {
        let time = jiff::Timestamp::from_microsecond(self.time_us).unwrap();
        let (id, subject, model, tokens) = (self.id, self.subject, self.model, self.tokens);
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"s","type":"call","subject":"u{subject}","time":"{time}","data":{{"model":"m{model}","tokens":{tokens}}}}}"#
        )
    }
}

/// The log of one seed, and what a naive reading of it counts.
struct Log {
    messages: Vec<Message>,
    /// In rising sequence.
    counted: Vec<Fact>,
    /// The bytes of the messages whose headers cannot be read, by sequence.
    poisoned: BTreeMap<u64, Vec<u8>>,
    /// Where the stream ended when it was read to its end, the last time after its last message.
    ends: Vec<StreamEnd>,
}

/// A present end of the stream.
#[derive(Debug, Clone, Copy)]
struct StreamEnd {
    /// Its last message.
    sequence: u64,
    /// What the stream's clock said.
    now_us: i64,
}

fn make_log(random: &mut Random) -> Log {
    let mut log = Vec::new();
    let mut sent: Vec<Fact> = Vec::new();
    let mut counted: BTreeMap<usize, Fact> = BTreeMap::new();
    let mut poisoned = BTreeMap::new();
    let messages = 20 + random.next() % 60;
    let mut clock_us = START_US;
    for sequence in 1..=messages {
        clock_us += random.below(20_000_000);
        // Often the first or the last, and several in a row.
        let follows = poisoned.contains_key(&(sequence - 1));
        if random.one_in(if follows { 2 } else { 12 }) {
            let fact = next_fact(random, &sent, clock_us);
            let message = poisoned_message(sequence, clock_us, &fact);
            poisoned.insert(sequence, message.raw().unwrap());
            log.push(message);
            continue;
        }
        let mut lines = Vec::new();
        for _ in 0..=random.below(4) {
            lines.push(match random.below(25) {
                0 => r#"{"specversion":"1.0","id":"broken""#.to_owned(),
                1 => r#"{"specversion":"1.0","id":"x","source":"s","type":"other","subject":"u","time":"2026-10-01T00:00:00Z","data":{}}"#.to_owned(),
                _ => {
                    let fact = Fact {
                        sequence,
                        ingest_us: clock_us,
                        ..next_fact(random, &sent, clock_us)
                    };
                    // First in sequence wins, whatever a later one says.
                    counted.entry(fact.id).or_insert_with(|| fact.clone());
                    let line = fact.line();
                    sent.push(fact);
                    line
                }
            });
        }
        log.push(Message {
            sequence: Sequence(sequence),
            ingest_time_us: clock_us,
            headers: vec![("Content-Type".into(), "application/x-ndjson".into())],
            payload: lines.join("\n").into(),
            unread: None,
        });
    }
    let mut counted: Vec<Fact> = counted.into_values().collect();
    counted.sort_by_key(|fact| fact.sequence);
    let mut ends = Vec::new();
    for message in &log[..log.len() - 1] {
        if random.one_in(40) {
            ends.push(StreamEnd {
                sequence: message.sequence.0,
                now_us: message.ingest_time_us + random.below(600_000_000),
            });
        }
    }
    ends.push(StreamEnd {
        sequence: messages,
        // By then every window is due.
        now_us: clock_us + 120 * MINUTE_US,
    });
    Log {
        messages: log,
        counted,
        ends,
        poisoned,
    }
}

/// A good event under headers that cannot be read: nothing in it counts.
fn poisoned_message(sequence: u64, clock_us: i64, fact: &Fact) -> Message {
    Message {
        sequence: Sequence(sequence),
        ingest_time_us: clock_us,
        headers: Vec::new(),
        payload: fact.line().into(),
        unread: Some(Unread {
            block: format!("NATS/1.0\r\nno colon {sequence}\r\n\r\n").into(),
            problem: "line 2 has no colon".into(),
        }),
    }
}

fn next_fact(random: &mut Random, sent: &[Fact], clock_us: i64) -> Fact {
    if !sent.is_empty() && random.one_in(6) {
        let mut again = sent[random.size(u32::try_from(sent.len()).unwrap())].clone();
        // A repeat, or now and then a conflict.
        again.tokens += i64::from(random.one_in(5));
        return again;
    }
    let late_us = if random.one_in(8) {
        400_000_000
    } else {
        5_000_000
    };
    Fact {
        id: sent.len(),
        subject: random.below(3),
        model: random.below(2),
        tokens: random.below(100),
        time_us: clock_us - random.below(late_us),
        sequence: 0,
        ingest_us: 0,
    }
}

/// The tables of one lake, and the stream that it is filled from, as far as it came.
struct Lake {
    stream: MemoryStream,
    events: MemoryTable,
    panes: Vec<MemoryTable>,
}

impl Lake {
    fn new(setup: &Setup) -> Self {
        let events = schema::usage_events(&setup.catalog.definitions.event_types);
        let meters = setup.catalog.meters.iter();
        let panes = meters.map(|m| MemoryTable::new(&m.definition().name, table_schema(m)));
        Lake {
            stream: MemoryStream::default(),
            events: MemoryTable::new("events", events),
            panes: panes.collect(),
        }
    }

    /// Appends to the stream what comes up to one of its ends.
    fn stream_until(&self, log: &Log, end: StreamEnd) {
        let new = log.messages.iter().filter(|m| m.sequence.0 <= end.sequence);
        new.for_each(|message| self.stream.append(message.clone()));
    }

    /// A new process over this lake at a time.
    async fn parts(&self, setup: &Setup, now_us: i64, faults: &Arc<Faults>) -> Parts {
        let schema = self.events.schema();
        let mut tables = Vec::new();
        for pane in &self.panes {
            tables.push(open(pane, faults).await);
        }
        let source = FaultySource::new(self.stream.source("sim"), Arc::clone(faults));
        Parts {
            source: Box::new(source),
            decoder: Decoder::new(schema, "sim", DecodeOptions::default()).unwrap(),
            definitions: setup.catalog.definitions.clone(),
            checks: Vec::new(),
            meters: setup.catalog.meters.clone(),
            events: open(&self.events, faults).await,
            tables,
            clock: Arc::new(ManualClock::at(now_us)),
        }
    }
}

async fn open(table: &MemoryTable, faults: &Arc<Faults>) -> Box<dyn Table> {
    let mut table = table.clone();
    table.refresh().await.unwrap();
    Box::new(FaultyTable::new(table, Arc::clone(faults)))
}

fn options(random: &mut Random) -> Options {
    Options {
        batch_bytes: 1 + random.size(4_000),
        flush_interval_us: i64::MAX,
        flush_bytes: 1 + random.size(100_000),
        windows_bytes: usize::MAX,
        dedupe: dedupe::Options {
            horizon_us: i64::MAX,
            // From the least there is, where most ids are found on disk, to more than is needed.
            memory_bytes: random.size(20_000),
            directory: env::temp_dir(),
        },
        until_end: true,
        start: None,
        replaces: Vec::new(),
    }
}

/// How one process ended.
enum End {
    Finished(Box<Report>),
    Halted,
    Failed(Error),
}

/// Runs a process, and asks it for live values until it ends.
async fn process(parts: Parts, options: Options, faults: &Faults, mut asker: Asker<'_>) -> End {
    let (_stop, stopped) = watch::channel(false);
    let (live, mut questions) = shard::live(Arc::clone(&asker.setup.catalog));
    let run = shard::run(
        parts,
        options,
        stopped,
        watch::Sender::new(Progress::default()),
        &mut questions,
    );
    tokio::select! {
        never = asker.ask(&live) => match never {},
        ended = run => match ended {
            Ok(report) => End::Finished(Box::new(report)),
            Err(error) => End::Failed(error),
        },
        () = faults.halted() => End::Halted,
    }
}

/// Runs processes over one log, one after the other, until one finishes; then checks the lake.
fn simulate(seed: u64, setup: &Setup) -> Totals {
    let mut random = Random(seed);
    let log = make_log(&mut random);
    let faulty = Lake::new(setup);
    let totals = runtime().block_on(survive(&mut random, setup, &log, &faulty));
    let calm = Lake::new(setup);
    runtime().block_on(async {
        let faults = Faults::none();
        for end in &log.ends {
            calm.stream_until(&log, *end);
            let parts = calm.parts(setup, end.now_us, &faults).await;
            let asker = Asker::new(&mut random, setup, &log);
            match process(parts, options(&mut random), &faults, asker).await {
                End::Finished(report) => assert_eq!(report.position.sequence.0, end.sequence),
                End::Halted => panic!("halted without a fault"),
                End::Failed(error) => panic!("failed without a fault: {error:?}"),
            }
        }
        check_events(&faulty, &log);
        assert_eq!(statuses(&faulty), statuses(&calm), "statuses");
        for (at, meter) in setup.catalog.meters.iter().enumerate() {
            check_meter(meter, &faulty.panes[at], &log).await;
            let (faulty, calm) = (first_panes(&faulty.panes[at]), first_panes(&calm.panes[at]));
            assert_eq!(faulty, calm, "pane 0 of {}", meter.definition().name);
        }
    });
    totals
}

/// Starts one process after another until one gets to the last end.
async fn survive(random: &mut Random, setup: &Setup, log: &Log, lake: &Lake) -> Totals {
    let mut totals = Totals::default();
    let mut zombies: Vec<Arc<Faults>> = Vec::new();
    let mut ends = log.ends.iter();
    let mut end = ends.next();
    while let Some(StreamEnd { now_us, .. }) = end.copied() {
        end.iter().for_each(|end| lake.stream_until(log, **end));
        totals.runs += 1;
        let faults = match totals.runs {
            1..=6 => Faults::new(
                random.next(),
                6 + random.next() % 20,
                1 + random.next() % 40,
            ),
            _ => Faults::none(),
        };
        let parts = lake.parts(setup, now_us, &faults).await;
        // Whatever halted may wake up while its successor works.
        if random.one_in(2) {
            totals.zombies += zombies.len() as u64;
            zombies.drain(..).for_each(|zombie| zombie.release());
        }
        let asker = Asker::new(random, setup, log);
        let answers = Arc::clone(&asker.answers);
        let ended = process(parts, options(random), &faults, asker).await;
        totals.answers += answers.load(Ordering::SeqCst);
        match ended {
            End::Finished(_) => end = ends.next(),
            End::Halted => {
                totals.halts += 1;
                zombies.push(faults);
            }
            End::Failed(error) => {
                totals.errors += 1;
                // A zombie's last commit may fence its successor, which then starts again.
                let passing = [ErrorKind::Unavailable, ErrorKind::Fenced];
                assert!(passing.contains(&error.kind()), "{error:?}");
            }
        }
    }
    // The last owner is done: nothing that wakes up now may change anything.
    zombies.iter().for_each(|zombie| zombie.release());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    totals
}

/// Every event that counts is in `events` once, and nothing else counts.
fn check_events(lake: &Lake, log: &Log) {
    let mut counted = BTreeSet::new();
    let mut poisoned = BTreeMap::new();
    for batch in lake.events.rows() {
        let ids = batch["event_id"].as_string::<i32>();
        let statuses = batch["status"].as_string::<i32>();
        let reasons = batch["reason"].as_string::<i32>();
        let sequences = batch["sequence"].as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            if reasons.is_valid(row) && reasons.value(row) == "headers: line 2 has no colon" {
                assert_eq!(statuses.value(row), "rejected");
                let raw = batch["raw"].as_binary::<i32>().value(row).to_vec();
                let sequence = u64::try_from(sequences.value(row)).unwrap();
                assert_eq!(
                    poisoned.insert(sequence, raw),
                    None,
                    "{sequence} is there twice"
                );
            }
            if matches!(statuses.value(row), "ok" | "late") {
                let id: usize = ids.value(row).parse().unwrap();
                assert!(counted.insert(id), "event {id} is counted twice");
            }
        }
    }
    let expected: BTreeSet<usize> = log.counted.iter().map(|fact| fact.id).collect();
    assert_eq!(counted, expected);
    assert_eq!(poisoned, log.poisoned);
}

/// The status of each event, by its place in the log: no fault may change a verdict.
fn statuses(lake: &Lake) -> BTreeMap<(i64, i32), String> {
    let mut found = BTreeMap::new();
    for batch in lake.events.rows() {
        let sequences = batch["sequence"].as_primitive::<Int64Type>();
        let ordinals = batch["ordinal"].as_primitive::<Int32Type>();
        let statuses = batch["status"].as_string::<i32>();
        found.extend((0..batch.num_rows()).map(|row| {
            let place = (sequences.value(row), ordinals.value(row));
            (place, statuses.value(row).to_owned())
        }));
    }
    found
}

/// What is measured, by window start and group.
type Measured = BTreeMap<(i64, String), Sums>;

#[derive(Debug, Default, PartialEq)]
struct Sums {
    tokens: i128,
    calls: i64,
    /// Different sizes and token microseconds, for the meter that has them.
    sizes: Option<(usize, i128)>,
    /// What is in error: then there is nothing else.
    error: Option<&'static str>,
}

const OF_SUBJECT: &str = "the group of an event cannot be told";
const OF_GROUP: &str = "an event cannot be measured";
const OF_VALUE: &str = "the values cannot be made";

/// What the rows say that are in error.
fn error(rows: &RecordBatch, row: usize) -> Option<&'static str> {
    let errors = rows["error"].as_string::<i32>();
    let text = errors.is_valid(row).then(|| errors.value(row))?;
    assert!(text.contains("38"), "{text}");
    let known = [OF_SUBJECT, OF_GROUP, OF_VALUE];
    Some(
        known
            .into_iter()
            .find(|known| text.starts_with(known))
            .unwrap(),
    )
}

/// The merge of all panes is what the counted events add up to.
async fn check_meter(meter: &Meter, table: &MemoryTable, log: &Log) {
    let panes = table.rows();
    let states: Vec<RecordBatch> = panes
        .iter()
        .map(|panes| meter.states_of(&not_quarantined(panes)).unwrap())
        .collect();
    let merged = meter.finish(&states).await.unwrap();
    let name = &meter.definition().name;
    let expected = expected(meter, &log.counted, &log.ends);
    assert_eq!(measured(&merged), expected, "{name}");
}

fn not_quarantined(panes: &RecordBatch) -> RecordBatch {
    let policies = panes["late"].as_string::<i32>();
    let counts = policies.iter().map(|late| Some(late != Some("quarantine")));
    filter_record_batch(panes, &counts.collect()).unwrap()
}

fn measured(merged: &RecordBatch) -> Measured {
    let starts = merged["window_start"].as_primitive::<TimestampMicrosecondType>();
    let tokens = merged["tokens"].as_primitive::<Decimal128Type>();
    let calls = merged["calls"].as_primitive::<Int64Type>();
    let mut found = Measured::new();
    for row in 0..merged.num_rows() {
        let sum = if tokens.is_null(row) {
            0
        } else {
            tokens.value(row)
        };
        let key = (starts.value(row), group(merged, row));
        let error = error(merged, row);
        assert!(error.is_none() || tokens.is_null(row), "a value in error");
        let sums = match error {
            Some(_) => Sums {
                error,
                ..Sums::default()
            },
            None => Sums {
                tokens: sum,
                calls: calls.value(row),
                sizes: sizes(merged, row),
                error,
            },
        };
        assert!(found.insert(key, sums).is_none());
    }
    found
}

fn sizes(rows: &RecordBatch, row: usize) -> Option<(usize, i128)> {
    let sizes = rows.column_by_name("sizes")?;
    let sizes = sizes.as_primitive::<Int64Type>().value(row);
    let area = rows.column_by_name("area")?;
    let area = area.as_primitive::<Decimal128Type>().value(row);
    Some((usize::try_from(sizes).unwrap(), area))
}

fn group(rows: &RecordBatch, row: usize) -> String {
    let subject = rows["subject"].as_string::<i32>().value(row).to_owned();
    match rows.column_by_name("model") {
        Some(model) => format!("{subject}/{}", model.as_string::<i32>().value(row)),
        None => subject,
    }
}

/// What the meter with faults makes of the events, in units of 2·10^36: one row for each group, in error or not, but
/// one for all of a subject whose group cannot be told.
fn expected_at_risk(counted: &[Fact]) -> Measured {
    const UNIT: i128 = 2 * 10_i128.pow(36);
    let mut groups: BTreeMap<(i64, i64, i64), Vec<&Fact>> = BTreeMap::new();
    let mut subjects = BTreeSet::new();
    for fact in counted {
        let start = fact.time_us - fact.time_us % (5 * MINUTE_US);
        if fact.tokens >= 99 {
            subjects.insert((start, fact.subject));
        }
        let group = groups.entry((start, fact.subject, fact.model)).or_default();
        group.push(fact);
    }
    let in_error = |error| Sums {
        error: Some(error),
        ..Sums::default()
    };
    let mut measured = Measured::new();
    for ((start, subject, model), facts) in groups {
        let units: i128 = facts.iter().map(|fact| i128::from(fact.tokens - 30)).sum();
        let (group, sums) = if subjects.contains(&(start, subject)) {
            (format!("u{subject}/"), in_error(OF_SUBJECT))
        } else if facts.iter().any(|fact| fact.tokens >= 80) {
            (format!("u{subject}/m{model}"), in_error(OF_GROUP))
        } else if units.abs() >= 50 {
            (format!("u{subject}/m{model}"), in_error(OF_VALUE))
        } else {
            let sums = Sums {
                tokens: units * UNIT,
                calls: i64::try_from(facts.len()).unwrap(),
                ..Sums::default()
            };
            (format!("u{subject}/m{model}"), sums)
        };
        measured.insert((start, group), sums);
    }
    measured
}

fn expected(meter: &Meter, counted: &[Fact], ends: &[StreamEnd]) -> Measured {
    if meter.definition().name == "risky" {
        return expected_at_risk(counted);
    }
    let by_model = meter.definition().name == "by_model";
    let all_tokens = meter.definition().name != "by_subject";
    let width_us = meter.definition().window_us;
    let counted = match meter.definition().late {
        LatePolicy::Quarantine => in_time::in_time(meter.definition(), counted, ends),
        LatePolicy::Correct | LatePolicy::NextPeriod => counted.to_vec(),
    };
    let mut measured = Measured::new();
    for fact in &counted {
        let start = fact.time_us - fact.time_us % width_us;
        let (group, is_summed) = match by_model {
            true => (format!("u{}/m{}", fact.subject, fact.model), true),
            false => (format!("u{}", fact.subject), all_tokens || fact.tokens > 50),
        };
        let sums = measured.entry((start, group)).or_default();
        sums.tokens += if is_summed {
            i128::from(fact.tokens)
        } else {
            0
        };
        sums.calls += 1;
    }
    if !all_tokens {
        for ((start, group), sums) in &mut measured {
            sums.sizes = Some(expected_sizes(*start, *start + width_us, group, &counted));
        }
    }
    measured
}

fn expected_sizes(start: i64, end: i64, group: &str, counted: &[Fact]) -> (usize, i128) {
    let own = |fact: &&Fact| {
        format!("u{}", fact.subject) == group && (start..end).contains(&fact.time_us)
    };
    let own: Vec<&Fact> = counted.iter().filter(own).collect();
    let sizes: BTreeSet<i64> = own.iter().map(|fact| fact.tokens).collect();
    let area = own
        .iter()
        .map(|fact| i128::from(fact.tokens) * i128::from(end - fact.time_us));
    (sizes.len(), area.sum())
}

/// The rows of pane 0 as text, sorted; there is one for each window and group.
fn first_panes(table: &MemoryTable) -> Vec<String> {
    let mut rows = Vec::new();
    let mut keys = BTreeSet::new();
    for batch in table.rows() {
        let panes = batch["pane"].as_primitive::<Int32Type>();
        let starts = batch["window_start"].as_primitive::<TimestampMicrosecondType>();
        for row in (0..batch.num_rows()).filter(|row| panes.value(*row) == 0) {
            let key = (starts.value(row), group(&batch, row));
            assert!(keys.insert(key.clone()), "{key:?} was closed twice");
            rows.push(
                pretty_format_batches(&[batch.slice(row, 1)])
                    .unwrap()
                    .to_string(),
            );
        }
    }
    rows.sort();
    rows
}
