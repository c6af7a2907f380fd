//! Event keys seen within the horizon: which events are new, repeats, or conflicts.
//!
//! ```text
//!  judge ─▶ recent keys (table in memory)
//!             │ full: sorted and written by a thread, still answering meanwhile
//!             ▼
//!           runs (local files): filter says "not here" ─▶ next run
//!                               filter says "maybe"    ─▶ one page is read: here, or not
//! ```
//!
//! A key is the 128-bit hash of (source, event id), never of the time. First in sequence wins. The
//! horizon is measured by the watermark, so that the answer depends on the log alone: an id comes back as new
//! exactly when the watermark is more than the horizon past the time at which the stream stored it. The
//! watermark never goes back, and a server whose clock jumps ahead for a while does not move it where events
//! say their own time: so nothing is forgotten that a later message could still repeat.
//! A filter never decides that a key was seen: only the stored key does.
//!
//! The files are a cache without a name: `events` holds the truth, a start rebuilds the index from
//! it, and the system takes the files back when the process ends, however it ends.
//!
//! **What it costs.** Everything stays below [`Options::memory_bytes`]: half of it is for the recent
//! keys, the other half for what must be known of older ones, 1.3 bytes a key (filter 1.15, page index
//! 0.13). Beyond that the oldest runs lose their filters: the answers stay exact, each new key then
//! costs a page read per such run. The page indexes stay whatever the bound is. On disk a key takes 32 bytes, up to twice that while runs are
//! merged. 1,000 events/s over 35 days are 3.02 billion keys: 97 GB of disk, and 3.9 GB of memory
//! for full speed.

mod limits;
mod run;

use crate::error::{Error, Result};
use hashbrown::{HashTable, hash_table::Entry};
use limits::Limits;
use run::{Run, Seen};
use std::{io, path::PathBuf, sync::Arc, thread::JoinHandle};
use tollgate_sql::window::{DAY_US, EventTime};

/// How far back keys are remembered, and in how much memory.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long an id is remembered, in microseconds from when it was stored until the watermark passes.
    pub horizon_us: i64,
    /// The most that all of the index may take, in bytes.
    pub memory_bytes: usize,
    /// Where older keys are kept. Made when it is first needed.
    pub directory: PathBuf,
}

/// What a key means to the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen within the horizon: count it.
    New,
    /// The same event again: ignore it.
    Repeat,
    /// The same id with other content: keep it, do not count it.
    Conflict,
}

/// The keys of a shard within the horizon.
#[derive(Debug)]
pub struct Dedupe {
    horizon_us: i64,
    limits: Limits,
    directory: PathBuf,
    recent: HashTable<Seen>,
    sealing: Option<Sealing>,
    merging: Option<Merging>,
    /// Oldest first.
    runs: Vec<Arc<Run>>,
    pruned_at: EventTime,
}

/// Recent keys on their way to a run. They answer until it is written.
#[derive(Debug)]
struct Sealing {
    keys: Arc<HashTable<Seen>>,
    written: JoinHandle<io::Result<Run>>,
}

/// Runs of one level on their way to one of the next.
#[derive(Debug)]
struct Merging {
    inputs: Vec<Arc<Run>>,
    written: JoinHandle<io::Result<Run>>,
}

impl Dedupe {
    /// An empty index.
    pub fn new(options: Options) -> Self {
        Dedupe::with_limits(
            options.horizon_us,
            Limits::of(options.memory_bytes),
            options.directory,
        )
    }

    fn with_limits(horizon_us: i64, limits: Limits, directory: PathBuf) -> Self {
        Dedupe {
            horizon_us,
            limits,
            directory,
            recent: HashTable::new(),
            sealing: None,
            merging: None,
            runs: Vec::new(),
            pruned_at: EventTime::MIN,
        }
    }

    /// True when a time in microseconds lies before the horizon as of `watermark`: an id that came then is
    /// forgotten, and of an event that happened then an earlier copy might be.
    pub fn is_older(&self, time_us: i64, watermark: EventTime) -> bool {
        watermark.0.saturating_sub(time_us) > self.horizon_us
    }

    /// Judges one event and remembers it when it is new. Call in rising sequence, with the watermark before
    /// its message.
    ///
    /// `content` is the event's content hash: it tells a repeat from a conflict.
    ///
    /// # Errors
    /// [`Error::File`] when older keys cannot be read back; then nothing is known of this one.
    pub fn judge(
        &mut self,
        key: u128,
        content: i64,
        ingest_us: i64,
        watermark: EventTime,
    ) -> Result<Verdict> {
        let seen = match self.find(key, watermark)? {
            Some(seen) if seen.content == content => return Ok(Verdict::Repeat),
            Some(_) => return Ok(Verdict::Conflict),
            None => Seen {
                key,
                content,
                ingest_us,
            },
        };
        let entry = self
            .recent
            .entry(bucket(key), |seen| seen.key == key, |seen| bucket(seen.key));
        match entry {
            Entry::Vacant(vacant) => {
                vacant.insert(seen);
            }
            Entry::Occupied(mut expired) => *expired.get_mut() = seen,
        }
        Ok(Verdict::New)
    }

    /// Forgets a key whose event turned out not to count. Call before the next [`Dedupe::settle`].
    pub fn forget(&mut self, key: u128) {
        if let Ok(seen) = self.recent.find_entry(bucket(key), |seen| seen.key == key) {
            seen.remove();
        }
    }

    /// Keeps memory within its bound: call it after each batch, with the watermark after it.
    /// Changes no verdict. Waits only when recent keys come faster than the disk takes them.
    ///
    /// # Errors
    /// [`Error::File`] when keys cannot be written, as on a full disk.
    pub fn settle(&mut self, watermark: EventTime) -> Result<()> {
        self.drop_expired(watermark);
        if self
            .merging
            .as_ref()
            .is_some_and(|m| m.written.is_finished())
        {
            self.finish_merging()?;
        }
        if self
            .sealing
            .as_ref()
            .is_some_and(|s| s.written.is_finished())
        {
            self.finish_sealing()?;
        }
        if self.recent.len() >= self.limits.recent_keys {
            self.finish_sealing()?;
            self.seal()?;
        }
        self.merge(watermark);
        Ok(())
    }

    /// How many keys are remembered.
    pub fn len(&self) -> usize {
        let sealing = self.sealing.as_ref().map_or(0, |s| s.keys.len());
        let runs: usize = self.runs.iter().map(|run| run.len()).sum();
        self.recent.len() + sealing + runs
    }

    /// True when no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is remembered of a key within the horizon before `watermark`.
    ///
    /// An expired entry proves nothing, and a younger one may be elsewhere: at most one is within
    /// the horizon, since none is stored while another is.
    fn find(&self, key: u128, watermark: EventTime) -> Result<Option<Seen>> {
        let within = |seen: &Seen| !self.is_older(seen.ingest_us, watermark);
        let sealing = self.sealing.as_ref().map(|sealing| &*sealing.keys);
        for table in std::iter::once(&self.recent).chain(sealing) {
            let found = table.find(bucket(key), |seen| seen.key == key);
            if let Some(seen) = found.copied().filter(within) {
                return Ok(Some(seen));
            }
        }
        for run in self.runs.iter().rev() {
            let found = run
                .find(key)
                .map_err(self.failed("reading event keys back"))?;
            if let Some(seen) = found.filter(within) {
                return Ok(Some(seen));
            }
        }
        Ok(None)
    }

    /// Drops keys that no later message can meet within the horizon; in memory at most once per day
    /// of the watermark, since `find` looks at the age itself.
    fn drop_expired(&mut self, watermark: EventTime) {
        if watermark.0.saturating_sub(self.pruned_at.0) < DAY_US {
            return;
        }
        self.pruned_at = watermark;
        let oldest_us = watermark.0.saturating_sub(self.horizon_us);
        self.recent.retain(|seen| seen.ingest_us >= oldest_us);
        self.runs.retain(|run| run.newest_us() >= oldest_us);
    }

    /// Hands the recent keys to a thread that sorts and writes them.
    fn seal(&mut self) -> Result<()> {
        std::fs::create_dir_all(&self.directory)
            .map_err(self.failed("making the folder of event keys"))?;
        let empty = HashTable::with_capacity(self.limits.recent_keys);
        let keys = Arc::new(std::mem::replace(&mut self.recent, empty));
        let (table, directory) = (Arc::clone(&keys), self.directory.clone());
        let written = std::thread::spawn(move || Run::of_table(&table, &directory));
        self.sealing = Some(Sealing { keys, written });
        Ok(())
    }

    fn finish_sealing(&mut self) -> Result<()> {
        let Some(sealing) = self.sealing.take() else {
            return Ok(());
        };
        let run = self.join(sealing.written)?;
        self.runs.push(Arc::new(run));
        self.trim_filters();
        Ok(())
    }

    /// Begins to merge the small runs when there are enough: fewer files to ask about a key.
    fn merge(&mut self, watermark: EventTime) {
        let small = || self.runs.iter().filter(|run| !run.is_merged());
        if self.merging.is_some() || small().count() < self.limits.merged_runs {
            return;
        }
        let inputs: Vec<Arc<Run>> = small().map(Arc::clone).collect();
        let (merged, directory) = (inputs.clone(), self.directory.clone());
        let oldest_us = watermark.0.saturating_sub(self.horizon_us);
        let written = std::thread::spawn(move || Run::merged(&merged, oldest_us, &directory));
        self.merging = Some(Merging { inputs, written });
    }

    fn finish_merging(&mut self) -> Result<()> {
        let Some(Merging { inputs, written }) = self.merging.take() else {
            return Ok(());
        };
        let run = Arc::new(self.join(written)?);
        let is_input = |run: &Arc<Run>| inputs.iter().any(|input| input.is_same(run));
        let at = self.runs.iter().position(is_input).unwrap_or(0);
        self.runs.retain(|run| !is_input(run));
        self.runs.insert(at, run);
        self.trim_filters();
        Ok(())
    }

    /// Gives up the filters of the oldest runs while all of them together take more than their share.
    fn trim_filters(&mut self) {
        let mut bytes: usize = self.runs.iter().map(|run| run.memory_bytes()).sum();
        for run in &mut self.runs {
            if bytes <= self.limits.filter_bytes {
                return;
            }
            let Some(plain) = run.without_filter() else {
                continue;
            };
            bytes -= run.memory_bytes() - plain.memory_bytes();
            *run = Arc::new(plain);
            tracing::warn!(
                keys = run.len(),
                "filter of the oldest event keys was given up, raise dedupe.memory"
            );
        }
    }

    fn join(&self, written: JoinHandle<io::Result<Run>>) -> Result<Run> {
        written
            .join()
            .map_err(|_| Error::Contradiction {
                what: "an event key is 16 bytes",
            })?
            .map_err(self.failed("writing event keys"))
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
        let file = self.directory.display().to_string();
        move |source| Error::File {
            file,
            doing,
            source,
        }
    }
}

/// The low half of a key; it is a hash already, so it is not hashed again.
#[expect(
    clippy::cast_possible_truncation,
    reason = "any 64 bits of a hash are a hash"
)]
fn bucket(key: u128) -> u64 {
    key as u64
}

#[cfg(test)]
mod tests;
