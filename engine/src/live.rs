//! Live values: what a running shard has processed, flushed or not, as a view that SQL can ask.
//!
//! It owns the handle that asks. It does not own what the shard answers, which is `shard/questions.rs`, nor what a view
//! makes of it.

use crate::{
    catalog::Catalog,
    error::{Error, Result},
    metering::Metering,
    shard::{Question, Questions},
    view::{Remembered, ShardCut, View},
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Asks a running shard for its live values. Clones ask the same shard.
#[derive(Debug, Clone)]
pub struct Live {
    catalog: Arc<Catalog>,
    questions: mpsc::Sender<Question>,
    remembered: Arc<Remembered>,
}

/// A handle to ask a shard with, and what the shard needs to answer. `catalog` must be what the shard
/// runs with.
pub fn live(catalog: Arc<Catalog>) -> (Live, Questions) {
    let (sender, questions) = Questions::new();
    let live = Live {
        remembered: Arc::new(Remembered::new(catalog.meters.len())),
        catalog,
        questions: sender,
    };
    (live, questions)
}

/// Whether a shard meters by these very definitions.
fn is_of(catalog: &Catalog, metering: &Metering) -> bool {
    let lanes = metering.lanes();
    let pairs = || lanes.iter().zip(&catalog.meters);
    lanes.len() == catalog.meters.len()
        && pairs().all(|(lane, meter)| Arc::ptr_eq(lane.meter(), meter))
}

impl Live {
    /// Asks the same shard once it runs with other definitions.
    pub fn with(&self, catalog: Arc<Catalog>) -> Self {
        Live {
            remembered: Arc::new(Remembered::new(catalog.meters.len())),
            catalog,
            questions: self.questions.clone(),
        }
    }

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
    /// [`Error::NotRunning`] when the shard has ended; [`Error::Redefined`] when it runs with other definitions.
    pub async fn view(&self) -> Result<View> {
        let (question, answer) = Question::about(self.remembered.take_asked());
        if self.questions.send(question).await.is_err() {
            return Err(Error::NotRunning);
        }
        let moment = answer.await.map_err(|_| Error::NotRunning)?;
        if !is_of(&self.catalog, &moment.metering) {
            return Err(Error::Redefined);
        }
        let moment = moment.with_flush_put_back();
        let cut = ShardCut {
            shard: moment.shard,
            is_over: false,
            position: moment.position,
            metering: moment.metering,
        };
        let (catalog, remembered) = (Arc::clone(&self.catalog), Arc::clone(&self.remembered));
        View::live(catalog, cut, moment.pinned, moment.rows, remembered)
    }
}
