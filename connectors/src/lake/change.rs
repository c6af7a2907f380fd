//! What a commit changes, and the log entry that says so.

use super::{Attempt, StagedFile, Version};
use crate::{
    error::Cause,
    lake::log::{COMMIT_ID, OURS},
};
use bytes::Bytes;
use deltalake::{
    kernel::{Action, Add, Remove, Transaction, transaction::CommitData},
    protocol::{DeltaOperation, SaveMode},
};
use std::{collections::HashMap, sync::Arc};

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

    fn operation(&self, partition: &[String]) -> DeltaOperation {
        match self {
            Change::Append(_) => DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: (!partition.is_empty()).then(|| partition.to_vec()),
                predicate: None,
            },
            Change::Merge { into, .. } => DeltaOperation::Optimize {
                predicate: None,
                target_size: i64::try_from(into.bytes).unwrap_or(i64::MAX),
            },
            Change::Vacuum { retention_ms } => DeltaOperation::VacuumStart {
                retention_check_enabled: true,
                specified_retention_millis: Some(*retention_ms),
                default_retention_millis: *retention_ms,
            },
        }
    }

    fn actions(&self) -> Result<Vec<Action>, Cause> {
        let is_append = matches!(self, Change::Append(_));
        let added = self.added().iter().map(|file| to_add(file, is_append));
        let mut actions: Vec<Action> = added.collect::<Result<_, _>>()?;
        if let Change::Merge { from, at_ms, .. } = self {
            let removed = from.iter().map(|file| to_remove(file, *at_ms));
            actions.extend(removed.collect::<Result<Vec<_>, _>>()?);
        }
        Ok(actions)
    }
}

/// The bytes of the log entry for an attempt.
pub(crate) fn entry(
    attempt: &Attempt,
    change: &Change<'_>,
    partition: &[String],
    read: Version,
) -> Result<Bytes, Cause> {
    let mut info: HashMap<String, serde_json::Value> = attempt
        .info
        .iter()
        .map(|(key, value)| (format!("{OURS}{key}"), value.clone()))
        .collect();
    info.insert(COMMIT_ID.to_owned(), attempt.commit_id.0.clone().into());
    let is_append = matches!(change, Change::Append(_));
    info.insert("isBlindAppend".to_owned(), is_append.into());
    info.insert("readVersion".to_owned(), read.into());
    let marks = attempt
        .marks
        .iter()
        .map(|(id, value)| Transaction::new(id, *value));
    let operation = change.operation(partition);
    Ok(CommitData::new(change.actions()?, operation, info, marks.collect()).get_bytes()?)
}

fn to_add(file: &StagedFile, data_change: bool) -> Result<Action, Cause> {
    Ok(Action::Add(Add {
        path: file.path.clone(),
        partition_values: file.partition.clone().into_iter().collect(),
        size: file.bytes.try_into()?,
        modification_time: file.modified_ms,
        data_change,
        stats: file.statistics.as_ref().map(|s| s.to_string()),
        ..Add::default()
    }))
}

/// The rows stay in the table, in another file: no data changes.
fn to_remove(file: &StagedFile, at_ms: i64) -> Result<Action, Cause> {
    Ok(Action::Remove(Remove {
        path: file.path.clone(),
        data_change: false,
        deletion_timestamp: Some(at_ms),
        extended_file_metadata: Some(true),
        partition_values: Some(file.partition.clone().into_iter().collect()),
        size: Some(file.bytes.try_into()?),
        ..Remove::default()
    }))
}
