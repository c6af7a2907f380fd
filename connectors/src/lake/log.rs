//! The Delta log: what a commit says, and which marks stand at a version.

use super::{CommitId, LoggedCommit, StagedFile, Version};
use crate::{
    error::{Cause, Error, Result},
    failpoint,
    store::Full,
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use bytes::Bytes;
use deltalake::{
    kernel::{Action, Add, transaction::TransactionError},
    logstore::{CommitOrBytes, LogStoreRef, get_actions},
};
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStoreExt, path::Path};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// The commitInfo key of our commit id.
pub(crate) const COMMIT_ID: &str = "tollgate.commitId";
/// What every commitInfo key of ours starts with.
pub(crate) const OURS: &str = "tollgate.";
pub(crate) const FOLDER: &str = "_delta_log";
/// No unreferenced file that was written before this, in milliseconds since the Unix epoch, may be
/// committed any more: it is deleted, or about to be.
pub(crate) const VACUUMED: &str = "vacuumed_before_ms";

/// The log of one table.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) table: String,
    pub(crate) store: LogStoreRef,
}

/// What one version of the table changed.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) logged: LoggedCommit,
    pub(crate) added: Vec<StagedFile>,
    pub(crate) removed: Vec<String>,
    /// Columns, configuration or required features changed.
    pub(crate) redefined: bool,
}

/// What happened to a try to create a version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The version is ours.
    Created,
    /// Someone else has it.
    Taken,
}

impl Log {
    /// Creates one version, or learns that it is taken.
    pub(crate) async fn create(&self, version: Version, bytes: Bytes) -> Result<Written> {
        let entry = CommitOrBytes::LogBytes(bytes);
        let number = self.number(version)?;
        failpoint::reached(&self.table, "committing");
        let created = self
            .store
            .write_commit_entry(number, entry, Uuid::nil())
            .await;
        match created {
            Ok(()) => {
                failpoint::reached(&self.table, "committed");
                Ok(Written::Created)
            }
            Err(TransactionError::VersionAlreadyExists(_)) => Ok(Written::Taken),
            Err(error) => Err(self.failed("the commit", error)),
        }
    }

    /// Reads one version; `None` if there is no such version yet, or no longer.
    pub(crate) async fn read(&self, version: Version) -> Result<Option<Commit>> {
        let number = self.number(version)?;
        let read = self.store.read_commit_entry(number).await;
        let Some(bytes) = read.map_err(|e| self.failed("reading the log", e))? else {
            return Ok(None);
        };
        let actions = get_actions(number, &bytes).map_err(|e| self.failed("reading the log", e))?;
        Ok(Some(Commit::new(version, actions)))
    }

    /// Whether there is a table at all.
    pub(crate) async fn exists(&self) -> Result<bool> {
        let store = self.store.object_store(None);
        let mut listed = store.list(Some(&Path::from(FOLDER)));
        while let Some(file) = listed
            .try_next()
            .await
            .map_err(|e| self.failed("listing the log", e))?
        {
            let name = file.location.filename().unwrap_or_default();
            if log_version(name).is_some() || checkpoint_version(name).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a version is still in the log. What comes after it can only be trusted if it is: a
    /// version that log clean-up removed could be created a second time.
    pub(crate) async fn has(&self, version: Version) -> Result<bool> {
        let path = Path::from(format!("{FOLDER}/{version:020}.json"));
        match self.store.object_store(None).head(&path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed("reading the log", error)),
        }
    }

    /// The newest checkpoint at or before `version`, and every mark that stands at `version`.
    pub(crate) async fn marks_at(
        &self,
        version: Version,
    ) -> Result<(Option<Version>, BTreeMap<String, i64>)> {
        let checkpoint = self.checkpoint_before(version).await?;
        let (from, mut marks) = match &checkpoint {
            Some(found) => (found.version + 1, self.marks_of(found).await?),
            None => (0, BTreeMap::new()),
        };
        for next in from..=version {
            let commit = self.read(next).await?.ok_or_else(|| {
                self.failed("reading the log", format!("version {next} is missing"))
            })?;
            marks.extend(commit.logged.marks);
        }
        Ok((checkpoint.map(|c| c.version), marks))
    }

    async fn checkpoint_before(&self, version: Version) -> Result<Option<Checkpoint>> {
        let from = match self.last_checkpoint().await {
            Some(last) if last <= version => last,
            _ => 0,
        };
        let mut files: BTreeMap<Version, Vec<Path>> = BTreeMap::new();
        for file in self.list(from).await? {
            if let Some(number) = file.location.filename().and_then(checkpoint_version) {
                files.entry(number).or_default().push(file.location);
            }
        }
        let complete = files
            .range(..=version)
            .rev()
            .find(|(_, parts)| is_complete(parts));
        Ok(complete.map(|(version, parts)| Checkpoint {
            version: *version,
            parts: parts.clone(),
        }))
    }

    /// The log's files of version `from` and later.
    pub(crate) async fn list(&self, from: Version) -> Result<Vec<ObjectMeta>> {
        let store = self.store.object_store(None);
        // What a version's files are called sorts after its number alone.
        let before = Path::from(format!("{FOLDER}/{from:020}"));
        let listed = store.list_with_offset(Some(&Path::from(FOLDER)), &before);
        let files: Vec<ObjectMeta> = listed
            .try_collect()
            .await
            .map_err(|e| self.failed("listing the log", e))?;
        Ok(files)
    }

    /// What the newest checkpoint is said to be: it saves listing the log before it.
    async fn last_checkpoint(&self) -> Option<Version> {
        let path = Path::from(format!("{FOLDER}/_last_checkpoint"));
        let file = self.store.object_store(None).get(&path).await.ok()?;
        let hint: serde_json::Value = serde_json::from_slice(&file.bytes().await.ok()?).ok()?;
        hint.get("version")?.as_i64()
    }

    async fn marks_of(&self, checkpoint: &Checkpoint) -> Result<BTreeMap<String, i64>> {
        let mut marks = BTreeMap::new();
        for part in &checkpoint.parts {
            let found = self.read_marks(part).await;
            marks.extend(found.map_err(|e| self.failed("reading a checkpoint", e))?);
        }
        Ok(marks)
    }

    async fn read_marks(&self, part: &Path) -> Result<BTreeMap<String, i64>, Cause> {
        let file = self.store.object_store(None).get(part).await?;
        let bytes = file.bytes().await?;
        tokio::task::spawn_blocking(move || marks_in_checkpoint(bytes)).await?
    }

    /// An error of this table.
    pub(crate) fn failed(&self, doing: &'static str, source: impl Into<Cause>) -> Error {
        let source = source.into();
        match Full::behind(source.as_ref()) {
            Some(path) => Error::DiskFull { path, source },
            None => Error::Table {
                table: self.table.clone(),
                doing,
                source,
            },
        }
    }

    fn number(&self, version: Version) -> Result<u64> {
        u64::try_from(version).map_err(|e| self.failed("numbering a version", e))
    }
}

impl Commit {
    fn new(version: Version, actions: Vec<Action>) -> Self {
        let mut commit = Commit {
            logged: LoggedCommit {
                version,
                commit_id: None,
                marks: BTreeMap::new(),
                info: BTreeMap::new(),
            },
            added: Vec::new(),
            removed: Vec::new(),
            redefined: false,
        };
        actions.into_iter().for_each(|action| commit.take(action));
        commit
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "other actions change nothing that is read here"
    )]
    fn take(&mut self, action: Action) {
        match action {
            Action::Add(add) => self.added.push(from_add(add)),
            Action::Remove(remove) => self.removed.push(remove.path),
            Action::Txn(txn) => drop(self.logged.marks.insert(txn.app_id, txn.version)),
            Action::Metadata(_) | Action::Protocol(_) => self.redefined = true,
            Action::CommitInfo(info) => self.take_info(info.info),
            _ => {}
        }
    }

    fn take_info(&mut self, info: HashMap<String, serde_json::Value>) {
        let sorted: BTreeMap<_, _> = info.into_iter().collect();
        for (key, value) in sorted {
            if key == COMMIT_ID {
                self.logged.commit_id = value.as_str().map(|id| CommitId(id.to_owned()));
            } else if let Some(key) = key.strip_prefix(OURS) {
                self.logged.info.insert(key.to_owned(), value);
            }
        }
    }
}

fn from_add(add: Add) -> StagedFile {
    StagedFile {
        path: add.path,
        bytes: add.size.try_into().unwrap_or_default(),
        partition: add.partition_values.into_iter().collect(),
        modified_ms: add.modification_time,
        statistics: add.stats.map(Into::into),
    }
}

/// A complete checkpoint.
#[derive(Debug)]
struct Checkpoint {
    version: Version,
    parts: Vec<Path>,
}

/// `<20 digits>.json`.
pub(crate) fn log_version(name: &str) -> Option<Version> {
    let number = name.strip_suffix(".json")?;
    let is_ours = number.len() == 20 && number.bytes().all(|b| b.is_ascii_digit());
    is_ours.then(|| number.parse().ok()).flatten()
}

/// The version in `<20 digits>.checkpoint….parquet`.
pub(crate) fn checkpoint_version(name: &str) -> Option<Version> {
    let (number, rest) = name.split_at_checked(20)?;
    let ours = rest.starts_with(".checkpoint.") && rest.ends_with("parquet");
    ours.then(|| number.parse().ok()).flatten()
}

/// One file alone, or as many parts as each part's name says.
fn is_complete(parts: &[Path]) -> bool {
    let name = parts.first().and_then(Path::filename);
    is_complete_checkpoint(name, parts.len())
}

/// Whether so many parts, one of them of this name, are a whole checkpoint.
pub(crate) fn is_complete_checkpoint(name: Option<&str>, parts: usize) -> bool {
    let total = name.and_then(|name| {
        let fields: Vec<&str> = name.split('.').collect();
        match fields.as_slice() {
            [_, "checkpoint", _, total, "parquet"] => total.parse::<usize>().ok(),
            _ => Some(1),
        }
    });
    total == Some(parts)
}

/// The marks in a checkpoint file: the `txn` column, and nothing else of it, is decoded.
fn marks_in_checkpoint(bytes: Bytes) -> Result<BTreeMap<String, i64>, Cause> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["txn.appId", "txn.version"]);
    let mut marks = BTreeMap::new();
    for batch in builder.with_projection(mask).build()? {
        marks.extend(marks_in(&batch?)?);
    }
    Ok(marks)
}

fn marks_in(batch: &RecordBatch) -> Result<BTreeMap<String, i64>, Cause> {
    let Some(txn) = batch.column_by_name("txn") else {
        return Ok(BTreeMap::new());
    };
    let txn = txn.as_struct_opt().ok_or("`txn` is not a struct")?;
    // A checkpoint of another writer may hold strings as large strings or views.
    let ids = cast(
        txn.column_by_name("appId").ok_or("no `txn.appId`")?,
        &DataType::Utf8,
    )?;
    let values = cast(
        txn.column_by_name("version").ok_or("no `txn.version`")?,
        &DataType::Int64,
    )?;
    let (ids, values) = (ids.as_string::<i32>(), values.as_primitive::<Int64Type>());
    Ok((0..txn.len())
        .filter(|row| txn.is_valid(*row) && ids.is_valid(*row) && values.is_valid(*row))
        .map(|row| (ids.value(row).to_owned(), values.value(row)))
        .collect())
}
