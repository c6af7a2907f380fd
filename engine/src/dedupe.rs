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
//! The files are a cache: `events` holds the truth. What is in them stays for the next start, which takes them only
//! where `kept` proves that they belong to the lake, catches up with what the lake has since, and reads everything
//! from `events` otherwise. The folder may be deleted at any time.
//!
//! **What it costs.** Everything stays below [`Options::memory_bytes`]: half of it is for the recent
//! keys, the other half for what must be known of older ones, 1.3 bytes a key (filter 1.15, page index
//! 0.13). Beyond that the oldest runs lose their filters: the answers stay exact, each new key then
//! costs a page read per such run. The page indexes stay whatever the bound is. On disk a key takes 34 bytes, up to twice that while runs are
//! merged. 1,000 events/s over 35 days are 3.02 billion keys: 102 GB of disk, and 3.9 GB of memory
//! for full speed.

pub(crate) mod kept;
mod limits;
pub(crate) mod load;
mod run;
pub(crate) mod steps;

pub use kept::{Proof, Whose};

use crate::{
    commit::Position,
    error::{Error, Result},
};
use hashbrown::{HashTable, hash_table::Entry};
use kept::{Keeper, Manifest};
use limits::{Limits, SIZE_CLASSES};
use run::{Run, Seen};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};
use tollgate_connectors::Sequence;
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
    /// False once a merge failed: the runs answer as they are.
    merges: bool,
    /// Oldest first.
    runs: Vec<Arc<Run>>,
    pruned_at: EventTime,
    /// Keys from before this time, in microseconds, may be gone.
    forgotten_us: i64,
    /// When the first key was stored that this shard ever had, in microseconds, as far as is known.
    first_us: i64,
    /// Keeps the runs for the next start, unless they go with the process.
    keeper: Option<Keeper>,
}

/// Recent keys on their way to a run. They answer until it is written.
#[derive(Debug)]
struct Sealing {
    keys: Arc<HashTable<Seen>>,
    written: JoinHandle<io::Result<Run>>,
    /// The sequence that all keys so far go up to, where that is known.
    until: Option<Sequence>,
    /// True when memory has room for the keys, should they find none on disk.
    is_early: bool,
}

/// Runs of one level on their way to one of the next.
#[derive(Debug)]
struct Merging {
    inputs: Vec<Arc<Run>>,
    written: JoinHandle<io::Result<Run>>,
}

impl Dedupe {
    /// An empty index whose files go with it.
    pub fn new(options: Options) -> Self {
        let limits = Limits::of(options.memory_bytes);
        Dedupe::with_limits(options.horizon_us, limits, options.directory, None)
    }

    /// An empty index whose files stay for the next start.
    pub fn keeping(options: Options, whose: Whose) -> Self {
        let limits = Limits::of(options.memory_bytes);
        let keeper = Keeper::new(&options.directory, whose);
        let directory = keeper.folder().to_owned();
        Dedupe::with_limits(options.horizon_us, limits, directory, Some(keeper))
    }

    fn with_limits(
        horizon_us: i64,
        limits: Limits,
        directory: PathBuf,
        keeper: Option<Keeper>,
    ) -> Self {
        Dedupe {
            horizon_us,
            limits,
            directory,
            recent: HashTable::new(),
            sealing: None,
            merging: None,
            merges: true,
            runs: Vec::new(),
            pruned_at: EventTime::MIN,
            forgotten_us: i64::MIN,
            first_us: i64::MAX,
            keeper,
        }
    }

    /// True when a time in microseconds lies before the horizon as of `watermark`: an id that came then is forgotten.
    fn is_older(&self, time_us: i64, watermark: EventTime) -> bool {
        watermark.0.saturating_sub(time_us) > self.horizon_us
    }

    /// True when an earlier copy of an event that happened at a time in microseconds may be forgotten as of `watermark`:
    /// the event happened before the horizon, and the shard had an event then. A shard that has only begun, as with a
    /// replay of old events, has forgotten none.
    pub fn may_have_forgotten(&self, time_us: i64, watermark: EventTime) -> bool {
        self.is_older(time_us, watermark) && self.is_older(self.first_us, watermark)
    }

    /// Judges one event and remembers it when it is new. Call in rising sequence, with the watermark before
    /// its message.
    ///
    /// `content` is the event's content hash: it tells a repeat from a conflict.
    ///
    /// # Errors
    /// [`Error::File`] when older keys cannot be read back, [`Error::DamagedIds`] when they are not what was written;
    /// then nothing is known of this one, and the next start reads all keys from the lake.
    pub fn judge(
        &mut self,
        key: u128,
        content: i64,
        ingest_us: i64,
        watermark: EventTime,
    ) -> Result<Verdict> {
        let found = self.find(key, watermark);
        if found.is_err() {
            self.discard();
        }
        let seen = match found? {
            Some(seen) if seen.content == content => return Ok(Verdict::Repeat),
            Some(_) => return Ok(Verdict::Conflict),
            None => Seen {
                key,
                content,
                ingest_us,
            },
        };
        self.first_us = self.first_us.min(ingest_us);
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

    /// Keeps memory within its bound: call it after each batch, with the watermark and the sequence after it, where
    /// keys come in rising sequence. Changes no verdict. Waits only when recent keys come faster than the disk takes them.
    ///
    /// # Errors
    /// [`Error::File`] when keys cannot be written, as on a full disk.
    pub fn settle(&mut self, watermark: EventTime, until: Option<Sequence>) -> Result<()> {
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
            self.make_folder()?;
            self.seal(until, false);
        }
        self.merge(watermark);
        Ok(())
    }

    /// Takes what another process kept, before anything else is remembered.
    ///
    /// # Errors
    /// A file is missing, or is not what was written. Then the index is as it was.
    pub(crate) fn adopt(&mut self, manifest: &Manifest) -> io::Result<()> {
        let mut runs = Vec::with_capacity(manifest.runs.len());
        let mut bytes = 0;
        // The youngest first: if there is not room for all filters, theirs are asked for most.
        for label in manifest.runs.iter().rev() {
            let has_filter = bytes + label.memory_bytes() <= self.limits.filter_bytes;
            let run = Run::open(label, &self.directory, has_filter)?;
            bytes += run.memory_bytes();
            runs.push(Arc::new(run));
        }
        runs.reverse();
        if let Some(keeper) = &mut self.keeper {
            keeper.adopt(&runs);
        }
        self.runs = runs;
        self.begins_at(manifest.forgotten_us);
        Ok(())
    }

    /// Removes what a process that was killed left in the folder, apart from what [`Dedupe::adopt`] takes.
    pub(crate) fn sweep(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.sweep();
        }
    }

    /// Makes the next start read all keys from the lake.
    pub(crate) fn discard(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.discard();
        }
    }

    /// Makes sure that its folder can be written: what was kept there can then be removed, should it be damaged.
    pub(crate) fn check_folder(&self) -> io::Result<()> {
        tempfile::NamedTempFile::new_in(&self.directory)?.close()
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.directory
    }

    /// Notes that keys from before a time, in microseconds, were never remembered.
    pub(crate) fn begins_at(&mut self, time_us: i64) {
        self.forgotten_us = self.forgotten_us.max(time_us);
        if time_us > i64::MIN {
            self.first_us = i64::MIN;
        }
    }

    /// Begins to write all keys, which go up to a sequence, for the next start. Where nothing can be written, the next
    /// start reads them from the lake.
    ///
    /// # Errors
    /// [`Error::File`] when keys that there was no room for in memory could not be written.
    pub fn keep(&mut self, until: Sequence) -> Result<()> {
        if self.keeper.is_none() {
            return Ok(());
        }
        self.finish_sealing()?;
        if self.recent.is_empty() {
            self.note(until);
            return Ok(());
        }
        match self.make_folder() {
            Ok(()) => self.seal(Some(until), true),
            Err(error) => self.give_up(&error),
        }
        Ok(())
    }

    /// Notes that the lake has everything up to a position, as `proof` shows: what is on disk up to there is for the
    /// next start.
    pub fn committed(&mut self, position: &Position, proof: Proof) {
        let oldest_us = self.oldest_us(position.watermark);
        if let Some(keeper) = &mut self.keeper {
            keeper.committed(position, oldest_us, proof);
        }
        self.write_manifest();
    }

    /// Keeps all keys, which go up to a sequence, for the next start, and waits until they are written. Where that
    /// fails, the next start reads them from the lake.
    pub fn finish(&mut self, until: Sequence) {
        let kept = self
            .keep(until)
            .and_then(|()| self.finish_sealing())
            .and_then(|()| self.finish_merging());
        if let Err(error) = kept {
            return self.give_up(&error);
        }
        self.note(until);
        self.write_manifest();
    }

    /// Notes that the runs have every key up to a sequence.
    fn note(&mut self, until: Sequence) {
        if let Some(keeper) = &mut self.keeper {
            keeper.note(until, self.forgotten_us, &self.runs);
        }
    }

    fn write_manifest(&mut self) {
        let Some(keeper) = &mut self.keeper else {
            return;
        };
        if let Err(error) = keeper.write().map_err(self.failed("keeping event keys")) {
            self.give_up(&error);
        }
    }

    /// Goes on without keeping anything for the next start.
    fn give_up(&mut self, error: &Error) {
        let error = crate::error::chain(error);
        tracing::warn!(
            error,
            "event keys could not be kept, the next start reads them from the lake"
        );
        self.discard();
        self.keeper = None;
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
        let oldest_us = self.oldest_us(watermark);
        self.forgotten_us = self.forgotten_us.max(oldest_us);
        self.recent.retain(|seen| seen.ingest_us >= oldest_us);
        self.runs.retain(|run| run.newest_us() >= oldest_us);
    }

    /// The time before which no key is needed, in microseconds.
    fn oldest_us(&self, watermark: EventTime) -> i64 {
        watermark.0.saturating_sub(self.horizon_us)
    }

    fn make_folder(&self) -> Result<()> {
        std::fs::create_dir_all(&self.directory)
            .map_err(self.failed("making the folder of event keys"))
    }

    /// Hands the recent keys to a thread that sorts and writes them.
    fn seal(&mut self, until: Option<Sequence>, is_early: bool) {
        let empty = HashTable::with_capacity(self.recent.len());
        let keys = Arc::new(std::mem::replace(&mut self.recent, empty));
        let (table, directory) = (Arc::clone(&keys), self.directory.clone());
        let written =
            std::thread::spawn(move || Run::of_keys(table.iter().copied().collect(), &directory));
        self.sealing = Some(Sealing {
            keys,
            written,
            until,
            is_early,
        });
    }

    fn finish_sealing(&mut self) -> Result<()> {
        let Some(sealing) = self.sealing.take() else {
            return Ok(());
        };
        let run = match self.join(sealing.written) {
            Err(error) if sealing.is_early => {
                self.give_up(&error);
                // They were not written because memory was full, so they may go back.
                sealing.keys.iter().for_each(|seen| self.put(*seen));
                return Ok(());
            }
            written => written?,
        };
        self.add(run);
        if let Some(until) = sealing.until {
            self.note(until);
            self.write_manifest();
        }
        Ok(())
    }

    fn add(&mut self, run: Run) {
        self.runs.push(Arc::new(run));
        self.trim_filters();
    }

    /// Puts an entry among the recent ones, unless a younger one of its key is there: of two, one at most is within the horizon.
    fn put(&mut self, seen: Seen) {
        let entry = self.recent.entry(
            bucket(seen.key),
            |other| other.key == seen.key,
            |other| bucket(other.key),
        );
        match entry {
            Entry::Vacant(vacant) => {
                vacant.insert(seen);
            }
            Entry::Occupied(mut other) => {
                let younger = (*other.get()).max(seen);
                *other.get_mut() = younger;
            }
        }
    }

    /// Begins to merge runs of one size when there are enough: fewer files to ask about a key.
    fn merge(&mut self, watermark: EventTime) {
        if self.merging.is_some() || !self.merges {
            return;
        }
        let limits = self.limits;
        let of_class = |class| {
            let is_of = move |run: &&Arc<Run>| limits.size_class(run.len()) == Some(class);
            let runs = self.runs.iter().filter(is_of).take(limits.merged_runs);
            runs.map(Arc::clone).collect::<Vec<_>>()
        };
        let mut inputs = (0..SIZE_CLASSES).map(of_class);
        let Some(inputs) = inputs.find(|runs| runs.len() >= limits.merged_runs) else {
            return;
        };
        let (merged, directory) = (inputs.clone(), self.directory.clone());
        let oldest_us = self.oldest_us(watermark);
        self.forgotten_us = self.forgotten_us.max(oldest_us);
        let written = std::thread::spawn(move || Run::merged(&merged, oldest_us, &directory));
        self.merging = Some(Merging { inputs, written });
    }

    fn finish_merging(&mut self) -> Result<()> {
        let Some(Merging { inputs, written }) = self.merging.take() else {
            return Ok(());
        };
        let run = match self.join(written) {
            Ok(run) => Arc::new(run),
            Err(error @ Error::DamagedIds { .. }) => {
                self.discard();
                return Err(error);
            }
            Err(error) => {
                // A full disk, or a folder that is gone: nothing needs the merge, the runs answer as they are.
                self.merges = false;
                self.give_up(&error);
                return Ok(());
            }
        };
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
        move |source| match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Error::DamagedIds { file, source }
            }
            _ => Error::File {
                file,
                doing,
                source,
            },
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
pub(crate) mod tests;
