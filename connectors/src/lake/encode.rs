//! Rows to Parquet files, one a day, with the statistics that let a reader skip them.
//!
//! A file has only the nullable structs, which are event types, that a row of it has: readers of Delta tables take what a
//! file lacks for NULL. Rows that come type by type are written so, and a column of another type is then one run of NULLs.
//! A file has some hundred columns of structs at most, however many the table has; rows of more go to several files.
//!
//! A table may keep the rows of one subject together: each row group is sorted by that column, in small pages whose
//! bounds are in the file. A condition on the column then reads a page or two of each row group. Row groups stay in the
//! order in which rows came, so that conditions on time leave out whole ones.

use super::{schema::plain, statistics, structs::Structs};
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
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Rows of a row group: small enough that a filter on sequence or time skips most of a large file.
const ROW_GROUP_ROWS: usize = 256 * 1024;
/// Rows that are sorted at once take at most about this much memory, whatever a row holds.
const SORTED_BYTES: usize = 64 << 20;
/// Rows that are written at once: as many NULLs are made for a column that they lack.
const WRITTEN_ROWS: usize = 64 * 1024;
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
    /// The nullable structs that it has; `None` in a table without any.
    pub(crate) structs: Option<Vec<String>>,
}

/// Which rows are put into one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) day: Option<i32>,
    /// Rows of event types that are near each other in the table.
    group: usize,
}

/// What cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncodeError {
    #[error("column `{0}` is not in the table")]
    UnknownColumn(String),
    #[error("column `{0}` is not in the file that is written")]
    NotInFile(String),
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
    /// Those that are in every file.
    always: Arc<Vec<usize>>,
    structs: Arc<Structs>,
    partition: Option<String>,
    /// The column of text by which each row group is sorted.
    together: Option<String>,
}

impl Encoder {
    pub(crate) fn new(schema: &Schema, partition: Option<&str>) -> Self {
        let table = plain(schema);
        let structs = Structs::of(&table);
        let columns = table.fields().iter().enumerate();
        let always = columns.filter(|(_, field)| structs.get(field.name()).is_none());
        let always = always.map(|(index, _)| index).collect();
        Encoder {
            always: Arc::new(always),
            structs: Arc::new(structs),
            table: Arc::new(table),
            partition: partition.map(str::to_owned),
            together: None,
        }
    }

    /// The same, with the rows of one value of a column kept together. A column that is not there, or is no text, changes
    /// nothing.
    pub(crate) fn keeping_together(mut self, column: Option<&str>) -> Self {
        let field = column.and_then(|column| self.table.field_with_name(column).ok());
        let text = field.filter(|field| *field.data_type() == DataType::Utf8);
        self.together = text.map(|field| field.name().clone());
        self
    }

    pub(crate) fn together(&self) -> Option<&str> {
        self.together.as_deref()
    }

    /// Sorts rows by file, keeping their order within one. Batches of a single file are not copied.
    pub(crate) fn split(
        &self,
        batches: &[RecordBatch],
    ) -> Result<BTreeMap<Place, Vec<RecordBatch>>, EncodeError> {
        let mut files: BTreeMap<Place, Vec<(usize, RecordBatch)>> = BTreeMap::new();
        for batch in batches.iter().filter(|b| b.num_rows() > 0) {
            let rows = self.align(batch)?;
            let structs = rows.schema_ref().fields().iter();
            let first = structs
                .filter_map(|field| self.structs.get(field.name()))
                .next();
            let (group, index) = match first {
                Some(first) => (first.group, first.index),
                None => (usize::MAX, usize::MAX),
            };
            for (day, rows) in self.split_batch(rows)? {
                let file = files.entry(Place { day, group }).or_default();
                file.push((index, self.without_partition(&rows)?));
            }
        }
        let files = join_rest(files).into_iter().map(|(place, mut rows)| {
            rows.sort_by_key(|(first, _)| *first);
            (place, rows.into_iter().map(|(_, rows)| rows).collect())
        });
        Ok(files.collect())
    }

    /// Encodes the rows of one file. CPU-bound: keep it off the async threads.
    pub(crate) fn encode(
        &self,
        day: Option<i32>,
        batches: &[RecordBatch],
    ) -> Result<Encoded, EncodeError> {
        let columns = batches
            .iter()
            .flat_map(|batch| batch.schema_ref().fields().iter());
        let structs = columns.filter_map(|field| self.structs.get(field.name()));
        let mut file = self.begin(day, structs.map(|of| of.index).collect())?;
        for rows in batches.chunk_by(|a, b| a.schema_ref() == b.schema_ref()) {
            for rows in small_together(rows)? {
                match rows {
                    [rows] => file.write(rows)?,
                    rows => file.write(&concat_batches(rows[0].schema_ref(), rows)?)?,
                }
            }
        }
        file.finish()
    }

    /// Begins a file of one day with some structs of the table, by their places.
    fn begin(
        &self,
        day: Option<i32>,
        structs: BTreeSet<usize>,
    ) -> Result<FileEncoder, EncodeError> {
        let name = |index: &usize| self.table.field(*index).name().clone();
        let names = (!self.structs.is_empty()).then(|| structs.iter().map(name).collect());
        let columns: BTreeSet<usize> = self.always.iter().copied().chain(structs).collect();
        let columns = columns.into_iter();
        let fields = columns.map(|index| Arc::clone(&self.table.fields()[index]));
        let fields = fields.filter(|field| self.partition.as_ref() != Some(field.name()));
        let schema = Arc::new(Schema::new(fields.collect::<Fields>()));
        // The Arrow schema would only repeat what the Parquet types already say.
        let options = ArrowWriterOptions::new()
            .with_properties(properties(&schema, self.together())?)
            .with_skip_arrow_metadata(true);
        Ok(FileEncoder {
            writer: ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)?,
            nulls: HashMap::new(),
            structs: names,
            schema,
            day,
            rows: 0,
            unsorted: self.together.clone().map(|column| Unsorted {
                column,
                ..Unsorted::default()
            }),
        })
    }

    /// Begins a file of one day for batches with these columns.
    pub(crate) fn begin_as(
        &self,
        day: Option<i32>,
        columns: &Schema,
    ) -> Result<FileEncoder, EncodeError> {
        let columns = columns.fields().iter();
        let structs = columns.filter_map(|field| self.structs.get(field.name()));
        self.begin(day, structs.map(|of| of.index).collect())
    }

    /// Rows of the table as they are in its files.
    pub(crate) fn in_file(&self, batch: &RecordBatch) -> Result<RecordBatch, EncodeError> {
        self.without_partition(&self.align(batch)?)
    }

    /// The batch with the table's columns in its order. A nullable one that is missing is NULL; one that is a struct is left out
    /// when no row has a value in it.
    fn align(&self, batch: &RecordBatch) -> Result<RecordBatch, EncodeError> {
        let schema = batch.schema_ref();
        let mut found: BTreeMap<usize, Option<&ArrayRef>> =
            self.always.iter().map(|index| (*index, None)).collect();
        for (field, column) in schema.fields().iter().zip(batch.columns()) {
            match self.structs.get(field.name()) {
                Some(_) if column.null_count() == column.len() => {}
                Some(of) => drop(found.insert(of.index, Some(column))),
                None => match self.table.index_of(field.name()) {
                    Ok(index) => drop(found.insert(index, Some(column))),
                    Err(_) => return Err(EncodeError::UnknownColumn(field.name().clone())),
                },
            }
        }
        let fields = found
            .keys()
            .map(|index| Arc::clone(&self.table.fields()[*index]));
        let aligned_schema = Arc::new(Schema::new(fields.collect::<Fields>()));
        let columns = aligned_schema.fields().iter().zip(found.values());
        let columns = columns.map(|(field, found)| {
            aligned(
                field.name(),
                *found,
                field.data_type(),
                field.is_nullable(),
                batch.num_rows(),
            )
        });
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new(aligned_schema, columns)?)
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
        let columns = batch.schema_ref().fields().iter().enumerate();
        let kept = columns.filter(|(_, field)| self.partition.as_ref() != Some(field.name()));
        Ok(batch.project(&kept.map(|(index, _)| index).collect::<Vec<_>>())?)
    }
}

/// Batches that are written as one: each write costs something for every column of the file. Texts of one write are
/// addressed by 32 bits, so that there is a bound in bytes too.
fn small_together(mut batches: &[RecordBatch]) -> Result<Vec<&[RecordBatch]>, EncodeError> {
    let mut together = Vec::new();
    while !batches.is_empty() {
        let (mut rows, mut bytes, mut count) = (0, 0, 0);
        for batch in batches {
            rows += batch.num_rows();
            bytes += held_bytes(batch)?;
            if count > 0 && (rows > WRITTEN_ROWS || bytes > SORTED_BYTES) {
                break;
            }
            count += 1;
        }
        let (first, rest) = batches.split_at(count);
        together.push(first);
        batches = rest;
    }
    Ok(together)
}

/// What the rows hold, not what was allocated for them: the same rows always make the same file.
fn held_bytes(batch: &RecordBatch) -> Result<usize, ArrowError> {
    let columns = batch.columns().iter();
    columns
        .map(|column| column.to_data().get_slice_memory_size())
        .sum()
}

/// Rows without a struct go to the last file of their day.
fn join_rest<T>(mut files: BTreeMap<Place, Vec<T>>) -> BTreeMap<Place, Vec<T>> {
    let rest: Vec<Place> = files
        .keys()
        .filter(|place| place.group == usize::MAX)
        .copied()
        .collect();
    for place in rest {
        let of_day = Place { group: 0, ..place }..place;
        let Some((last, _)) = files.range(of_day).next_back() else {
            continue;
        };
        let last = *last;
        let mut rows = files.remove(&place).unwrap_or_default();
        files.entry(last).or_default().append(&mut rows);
    }
    files
}

/// A file in the making.
pub(crate) struct FileEncoder {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    structs: Option<Vec<String>>,
    /// NULLs for the columns that rows do not have, by place.
    nulls: HashMap<usize, ArrayRef>,
    day: Option<i32>,
    rows: u64,
    /// The rows of the next row group, where it is sorted.
    unsorted: Option<Unsorted>,
}

impl FileEncoder {
    /// Appends rows that have columns of the file, in its order. CPU-bound: keep it off the async threads.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), EncodeError> {
        self.rows += batch.num_rows() as u64;
        for from in (0..batch.num_rows()).step_by(WRITTEN_ROWS) {
            let rows = WRITTEN_ROWS.min(batch.num_rows() - from);
            self.write_some(&batch.slice(from, rows))?;
        }
        Ok(())
    }

    fn write_some(&mut self, batch: &RecordBatch) -> Result<(), EncodeError> {
        let batch = self.filled(batch)?;
        let Some(unsorted) = &mut self.unsorted else {
            return Ok(self.writer.write(&batch)?);
        };
        let mut rest = batch;
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

    /// The rows with NULL in the columns that they lack. Parquet's writer takes an array of NULLs as one run, so that it
    /// costs the same however long it is.
    fn filled(&mut self, batch: &RecordBatch) -> Result<RecordBatch, EncodeError> {
        let rows = batch.num_rows();
        let mut found = batch
            .schema_ref()
            .fields()
            .iter()
            .zip(batch.columns())
            .peekable();
        let fields = self.schema.fields().iter().enumerate();
        let columns = fields.map(|(index, field)| {
            match found.next_if(|(of_batch, _)| of_batch.name() == field.name()) {
                Some((_, column)) => Arc::clone(column),
                None => {
                    let nulls = self.nulls.get(&index).filter(|nulls| nulls.len() >= rows);
                    let nulls = nulls.cloned().unwrap_or_else(|| {
                        let nulls = new_null_array(field.data_type(), rows);
                        self.nulls.insert(index, Arc::clone(&nulls));
                        nulls
                    });
                    nulls.slice(0, rows)
                }
            }
        });
        let columns = columns.collect();
        if let Some((unknown, _)) = found.next() {
            return Err(EncodeError::NotInFile(unknown.name().clone()));
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
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
            structs: self.structs,
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
        self.bytes += held_bytes(&batch)?;
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

/// Rows with exactly these columns: what is missing is NULL.
pub(crate) fn with_all(
    schema: &SchemaRef,
    batch: &RecordBatch,
) -> Result<RecordBatch, EncodeError> {
    let columns = schema.fields().iter().map(|field| {
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
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
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
