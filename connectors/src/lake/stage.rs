//! Rows to uploaded files that no reader sees yet.

use super::{
    CommitId, DeltaTable, Staged, StagedFile,
    encode::{EncodeError, Encoded, Encoder},
    statistics::day_text,
};
use crate::{
    error::{Error, Result},
    failpoint,
};
use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStoreExt, PutPayload, path::Path};
use std::collections::BTreeMap;

/// Files that are encoded and uploaded at once.
const UPLOADS: usize = 4;

impl DeltaTable {
    /// Encodes and uploads rows, one file a day, or some for many event types. Repeating it with the same rows writes the same files.
    pub(crate) async fn upload_rows(
        &self,
        commit_id: &CommitId,
        batches: &[RecordBatch],
    ) -> Result<Staged> {
        let batches = batches.to_vec();
        let files = self
            .encoding(move |encoder| encoder.split(&batches))
            .await?;
        let files = stream::iter(files.into_iter().enumerate())
            .map(|(number, (place, rows))| self.stage_file(commit_id, number, place.day, rows))
            .buffered(UPLOADS)
            .try_collect::<Vec<_>>();
        let files = files.await?;
        Ok(Staged {
            rows: files.iter().map(|(rows, _)| rows).sum(),
            bytes: files.iter().map(|(_, file)| file.bytes).sum(),
            files: files.into_iter().map(|(_, file)| file).collect(),
        })
    }

    async fn stage_file(
        &self,
        commit_id: &CommitId,
        number: usize,
        day: Option<i32>,
        rows: Vec<RecordBatch>,
    ) -> Result<(u64, StagedFile)> {
        let encoded = self
            .encoding(move |encoder| encoder.encode(day, &rows))
            .await?;
        let rows = encoded.rows;
        let file = self.upload(commit_id, number, encoded).await?;
        Ok((rows, file))
    }

    pub(crate) async fn upload(
        &self,
        commit_id: &CommitId,
        number: usize,
        encoded: Encoded,
    ) -> Result<StagedFile> {
        let partition = self.partition_values(encoded.day)?;
        let folders = partition.iter().map(|(column, value)| {
            let value = value.as_deref().unwrap_or("__HIVE_DEFAULT_PARTITION__");
            format!("{column}={value}/")
        });
        let path = format!(
            "{}part-{number}-{}.parquet",
            folders.collect::<String>(),
            commit_id.0
        );
        let bytes = encoded.bytes.len() as u64;
        let failed = |e: object_store::Error| self.log().failed("uploading a data file", e);
        let store = &self.log().store;
        let location = Path::from(path.as_str());
        store
            .put(&location, PutPayload::from(encoded.bytes))
            .await
            .map_err(failed)?;
        failpoint::reached(&self.log().table, "uploaded");
        let meta = store.head(&location).await.map_err(failed)?;
        Ok(StagedFile {
            path,
            bytes,
            partition,
            modified_ms: meta.last_modified.timestamp_millis(),
            statistics: Some(encoded.statistics.into()),
            structs: encoded.structs.map(Into::into),
        })
    }

    fn partition_values(&self, day: Option<i32>) -> Result<BTreeMap<String, Option<String>>> {
        let Some(column) = self.partition() else {
            return Ok(BTreeMap::new());
        };
        let text = day.map(|day| {
            day_text(day).ok_or_else(|| Error::Data {
                table: self.log().table.clone(),
                problem: format!("`{column}` is day {day} since 1970, beyond the calendar"),
            })
        });
        Ok(BTreeMap::from([(column.clone(), text.transpose()?)]))
    }

    /// Runs CPU-bound work off the async threads.
    async fn encoding<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Encoder) -> Result<T, EncodeError> + Send + 'static,
    ) -> Result<T> {
        let encoder = self.encoder().clone();
        let done = tokio::task::spawn_blocking(move || work(&encoder)).await;
        let done = done.map_err(|e| self.log().failed("encoding rows", e))?;
        done.map_err(|error| self.unencodable(&error))
    }

    /// Rows that do not fit the table.
    pub(crate) fn unencodable(&self, error: &EncodeError) -> Error {
        Error::Data {
            table: self.log().table.clone(),
            problem: error.to_string(),
        }
    }
}
