//! Wraps a [`Source`] or a [`Table`] and lets it fail, from a seed: before the effect, after it, or by
//! never answering again, which is what a crash looks like from outside.

use crate::{
    Anchor, Attempt, Bounds, CommitId, LoggedCommit, Message, ReadLimit, Sequence, Snapshot,
    Source, Staged, Table, Version,
    error::{Error, Result},
};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;

/// What happens to the next calls, shared by everything that one process has open.
#[derive(Debug)]
pub struct Faults {
    state: AtomicU64,
    /// One in this many calls fails; 0 means none does.
    one_in: u64,
    /// How many calls until the process stands still.
    calls_left: AtomicU64,
    halted: watch::Sender<bool>,
    released: watch::Sender<bool>,
}

/// What to do with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    FailBefore,
    FailAfter,
    HaltBefore,
    HaltAfter,
}

impl Faults {
    /// Faults from a seed: one in `one_in` calls fails, and the process halts at call `halt_at`.
    pub fn new(seed: u64, one_in: u64, halt_at: u64) -> Arc<Self> {
        Arc::new(Faults {
            state: AtomicU64::new(seed),
            one_in,
            calls_left: AtomicU64::new(halt_at),
            halted: watch::Sender::new(false),
            released: watch::Sender::new(false),
        })
    }

    /// No faults at all.
    pub fn none() -> Arc<Self> {
        Self::new(0, 0, u64::MAX)
    }

    /// Returns once a call stands still.
    pub async fn halted(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.halted.subscribe().wait_for(|halted| *halted).await;
    }

    /// Lets what stands still go on, as SIGCONT does.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    fn fate(&self) -> Fate {
        let random = self.random();
        let last = self
            .calls_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(left.saturating_sub(1))
            });
        if last == Ok(1) {
            return if random & 1 == 0 {
                Fate::HaltBefore
            } else {
                Fate::HaltAfter
            };
        }
        match self.one_in {
            0 => Fate::Pass,
            one_in if !random.is_multiple_of(one_in) => Fate::Pass,
            _ if (random >> 32) & 1 == 0 => Fate::FailBefore,
            _ => Fate::FailAfter,
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    fn random(&self) -> u64 {
        let step = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .state
            .fetch_add(step, Ordering::SeqCst)
            .wrapping_add(step);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    async fn halt(&self) {
        self.halted.send_replace(true);
        let _ = self
            .released
            .subscribe()
            .wait_for(|released| *released)
            .await;
    }

    /// Runs one call under its fate.
    async fn run<T>(
        &self,
        call: impl Future<Output = Result<T>>,
        fault: impl Fn() -> Error,
    ) -> Result<T> {
        match self.fate() {
            Fate::Pass => call.await,
            Fate::FailBefore => Err(fault()),
            Fate::FailAfter => call.await.and_then(|_| Err(fault())),
            Fate::HaltBefore => {
                self.halt().await;
                call.await
            }
            Fate::HaltAfter => {
                let answer = call.await;
                self.halt().await;
                answer
            }
        }
    }
}

/// A table that fails.
#[derive(Debug)]
pub struct FaultyTable<T> {
    inner: T,
    faults: Arc<Faults>,
}

impl<T> FaultyTable<T> {
    /// Wraps a table.
    pub fn new(inner: T, faults: Arc<Faults>) -> Self {
        FaultyTable { inner, faults }
    }
}

fn table_fault(table: &str) -> Error {
    Error::Table {
        table: table.to_owned(),
        doing: "a simulated call",
        source: "injected".into(),
    }
}

#[async_trait]
impl<T: Table> Table for FaultyTable<T> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn id(&self) -> &str {
        self.inner.id()
    }

    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn version(&self) -> Version {
        self.inner.version()
    }

    fn mark(&self, app_id: &str) -> Option<i64> {
        self.inner.mark(app_id)
    }

    fn marks(&self) -> std::collections::BTreeMap<String, i64> {
        self.inner.marks()
    }

    async fn refresh(&mut self) -> Result<()> {
        let name = self.inner.name().to_owned();
        self.faults
            .run(self.inner.refresh(), || table_fault(&name))
            .await
    }

    fn provider(&self) -> Result<Arc<dyn Snapshot>> {
        self.inner.provider()
    }

    async fn stage(&self, commit_id: &CommitId, batches: &[RecordBatch]) -> Result<Staged> {
        let fault = || table_fault(self.inner.name());
        self.faults
            .run(self.inner.stage(commit_id, batches), fault)
            .await
    }

    async fn commit(&mut self, attempt: &Attempt, staged: &Staged) -> Result<Version> {
        let name = self.inner.name().to_owned();
        self.faults
            .run(self.inner.commit(attempt, staged), || table_fault(&name))
            .await
    }

    async fn log_since(&self) -> Result<Vec<LoggedCommit>> {
        self.faults
            .run(self.inner.log_since(), || table_fault(self.inner.name()))
            .await
    }

    async fn logged(&self, version: Version) -> Result<Option<LoggedCommit>> {
        let fault = || table_fault(self.inner.name());
        self.faults.run(self.inner.logged(version), fault).await
    }
}

/// A source that fails.
#[derive(Debug)]
pub struct FaultySource<S> {
    inner: S,
    faults: Arc<Faults>,
}

impl<S> FaultySource<S> {
    /// Wraps a source.
    pub fn new(inner: S, faults: Arc<Faults>) -> Self {
        FaultySource { inner, faults }
    }
}

fn source_fault(shard: &str) -> Error {
    Error::Source {
        shard: shard.to_owned(),
        doing: "a simulated call",
        source: "injected".into(),
    }
}

#[async_trait]
impl<S: Source> Source for FaultySource<S> {
    fn shard(&self) -> &str {
        self.inner.shard()
    }

    fn origin(&self) -> Sequence {
        self.inner.origin()
    }

    fn stores_in_order(&self) -> bool {
        self.inner.stores_in_order()
    }

    async fn bounds(&mut self) -> Result<Bounds> {
        let shard = self.inner.shard().to_owned();
        self.faults
            .run(self.inner.bounds(), || source_fault(&shard))
            .await
    }

    async fn anchor(&mut self, sequence: Sequence) -> Result<Option<Anchor>> {
        let shard = self.inner.shard().to_owned();
        self.faults
            .run(self.inner.anchor(sequence), || source_fault(&shard))
            .await
    }

    async fn seek(&mut self, position: Sequence, read: Option<(Sequence, Anchor)>) -> Result<()> {
        let shard = self.inner.shard().to_owned();
        self.faults
            .run(self.inner.seek(position, read), || source_fault(&shard))
            .await
    }

    /// Reads at most a random part of the limit, so that batches split anywhere.
    async fn read(&mut self, limit: ReadLimit) -> Result<Vec<Message>> {
        let shard = self.inner.shard().to_owned();
        let part = usize::try_from(self.faults.random() % 1_000).unwrap_or(0);
        let limit = ReadLimit {
            bytes: (limit.bytes / 1_000 * part).max(1),
            ..limit
        };
        self.faults
            .run(self.inner.read(limit), || source_fault(&shard))
            .await
    }

    fn holes(&mut self) -> Vec<RangeInclusive<Sequence>> {
        self.inner.holes()
    }
}
