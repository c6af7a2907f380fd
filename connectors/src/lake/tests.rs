use super::*;
use crate::ErrorKind;
use arrow::{
    array::*,
    compute::concat_batches,
    datatypes::{DataType, Field, TimeUnit},
    util::pretty::pretty_format_batches,
};
use datafusion::prelude::{SessionConfig, SessionContext};
use object_store::ObjectStoreExt;
use serde_json::{Value, json};
use std::collections::HashMap;

mod golden;
mod log;
mod maintenance;
mod structs;
mod together;

const DAY_1: i32 = 20_665; // 2026-07-31
const DAY_2: i32 = 20_666;

struct Place {
    _folder: tempfile::TempDir,
    lake: Lake,
}

async fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open("file://./the lake", folder.path())
        .await
        .unwrap();
    Place {
        _folder: folder,
        lake,
    }
}

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn event_struct(name: &str) -> Field {
    let path = HashMap::from([("tollgate.path".to_owned(), "[\"n\"]".to_owned())]);
    let children = vec![
        Field::new("model", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true).with_metadata(path),
        Field::new("cost", DataType::Decimal128(38, 9), true),
    ];
    Field::new(name, DataType::Struct(children.into()), true)
}

fn schema(structs: &[&str]) -> Schema {
    let mut fields = vec![
        Field::new("shard", DataType::Utf8, false),
        Field::new("sequence", DataType::Int64, false),
        Field::new("ordinal", DataType::Int32, false),
        Field::new("subject", DataType::Utf8, true),
        Field::new("event_time", instant(), true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("amount", DataType::Decimal128(38, 18), true),
        Field::new("small", DataType::Decimal128(9, 2), true),
        Field::new("raw", DataType::Binary, true),
        Field::new("due", DataType::Date32, true),
    ];
    fields.extend(structs.iter().map(|name| event_struct(name)));
    fields.push(Field::new("extra", DataType::Utf8, true));
    fields.push(Field::new("ingest_day", DataType::Date32, false));
    Schema::new(fields)
}

/// Rows with these sequences; odd ones have NULL wherever it may be.
fn rows(schema: &Schema, sequences: &[i64], days: &[i32]) -> RecordBatch {
    let n = sequences.len();
    let even: Vec<bool> = sequences.iter().map(|s| s % 2 == 0).collect();
    let some = |s: &i64| (s % 2 == 0).then_some(*s);
    let amount = |s: &i64| some(s).map(|s| i128::from(s) * 10_i128.pow(18) + 1);
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match (field.name().as_str(), field.data_type()) {
            ("shard", _) => Arc::new(StringArray::from(vec!["USAGE"; n])),
            ("sequence", _) => Arc::new(Int64Array::from(sequences.to_vec())),
            ("ordinal", _) => Arc::new(Int32Array::from(vec![0; n])),
            ("subject", _) => Arc::new(
                sequences
                    .iter()
                    .map(|s| some(s).map(|s| format!("cust_{s:03}")))
                    .collect::<StringArray>(),
            ),
            ("event_time", _) => Arc::new(
                sequences
                    .iter()
                    .map(|s| some(s).map(|s| s * 1_000_000 + 1))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ),
            ("flag", _) => Arc::new(
                sequences
                    .iter()
                    .map(|s| some(s).map(|_| true))
                    .collect::<BooleanArray>(),
            ),
            ("amount", _) => Arc::new(
                sequences
                    .iter()
                    .map(amount)
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(38, 18)
                    .unwrap(),
            ),
            ("small", _) => Arc::new(
                sequences
                    .iter()
                    .map(|s| some(s).map(i128::from))
                    .collect::<Decimal128Array>()
                    .with_precision_and_scale(9, 2)
                    .unwrap(),
            ),
            ("raw", _) => Arc::new(
                sequences
                    .iter()
                    .map(|s| some(s).map(|s| vec![0xff, u8::try_from(s % 100).unwrap()]))
                    .collect::<BinaryArray>(),
            ),
            ("due", _) => Arc::new(
                sequences
                    .iter()
                    .map(|s| some(s).map(|_| DAY_1))
                    .collect::<Date32Array>(),
            ),
            ("ingest_day", _) => Arc::new(Date32Array::from(days.to_vec())),
            (_, DataType::Struct(fields)) => {
                let children: Vec<ArrayRef> = vec![
                    Arc::new(
                        sequences
                            .iter()
                            .map(|s| some(s).map(|_| "m1"))
                            .collect::<StringArray>(),
                    ),
                    Arc::new(sequences.iter().map(some).collect::<Int64Array>()),
                    Arc::new(
                        sequences
                            .iter()
                            .map(|s| some(s).map(i128::from))
                            .collect::<Decimal128Array>()
                            .with_precision_and_scale(38, 9)
                            .unwrap(),
                    ),
                ];
                Arc::new(StructArray::new(
                    fields.clone(),
                    children,
                    Some(even.clone().into()),
                ))
            }
            _ => Arc::new(StringArray::new_null(n)),
        }
    });
    let columns = columns.collect();
    RecordBatch::try_new(Arc::new(schema.clone()), columns).unwrap()
}

fn attempt(id: &str, marks: &[(&str, i64)]) -> Attempt {
    Attempt {
        commit_id: CommitId(id.to_owned()),
        marks: marks.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
        info: BTreeMap::from([("watermark_us".to_owned(), json!(17))]),
    }
}

async fn events(lake: &Lake, structs: &[&str]) -> DeltaTable {
    let configuration = fingerprint("a");
    let wanted = schema(structs);
    let table = lake.table("events", &wanted, &["ingest_day"], &configuration);
    table.await.unwrap()
}

fn fingerprint(value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("tollgate.fingerprint".to_owned(), value.to_owned())])
}

async fn append(
    table: &mut DeltaTable,
    id: &str,
    sequences: &[i64],
    marks: &[(&str, i64)],
) -> Result<Version> {
    let attempt = attempt(id, marks);
    let batch = rows(&schema(&["llm"]), sequences, &vec![DAY_1; sequences.len()]);
    let staged = table.stage(&attempt.commit_id, &[batch]).await.unwrap();
    table.commit(&attempt, &staged).await
}

async fn sql(table: &DeltaTable, query: &str) -> RecordBatch {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    let context = SessionContext::new_with_config(config);
    context
        .register_table("t", table.provider().unwrap())
        .unwrap();
    let frame = context.sql(query).await.unwrap();
    let schema = Arc::new(frame.schema().as_arrow().clone());
    concat_batches(&schema, &frame.collect().await.unwrap()).unwrap()
}

async fn text(table: &DeltaTable, query: &str) -> String {
    pretty_format_batches(&[sql(table, query).await])
        .unwrap()
        .to_string()
}

async fn number(table: &DeltaTable, query: &str) -> i64 {
    let batch = sql(table, query).await;
    batch
        .column(0)
        .as_primitive::<arrow::datatypes::Int64Type>()
        .value(0)
}

async fn log_lines(table: &DeltaTable, version: Version) -> Vec<Value> {
    let path = local_folder(table).join(format!("_delta_log/{version:020}.json"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn local_folder(table: &DeltaTable) -> std::path::PathBuf {
    crate::store::local_path(table.url()).unwrap()
}

async fn statistics(table: &DeltaTable, version: Version) -> Value {
    let lines = log_lines(table, version).await;
    let add = lines.iter().find_map(|line| line.get("add")).unwrap();
    serde_json::from_str(add["stats"].as_str().unwrap()).unwrap()
}

/// Counts the files that a query opens.
async fn files_opened(table: &DeltaTable, filter: &str) -> usize {
    let plan = text(
        table,
        &format!("EXPLAIN SELECT sequence FROM t WHERE {filter}"),
    )
    .await;
    plan.matches("part-").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_back_with_our_types() {
    let place = place().await;
    let schema = schema(&["llm"]);
    let mut table = events(&place.lake, &["llm"]).await;
    let batch = rows(&schema, &[1, 2, 3, 4], &[DAY_1, DAY_2, DAY_1, DAY_2]);
    let attempt = attempt("c1", &[("s/seq", 4)]);
    let staged = table
        .stage(&attempt.commit_id, &[batch.clone(), batch.slice(0, 0)])
        .await
        .unwrap();
    assert_eq!((staged.rows, staged.files.len()), (4, 2));
    assert_eq!(
        staged.files[0].path,
        "ingest_day=2026-07-31/part-0-c1.parquet"
    );
    assert_eq!(table.commit(&attempt, &staged).await.unwrap(), 1);

    assert_eq!(table.schema().as_ref(), &schema);
    let read = sql(&table, "SELECT * FROM t ORDER BY sequence").await;
    let plain = schema::plain(&schema);
    assert_eq!(read.schema().as_ref(), &plain);
    for (index, field) in schema.fields().iter().enumerate() {
        let (read, written) = (read.column(index), batch.column(index));
        if matches!(field.data_type(), DataType::Struct(_)) {
            let (read, written) = (read.as_struct(), written.as_struct());
            assert_eq!(read.columns(), written.columns());
            assert_eq!(read.nulls(), written.nulls());
        } else {
            assert_eq!(read, written, "{}", field.name());
        }
    }
    assert_eq!(
        number(&table, "SELECT count(*) FROM t WHERE llm IS NULL").await,
        2
    );
    assert_eq!(number(&table, "SELECT sum(llm['n']) FROM t").await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_agree_over_many_files() {
    let place = place().await;
    let mut table = events(&place.lake, &["llm"]).await;
    for flush in 0..10 {
        let sequences: Vec<i64> = (flush * 10 + 1..=flush * 10 + 10).collect();
        append(
            &mut table,
            &format!("c{flush}"),
            &sequences,
            &[("s/seq", flush)],
        )
        .await
        .unwrap();
    }
    assert_eq!(number(&table, "SELECT count(*) FROM t").await, 100);
    assert_eq!(number(&table, "SELECT count(sequence) FROM t").await, 100);
    assert_eq!(number(&table, "SELECT count(subject) FROM t").await, 50);
    // The bounds in the log are wider than the data: 100.000001 s is written as 100.001 s.
    let latest = text(
        &table,
        "SELECT max(event_time) AS m FROM t WHERE event_time > to_timestamp_micros(5)",
    )
    .await;
    assert!(latest.contains("1970-01-01T00:01:40.000001Z"), "{latest}");
    let many = "SELECT max(sequence) FROM t WHERE ingest_day = DATE '2026-07-31' AND sequence < 42";
    assert_eq!(number(&table, many).await, 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_match_are_not_opened() {
    let place = place().await;
    let schema = schema(&["llm"]);
    let mut table = events(&place.lake, &["llm"]).await;
    for (index, day) in [DAY_1, DAY_1, DAY_2].into_iter().enumerate() {
        let first = i64::try_from(index).unwrap() * 10;
        let attempt = attempt(&format!("c{index}"), &[]);
        let batch = rows(&schema, &[first + 2, first + 4], &[day; 2]);
        let staged = table.stage(&attempt.commit_id, &[batch]).await.unwrap();
        table.commit(&attempt, &staged).await.unwrap();
    }
    let cases = [
        ("sequence >= 0", 3),
        ("ingest_day = DATE '2026-08-01'", 1),
        ("ingest_day < DATE '2026-08-01'", 2),
        ("sequence = 12", 1),
        ("sequence > 4", 2),
        ("event_time >= to_timestamp_micros(22000001)", 1),
        ("event_time < to_timestamp_micros(2000001)", 1), // its lower bound is 2.000 s
        ("subject = 'cust_014'", 1),
        ("amount > 14.000000000000000001", 1),
        ("amount >= 14.000000000000000001", 2),
        ("small > 100", 0),
        ("sequence IS NULL", 0),
    ];
    for (filter, files) in cases {
        assert_eq!(files_opened(&table, filter).await, files, "{filter}");
    }
    // The same after the statistics went through the log.
    let again = place.lake.existing("events").await.unwrap().unwrap();
    for (filter, files) in cases {
        assert_eq!(files_opened(&again, filter).await, files, "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_are_exact_or_wider() {
    let place = place().await;
    let mut table = events(&place.lake, &["llm"]).await;
    append(&mut table, "c1", &[1, 2, 3, 4], &[("s/seq", 4)])
        .await
        .unwrap();
    let s = statistics(&table, 1).await;
    assert_eq!(s["numRecords"], 4);
    assert_eq!(
        (&s["minValues"]["sequence"], &s["maxValues"]["sequence"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(s["minValues"]["event_time"], "1970-01-01T00:00:02.000Z");
    assert_eq!(s["maxValues"]["event_time"], "1970-01-01T00:00:04.001Z");
    assert_eq!(s["minValues"]["subject"], "cust_002");
    assert_eq!(s["maxValues"]["due"], "2026-07-31");
    for bounds in ["minValues", "maxValues", "nullCount"] {
        assert_eq!(s[bounds].get("llm"), None, "what is in a struct");
    }
    assert_eq!(s["nullCount"]["subject"], 2);
    assert_eq!(s["nullCount"]["extra"], 4);
    assert_eq!(s["nullCount"]["flag"], 2);
    for absent in ["raw", "flag", "extra", "ingest_day"] {
        assert!(s["minValues"].get(absent).is_none(), "{absent}");
    }
    let lines = log_lines(&table, 1).await;
    let add = lines.iter().find_map(|line| line.get("add")).unwrap();
    let raw = add["stats"].as_str().unwrap();
    assert!(raw.contains("\"amount\":4.000000000000000001"), "{raw}");
    assert!(raw.contains("\"small\":0.02"), "{raw}");
    assert_eq!(add["partitionValues"], json!({"ingest_day": "2026-07-31"}));
    assert_eq!(add["tags"], json!({"tollgate.structs": "[\"llm\"]"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_carries_its_id_marks_and_info() {
    let place = place().await;
    let mut table = events(&place.lake, &["llm"]).await;
    let reader = events(&place.lake, &["llm"]).await;
    append(&mut table, "c1", &[1], &[("s/seq", 1), ("s/epoch", 7)])
        .await
        .unwrap();
    assert_eq!(
        (table.mark("s/seq"), table.mark("s/epoch"), table.mark("x")),
        (Some(1), Some(7), None)
    );
    assert_eq!(reader.mark("s/seq"), None, "a snapshot is pinned");
    let log = reader.log_since().await.unwrap();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].version, 1);
    assert_eq!(log[0].commit_id, Some(CommitId("c1".to_owned())));
    assert_eq!(
        log[0].marks,
        attempt("c1", &[("s/seq", 1), ("s/epoch", 7)]).marks
    );
    assert_eq!(log[0].info["watermark_us"], 17);
    let info = &log_lines(&table, 1).await[0]["commitInfo"];
    assert_eq!(
        (&info["tollgate.commitId"], &info["isBlindAppend"]),
        (&json!("c1"), &json!(true))
    );
    assert_eq!(
        (&info["readVersion"], &info["operation"]),
        (&json!(0), &json!("WRITE"))
    );
    let protocol = &log_lines(&table, 0).await;
    let protocol = protocol.iter().find_map(|l| l.get("protocol")).unwrap();
    assert_eq!(
        protocol,
        &json!({"minReaderVersion": 1, "minWriterVersion": 2})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_owner_is_fenced_for_ever() {
    let place = place().await;
    let mut old = events(&place.lake, &["llm"]).await;
    append(&mut old, "c1", &[1], &[("s/seq", 1), ("s/epoch", 1)])
        .await
        .unwrap();
    let mut new = events(&place.lake, &["llm"]).await;
    append(&mut new, "c2", &[], &[("s/epoch", 2)])
        .await
        .unwrap();
    append(&mut new, "c3", &[2], &[("s/seq", 2), ("s/epoch", 2)])
        .await
        .unwrap();
    for _ in 0..2 {
        let error = append(&mut old, "c4", &[2], &[("s/seq", 2), ("s/epoch", 1)])
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Fenced { version: 2, .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Fenced);
    }
    new.refresh().await.unwrap();
    assert_eq!(number(&new, "SELECT count(*) FROM t").await, 2);
    assert_eq!(new.mark("s/epoch"), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_do_not_hinder_each_other() {
    let place = place().await;
    let mut a = events(&place.lake, &["llm"]).await;
    let mut b = events(&place.lake, &["llm"]).await;
    for flush in 1..=5 {
        append(&mut a, &format!("a{flush}"), &[flush], &[("a/seq", flush)])
            .await
            .unwrap();
        append(&mut a, &format!("aa{flush}"), &[], &[("a/closed", flush)])
            .await
            .unwrap();
        append(&mut b, &format!("b{flush}"), &[flush], &[("b/seq", flush)])
            .await
            .unwrap();
    }
    assert_eq!(b.version(), 15);
    assert_eq!(
        (b.mark("a/seq"), b.mark("a/closed"), b.mark("b/seq")),
        (Some(5), Some(5), Some(5))
    );
    assert_eq!(number(&b, "SELECT count(*) FROM t").await, 10);
    assert_eq!(
        number(&a, "SELECT count(*) FROM t").await,
        9,
        "a has not seen the last of b"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_at_once_lose_nothing() {
    let place = place().await;
    let writers = (0..4).map(|writer: i64| {
        let lake = place.lake.clone();
        tokio::spawn(async move {
            // All create the table at once as well.
            let mut table = events(&lake, &["llm"]).await;
            for flush in 0..8 {
                let mark = format!("{writer}/seq");
                let id = format!("w{writer}-{flush}");
                append(&mut table, &id, &[writer * 100 + flush], &[(&mark, flush)])
                    .await
                    .unwrap();
            }
        })
    });
    futures::future::try_join_all(writers).await.unwrap();
    let table = place.lake.existing("events").await.unwrap().unwrap();
    assert_eq!(table.version(), 32);
    assert_eq!(
        number(&table, "SELECT count(DISTINCT sequence) FROM t").await,
        32
    );
    assert_eq!(number(&table, "SELECT count(*) FROM t").await, 32);
    assert_eq!(table.mark("3/seq"), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_is_found_and_not_repeated() {
    let place = place().await;
    let mut table = events(&place.lake, &["llm"]).await;
    // A second handle plays the part of the store that took the commit without an answer.
    let mut behind = events(&place.lake, &["llm"]).await;
    let attempt = attempt("c1", &[("s/seq", 2)]);
    let batch = rows(&schema(&["llm"]), &[1, 2], &[DAY_1; 2]);
    let staged = table.stage(&attempt.commit_id, &[batch]).await.unwrap();
    behind.commit(&attempt, &staged).await.unwrap();

    let found = table.log_since().await.unwrap();
    assert_eq!(found[0].commit_id, Some(attempt.commit_id.clone()));
    assert_eq!(table.commit(&attempt, &staged).await.unwrap(), 1);
    assert_eq!(table.commit(&attempt, &staged).await.unwrap(), 1);
    assert_eq!((table.version(), table.mark("s/seq")), (1, Some(2)));
    assert_eq!(number(&table, "SELECT count(*) FROM t").await, 2);
    assert!(table.log_since().await.unwrap().is_empty());
    // The next commit goes on from there.
    append(&mut table, "c2", &[3], &[("s/seq", 3)])
        .await
        .unwrap();
    assert_eq!(number(&table, "SELECT count(*) FROM t").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_keep_rows_and_marks() {
    let place = place().await;
    let mut table = events(&place.lake, &["llm"]).await;
    append(&mut table, "other", &[0], &[("other/seq", 99)])
        .await
        .unwrap();
    for flush in 1..=119 {
        let id = format!("c{flush}");
        append(
            &mut table,
            &id,
            &[flush],
            &[("s/seq", flush), ("s/epoch", 1)],
        )
        .await
        .unwrap();
    }
    let log = local_folder(&table).join("_delta_log");
    for version in [50, 100] {
        assert!(
            log.join(format!("{version:020}.checkpoint.parquet"))
                .exists(),
            "{version}"
        );
    }
    // Without the log before the checkpoint, everything comes from the checkpoint.
    for version in 0..100 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let again = place.lake.existing("events").await.unwrap().unwrap();
    for table in [&table, &again] {
        assert_eq!(table.version(), 120);
        assert_eq!(
            (table.mark("s/seq"), table.mark("s/epoch")),
            (Some(119), Some(1))
        );
        assert_eq!(table.mark("other/seq"), Some(99));
        assert_eq!(number(table, "SELECT count(*) FROM t").await, 120);
        assert_eq!(
            number(table, "SELECT sum(sequence) FROM t").await,
            119 * 120 / 2
        );
        assert_eq!(
            files_opened(table, "amount = 4.000000000000000001").await,
            1
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_checkpoint_does_not_fail_the_commit() {
    let place = place().await;
    let mut table = events(&place.lake, &["llm"]).await;
    let log = local_folder(&table).join("_delta_log");
    // A folder where the checkpoint belongs.
    std::fs::create_dir(log.join(format!("{:020}.checkpoint.parquet", 50))).unwrap();
    std::fs::create_dir(log.join("_last_checkpoint")).unwrap();
    for flush in 1..=61 {
        append(
            &mut table,
            &format!("c{flush}"),
            &[flush],
            &[("s/seq", flush)],
        )
        .await
        .unwrap();
    }
    assert_eq!(table.version(), 61);
    assert_eq!(number(&table, "SELECT count(*) FROM t").await, 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_slept_past_log_clean_up_cannot_commit() {
    let place = place().await;
    let mut sleeper = events(&place.lake, &["llm"]).await;
    let mut table = events(&place.lake, &["llm"]).await;
    for flush in 1..=50 {
        append(
            &mut table,
            &format!("c{flush}"),
            &[flush],
            &[("s/seq", flush)],
        )
        .await
        .unwrap();
    }
    let log = local_folder(&table).join("_delta_log");
    for version in 0..50 {
        std::fs::remove_file(log.join(format!("{version:020}.json"))).unwrap();
    }
    let error = append(&mut sleeper, "late", &[1], &[("s/seq", 1)])
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Fenced { version: 50, .. }),
        "{error}"
    );
    assert_eq!(
        sleeper.log_since().await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    // No writer moved the marks of another shard: it goes on from the newest version.
    let committed = append(&mut sleeper, "other", &[7], &[("other/seq", 7)]).await;
    assert_eq!(committed.unwrap(), 51);
    assert_eq!(number(&sleeper, "SELECT count(*) FROM t").await, 51);
    assert!(!log.join(format!("{:020}.json", 1)).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_event_type_adds_a_column() {
    let place = place().await;
    let mut old = events(&place.lake, &["llm"]).await;
    append(&mut old, "c1", &[2], &[("s/seq", 2)]).await.unwrap();
    let mut new = events(&place.lake, &["llm", "task"]).await;
    assert_eq!(new.schema().as_ref(), &schema(&["llm", "task"]));
    assert_eq!(new.mark("s/seq"), Some(2));
    let batch = rows(&schema(&["llm", "task"]), &[4], &[DAY_1]);
    let attempt = attempt("c2", &[("t/seq", 4)]);
    let staged = new.stage(&attempt.commit_id, &[batch]).await.unwrap();
    new.commit(&attempt, &staged).await.unwrap();
    assert_eq!(number(&new, "SELECT sum(llm['n']) FROM t").await, 6);
    assert_eq!(number(&new, "SELECT sum(task['n']) FROM t").await, 4);
    assert_eq!(
        number(&new, "SELECT count(*) FROM t WHERE task IS NULL").await,
        1
    );
    // A writer that was under way keeps its rows and learns of the column.
    append(&mut old, "c3", &[6], &[("s/seq", 6)]).await.unwrap();
    assert!(old.schema().field_with_name("task").is_ok());
    assert_eq!(number(&old, "SELECT sum(llm['n']) FROM t").await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_of_an_event_type_is_null_in_old_rows() {
    let place = place().await;
    let mut table = events(&place.lake, &["llm"]).await;
    append(&mut table, "c1", &[1, 2], &[]).await.unwrap();
    let mut fields = schema(&["llm"]).fields().to_vec();
    let DataType::Struct(children) = event_struct("llm").data_type().clone() else {
        unreachable!()
    };
    let mut children = children.to_vec();
    children.insert(1, Arc::new(Field::new("region", DataType::Utf8, true)));
    fields[10] = Arc::new(Field::new("llm", DataType::Struct(children.into()), true));
    let wider = Schema::new(fields);
    let table = place
        .lake
        .table("events", &wider, &["ingest_day"], &fingerprint("a"))
        .await
        .unwrap();
    let read = text(
        &table,
        "SELECT sequence, llm IS NULL AS gone, llm['region'] AS r, llm['n'] AS n FROM t ORDER BY 1",
    )
    .await;
    assert!(read.contains("| 1        | true  |   |   |"), "{read}");
    assert!(read.contains("| 2        | false |   | 2 |"), "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_table_is_refused_with_its_first_difference() {
    let place = place().await;
    events(&place.lake, &["llm"]).await;
    let base = schema(&["llm"]);
    let changed = |name: &str, field: Option<Field>| {
        let fields = base.fields().iter().filter_map(|f| match f.name() == name {
            true => field.clone().map(Arc::new),
            false => Some(Arc::clone(f)),
        });
        Schema::new(fields.collect::<arrow::datatypes::Fields>())
    };
    let mut extra = base.fields().to_vec();
    extra.push(Arc::new(Field::new("must", DataType::Int64, false)));
    let cases = [
        (
            changed("subject", None),
            "it has a column `subject` that the definitions do not have",
        ),
        (
            changed(
                "ordinal",
                Some(Field::new("ordinal", DataType::Int64, false)),
            ),
            "its column `ordinal` is Int32, not Int64",
        ),
        (
            changed(
                "subject",
                Some(Field::new("subject", DataType::Utf8, false)),
            ),
            "its column `subject` may be NULL",
        ),
        (
            Schema::new(extra),
            "it has no column `must`, which may not be NULL",
        ),
    ];
    for (wanted, says) in cases {
        let refused = place
            .lake
            .table("events", &wanted, &["ingest_day"], &fingerprint("a"))
            .await;
        let error = refused.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(
            error.to_string().contains("set another lake url"),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    let refused = place
        .lake
        .table("events", &base, &["ingest_day"], &fingerprint("b"))
        .await;
    let error = refused.unwrap_err().to_string();
    assert!(
        error.contains("tollgate.fingerprint = `a`, not `b`"),
        "{error}"
    );
    let refused = place
        .lake
        .table("events", &base, &[], &fingerprint("a"))
        .await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("it is partitioned by")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_may_be_null_now_is_relaxed_and_stays_so() {
    let place = place().await;
    events(&place.lake, &["llm"]).await;
    let strict = schema(&["llm"]);
    let fields = strict.fields().iter().map(|f| match f.name().as_str() {
        "ordinal" => Arc::new(f.as_ref().clone().with_nullable(true)),
        _ => Arc::clone(f),
    });
    let relaxed = Schema::new(fields.collect::<arrow::datatypes::Fields>());
    let open = async |schema: &Schema| {
        let configuration = fingerprint("a");
        place
            .lake
            .table("events", schema, &["ingest_day"], &configuration)
            .await
    };
    let version = open(&strict).await.unwrap().version();
    for _ in 0..2 {
        let table = open(&relaxed).await.unwrap();
        assert_eq!(table.version(), version + 1);
        assert!(
            table
                .schema()
                .field_with_name("ordinal")
                .unwrap()
                .is_nullable()
        );
    }
    let error = open(&strict).await.unwrap_err().to_string();
    assert!(
        error.contains("its column `ordinal` may be NULL"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_in_another_order_are_the_same_table() {
    let place = place().await;
    let mut table = events(&place.lake, &["llm", "task"]).await;
    let batch = rows(&schema(&["task", "llm"]), &[2], &[DAY_1]);
    let attempt = attempt("c1", &[]);
    let staged = table.stage(&attempt.commit_id, &[batch]).await.unwrap();
    table.commit(&attempt, &staged).await.unwrap();
    let again = events(&place.lake, &["task", "llm"]).await;
    assert_eq!(again.version(), 1, "no commit was needed");
    assert_eq!(again.schema().as_ref(), &schema(&["llm", "task"]));
    assert_eq!(
        number(&again, "SELECT sum(task['n'] + llm['n']) FROM t").await,
        4
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_are_refused() {
    let place = place().await;
    let table = events(&place.lake, &["llm"]).await;
    let id = CommitId("c1".to_owned());
    let whole = rows(&schema(&["llm"]), &[1], &[DAY_1]);
    let without = |name: &str| {
        let schema = whole.schema();
        let keep = (0..schema.fields().len()).filter(|i| schema.field(*i).name() != name);
        whole.project(&keep.collect::<Vec<_>>()).unwrap()
    };
    let refused = |batch: RecordBatch| {
        let (table, id) = (&table, &id);
        async move { table.stage(id, &[batch]).await.unwrap_err().to_string() }
    };
    assert!(
        refused(without("sequence"))
            .await
            .contains("`sequence` is missing or NULL")
    );
    assert!(
        refused(without("ingest_day"))
            .await
            .contains("`ingest_day` is missing or NULL")
    );
    assert!(
        refused(rows(&schema(&["task"]), &[1], &[DAY_1]))
            .await
            .contains("`task` is not in the table")
    );
    let staged = table.stage(&id, &[without("subject")]).await.unwrap();
    assert_eq!(staged.rows, 1, "a column that may be NULL may be left out");
    let bad = CommitId("../c1".to_owned());
    assert!(
        table
            .stage(&bad, std::slice::from_ref(&whole))
            .await
            .is_err()
    );
    assert!(place.lake.existing("../events").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_not_every_reader_has_are_refused() {
    let place = place().await;
    for data_type in [
        DataType::UInt64,
        DataType::Float64,
        DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
        DataType::Timestamp(TimeUnit::Microsecond, None),
    ] {
        let schema = Schema::new(vec![Field::new("x", data_type, true)]);
        let refused = place.lake.table("t", &schema, &[], &BTreeMap::new()).await;
        assert!(refused.unwrap_err().to_string().contains("cannot keep"));
    }
    assert!(
        place.lake.existing("t").await.unwrap().is_none(),
        "nothing was created"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_table_answers_and_a_missing_one_is_none() {
    let place = place().await;
    assert!(
        place
            .lake
            .existing("meters/tokens")
            .await
            .unwrap()
            .is_none()
    );
    let schema = Schema::new(vec![
        Field::new("window_start", instant(), false),
        Field::new("input", DataType::Decimal128(38, 0), true),
    ]);
    let table = place
        .lake
        .table("meters/tokens", &schema, &[], &BTreeMap::new())
        .await
        .unwrap();
    assert_eq!(
        number(&table, "SELECT count(*) FROM t WHERE input > 1").await,
        0
    );
    assert_eq!(
        sql(&table, "SELECT input, window_start FROM t")
            .await
            .num_columns(),
        2
    );
    let mut table = place.lake.existing("meters/tokens").await.unwrap().unwrap();
    assert_eq!(table.schema().as_ref(), &schema);
    // A commit without rows moves marks only.
    table
        .commit(&attempt("c1", &[("closed", 5)]), &Staged::default())
        .await
        .unwrap();
    assert_eq!(table.mark("closed"), Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_needs_more_than_plain_delta_is_refused() {
    let place = place().await;
    let table = events(&place.lake, &["llm"]).await;
    let path = object_store::path::Path::from(format!("_delta_log/{:020}.json", 1));
    let upgrade = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}}"#;
    let store = place.lake.store().folder("events").unwrap();
    store.put(&path, upgrade.into()).await.unwrap();
    let error = place.lake.existing("events").await.unwrap_err();
    assert!(matches!(error, Error::OtherTable { .. }), "{error}");
    drop(table);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_holds_nothing_is_made_anew_and_who_has_it_open_is_out() {
    let place = place().await;
    let column = |name: &str, data_type| Schema::new(vec![Field::new(name, data_type, true)]);
    let (before, after) = (column("a", DataType::Int64), column("b", DataType::Utf8));
    let made_by = |by: &str| BTreeMap::from([("tollgate.by".to_owned(), by.to_owned())]);
    let (one, two, three) = (made_by("one"), made_by("two"), made_by("three"));
    let is_unused = |marks: &BTreeMap<String, i64>| !marks.contains_key("s/cut");
    let table = place.lake.table("t", &before, &[], &one);
    let mut old = table.await.unwrap();
    let epoch = attempt("e1", &[("s/epoch", 1)]);
    old.commit(&epoch, &Staged::default()).await.unwrap();
    for _ in 0..2 {
        let renewed = place.lake.renew("t", &after, &two, is_unused);
        assert!(renewed.await.unwrap());
    }
    let table = place.lake.table("t", &after, &[], &two);
    let mut table = table.await.unwrap();
    assert_eq!(table.schema().as_ref(), &after);
    // Created, owned, and made anew once.
    assert_eq!((table.mark("s/epoch"), table.version()), (Some(1), 2));
    let late = attempt("e1-5", &[("s/epoch", 1), ("s/cut", 5)]);
    let refused = old.commit(&late, &Staged::default()).await.unwrap_err();
    assert!(matches!(refused, Error::OtherTable { .. }), "{refused}");
    // A table that says how far it is written stays as it is.
    let written = attempt("e2-7", &[("s/epoch", 2), ("s/cut", 7)]);
    table.commit(&written, &Staged::default()).await.unwrap();
    let renewed = place.lake.renew("t", &before, &three, is_unused);
    assert!(!renewed.await.unwrap());
    let stays = place.lake.table("t", &after, &[], &two);
    assert_eq!(stays.await.unwrap().version(), 3);
}
