//! The contract of [`Table`], checked through handles that are processes to one another.

use crate::{
    Attempt, CommitId, ErrorKind, Staged, Table,
    error::{Error, Result},
    lake::Lake,
};
use arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{catalog::TableProvider, prelude::SessionContext};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A place with tables of [`schema`].
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens the newest version of the table with this name, creating it when it is missing.
    async fn open(&self, name: &str) -> Result<Box<dyn Table>>;
}

#[async_trait]
impl Place for Lake {
    async fn open(&self, name: &str) -> Result<Box<dyn Table>> {
        let table = self.table(name, &schema(), &[], &BTreeMap::new()).await?;
        Ok(Box::new(table))
    }
}

/// The columns of the tables that are used here.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("shard", DataType::Utf8, false),
        Field::new("sequence", DataType::Int64, true),
    ]))
}

/// Checks every promise, each with a table of its own.
///
/// # Errors
/// What the place cannot do at all.
///
/// # Panics
/// A promise is not kept.
pub async fn check(place: &dyn Place) -> Result<()> {
    rows_and_marks_appear_together(place).await?;
    the_same_attempt_again_changes_nothing(place).await?;
    an_old_owner_is_fenced_for_ever(place).await?;
    owners_of_other_marks_do_not_hinder_each_other(place).await?;
    the_log_tells_what_came_after_the_snapshot(place).await?;
    rows_that_are_not_committed_are_never_seen(place).await?;
    a_file_has_the_same_rows_in_every_snapshot(place).await
}

async fn rows_and_marks_appear_together(place: &dyn Place) -> Result<()> {
    let mut writer = place.open("together").await?;
    let reader = place.open("together").await?;
    let attempt = attempt("c1", &[("s/seq", 3), ("s/epoch", 1)]);
    let staged = stage(writer.as_ref(), &attempt, &[1, 2]).await?;
    assert_eq!(staged.rows, 2);
    assert!(
        rows(writer.as_ref()).await?.is_empty(),
        "staged is not committed"
    );
    let version = writer.commit(&attempt, &staged).await?;
    let newcomer = place.open("together").await?;
    for table in [&writer, &newcomer] {
        assert_eq!(rows(table.as_ref()).await?, [1, 2]);
        assert_eq!(table.version(), version);
        assert_eq!(
            (table.mark("s/seq"), table.mark("s/epoch")),
            (Some(3), Some(1))
        );
        assert_eq!(table.mark("other"), None);
    }
    let mut reader = reader;
    assert!(
        rows(reader.as_ref()).await?.is_empty(),
        "a snapshot is pinned"
    );
    assert_eq!(reader.mark("s/seq"), None);
    reader.refresh().await?;
    assert_eq!(rows(reader.as_ref()).await?, [1, 2]);
    assert_eq!(reader.mark("s/seq"), Some(3));
    Ok(())
}

async fn the_same_attempt_again_changes_nothing(place: &dyn Place) -> Result<()> {
    let mut table = place.open("again").await?;
    // It does not know what the other one committed: as a process whose answer was lost.
    let mut unanswered = place.open("again").await?;
    let first = attempt("c1", &[("s/seq", 1)]);
    let staged = stage(table.as_ref(), &first, &[1]).await?;
    let version = table.commit(&first, &staged).await?;
    assert_eq!(table.commit(&first, &staged).await?, version);
    assert_eq!(unanswered.commit(&first, &staged).await?, version);
    for table in [&mut table, &mut unanswered] {
        assert_eq!(rows(table.as_ref()).await?, [1]);
        assert_eq!(table.version(), version);
    }
    let second = attempt("c2", &[("s/seq", 2)]);
    let staged = stage(unanswered.as_ref(), &second, &[2]).await?;
    assert!(unanswered.commit(&second, &staged).await? > version);
    assert_eq!(rows(unanswered.as_ref()).await?, [1, 2]);
    Ok(())
}

async fn an_old_owner_is_fenced_for_ever(place: &dyn Place) -> Result<()> {
    let mut old = place.open("fenced").await?;
    commit(old.as_mut(), "c1", &[1], &[("s/seq", 1), ("s/epoch", 1)]).await?;
    let mut new = place.open("fenced").await?;
    commit(new.as_mut(), "c2", &[], &[("s/epoch", 2)]).await?;
    for id in ["c3", "c3", "c4"] {
        let refused = commit(old.as_mut(), id, &[9], &[("s/seq", 9), ("s/epoch", 1)]).await;
        let kind = refused.as_ref().map_err(Error::kind);
        assert_eq!(kind, Err(ErrorKind::Fenced), "{refused:?}");
    }
    commit(new.as_mut(), "c5", &[2], &[("s/seq", 2), ("s/epoch", 2)]).await?;
    let table = place.open("fenced").await?;
    assert_eq!(rows(table.as_ref()).await?, [1, 2]);
    assert_eq!(
        (table.mark("s/seq"), table.mark("s/epoch")),
        (Some(2), Some(2))
    );
    Ok(())
}

async fn owners_of_other_marks_do_not_hinder_each_other(place: &dyn Place) -> Result<()> {
    let mut a = place.open("others").await?;
    let mut b = place.open("others").await?;
    for flush in 1..=3 {
        let id = |owner: &str| format!("{owner}{flush}");
        commit(a.as_mut(), &id("a"), &[flush], &[("a/seq", flush)]).await?;
        commit(b.as_mut(), &id("b"), &[flush + 10], &[("b/seq", flush)]).await?;
    }
    assert_eq!(rows(b.as_ref()).await?, [1, 2, 3, 11, 12, 13]);
    assert_eq!((b.mark("a/seq"), b.mark("b/seq")), (Some(3), Some(3)));
    Ok(())
}

async fn the_log_tells_what_came_after_the_snapshot(place: &dyn Place) -> Result<()> {
    let mut table = place.open("log").await?;
    commit(table.as_mut(), "c1", &[1], &[("s/seq", 1)]).await?;
    let behind = place.open("log").await?;
    commit(table.as_mut(), "c2", &[2], &[("s/seq", 2)]).await?;
    commit(table.as_mut(), "c3", &[], &[("t/seq", 7)]).await?;
    assert!(table.log_since().await?.is_empty());
    let log = behind.log_since().await?;
    let ids = log.iter().filter_map(|commit| commit.commit_id.as_ref());
    assert_eq!(
        ids.map(|id| id.0.as_str()).collect::<Vec<_>>(),
        ["c2", "c3"]
    );
    let versions: Vec<_> = log.iter().map(|commit| commit.version).collect();
    assert_eq!(versions, [behind.version() + 1, behind.version() + 2]);
    assert_eq!(log[0].marks, BTreeMap::from([("s/seq".to_owned(), 2)]));
    assert_eq!(log[1].marks, BTreeMap::from([("t/seq".to_owned(), 7)]));
    assert_eq!(log[0].info.get("note"), Some(&json!({"of": "c2"})));
    Ok(())
}

async fn rows_that_are_not_committed_are_never_seen(place: &dyn Place) -> Result<()> {
    let mut table = place.open("left").await?;
    let left = attempt("left", &[("s/seq", 1)]);
    stage(table.as_ref(), &left, &[1]).await?;
    commit(table.as_mut(), "c1", &[2], &[("s/seq", 2)]).await?;
    for table in [place.open("left").await?, table] {
        assert_eq!(rows(table.as_ref()).await?, [2]);
    }
    Ok(())
}

async fn a_file_has_the_same_rows_in_every_snapshot(place: &dyn Place) -> Result<()> {
    let mut table = place.open("files").await?;
    commit(table.as_mut(), "c1", &[1, 2], &[("s/seq", 1)]).await?;
    let first = table.provider()?;
    commit(table.as_mut(), "c2", &[3], &[("s/seq", 2)]).await?;
    let second = table.provider()?;
    let old: BTreeSet<&str> = first.files().into_iter().collect();
    let all: BTreeSet<&str> = second.files().into_iter().collect();
    let new: BTreeSet<&str> = all.difference(&old).copied().collect();
    assert!(all.is_superset(&old), "{old:?} {all:?}");
    for (files, sequences) in [(&old, &[1, 2][..]), (&new, &[3]), (&all, &[1, 2, 3])] {
        let rows = rows_of(table.as_ref(), second.of_files(files)).await?;
        assert_eq!(rows, sequences, "{files:?}");
    }
    Ok(())
}

fn attempt(id: &str, marks: &[(&str, i64)]) -> Attempt {
    Attempt {
        commit_id: CommitId(id.to_owned()),
        marks: marks.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
        info: BTreeMap::from([("note".to_owned(), json!({ "of": id }))]),
    }
}

async fn stage(table: &dyn Table, attempt: &Attempt, sequences: &[i64]) -> Result<Staged> {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["s"; sequences.len()])),
        Arc::new(Int64Array::from(sequences.to_vec())),
    ];
    let batch = RecordBatch::try_new(schema(), columns).map_err(|e| unread(table, e))?;
    table.stage(&attempt.commit_id, &[batch]).await
}

async fn commit(
    table: &mut dyn Table,
    id: &str,
    sequences: &[i64],
    marks: &[(&str, i64)],
) -> Result<i64> {
    let attempt = attempt(id, marks);
    let staged = stage(table, &attempt, sequences).await?;
    table.commit(&attempt, &staged).await
}

/// The sequences that SQL finds, in order.
async fn rows(table: &dyn Table) -> Result<Vec<i64>> {
    rows_of(table, table.provider()?).await
}

async fn rows_of(table: &dyn Table, rows: Arc<dyn TableProvider>) -> Result<Vec<i64>> {
    let frame = SessionContext::new().read_table(rows);
    let frame = frame.map_err(|e| unread(table, e))?;
    let batches = frame.collect().await.map_err(|e| unread(table, e))?;
    let mut sequences = Vec::new();
    for batch in &batches {
        let column = batch["sequence"].as_primitive::<Int64Type>();
        sequences.extend_from_slice(column.values());
    }
    sequences.sort_unstable();
    Ok(sequences)
}

fn unread(table: &dyn Table, source: impl Into<crate::error::Cause>) -> Error {
    Error::Table {
        table: table.name().to_owned(),
        doing: "reading rows",
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryTable;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Memory(Mutex<BTreeMap<String, MemoryTable>>);

    #[async_trait]
    impl Place for Memory {
        async fn open(&self, name: &str) -> Result<Box<dyn Table>> {
            let mut table = {
                let mut tables = self.0.lock().unwrap();
                let table = tables.entry(name.to_owned());
                let table = table.or_insert_with(|| MemoryTable::new(name, schema()));
                table.clone()
            };
            table.refresh().await?;
            Ok(Box::new(table))
        }
    }

    #[tokio::test]
    async fn a_table_in_memory_keeps_the_contract() {
        check(&Memory::default()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_delta_table_on_disk_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open("lake", folder.path()).await.unwrap();
        check(&lake).await.unwrap();
    }
}
