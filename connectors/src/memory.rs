//! A [`Source`] and a [`Table`] in memory, for simulation: real contracts, no disk, no clock.
//!
//! What several handles share survives a handle that is dropped in the middle of a call, as a stream
//! and a lake survive a process.

use crate::{
    Anchor, Attempt, Bounds, CommitId, LoggedCommit, Message, ReadLimit, Sequence, Snapshot,
    Source, Staged, StagedFile, Table, Version,
    error::{Error, Result},
    lake::{EncodeError, with_all},
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::{MemTable, TableType},
    error::Result as Planned,
    logical_expr::Expr,
    physical_plan::ExecutionPlan,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A stream whose messages are in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryStream {
    messages: Arc<Mutex<BTreeMap<u64, Message>>>,
}

impl MemoryStream {
    /// Appends a message under its own sequence.
    pub fn append(&self, message: Message) {
        locked(&self.messages).insert(message.sequence.0, message);
    }

    /// A reader of this stream, as the shard `shard`.
    pub fn source(&self, shard: &str) -> MemorySource {
        MemorySource {
            stream: self.clone(),
            shard: shard.to_owned(),
            position: 0,
        }
    }
}

/// Reads a [`MemoryStream`].
#[derive(Debug)]
pub struct MemorySource {
    stream: MemoryStream,
    shard: String,
    position: u64,
}

#[async_trait]
impl Source for MemorySource {
    fn shard(&self) -> &str {
        &self.shard
    }

    fn stores_in_order(&self) -> bool {
        true
    }

    async fn bounds(&mut self) -> Result<Bounds> {
        let messages = locked(&self.stream.messages);
        let last = messages.last_key_value().map_or(0, |(last, _)| *last);
        let first = messages
            .first_key_value()
            .map_or(last + 1, |(first, _)| *first);
        Ok(Bounds {
            first: Sequence(first),
            last: Sequence(last),
            asked_us: None,
        })
    }

    async fn anchor(&mut self, sequence: Sequence) -> Result<Option<Anchor>> {
        Ok(locked(&self.stream.messages)
            .get(&sequence.0)
            .map(Anchor::of))
    }

    async fn seek(&mut self, position: Sequence, _: Option<(Sequence, Anchor)>) -> Result<()> {
        self.position = position.0;
        Ok(())
    }

    async fn read(&mut self, limit: ReadLimit) -> Result<Vec<Message>> {
        // A reader that never waits must still let others run.
        tokio::task::yield_now().await;
        let messages = locked(&self.stream.messages);
        let mut read: Vec<Message> = Vec::new();
        let mut bytes = 0;
        for (sequence, message) in messages.range(self.position + 1..) {
            if bytes >= limit.bytes {
                break;
            }
            let expected = self.position + 1;
            if *sequence != expected {
                if read.is_empty() {
                    let shard = self.shard.clone();
                    let (expected, got) = (Sequence(expected), message.sequence);
                    return Err(Error::Gap {
                        shard,
                        expected,
                        got,
                    });
                }
                break;
            }
            bytes += message.bytes();
            self.position = *sequence;
            read.push(message.clone());
        }
        Ok(read)
    }

    fn holes(&mut self) -> Vec<RangeInclusive<Sequence>> {
        Vec::new()
    }
}

/// A table's log and files, shared by every handle on it.
#[derive(Debug, Default)]
struct Shared {
    commits: Vec<(LoggedCommit, Vec<String>)>,
    files: BTreeMap<String, Vec<RecordBatch>>,
}

/// A table in memory; every clone of it is another owner's handle, with a snapshot of its own.
#[derive(Debug, Clone)]
pub struct MemoryTable {
    name: String,
    schema: SchemaRef,
    shared: Arc<Mutex<Shared>>,
    version: usize,
}

impl MemoryTable {
    /// An empty table.
    pub fn new(name: &str, schema: SchemaRef) -> Self {
        MemoryTable {
            name: name.to_owned(),
            schema,
            shared: Arc::default(),
            version: 0,
        }
    }

    /// All rows that are visible in the newest version.
    pub fn rows(&self) -> Vec<RecordBatch> {
        let shared = locked(&self.shared);
        let files = shared.visible(shared.commits.len());
        files.into_values().flatten().collect()
    }

    fn failed(&self, doing: &'static str, source: datafusion::error::DataFusionError) -> Error {
        Error::Table {
            table: self.name.clone(),
            doing,
            source: Box::new(source),
        }
    }
}

impl Shared {
    /// The files of a version with their rows.
    fn visible(&self, version: usize) -> BTreeMap<String, Vec<RecordBatch>> {
        let paths = self.commits[..version].iter().flat_map(|(_, paths)| paths);
        paths
            .filter_map(|path| self.files.get_key_value(path))
            .map(|(path, rows)| (path.clone(), rows.clone()))
            .collect()
    }
}

/// What a [`MemoryTable`] held at one version.
#[derive(Debug)]
struct MemorySnapshot {
    files: BTreeMap<String, Vec<RecordBatch>>,
    rows: MemTable,
}

impl MemorySnapshot {
    fn new(schema: &SchemaRef, files: BTreeMap<String, Vec<RecordBatch>>) -> Planned<Self> {
        let rows = files.values().flatten().cloned().collect();
        Ok(MemorySnapshot {
            rows: MemTable::try_new(Arc::clone(schema), vec![rows])?,
            files,
        })
    }
}

impl Snapshot for MemorySnapshot {
    fn files(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }

    fn of_files(&self, names: &BTreeSet<&str>) -> Arc<dyn TableProvider> {
        let mut files = self.files.clone();
        files.retain(|path, _| names.contains(path.as_str()));
        let snapshot = MemorySnapshot::new(&self.rows.schema(), files);
        Arc::new(snapshot.expect("its rows are of one schema, which were a table before"))
    }
}

#[async_trait]
impl TableProvider for MemorySnapshot {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn table_type(&self) -> TableType {
        self.rows.table_type()
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Planned<Arc<dyn ExecutionPlan>> {
        self.rows.scan(session, projection, filters, limit).await
    }
}

#[async_trait]
impl Table for MemoryTable {
    fn name(&self) -> &str {
        &self.name
    }

    /// Its name, as if all tables of one name were copies of one.
    fn id(&self) -> &str {
        &self.name
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn version(&self) -> Version {
        Version::try_from(self.version).unwrap_or(Version::MAX)
    }

    fn marks(&self) -> BTreeMap<String, i64> {
        let shared = locked(&self.shared);
        let commits = shared.commits[..self.version].iter();
        let marks = commits.flat_map(|(commit, _)| commit.marks.clone());
        marks.collect()
    }

    fn mark(&self, app_id: &str) -> Option<i64> {
        let shared = locked(&self.shared);
        let commits = shared.commits[..self.version].iter().rev();
        commits
            .filter_map(|(commit, _)| commit.marks.get(app_id))
            .next()
            .copied()
    }

    async fn refresh(&mut self) -> Result<()> {
        self.version = locked(&self.shared).commits.len();
        Ok(())
    }

    fn provider(&self) -> Result<Arc<dyn Snapshot>> {
        let files = locked(&self.shared).visible(self.version);
        let snapshot = MemorySnapshot::new(&self.schema, files);
        Ok(Arc::new(
            snapshot.map_err(|error| self.failed("reading rows", error))?,
        ))
    }

    async fn stage(&self, commit_id: &CommitId, batches: &[RecordBatch]) -> Result<Staged> {
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows == 0 {
            return Ok(Staged::default());
        }
        let path = format!("part-{}", commit_id.0);
        let batches = batches.iter().filter(|batch| batch.num_rows() > 0);
        let batches = batches.map(|batch| with_all(&self.schema, batch));
        let batches = batches.collect::<Result<_, EncodeError>>();
        let batches = batches.map_err(|error| Error::Data {
            table: self.name.clone(),
            problem: error.to_string(),
        })?;
        locked(&self.shared).files.insert(path.clone(), batches);
        let file = StagedFile {
            path,
            bytes: 0,
            partition: BTreeMap::new(),
            modified_ms: 0,
            statistics: None,
            structs: None,
        };
        Ok(Staged {
            files: vec![file],
            rows: rows as u64,
            bytes: 0,
        })
    }

    async fn commit(&mut self, attempt: &Attempt, staged: &Staged) -> Result<Version> {
        let mut shared = locked(&self.shared);
        // Over the whole log: the handle may have moved on while the answer was lost.
        let ours = |commit: &LoggedCommit| commit.commit_id.as_ref() == Some(&attempt.commit_id);
        if let Some(at) = shared.commits.iter().position(|(commit, _)| ours(commit)) {
            self.version = self.version.max(at + 1);
            return Ok(shared.commits[at].0.version);
        }
        for (commit, _) in &shared.commits[self.version..] {
            if attempt
                .marks
                .keys()
                .any(|mark| commit.marks.contains_key(mark))
            {
                return Err(Error::Fenced {
                    table: self.name.clone(),
                    version: commit.version,
                });
            }
        }
        let version = shared.commits.len() + 1;
        let commit = LoggedCommit {
            version: Version::try_from(version).unwrap_or(Version::MAX),
            commit_id: Some(attempt.commit_id.clone()),
            marks: attempt.marks.clone(),
            info: attempt.info.clone(),
        };
        let paths = staged.files.iter().map(|file| file.path.clone()).collect();
        let made = commit.version;
        shared.commits.push((commit, paths));
        self.version = version;
        Ok(made)
    }

    async fn log_since(&self) -> Result<Vec<LoggedCommit>> {
        let shared = locked(&self.shared);
        Ok(shared.commits[self.version..]
            .iter()
            .map(|(commit, _)| commit.clone())
            .collect())
    }

    async fn logged(&self, version: Version) -> Result<Option<LoggedCommit>> {
        let shared = locked(&self.shared);
        let mut commits = shared.commits.iter().map(|(commit, _)| commit);
        Ok(commits.find(|commit| commit.version == version).cloned())
    }
}

/// A panic elsewhere leaves this state whole: every change of it is one assignment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
