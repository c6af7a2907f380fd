//! What a log says, whatever form it is kept in: entries, checkpoints of one file or several, ours and
//! those of other tools.

use super::*;
use crate::lake::{
    load::{load, write_checkpoint},
    log::{Log, State},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::{fs, path::PathBuf};

/// A log with these entries, each one text of lines.
struct Written {
    _folder: tempfile::TempDir,
    path: PathBuf,
    log: Log,
}

async fn log_of(entries: &[String]) -> Written {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open("lake", folder.path()).await.unwrap();
    let log = load::log_of(lake.store(), "t").unwrap();
    let path = folder.path().join("lake/t/_delta_log");
    fs::create_dir_all(&path).unwrap();
    for (version, text) in entries.iter().enumerate() {
        fs::write(path.join(format!("{version:020}.json")), text).unwrap();
    }
    Written {
        _folder: folder,
        path,
        log,
    }
}

impl Written {
    async fn state(&self, version: Option<Version>) -> State {
        self.log.replay(version).await.unwrap().unwrap()
    }

    async fn error(&self, version: Option<Version>) -> String {
        whole(&self.log.replay(version).await.unwrap_err())
    }

    fn remove_entries(&self, versions: std::ops::Range<u32>) {
        for version in versions {
            fs::remove_file(self.path.join(format!("{version:020}.json"))).unwrap();
        }
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path.join(from), self.path.join(to)).unwrap();
    }

    async fn checkpoint(&self, version: Version) {
        let state = self.state(Some(version)).await;
        self.log.write_checkpoint(state).await.unwrap();
    }
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}

fn definition(reader: i32, writer: i32) -> String {
    let schema = json!({"type": "struct", "fields": [
        {"name": "x", "type": "long", "nullable": true, "metadata": {}},
        {"name": "day", "type": "date", "nullable": true, "metadata": {}},
    ]});
    let protocol = json!({"protocol": {"minReaderVersion": reader, "minWriterVersion": writer}});
    let metadata = json!({"metaData": {
        "id": "a-table", "format": {"provider": "parquet", "options": {}},
        "schemaString": schema.to_string(), "partitionColumns": ["day"],
        "configuration": {"tollgate.fingerprint": "a"}, "createdTime": 5,
    }});
    format!("{protocol}\n{metadata}")
}

fn add(path: &str, size: i64) -> String {
    let add = json!({"path": path, "partitionValues": {"day": null}, "size": size,
        "modificationTime": 7, "dataChange": true, "tags": {"by": "hand", "of": null},
        "stats": "{\"numRecords\":1,\"maxValues\":{\"x\":10000000000000000.5}}"});
    json!({ "add": add }).to_string()
}

fn remove(path: &str, at_ms: i64) -> String {
    json!({"remove": {"path": path, "dataChange": true, "deletionTimestamp": at_ms}}).to_string()
}

fn mark(id: &str, value: i64) -> String {
    json!({"txn": {"appId": id, "version": value, "lastUpdated": 9}}).to_string()
}

/// Four versions: a file comes, two come, one of them goes, the third is named again.
fn history() -> Vec<String> {
    vec![
        definition(1, 2),
        format!("{}\n{}", add("a.parquet", 1), mark("s/seq", 1)),
        format!(
            "{}\n{}\n{}\n{}",
            add("b%20c.parquet", 2),
            add("d.parquet", 3),
            mark("s/seq", 2),
            mark("t/seq", 8)
        ),
        format!(
            "{}\n{}\n{}",
            remove("b%20c.parquet", 4_102_444_800_000),
            remove("gone.parquet", 1),
            add("d.parquet", 4)
        ),
    ]
}

type Pairs<T> = Vec<(String, T)>;

/// Marks, files and removed files, in a form that can be compared.
fn said(state: &State) -> (Pairs<i64>, Pairs<i64>, Pairs<Option<i64>>) {
    let marks = state.marks.values().map(|m| (m.app_id.clone(), m.version));
    let files = state.files.values().map(|f| (f.path.clone(), f.size));
    let removed = state.removed.values();
    let removed = removed.map(|f| (f.path.clone(), f.deletion_timestamp));
    (marks.collect(), files.collect(), removed.collect())
}

fn owned<T: Copy>(rows: &[(&str, T)]) -> Pairs<T> {
    rows.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_word_on_each_mark_and_file_counts() {
    let written = log_of(&history()).await;
    let later = Some(4_102_444_800_000);
    let expected = [
        (1, vec![("s/seq", 1)], vec![("a.parquet", 1)], vec![]),
        (
            2,
            vec![("s/seq", 2), ("t/seq", 8)],
            vec![("a.parquet", 1), ("b c.parquet", 2), ("d.parquet", 3)],
            vec![],
        ),
        (
            3,
            vec![("s/seq", 2), ("t/seq", 8)],
            vec![("a.parquet", 1), ("d.parquet", 4)],
            vec![("b c.parquet", later), ("gone.parquet", Some(1))],
        ),
    ];
    for (version, marks, files, removed) in expected {
        let state = written.state(Some(version)).await;
        assert_eq!(
            said(&state),
            (owned(&marks), owned(&files), owned(&removed)),
            "version {version}"
        );
    }
    assert_eq!(written.state(None).await.version, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_says_what_the_entries_before_it_said() {
    let written = log_of(&history()).await;
    let mut expected = said(&written.state(None).await);
    written.checkpoint(3).await;
    let hint = fs::read(written.path.join("_last_checkpoint")).unwrap();
    let hint: Value = serde_json::from_slice(&hint).unwrap();
    // Protocol, metadata, two marks, two files, one that was removed.
    assert_eq!(
        (&hint["version"], &hint["size"], &hint["numOfAddFiles"]),
        (&json!(3), &json!(7), &json!(2))
    );
    let name = format!("{:020}.checkpoint.parquet", 3);
    let bytes = fs::metadata(written.path.join(&name)).unwrap().len();
    assert_eq!(hint["sizeInBytes"], bytes);

    written.remove_entries(0..3);
    // A file that was removed more than 7 days before the version was written is forgotten.
    assert_eq!(expected.2.pop().unwrap().0, "gone.parquet");
    let state = written.state(None).await;
    assert_eq!((state.version, state.checkpoint), (3, Some(3)));
    assert_eq!(said(&state), expected);
    let file = &state.files["d.parquet"];
    assert_eq!(
        file.partition_values,
        BTreeMap::from([("day".to_owned(), None)])
    );
    let tags = BTreeMap::from([
        ("by".to_owned(), Some("hand".to_owned())),
        ("of".to_owned(), None),
    ]);
    assert_eq!(file.tags, Some(tags));
    assert_eq!(
        file.stats.as_deref(),
        Some("{\"numRecords\":1,\"maxValues\":{\"x\":10000000000000000.5}}")
    );
    assert_eq!((file.modification_time, file.data_change), (7, true));
    let loaded = load(&written.log, None).await.unwrap().unwrap();
    assert_eq!(loaded.metadata.id, "a-table");
    assert_eq!(loaded.metadata.created_time, Some(5));
    assert_eq!(loaded.stored.partition, ["day"]);
    assert_eq!(loaded.stored.configuration, fingerprint("a"));
    let columns = Schema::new(vec![
        Field::new("x", DataType::Int64, true),
        Field::new("day", DataType::Date32, true),
    ]);
    assert_eq!(loaded.stored.schema.as_ref(), &columns);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_a_rule_of_its_own_forgets_no_removed_file() {
    let mut entries = history();
    entries[0] = entries[0].replace(
        "\"tollgate.fingerprint\":\"a\"",
        "\"delta.deletedFileRetentionDuration\":\"interval 60 days\"",
    );
    let written = log_of(&entries).await;
    let expected = said(&written.state(None).await);
    written.checkpoint(3).await;
    written.remove_entries(0..3);
    assert_eq!(said(&written.state(None).await), expected);
    assert_eq!(expected.2.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_whole_checkpoint_is_read() {
    let written = log_of(&history()).await;
    let expected = said(&written.state(None).await);
    written.checkpoint(1).await;
    written.checkpoint(2).await;
    let classic = |version: u32| format!("{version:020}.checkpoint.parquet");
    let part =
        |part: u32, parts: u32| format!("{:020}.checkpoint.{part:010}.{parts:010}.parquet", 2);
    let read = async || {
        let state = written.state(None).await;
        assert_eq!(said(&state), expected);
        state.checkpoint
    };
    assert_eq!(read().await, Some(2));
    // Half of it, and a later form of its name.
    written.rename(&classic(2), &part(1, 2));
    assert_eq!(read().await, Some(1));
    let later = format!(
        "{:020}.checkpoint.01934b5e-c0de-7000-8000-000000000000.parquet",
        2
    );
    written.rename(&part(1, 2), &later);
    assert_eq!(read().await, Some(1));
    // All of its parts, beside a whole one of the same version.
    fs::copy(written.path.join(&later), written.path.join(part(1, 2))).unwrap();
    fs::copy(written.path.join(&later), written.path.join(part(2, 2))).unwrap();
    assert_eq!(read().await, Some(2));
    written.rename(&later, &classic(2));
    written.remove_entries(0..3);
    assert_eq!(read().await, Some(2));
    // `_last_checkpoint` is a hint: gone, wrong or of a checkpoint that is not there, all is found.
    for hint in [
        "",
        "nonsense",
        "{\"version\":3,\"size\":1}",
        "{\"version\":99,\"size\":1}",
    ] {
        fs::write(written.path.join("_last_checkpoint"), hint).unwrap();
        assert_eq!(read().await, Some(2), "{hint}");
    }
}

/// Later forms of the protocol keep sidecars and staged commits in folders of the log, and people keep copies.
#[tokio::test(flavor = "multi_thread")]
async fn only_files_of_the_logs_own_folder_are_its_versions() {
    let written = log_of(&history()).await;
    let expected = said(&written.state(None).await);
    written.checkpoint(2).await;
    let classic = format!("{:020}.checkpoint.parquet", 2);
    let checkpoint = fs::read(written.path.join(&classic)).unwrap();
    for folder in ["_sidecars", "_staged_commits", "1/2"] {
        let folder = written.path.join(folder);
        fs::create_dir_all(&folder).unwrap();
        for version in [4, 7] {
            let entry = folder.join(format!("{version:020}.json"));
            fs::write(entry, mark("s/seq", 100)).unwrap();
        }
        let later = format!("{:020}.checkpoint.parquet", 9);
        fs::write(folder.join(later), &checkpoint).unwrap();
    }
    let state = written.state(None).await;
    assert_eq!((state.version, state.checkpoint), (3, Some(2)));
    assert_eq!(said(&state), expected);
    // A copy of all that there was is no half of a log.
    fs::remove_file(written.path.join(classic)).unwrap();
    fs::remove_file(written.path.join("_last_checkpoint")).unwrap();
    written.remove_entries(0..4);
    assert!(written.log.replay(None).await.unwrap().is_none());
}

/// The field without what says that it is never NULL; the keys of a map are never NULL.
fn nullable(field: &Field) -> Field {
    let data_type = match field.data_type() {
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|field| nullable(field)).collect())
        }
        other => other.clone(),
    };
    Field::new(field.name(), data_type, true)
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_and_maps_are_null_in_checkpoints_of_others() {
    let written = log_of(&history()).await;
    written.checkpoint(3).await;
    let path = written.path.join(format!("{:020}.checkpoint.parquet", 3));
    let ours = bytes::Bytes::from(fs::read(&path).unwrap());
    let ours = ParquetRecordBatchReaderBuilder::try_new(ours).unwrap();
    let fields = ours.schema().fields().iter().map(|field| nullable(field));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let rows = [
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": {"id": "a-table", "format": {"provider": "parquet", "options": null},
            "schemaString": "{\"type\":\"struct\",\"fields\":[]}", "partitionColumns": null,
            "configuration": null}}),
        json!({"txn": {"appId": "s/seq", "version": 2, "lastUpdated": null}}),
        json!({"add": {"path": "a.parquet", "partitionValues": null, "size": 1,
            "modificationTime": 7, "dataChange": false, "stats": null, "tags": null}}),
        json!({"remove": {"path": "b.parquet", "dataChange": false, "deletionTimestamp": 9,
            "partitionValues": null, "tags": null}}),
    ];
    let mut decoder = arrow::json::ReaderBuilder::new(Arc::clone(&schema))
        .build_decoder()
        .unwrap();
    decoder.serialize(&rows).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, schema, None).unwrap();
    writer.write(&decoder.flush().unwrap().unwrap()).unwrap();
    writer.close().unwrap();
    fs::write(&path, bytes).unwrap();
    let state = written.state(None).await;
    assert_eq!(
        said(&state),
        (
            owned(&[("s/seq", 2)]),
            owned(&[("a.parquet", 1)]),
            owned(&[("b.parquet", Some(9))])
        )
    );
    assert_eq!(state.files["a.parquet"].partition_values, BTreeMap::new());
    let loaded = load(&written.log, None).await.unwrap().unwrap();
    assert!(loaded.stored.partition.is_empty());
    assert!(loaded.stored.configuration.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn half_of_a_log_is_not_taken_for_no_table() {
    let problem = "it has files of a checkpoint and no version that is whole; restore it";
    let written = log_of(&history()).await;
    let last = Version::try_from(history().len() - 1).unwrap();
    written.checkpoint(last).await;
    let whole = format!("{last:020}.checkpoint.parquet");
    let half = format!("{last:020}.checkpoint.0000000001.0000000002.parquet");
    written.rename(&whole, &half);
    written.remove_entries(0..u32::try_from(history().len()).unwrap());
    assert!(written.error(None).await.contains(problem));
    let nothing = log_of(&[]).await;
    assert!(nothing.log.replay(None).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_hole_is_not_read() {
    let written = log_of(&history()).await;
    let missing =
        |version| format!("table `t`: reading the log failed: version {version} is missing");
    assert_eq!(written.error(Some(4)).await, missing(4));
    fs::write(
        written.path.join(format!("{:020}.json", 5)),
        mark("s/seq", 5),
    )
    .unwrap();
    assert_eq!(written.error(None).await, missing(4));
    written.remove_entries(0..1);
    assert_eq!(written.error(Some(3)).await, missing(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_cannot_be_read_is_named() {
    let cases = [
        ("", "version 1: it is empty"),
        (
            "{\"add\":{\"path\":\"a\"",
            "version 1: EOF while parsing an object at line 1 column 18",
        ),
        (
            "{\"txn\":{\"appId\":\"s/seq\"}}",
            "version 1: missing field `version` at line 1 column 24",
        ),
    ];
    for (entry, problem) in cases {
        let written = log_of(&[definition(1, 2), entry.to_owned()]).await;
        let expected = format!("table `t`: reading the log failed: {problem}");
        assert_eq!(written.error(None).await, expected);
        let error = written.log.read(1).await.unwrap_err();
        assert_eq!(whole(&error), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_needs_more_than_plain_delta_is_refused() {
    let vector = add("a.parquet", 1).replace(
        "\"dataChange\"",
        "\"deletionVector\":{\"storageType\":\"u\"},\"dataChange\"",
    );
    let orc = definition(1, 2).replace("\"provider\":\"parquet\"", "\"provider\":\"orc\"");
    let feature = "{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":2,\
                   \"writerFeatures\":[\"rowTracking\"]}}";
    let [needs_reader, needs_writer] = [(2, 5), (1, 3)].map(|(reader, writer)| {
        format!("it needs Delta reader version {reader} and writer version {writer}, not 1 and 2")
    });
    let cases = [
        (definition(2, 5), needs_reader.as_str()),
        (definition(1, 3), needs_writer.as_str()),
        (feature.to_owned(), "it needs the Delta feature rowTracking"),
        (orc, "its files are orc, not parquet"),
        (vector, "rows of its file a.parquet are deleted by a vector"),
        (
            add("s3://other/a.parquet", 1),
            "its file s3://other/a.parquet is not in its folder",
        ),
        (
            add("file:/other/a.parquet", 1),
            "its file file:/other/a.parquet is not in its folder",
        ),
        (
            add("file%3A/other/a.parquet", 1),
            "its file file:/other/a.parquet is not in its folder",
        ),
        (
            add("day=1/%2E%2E/%2E%2E/a.parquet", 1),
            "its file day=1/../../a.parquet is not in its folder",
        ),
    ];
    for (entry, problem) in cases {
        let written = log_of(&[definition(1, 2), entry]).await;
        let expected = format!(
            "table `t`: {problem}\n  hint: another tool changed it; restore it, or set another lake url"
        );
        let refused = [
            load(&written.log, None).await.err().unwrap(),
            write_checkpoint(&written.log, 1).await.unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.to_string(), expected);
            assert_eq!(error.kind(), ErrorKind::Invalid);
        }
    }
    let written = log_of(&[mark("s/seq", 1)]).await;
    let error = load(&written.log, None).await.err().unwrap();
    assert!(
        error.to_string().contains("it names no Delta version"),
        "{error}"
    );
}

/// A file that another tool names again, for its statistics or its tags, is not there twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_added_again_counts_once() {
    let place = place().await;
    let mut table = events(&place.lake, &["llm"]).await;
    append(&mut table, "c1", &[1, 2], &[("s/seq", 2)])
        .await
        .unwrap();
    let lines = log_lines(&table, 1).await;
    let add = lines.iter().find(|line| line.get("add").is_some()).unwrap();
    let path = local_folder(&table).join(format!("_delta_log/{:020}.json", 2));
    fs::write(path, add.to_string()).unwrap();
    append(&mut table, "c2", &[3], &[("s/seq", 3)])
        .await
        .unwrap();
    let again = place.lake.existing("events").await.unwrap().unwrap();
    for table in [&table, &again] {
        assert_eq!((table.version(), table.files().len()), (3, 2));
        assert_eq!(number(table, "SELECT count(*) FROM t").await, 3);
    }
}

/// Prints the version, the marks that its arguments name, and the count and sum of `sequence`.
const READ: &str = "
import sys
from deltalake import DeltaTable, QueryBuilder
table = DeltaTable(sys.argv[1])
marks = [table.transaction_version(mark) for mark in sys.argv[2:]]
rows = QueryBuilder().register('t', table).execute('SELECT count(*), sum(sequence) FROM t').read_all()
print(table.version(), *marks, *(rows[column][0].as_py() for column in range(2)))
table.create_checkpoint()
";

/// delta-rs reads our checkpoints when the entries before them are gone, and we read its.
#[tokio::test(flavor = "multi_thread")]
async fn delta_rs_reads_our_checkpoints_and_we_read_its() {
    let Some(python) = std::env::var_os("TOLLGATE_READERS").filter(|path| !path.is_empty()) else {
        println!("skipped: TOLLGATE_READERS names no python with deltalake");
        return;
    };
    let place = place().await;
    let mut table = events(&place.lake, &["llm"]).await;
    append(&mut table, "other", &[0], &[("other/seq", 99)])
        .await
        .unwrap();
    let folder = local_folder(&table);
    let entry = |version: i64| folder.join(format!("_delta_log/{version:020}.json"));
    let read = || {
        let ran = std::process::Command::new(&python)
            .args(["-c", READ])
            .arg(&folder)
            .args(["s/seq", "other/seq"])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{stderr}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    };
    for sequence in 1..=54 {
        let id = format!("c{sequence}");
        append(&mut table, &id, &[sequence], &[("s/seq", sequence)])
            .await
            .unwrap();
    }
    // Ours at 50, and five entries after it.
    (0..50).for_each(|version| fs::remove_file(entry(version)).unwrap());
    assert_eq!(read(), format!("55 54 99 55 {}", 54 * 55 / 2));
    // Its own at 55, and nothing else.
    assert!(
        folder
            .join(format!("_delta_log/{:020}.checkpoint.parquet", 55))
            .exists()
    );
    (50..55).for_each(|version| fs::remove_file(entry(version)).unwrap());
    fs::remove_file(folder.join(format!("_delta_log/{:020}.checkpoint.parquet", 50))).unwrap();
    let mut table = place.lake.existing("events").await.unwrap().unwrap();
    assert_eq!(
        (
            table.version(),
            table.mark("s/seq"),
            table.mark("other/seq")
        ),
        (55, Some(54), Some(99))
    );
    assert_eq!(
        files_opened(&table, "amount = 4.000000000000000001").await,
        1
    );
    append(&mut table, "c55", &[55], &[("s/seq", 55)])
        .await
        .unwrap();
    assert_eq!(
        number(&table, "SELECT sum(sequence) FROM t").await,
        55 * 56 / 2
    );
    assert_eq!(read(), format!("56 55 99 56 {}", 55 * 56 / 2));
}
