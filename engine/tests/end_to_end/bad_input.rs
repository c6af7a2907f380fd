//! An event that cannot be counted is kept, with its reason and its bytes, and harms no other event.

use crate::world::{TOKENS, World};
use datafusion::prelude::SessionContext;
use std::collections::BTreeMap;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tollgate_connectors::{Table, lake::Lake};

const STRUCTURED: &[(&str, &str)] = &[("Content-Type", "application/cloudevents+json")];
const BATCH: &[(&str, &str)] = &[(
    "content-type",
    "application/cloudevents-batch+json; charset=utf-8",
)];
const LINES: &[(&str, &str)] = &[("Content-Type", "application/x-ndjson")];

/// An event whose data is a good one's but for what is asked.
fn event(id: &str, time: &str, kind: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"{kind}","subject":"s","time":"{time}","data":{data}}}"#
    )
}

fn good(id: &str, time: &str, input: u32) -> String {
    let data = format!(r#"{{"model":"m","input_tokens":{input},"output_tokens":1}}"#);
    event(id, time, "llm.completion", &data)
}

fn with_data(id: &str, data: &str) -> String {
    event(id, NOON, "llm.completion", data)
}

const NOON: &str = "2026-01-01T12:00:00Z";

/// A message, its event's status, and what the reason must say.
fn singles() -> Vec<(String, &'static str, &'static str)> {
    let fits = r#""output_tokens":1}"#;
    vec![
        (
            r#"{"specversion":"1.0","id":"#.to_owned(),
            "rejected",
            "the text ends too early",
        ),
        (
            with_data(
                "type",
                &format!(r#"{{"model":"m","input_tokens":"12",{fits}"#),
            ),
            "rejected",
            "field `input_tokens`: expected BIGINT, got a string (\"12\")",
        ),
        (
            with_data("missing", &format!(r#"{{"input_tokens":12,{fits}"#)),
            "rejected",
            "field `model` is required but missing or null",
        ),
        (
            with_data(
                "range",
                &format!(r#"{{"model":"m","input_tokens":9223372036854775808,{fits}"#),
            ),
            "rejected",
            "9223372036854775808",
        ),
        (
            with_data(
                "fraction",
                &format!(r#"{{"model":"m","input_tokens":1.5,{fits}"#),
            ),
            "rejected",
            "1.5",
        ),
        (
            event("unknown", NOON, "no.such", "{}"),
            "unmatched",
            "no event type is defined for `no.such`",
        ),
        (
            good("future", "2199-01-01T00:00:00Z", 1),
            "rejected",
            "above the limit of 5 minutes",
        ),
        (String::new(), "rejected", "the payload is empty"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_bad_event_is_kept_with_status_reason_and_bytes() {
    let world = World::new(TOKENS).await;
    for (payload, ..) in singles() {
        world.send(STRUCTURED, &payload).await;
    }
    world.send(STRUCTURED, &good("good", NOON, 5)).await;
    // The same again, and the same id with other content.
    world.send(STRUCTURED, &good("good", NOON, 5)).await;
    let conflict = good("good", NOON, 6);
    world.send(STRUCTURED, &conflict).await;
    // A rejected id was never counted, so a corrected event may have it.
    world.send(STRUCTURED, &good("type", NOON, 7)).await;

    let cli = world.cli();
    let summary = cli.run_to_end().await;
    let counts = [
        "messages",
        "events",
        "counted",
        "repeats",
        "rejected",
        "unmatched",
        "conflicts",
    ];
    assert_eq!(
        counts.map(|word| summary.of(word)),
        [12, 12, 2, 1, 7, 1, 1],
        "{summary:?}"
    );

    let rows = cli
        .query("SELECT status, reason, CAST(raw AS VARCHAR) FROM events WHERE status <> 'ok' ORDER BY sequence")
        .await;
    let mut expected = singles();
    expected.push((conflict, "conflict", "counted before with other content"));
    assert_eq!(rows.len(), expected.len(), "{rows:#?}");
    for (row, (raw, status, reason)) in rows.iter().zip(expected) {
        assert_eq!((row[0].as_str(), &row[2]), (status, &raw), "{row:?}");
        assert!(row[1].contains(reason), "{row:?} does not say `{reason}`");
    }
    let kept = cli
        .query("SELECT COUNT(*) FROM events WHERE status = 'ok' AND raw IS NULL")
        .await;
    assert_eq!(kept, [["2"]]);
    let totals = cli.query("SELECT SUM(input), SUM(calls) FROM tokens").await;
    assert_eq!(totals, [["12", "2"]]);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_payload_form_counts_and_one_bad_event_harms_no_neighbour() {
    let world = World::new(TOKENS).await;
    let bad = |id: &str| with_data(id, r#"{"model":"m","input_tokens":-0.1,"output_tokens":1}"#);
    world.send(&[], &good("1", NOON, 1)).await;
    world.send(STRUCTURED, &good("2", NOON, 10)).await;
    let batch = [good("3", NOON, 100), bad("b"), good("4", NOON, 1_000)];
    world.send(BATCH, &format!("[{}]", batch.join(", "))).await;
    let lines = [
        good("5", NOON, 10_000),
        "oops".into(),
        bad("c"),
        good("6", NOON, 100_000),
    ];
    world.send(LINES, &lines.join("\n")).await;
    let binary = |id| {
        [
            ("CE-SpecVersion", "1.0"),
            ("ce-id", id),
            ("ce-source", "a%20test"),
            ("Ce-Type", "llm.completion"),
            ("ce-subject", "s"),
            ("ce-time", NOON),
            ("content-type", "application/json"),
        ]
    };
    let data = r#"{"model":"m","input_tokens":1000000,"output_tokens":1}"#;
    world.send(&binary("7"), data).await;
    world.send(&binary("8"), r#"{"model":5}"#).await;

    let cli = world.cli();
    let summary = cli.run_to_end().await;
    let counts = ["messages", "events", "counted", "rejected"];
    assert_eq!(
        counts.map(|word| summary.of(word)),
        [6, 11, 7, 4],
        "{summary:?}"
    );
    let totals = cli.query("SELECT SUM(input), SUM(calls) FROM tokens").await;
    assert_eq!(totals, [["1111111", "7"]]);
    // Ordinals are places in a message, from 0.
    let set_aside = cli
        .query("SELECT sequence, ordinal, event_id, CAST(raw AS VARCHAR) FROM events WHERE status <> 'ok' ORDER BY sequence, ordinal")
        .await;
    let raw_binary: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&set_aside[3][3]).unwrap();
    assert_eq!(raw_binary["source"], "a test");
    assert_eq!(raw_binary["data"], serde_json::json!({ "model": 5 }));
    assert_eq!(set_aside[0], ["3", "1", "b", &bad("b")]);
    assert_eq!(set_aside[1], ["4", "1", "", "oops"]);
    assert_eq!(set_aside[2], ["4", "2", "c", &bad("c")]);
    assert_eq!(set_aside[3][..3], ["6", "0", "8"]);
    let source = cli
        .query("SELECT source FROM events WHERE event_id = '7'")
        .await;
    assert_eq!(source, [["a test"]]);
    cli.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_makes_pane_1_and_the_total_counts_it() {
    let world = World::new(TOKENS).await;
    // Windows are ten minutes and wait one: 12:11 closes [12:00, 12:10), 12:10:59 does not.
    world
        .send(&[], &good("first", "2026-01-01T12:05:00Z", 1))
        .await;
    world
        .send(&[], &good("almost", "2026-01-01T12:10:59.999999Z", 10))
        .await;
    world
        .send(&[], &good("in time", "2026-01-01T12:09:59.999999Z", 100))
        .await;
    world
        .send(&[], &good("closes", "2026-01-01T12:11:00Z", 1_000))
        .await;
    world
        .send(&[], &good("late", "2026-01-01T12:00:00Z", 10_000))
        .await;
    let cli = world.cli();
    let summary = cli.run_to_end().await;
    assert_eq!(
        (summary.of("counted"), summary.late()),
        (5, 1),
        "{summary:?}"
    );
    // A second one makes the next pane, in another run.
    world
        .send(&[], &good("later", "2026-01-01T12:09:00Z", 100_000))
        .await;
    let summary = cli.run_to_end().await;
    assert_eq!(
        (summary.of("counted"), summary.late()),
        (1, 1),
        "{summary:?}"
    );

    let late = cli
        .query("SELECT event_id FROM events WHERE status = 'late' ORDER BY sequence")
        .await;
    assert_eq!(late, [["late"], ["later"]]);
    let totals = cli
        .query("SELECT CAST(window_start AS VARCHAR), input, calls, is_final FROM tokens_windows ORDER BY 1")
        .await;
    assert_eq!(
        totals,
        [
            ["2026-01-01T12:00:00Z", "110101", "4", "true"],
            ["2026-01-01T12:10:00Z", "1010", "2", "true"],
        ]
    );
    assert_eq!(
        panes(&world).await,
        [
            "12:00 pane 0: 101",
            "12:00 pane 1: 10000",
            "12:00 pane 2: 100000",
            "12:10 pane 0: 1010",
        ]
    );
    cli.audit().await;
}

/// The panes of the meter as they are stored.
async fn panes(world: &World) -> Vec<String> {
    let lake = Lake::open_to_read("file://./lake", &world.path(""))
        .await
        .unwrap();
    let table = lake.existing("meters/tokens").await.unwrap().unwrap();
    let context = SessionContext::new();
    context
        .register_table("panes", table.provider().unwrap())
        .unwrap();
    let rows = context
        .sql(
            "SELECT concat(substr(CAST(window_start AS VARCHAR), 12, 5), ' pane ', pane, ': ', input)
             FROM panes ORDER BY window_start, pane",
        )
        .await
        .unwrap()
        .collect()
        .await
        .unwrap();
    let mut texts = Vec::new();
    for batch in rows {
        let column =
            arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8).unwrap();
        let column = arrow::array::AsArray::as_string::<i32>(&column);
        texts.extend((0..batch.num_rows()).map(|row| column.value(row).to_owned()));
    }
    texts
}

/// Publishes as a client that checks nothing of the header block.
async fn send_block(world: &World, block: &[u8], payload: &str) {
    let socket = TcpStream::connect(("127.0.0.1", world.port()))
        .await
        .unwrap();
    let mut socket = BufReader::new(socket);
    let (head, all) = (block.len(), block.len() + payload.len());
    let connect = r#"CONNECT {"verbose":false,"headers":true}"#;
    let command = format!("{connect}\r\nHPUB usage.test {head} {all}\r\n");
    let parts = [
        command.as_bytes(),
        block,
        payload.as_bytes(),
        b"\r\nPING\r\n",
    ];
    socket.write_all(&parts.concat()).await.unwrap();
    let mut line = String::new();
    while line != "PONG\r\n" {
        line.clear();
        assert_ne!(socket.read_line(&mut line).await.unwrap(), 0, "closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_headers_the_client_cannot_read_holds_nothing_up() {
    let world = World::new(TOKENS).await;
    let blocks: [&[u8]; 3] = [
        b"NATS/1.0\r\nX: \xff\r\n\r\n",
        b"NATS/1.0\r\nce-id: 1\r\nno colon\r\n\r\n",
        b"NATS/1.0\r\nX: a\rb\r\n\r\n",
    ];
    world.send(STRUCTURED, &good("first", NOON, 1)).await;
    for block in blocks {
        send_block(&world, block, &good("poisoned", NOON, 100)).await;
    }
    let cli = world.cli();
    // The last message that is committed is a poisoned one, and the next start must know it again.
    let summary = cli.run_to_end().await;
    assert_eq!(summary.sequence(), 4);
    assert_eq!([summary.of("counted"), summary.of("rejected")], [1, 3]);
    send_block(&world, blocks[0], "").await;
    world.send(STRUCTURED, &good("second", NOON, 10)).await;
    let summary = cli.run_to_end().await;
    assert_eq!(summary.sequence(), 6);
    assert_eq!([summary.of("counted"), summary.of("rejected")], [1, 1]);

    let rows = cli
        .query("SELECT sequence, status, reason, encode(raw, 'hex') FROM events WHERE status = 'rejected' ORDER BY sequence")
        .await;
    let hex = |block: &[u8], payload: &str| -> String {
        let bytes = block.iter().chain(payload.as_bytes());
        bytes.map(|byte| format!("{byte:02x}")).collect()
    };
    let reasons = [
        "headers: not valid UTF-8 at byte 13",
        "headers: line 3 has no colon",
        "headers: line 2 has a carriage return in its value",
    ];
    let payload = good("poisoned", NOON, 100);
    let row = |sequence: &str, reason: &str, raw: String| {
        vec![
            sequence.to_owned(),
            "rejected".to_owned(),
            reason.to_owned(),
            raw,
        ]
    };
    let expected = [
        row("2", reasons[0], hex(blocks[0], &payload)),
        row("3", reasons[1], hex(blocks[1], &payload)),
        row("4", reasons[2], hex(blocks[2], &payload)),
        row("5", reasons[0], hex(blocks[0], "")),
    ];
    assert_eq!(rows, expected);
    let totals = cli.query("SELECT SUM(input), SUM(calls) FROM tokens").await;
    assert_eq!(totals, [["11", "2"]]);
    cli.audit().await;
}
