//! Where a shard begins that has no position yet.

use crate::{
    config::Start,
    error::{Error, Result},
};
use tollgate_connectors::{Bounds, Sequence, Source};

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
