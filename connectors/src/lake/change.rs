//! What a commit changes, and the log entry that says so.

use super::{Attempt, StagedFile, Version};
use crate::{
    error::Cause,
    lake::log::{
        COMMIT_ID, OURS,
        action::{Add, Line, Remove, STRUCTS_TAG, Txn, to_bytes},
    },
};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// What a commit does to the table's files.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    /// Adds rows.
    Append(&'a [StagedFile]),
    /// Puts one file in the place of others that together hold the same rows.
    Merge {
        into: &'a StagedFile,
        from: &'a [Arc<StagedFile>],
        at_ms: i64,
    },
    /// Changes no file: its marks say which unreferenced ones are about to be deleted.
    Vacuum { retention_ms: i64 },
}

impl Change<'_> {
    pub(crate) fn added(&self) -> &[StagedFile] {
        match self {
            Change::Append(files) => files,
            Change::Merge { into, .. } => std::slice::from_ref(into),
            Change::Vacuum { .. } => &[],
        }
    }

    pub(crate) fn removed(&self) -> &[Arc<StagedFile>] {
        match self {
            Change::Merge { from, .. } => from,
            Change::Append(_) | Change::Vacuum { .. } => &[],
        }
    }

    /// What the commit is called in the table's history, and its parameters.
    fn operation(&self, partition: &[String]) -> (&'static str, Value) {
        match self {
            Change::Append(_) if partition.is_empty() => ("WRITE", json!({"mode": "Append"})),
            Change::Append(_) => {
                let partition = json!(partition).to_string();
                ("WRITE", json!({"mode": "Append", "partitionBy": partition}))
            }
            Change::Merge { into, .. } => {
                ("OPTIMIZE", json!({"targetSize": into.bytes.to_string()}))
            }
            Change::Vacuum { retention_ms } => {
                let retention_ms = retention_ms.to_string();
                let parameters = json!({
                    "retentionCheckEnabled": "true",
                    "specifiedRetentionMillis": retention_ms,
                    "defaultRetentionMillis": retention_ms,
                });
                ("VACUUM START", parameters)
            }
        }
    }

    fn lines(&self) -> Result<Vec<Line>, Cause> {
        let is_append = matches!(self, Change::Append(_));
        let added = self.added().iter().map(|file| to_add(file, is_append));
        let mut lines: Vec<Line> = added.collect::<Result<_, _>>()?;
        if let Change::Merge { from, at_ms, .. } = self {
            let removed = from.iter().map(|file| to_remove(file, *at_ms));
            lines.extend(removed.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(lines)
    }
}

/// The bytes of the log entry for an attempt.
pub(crate) fn entry(
    attempt: &Attempt,
    change: &Change<'_>,
    partition: &[String],
    read: Version,
) -> Result<Bytes, Cause> {
    let (operation, parameters) = change.operation(partition);
    let mut info = commit_info(operation, parameters);
    let ours = attempt.info.iter();
    info.extend(ours.map(|(key, value)| (format!("{OURS}{key}"), value.clone())));
    info.insert(COMMIT_ID.to_owned(), attempt.commit_id.0.clone().into());
    let is_append = matches!(change, Change::Append(_));
    info.insert("isBlindAppend".to_owned(), is_append.into());
    info.insert("readVersion".to_owned(), read.into());
    let marks = attempt.marks.iter().map(|(app_id, version)| {
        Line::txn(Txn {
            app_id: app_id.clone(),
            version: *version,
            last_updated: None,
        })
    });
    let mut lines = vec![Line::commit_info(info)];
    lines.extend(change.lines()?);
    lines.extend(marks);
    Ok(to_bytes(&lines)?)
}

/// What every commit says of itself.
pub(crate) fn commit_info(operation: &str, parameters: Value) -> Map<String, Value> {
    let info = [
        ("timestamp", jiff::Timestamp::now().as_millisecond().into()),
        ("operation", operation.into()),
        ("operationParameters", parameters),
        (
            "engineInfo",
            concat!("tollgate:", env!("CARGO_PKG_VERSION")).into(),
        ),
    ];
    let info = info.into_iter();
    info.map(|(key, value)| (key.to_owned(), value)).collect()
}

fn to_add(file: &StagedFile, data_change: bool) -> Result<Line, Cause> {
    Ok(Line::add(Add {
        path: file.path.clone(),
        partition_values: file.partition.clone(),
        size: file.bytes.try_into()?,
        modification_time: file.modified_ms,
        data_change,
        stats: file.statistics.as_ref().map(|s| s.to_string()),
        tags: file.structs.as_deref().map(structs_tag).transpose()?,
        deletion_vector: None,
    }))
}

/// What the log says of a file beside the protocol's fields.
fn structs_tag(structs: &[String]) -> Result<BTreeMap<String, Option<String>>, Cause> {
    let structs = serde_json::to_string(structs)?;
    Ok(BTreeMap::from([(STRUCTS_TAG.to_owned(), Some(structs))]))
}

/// The rows stay in the table, in another file: no data changes.
fn to_remove(file: &StagedFile, at_ms: i64) -> Result<Line, Cause> {
    Ok(Line::remove(Remove {
        path: file.path.clone(),
        data_change: false,
        deletion_timestamp: Some(at_ms),
        extended_file_metadata: Some(true),
        partition_values: Some(file.partition.clone()),
        size: Some(file.bytes.try_into()?),
        tags: None,
    }))
}
