//! One Delta table: its state in memory, and every change of it.

use super::{
    Attempt, CommitId, LoggedCommit, Staged, StagedFile, Table, Version,
    encode::Encoder,
    load::{Loaded, creation, load, log_of, redefinition},
    log::{Commit, Log, Written, entry},
    provider::Snapshot,
    schema::{self, Fit, Stored, Wanted},
};
use crate::{
    error::{Error, Result},
    failpoint,
    store::{Store, path_in},
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use deltalake::{DeltaTableError, checkpoints::create_checkpoint};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};
use url::Url;

/// Commits to wait after a checkpoint failed.
const CHECKPOINT_RETRY_COMMITS: Version = 10;
/// How often a commit gives way to commits of others before it is reported as failed.
const TRIES: usize = 100;
/// A Delta table and the snapshot of it that is loaded.
///
/// The snapshot is the list of data files, the marks and the columns at one version. A commit applies
/// itself and what others committed before it, so its cost does not grow with the table.
pub struct DeltaTable {
    log: Log,
    store: Store,
    schema: SchemaRef,
    partition: Vec<String>,
    configuration: BTreeMap<String, String>,
    encoder: Encoder,
    version: Version,
    marks: BTreeMap<String, i64>,
    files: Arc<Vec<Arc<StagedFile>>>,
    checkpoint_due: Version,
    /// The last commit that landed through here, so that repeating it is harmless.
    last: Option<(CommitId, Version)>,
    /// Set when the log contradicts what is in memory: nothing is committed from then on.
    fenced: Option<Version>,
}

impl fmt::Debug for DeltaTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeltaTable")
            .field("name", &self.log.table)
            .field("version", &self.version)
            .field("marks", &self.marks)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Table for DeltaTable {
    fn name(&self) -> &str {
        &self.log.table
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn version(&self) -> Version {
        self.version
    }

    fn mark(&self, app_id: &str) -> Option<i64> {
        self.marks.get(app_id).copied()
    }

    async fn refresh(&mut self) -> Result<()> {
        let loaded = load(&self.log, None)
            .await?
            .ok_or_else(|| self.log.failed("loading the table", "its log is gone"))?;
        self.adopt(loaded)
    }

    fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        let url = self.url();
        let files = Arc::clone(&self.files);
        let folder = path_in(url)?;
        Snapshot::new(
            self.store.root(),
            url,
            folder,
            &self.schema,
            &self.partition,
            files,
        )
        .map(|snapshot| Arc::new(snapshot) as Arc<dyn TableProvider>)
        .map_err(|e| self.log.failed("preparing a query", e))
    }

    async fn stage(&self, commit_id: &CommitId, batches: &[RecordBatch]) -> Result<Staged> {
        check_commit_id(&self.log.table, commit_id)?;
        self.upload_rows(commit_id, batches).await
    }

    async fn commit(&mut self, attempt: &Attempt, staged: &Staged) -> Result<Version> {
        check_commit_id(&self.log.table, &attempt.commit_id)?;
        if let Some((id, version)) = &self.last
            && *id == attempt.commit_id
        {
            return Ok(*version);
        }
        let version = self.land(attempt, staged).await?;
        self.last = Some((attempt.commit_id.clone(), version));
        self.maintain().await;
        Ok(version)
    }

    async fn log_since(&self) -> Result<Vec<LoggedCommit>> {
        self.check_base().await?;
        let mut commits = Vec::new();
        let mut version = self.version + 1;
        while let Some(commit) = self.log.read(version).await? {
            commits.push(commit.logged);
            version += 1;
        }
        Ok(commits)
    }
}

impl DeltaTable {
    /// Opens a table that is there.
    pub(crate) async fn open(store: &Store, name: &str) -> Result<Option<Self>> {
        let log = log_of(store, name)?;
        let loaded = load(&log, None).await?;
        Ok(loaded.map(|loaded| Self::new(log, store.clone(), loaded)))
    }

    /// Opens a table, creates it, or adds columns to it. Each of the two may be lost to another
    /// process, which then did the same: hence the loop.
    pub(crate) async fn open_or_create(store: &Store, name: &str, wanted: &Wanted) -> Result<Self> {
        let log = log_of(store, name)?;
        for _ in 0..TRIES {
            let Some(loaded) = load(&log, None).await? else {
                let url = store.folder_url(name);
                log.create(0, creation(&log, url, wanted)?).await?;
                continue;
            };
            match wanted.compare(name, &loaded.stored)? {
                Fit::Same => {
                    let mut table = Self::new(log, store.clone(), loaded);
                    table.schema =
                        Arc::new(schema::with_metadata_of(&table.schema, &wanted.schema));
                    return Ok(table);
                }
                Fit::Widen(schema) => {
                    let version = loaded.version + 1;
                    log.create(version, redefinition(&log, loaded.metadata, &schema)?)
                        .await?;
                }
            }
        }
        Err(log.failed("creating the table", "others kept changing it"))
    }

    /// The table's configuration, as it is stored.
    pub fn configuration(&self) -> &BTreeMap<String, String> {
        &self.configuration
    }

    /// Where the table is, ending in `/`, without credentials.
    pub fn url(&self) -> &Url {
        self.log.store.root_url()
    }

    /// The data files of the loaded snapshot.
    pub fn files(&self) -> &[Arc<StagedFile>] {
        &self.files
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    pub(crate) fn partition(&self) -> Option<&String> {
        self.partition.first()
    }

    fn new(log: Log, store: Store, loaded: Loaded) -> Self {
        let partition = loaded.stored.partition.first().map(String::as_str);
        DeltaTable {
            encoder: Encoder::new(&loaded.stored.schema, partition),
            checkpoint_due: loaded.checkpoint_due(),
            log,
            store,
            schema: loaded.stored.schema,
            partition: loaded.stored.partition,
            configuration: loaded.stored.configuration,
            version: loaded.version,
            marks: loaded.marks,
            files: Arc::new(loaded.files),
            last: None,
            fenced: None,
        }
    }

    /// Takes over a newer state, if its columns still hold all of ours.
    fn adopt(&mut self, loaded: Loaded) -> Result<()> {
        self.check_still_ours(&loaded.stored)?;
        let partition = loaded.stored.partition.first().map(String::as_str);
        self.encoder = Encoder::new(&loaded.stored.schema, partition);
        self.schema = Arc::new(schema::with_metadata_of(
            &loaded.stored.schema,
            &self.schema,
        ));
        self.checkpoint_due = loaded.checkpoint_due();
        self.configuration = loaded.stored.configuration;
        self.version = loaded.version;
        self.marks = loaded.marks;
        self.files = Arc::new(loaded.files);
        Ok(())
    }

    /// What we hold must be what is stored, or that with nullable columns more.
    fn check_still_ours(&self, stored: &Stored) -> Result<()> {
        let ours = Stored {
            schema: Arc::clone(&self.schema),
            partition: self.partition.clone(),
            configuration: self.configuration.clone(),
        };
        let partition: Vec<&str> = stored.partition.iter().map(String::as_str).collect();
        let theirs = Wanted::new(
            &self.log.table,
            &stored.schema,
            &partition,
            &stored.configuration,
        )?;
        theirs.compare(&self.log.table, &ours).map(drop)
    }

    /// Creates the next version that is free, giving way to commits that do not concern us.
    async fn land(&mut self, attempt: &Attempt, staged: &Staged) -> Result<Version> {
        if let Some(version) = self.fenced {
            return Err(self.fenced_at(version));
        }
        self.check_base().await?;
        let bytes = entry(attempt, staged, &self.partition, self.version)
            .map_err(|e| self.log.failed("writing the commit down", e))?;
        for _ in 0..TRIES {
            let version = self.version + 1;
            if self.log.create(version, bytes.clone()).await? == Written::Created {
                self.apply(ours(version, attempt, staged));
                return Ok(version);
            }
            let winner = self.log.read(version).await?.ok_or_else(|| {
                self.log
                    .failed("reading the log", format!("version {version} is gone"))
            })?;
            if winner.logged.commit_id.as_ref() == Some(&attempt.commit_id) {
                // An earlier try landed and its answer was lost.
                self.apply(winner);
                return Ok(version);
            }
            if attempt
                .marks
                .keys()
                .any(|id| winner.logged.marks.contains_key(id))
            {
                return Err(self.fenced_at(version));
            }
            self.give_way(winner).await?;
        }
        Err(self
            .log
            .failed("the commit", "others kept committing first"))
    }

    /// Takes in a commit of someone else that does not concern our marks.
    async fn give_way(&mut self, winner: Commit) -> Result<()> {
        if !winner.redefined {
            self.apply(winner);
            return Ok(());
        }
        let version = winner.logged.version;
        let loaded = load(&self.log, Some(version)).await?;
        let loaded =
            loaded.ok_or_else(|| self.log.failed("loading the table", "its log is gone"))?;
        self.adopt(loaded)
    }

    fn apply(&mut self, commit: Commit) {
        self.version = commit.logged.version;
        self.marks.extend(commit.logged.marks);
        let files = Arc::make_mut(&mut self.files);
        if !commit.removed.is_empty() {
            let removed: BTreeSet<String> = commit.removed.into_iter().collect();
            files.retain(|file| !removed.contains(&file.path));
        }
        files.extend(commit.added.into_iter().map(Arc::new));
    }

    /// The version we stand on must still be in the log: once it was cleaned up, the number after
    /// it may be free again, and a commit there would be lost.
    async fn check_base(&self) -> Result<()> {
        match self.log.has(self.version).await? {
            true => Ok(()),
            false => Err(Error::Data {
                table: self.log.table.clone(),
                problem: format!(
                    "version {} is no longer in its log; this process slept too long, restart it",
                    self.version
                ),
            }),
        }
    }

    /// Writes a checkpoint when one is due. Whatever happens here, the commit before it stands.
    async fn maintain(&mut self) {
        if self.version < self.checkpoint_due {
            return;
        }
        if let Err(error) = self.checkpoint().await {
            self.checkpoint_due = self.version + CHECKPOINT_RETRY_COMMITS;
            tracing::warn!(
                table = self.log.table,
                version = self.version,
                error = &error as &dyn std::error::Error,
                "checkpoint failed"
            );
        }
    }

    /// Writes a checkpoint of the loaded version and loads that same version from it. The version is
    /// pinned, so nothing of a newer owner can slip in.
    async fn checkpoint(&mut self) -> Result<()> {
        let failed = |e: DeltaTableError| self.log.failed("writing a checkpoint", e);
        let mut table = deltalake::DeltaTable::new(Arc::clone(&self.log.store));
        let number = u64::try_from(self.version);
        let number = number.map_err(|e| self.log.failed("numbering a version", e))?;
        table.load_version(number).await.map_err(failed)?;
        create_checkpoint(&table, None).await.map_err(failed)?;
        failpoint::reached(&self.log.table, "checkpointed");
        let loaded = load(&self.log, Some(self.version)).await?;
        let loaded =
            loaded.ok_or_else(|| self.log.failed("loading the table", "its log is gone"))?;
        if loaded.marks != self.marks || loaded.files.len() != self.files.len() {
            self.fenced = Some(self.version);
            return Err(self.fenced_at(self.version));
        }
        self.adopt(loaded)
    }

    fn fenced_at(&self, version: Version) -> Error {
        Error::Fenced {
            table: self.log.table.clone(),
            version,
        }
    }
}

/// What our own commit changes.
fn ours(version: Version, attempt: &Attempt, staged: &Staged) -> Commit {
    Commit {
        logged: LoggedCommit {
            version,
            commit_id: Some(attempt.commit_id.clone()),
            marks: attempt.marks.clone(),
            info: attempt.info.clone(),
        },
        added: staged.files.clone(),
        removed: Vec::new(),
        redefined: false,
    }
}

/// Commit ids are part of file names.
fn check_commit_id(table: &str, id: &CommitId) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match !id.0.is_empty() && id.0.chars().all(plain) {
        true => Ok(()),
        false => Err(Error::Data {
            table: table.to_owned(),
            problem: format!(
                "commit id `{}` is not letters, digits, `.`, `_` and `-`",
                id.0
            ),
        }),
    }
}
