//! Live values: what a running shard has processed, flushed or not, as a view that SQL can ask.
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
use crate::{
    catalog::Catalog,
    commit::Position,
    error::{Error, Result},
    metering::Metering,
    view::{Remembered, ShardCut, View},
};
use arrow::array::RecordBatch;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Asks a running shard for its live values. Clones ask the same shard.
#[derive(Debug, Clone)]
pub struct Live {
    catalog: Arc<Catalog>,
    questions: mpsc::Sender<Question>,
    remembered: Arc<Remembered>,
}

/// The shard's side of [`Live`].
#[derive(Debug)]
pub struct Questions(mpsc::Receiver<Question>);

/// Somebody waits for where the shard is.
#[derive(Debug)]
pub(super) struct Question {
    answer: oneshot::Sender<Moment>,
    /// The meters that the answers before were about, by their places.
    pub(super) meters: Vec<usize>,
}

/// A shard between two batches.
#[derive(Debug)]
pub(super) struct Moment {
    pub(super) shard: String,
    pub(super) position: Position,
    pub(super) metering: Metering,
    /// Rows that wait for the next flush.
    pub(super) rows: Vec<RecordBatch>,
    /// What is neither in those nor in the tables.
    pub(super) flush: Option<Arc<Flush>>,
    pub(super) pinned: Pinned,
}

/// How many may wait for an answer; whoever comes then waits to ask.
const QUESTIONS: usize = 16;

/// A handle to ask a shard with, and what the shard needs to answer. `catalog` must be what the shard
/// runs with.
pub fn live(catalog: Arc<Catalog>) -> (Live, Questions) {
    let (sender, receiver) = mpsc::channel(QUESTIONS);
    let live = Live {
        remembered: Arc::new(Remembered::new(catalog.meters.len())),
        catalog,
        questions: sender,
    };
    (live, Questions(receiver))
}

impl Live {
    /// The shard as it is between two of its batches: everything up to the position that
    /// [`View::cuts`] names, each event once, and nothing after it. `is_final` says what this process
    /// has closed; after a crash, a window that only the clock had closed may be open again.
    ///
    /// The view is of this shard alone, whatever else is in the lake, and has no `invoices` and
    /// `line_items`. The shard copies references and goes on: merging happens in the caller's task.
    ///
    /// Waits while the shard starts, and until it is done with the batch at hand.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when the shard has ended.
    pub async fn view(&self) -> Result<View> {
        let (sender, answer) = oneshot::channel();
        let question = Question {
            answer: sender,
            meters: self.remembered.take_asked(),
        };
        if self.questions.send(question).await.is_err() {
            return Err(Error::NotRunning);
        }
        let moment = answer.await.map_err(|_| Error::NotRunning)?;
        moment.view(Arc::clone(&self.catalog), Arc::clone(&self.remembered))
    }
}

impl Questions {
    /// Nobody asks.
    pub fn none() -> Self {
        Questions(mpsc::channel(1).1)
    }

    /// The next question; `None` when nobody will ask any more.
    pub(super) async fn next(&mut self) -> Option<Question> {
        self.0.recv().await
    }

    /// The next question, if one waits.
    pub(super) fn try_next(&mut self) -> Option<Question> {
        self.0.try_recv().ok()
    }
}

impl Question {
    /// Whoever asked may have gone away.
    pub(super) fn answer(self, moment: Moment) {
        let _ = self.answer.send(moment);
    }
}

impl Moment {
    fn view(mut self, catalog: Arc<Catalog>, remembered: Arc<Remembered>) -> Result<View> {
        let mut rows = Vec::new();
        if let Some(flush) = &self.flush {
            self.metering.put_back(&flush.pending);
            rows.extend_from_slice(&flush.buffer.batches);
        }
        rows.append(&mut self.rows);
        let cut = ShardCut {
            shard: self.shard,
            is_over: false,
            position: self.position,
            metering: self.metering,
        };
        View::live(catalog, cut, self.pinned, rows, remembered)
    }
}
