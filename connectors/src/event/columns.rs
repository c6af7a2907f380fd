//! The builders behind one batch. The values of a type are kept apart from those of all others, with the places of their
//! rows: a row costs its own columns alone.

use super::rows::{EventBatch, TypedRows, head_of};
use super::shape::{Kind, Shape, Value};
use super::{CONTENT_VERSION, Status, unfit};
use crate::Result;
use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBufferBuilder, BooleanBuilder, Date32Array, Date32Builder,
    Decimal128Builder, Int32Array, Int32Builder, Int64Array, Int64Builder, ListArray, RecordBatch,
    StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef, SchemaRef};
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
    content_version: Int32Builder,
    extra: StringBuilder,
    /// By shape; `None` before the first row of the type.
    types: Vec<Option<TypeColumn>>,
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
            content_version: Int32Builder::with_capacity(rows),
            extra: StringBuilder::new(),
            types: shapes.iter().map(|_| None).collect(),
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
        let version = head.content_hash.map(|_| i32::from(CONTENT_VERSION));
        self.content_version.append_option(version);
        self.extra.append_option(head.extra);
    }

    /// Adds the typed values of the row that is pushed next, which `shape` has read.
    pub(super) fn push_values(&mut self, number: usize, shape: &Shape, values: &[Value<'_>]) {
        // A batch has 1 GiB of input at most, and an event more than a byte.
        let row = u32::try_from(self.rows()).unwrap_or(u32::MAX);
        let column = self.types[number].get_or_insert_with(|| TypeColumn::new(shape));
        column.push(row, values);
    }

    /// The batch, and the status of each row.
    pub(super) fn finish(
        mut self,
        layout: &Layout,
        shard: &str,
    ) -> Result<(EventBatch, Vec<Status>)> {
        let head = layout.head.fields().iter().map(|field| {
            let column = self.head(field.name(), shard);
            column.ok_or_else(|| unfit(format!("no such column: `{}`", field.name())))
        });
        let head = head.collect::<Result<_>>()?;
        let head = RecordBatch::try_new(Arc::clone(&layout.head), head);
        let head = head.map_err(|e| unfit(e.to_string()))?;
        let types = layout.types.iter().zip(self.types);
        let types = types.filter_map(|(field, column)| Some(column?.finish(field)));
        let types = types.collect::<Result<_>>()?;
        let events = EventBatch::new(Arc::clone(&layout.schema), head, types);
        Ok((events, self.status))
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
            "content_version" => Arc::new(self.content_version.finish()),
            "extra" => Arc::new(self.extra.finish()),
            "ingest_day" => Arc::new(Date32Array::from(std::mem::take(&mut self.ingest_day))),
            _ => return None,
        })
    }
}

/// The columns of `events`, as they are filled.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) schema: SchemaRef,
    head: SchemaRef,
    /// By shape.
    types: Vec<FieldRef>,
}

impl Layout {
    /// # Errors
    /// A column beside the event types is not one that a decoder fills.
    pub(super) fn new(schema: SchemaRef) -> Result<Self> {
        let head = schema.project(&head_of(&schema));
        let fields = schema.fields().iter();
        let types = fields.filter(|field| matches!(field.data_type(), DataType::Struct(_)));
        let layout = Layout {
            head: Arc::new(head.map_err(|e| unfit(e.to_string()))?),
            types: types.cloned().collect(),
            schema,
        };
        Columns::new(&[], 0).finish(&layout, "")?;
        Ok(layout)
    }
}

/// The rows of one event type.
struct TypeColumn {
    cells: Vec<Cells>,
    places: Vec<u32>,
}

impl TypeColumn {
    fn new(shape: &Shape) -> Self {
        TypeColumn {
            cells: shape.kinds().map(Cells::new).collect(),
            places: Vec::new(),
        }
    }

    fn push(&mut self, row: u32, values: &[Value<'_>]) {
        self.places.push(row);
        for (cells, value) in self.cells.iter_mut().zip(values) {
            cells.push(value);
        }
    }

    fn finish(mut self, field: &FieldRef) -> Result<TypedRows> {
        let DataType::Struct(children) = field.data_type() else {
            return Err(unfit(format!("column `{}` is no struct", field.name())));
        };
        let arrays = self.cells.iter_mut().zip(children);
        let arrays = arrays
            .map(|(cells, field)| cells.finish(field.data_type()))
            .collect::<Result<_>>()?;
        let rows = self.places.len();
        let values = StructArray::try_new_with_length(children.clone(), arrays, None, rows);
        let values = values.map_err(|e| unfit(e.to_string()))?;
        Ok(TypedRows::new(Arc::clone(field), self.places, values))
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
    /// Nothing is reserved: of most types few rows may come.
    fn new(kind: &Kind) -> Self {
        match kind {
            Kind::List(element) => Cells::List(Lists {
                elements: Box::new(Cells::new(&element.kind)),
                ends: Vec::new(),
                valid: BooleanBufferBuilder::new(0),
            }),
            Kind::Text => Cells::Text(StringBuilder::with_capacity(0, 0)),
            Kind::Boolean => Cells::Boolean(BooleanBuilder::with_capacity(0)),
            Kind::Integer => Cells::Integer(Int64Builder::with_capacity(0)),
            Kind::Decimal { .. } => Cells::Decimal(Decimal128Builder::with_capacity(0)),
            Kind::Instant => Cells::Instant(TimestampMicrosecondBuilder::with_capacity(0)),
            Kind::Date => Cells::Date(Date32Builder::with_capacity(0)),
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
            (cells, _) => cells.null(),
        }
    }

    fn null(&mut self) {
        match self {
            Cells::Text(cells) => cells.append_null(),
            Cells::Boolean(cells) => cells.append_null(),
            Cells::Integer(cells) => cells.append_null(),
            Cells::Decimal(cells) => cells.append_null(),
            Cells::Instant(cells) => cells.append_null(),
            Cells::Date(cells) => cells.append_null(),
            Cells::List(lists) => lists.end(0, false),
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
