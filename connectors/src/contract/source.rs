//! What every [`Source`] promises, as one test over whatever it reads.

use crate::{Anchor, Bounds, Message, ReadLimit, Sequence, Source};
use futures::FutureExt;
use std::ops::RangeInclusive;

/// What is in the source, as the test that filled it knows. Nothing may be added while it is checked.
#[derive(Debug, Clone)]
pub struct Held {
    /// Every message's sequence and payload, in order.
    pub messages: Vec<(u64, Vec<u8>)>,
    /// What lies between or after them and holds no message, as whole runs, in order.
    pub holes: Vec<RangeInclusive<u64>>,
}

impl Held {
    /// Payloads under the sequences from 1 on.
    pub fn contiguous(payloads: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        let payloads = payloads.into_iter().map(Into::into);
        Held {
            messages: (1..).zip(payloads).collect(),
            holes: Vec::new(),
        }
    }

    /// The last sequence that is a message or a hole.
    fn last(&self) -> u64 {
        let message = self.messages.last().map_or(0, |(sequence, _)| *sequence);
        let hole = self.holes.last().map_or(0, |hole| *hole.end());
        message.max(hole)
    }

    /// What is read after a position.
    fn after(&self, position: u64) -> Vec<(u64, Vec<u8>)> {
        let behind = self.messages.iter().filter(|(s, _)| *s > position);
        behind.cloned().collect()
    }

    /// The sequences after a position that hold no message.
    fn empty_after(&self, position: u64) -> Vec<u64> {
        let all = self.holes.iter().flat_map(Clone::clone);
        all.filter(|sequence| *sequence > position).collect()
    }
}

/// Waits so long that only a hang reaches it.
const LIMIT: ReadLimit = ReadLimit {
    bytes: 1 << 20,
    wait_ms: 20_000,
};

/// Checks every promise; `open` makes a new reader of the same messages each time, and is called often.
///
/// # Panics
/// A promise is broken, or the source fails.
pub async fn check<S: Source>(open: impl AsyncFn() -> S, held: &Held) {
    assert!(held.messages.len() > 2, "there is something to check with");
    bounds_say_what_is_there(&open, held).await;
    all_comes_in_order(&open, held).await;
    a_seek_gives_the_rest(&open, held).await;
    one_byte_is_one_message(&open, held).await;
    a_dropped_read_loses_nothing(&open, held).await;
    anchors_are_stable(&open, held).await;
    readers_do_not_touch_each_other(&open, held).await;
}

async fn bounds_say_what_is_there<S: Source>(open: &impl AsyncFn() -> S, held: &Held) {
    let mut source = open().await;
    let shard = source.shard().to_owned();
    assert!(!shard.is_empty(), "a shard has a name");
    let before = bounds(&mut source).await;
    assert_eq!(before.last, Sequence(held.last()), "the last sequence");
    assert_eq!(before.first, Sequence(1), "the first sequence");
    read_all(&mut source, 0, held.last(), LIMIT).await;
    let after = bounds(&mut source).await;
    assert_eq!(
        (before.first, before.last),
        (after.first, after.last),
        "reading moves no bound"
    );
    assert_eq!(source.shard(), shard, "a shard keeps its name");
}

async fn all_comes_in_order<S: Source>(open: &impl AsyncFn() -> S, held: &Held) {
    let mut source = open().await;
    let read = read_all(&mut source, 0, held.last(), LIMIT).await;
    assert_eq!(contents(&read.messages), held.messages);
    assert_eq!(read.empty, held.empty_after(0), "every hole is explained");
    assert!(source.holes().is_empty(), "a hole is reported once");
}

async fn a_seek_gives_the_rest<S: Source>(open: &impl AsyncFn() -> S, held: &Held) {
    let mut source = open().await;
    let last = held.last();
    let middle = held.messages[held.messages.len() / 2].0;
    // Forward, back to the start, and to where there is little left.
    for position in [middle, 0, last - 1, 1, middle] {
        seek(&mut source, position).await;
        let read = read_all(&mut source, position, last, LIMIT).await;
        assert_eq!(
            contents(&read.messages),
            held.after(position),
            "after a seek to {position}"
        );
        assert_eq!(read.empty, held.empty_after(position));
    }
    // A seek forgets what had arrived: the first read leaves the rest behind, the second is dropped with it.
    seek(&mut source, 0).await;
    succeeded(source.read(ReadLimit { bytes: 1, ..LIMIT }).await);
    let _ = source.read(LIMIT).now_or_never();
    seek(&mut source, middle).await;
    let read = read_all(&mut source, middle, last, LIMIT).await;
    assert_eq!(contents(&read.messages), held.after(middle));
    assert_eq!(read.empty, held.empty_after(middle));
}

async fn one_byte_is_one_message<S: Source>(open: &impl AsyncFn() -> S, held: &Held) {
    let mut source = open().await;
    let limit = ReadLimit { bytes: 1, ..LIMIT };
    let read = read_all(&mut source, 0, held.last(), limit).await;
    assert_eq!(contents(&read.messages), held.messages);
    assert_eq!(read.most_at_once, 1, "the limit is looked at after each");
}

async fn a_dropped_read_loses_nothing<S: Source>(open: &impl AsyncFn() -> S, held: &Held) {
    let mut source = open().await;
    let mut read = Read::default();
    let mut position = 0;
    let few = ReadLimit { bytes: 10, ..LIMIT };
    while position < held.last() {
        // Polled once and dropped, so that each kind of wait is cut short at times.
        for _ in 0..3 {
            if let Some(messages) = source.read(few).now_or_never() {
                position = read.take(&mut source, position, succeeded(messages));
            }
        }
        if position < held.last() {
            let messages = source.read(few).await;
            position = read.take(&mut source, position, succeeded(messages));
        }
    }
    assert_eq!(contents(&read.messages), held.messages);
    assert_eq!(read.empty, held.empty_after(0));
}

async fn anchors_are_stable<S: Source>(open: &impl AsyncFn() -> S, held: &Held) {
    let (mut source, mut other) = (open().await, open().await);
    let read = read_all(&mut source, 0, held.last(), LIMIT).await;
    for message in &read.messages {
        let ours = Some(Anchor::of(message));
        assert_eq!(anchor(&mut source, message.sequence.0).await, ours);
        assert_eq!(anchor(&mut other, message.sequence.0).await, ours);
    }
    for nothing in held.empty_after(0).into_iter().chain([0, held.last() + 1]) {
        assert_eq!(anchor(&mut other, nothing).await, None, "of {nothing}");
    }
    // Asking for anchors moves nothing.
    let read = read_all(&mut other, 0, held.last(), LIMIT).await;
    assert_eq!(contents(&read.messages), held.messages);
}

async fn readers_do_not_touch_each_other<S: Source>(open: &impl AsyncFn() -> S, held: &Held) {
    let (mut one, mut other) = (open().await, open().await);
    let few = ReadLimit { bytes: 10, ..LIMIT };
    let mut reads = (Read::default(), Read::default());
    let mut positions = (0, 0);
    while positions.0.min(positions.1) < held.last() {
        if positions.0 < held.last() {
            let messages = succeeded(one.read(few).await);
            positions.0 = reads.0.take(&mut one, positions.0, messages);
        }
        if positions.1 < held.last() {
            let messages = succeeded(other.read(LIMIT).await);
            positions.1 = reads.1.take(&mut other, positions.1, messages);
        }
    }
    assert_eq!(contents(&reads.0.messages), held.messages);
    let times =
        |read: &Read| -> Vec<i64> { read.messages.iter().map(|m| m.ingest_time_us).collect() };
    assert_eq!(contents(&reads.1.messages), held.messages);
    assert_eq!(times(&reads.0), times(&reads.1));
}

/// What was read so far.
#[derive(Default)]
struct Read {
    messages: Vec<Message>,
    /// Each sequence of each hole.
    empty: Vec<u64>,
    most_at_once: usize,
}

impl Read {
    /// Adds what one read gave, and returns the new position: nothing is skipped, nothing comes twice.
    fn take(&mut self, source: &mut dyn Source, position: u64, messages: Vec<Message>) -> u64 {
        let mut covered: Vec<u64> = messages.iter().map(|m| m.sequence.0).collect();
        let is_rising = covered.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(is_rising, "messages rise: {covered:?}");
        let holes = source.holes();
        let empty = holes.iter().flat_map(|hole| hole.start().0..=hole.end().0);
        self.empty.extend(empty.clone());
        covered.extend(empty);
        covered.sort_unstable();
        for (expected, got) in (position + 1..).zip(&covered) {
            assert_eq!(*got, expected, "messages and holes are contiguous");
        }
        self.most_at_once = self.most_at_once.max(messages.len());
        self.messages.extend(messages);
        covered.last().copied().unwrap_or(position)
    }
}

async fn read_all(source: &mut dyn Source, from: u64, last: u64, limit: ReadLimit) -> Read {
    let mut read = Read::default();
    let mut position = from;
    while position < last {
        let messages = succeeded(source.read(limit).await);
        let reached = read.take(source, position, messages);
        assert!(reached > position, "no progress after {position}");
        position = reached;
    }
    read
}

async fn bounds(source: &mut dyn Source) -> Bounds {
    succeeded(source.bounds().await)
}

async fn anchor(source: &mut dyn Source, sequence: u64) -> Option<Anchor> {
    succeeded(source.anchor(Sequence(sequence)).await)
}

async fn seek(source: &mut dyn Source, position: u64) {
    succeeded(source.seek(Sequence(position), None).await);
}

fn succeeded<T>(result: crate::Result<T>) -> T {
    result.expect("nothing disturbs the source while it is checked")
}

fn contents(messages: &[Message]) -> Vec<(u64, Vec<u8>)> {
    let content = |message: &Message| (message.sequence.0, message.payload.to_vec());
    messages.iter().map(content).collect()
}
