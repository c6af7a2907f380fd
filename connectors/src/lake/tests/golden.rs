//! A table as deltalake 1.1 wrote it for us: read, continued and maintained, for ever.
//!
//! 50 flushes of two rows in one day and 6 in the next, with a checkpoint after the 50th; the first day
//! merged, its old files deleted, the log before the checkpoint cleaned up; then the column `task`, and a
//! last flush. Sequences are 0 to 113; even rows have values, odd ones NULL.

use super::{
    maintenance::{LATER_MS, LIMITS, everything, maintain},
    *,
};
use std::{fs, path::Path as FilePath};

fn copy(from: &FilePath, to: &FilePath) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), &to).unwrap()),
        }
    }
}

async fn golden() -> (Place, DeltaTable) {
    let folder = tempfile::tempdir().unwrap();
    let stored = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("src/lake/tests/golden");
    copy(&stored, &folder.path().join("lake/events"));
    let lake = Lake::open("lake", folder.path()).await.unwrap();
    let place = Place {
        _folder: folder,
        lake,
    };
    let table = events(&place.lake, &["llm", "task"]).await;
    (place, table)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_deltalake_wrote_is_read() {
    let (place, table) = golden().await;
    assert_eq!((table.version(), table.files().len()), (60, 8));
    assert_eq!(table.schema().as_ref(), &schema(&["llm", "task"]));
    let marks = [
        ("maintenance", Some(2)),
        ("other/seq", Some(7)),
        ("s/seq", Some(112)),
        ("vacuumed_before_ms", Some(1_700_000_000_001)),
    ];
    assert_eq!(marks.map(|(mark, _)| (mark, table.mark(mark))), marks);
    assert_eq!(table.marks().len(), 4);
    let cases = [
        ("SELECT count(*) FROM t", 114),
        ("SELECT sum(sequence) FROM t", 113 * 114 / 2),
        ("SELECT sum(llm['n']) FROM t", 2 * 56 * 57 / 2),
        ("SELECT sum(task['n']) FROM t", 112),
        (
            "SELECT count(*) FROM t WHERE ingest_day = DATE '2026-07-31'",
            100,
        ),
        (
            "SELECT count(*) FROM t WHERE amount = 4.000000000000000001",
            1,
        ),
    ];
    for (query, answer) in cases {
        assert_eq!(number(&table, query).await, answer, "{query}");
    }
    assert_eq!(files_opened(&table, "sequence = 7").await, 1);
    // Files that were removed are remembered through its checkpoint and its entries.
    let seen = table.look(&["sequence"], &LIMITS, LATER_MS).await.unwrap();
    assert_eq!(seen.removed.len(), 50);
    drop(place);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_deltalake_wrote_is_continued() {
    let (place, mut table) = golden().await;
    for sequence in 114..164 {
        let id = format!("g{sequence}");
        append(&mut table, &id, &[sequence], &[("s/seq", sequence)])
            .await
            .unwrap();
    }
    let log = local_folder(&table).join("_delta_log");
    assert!(log.join(format!("{:020}.checkpoint.parquet", 100)).exists());
    let rows = everything(&table).await;
    let done = maintain(&place.lake, LATER_MS + 86_400_002).await.unwrap();
    // The entries from 50 to 99, and its checkpoint.
    assert_eq!(done.log, 51);
    let again = events(&place.lake, &["llm", "task"]).await;
    assert_eq!(everything(&again).await, rows);
    assert_eq!(
        number(&again, "SELECT sum(sequence) FROM t").await,
        163 * 164 / 2
    );
    assert_eq!(
        (again.mark("s/seq"), again.mark("other/seq")),
        (Some(163), Some(7))
    );
}
