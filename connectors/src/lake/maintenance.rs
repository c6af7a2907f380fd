//! Maintenance of a table: merges small files into large ones, and deletes files that no reader needs any more.
//!
//! ```text
//!  look ─▶ plan (pure) ─┬▶ merge   read ─▶ write ─▶ read back and compare ─▶ commit Add and Removes
//!                       ├▶ vacuum  commit how far it goes ─▶ delete
//!                       └▶ log     delete what a checkpoint replaces
//! ```
//!
//! What the log says was removed is deleted when it is old enough. What was uploaded and never committed is known to no log: a
//! sweep looks through everything that is stored, every now and then.
//!
//! No row changes. Every commit here sets one mark, so of two processes that maintain a table at once
//! one is refused: a file can never be replaced twice. The mark is no shard's, so no writer is ever
//! fenced by maintenance, nor the other way round. A crash leaves the old files or the new ones; files
//! that were written for nothing are deleted by a later vacuum.

mod digest;
mod plan;

use super::{
    Attempt, CommitId, DeltaTable, StagedFile, Table,
    change::Change,
    encode::{EncodeError, Encoded, Encoder},
    load::removed_files,
    log::{FOLDER, VACUUMED},
    statistics::{FileStatistics, day_number},
    structs::{Structs, schema_of},
};
use crate::{
    error::{Error, Result},
    failpoint,
};
use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use datafusion::{
    execution::SendableRecordBatchStream,
    prelude::{SessionConfig, SessionContext},
    scalar::ScalarValue,
};
use digest::{Digest, Digester};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, path::Path};
pub use plan::{Limits, Plan, Removed, Seen, Stored, plan};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::sync::mpsc;

/// The mark that every commit of maintenance sets: how many there were.
const MUTEX: &str = "maintenance";
/// The mark of how far sweeps went: what was written before, in milliseconds since the Unix epoch, and that nothing names, is deleted.
const SWEPT: &str = "swept_before_ms";

/// What was done, or is to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Files that were replaced.
    pub merged: u64,
    /// Files that replace them.
    pub into: u64,
    /// Files that were deleted because no recent version holds them.
    pub vacuumed: u64,
    /// Their bytes.
    pub vacuumed_bytes: u64,
    /// Files of the log that were deleted.
    pub log: u64,
}

impl Done {
    /// What carrying out the whole of a plan does.
    pub fn planned(plan: &Plan) -> Self {
        Done {
            merged: plan.merges.iter().map(|merge| merge.len() as u64).sum(),
            into: plan.merges.len() as u64,
            vacuumed: plan.vacuum.len() as u64,
            vacuumed_bytes: plan.vacuum.iter().map(|file| file.bytes).sum(),
            log: plan.log.len() as u64,
        }
    }
}

impl DeltaTable {
    /// Reads everything that a plan needs. `order` names the columns that rows are sorted by in the
    /// order of files; those that the table does not have are left out. `limits` say whether everything that is stored is
    /// looked through. `now_ms` is the present.
    ///
    /// # Errors
    /// The log or the store cannot be read.
    pub async fn look(&self, order: &[&str], limits: &Limits, now_ms: i64) -> Result<Seen> {
        let sweeps = limits.sweep_is_due(self.mark(SWEPT), now_ms);
        let (log, stored) = self.list(sweeps).await?;
        let structs = Structs::of(&self.schema());
        let groups = self.files().iter();
        let groups = groups.filter_map(|file| Some((file.path.clone(), structs.group(file)?)));
        Ok(Seen {
            version: self.version(),
            groups: groups.collect(),
            files: in_order(self.files(), &self.schema(), order),
            removed: self.removed().await?,
            vacuumed_ms: self.mark(VACUUMED),
            stored: sweeps.then_some(stored),
            log,
            now_ms,
        })
    }

    /// Does what a plan says. The handle should be a recent one of its own, not the writer's.
    ///
    /// # Errors
    /// [`Error::Fenced`] when another process maintains the table at the same time, which is no
    /// fault; [`Error::Data`] when a merged file does not hold the very rows of the old ones, which
    /// stay then. What was done before the error is done.
    pub async fn carry_out(&mut self, plan: &Plan, now_ms: i64) -> Result<Done> {
        let mut done = Done::default();
        for from in &plan.merges {
            let live: BTreeSet<&str> = self.files().iter().map(|f| f.path.as_str()).collect();
            if from.iter().all(|file| live.contains(file.path.as_str())) {
                self.merge(from, now_ms).await?;
                done.merged += from.len() as u64;
                done.into += 1;
            }
        }
        (done.vacuumed, done.vacuumed_bytes) = self.vacuum(plan, now_ms).await?;
        if done.merged > 0 {
            // The last one may name every file that was merged since.
            self.try_checkpoint().await;
        }
        let log = plan.log.iter().map(|name| format!("{FOLDER}/{name}"));
        done.log = self.delete(log.collect()).await?;
        Ok(done)
    }

    /// Puts one file in the place of several.
    async fn merge(&mut self, from: &[Arc<StagedFile>], now_ms: i64) -> Result<()> {
        let commit_id = new_id("merge");
        let (encoded, before) = self.rewrite(from).await?;
        let into = self.upload(&commit_id, 0, encoded).await?;
        let after = self.digest(vec![Arc::new(into.clone())]).await?;
        if before != after || logged_rows(from).is_some_and(|rows| rows != before.rows) {
            return Err(Error::Data {
                table: self.name().to_owned(),
                problem: format!(
                    "{} was written to replace {} files and does not hold their rows \
                     ({before:?} is now {after:?}); nothing was replaced",
                    into.path,
                    from.len()
                ),
            });
        }
        let info = serde_json::json!({ "files": from.len(), "rows": after.rows });
        let attempt = self.attempt(commit_id, BTreeMap::new(), ("merge", info));
        let at_ms = now_ms;
        let into = &into;
        self.make(&attempt, &Change::Merge { into, from, at_ms })
            .await?;
        Ok(())
    }

    /// The rows of some files of one partition as one file, and their digest.
    async fn rewrite(&self, from: &[Arc<StagedFile>]) -> Result<(Encoded, Digest)> {
        let mut rows = self.rows(from.to_vec()).await?;
        let day = from.first().and_then(|file| day_of(file));
        let (encoder, schema) = (self.encoder().clone(), rows.schema());
        let (sender, receiver) = mpsc::channel(2);
        let writing = move || write_all(&encoder, &schema, day, receiver);
        let writing = tokio::task::spawn_blocking(writing);
        while let Some(batch) = rows.try_next().await.map_err(|e| self.unread(e))? {
            if sender.send(batch).await.is_err() {
                // It has failed, and says why below.
                break;
            }
        }
        drop(sender);
        let written = writing.await;
        let written = written.map_err(|e| self.log().failed("merging files", e))?;
        written.map_err(|error| self.unencodable(&error))
    }

    /// Reads some files back.
    async fn digest(&self, files: Vec<Arc<StagedFile>>) -> Result<Digest> {
        let mut rows = self.rows(files).await?;
        let mut digester = Digester::new(&rows.schema()).map_err(|e| self.unread(e))?;
        while let Some(batch) = rows.try_next().await.map_err(|e| self.unread(e))? {
            digester.add(&batch).map_err(|e| self.unread(e))?;
        }
        Ok(digester.finish())
    }

    /// The rows of some files in their order, as every query reads them.
    async fn rows(&self, files: Vec<Arc<StagedFile>>) -> Result<SendableRecordBatchStream> {
        let config = SessionConfig::new().with_target_partitions(1);
        let provider = self.provider_of(&schema_of(&self.schema(), &files), Arc::new(files))?;
        let frame = SessionContext::new_with_config(config).read_table(provider);
        let frame = frame.map_err(|e| self.unread(e))?;
        frame.execute_stream().await.map_err(|e| self.unread(e))
    }

    fn unread(&self, error: impl Into<crate::error::Cause>) -> Error {
        self.log().failed("reading files to merge", error)
    }

    /// Deletes what no version since a time holds; returns how many files and bytes.
    ///
    /// A file that was uploaded long ago may still be committed by a process that slept. So how far
    /// the vacuum goes is committed first: a writer that commits afterwards sees it and does not commit
    /// such a file; and what was committed before is left alone.
    async fn vacuum(&mut self, plan: &Plan, now_ms: i64) -> Result<(u64, u64)> {
        if plan.vacuum.is_empty() && !plan.is_swept {
            return Ok((0, 0));
        }
        let info = serde_json::json!({ "files": plan.vacuum.len() });
        let mut marks = BTreeMap::new();
        if !plan.vacuum.is_empty() {
            let before_ms = self.mark(VACUUMED).unwrap_or(i64::MIN);
            marks.insert(VACUUMED.to_owned(), before_ms.max(plan.vacuum_before_ms));
        }
        if plan.is_swept {
            marks.insert(SWEPT.to_owned(), plan.vacuum_before_ms);
        }
        let attempt = self.attempt(new_id("vacuum"), marks, ("vacuum", info));
        let retention_ms = now_ms.saturating_sub(plan.vacuum_before_ms);
        self.make(&attempt, &Change::Vacuum { retention_ms })
            .await?;
        let live: BTreeSet<&str> = self.files().iter().map(|f| f.path.as_str()).collect();
        let left = plan.vacuum.iter();
        let left: Vec<_> = left.filter(|f| !live.contains(f.path.as_str())).collect();
        let paths = left.iter().map(|file| file.path.clone()).collect();
        let deleted = self.delete(paths).await?;
        Ok((deleted, left.iter().map(|file| file.bytes).sum()))
    }

    /// A commit of maintenance.
    fn attempt(
        &self,
        commit_id: CommitId,
        mut marks: BTreeMap<String, i64>,
        (key, info): (&str, serde_json::Value),
    ) -> Attempt {
        marks.insert(MUTEX.to_owned(), self.mark(MUTEX).unwrap_or(0) + 1);
        Attempt {
            commit_id,
            marks,
            info: BTreeMap::from([(key.to_owned(), info)]),
        }
    }

    /// Deletes files; one that is gone already counts as deleted.
    async fn delete(&self, paths: Vec<String>) -> Result<u64> {
        let store = &self.log().store;
        let count = paths.len() as u64;
        let paths = paths.into_iter().map(|path| Ok(Path::from(path)));
        let mut deleted = store.delete_stream(stream::iter(paths).boxed());
        while let Some(result) = deleted.next().await {
            failpoint::reached(&self.log().table, "deleted");
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.log().failed("deleting files", error)),
            }
        }
        Ok(count)
    }

    /// The log's files by name, and with `everything` all others that are stored by path.
    async fn list(&self, everything: bool) -> Result<(Vec<Stored>, Vec<Stored>)> {
        let store = &self.log().store;
        let folder = Path::from(FOLDER);
        let mut listed = store.list(Some(&folder).filter(|_| !everything));
        let (mut log, mut stored) = (Vec::new(), Vec::new());
        let failed = |e| self.log().failed("listing files", e);
        while let Some(file) = listed.try_next().await.map_err(failed)? {
            let path = file.location.as_ref();
            let in_log = path.strip_prefix(FOLDER).and_then(|p| p.strip_prefix('/'));
            let (list, path) = match in_log {
                Some(name) => (&mut log, name),
                None => (&mut stored, path),
            };
            list.push(Stored {
                path: path.to_owned(),
                modified_ms: file.last_modified.timestamp_millis(),
                bytes: file.size,
            });
        }
        Ok((log, stored))
    }

    /// Files that were removed from the table and when, as far back as its log remembers. What was loaded knows it until
    /// something is committed here.
    async fn removed(&self) -> Result<BTreeMap<String, Removed>> {
        if let Some(removed) = self.removed_as_loaded() {
            return Ok(removed.clone());
        }
        let state = self.log().replay(None).await?;
        Ok(state.map_or_else(BTreeMap::new, |state| removed_files(&state)))
    }
}

/// Encodes batches as they come.
fn write_all(
    encoder: &Encoder,
    schema: &SchemaRef,
    day: Option<i32>,
    mut batches: mpsc::Receiver<RecordBatch>,
) -> Result<(Encoded, Digest), EncodeError> {
    let mut digester = Digester::new(schema)?;
    let mut file = encoder.begin_as(day, schema)?;
    while let Some(batch) = batches.blocking_recv() {
        digester.add(&batch)?;
        file.write(&encoder.in_file(&batch)?)?;
    }
    Ok((file.finish()?, digester.finish()))
}

/// Files by their lower bounds of some columns, then by age and name.
fn in_order(files: &[Arc<StagedFile>], schema: &Schema, order: &[&str]) -> Vec<Arc<StagedFile>> {
    let columns = order.iter().filter_map(|c| schema.field_with_name(c).ok());
    let columns: Vec<_> = columns.collect();
    let bounds = |file: &StagedFile| -> Vec<Option<ScalarValue>> {
        let statistics = FileStatistics::parse(file.statistics.as_deref());
        let columns = columns.iter();
        columns
            .map(|column| statistics.min(column.name(), column.data_type()))
            .collect()
    };
    let mut of_partition: BTreeMap<_, usize> = BTreeMap::new();
    for file in files {
        *of_partition.entry(&file.partition).or_default() += 1;
    }
    // A file that is alone in its partition has no neighbour, and a year has many of them.
    let is_alone = |file: &StagedFile| of_partition.get(&file.partition) == Some(&1);
    let keyed = files.iter().map(|file| match is_alone(file) {
        true => (Vec::new(), file),
        false => (bounds(file), file),
    });
    let mut keyed: Vec<_> = keyed.collect();
    keyed.sort_by(|(a, file_a), (b, file_b)| {
        let by_bounds = a.partial_cmp(b).unwrap_or(Ordering::Equal);
        let by_age = || (file_a.modified_ms, &file_a.path).cmp(&(file_b.modified_ms, &file_b.path));
        by_bounds.then_with(by_age)
    });
    keyed
        .into_iter()
        .map(|(_, file)| Arc::clone(file))
        .collect()
}

/// The day of a file in a table with partitions.
fn day_of(file: &StagedFile) -> Option<i32> {
    let value = file.partition.values().next()?.as_deref()?;
    day_number(value)
}

/// The rows that the log says some files have; `None` when it does not say so of each.
fn logged_rows(files: &[Arc<StagedFile>]) -> Option<u64> {
    let rows =
        |file: &Arc<StagedFile>| FileStatistics::parse(file.statistics.as_deref()).num_records;
    files.iter().map(rows).sum()
}

fn new_id(kind: &str) -> CommitId {
    CommitId(format!("{kind}-{}", uuid::Uuid::now_v7().simple()))
}
