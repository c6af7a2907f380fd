//! One Delta table: its state in memory, and every change of it.

use super::{
    Attempt, CommitId, LoggedCommit, Snapshot, Staged, StagedFile, Table, Version,
    change::Change,
    encode::Encoder,
    load::{Loaded, creation, load, log_of, redefinition, renewal},
    log::Log,
    maintenance::Removed,
    provider::DeltaSnapshot,
    schema::{self, Fit, Stored, Wanted},
};
use crate::{
    error::{Error, Result},
    store::{Store, path_in},
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use std::{collections::BTreeMap, fmt, sync::Arc};
use url::Url;

mod commit;

/// How often opening gives way to others who create or widen the table at the same time.
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
    id: String,
    encoder: Encoder,
    version: Version,
    marks: BTreeMap<String, i64>,
    files: Arc<Vec<Arc<StagedFile>>>,
    /// Files that were removed before the loaded version; `None` since a later version was taken in.
    removed: Option<BTreeMap<String, Removed>>,
    checkpoint_due: Version,
    /// The last commit that landed through here, so that repeating it is harmless.
    last: Option<(CommitId, Version)>,
    /// The last commit that was tried: it may have landed without an answer.
    tried: Option<CommitId>,
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

    fn id(&self) -> &str {
        &self.id
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

    fn marks(&self) -> BTreeMap<String, i64> {
        self.marks.clone()
    }

    async fn refresh(&mut self) -> Result<()> {
        let loaded = load(&self.log, None)
            .await?
            .ok_or_else(|| self.log.failed("loading the table", "its log is gone"))?;
        self.adopt(loaded)
    }

    fn provider(&self) -> Result<Arc<dyn Snapshot>> {
        self.provider_of(&self.schema, Arc::clone(&self.files))
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
        self.make(attempt, &Change::Append(&staged.files)).await
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

    async fn logged(&self, version: Version) -> Result<Option<LoggedCommit>> {
        let commit = self.log.read(version).await?;
        Ok(commit.map(|commit| commit.logged))
    }
}

impl DeltaTable {
    /// Opens a table that is there.
    pub(crate) async fn open(store: &Store, name: &str) -> Result<Option<Self>> {
        let log = log_of(store, name)?;
        let loaded = load(&log, None).await?;
        Ok(loaded.map(|loaded| Self::new(log, store.clone(), loaded)))
    }

    /// Opens a table that is there, with the columns that are wanted.
    pub(crate) async fn open_as(
        store: &Store,
        name: &str,
        wanted: &Wanted,
    ) -> Result<Option<Self>> {
        let log = log_of(store, name)?;
        let Some(mut loaded) = load(&log, None).await? else {
            return Ok(None);
        };
        if let Fit::Widen(schema) = wanted.compare(name, &loaded.stored)? {
            loaded.stored.schema = schema;
        }
        Ok(Some(Self::new(log, store.clone(), loaded)))
    }

    /// Opens a table, creates it, or adds columns to it. Each of the two may be lost to another
    /// process, which then did the same: hence the loop.
    pub(crate) async fn open_or_create(store: &Store, name: &str, wanted: &Wanted) -> Result<Self> {
        let log = log_of(store, name)?;
        for _ in 0..TRIES {
            let Some(loaded) = load(&log, None).await? else {
                log.create(0, creation(&log, wanted)?).await?;
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

    /// Gives a table without files and with marks that `is_unused` takes the wanted columns and configuration. Others may
    /// commit to it meanwhile: hence the loop.
    pub(crate) async fn renew(
        store: &Store,
        name: &str,
        wanted: &Wanted,
        is_unused: impl Fn(&BTreeMap<String, i64>) -> bool,
    ) -> Result<bool> {
        let log = log_of(store, name)?;
        for _ in 0..TRIES {
            let Some(loaded) = load(&log, None).await? else {
                return Ok(false);
            };
            if matches!(wanted.compare(name, &loaded.stored), Ok(Fit::Same)) {
                return Ok(true);
            }
            if !loaded.files.is_empty() || !is_unused(&loaded.marks) {
                return Ok(false);
            }
            let version = loaded.version + 1;
            log.create(version, renewal(&log, loaded.metadata, wanted)?)
                .await?;
        }
        Err(log.failed("making the table anew", "others kept changing it"))
    }

    /// Its marks.
    pub fn marks(&self) -> &BTreeMap<String, i64> {
        &self.marks
    }

    /// The same table, in whose files the rows of one value of a column stand together from now on: a query that asks
    /// for one value reads little. A column that the table does not have, or that is no text, changes nothing.
    #[must_use]
    pub fn keeping_together(mut self, column: &str) -> Self {
        self.encoder = self.encoder.keeping_together(Some(column));
        self
    }

    /// The table's configuration, as it is stored.
    pub fn configuration(&self) -> &BTreeMap<String, String> {
        &self.configuration
    }

    /// Where the table is, ending in `/`, without credentials.
    pub fn url(&self) -> &Url {
        &self.log.url
    }

    /// Some files of this table for SQL, with some of its columns.
    pub(crate) fn provider_of(
        &self,
        schema: &SchemaRef,
        files: Arc<Vec<Arc<StagedFile>>>,
    ) -> Result<Arc<dyn Snapshot>> {
        let url = self.url();
        let folder = path_in(url)?;
        DeltaSnapshot::new(
            self.store.root(),
            url,
            folder,
            schema,
            &self.partition,
            files,
        )
        .map(|snapshot| Arc::new(snapshot) as Arc<dyn Snapshot>)
        .map_err(|e| self.log.failed("preparing a query", e))
    }

    /// The data files of the loaded snapshot.
    pub fn files(&self) -> &[Arc<StagedFile>] {
        &self.files
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn removed_as_loaded(&self) -> Option<&BTreeMap<String, Removed>> {
        self.removed.as_ref()
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
            id: loaded.metadata.id,
            version: loaded.version,
            marks: loaded.marks,
            files: Arc::new(loaded.files),
            removed: Some(loaded.removed),
            last: None,
            tried: None,
            fenced: None,
        }
    }

    /// Takes over a newer state, if its columns still hold all of ours.
    fn adopt(&mut self, loaded: Loaded) -> Result<()> {
        self.check_still_ours(&loaded.stored)?;
        let partition = loaded.stored.partition.first().map(String::as_str);
        self.encoder = Encoder::new(&loaded.stored.schema, partition)
            .keeping_together(self.encoder.together());
        self.schema = Arc::new(schema::with_metadata_of(
            &loaded.stored.schema,
            &self.schema,
        ));
        self.checkpoint_due = loaded.checkpoint_due();
        self.configuration = loaded.stored.configuration;
        self.id = loaded.metadata.id;
        self.version = loaded.version;
        self.marks = loaded.marks;
        self.files = Arc::new(loaded.files);
        self.removed = Some(loaded.removed);
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
