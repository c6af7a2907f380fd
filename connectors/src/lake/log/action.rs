//! The lines of the log: what each action says, in the form of Delta's protocol for reader version 1
//! and writer version 2.
//!
//! A row of a checkpoint has the same fields as a line of an entry, so both are read into [`Line`].
//! What later versions of the protocol add is only recognised, to be refused.

use crate::lake::StagedFile;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, Serialize, de::IgnoredAny};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, str::Utf8Error};

/// Text by name; `None` is NULL.
pub(crate) type Values = BTreeMap<String, Option<String>>;

/// One line of an entry, or one row of a checkpoint. One field is set; none when the line says
/// something that is not read here.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit_info: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) meta_data: Option<Box<Metadata>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) txn: Option<Txn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) add: Option<Box<Add>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remove: Option<Box<Remove>>,
}

/// What a client must be able to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    pub(crate) min_reader_version: i32,
    pub(crate) min_writer_version: i32,
    /// Only at reader version 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reader_features: Option<Vec<String>>,
    /// Only at writer version 7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) writer_features: Option<Vec<String>>,
}

/// What the table is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    pub(crate) format: Format,
    /// The columns, as JSON.
    pub(crate) schema_string: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) partition_columns: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_time: Option<i64>,
    #[serde(default, deserialize_with = "set")]
    pub(crate) configuration: BTreeMap<String, String>,
}

/// How the table's files are written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) provider: String,
    #[serde(default, deserialize_with = "set")]
    pub(crate) options: BTreeMap<String, String>,
}

impl Format {
    pub(crate) fn parquet() -> Self {
        Format {
            provider: "parquet".to_owned(),
            options: BTreeMap::new(),
        }
    }
}

/// A mark.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub(crate) app_id: String,
    pub(crate) version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_updated: Option<i64>,
}

/// A file that belongs to the table from now on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    #[serde(with = "uri")]
    pub(crate) path: String,
    #[serde(default, deserialize_with = "or_empty")]
    pub(crate) partition_values: Values,
    pub(crate) size: i64,
    pub(crate) modification_time: i64,
    pub(crate) data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stats: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<Values>,
    #[serde(default, skip_serializing)]
    pub(crate) deletion_vector: Option<IgnoredAny>,
}

impl Add {
    /// What keeps the file from being read whole, and as one of this table's folder.
    pub(crate) fn problem(&self) -> Option<String> {
        let path = &self.path;
        if self.deletion_vector.is_some() {
            return Some(format!("rows of its file {path} are deleted by a vector"));
        }
        let outside =
            path.starts_with('/') || has_scheme(path) || path.split('/').any(|part| part == "..");
        outside.then(|| format!("its file {path} is not in its folder"))
    }
}

/// Whether text is a URI that says where it begins, such as `s3://…` and `file:/…`.
fn has_scheme(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(plain)
    })
}

/// The tag of a file that names the nullable structs that it has, as a JSON array.
pub(crate) const STRUCTS_TAG: &str = "tollgate.structs";

impl From<Add> for StagedFile {
    fn from(add: Add) -> Self {
        let tag = add
            .tags
            .as_ref()
            .and_then(|tags| tags.get(STRUCTS_TAG)?.as_deref());
        let structs = tag.and_then(|tag| serde_json::from_str::<Vec<String>>(tag).ok());
        StagedFile {
            structs: structs.map(Into::into),
            path: add.path,
            bytes: add.size.try_into().unwrap_or_default(),
            partition: add.partition_values,
            modified_ms: add.modification_time,
            statistics: add.stats.map(Into::into),
        }
    }
}

/// A file that no longer belongs to the table.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    #[serde(with = "uri")]
    pub(crate) path: String,
    pub(crate) data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deletion_timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) extended_file_metadata: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition_values: Option<Values>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<Values>,
}

impl Line {
    pub(crate) fn commit_info(info: Map<String, Value>) -> Self {
        Line {
            commit_info: Some(info),
            ..Line::default()
        }
    }

    pub(crate) fn protocol(protocol: Protocol) -> Self {
        Line {
            protocol: Some(protocol),
            ..Line::default()
        }
    }

    pub(crate) fn metadata(metadata: Metadata) -> Self {
        Line {
            meta_data: Some(Box::new(metadata)),
            ..Line::default()
        }
    }

    pub(crate) fn txn(txn: Txn) -> Self {
        Line {
            txn: Some(txn),
            ..Line::default()
        }
    }

    pub(crate) fn add(add: Add) -> Self {
        Line {
            add: Some(Box::new(add)),
            ..Line::default()
        }
    }

    pub(crate) fn remove(remove: Remove) -> Self {
        Line {
            remove: Some(Box::new(remove)),
            ..Line::default()
        }
    }
}

/// The lines of an entry.
pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Vec<Line>> {
    serde_json::Deserializer::from_slice(bytes)
        .into_iter()
        .collect()
}

/// The bytes of an entry.
pub(crate) fn to_bytes(lines: &[Line]) -> serde_json::Result<Bytes> {
    let lines: Vec<String> = lines
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()?;
    Ok(lines.join("\n").into())
}

/// A list or map, which other tools write as NULL when it is empty.
fn or_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The settings that have a value.
fn set<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let values: Values = or_empty(deserializer)?;
    let set = values.into_iter();
    Ok(set.filter_map(|(key, value)| Some((key, value?))).collect())
}

/// The path that a relative URI of the log stands for.
pub(crate) fn path_of_uri(written: &str) -> Result<String, Utf8Error> {
    let path = percent_decode_str(written).decode_utf8();
    path.map(|path| path.into_owned())
}

/// Paths are relative URIs in the log, and plain text in memory.
mod uri {
    use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// What cannot stand in the path of a URI as it is.
    const ENCODED: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'%')
        .add(b'<')
        .add(b'>')
        .add(b'?')
        .add(b'[')
        .add(b'\\')
        .add(b']')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');

    pub(super) fn serialize<S: Serializer>(path: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&utf8_percent_encode(path, ENCODED))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<String, D::Error> {
        let written = String::deserialize(deserializer)?;
        super::path_of_uri(&written).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_uris_in_the_log_and_plain_in_memory() {
        let cases = [
            (
                "ingest_day=2026-07-31/part-0-c1.parquet",
                "ingest_day=2026-07-31/part-0-c1.parquet",
            ),
            ("day=a%20b/p%25.parquet", "day=a b/p%.parquet"),
            ("day=%C3%A9/p.parquet", "day=é/p.parquet"),
        ];
        for (written, path) in cases {
            let line = format!(r#"{{"remove":{{"path":"{written}","dataChange":true}}}}"#);
            let lines = parse(line.as_bytes()).unwrap();
            assert_eq!(lines[0].remove.as_ref().unwrap().path, path);
            assert_eq!(to_bytes(&lines).unwrap(), line);
        }
        assert!(parse(br#"{"remove":{"path":"%FF","dataChange":true}}"#).is_err());
    }

    #[test]
    fn what_a_line_says_beside_what_is_read_is_passed_over() {
        let text = br#"{"cdc":{"path":"x"}}
            {"txn":{"appId":"s/seq","version":7,"lastUpdated":1,"more":[]}}
            {"add":null,"txn":null,"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["v2Checkpoint"],"writerFeatures":null}}"#;
        let lines = parse(text).unwrap();
        assert_eq!(to_bytes(&lines[..1]).unwrap(), "{}");
        assert_eq!(lines[1].txn.as_ref().unwrap().version, 7);
        let features = lines[2].protocol.as_ref().unwrap().reader_features.clone();
        assert_eq!(features, Some(vec!["v2Checkpoint".to_owned()]));
    }

    #[test]
    fn a_file_that_is_not_whole_or_not_ours_is_a_problem() {
        let add = |path: &str, more: &str| {
            let line = format!(
                r#"{{"add":{{"path":"{path}","partitionValues":{{"day":null}},"size":1,"modificationTime":2,"dataChange":true{more}}}}}"#
            );
            parse(line.as_bytes()).unwrap().remove(0).add.unwrap()
        };
        assert_eq!(
            add("a.parquet", r#","deletionVector":null"#).problem(),
            None
        );
        let cases = [
            (
                add("a.parquet", r#","deletionVector":{"storageType":"u"}"#),
                "rows of its file a.parquet are deleted by a vector",
            ),
            (
                add("s3://other/a.parquet", ""),
                "its file s3://other/a.parquet is not in its folder",
            ),
        ];
        for (add, problem) in cases {
            assert_eq!(add.problem().as_deref(), Some(problem));
        }
        for (written, path) in [
            ("/a.parquet", "/a.parquet"),
            ("%2Fa.parquet", "/a.parquet"),
            ("//host/a.parquet", "//host/a.parquet"),
            ("file:/a.parquet", "file:/a.parquet"),
            ("file:///a.parquet", "file:///a.parquet"),
            ("file%3A/a.parquet", "file:/a.parquet"),
            ("FILE:a.parquet", "FILE:a.parquet"),
            ("s3:other/a.parquet", "s3:other/a.parquet"),
            ("s3a://other/a.parquet", "s3a://other/a.parquet"),
            ("abfss%3a//c@h/a.parquet", "abfss://c@h/a.parquet"),
            ("git+ssh.x-1:a", "git+ssh.x-1:a"),
            ("../a.parquet", "../a.parquet"),
            ("day=1/..%2F..%2Fa.parquet", "day=1/../../a.parquet"),
            ("day=1/%2e%2e/a.parquet", "day=1/../a.parquet"),
        ] {
            let expected = format!("its file {path} is not in its folder");
            assert_eq!(add(written, "").problem(), Some(expected), "{written}");
        }
        for inside in [
            "at=2026-07-31 00%3A00%3A00/a.parquet",
            "at=2026-07-31 00:00:00/a.parquet",
            "1:a.parquet",
            "a..b/c.parquet",
            "day=1/s3:a.parquet",
        ] {
            assert_eq!(add(inside, "").problem(), None, "{inside}");
        }
    }

    #[test]
    fn a_list_or_map_that_is_null_is_empty() {
        let metadata = |configuration: &str, options: &str, partition: &str| {
            let line = format!(
                r#"{{"metaData":{{"id":"a","name":null,"description":null,"format":{{"provider":"parquet","options":{options}}},"schemaString":"{{}}","partitionColumns":{partition},"createdTime":null,"configuration":{configuration}}}}}"#
            );
            let line = parse(line.as_bytes()).unwrap().remove(0);
            line.meta_data.unwrap()
        };
        let read = metadata("null", "null", "null");
        assert_eq!(read.configuration, BTreeMap::new());
        assert_eq!(read.format.options, BTreeMap::new());
        assert_eq!(read.partition_columns, Vec::<String>::new());
        // A setting without a value is not set.
        let read = metadata(
            r#"{"a":null,"b":"c"}"#,
            r#"{"d":null,"e":""}"#,
            r#"["day"]"#,
        );
        let text = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(read.configuration, text("b", "c"));
        assert_eq!(read.format.options, text("e", ""));
        assert_eq!(read.partition_columns, ["day"]);

        let lines = br#"{"add":{"path":"a","partitionValues":null,"size":1,"modificationTime":2,"dataChange":false,"stats":null,"tags":null}}
            {"remove":{"path":"a","dataChange":false,"deletionTimestamp":null,"extendedFileMetadata":null,"partitionValues":null,"size":null,"tags":null}}
            {"txn":{"appId":"a","version":1,"lastUpdated":null}}"#;
        let lines = parse(lines).unwrap();
        let add = lines[0].add.as_ref().unwrap();
        assert_eq!((add.partition_values.len(), add.tags.as_ref()), (0, None));
        let remove = lines[1].remove.as_ref().unwrap();
        assert_eq!(remove.partition_values, None);
        assert_eq!(lines[2].txn.as_ref().unwrap().last_updated, None);
    }
}
