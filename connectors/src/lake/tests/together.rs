//! Rows of one subject stand together in a file, so that asking for one reads a page or two of each row group; and it is
//! never less than what there is.

use super::*;
use crate::lake::maintenance::{Limits, plan};
use datafusion::{physical_plan::collect, prelude::SessionConfig};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::sync::Arc;

/// A row: which window, whose, how much.
type Row = (i64, Option<String>, i64);

const COLUMNS: [&str; 3] = ["window", "subject", "n"];
/// A page of the encoder.
const PAGE: usize = 4_096;

fn columns() -> Schema {
    Schema::new(vec![
        Field::new("window", DataType::Int64, false),
        Field::new("subject", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
    ])
}

fn batch(rows: &[Row]) -> RecordBatch {
    let windows = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    let subjects: StringArray = rows.iter().map(|row| row.1.as_deref()).collect();
    let numbers = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    let arrays: Vec<ArrayRef> = vec![Arc::new(windows), Arc::new(subjects), Arc::new(numbers)];
    RecordBatch::try_new(Arc::new(columns()), arrays).unwrap()
}

async fn panes(lake: &Lake) -> DeltaTable {
    let (columns, plain) = (columns(), BTreeMap::new());
    let table = lake.table("panes", &columns, &[], &plain);
    table.await.unwrap()
}

async fn write(table: &mut DeltaTable, id: &str, rows: &[Row]) {
    let attempt = attempt(id, &[]);
    let batches: Vec<RecordBatch> = rows.chunks(10_000).map(batch).collect();
    let staged = table.stage(&attempt.commit_id, &batches).await.unwrap();
    table.commit(&attempt, &staged).await.unwrap();
}

/// Merges all files into one.
async fn merge(lake: &Lake, keep_together: bool) {
    let table = lake.existing("panes").await.unwrap().unwrap();
    let mut table = match keep_together {
        true => table.keeping_together("subject"),
        false => table,
    };
    let limits = Limits {
        file_bytes: 1 << 30,
        vacuum_after_ms: i64::MAX,
        log_after_ms: i64::MAX,
    };
    let files = table.files().len();
    let mut plan = plan(&table.look(&["window"], &limits, 0).await.unwrap(), &limits);
    plan.merges = vec![table.look(&["window"], &limits, 0).await.unwrap().files];
    let done = table.carry_out(&plan, 0).await.unwrap();
    assert_eq!((done.merged, done.into), (files as u64, 1));
}

/// The rows that pass a condition, sorted, and how many were read of the files for it.
async fn ask(table: &DeltaTable, condition: &str) -> (Vec<Row>, usize) {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    context
        .register_table("t", table.provider().unwrap())
        .unwrap();
    let query = format!("SELECT \"window\", subject, n FROM t WHERE {condition}");
    let frame = context.sql(&query).await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let batches = collect(Arc::clone(&plan), context.task_ctx())
        .await
        .unwrap();
    let mut leaf = plan;
    while let Some(child) = leaf.children().first().map(|child| Arc::clone(child)) {
        leaf = child;
    }
    let read = leaf.metrics().and_then(|metrics| metrics.output_rows());
    let mut rows: Vec<Row> = batches.iter().flat_map(rows_of).collect();
    rows.sort();
    (rows, read.unwrap_or(0))
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let [windows, subjects, numbers] = COLUMNS.map(|name| &batch[name]);
    let windows = windows.as_primitive::<arrow::datatypes::Int64Type>();
    let numbers = numbers.as_primitive::<arrow::datatypes::Int64Type>();
    let subjects = arrow::compute::cast(subjects, &DataType::Utf8).unwrap();
    let subjects = subjects.as_string::<i32>();
    let subject = |row| {
        subjects
            .is_valid(row)
            .then(|| subjects.value(row).to_owned())
    };
    let row = |row| (windows.value(row), subject(row), numbers.value(row));
    (0..batch.num_rows()).map(row).collect()
}

/// Each of some subjects in each of some windows, in the order in which windows close.
fn usage(windows: std::ops::Range<i64>, subjects: i64) -> Vec<Row> {
    let of_window = |window| {
        (0..subjects).map(move |subject| {
            let name = format!("customer-{subject:06}");
            (window, Some(name), 1_000_000 * window + subject)
        })
    };
    windows.flat_map(of_window).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subject_of_many_reads_a_page_or_two_of_a_file() {
    let place = place().await;
    let mut table = panes(&place.lake).await.keeping_together("subject");
    // 40 windows of 1,000 subjects: ten pages.
    write(&mut table, "c1", &usage(0..40, 1_000)).await;
    let expected: Vec<Row> = (0..40)
        .map(|window| {
            (
                window,
                Some("customer-000500".into()),
                1_000_000 * window + 500,
            )
        })
        .collect();
    let (rows, read) = ask(&table, "subject = 'customer-000500'").await;
    assert_eq!(rows, expected);
    assert!(read <= 2 * PAGE, "{read} of 40000 rows were read");
    let (rows, read) = ask(&table, "subject IN ('customer-000000', 'customer-000999')").await;
    assert_eq!(rows.len(), 80);
    assert!(read <= 2 * PAGE, "{read} of 40000 rows were read");
    let (rows, read) = ask(&table, "subject = 'customer-001000'").await;
    assert_eq!((rows, read), (vec![], 0), "above all of them");
    assert_eq!(ask(&table, "n >= 0").await.1, 40_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_from_before_are_read_whole_and_sorted_when_they_are_merged() {
    let place = place().await;
    let mut before = panes(&place.lake).await;
    for part in 0..4 {
        let rows = usage(10 * part..10 * (part + 1), 1_000);
        write(&mut before, &format!("c{part}"), &rows).await;
    }
    let condition = "subject = 'customer-000500'";
    let (rows, read) = ask(&before, condition).await;
    assert_eq!((rows.len(), read), (40, 40_000));
    merge(&place.lake, true).await;
    let after = panes(&place.lake).await;
    assert_eq!(after.files().len(), 1);
    let (merged, read) = ask(&after, condition).await;
    assert_eq!(merged, rows);
    assert!(read <= 2 * PAGE, "{read} of 40000 rows were read");
    assert_eq!(ask(&after, "true").await.0, usage(0..40, 1_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_groups_stay_in_order_of_time_and_are_sorted_in_themselves() {
    let place = place().await;
    let mut table = panes(&place.lake).await.keeping_together("subject");
    // More than one row group of 262,144 rows.
    let rows = usage(0..300, 1_000);
    write(&mut table, "c1", &rows).await;
    let path = local_folder(&table).join(&table.files()[0].path);
    let file = std::fs::File::open(path).unwrap();
    let file = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let groups = file.metadata().row_groups();
    let groups: Vec<i64> = groups.iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [262_144, 37_856]);
    let batches = file.with_batch_size(300_000).build().unwrap();
    let read: Vec<Row> = batches.flat_map(|b| rows_of(&b.unwrap())).collect();
    let mut expected = rows;
    for group in [0..262_144, 262_144..300_000] {
        expected[group].sort_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
    }
    assert!(
        read == expected,
        "each row group is sorted by subject, then window"
    );
    let (rows, read) = ask(&table, "subject = 'customer-000500' AND \"window\" >= 290").await;
    assert_eq!(rows.len(), 10);
    assert!(
        read <= 2 * PAGE,
        "{read} rows were read of the second row group"
    );
}

/// Subjects that begin alike for longer than any bound keeps, differ in case, are empty, or NULL.
#[tokio::test(flavor = "multi_thread")]
async fn bounds_leave_out_no_subject_however_it_is_called() {
    let place = place().await;
    let mut table = panes(&place.lake).await.keeping_together("subject");
    let long = "p".repeat(100);
    let names = [
        None,
        Some(String::new()),
        Some("A".into()),
        Some("ACME".into()),
        Some("Acme".into()),
        Some("acme".into()),
        Some("acme-".into()),
        Some("acme-1".into()),
        Some("acme-10".into()),
        Some(long.clone()),
        Some(format!("{long}1")),
        Some(format!("{long}2")),
        Some(format!("{long}\u{10ffff}")),
        Some("\u{10ffff}".repeat(80)),
        Some("é".into()),
        Some("e\u{301}".into()),
        Some("'; --".into()),
    ];
    // Each has pages of its own, beside pages of all.
    let mut rows = Vec::new();
    for (place, name) in (0..).zip(&names) {
        rows.extend((0..5_000).map(|window| (window, name.clone(), place)));
    }
    rows.sort_by_key(|row| row.0);
    write(&mut table, "c1", &rows).await;
    for (place, name) in (0..).zip(&names) {
        let condition = match name {
            Some(name) => format!("subject = '{}'", name.replace('\'', "''")),
            None => "subject IS NULL".into(),
        };
        let (found, read) = ask(&table, &condition).await;
        let expected: Vec<Row> = (0..5_000).map(|w| (w, name.clone(), place)).collect();
        assert!(found == expected, "{condition}: {} rows", found.len());
        // Neighbours that begin with the same 64 characters are read with it.
        let most = if condition.len() > 100 { 5 } else { 2 };
        let most = 5_000 * most + 2 * PAGE;
        assert!(
            read <= most,
            "{condition}: {read} of {} were read",
            rows.len()
        );
    }
    for (condition, count) in [
        ("subject LIKE 'acme%'", 4),
        ("subject > 'acme' AND subject < 'acme-2'", 3),
        ("subject <> 'acme'", 15),
        ("subject IS NULL OR subject = 'A'", 2),
        ("NOT (subject = 'A' OR subject = 'acme')", 14),
    ] {
        let (found, _) = ask(&table, condition).await;
        assert_eq!(found.len(), 5_000 * count, "{condition}");
    }
}
