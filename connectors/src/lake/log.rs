//! The Delta log: what a commit says, and the names of what is in it.
//!
//! It owns the reading and writing of entries and checkpoints for tables that need reader version 1 and
//! writer version 2. It does not decide what a table that needs more means: `load` refuses it.

use super::{CommitId, LoggedCommit, StagedFile, Version};
use crate::{
    error::{Cause, Error, Result},
    failpoint,
    store::Full,
};
use action::Line;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, sync::Arc};
use url::Url;

pub(crate) mod action;
mod checkpoint;
mod replay;
mod state;

pub(crate) use state::State;

/// The commitInfo key of our commit id.
pub(crate) const COMMIT_ID: &str = "tollgate.commitId";
/// What every commitInfo key of ours starts with.
pub(crate) const OURS: &str = "tollgate.";
pub(crate) const FOLDER: &str = "_delta_log";
/// No unreferenced file that was written before this, in milliseconds since the Unix epoch, may be
/// committed any more: it is deleted, or about to be.
pub(crate) const VACUUMED: &str = "vacuumed_before_ms";
/// Names the newest checkpoint.
const LAST_CHECKPOINT: &str = "_last_checkpoint";

/// The log of one table.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) table: String,
    /// Where the table is, ending in `/`, without credentials.
    pub(crate) url: Url,
    /// The store seen from the table's folder.
    pub(crate) store: Arc<dyn ObjectStore>,
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

/// What the log's folder holds.
#[derive(Debug)]
struct Listed {
    /// The files of each whole checkpoint.
    checkpoints: BTreeMap<Version, Vec<ObjectMeta>>,
    /// When each entry was written, in milliseconds since the Unix epoch.
    entries: BTreeMap<Version, i64>,
    /// Whether any file is of a checkpoint, whole or not, in whatever form.
    has_checkpoint_files: bool,
}

impl Listed {
    /// Folders below the log's own, of sidecars and staged commits, hold no version.
    fn new(mut files: Vec<ObjectMeta>) -> Self {
        let folder = Path::from(FOLDER);
        files.retain(|file| {
            let below = file.location.prefix_match(&folder);
            below.is_some_and(|parts| parts.count() == 1)
        });
        let name = |file: &ObjectMeta| file.location.filename().unwrap_or_default().to_owned();
        let entries = files.iter().filter_map(|file| {
            let modified_ms = file.last_modified.timestamp_millis();
            Some((log_version(&name(file))?, modified_ms))
        });
        Listed {
            has_checkpoint_files: files.iter().any(|file| name(file).contains(".checkpoint.")),
            entries: entries.collect(),
            checkpoints: whole_checkpoints(files.into_iter().map(|file| (name(&file), file))),
        }
    }

    /// The newest whole checkpoint, at or before a version if one is given.
    fn checkpoint_at(&self, version: Option<Version>) -> Option<(Version, &[ObjectMeta])> {
        let mut until = self.checkpoints.range(..=version.unwrap_or(Version::MAX));
        until
            .next_back()
            .map(|(version, parts)| (*version, parts.as_slice()))
    }
}

impl Log {
    /// Creates one version, or learns that it is taken.
    pub(crate) async fn create(&self, version: Version, bytes: Bytes) -> Result<Written> {
        failpoint::reached(&self.table, "committing");
        let exclusive = PutOptions::from(PutMode::Create);
        let path = entry_path(version);
        match self.store.put_opts(&path, bytes.into(), exclusive).await {
            Ok(_) => {
                failpoint::reached(&self.table, "committed");
                Ok(Written::Created)
            }
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Written::Taken),
            Err(error) => Err(self.failed("the commit", error)),
        }
    }

    /// Reads one version; `None` if there is no such version yet, or no longer.
    pub(crate) async fn read(&self, version: Version) -> Result<Option<Commit>> {
        let Some(lines) = self.lines(version).await? else {
            return Ok(None);
        };
        let commit = Commit::new(version, lines);
        commit.map(Some).map_err(|e| self.unreadable(version, e))
    }

    /// The lines of one version's entry.
    async fn lines(&self, version: Version) -> Result<Option<Vec<Line>>> {
        let bytes = match self.get(&entry_path(version)).await {
            Ok(bytes) => bytes,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed("reading the log", error)),
        };
        match action::parse(&bytes) {
            // Another writer's entry may have lost its content in a power cut, and rows with it.
            Ok(lines) if lines.is_empty() => Err(self.unreadable(version, "it is empty")),
            Ok(lines) => Ok(Some(lines)),
            Err(error) => Err(self.unreadable(version, error)),
        }
    }

    fn unreadable(&self, version: Version, why: impl std::fmt::Display) -> Error {
        self.failed("reading the log", format!("version {version}: {why}"))
    }

    async fn get(&self, path: &Path) -> object_store::Result<Bytes> {
        self.store.get(path).await?.bytes().await
    }

    /// Whether a version is still in the log. What comes after it can only be trusted if it is: a
    /// version that log clean-up removed could be created a second time.
    pub(crate) async fn has(&self, version: Version) -> Result<bool> {
        match self.store.head(&entry_path(version)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed("reading the log", error)),
        }
    }

    /// The log's files of version `from` and later.
    async fn list(&self, from: Version) -> Result<Listed> {
        // What a version's files are called sorts after its number alone.
        let before = Path::from(format!("{FOLDER}/{from:020}"));
        let listed = self
            .store
            .list_with_offset(Some(&Path::from(FOLDER)), &before);
        let files = listed.try_collect().await;
        let files = files.map_err(|e| self.failed("listing the log", e))?;
        Ok(Listed::new(files))
    }

    /// What the newest checkpoint is said to be: it saves listing the log before it.
    async fn last_checkpoint(&self) -> Option<Version> {
        let path = Path::from(format!("{FOLDER}/{LAST_CHECKPOINT}"));
        let hint: Value = serde_json::from_slice(&self.get(&path).await.ok()?).ok()?;
        hint.get("version")?.as_i64()
    }

    /// Writes the checkpoint of a state, unless it is there.
    pub(crate) async fn write_checkpoint(&self, state: State) -> Result<()> {
        let version = state.version;
        if state.checkpoint == Some(version) {
            return Ok(());
        }
        let failed = |e: Cause| self.failed("writing a checkpoint", e);
        let encoding = tokio::task::spawn_blocking(move || checkpoint::encode(state));
        let encoded = encoding
            .await
            .map_err(|e| failed(e.into()))?
            .map_err(failed)?;
        let files = [
            (checkpoint::path_of(version), encoded.bytes.clone()),
            (
                Path::from(format!("{FOLDER}/{LAST_CHECKPOINT}")),
                encoded.hint(version).into(),
            ),
        ];
        for (path, bytes) in files {
            let put = self.store.put(&path, bytes.into()).await;
            put.map_err(|e| failed(e.into()))?;
        }
        Ok(())
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
}

impl Commit {
    fn new(version: Version, lines: Vec<Line>) -> Result<Self, String> {
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
        lines.into_iter().try_for_each(|line| commit.take(line))?;
        Ok(commit)
    }

    fn take(&mut self, line: Line) -> Result<(), String> {
        if let Some(add) = line.add {
            if let Some(problem) = add.problem() {
                return Err(problem);
            }
            self.added.push((*add).into());
        }
        if let Some(remove) = line.remove {
            self.removed.push(remove.path);
        }
        if let Some(txn) = line.txn {
            self.logged.marks.insert(txn.app_id, txn.version);
        }
        self.redefined |= line.meta_data.is_some() || line.protocol.is_some();
        self.take_info(line.commit_info.unwrap_or_default());
        Ok(())
    }

    fn take_info(&mut self, info: Map<String, Value>) {
        for (key, value) in info {
            if key == COMMIT_ID {
                self.logged.commit_id = value.as_str().map(|id| CommitId(id.to_owned()));
            } else if let Some(key) = key.strip_prefix(OURS) {
                self.logged.info.insert(key.to_owned(), value);
            }
        }
    }
}

fn entry_path(version: Version) -> Path {
    Path::from(format!("{FOLDER}/{version:020}.json"))
}

/// `<20 digits>.json`.
pub(crate) fn log_version(name: &str) -> Option<Version> {
    digits(name.strip_suffix(".json")?)
}

/// The version in `<20 digits>.checkpoint….parquet`.
pub(crate) fn checkpoint_version(name: &str) -> Option<Version> {
    checkpoint_parts(name).map(|(version, _)| version)
}

/// The version and the number of parts in `<20 digits>.checkpoint.parquet`, which is one, and
/// `<20 digits>.checkpoint.<part>.<parts>.parquet`.
fn checkpoint_parts(name: &str) -> Option<(Version, usize)> {
    let fields: Vec<&str> = name.split('.').collect();
    match fields.as_slice() {
        [version, "checkpoint", "parquet"] => Some((digits(version)?, 1)),
        [version, "checkpoint", _, parts, "parquet"] => {
            Some((digits(version)?, parts.parse().ok()?))
        }
        _ => None,
    }
}

fn digits(version: &str) -> Option<Version> {
    let plain = version.len() == 20 && version.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| version.parse().ok()).flatten()
}

/// The checkpoints all of whose files are there, each file as what comes with its name.
pub(crate) fn whole_checkpoints<T>(
    files: impl Iterator<Item = (impl AsRef<str>, T)>,
) -> BTreeMap<Version, Vec<T>> {
    let mut found: BTreeMap<(Version, usize), Vec<T>> = BTreeMap::new();
    for (name, file) in files {
        if let Some(checkpoint) = checkpoint_parts(name.as_ref()) {
            found.entry(checkpoint).or_default().push(file);
        }
    }
    found.retain(|(_, parts), files| files.len() == *parts);
    found
        .into_iter()
        .map(|((version, _), files)| (version, files))
        .collect()
}
