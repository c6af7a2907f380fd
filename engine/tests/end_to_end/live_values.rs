//! A reader that asks while events stream in sees each event once, at one cut, and never fewer than before.

use crate::world::{TOKENS, World};
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use async_nats::{HeaderMap, jetstream};
use std::{collections::BTreeSet, path::Path, sync::Arc};
use tokio::sync::watch;
use tollgate::{
    Error,
    catalog::Catalog,
    cli::run::supervise,
    config::Settings,
    live::{self, Live},
    view::View,
};
use tollgate_connectors::lake::Lake;

/// 2026-01-01T00:00:00Z.
const START_S: i64 = 1_767_225_600;
const EVENTS_PER_MESSAGE: i64 = 10;

/// Messages, and what a reader of the first so many of them counts: events and their input tokens.
struct Log {
    messages: Vec<String>,
    counted: Vec<(i64, i64)>,
}

impl Log {
    /// Seven seconds between two events, so that a window closes every nine messages; every thirteenth
    /// comes half an hour late, and every seventeenth is one from the message before once more.
    fn new(messages: i64) -> Self {
        let mut log = Log {
            messages: Vec::new(),
            counted: vec![(0, 0)],
        };
        let (mut events, mut input) = (0, 0);
        for message in 0..messages {
            let mut lines = Vec::new();
            for id in message * EVENTS_PER_MESSAGE..(message + 1) * EVENTS_PER_MESSAGE {
                if id % 17 == 16 {
                    lines.push(event(id - EVENTS_PER_MESSAGE));
                    continue;
                }
                lines.push(event(id));
                events += 1;
                input += tokens(id);
            }
            log.messages.push(lines.join("\n"));
            log.counted.push((events, input));
        }
        log
    }
}

fn tokens(id: i64) -> i64 {
    1 + id % 97
}

fn event(id: i64) -> String {
    let late_s = if id % 13 == 12 { 1_800 } else { 0 };
    let time = jiff::Timestamp::from_second(START_S + 7 * id - late_s).unwrap();
    let (subject, tokens) = (id % 3, tokens(id));
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"llm.completion","subject":"s{subject}","time":"{time}","data":{{"model":"m","input_tokens":{tokens},"output_tokens":1}}}}"#
    )
}

async fn publish(jetstream: &jetstream::Context, messages: &[String]) {
    for message in messages {
        let mut headers = HeaderMap::new();
        headers.insert("Content-Type", "application/x-ndjson");
        let sent = jetstream.publish_with_headers("usage.test", headers, message.clone().into());
        sent.await.unwrap().await.unwrap();
    }
}

async fn stream(world: &World) -> jetstream::Context {
    let jetstream = world.jetstream().await;
    let stream = jetstream::stream::Config {
        name: "USAGE".into(),
        subjects: vec!["usage.>".into()],
        ..Default::default()
    };
    jetstream.get_or_create_stream(stream).await.unwrap();
    jetstream
}

/// What a view says.
#[derive(Debug, Default)]
struct Answer {
    position: usize,
    counted: (i64, i64),
    closed: BTreeSet<i64>,
}

impl Answer {
    async fn of(view: &View) -> Self {
        let position = view.cuts().await.unwrap()[0].1.sequence.0;
        let totals = rows(
            view,
            "SELECT CAST(COALESCE(SUM(calls), 0) AS BIGINT) AS calls,
                    CAST(COALESCE(SUM(input), 0) AS BIGINT) AS input FROM tokens",
        )
        .await;
        let events = "SELECT COUNT(*) AS events FROM events WHERE status IN ('ok', 'late')";
        let events = number(&rows(view, events).await, "events");
        let counted = (number(&totals, "calls"), number(&totals, "input"));
        assert_eq!(events, counted.0, "`events` and the meter are of one cut");
        let closed = "SELECT DISTINCT window_start FROM tokens_windows WHERE is_final";
        let closed = rows(view, closed).await;
        let starts = closed["window_start"].as_primitive::<TimestampMicrosecondType>();
        Answer {
            position: usize::try_from(position).unwrap(),
            counted,
            closed: starts.values().iter().copied().collect(),
        }
    }
}

async fn rows(view: &View, sql: &str) -> RecordBatch {
    let frame = view.session(sql).await.unwrap().sql(sql).await.unwrap();
    let schema = Arc::clone(frame.schema().inner());
    tollgate::view::one_batch(&schema, &frame.collect().await.unwrap()).unwrap()
}

fn number(rows: &RecordBatch, column: &str) -> i64 {
    rows[column].as_primitive::<Int64Type>().value(0)
}

/// Asks until the shard has come to a message; every answer is what the log says up to its cut.
async fn ask_until(position: usize, live: &Live, log: &Log, last: &mut Answer) {
    while last.position < position {
        let answer = Answer::of(&live.view().await.unwrap()).await;
        assert_eq!(answer.counted, log.counted[answer.position], "{answer:?}");
        assert!(
            answer.position >= last.position,
            "{answer:?} after {last:?}"
        );
        assert!(
            answer.closed.is_superset(&last.closed),
            "{answer:?} after {last:?}"
        );
        *last = answer;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_live_answer_is_what_was_published_up_to_its_cut() {
    let world = World::new(TOKENS).await;
    let jetstream = stream(&world).await;
    let variable = ("TOLLGATE_FLUSH_INTERVAL".to_owned(), "20ms".to_owned());
    let file = world.path("tollgate.toml");
    let settings = Settings::load(Path::new(&file), std::iter::once(variable)).unwrap();
    let catalog = Arc::new(Catalog::load(&settings).await.unwrap());
    let (live, questions) = live::live(Arc::clone(&catalog));
    let (stop, stopped) = watch::channel(false);
    let running = {
        let (settings, catalog) = (settings.clone(), Arc::clone(&catalog));
        tokio::spawn(async move {
            Box::pin(supervise(&settings, &catalog, false, stopped, questions)).await
        })
    };
    let log = Log::new(300);
    let mut last = Answer::default();
    for (step, messages) in log.messages.chunks(10).enumerate() {
        publish(&jetstream, messages).await;
        ask_until((step + 1) * 10, &live, &log, &mut last).await;
    }
    assert_eq!(last.position, 300);
    assert!(!last.closed.is_empty(), "nothing was closed");

    stop.send_replace(true);
    let report = running.await.unwrap().unwrap().unwrap();
    assert!(
        report.flushes.durations.count > 1 && report.counts.late > 0,
        "{report:?}"
    );
    assert!(matches!(live.view().await, Err(Error::NotRunning)));
    let lake = Lake::open_to_read(&settings.lake.url, &settings.base);
    let view = View::open(catalog, &lake.await.unwrap()).await.unwrap();
    let end = Answer::of(&view).await;
    assert_eq!(end.counted, log.counted[300]);
    assert!(end.closed.is_superset(&last.closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_beside_a_run_is_what_was_published_up_to_its_cut() {
    const NOW: &str = "SELECT COALESCE(MAX(sequence), 0), COUNT(*) FILTER (WHERE status IN ('ok', 'late')),
        (SELECT COALESCE(SUM(calls), 0) FROM tokens), (SELECT COALESCE(SUM(input), 0) FROM tokens) FROM events";
    let world = World::new(TOKENS).await;
    let jetstream = stream(&world).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "20ms");
    let mut run = cli.start(&["run"]);
    run.logged("shard acquired", 1).await;
    let log = Log::new(120);
    let mut position = 0;
    let now = async |position: &mut usize| {
        let row: Vec<i64> = cli.query(NOW).await[0]
            .iter()
            .map(|value| value.parse().unwrap())
            .collect();
        let cut = usize::try_from(row[0]).unwrap();
        assert!(cut >= *position, "back from {position} to {cut}");
        *position = cut;
        let (events, input) = log.counted[cut];
        assert_eq!(row[1..], [events, events, input], "at {cut}");
    };
    for messages in log.messages.chunks(10) {
        publish(&jetstream, messages).await;
        now(&mut position).await;
    }
    let ran = run.terminate().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    cli.run_to_end().await;
    now(&mut position).await;
    assert_eq!(position, 120);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_meter_moves() {
    let world = World::new(TOKENS).await;
    let jetstream = stream(&world).await;
    let cli = world.cli().with("TOLLGATE_FLUSH_INTERVAL", "20ms");
    let mut run = cli.start(&["run"]);
    publish(&jetstream, &[event(1)]).await;
    run.logged("flush committed", 1).await;
    let watching = cli.with("TOLLGATE_LOG", "tollgate=debug");
    let mut watch = watching.start(&["watch", "tokens", "--every", "10ms"]);
    watch.logged("frame drawn", 1).await;
    publish(&jetstream, &[event(4)]).await;
    run.logged("flush committed sequence=2", 1).await;
    // The frame at hand may have been drawn from what was there before.
    watch.logged_again("frame drawn").await;
    watch.logged_again("frame drawn").await;
    watch.signal("INT").await;
    let ran = watch.ended().await;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let frames: Vec<&str> = ran.stdout.trim_end().split("\n\n").collect();
    let [first, .., last] = frames.as_slice() else {
        panic!("{ran:#?}");
    };
    let cut = |sequence| format!("tokens: 1 of 1 rows, USAGE up to {sequence}, watermark ");
    assert!(first.starts_with(&cut(1)), "{first}");
    assert!(
        first.contains("| s1      | m     |        | 2     |"),
        "{first}"
    );
    assert!(last.starts_with(&cut(2)), "{last}");
    assert!(
        last.contains("| s1      | m     |        | 7     |"),
        "{last}"
    );
    assert_eq!(run.terminate().await.code, Some(0));
}

/// Event 96 has 97 tokens, 100 has 4, 2 has 3; event 1 with its 2 is not among the first three.
const NEWEST: &str = "\
+----------------------+----------------------+-----------+---------+-------+--------+-------+--------+--------+-------+
| window_start         | window_end           | window is | subject | model | region | input | cached | output | calls |
+----------------------+----------------------+-----------+---------+-------+--------+-------+--------+--------+-------+
| 2026-01-01T00:10:00Z | 2026-01-01T00:20:00Z | final     | s0      | m     |        | 97    | 0      | 1      | 1     |
| 2026-01-01T00:10:00Z | 2026-01-01T00:20:00Z | final     | s1      | m     |        | 4     | 0      | 1      | 1     |
| 2026-01-01T00:00:00Z | 2026-01-01T00:10:00Z | final     | s2      | m     |        | 3     | 0      | 1      | 1     |
+----------------------+----------------------+-----------+---------+-------+--------+-------+--------+--------+-------+";

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_has_the_newest_windows_and_the_largest_rows_first() {
    let world = World::new(TOKENS).await;
    let jetstream = stream(&world).await;
    let cli = world.cli();
    let empty = cli.run(&["watch", "tokens", "--count", "1"]).await;
    assert_eq!(empty.code, Some(1), "{empty:#?}");
    publish(&jetstream, &[event(1), event(96), event(2), event(100)]).await;
    let run = cli.run_to_end().await;
    assert_eq!(run.of("counted"), 4);
    let watch = async |arguments: &[&str]| {
        let text = cli
            .succeed(&[&["watch", "tokens"], arguments].concat())
            .await;
        let frames = text.trim_end().split("\n\n").map(str::to_owned);
        frames.collect::<Vec<String>>()
    };
    let frames = watch(&["--top", "3", "--count", "2", "--every", "1ms"]).await;
    assert_eq!(frames.len(), 2);
    assert_eq!(frames[0], frames[1]);
    let (header, table) = frames[0].split_once('\n').unwrap();
    let expected = "tokens: 3 of 4 rows, USAGE up to 4, watermark 2026-01-01T00:11:40Z, changed ";
    assert!(header.starts_with(expected), "{header}");
    assert_eq!(table, NEWEST);
    let narrowed = watch(&["--count", "1", "--where", "subject = 's2' AND is_final"]).await;
    assert!(
        narrowed[0].starts_with("tokens: 1 of 1 rows, "),
        "{narrowed:?}"
    );
    let misspelt = ["watch", "tokens", "--where", "subjekt = 's2'"];
    let misspelt = cli.run(&misspelt).await;
    assert_eq!(misspelt.code, Some(1));
    assert!(misspelt.stderr.contains("subjekt"), "{misspelt:#?}");

    let unknown = cli.run(&["watch", "token"]).await;
    assert_eq!(unknown.code, Some(2));
    let hint =
        "error: there is no meter `token`\n  hint: did you mean `tokens`? known meters: `tokens`";
    assert!(unknown.stderr.contains(hint), "{unknown:#?}");
}
