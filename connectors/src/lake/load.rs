//! Reading a table from its log, and writing the versions that define one.

use super::{
    StagedFile, Version,
    change::commit_info,
    log::{
        Log, State,
        action::{Format, Line, Metadata, Protocol, to_bytes},
    },
    maintenance::Removed,
    schema::{self, Stored, Wanted},
};
use crate::{
    error::{Error, Result},
    store::Store,
};
use arrow::datatypes::Schema;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

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
    /// See [`removed_files`].
    pub(crate) removed: BTreeMap<String, Removed>,
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
    Ok(Log {
        table: name.to_owned(),
        url: store.folder_url(name),
        store: store.folder(name)?,
    })
}

/// Reads a table at one version, or the newest; `None` when there is no table.
pub(crate) async fn load(log: &Log, version: Option<Version>) -> Result<Option<Loaded>> {
    let Some(state) = log.replay(version).await? else {
        return Ok(None);
    };
    check_plain(log, &state)?;
    let removed = removed_files(&state);
    let metadata = state
        .metadata
        .ok_or_else(|| log.failed("loading the table", "its log says nothing of its columns"))?;
    let stored = Stored {
        schema: Arc::new(schema::from_delta(&log.table, &metadata.schema_string)?),
        partition: metadata.partition_columns.clone(),
        configuration: metadata.configuration.clone(),
    };
    let marks = state.marks.into_values();
    let files = state.files.into_values();
    Ok(Some(Loaded {
        stored,
        metadata,
        version: state.version,
        marks: marks.map(|mark| (mark.app_id, mark.version)).collect(),
        files: files.map(|add| Arc::new(add.into())).collect(),
        removed,
        checkpoint: state.checkpoint,
    }))
}

/// The files that a state says were removed.
pub(crate) fn removed_files(state: &State) -> BTreeMap<String, Removed> {
    let removed = state.removed.iter();
    let removed = removed.map(|(path, file)| {
        let at_ms = file.deletion_timestamp.unwrap_or(0);
        let bytes = file.size.and_then(|bytes| u64::try_from(bytes).ok());
        let bytes = bytes.unwrap_or(0);
        (path.clone(), Removed { at_ms, bytes })
    });
    removed.collect()
}

/// Writes a checkpoint of one version, unless it is there.
pub(crate) async fn write_checkpoint(log: &Log, version: Version) -> Result<()> {
    let state = log.replay(Some(version)).await?;
    let state = state.ok_or_else(|| log.failed("writing a checkpoint", "its log is gone"))?;
    check_plain(log, &state)?;
    log.write_checkpoint(state).await
}

/// Tables that need more than plain Delta can be neither read nor written correctly here.
fn check_plain(log: &Log, state: &State) -> Result<()> {
    let more = state
        .protocol
        .as_ref()
        .map_or_else(|| Some("it names no Delta version".to_owned()), needs_more)
        .or_else(|| state.metadata.as_ref().and_then(is_other))
        .or_else(|| state.files.values().find_map(|file| file.problem()));
    match more {
        None => Ok(()),
        Some(problem) => Err(Error::OtherTable {
            table: log.table.clone(),
            problem,
            hint: "another tool changed it; restore it, or set another lake url".to_owned(),
        }),
    }
}

fn needs_more(protocol: &Protocol) -> Option<String> {
    let (reader, writer) = (protocol.min_reader_version, protocol.min_writer_version);
    if reader != 1 || writer > 2 {
        return Some(format!(
            "it needs Delta reader version {reader} and writer version {writer}, not 1 and 2"
        ));
    }
    let reader = protocol.reader_features.iter().flatten();
    let mut features = reader.chain(protocol.writer_features.iter().flatten());
    let feature = features.next()?;
    Some(format!("it needs the Delta feature {feature}"))
}

fn is_other(metadata: &Metadata) -> Option<String> {
    let provider = &metadata.format.provider;
    (provider != "parquet").then(|| format!("its files are {provider}, not parquet"))
}

/// The bytes of version 0.
pub(crate) fn creation(log: &Log, wanted: &Wanted) -> Result<bytes::Bytes> {
    let protocol = Protocol {
        min_reader_version: 1,
        min_writer_version: 2,
        reader_features: None,
        writer_features: None,
    };
    let metadata = Metadata {
        id: uuid::Uuid::now_v7().to_string(),
        name: None,
        description: None,
        format: Format::parquet(),
        schema_string: schema::to_delta(&log.table, &wanted.schema)?.to_string(),
        partition_columns: wanted.partition.iter().cloned().collect(),
        created_time: Some(jiff::Timestamp::now().as_millisecond()),
        configuration: wanted.configuration.clone(),
    };
    let parameters = json!({
        "mode": "ErrorIfExists",
        "location": log.url.as_str(),
        "protocol": json!(protocol).to_string(),
        "metadata": json!(metadata).to_string(),
    });
    let lines = [
        Line::commit_info(commit_info("CREATE TABLE", parameters)),
        Line::protocol(protocol),
        Line::metadata(metadata),
    ];
    to_bytes(&lines).map_err(|e| log.failed("creating the table", e))
}

/// The bytes of a commit that gives the table other columns.
pub(crate) fn redefinition(log: &Log, metadata: Metadata, wanted: &Schema) -> Result<bytes::Bytes> {
    let schema = schema::to_delta(&log.table, wanted)?;
    let parameters = json!({ "fields": schema["fields"].to_string() });
    let lines = [
        Line::commit_info(commit_info("ADD COLUMN", parameters)),
        Line::metadata(Metadata {
            schema_string: schema.to_string(),
            ..metadata
        }),
    ];
    to_bytes(&lines).map_err(|e| log.failed("adding columns", e))
}

/// The bytes of a commit that gives a table without rows other columns and another configuration. It stays the same table.
pub(crate) fn renewal(log: &Log, metadata: Metadata, wanted: &Wanted) -> Result<bytes::Bytes> {
    let schema = schema::to_delta(&log.table, &wanted.schema)?;
    let parameters = json!({ "fields": schema["fields"].to_string() });
    let lines = [
        Line::commit_info(commit_info("REPLACE COLUMNS", parameters)),
        Line::metadata(Metadata {
            schema_string: schema.to_string(),
            configuration: wanted.configuration.clone(),
            ..metadata
        }),
    ];
    to_bytes(&lines).map_err(|e| log.failed("making the table anew", e))
}
