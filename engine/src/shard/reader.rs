//! Reads and decodes ahead of the shard.

use crate::error::{Error, Result};
use tokio::sync::{mpsc, watch};
use tollgate_connectors::{
    Message, ReadLimit, Sequence, Source,
    event::{Decoded, Decoder},
};

/// What the reader hands over.
#[derive(Debug)]
pub(super) enum Input {
    Batch(Box<Batch>),
    /// Nothing came for a while: the shard is caught up.
    Idle,
    /// The source's end, as it was at the start, is reached.
    End,
}

#[derive(Debug)]
pub(super) struct Batch {
    pub(super) decoded: Decoded,
    pub(super) messages: Vec<Message>,
    /// The last sequence that is read or explained.
    pub(super) last: Sequence,
    pub(super) holes: u64,
    pub(super) bytes: usize,
}

/// Reads and decodes ahead of the shard.
pub(super) struct Reader {
    pub(super) source: Box<dyn Source>,
    pub(super) decoder: Decoder,
    pub(super) position: Sequence,
    pub(super) until: Option<Sequence>,
    pub(super) batch_bytes: usize,
}

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
                let _ = sender.send(Input::End).await;
                return Ok(());
            }
            let messages = tokio::select! {
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
            return Ok((self, Input::Idle));
        }
        self.position = last;
        let bytes = messages.iter().map(|message| message.payload.len()).sum();
        tokio::task::spawn_blocking(move || {
            let decoded = self.decoder.decode(&messages)?;
            Ok((
                self,
                Input::Batch(Box::new(Batch {
                    decoded,
                    messages,
                    last,
                    holes,
                    bytes,
                })),
            ))
        })
        .await
        .map_err(|_| Error::Stage("decoder"))?
    }
}
