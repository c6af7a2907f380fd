//! What a running shard is asked for: where it is, between two of its batches.
//!
//! ```text
//!                     pinned tables          + the flush in flight    + since then
//!  events             snapshot before it       its rows                 buffered rows
//!  a meter            panes before it          states taken out         open and late states
//! ```
//! A flush counts as in flight until the loop has collected its result, whether or not it is committed
//! by then: until that moment the tables are those from before it and its state is put back, from then on
//! they are those after it and its state is gone. So each event is there once, without a lock.

use super::{Pinned, writer::Flush};
use crate::{commit::Position, metering::Metering};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tollgate_connectors::event::EventBatch;

/// The questions that wait for a shard. [`crate::live::live`] makes them with the handle that asks.
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

/// A caller waits for where the shard is.
#[derive(Debug)]
pub(crate) struct Question {
    answer: oneshot::Sender<Moment>,
    /// The meters that the answers before were about, by their places.
    pub(super) meters: Vec<usize>,
}

/// A shard between two batches.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) shard: String,
    pub(crate) position: Position,
    pub(crate) metering: Metering,
    /// Rows that wait for the next flush.
    pub(crate) rows: Vec<EventBatch>,
    /// What is neither in those nor in the tables.
    pub(super) flush: Option<Arc<Flush>>,
    pub(crate) pinned: Pinned,
}

impl Questions {
    /// As many as this may wait; a caller that comes then waits to ask.
    const WAITING_MAX: usize = 16;

    /// Where to ask, and what the shard answers from.
    pub(crate) fn new() -> (mpsc::Sender<Question>, Self) {
        let (sender, receiver) = mpsc::channel(Self::WAITING_MAX);
        (sender, Questions(receiver))
    }

    /// Questions of which none will ever come.
    pub fn none() -> Self {
        Questions(mpsc::channel(1).1)
    }

    /// The next question; `None` when every handle is gone.
    pub(super) async fn next(&mut self) -> Option<Question> {
        self.0.recv().await
    }

    /// The next question, if one waits.
    pub(super) fn try_next(&mut self) -> Option<Question> {
        self.0.try_recv().ok()
    }
}

impl Question {
    /// A question about these meters, by their places, and where its answer comes.
    pub(crate) fn about(meters: Vec<usize>) -> (Self, oneshot::Receiver<Moment>) {
        let (answer, receiver) = oneshot::channel();
        (Question { answer, meters }, receiver)
    }

    /// The caller may have gone away, which changes nothing.
    pub(super) fn answer(self, moment: Moment) {
        let _ = self.answer.send(moment);
    }
}

impl Moment {
    /// The same with the flush in flight put back: its states into the metering, its rows before the others.
    pub(crate) fn with_flush_put_back(mut self) -> Self {
        if let Some(flush) = self.flush.take() {
            self.metering.put_back(&flush.pending);
            let mut rows = flush.buffer.batches.clone();
            rows.append(&mut self.rows);
            self.rows = rows;
        }
        self
    }
}
