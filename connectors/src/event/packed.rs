//! Events as rows of two columns beside the head, however many types there are, so that they can be sorted, on disk if need
//! be.

use super::rows::{EventBatch, TypedRows, head_of};
use arrow::{
    array::{
        ArrayRef, AsArray, BinaryArray, Int32Array, RecordBatch, StructArray, UInt32Array,
        new_null_array,
    },
    compute::{concat_batches, take},
    datatypes::{DataType, Field, FieldRef, Fields, Int32Type, Schema, SchemaRef},
    error::ArrowError,
    row::{RowConverter, SortField},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// The column with a type's number; NULL in a row of no type.
const TYPE: &str = "packed type";
/// The column with its values.
const VALUES: &str = "packed values";

/// Packs events of one schema, and unpacks what it packed. What is packed is for this process alone.
#[derive(Debug)]
pub struct Packer {
    events: SchemaRef,
    packed: SchemaRef,
    types: Vec<PackedType>,
    numbers: HashMap<String, i32>,
}

#[derive(Debug)]
struct PackedType {
    field: FieldRef,
    children: Fields,
    rows: RowConverter,
}

impl Packer {
    /// For rows with these columns of `events`.
    ///
    /// # Errors
    /// A column is of a type that has no order.
    pub fn new(events: SchemaRef) -> Result<Self, ArrowError> {
        let head = head_of(&events).into_iter();
        let mut columns: Vec<FieldRef> = head.map(|at| Arc::clone(&events.fields()[at])).collect();
        columns.push(Arc::new(Field::new(TYPE, DataType::Int32, true)));
        columns.push(Arc::new(Field::new(VALUES, DataType::Binary, true)));
        let mut types = Vec::new();
        for field in events.fields() {
            if let DataType::Struct(children) = field.data_type() {
                let sort = |child: &FieldRef| SortField::new(child.data_type().clone());
                types.push(PackedType {
                    field: Arc::clone(field),
                    children: children.clone(),
                    rows: RowConverter::new(children.iter().map(sort).collect())?,
                });
            }
        }
        let names = types.iter().map(|of| of.field.name().clone());
        Ok(Packer {
            numbers: names.zip(0..).collect(),
            packed: Arc::new(Schema::new(columns)),
            types,
            events,
        })
    }

    /// The columns of packed rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.packed
    }

    /// Packs rows, in an order of its own.
    ///
    /// # Errors
    /// The rows have other columns.
    pub fn pack(&self, events: &EventBatch) -> Result<RecordBatch, ArrowError> {
        let parts = events.parts()?;
        let parts = parts.iter().map(|part| self.pack_part(part));
        let parts: Vec<_> = parts.collect::<Result<_, _>>()?;
        concat_batches(&self.packed, &parts)
    }

    /// Rows of one type, or of none.
    fn pack_part(&self, part: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let rows = part.num_rows();
        let mut columns = part.columns().to_vec();
        let head = self.packed.fields().len() - 2;
        let packed: [ArrayRef; 2] = match columns.split_off(head).first() {
            Some(values) => {
                let number = part.schema_ref().field(head).name();
                let number = self.numbers.get(number).copied();
                let number = number.ok_or_else(|| unknown(part.schema_ref().field(head)))?;
                let of = &self.types[usize::try_from(number).unwrap_or_default()];
                let values = of.rows.convert_columns(values.as_struct().columns())?;
                [
                    Arc::new(Int32Array::from_value(number, rows)),
                    Arc::new(values.try_into_binary()?),
                ]
            }
            None => [
                new_null_array(&DataType::Int32, rows),
                new_null_array(&DataType::Binary, rows),
            ],
        };
        columns.extend(packed);
        RecordBatch::try_new(Arc::clone(&self.packed), columns)
    }

    /// The rows that were packed, in the order in which they are now.
    ///
    /// # Errors
    /// They were not packed by this.
    pub fn unpack(&self, packed: &RecordBatch) -> Result<EventBatch, ArrowError> {
        let head: Vec<usize> = (0..packed.num_columns() - 2).collect();
        let numbers = packed[TYPE].as_primitive::<Int32Type>();
        let mut places: BTreeMap<i32, Vec<u32>> = BTreeMap::new();
        for (place, number) in (0..).zip(numbers) {
            if let Some(number) = number {
                places.entry(number).or_default().push(place);
            }
        }
        let types = places.into_iter().map(|(number, places)| {
            let of = usize::try_from(number)
                .ok()
                .and_then(|at| self.types.get(at));
            let of = of.ok_or_else(|| unknown(packed.schema_ref().field(head.len())))?;
            let rows = places.len();
            let values = take(&packed[VALUES], &UInt32Array::from(places.clone()), None)?;
            let values: BinaryArray = values.as_binary::<i32>().clone();
            let values = of.rows.from_binary(values);
            let values = of.rows.convert_rows(values.iter())?;
            let children = of.children.clone();
            let values = StructArray::try_new_with_length(children, values, None, rows)?;
            Ok(TypedRows::new(Arc::clone(&of.field), places, values))
        });
        let types = types.collect::<Result<_, ArrowError>>()?;
        Ok(EventBatch::new(
            Arc::clone(&self.events),
            packed.project(&head)?,
            types,
        ))
    }
}

fn unknown(field: &Field) -> ArrowError {
    ArrowError::SchemaError(format!(
        "`{}` is no event type that was packed",
        field.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{Int64Array, ListArray, StringArray},
        compute::take_record_batch,
        datatypes::Int64Type,
    };

    /// Four rows: two of `a`, of which one has no list, one of `b`, and one of neither.
    fn events() -> EventBatch {
        let n = Fields::from(vec![Field::new("n", DataType::Int64, true)]);
        let element = Arc::new(Field::new_list_field(DataType::Int64, true));
        let lists = Fields::from(vec![
            Field::new("text", DataType::Utf8, true),
            Field::new("list", DataType::List(element), true),
        ]);
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
            Some(vec![Some(1), Some(2)]),
            None,
            None,
            None,
        ]);
        let text = StringArray::from(vec![None, None, Some("é"), None]);
        let of_a = Some(vec![true, false, true, false].into());
        let a = StructArray::new(lists.clone(), vec![Arc::new(text), Arc::new(list)], of_a);
        let numbers = Int64Array::from(vec![0, 7, 0, 0]);
        let of_b = Some(vec![false, true, false, false].into());
        let b = StructArray::new(n.clone(), vec![Arc::new(numbers)], of_b);
        let schema = Schema::new(vec![
            Field::new("sequence", DataType::Int64, false),
            Field::new("a", DataType::Struct(lists), true),
            Field::new("b", DataType::Struct(n), true),
            Field::new("extra", DataType::Utf8, true),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1, 2, 3, 4])),
            Arc::new(a),
            Arc::new(b),
            Arc::new(StringArray::from(vec![None, Some("x"), None, None])),
        ];
        EventBatch::split(&RecordBatch::try_new(Arc::new(schema), columns).unwrap()).unwrap()
    }

    #[test]
    fn rows_that_were_packed_and_sorted_are_the_same_rows() {
        let events = events();
        let packer = Packer::new(Arc::clone(events.schema())).unwrap();
        let packed = packer.pack(&events).unwrap();
        assert_eq!(packed.schema(), *packer.schema());
        let sequences = packed["sequence"].as_primitive::<Int64Type>().values();
        let mut order: Vec<u32> = (0..4).collect();
        for backwards in [false, true] {
            order.sort_by_key(|row| match (sequences[*row as usize], backwards) {
                (sequence, false) => sequence,
                (sequence, true) => -sequence,
            });
            let order = UInt32Array::from(order.clone());
            let sorted = take_record_batch(&packed, &order).unwrap();
            let places = match backwards {
                false => UInt32Array::from(vec![0, 1, 2, 3]),
                true => UInt32Array::from(vec![3, 2, 1, 0]),
            };
            let expected = take_record_batch(&events.whole().unwrap(), &places).unwrap();
            let unpacked = packer.unpack(&sorted).unwrap();
            assert_eq!(unpacked.whole().unwrap(), expected);
        }
        let nothing = packer.pack(&events.slice(0, 0)).unwrap();
        assert_eq!(packer.unpack(&nothing).unwrap().num_rows(), 0);
    }
}
