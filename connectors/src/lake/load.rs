//! Reading a table from its log, and writing the versions that define one.

use super::{
    StagedFile, Version,
    log::Log,
    schema::{self, Stored, Wanted},
};
use crate::{
    error::{Cause, Error, Result},
    store::Store,
};
use arrow::datatypes::Schema;
use deltalake::{
    DeltaTableError,
    kernel::{
        Action, Metadata, MetadataExt, Protocol, StructType, new_metadata,
        transaction::{CommitData, TableReference},
    },
    logstore::{StorageConfig, default_logstore},
    protocol::{DeltaOperation, SaveMode},
};
use object_store::ObjectStore;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use url::Url;

/// Commits between two checkpoints. A reader reads this many small files at most; a checkpoint costs
/// some tens of milliseconds, and more with many files.
const CHECKPOINT_COMMITS: Version = 50;

/// The whole state of a table, read from its log.
pub(crate) struct Loaded {
    pub(crate) stored: Stored,
    pub(crate) metadata: Metadata,
    pub(crate) version: Version,
    pub(crate) marks: BTreeMap<String, i64>,
    pub(crate) files: Vec<Arc<StagedFile>>,
    pub(crate) checkpoint: Option<Version>,
}

impl Loaded {
    /// The version at which the next checkpoint is due.
    pub(crate) fn checkpoint_due(&self) -> Version {
        self.checkpoint.unwrap_or(0) + CHECKPOINT_COMMITS
    }
}

/// The log of a table, whether it is there or not.
pub(crate) fn log_of(store: &Store, name: &str) -> Result<Log> {
    let url = store.folder_url(name);
    let folder: Arc<dyn ObjectStore> = store.folder(name)?;
    Ok(Log {
        table: name.to_owned(),
        store: default_logstore(folder, store.root(), &url, &StorageConfig::default()),
    })
}

/// Reads a table at one version, or the newest; `None` when there is no table.
pub(crate) async fn load(log: &Log, version: Option<Version>) -> Result<Option<Loaded>> {
    if !log.exists().await? {
        return Ok(None);
    }
    let failed = |e: DeltaTableError| log.failed("loading the table", e);
    let mut table = deltalake::DeltaTable::new(Arc::clone(&log.store));
    match version.map(u64::try_from) {
        Some(Ok(number)) => table.load_version(number).await.map_err(failed)?,
        Some(Err(error)) => return Err(log.failed("numbering a version", error)),
        None => table.load().await.map_err(failed)?,
    }
    let state = table.snapshot().map_err(failed)?;
    let version =
        Version::try_from(state.version()).map_err(|e| log.failed("numbering a version", e))?;
    check_protocol(log, state.protocol())?;
    let log_data = state.log_data();
    let files = log_data.iter().map(|file| {
        Arc::new(StagedFile {
            path: file.path().into_owned(),
            bytes: u64::try_from(file.size()).unwrap_or_default(),
            partition: file.partition_values_map().into_iter().collect(),
            modified_ms: file.modification_time(),
            statistics: file.stats().map(Into::into),
        })
    });
    let files = files.collect();
    let metadata = TableReference::metadata(state).clone();
    let stored = Stored {
        schema: state.snapshot().arrow_schema(),
        partition: metadata.partition_columns().to_vec(),
        configuration: metadata.configuration().clone().into_iter().collect(),
    };
    let (checkpoint, marks) = log.marks_at(version).await?;
    Ok(Some(Loaded {
        stored,
        metadata,
        version,
        marks,
        files,
        checkpoint,
    }))
}

/// Tables that need more than plain Delta cannot be written correctly here.
fn check_protocol(log: &Log, protocol: &Protocol) -> Result<()> {
    let (reader, writer) = (protocol.min_reader_version(), protocol.min_writer_version());
    match reader == 1 && writer <= 2 {
        true => Ok(()),
        false => Err(Error::OtherTable {
            table: log.table.clone(),
            problem: format!(
                "it needs Delta reader version {reader} and writer version {writer}, not 1 and 2"
            ),
            hint: "another tool changed it; restore it, or set another lake url".to_owned(),
        }),
    }
}

/// The bytes of version 0.
pub(crate) fn creation(log: &Log, location: Url, wanted: &Wanted) -> Result<bytes::Bytes> {
    let failed = |e: Cause| log.failed("creating the table", e);
    let schema: StructType = schema::to_delta(&log.table, &wanted.schema)?;
    let metadata = new_metadata(
        &schema,
        wanted.partition.iter(),
        wanted.configuration.iter(),
    )
    .map_err(|e| failed(e.into()))?;
    let protocol = serde_json::json!({"minReaderVersion": 1, "minWriterVersion": 2});
    let protocol: Protocol = serde_json::from_value(protocol).map_err(|e| failed(e.into()))?;
    let actions = vec![
        Action::Protocol(protocol.clone()),
        Action::Metadata(metadata.clone()),
    ];
    let operation = DeltaOperation::Create {
        mode: SaveMode::ErrorIfExists,
        location,
        protocol,
        metadata,
    };
    let data = CommitData::new(actions, operation, HashMap::new(), Vec::new());
    data.get_bytes().map_err(|e| failed(e.into()))
}

/// The bytes of a commit that gives the table other columns.
pub(crate) fn redefinition(log: &Log, metadata: Metadata, wanted: &Schema) -> Result<bytes::Bytes> {
    let failed = |e: Cause| log.failed("adding columns", e);
    let schema = schema::to_delta(&log.table, wanted)?;
    let fields = schema.fields().cloned().collect();
    let metadata = metadata
        .with_schema(&schema)
        .map_err(|e| failed(e.into()))?;
    let actions = vec![Action::Metadata(metadata)];
    let operation = DeltaOperation::AddColumn { fields };
    let data = CommitData::new(actions, operation, HashMap::new(), Vec::new());
    data.get_bytes().map_err(|e| failed(e.into()))
}
