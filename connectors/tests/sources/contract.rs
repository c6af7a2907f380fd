//! One contract, three sources.

use super::nats::Fixture;
use async_nats::jetstream::stream::Config;
use std::path::Path;
use tempfile::TempDir;
use tollgate_connectors::{
    Message, Sequence,
    contract::source::{Held, check},
    files::FileSource,
    memory::MemoryStream,
};

fn texts(numbers: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = String> {
    numbers.map(|number| format!("message {number}"))
}

#[tokio::test]
async fn a_stream_in_memory_keeps_the_contract() {
    let stream = MemoryStream::default();
    for (number, text) in (1..).zip(texts(1..=40)) {
        stream.append(Message {
            sequence: Sequence(number),
            ingest_time_us: 1_000,
            headers: Vec::new(),
            payload: text.into(),
            unread: None,
        });
    }
    let held = Held::contiguous(texts(1..=40));
    check(async || stream.source("memory"), &held).await;
}

#[tokio::test]
async fn a_file_keeps_the_contract() {
    let dir = TempDir::new().unwrap();
    let open = |path: &Path| FileSource::open(path, None).unwrap();
    let whole = dir.path().join("whole.ndjson");
    let lines: Vec<String> = texts(1..=40).collect();
    std::fs::write(&whole, lines.join("\n")).unwrap();
    check(async || open(&whole), &Held::contiguous(lines)).await;

    let holes = dir.path().join("holes.ndjson");
    std::fs::write(&holes, "one\n\n\nfour\nfive\n \nseven\n\n").unwrap();
    let message = |(sequence, text): (u64, &str)| (sequence, text.as_bytes().to_vec());
    let held = Held {
        messages: [(1, "one"), (4, "four"), (5, "five"), (7, "seven")]
            .map(message)
            .to_vec(),
        holes: vec![2..=3, 6..=6, 8..=8],
    };
    check(async || open(&holes), &held).await;
}

#[tokio::test]
async fn a_jetstream_stream_keeps_the_contract() {
    let fixture = Fixture::start().await;
    fixture.publish(1, 40).await;
    let held = Held::contiguous((1..=40_u64).map(|number| number.to_string()));
    check(async || fixture.source().await, &held).await;
}

#[tokio::test]
async fn a_jetstream_stream_with_deleted_messages_keeps_the_contract() {
    let fixture = Fixture::start().await;
    fixture.make(Config::default()).await;
    fixture.publish(1, 20).await;
    let stream = fixture.stream().await;
    for sequence in [4, 5, 11, 19, 20] {
        stream.delete_message(sequence).await.unwrap();
    }
    let is_there = |number: &u64| ![4, 5, 11, 19, 20].contains(number);
    let held = Held {
        messages: (1..=20)
            .filter(is_there)
            .map(|number| (number, number.to_string().into_bytes()))
            .collect(),
        holes: vec![4..=5, 11..=11, 19..=20],
    };
    check(async || fixture.source().await, &held).await;
}
