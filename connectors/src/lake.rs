//! Delta tables: stage, commit once, find a commit again.
//!
//! ```text
//!  batches ─▶ encode (Parquet by day) ─▶ stage (upload) ─▶ commit (one file in the log) ─▶ provider
//!                                                            ▲ log: what others committed since
//! ```
//!
//! A commit is the creation of one file, `_delta_log/<version>.json`. The writer that creates it owns that
//! version; a loser reads what won and goes on to the next version, unless the winner set a mark that
//! the loser also sets. Marks are what fences an old owner out.

use crate::{
    error::{Error, Result},
    store::{Access, Store},
};
use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    path::Path,
    sync::Arc,
};

mod change;
mod delta;
mod encode;
mod load;
mod log;
pub mod maintenance;
mod provider;
mod schema;
mod stage;
mod statistics;
mod structs;

pub use delta::DeltaTable;
pub(crate) use encode::{EncodeError, with_all};

/// A version of a Delta table.
pub type Version = i64;

/// Names one attempt to commit, for ever: it is in commitInfo and in the names of the files.
///
/// Letters, digits, `.`, `_` and `-`; never used for two different contents.
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
    /// Written to commitInfo for people and audits, beside the commit id, each key as
    /// `tollgate.<key>`.
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

impl Staged {
    /// Adds files that are to become visible in the same commit.
    pub fn extend(&mut self, more: Staged) {
        self.files.extend(more.files);
        self.rows += more.rows;
        self.bytes += more.bytes;
    }
}

/// One uploaded data file: what its Add action says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedFile {
    /// Path relative to the table.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Partition values as text, by column; `None` is NULL.
    pub partition: BTreeMap<String, Option<String>>,
    /// When the store says it was written, in milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// Row count, bounds and null counts, as the JSON text of the log; `None` when a file of
    /// another writer has none.
    pub statistics: Option<Arc<str>>,
    /// The nullable structs of the table that the file has; `None` when it may have any, as files of other writers do.
    pub structs: Option<Arc<[String]>>,
}

/// A commit read back from the log.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedCommit {
    /// The version it made.
    pub version: Version,
    /// Our commit id, if it was one of ours.
    pub commit_id: Option<CommitId>,
    /// Its `txn` marks.
    pub marks: BTreeMap<String, i64>,
    /// What [`Attempt::info`] held.
    pub info: BTreeMap<String, serde_json::Value>,
}

/// One table of the lake.
///
/// * `commit` is atomic: a reader sees all of its files and marks, or none.
/// * A commit whose marks were moved by someone else after our snapshot is refused with
///   [`Error::Fenced`] or [`Error::Table`], never applied.
/// * Any error of `commit` is ambiguous until [`Table::log_since`] was searched for the commit id.
/// * `Ok` of `commit` is final: work that follows a landed commit never turns it into an error.
#[async_trait]
pub trait Table: Debug + Send + Sync {
    /// The table's name: its path below the lake, such as `meters/tokens`.
    fn name(&self) -> &str;
    /// What tells the table from every other one, but for copies of it.
    fn id(&self) -> &str;
    /// The Arrow schema, partition columns included.
    fn schema(&self) -> SchemaRef;
    /// The version of the loaded snapshot.
    fn version(&self) -> Version;
    /// The value of a `txn` mark in the loaded snapshot.
    fn mark(&self, app_id: &str) -> Option<i64>;
    /// All `txn` marks in the loaded snapshot.
    fn marks(&self) -> BTreeMap<String, i64>;
    /// Loads the newest snapshot. The caller must check its own marks on it before it commits again.
    async fn refresh(&mut self) -> Result<()>;
    /// The loaded snapshot for SQL.
    fn provider(&self) -> Result<Arc<dyn Snapshot>>;
    /// Encodes and uploads rows as new files that no reader sees yet. Nullable columns that a batch lacks are NULL.
    async fn stage(&self, commit_id: &CommitId, batches: &[RecordBatch]) -> Result<Staged>;
    /// Makes staged files and marks visible together; returns the version.
    async fn commit(&mut self, attempt: &Attempt, staged: &Staged) -> Result<Version>;
    /// Commits after the loaded snapshot, oldest first.
    async fn log_since(&self) -> Result<Vec<LoggedCommit>>;
    /// One commit; `None` if there is no such version, or no longer.
    async fn logged(&self, version: Version) -> Result<Option<LoggedCommit>>;
}

/// The rows of a table at one version, for SQL: those of some files, which never change.
pub trait Snapshot: TableProvider {
    /// The names of its files. A name stands for the same rows for ever, also in other versions.
    fn files(&self) -> Vec<&str>;
    /// The rows of those of its files that are named.
    fn of_files(&self, names: &BTreeSet<&str>) -> Arc<dyn TableProvider>;

    /// All rows, in one part or more, of which each has some of the nullable structs alone: reading a part costs what its
    /// rows have.
    fn parts(&self) -> Vec<Arc<dyn TableProvider>> {
        vec![self.of_files(&self.files().into_iter().collect())]
    }
}

/// An opened place that holds the tables.
#[derive(Debug, Clone)]
pub struct Lake {
    store: Store,
}

impl Lake {
    /// Opens a lake to write to it: creates a local folder and checks that the place is writable and
    /// can fence. `url` and `base` are those of [`Store::open`].
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub async fn open(url: &str, base: &Path) -> Result<Self> {
        let store = Store::open(url, base, Access::Write).await?;
        Ok(Lake { store })
    }

    /// The tables of a store that was opened apart.
    pub fn of(store: Store) -> Self {
        Lake { store }
    }

    /// Opens a lake only to read: creates nothing, so the place may be read-only.
    ///
    /// # Errors
    /// Those of [`Store::open`]; a local folder that does not exist is one.
    pub async fn open_to_read(url: &str, base: &Path) -> Result<Self> {
        let store = Store::open(url, base, Access::Read).await?;
        Ok(Lake { store })
    }

    /// Where it is, ending in `/`, without credentials.
    pub fn url(&self) -> &url::Url {
        self.store.url()
    }

    /// The store underneath, for exports and other files beside the tables.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Opens a table, or creates it: `partition_columns` is empty or one DATE column of `schema`.
    ///
    /// A table that is there must have the same columns, in any order; nullable columns that it lacks
    /// (also within structs) are added by a commit of their own. Each `tollgate.` key of
    /// `configuration` must be stored in it with the same value; other keys are only used to create.
    ///
    /// # Errors
    /// [`Error::OtherTable`] names the first difference; [`Error::Data`] a type that the lake does not
    /// keep; [`Error::Table`] a failure to read or write.
    pub async fn table(
        &self,
        name: &str,
        schema: &Schema,
        partition_columns: &[&str],
        configuration: &BTreeMap<String, String>,
    ) -> Result<DeltaTable> {
        check_name(name)?;
        let wanted = schema::Wanted::new(name, schema, partition_columns, configuration)?;
        DeltaTable::open_or_create(&self.store, name, &wanted).await
    }

    /// Gives a table that holds nothing other columns and another configuration, as if it were created now: one without a
    /// data file, whose marks `is_unused` takes. The marks stay. A process that has the table open as it was can commit to it
    /// no more. True when the table is as it is wanted; false when it holds something, and then nothing is changed.
    ///
    /// # Errors
    /// [`Error::Data`] a type that the lake does not keep; [`Error::Table`] a failure to read or write.
    pub async fn renew(
        &self,
        name: &str,
        schema: &Schema,
        configuration: &BTreeMap<String, String>,
        is_unused: impl Fn(&BTreeMap<String, i64>) -> bool,
    ) -> Result<bool> {
        check_name(name)?;
        let wanted = schema::Wanted::new(name, schema, &[], configuration)?;
        DeltaTable::renew(&self.store, name, &wanted, is_unused).await
    }

    /// Opens a table if it is there, to read it as [`Lake::table`] would make it, and changes nothing:
    /// columns that it lacks are NULL.
    ///
    /// # Errors
    /// Those of [`Lake::table`].
    pub async fn existing_as(
        &self,
        name: &str,
        schema: &Schema,
        partition_columns: &[&str],
        configuration: &BTreeMap<String, String>,
    ) -> Result<Option<DeltaTable>> {
        check_name(name)?;
        let wanted = schema::Wanted::new(name, schema, partition_columns, configuration)?;
        DeltaTable::open_as(&self.store, name, &wanted).await
    }

    /// Opens a table if it is there, as it is.
    ///
    /// # Errors
    /// [`Error::OtherTable`] if it needs Delta features that are not supported; [`Error::Table`] a
    /// failure to read.
    pub async fn existing(&self, name: &str) -> Result<Option<DeltaTable>> {
        check_name(name)?;
        DeltaTable::open(&self.store, name).await
    }
}

/// Table names become folders: parts of letters, digits, `_` and `-`, joined by `/`.
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let good = |part: &str| !part.is_empty() && part != "_delta_log" && part.chars().all(plain);
    match name.split('/').all(good) {
        true => Ok(()),
        false => Err(Error::Data {
            table: name.to_owned(),
            problem: "a table's name is letters, digits, `_` and `-`, in parts joined by `/`"
                .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
