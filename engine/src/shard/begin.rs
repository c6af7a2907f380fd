//! Where a shard begins that has no position yet.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use tollgate_connectors::{Bounds, Sequence, Source};

/// Where to begin in a stream whose first messages are gone, or are not wanted: `source.start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Start {
    /// At the first message that the stream still has.
    First,
    /// After the last message that it has when the shard starts.
    New,
    /// At a sequence.
    Sequence(u64),
    /// At the first message that was stored at this time or later, in microseconds.
    Time(i64),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|sequence| *sequence > 0);
        let time = || text.parse::<jiff::Timestamp>().ok();
        match text {
            "first" => Ok(Start::First),
            "new" => Ok(Start::New),
            _ => number
                .map(Start::Sequence)
                .or_else(|| time().map(|time| Start::Time(time.as_microsecond())))
                .ok_or_else(|| {
                    format!(
                        "`{text}` is no place to start; write 'first', 'new', a sequence from 1, or a time such as \
                         2026-10-01T00:00:00Z"
                    )
                }),
        }
    }
}

impl TryFrom<String> for Start {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Start> for String {
    fn from(start: Start) -> String {
        match start {
            Start::First => "first".to_owned(),
            Start::New => "new".to_owned(),
            Start::Sequence(sequence) => sequence.to_string(),
            Start::Time(us) => jiff::Timestamp::from_microsecond(us)
                .unwrap_or_default()
                .to_string(),
        }
    }
}

/// The last sequence that a shard without a position is not to read.
///
/// # Errors
/// [`Error::Shard`] when the stream has no such place.
pub(super) async fn after(
    source: &mut dyn Source,
    bounds: Bounds,
    start: Start,
) -> Result<Sequence> {
    let (first, last) = (bounds.first.0, bounds.last.0);
    let after = match start {
        Start::First => first.saturating_sub(1),
        Start::New => last,
        Start::Sequence(sequence) if (first..=last + 1).contains(&sequence) => sequence - 1,
        Start::Sequence(sequence) => {
            return Err(Error::Shard {
                shard: source.shard().to_owned(),
                problem: format!(
                    "source.start is {sequence}, but the stream has sequences {first} to {last}"
                ),
                hint: format!("write a sequence from {first} to {}", last + 1),
            });
        }
        Start::Time(time_us) => before(source, first, last, time_us).await?,
    };
    Ok(Sequence(after))
}

/// The last sequence of a message that was stored before a time: messages are stored in order.
async fn before(source: &mut dyn Source, first: u64, last: u64, time_us: i64) -> Result<u64> {
    let (mut low, mut high) = (first, last + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        // A message that was deleted has no time: the next one that is there speaks for it.
        let mut at = middle;
        let mut stored = None;
        while at < high && stored.is_none() {
            stored = source.anchor(Sequence(at)).await?;
            at += 1;
        }
        match stored {
            Some(anchor) if anchor.ingest_time_us < time_us => low = at,
            Some(_) | None => high = middle,
        }
    }
    Ok(low - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_connectors::{Message, memory::MemoryStream};

    #[test]
    fn a_start_is_a_word_a_sequence_or_a_time() {
        let start = |text: &str| text.parse::<Start>();
        assert_eq!(start("first"), Ok(Start::First));
        assert_eq!(start("new"), Ok(Start::New));
        assert_eq!(start("11"), Ok(Start::Sequence(11)));
        assert_eq!(start("1970-01-01T00:00:02Z"), Ok(Start::Time(2_000_000)));
        for wrong in ["0", "-1", "", "last", "2026-10-01"] {
            assert!(start(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_time_begins_at_the_first_message_stored_then_or_later() {
        let stream = MemoryStream::default();
        for sequence in [11, 12, 13, 16, 17] {
            stream.append(Message {
                sequence: Sequence(sequence),
                ingest_time_us: i64::try_from(sequence).unwrap() * 10,
                headers: Vec::new(),
                payload: "{}".into(),
                unread: None,
            });
        }
        let mut source = stream.source("s");
        let bounds = source.bounds().await.unwrap();
        for (time_us, last_before) in [
            (0, 10),
            (110, 10),
            (111, 11),
            (130, 12),
            (131, 15),
            (160, 15),
            (170, 16),
            (171, 17),
        ] {
            let found = after(&mut source, bounds, Start::Time(time_us)).await;
            // Where messages were deleted, any of their sequences will do.
            let found = found.unwrap().0;
            let same = |a: u64, b: u64| a == b || (13..=15).contains(&a) && (13..=15).contains(&b);
            assert!(same(found, last_before), "{time_us}: {found}");
        }
        for (start, last_before) in [
            (Start::First, 10),
            (Start::New, 17),
            (Start::Sequence(11), 10),
            (Start::Sequence(18), 17),
        ] {
            assert_eq!(
                after(&mut source, bounds, start).await.unwrap(),
                Sequence(last_before)
            );
        }
        let error = after(&mut source, bounds, Start::Sequence(10)).await;
        assert_eq!(
            error.unwrap_err().to_string(),
            "shard `s`: source.start is 10, but the stream has sequences 11 to 17\n  hint: write a sequence from 11 \
             to 18"
        );
    }
}
