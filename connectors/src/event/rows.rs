//! Events in memory: the columns that all of them have as one batch, and the values of each event type apart.
//!
//! A column for each type over all rows would make every event pay for every type. Here an event costs its own columns
//! and four bytes for its place, however many types there are.

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StructArray,
        UInt32Array, new_null_array,
    },
    buffer::{BooleanBuffer, NullBuffer},
    compute::{filter, filter_record_batch, take},
    datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef},
    error::ArrowError,
};
use std::sync::Arc;

/// Some rows of `events`, in an order of their own.
///
/// ```
/// # use arrow::{array::*, datatypes::*};
/// # use std::sync::Arc;
/// # use tollgate_connectors::event::EventBatch;
/// // Two rows, of which the second is of the type `call`.
/// let n = Fields::from(vec![Field::new("n", DataType::Int64, true)]);
/// let call = StructArray::new(n.clone(), vec![Arc::new(Int64Array::from(vec![0, 7]))], Some(vec![false, true].into()));
/// let sequence = Int64Array::from(vec![1, 2]);
/// let schema = Arc::new(Schema::new(vec![
///     Field::new("sequence", DataType::Int64, false),
///     Field::new("call", DataType::Struct(n), true),
/// ]));
/// let rows = RecordBatch::try_new(schema, vec![Arc::new(sequence), Arc::new(call)])?;
///
/// let events = EventBatch::split(&rows)?;
/// let calls = events.of_type("call").unwrap();
/// assert_eq!((events.num_rows(), calls.places(), calls.values().len()), (2, &[1][..], 1));
/// assert_eq!(events.whole()?, rows);
/// # Ok::<_, arrow::error::ArrowError>(())
/// ```
#[derive(Debug, Clone)]
pub struct EventBatch {
    /// That of `events`.
    schema: SchemaRef,
    /// The columns that are no struct.
    head: RecordBatch,
    /// By name; each has a row.
    types: Vec<TypedRows>,
}

/// The rows of one event type.
#[derive(Debug, Clone)]
pub struct TypedRows {
    field: FieldRef,
    /// Where they are among all rows, rising.
    places: UInt32Array,
    /// None is NULL.
    values: StructArray,
}

impl TypedRows {
    /// Values, and their rising places.
    pub(super) fn new(field: FieldRef, places: Vec<u32>, values: StructArray) -> Self {
        TypedRows {
            field,
            places: places.into(),
            values,
        }
    }

    /// The event type's name, which is its column's.
    pub fn name(&self) -> &str {
        self.field.name()
    }

    /// Where the rows are among all rows of the batch, rising.
    pub fn places(&self) -> &[u32] {
        self.places.values()
    }

    /// A value for each of the rows.
    pub fn values(&self) -> &StructArray {
        &self.values
    }

    /// What these rows have in a column of the head.
    ///
    /// # Errors
    /// The column is not as long as the head.
    pub fn take(&self, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        match self.places.len() == column.len() {
            // They rise, so they are all.
            true => Ok(Arc::clone(column)),
            false => take(column, &self.places, None),
        }
    }

    /// A column of `rows` rows that is NULL where no row of this type is.
    fn among(&self, rows: usize, children: &Fields) -> Result<ArrayRef, ArrowError> {
        let mut at = vec![None; rows];
        for (row, place) in (0_u32..).zip(self.places()) {
            at[*place as usize] = Some(row);
        }
        let is_valid: NullBuffer = at.iter().map(Option::is_some).collect();
        let at = UInt32Array::from(at);
        let columns = self.values.columns().iter();
        let columns = columns.map(|column| take(column, &at, None));
        let columns = columns.collect::<Result<_, _>>()?;
        let column =
            StructArray::try_new_with_length(children.clone(), columns, Some(is_valid), rows)?;
        Ok(Arc::new(column))
    }

    /// The rows that a mask over all rows lets through. `ranks` has for each row how many before it are let through.
    fn filter(&self, mask: &BooleanBuffer, ranks: &[u32]) -> Result<Option<Self>, ArrowError> {
        let passes = |place: &u32| mask.value(*place as usize);
        let kept: Vec<bool> = self.places().iter().map(passes).collect();
        let places = self.places().iter().filter(|place| passes(place));
        let places: Vec<u32> = places.map(|place| ranks[*place as usize]).collect();
        if places.is_empty() {
            return Ok(None);
        }
        let values = match places.len() == self.values.len() {
            true => self.values.clone(),
            false => filter(&self.values, &BooleanArray::from(kept))?
                .as_struct()
                .clone(),
        };
        Ok(Some(TypedRows::new(
            Arc::clone(&self.field),
            places,
            values,
        )))
    }
}

impl EventBatch {
    /// `head` has the columns of `schema` that are no struct, in their order.
    pub(super) fn new(schema: SchemaRef, head: RecordBatch, mut types: Vec<TypedRows>) -> Self {
        types.sort_by(|a, b| a.name().cmp(b.name()));
        EventBatch {
            schema,
            head,
            types,
        }
    }

    /// Rows that have a column for each type. A struct that is missing counts as NULL in all rows.
    ///
    /// # Errors
    /// More rows than 32 bits count.
    pub fn split(rows: &RecordBatch) -> Result<Self, ArrowError> {
        let schema = rows.schema();
        let mut types = Vec::new();
        for (field, column) in schema.fields().iter().zip(rows.columns()) {
            if let Some(structs) = column.as_struct_opt()
                && structs.null_count() < structs.len()
            {
                types.push(dense(field, structs)?);
            }
        }
        let head = head_of(&schema);
        Ok(EventBatch::new(
            Arc::clone(&schema),
            rows.project(&head)?,
            types,
        ))
    }

    /// The columns of `events`.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many events there are.
    pub fn num_rows(&self) -> usize {
        self.head.num_rows()
    }

    /// The columns that all events have.
    pub fn head(&self) -> &RecordBatch {
        &self.head
    }

    /// The event types that have a row here, by name.
    pub fn types(&self) -> &[TypedRows] {
        &self.types
    }

    /// The rows of one event type; `None` when there are none.
    pub fn of_type(&self, name: &str) -> Option<&TypedRows> {
        let at = self.types.binary_search_by(|typed| typed.name().cmp(name));
        at.ok().map(|at| &self.types[at])
    }

    /// The same events with other columns of the same names and types in the head.
    ///
    /// # Errors
    /// The columns do not fit.
    pub fn with_head(&self, columns: Vec<ArrayRef>) -> Result<Self, ArrowError> {
        Ok(EventBatch {
            head: RecordBatch::try_new(self.head.schema(), columns)?,
            ..self.clone()
        })
    }

    /// The events that a mask lets through.
    ///
    /// # Errors
    /// The mask has another length.
    pub fn filter(&self, mask: &BooleanBuffer) -> Result<Self, ArrowError> {
        if mask.count_set_bits() == self.num_rows() {
            return Ok(self.clone());
        }
        let head = filter_record_batch(&self.head, &BooleanArray::from(mask.clone()))?;
        let mut rank = 0;
        let ranks = mask.iter().map(|passes| {
            let before = rank;
            rank += u32::from(passes);
            before
        });
        let ranks: Vec<u32> = ranks.collect();
        let types = self.types.iter();
        let types = types.filter_map(|typed| typed.filter(mask, &ranks).transpose());
        Ok(EventBatch {
            schema: Arc::clone(&self.schema),
            head,
            types: types.collect::<Result<_, _>>()?,
        })
    }

    /// The same rows as batches of one event type each, by name, and at last one of those that are of none. A batch has the
    /// columns of the head and its type's struct.
    ///
    /// # Errors
    /// None of Arrow's limits is reached by parts where the whole did not.
    pub fn parts(&self) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut parts = Vec::with_capacity(self.types.len() + 1);
        let mut is_typed = vec![false; self.num_rows()];
        for typed in &self.types {
            typed
                .places()
                .iter()
                .for_each(|place| is_typed[*place as usize] = true);
            let columns = self.head.columns().iter().map(|column| typed.take(column));
            let mut columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
            columns.push(Arc::new(typed.values.clone()));
            let fields = self.head.schema_ref().fields().iter().cloned();
            let fields: Fields = fields.chain([Arc::clone(&typed.field)]).collect();
            parts.push(RecordBatch::try_new(
                Arc::new(Schema::new(fields)),
                columns,
            )?);
        }
        let untyped = BooleanBuffer::collect_bool(is_typed.len(), |row| !is_typed[row]);
        match untyped.count_set_bits() {
            0 => {}
            rows if rows == self.num_rows() => parts.push(self.head.clone()),
            _ => parts.push(filter_record_batch(
                &self.head,
                &BooleanArray::from(untyped),
            )?),
        }
        Ok(parts)
    }

    /// The rows with a column for each type of the schema: what they would be without this.
    ///
    /// # Errors
    /// The columns do not fit the schema.
    pub fn whole(&self) -> Result<RecordBatch, ArrowError> {
        self.columns(&self.schema)
    }

    /// The same with some columns of the schema alone.
    ///
    /// # Errors
    /// A column is not one of these, and no struct.
    pub fn columns(&self, wanted: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let columns = wanted.fields().iter().map(|field| {
            let DataType::Struct(children) = field.data_type() else {
                let column = self.head.column_by_name(field.name());
                let missing = || ArrowError::SchemaError(format!("no column `{}`", field.name()));
                return column.map(Arc::clone).ok_or_else(missing);
            };
            match self.of_type(field.name()) {
                Some(typed) => typed.among(self.num_rows(), children),
                None => Ok(new_null_array(field.data_type(), self.num_rows())),
            }
        });
        let columns = columns.collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(self.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(wanted), columns, &options)
    }

    /// So many events from a place on.
    pub fn slice(&self, from: usize, length: usize) -> Self {
        let types = self.types.iter().filter_map(|typed| {
            let places = typed.places();
            let first = places.partition_point(|place| (*place as usize) < from);
            let end = places.partition_point(|place| (*place as usize) < from + length);
            let moved = places[first..end].iter();
            // A place of 32 bits is not before `from`, so that has no more.
            let moved = moved.map(|place| place - u32::try_from(from).unwrap_or(*place));
            let values = typed.values.slice(first, end - first);
            (first < end).then(|| TypedRows::new(Arc::clone(&typed.field), moved.collect(), values))
        });
        EventBatch {
            schema: Arc::clone(&self.schema),
            head: self.head.slice(from, length),
            types: types.collect(),
        }
    }

    /// What it takes in memory, in bytes.
    pub fn memory_size(&self) -> usize {
        let types = self.types.iter();
        let types = types.map(|typed| {
            typed.values.get_array_memory_size() + typed.places.get_array_memory_size()
        });
        self.head.get_array_memory_size() + types.sum::<usize>()
    }
}

/// The columns of a schema that are no struct.
pub(super) fn head_of(schema: &Schema) -> Vec<usize> {
    let fields = schema.fields().iter().enumerate();
    let head = fields.filter(|(_, field)| !matches!(field.data_type(), DataType::Struct(_)));
    head.map(|(index, _)| index).collect()
}

/// The rows of a column that are not NULL.
fn dense(field: &FieldRef, structs: &StructArray) -> Result<TypedRows, ArrowError> {
    let rows = count(structs.len())?;
    let Some(nulls) = structs.nulls().filter(|nulls| nulls.null_count() > 0) else {
        let values = StructArray::try_new_with_length(
            structs.fields().clone(),
            structs.columns().to_vec(),
            None,
            structs.len(),
        )?;
        return Ok(TypedRows::new(
            Arc::clone(field),
            (0..rows).collect(),
            values,
        ));
    };
    let places = (0..rows).filter(|row| nulls.is_valid(*row as usize));
    let mask = BooleanArray::from(nulls.inner().clone());
    let columns = structs.columns().iter().map(|column| filter(column, &mask));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let length = structs.len() - nulls.null_count();
    let values = StructArray::try_new_with_length(structs.fields().clone(), columns, None, length)?;
    Ok(TypedRows::new(Arc::clone(field), places.collect(), values))
}

fn count(rows: usize) -> Result<u32, ArrowError> {
    u32::try_from(rows).map_err(|_| {
        ArrowError::InvalidArgumentError(format!("{rows} rows are too many for one batch"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{Int64Array, StringArray},
        compute::{concat_batches, filter_record_batch},
        datatypes::{Field, Int64Type},
    };

    /// Rows of two types and of none, by turns of 7: `b`, none, `a`, `a`, none, `b`, `a`.
    fn whole(rows: usize) -> RecordBatch {
        let is_of = |turns: &[usize]| -> NullBuffer {
            (0..rows).map(|row| turns.contains(&(row % 7))).collect()
        };
        let number = |row: usize| i64::try_from(row * 3).unwrap();
        let numbers = || Int64Array::from_iter_values((0..rows).map(number));
        let texts: StringArray = (0..rows)
            .map(|row| (row % 2 == 0).then(|| format!("text {row}")))
            .collect();
        let a = Fields::from(vec![Field::new("n", DataType::Int64, true)]);
        let b = Fields::from(vec![Field::new("text", DataType::Utf8, true)]);
        let schema = Schema::new(vec![
            Field::new("sequence", DataType::Int64, false),
            Field::new("b", DataType::Struct(b.clone()), true),
            Field::new("a", DataType::Struct(a.clone()), true),
            Field::new("unused", DataType::Struct(a.clone()), true),
            Field::new("extra", DataType::Int64, true),
        ]);
        // Below a row of another type is NULL, as it is made.
        let a_places = is_of(&[2, 3, 6]);
        let of_a = arrow::compute::nullif(&numbers(), &BooleanArray::from(!a_places.inner()));
        let b_places = is_of(&[0, 5]);
        let of_b = arrow::compute::nullif(&texts, &BooleanArray::from(!b_places.inner()));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(numbers()),
            Arc::new(StructArray::new(b, vec![of_b.unwrap()], Some(b_places))),
            Arc::new(StructArray::new(
                a.clone(),
                vec![of_a.unwrap()],
                Some(a_places),
            )),
            Arc::new(StructArray::new_null(a, rows)),
            Arc::new(numbers()),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    #[test]
    fn what_is_done_to_events_is_what_is_done_to_whole_rows() {
        for rows in [0, 1, 2, 7, 50] {
            let whole = whole(rows);
            let events = EventBatch::split(&whole).unwrap();
            assert_eq!(events.whole().unwrap(), whole);
            for turn in [1, 2, 3, 60] {
                let mask = BooleanBuffer::collect_bool(rows, |row| row % turn == turn - 1);
                let kept = filter_record_batch(&whole, &BooleanArray::from(mask.clone()));
                let filtered = events.filter(&mask).unwrap();
                assert_eq!(filtered.whole().unwrap(), kept.unwrap(), "{rows} {turn}");
                let (from, length) = (rows / turn, rows - rows / turn);
                let slice = events.slice(from, length);
                assert_eq!(slice.whole().unwrap(), whole.slice(from, length));
            }
        }
    }

    #[test]
    fn parts_are_rows_of_one_type_by_name_and_then_the_rest() {
        let events = EventBatch::split(&whole(9)).unwrap();
        let parts = events.parts().unwrap();
        let of = |part: &RecordBatch| {
            let sequences = part["sequence"]
                .as_primitive::<Int64Type>()
                .values()
                .to_vec();
            (part.schema_ref().fields().len(), sequences)
        };
        let expected = [
            (3, vec![6, 9, 18]),
            (3, vec![0, 15, 21]),
            (2, vec![3, 12, 24]),
        ];
        assert_eq!(parts.iter().map(of).collect::<Vec<_>>(), expected);
        assert_eq!(parts[0]["a"].null_count() + parts[1]["b"].null_count(), 0);
        // Rows of one type alone are not copied.
        let mask = BooleanBuffer::collect_bool(9, |row| [0, 5, 7].contains(&row));
        let parts = events.filter(&mask).unwrap().parts().unwrap();
        assert_eq!(parts.len(), 1);
        let all = concat_batches(parts[0].schema_ref(), &parts).unwrap();
        assert_eq!(of(&all), (3, vec![0, 15, 21]));
    }
}
