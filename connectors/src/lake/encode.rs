//! Rows to Parquet files, one a day, with the statistics that let a reader skip them.
//!
//! A table may keep the rows of one subject together: each row group is sorted by that column, in small pages whose
//! bounds are in the file. A condition on the column then reads a page or two of each row group. Row groups stay in the
//! order in which rows came, so that conditions on time leave out whole ones.

use super::{schema::plain, statistics};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray, StructArray, UInt32Array,
        new_null_array,
    },
    compute::{concat_batches, filter_record_batch, max, min, take_record_batch},
    datatypes::{DataType, Date32Type, Field, Fields, Schema, SchemaRef},
    error::ArrowError,
};
use bytes::Bytes;
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};
use std::{collections::BTreeMap, sync::Arc};

/// Rows of a row group: small enough that a filter on sequence or time skips most of a large file.
const ROW_GROUP_ROWS: usize = 256 * 1024;
/// Rows that are sorted at once take at most about this much memory, whatever a row holds.
const SORTED_BYTES: usize = 64 << 20;
/// Rows of a page where rows are kept together: what is read for one value, of each column.
const PAGE_ROWS: usize = 4 * 1024;
/// A dictionary is read whole for any page of it.
const DICTIONARY_BYTES: usize = 64 << 10;

/// A file in memory, ready to upload.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// The day of all of its rows, in days since 1970-01-01; `None` in a table without partitions.
    pub(crate) day: Option<i32>,
    pub(crate) rows: u64,
    pub(crate) bytes: Bytes,
    pub(crate) statistics: String,
}

/// What cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("column `{0}` is not in the table")]
    UnknownColumn(String),
    #[error("column `{0}` is missing or NULL, but may not be")]
    Missing(String),
    #[error("column `{column}` is {found}, not {wanted}")]
    Type {
        column: String,
        found: DataType,
        wanted: DataType,
    },
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

/// How the rows of one table become files.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    /// All columns, without metadata.
    table: SchemaRef,
    /// Those that are in the files.
    file: SchemaRef,
    partition: Option<String>,
    /// The column of text by which each row group is sorted.
    together: Option<String>,
}

impl Encoder {
    pub(crate) fn new(schema: &Schema, partition: Option<&str>) -> Self {
        let table = plain(schema);
        let in_file = |name: &str| Some(name) != partition;
        let fields = table.fields().iter().filter(|f| in_file(f.name()));
        Encoder {
            file: Arc::new(Schema::new(fields.cloned().collect::<Fields>())),
            table: Arc::new(table),
            partition: partition.map(str::to_owned),
            together: None,
        }
    }

    /// The same, with the rows of one value of a column kept together. A column that is not there, or is no text, changes
    /// nothing.
    pub(crate) fn keeping_together(mut self, column: Option<&str>) -> Self {
        let field = column.and_then(|column| self.file.field_with_name(column).ok());
        let text = field.filter(|field| *field.data_type() == DataType::Utf8);
        self.together = text.map(|field| field.name().clone());
        self
    }

    pub(crate) fn together(&self) -> Option<&str> {
        self.together.as_deref()
    }

    /// Sorts rows by day, keeping their order within a day. Batches of a single day are not copied.
    pub(crate) fn split(
        &self,
        batches: &[RecordBatch],
    ) -> Result<BTreeMap<Option<i32>, Vec<RecordBatch>>, EncodeError> {
        let mut days: BTreeMap<Option<i32>, Vec<RecordBatch>> = BTreeMap::new();
        for batch in batches.iter().filter(|b| b.num_rows() > 0) {
            let rows = self.align(batch)?;
            for (day, rows) in self.split_batch(rows)? {
                days.entry(day)
                    .or_default()
                    .push(self.without_partition(&rows)?);
            }
        }
        Ok(days)
    }

    /// Encodes the rows of one day. CPU-bound: keep it off the async threads.
    pub(crate) fn encode(
        &self,
        day: Option<i32>,
        batches: &[RecordBatch],
    ) -> Result<Encoded, EncodeError> {
        let mut file = self.begin(day)?;
        batches.iter().try_for_each(|batch| file.write(batch))?;
        file.finish()
    }

    /// Begins a file of one day.
    pub(crate) fn begin(&self, day: Option<i32>) -> Result<FileEncoder, EncodeError> {
        // The Arrow schema would only repeat what the Parquet types already say.
        let options = ArrowWriterOptions::new()
            .with_properties(properties(&self.file, self.together())?)
            .with_skip_arrow_metadata(true);
        let schema = Arc::clone(&self.file);
        Ok(FileEncoder {
            writer: ArrowWriter::try_new_with_options(Vec::new(), schema, options)?,
            schema: Arc::clone(&self.file),
            day,
            rows: 0,
            unsorted: self.together.clone().map(|column| Unsorted {
                column,
                ..Unsorted::default()
            }),
        })
    }

    /// Rows of the table as they are in its files.
    pub(crate) fn in_file(&self, batch: &RecordBatch) -> Result<RecordBatch, EncodeError> {
        self.without_partition(&self.align(batch)?)
    }

    /// The batch with exactly the table's columns, in its order; missing nullable ones are NULL.
    fn align(&self, batch: &RecordBatch) -> Result<RecordBatch, EncodeError> {
        let schema = batch.schema();
        let known = |name: &str| self.table.fields().find(name).is_some();
        if let Some(unknown) = schema.fields().iter().find(|f| !known(f.name())) {
            return Err(EncodeError::UnknownColumn(unknown.name().clone()));
        }
        let columns = self.table.fields().iter().map(|field| {
            let found = batch.column_by_name(field.name());
            aligned(
                field.name(),
                found,
                field.data_type(),
                field.is_nullable(),
                batch.num_rows(),
            )
        });
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.table), columns)?)
    }

    fn split_batch(
        &self,
        batch: RecordBatch,
    ) -> Result<Vec<(Option<i32>, RecordBatch)>, EncodeError> {
        let column = self
            .partition
            .as_ref()
            .and_then(|name| batch.column_by_name(name));
        let Some(column) = column else {
            return Ok(vec![(None, batch)]);
        };
        let days = column.as_primitive::<Date32Type>().clone();
        if min(&days) == max(&days) {
            return Ok(vec![(min(&days), batch)]);
        }
        let mut distinct = days.values().to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let of_day = |day: i32| {
            let mask: BooleanArray = days.values().iter().map(|d| Some(*d == day)).collect();
            Ok((Some(day), filter_record_batch(&batch, &mask)?))
        };
        distinct.into_iter().map(of_day).collect()
    }

    fn without_partition(&self, batch: &RecordBatch) -> Result<RecordBatch, EncodeError> {
        let columns = self.file.fields().iter();
        let indices = columns.filter_map(|f| self.table.index_of(f.name()).ok());
        Ok(batch.project(&indices.collect::<Vec<_>>())?)
    }
}

/// A file in the making.
pub(crate) struct FileEncoder {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    day: Option<i32>,
    rows: u64,
    /// The rows of the next row group, where it is sorted.
    unsorted: Option<Unsorted>,
}

impl FileEncoder {
    /// Appends rows that have the file's columns. CPU-bound: keep it off the async threads.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), EncodeError> {
        self.rows += batch.num_rows() as u64;
        let Some(unsorted) = &mut self.unsorted else {
            return Ok(self.writer.write(batch)?);
        };
        let mut rest = batch.clone();
        while rest.num_rows() > 0 {
            let fits = rest.num_rows().min(ROW_GROUP_ROWS - unsorted.rows);
            unsorted.push(rest.slice(0, fits))?;
            rest = rest.slice(fits, rest.num_rows() - fits);
            if unsorted.is_full() {
                write_sorted(&mut self.writer, unsorted)?;
            }
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Result<Encoded, EncodeError> {
        if let Some(unsorted) = &mut self.unsorted {
            write_sorted(&mut self.writer, unsorted)?;
        }
        let metadata = self.writer.finish()?;
        Ok(Encoded {
            day: self.day,
            rows: self.rows,
            bytes: std::mem::take(self.writer.inner_mut()).into(),
            statistics: statistics::of_file(&metadata, &self.schema),
        })
    }
}

/// Rows that become one row group, sorted by a column.
#[derive(Debug, Default)]
struct Unsorted {
    column: String,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Unsorted {
    fn push(&mut self, batch: RecordBatch) -> Result<(), EncodeError> {
        self.rows += batch.num_rows();
        // What the rows hold, not what was allocated for them: the same rows always make the same file.
        for column in batch.columns() {
            self.bytes += column.to_data().get_slice_memory_size()?;
        }
        self.batches.push(batch);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows >= ROW_GROUP_ROWS || self.bytes >= SORTED_BYTES
    }

    /// The rows, in the order of the column; those of one value stay in their order.
    fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, EncodeError> {
        let batches = std::mem::take(&mut self.batches);
        (self.rows, self.bytes) = (0, 0);
        let rows = concat_batches(schema, &batches)?;
        let values: &StringArray = rows[self.column.as_str()].as_string();
        let value = |row: usize| values.is_valid(row).then(|| values.value(row));
        if (1..values.len()).all(|row| value(row - 1) <= value(row)) {
            return Ok(rows);
        }
        let mut order: Vec<u32> = (0..).take(values.len()).collect();
        order.sort_by_cached_key(|row| value(*row as usize));
        Ok(take_record_batch(&rows, &UInt32Array::from(order))?)
    }
}

/// Writes what waits to be sorted as one row group.
fn write_sorted(
    writer: &mut ArrowWriter<Vec<u8>>,
    unsorted: &mut Unsorted,
) -> Result<(), EncodeError> {
    if let Some(first) = unsorted.batches.first() {
        let schema = first.schema();
        writer.write(&unsorted.take(&schema)?)?;
        writer.flush()?;
    }
    Ok(())
}

/// One column as the table has it: children of structs by name, metadata dropped.
fn aligned(
    path: &str,
    found: Option<&ArrayRef>,
    wanted: &DataType,
    nullable: bool,
    rows: usize,
) -> Result<ArrayRef, EncodeError> {
    let Some(array) = found else {
        return match nullable {
            true => Ok(new_null_array(wanted, rows)),
            false => Err(EncodeError::Missing(path.to_owned())),
        };
    };
    if !nullable && array.null_count() > 0 {
        return Err(EncodeError::Missing(path.to_owned()));
    }
    match (array.data_type(), wanted) {
        (found, wanted) if found == wanted => Ok(Arc::clone(array)),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            aligned_struct(path, array.as_struct(), fields)
        }
        (found, wanted) if found.equals_datatype(wanted) => {
            // A list whose item has another name or metadata: the same values.
            Ok(arrow::compute::cast(array, wanted)?)
        }
        (found, wanted) => Err(EncodeError::Type {
            column: path.to_owned(),
            found: found.clone(),
            wanted: wanted.clone(),
        }),
    }
}

fn aligned_struct(
    path: &str,
    array: &StructArray,
    fields: &Fields,
) -> Result<ArrayRef, EncodeError> {
    let unknown = array
        .column_names()
        .into_iter()
        .find(|name| fields.find(name).is_none());
    if let Some(name) = unknown {
        return Err(EncodeError::UnknownColumn(format!("{path}.{name}")));
    }
    let children = fields.iter().map(|field| {
        let path = format!("{path}.{}", field.name());
        let child = array.column_by_name(field.name());
        aligned(
            &path,
            child,
            field.data_type(),
            field.is_nullable(),
            array.len(),
        )
    });
    let children = children.collect::<Result<_, _>>()?;
    let aligned = StructArray::try_new_with_length(
        fields.clone(),
        children,
        array.nulls().cloned(),
        array.len(),
    )?;
    Ok(Arc::new(aligned))
}

fn properties(schema: &Schema, together: Option<&str>) -> Result<WriterProperties, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(concat!("tollgate ", env!("CARGO_PKG_VERSION")).to_owned());
    if let Some(column) = together {
        let column = ColumnPath::from(column);
        properties = properties
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_dictionary_page_size_limit(DICTIONARY_BYTES)
            // Neighbours have the same value, or begin alike.
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BYTE_ARRAY);
    }
    let rising = schema.fields().iter().filter(|f| is_rising(f));
    let packed = rising.fold(properties, |properties, field| {
        let column = ColumnPath::from(field.name().as_str());
        properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED)
    });
    Ok(packed.build())
}

/// Columns that mostly count up: sequences and times. Their differences pack better than a
/// dictionary, which would have an entry a row.
fn is_rising(field: &Field) -> bool {
    match field.data_type() {
        DataType::Int64 => !field.is_nullable(),
        other => matches!(other, DataType::Timestamp(..)),
    }
}
