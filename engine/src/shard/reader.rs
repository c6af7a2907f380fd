//! Reads and decodes ahead of the shard.

use crate::{
    clock::Clock,
    error::{Error, Result},
};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tollgate_connectors::{
    Message, ReadLimit, Sequence, Source,
    event::{Decoded, Decoder},
};

/// What the reader hands over.
#[derive(Debug)]
pub(super) enum Input {
    Batch(Box<Batch>),
    /// Nothing came for a while. When the source was asked and has nothing more, the time before that.
    Idle {
        caught_up_us: Option<i64>,
    },
    /// The source's end, as it was at the time given, is reached.
    End {
        asked_us: i64,
    },
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) decoded: Decoded,
    pub(super) messages: Vec<Message>,
    /// The last sequence that is read or explained.
    pub(super) last: Sequence,
    pub(super) holes: u64,
    /// The last message that the source is known to hold.
    pub(super) known_end: Option<Sequence>,
}

/// Reads and decodes ahead of the shard.
pub(super) struct Reader {
    pub(super) source: Box<dyn Source>,
    pub(super) decoder: Decoder,
    pub(super) position: Sequence,
    pub(super) until: Option<Sequence>,
    pub(super) batch_bytes: usize,
    pub(super) clock: Arc<dyn Clock>,
    /// When the source's bounds were last asked for, by our clock, in microseconds.
    pub(super) asked_us: i64,
    /// When `until` was asked for, by the source's clock if it has one, in microseconds.
    pub(super) end_asked_us: i64,
}

/// An idle source is asked at most this often whether there is nothing more, in microseconds.
const ASK_EVERY_US: i64 = 1_000_000;

/// How long a read waits for the first message before the shard counts as idle.
const IDLE_MS: u64 = 200;

impl Reader {
    pub(super) async fn run(
        mut self,
        sender: mpsc::Sender<Input>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let limit = ReadLimit {
            bytes: self.batch_bytes,
            wait_ms: IDLE_MS,
        };
        loop {
            if self.until.is_some_and(|until| self.position >= until) {
                let asked_us = self.end_asked_us;
                let _ = sender.send(Input::End { asked_us }).await;
                return Ok(());
            }
            let messages = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                messages = self.source.read(limit) => messages?,
            };
            let (reader, input) = self.decode(messages).await?;
            self = reader;
            if sender.send(input).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Asks whether the source's end is reached; returns the time before it was asked, by the source's
    /// clock if it has one: ours may be wrong, and closes windows.
    async fn ask(&mut self) -> Result<Option<i64>> {
        let now_us = self.clock.now_us();
        if now_us.saturating_sub(self.asked_us) < ASK_EVERY_US {
            return Ok(None);
        }
        self.asked_us = now_us;
        let bounds = self.source.bounds().await?;
        let asked_us = bounds.asked_us.unwrap_or(now_us);
        Ok((bounds.last <= self.position).then_some(asked_us))
    }

    /// Decodes off the async threads; a position past `until` belongs to the next run.
    async fn decode(mut self, mut messages: Vec<Message>) -> Result<(Self, Input)> {
        let until = self.until.unwrap_or(Sequence(u64::MAX));
        messages.truncate(messages.partition_point(|message| message.sequence <= until));
        let mut last = messages
            .last()
            .map_or(self.position, |message| message.sequence);
        let mut holes = 0;
        for hole in self.source.holes() {
            last = last.max((*hole.end()).min(until));
            holes += hole.end().0 - hole.start().0 + 1;
        }
        if last == self.position {
            let caught_up_us = self.ask().await?;
            return Ok((self, Input::Idle { caught_up_us }));
        }
        self.position = last;
        let known_end = self.source.known_end();
        tokio::task::spawn_blocking(move || {
            let decoded = self.decoder.decode(&messages)?;
            Ok((
                self,
                Input::Batch(Box::new(Batch {
                    decoded,
                    messages,
                    last,
                    holes,
                    known_end,
                })),
            ))
        })
        .await
        .map_err(|_| Error::TaskEnded { task: "decoder" })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use async_trait::async_trait;
    use std::ops::RangeInclusive;
    use tollgate_connectors::{Anchor, Bounds, event::DecodeOptions};
    use tollgate_sql::schema;

    /// A source at its end, whose clock shows a time of its own.
    #[derive(Debug)]
    struct Quiet(Option<i64>);

    #[async_trait]
    impl Source for Quiet {
        fn shard(&self) -> &str {
            "quiet"
        }

        async fn bounds(&mut self) -> tollgate_connectors::Result<Bounds> {
            Ok(Bounds {
                first: Sequence(1),
                last: Sequence(7),
                asked_us: self.0,
            })
        }

        async fn anchor(&mut self, _: Sequence) -> tollgate_connectors::Result<Option<Anchor>> {
            Ok(None)
        }

        async fn seek(
            &mut self,
            _: Sequence,
            _: Option<(Sequence, Anchor)>,
        ) -> tollgate_connectors::Result<()> {
            Ok(())
        }

        async fn read(&mut self, _: ReadLimit) -> tollgate_connectors::Result<Vec<Message>> {
            Ok(Vec::new())
        }

        fn holes(&mut self) -> Vec<RangeInclusive<Sequence>> {
            Vec::new()
        }
    }

    fn reader(source: Quiet, clock: &Arc<ManualClock>, position: u64) -> Reader {
        let options = DecodeOptions::default();
        Reader {
            source: Box::new(source),
            decoder: Decoder::new(schema::usage_events(&[]), "quiet", options).unwrap(),
            position: Sequence(position),
            until: None,
            batch_bytes: 1,
            clock: Arc::clone(clock) as Arc<dyn Clock>,
            asked_us: 0,
            end_asked_us: 0,
        }
    }

    #[tokio::test]
    async fn idleness_goes_by_the_clock_of_the_source() {
        let clock = Arc::new(ManualClock::at(5_000_000));
        let asked = |source, position| {
            let mut reader = reader(source, &clock, position);
            async move { reader.ask().await.unwrap() }
        };
        assert_eq!(asked(Quiet(Some(1_234)), 7).await, Some(1_234));
        assert_eq!(asked(Quiet(None), 7).await, Some(5_000_000));
        // There is more to read, whatever the time is.
        assert_eq!(asked(Quiet(Some(1_234)), 6).await, None);
    }

    #[tokio::test]
    async fn a_source_is_asked_once_a_second_by_our_clock() {
        let clock = Arc::new(ManualClock::at(5_000_000));
        // Its clock is a day ahead, which must not keep us from asking again.
        let mut reader = reader(Quiet(Some(86_400_000_000)), &clock, 7);
        assert!(reader.ask().await.unwrap().is_some());
        clock.advance(ASK_EVERY_US - 1);
        assert!(reader.ask().await.unwrap().is_none());
        clock.advance(1);
        assert!(reader.ask().await.unwrap().is_some());
    }
}
