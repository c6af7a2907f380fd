use super::{LIMIT, hole, read_until, sequences, texts};
use flate2::{Compression, write::GzEncoder};
use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};
use tempfile::TempDir;
use tollgate_connectors::{
    Anchor, Bounds, Error, ErrorKind, ReadLimit, Sequence, Source,
    files::{FileSource, LINE_BYTES_MAX},
};

/// 2026-07-31T23:55:00.000001Z.
const MODIFIED_US: i64 = 1_785_542_100_000_001;

fn file(dir: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    let modified = UNIX_EPOCH + Duration::from_micros(MODIFIED_US.unsigned_abs());
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn open(dir: &TempDir, name: &str, bytes: &[u8]) -> FileSource {
    FileSource::open(file(dir, name, bytes), None).unwrap()
}

async fn problem(mut source: FileSource) -> String {
    loop {
        match source.read(LIMIT).await {
            Ok(messages) => assert!(!messages.is_empty(), "the file was read to its end"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Invalid);
                return error.to_string();
            }
        }
    }
}

#[tokio::test]
async fn plain_and_gzipped_lines_are_the_same_messages() {
    let dir = TempDir::new().unwrap();
    let lines = b"{\"a\":1}\n{\"a\":2}\r\n{\"a\":3}";
    // Recognised by its first bytes, so the last one needs no ending.
    for (name, bytes) in [
        ("x.ndjson", lines.to_vec()),
        ("x.ndjson.gz", gzip(lines)),
        ("x", gzip(lines)),
    ] {
        let mut source = open(&dir, name, &bytes);
        assert_eq!(source.shard(), "x");
        let bounds = source.bounds().await.unwrap();
        assert_eq!(
            bounds,
            Bounds {
                first: Sequence(1),
                last: Sequence(3),
                asked_us: None,
            }
        );
        let all = read_until(&mut source, 3).await;
        assert_eq!(texts(&all), [r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#]);
        assert_eq!(sequences(&all), [1, 2, 3]);
        assert!(
            all.iter()
                .all(|m| m.ingest_time_us == MODIFIED_US && m.headers.is_empty())
        );
        assert!(source.read(LIMIT).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn gzip_members_that_follow_each_other_are_all_read() {
    let dir = TempDir::new().unwrap();
    let bytes = [gzip(b"1\n2\n"), gzip(b"3\n")].concat();
    let mut source = open(&dir, "x.gz", &bytes);
    assert_eq!(texts(&read_until(&mut source, 3).await), ["1", "2", "3"]);
}

#[tokio::test]
async fn blank_lines_keep_their_number_and_are_explained_holes() {
    let dir = TempDir::new().unwrap();
    let mut source = open(&dir, "x.ndjson", b"\n1\n\n \t\r\n2\n\n");
    assert_eq!(source.bounds().await.unwrap().last, Sequence(6));
    let messages = source.read(LIMIT).await.unwrap();
    assert_eq!(sequences(&messages), [2, 5]);
    assert_eq!(source.holes(), [hole(1, 1), hole(3, 4), hole(6, 6)]);
    assert!(source.holes().is_empty());
}

#[tokio::test]
async fn an_empty_file_has_no_lines() {
    let dir = TempDir::new().unwrap();
    let mut source = open(&dir, "x.ndjson", b"");
    let bounds = source.bounds().await.unwrap();
    assert_eq!(
        bounds,
        Bounds {
            first: Sequence(1),
            last: Sequence(0),
            asked_us: None,
        }
    );
    assert!(source.read(LIMIT).await.unwrap().is_empty());
}

#[tokio::test]
async fn seeking_forward_and_back_reads_the_same_lines() {
    let dir = TempDir::new().unwrap();
    let lines: String = (1..=1_000).map(|n| format!("{n}\n")).collect();
    let mut source = open(&dir, "x.ndjson.gz", &gzip(lines.as_bytes()));
    let small = ReadLimit { bytes: 6, ..LIMIT };
    // One digit each, so six lines reach six bytes.
    assert_eq!(
        sequences(&source.read(small).await.unwrap()),
        [1, 2, 3, 4, 5, 6]
    );
    source.seek(Sequence(997), None).await.unwrap();
    assert_eq!(
        texts(&read_until(&mut source, 1_000).await),
        ["998", "999", "1000"]
    );
    source.seek(Sequence(0), None).await.unwrap();
    assert_eq!(
        sequences(&read_until(&mut source, 1_000).await),
        (1..=1_000).collect::<Vec<_>>()
    );
    source.seek(Sequence(5_000), None).await.unwrap();
    assert!(source.read(LIMIT).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_anchor_of_a_line_equals_that_of_the_message_read() {
    let dir = TempDir::new().unwrap();
    let mut source = open(&dir, "x.ndjson", b"one\n\nthree\n");
    for message in read_until(&mut source, 3).await {
        let stored = source.anchor(message.sequence).await.unwrap();
        assert_eq!(stored, Some(Anchor::of(&message)));
    }
    for sequence in [0, 2, 4, u64::MAX] {
        assert_eq!(source.anchor(Sequence(sequence)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_line_of_full_length_passes_and_one_byte_more_is_refused() {
    let dir = TempDir::new().unwrap();
    let full = "x".repeat(LINE_BYTES_MAX);
    let mut source = open(&dir, "full.ndjson", format!("1\n{full}\r\n3\n").as_bytes());
    assert_eq!(sequences(&read_until(&mut source, 3).await), [1, 2, 3]);
    for end in ["", "\n", "xxxxx\n"] {
        let source = open(&dir, "long.ndjson", format!("1\n{full}x{end}").as_bytes());
        let problem = problem(source).await;
        assert!(
            problem.ends_with("long.ndjson: line 2 is longer than 8388608 bytes"),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn a_missing_file_and_a_folder_are_named() {
    let dir = TempDir::new().unwrap();
    let missing = FileSource::open(dir.path().join("none.ndjson"), None).unwrap_err();
    assert!(
        missing
            .to_string()
            .ends_with("none.ndjson: cannot be opened"),
        "{missing}"
    );
    let folder = FileSource::open(dir.path(), None).unwrap_err();
    assert!(
        folder
            .to_string()
            .ends_with("is a folder; name one file of events"),
        "{folder}"
    );
}

#[tokio::test]
async fn truncated_or_false_gzip_is_an_error_that_names_the_file() {
    let dir = TempDir::new().unwrap();
    let lines: String = (1..=20_000).map(|n| format!("line {n}\n")).collect();
    let whole = gzip(lines.as_bytes());
    let cut = open(&dir, "cut.ndjson.gz", &whole[..whole.len() / 2]);
    let cut = problem(cut).await;
    assert!(
        cut.contains("cut.ndjson.gz: line ") && cut.ends_with("the gzip data ends too early"),
        "{cut}"
    );
    for bytes in [&b"1\n"[..], b""] {
        let problem = problem(open(&dir, "false.gz", bytes)).await;
        assert!(problem.contains("false.gz: "), "{problem}");
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut source = open(&dir, "x.ndjson", b"1\n2\n");
    assert_eq!(source.read(LIMIT).await.unwrap().len(), 2);
    fs::write(dir.path().join("x.ndjson"), b"1\n2\n3\n").unwrap();
    source.seek(Sequence(0), None).await.unwrap();
    let error = source.read(LIMIT).await.unwrap_err();
    assert!(matches!(error, Error::File { .. }));
    assert!(
        error
            .to_string()
            .ends_with("changed while it was being read"),
        "{error}"
    );
}
