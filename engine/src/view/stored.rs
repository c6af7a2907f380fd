//! What live views remember of a meter's panes.
//!
//! The files of a table never change, so what was merged of some of them holds for as long as the table has them:
//! a running shard that is asked again and again has each file read and merged once. Of what it is asked for, only
//! windows that still move are merged anew.

use super::inside::Inside;
use crate::{
    error::{Result, query_error},
    metering::micros,
    view::one_batch,
};
use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use datafusion::catalog::TableProvider;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{Mutex, MutexGuard};
use tollgate_connectors::Snapshot;
use tollgate_sql::meter::Meter;

/// The merged panes of a meter, as far as they count in some time or ever.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// One row for each window and group; of sessions, for each fragment.
    pub(super) states: RecordBatch,
    /// What the states are by themselves; nothing of sessions and windows that hop.
    rows: RecordBatch,
    starts: BTreeSet<i64>,
}

impl Stored {
    fn nothing(meter: &Meter) -> Self {
        Stored {
            states: RecordBatch::new_empty(Arc::clone(meter.state_schema())),
            rows: RecordBatch::new_empty(Arc::clone(meter.pane_schema())),
            starts: BTreeSet::new(),
        }
    }

    /// These and the states of more panes.
    async fn and(&self, meter: &Meter, mut more: Vec<RecordBatch>) -> Result<Self> {
        if meter.has_sessions() {
            // Whatever is added may join fragments of any window.
            more.push(self.states.clone());
            let states = meter.reduce(&more).await?;
            return Ok(Stored {
                states,
                ..self.clone()
            });
        }
        let (resting, moving) = self.apart(meter, &more)?;
        more.push(moving);
        let states = meter.reduce(&more).await?;
        let rows = match meter.has_plain_windows() {
            true => {
                meter
                    .rows_in_any_order(std::slice::from_ref(&states))
                    .await?
            }
            false => resting.rows.slice(0, 0),
        };
        let mut starts = resting.starts;
        starts.extend(starts_of(&states));
        Ok(Stored {
            states: one_batch(meter.state_schema(), &[resting.states, states])?,
            rows: one_batch(meter.pane_schema(), &[resting.rows, rows])?,
            starts,
        })
    }

    /// The rows of a meter with plain windows, in no particular order, when these and other states are merged.
    pub(super) async fn rows_with(
        &self,
        meter: &Meter,
        mut others: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        let (resting, moving) = self.apart(meter, &others)?;
        others.push(moving);
        Ok(vec![resting.rows, meter.rows_in_any_order(&others).await?])
    }

    /// What no other state belongs to, and the states of windows that one does.
    fn apart(&self, meter: &Meter, others: &[RecordBatch]) -> Result<(Self, RecordBatch)> {
        let moving: BTreeSet<i64> = others.iter().flat_map(starts_of).collect();
        if self.starts.is_disjoint(&moving) {
            let none = RecordBatch::new_empty(Arc::clone(meter.state_schema()));
            return Ok((self.clone(), none));
        }
        let moves = |start: i64| moving.contains(&start);
        let resting = Stored {
            states: of_windows(&self.states, |start| !moves(start))?,
            rows: of_windows(&self.rows, |start| !moves(start))?,
            starts: self.starts.difference(&moving).copied().collect(),
        };
        Ok((resting, of_windows(&self.states, moves)?))
    }

    fn bytes(&self) -> usize {
        self.states.get_array_memory_size() + self.rows.get_array_memory_size()
    }
}

/// The starts of a batch's windows. Rows of one window mostly stand together, and name it once.
fn starts_of(batch: &RecordBatch) -> impl Iterator<Item = i64> {
    let runs = micros(batch, "window_start").chunk_by(|a, b| a == b);
    runs.map(|run| run[0])
}

fn of_windows(rows: &RecordBatch, is_wanted: impl Fn(i64) -> bool) -> Result<RecordBatch> {
    let starts = micros(rows, "window_start").iter();
    let wanted: BooleanArray = starts.map(|start| Some(is_wanted(*start))).collect();
    filter_record_batch(rows, &wanted).map_err(query_error("selecting windows"))
}

/// What the live views of one shard have merged before, by meter.
#[derive(Debug)]
pub(crate) struct Remembered {
    meters: Vec<Mutex<VecDeque<Memory>>>,
    /// Which of them were asked for since [`Remembered::take_asked`].
    asked: Vec<AtomicBool>,
}

/// What was merged of some files, for one time that was asked for.
#[derive(Debug)]
struct Memory {
    inside: Option<Inside>,
    files: BTreeSet<String>,
    stored: Arc<Stored>,
}

/// One of them, while it is brought up to a snapshot.
#[derive(Debug)]
pub(super) struct Recalled<'a> {
    others: MutexGuard<'a, VecDeque<Memory>>,
    memory: Memory,
    unread: Option<Arc<dyn TableProvider>>,
}

impl Remembered {
    /// Panes of a meter that take more than this merged, in bytes, are read again each time.
    const BYTES_MAX: usize = 256 << 20;
    /// How many times, such as ever and this month, are remembered for one meter.
    const TIMES_MAX: usize = 4;

    /// Nothing yet.
    pub(crate) fn new(meters: usize) -> Self {
        Remembered {
            meters: (0..meters).map(|_| Mutex::default()).collect(),
            asked: (0..meters).map(|_| AtomicBool::default()).collect(),
        }
    }

    /// The meters that were asked for since the last call, by their places.
    pub(crate) fn take_asked(&self) -> Vec<usize> {
        let asked = self.asked.iter().enumerate();
        let asked = asked.filter(|(_, asked)| asked.swap(false, Ordering::Relaxed));
        asked.map(|(meter, _)| meter).collect()
    }

    /// What was merged of a snapshot's panes that count in some time. Whoever asks for the same meter
    /// meanwhile waits until this is dropped or complete.
    pub(super) async fn recall(
        &self,
        (index, meter): (usize, &Meter),
        snapshot: &dyn Snapshot,
        inside: Option<&Inside>,
    ) -> Recalled<'_> {
        self.asked[index].store(true, Ordering::Relaxed);
        let mut others = self.meters[index].lock().await;
        let files: BTreeSet<&str> = snapshot.files().into_iter().collect();
        let of_time = others.iter().position(|m| m.inside.as_ref() == inside);
        let memory = of_time.and_then(|at| others.remove(at));
        // Without a file that was merged, such as one that maintenance has replaced, all begins anew.
        let still_there = |m: &Memory| m.files.iter().all(|file| files.contains(file.as_str()));
        let mut memory = memory.filter(still_there).unwrap_or_else(|| Memory {
            inside: inside.copied(),
            files: BTreeSet::new(),
            stored: Arc::new(Stored::nothing(meter)),
        });
        let is_new = |file: &&str| !memory.files.contains(*file);
        let new: BTreeSet<&str> = files.into_iter().filter(is_new).collect();
        let unread = (!new.is_empty()).then(|| snapshot.of_files(&new));
        memory.files.extend(new.into_iter().map(str::to_owned));
        Recalled {
            others,
            memory,
            unread,
        }
    }
}

impl Recalled<'_> {
    /// The rows of files that were not there the last time.
    pub(super) fn unread(&self) -> Option<Arc<dyn TableProvider>> {
        self.unread.as_ref().map(Arc::clone)
    }

    /// All of the snapshot, once the states of what was unread are given; remembers it.
    pub(super) async fn with(
        mut self,
        meter: &Meter,
        unread: Vec<RecordBatch>,
    ) -> Result<Arc<Stored>> {
        if self.unread.is_some() {
            self.memory.stored = Arc::new(self.memory.stored.and(meter, unread).await?);
        }
        let stored = Arc::clone(&self.memory.stored);
        if stored.bytes() <= Remembered::BYTES_MAX {
            self.others.push_front(self.memory);
            self.others.truncate(Remembered::TIMES_MAX);
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests;
