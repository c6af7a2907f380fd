//! Sources against the real thing: a nats-server, and files on disk.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may fail like the tests themselves"
)]

mod access;
mod contract;
mod elsewhere;
mod files;
mod nats;
mod permissions;
mod poisoned;
mod risks;

use tollgate_connectors::{Message, ReadLimit, Sequence, Source};

/// Waits long enough that only a hang reaches it.
const LIMIT: ReadLimit = ReadLimit {
    bytes: 1 << 20,
    wait_ms: 20_000,
};

/// Reads until `last` was read or explained.
async fn read_until(source: &mut dyn Source, last: u64) -> Vec<Message> {
    let mut all: Vec<Message> = Vec::new();
    let mut position = 0;
    while position < last {
        let messages = source.read(LIMIT).await.expect("reading goes on");
        let hole = source.holes().last().map_or(0, |hole| hole.end().0);
        let read = messages.last().map_or(0, |message| message.sequence.0);
        assert!(hole.max(read) > position, "no progress after {position}");
        position = hole.max(read);
        all.extend(messages);
    }
    all
}

fn sequences(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.sequence.0).collect()
}

fn texts(messages: &[Message]) -> Vec<String> {
    let text = |message: &Message| String::from_utf8(message.payload.to_vec()).unwrap();
    messages.iter().map(text).collect()
}

fn hole(first: u64, last: u64) -> std::ops::RangeInclusive<Sequence> {
    Sequence(first)..=Sequence(last)
}
