//! The builders behind one batch. A column of a type that a row is not of is only filled up when
//! that type comes again, or at the end: nulls go in by the run, not one by one.

use super::shape::{Kind, Shape, Value};
use super::{Status, TYPE_KEY, unfit};
use crate::Result;
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBufferBuilder, BooleanBuilder, Date32Array, Date32Builder,
    Decimal128Builder, Int32Array, Int64Array, Int64Builder, ListArray, RecordBatch, StringArray,
    StringBuilder, StructArray, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Fields, Schema, SchemaRef};
use std::sync::Arc;

/// Where a row comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) sequence: i64,
    pub(super) ordinal: i32,
    pub(super) ingest_time_us: i64,
    pub(super) ingest_day: i32,
}

/// The columns that every event has.
#[derive(Debug)]
pub(super) struct Head<'r> {
    pub(super) id: Option<&'r str>,
    pub(super) source: Option<&'r str>,
    pub(super) kind: Option<&'r str>,
    pub(super) subject: Option<&'r str>,
    pub(super) event_time: Option<i64>,
    pub(super) status: Status,
    pub(super) reason: Option<&'r str>,
    pub(super) raw: Option<&'r [u8]>,
    pub(super) content_hash: Option<i64>,
    pub(super) extra: Option<&'r str>,
}

impl Head<'_> {
    /// Bytes that the size of the input does not bound.
    pub(super) fn written_bytes(&self) -> usize {
        self.reason.map_or(0, str::len) + self.raw.map_or(0, <[u8]>::len)
    }
}

/// All columns of one batch in the making.
pub(super) struct Columns {
    sequence: Vec<i64>,
    ordinal: Vec<i32>,
    ingest_time: Vec<i64>,
    ingest_day: Vec<i32>,
    pub(super) status: Vec<Status>,
    id: StringBuilder,
    source: StringBuilder,
    kind: StringBuilder,
    subject: StringBuilder,
    event_time: TimestampMicrosecondBuilder,
    reason: StringBuilder,
    raw: BinaryBuilder,
    content_hash: Int64Builder,
    extra: StringBuilder,
    types: Vec<TypeColumn>,
}

impl Columns {
    /// Empty columns with room for so many rows.
    pub(super) fn new(shapes: &[Shape], rows: usize) -> Self {
        let text = |bytes: usize| StringBuilder::with_capacity(rows, rows * bytes);
        Columns {
            sequence: Vec::with_capacity(rows),
            ordinal: Vec::with_capacity(rows),
            ingest_time: Vec::with_capacity(rows),
            ingest_day: Vec::with_capacity(rows),
            status: Vec::with_capacity(rows),
            id: text(32),
            source: text(16),
            kind: text(16),
            subject: text(16),
            event_time: TimestampMicrosecondBuilder::with_capacity(rows),
            reason: StringBuilder::new(),
            raw: BinaryBuilder::new(),
            content_hash: Int64Builder::with_capacity(rows),
            extra: StringBuilder::new(),
            types: shapes.iter().map(TypeColumn::new).collect(),
        }
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> usize {
        self.status.len()
    }

    /// Adds one row.
    pub(super) fn push(&mut self, place: Place, head: &Head<'_>) {
        self.sequence.push(place.sequence);
        self.ordinal.push(place.ordinal);
        self.ingest_time.push(place.ingest_time_us);
        self.ingest_day.push(place.ingest_day);
        self.status.push(head.status);
        self.id.append_option(head.id);
        self.source.append_option(head.source);
        self.kind.append_option(head.kind);
        self.subject.append_option(head.subject);
        self.event_time.append_option(head.event_time);
        self.reason.append_option(head.reason);
        self.raw.append_option(head.raw);
        self.content_hash.append_option(head.content_hash);
        self.extra.append_option(head.extra);
    }

    /// Adds the typed values of the row that is pushed next.
    pub(super) fn push_values(&mut self, shape: usize, values: &[Value<'_>]) {
        let row = self.rows();
        self.types[shape].push(row, values);
    }

    /// The batch, with exactly this schema.
    pub(super) fn finish(
        mut self,
        schema: &SchemaRef,
        shard: &str,
    ) -> Result<(RecordBatch, Vec<Status>)> {
        let rows = self.rows();
        let mut types = std::mem::take(&mut self.types).into_iter();
        let mut arrays = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            let array = match (field.data_type(), types.len()) {
                (DataType::Struct(children), 1..) if field.metadata().contains_key(TYPE_KEY) => {
                    types
                        .next()
                        .map(|column| column.finish(children, rows))
                        .transpose()?
                }
                _ => self.head(field.name(), shard),
            };
            arrays.push(array.ok_or_else(|| unfit(format!("no such column: `{}`", field.name())))?);
        }
        let batch =
            RecordBatch::try_new(Arc::clone(schema), arrays).map_err(|e| unfit(e.to_string()))?;
        Ok((batch, self.status))
    }

    fn head(&mut self, name: &str, shard: &str) -> Option<ArrayRef> {
        let rows = self.rows();
        Some(match name {
            "shard" => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
                shard, rows,
            ))),
            "sequence" => Arc::new(Int64Array::from(std::mem::take(&mut self.sequence))),
            "ordinal" => Arc::new(Int32Array::from(std::mem::take(&mut self.ordinal))),
            "event_id" => Arc::new(self.id.finish()),
            "source" => Arc::new(self.source.finish()),
            "type" => Arc::new(self.kind.finish()),
            "subject" => Arc::new(self.subject.finish()),
            "event_time" => Arc::new(self.event_time.finish().with_timezone("UTC")),
            "ingest_time" => {
                let times = TimestampMicrosecondArray::from(std::mem::take(&mut self.ingest_time));
                Arc::new(times.with_timezone("UTC"))
            }
            "status" => Arc::new(Status::column(&self.status)),
            "reason" => Arc::new(self.reason.finish()),
            "raw" => Arc::new(self.raw.finish()),
            "content_hash" => Arc::new(self.content_hash.finish()),
            "extra" => Arc::new(self.extra.finish()),
            "ingest_day" => Arc::new(Date32Array::from(std::mem::take(&mut self.ingest_day))),
            _ => return None,
        })
    }
}

/// Whether a schema's columns beside the event types are those that a decoder fills.
pub(super) fn check_head(schema: &Schema, shapes: &[Shape]) -> Result<()> {
    let empty = Columns::new(shapes, 0);
    empty.finish(&Arc::new(schema.clone()), "").map(|_| ())
}

/// The struct column of one event type.
struct TypeColumn {
    cells: Vec<Cells>,
    valid: BooleanBufferBuilder,
}

impl TypeColumn {
    fn new(shape: &Shape) -> Self {
        TypeColumn {
            cells: shape.kinds().map(Cells::new).collect(),
            valid: BooleanBufferBuilder::new(0),
        }
    }

    fn push(&mut self, row: usize, values: &[Value<'_>]) {
        self.fill(row);
        self.valid.append(true);
        for (cells, value) in self.cells.iter_mut().zip(values) {
            cells.push(value);
        }
    }

    /// Nulls up to, not including, this row.
    fn fill(&mut self, row: usize) {
        let missing = row.saturating_sub(self.valid.len());
        if missing > 0 {
            self.valid.append_n(missing, false);
            self.cells.iter_mut().for_each(|cells| cells.nulls(missing));
        }
    }

    fn finish(mut self, fields: &Fields, rows: usize) -> Result<ArrayRef> {
        self.fill(rows);
        let nulls = NullBuffer::new(self.valid.finish());
        let arrays = self.cells.iter_mut().zip(fields);
        let arrays = arrays
            .map(|(cells, field)| cells.finish(field.data_type()))
            .collect::<Result<_>>()?;
        let column = StructArray::try_new_with_length(fields.clone(), arrays, Some(nulls), rows);
        Ok(Arc::new(column.map_err(|e| unfit(e.to_string()))?))
    }
}

/// One typed column.
enum Cells {
    Text(StringBuilder),
    Boolean(BooleanBuilder),
    Integer(Int64Builder),
    Decimal(Decimal128Builder),
    Instant(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    List(Lists),
}

/// A column of lists: all elements, and where in them each list ends.
struct Lists {
    elements: Box<Cells>,
    ends: Vec<i32>,
    valid: BooleanBufferBuilder,
}

impl Lists {
    fn push(&mut self, values: &[Value<'_>]) {
        values.iter().for_each(|value| self.elements.push(value));
        self.end(values.len(), true);
    }

    /// One list more, of this many elements.
    fn end(&mut self, elements: usize, is_valid: bool) {
        let last = self.ends.last().copied().unwrap_or(0);
        // An element is a byte of input at least, and a batch has 1 GiB at most.
        let elements = i32::try_from(elements).unwrap_or(i32::MAX);
        self.ends.push(last.saturating_add(elements));
        self.valid.append(is_valid);
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        let DataType::List(element) = data_type else {
            return Err(unfit(format!("{data_type} is no list")));
        };
        let elements = self.elements.finish(element.data_type())?;
        let nulls = NullBuffer::new(self.valid.finish());
        let offsets = std::iter::once(0).chain(std::mem::take(&mut self.ends));
        let offsets = OffsetBuffer::new(offsets.collect());
        let lists = ListArray::try_new(Arc::clone(element), offsets, elements, Some(nulls));
        Ok(Arc::new(lists.map_err(|e| unfit(e.to_string()))?))
    }
}

impl Cells {
    fn new(kind: &Kind) -> Self {
        match kind {
            Kind::List(element) => Cells::List(Lists {
                elements: Box::new(Cells::new(&element.kind)),
                ends: Vec::new(),
                valid: BooleanBufferBuilder::new(0),
            }),
            Kind::Text => Cells::Text(StringBuilder::new()),
            Kind::Boolean => Cells::Boolean(BooleanBuilder::new()),
            Kind::Integer => Cells::Integer(Int64Builder::new()),
            Kind::Decimal { .. } => Cells::Decimal(Decimal128Builder::new()),
            Kind::Instant => Cells::Instant(TimestampMicrosecondBuilder::new()),
            Kind::Date => Cells::Date(Date32Builder::new()),
        }
    }

    /// A value of another type cannot come, for the shape that reads it made these cells.
    fn push(&mut self, value: &Value<'_>) {
        match (self, value) {
            (Cells::Text(cells), Value::Text(text)) => cells.append_value(text),
            (Cells::Boolean(cells), Value::Boolean(value)) => cells.append_value(*value),
            (Cells::Integer(cells), Value::Integer(value)) => cells.append_value(*value),
            (Cells::Decimal(cells), Value::Decimal(value)) => cells.append_value(*value),
            (Cells::Instant(cells), Value::Instant(value)) => cells.append_value(*value),
            (Cells::Date(cells), Value::Date(value)) => cells.append_value(*value),
            (Cells::List(lists), Value::List(values)) => lists.push(values),
            (cells, _) => cells.nulls(1),
        }
    }

    fn nulls(&mut self, count: usize) {
        match self {
            Cells::Text(cells) => cells.append_nulls(count),
            Cells::Boolean(cells) => cells.append_nulls(count),
            Cells::Integer(cells) => cells.append_nulls(count),
            Cells::Decimal(cells) => cells.append_nulls(count),
            Cells::Instant(cells) => cells.append_nulls(count),
            Cells::Date(cells) => cells.append_nulls(count),
            Cells::List(lists) => (0..count).for_each(|_| lists.end(0, false)),
        }
    }

    fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef> {
        Ok(match self {
            Cells::Text(cells) => Arc::new(cells.finish()),
            Cells::Boolean(cells) => Arc::new(cells.finish()),
            Cells::Integer(cells) => Arc::new(cells.finish()),
            Cells::Decimal(cells) => Arc::new(cells.finish().with_data_type(data_type.clone())),
            Cells::Instant(cells) => Arc::new(cells.finish().with_data_type(data_type.clone())),
            Cells::Date(cells) => Arc::new(cells.finish()),
            Cells::List(lists) => lists.finish(data_type)?,
        })
    }
}
