//! Totals of all subjects that a job has made before: it goes through customers range by range, and each range asks for its own of them.
//!
//! What is known is kept by groups, so it is small beside the panes that it is made of.

use super::paid::Times;
use crate::error::Result;
use arrow::array::RecordBatch;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::OnceCell;
use tollgate_sql::meter::Span;

/// Totals that were made, the last one first.
#[derive(Debug)]
pub(super) struct KnownTotals {
    bytes_max: usize,
    totals: Mutex<VecDeque<Known>>,
}

#[derive(Debug)]
struct Known {
    meter: usize,
    times: Times,
    span: Span,
    /// Empty until the first that asks has made them; others wait for it.
    rows: Arc<OnceCell<RecordBatch>>,
}

impl KnownTotals {
    pub(super) fn new(bytes_max: usize) -> Self {
        KnownTotals {
            bytes_max,
            totals: Mutex::default(),
        }
    }

    /// The totals of a meter over some times within a span, made once.
    pub(super) async fn totals<F: Future<Output = Result<RecordBatch>>>(
        &self,
        meter: usize,
        (times, span): (&Times, &Span),
        make: impl FnOnce() -> F,
    ) -> Result<RecordBatch> {
        let rows = self.entry(meter, times, span);
        let rows = rows.get_or_try_init(make).await?.clone();
        self.forget();
        Ok(rows)
    }

    fn entry(&self, meter: usize, times: &Times, span: &Span) -> Arc<OnceCell<RecordBatch>> {
        let mut totals = self.lock();
        let is_of =
            |known: &Known| (known.meter, &known.times, &known.span) == (meter, times, span);
        let known = totals.iter().position(is_of);
        let known = known.and_then(|place| totals.remove(place));
        let known = known.unwrap_or_else(|| Known {
            meter,
            times: times.clone(),
            span: span.clone(),
            rows: Arc::default(),
        });
        let rows = Arc::clone(&known.rows);
        totals.push_front(known);
        rows
    }

    /// Forgets what was asked for longest ago where all takes too much; the last that was asked for stays.
    fn forget(&self) {
        let mut totals = self.lock();
        let mut bytes = 0;
        let mut place = 0;
        totals.retain(|known| {
            let own = known
                .rows
                .get()
                .map_or(0, RecordBatch::get_array_memory_size);
            bytes += own;
            place += 1;
            place == 1 || bytes <= self.bytes_max
        });
    }

    /// A panic elsewhere leaves what is known whole: every change of it is one step.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Known>> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
