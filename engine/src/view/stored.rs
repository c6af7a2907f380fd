//! What live views remember of a meter's panes.
//!
//! The files of a table never change, so what was merged of some of them holds for as long as the table has them:
//! a running shard that is asked again and again has each file read and merged once. Of what it is asked for, only
//! windows that still move are merged anew.

use super::{inside::Inside, keys::Keys, one_batch, wanted::Wanted};
use crate::{
    error::{Result, query_error},
    metering::micros,
};
use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use datafusion::catalog::TableProvider;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tollgate_connectors::Snapshot;
use tollgate_sql::meter::Meter;

/// The merged panes of a meter, as far as they count in some time or ever: one row for each base window and group,
/// of sessions for each fragment.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored {
    parts: Vec<Part>,
}

/// Panes of windows that no other part has.
#[derive(Debug, Clone)]
struct Part {
    panes: RecordBatch,
    starts: Arc<BTreeSet<i64>>,
}

impl Part {
    fn new(panes: RecordBatch) -> Self {
        Part {
            starts: Arc::new(starts_of(&panes).collect()),
            panes,
        }
    }

    /// What is not in some windows, and what is.
    fn apart(&self, moving: &BTreeSet<i64>) -> Result<(Self, Option<RecordBatch>)> {
        if self.starts.is_disjoint(moving) {
            return Ok((self.clone(), None));
        }
        let starts = micros(&self.panes, "window_start");
        let of = |wanted: bool| {
            let mask: BooleanArray = starts
                .iter()
                .map(|start| Some(moving.contains(start) == wanted))
                .collect();
            filter_record_batch(&self.panes, &mask).map_err(query_error("selecting windows"))
        };
        Ok((Part::new(of(false)?), Some(of(true)?)))
    }
}

impl Stored {
    /// More parts than this become one.
    const PARTS_MAX: usize = 64;

    /// The states of all panes.
    pub(super) fn states(&self, meter: &Meter) -> Result<Vec<RecordBatch>> {
        let parts = self.parts.iter();
        parts
            .map(|part| Ok(meter.states_of(&part.panes)?))
            .collect()
    }

    /// What some groups have of these.
    fn only(&self, keys: &Keys) -> Result<Self> {
        let parts = self.parts.iter().map(|part| keys.select(&part.panes));
        let parts = parts.collect::<Result<Vec<_>>>()?.into_iter();
        let parts = parts.filter(|panes| panes.num_rows() > 0);
        Ok(Stored {
            parts: parts.map(Part::new).collect(),
        })
    }

    /// The rows of a meter with plain windows, in no particular order, when these and other states are merged.
    pub(super) async fn rows_with(
        &self,
        meter: &Meter,
        others: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>> {
        let (resting, states) = self.apart(meter, others)?;
        let resting = resting.parts.into_iter().map(|part| part.panes);
        let moving = meter.rows_in_any_order(&states).await?;
        Ok(resting.chain([moving]).collect())
    }

    /// These and the states of more panes.
    async fn and(&self, meter: &Meter, more: Vec<RecordBatch>) -> Result<Self> {
        if more.iter().all(|states| states.num_rows() == 0) {
            return Ok(self.clone());
        }
        let (mut stored, states) = self.apart(meter, more)?;
        let merged = meter.finish(&states).await?;
        stored.parts.push(Part::new(merged));
        if stored.parts.len() > Self::PARTS_MAX {
            let panes = stored.parts.iter().map(|part| part.panes.clone());
            let panes: Vec<RecordBatch> = panes.collect();
            stored.parts = vec![Part::new(one_batch(meter.pane_schema(), &panes)?)];
        }
        Ok(stored)
    }

    /// What no other state belongs to, and the states of everything else with the others.
    fn apart(&self, meter: &Meter, others: Vec<RecordBatch>) -> Result<(Self, Vec<RecordBatch>)> {
        let mut states = others;
        if meter.has_sessions() {
            // Whatever is added may join fragments of any window.
            states.extend(self.states(meter)?);
            return Ok((Stored::default(), states));
        }
        let moving: BTreeSet<i64> = states.iter().flat_map(starts_of).collect();
        let mut resting = Stored::default();
        for part in &self.parts {
            let (rest, moved) = part.apart(&moving)?;
            if rest.panes.num_rows() > 0 {
                resting.parts.push(rest);
            }
            if let Some(moved) = moved {
                states.push(meter.states_of(&moved)?);
            }
        }
        Ok((resting, states))
    }

    fn bytes(&self) -> usize {
        let of_part =
            |part: &Part| part.panes.get_array_memory_size() + part.starts.len() * size_of::<i64>();
        self.parts.iter().map(of_part).sum()
    }
}

/// The starts of a batch's windows. Rows of one window mostly stand together, and name it once.
fn starts_of(batch: &RecordBatch) -> impl Iterator<Item = i64> {
    let runs = micros(batch, "window_start").chunk_by(|a, b| a == b);
    runs.map(|run| run[0])
}

/// What the live views of one shard have merged before.
#[derive(Debug)]
pub(crate) struct Remembered {
    /// The last asked for first.
    memories: Mutex<VecDeque<Memory>>,
    /// Which meters were asked for since [`Remembered::take_asked`].
    asked: Vec<AtomicBool>,
}

/// What was merged of some files of a meter's table, for one time and some groups that were asked for.
#[derive(Debug, Clone)]
struct Memory {
    meter: usize,
    inside: Option<Inside>,
    keys: Option<Keys>,
    files: Arc<BTreeSet<String>>,
    stored: Arc<Stored>,
}

/// What is remembered of a snapshot, and what is not.
#[derive(Debug)]
pub(super) struct Recalled {
    memory: Memory,
    /// What is remembered is of all groups.
    is_of_all: bool,
    /// The rows of files that were not there the last time.
    pub(super) unread: Option<Arc<dyn TableProvider>>,
}

impl Remembered {
    /// What all that is remembered may take, in bytes.
    const BYTES_MAX: usize = 256 << 20;
    /// How many times of meters are remembered at most.
    const MEMORIES_MAX: usize = 256;

    /// Nothing yet.
    pub(crate) fn new(meters: usize) -> Self {
        Remembered {
            memories: Mutex::default(),
            asked: (0..meters).map(|_| AtomicBool::default()).collect(),
        }
    }

    /// The meters that were asked for since the last call, by their places.
    pub(crate) fn take_asked(&self) -> Vec<usize> {
        let asked = self.asked.iter().enumerate();
        let asked = asked.filter(|(_, asked)| asked.swap(false, Ordering::Relaxed));
        asked.map(|(meter, _)| meter).collect()
    }

    /// What was merged of a snapshot's panes that count in some time.
    pub(super) fn recall(
        &self,
        meter: usize,
        snapshot: &dyn Snapshot,
        wanted: Wanted<'_>,
    ) -> Recalled {
        if wanted.keys.is_none() {
            // Of some groups there is little to merge.
            self.asked[meter].store(true, Ordering::Relaxed);
        }
        let files: BTreeSet<String> = snapshot.files().into_iter().map(str::to_owned).collect();
        let memories = self.memories();
        // Without a file that was merged, such as one that maintenance has replaced, all begins anew.
        let known = |wanted: Wanted<'_>| {
            let mut memories = memories.iter();
            memories.find(|memory| memory.is_of(meter, wanted) && memory.files.is_subset(&files))
        };
        let of_these = known(wanted);
        let known = of_these.or_else(|| known(Wanted::all(wanted.inside)));
        let is_of_all = wanted.keys.is_some() && of_these.is_none();
        let mut memory = known.cloned().unwrap_or_else(|| Memory {
            meter,
            inside: None,
            keys: None,
            files: Arc::default(),
            stored: Arc::default(),
        });
        memory.inside = wanted.inside.copied();
        memory.keys = wanted.keys.cloned();
        drop(memories);
        let new = files.difference(&memory.files).map(String::as_str);
        let new: BTreeSet<&str> = new.collect();
        let unread = (!new.is_empty()).then(|| snapshot.of_files(&new));
        memory.files = Arc::new(files);
        Recalled {
            memory,
            is_of_all,
            unread,
        }
    }

    /// All of a snapshot, when the states of what was unread are given; remembers it.
    pub(super) async fn complete(
        &self,
        recalled: Recalled,
        meter: &Meter,
        unread: Vec<RecordBatch>,
    ) -> Result<Arc<Stored>> {
        let Recalled {
            mut memory,
            is_of_all,
            ..
        } = recalled;
        if let (true, Some(keys)) = (is_of_all, &memory.keys) {
            memory.stored = Arc::new(memory.stored.only(keys)?);
        }
        if !unread.is_empty() {
            memory.stored = Arc::new(memory.stored.and(meter, unread).await?);
        }
        let stored = Arc::clone(&memory.stored);
        self.keep(memory);
        Ok(stored)
    }

    /// Puts it first. What was asked for longest ago is forgotten when all takes too much, and what takes too
    /// much by itself is not remembered.
    fn keep(&self, memory: Memory) {
        let mut memories = self.memories();
        let of_time = memories
            .iter()
            .position(|m| m.is_of(memory.meter, memory.wanted()));
        let newest = match of_time.and_then(|at| memories.remove(at)) {
            // A caller asks an older view than others do.
            Some(known) if known.files.is_superset(&memory.files) => known,
            _ => memory,
        };
        if newest.bytes() > Self::BYTES_MAX {
            return;
        }
        memories.push_front(newest);
        memories.truncate(Self::MEMORIES_MAX);
        let mut bytes = 0;
        memories.retain(|memory| {
            bytes += memory.bytes();
            bytes <= Self::BYTES_MAX
        });
    }

    /// A panic elsewhere leaves what is remembered whole: every change of it is one step.
    fn memories(&self) -> MutexGuard<'_, VecDeque<Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn bytes(&self) -> usize {
        let names = self
            .files
            .iter()
            .map(|name| name.len() + size_of::<String>());
        names.sum::<usize>() + self.stored.bytes()
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            inside: self.inside.as_ref(),
            keys: self.keys.as_ref(),
        }
    }

    fn is_of(&self, meter: usize, wanted: Wanted<'_>) -> bool {
        self.meter == meter && self.wanted() == wanted
    }
}

#[cfg(test)]
mod tests;
