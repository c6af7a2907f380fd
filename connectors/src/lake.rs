//! Delta tables: stage, commit once, find a commit again.

use crate::error::Result;
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

/// A version of a Delta table.
pub type Version = i64;

/// Names one attempt to commit, for ever: it is in commitInfo and in the names of the files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommitId(pub String);

/// One commit that is to be made exactly once.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Its identity. The same attempt committed again changes nothing.
    pub commit_id: CommitId,
    /// `txn` marks to set, app id to value. A concurrent commit that set any of the same app ids
    /// after our snapshot makes this one fail.
    pub marks: BTreeMap<String, i64>,
    /// Written to commitInfo for people and audits, beside the commit id.
    pub info: BTreeMap<String, serde_json::Value>,
}

/// Data files that are uploaded but not yet part of the table.
#[derive(Debug, Clone, Default)]
pub struct Staged {
    /// Add actions, one a file.
    pub files: Vec<StagedFile>,
    /// Rows in all files.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

/// One uploaded data file.
#[derive(Debug, Clone)]
pub struct StagedFile {
    /// Path relative to the table.
    pub path: String,
}

/// A commit read back from the log.
#[derive(Debug, Clone)]
pub struct LoggedCommit {
    /// The version it made.
    pub version: Version,
    /// Our commit id, if it was one of ours.
    pub commit_id: Option<CommitId>,
    /// Its `txn` marks.
    pub marks: BTreeMap<String, i64>,
}

/// One table of the lake.
///
/// * `commit` is atomic: a reader sees all of its files and marks, or none.
/// * A commit whose marks were moved by someone else after our snapshot is refused with
///   [`Error::Fenced`](crate::Error::Fenced) or [`Error::Table`](crate::Error::Table), never applied.
/// * Any error of `commit` is ambiguous until [`Table::log_since`] was searched for the commit id.
#[async_trait]
pub trait Table: Debug + Send + Sync {
    /// The table's name: its path below the lake, such as `meters/tokens`.
    fn name(&self) -> &str;
    /// The Arrow schema, partition columns included.
    fn schema(&self) -> SchemaRef;
    /// The version of the loaded snapshot.
    fn version(&self) -> Version;
    /// The value of a `txn` mark in the loaded snapshot.
    fn mark(&self, app_id: &str) -> Option<i64>;
    /// Loads the newest snapshot. The caller must check its own marks on it before it commits again.
    async fn refresh(&mut self) -> Result<()>;
    /// The loaded snapshot for SQL.
    fn provider(&self) -> Result<Arc<dyn TableProvider>>;
    /// Encodes and uploads rows as new files that nobody sees yet.
    async fn stage(&self, commit_id: &CommitId, batches: &[RecordBatch]) -> Result<Staged>;
    /// Makes staged files and marks visible together; returns the version.
    async fn commit(&mut self, attempt: &Attempt, staged: &Staged) -> Result<Version>;
    /// Commits after the loaded snapshot, oldest first.
    async fn log_since(&self) -> Result<Vec<LoggedCommit>>;
}
