//! Tables with many nullable structs: a file has those of its rows alone, and readers miss nothing.

use super::{maintenance::maintain, *};
use crate::lake::encode::Encoder;

/// 400 structs of three columns: three groups, the first of 171 and the second of 171 structs.
fn names() -> Vec<String> {
    (0..400).map(|number| format!("s{number:03}")).collect()
}

async fn wide(lake: &Lake) -> DeltaTable {
    let names = names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let wanted = schema(&names);
    let configuration = fingerprint("a");
    let table = lake.table("events", &wanted, &["ingest_day"], &configuration);
    table.await.unwrap()
}

/// A row of the struct `name`; an odd one is of none.
fn row(name: &str, sequence: i64, day: i32) -> RecordBatch {
    rows(&schema(&[name]), &[sequence], &[day])
}

async fn commit(table: &mut DeltaTable, id: &str, batches: &[RecordBatch]) {
    let attempt = attempt(id, &[("s/seq", 1)]);
    let staged = table.stage(&attempt.commit_id, batches).await.unwrap();
    table.commit(&attempt, &staged).await.unwrap();
}

/// The structs of each file, by path.
fn structs(table: &DeltaTable) -> Vec<Vec<String>> {
    let files = table.files().iter();
    let mut files: Vec<_> = files
        .map(|file| (&file.path, file.structs.as_deref()))
        .collect();
    files.sort();
    let structs = files
        .into_iter()
        .map(|(_, structs)| structs.unwrap().to_vec());
    structs.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_the_structs_of_its_rows_alone() {
    let place = place().await;
    let mut table = wide(&place.lake).await;
    let parts = table.provider().unwrap().parts();
    assert_eq!(parts.len(), 1, "of a table without files too");
    // Out of order, with one of no struct, which goes to the last file.
    let batches = [
        row("s399", 2, DAY_1),
        row("s001", 4, DAY_1),
        row("s000", 5, DAY_1),
        row("s171", 6, DAY_1),
        row("s001", 8, DAY_1),
        row("s170", 10, DAY_1),
        row("s000", 12, DAY_2),
    ];
    commit(&mut table, "c1", &batches).await;
    let expected = vec![
        vec!["s001", "s170"],
        vec!["s171"],
        vec!["s399"],
        vec!["s000"],
    ];
    let reopened = place.lake.existing("events").await.unwrap().unwrap();
    for table in [&table, &reopened] {
        assert_eq!(structs(table), expected);
        assert_eq!(number(table, "SELECT count(*) FROM t").await, 7);
        let sum = "SELECT sum(s001['n']) FROM t";
        assert_eq!(number(table, sum).await, 12);
        let each = "SELECT sum(s000['n']) * 1000000 + sum(s171['n']) * 10000 + sum(s399['n']) * 100 + count(s002) FROM t";
        assert_eq!(number(table, each).await, 12_060_200);
        for (filter, files) in [
            ("s002 IS NOT NULL", 0),
            ("s001 IS NOT NULL", 1),
            ("s171 IS NOT NULL OR s399 IS NOT NULL", 2),
            ("s001 IS NULL", 4),
        ] {
            assert_eq!(files_opened(table, filter).await, files, "{filter}");
        }
    }
    // A part has what its files have, and all parts have all rows.
    let parts = table.provider().unwrap().parts();
    let columns: Vec<usize> = parts
        .iter()
        .map(|part| part.schema().fields().len())
        .collect();
    assert_eq!(columns, [12 + 3, 12 + 1, 12 + 1]);
    let mut rows = 0;
    for part in parts {
        let frame = SessionContext::new().read_table(part).unwrap();
        rows += frame.count().await.unwrap();
    }
    assert_eq!(rows, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_has_is_known_after_a_checkpoint_and_a_merge() {
    let place = place().await;
    let mut table = wide(&place.lake).await;
    for (number, sequence) in (0..52).zip((0..).step_by(2)) {
        let (near, far) = (format!("s{number:03}"), format!("s{:03}", 399 - number));
        let batches = [
            row(&near, sequence, DAY_1),
            row(&far, 1_000 + sequence, DAY_1),
        ];
        commit(&mut table, &format!("c{number}"), &batches).await;
    }
    commit(&mut table, "last", &[row("s000", 200, DAY_2)]).await;
    let rows = "SELECT sequence, s000['n'] AS a, s051['n'] AS b, s399['n'] AS c, s200 FROM t ORDER BY sequence";
    let before = text(&table, rows).await;
    let reopened = place.lake.existing("events").await.unwrap().unwrap();
    assert!(
        reopened
            .files()
            .iter()
            .all(|file| file.structs.as_deref().is_some_and(|it| it.len() == 1))
    );
    let done = maintain(&place.lake, jiff::Timestamp::now().as_millisecond())
        .await
        .unwrap();
    assert_eq!(
        (done.merged, done.into),
        (104, 2),
        "near ones and far ones are not merged with each other"
    );
    let merged = place.lake.existing("events").await.unwrap().unwrap();
    let mut counts: Vec<usize> = structs(&merged).iter().map(Vec::len).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 52, 52]);
    assert_eq!(text(&merged, rows).await, before);
    assert_eq!(files_opened(&merged, "s051 IS NOT NULL").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_which_nothing_is_known_may_have_every_struct() {
    let place = place().await;
    let mut table = wide(&place.lake).await;
    commit(&mut table, "c1", &[row("s001", 2, DAY_1)]).await;
    commit(&mut table, "c2", &[row("s399", 4, DAY_1)]).await;
    // As lakes of before and other writers have it.
    let path = local_folder(&table).join("_delta_log/00000000000000000001.json");
    let log = std::fs::read_to_string(&path).unwrap();
    let tag = r#""tags":{"tollgate.structs":"[\"s001\"]"}"#;
    assert!(log.contains(tag), "{log}");
    std::fs::write(&path, log.replace(tag, r#""tags":{}"#)).unwrap();
    let table = place.lake.existing("events").await.unwrap().unwrap();
    assert_eq!(files_opened(&table, "s001 IS NOT NULL").await, 1);
    assert_eq!(
        files_opened(&table, "s002 IS NOT NULL").await,
        1,
        "it may have it"
    );
    assert_eq!(
        number(&table, "SELECT sum(s001['n']) + sum(s399['n']) FROM t").await,
        6
    );
    let parts = table.provider().unwrap().parts();
    let columns: Vec<usize> = parts
        .iter()
        .map(|part| part.schema().fields().len())
        .collect();
    assert_eq!(columns, [12 + 400, 12 + 1]);
}

#[test]
fn a_column_that_a_file_does_not_have_is_refused() {
    let encoder = Encoder::new(&schema(&["s000", "s001"]), Some("ingest_day"));
    let of = |name: &str| encoder.in_file(&row(name, 2, DAY_1)).unwrap();
    let mut file = encoder.begin_as(Some(DAY_1), &of("s000").schema()).unwrap();
    file.write(&of("s000")).unwrap();
    // It has as many columns, and of the same types.
    let refused = file.write(&of("s001")).unwrap_err().to_string();
    assert_eq!(refused, "column `s001` is not in the file that is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_rows_than_are_written_at_once_are_all_there() {
    let place = place().await;
    let mut table = wide(&place.lake).await;
    let sequences = |from: i64, until: i64| -> Vec<i64> { (from..until).collect() };
    let batch = |name: &str, sequences: &[i64]| {
        let days = vec![DAY_1; sequences.len()];
        rows(&schema(&[name]), sequences, &days)
    };
    // Of one type in a batch of more than 64 Ki rows, of another in many small ones.
    let mut batches = vec![batch("s000", &sequences(0, 150_000))];
    for from in (150_000..250_000).step_by(1_000) {
        batches.push(batch("s001", &sequences(from, from + 1_000)));
    }
    commit(&mut table, "c1", &batches).await;
    assert_eq!(number(&table, "SELECT count(*) FROM t").await, 250_000);
    let even = |from: i64, until: i64| (from..until).filter(|n| n % 2 == 0).sum::<i64>();
    let sum = "SELECT sum(s000['n']) FROM t";
    assert_eq!(number(&table, sum).await, even(0, 150_000));
    let sum = "SELECT sum(s001['n']) FROM t";
    assert_eq!(number(&table, sum).await, even(150_000, 250_000));
}
