//! Checkpoints: what a log says up to a version, as one Parquet file whose rows are its lines.
//!
//! Written is the classic form of one file that every reader knows. Read is that, and the classic form
//! of several parts. A checkpoint of a later form needs a later protocol, which is refused.

mod files;

use super::{
    FOLDER, Version,
    action::{Line, parse},
    state::State,
};
use crate::error::Cause;
use arrow::{
    compute::filter_record_batch,
    datatypes::{DataType, Field, Fields, Schema, SchemaRef},
    json::{
        ReaderBuilder,
        writer::{LineDelimited, WriterBuilder},
    },
};
use bytes::Bytes;
use files::Files;
use object_store::path::Path;
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
        arrow_writer::ArrowWriterOptions,
    },
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use std::sync::Arc;

/// Rows that are converted at once.
const BATCH_ROWS: usize = 1_024;
/// How long a checkpoint remembers a removed file, as the protocol has it by default: 7 days.
const REMOVED_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
/// The setting of a table that says otherwise.
const REMOVED_KEY: &str = "delta.deletedFileRetentionDuration";

/// A checkpoint that was just encoded.
pub(crate) struct Encoded {
    pub(crate) bytes: Bytes,
    rows: usize,
    files: usize,
}

impl Encoded {
    /// The content of `_last_checkpoint`.
    pub(crate) fn hint(&self, version: Version) -> String {
        serde_json::json!({
            "version": version,
            "size": self.rows,
            "sizeInBytes": self.bytes.len(),
            "numOfAddFiles": self.files,
        })
        .to_string()
    }
}

/// Where the checkpoint of a version is written.
pub(crate) fn path_of(version: Version) -> Path {
    Path::from(format!("{FOLDER}/{version:020}.checkpoint.parquet"))
}

/// The checkpoint of a state.
pub(crate) fn encode(state: State) -> Result<Encoded, Cause> {
    let files = state.files.len();
    let lines = lines_of(state);
    let schema = schema();
    let compression = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(compression);
    let options = ArrowWriterOptions::new()
        .with_properties(properties.build())
        .with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, Arc::clone(&schema), options)?;
    let mut decoder = ReaderBuilder::new(schema).build_decoder()?;
    for lines in lines.chunks(BATCH_ROWS) {
        decoder.serialize(lines)?;
        if let Some(batch) = decoder.flush()? {
            writer.write(&batch)?;
        }
    }
    writer.close()?;
    Ok(Encoded {
        rows: lines.len(),
        files,
        bytes: bytes.into(),
    })
}

fn lines_of(state: State) -> Vec<Line> {
    let forgets = state
        .metadata
        .as_ref()
        .is_some_and(|metadata| !metadata.configuration.contains_key(REMOVED_KEY));
    let since_ms = match forgets {
        true => state.written_ms.saturating_sub(REMOVED_MS),
        // A table with a rule of its own: what is remembered for too long harms nothing.
        false => i64::MIN,
    };
    let removed = state.removed.into_values();
    let removed = removed.filter(|file| file.deletion_timestamp.unwrap_or(0) > since_ms);
    let protocol = state.protocol.into_iter().map(Line::protocol);
    protocol
        .chain(state.metadata.into_iter().map(Line::metadata))
        .chain(state.marks.into_values().map(Line::txn))
        .chain(state.files.into_values().map(Line::add))
        .chain(removed.map(Line::remove))
        .collect()
}

/// Takes the rows of one file of a checkpoint into a state.
pub(crate) fn decode(bytes: Bytes, state: &mut State) -> Result<(), Cause> {
    // The types that Parquet has, whatever the writer had in memory.
    let plain = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, plain)?;
    let builder = builder.with_batch_size(BATCH_ROWS);
    let read = ["protocol", "metaData", "txn", "remove"].into_iter();
    let of_add = [
        "add.path",
        "add.partitionValues",
        "add.size",
        "add.modificationTime",
        "add.dataChange",
        "add.stats",
        "add.tags",
        "add.deletionVector",
    ];
    // Another writer may keep the statistics a second time, as columns.
    let mask = ProjectionMask::columns(builder.parquet_schema(), read.chain(of_add));
    let explicit = WriterBuilder::new().with_explicit_nulls(true);
    for batch in builder.with_projection(mask).build()? {
        let batch = batch?;
        let files = Files::of(&batch);
        for row in 0..batch.num_rows() {
            let line = Line {
                add: files.added(row)?.map(Box::new),
                remove: files.removed(row)?.map(Box::new),
                ..Line::default()
            };
            state.take(line);
        }
        let others = filter_record_batch(&batch, &files.others(batch.num_rows()))?;
        let mut writer = explicit.clone().build::<_, LineDelimited>(Vec::new());
        writer.write(&others)?;
        writer.finish()?;
        for line in parse(&writer.into_inner())? {
            state.take(line);
        }
    }
    Ok(())
}

/// The columns of a checkpoint, in the protocol's order and with its names.
fn schema() -> SchemaRef {
    let vector = || {
        let fields = [
            must(text("storageType")),
            must(text("pathOrInlineDv")),
            Field::new("offset", DataType::Int32, true),
            must(Field::new("sizeInBytes", DataType::Int32, true)),
            must(long("cardinality")),
        ];
        group("deletionVector", fields)
    };
    let format = [must(text("provider")), must(map("options", false))];
    let add = [
        must(text("path")),
        must(map("partitionValues", true)),
        must(long("size")),
        must(long("modificationTime")),
        must(flag("dataChange")),
        text("stats"),
        map("tags", true),
        vector(),
        long("baseRowId"),
        long("defaultRowCommitVersion"),
        text("clusteringProvider"),
    ];
    let remove = [
        must(text("path")),
        long("deletionTimestamp"),
        must(flag("dataChange")),
        flag("extendedFileMetadata"),
        map("partitionValues", true),
        long("size"),
        text("stats"),
        map("tags", true),
        vector(),
        long("baseRowId"),
        long("defaultRowCommitVersion"),
    ];
    let metadata = [
        must(text("id")),
        text("name"),
        text("description"),
        must(group("format", format)),
        must(text("schemaString")),
        must(list("partitionColumns")),
        long("createdTime"),
        must(map("configuration", false)),
    ];
    let protocol = [
        must(Field::new("minReaderVersion", DataType::Int32, true)),
        must(Field::new("minWriterVersion", DataType::Int32, true)),
        list("readerFeatures"),
        list("writerFeatures"),
    ];
    let txn = [
        must(text("appId")),
        must(long("version")),
        long("lastUpdated"),
    ];
    Arc::new(Schema::new(vec![
        group("add", add),
        group("remove", remove),
        group("metaData", metadata),
        group("protocol", protocol),
        group("txn", txn),
    ]))
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn long(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn flag(name: &str) -> Field {
    Field::new(name, DataType::Boolean, true)
}

fn group(name: &str, fields: impl IntoIterator<Item = Field>) -> Field {
    let fields: Fields = fields.into_iter().collect();
    Field::new(name, DataType::Struct(fields), true)
}

fn list(name: &str) -> Field {
    let element = must(text("element"));
    Field::new(name, DataType::List(Arc::new(element)), true)
}

fn map(name: &str, nullable_values: bool) -> Field {
    let value = text("value").with_nullable(nullable_values);
    let entries = must(group("key_value", [must(text("key")), value]));
    Field::new(name, DataType::Map(Arc::new(entries), false), true)
}

/// Never NULL in an action that has it.
fn must(field: Field) -> Field {
    field.with_nullable(false)
}
