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
//! In half of the histories a source moves, once or twice: its owner halts, another stream is read in its place, and
//! ids that were counted are published there again, while the old owner may wake up. In some the last shard is retired
//! in the middle, and resumed in some of those. Between two processes the lake is asked whether a billing period is
//! over: what it says then must hold everything that the streams had stored in time, and no window that was closed by
//! then may count more in time ([`finality`]).
//!
//! All processes of a lake keep event ids in one folder, as on one machine: now and then one of its files is damaged, or
//! all of it is from earlier; and the run without faults begins with the folder of the other lake.
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

mod disk;
mod finality;
mod idle;
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
    commit::{Marks, Position},
    dedupe,
    over::{self, Over},
    shard::{self, Options, Parts},
    standing::{self, Standings},
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
/// 2026-09-30T23:30:00Z: the billing period ends in the middle of things.
const START_US: i64 = 1_790_811_000_000_000;
/// How long ids are known. No history takes so long by one clock, but those of two streams may be further apart.
const HORIZON_US: i64 = 60 * MINUTE_US;
/// What the shards are called, in the order in which each takes the place of the one before.
const NAMES: [&str; 3] = ["first", "second", "third"];

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
    moved: u64,
    retired: u64,
    finals: u64,
}

impl Totals {
    fn add(&mut self, other: &Totals) {
        self.runs += other.runs;
        self.halts += other.halts;
        self.errors += other.errors;
        self.zombies += other.zombies;
        self.answers += other.answers;
        self.moved += other.moved;
        self.retired += other.retired;
        self.finals += other.finals;
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
#[derive(Debug, Clone, PartialEq)]
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

/// What one stream has, and how it is read.
struct Log {
    shard: &'static str,
    /// The shards whose place this one takes, as the setting says.
    replaces: Vec<String>,
    messages: Vec<Message>,
    /// Every event that is well formed, in rising sequence, be its id there twice.
    sent: Vec<Fact>,
    /// The bytes of the messages whose headers cannot be read, by sequence.
    poisoned: BTreeMap<u64, Vec<u8>>,
    /// Where the stream ended when it was read to its end, the last time after its last message.
    ends: Vec<StreamEnd>,
    /// Whether the stream's clock was ahead at these ends, and went back: what it said then was not so.
    jumps_back: bool,
}

/// A present end of the stream.
#[derive(Debug, Clone, Copy)]
struct StreamEnd {
    /// Its last message.
    sequence: u64,
    /// What the stream's clock said.
    now_us: i64,
}

impl Log {
    /// What a naive reading up to a sequence counts, in rising sequence: first in sequence wins, whatever a later one
    /// says, and what is known from the streams before counts no more.
    fn counted(&self, known: &BTreeSet<usize>, until: u64) -> Vec<Fact> {
        let mut known = known.clone();
        let read = self.sent.iter().filter(|fact| fact.sequence <= until);
        read.filter(|fact| known.insert(fact.id)).cloned().collect()
    }
}

/// A log as it was read.
#[derive(Debug)]
struct Reading<'a> {
    counted: Vec<Fact>,
    /// Where the clock closed windows.
    ends: &'a [StreamEnd],
}

/// What a naive reading of all logs counts, each as far as `events` says that it was read.
fn readings<'a>(logs: &'a [Log], events: &MemoryTable) -> Vec<Reading<'a>> {
    let mut known = BTreeSet::new();
    let mut readings = Vec::new();
    for log in logs {
        let counted = log.counted(&known, position(events, log.shard).sequence.0);
        known.extend(counted.iter().map(|fact| fact.id));
        readings.push(Reading {
            counted,
            ends: &log.ends,
        });
    }
    readings
}

fn make_logs(random: &mut Random) -> Vec<Log> {
    let streams = match random.below(6) {
        0 => 3,
        1 | 2 => 2,
        _ => 1,
    };
    let mut clock_us = START_US + random.below(30) * MINUTE_US;
    let mut logs: Vec<Log> = Vec::new();
    for (at, shard) in NAMES.iter().take(streams).enumerate() {
        let messages = match at {
            0 if streams == 1 => 20 + random.next() % 60,
            0 => 10 + random.next() % 30,
            _ => 5 + random.next() % 15,
        };
        let sent: Vec<Fact> = logs.iter().flat_map(|log| log.sent.clone()).collect();
        let mut log = make_log(random, shard, messages, &mut clock_us, sent);
        // One name is enough for the shards behind it, and all may be given.
        let names = NAMES[..at].iter().map(|name| (*name).to_owned());
        let needless = at.saturating_sub(1) * random.size(2);
        log.replaces = names.skip(at.saturating_sub(1) - needless).collect();
        logs.push(log);
        // The next server's clock is right, or an hour and a half ahead or behind.
        clock_us += (random.below(3) - 1) * 90 * MINUTE_US;
    }
    logs
}

/// A stream of so many messages, the first of which comes a while after `clock_us`. `before` was sent to the streams
/// before it, and some of it comes again.
fn make_log(
    random: &mut Random,
    shard: &'static str,
    messages: u64,
    clock_us: &mut i64,
    before: Vec<Fact>,
) -> Log {
    let mut log = Vec::new();
    let mut sent = before;
    let before = sent.len();
    let mut poisoned = BTreeMap::new();
    let mut ends = Vec::new();
    let jumps_back = random.one_in(2);
    // A clock that goes back may have been ahead by more than the widest window.
    let ahead_us = if jumps_back {
        HORIZON_US + 10 * MINUTE_US
    } else {
        10 * MINUTE_US
    };
    // Producers may be behind: then the watermark is, too.
    let lag_us = match random.below(4) {
        0 => random.below(30) * MINUTE_US,
        _ => 0,
    };
    for sequence in 1..=messages {
        if sequence > 1 && random.one_in(20) {
            let now_us = *clock_us + random.below(u32::try_from(ahead_us).unwrap());
            ends.push(StreamEnd {
                sequence: sequence - 1,
                now_us,
            });
            if !jumps_back {
                *clock_us = now_us;
            }
        }
        *clock_us += random.below(20_000_000);
        // Often the first or the last, and several in a row.
        let follows = poisoned.contains_key(&(sequence - 1));
        if random.one_in(if follows { 2 } else { 12 }) {
            let fact = next_fact(random, &sent, before, *clock_us - lag_us);
            let message = poisoned_message(sequence, *clock_us, &fact);
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
                        ingest_us: *clock_us,
                        ..next_fact(random, &sent, before, *clock_us - lag_us)
                    };
                    let line = fact.line();
                    sent.push(fact);
                    line
                }
            });
        }
        log.push(Message {
            sequence: Sequence(sequence),
            ingest_time_us: *clock_us,
            headers: vec![("Content-Type".into(), "application/x-ndjson".into())],
            payload: lines.join("\n").into(),
            unread: None,
        });
    }
    ends.push(StreamEnd {
        sequence: messages,
        // By then every window is due, be it of an event from a stream whose clock is ahead.
        now_us: *clock_us + 400 * MINUTE_US,
    });
    Log {
        shard,
        replaces: Vec::new(),
        messages: log,
        sent: sent.split_off(before),
        ends,
        jumps_back,
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

/// Another event, or one again. The first of `sent` went to the streams before this one: they come again more often.
fn next_fact(random: &mut Random, sent: &[Fact], before: usize, clock_us: i64) -> Fact {
    if !sent.is_empty() && random.one_in(if before > 0 { 2 } else { 6 }) {
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

/// The tables of one lake, and the streams that it is filled from, as far as they came.
struct Lake {
    streams: BTreeMap<&'static str, MemoryStream>,
    events: MemoryTable,
    panes: Vec<MemoryTable>,
    /// Where its owners keep event ids.
    ids: tempfile::TempDir,
}

impl Lake {
    fn new(setup: &Setup) -> Self {
        let events = schema::usage_events(&setup.catalog.definitions.event_types);
        let meters = setup.catalog.meters.iter();
        let panes = meters.map(|m| MemoryTable::new(&m.definition().name, m.table_schema()));
        Lake {
            streams: NAMES.map(|name| (name, MemoryStream::default())).into(),
            events: MemoryTable::new("events", events),
            panes: panes.collect(),
            ids: disk::folder(),
        }
    }

    /// Appends to a stream what comes up to a sequence.
    fn stream_until(&self, log: &Log, sequence: u64) {
        let new = log.messages.iter().filter(|m| m.sequence.0 <= sequence);
        new.for_each(|message| self.streams[log.shard].append(message.clone()));
    }

    /// The newest position of a shard.
    fn position(&self, shard: &str) -> Position {
        position(&newest(&self.events), shard)
    }

    /// True when a shard was ever begun.
    fn has(&self, shard: &str) -> bool {
        let standings = Standings::of(&newest(&self.events));
        standings.shards().any(|known| known == shard)
    }

    async fn tables(&self, faults: &Arc<Faults>) -> Vec<Box<dyn Table>> {
        let mut tables = Vec::new();
        for pane in &self.panes {
            tables.push(open(pane, faults).await);
        }
        tables
    }

    /// A new process over this lake at a time.
    async fn parts(&self, setup: &Setup, shard: &str, now_us: i64, faults: &Arc<Faults>) -> Parts {
        let schema = self.events.schema();
        let source = FaultySource::new(self.streams[shard].source(shard), Arc::clone(faults));
        // Of two streams, the clock of one may be far ahead.
        let decoding = DecodeOptions {
            max_future_skew_us: 24 * 60 * MINUTE_US,
            ..DecodeOptions::default()
        };
        Parts {
            source: Box::new(source),
            decoder: Decoder::new(schema, shard, decoding).unwrap(),
            definitions: setup.catalog.definitions.clone(),
            checks: Vec::new(),
            meters: setup.catalog.meters.clone(),
            events: open(&self.events, faults).await,
            tables: self.tables(faults).await,
            clock: Arc::new(ManualClock::at(now_us)),
        }
    }
}

/// A shard's position by the `events` at hand.
fn position(events: &MemoryTable, shard: &str) -> Position {
    Position::load(events, &Marks::of(shard)).unwrap()
}

fn newest(table: &MemoryTable) -> MemoryTable {
    let mut table = table.clone();
    futures::executor::block_on(table.refresh()).unwrap();
    table
}

async fn open(table: &MemoryTable, faults: &Arc<Faults>) -> Box<dyn Table> {
    Box::new(FaultyTable::new(newest(table), Arc::clone(faults)))
}

fn options(random: &mut Random, log: &Log, lake: &Lake) -> Options {
    Options {
        batch_bytes: 1 + random.size(4_000),
        flush_interval_us: i64::MAX,
        flush_bytes: 1 + random.size(100_000),
        // From none, where every window is metered again when it closes, to more than is needed.
        windows_bytes: random.size(200_000),
        dedupe: dedupe::Options {
            horizon_us: HORIZON_US,
            // From the least there is, where most ids are found on disk, to more than is needed.
            memory_bytes: random.size(20_000),
            directory: lake.ids.path().to_owned(),
        },
        until_end: true,
        start: None,
        replaces: log.replaces.clone(),
    }
}

/// How one process ended.
enum End {
    Finished(Box<Report>),
    Halted,
    Failed(Error),
}

/// Runs a process, and asks it for live values until it ends; one that does not end by itself is stopped at a
/// sequence.
async fn process(
    parts: Parts,
    options: Options,
    faults: &Faults,
    mut asker: Asker<'_>,
    until: u64,
) -> End {
    let (stop, stopped) = watch::channel(false);
    let (live, mut questions) = tollgate::live::live(Arc::clone(&asker.setup.catalog));
    let progress = watch::Sender::new(Progress::default());
    let mut position = progress.subscribe();
    let is_stopped = !options.until_end;
    let run = shard::run(parts, options, stopped, progress, &mut questions);
    let ask = async {
        if is_stopped {
            let _ = position.wait_for(|p| p.position.0 >= until).await;
            stop.send_replace(true);
        }
        asker.ask(&live).await
    };
    tokio::select! {
        never = ask => match never {},
        ended = run => match ended {
            Ok(report) => End::Finished(Box::new(report)),
            Err(error) => End::Failed(error),
        },
        () = faults.halted() => End::Halted,
    }
}

/// Runs processes over the logs, one after the other, until one finishes the last; then checks the lake.
fn simulate(seed: u64, setup: &Setup) -> Totals {
    let mut random = Random(seed);
    let mut logs = make_logs(&mut random);
    let faulty = Lake::new(setup);
    let mut totals = Totals::default();
    let mut finals = Vec::new();
    runtime().block_on(async {
        let mut zombies = Vec::new();
        for at in 0..logs.len() {
            let fate = Fate::of(&mut random, at + 1 == logs.len());
            let mut world = World {
                setup,
                lake: &faulty,
                zombies: &mut zombies,
                totals: &mut totals,
                finals: &mut finals,
                earlier: None,
            };
            let ends = world.survive(&mut random, &logs, at, fate).await;
            logs[at].ends = ends;
        }
        // The last owner is done: nothing that wakes up now may change anything.
        zombies.iter().for_each(|zombie| zombie.release());
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    });
    totals.moved += logs.len() as u64 - 1;
    totals.finals += finals.len() as u64;
    let calm = Lake::new(setup);
    disk::copy(faulty.ids.path(), calm.ids.path());
    runtime().block_on(async {
        let mut random = Random(random.next());
        for at in 0..logs.len() {
            let until = faulty.position(logs[at].shard).sequence.0;
            calmly(&mut random, setup, &calm, &logs, at, until).await;
        }
        let readings = readings(&logs, &newest(&faulty.events));
        check_events(&faulty, &logs, &readings);
        check_statuses(&faulty, &calm);
        for over in &finals {
            over.check(setup, &readings);
        }
        for (at, meter) in setup.catalog.meters.iter().enumerate() {
            check_meter(meter, &faulty.panes[at], &readings).await;
            let (faulty, calm) = (first_panes(&faulty.panes[at]), first_panes(&calm.panes[at]));
            assert_eq!(faulty, calm, "pane 0 of {}", meter.definition().name);
        }
        // All shards are over, or read to their ends.
        assert!(
            finality::ask(setup, &faulty).await.1,
            "the period never ends"
        );
    });
    totals
}

/// What becomes of a shard in the middle of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is read to its end.
    Read,
    /// Its owner halts at some time, and is not started again.
    Abandoned,
    /// The same, and the shard is retired.
    Retired,
    /// The same, and it is resumed, and read to its end.
    Resumed,
}

impl Fate {
    fn of(random: &mut Random, is_last: bool) -> Self {
        match (is_last, random.below(6)) {
            (false, 0..4) => Fate::Abandoned,
            (true, 0) => Fate::Retired,
            (true, 1) => Fate::Resumed,
            _ => Fate::Read,
        }
    }
}

/// The clock of an end that closes whatever is open.
const NOTHING_MORE_US: i64 = i64::MAX;

/// Reads one log without faults as far as it was read under faults, with the clock closing windows at the same places.
async fn calmly(
    random: &mut Random,
    setup: &Setup,
    lake: &Lake,
    logs: &[Log],
    at: usize,
    until: u64,
) {
    let log = &logs[at];
    let faults = Faults::none();
    let is_read = log.ends.last().is_some_and(|end| end.sequence == until);
    let rest = (!is_read).then_some(StreamEnd {
        sequence: until,
        now_us: NOTHING_MORE_US,
    });
    let mut ends = log.ends.iter().copied().chain(rest).peekable();
    while let Some(end) = ends.next() {
        lake.stream_until(log, end.sequence);
        // An owner that halted closed nothing by the clock.
        let is_halt = end.now_us == NOTHING_MORE_US;
        let (now_us, options) = match is_halt {
            false => (end.now_us, options(random, log, lake)),
            true => (
                log.messages[0].ingest_time_us,
                Options {
                    until_end: false,
                    ..options(random, log, lake)
                },
            ),
        };
        let parts = lake.parts(setup, log.shard, now_us, &faults).await;
        let asker = Asker::new(random, setup, logs, at, (lake, log.ends.clone()));
        match process(parts, options, &faults, asker, end.sequence).await {
            End::Finished(report) => assert_eq!(report.position.sequence.0, end.sequence),
            End::Halted => panic!("halted without a fault"),
            End::Failed(error) => panic!("failed without a fault: {error:?}"),
        }
        if is_halt && at + 1 == logs.len() {
            retire(setup, lake, log.shard, &faults).await.unwrap();
            if ends.peek().is_some() {
                resume(lake, log.shard).await;
            }
        }
    }
}

/// Retires a shard as `tollgate shard retire` does.
async fn retire(
    setup: &Setup,
    lake: &Lake,
    shard: &str,
    faults: &Arc<Faults>,
) -> tollgate::Result<()> {
    let mut events = open(&lake.events, faults).await;
    let clock = Arc::new(ManualClock::default());
    standing::set_retired(events.as_mut(), shard, true, clock.as_ref()).await?;
    let over = Over {
        events: events.as_ref(),
        definitions: &setup.catalog.definitions,
        meters: &setup.catalog.meters,
        clock,
        bytes: 1_000,
    };
    over::close(&over, shard, lake.tables(faults).await).await?;
    Ok(())
}

async fn resume(lake: &Lake, shard: &str) {
    let mut events = open(&lake.events, &Faults::none()).await;
    let clock = ManualClock::default();
    standing::set_retired(events.as_mut(), shard, false, &clock)
        .await
        .unwrap();
}

/// What processes go through.
struct World<'a> {
    setup: &'a Setup,
    lake: &'a Lake,
    /// What halted and may wake up.
    zombies: &'a mut Vec<Arc<Faults>>,
    totals: &'a mut Totals,
    /// What was in time whenever the period was over.
    finals: &'a mut Vec<finality::Final>,
    /// What the folder of event ids held at some time.
    earlier: Option<tempfile::TempDir>,
}

impl World<'_> {
    /// Starts one process after another until one gets to the last end, or the shard's fate is another; returns where
    /// the clock closed windows.
    async fn survive(
        &mut self,
        random: &mut Random,
        logs: &[Log],
        at: usize,
        mut fate: Fate,
    ) -> Vec<StreamEnd> {
        let log = &logs[at];
        let mut passed = Vec::new();
        let mut ends = log.ends.iter().copied().peekable();
        let mut runs = 0;
        while let Some(end) = ends.peek().copied() {
            self.lake.stream_until(log, end.sequence);
            runs += 1;
            self.disturb(random);
            let faults = self.faults(random, runs);
            let parts = self
                .lake
                .parts(self.setup, log.shard, end.now_us, &faults)
                .await;
            self.wake_some(random);
            let closings: Vec<StreamEnd> = passed.iter().copied().chain(ends.clone()).collect();
            let asker = Asker::new(random, self.setup, logs, at, (self.lake, closings.clone()));
            let answers = Arc::clone(&asker.answers);
            let ended = process(
                parts,
                options(random, log, self.lake),
                &faults,
                asker,
                u64::MAX,
            )
            .await;
            self.totals.runs += 1;
            self.totals.answers += answers.load(Ordering::SeqCst);
            let is_halted = matches!(ended, End::Halted);
            match ended {
                End::Finished(_) => passed.extend(ends.next()),
                End::Halted => {
                    self.totals.halts += 1;
                    self.zombies.push(faults);
                }
                End::Failed(error) => self.passes(&error),
            }
            if random.one_in(5) {
                let over = finality::check(self.setup, self.lake, logs, (at, &closings)).await;
                self.finals.extend(over);
            }
            // The owner that halted is the owner still when another takes its place.
            if is_halted && self.lake.has(log.shard) && random.one_in(2) {
                match fate {
                    Fate::Read => continue,
                    Fate::Abandoned => return passed,
                    Fate::Retired | Fate::Resumed => self.retire(random, log.shard).await,
                }
                passed.push(StreamEnd {
                    sequence: self.lake.position(log.shard).sequence.0,
                    now_us: NOTHING_MORE_US,
                });
                if fate == Fate::Retired {
                    return passed;
                }
                resume(self.lake, log.shard).await;
                fate = Fate::Read;
            }
        }
        passed
    }

    /// The folder of event ids may be damaged, or from earlier, when the next process begins.
    fn disturb(&mut self, random: &mut Random) {
        let ids = self.lake.ids.path();
        match (random.below(16), &self.earlier) {
            (0 | 1, _) => disk::damage(random, ids),
            (2, None) => {
                let earlier = self.earlier.insert(disk::folder());
                disk::copy(ids, earlier.path());
            }
            (2, Some(earlier)) => disk::copy(earlier.path(), ids),
            _ => {}
        }
    }

    /// Faults for the first runs of a shard.
    fn faults(&self, random: &mut Random, runs: u64) -> Arc<Faults> {
        match runs {
            1..=6 => Faults::new(
                random.next(),
                6 + random.next() % 20,
                1 + random.next() % 40,
            ),
            _ => Faults::none(),
        }
    }

    /// Whatever halted may wake up while its successor works.
    fn wake_some(&mut self, random: &mut Random) {
        if random.one_in(2) {
            self.totals.zombies += self.zombies.len() as u64;
            self.zombies.drain(..).for_each(|zombie| zombie.release());
        }
    }

    /// Retires a shard, as often as it takes.
    async fn retire(&mut self, random: &mut Random, shard: &str) {
        self.totals.retired += 1;
        for tries in 1.. {
            let faults = self.faults(random, tries);
            self.wake_some(random);
            let retired = tokio::select! {
                retired = retire(self.setup, self.lake, shard, &faults) => Some(retired),
                () = faults.halted() => None,
            };
            match retired {
                Some(Ok(())) => return,
                Some(Err(error)) => self.passes(&error),
                None => self.zombies.push(faults),
            }
        }
    }

    /// A zombie's last commit may fence its successor, which then starts again.
    fn passes(&mut self, error: &Error) {
        self.totals.errors += 1;
        let passing = [ErrorKind::Unavailable, ErrorKind::Fenced];
        assert!(passing.contains(&error.kind()), "{error:?}");
    }
}

/// Every event that counts is in `events` once, and nothing else counts.
fn check_events(lake: &Lake, logs: &[Log], readings: &[Reading<'_>]) {
    let mut counted = BTreeSet::new();
    let mut poisoned = BTreeMap::new();
    for batch in lake.events.rows() {
        let ids = batch["event_id"].as_string::<i32>();
        let statuses = batch["status"].as_string::<i32>();
        let reasons = batch["reason"].as_string::<i32>();
        let sequences = batch["sequence"].as_primitive::<Int64Type>();
        let shards = batch["shard"].as_string::<i32>();
        for row in 0..batch.num_rows() {
            if reasons.is_valid(row) && reasons.value(row) == "headers: line 2 has no colon" {
                assert_eq!(statuses.value(row), "rejected");
                let raw = batch["raw"].as_binary::<i32>().value(row).to_vec();
                let sequence = u64::try_from(sequences.value(row)).unwrap();
                let place = (shards.value(row).to_owned(), sequence);
                assert_eq!(
                    poisoned.insert(place.clone(), raw),
                    None,
                    "{place:?} is there twice"
                );
            }
            if matches!(statuses.value(row), "ok" | "late") {
                let id: usize = ids.value(row).parse().unwrap();
                assert!(counted.insert(id), "event {id} is counted twice");
            }
        }
    }
    let expected = readings.iter().flat_map(|reading| &reading.counted);
    let expected: BTreeSet<usize> = expected.map(|fact| fact.id).collect();
    assert_eq!(counted, expected);
    let mut expected = BTreeMap::new();
    for log in logs {
        let read = lake.position(log.shard).sequence.0;
        for (sequence, raw) in log.poisoned.range(..=read) {
            expected.insert((log.shard.to_owned(), *sequence), raw.clone());
        }
    }
    assert_eq!(poisoned, expected);
}

/// No fault may change a verdict.
fn check_statuses(faulty: &Lake, calm: &Lake) {
    let (faulty, calm) = (statuses(faulty), statuses(calm));
    let places: BTreeSet<_> = faulty.keys().chain(calm.keys()).collect();
    for place in places {
        assert_eq!(faulty.get(place), calm.get(place), "status of {place:?}");
    }
}

/// The status of each event, by its place in the log.
fn statuses(lake: &Lake) -> BTreeMap<(String, i64, i32), String> {
    let mut found = BTreeMap::new();
    for batch in lake.events.rows() {
        let sequences = batch["sequence"].as_primitive::<Int64Type>();
        let ordinals = batch["ordinal"].as_primitive::<Int32Type>();
        let shards = batch["shard"].as_string::<i32>();
        let statuses = batch["status"].as_string::<i32>();
        found.extend((0..batch.num_rows()).map(|row| {
            let shard = shards.value(row).to_owned();
            let place = (shard, sequences.value(row), ordinals.value(row));
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
async fn check_meter(meter: &Meter, table: &MemoryTable, readings: &[Reading<'_>]) {
    let panes = table.rows();
    let states: Vec<RecordBatch> = panes
        .iter()
        .map(|panes| meter.states_of(&not_quarantined(panes)).unwrap())
        .collect();
    let merged = meter.finish(&states).await.unwrap();
    let name = &meter.definition().name;
    let expected = expected(meter, readings);
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

/// What a meter must measure, over all shards.
fn expected(meter: &Meter, readings: &[Reading<'_>]) -> Measured {
    let counts = |reading: &Reading<'_>| match meter.definition().late {
        LatePolicy::Quarantine => {
            in_time::in_time(meter.definition(), &reading.counted, reading.ends)
        }
        LatePolicy::Correct | LatePolicy::NextPeriod => reading.counted.clone(),
    };
    let counted: Vec<Fact> = readings.iter().flat_map(counts).collect();
    if meter.definition().name == "risky" {
        return expected_at_risk(&counted);
    }
    let by_model = meter.definition().name == "by_model";
    let all_tokens = meter.definition().name != "by_subject";
    let width_us = meter.definition().window_us;
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

/// The rows of pane 0 as text, sorted; there is one for each shard, window and group.
fn first_panes(table: &MemoryTable) -> Vec<String> {
    let mut rows = Vec::new();
    let mut keys = BTreeSet::new();
    for batch in table.rows() {
        let panes = batch["pane"].as_primitive::<Int32Type>();
        let starts = batch["window_start"].as_primitive::<TimestampMicrosecondType>();
        let shards = batch["shard"].as_string::<i32>();
        for row in (0..batch.num_rows()).filter(|row| panes.value(*row) == 0) {
            let shard = shards.value(row).to_owned();
            let key = (shard, starts.value(row), group(&batch, row));
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
